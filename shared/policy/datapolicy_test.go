package policy_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"steno/shared/policy"
)

func TestTermsThatKeepNothingOrAMillenniumAreRefused(t *testing.T) {
	for s, want := range map[string]string{
		"P0Y": "keeps nothing", "P0D": "keeps nothing", "P1000Y": "100 years", "P100Y1D": "100 years", "P999999M": "100 years", "P40000D": "100 years",
		"": "no period", "P": "no period", "7Y": "no period", "P7": "no period", "P7y": "no period", "P-1Y": "no period", "P1W": "no period", "PT1H": "no period",
		"P1M1Y": "no period", "P7Y ": "no period", "P7Y\n": "no period", "P1.5Y": "no period", "P9999999D": "no period",
	} {
		if got, err := policy.ParseTerm(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want an error with %q", s, got, err, want)
		}
	}
	for _, s := range []string{"P1D", "P7Y", "P18M", "P1Y6M", "P100Y", "P1Y2M3D", "P36524D"} {
		got, err := policy.ParseTerm(s)
		if err != nil || got.String() != s {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

func TestATermIsCalendarArithmeticInUTCAndNeverShorterThanItSays(t *testing.T) {
	at := func(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 13, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		term        string
		start, want time.Time
	}{
		{"P6Y", at(2020, 1, 31), at(2026, 1, 31)}, {"P1Y", at(2024, 2, 29), at(2025, 3, 1)}, {"P4Y", at(2024, 2, 29), at(2028, 2, 29)},
		{"P1M", at(2026, 1, 31), at(2026, 3, 3)}, {"P90D", at(2026, 1, 1), at(2026, 4, 1)},
		{"P1D", time.Date(2026, 3, 29, 1, 30, 0, 0, time.FixedZone("CET", 3600)), time.Date(2026, 3, 30, 0, 30, 0, 0, time.UTC)},
	} {
		term, err := policy.ParseTerm(c.term)
		if err != nil {
			t.Fatal(err)
		}
		if got := term.After(c.start); !got.Equal(c.want) || got.Location() != time.UTC {
			t.Errorf("%s after %s: %s, want %s", c.term, c.start, got, c.want)
		}
	}
}

func TestEveryFaultOfThePoliciesIsReportedAtOnce(t *testing.T) {
	_, err := policy.ParseDataPolicies(`[
		{"keep":"P7Y","desks":["a1"]},
		{"name":"zero","keep":"P0Y","desks":["a2"]},
		{"name":"millennium","keep":"P1000Y","desks":["a3"]},
		{"name":"fax","keep":"P1Y","modalities":["fax"]},
		{"name":"desk","keep":"P1Y","desks":["FX Desk"]},
		{"name":"fx","keep":"P7Y","desks":["fx","rates"]},
		{"name":"fx-again","keep":"P3Y","desks":["metals","rates"]},
		{"name":"fx","keep":"P1Y","modalities":["chat"]},
		{"name":"default","keep":"P1Y","modalities":["voice"],"desks":["b"]},
		{"name":"event","keep":"P1Y","modalities":["video"],"desks":["c"],"starts":"The End"},
		{"name":"twice","keep":"P1Y","modalities":["screen","screen"],"desks":["d"]}
	]`)
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{
		`data policy 1 (""): it has no name`, `data policy 2 ("zero"): keep: "P0Y" keeps nothing`, `data policy 3 ("millennium"): keep: "P1000Y" is more than the 100 years`,
		`data policy 4 ("fax"): unknown modality "fax"`, `data policy 5 ("desk"): desk "FX Desk"`,
		`data policies 6 ("fx") and 7 ("fx-again") overlap on every modality of desk rates`, `data policy 8: the name "fx" is that of policy 6`,
		`data policy 9 ("default"): this name is that of the built-in policy`, `data policy 10 ("event"): starts "The End"`, `data policy 11 ("twice"): "screen" is listed twice`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("not reported: %s\nin: %v", want, err)
		}
	}
}

func TestPoliciesThatReadersCouldReadDifferentlyAreRefused(t *testing.T) {
	for s, want := range map[string]string{
		`[{"name":"a","keep":"P1Y","keep":"P9Y"}]`: "stands twice", `[{"name":"a","keep":"P1Y","Keep":"P9Y"}]`: "unknown member", `[{"name":"a","keep":"P1Y","days":3}]`: "unknown member",
		`[{"name":"a","keep":"P1Y"}] []`: "follows", `{"name":"a","keep":"P1Y"}`: "JSON array", `[{"name":"a","keep":7}]`: "JSON array", `[`: "not JSON", `[[[[[[]]]]]]`: "deeper",
		`[{"name":"all","keep":"P1Y"},{"name":"all2","keep":"P2Y"}]`: "overlap on every modality of every desk",
	} {
		if got, err := policy.ParseDataPolicies(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want an error with %q", s, got, err, want)
		}
	}
	for _, s := range []string{"", "  ", "[]", "null"} {
		if got, err := policy.ParseDataPolicies(s); err != nil || len(got) != 0 {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

func TestAPolicyForADeskThatNobodyIsOnIsRefused(t *testing.T) {
	ps := policies(t, `[{"name":"a","keep":"P1Y","desks":["fx","rates"]}]`)
	groups := []policy.RoleGroup{{Role: policy.RecordedUser, Desk: "fx"}, {Role: policy.Supervisor, Desk: "rates"}}
	if err := ps.CheckDesks(groups, nil); err == nil || !strings.Contains(err.Error(), `"rates"`) || strings.Contains(err.Error(), `"fx"`) {
		t.Errorf("%v", err)
	}
	if err := ps.CheckDesks(groups, []policy.TeamRule{{Desk: "rates", All: true}}); err != nil {
		t.Errorf("a desk of teams: %v", err)
	}
}

func policies(t *testing.T, s string) policy.DataPolicies {
	t.Helper()
	ps, err := policy.ParseDataPolicies(s)
	if err != nil {
		t.Fatal(err)
	}
	return ps
}

func facts(modality string, desks ...string) policy.Facts {
	return policy.Facts{
		Conversation: strings.Repeat("a", 32) + "-20260314", Modality: modality, Start: noon.Add(-time.Hour), End: noon,
		Custodians: []policy.CustodianFacts{{Person: ann, Desks: desks}},
	}
}

func TestTheMostSpecificPolicyOfEachDeskAndTheLongestOfAll(t *testing.T) {
	ps := policies(t, `[
		{"name":"all","keep":"P5Y"},
		{"name":"chat","keep":"P1Y","modalities":["chat"]},
		{"name":"fx","keep":"P7Y","desks":["fx"]},
		{"name":"fx-chat","keep":"P3Y","desks":["fx"],"modalities":["chat"]},
		{"name":"rates","keep":"P2Y","desks":["rates"]}
	]`)
	for _, c := range []struct {
		f     policy.Facts
		want  string
		years int
	}{
		{facts("voice"), "all", 5}, {facts("chat"), "chat", 1}, {facts("voice", "fx"), "fx", 7}, {facts("chat", "fx"), "fx-chat", 3},
		{facts("chat", "rates"), "rates", 2}, {facts("chat", "rates", "fx"), "fx-chat", 3}, {facts("voice", "rates", "fx"), "fx", 7}, {facts("voice", "metals", "rates"), "all", 5},
	} {
		if got := ps.Decide(c.f); got.Policy != c.want || !got.Until.Equal(noon.AddDate(c.years, 0, 0)) || got.Open {
			t.Errorf("%s on %v: %+v, want %s", c.f.Modality, c.f.Custodians, got, c.want)
		}
	}
	two := facts("chat", "rates")
	two.Custodians = append(two.Custodians, policy.CustodianFacts{Person: bob, Desks: []string{"fx"}})
	if got := ps.Decide(two); got.Policy != "fx-chat" {
		t.Errorf("two custodians: %+v", got)
	}
	if got := policy.DataPolicies(nil).Decide(facts("chat")); got.Policy != "default" || !got.Until.Equal(noon.AddDate(6, 0, 0)) {
		t.Errorf("no policy: %+v", got)
	}
	if got := policy.DataPolicies(nil).Decide(policy.Facts{Modality: "chat", End: noon}); got.Policy != "default" {
		t.Errorf("no custodian: %+v", got)
	}
}

func TestADateThatWasSetIsNeverShortened(t *testing.T) {
	const seed = 5
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 500 {
		ps := policies(t, fmt.Sprintf(`[{"name":"a","keep":"P%dM"}]`, 1+rng.IntN(200)))
		f := facts("voice")
		f.Set = noon.AddDate(0, rng.IntN(200), 0)
		if got := ps.Decide(f); got.Until.Before(f.Set) || got.Until.Before(ps[0].Keep.After(f.End)) {
			t.Fatalf("seed %d, round %d: %+v, set %s", seed, round, got, f.Set)
		}
	}
}

func TestAnEventBasedTermIsOpenUntilTheEvent(t *testing.T) {
	ps := policies(t, `[{"name":"contract","keep":"P2Y","desks":["fx"],"starts":"contract-ended"},{"name":"long","keep":"P50Y","desks":["rates"]}]`)
	f := facts("voice", "fx", "rates")
	got := ps.Decide(f)
	if !got.Open || got.Policy != "contract" || got.Due(noon.AddDate(99, 0, 0)) || !got.Until.Equal(noon.AddDate(2, 0, 0)) {
		t.Errorf("before the event: %+v", got)
	}
	f = facts("voice", "fx")
	f.Events = map[string]time.Time{"other": noon, "contract-ended": noon.AddDate(3, 0, 0)}
	if got := ps.Decide(f); got.Open || !got.Until.Equal(noon.AddDate(5, 0, 0)) || got.Due(noon.AddDate(5, 0, 0).Add(-1)) || !got.Due(noon.AddDate(5, 0, 0)) {
		t.Errorf("after it: %+v", got)
	}
}

func TestDesksAreThoseOfTheTimeOfTheConversation(t *testing.T) {
	periods := []policy.Period{
		recorded(ann, "fx", -time.Hour, time.Hour), recorded(ann, "rates", time.Hour, 0), recorded(bob, "metals", -time.Hour, 0),
		{Person: ann, Role: policy.Supervisor, Desk: "boss", From: noon.Add(-time.Hour)}, recorded(ann, "fx", 30*time.Minute, 0),
	}
	for _, c := range []struct {
		from, to, history time.Duration
		want              string
	}{
		{0, 0, 0, "fx"}, {0, 2 * time.Hour, 0, "fx rates"}, {-3 * time.Hour, -2 * time.Hour, 0, ""}, {-3 * time.Hour, -2 * time.Hour, time.Hour, "fx"},
	} {
		if got := strings.Join(policy.DesksAt(periods, ann, noon.Add(c.from), noon.Add(c.to), c.history), " "); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestAPreviewSaysWhatAChangeWouldDo(t *testing.T) {
	present, proposed := policies(t, `[{"name":"five","keep":"P5Y"}]`), policies(t, `[{"name":"three","keep":"P3Y","modalities":["chat"]},{"name":"nine","keep":"P9Y","modalities":["voice"]}]`)
	now := noon.AddDate(4, 0, 0)
	set := func(f policy.Facts, years int) policy.Facts {
		if years > 0 {
			f.Set = noon.AddDate(years, 0, 0)
		}
		return f
	}
	got := policy.Preview(present, proposed, []policy.Facts{
		set(facts("chat"), 5), // under a date: stays
		set(facts("chat"), 0), // under none: due at once
		set(facts("chat"), 3), // as it is, and due at once
		set(facts("voice"), 5), set(facts("voice"), 9),
	}, now)
	want := []policy.PreviewRow{
		{Policy: "nine", Modality: "voice", Conversations: 2, Extended: 1, Unchanged: 1},
		{Policy: "three", Modality: "chat", Conversations: 3, Extended: 1, Unchanged: 1, Kept: 1, Due: 2},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("\n%+v, want\n%+v", got, want)
	}
}

func TestTheDigestOfPoliciesTellsThemApart(t *testing.T) {
	seen := map[string]string{}
	for _, s := range []string{``, `[{"name":"a","keep":"P1Y"}]`, `[{"name":"a","keep":"P1M"}]`, `[{"name":"b","keep":"P1Y"}]`, `[{"name":"a","keep":"P1Y","desks":["x"]}]`, `[{"name":"a","keep":"P1Y","starts":"x"}]`} {
		d := policies(t, s).Digest()
		if other, twice := seen[d]; twice {
			t.Errorf("%s and %s have one digest", s, other)
		}
		seen[d] = s
	}
}
