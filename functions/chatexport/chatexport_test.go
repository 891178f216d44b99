package chatexport_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"steno/functions/chatexport"
	"steno/functions/internal/funchost"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/teams"
)

func TestEveryVersionIsArchivedOnceHoweverManyCustodiansReturnIt(t *testing.T) {
	r := newRig(t)
	keys := r.talk()
	for _, p := range []teams.PersonID{alice, bob, alice} {
		if err := r.process(&mortality{}).Handle(t.Context(), message(t, window(p))); err != nil {
			t.Fatal(err)
		}
	}
	r.wantOnce(keys...)
	r.wantAllBound()
	received := 0
	for _, s := range r.catalog.All() {
		for _, rc := range s.Receipts {
			if rc.Custodian != bob {
				t.Errorf("a receipt for %s, who had stored the versions herself", rc.Custodian)
			}
			received += len(rc.Versions)
		}
		if !slices.Contains(s.Conversation.Custodians, alice) || !slices.Contains(s.Conversation.Custodians, bob) {
			t.Errorf("custodians are %v, want both", s.Conversation.Custodians)
		}
	}
	if received != len(keys) {
		t.Errorf("Bob is on record for %d versions, want %d", received, len(keys))
	}
}

// TestDyingAtAnyStepAndRunningAgainEndsInTheSameArchive kills the process at every
// call it makes to a store, before and after the call's effect, and runs it again.
func TestDyingAtAnyStepAndRunningAgainEndsInTheSameArchive(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			r := newRig(t)
			keys := r.talk()
			m := &mortality{dieAt: n, after: after}
			err := r.process(m).Handle(t.Context(), message(t, window(alice)))
			if m.count() < n {
				if n < 8 {
					t.Fatalf("a run makes only %d calls; the test reaches nothing", m.count())
				}
				break
			}
			if err == nil && len(r.queue.take()) == 0 {
				t.Fatalf("step %d, after=%t: the run died and said it was done", n, after)
			}
			if err := r.process(&mortality{}).Handle(t.Context(), message(t, window(alice))); err != nil {
				t.Fatalf("step %d, after=%t: second run: %v", n, after, err)
			}
			r.wantOnce(keys...)
			if t.Failed() {
				t.Fatalf("died at step %d, after=%t", n, after)
			}
		}
	}
}

// TestDyingAndAnEditInBetweenLosesNothingThatStillStands is the hard case: the run
// dies, a message it had claimed is edited, and the bytes it promised can never be
// read again.
func TestDyingAndAnEditInBetweenLosesNothingThatStillStands(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; n < 40; n++ {
			r := newRig(t)
			r.graph.say(thread1, "101", "101", at(1), at(1), "since replaced", alice, bob)
			r.graph.say(thread1, "102", "102", at(2), at(2), "two", bob, alice)
			m := &mortality{dieAt: n, after: after}
			_ = r.process(m).Handle(t.Context(), message(t, window(alice))) // it died; what it says does not matter
			r.graph.edit("101", "999", at(5), "edited")
			r.queue.take()
			if err := r.process(&mortality{}).Handle(t.Context(), message(t, conversation.Window{
				Tenant: tenant, Custodian: alice, From: from, To: to, Pass: 2})); err != nil {
				t.Fatalf("step %d, after=%t: %v", n, after, err)
			}
			got := r.archived()
			r.wantVoids()
			if got[thread1+"|101|999"] != 1 || got[thread1+"|102|102"] != 1 || got[thread1+"|101|101"] > 1 {
				t.Fatalf("died at step %d, after=%t: archive holds %v", n, after, got)
			}
		}
	}
}

// TestACustodianCompletesWhatAnotherPromised: Alice's run dies between claim and blob;
// Bob has the same bytes and no reason to wait.
func TestACustodianCompletesWhatAnotherPromised(t *testing.T) {
	for n := 1; n < 20; n++ {
		r := newRig(t)
		r.lease = time.Hour
		keys := r.talk()
		_ = r.process(&mortality{dieAt: n}).Handle(t.Context(), message(t, window(alice)))
		r.queue.take()
		if err := r.process(&mortality{}).Handle(t.Context(), message(t, window(bob))); err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
		if back := r.queue.take(); len(back) != 0 {
			t.Fatalf("step %d: Bob's window was put back", n)
		}
		r.wantOnce(keys...)
	}
}

func TestAFreshClaimOfBytesNobodyHasAnyMoreIsWaitedFor(t *testing.T) {
	r := newRig(t)
	r.lease = time.Hour
	r.graph.say(thread1, "101", "101", at(1), at(1), "since replaced", alice, bob)
	r.graph.say(thread1, "102", "102", at(2), at(2), "two", bob, alice)
	// The calls of a first pass are Claim, Seal, Put: it dies with a claim and no blob.
	_ = r.process(&mortality{dieAt: 3}).Handle(t.Context(), message(t, window(alice)))
	r.queue.take()
	r.graph.edit("101", "999", at(5), "edited")
	if err := r.process(&mortality{}).Handle(t.Context(), message(t, window(bob))); err != nil {
		t.Fatal(err)
	}
	if back := r.queue.take(); len(back) != 1 {
		t.Fatalf("%d windows were put back, want Bob's", len(back))
	}
	done, err := r.catalog.FinishedWindows(t.Context(), bob, 1, from, to)
	if err != nil || len(done) != 0 {
		t.Fatalf("Bob's window is finished (%v, %v) though a version of it is only promised", done, err)
	}
}

func TestManyRunsAtOnceStoreEachVersionOnce(t *testing.T) {
	r := newRig(t)
	var keys []string
	people := []teams.PersonID{alice, bob}
	for i := range 120 {
		id := fmt.Sprint(1000 + i)
		thread := []string{thread1, thread2}[i%2]
		r.graph.say(thread, id, id, at(i%24), at(i%24), "text", people...)
		keys = append(keys, thread+"|"+id+"|"+id)
	}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			body := message(t, window(people[i%2]))
			for range 50 {
				if err := r.process(&mortality{}).Handle(t.Context(), body); err != nil {
					t.Error(err)
					return
				}
				done, err := r.catalog.FinishedWindows(t.Context(), people[i%2], 1, from, to)
				if err != nil {
					t.Error(err)
				}
				if len(done) > 0 {
					return
				}
			}
		})
	}
	group.Wait()
	r.wantOnce(keys...)
	r.wantAllBound()
}

func TestAWindowThatDoesNotFitOnePageIsCutAndNeverPaged(t *testing.T) {
	r := newRig(t)
	r.graph.top = 5
	var keys []string
	for i := range 60 {
		id := fmt.Sprint(1000 + i)
		sent := day.Add(time.Duration(i) * 17 * time.Minute)
		r.graph.say(thread1, id, id, sent, sent, "text", alice)
		keys = append(keys, thread1+"|"+id+"|"+id)
	}
	r.graph.answer = func(int) (msgraph.Page, error, bool) { return msgraph.Page{}, nil, false }
	if err := r.process(&mortality{}).Handle(t.Context(), message(t, window(alice))); err != nil {
		t.Fatal(err)
	}
	r.wantOnce(keys...)
	r.wantAllBound()
	done, err := r.catalog.FinishedWindows(t.Context(), alice, 1, from, to)
	if err != nil {
		t.Fatal(err)
	}
	reached := from
	for _, d := range done {
		if d.From.After(reached.Add(-conversation.Resolution)) && d.From.After(from) {
			t.Errorf("window starts at %s, behind %s: a message between would be lost", d.From, reached)
		}
		if d.Returned > 5 {
			t.Errorf("a finished window returned %d messages, more than a page", d.Returned)
		}
		reached = d.To
	}
	if !reached.Equal(to) {
		t.Errorf("finished windows reach %s, want %s", reached, to)
	}
}

// TestAMomentWithMoreThanAPageIsReadPageByPage: a second can hold more messages than
// a page, and then there is nothing left to cut.
func TestAMomentWithMoreThanAPageIsReadPageByPage(t *testing.T) {
	r := newRig(t)
	r.graph.top = 5
	var keys []string
	for i := range 23 {
		id := fmt.Sprint(1000 + i)
		r.graph.say(thread1, id, id, at(4), at(4), "text", alice)
		keys = append(keys, thread1+"|"+id+"|"+id)
	}
	if err := r.process(&mortality{}).Handle(t.Context(), message(t, window(alice))); err != nil {
		t.Fatal(err)
	}
	r.wantOnce(keys...)
}

func TestAnEditIsKeptBesideTheVersionBeforeIt(t *testing.T) {
	r := newRig(t)
	r.graph.say(thread1, "101", "101", at(1), at(1), "since replaced", alice)
	if err := r.process(&mortality{}).Handle(t.Context(), message(t, window(alice))); err != nil {
		t.Fatal(err)
	}
	r.graph.edit("101", "202", to.Add(time.Hour), "edited the next day")
	next := conversation.Window{Tenant: tenant, Custodian: alice, From: to.Add(-conversation.Overlap), To: to.Add(24 * time.Hour), Pass: 1}
	if err := r.process(&mortality{}).Handle(t.Context(), message(t, next)); err != nil {
		t.Fatal(err)
	}
	r.wantOnce(thread1+"|101|101", thread1+"|101|202")
	r.wantAllBound()
	if n := len(r.catalog.All()); n != 1 {
		t.Errorf("the edit made %d conversations, want it in the day the message was sent", n)
	}
}

func TestBadAnswersOfGraphLoseNothing(t *testing.T) {
	circle := msgraph.Page{Next: "circle"}
	for name, answer := range map[string]func(n int) (msgraph.Page, error, bool){
		"an empty page with a nextLink":       func(n int) (msgraph.Page, error, bool) { return msgraph.Page{Next: "skip=0"}, nil, n == 1 },
		"a nextLink in a circle":              func(n int) (msgraph.Page, error, bool) { return circle, nil, n <= 3 },
		"a nextLink to a foreign host":        func(n int) (msgraph.Page, error, bool) { return msgraph.Page{}, msgraph.ErrForeignLink, n == 1 },
		"an oversized or truncated page":      func(n int) (msgraph.Page, error, bool) { return msgraph.Page{}, msgraph.ErrPage, n == 1 },
		"throttling beyond all retries":       func(n int) (msgraph.Page, error, bool) { return msgraph.Page{}, &msgraph.Error{Status: 429}, n == 1 },
		"a server error beyond all retries":   func(n int) (msgraph.Page, error, bool) { return msgraph.Page{}, &msgraph.Error{Status: 504}, n == 1 },
		"an expired continuation, asked anew": func(n int) (msgraph.Page, error, bool) { return msgraph.Page{}, &msgraph.Error{Status: 400}, n == 1 },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			keys := r.talk()
			r.graph.answer = answer
			bodies := [][]byte{message(t, window(alice))}
			for len(bodies) > 0 {
				if err := r.process(&mortality{}).Handle(t.Context(), bodies[0]); err != nil {
					t.Fatal(err)
				}
				bodies = append(bodies[1:], r.queue.take()...)
			}
			r.wantOnce(keys...)
		})
	}
}

func TestWhatCannotBeReadAsAMessageIsKeptAsItIsOnce(t *testing.T) {
	r := newRig(t)
	odd := []string{
		`{"id":"1","etag":"1","chatId":"../../x","createdDateTime":"2026-03-02T01:00:00Z"}`,
		`{"id":17,"etag":"1","chatId":"19:a@thread.v2"}`,
		`{"etag":"1","chatId":"19:a@thread.v2","createdDateTime":"2026-03-02T01:00:00Z"}`,
		`["not","an","object"]`,
		`{"id":"x","etag":"1","chatId":"19:a@thread.v2","createdDateTime":"never"}`,
	}
	for _, raw := range odd {
		r.graph.messages[alice] = append(r.graph.messages[alice], item{at(1), []byte(raw)})
	}
	r.graph.say(thread1, "101", "101", at(1), at(1), "in their midst", alice)
	for pass := 1; pass <= 2; pass++ {
		w := window(alice)
		w.Pass = pass
		if err := r.process(&mortality{}).Handle(t.Context(), message(t, w)); err != nil {
			t.Fatal(err)
		}
	}
	total := 0
	for k, n := range r.archived() {
		if n != 1 {
			t.Errorf("%s is archived %d times", k, n)
		}
		total++
	}
	if total != len(odd)+1 {
		t.Errorf("%d items are archived, want %d", total, len(odd)+1)
	}
}

func TestAMessageWithFieldsNobodyKnowsKeepsThem(t *testing.T) {
	r := newRig(t)
	raw := `{"id":"5","etag":"5","chatId":"` + thread1 + `","messageType":"hologram","createdDateTime":"2026-03-02T01:00:00Z","fromTheFuture":{"x":[1,2,{}]}}`
	r.graph.messages[alice] = []item{{at(1), []byte(raw)}}
	if err := r.process(&mortality{}).Handle(t.Context(), message(t, window(alice))); err != nil {
		t.Fatal(err)
	}
	r.wantOnce(thread1 + "|5|5")
}

func TestForgedQueueMessagesAreParkedAndReadNothing(t *testing.T) {
	stranger := teams.PersonID("cccccccc-cccc-4ccc-8ccc-cccccccccccc")
	foreign := window(alice)
	foreign.Tenant = "22222222-2222-4222-8222-222222222222"
	before := window(alice)
	before.From, before.To = day.AddDate(-3, 0, 0), day.AddDate(-3, 0, 1)
	for name, body := range map[string][]byte{
		"not JSON":                           []byte("hello"),
		"an array":                           []byte("[]"),
		"an unknown field":                   []byte(strings.Replace(string(message(t, window(alice))), "{", `{"force":true,`, 1)),
		"another version":                    []byte(strings.Replace(string(message(t, window(alice))), `"stenoV":1`, `"stenoV":2`, 1)),
		"another tenant":                     message(t, foreign),
		"somebody not on the roster":         message(t, window(stranger)),
		"a time before anybody was recorded": message(t, before),
		"nothing":                            nil,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.talk()
			err := r.process(&mortality{}).Handle(t.Context(), body)
			if !errors.Is(err, funchost.ErrPoison) {
				t.Errorf("error is %v, want one that parks the message", err)
			}
			if r.graph.asked != 0 || len(r.blobs.Names()) != 0 {
				t.Errorf("%d requests and %d blobs came of it", r.graph.asked, len(r.blobs.Names()))
			}
		})
	}
}

func TestAWindowIsReadOnlyAsFarAsItsCustodianWasRecorded(t *testing.T) {
	r := newRig(t)
	noon := at(12)
	if err := r.roster.Apply(t.Context(), policy.Change{Closed: []policy.Period{{
		Person: alice, Role: policy.RecordedUser, Desk: "d", From: day.AddDate(-1, 0, 0), To: noon}}}); err != nil {
		t.Fatal(err)
	}
	r.graph.say(thread1, "101", "101", at(11), at(11), "in the morning", alice)
	r.graph.say(thread1, "102", "102", at(13), at(13), "in the afternoon", alice)
	if err := r.process(&mortality{}).Handle(t.Context(), message(t, window(alice))); err != nil {
		t.Fatal(err)
	}
	r.wantOnce(thread1 + "|101|101")
}

func TestAPeriodThatJustOpenedIsNotHiddenByWhatIsRemembered(t *testing.T) {
	const carol = teams.PersonID("dddddddd-dddd-4ddd-8ddd-dddddddddddd")
	r := newRig(t)
	r.graph.say(thread1, "101", "101", at(1), at(1), "one", carol)
	e := r.process(&mortality{})
	if err := e.Handle(t.Context(), message(t, window(carol))); !errors.Is(err, funchost.ErrPoison) {
		t.Fatalf("error is %v before she is recorded", err)
	}
	if err := r.roster.Apply(t.Context(), policy.Change{Opened: []policy.Period{{
		Person: carol, Role: policy.RecordedUser, Desk: "d", From: day.AddDate(0, 0, -1)}}}); err != nil {
		t.Fatal(err)
	}
	if err := e.Handle(t.Context(), message(t, window(carol))); err != nil {
		t.Fatal(err)
	}
	r.wantOnce(thread1 + "|101|101")
}

func TestAWindowThatCannotBeReadIsKeptWithItsReason(t *testing.T) {
	for status, parked := range map[int]bool{402: true, 403: false, 404: false, 412: true} {
		r := newRig(t)
		r.graph.answer = func(int) (msgraph.Page, error, bool) {
			return msgraph.Page{}, &msgraph.Error{Status: status, Code: "MailboxNotEnabledForRESTAPI", RequestID: "abc"}, true
		}
		for range 2 {
			err := r.process(&mortality{}).Handle(t.Context(), message(t, window(alice)))
			if errors.Is(err, funchost.ErrPoison) != parked || parked == (err == nil) {
				t.Errorf("status %d: error is %v", status, err)
			}
			if parked && (!strings.Contains(err.Error(), fmt.Sprint(status)) || !strings.Contains(err.Error(), "abc")) {
				t.Errorf("status %d: error is %v, want it parked with status and request id", status, err)
			}
		}
		failures, err := r.failures.AllFailures(t.Context())
		if err != nil || len(failures) != 1 {
			t.Fatalf("status %d: failures are %+v, %v", status, failures, err)
		}
		f := failures[0]
		if f.Window != window(alice) || f.Status != status || f.Code != "MailboxNotEnabledForRESTAPI" || f.Since.IsZero() || f.At.Before(f.Since) {
			t.Errorf("status %d: %+v is kept", status, f)
		}
		if n := len(r.events(custody.Captured)); n != 1 {
			t.Errorf("status %d: %d custody events, want one for the first failure", status, n)
		}
	}
}

func TestAWindowIsParkedAfterItsLastAttempt(t *testing.T) {
	r := newRig(t)
	r.graph.answer = func(int) (msgraph.Page, error, bool) { return msgraph.Page{}, &msgraph.Error{Status: 503}, true }
	body, runs := message(t, window(alice)), 0
	for {
		runs++
		err := r.process(&mortality{}).Handle(t.Context(), body)
		if errors.Is(err, funchost.ErrPoison) {
			break
		}
		if err != nil || runs > 100 {
			t.Fatalf("run %d: %v", runs, err)
		}
		body = r.queue.take()[0]
	}
	if failures, err := r.failures.AllFailures(t.Context()); err != nil || len(failures) != 1 {
		t.Errorf("failures are %+v, %v", failures, err)
	}
	if runs != chatexport.MaxAttempts+1 {
		t.Errorf("parked after %d runs, want %d", runs, chatexport.MaxAttempts+1)
	}
}

func TestAWindowWhoseTimeIsUpIsPutBackAndGoesOnWhereItStopped(t *testing.T) {
	r := newRig(t)
	r.graph.top = 5
	var keys []string
	for i := range 40 {
		id := fmt.Sprint(1000 + i)
		sent := day.Add(time.Duration(i) * 30 * time.Minute)
		r.graph.say(thread1, id, id, sent, sent, "text", alice)
		keys = append(keys, thread1+"|"+id+"|"+id)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r.graph.answer = func(n int) (msgraph.Page, error, bool) {
			if n < 8 {
				return msgraph.Page{}, nil, false
			}
			<-ctx.Done()
			return msgraph.Page{}, ctx.Err(), true
		}
		if err := r.process(&mortality{}).Handle(ctx, message(t, window(alice))); err != nil {
			t.Fatal(err)
		}
	})
	done, err := r.catalog.FinishedWindows(t.Context(), alice, 1, from, to)
	if err != nil || len(done) == 0 {
		t.Fatalf("finished windows %v, %v: the run was to get somewhere", done, err)
	}
	r.graph.answer = nil
	back := r.queue.take()
	if len(back) != 1 {
		t.Fatalf("%d windows were put back, want 1", len(back))
	}
	r.graph.windows = nil
	if err := r.process(&mortality{}).Handle(t.Context(), back[0]); err != nil {
		t.Fatal(err)
	}
	for _, w := range r.graph.windows {
		if len(w.Uncovered(done)) == 0 {
			t.Errorf("the second run read %s to %s again", w.From, w.To)
		}
	}
	r.wantOnce(keys...)
}
