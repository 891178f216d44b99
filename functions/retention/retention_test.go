package retention_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/functions/retention"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

var (
	old   = time.Date(2019, 1, 10, 15, 0, 0, 0, time.UTC) // six years are over
	fresh = today.AddDate(0, 0, -40)                      // they are not
)

func TestWhatIsDueIsDisposedOnRecordCertifiedAndLeavesATombstone(t *testing.T) {
	r := newRig(t)
	chat := r.chat(old, "canary", time.Time{}, false)
	call, leg := r.call(old.Add(time.Hour), time.Time{})
	young := r.chat(fresh, "young", time.Time{}, false)
	r.run()
	r.want("chat", gone, chat)
	r.want("call", gone, call, string(leg))
	r.want("young chat", kept, young)
	begun, done := r.events(custody.Dispose), r.events(custody.Disposed)
	for _, id := range []conversation.ID{chat, call} {
		if begun[string(id)].ID == "" || done[string(id)].ID == "" || begun[string(id)].ID >= done[string(id)].ID && begun[string(id)].At.After(done[string(id)].At) {
			t.Errorf("events of %s: %+v, %+v", id, begun[string(id)], done[string(id)])
		}
	}
	if d := done[string(call)].Detail; !strings.Contains(d, " units="+string(leg)+" ") || !strings.Contains(d, "objects=2") {
		t.Errorf("completion of the call: %s", d)
	}
	slice, err := r.catalog.Slice(t.Context(), chat)
	r.ok(err)
	tomb := slice.Conversation
	if d := tomb.Disposed; d.Ground != policy.GroundExpiry || d.Policy != "default" || d.Event != begun[string(chat)].ID || !d.At.Equal(today) {
		t.Errorf("tombstone %+v", d)
	}
	if s := asJSON(t, tomb); strings.Contains(s, "canary") || strings.Contains(s, string(ann)) {
		t.Errorf("tombstone names somebody: %s", s)
	}
	page, err := r.catalog.ByPerson(t.Context(), ann, conversation.Earliest, conversation.Latest, conversation.PageRequest{})
	r.ok(err)
	if len(page.Conversations) != 1 || page.Conversations[0].ID != young {
		t.Errorf("listed of ann: %+v", page.Conversations)
	}

	if certs, err := r.disposed.Certificates(t.Context(), today, today.AddDate(0, 0, 1)); err != nil || len(certs) != 0 {
		t.Errorf("a certificate before the day is over: %v, %v", certs, err)
	}
	r.pass(24 * time.Hour)
	r.run()
	certs, err := r.disposed.Certificates(t.Context(), today, today.AddDate(0, 0, 1))
	r.ok(err)
	if len(certs) != 1 {
		t.Fatalf("%d certificates", len(certs))
	}
	var said struct {
		Count    int
		ByPolicy map[string]int
		Disposed []struct{ Conversation, Event string }
	}
	r.ok(json.Unmarshal(certs[0].Text, &said))
	sum := sha256.Sum256(certs[0].Text)
	event := r.events(custody.Certified)["certificate-"+certs[0].ID]
	if said.Count != 2 || said.ByPolicy["default"] != 2 || event.Detail != "conversations=2 sha256="+hex.EncodeToString(sum[:]) || strings.Contains(string(certs[0].Text), string(ann)) {
		t.Errorf("certificate %s, event %+v", certs[0].Text, event)
	}
	for _, d := range said.Disposed {
		if begun[d.Conversation].ID != d.Event {
			t.Errorf("certified %+v, event %+v", d, begun[d.Conversation])
		}
	}
	if left, err := r.disposed.List(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("left on the list: %+v, %v", left, err)
	}
	r.pass(24 * time.Hour)
	r.run() // nothing is certified twice
	if n := len(r.events(custody.Certified)); n != 1 {
		t.Errorf("%d certificates on record", n)
	}
}

func TestAConversationIsDisposedOnTheDayItsTermEndsAndNotBefore(t *testing.T) {
	r := newRig(t)
	id := r.chat(today.AddDate(-6, 0, 0), "x", time.Time{}, false) // its day ends at midnight
	midnight := time.Date(2026, 3, 15, 0, 0, 0, 0, time.UTC)
	r.pass(midnight.Sub(today) - time.Second)
	r.run()
	r.want("a second before", kept, id)
	r.pass(time.Second)
	r.run()
	r.want("at midnight", gone, id)
}

func TestPoliciesMoveRetainUntilOnAndNeverBack(t *testing.T) {
	r := newRig(t)
	set := today.AddDate(1, 0, 0)
	id := r.chat(fresh, "x", set, true)
	name := func() string {
		list, err := r.blobs.List(t.Context(), string(r.tenant)+"/"+string(id)+"/")
		r.ok(err)
		return list[0].Name
	}()
	end := fresh.UTC().Truncate(24*time.Hour).AddDate(0, 0, 1)
	until := func() time.Time {
		p, err := r.blobs.Protection(t.Context(), name)
		r.ok(err)
		return p.Until
	}
	for _, step := range []struct {
		policies string
		want     time.Time
	}{
		{`[{"name":"short","keep":"P1M"}]`, set},
		{``, end.AddDate(6, 0, 0)},
		{`[{"name":"fx","desks":["fx"],"keep":"P10Y"}]`, end.AddDate(10, 0, 0)},
		{`[{"name":"other","desks":["rates"],"keep":"P20Y"}]`, end.AddDate(10, 0, 0)},
	} {
		policies, err := policy.ParseDataPolicies(step.policies)
		r.ok(err)
		r.config.Policies = policies
		r.run()
		if got := until(); !got.Equal(step.want) {
			t.Errorf("under %s: until %s, want %s", step.policies, got, step.want)
		}
	}
	if len(r.events(custody.Retain)) == 0 {
		t.Error("moving dates on left no event")
	}
}

func TestASweepThatOneRunDoesNotFinishIsFinishedByOthers(t *testing.T) {
	r := newRig(t)
	r.config.SweepFor = time.Nanosecond // a page a run
	const n = 2*conversation.MaxPage + 50
	var ids []conversation.ID
	for i := range n {
		ids = append(ids, r.chat(fresh.Add(-time.Duration(i)*time.Hour), "x", time.Time{}, false))
	}
	dated := func() (k int) {
		for _, id := range ids {
			list, err := r.blobs.List(t.Context(), string(r.tenant)+"/"+string(id)+"/")
			r.ok(err)
			p, err := r.blobs.Protection(t.Context(), list[0].Name)
			r.ok(err)
			if !p.Until.IsZero() {
				k++
			}
		}
		return k
	}
	for run, want := range []int{conversation.MaxPage, 2 * conversation.MaxPage, n, n} {
		r.run()
		if got := dated(); got != want {
			t.Errorf("after run %d: %d under a date, want %d", run+1, got, want)
		}
	}
	w, err := r.disposed.Sweep(t.Context())
	if err != nil || w.Under != "" || !w.At.Equal(today) || w.Policies != r.config.Policies.Digest() {
		t.Errorf("the sweep is not complete: %+v, %v", w, err)
	}
}

func TestPacksOfTheRecorderAreBroughtUnderThePolicyByTheNextRun(t *testing.T) {
	r := newRig(t)
	r.run() // the sweep of this configuration is done
	_, leg := r.call(today.Add(-time.Hour), time.Time{})
	r.run()
	list, err := r.blobs.List(t.Context(), string(r.tenant)+"/"+string(leg)+"/")
	r.ok(err)
	for _, o := range list {
		p, err := r.blobs.Protection(t.Context(), o.Name)
		r.ok(err)
		if want := today.Add(-time.Hour).AddDate(6, 0, 0); !p.Until.Equal(want) {
			t.Errorf("until %s, want %s", p.Until, want)
		}
	}
}

func TestAPolicyThatWaitsForAnEventDisposesNothingBeforeIt(t *testing.T) {
	r := newRig(t)
	policies, err := policy.ParseDataPolicies(`[{"name":"contract","desks":["fx"],"keep":"P1Y","starts":"contract-ended"}]`)
	r.ok(err)
	r.config.Policies = policies
	id := r.chat(old, "x", time.Time{}, false)
	r.run()
	r.want("without the event", kept, id)
	r.ok(r.disposed.RecordEvent(t.Context(), string(id), "contract-ended", today.AddDate(-1, 0, 1)))
	r.run()
	r.want("a year less a day after it", kept, id)
	r.pass(48 * time.Hour)
	r.run()
	r.want("a year after it", gone, id)
}

func TestHeldItemSurvivesExpiryAndErasureUntilTheGracePeriodIsOver(t *testing.T) {
	r := newRig(t)
	id := r.chat(old, "x", time.Time{}, false)
	m := r.matter(id)
	erasure := r.agreed(policy.ActionErase, today.Add(-8*24*time.Hour), nil, string(id))
	r.run()
	r.want("held", kept, id)
	list, err := r.blobs.List(t.Context(), string(r.tenant)+"/"+string(id)+"/")
	r.ok(err)
	if p, err := r.blobs.Protection(t.Context(), list[0].Name); err != nil || !p.Held {
		t.Errorf("storage does not hold it: %+v, %v", p, err)
	}
	p, err := r.approved.Get(t.Context(), erasure.Digest)
	r.ok(err)
	if p.State != policy.ProposalRefused || !strings.Contains(p.Outcome, "Art. 17(3)(e)") || r.events(custody.EraseRefused)[p.Digest].Reason != p.Outcome {
		t.Errorf("erasure of a held item: %s, %q, event %+v", p.State, p.Outcome, r.events(custody.EraseRefused)[p.Digest])
	}
	r.release(m, r.now())
	r.pass(policy.DefaultGrace - time.Second)
	r.run()
	r.want("in the grace period", kept, id)
	r.pass(time.Second)
	r.run()
	r.want("after it", gone, id)
	if again, err := r.matters.Get(t.Context(), m.ID); err != nil || again.State != policy.MatterLifted {
		t.Errorf("matter %+v, %v", again, err)
	}
}

func TestWhatIsCapturedAfterwardsIsHeldTooAndOneOfTwoMattersIsEnough(t *testing.T) {
	r := newRig(t)
	m, err := policy.Place(policy.Matter{Title: "Case", Custodians: []teams.PersonID{ann}, From: fresh.AddDate(0, 0, -1)}, carol, r.now())
	r.ok(err)
	r.ok(r.matters.Insert(t.Context(), m))
	before := r.chat(old, "x", time.Time{}, false)
	r.run()
	r.want("before the matter's time", gone, before)
	late := r.chat(fresh, "y", time.Time{}, false)
	r.run()
	held := func(id conversation.ID) bool {
		list, err := r.blobs.List(t.Context(), string(r.tenant)+"/"+string(id)+"/")
		r.ok(err)
		p, err := r.blobs.Protection(t.Context(), list[0].Name)
		r.ok(err)
		return p.Held
	}
	if !held(late) {
		t.Error("what was captured after the hold is not held")
	}
	second := r.matter(late)
	stored, err := r.matters.Get(t.Context(), m.ID)
	r.ok(err)
	r.release(stored, r.now())
	r.pass(policy.DefaultGrace)
	r.run()
	if !held(late) {
		t.Error("one matter was released and the other's hold went with it")
	}
	r.release(second, r.now())
	r.pass(policy.DefaultGrace)
	r.run()
	if held(late) {
		t.Error("nothing protects it and storage holds it")
	}
}

func TestAClockThatIsTenYearsAheadDestroysNothing(t *testing.T) {
	r := newRig(t)
	id, due := r.chat(fresh, "x", time.Time{}, false), r.chat(old, "y", time.Time{}, false)
	r.storageAt = today
	r.pass(10 * 365 * 24 * time.Hour)
	r.run()
	r.want("not due by the true clock", kept, id)
	r.want("due by either clock", kept, due)
	if !r.logs.has("alarm=clock") {
		t.Error("no alarm")
	}
	r.at = today
	r.run()
	r.want("due, when the clock is right again", gone, due)
}

func TestClocksMayDifferByFiveMinutesToTheSecond(t *testing.T) {
	for _, sign := range []time.Duration{1, -1} {
		r := newRig(t)
		id := r.chat(old, "x", time.Time{}, false)
		r.storageAt = today.Add(sign * (retention.MaxSkew + time.Second))
		r.run()
		r.want("a second more", kept, id)
		r.storageAt = today.Add(sign * retention.MaxSkew)
		r.run()
		r.want("five minutes", gone, id)
	}
}

func TestAnAlteredDateInTheCatalogDestroysNothing(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	chat := r.chat(fresh, "x", time.Time{}, false)
	slice, err := r.catalog.Slice(ctx, chat)
	r.ok(err)
	conv := slice.Conversation
	conv.Start, conv.First, conv.Last = old, old, old
	r.ok(r.catalog.Claim(ctx, slice, conversation.Claim{Conversation: conv}))
	r.ok(r.catalog.FinishWindow(ctx, conversation.WindowDone{Window: conversation.Window{Custodian: ann, Pass: 1, From: old, To: today}}, []conversation.Conversation{conv}))
	// Of a call somebody rewrites every date there is: facts, leg, listing, and the day in
	// the id.
	id, leg := r.call(today.Add(-50*24*time.Hour), time.Time{})
	call, err := r.catalog.Call(ctx, id.Thread())
	r.ok(err)
	c, l := call.Conversation, call.Legs[0]
	c.ID, c.Start, c.First, c.Last = conversation.IDOf(id.Thread(), old), old, old, old
	l.Started, l.To = old, old
	r.ok(r.catalog.SaveCall(ctx, call, c, l))
	r.ok(r.catalog.ListCall(ctx, c))
	r.run()
	r.want("chat", kept, chat)
	r.want("call", kept, c.ID, string(leg))
	if !r.logs.has("evidence does not") {
		t.Error("nobody was told that the catalog and evidence differ")
	}
}

func TestADateOfStorageOutlastsThePolicy(t *testing.T) {
	r := newRig(t)
	id := r.chat(old, "x", today.Add(time.Hour), false)
	r.run()
	r.want("under its date", kept, id)
	r.pass(time.Hour)
	r.run()
	r.want("when it has passed", gone, id)
}

// lateHold places a hold at the moment the disposition's event is durable.
type lateHold struct {
	custody.Trail
	place func()
}

func (l *lateHold) Insert(ctx context.Context, r custody.Record) error {
	err := l.Trail.Insert(ctx, r)
	if r.Action == custody.Dispose && l.place != nil {
		l.place()
		l.place = nil
	}
	return err
}

func TestAHoldPlacedBetweenPlanAndDeletionStopsIt(t *testing.T) {
	r := newRig(t)
	id := r.chat(old, "x", time.Time{}, false)
	var m policy.Matter
	s := r.stores()
	s.Trail.Trail = &lateHold{r.trail, func() { m = r.matter(id) }}
	r.ok(r.retention(s).Run(t.Context()))
	if m.ID == "" {
		t.Fatal("the disposition never began")
	}
	r.want("held in the last moment", kept, id)
	r.run()
	r.want("at the next run", kept, id)
	r.release(m, r.now())
	r.pass(policy.DefaultGrace)
	r.run()
	r.want("after release and grace", gone, id)
}

func TestMoreThanTheCapIsNotDisposedWithoutTwoPersons(t *testing.T) {
	r := newRig(t)
	r.config.Cap = 0.02
	var ids []conversation.ID
	var names []string
	for i := range retention.CapFloor + 1 {
		id := r.chat(old.AddDate(0, 0, i), fmt.Sprint(i), time.Time{}, false)
		ids, names = append(ids, id), append(names, string(id))
	}
	all := func(what string, want fate) {
		t.Helper()
		for _, id := range ids {
			r.want(what, want, id)
		}
	}
	r.run()
	all("above the cap", kept)
	if !r.logs.has("alarm=disposal-cap") || r.events(custody.DisposeRefused)["disposal-cap"].ID == "" {
		t.Error("no alarm, or nothing on record")
	}
	r.proposed(policy.ActionDispose, r.now().Add(-time.Hour), nil, names...)
	r.run()
	all("asked for and not approved", kept)
	r.agreed(policy.ActionDispose, r.now().Add(-2*time.Hour), nil, names[1:]...)
	r.run()
	all("approved for another set", kept)
	r.agreed(policy.ActionDispose, r.now().Add(-90*time.Minute), nil, names...)
	r.run()
	all("approved", gone)
}

func TestTheCapCountsWhatWasBegunTheSameDay(t *testing.T) {
	r := newRig(t)
	r.config.Cap = 0.02
	for i := range retention.CapFloor {
		r.chat(old.AddDate(0, 0, i), fmt.Sprint(i), time.Time{}, false)
	}
	r.run()
	one := r.chat(old, "one more", time.Time{}, false)
	r.run()
	r.want("the same day", kept, one)
	r.pass(24 * time.Hour)
	r.run()
	r.want("the next day", gone, one)
}

var attested = map[string]string{policy.ParameterNotLocked: "true", policy.ParameterGround: "Art. 17(1)(d)"}

func TestErasureWaitsAndDestroysKeysAtOnceAndCiphertextWhenItMay(t *testing.T) {
	r := newRig(t)
	id := r.chat(fresh, "x", time.Time{}, false)
	p := r.agreed(policy.ActionErase, r.now().Add(-time.Hour), attested, string(id))
	r.pass(retention.MinErasureWait - time.Second)
	r.run()
	r.want("a second too early", kept, id)
	r.pass(time.Second)
	r.run()
	r.want("after the wait, under the date that the policy gave it", shredded, id)
	if e := r.events(custody.Erase)[string(id)]; e.Reason != p.Digest || !strings.Contains(e.Detail, "keys=1") {
		t.Errorf("event %+v", e)
	}
	r.pass(6 * 366 * 24 * time.Hour)
	r.run()
	r.want("when that has passed", gone, id)
	if e := r.events(custody.Disposed)[string(id)]; !strings.Contains(e.Detail, "ground=erasure") || strings.HasSuffix(e.Detail, "keys=") {
		t.Errorf("event %+v", e)
	}
}

func TestAnErasureWhoseApproverLostHerRoleIsRefused(t *testing.T) {
	r := newRig(t)
	id := r.chat(fresh, "y", time.Time{}, false)
	p := r.agreed(policy.ActionErase, r.now().Add(-2*time.Hour), attested, string(id))
	r.ok(r.roster.Apply(t.Context(), policy.Change{Closed: []policy.Period{{Person: dave, Role: policy.ComplianceOfficer, From: longAgo, To: r.now()}}}))
	r.pass(retention.MinErasureWait)
	r.run()
	r.want("the approver lost her role", kept, id)
	if p, err := r.approved.Get(t.Context(), p.Digest); err != nil || p.State != policy.ProposalRefused || !strings.Contains(p.Outcome, "no complianceOfficer any more") {
		t.Errorf("%s %q %v", p.State, p.Outcome, err)
	}
}

func TestAnErasureOfSeveralIsRefusedAsAWhole(t *testing.T) {
	r := newRig(t)
	a, b := r.chat(old, "a", today.Add(time.Hour), true), r.chat(fresh, "b", time.Time{}, false)
	r.agreed(policy.ActionErase, r.now().Add(-8*24*time.Hour), nil, string(a), string(b))
	r.run()
	r.want("which could be erased alone", kept, a)
	r.want("under a duty to retain", kept, b)
	c := r.chat(old, "c", time.Time{}, false)
	r.agreed(policy.ActionErase, r.now().Add(-8*24*time.Hour), nil, string(a), string(c))
	r.run() // c goes by expiry or with a
	r.want("shredded under its date", shredded, a)
	r.want("both grounds", gone, c)
	r.pass(time.Hour)
	r.run()
	r.want("when the date has passed", gone, a)
	if !slices.Contains(strings.Fields(r.events(custody.Disposed)[string(a)].Detail), "ground=erasure") {
		t.Errorf("event %+v", r.events(custody.Disposed)[string(a)])
	}
}
