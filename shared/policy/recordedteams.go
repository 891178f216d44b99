package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"steno/shared/teams"
)

// TeamRule says of some teams that what is written in their channels is recorded, and for
// which desk; or, with Exclude, that one team's is not, whatever other rules say. But for
// Desk, exactly one of its fields is set.
type TeamRule struct {
	// Desk joins the teams with those who supervise them. Required but with Exclude.
	Desk string `json:"desk,omitempty"`
	// Team is the object id of one team.
	Team string `json:"team,omitempty"`
	// Name is the exact display name of a team, or the beginning of names with a * behind
	// it. Owners can rename their teams, so a team that must be recorded is named by id.
	Name string `json:"name,omitempty"`
	// OwnerGroup is the object id of a group, or its exact display name: teams one of whose
	// owners is in it, directly or in a group inside it.
	OwnerGroup string `json:"ownerGroup,omitempty"`
	// All is every team of the tenant.
	All bool `json:"all,omitempty"`
	// Exclude is the object id of a team that is not recorded.
	Exclude string `json:"exclude,omitempty"`
}

// Named reports whether the rule's Name is that of the team.
func (r TeamRule) Named(t teams.Team) bool {
	if prefix, ok := strings.CutSuffix(r.Name, "*"); ok {
		return strings.HasPrefix(t.DisplayName, prefix)
	}
	return r.Name != "" && t.DisplayName == r.Name
}

// Owners is the group of OwnerGroup as a role group, for the lookup that both share.
func (r TeamRule) Owners() RoleGroup {
	return RoleGroup{Role: RecordedTeam, Group: r.OwnerGroup, Desk: r.Desk}
}

// kinds counts the fields of which one is to be set.
func (r TeamRule) kinds() (n int) {
	for _, set := range []bool{r.Team != "", r.Name != "", r.OwnerGroup != "", r.All, r.Exclude != ""} {
		if set {
			n++
		}
	}
	return n
}

// check returns the rule with its ids in lower case, or every fault of it.
func (r TeamRule) check() (TeamRule, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if r.kinds() != 1 {
		fault("want exactly one of team, name, ownerGroup, all and exclude")
	}
	switch {
	case r.Exclude != "" && r.Desk != "":
		fault("desk %q: an exclusion is for all desks", r.Desk)
	case r.Exclude == "" && !deskName.MatchString(r.Desk):
		fault("desk %q: want lower-case letters, digits and dashes", r.Desk)
	}
	for name, id := range map[string]*string{"team": &r.Team, "exclude": &r.Exclude} {
		if *id == "" {
			continue
		}
		parsed, err := teams.ParsePersonID(*id)
		if err != nil {
			fault("%s: want the object id of a team", name)
			continue
		}
		*id = string(parsed)
	}
	if id, ok := r.Owners().ByObjectID(); ok {
		r.OwnerGroup = string(id)
	}
	if r.Name == "*" {
		fault("name: to record every team, say all")
	}
	if strings.Contains(strings.TrimSuffix(r.Name, "*"), "*") {
		fault("name: a * may stand at the end only")
	}
	if len(r.Name) > 256 || len(r.OwnerGroup) > 256 {
		fault("names have at most 256 bytes")
	}
	return r, errors.Join(faults...)
}

// ParseTeamRules reads the configuration value RECORDED_TEAMS: a JSON array of {"desk" and
// one of "team", "name", "ownerGroup", "all"} and of {"exclude"}. It reports every fault
// at once.
func ParseTeamRules(s string) ([]TeamRule, error) {
	dec := json.NewDecoder(strings.NewReader(s))
	dec.DisallowUnknownFields()
	var rules []TeamRule
	if err := dec.Decode(&rules); err != nil {
		return nil, fmt.Errorf("recorded teams: want a JSON array of {desk, team | name | ownerGroup | all} and {exclude}: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("recorded teams: something follows the JSON array")
	}
	var faults []error
	seen := map[TeamRule]bool{}
	excluded := map[string]bool{}
	for i, r := range rules {
		r, err := r.check()
		if err != nil {
			faults = append(faults, fmt.Errorf("recorded teams, rule %d: %w", i+1, err))
		}
		if seen[r] {
			faults = append(faults, fmt.Errorf("recorded teams, rule %d: listed twice", i+1))
		}
		seen[r], rules[i] = true, r
		excluded[r.Exclude] = true
	}
	for i, r := range rules {
		if r.Team != "" && excluded[r.Team] {
			faults = append(faults, fmt.Errorf("recorded teams, rule %d: the team is excluded by another rule", i+1))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return rules, nil
}
