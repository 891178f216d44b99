package azure_test

import (
	"fmt"
	"testing"
	"time"

	"steno/shared/azure"
	"steno/tests/local/servicebus"
)

// TestAnInboxHandsOutManyMessagesAndKeepsThoseThatAreNotDone, at the real client library.
func TestAnInboxHandsOutManyMessagesAndKeepsThoseThatAreNotDone(t *testing.T) {
	n, c, q := startQueue(t)
	for i := range 5 {
		if err := q.Send(t.Context(), fmt.Sprint("m", i), fmt.Appendf(nil, "body %d", i), time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	in := azure.NewInbox(c, exports)
	seen := map[string]bool{}
	for len(seen) < 5 {
		got, err := in.Receive(t.Context(), 10, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			t.Fatalf("only %d messages came", len(seen))
		}
		for _, e := range got {
			seen[string(e.Body)] = true
			if string(e.Body) == "body 3" {
				continue // its holder dies
			}
			if err := e.Done(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	began := time.Now()
	if got, err := in.Receive(t.Context(), 10, 200*time.Millisecond); err != nil || len(got) != 0 || time.Since(began) > 5*time.Second {
		t.Errorf("an empty queue gave %d messages after %s, %v", len(got), time.Since(began), err)
	}
	for range 2 {
		if err := in.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if d := n.Depth(exports); d != (servicebus.Depth{Locked: 1}) && d != (servicebus.Depth{Active: 1}) {
		t.Errorf("depth is %+v, want the message that was not done", d)
	}
}
