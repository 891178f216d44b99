package session_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
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
)

const (
	tenant = teams.TenantID("11111111-1111-4111-8111-111111111111")
	trader = teams.PersonID("aaaaaaaa-0000-4000-8000-000000000001")
	boss   = teams.PersonID("aaaaaaaa-0000-4000-8000-000000000002")
)

var authority *ca.CA

// TestMain makes this process trust the authority of the stand-ins, as the bot trusts
// the system's.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "session")
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

// journal is what happened, in order, wherever it happened.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(format string, a ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, a...))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

func (j *journal) count(line string) int {
	n := 0
	for _, l := range j.all() {
		if l == line {
			n++
		}
	}
	return n
}

// rig is a recorder's legs between a Graph, a gateway, a media path and a queue, of
// which each does what a test wants of it.
type rig struct {
	*journal
	t       *testing.T
	legs    *session.Legs
	config  session.Config
	graph   *graph
	gateway *gateway
	media   *media
	queue   *queue
	outbox  *session.Outbox
	rules   *rules
	logs    *logs
}

type logs struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newRig(t *testing.T, change ...func(*session.Config)) *rig {
	t.Helper()
	r := &rig{journal: &journal{}, t: t, rules: &rules{}, logs: &logs{}}
	log := slog.New(slog.NewTextHandler(r.logs, nil))
	r.graph, r.gateway, r.media, r.queue = newGraph(t, r.journal), newGateway(t, r.journal), &media{journal: r.journal}, &queue{journal: r.journal}
	r.media.reached = r.gateway.reached
	client, err := session.NewGateway(r.gateway.srv.URL, r.gateway.tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	calls, err := msgraph.NewCalls(msgraph.CallsConfig{BaseURL: r.graph.srv.URL + "/v1.0", Credential: credential{}, Private: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.outbox, err = session.OpenOutbox(filepath.Join(t.TempDir(), "outbox"), r.queue, log); err != nil {
		t.Fatal(err)
	}
	r.config = session.Config{
		Tenant: tenant, Recorder: "bot-1", Gateway: client, Graph: calls, Media: r.media, Rules: r.rules, Outbox: r.outbox, Log: log,
	}
	for _, c := range change {
		c(&r.config)
	}
	if r.legs, err = session.New(r.config); err != nil {
		t.Fatal(err)
	}
	r.run(t)
	r.until("the gateway is known", func() bool { return r.legs.Ready() == nil })
	return r
}

func (r *rig) run(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.legs.Run(ctx) })
	wg.Go(func() { _ = r.outbox.Run(ctx) })
	t.Cleanup(func() {
		stop()
		wg.Wait()
		r.media.handing.Wait()
		if t.Failed() {
			t.Log(r.logs.String())
			t.Log(strings.Join(r.all(), "\n"))
		}
	})
}

// until waits for a condition, long enough for a loaded machine.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	r.t.Fatalf("waited in vain until %s", what)
}

func (r *rig) seen(line string) {
	r.t.Helper()
	r.until(line, func() bool { return r.count(line) > 0 })
}

// order fails unless the lines happened in this order.
func (r *rig) order(lines ...string) {
	r.t.Helper()
	at := -1
	all := r.all()
	for _, want := range lines {
		i := slices.Index(all[at+1:], want)
		if i < 0 {
			r.t.Fatalf("%q did not happen after line %d of:\n%s", want, at, strings.Join(all, "\n"))
		}
		at += i + 1
	}
}

func invite(n int) teams.Invite {
	return teams.Invite{
		Call: teams.CallID(fmt.Sprintf("call-%d", n)), Chain: "chain", Tenant: tenant, At: time.Now().UTC(),
		Recorded: teams.Participant{ID: "p-trader", Party: teams.Party{Kind: teams.PartyUser, ID: string(trader)}},
	}
}

// call is one call as Teams plays it.
type call struct {
	r      *rig
	inv    teams.Invite
	leg    conversation.LegID
	update func(teams.CallUpdate)
}

func (r *rig) invite(inv teams.Invite) *call {
	r.t.Helper()
	update, err := r.legs.Take(inv, "https://bot.example/calls/key/secret")
	if err != nil {
		r.t.Fatal(err)
	}
	return &call{r, inv, conversation.LegOf(inv.Tenant, inv.Call), update}
}

func (c *call) state(s teams.CallState, result *teams.CallResult) {
	c.update(teams.CallUpdate{At: time.Now().UTC(), State: s, Result: result})
}

func (c *call) roster(people ...teams.Participant) {
	c.update(teams.CallUpdate{At: time.Now().UTC(), Roster: people, Present: people})
}

// recording brings the call to where it is recorded.
func (r *rig) recording(n int) *call {
	r.t.Helper()
	c := r.invite(invite(n))
	r.seen("graph answer " + string(c.inv.Call))
	c.state(teams.CallEstablished, nil)
	r.seen("gate open " + string(c.inv.Call))
	r.until("recording is known", func() bool { return c.status().Recording })
	return c
}

func (c *call) status() session.Status {
	for _, s := range c.r.legs.List() {
		if s.Leg == c.leg {
			return s
		}
	}
	return session.Status{}
}

// ended waits for the notice that the leg is over.
func (c *call) ended() conversation.LegNotice {
	c.r.t.Helper()
	var n conversation.LegNotice
	c.r.until("the leg's ended notice", func() bool {
		var ok bool
		n, ok = c.r.queue.find(c.leg, conversation.LegEnded)
		return ok
	})
	return n
}

func person(id teams.ParticipantID, p teams.Party) teams.Participant {
	return teams.Participant{ID: id, Party: p}
}

// rules gives everybody one rule.
type rules struct {
	rule atomic.Pointer[policy.RecordingRule]
}

func (r *rules) Rule(teams.PersonID) policy.RecordingRule {
	if p := r.rule.Load(); p != nil {
		return *p
	}
	return policy.RecordingRule{When: policy.WhenAlways, Media: policy.MediaAll}
}

type credential struct{}

func (credential) GetToken(context.Context, azpolicy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "canary-token", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// queue keeps what was sent, unless it is down.
type queue struct {
	*journal
	down atomic.Bool
	mu   sync.Mutex
	sent []conversation.LegNotice
}

func (q *queue) Send(_ context.Context, id string, body []byte, _ time.Time) error {
	if q.down.Load() {
		return fmt.Errorf("queue is down")
	}
	n, err := conversation.DecodeNotice(body)
	if err != nil || n.MessageID() != id {
		return fmt.Errorf("notice %s: %w", id, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sent = append(q.sent, n)
	q.add("notice %s %s", n.Kind, n.Call)
	return nil
}

func (q *queue) find(leg conversation.LegID, kind conversation.NoticeKind) (conversation.LegNotice, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, n := range q.sent {
		if n.Leg == leg && n.Kind == kind {
			return n, true
		}
	}
	return conversation.LegNotice{}, false
}

// graph is Graph's side of calls. what decides an answer by operation; nil is success.
type graph struct {
	*journal
	srv  *httptest.Server
	mu   sync.Mutex
	what func(op, call string) int
}

func newGraph(t *testing.T, j *journal) *graph {
	g := &graph{journal: j}
	g.srv = httptest.NewUnstartedServer(http.HandlerFunc(g.serve))
	cert, err := authority.Local()
	if err != nil {
		t.Fatal(err)
	}
	g.srv.TLS = authorityConfig(cert)
	g.srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	g.srv.StartTLS()
	t.Cleanup(g.srv.Close)
	return g
}

func (g *graph) answering(what func(op, call string) int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.what = what
}

func (g *graph) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/v1.0/communications/calls/"), "/")
	op, call := "hangup", path[0]
	var body struct{ Status string }
	if len(path) > 1 {
		op = path[1]
	}
	if b, err := io.ReadAll(r.Body); err == nil && op == "updateRecordingStatus" {
		if json.Unmarshal(b, &body) == nil {
			op = "status " + body.Status
		}
	}
	g.mu.Lock()
	what := g.what
	g.mu.Unlock()
	g.add("graph %s %s", op, call)
	status := 0
	if what != nil {
		status = what(op, call)
	}
	if status == 0 {
		status = map[string]int{"answer": 202, "hangup": 204}[op]
		if strings.HasPrefix(op, "status") {
			status = 200
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"id":"op-1","status":"completed"}`)
			return
		}
	}
	w.WriteHeader(status)
	if status == http.StatusNotFound {
		_, _ = io.WriteString(w, `{"error":{"code":"8522"}}`)
	}
}
