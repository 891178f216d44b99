package spool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"steno/shared/conversation"
	"steno/shared/evidence"
	"steno/shared/teams"
)

// Limits of a spool.
const (
	// DefaultQuota is how many bytes the journal may hold.
	DefaultQuota = 20 << 30
	// MaxLag is how much media of one leg may wait for evidence.
	MaxLag = 30 * time.Minute
	// HighWater is the part of the quota, or of MaxLag, above which new calls should go
	// elsewhere.
	HighWater = 0.8
	// CommitInterval is the time between two writes. What a crash loses is that, and what
	// the receiver had not read yet: less than a second in all.
	CommitInterval = 750 * time.Millisecond
	// PackBundles is how many bundles go into one pack, ten minutes of call. Packs are
	// cut where a bundle's number is a multiple of it, so that the same bundles give the
	// same pack whoever packs them.
	PackBundles = 100
	// PackSize is the size from which on a pack is closed early, in bytes.
	PackSize = 16 << 20
	// UploadPatience is how long uploads may fail before State reports it. They go on.
	UploadPatience = 5 * time.Minute

	maxBatch   = 64 << 20 // bytes that may wait for a disk
	uploads    = 16       // at one time
	uploadTime = 30 * time.Second
)

// ErrFull says that the spool takes no more media: evidence or the disk was away too
// long. What it holds is kept, and bundles without media are always taken, so that a leg
// can be closed.
var ErrFull = errors.New("spool is full")

// Evidence is the part of the evidence store that the spool writes to.
type Evidence interface {
	Seal(ctx context.Context, ref evidence.Ref, plain []byte) (evidence.Sealed, error)
	PutTail(ctx context.Context, o evidence.Sealed) error
	PutPack(ctx context.Context, p evidence.Pack) error
}

// Source is a leg that is asked once a second for what is complete.
type Source interface {
	Flush(now time.Time, put func(h conversation.BundleHeader, plain []byte) error) error
	// Event puts a fault of the spool into the leg's history.
	Event(e conversation.LegEvent)
	// Broken tells the leg that it cannot go on.
	Broken(err error)
}

// Config is what a spool needs.
type Config struct {
	Dir   string        // of its own; made if it is not there
	Keys  evidence.Keys // where wrapped keys end up
	Quota int64         // DefaultQuota if 0
	Log   *slog.Logger
	// Recovered is called once all that an earlier process left of a leg is in evidence.
	// It is called again, at the latest after the next start, until it returns nil.
	Recovered func(Recovered) error
}

// Handed says what of a leg is in evidence.
type Handed struct {
	Epoch   time.Time
	Bundles int // one more than the highest number
	Parts   int // that stand for the last bundle, 0 if it is whole
	Packs   int
}

// Recovered is a leg that an earlier process did not hand over.
type Recovered struct {
	Tenant   teams.TenantID
	Leg      conversation.LegID
	Call     teams.CallID
	Chain    teams.ChainID
	Recorder string
	// Final says that the leg was ended; Outcome is what became of it then. Otherwise the
	// recorder died in the middle.
	Final   bool
	Outcome conversation.Outcome
	// Faults say what of the leg was found altered or missing on disk.
	Faults []string
	Handed Handed
}

// State is how the spool is doing.
type State struct {
	Bytes   int64
	Legs    int           // that are not wholly in evidence
	Lag     time.Duration // of the leg that lags most
	Full    float64       // of quota or MaxLag, whichever is nearer; compare HighWater
	Failing time.Duration // how long uploads have been failing
	Alarm   bool          // Failing is more than UploadPatience, or the disk refuses
	Items   int           // bundles that wait for their pack
}

// Spool is safe for use by many goroutines. It implements evidence.Keys for the store
// that seals: keys are journaled here, before anything that is sealed under them, and go
// up first.
type Spool struct {
	cfg   Config
	root  *os.Root
	store Evidence
	kick  chan struct{}

	mu        sync.Mutex
	j         *journal
	legs      map[string]*leg // by unit
	batch     []byte
	waiting   []entry // records of the batch, in order
	failing   time.Time
	diskFault error
	running   int
	hurry     []*leg
	packing   sync.Mutex // a pack is large: one at a time
}

// entry is a record of the batch that is not on disk yet.
type entry struct {
	off  int // of its data in the batch
	size int
	done func(f *logFile, off int64) // called with mu held when it is durable
}

// Open opens the spool's directory and reads what an earlier process left there; what
// that was goes up as soon as Run is called.
func Open(cfg Config) (*Spool, error) {
	if cfg.Dir == "" || cfg.Keys == nil || cfg.Log == nil || cfg.Recovered == nil {
		return nil, errors.New("spool: directory, keys, log and recovered are required")
	}
	if cfg.Quota == 0 {
		cfg.Quota = DefaultQuota
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	root, err := os.OpenRoot(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s := newSpool(cfg, rootDisk{root})
	s.root = root
	if err := s.recover(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return s, nil
}

func newSpool(cfg Config, d disk) *Spool {
	return &Spool{cfg: cfg, kick: make(chan struct{}, 1), j: &journal{disk: d, next: 1}, legs: map[string]*leg{}}
}

// Close closes the journal. Run must have returned.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, f := range s.j.files {
		if f.f != nil {
			errs = append(errs, f.f.Close())
		}
	}
	if s.root != nil {
		errs = append(errs, s.root.Close())
	}
	return errors.Join(errs...)
}

// Insert implements evidence.Keys. The key is on disk when anything sealed under it is.
func (s *Spool) Insert(_ context.Context, k evidence.WrappedKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.legs[k.Unit]
	if g == nil || g.id.Tenant != k.Tenant {
		return fmt.Errorf("journal conversation key of %s: no such leg", k.Unit)
	}
	key := &keyEntry{key: k}
	g.keys = append(g.keys, key)
	s.append(metaRecord(recordKey, keyMeta{k}), func(f *logFile, _ int64) {
		key.file = f
		f.live++
	})
	return nil
}

// Get implements evidence.Keys: a recorder reads no keys.
func (s *Spool) Get(context.Context, teams.TenantID, string, string) (evidence.WrappedKey, error) {
	return evidence.WrappedKey{}, fmt.Errorf("the recorder reads no keys: %w", evidence.ErrNotFound)
}

// append adds a record to the batch. It is called with mu held.
func (s *Spool) append(r record, done func(f *logFile, off int64)) {
	s.batch = appendRecord(s.batch, r)
	s.waiting = append(s.waiting, entry{off: len(s.batch) - len(r.data), size: len(r.data), done: done})
}

// Begin takes a leg into the spool. From then on it is flushed once a second. A leg of
// which something is still there from before is refused.
func (s *Spool) Begin(h conversation.BundleHeader, src Source) (*Line, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	unit := string(h.Leg)
	if s.legs[unit] != nil {
		return nil, fmt.Errorf("spool leg %s: it is there already", h.Leg)
	}
	if err := s.room(nil, false); err != nil {
		return nil, fmt.Errorf("spool leg %s: %w", h.Leg, err)
	}
	g := &leg{
		id:  identity{Tenant: h.Tenant, Leg: h.Leg, Call: h.Call, Chain: h.Chain, Recorder: h.Recorder, Epoch: h.Epoch()},
		src: src, ended: make(chan struct{}),
	}
	s.legs[unit] = g
	return &Line{s, g}, nil
}

// room returns ErrFull if the spool can take no more. What is spare is taken all the
// same. It is called with mu held.
func (s *Spool) room(g *leg, spare bool) error {
	switch {
	case spare:
		return nil
	case s.j.size()+int64(len(s.batch)) > s.cfg.Quota:
		return fmt.Errorf("%w: %d bytes, as many as it may hold", ErrFull, s.j.size())
	case len(s.batch) > maxBatch:
		return fmt.Errorf("%w: the disk takes nothing", ErrFull)
	case g != nil && g.lag() > MaxLag:
		return fmt.Errorf("%w: %s of the leg wait for evidence", ErrFull, g.lag())
	}
	return nil
}

// put seals a bundle and adds it to the batch.
func (s *Spool) put(g *leg, h conversation.BundleHeader, plain []byte) error {
	s.mu.Lock()
	// A bundle without media is small, and says how the leg ended, or leads up to that.
	err := s.room(g, h.Final || len(h.Segments) == 0)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	ref := evidence.Ref{Tenant: h.Tenant, Unit: string(h.Leg), Object: conversation.BundleObject(h.Leg, h.Seq, h.Part)}
	sealed, err := s.store.Seal(context.Background(), ref, plain)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.Final {
		g.id.Outcome = h.Outcome
	}
	meta := itemMeta{
		identity: g.id, Seq: h.Seq, Part: h.Part, From: h.From, To: h.To, Final: h.Final, SHA256: sealed.Ciphertext[:],
	}
	b, err := json.Marshal(meta)
	if err != nil {
		return fmt.Errorf("journal bundle %d of %s: %w", h.Seq, h.Leg, err)
	}
	it := &item{itemMeta: meta, sum: sealed.Ciphertext}
	g.coming += meta.media()
	it.size = int64(len(sealed.Bytes))
	s.append(record{recordItem, b, sealed.Bytes, sealed.Ciphertext}, func(f *logFile, off int64) {
		it.file, it.off = f, off
		g.coming -= it.media()
		g.add(it)
	})
	return nil
}

// Run commits once a second and uploads, until ctx ends; then it commits once more. What
// is not in evidence by then is taken up by the next process.
func (s *Spool) Run(ctx context.Context, store Evidence) error {
	s.store = store
	tick := time.NewTicker(CommitInterval)
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		s.commit(time.Now(), s.flushed())
		s.dispatch(ctx, &wg)
		select {
		case <-ctx.Done():
			s.commit(time.Now(), s.flushed())
			return nil
		case <-tick.C:
			continue
		case <-s.kick:
		}
		s.commit(time.Now(), s.hurried())
		s.dispatch(ctx, &wg)
	}
}

// flushed lists the legs that a commit asks.
func (s *Spool) flushed() (open []*leg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurry = nil
	for _, g := range s.legs {
		if g.src != nil && !g.broken && !g.final {
			open = append(open, g)
		}
	}
	return open
}

// hurried lists those that do not want to wait for the next second.
func (s *Spool) hurried() []*leg {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := slices.DeleteFunc(s.hurry, func(g *leg) bool { return g.broken || g.finished })
	s.hurry = nil
	return open
}

// commit flushes legs and writes what there is. A batch that the disk refused is kept and
// written again, in front of what has come since.
func (s *Spool) commit(now time.Time, open []*leg) {
	for _, g := range open {
		s.flush(g, now)
	}
	s.mu.Lock()
	batch, waiting := s.batch, s.waiting
	s.batch, s.waiting = nil, nil
	if len(batch) == 0 && len(s.j.gone) == 0 {
		s.mu.Unlock()
		return
	}
	t, err := s.j.prepare(batch)
	s.mu.Unlock()
	if err == nil {
		err = t.write()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.j.torn, s.diskFault = true, err
		s.restore(batch, waiting)
		s.cfg.Log.Error("journal not written", slog.String("alarm", "spool-disk"), slog.String("cause", err.Error()))
		return
	}
	s.diskFault = nil
	err = s.j.written(t)
	for _, e := range waiting {
		e.done(t.file, t.at+int64(e.off))
	}
	if err := errors.Join(err, s.j.sweep()); err != nil {
		s.cfg.Log.Error("journal file not removed", slog.String("cause", err.Error()))
	}
	if s.batch == nil && cap(batch) < 4<<20 {
		s.batch = batch[:0]
	}
}

// wake makes Run commit a leg at once.
func (s *Spool) wake(g *leg) {
	s.mu.Lock()
	s.hurry = append(s.hurry, g)
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// restore puts a batch back in front.
func (s *Spool) restore(batch []byte, waiting []entry) {
	for i := range s.waiting {
		s.waiting[i].off += len(batch)
	}
	s.batch = append(batch, s.batch...)
	s.waiting = append(waiting, s.waiting...)
}

// flush asks one leg. One that panics is over, and no other.
func (s *Spool) flush(g *leg, now time.Time) {
	defer func() {
		if p := recover(); p != nil {
			err := fmt.Errorf("leg %s: internal fault: %v", g.id.Leg, p)
			s.cfg.Log.Error("leg broken", slog.String("alarm", "leg-broken"), slog.String("cause", err.Error()))
			s.mu.Lock()
			g.broken = true
			s.mu.Unlock()
			g.src.Broken(err)
		}
	}()
	err := g.src.Flush(now, func(h conversation.BundleHeader, plain []byte) error { return s.put(g, h, plain) })
	if err != nil {
		s.cfg.Log.Error("leg not spooled", slog.String("alarm", "leg-not-spooled"), slog.String("cause", err.Error()))
	}
}

// State reports how the spool is doing.
func (s *Spool) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := State{Bytes: s.j.size() + int64(len(s.batch)), Legs: len(s.legs)}
	for _, g := range s.legs {
		st.Lag = max(st.Lag, g.lag())
		st.Items += len(g.items)
	}
	if !s.failing.IsZero() {
		st.Failing = time.Since(s.failing)
	}
	st.Full = max(float64(st.Bytes)/float64(s.cfg.Quota), float64(st.Lag)/float64(MaxLag))
	st.Alarm = st.Failing > UploadPatience || s.diskFault != nil
	return st
}
