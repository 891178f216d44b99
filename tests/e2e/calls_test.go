package e2e_test

import (
	"context"
	"testing"
	"time"

	"steno/tests/sim"
	"steno/tests/world"
)

// startCalls starts a world with a recorder and reads the groups.
func startCalls(t *testing.T, c world.Config) (*world.World, *world.Archive, *lines) {
	t.Helper()
	c.BotExe = bot
	if c.Sim.Messages == 0 {
		c.Sim.Messages = -1
	}
	w, log := start(t, c)
	if err := w.Host.RunTimer(t.Context(), "groupsync"); err != nil {
		t.Fatal(err)
	}
	a, err := w.Archive()
	if err != nil {
		t.Fatal(err)
	}
	return w, a, log
}

// recordedUsers are people under a recording policy.
func recordedUsers(w *world.World) []sim.PersonID {
	return w.Tenant.UsersIn(sim.RecordedEquities)
}

func place(t *testing.T, w *world.World, plan sim.CallPlan) *sim.Call {
	t.Helper()
	call, err := w.Tenant.Calls().Place(plan)
	if err != nil {
		t.Fatal(err)
	}
	return call
}

func talk(t *testing.T, d time.Duration) {
	t.Helper()
	if err := world.Sleep(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

func compare(t *testing.T, a *world.Archive, log *lines, calls ...*sim.Call) world.CallReport {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(len(calls))*2*time.Second)
	defer cancel()
	var r world.CallReport
	for _, c := range calls {
		if err := a.CompareCall(ctx, c, &r); err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
	}
	if !r.OK() || r.Frames == 0 {
		t.Errorf("%+v\n%s", r, log)
	}
	return r
}

func TestACallIsRecordedSealedAndSoundsAsWhatWasSaid(t *testing.T) {
	w, a, log := startCalls(t, world.Config{})
	users := recordedUsers(w)
	meeting := place(t, w, sim.CallPlan{
		Subject: "Morning meeting",
		Parties: []sim.Party{{Person: users[0], Recorded: true, Caller: true}, {Person: users[1], Recorded: true}, {Phone: "+493012345678"}, {Guest: "Visitor"}},
	})
	two := place(t, w, sim.CallPlan{Parties: []sim.Party{{Person: users[2], Recorded: true}, {Phone: "+442079460000", Caller: true}}})
	talk(t, 16*time.Second)
	meeting.End()
	two.End()
	r := compare(t, a, log, meeting, two)
	if r.Legs != 3 {
		t.Errorf("%d legs, want 3: two in the meeting and one with the telephone", r.Legs)
	}
	t.Logf("%+v", r)
}
