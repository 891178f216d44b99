package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"steno/shared/conversation"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/teams"
)

// leg is one recorded leg. Its state belongs to the goroutine that runs it; everything
// else posts to that. What waits for somebody else runs beside it, one step at a time,
// and posts what came of it.
type leg struct {
	legs     *Legs
	id       conversation.LegID
	inv      teams.Invite
	callback string
	log      *slog.Logger
	inbox    chan func()
	gone     chan struct{} // closed when the leg is over
	instance atomic.Pointer[string]

	state         teams.CallState
	answered      bool
	doubtful      bool // the answer's fate is not known
	connected     bool
	establishedAt time.Time
	result        *teams.CallResult
	present       []teams.Participant // nil while no roster came
	rule          policy.RecordingRule
	decision      policy.RecordingDecision

	call  *gatewayCall
	peer  Peer
	rec   Recording
	grant msgraph.RecordingGranted

	setup   context.Context // of opening, answering and connecting
	giveUp  context.CancelFunc
	pending int // steps of that kind under way

	gate      gateState
	busy      bool   // a step that changes the gate, or ends the leg, is under way
	beginning bool   // and it opens the gate
	opening   bool   // the gate is being opened, for the first time or again
	shut      string // why the gateway closed the gate while it was being opened
	paused    bool   // by somebody
	by        teams.PersonID
	why       string
	gap       conversation.GapKind // why the gate was shut last
	waiting   []chan struct{}      // who waits for a command to be carried out
	ending    bool
	broken    string // why the recording is lost
	history   []conversation.LegEvent
	reopens   int
	pings     int64
	sockets   map[string]teams.SourceID // what each video socket was last asked to carry
	over      bool
}

// gateState is how far recording is open, as far as steps have come.
type gateState int

const (
	gateShut gateState = iota
	gateOpen
)

// maxHistory bounds the events that wait for a recording to begin.
const maxHistory = 4096

func newLeg(l *Legs, id conversation.LegID, inv teams.Invite, callback string) *leg {
	g := &leg{
		legs: l, id: id, inv: inv, callback: callback, inbox: make(chan func(), 64), gone: make(chan struct{}), state: teams.CallIncoming,
		log: l.c.Log.With(slog.String("leg", string(id)), slog.String("call", string(inv.Call))),
	}
	g.setup, g.giveUp = context.WithCancel(context.Background())
	g.rule = g.ruleOf(inv.Recorded.Party)
	g.note(conversation.LegEvent{At: inv.At, Kind: conversation.EventInvited, Invite: &inv})
	return g
}

// ruleOf returns the rule for a party. Whoever is no person of the tenant has none, and
// is recorded in full.
func (g *leg) ruleOf(p teams.Party) policy.RecordingRule {
	person, ok := p.Person(g.legs.c.Tenant)
	if !ok {
		return policy.RecordingRule{When: policy.WhenAlways, Media: policy.MediaAll}
	}
	return g.legs.c.Rules.Rule(person)
}

// post hands something to the leg's goroutine, and drops it once the leg is over.
func (g *leg) post(f func()) {
	select {
	case g.inbox <- f:
	case <-g.gone:
	}
}

func (g *leg) atOtherInstance(instance string) bool {
	own := g.instance.Load()
	return own != nil && *own != instance
}

// run is the leg from invite to hand-over.
func (g *leg) run(ctx context.Context) {
	defer close(g.gone)
	defer g.giveUp()
	g.setUp()
	inv := g.inv
	g.legs.running.Go(func() { g.notice(conversation.LegNotice{Kind: conversation.LegStarted, At: inv.At, Invite: &inv}) })
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	stopping := ctx.Done()
	for !g.over {
		select {
		case f := <-g.inbox:
			f()
		case <-tick.C:
			g.watch()
		case <-stopping:
			stopping = nil
			g.fail("recorder stopped")
		}
		g.advance()
		if !g.beginning {
			for _, done := range g.waiting {
				close(done)
			}
			g.waiting = nil
		}
	}
}

// step does what waits for others, beside the leg. then runs on the leg's goroutine.
// Steps outlive the stop of the recorder: each is bounded by its own time.
func (g *leg) step(within time.Duration, do func(ctx context.Context) error, then func(err error)) {
	g.begun(context.Background(), within, do, then)
}

func (g *leg) begun(ctx context.Context, within time.Duration, do func(ctx context.Context) error, then func(err error)) {
	g.legs.running.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, within)
		err := do(ctx)
		cancel()
		g.post(func() { then(err) })
	})
}

// prepare is step for what a leg that ends before it began can do without. The leg is
// not over before it returned: what it made must be given back.
func (g *leg) prepare(within time.Duration, do func(ctx context.Context) error, then func(err error)) {
	g.pending++
	g.begun(g.setup, within, do, func(err error) {
		g.pending--
		then(err)
	})
}

// setUp opens the call at the gateway and answers it: Graph and the gateway at the same
// time, since only Graph's answer is urgent.
func (g *leg) setUp() {
	within := time.Until(g.inv.At.Add(answerWithin))
	want := mediaWanted{video: g.legs.c.VideoSockets, screen: g.legs.c.Screen}
	if g.rule.Decide(g.legs.c.Tenant, nil, false).AudioOnly {
		want = mediaWanted{}
	}
	var call gatewayCall
	g.prepare(within, func(ctx context.Context) (err error) {
		call, err = g.openCall(ctx, want)
		return err
	}, func(err error) {
		if err != nil {
			if g.ending {
				return
			}
			g.log.Error("gateway did not open the call", slog.String("alarm", "gateway"), slog.String("cause", err.Error()))
			g.fail("gateway did not open the call")
			return
		}
		g.call = &call
		g.instance.Store(&call.Instance)
		if g.ending {
			return
		}
		g.answer(call)
		g.connect(call)
	})
}

// openCall asks a second time where the first attempt was slow or the connection broke:
// the same request has the same reply.
func (g *leg) openCall(ctx context.Context, want mediaWanted) (gatewayCall, error) {
	call, err := g.legs.c.Gateway.open(ctx, g.inv.Call, g.inv.Chain, want)
	var refused *GatewayError
	if err != nil && ctx.Err() == nil && !errors.As(err, &refused) && !errors.Is(err, errGatewayLies) {
		again, cancel := context.WithTimeout(ctx, gatewayWithin)
		defer cancel()
		return g.legs.c.Gateway.open(again, g.inv.Call, g.inv.Chain, want)
	}
	return call, err
}

func (g *leg) answer(call gatewayCall) {
	a := msgraph.Answer{CallbackURI: g.callback, Blob: call.Blob, Modalities: call.Modalities}
	g.prepare(time.Until(g.inv.At.Add(answerWithin)), func(ctx context.Context) error {
		return g.legs.c.Graph.Answer(ctx, g.inv.Call, a)
	}, g.answerCame)
}

// answerCame takes over what came of the answer. An answer that was lost on the way may
// have been taken: the call's state tells, in a while.
func (g *leg) answerCame(err error) {
	var refused *msgraph.Error
	late := time.Since(g.inv.At) >= answerWithin
	switch {
	case err == nil:
		g.answered = true
		g.log.Info("answered", slog.Duration("after", time.Since(g.inv.At)))
	case g.ending || g.established():
	case msgraph.CallGone(err) && !late:
		g.log.Info("call ended before it was answered")
		g.terminated(nil)
	case !errors.Is(err, msgraph.ErrDoubt) && (errors.As(err, &refused) || late):
		g.log.Error("call not answered", slog.String("alarm", "not-answered"), slog.String("cause", err.Error()))
		g.fail("call not answered")
	default:
		g.doubtful = true
		g.log.Error("answer lost on the way", slog.String("alarm", "not-answered"), slog.String("cause", err.Error()))
	}
}

// connect makes the peer for the gateway's offer.
func (g *leg) connect(call gatewayCall) {
	var peer Peer
	g.prepare(connectWithin, func(ctx context.Context) (err error) {
		if peer, err = g.legs.c.Media.Connect(ctx, call.offer(g.id), events{g}); err != nil {
			return fmt.Errorf("connect media: %w", err)
		}
		return g.legs.c.Gateway.answer(ctx, g.inv.Call, call, peer.Answer())
	}, func(err error) {
		g.peer = peer
		if err != nil && !g.ending {
			g.log.Error("media not connected", slog.String("alarm", "gateway"), slog.String("cause", err.Error()))
			g.fail("media not connected")
		}
	})
}

// events carries what the peer says to the leg.
type events struct{ g *leg }

func (e events) Connected() { e.g.post(func() { e.g.connected = true }) }

func (e events) Control(kind string, line json.RawMessage) {
	line = slices.Clone(line)
	e.g.post(func() { e.g.control(kind, line) })
}

// Lost may come out of a call that the leg itself made into its recording, so that it
// must not wait for the leg.
func (e events) Lost(err error) {
	e.g.legs.running.Go(func() {
		e.g.post(func() {
			if !e.g.ending {
				e.g.log.Error("media lost", slog.String("alarm", "media-lost"), slog.String("cause", err.Error()))
				e.g.fail("media lost")
			}
		})
	})
}

// updated takes an update of the call. It is called one at a time.
func (g *leg) updated(u teams.CallUpdate) { g.post(func() { g.update(u) }) }

func (g *leg) update(u teams.CallUpdate) {
	if u.Present != nil {
		g.present = u.Present
	}
	if len(u.Roster) > 0 || len(u.Left) > 0 {
		g.note(conversation.LegEvent{At: u.At, Kind: conversation.EventRoster, Roster: u.Roster, Left: u.Left})
		g.identify()
	}
	if u.Anomaly != "" {
		g.note(conversation.LegEvent{At: u.At, Kind: conversation.EventAnomaly, Reason: u.Anomaly})
	}
	if u.State.Rank() <= g.state.Rank() {
		return
	}
	g.state = u.State
	switch u.State {
	case teams.CallEstablished:
		g.establishedAt = time.Now()
		g.note(conversation.LegEvent{At: u.At, Kind: conversation.EventEstablished})
	case teams.CallTerminated:
		g.terminated(u.Result)
	}
}

// established tells whether there is a call: also while it is terminating, when people
// may still be heard.
func (g *leg) established() bool {
	return g.state == teams.CallEstablished || g.state == teams.CallTerminating && !g.establishedAt.IsZero()
}

// terminated ends the leg because the call did.
func (g *leg) terminated(result *teams.CallResult) {
	g.state = teams.CallTerminated
	if g.result == nil {
		g.result = result
	}
	if g.ending {
		return
	}
	g.ending = true
	g.giveUp()
	g.note(conversation.LegEvent{At: time.Now().UTC(), Kind: conversation.EventResult, Result: result})
}

// identify looks for the recorded user in the roster: the invite may have named the
// participation alone.
func (g *leg) identify() {
	if i := slices.IndexFunc(g.present, func(p teams.Participant) bool { return p.ID == g.inv.Recorded.ID }); i >= 0 {
		if p := g.present[i].Party; p.Kind == teams.PartyUser && p != g.inv.Recorded.Party {
			g.inv.Recorded.Party = p
			g.rule = g.ruleOf(p)
		}
	}
}

// fail gives the recording up: what there is of it is sealed, the participants are told
// that recording failed, and the recorder leaves, so that the tenant's policy decides
// what becomes of the call. Nobody else is ever removed from it.
func (g *leg) fail(reason string) {
	if g.ending {
		return
	}
	g.ending, g.broken = true, reason
	g.giveUp()
	g.note(conversation.LegEvent{At: time.Now().UTC(), Kind: conversation.EventFault, Reason: reason})
	g.log.Error("recording lost", slog.String("alarm", "recording-lost"), slog.String("reason", reason))
}

// note puts an event into the leg's history.
func (g *leg) note(e conversation.LegEvent) {
	if g.rec != nil {
		g.rec.Event(e)
		return
	}
	if len(g.history) < maxHistory {
		g.history = append(g.history, e)
	}
}

// control takes a line of the gateway.
func (g *leg) control(kind string, line json.RawMessage) {
	var said struct {
		Instance string `json:"instanceId"`
		Call     string `json:"callId"`
		Session  string `json:"sessionId"`
		State    string `json:"state"`
		Reason   string `json:"reason"`
		Kind     string `json:"kind"`
		Audio    string `json:"audio"`
	}
	if err := json.Unmarshal(line, &said); err != nil {
		g.fail("gateway sent an unreadable line")
		return
	}
	now := time.Now().UTC()
	switch kind {
	case "hello":
		if g.call != nil && (said.Instance != g.call.Instance || said.Call != g.call.Call || said.Session != g.call.Session) {
			g.fail("gateway is not the one that was asked")
		}
	case "mode":
		g.note(conversation.LegEvent{At: now, Kind: conversation.EventMode, Reason: cleanCode(said.Audio)})
	case "anomaly":
		g.note(conversation.LegEvent{At: now, Kind: conversation.EventAnomaly, Reason: cleanCode(said.Kind)})
	case "failure":
		g.fail("media platform failed")
	case "bye":
		g.fail("gateway ended the call")
	case "gate":
		g.gateMoved(strings.EqualFold(said.State, "open"), cleanCode(said.Reason))
	}
}

// watch does what is due every two seconds: the ping that keeps the gate open, and the
// looks at what does not report itself.
func (g *leg) watch() {
	if g.ending {
		return
	}
	if g.connected && g.peer != nil {
		g.pings++
		if err := g.peer.Send(map[string]any{"t": "ping", "seq": g.pings}); err != nil {
			g.log.Error("control channel broken", slog.String("alarm", "media-lost"), slog.String("cause", err.Error()))
			g.fail("media lost")
		}
	}
	age := time.Since(g.inv.At)
	switch {
	case g.established() && !g.connected && time.Since(g.establishedAt) > connectWithin:
		g.fail("media not connected")
	case g.doubtful && !g.established() && age > unansweredWithin, !g.established() && age > establishWithin:
		g.fail("call not established")
	case g.rec != nil && g.rec.Lag() > g.legs.c.LagLimit:
		g.fail("evidence cannot be stored")
	}
}

// notice sends a notice about the leg.
func (g *leg) notice(n conversation.LegNotice) {
	n.Tenant, n.Leg, n.Call, n.Chain, n.Recorder = g.inv.Tenant, g.id, g.inv.Call, g.inv.Chain, g.legs.c.Recorder
	if err := g.legs.c.Outbox.Put(n); err != nil {
		g.log.Error("notice not on disk", slog.String("alarm", "outbox"), slog.String("kind", string(n.Kind)), slog.String("cause", err.Error()))
	}
}

// status describes the leg, unless it is over.
func (g *leg) status() (Status, bool) {
	out := make(chan Status, 1)
	g.post(func() {
		s := Status{Leg: g.id, Call: g.inv.Call, Since: g.inv.At, State: g.state, Recording: g.gate == gateOpen, Paused: g.paused}
		if g.rec != nil {
			s.Lag = g.rec.Lag().Seconds()
		}
		out <- s
	})
	select {
	case s := <-out:
		return s, true
	case <-g.gone:
		return Status{}, false
	}
}
