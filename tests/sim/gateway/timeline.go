package gateway

// timeline counts the ticks of a call. All audio tracks share it: rtp = base + 960·n. It never goes backward, whatever
// the platform's timestamps do.
type timeline struct {
	base, videoBase uint32

	origin  int64 // timestamp of tick 0
	known   bool  // origin is known
	started bool
	n       int64
}

// step is what one callback means for the timeline.
type step struct {
	n       int64
	missing int64  // ticks that should have come before this one
	oddity  string // what was wrong with the timestamp
}

// advance takes the timestamp of a callback: n = round((timestamp−origin)/20 ms) where that goes forward, and one more
// than before where it does not.
func (t *timeline) advance(timestamp int64) step {
	var s step
	next := t.n + 1
	if !t.started {
		t.started, next = true, 0
	}
	switch {
	case timestamp <= 0:
		s.oddity = "timestamp_zero"
		s.n = next
	case !t.known:
		t.known = true
		t.origin = timestamp - next*tickUnits
		s.n = next
	default:
		s.n = (timestamp - t.origin + tickUnits/2) / tickUnits
		if timestamp < t.origin {
			s.n = -1
		}
		if s.n < next {
			s.oddity = "timestamp_backward"
			s.n = next
		}
	}
	s.missing = s.n - next
	t.n = s.n
	return s
}

func (t *timeline) rtp(n int64) uint32 { return t.base + uint32(n*audioStep) }

// instant is the timestamp that tick n stands for.
func (t *timeline) timestamp(n int64) int64 { return t.origin + n*tickUnits }

// video places a frame on the call's 90 kHz clock, which has the same origin.
func (t *timeline) video(timestamp int64) uint32 {
	return t.videoBase + uint32((timestamp-t.origin)*videoStep/videoUnits)
}
