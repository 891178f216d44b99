package session

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"steno/shared/conversation"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/teams"
)

// advance brings the leg one step closer to what it should be: recording or not, or
// over. Steps that change the gate run one after another.
func (g *leg) advance() {
	switch {
	case g.busy || g.over || g.ending && g.pending > 0:
		return
	case g.ending:
		g.finish()
		return
	}
	g.decide()
	switch want := g.wanted(); {
	case want && g.gate == gateShut:
		g.begin()
	case !want && g.gate == gateOpen:
		g.halt()
	case g.gate == gateOpen:
		g.subscribe()
	}
}

// decide applies the recording rule to who takes part.
func (g *leg) decide() {
	parties, known := g.parties()
	d := g.rule.Decide(g.legs.c.Tenant, parties, known)
	if !known && g.rule.When == policy.WhenExternal && (!g.established() || time.Since(g.establishedAt) < rosterPatience) {
		return // the roster is on its way; watch comes back
	}
	if d == g.decision {
		return
	}
	if was := g.decision; was.Reason != d.Reason {
		g.note(conversation.LegEvent{At: time.Now().UTC(), Kind: conversation.EventRule, Reason: ruleReason(d)})
	}
	g.decision = d
}

func ruleReason(d policy.RecordingDecision) string {
	if d.Reason == "" {
		return "record"
	}
	return d.Reason
}

// parties lists who takes part, and tells whether that is believed to be everybody.
// Whoever waits in the lobby hears and says nothing.
func (g *leg) parties() (parties []teams.Party, known bool) {
	for _, p := range g.present {
		if p.Lobby {
			continue
		}
		parties = append(parties, p.Party)
		known = known || p.Kind != teams.PartyApplication && p.Kind != teams.PartyInstance
	}
	if !known && g.inv.Other != nil {
		return []teams.Party{g.inv.Recorded.Party, *g.inv.Other}, true
	}
	return parties, known
}

// wanted tells whether the leg should be recording now.
func (g *leg) wanted() bool {
	return g.established() && g.connected && g.peer != nil && g.decision.Record && !g.paused && !g.ending
}

// begin starts or resumes recording. Nothing is kept before Graph's acknowledgment: it
// comes first, then the recorder's own gate, and the gateway's last.
func (g *leg) begin() {
	g.busy, g.beginning, g.opening, g.shut = true, true, true, ""
	peer, rec, resumed := g.peer, g.rec, g.rec != nil
	info := RecordingInfo{
		Tenant: g.inv.Tenant, Leg: g.id, Call: g.inv.Call, Chain: g.inv.Chain, Recorder: g.legs.c.Recorder, AudioOnly: g.decision.AudioOnly,
	}
	by, why, call := g.by, g.why, *g.call
	if g.gap == conversation.GapPolicy {
		by, why = "", ruleReason(g.decision)
	}
	var granted msgraph.RecordingGranted
	// A leg that ends does not wait for it.
	g.begun(g.setup, statusWithin+openWithin, func(ctx context.Context) (err error) {
		asking, cancel := context.WithTimeout(ctx, statusWithin)
		defer cancel()
		if granted, err = g.legs.c.Graph.UpdateRecordingStatus(asking, g.inv.Call, msgraph.StatusRecording); err != nil {
			return err
		}
		if resumed {
			err = rec.Resume(granted, by, why)
		} else {
			rec, err = peer.Record(ctx, granted, info)
		}
		if err != nil {
			return err
		}
		return g.openGate(ctx, call, granted)
	}, func(err error) { g.began(rec, granted, err) })
}

// Why the recorder closes a gate.
const (
	closePaused = "paused"
	closeEnded  = "ended"
)

// Times of opening a gate.
const (
	openWithin = 5 * time.Second
	openAgain  = 50 * time.Millisecond
)

// openGate opens the gateway's gate. The two ends of a connection do not learn of it at
// the same time: a gateway that has not yet is asked again for a while.
func (g *leg) openGate(ctx context.Context, call gatewayCall, granted msgraph.RecordingGranted) error {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	for {
		err := g.legs.c.Gateway.openGate(ctx, g.inv.Call, call, granted)
		var refused *GatewayError
		if err == nil || !errors.As(err, &refused) || refused.Code != "peer_not_connected" {
			return err
		}
		select {
		case <-time.After(openAgain):
		case <-ctx.Done():
			return err
		}
	}
}

func (g *leg) began(rec Recording, granted msgraph.RecordingGranted, err error) {
	g.busy, g.beginning, g.opening = false, false, false
	if rec != nil && g.rec == nil {
		g.rec = rec
		for _, e := range g.history {
			rec.Event(e)
		}
		g.history = nil
	}
	if granted.Covers(g.inv.Call) {
		g.grant = granted
		g.note(conversation.LegEvent{At: granted.At(), Kind: conversation.EventRecording})
	}
	switch {
	case err == nil:
		g.gate = gateOpen
		g.log.Info("recording", slog.Duration("after", time.Since(g.inv.At)))
		g.openedAndShut()
	case g.ending:
	case msgraph.CallGone(err):
		g.terminated(nil)
	default:
		g.log.Error("recording did not begin", slog.String("alarm", "recording-not-begun"), slog.String("cause", err.Error()))
		g.fail("recording did not begin")
	}
}

// halt stops keeping media at once, then closes the gateway's gate and tells Graph.
func (g *leg) halt() {
	kind, by, why := conversation.GapPolicy, teams.PersonID(""), ruleReason(g.decision)
	if g.paused {
		kind, by, why = conversation.GapPaused, g.by, g.why
	}
	g.rec.Pause(kind, by, why)
	g.busy, g.gate, g.gap = true, gateShut, kind
	call := *g.call
	g.step(gatewayTimeout+statusWithin, func(ctx context.Context) error {
		err := g.legs.c.Gateway.closeGate(ctx, g.inv.Call, call, closePaused)
		asking, cancel := context.WithTimeout(ctx, statusWithin)
		defer cancel()
		_, err2 := g.legs.c.Graph.UpdateRecordingStatus(asking, g.inv.Call, msgraph.StatusNotRecording)
		return errors.Join(err, err2)
	}, func(err error) {
		g.busy = false
		if err != nil && !g.ending && !msgraph.CallGone(err) {
			// Nothing is kept: what is wrong is what others believe.
			g.log.Error("pause not announced", slog.String("alarm", "pause-not-announced"), slog.String("cause", err.Error()))
		}
	})
}

// pause stops recording on somebody's behalf.
func (g *leg) pause(actor teams.PersonID, reason string) {
	if g.paused || g.ending {
		return
	}
	g.paused, g.by, g.why = true, actor, reason
	if g.rec != nil {
		g.rec.Pause(conversation.GapPaused, actor, reason)
	}
	g.note(conversation.LegEvent{At: time.Now().UTC(), Kind: conversation.EventPaused, Actor: actor, Reason: reason})
	g.log.Info("paused", slog.Any("actor", actor))
}

// resume takes a pause back.
func (g *leg) resume(actor teams.PersonID, reason string) {
	if !g.paused || g.ending {
		return
	}
	g.paused, g.by, g.why = false, actor, reason
	g.note(conversation.LegEvent{At: time.Now().UTC(), Kind: conversation.EventResumed, Actor: actor, Reason: reason})
	g.log.Info("resumed", slog.Any("actor", actor))
}

// maxReopens bounds how often a gate is opened again that closed by itself.
const maxReopens = 5

// gateMoved takes the gateway's word that a gate opened or closed. Lines are ordered
// among themselves but not with replies: one that comes while the gate is being opened
// is looked at when that is done, so that no close is missed and a gate that stays shut
// is never taken for an open one.
func (g *leg) gateMoved(open bool, reason string) {
	switch {
	case open:
		g.shut = ""
	case reason == closePaused || reason == closeEnded: // the recorder asked for it
	case g.opening:
		g.shut = cmp.Or(reason, "no reason")
	case g.gate == gateOpen && !g.busy:
		g.reopen(reason)
	}
}

// openedAndShut opens the gate again if the gateway closed it as soon as it was open, and
// it is still to be open.
func (g *leg) openedAndShut() {
	if g.shut != "" && g.wanted() {
		g.reopen(g.shut)
	}
}

// reopen opens a gate that the gateway closed by itself, such as when pings came late.
// Graph's acknowledgment still stands: nothing else was announced.
func (g *leg) reopen(reason string) {
	if g.reopens++; g.reopens > maxReopens {
		g.fail("the gateway keeps closing its gate")
		return
	}
	g.note(conversation.LegEvent{At: time.Now().UTC(), Kind: conversation.EventAnomaly, Reason: "gate closed: " + reason})
	g.busy, g.opening, g.shut = true, true, ""
	call, grant := *g.call, g.grant
	g.step(openWithin, func(ctx context.Context) error {
		return g.openGate(ctx, call, grant)
	}, func(err error) {
		g.busy, g.opening = false, false
		switch {
		case g.ending:
		case err != nil:
			g.log.Error("gate not opened again", slog.String("alarm", "gateway"), slog.String("cause", err.Error()))
			g.fail("gate not opened again")
		default:
			g.openedAndShut()
		}
	})
}

// finish stops and seals the recording, and only then tells Graph and leaves the call,
// if there is still one.
func (g *leg) finish() {
	g.busy = true
	outcome, call, rec := g.outcome(), g.call, g.rec
	lost, reason := g.broken != "", g.reason()
	joined := g.state != teams.CallTerminated && (g.answered || g.doubtful || g.state.Rank() > teams.CallIncoming.Rank())
	g.note(conversation.LegEvent{At: time.Now().UTC(), Kind: conversation.EventEnded, Reason: reason})
	g.gate = gateShut
	var sealed error
	g.step(2*finishWithin, func(ctx context.Context) error {
		var faults []error
		if call != nil && !lost {
			// What is on its way in the gateway still belongs to the record.
			if err := g.legs.c.Gateway.closeGate(ctx, g.inv.Call, *call, closeEnded); err != nil && rec != nil {
				faults = append(faults, err)
			}
		}
		if rec != nil {
			sealing, cancel := context.WithTimeout(ctx, finishWithin)
			sealed = rec.Finish(sealing, outcome, func(h Handed) { g.handed(outcome, reason, h) })
			cancel()
		}
		if joined {
			faults = append(faults, g.leave(ctx, lost))
		}
		if call != nil {
			faults = append(faults, g.legs.c.Gateway.remove(ctx, g.inv.Call, closeEnded))
		}
		return errors.Join(faults...)
	}, func(err error) {
		if err != nil {
			g.log.Warn("leg ended untidily", slog.String("cause", err.Error()))
		}
		if sealed != nil {
			// The leg has no ended notice: finalize finds it silent and closes it.
			g.log.Error("end of recording not sealed", slog.String("alarm", "not-sealed"), slog.String("cause", sealed.Error()))
		}
		if rec == nil {
			g.handed(outcome, reason, Handed{})
		}
		g.log.Info("leg over", slog.String("outcome", string(outcome)), slog.String("reason", reason))
		g.over = true
		g.release()
	})
}

// leave tells the participants how recording ended and takes the recorder out of the call.
func (g *leg) leave(ctx context.Context, lost bool) error {
	status := msgraph.StatusNotRecording
	if lost {
		status = msgraph.StatusFailed
	}
	asking, cancel := context.WithTimeout(ctx, statusWithin)
	defer cancel()
	_, err := g.legs.c.Graph.UpdateRecordingStatus(asking, g.inv.Call, status)
	if msgraph.CallGone(err) {
		return nil
	}
	return errors.Join(err, g.legs.c.Graph.HangUp(ctx, g.inv.Call))
}

func (g *leg) release() {
	if g.peer == nil {
		return
	}
	if err := g.peer.Close(); err != nil {
		g.log.Warn("peer not closed", slog.String("cause", err.Error()))
	}
	g.peer = nil
}

// handed sends the notice that the leg is over and in evidence. It may come long after
// the leg's goroutine has ended.
func (g *leg) handed(outcome conversation.Outcome, reason string, h Handed) {
	g.notice(conversation.LegNotice{
		Kind: conversation.LegEnded, At: time.Now().UTC(), Epoch: h.Epoch, Bundles: h.Bundles, Parts: h.Parts, Packs: h.Packs,
		Outcome: outcome, Reason: reason,
	})
}

// beginWithin is how long recording may take to begin before a conversation must be
// believed to have passed unrecorded.
const beginWithin = 5 * time.Second

// outcome says what became of the leg.
func (g *leg) outcome() conversation.Outcome {
	class := teams.ResultUnclear
	if g.result != nil {
		class = g.result.Class()
	}
	joined := !g.establishedAt.IsZero()
	switch {
	case g.broken != "" || class == teams.ResultLoss:
		return conversation.OutcomeLost
	case g.rec != nil:
		return conversation.OutcomeRecorded // finalize knows whether anything was heard
	case g.rec == nil && joined && !g.decision.Record && g.decision.Reason != "":
		return conversation.OutcomeExcluded
	case g.rec == nil && joined && !g.paused && time.Since(g.establishedAt) > beginWithin:
		return conversation.OutcomeLost // there was time for a conversation, and none was recorded
	}
	return conversation.OutcomeEmpty
}

// reason says why the leg ended, in a word or in Graph's numbers.
func (g *leg) reason() string {
	switch {
	case g.broken != "":
		return g.broken
	case g.result != nil:
		return strconv.Itoa(g.result.Code) + "/" + strconv.Itoa(g.result.Subcode)
	}
	return ""
}
