package servicebus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	sb "github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"steno/tests/local/servicebus"
)

// lock is long enough for a slow machine to settle within, and short enough to
// wait for.
const lock = time.Second

func start(t *testing.T, queues ...servicebus.Queue) *servicebus.Namespace {
	t.Helper()
	n, err := servicebus.Start(servicebus.Config{Queues: queues})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func withTimeout(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func dial(t *testing.T, n *servicebus.Namespace) *sb.Client {
	t.Helper()
	c, err := sb.NewClientFromConnectionString(n.ConnectionString(), &sb.ClientOptions{
		RetryOptions: sb.RetryOptions{MaxRetries: 3, RetryDelay: 20 * time.Millisecond, MaxRetryDelay: 100 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Logf("close client: %v", err)
		}
	})
	return c
}

func sender(t *testing.T, c *sb.Client, queue string) *sb.Sender {
	t.Helper()
	s, err := c.NewSender(queue, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func receiver(t *testing.T, c *sb.Client, queue string) *sb.Receiver {
	t.Helper()
	r, err := c.NewReceiverForQueue(queue, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func deadLetters(t *testing.T, c *sb.Client, queue string) *sb.Receiver {
	t.Helper()
	r, err := c.NewReceiverForQueue(queue, &sb.ReceiverOptions{SubQueue: sb.SubQueueDeadLetter})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func send(t *testing.T, s *sb.Sender, bodies ...string) {
	t.Helper()
	for _, b := range bodies {
		if err := s.SendMessage(withTimeout(t), &sb.Message{Body: []byte(b)}, nil); err != nil {
			t.Fatalf("send %q: %v", b, err)
		}
	}
}

// receive waits for one message.
func receive(t *testing.T, r *sb.Receiver) *sb.ReceivedMessage {
	t.Helper()
	return receiveN(t, r, 1)[0]
}

func receiveN(t *testing.T, r *sb.Receiver, n int) []*sb.ReceivedMessage {
	t.Helper()
	ctx := withTimeout(t)
	var all []*sb.ReceivedMessage
	for len(all) < n {
		got, err := r.ReceiveMessages(ctx, n-len(all), nil)
		if err != nil {
			t.Fatalf("receive %d of %d: %v", len(all), n, err)
		}
		all = append(all, got...)
	}
	return all
}

func complete(t *testing.T, r *sb.Receiver, messages ...*sb.ReceivedMessage) {
	t.Helper()
	for _, m := range messages {
		if err := r.CompleteMessage(withTimeout(t), m, nil); err != nil {
			t.Fatalf("complete %s: %v", m.MessageID, err)
		}
	}
}

// nothing asserts that the receiver gets no message for a while.
func nothing(t *testing.T, r *sb.Receiver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	got, err := r.ReceiveMessages(ctx, 1, nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %d messages and error %v, want none", len(got), err)
	}
}

// eventually polls until the depth of the queue is as wanted.
func eventually(t *testing.T, n *servicebus.Namespace, queue string, want servicebus.Depth) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	for {
		got := n.Depth(queue)
		if got == want {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("depth of %s is %+v, want %+v", queue, got, want)
		}
	}
}

func codeOf(err error) sb.Code {
	if e, ok := errors.AsType[*sb.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestSentMessageIsReceivedExactly(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "Work"})
	c := dial(t, n)
	id, kind := "id-1", "application/json"
	err := sender(t, c, "work").SendMessage(withTimeout(t), &sb.Message{
		Body:        []byte(`{"a":1}`),
		MessageID:   &id,
		ContentType: &kind,
		ApplicationProperties: map[string]any{
			"long": int64(5), "int": int32(-6), "double": 1.0, "text": "x", "yes": true,
		},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := receiver(t, c, "WORK")
	m := receive(t, r)
	if string(m.Body) != `{"a":1}` || m.MessageID != id || *m.ContentType != kind || m.DeliveryCount != 1 {
		t.Errorf("received %q, id %q, type %q, delivery %d", m.Body, m.MessageID, *m.ContentType, m.DeliveryCount)
	}
	want := map[string]any{"long": int64(5), "int": int32(-6), "double": 1.0, "text": "x", "yes": true}
	for k, v := range want {
		if m.ApplicationProperties[k] != v {
			t.Errorf("property %s is %#v, want %#v", k, m.ApplicationProperties[k], v)
		}
	}
	if m.SequenceNumber == nil || *m.SequenceNumber != 1 || m.LockedUntil == nil || m.EnqueuedTime == nil {
		t.Errorf("sequence number %v, locked until %v, enqueued %v", m.SequenceNumber, m.LockedUntil, m.EnqueuedTime)
	}
	if d := n.Depth("work"); d != (servicebus.Depth{Locked: 1}) {
		t.Errorf("depth while locked is %+v", d)
	}
	complete(t, r, m)
	if d := n.Depth("work"); d != (servicebus.Depth{}) {
		t.Errorf("depth after completion is %+v", d)
	}
}

func TestLargeMessageCrossesInManyFrames(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	body := strings.Repeat("0123456789abcdef", 200<<10/16)
	send(t, sender(t, c, "q"), body)
	r := receiver(t, c, "q")
	m := receive(t, r)
	if string(m.Body) != body {
		t.Fatalf("body of %d bytes differs from the %d sent", len(m.Body), len(body))
	}
	complete(t, r, m)
}

func TestMessageOverTheTierLimitIsRefused(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	err := sender(t, c, "q").SendMessage(withTimeout(t), &sb.Message{Body: make([]byte, servicebus.MaxMessageSize)}, nil)
	if err == nil {
		t.Fatal("accepted a message over the limit")
	}
	if d := n.Depth("q"); d != (servicebus.Depth{}) {
		t.Errorf("depth is %+v", d)
	}
}

func TestBatchArrivesWholeAndInOrder(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	for _, size := range []int{20, 1} {
		s := sender(t, c, "q")
		batch, err := s.NewMessageBatch(withTimeout(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range size {
			if err := batch.AddMessage(&sb.Message{Body: fmt.Appendf(nil, "%d", i)}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.SendMessageBatch(withTimeout(t), batch, nil); err != nil {
			t.Fatal(err)
		}
		r := receiver(t, c, "q")
		for i, m := range receiveN(t, r, size) {
			if string(m.Body) != fmt.Sprint(i) {
				t.Errorf("message %d of %d is %q", i, size, m.Body)
			}
			complete(t, r, m)
		}
		if err := r.Close(withTimeout(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCompetingReceiversGetEachMessageOnce(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	const total = 400
	s := sender(t, c, "q")
	for i := range total {
		send(t, s, fmt.Sprint(i))
	}
	var mu sync.Mutex
	seen := map[string]int{}
	ctx, cancel := context.WithCancel(withTimeout(t))
	defer cancel()
	var wg sync.WaitGroup
	for range 2 {
		r := receiver(t, dial(t, n), "q")
		wg.Go(func() {
			for {
				got, err := r.ReceiveMessages(ctx, 10, nil)
				if err != nil {
					return
				}
				for _, m := range got {
					if err := r.CompleteMessage(context.Background(), m, nil); err != nil {
						t.Error(err)
					}
					mu.Lock()
					seen[string(m.Body)]++
					if len(seen) == total {
						cancel()
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if len(seen) != total {
		t.Errorf("got %d of %d messages", len(seen), total)
	}
	for body, times := range seen {
		if times != 1 {
			t.Errorf("message %s came %d times", body, times)
		}
	}
	eventually(t, n, "q", servicebus.Depth{})
}

func TestUnknownEntityIsNotFound(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	err := sender(t, c, "absent").SendMessage(withTimeout(t), &sb.Message{Body: []byte("x")}, nil)
	if codeOf(err) != sb.CodeNotFound && (err == nil || !strings.Contains(err.Error(), "amqp:not-found")) {
		t.Errorf("send to an absent queue: %v", err)
	}
	_, err = receiver(t, c, "absent").ReceiveMessages(withTimeout(t), 1, nil)
	if err == nil || !strings.Contains(err.Error(), "amqp:not-found") {
		t.Errorf("receive from an absent queue: %v", err)
	}
	send(t, sender(t, c, "q"), "still usable")
}

func TestFaultyConfigIsReportedWhole(t *testing.T) {
	_, err := servicebus.Start(servicebus.Config{Queues: []servicebus.Queue{
		{Name: ""}, {Name: "a"}, {Name: "A"},
		{Name: "b", LockDuration: time.Hour},
		{Name: "c", MaxDeliveryCount: -1},
		{Name: "d", DefaultTTL: -1},
	}})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`""`, `"A"`, `"b"`, `"c"`, `"d"`} {
		if !strings.Contains(err.Error(), "queue "+want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestCloseMayBeCalledTwice(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	send(t, sender(t, dial(t, n), "q"), "x")
	for range 2 {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
