package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"steno/tests/sim"
	"steno/tests/world"
)

// desks are the recorded users of both desks, in an order of their own.
func desks(w *world.World) []sim.PersonID {
	return append(w.Tenant.UsersIn(sim.RecordedEquities), w.Tenant.UsersIn(sim.RecordedRates)...)
}

// checkCalls places calls of every kind at once, lets them happen, and compares the
// archive with what was said. It returns nil without a recorder. One recorded user is in a call
// to which no recorder is invited: a capture gap that must be found.
func checkCalls(ctx context.Context, w *world.World, a *world.Archive) (*world.CallReport, []*sim.Call, error) {
	if w.Bot == nil {
		return nil, nil, nil
	}
	p := desks(w)
	if len(p) < 6 {
		return nil, nil, fmt.Errorf("%d recorded users, want 6 for the calls", len(p))
	}
	plans := []sim.CallPlan{
		{ // a meeting with two recorded users, a telephone and a guest, one of them sharing a screen
			Subject: "Morning meeting", Disorder: true,
			Parties: []sim.Party{{Person: p[0], Recorded: true, Caller: true}, {Person: p[1], Recorded: true}, {Phone: "+493012345678"}, {Guest: "Visitor"}},
		},
		{TextCodes: true, Parties: []sim.Party{{Phone: "+442079460000", Caller: true}, {Person: p[2], Recorded: true}}},                                                    // from outside
		{Parties: []sim.Party{{Person: p[3], Recorded: true, Caller: true}, {Person: p[4], Recorded: true}}},                                                               // both sides recorded
		{Missed: true, Parties: []sim.Party{{Person: p[5], Recorded: true, Caller: true}, {Phone: "+15550100"}}},                                                           // nobody picked up
		{Kind: sim.GroupCall, MissingTicks: 97, Talk: sim.AllAtOnce, Parties: []sim.Party{{Person: p[2], Recorded: true, Caller: true}, {Person: p[0]}, {Guest: "Other"}}}, // ticks that never came
		{DeletedWithoutData: true, Phantom: true, Parties: []sim.Party{{Person: p[1], Recorded: true, Caller: true}, {Phone: "+81312345678"}}},
	}
	var calls []*sim.Call
	for _, plan := range plans {
		c, err := w.Tenant.Calls().Place(plan)
		if err != nil {
			return nil, nil, fmt.Errorf("place a call: %w", err)
		}
		calls = append(calls, c)
	}
	happen := func(after time.Duration, do ...error) error {
		return errors.Join(append(do, world.Sleep(ctx, after))...)
	}
	meeting, transfer := calls[0], calls[1]
	who := meeting.Participants()
	err := errors.Join(
		happen(5*time.Second),
		happen(3*time.Second, meeting.Share(who[0], true), meeting.Mute(who[1], true)),
		happen(4*time.Second, meeting.Mute(who[1], false), meeting.Hold(who[2], true)),
		happen(3*time.Second, meeting.Hold(who[2], false), meeting.Share(who[0], false)),
	)
	if err != nil {
		return nil, nil, err
	}
	second, err := transfer.Transfer(transfer.Participants()[1], sim.Party{Person: p[4], Recorded: true})
	if err != nil {
		return nil, nil, fmt.Errorf("transfer a call: %w", err)
	}
	calls = append(calls, second)
	if err := happen(8 * time.Second); err != nil {
		return nil, nil, err
	}
	for _, c := range calls {
		c.End()
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var r world.CallReport
	for _, c := range calls {
		if err := a.CompareCall(ctx, c, &r); err != nil {
			return nil, nil, err
		}
	}
	return &r, calls, nil
}

// liveCalls lets people call each other for as long as the demonstration runs: there is
// always a call going on, and every few minutes a new one ends.
func liveCalls(ctx context.Context, w *world.World) error {
	rng := rand.New(rand.NewPCG(7, 7))
	p := desks(w)
	subjects := []string{"Morning meeting", "Order of the day", "Client review", "Quarter end"}
	for n := 0; ; n++ {
		rng.Shuffle(len(p), func(i, j int) { p[i], p[j] = p[j], p[i] })
		plan := sim.CallPlan{Subject: subjects[n%len(subjects)], Parties: []sim.Party{
			{Person: p[0], Recorded: true, Caller: true}, {Person: p[1], Recorded: true}, {Guest: "Visitor"}, {Phone: "+493012345678"},
		}}
		if n%2 == 1 {
			plan = sim.CallPlan{Parties: []sim.Party{{Person: p[0], Recorded: true}, {Phone: fmt.Sprintf("+4420794600%02d", n%100), Caller: true}}}
		}
		c, err := w.Tenant.Calls().Place(plan)
		if err != nil {
			return fmt.Errorf("place a call: %w", err)
		}
		who := c.Participants()
		if n%2 == 0 {
			if err := errors.Join(world.Sleep(ctx, 15*time.Second), c.Share(who[0], true), world.Sleep(ctx, 30*time.Second), c.Share(who[0], false)); err != nil {
				c.End()
				return err
			}
		}
		if err := world.Sleep(ctx, time.Duration(30+rng.IntN(30))*time.Second); err != nil {
			c.End()
			return err
		}
		c.End()
	}
}
