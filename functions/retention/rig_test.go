package retention_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/functions/retention"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const (
	ann   = teams.PersonID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa") // recorded, desk fx
	carol = teams.PersonID("cccccccc-cccc-4ccc-8ccc-cccccccccccc") // compliance officer
	dave  = teams.PersonID("dddddddd-dddd-4ddd-8ddd-dddddddddddd") // compliance officer
	erin  = teams.PersonID("eeeeeeee-eeee-4eee-8eee-eeeeeeeeeeee") // administrator
)

var (
	vault   = storetest.NewVault()
	longAgo = time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC)
	today   = time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)
)

// rig is an archive and its retention.
type rig struct {
	t        *testing.T
	tenant   teams.TenantID
	config   retention.Config
	blobs    storetest.Governed
	locking  storetest.Governed // the same, with locked dates
	keys     evidence.KeyRing
	catalog  archive
	roster   policy.Roster
	matters  policy.Matters
	approved policy.Approvals
	disposed policy.Dispositions
	exports  storetest.Exports
	parts    storetest.Blobs
	trail    custody.Trail
	store    *evidence.Store
	logs     *lines
	raw      *container.Client // of the real blobs, past everything of ours
	recovery *evidence.RecoveryKey
	records  evidence.Dated // where escrow records go; blobs if nil

	mu        sync.Mutex
	at        time.Time // zero: the real clock
	n         int
	storageAt time.Time // the clock of storage in memory, where it differs from ours
}

// archive is the catalog as the rig fills it and retention uses it.
type archive interface {
	conversation.Attachments
	conversation.Catalog
	conversation.Calls
	conversation.Graves
}

// lines keeps what was logged.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), s)
}

func (r *rig) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at.IsZero() {
		return time.Now()
	}
	return r.at
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = r.at.Add(d)
}

// newRig is an archive in memory.
func newRig(t *testing.T) *rig {
	r := &rig{
		t: t, tenant: storetest.NewTenant(), at: today,
		catalog: new(storetest.Catalog), roster: new(storetest.Roster),
		matters: new(storetest.Matters), approved: new(storetest.Approvals), disposed: new(storetest.Dispositions), trail: new(storetest.Trail),
	}
	clock := func() time.Time {
		if !r.storageAt.IsZero() {
			return r.storageAt
		}
		return r.now()
	}
	r.keys = &storetest.Keys{Clock: clock}
	b := &storetest.Blobs{Clock: clock}
	r.blobs, r.locking = b, locking{b}
	r.start()
	return r
}

// locking is a store in memory that locks the dates it sets from here on.
type locking struct{ *storetest.Blobs }

func (l locking) CreateUntil(ctx context.Context, name string, body []byte, until time.Time) error {
	l.Lock = true
	defer func() { l.Lock = false }()
	return l.Blobs.CreateUntil(ctx, name, body, until)
}

func (r *rig) start() {
	r.t.Helper()
	r.logs = &lines{}
	r.config = retention.Config{Tenant: r.tenant, Cap: 1}
	r.store = r.storeOn(r.blobs)
	var periods []policy.Period
	for person, role := range map[teams.PersonID]policy.Role{
		ann: policy.RecordedUser, carol: policy.ComplianceOfficer, dave: policy.ComplianceOfficer, erin: policy.Administrator,
	} {
		p := policy.Period{Person: person, Role: role, From: longAgo}
		if role == policy.RecordedUser {
			p.Desk = "fx"
		}
		periods = append(periods, p)
	}
	r.ok(r.roster.Apply(r.t.Context(), policy.Change{Opened: periods}))
}

func (r *rig) storeOn(b evidence.Blobs) *evidence.Store {
	r.t.Helper()
	s, err := evidence.New(evidence.Config{Blobs: b, Keys: r.keys, Vault: vault, VaultHosts: []string{storetest.VaultHost}, Recovery: r.recovery, Now: r.now})
	r.ok(err)
	return s
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) log() custody.Log { return custody.Log{Trail: r.trail, Now: r.now} }

func (r *rig) stores() retention.Stores {
	var records evidence.Dated = r.blobs
	if r.records != nil {
		records = r.records
	}
	return retention.Stores{
		Catalog: r.catalog, Roster: r.roster, Evidence: r.store, Keeper: evidence.Keeper{Objects: r.blobs, Records: records, Keys: r.keys, Now: r.now},
		Matters: r.matters, Approvals: r.approved, Dispositions: r.disposed, Trail: r.log(),
		Exports: &r.exports, Packages: evidence.Keeper{Objects: &r.parts, Keys: r.keys, Now: r.now},
	}
}

func (r *rig) retention(s retention.Stores) *retention.Retention {
	c := r.config
	c.Now, c.Escrow = r.now, r.recovery != nil
	return retention.New(c, s, slog.New(slog.NewTextHandler(r.logs, nil)))
}

func (r *rig) run() {
	r.t.Helper()
	r.ok(r.retention(r.stores()).Run(r.t.Context()))
}

// chat stores one message of ann's on a day, under a date of storage, and lists it.
func (r *rig) chat(day time.Time, canary string, until time.Time, locked bool) conversation.ID {
	r.t.Helper()
	ctx := r.t.Context()
	r.n++
	thread := teams.ThreadID(fmt.Sprintf("19:%s-%d@thread.v2", canary, r.n))
	id := conversation.IDOf(conversation.KeyOf(r.tenant, thread), day)
	object := conversation.Object{Name: evidence.NewObjectID(), Custodian: ann, ClaimedAt: day, Versions: []conversation.Version{{Sent: day, SHA256: sha256.Sum256([]byte(canary))}}}
	conv := conversation.Conversation{
		ID: id, Thread: thread, Modality: conversation.Chat, Start: day, First: day, Last: day, Versions: 1,
		Participants: []conversation.Participant{{ID: string(ann), Name: canary}}, Custodians: []teams.PersonID{ann},
	}
	r.ok(r.catalog.Claim(ctx, conversation.Slice{}, conversation.Claim{Conversation: conv, Add: &object}))
	sealed, err := r.store.Seal(ctx, evidence.Ref{Tenant: r.tenant, Unit: string(id), Object: object.Name}, []byte(canary))
	r.ok(err)
	sealed.Until = until
	store := r.store
	if locked {
		store = r.storeOn(r.locking)
	}
	r.ok(store.Put(ctx, sealed))
	done := conversation.WindowDone{Window: conversation.Window{Tenant: r.tenant, Custodian: ann, Pass: 1, From: day, To: day.Add(time.Hour)}, At: day}
	r.ok(r.catalog.FinishWindow(ctx, done, []conversation.Conversation{conv}))
	return id
}

// call stores a sealed leg of ann's that ended at a time: one object and the manifest.
func (r *rig) call(ended time.Time, until time.Time) (conversation.ID, conversation.LegID) {
	r.t.Helper()
	ctx := r.t.Context()
	r.n++
	chain := teams.ChainID(fmt.Sprintf("chain-%d", r.n))
	leg := conversation.LegOf(r.tenant, teams.CallID(chain))
	m := conversation.Manifest{Format: conversation.ManifestFormat, Tenant: r.tenant, Leg: leg, Call: teams.CallID(chain), Chain: chain, Epoch: ended}
	plain, err := conversation.EncodeManifest(m)
	r.ok(err)
	for object, b := range map[string][]byte{conversation.ManifestObject(leg): plain, conversation.PackObject(leg, 0): []byte("media")} {
		sealed, err := r.store.Seal(ctx, evidence.Ref{Tenant: r.tenant, Unit: string(leg), Object: object}, b)
		r.ok(err)
		sealed.Until = until
		r.ok(r.store.Put(ctx, sealed))
	}
	key := conversation.CallKeyOf(r.tenant, chain)
	conv := conversation.Conversation{
		ID: conversation.IDOf(key, ended), Kind: teams.ThreadCall, Modality: conversation.Voice, Start: ended, First: ended, Last: ended,
		Custodians: []teams.PersonID{ann}, Call: &conversation.CallFacts{Chain: chain, Legs: 1},
	}
	r.ok(r.catalog.SaveCall(ctx, conversation.Call{}, conv, conversation.Leg{
		Leg: leg, Recorded: ann, State: conversation.LegSealed, Started: ended, To: ended, Manifest: conversation.ManifestObject(leg),
	}))
	r.ok(r.catalog.ListCall(ctx, conv))
	return conv.ID, leg
}

// fate is what has become of a conversation.
type fate string

const (
	kept     fate = "kept"     // it can be read
	shredded fate = "shredded" // its ciphertext is there, its keys are not
	gone     fate = "gone"     // nothing is there but the tombstone
)

// fateOf looks at storage, keys and catalog; anything that is none of the three is a fault.
func (r *rig) fateOf(id conversation.ID, units ...string) fate {
	r.t.Helper()
	ctx := r.t.Context()
	if units == nil {
		units = []string{string(id)}
	}
	objects, keys, copies := 0, 0, 0
	for _, u := range units {
		list, err := r.blobs.List(ctx, string(r.tenant)+"/"+u+"/")
		r.ok(err)
		ring, err := r.keys.List(ctx, r.tenant, u)
		r.ok(err)
		objects, keys = objects+len(list), keys+len(ring)
		for _, o := range list {
			if strings.Contains(o.Name, "/escrow-") {
				objects, copies = objects-1, copies+1
			}
		}
	}
	slice, err := r.catalog.Slice(ctx, id)
	r.ok(err)
	conv := slice.Conversation
	if slice.Revision == "" {
		call, err := r.catalog.Call(ctx, id.Thread())
		r.ok(err)
		conv = call.Conversation
	}
	tomb := conv.Disposed != nil
	switch {
	case keys == 0 && copies > 0:
		return fate(fmt.Sprintf("%d copies of keys that are destroyed", copies))
	case objects > 0 && keys > 0 && !tomb:
		return kept
	case objects > 0 && keys == 0 && tomb:
		return shredded
	case objects == 0 && keys == 0 && tomb:
		return gone
	}
	return fate(fmt.Sprintf("%d objects, %d keys, tombstone %t", objects, keys, tomb))
}

func (r *rig) want(what string, want fate, id conversation.ID, units ...string) {
	r.t.Helper()
	if got := r.fateOf(id, units...); got != want {
		r.t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// events lists the custody events of an action, by item.
func (r *rig) events(action custody.Action) map[string]custody.Record {
	r.t.Helper()
	records, err := r.trail.Range(r.t.Context(), r.now().AddDate(0, 0, -300), r.now().AddDate(0, 0, 1), 100_000)
	r.ok(err)
	out := map[string]custody.Record{}
	for _, x := range records {
		if x.Action == action {
			out[x.Item] = x
		}
	}
	return out
}

// grant is what a person may do now.
func (r *rig) grant(p teams.PersonID) policy.Grant {
	r.t.Helper()
	g, err := policy.GrantFor(r.t.Context(), r.roster, p, r.now())
	r.ok(err)
	return g
}

const reason = "the data subject asked for it"

// proposed stores a request that was made by carol at a time.
func (r *rig) proposed(action policy.RequestAction, at time.Time, parameters map[string]string, ids ...string) policy.Proposal {
	r.t.Helper()
	p, err := policy.Propose(r.grant(carol), action, ids, parameters, reason, at, policy.MaxRequestLife)
	r.ok(err)
	r.ok(r.approved.Insert(r.t.Context(), p))
	p, err = r.approved.Get(r.t.Context(), p.Digest)
	r.ok(err)
	return p
}

// agreed is such a request that dave approved an hour later.
func (r *rig) agreed(action policy.RequestAction, at time.Time, parameters map[string]string, ids ...string) policy.Proposal {
	r.t.Helper()
	p := r.proposed(action, at, parameters, ids...)
	done, err := p.Approve(r.grant(dave), p.Digest, at.Add(time.Hour))
	r.ok(err)
	r.ok(r.approved.Replace(r.t.Context(), done))
	done, err = r.approved.Get(r.t.Context(), p.Digest)
	r.ok(err)
	return done
}

// matter places a hold on conversations.
func (r *rig) matter(conversations ...conversation.ID) policy.Matter {
	r.t.Helper()
	var ids []string
	for _, c := range conversations {
		ids = append(ids, string(c))
	}
	m, err := policy.Place(policy.Matter{Title: "Case", Conversations: ids}, carol, r.now())
	r.ok(err)
	r.ok(r.matters.Insert(r.t.Context(), m))
	m, err = r.matters.Get(r.t.Context(), m.ID)
	r.ok(err)
	return m
}

// release lets two persons release a matter at a time.
func (r *rig) release(m policy.Matter, at time.Time) policy.Matter {
	r.t.Helper()
	ctx := r.t.Context()
	p := r.agreed(policy.ActionRelease, at.Add(-2*time.Hour), map[string]string{policy.ParameterMatter: m.ID}, m.ID)
	m, err := m.Releasing(p.Digest)
	r.ok(err)
	done, err := p.Execute([]string{m.ID}, r.grant(carol), r.grant(dave), at, 0)
	r.ok(err)
	r.ok(r.approved.Replace(ctx, done))
	m, err = m.Released(done, at)
	r.ok(err)
	r.ok(r.matters.Replace(ctx, m))
	m, err = r.matters.Get(ctx, m.ID)
	r.ok(err)
	return m
}

var errDead = errors.New("process died")

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func containsID(text []byte, id conversation.ID) bool {
	return strings.Contains(string(text), string(id))
}
