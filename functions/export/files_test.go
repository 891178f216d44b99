package export_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
)

// attach stores a file of a conversation's first message in parts of 1,000 bytes and binds it.
func (r *rig) attach(id conversation.ID, name string, content []byte) conversation.Attachment {
	r.t.Helper()
	s, err := r.catalog.Slice(r.t.Context(), id)
	r.must(err)
	a, bound, err := storetest.PutFile(r.t.Context(), r.store, &r.catalog, conversation.FileHeader{
		Tenant: tenant, Conversation: id, Thread: s.Conversation.Thread, Custodian: rita, Message: "1000", Sent: day, Kind: conversation.KindFile,
		Name: name, Source: "https://contoso.sharepoint.com/" + name, Rule: conversation.RuleAtSending,
	}, 1000, content, r.now)
	r.must(err)
	_, err = r.log().Append(r.t.Context(), custody.Event{Tenant: tenant, Action: custody.Sealed, System: "attachments", Item: string(id), Objects: bound})
	r.must(err)
	return a
}

// chatWithFiles is a chat with a file of several parts, one with a hostile name, and a gap.
func (r *rig) chatWithFiles() (id conversation.ID, content []byte) {
	r.t.Helper()
	id = r.chat(2)
	content = bytes.Repeat([]byte("0123456789abcdef"), 300) // five parts
	r.attach(id, "term sheet.pdf", content)
	r.attach(id, "..\\cod\u202efdp.exe", []byte("MZ"))
	r.must(r.catalog.SaveAttachment(r.t.Context(), conversation.Attachment{
		ID: conversation.AttachmentIDOf("x", "1001", conversation.KindFile, "y"), Conversation: id, Message: teams.MessageID("1001"), Kind: conversation.KindFile, Name: "=gone()\"<b>.xlsx",
		State: conversation.AttachmentGap, Reason: conversation.GapForbidden, At: r.now,
	}))
	_, err := r.catalog.ExpectAttachment(r.t.Context(), conversation.Attachment{
		ID: conversation.AttachmentIDOf("x", "1001", conversation.KindImage, "z"), Conversation: id, Message: "1001", Kind: conversation.KindImage, Name: "late.png", At: r.now,
	})
	r.must(err)
	return id, content
}

func TestAPackageHoldsTheFilesOfAChatAndProvesThem(t *testing.T) {
	r := newRig(t)
	id, content := r.chatWithFiles()
	r.sequence()
	_, b := r.built(r.order(policy.ExportOrder{}, id))
	dir := unpack(t, b)
	if verdict, code := verify(t, dir, r.fingerprint()); code != 0 || verdict != "VERIFIED" {
		t.Fatalf("%d %s", code, verdict)
	}
	verifier := secondVerifier(t)
	zip := filepath.Join(t.TempDir(), "package.zip")
	r.must(os.WriteFile(zip, b, 0o600))
	if code, out := verifier("-key", r.fingerprint(), zip); code != 0 {
		t.Fatalf("the second verifier: %d\n%s", code, out)
	}
	list, err := os.ReadFile(filepath.Join(dir, "chat", "000000", "files.json"))
	r.must(err)
	var files []struct{ Name, State, Reason, Path, SHA256 string }
	r.must(json.Unmarshal(list, &files))
	got := map[string]string{}
	for _, f := range files {
		got[f.Name] = f.State + " " + f.Reason + " " + f.Path
		if f.Path == "" {
			continue
		}
		body, err := os.ReadFile(filepath.Join(dir, f.Path))
		r.must(err)
		if want := map[string][]byte{"term sheet.pdf": content, "..\\cod\u202efdp.exe": []byte("MZ")}[f.Name]; !bytes.Equal(body, want) {
			t.Errorf("%s: %d bytes, want %d", f.Name, len(body), len(want))
		}
	}
	if len(files) != 4 || got["late.png"] != "expected  " || !strings.HasPrefix(got["term sheet.pdf"], "fetched  chat/000000/files/000") || !strings.HasSuffix(got["term sheet.pdf"], ".pdf") ||
		!strings.HasSuffix(got["..\\cod\u202efdp.exe"], ".bin") || got["=gone()\"<b>.xlsx"] != "gap forbidden " {
		t.Errorf("%v", got)
	}
	transcript, err := os.ReadFile(filepath.Join(dir, "chat", "000000", "transcript.html"))
	r.must(err)
	for _, want := range []string{`<a href="files/0001-`, "..\\cod\ufffdfdp.exe", "=gone()&#34;&lt;b&gt;.xlsx</a>", "not in the archive: forbidden", "not fetched yet"} {
		if want = strings.ReplaceAll(want, "</a>", ""); !strings.Contains(string(transcript), want) {
			t.Errorf("the transcript does not say %q", want)
		}
	}
	// A part that is changed, left out or put elsewhere is found.
	parts, err := filepath.Glob(filepath.Join(dir, "evidence", string(id), "*.file"))
	r.must(err)
	if len(parts) != 6 {
		t.Fatalf("%d parts", len(parts))
	}
	was, err := os.ReadFile(parts[2])
	r.must(err)
	changed := bytes.Clone(was)
	changed[len(changed)-1] ^= 1
	r.must(os.WriteFile(parts[2], changed, 0o600))
	if verdict, code := verify(t, dir, r.fingerprint()); code != 1 {
		t.Errorf("a changed part: %s", verdict)
	}
	r.must(os.Remove(parts[2]))
	if verdict, code := verify(t, dir, r.fingerprint()); code != 1 {
		t.Errorf("a part left out: %s", verdict)
	}
}

func TestAFileThatIsTooLargeToStandThereTwiceIsInItsParts(t *testing.T) {
	r := newRig(t)
	r.largestCopy = 4799
	id, content := r.chatWithFiles() // one of 4,800 bytes
	r.sequence()
	_, b := r.built(r.order(policy.ExportOrder{}, id))
	dir := unpack(t, b)
	if verdict, code := verify(t, dir, r.fingerprint()); code != 0 {
		t.Fatalf("%d %s", code, verdict)
	}
	list, err := os.ReadFile(filepath.Join(dir, "chat", "000000", "files.json"))
	r.must(err)
	var files []struct {
		Name, Path    string
		EvidenceParts []string
	}
	r.must(json.Unmarshal(list, &files))
	for _, f := range files {
		if f.Name != "term sheet.pdf" {
			continue
		}
		var got []byte
		for _, path := range f.EvidenceParts {
			part, err := os.ReadFile(filepath.Join(dir, path))
			r.must(err)
			_, part, _ = bytes.Cut(part, []byte("\n"))
			_, part, _ = bytes.Cut(part, []byte("\n"))
			got = append(got, part...)
		}
		if f.Path != "" || len(f.EvidenceParts) != 5 || !bytes.Equal(got, content) {
			t.Errorf("%+v: %d bytes", f, len(got))
		}
	}
}

// A promise that nobody has kept holds a package up, as that of a batch does: what is void by
// the trail is not missed.
func TestAFileOnItsWayHoldsAPackageUp(t *testing.T) {
	r := newRig(t)
	id := r.chat(1)
	s, err := r.catalog.Slice(t.Context(), id)
	r.must(err)
	o := conversation.Object{Name: strings.Repeat("0", 32), Custodian: rita, ClaimedAt: r.now, Seq: s.Conversation.Objects, File: &conversation.PartOf{Attachment: "a"}}
	claim := conversation.Claim{Conversation: s.Conversation, Add: &o}
	claim.Conversation.Objects++
	r.must(r.catalog.Claim(t.Context(), s, claim))
	r.sequence()
	order := r.order(policy.ExportOrder{}, id)
	r.must(r.handle(order))
	if order, err = r.orders.Get(t.Context(), order.ID); err != nil || order.State != policy.ExportBuilding || len(r.queue.sent) != 1 {
		t.Errorf("%+v, %v", order, err)
	}
	s, err = r.catalog.Slice(t.Context(), id)
	r.must(err)
	r.must(r.catalog.Claim(t.Context(), s, conversation.Claim{Conversation: s.Conversation, Drop: []string{o.Name}}))
	_, err = r.log().Append(t.Context(), custody.Event{Tenant: tenant, Action: custody.Sealed, System: "attachments", Item: string(id), Objects: []custody.Object{{Unit: string(id), Object: o.Name, Seq: o.Seq, Void: true}}})
	r.must(err)
	r.sequence()
	r.built(order)
}
