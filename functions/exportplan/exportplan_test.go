package exportplan_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"steno/functions/exportplan"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const tenant = teams.TenantID("11111111-1111-4111-8111-111111111111")

func person(n int) teams.PersonID {
	return teams.PersonID(fmt.Sprintf("a0000000-0000-4000-8000-%012d", n))
}

var errCrash = errors.New("the process ended")

// queue keeps what was sent. It can end the process after a number of messages.
type queue struct {
	mu      sync.Mutex
	sent    []conversation.Window
	ids     map[string]int
	crashIn int // messages until the crash; zero for none
}

func (q *queue) Send(_ context.Context, id string, body []byte, notBefore time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.crashIn > 0 {
		if q.crashIn--; q.crashIn == 0 {
			return errCrash
		}
	}
	w, err := conversation.DecodeWindow(body)
	if err != nil {
		return err
	}
	if id != w.MessageID() || !notBefore.IsZero() {
		return fmt.Errorf("message %s for window %s at %v", id, w.MessageID(), notBefore)
	}
	if q.ids == nil {
		q.ids = map[string]int{}
	}
	q.sent = append(q.sent, w)
	q.ids[id]++
	return nil
}

// take returns what was sent since the last take.
func (q *queue) take() []conversation.Window {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.sent
	q.sent = nil
	return out
}

// catalog can end the process before progress is stored.
type catalog struct {
	storetest.Catalog
	mu    sync.Mutex
	crash bool
}

func (c *catalog) SaveProgress(ctx context.Context, who teams.PersonID, p conversation.Progress) error {
	c.mu.Lock()
	crash := c.crash
	c.mu.Unlock()
	if crash {
		return errCrash
	}
	return c.Catalog.SaveProgress(ctx, who, p)
}

// desk is a plan over stores in memory.
type desk struct {
	t       *testing.T
	config  exportplan.Config
	roster  storetest.Roster
	catalog catalog
	queue   queue
	trail   storetest.Trail
	// failures is what could not be read.
	failures storetest.Failures
}

// newDesk starts a desk. In a bubble it is the year 2000, when there was no Teams and
// no window is accepted, so the bubble's clock moves on first.
func newDesk(t *testing.T) *desk {
	if until := time.Until(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)); until > 0 {
		time.Sleep(until)
	}
	return &desk{t: t, config: exportplan.Config{Tenant: tenant}}
}

func (d *desk) run() error {
	return exportplan.New(d.config, &d.roster, &d.catalog, &d.failures, &d.queue, custody.Log{Trail: &d.trail}, slog.New(slog.DiscardHandler)).Run(d.t.Context())
}

// take returns the windows queued since the last take, and has them read.
func (d *desk) take() []conversation.Window {
	d.t.Helper()
	ws := d.queue.take()
	for _, w := range ws {
		d.must(d.catalog.FinishWindow(d.t.Context(), conversation.WindowDone{Window: w, At: time.Now()}, nil))
	}
	return ws
}

func (d *desk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// join opens a period of the person now and returns it.
func (d *desk) join(who teams.PersonID, name string) policy.Period {
	d.t.Helper()
	p := policy.Period{Person: who, Role: policy.RecordedUser, Desk: name, From: now()}
	d.must(d.roster.Apply(d.t.Context(), policy.Change{At: p.From, Opened: []policy.Period{p}}))
	return p
}

// leave closes a period now.
func (d *desk) leave(p policy.Period) policy.Period {
	d.t.Helper()
	p.To = now()
	d.must(d.roster.Apply(d.t.Context(), policy.Change{At: p.To, Closed: []policy.Period{p}}))
	return p
}

// read is the stretch of lastModifiedDateTime that a window reads: its bounds
// themselves are not read.
func read(w conversation.Window) policy.Span {
	return policy.Span{From: w.From.Add(conversation.Resolution), To: w.To}
}

// union joins the stretches that windows of a pass read.
func union(ws []conversation.Window, pass int) []policy.Span {
	var spans []policy.Span
	for _, w := range ws {
		if w.Pass == pass {
			spans = append(spans, read(w))
		}
	}
	slices.SortFunc(spans, func(a, b policy.Span) int { return a.From.Compare(b.From) })
	var out []policy.Span
	for _, s := range spans {
		if n := len(out); n > 0 && !s.From.After(out[n-1].To) {
			if s.To.After(out[n-1].To) {
				out[n-1].To = s.To
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

func equal(a, b []policy.Span) bool {
	return slices.EqualFunc(a, b, func(x, y policy.Span) bool { return x.From.Equal(y.From) && x.To.Equal(y.To) })
}

func TestWindowsAreClosedOverlapAndLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		p := d.join(person(1), "north")
		var all []conversation.Window
		for range 10 {
			time.Sleep(24 * time.Hour)
			d.must(d.run())
			all = append(all, d.take()...)
		}
		byPass := map[int][]conversation.Window{}
		for _, w := range all {
			if w.Custodian != person(1) || w.Tenant != tenant || w.Attempt != 0 || !w.From.Before(w.To) {
				t.Fatalf("window %+v", w)
			}
			byPass[w.Pass] = append(byPass[w.Pass], w)
		}
		for pass, delay := range map[int]time.Duration{1: 0, 2: 24 * time.Hour, 3: 72 * time.Hour} {
			ws := byPass[pass]
			if first := ws[0].From; !first.Equal(p.From.Add(-time.Millisecond)) {
				t.Errorf("pass %d begins at %v, want a millisecond before %v", pass, first, p.From)
			}
			for i := 1; i < len(ws); i++ {
				if got := ws[i-1].To.Sub(ws[i].From); got != conversation.Overlap {
					t.Errorf("pass %d: windows %d and %d overlap by %v", pass, i-1, i, got)
				}
			}
			if edge := time.Now().Add(-exportplan.DefaultLag - delay); ws[len(ws)-1].To.After(edge) {
				t.Errorf("pass %d reaches %v, beyond %v", pass, ws[len(ws)-1].To, edge)
			}
		}
	})
}

func TestOneWindowAPersonPassAndDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.join(person(1), "north")
		runs := map[int][]time.Time{}
		for range 20 * 24 * 4 { // every quarter of an hour, for twenty days
			time.Sleep(15 * time.Minute)
			d.must(d.run())
			for _, w := range d.take() {
				runs[w.Pass] = append(runs[w.Pass], time.Now())
			}
		}
		for pass, times := range runs {
			for i := 1; i < len(times); i++ {
				if gap := times[i].Sub(times[i-1]); gap < exportplan.DefaultPeriod {
					t.Errorf("pass %d is read again after %v", pass, gap)
				}
			}
		}
		if a, b, c := len(runs[1]), len(runs[2]), len(runs[3]); a < 19 || b < 18 || c < 16 {
			t.Errorf("%d, %d and %d windows in twenty days", a, b, c)
		}
	})
}

func TestNewcomerReachesBackByHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.config.History = 36 * time.Hour
		p := d.join(person(1), "north")
		d.must(d.run())
		got := union(d.take(), 1)
		want := []policy.Span{{From: p.From.Add(-36 * time.Hour), To: p.From.Add(-exportplan.DefaultLag)}}
		if !equal(got, want) {
			t.Errorf("read %v, want %v", got, want)
		}
	})
}

func TestLeaverGetsAFinalWindowAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		p := d.join(person(1), "north")
		time.Sleep(25 * time.Hour)
		d.must(d.run())
		before := d.take()
		time.Sleep(3 * time.Hour)
		p = d.leave(p)
		time.Sleep(exportplan.DefaultLag + time.Second)
		d.must(d.run())
		last := d.take()
		if len(last) != 1 || !last[0].To.Equal(p.To) || last[0].Pass != 1 {
			t.Fatalf("after leaving: %+v", last)
		}
		time.Sleep(10 * 24 * time.Hour)
		d.must(d.run())
		all := slices.Concat(before, last, d.take())
		for pass := 1; pass <= 3; pass++ {
			if got := union(all, pass); !equal(got, []policy.Span{{From: p.From, To: p.To}}) {
				t.Errorf("pass %d read %v, want all of %v to %v", pass, got, p.From, p.To)
			}
		}
		time.Sleep(100 * 24 * time.Hour)
		d.must(d.run())
		if more := d.take(); len(more) != 0 {
			t.Errorf("long after: %+v", more)
		}
	})
}

func TestRejoinerIsReadOnlyInHerPeriods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, history := range []time.Duration{0, time.Hour, 100 * time.Hour} {
			d := newDesk(t)
			d.config.History = history
			first := d.join(person(1), "north")
			time.Sleep(40 * time.Hour)
			first = d.leave(first)
			time.Sleep(50 * time.Hour)
			d.must(d.run())
			ws := d.take()
			second := d.join(person(1), "south")
			time.Sleep(30 * time.Hour)
			second = d.leave(second)
			time.Sleep(200 * time.Hour)
			d.must(d.run())
			ws = append(ws, d.take()...)
			want := exportplan.Spans([]policy.Period{first, second}, history, time.Now())
			for pass := 1; pass <= 3; pass++ {
				if got := union(ws, pass); !equal(got, want) {
					t.Errorf("history %v, pass %d: read %v, want %v", history, pass, got, want)
				}
			}
		}
	})
}

func TestCrashBeforeProgressPlansTheSameWindowsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.join(person(1), "north")
		time.Sleep(100 * time.Hour)
		d.catalog.crash = true
		if err := d.run(); !errors.Is(err, errCrash) {
			t.Fatalf("got %v", err)
		}
		ids := maps.Clone(d.queue.ids)
		first := d.take()
		if len(first) < 5 {
			t.Fatalf("%d windows", len(first))
		}
		d.catalog.crash = false
		d.must(d.run())
		if len(d.queue.ids) != len(ids) {
			t.Errorf("%d different messages before the crash, %d after it", len(ids), len(d.queue.ids))
		}
		for id, n := range d.queue.ids {
			if n != 2 {
				t.Errorf("%s was queued %d times", id, n)
			}
		}
		d.take()
		d.must(d.run())
		if again := d.take(); len(again) != 0 {
			t.Errorf("a third run queued %d", len(again))
		}
	})
}

func TestLostWindowIsQueuedAgainAndAFinishedOneIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		p := d.join(person(1), "north")
		time.Sleep(25 * time.Hour)
		d.must(d.run())
		d.queue.take() // lost
		time.Sleep(25 * time.Hour)
		d.must(d.run())
		ws := d.take()
		if got := union(ws, 1); len(got) != 1 || !got[0].From.Equal(p.From) {
			t.Errorf("read %v, want from %v on", got, p.From)
		}
		time.Sleep(25 * time.Hour)
		d.must(d.run())
		for _, w := range d.take() {
			if w.Pass == 1 && w.From.Before(p.From.Add(48*time.Hour)) {
				t.Errorf("what was read is queued again: %+v", w)
			}
		}
	})
}

func TestALeaversLastWindowIsQueuedAgainIfItIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		p := d.join(person(1), "north")
		time.Sleep(6 * time.Hour)
		p = d.leave(p)
		time.Sleep(80 * time.Hour) // all passes are due
		d.must(d.run())
		if d.queue.take(); len(d.take()) != 0 { // lost
			t.Fatal("the queue is not empty")
		}
		time.Sleep(25 * time.Hour)
		d.must(d.run())
		ws := d.take()
		for pass := 1; pass <= len(exportplan.DefaultPasses); pass++ {
			if got := union(ws, pass); len(got) != 1 || !got[0].From.Equal(p.From) || !got[0].To.Equal(p.To) {
				t.Errorf("pass %d reads %v, want %v to %v", pass, got, p.From, p.To)
			}
		}
		for range 30 {
			time.Sleep(25 * time.Hour)
			d.must(d.run())
		}
		if again := d.take(); len(again) != 0 {
			t.Errorf("%d windows are queued for ever", len(again))
		}
	})
}

// TestEveryRecordedMillisecondIsReadInEveryPass plays random rosters, clocks and crashes,
// and compares what the windows of each pass read with what was recorded.
func TestEveryRecordedMillisecondIsReadInEveryPass(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) { play(t, seed) })
	}
}

func play(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	d := newDesk(t)
	d.config.Longest = time.Duration(1+rnd.IntN(40)) * time.Hour
	d.config.Period = time.Duration(1+rnd.IntN(30)) * time.Hour
	d.config.History = time.Duration(rnd.IntN(3)*rnd.IntN(50)) * time.Hour
	open := map[int][]policy.Period{}
	var periods [8][]policy.Period
	windows := map[teams.PersonID][]conversation.Window{}
	plan := func(crash bool) {
		if crash {
			d.catalog.crash = rnd.IntN(2) == 0
			d.queue.crashIn = rnd.IntN(8)
		}
		if err := d.run(); err != nil && !errors.Is(err, errCrash) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		d.catalog.crash, d.queue.crashIn = false, 0
		for _, w := range d.take() {
			windows[w.Custodian] = append(windows[w.Custodian], w)
			if w.To.Sub(w.From) > d.config.Longest {
				t.Errorf("seed %d: window of %v, longest is %v", seed, w.To.Sub(w.From), d.config.Longest)
			}
			if edge := time.Now().Add(-exportplan.DefaultLag - exportplan.DefaultPasses[w.Pass-1]); w.To.After(edge) {
				t.Errorf("seed %d: pass %d reaches beyond %v", seed, w.Pass, edge)
			}
		}
	}
	for range 80 {
		time.Sleep(time.Duration(rnd.Int64N(int64(20 * time.Hour))))
		who := rnd.IntN(len(periods))
		switch n := len(open[who]); {
		case n < 2 && rnd.IntN(2) == 0:
			open[who] = append(open[who], d.join(person(who), fmt.Sprintf("desk-%d", rnd.IntN(1000))))
		case n > 0 && rnd.IntN(3) == 0:
			periods[who] = append(periods[who], d.leave(open[who][n-1]))
			open[who] = open[who][:n-1]
		}
		plan(rnd.IntN(4) == 0)
	}
	for who, ps := range open {
		for _, p := range ps {
			periods[who] = append(periods[who], d.leave(p))
		}
	}
	time.Sleep(30 * 24 * time.Hour)
	plan(true)
	plan(false)
	for who, own := range periods {
		want := exportplan.Spans(own, d.config.History, time.Now())
		for pass := 1; pass <= len(exportplan.DefaultPasses); pass++ {
			if got := union(windows[person(who)], pass); !equal(got, want) {
				t.Errorf("seed %d, person %d, pass %d:\nread     %v\nrecorded %v", seed, who, pass, got, want)
			}
		}
	}
}

func TestTwentyThousandPeopleArePlannedInTime(t *testing.T) {
	const people = 20_000
	d := newDesk(t)
	d.config.History = 24 * time.Hour
	change := policy.Change{At: now()}
	for i := range people {
		change.Opened = append(change.Opened, policy.Period{Person: person(i), Role: policy.RecordedUser, Desk: "north", From: now().Add(-time.Hour)})
	}
	d.must(d.roster.Apply(t.Context(), change))
	start := time.Now()
	d.must(d.run())
	took := time.Since(start)
	t.Logf("%d people planned in %v", people, took)
	if n := len(d.take()); n < people {
		t.Errorf("%d windows for %d people", n, people)
	}
	if took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}
