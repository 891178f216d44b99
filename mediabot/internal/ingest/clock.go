package ingest

import "time"

const (
	// maxSkew is how far a frame's time may lie from its arrival. One that is farther off
	// has a timestamp that cannot be true, and is placed by its arrival.
	maxSkew = 5 * time.Second
	// maxSlew is how far clock lines may disagree before a clock was set, not drifting.
	maxSlew = 500 * time.Millisecond
	// slewPart is the part of a disagreement that each clock line takes away: drift is
	// followed, jitter is not.
	slewPart = 16
)

// tick is the unit of the platform's timestamps.
const tick = 100 * time.Nanosecond

// timeline ties RTP time to wall-clock time. It is a point where both are known, and a
// rate; it follows RTP time around its 32 bits.
type timeline struct {
	rate  int64
	known bool
	rtp   int64 // extended
	wall  time.Time
	ticks int64 // of the sender's clock at that point, in units of 100 ns; 0 if unknown
}

// extend returns the RTP time that is nearest to the known point.
func (t *timeline) extend(ts uint32) int64 {
	if !t.known {
		return int64(ts)
	}
	return t.rtp + int64(int32(ts-uint32(t.rtp)))
}

// at returns the wall-clock time of an extended RTP time.
func (t *timeline) at(rtp int64) time.Time {
	d := rtp - t.rtp
	return t.wall.Add(time.Duration(d/t.rate)*time.Second + time.Duration(d%t.rate)*time.Second/time.Duration(t.rate))
}

// anchor makes a point known.
func (t *timeline) anchor(rtp int64, wall time.Time) {
	t.known, t.rtp, t.wall, t.ticks = true, rtp, wall, 0
}

// arrive moves a point known by arrival alone: the packet that took the shortest way
// says best when its time was.
func (t *timeline) arrive(rtp int64, arrival time.Time) {
	if wall := t.at(rtp); arrival.Before(wall) {
		t.wall = t.wall.Add(arrival.Sub(wall))
	}
}

// line takes a point as the sender states it: RTP time, its own clock in ticks, and the
// wall clock. The sender's clock carries the timeline on; the wall clock anchors it and
// then only slews it, so that setting it bends nothing. It reports whether that seems to
// have happened.
func (t *timeline) line(rtp uint32, ticks int64, wall time.Time) (stepped bool) {
	ext := t.extend(rtp)
	if !t.known {
		t.known, t.rtp, t.wall, t.ticks = true, ext, wall, ticks
		return false
	}
	predicted := t.at(ext)
	if t.ticks != 0 && ticks != 0 {
		predicted = t.wall.Add(time.Duration(ticks-t.ticks) * tick)
	}
	t.rtp, t.wall, t.ticks = ext, predicted, ticks
	return t.slew(predicted, wall)
}

func (t *timeline) slew(predicted, wall time.Time) (stepped bool) {
	off := wall.Sub(predicted)
	if off > maxSlew || off < -maxSlew {
		return true
	}
	t.wall = predicted.Add(off / slewPart)
	return false
}

// report takes a sender report: RTP time and the sender's clock, whose zero is its own
// affair. Where the timeline is known by arrival, that stays its anchor.
func (t *timeline) report(rtp uint32, ntp uint64) {
	ext := t.extend(rtp)
	// 32.32 fixed point seconds, RFC 3550 section 4, to units of 100 ns.
	ticks := int64(ntp>>32)*1e7 + int64((ntp&0xffffffff)*1e7>>32)
	if !t.known {
		return
	}
	wall := t.at(ext)
	if t.ticks != 0 {
		moved := t.wall.Add(time.Duration(ticks-t.ticks) * tick)
		if d := moved.Sub(wall); d > -maxSlew && d < maxSlew {
			wall = moved
		}
	}
	t.rtp, t.wall, t.ticks = ext, wall, ticks
}
