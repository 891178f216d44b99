package chatexport_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"steno/functions/chatexport"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const (
	tenant  = teams.TenantID("11111111-1111-4111-8111-111111111111")
	alice   = teams.PersonID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa")
	bob     = teams.PersonID("bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb")
	thread1 = "19:first@thread.v2"
	thread2 = "19:second@thread.v2"
)

var (
	day  = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	from = day.Add(-time.Millisecond)
	to   = day.Add(24 * time.Hour)
)

// mailbox is Graph's side: what each person's mailbox holds, page by page.
type mailbox struct {
	mu       sync.Mutex
	messages map[teams.PersonID][]item
	top      int
	asked    int
	windows  []conversation.Window                   // as asked for
	answer   func(n int) (msgraph.Page, error, bool) // overrides the n-th answer
}

type item struct {
	modified time.Time
	raw      []byte
}

func (b *mailbox) Messages(_ context.Context, _ teams.Source, user teams.PersonID, from, to time.Time, next string) (msgraph.Page, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	b.windows = append(b.windows, conversation.Window{From: from, To: to})
	if b.answer != nil {
		if p, err, ok := b.answer(b.asked); ok {
			return p, err
		}
	}
	var in [][]byte
	for _, m := range b.messages[user] {
		if m.modified.After(from) && m.modified.Before(to) {
			in = append(in, m.raw)
		}
	}
	skip := 0
	if next != "" {
		fmt.Sscanf(next, "skip=%d", &skip)
	}
	p := msgraph.Page{FetchedAt: to, RequestID: "request"}
	end := min(skip+b.top, len(in))
	p.Items = in[min(skip, end):end]
	if end < len(in) {
		p.Next = fmt.Sprintf("skip=%d", end)
	}
	return p, nil
}

// say puts a message version into the mailboxes of all given.
func (b *mailbox) say(thread, id, etag string, sent, modified time.Time, text string, who ...teams.PersonID) {
	raw := fmt.Appendf(nil, "{ \"id\":%q,\"etag\":%q,\"chatId\":%q,\n\"messageType\":\"message\",\"createdDateTime\":%q,\"lastModifiedDateTime\":%q,\"from\":{\"user\":{\"id\":%q,\"displayName\":\"A\"}},\"body\":{\"contentType\":\"text\",\"content\":%q}}",
		id, etag, thread, sent.Format(time.RFC3339Nano), modified.Format(time.RFC3339Nano), who[0], text)
	for _, p := range who {
		b.messages[p] = append(b.messages[p], item{modified, raw})
	}
}

// edit replaces a version in all mailboxes: the old one can never be read again.
func (b *mailbox) edit(id, etag string, modified time.Time, text string) {
	for p, list := range b.messages {
		for i, m := range list {
			if bytes.Contains(m.raw, fmt.Appendf(nil, "\"id\":%q", id)) {
				var fields map[string]any
				if err := json.Unmarshal(m.raw, &fields); err != nil {
					panic(err)
				}
				fields["etag"], fields["lastModifiedDateTime"] = etag, modified.Format(time.RFC3339Nano)
				fields["body"] = map[string]any{"contentType": "text", "content": text}
				raw, err := json.Marshal(fields)
				if err != nil {
					panic(err)
				}
				b.messages[p][i] = item{modified, raw}
			}
		}
	}
}

// queue keeps what was put back.
type queue struct {
	mu   sync.Mutex
	sent [][]byte
}

func (q *queue) Send(_ context.Context, _ string, body []byte, _ time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sent = append(q.sent, body)
	return nil
}

func (q *queue) take() [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.sent
	q.sent = nil
	return out
}

// rig is an archive and the tenant in front of it; processes come and go.
type rig struct {
	t        testing.TB
	graph    *mailbox
	catalog  *storetest.Catalog
	blobs    *storetest.Blobs
	keys     *storetest.Keys
	vault    *storetest.Vault
	roster   *storetest.Roster
	trail    storetest.Trail
	jobs     storetest.Lookbacks
	failures storetest.Failures
	queue    *queue
	lease    time.Duration
	log      *slog.Logger
}

var sharedVault = sync.OnceValue(storetest.NewVault)

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{
		t: t, graph: &mailbox{messages: map[teams.PersonID][]item{}, top: 50}, catalog: &storetest.Catalog{}, blobs: &storetest.Blobs{},
		keys: &storetest.Keys{}, vault: sharedVault(), roster: &storetest.Roster{}, queue: &queue{}, lease: time.Nanosecond,
		log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	var opened []policy.Period
	for _, p := range []teams.PersonID{alice, bob} {
		opened = append(opened, policy.Period{Person: p, Role: policy.RecordedUser, Desk: "d", From: day.AddDate(-1, 0, 0)})
	}
	if err := r.roster.Apply(t.Context(), policy.Change{At: day, Opened: opened}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) evidence() *evidence.Store {
	r.t.Helper()
	s, err := evidence.New(evidence.Config{Blobs: r.blobs, Keys: r.keys, Vault: r.vault, VaultHosts: []string{storetest.VaultHost}})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// process starts an exporter that dies as m says.
func (r *rig) process(m *mortality) *chatexport.Exporter {
	return chatexport.New(chatexport.Config{Tenant: tenant, ClaimLease: r.lease},
		r.graph, r.roster, mortalCatalog{r.catalog, m}, mortalStore{r.evidence(), m},
		chatexport.Registers{Lookbacks: &r.jobs, Failures: &r.failures}, custody.Log{Trail: mortalTrail{&r.trail, m}}, r.queue, r.log)
}

func message(t testing.TB, w conversation.Window) []byte {
	t.Helper()
	b, err := conversation.EncodeWindow(w)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func window(p teams.PersonID) conversation.Window {
	return conversation.Window{Tenant: tenant, Custodian: p, From: from, To: to, Pass: 1}
}

// archived reads everything back through evidence, as thread|id|etag → how often, and
// checks that storage and catalog agree.
func (r *rig) archived() map[string]int {
	r.t.Helper()
	out := map[string]int{}
	store, names := r.evidence(), map[string]bool{}
	trail := custody.Log{Trail: &storetest.Trail{}}
	for _, s := range r.catalog.All() {
		receipt, err := trail.Append(r.t.Context(), custody.Event{Tenant: tenant, Action: custody.SystemRead, System: "test", Item: string(s.Conversation.ID)})
		if err != nil {
			r.t.Fatal(err)
		}
		if len(s.Objects) > s.Conversation.Objects {
			r.t.Errorf("%s counts %d objects and has %d", s.Conversation.ID, s.Conversation.Objects, len(s.Objects))
		}
		for _, o := range s.Objects {
			names[string(tenant)+"/"+string(s.Conversation.ID)+"/"+o.Name] = true
			obj, err := store.Open(r.t.Context(), evidence.Ref{Tenant: tenant, Unit: string(s.Conversation.ID), Object: o.Name}, receipt)
			if err != nil {
				r.t.Fatalf("the catalog promises what does not open: %v", err)
			}
			plain, err := obj.ReadAll(1 << 20)
			if err != nil {
				r.t.Fatal(err)
			}
			r.checkBound(store, s.Conversation.ID, o, evidence.Commitment(obj.Blind(), sha256.Sum256(plain)))
			_, items, err := conversation.DecodeBatch(plain)
			if err != nil {
				r.t.Fatal(err)
			}
			for _, raw := range items {
				m := conversation.ReadMessage(raw, alice)
				out[string(m.Thread)+"|"+string(m.Message)+"|"+string(m.ETag)]++
				if !r.sent(raw) {
					r.t.Errorf("archived bytes of %s are not the bytes Graph sent", m.Message)
				}
			}
		}
	}
	for _, n := range r.blobs.Names() {
		if !names[n] {
			r.t.Errorf("blob %s is known to no conversation", n)
		}
	}
	return out
}

// events lists what the trail has of an action.
func (r *rig) events(a custody.Action) []custody.Record {
	r.t.Helper()
	records, err := r.trail.Range(r.t.Context(), time.Time{}, time.Now().Add(time.Hour), 1<<20)
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.DeleteFunc(records, func(e custody.Record) bool { return e.Action != a })
}

// bound lists what the trail binds.
func (r *rig) bound() []custody.Object {
	r.t.Helper()
	records, err := r.trail.Range(r.t.Context(), time.Time{}, time.Now().Add(time.Hour), 1<<20)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []custody.Object
	for _, e := range records {
		out = append(out, e.Objects...)
	}
	return out
}

// checkBound checks that what the trail says of an object, if it says anything, is true. A
// run that died may have left an object that nobody bound.
func (r *rig) checkBound(store *evidence.Store, id conversation.ID, o conversation.Object, commit [sha256.Size]byte) {
	r.t.Helper()
	for _, b := range r.bound() {
		if b.Object != o.Name {
			continue
		}
		_, digest, err := store.Digest(r.t.Context(), evidence.Ref{Tenant: tenant, Unit: string(id), Object: o.Name})
		if err != nil {
			r.t.Fatal(err)
		}
		want := custody.Object{Unit: string(id), Object: o.Name, Seq: o.Seq, SHA256: hex.EncodeToString(digest[:]), Commit: hex.EncodeToString(commit[:])}
		if b != want {
			r.t.Errorf("the trail binds %+v, stored is %+v", b, want)
		}
	}
}

// wantAllBound demands that each object of the archive is bound once, and each number
// that was promised stands for one object or is void.
func (r *rig) wantAllBound() {
	r.t.Helper()
	bound := map[string]int{}
	numbers := map[string]int{}
	for _, b := range r.bound() {
		bound[b.Object]++
		numbers[fmt.Sprintf("%s %d", b.Unit, b.Seq)]++
	}
	for _, s := range r.catalog.All() {
		for _, o := range s.Objects {
			if bound[o.Name] != 1 {
				r.t.Errorf("object %s is bound %d times", o.Name, bound[o.Name])
			}
		}
		for n := range s.Conversation.Objects {
			if got := numbers[fmt.Sprintf("%s %d", s.Conversation.ID, n)]; got != 1 {
				r.t.Errorf("number %d of %s stands for %d objects", n, s.Conversation.ID, got)
			}
		}
	}
}

// wantVoids demands that a number without an object is void by the trail's own word.
func (r *rig) wantVoids() {
	r.t.Helper()
	void := map[string]bool{}
	for _, b := range r.bound() {
		void[fmt.Sprintf("%s %d", b.Unit, b.Seq)] = b.Void
	}
	for _, s := range r.catalog.All() {
		for n := range s.Conversation.Objects {
			there := slices.ContainsFunc(s.Objects, func(o conversation.Object) bool { return o.Seq == n })
			if key := fmt.Sprintf("%s %d", s.Conversation.ID, n); !there && !void[key] {
				r.t.Errorf("number %s has no object, and nothing says why", key)
			}
		}
	}
}

// everSent remembers all versions a mailbox ever held, since edits replace them.
func (r *rig) sent(raw []byte) bool {
	for _, list := range r.graph.messages {
		if slices.ContainsFunc(list, func(i item) bool { return bytes.Equal(i.raw, raw) }) {
			return true
		}
	}
	return bytes.Contains(raw, []byte("since replaced"))
}

func (r *rig) wantOnce(keys ...string) {
	r.t.Helper()
	got := r.archived()
	for _, k := range keys {
		if got[k] != 1 {
			r.t.Errorf("%s is archived %d times, want once", k, got[k])
		}
		delete(got, k)
	}
	for k := range got {
		r.t.Errorf("%s is archived and should not be", k)
	}
}

func at(h int) time.Time { return day.Add(time.Duration(h) * time.Hour) }

// talk fills two threads that Alice and Bob share.
func (r *rig) talk() []string {
	r.graph.say(thread1, "101", "101", at(1), at(1), "one", alice, bob)
	r.graph.say(thread1, "102", "102", at(2), at(2), "two", bob, alice)
	r.graph.say(thread2, "101", "101", at(3), at(3), "the same id in another thread", alice, bob)
	return []string{thread1 + "|101|101", thread1 + "|102|102", thread2 + "|101|101"}
}
