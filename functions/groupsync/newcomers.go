package groupsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

// lookBack has the history of newcomers read, once: the job of the same people and the same
// day is one job. It comes before their periods are stored, so a run that ends in between
// asks again for what it asked for.
func (s *Sync) lookBack(ctx context.Context, opened []policy.Period, ever map[teams.PersonID]bool, at time.Time) error {
	if s.config.Newcomers == 0 {
		return nil
	}
	var newcomers []teams.PersonID
	for _, p := range opened {
		if p.Role == policy.RecordedUser && !ever[p.Person] && !slices.Contains(newcomers, p.Person) {
			newcomers = append(newcomers, p.Person)
		}
	}
	today := at.Truncate(24 * time.Hour)
	for part := range slices.Chunk(newcomers, policy.MaxLookbackCustodians) {
		job, err := policy.AskLookback(policy.Lookback{
			Scope: policy.LookbackScope{Users: part}, From: today.Add(-s.config.Newcomers), To: today,
			Reason: "the past of people who are recorded from now on", System: "groupsync",
		}, at)
		if err != nil {
			return fmt.Errorf("look back on newcomers: %w", err)
		}
		job.Custodians = job.Scope.Users
		if err := s.askOnce(ctx, job); err != nil {
			return fmt.Errorf("look back on newcomers: %w", err)
		}
	}
	return nil
}

func (s *Sync) askOnce(ctx context.Context, job policy.Lookback) error {
	_, err := s.jobs.Get(ctx, job.ID)
	if err == nil || !errors.Is(err, policy.ErrNotFound) {
		return err
	}
	_, err = s.trail.Append(ctx, custody.Event{
		Tenant: s.config.Tenant, Action: custody.LookedBack, System: "groupsync", Item: "lookback-" + job.ID,
		Detail: fmt.Sprintf("requested for %d newcomers", len(job.Custodians)),
	})
	if err != nil {
		return err
	}
	if err := s.jobs.Insert(ctx, job); err != nil && !errors.Is(err, policy.ErrExists) {
		return err
	}
	s.log.InfoContext(ctx, "history of newcomers is read", slog.String("job", job.ID), slog.Int("people", len(job.Custodians)))
	return nil
}
