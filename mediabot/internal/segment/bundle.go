package segment

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"steno/shared/conversation"
	"steno/shared/media"
)

// given is a bundle that was laid out and waits to be put.
type given struct {
	header conversation.BundleHeader
	plain  []byte
}

// Flush gives out what is complete at now: bundles whose stretch of time is settled, and
// of those that are not, a part with what has come since the part before. The caller
// flushes once a second, so that not more than that is in memory alone, and once after
// End.
//
// After an error of put nothing more is kept, failed is told, and what the last bundle
// still says is that, and the leg's events.
func (l *Leg) Flush(now time.Time, put Put) error {
	out, err := l.cut(now)
	for i, g := range out {
		if err := put(g.header, g.plain); err != nil {
			return l.fail(now, out[i:], err)
		}
	}
	if err != nil {
		return l.fail(now, nil, err)
	}
	return nil
}

// fail gives up keeping media. A whole bundle that was not kept is given out again,
// without media, when the leg ends, so that no number is left out.
func (l *Leg) fail(now time.Time, refused []given, err error) error {
	l.mu.Lock()
	first := l.broken == nil
	var events []event
	for _, g := range slices.Backward(refused) {
		if g.header.Part == 0 {
			l.seq, l.done = g.header.Seq, false
			events = slices.Insert(events, 0, history(g.header.Events)...)
		}
	}
	l.events = append(events, l.events...)
	if first {
		l.broken = err
		l.event(conversation.LegEvent{At: l.at(l.since(now)), Kind: conversation.EventFault, Reason: "storage: recording ended here"})
		l.tracks, l.order = map[conversation.TrackID]*track{}, nil
	}
	l.mu.Unlock()
	if first && l.failed != nil {
		l.failed(err)
	}
	return fmt.Errorf("leg %s: %w", l.info.Leg, err)
}

func history(list []conversation.LegEvent) (out []event) {
	for _, e := range list {
		out = append(out, event{LegEvent: e})
	}
	return out
}

// cut lays out what is due.
func (l *Leg) cut(now time.Time) ([]given, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done || l.broken != nil && !l.ended {
		return nil, nil
	}
	at := l.since(now)
	l.watch(now, at)
	settled := max(l.settled, at-stall)
	var out []given
	var errs []error
	take := func(g given, err error) {
		if err != nil {
			errs = append(errs, err)
			return
		}
		out = append(out, g)
	}
	for !l.done {
		end := time.Duration(l.seq+1) * conversation.SegmentDuration
		final := l.ended && l.endAt <= end
		if !final && settled < end && !l.ended {
			break
		}
		if final {
			end = max(l.endAt, l.lastSample())
		}
		take(l.bundle(end, final))
		l.done = final
	}
	if !l.done && l.broken == nil {
		for seq := l.seq; time.Duration(seq)*conversation.SegmentDuration < at+time.Second; seq++ {
			if l.parts[seq] < MaxParts && l.news(seq) {
				take(l.part(seq, at))
			}
		}
	}
	return out, errors.Join(errs...)
}

// watch tells when the wall clock was set: the leg goes on by the monotonic one.
func (l *Leg) watch(now time.Time, at time.Duration) {
	step := now.Round(0).Sub(l.at(at))
	if d := step - l.step; d > stepAlarm || d < -stepAlarm {
		l.step = step
		l.event(conversation.LegEvent{At: l.at(at), Kind: conversation.EventAnomaly, Reason: fmt.Sprintf("the wall clock was set by %s: times go on as before", d.Round(time.Millisecond))})
	}
}

// lastSample is when the last sample of the leg ends.
func (l *Leg) lastSample() time.Duration {
	var last time.Duration
	for _, t := range l.order {
		for _, ln := range t.lanes {
			if n := len(ln.samples); n > 0 && !ln.samples[n-1].quiet {
				last = max(last, duration(ln.samples[n-1].time+int64(ln.samples[n-1].dur), timescale(t.kind)))
			}
		}
	}
	// A clock that is ahead must not make the last bundle longer than a bundle may be.
	return min(last, time.Duration(l.seq+1)*conversation.SegmentDuration)
}

// bundle lays out bundle seq, which ends at end, and goes on to the next.
func (l *Leg) bundle(end time.Duration, final bool) (given, error) {
	b := l.layout(l.seq, 0)
	b.h.To = l.at(end)
	for _, t := range l.order {
		if t.kind == conversation.AudioTrack {
			l.fillTo(t, end, final)
		} else if len(t.lanes) > 0 && t.lanes[0].opened(units(end, media.VideoTimescale)) {
			endPicture(t.lanes[0], units(end, media.VideoTimescale))
		}
		if err := b.track(t, 0, 0, end, final); err != nil {
			return given{}, err
		}
		t.drop(end, final, l.at(end))
	}
	n := 0
	for i := range l.events {
		if final || l.events[i].At.Before(l.at(end)) {
			b.h.Events = append(b.h.Events, l.events[i].LegEvent)
			continue
		}
		l.events[n] = l.events[i]
		n++
	}
	clear(l.events[n:])
	l.events = l.events[:n]
	if final {
		b.h.Final, b.h.Outcome = true, l.outcome
	}
	delete(l.parts, l.seq)
	l.seq++
	l.forget(end - 2*conversation.SegmentDuration)
	return b.done()
}

// fillTo ends the silence of a track at the end of a bundle.
func (l *Leg) fillTo(t *track, end time.Duration, final bool) {
	if len(t.lanes) == 0 || t.lanes[0].run == nil {
		return
	}
	ln, to := t.lanes[0], units(end, media.AudioTimescale)
	switch gap := to - ln.pos; {
	case gap <= slack:
	case ln.asleep || end-ln.heard > Dormant || gap > units(MaxFill, media.AudioTimescale):
		ln.asleep = true
		if final {
			l.explain(t, ln.pos, to, false)
		}
	default:
		l.fill(t, ln, (gap-slack+frame-1)/frame)
	}
}

// news reports whether there is something for a part of bundle seq.
func (l *Leg) news(seq int) bool {
	end := time.Duration(seq+1) * conversation.SegmentDuration
	for i := range l.events {
		if !l.events[i].parted && l.events[i].At.Before(l.at(end)) {
			return true
		}
	}
	for _, t := range l.order {
		for _, ln := range t.lanes {
			if ln.parted < ln.before(units(end, timescale(t.kind))) {
				return true
			}
		}
	}
	return false
}

// part lays out what has come for bundle seq since its last part.
func (l *Leg) part(seq int, at time.Duration) (given, error) {
	l.parts[seq]++
	start := time.Duration(seq) * conversation.SegmentDuration
	end := start + conversation.SegmentDuration
	b := l.layout(seq, l.parts[seq])
	b.h.To = l.at(min(max(at, start), end))
	for _, t := range l.order {
		if err := b.track(t, t.parted, -1, end, false); err != nil {
			return given{}, err
		}
		t.parted = t.gapsBefore(t.parted, l.at(end))
		for _, ln := range t.lanes {
			ln.parted = max(ln.parted, ln.before(units(end, timescale(t.kind))))
		}
	}
	for i := range l.events {
		if e := &l.events[i]; !e.parted && e.At.Before(l.at(end)) {
			b.h.Events = append(b.h.Events, e.LegEvent)
			e.parted = true
		}
	}
	return b.done()
}

// before counts the samples whose place is before end and whose duration is known.
func (ln *lane) before(end int64) int {
	n := len(ln.samples)
	for n > 0 && (ln.samples[n-1].time >= end || ln.samples[n-1].open) {
		n--
	}
	return n
}

// drop forgets what stands in a bundle that ends at end.
func (t *track) drop(end time.Duration, final bool, wall time.Time) {
	n := t.gapsBefore(0, wall)
	if final {
		n = len(t.gaps)
	}
	t.gaps = slices.Delete(t.gaps, 0, n)
	t.parted = max(0, t.parted-n)
	for i := len(t.lanes) - 1; i >= 0; i-- {
		ln := t.lanes[i]
		n := ln.before(units(end, timescale(t.kind)))
		if final {
			n = len(ln.samples)
		}
		if n > 0 {
			ln.cut(n)
		}
		if i > 0 && len(ln.samples) == 0 && n == 0 {
			t.lanes = slices.Delete(t.lanes, i, i+1)
		}
	}
}

// cut drops the first n samples.
func (ln *lane) cut(n int) {
	from := uint32(len(ln.data))
	if n < len(ln.samples) {
		from = ln.samples[n].off
	}
	ln.data = append(ln.data[:0], ln.data[from:]...)
	ln.samples = slices.Delete(ln.samples, 0, n)
	for i := range ln.samples {
		ln.samples[i].off -= from
	}
	ln.parted = max(0, ln.parted-n)
}

// layout collects a bundle.
type layout struct {
	l *Leg
	h conversation.BundleHeader
	*room
}

// room is memory for laying out a bundle. Legs are flushed one after the other, so few of
// these serve all.
type room struct {
	body    []byte
	samples []media.Sample
}

var rooms = sync.Pool{New: func() any { return new(room) }}

// maxRoom is the size from which on memory is not kept for the next bundle.
const maxRoom = 1 << 20

func (l *Leg) layout(seq, part int) *layout {
	h := l.Header()
	h.Seq, h.Part = seq, part
	h.From = l.at(time.Duration(seq) * conversation.SegmentDuration)
	r := rooms.Get().(*room)
	r.body = r.body[:0]
	return &layout{l: l, h: h, room: r}
}

func (b *layout) done() (given, error) {
	plain, err := media.EncodeBundle(b.h, b.body)
	if err != nil {
		return given{}, fmt.Errorf("lay out bundle: %w", err)
	}
	clear(b.samples[:cap(b.samples)])
	if cap(b.body) <= maxRoom {
		rooms.Put(b.room)
	}
	return given{b.h, plain}, nil
}

// track adds the samples of a track before end, and its gaps from the given one on. From
// which sample on says from: 0, or -1 for those that stand in no part yet.
func (b *layout) track(t *track, gap, from int, end time.Duration, final bool) error {
	gaps := t.gaps[gap:t.gapsBefore(gap, b.l.at(end))]
	if final {
		gaps = t.gaps[gap:]
	}
	first := len(b.h.Segments)
	for _, ln := range t.lanes {
		i, n := max(from, 0), ln.before(units(end, timescale(t.kind)))
		if final {
			n = len(ln.samples)
		}
		if from < 0 {
			i = ln.parted
		}
		for i < n {
			j := i + 1
			for j < n && ln.samples[j].run == ln.samples[i].run && ln.samples[j].time == ln.samples[j-1].time+int64(ln.samples[j-1].dur) {
				j++
			}
			if err := b.segment(t, ln, i, j); err != nil {
				return err
			}
			i = j
		}
	}
	if len(gaps) == 0 {
		return nil
	}
	if first == len(b.h.Segments) {
		s := b.describe(t, &run{codec: b.codec(t)})
		s.Wall = gaps[0].From
		b.h.Segments = append(b.h.Segments, s)
	}
	b.h.Segments[first].Gaps = slices.Clone(gaps)
	return nil
}

func (b *layout) codec(t *track) string {
	if len(t.lanes) > 0 && t.lanes[0].run != nil {
		return t.lanes[0].run.codec
	}
	if t.kind == conversation.AudioTrack {
		return media.OpusCodec
	}
	return "avc1"
}

func (b *layout) describe(t *track, r *run) conversation.Segment {
	return conversation.Segment{
		Track: t.id, Kind: t.kind, Source: t.source, ByLine: t.byLine,
		Participant: b.l.roster.owners[sourceKey{t.kind, t.source}],
		Run:         r.n, Codec: r.codec, Width: r.width, Height: r.height,
		Timescale: int(timescale(t.kind)),
	}
}

// segment adds samples [i, j) of a lane: one run, without a hole.
func (b *layout) segment(t *track, ln *lane, i, j int) error {
	head := &ln.samples[i]
	s := b.describe(t, head.run)
	s.Wall = b.l.at(duration(head.time, timescale(t.kind)))
	s.Time, s.Samples = head.time, j-i
	if t.kind != conversation.AudioTrack {
		s.Key = head.key
	}
	if head.first {
		s.Init = &conversation.Span{Off: int64(len(b.body)), Len: int64(len(head.run.init))}
		b.body = append(b.body, head.run.init...)
	}
	samples := b.samples[:0]
	for k := i; k < j; k++ {
		x := &ln.samples[k]
		s.Duration += int64(x.dur)
		samples = append(samples, media.Sample{Data: ln.data[x.off : x.off+x.size], Duration: x.dur, Sync: x.key})
	}
	b.samples = samples
	f := media.Fragment{Sequence: uint32(b.h.Seq*(MaxParts+1) + b.h.Part + 1), Time: uint64(head.time), DefaultDuration: head.dur, Samples: samples}
	off := len(b.body)
	body, err := media.AppendFragment(b.body, f)
	if err != nil {
		return fmt.Errorf("lay out %s: %w", t.id, err)
	}
	b.body = body
	s.Data = conversation.Span{Off: int64(off), Len: int64(len(body) - off)}
	b.h.Segments = append(b.h.Segments, s)
	return nil
}
