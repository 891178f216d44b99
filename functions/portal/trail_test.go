package portal_test

import (
	"encoding/csv"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/custody"
	"steno/shared/teams"
)

type trailAnswer struct {
	Events []custody.Record
	Cursor string
}

// happened fills the trail with what three people and a function did.
func (w *world) happened() {
	w.t.Helper()
	for _, e := range []custody.Event{
		{Actor: nora, Action: custody.Read, Item: "unit-1", Reason: "=cmd|' /C calc'!A0"},
		{Actor: saul, Action: custody.Played, Item: "unit-2"},
		{Actor: adam, Action: custody.List, Item: "conversations"},
		{System: "finalize", Action: custody.Sealed, Item: "unit-1", Objects: []custody.Object{{Unit: "unit-1", Object: "0123", SHA256: "4567"}}},
		{Actor: nora, Action: custody.Denied, Item: "unit-3"},
	} {
		e.Tenant = tenant
		w.clock.Move(time.Millisecond)
		_, err := custody.Log{Trail: w.trail, Now: w.clock.Now}.Append(w.t.Context(), e)
		w.must(err)
	}
}

func (w *world) trailOf(who teams.PersonID, query string) trailAnswer {
	w.t.Helper()
	rec := w.get(who, "custody"+query)
	want(w.t, rec, http.StatusOK)
	return decode[trailAnswer](w.t, rec.Body)
}

func TestTheTrailIsShownToWhoMayAuditAndToOthersTheirOwn(t *testing.T) {
	for who, n := range map[teams.PersonID]int{aida: 5, carla: 5, nora: 2, saul: 1, adam: 1, rita: 0, otto: 0, uma: 0} {
		w := newWorld(t)
		w.happened()
		got := w.trailOf(who, "").Events
		if len(got) != n {
			t.Errorf("%s sees %d events, want %d", who, len(got), n)
		}
		for _, e := range got {
			if n < 5 && e.Actor != who {
				t.Errorf("%s sees what %s did", who, e.Actor)
			}
		}
		if got := w.trailOf(who, "?actor="+string(saul)).Events; len(got) > 0 && who != saul && n < 5 {
			t.Errorf("%s sees %d events of somebody else by asking for them", who, len(got))
		}
	}
}

func TestTheTrailIsFilteredAndPagedWithoutLossOrRepetition(t *testing.T) {
	w := newWorld(t)
	w.happened()
	to := "&to=" + url.QueryEscape(w.clock.Now().Add(time.Millisecond).Format(time.RFC3339Nano))
	for query, n := range map[string]int{
		"?": 5, "?actor=" + string(nora): 2, "?action=seal": 1, "?item=unit-1": 2, "?item=unit-1&action=read": 1, "?item=unit-9": 0,
		"?from=" + url.QueryEscape(w.clock.Now().Format(time.RFC3339Nano)): 1,
	} {
		if got := w.trailOf(aida, query+to); len(got.Events) != n || got.Cursor != "" {
			t.Errorf("%s: %d events, cursor %q, want %d", query, len(got.Events), got.Cursor, n)
		}
	}
	var ids []string
	for cursor, pages := "", 0; ; pages++ {
		got := w.trailOf(aida, "?limit=2"+to+cursor)
		for _, e := range got.Events {
			ids = append(ids, e.ID)
		}
		if got.Cursor == "" || pages > 5 {
			break
		}
		cursor = "&cursor=" + got.Cursor
	}
	if len(ids) != 5 || !slices.IsSorted(ids) || len(slices.Compact(ids)) != 5 {
		t.Errorf("pages hold %v", ids)
	}
}

func TestReadingTheTrailIsAnEvent(t *testing.T) {
	w := newWorld(t)
	w.happened()
	w.trailOf(aida, "")
	got := w.trailOf(carla, "?item=custody-trail").Events
	if len(got) != 1 || got[0].Actor != aida || got[0].Action != custody.List || got[0].Detail != "5 events" {
		t.Errorf("%+v", got)
	}
}

func TestQuestionsToTheTrailThatMakeNoSenseAreRefused(t *testing.T) {
	w := newWorld(t)
	for _, q := range []string{
		"?actor=everybody", "?limit=0", "?limit=1001", "?limit=x", "?from=yesterday", "?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z",
		"?from=2026-01-01T00:00:00Z&to=2026-03-01T00:00:00Z", "?cursor=x", "?cursor=ffffffffffffffff-ffffffffffffffff", "?person=" + string(nora), "?limit=1&limit=2",
		"?item=" + strings.Repeat("x", 65), "?action=" + strings.Repeat("x", 33),
	} {
		want(t, w.get(aida, "custody"+q), http.StatusBadRequest)
		want(t, w.get(aida, "custody.csv"+q), http.StatusBadRequest)
	}
}

func TestTheTableOfTheTrailHoldsNoFormula(t *testing.T) {
	w := newWorld(t)
	w.happened()
	rec := w.get(aida, "custody.csv?limit=3")
	want(t, rec, http.StatusOK)
	if got := rec.Header().Get("Content-Disposition"); got != `attachment; filename="custody.csv"` {
		t.Errorf("disposition %q", got)
	}
	r := csv.NewReader(rec.Body)
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	w.must(err)
	if len(rows) != 5 || rows[0][0] != "id" || rows[4][0] != "cursor" {
		t.Fatalf("%d rows: %v", len(rows), rows)
	}
	if got := rows[1][8]; got != "'=cmd|' /C calc'!A0" {
		t.Errorf("reason is %q", got)
	}
	for _, row := range rows {
		for _, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
				t.Errorf("cell %q", cell)
			}
		}
	}
}
