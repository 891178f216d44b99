package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// wire is a chatMessage of Graph v1.0 in the field order of the documentation's samples.
// https://learn.microsoft.com/en-us/graph/api/resources/chatmessage
type wire struct {
	ODataType        string           `json:"@odata.type"`
	ID               string           `json:"id"`
	ReplyToID        *string          `json:"replyToId"`
	ETag             string           `json:"etag"`
	MessageType      string           `json:"messageType"`
	Created          string           `json:"createdDateTime"`
	Modified         string           `json:"lastModifiedDateTime"`
	Edited           *string          `json:"lastEditedDateTime"`
	Deleted          *string          `json:"deletedDateTime"`
	Subject          *string          `json:"subject"`
	Summary          *string          `json:"summary"`
	ChatID           *ThreadID        `json:"chatId"`
	Importance       string           `json:"importance"`
	Locale           string           `json:"locale"`
	WebURL           *string          `json:"webUrl"`
	ChannelIdentity  *channelIdentity `json:"channelIdentity"`
	PolicyViolation  json.RawMessage  `json:"policyViolation"`
	EventDetail      json.RawMessage  `json:"eventDetail"`
	From             *identitySet     `json:"from"`
	Body             wireBody         `json:"body"`
	OnBehalfOf       *string          `json:"onBehalfOf"`
	Attachments      []attachment     `json:"attachments"`
	Mentions         []mention        `json:"mentions"`
	Reactions        []reaction       `json:"reactions"`
	MessageHistory   []historyItem    `json:"messageHistory"`
	unknownMembers   string           // JSON members that no documented version has, with a leading comma
	escapedCharacter int              // one of the escape styles
}

type channelIdentity struct {
	TeamID    string   `json:"teamId"`
	ChannelID ThreadID `json:"channelId"`
}

type wireBody struct {
	ContentType string `json:"contentType"`
	Content     string `json:"content"`
}

type identitySet struct {
	ODataType    string       `json:"@odata.type,omitempty"`
	Application  *application `json:"application"`
	Device       *identity    `json:"device"`
	Conversation *identity    `json:"conversation,omitempty"`
	User         *identity    `json:"user"`
}

type identity struct {
	ODataType        string  `json:"@odata.type,omitempty"`
	ID               string  `json:"id"`
	DisplayName      *string `json:"displayName"`
	UserIdentityType string  `json:"userIdentityType"`
	TenantID         string  `json:"tenantId,omitempty"`
}

type application struct {
	ODataType               string `json:"@odata.type"`
	ID                      string `json:"id"`
	DisplayName             string `json:"displayName"`
	ApplicationIdentityType string `json:"applicationIdentityType"`
}

type attachment struct {
	ID           string  `json:"id"`
	ContentType  string  `json:"contentType"`
	ContentURL   *string `json:"contentUrl"`
	Content      *string `json:"content"`
	Name         *string `json:"name"`
	ThumbnailURL *string `json:"thumbnailUrl"`
}

type mention struct {
	ID          int         `json:"id"`
	MentionText string      `json:"mentionText"`
	Mentioned   identitySet `json:"mentioned"`
}

type reaction struct {
	ReactionType string      `json:"reactionType"`
	DisplayName  *string     `json:"displayName"`
	ContentURL   *string     `json:"reactionContentUrl"`
	Created      string      `json:"createdDateTime"`
	User         identitySet `json:"user"`
}

type historyItem struct {
	Modified string   `json:"modifiedDateTime"`
	Actions  string   `json:"actions"`
	Reaction reaction `json:"reaction"`
}

// The escape styles. A server may write the same text as JSON in several ways; a reader that writes messages again
// instead of keeping their bytes gets at least one of them wrong.
const (
	escapeNone   = iota
	escapeMarkup // < > & ' as .NET's default encoder has them
	escapeASCII  // nothing beyond ASCII
	escapeStyles
)

// encode writes the message without white space.
func (m *wire) encode() []byte {
	var buf bytes.Buffer
	buf.Grow(2048)
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		// Every field is a string, a slice of such or JSON made by this package.
		panic(err)
	}
	b := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	if m.unknownMembers != "" {
		b = append(append(b[:len(b)-1:len(b)-1], m.unknownMembers...), '}')
	}
	return escape(b, m.escapedCharacter)
}

func escape(b []byte, style int) []byte {
	if style == escapeNone {
		return bytes.Clone(b)
	}
	out := make([]byte, 0, len(b)+len(b)/4)
	for i := 0; i < len(b); {
		c := b[i]
		markup := c == '<' || c == '>' || c == '&' || c == '\''
		if c < utf8.RuneSelf && (style == escapeASCII || !markup) || c >= utf8.RuneSelf && style == escapeMarkup {
			out = append(out, c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(b[i:])
		i += n
		switch {
		case style == escapeMarkup:
			out = fmt.Appendf(out, `\u%04X`, r)
		case r >= 0x10000:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// decodeWire reads a version back, for the next version of the same message.
func decodeWire(b []byte) wire {
	var m wire
	if err := json.Unmarshal(b, &m); err != nil {
		// The bytes are those that encode wrote.
		panic(err)
	}
	return m
}

const (
	systemEvent = `"messageType":"systemEventMessage"`
	unknownType = `"messageType":"unknownFutureValue"`
)

// withoutPrefer is a message as a caller sees it that has not asked for `include-unknown-enum-members`.
func withoutPrefer(b []byte) []byte {
	return bytes.Replace(b, []byte(systemEvent), []byte(unknownType), 1)
}
