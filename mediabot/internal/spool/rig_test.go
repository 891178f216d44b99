package spool

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/evidence"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const tenant = teams.TenantID("72f988bf-86f1-41af-91ab-2d7cd011db47")

var errAway = errors.New("storage is away")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// cloud is evidence in memory, with a switch and a memory of the order of things.
type cloud struct {
	tails storetest.Tails
	blobs storetest.Blobs
	keys  storetest.Keys
	vault *storetest.Vault

	mu    sync.Mutex
	away  func() bool
	order []string
	sums  map[string]string // what stands under a name, to tell a retry from another object
}

func newCloud() *cloud {
	return &cloud{vault: storetest.NewVault(), away: func() bool { return false }, sums: map[string]string{}}
}

func (c *cloud) do(kind, name string, body []byte, put func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away() {
		return errAway
	}
	err := put()
	if errors.Is(err, evidence.ErrExists) && c.sums[name] != string(body) {
		return fmt.Errorf("%s %s holds other bytes", kind, name)
	}
	if err == nil {
		c.sums[name] = string(body)
		c.order = append(c.order, kind)
	}
	return err
}

type cloudTails struct {
	*storetest.Tails
	c *cloud
}

func (t cloudTails) Create(ctx context.Context, name string, body []byte) error {
	return t.c.do("tail", "tail/"+name, body, func() error { return t.Tails.Create(ctx, name, body) })
}

type cloudBlobs struct {
	*storetest.Blobs
	c *cloud
}

func (b cloudBlobs) Create(ctx context.Context, name string, body []byte) error {
	return b.c.do("pack", "pack/"+name, body, func() error { return b.Blobs.Create(ctx, name, body) })
}

type cloudKeys struct {
	*storetest.Keys
	c *cloud
}

func (k cloudKeys) Insert(ctx context.Context, w evidence.WrappedKey) error {
	return k.c.do("key", "key/"+w.ID, w.Wrapped, func() error { return k.Keys.Insert(ctx, w) })
}

// rig is a spool and its store.
type rig struct {
	*Spool
	t         testing.TB
	c         *cloud
	store     *evidence.Store
	stop      func()
	mu        sync.Mutex
	recovered []Recovered
}

// open opens a spool on a disk. Nothing runs yet.
func open(t testing.TB, c *cloud, d disk, quota int64) *rig {
	t.Helper()
	r := &rig{t: t, c: c, stop: func() {}}
	if quota == 0 {
		quota = DefaultQuota
	}
	r.Spool = newSpool(Config{Keys: cloudKeys{&c.keys, c}, Quota: quota, Log: quiet, Recovered: r.told}, d)
	must(t, r.Spool.recover())
	var err error
	r.store, err = evidence.New(evidence.Config{
		Blobs: cloudBlobs{&c.blobs, c}, Tails: cloudTails{&c.tails, c}, Keys: r.Spool, Vault: c.vault, VaultHosts: []string{storetest.VaultHost},
	})
	must(t, err)
	return r
}

func (r *rig) told(x Recovered) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recovered = append(r.recovered, x)
	return nil
}

// start runs the spool until stop.
func (r *rig) start() *rig {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, r.store) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		must(r.t, <-done)
		must(r.t, r.Close())
	})
	return r
}

// speaker is a leg that gives out a part at each flush and a bundle every six seconds.
type speaker struct {
	mu     sync.Mutex
	h      conversation.BundleHeader
	epoch  time.Time
	seq    int
	part   int
	end    bool
	size   int
	events []conversation.LegEvent
	broken []error
	panics bool
	refuse []error
}

func newSpeaker(call teams.CallID, now time.Time) *speaker {
	s := &speaker{size: 200, epoch: now.UTC().Truncate(conversation.SegmentDuration)}
	s.h = conversation.BundleHeader{
		Format: conversation.BundleFormat, Tenant: tenant, Leg: conversation.LegOf(tenant, call), Call: call, Chain: "chain", Recorder: "bot",
		From: s.epoch, To: s.epoch,
	}
	return s
}

func (s *speaker) body(seq, part int) []byte {
	rng := rand.New(rand.NewPCG(uint64(seq), uint64(part)))
	b := make([]byte, s.size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return fmt.Appendf(b, "canary %d.%d", seq, part)
}

func (s *speaker) Flush(now time.Time, put func(conversation.BundleHeader, []byte) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.panics {
		panic("a fault in one leg")
	}
	give := func(seq, part int, final bool) error {
		h := s.h
		h.Seq, h.Part, h.Final = seq, part, final
		h.From = s.epoch.Add(time.Duration(seq) * conversation.SegmentDuration)
		h.To = h.From.Add(conversation.SegmentDuration)
		if !s.end {
			h.Segments = make([]conversation.Segment, 1)
		}
		if final {
			h.Outcome = conversation.OutcomeRecorded
		}
		err := put(h, s.body(seq, part))
		if err != nil {
			s.refuse = append(s.refuse, err)
		}
		return err
	}
	for !s.end && now.Sub(s.epoch) >= time.Duration(s.seq+1)*conversation.SegmentDuration {
		if err := give(s.seq, 0, false); err != nil {
			return err
		}
		s.seq, s.part = s.seq+1, 0
	}
	if s.end {
		return give(s.seq, 0, true)
	}
	s.part++
	return give(s.seq, s.part, false)
}

func (s *speaker) Event(e conversation.LegEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *speaker) Broken(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = append(s.broken, err)
}

func (s *speaker) over() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = true
}

// finish ends a leg and returns what was handed over.
func finish(t testing.TB, l *Line, s *speaker) chan Handed {
	t.Helper()
	s.over()
	handed := make(chan Handed, 1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	must(t, l.Finish(ctx, func(h Handed) { handed <- h }))
	return handed
}

// has reports whether a bundle is in a pack in evidence.
func (c *cloud) packed(t testing.TB, leg conversation.LegID, packs int) (members []string) {
	t.Helper()
	for n := range packs {
		name := string(tenant) + "/" + string(leg) + "/" + conversation.PackObject(leg, n)
		size, err := c.blobs.Size(context.Background(), name)
		must(t, err)
		b, err := c.blobs.ReadAt(context.Background(), name, 0, size)
		must(t, err)
		count := int(b[11]) | int(b[10])<<8
		for i := range count {
			members = append(members, fmt.Sprintf("%x", b[32+64*i:32+64*i+16]))
		}
	}
	return members
}

// expect checks that the packs hold exactly these bundles, in order.
func (c *cloud) expect(t testing.TB, leg conversation.LegID, packs int, want ...[2]int) {
	t.Helper()
	var names []string
	for _, w := range want {
		names = append(names, conversation.BundleObject(leg, w[0], w[1]))
	}
	if got := c.packed(t, leg, packs); !slices.Equal(got, names) {
		t.Errorf("%d packs hold %d bundles, want %d: %v", packs, len(got), len(names), want)
	}
}

func whole(n int) (out [][2]int) {
	for i := range n {
		out = append(out, [2]int{i, 0})
	}
	return out
}

// memDisk is a disk that can refuse and that forgets what was not synced when it crashes.
type memDisk struct {
	mu    sync.Mutex
	files map[int]*memFile
	fault func(op string) error
	syncs int
}

func newMemDisk() *memDisk {
	return &memDisk{files: map[int]*memFile{}, fault: func(string) error { return nil }}
}

type memFile struct {
	d      *memDisk
	b      []byte
	synced int
}

func (d *memDisk) do(op string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fault(op)
}

func (d *memDisk) create(n int) (file, error) {
	if err := d.do("create"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[n] != nil {
		return nil, errors.New("file exists")
	}
	d.files[n] = &memFile{d: d}
	return d.files[n], nil
}

func (d *memDisk) open(n int) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[n] == nil {
		return nil, errors.New("no such file")
	}
	return d.files[n], nil
}

func (d *memDisk) remove(n int) error {
	if err := d.do("remove"); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, n)
	return nil
}

func (d *memDisk) list() ([]int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []int
	for n := range d.files {
		out = append(out, n)
	}
	slices.Sort(out)
	return out, nil
}

// crash returns the disk as the next process finds it: of what was not synced, a part.
func (d *memDisk) crash(rng *rand.Rand) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := newMemDisk()
	for n, f := range d.files {
		keep := f.synced + rng.IntN(len(f.b)-f.synced+1)
		next.files[n] = &memFile{d: next, b: slices.Clone(f.b[:keep]), synced: keep}
	}
	return next
}

func (f *memFile) Write(b []byte) (int, error) {
	if err := f.d.do("write"); err != nil {
		f.d.mu.Lock()
		defer f.d.mu.Unlock()
		f.b = append(f.b, b[:len(b)/2]...) // the disk was full in the middle
		return len(b) / 2, err
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.b = append(f.b, b...)
	return len(b), nil
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if off >= int64(len(f.b)) {
		return 0, io.EOF
	}
	n := copy(b, f.b[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Sync() error {
	if err := f.d.do("sync"); err != nil {
		return err
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.synced = len(f.b)
	f.d.syncs++
	return nil
}

func (f *memFile) Close() error { return nil }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func metaSum(s string) [sha256.Size]byte { return sha256.Sum256([]byte(s)) }

func (s *speaker) told() []conversation.LegEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

func (s *speaker) refused() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.refuse)
}

func (s *speaker) faults() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.broken)
}

func (s *speaker) last() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq
}

func (d *memDisk) synced() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs
}

// alter changes a byte of a file behind the spool's back.
func (d *memDisk) alter(n int, off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[n].b[off] ^= 1
}
