package sequencer_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"steno/functions/sequencer"
	"steno/shared/custody"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const tenant = teams.TenantID("11111111-1111-4111-8111-111111111111")

// rig is a trail, its log and a clock.
type rig struct {
	t      *testing.T
	trail  storetest.Trail
	tiles  *mortal
	signer *signer
	logs   strings.Builder
	// witnesses are those of the sequencers that start from now on.
	witnesses map[string]custody.Witness
	revoked   []string // the same

	mu  sync.Mutex
	now time.Time
}

func newRig(t *testing.T) *rig {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, tiles: &mortal{}, signer: &signer{key: key}, now: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)}
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

// happen appends n events, a millisecond apart.
func (r *rig) happen(n int) {
	r.t.Helper()
	log := custody.Log{Trail: &r.trail, Now: r.clock}
	for range n {
		r.pass(time.Millisecond)
		if _, err := log.Append(r.t.Context(), custody.Event{Tenant: tenant, Action: custody.Read, System: "test", Item: "item"}); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) sequencer() *sequencer.Sequencer {
	return sequencer.New(sequencer.Config{Tenant: tenant, SignEvery: time.Hour, Now: r.clock, Witnesses: r.witnesses, Revoked: r.revoked}, &r.trail, r.tiles, r.signer,
		slog.New(slog.NewTextHandler(&r.logs, nil)))
}

func (r *rig) run() {
	r.t.Helper()
	if err := r.sequencer().Run(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// head returns the tree as the head has it.
func (r *rig) head() (custody.Head, custody.Checkpoint) {
	r.t.Helper()
	h, _, err := custody.ReadHead(r.t.Context(), &r.tiles.Tiles)
	if err != nil {
		r.t.Fatal(err)
	}
	at, err := h.Checkpoint(custody.Origin(tenant))
	if err != nil {
		r.t.Fatal(err)
	}
	return h, at
}

// whole fails unless each event of the trail is in the log, once, and nothing else is.
func (r *rig) whole(events int) {
	r.t.Helper()
	_, at := r.head()
	f, err := custody.Audit(r.t.Context(), &r.trail, custody.NewTree(&r.tiles.Tiles, at), r.now.Add(-300*24*time.Hour), r.now.Add(time.Hour))
	if err != nil {
		r.t.Fatal(err)
	}
	if f.Records != events || f.Leaves != int64(events) || len(f.Unlogged) != 0 || len(f.Orphans) != 0 {
		r.t.Fatalf("%d events: %d records, %d leaves, %d unlogged, %d orphans", events, f.Records, f.Leaves, len(f.Unlogged), len(f.Orphans))
	}
}

// signer is a vault that signs; it counts.
type signer struct {
	key   *ecdsa.PrivateKey            // the current one
	old   map[string]*ecdsa.PrivateKey // those before, by id
	count atomic.Int64
	down  atomic.Bool
}

func (s *signer) SigningKey(context.Context) (string, *ecdsa.PublicKey, error) {
	return s.id(), &s.key.PublicKey, nil
}

// id is that of the current key.
func (s *signer) id() string {
	return fmt.Sprintf("https://vault.example/keys/steno-sign/%d", len(s.old)+1)
}

// rotate makes a new version current; the old one stays enabled.
func (s *signer) rotate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	if s.old == nil {
		s.old = map[string]*ecdsa.PrivateKey{}
	}
	s.old[s.id()], s.key = s.key, key
}

func (s *signer) Sign(_ context.Context, id string, digest [sha256.Size]byte) ([]byte, error) {
	if s.down.Load() {
		return nil, errors.New("vault is down")
	}
	s.count.Add(1)
	if old := s.old[id]; old != nil {
		return ecdsa.SignASN1(rand.Reader, old, digest[:])
	}
	if id != s.id() {
		return nil, errors.New("no such key")
	}
	return ecdsa.SignASN1(rand.Reader, s.key, digest[:])
}

// mortal dies before or after the call of that number: before, the call has no effect;
// after, it has, and nobody learns of it.
type mortal struct {
	storetest.Tiles
	calls int // left to live
	dies  bool
	after bool
}

var errDead = errors.New("process died")

func (m *mortal) call(do func() error) error {
	if !m.dies {
		return do()
	}
	if m.calls--; m.calls > 0 {
		return do()
	}
	if m.calls == 0 && m.after {
		_ = do() // the process never sees what came of it
	}
	return errDead
}

func (m *mortal) Create(ctx context.Context, name string, body []byte) error {
	return m.call(func() error { return m.Tiles.Create(ctx, name, body) })
}

func (m *mortal) Read(ctx context.Context, name string) (b []byte, err error) {
	err2 := m.call(func() error { b, err = m.Tiles.Read(ctx, name); return err })
	return b, err2
}

func (m *mortal) Head(ctx context.Context) (b []byte, revision string, err error) {
	err2 := m.call(func() error { b, revision, err = m.Tiles.Head(ctx); return err })
	return b, revision, err2
}

func (m *mortal) SwapHead(ctx context.Context, body []byte, revision string) error {
	return m.call(func() error { return m.Tiles.SwapHead(ctx, body, revision) })
}

func TestEachEventIsInTheLogOnceAndTheCheckpointCoversIt(t *testing.T) {
	r := newRig(t)
	r.run() // a log of nothing is no log
	if h, _ := r.head(); h.Size != 0 || r.signer.count.Load() != 0 {
		t.Fatalf("head %+v after nothing happened", h)
	}
	total := 0
	for _, n := range []int{1, 300, 0, 7} {
		r.happen(n)
		total += n
		r.run()
		r.whole(total)
		r.pass(time.Hour)
	}
	r.run()
	c, err := custody.Latest(t.Context(), r.tiles, custody.Origin(tenant), &r.signer.key.PublicKey)
	if err != nil || c.Size != int64(total) {
		t.Fatalf("checkpoint of %d leaves, want %d: %v", c.Size, total, err)
	}
}

func TestMoreThanABatchIsLoggedInOneRun(t *testing.T) {
	r := newRig(t)
	const n = 2*sequencer.MaxBatch + 100
	r.happen(n)
	r.run()
	r.whole(n)
	if h, _ := r.head(); len(h.Next) != 0 || len(h.Recent) > n {
		t.Errorf("%d promised, %d remembered", len(h.Next), len(h.Recent))
	}
}

func TestAnEventThatBecomesDurableLateIsLogged(t *testing.T) {
	r := newRig(t)
	r.happen(10)
	r.run()
	said := r.clock().Add(-3 * time.Millisecond) // among those that are logged
	r.pass(sequencer.Overlap - time.Second)
	r.happen(3)
	r.run()
	late := custody.Log{Trail: &r.trail, Now: func() time.Time { return said }}
	if _, err := late.Append(t.Context(), custody.Event{Tenant: tenant, Action: custody.Read, System: "test", Item: "late"}); err != nil {
		t.Fatal(err)
	}
	r.run()
	r.whole(14)
}

func TestWhatIsRememberedDoesNotGrowWithTheLog(t *testing.T) {
	r := newRig(t)
	for i := range 40 {
		r.happen(50)
		r.pass(time.Minute)
		r.run()
		r.whole(50 * (i + 1))
	}
	if h, _ := r.head(); len(h.Recent) > 50*12 {
		t.Errorf("%d of %d events are remembered", len(h.Recent), h.Size)
	}
}

func TestACheckpointIsSignedWhenItIsDueAndNotMoreOften(t *testing.T) {
	r := newRig(t)
	for range 30 { // two and a half hours, five minutes at a time
		r.happen(3)
		r.run()
		r.pass(5 * time.Minute)
	}
	if n := r.signer.count.Load(); n != 3 {
		t.Errorf("%d signatures in two and a half hours", n)
	}
	r.pass(24 * time.Hour)
	r.run()
	signed := r.signer.count.Load()
	for range 5 { // nothing happens
		r.pass(2 * time.Hour)
		r.run()
	}
	if n := r.signer.count.Load(); n != signed {
		t.Errorf("%d signatures over what was signed", n-signed)
	}
}

func TestAVaultThatIsAwayCostsNoLeafAndIsAskedAgain(t *testing.T) {
	r := newRig(t)
	r.signer.down.Store(true)
	r.happen(5)
	if err := r.sequencer().Run(t.Context()); err == nil {
		t.Fatal("no error though nothing could be signed")
	}
	r.whole(5)
	r.signer.down.Store(false)
	r.run()
	if c, err := custody.Latest(t.Context(), r.tiles, custody.Origin(tenant), &r.signer.key.PublicKey); err != nil || c.Size != 5 {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestACrashAtAnyStorageCallLosesDoublesAndForksNothing(t *testing.T) {
	for _, after := range []bool{false, true} {
		for step := 1; ; step++ {
			r := newRig(t)
			r.happen(250)
			r.run()
			_, before := r.head()
			r.pass(time.Hour)
			r.happen(20) // over the edge of a tile
			r.tiles.dies, r.tiles.calls, r.tiles.after = true, step, after
			err := r.sequencer().Run(t.Context())
			done := err == nil
			if !done && !errors.Is(err, errDead) {
				t.Fatal(err)
			}
			r.tiles.dies = false
			r.happen(5) // what the next run finds is more than what the dead one saw
			r.run()
			r.whole(275)
			_, now := r.head()
			p, err := custody.NewTree(r.tiles, now).ProveConsistency(t.Context(), before.Size)
			if err != nil {
				t.Fatal(err)
			}
			if err := custody.CheckConsistency(before, now, p); err != nil {
				t.Fatalf("killed at call %d, after=%v: %v", step, after, err)
			}
			if done {
				if step < 8 {
					t.Fatalf("a run takes %d calls only: this test kills nothing", step)
				}
				break
			}
		}
	}
}

func TestManySequencersAtOnceMakeOneLog(t *testing.T) {
	r := newRig(t)
	const writers, rounds, each = 4, 12, 37
	total := 0
	last := custody.Checkpoint{Origin: custody.Origin(tenant)}
	for range rounds {
		r.happen(each)
		total += each
		r.pass(20 * time.Minute)
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				s := sequencer.New(sequencer.Config{Tenant: tenant, SignEvery: time.Hour, Now: r.clock}, &r.trail, r.tiles, r.signer, slog.New(slog.DiscardHandler))
				if err := s.Run(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		r.run() // what a loser left to a winner that had looked before
		r.whole(total)
		_, now := r.head()
		p, err := custody.NewTree(r.tiles, now).ProveConsistency(t.Context(), last.Size)
		if err != nil {
			t.Fatal(err)
		}
		if err := custody.CheckConsistency(last, now, p); err != nil {
			t.Fatal(err)
		}
		last = now
	}
}

func TestALogThatWasTamperedWithIsNotContinued(t *testing.T) {
	for _, what := range []string{"tile", "entries", "head", "removed"} {
		r := newRig(t)
		r.happen(100)
		r.run()
		h, revision, err := custody.ReadHead(t.Context(), r.tiles)
		if err != nil {
			t.Fatal(err)
		}
		damage := func(name string) {
			b, err := r.tiles.Read(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			b[40] ^= 1
			r.tiles.Tamper(name, b)
		}
		switch what {
		case "tile":
			damage("tile/0/000.p/100")
		case "entries":
			damage("tile/entries/000.p/100")
		case "head":
			h.Root = strings.Repeat("ab", 32)
			if err := custody.SaveHead(t.Context(), r.tiles, h, revision); err != nil {
				t.Fatal(err)
			}
		case "removed":
			r.tiles.Tamper("tile/0/000.p/100", nil)
		}
		r.happen(1)
		if err := r.sequencer().Run(t.Context()); err == nil {
			t.Errorf("%s: continued", what)
		} else if what != "removed" && !strings.Contains(r.logs.String(), "alarm=custody-log") {
			t.Errorf("%s: no alarm: %v", what, err)
		}
		if now, _ := r.head(); now.Size != 100 {
			t.Errorf("%s: the head moved to %d", what, now.Size)
		}
	}
}

func TestAnEventOfTheFutureWaitsForItsTime(t *testing.T) {
	r := newRig(t)
	ahead := custody.Log{Trail: &r.trail, Now: func() time.Time { return r.clock().Add(time.Hour) }}
	if _, err := ahead.Append(t.Context(), custody.Event{Tenant: tenant, Action: custody.Read, System: "test", Item: "item"}); err != nil {
		t.Fatal(err)
	}
	r.happen(3)
	r.run()
	if h, _ := r.head(); h.Size != 3 {
		t.Fatalf("%d leaves", h.Size)
	}
	r.pass(2 * time.Hour)
	r.run()
	r.whole(4)
}

// BenchmarkAppend measures how many leaves a second go into a log in memory.
func BenchmarkAppend(b *testing.B) {
	var tiles storetest.Tiles
	at := custody.Checkpoint{Origin: "bench"}
	batch := make([]custody.Digest, sequencer.MaxBatch)
	leaves := 0
	for b.Loop() {
		for i := range batch {
			batch[i] = sha256.Sum256(fmt.Appendf(nil, "%d", leaves+i))
		}
		next, err := custody.NewTree(&tiles, at).Append(b.Context(), batch)
		if err != nil {
			b.Fatal(err)
		}
		at, leaves = next, leaves+len(batch)
	}
	b.ReportMetric(float64(leaves)/b.Elapsed().Seconds(), "leaves/s")
	b.ReportMetric(math.Round(float64(at.Size)), "leaves")
}
