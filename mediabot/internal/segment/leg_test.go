package segment_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"steno/mediabot/internal/segment"
	"steno/shared/conversation"
	"steno/shared/media"
	"steno/shared/msgraph"
	"steno/shared/teams"
)

const alice, bob = teams.SourceID(101), teams.SourceID(102)

var aliceTrack = conversation.TrackOf(conversation.AudioTrack, alice)

func TestNothingStartsWithoutAGrantForThisCall(t *testing.T) {
	for name, g := range map[string]msgraph.RecordingGranted{"none": {}, "another call's": granted(t, "call-2")} {
		if _, err := segment.Start(info(call), g, time.Now(), nil); !errors.Is(err, segment.ErrNotGranted) {
			t.Errorf("grant %s: %v", name, err)
		}
	}
	other := info(call)
	other.Leg = conversation.LegOf(tenant, "call-2")
	if _, err := segment.Start(other, granted(t, call), time.Now(), nil); err == nil {
		t.Error("a leg of another call was begun")
	}
}

func TestEverySixSecondsThereIsOneBundleAlsoWhenEmpty(t *testing.T) {
	r := newRig(t)
	r.run(61*time.Second, nil)
	r.end()
	for i, b := range r.bundles {
		if b.Seq != i || !b.From.Equal(r.Epoch().Add(time.Duration(i)*conversation.SegmentDuration)) || !b.BundleHeader.Epoch().Equal(r.Epoch()) {
			t.Errorf("bundle %d is %d from %s", i, b.Seq, b.From)
		}
		if last := i == len(r.bundles)-1; b.Final != last || !last && b.To.Sub(b.From) != conversation.SegmentDuration {
			t.Errorf("bundle %d: final %t, %s long", i, b.Final, b.To.Sub(b.From))
		}
	}
	if to := r.bundles[len(r.bundles)-1].To; to.Sub(r.now).Abs() > frame {
		t.Errorf("the last bundle ends at %s, the leg did at %s", to, r.now)
	}
}

func TestSegmentsOfAllTracksAreCutAtTheSameWallClockTimes(t *testing.T) {
	r := newRig(t)
	r.run(30*time.Second, func(at time.Time) {
		r.Frame(voice(alice, at))
		if at.Sub(r.Began()) > 7*time.Second {
			r.Frame(voice(bob, at.Add(7*time.Millisecond)))
		}
	})
	r.end()
	for _, b := range r.bundles[1:] {
		for _, s := range b.Segments {
			if s.Wall.Before(b.From) || s.Wall.Sub(b.From) > frame && s.Init == nil {
				t.Errorf("bundle %d from %s: %s begins at %s", b.Seq, b.From, s.Track, s.Wall)
			}
		}
	}
	for _, source := range []teams.SourceID{alice, bob} {
		tr := r.track(conversation.TrackOf(conversation.AudioTrack, source))
		tr.lasts(t, r.now)
		if tr.inits != 1 || tr.silent > 1 || len(tr.runs) != 1 {
			t.Errorf("source %s: %d inits, %d silent frames, runs %v", source, tr.inits, tr.silent, tr.runs)
		}
	}
}

func TestSilenceIsAsLongAsWallTimeAndTheLedgerTellsWhy(t *testing.T) {
	r := newRig(t)
	start := r.Began()
	roster := func(p teams.Participant) conversation.LegEvent {
		p.ID, p.Party = "p1", teams.Party{Kind: teams.PartyUser, ID: "u"}
		return conversation.LegEvent{At: r.now, Kind: conversation.EventRoster, Roster: []teams.Participant{p}}
	}
	audio := func(direction string) []teams.MediaStream {
		return []teams.MediaStream{{Kind: teams.MediaAudio, Source: alice, Direction: direction}}
	}
	r.Event(roster(teams.Participant{Streams: audio("sendReceive")}))
	say := func(at time.Time) { r.Frame(voice(alice, at)) }
	r.run(2*time.Second, say)
	r.run(time.Second, nil) // inactive
	r.Event(roster(teams.Participant{Muted: true, Streams: audio("sendReceive")}))
	r.run(3*time.Second, nil) // muted
	r.Event(roster(teams.Participant{Streams: audio("inactive")}))
	r.run(4*time.Second, nil) // held
	r.Event(conversation.LegEvent{At: r.now, Kind: conversation.EventRoster, Left: []teams.ParticipantID{"p1"}})
	r.run(5*time.Second, nil) // absent
	r.Event(roster(teams.Participant{Streams: audio("sendReceive")}))
	r.Missing(aliceTrack, conversation.AudioTrack, alice, r.now, r.now.Add(200*time.Millisecond), conversation.GapLost, "10 packets lost")
	r.run(200*time.Millisecond, nil)
	r.run(2*time.Second, say)
	r.end()

	tr := r.track(aliceTrack)
	tr.lasts(t, r.now)
	for kind, want := range map[conversation.GapKind]time.Duration{
		conversation.GapInactive: time.Second, conversation.GapMuted: 3 * time.Second, conversation.GapHeld: 4 * time.Second,
		conversation.GapAbsent: 5 * time.Second, conversation.GapLost: 200 * time.Millisecond,
	} {
		if got := time.Duration(tr.frames(kind)) * frame; (got - want).Abs() > 2*frame {
			t.Errorf("%s: %s of silence, want %s", kind, got, want)
		}
	}
	if sum := tr.frames(conversation.GapInactive) + tr.frames(conversation.GapMuted) + tr.frames(conversation.GapHeld) + tr.frames(conversation.GapAbsent) + tr.frames(conversation.GapLost); sum != tr.silent {
		t.Errorf("%d frames of silence, %d of them explained", tr.silent, sum)
	}
	if s := tr.segments[0]; s.Participant != "p1" || s.Source != alice || s.Wall.Sub(start).Abs() > time.Millisecond {
		t.Errorf("first segment: %+v", s)
	}
}

func TestAReasonThatComesLateCorrectsTheLedger(t *testing.T) {
	r := newRig(t)
	say := func(at time.Time) { r.Frame(voice(alice, at)) }
	r.run(2*time.Second, say)
	gone := r.now
	r.now = r.now.Add(400 * time.Millisecond)
	r.run(500*time.Millisecond, say) // the silence is written, as that of an inactive source
	r.Missing(aliceTrack, conversation.AudioTrack, alice, gone.Add(100*time.Millisecond), gone.Add(300*time.Millisecond), conversation.GapLost, "the platform delivered nothing")
	r.run(10*time.Second, say)
	r.end()
	tr := r.track(aliceTrack)
	if lost, idle := tr.frames(conversation.GapLost), tr.frames(conversation.GapInactive); lost != 10 || idle < 9 || idle > 11 {
		t.Errorf("%d frames lost and %d inactive, want 10 and 10; ledger %+v", lost, idle, tr.gaps)
	}
}

func TestNothingOfAPauseIsRecorded(t *testing.T) {
	r := newRig(t)
	secret := []byte{0x48, 'c', 'a', 'n', 'a', 'r', 'y'}
	r.run(3*time.Second, func(at time.Time) { r.Frame(voice(alice, at)) })
	onItsWay := r.now.Add(-100 * time.Millisecond)
	r.Pause(r.now, conversation.GapPaused, "someone", "card data")
	r.Pause(r.now, conversation.GapPolicy, "", "twice")
	paused := r.now
	f := voice(alice, onItsWay)
	f.Data = secret
	r.Frame(f)
	r.run(8*time.Second, func(at time.Time) {
		f := voice(alice, at)
		f.Data = secret
		r.Frame(f)
	})
	if err := r.Resume(r.now, granted(t, "call-2"), "someone", "over"); !errors.Is(err, segment.ErrNotGranted) {
		t.Errorf("resumed with the grant of another call: %v", err)
	}
	must(t, r.Resume(r.now, granted(t, call), "someone", "over"))
	f = voice(alice, r.now.Add(-time.Second)) // sent during the pause
	f.Data = secret
	r.Frame(f)
	resumed := r.now
	r.run(3*time.Second, func(at time.Time) { r.Frame(voice(alice, at)) })
	r.end()
	r.Frame(voice(alice, r.now))

	for _, b := range append(r.bundles, r.parts...) {
		if bytes.Contains(b.body, secret) {
			t.Errorf("bundle %d.%d holds what was said during the pause", b.Seq, b.Part)
		}
	}
	tr := r.track(aliceTrack)
	tr.lasts(t, r.now)
	got := time.Duration(tr.frames(conversation.GapPaused)) * frame
	if want := resumed.Sub(paused); (got - want).Abs() > 3*frame {
		t.Errorf("%s of pause in the ledger, want %s", got, want)
	}
	for _, g := range tr.gaps {
		if g.Kind == conversation.GapPaused && (g.Actor != "someone" || g.Reason != "card data") {
			t.Errorf("gap %+v", g)
		}
	}
	events := r.events()
	if n := len(events[conversation.EventPaused]) + len(events[conversation.EventResumed]); n != 2 {
		t.Errorf("%d events of pause and resumption, want 2", n)
	}
}

func (r *rig) events() map[conversation.EventKind][]conversation.LegEvent {
	out := map[conversation.EventKind][]conversation.LegEvent{}
	for _, b := range r.bundles {
		for _, e := range b.Events {
			out[e.Kind] = append(out[e.Kind], e)
		}
	}
	return out
}

func TestALongJumpIsANewRunAndNotHoursOfSilence(t *testing.T) {
	r := newRig(t)
	say := func(at time.Time) { r.Frame(voice(alice, at)) }
	r.run(2*time.Second, say)
	r.now = r.now.Add(25 * time.Second) // the process stood still
	r.run(2*time.Second, say)
	r.end()
	tr := r.track(aliceTrack)
	if len(tr.runs) != 2 || tr.inits != 2 {
		t.Errorf("runs %v with %d inits, want two", tr.runs, tr.inits)
	}
	var away time.Duration
	for _, g := range tr.gaps {
		away += g.To.Sub(g.From)
	}
	if (away - 25*time.Second).Abs() > time.Second {
		t.Errorf("the ledger speaks of %s, the source was away 25 s: %+v", away, tr.gaps)
	}
	if tr.silent > int(segment.MaxFill/frame) {
		t.Errorf("%d frames of silence written", tr.silent)
	}
}

func TestLateAndDoubledFramesAreKeptBesideTheTrack(t *testing.T) {
	r := newRig(t)
	var late []time.Time
	r.run(20*time.Second, func(at time.Time) {
		since := at.Sub(r.Began())
		if since > 6*time.Second && since < 7*time.Second {
			late = append(late, at) // the gateway stands still for a second
			return
		}
		r.Frame(voice(alice, at))
		if since > 11*time.Second && late != nil {
			for _, l := range late {
				r.Frame(voice(alice, l))
			}
			late = nil
		}
	})
	r.end()
	tr := r.track(aliceTrack)
	if got, want := tr.samples-tr.silent, 1000; got != want {
		t.Errorf("%d of %d frames kept", got, want)
	}
	if len(tr.runs) < 2 {
		t.Errorf("runs %v: late frames in the run they missed", tr.runs)
	}
}

func TestTwoUnknownFeedsDoNotMix(t *testing.T) {
	r := newRig(t)
	r.run(10*time.Second, func(at time.Time) {
		for feed := range 2 {
			f := voice(0, at)
			f.Track, f.Feed = conversation.TrackUnknown, feed
			f.Data = []byte{0x48, byte(feed), 7}
			r.Frame(f)
		}
	})
	r.end()
	for _, b := range r.bundles {
		for _, s := range b.Segments {
			if s.Samples == 0 {
				continue
			}
			f, err := media.ParseFragment(b.body[s.Data.Off : s.Data.Off+s.Data.Len])
			must(t, err)
			for _, x := range f.Samples {
				if len(x.Data) == 3 && len(f.Samples[0].Data) == 3 && x.Data[0] == 0x48 && f.Samples[0].Data[0] == 0x48 && x.Data[1] != f.Samples[0].Data[1] {
					t.Fatalf("bundle %d: frames of two feeds in one run", b.Seq)
				}
			}
		}
	}
	if tr := r.track(conversation.TrackUnknown); tr.samples-tr.silent != 1000 {
		t.Errorf("%d of 1000 frames kept", tr.samples-tr.silent)
	}
}

func TestAClockThatDriftsKeepsDecodedLengthAtWallTime(t *testing.T) {
	for name, ppm := range map[string]int{"slow": 300, "fast": -300} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			i := 0
			step := frame + frame*time.Duration(ppm)/1e6
			r.run(20*time.Minute, func(at time.Time) {
				for ; r.Began().Add(time.Duration(i) * step).Before(at.Add(frame)); i++ {
					r.Frame(voice(alice, r.Began().Add(time.Duration(i)*step)))
				}
			})
			r.end()
			tr := r.track(aliceTrack)
			if got := tr.samples - tr.silent; got != i {
				t.Errorf("%d of %d frames kept", got, i)
			}
			if ppm > 0 {
				tr.lasts(t, r.now)
			} else if len(tr.runs) < 10 {
				t.Errorf("runs %v: a clock that is ahead was not set right", tr.runs)
			}
		})
	}
}

func TestPartsSayWhatTheBundleWillSay(t *testing.T) {
	r := newRig(t)
	rng := rand.New(rand.NewPCG(1, 2))
	r.run(40*time.Second, func(at time.Time) {
		if rng.Float64() < 0.9 {
			r.Frame(voice(alice, at))
		}
		if at.Sub(r.Began()) > 10*time.Second {
			r.Frame(voice(bob, at))
		}
	})
	for _, source := range []teams.SourceID{alice, bob} {
		id := conversation.TrackOf(conversation.AudioTrack, source)
		whole := r.track(id)
		var parts []bundle
		for _, p := range r.parts {
			if p.Seq < len(r.bundles) {
				parts = append(parts, p)
			}
			if p.Part > segment.MaxParts {
				t.Errorf("part %d of bundle %d", p.Part, p.Seq)
			}
		}
		got := read(t, parts, id)
		if real, want := got.samples-got.silent, whole.samples-whole.silent; real != want {
			t.Errorf("source %s: %d frames in parts, %d in bundles", source, real, want)
		}
		if got.inits != 1 || got.overlaps != 0 {
			t.Errorf("source %s: %d inits, %d overlaps in parts", source, got.inits, got.overlaps)
		}
	}
}

func TestAFullSpoolEndsTheLegAndLeavesNoHole(t *testing.T) {
	r := newRig(t)
	say := func(at time.Time) { r.Frame(voice(alice, at)) }
	r.run(20*time.Second, say)
	r.refuse = errors.New("spool is full")
	r.run(20*time.Second, say)
	if len(r.failed) != 1 || !errors.Is(r.failed[0], r.refuse) {
		t.Fatalf("failure told as %v", r.failed)
	}
	r.Event(conversation.LegEvent{At: r.now, Kind: conversation.EventResult})
	r.refuse = nil
	r.end()
	events := r.events()
	if len(events[conversation.EventFault]) != 1 || len(events[conversation.EventResult]) != 1 || len(events[conversation.EventEnded]) != 1 {
		t.Errorf("events %v", events)
	}
	if last := r.bundles[len(r.bundles)-1]; !last.Final || last.To.Sub(r.now).Abs() > frame {
		t.Errorf("last bundle %+v", last.BundleHeader)
	}
}

func TestASourceUnheardForLongIsNoLongerFilled(t *testing.T) {
	r := newRig(t)
	r.run(time.Second, func(at time.Time) { r.Frame(voice(alice, at)) })
	r.run(segment.Dormant+2*time.Minute, nil)
	for _, s := range r.bundles[len(r.bundles)-1].Segments {
		t.Errorf("a dormant source has %d samples", s.Samples)
	}
	r.run(time.Second, func(at time.Time) { r.Frame(voice(alice, at)) })
	r.end()
	tr := r.track(aliceTrack)
	if len(tr.runs) != 2 {
		t.Errorf("runs %v", tr.runs)
	}
	var total time.Duration
	for _, g := range tr.gaps {
		total += g.To.Sub(g.From)
	}
	if want := segment.Dormant + 2*time.Minute; (total - want).Abs() > time.Second {
		t.Errorf("the ledger explains %s of %s", total, want)
	}
}

func TestADayOfCallKeepsMemoryFlat(t *testing.T) {
	r := newRig(t)
	h, sources := 0, 0
	var base uint64
	measure := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	day := 24 * time.Hour
	if raceEnabled {
		day = 3 * time.Hour
	}
	for r.now.Sub(r.Began()) < day {
		r.run(10*time.Minute, func(at time.Time) {
			if at.Sub(r.Began())/time.Second%3 != 0 {
				r.Frame(voice(alice, at))
			}
		})
		r.Frame(voice(teams.SourceID(1000+sources), r.now))
		sources++
		r.Event(conversation.LegEvent{At: r.now, Kind: conversation.EventRoster, Roster: []teams.Participant{{ID: "p", Muted: sources%2 == 0, Streams: []teams.MediaStream{{Kind: teams.MediaAudio, Source: alice}}}}})
		for i := range r.bundles { // the rig keeps them, the leg must not
			r.bundles[i].body, r.bundles[i].Segments, r.bundles[i].Events = nil, nil, nil
		}
		r.parts = nil
		if h++; h == 6 {
			base = measure()
		}
	}
	if now := measure(); now > base+24<<20 {
		t.Errorf("%d MB of heap after an hour, %d MB after the call", base>>20, now>>20)
	}
}

func TestTheContainerCostsLessThanTwoKilobitsATrack(t *testing.T) {
	r := newRig(t)
	const speakers = 4
	payload := make([]byte, 60)
	payload[0] = 0x48
	r.run(60*time.Second, func(at time.Time) {
		for i := range speakers {
			f := voice(teams.SourceID(100+i), at)
			f.Data = payload
			r.Frame(f)
		}
	})
	r.end()
	for _, b := range r.bundles[2 : len(r.bundles)-1] {
		real := 0
		for _, s := range b.Segments {
			real += s.Samples * len(payload)
		}
		// What sealing adds is less than 200 bytes, chunk tags included.
		cost := float64(b.size-real+200) * 8 / conversation.SegmentDuration.Seconds() / speakers / 1000
		if cost > 2 || cost < 1 {
			t.Errorf("bundle %d costs %.2f kbit/s a track beyond what was said", b.Seq, cost)
		}
		fragments := 0
		for _, s := range b.Segments {
			fragments += int(s.Data.Len)
		}
		if container := float64(fragments-real) * 8 / conversation.SegmentDuration.Seconds() / speakers / 1000; container > 2 {
			t.Errorf("bundle %d: the container costs %.2f kbit/s a track", b.Seq, container)
		}
		if b.Seq == 3 {
			t.Logf("%.2f kbit/s a track in all", cost)
		}
	}
}
