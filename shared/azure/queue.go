package azure

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// Queue sends to one Service Bus queue. The connection is made with the first
// message and kept.
type Queue struct {
	c    *azservicebus.Client
	name string

	mu sync.Mutex
	s  *azservicebus.Sender
}

// NewQueue returns a sender for the named queue, which exists.
func NewQueue(c *azservicebus.Client, name string) *Queue { return &Queue{c: c, name: name} }

// MaxMessage is the most a message body may have. Basic and Standard allow 256 KB
// with headers.
const MaxMessage = 192 << 10

// Send queues a message, durably when it returns nil. notBefore delays it; the zero
// time does not. A Send repeated after an error may leave the message twice: Basic
// namespaces detect no duplicates, so the id serves readers and logs alone.
func (q *Queue) Send(ctx context.Context, id string, body []byte, notBefore time.Time) error {
	if len(body) > MaxMessage {
		return fmt.Errorf("send to %s: message of %d bytes, more than %d", q.name, len(body), MaxMessage)
	}
	s, err := q.sender()
	if err != nil {
		return err
	}
	m := &azservicebus.Message{MessageID: to.Ptr(id), Body: body, ContentType: to.Ptr("application/json")}
	if !notBefore.IsZero() {
		m.ScheduledEnqueueTime = to.Ptr(notBefore.UTC())
	}
	if err := s.SendMessage(ctx, m, nil); err != nil {
		return fmt.Errorf("send to %s: %w", q.name, err)
	}
	return nil
}

func (q *Queue) sender() (*azservicebus.Sender, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.s != nil {
		return q.s, nil
	}
	s, err := q.c.NewSender(q.name, nil)
	if err != nil {
		return nil, fmt.Errorf("open queue %s: %w", q.name, err)
	}
	q.s = s
	return s, nil
}

// Close closes the connection.
func (q *Queue) Close(ctx context.Context) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.s == nil {
		return nil
	}
	err := q.s.Close(ctx)
	q.s = nil
	return err
}
