// Package keyring keeps the key pairs of change notifications. The public half stands in the
// register of subscriptions; the private half is sealed like evidence, in a container that is
// not write-once, so that each opening of it has a custody event and the vault's log can be
// held against those.
package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/notification"
	"steno/shared/teams"
)

// Fresh is how long an opened key is kept in memory. An opening costs a custody event, two
// reads and one operation of the vault, so an instance that works all day makes 24.
const Fresh = time.Hour

// UnitPrefix begins the units of private keys; no other unit's name begins so.
const UnitPrefix = "notify-"

// maxKey bounds a sealed key.
const maxKey = 16 << 10

// ErrUnknown says that no certificate of ours has the id.
var ErrUnknown = errors.New("no certificate of ours has this id")

// Store is what of package evidence is needed.
type Store interface {
	Seal(ctx context.Context, ref evidence.Ref, plain []byte) (evidence.Sealed, error)
	Put(ctx context.Context, o evidence.Sealed) error
	Open(ctx context.Context, ref evidence.Ref, receipt custody.Receipt) (*evidence.Object, error)
}

// Keyring makes, opens and destroys key pairs. It is safe for use by many goroutines.
type Keyring struct {
	tenant   teams.TenantID
	register notification.Register
	store    Store
	keeper   evidence.Keeper
	trail    custody.Log

	mu     sync.Mutex
	opened map[string]opened
}

type opened struct {
	key   notification.PrivateKey
	until time.Time
}

// New returns a keyring. Only Destroy uses the keeper.
func New(tenant teams.TenantID, r notification.Register, s Store, k evidence.Keeper, trail custody.Log) *Keyring {
	return &Keyring{tenant: tenant, register: r, store: s, keeper: k, trail: trail, opened: map[string]opened{}}
}

func (k *Keyring) ref(id string) evidence.Ref {
	unit := UnitPrefix + id
	return evidence.Ref{Tenant: k.tenant, Unit: unit, Object: evidence.PartObject(unit, 0)}
}

// Make makes a key pair. When it returns nil the private key is stored, and then the
// certificate: whatever dies, no certificate is known whose key is not kept. A run that dies
// between the two leaves a sealed key that nothing names and nobody opens.
func (k *Keyring) Make(ctx context.Context) (notification.Certificate, error) {
	id := evidence.NewObjectID()
	key, cert, err := notification.NewKeyPair(id, time.Now())
	if err != nil {
		return cert, err
	}
	plain, err := key.Seal()
	if err != nil {
		return cert, err
	}
	defer clear(plain)
	sealed, err := k.store.Seal(ctx, k.ref(id), plain)
	if err == nil {
		err = k.store.Put(ctx, sealed)
	}
	if err == nil {
		err = k.register.SaveCertificate(ctx, cert)
	}
	if err != nil {
		return cert, fmt.Errorf("keep notification key %s: %w", id, err)
	}
	return cert, nil
}

// Open returns the private key of a certificate, from memory if it was opened within the
// hour. system is the function that asks, for the trail.
func (k *Keyring) Open(ctx context.Context, id, system string) (notification.PrivateKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock() // one opening at a time: the second finds what the first brought
	if o, ok := k.opened[id]; ok && time.Now().Before(o.until) {
		return o.key, nil
	}
	delete(k.opened, id)
	if err := k.known(ctx, id); err != nil {
		return notification.PrivateKey{}, err
	}
	key, err := k.open(ctx, id, system)
	if errors.Is(err, evidence.ErrNotFound) {
		// The key table was lost, or the blob. What was sent under the pair cannot be read by
		// anybody any more; without its certificate subscriptions makes another.
		return key, errors.Join(fmt.Errorf("%w: its private key is lost", ErrUnknown), k.register.RemoveCertificate(ctx, id))
	}
	if err != nil {
		return key, fmt.Errorf("open notification key %s: %w", id, err)
	}
	k.opened[id] = opened{key, time.Now().Add(Fresh)}
	return key, nil
}

// known refuses ids that are not of our making before anything is made of them.
func (k *Keyring) known(ctx context.Context, id string) error {
	certs, err := k.register.Certificates(ctx)
	if err != nil {
		return fmt.Errorf("read certificates: %w", err)
	}
	for _, c := range certs {
		if c.ID == id {
			return nil
		}
	}
	return ErrUnknown
}

func (k *Keyring) open(ctx context.Context, id, system string) (notification.PrivateKey, error) {
	ref := k.ref(id)
	receipt, err := k.trail.Append(ctx, custody.Event{
		Tenant: k.tenant, Action: custody.SystemRead, System: system, Item: ref.Unit, Reason: "decrypt change notifications",
	})
	if err != nil {
		return notification.PrivateKey{}, err
	}
	o, err := k.store.Open(ctx, ref, receipt)
	if err != nil {
		return notification.PrivateKey{}, err
	}
	plain, err := o.ReadAll(maxKey)
	if err != nil {
		return notification.PrivateKey{}, err
	}
	defer clear(plain)
	return notification.ParsePrivateKey(plain)
}

// Destroy destroys a private key and then forgets its certificate. It may be repeated.
func (k *Keyring) Destroy(ctx context.Context, id, system string) error {
	unit := UnitPrefix + id
	free := func(context.Context) error { return nil } // no content is kept under it, and nothing holds it
	_, err := k.trail.Append(ctx, custody.Event{
		Tenant: k.tenant, Action: custody.Dispose, System: system, Item: unit, Reason: "no subscription names it any more", Detail: "keys=1",
	})
	if err == nil {
		err = k.keeper.Shred(ctx, k.tenant, unit, free)
	}
	if err == nil {
		_, _, err = k.keeper.Sweep(ctx, k.tenant, unit, free)
	}
	if err == nil {
		err = k.register.RemoveCertificate(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("destroy notification key %s: %w", id, err)
	}
	return nil
}
