package lookback_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steno/functions/internal/funchost"
	"steno/functions/lookback"
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

const (
	officer = teams.PersonID("b0000000-0000-4000-8000-000000000001")
	clerk   = teams.PersonID("b0000000-0000-4000-8000-000000000002") // no compliance officer
	team    = teams.PersonID("c0000000-0000-4000-8000-000000000001")
	desk    = teams.GroupID("d0000000-0000-4000-8000-000000000001")
	empty   = teams.GroupID("d0000000-0000-4000-8000-000000000002") // nobody in it is recorded
	nowhere = teams.GroupID("d0000000-0000-4000-8000-000000000003")
)

var errNoGroup = errors.New("no such group")

type groups struct{}

func (groups) Members(_ context.Context, g teams.GroupID) ([]teams.User, error) {
	switch g {
	case desk:
		return []teams.User{{ID: person(1)}, {ID: person(2)}, {ID: person(99)}}, nil
	case empty:
		return []teams.User{{ID: person(98)}, {ID: person(99)}}, nil
	}
	return nil, errNoGroup
}

// mortality ends the process at its n-th step; zero for never.
type mortality struct{ left int }

var errDeath = errors.New("the process ended")

func (m *mortality) step() error {
	if m.left > 0 {
		if m.left--; m.left == 0 {
			return errDeath
		}
	}
	return nil
}

// jobs and queue die before and after what they do.
type jobs struct {
	policy.Lookbacks
	m *mortality
}

func (j jobs) Insert(ctx context.Context, l policy.Lookback) error {
	return around(j.m, func() error { return j.Lookbacks.Insert(ctx, l) })
}

func (j jobs) Replace(ctx context.Context, l policy.Lookback) error {
	return around(j.m, func() error { return j.Lookbacks.Replace(ctx, l) })
}

func around(m *mortality, do func() error) error {
	if err := m.step(); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return m.step()
}

// office is a tenant with its stores, and the queue of windows.
type office struct {
	t        *testing.T
	m        mortality
	jobs     storetest.Lookbacks
	roster   storetest.Roster
	catalog  storetest.Catalog
	failures storetest.Failures
	trail    storetest.Trail
	sent     []conversation.Window
	most     int // windows in flight at once
}

func (o *office) Send(_ context.Context, id string, body []byte, _ time.Time) error {
	return around(&o.m, func() error {
		w, err := conversation.DecodeWindow(body)
		if err == nil && id != w.MessageID() {
			err = fmt.Errorf("window %s is sent as %s", w.MessageID(), id)
		}
		o.sent = append(o.sent, w)
		return err
	})
}

func newOffice(t *testing.T) *office {
	if until := time.Until(time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)); until > 0 {
		time.Sleep(until)
	}
	o := &office{t: t}
	from := time.Now().UTC().AddDate(0, -2, 0)
	opened := []policy.Period{
		{Person: officer, Role: policy.ComplianceOfficer, From: from}, {Person: clerk, Role: policy.Auditor, From: from},
		{Person: team, Role: policy.RecordedTeam, Desk: "d", From: from},
	}
	for i := range 5 {
		opened = append(opened, policy.Period{Person: person(i), Role: policy.RecordedUser, Desk: "d", From: from})
	}
	o.must(o.roster.Apply(t.Context(), policy.Change{At: from, Opened: opened}))
	return o
}

func (o *office) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

func (o *office) process() *lookback.Lookback {
	return lookback.New(lookback.Config{Tenant: tenant, NoGroup: errNoGroup}, lookback.Stores{
		Jobs: jobs{&o.jobs, &o.m}, Roster: &o.roster, Catalog: &o.catalog, Failures: &o.failures, Trail: custody.Log{Trail: &o.trail},
	}, groups{}, o, slog.New(slog.DiscardHandler))
}

func (o *office) handle(body string) error { return o.process().Handle(o.t.Context(), []byte(body)) }

// read finishes the windows that are in flight, each as two halves, as chatexport does with
// what does not fit a page: ten versions each, all of them new the first time.
func (o *office) read(fresh bool) {
	o.t.Helper()
	inFlight := map[string]bool{}
	for _, w := range o.sent {
		inFlight[w.MessageID()] = true
	}
	o.most = max(o.most, len(inFlight))
	for _, w := range o.sent {
		a, b, _ := w.Split()
		for _, half := range []conversation.Window{a, b} {
			done := conversation.WindowDone{Window: half, Returned: 5, At: time.Now().UTC()}
			if fresh {
				done.New = 5
			}
			o.must(o.catalog.FinishWindow(o.t.Context(), done, nil))
		}
	}
	o.sent = nil
}

// job is the only one there is.
func (o *office) job() policy.Lookback {
	o.t.Helper()
	all, err := o.jobs.List(o.t.Context())
	o.must(err)
	if len(all) != 1 {
		o.t.Fatalf("%d jobs, want one: %+v", len(all), all)
	}
	return all[0]
}

func (o *office) details() (out []string) {
	o.t.Helper()
	records, err := o.trail.Range(o.t.Context(), time.Time{}, time.Now().Add(time.Hour), 1000)
	o.must(err)
	for _, r := range records {
		out = append(out, r.Detail)
	}
	return out
}

func request(scope, from, to string) string {
	return fmt.Sprintf(`{"scope":%s,"from":%q,"to":%q,"reason":"asked for by the regulator","requestedBy":%q}`, scope, from, to, officer)
}

func users(ids ...teams.PersonID) string {
	return `{"users":["` + strings.Join(strings.Split(strings.Trim(fmt.Sprint(ids), "[]"), " "), `","`) + `"]}`
}

var good = request(users(person(1), person(2)), "2026-01-05", "2026-01-25T12:00:00Z")

// TestMessagesThatAskForWhatIsNotDoneAreRefusedWithTheirReason is the table of T61.
func TestMessagesThatAskForWhatIsNotDoneAreRefusedWithTheirReason(t *testing.T) {
	someone := users(person(1))
	for name, c := range map[string]struct{ body, reason string }{
		"oversized":            {strings.Replace(good, "asked for", "asked "+strings.Repeat("x", 4096), 1), "at most 4096"},
		"bad JSON":             {`{"scope":`, "not a JSON object"},
		"neither":              {"hello there", "neither a JSON object nor"},
		"nothing":              {"", "not a JSON object"},
		"unknown member":       {strings.Replace(good, `{"scope"`, `{"force":true,"scope"`, 1), "should not have"},
		"another case":         {strings.Replace(good, `"scope"`, `"Scope"`, 1), "should not have"},
		"unknown scope":        {request(`{"everybody":true}`, "2026-01-01", "2026-01-02"), "should not have"},
		"twice":                {strings.Replace(good, `{"scope"`, `{"from":"2026-01-06","scope"`, 1), "from stands there twice"},
		"two objects":          {good + good, "not a JSON object"},
		"two scopes":           {request(`{"users":["`+string(person(1))+`"],"teams":["`+string(team)+`"]}`, "2026-01-01", "2026-01-02"), "exactly one of"},
		"no scope":             {request(`{}`, "2026-01-01", "2026-01-02"), "exactly one of"},
		"no id":                {request(`{"users":["canary"]}`, "2026-01-01", "2026-01-02"), "users"},
		"ten years":            {request(someone, "2017-01-01", "2026-01-02"), "at most 31 days"},
		"one moment more":      {request(someone, "2026-01-01", "2026-02-01T00:00:00.001Z"), "at most 31 days"},
		"from after to":        {request(someone, "2026-01-03", "2026-01-02"), "from is not before to"},
		"1970":                 {request(someone, "1970-01-01", "1970-01-02"), "there was no Teams"},
		"before Teams":         {request(someone, "2016-10-01", "2016-10-20"), "there was no Teams"},
		"the future":           {request(someone, "2026-02-27", "2026-03-20"), "has not come"},
		"no date":              {request(someone, "yesterday", "2026-01-02"), "from: want a date"},
		"no reason":            {strings.Replace(good, "asked for by the regulator", "", 1), "a reason of 0 characters"},
		"an unknown user":      {request(users(person(1), person(77)), "2026-01-01", "2026-01-02"), "1 of 2 users are not recorded"},
		"a user as team":       {request(`{"teams":["`+string(person(1))+`"]}`, "2026-01-01", "2026-01-02"), "1 of 1 teams are not recorded"},
		"a team as user":       {request(users(team), "2026-01-01", "2026-01-02"), "1 of 1 users are not recorded"},
		"an unknown group":     {request(`{"groups":["`+string(nowhere)+`"]}`, "2026-01-01", "2026-01-02"), "is not there"},
		"nobody is recorded":   {request(`{"groups":["`+string(empty)+`"]}`, "2026-01-01", "2026-01-02"), "none of the 2 members of 1 groups is recorded"},
		"somebody else's name": {strings.Replace(good, string(officer), string(clerk), 1), "complianceOfficer only"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOffice(t)
				for range 3 {
					if err := o.handle(c.body); !errors.Is(err, funchost.ErrPoison) || !strings.Contains(err.Error(), c.reason) || strings.Contains(err.Error(), "canary") {
						t.Errorf("error is %v, want one that parks the message and says %q", err, c.reason)
					}
				}
				if j := o.job(); j.State != policy.LookbackRefused || !strings.Contains(j.Refusal, c.reason) {
					t.Errorf("the register has %+v", j)
				}
				o.must(o.process().Step(t.Context()))
				if len(o.sent) != 0 || o.details()[0] != "refused" {
					t.Errorf("%d windows; events %q", len(o.sent), o.details())
				}
			})
		})
	}
}

func TestALookBackIsReadAFewWindowsAtATimeAndCountsWhatCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for scope, custodians := range map[string]int{
			users(person(1), person(2)):            2,
			`{"groups":["` + string(desk) + `"]}`:  2,
			`{"teams":["` + string(team) + `"]}`:   1,
			users(person(2), person(1), person(2)): 2,
		} {
			o := newOffice(t)
			o.must(o.handle(request(scope, "2026-01-05", "2026-01-25T12:00:00Z")))
			for o.job().State != policy.LookbackDone {
				o.must(o.process().Step(t.Context()))
				for _, w := range o.sent {
					if w.Source.OfTeam() != strings.Contains(scope, "teams") || !o.job().Admits(w.Custodian, w.From, w.To) {
						t.Errorf("%s: window %s of source %q is not admitted", scope, w.Key(), w.Source)
					}
				}
				o.read(true)
				time.Sleep(20 * time.Second)
			}
			j, n := o.job(), 3*custodians // three weeks each
			if j.Windows != n || j.Finished() != n || j.Returned != 10*n || j.New != 10*n || len(j.Custodians) != custodians {
				t.Errorf("%s: the job came to %+v", scope, j)
			}
			if o.most > lookback.DefaultInFlight {
				t.Errorf("%s: %d windows were in flight", scope, o.most)
			}
			events := o.details()
			if want := fmt.Sprintf("ended: %d new of %d returned, 0 unclear, 0 of %d windows not read", 10*n, 10*n, n); len(events) != 3 || events[2] != want {
				t.Errorf("%s: events %q, want the last to be %q", scope, events, want)
			}
		}
	})
}

func TestTheSameMessageAHundredTimesIsOneJobAndAfterItsEndAddsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		reordered := request(users(person(2), person(1), person(1)), "2026-01-05T00:00:00Z", "2026-01-25T12:00:00Z")
		encoded := base64.StdEncoding.EncodeToString([]byte(good))
		for i := range 100 {
			o.must(o.handle([]string{good, reordered, encoded}[i%3]))
		}
		if events := o.details(); len(events) != 1 {
			t.Errorf("events are %q", events)
		}
		for run, fresh := range []bool{true, false} {
			if run == 1 {
				time.Sleep(time.Hour)
				o.must(o.handle(good))
			}
			for !o.job().Ended() {
				o.must(o.process().Step(t.Context()))
				o.read(fresh)
				time.Sleep(20 * time.Second)
			}
			want := 60
			if !fresh {
				want = 0
			}
			if j := o.job(); j.New != want || j.Returned != 60 {
				t.Errorf("run %d: %d new of %d", run+1, j.New, j.Returned)
			}
		}
		if events := o.details(); !strings.HasPrefix(events[len(events)-1], "ended: 0 new of 60 returned") {
			t.Errorf("events are %q", events)
		}
	})
}

func TestAProcessThatDiesAtAnyStepLosesNoWindowAndCountsNoneTwice(t *testing.T) {
	for death := 1; death <= 40; death++ {
		synctest.Test(t, func(t *testing.T) {
			o := newOffice(t)
			o.m.left = death
			if err := o.handle(good); err != nil {
				o.must(o.handle(good)) // redelivered
			}
			for steps := 0; !o.job().Ended(); steps++ {
				if err := o.process().Step(t.Context()); err != nil && !errors.Is(err, errDeath) || steps > 20 {
					t.Fatalf("death at %d, step %d: %v", death, steps, err)
				}
				o.read(true)
				time.Sleep(20 * time.Second)
			}
			if j := o.job(); j.Windows != 6 || j.Returned != 60 || j.New != 60 {
				t.Errorf("death at %d: the job came to %+v", death, j)
			}
		})
	}
}

func TestALookBackThatIsCanceledQueuesNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.must(o.handle(good))
		o.must(o.process().Step(t.Context()))
		j, err := o.job().Cancel(time.Now())
		o.must(err)
		o.must(o.jobs.Replace(t.Context(), j))
		o.read(true)
		o.must(o.process().Step(t.Context()))
		if j := o.job(); len(o.sent) != 0 || j.State != policy.LookbackCanceled || j.EndedAt.IsZero() {
			t.Errorf("%d windows; the job is %+v", len(o.sent), j)
		}
		if _, err := o.job().Cancel(time.Now()); !errors.Is(err, policy.ErrRefused) {
			t.Errorf("canceled twice: %v", err)
		}
	})
}

func TestWindowsThatAreLostAreQueuedAgainAndThoseThatFailAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.must(o.handle(good))
		o.must(o.process().Step(t.Context()))
		lost := slices.Clone(o.sent)
		o.sent = nil
		o.must(o.process().Step(t.Context()))
		if len(o.sent) != 0 {
			t.Errorf("%d windows are queued while others are in flight", len(o.sent))
		}
		time.Sleep(lookback.DefaultPatience)
		o.must(o.process().Step(t.Context()))
		if !slices.Equal(o.sent, lost) {
			t.Errorf("queued again are %v, want %v", o.sent, lost)
		}
		f := conversation.WindowFailed{Window: o.sent[0], Status: 404, Since: time.Now(), At: time.Now()}
		o.must(o.failures.SaveFailure(t.Context(), f))
		o.sent = o.sent[1:]
		for !o.job().Ended() {
			o.read(true)
			time.Sleep(20 * time.Second)
			o.must(o.process().Step(t.Context()))
		}
		if j := o.job(); j.Failed != 1 || j.Returned != 50 {
			t.Errorf("the job came to %+v", j)
		}
	})
}

func TestOnlyOneJobOfATenantRunsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.must(o.handle(good))
		time.Sleep(time.Second)
		o.must(o.handle(request(users(person(3)), "2026-01-01", "2026-01-02")))
		for range 2 {
			o.must(o.process().Step(t.Context()))
		}
		all, err := o.jobs.List(t.Context())
		o.must(err)
		running := slices.DeleteFunc(all, func(j policy.Lookback) bool { return j.State != policy.LookbackRunning })
		if len(running) != 1 || len(running[0].Custodians) != 2 {
			t.Errorf("running are %+v", running)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(base64.StdEncoding.EncodeToString([]byte(good))))
	f.Add([]byte(`{"scope":{"users":null},"from":"2026-01-01"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := lookback.Decode(b)
		if err == nil && (j.RequestedBy == "" || j.From.IsZero() || j.To.IsZero()) {
			t.Errorf("accepted: %+v", j)
		}
	})
}
