package portal_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/storetest"
	"steno/shared/teams"
)

// attach puts a file of a message into the archive.
func (w *world) attach(who teams.PersonID, id conversation.ID, thread teams.ThreadID, message teams.MessageID, name, source string, content []byte) conversation.Attachment {
	w.t.Helper()
	a, _, err := storetest.PutFile(w.t.Context(), w.evidence, w.catalog, conversation.FileHeader{
		Tenant: tenant, Conversation: id, Thread: thread, Custodian: who, Message: message, Sent: day, Kind: conversation.KindFile, Name: name, Source: source, Rule: conversation.RuleAtSending,
	}, 1<<20, content, w.clock.Now())
	w.must(err)
	return a
}

func fileMessage(attachments ...string) raw {
	var list []any
	for _, name := range attachments {
		list = append(list, map[string]any{"id": name, "contentType": "reference", "contentUrl": "https://contoso.sharepoint.com/" + name, "name": name})
	}
	list = append(list, map[string]any{"id": "c", "contentType": "application/vnd.microsoft.card.adaptive", "content": "{}"})
	return chatMessage("1773050400000", "1", day, map[string]any{"attachments": list, "body": map[string]any{"contentType": "html", "content": `<p>see</p><img alt="chart" src="https://media.giphy.com/x.gif">`}})
}

func TestAMessageShowsWhatBecameOfItsAttachments(t *testing.T) {
	w := newWorld(t)
	id, _ := w.say(rita, contentThread, fileMessage("a.pdf", "b.pdf", "c.pdf"))
	a := w.attach(rita, id, contentThread, "1773050400000", "a.pdf", "https://contoso.sharepoint.com/a.pdf", []byte("the bytes"))
	b := conversation.AttachmentIDOf(contentThread, "1773050400000", conversation.KindFile, "https://contoso.sharepoint.com/b.pdf")
	c := conversation.AttachmentIDOf(contentThread, "1773050400000", conversation.KindFile, "https://contoso.sharepoint.com/c.pdf")
	_, err := w.catalog.ExpectAttachment(t.Context(), conversation.Attachment{ID: c, Conversation: id, Kind: conversation.KindFile})
	w.must(err)
	w.must(w.catalog.SaveAttachment(t.Context(), conversation.Attachment{ID: b, Conversation: id, Kind: conversation.KindFile, State: conversation.AttachmentGap, Reason: conversation.GapForbidden}))
	var got []string
	for _, x := range w.messages(nora, string(id)).Messages[0].Versions[0].Attached {
		got = append(got, fmt.Sprintf("%s %s %s %s %d %s", x.Kind, x.Name, x.State, x.Reason, x.Size, x.File))
	}
	want := []string{
		"file a.pdf fetched  9 attachment-" + a.SHA256[:12] + ".pdf", "file b.pdf gap forbidden 0 ", "file c.pdf expected  0 ", "card  message  0 ", "image chart unfetched  0 ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAnAttachmentIsADownloadThatNothingRuns(t *testing.T) {
	w := newWorld(t)
	id, _ := w.say(rita, contentThread, fileMessage("a.pdf"))
	for _, name := range []string{"page.html", "x.svg", `..\..\evil.exe`, "CON.pdf", "cod.\u202efdp.exe", "a\x00.pdf", "x.pdf.", strings.Repeat("n", 300) + ".docx", "quoted\"\r\nX-Evil: 1.pdf", "UPPER.PDF", ""} {
		a := w.attach(rita, id, contentThread, "1773050400000", name, "https://contoso.sharepoint.com/"+fmt.Sprint(len(name), name), []byte("<script>alert(1)</script>"+name))
		rec := w.get(nora, "conversations/"+string(id)+"/attachments/"+string(a.ID)+"/file")
		want(t, rec, http.StatusOK)
		ext := ".bin"
		switch name {
		case "CON.pdf", "a\x00.pdf", "quoted\"\r\nX-Evil: 1.pdf", "UPPER.PDF":
			ext = ".pdf"
		case strings.Repeat("n", 300) + ".docx":
			ext = ".docx"
		}
		for header, value := range map[string]string{
			"Content-Type": "application/octet-stream", "Content-Disposition": `attachment; filename="attachment-` + a.SHA256[:12] + ext + `"`, "Cache-Control": "no-store, private",
			"Content-Security-Policy": apiPolicy, "X-Content-Type-Options": "nosniff", "X-Evil": "",
		} {
			if got := rec.Header().Get(header); got != value {
				t.Errorf("%q: %s is %q, want %q", name, header, got, value)
			}
		}
		if !strings.HasSuffix(rec.Body.String(), name) {
			t.Errorf("%q: other bytes", name)
		}
		checkAnswer(t, readDocument(t), "/conversations/{id}/attachments/{attachment}/file", rec)
	}
}

func TestALargeAttachmentIsReadInRangesOverItsParts(t *testing.T) {
	w := newWorld(t)
	id, _ := w.say(rita, contentThread, fileMessage("a.pdf"))
	content := bytes.Repeat([]byte("0123456789abcde"), 700_000) // ten parts and a bit, more than one answer holds
	a := w.attach(rita, id, contentThread, "1773050400000", "a.pdf", "https://contoso.sharepoint.com/a.pdf", content)
	path := "/steno/v1/conversations/" + string(id) + "/attachments/" + string(a.ID) + "/file"
	token := w.token(nora) // one sign-in is one session
	ask := func(spec string) (int, []byte) {
		h := http.Header{"Authorization": {"Bearer " + token}}
		if spec != "" {
			h.Set("Range", spec)
		}
		rec := w.send(http.MethodGet, path, h)
		return rec.Code, rec.Body.Bytes()
	}
	if code, _ := ask(""); code != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("whole: %d", code)
	}
	n := len(content)
	for _, r := range [][2]int{{0, 0}, {0, 4<<20 - 1}, {1<<20 - 1, 1 << 20}, {3<<20 + 17, 5<<20 + 3}, {10<<20 - 5, n - 1}, {n - 1, n - 1}} {
		code, got := ask(fmt.Sprintf("bytes=%d-%d", r[0], r[1]))
		if code != http.StatusPartialContent || !bytes.Equal(got, content[r[0]:r[1]+1]) {
			t.Errorf("%v: %d, %d bytes", r, code, len(got))
		}
	}
	reads := 0
	for _, e := range w.did(custody.Read) {
		if e.Detail == "attachment "+string(a.ID) && e.Item == string(id) && e.Actor == nora {
			reads++
		}
	}
	if reads != 1 {
		t.Errorf("%d events for one download", reads)
	}
}

func TestAnAttachmentIsNobodysWhoMayNotReadTheConversation(t *testing.T) {
	w := newWorld(t)
	id, _ := w.say(rita, contentThread, fileMessage("a.pdf"))
	a := w.attach(rita, id, contentThread, "1773050400000", "a.pdf", "https://contoso.sharepoint.com/a.pdf", []byte("north secret"))
	path := "conversations/" + string(id) + "/attachments/"
	for name, who := range map[string]teams.PersonID{"another desk's supervisor": saul, "an administrator": adam, "herself": rita} {
		rec := w.get(who, path+string(a.ID)+"/file")
		want(t, rec, http.StatusNotFound)
		if strings.Contains(rec.Body.String(), "secret") {
			t.Errorf("%s reads it", name)
		}
	}
	for _, other := range []string{"x", strings.Repeat("0", 32), string(a.ID) + "0", "..", "%2e%2e"} {
		if rec := w.get(nora, path+other+"/file"); rec.Code == http.StatusOK {
			t.Errorf("%q is answered", other)
		}
	}
	w.trail.fail = errors.New("the trail is away")
	want(t, w.get(nora, path+string(a.ID)+"/file"), http.StatusServiceUnavailable) // no event, no bytes
}
