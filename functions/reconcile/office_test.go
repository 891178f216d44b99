package reconcile_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
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
	asked    atomic.Int64
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
	g.asked.Add(1)
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
