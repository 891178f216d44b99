package e2e_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"steno/shared/policy"
	"steno/shared/teams"
	"steno/tests/sim"
	"steno/tests/world"
)

// ask is a message for the queue lookback.
func ask(t *testing.T, w *world.World, scope map[string][]string, from, to time.Time) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{
		"scope": scope, "from": from.Format(time.RFC3339), "to": to.Format(time.RFC3339),
		"reason": "asked for by the regulator", "requestedBy": w.Officers()[0],
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestALookBackReadsWhatWasWrittenBeforeAnybodyWasRecordedAndTwiceAddsNothing starts with a
// tenant of which nothing older than the recording is captured.
func TestALookBackReadsWhatWasWrittenBeforeAnybodyWasRecordedAndTwiceAddsNothing(t *testing.T) {
	w, _ := start(t, world.Config{Sim: sim.Config{Seed: 11, People: 30, Messages: 400}, Settings: map[string]string{"STENO_EXPORT_HISTORY": "0s", "STENO_LOOKBACK_IN_FLIGHT": "8"}})
	runTimer(t, w, "groupsync")
	a, err := w.Archive()
	if err != nil {
		t.Fatal(err)
	}
	g, _ := w.Tenant.Group(sim.RecordedEquities)
	var team string
	for _, x := range w.Tenant.Teams() {
		if x.Name == "Trading Floor" {
			team = x.ID
		}
	}
	now := time.Now().UTC().Truncate(time.Second)
	for _, body := range []string{
		ask(t, w, map[string][]string{"groups": {g.ID}}, now.AddDate(0, 0, -11), now),
		ask(t, w, map[string][]string{"teams": {team}}, now.AddDate(0, 0, -11), now),
		ask(t, w, map[string][]string{"users": {string(w.Officers()[0])}}, now.AddDate(0, 0, -11), now), // not recorded
	} {
		if err := w.Lookback(t.Context(), body); err != nil {
			t.Fatal(err)
		}
	}
	jobs, err := w.LookedBack(t.Context(), a, 3)
	if err != nil {
		t.Fatal(err)
	}
	states := map[policy.LookbackState]int{}
	returned := 0
	for _, j := range jobs {
		states[j.State]++
		returned += j.Returned
		if j.State == policy.LookbackDone && (j.New == 0 || j.Finished() != j.Windows || j.Failed != 0) {
			t.Errorf("job %+v", j)
		}
	}
	if states[policy.LookbackDone] != 2 || states[policy.LookbackRefused] != 1 || w.Bus.Depth("parked").Active != 1 {
		t.Fatalf("states %v, %d parked", states, w.Bus.Depth("parked").Active)
	}
	mine := map[sim.PersonID]bool{}
	for _, p := range w.Tenant.UsersIn(g.ID) {
		mine[p] = true
	}
	type key struct{ thread, message, etag string }
	want := map[key]bool{}
	for _, v := range w.Tenant.History() {
		in := v.Channel && v.Team == team
		for _, p := range v.Participants {
			in = in || !v.Channel && mine[p]
		}
		if in && v.CurrentTo.IsZero() && v.LastModified.Before(now) {
			want[key{string(v.Thread), v.MessageID, v.ETag}] = true
		}
	}
	got := map[key]int{}
	for _, item := range contents(t, w).Items {
		m := item.Message
		got[key{string(m.Thread), string(m.VersionKey.Message), string(m.ETag)}]++
	}
	for k := range want {
		if got[k] != 1 {
			t.Errorf("%v is archived %d times, want once", k, got[k])
		}
	}
	before, asked := len(got), time.Now()
	if err := w.Lookback(t.Context(), ask(t, w, map[string][]string{"groups": {g.ID}}, now.AddDate(0, 0, -11), now)); err != nil {
		t.Fatal(err)
	}
	for again := false; !again; {
		if jobs, err = w.LookedBack(t.Context(), a, 3); err != nil || time.Since(asked) > time.Minute {
			t.Fatalf("the job does not run again: %v", err)
		}
		for _, j := range jobs {
			if len(j.Scope.Groups) > 0 && j.MadeAt.After(asked) {
				again = true
				if j.New != 0 || j.Returned == 0 {
					t.Errorf("again: %d new of %d returned", j.New, j.Returned)
				}
			}
		}
	}
	if n := len(contents(t, w).Items); n != before {
		t.Errorf("%d versions are archived, %d before", n, before)
	}
}

// TestADeletedTeamIsReadUpToItsDeletion deletes a recorded team with messages that nobody
// has read yet.
func TestADeletedTeamIsReadUpToItsDeletion(t *testing.T) {
	w, _ := start(t, world.Config{Sim: sim.Config{Seed: 12, People: 30, Messages: 300}})
	runTimer(t, w, "groupsync")
	first := export(t, w)
	var team sim.Team
	for _, x := range w.Tenant.Teams() {
		if x.Name == "Trading Floor" {
			team = x
		}
	}
	var channel sim.Thread
	for _, th := range w.Tenant.Threads() {
		if th.Team == team.ID && len(th.Members) > 0 {
			channel = th
		}
	}
	last, err := w.Tenant.Send(channel.ID, channel.Members[0], "<p>The last word</p>")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Tenant.DeleteTeam(team.ID); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // Graph names the second of a deletion
	runTimer(t, w, "groupsync")
	wantComplete(t, w, first, export(t, w))
	a, err := w.Archive()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, item := range contents(t, w).Items {
		found = found || string(item.Message.VersionKey.Message) == last.ID
	}
	periods, err := a.Roster.PeriodsOf(t.Context(), teams.PersonID(team.ID))
	if err != nil || len(periods) != 1 || periods[0].Open() || !found {
		t.Errorf("the last word is archived: %t; periods %+v, %v", found, periods, err)
	}
	failures, err := a.Failures.AllFailures(t.Context())
	if err != nil || len(failures) != 0 {
		t.Errorf("not read are %+v, %v", failures, err)
	}
	if _, err := w.Tenant.AddTeam("Project Z", channel.Members[0]); err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprint(periods)
	runTimer(t, w, "groupsync")
	found = false
	all, err := a.Roster.Periods(t.Context(), policy.RecordedTeam)
	if err != nil {
		t.Fatal(err)
	}
	facts := map[teams.PersonID]bool{}
	for _, p := range all {
		facts[p.Person] = true
	}
	for _, x := range w.Tenant.Teams() {
		found = found || x.Name == "Project Z" && facts[teams.PersonID(x.ID)]
	}
	if again, err := a.Roster.PeriodsOf(t.Context(), teams.PersonID(team.ID)); err != nil || fmt.Sprint(again) != before || !found {
		t.Errorf("the new team is recorded: %t; the old one's periods were %s and are %v, %v", found, before, again, err)
	}
}

// TestWhatRetentionKeptIsArchivedToo reads versions that were edited or deleted away before
// anything was exported, of chats and of channels.
func TestWhatRetentionKeptIsArchivedToo(t *testing.T) {
	w, _ := start(t, world.Config{
		Sim:      sim.Config{Seed: 13, People: 30, Messages: 500, Retention: true},
		Settings: map[string]string{"STENO_RETAINED_MESSAGES": "true", "STENO_RETAINED_DELAY": "1ms"},
	})
	runTimer(t, w, "groupsync")
	wantComplete(t, w, export(t, w))
	type key struct{ thread, message, etag string }
	gone := map[key]bool{} // and whether it was in a channel
	for _, v := range w.Tenant.History() {
		if !v.CurrentTo.IsZero() {
			gone[key{string(v.Thread), v.MessageID, v.ETag}] = v.Channel
		}
	}
	found := map[bool]int{}
	for _, item := range contents(t, w).Items {
		m := item.Message
		if channel, ok := gone[key{string(m.Thread), string(m.VersionKey.Message), string(m.ETag)}]; ok {
			found[channel]++
		}
	}
	if found[false] == 0 || found[true] == 0 {
		t.Errorf("%d versions of chats and %d of channels that stood no more are archived", found[false], found[true])
	}
}
