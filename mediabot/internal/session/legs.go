package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"steno/shared/conversation"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Times of a leg.
const (
	// answerWithin is the time from an invite to Graph's receipt of the answer that a
	// recorder has, less what the answer needs on its way.
	// https://learn.microsoft.com/graph/api/call-answer
	answerWithin = 4700 * time.Millisecond
	// gatewayWithin is the part of it in which the gateway is asked a second time.
	gatewayWithin = 1700 * time.Millisecond
	// statusWithin bounds an update of the recording status, repetitions included.
	statusWithin = 15 * time.Second
	// connectWithin is how long a peer may take to connect once the call is established.
	connectWithin = 15 * time.Second
	// establishWithin is when a leg that was never established is given up.
	establishWithin = 5 * time.Minute
	// unansweredWithin is how long a leg whose answer is in doubt may wait to be established.
	unansweredWithin = 15 * time.Second
	// rosterPatience is how long a rule that depends on who takes part waits for a roster.
	rosterPatience = 3 * time.Second
	// finishWithin bounds sealing the last bundle into the spool.
	finishWithin = 30 * time.Second
	pingEvery    = 2 * time.Second // a third of the gate's lease
	healthEvery  = time.Second
	healthWithin = 800 * time.Millisecond
	healthMisses = 3
)

// Defaults of Config.
const (
	DefaultMaxCalls = 300
	// DefaultLagLimit outlasts an outage of storage of ten minutes, and stays below what
	// the spool holds.
	DefaultLagLimit = 20 * time.Minute
)

// Graph is what a leg asks of Graph; *msgraph.Calls is one.
type Graph interface {
	Answer(ctx context.Context, call teams.CallID, a msgraph.Answer) error
	UpdateRecordingStatus(ctx context.Context, call teams.CallID, status msgraph.RecordingStatus) (msgraph.RecordingGranted, error)
	HangUp(ctx context.Context, call teams.CallID) error
}

// Rules says how a person's calls are recorded, without asking anybody;
// *policy.RuleBook is one.
type Rules interface {
	Rule(person teams.PersonID) policy.RecordingRule
}

// Config is what Legs need.
type Config struct {
	Tenant   teams.TenantID
	Recorder string // name of this instance, written on everything it records
	Gateway  *Gateway
	Graph    Graph
	Media    Media
	Rules    Rules
	Outbox   *Outbox
	Log      *slog.Logger

	VideoSockets int           // sockets for video that a call gets
	Screen       bool          // whether shared screens are recorded
	MaxCalls     int           // DefaultMaxCalls if 0
	LagLimit     time.Duration // seconds of media that may wait for evidence; DefaultLagLimit if 0
}

// Legs are the legs in progress. It is safe for use by many goroutines.
type Legs struct {
	c       Config
	running sync.WaitGroup
	ctx     context.Context // ends with Run
	stop    context.CancelFunc

	mu       sync.Mutex
	legs     map[conversation.LegID]*leg
	draining bool
	health   gatewayHealth
	misses   int // since health
}

// New returns the legs, none yet, and reports every fault of the configuration at once.
func New(c Config) (*Legs, error) {
	var faults []error
	if c.Gateway == nil || c.Graph == nil || c.Media == nil || c.Rules == nil || c.Outbox == nil || c.Log == nil {
		faults = append(faults, errors.New("session: gateway, graph, media, rules, outbox and log are required"))
	}
	if t, err := teams.ParseTenantID(string(c.Tenant)); err != nil || t != c.Tenant {
		faults = append(faults, errors.New("session: tenant is not a lower-case GUID"))
	}
	if c.Recorder == "" || len(c.Recorder) > 64 {
		faults = append(faults, errors.New("session: the recorder's name must have 1 to 64 bytes"))
	}
	if c.VideoSockets < 0 || c.VideoSockets > 10 || c.MaxCalls < 0 || c.LagLimit < 0 {
		faults = append(faults, errors.New("session: want 0 to 10 video sockets, and limits that are not negative"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if c.MaxCalls == 0 {
		c.MaxCalls = DefaultMaxCalls
	}
	if c.LagLimit == 0 {
		c.LagLimit = DefaultLagLimit
	}
	l := &Legs{c: c, legs: map[conversation.LegID]*leg{}}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l, nil
}

// Recover ends what an earlier process left in the gateway: calls that no leg of this
// one records. Their participants are told that recording failed, and the calls are
// left. It is called before the first invite is taken, and again is harmless.
func (l *Legs) Recover(ctx context.Context) error {
	calls, err := l.c.Gateway.list(ctx)
	if err != nil {
		return err
	}
	var faults []error
	for _, call := range calls {
		l.mu.Lock()
		ours := l.legs[conversation.LegOf(l.c.Tenant, call)] != nil
		l.mu.Unlock()
		if ours {
			continue
		}
		l.c.Log.ErrorContext(ctx, "orphaned call ended", slog.String("alarm", "orphaned-call"), slog.String("call", string(call)))
		if _, err := l.c.Graph.UpdateRecordingStatus(ctx, call, msgraph.StatusFailed); err != nil && !msgraph.CallGone(err) {
			faults = append(faults, err)
		}
		faults = append(faults, l.c.Graph.HangUp(ctx, call), l.c.Gateway.remove(ctx, call, "orphaned"))
	}
	return errors.Join(faults...)
}

// Run watches the gateway until ctx ends. Legs still in progress then are ended as
// lost, each with what there is of it; Run returns when all of them are.
func (l *Legs) Run(ctx context.Context) error {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		l.check(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	l.Drain()
	l.stop()
	l.running.Wait()
	return nil
}

// check asks for the gateway's health once, and gives up the legs of a gateway that has
// gone or was replaced.
func (l *Legs) check(ctx context.Context) {
	asked, cancel := context.WithTimeout(ctx, healthWithin)
	defer cancel()
	h, err := l.c.Gateway.health(asked)
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		before := l.misses
		if l.misses++; refused(err) {
			l.misses = max(l.misses, healthMisses) // nobody is there to be late
		}
		if before < healthMisses && l.misses >= healthMisses {
			l.c.Log.ErrorContext(ctx, "gateway does not answer", slog.String("alarm", "gateway-gone"), slog.String("cause", err.Error()))
			l.abandon(func(*leg) bool { return true }, "gateway gone")
		}
		return
	}
	if was := l.health.Instance; was != "" && was != h.Instance {
		l.c.Log.ErrorContext(ctx, "gateway was restarted", slog.String("alarm", "gateway-restarted"))
		l.abandon(func(g *leg) bool { return g.atOtherInstance(h.Instance) }, "gateway restarted")
	}
	if was := l.health.Status; was != h.Status {
		l.c.Log.InfoContext(ctx, "gateway health", slog.String("status", cleanCode(h.Status)))
	}
	l.health, l.misses = h, 0
}

// refused reports whether nobody answers at an address at all.
func refused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" && !op.Timeout()
}

// abandon fails the legs that which picks. The caller holds mu.
func (l *Legs) abandon(which func(*leg) bool, reason string) {
	for _, g := range l.legs {
		if which(g) {
			g.post(func() { g.fail(reason) }) // a leg's goroutine never waits for mu
		}
	}
}

// Errors of Ready and of the control of legs.
var (
	ErrDraining = errors.New("draining: no new calls are taken")
	ErrFull     = errors.New("as many calls as the recorder takes")
	ErrGateway  = errors.New("the gateway takes no calls")
	ErrNoLeg    = errors.New("no such leg in progress")
)

// Ready tells whether a leg would be taken now, and if not, why.
func (l *Legs) Ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready()
}

func (l *Legs) ready() error {
	switch {
	case l.draining:
		return ErrDraining
	case len(l.legs) >= l.c.MaxCalls:
		return ErrFull
	case l.health.Instance == "" || l.misses >= healthMisses:
		return fmt.Errorf("%w: it does not answer", ErrGateway)
	case l.health.Status != "ok" && l.health.Status != "heavy":
		return fmt.Errorf("%w: it is %s", ErrGateway, cleanCode(l.health.Status))
	case l.health.Calls.Max > 0 && l.health.Calls.Now >= l.health.Calls.Max:
		return fmt.Errorf("%w: it is full", ErrGateway)
	}
	return nil
}

// Drain stops taking legs. Those in progress go on to their end.
func (l *Legs) Drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draining = true
}

// Count is how many legs are in progress.
func (l *Legs) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.legs)
}

// Take starts a leg and returns what the updates of its call go to. A leg that is in
// progress is not started again. Whether there is room was decided by Ready, when the
// invite could still be left to others.
func (l *Legs) Take(inv teams.Invite, callback string) (func(teams.CallUpdate), error) {
	if inv.Tenant != l.c.Tenant || !strings.HasPrefix(callback, "https://") {
		return nil, errors.New("take leg: want the tenant's own call and an https callback")
	}
	id := conversation.LegOf(inv.Tenant, inv.Call)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.legs[id] != nil || l.ctx.Err() != nil {
		return nil, fmt.Errorf("take leg %s: in progress already, or the recorder is stopping", id)
	}
	g := newLeg(l, id, inv, callback)
	l.legs[id] = g
	l.running.Go(func() {
		g.run(l.ctx)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.legs, id)
	})
	return g.updated, nil
}

// Status describes a leg in progress, without saying who takes part.
type Status struct {
	Leg       conversation.LegID `json:"leg"`
	Call      teams.CallID       `json:"call"`
	Since     time.Time          `json:"since"`
	State     teams.CallState    `json:"state"`
	Recording bool               `json:"recording"`
	Paused    bool               `json:"paused"`
	Lag       float64            `json:"lagSeconds"`
}

// List describes the legs in progress, the oldest first.
func (l *Legs) List() []Status {
	l.mu.Lock()
	legs := slices.Collect(maps.Values(l.legs))
	l.mu.Unlock()
	out := make([]Status, 0, len(legs))
	for _, g := range legs {
		if s, ok := g.status(); ok {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b Status) int { return a.Since.Compare(b.Since) })
	return out
}

// Pause stops keeping media of a leg, on behalf of actor and for the reason given. When
// it returns nothing is kept any more; Graph is told afterwards. Pausing twice changes
// nothing.
func (l *Legs) Pause(ctx context.Context, id conversation.LegID, actor teams.PersonID, reason string) error {
	return l.command(ctx, id, func(g *leg) { g.pause(actor, reason) })
}

// Resume goes on recording as soon as Graph has granted it anew. A rule that keeps the
// leg from being recorded still does.
func (l *Legs) Resume(ctx context.Context, id conversation.LegID, actor teams.PersonID, reason string) error {
	return l.command(ctx, id, func(g *leg) { g.resume(actor, reason) })
}

func (l *Legs) command(ctx context.Context, id conversation.LegID, do func(*leg)) error {
	l.mu.Lock()
	g := l.legs[id]
	l.mu.Unlock()
	if g == nil {
		return ErrNoLeg
	}
	done := make(chan struct{})
	g.post(func() {
		do(g)
		g.waiting = append(g.waiting, done)
	})
	select {
	case <-done:
		return nil
	case <-g.gone:
		return ErrNoLeg
	case <-ctx.Done():
		return ctx.Err()
	}
}
