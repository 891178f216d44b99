package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/teams"
)

// NewTenant draws a tenant id, so that tests can share one storage account.
func NewTenant() teams.TenantID { return teams.TenantID(guid()) }

func newPerson() teams.PersonID { return teams.PersonID(guid()) }

func guid() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails since Go 1.24
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// TestBlobs checks the contract of evidence.Blobs. open returns a store to which
// nobody else writes names that start with a GUID drawn here.
func TestBlobs(t *testing.T, open func(t *testing.T) evidence.Blobs) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 20)
	made := func(t *testing.T) (evidence.Blobs, string) {
		t.Helper()
		b, name := open(t), guid()+"/unit/object"
		ok(t, b.Create(t.Context(), name, body))
		return b, name
	}
	t.Run("what was created is read back", func(t *testing.T) {
		b, name := made(t)
		n, err := b.Size(t.Context(), name)
		ok(t, err)
		got, err := b.ReadAt(t.Context(), name, 0, n)
		ok(t, err)
		if n != int64(len(body)) || !bytes.Equal(got, body) {
			t.Errorf("%d bytes of size %d, want %d", len(got), n, len(body))
		}
	})
	t.Run("a name is filled once", func(t *testing.T) {
		b, name := made(t)
		wantErr(t, "same bytes", b.Create(t.Context(), name, body), evidence.ErrExists)
		wantErr(t, "other bytes", b.Create(t.Context(), name, []byte("other")), evidence.ErrExists)
		wantErr(t, "no bytes", b.Create(t.Context(), name, nil), evidence.ErrExists)
		got, err := b.ReadAt(t.Context(), name, 0, int64(len(body)))
		ok(t, err)
		if !bytes.Equal(got, body) {
			t.Error("the bytes changed")
		}
	})
	t.Run("of many who create one name one wins", func(t *testing.T) {
		b, name := open(t), guid()+"/race"
		var wins atomic.Int64
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				switch err := b.Create(t.Context(), name, bytes.Repeat([]byte{byte(i)}, 100)); {
				case err == nil:
					wins.Add(1)
				case !errors.Is(err, evidence.ErrExists):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if wins.Load() != 1 {
			t.Errorf("%d won", wins.Load())
		}
	})
	t.Run("ranges are exact", func(t *testing.T) {
		b, name := made(t)
		size := int64(len(body))
		for _, r := range [][2]int64{{0, 1}, {0, size}, {size - 1, 1}, {17, 100}, {1, size - 1}} {
			got, err := b.ReadAt(t.Context(), name, r[0], r[1])
			if err != nil || !bytes.Equal(got, body[r[0]:r[0]+r[1]]) {
				t.Errorf("range %v: %d bytes, %v", r, len(got), err)
			}
		}
		for _, r := range [][2]int64{{0, size + 1}, {size - 1, 2}, {size, 1}, {size + 100, 1}, {-1, 2}, {0, 0}, {0, -1}} {
			if got, err := b.ReadAt(t.Context(), name, r[0], r[1]); err == nil || errors.Is(err, evidence.ErrNotFound) {
				t.Errorf("range %v: %d bytes, error %v; want an error of its own", r, len(got), err)
			}
		}
	})
	t.Run("bytes read belong to the caller", func(t *testing.T) {
		b, name := made(t)
		got, err := b.ReadAt(t.Context(), name, 0, 16)
		ok(t, err)
		clear(got)
		if again, err := b.ReadAt(t.Context(), name, 0, 16); err != nil || !bytes.Equal(again, body[:16]) {
			t.Errorf("after the caller cleared them: %q, %v", again, err)
		}
	})
	t.Run("an absent object is not found", func(t *testing.T) {
		b := open(t)
		_, err := b.Size(t.Context(), guid()+"/absent")
		wantErr(t, "size", err, evidence.ErrNotFound)
		_, err = b.ReadAt(t.Context(), guid()+"/absent", 0, 1)
		wantErr(t, "read", err, evidence.ErrNotFound)
	})
	t.Run("an empty object has a size", func(t *testing.T) {
		b, name := open(t), guid()+"/empty"
		ok(t, b.Create(t.Context(), name, nil))
		if n, err := b.Size(t.Context(), name); n != 0 || err != nil {
			t.Errorf("size %d, %v", n, err)
		}
	})
	t.Run("a cancelled request says so", func(t *testing.T) {
		b, name := made(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := b.Size(ctx, name)
		wantErr(t, "size", err, context.Canceled)
	})
}

// TestTails checks the contract of evidence.Tails, beyond that of Blobs.
func TestTails(t *testing.T, open func(t *testing.T) evidence.Tails) {
	t.Run("as blobs", func(t *testing.T) {
		TestBlobs(t, func(t *testing.T) evidence.Blobs { return open(t) })
	})
	t.Run("a listing names what is there, below the prefix alone", func(t *testing.T) {
		s, unit := open(t), guid()
		var want []string
		for i := range 7 {
			name := fmt.Sprintf("%s/unit/%d", unit, i)
			ok(t, s.Create(t.Context(), name, bytes.Repeat([]byte("x"), i+1)))
			want = append(want, name)
		}
		ok(t, s.Create(t.Context(), unit+"/unitother/0", []byte("x")))
		list, err := s.List(t.Context(), unit+"/unit/")
		ok(t, err)
		var got []string
		for i, x := range list {
			got = append(got, x.Name)
			if x.Size != int64(i+1) || time.Since(x.StoredAt).Abs() > time.Hour {
				t.Errorf("%+v", x)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
	t.Run("what was deleted is gone, and deleting again is no error", func(t *testing.T) {
		s, name := open(t), guid()+"/unit/object"
		ok(t, s.Create(t.Context(), name, []byte("x")))
		ok(t, s.Delete(t.Context(), name))
		ok(t, s.Delete(t.Context(), name))
		_, err := s.Size(t.Context(), name)
		wantErr(t, "size", err, evidence.ErrNotFound)
	})
}

// TestKeys checks the contract of evidence.Keys.
func TestKeys(t *testing.T, open func(t *testing.T) evidence.Keys) {
	key := evidence.WrappedKey{
		Tenant: NewTenant(), Unit: "unit-1", ID: evidence.NewObjectID(), Vault: "https://vault.test/keys/k/1", Alg: "RSA-OAEP-256",
		Wrapped: []byte{0, 1, 2, 255}, MadeAt: time.Date(2026, 3, 14, 9, 0, 0, 123456789, time.UTC),
	}
	equal := func(a, b evidence.WrappedKey) bool {
		same := bytes.Equal(a.Wrapped, b.Wrapped) && a.MadeAt.Equal(b.MadeAt)
		return same && a.Tenant == b.Tenant && a.Unit == b.Unit && a.ID == b.ID && a.Vault == b.Vault && a.Alg == b.Alg
	}
	t.Run("what was inserted is read back", func(t *testing.T) {
		k := open(t)
		ok(t, k.Insert(t.Context(), key))
		got, err := k.Get(t.Context(), key.Tenant, key.Unit, key.ID)
		ok(t, err)
		if !equal(got, key) {
			t.Errorf("got %+v, want %+v", got, key)
		}
	})
	t.Run("an id is inserted once", func(t *testing.T) {
		k, first := open(t), key
		first.ID = evidence.NewObjectID()
		ok(t, k.Insert(t.Context(), first))
		other := first
		other.Wrapped = []byte("other")
		wantErr(t, "same key", k.Insert(t.Context(), first), evidence.ErrExists)
		wantErr(t, "other key", k.Insert(t.Context(), other), evidence.ErrExists)
		if got, err := k.Get(t.Context(), first.Tenant, first.Unit, first.ID); err != nil || !equal(got, first) {
			t.Errorf("after the second insert: %+v, %v", got, err)
		}
	})
	t.Run("tenants and units do not mix", func(t *testing.T) {
		k, mine := open(t), key
		mine.ID = evidence.NewObjectID()
		ok(t, k.Insert(t.Context(), mine))
		_, err := k.Get(t.Context(), NewTenant(), mine.Unit, mine.ID)
		wantErr(t, "other tenant", err, evidence.ErrNotFound)
		_, err = k.Get(t.Context(), mine.Tenant, "unit-2", mine.ID)
		wantErr(t, "other unit", err, evidence.ErrNotFound)
		_, err = k.Get(t.Context(), mine.Tenant, mine.Unit, evidence.NewObjectID())
		wantErr(t, "other id", err, evidence.ErrNotFound)
	})
}

// TestVault checks the contract of evidence.Vault.
func TestVault(t *testing.T, open func(t *testing.T) evidence.Vault) {
	const alg = "RSA-OAEP-256"
	secret := bytes.Repeat([]byte{7}, 32)
	wrapped := func(t *testing.T, v evidence.Vault) (string, []byte) {
		t.Helper()
		id, public, err := v.WrappingKey(t.Context())
		ok(t, err)
		w, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, secret, nil)
		ok(t, err)
		return id, w
	}
	t.Run("what the public key wrapped is unwrapped", func(t *testing.T) {
		v := open(t)
		id, w := wrapped(t, v)
		if !strings.HasPrefix(id, "https://") {
			t.Errorf("id %q is no https URL", id)
		}
		got, err := v.Unwrap(t.Context(), id, alg, w)
		if err != nil || !bytes.Equal(got, secret) {
			t.Errorf("unwrapped %d bytes, %v", len(got), err)
		}
	})
	t.Run("what it did not wrap is refused", func(t *testing.T) {
		v := open(t)
		id, w := wrapped(t, v)
		w[10] ^= 1
		if got, err := v.Unwrap(t.Context(), id, alg, w); err == nil {
			t.Errorf("unwrapped %d damaged bytes", len(got))
		}
		w[10] ^= 1
		if got, err := v.Unwrap(t.Context(), id+"0", alg, w); err == nil {
			t.Errorf("unwrapped %d bytes with a version that does not exist", len(got))
		}
		if got, err := v.Unwrap(t.Context(), id, "RSA1_5", w); err == nil {
			t.Errorf("unwrapped %d bytes with another algorithm", len(got))
		}
	})
}

// TestTrail checks the contract of custody.Trail.
func TestTrail(t *testing.T, open func(t *testing.T) custody.Trail) {
	at := time.Date(2026, 2, 28, 23, 59, 59, 999_999_000, time.UTC)
	record := func(id string, at time.Time) custody.Record {
		return custody.Record{ID: id, Event: custody.Event{At: at, Action: custody.Read, System: "test", Item: "item", Detail: "n=1"}}
	}
	// written appends through a log, one record at each time, and returns what is stored.
	written := func(t *testing.T, trail custody.Trail, times ...time.Time) {
		t.Helper()
		for _, at := range times {
			log := custody.Log{Trail: trail, Now: func() time.Time { return at }}
			_, err := log.Append(t.Context(), custody.Event{Action: custody.Read, System: "test", Item: "item"})
			ok(t, err)
		}
	}
	t.Run("an entry is never changed", func(t *testing.T) {
		trail := open(t)
		r := record("0000000000000001-aa", at)
		ok(t, trail.Insert(t.Context(), r))
		changed := r
		changed.Actor = newPerson()
		for what, again := range map[string]custody.Record{"same": r, "changed": changed} {
			if err := trail.Insert(t.Context(), again); err == nil {
				t.Errorf("%s record with the same id was taken", what)
			}
		}
	})
	t.Run("what was appended is listed as it was", func(t *testing.T) {
		trail, actor := open(t), newPerson()
		log := custody.Log{Trail: trail, Now: func() time.Time { return at }}
		e := custody.Event{Tenant: NewTenant(), Action: custody.Denied, Actor: actor, Item: "unit-1", Reason: "case <7> & more", Session: "uti", Detail: "n=2",
			Objects: []custody.Object{{Unit: "unit-1", Object: "00", SHA256: "11", Commit: "22"}, {Unit: "unit-2", Object: "33", Seq: 1, Void: true}}}
		r, err := log.Append(t.Context(), e)
		ok(t, err)
		got, err := trail.Range(t.Context(), at, at.Add(time.Second), 10)
		ok(t, err)
		e.At = at
		if len(got) != 1 || got[0].ID != r.Event() || !reflect.DeepEqual(got[0].Event, e) {
			t.Errorf("got %+v, want %+v with id %s", got, e, r.Event())
		}
	})
	t.Run("a range is half open and in order", func(t *testing.T) {
		trail := open(t)
		times := []time.Time{at.Add(48 * time.Hour), at, at.Add(time.Microsecond), at.Add(-time.Microsecond), at.Add(500 * time.Nanosecond)}
		written(t, trail, times...)
		for _, c := range []struct {
			what     string
			from, to time.Time
			want     int
		}{
			{"everything", at.Add(-time.Hour), at.Add(72 * time.Hour), 5},
			{"from is inside", at, at.Add(72 * time.Hour), 4},
			{"to is outside", at.Add(-time.Hour), at, 1},
			{"below a microsecond, from", at.Add(300 * time.Nanosecond), at.Add(time.Hour), 2},
			{"below a microsecond, to", at, at.Add(300 * time.Nanosecond), 1},
			{"to within the microsecond of a record", at, at.Add(600 * time.Nanosecond), 2},
			{"nothing", at.Add(time.Hour), at.Add(2 * time.Hour), 0},
			{"empty", at, at, 0},
		} {
			got, err := trail.Range(t.Context(), c.from, c.to, 100)
			ok(t, err)
			if len(got) != c.want {
				t.Errorf("%s: %d records, want %d", c.what, len(got), c.want)
			}
			for i := 1; i < len(got); i++ {
				if got[i].At.UnixMicro() < got[i-1].At.UnixMicro() {
					t.Errorf("%s: record %d is older than the one before", c.what, i)
				}
			}
		}
	})
	t.Run("a limit cuts off the newest", func(t *testing.T) {
		trail := open(t)
		written(t, trail, at, at.Add(time.Hour), at.Add(2*time.Hour), at.Add(26*time.Hour))
		for limit := 1; limit <= 5; limit++ {
			got, err := trail.Range(t.Context(), at, at.Add(48*time.Hour), limit)
			ok(t, err)
			if len(got) != min(limit, 4) || !got[0].At.Equal(at) {
				t.Errorf("limit %d: %d records", limit, len(got))
			}
		}
		for _, limit := range []int{0, -1} {
			if _, err := trail.Range(t.Context(), at, at.Add(time.Hour), limit); err == nil {
				t.Errorf("limit %d was taken", limit)
			}
		}
	})
}

// TestVersions checks the contract of evidence.Versions over a store that fills each name
// once: one version of each object, and of no other.
func TestVersions(t *testing.T, open func(t *testing.T) (evidence.Blobs, evidence.Versions)) {
	blobs, versions := open(t)
	tenant := NewTenant()
	var want []string
	for _, unit := range []string{"a", "ab"} {
		for range 3 {
			name := string(tenant) + "/" + unit + "/" + evidence.NewObjectID()
			ok(t, blobs.Create(t.Context(), name, []byte("body")))
			wantErr(t, "a second body", blobs.Create(t.Context(), name, []byte("other")), evidence.ErrExists)
			if unit == "a" {
				want = append(want, name)
			}
		}
	}
	list, err := versions.Versions(t.Context(), string(tenant)+"/a/")
	ok(t, err)
	var got []string
	for _, v := range list {
		got = append(got, v.Name)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("versions %q, want one of each of %q", got, want)
	}
	twice, err := evidence.SecondVersions(t.Context(), versions, tenant, "a")
	ok(t, err)
	if len(twice) != 0 {
		t.Errorf("second versions %q", twice)
	}
}
