package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"steno/shared/teams"
)

// Role is what membership in an Entra group gives.
type Role string

// The roles. A person may hold several, except Administrator together with
// ComplianceOfficer: whoever configures the recorder sees no content.
const (
	RecordedUser      Role = "recordedUser"
	Supervisor        Role = "supervisor"
	ComplianceOfficer Role = "complianceOfficer"
	Administrator     Role = "administrator"
	Auditor           Role = "auditor"
	// RecordedTeam is held by teams whose channels are recorded. Entra gives no two objects
	// one id, so a team stands in the roster like a person, and what is true of a custodian
	// (desk, period, retention, hold, who may see it) is true of both. No role group gives
	// it; see RecordedTeams.
	RecordedTeam Role = "recordedTeam"
	// NeverRecorded takes its members' calls out of recording, whatever else they are.
	NeverRecorded Role = "neverRecorded"
)

// Roles lists every role.
var Roles = []Role{RecordedUser, Supervisor, ComplianceOfficer, Administrator, Auditor, NeverRecorded}

// Custodian reports whether whoever holds the role is recorded.
func (r Role) Custodian() bool { return r == RecordedUser || r == RecordedTeam }

// RoleGroup binds an Entra group to a role, and for recorded users and
// supervisors to a desk.
type RoleGroup struct {
	Role Role `json:"role"`
	// Group is the object id of the group, or its exact display name. Display names
	// are not unique and can be changed by whoever owns the group, so production
	// configurations use object ids.
	Group string `json:"group"`
	// Desk joins recorded users with those who supervise them.
	// Required for RecordedUser and Supervisor, refused otherwise.
	Desk string `json:"desk,omitempty"`
	// Recording is how calls of the desk's recorded users are recorded: in full where it
	// is absent. Refused for every role but RecordedUser.
	Recording RecordingRule `json:"recording,omitzero"`
}

var deskName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// Key names the role group in stored periods: role and desk, not the group id, so
// that a desk moved to another Entra group stays the same desk.
func (g RoleGroup) Key() string {
	if g.Desk == "" {
		return string(g.Role)
	}
	return string(g.Role) + ":" + g.Desk
}

// ByObjectID reports whether Group is an object id, and returns it.
func (g RoleGroup) ByObjectID() (teams.GroupID, bool) {
	id, err := teams.ParseGroupID(g.Group)
	return id, err == nil
}

// ParseRoleGroups reads the configuration value ROLE_GROUPS: a JSON array of
// {"role","group","desk","recording"}. It reports every fault at once.
func ParseRoleGroups(s string) ([]RoleGroup, error) {
	dec := json.NewDecoder(strings.NewReader(s))
	dec.DisallowUnknownFields()
	var groups []RoleGroup
	if err := dec.Decode(&groups); err != nil {
		return nil, fmt.Errorf("role groups: want a JSON array of {role, group, desk, recording}: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("role groups: something follows the JSON array")
	}
	var faults []error
	fault := func(i int, format string, args ...any) {
		faults = append(faults, fmt.Errorf("role group %d: "+format, append([]any{i + 1}, args...)...))
	}
	seen := map[RoleGroup]bool{}
	rules := map[string]RecordingRule{} // by desk
	for i, g := range groups {
		if !slices.Contains(Roles, g.Role) {
			fault(i, "unknown role %q; want one of %v", g.Role, Roles)
		}
		if g.Group == "" || len(g.Group) > 256 {
			fault(i, "group must be an object id or a display name of 1 to 256 bytes")
		}
		hasDesk := g.Role == RecordedUser || g.Role == Supervisor
		switch {
		case hasDesk && !deskName.MatchString(g.Desk):
			fault(i, "desk %q: a %s needs a desk of lower-case letters, digits and dashes", g.Desk, g.Role)
		case !hasDesk && g.Desk != "":
			fault(i, "desk %q: a %s has none", g.Desk, g.Role)
		}
		if err := g.Recording.check(); err != nil {
			fault(i, "%w", err)
		}
		if g.Role != RecordedUser && g.Recording != (RecordingRule{}) {
			fault(i, "a %s has no recording rule", g.Role)
		}
		if id, ok := g.ByObjectID(); ok {
			g.Group = string(id)
		}
		// Periods remember the desk and not the group, so a desk has one rule.
		if rule, ok := rules[g.Desk]; ok && g.Role == RecordedUser && rule != g.Recording.full() {
			fault(i, "desk %q has another recording rule in a group before", g.Desk)
		} else if g.Role == RecordedUser {
			rules[g.Desk] = g.Recording.full()
		}
		entry := RoleGroup{Role: g.Role, Group: g.Group, Desk: g.Desk}
		if seen[entry] {
			fault(i, "listed twice")
		}
		seen[entry] = true
	}
	if !slices.ContainsFunc(groups, func(g RoleGroup) bool { return g.Role == RecordedUser }) {
		faults = append(faults, errors.New("role groups: no group of recorded users; nothing would be recorded"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return groups, nil
}
