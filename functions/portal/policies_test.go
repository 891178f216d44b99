package portal_test

import (
	"net/http"
	"strings"
	"testing"

	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

func TestAPreviewTellsWhatOtherPoliciesWouldDoAndChangesNothing(t *testing.T) {
	w := newWorld(t)
	preview := func(policies string) map[string]policy.PreviewRow {
		t.Helper()
		rec := w.post(adam, "policies/preview", `{"policies":`+policies+`}`)
		want(t, rec, http.StatusOK)
		out := map[string]policy.PreviewRow{}
		for _, r := range decode[struct{ Rows []policy.PreviewRow }](t, rec.Body).Rows {
			out[r.Policy] = r
		}
		if strings.Contains(rec.Body.String(), string(rita)) || strings.Contains(rec.Body.String(), idOf(northThread)) {
			t.Error("a preview tells more than counts")
		}
		return out
	}
	// North keeps seven years, south the default six.
	got := preview(`[{"name":"north","desks":["north"],"keep":"P8Y"}]`)
	if r := got["north"]; r.Conversations != 1 || r.Extended != 1 {
		t.Errorf("a longer term: %+v", got)
	}
	if r := got["default"]; r.Conversations != 1 || r.Unchanged != 1 {
		t.Errorf("another desk: %+v", got)
	}
	if r := preview(`[{"name":"north","desks":["north"],"keep":"P1D"}]`)["north"]; r.Kept != 1 || r.Due != 0 {
		t.Errorf("a shorter term: %+v; what was promised stays", r)
	}
	for policies, reason := range map[string]string{
		`[{"name":"a","keep":"P0D"}]`:                           "a",
		`[{"name":"a","keep":"P1000Y"}]`:                        "100",
		`[{"name":"a","keep":"P1Y"},{"name":"b","keep":"P2Y"}]`: "b",
		`[{"name":"a","modalities":["telex"],"keep":"P1Y"}]`:    "telex",
		`[{"name":"a","keep":"P1Y","Keep":"P2Y"}]`:              "Keep",
		`{"name":"a"}`: "array",
	} {
		rec := w.post(adam, "policies/preview", `{"policies":`+policies+`}`)
		want(t, rec, http.StatusUnprocessableEntity)
		if !strings.Contains(rec.Body.String(), reason) {
			t.Errorf("%s: %s", policies, rec.Body)
		}
	}
}

func TestPoliciesInForceAreShownToWhoSetsAndWhoAuditsThem(t *testing.T) {
	w := newWorld(t)
	for who, status := range map[teams.PersonID]int{adam: 200, carla: 200, aida: 200, nora: 404, otto: 404, uma: 404} {
		rec := w.get(who, "policies")
		want(t, rec, status)
		if status == http.StatusOK && (!strings.Contains(rec.Body.String(), `"keep":"P7Y"`) || !strings.Contains(rec.Body.String(), `"name":"default"`)) {
			t.Errorf("%s", rec.Body)
		}
	}
}

func TestAnEventThatAPolicyWaitsForIsRecordedOnRecord(t *testing.T) {
	w := newWorld(t)
	path := "conversations/" + idOf(northThread) + "/events"
	want(t, w.post(carla, path, `{"event":"contract-ended","at":"2026-03-09T10:00:00Z"}`), http.StatusOK)
	events, err := w.expiries.Events(t.Context(), idOf(northThread))
	w.must(err)
	if len(events) != 1 || events["contract-ended"].IsZero() || len(w.did(custody.Retain)) != 1 {
		t.Errorf("%v, %d on record", events, len(w.did(custody.Retain)))
	}
	for _, bad := range []string{`{"event":"contract-ended","at":"2027-03-09T10:00:00Z"}`, `{"event":"Contract","at":"2026-03-09T10:00:00Z"}`, `{"event":"x"}`} {
		want(t, w.post(carla, path, bad), http.StatusBadRequest)
	}
	want(t, w.post(carla, "conversations/"+idOf(nobodys)+"/events", `{"event":"contract-ended","at":"2026-03-09T10:00:00Z"}`), http.StatusNotFound)
}
