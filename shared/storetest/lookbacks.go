package storetest

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Lookbacks are look-back jobs. Its zero value is empty and ready.
type Lookbacks struct{ d documents }

// Insert implements policy.Lookbacks.
func (s *Lookbacks) Insert(_ context.Context, j policy.Lookback) error { return s.d.insert(j.ID, j) }

// Get implements policy.Lookbacks.
func (s *Lookbacks) Get(_ context.Context, id string) (j policy.Lookback, err error) {
	j.Revision, err = s.d.get(id, &j)
	return j, err
}

// List implements policy.Lookbacks.
func (s *Lookbacks) List(ctx context.Context) (out []policy.Lookback, err error) {
	for _, k := range s.d.keys("", "~") {
		j, err := s.Get(ctx, k)
		if err != nil {
			return nil, err
		}
		out = append(out, j)
	}
	return out, nil
}

// Replace implements policy.Lookbacks.
func (s *Lookbacks) Replace(_ context.Context, j policy.Lookback) error {
	return s.d.replace(j.ID, j.Revision, j)
}

// TestLookbacks checks the contract of policy.Lookbacks.
func TestLookbacks(t *testing.T, open func(t *testing.T) policy.Lookbacks) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	job := func(id string) policy.Lookback {
		return policy.Lookback{
			ID: id, Scope: policy.LookbackScope{Users: []teams.PersonID{newPerson()}}, From: now.Add(-time.Hour), To: now, Reason: "asked <for> & more",
			Custodians: []teams.PersonID{newPerson()}, State: policy.LookbackQueued, MadeAt: now, Open: []policy.LookbackWindow{{Index: 3, At: now}},
		}
	}
	s := open(t)
	first, second := job("01"), job("02")
	ok(t, s.Insert(t.Context(), second))
	ok(t, s.Insert(t.Context(), first))
	wantErr(t, "insert again", s.Insert(t.Context(), first), policy.ErrExists)
	_, err := s.Get(t.Context(), "03")
	wantErr(t, "get", err, policy.ErrNotFound)
	read, err := s.Get(t.Context(), "01")
	ok(t, err)
	revision := read.Revision
	read.Revision = ""
	if !reflect.DeepEqual(read, first) || revision == "" {
		t.Errorf("read %+v with revision %q, stored %+v", read, revision, first)
	}
	read.Revision, read.State = revision, policy.LookbackRunning
	ok(t, s.Replace(t.Context(), read))
	wantErr(t, "replace what changed", s.Replace(t.Context(), read), policy.ErrChanged)
	wantErr(t, "replace what is not there", s.Replace(t.Context(), job("03")), policy.ErrChanged)
	all, err := s.List(t.Context())
	ok(t, err)
	if len(all) != 2 || all[0].ID != "01" || all[0].State != policy.LookbackRunning || all[1].ID != "02" || all[1].Revision == "" {
		t.Errorf("listed %+v", all)
	}
	largest := job("04")
	largest.Custodians = nil
	for range policy.MaxLookbackCustodians {
		largest.Custodians = append(largest.Custodians, newPerson())
	}
	ok(t, s.Insert(t.Context(), largest))
}

// Failures are stretches that could not be read. Its zero value is empty and ready.
type Failures struct {
	mu  sync.Mutex
	all []conversation.WindowFailed
}

func sameFailure(a, b conversation.WindowFailed) bool {
	return a.Custodian == b.Custodian && a.Key() == b.Key()
}

// SaveFailure implements conversation.Failures.
func (s *Failures) SaveFailure(_ context.Context, f conversation.WindowFailed) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.IndexFunc(s.all, func(g conversation.WindowFailed) bool { return sameFailure(f, g) }); i >= 0 {
		f.Since = s.all[i].Since
		s.all = slices.Delete(slices.Clone(s.all), i, i+1)
	}
	s.all = append(slices.Clone(s.all), f)
	slices.SortFunc(s.all, func(a, b conversation.WindowFailed) int {
		return cmp.Or(cmp.Compare(a.Custodian, b.Custodian), cmp.Compare(a.Key(), b.Key()))
	})
	return nil
}

// FailuresOf implements conversation.Failures.
func (s *Failures) FailuresOf(ctx context.Context, custodian teams.PersonID) ([]conversation.WindowFailed, error) {
	all, err := s.AllFailures(ctx)
	return slices.DeleteFunc(all, func(f conversation.WindowFailed) bool { return f.Custodian != custodian }), err
}

// AllFailures implements conversation.Failures.
func (s *Failures) AllFailures(context.Context) ([]conversation.WindowFailed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all), nil
}

// RemoveFailure implements conversation.Failures.
func (s *Failures) RemoveFailure(_ context.Context, f conversation.WindowFailed) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(slices.Clone(s.all), func(g conversation.WindowFailed) bool { return sameFailure(f, g) })
	return nil
}

// TestFailures checks the contract of conversation.Failures.
func TestFailures(t *testing.T, open func(t *testing.T) conversation.Failures) {
	s := open(t)
	now := time.Now().UTC().Truncate(time.Millisecond)
	a, b := newPerson(), newPerson()
	if a > b {
		a, b = b, a
	}
	failed := func(who teams.PersonID, hour int) conversation.WindowFailed {
		from := now.Add(time.Duration(hour) * time.Hour)
		return conversation.WindowFailed{
			Window: conversation.Window{Custodian: who, Source: teams.Channels, From: from, To: from.Add(time.Hour), Pass: 1},
			Status: 404, Code: "ResourceNotFound", Since: now, At: now,
		}
	}
	none, err := s.AllFailures(t.Context())
	ok(t, err)
	ok(t, s.RemoveFailure(t.Context(), failed(a, 1)))
	for _, f := range []conversation.WindowFailed{failed(b, 1), failed(a, 2), failed(a, 1)} {
		ok(t, s.SaveFailure(t.Context(), f))
	}
	again := failed(a, 2)
	again.Since, again.At, again.Status = now.Add(time.Hour), now.Add(time.Hour), 403
	ok(t, s.SaveFailure(t.Context(), again))
	again.Since = now
	all, err := s.AllFailures(t.Context())
	ok(t, err)
	if want := []conversation.WindowFailed{failed(a, 1), again, failed(b, 1)}; len(none) != 0 || !reflect.DeepEqual(all, want) {
		t.Errorf("all are %+v, want %+v", all, want)
	}
	ok(t, s.RemoveFailure(t.Context(), again))
	of, err := s.FailuresOf(t.Context(), a)
	ok(t, err)
	if want := []conversation.WindowFailed{failed(a, 1)}; !reflect.DeepEqual(of, want) {
		t.Errorf("those of one custodian are %+v, want %+v", of, want)
	}
}
