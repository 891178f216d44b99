package gateway

// push queues an item for the sender. A full queue loses video first, whole frames up to the next one at which a
// decoder can start, and then the oldest tick; the lines of what is lost go out all the same. mu is held.
func (c *call) push(it *item) {
	if it.picture != nil {
		if c.pictures >= pictureQueue || c.ticks > queueTicks/2 {
			c.carry = append(c.carry, it.lines...)
			c.dropPicture(it.picture.bind.track, it.frames[0].rtp)
			c.dropPictures()
			it.picture.hold, it.picture.dropping = true, true
			return
		}
		c.pictures++
	} else {
		if c.ticks == queueTicks/2 {
			c.dropPictures()
		}
		if c.ticks == queueTicks {
			c.dropTick()
		}
		c.ticks++
	}
	c.queue = append(c.queue, it)
	c.count.QueueHigh = max(c.count.QueueHigh, c.ticks)
	c.kick()
}

func (c *call) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// dropPictures takes all video out of the queue.
func (c *call) dropPictures() {
	kept := c.queue[:0]
	for _, it := range c.queue {
		if it.picture == nil {
			kept = append(kept, it)
			continue
		}
		c.carry = append(c.carry, it.lines...)
		c.dropPicture(it.picture.bind.track, it.frames[0].rtp)
		it.picture.hold, it.picture.dropping = true, true
		c.askKeyFrame(it.picture)
	}
	clear(c.queue[len(kept):])
	c.queue, c.pictures = kept, 0
}

func (c *call) dropPicture(t *track, rtp uint32) {
	c.count.Dropped[t.Name]++
	for _, l := range c.losses {
		if l.track == t {
			if int32(rtp-l.to) >= 0 {
				l.to = rtp + 1
			} else if int32(rtp-l.from) < 0 {
				l.from = rtp
			}
			l.frames++
			return
		}
	}
	c.losses = append(c.losses, &loss{t, rtp, rtp + 1, 1})
}

// dropTick loses the oldest tick of the queue.
func (c *call) dropTick() {
	for i, it := range c.queue {
		if it.picture != nil {
			continue
		}
		c.queue = append(c.queue[:i], c.queue[i+1:]...)
		c.ticks--
		c.carry = append(c.carry, it.lines...)
		for _, f := range it.frames {
			c.dropFrame(f)
		}
		return
	}
}

func (c *call) dropFrame(f *frame) {
	c.count.Dropped[f.track.Name]++
	for _, l := range c.losses {
		if l.track == f.track && l.to == f.rtp {
			l.to += audioStep
			l.frames++
			return
		}
	}
	c.losses = append(c.losses, &loss{f.track, f.rtp, f.rtp + audioStep, 1})
}

// owed returns the lines of what was lost. mu is held.
func (c *call) owed() []line {
	lines := c.carry
	for _, l := range c.losses {
		if !c.g.has(DefectHiddenLoss) {
			lines = append(lines, line{"t": "loss", "track": l.track.Name, "from": l.from, "to": l.to, "frames": l.frames, "why": "queue"})
		}
	}
	c.carry, c.losses = nil, nil
	return lines
}

// empty discards the queue and returns its lines: bindings that were counted must be told. mu is held.
func (c *call) empty() []line {
	lines := c.owed()
	for _, it := range c.queue {
		lines = append(lines, it.lines...)
	}
	c.queue, c.ticks, c.pictures = nil, 0, 0
	return lines
}

// send is the call's sender: it ends with the call.
func (c *call) send() {
	for {
		select {
		case <-c.ended:
			return
		case <-c.wake:
			for !c.g.stalled.Load() && c.sendOne() {
			}
		}
	}
}

// sendOne sends the oldest item: first its lines, then its frames.
func (c *call) sendOne() bool {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.mu.Lock()
	if len(c.queue) == 0 {
		c.mu.Unlock()
		return false
	}
	it := c.queue[0]
	c.queue[0] = nil
	c.queue = c.queue[1:]
	lines := append(c.owed(), it.lines...)
	if it.picture != nil {
		c.pictures--
	} else {
		c.ticks--
	}
	p := c.peer
	c.mu.Unlock()
	c.say(p, lines...)
	errs := int64(0)
	for _, f := range it.frames {
		if p.send(f, c.g.has) != nil {
			errs++
		}
	}
	c.mu.Lock()
	for _, f := range it.frames {
		if f.track.Kind == "audio" || f.last {
			c.count.Frames[f.track.Name]++
		}
	}
	c.count.SendErrors += errs
	c.mu.Unlock()
	select {
	case c.room <- struct{}{}:
	default:
	}
	return true
}
