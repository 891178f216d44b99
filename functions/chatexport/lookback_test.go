package chatexport_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"steno/functions/internal/funchost"
	"steno/shared/conversation"
	"steno/shared/policy"
	"steno/shared/teams"
)

const (
	job    = "0123456789abcdef0123456789abcdef"
	nobody = teams.PersonID("eeeeeeee-eeee-4eee-8eee-eeeeeeeeeeee") // was never recorded
)

// lookback is a window of a look-back, and running the job that it belongs to.
func lookback(p teams.PersonID) conversation.Window {
	w := window(p)
	w.Pass, w.Job = conversation.LookbackPass, job
	return w
}

func (r *rig) running(custodians ...teams.PersonID) {
	r.t.Helper()
	err := r.jobs.Insert(r.t.Context(), policy.Lookback{ID: job, Custodians: custodians, From: from, To: to, State: policy.LookbackRunning, StartedAt: time.Now().Add(-time.Minute)})
	if err != nil {
		r.t.Fatal(err)
	}
}

// restart begins the job anew.
func (r *rig) restart() {
	r.t.Helper()
	j, err := r.jobs.Get(r.t.Context(), job)
	if err != nil {
		r.t.Fatal(err)
	}
	j.StartedAt = time.Now()
	if err := r.jobs.Replace(r.t.Context(), j); err != nil {
		r.t.Fatal(err)
	}
}

func TestAWindowOfARunningLookBackIsReadBeforeAnybodyWasRecorded(t *testing.T) {
	r := newRig(t)
	const carol = teams.PersonID("dddddddd-dddd-4ddd-8ddd-dddddddddddd")
	if err := r.roster.Apply(t.Context(), policy.Change{Opened: []policy.Period{{Person: carol, Role: policy.RecordedUser, Desk: "d", From: to.AddDate(0, 0, 7)}}}); err != nil {
		t.Fatal(err)
	}
	r.running(carol)
	r.graph.say(thread1, "101", "101", at(1), at(1), "one", carol)
	for run, wantNew := range []int{1, 1, 0} { // redelivered, and asked for again: twice adds nothing
		if run == 2 {
			r.restart()
		}
		if err := r.process(&mortality{}).Handle(t.Context(), message(t, lookback(carol))); err != nil {
			t.Fatal(err)
		}
		done, err := r.catalog.FinishedWindows(t.Context(), carol, conversation.LookbackPass, from, to)
		if err != nil || len(done) != 1 || done[0].Job != job || done[0].Returned != 1 || done[0].New != wantNew {
			t.Errorf("run %d: the window's record is %+v, %v", run+1, done, err)
		}
	}
	r.wantOnce(thread1 + "|101|101")
	for _, s := range r.catalog.All() {
		if s.Objects[0].Lane != conversation.LaneLookback {
			t.Errorf("the object came by %q", s.Objects[0].Lane)
		}
	}
}

// TestAForgedWindowOfALookBackReadsNothing: a message says what to read, and the register
// of jobs who may be read.
func TestAForgedWindowOfALookBackReadsNothing(t *testing.T) {
	outside, source, other := lookback(alice), lookback(alice), lookback(alice)
	outside.From = from.Add(-time.Hour)
	source.Source = teams.Channels
	other.Job = strings.Repeat("f", 32)
	noJob := lookback(alice)
	noJob.Job = ""
	daily := window(alice)
	daily.Job = job
	for name, w := range map[string]conversation.Window{
		"no such job": other, "somebody whom the job does not name": lookback(bob), "before the job's stretch": outside,
		"a team that is a person": source, "nobody's": lookback(nobody), "no job": noJob, "a daily window with a job": daily,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.running(alice, nobody)
			r.talk()
			err := r.process(&mortality{}).Handle(t.Context(), message(t, w))
			if !errors.Is(err, funchost.ErrPoison) {
				t.Errorf("error is %v, want one that parks the message", err)
			}
			if r.graph.asked != 0 {
				t.Errorf("%d requests came of it", r.graph.asked)
			}
		})
	}
}

func TestAWindowOfALookBackThatWasCanceledIsDropped(t *testing.T) {
	r := newRig(t)
	r.running(alice)
	r.talk()
	j, err := r.jobs.Get(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	j.State = policy.LookbackCanceled
	if err := r.jobs.Replace(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	if err := r.process(&mortality{}).Handle(t.Context(), message(t, lookback(alice))); err != nil {
		t.Fatal(err)
	}
	if r.graph.asked != 0 || len(r.queue.take()) != 0 {
		t.Error("it was read, or put back")
	}
}
