package notified_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steno/functions/internal/intake"
	"steno/functions/internal/keyring"
	"steno/functions/notified"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/notification"
	"steno/shared/policy"
	"steno/shared/teams"
)

func TestNotifiedMessagesAreArchivedAsGraphSentThemInFewObjects(t *testing.T) {
	r := newRig(t)
	var keys []string
	for i := range 30 {
		v := version{group, fmt.Sprint(100 + i), fmt.Sprint(100 + i), string(alice), "hello"}
		if i%3 == 0 {
			v.thread = second
		}
		r.queue(r.item("alice", v))
		r.queue(r.item("bob", v))
		keys = append(keys, v.key())
	}
	r.drain()
	r.wantOnce(keys...)
	seals, reads := 0, 0
	records, err := r.trail.Range(t.Context(), time.Time{}, time.Now().Add(time.Hour), 1000)
	r.ok(err)
	for _, e := range records {
		switch e.Action {
		case custody.Sealed:
			seals++
		case custody.SystemRead:
			reads++
		}
	}
	if n := len(r.blobs.Names()); n > 4 || seals > 4 || reads != 1 {
		t.Errorf("60 notifications made %d blobs, %d seals and %d openings of the key; want one of each a conversation, custodian and run", n, seals, reads)
	}
	for _, s := range r.catalog.All() {
		if got := s.AllCustodians(); len(got) != 2 {
			t.Errorf("custodians are %v, want both who received it", got)
		}
		if un := s.Unconfirmed(time.Now().Add(time.Hour)); len(un) != s.Conversation.Versions {
			t.Errorf("%d of %d versions are unconfirmed; no export has run", len(un), s.Conversation.Versions)
		}
	}
	page, err := r.catalog.ByPerson(t.Context(), alice, day.AddDate(0, 0, -1), day.AddDate(0, 0, 2), conversation.PageRequest{})
	if err != nil || len(page.Conversations) != 2 {
		t.Errorf("found %d conversations of hers, %v", len(page.Conversations), err)
	}
}

// export lets the daily export bring versions, as function chatexport does.
func (r *rig) export(who teams.PersonID, versions ...version) {
	r.t.Helper()
	var items [][]byte
	for _, v := range versions {
		items = append(items, []byte(strings.Replace(string(v.bytes()), `"@odata.context":"x", `, "", 1)))
	}
	in := intake.New(intake.Config{System: "chatexport"}, r.roster, r.catalog, r.store(r.blobs), custody.Log{Trail: &r.trail}, nil)
	_, err := in.Keep(r.t.Context(), intake.Delivery{
		Window: conversation.Window{Tenant: tenant, Custodian: who, From: day, To: day.AddDate(0, 0, 1), Pass: 1}, Lane: conversation.LaneExport,
		Pages: []intake.Page{{Items: items, FetchedAt: time.Now()}},
	})
	r.ok(err)
}

// TestDuplicatesAndReorderingAddNothingAndAPlantedMessageIsFound is T22.
func TestDuplicatesAndReorderingAddNothingAndAPlantedMessageIsFound(t *testing.T) {
	r := newRig(t)
	first := version{group, "101", "101", string(bob), "since replaced"}
	edited := version{group, "101", "150", string(bob), "what stands"}
	planted := version{group, "102", "102", string(bob), "never said"}
	other := version{second, "101", "101", string(alice), "the same id in another thread"}
	order := []version{edited, other, first, planted}
	for range 5 {
		for _, v := range order {
			r.queue(r.item("alice", v))
		}
		slices.Reverse(order)
		r.drain()
	}
	r.export(alice, edited, other)
	r.export(bob, edited)
	r.wantOnce(first.key(), edited.key(), planted.key(), other.key())
	var found []string
	for _, s := range r.catalog.All() {
		for _, u := range s.Unconfirmed(time.Now().Add(time.Hour)) {
			found = append(found, fmt.Sprintf("%s|%s %t", u.Message, u.ETag, u.Superseded))
		}
	}
	slices.Sort(found)
	if !slices.Equal(found, []string{"101|101 true", "102|102 false"}) {
		t.Errorf("unconfirmed are %v, want the first words, superseded, and the planted message", found)
	}
}

// TestOutOfScopeContentIsDroppedBeforeAnyStoreSeesIt is T55: only a count is left.
func TestOutOfScopeContentIsDroppedBeforeAnyStoreSeesIt(t *testing.T) {
	r := newRig(t)
	said := func(thread, id string, from teams.PersonID) version {
		return version{thread, id, id, string(from), "canary-text"}
	}
	otherTeam := r.item("channels", said(channel, "1", carol))
	otherTeam.Resource = strings.Replace(otherTeam.Resource, string(team), "eeeeeeee-eeee-4eee-8eee-eeeeeeeeeeee", 1)
	r.queue(
		r.item("carol", said(group, "2", carol)),  // her own subscription, which is about to be ended
		r.item("carol", said(group, "3", alice)),  // whoever wrote it: it was for her alone
		r.item("chats", said(second, "4", carol)), // a chat that nobody recorded is in
		r.item("chats", said("19:"+string(carol)+"_"+"ffffffff-ffff-4fff-8fff-ffffffffffff@unq.gbl.spaces", "5", carol)),
		r.item("ended", said(group, "6", alice)), // of a subscription that was ended since
		otherTeam,
	)
	r.drain()
	r.wantOnce()
	if all := r.clear(); strings.Contains(all, "canary") || len(r.blobs.Names()) != 0 || len(r.catalog.All()) != 0 || len(r.parked) != 0 {
		t.Errorf("something is left of what is nobody's to keep:\n%s", all)
	}
	if !strings.Contains(r.log.String(), "out_of_scope=6") {
		t.Errorf("they were not counted: %s", r.log.String())
	}
}

func TestOfTheWholeTenantOnlyWhatRecordedPeopleHaveIsKept(t *testing.T) {
	r := newRig(t)
	oneOnOne := "19:" + string(carol) + "_" + string(bob) + "@unq.gbl.spaces"
	r.export(alice, version{second, "900", "900", string(alice), "known to the archive"})
	r.sent[second+"|900|900"] = []byte(strings.Replace(string(version{second, "900", "900", string(alice), "known to the archive"}.bytes()), `"@odata.context":"x", `, "", 1))
	by := map[string]teams.PersonID{}
	keep := func(sub string, v version, custodian teams.PersonID) {
		r.queue(r.item(sub, v))
		by[v.key()] = custodian
	}
	keep("chats", version{group, "1", "1", string(bob), "by somebody recorded"}, bob)
	keep("chats", version{oneOnOne, "2", "2", string(carol), "to somebody recorded"}, bob)
	keep("chats", version{second, "3", "3", string(carol), "in a chat that is known"}, alice)
	keep("channels", version{channel, "4", "4", string(carol), "in a recorded team"}, team)
	r.queue(r.item("chats", version{"19:third@thread.v2", "5", "5", string(carol), "in a chat of strangers"}))
	r.drain()
	r.wantOnce(append([]string{second + "|900|900"}, slices.Collect(mapsKeys(by))...)...)
	for _, s := range r.catalog.All() {
		for _, o := range s.Objects {
			for _, v := range o.Versions {
				key := string(s.Conversation.Thread) + "|" + string(v.Message) + "|" + string(v.ETag)
				if want, ok := by[key]; ok && o.Custodian != want {
					t.Errorf("%s is %s's, want %s's", key, o.Custodian, want)
				}
			}
		}
	}
}

func mapsKeys(m map[string]teams.PersonID) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func TestWhoeverIsRecordedNoMoreGetsNothingKept(t *testing.T) {
	r := newRig(t)
	v := version{group, "1", "1", string(bob), "canary-text"}
	r.queue(r.item("bob", v))
	r.ok(r.roster.Apply(t.Context(), policy.Change{At: day, Closed: []policy.Period{{
		Person: bob, Role: policy.RecordedUser, Desk: "d", From: day.AddDate(-1, 0, 0), To: time.Now().Add(-time.Second),
	}}}))
	r.drain()
	r.wantOnce()
}

// TestContentThatIsNotTheItemsOwnIsParkedWithAnAlarm is T21, and T20 where the content is
// opened: what was tampered with is never kept, and nothing of it is parked.
func TestContentThatIsNotTheItemsOwnIsParkedWithAnAlarm(t *testing.T) {
	r := newRig(t)
	a, b := version{group, "1", "1", string(bob), "canary-a"}, version{group, "2", "2", string(bob), "canary-b"}
	swapped := r.item("alice", a)
	swapped.Content = r.item("alice", b).Content
	flipped := r.item("alice", a)
	var content map[string]any
	r.ok(json.Unmarshal(flipped.Content, &content))
	content["dataSignature"] = "AAAA" + content["dataSignature"].(string)[4:]
	raw, err := json.Marshal(content)
	r.ok(err)
	flipped.Content = raw
	unknown := r.item("alice", a)
	unknown.Content = []byte(strings.Replace(string(unknown.Content), `"00000000000000000000000000000001"`, `"00000000000000000000000000000002"`, 1))
	foreign := r.item("alice", a)
	foreign.Tenant = "22222222-2222-4222-8222-222222222222"
	good := version{second, "3", "3", string(alice), "in their midst"}
	r.queue(swapped, flipped, unknown, foreign, r.item("alice", good))
	r.bus.put([]byte("no parcel"))
	r.drain()
	r.wantOnce(good.key())
	if len(r.parked) != 5 || strings.Count(r.log.String(), "alarm=notification") != 5 {
		t.Errorf("parked %d, alarms in:\n%s", len(r.parked), r.log.String())
	}
	if all := r.clear(); strings.Contains(all, "canary") {
		t.Error("plain text of what was parked lies in the open")
	}
	for _, p := range r.parked {
		if strings.Contains(p, "dataKey") {
			t.Errorf("content is parked: %s", p)
		}
	}
}

func TestALargeNotificationComesFromItsBlobAndTheBlobGoes(t *testing.T) {
	r := newRig(t)
	v := version{group, "1", "1", string(bob), strings.Repeat("x", 300<<10)}
	body, err := notification.EncodeParcel(notification.Parcel{Received: time.Now(), Items: []notification.Item{r.item("bob", v)}})
	r.ok(err)
	claim := evidence.NewObjectID()
	r.ok(r.claims.Create(t.Context(), notification.ClaimName(claim), body))
	pointer, err := notification.EncodeParcel(notification.Parcel{Received: time.Now(), Claim: claim})
	r.ok(err)
	r.bus.put(pointer)
	r.bus.put(pointer) // queued twice: the second finds nothing left to do
	r.drain()
	r.wantOnce(v.key())
	if _, err := r.claims.Size(t.Context(), notification.ClaimName(claim)); err != evidence.ErrNotFound {
		t.Errorf("the blob is still there: %v", err)
	}
}

// TestDyingAtAnyStepAndRunningAgainEndsInTheSameArchive kills the function at every call it
// makes to a store or the queue, before and after its effect.
func TestDyingAtAnyStepAndRunningAgainEndsInTheSameArchive(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			r := newRig(t)
			var keys []string
			for i := range 4 {
				v := version{[]string{group, second}[i%2], fmt.Sprint(i), "1", string(bob), "text"}
				r.queue(r.item("alice", v), r.item("bob", v))
				keys = append(keys, v.key())
			}
			tampered := r.item("alice", version{group, "9", "9", string(bob), "text"})
			tampered.ID = "8"
			r.queue(tampered)
			m := &mortality{dieAt: n, after: after}
			// It died, so what it says does not matter: what counts is what is left.
			_ = r.process(m).Run(t.Context())
			if m.calls < n {
				if n < 12 {
					t.Fatalf("a run makes only %d calls; the test reaches nothing", m.calls)
				}
				break
			}
			r.drain()
			r.wantOnce(keys...)
			if len(r.parked) == 0 {
				t.Error("what cannot be handled was not parked")
			}
			if t.Failed() {
				t.Fatalf("died at step %d, after=%t", n, after)
			}
		}
	}
}

func TestAnOutageIsWaitedForAndNotParked(t *testing.T) {
	r := newRig(t)
	v := version{group, "1", "1", string(bob), "text"}
	tampered := r.item("alice", version{group, "9", "9", string(bob), "text"})
	tampered.ID = "8"
	r.queue(r.item("bob", v), tampered)
	for range 12 { // more often than a queue delivers
		r.bus.release()
		r.ok(r.process(&mortality{down: true}).Run(t.Context()))
	}
	if len(r.parked) != 1 || r.bus.len() != 1 { // what cannot be handled is parked once
		t.Fatalf("%d parked, %d queued", len(r.parked), r.bus.len())
	}
	r.drain()
	r.wantOnce(v.key())
}

// TestALostKeyIsSaidAndItsCertificateForgotten: subscriptions then makes another pair.
func TestALostKeyIsSaidAndItsCertificateForgotten(t *testing.T) {
	r := newRig(t)
	_, cert := pair()
	r.ok(r.claims.Delete(t.Context(), string(tenant)+"/"+keyring.UnitPrefix+cert.ID+"/"+evidence.PartObject(keyring.UnitPrefix+cert.ID, 0)))
	r.queue(r.item("bob", version{group, "1", "1", string(bob), "text"}))
	r.drain()
	if certs, err := r.register.Certificates(t.Context()); err != nil || len(certs) != 0 || len(r.parked) != 1 {
		t.Errorf("%d certificates, %v, %d parked", len(certs), err, len(r.parked))
	}
}

func TestWithoutALaneNothingIsDrainedAndThatIsSaidOnce(t *testing.T) {
	r := newRig(t)
	var log strings.Builder
	n := notified.New(notified.Config{Tenant: tenant}, notified.Stores{}, logTo(&log))
	for range 3 {
		r.ok(n.Run(t.Context()))
	}
	if strings.Count(log.String(), "not configured") != 1 {
		t.Errorf("said: %s", log.String())
	}
}

// seeds is how many campaigns are run: few in every run of the tests, more by
// STENO_CAMPAIGN_SEEDS.
func seeds(t *testing.T, few int) int {
	s := os.Getenv("STENO_CAMPAIGN_SEEDS")
	if s == "" {
		return few
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("STENO_CAMPAIGN_SEEDS: %v", err)
	}
	return n
}

// TestNothingThatWasDeliveredIsLostAndNothingElseIsKept lets Graph lose, double, delay and
// reorder, and processes die, by seed.
func TestNothingThatWasDeliveredIsLostAndNothingElseIsKept(t *testing.T) {
	for seed := range uint64(seeds(t, 20)) {
		r, rng := newRig(t), rand.New(rand.NewPCG(seed, 7))
		var keys []string
		var late []notification.Item
		deaths, etag := 0, 100
		for range 6 { // rounds
			var items []notification.Item
			for range 5 {
				etag++
				v := version{[]string{group, second, channel}[rng.IntN(3)], fmt.Sprint(100 + rng.IntN(6)), fmt.Sprint(etag), string([]teams.PersonID{alice, bob, carol}[rng.IntN(3)]), "text"}
				subs := []string{"alice", "bob"}
				if v.thread == channel {
					subs = []string{"channels"}
				}
				if rng.IntN(4) == 0 { // nobody's to keep
					v.thread, v.text = "19:strangers@thread.v2", "canary-text"
					v.from = string(carol)
					subs = []string{"carol", "chats"}
				}
				delivered := false
				for _, sub := range subs {
					if rng.IntN(5) == 0 {
						continue // lost
					}
					delivered = true
					i := r.item(sub, v)
					items = append(items, i)
					if rng.IntN(4) == 0 {
						items = append(items, i)
					}
				}
				if delivered && v.text == "text" {
					keys = append(keys, v.key())
				}
			}
			items, late = append(items, late...), nil
			rng.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
			for len(items) > 0 {
				n := min(1+rng.IntN(4), len(items))
				if rng.IntN(6) == 0 {
					late = append(late, items[:n]...)
				} else {
					r.queue(items[:n]...)
				}
				items = items[n:]
			}
			m := &mortality{dieAt: rng.IntN(40), after: rng.IntN(2) == 0}
			_ = r.process(m).Run(t.Context()) // it may have died; what counts is what is left
			if m.dead {
				deaths++
			}
			r.bus.release()
		}
		if len(late) > 0 {
			r.queue(late...)
		}
		r.drain()
		slices.Sort(keys)
		r.wantOnce(slices.Compact(keys)...)
		if all := r.clear(); strings.Contains(all, "canary") || strings.Contains(all, "19:strangers") || len(r.parked) > 0 {
			t.Errorf("something of strangers is left, or %d are parked", len(r.parked))
		}
		if t.Failed() {
			t.Fatalf("seed %d, %d deaths", seed, deaths)
		}
	}
}

// stream is a queue on which a message arrives every second, for ever.
type stream struct{ r *rig }

func (s stream) Receive(ctx context.Context, _ int, wait time.Duration) ([]notification.Envelope, error) {
	if wait < time.Second {
		time.Sleep(wait)
		return nil, ctx.Err()
	}
	time.Sleep(time.Second)
	b, err := notification.EncodeParcel(notification.Parcel{Received: time.Now(), Items: []notification.Item{s.r.item("alice", version{group, "1", "1", string(bob), "text"})}})
	return []notification.Envelope{{Body: b, Done: func(context.Context) error { return nil }}}, err
}

func (stream) Send(context.Context, string, []byte, time.Time) error { return errDead }

// TestARunHandlesWhatIsThereAndDoesNotWaitForWhatIsStillToCome: people talk all day, and a
// run that waited for silence would file nothing before evening.
func TestARunHandlesWhatIsThereAndDoesNotWaitForWhatIsStillToCome(t *testing.T) {
	r := newRig(t)
	r.ok(r.roster.Apply(t.Context(), policy.Change{Opened: []policy.Period{{ // the bubble's clock starts in 2000
		Person: alice, Role: policy.RecordedUser, Desk: "old", From: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)}}}))
	synctest.Test(t, func(t *testing.T) {
		trail := custody.Log{Trail: &r.trail}
		n := notified.New(notified.Config{Tenant: tenant, On: true}, notified.Stores{
			Roster: r.roster, Register: r.register, Catalog: r.catalog, Inbox: stream{r}, Queue: stream{r}, Claims: r.claims,
			Intake: intake.New(intake.Config{System: "notified"}, r.roster, r.catalog, r.store(r.blobs), trail, logTo(&r.log)),
			Keys:   keyring.New(tenant, r.register, r.store(r.claims), evidence.Keeper{}, trail),
		}, logTo(&r.log))
		began := time.Now()
		r.ok(n.Run(t.Context()))
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("a run took %s", took)
		}
	})
	r.wantOnce(group + "|1|1")
}
