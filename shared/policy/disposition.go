package policy

import (
	"context"
	"time"
)

// DispositionState is how far a disposition has come.
type DispositionState string

// The states of a disposition, in order.
const (
	// DispositionPlanned: it was found due, or its erasure was approved; nothing is gone.
	DispositionPlanned DispositionState = "planned"
	// DispositionBegun: the custody event is durable. Keys and objects may be gone.
	DispositionBegun DispositionState = "begun"
	// DispositionSealed: its keys are destroyed, and what lies under a date that has not
	// passed stays as ciphertext until then.
	DispositionSealed DispositionState = "shredded"
	// DispositionDone: nothing of it is stored any more, and the catalog has a tombstone.
	DispositionDone DispositionState = "done"
)

// Grounds of a disposition.
const (
	GroundExpiry  = "expiry"  // Retain Until has passed
	GroundErasure = "erasure" // two persons agreed to erase it
)

// Disposition is the end of one conversation: what is destroyed, why, and how far that
// has come. It names no person.
type Disposition struct {
	Conversation string   `json:"conversation"` // its id, and the disposition's
	Units        []string `json:"units"`        // of evidence
	Modality     string   `json:"modality"`
	// Custodians are needed to find listings and holds until it is done, and dropped then.
	Custodians []CustodianFacts `json:"custodians,omitempty"`
	Start      time.Time        `json:"start,omitzero"` // as listed; dropped when it is done
	End        time.Time        `json:"end,omitzero"`

	Ground    string           `json:"ground"`
	Policy    string           `json:"policy"`            // the data management policy that decided
	Until     time.Time        `json:"until"`             // the Retain Until it came under
	Request   string           `json:"request,omitempty"` // digest of the approved request, for an erasure
	State     DispositionState `json:"state"`
	PlannedAt time.Time        `json:"plannedAt"`
	BegunAt   time.Time        `json:"begunAt,omitzero"`
	DoneAt    time.Time        `json:"doneAt,omitzero"`
	Event     string           `json:"event,omitempty"`   // id of the custody event behind it
	Objects   int              `json:"objects,omitempty"` // how many were deleted
	Keys      []string         `json:"keys,omitempty"`    // ids of the keys that were destroyed

	Revision string `json:"-"` // the store's token for optimistic concurrency
}

// Facts are what holds over the conversation are asked with.
func (d Disposition) Facts() Facts {
	return Facts{Conversation: d.Conversation, Modality: d.Modality, Start: d.Start, End: d.End, Custodians: d.Custodians}
}

// Dispositions is the list of dispositions under way. Those that are done leave it when
// their certificate is stored.
type Dispositions interface {
	// Insert stores a new disposition, durably when it returns nil. ErrExists if there is
	// one of the conversation.
	Insert(ctx context.Context, d Disposition) error
	// Get reads one with its revision, ErrNotFound if there is none.
	Get(ctx context.Context, conversation string) (Disposition, error)
	// List reads all of them, by conversation.
	List(ctx context.Context) ([]Disposition, error)
	// Replace stores a disposition that is still at d.Revision, else ErrChanged and nothing
	// changes. The stored disposition has a new revision.
	Replace(ctx context.Context, d Disposition) error
	// Delete takes one off the list. One that is off it is no error.
	Delete(ctx context.Context, conversation string) error

	// Certify stores a certificate, durably when it returns nil. ErrExists if there is one
	// of that id. Certificates are never changed.
	Certify(ctx context.Context, c Certificate) error
	// Certificates lists those of days in [from, to), by id.
	Certificates(ctx context.Context, from, to time.Time) ([]Certificate, error)

	// RecordEvent notes when an event that a policy waits for came about. The first record
	// of an event stays; another is no error and changes nothing.
	RecordEvent(ctx context.Context, conversation, event string, at time.Time) error
	// Events are the events of a conversation by name; empty if there are none.
	Events(ctx context.Context, conversation string) (map[string]time.Time, error)

	// Sweep is what the last sweep left, the zero Sweep if there was none.
	Sweep(ctx context.Context) (Sweep, error)
	// SaveSweep stores it.
	SaveSweep(ctx context.Context, s Sweep) error
}

// Sweep is when all evidence was last brought under the policies, and which they were. One
// that is under way goes on, newest conversations first, behind the conversation of ID.
type Sweep struct {
	At       time.Time `json:"at,omitzero"` // when the last one was completed
	Policies string    `json:"policies"`    // digest of the configuration it was completed under

	Under string    `json:"under,omitempty"` // digest that the one under way works by, empty if none is
	Start time.Time `json:"start,omitzero"`  // of the last conversation it has seen
	ID    string    `json:"id,omitempty"`
	// Failed says that it failed for some conversation: it will not count as complete.
	Failed bool `json:"failed,omitempty"`

	// Escrowed is up to which time of storage's clock all keys have their copy in escrow.
	Escrowed time.Time `json:"escrowed,omitzero"`
}

// Certificate is a certificate of disposition: what was disposed on a day. Text is JSON
// and names no person; the custody log binds it by its SHA-256.
type Certificate struct {
	ID   string `json:"id"` // YYYYMMDD-NNNN
	Text []byte `json:"text"`
}
