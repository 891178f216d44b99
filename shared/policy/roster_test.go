package policy_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"steno/shared/policy"
	"steno/shared/teams"
)

var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

const (
	ann = teams.PersonID("aaaaaaaa-aaaa-4bbb-8ccc-aaaaaaaaaaaa")
	bob = teams.PersonID("bbbbbbbb-aaaa-4bbb-8ccc-bbbbbbbbbbbb")
	eve = teams.PersonID("eeeeeeee-aaaa-4bbb-8ccc-eeeeeeeeeeee")
)

func recorded(p teams.PersonID, desk string, from, to time.Duration) policy.Period {
	period := policy.Period{Person: p, Role: policy.RecordedUser, Desk: desk, From: noon.Add(from)}
	if to != 0 {
		period.To = noon.Add(to)
	}
	return period
}

func TestUserRemovedAtNoonStaysRecordedUntilNoon(t *testing.T) {
	open := []policy.Period{recorded(ann, "fx", -time.Hour, 0)}
	opened, closed := policy.Diff(open, []policy.Membership{{Role: policy.RecordedUser, Desk: "fx"}}, noon)
	if len(opened) != 0 || len(closed) != 1 || !closed[0].To.Equal(noon) || !closed[0].From.Equal(open[0].From) {
		t.Fatalf("opened %v, closed %v", opened, closed)
	}
	p := closed[0]
	for at, want := range map[time.Duration]bool{-time.Hour - 1: false, -time.Hour: true, -1: true, 0: false, time.Hour: false} {
		if p.Covers(noon.Add(at)) != want {
			t.Errorf("%s after noon: covered %t, want %t", at, !want, want)
		}
	}
	got := policy.Covered(closed, noon.Add(-2*time.Hour), noon.Add(time.Hour))
	if want := []policy.Span{{From: noon.Add(-time.Hour), To: noon}}; !slices.Equal(got, want) {
		t.Errorf("covered %v, want %v", got, want)
	}
}

func TestDiffOpensClosesAndLeavesAlone(t *testing.T) {
	open := []policy.Period{
		recorded(ann, "fx", -time.Hour, 0), recorded(bob, "fx", -time.Hour, 0), recorded(ann, "old", -time.Hour, 0), recorded(eve, "fx", -2*time.Hour, -time.Hour),
	}
	observed := []policy.Membership{
		{Role: policy.RecordedUser, Desk: "fx", People: []teams.PersonID{ann, eve, ann}}, {Role: policy.RecordedUser, Desk: "fx", People: []teams.PersonID{ann}},
		{Role: policy.Supervisor, Desk: "fx", People: []teams.PersonID{bob}},
	}
	opened, closed := policy.Diff(open, observed, noon)
	wantOpened := []policy.Period{recorded(eve, "fx", 0, 0), {Person: bob, Role: policy.Supervisor, Desk: "fx", From: noon}}
	gone, dropped := open[1], open[2]
	gone.To, dropped.To = noon, noon
	if !slices.Equal(opened, wantOpened) || !slices.Equal(closed, []policy.Period{gone, dropped}) {
		t.Errorf("opened %v\nclosed %v", opened, closed)
	}
}

func TestDiffAppliedLeavesNothingToDo(t *testing.T) {
	const seed = 3
	rng := rand.New(rand.NewPCG(seed, 0))
	people := []teams.PersonID{ann, bob, eve}
	var roster []policy.Period
	for round := range 200 {
		at := noon.Add(time.Duration(round) * time.Minute)
		var observed []policy.Membership
		for _, role := range []policy.Role{policy.RecordedUser, policy.Supervisor} {
			m := policy.Membership{Role: role, Desk: "fx"}
			for _, p := range people {
				if rng.IntN(2) == 0 {
					m.People = append(m.People, p)
				}
			}
			observed = append(observed, m)
		}
		opened, closed := policy.Diff(roster, observed, at)
		for _, c := range closed {
			i := slices.IndexFunc(roster, func(p policy.Period) bool { return p.Open() && p.Person == c.Person && p.Role == c.Role })
			roster[i] = c
		}
		roster = append(roster, opened...)
		if o, c := policy.Diff(roster, observed, at.Add(time.Second)); len(o)+len(c) != 0 {
			t.Fatalf("seed %d, round %d: a second reading opens %v and closes %v", seed, round, o, c)
		}
		for _, m := range observed {
			for _, p := range people {
				covered := slices.ContainsFunc(roster, func(q policy.Period) bool { return q.Person == p && q.Role == m.Role && q.Covers(at) })
				if covered != slices.Contains(m.People, p) {
					t.Fatalf("seed %d, round %d: %s as %s covered %t", seed, round, p, m.Role, covered)
				}
			}
		}
	}
}

func TestSuspiciousDropsAreThoseBeyondTheShare(t *testing.T) {
	for _, c := range []struct {
		before, gone int
		share        float64
		want         bool
	}{
		{10, 2, 0.2, false}, {10, 3, 0.2, true}, {10, 10, 0.2, true}, {10, 10, 1, false}, {10, 1, 0, true}, {10, 0, 0, false},
		{1, 1, 0.2, false}, {2, 1, 0.5, false}, {2, 2, 0.5, true},
	} {
		var open, closed []policy.Period
		for i := range c.before {
			p := recorded(teams.PersonID(fmt.Sprint(i)), "fx", -time.Hour, 0)
			open = append(open, p, policy.Period{Person: p.Person, Role: policy.Auditor, From: p.From})
			if i < c.gone {
				p.To = noon
				closed = append(closed, p)
			}
		}
		drops := policy.SuspiciousDrops(open, closed, c.share)
		if (len(drops) == 1) != c.want || (c.want && drops[0] != policy.Drop{Role: policy.RecordedUser, Desk: "fx", Before: c.before, Gone: c.gone}) {
			t.Errorf("%d of %d gone at a share of %g: %v", c.gone, c.before, c.share, drops)
		}
	}
}

func TestUnionOfAdministratorAndComplianceOfficerIsNamed(t *testing.T) {
	got := policy.Conflicts([]policy.Membership{
		{Role: policy.ComplianceOfficer, People: []teams.PersonID{eve, bob}}, {Role: policy.Administrator, People: []teams.PersonID{ann, eve}},
		{Role: policy.Administrator, People: []teams.PersonID{bob}}, {Role: policy.Auditor, People: []teams.PersonID{ann}},
	})
	if !slices.Equal(got, []teams.PersonID{bob, eve}) {
		t.Errorf("conflicts %v", got)
	}
	if none := policy.Conflicts(nil); len(none) != 0 {
		t.Errorf("conflicts of nobody: %v", none)
	}
}

func TestCoveredIsWhatThePeriodsCover(t *testing.T) {
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, 0))
	minute := func() time.Duration { return time.Duration(rng.IntN(60)) * time.Minute }
	for round := range 500 {
		var periods []policy.Period
		for range rng.IntN(5) {
			p := recorded(ann, []string{"fx", "rates"}[rng.IntN(2)], minute(), 0)
			if rng.IntN(3) > 0 {
				p.To = noon.Add(minute()) // may end before it starts
			}
			if rng.IntN(4) == 0 {
				p.Role = policy.Supervisor
			}
			periods = append(periods, p)
		}
		from, to := noon.Add(minute()), noon.Add(minute())
		spans := policy.Covered(periods, from, to)
		for i, s := range spans {
			if !s.From.Before(s.To) || (i > 0 && !spans[i-1].To.Before(s.From)) {
				t.Fatalf("seed %d, round %d: spans %v", seed, round, spans)
			}
		}
		for at := noon; at.Before(noon.Add(time.Hour)); at = at.Add(30 * time.Second) {
			want := !at.Before(from) && at.Before(to) && slices.ContainsFunc(periods, func(p policy.Period) bool {
				return p.Role == policy.RecordedUser && p.Covers(at)
			})
			got := slices.ContainsFunc(spans, func(s policy.Span) bool { return !at.Before(s.From) && at.Before(s.To) })
			if got != want {
				t.Fatalf("seed %d, round %d: %s covered %t, periods %v, from %s to %s", seed, round, at, got, periods, from, to)
			}
		}
	}
}

func TestPeriodWithoutAMomentOverlapsNothing(t *testing.T) {
	for what, p := range map[string]policy.Period{
		"empty": recorded(ann, "fx", time.Minute, time.Minute), "reversed": recorded(ann, "fx", 2*time.Minute, time.Minute),
	} {
		if p.Overlaps(noon, noon.Add(time.Hour)) {
			t.Errorf("%s period overlaps", what)
		}
	}
	if recorded(ann, "fx", -time.Hour, 0).Overlaps(noon, noon) {
		t.Error("an empty stretch is overlapped")
	}
}
