package browser_test

import (
	"testing"
	"time"

	"steno/shared/coverage"
)

// coverageStory states two days: on one nothing is missing, on the other a call was not recorded.
func coverageStory(t *testing.T, a *archive) {
	t.Helper()
	for _, daysAgo := range []int{2, 1} {
		from := noon(daysAgo).Truncate(24 * time.Hour)
		s := coverage.Statement{
			Format: coverage.Format, Tenant: tenant, Day: from.Format(time.DateOnly), From: from, To: from.AddDate(0, 0, 1), Revision: 1, MadeAt: from.Add(30 * time.Hour),
			Canary: coverage.CanaryAlive, BlindSpots: coverage.BlindSpots, Second: coverage.SecondPass{Seconds: 86_400},
		}
		for _, c := range []struct {
			who  person
			desk string
			gap  int64
		}{{amara, "equities", 0}, {ben, "rates", int64(2 - daysAgo)}} {
			read := coverage.Line{Custodian: c.who.id, Desks: []string{c.desk}, Modality: coverage.Chats, Unit: coverage.Seconds}
			read.Capture(86_400 - 900*c.gap)
			read.Doubt(coverage.NotReadYet, 900*c.gap)
			versions := coverage.Line{Custodian: c.who.id, Desks: []string{c.desk}, Modality: coverage.Chats, Unit: coverage.Versions}
			versions.Capture(41)
			calls := coverage.Line{Custodian: c.who.id, Desks: []string{c.desk}, Modality: coverage.Calls, Unit: coverage.Stays}
			calls.Capture(3)
			calls.Exclude(coverage.NotEstablished, 1)
			calls.Fail(coverage.NoRecording, c.gap)
			s.Lines = append(s.Lines, read, versions, calls)
			if c.gap > 0 {
				at := from.Add(9 * time.Hour)
				r := coverage.CallRecord{ID: "c0000000-0000-4000-8000-000000000001", Start: at, End: at.Add(25 * time.Minute), Stays: []coverage.Stay{{
					Person: c.who.id, From: at, To: at.Add(25 * time.Minute), Verdict: coverage.Verdict{State: coverage.Failed, Code: coverage.NoRecording, Missing: 25 * time.Minute},
				}}}
				if err := a.records.SaveRecord(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.Sum()
		body, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := a.statements.Create(t.Context(), coverage.Stated{Day: s.Day, Revision: 1}, body, []byte("signature")); err != nil {
			t.Fatal(err)
		}
	}
}
