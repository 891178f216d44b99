package conversation

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"steno/shared/teams"
)

// Modality is the kind of communication.
type Modality string

// Chat is everything written: 1:1, group and meeting chats.
const Chat Modality = "chat"

// ThreadKey stands for a thread in stored keys and URLs: 32 characters of
// lower-case base32hex, so that no thread id ever becomes part of a path or an
// OData literal. It is the same for the same tenant and thread for ever.
type ThreadKey string

// ID names a conversation: the thread key and the UTC day, KEY-YYYYMMDD.
type ID string

var base32hex = base32.HexEncoding.WithPadding(base32.NoPadding)

// KeyOf returns the key of a thread.
func KeyOf(tenant teams.TenantID, thread teams.ThreadID) ThreadKey {
	h := sha256.New()
	h.Write([]byte("steno-thread-v1\x00" + string(tenant) + "\x00" + string(thread)))
	return ThreadKey(strings.ToLower(base32hex.EncodeToString(h.Sum(nil)[:20])))
}

// IDOf returns the conversation that a message sent at t in the thread belongs to.
func IDOf(key ThreadKey, t time.Time) ID {
	return ID(string(key) + "-" + t.UTC().Format("20060102"))
}

var (
	idForm  = regexp.MustCompile(`^[0-9a-v]{32}-[0-9]{8}$`)
	keyForm = regexp.MustCompile(`^[0-9a-v]{32}$`)
)

// ParseID accepts the form that IDOf makes, with a real calendar day.
func ParseID(s string) (ID, error) {
	if !idForm.MatchString(s) {
		return "", fmt.Errorf("%w: conversation id of %d bytes", teams.ErrMalformed, len(s))
	}
	if _, err := time.Parse("20060102", s[33:]); err != nil {
		return "", fmt.Errorf("%w: conversation id: no such day", teams.ErrMalformed)
	}
	return ID(s), nil
}

// ParseThreadKey accepts the form that KeyOf makes.
func ParseThreadKey(s string) (ThreadKey, error) {
	if !keyForm.MatchString(s) {
		return "", fmt.Errorf("%w: thread key of %d bytes", teams.ErrMalformed, len(s))
	}
	return ThreadKey(s), nil
}

// Thread returns the key of the thread. The id must come from IDOf or ParseID.
func (id ID) Thread() ThreadKey { return ThreadKey(id[:32]) }

// Day returns midnight UTC of the conversation's day. The id must come from IDOf or ParseID.
func (id ID) Day() time.Time {
	t, _ := time.Parse("20060102", string(id[33:])) // IDOf and ParseID admit nothing else
	return t
}

// Participant is somebody who wrote in a conversation, as Graph named them.
type Participant struct {
	ID   string `json:"id"` // object id, or the id of an application or guest
	Name string `json:"name,omitempty"`
	// Kind is Graph's userIdentityType, or "application".
	Kind string `json:"kind,omitempty"`
}

// Conversation is what the catalog lists: facts about a conversation, no content.
type Conversation struct {
	ID           ID               `json:"id"`
	Thread       teams.ThreadID   `json:"thread"`
	Kind         teams.ThreadKind `json:"kind"`
	Modality     Modality         `json:"modality"`
	Start        time.Time        `json:"start"` // when the first message captured first was sent; never changes
	First        time.Time        `json:"first"` // earliest sent time captured
	Last         time.Time        `json:"last"`  // latest sent time captured
	Versions     int              `json:"versions"`
	Objects      int              `json:"objects,omitempty"` // evidence objects ever promised, those that never came included
	Participants []Participant    `json:"participants,omitempty"`
	Custodians   []teams.PersonID `json:"custodians,omitempty"` // recorded users whose export returned it
	// Call is set if the conversation is a call.
	Call *CallFacts `json:"call,omitempty"`
	// Disposed is set if nothing but this is left of it.
	Disposed *Disposed `json:"disposed,omitempty"`
}

// VersionKey identifies a version of a message within its conversation's thread.
type VersionKey struct {
	Message teams.MessageID
	ETag    teams.ETag
}

// Version is one version of a message inside an evidence object.
type Version struct {
	VersionKey
	Sent   time.Time // createdDateTime; the day of the conversation
	SHA256 [sha256.Size]byte
}

// Object is an evidence object of a conversation and the versions it holds, in
// the order in which they stand inside, or the part of an attachment.
type Object struct {
	Name      string // evidence object id
	Versions  []Version
	Custodian teams.PersonID // whose export returned the bytes
	Lane      MessageLane    // empty means LaneExport
	ClaimedAt time.Time
	// Seq counts the objects of the conversation from 0 in the order of their claims. A
	// number is given once: one whose object was dropped stays empty.
	Seq int
	// File is set if the object holds no versions but a part of an attachment.
	File *PartOf
}

// Receipt says that a custodian's export returned versions that were already in
// evidence, or a notification of hers brought them: proof of who received what without
// storing it again.
type Receipt struct {
	Custodian teams.PersonID
	Lane      MessageLane // empty means LaneExport
	Window    string      // Window.Key of the reading
	Versions  []VersionKey
	At        time.Time
}

// Slice is everything the catalog holds on one conversation.
type Slice struct {
	Conversation Conversation
	Objects      []Object
	Receipts     []Receipt
	// Revision is the catalog's own token for optimistic concurrency; empty when the
	// conversation does not exist yet.
	Revision string
}

// Holds reports which object, if any, holds or promises the version.
func (s Slice) Holds(k VersionKey) (Object, bool) {
	for _, o := range s.Objects {
		for _, v := range o.Versions {
			if v.VersionKey == k {
				return o, true
			}
		}
	}
	return Object{}, false
}

// AllCustodians lists everybody whose export returned something of the conversation.
func (s Slice) AllCustodians() []teams.PersonID {
	all := slices.Clone(s.Conversation.Custodians)
	for _, o := range s.Objects {
		all = append(all, o.Custodian)
	}
	for _, r := range s.Receipts {
		all = append(all, r.Custodian)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Received reports whether the custodian is on record as having received the version
// that another custodian's export stored.
func (s Slice) Received(custodian teams.PersonID, k VersionKey) bool {
	for _, r := range s.Receipts {
		if r.Custodian == custodian && slices.Contains(r.Versions, k) {
			return true
		}
	}
	return false
}

// Confirmed reports whether an export has returned the version. What only a notification
// brought is evidence, but nothing has proven yet that it is what the mailbox holds.
func (s Slice) Confirmed(k VersionKey) bool {
	if o, held := s.Holds(k); held && o.Lane != LaneNotified {
		return true
	}
	return slices.ContainsFunc(s.Receipts, func(r Receipt) bool {
		return r.Lane != LaneNotified && slices.Contains(r.Versions, k)
	})
}

// maxParticipants bounds the list of participants in the facts. A meeting chat of
// thousands names only the first who wrote; evidence has them all.
const maxParticipants = 50

// MaxCustodians bounds the list of custodians in the facts, which must fit one row of
// a table whatever happens: a meeting chat of thousands must not stop capture. Objects
// and receipts name the rest.
const MaxCustodians = 1000

// With returns the facts after a custodian's export returned the conversation and
// fresh of its versions were new. The zero Conversation becomes the one the header
// speaks of.
func (c Conversation) With(h BatchHeader, fresh []Message) Conversation {
	if c.ID == "" {
		c = Conversation{ID: h.Conversation, Thread: h.Thread, Kind: h.Thread.Kind(), Modality: Chat}
	}
	c.Participants, c.Custodians = slices.Clone(c.Participants), slices.Clone(c.Custodians)
	if !slices.Contains(c.Custodians, h.Custodian) && len(c.Custodians) < MaxCustodians {
		c.Custodians = append(c.Custodians, h.Custodian)
	}
	for _, m := range fresh {
		if c.Start.IsZero() {
			c.Start = m.Sent
		}
		if c.First.IsZero() || m.Sent.Before(c.First) {
			c.First = m.Sent
		}
		if m.Sent.After(c.Last) {
			c.Last = m.Sent
		}
		c.Versions++
		c.meet(m.From)
	}
	return c
}

// meet adds an author to the participants. Graph names the same author in one message
// and not in the next, so a name that was missing is filled in.
func (c *Conversation) meet(p Participant) {
	if p.ID == "" {
		return
	}
	switch i := slices.IndexFunc(c.Participants, func(k Participant) bool { return k.ID == p.ID }); {
	case i >= 0 && c.Participants[i].Name == "":
		c.Participants[i].Name = p.Name
	case i < 0 && len(c.Participants) < maxParticipants:
		c.Participants = append(c.Participants, p)
	}
}
