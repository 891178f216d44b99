package ingest

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pion/rtp"

	"steno/shared/conversation"
	"steno/shared/media"
	"steno/shared/teams"
)

// Limits of what a peer may send.
const (
	MaxTracks = 16
	MaxPacket = 1500 // bytes of RTP
	// MaxFrame is the largest packet of one Opus frame, RFC 6716 section 3.2.1.
	MaxFrame = media.MaxOpusFrame

	// DefaultWindow is how long a hole waits for its packets. The gateway repeats what is
	// asked for while it has it, for half a second.
	DefaultWindow = time.Second
	// MaxWindow bounds it.
	MaxWindow = 2 * time.Second
	// BindPatience is how long a frame waits for the line that says whose it is.
	BindPatience = 2 * time.Second
	// delay is how old frames may be when they come: the gateway's queue holds a second.
	delay = 1500 * time.Millisecond
)

// Frame is one coded frame on its way to the sink.
type Frame struct {
	Track    conversation.TrackID
	Kind     conversation.TrackKind
	Source   teams.SourceID
	ByLine   bool // bound by control lines alone
	Feed     int  // index of the offered track
	Wall     time.Time
	Duration int // of audio, in samples of 48 kHz
	Data     []byte
	Key      bool
	SPS, PPS []byte
}

// Sink takes what a peer receives. Its methods are called one at a time and must not
// wait. Data of frames is good during the call.
type Sink interface {
	// Frame takes a frame. Those of a feed come in order, except late ones.
	Frame(f *Frame)
	// Missing says why a track has no frames in [from, to). It may come shortly after
	// later frames did.
	Missing(track conversation.TrackID, kind conversation.TrackKind, source teams.SourceID, from, to time.Time, why conversation.GapKind, reason string)
	// Settled says that what was sent before t has come or was reported missing.
	Settled(t time.Time)
	// Anomaly is something that should not be.
	Anomaly(at time.Time, reason string)
}

// Counters are what happened to packets.
type Counters struct {
	Packets, Lost, Repaired, Late, Duplicate uint64
	Malformed                                uint64 // dropped: not what was offered, too large, or not readable
	Unbound, Contradicted                    uint64 // frames kept as those of an unknown source
	Undeclared                               uint64 // sources of packets that were not offered
	Nacks, KeyFrames                         uint64 // asked for
	Closed                                   uint64 // packets that came while nothing was recorded
}

// intake is what a peer does with packets and lines. It starts nothing and asks for no
// time.
type intake struct {
	window time.Duration
	ext    uint8 // id of the source extension, 0 if there is none

	mu         sync.Mutex
	slots      []*slot
	audioClock timeline
	videoClock timeline
	sink       Sink
	origin     time.Time // of the sink's clock
	count      Counters
	header     rtp.Header
	frame      Frame

	seq       int64 // of the last control line
	allowance float64
	allowed   time.Time
	oddities  map[string]time.Time
	reported  time.Time // when receiver reports went out
	settled   time.Time
	until     time.Time // frames from then on are dropped, if it is set
	own       uint32    // our SSRC in RTCP
}

func newIntake(tracks []Track, ext int, window time.Duration, now time.Time) *intake {
	x := &intake{
		window: window, ext: uint8(ext), own: rand.Uint32(), oddities: map[string]time.Time{}, allowance: MaxControlRate, allowed: now,
		audioClock: timeline{rate: media.AudioTimescale}, videoClock: timeline{rate: media.VideoTimescale},
	}
	for i, t := range tracks {
		x.slots = append(x.slots, newSlot(i, t))
	}
	return x
}

func (x *intake) named(track string) *slot {
	for _, s := range x.slots {
		if s.name == track {
			return s
		}
	}
	return nil
}

func (x *intake) clockOf(s *slot) *timeline {
	shared := &x.audioClock
	if s.video {
		shared = &x.videoClock
	}
	if shared.known {
		return shared
	}
	return &s.own
}

// wallOf is the time of the sink's clock.
func (x *intake) wallOf(now time.Time) time.Time {
	return x.origin.Round(0).Add(now.Sub(x.origin))
}

// odd tells the sink of something odd, at most once a minute for each kind.
func (x *intake) odd(now time.Time, what string) {
	if last, ok := x.oddities[what]; x.sink == nil || ok && now.Sub(last) < time.Minute {
		return
	}
	x.oddities[what] = now
	x.sink.Anomaly(x.wallOf(now), what)
}

// attach lets frames through to a sink. What came before is gone. Origin is a moment of
// the sink's clock, with its monotonic reading.
func (x *intake) attach(origin, now time.Time, sink Sink) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.sink, x.origin = sink, origin
	x.settled, x.until = time.Time{}, time.Time{}
	for _, s := range x.slots {
		s.restart()
	}
}

// close drops what was sent after now.
func (x *intake) close(now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.until = x.wallOf(now)
}

// detach gives the sink what waits, and then nothing more.
func (x *intake) detach(now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.sink == nil {
		return
	}
	for _, s := range x.slots {
		x.giveUp(now, s, true)
		for _, p := range s.waiting {
			x.keep(now, s, p, true)
		}
		s.restart()
	}
	x.sink.Settled(x.wallOf(now))
	x.sink = nil
}

// rtp takes a packet of a slot, decrypted and authenticated.
func (x *intake) rtp(now time.Time, s *slot, b []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.count.Packets++
	if x.sink == nil {
		x.count.Closed++
		return
	}
	if len(b) > MaxPacket {
		x.malformed(now, s, "a packet larger than 1,500 bytes")
		return
	}
	h := &x.header
	n, err := h.Unmarshal(b)
	if err != nil {
		x.malformed(now, s, "a packet that is not RTP")
		return
	}
	payload := b[n:]
	if h.Padding {
		pad := 0
		if len(payload) > 0 {
			pad = int(payload[len(payload)-1])
		}
		if pad == 0 || pad > len(payload) {
			x.malformed(now, s, "a packet that is not RTP")
			return
		}
		payload = payload[:len(payload)-pad]
	}
	if h.PayloadType != s.pt {
		x.malformed(now, s, "a payload type that was not offered")
		return
	}
	p := packet{ts: h.Timestamp, marker: h.Marker, arrival: now, payload: payload}
	if x.ext != 0 {
		if e := h.GetExtension(x.ext); len(e) == 5 {
			p.said, p.epoch, p.source = true, e[0], binary.BigEndian.Uint32(e[1:])
		}
	}
	x.order(now, s, h.SequenceNumber, p)
}

func (x *intake) malformed(now time.Time, s *slot, what string) {
	x.count.Malformed++
	x.odd(now, s.name+": "+what)
}

// give hands a frame to the sink.
func (x *intake) give(f *Frame) {
	if x.until.IsZero() || f.Wall.Before(x.until) {
		x.sink.Frame(f)
	}
}

// settle tells the sink up to when everything has come.
func (x *intake) settle(now time.Time) {
	behind := time.Duration(0)
	for _, s := range x.slots {
		behind = max(behind, s.behind-delay/3)
	}
	// A clock of the gateway's that is behind ours makes frames look older than they are.
	t := x.wallOf(now).Add(-delay - behind)
	for _, s := range x.slots {
		if (len(s.pending) > 0 || len(s.waiting) > 0) && !s.last.end.IsZero() && s.last.end.Before(t) {
			t = s.last.end
		}
	}
	if t.After(x.settled) {
		x.settled = t
		x.sink.Settled(t)
	}
}
