package evidence_test

import (
	"crypto/sha256"
	"testing"

	"steno/shared/evidence"
)

// TestTheCommitmentOpensWithTheObjectsBlindAlone: it binds the plain bytes, the blind is
// the same for whoever may open the object, and two sealings of the same bytes share none.
func TestTheCommitmentOpensWithTheObjectsBlindAlone(t *testing.T) {
	f := newFixture(t)
	seen := map[[sha256.Size]byte]bool{}
	for range 2 {
		sealed := f.put([]byte("buy"))
		o, err := f.open(sealed.Ref)
		if err != nil {
			t.Fatal(err)
		}
		if got := evidence.Commitment(o.Blind(), sha256.Sum256([]byte("buy"))); got != sealed.Commit {
			t.Errorf("opened: %x, sealed: %x", got, sealed.Commit)
		}
		if evidence.Commitment(o.Blind(), sha256.Sum256([]byte("sell"))) == sealed.Commit {
			t.Error("other bytes have the same commitment")
		}
		if seen[sealed.Commit] || seen[o.Blind()] {
			t.Error("two objects share a commitment or a blind: a guess at one tells of the other")
		}
		seen[sealed.Commit], seen[o.Blind()] = true, true
	}
}
