// Package custody keeps who did what to which item.
//
// A custody event is written before the deed it speaks of, and the deed needs the
// Receipt that only a durable event yields: evidence opens nothing without one. So a
// read without an event cannot be written by mistake, and when the trail is
// unavailable nothing can be read.
//
// The trail is insert-only, and its log makes that evident: a Merkle tree (RFC 6962) over
// the digests of all records, in tiles that never change, whose signed checkpoints an
// outsider can keep. FORMAT.md specifies it. Function sequencer is its only writer;
// this package holds the tree, its proofs and their verification.
package custody

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"steno/shared/teams"
)

// Action is what was done.
type Action string

// The actions recorded so far.
const (
	Read         Action = "read"          // content of a conversation was shown to a person
	Played       Action = "play"          // a recording was played, or watched while it ran
	List         Action = "list"          // a listing of conversations was shown to a person
	Denied       Action = "denied"        // a person asked for what she may not see
	RosterChange Action = "roster-change" // group sync opened or closed periods
	Captured     Action = "capture"       // whether a custodian can be read has changed, and how
	LookedBack   Action = "lookback"      // a look-back was asked for, refused, begun, canceled or ended
	SystemRead   Action = "system-read"   // a function read content for a purpose of its own
	KeyChanged   Action = "key"           // another key signs the log's checkpoints; see KeyChange
	KeyRevoked   Action = "key-revoked"   // a key that signed may be in the wrong hands; see KeyRevocation
	Sealed       Action = "seal"          // evidence was stored for good; Objects binds it

	Hold           Action = "hold"            // a legal hold was placed
	ReleaseRequest Action = "release-request" // its release was asked for
	Release        Action = "release"         // two persons released it; its grace period begins
	HoldSet        Action = "hold-set"        // storage holds objects that a matter covers
	HoldLifted     Action = "hold-lifted"     // storage holds them no more
	Retain         Action = "retain"          // Retain Until of objects was moved on
	Requested      Action = "request"         // something was asked for that needs two persons
	Approved       Action = "approve"         // a second person agreed
	Rejected       Action = "reject"          // what was asked for will not be done
	Exported       Action = "export"          // content was opened for an export, or its package finished
	Dispose        Action = "dispose"         // what is due is about to be destroyed
	Erase          Action = "erase"           // what two persons agreed to erase is about to be destroyed
	EraseRefused   Action = "erase-refused"   // an erasure was refused, and on which ground
	DisposeRefused Action = "dispose-refused" // nothing was disposed, and why
	Disposed       Action = "disposed"        // it is destroyed: how much, and under which keys
	PackageExpired Action = "package-expired" // an export package, or what is left of a build, is destroyed
	Certified      Action = "certificate"     // a certificate of disposition was stored
	FixityAlarm    Action = "fixity-alarm"    // stored evidence is not what was sealed
	FixityDay      Action = "fixity"          // how much stored evidence was read again in a day
	AttachmentGap  Action = "attachment-gap"  // what a message points at could not be fetched, and why
	Unexplained    Action = "unwrap"          // a conversation key was unwrapped and no event explains it

	GapFound  Action = "capture-gap" // a recorded user was in a call that is not, or not wholly, recorded
	GapHealed Action = "gap-healed"  // a recording that came late closed a capture gap
	Stated    Action = "coverage"    // a coverage statement was signed and stored; Detail has its digest and sums
)

// Event is one entry of the trail. It names items by id and holds no content, no
// names and no search terms.
type Event struct {
	At      time.Time      `json:"at"`
	Tenant  teams.TenantID `json:"tenant"`
	Action  Action         `json:"action"`
	Actor   teams.PersonID `json:"actor,omitempty"`  // empty for the system
	System  string         `json:"system,omitempty"` // the function that acted, empty for a person
	Item    string         `json:"item"`             // what it was done to: the unit of evidence, or a listing
	Reason  string         `json:"reason,omitempty"`
	Session string         `json:"session,omitempty"` // token id (uti) under which the actor came
	Detail  string         `json:"detail,omitempty"`  // ids and counts only
	// Objects are the evidence objects that were sealed, at most MaxObjects. The log thereby
	// binds evidence that is not in it.
	Objects []Object `json:"objects,omitempty"`
}

// MaxObjects is how many objects one event names, so that it fits a row of a table.
const MaxObjects = 128

// Object binds an evidence object: a manifest of what is stored, without a word of it.
type Object struct {
	// Commit is the commitment to the plain bytes in hex (evidence.Commitment); empty if
	// whoever sealed the event could not know it.
	Commit string `json:"commit,omitempty"`
	Object string `json:"object"` // id of the evidence object
	// Seq counts the objects of the unit from 0, so that one that is left out shows.
	Seq int `json:"seq"`
	// SHA256 is that of the stored bytes in hex: ciphertext, so that it tells nothing and
	// can be checked without a key.
	SHA256 string `json:"sha256,omitempty"`
	Unit   string `json:"unit"`
	// Void says that an object was promised under this number and never stored; it has no digests.
	Void bool `json:"void,omitempty"`
}

// Record is an event as stored.
type Record struct {
	ID string
	Event
}

// Trail stores records. Insert must be durable when it returns nil and must refuse
// a record whose id is already there: entries are never changed.
type Trail interface {
	Insert(ctx context.Context, r Record) error
	// Range lists records with from ≤ At < to, oldest first to the microsecond, at
	// most limit (at least 1). A store may refuse a range of more than 400 days.
	Range(ctx context.Context, from, to time.Time, limit int) ([]Record, error)
}

// Lifetime is how long a receipt opens what it was given for.
const Lifetime = 5 * time.Minute

// ErrReceipt is wrapped when a receipt does not cover what is asked for.
var ErrReceipt = errors.New("no custody receipt for this item")

// Receipt proves that an event is durable. Its zero value covers nothing, and
// there is no way to make one but Append.
type Receipt struct {
	id     string
	item   string
	action Action
	until  time.Time
}

// Event is the id of the event behind the receipt, empty for the zero value.
func (r Receipt) Event() string { return r.id }

// Covers returns nil if the receipt was given for reading this item and has not run out.
func (r Receipt) Covers(item string, now time.Time) error {
	switch {
	case r.id == "":
		return fmt.Errorf("%w: none was given", ErrReceipt)
	case r.item != item:
		return fmt.Errorf("%w: it was given for another", ErrReceipt)
	case r.action != Read && r.action != Played && r.action != Exported && r.action != SystemRead:
		return fmt.Errorf("%w: it was given for %q", ErrReceipt, r.action)
	case !now.Before(r.until):
		return fmt.Errorf("%w: it ran out at %s", ErrReceipt, r.until.Format(time.RFC3339))
	}
	return nil
}

// Log appends to a trail.
type Log struct {
	Trail Trail
	Now   func() time.Time // time.Now if nil
}

// Append stores the event and returns the receipt for it. When it returns nil the
// event is durable. At is set by the log, not by the caller. Each call is an event of
// its own; a caller that repeats after an error may leave two.
func (l Log) Append(ctx context.Context, e Event) (Receipt, error) {
	if e.Item == "" || e.Action == "" || (e.Actor == "") == (e.System == "") {
		return Receipt{}, errors.New("append custody event: it needs an item, an action, and either an actor or a system")
	}
	now := time.Now
	if l.Now != nil {
		now = l.Now
	}
	e.At = now().UTC()
	r := Record{ID: newID(e.At), Event: e}
	if err := l.Trail.Insert(ctx, r); err != nil {
		return Receipt{}, fmt.Errorf("append custody event: %w", err)
	}
	return Receipt{id: r.ID, item: e.Item, action: e.Action, until: e.At.Add(Lifetime)}, nil
}

// newID sorts by time and never repeats.
func newID(at time.Time) string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails since Go 1.24
	return IDsFrom(at) + "-" + hex.EncodeToString(b)
}

// IDsFrom is not after the id of any event from at on, and after every earlier one's, to
// the microsecond.
func IDsFrom(at time.Time) string { return fmt.Sprintf("%016x", at.UnixMicro()) }

var idForm = regexp.MustCompile(`^([0-9a-f]{16})-[0-9a-f]{16}$`)

// TimeOf is when the event of that id was, to the microsecond below.
func TimeOf(id string) (time.Time, error) {
	m := idForm.FindStringSubmatch(id)
	if m == nil {
		return time.Time{}, errors.New("custody event id: want two groups of 16 hex digits")
	}
	us, err := strconv.ParseInt(m[1], 16, 64)
	if err != nil {
		return time.Time{}, errors.New("custody event id: want a time within reason")
	}
	return time.UnixMicro(us).UTC(), nil
}
