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
	"steno/shared/teams"
)

// errGone says that there is nothing of a conversation but its tombstone, or not even that.
var errGone = errors.New("the conversation is disposed or was never there")

// errRunning says that a call is still being recorded.
var errRunning = errors.New("a leg of the call is not sealed")

// subject is a conversation as retention sees it.
type subject struct {
	id    conversation.ID
	conv  conversation.Conversation
	legs  []conversation.Leg
	units []string
	facts policy.Facts
	held  int // objects that storage holds
	count int // objects stored
}

// subject reads a conversation, as far as its holds and its policies are concerned.
func (p *pass) subject(ctx context.Context, id conversation.ID) (subject, error) {
	slice, err := p.s.Catalog.Slice(ctx, id)
	if err != nil {
		return subject{}, err
	}
	s := subject{id: id, conv: slice.Conversation}
	custodians := slice.AllCustodians()
	// A chat is a day, and its day stands in its id, which is part of its objects' names: no
	// date of the catalog takes part.
	s.facts = policy.Facts{Start: id.Day(), End: id.Day().AddDate(0, 0, 1)}
	s.units = []string{string(id)}
	if slice.Revision == "" {
		call, err := p.s.Catalog.Call(ctx, id.Thread())
		if err != nil {
			return subject{}, err
		}
		if call.Revision == "" || call.Conversation.ID != id {
			return subject{}, fmt.Errorf("conversation %s: %w", id, errGone)
		}
		s.conv, s.legs, custodians, s.units = call.Conversation, call.Legs, call.AllCustodians(), nil
		s.facts.End = latest(id.Day(), s.conv.Last)
		for _, l := range call.Legs {
			s.units = append(s.units, string(l.Leg))
			s.facts.End = latest(s.facts.End, l.Started, l.To)
		}
	}
	if s.conv.Disposed != nil {
		return s, fmt.Errorf("conversation %s: %w", id, errGone)
	}
	s.facts.Tenant, s.facts.Conversation, s.facts.Modality = p.c.Tenant, string(id), string(s.conv.Modality)
	for _, c := range custodians {
		desks := policy.DesksAt(p.periods[c], c, s.facts.Start, s.facts.End, p.c.History)
		s.facts.Custodians = append(s.facts.Custodians, policy.CustodianFacts{Person: c, Desks: desks})
	}
	if slices.ContainsFunc(p.c.Policies, policy.DataPolicy.EventBased) {
		if s.facts.Events, err = p.s.Dispositions.Events(ctx, string(id)); err != nil {
			return subject{}, err
		}
	}
	return s, nil
}

// verified is the subject with its end worked out from evidence, and with the Retain
// Until that storage carries: what may be destroyed must not hang on a catalog's date.
func (p *pass) verified(ctx context.Context, id conversation.ID) (subject, error) {
	s, err := p.subject(ctx, id)
	if err != nil {
		return s, err
	}
	for _, l := range s.legs {
		end, err := p.endOf(ctx, id, l)
		if err != nil {
			return s, fmt.Errorf("leg %s: %w", l.Leg, err)
		}
		s.facts.End = latest(s.facts.End, end)
	}
	for _, u := range s.units {
		state, err := p.s.Keeper.State(ctx, p.c.Tenant, u)
		if err != nil {
			return s, err
		}
		s.facts.Set = latest(s.facts.Set, state.Until)
		s.held += state.Held
		s.count += state.Objects
	}
	return s, nil
}

// endOf is when a leg ended, as its sealed manifest has it. Where that is gone, or its key,
// it is when the newest of its objects was stored; where nothing is stored, there is
// nothing to destroy.
func (p *pass) endOf(ctx context.Context, id conversation.ID, l conversation.Leg) (time.Time, error) {
	if l.State != conversation.LegSealed {
		return time.Time{}, errRunning
	}
	state, err := p.s.Keeper.State(ctx, p.c.Tenant, string(l.Leg))
	if err != nil || state.Objects == 0 {
		return time.Time{}, err
	}
	receipt, err := p.s.Trail.Append(ctx, custody.Event{
		Tenant: p.c.Tenant, Action: custody.SystemRead, System: system, Item: string(l.Leg), Reason: "how old it is",
	})
	if err != nil {
		return time.Time{}, err
	}
	ref := evidence.Ref{Tenant: p.c.Tenant, Unit: string(l.Leg), Object: conversation.ManifestObject(l.Leg)}
	o, err := p.s.Evidence.Open(ctx, ref, receipt)
	if errors.Is(err, evidence.ErrNotFound) {
		return state.Newest, nil // of what is left of it, storage's own word
	}
	if err != nil {
		return time.Time{}, err
	}
	plain, err := o.ReadAll(evidence.MaxSealed)
	if err != nil {
		return time.Time{}, err
	}
	m, err := conversation.DecodeManifest(plain)
	if err != nil {
		return time.Time{}, err
	}
	if m.Tenant != p.c.Tenant || m.Leg != l.Leg || conversation.CallKeyOf(m.Tenant, m.Chain) != id.Thread() {
		return time.Time{}, errors.New("its manifest is that of another leg or call")
	}
	_, end := m.Span()
	end = latest(end, m.Epoch)
	if m.Invite != nil {
		end = latest(end, m.Invite.At)
	}
	for _, e := range m.Events {
		end = latest(end, e.At)
	}
	return end, nil
}

func latest(times ...time.Time) time.Time {
	var out time.Time
	for _, t := range times {
		if t.After(out) {
			out = t
		}
	}
	return out
}

// covered lists the conversations that a matter speaks of.
func (p *pass) covered(ctx context.Context, m policy.Matter) ([]subject, error) {
	var out []subject
	seen := map[conversation.ID]bool{}
	take := func(id conversation.ID) error {
		if seen[id] {
			return nil
		}
		seen[id] = true
		s, err := p.subject(ctx, id)
		if errors.Is(err, errGone) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.Covers(s.facts) {
			out = append(out, s)
		}
		return nil
	}
	for _, c := range m.Conversations {
		id, err := conversation.ParseID(c)
		if err != nil {
			// It covers nothing there is, and must not keep the other matters from holding.
			p.log.WarnContext(ctx, "a matter names what is no conversation", slog.String("matter", m.ID))
			continue
		}
		if err := take(id); err != nil {
			return nil, err
		}
	}
	for _, person := range m.Custodians {
		if err := p.eachOf(ctx, person, take); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// eachOf calls f for every conversation that a person's listing has.
func (p *pass) eachOf(ctx context.Context, person teams.PersonID, f func(conversation.ID) error) error {
	var request conversation.PageRequest
	for {
		page, err := p.s.Catalog.ByPerson(ctx, person, conversation.Earliest, conversation.Latest, request)
		if err != nil {
			return fmt.Errorf("list conversations of a custodian: %w", err)
		}
		for _, c := range page.Conversations {
			request.After = c.Position()
			if err := f(c.ID); err != nil {
				return err
			}
		}
		if !page.More {
			return nil
		}
	}
}
