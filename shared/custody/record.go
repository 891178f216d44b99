package custody

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"steno/shared/teams"
)

// ErrRecord says that stored bytes are not a record, or not the one spelling of it.
var ErrRecord = errors.New("not a custody record in its canonical form")

// MaxRecord is the most bytes a record may have: what a property of a table row holds.
const MaxRecord = 64 << 10

// recordJSON is the canonical form: the members in the order of RFC 8785 section 3.2.3.
type recordJSON struct {
	Action  Action         `json:"action"`
	Actor   teams.PersonID `json:"actor,omitempty"`
	At      time.Time      `json:"at"`
	Detail  string         `json:"detail,omitempty"`
	ID      string         `json:"id"`
	Item    string         `json:"item"`
	Objects []Object       `json:"objects,omitempty"`
	Reason  string         `json:"reason,omitempty"`
	Session string         `json:"session,omitempty"`
	System  string         `json:"system,omitempty"`
	Tenant  teams.TenantID `json:"tenant"`
}

// Encode returns the record's canonical JSON (RFC 8785): what is stored, and what the log
// commits to. A text in which that form and that of encoding/json differ is refused.
func (r Record) Encode() ([]byte, error) {
	for _, text := range []string{string(r.Action), string(r.Actor), r.Detail, r.ID, r.Item, r.Reason, r.Session, r.System, string(r.Tenant)} {
		if !utf8.ValidString(text) || strings.ContainsAny(text, "\u2028\u2029") {
			return nil, fmt.Errorf("encode record %s: a text is not UTF-8, or holds a line separator: %w", r.ID, ErrRecord)
		}
	}
	if len(r.Objects) > MaxObjects {
		return nil, fmt.Errorf("encode record %s: %d objects, more than %d: %w", r.ID, len(r.Objects), MaxObjects, ErrRecord)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r.wire()); err != nil {
		return nil, fmt.Errorf("encode record %s: %w", r.ID, err)
	}
	out := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(out) > MaxRecord {
		return nil, fmt.Errorf("encode record %s: %d bytes, more than %d: %w", r.ID, len(out), MaxRecord, ErrRecord)
	}
	return out, nil
}

// DecodeRecord reads exactly what Encode writes. Other members, other spellings, repeated
// members and trailing bytes are refused: two readers of the same bytes must not come to
// different records.
func DecodeRecord(b []byte) (Record, error) {
	if len(b) > MaxRecord {
		return Record{}, fmt.Errorf("decode record of %d bytes: %w", len(b), ErrRecord)
	}
	var w recordJSON
	if err := json.Unmarshal(b, &w); err != nil {
		return Record{}, fmt.Errorf("decode record: %w: %w", ErrRecord, err)
	}
	r := Record{ID: w.ID, Event: Event{
		At: w.At, Tenant: w.Tenant, Action: w.Action, Actor: w.Actor, System: w.System, Item: w.Item,
		Reason: w.Reason, Session: w.Session, Detail: w.Detail, Objects: w.Objects,
	}}
	same, err := r.Encode()
	if err != nil {
		return Record{}, err
	}
	if !bytes.Equal(same, b) {
		return Record{}, fmt.Errorf("decode record %s: %w", w.ID, ErrRecord)
	}
	return r, nil
}

func (r Record) wire() recordJSON {
	return recordJSON{
		Action: r.Action, Actor: r.Actor, At: r.At, Detail: r.Detail, ID: r.ID, Item: r.Item, Objects: r.Objects,
		Reason: r.Reason, Session: r.Session, System: r.System, Tenant: r.Tenant,
	}
}

// MarshalJSON writes a record as part of a document, where its exact bytes do not matter.
func (r Record) MarshalJSON() ([]byte, error) { return json.Marshal(r.wire()) }
