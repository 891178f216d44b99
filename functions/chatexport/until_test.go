package chatexport_test

import (
	"testing"
	"time"

	"steno/functions/chatexport"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/storetest"
)

func TestWhatIsStoredIsUnderTheRetainUntilOfItsCustodiansDesk(t *testing.T) {
	r := newRig(t)
	// The rig's people are on the desk d.
	policies, err := policy.ParseDataPolicies(`[{"name":"d-chats","desks":["d"],"modalities":["chat"],"keep":"P30Y"},{"name":"other","desks":["e"],"keep":"P50Y"}]`)
	if err != nil {
		t.Fatal(err)
	}
	r.talk()
	e := chatexport.New(chatexport.Config{Tenant: tenant, ClaimLease: r.lease, Policies: policies}, r.graph, r.roster, r.catalog, r.evidence(),
		chatexport.Registers{Lookbacks: &r.jobs, Failures: &r.failures}, custody.Log{Trail: &storetest.Trail{}}, r.queue, r.log)
	if err := e.Handle(t.Context(), message(t, window(alice))); err != nil {
		t.Fatal(err)
	}
	names := r.blobs.Names()
	for _, n := range names {
		p, err := r.blobs.Protection(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if want := day.AddDate(30, 0, 1); !p.Until.Equal(want) || p.Held {
			t.Errorf("%s: %+v, want until %s", n, p, want)
		}
	}
	if len(names) == 0 {
		t.Error("nothing was stored")
	}
}

func TestWhatWasDisposedDoesNotComeBackByTheNextPass(t *testing.T) {
	r := newRig(t)
	r.blobs.Clock = func() time.Time { return day.AddDate(7, 0, 0) } // no date is in the way
	r.talk()
	run := func(w conversation.Window) {
		t.Helper()
		if err := r.process(&mortality{}).Handle(t.Context(), message(t, w)); err != nil {
			t.Fatal(err)
		}
	}
	run(window(alice))
	for _, s := range r.catalog.All() {
		if err := r.catalog.Bury(t.Context(), s.Conversation.ID, conversation.Disposed{At: day, Ground: policy.GroundErasure}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range r.blobs.Names() {
		if err := r.blobs.Delete(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	for pass, w := range []conversation.Window{window(alice), window(bob), window(alice)} {
		w.Pass = pass + 1
		run(w)
	}
	if n := len(r.blobs.Names()); n != 0 {
		t.Errorf("%d objects came back", n)
	}
	for _, s := range r.catalog.All() {
		if s.Conversation.Disposed == nil || len(s.Objects)+len(s.Receipts)+len(s.Conversation.Participants) != 0 {
			t.Errorf("%+v", s)
		}
	}
	page, err := r.catalog.ByPerson(t.Context(), alice, conversation.Earliest, conversation.Latest, conversation.PageRequest{})
	if err != nil || len(page.Conversations) != 0 {
		t.Errorf("listed of alice: %+v, %v", page.Conversations, err)
	}
}
