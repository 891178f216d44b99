package msgraph

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"steno/shared/teams"
)

const (
	person = teams.PersonID("aaaaaaaa-aaaa-4bbb-8ccc-aaaaaaaaaaaa")
	bearer = "canary-token"
)

var (
	from = time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)
	to   = from.Add(time.Hour)
)

// tokens hands out a token and counts.
type tokens struct{ asked atomic.Int64 }

func (c *tokens) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	n := c.asked.Add(1)
	return azcore.AccessToken{Token: fmt.Sprint(bearer, "-", n), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// budget gives out everything at once and remembers.
type budget struct {
	mu     sync.Mutex
	taken  int
	pauses []time.Duration
	wait   time.Duration // before each request
}

func (b *budget) Take(ctx context.Context) error {
	b.mu.Lock()
	b.taken++
	wait := b.wait
	b.mu.Unlock()
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *budget) Pause(_ context.Context, until time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pauses = append(b.pauses, time.Until(until))
	return nil
}

// graph is a client of a server on loopback that trusts the server's certificate.
type graph struct {
	*Client
	budget *budget
	tokens *tokens
	seen   []*http.Request
	mu     sync.Mutex
	url    string
}

func newGraph(t *testing.T, answer http.HandlerFunc) *graph {
	t.Helper()
	g := &graph{budget: &budget{}, tokens: &tokens{}}
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.seen = append(g.seen, r)
		g.mu.Unlock()
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("request-id", "req-1")
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	g.url = s.URL
	c, err := New(Config{
		BaseURL: s.URL + "/v1.0", Credential: g.tokens, Budget: g.budget, Log: slog.New(slog.DiscardHandler),
		Private: true, RetryMax: 2, RetryWait: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	tr := c.transport()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	tr.TLSClientConfig = &tls.Config{RootCAs: pool}
	t.Cleanup(tr.CloseIdleConnections)
	g.Client = c
	return g
}

func (g *Client) metered() *metered { return g.http.HTTPClient.Transport.(*metered) }

func (g *Client) transport() *http.Transport { return g.metered().next.(*http.Transport) }

func (g *graph) page(t *testing.T, next string) (Page, error) {
	t.Helper()
	return g.Messages(t.Context(), teams.Chats, person, from, to, next)
}

// clean demands that an error holds no token, person, query or address.
func clean(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	for _, canary := range []string{bearer, string(person), "getAllMessages", "skiptoken", "https://", "$filter", "canary"} {
		if strings.Contains(err.Error(), canary) {
			t.Errorf("%s: the error shows %q: %v", what, canary, err)
		}
	}
}

func TestFirstPageAsksForTheWindowAndNamesItself(t *testing.T) {
	g := newGraph(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"value":[{"id": "1"}, {"id":"2"}]}`) })
	p, err := g.page(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Items) != 2 || string(p.Items[0]) != `{"id": "1"}` || p.Next != "" || p.RequestID != "req-1" || p.FetchedAt.IsZero() {
		t.Errorf("page %+v", p)
	}
	r := g.seen[0]
	if r.URL.Path != "/v1.0/users/"+string(person)+"/chats/getAllMessages" {
		t.Errorf("asked for %s", r.URL.Path)
	}
	want := "lastModifiedDateTime gt 2026-03-14T09:00:00.000Z and lastModifiedDateTime lt 2026-03-14T10:00:00.000Z"
	if q := r.URL.Query(); q.Get("$filter") != want || q.Get("$top") != "50" {
		t.Errorf("query %v", q)
	}
	if r.Header.Get("Authorization") != "Bearer "+bearer+"-1" || r.Header.Get("Prefer") != "include-unknown-enum-members" {
		t.Errorf("header %v", r.Header)
	}
}

func TestPersonThatIsNoObjectIDIsNeverPartOfAPath(t *testing.T) {
	g := newGraph(t, func(http.ResponseWriter, *http.Request) { t.Error("asked") })
	for _, bad := range []teams.PersonID{"", "..", "../groups", "a/b", "%2f", "me\x00", teams.PersonID(strings.Repeat("a", 10<<10))} {
		if _, err := g.Messages(t.Context(), teams.Chats, bad, from, to, ""); !errors.Is(err, teams.ErrMalformed) {
			t.Errorf("person %.40q: %v", bad, err)
		}
	}
}

func TestForeignLinkIsRefusedBeforeAnythingIsSent(t *testing.T) {
	g := newGraph(t, func(http.ResponseWriter, *http.Request) { t.Error("asked") })
	host := strings.TrimPrefix(g.url, "https://")
	for _, link := range []string{
		"http://169.254.169.254/v1.0/x", "https://169.254.169.254/v1.0/x", "https://[::ffff:a9fe:a9fe]/v1.0/x", "https://2852039166/v1.0/x",
		"https://0251.0376.0251.0376/v1.0/x", "https://168.63.129.16/v1.0/x", "https://localhost/v1.0/x", "https://" + host + "@evil.example/v1.0/x",
		"https://evil.example/v1.0/x", "https://" + host + ".evil.example/v1.0/x", "https://evil.example\\@" + host + "/v1.0/x",
		"http://" + host + "/v1.0/x", "https://127.0.0.1:1/v1.0/x", "https://127.0.0.1/v1.0/x", "ftp://" + host + "/v1.0/x",
		"https://" + host + "/beta/x", "https://" + host + "/v1.0", "https://" + host + "/v1.0/../beta/x", "https://" + host + "/v1.0/%2e%2e/beta/x",
		"https://" + host + "/v1.0/x/..%2f..%2fbeta", "https://" + host + "/v1.0x/y", "https://user:pass@" + host + "/v1.0/x", "//" + host + "/v1.0/x",
		"/v1.0/x", "v1.0/x", "https:" + host + "/v1.0/x", "javascript:alert(1)", "\x00", "https://" + host + "/v1.0/" + strings.Repeat("a", 17<<10),
	} {
		if _, err := g.page(t, link); !errors.Is(err, ErrForeignLink) {
			t.Errorf("link %.80q: %v, want ErrForeignLink", link, err)
		}
	}
	if g.tokens.asked.Load() != 0 || g.budget.taken != 0 {
		t.Errorf("%d tokens asked for, %d requests taken", g.tokens.asked.Load(), g.budget.taken)
	}
}

func TestPageWithAForeignLinkIsRefusedWhole(t *testing.T) {
	var foreign atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { foreign.Add(1) }))
	defer other.Close()
	g := newGraph(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"value":[1],"@odata.nextLink":"%s/v1.0/x?$skiptoken=canary"}`, other.URL)
	})
	p, err := g.page(t, "")
	if !errors.Is(err, ErrForeignLink) || len(p.Items) != 0 || foreign.Load() != 0 {
		t.Errorf("%d items, %v; the other host saw %d requests", len(p.Items), err, foreign.Load())
	}
}

func TestLinkIsFollowedAsGraphWroteIt(t *testing.T) {
	const query = "$top=2&$skiptoken=U2tpcA%3d%3d&$filter=a%20gt%20b"
	g := newGraph(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"value":[]}`) })
	if _, err := g.page(t, g.url+"/v1.0/users('x')/chats/getAllMessages?"+query); err != nil {
		t.Fatal(err)
	}
	if got := g.seen[0].URL.RawQuery; got != query {
		t.Errorf("followed with %q, want %q", got, query)
	}
}

func TestRedirectIsNotFollowedAndTheTokenGoesNowhere(t *testing.T) {
	var foreign atomic.Int64
	other := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { foreign.Add(1) }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		g := newGraph(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL+"/v1.0/x", status) })
		g.transport().TLSClientConfig.RootCAs.AddCert(other.Certificate())
		_, err := g.page(t, "")
		clean(t, fmt.Sprint("redirect ", status), err)
		if ge, ok := errors.AsType[*Error](err); !ok || ge.Status != status {
			t.Errorf("%d: %v", status, err)
		}
	}
	if foreign.Load() != 0 {
		t.Errorf("the other host saw %d requests", foreign.Load())
	}
}

func TestRefusedTokenIsAskedForOnceMore(t *testing.T) {
	var first atomic.Bool
	g := newGraph(t, func(w http.ResponseWriter, r *http.Request) {
		if first.CompareAndSwap(false, true) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"value":[]}`)
	})
	if _, err := g.page(t, ""); err != nil {
		t.Fatal(err)
	}
	if got := g.seen[1].Header.Get("Authorization"); len(g.seen) != 2 || got != "Bearer "+bearer+"-2" {
		t.Errorf("%d requests, the last with %q", len(g.seen), got)
	}
	always := newGraph(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	_, err := always.page(t, "")
	clean(t, "refused for good", err)
	if len(always.seen) != 2 {
		t.Errorf("%d requests, want 2", len(always.seen))
	}
}

func TestThrottlingPausesEverybody(t *testing.T) {
	for header, want := range map[string]time.Duration{"1": time.Second, "": 0, "soon": 0, "-5": 0, "0": 0} {
		var times atomic.Int64
		g := newGraph(t, func(w http.ResponseWriter, r *http.Request) {
			if times.Add(1) == 1 {
				w.Header().Set("Retry-After", header)
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			fmt.Fprint(w, `{"value":[]}`)
		})
		if _, err := g.page(t, ""); err != nil {
			t.Errorf("Retry-After %q: %v", header, err)
		}
		if g.budget.taken != 2 {
			t.Errorf("Retry-After %q: %d requests taken from the budget, want 2", header, g.budget.taken)
		}
		switch p := g.budget.pauses; {
		case want == 0 && len(p) != 0, want != 0 && (len(p) != 1 || p[0] > want || p[0] < want-time.Second/2):
			t.Errorf("Retry-After %q: pauses %v, want %s", header, p, want)
		}
	}
}

func TestLongRetryAfterIsCut(t *testing.T) {
	for _, header := range []string{"86400", "9223372036854775807"} {
		ctx, cancel := context.WithCancel(t.Context())
		g := newGraph(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", header)
			w.WriteHeader(http.StatusTooManyRequests)
		})
		m := g.metered()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+"/v1.0/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := m.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		cancel()
		if p := g.budget.pauses; len(p) != 1 || p[0] > maxPause*time.Second || p[0] < (maxPause-60)*time.Second {
			t.Errorf("Retry-After %s: pauses %v", header, p)
		}
	}
}

func TestEveryAttemptHasAnIDOfItsOwn(t *testing.T) {
	g := newGraph(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	for range 2 {
		_, err := g.page(t, "")
		clean(t, "unavailable", err)
	}
	ids := map[string]bool{}
	for _, r := range g.seen {
		ids[r.Header.Get("client-request-id")] = true
	}
	if len(g.seen) != 6 || len(ids) != 6 || ids[""] {
		t.Errorf("%d requests with %d ids, want 6 and 6", len(g.seen), len(ids))
	}
}

func TestWaitingForTheBudgetIsNotTheAttemptsTime(t *testing.T) {
	g := newGraph(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"value":[]}`) })
	g.metered().timeout = 2 * time.Second
	g.budget.wait = 2500 * time.Millisecond
	if _, err := g.page(t, ""); err != nil || g.budget.taken != 1 {
		t.Errorf("after %d attempts: %v", g.budget.taken, err)
	}
}

func TestAttemptThatHangsIsGivenUp(t *testing.T) {
	release := make(chan struct{})
	var once sync.Once
	g := newGraph(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"value":[`)
		w.(http.Flusher).Flush()
		<-release
	})
	defer once.Do(func() { close(release) })
	g.metered().timeout = 200 * time.Millisecond
	_, err := g.page(t, "")
	clean(t, "hanging body", err)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestAnswersThatAreNoPagesAreRefused(t *testing.T) {
	for what, answer := range map[string]http.HandlerFunc{
		"HTML": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<p>canary</p>")
		},
		"truncated": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, `{"value":["canary`)
		},
		"malformed": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"value":["canary"`) },
		"too large": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(MaxPageBytes+1))
			fmt.Fprint(w, `{"value":[]}`)
		},
	} {
		p, err := newGraph(t, answer).page(t, "")
		clean(t, what, err)
		if !errors.Is(err, ErrPage) || len(p.Items) != 0 {
			t.Errorf("%s: %v, want ErrPage", what, err)
		}
	}
}

func TestErrorOfGraphShowsStatusCodeAndRequestOnly(t *testing.T) {
	for status, permanent := range map[int]bool{400: true, 402: true, 403: true, 404: true, 412: true, 409: false, 410: false} {
		g := newGraph(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"error":{"code":"Forbidden","message":"canary %s"}}`, r.Header.Get("Authorization"))
		})
		_, err := g.page(t, "")
		clean(t, fmt.Sprint("status ", status), err)
		ge, ok := errors.AsType[*Error](err)
		if !ok || ge.Status != status || ge.Code != "Forbidden" || ge.RequestID != "req-1" || ge.Permanent() != permanent {
			t.Errorf("status %d: %+v", status, ge)
		}
	}
	g := newGraph(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("request-id", "two words")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"error":{"code":"canary <b>"}}`)
	})
	_, err := g.page(t, "")
	clean(t, "foreign text as code", err)
}

func TestUnreachableHostIsAnErrorWithoutItsAddress(t *testing.T) {
	g := newGraph(t, func(http.ResponseWriter, *http.Request) {})
	g.transport().TLSClientConfig.RootCAs = x509.NewCertPool() // the certificate is nobody's now
	_, err := g.page(t, "")
	clean(t, "untrusted", err)
}

func TestConfigFaultsAreReportedAtOnce(t *testing.T) {
	_, err := New(Config{BaseURL: "http://graph.microsoft.com/v1.0", Top: 251})
	for _, part := range []string{"base URL", "credential", "page size"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v does not speak of %s", err, part)
		}
	}
}

func TestRequestIDsAreGUIDsAndNeverRepeat(t *testing.T) {
	var ids []string
	for range 1000 {
		id := newRequestID()
		if _, err := teams.ParsePersonID(id); err != nil || id[14] != '4' {
			t.Fatalf("id %q", id)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	if n := len(slices.Compact(ids)); n != 1000 {
		t.Errorf("%d distinct ids", n)
	}
}
