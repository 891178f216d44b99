package policy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"steno/shared/teams"
)

// RequestAction is what two persons must agree on.
type RequestAction string

// The actions that need two persons.
const (
	ActionRelease RequestAction = "release-hold" // end a legal hold
	ActionErase   RequestAction = "erase"        // erase conversations on a person's request (GDPR Art. 17)
	ActionExport  RequestAction = "export"       // hand out more than a few conversations
	ActionDispose RequestAction = "dispose"      // dispose more than the daily cap in one day
)

// requesters says who may ask for an action. A compliance officer approves each of them.
var requesters = map[RequestAction][]Role{
	ActionRelease: {ComplianceOfficer},
	ActionErase:   {ComplianceOfficer, Administrator},
	ActionExport:  {ComplianceOfficer},
	ActionDispose: {ComplianceOfficer, Administrator},
}

// Limits of a request.
const (
	// MaxRequestLife is how long a request waits for its approval at most, and how long an
	// approval is good once it may be executed.
	MaxRequestLife = 72 * time.Hour
	MinReason      = 10  // characters
	MaxReason      = 500 // characters
	maxParameters  = 16
)

// Parameters of an erasure.
const (
	// ParameterGround is why the person may ask for it, in words of the law.
	ParameterGround = "ground"
	// ParameterNotLocked set to "true" says that those who sign have found that no duty to
	// retain stands against the erasure. It is executed before Retain Until only if no
	// object is under a locked policy, which storage is asked.
	ParameterNotLocked = "notLocked"
	// ParameterMatter is the matter that a release names.
	ParameterMatter = "matter"
)

// Request is what a second person is asked to agree to. Its digest is what she signs.
type Request struct {
	Action     RequestAction     `json:"action"`
	Expires    time.Time         `json:"expires"` // whole seconds, UTC
	Objects    string            `json:"objects"` // ObjectSet of what it is about
	Parameters map[string]string `json:"parameters"`
	Reason     string            `json:"reason"`
	Requester  teams.PersonID    `json:"requester"`
	V          string            `json:"v"` // requestVersion: a signed request is nothing else
}

const requestVersion = "steno-request-v1"

// ObjectSet is the digest of a set of ids, in whatever order they are given: hex SHA-256 of
// "steno-object-set-v1\0" and the sorted ids, each followed by a line end.
func ObjectSet(ids ...string) string {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	h := sha256.New()
	h.Write([]byte("steno-object-set-v1\x00"))
	for _, id := range slices.Compact(ids) {
		h.Write([]byte(id + "\n"))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Propose makes a request of the person of the grant, about the given ids, as a proposal
// that can be stored. It waits for its approval for life, at most MaxRequestLife.
func Propose(g Grant, action RequestAction, ids []string, parameters map[string]string, reason string, now time.Time, life time.Duration) (Proposal, error) {
	roles, known := requesters[action]
	n := utf8.RuneCountInString(reason)
	switch {
	case !known:
		return Proposal{}, refuse("unknown action %.40q", string(action))
	case g.Person() == "" || !slices.ContainsFunc(roles, g.Has):
		return Proposal{}, refuse("%s can be asked for by %v only", action, roles)
	case len(ids) == 0:
		return Proposal{}, refuse("%s of nothing; name what it is about", action)
	case n < MinReason || n > MaxReason || !plainText(reason) || strings.TrimSpace(reason) != reason:
		return Proposal{}, refuse("a reason of %d characters; want %d to %d, without line ends, control characters and blanks around", n, MinReason, MaxReason)
	case life <= 0 || life > MaxRequestLife:
		return Proposal{}, refuse("a request that waits for %s; want more than none and at most %s", life, MaxRequestLife)
	case len(parameters) > maxParameters:
		return Proposal{}, refuse("%d parameters, more than %d", len(parameters), maxParameters)
	}
	for k, v := range parameters {
		if !plainText(k) || !plainText(v) || len(k) > 64 || len(v) > 1000 || k == "" {
			return Proposal{}, refuse("parameter %.40q holds control characters or is too long", k)
		}
	}
	if parameters == nil {
		parameters = map[string]string{}
	}
	r := Request{
		Action: action, Expires: now.Add(life).UTC().Truncate(time.Second), Objects: ObjectSet(ids...),
		Parameters: parameters, Reason: reason, Requester: g.Person(), V: requestVersion,
	}
	b, err := r.canonical()
	if err != nil {
		return Proposal{}, err
	}
	sorted := slices.Clone(ids)
	slices.Sort(sorted)
	return Proposal{Digest: digestOf(b), Text: b, IDs: slices.Compact(sorted), State: ProposalPending, MadeAt: now.UTC()}, nil
}

// canonical is the request as RFC 8785 spells it: members sorted, texts that need no
// escape but the usual ones, and no number.
func (r Request) canonical() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil { // fields stand in the order of their names, maps are sorted
		return nil, fmt.Errorf("request: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func digestOf(b []byte) string {
	d := sha256.Sum256(b)
	return hex.EncodeToString(d[:])
}

// ProposalState is how far a proposal has come.
type ProposalState string

// The states of a proposal. Executed and refused are final.
const (
	ProposalPending  ProposalState = "pending"
	ProposalApproved ProposalState = "approved"
	ProposalExecuted ProposalState = "executed"
	ProposalRefused  ProposalState = "refused"
)

// Proposal is a request and what became of it.
type Proposal struct {
	Digest string `json:"digest"` // hex SHA-256 of Text, and the proposal's id
	Text   []byte `json:"text"`   // the request in canonical JSON
	// IDs are what it is about; their ObjectSet stands in the request.
	IDs        []string       `json:"ids"`
	State      ProposalState  `json:"state"`
	MadeAt     time.Time      `json:"madeAt"`
	Approver   teams.PersonID `json:"approver,omitempty"`
	ApprovedAt time.Time      `json:"approvedAt,omitzero"`
	ClosedAt   time.Time      `json:"closedAt,omitzero"` // executed or refused
	// Outcome says why it was refused, without personal data.
	Outcome string `json:"outcome,omitempty"`

	Revision string `json:"-"` // the store's token for optimistic concurrency
}

// Request reads what the proposal asks for, and refuses one whose text is not the text of
// its digest: whoever can write the row cannot change what was signed.
func (p Proposal) Request() (Request, error) {
	var r Request
	if digestOf(p.Text) != p.Digest {
		return r, refuse("proposal %.64s: its text is not the one of its digest", p.Digest)
	}
	if err := json.Unmarshal(p.Text, &r); err != nil {
		return r, refuse("proposal %.64s: %w", p.Digest, err)
	}
	again, err := r.canonical()
	if err != nil || !bytes.Equal(again, p.Text) || r.V != requestVersion {
		return r, refuse("proposal %.64s: its text is no request in canonical form", p.Digest)
	}
	if r.Objects != ObjectSet(p.IDs...) {
		return r, refuse("proposal %.64s: what it lists is not what it was made for", p.Digest)
	}
	return r, nil
}

// Approve notes the agreement of the person of the grant to exactly the request of the
// given digest. She must be a compliance officer now, and not who asked.
func (p Proposal) Approve(g Grant, digest string, now time.Time) (Proposal, error) {
	r, err := p.Request()
	switch {
	case err != nil:
		return p, err
	case digest != p.Digest:
		return p, refuse("the approval names another request")
	case p.State != ProposalPending:
		return p, refuse("the request is %s; it cannot be approved", p.State)
	case !now.Before(r.Expires):
		return p, refuse("the request ran out at %s; it must be made again", r.Expires.Format(time.RFC3339))
	case now.Before(p.MadeAt):
		return p, refuse("the request is from the future: a clock is wrong")
	case g.Person() == r.Requester:
		return p, refuse("who asked for it cannot approve it: another person must")
	case g.Person() == "" || !g.Has(ComplianceOfficer):
		return p, refuse("a %s must approve it", ComplianceOfficer)
	}
	p.State, p.Approver, p.ApprovedAt = ProposalApproved, g.Person(), now.UTC()
	return p, nil
}

// Reject notes that a request will not be executed, and why.
func (p Proposal) Reject(why string, now time.Time) (Proposal, error) {
	if p.State != ProposalPending && p.State != ProposalApproved {
		return p, refuse("the request is %s already", p.State)
	}
	p.State, p.Outcome, p.ClosedAt = ProposalRefused, why, now.UTC()
	return p, nil
}

// Ripe reports whether an approved proposal has waited for as long as it must.
func (p Proposal) Ripe(now time.Time, wait time.Duration) bool {
	return p.State == ProposalApproved && !now.Before(p.ApprovedAt.Add(wait))
}

// Execute checks all that must hold when the deed is done, and notes that the approval is
// used up: it is approved, has waited, has not run out since, both persons still have
// their roles, and what it is about is still ids. The caller stores the result with
// Approvals.Replace before it acts; of two who do so one gets ErrChanged.
func (p Proposal) Execute(ids []string, requester, approver Grant, now time.Time, wait time.Duration) (Proposal, error) {
	r, err := p.Request()
	if err != nil {
		return p, err
	}
	ready := p.ApprovedAt.Add(wait)
	switch {
	case p.State != ProposalApproved:
		return p, refuse("the request is %s, not approved; an approval is used once", p.State)
	case p.Approver == "" || p.Approver == r.Requester:
		return p, refuse("no second person approved it")
	case p.ApprovedAt.After(r.Expires) || p.ApprovedAt.Before(p.MadeAt):
		return p, refuse("it was approved when it could not be")
	case now.Before(ready):
		return p, refuse("it must wait until %s", ready.Format(time.RFC3339))
	case !now.Before(ready.Add(MaxRequestLife)):
		return p, refuse("the approval ran out at %s; it must be asked for again", ready.Add(MaxRequestLife).Format(time.RFC3339))
	case requester.Person() != r.Requester || !slices.ContainsFunc(requesters[r.Action], requester.Has):
		return p, refuse("who asked for it may not ask for it any more")
	case approver.Person() != p.Approver || !approver.Has(ComplianceOfficer):
		return p, refuse("who approved it is no %s any more", ComplianceOfficer)
	case ObjectSet(ids...) != r.Objects:
		return p, refuse("what it is about has changed since it was approved")
	}
	p.State, p.ClosedAt = ProposalExecuted, now.UTC()
	return p, nil
}

// Approvals is the store of proposals.
type Approvals interface {
	// Insert stores a new proposal, durably when it returns nil. ErrExists if the same
	// request was made before.
	Insert(ctx context.Context, p Proposal) error
	// Get reads one with its revision, ErrNotFound if there is none.
	Get(ctx context.Context, digest string) (Proposal, error)
	// Open lists those that are pending or approved, by digest.
	Open(ctx context.Context) ([]Proposal, error)
	// Replace stores a proposal that is still at p.Revision, else ErrChanged and nothing
	// changes. The stored proposal has a new revision.
	Replace(ctx context.Context, p Proposal) error
}
