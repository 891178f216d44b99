package policy_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"steno/shared/policy"
	"steno/shared/teams"
)

const (
	carol = teams.PersonID("cccccccc-aaaa-4bbb-8ccc-cccccccccccc")
	dave  = teams.PersonID("dddddddd-aaaa-4bbb-8ccc-dddddddddddd")
)

// oneRole is a roster of people with one role each.
type oneRole map[teams.PersonID]policy.Role

func (o oneRole) PeriodsOf(_ context.Context, p teams.PersonID) ([]policy.Period, error) {
	if o[p] == "" {
		return nil, nil
	}
	return []policy.Period{{Person: p, Role: o[p], From: noon.Add(-time.Hour)}}, nil
}
func (o oneRole) Periods(context.Context, policy.Role) ([]policy.Period, error) { return nil, nil }
func (o oneRole) People(context.Context, []teams.PersonID) (map[teams.PersonID]policy.Person, error) {
	return nil, nil
}
func (o oneRole) Apply(context.Context, policy.Change) error { return nil }

func holding(t *testing.T, p teams.PersonID, role policy.Role) policy.Grant {
	t.Helper()
	g, err := policy.GrantFor(t.Context(), oneRole{p: role}, p, noon)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

const reason = "Data subject's request <7> & more"

var erased = []string{"b", "a", "b"}

func proposal(t *testing.T) policy.Proposal {
	t.Helper()
	p, err := policy.Propose(holding(t, carol, policy.ComplianceOfficer), policy.ActionErase, erased, map[string]string{policy.ParameterGround: "Art. 17(1)(a)"}, reason, noon, policy.MaxRequestLife)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func refused(t *testing.T, what string, err error, why string) {
	t.Helper()
	if !errors.Is(err, policy.ErrRefused) || !strings.Contains(err.Error(), why) {
		t.Errorf("%s: %v; want a refusal with %q", what, err, why)
	}
}

func TestARequestIsItsCanonicalTextAndDigest(t *testing.T) {
	p := proposal(t)
	set := sha256.Sum256([]byte("steno-object-set-v1\x00a\nb\n"))
	want := `{"action":"erase","expires":"2026-03-17T12:00:00Z","objects":"` + hex.EncodeToString(set[:]) + `","parameters":{"ground":"Art. 17(1)(a)"},"reason":"` + reason + `","requester":"` + string(carol) + `","v":"steno-request-v1"}`
	sum := sha256.Sum256([]byte(want))
	if string(p.Text) != want || p.Digest != hex.EncodeToString(sum[:]) {
		t.Errorf("text %s\nwant %s", p.Text, want)
	}
	r, err := p.Request()
	if err != nil || r.Reason != reason || r.Requester != carol || !r.Expires.Equal(noon.Add(72*time.Hour)) {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	officer := holding(t, carol, policy.ComplianceOfficer)
	propose := func(g policy.Grant, a policy.RequestAction, ids []string, reason string, life time.Duration) error {
		_, err := policy.Propose(g, a, ids, nil, reason, noon, life)
		return err
	}
	ids := []string{"a"}
	refused(t, "unknown action", propose(officer, "delete-all", ids, reason, time.Hour), "unknown action")
	refused(t, "supervisor", propose(holding(t, carol, policy.Supervisor), policy.ActionErase, ids, reason, time.Hour), "by [complianceOfficer administrator] only")
	refused(t, "administrator releases", propose(holding(t, carol, policy.Administrator), policy.ActionRelease, ids, reason, time.Hour), "by [complianceOfficer] only")
	refused(t, "nobody", propose(policy.Grant{}, policy.ActionErase, ids, reason, time.Hour), "only")
	refused(t, "nothing", propose(officer, policy.ActionErase, nil, reason, time.Hour), "of nothing")
	refused(t, "short reason", propose(officer, policy.ActionErase, ids, "ninechars", time.Hour), "9 characters")
	refused(t, "blank reason", propose(officer, policy.ActionErase, ids, "            ", time.Hour), "characters")
	refused(t, "reason of two lines", propose(officer, policy.ActionErase, ids, "first line\nsecond", time.Hour), "line ends")
	refused(t, "long reason", propose(officer, policy.ActionErase, ids, strings.Repeat("x", 501), time.Hour), "501 characters")
	refused(t, "too long a life", propose(officer, policy.ActionErase, ids, reason, 72*time.Hour+1), "at most 72h")
	refused(t, "no life", propose(officer, policy.ActionErase, ids, reason, 0), "more than none")
	if err := propose(holding(t, carol, policy.Administrator), policy.ActionErase, ids, reason, time.Hour); err != nil {
		t.Errorf("an administrator may ask for an erasure: %v", err)
	}
}

func TestApprovalsThatAreRefused(t *testing.T) {
	p, officer := proposal(t), holding(t, dave, policy.ComplianceOfficer)
	approve := func(p policy.Proposal, g policy.Grant, digest string, at time.Time) error {
		_, err := p.Approve(g, digest, at)
		return err
	}
	refused(t, "by who asked", approve(p, holding(t, carol, policy.ComplianceOfficer), p.Digest, noon), "another person")
	refused(t, "by an administrator", approve(p, holding(t, dave, policy.Administrator), p.Digest, noon), "complianceOfficer must")
	refused(t, "by nobody", approve(p, policy.Grant{}, p.Digest, noon), "must approve")
	refused(t, "of another digest", approve(p, officer, policy.ObjectSet("x"), noon), "another request")
	refused(t, "too late", approve(p, officer, p.Digest, noon.Add(72*time.Hour)), "ran out")
	refused(t, "before it was made", approve(p, officer, p.Digest, noon.Add(-time.Second)), "future")
	for what, change := range map[string]func(*policy.Proposal){
		"text":   func(p *policy.Proposal) { p.Text = []byte(strings.Replace(string(p.Text), "erase", "export", 1)) },
		"digest": func(p *policy.Proposal) { p.Digest = policy.ObjectSet("x") },
		"ids":    func(p *policy.Proposal) { p.IDs = []string{"a", "b", "c"} },
		"a text in another spelling, with its digest": func(p *policy.Proposal) {
			p.Text = append([]byte(" "), p.Text...)
			sum := sha256.Sum256(p.Text)
			p.Digest = hex.EncodeToString(sum[:])
		},
	} {
		changed := p
		change(&changed)
		refused(t, "changed "+what, approve(changed, officer, changed.Digest, noon), "proposal")
	}
	done, err := p.Approve(officer, p.Digest, noon.Add(72*time.Hour-time.Second))
	if err != nil || done.State != policy.ProposalApproved || done.Approver != dave {
		t.Fatalf("%+v, %v", done, err)
	}
	refused(t, "twice", approve(done, officer, p.Digest, noon), "cannot be approved")
}

func TestAnApprovalIsUsedOnceInItsTimeForWhatItWasGiven(t *testing.T) {
	const wait = 7 * 24 * time.Hour
	asker, officer := holding(t, carol, policy.ComplianceOfficer), holding(t, dave, policy.ComplianceOfficer)
	p, err := proposal(t).Approve(officer, proposal(t).Digest, noon)
	if err != nil {
		t.Fatal(err)
	}
	execute := func(ids []string, asker, officer policy.Grant, at time.Time) error {
		_, err := p.Execute(ids, asker, officer, at, wait)
		return err
	}
	ready := noon.Add(wait)
	refused(t, "too early", execute(erased, asker, officer, ready.Add(-1)), "must wait")
	refused(t, "too late", execute(erased, asker, officer, ready.Add(policy.MaxRequestLife)), "ran out")
	refused(t, "fewer objects", execute([]string{"a"}, asker, officer, ready), "has changed")
	refused(t, "more objects", execute([]string{"a", "b", "c"}, asker, officer, ready), "has changed")
	refused(t, "asker without a role", execute(erased, holding(t, carol, policy.Auditor), officer, ready), "may not ask")
	refused(t, "approver without a role", execute(erased, asker, holding(t, dave, policy.Administrator), ready), "any more")
	refused(t, "another approver", execute(erased, asker, holding(t, bob, policy.ComplianceOfficer), ready), "any more")
	refused(t, "another asker", execute(erased, holding(t, bob, policy.ComplianceOfficer), officer, ready), "may not ask")
	if p.Ripe(ready.Add(-1), wait) || !p.Ripe(ready, wait) {
		t.Error("ripe at another time")
	}
	done, err := p.Execute(erased, asker, officer, ready.Add(policy.MaxRequestLife-1), wait)
	if err != nil || done.State != policy.ProposalExecuted {
		t.Fatalf("%+v, %v", done, err)
	}
	_, err = done.Execute(erased, asker, officer, ready, wait)
	refused(t, "twice", err, "used once")
	_, err = done.Reject("no", ready)
	refused(t, "rejected after it was executed", err, "executed already")
	pending := proposal(t)
	_, err = pending.Execute(erased, asker, officer, ready, wait)
	refused(t, "without an approval", err, "not approved")
	pending.State, pending.Approver, pending.ApprovedAt = policy.ProposalApproved, carol, noon
	_, err = pending.Execute(erased, asker, asker, ready, wait)
	refused(t, "approved by who asked", err, "no second person")
}

func TestAHoldOnNothingIsRefusedAndEveryFaultIsNamed(t *testing.T) {
	_, err := policy.Place(policy.Matter{Title: "case"}, carol, noon)
	refused(t, "nothing", err, "a hold on nothing")
	_, err = policy.Place(policy.Matter{
		Title: strings.Repeat("x", 201), Custodians: []teams.PersonID{"ann"}, Conversations: []string{"../x", strings.Repeat("a", 32) + "-20260230"}, From: noon, To: noon.Add(-time.Hour),
	}, "", noon)
	for _, why := range []string{"201 characters", "no lower-case object id", "conversation id of 4 bytes", "a day that never was: 20260230", "ends before it begins", "nobody places"} {
		refused(t, "everything wrong", err, why)
	}
	_, err = policy.Place(policy.Matter{Title: "a\nb", Custodians: []teams.PersonID{ann}}, carol, noon)
	refused(t, "two lines", err, "control character")
	m, err := policy.Place(policy.Matter{Title: strings.Repeat("ü", 200), Custodians: []teams.PersonID{bob, ann, bob}, State: policy.MatterLifted, ReleasedAt: noon}, carol, noon)
	if err != nil || len(m.ID) != 32 || m.State != policy.MatterPlaced || len(m.Custodians) != 2 || !m.ReleasedAt.IsZero() {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestAMatterIsReleasedByTwoPersonsForItselfAlone(t *testing.T) {
	place := func() policy.Matter {
		m, err := policy.Place(policy.Matter{Title: "case", Custodians: []teams.PersonID{ann}}, carol, noon)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	asker, officer := holding(t, carol, policy.ComplianceOfficer), holding(t, dave, policy.ComplianceOfficer)
	m, other := place(), place()
	p, err := policy.Propose(asker, policy.ActionRelease, []string{m.ID}, nil, reason, noon, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Approve(asker, p.Digest, noon)
	refused(t, "release by the same person", err, "another person")
	agreed, err := p.Approve(officer, p.Digest, noon)
	if err != nil {
		t.Fatal(err)
	}
	done, err := agreed.Execute([]string{m.ID}, asker, officer, noon, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Released(done, noon)
	refused(t, "not asked for", err, "not asked for")
	if m, err = m.Releasing(p.Digest); err != nil || m.State != policy.MatterReleasing {
		t.Fatal(err)
	}
	_, err = m.Released(agreed, noon)
	refused(t, "approved and not executed", err, "no executed release")
	if other, err = other.Releasing(p.Digest); err != nil {
		t.Fatal(err)
	}
	_, err = other.Released(done, noon)
	refused(t, "the release of another", err, "no executed release")
	if m, err = m.Released(done, noon); err != nil || m.State != policy.MatterReleased {
		t.Fatal(err)
	}
	_, err = m.Releasing(p.Digest)
	refused(t, "again", err, "cannot be released again")
}

func TestAHoldCoversItsCustodiansAndConversationsInItsTimeUntilItsGraceIsOver(t *testing.T) {
	f := facts("chat", "fx") // ann, from an hour before noon to noon
	for what, c := range map[string]struct {
		m    policy.Matter
		want bool
	}{
		"custodian":            {policy.Matter{Custodians: []teams.PersonID{ann}}, true},
		"another custodian":    {policy.Matter{Custodians: []teams.PersonID{bob}}, false},
		"conversation":         {policy.Matter{Conversations: []string{f.Conversation}}, true},
		"another conversation": {policy.Matter{Conversations: []string{strings.Repeat("b", 32) + "-20260314"}}, false},
		"ends as it begins":    {policy.Matter{Custodians: []teams.PersonID{ann}, To: f.Start}, true},
		"ends before":          {policy.Matter{Custodians: []teams.PersonID{ann}, To: f.Start.Add(-1)}, false},
		"begins as it ends":    {policy.Matter{Custodians: []teams.PersonID{ann}, From: f.End}, true},
		"begins after":         {policy.Matter{Custodians: []teams.PersonID{ann}, From: f.End.Add(1)}, false},
	} {
		c.m.State = policy.MatterPlaced
		if _, got := (policy.Holds{Matters: []policy.Matter{c.m}, Grace: time.Hour}).Cover(f, noon); got != c.want {
			t.Errorf("%s: covered %t", what, got)
		}
	}
	m := policy.Matter{Custodians: []teams.PersonID{ann}, ReleasedAt: noon}
	for state, want := range map[policy.MatterState][3]bool{
		policy.MatterPlaced: {true, true, true}, policy.MatterReleasing: {true, true, true}, policy.MatterReleased: {true, true, false}, policy.MatterLifted: {false, false, false}, "of a later build": {true, true, true},
	} {
		m.State = state
		for i, at := range []time.Duration{0, time.Hour - 1, time.Hour} {
			if _, got := (policy.Holds{Matters: []policy.Matter{m}, Grace: time.Hour}).Cover(f, noon.Add(at)); got != want[i] {
				t.Errorf("%s, %s after the release: protected %t", state, at, got)
			}
		}
	}
}
