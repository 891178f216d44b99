package notification

import (
	"encoding/json"
	"errors"
	"fmt"

	"steno/shared/rawjson"
	"steno/shared/teams"
)

// Limits of one delivery. Microsoft documents none.
const (
	MaxDelivery = 4 << 20 // bytes
	MaxItems    = 1000
	MaxTokens   = 20
)

// ErrDelivery says that a body is not a delivery of notifications.
var ErrDelivery = errors.New("not a delivery of notifications")

// Delivery is the body of one request of Graph, taken apart and no further: whether its
// tokens are good is decided before anything of its items is read.
type Delivery struct {
	Tokens []string // validationTokens, which print their bearer's identity: never log them
	items  [][]byte
}

// ReadDelivery takes a body apart. The items share its memory.
func ReadDelivery(body []byte) (d Delivery, err error) {
	if len(body) > MaxDelivery || !json.Valid(body) {
		return d, ErrDelivery
	}
	seen := map[string]bool{}
	err = rawjson.Members(body, func(name string, value []byte) error {
		if name != "value" && name != "validationTokens" {
			return nil
		}
		if seen[name] {
			return ErrDelivery
		}
		seen[name] = true
		if name == "value" {
			return rawjson.Elements(value, d.addItem)
		}
		if rawjson.IsNull(value) {
			return nil
		}
		return rawjson.Elements(value, d.addToken)
	})
	if err != nil || len(d.items) == 0 {
		return Delivery{}, ErrDelivery
	}
	return d, nil
}

func (d *Delivery) addItem(raw []byte) error {
	if len(d.items) == MaxItems {
		return ErrDelivery
	}
	d.items = append(d.items, raw)
	return nil
}

func (d *Delivery) addToken(raw []byte) error {
	token, ok := rawjson.String(raw)
	if !ok || len(d.Tokens) == MaxTokens {
		return ErrDelivery
	}
	d.Tokens = append(d.Tokens, token)
	return nil
}

// Notice is one item of a delivery: a change with its content, or a lifecycle event.
// https://learn.microsoft.com/graph/api/resources/changenotification
type Notice struct {
	Item
	State     string // clientState: a secret, which is compared and dropped
	Lifecycle string // lifecycleEvent, empty for a change
}

// Item is a change, its content still encrypted, as it lies on the queue.
type Item struct {
	Subscription string
	Tenant       teams.TenantID
	Change       string // created, updated or deleted
	Resource     string // such as chats('19:…@thread.v2')/messages('1612289992105')
	ID           string // resourceData.id, where sent
	ETag         string // resourceData's etag, where sent
	// Content is encryptedContent exactly as sent; nil if the item had none.
	Content []byte
}

// Notices reads the items.
func (d Delivery) Notices() ([]Notice, error) {
	out := make([]Notice, 0, len(d.items))
	for _, raw := range d.items {
		n, err := readNotice(raw)
		if err != nil {
			return nil, ErrDelivery
		}
		out = append(out, n)
	}
	return out, nil
}

func readNotice(raw []byte) (n Notice, err error) {
	var tenant string
	texts := fields{
		"subscriptionId": &n.Subscription, "clientState": &n.State, "tenantId": &tenant, "changeType": &n.Change,
		"lifecycleEvent": &n.Lifecycle, "resource": &n.Resource,
	}
	if err := texts.read(raw); err != nil {
		return n, err
	}
	// A tenant that is no GUID is nobody's, and refused as such.
	n.Tenant, err = teams.ParseTenantID(tenant)
	if err != nil {
		return n, err
	}
	seen := map[string]bool{}
	err = rawjson.Members(raw, func(name string, value []byte) error {
		if name != "resourceData" && name != "encryptedContent" || rawjson.IsNull(value) {
			return nil
		}
		if seen[name] {
			return ErrDelivery
		}
		seen[name] = true
		if name == "encryptedContent" {
			n.Content = value
			return nil
		}
		return fields{"id": &n.ID, "@odata.etag": &n.ETag}.read(value)
	})
	return n, err
}

// Certificate is the id of the certificate that the content is encrypted under.
func (i Item) Certificate() (string, error) {
	c, err := readContent(i.Content)
	return c.Certificate, err
}

// Open decrypts the content and compares it with what the notification says of it. ErrContent
// if it was not encrypted by Graph under the key, ErrOther if it is another message's: nothing
// binds content to the item it came in, so that whoever can write one can swap them.
func (i Item) Open(key PrivateKey) ([]byte, error) {
	c, err := readContent(i.Content)
	if err != nil {
		return nil, ErrContent
	}
	plain, err := key.Open(c)
	if err != nil {
		return nil, err
	}
	if err := i.speaksOf(plain); err != nil {
		return nil, err
	}
	return plain, nil
}

// String prints nothing of an item but its change: resources name threads, and those people.
func (i Item) String() string { return fmt.Sprintf("notification of a %s message", i.Change) }
