package groupsync_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steno/functions/groupsync"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/teams"
)

// microsoft is the part of a tenant that knows teams. Its zero value has none.
type microsoft struct {
	listed   []teams.Team
	unlisted []teams.Team // there, though the listing does not say so
	owners   map[teams.PersonID][]teams.PersonID
	deleted  []teams.Deletion
	users    []teams.Deletion // deleted people
	failing  error
	refusing bool // single teams are not shown to this application
}

func (m *microsoft) Teams(context.Context) ([]teams.Team, error) { return m.listed, m.failing }

func (m *microsoft) Team(_ context.Context, id teams.PersonID) (teams.Team, error) {
	if m.refusing {
		return teams.Team{}, &msgraph.Error{Status: http.StatusForbidden}
	}
	for _, t := range slices.Concat(m.listed, m.unlisted) {
		if t.ID == id {
			return t, nil
		}
	}
	return teams.Team{}, &msgraph.Error{Status: http.StatusNotFound}
}

func (m *microsoft) Owners(_ context.Context, id teams.PersonID) ([]teams.PersonID, error) {
	return m.owners[id], nil
}

func (m *microsoft) DeletedTeams(context.Context) ([]teams.Deletion, error) { return m.deleted, nil }

func (m *microsoft) DeletedUsers(context.Context) ([]teams.Deletion, error) { return m.users, nil }

func (m *microsoft) remove(id teams.PersonID) {
	m.listed = slices.DeleteFunc(slices.Clone(m.listed), func(t teams.Team) bool { return t.ID == id })
}

func team(n int) teams.PersonID { return person(1000 + n) }

// floor is an office with four teams, of which rules record the first three.
func floor(t *testing.T) *office {
	o := newOffice(t)
	for i, name := range []string{"Trading Floor", "Desk A", "Desk B", "Canteen"} {
		o.teams.listed = append(o.teams.listed, teams.Team{ID: team(i), DisplayName: name})
	}
	o.rules = []policy.TeamRule{{Desk: "north", Team: string(team(0))}, {Desk: "south", Name: "Desk *"}}
	return o
}

func (o *office) wantTeams(want ...teams.PersonID) {
	o.t.Helper()
	slices.Sort(want)
	if got := o.open(policy.RecordedTeam); !slices.Equal(got, want) {
		o.t.Errorf("recorded teams are %v, want %v", got, want)
	}
}

func TestRulesSayWhichTeamsAreRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			rules []policy.TeamRule
			want  []teams.PersonID
		}{
			{[]policy.TeamRule{{Desk: "north", Team: string(team(0))}}, []teams.PersonID{team(0)}},
			{[]policy.TeamRule{{Desk: "north", Name: "Desk A"}}, []teams.PersonID{team(1)}},
			{[]policy.TeamRule{{Desk: "north", Name: "Desk *"}}, []teams.PersonID{team(1), team(2)}},
			{[]policy.TeamRule{{Desk: "north", OwnerGroup: string(group(2))}}, []teams.PersonID{team(3)}},
			{[]policy.TeamRule{{Desk: "north", All: true}, {Exclude: string(team(3))}}, []teams.PersonID{team(0), team(1), team(2)}},
		} {
			o := floor(t)
			o.rules, o.teams.owners = c.rules, map[teams.PersonID][]teams.PersonID{team(3): {person(20)}, team(2): {person(0)}}
			o.must(o.run())
			o.wantTeams(c.want...)
			people, err := o.People(t.Context(), c.want)
			o.must(err)
			if people[c.want[0]].DisplayName == "" {
				t.Errorf("%+v: the roster has no name of the team", c.rules)
			}
		}
	})
}

func TestTeamsThatComeAndGoLeaveCustodyEventsAndNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := floor(t)
		o.must(o.run())
		before := len(o.events())
		time.Sleep(time.Hour)
		o.teams.listed = append(o.teams.listed, teams.Team{ID: team(9), DisplayName: "Desk Z"})
		o.must(o.run())
		o.wantTeams(team(0), team(1), team(2), team(9))
		events := o.events()
		if len(events) != before+1 || events[before].Item != "team-"+string(team(9)) || events[before].Detail != "opened on desk south" {
			t.Errorf("events are %+v", events[before:])
		}
		if lines := o.logged(string(team(9))); len(lines) != 1 || !strings.Contains(lines[0], `"notice":"recorded-team"`) || strings.Contains(lines[0], "Desk Z") {
			t.Errorf("notices are %q", lines)
		}
		all := o.all()
		o.must(o.run())
		if o.all() != all || len(o.events()) != len(events) {
			t.Error("a repeated run changed something")
		}
	})
}

func TestADeletedTeamIsRecordedUpToItsDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := floor(t)
		o.must(o.run())
		time.Sleep(12 * time.Hour)
		deleted := time.Now().Add(-3 * time.Hour).UTC()
		for _, id := range []teams.PersonID{team(0), team(1), team(2)} { // all at once, and each for a reason that is known
			o.teams.remove(id)
			o.teams.deleted = append(o.teams.deleted, teams.Deletion{ID: id, At: deleted})
		}
		o.must(o.run())
		o.wantTeams()
		for _, id := range []teams.PersonID{team(0), team(1), team(2)} {
			periods, err := o.PeriodsOf(t.Context(), id)
			o.must(err)
			if len(periods) != 1 || !periods[0].To.Equal(deleted) {
				t.Errorf("periods of %s are %+v", id, periods)
			}
			facts, err := o.People(t.Context(), []teams.PersonID{id})
			o.must(err)
			if f := facts[id]; !f.Deleted.Equal(deleted) || f.DisplayName == "" {
				t.Errorf("the roster says %+v", f)
			}
		}
	})
}

func TestARuleOfAnUnknownTeamOrGroupLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := floor(t)
		o.rules = append(o.rules, policy.TeamRule{Desk: "east", OwnerGroup: "Desk heads"})
		o.entra.names[group(2)] = "Desk heads"
		o.teams.owners = map[teams.PersonID][]teams.PersonID{team(3): {person(20)}}
		o.must(o.run())
		o.wantTeams(team(0), team(1), team(2), team(3))
		time.Sleep(time.Hour)
		o.teams.remove(team(0)) // gone, and not among the deleted
		delete(o.entra.names, group(2))
		o.teams.listed = append(o.teams.listed, teams.Team{ID: team(8), DisplayName: "Desk New"})
		if err := o.run(); !errors.Is(err, groupsync.ErrUnknownTeam) {
			t.Fatalf("got %v", err)
		}
		o.wantTeams(team(0), team(1), team(2), team(3), team(8))
		if lines := o.logged(`"alarm":"unknown-team"`); len(lines) != 2 || strings.Contains(strings.Join(lines, ""), "Desk heads") {
			t.Errorf("alarms are %q", lines)
		}
	})
}

// TestALookAlikeOfATeamOrGroupGetsNobodyRecordedOrReleased: names are not unique, and
// whoever owns a team can rename it.
func TestALookAlikeOfATeamOrGroupGetsNobodyRecordedOrReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := floor(t)
		o.rules = append(o.rules, policy.TeamRule{Desk: "east", OwnerGroup: "Desk heads"})
		o.entra.names[group(2)] = "Desk heads"
		o.teams.owners = map[teams.PersonID][]teams.PersonID{team(3): {person(20)}}
		o.must(o.run())
		time.Sleep(time.Hour)
		// A second group of the name: which of them is meant nobody knows.
		o.entra.names[group(77)] = "Desk heads"
		// The recorded team is renamed, and another takes its name: the id is what counts.
		o.teams.listed[0].DisplayName = "Quiet corner"
		o.teams.listed = append(o.teams.listed, teams.Team{ID: team(5), DisplayName: "Trading Floor"})
		if err := o.run(); !errors.Is(err, groupsync.ErrUnknownTeam) {
			t.Fatalf("got %v", err)
		}
		o.wantTeams(team(0), team(1), team(2), team(3))
	})
}

func TestAListingOfTeamsThatIsEmptyOrShortKeepsThemRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		for i := range 10 {
			o.teams.listed = append(o.teams.listed, teams.Team{ID: team(i), DisplayName: "Desk"})
		}
		o.rules = []policy.TeamRule{{Desk: "north", All: true}}
		o.must(o.run())
		whole := o.teams.listed
		for _, left := range []int{0, 4} { // nothing, and 60 % less
			time.Sleep(time.Hour)
			o.teams.listed = whole[:left]
			if err := o.run(); !errors.Is(err, groupsync.ErrSuspiciousDrop) {
				t.Errorf("%d of 10 teams listed: %v", left, err)
			}
			if n := len(o.open(policy.RecordedTeam)); n != 10 {
				t.Errorf("%d of 10 teams listed: %d are recorded", left, n)
			}
		}
		// What is not listed and is there is no drop at all.
		o.teams.listed, o.teams.unlisted = nil, whole
		o.must(o.run())
		// A listing that breaks off, or teams that this application may not see, change nothing.
		o.teams.listed, o.teams.unlisted, o.teams.failing = whole[:4], nil, msgraph.ErrPartial
		if err := o.run(); !errors.Is(err, msgraph.ErrPartial) {
			t.Errorf("got %v", err)
		}
		o.teams.failing, o.teams.refusing = nil, true
		if err := o.run(); err == nil {
			t.Error("teams that are not shown pass for teams that are gone")
		}
		if n := len(o.open(policy.RecordedTeam)); n != 10 {
			t.Errorf("%d are recorded", n)
		}
	})
}

func TestTeamsAreFollowedEvenIfRoleGroupsCannotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := floor(t)
		o.entra.failing[group(1)] = errors.New("503")
		if err := o.run(); err == nil {
			t.Fatal("no error")
		}
		o.wantTeams(team(0), team(1), team(2))
	})
}

func TestTheHistoryOfNewcomersIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)))
		o := newOffice(t)
		o.must(o.run())
		if jobs, err := o.jobs.List(t.Context()); err != nil || len(jobs) != 0 {
			t.Fatalf("without the setting: %v, %v", jobs, err)
		}
		time.Sleep(time.Hour)
		o.newcomers, o.crash = 30*24*time.Hour, true
		o.entra.people[group(1)] = append(o.entra.people[group(1)], person(60), person(61))
		if err := o.run(); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		o.must(o.run())
		o.leave(group(1), 1)
		o.must(o.run())
		o.entra.people[group(1)] = append(o.entra.people[group(1)], person(0)) // who comes back is no newcomer
		time.Sleep(time.Hour)
		o.must(o.run())
		jobs, err := o.jobs.List(t.Context())
		o.must(err)
		if len(jobs) != 1 || !slices.Equal(jobs[0].Custodians, []teams.PersonID{person(60), person(61)}) || jobs[0].State != policy.LookbackQueued {
			t.Fatalf("jobs are %+v", jobs)
		}
		if got := jobs[0].To.Sub(jobs[0].From); got != o.newcomers || jobs[0].To.After(time.Now()) {
			t.Errorf("it reads from %v to %v", jobs[0].From, jobs[0].To)
		}
	})
}
