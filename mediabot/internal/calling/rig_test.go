package calling

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"steno/shared/bearer"
	"steno/shared/msgraph"
	"steno/shared/teams"
)

const (
	tenant = teams.TenantID("932899f8-2ea1-4604-8413-27bd2892079f") // of the documented invite
	app    = "0efc74f7-41c3-47a4-8775-7259bfef4241"
	callID = "e71f0300-9c1f-4d99-b5f4-2722e877d497"
)

// issuer signs as Teams' calling service does, with keys of its own.
type issuer struct {
	srv     *httptest.Server
	fetches atomic.Int64
	down    atomic.Bool
	mu      sync.Mutex
	keys    map[string]*rsa.PrivateKey
	kid     string
}

// spare are key pairs, which are slow to make. Issuers take them in turn, so that no two
// that exist at the same time have one in common.
var spare struct {
	mu   sync.Mutex
	keys []*rsa.PrivateKey
	next int
}

func key(t testing.TB) *rsa.PrivateKey {
	spare.mu.Lock()
	defer spare.mu.Unlock()
	if len(spare.keys) < 8 {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		spare.keys = append(spare.keys, k)
		return k
	}
	spare.next++
	return spare.keys[spare.next%len(spare.keys)]
}

func newIssuer(t testing.TB) *issuer {
	i := &issuer{keys: map[string]*rsa.PrivateKey{}}
	i.rotate(t)
	i.srv = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if i.down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		if r.URL.Path == "/configuration" {
			fmt.Fprintf(w, `{"issuer":"https://api.botframework.com","jwks_uri":"%s/keys"}`, i.srv.URL)
			return
		}
		i.fetches.Add(1)
		var keys []map[string]any
		i.mu.Lock()
		for kid, k := range i.keys {
			keys = append(keys, map[string]any{
				"kty": "RSA", "use": "sig", "kid": kid, "n": base64.RawURLEncoding.EncodeToString(k.N.Bytes()),
				"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(k.E)).Bytes()),
			})
		}
		i.mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": keys})
	}))
	t.Cleanup(i.srv.Close)
	return i
}

func (i *issuer) rotate(t testing.TB) {
	k := key(t)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kid = fmt.Sprintf("kid-%d", len(i.keys)+1)
	i.keys[i.kid] = k
}

func (i *issuer) source(now func() time.Time) *bearer.Keys {
	return bearer.NewKeys(bearer.KeysConfig{URL: i.srv.URL + "/configuration", Metadata: true, HTTP: i.srv.Client(), Now: now})
}

// token signs the usual claims with changes; a nil value takes a claim away. A name that
// begins with "header:" changes the header.
func (i *issuer) token(t testing.TB, changes ...any) string {
	t.Helper()
	now := time.Now()
	claims := jwt.MapClaims{
		"aud": app, "iss": "https://api.botframework.com", "tid": string(tenant),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	i.mu.Lock()
	kid, key := i.kid, i.keys[i.kid]
	i.mu.Unlock()
	tok := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	tok.Header["kid"] = kid
	for n := 0; n+1 < len(changes); n += 2 {
		name := changes[n].(string)
		if h, ok := strings.CutPrefix(name, "header:"); ok {
			tok.Header[h] = changes[n+1]
			continue
		}
		if claims[name] = changes[n+1]; changes[n+1] == nil {
			delete(claims, name)
		}
	}
	s, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// graph is what Graph says of calls.
type graph struct {
	mu       sync.Mutex
	call     string // body of GetCall
	roster   string
	err      error
	alive    int
	asked    int
	listed   int
	rejected []teams.CallID
}

func (g *graph) GetCall(context.Context, teams.CallID) ([]byte, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked++
	return []byte(g.call), g.err
}

func (g *graph) Participants(context.Context, teams.CallID) ([]byte, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listed++
	return []byte(g.roster), g.err
}

func (g *graph) KeepAlive(context.Context, teams.CallID) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.alive++
	return g.err
}

func (g *graph) Reject(_ context.Context, id teams.CallID, _ string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rejected = append(g.rejected, id)
	return g.err
}

func (g *graph) say(call string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.call, g.err = call, err
}

var errGone = &msgraph.Error{Status: 404, Code: msgraph.CodeCallNotFound}

// rig is a webhook and what came out of it.
type rig struct {
	t        testing.TB
	hook     *Webhook
	issuer   *issuer
	graph    *graph
	logs     *logs
	notReady atomic.Bool

	mu       sync.Mutex
	invites  []teams.Invite
	callback map[teams.CallID]string
	updates  map[teams.CallID][]teams.CallUpdate
}

type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	return newRigWith(t, newIssuer(t), change...)
}

func newRigWith(t testing.TB, i *issuer, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, issuer: i, graph: &graph{roster: `{"value":[]}`}, logs: &logs{}, callback: map[teams.CallID]string{}, updates: map[teams.CallID][]teams.CallUpdate{}}
	c := Config{
		Tenant: tenant, App: app, Base: "/steno", Public: "https://bot-1.example", Keys: i.source(nil), Graph: r.graph, Take: r.take,
		Ready: func() error {
			if r.notReady.Load() {
				return errors.New("draining")
			}
			return nil
		},
		Log: slog.New(slog.NewTextHandler(r.logs, nil)),
	}
	for _, f := range change {
		f(&c)
	}
	var err error
	if r.hook, err = New(c); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() { _ = r.hook.Run(ctx); close(over) }()
	t.Cleanup(func() {
		stop()
		<-over
		if t.Failed() {
			t.Log(r.logs.b.String())
		}
	})
	return r
}

func (r *rig) take(inv teams.Invite, callback string) (func(teams.CallUpdate), error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.invites = append(r.invites, inv)
	r.callback[inv.Call] = callback
	return func(u teams.CallUpdate) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.updates[inv.Call] = append(r.updates[inv.Call], u)
	}, nil
}

// post sends a body and returns the answer. Headers come in pairs.
func (r *rig) post(path, token, body string, headers ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	r.hook.ServeHTTP(rec, req)
	return rec
}

func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		r.mu.Lock()
		done := ok()
		r.mu.Unlock()
		if done {
			return
		}
	}
	r.t.Fatalf("waited in vain until %s", what)
}

func (r *rig) seen(id teams.CallID) []teams.CallUpdate {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]teams.CallUpdate(nil), r.updates[id]...)
}

func (r *rig) invited() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.invites)
}

func fixture(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// inviteTo is the documented invite under another call id.
func inviteTo(t testing.TB, id string) string {
	return strings.ReplaceAll(fixture(t, "incoming-policy-recording"), callID, id)
}

// invite has a call taken and returns the path of its callback.
func (r *rig) invite(id string) (path string) {
	r.t.Helper()
	if rec := r.post("/steno/incoming", r.issuer.token(r.t), inviteTo(r.t, id)); rec.Code != http.StatusAccepted || rec.Body.Len() != 0 || rec.Header().Get("Connection") != "close" {
		r.t.Fatalf("invite answered %d %q", rec.Code, rec.Body)
	}
	r.until("the invite is taken", func() bool { path = r.callback[teams.CallID(id)]; return path != "" })
	return strings.TrimPrefix(path, "https://bot-1.example")
}

// change is a notification about a call.
func change(id, kind, part, data string) string {
	s := fmt.Sprintf(`{"value":[{"changeType":%q,"resourceUrl":"/communications/calls/%s%s"`, kind, id, part)
	if data != "" {
		s += `,"resourceData":` + data
	}
	return s + "}]}"
}

func state(id, s string) string { return change(id, "updated", "", fmt.Sprintf(`{"state":%q}`, s)) }
