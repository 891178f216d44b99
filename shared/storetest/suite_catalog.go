package storetest

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/evidence"
	"steno/shared/teams"
)

// TestCatalog checks the contract of conversation.Catalog. open returns an empty catalog.
func TestCatalog(t *testing.T, open func(t *testing.T) conversation.Catalog) {
	for _, c := range []struct {
		claim string
		check func(*testing.T, conversation.Catalog)
	}{
		{"a conversation that does not exist is an empty slice", sliceEmpty},
		{"what was claimed is read back", claimReadBack},
		{"a claim at an old revision changes nothing", claimConflict},
		{"of claims that race one wins", claimRace},
		{"dropped claims go and the others stay", claimDrop},
		{"a receipt given twice is one", claimReceipt},
		{"conversations of a thread do not mix", claimDays},
		{"listings are newest first, half open, and cross months", listOrder},
		{"every page size lists the same", listPages},
		{"equal starts are listed by id", listTies},
		{"a person's listing is what her own export returned", listPerson},
		{"a listing of more than a thousand", listThousand},
		{"a range below a millisecond", listFine},
		{"a range without a beginning or an end", listUnbounded},
		{"a wrong limit is refused", listLimit},
		{"a thread lists its days, newest first", listThread},
		{"facts told again replace those before", finishAgain},
		{"finished windows are those within the range", finishedRange},
		{"progress is kept by custodian", progressKept},
	} {
		t.Run(c.claim, func(t *testing.T) { c.check(t, open(t)) })
	}
}

var (
	catalogTenant = teams.TenantID("11111111-aaaa-4bbb-8ccc-222222222222")
	march         = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
)

func makeConversation(thread string, start time.Time) conversation.Conversation {
	id := teams.ThreadID("19:" + thread + "@thread.v2")
	return conversation.Conversation{
		ID: conversation.IDOf(conversation.KeyOf(catalogTenant, id), start), Thread: id, Kind: id.Kind(), Modality: conversation.Chat,
		Start: start, First: start, Last: start.Add(time.Minute), Versions: 3,
		Participants: []conversation.Participant{{ID: "x", Name: "X 'ü' \\ <>", Kind: "aadUser"}},
	}
}

func makeObject(n int) *conversation.Object {
	o := &conversation.Object{Name: evidence.NewObjectID(), Custodian: newPerson(), Lane: conversation.LaneNotified, ClaimedAt: march.Add(time.Hour), Seq: 3}
	for i := range n {
		id := fmt.Sprint(march.UnixMilli() + int64(i))
		o.Versions = append(o.Versions, conversation.Version{
			VersionKey: conversation.VersionKey{Message: teams.MessageID(id), ETag: teams.ETag(id)},
			Sent:       march.Add(time.Duration(i) * time.Millisecond), SHA256: sha256.Sum256([]byte(id)),
		})
	}
	return o
}

// canonical makes slices comparable: the order of objects and receipts is open, and
// so is the revision.
func canonical(t *testing.T, s conversation.Slice) string {
	t.Helper()
	slices.SortFunc(s.Objects, func(a, b conversation.Object) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) })
	slices.SortFunc(s.Receipts, func(a, b conversation.Receipt) int {
		return slices.Compare([]byte(string(a.Custodian)+a.Window), []byte(string(b.Custodian)+b.Window))
	})
	s.Revision, s.Objects = "", slices.Clone(s.Objects)
	for i, o := range s.Objects {
		if len(o.Versions) == 0 {
			s.Objects[i].Versions = nil // none is none, however it is spelled
		}
	}
	b, err := json.Marshal(s)
	ok(t, err)
	return string(b)
}

func wantSlice(t *testing.T, what string, got, want conversation.Slice) {
	t.Helper()
	if g, w := canonical(t, got), canonical(t, want); g != w {
		t.Errorf("%s: slice\n%.2000s\nwant\n%.2000s", what, g, w)
	}
}

// claimed claims and returns the slice as it is afterwards.
func claimed(t *testing.T, c conversation.Catalog, was conversation.Slice, cl conversation.Claim) conversation.Slice {
	t.Helper()
	ok(t, c.Claim(t.Context(), was, cl))
	s, err := c.Slice(t.Context(), cl.Conversation.ID)
	ok(t, err)
	return s
}

func sliceEmpty(t *testing.T, c conversation.Catalog) {
	s, err := c.Slice(t.Context(), makeConversation("none", march).ID)
	ok(t, err)
	if s.Revision != "" {
		t.Errorf("revision %q of a conversation that does not exist", s.Revision)
	}
	wantSlice(t, "absent", s, conversation.Slice{})
}

func claimReadBack(t *testing.T, c conversation.Catalog) {
	conv, o := makeConversation("a", march), makeObject(500)
	s := claimed(t, c, conversation.Slice{}, conversation.Claim{Conversation: conv, Add: o})
	if s.Revision == "" {
		t.Error("no revision")
	}
	wantSlice(t, "first", s, conversation.Slice{Conversation: conv, Objects: []conversation.Object{*o}})
	conv.Versions, conv.Last = 503, conv.Last.Add(time.Hour)
	second := makeObject(0)
	r := conversation.Receipt{Custodian: newPerson(), Lane: conversation.LaneLookback, Window: "1-1-2", At: march, Versions: []conversation.VersionKey{o.Versions[0].VersionKey}}
	s = claimed(t, c, s, conversation.Claim{Conversation: conv, Add: second, Receipt: &r})
	wantSlice(t, "second", s, conversation.Slice{
		Conversation: conv, Objects: []conversation.Object{*o, *second}, Receipts: []conversation.Receipt{r},
	})
	if _, found := s.Holds(o.Versions[499].VersionKey); !found || !s.Received(r.Custodian, r.Versions[0]) {
		t.Error("the slice does not know what it holds")
	}
}

func claimConflict(t *testing.T, c conversation.Catalog) {
	conv := makeConversation("a", march)
	first := claimed(t, c, conversation.Slice{}, conversation.Claim{Conversation: conv, Add: makeObject(1)})
	second := claimed(t, c, first, conversation.Claim{Conversation: conv, Add: makeObject(1)})
	changed := conv
	changed.Versions = 99
	bad := conversation.Claim{Conversation: changed, Add: makeObject(2), Receipt: &conversation.Receipt{Custodian: newPerson(), Window: "w"}}
	wantErr(t, "as if new", c.Claim(t.Context(), conversation.Slice{}, bad), conversation.ErrConflict)
	wantErr(t, "one revision back", c.Claim(t.Context(), first, bad), conversation.ErrConflict)
	bad.Drop = []string{second.Objects[0].Name}
	wantErr(t, "with a drop", c.Claim(t.Context(), first, bad), conversation.ErrConflict)
	s, err := c.Slice(t.Context(), conv.ID)
	ok(t, err)
	wantSlice(t, "after the conflicts", s, second)
}

func claimRace(t *testing.T, c conversation.Catalog) {
	conv := makeConversation("a", march)
	was := conversation.Slice{}
	for round := range 3 {
		var wins atomic.Int64
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				switch err := c.Claim(t.Context(), was, conversation.Claim{Conversation: conv, Add: makeObject(1)}); {
				case err == nil:
					wins.Add(1)
				case !errors.Is(err, conversation.ErrConflict):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		var err error
		was, err = c.Slice(t.Context(), conv.ID)
		ok(t, err)
		if wins.Load() != 1 || len(was.Objects) != round+1 {
			t.Errorf("round %d: %d won, %d objects", round, wins.Load(), len(was.Objects))
		}
	}
}

func claimDrop(t *testing.T, c conversation.Catalog) {
	conv, a, b, d := makeConversation("a", march), makeObject(1), makeObject(2), makeObject(3)
	s := claimed(t, c, conversation.Slice{}, conversation.Claim{Conversation: conv, Add: a})
	s = claimed(t, c, s, conversation.Claim{Conversation: conv, Add: b})
	s = claimed(t, c, s, conversation.Claim{Conversation: conv, Add: d, Drop: []string{a.Name}})
	wantSlice(t, "after the drop", s, conversation.Slice{Conversation: conv, Objects: []conversation.Object{*b, *d}})
	s = claimed(t, c, s, conversation.Claim{Conversation: conv, Drop: []string{b.Name, d.Name}})
	wantSlice(t, "all dropped", s, conversation.Slice{Conversation: conv})
}

func claimReceipt(t *testing.T, c conversation.Catalog) {
	conv := makeConversation("a", march)
	r := conversation.Receipt{Custodian: newPerson(), Window: "1-0000000000001-0000000000002", At: march}
	other, later := r, r
	other.Custodian, later.Window = newPerson(), "2-0000000000001-0000000000002"
	s := conversation.Slice{}
	for _, give := range []conversation.Receipt{r, r, other, later, r} {
		s = claimed(t, c, s, conversation.Claim{Conversation: conv, Receipt: &give})
	}
	wantSlice(t, "receipts", s, conversation.Slice{Conversation: conv, Receipts: []conversation.Receipt{r, other, later}})
}

func claimDays(t *testing.T, c conversation.Catalog) {
	today, tomorrow, elsewhere := makeConversation("a", march), makeConversation("a", march.AddDate(0, 0, 1)), makeConversation("b", march)
	want := map[conversation.ID]conversation.Slice{}
	for _, conv := range []conversation.Conversation{today, tomorrow, elsewhere} {
		o := makeObject(1)
		claimed(t, c, conversation.Slice{}, conversation.Claim{Conversation: conv, Add: o})
		want[conv.ID] = conversation.Slice{Conversation: conv, Objects: []conversation.Object{*o}}
	}
	for id, w := range want {
		s, err := c.Slice(t.Context(), id)
		ok(t, err)
		wantSlice(t, string(id), s, w)
	}
}

func finishAgain(t *testing.T, c conversation.Catalog) {
	custodian, conv := newPerson(), makeConversation("a", march)
	w := conversation.WindowDone{Window: conversation.Window{Custodian: custodian, From: march, To: march.Add(time.Hour), Pass: 1}, At: march}
	for _, conv.Versions = range []int{1, 1, 7} {
		ok(t, c.FinishWindow(t.Context(), w, []conversation.Conversation{conv}))
	}
	page, err := c.ByTime(t.Context(), march, march.Add(time.Hour), conversation.PageRequest{})
	ok(t, err)
	if len(page.Conversations) != 1 || page.Conversations[0].Versions != 7 {
		t.Errorf("listed %v", page.Conversations)
	}
	done, err := c.FinishedWindows(t.Context(), custodian, 1, march, march.Add(time.Hour))
	ok(t, err)
	if len(done) != 1 {
		t.Errorf("%d windows, want 1", len(done))
	}
}

func finishedRange(t *testing.T, c conversation.Catalog) {
	custodian := newPerson()
	window := func(who teams.PersonID, pass int, from, to time.Duration) conversation.WindowDone {
		return conversation.WindowDone{
			Window:   conversation.Window{Custodian: who, From: march.Add(from), To: march.Add(to), Pass: pass},
			Returned: 5, New: 3, Unclear: 1, At: march.Add(to),
		}
	}
	all := []conversation.WindowDone{
		window(custodian, 1, 0, time.Hour), window(custodian, 1, time.Hour, 2*time.Hour), window(custodian, 1, time.Hour, 90*time.Minute),
		window(custodian, 2, 0, time.Hour), window(newPerson(), 1, 0, time.Hour),
	}
	for _, w := range all {
		ok(t, c.FinishWindow(t.Context(), w, nil))
	}
	for _, q := range []struct {
		pass     int
		from, to time.Duration
		want     []int
	}{
		{1, 0, 2 * time.Hour, []int{0, 2, 1}},
		{1, -time.Hour, 3 * time.Hour, []int{0, 2, 1}},
		{1, 0, time.Hour, []int{0}},
		{1, time.Nanosecond, 2 * time.Hour, []int{2, 1}},
		{1, 0, 2*time.Hour - time.Nanosecond, []int{0, 2}},
		{2, 0, 2 * time.Hour, []int{3}},
		{3, 0, 2 * time.Hour, nil},
	} {
		got, err := c.FinishedWindows(t.Context(), custodian, q.pass, march.Add(q.from), march.Add(q.to))
		ok(t, err)
		var keys, want []string
		for _, d := range got {
			keys = append(keys, d.Key())
		}
		for _, i := range q.want {
			want = append(want, all[i].Key())
		}
		if !slices.Equal(keys, want) {
			t.Errorf("pass %d from %s to %s: %v, want %v", q.pass, q.from, q.to, keys, want)
		}
		if len(got) > 0 && (got[0].Returned != 5 || got[0].New != 3 || got[0].Unclear != 1 || !got[0].At.Equal(all[q.want[0]].At)) {
			t.Errorf("record %+v, want %+v", got[0], all[q.want[0]])
		}
	}
}

func progressKept(t *testing.T, c conversation.Catalog) {
	got, err := c.Progress(t.Context())
	ok(t, err)
	if len(got) != 0 {
		t.Errorf("progress of nobody: %v", got)
	}
	a, b := newPerson(), newPerson()
	var p conversation.Progress
	p.Set(2, march)
	for range 2 {
		ok(t, c.SaveProgress(t.Context(), a, p))
	}
	p.Set(1, march.Add(time.Hour))
	ok(t, c.SaveProgress(t.Context(), b, p))
	if got, err = c.Progress(t.Context()); err != nil || len(got) != 2 {
		t.Fatalf("progress %v, %v", got, err)
	}
	if !got[a].Until(1).IsZero() || !got[a].Until(2).Equal(march) || !got[b].Until(1).Equal(march.Add(time.Hour)) || !got[b].Until(3).IsZero() {
		t.Errorf("progress %v", got)
	}
}
