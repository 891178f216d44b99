package evidence_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"steno/shared/evidence"
	"steno/shared/storetest"
)

func always(context.Context) error { return nil }

// plainBlobs are blobs that know nothing of dates.
type plainBlobs struct{ b *storetest.Blobs }

func (p plainBlobs) Create(ctx context.Context, name string, body []byte) error {
	return p.b.Create(ctx, name, body)
}
func (p plainBlobs) Size(ctx context.Context, name string) (int64, error) { return p.b.Size(ctx, name) }
func (p plainBlobs) ReadAt(ctx context.Context, name string, off, n int64) ([]byte, error) {
	return p.b.ReadAt(ctx, name, off, n)
}

func TestARetainUntilThatTheStoreCannotKeepIsAnErrorAndStoresNothing(t *testing.T) {
	f := newFixture(t)
	var b storetest.Blobs
	s, err := evidence.New(evidence.Config{Blobs: plainBlobs{&b}, Keys: f.keys, Vault: storetest.NewVault(), VaultHosts: []string{storetest.VaultHost}})
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Seal(t.Context(), newRef(), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	o.Until = time.Now().Add(time.Hour)
	if err := s.Put(t.Context(), o); err == nil || len(b.Names()) != 0 {
		t.Errorf("put: %v, stored %v", err, b.Names())
	}
	o.Until = time.Time{}
	if err := s.Put(t.Context(), o); err != nil {
		t.Errorf("without a date: %v", err)
	}
}

func TestOfAShreddedUnitNothingCanBeReadOnceCachesAreOver(t *testing.T) {
	f := newFixture(t)
	o, other := f.put([]byte("canary")), f.sealAs(evidence.Ref{Tenant: tenant, Unit: "another", Object: evidence.NewObjectID()}, []byte("another unit"))
	if err := f.store.Put(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	k := evidence.Keeper{Objects: &storetest.Blobs{}, Keys: f.keys, Now: f.clock}
	ids, err := k.KeyIDs(t.Context(), o.Ref.Tenant, o.Ref.Unit)
	if err != nil || len(ids) != 1 {
		t.Fatalf("%v, %v", ids, err)
	}
	stopped := errors.New("stop")
	if err := k.Shred(t.Context(), o.Ref.Tenant, o.Ref.Unit, func(context.Context) error { return stopped }); !errors.Is(err, stopped) {
		t.Fatalf("the guard said no: %v", err)
	}
	if _, err := f.read(o.Ref); err != nil {
		t.Fatalf("what the guard protects: %v", err)
	}
	for range 2 {
		if err := k.Shred(t.Context(), o.Ref.Tenant, o.Ref.Unit, always); err != nil {
			t.Fatal(err)
		}
	}
	f.now.Add(evidence.KeyCacheTTL.Milliseconds())
	if _, err := f.read(o.Ref); !errors.Is(err, evidence.ErrNotFound) {
		t.Errorf("the shredded unit: %v", err)
	}
	if _, err := f.read(other.Ref); err != nil {
		t.Errorf("another unit: %v", err)
	}
}

func TestAUnitIsCheckedWholeBeforeAnythingOfItGoes(t *testing.T) {
	now := time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)
	b := &storetest.Blobs{Clock: func() time.Time { return now }}
	k := evidence.Keeper{Objects: b, Tails: &storetest.Tails{}, Keys: new(storetest.Keys), Now: b.Clock}
	ref := newRef()
	names := []string{blobName(ref), blobName(evidence.Ref{Tenant: ref.Tenant, Unit: ref.Unit, Object: evidence.NewObjectID()})}
	for _, n := range names {
		if err := b.Create(t.Context(), n, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, want error) {
		t.Helper()
		if err := k.Check(t.Context(), ref.Tenant, ref.Unit); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	check("free", nil)
	if _, err := b.Protect(t.Context(), names[1], now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	check("one under a date", evidence.ErrLocked)
	if n, err := k.Hold(t.Context(), ref.Tenant, ref.Unit, true); n != 2 || err != nil {
		t.Fatalf("%d held, %v", n, err)
	}
	check("held", evidence.ErrHeld)
	if s, err := k.State(t.Context(), ref.Tenant, ref.Unit); err != nil || s.Objects != 2 || s.Held != 2 || !s.Until.Equal(now.Add(time.Hour)) || s.Locked {
		t.Errorf("%+v, %v", s, err)
	}
	if _, _, err := k.Sweep(t.Context(), ref.Tenant, ref.Unit, always); !errors.Is(err, evidence.ErrHeld) || len(b.Names()) != 2 {
		t.Errorf("swept under a hold: %v, left %v", err, b.Names())
	}
	if n, err := k.Hold(t.Context(), ref.Tenant, ref.Unit, false); n != 2 || err != nil {
		t.Fatalf("%d let go, %v", n, err)
	}
	if n, left, err := k.Sweep(t.Context(), ref.Tenant, ref.Unit, always); n != 1 || left != 1 || err != nil {
		t.Errorf("%d deleted, %d left, %v", n, left, err)
	}
	now = now.Add(time.Hour)
	if n, left, err := k.Sweep(t.Context(), ref.Tenant, ref.Unit, always); n != 1 || left != 0 || err != nil {
		t.Errorf("when the date has passed: %d deleted, %d left, %v", n, left, err)
	}
	for what, ref := range map[string]evidence.Ref{"tenant": {Tenant: "x", Unit: "u"}, "unit": {Tenant: ref.Tenant, Unit: ""}, "path": {Tenant: ref.Tenant, Unit: "../u"}} {
		if _, _, err := k.Sweep(t.Context(), ref.Tenant, ref.Unit, always); err == nil {
			t.Errorf("a malformed %s was swept", what)
		}
	}
}
