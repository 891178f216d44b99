package keyring_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"steno/functions/internal/keyring"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/notification"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const tenant = teams.TenantID("11111111-1111-4111-8111-111111111111")

var errDead = errors.New("the process is dead")

// mortal is the way to every store, on which the process dies at the n-th step.
type mortal struct {
	notification.Register
	*evidence.Store
	step, dieAt int
}

func (m *mortal) alive() error {
	m.step++
	if m.dieAt > 0 && m.step >= m.dieAt {
		return errDead
	}
	return nil
}

func (m *mortal) Seal(ctx context.Context, ref evidence.Ref, plain []byte) (evidence.Sealed, error) {
	if err := m.alive(); err != nil {
		return evidence.Sealed{}, err
	}
	return m.Store.Seal(ctx, ref, plain)
}

func (m *mortal) Put(ctx context.Context, o evidence.Sealed) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.Store.Put(ctx, o)
}

func (m *mortal) SaveCertificate(ctx context.Context, c notification.Certificate) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.Register.SaveCertificate(ctx, c)
}

type rig struct {
	blobs    storetest.Blobs
	keys     storetest.Keys
	register storetest.Subscriptions
	trail    storetest.Trail
}

var vault = sync.OnceValue(storetest.NewVault)

// ring starts a process that dies at a step, never for 0.
func (r *rig) ring(t *testing.T, dieAt int) *keyring.Keyring {
	t.Helper()
	s, err := evidence.New(evidence.Config{Blobs: &r.blobs, Keys: &r.keys, Vault: vault(), VaultHosts: []string{storetest.VaultHost}})
	if err != nil {
		t.Fatal(err)
	}
	m := &mortal{Register: &r.register, Store: s, dieAt: dieAt}
	return keyring.New(tenant, m, m, evidence.Keeper{Objects: &r.blobs, Keys: &r.keys}, custody.Log{Trail: &r.trail})
}

// events are those of an action.
func (r *rig) events(t *testing.T, a custody.Action) (out []custody.Record) {
	t.Helper()
	all, err := r.trail.Range(t.Context(), time.Time{}, time.Now().Add(time.Hour), 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.Action == a {
			out = append(out, e)
		}
	}
	return out
}

// TestAKeyIsOpenedOnceAnHourByAnInstanceAndUnderAnEventOfItsUnit: so that each unwrap in the
// vault's log has one event that explains it.
func TestAKeyIsOpenedOnceAnHourByAnInstanceAndUnderAnEventOfItsUnit(t *testing.T) {
	vault() // made outside: it belongs to every bubble
	synctest.Test(t, func(t *testing.T) {
		var r rig
		c, err := r.ring(t, 0).Make(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		instance := r.ring(t, 0)
		for range 24 * 60 {
			if _, err := instance.Open(t.Context(), c.ID, "test"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		reads := r.events(t, custody.SystemRead)
		if len(reads) != 24 || reads[0].Item != keyring.UnitPrefix+c.ID || reads[0].System != "test" {
			t.Errorf("a day of openings left %d events", len(reads))
		}
	})
}

func TestNoCertificateIsKnownWhosePrivateKeyIsNotKept(t *testing.T) {
	for n := 1; ; n++ {
		var r rig
		made, err := r.ring(t, n).Make(t.Context())
		certs, lerr := r.register.Certificates(t.Context())
		if lerr != nil {
			t.Fatal(lerr)
		}
		if err == nil {
			if n < 4 {
				t.Fatalf("a making has only %d steps; the test reaches nothing", n-1)
			}
			if _, err := r.ring(t, 0).Open(t.Context(), made.ID, "test"); err != nil || len(certs) != 1 {
				t.Errorf("%d certificates, %v", len(certs), err)
			}
			return
		}
		if len(certs) != 0 {
			t.Fatalf("died at step %d: a certificate is known", n)
		}
	}
}

func TestADestroyedKeyIsGoneFromEveryStoreAndOnRecord(t *testing.T) {
	var r rig
	c, err := r.ring(t, 0).Make(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.ring(t, 0).Destroy(t.Context(), c.ID, "test"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.ring(t, 0).Open(t.Context(), c.ID, "test"); !errors.Is(err, keyring.ErrUnknown) {
		t.Errorf("opened: %v", err)
	}
	if left := r.blobs.Names(); len(left) != 0 || len(r.events(t, custody.Dispose)) == 0 {
		t.Errorf("left are %v, and %d events", left, len(r.events(t, custody.Dispose)))
	}
}
