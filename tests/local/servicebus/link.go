package servicebus

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/Azure/go-amqp"
)

const (
	sessionWindow = 4096 // transfer frames a client may have under way
	maxHandle     = 1023
	senderCredit  = 1000 // messages a client may send ahead of the replenishing flow
	batchFormat   = 0x80013700
)

// A held is a delivery the client has not settled yet.
type held struct {
	q    *queue
	lock amqp.UUID
}

// A session multiplexes links and limits frames in both directions
// (AMQP 1.0 part 2 section 2.5.6).
type session struct {
	c       *conn
	channel uint16

	incoming uint32 // next transfer id expected from the client
	fresh    uint32 // transfers received since the last flow told the client of its window
	outgoing uint32 // next transfer id of ours
	delivery uint32 // next delivery id of ours
	window   uint32 // transfer frames the client still accepts
	backlog  []frame

	links     map[uint32]*link
	unsettled map[uint32]held
}

// A link is one direction of transfer between the client and a node.
type link struct {
	s        *session
	handle   uint32
	address  string // of the node, lower case
	toClient bool
	settled  bool // deliveries to the client are sent settled: receive-and-delete
	reply    string

	q       *queue   // set on links that carry a queue's messages
	replies [][]byte // of a $cbs or $management link, waiting for credit

	credit uint32
	count  uint32 // delivery-count

	// The message being received.
	partial []byte
	id      uint32
	format  uint32
	begun   bool
	presend bool // the client sent it settled
}

func (s *session) send(code uint64, fields ...any) {
	s.c.send(frame{channel: s.channel, code: code, fields: fields})
}

func (s *session) end() {
	for _, l := range s.links {
		l.unlink()
	}
	s.backlog = nil
}

// attach answers a link with its mirror image. A node that does not exist is
// answered, as part 2 section 2.6.3 asks, without termini and then detached.
func (s *session) attach(f frame) error {
	name, _ := field[string](f.fields, 0)
	handle, ok := field[uint32](f.fields, 1)
	if !ok || handle > maxHandle || s.links[handle] != nil {
		return &amqpError{amqp.ErrCondNotAllowed, fmt.Sprintf("attach with handle %d", handle)}
	}
	receiver, _ := field[bool](f.fields, 2)
	source, target := terminus(f.fields, 5), terminus(f.fields, 6)
	l := &link{s: s, handle: handle, toClient: receiver, address: strings.ToLower(target)}
	if receiver {
		l.address, l.reply = strings.ToLower(source), target
	}
	sndMode, rcvMode := optional[uint8](f.fields, 3), optional[uint8](f.fields, 4)
	l.settled = sndMode == uint8(1)
	reply := []any{name, handle, !receiver, sndMode, rcvMode, nil, nil, nil, false, uint32(0), uint64(MaxMessageSize)}
	if fault := l.bind(s.c.n); fault != nil {
		s.send(codeAttach, reply...)
		s.send(codeDetach, handle, true, fault.described())
		return nil
	}
	reply[5], reply[6] = described{codeSource, []any{source}}, described{codeTarget, []any{target}}
	s.links[handle] = l
	s.send(codeAttach, reply...)
	if !receiver {
		l.credit = senderCredit
		l.sendFlow(false)
	} else if l.q != nil {
		l.q.links = append(l.q.links, l)
	}
	return nil
}

// bind finds the node the link is for.
func (l *link) bind(n *Namespace) *amqpError {
	if l.address == "$cbs" {
		return nil
	}
	entity, management := strings.CutSuffix(l.address, "/$management")
	q := n.queues[entity]
	switch {
	case q == nil:
		return &amqpError{amqp.ErrCondNotFound, fmt.Sprintf("The messaging entity %q could not be found.", entity)}
	case management:
		return nil
	case !l.toClient && q.dead == nil:
		return &amqpError{amqp.ErrCondNotAllowed, "Messages cannot be sent to a dead-letter queue."}
	}
	l.q = q
	return nil
}

// rpc reports whether the link is half of a request and response pair.
func (l *link) rpc() bool { return l.q == nil }

func terminus(fields []any, i int) string {
	t, _ := field[described](fields, i)
	address, _ := field[string](t.fields, 0)
	return address
}

// optional is field for values that are echoed: nil when absent.
func optional[T any](fields []any, i int) any {
	if v, ok := field[T](fields, i); ok {
		return v
	}
	return nil
}

// unlink takes the link out of its queue and session.
func (l *link) unlink() {
	if l.q != nil {
		l.q.links = slices.DeleteFunc(l.q.links, func(x *link) bool { return x == l })
	}
	delete(l.s.links, l.handle)
}

func (l *link) fail(condition amqp.ErrCond, description string) {
	l.unlink()
	l.s.send(codeDetach, l.handle, true, (&amqpError{condition, description}).described())
}

func (s *session) detach(f frame) {
	handle, _ := field[uint32](f.fields, 0)
	if l := s.links[handle]; l != nil {
		l.unlink()
		s.send(codeDetach, handle, true)
	}
}

// flow takes the client's window and credit, and sends what they now allow.
func (s *session) flow(f frame) {
	next, _ := field[uint32](f.fields, 0)
	if window, ok := field[uint32](f.fields, 1); ok {
		s.window = next + window - s.outgoing
		s.drainBacklog()
	}
	handle, ok := field[uint32](f.fields, 4)
	l := s.links[handle]
	if ok && l != nil && l.toClient {
		count, _ := field[uint32](f.fields, 5)
		credit, _ := field[uint32](f.fields, 6)
		l.credit = count + credit - l.count
		l.deliver()
		if drain, _ := field[bool](f.fields, 8); drain {
			l.count += l.credit
			l.credit = 0
			l.sendFlow(true)
			return
		}
	}
	for _, l := range s.links { // the window may have been what held them back
		l.deliver()
	}
	if echo, _ := field[bool](f.fields, 9); echo {
		s.sendFlow()
	}
}

func (l *link) deliver() {
	switch {
	case !l.toClient:
	case l.rpc():
		l.flushReplies()
	default:
		l.q.pump()
	}
}

func (s *session) sendFlow(link ...any) {
	s.fresh = 0
	s.send(codeFlow, append([]any{s.incoming, uint32(sessionWindow), s.outgoing, uint32(sessionWindow)}, link...)...)
}

func (l *link) sendFlow(drain bool) {
	l.s.sendFlow(l.handle, l.count, l.credit, uint32(0), drain)
}

// ready reports whether a delivery may start on the link now.
func (l *link) ready() bool {
	return l.credit > 0 && l.s.window > 0 && len(l.s.backlog) == 0
}

// transmit sends one delivery in as many frames as it takes. Frames beyond the
// client's window wait in the session's backlog. The delivery id is returned.
func (l *link) transmit(message, tag []byte, settled bool) uint32 {
	s := l.s
	id := s.delivery
	s.delivery++
	l.credit--
	l.count++
	const transferOverhead = 128 // frame header and performative
	for {
		n := min(len(message), s.c.peerMax-transferOverhead)
		more := n < len(message)
		s.backlog = append(s.backlog, frame{
			channel: s.channel,
			code:    codeTransfer,
			fields:  []any{l.handle, id, tag, uint32(0), settled, more},
			payload: message[:n],
		})
		message = message[n:]
		if !more {
			break
		}
	}
	s.drainBacklog()
	return id
}

func (s *session) drainBacklog() {
	for len(s.backlog) > 0 && s.window > 0 {
		s.c.send(s.backlog[0])
		s.backlog = s.backlog[1:]
		s.window--
		s.outgoing++
	}
	if len(s.backlog) == 0 {
		s.backlog = nil
	}
}

// transfer takes one frame of a message from the client.
func (s *session) transfer(f frame) error {
	s.incoming++
	if s.fresh++; s.fresh >= sessionWindow/2 {
		s.sendFlow()
	}
	handle, _ := field[uint32](f.fields, 0)
	l := s.links[handle]
	if l == nil || l.toClient {
		return nil // frames under way when the link was detached
	}
	if aborted, _ := field[bool](f.fields, 9); aborted {
		l.partial, l.begun = nil, false
		return nil
	}
	if !l.begun {
		if l.credit == 0 {
			l.fail(amqp.ErrCondTransferLimitExceeded, "transfer without credit")
			return nil
		}
		l.begun = true
		l.id, _ = field[uint32](f.fields, 1)
		l.format, _ = field[uint32](f.fields, 3)
		l.presend = false
	}
	if settled, _ := field[bool](f.fields, 4); settled {
		l.presend = true
	}
	l.partial = append(l.partial, f.payload...)
	if len(l.partial) > MaxMessageSize {
		l.fail(amqp.ErrCondMessageSizeExceeded, fmt.Sprintf("message larger than %d bytes", MaxMessageSize))
		return nil
	}
	if more, _ := field[bool](f.fields, 5); more {
		return nil
	}
	l.receive()
	return nil
}

// receive acts on a whole message and tells the client its outcome.
func (l *link) receive() {
	body := l.partial
	l.partial, l.begun = nil, false
	l.count++
	l.credit--
	state := described{codeAccepted, []any{}}
	if err := l.accept(body); err != nil {
		state = described{codeRejected, []any{(&amqpError{amqp.ErrCondDecodeError, err.Error()}).described()}}
	}
	if !l.presend {
		l.s.send(codeDisposition, true, l.id, l.id, true, state)
	}
	if l.credit <= senderCredit/2 {
		l.credit = senderCredit
		l.sendFlow(false)
	}
}

func (l *link) accept(body []byte) error {
	m, err := unmarshal(body)
	if err != nil {
		return err
	}
	if l.rpc() {
		return l.request(m)
	}
	if l.format != batchFormat {
		return l.q.put(m)
	}
	batch := make([]*amqp.Message, len(m.Data))
	for i, data := range m.Data {
		if batch[i], err = unmarshal(data); err != nil {
			return fmt.Errorf("batch item %d: %w", i, err)
		}
	}
	return l.q.put(batch...)
}

// disposition settles deliveries as the client says.
func (s *session) disposition(f frame) {
	if receiver, _ := field[bool](f.fields, 0); !receiver {
		return // the client's word on its own deliveries, which are settled already
	}
	first, ok := field[uint32](f.fields, 1)
	last, hasLast := field[uint32](f.fields, 2)
	state, hasState := field[described](f.fields, 4)
	if !ok || !hasState {
		return
	}
	if !hasLast {
		last = first
	}
	var ids []uint32
	if span := last - first; span < uint32(len(s.unsettled)) {
		for i := uint32(0); i <= span; i++ {
			ids = append(ids, first+i)
		}
	} else {
		for id := range s.unsettled {
			if id-first <= span {
				ids = append(ids, id)
			}
		}
		slices.SortFunc(ids, func(a, b uint32) int { return cmp.Compare(a-first, b-first) })
	}
	for _, id := range ids {
		h, ok := s.unsettled[id]
		if !ok {
			continue
		}
		delete(s.unsettled, id)
		answer := described{codeAccepted, []any{}}
		if !h.q.settle(h.lock, settlementOf(state)) {
			answer = described{codeRejected, []any{lockLost.described()}}
		}
		s.send(codeDisposition, false, id, id, true, answer)
	}
}

var lockLost = &amqpError{"com.microsoft:message-lock-lost",
	"The lock supplied is invalid. Either the lock expired, or the message has already been removed from the queue."}

// settlementOf reads a delivery state as Service Bus does: accepted completes,
// modified abandons or, undeliverable here, defers, rejected dead-letters.
func settlementOf(state described) settlement {
	switch state.code {
	case codeRejected:
		fault, _ := field[described](state.fields, 0)
		info, _ := field[map[string]any](fault.fields, 2)
		set := settlement{to: deadLettered, properties: info}
		set.reason, _ = info[deadLetterReason].(string)
		set.description, _ = info[deadLetterDescription].(string)
		return set
	case codeReleased:
		return settlement{to: released}
	case codeModified:
		set := settlement{to: abandoned}
		if undeliverable, _ := field[bool](state.fields, 1); undeliverable {
			set.to = deferred
		}
		set.properties, _ = field[map[string]any](state.fields, 2)
		return set
	}
	return settlement{to: completed}
}

// deliveryTag is the lock token in the byte order of a .NET Guid.
func deliveryTag(u amqp.UUID) []byte {
	b := slices.Clone(u[:])
	binary.LittleEndian.PutUint32(b, binary.BigEndian.Uint32(u[:]))
	binary.LittleEndian.PutUint16(b[4:], binary.BigEndian.Uint16(u[4:]))
	binary.LittleEndian.PutUint16(b[6:], binary.BigEndian.Uint16(u[6:]))
	return b
}
