package notified_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"steno/functions/internal/intake"
	"steno/functions/internal/keyring"
	"steno/functions/notified"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/notification"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
	"steno/tests/sim"
)

const (
	tenant  = teams.TenantID("11111111-1111-4111-8111-111111111111")
	alice   = teams.PersonID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa")
	bob     = teams.PersonID("bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb")
	carol   = teams.PersonID("cccccccc-cccc-4ccc-8ccc-cccccccccccc") // never recorded
	team    = teams.PersonID("dddddddd-dddd-4ddd-8ddd-dddddddddddd")
	group   = "19:group@thread.v2"
	second  = "19:second@thread.v2"
	channel = "19:channel@thread.tacv2"
)

var day = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

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
	down  bool // evidence takes nothing
}

func (m *mortality) call(do func() error) error {
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return errDead
	}
	m.calls++
	dies := m.dieAt > 0 && m.calls == m.dieAt
	m.dead = dies
	m.mu.Unlock()
	if !dies {
		return do()
	}
	if m.after {
		if err := do(); err != nil {
			return err
		}
	}
	return errDead
}

type mortalCatalog struct {
	conversation.Catalog
	m *mortality
}

func (c mortalCatalog) Slice(ctx context.Context, id conversation.ID) (s conversation.Slice, err error) {
	err = c.m.call(func() (err error) { s, err = c.Catalog.Slice(ctx, id); return err })
	return s, err
}

func (c mortalCatalog) Claim(ctx context.Context, was conversation.Slice, cl conversation.Claim) error {
	return c.m.call(func() error { return c.Catalog.Claim(ctx, was, cl) })
}

func (c mortalCatalog) FinishWindow(ctx context.Context, d conversation.WindowDone, t []conversation.Conversation) error {
	return c.m.call(func() error { return c.Catalog.FinishWindow(ctx, d, t) })
}

type mortalStore struct {
	*evidence.Store
	m *mortality
}

func (s mortalStore) Seal(ctx context.Context, ref evidence.Ref, plain []byte) (o evidence.Sealed, err error) {
	err = s.m.call(func() (err error) { o, err = s.Store.Seal(ctx, ref, plain); return err })
	return o, err
}

func (s mortalStore) Put(ctx context.Context, o evidence.Sealed) error {
	if s.m.down {
		return errDead
	}
	return s.m.call(func() error { return s.Store.Put(ctx, o) })
}

func (s mortalStore) Exists(ctx context.Context, ref evidence.Ref) (ok bool, err error) {
	err = s.m.call(func() (err error) { ok, err = s.Store.Exists(ctx, ref); return err })
	return ok, err
}

func (s mortalStore) Open(ctx context.Context, ref evidence.Ref, r custody.Receipt) (o *evidence.Object, err error) {
	err = s.m.call(func() (err error) { o, err = s.Store.Open(ctx, ref, r); return err })
	return o, err
}

type mortalTrail struct {
	*storetest.Trail
	m *mortality
}

func (t mortalTrail) Insert(ctx context.Context, r custody.Record) error {
	return t.m.call(func() error { return t.Trail.Insert(ctx, r) })
}

// bus is the queue: a message stays until it is done, and one whose holder died is delivered
// again.
type bus struct {
	mu       sync.Mutex
	next     int
	messages map[int][]byte
	held     map[int]bool
}

func (b *bus) put(body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	b.messages[b.next] = body
}

// release lets locks run out.
func (b *bus) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.held)
}

func (b *bus) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.messages)
}

// mortalBus is the queue as a mortal process sees it. Delays are not kept: what is put back
// is there for the next run, not for this one.
type mortalBus struct {
	*bus
	m     *mortality
	until int // ids that were there when the process began
}

func (b mortalBus) Receive(_ context.Context, most int, _ time.Duration) (out []notification.Envelope, err error) {
	err = b.m.call(func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		for id := 1; id <= b.until && len(out) < most; id++ {
			body, there := b.messages[id]
			if !there || b.held[id] {
				continue
			}
			b.held[id] = true
			out = append(out, notification.Envelope{Body: body, Done: func(context.Context) error {
				return b.m.call(func() error {
					b.mu.Lock()
					defer b.mu.Unlock()
					delete(b.messages, id)
					return nil
				})
			}})
		}
		return nil
	})
	return out, err
}

func (b mortalBus) Send(_ context.Context, _ string, body []byte, _ time.Time) error {
	return b.m.call(func() error { b.put(body); return nil })
}

// rig is an archive with its early lane; processes come and go.
type rig struct {
	t        testing.TB
	catalog  *storetest.Catalog
	blobs    *storetest.Blobs // evidence
	claims   *storetest.Blobs // private keys and large parcels
	keys     *storetest.Keys
	roster   *storetest.Roster
	trail    storetest.Trail
	register *storetest.Subscriptions
	bus      *bus
	public   *rsa.PublicKey
	log      bytes.Buffer
	parked   []string
	sent     map[string][]byte // plain bytes by version
}

// pair is one key pair for all rigs, since making one takes a while.
var pair = sync.OnceValues(func() (kept []byte, cert notification.Certificate) {
	key, cert, err := notification.NewKeyPair("00000000000000000000000000000001", time.Now())
	if err == nil {
		kept, err = key.Seal()
	}
	if err != nil {
		panic(err)
	}
	return kept, cert
})

var vault = sync.OnceValue(storetest.NewVault)

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{
		t: t, catalog: &storetest.Catalog{}, blobs: &storetest.Blobs{}, claims: &storetest.Blobs{}, keys: &storetest.Keys{}, roster: &storetest.Roster{},
		register: &storetest.Subscriptions{}, bus: &bus{messages: map[int][]byte{}, held: map[int]bool{}}, sent: map[string][]byte{},
	}
	opened := []policy.Period{{Person: team, Role: policy.RecordedTeam, Desk: "d", From: day.AddDate(-1, 0, 0)}}
	for _, p := range []teams.PersonID{alice, bob} {
		opened = append(opened, policy.Period{Person: p, Role: policy.RecordedUser, Desk: "d", From: day.AddDate(-1, 0, 0)})
	}
	r.ok(r.roster.Apply(t.Context(), policy.Change{At: day, Opened: opened}))
	for id, res := range map[string]notification.Resource{
		"alice": {Custodian: alice}, "bob": {Custodian: bob}, "carol": {Custodian: carol}, "chats": {}, "channels": {Source: teams.Channels},
	} {
		r.ok(r.register.Save(t.Context(), notification.Subscription{ID: id, Resource: res}))
	}
	kept, cert := pair()
	parsed, err := x509.ParseCertificate(cert.DER)
	r.ok(err)
	r.public = parsed.PublicKey.(*rsa.PublicKey)
	unit := keyring.UnitPrefix + cert.ID
	sealed, err := r.store(r.claims).Seal(t.Context(), evidence.Ref{Tenant: tenant, Unit: unit, Object: evidence.PartObject(unit, 0)}, kept)
	r.ok(err)
	r.ok(r.store(r.claims).Put(t.Context(), sealed))
	r.ok(r.register.SaveCertificate(t.Context(), cert))
	return r
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) store(b *storetest.Blobs) *evidence.Store {
	r.t.Helper()
	s, err := evidence.New(evidence.Config{Blobs: b, Keys: r.keys, Vault: vault(), VaultHosts: []string{storetest.VaultHost}})
	r.ok(err)
	return s
}

// process starts the function anew; it dies as m says.
func (r *rig) process(m *mortality) *notified.Notified {
	log := slog.New(slog.NewTextHandler(&r.log, nil))
	trail := custody.Log{Trail: mortalTrail{&r.trail, m}}
	catalog := mortalCatalog{r.catalog, m}
	b := mortalBus{r.bus, m, r.bus.next}
	return notified.New(notified.Config{Tenant: tenant, On: true}, notified.Stores{
		Roster: r.roster, Register: r.register, Catalog: catalog, Inbox: b, Queue: b, Claims: r.claims,
		Intake: intake.New(intake.Config{System: "notified", ClaimLease: time.Nanosecond}, r.roster, catalog, mortalStore{r.store(r.blobs), m}, trail, log),
		Keys:   keyring.New(tenant, r.register, mortalStore{r.store(r.claims), m}, evidence.Keeper{Objects: r.claims, Keys: r.keys}, trail),
		Park: func(_ context.Context, reason, id string, body []byte) error {
			return m.call(func() error { r.parked = append(r.parked, reason+" "+id+" "+string(body)); return nil })
		},
	}, log)
}

// drain runs healthy processes until the queue is empty.
func (r *rig) drain() {
	r.t.Helper()
	for range 20 {
		r.bus.release()
		if r.bus.len() == 0 {
			return
		}
		r.ok(r.process(&mortality{}).Run(r.t.Context()))
	}
	r.t.Fatalf("%d messages stay on the queue:\n%s", r.bus.len(), r.log.String())
}

// version is a message version as Graph notifies of it.
type version struct {
	thread, id, etag, from, text string
}

func (v version) key() string { return v.thread + "|" + v.id + "|" + v.etag }

func (v version) bytes() []byte {
	place := fmt.Sprintf(`"chatId":%q`, v.thread)
	if v.thread == channel {
		place = fmt.Sprintf(`"chatId":null,"channelIdentity":{"teamId":%q,"channelId":%q}`, team, v.thread)
	}
	return fmt.Appendf(nil, `{"@odata.context":"x", "id":%q,"etag":%q,%s,"messageType":"message","createdDateTime":"2026-03-02T09:00:00Z","from":{"user":{"id":%q,"displayName":"Ann"}},"body":{"content":%q}}`,
		v.id, v.etag, place, v.from, v.text)
}

func (v version) resource() string {
	if v.thread == channel {
		return fmt.Sprintf("teams('%s')/channels('%s')/messages('%s')", team, v.thread, v.id)
	}
	return fmt.Sprintf("chats('%s')/messages('%s')", v.thread, v.id)
}

// item is the notification of a version to a subscription, its content encrypted.
func (r *rig) item(sub string, v version) notification.Item {
	r.t.Helper()
	_, cert := pair()
	c, err := sim.Encrypt(r.public, cert.ID, v.bytes())
	r.ok(err)
	raw, err := json.Marshal(c)
	r.ok(err)
	r.sent[v.key()] = v.bytes()
	return notification.Item{Subscription: sub, Tenant: tenant, Change: "created", Resource: v.resource(), ID: v.id, Content: raw}
}

// queue puts items on the queue as the webhook does, as one parcel.
func (r *rig) queue(items ...notification.Item) {
	r.t.Helper()
	b, err := notification.EncodeParcel(notification.Parcel{Received: time.Now(), Items: items})
	r.ok(err)
	r.bus.put(b)
}

// archived reads everything back through evidence, as thread|id|etag → how often.
func (r *rig) archived() map[string]int {
	r.t.Helper()
	out := map[string]int{}
	store, names := r.store(r.blobs), map[string]bool{}
	trail := custody.Log{Trail: &storetest.Trail{}}
	for _, s := range r.catalog.All() {
		receipt, err := trail.Append(r.t.Context(), custody.Event{Tenant: tenant, Action: custody.SystemRead, System: "test", Item: string(s.Conversation.ID)})
		r.ok(err)
		for _, o := range s.Objects {
			names[string(tenant)+"/"+string(s.Conversation.ID)+"/"+o.Name] = true
			obj, err := store.Open(r.t.Context(), evidence.Ref{Tenant: tenant, Unit: string(s.Conversation.ID), Object: o.Name}, receipt)
			r.ok(err)
			plain, err := obj.ReadAll(1 << 20)
			r.ok(err)
			_, items, err := conversation.DecodeBatch(plain)
			r.ok(err)
			for i, raw := range items {
				m := conversation.ReadMessage(raw, alice)
				key := string(m.Thread) + "|" + string(m.Message) + "|" + string(m.ETag)
				out[key]++
				if sent := r.sent[key]; !bytes.Equal(sent, raw) || sha256.Sum256(raw) != o.Versions[i].SHA256 {
					r.t.Errorf("archived bytes of %s are not those that Graph encrypted", key)
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

// clear returns everything that lies anywhere in the open: names and bytes of blobs, rows of
// the catalog, the trail, the queue, what is parked, and the log.
func (r *rig) clear() string {
	r.t.Helper()
	var all strings.Builder
	for _, b := range []*storetest.Blobs{r.blobs, r.claims} {
		for _, n := range b.Names() {
			size, err := b.Size(r.t.Context(), n)
			r.ok(err)
			body, err := b.ReadAt(r.t.Context(), n, 0, size)
			r.ok(err)
			fmt.Fprintf(&all, "%s %s\n", n, body)
		}
	}
	records, err := r.trail.Range(r.t.Context(), time.Time{}, time.Now().Add(time.Hour), 1<<20)
	r.ok(err)
	slices, err := json.Marshal(r.catalog.All())
	r.ok(err)
	fmt.Fprintf(&all, "%+v\n%s\n%s\n%s\n", records, slices, strings.Join(r.parked, "\n"), r.log.String())
	for _, m := range r.bus.messages {
		all.Write(m)
	}
	return all.String()
}

func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
