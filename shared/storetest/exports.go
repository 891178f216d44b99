package storetest

import (
	"context"
	"reflect"
	"testing"
	"time"

	"steno/shared/policy"
)

// Exports are orders of export packages. Its zero value is empty and ready.
type Exports struct{ d documents }

// Insert implements policy.Exports.
func (s *Exports) Insert(_ context.Context, o policy.ExportOrder) error { return s.d.insert(o.ID, o) }

// Get implements policy.Exports.
func (s *Exports) Get(_ context.Context, id string) (o policy.ExportOrder, err error) {
	o.Revision, err = s.d.get(id, &o)
	return o, err
}

// List implements policy.Exports.
func (s *Exports) List(ctx context.Context) (out []policy.ExportOrder, err error) {
	for _, k := range s.d.keys("", "~") {
		o, err := s.Get(ctx, k)
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

// Replace implements policy.Exports.
func (s *Exports) Replace(_ context.Context, o policy.ExportOrder) error {
	return s.d.replace(o.ID, o.Revision, o)
}

// TestExports checks the contract of policy.Exports.
func TestExports(t *testing.T, open func(t *testing.T) policy.Exports) {
	order := func(id string) policy.ExportOrder {
		return policy.ExportOrder{
			ID: id, Requester: newPerson(), Case: "Case <7> & more", Reason: "asked for by the regulator",
			Conversations: []string{"a", "b"}, Checkpoints: []int64{5}, State: policy.ExportApproved, MadeAt: time.Now().UTC().Truncate(time.Millisecond),
		}
	}
	s := open(t)
	first, second := order("01"), order("02")
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
	read.Revision, read.State = revision, policy.ExportBuilding
	ok(t, s.Replace(t.Context(), read))
	wantErr(t, "replace what changed", s.Replace(t.Context(), read), policy.ErrChanged)
	third := order("03")
	wantErr(t, "replace what is not there", s.Replace(t.Context(), third), policy.ErrChanged)
	all, err := s.List(t.Context())
	ok(t, err)
	if len(all) != 2 || all[0].ID != "01" || all[0].State != policy.ExportBuilding || all[1].ID != "02" || all[1].Revision == "" {
		t.Errorf("listed %+v", all)
	}
	largest := order("04")
	largest.Conversations = nil
	for range policy.MaxExport {
		largest.Conversations = append(largest.Conversations, "00000000000000000000000000000000-20260309")
	}
	ok(t, s.Insert(t.Context(), largest))
}
