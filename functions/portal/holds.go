package portal

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Ids in addresses.
var (
	matterForm  = regexp.MustCompile(`^[0-9a-f]{32}$`)
	requestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// note leaves a custody event of the caller's. A change follows it, and does not happen if
// it cannot be written.
func (p *Portal) note(ctx context.Context, c caller, action custody.Action, item, detail string) error {
	_, err := p.stores.Trail.Append(ctx, custody.Event{
		Tenant: p.config.Tenant, Action: action, Actor: c.person, Session: c.session, Item: item, Detail: detail,
	})
	return err
}

// only answers as if there were nothing to those who hold none of the roles, and leaves an
// event of the attempt.
func (p *Portal) only(r *http.Request, c caller, item string, roles ...policy.Role) error {
	if slices.ContainsFunc(roles, c.grant.Has) {
		return nil
	}
	if err := p.note(r.Context(), c, custody.Denied, item, r.Method); err != nil {
		return err
	}
	return errNotFound
}

// matters lists the legal holds, the newest first, those that were released included.
func (p *Portal) matters(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := checkNames(r.URL.Query()); err != nil {
		return err
	}
	if err := p.only(r, c, "matters", policy.ComplianceOfficer, policy.Auditor); err != nil {
		return err
	}
	all, err := p.stores.Matters.List(r.Context())
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b policy.Matter) int { return b.PlacedAt.Compare(a.PlacedAt) })
	if err := p.note(r.Context(), c, custody.List, "matters", fmt.Sprintf("%d matters", len(all))); err != nil {
		return err
	}
	var known []teams.PersonID
	for _, m := range all {
		known = append(append(known, m.PlacedBy), m.Custodians...)
	}
	people, err := p.called(r.Context(), known...)
	if err != nil {
		return err
	}
	return p.reply(w, map[string]any{"matters": append([]policy.Matter{}, all...), "people": people})
}

type holdRequest struct {
	Title         string           `json:"title"`
	Custodians    []teams.PersonID `json:"custodians"`
	Conversations []string         `json:"conversations"`
	From          time.Time        `json:"from"`
	To            time.Time        `json:"to"`
}

// placeHold places a legal hold. From the answer on nothing that it covers is disposed or
// erased; storage holds the objects from the next run of retention on.
func (p *Portal) placeHold(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := p.only(r, c, "matters", policy.ComplianceOfficer); err != nil {
		return err
	}
	var body holdRequest
	if err := readBody(r, &body); err != nil {
		return err
	}
	m, err := policy.Place(policy.Matter{
		Title: body.Title, Custodians: body.Custodians, Conversations: body.Conversations, From: body.From, To: body.To,
	}, c.person, p.config.Now())
	if err != nil {
		return refused(err)
	}
	detail := fmt.Sprintf("%d custodians, %d conversations", len(m.Custodians), len(m.Conversations))
	if err := p.note(r.Context(), c, custody.Hold, m.ID, detail); err != nil {
		return err
	}
	if err := p.stores.Matters.Insert(r.Context(), m); err != nil {
		return refused(err)
	}
	return p.reply(w, m)
}

type reasonRequest struct {
	Reason string `json:"reason"`
}

// requestRelease asks for the end of a legal hold. It holds on until a second person agrees,
// and what it covered for the grace period after.
func (p *Portal) requestRelease(w http.ResponseWriter, r *http.Request, c caller) error {
	id := r.PathValue("matter")
	if !matterForm.MatchString(id) {
		return errNotFound
	}
	if err := p.only(r, c, id, policy.ComplianceOfficer); err != nil {
		return err
	}
	var body reasonRequest
	if err := readBody(r, &body); err != nil {
		return err
	}
	m, err := p.stores.Matters.Get(r.Context(), id)
	if err != nil {
		return refused(err)
	}
	request, err := policy.Propose(c.grant, policy.ActionRelease, []string{id}, map[string]string{policy.ParameterMatter: id}, body.Reason, p.config.Now(), policy.MaxRequestLife)
	if err != nil {
		return refused(err)
	}
	if m, err = m.Releasing(request.Digest); err != nil {
		return refused(err)
	}
	if err := p.note(r.Context(), c, custody.ReleaseRequest, id, "request="+request.Digest); err != nil {
		return err
	}
	if err := p.stores.Requests.Insert(r.Context(), request); err != nil {
		return refused(err)
	}
	if err := p.stores.Matters.Replace(r.Context(), m); err != nil {
		return refused(err)
	}
	a, err := readRequest(request)
	if err != nil {
		return refused(err)
	}
	return p.reply(w, a)
}

// release ends a hold on the word of two persons: request is an approved one. Who calls it
// again finishes what was left half done.
func (p *Portal) release(ctx context.Context, c caller, request policy.Proposal) error {
	asked, err := request.Request()
	if err != nil {
		return refused(err)
	}
	m, err := p.stores.Matters.Get(ctx, asked.Parameters[policy.ParameterMatter])
	if err != nil {
		return refused(err)
	}
	now := p.config.Now()
	if request.State != policy.ProposalExecuted {
		requester, err := policy.GrantFor(ctx, p.stores.Roster, asked.Requester, now)
		if err != nil {
			return err
		}
		if request, err = request.Execute([]string{m.ID}, requester, c.grant, now, 0); err != nil {
			return refused(err)
		}
		if err := p.note(ctx, c, custody.Release, m.ID, "request="+request.Digest); err != nil {
			return err
		}
		if err := p.stores.Requests.Replace(ctx, request); err != nil {
			return refused(err)
		}
	}
	if m, err = m.Released(request, now); err != nil {
		return refused(err)
	}
	return refused(p.stores.Matters.Replace(ctx, m))
}
