package intake_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azpolicy "github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"steno/functions/chatexport"
	"steno/functions/exportplan"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
	"steno/tests/sim"
)

const (
	lag     = time.Minute
	history = 2 * 24 * time.Hour
)

// tally is what a campaign came to.
type tally struct {
	Seeds, Versions, Expected, Archived, Unobservable int
	Windows, Redelivered, Deaths                      int
	Notified, ByNoticeAlone                           int // expected because of a notification; of these, seen by no export
	Unkept                                            int // promises of processes that died, of versions that nobody could read again
}

func (t *tally) add(o tally) {
	t.Seeds++
	t.Versions, t.Expected, t.Archived, t.Unobservable = t.Versions+o.Versions, t.Expected+o.Expected, t.Archived+o.Archived, t.Unobservable+o.Unobservable
	t.Windows, t.Redelivered, t.Deaths = t.Windows+o.Windows, t.Redelivered+o.Redelivered, t.Deaths+o.Deaths
	t.Notified, t.ByNoticeAlone, t.Unkept = t.Notified+o.Notified, t.ByNoticeAlone+o.ByNoticeAlone, t.Unkept+o.Unkept
}

// campaign is one tenant and one archive.
type campaign struct {
	t      *testing.T
	seed   uint64
	rand   *rand.Rand
	now    time.Time // the tenant's clock
	tenant *sim.Tenant
	id     teams.TenantID
	graph  *msgraph.Client

	roster   storetest.Roster
	catalog  storetest.Catalog
	blobs    storetest.Blobs
	keys     storetest.Keys
	failures storetest.Failures
	jobs     storetest.Lookbacks
	trail    storetest.Trail
	queue    [][]byte
	early    early
	readings []reading
	tally    tally
}

// reading is a window that was finished: what stood in it all the while is expected.
type reading struct {
	conversation.Window
	at time.Time // by the tenant's clock, which stands still meanwhile
}

var vault = sync.OnceValue(storetest.NewVault)

func newCampaign(t *testing.T, seed uint64) *campaign {
	t.Helper()
	c := &campaign{t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 99)), now: time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)}
	c.tenant = sim.New(sim.Config{Seed: seed, People: sim.MinPeople, Messages: 80, Span: 4 * 24 * time.Hour, Now: func() time.Time { return c.now }, BaseURL: server.URL})
	c.id = teams.TenantID(c.tenant.ID())
	current.Store(c.tenant.Handler())
	var err error
	c.graph, err = msgraph.New(msgraph.Config{
		BaseURL: server.URL + "/v1.0", Credential: anyToken{}, Budget: noBudget{}, Log: slog.New(slog.DiscardHandler), Top: 5 + c.rand.IntN(20), Private: true,
		RetryMax: 2, RetryWait: time.Millisecond,
	})
	c.must(err)
	f := c.tenant.Faults()
	f.SlowBy(time.Millisecond)
	for _, kind := range sim.AllFaults() {
		if kind != sim.OversizedPage {
			f.Chance(kind, 0.015)
		}
	}
	f.Chance(sim.EditDuringPaging, 0.5)
	f.Chance(sim.Throttled, 0.001) // each costs the second that Graph asks for
	c.early.open(c)
	for i, p := range c.people() {
		if i%3 != 2 { // the others come later, or never
			c.join(p)
		}
	}
	return c
}

type anyToken struct{}

func (anyToken) GetToken(context.Context, azpolicy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "token", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

type noBudget struct{}

func (noBudget) Take(ctx context.Context) error         { return ctx.Err() }
func (noBudget) Pause(context.Context, time.Time) error { return nil }

func (c *campaign) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("seed %d: %v", c.seed, err)
	}
}

// people are those whom the groups name.
func (c *campaign) people() []teams.PersonID {
	var out []teams.PersonID
	for _, g := range []string{sim.RecordedEquities, sim.RecordedRates} {
		for _, p := range c.tenant.UsersIn(g) {
			if id := teams.PersonID(p); !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	return out
}

// recorded reports whether a person is recorded now.
func (c *campaign) recorded(p teams.PersonID) bool {
	periods, err := c.roster.PeriodsOf(c.t.Context(), p)
	c.must(err)
	return slices.ContainsFunc(periods, policy.Period.Open)
}

func (c *campaign) store(b *storetest.Blobs) *evidence.Store {
	c.t.Helper()
	s, err := evidence.New(evidence.Config{Blobs: b, Keys: &c.keys, Vault: vault(), VaultHosts: []string{storetest.VaultHost}})
	c.must(err)
	return s
}

func (c *campaign) join(p teams.PersonID) {
	c.t.Helper()
	c.must(c.roster.Apply(c.t.Context(), policy.Change{At: c.now, Opened: []policy.Period{{Person: p, Role: policy.RecordedUser, Desk: "desk", From: c.now}}}))
}

// change lets somebody into a recorded group, or out of it.
func (c *campaign) change() {
	people := c.people()
	p := people[c.rand.IntN(len(people))]
	periods, err := c.roster.PeriodsOf(c.t.Context(), p)
	c.must(err)
	for _, x := range periods {
		if x.Open() {
			if !x.From.Before(c.now) {
				return
			}
			x.To = c.now
			c.must(c.roster.Apply(c.t.Context(), policy.Change{At: c.now, Closed: []policy.Period{x}}))
			return
		}
	}
	c.join(p)
}

// live lets days go by: people write, edit and delete, come and go, and exports run.
func (c *campaign) live(days int) {
	for range days {
		for range 4 {
			c.now = c.now.Add(time.Duration(3+c.rand.IntN(5)) * time.Hour)
			for range 6 + c.rand.IntN(6) {
				c.now = c.now.Add(time.Duration(c.rand.IntN(90_000)) * time.Millisecond)
				c.tenant.Step()
				c.early.notify(c)
			}
			c.early.drain(c)
			c.now = c.now.Add(time.Second) // stamps run ahead of the clock where much is said at once
			if c.rand.IntN(3) == 0 {
				c.change()
			}
			c.now = c.now.Add(time.Millisecond)
			c.plan()
			c.work(c.rand.IntN(2*len(c.queue)/2 + 1))
		}
	}
	// Everything that is due is read to its end, however often it fails.
	c.now = c.now.Add(8 * 24 * time.Hour)
	c.early.deliver(c, len(c.early.late))
	c.early.drain(c)
	c.plan()
	c.work(1 << 20)
}

// plan queues what is due by a clock that is wrong by up to half the lag.
func (c *campaign) plan() {
	c.t.Helper()
	skew := time.Duration(c.rand.Int64N(int64(lag))) - lag/2
	p := exportplan.New(exportplan.Config{Tenant: c.id, Lag: lag, History: history}, &c.roster, &c.catalog, &c.failures, nil, custody.Log{Trail: &c.trail}, slog.New(slog.DiscardHandler))
	periods, err := policy.Custodians(c.t.Context(), &c.roster)
	c.must(err)
	progress, err := c.catalog.Progress(c.t.Context())
	c.must(err)
	by := map[teams.PersonID][]policy.Period{}
	for _, x := range periods {
		by[x.Person] = append(by[x.Person], x)
	}
	for person, own := range by {
		done := progress[person]
		done.Planned = slices.Clone(done.Planned)
		for _, w := range p.Due(exportplan.Custodian{ID: person, Periods: own}, &done, c.now.Add(skew)) {
			body, err := conversation.EncodeWindow(w)
			c.must(err)
			c.queue = append(c.queue, body)
		}
		c.must(c.catalog.SaveProgress(c.t.Context(), person, done))
	}
	slices.SortFunc(c.queue, bytes.Compare) // the order of a map is not the seed's
}

// Send puts a window back on the queue, or what the exporter puts back.
func (c *campaign) Send(_ context.Context, _ string, body []byte, _ time.Time) error {
	c.queue = append(c.queue, bytes.Clone(body))
	return nil
}

// work handles up to n messages in any order. A process may die at any step, and then, or by
// the queue's own mistake, the message comes again.
func (c *campaign) work(n int) {
	c.t.Helper()
	for range n {
		if len(c.queue) == 0 {
			return
		}
		i := c.rand.IntN(len(c.queue))
		body := c.queue[i]
		c.queue = slices.Delete(c.queue, i, i+1)
		m := &mortality{}
		if c.rand.IntN(4) == 0 {
			m.dieAt, m.after = 1+c.rand.IntN(30), c.rand.IntN(2) == 0
		}
		err := c.process(m).Handle(c.t.Context(), body)
		switch {
		case m.dead:
			c.tally.Deaths++
			c.queue = append(c.queue, body)
		case err != nil:
			c.must(err)
		case c.rand.IntN(10) == 0 && c.tally.Redelivered < 200:
			c.tally.Redelivered++
			c.queue = append(c.queue, body)
		}
	}
}

func (c *campaign) process(m *mortality) *chatexport.Exporter {
	return chatexport.New(chatexport.Config{Tenant: c.id, History: history, ClaimLease: time.Nanosecond}, c.graph, &c.roster, mortalCatalog{&c.catalog, m, c},
		mortalStore{c.store(&c.blobs), m}, chatexport.Registers{Failures: &c.failures, Lookbacks: &c.jobs}, custody.Log{Trail: mortalTrail{&c.trail, m}}, c, slog.New(slog.NewTextHandler(io.Discard, nil)))
}

// mortality ends a process at its n-th step, before the step has any effect or after it.
type mortality struct {
	mu    sync.Mutex
	steps int
	dieAt int // 0: never
	after bool
	dead  bool
}

var errDead = errors.New("the process is dead")

func (m *mortality) step(do func() error) error {
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return errDead
	}
	m.steps++
	dies := m.dieAt > 0 && m.steps == m.dieAt
	m.dead = dies
	m.mu.Unlock()
	if dies && !m.after {
		return errDead
	}
	if err := do(); err != nil || !dies {
		return err
	}
	return errDead
}

type mortalCatalog struct {
	conversation.Catalog
	m *mortality
	c *campaign
}

func (s mortalCatalog) Slice(ctx context.Context, id conversation.ID) (out conversation.Slice, err error) {
	err = s.m.step(func() (err error) { out, err = s.Catalog.Slice(ctx, id); return err })
	return out, err
}

func (s mortalCatalog) Claim(ctx context.Context, was conversation.Slice, cl conversation.Claim) error {
	return s.m.step(func() error { return s.Catalog.Claim(ctx, was, cl) })
}

func (s mortalCatalog) FinishWindow(ctx context.Context, d conversation.WindowDone, touched []conversation.Conversation) error {
	return s.m.step(func() error {
		if err := s.Catalog.FinishWindow(ctx, d, touched); err != nil {
			return err
		}
		if d.Pass != conversation.NotifiedPass {
			s.c.readings = append(s.c.readings, reading{d.Window, s.c.now})
		}
		return nil
	})
}

type mortalStore struct {
	*evidence.Store
	m *mortality
}

func (s mortalStore) Put(ctx context.Context, o evidence.Sealed) error {
	return s.m.step(func() error { return s.Store.Put(ctx, o) })
}

func (s mortalStore) Exists(ctx context.Context, ref evidence.Ref) (ok bool, err error) {
	err = s.m.step(func() (err error) { ok, err = s.Store.Exists(ctx, ref); return err })
	return ok, err
}

func (s mortalStore) Digest(ctx context.Context, ref evidence.Ref) (n int64, d [sha256.Size]byte, err error) {
	err = s.m.step(func() (err error) { n, d, err = s.Store.Digest(ctx, ref); return err })
	return n, d, err
}

type mortalTrail struct {
	*storetest.Trail
	m *mortality
}

func (s mortalTrail) Insert(ctx context.Context, r custody.Record) error {
	return s.m.step(func() error { return s.Trail.Insert(ctx, r) })
}
