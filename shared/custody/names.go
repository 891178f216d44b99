package custody

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// Beside the entries of each tile stands a file with the ids of the records that they are
// of, a line each, so that a record's leaf is found without reading the whole log. It is a
// convenience and proves nothing: whoever finds a leaf by it compares the digest.

// ErrNoLeaf says that a record has no leaf in the log as it stands.
var ErrNoLeaf = errors.New("record is not in the log")

// nameSize is the length of a line: an event id and a line end.
const nameSize = 16 + 1 + 16 + 1

// namesPath is the path of the names of a tile's entries.
func namesPath(n int64, w int) string {
	p := tilePath(tlog.Tile{H: tileHeight, L: -1, N: n, W: w})
	return "names/" + strings.TrimPrefix(p, "tile/entries/")
}

// AppendNames writes the names of the leaves that make the tree longer, under the promises
// of Append. It comes before the head moves over them.
func (t *Tree) AppendNames(ctx context.Context, next []Promise) error {
	first := t.at.Size / tileWidth
	names, err := t.names(ctx, first)
	if err != nil {
		return err
	}
	for n := first; len(next) > 0; n++ {
		take := min(tileWidth-len(names), len(next))
		for _, p := range next[:take] {
			if _, err := TimeOf(p.ID); err != nil {
				return fmt.Errorf("name of leaf: %w", err)
			}
			names = append(names, p.ID)
		}
		next = next[take:]
		path := namesPath(n, len(names))
		if err := t.tiles.Create(ctx, path, []byte(strings.Join(names, "\n")+"\n")); err != nil {
			return fmt.Errorf("names %s: %w", path, err)
		}
		names = nil
	}
	return nil
}

// names reads the names of a tile's entries, as far as the checkpoint reaches.
func (t *Tree) names(ctx context.Context, n int64) ([]string, error) {
	w := int(min(t.at.Size-n*tileWidth, tileWidth))
	if w <= 0 {
		return nil, nil
	}
	path := namesPath(n, w)
	b, err := t.tiles.Read(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("names %s: %w", path, err)
	}
	if len(b) != w*nameSize {
		return nil, fmt.Errorf("names %s of %d bytes: %w", path, len(b), ErrProof)
	}
	out := make([]string, w)
	for i, line := range bytes.SplitN(b, []byte("\n"), w+1)[:w] {
		out[i] = string(line)
		if _, err := TimeOf(out[i]); err != nil {
			return nil, fmt.Errorf("names %s: line %d: %w: %w", path, i+1, ErrProof, err)
		}
	}
	return out, nil
}

// disorder is how far apart in time two records may be that stand in the log in the order
// opposite to theirs: a record may become durable late, and clocks differ.
const disorder = 30 * time.Minute

// Finder finds the leaves of records in one tree. It keeps what it read, and is used by
// one goroutine.
type Finder struct {
	tree  *Tree
	names map[int64][]string
}

// Finder returns a finder for the tree.
func (t *Tree) Finder() *Finder { return &Finder{t, map[int64][]string{}} }

func (f *Finder) tile(ctx context.Context, n int64) ([]string, error) {
	if names, ok := f.names[n]; ok {
		return names, nil
	}
	names, err := f.tree.names(ctx, n)
	if err == nil {
		f.names[n] = names
	}
	return names, err
}

// Find returns the index of the leaf of a record, ErrNoLeaf if the tree has none of that
// id. Leaves stand nearly in the order of time: it costs the logarithm of the number of
// tiles in reads, and one or two. What it finds is what the names say; the caller proves it.
func (f *Finder) Find(ctx context.Context, id string) (int64, error) {
	at, err := TimeOf(id)
	if err != nil {
		return 0, err
	}
	tiles := (f.tree.at.Size + tileWidth - 1) / tileWidth
	early, late := IDsFrom(at.Add(-disorder)), IDsFrom(at.Add(disorder))
	var failed error
	first := int64(sort.Search(int(tiles), func(n int) bool {
		names, err := f.tile(ctx, int64(n))
		if err != nil {
			failed = err
			return true
		}
		return names[len(names)-1] >= early
	}))
	for n := first; n < tiles && failed == nil; n++ {
		names, err := f.tile(ctx, n)
		if err != nil {
			failed = err
			break
		}
		for i, name := range names {
			if name == id {
				return n*tileWidth + int64(i), nil
			}
		}
		if names[0] > late {
			break
		}
	}
	if failed != nil {
		return 0, fmt.Errorf("find leaf of %s: %w", id, failed)
	}
	return 0, fmt.Errorf("find leaf of %s: %w", id, ErrNoLeaf)
}
