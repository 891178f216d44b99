package evidence

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"steno/shared/evidence/internal/envelope"
	"steno/shared/teams"
)

// MinRecoveryBits is the smallest recovery key that is accepted: it must outlast what it
// protects, for years. https://doi.org/10.6028/NIST.SP.800-57pt1r5 section 5.6.1
const MinRecoveryBits = 3072

// EscrowCopy is a conversation key under the recovery key, as it travels in the row of the
// key until it is brought to write-once storage. Its zero value is no copy.
type EscrowCopy struct {
	Recovery string // SHA-256 of the recovery public key (SPKI, DER), hex
	Wrapped  []byte
}

// RecoveryKey is the public half of the key of those who restore. Nobody who runs Steno
// needs the other half, and nobody should have it.
type RecoveryKey struct {
	public *rsa.PublicKey
	id     string
}

// ID is the SHA-256 of the public key in hex.
func (k *RecoveryKey) ID() string { return k.id }

// ParseRecoveryKey reads an RSA public key: PEM ("PUBLIC KEY"), or the base64 of its DER
// (SubjectPublicKeyInfo). A private key is refused: it must not be where Steno runs.
func ParseRecoveryKey(text string) (*RecoveryKey, error) {
	var der []byte
	if block, rest := pem.Decode([]byte(text)); block != nil {
		if block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) != 0 {
			return nil, fmt.Errorf("recovery key: want one PUBLIC KEY block, have %q", block.Type)
		}
		der = block.Bytes
	} else {
		var err error
		if der, err = base64.StdEncoding.DecodeString(strings.TrimSpace(text)); err != nil {
			return nil, errors.New("recovery key: neither PEM nor base64")
		}
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New("recovery key: not a public key (SubjectPublicKeyInfo)")
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok || public.N.BitLen() < MinRecoveryBits || public.E < 65537 {
		return nil, fmt.Errorf("recovery key: want RSA of %d bits or more with an exponent of 65537 or more", MinRecoveryBits)
	}
	return recoveryKey(public)
}

func recoveryKey(public *rsa.PublicKey) (*RecoveryKey, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("recovery key: %w", err)
	}
	d := sha256.Sum256(der)
	return &RecoveryKey{public: public, id: hex.EncodeToString(d[:])}, nil
}

// escrowMark begins what is wrapped.
const escrowMark = "steno-escrow-v1\x00"

// escrowPlace binds a copy to its key. It is part of what is wrapped, and no label of OAEP:
// where the recovery key lies in a vault, its REST call takes no label.
func escrowPlace(tenant teams.TenantID, unit string, id []byte) [sha256.Size]byte {
	b := append(make([]byte, 0, 160), escrowMark...)
	for _, s := range []string{string(tenant), unit} {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	return sha256.Sum256(append(b, id...))
}

// wrap makes the copy of a conversation key.
func (k *RecoveryKey) wrap(tenant teams.TenantID, unit string, ck *envelope.Key) (EscrowCopy, error) {
	id := ck.ID()
	place := escrowPlace(tenant, unit, id[:])
	plain := append(append([]byte(escrowMark), place[:]...), ck.Secret()...)
	defer clear(plain)
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, k.public, plain, nil)
	if err != nil {
		return EscrowCopy{}, fmt.Errorf("wrap conversation key for recovery: %w", err)
	}
	return EscrowCopy{Recovery: k.id, Wrapped: wrapped}, nil
}

// EscrowFormat is the format of an escrow record.
const EscrowFormat = "steno-escrow/1"

// escrowRecord is what write-once storage keeps of the keys of one unit. Its members stand
// in this order, and its bytes are those that encoding/json makes of it.
type escrowRecord struct {
	Format string         `json:"format"`
	Tenant teams.TenantID `json:"tenant"`
	Unit   string         `json:"unit"`
	Keys   []escrowedKey  `json:"keys"` // by id
}

type escrowedKey struct {
	ID       string    `json:"id"`
	MadeAt   time.Time `json:"madeAt"`
	Recovery string    `json:"recovery"`
	Wrapped  []byte    `json:"wrapped"`
}

// escrowPrefix begins the last part of a record's name, after which come the first 32 hex
// digits of the SHA-256 of its bytes. No object id begins so.
const escrowPrefix = "escrow-"

func escrowName(prefix string, body []byte) string {
	d := sha256.Sum256(body)
	return prefix + escrowPrefix + hex.EncodeToString(d[:envelope.IDSize])
}

// IsEscrow reports whether a blob is an escrow record, by its name.
func IsEscrow(name string) bool {
	return strings.HasPrefix(name[strings.LastIndexByte(name, '/')+1:], escrowPrefix)
}

// Escrow stores the copies of a unit's keys as one record beside its objects, under their
// Retain Until and their legal hold, durably when it returns nil, and reports how many keys
// it took. Keys that carry no copy are left out. Repeating it with the same keys stores
// nothing more. It costs one listing, one request an object, and one write.
//
// The copies were made when the keys were drawn, so nothing is unwrapped here. It must not
// run at the same time as Shred of the same unit: the copy would outlive the key.
func (k Keeper) Escrow(ctx context.Context, tenant teams.TenantID, unit string, keys []WrappedKey) (int, error) {
	p, err := prefix(tenant, unit)
	if err != nil {
		return 0, fmt.Errorf("escrow keys: %w", err)
	}
	if k.Records == nil {
		return 0, errors.New("escrow keys: no store of records is configured")
	}
	record := escrowRecord{Format: EscrowFormat, Tenant: tenant, Unit: unit}
	for _, w := range keys {
		if len(w.Escrow.Wrapped) > 0 {
			record.Keys = append(record.Keys, escrowedKey{w.ID, w.MadeAt.UTC(), w.Escrow.Recovery, w.Escrow.Wrapped})
		}
	}
	if len(record.Keys) == 0 {
		return 0, nil
	}
	slices.SortFunc(record.Keys, func(a, b escrowedKey) int { return strings.Compare(a.ID, b.ID) })
	body, err := json.Marshal(record)
	if err != nil {
		return 0, fmt.Errorf("escrow keys of %s: %w", unit, err)
	}
	state, err := k.State(ctx, tenant, unit)
	if err != nil {
		return 0, fmt.Errorf("escrow keys: %w", err)
	}
	name := escrowName(p, body)
	// Where the unit has no object yet, the container's default protects the record until the
	// unit's dates are moved on the next time.
	err = k.Records.CreateUntil(ctx, name, body, state.Until)
	if err != nil && !errors.Is(err, ErrExists) {
		return 0, fmt.Errorf("escrow keys of %s: %w", unit, err)
	}
	if state.Held > 0 {
		if err := k.Objects.Hold(ctx, name, true); err != nil {
			return 0, fmt.Errorf("escrow keys of %s: %w", unit, err)
		}
	}
	return len(record.Keys), nil
}

// unescrow deletes the escrow records of a unit, before the date of the unit where it is
// not a locked one. ErrLocked or ErrHeld if storage keeps one of them.
func (k Keeper) unescrow(ctx context.Context, tenant teams.TenantID, unit string, guard Guard) error {
	objects, err := k.list(ctx, tenant, unit)
	if err != nil {
		return err
	}
	for _, o := range objects {
		if !IsEscrow(o.Name) {
			continue
		}
		if err := guard(ctx); err != nil {
			return err
		}
		err := k.Objects.Unprotect(ctx, o.Name)
		if err == nil || errors.Is(err, ErrNotFound) {
			err = k.Objects.Delete(ctx, o.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
