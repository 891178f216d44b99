package portal

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

// requestAnswer is a request that needs two persons, and what became of it.
type requestAnswer struct {
	Request    string               `json:"request"` // its digest, which an approval names
	Action     policy.RequestAction `json:"action"`
	IDs        []string             `json:"ids"` // what it is about
	Parameters map[string]string    `json:"parameters"`
	Reason     string               `json:"reason"`
	Requester  teams.PersonID       `json:"requester"`
	MadeAt     time.Time            `json:"madeAt"`
	Expires    time.Time            `json:"expires"`
	State      policy.ProposalState `json:"state"`
	Approver   teams.PersonID       `json:"approver,omitempty"`
	ApprovedAt time.Time            `json:"approvedAt,omitzero"`
	Outcome    string               `json:"outcome,omitempty"`
}

func readRequest(p policy.Proposal) (requestAnswer, error) {
	asked, err := p.Request()
	if err != nil {
		return requestAnswer{}, err
	}
	return requestAnswer{
		Request: p.Digest, Action: asked.Action, IDs: append([]string{}, p.IDs...), Parameters: asked.Parameters, Reason: asked.Reason,
		Requester: asked.Requester, MadeAt: p.MadeAt, Expires: asked.Expires, State: p.State,
		Approver: p.Approver, ApprovedAt: p.ApprovedAt, Outcome: p.Outcome,
	}, nil
}

// approvals lists the requests that wait for a second person, or for their time.
func (p *Portal) approvals(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := checkNames(r.URL.Query()); err != nil {
		return err
	}
	if err := p.only(r, c, "approvals", policy.ComplianceOfficer, policy.Auditor); err != nil {
		return err
	}
	open, err := p.stores.Requests.Open(r.Context())
	if err != nil {
		return err
	}
	out := []requestAnswer{}
	for _, request := range open {
		a, err := readRequest(request)
		if err != nil {
			// Somebody wrote into the store. Who would approve must see that, and not a gap.
			return fmt.Errorf("approvals: %w", err)
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b requestAnswer) int {
		return cmp.Or(a.MadeAt.Compare(b.MadeAt), cmp.Compare(a.Request, b.Request))
	})
	if err := p.note(r.Context(), c, custody.List, "approvals", fmt.Sprintf("%d requests", len(out))); err != nil {
		return err
	}
	var known []teams.PersonID
	for _, a := range out {
		known = append(known, a.Requester, a.Approver)
	}
	people, err := p.called(r.Context(), known...)
	if err != nil {
		return err
	}
	return p.reply(w, map[string]any{"requests": out, "people": people})
}

type erasureRequest struct {
	Conversations []string `json:"conversations"`
	Ground        string   `json:"ground"`
	NotLocked     bool     `json:"notLocked"`
	Reason        string   `json:"reason"`
}

// requestErasure asks for the erasure of conversations (GDPR Art. 17). A second person must
// agree; then it waits, and function retention executes it, or refuses it with its ground
// on record.
func (p *Portal) requestErasure(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := p.only(r, c, "erasures", policy.ComplianceOfficer, policy.Administrator); err != nil {
		return err
	}
	var body erasureRequest
	if err := readBody(r, &body); err != nil {
		return err
	}
	if len(body.Conversations) > maxErased {
		return badRequest(fmt.Sprintf("conversations: at most %d", maxErased))
	}
	for _, id := range body.Conversations {
		if _, err := conversation.ParseID(id); err != nil {
			return badRequest("conversations: want ids of conversations")
		}
	}
	if body.Ground == "" {
		return badRequest("ground: say on what the person's claim rests")
	}
	parameters := map[string]string{policy.ParameterGround: body.Ground}
	if body.NotLocked {
		parameters[policy.ParameterNotLocked] = "true"
	}
	request, err := policy.Propose(c.grant, policy.ActionErase, body.Conversations, parameters, body.Reason, p.config.Now(), policy.MaxRequestLife)
	if err != nil {
		return refused(err)
	}
	if err := p.note(r.Context(), c, custody.Requested, request.Digest, fmt.Sprintf("erase %d conversations", len(request.IDs))); err != nil {
		return err
	}
	if err := p.stores.Requests.Insert(r.Context(), request); err != nil {
		return refused(err)
	}
	a, err := readRequest(request)
	if err != nil {
		return refused(err)
	}
	return p.reply(w, a)
}

// maxErased is how many conversations one request may erase.
const maxErased = 200

// waiting reads a request that the caller, a compliance officer, is to decide on.
func (p *Portal) waiting(r *http.Request, c caller) (policy.Proposal, error) {
	digest := r.PathValue("request")
	if !requestForm.MatchString(digest) {
		return policy.Proposal{}, errNotFound
	}
	if err := p.only(r, c, digest, policy.ComplianceOfficer); err != nil {
		return policy.Proposal{}, err
	}
	request, err := p.stores.Requests.Get(r.Context(), digest)
	return request, refused(err)
}

type approveRequest struct {
	Request string `json:"request"` // the digest of what was read before agreeing
}

// approve notes that a second person agrees. A release happens at once; the rest is done by
// the function that does it, when its time has come.
func (p *Portal) approve(w http.ResponseWriter, r *http.Request, c caller) error {
	request, err := p.waiting(r, c)
	if err != nil {
		return err
	}
	var body approveRequest
	if err := readBody(r, &body); err != nil {
		return err
	}
	asked, err := request.Request()
	if err != nil {
		return refused(err)
	}
	// What was left between its two steps is finished by whoever approved it.
	again := (asked.Action == policy.ActionRelease || asked.Action == policy.ActionExport) && request.State != policy.ProposalPending && request.Approver == c.person && body.Request == request.Digest
	if !again {
		if request, err = request.Approve(c.grant, body.Request, p.config.Now()); err != nil {
			if nerr := p.note(r.Context(), c, custody.Denied, request.Digest, "approve"); nerr != nil {
				return nerr
			}
			return refused(err)
		}
		if err := p.note(r.Context(), c, custody.Approved, request.Digest, string(asked.Action)); err != nil {
			return err
		}
		if err := p.stores.Requests.Replace(r.Context(), request); err != nil {
			return refused(err)
		}
		if request, err = p.stores.Requests.Get(r.Context(), request.Digest); err != nil {
			return refused(err)
		}
	}
	if asked.Action == policy.ActionExport {
		if err := p.agreedExport(r.Context(), request); err != nil {
			return err
		}
	}
	if asked.Action == policy.ActionRelease {
		if err := p.release(r.Context(), c, request); err != nil {
			return err
		}
		if request, err = p.stores.Requests.Get(r.Context(), request.Digest); err != nil {
			return refused(err)
		}
	}
	a, err := readRequest(request)
	if err != nil {
		return refused(err)
	}
	return p.reply(w, a)
}

// reject notes that a request will not be granted.
func (p *Portal) reject(w http.ResponseWriter, r *http.Request, c caller) error {
	request, err := p.waiting(r, c)
	if err != nil {
		return err
	}
	if err := readBody(r, &struct{}{}); err != nil {
		return err
	}
	if request, err = request.Reject("rejected by a compliance officer", p.config.Now()); err != nil {
		return refused(err)
	}
	if err := p.note(r.Context(), c, custody.Rejected, request.Digest, ""); err != nil {
		return err
	}
	if err := p.stores.Requests.Replace(r.Context(), request); err != nil {
		return refused(err)
	}
	a, err := readRequest(request)
	if err != nil {
		return refused(err)
	}
	return p.reply(w, a)
}
