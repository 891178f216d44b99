package export_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thesyncim/gopus"

	"steno/functions/export"
	"steno/functions/finalize"
	"steno/functions/sequencer"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const (
	tenant = teams.TenantID("11111111-1111-4111-8111-111111111111")
	rita   = teams.PersonID("aaaaaaaa-0000-4000-8000-000000000001")
	carla  = teams.PersonID("aaaaaaaa-0000-4000-8000-000000000002") // compliance officer
	cora   = teams.PersonID("aaaaaaaa-0000-4000-8000-000000000003") // compliance officer too
)

var day = time.Date(2026, 3, 9, 10, 0, 0, 0, time.UTC)

// signer is a vault with one key.
type signer struct{ key *ecdsa.PrivateKey }

func newSigner(t testing.TB) *signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{key}
}

func (s *signer) SigningKey(context.Context) (string, *ecdsa.PublicKey, error) {
	return "https://vault.example/keys/steno-sign/1", &s.key.PublicKey, nil
}

// Sign gives the lower s, as the vault's client does.
func (s *signer) Sign(_ context.Context, _ string, digest [sha256.Size]byte) ([]byte, error) {
	return lowSign(s.key, digest[:])
}

type queue struct {
	mu   sync.Mutex
	sent [][]byte
}

func (q *queue) Send(_ context.Context, _ string, body []byte, _ time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sent = append(q.sent, body)
	return nil
}

// rig is an archive, its log and an exporter.
type rig struct {
	t         testing.TB
	blobs     storetest.Blobs
	parts     storetest.Blobs
	tails     storetest.Tails
	keys      storetest.Keys
	catalog   storetest.Catalog
	roster    storetest.Roster
	trail     storetest.Trail
	tiles     storetest.Tiles
	orders    storetest.Exports
	approvals storetest.Approvals
	signer    *signer
	queue     queue
	logs      bytes.Buffer
	store     *evidence.Store
	packages  *evidence.Store
	now       time.Time
	threads   int

	largestCopy int64
}

var vault = sync.OnceValue(storetest.NewVault)

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, signer: newSigner(t), now: day}
	clock := func() time.Time { return r.now }
	for at, blobs := range map[**evidence.Store]*storetest.Blobs{&r.store: &r.blobs, &r.packages: &r.parts} {
		var err error
		*at, err = evidence.New(evidence.Config{Blobs: blobs, Tails: &r.tails, Keys: &r.keys, Vault: vault(), VaultHosts: []string{storetest.VaultHost}, Now: clock})
		r.must(err)
	}
	change := policy.Change{At: day.AddDate(0, -1, 0)}
	for _, p := range []teams.PersonID{carla, cora} {
		change.Opened = append(change.Opened, policy.Period{Person: p, Role: policy.ComplianceOfficer, From: day.AddDate(0, -1, 0)})
	}
	r.must(r.roster.Apply(t.Context(), change))
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) log() custody.Log {
	return custody.Log{Trail: &r.trail, Now: func() time.Time { return r.now }}
}

// sequence brings the log up to date.
func (r *rig) sequence() {
	r.t.Helper()
	r.now = r.now.Add(time.Second)
	s := sequencer.New(sequencer.Config{Tenant: tenant, SignEvery: time.Second, Now: func() time.Time { return r.now }}, &r.trail, &r.tiles, r.signer, slog.New(slog.DiscardHandler))
	r.must(s.Run(r.t.Context()))
}

// sequenceOnly makes a log of one record, as if the others had come just now.
func (r *rig) sequenceOnly(record custody.Record) {
	r.t.Helper()
	var trail storetest.Trail
	r.must(trail.Insert(r.t.Context(), record))
	s := sequencer.New(sequencer.Config{Tenant: tenant, SignEvery: time.Second, Now: func() time.Time { return r.now }}, &trail, &r.tiles, r.signer, slog.New(slog.DiscardHandler))
	r.must(s.Run(r.t.Context()))
}

func graphMessage(thread, id, etag string, sent time.Time, html string, extra map[string]any) []byte {
	m := map[string]any{
		"id": id, "etag": etag, "chatId": thread, "messageType": "message", "createdDateTime": sent.Format(time.RFC3339Nano), "lastModifiedDateTime": sent.Format(time.RFC3339Nano),
		"from": map[string]any{"user": map[string]any{"id": string(rita), "displayName": "Rita Roe"}},
		"body": map[string]any{"contentType": "html", "content": html},
	}
	for k, v := range extra {
		m[k] = v
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// batch stores messages as one evidence object and binds it, as chatexport does.
func (r *rig) batch(raws ...[]byte) conversation.ID {
	r.t.Helper()
	r.now = r.now.Add(time.Second)
	var messages []conversation.Message
	for _, raw := range raws {
		messages = append(messages, conversation.ReadMessage(raw, rita))
	}
	id := conversation.IDOf(conversation.KeyOf(tenant, messages[0].Thread), messages[0].Sent)
	h := conversation.BatchHeader{Tenant: tenant, Conversation: id, Thread: messages[0].Thread, Custodian: rita, Window: "1-0-1", Lane: "export", FetchedAt: r.now}
	was, err := r.catalog.Slice(r.t.Context(), id)
	r.must(err)
	o := conversation.Object{Name: evidence.NewObjectID(), Custodian: rita, ClaimedAt: r.now, Seq: was.Conversation.Objects}
	for _, m := range messages {
		o.Versions = append(o.Versions, conversation.Version{VersionKey: m.VersionKey, Sent: m.Sent, SHA256: sha256.Sum256(m.Raw)})
	}
	conv := was.Conversation.With(h, messages)
	conv.Objects++
	r.must(r.catalog.Claim(r.t.Context(), was, conversation.Claim{Conversation: conv, Add: &o}))
	plain, err := conversation.EncodeBatch(h, messages)
	r.must(err)
	sealed, err := r.store.Seal(r.t.Context(), evidence.Ref{Tenant: tenant, Unit: string(id), Object: o.Name}, plain)
	r.must(err)
	r.must(r.store.Put(r.t.Context(), sealed))
	_, err = r.log().Append(r.t.Context(), custody.Event{Tenant: tenant, Action: custody.Sealed, System: "chatexport", Item: "1-0-1", Objects: []custody.Object{{
		Unit: string(id), Object: o.Name, Seq: o.Seq, SHA256: hex.EncodeToString(sealed.Ciphertext[:]), Commit: hex.EncodeToString(sealed.Commit[:]),
	}}})
	r.must(err)
	return id
}

// chat stores a chat of its own with n messages, one of them edited in a second batch.
func (r *rig) chat(n int) conversation.ID {
	r.t.Helper()
	r.threads++
	thread := fmt.Sprintf("19:thread-%d@thread.v2", r.threads)
	var raws [][]byte
	for i := range n {
		raws = append(raws, graphMessage(thread, fmt.Sprint(1000+i), "1", day.Add(time.Duration(i)*time.Minute), fmt.Sprintf("<p>message %d &amp; <b>more</b></p><script>alert(1)</script>", i), nil))
	}
	id := r.batch(raws...)
	edited := graphMessage(thread, "1000", "2", day, "<p>edited</p>", map[string]any{"lastEditedDateTime": day.Add(time.Hour).Format(time.RFC3339), "lastModifiedDateTime": day.Add(time.Hour).Format(time.RFC3339),
		"attachments": []any{map[string]any{"id": "1", "name": "..\\cod\u202efdp.exe"}}})
	if again := r.batch(edited); again != id {
		r.t.Fatal("the edit made another conversation")
	}
	return id
}

func tone(t testing.TB, hz float64, n int) [][]byte {
	t.Helper()
	enc, err := gopus.NewEncoder(gopus.EncoderConfig{SampleRate: 16000, Channels: 1, Application: gopus.ApplicationVoIP})
	if err != nil {
		t.Fatal(err)
	}
	pcm, buf := make([]float32, 320), make([]byte, 1500)
	out := make([][]byte, n)
	for f := range out {
		for i := range pcm {
			pcm[i] = float32(0.4 * math.Sin(2*math.Pi*hz*float64(f*320+i)/16000))
		}
		k, err := enc.Encode(pcm, buf)
		if err != nil {
			t.Fatal(err)
		}
		out[f] = bytes.Clone(buf[:k])
	}
	return out
}

type directory struct{}

func (directory) User(_ context.Context, id teams.PersonID) (teams.User, error) {
	return teams.User{ID: id, DisplayName: "Rita Roe"}, nil
}

func (directory) ChatTopic(context.Context, teams.ThreadID) (string, error) { return "Topic", nil }

// call records a call of half a minute between Rita and a telephone, and seals it.
func (r *rig) call() conversation.ID {
	r.t.Helper()
	r.threads++
	call, chain := teams.CallID(fmt.Sprintf("call-%d", r.threads)), teams.ChainID(fmt.Sprintf("chain-%d", r.threads))
	start := r.now
	user := teams.Party{Kind: teams.PartyUser, ID: string(rita)}
	caller := false
	audio := func(source teams.SourceID) []teams.MediaStream {
		return []teams.MediaStream{{Kind: teams.MediaAudio, Source: source, Direction: "sendReceive"}}
	}
	rec := storetest.Recording{
		Tenant: tenant, Call: call, Chain: chain, Recorder: "bot-1", Epoch: start, Slots: 5, Outcome: conversation.OutcomeRecorded, Packed: true,
		Tracks: []storetest.RecordedTrack{
			{Track: "audio-7", Source: 7, Offset: time.Second, Packets: tone(r.t, 300, 1000)},
			{Track: "audio-9", Source: 9, Offset: 7 * time.Second, Packets: tone(r.t, 700, 500)},
		},
		Events: []conversation.LegEvent{
			{At: start, Kind: conversation.EventInvited, Invite: &teams.Invite{
				Call: call, Chain: chain, Tenant: tenant, At: start, Caller: &caller, Recorder: "recorder", Recorded: teams.Participant{ID: "p1", Party: user}, Thread: "19:meeting@thread.v2",
			}},
			{At: start.Add(time.Second), Kind: conversation.EventRoster, Roster: []teams.Participant{
				{ID: "p1", Party: user, Streams: audio(7)}, {ID: "p2", Party: teams.Party{Kind: teams.PartyPhone, ID: "+4930123456"}, Streams: audio(9)},
			}},
		},
	}
	n, err := rec.Store(r.t.Context(), r.store)
	r.must(err)
	body, err := conversation.EncodeNotice(n)
	r.must(err)
	r.now = r.now.Add(time.Minute)
	f := finalize.New(finalize.Config{Tenant: tenant, Now: func() time.Time { return r.now }}, r.store, &r.catalog, directory{}, r.log(), &r.queue, slog.New(slog.DiscardHandler))
	r.must(f.Handle(r.t.Context(), body))
	c, err := r.catalog.Call(r.t.Context(), conversation.CallKeyOf(tenant, chain))
	r.must(err)
	return c.Conversation.ID
}

func (r *rig) exporter() *export.Exporter { return r.exporterWith(&r.trail) }

// exporterWith is an exporter with another trail.
func (r *rig) exporterWith(trail custody.Trail) *export.Exporter {
	return export.New(export.Config{Tenant: tenant, Maker: "steno/test", LargestCopy: r.largestCopy, Now: func() time.Time { return r.now }}, r.storesWith(trail), slog.New(slog.NewTextHandler(&r.logs, nil)))
}

func (r *rig) storesWith(trail custody.Trail) export.Stores {
	return export.Stores{
		Attachments: &r.catalog,
		Orders:      &r.orders, Approvals: &r.approvals, Roster: &r.roster, Catalog: &r.catalog, Calls: &r.catalog, Evidence: r.store, Packages: r.packages,
		Trail: custody.Log{Trail: trail, Now: func() time.Time { return r.now }}, Tiles: &r.tiles, Signer: r.signer, Queue: &r.queue,
	}
}

// order orders an export as Carla.
func (r *rig) order(o policy.ExportOrder, ids ...conversation.ID) policy.ExportOrder {
	r.t.Helper()
	g, err := policy.GrantFor(r.t.Context(), &r.roster, carla, r.now)
	r.must(err)
	o.Case, o.Reason = "Case 7", "asked for by the regulator"
	for _, id := range ids {
		o.Conversations = append(o.Conversations, string(id))
	}
	o, err = policy.Order(g, o, r.now)
	r.must(err)
	r.must(r.orders.Insert(r.t.Context(), o))
	o, err = r.orders.Get(r.t.Context(), o.ID)
	r.must(err)
	return o
}

// agreed has Cora agree to an order of many conversations.
func (r *rig) agreed(o policy.ExportOrder) policy.ExportOrder {
	r.t.Helper()
	mine, err := policy.GrantFor(r.t.Context(), &r.roster, carla, r.now)
	r.must(err)
	hers, err := policy.GrantFor(r.t.Context(), &r.roster, cora, r.now)
	r.must(err)
	p, err := policy.Propose(mine, policy.ActionExport, append(slices.Clone(o.Conversations), o.ID), nil, o.Reason, r.now, time.Hour)
	r.must(err)
	p, err = p.Approve(hers, p.Digest, r.now)
	r.must(err)
	r.must(r.approvals.Insert(r.t.Context(), p))
	o.State, o.Request, o.Approver = policy.ExportApproved, p.Digest, cora
	r.must(r.orders.Replace(r.t.Context(), o))
	o, err = r.orders.Get(r.t.Context(), o.ID)
	r.must(err)
	return o
}

// handle gives the exporter the order's message.
func (r *rig) handle(o policy.ExportOrder) error {
	r.t.Helper()
	return r.exporter().Handle(r.t.Context(), r.body(o))
}

func (r *rig) body(o policy.ExportOrder) []byte {
	r.t.Helper()
	_, body, err := policy.ExportMessage(tenant, o)
	r.must(err)
	return body
}

// built builds an order and returns it with the bytes of the package.
func (r *rig) built(o policy.ExportOrder) (policy.ExportOrder, []byte) {
	r.t.Helper()
	r.must(r.handle(o))
	o, err := r.orders.Get(r.t.Context(), o.ID)
	r.must(err)
	if o.State != policy.ExportReady {
		r.t.Fatalf("the order is %s: %s\n%s", o.State, o.Failure, r.logs.String())
	}
	return o, r.fetch(o)
}

func (r *rig) fetch(o policy.ExportOrder) []byte {
	r.t.Helper()
	receipt, err := r.log().Append(r.t.Context(), custody.Event{Tenant: tenant, Action: custody.SystemRead, System: "test", Item: o.Unit})
	r.must(err)
	p, err := r.packages.OpenParts(r.t.Context(), tenant, o.Unit, o.Size, receipt)
	r.must(err)
	b, err := io.ReadAll(io.NewSectionReader(p, 0, p.Size()))
	r.must(err)
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != o.SHA256 {
		r.t.Fatal("the package is not the one that was ordered")
	}
	return b
}

func (r *rig) fingerprint() string {
	b, err := x509.MarshalPKIXPublicKey(&r.signer.key.PublicKey)
	r.must(err)
	return custody.Fingerprint(b)
}

// unpack writes the files of a package below a new directory.
func unpack(t testing.TB, b []byte) string {
	t.Helper()
	dir := t.TempDir()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// verify runs the script of the sources, as an outsider would, and returns its last line
// and its exit code.
func verify(t testing.TB, dir string, args ...string) (verdict string, code int) {
	t.Helper()
	return verifyWith(t, "sh", dir, args...)
}

// verifyWith does so with a shell of that name.
func verifyWith(t testing.TB, shell, dir string, args ...string) (verdict string, code int) {
	t.Helper()
	script, err := os.ReadFile("verify.sh")
	if err != nil {
		t.Fatal(err)
	}
	// Not the one in the package, which may be forged. It looks at the directory it is called in.
	cmd := exec.CommandContext(t.Context(), shell, append([]string{"-c", string(script), "./VERIFY.sh"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err == nil {
		return lines[len(lines)-1], 0
	}
	return lines[len(lines)-1], cmd.ProcessState.ExitCode()
}
