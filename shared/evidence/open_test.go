package evidence_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/storetest"
	"steno/shared/teams"
)

func TestWhatIsPutIsReadByAnotherProcess(t *testing.T) {
	f := newFixture(t)
	for _, size := range []int{0, 1, 100, chunk - 1, chunk, chunk + 1, 2*chunk - 1, 2 * chunk, 2*chunk + 1, 5*chunk + 7} {
		plain := pattern(size)
		o := f.put(plain)
		if o.Size != int64(size) || o.Plain != sha256.Sum256(plain) || o.Ciphertext != sha256.Sum256(o.Bytes) {
			t.Errorf("size %d: size or digests of Sealed are wrong", size)
		}
		got, err := f.read(o.Ref)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("size %d: read %d bytes, %v", size, len(got), err)
		}
		if ok, err := f.store.Exists(t.Context(), o.Ref); !ok || err != nil {
			t.Errorf("size %d: exists %t, %v", size, ok, err)
		}
	}
	if ok, err := f.store.Exists(t.Context(), newRef()); ok || err != nil {
		t.Errorf("absent object: exists %t, %v", ok, err)
	}
}

func TestOldObjectsStayReadable(t *testing.T) {
	g := readGolden(t)
	f := newFixture(t)
	row := evidence.WrappedKey{
		Tenant: teams.TenantID(g.Row.Tenant), Unit: g.Row.Unit, ID: g.Row.ID, Vault: g.Row.Vault, Alg: g.Row.Alg, Wrapped: g.Row.Wrapped,
	}
	if err := f.keys.Insert(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	store, err := evidence.New(evidence.Config{
		Blobs: f.blobs, Keys: f.keys, Vault: goldenVault{g.privateKey(t)}, VaultHosts: []string{"vault.example"}, Now: f.clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range g.Objects {
		ref := evidence.Ref{Tenant: row.Tenant, Unit: g.Unit, Object: o.Object}
		if err := f.blobs.Create(t.Context(), blobName(ref), o.sealed(t)); err != nil {
			t.Fatal(err)
		}
		obj, err := store.Open(t.Context(), ref, f.receipt(g.Unit))
		if err != nil {
			t.Errorf("%s: %v", o.File, err)
			continue
		}
		plain, err := obj.ReadAll(1 << 20)
		if err != nil {
			t.Errorf("%s: %v", o.File, err)
		}
		o.check(t, plain)
	}
}

type goldenVault struct{ key *rsa.PrivateKey }

func (v goldenVault) WrappingKey(context.Context) (string, *rsa.PublicKey, error) {
	return "", nil, errors.New("the golden vault wraps nothing")
}

func (v goldenVault) Unwrap(_ context.Context, _, _ string, wrapped []byte) ([]byte, error) {
	return rsa.DecryptOAEP(sha256.New(), nil, v.key, wrapped, nil)
}

func TestOpenWithoutAGoodReceiptReadsAndUnwrapsNothing(t *testing.T) {
	f := newFixture(t)
	o := f.put(pattern(100))
	expired := f.receipt(unit)
	f.now.Add(custody.Lifetime.Milliseconds())
	log := custody.Log{Trail: &f.trail, Now: f.clock}
	list, err := log.Append(t.Context(), custody.Event{Tenant: tenant, Action: custody.List, System: "test", Item: unit})
	if err != nil {
		t.Fatal(err)
	}
	for what, r := range map[string]custody.Receipt{
		"none": {}, "expired": expired, "for another unit": f.receipt("other"), "for a listing": list,
	} {
		obj, err := f.store.Open(t.Context(), o.Ref, r)
		if !errors.Is(err, custody.ErrReceipt) || obj != nil {
			t.Errorf("receipt %s: %v, want ErrReceipt", what, err)
		}
	}
	if n := f.blobs.reads.Load(); n != 0 || f.vault.Unwraps() != 0 {
		t.Errorf("%d reads and %d unwraps, want none", n, f.vault.Unwraps())
	}
}

func TestRangesEqualTheSliceOfThePlainBytes(t *testing.T) {
	const seed = 46
	rng := rand.New(rand.NewPCG(seed, 0))
	f := newFixture(t)
	for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 3*chunk + 1234} {
		plain := pattern(size)
		obj, err := f.open(f.put(plain).Ref)
		if err != nil {
			t.Fatal(err)
		}
		if obj.Size() != int64(size) {
			t.Errorf("size %d, want %d", obj.Size(), size)
		}
		for range 200 {
			off, n := rng.IntN(size+2), rng.IntN(size+chunk)
			if rng.IntN(2) == 0 { // near an edge
				off = max(0, min(size+1, rng.IntN(5)*chunk-2+rng.IntN(5)))
			}
			want := bytes.NewReader(plain)
			wantBytes, gotBytes := make([]byte, n), make([]byte, n)
			wn, werr := want.ReadAt(wantBytes, int64(off))
			gn, gerr := obj.ReadAt(gotBytes, int64(off))
			if n == 0 {
				werr = gerr // the two differ at the end, and io.ReaderAt permits either
			}
			if gn != wn || !errors.Is(gerr, werr) || !bytes.Equal(gotBytes, wantBytes) {
				t.Fatalf("seed %d: size %d, ReadAt(%d bytes, %d): %d, %v; want %d, %v", seed, size, n, off, gn, gerr, wn, werr)
			}
		}
		if _, err := obj.ReadAt(make([]byte, 1), -1); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("negative offset: %v, want an error", err)
		}
	}
}

func TestObjectIsReadByManyAtOnce(t *testing.T) {
	f := newFixture(t)
	plain := pattern(4*chunk + 99)
	obj, err := f.open(f.put(plain).Ref)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			off := int64(i * len(plain) / 16)
			got := make([]byte, len(plain)/16)
			if _, err := obj.ReadAt(got, off); err != nil || !bytes.Equal(got, plain[off:off+int64(len(got))]) {
				t.Errorf("reader %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func TestReadAllRefusesMoreThanAskedFor(t *testing.T) {
	f := newFixture(t)
	obj, err := f.open(f.put(pattern(100)).Ref)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := obj.ReadAll(99); err == nil || b != nil {
		t.Errorf("read %d bytes, %v; want an error", len(b), err)
	}
	if b, err := obj.ReadAll(100); err != nil || len(b) != 100 {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
}

// eofBlobs fails as a reader does that wraps io.EOF.
type eofBlobs struct {
	*countingBlobs
	fail bool
}

func (b *eofBlobs) ReadAt(ctx context.Context, name string, off, n int64) ([]byte, error) {
	if b.fail {
		return nil, io.EOF
	}
	return b.countingBlobs.ReadAt(ctx, name, off, n)
}

func TestStorageThatAnswersEOFNeverYieldsZeros(t *testing.T) {
	f := newFixture(t)
	o := f.put(pattern(100))
	blobs := &eofBlobs{countingBlobs: f.blobs}
	store, err := evidence.New(evidence.Config{Blobs: blobs, Keys: f.keys, Vault: f.vault, VaultHosts: []string{storetest.VaultHost}, Now: f.clock})
	if err != nil {
		t.Fatal(err)
	}
	obj, err := store.Open(t.Context(), o.Ref, f.receipt(unit))
	if err != nil {
		t.Fatal(err)
	}
	blobs.fail = true
	if b, err := obj.ReadAll(100); !errors.Is(err, evidence.ErrCorrupt) || errors.Is(err, io.EOF) || b != nil {
		t.Errorf("ReadAll: %d bytes, %v; want ErrCorrupt", len(b), err)
	}
	if n, err := obj.ReadAt(make([]byte, 10), 0); !errors.Is(err, evidence.ErrCorrupt) || errors.Is(err, io.EOF) || n != 0 {
		t.Errorf("ReadAt: %d bytes, %v; want ErrCorrupt", n, err)
	}
}

func TestSecondPutIsRefusedAndChangesNothing(t *testing.T) {
	f := newFixture(t)
	o := f.put(pattern(100))
	again := f.sealAs(o.Ref, pattern(100))
	if bytes.Equal(again.Bytes, o.Bytes) {
		t.Fatal("sealing twice gave the same bytes")
	}
	for what, second := range map[string]evidence.Sealed{"same bytes": o, "sealed again": again} {
		if err := f.store.Put(t.Context(), second); !errors.Is(err, evidence.ErrExists) {
			t.Errorf("%s: %v, want ErrExists", what, err)
		}
	}
	if got, err := f.read(o.Ref); err != nil || !bytes.Equal(got, pattern(100)) {
		t.Errorf("after the second put: %v", err)
	}
}

func TestPutRefusesBytesThatWereNotSealedForTheName(t *testing.T) {
	f := newFixture(t)
	o := f.seal(pattern(100))
	for what, change := range map[string]func(*evidence.Sealed){
		"another name":  func(s *evidence.Sealed) { s.Ref = newRef() },
		"plain bytes":   func(s *evidence.Sealed) { s.Bytes = pattern(500) },
		"nothing":       func(s *evidence.Sealed) { s.Bytes = nil },
		"cut short":     func(s *evidence.Sealed) { s.Bytes = s.Bytes[:len(s.Bytes)-1] },
		"climbing unit": func(s *evidence.Sealed) { s.Ref.Unit = "../other" },
	} {
		bad := o
		change(&bad)
		if err := f.store.Put(t.Context(), bad); err == nil || errors.Is(err, evidence.ErrExists) {
			t.Errorf("%s: %v, want a refusal", what, err)
		}
	}
	if names := f.blobs.Names(); len(names) != 0 {
		t.Errorf("stored %v", names)
	}
}

func TestMalformedRefsAreRefused(t *testing.T) {
	f := newFixture(t)
	good := newRef()
	for what, ref := range map[string]evidence.Ref{
		"upper-case object id": {Tenant: good.Tenant, Unit: good.Unit, Object: strings.ToUpper("ab" + good.Object[2:])},
		"short object id":      {Tenant: good.Tenant, Unit: good.Unit, Object: good.Object[:30]},
		"no object id":         {Tenant: good.Tenant, Unit: good.Unit},
		"path as object id":    {Tenant: good.Tenant, Unit: good.Unit, Object: "../" + good.Object[3:]},
		"upper-case tenant":    {Tenant: teams.TenantID(strings.ToUpper(string(good.Tenant))), Unit: good.Unit, Object: good.Object},
		"no tenant":            {Unit: good.Unit, Object: good.Object},
		"tenant with a path":   {Tenant: "../1111-aaaa-4bbb-8ccc-2222222222222", Unit: good.Unit, Object: good.Object},
		"no unit":              {Tenant: good.Tenant, Object: good.Object},
		"unit with a slash":    {Tenant: good.Tenant, Unit: "a/b", Object: good.Object},
		"unit with a dot":      {Tenant: good.Tenant, Unit: "..", Object: good.Object},
		"upper-case unit":      {Tenant: good.Tenant, Unit: "Unit", Object: good.Object},
		"long unit":            {Tenant: good.Tenant, Unit: strings.Repeat("u", 65), Object: good.Object},
	} {
		if _, err := f.store.Seal(t.Context(), ref, nil); err == nil {
			t.Errorf("%s: sealed", what)
		}
		if _, err := f.store.Exists(t.Context(), ref); err == nil {
			t.Errorf("%s: looked up", what)
		}
		if _, err := f.store.Open(t.Context(), ref, f.receipt(cmp.Or(ref.Unit, unit))); err == nil {
			t.Errorf("%s: opened", what)
		}
	}
	if n := len(f.keys.All()); n != 0 || f.blobs.reads.Load() != 0 {
		t.Errorf("%d keys drawn, %d blobs asked for", n, f.blobs.reads.Load())
	}
}

func TestIncompleteConfigIsRefused(t *testing.T) {
	f := newFixture(t)
	for i, c := range []evidence.Config{
		{},
		{Keys: f.keys, Vault: f.vault, VaultHosts: []string{"h"}},
		{Blobs: f.blobs, Vault: f.vault, VaultHosts: []string{"h"}},
		{Blobs: f.blobs, Keys: f.keys, VaultHosts: []string{"h"}},
		{Blobs: f.blobs, Keys: f.keys, Vault: f.vault},
	} {
		if _, err := evidence.New(c); err == nil {
			t.Errorf("config %d was accepted", i)
		}
	}
}

func FuzzOpenNeverShowsForeignBytes(f *testing.F) {
	t := new(testing.T)
	fix := &fixture{t: t, blobs: &countingBlobs{}, keys: &storetest.Keys{}, vault: &spyVault{Vault: storetest.NewVault()}}
	store, err := evidence.New(evidence.Config{Blobs: fix.blobs, Keys: fix.keys, Vault: fix.vault, VaultHosts: []string{storetest.VaultHost}})
	if err != nil {
		f.Fatal(err)
	}
	plain := pattern(300)
	o, err := store.Seal(f.Context(), newRef(), plain)
	if err != nil {
		f.Fatal(err)
	}
	if err := store.Put(f.Context(), o); err != nil {
		f.Fatal(err)
	}
	f.Add(o.Bytes)
	f.Add(o.Bytes[:header])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, stored []byte) {
		fix.blobs.Tamper(blobName(o.Ref), stored)
		log := custody.Log{Trail: new(storetest.Trail)}
		r, err := log.Append(t.Context(), custody.Event{Action: custody.SystemRead, System: "test", Item: unit})
		if err != nil {
			t.Fatal(err)
		}
		obj, err := store.Open(t.Context(), o.Ref, r)
		if err != nil {
			return
		}
		if got, err := obj.ReadAll(1 << 20); err == nil && (!bytes.Equal(got, plain) || !bytes.Equal(stored, o.Bytes)) {
			t.Errorf("%d foreign bytes opened", len(got))
		}
	})
}
