package attachments

import (
	"encoding/base64"
	"testing"
)

// Known sums of the definition; the simulated tenant computes it in another way, by the
// definition's words, and must come to the same for whole files.
func TestTheChecksumIsMicrosofts(t *testing.T) {
	for in, want := range map[string]string{
		"":     "AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
		"Sg==": "SgAAAAAAAAAAAAAAAQAAAAAAAAA=",
		"tbQ=": "taAFAAAAAAAAAAAAAgAAAAAAAAA=",
	} {
		b, err := base64.StdEncoding.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		var q quickXor
		_, _ = q.Write(b)
		if got := q.sum(); got != want {
			t.Errorf("%q gives %s, want %s", in, got, want)
		}
	}
}

func TestTheChecksumIsTheSameInPiecesAndAfterARest(t *testing.T) {
	b := make([]byte, 5000)
	for i := range b {
		b[i] = byte(i * 7)
	}
	var whole quickXor
	_, _ = whole.Write(b)
	for _, n := range []int{1, 19, 20, 159, 160, 161, 4999} {
		var first, second quickXor
		_, _ = first.Write(b[:n])
		state, err := first.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if err := second.UnmarshalBinary(state); err != nil {
			t.Fatal(err)
		}
		_, _ = second.Write(b[n:])
		if second.sum() != whole.sum() {
			t.Errorf("cut at %d: %s, want %s", n, second.sum(), whole.sum())
		}
	}
	if new(quickXor).UnmarshalBinary(make([]byte, 27)) == nil {
		t.Error("a state of another length was taken")
	}
}
