package segment_test

import (
	"errors"
	"testing"
	"time"

	"steno/mediabot/internal/segment"
	"steno/shared/conversation"
	"steno/shared/media"
	"steno/shared/msgraph"
	"steno/shared/teams"
	"steno/tests/grant"
)

const (
	tenant = teams.TenantID("72f988bf-86f1-41af-91ab-2d7cd011db47")
	call   = teams.CallID("call-1")
	frame  = 20 * time.Millisecond
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func granted(t testing.TB, call teams.CallID) msgraph.RecordingGranted {
	t.Helper()
	g, err := grant.For(call)
	must(t, err)
	return g
}

func info(call teams.CallID) segment.Info {
	return segment.Info{Tenant: tenant, Leg: conversation.LegOf(tenant, call), Call: call, Chain: "chain-1", Recorder: "bot-1"}
}

// rig is a leg whose time the test makes.
type rig struct {
	*segment.Leg
	t       testing.TB
	now     time.Time
	bundles []bundle
	parts   []bundle
	refuse  error // what putting a bundle returns
	failed  []error
}

type bundle struct {
	conversation.BundleHeader
	body []byte
	size int
}

func newRig(t testing.TB) *rig { return newRigOf(t, info(call)) }

func newRigOf(t testing.TB, i segment.Info) *rig {
	t.Helper()
	r := &rig{t: t, now: time.Now()}
	leg, err := segment.Start(i, granted(t, i.Call), r.now, func(err error) { r.failed = append(r.failed, err) })
	must(t, err)
	r.Leg = leg
	return r
}

// flush lets the leg give out what is complete, with everything settled up to a second
// and a half ago.
func (r *rig) flush() {
	r.t.Helper()
	r.Settled(r.now.Add(-1500 * time.Millisecond))
	r.flushed()
}

func (r *rig) flushed() {
	r.t.Helper()
	err := r.Flush(r.now, r.put)
	if err != nil && !errors.Is(err, r.refuse) {
		r.t.Fatal(err)
	}
}

func (r *rig) put(h conversation.BundleHeader, plain []byte) error {
	if r.refuse != nil {
		return r.refuse
	}
	got, body, err := media.DecodeBundle(plain)
	must(r.t, err)
	b := bundle{got, body, len(plain)}
	if h.Part != 0 {
		r.parts = append(r.parts, b)
		return nil
	}
	if h.Seq != len(r.bundles) {
		r.t.Errorf("bundle %d comes after %d bundles", h.Seq, len(r.bundles))
	}
	r.bundles = append(r.bundles, b)
	return nil
}

// run lets time go on, flushing once a second. Each 20 ms say is asked for frames.
func (r *rig) run(d time.Duration, say func(at time.Time)) {
	r.t.Helper()
	for end := r.now.Add(d); r.now.Before(end); {
		if say != nil {
			say(r.now)
		}
		before := r.now
		r.now = r.now.Add(frame)
		if before.Sub(r.Began())/time.Second != r.now.Sub(r.Began())/time.Second {
			r.flush()
		}
	}
}

func (r *rig) end() {
	r.t.Helper()
	r.End(r.now, conversation.OutcomeRecorded)
	r.flushed()
	if !r.Done() {
		r.t.Error("the leg is not done after its last flush")
	}
}

var speech = []byte{0x48, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11} // SILK wideband, 20 ms

// voice returns a frame of a source.
func voice(source teams.SourceID, at time.Time) *segment.Frame {
	return &segment.Frame{
		Track: conversation.TrackOf(conversation.AudioTrack, source), Kind: conversation.AudioTrack, Source: source,
		Wall: at, Duration: media.FrameSamples, Data: speech,
	}
}

// track is what bundles hold of a track.
type track struct {
	first    time.Time
	samples  int           // real and silent
	length   time.Duration // of all samples
	silent   int
	gaps     []conversation.Gap
	runs     []int
	overlaps int // fragments that begin before the one before ended
	inits    int
	segments []conversation.Segment
}

func (r *rig) track(id conversation.TrackID) track { return read(r.t, r.bundles, id) }

func read(t testing.TB, bundles []bundle, id conversation.TrackID) track {
	t.Helper()
	var out track
	var next int64
	for _, b := range bundles {
		for _, s := range b.Segments {
			if s.Track != id {
				continue
			}
			out.gaps = append(out.gaps, s.Gaps...)
			if s.Samples == 0 {
				continue
			}
			out.segments = append(out.segments, s)
			if out.first.IsZero() {
				out.first = s.Wall
			}
			if s.Init != nil {
				out.inits++
			}
			if len(out.runs) == 0 || out.runs[len(out.runs)-1] != s.Run {
				out.runs = append(out.runs, s.Run)
			}
			f, err := media.ParseFragment(b.body[s.Data.Off : s.Data.Off+s.Data.Len])
			must(t, err)
			if int64(f.Time) != s.Time || len(f.Samples) != s.Samples {
				t.Errorf("%s: the header says %d samples from %d, the fragment %d from %d", id, s.Samples, s.Time, len(f.Samples), f.Time)
			}
			if s.Time < next {
				out.overlaps++
			}
			next = s.Time
			for _, x := range f.Samples {
				out.samples++
				if string(x.Data) == string(media.Silence()) {
					out.silent++
				}
				next += int64(x.Duration)
				out.length += time.Duration(x.Duration) * time.Second / time.Duration(s.Timescale)
			}
			if s.Time+s.Duration != next {
				t.Errorf("%s: durations do not add up", id)
			}
		}
	}
	return out
}

func (tr track) frames(kind conversation.GapKind) (n int) {
	for _, g := range tr.gaps {
		if g.Kind == kind {
			n += g.Frames
		}
	}
	return n
}

func (tr track) lasts(t testing.TB, until time.Time) {
	t.Helper()
	if off := tr.length - until.Sub(tr.first); off < -frame || off > frame {
		t.Errorf("decodes to %s, %s are from the first frame to the end", tr.length, until.Sub(tr.first))
	}
}
