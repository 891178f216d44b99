package host_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"steno/tests/local/host"
	"steno/tests/local/servicebus"
)

func busJSON(queue, dataType string) string {
	return `{"bindings":[{"type":"serviceBusTrigger","direction":"in","name":"message","queueName":"` + queue +
		`","connection":"Bus","cardinality":"one","dataType":"` + dataType + `"}]}`
}

// bus starts a namespace and a sender for its queue named by the function.
func bus(t *testing.T, q servicebus.Queue) (*servicebus.Namespace, *azservicebus.Sender) {
	t.Helper()
	ns, err := servicebus.Start(servicebus.Config{Queues: []servicebus.Queue{q}})
	if err != nil {
		t.Fatal(err)
	}
	client, err := azservicebus.NewClientFromConnectionString(ns.ConnectionString(), nil)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := client.NewSender(q.Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns, sender
}

func startBus(t *testing.T, ns *servicebus.Namespace, functions map[string]string, change func(*host.Config)) *host.Host {
	t.Helper()
	return start(t, functions, func(c *host.Config) {
		c.Settings = map[string]string{"Bus": ns.ConnectionString()}
		if change != nil {
			change(c)
		}
	})
}

func sendBody(t *testing.T, s *azservicebus.Sender, body, id string) {
	t.Helper()
	if err := s.SendMessage(t.Context(), &azservicebus.Message{Body: []byte(body), MessageID: &id}, nil); err != nil {
		t.Fatal(err)
	}
}

func empty(d servicebus.Depth) bool { return d.Active+d.Locked+d.Scheduled+d.Deferred == 0 }

func TestDeliveredMessageIsCompleted(t *testing.T) {
	ns, sender := bus(t, servicebus.Queue{Name: "events"})
	h := startBus(t, ns, map[string]string{"ok": busJSON("events", "string")}, nil)
	sendBody(t, sender, `{"leg":"7","MessageId":"forged"}`, "real")
	eventually(t, "queue empty", func() bool { return len(h.Invocations()) == 1 && empty(ns.Depth("events")) })
	if d := ns.Depth("events"); d.DeadLettered != 0 {
		t.Errorf("depth %+v", d)
	}
	c := inspect(t, h, "/ok")[0]
	for _, want := range []string{`"Data":{"message":"\"{\\\"leg\\\":\\\"7\\\",\\\"MessageId\\\":\\\"forged\\\"}\""}`,
		`"DeliveryCount":"1"`, `"MessageId":"\"forged\""`, `"leg":"\"7\""`, `"SequenceNumber":"1"`, `+00:00"`} {
		if !strings.Contains(c.Body, want) {
			t.Errorf("envelope %s lacks %s", c.Body, want)
		}
	}
}

func TestBinaryMessageSpillsNothing(t *testing.T) {
	ns, sender := bus(t, servicebus.Queue{Name: "events"})
	h := startBus(t, ns, map[string]string{"ok": busJSON("events", "binary")}, nil)
	sendBody(t, sender, `{"MessageId":"forged"}`, "real")
	eventually(t, "one invocation", func() bool { return len(h.Invocations()) == 1 })
	c := inspect(t, h, "/ok")[0]
	if !strings.Contains(c.Body, `"Data":{"message":"eyJNZXNzYWdlSWQiOiJmb3JnZWQifQ=="}`) || !strings.Contains(c.Body, `"MessageId":"\"real\""`) {
		t.Errorf("envelope %s", c.Body)
	}
}

func TestFailedMessageIsDeliveredAgain(t *testing.T) {
	ns, sender := bus(t, servicebus.Queue{Name: "events"})
	h := startBus(t, ns, map[string]string{"once": busJSON("events", "binary")}, nil)
	sendBody(t, sender, "x", "1")
	eventually(t, "queue empty", func() bool { return len(h.Invocations()) == 2 && empty(ns.Depth("events")) })
	if calls := inspect(t, h, "/once"); len(calls) != 2 || !strings.Contains(calls[1].Body, `"DeliveryCount":"2"`) {
		t.Errorf("calls %+v", calls)
	}
}

func TestMessageThatAlwaysFailsIsDeadLettered(t *testing.T) {
	ns, sender := bus(t, servicebus.Queue{Name: "events", MaxDeliveryCount: 3})
	h := startBus(t, ns, map[string]string{"fail": busJSON("events", "binary")}, nil)
	sendBody(t, sender, "x", "1")
	eventually(t, "dead-lettered", func() bool { return ns.Depth("events").DeadLettered == 1 })
	if n := len(h.Invocations()); n != 3 {
		t.Errorf("%d invocations, want 3", n)
	}
}

func TestKilledHandlerLosesNoMessage(t *testing.T) {
	ns, sender := bus(t, servicebus.Queue{Name: "events", MaxDeliveryCount: 100})
	h := startBus(t, ns, map[string]string{"pause": busJSON("events", "binary")}, func(c *host.Config) { c.MaxHandlerErrors = -1 })
	for i := range 12 {
		sendBody(t, sender, "x", fmt.Sprint(i))
	}
	for range 4 {
		eventually(t, "invocation under way", func() bool { return h.InFlight() > 0 })
		h.KillHandler()
	}
	eventually(t, "queue empty", func() bool { return empty(ns.Depth("events")) })
	done := 0
	for _, i := range h.Invocations() {
		if i.OK() {
			done++
		}
	}
	if d := ns.Depth("events"); done != 12 || d.DeadLettered != 0 {
		t.Errorf("%d of 12 done, depth %+v", done, d)
	}
}

func TestLockIsRenewedWhileTheFunctionRuns(t *testing.T) {
	ns, sender := bus(t, servicebus.Queue{Name: "events", LockDuration: 200 * time.Millisecond})
	h := startBus(t, ns, map[string]string{"pause": busJSON("events", "binary")}, nil)
	sendBody(t, sender, "x", "1")
	eventually(t, "queue empty", func() bool { return len(h.Invocations()) > 0 && empty(ns.Depth("events")) })
	if inv := h.Invocations(); len(inv) != 1 {
		t.Errorf("invocations %+v", inv)
	}
}

func TestNoMoreCallsRunThanHostJSONAllows(t *testing.T) {
	ns, sender := bus(t, servicebus.Queue{Name: "events"})
	h := startBus(t, ns, map[string]string{"pause": busJSON("events", "binary")}, nil)
	for i := range 10 {
		sendBody(t, sender, "x", fmt.Sprint(i))
	}
	most := 0
	eventually(t, "queue empty", func() bool {
		most = max(most, h.InFlight())
		return len(h.Invocations()) == 10 && empty(ns.Depth("events"))
	})
	if most < 2 || most > 4 {
		t.Errorf("at most %d ran at once, want up to 4", most)
	}
}

func TestListenerComesBackAfterItsConnectionBroke(t *testing.T) {
	ns, sender := bus(t, servicebus.Queue{Name: "events"})
	h := startBus(t, ns, map[string]string{"ok": busJSON("events", "binary")}, nil)
	sendBody(t, sender, "x", "1")
	eventually(t, "first message", func() bool { return len(h.Invocations()) == 1 && empty(ns.Depth("events")) })
	ns.DropConnections()
	sendBody(t, sender, "x", "2")
	eventually(t, "second message", func() bool { return len(h.Invocations()) >= 2 && empty(ns.Depth("events")) })
}

func TestDrainSettlesWhatRuns(t *testing.T) {
	ns, sender := bus(t, servicebus.Queue{Name: "events"})
	h := startBus(t, ns, map[string]string{"pause": busJSON("events", "binary")}, nil)
	sendBody(t, sender, "x", "1")
	eventually(t, "invocation under way", func() bool { return h.InFlight() == 1 })
	if err := h.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if d := ns.Depth("events"); !empty(d) || d.DeadLettered != 0 {
		t.Errorf("depth %+v", d)
	}
}
