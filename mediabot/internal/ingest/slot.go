package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"steno/shared/conversation"
	"steno/shared/media"
	"steno/shared/teams"
)

// Bounds of sequence numbers, RFC 3550 appendix A.1: a larger jump is a sender that began
// anew, if a second packet confirms it.
const (
	maxDropout  = 3000
	maxMisorder = 500
	// maxPending is how many packets may wait behind a hole.
	maxPending = 4096
	// maxGivenUp is how many missing packets are remembered, in case they come all the same.
	maxGivenUp = 512
)

// slot is one offered track: its sequence numbers, its bindings, and what waits.
type slot struct {
	feed  int
	name  string
	video bool
	kind  conversation.TrackKind
	ssrc  uint32
	pt    uint8

	bindings []binding
	own      timeline // by arrival or sender reports, where there are no clock lines
	adrift   timeline // where timestamps cannot be true

	started bool
	next    int64 // the sequence number that is due, extended
	top     int64 // the highest that came
	pending map[int64]packet
	since   time.Time // when the hole before them was seen
	lost    []int64   // given up; some may still come
	asked   map[int64]request
	probe   int64 // a packet after which a jump would go on, -1 if none
	probing packet
	waiting []packet // in order, for their binding

	last     last
	behind   time.Duration // least of arrival - time over the last frames
	unit     accessUnit
	unitTS   uint32
	broken   bool // packets of the picture are missing
	wantsKey bool
	asking   time.Time

	received, gone uint64 // for receiver reports
	report         srInfo
}

// last is what a slot last gave the sink.
type last struct {
	id     conversation.TrackID
	kind   conversation.TrackKind
	source teams.SourceID
	end    time.Time
}

// packet is what is kept of an RTP packet.
type packet struct {
	ts      uint32
	marker  bool
	said    bool // it carries the source extension
	epoch   uint8
	source  uint32
	missing int  // packets before it that never came
	late    bool // given up before it came
	arrival time.Time
	payload []byte
}

type request struct {
	at    time.Time
	tries int
}

func newSlot(feed int, t Track) *slot {
	s := &slot{feed: feed, name: t.Name, video: t.Kind == "video", kind: conversation.AudioTrack, ssrc: t.SSRC, pt: t.PT}
	rate := int64(media.AudioTimescale)
	if s.video {
		s.kind, rate = conversation.VideoTrack, media.VideoTimescale
		if strings.HasPrefix(t.Name, "vbss") {
			s.kind = conversation.ScreenTrack
		}
	}
	s.own.rate, s.adrift.rate = rate, rate
	s.restart()
	return s
}

// restart forgets packets, not bindings.
func (s *slot) restart() {
	s.started, s.pending, s.lost, s.asked, s.waiting, s.probe = false, nil, nil, nil, nil, -1
	s.last, s.behind, s.broken, s.wantsKey = last{}, 0, false, s.video
	s.own.known, s.adrift.known = false, false
	s.unit.reset()
}

// order puts packets into sequence and hands on those that are due.
func (x *intake) order(now time.Time, s *slot, number uint16, p packet) {
	s.received++
	if !s.started {
		s.started, s.next, s.top = true, int64(number), int64(number)
	}
	seq := s.top + int64(int16(number-uint16(s.top)))
	if seq > s.top+maxDropout || seq < s.next-maxMisorder {
		x.jump(now, s, number, p)
		return
	}
	s.probe = -1
	s.top = max(s.top, seq)
	switch {
	case seq == s.next:
		if r, asked := s.asked[seq]; asked && r.tries > 0 {
			x.count.Repaired++
		}
		s.next++
		x.bind(now, s, p)
		x.drain(now, s)
	case seq < s.next:
		i := slices.Index(s.lost, seq)
		if i < 0 {
			x.count.Duplicate++
			return
		}
		s.lost = slices.Delete(s.lost, i, i+1)
		x.count.Late++
		if !s.video {
			p.late = true
			x.bind(now, s, p)
		}
	default:
		if _, there := s.pending[seq]; there {
			x.count.Duplicate++
			return
		}
		if s.pending == nil {
			s.pending, s.since = map[int64]packet{}, now
		} else if len(s.pending) == 0 {
			s.since = now
		}
		p.payload = bytes.Clone(p.payload)
		s.pending[seq] = p
		if len(s.pending) > maxPending {
			x.giveUp(now, s, false)
		}
	}
}

// jump looks at a packet that is far from where the track stands. Two that follow each
// other are a sender that began anew; one alone is nothing.
func (x *intake) jump(now time.Time, s *slot, number uint16, p packet) {
	if s.probe < 0 || uint16(s.probe) != number {
		s.probe = int64(number + 1)
		s.probing = p
		s.probing.payload = bytes.Clone(p.payload)
		x.count.Malformed++
		return
	}
	x.count.Malformed--
	x.giveUp(now, s, true)
	x.odd(now, s.name+": sequence numbers began anew")
	s.probe, s.lost, s.asked = -1, nil, nil
	s.next, s.top = int64(number)+1, int64(number)
	s.probing.missing = 1 // how many is not known; some are
	x.bind(now, s, s.probing)
	x.bind(now, s, p)
}

// drain hands on what a filled hole set free.
func (x *intake) drain(now time.Time, s *slot) {
	for len(s.pending) > 0 {
		p, ok := s.pending[s.next]
		if !ok {
			break
		}
		delete(s.pending, s.next)
		s.next++
		x.bind(now, s, p)
	}
	if len(s.pending) == 0 {
		s.asked = nil
		return
	}
	s.since = time.Time{}
	for _, p := range s.pending {
		if s.since.IsZero() || p.arrival.Before(s.since) {
			s.since = p.arrival
		}
	}
}

// giveUp takes the packets of the first hole, or of all, for lost.
func (x *intake) giveUp(now time.Time, s *slot, all bool) {
	for len(s.pending) > 0 {
		first := int64(1) << 62
		for seq := range s.pending {
			first = min(first, seq)
		}
		missing := first - s.next
		for seq := max(s.next, first-maxGivenUp); seq < first; seq++ {
			s.lost = append(s.lost, seq)
		}
		if n := len(s.lost) - maxGivenUp; n > 0 {
			s.lost = slices.Delete(s.lost, 0, n)
		}
		x.count.Lost += uint64(missing)
		s.gone += uint64(missing)
		p := s.pending[first]
		p.missing = int(missing)
		delete(s.pending, first)
		s.next = first + 1
		x.bind(now, s, p)
		x.drain(now, s)
		if !all {
			return
		}
	}
}

// bind hands a packet on if it is known whose it is, or lets it wait.
func (x *intake) bind(now time.Time, s *slot, p packet) {
	if len(s.waiting) == 0 && x.keep(now, s, p, false) {
		return
	}
	if len(s.waiting) >= maxPending {
		x.keep(now, s, s.waiting[0], true)
		s.waiting = slices.Delete(s.waiting, 0, 1)
	}
	p.payload = bytes.Clone(p.payload)
	s.waiting = append(s.waiting, p)
}

// release hands on what waits and need not wait any more.
func (x *intake) release(now time.Time) {
	if x.sink == nil {
		return
	}
	for _, s := range x.slots {
		n := 0
		for n < len(s.waiting) && x.keep(now, s, s.waiting[n], now.Sub(s.waiting[n].arrival) >= BindPatience) {
			n++
		}
		s.waiting = slices.Delete(s.waiting, 0, n)
		if len(s.waiting) == 0 {
			s.waiting = nil
		}
	}
}

// whose says to which track a packet belongs. The header extension decides; where there
// is none, lines do. Not ok: nothing has said so yet.
func (s *slot) whose(p *packet) (source uint32, byLine, contradicted, ok bool) {
	for i := len(s.bindings) - 1; i >= 0; i-- {
		b := &s.bindings[i]
		if !b.covers(p.ts) || p.said && b.epoch != p.epoch {
			continue
		}
		if p.said && b.source != p.source {
			return wireUnknown, false, true, true
		}
		return b.source, !p.said, false, true
	}
	return wireUnknown, false, false, false
}

// keep gives a packet to the sink, unless it is to wait. It reports whether it did.
func (x *intake) keep(now time.Time, s *slot, p packet, must bool) bool {
	source, byLine, contradicted, ok := s.whose(&p)
	switch {
	case !ok && !must:
		return false
	case !ok:
		x.count.Unbound++
		x.odd(now, s.name+": frames that no line bound to a source: kept as unknown")
	case contradicted:
		x.count.Contradicted++
		x.odd(now, s.name+": frames whose source the lines contradict: kept as unknown")
	}
	f := &x.frame
	*f = Frame{Kind: s.kind, ByLine: byLine, Feed: s.feed}
	f.Track, f.Source = x.trackOf(s, source)
	if s.video {
		x.picture(now, s, p, f)
	} else {
		x.sound(now, s, p, f)
	}
	return true
}

// trackOf names the track of a source. What is on the mix while its source has a track
// of its own is a copy, or a voice too many: it stays on the mix.
func (x *intake) trackOf(s *slot, source uint32) (conversation.TrackID, teams.SourceID) {
	switch {
	case s.video && (source == wireUnknown || source == wireMixed):
		return conversation.TrackID(string(s.kind) + "-unknown"), 0
	case s.video:
		return conversation.TrackOf(s.kind, teams.SourceID(source)), teams.SourceID(source)
	case source == wireMixed && s.name == "mix":
		return conversation.TrackMixed, 0
	case source == wireMixed || source == wireUnknown:
		return conversation.TrackUnknown, 0
	case s.name == "mix" && x.hasSlot(source):
		return conversation.TrackMixed, 0
	}
	return conversation.TrackOf(s.kind, teams.SourceID(source)), teams.SourceID(source)
}

func (x *intake) hasSlot(source uint32) bool {
	for _, s := range x.slots {
		if n := len(s.bindings); !s.video && s.name != "mix" && n > 0 && s.bindings[n-1].open && s.bindings[n-1].source == source {
			return true
		}
	}
	return false
}

// time places a packet: by its clock, or by its arrival where the clock cannot be true.
func (x *intake) time(now time.Time, s *slot, p *packet) time.Time {
	arrival := x.wallOf(p.arrival)
	c := x.clockOf(s)
	if !c.known {
		c.anchor(int64(p.ts), arrival)
	}
	rtp := c.extend(p.ts)
	if c == &s.own && c.ticks == 0 {
		if d := arrival.Sub(c.at(rtp)); d < 0 && d > -maxSkew {
			c.arrive(rtp, arrival)
		}
	}
	wall := c.at(rtp)
	off := arrival.Sub(wall)
	if off < maxSkew && off > -maxSkew {
		s.adrift.known = false
		if c == &s.own {
			c.rtp, c.wall = rtp, wall // so that a long call never goes half around
		}
		s.behind = min(off, s.behind+time.Millisecond)
		return wall
	}
	x.odd(now, s.name+": RTP times that cannot be true: placed by arrival")
	if s.adrift.known {
		rtp = s.adrift.extend(p.ts)
		wall = s.adrift.at(rtp)
		off = arrival.Sub(wall)
	}
	if !s.adrift.known || off > maxSkew || off < -maxSkew {
		s.adrift.anchor(int64(p.ts), arrival)
		return arrival
	}
	s.adrift.rtp, s.adrift.wall = rtp, wall
	return wall
}

func (x *intake) sound(now time.Time, s *slot, p packet, f *Frame) {
	duration, err := media.PacketDuration(p.payload)
	if err == nil && len(p.payload) > 1+MaxFrame && p.payload[0]&3 == 0 {
		err = errors.New("frame too large")
	}
	f.Wall = x.time(now, s, &p)
	if err != nil {
		x.malformed(now, s, "a packet that is not Opus")
		x.sink.Missing(f.Track, f.Kind, f.Source, f.Wall, f.Wall.Add(20*time.Millisecond), conversation.GapLost, "the packet is not Opus")
		return
	}
	x.missing(s, p, f)
	f.Duration, f.Data = duration, p.payload
	x.give(f)
	if p.late {
		return
	}
	end := f.Wall.Add(time.Duration(duration) * time.Second / media.AudioTimescale)
	s.last = last{f.Track, f.Kind, f.Source, end}
}

// missing tells the sink of packets that never came before one that did.
func (x *intake) missing(s *slot, p packet, f *Frame) {
	if p.missing == 0 || s.last.id == "" || p.late || !f.Wall.After(s.last.end) {
		return
	}
	x.sink.Missing(s.last.id, s.last.kind, s.last.source, s.last.end, f.Wall, conversation.GapLost, fmt.Sprintf("%d packets lost", p.missing))
}

func (x *intake) picture(now time.Time, s *slot, p packet, f *Frame) {
	if p.missing > 0 {
		s.broken = true
	}
	if p.ts != s.unitTS && (len(s.unit.data) > 0 || s.unit.fragment >= 0) {
		// The picture before had no end: its last packet is among the missing ones.
		x.spoiled(now, s, f)
		s.broken = p.missing > 0
	}
	s.unitTS = p.ts
	if err := s.unit.add(p.payload); err != nil && !s.broken {
		s.broken = true
		x.malformed(now, s, err.Error())
	}
	if !p.marker {
		return
	}
	if s.broken || s.unit.fragment >= 0 {
		x.spoiled(now, s, f)
		return
	}
	f.Wall = x.time(now, s, &p)
	f.Data, f.Key, f.SPS, f.PPS = s.unit.data, s.unit.key, s.unit.sps, s.unit.pps
	if len(f.Data) > 0 {
		if f.Key {
			s.wantsKey = false
		}
		x.give(f)
		s.last = last{f.Track, f.Kind, f.Source, f.Wall}
	}
	s.unit.reset()
}

// spoiled drops a picture of which packets are missing, and asks for one that needs no
// others.
func (x *intake) spoiled(now time.Time, s *slot, f *Frame) {
	c := x.clockOf(s)
	if c.known {
		from := c.at(c.extend(s.unitTS))
		if off := x.wallOf(now).Sub(from); off < maxSkew && off > -maxSkew {
			x.sink.Missing(f.Track, f.Kind, f.Source, from, from.Add(time.Second/15), conversation.GapLost, "picture incomplete")
		}
	}
	s.unit.reset()
	s.broken, s.wantsKey = false, true
}
