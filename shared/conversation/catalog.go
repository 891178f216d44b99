package conversation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"steno/shared/teams"
)

// ErrConflict says that a slice changed since it was read. Read it again and decide anew.
var ErrConflict = errors.New("catalog: slice changed meanwhile")

// ErrNoConversation says that the catalog has no conversation of that id.
var ErrNoConversation = errors.New("catalog: no such conversation")

// Catalog is the register of conversations and of export windows: where they are
// found by time, by person and by thread, always as range queries.
//
// The catalog is derived: what it says can be rebuilt from evidence. All methods
// may be called from many processes at once and repeated after a crash.
type Catalog interface {
	// Slice reads one conversation. A conversation that does not exist is an empty
	// Slice, not an error.
	Slice(ctx context.Context, id ID) (Slice, error)

	// Claim changes a slice in one atomic step, provided that it is still at
	// was.Revision; otherwise it changes nothing and returns ErrConflict. The
	// conversation's facts are replaced by c.Conversation.
	Claim(ctx context.Context, was Slice, c Claim) error

	// ByTime lists conversations whose Start lies in [from, to), newest first. Start
	// has a resolution of a millisecond and lies within [Earliest, Latest).
	ByTime(ctx context.Context, from, to time.Time, page PageRequest) (Page, error)
	// ByPerson lists the conversations that the person's own export returned, whose
	// Start lies in [from, to), newest first.
	ByPerson(ctx context.Context, person teams.PersonID, from, to time.Time, page PageRequest) (Page, error)
	// ByThread lists the conversations of a thread, newest day first.
	ByThread(ctx context.Context, thread ThreadKey, page PageRequest) (Page, error)

	// FinishWindow makes the touched conversations findable by time and by the
	// window's custodian, and then marks the window complete. When it returns nil both
	// are durable; before, the window does not count as complete. touched names each
	// conversation once.
	FinishWindow(ctx context.Context, done WindowDone, touched []Conversation) error
	// FinishedWindows lists what is complete of a custodian and pass within [from, to].
	FinishedWindows(ctx context.Context, custodian teams.PersonID, pass int, from, to time.Time) ([]WindowDone, error)

	// Progress reads how far windows have been planned, by custodian.
	Progress(ctx context.Context) (map[teams.PersonID]Progress, error)
	// SaveProgress stores how far the windows of one custodian have been planned.
	SaveProgress(ctx context.Context, custodian teams.PersonID, p Progress) error
}

// Claim is a change to a slice.
type Claim struct {
	Conversation Conversation
	// Add is a new object whose versions are promised, nil for none.
	Add *Object
	// Drop names claims that expired without their object ever being stored.
	Drop []string
	// Receipt records versions received that others had stored, nil for none.
	Receipt *Receipt
}

// PageRequest asks for one page of a listing.
type PageRequest struct {
	Limit int // 1 to MaxPage; 0 means MaxPage
	// After is the position of the last conversation of the page before, zero for the
	// first page. It is the same in every listing, so listings can be merged.
	After Position
}

// Position is where a conversation stands in a listing: newest Start first,
// and by ID among equals.
type Position struct {
	Start time.Time
	ID    ID
}

// Position is where the conversation stands in a listing.
func (c Conversation) Position() Position { return Position{c.Start, c.ID} }

// Before reports whether p is listed before q.
func (p Position) Before(q Position) bool {
	if !p.Start.Equal(q.Start) {
		return p.Start.After(q.Start)
	}
	return p.ID < q.ID
}

// MaxPage is the most conversations one page lists.
const MaxPage = 200

// CheckLimit returns the limit that a request means, or what is wrong with it.
func (p PageRequest) CheckLimit() (int, error) {
	if p.Limit < 0 || p.Limit > MaxPage {
		return 0, fmt.Errorf("listing limit %d: want 1 to %d", p.Limit, MaxPage)
	}
	if p.Limit == 0 {
		return MaxPage, nil
	}
	return p.Limit, nil
}

// Page is one page of a listing.
type Page struct {
	Conversations []Conversation
	More          bool // the listing goes on after the last conversation
}

// WindowDone is the record of a finished window: what a custodian's mailbox
// returned for it and how much of that was new.
type WindowDone struct {
	Window
	Returned int       `json:"returned"`       // message versions the export returned
	New      int       `json:"new"`            // of these, stored by this window
	Unclear  int       `json:"unclear"`        // items kept aside because they could not be read as messages
	Late     int       `json:"late,omitempty"` // of the new ones, those that an earlier pass had finished without
	At       time.Time `json:"at"`
}
