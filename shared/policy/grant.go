package policy

import (
	"context"
	"fmt"
	"slices"
	"time"

	"steno/shared/teams"
)

// Grant is what one person may see, computed from the roster at one moment.
// Its zero value sees nothing. Handlers take a Grant, never a role name.
type Grant struct {
	person teams.PersonID
	roles  map[Role]bool
	all    bool                        // every conversation (compliance officer)
	scope  map[teams.PersonID][]Period // recorded periods of the people assigned
}

// GrantFor computes the grant of a person as of now: open periods give roles, and
// a supervisor's desks give the recorded users who are or were on them.
func GrantFor(ctx context.Context, r Roster, person teams.PersonID, now time.Time) (Grant, error) {
	mine, err := r.PeriodsOf(ctx, person)
	if err != nil {
		return Grant{}, fmt.Errorf("read roster periods: %w", err)
	}
	g := Grant{person: person, roles: map[Role]bool{}, scope: map[teams.PersonID][]Period{}}
	desks := map[string]bool{}
	for _, p := range mine {
		if !p.Covers(now) {
			continue
		}
		g.roles[p.Role] = true
		if p.Role == Supervisor {
			desks[p.Desk] = true
		}
	}
	if g.roles[Administrator] && g.roles[ComplianceOfficer] {
		// Separation of duties: group sync refuses this union, and so does every reader.
		delete(g.roles, Administrator)
		delete(g.roles, ComplianceOfficer)
	}
	g.all = g.roles[ComplianceOfficer]
	if !g.all && len(desks) == 0 {
		return g, nil
	}
	recorded, err := Custodians(ctx, r)
	if err != nil {
		return Grant{}, err
	}
	for _, p := range recorded {
		if g.all || desks[p.Desk] {
			g.scope[p.Person] = append(g.scope[p.Person], p)
		}
	}
	return g, nil
}

// Person is whose grant it is.
func (g Grant) Person() teams.PersonID { return g.person }

// Has reports whether the person holds the role now.
func (g Grant) Has(role Role) bool { return g.roles[role] }

// Roles lists the roles held now, sorted.
func (g Grant) Roles() []Role {
	out := make([]Role, 0, len(g.roles))
	for r := range g.roles {
		out = append(out, r)
	}
	slices.Sort(out)
	return out
}

// SeesContent reports whether any content at all may be opened. The roles of
// administrator and auditor give none; a supervisor who is also one keeps her own.
func (g Grant) SeesContent() bool { return g.all || len(g.scope) > 0 }

// SeesAll reports whether every conversation may be seen.
func (g Grant) SeesAll() bool { return g.all }

// People lists the recorded users whose conversations may be seen, sorted.
func (g Grant) People() []teams.PersonID {
	out := make([]teams.PersonID, 0, len(g.scope))
	for p := range g.scope {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// MaySeePerson reports whether the person is one whose conversations may be seen.
func (g Grant) MaySeePerson(p teams.PersonID) bool { return len(g.scope[p]) > 0 }

// MaySee reports whether a conversation may be seen that was captured because of
// the given custodians and spans [from, to]. A supervisor needs one custodian whose
// period on her desk overlaps the conversation; history (how far before a period the
// recording of a newcomer reaches back) widens the period at its start.
func (g Grant) MaySee(custodians []teams.PersonID, from, to time.Time, history time.Duration) bool {
	if g.all {
		return true
	}
	for _, c := range custodians {
		for _, p := range g.scope[c] {
			p.From = p.From.Add(-history)
			if p.Overlaps(from, to.Add(time.Nanosecond)) {
				return true
			}
		}
	}
	return false
}
