package policy_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
)

func held(p teams.PersonID, role policy.Role, desk string, from, to time.Duration) policy.Period {
	period := recorded(p, desk, from, to)
	period.Role = role
	return period
}

func grant(t *testing.T, person teams.PersonID, periods ...policy.Period) policy.Grant {
	t.Helper()
	var r storetest.Roster
	if err := r.Apply(t.Context(), policy.Change{At: noon, Opened: periods}); err != nil {
		t.Fatal(err)
	}
	g, err := policy.GrantFor(t.Context(), &r, person, noon)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestRolesAreThoseHeldNow(t *testing.T) {
	g := grant(t, ann,
		held(ann, policy.Auditor, "", -time.Hour, 0), held(ann, policy.Supervisor, "fx", -2*time.Hour, -time.Hour), held(ann, policy.Administrator, "", time.Hour, 0),
		held(bob, policy.ComplianceOfficer, "", -time.Hour, 0))
	if !slices.Equal(g.Roles(), []policy.Role{policy.Auditor}) || !g.Has(policy.Auditor) || g.Has(policy.Supervisor) || g.Person() != ann {
		t.Errorf("roles %v of %s", g.Roles(), g.Person())
	}
}

func TestWhoSeesWhichConversation(t *testing.T) {
	users := []policy.Period{
		recorded(bob, "fx", -10*time.Hour, -5*time.Hour), recorded(bob, "rates", -5*time.Hour, 0), recorded(eve, "fx", -10*time.Hour, 0),
	}
	supervisor := held(ann, policy.Supervisor, "fx", -time.Hour, 0)
	for _, c := range []struct {
		what           string
		periods        []policy.Period
		all, content   bool
		bobThen, eve   bool // bob while on fx, eve now
		bobNow, nobody bool
	}{
		{what: "nobody"},
		{what: "supervisor of fx", periods: []policy.Period{supervisor}, content: true, bobThen: true, eve: true},
		{what: "supervisor of rates", periods: []policy.Period{held(ann, policy.Supervisor, "rates", -time.Hour, 0)}, content: true, bobNow: true},
		{what: "supervisor of an empty desk", periods: []policy.Period{held(ann, policy.Supervisor, "empty", -time.Hour, 0)}},
		{what: "former supervisor", periods: []policy.Period{held(ann, policy.Supervisor, "fx", -9*time.Hour, -time.Hour)}},
		{what: "compliance officer", periods: []policy.Period{held(ann, policy.ComplianceOfficer, "", -time.Hour, 0)}, all: true, content: true, bobThen: true, eve: true, bobNow: true, nobody: true},
		{what: "administrator", periods: []policy.Period{held(ann, policy.Administrator, "", -time.Hour, 0)}},
		{what: "auditor", periods: []policy.Period{held(ann, policy.Auditor, "", -time.Hour, 0)}},
		{what: "recorded user", periods: []policy.Period{recorded(ann, "fx", -time.Hour, 0)}},
		{what: "administrator and compliance officer", periods: []policy.Period{
			held(ann, policy.Administrator, "", -time.Hour, 0), held(ann, policy.ComplianceOfficer, "", -time.Hour, 0)}},
	} {
		g := grant(t, ann, slices.Concat(users, c.periods)...)
		see := func(p []teams.PersonID, from, to time.Duration) bool {
			return g.MaySee(p, noon.Add(from), noon.Add(to), 0)
		}
		got := []bool{
			g.SeesAll(), g.SeesContent(), see([]teams.PersonID{bob}, -7*time.Hour, -6*time.Hour), see([]teams.PersonID{eve}, -time.Minute, 0),
			see([]teams.PersonID{bob}, -time.Minute, 0), see(nil, -time.Hour, 0),
		}
		if want := []bool{c.all, c.content, c.bobThen, c.eve, c.bobNow, c.nobody}; !slices.Equal(got, want) {
			t.Errorf("%s sees %v, want %v", c.what, got, want)
		}
	}
}

func TestScopeEndsToTheMoment(t *testing.T) {
	g := grant(t, ann, held(ann, policy.Supervisor, "fx", -time.Hour, 0), recorded(bob, "fx", -2*time.Hour, -time.Hour))
	for _, c := range []struct {
		from, to, history time.Duration
		want              bool
	}{
		{-time.Hour, -time.Minute, 0, false}, {-time.Hour - 1, -time.Minute, 0, true}, {-time.Hour - 1, -time.Hour - 1, 0, true},
		{-3 * time.Hour, -2 * time.Hour, 0, true}, {-3 * time.Hour, -2*time.Hour - 1, 0, false}, {-3 * time.Hour, -2*time.Hour - 1, time.Hour, true},
		{-4 * time.Hour, -3*time.Hour - 1, time.Hour, false},
	} {
		if got := g.MaySee([]teams.PersonID{eve, bob}, noon.Add(c.from), noon.Add(c.to), c.history); got != c.want {
			t.Errorf("from %s to %s with history %s: %t", c.from, c.to, c.history, got)
		}
	}
	if !g.MaySeePerson(bob) || g.MaySeePerson(eve) || !slices.Equal(g.People(), []teams.PersonID{bob}) {
		t.Errorf("people %v", g.People())
	}
}

func TestZeroGrantSeesNothing(t *testing.T) {
	var g policy.Grant
	if g.SeesAll() || g.SeesContent() || g.MaySeePerson(ann) || g.MaySee([]teams.PersonID{ann, ""}, noon, noon, time.Hour) || len(g.Roles())+len(g.People()) != 0 {
		t.Error("the zero grant sees something")
	}
}

type brokenRoster struct{ policy.Roster }

func (brokenRoster) PeriodsOf(context.Context, teams.PersonID) ([]policy.Period, error) {
	return nil, errors.New("down")
}

func TestRosterThatIsDownGrantsNothing(t *testing.T) {
	if g, err := policy.GrantFor(t.Context(), brokenRoster{}, ann, noon); err == nil || g.SeesContent() {
		t.Errorf("grant %v, %v", g, err)
	}
}

func TestRoleGroupsAreReadStrictlyAndFaultsReportedAtOnce(t *testing.T) {
	const id = "cccccccc-aaaa-4bbb-8ccc-cccccccccccc"
	groups, err := policy.ParseRoleGroups(`[{"role":"recordedUser","group":"` + strings.ToUpper(id) + `","desk":"fx"},{"role":"auditor","group":"Auditors"}]`)
	if err != nil || len(groups) != 2 || groups[0].Key() != "recordedUser:fx" || groups[1].Key() != "auditor" {
		t.Fatalf("groups %v, %v", groups, err)
	}
	if g, ok := groups[0].ByObjectID(); !ok || g != id {
		t.Errorf("group %s by id %t", g, ok)
	}
	if _, ok := groups[1].ByObjectID(); ok {
		t.Error("a display name passes as an object id")
	}
	_, err = policy.ParseRoleGroups(`[{"role":"king","group":"g"},{"role":"supervisor","group":""},{"role":"auditor","group":"a","desk":"fx"},
		{"role":"supervisor","group":"s","desk":"F_X"},{"role":"supervisor","group":"` + id + `","desk":"a"},{"role":"supervisor","group":"` + strings.ToUpper(id) + `","desk":"a"}]`)
	for _, part := range []string{`group 1: unknown role "king"`, "group 2: group must", `group 2: desk ""`, `group 3: desk "fx"`, `group 4: desk "F_X"`, "group 6: listed twice", "no group of recorded users"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("faults\n%v\ndo not name %s", err, part)
		}
	}
	const good = `[{"role":"recordedUser","group":"g","desk":"fx"}]`
	for what, bad := range map[string]string{
		"nothing": "", "an object": "{}", "unknown name": `[{"role":"recordedUser","group":"g","desk":"fx","x":1}]`, "something behind": good + "x",
		"two arrays": good + good, "empty": "[]", "null": "null",
	} {
		if _, err := policy.ParseRoleGroups(bad); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	if _, err := policy.ParseRoleGroups(good + "\n"); err != nil {
		t.Errorf("a line end: %v", err)
	}
}
