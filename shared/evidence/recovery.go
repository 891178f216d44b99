package evidence

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"steno/shared/evidence/internal/envelope"
	"steno/shared/teams"
)

// maxEscrow bounds an escrow record: a few thousand keys.
const maxEscrow = 4 << 20

// Recovery restores rows of the key table from escrow records. Those who run it hold the
// recovery key; nothing in Steno does.
type Recovery struct {
	Tenant  teams.TenantID
	Objects interface { // where the records lie
		Blobs
		Governor
	}
	Keys  Keys  // where the rows go
	Vault Vault // under whose current key they are wrapped
	// Open decrypts with the private key whose public key has the SHA-256 recovery:
	// RSA-OAEP with SHA-256 and no label, on this machine or in a vault.
	Open func(ctx context.Context, recovery string, wrapped []byte) ([]byte, error)
}

// OpenWith is Recovery.Open with a private key at hand.
func OpenWith(key *rsa.PrivateKey) (func(context.Context, string, []byte) ([]byte, error), error) {
	k, err := recoveryKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	return func(_ context.Context, recovery string, wrapped []byte) ([]byte, error) {
		if recovery != k.id {
			return nil, fmt.Errorf("it was made for another recovery key, %s", recovery)
		}
		return rsa.DecryptOAEP(sha256.New(), nil, key, wrapped, nil)
	}, nil
}

// Recovered counts what a recovery did.
type Recovered struct {
	Records  int // escrow records that were read
	Restored int // rows that were inserted
	There    int // keys whose row was there
}

// Run restores the keys of a unit, or of all units of the tenant where unit is empty. A row
// that is there is left as it is. A record that is not what its name and place say, a copy
// that does not open or speaks of another key, and two copies of one key that differ are
// refused, each with its name and ErrKey; the others are restored. It may be repeated.
//
// Of a copy that opens it is not known who made it, since wrapping takes a public key
// alone: as with rows, the commitment in an object's header refuses a key that is not its own.
func (r Recovery) Run(ctx context.Context, unit string) (done Recovered, err error) {
	under := string(r.Tenant) + "/"
	if unit != "" {
		if under, err = prefix(r.Tenant, unit); err != nil {
			return done, fmt.Errorf("restore keys: %w", err)
		}
	}
	list, err := r.Objects.List(ctx, under)
	if err != nil {
		return done, fmt.Errorf("restore keys: %w", err)
	}
	records := map[string][]escrowRecord{}
	var faults []error
	var units []string
	for _, o := range list {
		if !IsEscrow(o.Name) {
			continue
		}
		record, err := r.read(ctx, o)
		if err != nil {
			faults = append(faults, fmt.Errorf("escrow record %s: %w", o.Name, err))
			continue
		}
		done.Records++
		if records[record.Unit] == nil {
			units = append(units, record.Unit)
		}
		records[record.Unit] = append(records[record.Unit], record)
	}
	for _, u := range units {
		faults = append(faults, r.unit(ctx, u, records[u], &done))
	}
	return done, errors.Join(faults...)
}

// read reads one record and compares it with its name.
func (r Recovery) read(ctx context.Context, o TailInfo) (escrowRecord, error) {
	var record escrowRecord
	if o.Size < 1 || o.Size > maxEscrow {
		return record, fmt.Errorf("%w: %d bytes", ErrKey, o.Size)
	}
	body, err := r.Objects.ReadAt(ctx, o.Name, 0, o.Size)
	if err != nil {
		return record, err
	}
	if err := json.Unmarshal(body, &record); err != nil {
		return record, fmt.Errorf("%w: it cannot be read", ErrKey)
	}
	same, err := json.Marshal(record)
	if err != nil || !bytes.Equal(same, body) || record.Format != EscrowFormat {
		return record, fmt.Errorf("%w: it is not in the form %s", ErrKey, EscrowFormat)
	}
	p, err := prefix(record.Tenant, record.Unit)
	if err != nil || record.Tenant != r.Tenant || escrowName(p, body) != o.Name {
		return record, fmt.Errorf("%w: its bytes are not those of this name", ErrKey)
	}
	return record, nil
}

// unit restores the keys of one unit.
func (r Recovery) unit(ctx context.Context, unit string, records []escrowRecord, done *Recovered) error {
	secrets := map[string][]byte{}
	keys := map[string]escrowedKey{}
	refused := map[string]bool{}
	var faults []error
	no := func(id string, why error) {
		faults = append(faults, fmt.Errorf("key %s of %s: %w: %w", id, unit, ErrKey, why))
	}
	for _, record := range records {
		for _, e := range record.Keys {
			secret, err := r.open(ctx, unit, e)
			if err != nil {
				no(e.ID, err)
				continue
			}
			if was, twice := secrets[e.ID]; twice && subtle.ConstantTimeCompare(was, secret) != 1 {
				refused[e.ID] = true
				no(e.ID, errors.New("two copies of it differ, and nothing tells here which is the right one"))
			}
			secrets[e.ID], keys[e.ID] = secret, e
		}
	}
	for id, e := range keys {
		if refused[id] {
			continue
		}
		switch err := r.insert(ctx, unit, e, secrets[id]); {
		case errors.Is(err, ErrExists):
			done.There++
		case err != nil:
			faults = append(faults, fmt.Errorf("key %s of %s: %w", id, unit, err))
		default:
			done.Restored++
		}
		clear(secrets[id])
	}
	return errors.Join(faults...)
}

// open unwraps a copy and checks that it is that of this key.
func (r Recovery) open(ctx context.Context, unit string, e escrowedKey) ([]byte, error) {
	id, err := hex.DecodeString(e.ID)
	if err != nil || len(id) != envelope.IDSize || hex.EncodeToString(id) != e.ID {
		return nil, errors.New("not the id of a key")
	}
	plain, err := r.Open(ctx, e.Recovery, e.Wrapped)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	defer clear(plain)
	rest, ok := bytes.CutPrefix(plain, []byte(escrowMark))
	place := escrowPlace(r.Tenant, unit, id)
	if !ok || len(rest) != len(place)+envelope.KeySize || !bytes.Equal(rest[:len(place)], place[:]) {
		return nil, errors.New("the copy is that of another key")
	}
	return bytes.Clone(rest[len(place):]), nil
}

// insert stores the row of a key, wrapped as a writer wraps it.
func (r Recovery) insert(ctx context.Context, unit string, e escrowedKey, secret []byte) error {
	vaultKey, public, err := r.Vault.WrappingKey(ctx)
	if err != nil {
		return fmt.Errorf("read wrapping key: %w", err)
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, secret, nil)
	if err != nil {
		return fmt.Errorf("wrap conversation key: %w", err)
	}
	return r.Keys.Insert(ctx, WrappedKey{
		Tenant: r.Tenant, Unit: unit, ID: e.ID, Vault: vaultKey, Alg: wrapAlg, Wrapped: wrapped, MadeAt: e.MadeAt,
		Escrow: EscrowCopy{Recovery: e.Recovery, Wrapped: e.Wrapped},
	})
}
