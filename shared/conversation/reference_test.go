package conversation_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
)

const alice = teams.PersonID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa")

const refSharePoint = "https://xyz-my.sharepoint.com/personal/xyz_onmicrosoft_com/Documents/Microsoft Teams Chat Files/document.pdf"

// pointing is a message with a body, attachments and reactions.
func pointing(body string, rest string) conversation.Message {
	content, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return conversation.ReadMessage(fmt.Appendf(nil, `{"id":"1","etag":"1","chatId":"19:a@thread.v2","createdDateTime":"2026-03-02T09:00:00Z","body":{"contentType":"html","content":%s}%s}`, content, rest), alice)
}

func hosted(s string) string {
	return "https://graph.microsoft.com/v1.0/chats/19:a@thread.v2/messages/7/hostedContents/" + s + "/$value"
}

func TestWhatAMessagePointsAtIsListed(t *testing.T) {
	attachment := func(members string) string { return `,"attachments":[{` + members + `}]` }
	card := func(kind, content string) string {
		b, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		return attachment(fmt.Sprintf(`"id":"x","contentType":%q,"content":%s`, kind, b))
	}
	const cards = "application/vnd.microsoft.card."
	for name, c := range map[string]struct {
		body, rest string
		want       []string // kind name source
	}{
		"a file with raw spaces":      {"", attachment(`"id":"a","contentType":"reference","contentUrl":"` + refSharePoint + `","name":"document.pdf"`), []string{"file document.pdf " + refSharePoint}},
		"an image of another message": {`<div><span><img alt="x" src="` + hosted("aWQ") + `" width="424.6"></span></div>`, "", []string{"image x " + hosted("aWQ")}},
		"the same image twice":        {`<img src="` + hosted("a") + `"><img src="` + hosted("a") + `">`, "", []string{"image  " + hosted("a")}},
		"an image in unusual markup":  {"<IMG\nSRC='" + hosted("a") + "'/>", "", []string{"image  " + hosted("a")}},
		"an entity in an address":     {`<img src="https://x.example/?a=1&amp;b=2">`, "", []string{"image  https://x.example/?a=1&b=2"}},
		"an image that is not there":  {`<!-- <img src="x"> --><p title='<img src="y">'>z</p>`, "", nil},
		"an image within the body":    {`<img src="data:image/png;base64,AAAA"><img src="">`, "", nil},
		"a GIF of a stranger":         {`<img alt="GIF" src="https://media.giphy.com/x.gif">`, "", []string{"image GIF https://media.giphy.com/x.gif"}},
		"an emoji of its own":         {`<customemoji id="x" alt="party" source="` + hosted("e") + `"></customemoji>`, "", []string{"emoji party " + hosted("e")}},
		"a reaction of its own":       {"", `,"reactions":[{"reactionType":"custom","displayName":"party","reactionContentUrl":"` + hosted("r") + `"},{"reactionType":"like"}]`, []string{"emoji party " + hosted("r")}},
		"code":                        {"", card(cards+"codesnippet", `{"language":"Go","codeSnippetUrl":"`+hosted("c")+`"}`), []string{"snippet  " + hosted("c")}},
		"a Loop component":            {"", card(cards+"fluidEmbedCard", `{"componentUrl":"https://c.sharepoint.com/x.loop","sourceType":"Compose"}`), []string{"loop  https://c.sharepoint.com/x.loop"}},
		"a Loop placeholder":          {"", card(cards+"codesnippet", `{"language":"","codeSnippetUrl":"FLUID_PLACEHOLDER_CARD"}`), nil},
		"a card with images":          {"", card(cards+"adaptive", `{"body":[{"type":"Image","url":"`+hosted("i")+`"},{"url":"https://evil.example/x.png"}],"backgroundImage":{"url":"`+hosted("b")+`"}}`), []string{"card  ", "card-image  " + hosted("b"), "card-image  " + hosted("i")}},
		"a card that is not JSON":     {"", card(cards+"hero", `<card>`), []string{"card  "}},
		"a quoted message":            {"", card("messageReference", `{"messageId":"7"}`), []string{"quote  "}},
		"a forwarded message":         {"", card("forwardedMessageReference", `{}`), []string{"quote  "}},
		"a meeting":                   {"", card("meetingReference", `{}`), []string{"meeting  "}},
		"what nobody knows":           {"", card("application/vnd.new", `{}`), []string{"other  "}},
		"a file without an address":   {"", attachment(`"id":"a","contentType":"reference","contentUrl":null,"name":"x"`), []string{"file x none:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}},
		"nothing":                     {"<p>text</p>", "", nil},
	} {
		var got []string
		for _, r := range conversation.ReferencesOf(pointing(c.body, c.rest)) {
			got = append(got, fmt.Sprintf("%s %s %s", r.Kind, r.Name, r.Source))
			if _, err := conversation.ParseAttachmentID(string(r.ID)); err != nil || r.Kind.Elsewhere() != (r.Source != "") {
				t.Errorf("%s: %+v", name, r)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestAnAttachmentKeepsItsIdThroughEditsAndReactions(t *testing.T) {
	rest := `,"attachments":[{"id":"a","contentType":"reference","contentUrl":"` + refSharePoint + `","name":"document.pdf"}]`
	first := conversation.ReferencesOf(pointing("<p>a</p>", rest))
	m := pointing("<p>b</p>", rest+`,"reactions":[]`)
	m.ETag = "2"
	if again := conversation.ReferencesOf(m); !slices.Equal(again, first) {
		t.Errorf("%+v became %+v", first, again)
	}
	m.Message = "2"
	if other := conversation.ReferencesOf(m); other[0].ID == first[0].ID {
		t.Error("another message's is the same")
	}
}

func TestAMessageOfManyThingsIsCutAndOverlongAddressesAreNone(t *testing.T) {
	var body strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&body, `<img src="https://x.example/%d">`, i)
	}
	if n := len(conversation.ReferencesOf(pointing(body.String(), ""))); n != conversation.MaxReferences {
		t.Errorf("%d references", n)
	}
	long := conversation.ReferencesOf(pointing(`<img src="https://x.example/`+strings.Repeat("x", conversation.MaxSource)+`">`, ""))
	if len(long) != 1 || !strings.HasPrefix(long[0].Source, "overlong:") {
		t.Errorf("%+v", long)
	}
}

func TestWhoWritesFromOutsideIsKnownByHerTenant(t *testing.T) {
	for from, want := range map[string]bool{
		`{"user":{"id":"x","tenantId":"11111111-1111-4111-8111-111111111111"}}`: false, `{"user":{"id":"x","tenantId":"22222222-1111-4111-8111-111111111111"}}`: true,
		`{"user":{"id":"x"}}`: false, `null`: false, `{"application":{"id":"x"}}`: false,
	} {
		if got := conversation.FromOutside(pointing("", `,"from":`+from), "11111111-1111-4111-8111-111111111111"); got != want {
			t.Errorf("%s: %t", from, got)
		}
	}
}

func TestUnclearMessagesPointAtNothing(t *testing.T) {
	m := conversation.ReadMessage([]byte(`{"body":{"contentType":"html","content":"<img src=\"https://x.example\">"}}`), alice)
	if refs := conversation.ReferencesOf(m); m.Unclear == nil || len(refs) != 0 {
		t.Errorf("%v: %+v", m.Unclear, refs)
	}
}

func FuzzReferences(f *testing.F) {
	f.Add([]byte(`{"id":"1","etag":"1","chatId":"19:a@thread.v2","createdDateTime":"2026-03-02T09:00:00Z","body":{"contentType":"html","content":"<img src=x>"},"attachments":[{"contentType":"reference","contentUrl":"x"}]}`))
	f.Add([]byte(`{"id":"1","etag":"1","chatId":"19:a@thread.v2","createdDateTime":"2026-03-02T09:00:00Z","attachments":[{"contentType":"application/vnd.microsoft.card.adaptive","content":"{\"url\":\"https://graph.microsoft.com/hostedContents/\"}"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := conversation.ReadMessage(raw, alice)
		refs := conversation.ReferencesOf(m)
		if !slices.Equal(refs, conversation.ReferencesOf(m)) || len(refs) > conversation.MaxReferences {
			t.Error("another list")
		}
		for _, r := range refs {
			ask := conversation.FileAsk{Tenant: "11111111-1111-4111-8111-111111111111", Thread: m.Thread, Custodian: alice, Message: m.Message, Sent: m.Sent, Kind: r.Kind, Name: r.Name, Source: r.Source}
			if !r.Kind.Elsewhere() {
				continue
			}
			b, err := conversation.EncodeFileAsk(ask)
			if err != nil {
				t.Fatal(err)
			}
			got, err := conversation.DecodeFileAsk(b)
			if err != nil || got.Source != r.Source || got.ID() != r.ID {
				t.Errorf("%+v is not asked for: %v", r, err)
			}
		}
	})
}

func TestAFileAskIsReadStrictly(t *testing.T) {
	good := conversation.FileAsk{
		Tenant: "11111111-1111-4111-8111-111111111111", Thread: "19:a@thread.v2", Custodian: alice, Message: "1", Sent: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC), External: true,
		Kind: conversation.KindFile, Name: "P&L \u202e.pdf", Source: refSharePoint + "\xff", Attempt: 3, Slot: time.Date(2026, 3, 2, 9, 0, 0, 7, time.UTC),
		Resume: &conversation.FileResume{Version: "v", Parts: 2, Sum: []byte{1}, Check: []byte{2}},
	}
	b, err := conversation.EncodeFileAsk(good)
	if err != nil {
		t.Fatal(err)
	}
	got, err := conversation.DecodeFileAsk(b)
	if err != nil || got.Resume == nil || !bytes.Equal(got.Resume.Sum, good.Resume.Sum) {
		t.Fatalf("%+v, %v", got, err)
	}
	got.Resume = good.Resume
	if got != good {
		t.Errorf("got %+v", got)
	}
	for name, change := range map[string][2]string{
		"another version": {`"stenoV":1`, `"stenoV":2`}, "an unknown name": {`"stenoV":1`, `"stenoV":1,"x":1`}, "a repeated name": {`"stenoV":1`, `"stenoV":1,"stenoV":1`},
		"another case": {`"fileKind"`, `"FileKind"`}, "no tenant": {`"fileTenant":"1`, `"fileTenant":"x`}, "what is not fetched": {`"fileKind":"file"`, `"fileKind":"card"`},
		"no address": {`"fileSource":"`, `"fileSource":"!`}, "negative": {`"fileAttempt":3`, `"fileAttempt":-3`}, "no time": {`"fileSlot":"`, `"fileSlot":"x`}, "impossible parts": {`"parts":2`, `"parts":0`},
		"a trailing value": {`}`, `} {}`},
	} {
		bad := bytes.Replace(b, []byte(change[0]), []byte(change[1]), -1)
		if bytes.Equal(bad, b) {
			t.Fatalf("%s changes nothing", name)
		}
		if got, err := conversation.DecodeFileAsk(bad); err == nil {
			t.Errorf("%s is taken: %+v", name, got)
		} else if strings.Contains(err.Error(), "sharepoint") || strings.Contains(err.Error(), "P&L") {
			t.Errorf("%s: the error repeats foreign text: %v", name, err)
		}
	}
}

func FuzzFileAsk(f *testing.F) {
	f.Add([]byte(`{"stenoV":1,"fileTenant":"11111111-1111-4111-8111-111111111111","fileThread":"19:a@thread.v2","fileCustodian":"aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa","fileMessage":"1","fileSent":"2026-03-02T09:00:00Z","fileKind":"file","fileSource":"eA=="}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := conversation.DecodeFileAsk(b)
		if err != nil {
			return
		}
		again, err := conversation.EncodeFileAsk(a)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := conversation.DecodeFileAsk(again); err != nil || got.ID() != a.ID() || got.Conversation() != a.Conversation() {
			t.Errorf("%+v becomes %+v, %v", a, got, err)
		}
	})
}

func filePart() conversation.FileHeader {
	return conversation.FileHeader{
		Tenant: "11111111-1111-4111-8111-111111111111", Conversation: conversation.IDOf(conversation.KeyOf("t", "19:a@thread.v2"), time.Unix(1772442000, 0)), Thread: "19:a@thread.v2", Custodian: alice, Message: "1",
		Attachment: conversation.AttachmentIDOf("19:a@thread.v2", "1", conversation.KindFile, "x"), Kind: conversation.KindFile, Source: "x", Rule: conversation.RuleCurrent,
		Part: 1, Offset: 3, Whole: &conversation.WholeFile{Size: 8, SHA256: "ab", Parts: []conversation.FilePiece{{Object: "o", Size: 3, SHA256: "cd"}}},
	}
}

func TestAPartIsFramedInPlaceAndReadBack(t *testing.T) {
	body := []byte("\nby\nt")
	for _, room := range []int{0, 1, 4096} { // a header that does not fit costs a copy
		buf := append(make([]byte, room), body...)
		plain, err := conversation.FrameFile(filePart(), buf, room)
		if err != nil {
			t.Fatal(err)
		}
		h, got, err := conversation.DecodeFile(plain)
		if err != nil || !bytes.Equal(got, body) || h.Attachment != filePart().Attachment || h.Whole == nil || h.Whole.Parts[0].Object != "o" {
			t.Fatalf("room %d: %+v, %q, %v", room, h, got, err)
		}
		if room == 4096 && &plain[len(plain)-1] != &buf[len(buf)-1] {
			t.Error("the bytes were copied though there was room")
		}
		h, at, err := conversation.ReadFileHeader(bytes.NewReader(plain), int64(len(plain)))
		if err != nil || !bytes.Equal(plain[at:], body) || h.Part != 1 {
			t.Errorf("room %d: the header alone: %+v at %d, %v", room, h, at, err)
		}
		if p := h.PartOf(body); p.Whole != "ab" || p.Size != 5 || p.Part != 1 {
			t.Errorf("%+v", p)
		}
	}
}

func TestAPartThatContradictsItselfIsRefused(t *testing.T) {
	for name, change := range map[string]func(*conversation.FileHeader){
		"too few parts": func(h *conversation.FileHeader) { h.Whole.Parts = nil }, "another offset": func(h *conversation.FileHeader) { h.Offset = 4 },
		"another size": func(h *conversation.FileHeader) { h.Whole.Size = 9 }, "an empty part": func(h *conversation.FileHeader) { h.Whole.Parts[0].Size, h.Offset = 0, 0 },
		"a negative part": func(h *conversation.FileHeader) { h.Part = -1 },
	} {
		h := filePart()
		change(&h)
		plain, err := conversation.FrameFile(h, []byte("bytes"), 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := conversation.DecodeFile(plain); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func FuzzFilePart(f *testing.F) {
	plain, err := conversation.FrameFile(filePart(), []byte("bytes"), 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add([]byte("steno-file/1\n{}\n"))
	f.Add([]byte("steno-file/1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h1, body, err1 := conversation.DecodeFile(b)
		h2, at, err2 := conversation.ReadFileHeader(bytes.NewReader(b), int64(len(b)))
		if (err1 == nil) != (err2 == nil) {
			t.Fatalf("two readers disagree: %v, %v", err1, err2)
		}
		if err1 == nil && (!bytes.Equal(b[at:], body) || h1.Attachment != h2.Attachment || h1.Part != h2.Part) {
			t.Error("two readers read two things")
		}
	})
}

func TestActiveTypesLeaveUnderAnotherExtension(t *testing.T) {
	for name, want := range map[string]string{
		"a.pdf": ".pdf", "A.PDF": ".pdf", "a.html": ".bin", "a.svg": ".bin", "a.exe": ".bin", "a.lnk": ".bin", "a.docm": ".bin", "pdf": ".bin", "": ".bin", "a.pdf ": ".bin", "a.pdf.": ".bin", "a.\u202efdp": ".bin", "a.pdf\x00": ".bin", ".pdf": ".pdf",
	} {
		if got := conversation.SafeExtension(name); got != want {
			t.Errorf("%q leaves as %q, want %q", name, got, want)
		}
	}
}
