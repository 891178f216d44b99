package portal_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/functions/portal"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

// post sends a change as the pages do.
func (w *world) post(who teams.PersonID, path, body string) *httptest.ResponseRecorder {
	w.t.Helper()
	h := http.Header{"Content-Type": {"application/json"}, "Sec-Fetch-Site": {"same-origin"}}
	if who != "" {
		h.Set("Authorization", "Bearer "+w.token(who))
	}
	r := httptest.NewRequestWithContext(w.t.Context(), http.MethodPost, "https://localhost/steno/v1/"+path, strings.NewReader(body))
	r.Header = h
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	return rec
}

// place places a hold on Rita as Carla.
func (w *world) place() policy.Matter {
	w.t.Helper()
	rec := w.post(carla, "matters", fmt.Sprintf(`{"title":"Inquiry 7","custodians":[%q]}`, rita))
	want(w.t, rec, http.StatusOK)
	return decode[policy.Matter](w.t, rec.Body)
}

type request struct {
	Request, Action, State, Requester, Approver, Outcome string
	IDs                                                  []string
}

// releasing asks as Carla for the release of a hold.
func (w *world) releasing(matter string) request {
	w.t.Helper()
	rec := w.post(carla, "matters/"+matter+"/release", `{"reason":"the inquiry is closed"}`)
	want(w.t, rec, http.StatusOK)
	return decode[request](w.t, rec.Body)
}

// did lists what the trail has of one action.
func (w *world) did(action custody.Action) []custody.Record {
	w.t.Helper()
	all, err := w.trail.Range(w.t.Context(), time.Time{}, w.clock.Now().Add(time.Hour), 10_000)
	w.must(err)
	return slices.DeleteFunc(all, func(r custody.Record) bool { return r.Action != action })
}

func TestAHoldIsPlacedByOnePersonAndReleasedByTwo(t *testing.T) {
	w := newWorld(t)
	m := w.place()
	if m.State != policy.MatterPlaced || m.PlacedBy != carla {
		t.Fatalf("%+v", m)
	}
	q := w.releasing(m.ID)
	if q.State != "pending" || q.Requester != string(carla) || !slices.Equal(q.IDs, []string{m.ID}) {
		t.Fatalf("%+v", q)
	}
	agree := fmt.Sprintf(`{"request":%q}`, q.Request)
	// T43: the same person, another digest, nobody of the role.
	want(t, w.post(carla, "approvals/"+q.Request+"/approve", agree), http.StatusUnprocessableEntity)
	want(t, w.post(cora, "approvals/"+q.Request+"/approve", fmt.Sprintf(`{"request":%q}`, strings.Repeat("0", 64))), http.StatusUnprocessableEntity)
	for _, who := range []teams.PersonID{nora, adam, aida, uma, otto, rita} {
		want(t, w.post(who, "approvals/"+q.Request+"/approve", agree), http.StatusNotFound)
	}
	if got, err := w.matters.Get(t.Context(), m.ID); err != nil || got.State != policy.MatterReleasing {
		t.Fatalf("after refused approvals the matter is %s, %v", got.State, err)
	}
	if n := len(w.did(custody.Denied)); n != 8 {
		t.Errorf("%d refusals are in the trail, want 8", n)
	}
	rec := w.post(cora, "approvals/"+q.Request+"/approve", agree)
	want(t, rec, http.StatusOK)
	if got := decode[request](t, rec.Body); got.State != "executed" || got.Approver != string(cora) {
		t.Fatalf("%+v", got)
	}
	if got, err := w.matters.Get(t.Context(), m.ID); err != nil || got.State != policy.MatterReleased {
		t.Fatalf("the matter is %s, %v", got.State, err)
	}
	// An approval is used once.
	want(t, w.post(cora, "approvals/"+q.Request+"/approve", agree), http.StatusUnprocessableEntity)
	for action, n := range map[custody.Action]int{custody.Hold: 1, custody.ReleaseRequest: 1, custody.Approved: 1, custody.Release: 1} {
		if got := w.did(action); len(got) != n {
			t.Errorf("%d events %q, want %d", len(got), action, n)
		}
	}
}

func TestAnApprovalIsRefusedWhenItCameTooLateOrTheRequesterLostHerRole(t *testing.T) {
	w := newWorld(t)
	q := w.releasing(w.place().ID)
	w.clock.Move(policy.MaxRequestLife + time.Second)
	rec := w.post(cora, "approvals/"+q.Request+"/approve", fmt.Sprintf(`{"request":%q}`, q.Request))
	want(t, rec, http.StatusUnprocessableEntity)
	if !strings.Contains(rec.Body.String(), "ran out") {
		t.Errorf("refused as %s", rec.Body)
	}

	w = newWorld(t)
	q = w.releasing(w.place().ID)
	periods, err := w.roster.PeriodsOf(t.Context(), carla)
	w.must(err)
	w.clock.Move(time.Hour)
	for i := range periods {
		periods[i].To = w.clock.Now().Add(-time.Minute)
	}
	w.must(w.roster.Apply(t.Context(), policy.Change{At: w.clock.Now(), Closed: periods}))
	rec = w.post(cora, "approvals/"+q.Request+"/approve", fmt.Sprintf(`{"request":%q}`, q.Request))
	want(t, rec, http.StatusUnprocessableEntity)
	if !strings.Contains(rec.Body.String(), "may not ask for it any more") {
		t.Errorf("refused as %s", rec.Body)
	}
	if len(w.did(custody.Release)) != 0 {
		t.Error("a release without two who may")
	}
}

func TestARejectedRequestCannotBeApprovedAndTheHoldHoldsOn(t *testing.T) {
	w := newWorld(t)
	m := w.place()
	q := w.releasing(m.ID)
	rec := w.post(cora, "approvals/"+q.Request+"/reject", `{}`)
	want(t, rec, http.StatusOK)
	if got := decode[request](t, rec.Body); got.State != "refused" {
		t.Fatalf("%+v", got)
	}
	want(t, w.post(cora, "approvals/"+q.Request+"/approve", fmt.Sprintf(`{"request":%q}`, q.Request)), http.StatusUnprocessableEntity)
	stored, err := w.matters.Get(t.Context(), m.ID)
	w.must(err)
	if !stored.Protects(w.clock.Now().AddDate(50, 0, 0), time.Hour) {
		t.Error("the hold does not hold any more")
	}
	w.clock.Move(time.Second)
	if again := w.releasing(m.ID); again.Request == q.Request {
		t.Error("the same request was made again")
	}
}

// TestWhatOnlyTheServerSetsIsRefusedInABody is T07.
func TestWhatOnlyTheServerSetsIsRefusedInABody(t *testing.T) {
	w := newWorld(t)
	m := w.place()
	q := w.releasing(m.ID)
	w.journal.take()
	good := fmt.Sprintf(`"custodians":[%q]`, rita)
	for what, c := range map[string]struct{ path, body string }{
		"who placed it":     {"matters", `{"title":"x",` + good + `,"placedBy":"` + string(cora) + `"}`},
		"a state":           {"matters", `{"title":"x",` + good + `,"state":"lifted"}`},
		"an id":             {"matters", `{"title":"x",` + good + `,"id":"00"}`},
		"another case":      {"matters", `{"Title":"x",` + good + `}`},
		"both cases":        {"matters", `{"title":"x","TITLE":"y",` + good + `}`},
		"a repeated member": {"matters", `{"title":"x","title":"y",` + good + `}`},
		"an escaped repeat": {"matters", `{"title":"x","t\u0069tle":"y",` + good + `}`},
		"two objects":       {"matters", `{"title":"x",` + good + `}{}`},
		"no JSON":           {"matters", `{"title":"x",`},
		"an array":          {"matters", `[]`},
		"nothing":           {"matters", ``},
		"a number for text": {"matters", `{"title":7,` + good + `}`},
		"who approved it":   {"approvals/" + q.Request + "/approve", `{"request":"` + q.Request + `","approvedBy":"` + string(cora) + `"}`},
		"a role":            {"approvals/" + q.Request + "/approve", `{"request":"` + q.Request + `","role":"complianceOfficer"}`},
		"a reason too much": {"approvals/" + q.Request + "/reject", `{"reason":"because"}`},
	} {
		who := carla
		if strings.HasPrefix(c.path, "approvals") {
			who = cora
		}
		if rec := w.post(who, c.path, c.body); rec.Code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", what, rec.Code, rec.Body)
		}
		w.clock.Move(time.Second)
	}
	want(t, w.post(carla, "matters", `{"title":"`+strings.Repeat("x", 64<<10)+`"}`), http.StatusRequestEntityTooLarge)
	if lines := w.journal.take(); len(lines) != 0 {
		t.Errorf("a refused body left events: %v", lines)
	}
}

func TestAHoldOnNothingAndOtherNonsenseIsRefusedWithAllReasons(t *testing.T) {
	w := newWorld(t)
	for body, reason := range map[string]string{
		`{"title":"x"}`: "a hold on nothing",
		`{"title":"","custodians":["` + string(rita) + `"]}`: "a title of 0 characters",
		`{"title":"x","custodians":["rita"]}`:                "no lower-case object id",
		`{"title":"x","conversations":["../../etc"]}`:        "a conversation id",
		`{"title":"x","custodians":["` + string(rita) + `"],"from":"2026-03-02T00:00:00Z","to":"2026-03-01T00:00:00Z"}`: "ends before it begins",
	} {
		rec := w.post(carla, "matters", body)
		want(t, rec, http.StatusUnprocessableEntity)
		if !strings.Contains(rec.Body.String(), reason) {
			t.Errorf("%s: %s", body, rec.Body)
		}
	}
	both := w.post(carla, "matters", `{"title":""}`)
	if b := both.Body.String(); !strings.Contains(b, "a hold on nothing") || !strings.Contains(b, "a title of 0") {
		t.Errorf("only one of two faults is told: %s", b)
	}
	m := w.place()
	for _, reason := range []string{"", "short", strings.Repeat("x", 501), "ten letters\n"} {
		rec := w.post(carla, "matters/"+m.ID+"/release", fmt.Sprintf(`{"reason":%q}`, reason))
		want(t, rec, http.StatusUnprocessableEntity)
	}
	want(t, w.post(carla, "matters/"+strings.Repeat("0", 32)+"/release", `{"reason":"the inquiry is closed"}`), http.StatusNotFound)
	want(t, w.post(carla, "matters/..%2f/release", `{"reason":"the inquiry is closed"}`), http.StatusNotFound)
}

// TestNothingChangesWhenTheTrailIsAway is T42 for changes.
func TestNothingChangesWhenTheTrailIsAway(t *testing.T) {
	w := newWorld(t)
	m := w.place()
	q := w.releasing(m.ID)
	w.trail.fail = fmt.Errorf("the trail is away")
	for _, c := range []struct {
		who        teams.PersonID
		path, body string
	}{
		{carla, "matters", fmt.Sprintf(`{"title":"x","custodians":[%q]}`, sven)},
		{carla, "matters/" + m.ID + "/release", `{"reason":"the inquiry is closed"}`},
		{cora, "approvals/" + q.Request + "/approve", fmt.Sprintf(`{"request":%q}`, q.Request)},
		{cora, "approvals/" + q.Request + "/reject", `{}`},
		{nora, "matters", `{}`},
	} {
		want(t, w.post(c.who, c.path, c.body), http.StatusServiceUnavailable)
	}
	all, err := w.matters.List(t.Context())
	w.must(err)
	open, err := w.requests.Open(t.Context())
	w.must(err)
	if len(all) != 1 || all[0].State != policy.MatterReleasing || len(open) != 1 || open[0].State != policy.ProposalPending {
		t.Errorf("matters %+v, requests %+v", all, open)
	}
}

// TestAChangeIsOpenToTheRolesThatSaySoAndToNobodyElse goes over every change and role.
func TestAChangeIsOpenToTheRolesThatSaySoAndToNobodyElse(t *testing.T) {
	doc := readDocument(t)
	var got strings.Builder
	for _, pattern := range portal.Changes() {
		for _, role := range roles {
			w := newWorld(t)
			m := w.place()
			q := request{Request: strings.Repeat("0", 64)}
			if strings.Contains(pattern, "{request}") {
				q = w.releasing(m.ID)
			}
			job := policy.Lookback{ID: strings.Repeat("1", 32), State: policy.LookbackQueued}
			if strings.Contains(pattern, "{lookback}") {
				w.must(w.jobs.Insert(t.Context(), job))
			}
			path := strings.NewReplacer("{id}", idOf(northThread), "{lookback}", job.ID, "{matter}", m.ID, "{request}", q.Request).Replace(pattern)
			body, ok := map[string]string{
				"matters":                     fmt.Sprintf(`{"title":"x","custodians":[%q]}`, rita),
				"matters/{matter}/release":    `{"reason":"the inquiry is closed"}`,
				"approvals/{request}/approve": fmt.Sprintf(`{"request":%q}`, q.Request),
				"approvals/{request}/reject":  `{}`,
				"exports":                     `{"case":"7","reason":"asked for by the regulator","conversations":` + conversationIDs(1) + `}`,
				"erasures":                    `{"conversations":` + conversationIDs(1) + `,"ground":"Art. 17(1)(b)","reason":"she withdrew her consent"}`,
				"lookbacks":                   w.past(10, rita),
				"lookbacks/{lookback}/cancel": `{}`,
				"policies/preview":            `{"policies":[{"name":"north","desks":["north"],"keep":"P8Y"}]}`,
				"conversations/{id}/events":   `{"event":"contract-ended","at":"2026-03-09T10:00:00Z"}`,
			}[pattern]
			if !ok {
				t.Fatalf("%s: a change that this test has no body for", pattern)
			}
			rec := w.post(role.person, path, body)
			checkAnswerTo(t, doc, "post", "/"+pattern, rec)
			fmt.Fprintf(&got, "%-40s %-38s %d\n", pattern, role.name, rec.Code)
		}
	}
	golden(t, "changes.golden", got.String())
}
