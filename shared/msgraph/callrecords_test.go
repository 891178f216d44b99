package msgraph

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/teams"
	"steno/tests/sim"
)

func TestCallRecordsAndSessionsOfATenantAreReadToTheirEnd(t *testing.T) {
	now := from
	tenant := sim.New(sim.Config{Seed: 3, Messages: -1, Now: func() time.Time { return now }})
	g := newGraph(t, tenant.Handler().ServeHTTP)
	people := tenant.UsersIn(sim.RecordedEquities)
	type truth struct {
		from, to time.Time
		people   []sim.PersonID
		thread   sim.ThreadID
	}
	var want []truth
	for n := range 8 { // three pages
		parties := []sim.Party{{Person: people[0]}, {Person: people[1]}, {Phone: "+4930123"}, {Guest: "Visitor"}}
		if n%2 == 1 {
			parties = parties[:2]
		}
		c, err := tenant.Calls().Place(sim.CallPlan{Parties: parties})
		if err != nil {
			t.Fatal(err)
		}
		began := now
		now = now.Add(10 * time.Minute)
		c.End()
		want = append(want, truth{began, now, people[:2], c.Thread()})
		now = now.Add(time.Minute)
	}
	records, err := g.CallRecords(t.Context(), from, now)
	if err != nil || len(records) != len(want) {
		t.Fatalf("%d records, %v; want %d", len(records), err, len(want))
	}
	for i, r := range records {
		w := want[i]
		if !r.Start.Equal(w.from) || !r.End.Equal(w.to) || r.Thread != teams.ThreadID(w.thread) {
			t.Errorf("record %d: %s to %s in %q, want %+v", i, r.Start, r.End, r.Thread, w)
		}
		sessions, err := g.Sessions(t.Context(), r.ID)
		if err != nil {
			t.Fatal(err)
		}
		var in []string
		for _, s := range sessions {
			if !s.Start.Equal(w.from) || !s.End.Equal(w.to) || s.Failed {
				t.Errorf("session %+v", s)
			}
			for _, p := range s.People {
				in = append(in, string(p))
			}
		}
		slices.Sort(in)
		if expected := []string{string(w.people[0]), string(w.people[1])}; !slices.Equal(in, slices.Sorted(slices.Values(expected))) {
			t.Errorf("record %d has %v, want %v", i, in, expected)
		}
	}
	if some, err := g.CallRecords(t.Context(), from.Add(time.Minute), now); err != nil || len(some) != len(want)-1 {
		t.Errorf("from a minute later on there are %d records, %v", len(some), err)
	}
}

func TestAnAnswerThatIsNoListOfCallRecordsIsRefused(t *testing.T) {
	const good = `{"value":[{"id":"c0000000-0000-4000-8000-000000000001","version":1,"startDateTime":"2026-03-14T09:00:00Z","endDateTime":"2026-03-14T09:01:00Z"}]}`
	for name, body := range map[string]string{
		"an id that is a path":        strings.Replace(good, "c0000000-0000-4000-8000-000000000001", "../users", 1),
		"an end before the beginning": strings.Replace(good, "T09:01", "T08:59", 1),
		"a time that is none":         strings.Replace(good, "2026-03-14T09:00:00Z", "yesterday", 1),
		"no list":                     `{"records":[]}`,
		"a circle":                    strings.Replace(good, `{"value"`, `{"@odata.nextLink":"NEXT","value"`, 1),
		"another host":                strings.Replace(good, `{"value"`, `{"@odata.nextLink":"https://graph.microsoft.com.evil.example/v1.0/x","value"`, 1),
	} {
		var g *graph
		g = newGraph(t, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, strings.ReplaceAll(body, "NEXT", g.url+"/v1.0/communications/callRecords?$skip=1"))
		})
		if _, err := g.CallRecords(t.Context(), from, to); err == nil {
			t.Errorf("%s is taken for call records", name)
		}
	}
	g := newGraph(t, func(http.ResponseWriter, *http.Request) { t.Error("Graph was asked") })
	if _, err := g.Sessions(t.Context(), "../../users"); !errors.Is(err, teams.ErrMalformed) {
		t.Errorf("a record id that is a path: %v", err)
	}
}

func TestTheThreadOfAMeetingIsReadFromItsJoinAddressAlone(t *testing.T) {
	for join, want := range map[string]teams.ThreadID{
		"https://teams.microsoft.com/l/meetup-join/19%3ameeting_ab%40thread.v2/0?context=%7b%7d": "19:meeting_ab@thread.v2",
		"https://teams.microsoft.com/l/meetup-join/19:meeting_ab@thread.v2/0":                    "19:meeting_ab@thread.v2",
		"https://teams.microsoft.com/meet/123456":                                                "",
		"https://teams.microsoft.com/l/meetup-join/..%2f..%2fx/0":                                "",
		"": "", "%": "",
	} {
		if got := threadOf(join); got != want {
			t.Errorf("%s: %q, want %q", join, got, want)
		}
	}
}

func TestAMailGoesToGraphAndNowhereElse(t *testing.T) {
	var path string
	g := newGraph(t, func(w http.ResponseWriter, r *http.Request) {
		path = r.Method + " " + r.URL.Path
		w.WriteHeader(http.StatusAccepted)
	})
	if err := g.SendMail(t.Context(), person, []string{"desk@contoso.example"}, "Subject", "Text"); err != nil || path != "POST /v1.0/users/"+string(person)+"/sendMail" {
		t.Errorf("%s: %v", path, err)
	}
	if err := g.SendMail(t.Context(), "../groups", nil, "", ""); !errors.Is(err, teams.ErrMalformed) {
		t.Errorf("a mailbox that is a path: %v", err)
	}
	refused := newGraph(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"error":{"code":"ErrorAccessDenied","message":"secret"}}`)
	})
	if err := refused.SendMail(t.Context(), person, nil, "", ""); err == nil || !strings.Contains(err.Error(), "403 ErrorAccessDenied") || strings.Contains(err.Error(), "secret") {
		t.Errorf("a refusal: %v", err)
	}
}
