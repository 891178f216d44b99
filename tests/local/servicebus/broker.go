package servicebus

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/Azure/go-amqp"
)

const (
	deadLetterReason      = "DeadLetterReason"
	deadLetterDescription = "DeadLetterErrorDescription"
	scheduledAnnotation   = "x-opt-scheduled-enqueue-time"
)

// A state is where a message stands in its queue.
type state int

const (
	stateActive    state = iota
	stateDelayed         // not yet visible, by the Delay fault
	stateScheduled       // not yet visible, by the sender's wish
	stateDeferred        // received by sequence number only
	stateLocked
)

// wire is the value of x-opt-message-state.
func (s state) wire() int32 {
	switch s {
	case stateDeferred:
		return 1
	case stateScheduled:
		return 2
	}
	return 0
}

// A record is a message in a queue.
type record struct {
	m        *amqp.Message
	seq      int64
	failures uint32 // deliveries that ended without settlement; the wire's delivery-count
	enqueued time.Time
	expires  time.Time // zero = never
	state    state
	until    time.Time // stateLocked: when the lock ends
	lock     amqp.UUID
	deferred bool   // locked out of the deferred state, to which it returns
	alarm    *alarm // the next change of state that time brings
}

// A queue holds records in order of their sequence numbers: the active ones in
// active, the others in other. All of it is guarded by the namespace's lock.
type queue struct {
	Queue
	n    *Namespace
	dead *queue // nil for a dead-letter queue

	seq    int64
	active []*record
	other  map[int64]*record
	locks  map[amqp.UUID]*record
	links  []*link
	turn   int // index into links of the next receiver served

	seen    map[any]struct{} // message ids within the duplicate window
	seenLog []sighting       // the same, oldest first

	delay time.Duration // fault: see Namespace.Delay
	twice int           // fault: see Namespace.DeliverTwice
}

type sighting struct {
	at time.Time
	id any
}

func newQueue(n *Namespace, q Queue, dead *queue) *queue {
	return &queue{
		Queue: q,
		n:     n,
		dead:  dead,
		other: make(map[int64]*record),
		locks: make(map[amqp.UUID]*record),
		seen:  make(map[any]struct{}),
	}
}

func (q *queue) depth() Depth {
	d := Depth{Active: len(q.active)}
	for _, r := range q.other {
		switch r.state {
		case stateDelayed:
			d.Active++
		case stateScheduled:
			d.Scheduled++
		case stateDeferred:
			d.Deferred++
		case stateLocked:
			d.Locked++
		}
	}
	return d
}

// put enqueues messages, all of them or, on an error, none. Duplicates are
// accepted and dropped.
func (q *queue) put(messages ...*amqp.Message) error {
	for i, m := range messages {
		if _, err := m.MarshalBinary(); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
	}
	for _, m := range messages {
		q.add(m)
	}
	q.pump()
	return nil
}

// add enqueues one message and returns its sequence number, 0 for a duplicate.
func (q *queue) add(m *amqp.Message) int64 {
	if q.duplicate(m) {
		return 0
	}
	q.seq++
	r := &record{m: m, seq: q.seq, enqueued: time.Now()}
	if due, ok := m.Annotations[scheduledAnnotation].(time.Time); ok && time.Until(due) > 0 {
		q.park(r, stateScheduled, due, func() {
			r.enqueued = time.Now()
			q.arrive(r)
			q.pump()
		})
		return r.seq
	}
	q.arrive(r)
	return r.seq
}

// arrive starts the life of a message that a receiver may see from now on.
func (q *queue) arrive(r *record) {
	ttl := q.DefaultTTL
	if h := r.m.Header; h != nil && h.TTL > 0 && (ttl == 0 || h.TTL < ttl) {
		ttl = h.TTL
	}
	if ttl > 0 && q.dead != nil {
		r.expires = r.enqueued.Add(ttl)
	}
	q.release(r)
}

// duplicate reports whether the message's id was seen within the window, and
// remembers it.
func (q *queue) duplicate(m *amqp.Message) bool {
	if q.DuplicateWindow == 0 || m.Properties == nil || m.Properties.MessageID == nil {
		return false
	}
	now := time.Now()
	old := 0
	for old < len(q.seenLog) && now.Sub(q.seenLog[old].at) >= q.DuplicateWindow {
		delete(q.seen, q.seenLog[old].id)
		old++
	}
	q.seenLog = slices.Delete(q.seenLog, 0, old)
	id := m.Properties.MessageID
	if b, ok := id.([]byte); ok {
		id = string(b) // a key must be comparable
	}
	if _, ok := q.seen[id]; ok {
		return true
	}
	q.seen[id] = struct{}{}
	q.seenLog = append(q.seenLog, sighting{now, id})
	return false
}

// arm replaces the record's alarm.
func (q *queue) arm(r *record, at time.Time, ring func()) {
	q.n.stopAlarm(r.alarm)
	r.alarm = q.n.setAlarm(at, ring)
}

func (q *queue) disarm(r *record) {
	q.n.stopAlarm(r.alarm)
	r.alarm = nil
}

// park keeps a record out of the receivers' sight until due.
func (q *queue) park(r *record, s state, due time.Time, then func()) {
	r.state = s
	q.other[r.seq] = r
	q.arm(r, due, then)
}

// take removes a record from the queue's books, whatever its state.
func (q *queue) take(r *record) {
	q.disarm(r)
	if r.state == stateLocked {
		delete(q.locks, r.lock)
	}
	if r.state != stateActive {
		delete(q.other, r.seq)
		return
	}
	if i, ok := q.find(r.seq); ok {
		q.active = slices.Delete(q.active, i, i+1)
	}
}

func (q *queue) find(seq int64) (int, bool) {
	return slices.BinarySearchFunc(q.active, seq, func(r *record, seq int64) int { return cmp.Compare(r.seq, seq) })
}

// release makes a record that is on no book deliverable, at its place in the
// order, unless its time is over. The caller pumps.
func (q *queue) release(r *record) {
	if q.delay > 0 {
		q.park(r, stateDelayed, time.Now().Add(q.delay), func() {
			q.activate(r)
			q.pump()
		})
		return
	}
	q.activate(r)
}

func (q *queue) activate(r *record) {
	delete(q.other, r.seq)
	q.disarm(r)
	r.state = stateActive
	if !r.expires.IsZero() {
		if time.Until(r.expires) <= 0 {
			q.expire(r)
			return
		}
		q.arm(r, r.expires, func() {
			q.take(r)
			q.expire(r)
		})
	}
	i, _ := q.find(r.seq)
	q.active = slices.Insert(q.active, i, r)
}

func (q *queue) expire(r *record) {
	if q.DeadLetterExpired {
		q.bury(r, "TTLExpiredException", "The message expired and was dead lettered.", nil)
	}
}

// pump hands active messages to the receivers that want some, in turn.
func (q *queue) pump() {
	for len(q.active) > 0 {
		l := q.nextReceiver()
		if l == nil {
			return
		}
		r := q.active[0]
		q.active[0] = nil
		q.active = q.active[1:]
		q.disarm(r)
		if !r.expires.IsZero() && time.Until(r.expires) <= 0 {
			q.expire(r)
			continue
		}
		if l.settled {
			rand.Read(r.lock[:])
			l.transmit(q.encode(r, false), deliveryTag(r.lock), true)
			continue
		}
		q.hold(r)
		l.s.unsettled[l.transmit(q.encode(r, true), deliveryTag(r.lock), false)] = held{q, r.lock}
	}
	q.active = nil
}

func (q *queue) nextReceiver() *link {
	for i := range q.links {
		at := (q.turn + i) % len(q.links)
		if l := q.links[at]; l.ready() {
			q.turn = at + 1
			return l
		}
	}
	return nil
}

// hold locks a record that is on no book.
func (q *queue) hold(r *record) {
	rand.Read(r.lock[:])
	r.state = stateLocked
	q.other[r.seq] = r
	q.locks[r.lock] = r
	q.renew(r)
}

// renew starts the lock's time again.
func (q *queue) renew(r *record) {
	r.until = time.Now().Add(q.LockDuration)
	q.arm(r, r.until, func() { q.lose(r) })
}

// lose ends a lock that was not settled.
func (q *queue) lose(r *record) {
	q.take(r)
	q.giveBack(r, true)
	q.pump()
}

// giveBack returns a record whose lock ended. A failure counts against
// MaxDeliveryCount, and the last one moves it to the dead-letter queue.
func (q *queue) giveBack(r *record, failure bool) {
	if failure {
		r.failures++
	}
	if q.dead != nil && int(r.failures) >= q.MaxDeliveryCount {
		q.bury(r, "MaxDeliveryCountExceeded",
			fmt.Sprintf("Message could not be consumed after %d delivery attempts.", q.MaxDeliveryCount), nil)
		return
	}
	if r.deferred {
		q.lay(r)
		return
	}
	q.release(r)
}

// lay puts a record among the deferred ones.
func (q *queue) lay(r *record) {
	r.state, r.deferred = stateDeferred, true
	q.other[r.seq] = r
}

// bury moves a record that is on no book to the dead-letter queue. A message
// of a dead-letter queue stays where it is.
func (q *queue) bury(r *record, reason, description string, properties map[string]any) {
	amend(r.m, properties)
	amend(r.m, map[string]any{deadLetterReason: reason, deadLetterDescription: description})
	if q.dead == nil {
		q.release(r)
		return
	}
	if r.m.Annotations == nil {
		r.m.Annotations = amqp.Annotations{}
	}
	r.m.Annotations["x-opt-deadletter-source"] = q.Name
	q.dead.seq++
	q.dead.release(&record{m: r.m, seq: q.dead.seq, failures: r.failures, enqueued: r.enqueued})
	q.dead.pump()
}

// amend sets application properties, those of the types AMQP allows there.
func amend(m *amqp.Message, properties map[string]any) {
	if len(properties) > 0 && m.ApplicationProperties == nil {
		m.ApplicationProperties = make(map[string]any)
	}
	for k, v := range properties {
		switch v.(type) {
		case bool, string, []byte, amqp.Symbol, amqp.UUID, time.Time, float32, float64,
			int8, int16, int32, int64, uint8, uint16, uint32, uint64:
			m.ApplicationProperties[k] = v
		}
	}
}

// An outcome is what becomes of a locked message.
type outcome int

const (
	completed outcome = iota
	abandoned
	released // given back without counting as a failure
	deferred
	deadLettered
)

type settlement struct {
	to                  outcome
	reason, description string
	properties          map[string]any
}

// settle ends a lock as the receiver says and reports whether it still held.
func (q *queue) settle(lock amqp.UUID, s settlement) bool {
	r := q.locks[lock]
	if r == nil {
		return false
	}
	q.take(r)
	switch s.to {
	case completed:
		if q.twice > 0 {
			q.twice--
			q.giveBack(r, true)
		}
	case abandoned:
		amend(r.m, s.properties)
		q.giveBack(r, true)
	case released:
		q.giveBack(r, false)
	case deferred:
		amend(r.m, s.properties)
		q.lay(r)
	case deadLettered:
		q.bury(r, s.reason, s.description, s.properties)
	}
	q.pump()
	return true
}

// encode returns the message as a receiver gets it, with the broker's
// annotations, and with the lock if the receiver holds it. That it can be encoded was checked by put, and amend keeps it so.
func (q *queue) encode(r *record, holder bool) []byte {
	m := *r.m
	header := amqp.MessageHeader{Durable: true, DeliveryCount: r.failures}
	if r.m.Header != nil {
		header.TTL = r.m.Header.TTL
	}
	m.Header = &header
	if m.Properties == nil {
		m.Properties = &amqp.MessageProperties{}
	}
	m.Annotations = maps.Clone(r.m.Annotations)
	if m.Annotations == nil {
		m.Annotations = amqp.Annotations{}
	}
	m.Annotations["x-opt-sequence-number"] = r.seq
	m.Annotations["x-opt-enqueued-time"] = r.enqueued
	m.Annotations["x-opt-message-state"] = r.state.wire()
	m.DeliveryAnnotations = nil
	if holder {
		m.Annotations["x-opt-locked-until"] = r.until
		m.DeliveryAnnotations = amqp.Annotations{"x-opt-lock-token": r.lock}
	}
	b, err := m.MarshalBinary()
	if err != nil {
		panic(fmt.Sprintf("encode message %d of queue %s: %v", r.seq, q.Name, err))
	}
	return b
}
