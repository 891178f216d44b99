package conversation

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"steno/shared/rawjson"
	"steno/shared/teams"
)

// Message is what Steno reads of a chatMessage to file it: who, where, when,
// which version. Raw is the message exactly as Graph sent it.
type Message struct {
	VersionKey
	Thread  teams.ThreadID
	Type    string // messageType as sent, such as message or systemEventMessage
	Sent    time.Time
	From    Participant // zero for system events
	Raw     []byte
	Unclear error // why the message is filed as unclear; nil for ordinary ones
}

// header is the part of chatMessage that is read here.
// https://learn.microsoft.com/graph/api/resources/chatmessage
type header struct {
	id, etag, messageType, created, chatID, channelID field
	channel, from, user, application                  field // seen only
	userID, userName, userKind, appID, appName        field
}

// field is a string that may stand once, exactly as Graph spells its name: two readers
// of the same bytes must come to the same filing. null reads as the empty string.
type field struct {
	text string
	seen bool
}

var errField = errors.New("a name is repeated or has a value of the wrong type")

// once marks the field as seen; it may be so once.
func (f *field) once() error {
	if f.seen {
		return errField
	}
	f.seen = true
	return nil
}

func (f *field) set(value []byte) error {
	if err := f.once(); err != nil || rawjson.IsNull(value) {
		return err
	}
	var ok bool
	if f.text, ok = rawjson.String(value); !ok {
		return errField
	}
	return nil
}

// within reads the members of an object that may stand once; null has none.
func (f *field) within(value []byte, each func(name string, value []byte) error) error {
	if err := f.once(); err != nil || rawjson.IsNull(value) {
		return err
	}
	return rawjson.Members(value, each)
}

// readHeader reads what is needed to file a message and passes over the rest.
func readHeader(raw []byte) (*header, error) {
	h := new(header)
	return h, rawjson.Members(raw, h.member)
}

func (h *header) member(name string, value []byte) error {
	switch name {
	case "id":
		return h.id.set(value)
	case "etag":
		return h.etag.set(value)
	case "messageType":
		return h.messageType.set(value)
	case "createdDateTime":
		return h.created.set(value)
	case "chatId":
		return h.chatID.set(value)
	case "channelIdentity":
		return h.channel.within(value, func(name string, value []byte) error {
			if name == "channelId" {
				return h.channelID.set(value)
			}
			return nil
		})
	case "from":
		return h.from.within(value, h.fromMember)
	}
	return nil
}

func (h *header) fromMember(name string, value []byte) error {
	switch name {
	case "user":
		return h.user.within(value, func(name string, value []byte) error {
			switch name {
			case "id":
				return h.userID.set(value)
			case "displayName":
				return h.userName.set(value)
			case "userIdentityType":
				return h.userKind.set(value)
			}
			return nil
		})
	case "application":
		return h.application.within(value, func(name string, value []byte) error {
			switch name {
			case "id":
				return h.appID.set(value)
			case "displayName":
				return h.appName.set(value)
			}
			return nil
		})
	}
	return nil
}

// sender is whom Graph names as the author: a person before an application, nobody
// for system events.
func (h *header) sender() Participant {
	switch {
	case h.userID.text != "" || h.userName.text != "":
		return Participant{ID: h.userID.text, Name: h.userName.text, Kind: h.userKind.text}
	case h.appID.text != "" || h.appName.text != "":
		return Participant{ID: h.appID.text, Name: h.appName.text, Kind: "application"}
	}
	return Participant{}
}

// ReadMessage files one element of a page. It never fails: what cannot be filed
// as a message of a thread is filed as unclear, under a thread that stands for the
// custodian and by the digest of its bytes. The result depends on the bytes and the
// custodian alone, so reading an item again files it in the same place. raw is kept,
// not copied.
func ReadMessage(raw []byte, custodian teams.PersonID) Message {
	h, err := readHeader(raw)
	if err != nil {
		return unclear(raw, custodian, undated, err)
	}
	sent, dated := sentAt(h)
	thread := h.chatID.text
	if thread == "" {
		thread = h.channelID.text
	}
	var m Message
	var e1, e2, e3 error
	m.Thread, e1 = teams.ParseThreadID(thread)
	m.Message, e2 = teams.ParseMessageID(h.id.text)
	m.ETag, e3 = teams.ParseETag(h.etag.text)
	if err := errors.Join(e1, e2, e3); err != nil {
		return unclear(raw, custodian, sent, err)
	}
	if !dated {
		return unclear(raw, custodian, sent, errors.New("no readable time sent"))
	}
	m.Sent = sent
	m.Type, m.From, m.Raw = h.messageType.text, h.sender(), raw
	return m
}

// sentAt reads createdDateTime; Microsoft's own samples hold malformed ones, and
// then the id tells, being the arrival time in milliseconds.
func sentAt(h *header) (time.Time, bool) {
	if t, err := time.Parse(time.RFC3339Nano, h.created.text); err == nil && plausible(t) {
		return t.UTC().Truncate(time.Millisecond), true
	}
	if ms, err := strconv.ParseInt(h.id.text, 10, 64); err == nil {
		if t := time.UnixMilli(ms).UTC(); plausible(t) {
			return t, true
		}
	}
	return undated, false
}

// Times sent lie in [Earliest, Latest), whatever a message says: that keeps days
// within what a conversation id and a table key can hold.
var (
	Earliest = time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)
	Latest   = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

// undated is the day under which items without a readable time are filed.
var undated = Earliest

func plausible(t time.Time) bool { return !t.Before(Earliest) && t.Before(Latest) }

// unclearPrefix starts the thread that collects what a custodian's export returned
// but could not be filed. No thread of Teams starts like it.
const unclearPrefix = "unclear:"

func unclear(raw []byte, custodian teams.PersonID, day time.Time, why error) Message {
	sum := sha256.Sum256(raw)
	return Message{
		VersionKey: VersionKey{Message: teams.MessageID("sha256-" + hex.EncodeToString(sum[:16])), ETag: "none"},
		Thread:     teams.ThreadID(unclearPrefix + string(custodian)),
		Type:       "unclear",
		Sent:       day,
		Raw:        raw,
		Unclear:    fmt.Errorf("unclear message of %d bytes: %w", len(raw), why),
	}
}
