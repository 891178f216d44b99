package notifications_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"steno/functions/notifications"
	"steno/shared/notification"
	"steno/shared/storetest"
	"steno/shared/teams"
	"steno/tests/sim"
)

const (
	app   = "a0000000-0000-4000-8000-000000000001"
	other = "22222222-2222-4222-8222-222222222222"
	base  = "/steno/notifications"
)

var errDown = errors.New("the store is down")

// outbox is the queue, which may be down.
type outbox struct {
	mu    sync.Mutex
	sent  [][]byte
	calls int
	dieAt int  // the call that fails; 0: none
	after bool // it fails after its effect
}

func (q *outbox) Send(_ context.Context, _ string, body []byte, _ time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls++
	if q.calls != q.dieAt || q.after {
		q.sent = append(q.sent, body)
	}
	if q.calls == q.dieAt {
		return errDown
	}
	return nil
}

// rig is a webhook and the Graph that signs for it.
type rig struct {
	t        *testing.T
	graph    *sim.Tenant
	register *storetest.Subscriptions
	queue    *outbox
	blobs    *storetest.Blobs
	log      bytes.Buffer
	hook     http.Handler
	state    string
	max      int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, graph: sim.New(sim.Config{Seed: 1, Messages: -1}), register: &storetest.Subscriptions{}, queue: &outbox{}, blobs: &storetest.Blobs{}, max: 8000}
	keys := httptest.NewServer(r.graph.Handler())
	t.Cleanup(keys.Close)
	state, digest := notification.NewState()
	r.state = state
	r.ok(r.register.Save(t.Context(), notification.Subscription{ID: "sub", State: digest, Certificate: "cert", Expires: time.Now().Add(time.Hour)}))
	r.ok(r.register.SaveCertificate(t.Context(), notification.Certificate{ID: "cert"}))
	r.start(keys.URL + sim.NotificationKeysPath)
	return r
}

func (r *rig) start(keys string) {
	r.t.Helper()
	hook, err := notifications.New(notifications.Config{
		Tenant: teams.TenantID(r.graph.ID()), Base: base, Audience: app, KeysURL: keys, MaxMessage: r.max,
	}, r.register, r.queue, r.blobs, slog.New(slog.NewTextHandler(&r.log, nil)))
	r.ok(err)
	r.hook = hook
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// item is a notification as Graph sends it. Its content is never opened here.
func (r *rig) item(n int) map[string]any {
	return map[string]any{
		"subscriptionId": "sub", "clientState": r.state, "tenantId": r.graph.ID(), "changeType": "created",
		"resource": fmt.Sprintf("chats('19:canary-thread@thread.v2')/messages('%d')", n), "resourceData": map[string]any{"id": fmt.Sprint(n)},
		"encryptedContent": map[string]any{"data": "Y2FuYXJ5LWNpcGhlcnRleHQ=", "dataSignature": "eA==", "dataKey": "eA==", "encryptionCertificateId": "cert"},
	}
}

func (r *rig) token(change func(map[string]any)) string {
	r.t.Helper()
	token, err := r.graph.ValidationToken(app, change)
	r.ok(err)
	return token
}

func (r *rig) post(path string, body any) *httptest.ResponseRecorder {
	r.t.Helper()
	b, raw := body.([]byte)
	if !raw {
		var err error
		b, err = json.Marshal(body)
		r.ok(err)
	}
	req := httptest.NewRequestWithContext(r.t.Context(), http.MethodPost, path, bytes.NewReader(b))
	w := httptest.NewRecorder()
	r.hook.ServeHTTP(w, req)
	return w
}

func delivery(tokens any, items ...map[string]any) map[string]any {
	d := map[string]any{"value": items}
	if tokens != nil {
		d["validationTokens"] = tokens
	}
	return d
}

// queued are the items that lie on the queue or in blobs, by resource.
func (r *rig) queued() map[string]int {
	r.t.Helper()
	out := map[string]int{}
	for _, b := range r.queue.sent {
		p, err := notification.DecodeParcel(b)
		r.ok(err)
		if p.Claim != "" {
			size, err := r.blobs.Size(r.t.Context(), notification.ClaimName(p.Claim))
			r.ok(err)
			body, err := r.blobs.ReadAt(r.t.Context(), notification.ClaimName(p.Claim), 0, size)
			r.ok(err)
			p, err = notification.DecodeParcel(body)
			r.ok(err)
		}
		for _, i := range p.Items {
			out[i.Resource]++
		}
	}
	return out
}

// refused demands the one answer to everything that is refused, and that nothing came of it.
func (r *rig) refused(what string, w *httptest.ResponseRecorder) {
	r.t.Helper()
	if w.Code != http.StatusUnauthorized || w.Body.String() != "refused\n" {
		r.t.Errorf("%s: answered %d %q", what, w.Code, w.Body)
	}
	if len(r.queue.sent) != 0 || len(r.blobs.Names()) != 0 {
		r.t.Errorf("%s: something was queued", what)
		r.queue.sent = nil
	}
}

func TestADeliveryOfGraphIsOnTheQueueWhenItIsAnswered(t *testing.T) {
	r := newRig(t)
	for range 2 { // tokens of version 1.0 and 2.0 come by turns
		if w := r.post(base, delivery([]string{r.token(nil)}, r.item(1), r.item(2))); w.Code != http.StatusAccepted {
			t.Fatalf("answered %d: %s", w.Code, r.log.String())
		}
	}
	if got := r.queued(); len(got) != 2 || got[r.item(1)["resource"].(string)] != 2 {
		t.Errorf("queued %v", got)
	}
}

func TestALargeNotificationIsClaimedFromABlobAndAManyFoldDeliverySplit(t *testing.T) {
	r := newRig(t)
	large := r.item(0)
	large["encryptedContent"].(map[string]any)["data"] = strings.Repeat("eHh4", 10_000)
	items := []map[string]any{large}
	for i := range 100 {
		items = append(items, r.item(i+1))
	}
	if w := r.post(base, delivery([]string{r.token(nil)}, items...)); w.Code != http.StatusAccepted {
		t.Fatalf("answered %d: %s", w.Code, r.log.String())
	}
	if got := r.queued(); len(got) != 101 || len(r.blobs.Names()) != 1 {
		t.Errorf("%d items queued, %d of them in blobs", len(got), len(r.blobs.Names()))
	}
	for _, b := range r.queue.sent {
		if len(b) > r.max {
			t.Errorf("a message of %d bytes", len(b))
		}
	}
}

// TestADeliveryWithoutGoodTokensIsRefusedWhole is T18.
func TestADeliveryWithoutGoodTokensIsRefusedWhole(t *testing.T) {
	r := newRig(t)
	good := r.token(nil)
	stranger := sim.New(sim.Config{Seed: 1, Messages: -1})
	forged, err := stranger.ValidationToken(app, nil)
	r.ok(err)
	parts := strings.Split(good, ".")
	for name, tokens := range map[string]any{
		"none":                      nil,
		"null":                      json.RawMessage("null"),
		"empty":                     []string{},
		"one bad among three":       []string{good, "bad", good},
		"an empty one":              []string{""},
		"signed by another":         []string{forged},
		"unsigned":                  []string{parts[0] + "." + parts[1] + "."},
		"alg none":                  []string{"eyJhbGciOiJub25lIn0." + parts[1] + "."},
		"expired":                   []string{r.token(func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() })},
		"without expiry":            []string{r.token(func(c map[string]any) { delete(c, "exp") })},
		"not valid yet":             []string{r.token(func(c map[string]any) { c["nbf"] = time.Now().Add(time.Hour).Unix() })},
		"more than twenty":          slices.Repeat([]string{good}, notification.MaxTokens+1),
		"one of more than 16 KiB":   []string{good + strings.Repeat("x", 16<<10)},
		"good ones in another name": nil,
	} {
		d := delivery(tokens, r.item(1))
		if name == "good ones in another name" {
			d["ValidationTokens"] = []string{good}
		}
		r.refused(name, r.post(base, d))
	}
}

// TestATokenThatGraphDidNotGetForUsIsRefused is T19: any application of Entra can get a token
// with our audience.
func TestATokenThatGraphDidNotGetForUsIsRefused(t *testing.T) {
	r := newRig(t)
	changes := map[string]func(c map[string]any){
		"another publisher": func(c map[string]any) {
			for _, n := range []string{"appid", "azp"} {
				if c[n] != nil {
					c[n] = app
				}
			}
		},
		"no publisher": func(c map[string]any) { delete(c, "appid"); delete(c, "azp") },
		"the publisher under both names": func(c map[string]any) {
			c["appid"], c["azp"] = "0bf30f3b-4a52-48df-9a82-234910c4a086", "0bf30f3b-4a52-48df-9a82-234910c4a086"
		},
		"another audience":                 func(c map[string]any) { c["aud"] = other },
		"two audiences":                    func(c map[string]any) { c["aud"] = []string{app, other} },
		"another tenant":                   func(c map[string]any) { c["tid"] = other },
		"the issuer of another tenant":     func(c map[string]any) { c["iss"] = strings.Replace(c["iss"].(string), c["tid"].(string), other, 1) },
		"an issuer with ours in its path":  func(c map[string]any) { c["iss"] = "https://evil.example/" + c["tid"].(string) + "/" },
		"the version that the other names": func(c map[string]any) { c["ver"] = map[any]string{"1.0": "2.0", "2.0": "1.0"}[c["ver"]] },
		"no version":                       func(c map[string]any) { delete(c, "ver") },
	}
	for name, change := range changes {
		for range 2 { // version 1.0 and 2.0
			r.refused(name, r.post(base, delivery([]string{r.token(change)}, r.item(1))))
		}
	}
}

// TestAnItemThatIsNotOfOurSubscriptionsIsRefusedWithItsDelivery is T20 as far as the webhook
// goes, and the part of T21 that is about tenants.
func TestAnItemThatIsNotOfOurSubscriptionsIsRefusedWithItsDelivery(t *testing.T) {
	r := newRig(t)
	for name, change := range map[string]func(i map[string]any){
		"another clientState":             func(i map[string]any) { i["clientState"] = r.state + "x" },
		"no clientState":                  func(i map[string]any) { delete(i, "clientState") },
		"null for clientState":            func(i map[string]any) { i["clientState"] = nil },
		"an unknown subscription":         func(i map[string]any) { i["subscriptionId"] = "another" },
		"a tenant that no token is for":   func(i map[string]any) { i["tenantId"] = other },
		"no tenant":                       func(i map[string]any) { delete(i, "tenantId") },
		"an unknown certificate":          func(i map[string]any) { i["encryptedContent"].(map[string]any)["encryptionCertificateId"] = "old" },
		"no content":                      func(i map[string]any) { delete(i, "encryptedContent") },
		"content that is not an object":   func(i map[string]any) { i["encryptedContent"] = "x" },
		"a lifecycle event among changes": func(i map[string]any) { i["lifecycleEvent"] = "missed" },
	} {
		bad := r.item(2)
		change(bad)
		r.refused(name, r.post(base, delivery([]string{r.token(nil)}, r.item(1), bad, r.item(3))))
	}
	for name, body := range map[string][]byte{"nothing": nil, "not JSON": []byte("x"), "an array": []byte("[]")} {
		r.refused(name, r.post(base, body))
	}
}

// TestTheHandshakeEchoesPlainTextAndNothingElse is T23.
func TestTheHandshakeEchoesPlainTextAndNothingElse(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{base, base + "/", base + "/lifecycle"} {
		for _, token := range []string{"Validation: Testing client application reachability for subscription Request-Id: 1", "<script>alert(1)</script>", strings.Repeat("x", notifications.MaxHandshake)} {
			w := r.post(path+"?validationToken="+url.QueryEscape(token), []byte(nil))
			h := w.Header()
			if w.Code != http.StatusOK || w.Body.String() != token {
				t.Errorf("%s: %.40s: answered %d %.40q", path, token, w.Code, w.Body)
			}
			if h.Get("Content-Type") != "text/plain; charset=utf-8" || h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
				t.Errorf("%s: headers %v", path, h)
			}
		}
	}
	for name, query := range map[string]string{
		"1 MiB":            "validationToken=" + strings.Repeat("x", 1<<20),
		"4 KiB and a byte": "validationToken=" + strings.Repeat("x", notifications.MaxHandshake+1),
		"a line end":       "validationToken=a%0d%0aSet-Cookie:x",
		"a byte beyond":    "validationToken=%c3%a9",
		"empty":            "validationToken=",
		"twice":            "validationToken=a&validationToken=b",
		"with more":        "validationToken=a&x=y",
		"unreadable":       "validationToken=%zz",
	} {
		r.refused(name, r.post(base+"?"+query, []byte(nil)))
	}
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodOptions} {
		w := httptest.NewRecorder()
		r.hook.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, base+"?validationToken=x", nil))
		if w.Code != http.StatusUnauthorized || strings.Contains(w.Body.String(), "x") {
			t.Errorf("%s: answered %d %q", method, w.Code, w.Body)
		}
	}
	r.refused("another path", r.post(base+"/other?validationToken=x", []byte(nil)))
	if subs, err := r.register.Subscriptions(t.Context()); err != nil || !subs[0].Asked.IsZero() {
		t.Errorf("a handshake had an effect: %+v, %v", subs, err)
	}
}

// TestALifecycleEventMarksItsSubscriptionAndNothingElse: it has no token, so nothing is
// believed of it but that somebody should look.
func TestALifecycleEventMarksItsSubscriptionAndNothingElse(t *testing.T) {
	r := newRig(t)
	event := func(kind string) map[string]any {
		return map[string]any{"subscriptionId": "sub", "clientState": r.state, "tenantId": r.graph.ID(), "lifecycleEvent": kind}
	}
	wrong := event("missed")
	wrong["clientState"] = "guess"
	r.refused("another clientState", r.post(base+"/lifecycle", delivery(nil, event("missed"), wrong)))
	for _, kind := range []string{"reauthorizationRequired", "subscriptionRemoved", "missed", "somethingNew"} {
		if w := r.post(base+"/lifecycle", delivery(nil, event(kind))); w.Code != http.StatusAccepted {
			t.Errorf("%s: answered %d", kind, w.Code)
		}
	}
	subs, err := r.register.Subscriptions(t.Context())
	if err != nil || len(subs) != 1 || time.Since(subs[0].Asked) > time.Minute || len(r.queue.sent) != 0 {
		t.Errorf("%+v, %v, %d queued", subs, err, len(r.queue.sent))
	}
}

// TestASubscriptionThatWasJustMadeIsKnownAtOnce: Graph notifies of it before the minute is over.
func TestASubscriptionThatWasJustMadeIsKnownAtOnce(t *testing.T) {
	r := newRig(t)
	r.post(base, delivery([]string{r.token(nil)}, r.item(1))) // the register is remembered now
	state, digest := notification.NewState()
	r.ok(r.register.Save(t.Context(), notification.Subscription{ID: "new", State: digest, Certificate: "cert"}))
	next := r.item(2)
	next["subscriptionId"], next["clientState"] = "new", state
	deadline := time.Now().Add(5 * time.Second)
	for r.post(base, delivery([]string{r.token(nil)}, next)).Code != http.StatusAccepted {
		if time.Now().After(deadline) {
			t.Fatal("a subscription made after the register was read is never known")
		}
		time.Sleep(100 * time.Millisecond) // Graph tries again later, too
	}
}

// away is a register that does not answer while it is down.
type away struct {
	notification.Register
	down bool
}

func (a *away) Subscriptions(ctx context.Context) ([]notification.Subscription, error) {
	if a.down {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return a.Register.Subscriptions(ctx)
}

// inProcess is a Graph that is asked without a network.
type inProcess struct{ http.Handler }

func (g inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w.Result(), nil
}

// TestWhileTheRegisterIsAwayWhatIsKnownIsTakenAndEveryAnswerComesInTime: Graph drops what is
// sent to an endpoint that does not answer, and tells nobody.
func TestWhileTheRegisterIsAwayWhatIsKnownIsTakenAndEveryAnswerComesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		graph := sim.New(sim.Config{Seed: 1, Messages: -1})
		r := &rig{t: t, graph: graph, register: &storetest.Subscriptions{}, queue: &outbox{}, blobs: &storetest.Blobs{}, max: 8000}
		state, digest := notification.NewState()
		r.state = state
		r.ok(r.register.Save(t.Context(), notification.Subscription{ID: "sub", State: digest}))
		r.ok(r.register.SaveCertificate(t.Context(), notification.Certificate{ID: "cert"}))
		register := &away{Register: r.register}
		hook, err := notifications.New(notifications.Config{
			Tenant: teams.TenantID(graph.ID()), Base: base, Audience: app, MaxMessage: r.max,
			KeysURL: "https://graph.example" + sim.NotificationKeysPath, HTTP: &http.Client{Transport: inProcess{graph.Handler()}},
		}, register, r.queue, r.blobs, slog.New(slog.DiscardHandler))
		r.ok(err)
		r.hook = hook
		if w := r.post(base, delivery([]string{r.token(nil)}, r.item(1))); w.Code != http.StatusAccepted {
			t.Fatalf("answered %d", w.Code)
		}
		register.down = true
		time.Sleep(time.Hour) // what was read is old now
		unknown := r.item(2)
		unknown["subscriptionId"] = "new"
		for name, c := range map[string]struct {
			item map[string]any
			want int
		}{"a known one": {r.item(1), http.StatusAccepted}, "an unknown one": {unknown, http.StatusServiceUnavailable}} {
			time.Sleep(time.Minute)
			began := time.Now()
			w := r.post(base, delivery([]string{r.token(nil)}, c.item))
			if took := time.Since(began); w.Code != c.want || took > 3*time.Second {
				t.Errorf("%s: answered %d after %s", name, w.Code, took)
			}
		}
	})
}

// TestDyingAtAnyStepOfADeliveryLosesNoItem kills the process at every call to a store, before
// and after its effect; Graph, which got no 202, sends the delivery again.
func TestDyingAtAnyStepOfADeliveryLosesNoItem(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; n < 20; n++ {
			r := newRig(t)
			r.queue.dieAt, r.queue.after = n, after
			var items []map[string]any
			for i := range 80 {
				items = append(items, r.item(i))
			}
			d := delivery([]string{r.token(nil)}, items...)
			w := r.post(base, d)
			if r.queue.calls < n {
				if n < 4 {
					t.Fatalf("a delivery makes only %d calls; the test reaches nothing", r.queue.calls)
				}
				break
			}
			if w.Code < 500 {
				t.Fatalf("step %d, after=%t: answered %d to what is not all queued", n, after, w.Code)
			}
			if w := r.post(base, d); w.Code != http.StatusAccepted {
				t.Fatalf("step %d, after=%t: second time answered %d", n, after, w.Code)
			}
			if got := r.queued(); len(got) != len(items) {
				t.Fatalf("step %d, after=%t: %d items queued, want %d", n, after, len(got), len(items))
			}
		}
	}
}

func TestWithoutALaneEverythingIsRefused(t *testing.T) {
	r := newRig(t)
	hook, err := notifications.New(notifications.Config{Tenant: teams.TenantID(r.graph.ID()), Base: base, KeysURL: "https://keys.example", MaxMessage: 100}, r.register, r.queue, r.blobs, slog.New(slog.DiscardHandler))
	r.ok(err)
	r.hook = hook
	r.refused("handshake", r.post(base+"?validationToken=x", []byte(nil)))
	r.refused("delivery", r.post(base, delivery([]string{r.token(nil)}, r.item(1))))
}

// TestNothingOfADeliveryIsLogged is T54 for this door.
func TestNothingOfADeliveryIsLogged(t *testing.T) {
	r := newRig(t)
	token := r.token(nil)
	bad := r.item(2)
	bad["clientState"] = "canary-state"
	r.post(base, delivery([]string{token}, r.item(1)))
	r.post(base, delivery([]string{token}, bad))
	r.post(base, delivery([]string{token + "x"}, r.item(1)))
	r.queue.dieAt = r.queue.calls + 1
	r.post(base, delivery([]string{token}, r.item(1)))
	if r.log.Len() == 0 {
		t.Fatal("nothing is logged at all; the test reaches nothing")
	}
	for _, canary := range []string{"canary", r.state, token, strings.Split(token, ".")[1]} {
		if strings.Contains(r.log.String(), canary) {
			t.Errorf("%.20s… is in the log:\n%s", canary, r.log.String())
		}
	}
}
