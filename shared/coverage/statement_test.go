package coverage_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"steno/shared/coverage"
	"steno/shared/teams"
)

const tenant = teams.TenantID("11111111-1111-4111-8111-111111111111")

func statement(lines ...coverage.Line) coverage.Statement {
	day := time.Date(2026, 3, 9, 0, 0, 0, 0, time.UTC)
	s := coverage.Statement{
		Format: coverage.Format, Tenant: tenant, Day: "2026-03-09", From: day, To: day.AddDate(0, 0, 1), Revision: 1, MadeAt: day.AddDate(0, 0, 2),
		Maker: "test", Canary: coverage.CanaryOff, BlindSpots: coverage.BlindSpots, Lines: lines,
	}
	s.Sum()
	return s
}

func TestExpectedIsAlwaysTheSumOfTheOtherFour(t *testing.T) {
	const seed = 7305
	r := rand.New(rand.NewPCG(seed, 0))
	codes := []coverage.Code{coverage.NoRecording, coverage.Pending, coverage.RuleNever, coverage.MediaShort}
	var lines []coverage.Line
	for range 200 {
		l := coverage.Line{Custodian: []teams.PersonID{rita, sven}[r.IntN(2)], Desks: []string{}, Modality: coverage.Calls, Unit: coverage.Stays}
		for range r.IntN(6) {
			n, code := r.Int64N(9), codes[r.IntN(len(codes))]
			switch r.IntN(4) {
			case 0:
				l.Capture(n)
			case 1:
				l.Exclude(code, n)
			case 2:
				l.Fail(code, n)
			default:
				l.Doubt(code, n)
			}
		}
		lines = append(lines, l)
	}
	s := statement(lines...)
	if err := s.Check(); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	total := s.Totals[0]
	if len(s.Totals) != 1 || total.Expected != total.Captured+total.Excluded+total.Failed+total.Unknown || total.Expected == 0 {
		t.Errorf("seed %d: totals %+v", seed, s.Totals)
	}
	if s.Whole() {
		t.Error("a statement with failures calls itself whole")
	}
}

func TestAStatementReadsBackAsItWasWrittenAndNoOtherIsBelieved(t *testing.T) {
	l := coverage.Line{Custodian: rita, Desks: []string{"north"}, Modality: coverage.Chats, Unit: coverage.Versions}
	l.Capture(7)
	l.Fail(coverage.Unreadable, 2)
	s := statement(l)
	body, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := coverage.Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	again, err := back.Encode()
	if err != nil || !bytes.Equal(again, body) {
		t.Errorf("it comes back otherwise: %v", err)
	}
	for was, is := range map[string]string{
		`"captured": 7`: `"captured": 8`, `"expected": 9`: `"expected": 10`, `"failed": 2`: `"failed": 0`, `"count": 2`: `"count": 3`,
		`"day": "2026-03-09"`: `"day": "2026-03-10"`, `"revision": 1`: `"revision": 0`, `steno-coverage/1`: `steno-coverage/2`,
		`"from": "2026-03-09T00:00:00Z"`: `"from": "2026-03-09T01:00:00Z"`, `"to": "2026-03-10T00:00:00Z"`: `"to": "2026-03-11T00:00:00Z"`,
		`"maker"`: `"author"`, `"lines": [`: `"lines": [], "lines2": [`,
	} {
		if !bytes.Contains(body, []byte(was)) {
			t.Errorf("%s is not in a statement", was)
		}
		if _, err := coverage.Decode(bytes.Replace(body, []byte(was), []byte(is), 1)); err == nil {
			t.Errorf("%s for %s is believed", is, was)
		}
	}
	if _, err := coverage.Decode(append(body, "{}"...)); err == nil || !strings.Contains(err.Error(), "follows") {
		t.Errorf("two statements in one: %v", err)
	}
}

func TestEveryBlindSpotHasACodeOfItsOwnAndATextForPeople(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range coverage.BlindSpots {
		if seen[b.Code] || b.Code == "" || len(b.Text) < 20 || !strings.HasSuffix(b.Text, ".") {
			t.Errorf("blind spot %q: %q", b.Code, b.Text)
		}
		seen[b.Code] = true
	}
	for _, code := range []string{"e911", "branch-appliance", "end-to-end-encryption"} {
		if !seen[code] {
			t.Errorf("%s is not named", code)
		}
	}
}

func FuzzDecode(f *testing.F) {
	l := coverage.Line{Custodian: rita, Desks: []string{}, Modality: coverage.Calls, Unit: coverage.Stays}
	l.Doubt(coverage.Pending, 1)
	body, err := statement(l).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte(`{"format":"steno-coverage/1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := coverage.Decode(b)
		if err != nil {
			return
		}
		for _, total := range s.Totals {
			if total.Expected != total.Captured+total.Excluded+total.Failed+total.Unknown {
				t.Errorf("a total that does not add up: %+v", total)
			}
		}
	})
}
