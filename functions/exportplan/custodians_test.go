package exportplan_test

import (
	"testing"
	"testing/synctest"
	"time"

	"steno/shared/conversation"
	"steno/shared/policy"
	"steno/shared/teams"
)

const day = 24 * time.Hour

// delete closes a custodian's period and tells the roster of the deletion.
func (d *desk) delete(p policy.Period) {
	d.t.Helper()
	p.To = now()
	d.must(d.roster.Apply(d.t.Context(), policy.Change{At: p.To, Closed: []policy.Period{p}, People: []policy.Person{{ID: p.Person, Deleted: p.To}}}))
}

// days plans every hour for a while and returns what was queued.
func (d *desk) days(n int) (out []conversation.Window) {
	d.t.Helper()
	for range 24 * n {
		time.Sleep(time.Hour)
		d.must(d.run())
		out = append(out, d.take()...)
	}
	return out
}

func TestWhoWasDeletedIsReadToTheEndAndOnceMoreWhileThatCanBe(t *testing.T) {
	for _, c := range []struct {
		role policy.Role
		want teams.Source
	}{{policy.RecordedUser, teams.Chats}, {policy.RecordedTeam, teams.DeletedTeam}} {
		synctest.Test(t, func(t *testing.T) {
			d := newDesk(t)
			p := policy.Period{Person: person(1), Role: c.role, Desk: "north", From: now()}
			d.must(d.roster.Apply(t.Context(), policy.Change{At: p.From, Opened: []policy.Period{p}}))
			d.days(10)
			d.delete(p)
			deleted := now()
			after := d.days(40)
			var last, final time.Time
			for _, w := range after {
				if w.Source != c.want {
					t.Errorf("window %s is read by %q, want %q", w.Key(), w.Source, c.want)
				}
				if w.Pass <= conversation.MaxPass && w.To.After(last) {
					last = w.To
				}
				if w.Pass == conversation.FinalPass && w.To.After(final) {
					final = w.To
				}
			}
			if !last.Equal(deleted) || !final.Equal(deleted) {
				t.Errorf("%s: deleted at %v; ordinary passes read to %v, the final one to %v", c.role, deleted, last, final)
			}
			whole := union(after, conversation.FinalPass)
			if len(whole) != 1 || whole[0].From.After(p.From) {
				t.Errorf("%s: the final pass reads %v, want all ten days", c.role, whole)
			}
			if late := d.days(10); len(late) != 0 {
				t.Errorf("%s: %d windows after nothing can be exported any more", c.role, len(late))
			}
		})
	}
}

func TestRetainedMessagesAreReadInALaneOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.config.Retained, d.config.RetainedDelay = true, 2*day
		p := d.join(person(1), "north")
		q := policy.Period{Person: person(2), Role: policy.RecordedTeam, Desk: "north", From: p.From}
		d.must(d.roster.Apply(t.Context(), policy.Change{At: p.From, Opened: []policy.Period{q}}))
		read := map[teams.PersonID][]conversation.Window{}
		for _, w := range d.days(5) {
			if w.Source.Retained() != (w.Pass == conversation.RetainedPass) {
				t.Errorf("window %s of pass %d is read by %q", w.Key(), w.Pass, w.Source)
			}
			if w.Pass == conversation.RetainedPass {
				if w.Source.OfTeam() != (w.Custodian == q.Person) {
					t.Errorf("%s is read by %q", w.Custodian, w.Source)
				}
				read[w.Custodian] = append(read[w.Custodian], w)
			}
		}
		for _, who := range []teams.PersonID{p.Person, q.Person} {
			spans := union(read[who], conversation.RetainedPass)
			if len(spans) != 1 || spans[0].From.After(p.From) || time.Since(spans[0].To) < d.config.RetainedDelay {
				t.Errorf("retained messages of %s are read in %v", who, spans)
			}
		}
	})
}

// TestAMailboxThatAnswersAgainIsReadFromWhereItFellSilent: what could not be read stands in
// the register until it was.
func TestAMailboxThatAnswersAgainIsReadFromWhereItFellSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		p := d.join(person(1), "north")
		silent := func(days int) (asked int) {
			for range 24 * days {
				time.Sleep(time.Hour)
				d.must(d.run())
				for _, w := range d.queue.take() {
					asked++
					d.must(d.failures.SaveFailure(t.Context(), conversation.WindowFailed{Window: w, Status: 404, Since: now(), At: now()}))
				}
			}
			return asked
		}
		silent(3)
		left := d.leave(p)
		if n := silent(20); n == 0 || n > 400 {
			t.Errorf("%d requests in twenty silent days, want one a day or a few", n)
		}
		quiet := silent(2)
		if quiet < 2 || quiet > 4 {
			t.Errorf("%d requests in the last two silent days, want one a day", quiet)
		}
		read := d.days(4)
		failures, err := d.failures.AllFailures(t.Context())
		d.must(err)
		if len(failures) != 0 {
			t.Errorf("%d windows are not read still: %+v", len(failures), failures)
		}
		for pass := 1; pass <= 3; pass++ {
			spans := union(read, pass)
			if len(spans) != 1 || spans[0].From.After(p.From) || !spans[0].To.Equal(left.To) {
				t.Errorf("pass %d read %v, want all from %v to %v", pass, spans, p.From, left.To)
			}
		}
		events, err := d.trail.Range(t.Context(), time.Time{}, time.Now().Add(time.Hour), 100)
		d.must(err)
		if len(events) != 1 || events[0].Detail != "can be read again" {
			t.Errorf("events are %+v", events)
		}
	})
}
