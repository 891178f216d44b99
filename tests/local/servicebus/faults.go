package servicebus

import (
	"slices"
	"strings"
	"time"
)

// DropConnections breaks every connection as a network failure would, without
// a word to the clients, and returns how many there were. Locks stay until
// they expire; clients may connect again at once.
//
// A message received before can no longer be settled by its receiver:
// azservicebus v1.11.0 tries again with pauses of its own, of up to a minute
// together, before it says so. Bound settling by a context.
func (n *Namespace) DropConnections() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		c.abort()
	}
	return len(n.conns)
}

// ExpireLocks ends every lock of a queue now, as if its time had run out, and
// returns how many there were: the messages are delivered again with their
// delivery count raised, and settling under the old lock fails as lost.
func (n *Namespace) ExpireLocks(queue string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := n.queues[strings.ToLower(queue)]
	if q == nil {
		return 0
	}
	held := make([]*record, 0, len(q.locks))
	for _, r := range q.locks {
		held = append(held, r)
	}
	slices.SortFunc(held, func(a, b *record) int { return int(a.seq - b.seq) })
	for _, r := range held {
		q.take(r)
	}
	for _, r := range held {
		q.giveBack(r, true)
	}
	q.pump()
	return len(held)
}

// Delay holds back every message that becomes deliverable from now on, newly
// sent or given back, for d. 0 ends the fault; messages held back already keep
// their delay. An unknown queue is ignored.
func (n *Namespace) Delay(queue string, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if q := n.queues[strings.ToLower(queue)]; q != nil {
		q.delay = max(d, 0)
	}
}

// DeliverTwice makes the next count completed messages of a queue come again:
// the receiver is told that completing worked, yet the message is delivered
// once more with its delivery count raised, as happens when a lock expires
// while the settlement is under way. 0 ends the fault. An unknown queue is
// ignored.
func (n *Namespace) DeliverTwice(queue string, count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if q := n.queues[strings.ToLower(queue)]; q != nil {
		q.twice = max(count, 0)
	}
}
