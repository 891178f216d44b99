package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/conversation"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Failures keeps stretches that could not be read beside the progress of planning:
// partition TENANT, RowKey f-PERSON-WINDOW.
type Failures struct {
	tenant teams.TenantID
	t      *aztables.Client
}

// NewFailures returns the register of a tenant over a table that exists.
func NewFailures(tenant teams.TenantID, s *aztables.ServiceClient) *Failures {
	return &Failures{tenant: tenant, t: s.NewClient(TablePlan)}
}

func (s *Failures) key(f conversation.WindowFailed) string {
	return "f-" + string(f.Custodian) + "-" + f.Key()
}

// SaveFailure costs two operations.
func (s *Failures) SaveFailure(ctx context.Context, f conversation.WindowFailed) error {
	d := documents{s.t, string(s.tenant)}
	var was conversation.WindowFailed
	_, err := d.get(ctx, s.key(f), &was)
	switch {
	case err == nil:
		f.Since = was.Since
	case !errors.Is(err, policy.ErrNotFound):
		return fmt.Errorf("save failed window: %w", err)
	}
	r, err := d.row(s.key(f), f)
	if err == nil {
		err = replace(ctx, s.t, r)
	}
	if err != nil {
		return fmt.Errorf("save failed window: %w", err)
	}
	return nil
}

// FailuresOf costs one query for every 1,000 failures.
func (s *Failures) FailuresOf(ctx context.Context, custodian teams.PersonID) ([]conversation.WindowFailed, error) {
	return s.list(ctx, "f-"+string(custodian)+"-")
}

// AllFailures costs one query for every 1,000 failures.
func (s *Failures) AllFailures(ctx context.Context) ([]conversation.WindowFailed, error) {
	return s.list(ctx, "f-")
}

func (s *Failures) list(ctx context.Context, p string) (out []conversation.WindowFailed, err error) {
	err = scan(ctx, s.t, prefix(string(s.tenant), p), 1000, func(r row) (bool, error) {
		var f conversation.WindowFailed
		err := json.Unmarshal(r.Data, &f)
		out = append(out, f)
		return true, err
	})
	if err != nil {
		return nil, fmt.Errorf("list failed windows: %w", err)
	}
	return out, nil
}

// RemoveFailure costs one operation.
func (s *Failures) RemoveFailure(ctx context.Context, f conversation.WindowFailed) error {
	return remove(ctx, s.t, string(s.tenant), s.key(f))
}
