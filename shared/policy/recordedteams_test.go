package policy_test

import (
	"strings"
	"testing"

	"steno/shared/policy"
	"steno/shared/teams"
)

const teamA, teamB = "AAAAAAAA-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"

func TestRulesOfTeamsAreReadWithIDsInLowerCase(t *testing.T) {
	rules, err := policy.ParseTeamRules(`[{"desk":"fx","team":"` + teamA + `"},{"desk":"fx","name":"Desk *"},{"desk":"rates","ownerGroup":"` + teamA + `"},{"desk":"rates","ownerGroup":"Desk heads"},{"desk":"ops","all":true},{"exclude":"` + teamB + `"}]`)
	if err != nil {
		t.Fatal(err)
	}
	if len(rules) != 6 || rules[0].Team != strings.ToLower(teamA) || rules[2].OwnerGroup != strings.ToLower(teamA) || rules[5].Exclude != teamB {
		t.Errorf("got %+v", rules)
	}
}

func TestEveryFaultOfTheRulesOfTeamsIsReportedAtOnce(t *testing.T) {
	_, err := policy.ParseTeamRules(`[{"desk":"FX","team":"me"},{"desk":"fx"},{"desk":"fx","all":true,"name":"x"},{"desk":"fx","exclude":"` + teamA + `"},
		{"desk":"fx","name":"*"},{"desk":"fx","name":"a*b"},{"desk":"fx","all":true},{"desk":"fx","all":true},{"desk":"fx","team":"` + teamA + `"}]`)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`rule 1: desk "FX"`, "want the object id of a team", "rule 2: want exactly one", "rule 3: want exactly one", "rule 4: desk", "rule 5: name: to record every team",
		"rule 6: name: a *", "rule 8: listed twice", "rule 9: the team is excluded",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %q in\n%v", want, err)
		}
	}
	for _, bad := range []string{``, `{}`, `[] []`, `[{"desk":"fx","all":true,"keep":1}]`, `[{"desk":"fx","all":"yes"}]`} {
		if _, err := policy.ParseTeamRules(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestNamesOfTeamsMatchWholeOrFromTheBeginning(t *testing.T) {
	for _, c := range []struct {
		rule, name string
		want       bool
	}{
		{"Trading", "Trading", true}, {"Trading", "Trading 2", false}, {"Trading", "trading", false},
		{"Trading*", "Trading", true}, {"Trading*", "Trading 2", true}, {"Trading*", "A Trading", false}, {"", "", false},
	} {
		if got := (policy.TeamRule{Name: c.rule}).Named(teams.Team{DisplayName: c.name}); got != c.want {
			t.Errorf("%q matches %q: %t", c.rule, c.name, got)
		}
	}
}
