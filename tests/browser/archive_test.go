package browser_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"steno/functions/portal"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
	"steno/tests/local/entra"
)

const tenant teams.TenantID = "7e57aaaa-0000-4000-8000-000000000001"

// person is somebody of the test's tenant.
type person struct {
	id    teams.PersonID
	name  string
	upn   string
	roles []policy.Period
	noDLP bool
}

func recorded(desk string) policy.Period {
	return policy.Period{Role: policy.RecordedUser, Desk: desk}
}

var (
	amara  = person{id: id(1), name: "Amara Okafor", upn: "amara@contoso.example", roles: []policy.Period{recorded("equities")}}
	chiara = person{id: id(2), name: "Chiara Rossi", upn: "chiara@contoso.example", roles: []policy.Period{recorded("equities")}, noDLP: true}
	ben    = person{id: id(3), name: "Ben Carter", upn: "ben@contoso.example", roles: []policy.Period{recorded("rates")}}
	sofia  = person{id: id(4), name: "Sofia Lindqvist", upn: "sofia@contoso.example", roles: []policy.Period{{Role: policy.Supervisor, Desk: "equities"}}}
	omar   = person{id: id(5), name: "Omar Haddad", upn: "omar@contoso.example", roles: []policy.Period{{Role: policy.ComplianceOfficer}}}
	ines   = person{id: id(9), name: "Ines Duarte", upn: "ines@contoso.example", roles: []policy.Period{{Role: policy.ComplianceOfficer}}}
	aida   = person{id: id(10), name: "Aida Kovac", upn: "aida@contoso.example", roles: []policy.Period{{Role: policy.Auditor}}}
	nina   = person{id: id(6), name: "Nina Weber", upn: "nina@contoso.example", roles: []policy.Period{{Role: policy.Administrator}}}
	paul   = person{id: id(7), name: "Paul Novak", upn: "paul@contoso.example"}
	guest  = person{id: id(8), name: "Grace Kim", upn: "grace@fabrikam.example"}

	everybody = []person{amara, chiara, ben, sofia, omar, ines, aida, nina, paul}
)

// floor is a recorded team.
var floor = id(11)

func id(n int) teams.PersonID {
	return teams.PersonID(fmt.Sprintf("7e57bbbb-0000-4000-8000-%012d", n))
}

func accounts() []entra.Person {
	var out []entra.Person
	for _, p := range everybody {
		out = append(out, entra.Person{ID: string(p.id), Name: p.name, UPN: p.upn})
	}
	return out
}

// archive is the portal's stores in memory, filled as an export fills them.
type archive struct {
	t          *testing.T
	catalog    storetest.Catalog
	roster     storetest.Roster
	matters    storetest.Matters
	requests   storetest.Approvals
	exports    storetest.Exports
	jobs       storetest.Lookbacks
	failures   storetest.Failures
	expiries   storetest.Dispositions
	packages   *evidence.Store
	trail      storetest.Trail
	statements storetest.Statements
	records    storetest.CallRecords
	evidence   *evidence.Store
}

func newArchive(t *testing.T) *archive {
	t.Helper()
	a := &archive{t: t}
	var err error
	a.evidence, err = evidence.New(evidence.Config{
		Blobs: &storetest.Blobs{}, Tails: &storetest.Tails{}, Keys: &storetest.Keys{}, Vault: storetest.NewVault(), VaultHosts: []string{storetest.VaultHost},
	})
	if err != nil {
		t.Fatal(err)
	}
	a.packages, err = evidence.New(evidence.Config{
		Blobs: &storetest.Blobs{}, Keys: &storetest.Keys{}, Vault: storetest.NewVault(), VaultHosts: []string{storetest.VaultHost},
	})
	if err != nil {
		t.Fatal(err)
	}
	change := policy.Change{At: time.Now()}
	for _, p := range everybody {
		change.People = append(change.People, policy.Person{
			ID: p.id, DisplayName: p.name, Address: p.upn, Enabled: true, CommunicationsDLP: !p.noDLP,
		})
		for _, role := range p.roles {
			role.Person, role.From = p.id, time.Now().AddDate(0, -3, 0)
			change.Opened = append(change.Opened, role)
		}
	}
	change.People = append(change.People, policy.Person{ID: floor, DisplayName: "Equities Floor", Enabled: true})
	change.Opened = append(change.Opened, policy.Period{Person: floor, Role: policy.RecordedTeam, Desk: "equities", From: time.Now().AddDate(0, -3, 0)})
	if err := a.roster.Apply(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	unread := conversation.Window{Tenant: tenant, Custodian: ben.id, From: noon(3), To: noon(2), Pass: 1}
	err = a.failures.SaveFailure(t.Context(), conversation.WindowFailed{Window: unread, Status: 404, Code: "MailboxNotEnabledForRESTAPI", Since: noon(1), At: noon(1)})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// builder stands for function export: it has a package ready at once, of two parts.
type builder struct{ a *archive }

func (b builder) Send(ctx context.Context, _ string, body []byte, _ time.Time) error {
	_, id, err := policy.DecodeExportMessage(body)
	if err != nil {
		return err
	}
	o, err := b.a.exports.Get(ctx, id)
	if err != nil {
		return err
	}
	o.Unit = "export-" + id + "-00000000"
	w := b.a.packages.NewParts(ctx, tenant, o.Unit)
	if _, err := w.Write(bytes.Repeat([]byte("package "), (evidence.PartSize+800)/8)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	o.State, o.Size, o.SHA256, o.Expires = policy.ExportReady, w.Size(), strings.Repeat("ab", 32), time.Now().Add(policy.ExportLife).UTC()
	return b.a.exports.Replace(ctx, o)
}

func (a *archive) stores() portal.Stores {
	return portal.Stores{Catalog: &a.catalog, Calls: &a.catalog, Attached: &a.catalog, Roster: &a.roster, Matters: &a.matters, Requests: &a.requests, Exports: &a.exports, Lookbacks: &a.jobs, Failures: &a.failures, Packages: a.packages, Queue: builder{a}, Events: &a.expiries, Evidence: a.evidence, Trail: custody.Log{Trail: &a.trail}, Statements: &a.statements, Records: &a.records}
}

// raw is one version of a message as Graph sends it. Extra members win.
func raw(thread string, sent time.Time, from person, html string, extra map[string]any) []byte {
	ms := fmt.Sprint(sent.UnixMilli())
	kind := "aadUser"
	if from.id == guest.id {
		kind = "federatedUser"
	}
	m := map[string]any{
		"id": ms, "etag": ms, "messageType": "message", "createdDateTime": stamp(sent), "lastModifiedDateTime": stamp(sent), "chatId": thread,
		"from": map[string]any{"user": map[string]any{"id": from.id, "displayName": from.name, "userIdentityType": kind}},
		"body": map[string]any{"contentType": "html", "content": html}, "attachments": []any{}, "reactions": []any{},
	}
	maps.Copy(m, extra)
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// keep stores what one custodian's export returned of one conversation.
func (a *archive) keep(custodian person, items ...[]byte) conversation.ID {
	a.t.Helper()
	var messages []conversation.Message
	for _, item := range items {
		messages = append(messages, conversation.ReadMessage(item, custodian.id))
	}
	key := conversation.KeyOf(tenant, messages[0].Thread)
	h := conversation.BatchHeader{
		Tenant: tenant, Conversation: conversation.IDOf(key, messages[0].Sent), Thread: messages[0].Thread,
		Custodian: custodian.id, Lane: "export", FetchedAt: time.Now().UTC(),
	}
	if err := a.put(h, messages); err != nil {
		a.t.Fatal(err)
	}
	return h.Conversation
}

func (a *archive) put(h conversation.BatchHeader, messages []conversation.Message) error {
	ctx := a.t.Context()
	plain, err := conversation.EncodeBatch(h, messages)
	if err != nil {
		return err
	}
	o := conversation.Object{Name: evidence.NewObjectID(), Custodian: h.Custodian, ClaimedAt: h.FetchedAt}
	for _, m := range messages {
		o.Versions = append(o.Versions, conversation.Version{VersionKey: m.VersionKey, Sent: m.Sent, SHA256: sha256.Sum256(m.Raw)})
	}
	was, err := a.catalog.Slice(ctx, h.Conversation)
	if err != nil {
		return err
	}
	o.Seq = was.Conversation.Objects
	now := was.Conversation.With(h, messages)
	now.Objects++
	if err := a.catalog.Claim(ctx, was, conversation.Claim{Conversation: now, Add: &o}); err != nil {
		return err
	}
	sealed, err := a.evidence.Seal(ctx, evidence.Ref{Tenant: tenant, Unit: string(h.Conversation), Object: o.Name}, plain)
	if err != nil {
		return err
	}
	if err := a.evidence.Put(ctx, sealed); err != nil {
		return err
	}
	window := conversation.Window{Tenant: tenant, Custodian: h.Custodian, From: now.First, To: now.Last}
	return a.catalog.FinishWindow(ctx, conversation.WindowDone{Window: window}, []conversation.Conversation{now})
}

// attach puts a file of a message into the archive, in parts.
func (a *archive) attach(custodian person, message []byte, name, source string, content []byte) {
	a.t.Helper()
	m := conversation.ReadMessage(message, custodian.id)
	_, _, err := storetest.PutFile(a.t.Context(), a.evidence, &a.catalog, conversation.FileHeader{
		Tenant: tenant, Conversation: conversation.IDOf(conversation.KeyOf(tenant, m.Thread), m.Sent), Thread: m.Thread, Custodian: custodian.id, Message: m.Message, Sent: m.Sent,
		Kind: conversation.KindFile, Name: name, Source: source, Rule: conversation.RuleAtSending,
	}, 2<<20, content, time.Now().UTC())
	if err != nil {
		a.t.Fatal(err)
	}
}

// miss records that a file of a message could not be had.
func (a *archive) miss(custodian person, message []byte, name, source string, reason conversation.GapReason) {
	a.t.Helper()
	m := conversation.ReadMessage(message, custodian.id)
	err := a.catalog.SaveAttachment(a.t.Context(), conversation.Attachment{
		ID: conversation.AttachmentIDOf(m.Thread, m.Message, conversation.KindFile, source), Conversation: conversation.IDOf(conversation.KeyOf(tenant, m.Thread), m.Sent),
		Message: m.Message, Custodian: custodian.id, Kind: conversation.KindFile, Name: name, Source: source, State: conversation.AttachmentGap, Reason: reason, At: time.Now().UTC(),
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// events lists the custody events of one action.
func (a *archive) events(ctx context.Context, action custody.Action) ([]custody.Record, error) {
	all, err := a.trail.Range(ctx, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), 1<<20)
	if err != nil {
		return nil, err
	}
	var out []custody.Record
	for _, r := range all {
		if r.Action == action {
			out = append(out, r)
		}
	}
	return out, nil
}
