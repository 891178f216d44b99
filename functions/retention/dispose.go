package retention

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
)

// errHeld stops a deletion because a matter protects the conversation.
var errHeld = errors.New("a matter protects the conversation")

// errUnbacked says that no custody event is behind a disposition.
var errUnbacked = errors.New("no custody event says so")

// plan writes down what is due and not held. Nothing is destroyed by it.
func (p *pass) plan(ctx context.Context) error {
	holds, err := p.holds(ctx)
	if err != nil {
		return err
	}
	var faults []error
	for _, id := range p.due {
		d, due, err := p.dueNow(ctx, id, holds)
		if err != nil {
			faults = append(faults, fmt.Errorf("plan disposition of %s: %w", id, err))
			continue
		}
		if !due {
			continue
		}
		if err := p.s.Dispositions.Insert(ctx, d); err != nil && !errors.Is(err, policy.ErrExists) {
			faults = append(faults, fmt.Errorf("plan disposition of %s: %w", id, err))
		}
	}
	return errors.Join(faults...)
}

// dueNow decides whether a conversation may be disposed now, and describes how.
func (p *pass) dueNow(ctx context.Context, id conversation.ID, holds policy.Holds) (policy.Disposition, bool, error) {
	s, err := p.subject(ctx, id)
	if errors.Is(err, errGone) {
		return policy.Disposition{}, false, nil
	}
	if err != nil {
		return policy.Disposition{}, false, err
	}
	if _, held := holds.Cover(s.facts, p.now); held || !p.c.Policies.Decide(s.facts).Due(p.now) {
		return policy.Disposition{}, false, nil // the cheap question first: most are not due
	}
	s, err = p.verified(ctx, id)
	if errors.Is(err, errRunning) || errors.Is(err, errGone) {
		return policy.Disposition{}, false, nil
	}
	if err != nil {
		return policy.Disposition{}, false, err
	}
	ruling := p.c.Policies.Decide(s.facts)
	if s.held > 0 {
		p.log.WarnContext(ctx, "due, but storage holds objects that no matter protects", slog.String("conversation", string(id)), slog.Int("objects", s.held))
		return policy.Disposition{}, false, nil
	}
	if !ruling.Due(p.now) {
		p.log.WarnContext(ctx, "the catalog says due, evidence does not", slog.String("conversation", string(id)), slog.Time("until", ruling.Until))
		return policy.Disposition{}, false, nil
	}
	return p.disposition(s, policy.GroundExpiry, ruling), true, nil
}

func (p *pass) disposition(s subject, ground string, ruling policy.Retention) policy.Disposition {
	return policy.Disposition{
		Conversation: string(s.id), Units: s.units, Modality: s.facts.Modality, Custodians: s.facts.Custodians,
		Start: s.facts.Start, End: s.facts.End, Ground: ground, Policy: ruling.Policy, Until: ruling.Until,
		State: policy.DispositionPlanned, PlannedAt: p.now, Objects: s.count,
	}
}

// execute carries on every disposition, as far as the cap allows.
func (p *pass) execute(ctx context.Context) error {
	list, err := p.s.Dispositions.List(ctx)
	if err != nil {
		return fmt.Errorf("read dispositions: %w", err)
	}
	allowed, err := p.withinCap(ctx, list)
	if err != nil {
		return err
	}
	var faults []error
	for _, d := range list {
		if d.State == policy.DispositionPlanned && d.Ground == policy.GroundExpiry && !allowed {
			continue
		}
		if err := p.carryOn(ctx, d); err != nil {
			faults = append(faults, fmt.Errorf("disposition of %s: %w", d.Conversation, err))
		}
	}
	return errors.Join(faults...)
}

// withinCap reports whether what is planned may be begun: together with what was begun
// today it is no more than the day's cap, or two persons agreed to exactly this plan.
func (p *pass) withinCap(ctx context.Context, list []policy.Disposition) (bool, error) {
	var planned []string
	today := 0
	for _, d := range list {
		switch {
		case d.Ground != policy.GroundExpiry:
		case d.State == policy.DispositionPlanned:
			planned = append(planned, d.Conversation)
		case sameDay(d.BegunAt, p.now):
			today++
		}
	}
	most := max(CapFloor, int(math.Floor(p.c.Cap*float64(p.total))))
	if len(planned) == 0 || today+len(planned) <= most {
		return true, nil
	}
	agreed, err := p.agreed(ctx, planned)
	if err != nil || agreed {
		return agreed, err
	}
	p.alarm(ctx, "disposal-cap", "nothing is disposed: more is due than a day's cap allows without approval",
		slog.Int("due", len(planned)), slog.Int("begun", today), slog.Int("cap", most), slog.String("set", policy.ObjectSet(planned...)))
	_, err = p.record(ctx, custody.Event{
		Action: custody.DisposeRefused, Item: "disposal-cap", Detail: fmt.Sprintf("due=%d begun=%d cap=%d set=%s", len(planned), today, most, policy.ObjectSet(planned...)),
	})
	return false, err
}

// agreed uses up an approval of disposing exactly these conversations, if there is one.
func (p *pass) agreed(ctx context.Context, planned []string) (bool, error) {
	open, err := p.s.Approvals.Open(ctx)
	if err != nil {
		return false, fmt.Errorf("read approvals: %w", err)
	}
	for _, proposal := range open {
		request, err := proposal.Request()
		if err != nil || request.Action != policy.ActionDispose || proposal.State != policy.ProposalApproved {
			continue
		}
		done, err := p.sign(ctx, proposal, request, planned, 0)
		if errors.Is(err, policy.ErrRefused) {
			p.log.WarnContext(ctx, "an approval to dispose more than the cap is not used", slog.String("request", proposal.Digest), slog.String("cause", err.Error()))
			continue
		}
		if err != nil {
			return false, err
		}
		return true, p.s.Approvals.Replace(ctx, done)
	}
	return false, nil
}

// sign checks a proposal at the moment of its execution, with the roles that both persons
// have now.
func (p *pass) sign(ctx context.Context, proposal policy.Proposal, request policy.Request, ids []string, wait time.Duration) (policy.Proposal, error) {
	requester, err := policy.GrantFor(ctx, p.s.Roster, request.Requester, p.now)
	if err != nil {
		return proposal, err
	}
	approver, err := policy.GrantFor(ctx, p.s.Roster, proposal.Approver, p.now)
	if err != nil {
		return proposal, err
	}
	return proposal.Execute(ids, requester, approver, p.now, wait)
}

func sameDay(a, b time.Time) bool {
	return a.UTC().Format(time.DateOnly) == b.UTC().Format(time.DateOnly)
}

// carryOn takes one disposition as far as it goes.
func (p *pass) carryOn(ctx context.Context, d policy.Disposition) error {
	if d.State == policy.DispositionPlanned {
		begun, err := p.begin(ctx, &d)
		if err != nil || !begun {
			return err
		}
	} else if err := p.authentic(ctx, d); !errors.Is(err, errUnbacked) && err != nil {
		return err
	} else if err != nil {
		p.alarm(ctx, "disposition", "a disposition is not carried on: nothing in the trail is behind it", slog.String("conversation", d.Conversation), slog.String("cause", err.Error()))
		return nil
	}
	var err error
	switch {
	case d.State == policy.DispositionDone:
		return nil
	case d.Ground == policy.GroundErasure:
		err = p.eraseNow(ctx, &d)
	default:
		err = p.disposeNow(ctx, &d)
	}
	if errors.Is(err, errHeld) || errors.Is(err, evidence.ErrHeld) || errors.Is(err, evidence.ErrLocked) {
		// Something stands against it after all. What is left stays, and it is decided anew.
		p.log.WarnContext(ctx, "a disposition is stopped", slog.String("conversation", d.Conversation), slog.String("cause", err.Error()))
		if d.State == policy.DispositionBegun {
			d.State = policy.DispositionPlanned
			return p.save(ctx, &d)
		}
		return nil
	}
	return err
}

// save stores a disposition and reads its new revision.
func (p *pass) save(ctx context.Context, d *policy.Disposition) error {
	if err := p.s.Dispositions.Replace(ctx, *d); err != nil {
		return err
	}
	now, err := p.s.Dispositions.Get(ctx, d.Conversation)
	if err != nil {
		return err
	}
	d.Revision = now.Revision
	return nil
}

// begin decides anew about what was planned, and puts the deed on record before it is
// done. It reports false if there is nothing to do any more, or not now.
func (p *pass) begin(ctx context.Context, d *policy.Disposition) (bool, error) {
	id, err := conversation.ParseID(d.Conversation)
	if err != nil {
		return false, err
	}
	holds, err := p.holds(ctx)
	if err != nil {
		return false, err
	}
	var fresh policy.Disposition
	stands := false
	action := custody.Dispose
	if d.Ground == policy.GroundErasure {
		action = custody.Erase
		fresh, stands, err = p.erasable(ctx, id, holds, d.Request)
	} else {
		fresh, stands, err = p.dueNow(ctx, id, holds)
	}
	if err != nil {
		return false, err
	}
	if !stands {
		return false, p.s.Dispositions.Delete(ctx, d.Conversation) // planned again when it stands
	}
	fresh.PlannedAt, fresh.Request, fresh.Revision = d.PlannedAt, d.Request, d.Revision
	// What an earlier try destroyed before it was stopped stays on record.
	fresh.Keys, fresh.Objects = d.Keys, max(d.Objects, fresh.Objects)
	for _, u := range fresh.Units {
		keys, err := p.s.Keeper.KeyIDs(ctx, p.c.Tenant, u)
		if err != nil {
			return false, err
		}
		fresh.Keys = append(fresh.Keys, keys...)
	}
	slices.Sort(fresh.Keys)
	fresh.Keys = slices.Compact(fresh.Keys)
	detail := setOf(fresh) + fmt.Sprintf(" ground=%s policy=%s until=%s units=%d keys=%d", fresh.Ground, fresh.Policy, fresh.Until.Format(time.RFC3339), len(fresh.Units), len(fresh.Keys))
	if fresh.Event, err = p.record(ctx, custody.Event{Action: action, Item: fresh.Conversation, Reason: fresh.Request, Detail: detail}); err != nil {
		return false, err
	}
	fresh.State, fresh.BegunAt = policy.DispositionBegun, p.now
	*d = fresh
	return true, p.save(ctx, d)
}

// setOf is how a custody event names the units that are to be destroyed.
func setOf(d policy.Disposition) string { return "set=" + policy.ObjectSet(d.Units...) }

// authentic checks that the custody event of a disposition that is begun is in the trail
// and speaks of the same units: a row alone destroys nothing.
func (p *pass) authentic(ctx context.Context, d policy.Disposition) error {
	at, err := custody.TimeOf(d.Event)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnbacked, err)
	}
	records, err := p.s.Trail.Trail.Range(ctx, at, at.Add(time.Millisecond), 1000)
	if err != nil {
		return err
	}
	want := custody.Dispose
	if d.Ground == policy.GroundErasure {
		want = custody.Erase
	}
	for _, r := range records {
		if r.ID == d.Event && r.Action == want && r.System == system && r.Item == d.Conversation && strings.HasPrefix(r.Detail, setOf(d)+" ") {
			return nil
		}
	}
	return errUnbacked
}

// guard is asked before each deletion: the matters are read again, since one may have been
// placed after the plan.
func (p *pass) guard(d policy.Disposition) evidence.Guard {
	return func(ctx context.Context) error {
		holds, err := p.holds(ctx)
		if err != nil {
			return err
		}
		if m, held := holds.Cover(d.Facts(), p.now); held {
			return fmt.Errorf("%w: %s", errHeld, m.ID)
		}
		return nil
	}
}

// disposeNow destroys a conversation whose time has passed: objects first and keys last,
// so that what a hold stops halfway can still be read.
func (p *pass) disposeNow(ctx context.Context, d *policy.Disposition) error {
	guard := p.guard(*d)
	for _, u := range d.Units {
		if err := p.s.Keeper.Check(ctx, p.c.Tenant, u); err != nil {
			return err
		}
	}
	for _, u := range d.Units {
		_, left, err := p.s.Keeper.Sweep(ctx, p.c.Tenant, u, guard)
		if err == nil && left > 0 {
			err = evidence.ErrLocked
		}
		if err != nil {
			return err
		}
	}
	for _, u := range d.Units {
		if err := p.s.Keeper.Shred(ctx, p.c.Tenant, u, guard); err != nil {
			return err
		}
	}
	return p.finish(ctx, d)
}

// finish leaves the tombstone, and puts the completion on record.
func (p *pass) finish(ctx context.Context, d *policy.Disposition) error {
	if err := p.bury(ctx, *d); err != nil {
		return err
	}
	// The units stand there by name: whoever finds an object missing that the log binds finds
	// here where it went.
	detail := fmt.Sprintf("ground=%s objects=%d event=%s units=%s keys=%s",
		d.Ground, d.Objects, d.Event, strings.Join(d.Units, ","), strings.Join(d.Keys[:min(len(d.Keys), maxKeysNamed)], ","))
	if _, err := p.record(ctx, custody.Event{Action: custody.Disposed, Item: d.Conversation, Detail: detail}); err != nil {
		return err
	}
	d.State, d.DoneAt, d.Custodians, d.Start, d.End = policy.DispositionDone, p.now, nil, time.Time{}, time.Time{}
	return p.save(ctx, d)
}

// maxKeysNamed bounds a custody event, which must fit one row.
const maxKeysNamed = 500

func (p *pass) bury(ctx context.Context, d policy.Disposition) error {
	err := p.s.Catalog.Bury(ctx, conversation.ID(d.Conversation), conversation.Disposed{At: p.now, Ground: d.Ground, Policy: d.Policy, Event: d.Event})
	if errors.Is(err, conversation.ErrNoConversation) {
		return nil
	}
	return err
}
