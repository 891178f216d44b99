package servicebus

import (
	"container/heap"
	"time"
)

// An alarm calls ring, under the namespace's lock, once at or soon after at.
type alarm struct {
	at    time.Time
	ring  func()
	index int
}

// alarms is a heap of the pending alarms, the next one first. One goroutine
// serves them all, so that Close has one thing to wait for.
type alarms []*alarm

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a alarms) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].index, a[j].index = i, j
}

func (a *alarms) Push(x any) {
	al := x.(*alarm)
	al.index = len(*a)
	*a = append(*a, al)
}

func (a *alarms) Pop() any {
	last := len(*a) - 1
	al := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	al.index = -1
	return al
}

func (n *Namespace) setAlarm(at time.Time, ring func()) *alarm {
	al := &alarm{at: at, ring: ring}
	heap.Push(&n.alarms, al)
	if al.index == 0 {
		select {
		case n.wake <- struct{}{}:
		default:
		}
	}
	return al
}

func (n *Namespace) stopAlarm(al *alarm) {
	if al != nil && al.index >= 0 {
		heap.Remove(&n.alarms, al.index)
	}
}

// watch rings due alarms until the namespace closes.
func (n *Namespace) watch() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		n.mu.Lock()
		next := time.Hour
		for len(n.alarms) > 0 {
			if next = time.Until(n.alarms[0].at); next > 0 {
				break
			}
			heap.Pop(&n.alarms).(*alarm).ring()
			next = time.Hour
		}
		n.mu.Unlock()
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-n.wake:
		case <-n.done:
			return
		}
	}
}
