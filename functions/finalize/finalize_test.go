package finalize_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thesyncim/gopus"

	"steno/functions/finalize"
	"steno/functions/internal/funchost"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/msgraph"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const (
	home = teams.TenantID("11111111-aaaa-4bbb-8ccc-222222222222")
	rita = teams.PersonID("aaaaaaaa-0000-4000-8000-000000000001")
	otto = teams.PersonID("aaaaaaaa-0000-4000-8000-000000000002")
)

var start = time.Date(2026, 3, 4, 23, 59, 30, 0, time.UTC)

type rig struct {
	t        *testing.T
	blobs    storetest.Blobs
	tails    storetest.Tails
	trail    storetest.Trail
	register storetest.Catalog
	evidence *evidence.Store
	queue    queue
	people   directory
	log      bytes.Buffer
	now      time.Time
	f        *finalize.Finalizer
}

type sent struct {
	id     string
	body   []byte
	notice conversation.LegNotice
	at     time.Time
}

type queue struct{ sent []sent }

func (q *queue) Send(_ context.Context, id string, body []byte, at time.Time) error {
	n, err := conversation.DecodeNotice(body)
	q.sent = append(q.sent, sent{id, body, n, at})
	return err
}

type directory struct{ asked []string }

func (d *directory) User(_ context.Context, id teams.PersonID) (teams.User, error) {
	d.asked = append(d.asked, string(id))
	if id == otto {
		return teams.User{}, &msgraph.Error{Status: 404}
	}
	return teams.User{ID: id, DisplayName: "Rita Roe"}, nil
}

func (d *directory) ChatTopic(_ context.Context, thread teams.ThreadID) (string, error) {
	return "Topic of " + string(thread), nil
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, now: start.Add(time.Minute)}
	var err error
	r.evidence, err = evidence.New(evidence.Config{
		Blobs: &r.blobs, Tails: &r.tails, Keys: &storetest.Keys{}, Vault: storetest.NewVault(), VaultHosts: []string{storetest.VaultHost},
		Now: func() time.Time { return r.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return r.now }
	r.f = finalize.New(finalize.Config{Tenant: home, Now: clock}, r.evidence, &r.register, &r.people,
		custody.Log{Trail: &r.trail, Now: clock}, &r.queue, slog.New(slog.NewJSONHandler(&r.log, nil)))
	return r
}

func (r *rig) handle(n conversation.LegNotice) {
	r.t.Helper()
	body, err := conversation.EncodeNotice(n)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.f.Handle(r.t.Context(), body); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) call(chain teams.ChainID) conversation.Call {
	r.t.Helper()
	c, err := r.register.Call(r.t.Context(), conversation.CallKeyOf(home, chain))
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// open opens an object of a leg and reads it whole.
func (r *rig) open(leg conversation.Leg, object string) (*evidence.Object, []byte) {
	r.t.Helper()
	receipt, err := custody.Log{Trail: &r.trail, Now: func() time.Time { return r.now }}.Append(r.t.Context(),
		custody.Event{Tenant: home, Action: custody.SystemRead, System: "test", Item: string(leg.Leg)})
	if err != nil {
		r.t.Fatal(err)
	}
	o, err := r.evidence.Open(r.t.Context(), evidence.Ref{Tenant: home, Unit: string(leg.Leg), Object: object}, receipt)
	if err != nil {
		r.t.Fatal(err)
	}
	b, err := o.ReadAll(1 << 20)
	if err != nil {
		r.t.Fatal(err)
	}
	return o, b
}

func (r *rig) manifest(leg conversation.Leg) conversation.Manifest {
	r.t.Helper()
	_, b := r.open(leg, leg.Manifest)
	m, err := conversation.DecodeManifest(b)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

// tone is n packets of a sine.
func tone(t *testing.T, hz float64, n int) [][]byte {
	t.Helper()
	enc, err := gopus.NewEncoder(gopus.EncoderConfig{SampleRate: 16000, Channels: 1, Application: gopus.ApplicationVoIP})
	if err != nil {
		t.Fatal(err)
	}
	pcm, buf := make([]float32, 320), make([]byte, 1500)
	out := make([][]byte, n)
	for f := range out {
		for i := range pcm {
			pcm[i] = float32(0.4 * math.Sin(2*math.Pi*hz*float64(f*320+i)/16000))
		}
		k, err := enc.Encode(pcm, buf)
		if err != nil {
			t.Fatal(err)
		}
		out[f] = slices.Clone(buf[:k])
	}
	return out
}

func person(id teams.PersonID) teams.Party { return teams.Party{Kind: teams.PartyUser, ID: string(id)} }

func invite(call teams.CallID, chain teams.ChainID, who teams.PersonID) *teams.Invite {
	caller := false
	return &teams.Invite{
		Call: call, Chain: chain, Tenant: home, At: start, Caller: &caller, Recorder: "recorder",
		Recorded: teams.Participant{ID: "p1", Party: person(who)}, Thread: "19:meeting@thread.v2",
	}
}

func (r *rig) recording(call teams.CallID, chain teams.ChainID, who teams.PersonID) storetest.Recording {
	audio := func(source teams.SourceID) []teams.MediaStream {
		return []teams.MediaStream{{Kind: teams.MediaAudio, Source: source, Direction: "sendReceive"}}
	}
	return storetest.Recording{
		Tenant: home, Call: call, Chain: chain, Recorder: "bot-1", Epoch: start, Slots: 5, Outcome: conversation.OutcomeRecorded,
		Tracks: []storetest.RecordedTrack{
			{Track: "audio-7", Source: 7, Offset: time.Second, Packets: tone(r.t, 300, 1000)},
			{Track: "audio-9", Source: 9, Offset: 7 * time.Second, Packets: tone(r.t, 700, 500)},
		},
		Events: []conversation.LegEvent{
			{At: start, Kind: conversation.EventInvited, Invite: invite(call, chain, who)},
			{At: start.Add(time.Second), Kind: conversation.EventRoster, Roster: []teams.Participant{
				{ID: "p1", Party: person(who), Streams: audio(7)},
				{ID: "p2", Party: teams.Party{Kind: teams.PartyPhone, ID: "+4930123456"}, Streams: audio(9)},
				{ID: "p3", Party: teams.Party{Kind: teams.PartyInstance, ID: "recorder"}},
			}},
		},
	}
}

func (r *rig) store(rec storetest.Recording) conversation.LegNotice {
	r.t.Helper()
	n, err := rec.Store(r.t.Context(), r.evidence)
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

func started(n conversation.LegNotice, in *teams.Invite) conversation.LegNotice {
	n.Kind, n.Invite, n.At = conversation.LegStarted, in, start
	n.Bundles, n.Packs, n.Outcome = 0, 0, ""
	return n
}

func TestARunningCallIsListedWhenItsRecorderTakesIt(t *testing.T) {
	r := newRig(t)
	n := r.store(r.recording("call-1", "chain-1", rita))
	r.handle(started(n, invite("call-1", "chain-1", rita)))
	page, err := r.register.ByPerson(t.Context(), rita, start.Add(-time.Hour), start.Add(time.Hour), conversation.PageRequest{})
	if err != nil || len(page.Conversations) != 1 || !page.Conversations[0].Call.Running {
		t.Fatalf("%+v %v", page, err)
	}
	if len(r.queue.sent) != 1 || r.queue.sent[0].notice.Kind != conversation.LegCheck || !r.queue.sent[0].at.After(r.now) {
		t.Errorf("no check was arranged: %+v", r.queue.sent)
	}
}

func TestAnEndedLegIsVerifiedResolvedDrawnAndSealed(t *testing.T) {
	for _, packed := range []bool{true, false} {
		r := newRig(t)
		rec := r.recording("call-1", "chain-1", rita)
		rec.Packed = packed
		n := r.store(rec)
		r.handle(started(n, invite("call-1", "chain-1", rita)))
		r.handle(n)
		c := r.call("chain-1")
		leg := c.Legs[0]
		if leg.State != conversation.LegSealed || leg.Outcome != conversation.OutcomeRecorded || leg.Packs != 1 || leg.Bundles != 5 || leg.Lost != 0 {
			t.Errorf("packed %v: %+v", packed, leg)
		}
		if got := leg.To.Sub(leg.From); got != 20*time.Second {
			t.Errorf("media lasts %s", got)
		}
		facts := c.Conversation.Call
		if facts.Running || facts.Direction != conversation.PSTNIn || facts.Subject != "Topic of 19:meeting@thread.v2" || !slices.Equal(facts.Numbers, []string{"+4930123456"}) {
			t.Errorf("%+v", facts)
		}
		if p := c.Conversation.Participants; len(p) != 2 || p[0].Name != "Rita Roe" {
			t.Errorf("%+v", p)
		}
		m := r.manifest(leg)
		lanes := m.Lanes()
		if len(lanes) != 2 || lanes[0].Party.ID != string(rita) || lanes[1].Party.ID != "+4930123456" {
			t.Errorf("%+v", lanes)
		}
		if len(m.Packs) != 1 || len(m.Bundles) != 5 || m.Bundles[3].SHA256 == "" {
			t.Errorf("%+v", m)
		}
		if left, err := r.evidence.Tails(t.Context(), home, string(leg.Leg)); err != nil || len(left) != 0 {
			t.Errorf("%d tails are left, %v", len(left), err)
		}
		if leg.Peaks == "" {
			t.Error("no peaks")
		}
		r.handle(n) // delivered again
		if again := r.call("chain-1"); again.Revision != c.Revision {
			t.Error("a repeated notice changed the register")
		}
	}
}

func TestAMissingBundleIsALossThatAlarms(t *testing.T) {
	r := newRig(t)
	rec := r.recording("call-1", "chain-1", rita)
	rec.Without = []int{2, 4}
	n := r.store(rec)
	n.Outcome = conversation.OutcomeRecorded
	r.handle(n)
	leg := r.call("chain-1").Legs[0]
	m := r.manifest(leg)
	if leg.Outcome != conversation.OutcomeLost || leg.Lost == 0 || !strings.Contains(r.log.String(), "recording lost") {
		t.Errorf("%+v\n%s", leg, r.log.String())
	}
	for _, tr := range m.Tracks {
		if !slices.ContainsFunc(tr.Gaps, func(g conversation.Gap) bool {
			return g.Kind == conversation.GapLost && g.From.Equal(start.Add(12*time.Second)) && g.To.Equal(start.Add(18*time.Second))
		}) {
			t.Errorf("track %s has no gap where the bundle was: %+v", tr.Track, tr.Gaps)
		}
	}
}

// damaged stores a packed recording and flips a byte in the middle of the pack.
func (r *rig) damaged() conversation.LegNotice {
	t := r.t
	t.Helper()
	rec := r.recording("call-1", "chain-1", rita)
	rec.Packed = true
	n := r.store(rec)
	name := string(home) + "/" + string(n.Leg) + "/" + conversation.PackObject(n.Leg, 0)
	size, err := r.blobs.Size(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.blobs.ReadAt(t.Context(), name, 0, size)
	if err != nil {
		t.Fatal(err)
	}
	b[size/2] ^= 1
	r.blobs.Tamper(name, b)
	return n
}

func TestADamagedPackIsMadeGoodFromTailsAndAlarms(t *testing.T) {
	r := newRig(t)
	n := r.damaged()
	r.handle(n)
	leg := r.call("chain-1").Legs[0]
	if leg.Outcome != conversation.OutcomeRecorded || leg.Bundles != 5 || leg.Packs != 2 || leg.Lost != 0 {
		t.Errorf("%+v", leg)
	}
	if !strings.Contains(r.log.String(), "evidence damaged") {
		t.Errorf("no alarm: %s", r.log.String())
	}
	r.manifest(leg)
}

func TestAMissingPackIsMadeGoodFromTails(t *testing.T) {
	r := newRig(t)
	n := r.store(r.recording("call-1", "chain-1", rita))
	n.Packs = 1 // said to be there, and is not
	r.handle(n)
	leg := r.call("chain-1").Legs[0]
	if leg.Outcome != conversation.OutcomeRecorded || leg.Bundles != 5 || leg.Lost != 0 || !strings.Contains(r.log.String(), "evidence damaged") {
		t.Errorf("%+v", leg)
	}
}

func TestAChangedBundleIsNamedAndTheRestIsSealed(t *testing.T) {
	r := newRig(t)
	n := r.damaged()
	tails, err := r.evidence.Tails(t.Context(), home, string(n.Leg))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range tails {
		if err := r.evidence.DropTail(t.Context(), evidence.Ref{Tenant: home, Unit: string(n.Leg), Object: x.Name}); err != nil {
			t.Fatal(err)
		}
	}
	r.handle(n)
	leg := r.call("chain-1").Legs[0]
	if leg.Outcome != conversation.OutcomeLost || leg.Bundles != 4 || leg.Lost < 6*time.Second {
		t.Errorf("%+v", leg)
	}
}

func TestALegWithoutMediaIsSealedWithoutAlarm(t *testing.T) {
	r := newRig(t)
	call := teams.CallID("missed")
	n := conversation.LegNotice{
		Kind: conversation.LegEnded, Tenant: home, Leg: conversation.LegOf(home, call), Call: call, Chain: "chain-m", Recorder: "bot-1",
		At: start, Outcome: conversation.OutcomeEmpty, Invite: invite(call, "chain-m", rita),
	}
	r.handle(n)
	c := r.call("chain-m")
	if leg := c.Legs[0]; leg.State != conversation.LegSealed || leg.Outcome != conversation.OutcomeEmpty || leg.Manifest == "" {
		t.Errorf("%+v", leg)
	}
	if r.log.Len() != 0 {
		t.Errorf("it alarmed: %s", r.log.String())
	}
	r.manifest(c.Legs[0])
}

func TestALegWhoseRecorderFellSilentIsSealedFromWhatArrived(t *testing.T) {
	r := newRig(t)
	rec := r.recording("call-1", "chain-1", rita)
	rec.Outcome = ""
	n := r.store(rec)
	r.handle(started(n, invite("call-1", "chain-1", rita)))
	r.now = time.Now().Add(finalize.DefaultCheckEvery) // tails are stored by the machine's clock
	check := r.queue.sent[0].notice
	r.handle(check)
	if leg := r.call("chain-1").Legs[0]; leg.State != conversation.LegRunning || len(r.queue.sent) != 2 {
		t.Fatalf("sealed too early: %+v", leg)
	}
	r.now = r.now.Add(finalize.DefaultSilence)
	r.handle(r.queue.sent[1].notice)
	leg := r.call("chain-1").Legs[0]
	if leg.State != conversation.LegSealed || leg.Outcome != conversation.OutcomeLost || leg.Bundles != 5 || leg.Packs != 1 {
		t.Errorf("%+v", leg)
	}
	if !strings.Contains(r.log.String(), "recording lost") {
		t.Error("no alarm")
	}
	before := len(r.queue.sent)
	r.handle(r.queue.sent[1].notice)
	if len(r.queue.sent) != before {
		t.Error("a sealed leg is checked on")
	}
}

func TestLegsOfOneCallAreOneConversationAndTheSurplusCopyIsKnown(t *testing.T) {
	r := newRig(t)
	first := r.recording("call-1", "chain-1", rita)
	second := r.recording("call-2", "chain-1", rita) // the paired recorder, worse off
	second.Without, second.Epoch = []int{1}, start
	other := r.recording("call-3", "chain-1", otto)
	for _, rec := range []storetest.Recording{second, first, other} {
		r.handle(r.store(rec))
	}
	c := r.call("chain-1")
	if len(c.Legs) != 3 || len(c.Conversation.Custodians) != 2 {
		t.Fatalf("%+v", c)
	}
	leg := func(call teams.CallID) conversation.Leg {
		l, ok := c.Leg(conversation.LegOf(home, call))
		if !ok {
			t.Fatalf("no leg of %s", call)
		}
		return l
	}
	if leg("call-1").CopyOf != "" || leg("call-2").CopyOf != leg("call-1").Leg || leg("call-3").CopyOf != "" {
		t.Errorf("copies: %q %q %q", leg("call-1").CopyOf, leg("call-2").CopyOf, leg("call-3").CopyOf)
	}
	if c.Conversation.Call.Outcome != conversation.OutcomeRecorded {
		t.Errorf("the loss of a surplus copy counts: %+v", c.Conversation.Call)
	}
}

func TestATransferredCallNamesTheCallBefore(t *testing.T) {
	r := newRig(t)
	r.handle(r.store(r.recording("call-1", "chain-1", rita)))
	rec := r.recording("call-2", "chain-2", otto)
	rec.Epoch = start.Add(time.Minute)
	in := invite("call-2", "chain-2", otto)
	in.At = start.Add(30 * time.Second)
	transferor := person(rita)
	in.Transferor = &transferor
	rec.Events = []conversation.LegEvent{{At: rec.Epoch, Kind: conversation.EventInvited, Invite: in}}
	r.handle(r.store(rec))
	if got, want := r.call("chain-2").Conversation.Call.Previous, r.call("chain-1").Conversation.ID; got != want || got == "" {
		t.Errorf("previous %q, want %q", got, want)
	}
}

func TestASourceThatChangesHandsIsNobodysWhileItDoes(t *testing.T) {
	r := newRig(t)
	rec := r.recording("call-1", "chain-1", rita)
	streams := []teams.MediaStream{{Kind: teams.MediaAudio, Source: 7, Direction: "sendReceive"}}
	rec.Events = append(rec.Events, conversation.LegEvent{
		At: start.Add(15 * time.Second), Kind: conversation.EventRoster, Left: []teams.ParticipantID{"p1"},
		Roster: []teams.Participant{{ID: "p9", Party: person(otto), Streams: streams}},
	})
	r.handle(r.store(rec))
	m := r.manifest(r.call("chain-1").Legs[0])
	for _, lane := range m.Lanes() {
		for _, s := range lane.Segments {
			if m.Tracks[s.Track].Source == 7 && s.Wall.Equal(start.Add(12*time.Second)) && lane.ID != conversation.LaneUnknown {
				t.Errorf("the segment of the change belongs to %s", lane.ID)
			}
		}
	}
}

func TestWhatIsNoNoticeOfOursIsParked(t *testing.T) {
	r := newRig(t)
	foreign := conversation.LegNotice{
		Kind: conversation.LegEnded, Tenant: "22222222-aaaa-4bbb-8ccc-222222222222", Call: "c", Chain: "d", At: start, Outcome: conversation.OutcomeEmpty,
	}
	foreign.Leg = conversation.LegOf(foreign.Tenant, foreign.Call)
	other, err := conversation.EncodeNotice(foreign)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range [][]byte{nil, []byte("{"), []byte(`{"format":"steno-leg/2"}`), []byte(`[]`), other} {
		if err := r.f.Handle(t.Context(), body); !errors.Is(err, funchost.ErrPoison) {
			t.Errorf("%.40s: %v", body, err)
		}
	}
}

func TestTwoDeliveriesAtOnceEndInOneRecord(t *testing.T) {
	r := newRig(t)
	n := r.store(r.recording("call-1", "chain-1", rita))
	body, err := conversation.EncodeNotice(n)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	for range 2 {
		go func() { done <- r.f.Handle(t.Context(), body) }()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if leg := r.call("chain-1").Legs[0]; leg.State != conversation.LegSealed || leg.Bundles != 5 || leg.Outcome != conversation.OutcomeRecorded {
		t.Errorf("%+v", leg)
	}
}
