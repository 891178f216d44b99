package teams

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode/utf8"
)

// ErrMalformed is wrapped by every Parse function of this package.
var ErrMalformed = errors.New("malformed identifier")

// TenantID is an Entra tenant id: a lower-case GUID.
type TenantID string

// PersonID is the Entra object id of a person: a lower-case GUID. It is the only
// key by which Steno knows people; names and addresses change.
type PersonID string

// GroupID is the Entra object id of a group: a lower-case GUID.
type GroupID string

// TeamID is the object id of the group behind a team: a lower-case GUID.
type TeamID string

// ThreadID names a chat or channel, such as 19:…@thread.v2.
// Ids are compared byte for byte; Graph does not change their case.
type ThreadID string

// MessageID is unique only within its thread (and reply chain):
// it is the arrival time in milliseconds, so two threads do collide.
// https://learn.microsoft.com/graph/api/resources/chatmessage
type MessageID string

// ETag is the version of a message. It changes with an edit, a deletion and a reaction.
type ETag string

// Limits of what this package accepts, in bytes. Graph documents none; the
// longest ids seen in its samples stay far below.
const (
	MaxThreadID = 256
	MaxVersion  = 64
)

// ParseTenantID accepts a GUID in any case and returns it in lower case.
func ParseTenantID(s string) (TenantID, error) {
	g, err := parseGUID("tenant id", s)
	return TenantID(g), err
}

// ParsePersonID accepts a GUID in any case and returns it in lower case.
func ParsePersonID(s string) (PersonID, error) {
	g, err := parseGUID("person id", s)
	return PersonID(g), err
}

// ParseGroupID accepts a GUID in any case and returns it in lower case.
func ParseGroupID(s string) (GroupID, error) {
	g, err := parseGUID("group id", s)
	return GroupID(g), err
}

// ParseThreadID accepts what Graph uses as chatId or channelId: visible ASCII
// without a slash, backslash, question mark, number sign, percent sign, quote or
// dot segment, so that an id is never a path, a query or an OData literal.
func ParseThreadID(s string) (ThreadID, error) {
	if err := checkToken("thread id", s, MaxThreadID); err != nil {
		return "", err
	}
	return ThreadID(s), nil
}

// ParseMessageID accepts what Graph uses as a message id.
func ParseMessageID(s string) (MessageID, error) {
	if err := checkToken("message id", s, MaxVersion); err != nil {
		return "", err
	}
	return MessageID(s), nil
}

// ParseETag accepts what Graph uses as a message etag.
func ParseETag(s string) (ETag, error) {
	if err := checkToken("etag", s, MaxVersion); err != nil {
		return "", err
	}
	return ETag(s), nil
}

func parseGUID(what, s string) (string, error) {
	if len(s) != 36 {
		return "", malformed(what, s)
	}
	b := []byte(s)
	for i, c := range b {
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return "", malformed(what, s)
			}
		case 'A' <= c && c <= 'F':
			b[i] = c + 'a' - 'A'
		case ('0' <= c && c <= '9') || ('a' <= c && c <= 'f'):
		default:
			return "", malformed(what, s)
		}
	}
	return string(b), nil
}

func checkToken(what, s string, limit int) error {
	if s == "" || s == "." || len(s) > limit || strings.Contains(s, "..") {
		return malformed(what, s)
	}
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`/\?#%'"`, c) >= 0 {
			return malformed(what, s)
		}
	}
	return nil
}

// malformed names the kind and the length, never the value: a rejected
// identifier is foreign text and ends up in logs.
func malformed(what, s string) error {
	return fmt.Errorf("%w: %s of %d bytes (valid UTF-8: %t)", ErrMalformed, what, len(s), utf8.ValidString(s))
}

// pseudonymKey is drawn once a process: lines of one run can be joined,
// lines of two runs cannot, and nobody can test a guess against an old log.
var pseudonymKey = func() []byte {
	k := make([]byte, 16)
	_, _ = rand.Read(k) // never fails since Go 1.24; it ends the process instead
	return k
}()

func pseudonym(kind, s string) slog.Value {
	if s == "" {
		return slog.StringValue("")
	}
	m := hmac.New(sha256.New, pseudonymKey)
	m.Write([]byte(kind))
	m.Write([]byte{0})
	m.Write([]byte(s))
	return slog.StringValue(kind + "-" + hex.EncodeToString(m.Sum(nil)[:6]))
}

// LogValue prints a pseudonym that is stable within one process.
func (p PersonID) LogValue() slog.Value { return pseudonym("person", string(p)) }

// LogValue prints a pseudonym that is stable within one process:
// the id of a 1:1 chat holds the object ids of both people.
func (t ThreadID) LogValue() slog.Value { return pseudonym("thread", string(t)) }

func (t TenantID) String() string  { return string(t) }
func (p PersonID) String() string  { return string(p) }
func (g GroupID) String() string   { return string(g) }
func (t TeamID) String() string    { return string(t) }
func (t ThreadID) String() string  { return string(t) }
func (m MessageID) String() string { return string(m) }
func (e ETag) String() string      { return string(e) }

// ThreadKind is what kind of place a thread is, read from the shape of its id.
type ThreadKind string

// The kinds of thread. The shapes of ids are Microsoft's habit rather than its
// promise, so an unknown shape is ThreadOther and is kept like any other.
const (
	ThreadOneOnOne ThreadKind = "oneOnOne"
	ThreadGroup    ThreadKind = "group"
	ThreadMeeting  ThreadKind = "meeting"
	ThreadChannel  ThreadKind = "channel"
	ThreadCall     ThreadKind = "call" // never read from an id: calls have none
	ThreadOther    ThreadKind = "other"
)

// Kind reads the kind of thread from the shape of its id.
func (t ThreadID) Kind() ThreadKind {
	s := string(t)
	switch {
	case strings.HasSuffix(s, "@unq.gbl.spaces"):
		return ThreadOneOnOne
	case strings.HasPrefix(s, "19:meeting_") && strings.HasSuffix(s, "@thread.v2"):
		return ThreadMeeting
	case strings.HasSuffix(s, "@thread.v2"):
		return ThreadGroup
	case strings.HasSuffix(s, "@thread.tacv2"), strings.HasSuffix(s, "@thread.skype"):
		return ThreadChannel
	default:
		return ThreadOther
	}
}

// User is what the directory says of a person.
type User struct {
	ID          PersonID
	DisplayName string
	Address     string // user principal name
	Enabled     bool
	Guest       bool
	// ServicePlans lists the ids of the service plans that are assigned and enabled,
	// as lower-case GUIDs.
	ServicePlans []string
}
