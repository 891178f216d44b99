package host_test

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue"

	"steno/tests/local/azurite"
	"steno/tests/local/host"
)

const queueJSON = `{"bindings":[{"type":"queueTrigger","direction":"in","name":"item","queueName":"%QUEUE%"}]}`

// storage starts one Azurite for the subtests, which use a queue each.
func storage(t *testing.T) (connection string, service *azqueue.ServiceClient) {
	t.Helper()
	a, err := azurite.Start(t.Context(), azurite.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(); err != nil {
			t.Error(err)
		}
	})
	service, err = azqueue.NewServiceClientFromConnectionString(a.ConnectionString(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return a.ConnectionString(), service
}

// depth is the number of messages in a queue, hidden ones included, and -1 if there is no queue.
func depth(t *testing.T, q *azqueue.QueueClient) int32 {
	t.Helper()
	p, err := q.GetProperties(t.Context(), nil)
	if err != nil {
		return -1
	}
	return *p.ApproximateMessagesCount
}

func TestStorageQueue(t *testing.T) {
	connection, service := storage(t)
	begin := func(t *testing.T, queue, function, encoding string) (*host.Host, *azqueue.QueueClient) {
		t.Helper()
		q := service.NewQueueClient(queue)
		if _, err := q.Create(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		h := start(t, map[string]string{function: queueJSON}, func(c *host.Config) {
			c.Settings = map[string]string{"QUEUE": queue, "AzureWebJobsStorage": connection,
				"AzureFunctionsJobHost__extensions__queues__messageEncoding": encoding}
		})
		return h, q
	}
	put := func(t *testing.T, q *azqueue.QueueClient, text string) {
		t.Helper()
		if _, err := q.EnqueueMessage(t.Context(), text, nil); err != nil {
			t.Fatal(err)
		}
	}
	const body = `{"user":"<7> & co","Id":"forged"}`

	t.Run("DeliveredMessageIsDeleted", func(t *testing.T) {
		h, q := begin(t, "base64", "ok", "base64")
		put(t, q, base64.StdEncoding.EncodeToString([]byte(body)))
		eventually(t, "queue empty", func() bool { return len(h.Invocations()) == 1 && depth(t, q) == 0 })
		c := inspect(t, h, "/ok")[0]
		for _, want := range []string{`"Data":{"item":"\"{\\\"user\\\":\\\"<7> & co\\\",\\\"Id\\\":\\\"forged\\\"}\""}`, `"DequeueCount":"1"`,
			`"Id":"\"forged\""`, `"InsertionTime":"2`, `"PopReceipt":"\"`} {
			if !strings.Contains(c.Body, want) {
				t.Errorf("envelope %s lacks %s", c.Body, want)
			}
		}
	})
	t.Run("PlainTextIsDeliveredWithoutEncoding", func(t *testing.T) {
		h, q := begin(t, "plain", "ok", "none")
		put(t, q, body)
		eventually(t, "queue empty", func() bool { return len(h.Invocations()) == 1 && depth(t, q) == 0 })
	})
	t.Run("FailedMessageIsDeliveredAgain", func(t *testing.T) {
		h, q := begin(t, "once", "once", "none")
		put(t, q, body)
		eventually(t, "queue empty", func() bool { return len(h.Invocations()) == 2 && depth(t, q) == 0 })
		if calls := inspect(t, h, "/once"); len(calls) != 2 || !strings.Contains(calls[1].Body, `"DequeueCount":"2"`) {
			t.Errorf("calls %+v", calls)
		}
	})
	t.Run("MessageThatAlwaysFailsGoesToThePoisonQueue", func(t *testing.T) {
		h, q := begin(t, "fail", "fail", "none")
		put(t, q, body)
		poison := service.NewQueueClient("fail-poison")
		eventually(t, "poison queue filled", func() bool { return depth(t, poison) == 1 && depth(t, q) == 0 })
		m, err := poison.PeekMessage(context.WithoutCancel(t.Context()), nil)
		if err != nil || len(m.Messages) != 1 || *m.Messages[0].MessageText != body || len(h.Invocations()) != 2 {
			t.Errorf("poison %+v, %v, after %d invocations", m.Messages, err, len(h.Invocations()))
		}
	})
	t.Run("TextWhereBase64IsDueNeverReachesTheHandler", func(t *testing.T) {
		h, q := begin(t, "spoiled", "ok", "base64")
		put(t, q, body)
		eventually(t, "poison queue filled", func() bool { return depth(t, service.NewQueueClient("spoiled-poison")) == 1 })
		if n := len(h.Invocations()); n != 0 || len(h.Errors()) == 0 {
			t.Errorf("%d invocations, errors %q", n, h.Errors())
		}
	})
	t.Run("QueueThatAppearsLaterIsServed", func(t *testing.T) {
		h := start(t, map[string]string{"ok": queueJSON}, func(c *host.Config) {
			c.Settings = map[string]string{"QUEUE": "later", "AzureWebJobsStorage": connection, "AzureFunctionsJobHost__extensions__queues__messageEncoding": "none"}
		})
		q := service.NewQueueClient("later")
		if _, err := q.Create(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		put(t, q, body)
		eventually(t, "one invocation", func() bool { return len(h.Invocations()) == 1 })
	})
}
