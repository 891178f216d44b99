package bench_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"crypto/tls"

	"steno/shared/policy"
	"steno/shared/teams"
	"steno/tests/local/entra"
	"steno/tests/sim"
	"steno/tests/world"
)

// benchWorld is a world whose Graph serves pages of a known shape.
type benchWorld struct {
	*world.World
	dir       string
	custodian string
	pages     *pages
}

func startWorld(t *testing.T) *benchWorld { return startWorldOn(t, true) }

func startWorldOn(t *testing.T, memory bool) *benchWorld {
	t.Helper()
	dir := t.TempDir()
	w, err := world.Start(t.Context(), world.Config{Dir: dir, AppDir: appDir(t), KeepInMemory: memory, Sim: sim.Config{Seed: 1, People: 20, Messages: -1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
	})
	b := &benchWorld{World: w, dir: dir, custodian: string(w.Tenant.People()[0].ID), pages: &pages{}}
	cert, err := w.CA.Local()
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(b.pages)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	b.pages.url = strings.Replace(s.URL, "127.0.0.1", "localhost", 1) + "/v1.0"
	a, err := w.Archive()
	if err != nil {
		t.Fatal(err)
	}
	err = a.Roster.Apply(t.Context(), policy.Change{Opened: []policy.Period{{
		Person: teams.PersonID(b.custodian), Role: policy.RecordedUser, Desk: "bench", From: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *benchWorld) tokens(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, resource := range []string{entra.GraphResource, entra.StorageResource, entra.VaultResource} {
		out[resource] = b.Entra.Mint(b.Entra.AppClaims(entra.Client{ID: world.App}, resource))
	}
	return out
}

// pages serves one page of 50 messages for every hour: in threads conversations that
// no other page has, since each hour has threads of its own.
type pages struct {
	url     string
	start   time.Time
	threads int

	mu      sync.Mutex
	asked   int
	seconds map[int64]int // requests by second
}

func (p *pages) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked, p.seconds = 0, map[int64]int{}
}

// requests tells how many there were, and the most in one second.
func (p *pages) requests() (asked, most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.seconds {
		most = max(most, n)
	}
	return p.asked, most
}

func (p *pages) count() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seconds == nil {
		p.seconds = map[int64]int{}
	}
	p.asked++
	p.seconds[time.Now().Unix()]++
}

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.count()
	const mark = "lastModifiedDateTime gt "
	filter := r.URL.Query().Get("$filter")
	i := strings.Index(filter, mark)
	if i < 0 {
		http.Error(w, "no filter", http.StatusBadRequest)
		return
	}
	from, err := time.Parse(time.RFC3339Nano, strings.Fields(filter[i+len(mark):])[0])
	if err != nil {
		http.Error(w, "bad filter", http.StatusBadRequest)
		return
	}
	hour := int(from.Sub(p.start) / time.Hour)
	var b strings.Builder
	b.Grow(64 << 10)
	b.WriteString(`{"@odata.context":"https://graph.microsoft.com/v1.0/$metadata#Collection(chatMessage)","@odata.count":50,"value":[`)
	for n := range perPage {
		if n > 0 {
			b.WriteByte(',')
		}
		sent := from.Add(time.Duration(n+1) * time.Minute)
		fmt.Fprintf(&b, `{"@odata.type":"#microsoft.graph.chatMessage","id":"%d","replyToId":null,"etag":"%d","messageType":"message","createdDateTime":"%s","lastModifiedDateTime":"%s","lastEditedDateTime":null,"deletedDateTime":null,"subject":null,"summary":null,"chatId":"19:%d-%d-%d@thread.v2","importance":"normal","locale":"en-us","webUrl":null,"channelIdentity":null,"policyViolation":null,"eventDetail":null,"from":{"application":null,"device":null,"user":{"@odata.type":"#microsoft.graph.teamworkUserIdentity","id":"0b4f1cf6-54c8-4820-bbb7-2a1f4257ad%02d","displayName":"Person %d","userIdentityType":"aadUser","tenantId":"2432b57b-0abd-43db-aa7b-16eadd115d34"}},"body":{"contentType":"html","content":"<p>%s</p>"},"attachments":[],"mentions":[],"reactions":[],"messageHistory":[]}`,
			sent.UnixMilli(), sent.UnixMilli(), sent.Format(time.RFC3339Nano), sent.Format(time.RFC3339Nano), p.threads, hour, n%p.threads, n%10, n%10, words[:200+(n*37)%220])
	}
	b.WriteString(`]}`)
	w.Header().Set("Content-Type", "application/json; odata.metadata=minimal")
	_, _ = io.WriteString(w, b.String())
}

var words = strings.Repeat("the desk sold twenty at the open and will show you a better level after lunch ", 8)

type lines struct{ s *bufio.Scanner }

func newLines(r io.Reader) lines { return lines{bufio.NewScanner(r)} }

func (l lines) next() string {
	l.s.Scan()
	return l.s.Text()
}
