package portal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thesyncim/gopus"

	"steno/functions/finalize"
	"steno/functions/portal"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/media"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const (
	northCall = teams.CallID("north-call")
	southCall = teams.CallID("south-call")
)

// callEpoch is when the calls of these tests begin.
var callEpoch = day.Add(9 * time.Hour)

// callID is the conversation of a call that ring made.
func callID(call teams.CallID) string {
	return string(conversation.IDOf(conversation.CallKeyOf(tenant, chainOf(call)), callEpoch))
}

func chainOf(call teams.CallID) teams.ChainID { return teams.ChainID("chain-of-" + string(call)) }

// tones are packets of sines by frequency: encoding takes longer than all else here.
var tones = sync.OnceValue(func() map[float64][][]byte {
	out := map[float64][][]byte{}
	for _, hz := range []float64{300, 700} {
		enc, err := gopus.NewEncoder(gopus.EncoderConfig{SampleRate: 16000, Channels: 1, Application: gopus.ApplicationVoIP})
		if err != nil {
			panic(err)
		}
		pcm, buf := make([]float32, 320), make([]byte, 1500)
		for f := range 500 {
			for i := range pcm {
				pcm[i] = float32(0.4 * math.Sin(2*math.Pi*hz*float64(f*320+i)/16000))
			}
			n, err := enc.Encode(pcm, buf)
			if err != nil {
				panic(err)
			}
			out[hz] = append(out[hz], slices.Clone(buf[:n]))
		}
	}
	return out
})

// ringing is a call of a recorded user with a telephone, three segments long: 300 Hz from
// second 1 to 11, 700 Hz from second 7 to 17.
func ringing(who teams.PersonID, call teams.CallID) storetest.Recording {
	audio := func(s teams.SourceID) []teams.MediaStream {
		return []teams.MediaStream{{Kind: teams.MediaAudio, Source: s, Direction: "sendReceive"}}
	}
	recorded := teams.Participant{ID: "p1", Party: teams.Party{Kind: teams.PartyUser, ID: string(who), Name: "Rec \"User\""}, Streams: audio(7)}
	return storetest.Recording{
		Tenant: tenant, Call: call, Chain: chainOf(call), Recorder: "bot", Epoch: callEpoch, Slots: 3, Outcome: conversation.OutcomeRecorded,
		Tracks: []storetest.RecordedTrack{
			{Track: "audio-7", Source: 7, Offset: time.Second, Packets: tones()[300]},
			{Track: "audio-9", Source: 9, Offset: 7 * time.Second, Packets: tones()[700], Gaps: []conversation.Gap{
				{From: callEpoch.Add(8 * time.Second), To: callEpoch.Add(9 * time.Second), Kind: conversation.GapLost, Frames: 50},
			}},
		},
		Events: []conversation.LegEvent{
			{At: callEpoch, Kind: conversation.EventInvited, Invite: &teams.Invite{Call: call, Chain: chainOf(call), Tenant: tenant, Recorded: recorded, At: callEpoch}},
			{At: callEpoch.Add(time.Second), Kind: conversation.EventRoster, Roster: []teams.Participant{recorded,
				{ID: "p2", Party: teams.Party{Kind: teams.PartyPhone, ID: "+4930123456"}, Streams: audio(9)}}},
		},
	}
}

// finalizer is what seals the calls of these tests.
func (w *world) finalizer() *finalize.Finalizer {
	return finalize.New(finalize.Config{Tenant: tenant, Now: w.clock.Now}, w.evidence, w.catalog, nobodyKnown{},
		custody.Log{Trail: &storetest.Trail{}, Now: w.clock.Now}, noQueue{}, slog.New(slog.DiscardHandler))
}

type nobodyKnown struct{}

func (nobodyKnown) User(_ context.Context, id teams.PersonID) (teams.User, error) {
	return teams.User{ID: id}, nil
}
func (nobodyKnown) ChatTopic(context.Context, teams.ThreadID) (string, error) { return "", nil }

type noQueue struct{}

func (noQueue) Send(context.Context, string, []byte, time.Time) error { return nil }

func (w *world) tell(n conversation.LegNotice) {
	w.t.Helper()
	body, err := conversation.EncodeNotice(n)
	w.must(err)
	w.must(w.finalizer().Handle(w.t.Context(), body))
}

// ring records and seals a call.
func (w *world) ring(who teams.PersonID, call teams.CallID) {
	w.t.Helper()
	rec := ringing(who, call)
	rec.Packed = true
	n, err := rec.Store(w.t.Context(), w.evidence)
	w.must(err)
	w.tell(n)
}

// running records a call of n segments that goes on.
func (w *world) running(who teams.PersonID, call teams.CallID, without ...int) storetest.Recording {
	w.t.Helper()
	rec := ringing(who, call)
	rec.Outcome, rec.Without = "", without
	n, err := rec.Store(w.t.Context(), w.evidence)
	w.must(err)
	n.Kind, n.Bundles, n.Invite = conversation.LegStarted, 0, rec.Events[0].Invite
	w.tell(n)
	return rec
}

func legPath(call teams.CallID, rest string) string {
	return "conversations/" + callID(call) + "/legs/" + string(conversation.LegOf(tenant, call)) + rest
}

type playerDocument struct {
	State, Outcome, Master string
	Epoch, From, To        time.Time
	Lanes                  []struct {
		ID, Kind, Playlist string
		Party              *conversation.Participant
		Gaps               []conversation.Gap
	}
	Event string
}

func TestAPlayerIsToldLanesGapsAndPeople(t *testing.T) {
	w := newWorld(t)
	w.ring(rita, northCall)
	rec := w.get(nora, legPath(northCall, ""))
	want(t, rec, http.StatusOK)
	p := decode[playerDocument](t, rec.Body)
	if p.State != "sealed" || p.Outcome != "recorded" || len(p.Lanes) != 2 || p.Lanes[0].Party.ID != string(rita) || p.Lanes[1].Party.ID != "+4930123456" {
		t.Fatalf("%+v", p)
	}
	if g := p.Lanes[1].Gaps; len(g) != 1 || g[0].Kind != conversation.GapLost {
		t.Errorf("%+v", g)
	}
	if !p.From.Equal(callEpoch.Add(time.Second)) || !p.To.Equal(callEpoch.Add(17*time.Second)) {
		t.Errorf("%s to %s", p.From, p.To)
	}
	peaks := w.get(nora, legPath(northCall, "/peaks"))
	want(t, peaks, http.StatusOK)
	var drawn finalize.Peaks
	w.must(json.NewDecoder(peaks.Body).Decode(&drawn))
	if got := drawn.Tracks[0]; got.Track != "audio-7" || len(got.Peaks) != 100 || got.Peaks[50] < 150 {
		t.Errorf("%+v", got)
	}
}

// pull plays a playlist: every segment that it lists, decoded.
func (w *world) pull(who teams.PersonID, call teams.CallID, list string) []float32 {
	w.t.Helper()
	rec := w.get(who, legPath(call, "/"+list))
	want(w.t, rec, http.StatusOK)
	dir := list[:strings.LastIndex(list, "/")+1]
	init := regexp.MustCompile(`URI="([^"]+)"`).FindStringSubmatch(rec.Body.String())
	got := w.get(who, legPath(call, "/"+dir+init[1]))
	want(w.t, got, http.StatusOK)
	if !bytes.Equal(got.Body.Bytes(), media.OpusInit(1)) {
		w.t.Fatal("another initialization segment")
	}
	d, err := media.NewDecoder()
	w.must(err)
	var pcm []float32
	next := uint64(0)
	for line := range strings.Lines(rec.Body.String()) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		w.clock.Move(time.Second)
		seg := w.get(who, legPath(call, "/"+dir+strings.TrimSpace(line)))
		want(w.t, seg, http.StatusOK)
		f, err := media.ParseFragment(seg.Body.Bytes())
		w.must(err)
		if next != 0 && f.Time != next {
			w.t.Errorf("%s begins at %d, the one before ended at %d", line, f.Time, next)
		}
		next = f.Time
		for _, s := range f.Samples {
			out, err := d.Decode(s.Data)
			w.must(err)
			pcm = append(pcm, out...)
			next += uint64(s.Duration)
		}
	}
	return pcm
}

// loudness is the share of a second's energy at one frequency, times its level.
func loudness(pcm []float32, second int, hz float64) float64 {
	var re, im float64
	from := second * media.AudioTimescale
	for i, x := range pcm[from : from+media.AudioTimescale] {
		re += float64(x) * math.Cos(2*math.Pi*hz*float64(i)/media.AudioTimescale)
		im += float64(x) * math.Sin(2*math.Pi*hz*float64(i)/media.AudioTimescale)
	}
	return 2 * math.Hypot(re, im) / media.AudioTimescale
}

func TestEveryRenditionSoundsAsWhatWasRecordedAtItsTime(t *testing.T) {
	for _, live := range []bool{false, true} {
		w := newWorld(t)
		if live {
			w.running(rita, northCall)
		} else {
			w.ring(rita, northCall)
		}
		p := decode[playerDocument](t, w.get(nora, legPath(northCall, "")).Body)
		for name, list := range map[string]string{"300": p.Lanes[0].Playlist, "700": p.Lanes[1].Playlist, "mixed": "audio/mixed.m3u8"} {
			pcm := w.pull(nora, northCall, list)
			if got := time.Duration(len(pcm)) * time.Second / media.AudioTimescale; (got - 18*time.Second).Abs() > 20*time.Millisecond {
				t.Fatalf("%s lasts %s", name, got)
			}
			for second := range 17 {
				low := name != "700" && second >= 1 && second < 11
				high := name != "300" && second >= 7 && second < 17
				if got := loudness(pcm, second, 300) > 0.2; got != low {
					t.Errorf("live %v, %s: 300 Hz in second %d: %.3f", live, name, second, loudness(pcm, second, 300))
				}
				if got := loudness(pcm, second, 700) > 0.2; got != high {
					t.Errorf("live %v, %s: 700 Hz in second %d: %.3f", live, name, second, loudness(pcm, second, 700))
				}
			}
		}
	}
}

func TestARunningCallGrowsAndEndsWhenItIsSealed(t *testing.T) {
	w := newWorld(t)
	rec := w.running(rita, northCall, 1, 2)
	list := func() string {
		w.clock.Move(3 * time.Second)
		rec := w.get(nora, legPath(northCall, "/audio/mixed.m3u8"))
		want(t, rec, http.StatusOK)
		return rec.Body.String()
	}
	if l := list(); strings.Count(l, "#EXTINF") != 1 || strings.Contains(l, "ENDLIST") || !strings.Contains(l, "PLAYLIST-TYPE:EVENT") {
		t.Error(l)
	}
	rec.Outcome, rec.Without = conversation.OutcomeRecorded, []int{0}
	n, err := rec.Store(t.Context(), w.evidence)
	w.must(err)
	if l := list(); strings.Count(l, "#EXTINF") != 3 || strings.Contains(l, "ENDLIST") {
		t.Error(l)
	}
	w.tell(n)
	if l := list(); strings.Count(l, "#EXTINF") != 3 || !strings.Contains(l, "ENDLIST") {
		t.Error(l)
	}
}

func TestAMissingBundleOfARunningCallIsShownWhenItComes(t *testing.T) {
	w := newWorld(t)
	rec := w.running(rita, northCall, 1)
	count := func() int {
		w.clock.Move(3 * time.Second)
		return strings.Count(w.get(nora, legPath(northCall, "/audio/mixed.m3u8")).Body.String(), "#EXTINF")
	}
	if n := count(); n != 2 {
		t.Fatalf("%d segments", n)
	}
	rec.Without = []int{0, 2}
	_, err := rec.Store(t.Context(), w.evidence)
	w.must(err)
	if n := count(); n != 3 {
		t.Errorf("%d segments after the late one came", n)
	}
}

func TestPlayingLeavesOneEventForAsLongAsAReceiptLasts(t *testing.T) {
	w := newWorld(t)
	w.ring(rita, northCall)
	before := len(w.events())
	token := http.Header{"Authorization": {"Bearer " + w.token(nora)}}
	for range 5 {
		want(t, w.send(http.MethodGet, "/steno/v1/"+legPath(northCall, "/audio/mixed/1-0.m4s"), token), http.StatusOK)
	}
	events := w.events()[before:]
	if len(events) != 1 || events[0].Action != custody.Played || events[0].Actor != nora || events[0].Item != string(conversation.LegOf(tenant, northCall)) {
		t.Fatalf("%+v", events)
	}
	w.clock.Move(custody.Lifetime)
	want(t, w.send(http.MethodGet, "/steno/v1/"+legPath(northCall, "/audio/mixed/1-0.m4s"), token), http.StatusOK)
	want(t, w.get(carla, legPath(northCall, "/audio/mixed/1-0.m4s")), http.StatusOK)
	if n := len(w.events()[before:]); n != 3 {
		t.Errorf("%d events, want one more for the time and one for the other person", n)
	}
}

func (w *world) events() []custody.Record {
	w.t.Helper()
	list, err := w.trail.Range(w.t.Context(), started.Add(-time.Hour), started.Add(240*time.Hour), 1000)
	w.must(err)
	return list
}

func TestALegOfSomebodyElsesRecordedUserIsNotHeardInASharedCall(t *testing.T) {
	w := newWorld(t)
	for call, who := range map[teams.CallID]teams.PersonID{northCall: rita, southCall: sven} {
		rec := ringing(who, call)
		rec.Chain = "shared"
		rec.Events[0].Invite.Chain = "shared"
		n, err := rec.Store(t.Context(), w.evidence)
		w.must(err)
		w.tell(n)
	}
	id := string(conversation.IDOf(conversation.CallKeyOf(tenant, "shared"), callEpoch))
	path := func(call teams.CallID) string {
		return "conversations/" + id + "/legs/" + string(conversation.LegOf(tenant, call))
	}
	want(t, w.get(nora, path(northCall)), http.StatusOK)
	want(t, w.get(nora, path(southCall)), http.StatusNotFound)
	var detail struct{ Legs []struct{ Leg string } }
	w.must(json.NewDecoder(w.get(nora, "conversations/"+id).Body).Decode(&detail))
	if len(detail.Legs) != 1 {
		t.Errorf("%+v", detail)
	}
}

func (w *world) ranged(path, header string) *httptest.ResponseRecorder {
	w.t.Helper()
	w.clock.Move(time.Second)
	return w.send(http.MethodGet, "/steno/v1/"+path, http.Header{"Authorization": {"Bearer " + w.token(nora)}, "Range": {header}})
}

func TestOneRangeIsAnsweredExactlyAndEveryOtherRefused(t *testing.T) {
	w := newWorld(t)
	w.ring(rita, northCall)
	path := legPath(northCall, "/bundles/1-0")
	rec := w.get(nora, path)
	want(t, rec, http.StatusOK)
	whole := rec.Body.Bytes()
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		a := rng.IntN(len(whole))
		z := a + rng.IntN(len(whole))
		got := w.ranged(path, fmt.Sprintf("bytes=%d-%d", a, z))
		want(t, got, http.StatusPartialContent)
		if !bytes.Equal(got.Body.Bytes(), whole[a:min(z+1, len(whole))]) {
			t.Fatalf("seed %d: bytes %d-%d differ", seed, a, z)
		}
	}
	for header, part := range map[string][]byte{"bytes=5-": whole[5:], "bytes=-7": whole[len(whole)-7:], fmt.Sprintf("bytes=-%d", len(whole)*2): whole} {
		got := w.ranged(path, header)
		if got.Code != http.StatusPartialContent || !bytes.Equal(got.Body.Bytes(), part) {
			t.Errorf("%s: %d with %d bytes", header, got.Code, got.Body.Len())
		}
	}
	for _, header := range []string{
		"bytes=0-1,3-4", "bytes=9-3", "bytes=-0", "bytes=-", "bytes=", "bytes", "items=0-1", "bytes=0x1-2", "bytes=+1-2", "bytes= 1-2", "bytes=1-2 ",
		"bytes=99999999999999999999-", "bytes=0-99999999999999999999", fmt.Sprintf("bytes=%d-", len(whole)), "bytes=-99999999999999999999", "bytes=" + strings.Repeat("1", 100) + "-",
	} {
		got := w.ranged(path, header)
		if got.Code != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("%q: %d", header, got.Code)
		}
	}
	for range 1000 {
		want(t, w.ranged(path, "bytes=1-1"), http.StatusPartialContent)
	}
}

func TestNamesInAPlaylistCannotEndTheLineTheyStandIn(t *testing.T) {
	w := newWorld(t)
	rec := ringing(rita, northCall)
	rec.Events[1].Roster[0].Name = "A\"\n#EXT-X-MAP:URI=\"https://evil.example/x\"\r\n"
	n, err := rec.Store(t.Context(), w.evidence)
	w.must(err)
	w.tell(n)
	got := w.get(nora, legPath(northCall, "/master.m3u8"))
	want(t, got, http.StatusOK)
	for line := range strings.Lines(got.Body.String()) {
		if strings.HasPrefix(line, "#EXT-X-MAP") || strings.Count(line, `"`)%2 != 0 {
			t.Errorf("line %q", line)
		}
	}
}

func TestACallHasNoMessagesAndAChatHasNoLegs(t *testing.T) {
	w := newWorld(t)
	w.ring(rita, northCall)
	want(t, w.get(nora, "conversations/"+callID(northCall)+"/messages"), http.StatusNotFound)
	want(t, w.get(nora, "conversations/"+idOf(northThread)+"/legs/"+string(conversation.LegOf(tenant, northCall))), http.StatusNotFound)
	want(t, w.get(nora, legPath(northCall, "/video/"+string(conversation.LaneUnknown)+".m3u8")), http.StatusNotFound)
	want(t, w.get(nora, legPath(northCall, "/audio/mixed/9-0.m4s")), http.StatusNotFound)
}

func TestOnePersonHasSoManyAnswersWithMediaUnderWayAndNoMore(t *testing.T) {
	w := newWorld(t)
	w.ring(rita, northCall)
	path := "/steno/v1/" + legPath(northCall, "/audio/mixed/1-0.m4s")
	askFor := func(ctx context.Context, who teams.PersonID) int {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
		r.Header.Set("Authorization", "Bearer "+w.token(who))
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, r)
		return rec.Code
	}
	ask := func(who teams.PersonID) int { return askFor(t.Context(), who) }
	if code := ask(nora); code != http.StatusOK {
		t.Fatal(code)
	}
	w.blobs.hold = make(chan struct{})
	w.blobs.held = make(chan struct{}, portal.MaxConcurrent+portal.MaxWaiting)
	done := make(chan int, portal.MaxConcurrent+portal.MaxWaiting)
	for range portal.MaxConcurrent {
		go func() { done <- ask(nora) }()
		<-w.blobs.held
	}
	// Who is gone does not wait on.
	gone, leave := context.WithCancel(t.Context())
	leave()
	if code := askFor(gone, nora); code == http.StatusOK {
		t.Errorf("one who is gone is answered %d", code)
	}
	// Of more than may wait, each that is too many is refused at once.
	const tooMany = 3
	for range portal.MaxWaiting + tooMany {
		go func() { done <- ask(nora) }()
	}
	for range tooMany {
		if code := <-done; code != http.StatusTooManyRequests {
			t.Errorf("one more is answered %d", code)
		}
	}
	if n := len(w.blobs.held); n != 0 {
		t.Errorf("%d more are under way", n)
	}
	close(w.blobs.hold)
	for range portal.MaxConcurrent + portal.MaxWaiting {
		if code := <-done; code != http.StatusOK {
			t.Errorf("one of those under way or waiting is answered %d", code)
		}
	}
	w.clock.Move(time.Second)
	if code := ask(nora); code != http.StatusOK {
		t.Errorf("afterwards: %d", code)
	}
}
