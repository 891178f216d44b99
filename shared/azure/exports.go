package azure

import (
	"context"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/policy"
	"steno/shared/teams"
)

// Exports keeps orders of export packages: partition TENANT, RowKey the order's id.
type Exports struct{ d documents }

// NewExports returns the orders of a tenant over a table that exists.
func NewExports(tenant teams.TenantID, s *aztables.ServiceClient) *Exports {
	return &Exports{documents{s.NewClient(TableExports), string(tenant)}}
}

// Insert costs one operation.
func (s *Exports) Insert(ctx context.Context, o policy.ExportOrder) error {
	return s.d.insert(ctx, o.ID, o)
}

// Get costs one operation.
func (s *Exports) Get(ctx context.Context, id string) (o policy.ExportOrder, err error) {
	o.Revision, err = s.d.get(ctx, id, &o)
	return o, err
}

// List costs one query for every 1,000 orders there ever were.
func (s *Exports) List(ctx context.Context) (out []policy.ExportOrder, err error) {
	err = all(ctx, s.d, "", "~", func(o policy.ExportOrder, revision string) {
		o.Revision = revision
		out = append(out, o)
	})
	return out, err
}

// Replace costs one operation.
func (s *Exports) Replace(ctx context.Context, o policy.ExportOrder) error {
	return s.d.replace(ctx, o.ID, o.Revision, o)
}
