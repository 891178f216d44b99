package browser_test

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"steno/shared/conversation"
)

// Threads of the story.
const (
	deskThread    = "19:desk@thread.v2"
	ratesThread   = "19:rates@thread.v2"
	hostileThread = "19:hostile@thread.v2"
	longThread    = "19:long@thread.v2"
)

// hostileBodies are message bodies that try to run, to reach out or to draw over the
// page. Where one succeeds it sets window.pwned, opens a dialog or asks evil.example.
//
//go:embed testdata/hostile.json
var hostileBodies []byte

// story is what the claims speak of.
type story struct {
	Desk     conversation.ID `json:"desk"`     // edited, deleted, quoted, with reactions and attachments
	Before   conversation.ID `json:"before"`   // the day before, in the same thread
	Rates    conversation.ID `json:"rates"`    // not the supervisor's
	Hostile  conversation.ID `json:"hostile"`  //
	Long     conversation.ID `json:"long"`     // more messages than are laid out at once
	Unclear  conversation.ID `json:"unclear"`  // what could not be read as a message
	Bodies   []string        `json:"bodies"`   // hostileBodies
	Messages int             `json:"messages"` // in Long
	Call     conversation.ID `json:"call"`     // ended
	Live     conversation.ID `json:"live"`     // a call that runs
}

// noon returns noon of a day some days ago, so that a conversation never crosses midnight.
func noon(daysAgo int) time.Time {
	return time.Now().UTC().AddDate(0, 0, -daysAgo).Truncate(24 * time.Hour).Add(12 * time.Hour)
}

func tell(t *testing.T, a *archive) story {
	t.Helper()
	s := story{Messages: 350}
	if err := json.Unmarshal(hostileBodies, &s.Bodies); err != nil {
		t.Fatal(err)
	}
	s.Desk, s.Before = deskStory(a)
	s.Call, s.Live = callStory(t, a)
	coverageStory(t, a)
	at := noon(2)
	s.Rates = a.keep(ben,
		raw(ratesThread, at, ben, "<p>Ten-year at 3.42 against your 3.40?</p>", nil),
		raw(ratesThread, at.Add(time.Minute), guest, "<p>Too wide for me.</p>", nil))
	s.Hostile = hostileStory(a, s.Bodies)
	var long [][]byte
	for i := range s.Messages {
		long = append(long, raw(longThread, noon(4).Add(time.Duration(i)*time.Second), amara, fmt.Sprintf("<p>Fill %d of the morning.</p>", i+1), nil))
	}
	s.Long = a.keep(amara, long...)
	s.Unclear = a.keep(chiara, []byte(fmt.Sprintf(`{"id":"x y","createdDateTime":%q,"body":"no chat named"}`, stamp(noon(5)))))
	for i := range 60 {
		thread := fmt.Sprintf("19:filler-%d@thread.v2", i)
		a.keep(amara, raw(thread, noon(6+i/4).Add(time.Duration(i)*time.Minute), amara, "<p>Good morning.</p>", nil))
	}
	return s
}

// Where the files of the desk's story lie.
const (
	blockTrades = "https://contoso.sharepoint.com/Block trades, week 47.xlsx"
	disguised   = "https://fabrikam.sharepoint.com/cod.exe"
)

func deskStory(a *archive) (today, before conversation.ID) {
	at := noon(1)
	before = a.keep(amara, raw(deskThread, at.AddDate(0, 0, -1), amara, "<p>Morning all. Two blocks to work today.</p>", nil))
	version := func(n int, more map[string]any) map[string]any {
		when := at.Add(time.Duration(n) * 10 * time.Minute)
		out := map[string]any{"etag": fmt.Sprint(when.UnixMilli()), "lastModifiedDateTime": stamp(when)}
		for k, v := range more {
			out[k] = v
		}
		return out
	}
	edited, deleted := at.Add(2*time.Minute), at.Add(4*time.Minute)
	quote := `<blockquote><strong>Grace Kim</strong><p>Can you show me 50k at the close?</p></blockquote><p>Yes: <a href="https://intranet.contoso.example/limits?desk=equities">limits are here</a>.</p><ul><li>25k now</li><li>25k at the close, <em>not before</em></li></ul>`
	reactions := map[string]any{"reactions": []any{
		map[string]any{"reactionType": "👍", "displayName": "Like"}, map[string]any{"reactionType": "👍"}, map[string]any{"reactionType": "❤️"},
	}}
	files := map[string]any{"attachments": []any{
		map[string]any{"id": "1", "contentType": "reference", "contentUrl": blockTrades, "name": "Block trades, week 47.xlsx"},
		map[string]any{"id": "2", "contentType": "reference", "contentUrl": disguised, "name": "cod.\u202efdp.exe"},
	}}
	event := map[string]any{
		"messageType": "systemEventMessage", "from": nil, "body": map[string]any{"contentType": "html", "content": "<systemEventMessage/>"},
		"eventDetail": map[string]any{"@odata.type": "#microsoft.graph.membersAddedEventMessageDetail"},
	}
	table := `<p>Fills so far:</p><table><tbody><tr><th>Time</th><th>Size</th><th>Price</th></tr><tr><td>12:05</td><td>10,000</td><td>41.20</td></tr><tr><td>12:11</td><td>15,000</td><td>41.25</td></tr></tbody></table>`
	a.keep(amara,
		raw(deskThread, at, guest, "<p>Can you show me 50k at the close?</p>", nil),
		raw(deskThread, at.Add(time.Minute), amara, quote, reactions),
		raw(deskThread, edited, amara, "<p>I will call the client at 15:00.</p>", nil),
		raw(deskThread, deleted, chiara, "<p>Move it to my private phone.</p>", nil),
		raw(deskThread, at.Add(5*time.Minute), amara, "", event),
		raw(deskThread, at.Add(6*time.Minute), guest, "<p>Received, thank you. The file is below.</p>", files),
		raw(deskThread, at.Add(15*time.Minute), amara, table, nil))
	sentFiles := raw(deskThread, at.Add(6*time.Minute), guest, "<p>Received, thank you. The file is below.</p>", files)
	a.attach(amara, sentFiles, "Block trades, week 47.xlsx", blockTrades, bytes.Repeat([]byte("block trades\n"), 400_000))
	a.miss(amara, sentFiles, "cod.\u202efdp.exe", disguised, conversation.GapExternal)
	today = a.keep(chiara,
		raw(deskThread, edited, amara, "<p>I will call the client at 16:30, after the fixing.</p>", version(2, map[string]any{"lastEditedDateTime": stamp(at.Add(20 * time.Minute))})),
		raw(deskThread, deleted, chiara, "", version(3, map[string]any{"deletedDateTime": stamp(at.Add(30 * time.Minute))})))
	return today, before
}

// hostileStory sends each body as a body, and also as a name, a subject and a file name.
func hostileStory(a *archive, bodies []string) conversation.ID {
	var items [][]byte
	for i, body := range bodies {
		from := guest
		from.name = body
		items = append(items, raw(hostileThread, noon(3).Add(time.Duration(i)*time.Second), from, body, map[string]any{
			"subject": body, "attachments": []any{map[string]any{"id": "1", "contentType": "reference", "name": body}},
			"reactions": []any{map[string]any{"reactionType": body}},
		}))
	}
	return a.keep(amara, items...)
}
