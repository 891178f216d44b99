package reconcile_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/functions/reconcile"
	"steno/shared/coverage"
	"steno/shared/custody"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/teams"
)

func TestACallWithoutARecordingIsACaptureGapThatALateRecordingHeals(t *testing.T) {
	o := newOffice(t)
	o.graph.call(1, 9, 30, rita, sven, odd)
	o.graph.call(2, 10, 30, odd)
	o.graph.call(3, 5, 120, rita) // she is recorded from six o'clock on
	o.recorded(1, sven, 9, 30)
	o.recorded(3, rita, 6, 60)
	o.must(o.run())
	s := o.newest("2026-03-10")
	wantCount(t, "Sven's calls", line(s, sven, coverage.Stays), 1, 1, 0, 0, 0)
	wantCount(t, "Rita's calls", line(s, rita, coverage.Stays), 2, 1, 0, 1, 0)
	gaps := o.events(custody.GapFound)
	if len(gaps) != 1 || gaps[0].Reason != string(coverage.NoRecording) || !strings.Contains(gaps[0].Detail, "missing=30m0s") {
		t.Fatalf("gaps on record: %+v", gaps)
	}
	if !slices.ContainsFunc(o.alerts, func(a reconcile.Alert) bool { return a.Name == "capture-gap" && a.Count == 1 }) {
		t.Errorf("nobody is told of the gap: %v", o.alerts)
	}
	o.now = night.Add(time.Hour)
	o.must(o.run())
	if n := len(o.events(custody.GapFound)); n != 1 {
		t.Errorf("an open gap is put on record %d times", n)
	}
	o.recorded(1, rita, 9, 30)
	o.now = night.Add(72 * time.Hour)
	o.must(o.run())
	s = o.newest("2026-03-10")
	wantCount(t, "Rita's calls, healed", line(s, rita, coverage.Stays), 2, 2, 0, 0, 0)
	if healed := o.events(custody.GapHealed); len(healed) != 1 || !strings.Contains(healed[0].Detail, string(rita)) {
		t.Errorf("healed on record: %+v", healed)
	}
}

func TestCallsWithoutARecordedUserAreNotKeptAndNotAskedAboutAgain(t *testing.T) {
	o := newOffice(t)
	o.graph.call(1, 9, 30, odd)
	o.must(o.run())
	o.must(o.run())
	kept, err := o.records.Records(t.Context(), today.AddDate(0, 0, -30), today.AddDate(0, 0, 30))
	o.must(err)
	if asked := o.graph.asked.Load(); len(kept) != 0 || asked != 1 {
		t.Errorf("%d records kept, asked %d times", len(kept), asked)
	}
	for _, e := range append(o.events(custody.Stated), o.events(custody.GapFound)...) {
		if strings.Contains(e.Detail+e.Item, string(odd)) {
			t.Error("the trail names somebody who is not recorded")
		}
	}
	o.graph.records[0].Version, o.graph.sessions[o.graph.records[0].ID] = 2, []msgraph.Session{{Start: today.Add(9 * time.Hour), End: today.Add(10 * time.Hour), People: []teams.PersonID{sven}}}
	o.must(o.run())
	if s, err := o.records.Records(t.Context(), today, today.AddDate(0, 0, 1)); err != nil || len(s) != 1 {
		t.Errorf("a record that grew is not looked at again: %v, %v", s, err)
	}
}

func TestSomebodyWhoIsNeverRecordedHasNoGaps(t *testing.T) {
	o := newOffice(t)
	groups, err := policy.ParseRoleGroups(`[{"role":"recordedUser","group":"a","desk":"north"},{"role":"recordedUser","group":"b","desk":"south","recording":{"when":"never"}}]`)
	o.must(err)
	o.config.Groups = groups
	o.graph.call(1, 9, 30, rita, sven)
	o.must(o.run())
	s := o.newest("2026-03-10")
	wantCount(t, "Sven, never recorded", line(s, sven, coverage.Stays), 1, 0, 1, 0, 0)
	wantCount(t, "Rita", line(s, rita, coverage.Stays), 1, 0, 0, 1, 0)
}

func TestARecordingOfWhichMicrosoftHasNoRecordIsUnknownNotCaptured(t *testing.T) {
	o := newOffice(t)
	o.recorded(7, rita, 9, 30)
	o.must(o.run())
	c := line(o.newest("2026-03-10"), rita, coverage.Stays)
	wantCount(t, "a recording without a record", c, 1, 0, 0, 0, 1)
	if len(c.Reasons) != 1 || c.Reasons[0].Code != coverage.NoRecord {
		t.Errorf("reasons %v", c.Reasons)
	}
}

func TestWithoutCallRecordsThereIsNoStatementThatLeavesCallsOut(t *testing.T) {
	o := newOffice(t)
	o.graph.err = errors.New("graph answered 403 Forbidden")
	if err := o.run(); err == nil || !strings.Contains(err.Error(), "403") {
		t.Fatalf("a harvest that is refused: %v", err)
	}
	if list, err := o.statements.List(t.Context(), "2026-01-01", "2026-12-31"); err != nil || len(list) != 0 {
		t.Errorf("statements %v, %v", list, err)
	}
	o.config.Calls = false // a deployment without a recorder expects no calls
	o.must(o.run())
	if s := o.newest("2026-03-10"); slices.ContainsFunc(s.Lines, func(l coverage.Line) bool { return l.Modality == coverage.Calls }) {
		t.Errorf("lines of calls without a recorder: %+v", s.Lines)
	}
}
