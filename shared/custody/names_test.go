package custody_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"steno/shared/custody"
	"steno/shared/storetest"
)

// named grows a log of records that became durable up to 20 minutes out of order, in
// batches as a sequencer writes them, and returns their ids in the order of the leaves.
func named(t *testing.T, tiles custody.Tiles, rng *rand.Rand, n int) (*custody.Tree, []string) {
	t.Helper()
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	ids := make([]string, n)
	for i := range ids {
		at := start.Add(time.Duration(i)*time.Minute/2 + time.Duration(rng.Int64N(int64(20*time.Minute))))
		ids[i] = fmt.Sprintf("%s-%016x", custody.IDsFrom(at), rng.Uint64())
	}
	at := custody.Checkpoint{Origin: "test"}
	leaves := leavesOf(n)
	for at.Size < int64(n) {
		take := min(int64(n)-at.Size, 1+rng.Int64N(700))
		var next []custody.Promise
		for i := at.Size; i < at.Size+take; i++ {
			next = append(next, custody.Promise{ID: ids[i], Digest: hex.EncodeToString(leaves[i][:])})
		}
		tree := custody.NewTree(tiles, at)
		if err := tree.AppendNames(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		var err error
		if at, err = tree.Append(t.Context(), leaves[at.Size:at.Size+take]); err != nil {
			t.Fatal(err)
		}
	}
	return custody.NewTree(tiles, at), ids
}

func TestEveryRecordsLeafIsFoundByItsID(t *testing.T) {
	const seed = 81
	rng := rand.New(rand.NewPCG(seed, 0))
	tree, ids := named(t, new(storetest.Tiles), rng, 3001)
	f := tree.Finder()
	for i, id := range ids {
		if got, err := f.Find(t.Context(), id); err != nil || got != int64(i) {
			t.Fatalf("seed %d: record %s at %d, %v; want %d", seed, id, got, err, i)
		}
	}
	at, err := custody.TimeOf(ids[1500])
	if err != nil {
		t.Fatal(err)
	}
	for _, absent := range []string{
		custody.IDsFrom(at) + "-0000000000000000",
		custody.IDsFrom(at.AddDate(-5, 0, 0)) + "-0000000000000000",
		custody.IDsFrom(at.AddDate(5, 0, 0)) + "-0000000000000000",
	} {
		if _, err := f.Find(t.Context(), absent); !errors.Is(err, custody.ErrNoLeaf) {
			t.Errorf("%s: %v", absent, err)
		}
	}
	if _, err := custody.NewTree(new(storetest.Tiles), custody.Checkpoint{}).Finder().Find(t.Context(), ids[0]); !errors.Is(err, custody.ErrNoLeaf) {
		t.Errorf("in an empty log: %v", err)
	}
}

func TestALeafAmongThousandsIsFoundWithFewReads(t *testing.T) {
	tiles := new(counting)
	tree, ids := named(t, tiles, rand.New(rand.NewPCG(82, 0)), 50_000)
	for _, i := range []int{0, 255, 256, 25_000, 49_999} {
		tiles.reads = 0
		if _, err := tree.Finder().Find(t.Context(), ids[i]); err != nil {
			t.Fatal(err)
		}
		if tiles.reads > 11 { // log2 of 196 tiles, and those around it
			t.Errorf("leaf %d took %d reads", i, tiles.reads)
		}
	}
}

func TestNamesThatWereTamperedWithAreNamed(t *testing.T) {
	tiles := new(storetest.Tiles)
	tree, ids := named(t, tiles, rand.New(rand.NewPCG(83, 0)), 600)
	name := "names/000"
	body, err := tiles.Read(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string][]byte{"cut": body[:len(body)-1], "longer": append(slices.Clone(body), "\n"...), "no ids": make([]byte, len(body))} {
		tiles.Tamper(name, bad)
		if _, err := tree.Finder().Find(t.Context(), ids[3]); !errors.Is(err, custody.ErrProof) {
			t.Errorf("%s: %v", what, err)
		}
	}
	tiles.Tamper(name, nil)
	if _, err := tree.Finder().Find(t.Context(), ids[3]); !errors.Is(err, custody.ErrNoTile) {
		t.Errorf("removed: %v", err)
	}
}
