package portal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"steno/functions/portal"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
	"steno/tests/local/entra"
)

const (
	tenant   = teams.TenantID("11111111-1111-4111-8111-111111111111")
	audience = "22222222-2222-4222-8222-222222222222"
	client   = "33333333-3333-4333-8333-333333333333"
	scope    = "Archive.Read"

	rita  = teams.PersonID("a0000000-0000-4000-8000-000000000001") // recorded, desk north
	sven  = teams.PersonID("a0000000-0000-4000-8000-000000000002") // recorded, desk south
	nora  = teams.PersonID("a0000000-0000-4000-8000-000000000003") // supervises north
	saul  = teams.PersonID("a0000000-0000-4000-8000-000000000004") // supervises south
	carla = teams.PersonID("a0000000-0000-4000-8000-000000000005") // compliance officer
	adam  = teams.PersonID("a0000000-0000-4000-8000-000000000006") // administrator
	aida  = teams.PersonID("a0000000-0000-4000-8000-000000000007") // auditor
	uma   = teams.PersonID("a0000000-0000-4000-8000-000000000008") // administrator and compliance officer
	cora  = teams.PersonID("a0000000-0000-4000-8000-00000000000a") // compliance officer too
	otto  = teams.PersonID("a0000000-0000-4000-8000-000000000009") // nothing

	northThread = teams.ThreadID("19:north@thread.v2")
	southThread = teams.ThreadID("19:south@thread.v2")
	nobodys     = teams.ThreadID("19:nobody@thread.v2")
)

var (
	started = time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC) // when the tests' clock starts
	joined  = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	day     = time.Date(2026, 3, 9, 10, 0, 0, 0, time.UTC) // when the messages were sent
)

// clock is the time in a world. It stands until it is moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) Move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// journal keeps the order of what the stores were asked.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

// take returns the lines and forgets them.
func (j *journal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := j.lines
	j.lines = nil
	return out
}

type watchedCatalog struct {
	storetest.Catalog
	j *journal
}

func (c *watchedCatalog) Slice(ctx context.Context, id conversation.ID) (conversation.Slice, error) {
	c.j.add("slice " + string(id))
	return c.Catalog.Slice(ctx, id)
}

func (c *watchedCatalog) Call(ctx context.Context, key conversation.ThreadKey) (conversation.Call, error) {
	c.j.add("call " + string(key))
	return c.Catalog.Call(ctx, key)
}

func (c *watchedCatalog) ByTime(ctx context.Context, from, to time.Time, p conversation.PageRequest) (conversation.Page, error) {
	c.j.add("by time")
	return c.Catalog.ByTime(ctx, from, to, p)
}

func (c *watchedCatalog) ByPerson(ctx context.Context, who teams.PersonID, from, to time.Time, p conversation.PageRequest) (conversation.Page, error) {
	c.j.add("by person " + string(who))
	return c.Catalog.ByPerson(ctx, who, from, to, p)
}

func (c *watchedCatalog) ByThread(ctx context.Context, key conversation.ThreadKey, p conversation.PageRequest) (conversation.Page, error) {
	c.j.add("by thread " + string(key))
	return c.Catalog.ByThread(ctx, key, p)
}

type watchedBlobs struct {
	storetest.Blobs
	j *journal
	// While hold is open, reading waits for it, and tells held that it does.
	hold, held chan struct{}
}

func (b *watchedBlobs) Size(ctx context.Context, name string) (int64, error) {
	b.j.add("size " + name)
	return b.Blobs.Size(ctx, name)
}

func (b *watchedBlobs) ReadAt(ctx context.Context, name string, off, n int64) ([]byte, error) {
	b.j.add("read " + name)
	if b.hold != nil {
		select {
		case b.held <- struct{}{}:
		default: // as many as are waited for wait already
		}
		<-b.hold
	}
	return b.Blobs.ReadAt(ctx, name, off, n)
}

// watchedTrail is a trail that can be made to fail or to hang.
type watchedTrail struct {
	storetest.Trail
	j    *journal
	fail error
	hang bool
}

func (t *watchedTrail) Insert(ctx context.Context, r custody.Record) error {
	if t.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if t.fail != nil {
		return t.fail
	}
	t.j.add("event " + string(r.Action) + " " + r.Item)
	return t.Trail.Insert(ctx, r)
}

// world is a portal with its stores and its tenant. Its clock stands until moved.
type world struct {
	t          *testing.T
	clock      *clock
	journal    *journal
	entra      *entra.Entra
	login      *httptest.Server
	roster     storetest.Roster
	matters    storetest.Matters
	requests   storetest.Approvals
	exports    storetest.Exports
	jobs       storetest.Lookbacks
	failures   storetest.Failures
	expiries   storetest.Dispositions
	statements storetest.Statements
	records    storetest.CallRecords
	parts      storetest.Blobs
	packages   *evidence.Store
	queue      queued
	catalog    *watchedCatalog
	blobs      *watchedBlobs
	tails      storetest.Tails
	keys       storetest.Keys
	vault      *storetest.Vault
	trail      *watchedTrail
	evidence   *evidence.Store
	config     portal.Config
	log        *bytes.Buffer
	handler    http.Handler
	seen       map[conversation.ID]conversation.Conversation
}

// queued is the queue of exports.
type queued struct{ bodies [][]byte }

func (q *queued) Send(_ context.Context, _ string, body []byte, _ time.Time) error {
	q.bodies = append(q.bodies, body)
	return nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	j := &journal{}
	w := &world{
		t: t, clock: &clock{at: started}, journal: j, catalog: &watchedCatalog{j: j}, blobs: &watchedBlobs{j: j},
		vault: storetest.NewVault(), trail: &watchedTrail{j: j}, log: &bytes.Buffer{}, seen: map[conversation.ID]conversation.Conversation{},
	}
	var idp http.Handler
	w.login = httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { idp.ServeHTTP(rw, r) }))
	t.Cleanup(w.login.Close)
	var err error
	w.entra, err = entra.New(entra.Config{
		Base: w.login.URL, Tenant: string(tenant), Now: w.clock.Now, TokenLifetime: 12 * time.Hour,
		Clients: []entra.Client{{ID: audience, Scopes: []string{scope}}, {ID: client}},
	})
	if err != nil {
		t.Fatal(err)
	}
	idp = w.entra
	w.evidence, err = evidence.New(evidence.Config{
		Blobs: w.blobs, Tails: &w.tails, Keys: &w.keys, Vault: w.vault, VaultHosts: []string{storetest.VaultHost}, Now: w.clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.packages, err = evidence.New(evidence.Config{Blobs: &w.parts, Keys: &w.keys, Vault: w.vault, VaultHosts: []string{storetest.VaultHost}, Now: w.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	w.config = portal.Config{
		Base: "/steno", Tenant: tenant, History: 24 * time.Hour,
		Policies: policy.DataPolicies{{Name: "north", Desks: []string{"north"}, Keep: policy.Term{Years: 7}, Starts: policy.FromCreation}}, Audience: audience, Client: client, Scope: scope,
		Issuer: w.entra.Issuer(), KeysURL: w.login.URL + "/" + string(tenant) + "/discovery/v2.0/keys",
		Authority: w.entra.Authority(), HTTP: w.login.Client(), Now: w.clock.Now,
		Pages: fstest.MapFS{
			"index.html":       {Data: []byte(`<!doctype html><title>Steno</title><style nonce="__STENO_NONCE__"></style>`)},
			"assets/app-1a.js": {Data: []byte("export {}")},
		},
	}
	w.handler = w.open(w.config)
	w.staff()
	w.say(rita, northThread, text("1773050400000", "1", day, "north secret"))
	w.say(sven, southThread, text("1773050400000", "1", day, "south secret"))
	j.take()
	return w
}

// open starts another portal over the same stores.
func (w *world) open(c portal.Config) http.Handler {
	w.t.Helper()
	h, err := portal.New(c, portal.Stores{
		Catalog: w.catalog, Calls: w.catalog, Attached: w.catalog, Roster: &w.roster, Matters: &w.matters, Requests: &w.requests, Exports: &w.exports, Lookbacks: &w.jobs, Failures: &w.failures, Packages: w.packages, Queue: &w.queue, Events: &w.expiries, Evidence: w.evidence, Trail: custody.Log{Trail: w.trail, Now: w.clock.Now},
		Statements: &w.statements, Records: &w.records,
	}, slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

func (w *world) staff() {
	w.t.Helper()
	open := func(p teams.PersonID, r policy.Role, desk string) policy.Period {
		return policy.Period{Person: p, Role: r, Desk: desk, From: joined}
	}
	change := policy.Change{At: joined, Opened: []policy.Period{
		open(rita, policy.RecordedUser, "north"), open(sven, policy.RecordedUser, "south"),
		open(nora, policy.Supervisor, "north"), open(saul, policy.Supervisor, "south"),
		open(carla, policy.ComplianceOfficer, ""), open(cora, policy.ComplianceOfficer, ""), open(adam, policy.Administrator, ""), open(aida, policy.Auditor, ""),
		open(uma, policy.Administrator, ""), open(uma, policy.ComplianceOfficer, ""),
	}}
	for i, id := range []teams.PersonID{rita, sven, nora, saul, carla, adam, aida, uma} {
		change.People = append(change.People, policy.Person{
			ID: id, DisplayName: fmt.Sprintf("Person %d", i+1), Address: fmt.Sprintf("person%d@contoso.example", i+1), Enabled: true,
		})
	}
	if err := w.roster.Apply(w.t.Context(), change); err != nil {
		w.t.Fatal(err)
	}
}

// raw is a message as Graph sends it, with its time sent.
type raw struct {
	body []byte
}

// text is a plain message.
func text(id, etag string, at time.Time, content string) raw {
	return chatMessage(id, etag, at, map[string]any{"body": map[string]any{"contentType": "text", "content": content}})
}

func chatMessage(id, etag string, at time.Time, more map[string]any) raw {
	m := map[string]any{
		"id": id, "etag": etag, "messageType": "message", "createdDateTime": at.Format(time.RFC3339Nano),
		"lastModifiedDateTime": at.Format(time.RFC3339Nano),
		"from":                 map[string]any{"user": map[string]any{"id": string(rita), "displayName": "Rita"}},
	}
	for k, v := range more {
		m[k] = v
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return raw{b}
}

// say puts messages of one thread and day into evidence and catalog, as an export of
// the custodian's mailbox would, and returns the conversation and its object.
func (w *world) say(who teams.PersonID, thread teams.ThreadID, raws ...raw) (conversation.ID, evidence.Ref) {
	w.t.Helper()
	id, ref := w.claim(who, thread, raws, true)
	return id, ref
}

// claim does what say does, and leaves out storing the object if store is false.
func (w *world) claim(who teams.PersonID, thread teams.ThreadID, raws []raw, store bool) (conversation.ID, evidence.Ref) {
	w.t.Helper()
	ctx := w.t.Context()
	var msgs []conversation.Message
	for _, r := range raws {
		if !bytes.Contains(r.body, []byte("chatId")) {
			r.body = slices.Concat([]byte(`{ "chatId":"`+string(thread)+`",`), r.body[1:])
		}
		msgs = append(msgs, conversation.ReadMessage(r.body, who))
	}
	thread = msgs[0].Thread
	id := conversation.IDOf(conversation.KeyOf(tenant, thread), msgs[0].Sent)
	header := conversation.BatchHeader{
		Tenant: tenant, Conversation: id, Thread: thread, Custodian: who, Window: "1-0-1", Lane: "export", FetchedAt: w.clock.Now(),
	}
	object := conversation.Object{Name: evidence.NewObjectID(), Custodian: who, ClaimedAt: w.clock.Now()}
	for _, m := range msgs {
		object.Versions = append(object.Versions, conversation.Version{VersionKey: m.VersionKey, Sent: m.Sent, SHA256: sum(m.Raw)})
	}
	was, err := w.catalog.Slice(ctx, id)
	w.must(err)
	conv := was.Conversation.With(header, msgs)
	w.must(w.catalog.Claim(ctx, was, conversation.Claim{Conversation: conv, Add: &object}))
	ref := evidence.Ref{Tenant: tenant, Unit: string(id), Object: object.Name}
	if store {
		plain, err := conversation.EncodeBatch(header, msgs)
		w.must(err)
		sealed, err := w.evidence.Seal(ctx, ref, plain)
		w.must(err)
		w.must(w.evidence.Put(ctx, sealed))
	}
	done := conversation.WindowDone{Window: conversation.Window{Tenant: tenant, Custodian: who, From: day, To: day.Add(time.Hour), Pass: 1}}
	w.must(w.catalog.FinishWindow(ctx, done, []conversation.Conversation{conv}))
	w.seen[id] = conv
	return id, ref
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// idOf is the conversation of a thread on the day of the tests.
func idOf(thread teams.ThreadID) string {
	return string(conversation.IDOf(conversation.KeyOf(tenant, thread), day))
}

func (w *world) claims(who teams.PersonID) map[string]any {
	return w.entra.PersonClaims(entra.Person{ID: string(who), Name: "Somebody", UPN: "somebody@contoso.example"}, audience, client, scope)
}

// token is an access token of the person, as Entra would issue it now.
func (w *world) token(who teams.PersonID) string { return w.entra.Mint(w.claims(who)) }

// get asks as the person for a path below /steno/v1/.
func (w *world) get(who teams.PersonID, path string) *httptest.ResponseRecorder {
	w.t.Helper()
	return w.send(http.MethodGet, "/steno/v1/"+path, http.Header{"Authorization": {"Bearer " + w.token(who)}})
}

// send sends a request with these headers, a second after the one before so that the
// limits of one person stay out of the way.
func (w *world) send(method, target string, h http.Header) *httptest.ResponseRecorder {
	w.t.Helper()
	w.clock.Move(time.Second)
	r := httptest.NewRequestWithContext(w.t.Context(), method, target, nil)
	for k, v := range h {
		r.Header[k] = v
	}
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	return rec
}

// want fails unless the answer has the status.
func want(t *testing.T, rec *httptest.ResponseRecorder, status int) {
	t.Helper()
	if rec.Code != status {
		t.Fatalf("got %d, want %d: %s", rec.Code, status, clip(rec.Body.String()))
	}
}

func clip(s string) string { return s[:min(len(s), 400)] }

func decode[T any](t *testing.T, r io.Reader) T {
	t.Helper()
	var v T
	if err := json.NewDecoder(r).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// messagesAnswer is the part of the answer that the tests read.
type messagesAnswer struct {
	Messages []struct {
		ID       string    `json:"id"`
		Type     string    `json:"type"`
		Sent     time.Time `json:"sent"`
		Unclear  bool      `json:"unclear"`
		From     conversation.Participant
		Versions []struct {
			ETag, HTML, Text, Subject, SHA256, Custodian string
			Modified, Edited, Deleted                    *time.Time
			Reactions                                    []string
			Attached                                     []struct {
				Kind, Name, State, Reason, File string
				Size                            int64
			}
		} `json:"versions"`
	} `json:"messages"`
	Pending   int    `json:"pending"`
	Truncated bool   `json:"truncated"`
	Event     string `json:"event"`
}

func (w *world) messages(who teams.PersonID, id string) messagesAnswer {
	w.t.Helper()
	rec := w.get(who, "conversations/"+id+"/messages")
	want(w.t, rec, http.StatusOK)
	return decode[messagesAnswer](w.t, rec.Body)
}

// index is the first line that starts with the prefix, -1 if there is none.
func index(lines []string, prefix string) int {
	return slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, prefix) })
}
