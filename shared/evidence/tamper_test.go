package evidence_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"steno/shared/evidence"
)

// refused demands an error that speaks of damage or of another format, and no bytes.
func refused(t *testing.T, what string, plain []byte, err error) {
	t.Helper()
	if !errors.Is(err, evidence.ErrCorrupt) && !errors.Is(err, evidence.ErrFormat) && !errors.Is(err, evidence.ErrNotFound) {
		t.Errorf("%s: error %v, want a refusal", what, err)
	}
	if len(plain) != 0 {
		t.Errorf("%s: %d plain bytes shown", what, len(plain))
	}
}

func TestFlippingAnyByteIsRefused(t *testing.T) {
	f := newFixture(t)
	for _, size := range []int{0, 1, 40} {
		o := f.put(pattern(size))
		for i := range o.Bytes {
			bad := slices.Clone(o.Bytes)
			bad[i] ^= 1 << (i % 8)
			f.blobs.Tamper(blobName(o.Ref), bad)
			plain, err := f.read(o.Ref)
			refused(t, fmt.Sprintf("%d plain bytes, byte %d flipped", size, i), plain, err)
		}
	}
}

func TestTruncatedObjectIsRefused(t *testing.T) {
	f := newFixture(t)
	o := f.put(pattern(2*chunk + 100))
	const whole = chunk + tag
	var cuts []int
	for _, edge := range []int{0, 1, 8, header, header + whole, header + 2*whole, len(o.Bytes)} {
		cuts = append(cuts, edge-1, edge, edge+1)
	}
	for _, n := range cuts {
		if n < 0 || n >= len(o.Bytes) {
			continue
		}
		f.blobs.Tamper(blobName(o.Ref), o.Bytes[:n])
		plain, err := f.read(o.Ref)
		refused(t, fmt.Sprintf("cut to %d bytes", n), plain, err)
	}
	last := o.Bytes[header+2*whole:]
	for what, bad := range map[string][]byte{
		"a byte appended":      cat(o.Bytes, []byte{0}),
		"last chunk repeated":  cat(o.Bytes, last),
		"whole chunk appended": cat(o.Bytes, o.Bytes[header:header+whole]),
		"last chunk dropped":   o.Bytes[:header+2*whole],
	} {
		f.blobs.Tamper(blobName(o.Ref), bad)
		plain, err := f.read(o.Ref)
		refused(t, what, plain, err)
	}
}

// Size is judged at open, so this is an object that shrinks afterwards.
func TestObjectThatEndsEarlyAfterOpenIsAnErrorAndNotItsEnd(t *testing.T) {
	f := newFixture(t)
	o := f.put(pattern(chunk + 100))
	obj, err := f.open(o.Ref)
	if err != nil {
		t.Fatal(err)
	}
	f.blobs.Tamper(blobName(o.Ref), o.Bytes[:header+chunk])
	if b, err := obj.ReadAll(1 << 20); err == nil || len(b) != 0 {
		t.Errorf("read %d bytes, error %v; want none and an error", len(b), err)
	}
	if n, err := obj.ReadAt(make([]byte, 100), chunk); err == nil || n != 0 {
		t.Errorf("read %d bytes, error %v; want none and an error", n, err)
	}
}

func TestSwappedChunksAreRefused(t *testing.T) {
	f := newFixture(t)
	plain := pattern(3 * chunk)
	copy(plain[chunk:2*chunk], plain[:chunk]) // two chunks of the same plain bytes
	o, other := f.put(plain), f.put(plain)
	const whole = chunk + tag
	part := func(o evidence.Sealed, i int) []byte { return o.Bytes[header+i*whole : header+(i+1)*whole] }
	head := o.Bytes[:header]
	for what, bad := range map[string][]byte{
		"first two swapped":        cat(head, part(o, 1), part(o, 0), part(o, 2)),
		"first and last swapped":   cat(head, part(o, 2), part(o, 1), part(o, 0)),
		"first repeated":           cat(head, part(o, 0), part(o, 0), part(o, 2)),
		"last in the middle":       cat(head, part(o, 0), part(o, 2), part(o, 2)),
		"middle at the end":        cat(head, part(o, 0), part(o, 1), part(o, 1)),
		"chunk of another object":  cat(head, part(o, 0), part(other, 1), part(o, 2)),
		"header of another object": cat(other.Bytes[:header], o.Bytes[header:]),
		"body of another object":   cat(head, other.Bytes[header:]),
	} {
		f.blobs.Tamper(blobName(o.Ref), bad)
		got, err := f.read(o.Ref)
		refused(t, what, got, err)
	}
}

func TestDamageInOneChunkLeavesTheOthersReadable(t *testing.T) {
	f := newFixture(t)
	plain := pattern(3*chunk + 5)
	o := f.put(plain)
	bad := slices.Clone(o.Bytes)
	bad[header+chunk+tag+1000] ^= 1
	f.blobs.Tamper(blobName(o.Ref), bad)
	obj, err := f.open(o.Ref)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, chunk)
	if n, err := obj.ReadAt(got, 0); err != nil || !bytes.Equal(got[:n], plain[:chunk]) {
		t.Errorf("chunk 0: %d bytes, %v", n, err)
	}
	got = make([]byte, chunk+5)
	if n, err := obj.ReadAt(got, 2*chunk); err != nil || !bytes.Equal(got[:n], plain[2*chunk:]) {
		t.Errorf("chunks 2 and 3: %d bytes, %v", n, err)
	}
	got = make([]byte, 2*chunk)
	n, err := obj.ReadAt(got, 0)
	if !errors.Is(err, evidence.ErrCorrupt) || n > chunk || !bytes.Equal(got[:n], plain[:n]) {
		t.Errorf("range over the damage: %d bytes, %v", n, err)
	}
	if !bytes.Equal(got[chunk:], make([]byte, chunk)) {
		t.Error("bytes of the damaged chunk reached the caller's buffer")
	}
}

func TestRenamedObjectIsRefused(t *testing.T) {
	f := newFixture(t)
	a := f.put(pattern(100))
	const otherUnit, otherTenant = "other-conversation", "99999999-aaaa-4bbb-8ccc-222222222222"
	for what, ref := range map[string]evidence.Ref{
		"to another object id":  newRef(),
		"to another unit":       {Tenant: tenant, Unit: otherUnit, Object: a.Ref.Object},
		"to another tenant":     {Tenant: otherTenant, Unit: unit, Object: a.Ref.Object},
		"over another's object": f.put(pattern(200)).Ref,
	} {
		if err := f.blobs.Create(t.Context(), blobName(ref), a.Bytes); errors.Is(err, evidence.ErrExists) {
			f.blobs.Tamper(blobName(ref), a.Bytes)
		}
		// The thief copies the key row as well.
		row := f.keys.All()[0]
		row.Tenant, row.Unit = ref.Tenant, ref.Unit
		f.keys.Tamper(ref.Tenant, ref.Unit, row.ID, row)
		plain, err := f.read(ref)
		refused(t, "object moved "+what, plain, err)
	}
}

func TestExchangedDataKeysAreRefused(t *testing.T) {
	f := newFixture(t)
	plain := pattern(100)
	a := f.put(plain)
	refs := map[string]evidence.Ref{
		"of the same conversation": newRef(),
		"of another conversation":  {Tenant: tenant, Unit: "other", Object: evidence.NewObjectID()},
		"of another tenant":        {Tenant: "99999999-aaaa-4bbb-8ccc-222222222222", Unit: unit, Object: evidence.NewObjectID()},
	}
	for what, ref := range refs {
		b := f.sealAs(ref, plain)
		for part, span := range map[string][2]int{"data key": {88, 148}, "key id": {8, 24}, "key id to data key": {8, 148}, "commitment": {56, 88}} {
			bad := slices.Clone(a.Bytes)
			copy(bad[span[0]:span[1]], b.Bytes[span[0]:span[1]])
			if bytes.Equal(bad, a.Bytes) {
				continue // objects of one conversation share key and commitment
			}
			f.blobs.Tamper(blobName(a.Ref), bad)
			got, err := f.read(a.Ref)
			refused(t, part+" "+what, got, err)
		}
	}
}

func TestUnknownAlgorithmIsRefused(t *testing.T) {
	f := newFixture(t)
	o := f.put(pattern(10))
	for what, change := range map[string]struct {
		at     int
		values []byte
	}{
		"version":    {4, []byte{0, 2, 255}},
		"algorithm":  {5, []byte{0, 2, 255}},
		"chunk size": {6, []byte{0, 15, 17, 63, 255}},
		"magic":      {0, []byte{0, 's'}},
		"reserved":   {7, []byte{1}},
	} {
		for _, v := range change.values {
			bad := slices.Clone(o.Bytes)
			bad[change.at] = v
			f.blobs.Tamper(blobName(o.Ref), bad)
			before := f.vault.Unwraps()
			plain, err := f.read(o.Ref)
			if !errors.Is(err, evidence.ErrFormat) || len(plain) != 0 {
				t.Errorf("%s %d: %v, want ErrFormat", what, v, err)
			}
			if f.vault.Unwraps() != before {
				t.Errorf("%s %d: a key was unwrapped for it", what, v)
			}
		}
	}
}
