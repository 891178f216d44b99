package storetest

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"steno/shared/policy"
	"steno/shared/teams"
)

// TestRoster checks the contract of policy.Roster. open returns an empty roster.
func TestRoster(t *testing.T, open func(t *testing.T) policy.Roster) {
	noon := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	t.Run("an empty roster knows nobody", func(t *testing.T) { rosterEmpty(t, open(t)) })
	t.Run("what was applied is read back", func(t *testing.T) { rosterReadBack(t, open(t), noon) })
	t.Run("a change applied again changes nothing", func(t *testing.T) { rosterRepeated(t, open(t), noon) })
	t.Run("a period is closed once and never rewritten", func(t *testing.T) { rosterClosedOnce(t, open(t), noon) })
	t.Run("a change larger than a transaction is stored whole", func(t *testing.T) { rosterLarge(t, open(t), noon) })
}

func rosterEmpty(t *testing.T, r policy.Roster) {
	periods, err := r.Periods(t.Context(), policy.RecordedUser)
	ok(t, err)
	mine, err := r.PeriodsOf(t.Context(), newPerson())
	ok(t, err)
	people, err := r.People(t.Context(), []teams.PersonID{newPerson()})
	ok(t, err)
	none, err := r.People(t.Context(), nil)
	ok(t, err)
	ok(t, r.Apply(t.Context(), policy.Change{At: time.Now()}))
	if len(periods)+len(mine)+len(people)+len(none) != 0 {
		t.Errorf("%v %v %v %v", periods, mine, people, none)
	}
}

func samePeriods(t *testing.T, what string, got, want []policy.Period) {
	t.Helper()
	text := func(ps []policy.Period) []string {
		var out []string
		for _, p := range ps {
			to := "open"
			if !p.Open() {
				to = p.To.UTC().Format(time.RFC3339Nano)
			}
			out = append(out, fmt.Sprint(p.Person, " ", p.Role, " ", p.Desk, " ", p.From.UTC().Format(time.RFC3339Nano), " ", to))
		}
		slices.Sort(out)
		return out
	}
	if g, w := text(got), text(want); !slices.Equal(g, w) {
		t.Errorf("%s: periods\n%q\nwant\n%q", what, g, w)
	}
}

func wantRoster(t *testing.T, r policy.Roster, all []policy.Period) {
	t.Helper()
	byRole, byPerson := map[policy.Role][]policy.Period{}, map[teams.PersonID][]policy.Period{}
	for _, p := range all {
		byRole[p.Role] = append(byRole[p.Role], p)
		byPerson[p.Person] = append(byPerson[p.Person], p)
	}
	for _, role := range policy.Roles {
		got, err := r.Periods(t.Context(), role)
		ok(t, err)
		samePeriods(t, string(role), got, byRole[role])
	}
	for person, want := range byPerson {
		got, err := r.PeriodsOf(t.Context(), person)
		ok(t, err)
		samePeriods(t, "person", got, want)
	}
}

func rosterReadBack(t *testing.T, r policy.Roster, noon time.Time) {
	a, b := newPerson(), newPerson()
	opened := []policy.Period{
		{Person: a, Role: policy.RecordedUser, Desk: "fx", From: noon},
		{Person: a, Role: policy.RecordedUser, Desk: "fx-2", From: noon},
		{Person: a, Role: policy.Supervisor, Desk: "fx", From: noon},
		{Person: b, Role: policy.Auditor, From: noon.Add(123 * time.Millisecond)},
	}
	people := []policy.Person{
		{ID: a, DisplayName: "A 'quoted' ü", Address: "a@example.test", Enabled: true, CommunicationsDLP: true},
		{ID: b, DisplayName: "B", Guest: true},
	}
	ok(t, r.Apply(t.Context(), policy.Change{At: noon, Opened: opened, People: people}))
	wantRoster(t, r, opened)
	got, err := r.People(t.Context(), []teams.PersonID{a, b, newPerson(), a})
	ok(t, err)
	if want := map[teams.PersonID]policy.Person{a: people[0], b: people[1]}; !maps.Equal(got, want) {
		t.Errorf("people %v, want %v", got, want)
	}
	people[1].DisplayName = "B, renamed"
	ok(t, r.Apply(t.Context(), policy.Change{At: noon, People: people[1:]}))
	if got, err = r.People(t.Context(), []teams.PersonID{b}); err != nil || got[b] != people[1] {
		t.Errorf("renamed person: %v, %v", got, err)
	}
}

func rosterRepeated(t *testing.T, r policy.Roster, noon time.Time) {
	p := policy.Period{Person: newPerson(), Role: policy.RecordedUser, Desk: "fx", From: noon}
	open := policy.Change{At: noon, Opened: []policy.Period{p}}
	closed := p
	closed.To = noon.Add(time.Hour)
	end := policy.Change{At: closed.To, Closed: []policy.Period{closed}}
	again := policy.Period{Person: p.Person, Role: p.Role, Desk: p.Desk, From: noon.Add(2 * time.Hour)}
	back := policy.Change{At: again.From, Opened: []policy.Period{again}}
	for range 2 {
		ok(t, r.Apply(t.Context(), open))
		wantRoster(t, r, []policy.Period{p})
	}
	for range 2 {
		ok(t, r.Apply(t.Context(), end))
		wantRoster(t, r, []policy.Period{closed})
	}
	for range 2 {
		ok(t, r.Apply(t.Context(), back))
		wantRoster(t, r, []policy.Period{closed, again})
	}
}

func rosterClosedOnce(t *testing.T, r policy.Roster, noon time.Time) {
	p := policy.Period{Person: newPerson(), Role: policy.RecordedUser, Desk: "fx", From: noon}
	closed, later := p, p
	closed.To, later.To = noon.Add(time.Hour), noon.Add(3*time.Hour)
	ok(t, r.Apply(t.Context(), policy.Change{At: noon, Opened: []policy.Period{p}}))
	ok(t, r.Apply(t.Context(), policy.Change{At: closed.To, Closed: []policy.Period{closed}}))
	ok(t, r.Apply(t.Context(), policy.Change{At: later.To, Closed: []policy.Period{later}}))
	wantRoster(t, r, []policy.Period{closed})
	ok(t, r.Apply(t.Context(), policy.Change{At: noon, Opened: []policy.Period{p}}))
	wantRoster(t, r, []policy.Period{closed})
}

func rosterLarge(t *testing.T, r policy.Roster, noon time.Time) {
	const n = 130
	var c policy.Change
	var ids []teams.PersonID
	for i := range n {
		id := newPerson()
		ids = append(ids, id)
		c.People = append(c.People, policy.Person{ID: id, DisplayName: fmt.Sprint("person ", i), Enabled: true})
		c.Opened = append(c.Opened, policy.Period{Person: id, Role: policy.RecordedUser, Desk: "fx", From: noon})
	}
	ok(t, r.Apply(t.Context(), c))
	got, err := r.Periods(t.Context(), policy.RecordedUser)
	ok(t, err)
	samePeriods(t, "all", got, c.Opened)
	for _, few := range []int{1, 20, 21, n} {
		people, err := r.People(t.Context(), ids[:few])
		ok(t, err)
		if len(people) != few {
			t.Errorf("%d people of %d", len(people), few)
		}
	}
}
