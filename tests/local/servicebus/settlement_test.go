package servicebus_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	sb "github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"steno/tests/local/servicebus"
)

func TestAbandonedMessageComesAgainWithItsNewProperties(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	send(t, sender(t, c, "q"), "x")
	r := receiver(t, c, "q")
	err := r.AbandonMessage(withTimeout(t), receive(t, r), &sb.AbandonMessageOptions{
		PropertiesToModify: map[string]any{"tried": int32(1), "by": "first"},
	})
	if err != nil {
		t.Fatal(err)
	}
	m := receive(t, r)
	if m.DeliveryCount != 2 || m.ApplicationProperties["tried"] != int32(1) || m.ApplicationProperties["by"] != "first" {
		t.Errorf("delivery %d with properties %v", m.DeliveryCount, m.ApplicationProperties)
	}
	complete(t, r, m)
}

func TestDeadLetteredMessageKeepsItsReason(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	send(t, sender(t, c, "q"), "x")
	r := receiver(t, c, "q")
	reason, description := "poison", "unknown kind"
	err := r.DeadLetterMessage(withTimeout(t), receive(t, r), &sb.DeadLetterOptions{
		Reason: &reason, ErrorDescription: &description, PropertiesToModify: map[string]any{"at": int64(7)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := n.Depth("q"); d != (servicebus.Depth{DeadLettered: 1}) {
		t.Errorf("depth is %+v", d)
	}
	dead := deadLetters(t, c, "q")
	m := receive(t, dead)
	if *m.DeadLetterReason != reason || *m.DeadLetterErrorDescription != description ||
		*m.DeadLetterSource != "q" || m.ApplicationProperties["at"] != int64(7) {
		t.Errorf("reason %v, description %v, source %v, properties %v",
			*m.DeadLetterReason, *m.DeadLetterErrorDescription, *m.DeadLetterSource, m.ApplicationProperties)
	}
	complete(t, dead, m)
	if d := n.Depth("q"); d != (servicebus.Depth{}) {
		t.Errorf("depth is %+v", d)
	}
}

func TestMessageGoesToDeadLettersAfterItsLastDelivery(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q", MaxDeliveryCount: 3})
	c := dial(t, n)
	send(t, sender(t, c, "q"), "x")
	r := receiver(t, c, "q")
	for i := range 3 {
		m := receive(t, r)
		if m.DeliveryCount != uint32(i+1) {
			t.Errorf("delivery count %d, want %d", m.DeliveryCount, i+1)
		}
		if err := r.AbandonMessage(withTimeout(t), m, nil); err != nil {
			t.Fatal(err)
		}
	}
	m := receive(t, deadLetters(t, c, "q"))
	if *m.DeadLetterReason != "MaxDeliveryCountExceeded" {
		t.Errorf("reason %s", *m.DeadLetterReason)
	}
	nothing(t, r)
}

func TestExpiredLockIsRedeliveredAndItsHolderIsTold(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q", LockDuration: lock})
	c := dial(t, n)
	send(t, sender(t, c, "q"), "x")
	r := receiver(t, c, "q")
	began := time.Now()
	stale := receive(t, r)
	again := receive(t, r)
	if took := time.Since(began); took < lock {
		t.Errorf("redelivered after %v, under a lock of %v", took, lock)
	}
	if again.DeliveryCount != 2 {
		t.Errorf("delivery count %d", again.DeliveryCount)
	}
	if err := r.CompleteMessage(withTimeout(t), stale, nil); codeOf(err) != sb.CodeLockLost {
		t.Errorf("complete under the old lock: %v", err)
	}
	if err := r.RenewMessageLock(withTimeout(t), stale, nil); codeOf(err) != sb.CodeLockLost {
		t.Errorf("renew the old lock: %v", err)
	}
	complete(t, r, again)
}

func TestRenewedLockHolds(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q", LockDuration: lock})
	c := dial(t, n)
	send(t, sender(t, c, "q"), "x")
	r := receiver(t, c, "q")
	m := receive(t, r)
	until := time.Now().Add(lock + lock/4)
	for time.Now().Before(until) {
		was := *m.LockedUntil
		if err := r.RenewMessageLock(withTimeout(t), m, nil); err != nil {
			t.Fatal(err)
		}
		if m.LockedUntil.Before(was) {
			t.Fatalf("lock ends %v after renewal, %v before", m.LockedUntil, was)
		}
	}
	if d := n.Depth("q"); d.Locked != 1 {
		t.Errorf("depth is %+v", d)
	}
	complete(t, r, m)
}

func TestReceiveAfterATimeoutGetsTheNextMessage(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	r := receiver(t, c, "q")
	nothing(t, r)
	send(t, sender(t, c, "q"), "x")
	complete(t, r, receive(t, r))
}

func TestReceiveAndDeleteLeavesNothing(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	send(t, sender(t, c, "q"), "x")
	r, err := c.NewReceiverForQueue("q", &sb.ReceiverOptions{ReceiveMode: sb.ReceiveModeReceiveAndDelete})
	if err != nil {
		t.Fatal(err)
	}
	if m := receive(t, r); string(m.Body) != "x" {
		t.Errorf("received %q", m.Body)
	}
	if d := n.Depth("q"); d != (servicebus.Depth{}) {
		t.Errorf("depth is %+v", d)
	}
}

func TestDeferredMessageComesByItsNumberOnly(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q", LockDuration: lock})
	c := dial(t, n)
	send(t, sender(t, c, "q"), "x")
	r := receiver(t, c, "q")
	m := receive(t, r)
	if err := r.DeferMessage(withTimeout(t), m, nil); err != nil {
		t.Fatal(err)
	}
	nothing(t, r)
	numbers := []int64{*m.SequenceNumber}
	got, err := r.ReceiveDeferredMessages(withTimeout(t), numbers, nil)
	if err != nil || len(got) != 1 || string(got[0].Body) != "x" {
		t.Fatalf("received %d deferred messages, %v", len(got), err)
	}
	eventually(t, n, "q", servicebus.Depth{Deferred: 1}) // the lock ran out
	got, err = r.ReceiveDeferredMessages(withTimeout(t), numbers, nil)
	if err != nil || len(got) != 1 {
		t.Fatalf("received %d deferred messages, %v", len(got), err)
	}
	complete(t, r, got[0])
	if _, err = r.ReceiveDeferredMessages(withTimeout(t), numbers, nil); err == nil {
		t.Error("received a completed message")
	}
	if d := n.Depth("q"); d != (servicebus.Depth{}) {
		t.Errorf("depth is %+v", d)
	}
}

func TestPeekShowsEveryStateAndChangesNone(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	s, r := sender(t, c, "q"), receiver(t, c, "q")
	send(t, s, "deferred", "locked")
	for _, m := range receiveN(t, r, 2) {
		if string(m.Body) == "deferred" {
			if err := r.DeferMessage(withTimeout(t), m, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.ScheduleMessages(withTimeout(t), []*sb.Message{{Body: []byte("scheduled")}}, time.Now().Add(time.Hour), nil); err != nil {
		t.Fatal(err)
	}
	send(t, s, "active")
	want := n.Depth("q")
	if want != (servicebus.Depth{Active: 1, Locked: 1, Scheduled: 1, Deferred: 1}) {
		t.Fatalf("depth is %+v", want)
	}
	var bodies []string
	var states []sb.MessageState
	for range 2 { // the second peek goes on where the first ended
		got, err := r.PeekMessages(withTimeout(t), 3, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range got {
			bodies, states = append(bodies, string(m.Body)), append(states, m.State)
			if m.LockToken != [16]byte{} || m.LockedUntil != nil {
				t.Errorf("peeking at %s gave away its lock", m.Body)
			}
		}
	}
	if !slices.Equal(bodies, []string{"deferred", "locked", "scheduled", "active"}) {
		t.Errorf("peeked %q", bodies)
	}
	if !slices.Equal(states, []sb.MessageState{sb.MessageStateDeferred, sb.MessageStateActive, sb.MessageStateScheduled, sb.MessageStateActive}) {
		t.Errorf("peeked states %v", states)
	}
	if got := n.Depth("q"); got != want {
		t.Errorf("depth is %+v, was %+v", got, want)
	}
}

func TestScheduledMessageWaitsForItsTime(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	s, r := sender(t, c, "q"), receiver(t, c, "q")
	due := time.Now().Add(300 * time.Millisecond)
	if err := s.SendMessage(withTimeout(t), &sb.Message{Body: []byte("sent"), ScheduledEnqueueTime: &due}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ScheduleMessages(withTimeout(t), []*sb.Message{{Body: []byte("scheduled")}}, due, nil); err != nil {
		t.Fatal(err)
	}
	cancelled, err := s.ScheduleMessages(withTimeout(t), []*sb.Message{{Body: []byte("cancelled")}}, due, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CancelScheduledMessages(withTimeout(t), cancelled, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.CancelScheduledMessages(withTimeout(t), cancelled, nil); err == nil {
		t.Error("cancelled a message twice")
	}
	got := receiveN(t, r, 2)
	if now := time.Now(); now.Before(due.Truncate(time.Millisecond)) {
		t.Errorf("came %v early", due.Sub(now))
	}
	complete(t, r, got...)
	if d := n.Depth("q"); d != (servicebus.Depth{}) {
		t.Errorf("depth is %+v", d)
	}
}

func TestDuplicateWithinTheWindowIsDropped(t *testing.T) {
	const window = 300 * time.Millisecond
	n := start(t, servicebus.Queue{Name: "standard", DuplicateWindow: window}, servicebus.Queue{Name: "basic"})
	c := dial(t, n)
	id := "same"
	twice := func(queue string) {
		s := sender(t, c, queue)
		for range 2 {
			if err := s.SendMessage(withTimeout(t), &sb.Message{MessageID: &id}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	began := time.Now()
	twice("standard")
	twice("basic")
	if d := n.Depth("basic"); d.Active != 2 {
		t.Errorf("depth without detection is %+v", d)
	}
	if d := n.Depth("standard"); d.Active != 1 && time.Since(began) < window {
		t.Errorf("depth with detection is %+v", d)
	}
	s := sender(t, c, "standard")
	for before := n.Depth("standard").Active; n.Depth("standard").Active == before; {
		if time.Since(began) > 20*window {
			t.Fatal("the id is still remembered")
		}
		if err := s.SendMessage(withTimeout(t), &sb.Message{MessageID: &id}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < window {
		t.Errorf("the id was forgotten after %v", took)
	}
}

func TestExpiredMessageIsDroppedOrDeadLettered(t *testing.T) {
	n := start(t,
		servicebus.Queue{Name: "drop", DefaultTTL: 100 * time.Millisecond},
		servicebus.Queue{Name: "keep", DeadLetterExpired: true})
	c := dial(t, n)
	send(t, sender(t, c, "drop"), "x")
	ttl := 100 * time.Millisecond
	if err := sender(t, c, "keep").SendMessage(withTimeout(t), &sb.Message{TimeToLive: &ttl}, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, "drop", servicebus.Depth{})
	eventually(t, n, "keep", servicebus.Depth{DeadLettered: 1})
	if m := receive(t, deadLetters(t, c, "keep")); *m.DeadLetterReason != "TTLExpiredException" {
		t.Errorf("reason %s", *m.DeadLetterReason)
	}
}

func TestMessageOfAClosedReceiverIsSettledThroughManagement(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	send(t, sender(t, c, "q"), "x")
	closed := receiver(t, c, "q")
	m := receive(t, closed)
	if err := closed.Close(withTimeout(t)); err != nil {
		t.Fatal(err)
	}
	complete(t, receiver(t, c, "q"), m)
	eventually(t, n, "q", servicebus.Depth{})
}

func TestDroppedClientsComeBack(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q", LockDuration: lock})
	c := dial(t, n)
	s, r := sender(t, c, "q"), receiver(t, c, "q")
	send(t, s, "one")
	receive(t, r)
	if dropped := n.DropConnections(); dropped != 1 {
		t.Errorf("dropped %d connections", dropped)
	}
	send(t, s, "two")
	var bodies []string
	for range 2 { // the first one again, after its lock
		m := receive(t, r)
		bodies = append(bodies, string(m.Body))
		complete(t, r, m)
	}
	slices.Sort(bodies)
	if !slices.Equal(bodies, []string{"one", "two"}) {
		t.Errorf("received %q", bodies)
	}
}

func TestExpireLocksRedeliversAtOnce(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	send(t, sender(t, c, "q"), "x")
	r := receiver(t, c, "q")
	stale := receive(t, r)
	if expired := n.ExpireLocks("Q"); expired != 1 {
		t.Errorf("expired %d locks", expired)
	}
	if err := r.CompleteMessage(withTimeout(t), stale, nil); codeOf(err) != sb.CodeLockLost {
		t.Errorf("complete under the old lock: %v", err)
	}
	m := receive(t, r)
	if m.DeliveryCount != 2 {
		t.Errorf("delivery count %d", m.DeliveryCount)
	}
	complete(t, r, m)
	if n.ExpireLocks("absent") != 0 {
		t.Error("an unknown queue had locks")
	}
}

func TestDelayHoldsMessagesBack(t *testing.T) {
	const delay = 300 * time.Millisecond
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	n.Delay("q", delay)
	began := time.Now()
	s, r := sender(t, c, "q"), receiver(t, c, "q")
	send(t, s, "late")
	n.Delay("q", 0)
	send(t, s, "prompt")
	for _, want := range []string{"prompt", "late"} {
		m := receive(t, r)
		if string(m.Body) != want {
			t.Errorf("received %s, want %s", m.Body, want)
		}
		complete(t, r, m)
	}
	if took := time.Since(began); took < delay {
		t.Errorf("came after %v, under a delay of %v", took, delay)
	}
}

func TestDeliverTwiceRepeatsCompletedMessages(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	n.DeliverTwice("q", 1)
	send(t, sender(t, c, "q"), "x")
	r := receiver(t, c, "q")
	for i := range 2 {
		m := receive(t, r)
		if m.DeliveryCount != uint32(i+1) {
			t.Errorf("delivery count %d, want %d", m.DeliveryCount, i+1)
		}
		complete(t, r, m)
	}
	nothing(t, r)
}

func TestClosedNamespaceFailsItsClients(t *testing.T) {
	n := start(t, servicebus.Queue{Name: "q"})
	c := dial(t, n)
	r := receiver(t, c, "q")
	failed := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	go func() {
		for {
			if _, err := r.ReceiveMessages(ctx, 1, nil); err != nil {
				failed <- err
				return
			}
		}
	}()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
