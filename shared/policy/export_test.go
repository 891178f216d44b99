package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/teams"
)

func officer(id string) Grant {
	return Grant{person: teams.PersonID(id), roles: map[Role]bool{ComplianceOfficer: true}}
}

func ids(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%032d-20260309", i)
	}
	return out
}

var noon = time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)

func TestAnExportWithoutCaseReasonOrConversationsIsRefusedWithAllFaults(t *testing.T) {
	_, err := Order(officer("a"), ExportOrder{Recipient: "age1x", Checkpoints: []int64{0}}, noon)
	if !errors.Is(err, ErrRefused) {
		t.Fatal(err)
	}
	for _, want := range []string{"a case of 0", "a reason of 0", "an export of 0", "checkpoints", "a recipient"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not among: %v", want, err)
		}
	}
	good := ExportOrder{Case: "7", Reason: "asked for by the regulator", Conversations: ids(3)}
	for what, o := range map[string]ExportOrder{
		"an id with a path": {Case: "7", Reason: good.Reason, Conversations: []string{"../x"}},
		"too many":          {Case: "7", Reason: good.Reason, Conversations: ids(MaxExport + 1)},
	} {
		if _, err := Order(officer("a"), o, noon); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := Order(Grant{person: "a", roles: map[Role]bool{Supervisor: true}}, good, noon); !errors.Is(err, ErrRefused) {
		t.Errorf("by a supervisor: %v", err)
	}
	good.Conversations = append(good.Conversations, good.Conversations...)
	good.State, good.ID, good.Approver, good.Expires = ExportReady, "x", "b", noon
	o, err := Order(officer("a"), good, noon)
	if err != nil || len(o.Conversations) != 3 || o.State != ExportApproved || o.ID == "x" || o.Approver != "" || !o.Expires.IsZero() {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestAnExportOfManyConversationsTakesTwoPersons is T43.
func TestAnExportOfManyConversationsTakesTwoPersons(t *testing.T) {
	alone, err := Order(officer("a"), ExportOrder{Case: "7", Reason: "asked for by the regulator", Conversations: ids(MaxExportAlone)}, noon)
	if err != nil {
		t.Fatal(err)
	}
	if err := alone.MayBuild(officer("a"), Proposal{}, Grant{}, noon); err != nil {
		t.Error(err)
	}
	many, err := Order(officer("a"), ExportOrder{Case: "7", Reason: "asked for by the regulator", Conversations: ids(MaxExportAlone + 1)}, noon)
	if err != nil || many.State != ExportRequested {
		t.Fatalf("%s, %v", many.State, err)
	}
	if err := many.MayBuild(officer("a"), Proposal{}, Grant{}, noon); !errors.Is(err, ErrRefused) {
		t.Errorf("before anybody agreed: %v", err)
	}
	propose := func(o ExportOrder) Proposal {
		p, err := Propose(officer("a"), ActionExport, append(slices.Clone(o.Conversations), o.ID), nil, o.Reason, noon, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if p, err = p.Approve(officer("b"), p.Digest, noon); err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := propose(many)
	many.State, many.Request = ExportApproved, p.Digest
	if err := many.MayBuild(officer("a"), p, officer("b"), noon); err != nil {
		t.Error(err)
	}
	other := many
	other.ID = strings.Repeat("f", 32)
	bySelf := p
	bySelf.Approver = "a"
	changed := many
	changed.Conversations = append(slices.Clone(many.Conversations), "00000000000000000000000000000999-20260309")
	pending := p
	pending.State = ProposalPending
	for what, c := range map[string]struct {
		o                   ExportOrder
		requester, approver Grant
		p                   Proposal
		at                  time.Time
	}{
		"nobody agreed":              {many, officer("a"), Grant{}, Proposal{}, noon},
		"not agreed yet":             {many, officer("a"), officer("b"), pending, noon},
		"the same person agreed":     {many, officer("a"), officer("a"), bySelf, noon},
		"a request for another":      {other, officer("a"), officer("b"), p, noon},
		"the set has changed":        {changed, officer("a"), officer("b"), p, noon},
		"the approver lost her role": {many, officer("a"), Grant{person: "b"}, p, noon},
		"the requester lost hers":    {many, Grant{person: "a"}, officer("b"), p, noon},
		"the approval ran out":       {many, officer("a"), officer("b"), p, noon.Add(MaxRequestLife)},
		"it is built already":        {func() ExportOrder { o := many; o.State = ExportReady; return o }(), officer("a"), officer("b"), p, noon},
	} {
		if err := c.o.MayBuild(c.requester, c.p, c.approver, c.at); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAPackageIsFetchedByWhoAskedForItWhileSheMay(t *testing.T) {
	o := ExportOrder{ID: "x", Requester: "a", State: ExportReady, Expires: noon}
	if err := o.MayFetch(officer("a"), noon.Add(-time.Second)); err != nil {
		t.Error(err)
	}
	building := o
	building.State = ExportBuilding
	for what, err := range map[string]error{
		"somebody else":  o.MayFetch(officer("b"), noon.Add(-time.Second)),
		"without a role": o.MayFetch(Grant{person: "a"}, noon.Add(-time.Second)),
		"too late":       o.MayFetch(officer("a"), noon),
		"not ready":      building.MayFetch(officer("a"), noon.Add(-time.Second)),
	} {
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
