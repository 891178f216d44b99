package portal_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/functions/portal"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/teams"
)

func TestRemovedSupervisorSeesNothingAtTheNextRequest(t *testing.T) {
	w := newWorld(t)
	token := http.Header{"Authorization": {"Bearer " + w.token(nora)}}
	path := "/steno/v1/conversations/" + idOf(northThread) + "/messages"
	want(t, w.send(http.MethodGet, path, token), http.StatusOK)
	closed := policy.Period{Person: nora, Role: policy.Supervisor, Desk: "north", From: joined, To: w.clock.Now()}
	w.must(w.roster.Apply(t.Context(), policy.Change{At: w.clock.Now(), Closed: []policy.Period{closed}}))
	want(t, w.send(http.MethodGet, "/steno/v1/session", token), http.StatusOK) // the token itself is still good
	want(t, w.send(http.MethodGet, path, token), http.StatusNotFound)
	for _, list := range []string{"people", "conversations", "conversations?person=" + string(rita)} {
		rec := w.send(http.MethodGet, "/steno/v1/"+list, token)
		want(t, rec, http.StatusOK)
		if strings.Contains(rec.Body.String(), string(rita)) || strings.Contains(rec.Body.String(), idOf(northThread)) {
			t.Errorf("%s still shows %s", list, clip(rec.Body.String()))
		}
	}
}

func TestSupervisorSeesARecordedUserOnlyInHerTimeOnTheDesk(t *testing.T) {
	w := newWorld(t)
	moved := time.Date(2026, 3, 8, 0, 0, 0, 0, time.UTC)
	w.must(w.roster.Apply(t.Context(), policy.Change{
		At:     moved,
		Closed: []policy.Period{{Person: rita, Role: policy.RecordedUser, Desk: "north", From: joined, To: moved}},
		Opened: []policy.Period{{Person: rita, Role: policy.RecordedUser, Desk: "south", From: moved}},
	}))
	early, _ := w.say(rita, "19:early@thread.v2", text("1772800000000", "1", time.Date(2026, 3, 6, 12, 0, 0, 0, time.UTC), "before"))
	for who, ids := range map[teams.PersonID][]string{nora: {string(early)}, saul: {idOf(northThread), idOf(southThread)}} {
		for _, id := range []string{string(early), idOf(northThread), idOf(southThread)} {
			status := http.StatusNotFound
			if slices.Contains(ids, id) {
				status = http.StatusOK
			}
			want(t, w.get(who, "conversations/"+id), status)
		}
		list := decode[struct{ Conversations []conversation.Conversation }](t, w.get(who, "conversations").Body)
		var got []string
		for _, c := range list.Conversations {
			got = append(got, string(c.ID))
		}
		slices.Sort(got)
		slices.Sort(ids)
		if !slices.Equal(got, ids) {
			t.Errorf("%s lists %v, want %v", who, got, ids)
		}
	}
}

// TestListingNeverPointsIntoWhatIsHidden pages through a thread and a person of which
// the caller may see little: cursors and pages must be those of the visible part alone.
func TestListingNeverPointsIntoWhatIsHidden(t *testing.T) {
	w := newWorld(t)
	thread := teams.ThreadID("19:long@thread.v2")
	key := conversation.KeyOf(tenant, thread)
	for d := range 30 { // Sven alone for 30 days, Rita on days 3, 11 and 19 as well
		sent := time.Date(2026, 2, 5+d, 12, 0, 0, 0, time.UTC)
		m := text(fmt.Sprint(sent.UnixMilli()), "1", sent, "x")
		w.say(sven, thread, m)
		if d%8 == 3 && d < 24 {
			w.say(rita, thread, m)
		}
	}
	type list struct {
		Conversations []conversation.Conversation
		Cursor        string
	}
	for _, base := range []string{
		"threads/" + string(key) + "/conversations?limit=1",
		"conversations?limit=1&from=2026-02-01T00:00:00Z&to=2026-03-09T00:00:00Z",
		"conversations?limit=1&from=2026-02-01T00:00:00Z&to=2026-03-09T00:00:00Z&person=" + string(rita),
	} {
		cursor, n := "", 0
		for {
			page := decode[list](t, w.get(nora, base+"&cursor="+cursor).Body)
			for _, c := range page.Conversations {
				if !slices.Contains(c.Custodians, rita) {
					t.Fatalf("%s shows a conversation of another desk", base)
				}
			}
			n += len(page.Conversations)
			if cursor = page.Cursor; cursor == "" {
				break
			}
			if len(page.Conversations) != 1 {
				t.Fatalf("%s: a cursor after %d conversations", base, len(page.Conversations))
			}
		}
		// Rita is recorded from March 1st and a day before; the rest is hidden.
		if visible := w.visibleTo(nora, thread); n != visible {
			t.Errorf("%s lists %d, want %d", base, n, visible)
		}
	}
	hidden := decode[list](t, w.get(otto, "threads/"+string(key)+"/conversations?limit=1").Body)
	if len(hidden.Conversations) != 0 || hidden.Cursor != "" {
		t.Errorf("a stranger is given %+v", hidden)
	}
}

// visibleTo counts the days of a thread that the person's grant covers.
func (w *world) visibleTo(who teams.PersonID, thread teams.ThreadID) int {
	w.t.Helper()
	g, err := policy.GrantFor(w.t.Context(), &w.roster, who, w.clock.Now())
	w.must(err)
	n := 0
	for _, s := range w.catalog.All() {
		c := s.Conversation
		if c.Thread == thread && g.MaySee(c.Custodians, c.First, c.Last, w.config.History) {
			n++
		}
	}
	return n
}

// TestSwappedIdsAreAnsweredLikeMissingOnes swaps the ids of two desks: status, bytes,
// headers, custody events and store calls are those of an id that does not exist.
func TestSwappedIdsAreAnsweredLikeMissingOnes(t *testing.T) {
	w := newWorld(t)
	w.ring(sven, southCall)
	w.journal.take()
	for _, pattern := range portal.Patterns() {
		if !strings.Contains(pattern, "{") {
			continue
		}
		for _, who := range []teams.PersonID{nora, otto, rita, adam, aida, uma} {
			other := w.get(who, asked(pattern, "south"))
			otherCalls := w.journal.take()
			missing := w.get(who, asked(pattern, "missing"))
			missingCalls := w.journal.take()
			same := func(s string) string {
				return strings.NewReplacer(idOf(southThread), "ID", idOf(nobodys), "ID", callID(southCall), "ID", callID("nobodys-call"), "ID",
					callID(southCall)[:32], "KEY", callID("nobodys-call")[:32], "KEY",
					string(conversation.KeyOf(tenant, southThread)), "KEY", string(conversation.KeyOf(tenant, nobodys)), "KEY").Replace(s)
			}
			if other.Code != missing.Code || other.Body.String() != missing.Body.String() || !maps.EqualFunc(other.Header(), missing.Header(), slices.Equal) {
				t.Errorf("%s as %s: %d %v %q and %d %v %q", pattern, who, other.Code, other.Header(), other.Body, missing.Code, missing.Header(), missing.Body)
			}
			if a, b := same(fmt.Sprint(otherCalls)), same(fmt.Sprint(missingCalls)); a != b {
				t.Errorf("%s as %s asks the stores for\n%s and\n%s", pattern, who, a, b)
			}
		}
	}
}

// TestForbiddenTakesAsLongAsMissing compares medians over 10,000 requests each (fewer
// under the race detector), taken in turn so that a busy machine slows both alike.
func TestForbiddenTakesAsLongAsMissing(t *testing.T) {
	const samples = 10_000 / slowdown
	w := newWorld(t)
	token := "Bearer " + w.token(nora)
	var took [2][]time.Duration
	paths := [2]string{"/steno/v1/conversations/" + idOf(southThread), "/steno/v1/conversations/" + idOf(nobodys)}
	for i := range 2 * samples {
		which := i % 2
		w.clock.Move(time.Second / portal.RequestsPerSecond)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, paths[which], nil)
		r.Header.Set("Authorization", token)
		rec := httptest.NewRecorder()
		start := time.Now()
		w.handler.ServeHTTP(rec, r)
		took[which] = append(took[which], time.Since(start))
		want(t, rec, http.StatusNotFound)
	}
	slices.Sort(took[0])
	slices.Sort(took[1])
	forbidden, missing := took[0][samples/2], took[1][samples/2]
	t.Logf("forbidden %v, missing %v", forbidden, missing)
	if d := (forbidden - missing).Abs(); d > max(missing/4, 10*time.Microsecond) {
		t.Errorf("medians differ by %v: forbidden %v, missing %v", d, forbidden, missing)
	}
}

// TestTwoTenantsWithTheSameIdsStayApart runs two portals over one store of evidence and
// keys. The other tenant has the same people, threads and message ids.
func TestTwoTenantsWithTheSameIdsStayApart(t *testing.T) {
	ours, theirs := newWorld(t), newWorld(t)
	const theirTenant = teams.TenantID("55555555-5555-4555-8555-555555555555")
	// The other tenant's evidence under the unit name of ours, in our store of blobs.
	unit := idOf(northThread)
	ref := evidence.Ref{Tenant: theirTenant, Unit: unit, Object: evidence.NewObjectID()}
	m := conversation.ReadMessage([]byte(`{"id":"1773050400000","etag":"9","chatId":"`+string(northThread)+`","messageType":"message",
		"createdDateTime":"2026-03-09T10:00:00Z","body":{"contentType":"text","content":"their secret"}}`), rita)
	plain, err := conversation.EncodeBatch(conversation.BatchHeader{Tenant: theirTenant, Conversation: conversation.ID(unit), Thread: northThread, Custodian: rita}, []conversation.Message{m})
	ours.must(err)
	sealed, err := ours.evidence.Seal(t.Context(), ref, plain)
	ours.must(err)
	ours.must(ours.evidence.Put(t.Context(), sealed))
	slice, err := ours.catalog.Slice(t.Context(), conversation.ID(unit))
	ours.must(err)
	object := conversation.Object{Name: ref.Object, Custodian: rita, Versions: []conversation.Version{{VersionKey: m.VersionKey, Sent: m.Sent, SHA256: sum(m.Raw)}}}
	ours.must(ours.catalog.Claim(t.Context(), slice, conversation.Claim{Conversation: slice.Conversation, Add: &object}))

	rec := ours.get(nora, "conversations/"+unit+"/messages")
	want(t, rec, http.StatusOK)
	if strings.Contains(rec.Body.String(), "their secret") {
		t.Fatal("evidence of another tenant is shown")
	}
	if got := decode[messagesAnswer](t, rec.Body); len(got.Messages) != 1 || got.Pending != 1 {
		t.Errorf("%d messages, %d pending, want 1 and 1", len(got.Messages), got.Pending)
	}
	want(t, ours.get(nora, "conversations/"+unit+"/messages/1773050400000/versions/9/original"), http.StatusNotFound)
	// Tokens do not cross either, though person and client are the same.
	want(t, ours.bearer(theirs.token(nora)), http.StatusUnauthorized)
	want(t, theirs.bearer(ours.token(nora)), http.StatusUnauthorized)
	if conversation.KeyOf(tenant, northThread) == conversation.KeyOf(theirTenant, northThread) {
		t.Error("a thread has the same key in two tenants")
	}
}

func TestEveryRefusalLeavesADeniedEvent(t *testing.T) {
	w := newWorld(t)
	for _, item := range []string{idOf(southThread), idOf(nobodys)} {
		want(t, w.get(nora, "conversations/"+item+"/messages"), http.StatusNotFound)
		records, err := w.trail.Range(t.Context(), w.clock.Now(), w.clock.Now().Add(time.Second), 10)
		w.must(err)
		if len(records) != 1 || records[0].Action != custody.Denied || records[0].Actor != nora || records[0].Item != item || records[0].Session == "" {
			t.Errorf("%s left %+v", item, records)
		}
	}
}
