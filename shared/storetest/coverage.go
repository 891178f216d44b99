package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"steno/shared/coverage"
	"steno/shared/teams"
)

// CallRecords is the register of call records. Its zero value is empty and ready.
type CallRecords struct{ d documents }

func recordKey(at time.Time, id string) string { return fmt.Sprintf("%013d-%s", at.UnixMilli(), id) }

// SaveRecord implements coverage.CallRecords.
func (s *CallRecords) SaveRecord(_ context.Context, r coverage.CallRecord) error {
	return s.d.put(recordKey(r.Start, r.ID), r)
}

// Records implements coverage.CallRecords.
func (s *CallRecords) Records(_ context.Context, from, to time.Time) (out []coverage.CallRecord, err error) {
	for _, k := range s.d.keys(recordKey(from, ""), recordKey(to, "")) {
		var r coverage.CallRecord
		if _, err := s.d.get(k, &r); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// TestCallRecords checks the contract of coverage.CallRecords.
func TestCallRecords(t *testing.T, open func(t *testing.T) coverage.CallRecords) {
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	record := func(n, stays int) coverage.CallRecord {
		r := coverage.CallRecord{
			ID: fmt.Sprintf("c0000000-0000-4000-8000-%012d", n), Version: 1, Start: noon.Add(time.Duration(n) * time.Minute), Thread: "19:meeting_x@thread.v2",
			SeenAt: noon.Add(time.Hour),
		}
		r.End = r.Start.Add(time.Minute)
		for range stays {
			r.Stays = append(r.Stays, coverage.Stay{Person: newPerson(), From: r.Start, To: r.End, Verdict: coverage.Verdict{State: coverage.Failed, Code: coverage.NoRecording, Missing: time.Minute, Gap: r.SeenAt}})
		}
		return r
	}
	s := open(t)
	want := []coverage.CallRecord{record(0, 2), record(1, 0), record(2, 1500), record(3, 101)}
	for _, r := range slices.Backward(want) {
		ok(t, s.SaveRecord(t.Context(), r))
	}
	check := func(from, to time.Time, want []coverage.CallRecord) {
		t.Helper()
		got, err := s.Records(t.Context(), from, to)
		ok(t, err)
		if !sameJSON(t, got, want) {
			t.Errorf("records from %s to %s: %d, want %d", from, to, len(got), len(want))
		}
	}
	check(noon, noon.Add(time.Hour), want)
	check(noon.Add(time.Minute), noon.Add(3*time.Minute), want[1:3]) // from is in, to is not
	want[2].Version, want[2].Stays = 2, want[2].Stays[:3]
	ok(t, s.SaveRecord(t.Context(), want[2]))
	check(noon, noon.Add(time.Hour), want) // what was more is gone
	check(noon.AddDate(0, 0, -1), noon, nil)
}

func sameJSON[T any](t *testing.T, a, b []T) bool {
	t.Helper()
	if len(a) != len(b) {
		return false
	}
	x, err := json.Marshal(a)
	ok(t, err)
	y, err := json.Marshal(b)
	ok(t, err)
	return len(a) == 0 || bytes.Equal(x, y)
}

// Statements keeps coverage statements. Its zero value is empty and ready.
type Statements struct{ d documents }

type statement struct{ Body, Signature []byte }

func statementKey(s coverage.Stated) string { return fmt.Sprintf("%s/%06d", s.Day, s.Revision) }

// Create implements coverage.Statements.
func (s *Statements) Create(_ context.Context, n coverage.Stated, body, signature []byte) error {
	var was statement
	if _, err := s.d.get(statementKey(n), &was); err == nil {
		if !bytes.Equal(was.Body, body) {
			return coverage.ErrStated
		}
		return nil
	}
	return s.d.put(statementKey(n), statement{body, signature})
}

// Read implements coverage.Statements.
func (s *Statements) Read(_ context.Context, n coverage.Stated) (body, signature []byte, err error) {
	var was statement
	if _, err := s.d.get(statementKey(n), &was); err != nil {
		return nil, nil, coverage.ErrNoStatement
	}
	return was.Body, was.Signature, nil
}

// List implements coverage.Statements.
func (s *Statements) List(_ context.Context, from, to string) (out []coverage.Stated, err error) {
	for _, k := range s.d.keys(from, to+"~") {
		var n coverage.Stated
		if _, err := fmt.Sscanf(k, "%10s/%d", &n.Day, &n.Revision); err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// TestStatements checks the contract of coverage.Statements.
func TestStatements(t *testing.T, open func(t *testing.T, tenant teams.TenantID) coverage.Statements) {
	s := open(t, NewTenant())
	name := func(day string, n int) coverage.Stated { return coverage.Stated{Day: day, Revision: n} }
	_, _, err := s.Read(t.Context(), name("2026-03-02", 1))
	wantErr(t, "read", err, coverage.ErrNoStatement)
	body, signature := []byte("{}\n"), []byte{0x30, 1, 2}
	for _, n := range []coverage.Stated{name("2026-03-03", 1), name("2026-03-02", 10), name("2026-03-02", 2), name("2026-03-01", 1), name("2026-03-02", 2)} {
		ok(t, s.Create(t.Context(), n, body, signature))
	}
	wantErr(t, "other bytes", s.Create(t.Context(), name("2026-03-02", 2), []byte("{ }\n"), signature), coverage.ErrStated)
	gotBody, gotSignature, err := s.Read(t.Context(), name("2026-03-02", 2))
	ok(t, err)
	if !bytes.Equal(gotBody, body) || !bytes.Equal(gotSignature, signature) {
		t.Errorf("read %q signed %x", gotBody, gotSignature)
	}
	for _, c := range []struct {
		from, to string
		want     []coverage.Stated
	}{
		{"2026-03-01", "2026-03-03", []coverage.Stated{name("2026-03-01", 1), name("2026-03-02", 2), name("2026-03-02", 10), name("2026-03-03", 1)}},
		{"2026-03-02", "2026-03-02", []coverage.Stated{name("2026-03-02", 2), name("2026-03-02", 10)}},
		{"2026-02-01", "2026-02-28", nil},
	} {
		got, err := s.List(t.Context(), c.from, c.to)
		ok(t, err)
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("list %s to %s: %v, want %v", c.from, c.to, got, c.want)
		}
	}
	other, err := open(t, NewTenant()).List(t.Context(), "2026-01-01", "2026-12-31")
	ok(t, err)
	if len(other) != 0 {
		t.Errorf("another tenant sees %v", other)
	}
}
