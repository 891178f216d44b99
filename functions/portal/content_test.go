package portal_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"steno/functions/portal"
	"steno/shared/conversation"
	"steno/shared/teams"
)

const contentThread = teams.ThreadID("19:content@thread.v2")

func TestEditsAndDeletionsAreShownInOrder(t *testing.T) {
	w := newWorld(t)
	at := func(m int) string { return day.Add(time.Duration(m) * time.Minute).Format(time.RFC3339Nano) }
	body := func(s string) map[string]any { return map[string]any{"contentType": "html", "content": s} }
	const id = "1773050400000"
	// The deletion is captured first and the first version last, in three objects.
	w.say(rita, contentThread, chatMessage(id, "1773050700000", day, map[string]any{
		"lastModifiedDateTime": at(5), "lastEditedDateTime": at(3), "deletedDateTime": at(5), "body": body(""),
	}))
	w.say(rita, contentThread, chatMessage(id, "1773050580000", day, map[string]any{
		"lastModifiedDateTime": at(3), "lastEditedDateTime": at(3), "body": body("<p>second <script>alert(1)</script></p>"), "subject": "rise\u202etxt",
	}))
	cid, _ := w.say(rita, contentThread,
		chatMessage("1773050460000", "1", day.Add(time.Minute), map[string]any{"body": body("<p>reply</p>")}),
		chatMessage(id, "1773050400000", day, map[string]any{
			"body": body("<p>first</p>"), "attachments": []any{map[string]any{"name": "plan\u202efdp.exe"}, map[string]any{"name": nil}},
			"reactions": []any{map[string]any{"reactionType": "like"}},
		}))
	got := w.messages(nora, string(cid))
	if len(got.Messages) != 2 || got.Messages[0].ID != id || len(got.Messages[0].Versions) != 3 || len(got.Messages[1].Versions) != 1 {
		t.Fatalf("got %+v", got)
	}
	v := got.Messages[0].Versions
	if v[0].Text != "first" || v[1].Text != "second" || v[2].Text != "" || v[1].HTML != "<p>second </p>" {
		t.Errorf("texts are %q, %q, %q", v[0].Text, v[1].Text, v[2].Text)
	}
	if v[0].Edited != nil || v[1].Edited == nil || v[2].Deleted == nil || !v[2].Deleted.Equal(day.Add(5*time.Minute)) {
		t.Errorf("edited and deleted are %v %v %v", v[0].Edited, v[1].Edited, v[2].Deleted)
	}
	if len(v[0].Attached) != 1 || v[0].Attached[0].Name != "plan\ufffdfdp.exe" || v[1].Subject != "rise\ufffdtxt" || len(v[0].Reactions) != 1 {
		t.Errorf("attached %v, subject %q, reactions %q", v[0].Attached, v[1].Subject, v[0].Reactions)
	}
	for _, x := range v {
		if x.Custodian != string(rita) {
			t.Errorf("custodian %q", x.Custodian)
		}
	}
}

func TestOriginalBytesAreExactlyThoseOfGraph(t *testing.T) {
	w := newWorld(t)
	raw := []byte("{ \"chatId\":\"" + string(contentThread) + "\",\r\n\t\"id\":\"1773050400000\" ,\"etag\":\"1\",\"createdDateTime\":\"2026-03-09T10:00:00Z\"," +
		"\"unknown\":{\"z\":1.50,\"a\":[1,2 ]},\"body\":{\"contentType\":\"html\",\"content\":\"<script>\\u003c/script>\\u2028é \"},\"id2\":\"\\ud83d\\ude42\"}")
	id, _ := w.say(rita, contentThread, text("1773050399000", "1", day.Add(-time.Second), "neighbor"), rawBytes(raw))
	rec := w.get(nora, "conversations/"+string(id)+"/messages/1773050400000/versions/1/original")
	want(t, rec, http.StatusOK)
	if !bytes.Equal(rec.Body.Bytes(), raw) {
		t.Fatalf("got  %q\nwant %q", rec.Body.Bytes(), raw)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/octet-stream", "Content-Disposition": `attachment; filename="message.json"`, "Cache-Control": "no-store, private",
		"Content-Security-Policy": apiPolicy, "X-Content-Type-Options": "nosniff",
	} {
		if got := rec.Header().Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	digest := sum(raw)
	for _, m := range w.messages(nora, string(id)).Messages {
		if m.ID == "1773050400000" && m.Versions[0].SHA256 != hex.EncodeToString(digest[:]) {
			t.Errorf("digest shown is %s", m.Versions[0].SHA256)
		}
	}
	for _, missing := range []string{"1773050400000/versions/2", "1773050400001/versions/1"} {
		want(t, w.get(nora, "conversations/"+string(id)+"/messages/"+missing+"/original"), http.StatusNotFound)
	}
}

func rawBytes(b []byte) raw { return raw{b} }

func TestItemsThatAreNoMessagesAreShownAsText(t *testing.T) {
	w := newWorld(t)
	for name, body := range map[string]string{
		"no JSON":        `{"chatId": <script>alert(1)</script>`,
		"a wrong type":   `{"chatId":7,"id":"1","etag":"1","body":"<img src=x onerror=alert(1)>"}`,
		"bidi and bytes": "{\"chatId\":\"\",\"x\":\"\u202eabc\xff\"}",
	} {
		id, _ := w.say(rita, "", rawBytes([]byte(body)))
		got := w.messages(carla, string(id))
		found := false
		for _, m := range got.Messages {
			v := m.Versions[0]
			if err := harmless(v.HTML); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if strings.ContainsFunc(v.Text, hidden) {
				t.Errorf("%s: text is %q", name, v.Text)
			}
			found = found || m.Unclear && strings.HasPrefix(m.ID, "sha256-") && v.Text != ""
			rec := w.get(carla, "conversations/"+string(id)+"/messages/"+m.ID+"/versions/none/original")
			want(t, rec, http.StatusOK)
		}
		if !found {
			t.Errorf("%s is not shown: %+v", name, got)
		}
	}
	// A message by its header whose body is of a type nobody expected.
	id, _ := w.say(rita, contentThread, chatMessage("1773050400000", "1", day, map[string]any{"body": []int{1}, "subject": 7}))
	if got := w.messages(nora, string(id)).Messages; len(got) != 1 || !strings.Contains(got[0].Versions[0].Text, `"subject":7`) {
		t.Errorf("got %+v", got)
	}
}

func TestEventsOfTheSystemReadAsSentences(t *testing.T) {
	w := newWorld(t)
	id, _ := w.say(rita, contentThread, chatMessage("1773050400000", "1", day, map[string]any{
		"messageType": "systemEventMessage", "from": nil, "body": map[string]any{"contentType": "html", "content": "<systemEventMessage/>"},
		"eventDetail": map[string]any{"@odata.type": "#microsoft.graph.membersAddedEventMessageDetail"},
	}))
	if got := w.messages(nora, string(id)).Messages[0].Versions[0].Text; got != "System event: members added" {
		t.Errorf("got %q", got)
	}
}

func TestNamesThatTurnTheDirectionOfTextAreShownAsSuch(t *testing.T) {
	w := newWorld(t)
	id, _ := w.say(rita, contentThread, chatMessage("1773050400000", "1", day, map[string]any{
		"from": map[string]any{"user": map[string]any{"id": string(sven), "displayName": "\u202eevil\u0000"}},
	}))
	for _, path := range []string{"conversations/" + string(id), "conversations/" + string(id) + "/messages", "conversations"} {
		body := w.get(nora, path).Body.String()
		if strings.Contains(body, "\u202e") || strings.Contains(body, `\u0000`) || !strings.Contains(body, "\ufffdevil") {
			t.Errorf("%s: %s", path, clip(body))
		}
	}
}

func TestPromisedObjectsCountAsPending(t *testing.T) {
	w := newWorld(t)
	w.say(rita, contentThread, text("1773050400000", "1", day, "stored"))
	id, _ := w.claim(rita, contentThread, []raw{text("1773050400001", "1", day, "promised"), text("1773050400002", "1", day, "promised")}, false)
	got := w.messages(nora, string(id))
	if len(got.Messages) != 1 || got.Pending != 2 || got.Messages[0].Versions[0].Text != "stored" {
		t.Errorf("%d messages, %d pending, want 1 and 2", len(got.Messages), got.Pending)
	}
	want(t, w.get(nora, "conversations/"+string(id)+"/messages/1773050400001/versions/1/original"), http.StatusNotFound)
}

func TestConversationLargerThanOneAnswerIsCutAndSaidSo(t *testing.T) {
	w := newWorld(t)
	var id conversation.ID
	const each = portal.MaxShown/4 + 1
	for i := range 5 { // three of these fit
		id, _ = w.say(rita, contentThread, chatMessage(fmt.Sprint(1773050400000+i), "1", day, map[string]any{
			"body": map[string]any{"contentType": "html", "content": strings.Repeat("x", each)},
		}))
	}
	w.say(rita, contentThread, text("1773050500000", "1", day, "small"))
	rec := w.get(nora, "conversations/"+string(id)+"/messages")
	want(t, rec, http.StatusOK)
	got := decode[messagesAnswer](t, bytes.NewReader(rec.Body.Bytes()))
	if !got.Truncated || len(got.Messages) != 4 {
		t.Errorf("truncated %t, %d messages, want true and 4", got.Truncated, len(got.Messages))
	}
	if rec.Body.Len() > portal.MaxShown {
		t.Errorf("an answer of %d bytes", rec.Body.Len())
	}
}

// TestVectorsInEveryFieldComeOutHarmless puts each vector where people can write.
func TestVectorsInEveryFieldComeOutHarmless(t *testing.T) {
	w := newWorld(t)
	var raws []raw
	for i, v := range append(append([]string{}, scriptVectors...), foreignVectors...) {
		raws = append(raws, chatMessage(fmt.Sprint(1773050400000+i), "1", day, map[string]any{
			"body": map[string]any{"contentType": []string{"html", "text", "HTML"}[i%3], "content": v}, "subject": v,
			"attachments": []any{map[string]any{"name": v, "content": v, "contentType": "application/vnd.microsoft.card.adaptive"}},
			"from":        map[string]any{"user": map[string]any{"id": string(rita), "displayName": v}},
			"reactions":   []any{map[string]any{"reactionType": v}},
		}))
	}
	id, _ := w.say(rita, contentThread, raws...)
	rec := w.get(nora, "conversations/"+string(id)+"/messages")
	want(t, rec, http.StatusOK)
	// No byte of the answer starts markup, whatever a browser takes it for.
	if i := bytes.IndexByte(rec.Body.Bytes(), '<'); i >= 0 {
		t.Errorf("the answer holds a tag as it is: %q", rec.Body.Bytes()[i:min(i+40, rec.Body.Len())])
	}
	for _, m := range decode[messagesAnswer](t, rec.Body).Messages {
		if err := harmless(m.Versions[0].HTML); err != nil {
			t.Error(err)
		}
	}
}
