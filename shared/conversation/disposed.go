package conversation

import (
	"context"
	"time"

	"steno/shared/teams"
)

// Disposed is what is known of a conversation that was disposed or erased. It names no
// person.
type Disposed struct {
	At     time.Time `json:"at"`
	Ground string    `json:"ground"` // "expiry" or "erasure"
	Policy string    `json:"policy"` // the data management policy that had decided
	Event  string    `json:"event"`  // id of the custody event behind it, which its log proves
}

// Tombstone is what stays of the conversation: its id, kind, modality and day, and how many
// objects the custody log binds of it. The id holds a digest of the thread and the day.
func (c Conversation) Tombstone(d Disposed) Conversation {
	day := c.ID.Day()
	t := Conversation{ID: c.ID, Kind: c.Kind, Modality: c.Modality, Start: day, First: day, Last: day, Objects: c.Objects, Disposed: &d}
	if c.Call != nil {
		t.Call = &CallFacts{Legs: c.Call.Legs, Direction: c.Call.Direction}
	}
	return t
}

// Graves is the catalog in the hands of those who dispose.
type Graves interface {
	// Bury replaces everything the catalog holds on a conversation by its tombstone: the
	// listings of people no longer name it, the listing by time has it under its day, and
	// its objects, receipts, legs and attachments are gone. When it returns nil all of that is durable.
	// It may die at any step and be repeated, and the tombstone that is there first stays.
	// ErrNoConversation if there is none of that id. Nobody else may change it meanwhile.
	Bury(ctx context.Context, id ID, d Disposed) error
}

// AllCustodians lists everybody whose legs or listings a call stands under.
func (c Call) AllCustodians() []teams.PersonID {
	s := Slice{Conversation: c.Conversation}
	for _, l := range c.Legs {
		if l.Recorded != "" {
			s.Objects = append(s.Objects, Object{Custodian: l.Recorded})
		}
	}
	return s.AllCustodians()
}
