package ingest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"steno/shared/conversation"
	"steno/shared/teams"
)

const (
	alice = 101
	bob   = 102
	ms    = time.Millisecond
)

var speech = []byte{0x48, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}

// field is an intake whose time the test makes, and what its sink got.
type field struct {
	*intake
	t      testing.TB
	now    time.Time
	start  time.Time
	line_  int64
	seqs   map[string]uint16
	frames []Frame
	gaps   []conversation.Gap
	odd_   []string
	upTo   time.Time
	nacks  []uint16
	keys   []string
}

func newField(t testing.TB, ext int, tracks ...string) *field {
	t.Helper()
	f := &field{t: t, now: time.Now(), seqs: map[string]uint16{}}
	f.start = f.now
	var list []Track
	for i, name := range tracks {
		tr := Track{Name: name, Kind: "audio", SSRC: uint32(i + 1), PT: 111, ClockRate: 48000}
		if strings.HasPrefix(name, "v") {
			tr.Kind, tr.PT, tr.ClockRate = "video", 102, 90000
		}
		list = append(list, tr)
	}
	f.intake = newIntake(list, ext, DefaultWindow, f.now)
	f.attach(f.now, f.now, f)
	return f
}

func (f *field) Frame(x *Frame) {
	c := *x
	c.Data = slices.Clone(x.Data)
	f.frames = append(f.frames, c)
}

func (f *field) Missing(track conversation.TrackID, _ conversation.TrackKind, _ teams.SourceID, from, to time.Time, why conversation.GapKind, reason string) {
	f.gaps = append(f.gaps, conversation.Gap{From: from, To: to, Kind: why, Reason: string(track) + ": " + reason})
}

func (f *field) Settled(t time.Time) {
	if t.Before(f.upTo) {
		f.t.Error("what was settled is not any more")
	}
	f.upTo = t
}

func (f *field) Anomaly(_ time.Time, reason string) { f.odd_ = append(f.odd_, reason) }

// say sends a control line.
func (f *field) say(kind string, members map[string]any) {
	f.t.Helper()
	f.line_++
	members["t"], members["seq"] = kind, f.line_
	b, err := json.Marshal(members)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, _, err := f.control(f.now, b); err != nil {
		f.t.Fatal(err)
	}
}

func (f *field) clock(rtp uint32) {
	ticks := f.now.Sub(time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)).Nanoseconds() / 100
	f.say("clock", map[string]any{"kind": "audio", "rtp": rtp, "ts": strconv.FormatInt(ticks, 10), "wall": f.now.UTC().Format(time.RFC3339Nano)})
}

func (f *field) bindTo(track string, epoch int, source any, at uint32) {
	f.say("bind", map[string]any{"n": 1, "track": track, "epoch": epoch, "source": fmt.Sprint(source), "rtp": at})
}

func (f *field) unbind(track string, epoch int, source any, at uint32) {
	f.say("unbind", map[string]any{"n": 1, "track": track, "epoch": epoch, "source": fmt.Sprint(source), "rtp": at, "reason": "taken"})
}

// packet makes an RTP packet. Epoch -1 leaves the extension out.
func (f *field) packet(track string, number uint16, at uint32, epoch int, source uint32, payload []byte) []byte {
	s := f.named(track)
	p := rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: s.pt, SSRC: s.ssrc, SequenceNumber: number, Timestamp: at}, Payload: payload}
	if epoch >= 0 && f.ext != 0 {
		e := []byte{byte(epoch), byte(source >> 24), byte(source >> 16), byte(source >> 8), byte(source)}
		if err := p.SetExtension(f.ext, e); err != nil {
			f.t.Fatal(err)
		}
	}
	b, err := p.Marshal()
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// send delivers the next packet of a track.
func (f *field) send(track string, at uint32, epoch int, source uint32) {
	f.t.Helper()
	n := f.seqs[track]
	f.seqs[track]++
	f.rtp(f.now, f.named(track), f.packet(track, n, at, epoch, source, speech))
}

// skip loses the next packet of a track.
func (f *field) skip(track string, n int) { f.seqs[track] += uint16(n) }

// pass lets time go on.
func (f *field) pass(d time.Duration) {
	for end := f.now.Add(d); f.now.Before(end); {
		f.now = f.now.Add(min(10*ms, end.Sub(f.now)))
		out, keys := f.tick(f.now)
		f.keys = append(f.keys, keys...)
		for _, p := range out {
			if n, ok := p.(*rtcp.TransportLayerNack); ok {
				for _, pair := range n.Nacks {
					f.nacks = append(f.nacks, pair.PacketList()...)
				}
			}
		}
	}
}

func (f *field) of(source uint32) (out []Frame) {
	for _, x := range f.frames {
		if x.Track == conversation.TrackOf(conversation.AudioTrack, teams.SourceID(source)) {
			out = append(out, x)
		}
	}
	return out
}

func TestNothingIsKeptBeforeASinkIsThereNorAfterItWent(t *testing.T) {
	f := newField(t, 1, "a0")
	f.clock(0)
	f.bindTo("a0", 1, alice, 0)
	f.detach(f.now)
	f.send("a0", 0, 1, alice)
	f.skip("a0", 1)
	f.send("a0", 1920, 1, alice)
	if s := f.slots[0]; len(f.frames) != 0 || len(s.pending) != 0 || len(s.waiting) != 0 {
		t.Fatalf("%d frames, %d and %d packets held while nothing is recorded", len(f.frames), len(s.pending), len(s.waiting))
	}
	f.upTo = time.Time{}
	f.attach(f.now, f.now, f)
	f.send("a0", 2880, 1, alice)
	f.close(f.now.Add(10 * ms))
	f.pass(20 * ms)
	f.send("a0", 3840, 1, alice)
	f.detach(f.now)
	if len(f.frames) != 1 || f.count.Closed != 2 {
		t.Errorf("%d frames while one was due, %d packets came to a closed gate", len(f.frames), f.count.Closed)
	}
}

func TestReorderedAndRepairedPacketsAreAsIfNothingHadHappened(t *testing.T) {
	f := newField(t, 1, "a0")
	f.clock(0)
	f.bindTo("a0", 1, alice, 0)
	rng := rand.New(rand.NewPCG(3, 4))
	for base := 0; base < 5000; base += 5 {
		for _, i := range rng.Perm(5) { // as they left the sender, give or take five places
			f.rtp(f.now, f.slots[0], f.packet("a0", uint16(base+i), uint32(base+i)*960, 1, alice, speech))
		}
		f.pass(100 * ms)
	}
	if f.frames[0].Wall.Sub(f.start).Abs() > 80*ms {
		t.Errorf("the first frame is of %s", f.frames[0].Wall.Sub(f.start))
	}
	for i := 1; i < len(f.frames); i++ {
		if d := f.frames[i].Wall.Sub(f.frames[i-1].Wall); (d - 20*ms).Abs() > time.Microsecond {
			t.Fatalf("frame %d comes %s after the one before", i, d)
		}
	}
	if len(f.frames) < 4995 || f.count.Lost != 0 || len(f.gaps) != 0 {
		t.Errorf("%d frames, %d lost, gaps %v", len(f.frames), f.count.Lost, f.gaps)
	}
}

func TestAHoleInTheSequenceIsLossAndAJumpOfTimeIsNot(t *testing.T) {
	f := newField(t, 1, "a0")
	f.clock(0)
	f.bindTo("a0", 1, alice, 0)
	f.send("a0", 0, 1, alice)
	f.pass(20 * ms)
	f.skip("a0", 3)
	f.pass(60 * ms)
	f.send("a0", 4*960, 1, alice)
	f.pass(time.Second + 100*ms)
	if len(f.gaps) != 1 || f.gaps[0].Kind != conversation.GapLost || f.gaps[0].To.Sub(f.gaps[0].From).Round(ms) != 60*ms {
		t.Fatalf("gaps %+v, want 60 ms lost", f.gaps)
	}
	if !slices.Contains(f.nacks, 1) || !slices.Contains(f.nacks, 3) || slices.Contains(f.nacks, 4) {
		t.Errorf("asked for %v", f.nacks)
	}
	if len(f.nacks) > 3*maxNacks {
		t.Errorf("asked %d times", len(f.nacks))
	}
	f.pass(2 * time.Second)
	f.send("a0", uint32(f.now.Sub(f.start)/(20*ms))*960, 1, alice)
	if len(f.gaps) != 1 || len(f.frames) != 3 || f.count.Lost != 3 {
		t.Errorf("after a pause of the source: gaps %+v, %d frames", f.gaps, len(f.frames))
	}
}

func TestALostPacketThatComesAfterAllIsKept(t *testing.T) {
	f := newField(t, 1, "a0")
	f.clock(0)
	f.bindTo("a0", 1, alice, 0)
	f.send("a0", 0, 1, alice)
	f.skip("a0", 1)
	f.send("a0", 1920, 1, alice)
	f.pass(DefaultWindow + 100*ms)
	late := f.packet("a0", 1, 960, 1, alice, speech)
	f.rtp(f.now, f.slots[0], late)
	f.rtp(f.now, f.slots[0], late)
	if len(f.frames) != 3 || f.count.Late != 1 || f.count.Duplicate != 1 {
		t.Errorf("%d frames, counters %+v", len(f.frames), f.count)
	}
}

func TestNoFrameIsAttributedToTheWrongSource(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	f := newField(t, 1, "a0", "a1")
	f.clock(0)
	type owed struct {
		due time.Time
		say func()
	}
	var lines []owed // control lines, delayed by up to 1.5 s
	tone := map[string]uint32{}
	epoch := map[string]int{"a0": 0, "a1": 0}
	said := map[string]uint32{} // payload → source
	for i := range uint32(20000) {
		for _, track := range []string{"a0", "a1"} {
			if rng.IntN(40) == 0 || tone[track] == 0 {
				was, now, at := tone[track], uint32(100+rng.IntN(8)), i*960
				if was == now {
					continue
				}
				e := epoch[track]
				epoch[track] = (e + 1) % 256
				tone[track] = now
				next := epoch[track]
				due := f.now.Add(time.Duration(rng.IntN(1500)) * ms)
				if n := len(lines); n > 0 && due.Before(lines[n-1].due) {
					due = lines[n-1].due // the channel is ordered
				}
				lines = append(lines, owed{due, func() {
					if was != 0 {
						f.unbind(track, e, was, at-960)
					}
					f.bindTo(track, next, now, at)
				}})
			}
			payload := append([]byte{0x48}, fmt.Sprintf("%s %d", track, i)...)
			said[string(payload)] = tone[track]
			if rng.IntN(50) == 0 {
				f.skip(track, 1)
				continue
			}
			n := f.seqs[track]
			f.seqs[track]++
			f.rtp(f.now, f.named(track), f.packet(track, n, i*960, epoch[track], tone[track], payload))
		}
		for len(lines) > 0 && !lines[0].due.After(f.now) {
			lines[0].say()
			lines = lines[1:]
		}
		if i%250 == 0 && i > 0 {
			f.clock(i * 960)
		}
		f.pass(20 * ms)
	}
	known := 0
	for _, x := range f.frames {
		if x.Source != teams.SourceUnknown {
			known++
			if want := said[string(x.Data)]; uint32(x.Source) != want || x.Track != conversation.TrackOf(conversation.AudioTrack, teams.SourceID(want)) {
				t.Fatalf("seed %d: a frame of source %d stands under %s", seed, want, x.Track)
			}
		}
	}
	if known < len(f.frames)*99/100 {
		t.Errorf("seed %d: %d of %d frames attributed", seed, known, len(f.frames))
	}
}

func TestWhatLinesContradictOrNeverNameIsUnknown(t *testing.T) {
	f := newField(t, 1, "a0", "a1")
	f.clock(0)
	f.bindTo("a0", 1, alice, 0)
	f.send("a0", 0, 1, bob)   // the extension says another source
	f.send("a1", 0, 9, alice) // no line says anything
	f.pass(BindPatience - 100*ms)
	if len(f.frames) != 1 {
		t.Errorf("%d frames before the line's time was up", len(f.frames))
	}
	f.pass(200 * ms)
	if len(f.frames) != 2 || f.frames[0].Track != conversation.TrackUnknown || f.frames[1].Track != conversation.TrackUnknown {
		t.Fatalf("frames %+v", f.frames)
	}
	if f.count.Contradicted != 1 || f.count.Unbound != 1 || len(f.odd_) != 2 {
		t.Errorf("counters %+v, told %v", f.count, f.odd_)
	}
}

func TestWithoutTheExtensionLinesBindAndTheRecordSaysSo(t *testing.T) {
	f := newField(t, 0, "a0")
	f.clock(0)
	f.send("a0", 0, -1, 0)
	f.pass(100 * ms)
	f.bindTo("a0", 1, alice, 0)
	f.send("a0", 960, -1, 0)
	f.unbind("a0", 1, alice, 960)
	f.bindTo("a0", 2, bob, 1920)
	f.send("a0", 1920, -1, 0)
	if a, b := f.of(alice), f.of(bob); len(a) != 2 || len(b) != 1 || !a[0].ByLine || !b[0].ByLine {
		t.Errorf("frames %+v", f.frames)
	}
}

func TestAVoiceOnTheMixThatHasATrackOfItsOwnStaysOnTheMix(t *testing.T) {
	f := newField(t, 1, "a0", "mix")
	f.clock(0)
	f.bindTo("a0", 1, alice, 0)
	f.bindTo("mix", 1, alice, 0)
	f.send("a0", 0, 1, alice)
	f.send("mix", 0, 1, alice)
	f.bindTo("mix", 2, "mixed", 960)
	f.send("mix", 960, 2, wireMixed)
	f.bindTo("mix", 3, bob, 1920)
	f.send("mix", 1920, 3, bob)
	want := []conversation.TrackID{"audio-101", conversation.TrackMixed, conversation.TrackMixed, "audio-102"}
	for i, x := range f.frames {
		if x.Track != want[i] {
			t.Errorf("frame %d stands under %s, want %s", i, x.Track, want[i])
		}
	}
}

func TestTimesGoOnOverTheWrapOfRTPTime(t *testing.T) {
	f := newField(t, 1, "a0")
	base := uint32(1<<32 - 100*960)
	f.clock(base)
	f.bindTo("a0", 1, alice, base)
	for i := range uint32(500) {
		if i == 250 {
			f.clock(base + i*960)
		}
		f.send("a0", base+i*960, 1, alice)
		f.pass(20 * ms)
	}
	for i, x := range f.frames {
		if d := x.Wall.Sub(f.start) - time.Duration(i)*20*ms; d.Abs() > ms {
			t.Fatalf("frame %d is off by %s", i, d)
		}
	}
	if len(f.frames) != 500 {
		t.Errorf("%d frames", len(f.frames))
	}
}

func TestImpossibleTimestampsArePlacedByArrivalAndTold(t *testing.T) {
	f := newField(t, 1, "a0")
	f.clock(0)
	f.bindTo("a0", 1, alice, 0)
	for i := range uint32(200) {
		at := i * 960
		if i >= 50 && i < 100 {
			at += 1 << 31
		}
		f.send("a0", at, 1, alice)
		f.pass(20 * ms)
	}
	f.pass(BindPatience + 100*ms)
	if len(f.frames) != 200 {
		t.Errorf("%d of 200 frames kept", len(f.frames))
	}
	for i, x := range f.frames {
		if d := x.Wall.Sub(f.start); d < -time.Second || d > 5*time.Second {
			t.Fatalf("frame %d is placed at %s", i, d)
		}
	}
	if len(f.odd_) == 0 || len(f.odd_) > 3 {
		t.Errorf("told %v", f.odd_)
	}
}

func TestSequenceNumbersThatBeginAnewNeedTwoPacketsToBeBelieved(t *testing.T) {
	f := newField(t, 1, "a0")
	f.clock(0)
	f.bindTo("a0", 1, alice, 0)
	f.send("a0", 0, 1, alice)
	f.rtp(f.now, f.slots[0], f.packet("a0", 40000, 960, 1, alice, speech)) // alone
	f.send("a0", 960, 1, alice)
	if len(f.frames) != 2 {
		t.Fatalf("%d frames: one stray packet disturbs", len(f.frames))
	}
	f.seqs["a0"] = 50000
	for i := range uint32(10) {
		f.send("a0", (2+i)*960, 1, alice)
	}
	if len(f.frames) != 12 {
		t.Errorf("%d frames after the sender began anew, want 12", len(f.frames))
	}
}

func TestPacketsThatAreNotWhatWasOfferedAreCounted(t *testing.T) {
	f := newField(t, 1, "a0")
	f.clock(0)
	f.bindTo("a0", 1, alice, 0)
	f.send("a0", 0, 1, alice)
	s := f.slots[0]
	bad := [][]byte{
		{}, {0x80}, make([]byte, 11), make([]byte, MaxPacket+1),
		f.packet("a0", 1, 960, 1, alice, nil),
		f.packet("a0", 2, 1920, 1, alice, []byte{3}), // code 3 without its count
		f.packet("a0", 3, 2880, 1, alice, append([]byte{0x48}, make([]byte, MaxFrame+1)...)),
	}
	other := f.packet("a0", 4, 3840, 1, alice, speech)
	other[1] = 99
	for _, b := range append(bad, other) {
		f.rtp(f.now, s, b)
	}
	if len(f.frames) != 1 || f.count.Malformed != uint64(len(bad)+1) {
		t.Errorf("%d frames, %d of %d malformed packets counted", len(f.frames), f.count.Malformed, len(bad)+1)
	}
	if len(f.gaps) != 3 {
		t.Errorf("ledger %+v: want an entry for each packet that has a place and no sound", f.gaps)
	}
	if len(f.odd_) > 4 {
		t.Errorf("told %d times", len(f.odd_))
	}
}

func TestWithoutClockLinesTimeIsThatOfArrivalAndThenOfSenderReports(t *testing.T) {
	f := newField(t, 1, "a0")
	f.bindTo("a0", 1, alice, 5000)
	rng := rand.New(rand.NewPCG(1, 9))
	for i := range uint32(1500) {
		jitter := time.Duration(rng.IntN(15)) * ms
		at := f.now
		f.rtp(at.Add(jitter), f.slots[0], f.packet("a0", uint16(i), 5000+i*960, 1, alice, speech))
		if i%250 == 100 {
			ntp := uint64(at.Sub(time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)) / time.Second)
			frac := uint64(at.Nanosecond()) << 32 / 1e9
			sr := &rtcp.SenderReport{SSRC: 1, NTPTime: ntp<<32 | frac, RTPTime: 5000 + i*960}
			b, err := sr.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			f.intake.rtcp(at, b)
		}
		f.pass(20 * ms)
	}
	for i, x := range f.frames {
		if d := x.Wall.Sub(f.start) - time.Duration(i)*20*ms; d.Abs() > 16*ms {
			t.Fatalf("frame %d is off by %s", i, d)
		}
	}
}

func TestSettledNeverPassesWhatStillWaits(t *testing.T) {
	f := newField(t, 1, "a0")
	f.clock(0)
	f.bindTo("a0", 1, alice, 0)
	last := time.Time{}
	rng := rand.New(rand.NewPCG(5, 6))
	for i := range uint32(3000) {
		if rng.IntN(30) == 0 {
			f.skip("a0", 1)
		} else {
			f.send("a0", i*960, 1, alice)
		}
		before := f.upTo
		n := len(f.frames)
		f.pass(20 * ms)
		for _, x := range f.frames[n:] {
			if x.Wall.Before(before) {
				t.Fatalf("a frame of %s came after %s was settled", x.Wall, before)
			}
		}
		last = f.upTo
	}
	if behind := f.now.Sub(last); behind > 3*time.Second {
		t.Errorf("settled up to %s ago", behind)
	}
}
