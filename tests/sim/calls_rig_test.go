package sim_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"steno/tests/sim"
	"steno/tests/sim/gateway"
)

const (
	botApp      = "0efc74f7-41c3-47a4-8775-7259bfef4241"
	botInstance = "832899f8-2ea1-4604-8413-27bd2892079f"
	patience    = 20 * time.Second
)

// bot is a recorder that only listens: it answers nothing by itself.
type bot struct {
	*fixture
	server *httptest.Server
	media  *gateway.Gateway

	mu   sync.Mutex
	came []notification
}

type notification struct {
	path   string
	header http.Header
	Value  []struct {
		ChangeType   string
		ResourceURL  string
		ResourceData json.RawMessage
	}
}

func newBot(t *testing.T, cfg sim.Config) *bot {
	t.Helper()
	cfg.Messages, cfg.Now = -1, time.Now
	b := &bot{fixture: newFixture(t, cfg)}
	b.server = httptest.NewTLSServer(http.HandlerFunc(b.hear))
	t.Cleanup(b.server.Close)
	g, err := gateway.Start(gateway.Config{})
	if err != nil {
		t.Fatal(err)
	}
	b.media = g
	t.Cleanup(func() {
		b.Calls().Close()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	err = b.Calls().Register(sim.Recorder{
		App: botApp, Instance: botInstance, Webhook: b.server.URL + "/invites", Client: b.server.Client(), Gateways: []*gateway.Gateway{g},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bot) hear(w http.ResponseWriter, r *http.Request) {
	n := notification{path: r.URL.Path, header: r.Header}
	if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
		b.t.Errorf("notification: %v", err)
	}
	b.mu.Lock()
	b.came = append(b.came, n)
	b.mu.Unlock()
	w.WriteHeader(http.StatusAccepted)
}

func (b *bot) heard() []notification {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.came)
}

// states lists what a call's own notifications said, in order.
func (b *bot) states(id string) []string {
	var out []string
	for _, n := range b.heard() {
		if v := n.Value[0]; v.ResourceURL == "/communications/calls/"+id {
			var data struct{ State string }
			if err := json.Unmarshal(v.ResourceData, &data); err != nil {
				b.t.Error(err)
			}
			out = append(out, v.ChangeType+" "+data.State)
		}
	}
	return out
}

func (b *bot) until(what string, done func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("%s did not come", what)
		}
	}
}

// graph makes a request on a call.
func (b *bot) graph(method, path string, body any) reply {
	b.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	req, err := http.NewRequest(method, b.url+"/v1.0/communications/calls/"+path, bytes.NewReader(raw))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer any")
	res, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, out}
}

// blob asks the gateway for one.
func (b *bot) blob(id string) string {
	b.t.Helper()
	req, err := http.NewRequest(http.MethodPost, b.media.URL()+"/v1/calls", strings.NewReader(fmt.Sprintf(`{"callId":%q}`, id)))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+b.media.Token())
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var made struct{ Blob string }
	if err := json.NewDecoder(res.Body).Decode(&made); err != nil || made.Blob == "" {
		b.t.Fatalf("no blob: %d %v", res.StatusCode, err)
	}
	return made.Blob
}

func (b *bot) answer(id, blob string) reply {
	return b.graph("POST", id+"/answer", map[string]any{
		"callbackUri": b.server.URL + "/calls/" + id, "acceptedModalities": []string{"audio"},
		"mediaConfig": map[string]string{"@odata.type": "#microsoft.graph.appHostedMediaConfig", "blob": blob},
	})
}

// place starts a call of a recorded person and an outsider and waits for the invite.
func (b *bot) place(plan sim.CallPlan) (*sim.Call, string) {
	b.t.Helper()
	if plan.Parties == nil {
		plan.Parties = []sim.Party{{Person: b.recorded(), Recorded: true}, {Phone: "+4930123456", Caller: true}}
	}
	call, err := b.Calls().Place(plan)
	if err != nil {
		b.t.Fatal(err)
	}
	id := call.Legs()[0].ID
	b.until("the invite", func() bool { return len(b.states(id)) > 0 })
	return call, id
}

func (b *bot) recorded() sim.PersonID { return b.UsersIn(sim.RecordedEquities)[0] }

func (b *bot) establish(plan sim.CallPlan) (*sim.Call, string) {
	b.t.Helper()
	call, id := b.place(plan)
	if r := b.answer(id, b.blob(id)); r.status != http.StatusAccepted {
		b.t.Fatalf("answer: %d %s", r.status, r.body)
	}
	b.until("established", func() bool { return slices.Contains(b.states(id), "updated established") })
	return call, id
}

func errorCode(r reply) string {
	var e struct{ Error struct{ Code string } }
	if json.Unmarshal(r.body, &e) != nil {
		return "unreadable"
	}
	return e.Error.Code
}
