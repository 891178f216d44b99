package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/policy"
	"steno/shared/teams"
)

// Roster keeps people and periods in one table, partition TENANT:
//
//	r_ROLE_DESK_PERSON_FROM   a period, found by role
//	p_PERSON_ROLE_DESK_FROM   the same period, found by person
//	h_PERSON                  what the directory says of a person
type Roster struct {
	tenant teams.TenantID
	t      *aztables.Client
}

// NewRoster returns the roster of a tenant over a table that exists.
func NewRoster(tenant teams.TenantID, s *aztables.ServiceClient) *Roster {
	return &Roster{tenant: tenant, t: s.NewClient(TableRoster)}
}

func byRole(p policy.Period) string {
	return fmt.Sprintf("r_%s_%s_%s_%013d", p.Role, p.Desk, p.Person, p.From.UnixMilli())
}

func byPerson(p policy.Period) string {
	return fmt.Sprintf("p_%s_%s_%s_%013d", p.Person, p.Role, p.Desk, p.From.UnixMilli())
}

func (r *Roster) periods(ctx context.Context, p string) ([]policy.Period, error) {
	var out []policy.Period
	err := scan(ctx, r.t, prefix(string(r.tenant), p), 1000, func(e row) (bool, error) {
		var period policy.Period
		if err := json.Unmarshal(e.Data, &period); err != nil {
			return false, fmt.Errorf("read period: %w", err)
		}
		out = append(out, period)
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read roster: %w", err)
	}
	return out, nil
}

// Periods costs one query for every 1,000 periods.
func (r *Roster) Periods(ctx context.Context, role policy.Role) ([]policy.Period, error) {
	return r.periods(ctx, "r_"+string(role)+"_")
}

// PeriodsOf costs one query.
func (r *Roster) PeriodsOf(ctx context.Context, person teams.PersonID) ([]policy.Period, error) {
	return r.periods(ctx, "p_"+string(person)+"_")
}

// fewPeople is up to how many people are read one by one rather than all at once.
const fewPeople = 20

// People costs one read for each of a few people, else one query for every 1,000
// people known.
func (r *Roster) People(ctx context.Context, ids []teams.PersonID) (map[teams.PersonID]policy.Person, error) {
	out := make(map[teams.PersonID]policy.Person, len(ids))
	keep := func(data []byte) error {
		var p policy.Person
		if err := json.Unmarshal(data, &p); err != nil {
			return fmt.Errorf("read person: %w", err)
		}
		out[p.ID] = p
		return nil
	}
	if len(ids) <= fewPeople {
		for _, id := range ids {
			e, err := r.t.GetEntity(ctx, string(r.tenant), "h_"+string(id), nil)
			if isNotFound(err) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("read people: %w", hide(err))
			}
			var got row
			if err := json.Unmarshal(e.Value, &got); err != nil {
				return nil, fmt.Errorf("read people: %w", err)
			}
			if err := keep(got.Data); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	wanted := make(map[teams.PersonID]bool, len(ids))
	for _, id := range ids {
		wanted[id] = true
	}
	err := scan(ctx, r.t, prefix(string(r.tenant), "h_"), 1000, func(e row) (bool, error) {
		if !wanted[teams.PersonID(e.RowKey[2:])] {
			return true, nil
		}
		return true, keep(e.Data)
	})
	if err != nil {
		return nil, fmt.Errorf("read people: %w", err)
	}
	return out, nil
}

// Apply writes people first, then closed and opened periods, in transactions of up
// to 100 rows. Both rows of a period are in one transaction. Before, it reads the
// periods of each role that changes, one query for every 1,000.
func (r *Roster) Apply(ctx context.Context, change policy.Change) error {
	b := &batch{partition: string(r.tenant)}
	put := func(key string, v any) error {
		data, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("write roster: %w", err)
		}
		b.add(aztables.TransactionTypeInsertReplace, row{PartitionKey: b.partition, RowKey: key, Data: data}, "")
		return nil
	}
	for _, p := range change.People {
		if b.full(1) {
			if err := b.submit(ctx, r.t); err != nil {
				return fmt.Errorf("write people: %w", err)
			}
		}
		if err := put("h_"+string(p.ID), p); err != nil {
			return err
		}
	}
	due, err := r.due(ctx, slices.Concat(change.Closed, change.Opened))
	if err != nil {
		return err
	}
	for _, p := range due {
		if b.full(2) {
			if err := b.submit(ctx, r.t); err != nil {
				return fmt.Errorf("write periods: %w", err)
			}
		}
		if err := errors.Join(put(byRole(p), p), put(byPerson(p), p)); err != nil {
			return err
		}
	}
	if err := b.submit(ctx, r.t); err != nil {
		return fmt.Errorf("write roster: %w", err)
	}
	return nil
}

// due leaves out the periods that are stored as the change wants them: a period is
// opened once and closed once. A transaction may name a row once, so a period that is
// opened and closed by the same change is written closed.
func (r *Roster) due(ctx context.Context, periods []policy.Period) ([]policy.Period, error) {
	known := map[string]policy.Period{}
	seen := map[policy.Role]bool{}
	var due []policy.Period
	for _, p := range periods {
		if !seen[p.Role] {
			seen[p.Role] = true
			stored, err := r.Periods(ctx, p.Role)
			if err != nil {
				return nil, err
			}
			for _, s := range stored {
				known[byRole(s)] = s
			}
		}
		p.From, p.To = p.From.UTC().Truncate(time.Millisecond), p.To.UTC().Truncate(time.Millisecond)
		if was, ok := known[byRole(p)]; ok && (p.Open() || !was.Open()) {
			continue
		}
		known[byRole(p)] = p
		due = append(due, p)
	}
	return due, nil
}
