package fixity_test

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"steno/functions/fixity"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/teams"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// claimed puts a batch into the catalog as chatexport does, and into storage if stored is
// set. It returns its object.
func (r *rig) claimed(thread string, stored bool, change func(plain []byte) []byte) custody.Object {
	r.t.Helper()
	sent := r.now
	id := conversation.IDOf(conversation.KeyOf(tenant, teams.ThreadID(thread)), sent)
	raw := fmt.Appendf(nil, `{"id":"1","etag":"e","chatId":%q,"messageType":"message","createdDateTime":%q,"from":{"user":{"id":"bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb","displayName":"B"}}}`, thread, sent.Format(time.RFC3339))
	m := conversation.ReadMessage(raw, alice)
	if m.Unclear != nil {
		r.t.Fatal(m.Unclear)
	}
	h := conversation.BatchHeader{Tenant: tenant, Conversation: id, Thread: teams.ThreadID(thread), Custodian: alice, Window: "0-1777000000000-1777000000001", Lane: "export", FetchedAt: sent}
	plain, err := conversation.EncodeBatch(h, []conversation.Message{m})
	if err != nil {
		r.t.Fatal(err)
	}
	slice, err := r.catalog.Slice(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	o := conversation.Object{Name: evidence.NewObjectID(), Custodian: alice, ClaimedAt: r.now, Seq: slice.Conversation.Objects, Versions: []conversation.Version{
		{VersionKey: m.VersionKey, Sent: sent, SHA256: sha256.Sum256(raw)},
	}}
	facts := slice.Conversation.With(h, []conversation.Message{m})
	facts.Objects++
	if err := r.catalog.Claim(r.t.Context(), slice, conversation.Claim{Conversation: facts, Add: &o}); err != nil {
		r.t.Fatal(err)
	}
	if err := r.catalog.FinishWindow(r.t.Context(), conversation.WindowDone{Window: conversation.Window{Custodian: alice, From: sent, To: sent.Add(time.Minute)}, At: r.now}, []conversation.Conversation{facts}); err != nil {
		r.t.Fatal(err)
	}
	bound := custody.Object{Unit: string(id), Object: o.Name, Seq: o.Seq}
	if stored {
		bound = r.put(string(id), o.Name, o.Seq, change(plain))
	}
	r.now = r.now.Add(time.Second)
	return bound
}

func asIs(b []byte) []byte { return b }

func (r *rig) seals() []custody.Object {
	var out []custody.Object
	for _, e := range r.records(custody.Sealed) {
		out = append(out, e.Objects...)
	}
	return out
}

func TestAnObjectThatNothingSealsIsVerifiedAndSealedLateOnce(t *testing.T) {
	r := newRig(t, fixity.Config{})
	want := r.claimed("19:first@thread.v2", true, asIs)
	never := r.claimed("19:never-stored@thread.v2", false, asIs)
	r.run()
	r.run()
	if got := r.seals(); len(got) != 0 {
		t.Fatalf("sealed while whoever claimed it had time: %+v", got)
	}
	for range 8 {
		r.run()
	}
	got := r.seals()
	if len(got) != 1 || got[0] != want {
		t.Fatalf("sealed %+v, want %+v once", got, want)
	}
	r.now = r.now.Add(40 * 24 * time.Hour) // what is no longer recent is looked at too
	late := r.claimed("19:second@thread.v2", true, asIs)
	r.now = r.now.Add(30 * 24 * time.Hour)
	for range 4 {
		r.run()
	}
	if got = r.seals(); len(got) != 2 || got[1] != late {
		t.Fatalf("sealed %+v, want %+v too", got, late)
	}
	r.wantAlarms(short(name(never)) + ": catalog-added") // after a week
	for _, e := range r.records(custody.Sealed) {
		if e.Reason != "late" || e.System != "fixity" {
			t.Errorf("%+v", e)
		}
	}
	if n := len(r.records(custody.SystemRead)); n != 2 {
		t.Errorf("%d events for two objects that were opened", n)
	}
}

func TestAnObjectThatIsSealedIsNotSealedAgain(t *testing.T) {
	r := newRig(t, fixity.Config{})
	o := r.claimed("19:first@thread.v2", true, asIs)
	r.event(custody.Event{Action: custody.Sealed, Item: o.Unit, Objects: []custody.Object{o}})
	for range 10 {
		r.run()
	}
	if got := r.seals(); len(got) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestAnObjectThatDoesNotHoldWhatTheCatalogSaysIsAnAlarmAndNotSealed(t *testing.T) {
	r := newRig(t, fixity.Config{})
	other := r.claimed("19:first@thread.v2", true, func(b []byte) []byte { b[len(b)-5] ^= 1; return b })
	broken := r.claimed("19:second@thread.v2", true, asIs)
	r.flip(name(broken))
	for range 6 {
		r.run()
	}
	if got := r.seals(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	r.wantAlarms(short(name(other))+": not-sealable", short(name(broken))+": not-sealable")
}
