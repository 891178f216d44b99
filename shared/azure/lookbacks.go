package azure

import (
	"context"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/policy"
	"steno/shared/teams"
)

// Lookbacks keeps look-back jobs: partition TENANT, RowKey the job's id.
type Lookbacks struct{ d documents }

// NewLookbacks returns the jobs of a tenant over a table that exists.
func NewLookbacks(tenant teams.TenantID, s *aztables.ServiceClient) *Lookbacks {
	return &Lookbacks{documents{s.NewClient(TableLookbacks), string(tenant)}}
}

// Insert costs one operation.
func (s *Lookbacks) Insert(ctx context.Context, j policy.Lookback) error {
	return s.d.insert(ctx, j.ID, j)
}

// Get costs one operation.
func (s *Lookbacks) Get(ctx context.Context, id string) (j policy.Lookback, err error) {
	j.Revision, err = s.d.get(ctx, id, &j)
	return j, err
}

// List costs one query for every 1,000 jobs there ever were.
func (s *Lookbacks) List(ctx context.Context) (out []policy.Lookback, err error) {
	err = all(ctx, s.d, "", "~", func(j policy.Lookback, revision string) {
		j.Revision = revision
		out = append(out, j)
	})
	return out, err
}

// Replace costs one operation.
func (s *Lookbacks) Replace(ctx context.Context, j policy.Lookback) error {
	return s.d.replace(ctx, j.ID, j.Revision, j)
}
