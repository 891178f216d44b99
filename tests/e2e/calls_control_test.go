package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
	"steno/tests/local/entra"
	"steno/tests/sim"
	"steno/tests/sim/gateway"
	"steno/tests/world"
)

// post sends JSON to the recorder and returns the status of its answer.
func post(ctx context.Context, w *world.World, url, token string, body []byte) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := w.CA.Client().Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}

// control asks the recorder's control API for something about a leg.
func control(t *testing.T, w *world.World, leg conversation.LegID, verb, token, reason string) int {
	t.Helper()
	body, err := json.Marshal(map[string]string{"reason": reason})
	if err != nil {
		t.Fatal(err)
	}
	status, err := post(t.Context(), w, fmt.Sprintf("%s/steno/control/legs/%s/%s", w.Bot.Origin, leg, verb), token, body)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func TestWhatIsSaidDuringAPauseIsNotKeptAndTheRecordSaysWhoPausedAndWhy(t *testing.T) {
	w, a, log := startCalls(t, world.Config{})
	users := recordedUsers(w)
	call := place(t, w, sim.CallPlan{Talk: sim.AllAtOnce, Parties: []sim.Party{{Person: users[0], Recorded: true}, {Phone: "+493012345682"}, {Guest: "Visitor"}}})
	recording(t, call)
	leg := legOf(w, call.Legs()[0])
	token := w.ControlToken(users[3])
	refused := map[string]string{
		"none":      "",
		"garbage":   "not.a.token",
		"audience":  w.Entra.Mint(w.Entra.PersonClaims(entra.Person{ID: string(users[3])}, world.Audience, world.App, "Recording.Control")),
		"client":    w.Entra.Mint(w.Entra.PersonClaims(entra.Person{ID: string(users[3])}, world.BotControl, world.Client, "Recording.Control")),
		"right":     w.Entra.Mint(w.Entra.PersonClaims(entra.Person{ID: string(users[3])}, world.BotControl, world.App, "Archive.Read")),
		"signature": token[:len(token)-8] + "AAAAAAAA",
	}
	for what, bad := range refused {
		if got := control(t, w, leg, "pause", bad, "card number"); got != http.StatusUnauthorized && got != http.StatusForbidden {
			t.Errorf("pause with a wrong token (%s): %d", what, got)
		}
	}
	talk(t, 4*time.Second)
	if got := statuses(call.Legs()[0]); !slices.Equal(got, []string{"recording"}) {
		t.Fatalf("after refused requests the participants were told %q", got)
	}
	if got := control(t, w, leg, "pause", token, "card number"); got != http.StatusOK {
		t.Fatalf("pause: %d", got)
	}
	paused := time.Now()
	talk(t, 5*time.Second)
	resumed := time.Now()
	if got := control(t, w, leg, "resume", token, "card number taken"); got != http.StatusOK {
		t.Fatalf("resume: %d", got)
	}
	eventually(t, 10*time.Second, "the second recording status", func() bool { return len(call.Legs()[0].Statuses) == 3 })
	again := time.Now()
	talk(t, 4*time.Second)
	call.End()

	legs, manifests := sealed(t, w, a, log, call)
	m, info := manifests[0], call.Legs()[0]
	if legs[0].Outcome != conversation.OutcomeRecorded {
		t.Errorf("the leg is %s: %s", legs[0].Outcome, legs[0].Reason)
	}
	if got := statuses(info); !slices.Equal(got, []string{"recording", "notRecording", "recording"}) {
		t.Errorf("the participants were told %q", got)
	}
	if d := info.Statuses[1].At.Sub(paused); d > 2*time.Second {
		t.Errorf("the pause was announced after %s", d)
	}
	said(t, a, call, m, world.RecordedFrom(info).Add(world.Settle), paused.Add(-2*time.Second))
	said(t, a, call, m, again.Add(world.Settle), legs[0].To.Add(-world.Settle))
	notKept(t, a, call, m, paused, resumed)
	if len(m.Tracks) != 3 {
		t.Errorf("%d tracks of 3 who spoke", len(m.Tracks))
	}
	for _, tr := range m.Tracks {
		told := paused // up to where gaps say without a break who paused and why; they are cut where bundles are
		for _, g := range tr.Gaps {
			if g.Kind == conversation.GapPaused && g.Actor == teams.PersonID(users[3]) && g.Reason == "card number" && !g.From.After(told.Add(gateway.TickLength)) && g.To.After(told) {
				told = g.To
			}
		}
		if told.Before(resumed.Add(-gateway.TickLength)) {
			t.Errorf("track %s says who paused until %s, of [%s, %s): %+v", tr.Track, told, paused, resumed, tr.Gaps)
		}
	}
	wallTime(t, a, m)
}

// notKept checks that no packet of speech sent in [from, to) is in a leg, though much was.
func notKept(t *testing.T, a *world.Archive, call *sim.Call, m conversation.Manifest, from, to time.Time) {
	t.Helper()
	sent := map[[32]byte]bool{}
	for _, u := range call.Truth().Utterances {
		for n, packet := range u.Packets {
			if at := u.From.Add(time.Duration(n) * gateway.TickLength); !at.Before(from) && at.Before(to) {
				sent[sha256.Sum256(packet)] = true
			}
		}
	}
	// Pauses of speech are coded alike: a packet that was sent at another time too may be
	// there rightly.
	for _, u := range call.Truth().Utterances {
		for n, packet := range u.Packets {
			if at := u.From.Add(time.Duration(n) * gateway.TickLength); at.Before(from) || !at.Before(to) {
				delete(sent, sha256.Sum256(packet))
			}
		}
	}
	kept := 0
	err := a.Frames(t.Context(), m, func(f world.Frame) {
		if sent[sha256.Sum256(f.Data)] {
			kept++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if kept > 0 || len(sent) < 100 {
		t.Errorf("%d of %d frames that were sent while nothing was to be kept are in the archive", kept, len(sent))
	}
}

func TestARecorderThatDrainsFinishesItsCallsAndTakesNoOthers(t *testing.T) {
	w, a, log := startCalls(t, world.Config{})
	users := recordedUsers(w)
	call := place(t, w, sim.CallPlan{Talk: sim.AllAtOnce, Parties: []sim.Party{{Person: users[0], Recorded: true}, {Guest: "Visitor"}, {Phone: "+493012345683"}}})
	recording(t, call)
	talk(t, 3*time.Second)
	ended := make(chan error, 1)
	go func() { ended <- w.Bot.Drain() }()
	eventually(t, time.Second, "the probe's refusal", func() bool {
		ready, err := w.Bot.Ready(t.Context())
		return !ready && err == nil
	})
	late := place(t, w, sim.CallPlan{Parties: []sim.Party{{Person: users[1], Recorded: true}, {Guest: "Late"}, {Phone: "+493012345684"}}})
	eventually(t, 5*time.Second, "the answer to the late invite", func() bool { return len(late.Legs()[0].Deliveries) > 0 })
	if d := late.Legs()[0].Deliveries[0]; d.Status != http.StatusServiceUnavailable {
		t.Errorf("an invite while draining was answered %d, %v", d.Status, d.Err)
	}
	talk(t, 4*time.Second)
	select {
	case err := <-ended:
		t.Fatalf("the recorder ended in the middle of a call: %v", err)
	default:
	}
	call.End()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the recorder ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("the recorder did not end\n%s", tail(log.String(), 3000))
	}
	r := compare(t, a, log, call)
	t.Logf("%+v", r)
	if n := strings.Count(log.String(), `"msg":"recorder ended"`); n != 1 {
		t.Errorf("%d recorders ended", n)
	}
}
