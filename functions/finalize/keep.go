package finalize

import (
	"context"
	"fmt"
	"time"

	"steno/shared/conversation"
	"steno/shared/policy"
	"steno/shared/teams"
)

// keepUntil is the Retain Until under which what finalize stores of a leg is put. What the
// leg holds is not known yet, so it is the longest of what a call may turn out to be. The
// packs that the recorder stored are brought under it by function retention.
func (f *Finalizer) keepUntil(ctx context.Context, n conversation.LegNotice) (time.Time, error) {
	call, err := f.calls.Call(ctx, conversation.CallKeyOf(n.Tenant, n.Chain))
	if err != nil {
		return time.Time{}, err
	}
	_, leg := f.draft(call, n)
	facts := policy.Facts{Tenant: n.Tenant, Start: leg.Started, End: latest(leg.Started, n.At)}
	if leg.Recorded != "" {
		c := policy.CustodianFacts{Person: leg.Recorded}
		if c.Desks, err = f.desks(ctx, leg.Recorded, facts.Start, facts.End); err != nil {
			return time.Time{}, err
		}
		facts.Custodians = append(facts.Custodians, c)
	}
	var until time.Time
	for _, m := range []conversation.Modality{conversation.Voice, conversation.Video, conversation.Screen} {
		facts.Modality = string(m)
		until = latest(until, f.c.Policies.Decide(facts).Until)
	}
	return until, nil
}

func (f *Finalizer) desks(ctx context.Context, person teams.PersonID, from, to time.Time) ([]string, error) {
	if f.c.Roster == nil {
		return nil, nil
	}
	periods, err := f.c.Roster.PeriodsOf(ctx, person)
	if err != nil {
		return nil, fmt.Errorf("read roster: %w", err)
	}
	return policy.DesksAt(periods, person, from, to, f.c.History), nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
