package retention

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"steno/shared/custody"
	"steno/shared/policy"
)

// placeHolds puts every object of what the matters protect under legal hold on storage,
// also what was captured since the last run.
func (p *pass) placeHolds(ctx context.Context) error {
	holds, err := p.holds(ctx)
	if err != nil {
		return err
	}
	for _, m := range holds.Matters {
		if !m.Protects(p.now, p.c.Grace) {
			continue
		}
		held, err := p.covered(ctx, m)
		if err != nil {
			return fmt.Errorf("hold of matter %s: %w", m.ID, err)
		}
		var objects atomic.Int64
		group, gctx := errgroup.WithContext(ctx)
		group.SetLimit(parallel)
		for _, s := range held {
			group.Go(func() error {
				for _, u := range s.units {
					n, err := p.s.Keeper.Hold(gctx, p.c.Tenant, u, true)
					objects.Add(int64(n))
					if err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return fmt.Errorf("hold of matter %s: %w", m.ID, err)
		}
		if n := objects.Load(); n > 0 {
			if _, err := p.record(ctx, custody.Event{Action: custody.HoldSet, Item: m.ID, Detail: fmt.Sprintf("objects=%d conversations=%d", n, len(held))}); err != nil {
				return err
			}
		}
	}
	return nil
}

// liftHolds takes the flags of matters off storage whose grace period is over, except
// where another matter protects the same conversation.
func (p *pass) liftHolds(ctx context.Context) error {
	holds, err := p.holds(ctx)
	if err != nil {
		return err
	}
	var faults []error
	for _, m := range holds.Matters {
		if m.State == policy.MatterReleased && !m.Protects(p.now, p.c.Grace) {
			if err := p.lift(ctx, m); err != nil {
				faults = append(faults, fmt.Errorf("lift hold of matter %s: %w", m.ID, err))
			}
		}
	}
	return errors.Join(faults...)
}

func (p *pass) lift(ctx context.Context, m policy.Matter) error {
	if err := p.released(ctx, m); err != nil {
		p.alarm(ctx, "hold", "a hold is not lifted: its release is not what two persons agreed to", "matter", m.ID, "cause", err.Error())
		return nil
	}
	free, err := p.covered(ctx, m)
	if err != nil {
		return err
	}
	// The event comes first, as before every deed that takes protection away.
	if _, err := p.record(ctx, custody.Event{Action: custody.HoldLifted, Item: m.ID, Detail: fmt.Sprintf("conversations=%d", len(free))}); err != nil {
		return err
	}
	for _, s := range free {
		holds, err := p.holds(ctx) // again each time: one may have been placed meanwhile
		if err != nil {
			return err
		}
		if _, held := holds.Cover(s.facts, p.now); held {
			continue
		}
		for _, u := range s.units {
			if _, err := p.s.Keeper.Hold(ctx, p.c.Tenant, u, false); err != nil {
				return err
			}
		}
	}
	m.State, m.LiftedAt = policy.MatterLifted, p.now
	err = p.s.Matters.Replace(ctx, m)
	if errors.Is(err, policy.ErrChanged) {
		return nil // the next run sees what it has become
	}
	return err
}

// released checks that the matter was released by an executed proposal of two persons: a
// row that says so is not enough to take protection away.
func (p *pass) released(ctx context.Context, m policy.Matter) error {
	proposal, err := p.s.Approvals.Get(ctx, m.Request)
	if err != nil {
		return err
	}
	request, err := proposal.Request()
	if err != nil {
		return err
	}
	if request.Action != policy.ActionRelease || request.Objects != policy.ObjectSet(m.ID) {
		return errors.New("the proposal it names is no release of it")
	}
	if proposal.State != policy.ProposalExecuted || proposal.Approver == "" || proposal.Approver == request.Requester {
		return errors.New("the proposal it names is not approved by a second person and executed")
	}
	if m.ReleasedAt.Before(proposal.ApprovedAt) {
		return errors.New("it says to be released before that was approved")
	}
	return nil
}
