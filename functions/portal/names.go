package portal

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
)

// namesTTL is how long a name from the roster is remembered, and namesKept how many.
const (
	namesTTL  = 5 * time.Minute
	namesKept = 20_000
)

// names remembers what the roster calls people. Graph often leaves the display name of
// an author empty, and then the roster knows the recorded ones.
type names struct {
	mu    sync.Mutex
	known map[teams.PersonID]string // "" for people the roster does not know
	until time.Time
}

// fillNames gives participants without a name the one they have elsewhere in the lists,
// or the one the roster has.
func (p *Portal) fillNames(ctx context.Context, lists ...[]conversation.Participant) error {
	named := map[string]string{}
	for _, list := range lists {
		for _, p := range list {
			if p.Name != "" {
				named[p.ID] = p.Name
			}
		}
	}
	for _, list := range lists {
		for i := range list {
			if list[i].Name == "" {
				list[i].Name = named[list[i].ID]
			}
		}
	}
	missing := map[teams.PersonID]bool{}
	each := func(do func(id teams.PersonID, of *conversation.Participant)) {
		for _, list := range lists {
			for i := range list {
				if id, err := teams.ParsePersonID(list[i].ID); err == nil && list[i].Name == "" {
					do(id, &list[i])
				}
			}
		}
	}
	each(func(id teams.PersonID, _ *conversation.Participant) { missing[id] = true })
	if len(missing) == 0 {
		return nil
	}
	known, err := p.lookUp(ctx, missing)
	if err != nil {
		return err
	}
	each(func(id teams.PersonID, of *conversation.Participant) { of.Name = known[id] })
	return nil
}

func (p *Portal) lookUp(ctx context.Context, wanted map[teams.PersonID]bool) (map[teams.PersonID]string, error) {
	n := &p.names
	n.mu.Lock()
	defer n.mu.Unlock()
	if now := p.config.Now(); n.known == nil || !now.Before(n.until) || len(n.known) > namesKept {
		n.known, n.until = map[teams.PersonID]string{}, now.Add(namesTTL)
	}
	var ask []teams.PersonID
	for id := range wanted {
		if _, ok := n.known[id]; !ok {
			ask = append(ask, id)
		}
	}
	if len(ask) > 0 {
		people, err := p.stores.Roster.People(ctx, ask)
		if err != nil {
			return nil, fmt.Errorf("look up names: %w", err)
		}
		for _, id := range ask {
			n.known[id] = visible(people[id].DisplayName)
		}
	}
	out := make(map[teams.PersonID]string, len(wanted))
	for id := range wanted {
		out[id] = n.known[id]
	}
	return out, nil
}

// named is what the roster calls a person.
type named struct {
	ID   teams.PersonID `json:"id"`
	Name string         `json:"name"`
}

// called lists what the roster calls each of the people, once and by id. Whom it does not
// know it leaves out.
func (p *Portal) called(ctx context.Context, ids ...teams.PersonID) ([]named, error) {
	ids = slices.DeleteFunc(slices.Clone(ids), func(id teams.PersonID) bool { return id == "" })
	slices.Sort(ids)
	ids = slices.Compact(ids)
	known, err := p.stores.Roster.People(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := []named{}
	for _, id := range ids {
		if f, ok := known[id]; ok {
			out = append(out, named{id, visible(f.DisplayName)})
		}
	}
	return out, nil
}
