package export_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"steno/functions/internal/funchost"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
)

// TestForgedAndUnapprovedMessagesExportNothing is T62 and T43.
func TestForgedAndUnapprovedMessagesExportNothing(t *testing.T) {
	r := newRig(t)
	id := r.chat(2)
	r.sequence()
	good := r.order(policy.ExportOrder{}, id)
	body := func(tenant teams.TenantID, id string) []byte {
		return fmt.Appendf(nil, `{"export":%q,"tenant":%q}`, id, tenant)
	}
	var many []conversation.ID
	for i := range policy.MaxExportAlone + 1 {
		many = append(many, conversation.ID(fmt.Sprintf("%032d-20260309", i)))
	}
	unapproved := r.order(policy.ExportOrder{}, many...)
	events := len(r.all())
	for what, b := range map[string][]byte{
		"another tenant":         body("22222222-2222-4222-8222-222222222222", good.ID),
		"nobody's order":         body(tenant, strings.Repeat("0", 32)),
		"an order of two":        body(tenant, unapproved.ID),
		"no JSON":                []byte(`{"export"`),
		"a member too much":      fmt.Appendf(nil, `{"export":%q,"tenant":%q,"force":true}`, good.ID, tenant),
		"another case":           fmt.Appendf(nil, `{"Export":%q,"tenant":%q}`, good.ID, tenant),
		"a path for an id":       body(tenant, "../../etc"),
		"the order's own fields": fmt.Appendf(nil, `{"export":%q,"tenant":%q,"conversations":[]}`, good.ID, tenant),
	} {
		if err := r.exporter().Handle(t.Context(), b); !errors.Is(err, funchost.ErrPoison) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(r.parts.Names()) != 0 || len(r.all()) != events {
		t.Errorf("%d parts, %d events", len(r.parts.Names()), len(r.all())-events)
	}
}

// all lists the trail.
func (r *rig) all() []custody.Record {
	r.t.Helper()
	out, err := r.trail.Range(r.t.Context(), time.Time{}, r.now.AddDate(1, 0, 0), 1<<20)
	r.must(err)
	return out
}

func TestAnOrderFallsWithTheRoleOfWhoGaveIt(t *testing.T) {
	r := newRig(t)
	id := r.chat(2)
	r.sequence()
	o := r.order(policy.ExportOrder{}, id)
	periods, err := r.roster.PeriodsOf(t.Context(), carla)
	r.must(err)
	for i := range periods {
		periods[i].To = r.now
	}
	r.must(r.roster.Apply(t.Context(), policy.Change{At: r.now, Closed: periods}))
	r.now = r.now.Add(time.Minute)
	if err := r.handle(o); !errors.Is(err, funchost.ErrPoison) || len(r.parts.Names()) != 0 {
		t.Errorf("%v, %d parts", err, len(r.parts.Names()))
	}
}

// TestEveryConversationsExportIsOnRecordBeforeItIsOpened is T41 for exports: for each unit
// the first reading of a blob comes after the event.
func TestEveryConversationsExportIsOnRecordBeforeItIsOpened(t *testing.T) {
	r := newRig(t)
	ids := []conversation.ID{r.chat(2), r.chat(1), r.call()}
	r.sequence()
	o := r.order(policy.ExportOrder{}, ids...)
	var lines []string
	spy := &spyBlobs{Blobs: &r.blobs, lines: &lines}
	store, err := evidence.New(evidence.Config{Blobs: spy, Keys: &r.keys, Vault: vault(), VaultHosts: []string{storetest.VaultHost}, Now: func() time.Time { return r.now }})
	r.must(err)
	r.store = store
	before := len(r.all())
	spy.trail = func() int { return len(r.all()) - before }
	_, _ = r.built(o)
	if len(lines) == 0 {
		t.Fatal("nothing was read")
	}
	opened := map[string]bool{}
	for _, e := range r.all()[before:] {
		if e.Action == custody.Exported && e.Actor == carla {
			opened[e.Item] = true
		}
	}
	for _, l := range lines {
		unit := strings.Split(l, " ")[0]
		if !opened[unit] {
			t.Errorf("%s was read and no event says so", unit)
		}
		if strings.HasSuffix(l, " 0") {
			t.Errorf("%s was read before any event", unit)
		}
	}
	if !slices.ContainsFunc(r.all(), func(e custody.Record) bool {
		return e.Action == custody.Exported && e.Item == "export-"+o.ID && strings.Contains(e.Detail, "3 conversations") && strings.Contains(e.Detail, "sha256=")
	}) {
		t.Error("the package itself is not on record")
	}
}

// spyBlobs notes which unit is read, and how many events there were by then.
type spyBlobs struct {
	*storetest.Blobs
	lines *[]string
	trail func() int
}

func (b *spyBlobs) Size(ctx context.Context, name string) (int64, error) {
	b.note(name)
	return b.Blobs.Size(ctx, name)
}

func (b *spyBlobs) ReadAt(ctx context.Context, name string, off, n int64) ([]byte, error) {
	b.note(name)
	return b.Blobs.ReadAt(ctx, name, off, n)
}

func (b *spyBlobs) note(name string) {
	*b.lines = append(*b.lines, fmt.Sprintf("%s %d", strings.Split(name, "/")[1], b.trail()))
}

// TestNothingIsOpenedWhenTheTrailIsAway is T42 for exports.
func TestNothingIsOpenedWhenTheTrailIsAway(t *testing.T) {
	r := newRig(t)
	id := r.chat(2)
	r.sequence()
	o := r.order(policy.ExportOrder{}, id)
	unwraps := vault().Unwraps()
	err := r.exporterWith(downTrail{&r.trail}).Handle(t.Context(), r.body(o))
	if err == nil || errors.Is(err, funchost.ErrPoison) {
		t.Errorf("%v", err)
	}
	if n := vault().Unwraps() - unwraps; n != 0 || len(r.parts.Names()) != 0 {
		t.Errorf("%d keys were unwrapped, %d parts stored", n, len(r.parts.Names()))
	}
	r.must(r.handle(o)) // redelivered
	if o, err = r.orders.Get(t.Context(), o.ID); err != nil || o.State != policy.ExportReady {
		t.Errorf("%s, %v", o.State, err)
	}
}

func TestAnOrderWaitsForTheLogAndAfterLongSaysWhatIsUnproven(t *testing.T) {
	r := newRig(t)
	id := r.chat(2)
	o := r.order(policy.ExportOrder{}, id)
	for n := 1; n <= 20; n++ {
		r.must(r.handle(o))
		var err error
		o, err = r.orders.Get(t.Context(), o.ID)
		r.must(err)
		if o.State != policy.ExportBuilding || o.Attempts != n || len(r.queue.sent) != n {
			t.Fatalf("attempt %d: %s, %d attempts, %d messages", n, o.State, o.Attempts, len(r.queue.sent))
		}
	}
	r.batch(graphMessage("19:other@thread.v2", "1", "1", day, "x", nil)) // so that there is a log
	r.sequenceOnly(r.all()[len(r.all())-1])
	o, b := r.built(o)
	dir := unpack(t, b)
	if verdict, code := verify(t, dir, r.fingerprint()); code != 3 || !strings.Contains(verdict, "2 objects are not bound") {
		t.Errorf("%d %s", code, verdict)
	}
}

func TestAnOrderThatCannotBeCarriedOutSaysWhy(t *testing.T) {
	r := newRig(t)
	id := r.chat(1)
	r.sequence()
	o := r.order(policy.ExportOrder{}, id, conversation.ID(strings.Repeat("0", 32)+"-20260309"))
	r.must(r.handle(o))
	o, err := r.orders.Get(t.Context(), o.ID)
	r.must(err)
	if o.State != policy.ExportFailed || !strings.Contains(o.Failure, "there is no conversation 0000") {
		t.Errorf("%s: %s", o.State, o.Failure)
	}
	if err := r.handle(o); !errors.Is(err, funchost.ErrPoison) {
		t.Errorf("a failed order was taken up again: %v", err)
	}
}

func TestEvidenceThatIsNotWhatTheLogBindsIsNotExported(t *testing.T) {
	r := newRig(t)
	id := r.chat(1)
	s, err := r.catalog.Slice(t.Context(), id)
	r.must(err)
	// Somebody with the keys puts other bytes in the place of the first object.
	ref := evidence.Ref{Tenant: tenant, Unit: string(id), Object: s.Objects[0].Name}
	other, err := r.store.Seal(t.Context(), ref, []byte("steno-chat-batch/1\n{}\n0\n"))
	r.must(err)
	r.blobs.Tamper(string(tenant)+"/"+string(id)+"/"+ref.Object, other.Bytes)
	r.sequence()
	o := r.order(policy.ExportOrder{}, id)
	if err := r.handle(o); !errors.Is(err, custody.ErrProof) {
		t.Errorf("%v", err)
	}
}

func TestAPackageForARecipientOpensWithHerKeyAlone(t *testing.T) {
	r := newRig(t)
	id := r.chat(1)
	r.sequence()
	key, err := age.GenerateX25519Identity()
	r.must(err)
	_, b := r.built(r.order(policy.ExportOrder{Recipient: key.Recipient().String()}, id))
	if bytes.Contains(b, []byte("SHA256SUMS")) {
		t.Fatal("the package lies there in clear")
	}
	in, err := age.Decrypt(bytes.NewReader(b), key)
	r.must(err)
	plain, err := io.ReadAll(in)
	r.must(err)
	if verdict, code := verify(t, unpack(t, plain), r.fingerprint()); code != 0 {
		t.Errorf("%d %s", code, verdict)
	}
	other, err := age.GenerateX25519Identity()
	r.must(err)
	if _, err := age.Decrypt(bytes.NewReader(b), other); err == nil {
		t.Error("it opens with another key")
	}
}

// files reads a package.
func files(t *testing.T, b []byte) map[string][]byte {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if out[f.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestWhatPeopleWroteIsTextInEveryFormOfAPackage is T36, and T59 for the viewer: names are
// ours, markup is gone, nothing runs, no cell is a formula.
func TestWhatPeopleWroteIsTextInEveryFormOfAPackage(t *testing.T) {
	r := newRig(t)
	thread := "19:hostile@thread.v2"
	id := r.batch(
		graphMessage(thread, "1", "1", day, `<img src=x onerror=alert(1)><script>document.title="pwned"</script><b>bold</b>`, map[string]any{
			"from":        map[string]any{"user": map[string]any{"id": string(rita), "displayName": `=cmd|' /C calc'!A0 <script>alert(2)</script>`}},
			"subject":     `</title><script>alert(3)</script>`,
			"attachments": []any{map[string]any{"id": "1", "name": "..\\CON.txt"}, map[string]any{"id": "2", "name": "cod\u202efdp.exe"}, map[string]any{"id": "3", "name": strings.Repeat("x", 300)}},
		}),
		[]byte(`{"id":"2","etag":"1","chatId":"`+thread+`","createdDateTime":"2026-03-09T10:00:00Z","body":7}`),
		[]byte(`not JSON at all`),
	)
	// What cannot be read at all is filed elsewhere; export it too.
	var ids []conversation.ID
	for _, s := range r.catalog.All() {
		ids = append(ids, s.Conversation.ID)
	}
	if !slices.Contains(ids, id) {
		t.Fatal("the conversation is not there")
	}
	r.sequence()
	_, b := r.built(r.order(policy.ExportOrder{}, ids...))
	if verdict, code := verify(t, unpack(t, b), r.fingerprint()); code != 0 {
		t.Errorf("%d %s", code, verdict)
	}
	for name, body := range files(t, b) {
		if strings.ContainsAny(name, "\\:*?\"<>|") || strings.Contains(name, "CON") || len(name) > 200 {
			t.Errorf("name %q", name)
		}
		switch {
		case strings.HasSuffix(name, ".html"):
			low := strings.ToLower(string(body))
			for _, bad := range []string{"<script", "<img", "onerror=alert(1)>", "javascript:", "http-equiv=\"refresh", "<iframe"} {
				if strings.Contains(low, bad) {
					t.Errorf("%s holds %q", name, bad)
				}
			}
			if !strings.Contains(low, "default-src 'none'") {
				t.Errorf("%s may fetch", name)
			}
			if strings.Contains(string(body), "\u202e") {
				t.Errorf("%s turns text around", name)
			}
		case strings.HasSuffix(name, ".csv"):
			for _, line := range strings.Split(strings.TrimSpace(string(body)), "\r\n") {
				for _, cell := range strings.Split(line, `","`) {
					if cell = strings.Trim(cell, `"`); cell != "" && strings.ContainsRune("=+-@", rune(cell[0])) {
						t.Errorf("%s: cell %q", name, cell)
					}
				}
			}
		}
	}
}

func TestThePackageHoldsFormsThatOtherToolsRead(t *testing.T) {
	r := newRig(t)
	chat, call := r.chat(2), r.call()
	r.sequence()
	o := r.order(policy.ExportOrder{}, chat, call)
	_, b := r.built(o)
	all := files(t, b)
	n := slices.Index(o.Conversations, string(chat))
	lines := bytes.Split(bytes.TrimSpace(all[fmt.Sprintf("chat/%06d/messages.ndjson", n)]), []byte("\n"))
	if len(lines) != 3 {
		t.Errorf("%d originals, want two messages and an edit", len(lines))
	}
	m, err := mail.ReadMessage(bytes.NewReader(all[fmt.Sprintf("rsmf/%06d.rsmf", n)]))
	r.must(err)
	if m.Header.Get("X-RSMF-Version") != "2.0.0" || m.Header.Get("X-RSMF-EventCount") != "2" {
		t.Errorf("%v", m.Header)
	}
	manifest := rsmfManifest(t, m)
	if len(manifest.Events) != 2 || len(manifest.Events[0].Edits) != 1 || manifest.Events[0].Body != "edited" || manifest.Events[0].Edits[0].New != "edited" {
		t.Errorf("%+v", manifest)
	}
	var v struct {
		VCon, UUID string
		Parties    []struct{ Name string }
		Dialog     []struct {
			Type, URL, Content_hash string
			Duration                float64
		}
	}
	r.must(json.Unmarshal(all[fmt.Sprintf("vcon/%06d.json", slices.Index(o.Conversations, string(call)))], &v))
	if len(v.Dialog) != 1 || v.Dialog[0].Type != "recording" || all[v.Dialog[0].URL] == nil || v.Dialog[0].Duration < 10 {
		t.Errorf("%+v", v)
	}
}

// downTrail takes no event.
type downTrail struct{ *storetest.Trail }

func (downTrail) Insert(context.Context, custody.Record) error {
	return errors.New("the trail is away")
}

func rsmfManifest(t *testing.T, m *mail.Message) (manifest struct {
	Version string
	Events  []struct {
		Body  string
		Edits []struct{ New string }
	}
}) {
	t.Helper()
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	for parts := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := parts.NextPart()
		if err != nil {
			t.Fatalf("no rsmf.zip: %v", err)
		}
		if p.FileName() != "rsmf.zip" {
			continue
		}
		b, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, p))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(files(t, b)["rsmf_manifest.json"], &manifest); err != nil {
			t.Fatal(err)
		}
		return manifest
	}
}
