package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
)

// finish makes conversations findable, by one window of the custodian.
func finish(t *testing.T, c conversation.Catalog, custodian teams.PersonID, list ...conversation.Conversation) {
	t.Helper()
	w := conversation.Window{Custodian: custodian, From: march, To: march.Add(time.Hour), Pass: 1}
	ok(t, c.FinishWindow(t.Context(), conversation.WindowDone{Window: w, Returned: len(list), At: march}, list))
}

type lister func(conversation.PageRequest) (conversation.Page, error)

// paged lists everything, limit at a time.
func paged(t *testing.T, list lister, limit int) []conversation.ID {
	t.Helper()
	var ids []conversation.ID
	req := conversation.PageRequest{Limit: limit}
	for {
		page, err := list(req)
		ok(t, err)
		want := limit
		if limit == 0 {
			want = conversation.MaxPage
		}
		if page.More && len(page.Conversations) != want {
			t.Fatalf("limit %d: a page of %d with more to come", limit, len(page.Conversations))
		}
		for _, conv := range page.Conversations {
			ids = append(ids, conv.ID)
		}
		if !page.More {
			return ids
		}
		req.After = page.Conversations[len(page.Conversations)-1].Position()
	}
}

func ids(list []conversation.Conversation) []conversation.ID {
	var out []conversation.ID
	for _, c := range list {
		out = append(out, c.ID)
	}
	return out
}

func sorted(list []conversation.Conversation) []conversation.Conversation {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b conversation.Conversation) int {
		switch {
		case a.Position().Before(b.Position()):
			return -1
		case b.Position().Before(a.Position()):
			return 1
		}
		return 0
	})
	return list
}

func wantIDs(t *testing.T, what string, got, want []conversation.ID) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: listed %d\n%v\nwant %d\n%v", what, len(got), got, len(want), want)
	}
}

func byTime(t *testing.T, c conversation.Catalog, from, to time.Time) lister {
	return func(r conversation.PageRequest) (conversation.Page, error) { return c.ByTime(t.Context(), from, to, r) }
}

// sample crosses the borders of months and of a year.
func sample() []conversation.Conversation {
	var list []conversation.Conversation
	for i, at := range []time.Time{
		march, march.Add(-time.Millisecond), march.Add(time.Millisecond), march.AddDate(0, 0, 30), march.AddDate(0, 1, 0),
		march.AddDate(0, -2, 0), march.AddDate(0, -2, 0).Add(-time.Millisecond), march.AddDate(0, -3, 0), march.Add(25 * time.Hour),
	} {
		list = append(list, makeConversation(fmt.Sprint("thread", i), at))
	}
	return list
}

func listOrder(t *testing.T, c conversation.Catalog) {
	custodian, list := newPerson(), sample()
	finish(t, c, custodian, list...)
	all := sorted(list)
	for _, q := range []struct {
		what     string
		from, to time.Time
	}{
		{"all", march.AddDate(-1, 0, 0), march.AddDate(1, 0, 0)},
		{"from is inside", march, march.AddDate(1, 0, 0)},
		{"to is outside", march.AddDate(-1, 0, 0), march},
		{"one millisecond", march, march.Add(time.Millisecond)},
		{"one month", march, march.AddDate(0, 1, 0)},
		{"none", march.AddDate(0, 2, 0), march.AddDate(0, 3, 0)},
		{"empty", march, march},
		{"reversed", march.Add(time.Hour), march},
	} {
		var want []conversation.ID
		for _, conv := range all {
			if !conv.Start.Before(q.from) && conv.Start.Before(q.to) {
				want = append(want, conv.ID)
			}
		}
		wantIDs(t, q.what, paged(t, byTime(t, c, q.from, q.to), 0), want)
		wantIDs(t, q.what+", by person", paged(t, func(r conversation.PageRequest) (conversation.Page, error) {
			return c.ByPerson(t.Context(), custodian, q.from, q.to, r)
		}, 0), want)
	}
}

func listPages(t *testing.T, c conversation.Catalog) {
	custodian, list := newPerson(), sample()
	finish(t, c, custodian, list...)
	want := ids(sorted(list))
	from, to := march.AddDate(0, -3, 0), march.AddDate(0, 1, 1)
	for limit := 1; limit <= len(list)+1; limit++ {
		wantIDs(t, fmt.Sprint("by time, limit ", limit), paged(t, byTime(t, c, from, to), limit), want)
		wantIDs(t, fmt.Sprint("by person, limit ", limit), paged(t, func(r conversation.PageRequest) (conversation.Page, error) {
			return c.ByPerson(t.Context(), custodian, from, to, r)
		}, limit), want)
	}
	last := sorted(list)[len(list)-1]
	page, err := c.ByTime(t.Context(), from, to, conversation.PageRequest{After: last.Position()})
	ok(t, err)
	if len(page.Conversations) != 0 || page.More {
		t.Errorf("behind the last: %d, more %t", len(page.Conversations), page.More)
	}
	ahead := conversation.Position{Start: march.AddDate(1, 0, 0), ID: last.ID}
	page, err = c.ByTime(t.Context(), from, to, conversation.PageRequest{After: ahead})
	ok(t, err)
	wantIDs(t, "after a position newer than the range", ids(page.Conversations), want)
}

func listTies(t *testing.T, c conversation.Catalog) {
	var list []conversation.Conversation
	for i := range 7 {
		list = append(list, makeConversation(fmt.Sprint("tie", i), march))
	}
	finish(t, c, newPerson(), list...)
	want := ids(sorted(list))
	for limit := 1; limit <= 8; limit++ {
		wantIDs(t, fmt.Sprint("limit ", limit), paged(t, byTime(t, c, march, march.Add(time.Hour)), limit), want)
	}
}

func listPerson(t *testing.T, c conversation.Catalog) {
	a, b := newPerson(), newPerson()
	mine, ours, hers := makeConversation("mine", march), makeConversation("ours", march.Add(time.Minute)), makeConversation("hers", march)
	finish(t, c, a, mine, ours)
	finish(t, c, b, ours, hers)
	for person, want := range map[teams.PersonID][]conversation.Conversation{a: {mine, ours}, b: {ours, hers}, newPerson(): nil} {
		page, err := c.ByPerson(t.Context(), person, march, march.Add(time.Hour), conversation.PageRequest{})
		ok(t, err)
		wantIDs(t, "person", ids(page.Conversations), ids(sorted(want)))
	}
	wantIDs(t, "everybody", paged(t, byTime(t, c, march, march.Add(time.Hour)), 0), ids(sorted([]conversation.Conversation{mine, ours, hers})))
}

// listThousand finishes windows of the sizes at which transactions are cut.
func listThousand(t *testing.T, c conversation.Catalog) {
	custodian := newPerson()
	var all []conversation.Conversation
	for i, n := range []int{0, 1, 98, 99, 100, 250, 502} {
		var list []conversation.Conversation
		for j := range n {
			list = append(list, makeConversation(fmt.Sprintf("%d-%d", n, j), march.Add(time.Duration(i)*time.Hour+time.Duration(j)*time.Second)))
		}
		finish(t, c, custodian, list...)
		all = append(all, list...)
	}
	want := ids(sorted(all))
	if len(want) != 1050 {
		t.Fatalf("%d conversations", len(want))
	}
	wantIDs(t, "by time", paged(t, byTime(t, c, march, march.AddDate(0, 0, 1)), 0), want)
	wantIDs(t, "by person", paged(t, func(r conversation.PageRequest) (conversation.Page, error) {
		return c.ByPerson(t.Context(), custodian, march, march.AddDate(0, 0, 1), r)
	}, 200), want)
}

func listFine(t *testing.T, c conversation.Catalog) {
	a, b := makeConversation("a", march), makeConversation("b", march.Add(time.Millisecond))
	finish(t, c, newPerson(), a, b)
	for _, q := range []struct {
		from, to time.Duration
		want     []conversation.Conversation
	}{
		{time.Nanosecond, time.Hour, []conversation.Conversation{b}},
		{0, time.Nanosecond, []conversation.Conversation{a}},
		{0, time.Millisecond, []conversation.Conversation{a}},
		{0, time.Millisecond + time.Nanosecond, []conversation.Conversation{b, a}},
		{time.Nanosecond, 2 * time.Nanosecond, nil},
	} {
		got := paged(t, byTime(t, c, march.Add(q.from), march.Add(q.to)), 0)
		wantIDs(t, fmt.Sprint("from ", q.from, " to ", q.to), got, ids(q.want))
	}
}

func listUnbounded(t *testing.T, c conversation.Catalog) {
	custodian, conv := newPerson(), makeConversation("a", march)
	finish(t, c, custodian, conv)
	far := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	page, err := c.ByPerson(t.Context(), custodian, time.Time{}, far, conversation.PageRequest{})
	ok(t, err)
	wantIDs(t, "by person", ids(page.Conversations), []conversation.ID{conv.ID})
	page, err = c.ByTime(t.Context(), time.Time{}, march.Add(time.Hour), conversation.PageRequest{})
	ok(t, err)
	wantIDs(t, "by time", ids(page.Conversations), []conversation.ID{conv.ID})
}

func listLimit(t *testing.T, c conversation.Catalog) {
	for _, limit := range []int{-1, conversation.MaxPage + 1} {
		r := conversation.PageRequest{Limit: limit}
		if _, err := c.ByTime(t.Context(), march, march.Add(time.Hour), r); err == nil {
			t.Errorf("by time: limit %d was taken", limit)
		}
		if _, err := c.ByPerson(t.Context(), newPerson(), march, march.Add(time.Hour), r); err == nil {
			t.Errorf("by person: limit %d was taken", limit)
		}
		if _, err := c.ByThread(t.Context(), makeConversation("a", march).ID.Thread(), r); err == nil {
			t.Errorf("by thread: limit %d was taken", limit)
		}
	}
}

func listThread(t *testing.T, c conversation.Catalog) {
	var days []conversation.Conversation
	for _, d := range []int{0, 40, 1, 400, 2} {
		days = append(days, makeConversation("long", march.AddDate(0, 0, d).Add(time.Duration(d)*time.Minute)))
	}
	for i, conv := range append(slices.Clone(days), makeConversation("other", march)) {
		s := conversation.Slice{}
		for range 3 {
			s = claimed(t, c, s, conversation.Claim{
				Conversation: conv, Add: makeObject(i), Receipt: &conversation.Receipt{Custodian: newPerson(), Window: "w"},
			})
		}
	}
	want := ids(sorted(days))
	for limit := 1; limit <= 6; limit++ {
		wantIDs(t, fmt.Sprint("limit ", limit), paged(t, func(r conversation.PageRequest) (conversation.Page, error) {
			return c.ByThread(t.Context(), days[0].ID.Thread(), r)
		}, limit), want)
	}
	page, err := c.ByThread(t.Context(), makeConversation("unknown", march).ID.Thread(), conversation.PageRequest{})
	ok(t, err)
	if len(page.Conversations) != 0 || page.More {
		t.Errorf("unknown thread: %v", page)
	}
}
