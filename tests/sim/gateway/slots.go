package gateway

// speakerSlots is how many speakers the platform tells apart.
const speakerSlots = 4

// absentTicks is after how long without a frame a binding ends: 30 s.
const absentTicks = 1500

// binding is which source a track carries. A track keeps its epoch when it is unbound; the next binding has the next.
type binding struct {
	track   *track
	bound   bool
	source  uint32
	named   string // what lines call the source: a number, unknown or mixed
	epoch   uint8
	n       int64 // the last tick with a frame
	rtp     uint32
	freed   int64  // in which order it became free
	ordinal int    // n of its bind line
	former  uint32 // the source before
}

// assign gives each voice of a tick a slot: the one it has, else the free one that has been free for longest, else the
// one whose speaker is absent from this tick and was heard longest ago. A voice without a slot, because it is the
// fifth or its source occurs twice, has slot −1.
func assign(slots []*binding, voices []Entry) []int {
	out := make([]int, len(voices))
	taken := [speakerSlots]bool{}
	for i, v := range voices {
		out[i] = -1
		for k, s := range slots {
			if s.bound && s.source == v.MSI && !taken[k] {
				out[i], taken[k] = k, true
				break
			}
		}
	}
	for i, v := range voices {
		if out[i] >= 0 || occursBefore(voices, i, v.MSI) {
			continue
		}
		best := -1
		for k, s := range slots {
			if !taken[k] && (best < 0 || better(s, slots[best])) {
				best = k
			}
		}
		if best >= 0 {
			out[i], taken[best] = best, true
		}
	}
	return out
}

func better(a, b *binding) bool {
	if a.bound != b.bound {
		return !a.bound
	}
	if !a.bound {
		return a.freed < b.freed
	}
	return a.n < b.n
}

func occursBefore(voices []Entry, i int, msi uint32) bool {
	for _, v := range voices[:i] {
		if v.MSI == msi {
			return true
		}
	}
	return false
}
