package evidence_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"steno/shared/evidence"
	"steno/shared/storetest"
)

// wrap is what anybody with the vault's public key can do.
func (f *fixture) wrap(secret []byte) []byte {
	f.t.Helper()
	_, public, err := f.vault.WrappingKey(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	w, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, secret, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return w
}

func TestExchangedConversationKeyIsRefused(t *testing.T) {
	f := newFixture(t)
	o := f.put(pattern(100))
	row := f.keys.All()[0]
	other := f.seal(nil)
	f.store = f.newStore() // draws a key of its own
	second := f.seal(nil)
	if bytes.Equal(other.Bytes[8:24], second.Bytes[8:24]) {
		t.Fatal("two processes share a conversation key")
	}
	for what, secret := range map[string][]byte{
		"a fresh key":                         pattern(32),
		"another valid key of the unit":       f.conversationKey(second),
		"a key of the wrong length":           pattern(16),
		"no key at all":                       {},
		"a key with one bit that is not ours": append(f.conversationKey(o)[:31:31], f.conversationKey(o)[31]^1),
	} {
		bad := row
		bad.Wrapped = f.wrap(secret)
		f.keys.Tamper(row.Tenant, row.Unit, row.ID, bad)
		plain, err := f.read(o.Ref)
		refused(t, what, plain, err)
	}
	f.keys.Tamper(row.Tenant, row.Unit, row.ID, row)
	if plain, err := f.read(o.Ref); err != nil || !bytes.Equal(plain, pattern(100)) {
		t.Errorf("with the row as it was: %v", err)
	}
}

func TestForeignKeyRowIsRefusedBeforeTheVaultIsAsked(t *testing.T) {
	f := newFixture(t)
	o := f.put(pattern(100))
	row := f.keys.All()[0]
	for what, change := range map[string]func(*evidence.WrappedKey){
		"another vault":            func(r *evidence.WrappedKey) { r.Vault = "https://evil.example/keys/wrap/1" },
		"host that ends like ours": func(r *evidence.WrappedKey) { r.Vault = "https://" + storetest.VaultHost + ".evil.example/keys/wrap/1" },
		"ours as user name":        func(r *evidence.WrappedKey) { r.Vault = "https://" + storetest.VaultHost + "@evil.example/keys/wrap/1" },
		"another port":             func(r *evidence.WrappedKey) { r.Vault = "https://" + storetest.VaultHost + ":444/keys/wrap/1" },
		"plain http":               func(r *evidence.WrappedKey) { r.Vault = "http://" + storetest.VaultHost + "/keys/wrap/1" },
		"query":                    func(r *evidence.WrappedKey) { r.Vault += "?api-version=1" },
		"no version":               func(r *evidence.WrappedKey) { r.Vault = "https://" + storetest.VaultHost + "/keys/wrap" },
		"path that climbs":         func(r *evidence.WrappedKey) { r.Vault = "https://" + storetest.VaultHost + "/keys/wrap/../../secrets" },
		"a secret":                 func(r *evidence.WrappedKey) { r.Vault = "https://" + storetest.VaultHost + "/secrets/wrap/1" },
		"not a URL":                func(r *evidence.WrappedKey) { r.Vault = "\x7f" },
		"SHA-1":                    func(r *evidence.WrappedKey) { r.Alg = "RSA-OAEP" },
		"PKCS #1 v1.5":             func(r *evidence.WrappedKey) { r.Alg = "RSA1_5" },
		"no algorithm":             func(r *evidence.WrappedKey) { r.Alg = "" },
		"another tenant":           func(r *evidence.WrappedKey) { r.Tenant = "99999999-aaaa-4bbb-8ccc-222222222222" },
		"another unit":             func(r *evidence.WrappedKey) { r.Unit = "other" },
		"another id":               func(r *evidence.WrappedKey) { r.ID = evidence.NewObjectID() },
	} {
		bad := row
		change(&bad)
		f.keys.Tamper(row.Tenant, row.Unit, row.ID, bad)
		if _, err := f.read(o.Ref); !errors.Is(err, evidence.ErrKey) {
			t.Errorf("%s: %v, want ErrKey", what, err)
		}
	}
	if n := f.vault.Unwraps(); n != 0 {
		t.Errorf("%d keys were unwrapped", n)
	}
}

func TestNothingIsSealedUnderAKeyThatWouldNotBeUnwrapped(t *testing.T) {
	f := newFixture(t)
	f.vault.id = "https://elsewhere.example/keys/wrap/1"
	if _, err := f.store.Seal(t.Context(), newRef(), nil); !errors.Is(err, evidence.ErrKey) {
		t.Errorf("seal: %v, want ErrKey", err)
	}
	if n := len(f.keys.All()); n != 0 {
		t.Errorf("%d keys were stored", n)
	}
}

func TestDestroyedKeyErasesTheConversation(t *testing.T) {
	f := newFixture(t)
	o := f.put(pattern(100))
	f.keys = &storetest.Keys{}
	if _, err := f.read(o.Ref); !errors.Is(err, evidence.ErrNotFound) {
		t.Errorf("read: %v, want ErrNotFound", err)
	}
}

func TestUnwrappedKeyIsKeptForItsTimeAndNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		o := f.put(pattern(100))
		reader, err := evidence.New(evidence.Config{
			Blobs: f.blobs, Keys: f.keys, Vault: f.vault, VaultHosts: []string{storetest.VaultHost}, // Now is the bubble's clock
		})
		if err != nil {
			t.Fatal(err)
		}
		f.now.Store(time.Now().UnixMilli())
		for _, step := range []struct {
			wait time.Duration
			want int
		}{{0, 1}, {time.Minute, 1}, {evidence.KeyCacheTTL - time.Minute - time.Millisecond, 1}, {time.Millisecond, 2}, {time.Second, 2}} {
			time.Sleep(step.wait)
			f.now.Store(time.Now().UnixMilli())
			if _, err := reader.Open(t.Context(), o.Ref, f.receipt(unit)); err != nil {
				t.Fatal(err)
			}
			if n := f.vault.Unwraps(); n != step.want {
				t.Errorf("%s later: %d unwraps, want %d", step.wait, n, step.want)
			}
		}
	})
}

func TestWriterDrawsANewKeyWhenItsTimeIsOver(t *testing.T) {
	f := newFixture(t)
	a, b := f.seal(nil), f.seal(nil)
	f.now.Add(evidence.KeyCacheTTL.Milliseconds())
	c := f.seal(nil)
	if !bytes.Equal(a.Bytes[8:24], b.Bytes[8:24]) || bytes.Equal(a.Bytes[8:24], c.Bytes[8:24]) {
		t.Errorf("key ids %x %x %x: want two the same and a new one", a.Bytes[8:24], b.Bytes[8:24], c.Bytes[8:24])
	}
	if n := len(f.keys.All()); n != 2 {
		t.Errorf("%d keys stored, want 2", n)
	}
	for _, o := range []evidence.Sealed{a, b, c} {
		if err := f.store.Put(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if _, err := f.read(o.Ref); err != nil {
			t.Errorf("read: %v", err)
		}
	}
}

func TestKeyCacheIsBounded(t *testing.T) {
	f := newFixture(t)
	for i := range evidence.KeyCacheSize + 50 {
		f.sealAs(evidence.Ref{Tenant: tenant, Unit: fmt.Sprintf("unit-%d", i), Object: evidence.NewObjectID()}, nil)
	}
	before := len(f.keys.All())
	for i := range evidence.KeyCacheSize + 50 {
		f.sealAs(evidence.Ref{Tenant: tenant, Unit: fmt.Sprintf("unit-%d", i), Object: evidence.NewObjectID()}, nil)
	}
	if drawn := len(f.keys.All()) - before; drawn < 50 {
		t.Errorf("%d keys drawn anew, want at least the 50 that did not fit", drawn)
	}
}

func TestConcurrentWritersOfAUnitAreAllReadable(t *testing.T) {
	f := newFixture(t)
	objects := make([]evidence.Sealed, 16)
	var wg sync.WaitGroup
	for i := range objects {
		wg.Go(func() {
			o, err := f.store.Seal(t.Context(), newRef(), pattern(i))
			if err == nil {
				err = f.store.Put(t.Context(), o)
			}
			if err != nil {
				t.Error(err)
			}
			objects[i] = o
		})
	}
	wg.Wait()
	for i, o := range objects {
		if plain, err := f.read(o.Ref); err != nil || !bytes.Equal(plain, pattern(i)) {
			t.Errorf("object %d: %v", i, err)
		}
	}
}

func TestStoreAndObjectsNeverPrintKeys(t *testing.T) {
	f := newFixture(t)
	o := f.put([]byte("canary of the body"))
	obj, err := f.open(o.Ref)
	if err != nil {
		t.Fatal(err)
	}
	ck := f.conversationKey(o)
	forms := []string{string(ck), fmt.Sprintf("%x", ck), fmt.Sprintf("%X", ck), fmt.Sprint(ck)[1:40], "canary"}
	for _, v := range []any{f.store, *obj, obj, o, &o, o.Ref} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			text := fmt.Sprintf(verb, v)
			for _, form := range forms {
				if strings.Contains(text, form) {
					t.Errorf("%T with %s shows %q", v, verb, form)
				}
			}
		}
		b, err := json.Marshal(v)
		for _, form := range forms {
			if err == nil && bytes.Contains(b, []byte(form)) {
				t.Errorf("%T as JSON shows %q", v, form)
			}
		}
	}
}

// slowVault takes a second for each unwrap, and fails as often as it is told to.
type slowVault struct {
	evidence.Vault
	fails atomic.Int64
}

var errVault = errors.New("the vault is away")

func (v *slowVault) Unwrap(ctx context.Context, id, alg string, wrapped []byte) ([]byte, error) {
	time.Sleep(time.Second) // of the bubble's clock
	if v.fails.Add(-1) >= 0 {
		return nil, errVault
	}
	return v.Vault.Unwrap(ctx, id, alg, wrapped)
}

func TestOfManyReadersAtOnceOneAsksTheVault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		o := f.put(pattern(100))
		receipt := f.receipt(unit)
		for _, fails := range []int64{0, 3} {
			vault := &slowVault{Vault: f.vault}
			vault.fails.Store(fails)
			store, err := evidence.New(evidence.Config{Blobs: f.blobs, Keys: f.keys, Vault: vault, VaultHosts: []string{storetest.VaultHost}, Now: f.clock})
			if err != nil {
				t.Fatal(err)
			}
			before := f.vault.Unwraps()
			var failed atomic.Int64
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if _, err := store.Open(t.Context(), o.Ref, receipt); errors.Is(err, errVault) {
						failed.Add(1)
					} else if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := f.vault.Unwraps() - before; n != 1 || failed.Load() != fails {
				t.Errorf("%d unwraps, %d readers failed, want 1 and %d", n, failed.Load(), fails)
			}
		}
		// Who gives up meanwhile is not kept waiting.
		vault := &slowVault{Vault: f.vault}
		patient, err := evidence.New(evidence.Config{Blobs: f.blobs, Keys: f.keys, Vault: vault, VaultHosts: []string{storetest.VaultHost}, Now: f.clock})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := patient.Open(t.Context(), o.Ref, receipt); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := patient.Open(ctx, o.Ref, receipt); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) >= time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		wg.Wait()
	})
}
