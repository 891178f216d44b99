package evidence

import (
	"context"
	"strings"

	"steno/shared/teams"
)

// Version is one version of a stored object, as storage that keeps versions lists it.
type Version struct {
	Name string // of the blob
	ID   string // of the version, empty where storage keeps none
}

// Versions lists what storage keeps under names.
type Versions interface {
	// Versions lists all versions of the objects whose names begin with prefix. A store
	// that keeps no versions lists each object once.
	Versions(ctx context.Context, prefix string) ([]Version, error)
}

// SecondVersions names the objects of a unit that storage keeps more than one version of. A name is
// filled once, so each of them is one that somebody wrote over, or tried to.
func SecondVersions(ctx context.Context, v Versions, tenant teams.TenantID, unit string) ([]string, error) {
	p, err := prefix(tenant, unit)
	if err != nil {
		return nil, err
	}
	list, err := v.Versions(ctx, p)
	if err != nil {
		return nil, err
	}
	var out []string
	seen := map[string]int{}
	for _, one := range list {
		if seen[one.Name]++; seen[one.Name] == 2 {
			out = append(out, strings.TrimPrefix(one.Name, p))
		}
	}
	return out, nil
}
