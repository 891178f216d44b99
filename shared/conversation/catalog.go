package conversation

import (
	"context"
	"errors"
	"time"

	"steno/shared/teams"
)

// ErrConflict says that a slice changed since it was read. Read it again and decide anew.
var ErrConflict = errors.New("catalog: slice changed meanwhile")

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

	// ByTime lists conversations whose Start lies in [from, to), newest first.
	ByTime(ctx context.Context, from, to time.Time, page PageRequest) (Page, error)
	// ByPerson lists the conversations that the person's own export returned, whose
	// Start lies in [from, to), newest first.
	ByPerson(ctx context.Context, person teams.PersonID, from, to time.Time, page PageRequest) (Page, error)
	// ByThread lists the conversations of a thread, newest day first.
	ByThread(ctx context.Context, thread ThreadKey, page PageRequest) (Page, error)

	// FinishWindow makes the touched conversations findable by time and by the
	// window's custodian, and then marks the window complete. When it returns nil both
	// are durable; before, the window does not count as complete.
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
	// After is the Cursor of the page before, empty for the first.
	After string
}

// MaxPage is the most conversations one page lists.
const MaxPage = 200

// Page is one page of a listing. Cursor is empty on the last page.
type Page struct {
	Conversations []Conversation
	Cursor        string
}

// WindowDone is the record of a finished window: what a custodian's mailbox
// returned for it and how much of that was new.
type WindowDone struct {
	Window
	Returned int       `json:"returned"` // message versions the export returned
	New      int       `json:"new"`      // of these, stored by this window
	Unclear  int       `json:"unclear"`  // items kept aside because they could not be read as messages
	At       time.Time `json:"at"`
}
