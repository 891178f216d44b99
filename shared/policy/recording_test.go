package policy_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"steno/shared/policy"
	"steno/shared/teams"
)

const (
	contoso  = teams.TenantID("11111111-1111-4111-8111-111111111111")
	fabrikam = teams.TenantID("22222222-2222-4222-8222-222222222222")
	trader   = teams.PersonID("aaaaaaaa-0000-4000-8000-000000000001")
)

func desk(name string, when policy.When, media policy.Media) policy.RoleGroup {
	return policy.RoleGroup{Role: policy.RecordedUser, Group: "g-" + name, Desk: name, Recording: policy.RecordingRule{When: when, Media: media}}
}

// TestTheRuleOfAPersonIsTheMostCompleteOfHerDesks goes through every pair of desks,
// with and without an exclusion.
func TestTheRuleOfAPersonIsTheMostCompleteOfHerDesks(t *testing.T) {
	at := time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)
	whens := []policy.When{policy.WhenNever, policy.WhenExternal, policy.WhenAlways} // ever more complete
	medias := []policy.Media{policy.MediaAudio, policy.MediaAll}
	on := func(role policy.Role, desk string) policy.Period {
		return policy.Period{Person: trader, Role: role, Desk: desk, From: at.Add(-time.Hour)}
	}
	for w1, when1 := range whens {
		for w2, when2 := range whens {
			for m1, media1 := range medias {
				for m2, media2 := range medias {
					groups := []policy.RoleGroup{desk("a", when1, media1), desk("b", when2, media2)}
					both := []policy.Period{on(policy.RecordedUser, "a"), on(policy.RecordedUser, "b")}
					want := policy.RecordingRule{When: whens[max(w1, w2)], Media: medias[max(m1, m2)]}
					if got := policy.RuleFor(groups, both, at); got != want {
						t.Errorf("%s/%s and %s/%s: %+v, want %+v", when1, media1, when2, media2, got, want)
					}
					if got := policy.RuleFor(groups, both[:1], at); got != (policy.RecordingRule{When: when1, Media: media1}) {
						t.Errorf("%s/%s alone: %+v", when1, media1, got)
					}
					for _, excluded := range [][]policy.Period{
						append([]policy.Period{on(policy.NeverRecorded, "")}, both...), append(both, on(policy.NeverRecorded, "")),
					} {
						if got := policy.RuleFor(groups, excluded, at); got.When != policy.WhenNever {
							t.Errorf("%s and %s, excluded: %+v", when1, when2, got)
						}
					}
				}
			}
		}
	}
}

func TestWhoIsNotKnownIsRecordedInFull(t *testing.T) {
	at := time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)
	full := policy.RecordingRule{When: policy.WhenAlways, Media: policy.MediaAll}
	groups := []policy.RoleGroup{desk("a", policy.WhenNever, policy.MediaAudio)}
	for name, periods := range map[string][]policy.Period{
		"nothing known":      nil,
		"a closed period":    {{Person: trader, Role: policy.RecordedUser, Desk: "a", From: at.Add(-time.Hour), To: at}},
		"a closed exclusion": {{Person: trader, Role: policy.NeverRecorded, From: at.Add(-time.Hour), To: at}},
		"a later exclusion":  {{Person: trader, Role: policy.NeverRecorded, From: at.Add(time.Second)}},
		"another role":       {{Person: trader, Role: policy.Supervisor, Desk: "a", From: at.Add(-time.Hour)}},
		"a desk of no group": {{Person: trader, Role: policy.RecordedUser, Desk: "gone", From: at.Add(-time.Hour)}},
	} {
		if got := policy.RuleFor(groups, periods, at); got != full {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestDecisionsOfEveryRule(t *testing.T) {
	colleague := teams.Party{Kind: teams.PartyUser, ID: "c", Tenant: contoso}
	bot := teams.Party{Kind: teams.PartyApplication, ID: "b"}
	client := teams.Party{Kind: teams.PartyUser, ID: "x", Tenant: fabrikam}
	inside, outside := []teams.Party{colleague, bot}, []teams.Party{colleague, bot, client}
	for _, c := range []struct {
		when    policy.When
		parties []teams.Party
		known   bool
		record  bool
		reason  string
	}{
		{policy.WhenAlways, nil, false, true, ""},
		{policy.WhenAlways, inside, true, true, ""},
		{policy.WhenAlways, outside, true, true, ""},
		{policy.WhenExternal, nil, false, true, ""},
		{policy.WhenExternal, nil, true, false, policy.ReasonNoExternal},
		{policy.WhenExternal, inside, false, true, ""},
		{policy.WhenExternal, inside, true, false, policy.ReasonNoExternal},
		{policy.WhenExternal, outside, true, true, ""},
		{policy.WhenExternal, outside, false, true, ""},
		{policy.WhenNever, nil, false, false, policy.ReasonNever},
		{policy.WhenNever, inside, true, false, policy.ReasonNever},
		{policy.WhenNever, outside, true, false, policy.ReasonNever},
		{"", inside, true, true, ""},
	} {
		for _, media := range []policy.Media{policy.MediaAll, policy.MediaAudio, ""} {
			got := policy.RecordingRule{When: c.when, Media: media}.Decide(contoso, c.parties, c.known)
			reason := c.reason
			if reason == "" && media == policy.MediaAudio {
				reason = policy.ReasonAudioOnly
			}
			if got.Record != c.record || got.AudioOnly != (media == policy.MediaAudio) || got.Reason != reason {
				t.Errorf("%q %q, %d parties, known %t: %+v", c.when, media, len(c.parties), c.known, got)
			}
		}
	}
}

func TestWhoCannotBeToldToBeOursIsExternal(t *testing.T) {
	for kind, external := range map[teams.PartyKind]bool{
		teams.PartyUser: false, teams.PartyApplication: false, teams.PartyInstance: false, teams.PartyGuest: true, teams.PartyPhone: true,
		teams.PartyACS: true, teams.PartyOnPremises: true, teams.PartyDevice: true, teams.PartyEncrypted: true, teams.PartyOther: true, "new": true,
	} {
		if policy.External(contoso, teams.Party{Kind: kind, ID: "x"}) != external {
			t.Errorf("%s: external is not %t", kind, external)
		}
	}
	if !policy.External(contoso, teams.Party{Kind: teams.PartyUser, Tenant: fabrikam}) || policy.External(contoso, teams.Party{Kind: teams.PartyUser, Tenant: contoso}) {
		t.Error("the tenant of a user does not decide")
	}
}

// shelf is a roster of which only periods are asked.
type shelf struct {
	policy.Roster
	periods []policy.Period
	err     error
}

func (s *shelf) Periods(_ context.Context, role policy.Role) ([]policy.Period, error) {
	var out []policy.Period
	for _, p := range s.periods {
		if p.Role == role {
			out = append(out, p)
		}
	}
	return out, s.err
}

func TestARuleBookKeepsWhatItKnewThroughAnOutage(t *testing.T) {
	now := time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)
	s := &shelf{err: errors.New("down")}
	b := policy.NewRuleBook([]policy.RoleGroup{desk("a", policy.WhenExternal, policy.MediaAudio)}, s, func() time.Time { return now })
	if err := b.Refresh(t.Context()); err == nil {
		t.Fatal("an outage is not told")
	}
	if r := b.Rule(trader); r.When != policy.WhenAlways || r.Media != policy.MediaAll {
		t.Fatalf("knowing nothing: %+v", r)
	}
	s.err, s.periods = nil, []policy.Period{{Person: trader, Role: policy.RecordedUser, Desk: "a", From: now.Add(-time.Hour)}}
	if err := b.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.err, s.periods = errors.New("down"), nil
	if err := b.Refresh(t.Context()); err == nil {
		t.Fatal("an outage is not told")
	}
	if r := b.Rule(trader); r.When != policy.WhenExternal || r.Media != policy.MediaAudio {
		t.Fatalf("in an outage: %+v", r)
	}
	s.err, s.periods = nil, []policy.Period{{Person: trader, Role: policy.NeverRecorded, From: now.Add(-time.Second)}}
	if err := b.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := b.Rule(trader); r.When != policy.WhenNever {
		t.Fatalf("after the exclusion: %+v", r)
	}
}

func TestRecordingRulesInRoleGroups(t *testing.T) {
	groups, err := policy.ParseRoleGroups(`[
		{"role":"recordedUser","group":"a","desk":"fx","recording":{"when":"external","media":"audio"}},
		{"role":"recordedUser","group":"b","desk":"fx","recording":{"when":"external","media":"audio"}},
		{"role":"recordedUser","group":"c","desk":"rates"},
		{"role":"neverRecorded","group":"works council"}]`)
	if err != nil {
		t.Fatal(err)
	}
	if groups[0].Recording != (policy.RecordingRule{When: policy.WhenExternal, Media: policy.MediaAudio}) || groups[3].Key() != "neverRecorded" {
		t.Fatalf("parsed %+v", groups)
	}
	for name, s := range map[string]string{
		"unknown when":     `[{"role":"recordedUser","group":"a","desk":"fx","recording":{"when":"sometimes"}}]`,
		"unknown media":    `[{"role":"recordedUser","group":"a","desk":"fx","recording":{"media":"video"}}]`,
		"unknown member":   `[{"role":"recordedUser","group":"a","desk":"fx","recording":{"who":"all"}}]`,
		"two rules a desk": `[{"role":"recordedUser","group":"a","desk":"fx","recording":{"when":"never"}},{"role":"recordedUser","group":"b","desk":"fx"}]`,
		"rule of a role":   `[{"role":"recordedUser","group":"a","desk":"fx"},{"role":"auditor","group":"b","recording":{"when":"never"}}]`,
		"excluded desk":    `[{"role":"recordedUser","group":"a","desk":"fx"},{"role":"neverRecorded","group":"b","desk":"fx"}]`,
		"listed twice":     `[{"role":"recordedUser","group":"a","desk":"fx"},{"role":"recordedUser","group":"a","desk":"fx","recording":{"when":"always"}}]`,
	} {
		if _, err := policy.ParseRoleGroups(s); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
