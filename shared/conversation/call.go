package conversation

import (
	"context"
	"slices"
	"time"

	"steno/shared/teams"
)

// Direction is where a call came from and went to, as its participants and the invite
// tell.
type Direction string

// The directions of a call.
const (
	Internal     Direction = "internal"
	External     Direction = "external" // with somebody outside who is neither federated nor a telephone
	FederatedIn  Direction = "federatedIn"
	FederatedOut Direction = "federatedOut"
	PSTNIn       Direction = "pstnIn"
	PSTNOut      Direction = "pstnOut"
	Conference   Direction = "conference" // a meeting
)

// LegState is how far a leg has come.
type LegState string

// The states of a leg in the register.
const (
	LegRunning LegState = "running" // being recorded, or its recorder has not said otherwise
	LegSealed  LegState = "sealed"  // verified, with a manifest
)

// Leg is what the register holds on one leg of a call.
type Leg struct {
	Leg      LegID          `json:"leg"`
	Call     teams.CallID   `json:"call"`
	Recorder string         `json:"recorder"`
	Recorded teams.PersonID `json:"recorded"` // the recorded user
	State    LegState       `json:"state"`
	Outcome  Outcome        `json:"outcome,omitempty"`
	Reason   string         `json:"reason,omitempty"`
	Started  time.Time      `json:"started"`
	Epoch    time.Time      `json:"epoch,omitzero"`
	From     time.Time      `json:"from,omitzero"` // first media
	To       time.Time      `json:"to,omitzero"`   // last media
	Bundles  int            `json:"bundles,omitempty"`
	Packs    int            `json:"packs,omitempty"`
	// Lost is how much of the leg's tracks was lost, summed over tracks.
	Lost time.Duration `json:"lost,omitempty"`
	// Manifest is the evidence object that lists everything else, empty while running.
	Manifest string `json:"manifest,omitempty"`
	// Peaks is the object with what the player draws, empty if there is no audio.
	Peaks string `json:"peaks,omitempty"`
	// CopyOf is set if another leg recorded the same person in the same call, by a paired
	// recorder: this one is the surplus copy, kept like the other.
	CopyOf LegID         `json:"copyOf,omitempty"`
	Invite *teams.Invite `json:"invite,omitempty"`
}

// CallFacts is what a Conversation says if it is a call.
type CallFacts struct {
	Chain     teams.ChainID `json:"chain"`
	Direction Direction     `json:"direction"`
	Running   bool          `json:"running,omitempty"`
	Outcome   Outcome       `json:"outcome,omitempty"` // of the best leg, once no leg runs
	Subject   string        `json:"subject,omitempty"`
	Numbers   []string      `json:"numbers,omitempty"` // telephone numbers that took part
	Legs      int           `json:"legs"`
	Lost      time.Duration `json:"lost,omitempty"`
	// Previous is the conversation that was transferred into this one.
	Previous ID `json:"previous,omitempty"`
}

// Call is everything the register holds on one call.
type Call struct {
	Conversation Conversation
	Legs         []Leg // in the order of their ids
	// Revision is the register's own token for optimistic concurrency; empty when the
	// call does not exist yet.
	Revision string
}

// Leg returns the leg of that id.
func (c Call) Leg(id LegID) (Leg, bool) {
	i := slices.IndexFunc(c.Legs, func(l Leg) bool { return l.Leg == id })
	if i < 0 {
		return Leg{}, false
	}
	return c.Legs[i], true
}

// Calls is the register of calls. It is derived like the rest of the catalog: manifests
// and bundles say the same.
type Calls interface {
	// Call reads a call. One that does not exist is an empty Call, not an error.
	Call(ctx context.Context, key ThreadKey) (Call, error)
	// SaveCall changes facts and legs in one atomic step, provided that the call is still
	// at was.Revision; otherwise it changes nothing and returns ErrConflict. Legs that are
	// not given stay as they are. The conversation's id and start never change once saved.
	SaveCall(ctx context.Context, was Call, now Conversation, legs ...Leg) error
	// ListCall makes the call findable by time and by each of its custodians. It must follow
	// every SaveCall and may be repeated.
	ListCall(ctx context.Context, now Conversation) error
}
