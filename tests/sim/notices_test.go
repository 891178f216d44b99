package sim

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// listener is an application's webhook.
type listener struct {
	mu      sync.Mutex
	refuse  int // how many deliveries are answered 503
	ids     []string
	changes []string
	echo    string // in place of the token
}

func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := r.URL.Query().Get("validationToken"); t != "" {
		if l.echo != "" {
			t = l.echo
		}
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, t)
		return
	}
	if l.refuse > 0 {
		l.refuse--
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var d struct {
		Value []struct {
			ChangeType, LifecycleEvent string
			ResourceData               struct{ ID string }
		}
		ValidationTokens []string
	}
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, v := range d.Value {
		l.ids = append(l.ids, v.ResourceData.ID)
		l.changes = append(l.changes, v.ChangeType+v.LifecycleEvent)
	}
	w.WriteHeader(http.StatusAccepted)
}

type noticeRig struct {
	t      *testing.T
	tenant *Tenant
	hook   *listener
	url    string
	graph  *httptest.Server
}

var certificate = sync.OnceValues(func() (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", err
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	return base64.StdEncoding.EncodeToString(der), err
})

func newNoticeRig(t *testing.T) *noticeRig {
	t.Helper()
	r := &noticeRig{t: t, hook: &listener{}}
	h := httptest.NewTLSServer(r.hook)
	r.url = h.URL
	r.tenant = New(Config{Seed: 3, Messages: 20, NotifyClient: h.Client()})
	r.graph = httptest.NewServer(r.tenant.Handler())
	t.Cleanup(h.Close)
	t.Cleanup(r.graph.Close)
	return r
}

// body is a good request; change may spoil it.
func (r *noticeRig) body(change func(map[string]any)) map[string]any {
	r.t.Helper()
	cert, err := certificate()
	if err != nil {
		r.t.Fatal(err)
	}
	b := map[string]any{
		"changeType": "created,updated,deleted", "resource": "/chats/getAllMessages", "notificationUrl": r.url + "/n", "lifecycleNotificationUrl": r.url + "/l",
		"clientState": "secret", "includeResourceData": true, "encryptionCertificate": cert, "encryptionCertificateId": "c1",
		"expirationDateTime": time.Now().Add(longestLife - time.Minute).UTC().Format(time.RFC3339Nano),
	}
	if change != nil {
		change(b)
	}
	return b
}

func (r *noticeRig) call(method, path string, body map[string]any) (int, map[string]any) {
	r.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.graph.URL+"/v1.0/subscriptions"+path, bytes.NewReader(b))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer x")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	var out map[string]any
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil && res.StatusCode != http.StatusNoContent {
		r.t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, out
}

func TestSubscriptionsFollowGraphsRules(t *testing.T) {
	r := newNoticeRig(t)
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339Nano) }
	for name, c := range map[string]struct {
		status int
		change func(b map[string]any)
	}{
		"more than three days":                  {400, func(b map[string]any) { b["expirationDateTime"] = in(longestLife + time.Minute) }},
		"a time that has passed":                {400, func(b map[string]any) { b["expirationDateTime"] = in(-time.Minute) }},
		"two hours without a lifecycle address": {400, func(b map[string]any) { delete(b, "lifecycleNotificationUrl") }},
		"no certificate":                        {400, func(b map[string]any) { delete(b, "encryptionCertificate") }},
		"a certificate without id":              {400, func(b map[string]any) { delete(b, "encryptionCertificateId") }},
		"a state of 129 characters":             {400, func(b map[string]any) { b["clientState"] = strings.Repeat("x", 129) }},
		"an address that is not https":          {400, func(b map[string]any) { b["notificationUrl"] = "http://x" }},
		"a change that there is not":            {400, func(b map[string]any) { b["changeType"] = "created,renamed" }},
		"a resource that there is not":          {400, func(b map[string]any) { b["resource"] = "/me/messages" }},
		"a person that there is not": {404, func(b map[string]any) {
			b["resource"] = "/users/11111111-1111-4111-8111-111111111111/chats/getAllMessages"
		}},
		"an address that does not want it": {400, func(map[string]any) { r.hook.echo = "other" }},
	} {
		if status, out := r.call("POST", "", r.body(c.change)); status != c.status {
			t.Errorf("%s: %d %v, want %d", name, status, out, c.status)
		}
		r.hook.echo = ""
	}
	status, out := r.call("POST", "", r.body(func(b map[string]any) { b["expirationDateTime"] = in(time.Minute) }))
	expires, err := time.Parse(time.RFC3339Nano, out["expirationDateTime"].(string))
	if status != 201 || err != nil || time.Until(expires) < 44*time.Minute {
		t.Errorf("a minute became %d %v", status, out)
	}
	if status, _ := r.call("POST", "", r.body(nil)); status != 409 {
		t.Errorf("the same again: %d", status)
	}
	id := "/" + out["id"].(string)
	if status, out := r.call("PATCH", id, map[string]any{"expirationDateTime": in(longestLife - time.Minute)}); status != 200 || out["clientState"] != nil {
		t.Errorf("renewed: %d %v", status, out)
	}
	if status, _ := r.call("PATCH", id, map[string]any{"expirationDateTime": in(longestLife + time.Minute)}); status != 400 {
		t.Errorf("renewed for too long: %d", status)
	}
	if _, out := r.call("GET", "", nil); len(out["value"].([]any)) != 1 {
		t.Errorf("listed %v", out)
	}
	for i, want := range []int{204, 404} {
		if status, _ := r.call("DELETE", id, nil); status != want {
			t.Errorf("ended %d times: %d", i+1, status)
		}
	}
	if status, _ := r.call("PATCH", id, map[string]any{"expirationDateTime": in(time.Hour)}); status != 404 {
		t.Errorf("renewed what is gone: %d", status)
	}
}

// notify lets the tenant send until nothing waits.
func (r *noticeRig) notify() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.tenant.Notify(ctx) }()
	for {
		if waiting, _ := r.tenant.Undelivered(); waiting == 0 || ctx.Err() != nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
}

func TestEachNewVersionIsNotifiedAndFaultsHappenAsAskedFor(t *testing.T) {
	r := newNoticeRig(t)
	if status, out := r.call("POST", "", r.body(nil)); status != 201 {
		t.Fatalf("%d %v", status, out)
	}
	th := r.tenant.Threads()[0]
	say := func(text string) Message {
		m, err := r.tenant.Send(th.ID, th.Members[0], text)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	r.hook.refuse = 2
	m := say("one")
	if _, err := r.tenant.Edit(m.Thread, m.ID, "two"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.tenant.Delete(m.Thread, m.ID); err != nil {
		t.Fatal(err)
	}
	r.notify()
	slices.Sort(r.hook.changes)
	if !slices.Equal(r.hook.changes, []string{"created", "deleted", "updated"}) {
		t.Errorf("notified %v after two refusals", r.hook.changes)
	}
	f := r.tenant.Faults()
	r.hook.ids = nil
	f.Next(NotificationLost, 1)
	lost := say("lost")
	f.Next(NotificationDoubled, 1)
	doubled := say("doubled")
	first := say("first")
	f.Next(NotificationReordered, 1)
	last := say("overtakes")
	r.notify()
	count := func(m Message) (n int) {
		for _, id := range r.hook.ids {
			if id == m.ID {
				n++
			}
		}
		return n
	}
	if count(lost) != 0 || count(doubled) != 2 || count(first) != 1 || count(last) != 1 || slices.Index(r.hook.ids, last.ID) > slices.Index(r.hook.ids, first.ID) {
		t.Errorf("notified %v", r.hook.ids)
	}
	for _, v := range r.tenant.History() {
		if v.MessageID == lost.ID && len(r.tenant.Notified(v)) != 0 || v.MessageID == first.ID && len(r.tenant.Notified(v)) != 1 {
			t.Errorf("on record as notified to %v", r.tenant.Notified(v))
		}
	}
}

func TestALifecycleEventGoesToItsOwnAddressAndMayEndTheSubscription(t *testing.T) {
	r := newNoticeRig(t)
	if status, _ := r.call("POST", "", r.body(nil)); status != 201 {
		t.Fatal(status)
	}
	id := r.tenant.Subscriptions()[0]
	r.tenant.Lifecycle(id, "reauthorizationRequired")
	r.tenant.Lifecycle(id, "subscriptionRemoved")
	r.notify()
	if !slices.Equal(r.hook.changes, []string{"reauthorizationRequired", "subscriptionRemoved"}) || len(r.tenant.Subscriptions()) != 0 {
		t.Errorf("sent %v, %d stand", r.hook.changes, len(r.tenant.Subscriptions()))
	}
}

// TestASlowEndpointIsDropped: without telling, which is what Graph does.
func TestASlowEndpointIsDropped(t *testing.T) {
	r := newNoticeRig(t)
	n := r.tenant.notices
	for i := range 2 * dropAfter {
		n.answers["a"] = append(n.answers["a"], answerTime{n.t.now(), i%5 == 0})
		n.answers["b"] = append(n.answers["b"], answerTime{n.t.now(), i%8 == 0})
		n.answers["c"] = append(n.answers["c"], answerTime{n.t.now().Add(-2 * dropWindow), true})
	}
	if !n.isDropped("a") || n.isDropped("b") || n.isDropped("c") || n.isDropped("new") {
		t.Error("dropped are not those of which more than 15 % of ten minutes' answers took more than ten seconds")
	}
}
