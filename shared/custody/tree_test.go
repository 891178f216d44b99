package custody_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"steno/shared/custody"
	"steno/shared/storetest"
)

// naive is the Merkle tree hash as RFC 6962 section 2.1 defines it, by recursion.
func naive(leaves []custody.Digest) custody.Digest {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, leaves[0][:]...))
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	l, r := naive(leaves[:k]), naive(leaves[k:])
	return sha256.Sum256(slices.Concat([]byte{1}, l[:], r[:]))
}

func leavesOf(n int) []custody.Digest {
	out := make([]custody.Digest, n)
	for i := range out {
		out[i] = sha256.Sum256(fmt.Appendf(nil, "leaf %d", i))
	}
	return out
}

// grown appends leaves in batches and returns every checkpoint on the way.
func grown(t *testing.T, tiles custody.Tiles, leaves []custody.Digest, batches ...int) []custody.Checkpoint {
	t.Helper()
	out := []custody.Checkpoint{{Origin: "test"}}
	for _, n := range batches {
		last := out[len(out)-1]
		next, err := custody.NewTree(tiles, last).Append(t.Context(), leaves[last.Size:last.Size+int64(n)])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, next)
	}
	return out
}

func TestATreeHasTheRootOfRFC6962HoweverItGrew(t *testing.T) {
	leaves := leavesOf(1100)
	for _, batches := range [][]int{{1}, {2}, {1, 1, 1}, {255, 1, 1}, {256}, {257, 300}, {1100}, {3, 500, 9, 588}} {
		at := grown(t, new(storetest.Tiles), leaves, batches...)
		for _, c := range at[1:] {
			if want := naive(leaves[:c.Size]); c.Root != want {
				t.Errorf("%v: root of %d leaves is %x, want %x", batches, c.Size, c.Root, want)
			}
		}
	}
}

func TestEveryLeafIsProvenAndNoOtherIs(t *testing.T) {
	for _, n := range []int{1, 2, 3, 255, 256, 257, 700} {
		leaves := leavesOf(n)
		tiles := new(storetest.Tiles)
		at := grown(t, tiles, leaves, n)[1]
		tree := custody.NewTree(tiles, at)
		got, err := tree.Leaves(t.Context(), 0, int64(n))
		if err != nil || !slices.Equal(got, leaves) {
			t.Fatalf("leaves of %d: %v", n, err)
		}
		for i := range leaves {
			index := int64(i)
			p, err := tree.ProveInclusion(t.Context(), index)
			if err != nil {
				t.Fatal(err)
			}
			if err := custody.CheckInclusion(at, index, leaves[i], p); err != nil {
				t.Fatalf("leaf %d of %d: %v", i, n, err)
			}
			refused := map[string]error{
				"another leaf":   custody.CheckInclusion(at, index, sha256.Sum256([]byte("x")), p),
				"another index":  custody.CheckInclusion(at, index+1, leaves[i], p),
				"negative index": custody.CheckInclusion(at, -1, leaves[i], p),
				"longer proof":   custody.CheckInclusion(at, index, leaves[i], append(slices.Clone(p), custody.Digest{})),
				"its own hash":   custody.CheckInclusion(at, index, naive(leaves[i:i+1]), p),
				"another root":   custody.CheckInclusion(custody.Checkpoint{Size: at.Size}, index, leaves[i], p),
			}
			if len(p) > 0 {
				refused["shorter proof"] = custody.CheckInclusion(at, index, leaves[i], p[1:])
				bad := slices.Clone(p)
				bad[len(bad)/2][7] ^= 1
				refused["flipped bit"] = custody.CheckInclusion(at, index, leaves[i], bad)
			}
			for what, err := range refused {
				if !errors.Is(err, custody.ErrProof) {
					t.Fatalf("leaf %d of %d, %s: %v", i, n, what, err)
				}
			}
		}
	}
}

func TestARollbackAndASecondHistoryAreNamed(t *testing.T) {
	leaves := leavesOf(600)
	tiles := new(storetest.Tiles)
	at := grown(t, tiles, leaves, 1, 2, 253, 44, 300)
	for i, older := range at {
		for _, newer := range at[i:] {
			p, err := custody.NewTree(tiles, newer).ProveConsistency(t.Context(), older.Size)
			if err != nil {
				t.Fatal(err)
			}
			if err := custody.CheckConsistency(older, newer, p); err != nil {
				t.Fatalf("%d in %d: %v", older.Size, newer.Size, err)
			}
			if older.Size > 0 && newer.Size > older.Size {
				if err := custody.CheckConsistency(newer, older, p); !errors.Is(err, custody.ErrRollback) {
					t.Errorf("%d after %d: %v", older.Size, newer.Size, err)
				}
				forked := older
				forked.Root[0] ^= 1
				if err := custody.CheckConsistency(forked, newer, p); !errors.Is(err, custody.ErrSplitView) {
					t.Errorf("another %d in %d: %v", older.Size, newer.Size, err)
				}
			}
		}
	}
	other := slices.Clone(leaves)
	other[100] = custody.Digest{1}
	fork := grown(t, new(storetest.Tiles), other, 600)[1]
	if err := custody.CheckConsistency(at[5], fork, nil); !errors.Is(err, custody.ErrSplitView) {
		t.Errorf("two roots at one size: %v", err)
	}
	fork.Origin = "another log"
	if err := custody.CheckConsistency(at[4], fork, nil); !errors.Is(err, custody.ErrProof) {
		t.Errorf("another log: %v", err)
	}
}

func TestEveryChangeToATileIsNoticed(t *testing.T) {
	const seed = 6962
	rng := rand.New(rand.NewPCG(seed, 0))
	leaves := leavesOf(700)
	tiles := new(storetest.Tiles)
	at := grown(t, tiles, leaves, 700)[1]
	tree := custody.NewTree(tiles, at)
	whole := func() error {
		if _, err := tree.Leaves(t.Context(), 0, at.Size); err != nil {
			return err
		}
		for _, i := range []int64{0, 255, 256, 511, 699} {
			if _, err := tree.ProveInclusion(t.Context(), i); err != nil {
				return err
			}
		}
		return nil
	}
	if err := whole(); err != nil {
		t.Fatal(err)
	}
	for _, name := range tiles.Names() {
		body, err := tiles.Read(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for range 60 {
			bad := slices.Clone(body)
			switch rng.IntN(3) {
			case 0:
				bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
			case 1:
				bad = bad[:rng.IntN(len(bad))]
			case 2:
				bad = append(bad, byte(rng.IntN(256)))
			}
			tiles.Tamper(name, bad)
			if err := whole(); err == nil {
				t.Fatalf("seed %d: %s changed from %d to %d bytes, unnoticed", seed, name, len(body), len(bad))
			}
		}
		tiles.Tamper(name, nil)
		if err := whole(); !errors.Is(err, custody.ErrNoTile) {
			t.Errorf("%s removed: %v", name, err)
		}
		tiles.Tamper(name, body)
	}
	if err := whole(); err != nil {
		t.Errorf("intact again: %v", err)
	}
}

func TestTilesLieWhereTlogTilesWantsThem(t *testing.T) {
	tiles := new(storetest.Tiles)
	grown(t, tiles, leavesOf(258), 2, 256)
	want := []string{
		"tile/0/000", "tile/0/000.p/2", "tile/0/001.p/2", "tile/1/000.p/1",
		"tile/entries/000", "tile/entries/000.p/2", "tile/entries/001.p/2",
	}
	if got := tiles.Names(); !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestAnAuditFindsWhatWasRemovedChangedOrPutInBehindTheLog(t *testing.T) {
	from := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	record := func(i int, detail string) custody.Record {
		at := from.Add(time.Duration(i) * time.Second)
		return custody.Record{ID: custody.IDsFrom(at) + fmt.Sprintf("-%04d", i), Event: custody.Event{At: at, Action: custody.Read, System: "test", Item: "item", Detail: detail}}
	}
	tiles := new(storetest.Tiles)
	var leaves []custody.Digest
	for i := range 300 {
		d, err := record(i, "").Digest()
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, d)
	}
	tree := custody.NewTree(tiles, grown(t, tiles, leaves, 300)[1])
	trailWith := func(change func(i int) (custody.Record, bool)) custody.Trail {
		trail := new(storetest.Trail)
		for i := range 301 {
			r, there := change(i)
			if !there {
				continue
			}
			if err := trail.Insert(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		return trail
	}
	for what, c := range map[string]struct {
		change            func(i int) (custody.Record, bool)
		unlogged, orphans int
	}{
		"intact":  {func(i int) (custody.Record, bool) { return record(i, ""), i < 300 }, 0, 0},
		"removed": {func(i int) (custody.Record, bool) { return record(i, ""), i < 300 && i != 17 }, 0, 1},
		"changed": {func(i int) (custody.Record, bool) {
			if i == 17 {
				return record(i, "nothing to see"), true
			}
			return record(i, ""), i < 300
		}, 1, 1},
		"put in": {func(i int) (custody.Record, bool) { return record(i, ""), true }, 1, 0},
	} {
		f, err := custody.Audit(context.Background(), trailWith(c.change), tree, from, from.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Unlogged) != c.unlogged || len(f.Orphans) != c.orphans {
			t.Errorf("%s: %d unlogged and %d orphans, want %d and %d", what, len(f.Unlogged), len(f.Orphans), c.unlogged, c.orphans)
		}
		if c.orphans > 0 && f.Orphans[0] != 17 {
			t.Errorf("%s: orphan %d", what, f.Orphans[0])
		}
	}
}

// counting counts reads.
type counting struct {
	storetest.Tiles
	reads int
}

func (c *counting) Read(ctx context.Context, name string) ([]byte, error) {
	c.reads++
	return c.Tiles.Read(ctx, name)
}

func TestAProofInAMillionLeavesTakesAtMostFiveReads(t *testing.T) {
	const n = 1_000_003
	leaves := make([]custody.Digest, n)
	for i := range leaves {
		binary.BigEndian.PutUint64(leaves[i][:], uint64(i))
	}
	tiles := new(counting)
	at := grown(t, tiles, leaves, n)[1]
	tree := custody.NewTree(tiles, at)
	for _, i := range []int64{0, 1, 255, 256, 65_535, 65_536, 500_000, 999_935, 999_936, n - 1} {
		tiles.reads = 0
		p, err := tree.ProveInclusion(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		if err := custody.CheckInclusion(at, i, leaves[i], p); err != nil {
			t.Error(err)
		}
		if tiles.reads > 5 {
			t.Errorf("proof of leaf %d took %d reads", i, tiles.reads)
		}
	}
}
