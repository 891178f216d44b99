package groupsync_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steno/functions/groupsync"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const tenant = teams.TenantID("11111111-1111-4111-8111-111111111111")

// person and group make ids that can be told apart.
func person(n int) teams.PersonID {
	return teams.PersonID(fmt.Sprintf("a0000000-0000-4000-8000-%012d", n))
}

func group(n int) teams.GroupID {
	return teams.GroupID(fmt.Sprintf("b0000000-0000-4000-8000-%012d", n))
}

// entra is a directory of groups that hold people and groups, as Entra ID has it:
// Members lists people transitively and each once, and display names may be shared.
type entra struct {
	names   map[teams.GroupID]string
	people  map[teams.GroupID][]teams.PersonID
	nested  map[teams.GroupID][]teams.GroupID
	plans   map[teams.PersonID][]string
	locked  map[teams.PersonID]bool // accounts that are disabled
	guests  map[teams.PersonID]bool
	failing map[teams.GroupID]error
}

func newEntra() *entra {
	return &entra{
		names: map[teams.GroupID]string{}, people: map[teams.GroupID][]teams.PersonID{}, nested: map[teams.GroupID][]teams.GroupID{},
		plans: map[teams.PersonID][]string{}, failing: map[teams.GroupID]error{},
		locked: map[teams.PersonID]bool{}, guests: map[teams.PersonID]bool{},
	}
}

var errNoGroup = errors.New("no group of that name, or several")

func (e *entra) FindGroup(_ context.Context, name string) (teams.GroupID, error) {
	var found []teams.GroupID
	for id, n := range e.names {
		if n == name {
			found = append(found, id)
		}
	}
	if len(found) != 1 {
		return "", errNoGroup
	}
	return found[0], nil
}

func (e *entra) Members(_ context.Context, g teams.GroupID) ([]teams.User, error) {
	if err := e.failing[g]; err != nil {
		return nil, err
	}
	seen := map[teams.GroupID]bool{}
	found := map[teams.PersonID]bool{}
	var walk func(teams.GroupID)
	walk = func(g teams.GroupID) {
		if seen[g] {
			return
		}
		seen[g] = true
		for _, p := range e.people[g] {
			found[p] = true
		}
		for _, n := range e.nested[g] {
			walk(n)
		}
	}
	walk(g)
	var out []teams.User
	for p := range found {
		out = append(out, teams.User{
			ID: p, DisplayName: "Name of " + string(p), Address: string(p) + "@contoso.example", Enabled: !e.locked[p], Guest: e.guests[p], ServicePlans: e.plans[p],
		})
	}
	return out, nil
}

// office is a sync over stores in memory, and the roster that it keeps.
type office struct {
	storetest.Roster
	t     *testing.T
	entra *entra
	teams microsoft
	rules []policy.TeamRule
	jobs  storetest.Lookbacks
	// newcomers is how far back their history is read.
	newcomers time.Duration
	trail     storetest.Trail
	log       bytes.Buffer
	groups    []policy.RoleGroup
	drop      float64
	// crash ends a run between the custody event and the roster, once.
	crash bool
}

var errCrash = errors.New("the process ended")

// Apply is the roster's, unless the process ends before it.
func (o *office) Apply(ctx context.Context, c policy.Change) error {
	if o.crash {
		o.crash = false
		return errCrash
	}
	return o.Roster.Apply(ctx, c)
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{t: t, entra: newEntra(), groups: []policy.RoleGroup{
		{Role: policy.RecordedUser, Group: string(group(1)), Desk: "north"},
		{Role: policy.Supervisor, Group: string(group(2)), Desk: "north"},
		{Role: policy.ComplianceOfficer, Group: string(group(3))},
		{Role: policy.Administrator, Group: string(group(4))},
	}}
	for i := range 10 {
		o.entra.people[group(1)] = append(o.entra.people[group(1)], person(i))
	}
	o.entra.people[group(2)] = []teams.PersonID{person(20)}
	o.entra.people[group(3)] = []teams.PersonID{person(30)}
	o.entra.people[group(4)] = []teams.PersonID{person(40)}
	return o
}

func (o *office) run() error {
	s := groupsync.New(groupsync.Config{Tenant: tenant, Groups: o.groups, MaxDrop: o.drop, Teams: o.rules, NoGroup: errNoGroup, Newcomers: o.newcomers}, o.entra, &o.teams, o, &o.jobs, custody.Log{Trail: &o.trail},
		slog.New(slog.NewJSONHandler(&o.log, nil)))
	return s.Run(o.t.Context())
}

func (o *office) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

// open lists the people who hold a role now.
func (o *office) open(role policy.Role) []teams.PersonID {
	o.t.Helper()
	periods, err := o.Periods(o.t.Context(), role)
	o.must(err)
	var out []teams.PersonID
	for _, p := range periods {
		if p.Open() {
			out = append(out, p.Person)
		}
	}
	slices.Sort(out)
	return out
}

// all lists every period there is, for comparing.
func (o *office) all() string {
	o.t.Helper()
	var b strings.Builder
	for _, role := range policy.Roles {
		periods, err := o.Periods(o.t.Context(), role)
		o.must(err)
		for _, p := range periods {
			fmt.Fprintln(&b, p.Role, p.Desk, p.Person, p.From.UnixMilli(), p.To.UnixMilli())
		}
	}
	return b.String()
}

func (o *office) events() []custody.Record {
	o.t.Helper()
	records, err := o.trail.Range(o.t.Context(), time.Time{}, time.Now().Add(time.Hour), 1000)
	o.must(err)
	return records
}

// logged lists the lines that hold the word.
func (o *office) logged(word string) []string {
	var out []string
	for line := range strings.Lines(o.log.String()) {
		if strings.Contains(line, word) {
			out = append(out, line)
		}
	}
	return out
}

func TestNestedGroupsCountEachPersonOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.entra.nested[group(1)] = []teams.GroupID{group(10), group(11)}
		o.entra.nested[group(10)] = []teams.GroupID{group(11), group(1)} // a circle
		o.entra.people[group(10)] = []teams.PersonID{person(3), person(50)}
		o.entra.people[group(11)] = []teams.PersonID{person(50), person(51)}
		o.must(o.run())
		got := o.open(policy.RecordedUser)
		if len(got) != 12 || !slices.Contains(got, person(50)) || !slices.Contains(got, person(51)) {
			t.Errorf("recorded are %v", got)
		}
		people, err := o.People(t.Context(), got)
		o.must(err)
		if len(people) != 12 || people[person(51)].DisplayName == "" {
			t.Errorf("facts of %d people, want 12", len(people))
		}
	})
}

func TestSomebodyOnTwoDesksHasAPeriodOnEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.groups = append(o.groups, policy.RoleGroup{Role: policy.RecordedUser, Group: string(group(5)), Desk: "south"})
		o.entra.people[group(5)] = []teams.PersonID{person(0)}
		o.must(o.run())
		periods, err := o.PeriodsOf(t.Context(), person(0))
		o.must(err)
		if len(periods) != 2 || periods[0].Desk == periods[1].Desk {
			t.Errorf("got %+v", periods)
		}
	})
}

func TestGroupsAreFoundByNameIfItIsTheOnlyOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.groups[0].Group = "Recorded people"
		if err := o.run(); !errors.Is(err, errNoGroup) || !strings.Contains(err.Error(), "recordedUser:north") {
			t.Fatalf("a group of no such name: %v", err)
		}
		o.entra.names[group(1)] = "Recorded people"
		o.must(o.run())
		if n := len(o.open(policy.RecordedUser)); n != 10 {
			t.Errorf("%d are recorded, want 10", n)
		}
		before := o.all()
		o.entra.names[group(9)] = "Recorded people" // somebody makes a second one
		if err := o.run(); !errors.Is(err, errNoGroup) {
			t.Fatalf("two groups of that name: %v", err)
		}
		if o.all() != before {
			t.Error("a name that means two groups changed the roster")
		}
	})
}

func TestUserRemovedAtNoonStaysRecordedUntilNoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		hired := time.Now().UTC()
		o.must(o.run())
		time.Sleep(12 * time.Hour)
		noon := time.Now().UTC()
		o.leave(group(1), 1)
		o.entra.people[group(1)] = append(o.entra.people[group(1)], person(60))
		o.must(o.run())
		for who, want := range map[teams.PersonID]policy.Period{
			person(0):  {From: hired, To: noon},
			person(1):  {From: hired},
			person(60): {From: noon},
		} {
			got, err := o.PeriodsOf(t.Context(), who)
			o.must(err)
			if len(got) != 1 || !got[0].From.Equal(want.From) || got[0].Open() != want.Open() || !want.Open() && !got[0].To.Equal(want.To) {
				t.Errorf("%s: %+v, want %+v", who, got, want)
			}
		}
		gone, err := o.PeriodsOf(t.Context(), person(0))
		o.must(err)
		if !gone[0].Covers(noon.Add(-time.Millisecond)) || gone[0].Covers(noon) {
			t.Error("she is not covered up to noon and no longer")
		}
		time.Sleep(12 * time.Hour) // and comes back
		o.entra.people[group(1)] = append(o.entra.people[group(1)], person(0))
		o.must(o.run())
		again, err := o.PeriodsOf(t.Context(), person(0))
		o.must(err)
		if len(again) != 2 || again[0].Open() == again[1].Open() {
			t.Errorf("after coming back: %+v", again)
		}
	})
}

func TestDirectoryThatAnswersInPartChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.must(o.run())
		before, events := o.all(), len(o.events())
		o.leave(group(1), 1)
		o.entra.people[group(2)] = append(o.entra.people[group(2)], person(70))
		for _, g := range []int{1, 2, 3, 4} {
			down := errors.New("page 3 of 4: 503")
			o.entra.failing = map[teams.GroupID]error{group(g): down}
			if err := o.run(); !errors.Is(err, down) {
				t.Fatalf("group %d: %v", g, err)
			}
			if o.all() != before || len(o.events()) != events {
				t.Errorf("group %d: a reading that broke off changed the roster", g)
			}
		}
		o.entra.failing = nil
		o.must(o.run())
		if len(o.open(policy.RecordedUser)) != 9 || len(o.open(policy.Supervisor)) != 2 {
			t.Error("the whole reading did not arrive")
		}
	})
}

func TestSuspiciousDropKeepsPeopleAndAppliesTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, left := range []int{4, 10} { // of ten: more than 30 %, and all of them
			o := newOffice(t)
			o.must(o.run())
			time.Sleep(time.Hour)
			o.leave(group(1), left)
			o.entra.people[group(1)] = append(o.entra.people[group(1)], person(80))
			o.entra.people[group(2)] = []teams.PersonID{person(21)} // one supervisor for another: a group of one is believed
			if err := o.run(); !errors.Is(err, groupsync.ErrSuspiciousDrop) {
				t.Fatalf("%d of 10 gone: %v", left, err)
			}
			if got := o.open(policy.RecordedUser); len(got) != 11 || !slices.Contains(got, person(80)) || !slices.Contains(got, person(0)) {
				t.Errorf("%d of 10 gone: recorded are %v", left, got)
			}
			if got := o.open(policy.Supervisor); !slices.Equal(got, []teams.PersonID{person(21)}) {
				t.Errorf("supervisors are %v", got)
			}
			alarms := o.logged(`"alarm":"suspicious-drop"`)
			if len(alarms) != 1 || !strings.Contains(alarms[0], `"before":10`) || !strings.Contains(alarms[0], fmt.Sprintf(`"gone":%d`, left)) {
				t.Errorf("alarms are %q", alarms)
			}
			o.drop = 1 // somebody looked and confirmed
			o.must(o.run())
			if got := o.open(policy.RecordedUser); len(got) != 11-left {
				t.Errorf("after confirming, %d are recorded", len(got))
			}
		}
	})
}

func TestDropUpToTheShareIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.must(o.run())
		o.leave(group(1), 3)
		time.Sleep(time.Hour)
		o.must(o.run())
		if n := len(o.open(policy.RecordedUser)); n != 7 {
			t.Errorf("%d are recorded, want 7", n)
		}
		if alarms := o.logged("alarm"); len(alarms) != 0 {
			t.Errorf("alarms are %q", alarms)
		}
	})
}

func TestDroppedRoleGroupInTheConfigurationIsADropToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.must(o.run())
		o.groups[0].Desk = "renamed"
		time.Sleep(time.Hour)
		if err := o.run(); !errors.Is(err, groupsync.ErrSuspiciousDrop) {
			t.Fatalf("got %v", err)
		}
		if n := len(o.open(policy.RecordedUser)); n != 20 {
			t.Errorf("%d periods are open, want 10 on either desk", n)
		}
	})
}

func TestNobodyConfiguresAndReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		both := person(90)
		o.entra.people[group(3)] = append(o.entra.people[group(3)], both)
		o.entra.nested[group(4)] = []teams.GroupID{group(12)}
		o.entra.people[group(12)] = []teams.PersonID{both}
		o.must(o.run())
		for _, role := range []policy.Role{policy.Administrator, policy.ComplianceOfficer} {
			if got := o.open(role); len(got) != 1 || got[0] == both {
				t.Errorf("%s: %v", role, got)
			}
		}
		if alarms := o.logged(`"alarm":"separation-of-duties"`); len(alarms) != 1 || strings.Contains(alarms[0], string(both)) {
			t.Errorf("alarms are %q, want one that names nobody", alarms)
		}
		// Who held one of the roles loses it when the other is added.
		o.entra.people[group(4)] = append(o.entra.people[group(4)], person(30))
		o.entra.people[group(3)] = append(o.entra.people[group(3)], person(31), person(32), person(33))
		time.Sleep(time.Hour)
		o.must(o.run())
		if got := o.open(policy.ComplianceOfficer); slices.Contains(got, person(30)) || len(got) != 3 {
			t.Errorf("compliance officers are %v", got)
		}
	})
}

func TestMissingPlanIsReportedForEachRecordedUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		for i := range 7 {
			o.entra.plans[person(i)] = []string{"other", groupsync.CommunicationsDLP}
		}
		o.must(o.run())
		if lines := o.logged("lacks the Communications DLP plan"); len(lines) != 3 {
			t.Errorf("%d reports, want 3: %q", len(lines), lines)
		}
		if lines := o.logged(`"withoutPlan":3`); len(lines) != 1 {
			t.Errorf("the run's line is missing: %s", o.log.String())
		}
		people, err := o.People(t.Context(), []teams.PersonID{person(0), person(9)})
		o.must(err)
		if !people[person(0)].CommunicationsDLP || people[person(9)].CommunicationsDLP {
			t.Errorf("facts are %+v", people)
		}
		for line := range strings.Lines(o.log.String()) {
			if strings.Contains(line, "Name of") || strings.Contains(line, "@contoso") || strings.Contains(line, string(person(9))) {
				t.Errorf("a log line names somebody: %s", line)
			}
			if !json.Valid([]byte(line)) {
				t.Errorf("not JSON: %s", line)
			}
		}
	})
}

func TestRepeatedRunChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.must(o.run())
		before := o.all()
		for range 5 {
			time.Sleep(12 * time.Hour)
			o.must(o.run())
		}
		if o.all() != before {
			t.Errorf("periods were\n%sand are\n%s", before, o.all())
		}
		if n := len(o.events()); n != 1 {
			t.Errorf("%d custody events, want the first run's alone", n)
		}
	})
}

func TestCrashBetweenCustodyAndRosterIsMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.crash = true
		if err := o.run(); !errors.Is(err, errCrash) {
			t.Fatalf("got %v", err)
		}
		if o.all() != "" || len(o.events()) != 1 {
			t.Fatal("the event does not come first")
		}
		time.Sleep(time.Minute)
		o.must(o.run())
		if len(o.open(policy.RecordedUser)) != 10 || len(o.events()) != 2 {
			t.Errorf("%d recorded, %d events, want 10 and 2", len(o.open(policy.RecordedUser)), len(o.events()))
		}
		before := o.all()
		o.must(o.run())
		if o.all() != before || len(o.events()) != 2 {
			t.Error("a third run changed something")
		}
	})
}

// refusing is a trail that cannot be written.
type refusing struct{ storetest.Trail }

var errTrail = errors.New("trail is gone")

func (*refusing) Insert(context.Context, custody.Record) error { return errTrail }

func TestRosterDoesNotChangeWithoutACustodyEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		s := groupsync.New(groupsync.Config{Tenant: tenant, Groups: o.groups}, o.entra, &o.teams, o, &o.jobs, custody.Log{Trail: &refusing{}}, slog.New(slog.DiscardHandler))
		if err := s.Run(t.Context()); !errors.Is(err, errTrail) {
			t.Fatalf("got %v", err)
		}
		if o.all() != "" {
			t.Error("the roster changed")
		}
	})
}
