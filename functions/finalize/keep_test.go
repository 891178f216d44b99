package finalize_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"steno/functions/finalize"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/storetest"
)

func TestWhatIsSealedOfALegIsUnderTheLongestRetainUntilACallMayHave(t *testing.T) {
	r := newRig(t)
	policies, err := policy.ParseDataPolicies(`[{"name":"fx","desks":["fx"],"keep":"P20Y"},{"name":"fx-video","desks":["fx"],"modalities":["video"],"keep":"P30Y"},{"name":"chats","modalities":["chat"],"keep":"P90Y"}]`)
	if err != nil {
		t.Fatal(err)
	}
	var roster storetest.Roster
	if err := roster.Apply(t.Context(), policy.Change{Opened: []policy.Period{{Person: rita, Role: policy.RecordedUser, Desk: "fx", From: start.AddDate(-1, 0, 0)}}}); err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return r.now }
	r.f = finalize.New(finalize.Config{Tenant: home, Now: clock, Policies: policies, Roster: &roster}, r.evidence, &r.register, &r.people,
		custody.Log{Trail: &r.trail, Now: clock}, &r.queue, slog.New(slog.DiscardHandler))
	n := r.store(r.recording("call-1", "chain-1", rita)) // tails only: finalize makes the pack
	r.handle(started(n, invite("call-1", "chain-1", rita)))
	r.handle(n)
	found := map[string]bool{}
	for _, name := range r.blobs.Names() {
		p, err := r.blobs.Protection(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if want := n.At.AddDate(30, 0, 0); !p.Until.Equal(want) {
			t.Errorf("%s is under %s, want %s", name, p.Until, want)
		}
		found[name[strings.LastIndex(name, "/")+1:]] = true
	}
	for what, object := range map[string]string{"manifest": conversation.ManifestObject(n.Leg), "pack": conversation.PackObject(n.Leg, 0)} {
		if !found[object] {
			t.Errorf("the %s is not stored", what)
		}
	}
}

func TestALateNoticeOfADisposedCallBringsNothingBack(t *testing.T) {
	r := newRig(t)
	r.blobs.Clock = func() time.Time { return start.AddDate(7, 0, 0) }
	n := r.store(r.recording("call-1", "chain-1", rita))
	r.handle(started(n, invite("call-1", "chain-1", rita)))
	r.handle(n)
	id := r.call("chain-1").Conversation.ID
	if err := r.register.Bury(t.Context(), id, conversation.Disposed{At: start, Ground: policy.GroundExpiry}); err != nil {
		t.Fatal(err)
	}
	for _, name := range r.blobs.Names() {
		if err := r.blobs.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for _, late := range []conversation.LegNotice{n, started(n, invite("call-1", "chain-1", rita))} {
		body, err := conversation.EncodeNotice(late)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.f.Handle(t.Context(), body); err == nil {
			t.Errorf("a notice of kind %s was taken", late.Kind)
		}
	}
	if call := r.call("chain-1"); call.Conversation.Disposed == nil || len(call.Legs) != 0 || len(r.blobs.Names()) != 0 {
		t.Errorf("%+v, %d objects", call, len(r.blobs.Names()))
	}
}
