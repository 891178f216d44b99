package reconcile_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/functions/reconcile"
	"steno/shared/conversation"
	"steno/shared/coverage"
	"steno/shared/custody"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const (
	rita = teams.PersonID("a0000000-0000-4000-8000-00000000000a")
	sven = teams.PersonID("a0000000-0000-4000-8000-00000000000b")
	odd  = teams.PersonID("a0000000-0000-4000-8000-0000000000ff") // nobody records him
	desk = teams.PersonID("a0000000-0000-4000-8000-0000000000aa") // a team
)

// today is the day that statements are about, and night is when the first of it is due.
var (
	today = time.Date(2026, 3, 10, 0, 0, 0, 0, time.UTC)
	night = today.Add(30 * time.Hour)
)

var errDied = errors.New("the process ended")

// deaths ends a process after so many calls; negative never.
type deaths struct{ left int }

func (d *deaths) call() error {
	if d.left == 0 {
		return errDied
	}
	d.left--
	return nil
}

// office is everything that coverage is stated from. Stores outlive processes.
type office struct {
	t          *testing.T
	now        time.Time
	roster     storetest.Roster
	catalog    storetest.Catalog
	records    storetest.CallRecords
	failures   storetest.Failures
	statements storetest.Statements
	trail      storetest.Trail
	state      storetest.Tiles
	graph      graph
	key        *ecdsa.PrivateKey
	alerts     []reconcile.Alert
	log        bytes.Buffer
	config     reconcile.CoverageConfig
	deaths     *deaths
}

func newOffice(t *testing.T) *office {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := &office{t: t, now: night, key: key, deaths: &deaths{-1}, config: reconcile.CoverageConfig{
		Tenant: tenant, Calls: true, Maker: "test", After: []time.Duration{6 * time.Hour, 78 * time.Hour},
	}}
	o.must(o.roster.Apply(t.Context(), policy.Change{At: today, Opened: []policy.Period{
		{Person: rita, Role: policy.RecordedUser, Desk: "north", From: today.Add(6 * time.Hour)},
		{Person: sven, Role: policy.RecordedUser, Desk: "south", From: today},
		{Person: desk, Role: policy.RecordedTeam, Desk: "north", From: today.Add(12 * time.Hour)},
	}}))
	return o
}

func (o *office) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

func (o *office) run() error {
	c := o.config
	c.Now = func() time.Time { return o.now }
	return reconcile.NewCoverage(c, reconcile.CoverageStores{
		Roster: &o.roster, Catalog: &o.catalog, Recorded: &o.catalog, Failures: &o.failures, Files: &o.catalog, Records: dyingRecords{&o.records, o.deaths}, Statements: dyingStatements{&o.statements, o.deaths},
		Trail: custody.Log{Trail: dyingTrail{&o.trail, o.deaths}, Now: c.Now}, State: dyingState{&o.state, o.deaths}, Graph: &o.graph, Signer: signer{o},
		Alerters: []reconcile.Alerter{alerter{o}},
	}, slog.New(slog.NewTextHandler(&o.log, nil))).Run(o.t.Context())
}

type dyingRecords struct {
	*storetest.CallRecords
	d *deaths
}

func (s dyingRecords) SaveRecord(ctx context.Context, r coverage.CallRecord) error {
	if err := s.d.call(); err != nil {
		return err
	}
	return s.CallRecords.SaveRecord(ctx, r)
}

type dyingStatements struct {
	*storetest.Statements
	d *deaths
}

func (s dyingStatements) Create(ctx context.Context, n coverage.Stated, body, signature []byte) error {
	if err := s.d.call(); err != nil {
		return err
	}
	return s.Statements.Create(ctx, n, body, signature)
}

type dyingTrail struct {
	*storetest.Trail
	d *deaths
}

func (s dyingTrail) Insert(ctx context.Context, r custody.Record) error {
	if err := s.d.call(); err != nil {
		return err
	}
	return s.Trail.Insert(ctx, r)
}

type dyingState struct {
	*storetest.Tiles
	d *deaths
}

func (s dyingState) SwapHead(ctx context.Context, body []byte, revision string) error {
	if err := s.d.call(); err != nil {
		return err
	}
	return s.Tiles.SwapHead(ctx, body, revision)
}

type signer struct{ o *office }

func (s signer) SigningKey(context.Context) (string, *ecdsa.PublicKey, error) {
	return "key", &s.o.key.PublicKey, nil
}

func (s signer) Sign(_ context.Context, _ string, digest [sha256.Size]byte) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, s.o.key, digest[:])
}

type alerter struct{ o *office }

func (a alerter) Alert(_ context.Context, alert reconcile.Alert) error {
	if err := a.o.deaths.call(); err != nil {
		return err
	}
	a.o.alerts = append(a.o.alerts, alert)
	return nil
}

// graph has call records, and sessions by record.
type graph struct {
	records  []msgraph.CallRecord
	sessions map[string][]msgraph.Session
	asked    int
	err      error
}

func (g *graph) CallRecords(_ context.Context, from, to time.Time) (out []msgraph.CallRecord, err error) {
	for _, r := range g.records {
		if !r.Start.Before(from) && r.Start.Before(to) {
			out = append(out, r)
		}
	}
	return out, g.err
}

func (g *graph) Sessions(_ context.Context, id string) ([]msgraph.Session, error) {
	g.asked++
	return g.sessions[id], g.err
}

// call makes a record of a call at an hour of today, of so many minutes, with those people.
func (g *graph) call(n int, hour float64, minutes int, people ...teams.PersonID) {
	id := fmt.Sprintf("c0000000-0000-4000-8000-%012d", n)
	from := today.Add(time.Duration(hour * float64(time.Hour)))
	to := from.Add(time.Duration(minutes) * time.Minute)
	thread := teams.ThreadID(fmt.Sprintf("19:meeting_%d@thread.v2", n))
	g.records = append(g.records, msgraph.CallRecord{ID: id, Version: 1, Start: from, End: to, Thread: thread})
	if g.sessions == nil {
		g.sessions = map[string][]msgraph.Session{}
	}
	for _, p := range people {
		g.sessions[id] = append(g.sessions[id], msgraph.Session{Start: from, End: to, People: []teams.PersonID{p}})
	}
}

// recorded puts a recording into the archive, of the call of that number.
func (o *office) recorded(n int, person teams.PersonID, hour float64, minutes int) {
	o.t.Helper()
	chain := teams.ChainID(fmt.Sprint("chain-", n))
	key := conversation.CallKeyOf(tenant, chain)
	was, err := o.catalog.Call(o.t.Context(), key)
	o.must(err)
	from := today.Add(time.Duration(hour * float64(time.Hour)))
	to := from.Add(time.Duration(minutes) * time.Minute)
	conv := was.Conversation
	if was.Revision == "" {
		conv = conversation.Conversation{
			ID: conversation.IDOf(key, from), Thread: teams.ThreadID(fmt.Sprintf("19:meeting_%d@thread.v2", n)), Kind: teams.ThreadCall, Modality: conversation.Voice,
			Start: from, First: from, Call: &conversation.CallFacts{Chain: chain},
		}
	}
	conv.Last = to
	conv.Custodians = append(conv.Custodians, person)
	call := teams.CallID(fmt.Sprintf("call-%d-%s", n, person))
	o.must(o.catalog.SaveCall(o.t.Context(), was, conv, conversation.Leg{
		Leg: conversation.LegOf(tenant, call), Call: call, Recorded: person, State: conversation.LegSealed, Outcome: conversation.OutcomeRecorded, Started: from, From: from, To: to,
	}))
	o.must(o.catalog.ListCall(o.t.Context(), conv))
}

// read finishes a window of today, in hours.
func (o *office) read(who teams.PersonID, pass int, from, to float64) {
	o.t.Helper()
	at := func(h float64) time.Time { return today.Add(time.Duration(h * float64(time.Hour))) }
	w := conversation.Window{Tenant: tenant, Custodian: who, From: at(from).Add(-conversation.Resolution), To: at(to), Pass: pass}
	o.must(o.catalog.FinishWindow(o.t.Context(), conversation.WindowDone{Window: w, At: o.now}, nil))
}

// newest returns the newest statement of a day, with its signature checked.
func (o *office) newest(day string) coverage.Statement {
	o.t.Helper()
	list, err := o.statements.List(o.t.Context(), day, day)
	o.must(err)
	if len(list) == 0 {
		o.t.Fatalf("no statement of %s; log:\n%s", day, o.log.String())
	}
	body, signature, err := o.statements.Read(o.t.Context(), list[len(list)-1])
	o.must(err)
	digest := sha256.Sum256(body)
	if !ecdsa.VerifyASN1(&o.key.PublicKey, digest[:], signature) {
		o.t.Errorf("the statement of %s is not signed", day)
	}
	s, err := coverage.Decode(body)
	o.must(err)
	return s
}

// line is a custodian's line of a statement.
func line(s coverage.Statement, who teams.PersonID, u coverage.Unit) coverage.Count {
	for _, l := range s.Lines {
		if l.Custodian == who && l.Unit == u {
			return l.Count
		}
	}
	return coverage.Count{}
}

func wantCount(t *testing.T, what string, got coverage.Count, expected, captured, excluded, failed, unknown int64) {
	t.Helper()
	if got.Expected != expected || got.Captured != captured || got.Excluded != excluded || got.Failed != failed || got.Unknown != unknown {
		t.Errorf("%s: %+v, want %d = %d + %d + %d + %d", what, got, expected, captured, excluded, failed, unknown)
	}
}

// events are those of an action, in order.
func (o *office) events(a custody.Action) (out []custody.Record) {
	o.t.Helper()
	all, err := o.trail.Range(o.t.Context(), today.AddDate(-1, 0, 0), today.AddDate(1, 0, 0), 10_000)
	o.must(err)
	for _, e := range all {
		if e.Action == a {
			out = append(out, e)
		}
	}
	return out
}

func TestEveryMomentInWhichSomebodyIsRecordedIsReadOrSaidNotToBe(t *testing.T) {
	o := newOffice(t)
	o.read(rita, 1, 5, 20)
	o.read(rita, 1, 20.5, 25)
	o.read(sven, 1, -3, 26)
	o.read(sven, 2, 0, 12)
	o.read(desk, 1, 13, 24)
	o.must(o.run())
	s := o.newest("2026-03-10")
	const hour = 3600
	wantCount(t, "Rita, recorded from six o'clock, half an hour unread", line(s, rita, coverage.Seconds), 18*hour, 17*hour+hour/2, 0, 0, hour/2)
	wantCount(t, "Sven, all day", line(s, sven, coverage.Seconds), 24*hour, 24*hour, 0, 0, 0)
	wantCount(t, "a team, recorded from noon", line(s, desk, coverage.Seconds), 12*hour, 11*hour, 0, 0, hour)
	if s.Second.Seconds != 12*hour || s.Second.Late != 0 {
		t.Errorf("second pass %+v", s.Second)
	}
	for _, l := range s.Lines {
		if l.Team != (l.Custodian == desk) || (l.Modality == coverage.Channels) != l.Team {
			t.Errorf("line of %s: %s, team %v", l.Custodian, l.Modality, l.Team)
		}
	}
	if i := slices.IndexFunc(o.alerts, func(a reconcile.Alert) bool { return a.Name == "coverage" && a.Day == "2026-03-10" }); i < 0 {
		t.Errorf("nobody is told of what was not read: %v", o.alerts)
	}
	stated := o.events(custody.Stated)
	body, _, err := o.statements.Read(t.Context(), coverage.Stated{Day: "2026-03-10", Revision: 1})
	o.must(err)
	if want := fmt.Sprintf("sha256=%x", sha256.Sum256(body)); len(stated) != 1 || !strings.Contains(stated[0].Detail, want) || stated[0].Item != "coverage/2026-03-10/1" {
		t.Errorf("the log has %+v, want %s", stated, want)
	}
}

func TestALaterPassMakesASecondStatementAndWhatItFoundLateIsSaid(t *testing.T) {
	o := newOffice(t)
	for _, p := range []teams.PersonID{rita, sven, desk} {
		o.read(p, 1, -1, 25)
	}
	o.must(o.run())
	if s := o.newest("2026-03-10"); s.Revision != 1 || !s.Whole() {
		t.Errorf("revision %d, %+v", s.Revision, s.Totals)
	}
	o.now = night.Add(72 * time.Hour)
	w := conversation.Window{Tenant: tenant, Custodian: rita, From: today.Add(-time.Hour), To: today.Add(25 * time.Hour), Pass: 2}
	o.must(o.catalog.FinishWindow(t.Context(), conversation.WindowDone{Window: w, Returned: 9, New: 3, Late: 3, At: o.now}, nil))
	o.must(o.run())
	o.must(o.run()) // an hour's timer finds nothing due
	s := o.newest("2026-03-10")
	if s.Revision != 2 || s.Second.Late != 3 || s.Whole() {
		t.Errorf("revision %d, %+v", s.Revision, s.Second)
	}
	if !slices.ContainsFunc(o.alerts, func(a reconcile.Alert) bool { return a.Name == "second-pass" && a.Count == 3 }) {
		t.Errorf("nobody is told: %v", o.alerts)
	}
}

func TestACallWithoutARecordingIsACaptureGapThatALateRecordingHeals(t *testing.T) {
	o := newOffice(t)
	o.graph.call(1, 9, 30, rita, sven, odd)
	o.graph.call(2, 10, 30, odd)
	o.graph.call(3, 5, 120, rita) // she is recorded from six o'clock on
	o.recorded(1, sven, 9, 30)
	o.recorded(3, rita, 6, 60)
	o.must(o.run())
	s := o.newest("2026-03-10")
	wantCount(t, "Sven's calls", line(s, sven, coverage.Stays), 1, 1, 0, 0, 0)
	wantCount(t, "Rita's calls", line(s, rita, coverage.Stays), 2, 1, 0, 1, 0)
	gaps := o.events(custody.GapFound)
	if len(gaps) != 1 || gaps[0].Reason != string(coverage.NoRecording) || !strings.Contains(gaps[0].Detail, "missing=30m0s") {
		t.Fatalf("gaps on record: %+v", gaps)
	}
	if !slices.ContainsFunc(o.alerts, func(a reconcile.Alert) bool { return a.Name == "capture-gap" && a.Count == 1 }) {
		t.Errorf("nobody is told of the gap: %v", o.alerts)
	}
	o.now = night.Add(time.Hour)
	o.must(o.run())
	if n := len(o.events(custody.GapFound)); n != 1 {
		t.Errorf("an open gap is put on record %d times", n)
	}
	o.recorded(1, rita, 9, 30)
	o.now = night.Add(72 * time.Hour)
	o.must(o.run())
	s = o.newest("2026-03-10")
	wantCount(t, "Rita's calls, healed", line(s, rita, coverage.Stays), 2, 2, 0, 0, 0)
	if healed := o.events(custody.GapHealed); len(healed) != 1 || !strings.Contains(healed[0].Detail, string(rita)) {
		t.Errorf("healed on record: %+v", healed)
	}
}

func TestCallsWithoutARecordedUserAreNotKeptAndNotAskedAboutAgain(t *testing.T) {
	o := newOffice(t)
	o.graph.call(1, 9, 30, odd)
	o.must(o.run())
	o.must(o.run())
	kept, err := o.records.Records(t.Context(), today.AddDate(0, 0, -30), today.AddDate(0, 0, 30))
	o.must(err)
	if len(kept) != 0 || o.graph.asked != 1 {
		t.Errorf("%d records kept, asked %d times", len(kept), o.graph.asked)
	}
	for _, e := range append(o.events(custody.Stated), o.events(custody.GapFound)...) {
		if strings.Contains(e.Detail+e.Item, string(odd)) {
			t.Error("the trail names somebody who is not recorded")
		}
	}
	o.graph.records[0].Version, o.graph.sessions[o.graph.records[0].ID] = 2, []msgraph.Session{{Start: today.Add(9 * time.Hour), End: today.Add(10 * time.Hour), People: []teams.PersonID{sven}}}
	o.must(o.run())
	if s, err := o.records.Records(t.Context(), today, today.AddDate(0, 0, 1)); err != nil || len(s) != 1 {
		t.Errorf("a record that grew is not looked at again: %v, %v", s, err)
	}
}

func TestSomebodyWhoIsNeverRecordedHasNoGaps(t *testing.T) {
	o := newOffice(t)
	groups, err := policy.ParseRoleGroups(`[{"role":"recordedUser","group":"a","desk":"north"},{"role":"recordedUser","group":"b","desk":"south","recording":{"when":"never"}}]`)
	o.must(err)
	o.config.Groups = groups
	o.graph.call(1, 9, 30, rita, sven)
	o.must(o.run())
	s := o.newest("2026-03-10")
	wantCount(t, "Sven, never recorded", line(s, sven, coverage.Stays), 1, 0, 1, 0, 0)
	wantCount(t, "Rita", line(s, rita, coverage.Stays), 1, 0, 0, 1, 0)
}

func TestARecordingOfWhichMicrosoftHasNoRecordIsUnknownNotCaptured(t *testing.T) {
	o := newOffice(t)
	o.recorded(7, rita, 9, 30)
	o.must(o.run())
	c := line(o.newest("2026-03-10"), rita, coverage.Stays)
	wantCount(t, "a recording without a record", c, 1, 0, 0, 0, 1)
	if len(c.Reasons) != 1 || c.Reasons[0].Code != coverage.NoRecord {
		t.Errorf("reasons %v", c.Reasons)
	}
}

func TestTheCanaryIsMissedOnTheDayOnWhichItDoesNotSing(t *testing.T) {
	o := newOffice(t)
	o.config.Canary = "19:canary@thread.v2"
	o.now = night.Add(24 * time.Hour)
	key := conversation.KeyOf(tenant, o.config.Canary)
	id := conversation.IDOf(key, today)
	o.must(o.catalog.Claim(t.Context(), conversation.Slice{}, conversation.Claim{Conversation: conversation.Conversation{ID: id, Thread: o.config.Canary, Start: today.Add(time.Hour), Versions: 1}}))
	o.must(o.run())
	if a, b := o.newest("2026-03-10").Canary, o.newest("2026-03-11").Canary; a != coverage.CanaryAlive || b != coverage.CanaryMissing {
		t.Errorf("canary %s, then %s", a, b)
	}
	if !slices.ContainsFunc(o.alerts, func(a reconcile.Alert) bool { return a.Name == "canary" && a.Day == "2026-03-11" }) {
		t.Errorf("nobody is told: %v", o.alerts)
	}
}

func TestWithoutCallRecordsThereIsNoStatementThatLeavesCallsOut(t *testing.T) {
	o := newOffice(t)
	o.graph.err = errors.New("graph answered 403 Forbidden")
	if err := o.run(); err == nil || !strings.Contains(err.Error(), "403") {
		t.Fatalf("a harvest that is refused: %v", err)
	}
	if list, err := o.statements.List(t.Context(), "2026-01-01", "2026-12-31"); err != nil || len(list) != 0 {
		t.Errorf("statements %v, %v", list, err)
	}
	o.config.Calls = false // a deployment without a recorder expects no calls
	o.must(o.run())
	if s := o.newest("2026-03-10"); slices.ContainsFunc(s.Lines, func(l coverage.Line) bool { return l.Modality == coverage.Calls }) {
		t.Errorf("lines of calls without a recorder: %+v", s.Lines)
	}
}

func TestDyingAtAnyStepLosesNoAlertAndEndsInTheSameStatement(t *testing.T) {
	prepare := func() *office {
		o := newOffice(t)
		o.graph.call(1, 9, 30, rita, sven)
		o.recorded(1, sven, 9, 30)
		o.read(rita, 1, 0, 25)
		return o
	}
	whole := prepare()
	whole.must(whole.run())
	want := whole.newest("2026-03-10")
	for step := 0; ; step++ {
		o := prepare()
		o.deaths.left = step
		err := o.run()
		if o.deaths.left > 0 {
			if err != nil || step < 8 {
				t.Fatalf("%d steps: %v", step, err)
			}
			break
		}
		if err != nil && !errors.Is(err, errDied) {
			t.Fatalf("step %d: %v", step, err)
		}
		o.deaths.left = -1
		o.must(o.run())
		got := o.newest("2026-03-10")
		if !slices.EqualFunc(got.Totals, want.Totals, func(a, b coverage.Total) bool {
			return a.Expected == b.Expected && a.Failed == b.Failed && a.Captured == b.Captured
		}) {
			t.Errorf("step %d: %+v, want %+v", step, got.Totals, want.Totals)
		}
		if len(o.events(custody.GapFound)) == 0 || len(o.events(custody.Stated)) == 0 {
			t.Errorf("step %d: the trail has no gap, or no statement", step)
		}
		if !slices.ContainsFunc(o.alerts, func(a reconcile.Alert) bool { return a.Name == "capture-gap" }) {
			t.Errorf("step %d: nobody was told of the gap", step)
		}
		if !slices.ContainsFunc(o.alerts, func(a reconcile.Alert) bool { return a.Name == "coverage" }) {
			t.Errorf("step %d: nobody was told of the coverage", step)
		}
	}
}

func TestAnAlertReachesAWebhookAndAMailboxAndNamesNobody(t *testing.T) {
	got := make(chan string, 1)
	hook := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- string(b)
	}))
	defer hook.Close()
	a := reconcile.Alert{Name: "capture-gap", Day: "2026-03-10", Count: 2, Text: "Recorded users were in calls.", At: night}
	if err := reconcile.NewWebhook(hook.URL+"/secret", hook.Client().Transport).Alert(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	var back reconcile.Alert
	if err := json.Unmarshal([]byte(<-got), &back); err != nil || back != a {
		t.Errorf("posted %+v, %v", back, err)
	}
	hook.Close()
	if err := reconcile.NewWebhook(hook.URL+"/secret", hook.Client().Transport).Alert(t.Context(), a); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("an address that nobody answers at: %v", err)
	}
	var m mailer
	if err := (reconcile.Mail{Mailer: &m, From: rita, To: []string{"desk@contoso.example"}}).Alert(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if m.subject != "Steno: capture-gap" || !strings.Contains(m.text, "Count: 2") || !strings.Contains(m.text, "2026-03-10") {
		t.Errorf("mailed %q: %q", m.subject, m.text)
	}
}

type mailer struct{ subject, text string }

func (m *mailer) SendMail(_ context.Context, _ teams.PersonID, _ []string, subject, text string) error {
	m.subject, m.text = subject, text
	return nil
}

func TestAnAlertThatCannotBeDeliveredIsAnAlarmAndStopsNothing(t *testing.T) {
	o := newOffice(t)
	o.graph.call(1, 9, 30, rita)
	c := o.config
	c.Now = func() time.Time { return o.now }
	err := reconcile.NewCoverage(c, reconcile.CoverageStores{
		Roster: &o.roster, Catalog: &o.catalog, Recorded: &o.catalog, Failures: &o.failures, Files: &o.catalog, Records: &o.records, Statements: &o.statements, Trail: custody.Log{Trail: &o.trail, Now: c.Now}, State: &o.state,
		Graph: &o.graph, Signer: signer{o}, Alerters: []reconcile.Alerter{deaf{}, alerter{o}},
	}, slog.New(slog.NewTextHandler(&o.log, nil))).Run(t.Context())
	o.must(err)
	if len(o.alerts) == 0 || !strings.Contains(o.log.String(), "alarm=alert-undelivered") {
		t.Errorf("%d alerts; log %s", len(o.alerts), o.log.String())
	}
}

type deaf struct{}

func (deaf) Alert(context.Context, reconcile.Alert) error { return errors.New("no answer") }

func TestAVersionThatOnlyANotificationBroughtIsUnknownUntilAnExportReturnsIt(t *testing.T) {
	o := newOffice(t)
	const thread = teams.ThreadID("19:chat@thread.v2")
	id := conversation.IDOf(conversation.KeyOf(tenant, thread), today)
	version := func(message teams.MessageID, etag teams.ETag) conversation.Version {
		return conversation.Version{VersionKey: conversation.VersionKey{Message: message, ETag: etag}, Sent: today.Add(9 * time.Hour)}
	}
	claim := func(name string, lane conversation.MessageLane, versions ...conversation.Version) {
		was, err := o.catalog.Slice(t.Context(), id)
		o.must(err)
		conv := was.Conversation
		if was.Revision == "" {
			conv = conversation.Conversation{ID: id, Thread: thread, Start: today.Add(9 * time.Hour)}
		}
		conv.Objects++
		o.must(o.catalog.Claim(t.Context(), was, conversation.Claim{Conversation: conv, Add: &conversation.Object{
			Name: name, Custodian: rita, Lane: lane, ClaimedAt: today.Add(10 * time.Hour), Seq: conv.Objects - 1, Versions: versions,
		}}))
		o.must(o.catalog.FinishWindow(t.Context(), conversation.WindowDone{Window: conversation.Window{Tenant: tenant, Custodian: rita, From: today, To: today.Add(time.Millisecond * 2)}}, []conversation.Conversation{conv}))
	}
	// One message as it was first written, edited before the export came, and one that no export returns.
	claim("00000000000000000000000000000001", conversation.LaneNotified, version("1", "1"), version("2", "2"))
	claim("00000000000000000000000000000002", conversation.LaneExport, version("1", "5"))
	o.must(o.run())
	c := line(o.newest("2026-03-10"), rita, coverage.Versions)
	wantCount(t, "one of three that nobody confirmed", c, 3, 2, 0, 0, 1)
	if len(c.Reasons) != 1 || c.Reasons[0].Code != coverage.Unconfirmed {
		t.Errorf("reasons %v", c.Reasons)
	}
	if !slices.ContainsFunc(o.alerts, func(a reconcile.Alert) bool { return a.Name == "unconfirmed" && a.Count == 1 }) {
		t.Errorf("nobody is told: %v", o.alerts)
	}
}

func TestWhatGraphRefusesToShowHasFailedAndTheReasonIsNamed(t *testing.T) {
	o := newOffice(t)
	at := func(h int) time.Time { return today.Add(time.Duration(h) * time.Hour) }
	o.read(sven, 1, -1, 8)
	for _, f := range []struct{ from, to, status int }{{8, 12, 404}, {11, 14, 403}, {16, 18, 500}} {
		w := conversation.Window{Tenant: tenant, Custodian: sven, From: at(f.from).Add(-conversation.Resolution), To: at(f.to), Pass: 1}
		o.must(o.failures.SaveFailure(t.Context(), conversation.WindowFailed{Window: w, Status: f.status, Since: at(20), At: at(20)}))
	}
	o.must(o.run())
	const hour = 3600
	c := line(o.newest("2026-03-10"), sven, coverage.Seconds)
	wantCount(t, "eight hours read, eight refused", c, 24*hour, 8*hour, 0, 8*hour, 8*hour)
	for code, want := range map[coverage.Code]int64{coverage.MailboxMissing: 4 * hour, coverage.Refused: 2 * hour, coverage.Unreadable: 2 * hour, coverage.NotReadYet: 8 * hour} {
		if i := slices.IndexFunc(c.Reasons, func(r coverage.Reason) bool { return r.Code == code }); i < 0 || c.Reasons[i].Count != want {
			t.Errorf("%s: %v, want %d seconds", code, c.Reasons, want)
		}
	}
}

func TestEveryFileIsFetchedOrTheReasonIsNamed(t *testing.T) {
	o := newOffice(t)
	o.config.Files = true
	const thread = teams.ThreadID("19:chat@thread.v2")
	id := conversation.IDOf(conversation.KeyOf(tenant, thread), today)
	conv := conversation.Conversation{ID: id, Thread: thread, Start: today.Add(9 * time.Hour), Objects: 1}
	o.must(o.catalog.Claim(t.Context(), conversation.Slice{}, conversation.Claim{Conversation: conv, Add: &conversation.Object{
		Name: "00000000000000000000000000000001", Custodian: rita, ClaimedAt: today, File: &conversation.PartOf{Attachment: "underway"},
	}}))
	o.must(o.catalog.FinishWindow(t.Context(), conversation.WindowDone{Window: conversation.Window{Tenant: tenant, Custodian: rita, From: today, To: today.Add(2 * time.Millisecond)}}, []conversation.Conversation{conv}))
	for reason, kind := range map[conversation.GapReason]conversation.AttachmentKind{
		"": conversation.KindFile, conversation.GapForeignHost: conversation.KindImage, conversation.GapNoFile: conversation.KindFile, conversation.GapExternal: conversation.KindFile,
		conversation.GapGone: conversation.KindLoop, conversation.GapTooLarge: conversation.KindFile, conversation.GapAltered: conversation.KindFile,
	} {
		state := conversation.AttachmentGap
		if reason == "" {
			state = conversation.AttachmentFetched
		}
		o.must(o.catalog.SaveAttachment(t.Context(), conversation.Attachment{
			ID: conversation.AttachmentIDOf(thread, "1", kind, string(reason)), Conversation: id, Message: "1", Custodian: rita, Kind: kind, State: state, Reason: reason, At: today,
		}))
	}
	o.must(o.run())
	c := line(o.newest("2026-03-10"), rita, coverage.Items)
	wantCount(t, "seven files and one under way", c, 8, 1, 2, 4, 1)
	for _, code := range []coverage.Code{coverage.ForeignLink, coverage.NoFile, coverage.FileForbidden, coverage.FileGone, coverage.FileTooLarge, coverage.FileUnreadable, coverage.Pending} {
		if !slices.ContainsFunc(c.Reasons, func(r coverage.Reason) bool { return r.Code == code && r.Count == 1 }) {
			t.Errorf("%s is not a reason: %v", code, c.Reasons)
		}
	}
}
