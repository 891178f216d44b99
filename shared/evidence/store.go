package evidence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"steno/shared/custody"
	"steno/shared/evidence/internal/envelope"
)

// Limits of a store.
const (
	// KeyCacheTTL is how long an unwrapped or freshly drawn key is kept in memory.
	KeyCacheTTL = 5 * time.Minute
	// KeyCacheSize is how many are kept.
	KeyCacheSize = 1000
	// MaxSealed is the largest object that one Create may carry.
	MaxSealed = 256 << 20
)

// Config is what a store needs. All fields but Tails, Recovery and Now are required.
type Config struct {
	Blobs Blobs
	Tails Tails // only for those who record or play calls
	Keys  Keys
	Vault Vault
	// VaultHosts lists the vault hosts whose keys are accepted for unwrapping, such as
	// steno.vault.azure.net: a stored row must not send us to somebody else's vault.
	VaultHosts []string
	// Recovery is the key under which a copy of each conversation key is kept; nil keeps none.
	Recovery *RecoveryKey
	Now      func() time.Time // time.Now if nil
}

// Store puts and opens evidence. It is safe for use by many goroutines.
type Store struct {
	c       Config
	mu      sync.Mutex
	writing map[string]cachedKey     // by tenant/unit: keys this process drew and stored
	reading map[string]cachedKey     // by tenant/unit/id
	asking  map[string]chan struct{} // the same: keys that are being unwrapped, closed when that is over
}

// New returns a store.
func New(c Config) (*Store, error) {
	if c.Blobs == nil || c.Keys == nil || c.Vault == nil || len(c.VaultHosts) == 0 {
		return nil, errors.New("evidence store: blobs, keys, vault and vault hosts are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Store{c: c, writing: map[string]cachedKey{}, reading: map[string]cachedKey{}, asking: map[string]chan struct{}{}}, nil
}

// Sealed is an object ready to be put. It holds ciphertext only, so it may be kept
// on disk, and the same Sealed must be put again after a failed Put: sealing the
// same plain bytes twice gives different objects.
type Sealed struct {
	Ref        Ref
	Bytes      []byte
	Size       int64             // of the plain bytes
	Plain      [sha256.Size]byte // SHA-256 of the plain bytes
	Ciphertext [sha256.Size]byte // SHA-256 of Bytes, header included
	// Commit binds the plain bytes and tells nothing of them; see Commitment. It is not
	// known of objects that were read back without their key.
	Commit [sha256.Size]byte
	// Until is the Retain Until that the object gets when it is put. Zero leaves it to the
	// container's default.
	Until time.Time
}

// Commitment binds plain bytes, given by their SHA-256, without telling anything of them:
// SHA-256("steno-plain-v1\0" ‖ blind ‖ digest). It can stand in the open for ever. Who is
// given the bytes and the object's blind (Object.Blind) can check it with any tool; when
// the keys are destroyed the blind is gone, and nobody can test a guess against it.
func Commitment(blind, plain [sha256.Size]byte) [sha256.Size]byte {
	b := append(make([]byte, 0, 96), "steno-plain-v1\x00"...)
	return sha256.Sum256(append(append(b, blind[:]...), plain[:]...))
}

// Seal encrypts plain for ref. The first Seal of a unit by this process draws a
// conversation key and stores it wrapped, before anything is sealed under it: when
// Seal returns nil the key is durable, the object is not yet.
func (s *Store) Seal(ctx context.Context, ref Ref, plain []byte) (Sealed, error) {
	scope, err := ref.scope()
	if err != nil {
		return Sealed{}, fmt.Errorf("seal: %w", err)
	}
	if n := envelope.SealedSize(int64(len(plain))); n > MaxSealed {
		return Sealed{}, fmt.Errorf("seal %s: %d bytes sealed, more than the %d that one request may carry", ref.Object, n, MaxSealed)
	}
	k, err := s.writingKey(ctx, ref)
	if err != nil {
		return Sealed{}, fmt.Errorf("seal %s: %w", ref.Object, err)
	}
	var out bytes.Buffer
	out.Grow(int(envelope.SealedSize(int64(len(plain)))))
	blind, err := envelope.Seal(&out, k, scope, bytes.NewReader(plain), int64(len(plain)))
	if err != nil {
		return Sealed{}, fmt.Errorf("seal %s: %w", ref.Object, err)
	}
	digest := sha256.Sum256(plain)
	return Sealed{
		Ref: ref, Bytes: out.Bytes(), Size: int64(len(plain)),
		Plain: digest, Ciphertext: sha256.Sum256(out.Bytes()), Commit: Commitment(blind, digest),
	}, nil
}

// Put stores a sealed object. When it returns nil the object is durable and can be
// opened from another machine. ErrExists means that the name was filled before: by
// an earlier try with these very bytes, or by another writer. Put never overwrites.
//
// Bytes that were not sealed for the name they carry are refused, so that what waited
// on disk cannot fill a name with something that never opens.
func (s *Store) Put(ctx context.Context, o Sealed) error {
	if err := o.check(); err != nil {
		return fmt.Errorf("put %s: %w", o.Ref.Object, err)
	}
	if err := s.create(ctx, o.Ref.name(), o.Bytes, o.Until); err != nil {
		return fmt.Errorf("put %s: %w", o.Ref.Object, err)
	}
	return nil
}

// check compares what can be compared without a key.
func (o Sealed) check() error {
	scope, err := o.Ref.scope()
	if err != nil {
		return err
	}
	h, err := envelope.ParseHeader(o.Bytes)
	if err != nil {
		return err
	}
	if h.Object != scope.Object || envelope.SealedSize(h.Size) != int64(len(o.Bytes)) {
		return fmt.Errorf("%w: the bytes are not those sealed under this name", ErrCorrupt)
	}
	return nil
}

// Exists reports whether the object is stored.
func (s *Store) Exists(ctx context.Context, ref Ref) (bool, error) {
	if _, err := ref.scope(); err != nil {
		return false, err
	}
	_, err := s.c.Blobs.Size(ctx, ref.name())
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look up %s: %w", ref.Object, err)
	}
	return true, nil
}

// digestPiece is how much of an object is read at a time to hash it.
const digestPiece = 4 << 20

// Digest reads a stored object or pack and returns its size and the SHA-256 of its bytes
// as they lie there. Nothing is decrypted, so it needs neither a key nor a receipt, and
// it still works when the key is destroyed. It costs one request for each 4 MiB and one more.
func (s *Store) Digest(ctx context.Context, ref Ref) (size int64, digest [sha256.Size]byte, err error) {
	if _, err := ref.scope(); err != nil {
		return 0, digest, fmt.Errorf("digest: %w", err)
	}
	if size, err = s.c.Blobs.Size(ctx, ref.name()); err != nil {
		return 0, digest, fmt.Errorf("digest of %s: %w", ref.Object, err)
	}
	h := sha256.New()
	for off := int64(0); off < size; off += digestPiece {
		b, err := s.c.Blobs.ReadAt(ctx, ref.name(), off, min(digestPiece, size-off))
		if err != nil {
			return 0, digest, fmt.Errorf("digest of %s: %w", ref.Object, err)
		}
		h.Write(b)
	}
	return size, [sha256.Size]byte(h.Sum(nil)), nil
}

// Object is an opened evidence object: plain bytes at any offset, each chunk
// verified before any byte of it is returned. It is safe for concurrent use.
type Object struct {
	ctx    context.Context
	at     place
	held   []byte // the sealed bytes, if they were read when it was opened
	header envelope.Header
	opener *envelope.Opener
}

// Open opens an object for reading. The receipt must have been given for reading
// the ref's unit and still be good; without one nothing is read and no key is
// unwrapped. ctx bounds every read of the object.
//
// A stored object whose size is not the one its header announces is refused here.
func (s *Store) Open(ctx context.Context, ref Ref, receipt custody.Receipt) (*Object, error) {
	scope, err := s.admit(ref, receipt)
	if err != nil {
		return nil, err
	}
	size, err := s.c.Blobs.Size(ctx, ref.name())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", ref.Object, err)
	}
	return s.open(ctx, place{blobs: s.c.Blobs, name: ref.name(), size: size}, ref, scope)
}

// admit is the door: nothing is read without a receipt for the unit.
func (s *Store) admit(ref Ref, receipt custody.Receipt) (envelope.Scope, error) {
	if err := receipt.Covers(ref.Unit, s.c.Now()); err != nil {
		return envelope.Scope{}, fmt.Errorf("open %s: %w", ref.Object, err)
	}
	scope, err := ref.scope()
	if err != nil {
		return envelope.Scope{}, fmt.Errorf("open: %w", err)
	}
	return scope, nil
}

// place is where a sealed object lies: size bytes from base of a blob.
type place struct {
	blobs      ranged
	name       string
	base, size int64
	whole      bool // read in one request if it is small: requests are what reading costs
}

// ranged reads stretches of a blob.
type ranged interface {
	ReadAt(ctx context.Context, name string, off, n int64) ([]byte, error)
}

// maxWhole is how large an object may be that is read in one request when it is opened.
const maxWhole = 1 << 20

func (s *Store) open(ctx context.Context, at place, ref Ref, scope envelope.Scope) (*Object, error) {
	if at.size < envelope.HeaderSize {
		return nil, fmt.Errorf("open %s: %w: %d bytes stored, less than a header", ref.Object, ErrCorrupt, at.size)
	}
	first := int64(envelope.HeaderSize)
	if at.whole && at.size <= maxWhole {
		first = at.size
	}
	raw, err := at.blobs.ReadAt(ctx, at.name, at.base, first)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", ref.Object, err)
	}
	h, err := envelope.ParseHeader(raw)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", ref.Object, err)
	}
	if want := envelope.SealedSize(h.Size); at.size != want {
		return nil, fmt.Errorf("open %s: %w: %d bytes stored, %d sealed", ref.Object, ErrCorrupt, at.size, want)
	}
	k, err := s.readingKey(ctx, ref.Tenant, ref.Unit, h.KeyID)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", ref.Object, err)
	}
	opener, err := envelope.NewOpener(h, k, scope)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", ref.Object, err)
	}
	o := &Object{ctx: ctx, at: at, header: h, opener: opener}
	if first == at.size {
		o.held = raw
	}
	return o, nil
}

// Size is the number of plain bytes.
func (o *Object) Size() int64 { return o.header.Size }

// Blind opens the commitment to the object's plain bytes (Commitment): it is given to
// those who are given the bytes.
func (o *Object) Blind() [sha256.Size]byte { return o.opener.Blind() }

// ReadAt implements io.ReaderAt over the plain bytes. A chunk that does not verify
// yields ErrCorrupt and none of its bytes.
func (o *Object) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read evidence: negative offset")
	}
	n := min(int64(len(p)), o.header.Size-off)
	if n < 0 || (n == 0 && len(p) > 0) {
		return 0, io.EOF
	}
	if n == 0 {
		return 0, nil
	}
	first, last, from, to := o.header.Range(off, n)
	sealed, err := o.fetch(from, to-from)
	if err != nil {
		return 0, err
	}
	done := 0
	for i := first; i <= last; i++ {
		const whole = envelope.ChunkSize + envelope.TagSize
		lo := (i - first) * whole
		hi := min(lo+whole, int64(len(sealed)))
		plain, err := o.opener.OpenChunk(i, sealed[lo:hi])
		if err != nil {
			return done, fmt.Errorf("read evidence: %w", err)
		}
		if i == first {
			plain = plain[off-first*envelope.ChunkSize:]
		}
		done += copy(p[done:n], plain)
	}
	if n < int64(len(p)) {
		return done, io.EOF
	}
	return done, nil
}

// fetch reads n sealed bytes. Its error is never io.EOF: to whoever reads an object
// that means a regular end, and a stored object that ends early has none.
func (o *Object) fetch(off, n int64) ([]byte, error) {
	if o.held != nil {
		return bytes.Clone(o.held[off : off+n]), nil // chunks are opened in place
	}
	sealed, err := o.at.blobs.ReadAt(o.ctx, o.at.name, o.at.base+off, n)
	switch {
	case errors.Is(err, io.EOF) || (err == nil && int64(len(sealed)) != n):
		return nil, fmt.Errorf("read evidence: %w: stored bytes end early", ErrCorrupt)
	case err != nil:
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	return sealed, nil
}

// ReadAll returns all plain bytes, refusing more than limit. An empty object is
// verified too.
func (o *Object) ReadAll(limit int64) ([]byte, error) {
	if o.header.Size > limit {
		return nil, fmt.Errorf("read evidence: %d bytes, more than the %d asked for", o.header.Size, limit)
	}
	if o.header.Size == 0 {
		sealed, err := o.fetch(envelope.HeaderSize, envelope.TagSize)
		if err != nil {
			return nil, err
		}
		if _, err := o.opener.OpenChunk(0, sealed); err != nil {
			return nil, fmt.Errorf("read evidence: %w", err)
		}
		return nil, nil
	}
	b := make([]byte, o.header.Size)
	if _, err := o.ReadAt(b, 0); err != nil {
		return nil, err
	}
	return b, nil
}
