package azure_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"steno/shared/azure"
	"steno/tests/local/servicebus"
)

const exports = "chat-export"

func startQueue(t *testing.T) (*servicebus.Namespace, *azservicebus.Client, *azure.Queue) {
	t.Helper()
	n, err := servicebus.Start(servicebus.Config{Queues: []servicebus.Queue{{Name: exports}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	c, err := azservicebus.NewClientFromConnectionString(n.ConnectionString(), &azservicebus.ClientOptions{
		RetryOptions: azservicebus.RetryOptions{MaxRetries: 3, RetryDelay: 20 * time.Millisecond, MaxRetryDelay: 100 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	q := azure.NewQueue(c, exports)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := q.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := q.Close(ctx); err != nil {
			t.Errorf("closed twice: %v", err)
		}
		if err := c.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return n, c, q
}

func receive(t *testing.T, c *azservicebus.Client) *azservicebus.ReceivedMessage {
	t.Helper()
	r, err := c.NewReceiverForQueue(exports, &azservicebus.ReceiverOptions{ReceiveMode: azservicebus.ReceiveModeReceiveAndDelete})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got, err := r.ReceiveMessages(ctx, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return got[0]
}

func TestSentMessageArrivesAsItWas(t *testing.T) {
	_, c, q := startQueue(t)
	body := []byte(`{"stenoV":1}`)
	if err := q.Send(t.Context(), "w-1", body, time.Time{}); err != nil {
		t.Fatal(err)
	}
	m := receive(t, c)
	if m.MessageID != "w-1" || !bytes.Equal(m.Body, body) || m.ContentType == nil || *m.ContentType != "application/json" {
		t.Errorf("received %q: %q", m.MessageID, m.Body)
	}
}

func TestDelayedMessageWaitsForItsTime(t *testing.T) {
	n, c, q := startQueue(t)
	due := time.Now().Add(300 * time.Millisecond)
	if err := q.Send(t.Context(), "late", []byte("{}"), due); err != nil {
		t.Fatal(err)
	}
	if d := n.Depth(exports); d.Scheduled != 1 || d.Active != 0 {
		t.Errorf("depth %+v, want one scheduled", d)
	}
	if m := receive(t, c); m.MessageID != "late" || time.Now().Before(due.Truncate(time.Millisecond)) {
		t.Errorf("received %q %s early", m.MessageID, time.Until(due))
	}
}

func TestOversizedMessageIsRefusedBeforeItIsSent(t *testing.T) {
	n, _, q := startQueue(t)
	if err := q.Send(t.Context(), "big", make([]byte, azure.MaxMessage+1), time.Time{}); err == nil {
		t.Error("sent")
	}
	if err := q.Send(t.Context(), "largest", make([]byte, azure.MaxMessage), time.Time{}); err != nil {
		t.Errorf("the largest that is allowed: %v", err)
	}
	if d := n.Depth(exports); d.Active != 1 {
		t.Errorf("depth %+v, want one", d)
	}
}

func TestSenderOutlivesItsConnection(t *testing.T) {
	n, _, q := startQueue(t)
	for i := range 3 {
		if i > 0 {
			n.DropConnections()
		}
		if err := q.Send(t.Context(), "m", []byte("{}"), time.Time{}); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if d := n.Depth(exports); d.Active < 3 {
		t.Errorf("depth %+v, want three", d)
	}
}

func TestUnknownQueueIsAnError(t *testing.T) {
	_, c, _ := startQueue(t)
	q := azure.NewQueue(c, "unknown")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := q.Send(ctx, "m", []byte("{}"), time.Time{}); err == nil {
		t.Error("sent")
	}
	if err := q.Close(ctx); err != nil {
		t.Error(err)
	}
}
