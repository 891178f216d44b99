package evidence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"steno/shared/custody"
	"steno/shared/evidence/internal/envelope"
	"steno/shared/teams"
)

// Tails is the short-lived store of sealed objects that wait to be packed: hot, and
// outside write-once storage.
type Tails interface {
	Blobs
	// List returns the objects whose names begin with prefix, in the order of names.
	List(ctx context.Context, prefix string) ([]TailInfo, error)
	// Delete removes an object. One that is gone already is no error.
	Delete(ctx context.Context, name string) error
}

// TailInfo is an object of the short-lived store.
type TailInfo struct {
	Name     string
	Size     int64
	StoredAt time.Time
}

// MaxPackMembers is how many sealed objects one pack may hold.
const MaxPackMembers = 4096

const (
	packHeader = 32
	packEntry  = 64
	packV1     = 1
)

var packMagic = [4]byte{'S', 'T', 'N', 'P'}

// Pack is many small sealed objects of one unit as one object: cheap to keep for years,
// and readable one member at a time. Members keep their own names, keys and bytes.
type Pack struct {
	Ref     Ref
	Bytes   []byte
	SHA256  [sha256.Size]byte // of Bytes
	Members []Member
	Until   time.Time // Retain Until, as that of Sealed
}

// Member is where a sealed object lies in a pack.
type Member struct {
	Object string
	Off    int64
	Len    int64
	SHA256 [sha256.Size]byte // of the sealed bytes
}

// NewPack lays sealed objects of ref's unit out as one pack, in the order given. The
// same objects give the same bytes.
func NewPack(ref Ref, members []Sealed) (Pack, error) {
	scope, err := ref.scope()
	if err != nil {
		return Pack{}, fmt.Errorf("pack: %w", err)
	}
	if len(members) == 0 || len(members) > MaxPackMembers {
		return Pack{}, fmt.Errorf("pack %s: %d members, want 1 to %d", ref.Object, len(members), MaxPackMembers)
	}
	size := int64(packHeader + packEntry*len(members))
	for _, m := range members {
		if m.Ref.Tenant != ref.Tenant || m.Ref.Unit != ref.Unit {
			return Pack{}, fmt.Errorf("pack %s: member %s belongs to another unit", ref.Object, m.Ref.Object)
		}
		if err := m.check(); err != nil {
			return Pack{}, fmt.Errorf("pack %s: member %s: %w", ref.Object, m.Ref.Object, err)
		}
		size += int64(len(m.Bytes))
	}
	if size > MaxSealed {
		return Pack{}, fmt.Errorf("pack %s: %d bytes, more than the %d that one request may carry", ref.Object, size, MaxSealed)
	}
	p := Pack{Ref: ref, Bytes: make([]byte, 0, size)}
	p.Bytes = append(p.Bytes, packMagic[:]...)
	p.Bytes = append(p.Bytes, packV1, 0, 0, 0)
	p.Bytes = binary.BigEndian.AppendUint32(p.Bytes, uint32(len(members)))
	p.Bytes = append(p.Bytes, 0, 0, 0, 0)
	p.Bytes = append(p.Bytes, scope.Object[:]...)
	off := int64(packHeader + packEntry*len(members))
	for _, m := range members {
		id, err := hex.DecodeString(m.Ref.Object)
		if err != nil {
			return Pack{}, fmt.Errorf("pack %s: %w", ref.Object, err)
		}
		e := Member{Object: m.Ref.Object, Off: off, Len: int64(len(m.Bytes)), SHA256: sha256.Sum256(m.Bytes)}
		p.Bytes = append(p.Bytes, id...)
		p.Bytes = binary.BigEndian.AppendUint64(p.Bytes, uint64(e.Off))
		p.Bytes = binary.BigEndian.AppendUint64(p.Bytes, uint64(e.Len))
		p.Bytes = append(p.Bytes, e.SHA256[:]...)
		p.Members = append(p.Members, e)
		off += e.Len
	}
	for _, m := range members {
		p.Bytes = append(p.Bytes, m.Bytes...)
	}
	p.SHA256 = sha256.Sum256(p.Bytes)
	return p, nil
}

// PutTail stores a sealed object in the short-lived store, with the promises of Put.
func (s *Store) PutTail(ctx context.Context, o Sealed) error {
	if s.c.Tails == nil {
		return errors.New("put tail: the store has no tails")
	}
	if err := o.check(); err != nil {
		return fmt.Errorf("put tail %s: %w", o.Ref.Object, err)
	}
	if err := s.c.Tails.Create(ctx, o.Ref.name(), o.Bytes); err != nil {
		return fmt.Errorf("put tail %s: %w", o.Ref.Object, err)
	}
	return nil
}

// PutPack stores a pack, with the promises of Put.
func (s *Store) PutPack(ctx context.Context, p Pack) error {
	scope, err := p.Ref.scope()
	if err != nil {
		return fmt.Errorf("put pack: %w", err)
	}
	if id, _, err := parsePackHeader(p.Bytes); err != nil || id != scope.Object {
		return fmt.Errorf("put pack %s: %w: the bytes are not those packed under this name", p.Ref.Object, ErrCorrupt)
	}
	if err := s.create(ctx, p.Ref.name(), p.Bytes, p.Until); err != nil {
		return fmt.Errorf("put pack %s: %w", p.Ref.Object, err)
	}
	return nil
}

// Tails lists the objects of a unit in the short-lived store.
func (s *Store) Tails(ctx context.Context, tenant teams.TenantID, unit string) ([]TailInfo, error) {
	ref := Ref{Tenant: tenant, Unit: unit, Object: strings.Repeat("0", 2*envelope.IDSize)}
	if _, err := ref.scope(); err != nil {
		return nil, fmt.Errorf("list tails: %w", err)
	}
	if s.c.Tails == nil {
		return nil, errors.New("list tails: the store has no tails")
	}
	prefix := string(tenant) + "/" + unit + "/"
	list, err := s.c.Tails.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("list tails of %s: %w", unit, err)
	}
	for i := range list {
		list[i].Name = strings.TrimPrefix(list[i].Name, prefix)
	}
	return list, nil
}

// Tail reads a sealed object of the short-lived store as it is, so that it can be
// packed. Nothing is decrypted.
func (s *Store) Tail(ctx context.Context, ref Ref) (Sealed, error) {
	if _, err := ref.scope(); err != nil {
		return Sealed{}, fmt.Errorf("read tail: %w", err)
	}
	if s.c.Tails == nil {
		return Sealed{}, errors.New("read tail: the store has no tails")
	}
	size, err := s.c.Tails.Size(ctx, ref.name())
	if err != nil {
		return Sealed{}, fmt.Errorf("read tail %s: %w", ref.Object, err)
	}
	if size < envelope.HeaderSize || size > MaxSealed {
		return Sealed{}, fmt.Errorf("read tail %s: %w: %d bytes", ref.Object, ErrCorrupt, size)
	}
	b, err := s.c.Tails.ReadAt(ctx, ref.name(), 0, size)
	if err != nil {
		return Sealed{}, fmt.Errorf("read tail %s: %w", ref.Object, err)
	}
	o := Sealed{Ref: ref, Bytes: b, Ciphertext: sha256.Sum256(b)}
	if err := o.check(); err != nil {
		return Sealed{}, fmt.Errorf("read tail %s: %w", ref.Object, err)
	}
	return o, nil
}

// DropTail removes an object from the short-lived store. Only what is in a pack that
// was verified may be dropped. It may be repeated.
func (s *Store) DropTail(ctx context.Context, ref Ref) error {
	if _, err := ref.scope(); err != nil {
		return fmt.Errorf("drop tail: %w", err)
	}
	if err := s.c.Tails.Delete(ctx, ref.name()); err != nil {
		return fmt.Errorf("drop tail %s: %w", ref.Object, err)
	}
	return nil
}

// OpenTail opens an object of the short-lived store, under the rules of Open.
func (s *Store) OpenTail(ctx context.Context, ref Ref, receipt custody.Receipt) (*Object, error) {
	if s.c.Tails == nil {
		return nil, errors.New("open tail: the store has no tails")
	}
	scope, err := s.admit(ref, receipt)
	if err != nil {
		return nil, err
	}
	size, err := s.c.Tails.Size(ctx, ref.name())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", ref.Object, err)
	}
	return s.open(ctx, place{blobs: s.c.Tails, name: ref.name(), size: size, whole: true}, ref, scope)
}

// Packed is an opened pack: the directory of its members.
type Packed struct {
	Members []Member

	store   *Store
	ref     Ref
	receipt custody.Receipt
	size    int64
	held    held
	at      map[string]Member
}

// OpenPack reads the directory of a pack, under the rules of Open. Its members can be
// opened as long as the receipt is good.
func (s *Store) OpenPack(ctx context.Context, ref Ref, receipt custody.Receipt) (*Packed, error) {
	scope, err := s.admit(ref, receipt)
	if err != nil {
		return nil, err
	}
	size, err := s.c.Blobs.Size(ctx, ref.name())
	if err != nil {
		return nil, fmt.Errorf("open pack %s: %w", ref.Object, err)
	}
	corrupt := func(what string) error { return fmt.Errorf("open pack %s: %w: %s", ref.Object, ErrCorrupt, what) }
	if size < packHeader {
		return nil, corrupt("shorter than its header")
	}
	head, err := s.c.Blobs.ReadAt(ctx, ref.name(), 0, min(size, packHeader+128*packEntry))
	if err != nil {
		return nil, fmt.Errorf("open pack %s: %w", ref.Object, err)
	}
	id, n, err := parsePackHeader(head)
	if err != nil {
		return nil, fmt.Errorf("open pack %s: %w", ref.Object, err)
	}
	end := int64(packHeader + packEntry*n)
	if id != scope.Object || end > size {
		return nil, corrupt("the directory is not that of this pack")
	}
	if end > int64(len(head)) {
		if head, err = s.c.Blobs.ReadAt(ctx, ref.name(), 0, end); err != nil {
			return nil, fmt.Errorf("open pack %s: %w", ref.Object, err)
		}
	}
	p := &Packed{store: s, ref: ref, receipt: receipt, size: size, at: map[string]Member{}}
	for i := range n {
		e := head[packHeader+packEntry*i:]
		m := Member{
			Object: hex.EncodeToString(e[:16]),
			Off:    int64(binary.BigEndian.Uint64(e[16:])), Len: int64(binary.BigEndian.Uint64(e[24:])),
			SHA256: [sha256.Size]byte(e[32:64]),
		}
		if m.Off != end || m.Len < envelope.HeaderSize || m.Len > size-m.Off {
			return nil, corrupt("a member lies elsewhere than the one before ends")
		}
		if _, twice := p.at[m.Object]; twice {
			return nil, corrupt("a member stands there twice")
		}
		end = m.Off + m.Len
		p.Members = append(p.Members, m)
		p.at[m.Object] = m
	}
	if end != size {
		return nil, corrupt("bytes that belong to no member")
	}
	return p, nil
}

// Open opens a member, ErrNotFound if the pack does not hold it.
func (p *Packed) Open(ctx context.Context, object string) (*Object, error) {
	m, ok := p.at[object]
	if !ok {
		return nil, fmt.Errorf("open %s in pack %s: %w", object, p.ref.Object, ErrNotFound)
	}
	ref := Ref{Tenant: p.ref.Tenant, Unit: p.ref.Unit, Object: object}
	scope, err := p.store.admit(ref, p.receipt)
	if err != nil {
		return nil, err
	}
	return p.store.open(ctx, place{blobs: p.blob(), name: p.ref.name(), base: m.Off, size: m.Len, whole: true}, ref, scope)
}

// Digest reads the whole pack, which is then held in memory for what is opened and
// verified next, and returns its size and SHA-256.
func (p *Packed) Digest(ctx context.Context) (size int64, digest [sha256.Size]byte, err error) {
	if p.held == nil {
		if p.size > MaxSealed {
			return 0, digest, fmt.Errorf("read pack %s: %w: %d bytes", p.ref.Object, ErrCorrupt, p.size)
		}
		b, err := p.store.c.Blobs.ReadAt(ctx, p.ref.name(), 0, p.size)
		if err != nil {
			return 0, digest, fmt.Errorf("read pack %s: %w", p.ref.Object, err)
		}
		p.held = held(b)
	}
	return p.size, sha256.Sum256(p.held), nil
}

// held is a blob in memory.
type held []byte

func (h held) ReadAt(_ context.Context, _ string, off, n int64) ([]byte, error) {
	if off < 0 || n < 1 || off > int64(len(h)) || n > int64(len(h))-off {
		return nil, fmt.Errorf("%w: stored bytes end early", ErrCorrupt)
	}
	return bytes.Clone(h[off : off+n]), nil
}

// blob is where the pack is read from.
func (p *Packed) blob() ranged {
	if p.held != nil {
		return p.held
	}
	return p.store.c.Blobs
}

// Verify reads a member's sealed bytes and compares their digest with the directory's.
func (p *Packed) Verify(ctx context.Context, object string) error {
	m, ok := p.at[object]
	if !ok {
		return fmt.Errorf("verify %s in pack %s: %w", object, p.ref.Object, ErrNotFound)
	}
	b, err := p.blob().ReadAt(ctx, p.ref.name(), m.Off, m.Len)
	if err != nil {
		return fmt.Errorf("verify %s: %w", object, err)
	}
	if sha256.Sum256(b) != m.SHA256 {
		return fmt.Errorf("verify %s: %w: digest differs from the directory's", object, ErrCorrupt)
	}
	return nil
}

func parsePackHeader(b []byte) (id [envelope.IDSize]byte, members int, err error) {
	if len(b) < packHeader || [4]byte(b[:4]) != packMagic {
		return id, 0, fmt.Errorf("%w: not a pack", ErrFormat)
	}
	n := binary.BigEndian.Uint32(b[8:])
	if b[4] != packV1 || b[5]|b[6]|b[7] != 0 || binary.BigEndian.Uint32(b[12:]) != 0 || n == 0 || n > MaxPackMembers {
		return id, 0, fmt.Errorf("%w: pack of an unknown version or size", ErrFormat)
	}
	return [envelope.IDSize]byte(b[16:32]), int(n), nil
}
