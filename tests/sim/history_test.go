package sim_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"steno/tests/sim"
)

func (f *fixture) thread(kind sim.Kind) sim.Thread {
	f.t.Helper()
	for _, th := range f.Threads() {
		if th.Kind == kind && slices.Contains(f.UsersIn(sim.RecordedEquities), th.Members[0]) {
			return th
		}
	}
	f.t.Fatalf("no %s", kind)
	return sim.Thread{}
}

// versions are those of one message, oldest first.
func (f *fixture) versions(th sim.ThreadID, id string) []sim.Version {
	return slices.DeleteFunc(f.History(), func(v sim.Version) bool { return v.Thread != th || v.MessageID != id })
}

func TestEveryChangeMakesANewVersion(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: -1})
	th := f.thread(sim.OneOnOne)
	must := func(m sim.Message, err error) sim.Message {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		f.clock.Advance(time.Minute)
		return m
	}
	m := must(f.Send(th.ID, th.Members[0], "<p>one</p>"))
	if m.ID != m.ETag {
		t.Errorf("a new message has id %s and etag %s", m.ID, m.ETag)
	}
	tags := []string{m.ETag}
	tags = append(tags, must(f.Edit(th.ID, m.ID, "<p>two</p>")).ETag)
	tags = append(tags, must(f.React(th.ID, m.ID, th.Members[1], "👍")).ETag)
	tags = append(tags, must(f.React(th.ID, m.ID, th.Members[1], "👍")).ETag)
	tags = append(tags, must(f.Delete(th.ID, m.ID)).ETag)
	versions := f.versions(th.ID, m.ID)
	if len(versions) != 5 {
		t.Fatalf("%d versions", len(versions))
	}
	for i, v := range versions {
		w := decode[chatMessage](t, v.Bytes)
		if w.ID != m.ID || w.ETag != tags[i] || v.ETag != tags[i] {
			t.Errorf("version %d has id %s, etag %s; want %s", i, w.ID, w.ETag, tags[i])
		}
		if (w.Edited != nil) != (i > 0) || (w.Deleted != nil) != (i == 4) || len(w.Reactions) != []int{0, 0, 1, 0, 0}[i] {
			t.Errorf("version %d is %s", i, v.Bytes)
		}
		if i > 0 && !versions[i-1].CurrentTo.Equal(v.CurrentFrom) {
			t.Errorf("version %d begins at %v, the one before ends at %v", i, v.CurrentFrom, versions[i-1].CurrentTo)
		}
	}
	if w := decode[chatMessage](t, versions[4].Bytes); w.Body.Content != "" {
		t.Errorf("deleted message still says %q", w.Body.Content)
	}
	if _, err := f.Edit(th.ID, m.ID, "again"); !errors.Is(err, sim.ErrNoMessage) {
		t.Errorf("edit of a deleted message: %v", err)
	}
}

func TestIdsAreUniqueInAThreadEvenWithinAMillisecond(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: -1})
	a, b := f.thread(sim.OneOnOne), f.thread(sim.GroupChat)
	seen := map[string]bool{}
	for range 5 {
		m, err := f.Send(a.ID, a.Members[0], "x")
		if err != nil || seen[m.ID] {
			t.Fatalf("id %s twice, %v", m.ID, err)
		}
		seen[m.ID] = true
	}
	m, err := f.Send(b.ID, b.Members[0], "x")
	if err != nil || !seen[m.ID] {
		t.Errorf("id %s in another thread, %v: ids should collide between threads", m.ID, err)
	}
}

func TestOnlyMembersCanSend(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: -1})
	th := f.thread(sim.OneOnOne)
	if _, err := f.Send(th.ID, f.Outsiders()[1].ID, "x"); err == nil {
		t.Error("a stranger sent")
	}
	if _, err := f.Send("19:nowhere@thread.v2", th.Members[0], "x"); err == nil {
		t.Error("sent to nowhere")
	}
}

func TestEveryParticipantsMailboxHoldsTheSameBytes(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: -1})
	th := f.thread(sim.GroupChat)
	m, err := f.Send(th.ID, th.Members[0], "<p>Zoë said 👍 & left</p>")
	if err != nil {
		t.Fatal(err)
	}
	want := f.versions(th.ID, m.ID)[0].Bytes
	copies := 0
	for _, p := range th.Members {
		if got := f.page(export(p)).Value; len(got) == 1 && bytes.Equal(got[0], want) {
			copies++
		}
	}
	if copies != len(th.Members) {
		t.Errorf("%d of %d mailboxes hold the message", copies, len(th.Members))
	}
}

func TestNewMemberHoldsOnlyWhatComesLater(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: -1})
	th := f.thread(sim.GroupChat)
	var joins sim.PersonID
	for _, p := range f.UsersIn(sim.RecordedRates) {
		if !slices.Contains(th.Members, p) {
			joins = p
		}
	}
	send := func(text string) {
		t.Helper()
		if _, err := f.Send(th.ID, th.Members[0], text); err != nil {
			t.Fatal(err)
		}
		f.clock.Advance(time.Second)
	}
	send("before")
	if err := f.Join(th.ID, joins); err != nil {
		t.Fatal(err)
	}
	send("between")
	if err := f.Leave(th.ID, joins); err != nil {
		t.Fatal(err)
	}
	send("after")
	got := f.messages(f.all(export(joins)))
	slices.SortFunc(got, func(a, b chatMessage) int { return strings.Compare(a.ID, b.ID) })
	if len(got) != 3 || got[0].MessageType != "systemEventMessage" || got[1].Body.Content != "between" || got[2].MessageType != "systemEventMessage" {
		t.Errorf("got %+v", got)
	}
}

func TestTombstoneLeavesTheExportAfter21Days(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: -1})
	th := f.thread(sim.OneOnOne)
	m, err := f.Send(th.ID, th.Members[0], "x")
	if err != nil {
		t.Fatal(err)
	}
	f.clock.Advance(time.Hour)
	if _, err := f.Delete(th.ID, m.ID); err != nil {
		t.Fatal(err)
	}
	ends := f.versions(th.ID, m.ID)[1].CurrentTo
	f.clock.Advance(21*24*time.Hour - time.Millisecond)
	if n := len(f.all(export(th.Members[0]))); n != 1 {
		t.Errorf("%d messages just before", n)
	}
	f.clock.Advance(time.Millisecond)
	if n := len(f.all(export(th.Members[0]))); n != 0 || !f.clock.Now().Equal(ends) {
		t.Errorf("%d messages at %v, tombstone ends at %v", n, f.clock.Now(), ends)
	}
}

func TestRetainedExportHoldsOldTextsUnderAPolicyOnly(t *testing.T) {
	for _, policy := range []bool{false, true} {
		f := newFixture(t, sim.Config{Messages: -1, Retention: policy})
		th := f.thread(sim.OneOnOne)
		m, err := f.Send(th.ID, th.Members[0], "first")
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range []func() (sim.Message, error){
			func() (sim.Message, error) { return f.Edit(th.ID, m.ID, "second") },
			func() (sim.Message, error) { return f.React(th.ID, m.ID, th.Members[1], "like") },
			func() (sim.Message, error) { return f.Delete(th.ID, m.ID) },
		} {
			f.clock.Advance(time.Second)
			if _, err := change(); err != nil {
				t.Fatal(err)
			}
		}
		got := f.messages(f.all("/users/" + string(th.Members[0]) + "/chats/getAllRetainedMessages?$top=1"))
		var texts []string
		for _, g := range got {
			texts = append(texts, g.Body.Content)
		}
		if want := "first second"; policy != (strings.Join(texts, " ") == want) {
			t.Errorf("policy %v: retained %q", policy, texts)
		}
	}
}

func TestPeopleOutsideEveryScopeGroupTalkAmongThemselvesEvenInTheSmallestHistory(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 10, People: sim.MinPeople})
	inScope := append(f.UsersIn(sim.RecordedEquities), f.UsersIn(sim.RecordedRates)...)
	private, recorded := 0, 0
	for _, v := range f.History() {
		if slices.ContainsFunc(v.Participants, func(p sim.PersonID) bool { return slices.Contains(inScope, p) }) {
			recorded++
		} else {
			private++
		}
	}
	if private < 2 || recorded < 3 {
		t.Errorf("%d versions private, %d of recorded people", private, recorded)
	}
}

func TestHistoryHoldsEveryKindOfMessage(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 8_000})
	all := map[string]int{}
	smallest, largest := 1<<20, 0
	for _, v := range f.History() {
		b := string(v.Bytes)
		// A damaged escape decodes to the replacement character.
		if m := decode[chatMessage](t, v.Bytes); strings.ContainsRune(m.Body.Content, '\uFFFD') {
			t.Errorf("text of %s is damaged: %s", m.ID, v.Bytes)
		}
		smallest, largest = min(smallest, len(b)), max(largest, len(b))
		for _, mark := range []string{
			"@unq.gbl.spaces", "19:meeting_", "@thread.tacv2", `"federatedUser"`, `"anonymousGuest"`, `"bot"`,
			`<at id=`, `"contentType":"reference"`, "Microsoft Teams Chat Files/term sheet.pdf", "/hostedContents/", "onerror", "<script>",
			"callStartedEventMessageDetail", "callEndedEventMessageDetail", "membersAddedEventMessageDetail", "membersDeletedEventMessageDetail",
			"chatRenamedEventMessageDetail", `"dlpAction"`, `"urgent"`, `"contentType":"text"`, `"replyToId":"`, `"reactionAdded"`,
			"👩‍💻", `\ud83d`, `\u003C`, "東京",
		} {
			if strings.Contains(b, mark) {
				all[mark]++
			} else if all[mark] == 0 {
				all[mark] = 0
			}
		}
	}
	for mark, n := range all {
		if n == 0 {
			t.Errorf("no message has %s", mark)
		}
	}
	if smallest < 500 || largest > 8000 {
		t.Errorf("messages are between %d and %d bytes", smallest, largest)
	}
}

func TestLiveTrafficRunsUntilItsContextEnds(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 100})
	before := len(f.History())
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.Live(ctx, 2000); err != nil {
			t.Error(err)
		}
	})
	deadline := time.After(20 * time.Second)
	for len(f.History()) < before+200 {
		select {
		case <-deadline:
			t.Error("nothing happens")
			cancel()
			wg.Wait()
			return
		default:
			f.get(export(f.UsersIn(sim.RecordedEquities)[0]))
		}
	}
	cancel()
	wg.Wait()
	if err := f.Live(t.Context(), 0); err == nil {
		t.Error("a rate of nothing is accepted")
	}
}

func TestLiveTrafficLeavesAConsistentTruth(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 200})
	for range 3000 {
		f.clock.Advance(37 * time.Millisecond)
		f.Step()
	}
	inScope := append(f.UsersIn(sim.RecordedEquities), f.UsersIn(sim.RecordedRates)...)
	for _, p := range inScope {
		want := f.mailboxOf(p)
		for _, raw := range f.all(export(p)) {
			if _, ok := want[string(raw)]; !ok {
				t.Fatalf("unexpected %s", raw)
			}
			delete(want, string(raw))
		}
		if len(want) > 0 {
			t.Errorf("%s lacks %d", p, len(want))
		}
	}
}
