package funchost

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Message is what a queue trigger delivers.
type Message struct {
	// Body is what the sender sent, byte for byte if the binding's dataType is binary, and as UTF-8 text if it is string.
	Body []byte

	// The rest comes from the host's Metadata. With dataType string the host copies the top-level fields of a JSON body over it, so a
	// sender can forge every one of them. They are for logs and for the operator: no decision may depend on them. A value that
	// cannot be read is left zero.
	ID            string
	DeliveryCount int // 1 on the first delivery
	Enqueued      time.Time
}

// TimerInfo is what a timer trigger delivers. Times are zero when the host does not know them: Last before the first run, all of them
// when the schedule is not monitored.
type TimerInfo struct {
	PastDue     bool
	Last        time.Time
	Next        time.Time
	LastUpdated time.Time
}

// errMalformed marks an invocation that cannot be understood. Not poison: the body could not be taken out, so there is nothing to
// park, and the broker dead-letters the message after its last delivery.
var errMalformed = errors.New("malformed invocation")

// envelope is the body of an invocation, its values undecoded.
type envelope struct {
	data     map[string]json.RawMessage
	metadata map[string]json.RawMessage
}

// decodeEnvelope takes the envelope apart. Names are matched exactly, as the host spells them.
func decodeEnvelope(b []byte) (envelope, error) {
	if err := checkJSON(b); err != nil {
		return envelope{}, fmt.Errorf("%w: %w", errMalformed, err)
	}
	top, err := members(b)
	if err != nil {
		return envelope{}, fmt.Errorf("%w: %w", errMalformed, err)
	}
	var e envelope
	if e.data, err = members(top["Data"]); err != nil {
		return envelope{}, fmt.Errorf("%w: Data: %w", errMalformed, err)
	}
	if raw, ok := top["Metadata"]; ok && string(raw) != "null" {
		if e.metadata, err = members(raw); err != nil {
			return envelope{}, fmt.Errorf("%w: Metadata: %w", errMalformed, err)
		}
	}
	return e, nil
}

func (e envelope) message(binding string) (Message, error) {
	raw, ok := e.data[binding]
	if !ok {
		return Message{}, fmt.Errorf("%w: Data has no %q: does function.json name the binding so?", errMalformed, binding)
	}
	body, err := decodeBody(raw)
	if err != nil {
		return Message{}, fmt.Errorf("%w: %q: %w", errMalformed, binding, err)
	}
	return Message{
		Body:          body,
		ID:            e.text("MessageId", "Id"),
		DeliveryCount: e.count("DeliveryCount", "DequeueCount"),
		Enqueued:      e.time("EnqueuedTime", "InsertionTime"),
	}, nil
}

// decodeBody returns the body of a message from the host's encoding of it (azure-functions-host, GetHttpScriptInvocationContextValue):
// a string is serialized twice, so its outer text begins with a quote; bytes are base64, which never does. The two cannot be
// mistaken for each other whatever the sender wrote, so no setting has to agree with function.json's dataType. Microsoft's
// documentation shows text and objects serialized once; a body that begins with a brace is taken as that.
func decodeBody(raw json.RawMessage) ([]byte, error) {
	if raw[0] == '{' {
		return raw, nil
	}
	outer, err := unquote(raw)
	if err != nil {
		return nil, errors.New("neither a string nor an object")
	}
	if len(outer) == 0 {
		return nil, nil
	}
	switch outer[0] {
	case '"':
		inner, err := unquote(outer)
		if err != nil {
			return nil, errors.New("inner string is not JSON")
		}
		return inner, nil
	case '{':
		return outer, nil
	case '[':
		return nil, errors.New("a batch: cardinality must be one")
	}
	body, err := base64.StdEncoding.Strict().AppendDecode(nil, outer)
	if err != nil {
		return nil, errors.New("neither quoted text nor base64")
	}
	return body, nil
}

// timer reads the only binding of a timer function.
func (e envelope) timer() (TimerInfo, error) {
	var wire struct {
		ScheduleStatus *struct{ Last, Next, LastUpdated wireTime }
		IsPastDue      bool
	}
	if len(e.data) != 1 {
		return TimerInfo{}, fmt.Errorf("%w: a timer has one binding, this has %d", errMalformed, len(e.data))
	}
	for _, raw := range e.data {
		if err := json.Unmarshal(raw, &wire); err != nil {
			return TimerInfo{}, fmt.Errorf("%w: timer: %w", errMalformed, err)
		}
	}
	info := TimerInfo{PastDue: wire.IsPastDue}
	if s := wire.ScheduleStatus; s != nil {
		info.Last, info.Next, info.LastUpdated = s.Last.Time, s.Next.Time, s.LastUpdated.Time
	}
	return info, nil
}

// wireTime is a .NET time in an envelope. It is informational, so one that cannot be read is zero rather than the end of a timer.
type wireTime struct{ time.Time }

// UnmarshalJSON implements json.Unmarshaler.
func (t *wireTime) UnmarshalJSON(b []byte) error {
	if s, ok := scalar(b); ok {
		t.Time = parseTime(s)
	}
	return nil
}

// parseTime reads a .NET time. One of kind Unspecified has no zone and is UTC here; the minimal DateTime, of year 1, means never and is
// the zero time, as is what cannot be read.
func parseTime(s string) time.Time {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil {
			if t.Year() <= 1 {
				return time.Time{}
			}
			return t.UTC()
		}
	}
	return time.Time{}
}

// scalar reads a metadata value: a number or boolean arrives as a string, a string arrives serialized twice.
func scalar(raw json.RawMessage) (string, bool) {
	s, err := unquote(raw)
	if err != nil {
		return "", false
	}
	if inner, err := unquote(s); err == nil {
		return string(inner), true
	}
	return string(s), true
}

func (e envelope) text(keys ...string) string {
	for _, k := range keys {
		if s, ok := scalar(e.metadata[k]); ok && s != "" {
			return s
		}
	}
	return ""
}

func (e envelope) count(keys ...string) int {
	n, err := strconv.Atoi(e.text(keys...))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

func (e envelope) time(keys ...string) time.Time { return parseTime(e.text(keys...)) }
