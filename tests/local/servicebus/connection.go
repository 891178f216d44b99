package servicebus

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/Azure/go-amqp"
)

const (
	idleTimeout      = 2 * time.Minute  // a silent client is dropped after this; half of it is announced
	handshakeTimeout = 10 * time.Second // from accept to the end of the SASL exchange
	writeTimeout     = 10 * time.Second // for one write to a client that does not read
	maxOutbox        = 32 << 20         // bytes waiting for one client
	minHeartbeat     = 10 * time.Millisecond
)

var (
	saslHeader = []byte{'A', 'M', 'Q', 'P', 3, 1, 0, 0}
	amqpHeader = []byte{'A', 'M', 'Q', 'P', 0, 1, 0, 0}
)

// An amqpError ends a connection or link with an error the client is told.
type amqpError struct {
	condition   amqp.ErrCond
	description string
}

func (e *amqpError) Error() string { return string(e.condition) + ": " + e.description }

func (e *amqpError) described() described {
	return described{codeError, []any{amqp.Symbol(e.condition), e.description}}
}

// A conn is one client connection: serve reads, write writes, and between them
// is the outbox, so that a client that stops reading holds up nobody else.
type conn struct {
	n  *Namespace
	nc net.Conn

	heartbeat chan time.Duration // buffered 1: how often the client wants a frame
	wake      chan struct{}      // buffered 1: the outbox changed

	outMu sync.Mutex
	out   []byte
	ended bool // nothing more is added; write closes nc once out is flushed

	// Guarded by n.mu.
	opened   bool
	peerMax  int
	sessions map[uint16]*session
}

func newConn(n *Namespace, nc net.Conn) *conn {
	return &conn{
		n:         n,
		nc:        nc,
		heartbeat: make(chan time.Duration, 1),
		wake:      make(chan struct{}, 1),
		peerMax:   minMaxFrame,
		sessions:  make(map[uint16]*session),
	}
}

// send queues a frame for the client. It does not block.
func (c *conn) send(f frame) {
	c.outMu.Lock()
	if !c.ended {
		c.out = appendFrame(c.out, f)
	}
	overflow := len(c.out) > maxOutbox
	c.outMu.Unlock()
	if overflow {
		c.abort()
	}
	c.signal()
}

func (c *conn) sendRaw(b []byte) {
	c.outMu.Lock()
	c.out = append(c.out, b...)
	c.outMu.Unlock()
	c.signal()
}

func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// finish closes the connection after what is queued has been written.
func (c *conn) finish() {
	c.outMu.Lock()
	c.ended = true
	c.outMu.Unlock()
	c.signal()
}

// abort closes the connection now, as a broken network would. The reader and
// the writer notice by the errors they get.
func (c *conn) abort() {
	c.outMu.Lock()
	c.ended, c.out = true, nil
	c.outMu.Unlock()
	c.nc.Close()
	c.signal()
}

// write empties the outbox onto the network until the connection ends.
func (c *conn) write() {
	defer c.nc.Close()
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	var spare []byte
	for {
		c.outMu.Lock()
		b, ended := c.out, c.ended
		c.out = spare[:0]
		c.outMu.Unlock()
		spare = b
		if len(b) > 0 {
			if !c.writeAll(b) {
				return
			}
			continue
		}
		if ended {
			return
		}
		select {
		case <-c.wake:
		case d := <-c.heartbeat:
			ticker.Reset(d)
		case <-ticker.C:
			if !c.writeAll(appendFrame(nil, frame{})) {
				return
			}
		}
	}
}

// writeAll reports whether the connection still works.
func (c *conn) writeAll(b []byte) bool {
	if err := c.nc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return false
	}
	_, err := c.nc.Write(b)
	return err == nil
}

// serve reads the client's frames until the connection ends. Malformed input
// closes the connection; the client is told why if it got as far as open.
func (c *conn) serve() {
	err := c.read()
	c.n.mu.Lock()
	delete(c.n.conns, c)
	for _, s := range c.sessions {
		s.end()
	}
	c.sessions = nil
	opened := c.opened
	c.n.mu.Unlock()
	if fault, ok := errors.AsType[*amqpError](err); ok && opened {
		c.send(frame{code: codeClose, fields: []any{fault.described()}})
	}
	c.finish()
}

func (c *conn) read() error {
	if err := c.nc.SetReadDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	r := bufio.NewReaderSize(c.nc, maxFrame)
	if err := c.handshake(r); err != nil {
		return err
	}
	for {
		if err := c.nc.SetReadDeadline(time.Now().Add(c.n.idle)); err != nil {
			return err
		}
		f, err := readFrame(r)
		if errors.Is(err, errMalformed) {
			return &amqpError{amqp.ErrCondDecodeError, err.Error()}
		}
		if err != nil {
			return err
		}
		if f.code == 0 {
			continue // heartbeat
		}
		if f.kind != frameAMQP {
			return &amqpError{amqp.ErrCondFramingError, "SASL frame after the SASL exchange"}
		}
		c.n.mu.Lock()
		done, err := c.handle(f)
		c.n.mu.Unlock()
		if done || err != nil {
			return err
		}
	}
}

// handshake exchanges protocol headers, with the SASL layer if the client
// starts with it. The mechanism is ANONYMOUS: clients authorize through $cbs.
func (c *conn) handshake(r io.Reader) error {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if bytes.Equal(head[:], saslHeader) {
		c.sendRaw(saslHeader)
		c.send(frame{kind: frameSASL, code: codeMechanisms, fields: []any{amqp.Symbol("ANONYMOUS")}})
		f, err := readFrame(r)
		if err != nil {
			return err
		}
		if f.kind != frameSASL || f.code != codeInit {
			return fmt.Errorf("%w: no SASL init", errMalformed)
		}
		c.send(frame{kind: frameSASL, code: codeOutcome, fields: []any{uint8(0)}})
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
	}
	c.sendRaw(amqpHeader) // also the answer to a header that is not understood, part 2 section 2.2
	if !bytes.Equal(head[:], amqpHeader) {
		return fmt.Errorf("%w: protocol header %q", errMalformed, head)
	}
	return nil
}

// handle acts on one frame and reports whether it was the last one.
func (c *conn) handle(f frame) (done bool, err error) {
	switch f.code {
	case codeOpen:
		return false, c.open(f)
	case codeClose:
		c.send(frame{code: codeClose, fields: []any{}})
		return true, nil
	case codeBegin:
		return false, c.begin(f)
	}
	s := c.sessions[f.channel]
	if s == nil {
		return false, &amqpError{amqp.ErrCondNotAllowed, fmt.Sprintf("no session on channel %d", f.channel)}
	}
	switch f.code {
	case codeAttach:
		return false, s.attach(f)
	case codeFlow:
		s.flow(f)
	case codeTransfer:
		return false, s.transfer(f)
	case codeDisposition:
		s.disposition(f)
	case codeDetach:
		s.detach(f)
	case codeEnd:
		s.end()
		delete(c.sessions, f.channel)
		c.send(frame{channel: f.channel, code: codeEnd, fields: []any{}})
	default:
		return false, &amqpError{amqp.ErrCondNotImplemented, fmt.Sprintf("performative %#02x", f.code)}
	}
	return false, nil
}

func (c *conn) open(f frame) error {
	if c.opened {
		return &amqpError{amqp.ErrCondIllegalState, "opened twice"}
	}
	c.opened = true
	c.peerMax = maxFrame
	if size, ok := field[uint32](f.fields, 2); ok {
		c.peerMax = int(min(max(size, minMaxFrame), maxFrame))
	}
	if ms, ok := field[uint32](f.fields, 4); ok && ms > 0 {
		c.heartbeat <- max(time.Duration(ms)*time.Millisecond/2, minHeartbeat)
	}
	c.send(frame{code: codeOpen, fields: []any{
		"servicebus", nil, uint32(maxFrame), uint16(0xffff), uint32(c.n.idle.Milliseconds() / 2),
	}})
	return nil
}

func (c *conn) begin(f frame) error {
	if !c.opened || c.sessions[f.channel] != nil {
		return &amqpError{amqp.ErrCondIllegalState, fmt.Sprintf("begin on channel %d", f.channel)}
	}
	s := &session{
		c:         c,
		channel:   f.channel,
		links:     make(map[uint32]*link),
		unsettled: make(map[uint32]held),
	}
	s.incoming, _ = field[uint32](f.fields, 1)
	s.window, _ = field[uint32](f.fields, 2)
	c.sessions[f.channel] = s
	c.send(frame{channel: f.channel, code: codeBegin, fields: []any{
		f.channel, s.outgoing, uint32(sessionWindow), uint32(sessionWindow), uint32(maxHandle),
	}})
	return nil
}
