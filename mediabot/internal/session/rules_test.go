package session_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"steno/mediabot/internal/session"
	"steno/shared/conversation"
	"steno/shared/policy"
	"steno/shared/teams"
)

func (r *rig) rule(when policy.When, media policy.Media) {
	r.rules.rule.Store(&policy.RecordingRule{When: when, Media: media})
}

var (
	colleague = person("p-colleague", teams.Party{Kind: teams.PartyUser, ID: string(boss)})
	self      = person("p-trader", teams.Party{Kind: teams.PartyUser, ID: string(trader)})
	bot       = person("p-bot", teams.Party{Kind: teams.PartyApplication, ID: "bot"})
	client    = person("p-client", teams.Party{Kind: teams.PartyPhone, ID: "+15550100"})
)

func TestAnExcludedPersonIsJoinedAndNeverRecorded(t *testing.T) {
	r := newRig(t)
	r.rule(policy.WhenNever, policy.MediaAll)
	c := r.invite(invite(1))
	r.seen("graph answer call-1") // the tenant's policy may demand that a recorder is there
	c.state(teams.CallEstablished, nil)
	c.roster(self, bot, client)
	c.state(teams.CallTerminated, normal)
	if n := c.ended(); n.Outcome != conversation.OutcomeExcluded || n.Bundles != 0 {
		t.Fatalf("notice %+v", n)
	}
	for _, line := range r.all() {
		if strings.HasPrefix(line, "graph status") || strings.HasPrefix(line, "record ") || strings.HasPrefix(line, "gate open") {
			t.Fatalf("%q for an excluded person", line)
		}
	}
}

func TestARecordingFollowsWhoIsExternal(t *testing.T) {
	r := newRig(t)
	r.rule(policy.WhenExternal, policy.MediaAudio)
	c := r.invite(invite(1))
	r.seen("graph answer call-1")
	c.roster(self, colleague, bot)
	c.state(teams.CallEstablished, nil)
	r.until("established", func() bool { return c.status().State == teams.CallEstablished })
	waiting := client
	waiting.Lobby = true
	c.roster(self, colleague, bot, waiting)
	if s := c.status(); s.Recording || r.count("graph status recording call-1") != 0 {
		t.Fatal("an internal call is recorded")
	}
	c.roster(self, colleague, bot, client)
	r.seen("record call-1 audio-only=true")
	r.until("recording", func() bool { return c.status().Recording })
	c.roster(self, colleague, bot)
	r.seen("graph status notRecording call-1")
	r.until("not recording", func() bool { return !c.status().Recording })
	rec := r.media.peer("call-1").rec.Load()
	if rec.keeping() || len(rec.pauses) != 1 || rec.pauses[0].Kind != conversation.GapPolicy || rec.pauses[0].Reason != policy.ReasonNoExternal || rec.pauses[0].Actor != "" {
		t.Fatalf("gaps %+v", rec.pauses)
	}
	c.roster(self, client, bot)
	r.until("recording again", func() bool { return c.status().Recording })
	if n := r.count("graph status recording call-1"); n != 2 {
		t.Fatalf("recording was granted %d times, want 2", n)
	}
	c.state(teams.CallTerminated, normal)
	if n := c.ended(); n.Outcome != conversation.OutcomeRecorded {
		t.Fatalf("outcome %s", n.Outcome)
	}
}

func TestAnInternalCallIsExcludedAndWithoutARosterRecorded(t *testing.T) {
	r := newRig(t)
	r.rule(policy.WhenExternal, policy.MediaAll)
	inside := r.invite(invite(1))
	r.seen("graph answer call-1")
	inside.roster(self, colleague)
	inside.state(teams.CallEstablished, nil)
	unknown := r.invite(invite(2))
	r.seen("graph answer call-2")
	unknown.state(teams.CallEstablished, nil)
	r.seen("gate open call-2")
	inside.state(teams.CallTerminated, normal)
	if n := inside.ended(); n.Outcome != conversation.OutcomeExcluded {
		t.Fatalf("outcome %s", n.Outcome)
	}
}

func TestTheOtherSideOfTheInviteStandsInForTheRoster(t *testing.T) {
	r := newRig(t)
	r.rule(policy.WhenExternal, policy.MediaAll)
	inv := invite(1)
	inv.Other = &client.Party
	c := r.invite(inv)
	r.seen("graph answer call-1")
	begin := time.Now()
	c.state(teams.CallEstablished, nil)
	r.seen("gate open call-1")
	if d := time.Since(begin); d > 2500*time.Millisecond {
		t.Fatalf("recording began after %s, as if the roster were waited for", d)
	}
}

func TestVideoSocketsFollowWhoShowsSomething(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.VideoSockets, c.Screen = 1, true })
	c := r.recording(1)
	show := func(p teams.Participant, kind teams.MediaKind, source teams.SourceID, direction string) teams.Participant {
		p.Streams = append(p.Streams, teams.MediaStream{Kind: kind, Source: source, Direction: direction})
		return p
	}
	c.roster(show(self, teams.MediaVideo, 7, "receiveOnly"), show(client, teams.MediaVideo, 9, "sendReceive"))
	r.seen("subscribe v0 9")
	c.roster(show(self, teams.MediaVideo, 7, "sendReceive"), show(client, teams.MediaVideo, 9, "sendReceive")) // the socket stays
	c.roster(show(show(self, teams.MediaVideo, 7, "sendReceive"), teams.MediaScreen, 8, "sendOnly"), show(client, teams.MediaVideo, 9, "inactive"))
	r.seen("subscribe v0 7")
	r.seen("subscribe vbss 8")
	c.roster(self, client)
	r.seen("subscribe vbss <nil>")
	r.order("subscribe v0 9", "subscribe v0 7")
}

func TestADrainingRecorderFinishesItsLegsAndTakesNone(t *testing.T) {
	r := newRig(t)
	c := r.recording(1)
	r.legs.Drain()
	if err := r.legs.Ready(); err == nil {
		t.Fatal("ready while draining")
	}
	if !c.status().Recording {
		t.Fatal("draining stopped a recording")
	}
	c.state(teams.CallTerminated, normal)
	c.ended()
	r.until("empty", func() bool { return r.legs.Count() == 0 })
}

func TestReadinessFollowsTheGateway(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		status string
		ready  bool
	}{{"overloaded", false}, {"heavy", true}, {"draining", false}, {"starting", false}, {"ok", true}, {"failed", false}, {"ok", true}} {
		r.gateway.mu.Lock()
		r.gateway.status = c.status
		r.gateway.mu.Unlock()
		r.until(fmt.Sprintf("ready is %t when the gateway is %s", c.ready, c.status), func() bool { return (r.legs.Ready() == nil) == c.ready })
	}
	r.gateway.answering(func(req *http.Request, _ map[string]any) (int, string) { return 401, `{"code":"unauthorized"}` })
	r.until("not ready without an answer", func() bool { return r.legs.Ready() != nil })
}

func TestCallsOfAnEarlierProcessAreEndedAsFailed(t *testing.T) {
	r := newRig(t)
	r.recording(1)
	r.gateway.mu.Lock()
	r.gateway.calls["call-old"] = &gatewayCall{session: "s"}
	r.gateway.mu.Unlock()
	if err := r.legs.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.order("graph status failed call-old", "graph hangup call-old", "gateway delete call-old")
	if r.count("graph status failed call-1") != 0 || r.count("gateway delete call-1") != 0 {
		t.Fatal("a leg in progress was taken for an orphan")
	}
}

func TestALegIsTakenOnceAndOnlyForItsTenant(t *testing.T) {
	r := newRig(t)
	r.invite(invite(1))
	if _, err := r.legs.Take(invite(1), "https://bot.example/x"); err == nil {
		t.Fatal("taken twice")
	}
	foreign := invite(2)
	foreign.Tenant = "22222222-2222-4222-8222-222222222222"
	if _, err := r.legs.Take(foreign, "https://bot.example/x"); err == nil {
		t.Fatal("a foreign call is taken")
	}
}

func TestNoticesSurviveAnOutageAndARestart(t *testing.T) {
	r := newRig(t)
	dir, down := t.TempDir(), &queue{journal: r.journal}
	down.down.Store(true)
	log := r.config.Log
	first, err := session.OpenOutbox(dir, down, log)
	if err != nil {
		t.Fatal(err)
	}
	inv := invite(1)
	inv.Raw = []byte(`"` + strings.Repeat("x", 200<<10) + `"`)
	leg := conversation.LegOf(tenant, inv.Call)
	base := conversation.LegNotice{Tenant: tenant, Leg: leg, Call: inv.Call, Chain: inv.Chain, Recorder: "bot-1", At: inv.At}
	started, ended := base, base
	started.Kind, started.Invite = conversation.LegStarted, &inv
	ended.Kind, ended.Outcome, ended.Bundles = conversation.LegEnded, conversation.OutcomeRecorded, 4
	for _, n := range []conversation.LegNotice{started, ended} {
		if err := first.Put(n); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	if err := first.Run(ctx); err != nil || first.Waiting() != 2 {
		t.Fatalf("%d wait, %v", first.Waiting(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "0-torn.notice.json"), []byte(`{"format":`), 0o600); err != nil {
		t.Fatal(err)
	}
	up := &queue{journal: r.journal}
	second, err := session.OpenOutbox(dir, up, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop = context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { _ = second.Run(ctx); close(over) }()
	r.until("both are sent", func() bool { return second.Waiting() == 0 })
	stop()
	<-over
	if len(up.sent) != 2 || up.sent[0].Kind != conversation.LegStarted || up.sent[1].Bundles != 4 || up.sent[0].Invite.Raw != nil {
		t.Fatalf("sent %+v", up.sent)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 1 || !strings.HasSuffix(left[0], ".bad") {
		t.Fatalf("files left: %v, %v", left, err)
	}
}

func TestAGatewayAddressOffThisMachineIsRefused(t *testing.T) {
	for _, address := range []string{"", "http://10.0.0.1:8771", "http://gateway.example:8771", "https://127.0.0.1:8771", "http://127.0.0.1", "http://user@127.0.0.1:1", "http://127.0.0.1:1/x"} {
		if _, err := session.NewGateway(address, "token"); err == nil {
			t.Errorf("%q is accepted", address)
		}
	}
}
