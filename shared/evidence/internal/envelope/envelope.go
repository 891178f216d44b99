// Package envelope seals and opens the bytes of one evidence object:
// AES-256-GCM in 64 KiB chunks under a fresh data key, which is itself sealed under
// the conversation's key. FORMAT.md in package evidence is the specification.
//
// The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár, 2015): the nonce
// of a chunk holds its index and whether it is the last, so chunks can be read in
// any order but not swapped, dropped or cut off. Data keys and nonces are made here
// and nowhere else; no function takes one from a caller.
package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Sizes of the format, in bytes.
const (
	ChunkSize  = 1 << chunkBits
	HeaderSize = 160
	KeySize    = 32
	IDSize     = 16
	TagSize    = 16 // what sealing adds to each chunk

	chunkBits  = 16
	prefixSize = 7
	// maxSize keeps the chunk index below 2³², with room to spare.
	maxSize = int64(ChunkSize) << 31
)

var magic = [4]byte{'S', 'T', 'N', 'O'}

const (
	version = 1
	algGCM  = 1 // AES-256-GCM, both for chunks and for the data key
)

// ErrCorrupt is wrapped whenever sealed bytes are not what was sealed, or not under
// this key, or not for this place. Nothing of the chunk concerned is returned.
var ErrCorrupt = errors.New("sealed object is corrupt")

// ErrFormat is wrapped when the header is not one this version reads.
var ErrFormat = errors.New("unknown sealed format")

// Scope is where an object belongs. It is authenticated with every chunk, so an
// object copied to another tenant, unit or name does not open.
type Scope struct {
	Tenant string
	Unit   string
	Object [IDSize]byte
}

func (s Scope) bytes() []byte {
	b := make([]byte, 0, 64+len(s.Tenant)+len(s.Unit))
	b = append(b, "steno-object-v1\x00"...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Tenant)))
	b = append(b, s.Tenant...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Unit)))
	b = append(b, s.Unit...)
	return append(b, s.Object[:]...)
}

// Key is a conversation key: it seals data keys. It prints as nothing.
type Key struct {
	id [IDSize]byte
	// A pointer, because package fmt calls no methods of unexported fields: a struct
	// that holds a key shows an address at most.
	secret *[KeySize]byte
}

// NewKey draws a fresh conversation key.
func NewKey() *Key {
	k := &Key{secret: new([KeySize]byte)}
	_, _ = rand.Read(k.id[:]) // never fails since Go 1.24
	_, _ = rand.Read(k.secret[:])
	return k
}

// KeyFrom rebuilds a key from its id and the bytes that Key Vault unwrapped.
func KeyFrom(id [IDSize]byte, secret []byte) (*Key, error) {
	if len(secret) != KeySize {
		return nil, fmt.Errorf("%w: conversation key of %d bytes, want %d", ErrCorrupt, len(secret), KeySize)
	}
	k := &Key{id: id, secret: new([KeySize]byte)}
	copy(k.secret[:], secret)
	return k, nil
}

// ID is the public name of the key.
func (k *Key) ID() [IDSize]byte { return k.id }

// Secret is the key itself, for wrapping.
func (k *Key) Secret() []byte { return k.secret[:] }

// Destroy overwrites the secret. The key seals and opens nothing afterwards.
func (k *Key) Destroy() { clear(k.secret[:]) }

// String and Format keep the secret out of logs and error texts.
func (Key) String() string { return "conversation key (not shown)" }

// Format prints String for every verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// MarshalJSON refuses: a key is never part of a document.
func (Key) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a conversation key is not marshaled")
}

// Commit binds a key to its unit: GCM does not commit to its key, so the header
// carries this digest and an exchanged key is refused by name, not by luck.
func (k *Key) Commit(tenant, unit string) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte("steno-ck-v1\x00"))
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(tenant))))
	h.Write([]byte(tenant))
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(unit))))
	h.Write([]byte(unit))
	h.Write(k.secret[:])
	return [sha256.Size]byte(h.Sum(nil))
}

// Header is the clear start of a sealed object. Offsets in bytes:
//
//	0 magic "STNO" · 4 version · 5 algorithm · 6 log2 of chunk size · 7 zero
//	8 key id · 24 object id · 40 plain size · 48 nonce prefix · 55 zero
//	56 key commitment · 88 nonce of the data key · 100 sealed data key · 148 zeros
type Header struct {
	KeyID  [IDSize]byte
	Object [IDSize]byte
	Size   int64 // of the plain bytes
	raw    [HeaderSize]byte
}

// ParseHeader reads the clear start of a sealed object. What it says is to be
// believed only once a chunk has opened.
func ParseHeader(b []byte) (Header, error) {
	var h Header
	if len(b) < HeaderSize {
		return h, fmt.Errorf("%w: header of %d bytes, want %d", ErrCorrupt, len(b), HeaderSize)
	}
	copy(h.raw[:], b)
	switch r := &h.raw; {
	case [4]byte(r[:4]) != magic:
		return h, fmt.Errorf("%w: not a sealed object", ErrFormat)
	case r[4] != version:
		return h, fmt.Errorf("%w: version %d, want %d", ErrFormat, r[4], version)
	case r[5] != algGCM:
		return h, fmt.Errorf("%w: algorithm %d, want %d", ErrFormat, r[5], algGCM)
	case r[6] != chunkBits:
		return h, fmt.Errorf("%w: chunk size 2^%d, want 2^%d", ErrFormat, r[6], chunkBits)
	case r[7] != 0 || r[55] != 0 || [12]byte(r[148:]) != [12]byte{}:
		return h, fmt.Errorf("%w: reserved bytes are not zero", ErrFormat)
	}
	copy(h.KeyID[:], h.raw[8:])
	copy(h.Object[:], h.raw[24:])
	size := binary.BigEndian.Uint64(h.raw[40:])
	if size > uint64(maxSize) {
		return h, fmt.Errorf("%w: size %d is beyond the limit", ErrFormat, size)
	}
	h.Size = int64(size)
	return h, nil
}

// SealedSize is the size of the whole object, header included, for plain bytes of
// the given size. An empty object still has one chunk.
func SealedSize(size int64) int64 {
	return HeaderSize + size + chunks(size)*TagSize
}

// chunks is how many chunks hold size plain bytes; at least one.
func chunks(size int64) int64 {
	return max(1, (size+ChunkSize-1)/ChunkSize)
}

// Seal reads exactly size bytes from r and writes the sealed object to w. It returns the
// object's blind. Two calls never write the same bytes. On error what was written so far
// is worthless.
func Seal(w io.Writer, k *Key, s Scope, r io.Reader, size int64) (blind [sha256.Size]byte, err error) {
	if size < 0 || size > maxSize {
		return blind, fmt.Errorf("seal: size %d is out of range", size)
	}
	var dk [KeySize]byte
	_, _ = rand.Read(dk[:])
	defer clear(dk[:])
	h, err := newHeader(k, s, size, &dk)
	if err != nil {
		return blind, err
	}
	aead, err := newGCM(dk[:])
	if err != nil {
		return blind, err
	}
	if err := sealChunks(w, aead, h, s, r); err != nil {
		return blind, err
	}
	return blindOf(dk[:], s), nil
}

// blindOf draws from the data key what makes a commitment to the plain bytes impossible to
// guess. It tells nothing of the key, and whoever holds neither cannot compute it: so it
// goes with the key when that is destroyed.
func blindOf(dk []byte, s Scope) [sha256.Size]byte {
	h := hmac.New(sha256.New, dk)
	h.Write([]byte("steno-blind-v1\x00"))
	h.Write(s.bytes())
	return [sha256.Size]byte(h.Sum(nil))
}

func sealChunks(w io.Writer, aead cipher.AEAD, h Header, s Scope, r io.Reader) error {
	size := h.Size
	if _, err := w.Write(h.raw[:]); err != nil {
		return fmt.Errorf("seal: write header: %w", err)
	}
	aad := h.aad(s)
	buf := make([]byte, ChunkSize, ChunkSize+TagSize)
	if size < ChunkSize {
		buf = make([]byte, size, size+TagSize)
	}
	n := chunks(size)
	for i := range n {
		plain := buf[:min(ChunkSize, size-i*ChunkSize)]
		if _, err := io.ReadFull(r, plain); err != nil {
			return fmt.Errorf("seal: read plain bytes: %w", err)
		}
		sealed := aead.Seal(plain[:0], h.nonce(i, i == n-1), plain, aad)
		if _, err := w.Write(sealed); err != nil {
			return fmt.Errorf("seal: write chunk %d: %w", i, err)
		}
	}
	switch m, err := io.ReadFull(r, make([]byte, 1)); {
	case m != 0:
		return fmt.Errorf("seal: more than the %d bytes announced", size)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("seal: read end of plain bytes: %w", err)
	}
	return nil
}

func newHeader(k *Key, s Scope, size int64, dk *[KeySize]byte) (Header, error) {
	h := Header{KeyID: k.id, Object: s.Object, Size: size}
	r := &h.raw
	copy(r[:], magic[:])
	r[4], r[5], r[6] = version, algGCM, chunkBits
	copy(r[8:], k.id[:])
	copy(r[24:], s.Object[:])
	binary.BigEndian.PutUint64(r[40:], uint64(size))
	_, _ = rand.Read(r[48 : 48+prefixSize])
	commit := k.Commit(s.Tenant, s.Unit)
	copy(r[56:], commit[:])
	_, _ = rand.Read(r[88:100])
	aead, err := newGCM(k.secret[:])
	if err != nil {
		return h, err
	}
	copy(r[100:], aead.Seal(nil, r[88:100], dk[:], h.keyAAD(s)))
	return h, nil
}

// keyAAD binds the data key to the version, the algorithm, the key, the object, the
// size and the place.
func (h *Header) keyAAD(s Scope) []byte {
	return append(append([]byte("steno-dk-v1\x00"), h.raw[:88]...), s.bytes()...)
}

// aad binds every chunk to the whole header and the place.
func (h *Header) aad(s Scope) []byte {
	return append(append([]byte("steno-chunk-v1\x00"), h.raw[:]...), s.bytes()...)
}

func (h *Header) nonce(i int64, last bool) []byte {
	n := make([]byte, 0, 12)
	n = append(n, h.raw[48:48+prefixSize]...)
	n = binary.BigEndian.AppendUint32(n, uint32(i))
	if last {
		return append(n, 1)
	}
	return append(n, 0)
}

func newGCM(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("aes: %w", err)
	}
	return cipher.NewGCM(b)
}

// Opener opens chunks of one object.
type Opener struct {
	h     Header
	aead  cipher.AEAD
	aad   []byte
	blind [sha256.Size]byte
}

// Blind is what Seal returned when the object was sealed.
func (o *Opener) Blind() [sha256.Size]byte { return o.blind }

// NewOpener checks that the key is the one committed to, that the object stands
// where it was sealed for, and opens the data key.
func NewOpener(h Header, k *Key, s Scope) (*Opener, error) {
	if h.Object != s.Object {
		return nil, fmt.Errorf("%w: it is another object", ErrCorrupt)
	}
	if h.KeyID != k.id {
		return nil, fmt.Errorf("%w: it is sealed under another key", ErrCorrupt)
	}
	commit := k.Commit(s.Tenant, s.Unit)
	if subtle.ConstantTimeCompare(commit[:], h.raw[56:88]) != 1 {
		return nil, fmt.Errorf("%w: the conversation key is not the one it was sealed under", ErrCorrupt)
	}
	outer, err := newGCM(k.secret[:])
	if err != nil {
		return nil, err
	}
	dk, err := outer.Open(nil, h.raw[88:100], h.raw[100:148], h.keyAAD(s))
	if err != nil {
		return nil, fmt.Errorf("%w: data key does not open", ErrCorrupt)
	}
	defer clear(dk)
	inner, err := newGCM(dk)
	if err != nil {
		return nil, err
	}
	return &Opener{h: h, aead: inner, aad: h.aad(s), blind: blindOf(dk, s)}, nil
}

// Range maps plain bytes [off, off+n) to the sealed bytes that hold them:
// chunks first to last, at sealed offset from, to (exclusive).
func (h Header) Range(off, n int64) (first, last, from, to int64) {
	first = off / ChunkSize
	last = first
	if n > 0 {
		last = (off + n - 1) / ChunkSize
	}
	from = HeaderSize + first*(ChunkSize+TagSize)
	to = HeaderSize + (last+1)*(ChunkSize+TagSize)
	return first, last, from, min(to, SealedSize(h.Size))
}

// OpenChunk opens chunk i in place and returns its plain bytes. sealed must be
// exactly that chunk.
func (o *Opener) OpenChunk(i int64, sealed []byte) ([]byte, error) {
	n := chunks(o.h.Size)
	if i < 0 || i >= n {
		return nil, fmt.Errorf("%w: no chunk %d in an object of %d", ErrCorrupt, i, n)
	}
	want := min(ChunkSize, o.h.Size-i*ChunkSize) + TagSize
	if int64(len(sealed)) != want {
		return nil, fmt.Errorf("%w: chunk %d has %d bytes, want %d", ErrCorrupt, i, len(sealed), want)
	}
	plain, err := o.aead.Open(sealed[:0], o.h.nonce(i, i == n-1), sealed, o.aad)
	if err != nil {
		return nil, fmt.Errorf("%w: chunk %d does not open", ErrCorrupt, i)
	}
	return plain, nil
}
