package policy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"steno/shared/teams"
)

// Errors of the stores of this package.
var (
	// ErrExists says that there is an item of that id.
	ErrExists = errors.New("item exists")
	// ErrNotFound says that there is none.
	ErrNotFound = errors.New("item not found")
	// ErrChanged says that an item changed since it was read. Read it again and decide anew.
	ErrChanged = errors.New("item changed meanwhile")
)

// ErrRefused is wrapped by every decision of this package that says no to a person.
var ErrRefused = errors.New("refused")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

// DefaultGrace is how long what a matter covered stays undisposed after its release.
const DefaultGrace = 30 * 24 * time.Hour

// MatterState is how far a matter has come.
type MatterState string

// The states of a matter.
const (
	MatterPlaced    MatterState = "placed"
	MatterReleasing MatterState = "releaseRequested" // somebody asked for its release; it holds on
	MatterReleased  MatterState = "released"         // two persons agreed; it protects until the grace period is over
	MatterLifted    MatterState = "lifted"           // its flags are off storage; it protects nothing
)

// Matter is a legal hold: what must not be disposed or erased, whatever else is said.
type Matter struct {
	ID string `json:"id"` // 32 hex digits
	// Title refers to the matter in the words of those who placed it, at most 200
	// characters. It stays in this row and is part of no custody event.
	Title string `json:"title"`
	// Custodians and Conversations are what it covers: everything that was captured because
	// of a custodian, and the conversations named by id.
	Custodians    []teams.PersonID `json:"custodians,omitempty"`
	Conversations []string         `json:"conversations,omitempty"`
	// From and To narrow it to conversations that share a moment with [From, To]; zero is
	// open.
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`

	State    MatterState    `json:"state"`
	PlacedBy teams.PersonID `json:"placedBy"`
	PlacedAt time.Time      `json:"placedAt"`
	// Request is the digest of the request to release it.
	Request    string    `json:"request,omitempty"`
	ReleasedAt time.Time `json:"releasedAt,omitzero"`
	LiftedAt   time.Time `json:"liftedAt,omitzero"`

	Revision string `json:"-"` // the store's token for optimistic concurrency
}

// Limits of a matter, which must fit one row of a table.
const (
	MaxTitle         = 200
	MaxMatterTargets = 500
)

// conversationForm is that of a conversation's id; package conversation makes them.
var conversationForm = regexp.MustCompile(`^[0-9a-v]{32}-[0-9]{8}$`)

// Place checks a new matter and gives it an id. Only Title, Custodians, Conversations,
// From and To of m are taken. All faults are reported at once.
func Place(m Matter, by teams.PersonID, now time.Time) (Matter, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, refuse(format, args...)) }
	if len(m.Custodians)+len(m.Conversations) == 0 {
		fault("a hold on nothing; name custodians or conversations")
	}
	if n := len(m.Custodians) + len(m.Conversations); n > MaxMatterTargets {
		fault("a hold on %d custodians and conversations, more than the %d that one matter takes", n, MaxMatterTargets)
	}
	if n := utf8.RuneCountInString(m.Title); n < 1 || n > MaxTitle || !plainText(m.Title) {
		fault("a title of %d characters; want 1 to %d, none of them a control character", n, MaxTitle)
	}
	if !m.From.IsZero() && !m.To.IsZero() && m.To.Before(m.From) {
		fault("a hold whose time ends before it begins")
	}
	for _, p := range m.Custodians {
		if id, err := teams.ParsePersonID(string(p)); err != nil || id != p {
			fault("a custodian that is no lower-case object id")
		}
	}
	for _, c := range m.Conversations {
		if !conversationForm.MatchString(c) {
			fault("a conversation id of %d bytes that is none", len(c))
		} else if _, err := time.Parse("20060102", c[33:]); err != nil {
			fault("a conversation id of a day that never was: %s", c[33:])
		}
	}
	if by == "" {
		fault("a hold that nobody places")
	}
	if err := errors.Join(faults...); err != nil {
		return Matter{}, err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails since Go 1.24
	custodians, conversations := slices.Clone(m.Custodians), slices.Clone(m.Conversations)
	slices.Sort(custodians)
	slices.Sort(conversations)
	return Matter{
		ID: hex.EncodeToString(id), Title: m.Title,
		Custodians: slices.Compact(custodians), Conversations: slices.Compact(conversations),
		From: m.From.UTC(), To: m.To.UTC(), State: MatterPlaced, PlacedBy: by, PlacedAt: now.UTC(),
	}, nil
}

// plainText reports whether a text is UTF-8 without control characters and line ends.
// JSON of such a text has one spelling.
func plainText(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return false
		}
	}
	return true
}

// Releasing notes that the release of the matter was asked for. It holds on.
func (m Matter) Releasing(digest string) (Matter, error) {
	if m.State != MatterPlaced && m.State != MatterReleasing {
		return m, refuse("matter %s is %s; it cannot be released again", m.ID, m.State)
	}
	m.State, m.Request = MatterReleasing, digest
	return m, nil
}

// Released notes that a second person agreed to the release: p is the executed proposal.
// Until the grace period is over the matter protects as before.
func (m Matter) Released(p Proposal, now time.Time) (Matter, error) {
	r, err := p.Request()
	switch {
	case err != nil:
		return m, err
	case p.State != ProposalExecuted || r.Action != ActionRelease || r.Objects != ObjectSet(m.ID):
		return m, refuse("matter %s: the proposal is no executed release of it", m.ID)
	case m.State != MatterReleasing || m.Request != p.Digest:
		return m, refuse("matter %s is %s; this release was not asked for", m.ID, m.State)
	}
	m.State, m.ReleasedAt = MatterReleased, now.UTC()
	return m, nil
}

// Covers reports whether the matter speaks of a conversation, whatever its state.
func (m Matter) Covers(f Facts) bool {
	if !m.From.IsZero() && f.End.Before(m.From) || !m.To.IsZero() && f.Start.After(m.To) {
		return false
	}
	return slices.Contains(m.Conversations, f.Conversation) ||
		slices.ContainsFunc(f.Custodians, func(c CustodianFacts) bool { return slices.Contains(m.Custodians, c.Person) })
}

// Protects reports whether what the matter covers must not be disposed or erased now:
// it was not released, or was and the grace period is not over.
func (m Matter) Protects(now time.Time, grace time.Duration) bool {
	switch m.State {
	case MatterLifted:
		return false
	case MatterReleased:
		return now.Before(m.ReleasedAt.Add(grace))
	}
	return true // a state this build does not know protects too
}

// Holds are all matters of a tenant, and the grace period after a release.
type Holds struct {
	Matters []Matter
	Grace   time.Duration
}

// Cover returns a matter that protects the conversation, if any does. Hold beats expiry
// beats erasure: whoever deletes asks this first, and again just before.
func (h Holds) Cover(f Facts, now time.Time) (Matter, bool) {
	for _, m := range h.Matters {
		if m.Protects(now, h.Grace) && m.Covers(f) {
			return m, true
		}
	}
	return Matter{}, false
}

// Matters is the store of legal holds.
type Matters interface {
	// Insert stores a new matter, durably when it returns nil. ErrExists if its id is taken.
	Insert(ctx context.Context, m Matter) error
	// Get reads one with its revision, ErrNotFound if there is none.
	Get(ctx context.Context, id string) (Matter, error)
	// List reads all of them, lifted ones included, by id.
	List(ctx context.Context) ([]Matter, error)
	// Replace stores a matter that is still at m.Revision, else ErrChanged and nothing
	// changes. The stored matter has a new revision.
	Replace(ctx context.Context, m Matter) error
}
