package evidence_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"steno/shared/custody"
	"steno/shared/evidence"
)

func TestALongObjectIsReadAsItWasWrittenFromAnyPlace(t *testing.T) {
	for _, size := range []int{0, 1, evidence.PartSize - 1, evidence.PartSize, evidence.PartSize + 1, 2*evidence.PartSize + 77} {
		f := newFixture(t)
		want := pattern(size)
		w := f.store.NewParts(t.Context(), tenant, "export-1")
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 1_000_003)
			if _, err := w.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if w.Size() != int64(size) || w.Parts() != max(1, (size+evidence.PartSize-1)/evidence.PartSize) {
			t.Errorf("%d bytes: %d in %d parts", size, w.Size(), w.Parts())
		}
		r, err := f.newStore().OpenParts(t.Context(), tenant, "export-1", w.Size(), f.receipt("export-1"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: read %d, %v", size, len(got), err)
		}
		for _, off := range []int{0, size / 2, size - 1, evidence.PartSize - 3} {
			if off < 0 || off+5 > size {
				continue
			}
			b := make([]byte, 5)
			if _, err := r.ReadAt(b, int64(off)); err != nil || !bytes.Equal(b, want[off:off+5]) {
				t.Errorf("%d bytes at %d: %v", size, off, err)
			}
		}
		if _, err := r.ReadAt(make([]byte, 2), int64(size)-1); size > 0 && !errors.Is(err, io.EOF) {
			t.Errorf("beyond the end: %v", err)
		}
	}
}

func TestALongObjectOpensAgainstAReceiptAndInItsOrderOnly(t *testing.T) {
	f := newFixture(t)
	w := f.store.NewParts(t.Context(), tenant, "export-1")
	if _, err := w.Write(pattern(evidence.PartSize + 10)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("more")); err == nil {
		t.Error("a finished object took more")
	}
	if _, err := f.store.OpenParts(t.Context(), tenant, "export-1", w.Size(), f.receipt("export-2")); !errors.Is(err, custody.ErrReceipt) {
		t.Errorf("with a receipt for another: %v", err)
	}
	r, err := f.store.OpenParts(t.Context(), tenant, "export-1", w.Size(), f.receipt("export-1"))
	if err != nil {
		t.Fatal(err)
	}
	f.now.Add(custody.Lifetime.Milliseconds() + time.Second.Milliseconds())
	if _, err := r.ReadAt(make([]byte, 1), 0); !errors.Is(err, custody.ErrReceipt) {
		t.Errorf("with a receipt that ran out: %v", err)
	}
	for _, wrong := range []int64{w.Size() - 1, w.Size() + 1, evidence.PartSize + evidence.PartSize/2} {
		r, err := f.store.OpenParts(t.Context(), tenant, "export-1", wrong, f.receipt("export-1"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(io.NewSectionReader(r, 0, wrong)); !errors.Is(err, evidence.ErrCorrupt) {
			t.Errorf("a size of %d for %d: %v", wrong, w.Size(), err)
		}
	}
}
