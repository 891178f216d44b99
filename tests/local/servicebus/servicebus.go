// Package servicebus is a Service Bus namespace on loopback, in memory, that
// the azservicebus client accepts: queues with peek-lock, dead-letter queues,
// duplicate detection, scheduling, deferral, batches, peeking, and the
// $management and $cbs nodes over plain AMQP 1.0.
//
// It is a test tool. It has no sessions, topics, transactions, forwarding or
// administration API, keeps nothing on disk, and accepts every token that a
// client puts. What it does have follows the AMQP 1.0 protocol guide of
// Service Bus
// (https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-protocol-guide)
// and its request and response operations
// (https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-request-response).
package servicebus

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// Defaults and limits of Azure, where a [Queue] says nothing else
// (https://learn.microsoft.com/azure/service-bus-messaging/service-bus-quotas).
const (
	DefaultLockDuration     = time.Minute
	MaxLockDuration         = 5 * time.Minute
	DefaultMaxDeliveryCount = 10
	MaxMessageSize          = 256 << 10 // Basic and Standard tier, bytes
)

// DeadLetterSuffix turns a queue's name into that of its dead-letter queue.
const DeadLetterSuffix = "/$deadletterqueue"

// Queue describes one queue of the namespace. Names are compared without
// regard to case, as in Azure.
type Queue struct {
	Name             string
	MaxDeliveryCount int           // 0 = DefaultMaxDeliveryCount
	LockDuration     time.Duration // 0 = DefaultLockDuration; at most MaxLockDuration

	// DuplicateWindow is how long a message id is remembered and a second
	// message with it dropped. 0 is the Basic tier: no duplicate detection.
	DuplicateWindow time.Duration

	// DefaultTTL bounds the life of every message; 0 leaves it to the message.
	DefaultTTL time.Duration

	// DeadLetterExpired moves expired messages to the dead-letter queue.
	// Without it they are dropped, which is Azure's default.
	DeadLetterExpired bool
}

// Config says what [Start] starts.
type Config struct {
	Addr   string // "" = 127.0.0.1:0
	Queues []Queue
}

// Depth counts the messages of one entity by state.
type Depth struct {
	Active       int // ready for delivery, or held back by Delay
	Locked       int // delivered under a lock that still holds
	Scheduled    int
	Deferred     int
	DeadLettered int // messages in the entity's dead-letter queue, in any state
}

// Namespace is a running namespace. Its methods may be called from any
// goroutine.
type Namespace struct {
	ln   net.Listener
	idle time.Duration
	wg   sync.WaitGroup

	mu     sync.Mutex // guards everything below and all state of queues, links and sessions
	queues map[string]*queue
	conns  map[*conn]struct{}
	alarms alarms
	wake   chan struct{} // buffered 1: the first alarm changed
	done   chan struct{}
	closed bool
}

// Start listens on cfg.Addr and serves until [Namespace.Close]. All faults in
// cfg are reported together, before listening.
func Start(cfg Config) (*Namespace, error) {
	n := &Namespace{
		idle:   idleTimeout,
		queues: make(map[string]*queue),
		conns:  make(map[*conn]struct{}),
		wake:   make(chan struct{}, 1),
		done:   make(chan struct{}),
	}
	var faults []error
	for _, q := range cfg.Queues {
		if err := n.addQueue(q); err != nil {
			faults = append(faults, err)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	addr := cfg.Addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for service bus clients: %w", err)
	}
	n.ln = ln
	n.wg.Go(n.accept)
	n.wg.Go(n.watch)
	return n, nil
}

func (n *Namespace) addQueue(q Queue) error {
	name := strings.ToLower(q.Name)
	switch {
	case name == "" || len(name) > 260 || strings.ContainsAny(name, "$?#@*\\ "):
		return fmt.Errorf("queue %q: invalid name", q.Name)
	case n.queues[name] != nil:
		return fmt.Errorf("queue %q: named twice", q.Name)
	case q.MaxDeliveryCount < 0:
		return fmt.Errorf("queue %q: negative MaxDeliveryCount", q.Name)
	case q.LockDuration < 0 || q.LockDuration > MaxLockDuration:
		return fmt.Errorf("queue %q: LockDuration %v outside 0 to %v", q.Name, q.LockDuration, MaxLockDuration)
	case q.DuplicateWindow < 0 || q.DefaultTTL < 0:
		return fmt.Errorf("queue %q: negative duration", q.Name)
	}
	if q.MaxDeliveryCount == 0 {
		q.MaxDeliveryCount = DefaultMaxDeliveryCount
	}
	if q.LockDuration == 0 {
		q.LockDuration = DefaultLockDuration
	}
	dead := newQueue(n, Queue{Name: name + DeadLetterSuffix, LockDuration: q.LockDuration}, nil)
	q.Name = name
	n.queues[name] = newQueue(n, q, dead)
	n.queues[dead.Name] = dead
	return nil
}

// Addr returns the host and port the namespace listens on.
func (n *Namespace) Addr() string { return n.ln.Addr().String() }

// ConnectionString returns what azservicebus.NewClientFromConnectionString
// takes. The emulator flag makes the client speak AMQP without TLS.
func (n *Namespace) ConnectionString() string {
	return "Endpoint=sb://" + n.Addr() + ";SharedAccessKeyName=local;SharedAccessKey=bG9jYWw=;UseDevelopmentEmulator=true"
}

// Depth counts the messages of a queue, or of a dead-letter queue named with
// [DeadLetterSuffix]. An unknown name has no messages.
func (n *Namespace) Depth(queue string) Depth {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := n.queues[strings.ToLower(queue)]
	if q == nil {
		return Depth{}
	}
	d := q.depth()
	if q.dead != nil {
		dead := q.dead.depth()
		d.DeadLettered = dead.Active + dead.Locked + dead.Scheduled + dead.Deferred
	}
	return d
}

// Close stops listening, drops every connection and waits for all goroutines.
// Messages are lost. It may be called twice.
func (n *Namespace) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		n.wg.Wait()
		return nil
	}
	n.closed = true
	close(n.done)
	for c := range n.conns {
		c.abort()
	}
	n.mu.Unlock()
	err := n.ln.Close()
	n.wg.Wait()
	return err
}

func (n *Namespace) accept() {
	for {
		nc, err := n.ln.Accept()
		if err != nil {
			return
		}
		c := newConn(n, nc)
		n.mu.Lock()
		if n.closed {
			n.mu.Unlock()
			c.abort()
			return
		}
		n.conns[c] = struct{}{}
		n.wg.Go(c.serve)
		n.wg.Go(c.write)
		n.mu.Unlock()
	}
}
