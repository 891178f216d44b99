package msgraph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"steno/shared/teams"
)

// ErrPartial says that a listing of the directory could not be read to its end. What was
// read is not returned: a partial answer looks like something that was deleted.
var ErrPartial = errors.New("listing could not be read to the end")

// Lists of the directory are read in pages of listTop, at most listPages of them.
const (
	listTop   = "999"
	listPages = 1000
)

// object is what is read of the objects of a listing.
type object struct {
	ID              string
	DisplayName     string
	DeletedDateTime time.Time
}

// list calls each for every object of a listing: one request for each 999.
func (g *Client) list(ctx context.Context, u *url.URL, each func(object) error) error {
	seen := map[string]bool{}
	for range listPages {
		body, id, err := g.get(ctx, u)
		if err != nil {
			return err
		}
		items, next, err := splitPage(body)
		if err != nil {
			return fmt.Errorf("request-id %s: %w", id, err)
		}
		for _, item := range items {
			var o object
			if err := json.Unmarshal(item, &o); err != nil {
				return fmt.Errorf("request-id %s: object of a listing: %w", id, err)
			}
			if err := each(o); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		if u, err = g.follow(next); err != nil {
			return fmt.Errorf("request-id %s: %w", id, err)
		}
		if seen[next] {
			break
		}
		seen[next] = true
	}
	return ErrPartial
}

func query(v map[string]string) string {
	q := url.Values{}
	for name, value := range v {
		q.Set(name, value)
	}
	return q.Encode()
}

// Teams lists the teams of the tenant, one request for each 999. Whoever administers groups
// can edit the property that tells teams from other groups, so a team that is missing may
// be there still: ask Team.
// https://learn.microsoft.com/graph/teams-list-all-teams
func (g *Client) Teams(ctx context.Context) ([]teams.Team, error) {
	u := g.base.JoinPath("groups")
	u.RawQuery = query(map[string]string{"$filter": "resourceProvisioningOptions/Any(x:x eq 'Team')", "$select": "id,displayName", "$top": listTop})
	var out []teams.Team
	err := g.list(ctx, u, func(o object) error {
		id, err := teams.ParsePersonID(o.ID)
		out = append(out, teams.Team{ID: id, DisplayName: o.DisplayName})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list teams: %w", err)
	}
	return out, nil
}

// Team reads one team. One that is not there, or not any more, is an *Error that is Gone.
// https://learn.microsoft.com/graph/api/team-get
func (g *Client) Team(ctx context.Context, id teams.PersonID) (teams.Team, error) {
	if _, err := teams.ParsePersonID(string(id)); err != nil {
		return teams.Team{}, fmt.Errorf("read team: %w", err)
	}
	u := g.base.JoinPath("teams", url.PathEscape(string(id)))
	u.RawQuery = query(map[string]string{"$select": "id,displayName"})
	var o object
	if err := g.read(ctx, u, &o); err != nil {
		return teams.Team{}, fmt.Errorf("read team: %w", err)
	}
	return teams.Team{ID: id, DisplayName: o.DisplayName}, nil
}

// Owners lists the people who own a team or a group, one request a team.
// https://learn.microsoft.com/graph/api/group-list-owners
func (g *Client) Owners(ctx context.Context, team teams.PersonID) ([]teams.PersonID, error) {
	if _, err := teams.ParsePersonID(string(team)); err != nil {
		return nil, fmt.Errorf("list owners: %w", err)
	}
	u := g.base.JoinPath("groups", url.PathEscape(string(team)), "owners")
	u.RawQuery = query(map[string]string{"$select": "id", "$top": listTop})
	var out []teams.PersonID
	err := g.list(ctx, u, func(o object) error {
		id, err := teams.ParsePersonID(o.ID)
		out = append(out, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list owners: %w", err)
	}
	return out, nil
}

// DeletedUsers lists the people who were deleted and can be restored still, which is as
// long as their messages can be exported: one request for each 999.
// https://learn.microsoft.com/graph/api/directory-deleteditems-list
func (g *Client) DeletedUsers(ctx context.Context) ([]teams.Deletion, error) {
	return g.deleted(ctx, "user")
}

// DeletedTeams is to teams what DeletedUsers is to people. Other groups are in it too.
func (g *Client) DeletedTeams(ctx context.Context) ([]teams.Deletion, error) {
	return g.deleted(ctx, "group")
}

func (g *Client) deleted(ctx context.Context, kind string) ([]teams.Deletion, error) {
	u := g.base.JoinPath("directory", "deletedItems", "microsoft.graph."+kind)
	u.RawQuery = query(map[string]string{"$select": "id,deletedDateTime", "$top": listTop})
	var out []teams.Deletion
	err := g.list(ctx, u, func(o object) error {
		id, err := teams.ParsePersonID(o.ID)
		if err == nil && o.DeletedDateTime.IsZero() {
			err = errors.New("a deleted " + kind + " without deletedDateTime")
		}
		// Graph drops the fraction of the second. Nothing is written after a deletion, so its
		// end does no harm where its beginning would cut off what came just before.
		out = append(out, teams.Deletion{ID: id, At: o.DeletedDateTime.UTC().Truncate(time.Second).Add(time.Second)})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list deleted %s: %w", kind+"s", err)
	}
	return out, nil
}
