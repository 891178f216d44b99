package attachments_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"steno/functions/attachments"
	"steno/functions/internal/intake"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const (
	tenant = teams.TenantID("11111111-1111-4111-8111-111111111111")
	alice  = teams.PersonID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa")
	thread = teams.ThreadID("19:first@thread.v2")
	link   = "https://contoso-my.sharepoint.com/personal/a/Documents/term sheet.pdf"
	image  = "https://graph.microsoft.com/v1.0/chats/19:first@thread.v2/messages/1/hostedContents/aWQ/$value"
)

var sent = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// shelf is Graph's side: one file and one image.
type shelf struct {
	mu       sync.Mutex
	item     msgraph.Item
	versions []msgraph.Version
	bytes    map[string][]byte // by version, "" for the current one
	fail     error             // of whatever is asked first
	read     func(b []byte, from int64) io.Reader
	asked    []int64 // offsets of content
	ignores  bool    // it ignores offsets
	hosted   int
}

// unused stands for what is needed to make a client and never asked.
type unused struct{ azcore.TokenCredential }

func (unused) Take(context.Context) error             { return nil }
func (unused) Pause(context.Context, time.Time) error { return nil }

// addresses judges addresses as the product does.
var addresses = func() *msgraph.Files {
	g, err := msgraph.New(msgraph.Config{BaseURL: "https://graph.microsoft.com/v1.0", Credential: unused{}, Budget: unused{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	f, err := msgraph.NewFiles(g, msgraph.FilesConfig{})
	if err != nil {
		panic(err)
	}
	return f
}()

func (s *shelf) HostedLink(l string) ([]string, error) { return addresses.HostedLink(l) }

func (s *shelf) Item(_ context.Context, l string) (msgraph.Item, error) {
	if _, err := addresses.SharedLink(l); err != nil {
		return msgraph.Item{}, err
	}
	return s.item, s.fail
}

func (s *shelf) Versions(context.Context, msgraph.Item) ([]msgraph.Version, error) {
	return s.versions, nil
}

func (s *shelf) Content(ctx context.Context, _ msgraph.Item, version string, from int64) (*msgraph.Content, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, from)
	if s.ignores {
		from = 0
	}
	return s.content(ctx, s.bytes[version], from), nil
}

func (s *shelf) content(ctx context.Context, b []byte, from int64) *msgraph.Content {
	var r io.Reader = bytes.NewReader(b[from:])
	if s.read != nil {
		r = s.read(b, from)
	}
	return &msgraph.Content{ReadCloser: io.NopCloser(bound{ctx, r}), From: from, RequestID: "request"}
}

func (s *shelf) Hosted(ctx context.Context, _ string) (*msgraph.Content, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosted++
	if s.fail != nil {
		return nil, s.fail
	}
	return s.content(ctx, []byte("an image"), 0), nil
}

// bound ends with its context, as the body of a request does.
type bound struct {
	ctx context.Context
	io.Reader
}

func (b bound) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	return b.Reader.Read(p)
}

// queue keeps what was put on it.
type queue struct {
	mu    sync.Mutex
	sent  [][]byte
	until []time.Time
}

func (q *queue) Send(_ context.Context, _ string, body []byte, notBefore time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sent, q.until = append(q.sent, body), append(q.until, notBefore)
	return nil
}

func (q *queue) take() [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.sent
	q.sent, q.until = nil, nil
	return out
}

// turns gives out stretches of three seconds from a time on: longer than a run waits.
type turns struct{ next time.Time }

func (t *turns) Reserve(context.Context, conversation.ThreadKey) (time.Time, error) {
	at := t.next
	t.next = t.next.Add(3 * time.Second)
	return at, nil
}

// rig is an archive and the tenant in front of it; processes come and go.
type rig struct {
	t       testing.TB
	shelf   *shelf
	blobs   evidence.Blobs
	catalog *storetest.Catalog
	roster  *storetest.Roster
	trail   *storetest.Trail
	store   *evidence.Store
	queue   *queue
	turns   *turns
	config  attachments.Config
}

func newRig(t testing.TB) *rig { return newRigOver(t, new(storetest.Blobs)) }

func newRigOver(t testing.TB, blobs evidence.Blobs) *rig {
	t.Helper()
	r := &rig{
		t: t, shelf: &shelf{bytes: map[string][]byte{}}, blobs: blobs, catalog: new(storetest.Catalog), roster: new(storetest.Roster),
		trail: new(storetest.Trail), queue: &queue{}, turns: &turns{}, config: attachments.Config{Tenant: tenant, Part: 1000, RetryWait: time.Millisecond},
	}
	r.shelf.item = msgraph.Item{Drive: "d", ID: "i", CTag: "c1", Modified: sent.Add(-time.Hour)}
	var err error
	r.store, err = evidence.New(evidence.Config{Blobs: blobs, Keys: new(storetest.Keys), Vault: vault(), VaultHosts: []string{storetest.VaultHost}})
	r.must(err)
	r.must(r.roster.Apply(t.Context(), policy.Change{At: sent.AddDate(0, -1, 0), Opened: []policy.Period{{Person: alice, Role: policy.RecordedUser, From: sent.AddDate(0, -1, 0)}}}))
	return r
}

var vault = sync.OnceValue(storetest.NewVault)

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// shelve puts a file on the shelf, as it is now.
func (r *rig) shelve(b []byte) {
	r.shelf.bytes[""] = b
	r.shelf.item.Size = int64(len(b))
}

// say puts a message into the archive, as the export lane does, which asks for its files.
func (r *rig) say(id, etag, body string, attached ...string) {
	r.t.Helper()
	raw := fmt.Appendf(nil, `{"id":%q,"etag":%q,"chatId":%q,"messageType":"message","createdDateTime":%q,"from":{"user":{"id":%q,"tenantId":%q}},"body":{"contentType":"html","content":%q},"attachments":[`,
		id, etag, thread, sent.Format(time.RFC3339Nano), alice, tenant, body)
	for i, a := range attached {
		if i > 0 {
			raw = append(raw, ',')
		}
		raw = fmt.Appendf(raw, `{"id":"x","contentType":"reference","contentUrl":%q,"name":"term sheet.pdf"}`, a)
	}
	r.must(r.keep(intake.FilesAll, r.queue, append(raw, "]}"...)))
}

// keep puts a message into the archive of a tenant that has files fetched by a mode.
func (r *rig) keep(mode intake.FileMode, files intake.Queue, raw []byte) error {
	r.t.Helper()
	in := intake.New(intake.Config{System: "chatexport", Tenant: tenant, Files: intake.Files{Mode: mode, Register: r.catalog, Queue: files}}, r.roster, r.catalog, r.store, custody.Log{Trail: r.trail}, slog.New(slog.DiscardHandler))
	w := conversation.Window{Tenant: tenant, Custodian: alice, From: sent.Add(-time.Hour), To: sent.Add(time.Hour), Pass: 1}
	_, err := in.Keep(r.t.Context(), intake.Delivery{Window: w, Lane: conversation.LaneExport, Pages: []intake.Page{{Items: [][]byte{raw}, FetchedAt: sent}}})
	return err
}

// process is a process that dies as m says.
func (r *rig) process(m *mortality) *attachments.Fetcher {
	catalog, trail := mortalCatalog{r.catalog, m}, custody.Log{Trail: mortalTrail{r.trail, m}}
	in := intake.New(intake.Config{System: "attachments", Tenant: tenant, ClaimLease: time.Nanosecond}, r.roster, catalog, mortalStore{r.store, m}, trail, slog.New(slog.DiscardHandler))
	return attachments.New(r.config, r.shelf, in, catalog, r.turns, trail, r.queue, slog.New(slog.DiscardHandler))
}

// handle handles everything that is queued now.
func (r *rig) handle() {
	r.t.Helper()
	for _, body := range r.queue.take() {
		r.must(r.process(&mortality{}).Handle(r.t.Context(), body))
	}
}

func (r *rig) id() conversation.ID {
	return conversation.IDOf(conversation.KeyOf(tenant, thread), sent)
}

// results lists what the register has.
func (r *rig) results() []conversation.Attachment {
	r.t.Helper()
	list, err := r.catalog.Attachments(r.t.Context(), r.id())
	r.must(err)
	return slices.DeleteFunc(list, func(a conversation.Attachment) bool { return a.State == conversation.AttachmentExpected })
}

// only returns the one result there is.
func (r *rig) only() conversation.Attachment {
	r.t.Helper()
	list := r.results()
	if len(list) != 1 {
		r.t.Fatalf("%d results: %+v", len(list), list)
	}
	return list[0]
}

func (r *rig) open(object string) *evidence.Object {
	r.t.Helper()
	receipt, err := custody.Log{Trail: new(storetest.Trail)}.Append(r.t.Context(), custody.Event{Tenant: tenant, Action: custody.SystemRead, System: "test", Item: string(r.id())})
	r.must(err)
	o, err := r.store.Open(r.t.Context(), evidence.Ref{Tenant: tenant, Unit: string(r.id()), Object: object}, receipt)
	r.must(err)
	return o
}

// file reads a fetched file back from evidence alone.
func (r *rig) file(a conversation.Attachment) (conversation.FileHeader, []byte) {
	r.t.Helper()
	part := func(object string) (conversation.FileHeader, []byte) {
		plain, err := r.open(object).ReadAll(1 << 30)
		r.must(err)
		h, body, err := conversation.DecodeFile(plain)
		r.must(err)
		return h, body
	}
	h, tail := part(a.Object)
	if h.Whole == nil {
		r.t.Fatal("the last part does not describe the file")
	}
	var out []byte
	for _, p := range h.Whole.Parts {
		_, body := part(p.Object)
		out = append(out, body...)
	}
	out = append(out, tail...)
	if sum := fmt.Sprintf("%x", sha256.Sum256(out)); sum != a.SHA256 || sum != h.Whole.SHA256 || int64(len(out)) != a.Size {
		r.t.Errorf("the parts are not the file that the register has")
	}
	return h, out
}

// parts lists the evidence objects of files.
func (r *rig) parts() []conversation.Object {
	r.t.Helper()
	s, err := r.catalog.Slice(r.t.Context(), r.id())
	r.must(err)
	return slices.DeleteFunc(s.Objects, func(o conversation.Object) bool { return o.File == nil })
}

// events counts the events of an action.
func (r *rig) events(a custody.Action) (n int) {
	r.t.Helper()
	records, err := r.trail.Range(r.t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour), 10_000)
	r.must(err)
	for _, rec := range records {
		if rec.Action == a {
			n++
		}
	}
	return n
}

// errDead is what everything answers after the process has died.
var errDead = errors.New("the process is dead")

// mortality kills a process at its n-th call to a store: before the call had any effect, or
// after it had its effect and before anybody was told.
type mortality struct {
	mu    sync.Mutex
	calls int
	dieAt int // 0: never
	after bool
	dead  bool
}

func (m *mortality) call(do func() error) error {
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return errDead
	}
	m.calls++
	dies := m.dieAt > 0 && m.calls == m.dieAt
	m.dead = m.dead || dies
	m.mu.Unlock()
	if dies && !m.after {
		return errDead
	}
	err := do()
	if dies {
		return errDead
	}
	return err
}

type mortalCatalog struct {
	*storetest.Catalog
	m *mortality
}

func (c mortalCatalog) Slice(ctx context.Context, id conversation.ID) (s conversation.Slice, err error) {
	err = c.m.call(func() (err error) { s, err = c.Catalog.Slice(ctx, id); return err })
	return s, err
}

func (c mortalCatalog) Claim(ctx context.Context, was conversation.Slice, cl conversation.Claim) error {
	return c.m.call(func() error { return c.Catalog.Claim(ctx, was, cl) })
}

func (c mortalCatalog) Attachment(ctx context.Context, id conversation.ID, a conversation.AttachmentID) (out conversation.Attachment, err error) {
	err = c.m.call(func() (err error) { out, err = c.Catalog.Attachment(ctx, id, a); return err })
	return out, err
}

func (c mortalCatalog) SaveAttachment(ctx context.Context, a conversation.Attachment) error {
	return c.m.call(func() error { return c.Catalog.SaveAttachment(ctx, a) })
}

type mortalStore struct {
	*evidence.Store
	m *mortality
}

func (s mortalStore) Put(ctx context.Context, o evidence.Sealed) error {
	return s.m.call(func() error { return s.Store.Put(ctx, o) })
}

func (s mortalStore) Exists(ctx context.Context, ref evidence.Ref) (ok bool, err error) {
	err = s.m.call(func() (err error) { ok, err = s.Store.Exists(ctx, ref); return err })
	return ok, err
}

type mortalTrail struct {
	*storetest.Trail
	m *mortality
}

func (t mortalTrail) Insert(ctx context.Context, r custody.Record) error {
	return t.m.call(func() error { return t.Trail.Insert(ctx, r) })
}
