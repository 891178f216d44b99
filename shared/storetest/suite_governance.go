package storetest

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Governed is a store of objects with all that can be done to them.
type Governed interface {
	evidence.Blobs
	evidence.Dated
	evidence.Governor
}

// TestGovernor checks the contract of evidence.Governor and evidence.Dated. open returns a
// store without a container default to which nobody else writes names that start with a
// GUID drawn here, and locked says whether it locks the dates it sets. Objects whose dates
// have not passed stay behind.
func TestGovernor(t *testing.T, locked bool, open func(t *testing.T) Governed) {
	hour := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	t.Run("an object without a date is under none and can be deleted, again and again", func(t *testing.T) {
		s, name := open(t), guid()+"/unit/object"
		ok(t, s.CreateUntil(t.Context(), name, []byte("x"), time.Time{}))
		p, err := s.Protection(t.Context(), name)
		ok(t, err)
		if p != (evidence.Protection{}) {
			t.Errorf("%+v", p)
		}
		ok(t, s.Delete(t.Context(), name))
		ok(t, s.Delete(t.Context(), name))
		_, err = s.Size(t.Context(), name)
		wantErr(t, "size", err, evidence.ErrNotFound)
	})
	t.Run("a date that has passed protects nothing and is no error", func(t *testing.T) {
		s, name := open(t), guid()+"/unit/object"
		ok(t, s.CreateUntil(t.Context(), name, []byte("x"), time.Now().Add(-time.Hour)))
		ok(t, s.Delete(t.Context(), name))
	})
	t.Run("a date given at creation holds from the first moment and rounds up", func(t *testing.T) {
		s, name := open(t), guid()+"/unit/object"
		ok(t, s.CreateUntil(t.Context(), name, []byte("x"), hour.Add(-time.Millisecond)))
		p, err := s.Protection(t.Context(), name)
		ok(t, err)
		if !p.Until.Equal(hour) || p.Locked != locked || p.Held {
			t.Errorf("%+v, want %s", p, hour)
		}
		wantErr(t, "delete", s.Delete(t.Context(), name), evidence.ErrLocked)
		wantErr(t, "create", s.Create(t.Context(), name, []byte("y")), evidence.ErrExists)
	})
	t.Run("a date moves on and never back", func(t *testing.T) {
		s, name := open(t), guid()+"/unit/object"
		ok(t, s.Create(t.Context(), name, []byte("x")))
		for _, c := range []struct {
			until, want time.Time
			moved       bool
		}{{hour, hour, true}, {hour.Add(-30 * time.Minute), hour, false}, {hour, hour, false}, {hour.Add(time.Hour), hour.Add(time.Hour), true}, {time.Time{}, hour.Add(time.Hour), false}} {
			moved, err := s.Protect(t.Context(), name, c.until)
			ok(t, err)
			p, err := s.Protection(t.Context(), name)
			ok(t, err)
			if moved != c.moved || !p.Until.Equal(c.want) || p.Locked != locked {
				t.Errorf("protected until %s: moved %t, %+v, want %s", c.until, moved, p, c.want)
			}
		}
		wantErr(t, "delete", s.Delete(t.Context(), name), evidence.ErrLocked)
	})
	t.Run("a date that is not locked can be taken off, a locked one and a hold cannot", func(t *testing.T) {
		s, name := open(t), guid()+"/unit/object"
		wantErr(t, "absent", s.Unprotect(t.Context(), name), evidence.ErrNotFound)
		ok(t, s.CreateUntil(t.Context(), name, []byte("x"), hour))
		ok(t, s.Hold(t.Context(), name, true))
		wantErr(t, "held", s.Unprotect(t.Context(), name), evidence.ErrHeld)
		if p, err := s.Protection(t.Context(), name); err != nil || !p.Until.Equal(hour) {
			t.Errorf("%+v, %v", p, err)
		}
		ok(t, s.Hold(t.Context(), name, false))
		if locked {
			wantErr(t, "locked", s.Unprotect(t.Context(), name), evidence.ErrLocked)
			wantErr(t, "delete", s.Delete(t.Context(), name), evidence.ErrLocked)
			return
		}
		for range 2 {
			ok(t, s.Unprotect(t.Context(), name))
		}
		ok(t, s.Delete(t.Context(), name))
	})
	t.Run("a held object stays until it is let go", func(t *testing.T) {
		s, name := open(t), guid()+"/unit/object"
		ok(t, s.Create(t.Context(), name, []byte("x")))
		for range 2 {
			ok(t, s.Hold(t.Context(), name, true))
		}
		if p, err := s.Protection(t.Context(), name); err != nil || !p.Held {
			t.Errorf("%+v, %v", p, err)
		}
		wantErr(t, "delete", s.Delete(t.Context(), name), evidence.ErrHeld)
		for range 2 {
			ok(t, s.Hold(t.Context(), name, false))
		}
		ok(t, s.Delete(t.Context(), name))
	})
	t.Run("what is not there cannot be protected", func(t *testing.T) {
		s, name := open(t), guid()+"/absent"
		_, err := s.Protection(t.Context(), name)
		wantErr(t, "protection", err, evidence.ErrNotFound)
		_, err = s.Protect(t.Context(), name, hour)
		wantErr(t, "protect", err, evidence.ErrNotFound)
		wantErr(t, "hold", s.Hold(t.Context(), name, true), evidence.ErrNotFound)
	})
	t.Run("a listing is below the prefix alone", func(t *testing.T) {
		s, unit := open(t), guid()
		ok(t, s.Create(t.Context(), unit+"/unit/1", []byte("x")))
		ok(t, s.Create(t.Context(), unit+"/unitother/1", []byte("x")))
		list, err := s.List(t.Context(), unit+"/unit/")
		ok(t, err)
		if len(list) != 1 || list[0].Name != unit+"/unit/1" || list[0].Size != 1 {
			t.Errorf("%+v", list)
		}
	})
	t.Run("storage tells its own time", func(t *testing.T) {
		now, err := open(t).Now(t.Context())
		ok(t, err)
		if time.Since(now).Abs() > time.Minute {
			t.Errorf("storage says %s", now)
		}
	})
}

// TestKeyRing checks what evidence.KeyRing adds to evidence.Keys.
func TestKeyRing(t *testing.T, open func(t *testing.T) evidence.KeyRing) {
	t.Run("as keys", func(t *testing.T) {
		TestKeys(t, func(t *testing.T) evidence.Keys { return open(t) })
	})
	t.Run("keys of a unit are listed and destroyed one by one", func(t *testing.T) {
		s, tenant := open(t), NewTenant()
		key := func(tenant teams.TenantID, unit string) evidence.WrappedKey {
			w := evidence.WrappedKey{Tenant: tenant, Unit: unit, ID: evidence.NewObjectID(), Wrapped: []byte("w")}
			ok(t, s.Insert(t.Context(), w))
			return w
		}
		a, b := key(tenant, "unit-1"), key(tenant, "unit-1")
		key(tenant, "unit-11")
		key(NewTenant(), "unit-1")
		ids := func() []string {
			list, err := s.List(t.Context(), tenant, "unit-1")
			ok(t, err)
			var out []string
			for _, w := range list {
				out = append(out, w.ID)
			}
			return out
		}
		want := []string{min(a.ID, b.ID), max(a.ID, b.ID)}
		if got := ids(); !reflect.DeepEqual(got, want) {
			t.Fatalf("listed %v, want %v", got, want)
		}
		for range 2 {
			ok(t, s.Delete(t.Context(), tenant, "unit-1", a.ID))
		}
		_, err := s.Get(t.Context(), tenant, "unit-1", a.ID)
		wantErr(t, "destroyed key", err, evidence.ErrNotFound)
		if got := ids(); !reflect.DeepEqual(got, []string{b.ID}) {
			t.Errorf("left %v", got)
		}
		if list, err := s.List(t.Context(), tenant, "unit-11"); err != nil || len(list) != 1 {
			t.Errorf("another unit has %d keys, %v", len(list), err)
		}
	})
}

// TestKeysSince checks evidence.KeyRing.Since. damage overwrites the row of a key with bytes
// that are none.
func TestKeysSince(t *testing.T, s evidence.KeyRing, damage func(w evidence.WrappedKey)) {
	tenant := NewTenant()
	want := map[string]int{}
	for _, unit := range []string{"unit-1", "unit-2", "unit-11"} {
		for range 2 {
			w := evidence.WrappedKey{Tenant: tenant, Unit: unit, ID: evidence.NewObjectID(), Wrapped: []byte("w"), Escrow: evidence.EscrowCopy{Recovery: "r", Wrapped: []byte("e")}}
			ok(t, s.Insert(t.Context(), w))
			want[unit]++
			if unit == "unit-2" && want[unit] == 2 {
				damage(w)
			}
		}
	}
	ok(t, s.Insert(t.Context(), evidence.WrappedKey{Tenant: NewTenant(), Unit: "unit-1", ID: evidence.NewObjectID()}))
	for since, some := range map[time.Time]bool{{}: true, time.Now().Add(-time.Hour): true, time.Now().Add(time.Hour): false} {
		got, bare, order := map[string]int{}, 0, []string(nil)
		ok(t, s.Since(t.Context(), tenant, since, func(w evidence.WrappedKey) error {
			if got[w.Unit]++; got[w.Unit] == 1 {
				order = append(order, w.Unit)
			} else if order[len(order)-1] != w.Unit {
				t.Errorf("the keys of %s do not follow one another", w.Unit)
			}
			if w.Tenant != tenant || len(w.ID) != 32 {
				t.Errorf("row of %s/%s", w.Tenant, w.ID)
			}
			if len(w.Escrow.Wrapped) == 0 {
				bare++
			}
			return nil
		}))
		if some && (!reflect.DeepEqual(got, want) || bare != 1) || !some && len(got) != 0 {
			t.Errorf("since %s: %v, %d that cannot be read; want %v", since, got, bare, want)
		}
	}
	stop := errors.New("stop")
	wantErr(t, "an error of the caller's", s.Since(t.Context(), tenant, time.Time{}, func(evidence.WrappedKey) error { return stop }), stop)
}

// contested lets eight writers replace one document and returns how many won.
func contested(t *testing.T, replace func(i int) error) int64 {
	t.Helper()
	var wins atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			switch err := replace(i); {
			case err == nil:
				wins.Add(1)
			case !errors.Is(err, policy.ErrChanged):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return wins.Load()
}

// TestMatters checks the contract of policy.Matters. open returns an empty store.
func TestMatters(t *testing.T, open func(t *testing.T) policy.Matters) {
	now := time.Date(2026, 3, 14, 9, 0, 0, 123, time.UTC)
	matter := func(t *testing.T) policy.Matter {
		t.Helper()
		m, err := policy.Place(policy.Matter{
			Title: "Fälle 7 & 8 <x>", Custodians: []teams.PersonID{newPerson()}, Conversations: []string{strings.Repeat("0", 32) + "-20260314"}, From: now,
		}, newPerson(), now)
		ok(t, err)
		return m
	}
	t.Run("what was placed is read back, once", func(t *testing.T) {
		s, m := open(t), matter(t)
		ok(t, s.Insert(t.Context(), m))
		wantErr(t, "again", s.Insert(t.Context(), m), policy.ErrExists)
		got, err := s.Get(t.Context(), m.ID)
		ok(t, err)
		list, err := s.List(t.Context())
		ok(t, err)
		if len(list) != 1 || !reflect.DeepEqual(list[0], got) {
			t.Errorf("listed %+v, got %+v", list, got)
		}
		if got.Revision = ""; !reflect.DeepEqual(got, m) {
			t.Errorf("got %+v, want %+v", got, m)
		}
		_, err = s.Get(t.Context(), strings.Repeat("0", 32))
		wantErr(t, "absent", err, policy.ErrNotFound)
	})
	t.Run("of those who change one revision one wins", func(t *testing.T) {
		s, m := open(t), matter(t)
		wantErr(t, "before it is there", s.Replace(t.Context(), m), policy.ErrChanged)
		ok(t, s.Insert(t.Context(), m))
		got, err := s.Get(t.Context(), m.ID)
		ok(t, err)
		if n := contested(t, func(int) error { c := got; c.State = policy.MatterLifted; return s.Replace(t.Context(), c) }); n != 1 {
			t.Errorf("%d won", n)
		}
		again, err := s.Get(t.Context(), m.ID)
		ok(t, err)
		if again.State != policy.MatterLifted || again.Revision == got.Revision {
			t.Errorf("%+v", again)
		}
		wantErr(t, "without a revision", s.Replace(t.Context(), m), policy.ErrChanged)
	})
}

// TestApprovals checks the contract of policy.Approvals. open returns an empty store.
func TestApprovals(t *testing.T, open func(t *testing.T) policy.Approvals) {
	proposal := func(text string) policy.Proposal {
		return policy.Proposal{
			Digest: policy.ObjectSet(text), Text: []byte(text), IDs: []string{"a", "b"}, State: policy.ProposalPending, MadeAt: time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC),
		}
	}
	t.Run("what was proposed is read back, once, with its very bytes", func(t *testing.T) {
		s, p := open(t), proposal("<&\u00e4>")
		ok(t, s.Insert(t.Context(), p))
		wantErr(t, "again", s.Insert(t.Context(), p), policy.ErrExists)
		got, err := s.Get(t.Context(), p.Digest)
		ok(t, err)
		if got.Revision = ""; !reflect.DeepEqual(got, p) || !bytes.Equal(got.Text, p.Text) {
			t.Errorf("got %+v, want %+v", got, p)
		}
		_, err = s.Get(t.Context(), policy.ObjectSet("absent"))
		wantErr(t, "absent", err, policy.ErrNotFound)
	})
	t.Run("open ones are listed, and one approval is used once", func(t *testing.T) {
		s := open(t)
		for _, p := range []policy.Proposal{proposal("1"), proposal("2")} {
			ok(t, s.Insert(t.Context(), p))
		}
		list, err := s.Open(t.Context())
		ok(t, err)
		if len(list) != 2 || list[0].Digest >= list[1].Digest {
			t.Fatalf("open: %+v", list)
		}
		if n := contested(t, func(int) error { c := list[0]; c.State = policy.ProposalExecuted; return s.Replace(t.Context(), c) }); n != 1 {
			t.Errorf("%d used it", n)
		}
		left, err := s.Open(t.Context())
		ok(t, err)
		if len(left) != 1 || left[0].Digest != list[1].Digest {
			t.Errorf("left open: %+v", left)
		}
	})
}

// TestDispositions checks the contract of policy.Dispositions. open returns an empty store.
func TestDispositions(t *testing.T, open func(t *testing.T) policy.Dispositions) {
	day := time.Date(2026, 3, 14, 0, 0, 0, 0, time.UTC)
	id := func(c string) string { return strings.Repeat(c, 32) + "-20260314" }
	t.Run("a disposition goes its way under revisions", func(t *testing.T) {
		s := open(t)
		d := policy.Disposition{
			Conversation: id("1"), Units: []string{id("1")}, Modality: "chat", Ground: policy.GroundExpiry, Policy: "default", State: policy.DispositionPlanned,
			PlannedAt: day, Custodians: []policy.CustodianFacts{{Person: newPerson(), Desks: []string{"fx"}}}, Start: day, End: day,
		}
		wantErr(t, "before it is there", s.Replace(t.Context(), d), policy.ErrChanged)
		ok(t, s.Insert(t.Context(), d))
		wantErr(t, "again", s.Insert(t.Context(), d), policy.ErrExists)
		got, err := s.Get(t.Context(), d.Conversation)
		ok(t, err)
		list, err := s.List(t.Context())
		ok(t, err)
		if len(list) != 1 || !reflect.DeepEqual(list[0], got) {
			t.Errorf("listed %+v, got %+v", list, got)
		}
		if n := contested(t, func(int) error { c := got; c.State = policy.DispositionBegun; return s.Replace(t.Context(), c) }); n != 1 {
			t.Errorf("%d won", n)
		}
		for range 2 {
			ok(t, s.Delete(t.Context(), d.Conversation))
		}
		_, err = s.Get(t.Context(), d.Conversation)
		wantErr(t, "deleted", err, policy.ErrNotFound)
	})
	t.Run("certificates are stored once and listed by day", func(t *testing.T) {
		s := open(t)
		for _, c := range []string{"20260313-0000", "20260314-0000", "20260314-0001", "20260315-0000"} {
			ok(t, s.Certify(t.Context(), policy.Certificate{ID: c, Text: []byte(c)}))
		}
		wantErr(t, "again", s.Certify(t.Context(), policy.Certificate{ID: "20260314-0000", Text: []byte("other")}), policy.ErrExists)
		got, err := s.Certificates(t.Context(), day, day.AddDate(0, 0, 1))
		ok(t, err)
		if len(got) != 2 || got[0].ID != "20260314-0000" || string(got[0].Text) != "20260314-0000" || got[1].ID != "20260314-0001" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("the first record of an event stays", func(t *testing.T) {
		s := open(t)
		ok(t, s.RecordEvent(t.Context(), id("1"), "account-closed", day))
		ok(t, s.RecordEvent(t.Context(), id("1"), "account-closed", day.AddDate(1, 0, 0)))
		ok(t, s.RecordEvent(t.Context(), id("2"), "other", day))
		got, err := s.Events(t.Context(), id("1"))
		ok(t, err)
		if len(got) != 1 || !got["account-closed"].Equal(day) {
			t.Errorf("%v", got)
		}
		if none, err := s.Events(t.Context(), id("3")); err != nil || len(none) != 0 {
			t.Errorf("%v, %v", none, err)
		}
	})
	t.Run("the last sweep is remembered", func(t *testing.T) {
		s := open(t)
		if none, err := s.Sweep(t.Context()); err != nil || none != (policy.Sweep{}) {
			t.Errorf("%+v, %v", none, err)
		}
		for _, digest := range []string{"a", "b"} {
			want := policy.Sweep{At: day, Policies: digest}
			ok(t, s.SaveSweep(t.Context(), want))
			if got, err := s.Sweep(t.Context()); err != nil || got != want {
				t.Errorf("%+v, %v, want %+v", got, err, want)
			}
		}
	})
}
