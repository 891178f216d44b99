package azure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/custody"
	"steno/shared/teams"
)

// Trail keeps custody records: partition TENANT-YYYYMMDD, RowKey the record's id,
// which sorts by time. Rows are inserted and never changed; the identities that write
// hold entities/add and nothing more.
type Trail struct {
	tenant teams.TenantID
	t      *aztables.Client
}

// NewTrail returns the trail of a tenant over a table that exists.
func NewTrail(tenant teams.TenantID, s *aztables.ServiceClient) *Trail {
	return &Trail{tenant: tenant, t: s.NewClient(TableCustody)}
}

func (t *Trail) partition(at time.Time) string {
	return string(t.tenant) + "-" + at.UTC().Format("20060102")
}

// Insert costs one operation.
func (t *Trail) Insert(ctx context.Context, r custody.Record) error {
	data, err := r.Encode()
	if err != nil {
		return fmt.Errorf("insert custody record: %w", err)
	}
	return insert(ctx, t.t, row{PartitionKey: t.partition(r.At), RowKey: r.ID, Data: data})
}

// maxTrailRange is the longest range that is read at once.
const maxTrailRange = 400 * 24 * time.Hour

// Range costs one query for each day it has to look into, and refuses more than 400
// days.
func (t *Trail) Range(ctx context.Context, from, to time.Time, limit int) ([]custody.Record, error) {
	if limit < 1 {
		return nil, errors.New("read custody trail: limit must be at least 1")
	}
	if to.Sub(from) > maxTrailRange {
		return nil, fmt.Errorf("read custody trail: more than %d days at once", maxTrailRange/(24*time.Hour))
	}
	var out []custody.Record
	// Ids count whole microseconds, events are finer.
	lo, hi := fmt.Sprintf("%016x", from.UnixMicro()), fmt.Sprintf("%016x", to.UnixMicro()+1)
	for day := from.UTC().Truncate(24 * time.Hour); day.Before(to) && len(out) < limit; day = day.AddDate(0, 0, 1) {
		k := keyRange{t.partition(day), lo, hi}
		err := scan(ctx, t.t, k, int32(min(limit-len(out), 1000)), func(e row) (bool, error) {
			r, err := custody.DecodeRecord(e.Data)
			if err != nil {
				return false, fmt.Errorf("read custody record %s: %w", e.RowKey, err)
			}
			if r.At.Before(from) || !r.At.Before(to) {
				return true, nil
			}
			out = append(out, r)
			return len(out) < limit, nil
		})
		if err != nil {
			return nil, fmt.Errorf("read custody trail: %w", err)
		}
	}
	return out, nil
}
