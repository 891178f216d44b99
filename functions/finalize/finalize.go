// Package finalize makes a record out of a recorded leg: it lists a call when its
// recorder takes it, and when the leg has ended it verifies every bundle, names what is
// missing, resolves who took part, draws the peaks and seals the manifest.
//
// A recorder that dies says nothing. So each leg is checked until it is sealed: when its
// bundles stop coming and no end was told, it is sealed from what arrived.
//
// Everything here may be repeated: object names derive from the leg, names are filled
// once, and the register changes under its revision.
package finalize

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"steno/functions/internal/funchost"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Config sizes a Finalizer.
type Config struct {
	Tenant teams.TenantID
	// CheckEvery is how often a running leg is looked at, and Silence how long none of
	// its bundles may come before it counts as abandoned. Silence exceeds what a recorder
	// may lag behind.
	CheckEvery time.Duration
	Silence    time.Duration
	Now        func() time.Time // time.Now if nil
	// Policies say how long what is sealed is kept, by the desks that Roster knows. Without
	// a Roster nobody is on a desk.
	Policies policy.DataPolicies
	Roster   policy.Roster
	History  time.Duration // as in exportplan
}

// The defaults of Config.
const (
	DefaultCheckEvery = 15 * time.Minute
	DefaultSilence    = 40 * time.Minute
)

// Evidence is what finalize needs of the evidence store.
type Evidence interface {
	Seal(ctx context.Context, ref evidence.Ref, plain []byte) (evidence.Sealed, error)
	Put(ctx context.Context, o evidence.Sealed) error
	Open(ctx context.Context, ref evidence.Ref, receipt custody.Receipt) (*evidence.Object, error)
	Digest(ctx context.Context, ref evidence.Ref) (size int64, digest [sha256.Size]byte, err error)
	PutPack(ctx context.Context, p evidence.Pack) error
	OpenPack(ctx context.Context, ref evidence.Ref, receipt custody.Receipt) (*evidence.Packed, error)
	OpenTail(ctx context.Context, ref evidence.Ref, receipt custody.Receipt) (*evidence.Object, error)
	Tails(ctx context.Context, tenant teams.TenantID, unit string) ([]evidence.TailInfo, error)
	Tail(ctx context.Context, ref evidence.Ref) (evidence.Sealed, error)
	DropTail(ctx context.Context, ref evidence.Ref) error
}

// Directory resolves people and meetings. An error that says that there is none is
// no fault: the record then says what the call itself said.
type Directory interface {
	User(ctx context.Context, id teams.PersonID) (teams.User, error)
	ChatTopic(ctx context.Context, thread teams.ThreadID) (string, error)
}

// Register is the catalog as far as finalize uses it.
type Register interface {
	conversation.Calls
	ByPerson(ctx context.Context, person teams.PersonID, from, to time.Time, page conversation.PageRequest) (conversation.Page, error)
}

// Queue sends the checks that finalize asks of itself.
type Queue interface {
	Send(ctx context.Context, id string, body []byte, notBefore time.Time) error
}

// Finalizer handles notices of legs. It is safe for concurrent use.
type Finalizer struct {
	c        Config
	evidence Evidence
	calls    Register
	people   Directory
	trail    custody.Log
	queue    Queue
	log      *slog.Logger
}

// New returns a finalizer.
func New(c Config, store Evidence, calls Register, people Directory, trail custody.Log, queue Queue, log *slog.Logger) *Finalizer {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.CheckEvery == 0 {
		c.CheckEvery = DefaultCheckEvery
	}
	if c.Silence == 0 {
		c.Silence = DefaultSilence
	}
	return &Finalizer{c: c, evidence: store, calls: calls, people: people, trail: trail, queue: queue, log: log}
}

// Handle takes one message of the queue call-legs. When it returns nil what the notice
// asked for is durable. An error makes the queue deliver it again; one that wraps
// funchost.ErrPoison cannot be helped by that.
func (f *Finalizer) Handle(ctx context.Context, body []byte) error {
	n, err := conversation.DecodeNotice(body)
	if err != nil {
		return fmt.Errorf("%w: %w", funchost.ErrPoison, err)
	}
	if n.Tenant != f.c.Tenant {
		return fmt.Errorf("%w: leg %s of a tenant that is not ours", funchost.ErrPoison, n.Leg)
	}
	switch n.Kind {
	case conversation.LegStarted:
		return f.started(ctx, n)
	case conversation.LegCheck:
		return f.check(ctx, n)
	}
	return f.ended(ctx, n)
}

// started lists the call and arranges for the leg to be looked after.
func (f *Finalizer) started(ctx context.Context, n conversation.LegNotice) error {
	err := f.update(ctx, n, func(conv *conversation.Conversation, leg *conversation.Leg, _ *conversation.Call) {
		if leg.State == "" {
			leg.State = conversation.LegRunning
		}
		if leg.Epoch.IsZero() {
			leg.Epoch = n.Epoch
		}
		if conv.Call.Direction == "" {
			// What the invite knows, until the roster has told more.
			m := conversation.Manifest{Invite: n.Invite, Parties: invited(*n.Invite)}
			conv.Call.Direction, conv.Call.Subject = direction(f.c.Tenant, m), n.Invite.Subject
			conv.Participants, conv.Call.Numbers = participants(m)
		}
	})
	if err != nil {
		return err
	}
	return f.checkLater(ctx, n, 1)
}

func (f *Finalizer) checkLater(ctx context.Context, n conversation.LegNotice, attempt int) error {
	n.Kind, n.Attempt, n.At = conversation.LegCheck, attempt, f.c.Now().UTC()
	body, err := conversation.EncodeNotice(n)
	if err != nil {
		return err
	}
	return f.queue.Send(ctx, n.MessageID(), body, f.c.Now().Add(f.c.CheckEvery))
}

// check seals a leg whose recorder fell silent, and otherwise looks again later.
func (f *Finalizer) check(ctx context.Context, n conversation.LegNotice) error {
	call, err := f.calls.Call(ctx, conversation.CallKeyOf(n.Tenant, n.Chain))
	if err != nil {
		return err
	}
	if leg, known := call.Leg(n.Leg); known && leg.State == conversation.LegSealed || call.Conversation.Disposed != nil {
		return nil
	}
	tails, err := f.evidence.Tails(ctx, n.Tenant, string(n.Leg))
	if err != nil {
		return err
	}
	last := n.At
	if call, known := call.Leg(n.Leg); known {
		last = call.Started
	}
	for _, t := range tails {
		if t.StoredAt.After(last) {
			last = t.StoredAt
		}
	}
	if f.c.Now().Sub(last) < f.c.Silence {
		return f.checkLater(ctx, n, n.Attempt+1)
	}
	n.Kind, n.Outcome, n.Reason = conversation.LegEnded, conversation.OutcomeLost, "the recorder fell silent"
	return f.seal(ctx, n, true)
}

// ended seals a leg whose recorder closed it.
func (f *Finalizer) ended(ctx context.Context, n conversation.LegNotice) error {
	call, err := f.calls.Call(ctx, conversation.CallKeyOf(n.Tenant, n.Chain))
	if err != nil {
		return err
	}
	if leg, known := call.Leg(n.Leg); known && leg.State == conversation.LegSealed {
		return f.dropTails(ctx, n, leg) // a repetition: what may be left is to tidy up
	}
	if call.Conversation.Disposed != nil {
		return fmt.Errorf("%w: leg %s of a call that is disposed", funchost.ErrPoison, n.Leg)
	}
	return f.seal(ctx, n, false)
}

// change edits a leg and the conversation it belongs to.
type change func(conv *conversation.Conversation, leg *conversation.Leg, call *conversation.Call)

// update changes the register and the listings, again and again until nobody came
// between.
func (f *Finalizer) update(ctx context.Context, n conversation.LegNotice, do change) error {
	key := conversation.CallKeyOf(n.Tenant, n.Chain)
	for {
		call, err := f.calls.Call(ctx, key)
		if err != nil {
			return err
		}
		if call.Conversation.Disposed != nil {
			return fmt.Errorf("%w: leg %s of a call that is disposed", funchost.ErrPoison, n.Leg)
		}
		conv, leg := f.draft(call, n)
		do(&conv, &leg, &call)
		others := slices.DeleteFunc(slices.Clone(call.Legs), func(l conversation.Leg) bool { return l.Leg == leg.Leg })
		changed := settle(&conv, &leg, others)
		err = f.calls.SaveCall(ctx, call, conv, append(changed, leg)...)
		if errors.Is(err, conversation.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		return f.calls.ListCall(ctx, conv)
	}
}

// draft is the conversation and the leg as they are known, or new ones.
func (f *Finalizer) draft(call conversation.Call, n conversation.LegNotice) (conversation.Conversation, conversation.Leg) {
	leg, known := call.Leg(n.Leg)
	if !known {
		leg = conversation.Leg{Leg: n.Leg, Call: n.Call, Recorder: n.Recorder, Started: n.At.UTC().Truncate(time.Millisecond)}
	}
	if leg.Invite == nil && n.Invite != nil {
		invite := *n.Invite
		invite.Raw = nil // the bundles hold it; rows are small
		leg.Invite = &invite
		if !invite.At.IsZero() {
			leg.Started = invite.At.UTC().Truncate(time.Millisecond)
		}
		if p, ok := invite.Recorded.Person(n.Tenant); ok {
			leg.Recorded = p
		}
	}
	conv := call.Conversation
	if call.Revision == "" {
		start := leg.Started
		conv = conversation.Conversation{
			ID: conversation.IDOf(conversation.CallKeyOf(n.Tenant, n.Chain), start), Kind: teams.ThreadCall, Modality: conversation.Voice,
			Start: start, First: start, Last: start, Call: &conversation.CallFacts{Chain: n.Chain},
		}
	} else {
		facts := *conv.Call
		conv.Call = &facts
	}
	conv.Versions++
	if conv.Thread == "" && leg.Invite != nil {
		conv.Thread = leg.Invite.Thread
	}
	return conv, leg
}
