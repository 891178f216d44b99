package conversation

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

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
	ID              string `json:"id"`
	ETag            string `json:"etag"`
	MessageType     string `json:"messageType"`
	CreatedDateTime string `json:"createdDateTime"`
	ChatID          string `json:"chatId"`
	ChannelIdentity *struct {
		ChannelID string `json:"channelId"`
	} `json:"channelIdentity"`
	From *struct {
		User *struct {
			ID               string `json:"id"`
			DisplayName      string `json:"displayName"`
			UserIdentityType string `json:"userIdentityType"`
		} `json:"user"`
		Application *struct {
			ID          string `json:"id"`
			DisplayName string `json:"displayName"`
		} `json:"application"`
	} `json:"from"`
}

// ReadMessage files one element of a page. It never fails: what cannot be filed
// as a message of a thread is filed as unclear, under a thread that stands for the
// custodian and by the digest of its bytes. The result depends on the bytes and the
// custodian alone, so reading an item again files it in the same place. raw is kept,
// not copied.
func ReadMessage(raw []byte, custodian teams.PersonID) Message {
	var h header
	if err := json.Unmarshal(raw, &h); err != nil {
		return unclear(raw, custodian, undated, err)
	}
	sent, dated := sentAt(h)
	thread := h.ChatID
	if thread == "" && h.ChannelIdentity != nil {
		thread = h.ChannelIdentity.ChannelID
	}
	var m Message
	var e1, e2, e3 error
	m.Thread, e1 = teams.ParseThreadID(thread)
	m.Message, e2 = teams.ParseMessageID(h.ID)
	m.ETag, e3 = teams.ParseETag(h.ETag)
	if err := errors.Join(e1, e2, e3); err != nil {
		return unclear(raw, custodian, sent, err)
	}
	if !dated {
		return unclear(raw, custodian, sent, errors.New("no readable time sent"))
	}
	m.Sent = sent
	m.Type, m.Raw = h.MessageType, raw
	if f := h.From; f != nil {
		switch {
		case f.User != nil:
			m.From = Participant{ID: f.User.ID, Name: f.User.DisplayName, Kind: f.User.UserIdentityType}
		case f.Application != nil:
			m.From = Participant{ID: f.Application.ID, Name: f.Application.DisplayName, Kind: "application"}
		}
	}
	return m
}

// sentAt reads createdDateTime; Microsoft's own samples hold malformed ones, and
// then the id tells, being the arrival time in milliseconds.
func sentAt(h header) (time.Time, bool) {
	if t, err := time.Parse(time.RFC3339Nano, h.CreatedDateTime); err == nil && plausible(t) {
		return t.UTC().Truncate(time.Millisecond), true
	}
	if ms, err := strconv.ParseInt(h.ID, 10, 64); err == nil {
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
