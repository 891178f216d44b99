package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/media"
	"steno/shared/teams"
	"steno/tests/sim"
	"steno/tests/world"
)

// sealed waits until every leg of a call is sealed, and returns their manifests.
func sealed(t *testing.T, w *world.World, a *world.Archive, log *lines, call *sim.Call) (legs []conversation.Leg, manifests []conversation.Manifest) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	got, err := a.Sealed(ctx, call)
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(log.String(), 6000))
	}
	for _, info := range call.Legs() {
		leg, ok := got.Leg(legOf(w, info))
		if !ok {
			t.Fatalf("leg %s is not in the archive", info.ID)
		}
		m, err := a.Manifest(ctx, leg)
		if err != nil {
			t.Fatal(err)
		}
		legs, manifests = append(legs, leg), append(manifests, m)
	}
	if len(got.Legs) != len(legs) {
		t.Errorf("%d legs in the archive, %d were invited", len(got.Legs), len(legs))
	}
	return legs, manifests
}

func legOf(w *world.World, info sim.LegInfo) conversation.LegID {
	return conversation.LegOf(teams.TenantID(w.Tenant.ID()), teams.CallID(info.ID))
}

// recording waits until every leg of a call has been told to record.
func recording(t *testing.T, call *sim.Call) {
	t.Helper()
	eventually(t, 30*time.Second, "the recording status", func() bool {
		legs := call.Legs()
		return len(legs) > 0 && !slices.ContainsFunc(legs, func(l sim.LegInfo) bool { return world.RecordedFrom(l).IsZero() })
	})
}

// eventually waits for a condition.
func eventually(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("waited %s in vain for %s", within, what)
		}
		talk(t, 50*time.Millisecond)
	}
}

// said checks that what was said in [from, to) is in a leg, and that no stretch of it is
// there twice.
func said(t *testing.T, a *world.Archive, call *sim.Call, m conversation.Manifest, from, to time.Time) world.CallReport {
	t.Helper()
	var r world.CallReport
	if err := a.CompareSpeech(t.Context(), m, call.Truth(), from, to, &r); err != nil {
		t.Fatal(err)
	}
	if !r.OK() || r.Frames == 0 {
		t.Errorf("leg %s, [%s, %s): %+v", m.Leg, from.Format(time.TimeOnly), to.Format(time.TimeOnly), r)
		for _, l := range m.Lanes() {
			t.Logf("lane %s %s of %q: %d segments", l.ID, l.Kind, world.PartyOf(l), len(l.Segments))
		}
	}
	once(t, a, m)
	return r
}

// once checks that no packet of speech lies twice in a track at about the same time.
func once(t *testing.T, a *world.Archive, m conversation.Manifest) {
	t.Helper()
	type packet struct {
		track conversation.TrackID
		sum   [32]byte
	}
	at := map[packet]time.Time{}
	twice := 0
	err := a.Frames(t.Context(), m, func(f world.Frame) {
		if f.Kind != conversation.AudioTrack || bytes.Equal(f.Data, media.Silence()) {
			return
		}
		k := packet{f.Track, sha256.Sum256(f.Data)}
		if was, ok := at[k]; ok && f.At.Sub(was).Abs() < time.Second {
			twice++
		}
		at[k] = f.At
	})
	if err != nil {
		t.Fatal(err)
	}
	if twice > 0 || len(at) == 0 {
		t.Errorf("leg %s: %d of %d frames of speech lie there twice", m.Leg, twice, len(at))
	}
}

// alarms counts the lines of a named alarm.
func alarms(log *lines, name string) int { return strings.Count(log.String(), `"alarm":"`+name+`"`) }

func TestWhatWasSaidUpToASecondBeforeTheRecorderWasKilledIsInTheArchiveOnce(t *testing.T) {
	w, a, log := startCalls(t, world.Config{})
	users := recordedUsers(w)
	first := place(t, w, sim.CallPlan{Talk: sim.AllAtOnce, Parties: []sim.Party{{Person: users[0], Recorded: true}, {Person: users[1], Recorded: true}, {Guest: "Visitor"}}})
	recording(t, first)
	talk(t, 8*time.Second)
	killed := []time.Time{kill(t, w)}
	restart(t, w, log)
	second := place(t, w, sim.CallPlan{Talk: sim.AllAtOnce, Parties: []sim.Party{{Person: users[2], Recorded: true}, {Person: users[3], Recorded: true}, {Guest: "Other"}}})
	recording(t, second)
	talk(t, 3*time.Second)
	killed = append(killed, kill(t, w))
	restart(t, w, log)
	for i, call := range []*sim.Call{first, second} {
		legs, manifests := sealed(t, w, a, log, call)
		for k, m := range manifests {
			info := call.Legs()[k]
			r := said(t, a, call, m, world.RecordedFrom(info).Add(world.Settle), killed[i].Add(-time.Second))
			t.Logf("call %d: %+v", i, r)
			if legs[k].Outcome != conversation.OutcomeLost || !strings.Contains(legs[k].Reason, "stopped in the middle of the call") {
				t.Errorf("leg %s is %s: %q, want lost for the recorder's end", m.Leg, legs[k].Outcome, legs[k].Reason)
			}
			if last := info.Statuses[len(info.Statuses)-1]; last.Status != "failed" {
				t.Errorf("the participants were told %s last, want failed", last.Status)
			}
			if info.State != "terminated" || info.Result != sim.EndedByRecorder {
				t.Errorf("the recorder's own leg is %s: %+v", info.State, info.Result)
			}
		}
		if n := len(call.Participants()); n != 3 {
			t.Errorf("%d participants are left of 3", n)
		}
	}
	if alarms(log, "orphaned-call") != 4 {
		t.Errorf("%d alarms for 4 orphaned legs\n%s", alarms(log, "orphaned-call"), tail(log.String(), 6000))
	}
}

// kill ends the recorder without a warning, and returns when.
func kill(t *testing.T, w *world.World) time.Time {
	t.Helper()
	at := time.Now()
	if err := w.Bot.Kill(); err != nil {
		t.Fatal(err)
	}
	return at
}

func restart(t *testing.T, w *world.World, log *lines) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := w.Bot.Start(ctx, log); err != nil {
		t.Fatalf("%v\n%s", err, tail(log.String(), 4000))
	}
}
