package world

import (
	"encoding/json"

	"steno/shared/policy"
	"steno/shared/teams"
)

// recordedTeams are the teams whose channels the world records, by their names, as a rule
// of STENO_RECORDED_TEAMS has them, and the desk of each.
var recordedTeams = map[string]string{"Trading Floor": "equities", "Project*": "rates"}

// teamRules is STENO_RECORDED_TEAMS for the tenant's teams: one by id, others by name.
func (w *World) teamRules() (string, error) {
	var rules []policy.TeamRule
	for name, desk := range recordedTeams {
		r := policy.TeamRule{Desk: desk, Name: name}
		if g, ok := w.Tenant.Group(name); ok {
			r = policy.TeamRule{Desk: desk, Team: g.ID}
		}
		rules = append(rules, r)
	}
	b, err := json.Marshal(rules)
	return string(b), err
}

// recordsTeam reports whether the world records what is written in the channels of a team.
func recordsTeam(name string) bool {
	for rule := range recordedTeams {
		if (policy.TeamRule{Name: rule}).Named(teams.Team{DisplayName: name}) {
			return true
		}
	}
	return false
}
