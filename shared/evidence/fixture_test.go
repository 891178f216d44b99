package evidence_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const (
	tenant = teams.TenantID("11111111-aaaa-4bbb-8ccc-222222222222")
	unit   = "conversation-20260314"
	chunk  = 64 << 10
	header = 160
	tag    = 16
)

// fixture is a store in memory whose parts can be tampered with.
type fixture struct {
	t        *testing.T
	blobs    *countingBlobs
	tails    storetest.Tails
	keys     *storetest.Keys
	vault    *spyVault
	trail    storetest.Trail
	now      atomic.Int64 // unix milliseconds
	store    *evidence.Store
	recovery *evidence.RecoveryKey
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, blobs: &countingBlobs{}, keys: &storetest.Keys{}, vault: &spyVault{Vault: storetest.NewVault()}}
	f.now.Store(time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC).UnixMilli())
	f.store = f.newStore()
	return f
}

func (f *fixture) clock() time.Time { return time.UnixMilli(f.now.Load()).UTC() }

// newStore is another process over the same storage.
func (f *fixture) newStore() *evidence.Store {
	f.t.Helper()
	s, err := evidence.New(evidence.Config{
		Blobs: f.blobs, Tails: &f.tails, Keys: f.keys, Vault: f.vault, VaultHosts: []string{storetest.VaultHost}, Recovery: f.recovery, Now: f.clock,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

func newRef() evidence.Ref {
	return evidence.Ref{Tenant: tenant, Unit: unit, Object: evidence.NewObjectID()}
}

func (f *fixture) seal(plain []byte) evidence.Sealed { return f.sealAs(newRef(), plain) }

func (f *fixture) sealAs(ref evidence.Ref, plain []byte) evidence.Sealed {
	f.t.Helper()
	o, err := f.store.Seal(f.t.Context(), ref, plain)
	if err != nil {
		f.t.Fatal(err)
	}
	return o
}

func (f *fixture) put(plain []byte) evidence.Sealed {
	f.t.Helper()
	o := f.seal(plain)
	if err := f.store.Put(f.t.Context(), o); err != nil {
		f.t.Fatal(err)
	}
	return o
}

func (f *fixture) receipt(unit string) custody.Receipt {
	f.t.Helper()
	log := custody.Log{Trail: &f.trail, Now: f.clock}
	r, err := log.Append(f.t.Context(), custody.Event{Tenant: tenant, Action: custody.SystemRead, System: "test", Item: unit})
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

func (f *fixture) open(ref evidence.Ref) (*evidence.Object, error) {
	f.t.Helper()
	return f.store.Open(f.t.Context(), ref, f.receipt(ref.Unit))
}

// read opens an object in a new process and reads it whole.
func (f *fixture) read(ref evidence.Ref) ([]byte, error) {
	f.t.Helper()
	o, err := f.newStore().Open(f.t.Context(), ref, f.receipt(ref.Unit))
	if err != nil {
		return nil, err
	}
	return o.ReadAll(1 << 30)
}

// conversationKey unwraps the key that an object names.
func (f *fixture) conversationKey(o evidence.Sealed) []byte {
	f.t.Helper()
	row, err := f.keys.Get(f.t.Context(), o.Ref.Tenant, o.Ref.Unit, hex.EncodeToString(o.Bytes[8:24]))
	if err != nil {
		f.t.Fatal(err)
	}
	ck, err := f.vault.Vault.Unwrap(f.t.Context(), row.Vault, row.Alg, row.Wrapped)
	if err != nil {
		f.t.Fatal(err)
	}
	return ck
}

func blobName(r evidence.Ref) string { return string(r.Tenant) + "/" + r.Unit + "/" + r.Object }

// countingBlobs counts what is asked of it.
type countingBlobs struct {
	storetest.Blobs
	reads atomic.Int64
}

func (b *countingBlobs) Size(ctx context.Context, name string) (int64, error) {
	b.reads.Add(1)
	return b.Blobs.Size(ctx, name)
}

func (b *countingBlobs) ReadAt(ctx context.Context, name string, off, n int64) ([]byte, error) {
	b.reads.Add(1)
	return b.Blobs.ReadAt(ctx, name, off, n)
}

// spyVault may name another wrapping key than it has.
type spyVault struct {
	*storetest.Vault
	id string
}

func (v *spyVault) WrappingKey(ctx context.Context) (string, *rsa.PublicKey, error) {
	id, public, err := v.Vault.WrappingKey(ctx)
	if v.id != "" {
		id = v.id
	}
	return id, public, err
}

// pattern is n bytes that repeat nowhere.
func pattern(n int) []byte {
	seed := sha256.Sum256([]byte("steno test pattern"))
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(b) // documented never to fail
	return b
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
