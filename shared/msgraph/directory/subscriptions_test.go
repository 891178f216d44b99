package directory_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"steno/shared/msgraph/directory"
	"steno/shared/notification"
	"steno/shared/teams"
	"steno/tests/sim"
)

type token struct{}

func (token) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "x", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// webhook echoes the handshake and remembers who asked, and what was delivered.
type webhook struct {
	mu     sync.Mutex
	paths  []string
	bodies [][]byte
	deaf   bool
}

func (h *webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.deaf {
		http.Error(w, "no", http.StatusTeapot)
		return
	}
	if t := r.URL.Query().Get("validationToken"); t != "" {
		h.paths = append(h.paths, r.URL.Path)
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, t)
		return
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "unreadable", http.StatusBadRequest)
		return
	}
	h.bodies = append(h.bodies, b)
	w.WriteHeader(http.StatusAccepted)
}

func open(t *testing.T) (*sim.Tenant, *webhook, string, *directory.Directory) {
	t.Helper()
	hook := &webhook{}
	h := httptest.NewTLSServer(hook)
	t.Cleanup(h.Close)
	tenant := sim.New(sim.Config{Seed: 1, Messages: 30, NotifyClient: h.Client()})
	g := httptest.NewTLSServer(tenant.Handler())
	t.Cleanup(g.Close)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: g.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, MinVersion: tls.VersionTLS12}}}
	d, err := directory.New(g.URL+"/v1.0", token{}, client)
	if err != nil {
		t.Fatal(err)
	}
	return tenant, hook, h.URL, d
}

// TestASubscriptionLivesAsGraphSaysThroughTheRealSDK makes, lists, renews and ends one at a
// Graph that checks what it is sent, and reads a notification that came of it.
func TestASubscriptionLivesAsGraphSaysThroughTheRealSDK(t *testing.T) {
	tenant, hook, url, d := open(t)
	key, cert, err := notification.NewKeyPair("c1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	person := tenant.Threads()[0].Members[0]
	state, digest := notification.NewState()
	r := notification.Request{
		Resource: notification.Resource{Source: teams.Chats, Custodian: teams.PersonID(person)}, URL: url + "/n", LifecycleURL: url + "/n/lifecycle",
		State: state, Certificate: cert, Expires: time.Now().Add(notification.Lifetime),
	}
	id, expires, err := d.Subscribe(t.Context(), r)
	if err != nil || id == "" || time.Until(expires) < 70*time.Hour {
		t.Fatalf("%q, %s, %v", id, expires, err)
	}
	if len(hook.paths) != 2 || hook.paths[0] != "/n" || hook.paths[1] != "/n/lifecycle" {
		t.Errorf("asked whether they want it: %v", hook.paths)
	}
	if _, _, err := d.Subscribe(t.Context(), r); !errors.Is(err, notification.ErrTaken) {
		t.Errorf("a second one: %v", err)
	}
	list, err := d.Subscriptions(t.Context())
	if err != nil || len(list) != 1 || list[0] != (notification.Standing{ID: id, Path: r.Resource.Path(), URL: r.URL}) {
		t.Errorf("listed %+v, %v", list, err)
	}
	if until, err := d.Renew(t.Context(), id, time.Now().Add(time.Hour), cert); err != nil || time.Until(until) > time.Hour {
		t.Errorf("renewed until %s, %v", until, err)
	}
	n := hear(t, tenant, hook)
	if !(notification.Subscription{State: digest}).KnowsState(n.State) || n.Subscription != id {
		t.Errorf("notified %+v", n)
	}
	if _, err := n.Open(key); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := d.Unsubscribe(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if _, err := d.Renew(t.Context(), id, time.Now().Add(time.Hour), cert); !errors.Is(err, notification.ErrGone) {
		t.Errorf("renewed what is gone: %v", err)
	}
	hook.deaf = true
	if _, _, err := d.Subscribe(t.Context(), r); err == nil {
		t.Error("subscribed to an address that does not want it")
	}
}

// hear lets the tenant's first chat speak and returns the notification of it.
func hear(t *testing.T, tenant *sim.Tenant, hook *webhook) notification.Notice {
	t.Helper()
	th := tenant.Threads()[0]
	if _, err := tenant.Send(th.ID, th.Members[0], "<p>hello</p>"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- tenant.Notify(ctx) }()
	for {
		hook.mu.Lock()
		n := len(hook.bodies)
		hook.mu.Unlock()
		if n > 0 || ctx.Err() != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(hook.bodies) == 0 {
		t.Fatal("nothing was notified")
	}
	delivery, err := notification.ReadDelivery(hook.bodies[0])
	if err != nil || len(delivery.Tokens) != 1 {
		t.Fatalf("%v", err)
	}
	notices, err := delivery.Notices()
	if err != nil || len(notices) != 1 {
		t.Fatalf("%d notices, %v", len(notices), err)
	}
	return notices[0]
}
