package export_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"steno/functions/export"
	"steno/functions/internal/funchost"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/teams"
)

func TestAnExportDeliveredTwiceIsBuiltOnce(t *testing.T) {
	r := newRig(t)
	id := r.chat(1)
	r.sequence()
	o, _ := r.built(r.order(policy.ExportOrder{}, id))
	events, parts := len(r.all()), len(r.parts.Names())
	r.must(r.handle(o))
	again, err := r.orders.Get(t.Context(), o.ID)
	r.must(err)
	if again.Revision != o.Revision || len(r.all()) != events || len(r.parts.Names()) != parts {
		t.Errorf("built again: %+v", again)
	}
}

// TestOrdersInAStateThatIsNotToBeBuiltAreParked is T43 where it comes to building.
func TestOrdersInAStateThatIsNotToBeBuiltAreParked(t *testing.T) {
	r := newRig(t)
	id := r.chat(1)
	r.sequence()
	for what, change := range map[string]func(*policy.ExportOrder){
		"not approved":             func(o *policy.ExportOrder) { o.State = policy.ExportRequested },
		"failed":                   func(o *policy.ExportOrder) { o.State = policy.ExportFailed },
		"expired":                  func(o *policy.ExportOrder) { o.State = policy.ExportExpired },
		"by somebody without role": func(o *policy.ExportOrder) { o.Requester = rita },
		"approved by nobody's word": func(o *policy.ExportOrder) {
			for i := range policy.MaxExportAlone {
				o.Conversations = append(o.Conversations, fmt.Sprintf("%032d-20260309", i))
			}
			o.Request, o.Approver = strings.Repeat("a", 64), cora
		},
	} {
		o := r.order(policy.ExportOrder{}, id)
		change(&o)
		r.must(r.orders.Replace(t.Context(), o))
		events := len(r.all())
		if err := r.handle(o); !errors.Is(err, funchost.ErrPoison) || len(r.parts.Names()) != 0 || len(r.queue.sent) != 0 || len(r.all()) != events {
			t.Errorf("%s: %v, %d parts, %d messages, %d events", what, err, len(r.parts.Names()), len(r.queue.sent), len(r.all())-events)
		}
	}
}

// TestAnExportOfWhatIsNeverStoredFailsInTheEnd: an order does not go round for ever.
func TestAnExportOfWhatIsNeverStoredFailsInTheEnd(t *testing.T) {
	for what, harm := range map[string]func(r *rig, id conversation.ID){
		"an object that was promised": func(r *rig, id conversation.ID) {
			s, err := r.catalog.Slice(r.t.Context(), id)
			r.must(err)
			o := conversation.Object{Name: evidence.NewObjectID(), Custodian: rita, ClaimedAt: r.now, Seq: s.Conversation.Objects}
			conv := s.Conversation
			conv.Objects++
			r.must(r.catalog.Claim(r.t.Context(), s, conversation.Claim{Conversation: conv, Add: &o}))
		},
		"a number of which nothing is known": func(r *rig, id conversation.ID) {
			s, err := r.catalog.Slice(r.t.Context(), id)
			r.must(err)
			conv := s.Conversation
			conv.Objects++
			r.must(r.catalog.Claim(r.t.Context(), s, conversation.Claim{Conversation: conv}))
		},
	} {
		r := newRig(t)
		id := r.chat(1)
		harm(r, id)
		r.sequence()
		o := r.order(policy.ExportOrder{}, id)
		body := r.body(o)
		for n := 0; ; n++ {
			before := len(r.queue.sent)
			r.must(r.exporter().Handle(t.Context(), body))
			if len(r.queue.sent) == before {
				break
			}
			if n > export.MaxAttempts {
				t.Fatalf("%s: put back %d times", what, n)
			}
			body = r.queue.sent[before]
		}
		o, err := r.orders.Get(t.Context(), o.ID)
		r.must(err)
		if o.State != policy.ExportFailed || !strings.Contains(o.Failure, string(id)) {
			t.Errorf("%s: %s, %q", what, o.State, o.Failure)
		}
	}
}

// TestANumberThatIsVoidByTheTrailIsNotMissed: its object was promised and never came.
func TestANumberThatIsVoidByTheTrailIsNotMissed(t *testing.T) {
	r := newRig(t)
	id := r.chat(1)
	s, err := r.catalog.Slice(t.Context(), id)
	r.must(err)
	conv := s.Conversation
	conv.Objects++
	r.must(r.catalog.Claim(t.Context(), s, conversation.Claim{Conversation: conv}))
	_, err = r.log().Append(t.Context(), custody.Event{Tenant: tenant, Action: custody.Sealed, System: "chatexport", Item: "1-0-1", Objects: []custody.Object{
		{Unit: string(id), Object: evidence.NewObjectID(), Seq: conv.Objects - 1, Void: true},
	}})
	r.must(err)
	r.sequence()
	_, b := r.built(r.order(policy.ExportOrder{}, id))
	if verdict, code := verify(t, unpack(t, b), r.fingerprint()); code != 0 {
		t.Errorf("%d %s", code, verdict)
	}
}

// TestALongRecordingIsExportedThoughReceiptsRunOut: each reading of the clock takes a while.
func TestALongRecordingIsExportedThoughReceiptsRunOut(t *testing.T) {
	r := newRig(t)
	id := r.call()
	r.sequence()
	o := r.order(policy.ExportOrder{}, id)
	slow := export.New(export.Config{Tenant: tenant, Maker: "steno/test", Now: func() time.Time {
		r.now = r.now.Add(time.Minute)
		return r.now
	}}, r.storesWith(&r.trail), slog.New(slog.NewTextHandler(&r.logs, nil)))
	r.must(slow.Handle(t.Context(), r.body(o)))
	if took := r.now.Sub(o.MadeAt); took < 2*custody.Lifetime {
		t.Fatalf("it took %s: no receipt ran out", took)
	}
	o, err := r.orders.Get(t.Context(), o.ID)
	r.must(err)
	if o.State != policy.ExportReady {
		t.Errorf("the order is %s", o.State)
	}
}

// days counts how many stretches of the trail are asked for.
type days struct {
	custody.Trail
	asked int
}

func (d *days) Range(ctx context.Context, from, to time.Time, limit int) ([]custody.Record, error) {
	d.asked++
	return d.Trail.Range(ctx, from, to, limit)
}

// TestAConversationOfWhichNothingIsStoredIsNotLookedForInAllOfTime: without an object there
// is no day to begin at.
func TestAConversationOfWhichNothingIsStoredIsNotLookedForInAllOfTime(t *testing.T) {
	r := newRig(t)
	thread := teams.ThreadID("19:empty@thread.v2")
	id := conversation.IDOf(conversation.KeyOf(tenant, thread), day)
	was, err := r.catalog.Slice(t.Context(), id)
	r.must(err)
	r.must(r.catalog.Claim(t.Context(), was, conversation.Claim{Conversation: conversation.Conversation{
		ID: id, Thread: thread, Modality: conversation.Chat, Start: day, First: day, Last: day,
	}}))
	r.chat(1)
	r.sequence()
	o := r.order(policy.ExportOrder{}, id)
	trail := &days{Trail: &r.trail}
	r.must(r.exporterWith(trail).Handle(t.Context(), r.body(o)))
	o, err = r.orders.Get(t.Context(), o.ID)
	r.must(err)
	if o.State != policy.ExportFailed || !strings.Contains(o.Failure, "nothing of conversation "+string(id)) || trail.asked > 2 {
		t.Errorf("%s, %q, %d days were read", o.State, o.Failure, trail.asked)
	}
}
