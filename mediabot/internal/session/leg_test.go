package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"steno/mediabot/internal/session"
	"steno/shared/conversation"
	"steno/shared/teams"
)

var normal = &teams.CallResult{Code: 200, Subcode: 18503}

func TestARecordedLegGoesFromInviteToHandOver(t *testing.T) {
	r := newRig(t)
	c := r.recording(1)
	r.until("a ping", func() bool { return r.media.peer("call-1").pings.Load() > 0 })
	c.roster(person("p-trader", c.inv.Recorded.Party), person("p-2", teams.Party{Kind: teams.PartyPhone, ID: "+15550100"}))
	c.state(teams.CallTerminated, normal)
	n := c.ended()
	if n.Outcome != conversation.OutcomeRecorded || n.Bundles != 7 || n.Packs != 1 || n.Epoch.IsZero() || n.Recorder != "bot-1" || n.Reason != "200/18503" {
		t.Fatalf("notice %+v", n)
	}
	started, ok := r.queue.find(c.leg, conversation.LegStarted)
	if !ok || started.Invite == nil || started.Invite.Recorded.ID != "p-trader" {
		t.Fatalf("started notice %+v", started)
	}
	r.seen("gateway delete call-1")
	r.order("gateway open call-1", "graph answer call-1", "graph status recording call-1", "record call-1 audio-only=false", "gate open call-1",
		"gate closed call-1", "finished call-1 recorded", "gateway delete call-1")
	want := []conversation.EventKind{conversation.EventInvited, conversation.EventEstablished, conversation.EventRecording, conversation.EventRoster, conversation.EventResult, conversation.EventEnded}
	if got := r.media.peer("call-1").rec.Load().kinds(); !slices.Equal(got, want) {
		t.Fatalf("history %v, want %v", got, want)
	}
	r.seen("peer closed call-1")
	if r.count("graph status notRecording call-1") != 0 || r.count("graph hangup call-1") != 0 {
		t.Fatal("a call that is gone was asked for something")
	}
	r.until("the leg is forgotten", func() bool { return r.legs.Count() == 0 })
	if s := r.logs.String(); strings.Contains(s, "canary-token") || strings.Contains(s, "secret") || strings.Contains(s, "+15550100") {
		t.Fatal("the log holds a token, a callback secret or a number")
	}
}

func TestNothingIsKeptBeforeGraphGrantedIt(t *testing.T) {
	for _, status := range []int{400, 403, 404, 500, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.graph.answering(func(op, _ string) int {
				if op == "status recording" {
					return status
				}
				return 0
			})
			c := r.invite(invite(1))
			r.seen("graph answer call-1")
			c.state(teams.CallEstablished, nil)
			r.seen("graph status recording call-1")
			if status >= 500 {
				r.until("a second try", func() bool { return r.count("graph status recording call-1") > 1 })
				c.state(teams.CallTerminated, normal)
			}
			c.ended()
			for _, line := range r.all() {
				if strings.HasPrefix(line, "record ") || strings.HasPrefix(line, "gate open") {
					t.Fatalf("%q without a grant", line)
				}
			}
			r.seen("gateway delete call-1")
		})
	}
}

func TestALegWaitsForBothCallAndPeer(t *testing.T) {
	r := newRig(t)
	r.media.late.Store(true)
	c := r.invite(invite(1))
	r.seen("graph answer call-1")
	c.state(teams.CallEstablished, nil)
	r.until("established", func() bool { return c.status().State == teams.CallEstablished })
	if r.count("graph status recording call-1") != 0 {
		t.Fatal("recording was announced before anything could be recorded")
	}
	r.media.peer("call-1").connect()
	r.seen("gate open call-1")
}

func TestAGatewayThatLearnsOfTheConnectionLaterIsAskedAgain(t *testing.T) {
	r := newRig(t)
	var asked atomic.Int64
	r.gateway.answering(func(req *http.Request, body map[string]any) (int, string) {
		if strings.HasSuffix(req.URL.Path, "/gate") && body["state"] == "open" && asked.Add(1) < 4 {
			return 409, `{"code":"peer_not_connected"}`
		}
		return 0, ""
	})
	r.recording(1)
	if n := r.count("graph status recording call-1"); n != 1 {
		t.Fatalf("recording was announced %d times", n)
	}
}

func TestAnEstablishedNotificationMayOvertakeTheAnswersReply(t *testing.T) {
	r := newRig(t)
	release := make(chan struct{})
	r.graph.answering(func(op, _ string) int {
		if op == "answer" {
			<-release
		}
		return 0
	})
	c := r.invite(invite(1))
	r.seen("graph answer call-1")
	c.state(teams.CallEstablished, nil)
	c.state(teams.CallEstablishing, nil) // late, and without effect
	r.seen("gate open call-1")
	close(release)
	c.state(teams.CallTerminated, normal)
	if n := c.ended(); n.Outcome != conversation.OutcomeRecorded {
		t.Fatalf("outcome %s", n.Outcome)
	}
}

func TestATerminatingCallIsRecordedToItsEnd(t *testing.T) {
	r := newRig(t)
	c := r.recording(1)
	c.state(teams.CallTerminating, nil)
	r.until("terminating", func() bool { return c.status().State == teams.CallTerminating })
	if s := c.status(); !s.Recording || r.count("gate closed call-1") != 0 {
		t.Fatalf("status %+v", s)
	}
	c.state(teams.CallTerminated, normal)
	if n := c.ended(); n.Outcome != conversation.OutcomeRecorded || r.count("graph status notRecording call-1") != 0 {
		t.Fatalf("notice %+v", n)
	}
}

func TestATerminatedCallNeverComesBack(t *testing.T) {
	r := newRig(t)
	c := r.invite(invite(1))
	c.state(teams.CallTerminated, &teams.CallResult{Code: 480, Subcode: 10037})
	c.state(teams.CallEstablished, nil)
	n := c.ended()
	if n.Outcome != conversation.OutcomeEmpty || n.Bundles != 0 {
		t.Fatalf("notice %+v", n)
	}
	if r.count("graph status recording call-1") != 0 {
		t.Fatal("a call that was over was recorded")
	}
}

func TestFiftyInvitesInOneSecondAreAnsweredInTime(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	answered := map[string]time.Time{}
	r.graph.answering(func(op, call string) int {
		if op == "answer" {
			mu.Lock()
			answered[call] = time.Now()
			mu.Unlock()
		}
		return 0
	})
	invited := map[string]time.Time{}
	for i := range 50 {
		inv := invite(i)
		invited[string(inv.Call)] = inv.At
		r.invite(inv)
	}
	r.until("all are answered", func() bool { mu.Lock(); defer mu.Unlock(); return len(answered) == 50 })
	worst := time.Duration(0)
	for call, at := range answered {
		worst = max(worst, at.Sub(invited[call]))
	}
	t.Logf("the slowest of 50 answers took %s", worst)
	if worst > 5*time.Second {
		t.Fatalf("an answer took %s", worst)
	}
}

func TestEveryLegOfACallIsRecordedInItsOwnRight(t *testing.T) {
	r := newRig(t)
	a, b := r.recording(1), r.recording(2) // one chain
	if r.count("graph status recording call-1") != 1 || r.count("graph status recording call-2") != 1 {
		t.Fatal("the legs were not granted apart")
	}
	a.state(teams.CallTerminated, normal)
	a.ended()
	if s := b.status(); !s.Recording {
		t.Fatalf("the other leg is %+v", s)
	}
}

func TestAPauseKeepsNothingAndIsAttributed(t *testing.T) {
	r := newRig(t)
	c := r.recording(1)
	rec := r.media.peer("call-1").rec.Load()
	for range 2 {
		if err := r.legs.Pause(t.Context(), c.leg, boss, "card number"); err != nil {
			t.Fatal(err)
		}
		if rec.keeping() {
			t.Fatal("media is kept after the pause was acknowledged")
		}
	}
	r.seen("graph status notRecording call-1")
	r.order("gate open call-1", "paused paused call-1", "gate closed call-1", "graph status notRecording call-1")
	if len(rec.pauses) != 1 || rec.pauses[0].Actor != boss || rec.pauses[0].Reason != "card number" {
		t.Fatalf("gaps %+v", rec.pauses)
	}
	if s := c.status(); !s.Paused || s.Recording {
		t.Fatalf("status %+v", s)
	}
	if err := r.legs.Resume(t.Context(), c.leg, boss, "card taken"); err != nil {
		t.Fatal(err)
	}
	r.until("recording again", func() bool { return c.status().Recording })
	r.order("graph status notRecording call-1", "graph status recording call-1", "resumed call-1", "gate open call-1")
	if err := r.legs.Pause(t.Context(), "leg-unknown", boss, "x"); !errors.Is(err, session.ErrNoLeg) {
		t.Fatalf("pausing nothing: %v", err)
	}
}

func TestAPauseWhileRecordingBeginsIsNotLost(t *testing.T) {
	r := newRig(t)
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.graph.answering(func(op, _ string) int {
		if op == "status recording" {
			once.Do(func() { close(asked) })
			<-release
		}
		return 0
	})
	c := r.invite(invite(1))
	r.seen("graph answer call-1")
	c.state(teams.CallEstablished, nil)
	<-asked
	paused := make(chan error, 1)
	go func() { paused <- r.legs.Pause(context.Background(), c.leg, boss, "card number") }()
	close(release)
	if err := <-paused; err != nil {
		t.Fatal(err)
	}
	if rec := r.media.peer("call-1").rec.Load(); rec != nil && rec.keeping() {
		t.Fatal("media is kept after the pause was acknowledged")
	}
}

func TestFailuresEndTheLegAsLostAndTellTheParticipants(t *testing.T) {
	for name, c := range map[string]struct {
		do     func(r *rig, c *call)
		reason string
	}{
		"media lost":      {func(r *rig, _ *call) { r.media.peer("call-1").events.Lost(errors.New("ice failed")) }, "media lost"},
		"channel broken":  {func(r *rig, _ *call) { r.media.peer("call-1").broken.Store(true) }, "media lost"},
		"platform failed": {func(r *rig, _ *call) { r.media.peer("call-1").events.Control("failure", []byte(`{"t":"failure"}`)) }, "media platform failed"},
		"unasked bye":     {func(r *rig, _ *call) { r.media.peer("call-1").events.Control("bye", []byte(`{"t":"bye"}`)) }, "gateway ended the call"},
		"another gateway": {func(r *rig, _ *call) { r.media.peer("call-1").events.Control("hello", []byte(`{"instanceId":"x"}`)) }, "gateway is not the one that was asked"},
		"unreadable line": {func(r *rig, _ *call) { r.media.peer("call-1").events.Control("stat", []byte(`{`)) }, "gateway sent an unreadable line"},
		"storage behind": {func(r *rig, _ *call) {
			r.media.peer("call-1").rec.Load().lag.Store(int64(session.DefaultLagLimit + time.Minute))
		}, "evidence cannot be stored"},
		"gateway restarted": {func(r *rig, _ *call) { r.gateway.restart("instance-2") }, "gateway restarted"},
		"gateway dead":      {func(r *rig, _ *call) { r.gateway.srv.CloseClientConnections(); r.gateway.srv.Listener.Close() }, "gateway gone"},
		"gateway hangs": {func(r *rig, _ *call) {
			r.gateway.answering(func(req *http.Request, _ map[string]any) (int, string) { <-req.Context().Done(); return 500, "" })
		}, "gateway gone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			leg := r.recording(1)
			c.do(r, leg)
			n := leg.ended()
			if n.Outcome != conversation.OutcomeLost || n.Reason != c.reason || n.Bundles != 7 {
				t.Fatalf("notice %+v", n)
			}
			r.seen("graph hangup call-1")
			r.order("gate open call-1", "finished call-1 lost", "graph status failed call-1", "graph hangup call-1")
			if r.count("graph status notRecording call-1") != 0 || !strings.Contains(r.logs.String(), "alarm=recording-lost") {
				t.Fatal("no alarm, or the wrong status")
			}
		})
	}
}

func TestAGatewayThatDoesNotOpenLeavesTheInviteToOthers(t *testing.T) {
	good := func(r *rig, id string) string {
		r.gateway.calls[id] = &gatewayCall{session: "s"}
		return r.gateway.opened(id)
	}
	for name, reply := range map[string]func(r *rig) (int, string){
		"full":         func(*rig) (int, string) { return 429, `{"code":"call_limit"}` },
		"draining":     func(*rig) (int, string) { return 503, `{"code":"draining"}` },
		"not JSON":     func(*rig) (int, string) { return 201, `<html>` },
		"another call": func(r *rig) (int, string) { return 201, good(r, "call-9") },
		"without blob": func(r *rig) (int, string) { return 201, strings.Replace(good(r, "call-1"), `"blob"`, `"blub"`, 1) },
		"without offer": func(r *rig) (int, string) {
			return 201, strings.Replace(good(r, "call-1"), `"type":"offer"`, `"type":"answer"`, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.gateway.answering(func(req *http.Request, _ map[string]any) (int, string) {
				if req.Method == http.MethodPost && req.URL.Path == "/v1/calls" {
					return reply(r)
				}
				return 0, ""
			})
			n := r.invite(invite(1)).ended()
			if n.Outcome != conversation.OutcomeLost || n.Bundles != 0 || n.Reason == "" {
				t.Fatalf("notice %+v", n)
			}
			for _, line := range r.all() {
				if strings.HasPrefix(line, "graph") {
					t.Fatalf("%q for an invite that was not answered", line)
				}
			}
		})
	}
}

func TestASlowGatewayIsAskedOnceMore(t *testing.T) {
	r := newRig(t)
	var once sync.Once
	r.gateway.answering(func(req *http.Request, _ map[string]any) (int, string) {
		if req.Method == http.MethodPost && req.URL.Path == "/v1/calls" {
			once.Do(func() { <-req.Context().Done() })
		}
		return 0, ""
	})
	begin := time.Now()
	r.invite(invite(1))
	r.seen("graph answer call-1")
	if d := time.Since(begin); d > 5*time.Second {
		t.Fatalf("answered after %s", d)
	}
}

func TestAnAnswerThatComesTooLateIsALoss(t *testing.T) {
	r := newRig(t)
	r.graph.answering(func(op, _ string) int {
		if op == "answer" {
			return 403
		}
		return 0
	})
	if n := r.invite(invite(1)).ended(); n.Outcome != conversation.OutcomeLost || n.Reason != "call not answered" {
		t.Fatalf("refused: %+v", n)
	}
	late := invite(2)
	late.At = late.At.Add(-10 * time.Second)
	if n := r.invite(late).ended(); n.Outcome != conversation.OutcomeLost {
		t.Fatalf("late: %+v", n)
	}
	r.graph.answering(func(op, _ string) int {
		if op == "answer" {
			return 404
		}
		return 0
	})
	if n := r.invite(invite(3)).ended(); n.Outcome != conversation.OutcomeEmpty {
		t.Fatalf("the caller hung up: %+v", n)
	}
}

func TestAClosedGateIsOpenedAgainAFewTimes(t *testing.T) {
	r := newRig(t)
	c := r.recording(1)
	lease := []byte(`{"t":"gate","state":"ready","reason":"lease_expired"}`)
	for i := range 5 {
		r.media.peer("call-1").events.Control("gate", lease)
		r.until("the gate is open again", func() bool { return r.count("gate open call-1") == i+2 })
		r.until("the step is over", func() bool { return c.status().Recording })
	}
	r.media.peer("call-1").events.Control("gate", lease)
	if n := c.ended(); n.Outcome != conversation.OutcomeLost || n.Reason != "the gateway keeps closing its gate" {
		t.Fatalf("notice %+v", n)
	}
	if r.count("graph status recording call-1") != 1 {
		t.Fatal("Graph was asked for what it had granted")
	}
}

func TestAGateThatIsClosedWhileItIsOpenedIsOpenedAgain(t *testing.T) {
	r := newRig(t)
	var once sync.Once
	r.gateway.answering(func(req *http.Request, body map[string]any) (int, string) {
		if strings.HasSuffix(req.URL.Path, "/gate") && body["state"] == "open" {
			once.Do(func() {
				r.media.peer("call-1").events.Control("gate", []byte(`{"t":"gate","state":"open"}`))
				r.media.peer("call-1").events.Control("gate", []byte(`{"t":"gate","state":"closed","reason":"lease_expired"}`))
			})
		}
		return 0, ""
	})
	c := r.recording(1)
	r.until("the gate is open again", func() bool { return r.count("gate open call-1") == 2 })
	c.state(teams.CallTerminated, normal)
	if n := c.ended(); n.Outcome != conversation.OutcomeRecorded {
		t.Fatalf("notice %+v", n)
	}
}

func TestAStoppedRecorderEndsItsLegs(t *testing.T) {
	r := newRig(t)
	inner, err := session.New(r.config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- inner.Run(ctx) }()
	update, err := inner.Take(invite(1), "https://bot.example/x")
	if err != nil {
		t.Fatal(err)
	}
	r.seen("graph answer call-1")
	update(teams.CallUpdate{At: time.Now(), State: teams.CallEstablished})
	r.seen("gate open call-1")
	stop()
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	r.order("finished call-1 lost", "graph status failed call-1", "graph hangup call-1")
}

func TestARecordingThatCannotBeSealedHasNoEndedNotice(t *testing.T) {
	r := newRig(t)
	c := r.recording(1)
	r.media.full.Store(true)
	c.state(teams.CallTerminated, normal)
	r.until("the leg is over", func() bool { return r.legs.Count() == 0 })
	if _, ok := r.queue.find(c.leg, conversation.LegEnded); ok || !strings.Contains(r.logs.String(), "alarm=not-sealed") {
		t.Fatal("a leg that is not in evidence was reported as ended, or without alarm")
	}
}

func TestAHandOverMayComeLongAfterTheLegIsOver(t *testing.T) {
	r := newRig(t)
	c := r.recording(1)
	rec := r.media.peer("call-1").rec.Load()
	rec.mu.Lock()
	rec.hold = true
	rec.mu.Unlock()
	c.state(teams.CallTerminated, normal)
	r.until("the leg is over", func() bool { return r.legs.Count() == 0 })
	if _, ok := r.queue.find(c.leg, conversation.LegEnded); ok {
		t.Fatal("ended before it was handed over")
	}
	rec.handed(session.Handed{Bundles: 3})
	if n := c.ended(); n.Bundles != 3 {
		t.Fatalf("notice %+v", n)
	}
}
