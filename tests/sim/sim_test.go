package sim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"steno/tests/sim"
)

const seed = 7

// clock is a settable clock.
type clock struct{ ms atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ms.Store(fixedNow.UnixMilli())
	return c
}

func (c *clock) Now() time.Time          { return time.UnixMilli(c.ms.Load()).UTC() }
func (c *clock) Advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

type fixture struct {
	*sim.Tenant
	t     *testing.T
	clock *clock
	url   string
	http  *http.Client
}

func newFixture(t *testing.T, cfg sim.Config) *fixture {
	t.Helper()
	t.Logf("seed %d", seed)
	c := newClock()
	if cfg.Now == nil {
		cfg.Now = c.Now
	}
	cfg.Seed = seed
	tenant := sim.New(cfg)
	s := httptest.NewServer(tenant.Handler())
	t.Cleanup(s.Close)
	return &fixture{tenant, t, c, s.URL, s.Client()}
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

func (f *fixture) try(address string, header ...string) (reply, error) {
	f.t.Helper()
	if strings.HasPrefix(address, "/") {
		address = f.url + "/v1.0" + address
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, address, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer x")
	req.Header.Set("Prefer", "include-unknown-enum-members")
	for i := 0; i < len(header); i += 2 {
		if header[i+1] == "" {
			req.Header.Del(header[i])
		} else {
			req.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := f.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, b}, err
}

func (f *fixture) get(address string, header ...string) reply {
	f.t.Helper()
	r, err := f.try(address, header...)
	if err != nil {
		f.t.Fatalf("get %s: %v", address, err)
	}
	return r
}

type page struct {
	Count int               `json:"@odata.count"`
	Next  string            `json:"@odata.nextLink"`
	Delta string            `json:"@odata.deltaLink"`
	Value []json.RawMessage `json:"value"`
}

func (f *fixture) page(address string, header ...string) page {
	f.t.Helper()
	r := f.get(address, header...)
	if r.status != http.StatusOK {
		f.t.Fatalf("get %s: %d %s", address, r.status, r.body)
	}
	return decode[page](f.t, r.body)
}

func decode[T any](t *testing.T, b []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("decode %.200s: %v", b, err)
	}
	return v
}

// all follows nextLinks to the end, as a naive pager does.
func (f *fixture) all(address string, header ...string) []json.RawMessage {
	f.t.Helper()
	var out []json.RawMessage
	for address != "" {
		p := f.page(address, header...)
		out = append(out, p.Value...)
		address = p.Next
	}
	return out
}

type chatMessage struct {
	ID          string  `json:"id"`
	ETag        string  `json:"etag"`
	MessageType string  `json:"messageType"`
	ChatID      string  `json:"chatId"`
	ReplyTo     *string `json:"replyToId"`
	Modified    string  `json:"lastModifiedDateTime"`
	Created     string  `json:"createdDateTime"`
	Edited      *string `json:"lastEditedDateTime"`
	Deleted     *string `json:"deletedDateTime"`
	Body        struct{ Content string }
	From        *struct {
		User        *struct{ ID, UserIdentityType string }
		Application *struct{ ApplicationIdentityType string }
	}
	Channel   *struct{ TeamID, ChannelID string } `json:"channelIdentity"`
	Reactions []json.RawMessage                   `json:"reactions"`
}

func (f *fixture) messages(raw []json.RawMessage) []chatMessage {
	f.t.Helper()
	var out []chatMessage
	for _, r := range raw {
		out = append(out, decode[chatMessage](f.t, r))
	}
	return out
}

func export(p sim.PersonID) string { return "/users/" + string(p) + "/chats/getAllMessages" }

func window(after, before time.Time) string {
	const layout = "2006-01-02T15:04:05.000Z"
	return "$filter=" + url.QueryEscape("lastModifiedDateTime gt "+after.UTC().Format(layout)+" and lastModifiedDateTime lt "+before.UTC().Format(layout))
}

// mailboxOf is the truth about what a person's export returns now.
func (f *fixture) mailboxOf(p sim.PersonID) map[string]sim.Version {
	out := map[string]sim.Version{}
	for _, v := range f.History() {
		if !v.Channel && v.StoodAt(f.clock.Now()) && slices.Contains(v.Participants, p) {
			out[string(v.Bytes)] = v
		}
	}
	return out
}

// busiest is the recorded person with the most messages.
func (f *fixture) busiest() sim.PersonID {
	f.t.Helper()
	n := map[sim.PersonID]int{}
	for _, v := range f.History() {
		if !v.Channel && v.StoodAt(f.clock.Now()) {
			for _, p := range v.Participants {
				n[p]++
			}
		}
	}
	best := slices.MaxFunc(f.UsersIn(sim.RecordedEquities), func(a, b sim.PersonID) int { return n[a] - n[b] })
	if n[best] < 20 {
		f.t.Fatalf("the busiest mailbox holds %d messages", n[best])
	}
	return best
}

func TestEqualSeedsGiveEqualBytes(t *testing.T) {
	cfg := sim.Config{Seed: seed, Messages: 500, Now: newClock().Now}
	a, b := sim.New(cfg), sim.New(cfg)
	for range 200 {
		a.Step()
		b.Step()
	}
	x, y := a.History(), b.History()
	if len(x) != len(y) {
		t.Fatalf("%d and %d versions", len(x), len(y))
	}
	for i := range x {
		if !bytes.Equal(x[i].Bytes, y[i].Bytes) {
			t.Fatalf("version %d differs:\n%s\n%s", i, x[i].Bytes, y[i].Bytes)
		}
	}
	cfg.Seed++
	if c := sim.New(cfg); c.ID() == a.ID() || c.People()[0].ID == a.People()[0].ID {
		t.Error("another seed gives the same tenant")
	}
}

func TestQuietTenantIsExportedByteForByte(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 800})
	exported := 0
	for _, p := range f.People() {
		if !p.Mailbox {
			continue
		}
		want := f.mailboxOf(p.ID)
		for _, raw := range f.all(export(p.ID) + "?$top=17") {
			if _, ok := want[string(raw)]; !ok {
				t.Fatalf("%s got a version that is not current, not theirs, or got it twice: %s", p.UPN, raw)
			}
			delete(want, string(raw))
			exported++
		}
		if len(want) != 0 {
			t.Errorf("%s did not get %d messages", p.UPN, len(want))
		}
	}
	if exported < 800 {
		t.Errorf("exported %d copies", exported)
	}
}

func TestTeamExportHoldsRootsAndRepliesOfAllChannels(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 3000})
	want := map[string]bool{}
	for _, v := range f.History() {
		if v.Team != "" && v.StoodAt(f.clock.Now()) {
			want[v.Team+string(v.Bytes)] = true
		}
	}
	replies := 0
	for _, team := range f.Teams() {
		for _, raw := range f.all("/teams/" + team.ID + "/channels/getAllMessages") {
			if !want[team.ID+string(raw)] {
				t.Fatalf("unexpected: %s", raw)
			}
			delete(want, team.ID+string(raw))
			if m := decode[chatMessage](t, raw); m.ReplyTo != nil {
				replies++
				if !slices.Contains(team.Channels, sim.ThreadID(m.Channel.ChannelID)) {
					t.Errorf("reply in channel %s of another team", m.Channel.ChannelID)
				}
			}
		}
	}
	if len(want) != 0 || replies == 0 {
		t.Errorf("%d posts missing, %d replies seen", len(want), replies)
	}
}

func TestBothBoundsOfTheRangeAreExclusive(t *testing.T) {
	f := newFixture(t, sim.Config{})
	p := f.busiest()
	for _, v := range f.mailboxOf(p) {
		at := v.LastModified
		count := func(after, before time.Time) int {
			return len(f.all(export(p) + "?" + window(after, before)))
		}
		if n := count(at, at.Add(time.Millisecond)); n != 0 {
			t.Fatalf("gt includes its bound: %d", n)
		}
		if n := count(at.Add(-time.Millisecond), at); n != 0 {
			t.Fatalf("lt includes its bound: %d", n)
		}
		if n := count(at.Add(-time.Millisecond), at.Add(time.Millisecond)); n < 1 {
			t.Fatal("the millisecond itself holds nothing")
		}
		return
	}
}

func TestResultIsNotSortedByTime(t *testing.T) {
	f := newFixture(t, sim.Config{})
	m := f.messages(f.all(export(f.busiest())))
	for name, key := range map[string]func(a, b chatMessage) int{
		"created":  func(a, b chatMessage) int { return strings.Compare(a.Created, b.Created) },
		"modified": func(a, b chatMessage) int { return strings.Compare(a.Modified, b.Modified) },
	} {
		back := slices.Clone(m)
		slices.Reverse(back)
		if slices.IsSortedFunc(m, key) || slices.IsSortedFunc(back, key) {
			t.Errorf("sorted by %s", name)
		}
	}
}

func TestEditBetweenPagesHidesAnotherMessageFromANaivePager(t *testing.T) {
	f := newFixture(t, sim.Config{})
	p := f.busiest()
	address := export(p) + "?$top=5&" + window(f.clock.Now().Add(-100*24*time.Hour), f.clock.Now())
	before := f.messages(f.all(address))
	f.Faults().Next(sim.EditDuringPaging, 1)
	f.clock.Advance(time.Second)
	after := f.messages(f.all(address))
	if n := f.Faults().Served()[sim.EditDuringPaging]; n != 1 {
		t.Fatalf("fault happened %d times", n)
	}
	if len(after) != len(before)-1 {
		t.Fatalf("naive pager saw %d of %d messages, want one fewer", len(after), len(before))
	}
	var lost []chatMessage
	for _, m := range before {
		if !slices.ContainsFunc(after, func(n chatMessage) bool { return n.ID == m.ID && n.ChatID == m.ChatID }) {
			lost = append(lost, m)
		}
	}
	if len(lost) != 1 || lost[0].ID != before[5].ID {
		t.Fatalf("lost %v, want the first message of the second page, %s", lost, before[5].ID)
	}
}

func TestNextLinkIsAbsoluteAndNamesAnOffset(t *testing.T) {
	f := newFixture(t, sim.Config{})
	p := f.page(export(f.busiest()) + "?$top=2")
	if p.Count != 2 || len(p.Value) != 2 {
		t.Errorf("count is %d, values %d", p.Count, len(p.Value))
	}
	if !strings.HasPrefix(p.Next, f.url+"/v1.0/users('") || !strings.Contains(p.Next, "/chats/getallMessages?$top=2&$skiptoken=U2tpcFZhbHVlPTIjTWFpbGJveEZvbGRlcj1NYWlsRm9sZGVycy9UZWFtc01lc3NhZ2VzRGF0YQ%3D%3D") {
		t.Errorf("nextLink is %s", p.Next)
	}
}

func TestConfiguredBaseIsUsedForNextLinks(t *testing.T) {
	f := newFixture(t, sim.Config{BaseURL: "https://graph.example/sim"})
	if p := f.page(export(f.busiest()) + "?$top=2"); !strings.HasPrefix(p.Next, "https://graph.example/sim/v1.0/users('") {
		t.Errorf("nextLink is %s", p.Next)
	}
}

func TestEverySpellingOfTheExportIsServed(t *testing.T) {
	f := newFixture(t, sim.Config{})
	p := f.busiest()
	want := f.get(export(p) + "?$top=3").body
	upn := ""
	for _, q := range f.People() {
		if q.ID == p {
			upn = q.UPN
		}
	}
	for _, path := range []string{
		"/users/" + string(p) + "/chats/getAllMessages()?%24top=3",
		"/users/" + string(p) + "/chats/getallMessages?$top=3",
		"/users('" + string(p) + "')/chats/GetAllMessages?$top=3&model=A",
		"/users/" + url.PathEscape(upn) + "/chats/microsoft.graph.getAllMessages()?$top=3",
	} {
		if got := f.get(path); got.status != http.StatusOK || !bytes.Equal(got.body, want) {
			t.Errorf("%s: %d %.200s", path, got.status, got.body)
		}
	}
}

func TestSystemEventsAreUnknownWithoutThePreferHeader(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 3000})
	p := f.busiest()
	filter := "?$filter=" + url.QueryEscape("messageType eq 'systemEventMessage'")
	known, unknown := f.all(export(p)+filter), f.all(export(p)+filter, "Prefer", "")
	if len(known) == 0 || len(known) != len(unknown) {
		t.Fatalf("%d and %d events", len(known), len(unknown))
	}
	for i := range known {
		a, b := decode[chatMessage](t, known[i]), decode[chatMessage](t, unknown[i])
		if a.MessageType != "systemEventMessage" || b.MessageType != "unknownFutureValue" || a.ID != b.ID {
			t.Errorf("%s is %s, %s is %s", a.ID, a.MessageType, b.ID, b.MessageType)
		}
		if a.From != nil {
			t.Errorf("system event %s has a sender", a.ID)
		}
	}
}

func TestSenderFiltersJoinWithOrUnderOneRange(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 3000})
	p := f.busiest()
	everything := f.messages(f.all(export(p)))
	want := 0
	for _, m := range everything {
		if m.From != nil && (m.From.User != nil && m.From.User.ID == string(p) || m.From.Application != nil) {
			want++
		}
	}
	got := f.all(export(p) + "?$filter=" + url.QueryEscape("lastModifiedDateTime gt 2020-01-01T00:00:00Z and lastModifiedDateTime lt 2030-01-01T00:00:00.5Z and (from/user/id eq '"+string(p)+"' or from/application/applicationIdentityType eq 'bot')"))
	if want == 0 || len(got) != want {
		t.Errorf("got %d, want %d of %d", len(got), want, len(everything))
	}
	none := f.all(export(p) + "?$filter=" + url.QueryEscape("(from/user/userIdentityType eq 'aadUser' or from/user/id eq 'x') and lastModifiedDateTime gt 2030-01-01T00:00:00Z"))
	if len(none) != 0 {
		t.Errorf("%d messages of the future", len(none))
	}
}

func TestUnsupportedQueryIsRefusedInGraphsWords(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 50})
	p := export(f.UsersIn(sim.RecordedRates)[0])
	for query, want := range map[string]string{
		"$filter=channelIdentity/channelId eq 'a'":                  "The entity property 'channelIdentity/channelId' and operationKind 'Equal' is not allowed in $filter query.",
		"$filter=lastModifiedDateTime ge 2026-01-01T00:00:00Z":      "The entity property 'lastModifiedDateTime' and operationKind 'GreaterThanOrEqual' is not allowed in $filter query.",
		"$filter=createdDateTime gt 2026-01-01T00:00:00Z":           "The entity property 'createdDateTime' and operationKind 'GreaterThan' is not allowed in $filter query.",
		"$filter=from/user/id ne 'a'":                               "The entity property 'from/user/id' and operationKind 'NotEqual' is not allowed in $filter query.",
		"$filter=lastModifiedDateTime gt yesterday":                 "Invalid date literal 'yesterday'.",
		"$filter=lastModifiedDateTime gt":                           "Syntax error",
		"$filter=(messageType eq 'message'":                         "unbalanced parentheses",
		"$filter=messageType eq 'message":                           "unterminated string literal",
		"$filter=messageType eq 'message' xor messageType eq 'typ'": "unexpected 'xor'",
		"$orderby=createdDateTime":                                  "Query option 'orderby' is not allowed.",
		"$select=id":                                                "Query option 'select' is not allowed.",
		"$top=0":                                                    "$top",
		"$top=many":                                                 "$top",
		"$skiptoken=bm9uc2Vuc2U":                                    "continuation token",
		"$skiptoken=U2tpcFZhbHVlPS0xI01haWxib3hGb2xkZXI9eA==":       "continuation token",
	} {
		name, value, _ := strings.Cut(query, "=")
		r := f.get(p + "?" + name + "=" + url.QueryEscape(value))
		e := graphError(t, r)
		if r.status != http.StatusBadRequest || e.Code != "BadRequest" || !strings.Contains(e.Message, want) {
			t.Errorf("%s: %d %s", query, r.status, r.body)
		}
	}
	team := f.Teams()[0].ID
	if r := f.get("/teams/" + team + "/channels/getAllMessages?$filter=" + url.QueryEscape("from/user/id eq 'a'")); r.status != http.StatusBadRequest {
		t.Errorf("sender filter on channels: %d", r.status)
	}
	if r := f.get(p + "?$top=1000"); r.status != http.StatusGatewayTimeout || graphError(t, r).Code != "UnknownError" {
		t.Errorf("$top=1000: %d %s", r.status, r.body)
	}
}

type errorBody struct {
	Code       string
	Message    string
	InnerError map[string]string
}

func graphError(t *testing.T, r reply) errorBody {
	t.Helper()
	e := decode[struct{ Error errorBody }](t, r.body).Error
	if e.InnerError["request-id"] == "" || e.InnerError["request-id"] != r.header.Get("request-id") ||
		e.InnerError["client-request-id"] != r.header.Get("client-request-id") || e.InnerError["date"] == "" {
		t.Errorf("inner error is %v, headers %v", e.InnerError, r.header)
	}
	return e
}
