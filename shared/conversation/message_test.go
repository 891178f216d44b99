package conversation_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
)

const (
	tenant    = teams.TenantID("11111111-aaaa-4bbb-8ccc-222222222222")
	custodian = teams.PersonID("33333333-aaaa-4bbb-8ccc-444444444444")
	fixtures  = "../../tests/sim/testdata/graph-export"
)

// items returns what an export would hand over: the elements of a page, or the file.
func items(t *testing.T, file string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var page struct{ Value []json.RawMessage }
	if json.Unmarshal(b, &page) != nil || page.Value == nil {
		return [][]byte{b}
	}
	var out [][]byte
	for _, v := range page.Value {
		out = append(out, v)
	}
	return out
}

func TestEveryFixtureIsFiledWithItsBytes(t *testing.T) {
	files, err := filepath.Glob(fixtures + "/*.json")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d fixtures, %v", len(files), err)
	}
	clear := 0
	for _, file := range files {
		for i, raw := range items(t, file) {
			m := conversation.ReadMessage(raw, custodian)
			again := conversation.ReadMessage(raw, custodian)
			if !bytes.Equal(m.Raw, raw) || m.VersionKey != again.VersionKey || !m.Sent.Equal(again.Sent) || m.Thread != again.Thread {
				t.Errorf("%s item %d: bytes or place differ", file, i)
			}
			id := conversation.IDOf(conversation.KeyOf(tenant, m.Thread), m.Sent)
			if _, err := conversation.ParseID(string(id)); err != nil {
				t.Errorf("%s item %d: %v", file, i, err)
			}
			if m.Unclear == nil {
				clear++
			} else if m.Thread != "unclear:"+teams.ThreadID(custodian) {
				t.Errorf("%s item %d: unclear and in thread %s", file, i, m.Thread)
			}
		}
	}
	if clear < 8 {
		t.Errorf("%d items were filed as messages", clear)
	}
	for _, page := range []string{"chats-getallmessages.page.json", "channel-getallmessages.page.json", "chat-getallretainedmessages.page.json"} {
		for i, raw := range items(t, filepath.Join(fixtures, page)) {
			if m := conversation.ReadMessage(raw, custodian); m.Unclear != nil {
				t.Errorf("%s item %d: %v", page, i, m.Unclear)
			}
		}
	}
}

func TestOddMessagesAreKept(t *testing.T) {
	const sent = "2026-03-14T09:26:53.589Z"
	day := time.Date(2026, 3, 14, 0, 0, 0, 0, time.UTC)
	undated := time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		what, raw string
		unclear   bool
		day       time.Time
	}{
		{"ordinary", `{"id":"1773480413589","etag":"1","chatId":"19:a@thread.v2","createdDateTime":"` + sent + `"}`, false, day},
		{"unknown type and fields", `{"id":"1","etag":"1","chatId":"19:a@thread.v2","messageType":"fromTheFuture","x":{"y":[1]},"createdDateTime":"` + sent + `"}`, false, day},
		{"of a channel", `{"id":"1","etag":"1","chatId":null,"channelIdentity":{"channelId":"19:c@thread.tacv2"},"createdDateTime":"` + sent + `"}`, false, day},
		{"malformed time, id tells", `{"id":"1773480413589","etag":"1","chatId":"19:a@thread.v2","createdDateTime":"2026-13-14 9h"}`, false, day},
		{"year 1, id tells", `{"id":"1773480413589","etag":"1","chatId":"19:a@thread.v2","createdDateTime":"0001-01-01T00:00:00Z"}`, false, day},
		{"no time at all", `{"id":"x","etag":"1","chatId":"19:a@thread.v2"}`, true, undated},
		{"time beyond all days", `{"id":"x","etag":"1","chatId":"19:a@thread.v2","createdDateTime":"9999-12-31T23:59:59Z"}`, true, undated},
		{"id beyond all days", `{"id":"9223372036854775807","etag":"1","chatId":"19:a@thread.v2"}`, true, undated},
		{"no thread", `{"id":"1773480413589","etag":"1"}`, true, day},
		{"thread is a path", `{"id":"1773480413589","etag":"1","chatId":"../x"}`, true, day},
		{"no etag", `{"id":"1773480413589","chatId":"19:a@thread.v2"}`, true, day},
		{"id of the wrong type", `{"id":1773480413589,"etag":"1","chatId":"19:a@thread.v2"}`, true, undated},
		{"from of the wrong type", `{"id":"1","etag":"1","chatId":"19:a@thread.v2","from":"me"}`, true, undated},
		{"null", `null`, true, undated},
		{"a number", `7`, true, undated},
		{"not JSON", `{"canary`, true, undated},
		{"nothing", ``, true, undated},
	} {
		m := conversation.ReadMessage([]byte(c.raw), custodian)
		if string(m.Raw) != c.raw || (m.Unclear != nil) != c.unclear || !m.Sent.Truncate(24*time.Hour).Equal(c.day) {
			t.Errorf("%s: sent %s, unclear %v", c.what, m.Sent, m.Unclear)
		}
		if c.unclear && (!strings.HasPrefix(string(m.Message), "sha256-") || m.ETag != "none" || strings.Contains(m.Unclear.Error(), "canary")) {
			t.Errorf("%s: filed as %v: %v", c.what, m.VersionKey, m.Unclear)
		}
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add([]byte(`{"id":"1773480413589","etag":"1","chatId":"19:a@thread.v2","from":{"user":{"id":"u"}}}`))
	f.Add([]byte(`{"id":"1","createdDateTime":"2199-12-31T23:59:59.9999999+14:00"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := conversation.ReadMessage(raw, custodian)
		id := conversation.IDOf(conversation.KeyOf(tenant, m.Thread), m.Sent)
		if _, err := conversation.ParseID(string(id)); err != nil || !bytes.Equal(m.Raw, raw) || m.Message == "" || m.ETag == "" {
			t.Errorf("filed as %v in %s: %v", m.VersionKey, id, err)
		}
		if m.Sent.Before(conversation.Earliest) || !m.Sent.Before(conversation.Latest) || m.Sent.Nanosecond()%1e6 != 0 {
			t.Errorf("sent %s", m.Sent)
		}
	})
}

func TestKeysAreTheSameForEver(t *testing.T) {
	key := conversation.KeyOf(tenant, "19:meeting_golden@thread.v2")
	id := conversation.IDOf(key, time.Date(2026, 3, 14, 23, 30, 0, 0, time.FixedZone("", -3600)))
	if key != "fm56pc66e4f1e9tdql6ul0ascskhe7nm" || id != "fm56pc66e4f1e9tdql6ul0ascskhe7nm-20260315" {
		t.Errorf("key %s, id %s", key, id)
	}
	if id.Thread() != key || !id.Day().Equal(time.Date(2026, 3, 15, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("thread %s, day %s", id.Thread(), id.Day())
	}
	for _, other := range []conversation.ThreadKey{
		conversation.KeyOf(tenant, "19:meeting_golden@thread.v3"), conversation.KeyOf("11111111-aaaa-4bbb-8ccc-222222222223", "19:meeting_golden@thread.v2"),
	} {
		if other == key {
			t.Error("two threads share a key")
		}
	}
}

func TestHostileThreadIDsNeverReachAKey(t *testing.T) {
	for _, thread := range []teams.ThreadID{"../x", "a/b", "%2f", "\x00", "CON", "NUL.txt", "'", teams.ThreadID(strings.Repeat("x", 10<<10))} {
		if _, err := conversation.ParseThreadKey(string(conversation.KeyOf(tenant, thread))); err != nil {
			t.Errorf("thread %.20q: %v", thread, err)
		}
	}
}

func TestMalformedConversationIDsAreRefused(t *testing.T) {
	key := strings.Repeat("a", 32)
	for _, s := range []string{"", key, key + "-2026031", key + "-20260230", key + "-20261301", key + "-2026-3-1", strings.ToUpper(key) + "-20260314",
		strings.Repeat("w", 32) + "-20260314", key + "-20260314\n", "../" + key + "-20260314", key + "_20260314"} {
		if id, err := conversation.ParseID(s); err == nil {
			t.Errorf("%q was taken as %s", s, id)
		}
	}
	if _, err := conversation.ParseThreadKey(key + "\n"); err == nil {
		t.Error("a thread key with a line end was taken")
	}
}

func TestPositionsAreInOneOrder(t *testing.T) {
	at := time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)
	list := []conversation.Position{{Start: at.Add(time.Hour), ID: "z"}, {Start: at, ID: "a"}, {Start: at.In(time.FixedZone("", 3600)), ID: "b"}, {Start: at.Add(-1), ID: "a"}}
	for i, p := range list {
		for j, q := range list {
			if p.Before(q) != (i < j) {
				t.Errorf("position %d before %d: %t", i, j, p.Before(q))
			}
		}
	}
}

func TestFactsGrowWithWhatIsNew(t *testing.T) {
	at := time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)
	h := conversation.BatchHeader{Conversation: "id", Thread: "19:meeting_x@thread.v2", Custodian: custodian}
	message := func(from string, d time.Duration) conversation.Message {
		return conversation.Message{Sent: at.Add(d), From: conversation.Participant{ID: from}}
	}
	c := conversation.Conversation{}.With(h, []conversation.Message{message("a", time.Hour), message("", 0)})
	before := fmt.Sprint(c)
	if c.Kind != teams.ThreadMeeting || !c.Start.Equal(at.Add(time.Hour)) || !c.First.Equal(at) || !c.Last.Equal(at.Add(time.Hour)) || c.Versions != 2 {
		t.Errorf("facts %+v", c)
	}
	h.Custodian = "55555555-aaaa-4bbb-8ccc-444444444444"
	var many []conversation.Message
	for i := range 100 {
		many = append(many, message(fmt.Sprint("p", i), -time.Hour))
	}
	d := c.With(h, many).With(h, nil)
	if !d.Start.Equal(c.Start) || !d.First.Equal(at.Add(-time.Hour)) || d.Versions != 102 || len(d.Participants) != 50 || len(d.Custodians) != 2 {
		t.Errorf("facts %+v", d)
	}
	if fmt.Sprint(c) != before {
		t.Error("the facts before were changed")
	}
}
