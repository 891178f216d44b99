package azure

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"steno/shared/notification"
)

// Inbox receives from one Service Bus queue, many messages at a time, which no trigger of a
// custom handler does. The connection is made with the first Receive and kept.
type Inbox struct {
	c    *azservicebus.Client
	name string

	mu sync.Mutex
	r  *azservicebus.Receiver
}

// NewInbox returns a receiver for the named queue, which exists.
func NewInbox(c *azservicebus.Client, name string) *Inbox { return &Inbox{c: c, name: name} }

// Receive returns up to most messages, none if there is none within wait. It costs an
// operation a message, and one where there is none; Done costs another.
func (i *Inbox) Receive(ctx context.Context, most int, wait time.Duration) ([]notification.Envelope, error) {
	r, err := i.receiver()
	if err != nil {
		return nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	got, err := r.ReceiveMessages(waiting, most, nil)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("receive from %s: %w", i.name, err)
	}
	out := make([]notification.Envelope, 0, len(got))
	for _, m := range got {
		out = append(out, notification.Envelope{Body: m.Body, Done: func(ctx context.Context) error {
			if err := r.CompleteMessage(ctx, m, nil); err != nil {
				return fmt.Errorf("complete message of %s: %w", i.name, err)
			}
			return nil
		}})
	}
	return out, nil
}

func (i *Inbox) receiver() (*azservicebus.Receiver, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.r != nil {
		return i.r, nil
	}
	r, err := i.c.NewReceiverForQueue(i.name, nil)
	if err != nil {
		return nil, fmt.Errorf("open queue %s: %w", i.name, err)
	}
	i.r = r
	return r, nil
}

// Close closes the connection. Messages that are not done come again.
func (i *Inbox) Close(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.r == nil {
		return nil
	}
	err := i.r.Close(ctx)
	i.r = nil
	return err
}
