package custody

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// tileHeight is that of C2SP tlog-tiles: a full tile holds 256 hashes.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// Tiles is where a log lies: files that never change, and one head that does.
type Tiles interface {
	// Create stores a file, durably when it returns nil. Creating the same bytes again is
	// no error; other bytes under a name that is taken are ErrSplitView.
	Create(ctx context.Context, name string, body []byte) error
	// Read returns a whole file, ErrNoTile if there is none.
	Read(ctx context.Context, name string) ([]byte, error)
	// Head returns the head and its revision, both empty if there is none yet.
	Head(ctx context.Context) (body []byte, revision string, err error)
	// SwapHead replaces the head if it is still at revision, otherwise it changes nothing
	// and returns ErrMoved.
	SwapHead(ctx context.Context, body []byte, revision string) error
}

// Errors of Tiles.
var (
	ErrNoTile = errors.New("custody log: no such file")
	ErrMoved  = errors.New("custody log: head changed meanwhile")
)

// Tree is the Merkle tree of a log at one checkpoint. Every tile that is read is checked
// against the checkpoint's root before anything is taken from it.
type Tree struct {
	tiles Tiles
	at    Checkpoint
}

// NewTree returns the tree that a checkpoint speaks of. The checkpoint must have been
// verified, or belong to the caller.
func NewTree(tiles Tiles, at Checkpoint) *Tree { return &Tree{tiles, at} }

// Append writes the tiles and entries that make the tree longer by leaves, and returns
// the checkpoint of the longer tree. Files are durable when it returns nil; nothing
// points to them before a head or a checkpoint does. The same leaves give the same
// files, so that it can be repeated by anybody, also half done.
func (t *Tree) Append(ctx context.Context, leaves []Digest) (Checkpoint, error) {
	overlay := overlay{base: t.reader(ctx), fresh: map[int64]tlog.Hash{}}
	size := t.at.Size
	for _, leaf := range leaves {
		hs, err := tlog.StoredHashesForRecordHash(size, tlog.RecordHash(leaf[:]), overlay)
		if err != nil {
			return Checkpoint{}, fmt.Errorf("append leaf %d: %w", size, err)
		}
		for i, h := range hs {
			overlay.fresh[tlog.StoredHashIndex(0, size)+int64(i)] = h
		}
		size++
	}
	root, err := tlog.TreeHash(size, overlay)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("root of %d leaves: %w", size, err)
	}
	for _, tile := range tlog.NewTiles(tileHeight, t.at.Size, size) {
		data, err := tlog.ReadTileData(tile, overlay)
		if err != nil {
			return Checkpoint{}, fmt.Errorf("tile %s: %w", tilePath(tile), err)
		}
		if err := t.tiles.Create(ctx, tilePath(tile), data); err != nil {
			return Checkpoint{}, fmt.Errorf("tile %s: %w", tilePath(tile), err)
		}
	}
	if err := t.appendEntries(ctx, leaves); err != nil {
		return Checkpoint{}, err
	}
	return Checkpoint{Origin: t.at.Origin, Size: size, Root: Digest(root)}, nil
}

// appendEntries writes the bundles of entries that the new leaves fall into.
func (t *Tree) appendEntries(ctx context.Context, leaves []Digest) error {
	first := t.at.Size / tileWidth
	bundle, err := t.Leaves(ctx, first*tileWidth, t.at.Size)
	if err != nil {
		return err
	}
	for n := first; len(leaves) > 0; n++ {
		take := min(tileWidth-len(bundle), len(leaves))
		bundle = append(bundle, leaves[:take]...)
		leaves = leaves[take:]
		name := tilePath(tlog.Tile{H: tileHeight, L: -1, N: n, W: len(bundle)})
		if err := t.tiles.Create(ctx, name, encodeBundle(bundle)); err != nil {
			return fmt.Errorf("entries %s: %w", name, err)
		}
		bundle = nil
	}
	return nil
}

// Leaves returns the digests of leaves [from, to), checked against the tree.
func (t *Tree) Leaves(ctx context.Context, from, to int64) ([]Digest, error) {
	if from < 0 || to > t.at.Size || from > to {
		return nil, fmt.Errorf("leaves %d to %d of a log of %d", from, to, t.at.Size)
	}
	var out []Digest
	for n := from / tileWidth; n*tileWidth < to; n++ {
		bundle, err := t.bundle(ctx, n)
		if err != nil {
			return nil, err
		}
		indexes := make([]int64, len(bundle))
		for i := range bundle {
			indexes[i] = tlog.StoredHashIndex(0, n*tileWidth+int64(i))
		}
		want, err := t.reader(ctx).ReadHashes(indexes)
		if err != nil {
			return nil, fmt.Errorf("entries of tile %d: %w", n, err)
		}
		for i, leaf := range bundle {
			if tlog.RecordHash(leaf[:]) != want[i] {
				return nil, fmt.Errorf("leaf %d is not the one in the tree: %w", n*tileWidth+int64(i), ErrProof)
			}
		}
		lo, hi := max(from-n*tileWidth, 0), min(to-n*tileWidth, int64(len(bundle)))
		out = append(out, bundle[lo:hi]...)
	}
	return out, nil
}

// ProveInclusion returns the proof that CheckInclusion takes for a leaf.
func (t *Tree) ProveInclusion(ctx context.Context, index int64) ([]Digest, error) {
	if index < 0 || index >= t.at.Size {
		return nil, fmt.Errorf("leaf %d of a log of %d", index, t.at.Size)
	}
	p, err := tlog.ProveRecord(t.at.Size, index, t.reader(ctx))
	if err != nil {
		return nil, fmt.Errorf("prove leaf %d of %d: %w", index, t.at.Size, err)
	}
	return digests(p), nil
}

// ProveConsistency returns the proof that CheckConsistency takes for an older size.
func (t *Tree) ProveConsistency(ctx context.Context, older int64) ([]Digest, error) {
	switch {
	case older < 0 || older > t.at.Size:
		return nil, fmt.Errorf("size %d of a log of %d", older, t.at.Size)
	case older == 0 || older == t.at.Size:
		return nil, nil
	}
	p, err := tlog.ProveTree(t.at.Size, older, t.reader(ctx))
	if err != nil {
		return nil, fmt.Errorf("prove %d leaves of %d: %w", older, t.at.Size, err)
	}
	return digests(p), nil
}

// bundle reads the entries of a tile, as far as the checkpoint reaches.
func (t *Tree) bundle(ctx context.Context, n int64) ([]Digest, error) {
	w := int(min(t.at.Size-n*tileWidth, tileWidth))
	if w <= 0 {
		return nil, nil
	}
	name := tilePath(tlog.Tile{H: tileHeight, L: -1, N: n, W: w})
	b, err := t.tiles.Read(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("entries %s: %w", name, err)
	}
	leaves, err := decodeBundle(b, w)
	if err != nil {
		return nil, fmt.Errorf("entries %s: %w", name, err)
	}
	return leaves, nil
}

func (t *Tree) reader(ctx context.Context) tlog.HashReader {
	r := tlog.TileHashReader(tlog.Tree{N: t.at.Size, Hash: tlog.Hash(t.at.Root)}, tileReader{ctx, t.tiles})
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out, err := r.ReadHashes(indexes)
		var unread *readError
		if err == nil || errors.As(err, &unread) {
			return out, err
		}
		return nil, fmt.Errorf("%w: %w", err, ErrProof)
	})
}

// readError is a tile that could not be read; whatever else package tlog finds wrong with
// tiles is that they are not those of the tree.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// overlay reads what is new in a tree, or was read before, in place of what is stored.
type overlay struct {
	base  tlog.HashReader
	fresh map[int64]tlog.Hash
}

func (o overlay) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	var old []int64
	var at []int
	for i, x := range indexes {
		h, ok := o.fresh[x]
		if !ok {
			old, at = append(old, x), append(at, i)
			continue
		}
		out[i] = h
	}
	if len(old) == 0 {
		return out, nil
	}
	got, err := o.base.ReadHashes(old)
	if err != nil {
		return nil, err
	}
	for i, h := range got {
		out[at[i]] = h
		o.fresh[old[i]] = h // a batch of leaves asks for the same hashes again and again
	}
	return out, nil
}

type tileReader struct {
	ctx   context.Context
	tiles Tiles
}

func (r tileReader) Height() int { return tileHeight }

func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, t := range tiles {
		b, err := r.tiles.Read(r.ctx, tilePath(t))
		if err != nil {
			return nil, &readError{fmt.Errorf("tile %s: %w", tilePath(t), err)}
		}
		if len(b) != t.W*tlog.HashSize {
			return nil, fmt.Errorf("tile %s of %d bytes: %w", tilePath(t), len(b), ErrProof)
		}
		out[i] = b
	}
	return out, nil
}

// SaveTiles is told of tiles that were checked; nothing is cached here.
func (r tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

// tilePath is the path of C2SP tlog-tiles: that of package tlog without the height, with
// entries for what tlog calls data.
// https://c2sp.org/tlog-tiles
func tilePath(t tlog.Tile) string {
	p := strings.TrimPrefix(t.Path(), "tile/8/")
	if rest, ok := strings.CutPrefix(p, "data/"); ok {
		p = "entries/" + rest
	}
	return "tile/" + p
}

// encodeBundle lays entries out as C2SP tlog-tiles: each after its length in 16 bits.
func encodeBundle(leaves []Digest) []byte {
	var b bytes.Buffer
	for _, l := range leaves {
		b.Write(binary.BigEndian.AppendUint16(nil, uint16(len(l))))
		b.Write(l[:])
	}
	return b.Bytes()
}

func decodeBundle(b []byte, n int) ([]Digest, error) {
	const entry = 2 + len(Digest{})
	if len(b) != n*entry {
		return nil, fmt.Errorf("%d bytes for %d entries: %w", len(b), n, ErrProof)
	}
	out := make([]Digest, n)
	for i := range out {
		e := b[i*entry : (i+1)*entry]
		if int(binary.BigEndian.Uint16(e)) != len(out[i]) {
			return nil, fmt.Errorf("entry %d is no digest: %w", i, ErrProof)
		}
		copy(out[i][:], e[2:])
	}
	return out, nil
}
