package session_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"steno/mediabot/internal/session"
	"steno/shared/conversation"
	"steno/shared/msgraph"
	"steno/shared/teams"
)

func authorityConfig(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
}

// gateway is the gateway's contract without media. It refuses what the contract refuses.
type gateway struct {
	*journal
	srv       *httptest.Server
	tokenFile string
	token     string

	mu       sync.Mutex
	instance string
	calls    map[string]*gatewayCall
	reply    func(r *http.Request, body map[string]any) (status int, reply string) // 0: the usual
	status   string
}

type gatewayCall struct {
	session         string
	answered, ready bool
	open            bool
}

func newGateway(t *testing.T, j *journal) *gateway {
	g := &gateway{journal: j, token: "gateway-token", tokenFile: filepath.Join(t.TempDir(), "token"), instance: "instance-1", calls: map[string]*gatewayCall{}, status: "ok"}
	if err := os.WriteFile(g.tokenFile, []byte(g.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.srv = httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(func() { g.srv.CloseClientConnections(); g.srv.Close() })
	return g
}

func (g *gateway) answering(f func(r *http.Request, body map[string]any) (int, string)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reply = f
}

func (g *gateway) restart(instance string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.instance, g.calls = instance, map[string]*gatewayCall{}
}

// reached notes that a call's peer is connected.
func (g *gateway) reached(call string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.calls[call]; c != nil {
		c.ready = true
	}
}

func (g *gateway) serve(w http.ResponseWriter, r *http.Request) {
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	g.mu.Lock()
	reply := g.reply
	g.mu.Unlock()
	if reply != nil {
		if status, text := reply(r, body); status != 0 {
			g.send(w, status, text)
			return
		}
	}
	if r.Header.Get("Authorization") != "Bearer "+g.token {
		g.send(w, 401, `{"code":"unauthorized"}`)
		return
	}
	g.mu.Lock()
	status, text := g.handle(r, body)
	g.mu.Unlock()
	g.send(w, status, text)
}

func (g *gateway) send(w http.ResponseWriter, status int, text string) {
	g.mu.Lock()
	w.Header().Set("X-Gateway-Instance", g.instance)
	g.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprint(w, text)
}

func (g *gateway) handle(r *http.Request, body map[string]any) (int, string) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.URL.Path == "/v1/health":
		code := 200
		if g.status != "ok" && g.status != "heavy" {
			code = 503
		}
		return code, fmt.Sprintf(`{"status":%q,"instanceId":%q,"contract":"1.0","calls":{"now":%d,"max":100}}`, g.status, g.instance, len(g.calls))
	case r.URL.Path == "/v1/calls" && r.Method == http.MethodGet:
		var ids []string
		for id := range g.calls {
			ids = append(ids, fmt.Sprintf(`{"callId":%q,"state":"orphaned"}`, id))
		}
		return 200, fmt.Sprintf(`{"instanceId":%q,"calls":[%s]}`, g.instance, strings.Join(ids, ","))
	case r.URL.Path == "/v1/calls":
		id := body["callId"].(string)
		if g.calls[id] == nil {
			g.calls[id] = &gatewayCall{session: "session-" + id}
		}
		g.add("gateway open %s", id)
		return 201, g.opened(id)
	}
	c := g.calls[parts[2]]
	if c == nil {
		return 404, `{"code":"call_unknown"}`
	}
	if r.Method == http.MethodDelete && len(parts) == 3 {
		delete(g.calls, parts[2])
		g.add("gateway delete %s", parts[2])
		return 204, ""
	}
	if parts[3] == "subscriptions" {
		g.add("subscribe %s %v", parts[4], body["source"])
		return 200, `{}`
	}
	if body["sessionId"] != c.session {
		return 409, `{"code":"session_mismatch"}`
	}
	if parts[3] == "answer" {
		c.answered = true
		return 200, `{"state":"connecting"}`
	}
	if body["state"] != "open" {
		if c.open {
			g.add("gate closed %s", parts[2])
		}
		c.open = false
		return 200, `{"state":"ready"}`
	}
	ack, _ := body["ack"].(map[string]any)
	switch {
	case ack["status"] != "recording" || ack["operationId"] == "" || ack["acknowledgedAt"] == "":
		return 422, `{"code":"ack_required"}`
	case !c.ready:
		return 409, `{"code":"peer_not_connected"}`
	}
	c.open = true
	g.add("gate open %s", parts[2])
	return 200, `{"state":"open"}`
}

func (g *gateway) opened(id string) string {
	return fmt.Sprintf(`{"callId":%q,"sessionId":%q,"instanceId":%q,"state":"new","blob":"{\"blob\":\"<&>\"}","modalities":["audio"],
		"offer":{"type":"offer","sdp":%q},"tracks":[{"mid":"0","track":"a0","kind":"audio","ssrc":1,"pt":111,"clockRate":48000},
		{"mid":"1","track":"v0","kind":"video","ssrc":2,"pt":102,"clockRate":90000},{"mid":"2","track":"vbss","kind":"video","ssrc":3,"pt":102,"clockRate":90000}],
		"extmap":{"urn:recorder:mgw:source:1":3}}`, id, g.calls[id].session, g.instance, "offer of "+id)
}

// media is a media path that keeps nothing. It connects at once, or when a test says so.
type media struct {
	*journal
	reached func(call string)
	late    atomic.Bool
	fail    atomic.Bool
	full    atomic.Bool // Finish fails
	handing sync.WaitGroup
	mu      sync.Mutex
	peers   map[string]*peer
}

func (m *media) Connect(_ context.Context, o session.Offer, events session.MediaEvents) (session.Peer, error) {
	if m.fail.Load() {
		return nil, errors.New("no sockets")
	}
	call := strings.TrimPrefix(o.SDP, "offer of ")
	p := &peer{media: m, call: call, events: events}
	m.mu.Lock()
	if m.peers == nil {
		m.peers = map[string]*peer{}
	}
	m.peers[call] = p
	m.mu.Unlock()
	if !m.late.Load() {
		p.connect()
	}
	return p, nil
}

func (m *media) peer(call teams.CallID) *peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peers[string(call)]
}

type peer struct {
	media  *media
	call   string
	events session.MediaEvents
	pings  atomic.Int64
	broken atomic.Bool
	rec    atomic.Pointer[recording]
}

func (p *peer) connect() {
	p.media.reached(p.call)
	p.events.Connected()
}

func (p *peer) Answer() string { return "answer" }

func (p *peer) Send(any) error {
	if p.broken.Load() {
		return errors.New("channel closed")
	}
	p.pings.Add(1)
	return nil
}

func (p *peer) Record(_ context.Context, granted msgraph.RecordingGranted, info session.RecordingInfo) (session.Recording, error) {
	if !granted.Covers(teams.CallID(p.call)) || !granted.Covers(info.Call) {
		return nil, errors.New("not granted")
	}
	p.media.add("record %s audio-only=%t", p.call, info.AudioOnly)
	r := &recording{peer: p, open: true}
	p.rec.Store(r)
	return r, nil
}

func (p *peer) Close() error {
	p.media.add("peer closed %s", p.call)
	return nil
}

type recording struct {
	peer   *peer
	lag    atomic.Int64
	mu     sync.Mutex
	open   bool
	over   bool
	events []conversation.LegEvent
	pauses []conversation.Gap
	handed func(session.Handed)
	hold   bool // handed is called by the test
}

func (r *recording) Epoch() time.Time { return time.Now().UTC() }

func (r *recording) Event(e conversation.LegEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recording) kinds() []conversation.EventKind {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []conversation.EventKind
	for _, e := range r.events {
		out = append(out, e.Kind)
	}
	return out
}

func (r *recording) Pause(kind conversation.GapKind, actor teams.PersonID, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open {
		r.pauses = append(r.pauses, conversation.Gap{Kind: kind, Actor: actor, Reason: reason})
		r.peer.media.add("paused %s %s", kind, r.peer.call)
	}
	r.open = false
}

func (r *recording) Resume(granted msgraph.RecordingGranted, _ teams.PersonID, _ string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !granted.Covers(teams.CallID(r.peer.call)) {
		return errors.New("not granted")
	}
	r.open = true
	r.peer.media.add("resumed %s", r.peer.call)
	return nil
}

func (r *recording) keeping() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open && !r.over
}

func (r *recording) Lag() time.Duration { return time.Duration(r.lag.Load()) }

func (r *recording) Finish(_ context.Context, outcome conversation.Outcome, handed func(session.Handed)) error {
	r.mu.Lock()
	r.over = true
	hold := r.hold
	r.handed = handed
	r.mu.Unlock()
	r.peer.media.add("finished %s %s", r.peer.call, outcome)
	if r.peer.media.full.Load() {
		return errors.New("disk full")
	}
	if !hold {
		r.peer.media.handing.Go(func() { handed(session.Handed{Epoch: time.Now().UTC(), Bundles: 7, Packs: 1}) })
	}
	return nil
}
