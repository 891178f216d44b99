package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/tests/sim"
	"steno/tests/world"
)

// TestVersionsBetweenTwoExportsComeByNotificationThoughTheHandlerIsKilled: Graph sends again
// what nobody took.
func TestVersionsBetweenTwoExportsComeByNotificationThoughTheHandlerIsKilled(t *testing.T) {
	w, log := start(t, world.Config{Deaths: true, Sim: sim.Config{Seed: 11, People: 30, Messages: 150}})
	runTimer(t, w, "groupsync")
	runTimer(t, w, "subscriptions")
	if n := len(w.Tenant.Subscriptions()); n != len(w.Tenant.UsersIn(sim.RecordedEquities))+len(w.Tenant.UsersIn(sim.RecordedRates)) {
		t.Errorf("%d subscriptions stand; want one for each recorded user", n)
	}
	for _, kind := range sim.NotificationFaults() {
		w.Tenant.Faults().Chance(kind, 0.05)
	}
	recorded := append(w.Tenant.UsersIn(sim.RecordedEquities), w.Tenant.UsersIn(sim.RecordedRates)...)
	first := func(with bool) sim.Thread {
		for _, th := range w.Tenant.Threads() {
			has := slices.ContainsFunc(th.Members, func(p sim.PersonID) bool { return slices.Contains(recorded, p) })
			if !th.Kind.IsChannel() && len(th.Members) > 0 && has == with {
				return th
			}
		}
		t.Fatalf("there is no chat with=%t", with)
		return sim.Thread{}
	}
	in, out := first(true), first(false)
	var cost int64
	for round := range 3 {
		for i := range 8 {
			m, err := w.Tenant.Send(in.ID, in.Members[0], fmt.Sprintf("<p>first words %d-%d</p>", round, i))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Tenant.Edit(m.Thread, m.ID, "<p>second thoughts</p>"); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Tenant.Send(out.ID, out.Members[0], "<p>canary-of-strangers</p>"); err != nil {
				t.Fatal(err)
			}
			if i == 3 {
				w.Host.KillHandler()
			}
		}
		if err := w.Host.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := operations(w)
		if err := w.Hear(t.Context()); err != nil {
			t.Fatal(err)
		}
		cost += operations(w) - before
	}
	r := w.Compare(contents(t, w), nil) // no export has run: notifications alone brought it
	t.Logf("%d storage operations for %d versions that up to %d custodians have: %.2f a version", cost, r.Notified, len(recorded), float64(cost)/float64(max(r.Notified, 1)))
	if r.Notified < 30 || r.Missing+r.Duplicates+r.Altered+r.OutOfScope+r.Orphans+r.Promised != 0 {
		t.Errorf("archive and tenant differ: %+v", r)
	}
	a, err := w.Archive()
	if err != nil {
		t.Fatal(err)
	}
	err = a.Blobs(t.Context(), func(name string, content []byte) {
		if strings.Contains(string(content), "canary") {
			t.Errorf("blob %s shows a text", name)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "canary-of-strangers") || strings.Contains(log.String(), "second thoughts") {
		t.Error("a text is in the log")
	}
}

// TestTheWebhookOfTheBuiltAppEchoesPlainTextAndTakesNothingForged, through the host and from
// outside.
func TestTheWebhookOfTheBuiltAppEchoesPlainTextAndTakesNothingForged(t *testing.T) {
	w, _ := start(t, world.Config{Sim: sim.Config{Seed: 12, People: 12, Messages: 20}})
	runTimer(t, w, "groupsync")
	runTimer(t, w, "subscriptions")
	hook := w.Origin + "/steno/notifications"
	token, err := w.Tenant.ValidationToken(world.App, nil)
	if err != nil {
		t.Fatal(err)
	}
	item := `{"value":[{"subscriptionId":"` + w.Tenant.Subscriptions()[0] + `","clientState":"guess","tenantId":"` + w.Tenant.ID() +
		`","changeType":"created","resource":"chats('c')/messages('1')","encryptedContent":{}}]`
	for name, c := range map[string]struct {
		method, url, body string
		status            int
		answer            string
	}{
		"handshake":              {"POST", hook + "?validationToken=" + url.QueryEscape("<script>1</script>"), "", 200, "<script>1</script>"},
		"handshake of lifecycle": {"POST", hook + "/lifecycle?validationToken=abc", "", 200, "abc"},
		"handshake of 5 kB":      {"POST", hook + "?validationToken=" + strings.Repeat("x", 5000), "", 401, "refused\n"},
		"no token":               {"POST", hook, item + "}", 401, "refused\n"},
		"a good token alone":     {"POST", hook, item + `,"validationTokens":["` + token + `"]}`, 401, "refused\n"},
		"a forged event":         {"POST", hook + "/lifecycle", strings.Replace(item, `"changeType"`, `"lifecycleEvent":"missed","changeType"`, 1) + "}", 401, "refused\n"},
		"5 MiB":                  {"POST", hook, strings.Repeat("x", 5<<20), 413, ""},
		"reading":                {"GET", hook + "?validationToken=abc", "", 0, ""}, // whoever answers, it is no success
	} {
		status, kind, answer := call(t, w.CA.Client(), c.method, c.url, c.body)
		if c.answer != "" && answer != c.answer || c.answer == "" && strings.Contains(answer, "abc") || strings.Contains(kind, "html") {
			t.Errorf("%s: answered %d %s %q", name, status, kind, answer)
		}
		if c.status != 0 && status != c.status || c.status == 0 && status < 400 {
			t.Errorf("%s: answered %d, want %d", name, status, c.status)
		}
	}
	if d := w.Bus.Depth(world.Notifications); d.Active+d.Locked+d.Scheduled != 0 {
		t.Errorf("something forged is on the queue: %+v", d)
	}
}

// operations is how many requests storage has served.
func operations(w *world.World) (n int64) {
	for _, ops := range w.Storage.Operations() {
		n += ops
	}
	return n
}

func call(t *testing.T, c *http.Client, method, address, body string) (status int, kind, answer string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header.Get("Content-Type"), string(b)
}
