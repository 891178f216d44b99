package evidence

import (
	"context"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"steno/shared/evidence/internal/envelope"
	"steno/shared/teams"
)

// Errors that callers branch on.
var (
	// ErrExists says that the name is taken. Names are filled once and never again.
	ErrExists = errors.New("evidence object exists")
	// ErrNotFound says that there is no such object or key.
	ErrNotFound = errors.New("evidence object not found")
	// ErrCorrupt says that what is stored is not what was sealed. It is an incident.
	ErrCorrupt = envelope.ErrCorrupt
	// ErrFormat says that the stored object is of a format this build does not read.
	ErrFormat = envelope.ErrFormat
	// ErrKey says that a stored conversation key was refused before it was unwrapped.
	ErrKey = errors.New("conversation key refused")
)

// Ref names an evidence object: the tenant it belongs to, the unit that is held,
// kept and erased as one (a conversation), and the object's own id.
type Ref struct {
	Tenant teams.TenantID
	Unit   string
	Object string // 32 lower-case hex digits, from NewObjectID
}

// NewObjectID draws a fresh object id.
func NewObjectID() string {
	id := envelope.NewKey().ID() // a key's id is 16 random bytes, and so is an object's
	return hex.EncodeToString(id[:])
}

// name is the blob name. Everything in it is of our own making.
func (r Ref) name() string {
	return string(r.Tenant) + "/" + r.Unit + "/" + r.Object
}

func (r Ref) scope() (envelope.Scope, error) {
	s := envelope.Scope{Tenant: string(r.Tenant), Unit: r.Unit}
	// Each name has one spelling: a second one would be a second place to put the
	// same object, and write-once would not notice.
	b, err := hex.DecodeString(r.Object)
	if err != nil || len(b) != envelope.IDSize || hex.EncodeToString(b) != r.Object {
		return s, fmt.Errorf("evidence object id: want %d lower-case hex digits", 2*envelope.IDSize)
	}
	copy(s.Object[:], b)
	if t, err := teams.ParseTenantID(string(r.Tenant)); err != nil {
		return s, err
	} else if t != r.Tenant {
		return s, errors.New("evidence tenant: want a lower-case GUID")
	}
	if !unitForm(r.Unit) {
		return s, fmt.Errorf("evidence unit of %d bytes: want 1 to 64 lower-case letters, digits and dashes", len(r.Unit))
	}
	return s, nil
}

func unitForm(u string) bool {
	for _, c := range []byte(u) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(u) >= 1 && len(u) <= 64
}

// Blobs is the write-once store of sealed objects.
type Blobs interface {
	// Create stores body under name in one request, only if the name is free. When it
	// returns nil the bytes are durable. ErrExists if the name is taken, whatever
	// stands there: also when the same bytes are created again.
	Create(ctx context.Context, name string, body []byte) error
	// Size returns the size of an object in bytes, ErrNotFound if there is none.
	Size(ctx context.Context, name string) (int64, error)
	// ReadAt returns exactly bytes [off, off+n), ErrNotFound if there is no such
	// object, another error if it ends before, if off is negative or if n is less
	// than 1. The bytes belong to the caller.
	ReadAt(ctx context.Context, name string, off, n int64) ([]byte, error)
}

// WrappedKey is a conversation key as stored: wrapped by Key Vault's public key. It
// is kept outside write-once storage, so that destroying it erases the conversation.
type WrappedKey struct {
	Tenant  teams.TenantID
	Unit    string
	ID      string    // 32 lower-case hex digits
	Vault   string    // id of the wrapping key, version included, as an https URL
	Alg     string    // RSA-OAEP-256
	Wrapped []byte    // the wrapped key
	MadeAt  time.Time // when the key was drawn
	// Escrow is the same key under the recovery key, where one is configured; see Keeper.Escrow.
	Escrow EscrowCopy `json:",omitzero"`
}

// Keys stores wrapped conversation keys. Writers only insert.
type Keys interface {
	// Insert stores a key, durably when it returns nil. ErrExists if the id is taken.
	Insert(ctx context.Context, k WrappedKey) error
	// Get reads a key, ErrNotFound if there is none (or it was destroyed).
	Get(ctx context.Context, tenant teams.TenantID, unit, id string) (WrappedKey, error)
}

// Vault is the key vault's part. Wrapping needs only the public key, so it happens
// here and costs nothing; unwrapping is a request to the vault, which logs it.
type Vault interface {
	// WrappingKey returns the current version of the wrapping key. The id is the URL
	// of that version.
	WrappingKey(ctx context.Context) (id string, key *rsa.PublicKey, err error)
	// Unwrap asks the vault to unwrap. The store has checked id and alg before.
	Unwrap(ctx context.Context, id, alg string, wrapped []byte) ([]byte, error)
}
