package portal_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

type lookedBack struct {
	ID, State  string
	Custodians int
	New        int
}

func (w *world) past(days int, who teams.PersonID) string {
	now := w.clock.Now().UTC()
	return fmt.Sprintf(`{"users":[%q],"from":%q,"to":%q,"reason":"asked for by the regulator"}`, who,
		now.AddDate(0, 0, -days).Format(time.RFC3339), now.Add(-time.Hour).Format(time.RFC3339))
}

func TestAComplianceOfficerStartsALookBackOnceAndCancelsIt(t *testing.T) {
	w := newWorld(t)
	body := w.past(10, rita)
	var ids []string
	for range 3 {
		rec := w.post(carla, "lookbacks", body)
		want(t, rec, http.StatusOK)
		j := decode[lookedBack](t, rec.Body)
		ids = append(ids, j.ID)
		if j.State != "queued" || j.Custodians != 1 || j.ID != ids[0] {
			t.Fatalf("%+v", j)
		}
	}
	if n := len(w.did(custody.LookedBack)); n != 1 {
		t.Errorf("%d events, want the first request's alone", n)
	}
	want(t, w.post(cora, "lookbacks/"+ids[0]+"/cancel", `{}`), http.StatusOK)
	want(t, w.post(cora, "lookbacks/"+ids[0]+"/cancel", `{}`), http.StatusUnprocessableEntity)
	j, err := w.jobs.Get(t.Context(), ids[0])
	w.must(err)
	if j.State != policy.LookbackCanceled || j.RequestedBy != carla {
		t.Errorf("%+v", j)
	}
	for _, who := range []teams.PersonID{carla, adam, aida} {
		rec := w.get(who, "lookbacks")
		want(t, rec, http.StatusOK)
		if s := rec.Body.String(); !strings.Contains(s, ids[0]) || !strings.Contains(s, `"canceled"`) || strings.Contains(s, string(rita)) {
			t.Errorf("%s is told %s", who, s)
		}
	}
	want(t, w.post(carla, "lookbacks", body), http.StatusOK) // and again
	events := w.did(custody.LookedBack)
	canceled := slices.ContainsFunc(events, func(e custody.Record) bool {
		return e.Actor == cora && strings.HasPrefix(e.Detail, "canceled after 0 of 0 windows")
	})
	if len(events) != 3 || !canceled {
		t.Errorf("events are %+v", events)
	}
}

func TestALookBackThatIsNotDoneIsRefusedWithItsReason(t *testing.T) {
	w := newWorld(t)
	for body, reason := range map[string]string{
		w.past(40, rita): "at most 31 days", w.past(0, rita): "from is not before to", w.past(10, otto): "1 of 1 users are not recorded",
		strings.Replace(w.past(10, rita), "asked for by the regulator", "no", 1): "a reason of 2 characters",
	} {
		rec := w.post(carla, "lookbacks", body)
		want(t, rec, http.StatusUnprocessableEntity)
		if !strings.Contains(rec.Body.String(), reason) {
			t.Errorf("%s, want %q", rec.Body, reason)
		}
	}
	for _, who := range []teams.PersonID{nora, adam, aida, uma, otto} {
		want(t, w.post(who, "lookbacks", w.past(10, rita)), http.StatusNotFound)
		want(t, w.post(who, "lookbacks/"+strings.Repeat("0", 32)+"/cancel", `{}`), http.StatusNotFound)
	}
	if all, err := w.jobs.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("jobs are %+v, %v", all, err)
	}
}

func TestPeopleSayHowEachCanBeCapturedAndATeamStandsAmongThem(t *testing.T) {
	w := newWorld(t)
	const floor = teams.PersonID("f100f100-0000-4000-8000-000000000001")
	at := w.clock.Now().UTC().Truncate(time.Millisecond)
	w.must(w.roster.Apply(t.Context(), policy.Change{
		At: at, Opened: []policy.Period{{Person: floor, Role: policy.RecordedTeam, Desk: "north", From: joined}},
		People: []policy.Person{{ID: floor, DisplayName: "North Floor", Enabled: true}, {ID: rita, DisplayName: "Rita", Deleted: at}},
	}))
	window := conversation.Window{Custodian: rita, From: at.Add(-3 * time.Hour), To: at.Add(-2 * time.Hour), Pass: 1}
	later := window
	later.From, later.To, later.Pass = window.To.Add(-time.Minute), at.Add(-time.Hour), 2
	for _, f := range []conversation.Window{window, later} {
		w.must(w.failures.SaveFailure(t.Context(), conversation.WindowFailed{Window: f, Status: 404, Code: "MailboxNotEnabledForRESTAPI", Since: at, At: at}))
	}
	rec := w.get(nora, "people")
	want(t, rec, http.StatusOK)
	got := decode[struct {
		People []struct {
			ID, Name, Capture string
			Team              bool
			Unread            []struct {
				From, To time.Time
				Status   int
			}
		}
	}](t, rec.Body).People
	if len(got) != 2 || got[0].Name != "North Floor" || !got[0].Team || got[0].Capture != "active" || len(got[0].Unread) != 0 {
		t.Fatalf("people are %+v", got)
	}
	if r := got[1]; r.Capture != "deleted" || r.Team || len(r.Unread) != 1 || !r.Unread[0].From.Equal(window.From) || !r.Unread[0].To.Equal(later.To) || r.Unread[0].Status != 404 {
		t.Errorf("rita is %+v", r)
	}
	if rec := w.get(saul, "people"); strings.Contains(rec.Body.String(), string(floor)) {
		t.Error("the supervisor of another desk is told of the team")
	}
}
