package azure

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/notification"
	"steno/shared/teams"
)

// Subscriptions keeps the register of change notifications in one table, partition TENANT:
//
//	a_ID   when Graph last asked for the subscription to be looked after
//	c_ID   a certificate
//	s_ID   a subscription
//
// What Graph asked has a row of its own, so that the webhook that writes it and the timer
// that renews never overwrite each other.
type Subscriptions struct{ d documents }

// NewSubscriptions returns the register of a tenant over a table that exists.
func NewSubscriptions(tenant teams.TenantID, s *aztables.ServiceClient) *Subscriptions {
	return &Subscriptions{documents{s.NewClient(TableSubscriptions), string(tenant)}}
}

// Subscriptions costs one query for every 1,000 rows.
func (s *Subscriptions) Subscriptions(ctx context.Context) (out []notification.Subscription, err error) {
	asked := map[string]time.Time{}
	err = scan(ctx, s.d.t, keyRange{s.d.partition, "", "~"}, 1000, func(r row) (bool, error) {
		var err error
		switch id := r.RowKey[2:]; r.RowKey[:2] {
		case "a_":
			var at time.Time
			err = json.Unmarshal(r.Data, &at)
			asked[id] = at
		case "s_":
			var n notification.Subscription
			err = json.Unmarshal(r.Data, &n)
			n.Asked = asked[id] // rows come in the order of their keys
			out = append(out, n)
		}
		if err != nil {
			return false, fmt.Errorf("read subscription: %w", err)
		}
		return true, nil
	})
	return out, err
}

func (s *Subscriptions) put(ctx context.Context, key string, v any) error {
	r, err := s.d.row(key, v)
	if err != nil {
		return err
	}
	return replace(ctx, s.d.t, r)
}

// Save costs one operation.
func (s *Subscriptions) Save(ctx context.Context, n notification.Subscription) error {
	return s.put(ctx, "s_"+n.ID, n)
}

// Remove costs two operations.
func (s *Subscriptions) Remove(ctx context.Context, id string) error {
	if err := remove(ctx, s.d.t, s.d.partition, "s_"+id); err != nil {
		return err
	}
	return remove(ctx, s.d.t, s.d.partition, "a_"+id)
}

// Ask costs one operation.
func (s *Subscriptions) Ask(ctx context.Context, id string, at time.Time) error {
	return s.put(ctx, "a_"+id, at.UTC())
}

// Certificates costs one query.
func (s *Subscriptions) Certificates(ctx context.Context) (out []notification.Certificate, err error) {
	err = all(ctx, s.d, "c_", "c_~", func(c notification.Certificate, _ string) { out = append(out, c) })
	return out, err
}

// SaveCertificate costs one operation.
func (s *Subscriptions) SaveCertificate(ctx context.Context, c notification.Certificate) error {
	return s.put(ctx, "c_"+c.ID, c)
}

// RemoveCertificate costs one operation.
func (s *Subscriptions) RemoveCertificate(ctx context.Context, id string) error {
	return remove(ctx, s.d.t, s.d.partition, "c_"+id)
}
