package groupsync_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steno/functions/groupsync"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

func (o *office) leave(g teams.GroupID, n int) { o.entra.people[g] = o.entra.people[g][n:] }

// turns lists what the trail says of changes of capture.
func (o *office) turns() (out []string) {
	o.t.Helper()
	for _, e := range o.events() {
		if e.Action == custody.Captured {
			out = append(out, strings.TrimPrefix(e.Item, "custodian-")+" "+e.Detail)
		}
	}
	slices.Sort(out) // several of one run have one time
	return out
}

// state is that of a recorded person.
func (o *office) state(n int) policy.CaptureState {
	o.t.Helper()
	people, err := o.People(o.t.Context(), []teams.PersonID{person(n)})
	o.must(err)
	periods, err := o.PeriodsOf(o.t.Context(), person(n))
	o.must(err)
	return policy.CaptureOf(people[person(n)], periods, time.Now())
}

func TestWhatBecomesOfRecordedPeopleIsKeptAndLeavesACustodyEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		for i := range 10 {
			o.entra.plans[person(i)] = []string{groupsync.CommunicationsDLP}
		}
		delete(o.entra.plans, person(9)) // never had it
		o.must(o.run())
		time.Sleep(time.Hour)
		lost := time.Now().UTC().Truncate(time.Millisecond)
		o.entra.locked[person(1)], o.entra.guests[person(2)] = true, true
		delete(o.entra.plans, person(3))
		o.must(o.run())
		time.Sleep(time.Hour)
		deleted := time.Now().UTC().Truncate(time.Second)
		o.entra.people[group(1)] = slices.DeleteFunc(o.entra.people[group(1)], func(p teams.PersonID) bool { return p == person(4) || p == person(5) })
		o.teams.users = []teams.Deletion{{ID: person(4), At: deleted}, {ID: person(77), At: deleted}}
		for range 2 {
			o.must(o.run())
			time.Sleep(time.Hour)
		}
		for n, want := range map[int]policy.CaptureState{
			0: policy.CaptureActive, 1: policy.CaptureDisabled, 2: policy.CaptureGuest, 3: policy.CaptureUnlicensed,
			4: policy.CaptureDeleted, 5: policy.CaptureLeft, 9: policy.CaptureActive,
		} {
			if got := o.state(n); got != want {
				t.Errorf("person %d is %s, want %s", n, got, want)
			}
		}
		want := []string{
			string(person(1)) + " active, now disabled", string(person(2)) + " active, now guest", string(person(3)) + " active, now unlicensed",
			string(person(4)) + " active, now deleted " + deleted.Format(time.RFC3339),
		}
		if got := o.turns(); !slices.Equal(got, want) {
			t.Errorf("the trail says\n%q, want\n%q", got, want)
		}
		people, err := o.People(t.Context(), []teams.PersonID{person(3), person(4)})
		o.must(err)
		if !people[person(3)].LostPlan.Equal(lost) || !people[person(4)].Deleted.Equal(deleted) || people[person(4)].DisplayName == "" {
			t.Errorf("facts are %+v", people)
		}
		o.entra.plans[person(3)] = []string{groupsync.CommunicationsDLP}
		o.entra.people[group(1)] = append(o.entra.people[group(1)], person(4)) // restored
		o.must(o.run())
		if o.state(3) != policy.CaptureActive || o.state(4) != policy.CaptureActive {
			t.Errorf("they are %s and %s", o.state(3), o.state(4))
		}
	})
}
