package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/policy"
	"steno/shared/teams"
)

// documents keeps JSON documents in one partition of a table. Its errors are those of
// package policy.
type documents struct {
	t         *aztables.Client
	partition string
}

func (d documents) row(key string, v any) (row, error) {
	data, err := json.Marshal(v)
	return row{PartitionKey: d.partition, RowKey: key, Data: data}, err
}

func (d documents) insert(ctx context.Context, key string, v any) error {
	r, err := d.row(key, v)
	if err == nil {
		err = insert(ctx, d.t, r)
	}
	if errors.Is(err, errConflict) {
		return policy.ErrExists
	}
	return err
}

// get reads a document and its revision.
func (d documents) get(ctx context.Context, key string, into any) (revision string, err error) {
	e, err := d.t.GetEntity(ctx, d.partition, key, nil)
	if isNotFound(err) {
		return "", policy.ErrNotFound
	}
	if err != nil {
		return "", fmt.Errorf("read table row: %w", hide(err))
	}
	var r row
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return "", fmt.Errorf("read table row: %w", err)
	}
	if err := json.Unmarshal(r.Data, into); err != nil {
		return "", fmt.Errorf("read table row: %w", err)
	}
	return string(e.ETag), nil
}

// replace stores a document that is still at a revision.
func (d documents) replace(ctx context.Context, key, revision string, v any) error {
	if revision == "" {
		return policy.ErrChanged // an empty condition would overwrite whatever is there
	}
	r, err := d.row(key, v)
	if err != nil {
		return err
	}
	b, err := r.marshal()
	if err != nil {
		return err
	}
	_, err = d.t.UpdateEntity(ctx, b, &aztables.UpdateEntityOptions{IfMatch: to.Ptr(azcore.ETag(revision)), UpdateMode: aztables.UpdateModeReplace})
	if isNotFound(err) {
		return policy.ErrChanged
	}
	if err != nil {
		err = classify("replace table row", err)
	}
	if errors.Is(err, errConflict) {
		return policy.ErrChanged
	}
	return err
}

// remove deletes a row; one that is gone is no error.
func remove(ctx context.Context, t *aztables.Client, partition, key string) error {
	_, err := t.DeleteEntity(ctx, partition, key, nil)
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("delete table row: %w", hide(err))
	}
	return nil
}

// all reads the documents whose keys lie in [from, to).
func all[T any](ctx context.Context, d documents, from, to string, keep func(v T, revision string)) error {
	return scan(ctx, d.t, keyRange{d.partition, from, to}, 1000, func(r row) (bool, error) {
		var v T
		if err := json.Unmarshal(r.Data, &v); err != nil {
			return false, fmt.Errorf("read table row: %w", err)
		}
		keep(v, r.ETag)
		return true, nil
	})
}

// Matters keeps legal holds: partition TENANT, RowKey the matter's id.
type Matters struct{ d documents }

// NewMatters returns the holds of a tenant over a table that exists.
func NewMatters(tenant teams.TenantID, s *aztables.ServiceClient) *Matters {
	return &Matters{documents{s.NewClient(TableMatters), string(tenant)}}
}

// Insert costs one operation.
func (s *Matters) Insert(ctx context.Context, m policy.Matter) error { return s.d.insert(ctx, m.ID, m) }

// Get costs one operation.
func (s *Matters) Get(ctx context.Context, id string) (m policy.Matter, err error) {
	m.Revision, err = s.d.get(ctx, id, &m)
	return m, err
}

// List costs one query for every 1,000 matters.
func (s *Matters) List(ctx context.Context) (out []policy.Matter, err error) {
	err = all(ctx, s.d, "", "~", func(m policy.Matter, revision string) {
		m.Revision = revision
		out = append(out, m)
	})
	return out, err
}

// Replace costs one operation.
func (s *Matters) Replace(ctx context.Context, m policy.Matter) error {
	return s.d.replace(ctx, m.ID, m.Revision, m)
}

// Approvals keeps proposals: partition TENANT, RowKey the digest of the request.
type Approvals struct{ d documents }

// NewApprovals returns the proposals of a tenant over a table that exists.
func NewApprovals(tenant teams.TenantID, s *aztables.ServiceClient) *Approvals {
	return &Approvals{documents{s.NewClient(TableApprovals), string(tenant)}}
}

// Insert costs one operation.
func (s *Approvals) Insert(ctx context.Context, p policy.Proposal) error {
	return s.d.insert(ctx, p.Digest, p)
}

// Get costs one operation.
func (s *Approvals) Get(ctx context.Context, digest string) (p policy.Proposal, err error) {
	p.Revision, err = s.d.get(ctx, digest, &p)
	return p, err
}

// Open costs one query for every 1,000 proposals there ever were.
func (s *Approvals) Open(ctx context.Context) (out []policy.Proposal, err error) {
	err = all(ctx, s.d, "", "~", func(p policy.Proposal, revision string) {
		if p.State == policy.ProposalPending || p.State == policy.ProposalApproved {
			p.Revision = revision
			out = append(out, p)
		}
	})
	return out, err
}

// Replace costs one operation.
func (s *Approvals) Replace(ctx context.Context, p policy.Proposal) error {
	return s.d.replace(ctx, p.Digest, p.Revision, p)
}

// Dispositions keeps what is being disposed and the certificates of what was:
//
//	PartitionKey TENANT        RowKey d-CONVERSATION a disposition · s the last sweep
//	PartitionKey TENANT-certs  RowKey YYYYMMDD-NNNN a certificate
//	PartitionKey TENANT-events RowKey CONVERSATION-EVENT when the event came about
type Dispositions struct{ d, certificates, events documents }

// NewDispositions returns the dispositions of a tenant over a table that exists.
func NewDispositions(tenant teams.TenantID, s *aztables.ServiceClient) *Dispositions {
	t := s.NewClient(TableDispositions)
	return &Dispositions{documents{t, string(tenant)}, documents{t, string(tenant) + "-certs"}, documents{t, string(tenant) + "-events"}}
}

// Insert costs one operation.
func (s *Dispositions) Insert(ctx context.Context, d policy.Disposition) error {
	return s.d.insert(ctx, "d-"+d.Conversation, d)
}

// Get costs one operation.
func (s *Dispositions) Get(ctx context.Context, conversation string) (d policy.Disposition, err error) {
	d.Revision, err = s.d.get(ctx, "d-"+conversation, &d)
	return d, err
}

// List costs one query for every 1,000 dispositions.
func (s *Dispositions) List(ctx context.Context) (out []policy.Disposition, err error) {
	err = all(ctx, s.d, "d-", "d-~", func(d policy.Disposition, revision string) {
		d.Revision = revision
		out = append(out, d)
	})
	return out, err
}

// Replace costs one operation.
func (s *Dispositions) Replace(ctx context.Context, d policy.Disposition) error {
	return s.d.replace(ctx, "d-"+d.Conversation, d.Revision, d)
}

// Delete costs one operation.
func (s *Dispositions) Delete(ctx context.Context, conversation string) error {
	return remove(ctx, s.d.t, s.d.partition, "d-"+conversation)
}

// Certify costs one operation.
func (s *Dispositions) Certify(ctx context.Context, c policy.Certificate) error {
	return s.certificates.insert(ctx, c.ID, c)
}

// Certificates costs one query for every 1,000 certificates.
func (s *Dispositions) Certificates(ctx context.Context, from, to time.Time) (out []policy.Certificate, err error) {
	err = all(ctx, s.certificates, from.UTC().Format("20060102"), to.UTC().Format("20060102"), func(c policy.Certificate, _ string) {
		out = append(out, c)
	})
	return out, err
}

// recordedEvent is a row of the partition of events.
type recordedEvent struct {
	Event string    `json:"event"`
	At    time.Time `json:"at"`
}

// RecordEvent costs one operation.
func (s *Dispositions) RecordEvent(ctx context.Context, conversation, event string, at time.Time) error {
	err := s.events.insert(ctx, conversation+"-"+event, recordedEvent{event, at.UTC()})
	if errors.Is(err, policy.ErrExists) {
		return nil
	}
	return err
}

// Events costs one query.
func (s *Dispositions) Events(ctx context.Context, conversation string) (map[string]time.Time, error) {
	out := map[string]time.Time{}
	err := all(ctx, s.events, conversation+"-", conversation+"-~", func(e recordedEvent, _ string) { out[e.Event] = e.At })
	return out, err
}

// Sweep costs one operation.
func (s *Dispositions) Sweep(ctx context.Context) (w policy.Sweep, err error) {
	if _, err = s.d.get(ctx, "s", &w); errors.Is(err, policy.ErrNotFound) {
		err = nil
	}
	return w, err
}

// SaveSweep costs one operation.
func (s *Dispositions) SaveSweep(ctx context.Context, w policy.Sweep) error {
	r, err := s.d.row("s", w)
	if err != nil {
		return err
	}
	return replace(ctx, s.d.t, r)
}
