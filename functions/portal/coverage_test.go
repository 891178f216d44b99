package portal_test

import (
	"crypto/sha256"
	"net/http"
	"testing"
	"time"

	"steno/shared/coverage"
	"steno/shared/custody"
	"steno/shared/teams"
)

type coverageAnswer struct {
	Day, Canary        string
	Revision           int
	Whole, Signed      bool
	Totals             []coverage.Total
	Lines              []coverage.Line
	Gaps               []struct{ Person teams.PersonID }
	BlindSpots, People []any
}

// stated stores two statements of a day in which Rita's call was not recorded.
func (w *world) stated() {
	w.t.Helper()
	of := func(p teams.PersonID, desk string, gap int64) coverage.Line {
		l := coverage.Line{Custodian: p, Desks: []string{desk}, Modality: coverage.Calls, Unit: coverage.Stays}
		l.Capture(3)
		l.Fail(coverage.NoRecording, gap)
		return l
	}
	from := time.Date(2026, 3, 8, 0, 0, 0, 0, time.UTC)
	for revision, gap := range []int64{2, 1} {
		s := coverage.Statement{
			Format: coverage.Format, Tenant: tenant, Day: "2026-03-08", From: from, To: from.AddDate(0, 0, 1), Revision: revision + 1, MadeAt: from.AddDate(0, 0, 1+revision),
			Canary: coverage.CanaryAlive, BlindSpots: coverage.BlindSpots, Lines: []coverage.Line{of(rita, "north", gap), of(sven, "south", 0)},
		}
		s.Sum()
		body, err := s.Encode()
		w.must(err)
		w.must(w.statements.Create(w.t.Context(), coverage.Stated{Day: s.Day, Revision: s.Revision}, body, []byte("signature")))
	}
	w.must(w.records.SaveRecord(w.t.Context(), coverage.CallRecord{
		ID: "c0000000-0000-4000-8000-000000000001", Start: from.Add(time.Hour), End: from.Add(2 * time.Hour),
		Stays: []coverage.Stay{{Person: rita, From: from.Add(time.Hour), To: from.Add(2 * time.Hour), Verdict: coverage.Verdict{State: coverage.Failed, Code: coverage.NoRecording, Missing: time.Hour}}},
	}))
}

func TestCoverageIsShownAsFarAsACallersDesksReach(t *testing.T) {
	w := newWorld(t)
	w.stated()
	for who, want := range map[teams.PersonID]struct{ lines, gaps, failed int }{
		aida: {2, 1, 1}, carla: {2, 1, 1}, adam: {2, 1, 1}, nora: {1, 1, 1}, rita: {1, 1, 1}, saul: {1, 0, 0}, sven: {1, 0, 0},
	} {
		rec := w.get(who, "coverage/2026-03-08")
		checkAnswer(t, readDocument(t), "/coverage/{day}", rec)
		got := decode[coverageAnswer](t, rec.Body)
		if len(got.Lines) != want.lines || len(got.Gaps) != want.gaps || got.Totals[0].Failed != int64(want.failed) || got.Revision != 2 || len(got.BlindSpots) == 0 {
			t.Errorf("%s sees %d lines, %d gaps, %+v of revision %d", who, len(got.Lines), len(got.Gaps), got.Totals, got.Revision)
		}
		if all := want.lines == 2; got.Signed != all || got.Canary != map[bool]string{true: "alive", false: "off"}[all] {
			t.Errorf("%s: signed %v, canary %s", who, got.Signed, got.Canary)
		}
		days := decode[struct{ Days []coverageAnswer }](t, w.get(who, "coverage?from=2026-03-01&to=2026-03-09").Body)
		if len(days.Days) != 1 || days.Days[0].Totals[0].Failed != int64(want.failed) || days.Days[0].Whole == (want.failed > 0) {
			t.Errorf("%s lists %+v", who, days)
		}
	}
	for _, who := range []teams.PersonID{otto, uma} {
		for _, path := range []string{"coverage", "coverage/2026-03-08", "coverage/2026-03-08/statement"} {
			if rec := w.get(who, path); rec.Code != http.StatusNotFound {
				t.Errorf("%s gets %d for %s", who, rec.Code, path)
			}
		}
	}
}

func TestAStatementCanBeTakenAlongAsItWasSigned(t *testing.T) {
	w := newWorld(t)
	w.stated()
	body, _, err := w.statements.Read(t.Context(), coverage.Stated{Day: "2026-03-08", Revision: 2})
	w.must(err)
	rec := w.get(aida, "coverage/2026-03-08/statement")
	want(t, rec, http.StatusOK)
	if sha256.Sum256(rec.Body.Bytes()) != sha256.Sum256(body) || rec.Header().Get("Content-Disposition") != `attachment; filename="coverage-2026-03-08-2.json"` {
		t.Errorf("%d bytes, want the %d that were signed; %v", rec.Body.Len(), len(body), rec.Header())
	}
	if rec := w.get(aida, "coverage/2026-03-08/signature"); rec.Body.String() != "signature" {
		t.Errorf("signature %q", rec.Body)
	}
	for _, path := range []string{"coverage/2026-03-07", "coverage/2026-03-08/key", "coverage/yesterday", "coverage/2026-03-07/statement"} {
		want(t, w.get(aida, path), http.StatusNotFound)
	}
	want(t, w.get(nora, "coverage/2026-03-08/statement"), http.StatusNotFound) // it names other desks
	for _, query := range []string{"?from=2026-03-09&to=2026-03-01", "?from=2025-01-01&to=2026-03-01", "?from=soon", "?desk=north"} {
		want(t, w.get(aida, "coverage"+query), http.StatusBadRequest)
	}
}

func TestReadingCoverageLeavesAnEvent(t *testing.T) {
	w := newWorld(t)
	w.stated()
	for _, path := range []string{"coverage", "coverage/2026-03-08", "coverage/2026-03-08/statement"} {
		before := len(w.trailOf(aida, "?action=list&item=coverage").Events)
		want(t, w.get(aida, path), http.StatusOK)
		events := w.trailOf(aida, "?action=list&item=coverage").Events
		if len(events) != before+1 || events[len(events)-1].Actor != aida {
			t.Errorf("%s left %d events", path, len(events)-before)
		}
	}
	want(t, w.get(nora, "coverage/2026-03-08/signature"), http.StatusNotFound)
	if e := w.trailOf(aida, "?action="+string(custody.Denied)).Events; len(e) != 1 || e[0].Actor != nora {
		t.Errorf("a refusal left %v", e)
	}
}
