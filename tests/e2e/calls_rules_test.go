package e2e_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/tests/sim"
	"steno/tests/world"
)

// startWithRules starts a world whose equities desk is recorded with external parties
// only, whose rates desk is recorded without screens, and whose compliance officers are
// never recorded. The recorder has read them.
func startWithRules(t *testing.T) (*world.World, *world.Archive, *lines) {
	t.Helper()
	groups, err := json.Marshal([]map[string]any{
		{"role": "recordedUser", "group": sim.RecordedEquities, "desk": "equities", "recording": map[string]string{"when": "external"}},
		{"role": "recordedUser", "group": sim.RecordedRates, "desk": "rates", "recording": map[string]string{"media": "audio"}},
		{"role": "neverRecorded", "group": sim.Compliance},
		{"role": "administrator", "group": sim.Administrators},
	})
	if err != nil {
		t.Fatal(err)
	}
	w, a, log := startCalls(t, world.Config{Settings: map[string]string{"STENO_ROLE_GROUPS": string(groups)}})
	if err := w.Bot.Drain(); err != nil { // its rules are from before the groups were read
		t.Fatal(err)
	}
	restart(t, w, log)
	return w, a, log
}

// only returns somebody who is in the first group and in none of the others.
func only(t *testing.T, w *world.World, group string, others ...string) sim.PersonID {
	t.Helper()
	for _, p := range w.Tenant.UsersIn(group) {
		if !slices.ContainsFunc(others, func(g string) bool { return slices.Contains(w.Tenant.UsersIn(g), p) }) {
			return p
		}
	}
	t.Fatalf("nobody is in %s alone", group)
	return ""
}

func TestRulesSayWhoIsRecordedWithWhomAndWithWhat(t *testing.T) {
	w, a, log := startWithRules(t)
	never := only(t, w, sim.Compliance)
	trader := only(t, w, sim.RecordedEquities, sim.Compliance, sim.RecordedRates)
	rates := only(t, w, sim.RecordedRates, sim.Compliance, sim.RecordedEquities)
	colleague := only(t, w, sim.Administrators, sim.Compliance, sim.RecordedEquities, sim.RecordedRates)

	excluded := place(t, w, sim.CallPlan{Talk: sim.AllAtOnce, Parties: []sim.Party{{Person: never, Recorded: true}, {Guest: "Visitor"}, {Person: colleague}}})
	internal := place(t, w, sim.CallPlan{Kind: sim.Conferred, Talk: sim.AllAtOnce, Parties: []sim.Party{{Person: trader, Recorded: true}, {Person: colleague}}})
	audio := place(t, w, sim.CallPlan{Talk: sim.AllAtOnce, Parties: []sim.Party{{Person: rates, Recorded: true}, {Guest: "Visitor"}, {Person: colleague}}})
	recording(t, audio)
	people := audio.Participants()
	if err := audio.Share(people[1], true); err != nil {
		t.Fatal(err)
	}
	if err := audio.Show(people[0], true); err != nil {
		t.Fatal(err)
	}
	talk(t, 4*time.Second)
	if got := statuses(internal.Legs()[0]); slices.Contains(got, "recording") {
		t.Errorf("with colleagues alone the participants were told %q", got)
	}
	joined := time.Now()
	if _, err := internal.Join(sim.Party{Phone: "+442079460002"}); err != nil {
		t.Fatal(err)
	}
	recording(t, internal)
	talk(t, 5*time.Second)
	for _, c := range []*sim.Call{excluded, internal, audio} {
		c.End()
	}

	legs, manifests := sealed(t, w, a, log, excluded)
	if m := manifests[0]; legs[0].Outcome != conversation.OutcomeExcluded || len(m.Packs)+len(m.Bundles)+len(m.Tracks) > 0 {
		t.Errorf("the leg of somebody who is never recorded is %s, with %d packs and %d tracks", legs[0].Outcome, len(m.Packs), len(m.Tracks))
	}
	if got := statuses(excluded.Legs()[0]); slices.Contains(got, "recording") {
		t.Errorf("beside somebody who is never recorded the participants were told %q", got)
	}

	legs, manifests = sealed(t, w, a, log, internal)
	if legs[0].Outcome != conversation.OutcomeRecorded {
		t.Errorf("the leg with an external party is %s: %s", legs[0].Outcome, legs[0].Reason)
	}
	from := world.RecordedFrom(internal.Legs()[0])
	notKept(t, a, internal, manifests[0], joined.Add(-4*time.Second), joined)
	said(t, a, internal, manifests[0], from.Add(world.Settle), legs[0].To.Add(-world.Settle))

	legs, manifests = sealed(t, w, a, log, audio)
	said(t, a, audio, manifests[0], world.RecordedFrom(audio.Legs()[0]).Add(world.Settle), legs[0].To.Add(-world.Settle))
	if n := len(audio.Truth().Pictures); n < 10 {
		t.Errorf("%d pictures were shown", n)
	}
	for _, tr := range manifests[0].Tracks {
		if tr.Kind != conversation.AudioTrack {
			t.Errorf("track %s is in a record of sound alone", tr.Track)
		}
	}
	if n := alarms(log, "recording-lost"); n > 0 {
		t.Errorf("%d alarms of lost recordings", n)
	}
}

func TestCallsWithoutAConversationAreSealedAsEmptyWithoutAnAlarm(t *testing.T) {
	w, a, log := startCalls(t, world.Config{})
	users := recordedUsers(w)
	missed := place(t, w, sim.CallPlan{Missed: true, Talk: sim.Silent, Parties: []sim.Party{{Person: users[0], Recorded: true, Caller: true}, {Phone: "+442079460003"}}})
	lobby := place(t, w, sim.CallPlan{Talk: sim.Silent, Ringing: time.Minute, Parties: []sim.Party{{Person: users[1], Recorded: true, Lobby: true}, {Guest: "Host"}, {Guest: "Other"}}})
	ringing := place(t, w, sim.CallPlan{Talk: sim.Silent, Ringing: time.Minute, Parties: []sim.Party{{Person: users[2], Recorded: true}, {Phone: "+442079460004", Caller: true}}})
	talk(t, 3*time.Second)
	if err := lobby.TimeOutInLobby(lobby.Participants()[0]); err != nil {
		t.Fatal(err)
	}
	ringing.Break(sim.NotPickedUp)
	for name, call := range map[string]*sim.Call{"missed": missed, "lobby": lobby, "never answered": ringing} {
		legs, _ := sealed(t, w, a, log, call)
		if legs[0].Outcome != conversation.OutcomeEmpty {
			t.Errorf("%s: the leg is %s: %s", name, legs[0].Outcome, legs[0].Reason)
		}
		if got := statuses(call.Legs()[0]); slices.Contains(got, "failed") {
			t.Errorf("%s: the participants were told %q", name, got)
		}
		call.End()
	}
	for _, name := range []string{"recording-lost", "media-lost", "not-answered", "recording-not-begun", "gateway"} {
		if n := alarms(log, name); n > 0 {
			t.Errorf("%d alarms of %s", n, name)
		}
	}
}
