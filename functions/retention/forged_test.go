package retention_test

import (
	"strings"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
)

func TestForgedRowsDestroyNothing(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	real := r.chat(old, "due", time.Time{}, false)
	r.run() // leaves a real event of a disposition in the trail
	event := r.events(custody.Dispose)[string(real)].ID
	id := func(what string) conversation.ID { return r.chat(fresh, what, time.Time{}, false) }
	row := func(id conversation.ID, ground string, state policy.DispositionState, request, event string) {
		t.Helper()
		r.ok(r.disposed.Insert(ctx, policy.Disposition{
			Conversation: string(id), Units: []string{string(id)}, Modality: "chat", Ground: ground, Policy: "default",
			Until: old, State: state, PlannedAt: old, BegunAt: old, Request: request, Event: event,
		}))
	}
	forged := map[string]conversation.ID{}
	for what, f := range map[string]struct {
		ground, request, event string
		state                  policy.DispositionState
	}{
		"planned expiry":                 {policy.GroundExpiry, "", "", policy.DispositionPlanned},
		"begun expiry":                   {policy.GroundExpiry, "", "", policy.DispositionBegun},
		"begun, event of another":        {policy.GroundExpiry, "", event, policy.DispositionBegun},
		"planned erasure of no request":  {policy.GroundErasure, policy.ObjectSet("nothing"), "", policy.DispositionPlanned},
		"begun erasure":                  {policy.GroundErasure, "", "0000000000000001-0000000000000001", policy.DispositionBegun},
		"shredded, ready to be swept":    {policy.GroundErasure, "", event, policy.DispositionSealed},
		"done":                           {policy.GroundExpiry, "", "", policy.DispositionDone},
		"a state that nobody ever wrote": {policy.GroundExpiry, "", "", "ready"},
	} {
		forged[what] = id(what)
		row(forged[what], f.ground, f.state, f.request, f.event)
	}
	waited := r.now().Add(-8 * 24 * time.Hour)
	erasure := func(what string, change func(*policy.Proposal)) {
		t.Helper()
		forged[what] = id(what)
		p := r.agreed(policy.ActionErase, waited.Add(time.Duration(len(forged))*time.Minute), attested, string(forged[what]))
		change(&p)
		r.ok(r.approved.Replace(ctx, p))
	}
	erasure("approved by who asked", func(p *policy.Proposal) { p.Approver = carol })
	erasure("approved by nobody", func(p *policy.Proposal) { p.Approver = "" })
	erasure("approved by an administrator", func(p *policy.Proposal) { p.Approver = erin })
	erasure("another text than was signed", func(p *policy.Proposal) {
		p.Text = []byte(strings.Replace(string(p.Text), reason, "somebody else's reason", 1))
	})
	erasure("other conversations than were signed", func(p *policy.Proposal) { p.IDs = append(p.IDs, string(forged["begun expiry"])) })
	erasure("approved long after it ran out", func(p *policy.Proposal) { p.ApprovedAt = p.ApprovedAt.Add(-time.Minute).Add(-24 * 365 * time.Hour) })
	erasure("executed once already", func(p *policy.Proposal) { p.State = policy.ProposalExecuted })
	forged["planned, and its approval has not waited"] = id("not waited")
	p := r.agreed(policy.ActionErase, r.now().Add(-2*time.Hour), attested, string(forged["planned, and its approval has not waited"]))
	row(forged["planned, and its approval has not waited"], policy.GroundErasure, policy.DispositionPlanned, p.Digest, "")
	forged["planned, and nobody has approved it"] = id("not approved")
	p = r.proposed(policy.ActionErase, r.now().Add(-time.Hour), attested, string(forged["planned, and nobody has approved it"]))
	row(forged["planned, and nobody has approved it"], policy.GroundErasure, policy.DispositionPlanned, p.Digest, "")
	for range 2 {
		r.run()
		for what, id := range forged {
			r.want(what, kept, id)
		}
		r.pass(24 * time.Hour)
	}
	if !r.logs.has("alarm=disposition") {
		t.Error("no alarm")
	}
	certs, err := r.disposed.Certificates(ctx, longAgo, r.now())
	r.ok(err)
	if len(certs) != 1 || !containsID(certs[0].Text, real) {
		t.Fatalf("%d certificates", len(certs))
	}
	for what, id := range forged {
		if containsID(certs[0].Text, id) {
			t.Errorf("%s: certified", what)
		}
	}
}

func TestAForgedReleaseLiftsNothing(t *testing.T) {
	r := newRig(t)
	id := r.chat(old, "x", time.Time{}, false)
	m := r.matter(id)
	r.run()
	for what, change := range map[string]func(*policy.Matter){
		"released by a row": func(m *policy.Matter) { m.State, m.ReleasedAt = policy.MatterReleased, longAgo },
		"lifted by a row":   func(m *policy.Matter) { m.State = policy.MatterLifted },
		"released before the release was approved": func(m *policy.Matter) {
			p := r.agreed(policy.ActionRelease, r.now().Add(-3*time.Hour), nil, m.ID)
			m.State, m.Request, m.ReleasedAt = policy.MatterReleased, p.Digest, longAgo
		},
	} {
		now, err := r.matters.Get(t.Context(), m.ID)
		r.ok(err)
		change(&now)
		r.ok(r.matters.Replace(t.Context(), now))
		r.run()
		r.want(what, kept, id)
	}
	if !r.logs.has("alarm=hold") {
		t.Error("no alarm")
	}
}
