package evidence_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"steno/shared/custody"
	"steno/shared/evidence"
)

func packed(t *testing.T, f *fixture) (evidence.Pack, []evidence.Sealed, [][]byte) {
	t.Helper()
	var sealed []evidence.Sealed
	var plain [][]byte
	for i := range 5 {
		p := bytes.Repeat(fmt.Appendf(nil, "member %d ", i), 1+i*20_000) // from one chunk to several
		s, err := f.store.Seal(t.Context(), evidence.Ref{Tenant: tenant, Unit: unit, Object: evidence.NewObjectID()}, p)
		if err != nil {
			t.Fatal(err)
		}
		sealed, plain = append(sealed, s), append(plain, p)
	}
	p, err := evidence.NewPack(evidence.Ref{Tenant: tenant, Unit: unit, Object: evidence.NewObjectID()}, sealed)
	if err != nil {
		t.Fatal(err)
	}
	return p, sealed, plain
}

func TestMembersOfAPackOpenAsTheyWereSealed(t *testing.T) {
	f := newFixture(t)
	p, sealed, plain := packed(t, f)
	if err := f.store.PutPack(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	again, err := evidence.NewPack(p.Ref, sealed)
	if err != nil || !bytes.Equal(again.Bytes, p.Bytes) {
		t.Errorf("the same members make another pack: %v", err)
	}
	o, err := f.store.OpenPack(t.Context(), p.Ref, f.receipt(unit))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range sealed {
		m, err := o.Open(t.Context(), s.Ref.Object)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // reading twice must not find what the first reading left
			got, err := m.ReadAll(1 << 20)
			if err != nil || !bytes.Equal(got, plain[i]) {
				t.Errorf("member %d: %d bytes, %v", i, len(got), err)
			}
		}
		if err := o.Verify(t.Context(), s.Ref.Object); err != nil {
			t.Error(err)
		}
	}
	if _, err := o.Open(t.Context(), evidence.NewObjectID()); !errors.Is(err, evidence.ErrNotFound) {
		t.Errorf("a member that is not there: %v", err)
	}
}

func TestEveryChangeToAPackIsNoticed(t *testing.T) {
	f := newFixture(t)
	p, sealed, plain := packed(t, f)
	if err := f.store.PutPack(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	name := string(tenant) + "/" + unit + "/" + p.Ref.Object
	for at := 0; at < len(p.Bytes); at += 1 + at/40 {
		b := bytes.Clone(p.Bytes)
		b[at] ^= 1
		f.blobs.Tamper(name, b)
		o, err := f.store.OpenPack(t.Context(), p.Ref, f.receipt(unit))
		noticed := err != nil
		for i := 0; !noticed && i < len(sealed); i++ {
			m, err := o.Open(t.Context(), sealed[i].Ref.Object)
			if err != nil {
				noticed = true
				break
			}
			got, err := m.ReadAll(1 << 20)
			noticed = err != nil || !bytes.Equal(got, plain[i]) || o.Verify(t.Context(), sealed[i].Ref.Object) != nil
		}
		if !noticed {
			t.Errorf("byte %d of %d was changed and nothing noticed", at, len(p.Bytes))
		}
	}
	for n := range len(p.Bytes) - 1 {
		if n > 400 && n < len(p.Bytes)-400 {
			continue
		}
		f.blobs.Tamper(name, p.Bytes[:n])
		if _, err := f.store.OpenPack(t.Context(), p.Ref, f.receipt(unit)); err == nil {
			t.Errorf("a pack cut to %d bytes opened", n)
		}
	}
}

func TestAPackTakesMembersOfItsOwnUnitOnly(t *testing.T) {
	f := newFixture(t)
	s, err := f.store.Seal(t.Context(), evidence.Ref{Tenant: tenant, Unit: "another", Object: evidence.NewObjectID()}, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.NewPack(evidence.Ref{Tenant: tenant, Unit: unit, Object: evidence.NewObjectID()}, []evidence.Sealed{s}); err == nil {
		t.Error("a member of another unit was packed")
	}
	if _, err := evidence.NewPack(evidence.Ref{Tenant: tenant, Unit: unit, Object: evidence.NewObjectID()}, nil); err == nil {
		t.Error("a pack of nothing was made")
	}
}

func TestATailIsReadSealedWithoutAReceiptAndOpenedOnlyWithOne(t *testing.T) {
	f := newFixture(t)
	ref := evidence.Ref{Tenant: tenant, Unit: unit, Object: evidence.NewObjectID()}
	s, err := f.store.Seal(t.Context(), ref, []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store.PutTail(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	got, err := f.store.Tail(t.Context(), ref)
	if err != nil || !bytes.Equal(got.Bytes, s.Bytes) || got.Ciphertext != s.Ciphertext {
		t.Errorf("%v", err)
	}
	receipt := f.receipt(unit)
	if _, err := f.store.OpenTail(t.Context(), ref, custody.Receipt{}); !errors.Is(err, custody.ErrReceipt) {
		t.Errorf("opened without a receipt: %v", err)
	}
	o, err := f.store.OpenTail(t.Context(), ref, receipt)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := o.ReadAll(10); err != nil || string(b) != "plain" {
		t.Errorf("%q %v", b, err)
	}
	list, err := f.store.Tails(t.Context(), tenant, unit)
	if err != nil || len(list) != 1 || list[0].Name != ref.Object {
		t.Errorf("%v %v", list, err)
	}
	if err := f.store.DropTail(t.Context(), ref); err != nil {
		t.Error(err)
	}
	if _, err := f.store.Tail(t.Context(), ref); !errors.Is(err, evidence.ErrNotFound) {
		t.Errorf("after dropping: %v", err)
	}
}

func TestADigestIsThatOfTheStoredBytesAndNeedsNoKey(t *testing.T) {
	f := newFixture(t)
	for _, size := range []int{0, 1, 70_000, 9 << 20} {
		s := f.put(bytes.Repeat([]byte{7}, size))
		n, digest, err := f.store.Digest(t.Context(), s.Ref)
		if err != nil || n != int64(len(s.Bytes)) || digest != s.Ciphertext {
			t.Errorf("%d bytes: size %d, digest %x, want %d and %x: %v", size, n, digest, len(s.Bytes), s.Ciphertext, err)
		}
	}
}
