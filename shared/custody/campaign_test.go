package custody_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/custody"
	"steno/shared/storetest"
)

// auditor does what FORMAT.md section 5 says, and asks the names of the leaves too.
type auditor struct {
	key     *ecdsa.PublicKey
	origin  string
	kept    custody.Checkpoint
	records []custody.Record
	digests []custody.Digest
}

func (a auditor) audit(t *testing.T, tiles custody.Tiles) error {
	now, err := custody.Latest(t.Context(), tiles, a.origin, a.key)
	if err != nil {
		return err
	}
	tree := custody.NewTree(tiles, now)
	proof, err := tree.ProveConsistency(t.Context(), a.kept.Size)
	if err != nil {
		return err
	}
	if err := custody.CheckConsistency(a.kept, now, proof); err != nil {
		return err
	}
	leaves, err := tree.Leaves(t.Context(), 0, now.Size)
	if err != nil {
		return err
	}
	if !slices.Equal(leaves, a.digests) {
		return fmt.Errorf("the leaves are not the records: %w", custody.ErrProof)
	}
	find := tree.Finder()
	for i, r := range a.records {
		at, err := find.Find(t.Context(), r.ID)
		if err != nil {
			return err
		}
		if at != int64(i) {
			return fmt.Errorf("record %d stands at %d: %w", i, at, custody.ErrProof)
		}
	}
	for _, i := range []int64{0, 255, 256, now.Size - 1} {
		p, err := tree.ProveInclusion(t.Context(), i)
		if err != nil {
			return err
		}
		if err := custody.CheckInclusion(now, i, a.digests[i], p); err != nil {
			return err
		}
	}
	return nil
}

// signedLog makes a log of n records whose checkpoint stands signed in its head.
func signedLog(t *testing.T, key *ecdsa.PrivateKey, tiles custody.Tiles, n int) (auditor, custody.Checkpoint) {
	t.Helper()
	a := auditor{key: &key.PublicKey, origin: custody.Origin("t")}
	var promises []custody.Promise
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		at := start.Add(time.Duration(i) * time.Second)
		r := custody.Record{ID: custody.IDsFrom(at) + fmt.Sprintf("-%016x", i), Event: custody.Event{At: at, Action: custody.Read, System: "test", Item: "item"}}
		d, err := r.Digest()
		if err != nil {
			t.Fatal(err)
		}
		a.records, a.digests = append(a.records, r), append(a.digests, d)
		promises = append(promises, custody.Promise{ID: r.ID, Digest: d.String()})
	}
	tree := custody.NewTree(tiles, custody.Checkpoint{Origin: a.origin})
	if err := tree.AppendNames(t.Context(), promises); err != nil {
		t.Fatal(err)
	}
	now, err := tree.Append(t.Context(), a.digests)
	if err != nil {
		t.Fatal(err)
	}
	saveSigned(t, key, tiles, now)
	return a, now
}

// saveSigned puts a checkpoint into the head.
func saveSigned(t *testing.T, key *ecdsa.PrivateKey, tiles custody.Tiles, c custody.Checkpoint) {
	t.Helper()
	sum := sha256.Sum256(c.Text())
	signature, err := ecdsa.SignASN1(crand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	h, revision, err := custody.ReadHead(t.Context(), tiles)
	if err != nil {
		t.Fatal(err)
	}
	h.Size, h.Root = c.Size, c.Root.String()
	h.Signed = &custody.Signed{Text: string(c.Text()), Signature: signature}
	if err := custody.SaveHead(t.Context(), tiles, h, revision); err != nil {
		t.Fatal(err)
	}
}

// TestEverySingleChangeToAStoredLogIsDetected changes each kind of file of the log, and what is signed in its
// head, once at a time.
func TestEverySingleChangeToAStoredLogIsDetected(t *testing.T) {
	const seed, each = 6963, 400
	rng := rand.New(rand.NewPCG(seed, 0))
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tiles := new(storetest.Tiles)
	a, now := signedLog(t, key, tiles, 300)
	a.kept = custody.Checkpoint{Origin: a.origin, Size: 270, Root: naive(a.digests[:270])}
	if err := a.audit(t, tiles); err != nil {
		t.Fatalf("intact: %v", err)
	}
	names, counts := tiles.Names(), map[string]int{}
	for _, name := range names {
		body, err := tiles.Read(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := strings.Cut(strings.TrimPrefix(name, "tile/"), "/")
		for range each {
			bad, what := slices.Clone(body), "flipped"
			switch rng.IntN(5) {
			case 0:
				bad, what = bad[:rng.IntN(len(bad))], "truncated"
			case 1:
				bad, what = append(bad, byte(rng.IntN(256))), "extended"
			case 2:
				bad, what = nil, "dropped"
			case 3:
				other := names[rng.IntN(len(names))]
				if other == name {
					continue
				}
				if bad, err = tiles.Read(t.Context(), other); err != nil {
					t.Fatal(err)
				}
				what = "replaced by " + other
			default:
				bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
			}
			tiles.Tamper(name, bad)
			if err := a.audit(t, tiles); err == nil {
				t.Errorf("seed %d: %s %s, unnoticed", seed, name, what)
			}
			counts[kind]++
		}
		tiles.Tamper(name, body)
	}
	head, _, err := tiles.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range each {
		var h custody.Head
		if err := json.Unmarshal(head, &h); err != nil {
			t.Fatal(err)
		}
		if text := []byte(h.Signed.Text); rng.IntN(2) == 0 {
			text[rng.IntN(len(text))] ^= 1 << rng.IntN(7)
			h.Signed.Text = string(text)
		} else {
			h.Signed.Signature[rng.IntN(len(h.Signed.Signature))] ^= 1 << rng.IntN(8)
		}
		_, revision, err := custody.ReadHead(t.Context(), tiles)
		if err != nil {
			t.Fatal(err)
		}
		if err := custody.SaveHead(t.Context(), tiles, h, revision); err != nil {
			t.Fatal(err)
		}
		if err := a.audit(t, tiles); err == nil {
			t.Errorf("seed %d: the signed checkpoint was changed to %q, unnoticed", seed, h.Signed.Text)
		}
		counts["checkpoint"]++
	}
	saveSigned(t, foreign, tiles, now)
	if err := a.audit(t, tiles); err == nil {
		t.Error("signed by a foreign key, unnoticed")
	}
	for _, size := range []int{1, 255, 256, 269} {
		saveSigned(t, key, tiles, custody.Checkpoint{Origin: a.origin, Size: int64(size), Root: naive(a.digests[:size])})
		if err := a.audit(t, tiles); err == nil {
			t.Errorf("rolled back to %d leaves, unnoticed", size)
		}
		counts["rollback"]++
	}
	saveSigned(t, key, tiles, now)
	if err := a.audit(t, tiles); err != nil {
		t.Errorf("intact again: %v", err)
	}
	t.Logf("seed %d: detected %v", seed, counts)
}
