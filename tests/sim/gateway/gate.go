package gateway

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// stat is a line with the counters. mu is held.
func (c *call) stat(kind string) line {
	return line{
		"t": kind, "ticks": c.count.Ticks, "gated": c.count.Gated, "silent": c.count.Silent,
		"frames": maps.Clone(c.count.Frames), "dropped": maps.Clone(c.count.Dropped),
		"anomalies": c.count.Anomalies, "sendErrors": c.count.SendErrors, "queueHigh": c.count.QueueHigh,
	}
}

// errNotConnected is the refusal to open the gate for nobody.
var errNotConnected = errors.New("the peer connection and its control channel are not open")

// openGate lets frames out from the next tick on. Opening an open gate changes nothing.
func (c *call) openGate() (rtpPair, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != StateReady && c.state != StateOpen || !c.connected {
		return rtpPair{}, errNotConnected
	}
	at := c.rtpNow(1)
	if c.open {
		return at, nil
	}
	c.open, c.clockDue = true, true
	c.set(StateOpen)
	p := c.peer
	lines := []line{{"t": "gate", "state": "open", "rtp": at}, {"t": "mode", "audio": c.mode, "rtp": at.Audio}}
	if err := p.say(time.Duration(c.g.delay.Load()), lines...); err != nil {
		c.count.Undelivered += 2
	}
	for _, s := range c.sockets {
		s.hold = true
		c.askKeyFrame(s)
	}
	return at, nil
}

// rtpNow is the RTP time of the last tick, or of the one after it. mu is held.
func (c *call) rtpNow(after int64) rtpPair {
	if !c.tl.started {
		return rtpPair{c.tl.base, c.tl.videoBase}
	}
	return rtpPair{c.tl.rtp(c.tl.n + after), c.tl.video(c.tl.timestamp(c.tl.n + after))}
}

// closeGate returns when no later frame can leave. What was queued is gone; closing a closed gate changes nothing.
func (c *call) closeGate(reason string) rtpPair {
	c.mu.Lock()
	last := c.rtpNow(0)
	if !c.open {
		c.mu.Unlock()
		return last
	}
	c.open = false
	if c.state == StateOpen {
		c.set(StateReady)
	}
	lines := c.empty()
	for _, b := range c.allBindings() {
		lines = append(lines, c.unbind(b, reason)...)
	}
	lines = append(lines, line{"t": "gate", "state": "closed", "reason": reason, "rtp": last})
	p, late := c.peer, c.slots[0]
	c.mu.Unlock()
	c.sending.Lock()
	c.say(p, lines...)
	c.sending.Unlock()
	if c.g.has(DefectLateFrame) {
		packet, err := TonePacket(1, 0)
		if err == nil {
			time.AfterFunc(3*time.Millisecond, func() {
				_ = p.send(&frame{track: late.track, rtp: last.Audio, payload: packet}, c.g.has)
			})
		}
	}
	return last
}

func (c *call) allBindings() []*binding {
	out := append(slices.Clone(c.slots), c.mix)
	for _, name := range slices.Sorted(maps.Keys(c.sockets)) {
		out = append(out, c.sockets[name].bind)
	}
	return out
}

// fail is MediaStreamFailure: the sockets are dead and nothing here can mend them.
func (c *call) fail(name string) {
	if c.g.has(DefectSurvives) {
		return
	}
	c.closeGate("failure")
	c.mu.Lock()
	if c.state == StateClosed {
		c.mu.Unlock()
		return
	}
	c.set(StateFailed)
	c.source = nil
	p := c.peer
	c.mu.Unlock()
	c.say(p, line{"t": "failure", "socket": name})
}

// end disposes the call: sockets, peer connection, queue. It may be called twice.
func (c *call) end(reason string) {
	c.closeGate(reason)
	c.mu.Lock()
	if c.state == StateClosed {
		c.mu.Unlock()
		return
	}
	c.set(StateClosed)
	c.source = nil
	p := c.peer
	bye := c.stat("bye")
	bye["reason"] = reason
	c.mu.Unlock()
	c.g.forget(c)
	close(c.ended)
	c.say(p, bye)
	if err := p.close(); err != nil {
		c.mu.Lock()
		c.count.SendErrors++
		c.mu.Unlock()
	}
}

// vanish is the death of the process.
func (c *call) vanish() {
	c.mu.Lock()
	if c.state == StateClosed {
		c.mu.Unlock()
		return
	}
	c.set(StateClosed)
	c.open, c.source, c.queue = false, nil, nil
	p := c.peer
	c.mu.Unlock()
	p.socket.kill()
	c.g.forget(c)
	close(c.ended)
	_ = p.pc.Close() // nobody is left to hear of an error
}

// reoffer replaces the peer connection: the sockets stay, the gate is closed, the session is new.
func (c *call) reoffer() (createReply, error) {
	c.closeGate("reoffer")
	c.mu.Lock()
	old := c.peer
	c.mu.Unlock()
	if err := c.offer(); err != nil {
		return createReply{}, err
	}
	if err := old.close(); err != nil {
		return createReply{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reply, nil
}

// connect attaches Teams' media.
func (c *call) connect(src Source) (*Connection, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.joined || c.state == StateClosed || c.state == StateFailed {
		return nil, fmt.Errorf("%w: call %s has had its media connection", ErrBlob, c.id)
	}
	c.joined, c.source = true, src
	c.next = time.Now().UnixNano()/int64(TickLength) + 1
	return &Connection{c}, nil
}
