package e2e_test

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/sdp/v3"
)

// browserPages are the media side of browserGateway.
//
//go:embed testdata/browser
var browserPages embed.FS

// browserBlob begins the media configurations of browserGateway.
const browserBlob = "browser:"

// toneOf is a source that track a0 of browserGateway carries, and how it sounds.
type toneOf struct {
	source string
	hz     float64
}

// browserGateway speaks the gateway's contract with a browser's WebRTC in place of
// pion's and of Microsoft's: HTTP here, the peer connection in a page. It has no header
// extension and no video.
type browserGateway struct {
	t        *testing.T
	api      *httptest.Server
	page     *httptest.Server
	token    string
	instance string
	commands chan string
	sources  func() []toneOf // who speaks in the next call, and how; asked when a gate opens

	mu      sync.Mutex
	asked   int
	replies map[int]chan browserReply
	calls   map[string]*browserCall
	faults  []string
	pings   int
	sent    [][]byte // payloads that passed the gates of calls that are over
}

type browserCall struct {
	session string
	offer   map[string]any // the reply to POST /v1/calls
}

type browserReply struct {
	ID    int      `json:"id"`
	Fault string   `json:"fault"`
	SDP   string   `json:"sdp"`
	RTP   uint32   `json:"rtp"`
	Pings int      `json:"pings"`
	Sent  [][]byte `json:"sent"`
}

// startBrowserGateway starts a browser and the gateway around it. tokenFile receives the
// gateway's token.
func startBrowserGateway(t *testing.T, tokenFile string) *browserGateway {
	t.Helper()
	g := &browserGateway{
		t: t, token: rand.Text(), instance: rand.Text(), commands: make(chan string, 16), replies: map[int]chan browserReply{}, calls: map[string]*browserCall{},
	}
	if err := os.WriteFile(tokenFile, []byte(g.token), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := fs.Sub(browserPages, "testdata/browser")
	if err != nil {
		t.Fatal(err)
	}
	page := http.NewServeMux()
	page.Handle("GET /", http.FileServerFS(files))
	page.HandleFunc("GET /commands", g.serveCommands)
	page.HandleFunc("POST /replies", g.takeReply)
	g.page = httptest.NewServer(page)
	api := http.NewServeMux()
	api.HandleFunc("GET /v1/health", g.health)
	api.HandleFunc("GET /v1/calls", g.list)
	api.HandleFunc("POST /v1/calls", g.create)
	api.HandleFunc("PUT /v1/calls/{id}/answer", g.answer)
	api.HandleFunc("POST /v1/calls/{id}/gate", g.gate)
	api.HandleFunc("DELETE /v1/calls/{id}", g.remove)
	g.api = httptest.NewServer(g.guard(api))
	t.Cleanup(func() {
		g.api.Close()
		close(g.commands)
		g.page.CloseClientConnections()
		g.page.Close()
	})
	g.startBrowser()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := g.ask(ctx, "ready", "", nil); err != nil {
		t.Fatal(err)
	}
	return g
}

// startBrowser opens the page in the machine's Chromium, or in the one that CHROMIUM
// names. Its candidates are addresses of this machine in clear, loopback included.
func (g *browserGateway) startBrowser() {
	g.t.Helper()
	path := os.Getenv("CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path == "" {
			path, _ = exec.LookPath(name) // the next one is tried
		}
	}
	if path == "" {
		g.t.Fatal("no browser: install Debian's package chromium, or name one in CHROMIUM")
	}
	dir := g.t.TempDir()
	cmd := exec.Command(path,
		"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync", "--disable-background-networking",
		"--disable-component-update", "--user-data-dir="+filepath.Join(dir, "profile"), "--autoplay-policy=no-user-gesture-required",
		"--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows", "--disable-audio-output",
		"--disable-features=WebRtcHideLocalIpsWithMdns", "--allow-loopback-in-peer-connection",
		"--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", g.page.URL+"/",
	)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	cmd.WaitDelay = 5 * time.Second
	log := &lines{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		g.t.Fatalf("start the browser: %v", err)
	}
	g.t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			g.t.Errorf("end the browser: %v\n%s", err, tail(log.String(), 2000))
		}
		_ = cmd.Wait() // killed, and so never of success
		if g.t.Failed() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.t.Logf("faults of the gateway: %q", g.faults)
		}
	})
}

// serveCommands is the page's stream of server-sent events.
func (g *browserGateway) serveCommands(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flush := http.NewResponseController(w).Flush
	if err := flush(); err != nil {
		return
	}
	for {
		select {
		case c, ok := <-g.commands:
			if !ok {
				return
			}
			_, err := fmt.Fprintf(w, "data: %s\n\n", c)
			if err := errors.Join(err, flush()); err != nil {
				g.fault("command not sent: " + err.Error())
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

func (g *browserGateway) takeReply(w http.ResponseWriter, r *http.Request) {
	var reply browserReply
	if err := json.NewDecoder(r.Body).Decode(&reply); err != nil {
		g.fault("reply of the page: " + err.Error())
		return
	}
	g.mu.Lock()
	waiting := g.replies[reply.ID]
	delete(g.replies, reply.ID)
	g.mu.Unlock()
	if waiting == nil {
		g.fault("the page: " + reply.Fault)
		return
	}
	waiting <- reply
}

func (g *browserGateway) fault(what string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faults = append(g.faults, what)
}

// ask lets the page do something.
func (g *browserGateway) ask(ctx context.Context, what, call string, members map[string]any) (browserReply, error) {
	reply := make(chan browserReply, 1)
	g.mu.Lock()
	g.asked++
	id := g.asked
	g.replies[id] = reply
	g.mu.Unlock()
	command := map[string]any{"id": id, "what": what, "call": call}
	for k, v := range members {
		command[k] = v
	}
	b, err := json.Marshal(command)
	if err != nil {
		return browserReply{}, err
	}
	select {
	case g.commands <- string(b):
	case <-ctx.Done():
		return browserReply{}, ctx.Err()
	}
	select {
	case r := <-reply:
		if r.Fault != "" {
			return r, errors.New(what + ": " + r.Fault)
		}
		return r, nil
	case <-ctx.Done():
		return browserReply{}, fmt.Errorf("%s: %w", what, ctx.Err())
	}
}

func (g *browserGateway) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Gateway-Instance", g.instance)
		w.Header().Set("X-Contract", "1.0")
		if r.Header.Get("Authorization") != "Bearer "+g.token {
			g.refuse(w, http.StatusUnauthorized, "unauthorized")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g *browserGateway) refuse(w http.ResponseWriter, status int, code string) {
	g.reply(w, status, map[string]any{"status": status, "code": code})
}

func (g *browserGateway) reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		g.fault("reply not written: " + err.Error())
	}
}

func (g *browserGateway) health(w http.ResponseWriter, _ *http.Request) {
	g.mu.Lock()
	now := len(g.calls)
	g.mu.Unlock()
	g.reply(w, http.StatusOK, map[string]any{"status": "ok", "instanceId": g.instance, "contract": "1.0", "calls": map[string]int{"now": now, "max": 10}})
}

func (g *browserGateway) list(w http.ResponseWriter, _ *http.Request) {
	g.mu.Lock()
	out := []map[string]any{}
	for id, c := range g.calls {
		out = append(out, map[string]any{"callId": id, "sessionId": c.session})
	}
	g.mu.Unlock()
	g.reply(w, http.StatusOK, map[string]any{"instanceId": g.instance, "calls": out})
}

func (g *browserGateway) create(w http.ResponseWriter, r *http.Request) {
	var body struct {
		CallID string `json:"callId"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		g.refuse(w, http.StatusBadRequest, "bad_json")
		return
	}
	g.mu.Lock()
	known := g.calls[body.CallID]
	g.mu.Unlock()
	if known != nil {
		g.reply(w, http.StatusOK, known.offer)
		return
	}
	c := &browserCall{session: rand.Text()}
	made, err := g.ask(r.Context(), "create", body.CallID, map[string]any{"hello": map[string]string{"instanceId": g.instance, "sessionId": c.session}})
	if err != nil {
		g.fault(err.Error())
		g.refuse(w, http.StatusInternalServerError, "internal")
		return
	}
	offer, tracks, err := onLoopback(made.SDP)
	if err != nil {
		g.fault(err.Error())
		g.refuse(w, http.StatusInternalServerError, "internal")
		return
	}
	c.offer = map[string]any{
		"callId": body.CallID, "sessionId": c.session, "instanceId": g.instance, "state": "new", "blob": browserBlob + rand.Text(), "modalities": []string{"audio"},
		"offer": map[string]string{"type": "offer", "sdp": offer}, "tracks": tracks, "extmap": map[string]int{}, "audioBase": 0, "videoBase": 0,
		"expiresAt": time.Now().Add(time.Minute).UTC().Format(time.RFC3339),
	}
	g.mu.Lock()
	g.calls[body.CallID] = c
	g.mu.Unlock()
	g.reply(w, http.StatusCreated, c.offer)
}

// onLoopback keeps of an offer the candidate that the contract has, and tells its tracks.
func onLoopback(offer string) (string, []map[string]any, error) {
	var d sdp.SessionDescription
	if err := d.UnmarshalString(offer); err != nil {
		return "", nil, fmt.Errorf("the browser's offer: %w", err)
	}
	var tracks []map[string]any
	candidates := 0
	for i, m := range d.MediaDescriptions {
		var kept []sdp.Attribute
		for _, a := range m.Attributes {
			f := strings.Fields(a.Value)
			if a.Key == "candidate" && (len(f) < 8 || f[2] != "udp" || f[4] != "127.0.0.1") {
				continue
			}
			if a.Key == "candidate" {
				candidates++
			}
			kept = append(kept, a)
		}
		m.Attributes = kept
		if m.MediaName.Media != "audio" {
			continue
		}
		ssrc, _ := m.Attribute("ssrc")
		number, _, _ := strings.Cut(ssrc, " ")
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return "", nil, fmt.Errorf("section %d of the browser's offer has no SSRC: %w", i, err)
		}
		pt, err := strconv.Atoi(m.MediaName.Formats[0])
		if err != nil {
			return "", nil, fmt.Errorf("section %d of the browser's offer: %w", i, err)
		}
		mid, _ := m.Attribute("mid")
		name := "mix"
		if i < 4 {
			name = "a" + strconv.Itoa(i)
		}
		tracks = append(tracks, map[string]any{"track": name, "mid": mid, "kind": "audio", "ssrc": n, "pt": pt, "clockRate": 48000})
	}
	if candidates == 0 || len(tracks) != 5 {
		return "", nil, fmt.Errorf("the browser's offer has %d candidates on loopback and %d tracks:\n%s", candidates, len(tracks), offer)
	}
	b, err := d.Marshal()
	return string(b), tracks, err
}

// known returns the call of a request, and decodes the request's body.
func (g *browserGateway) known(w http.ResponseWriter, r *http.Request, body any) *browserCall {
	g.mu.Lock()
	c := g.calls[r.PathValue("id")]
	g.mu.Unlock()
	if c == nil {
		g.refuse(w, http.StatusNotFound, "call_unknown")
		return nil
	}
	if b, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(b, body) != nil {
		g.refuse(w, http.StatusBadRequest, "bad_json")
		return nil
	}
	return c
}

func (g *browserGateway) answer(w http.ResponseWriter, r *http.Request) {
	var body struct{ SDP string }
	c := g.known(w, r, &body)
	if c == nil {
		return
	}
	if _, err := g.ask(r.Context(), "answer", r.PathValue("id"), map[string]any{"sdp": body.SDP}); err != nil {
		g.fault(err.Error())
		g.refuse(w, http.StatusUnprocessableEntity, "sdp_rejected")
		return
	}
	g.reply(w, http.StatusOK, map[string]string{"state": "connecting"})
}

func (g *browserGateway) gate(w http.ResponseWriter, r *http.Request) {
	var body struct {
		State, Reason string
		Ack           struct{ Status, OperationID, AcknowledgedAt string }
	}
	c := g.known(w, r, &body)
	if c == nil {
		return
	}
	if body.State != "open" {
		shut, err := g.ask(r.Context(), "shut", r.PathValue("id"), map[string]any{"reason": body.Reason})
		if err != nil {
			g.fault(err.Error())
			g.refuse(w, http.StatusInternalServerError, "internal")
			return
		}
		g.reply(w, http.StatusOK, map[string]any{"state": "ready", "lastRtp": map[string]uint32{"audio": shut.RTP}})
		return
	}
	if body.Ack.Status != "recording" || body.Ack.OperationID == "" || body.Ack.AcknowledgedAt == "" {
		g.refuse(w, http.StatusUnprocessableEntity, "ack_required")
		return
	}
	opened, err := g.carry(r.Context(), r.PathValue("id"), g.sources()[0])
	if err != nil {
		g.refuse(w, http.StatusInternalServerError, "internal")
		return
	}
	g.reply(w, http.StatusOK, map[string]any{"state": "open", "rtp": map[string]uint32{"audio": opened.RTP}, "at": time.Now().UTC()})
}

// carry gives track a0 of a call to a source.
func (g *browserGateway) carry(ctx context.Context, call string, tone toneOf) (browserReply, error) {
	r, err := g.ask(ctx, "carry", call, map[string]any{"source": tone.source, "hz": tone.hz})
	if err != nil {
		g.fault(err.Error())
	}
	return r, err
}

func (g *browserGateway) remove(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	g.mu.Lock()
	delete(g.calls, id)
	g.mu.Unlock()
	gone, err := g.ask(r.Context(), "remove", id, nil)
	if err != nil {
		g.fault(err.Error())
	}
	g.mu.Lock()
	g.pings += gone.Pings
	g.sent = append(g.sent, gone.Sent...)
	g.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}
