package retention

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
)

// The grounds on which an erasure is refused, as the trail has them.
// https://eur-lex.europa.eu/eli/reg/2016/679/oj Art. 17(3)(b) and (e)
const (
	refusedHeld     = "GDPR Art. 17(3)(e): a legal hold protects it"
	refusedRetained = "GDPR Art. 17(3)(b): a duty to retain it has not ended"
	refusedLocked   = "GDPR Art. 17(3)(b): it is under a locked Retain Until"
	refusedEscrow   = "a copy of its keys in escrow is under a locked Retain Until"
	refusedRunning  = "a leg of it is still being recorded"
)

// refusal is why an erasure cannot be.
type refusal struct{ ground string }

func (r refusal) Error() string { return r.ground }

// erase takes the approved erasures whose waiting period is over: each is refused as a
// whole, with its ground on record, or planned as a whole.
func (p *pass) erase(ctx context.Context) error {
	open, err := p.s.Approvals.Open(ctx)
	if err != nil {
		return fmt.Errorf("read approvals: %w", err)
	}
	var faults []error
	for _, proposal := range open {
		request, err := proposal.Request()
		if err != nil {
			p.alarm(ctx, "approval", "a proposal is not what was signed", slog.String("cause", err.Error()))
			continue
		}
		if request.Action != policy.ActionErase || !proposal.Ripe(p.now, p.c.Wait) {
			continue
		}
		if err := p.decide(ctx, proposal, request); err != nil {
			faults = append(faults, fmt.Errorf("erasure %s: %w", proposal.Digest, err))
		}
	}
	return errors.Join(faults...)
}

// decide plans or refuses one approved erasure.
func (p *pass) decide(ctx context.Context, proposal policy.Proposal, request policy.Request) error {
	holds, err := p.holds(ctx)
	if err != nil {
		return err
	}
	var there []string
	var plan []policy.Disposition
	var no error
	for _, c := range proposal.IDs {
		id, err := conversation.ParseID(c)
		if err != nil {
			return p.refuse(ctx, proposal, err)
		}
		d, err := p.erasure(ctx, id, holds, request)
		if errors.Is(err, errGone) {
			continue // the set is another than the one approved, which Execute notices
		}
		there = append(there, c)
		if r := (refusal{}); errors.As(err, &r) {
			no = r
			continue
		}
		if err != nil {
			return err
		}
		d.Request = proposal.Digest
		plan = append(plan, d)
	}
	done, err := p.sign(ctx, proposal, request, there, p.c.Wait)
	if errors.Is(err, policy.ErrRefused) {
		return p.refuse(ctx, proposal, err)
	}
	if err != nil {
		return err
	}
	if no != nil {
		return p.refuse(ctx, proposal, no)
	}
	for _, d := range plan {
		if err := p.s.Dispositions.Insert(ctx, d); err != nil && !errors.Is(err, policy.ErrExists) {
			return err
		}
	}
	// Only from here on does a planned erasure stand: see erasable.
	return p.s.Approvals.Replace(ctx, done)
}

// refuse closes an erasure with its ground, on record first.
func (p *pass) refuse(ctx context.Context, proposal policy.Proposal, why error) error {
	if _, err := p.record(ctx, custody.Event{Action: custody.EraseRefused, Item: proposal.Digest, Reason: why.Error(), Detail: fmt.Sprintf("conversations=%d", len(proposal.IDs))}); err != nil {
		return err
	}
	closed, err := proposal.Reject(why.Error(), p.now)
	if err != nil {
		return err
	}
	p.log.WarnContext(ctx, "erasure refused", slog.String("request", proposal.Digest), slog.String("ground", why.Error()))
	return p.s.Approvals.Replace(ctx, closed)
}

// erasure describes the erasure of one conversation, or says as a refusal why it cannot
// be: hold beats expiry beats erasure.
func (p *pass) erasure(ctx context.Context, id conversation.ID, holds policy.Holds, request policy.Request) (policy.Disposition, error) {
	s, err := p.verified(ctx, id)
	if errors.Is(err, errRunning) {
		return policy.Disposition{}, refusal{refusedRunning}
	}
	if err != nil {
		return policy.Disposition{}, err
	}
	if _, held := holds.Cover(s.facts, p.now); held {
		return policy.Disposition{}, refusal{refusedHeld}
	}
	bare := s.facts
	bare.Set = time.Time{} // what the policies ask for, whatever storage was told
	ruling := p.c.Policies.Decide(bare)
	for _, u := range s.units {
		state, err := p.s.Keeper.State(ctx, p.c.Tenant, u)
		if err != nil {
			return policy.Disposition{}, err
		}
		switch {
		case state.Held > 0:
			return policy.Disposition{}, refusal{refusedHeld}
		case state.EscrowLocked:
			// Whoever has the recovery key could still open it, so it would be no erasure.
			return policy.Disposition{}, refusal{refusedEscrow}
		case ruling.Due(p.now):
		case state.Locked:
			return policy.Disposition{}, refusal{refusedLocked}
		case request.Parameters[policy.ParameterNotLocked] != "true":
			return policy.Disposition{}, refusal{refusedRetained}
		}
	}
	return p.disposition(s, policy.GroundErasure, ruling), nil
}

// erasable decides anew, before an erasure begins, whether it stands: its proposal is
// executed and names the conversation, and nothing speaks against it meanwhile.
func (p *pass) erasable(ctx context.Context, id conversation.ID, holds policy.Holds, digest string) (policy.Disposition, bool, error) {
	proposal, err := p.s.Approvals.Get(ctx, digest)
	if errors.Is(err, policy.ErrNotFound) {
		p.alarm(ctx, "disposition", "an erasure is planned that nobody asked for", slog.String("conversation", string(id)))
		return policy.Disposition{}, false, nil
	}
	if err != nil {
		return policy.Disposition{}, false, err
	}
	request, err := proposal.Request()
	if err != nil || request.Action != policy.ActionErase || !slices.Contains(proposal.IDs, string(id)) || proposal.Approver == request.Requester || proposal.ApprovedAt.IsZero() {
		p.alarm(ctx, "disposition", "an erasure is planned that nobody approved", slog.String("conversation", string(id)))
		return policy.Disposition{}, false, nil
	}
	if proposal.State != policy.ProposalExecuted {
		return policy.Disposition{}, false, nil // a run died in between; it is planned again
	}
	d, err := p.erasure(ctx, id, holds, request)
	if r := (refusal{}); errors.As(err, &r) {
		_, err = p.record(ctx, custody.Event{Action: custody.EraseRefused, Item: string(id), Reason: r.ground, Detail: "request=" + digest})
		return policy.Disposition{}, false, err
	}
	if errors.Is(err, errGone) {
		return policy.Disposition{}, false, nil
	}
	return d, err == nil, err
}

// eraseNow destroys the keys first: from then on nothing can be read, whatever storage
// still holds. Objects under a date stay as ciphertext and go when it has passed.
func (p *pass) eraseNow(ctx context.Context, d *policy.Disposition) error {
	guard := p.guard(*d)
	if d.State == policy.DispositionBegun {
		for _, u := range d.Units {
			if err := p.s.Keeper.Shred(ctx, p.c.Tenant, u, guard); err != nil {
				return err
			}
		}
		if err := p.recall(ctx, d.Conversation); err != nil {
			return err
		}
		if err := p.bury(ctx, *d); err != nil {
			return err
		}
		d.State = policy.DispositionSealed
		d.Custodians = nil // the tombstone names nobody, and neither does this from here on
		if err := p.save(ctx, d); err != nil {
			return err
		}
		guard = p.guard(*d)
	}
	left := 0
	for _, u := range d.Units {
		_, stay, err := p.s.Keeper.Sweep(ctx, p.c.Tenant, u, guard)
		left += stay
		if err != nil {
			return err
		}
	}
	if left > 0 {
		p.log.InfoContext(ctx, "erased; ciphertext stays until its date has passed", slog.String("conversation", d.Conversation), slog.Int("objects", left))
		return nil
	}
	return p.finish(ctx, d)
}

var _ Evidence = (*evidence.Store)(nil)
