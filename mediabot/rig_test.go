package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azpolicy "github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"steno/mediabot/internal/session"
	"steno/shared/conversation"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/teams"
	"steno/tests/local/ca"
	"steno/tests/local/entra"
)

const (
	testTenant = "932899f8-2ea1-4604-8413-27bd2892079f"
	testApp    = "0efc74f7-41c3-47a4-8775-7259bfef4241"
	audience   = "55555555-5555-4555-8555-555555555555"
	console1   = "66666666-6666-4666-8666-666666666666"
	operator   = "aaaaaaaa-0000-4000-8000-000000000009"
)

var authority *ca.CA

// TestMain makes this process trust the authority of the stand-ins, as the bot trusts
// the system's.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "mediabot")
	if err == nil {
		if authority, err = ca.New(); err == nil {
			err = os.WriteFile(filepath.Join(dir, "ca.pem"), authority.PEM(), 0o600)
		}
	}
	if err == nil {
		err = os.Setenv("SSL_CERT_FILE", filepath.Join(dir, "ca.pem"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// teamsStub is what stands around the bot: Graph, Entra and the calling service on one
// https server, the gateway and the metadata service on plain loopback ones.
type teamsStub struct {
	t        *testing.T
	mu       sync.Mutex
	lines    []string
	callback map[string]string // address that the answer gave, by call
	graph    *httptest.Server
	gateway  *httptest.Server
	imds     *httptest.Server
	events   atomic.Value // scheduled events, JSON
	entra    *entra.Entra
	signing  *entra.Entra // of the calling service
	notices  []conversation.LegNotice
	pending  atomic.Bool // media that is not in evidence
	events1  map[string]session.MediaEvents
}

func (s *teamsStub) add(format string, a ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, a...))
}

func (s *teamsStub) has(line string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.lines, line)
}

func (s *teamsStub) seen(line string) {
	s.t.Helper()
	s.until(line, func() bool { return s.has(line) })
}

func (s *teamsStub) until(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	s.t.Fatalf("waited in vain until %s", what)
}

func secure(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	cert, err := authority.Local()
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

func newTeams(t *testing.T) *teamsStub {
	t.Helper()
	s := &teamsStub{t: t, callback: map[string]string{}, events1: map[string]session.MediaEvents{}}
	s.events.Store(`{"DocumentIncarnation":1,"Events":[]}`)
	s.graph = secure(t, http.HandlerFunc(s.serveGraph))
	for _, e := range []struct {
		into *(*entra.Entra)
	}{{&s.entra}, {&s.signing}} {
		var idp http.Handler
		srv := secure(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { idp.ServeHTTP(w, r) }))
		made, err := entra.New(entra.Config{Base: srv.URL, Tenant: testTenant, Clients: []entra.Client{{ID: audience}, {ID: console1, Roles: map[string][]string{audience: {controlRight}}}}})
		if err != nil {
			t.Fatal(err)
		}
		idp, *e.into = made, made
	}
	s.gateway = httptest.NewServer(http.HandlerFunc(s.serveGateway))
	t.Cleanup(s.gateway.Close)
	s.imds = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Metadata") != "true":
			w.WriteHeader(http.StatusBadRequest)
		case r.Method == http.MethodPost:
			b, _ := io.ReadAll(r.Body)
			s.add("release %s", b)
		case strings.HasPrefix(r.URL.Path, "/metadata/instance"):
			fmt.Fprint(w, "bot_7")
		default:
			fmt.Fprint(w, s.events.Load())
		}
	}))
	t.Cleanup(s.imds.Close)
	return s
}

func (s *teamsStub) serveGraph(w http.ResponseWriter, r *http.Request) {
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/v1.0/communications/calls/"), "/")
	var body struct{ Status, CallbackURI string }
	b, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(b, &body)
	switch {
	case r.Method == http.MethodDelete:
		s.add("hangup %s", path[0])
		w.WriteHeader(204)
	case path[len(path)-1] == "answer":
		s.mu.Lock()
		s.callback[path[0]] = body.CallbackURI
		s.mu.Unlock()
		s.add("answer %s", path[0])
		w.WriteHeader(202)
	case path[len(path)-1] == "updateRecordingStatus":
		s.add("status %s %s", body.Status, path[0])
		fmt.Fprint(w, `{"id":"op-1","status":"completed"}`)
	default:
		fmt.Fprint(w, `{"value":[]}`)
	}
}

func (s *teamsStub) serveGateway(w http.ResponseWriter, r *http.Request) {
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	w.Header().Set("X-Gateway-Instance", "i-1")
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.URL.Path == "/v1/health":
		fmt.Fprint(w, `{"status":"ok","instanceId":"i-1","contract":"1.0"}`)
	case r.URL.Path == "/v1/calls" && r.Method == http.MethodGet:
		fmt.Fprint(w, `{"calls":[]}`)
	case r.URL.Path == "/v1/calls":
		w.WriteHeader(201)
		fmt.Fprintf(w, `{"callId":%q,"sessionId":"s","instanceId":"i-1","blob":"{}","modalities":["audio"],"offer":{"type":"offer","sdp":%q},"tracks":[{"track":"a0","kind":"audio"}]}`, body["callId"], body["callId"])
	case parts[len(parts)-1] == "gate":
		s.add("gate %s %s", body["state"], parts[2])
		fmt.Fprintf(w, `{"state":%q}`, map[any]string{"open": "open", "closed": "ready"}[body["state"]])
	case r.Method == http.MethodDelete:
		w.WriteHeader(204)
	default:
		fmt.Fprint(w, `{}`)
	}
}

// Send is the queue.
func (s *teamsStub) Send(_ context.Context, _ string, body []byte, _ time.Time) error {
	n, err := conversation.DecodeNotice(body)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.notices = append(s.notices, n)
	s.mu.Unlock()
	s.add("notice %s %s %s", n.Kind, n.Call, n.Outcome)
	return nil
}

// The media path: it connects at once and keeps nothing.

func (s *teamsStub) Connect(_ context.Context, o session.Offer, events session.MediaEvents) (session.Peer, error) {
	s.mu.Lock()
	s.events1[o.SDP] = events
	s.mu.Unlock()
	events.Connected()
	return &stubPeer{s, o.SDP}, nil
}

func (s *teamsStub) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (s *teamsStub) Ready() error                  { return nil }
func (s *teamsStub) Empty() bool                   { return !s.pending.Load() }

type stubPeer struct {
	s    *teamsStub
	call string
}

func (p *stubPeer) Answer() string { return "answer" }
func (p *stubPeer) Send(any) error { return nil }
func (p *stubPeer) Close() error   { return nil }

func (p *stubPeer) Record(_ context.Context, granted msgraph.RecordingGranted, info session.RecordingInfo) (session.Recording, error) {
	if !granted.Covers(info.Call) {
		return nil, errors.New("not granted")
	}
	p.s.add("record %s", p.call)
	return &stubRecording{p}, nil
}

type stubRecording struct{ *stubPeer }

func (r *stubRecording) Epoch() time.Time            { return time.Now() }
func (r *stubRecording) Event(conversation.LegEvent) {}
func (r *stubRecording) Lag() time.Duration          { return 0 }
func (r *stubRecording) Pause(kind conversation.GapKind, actor teams.PersonID, reason string) {
	r.s.add("pause %s %s %s", kind, string(actor), reason)
}
func (r *stubRecording) Resume(msgraph.RecordingGranted, teams.PersonID, string) error {
	r.s.add("resume %s", r.call)
	return nil
}
func (r *stubRecording) Finish(_ context.Context, outcome conversation.Outcome, handed func(session.Handed)) error {
	r.s.add("finish %s %s", r.call, outcome)
	handed(session.Handed{Bundles: 1})
	return nil
}

type noRoster struct{ policy.Roster }

func (noRoster) Periods(context.Context, policy.Role) ([]policy.Period, error) { return nil, nil }

type credential struct{}

func (credential) GetToken(context.Context, azpolicy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "canary-token", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// recorder is a bot that runs.
type recorder struct {
	*teamsStub
	bot     *bot
	url     string // of its public door
	health  string
	client  *http.Client
	drain   chan struct{}
	cut     context.CancelFunc
	over    chan error
	log     *syncBuffer
	environ []string
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}
func (b *syncBuffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

// environment is a complete configuration against the stand-ins.
func (s *teamsStub) environment(dir string) []string {
	return []string{
		"STENO_TENANT_ID=" + testTenant, `STENO_ROLE_GROUPS=[{"role":"recordedUser","group":"g","desk":"fx"}]`,
		"STENO_BOT_APP=" + testApp, "STENO_BOT_PUBLIC_URL=https://bot-1.example", "STENO_BOT_LISTEN=127.0.0.1:0", "STENO_BOT_HEALTH_LISTEN=127.0.0.1:0",
		"STENO_BOT_CERTIFICATE=" + filepath.Join(dir, "bot.pem"), "STENO_BOT_CERTIFICATE_KEY=" + filepath.Join(dir, "bot.key"), "STENO_BOT_DATA=" + dir,
		"STENO_CALLING_ISSUER=" + s.signing.Issuer() + "/.well-known/openid-configuration",
		"STENO_GRAPH_URL=" + s.graph.URL + "/v1.0", "STENO_GRAPH_PRIVATE=true", "STENO_GATEWAY_URL=" + s.gateway.URL, "STENO_GATEWAY_TOKEN_FILE=" + filepath.Join(dir, "token"),
		"STENO_BLOB_URL=https://blob.example", "STENO_TABLE_URL=https://table.example", "STENO_VAULT_URL=https://vault.example", "ServiceBusConnection__fullyQualifiedNamespace=bus.example",
		"STENO_CONTROL_AUDIENCE=" + audience, "STENO_CONTROL_CLIENTS=" + console1, "STENO_LOGIN_ISSUER=" + s.entra.Issuer(), "STENO_LOGIN_KEYS=" + s.entra.Authority() + "/discovery/v2.0/keys",
		"STENO_METADATA_URL=" + s.imds.URL, "STENO_HAND_OVER_LIMIT=30s",
	}
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	r := &recorder{teamsStub: newTeams(t), drain: make(chan struct{}), over: make(chan error, 1), log: &syncBuffer{}}
	dir := t.TempDir()
	writeCertificate(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("gateway"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.environ = r.environment(dir)
	s, _, err := readSettings(r.environ)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(r.log, nil))
	a := adapters{credential: credential{}, queue: r.teamsStub, roster: noRoster{}, openMedia: func(mediaParts) (mediaPath, error) { return r.teamsStub, nil }}
	if r.bot, err = newBot(s, a, log); err != nil {
		t.Fatal(err)
	}
	r.bot.maintenance.every = 10 * time.Millisecond
	public, local := listen(t), listen(t)
	r.url, r.health, r.client = "https://"+public.Addr().String()+"/steno", "http://"+local.Addr().String(), authority.Client()
	ctx, cut := context.WithCancel(context.Background())
	r.cut = cut
	go func() { r.over <- r.bot.serveOn(ctx, r.drain, public, local) }()
	t.Cleanup(func() {
		cut()
		if err := <-r.over; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(r.log.String(), strings.Join(r.lines, "\n"))
		}
	})
	r.until("ready", func() bool { return r.get(r.health+"/readyz") == 200 })
	return r
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func writeCertificate(t *testing.T, dir string) {
	t.Helper()
	cert, err := authority.Local()
	if err != nil {
		t.Fatal(err)
	}
	chain, key := pemOf(t, cert)
	for name, b := range map[string][]byte{"bot.pem": chain, "bot.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *recorder) get(url string) int {
	resp, err := r.client.Get(url)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// send posts and returns the status and the body.
func (r *recorder) send(method, path, token, body string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// teamsToken is a token of the calling service.
func (r *recorder) teamsToken() string {
	now := time.Now()
	return r.signing.Mint(map[string]any{
		"aud": testApp, "iss": "https://api.botframework.com", "tid": testTenant,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
}

// notify posts a notification of Graph about a call.
func (r *recorder) notify(path, call, data string) int {
	r.t.Helper()
	code, _ := r.send(http.MethodPost, path, r.teamsToken(), fmt.Sprintf(`{"value":[{"changeType":"updated","resourceUrl":"/communications/calls/%s","resourceData":%s}]}`, call, data))
	return code
}

func invitation(call string) string {
	return fmt.Sprintf(`{"id":%q,"state":"incoming","tenantId":%q,"callChainId":"chain","incomingContext":{"observedParticipantId":"p-1"},
		"source":{"identity":{"user":{"id":"8A34A46B-3D17-4ADC-8DCE-DC4E7D572698"}}},"meetingInfo":{"token":"canary-join"}}`, call, testTenant)
}

// record has a call invited, answered, established and recorded, and returns the path
// of its callback.
func (r *recorder) record(call string) string {
	r.t.Helper()
	if code := r.notify("/incoming", call, invitation(call)); code != http.StatusAccepted {
		r.t.Fatalf("invite answered %d", code)
	}
	r.seen("answer " + call)
	r.mu.Lock()
	path := strings.TrimPrefix(r.callback[call], "https://bot-1.example/steno")
	r.mu.Unlock()
	if code := r.notify(path, call, `{"state":"established"}`); code != http.StatusAccepted {
		r.t.Fatalf("established answered %d", code)
	}
	r.seen("gate open " + call)
	return path
}
