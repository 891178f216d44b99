package gateway

import (
	"bytes"
	"strconv"
	"time"
)

// pictureQueue is how many video frames may wait; they also go when audio waits for half a second.
const pictureQueue = 32

// keyFramePause is the least time between two requests for a key frame of one socket.
const keyFramePause = time.Second

// mixedAfter is how many ticks without unmixed buffers mean that there will be none.
const mixedAfter = 10

// clockTicks is the time between clock lines: 5 s.
const clockTicks = 250

// item is what one tick or one video frame puts into the queue.
type item struct {
	lines   []line
	frames  []*frame
	picture *socket // whose frame it is, nil for audio
}

type frame struct {
	track   *track
	rtp     uint32
	source  uint32
	epoch   uint8
	last    bool // of an access unit
	payload []byte
}

// loss is a stretch of a track that was dropped.
type loss struct {
	track    *track
	from, to uint32
	frames   int
}

// socket is a video socket.
type socket struct {
	name          string
	bind          *binding
	subscribed    bool
	wanted        uint32 // 0: whoever the platform chooses
	resolution    string
	hold          bool // until a frame at which a decoder can start
	dropping      bool // frames since an overflow, until then too
	width, height int
	sps           []byte
	asked         time.Time // for a key frame
}

// keyFramer is a Source that wants to know about requests for key frames. It must not call the gateway back.
type keyFramer interface{ RequestKeyFrame(socket string) }

// feed hands over the ticks that are due on the grid of real time. A full queue makes it wait for the next round: the
// platform of this gateway is never faster than its sender, unless a test stalls the sender.
func (c *call) feed(grid int64) {
	for {
		c.mu.Lock()
		src, k := c.source, c.next
		due := src != nil && k <= grid && (c.ticks < queueTicks || c.g.stalled.Load())
		if due {
			c.next++
		}
		c.mu.Unlock()
		if !due {
			return
		}
		c.take(src.Tick(time.Unix(0, k*int64(TickLength)).UTC()))
	}
}

// take is the platform's callback: it never waits.
func (c *call) take(t Tick) {
	c.g.buffers.taken.Add(1)
	defer func() {
		if !c.g.has(DefectLeaks) {
			c.g.buffers.disposed.Add(1)
		}
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == StateClosed || c.state == StateFailed {
		c.g.late.Add(1)
		return
	}
	if !t.Missing {
		c.takeAudio(&t)
	}
	for i := range t.Video {
		f := &t.Video[i]
		for _, name := range c.trackNames()[speakerSlots+1:] {
			if name == f.Socket || f.Socket == "" && name != "vbss" {
				c.takeVideo(c.sockets[name], f)
			}
		}
	}
}

func (c *call) takeAudio(t *Tick) {
	c.count.Ticks++
	c.lastTick = c.g.now()
	before := c.tl.n
	s := c.tl.advance(t.Timestamp)
	c.bend(t, &s, before)
	if !c.open {
		c.count.Gated++
		if !c.g.has(DefectOpenGate) || !c.connected {
			return
		}
	}
	it := &item{}
	c.tell(it, t, s)
	c.chooseMode(it, t, s.n)
	for _, b := range append(c.slots[:speakerSlots:speakerSlots], c.mix) {
		if b.bound && s.n-b.n > absentTicks {
			it.lines = append(it.lines, c.unbind(b, "absent")...)
		}
	}
	switch {
	case len(t.Unmixed) > 0:
		c.voices(it, t, s.n)
	case t.Mixed != nil:
		c.sendMix(it, s.n, mixedSource(t), t.Mixed)
	case c.g.has(DefectSilence):
		c.sendMix(it, s.n, sourceMixed, []byte{0x48, 0xff, 0xfe})
	}
	if len(it.frames) == 0 {
		c.count.Silent++
	}
	c.push(it)
}

// bend applies the defects of the timeline.
func (c *call) bend(t *Tick, s *step, before int64) {
	switch {
	case c.g.has(DefectTimeBack) && s.oddity == "timestamp_backward":
		s.n = (t.Timestamp - c.tl.origin) / tickUnits
		c.tl.n = s.n
	case c.g.has(DefectHiddenGap) && s.missing > 0:
		s.n = before + 1
		c.tl.origin += s.missing * tickUnits
		c.tl.n, s.missing = s.n, 0
	}
}

// tell adds the lines about time that go before a tick's frames.
func (c *call) tell(it *item, t *Tick, s step) {
	rtp := c.tl.rtp(s.n)
	if s.missing > 0 {
		it.lines = append(it.lines, line{
			"t": "gap", "from": c.tl.rtp(s.n - s.missing), "to": rtp, "frames": s.missing, "why": "source",
		})
	}
	if s.oddity != "" {
		c.anomaly(it, s.oddity, line{"rtp": rtp})
	}
	if c.tl.known && (c.clockDue || s.missing > 0 || s.n-c.lastClock >= clockTicks) {
		c.clockDue, c.lastClock = false, s.n
		ts := c.tl.timestamp(s.n)
		wall := Instant(ts).Format(time.RFC3339Nano)
		it.lines = append(it.lines, line{"t": "clock", "kind": "audio", "rtp": rtp, "ts": strconv.FormatInt(ts, 10), "wall": wall})
		if len(c.sockets) > 0 {
			it.lines = append(it.lines, line{"t": "clock", "kind": "video", "rtp": c.tl.video(ts), "ts": strconv.FormatInt(ts, 10), "wall": wall})
		}
	}
	if t.Dominant != 0 {
		it.lines = append(it.lines, line{"t": "dominant", "source": sourceName(t.Dominant)})
	}
}

func (c *call) anomaly(it *item, kind string, more line) {
	c.count.Anomalies++
	more["t"], more["kind"] = "anomaly", kind
	it.lines = append(it.lines, more)
}

// chooseMode follows what the platform gives: without unmixed buffers for ten ticks that carry sound, the call is
// mixed; with one, it is unmixed.
func (c *call) chooseMode(it *item, t *Tick, n int64) {
	mode := c.mode
	switch {
	case len(t.Unmixed) > 0:
		c.unmixedOff, mode = 0, "unmixed"
	case t.Unmixed == nil && t.Mixed != nil:
		if c.unmixedOff++; c.unmixedOff >= mixedAfter {
			mode = "mixed"
		}
	}
	if mode != c.mode {
		c.mode = mode
		it.lines = append(it.lines, line{"t": "mode", "audio": mode, "rtp": c.tl.rtp(n)})
	}
}

// voices sends each speaker on a slot. Those for whom there is none go on the mix, as far as it can carry them.
func (c *call) voices(it *item, t *Tick, n int64) {
	slots := assign(c.slots, t.Unmixed)
	mixFree := true
	for i, v := range t.Unmixed {
		if slots[i] >= 0 {
			c.sendOn(it, c.slots[slots[i]], n, v.MSI, v.Opus)
			continue
		}
		kind := "fifth_speaker"
		if occursBefore(t.Unmixed, i, v.MSI) {
			kind = "duplicate_source"
		}
		if c.g.has(DefectDropsFifth) {
			continue
		}
		c.anomaly(it, kind, line{"source": sourceName(v.MSI), "rtp": c.tl.rtp(n)})
		if mixFree {
			mixFree = false
			c.sendMix(it, n, v.MSI, v.Opus)
			continue
		}
		rtp := c.tl.rtp(n)
		c.count.Dropped["mix"]++
		it.lines = append(it.lines, line{"t": "loss", "track": "mix", "from": rtp, "to": rtp + audioStep, "frames": 1, "why": "voices"})
	}
	if c.g.has(DefectZeroMix) && mixFree {
		c.sendMix(it, n, sourceMixed, []byte{0x48, 0xff, 0xfe})
	}
}

func mixedSource(t *Tick) uint32 {
	if len(t.Active) == 1 {
		return t.Active[0]
	}
	return sourceMixed
}

func (c *call) sendMix(it *item, n int64, source uint32, packet []byte) {
	c.sendOn(it, c.mix, n, source, packet)
}

// sourceName is how lines call a source.
func sourceName(source uint32) string {
	switch source {
	case sourceUnknown:
		return "unknown"
	case sourceMixed:
		return "mixed"
	}
	return strconv.FormatUint(uint64(source), 10)
}

// sendOn puts a frame on a track and binds the track first if it carried somebody else.
func (c *call) sendOn(it *item, b *binding, n int64, source uint32, packet []byte) {
	named := sourceName(source)
	if source == sourceMixed && b != c.mix {
		named = "unknown"
	}
	rtp := c.tl.rtp(n)
	if c.g.has(DefectStep320) {
		rtp = c.tl.base + uint32(n*320)
	}
	former := b.bound && b.source != source
	it.lines = append(it.lines, c.rebind(b, source, named, rtp)...)
	b.n, b.rtp = n, rtp
	if former && c.g.has(DefectResidue) {
		if p, err := TonePacket(b.former, tonePrefix); err == nil {
			packet = p
		}
	}
	it.frames = append(it.frames, &frame{track: b.track, rtp: rtp, source: source, epoch: b.epoch, payload: packet})
}

// rebind returns the lines that make a track carry a source, none if it does already.
func (c *call) rebind(b *binding, source uint32, named string, rtp uint32) []line {
	if b.bound && b.source == source {
		return nil
	}
	lines := c.unbind(b, "taken")
	b.former = b.source
	c.bindings++
	b.bound, b.source, b.named, b.ordinal = true, source, named, c.bindings
	b.epoch++
	return append(lines, line{"t": "bind", "n": c.bindings, "track": b.track.Name, "epoch": b.epoch, "source": named, "rtp": rtp})
}

// unbind returns the line that ends a binding, none if there is none.
func (c *call) unbind(b *binding, reason string) []line {
	if !b.bound {
		return nil
	}
	c.bindings++
	c.frees++
	b.bound, b.freed = false, c.frees
	return []line{{"t": "unbind", "n": c.bindings, "track": b.track.Name, "epoch": b.epoch, "source": b.named, "rtp": b.rtp, "reason": reason}}
}

// keyFrame is the recorder's request for a key frame.
func (c *call) keyFrame(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sockets[name]; s != nil && c.open {
		c.askKeyFrame(s)
	}
}

// askKeyFrame asks the platform, at most once a second for each socket. mu is held.
func (c *call) askKeyFrame(s *socket) {
	now := c.g.now()
	if !s.subscribed || now.Sub(s.asked) < keyFramePause && !c.g.has(DefectKeyFrames) {
		return
	}
	s.asked = now
	c.count.KeyFrames++
	if k, ok := c.source.(keyFramer); ok {
		k.RequestKeyFrame(s.name)
	}
}

// takeVideo forwards an access unit of a subscribed socket, from one on at which a decoder can start.
func (c *call) takeVideo(s *socket, f *VideoFrame) {
	if !s.subscribed || s.wanted != 0 && s.wanted != f.MSI || !c.open {
		return
	}
	if f.Socket == "" && s.wanted == 0 && s.bind.bound && s.bind.source != f.MSI {
		return // the platform's choice is the first camera it saw
	}
	nals := splitAnnexB(f.AnnexB)
	if c.g.has(DefectEatsHeader) {
		for i, n := range nals {
			if len(n) > 1 && n[0] == 1 {
				nals[i] = n[1:]
			}
		}
	}
	start := startsDecoding(nals)
	if sps := parameterSet(nals); sps != nil && !bytes.Equal(sps, s.sps) {
		s.sps, s.hold = sps, true
	}
	if f.Width != s.width || f.Height != s.height || !s.bind.bound || s.bind.source != f.MSI {
		s.hold = true
	}
	rtp := c.tl.video(f.Timestamp)
	if s.hold && !start {
		c.askKeyFrame(s)
		if s.dropping {
			c.dropPicture(s.bind.track, rtp)
		}
		return
	}
	it := &item{picture: s}
	it.lines = c.rebind(s.bind, f.MSI, sourceName(f.MSI), rtp)
	if s.hold && !c.g.has(DefectNoVideoLine) {
		it.lines = append(it.lines, line{
			"t": "video", "track": s.name, "source": sourceName(f.MSI), "w": f.Width, "h": f.Height,
			"ow": f.SourceW, "oh": f.SourceH, "rtp": rtp,
		})
	}
	s.hold, s.dropping, s.width, s.height, s.bind.rtp = false, false, f.Width, f.Height, rtp
	payloads := packetize(nals)
	for i, p := range payloads {
		it.frames = append(it.frames, &frame{
			track: s.bind.track, rtp: rtp, source: f.MSI, epoch: s.bind.epoch, last: i == len(payloads)-1, payload: p,
		})
	}
	c.push(it)
}
