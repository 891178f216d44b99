package msgraph

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"steno/shared/teams"
	"steno/tests/sim"
)

// tenant is a client of a simulated tenant, whose lists have pages of a few objects.
func newTenant(t *testing.T) (*graph, *sim.Tenant) {
	tenant := sim.New(sim.Config{Seed: 3, People: 30, Messages: -1})
	return newGraph(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		q.Set("$top", "2")
		r.URL.RawQuery = q.Encode()
		tenant.Handler().ServeHTTP(w, r)
	}), tenant
}

func TestTeamsTheirOwnersAndDeletionsAreListedToTheEnd(t *testing.T) {
	g, tenant := newTenant(t)
	all, err := g.Teams(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := tenant.Teams()
	if len(all) != len(want) || len(all) < 3 {
		t.Fatalf("%d teams, want %d", len(all), len(want))
	}
	for i, team := range all {
		if string(team.ID) != want[i].ID || team.DisplayName != want[i].Name {
			t.Errorf("team %d is %+v, want %+v", i, team, want[i])
		}
		owners, err := g.Owners(t.Context(), team.ID)
		if err != nil || len(owners) != 1 {
			t.Errorf("owners are %v, %v", owners, err)
		}
	}
	gone := all[1]
	if err := tenant.DeleteTeam(string(gone.ID)); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Team(t.Context(), all[0].ID); err != nil {
		t.Error(err)
	}
	var ge *Error
	if _, err := g.Team(t.Context(), gone.ID); !errors.As(err, &ge) || ge.Status != http.StatusNotFound {
		t.Errorf("a deleted team: %v", err)
	}
	deleted, err := g.DeletedTeams(t.Context())
	if err != nil || len(deleted) != 1 || deleted[0].ID != gone.ID || time.Since(deleted[0].At).Abs() > 2*time.Second {
		t.Errorf("deleted teams are %v, %v", deleted, err)
	}
	var people []teams.PersonID
	for _, p := range tenant.People()[5:10] {
		people = append(people, teams.PersonID(p.ID))
		if err := tenant.RemoveUser(p.ID); err != nil {
			t.Fatal(err)
		}
	}
	users, err := g.DeletedUsers(t.Context())
	if err != nil || len(users) != len(people) {
		t.Errorf("deleted users are %v, %v", users, err)
	}
	page, err := g.Messages(t.Context(), teams.DeletedTeam, gone.ID, time.Now().Add(-time.Hour), time.Now(), "")
	if err != nil || len(page.Items) != 0 {
		t.Errorf("messages of a deleted team: %d, %v", len(page.Items), err)
	}
}

func TestAListingThatDoesNotEndOrLeadsAwayIsNoListing(t *testing.T) {
	for next, want := range map[string]error{"/v1.0/groups?again": ErrPartial, "https://elsewhere.example/v1.0/groups": ErrForeignLink} {
		g := new(graph)
		g = newGraph(t, func(w http.ResponseWriter, _ *http.Request) {
			link := next
			if link[0] == '/' {
				link = g.url + next
			}
			fmt.Fprintf(w, `{"value":[{"id":"aaaaaaaa-aaaa-4bbb-8ccc-aaaaaaaaaaaa","displayName":"x"}],"@odata.nextLink":%q}`, link)
		})
		if got, err := g.Teams(t.Context()); !errors.Is(err, want) || got != nil {
			t.Errorf("%s: %v, %v", next, got, err)
		}
	}
	g := newGraph(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"value":[{"id":"aaaaaaaa-aaaa-4bbb-8ccc-aaaaaaaaaaaa"}]}`)
	})
	if _, err := g.DeletedUsers(t.Context()); err == nil {
		t.Error("a deletion without a time is accepted")
	}
	if _, err := g.Owners(t.Context(), "../me"); err == nil {
		t.Error("a path is taken for a team")
	}
}
