package policy

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"steno/shared/teams"
)

// Limits of an export.
const (
	// MaxExportAlone is how many conversations one compliance officer hands out alone.
	// Beyond it a second one must agree.
	MaxExportAlone = 100
	// MaxExport is how many conversations one package holds: its order must fit a row of a table.
	MaxExport = 1000
	// MaxCheckpoints is how many older checkpoints a package proves that it continues.
	MaxCheckpoints = 16
	// ExportLife is how long a finished package can be fetched.
	ExportLife = 7 * 24 * time.Hour
)

// ExportState is how far an export has come.
type ExportState string

// The states of an export. Ready, failed and expired are final, but that ready expires.
const (
	ExportRequested ExportState = "requested" // waits for a second person
	ExportApproved  ExportState = "approved"  // may be built
	ExportBuilding  ExportState = "building"
	ExportReady     ExportState = "ready"
	ExportFailed    ExportState = "failed"
	ExportExpired   ExportState = "expired"
)

// ExportOrder is an export of conversations as a package that proves itself.
type ExportOrder struct {
	ID            string         `json:"id"` // 32 hex digits
	Requester     teams.PersonID `json:"requester"`
	Case          string         `json:"case"`   // reference to a case or matter, 1 to 200 characters
	Reason        string         `json:"reason"` // why, as for every request
	Conversations []string       `json:"conversations"`
	// Checkpoints are sizes of older checkpoints of the custody log that whoever gets the
	// package holds: it proves that the log continues them.
	Checkpoints []int64 `json:"checkpoints,omitempty"`
	// Recipient is an age X25519 public key to which the package is encrypted; empty for none.
	Recipient string         `json:"recipient,omitempty"`
	State     ExportState    `json:"state"`
	MadeAt    time.Time      `json:"madeAt"`
	Request   string         `json:"request,omitempty"` // digest of the request that two persons agreed to
	Approver  teams.PersonID `json:"approver,omitempty"`
	Attempts  int            `json:"attempts,omitempty"`
	// Unit is where the finished package lies, Size and SHA256 what it is.
	Unit    string    `json:"unit,omitempty"`
	Size    int64     `json:"size,omitempty"`
	SHA256  string    `json:"sha256,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	Failure string    `json:"failure,omitempty"` // why it failed, without personal data

	Revision string `json:"-"` // the store's token for optimistic concurrency
}

var recipientForm = regexp.MustCompile(`^age1[02-9ac-hj-np-z]{58}$`)

// Order checks a new export of the person of the grant, and gives it an id. Only Case,
// Reason, Conversations, Checkpoints and Recipient of o are taken. All faults are reported
// at once. An order of more than MaxExportAlone conversations waits for a second person.
func Order(g Grant, o ExportOrder, now time.Time) (ExportOrder, error) {
	if g.Person() == "" || !g.Has(ComplianceOfficer) {
		return ExportOrder{}, refuse("an export can be asked for by a %s only", ComplianceOfficer)
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, refuse(format, args...)) }
	if n := utf8.RuneCountInString(o.Case); n < 1 || n > MaxTitle || !plainText(o.Case) {
		fault("a case of %d characters; want 1 to %d, none of them a control character", n, MaxTitle)
	}
	if n := utf8.RuneCountInString(o.Reason); n < MinReason || n > MaxReason || !plainText(o.Reason) || strings.TrimSpace(o.Reason) != o.Reason {
		fault("a reason of %d characters; want %d to %d, without line ends, control characters and blanks around", n, MinReason, MaxReason)
	}
	ids := slices.Clone(o.Conversations)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) == 0 || len(ids) > MaxExport {
		fault("an export of %d conversations; want 1 to %d", len(ids), MaxExport)
	}
	for _, id := range ids {
		if !conversationForm.MatchString(id) {
			fault("a conversation id of %d bytes that is none", len(id))
			break
		}
	}
	if len(o.Checkpoints) > MaxCheckpoints || slices.ContainsFunc(o.Checkpoints, func(n int64) bool { return n < 1 }) {
		fault("checkpoints: want at most %d sizes of 1 or more leaves", MaxCheckpoints)
	}
	if o.Recipient != "" && !recipientForm.MatchString(o.Recipient) {
		fault("a recipient that is no age public key; it begins with age1")
	}
	if err := errors.Join(faults...); err != nil {
		return ExportOrder{}, err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails since Go 1.24
	state := ExportApproved
	if len(ids) > MaxExportAlone {
		state = ExportRequested
	}
	return ExportOrder{
		ID: hex.EncodeToString(id), Requester: g.Person(), Case: o.Case, Reason: o.Reason, Conversations: ids,
		Checkpoints: slices.Clone(o.Checkpoints), Recipient: o.Recipient, State: state, MadeAt: now.UTC(),
	}, nil
}

// MayBuild checks all that must hold when a package is built: the order may be carried out,
// and who asked for it still has her role. For an order of many conversations p is the
// request that two persons agreed to, and approver is the grant of the second.
func (o ExportOrder) MayBuild(requester Grant, p Proposal, approver Grant, now time.Time) error {
	switch {
	case o.State != ExportApproved && o.State != ExportBuilding:
		return refuse("export %s is %s", o.ID, o.State)
	case requester.Person() != o.Requester || !requester.Has(ComplianceOfficer):
		return refuse("export %s: who asked for it is no %s any more", o.ID, ComplianceOfficer)
	case len(o.Conversations) <= MaxExportAlone:
		return nil
	}
	r, err := p.Request()
	switch {
	case err != nil:
		return err
	case p.State != ProposalApproved && p.State != ProposalExecuted || r.Action != ActionExport || p.Digest != o.Request:
		return refuse("export %s of %d conversations: no second person agreed to it", o.ID, len(o.Conversations))
	case p.Approver == "" || p.Approver == o.Requester || approver.Person() != p.Approver || !approver.Has(ComplianceOfficer):
		return refuse("export %s: who approved it is no %s any more", o.ID, ComplianceOfficer)
	case r.Objects != ObjectSet(append(slices.Clone(o.Conversations), o.ID)...) || r.Requester != o.Requester:
		return refuse("export %s: what it is about has changed since it was approved", o.ID)
	case !now.Before(p.ApprovedAt.Add(MaxRequestLife)):
		return refuse("export %s: the approval ran out", o.ID)
	}
	return nil
}

// MayFetch checks that a finished package may be handed to the person of the grant now.
func (o ExportOrder) MayFetch(g Grant, now time.Time) error {
	switch {
	case g.Person() != o.Requester || !g.Has(ComplianceOfficer):
		return refuse("export %s belongs to somebody else", o.ID)
	case o.State != ExportReady:
		return refuse("export %s is %s", o.ID, o.State)
	case !now.Before(o.Expires):
		return refuse("export %s could be fetched until %s", o.ID, o.Expires.Format(time.RFC3339))
	}
	return nil
}

// exportMessage is what lies in the queue of exports: which order, and nothing of it.
type exportMessage struct {
	Export string         `json:"export"`
	Tenant teams.TenantID `json:"tenant"`
}

var exportForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// ExportMessage is the queue message that has an order built, and the id to send it under.
func ExportMessage(tenant teams.TenantID, o ExportOrder) (id string, body []byte, err error) {
	body, err = json.Marshal(exportMessage{o.ID, tenant})
	return fmt.Sprintf("export-%s-%d", o.ID, o.Attempts), body, err
}

// DecodeExportMessage reads what ExportMessage writes, and nothing else.
func DecodeExportMessage(b []byte) (tenant teams.TenantID, export string, err error) {
	var m exportMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return "", "", fmt.Errorf("export message: %w", err)
	}
	if again, err := json.Marshal(m); err != nil || !bytes.Equal(again, b) {
		return "", "", errors.New("export message: not in the form it is sent in")
	}
	if !exportForm.MatchString(m.Export) {
		return "", "", errors.New("export message: want the id of an order")
	}
	return m.Tenant, m.Export, nil
}

// Exports is the store of export orders.
type Exports interface {
	// Insert stores a new order, durably when it returns nil. ErrExists if its id is taken.
	Insert(ctx context.Context, o ExportOrder) error
	// Get reads one with its revision, ErrNotFound if there is none.
	Get(ctx context.Context, id string) (ExportOrder, error)
	// List reads all of them, by id.
	List(ctx context.Context) ([]ExportOrder, error)
	// Replace stores an order that is still at o.Revision, else ErrChanged and nothing
	// changes. The stored order has a new revision.
	Replace(ctx context.Context, o ExportOrder) error
}
