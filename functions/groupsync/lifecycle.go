package groupsync

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

// turn is a recorded person whose state of capture is another than it was.
type turn struct {
	person   teams.PersonID
	was, now string
}

// lifecycle completes what the directory says of people by what the roster knew: when a
// plan was lost, and who of those that are in no group any more was deleted. It costs one
// query for every 1,000 people, and, if somebody is missing, one request for each 999
// deleted people.
func (s *Sync) lifecycle(ctx context.Context, people []policy.Person, recorded []policy.Period, at time.Time) ([]policy.Person, []turn, error) {
	periods := map[teams.PersonID][]policy.Period{}
	for _, p := range recorded {
		periods[p.Person] = append(periods[p.Person], p)
	}
	seen := map[teams.PersonID]bool{}
	for _, p := range people {
		seen[p.ID] = true
	}
	ids := make([]teams.PersonID, 0, len(people))
	missing := map[teams.PersonID]bool{}
	for id, own := range periods {
		ids = append(ids, id)
		late := slices.ContainsFunc(own, func(p policy.Period) bool { return p.Open() || at.Sub(p.To) < teams.ExportableFor })
		missing[id] = !seen[id] && late
	}
	had, err := s.roster.People(ctx, ids)
	if err != nil {
		return nil, nil, fmt.Errorf("read roster: %w", err)
	}
	people = slices.Clone(people)
	for i, p := range people {
		if was := had[p.ID]; !p.CommunicationsDLP && (was.CommunicationsDLP || !was.LostPlan.IsZero()) {
			people[i].LostPlan = at
			if !was.LostPlan.IsZero() {
				people[i].LostPlan = was.LostPlan
			}
		}
	}
	gone, err := s.deletedOf(ctx, missing, had)
	if err != nil {
		return nil, nil, err
	}
	people = append(people, gone...)
	var turns []turn
	for _, p := range people {
		was, known := had[p.ID]
		if known && facts(was) != facts(p) {
			turns = append(turns, turn{p.ID, facts(was), facts(p)})
		}
	}
	return people, turns, nil
}

// deletedOf returns the facts of those of the missing who were deleted.
func (s *Sync) deletedOf(ctx context.Context, missing map[teams.PersonID]bool, had map[teams.PersonID]policy.Person) (out []policy.Person, err error) {
	if !slices.Contains(slices.Collect(maps.Values(missing)), true) {
		return nil, nil
	}
	deletions, err := s.tenant.DeletedUsers(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range deletions {
		if f := had[d.ID]; missing[d.ID] && !f.Deleted.Equal(d.At) {
			f.ID, f.Enabled, f.Deleted = d.ID, false, d.At
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b policy.Person) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// facts is what the directory says of somebody's capture, whatever group she is in.
func facts(p policy.Person) string {
	state := policy.CaptureOf(p, []policy.Period{{Role: policy.RecordedUser}}, time.Time{})
	if state == policy.CaptureDeleted {
		return fmt.Sprintf("%s %s", state, p.Deleted.UTC().Format(time.RFC3339))
	}
	return string(state)
}

// noteTurns leaves a custody event for each recorded person whose state has changed, one
// storage operation each.
func (s *Sync) noteTurns(ctx context.Context, turns []turn) error {
	for _, t := range turns {
		_, err := s.trail.Append(ctx, custody.Event{
			Tenant: s.config.Tenant, Action: custody.Captured, System: "groupsync", Item: "custodian-" + string(t.person),
			Detail: t.was + ", now " + t.now,
		})
		if err != nil {
			return err
		}
		s.log.WarnContext(ctx, "capture of a recorded user changed", slog.String("notice", "capture"), slog.Any("person", t.person),
			slog.String("was", t.was), slog.String("now", t.now))
	}
	return nil
}
