package notification

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"steno/shared/teams"
)

// Parcel is what one message of the queue holds: items that arrived together, or the name of
// a blob with the one item that is too large for a message.
type Parcel struct {
	Received time.Time
	Items    []Item
	// Claim names the blob that holds the parcel's items; empty if they are here.
	Claim string
	// Attempt counts how often the parcel was put back to be handled later.
	Attempt int
}

// parcelMessage is Parcel as it travels. Tokens and clientStates are not part of it.
type parcelMessage struct {
	V        int           `json:"stenoV"`
	Received time.Time     `json:"noticeReceived"`
	Items    []itemMessage `json:"noticeItems,omitempty"`
	Claim    string        `json:"noticeClaim,omitempty"`
	Attempt  int           `json:"noticeAttempt,omitempty"`
}

type itemMessage struct {
	Subscription string          `json:"subscription"`
	Tenant       teams.TenantID  `json:"tenant"`
	Change       string          `json:"change"`
	Resource     string          `json:"resource"`
	ID           string          `json:"id,omitempty"`
	ETag         string          `json:"etag,omitempty"`
	Content      json.RawMessage `json:"content"`
}

// EncodeParcel writes a parcel for the queue, or for the blob that it claims.
func EncodeParcel(p Parcel) ([]byte, error) {
	m := parcelMessage{V: 1, Received: p.Received.UTC(), Claim: p.Claim, Attempt: p.Attempt}
	for _, i := range p.Items {
		m.Items = append(m.Items, i.message())
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode parcel: %w", err)
	}
	return b, nil
}

func (i Item) message() itemMessage {
	return itemMessage{i.Subscription, i.Tenant, i.Change, i.Resource, i.ID, i.ETag, i.Content}
}

// claimForm is the form of a claim: an evidence object id is one.
var claimForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// DecodeParcel reads what EncodeParcel wrote.
func DecodeParcel(b []byte) (Parcel, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var m parcelMessage
	if err := dec.Decode(&m); err != nil || dec.More() {
		return Parcel{}, fmt.Errorf("decode parcel of %d bytes: not one", len(b))
	}
	if m.V != 1 || m.Received.IsZero() || m.Attempt < 0 || (m.Claim == "") == (len(m.Items) == 0) || m.Claim != "" && !claimForm.MatchString(m.Claim) {
		return Parcel{}, fmt.Errorf("decode parcel of %d bytes: not one of version 1", len(b))
	}
	p := Parcel{Received: m.Received.UTC(), Claim: m.Claim, Attempt: m.Attempt}
	for _, i := range m.Items {
		tenant, err := teams.ParseTenantID(string(i.Tenant))
		if err != nil || tenant != i.Tenant {
			return Parcel{}, fmt.Errorf("decode parcel of %d bytes: %w", len(b), teams.ErrMalformed)
		}
		p.Items = append(p.Items, Item{i.Subscription, i.Tenant, i.Change, i.Resource, i.ID, i.ETag, i.Content})
	}
	return p, nil
}

// Pack puts items into as few parcels as messages of max bytes allow, in order. An item that
// fills more than a message has a parcel to itself.
func Pack(received time.Time, items []Item, max int) []Parcel {
	const frame, names = 160, 120 // what a parcel and an item take beyond their texts
	var out []Parcel
	size := 0
	for _, i := range items {
		n := names + len(i.Subscription) + len(i.Tenant) + len(i.Change) + len(i.Resource) + len(i.ID) + len(i.ETag) + len(i.Content)
		if len(out) == 0 || size+n > max {
			out, size = append(out, Parcel{Received: received}), frame
		}
		last := &out[len(out)-1]
		last.Items, size = append(last.Items, i), size+n
	}
	return out
}

// Envelope is a received message of the queue. Until it is done it stays with us for as long
// as its lock lasts, and comes again after that.
type Envelope struct {
	Body []byte
	// Done removes the message from the queue for good.
	Done func(ctx context.Context) error
}

// ClaimName is the name of the blob that holds a parcel.
func ClaimName(claim string) string { return "claims/" + claim }
