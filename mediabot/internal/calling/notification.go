package calling

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"steno/shared/teams"
)

// Limits of one post.
const (
	MaxPost   = 256 << 10 // bytes
	maxDepth  = 32
	maxItems  = 200
	maxTokens = 40_000
)

// errUnreadable is wrapped by every error about a post that is not what Graph sends.
var errUnreadable = errors.New("unreadable notification")

// notification is one change that a post tells.
// https://learn.microsoft.com/graph/api/resources/commsnotification
type notification struct {
	change string // created, updated, deleted: in lower case
	call   teams.CallID
	part   string // what below the call changed, such as participants; empty for the call itself
	item   string // id of the part, where one alone is meant
	data   json.RawMessage
}

// decodePost reads the notifications of a post. It returns what it could read together
// with an error about the rest; none at all if the post as a whole makes no sense.
func decodePost(body []byte) ([]notification, error) {
	if err := checkShape(body); err != nil {
		return nil, err
	}
	var post struct {
		Value []json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(body, &post); err != nil {
		return nil, fmt.Errorf("%w: no list of notifications", errUnreadable)
	}
	if len(post.Value) == 0 || len(post.Value) > maxItems {
		return nil, fmt.Errorf("%w: %d notifications, want 1 to %d", errUnreadable, len(post.Value), maxItems)
	}
	var out []notification
	var faults []error
	for _, raw := range post.Value {
		n, err := decodeNotification(raw)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		out = append(out, n)
	}
	return out, errors.Join(faults...)
}

func decodeNotification(raw json.RawMessage) (notification, error) {
	var wire struct {
		ChangeType  looseText       `json:"changeType"`
		ResourceURL looseText       `json:"resourceUrl"`
		Resource    looseText       `json:"resource"` // what older ones carry
		Data        json.RawMessage `json:"resourceData"`
	}
	if err := json.Unmarshal(raw, &wire); err != nil {
		return notification{}, fmt.Errorf("%w: not an object", errUnreadable)
	}
	address := string(wire.ResourceURL)
	if address == "" {
		address = string(wire.Resource)
	}
	n, err := splitResource(address)
	if err != nil {
		return notification{}, err
	}
	n.change = strings.ToLower(string(wire.ChangeType))
	if data := bytes.TrimSpace(wire.Data); !bytes.Equal(data, []byte("null")) {
		n.data = data
	}
	return n, nil
}

// splitResource takes the ids out of /communications/calls/{id}/{part}/{item}. Whatever
// stands before, be it a version or a whole host, is dropped: addresses are never
// followed.
func splitResource(address string) (notification, error) {
	address, _, _ = strings.Cut(address, "?")
	segments := strings.Split(strings.Trim(address, "/"), "/")
	at := -1
	for i, s := range segments {
		if strings.EqualFold(s, "calls") {
			at = i
			break
		}
	}
	rest := segments[at+1:]
	if at < 0 || len(rest) < 1 || len(rest) > 3 {
		return notification{}, fmt.Errorf("%w: resource of %d bytes is no call", errUnreadable, len(address))
	}
	call, err := teams.ParseCallID(rest[0])
	if err != nil {
		return notification{}, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	n := notification{call: call}
	if len(rest) > 1 {
		n.part = strings.ToLower(rest[1])
	}
	if len(rest) > 2 {
		n.item = rest[2]
	}
	return n, nil
}

// checkShape refuses JSON that is deep or long out of proportion, before anything is
// built from it.
func checkShape(body []byte) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	depth, tokens := 0, 0
	for {
		t, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: not JSON", errUnreadable)
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if tokens++; depth > maxDepth || tokens > maxTokens {
			return fmt.Errorf("%w: more than %d levels or %d tokens", errUnreadable, maxDepth, maxTokens)
		}
	}
	if depth != 0 || tokens == 0 {
		return fmt.Errorf("%w: not JSON", errUnreadable)
	}
	return nil
}

// looseText is a member that Graph sends as text, and some of its services as a number.
// Anything else reads as nothing.
type looseText string

// UnmarshalJSON never fails: one odd member must not cost a notification.
func (t *looseText) UnmarshalJSON(b []byte) error {
	var s string
	var n json.Number
	switch {
	case json.Unmarshal(b, &s) == nil:
		*t = looseText(s)
	case json.Unmarshal(b, &n) == nil:
		*t = looseText(n.String())
	default:
		*t = ""
	}
	return nil
}

// looseInt is a number, also where it is sent as text.
type looseInt int64

// UnmarshalJSON never fails.
func (i *looseInt) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseInt(strings.Trim(string(b), `"`), 10, 64)
	if err != nil {
		n = 0
	}
	*i = looseInt(n)
	return nil
}

// looseBool is true only where true is sent, in any case, as text or not.
type looseBool bool

// UnmarshalJSON never fails.
func (v *looseBool) UnmarshalJSON(b []byte) error {
	*v = looseBool(strings.EqualFold(strings.Trim(string(b), `"`), "true"))
	return nil
}

// loose is an object or a list that may be malformed: then it reads as nothing.
type loose[T any] struct{ v T }

// UnmarshalJSON never fails.
func (l *loose[T]) UnmarshalJSON(b []byte) error {
	var v T
	if json.Unmarshal(b, &v) == nil {
		l.v = v
	}
	return nil
}

// list reads an array, or one object as a list of one.
func list(raw json.RawMessage) ([]json.RawMessage, error) {
	var many []json.RawMessage
	if err := json.Unmarshal(raw, &many); err == nil {
		return many, nil
	}
	if !bytes.HasPrefix(raw, []byte("{")) {
		return nil, fmt.Errorf("%w: neither object nor list", errUnreadable)
	}
	return []json.RawMessage{raw}, nil
}

// struck are the members that are rights rather than facts: who holds a join token can
// join the meeting.
var struck = map[string]bool{
	"token": true, "authorization": true, "joinweburl": true, "joinurl": true, "joinmeetingid": true, "passcode": true,
	"accesstoken": true, "secret": true, "password": true, "callbackuri": true,
}

// strike returns a JSON value with every such member replaced.
func strike(raw json.RawMessage) json.RawMessage {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil
	}
	b, err := json.Marshal(strikeValue(v))
	if err != nil {
		return nil
	}
	return b
}

func strikeValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if struck[strings.ToLower(name)] {
				v[name] = "[struck out]"
				continue
			}
			v[name] = strikeValue(member)
		}
	case []any:
		for i := range v {
			v[i] = strikeValue(v[i])
		}
	}
	return v
}
