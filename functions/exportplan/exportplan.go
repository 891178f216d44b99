// Package exportplan cuts time into export windows: for every recorded user and team, the
// stretches in which they were recorded and which nobody has read yet, each window
// closed, overlapping its neighbor, and old enough that Graph has settled.
//
// Graph allows polling for messages once a day, so a window becomes due when a day
// has passed since the last one ended. Every stretch is read three times: the first
// pass captures, the later ones prove that nothing was missed.
// https://learn.microsoft.com/graph/api/resources/teams-api-overview (polling requirements)
package exportplan

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Defaults of Config.
const (
	DefaultPeriod = 24 * time.Hour
	// DefaultLag is how far behind now a window ends. Microsoft publishes no delay for
	// export; notifications take up to a minute.
	DefaultLag = 15 * time.Minute
	// DefaultLongest is the longest window: a period, the overlap, and as much as the
	// timer is late. At just a period every day would be read as two windows.
	DefaultLongest = 25 * time.Hour
)

// DefaultPatience is longer than a window is put back for before it is parked.
const DefaultPatience = 2 * time.Hour

// DefaultPasses is how much later than the first each reading comes.
var DefaultPasses = []time.Duration{0, 24 * time.Hour, 72 * time.Hour}

// Config is the schedule. Zero fields mean the defaults.
type Config struct {
	Tenant  teams.TenantID
	Period  time.Duration
	Lag     time.Duration
	Longest time.Duration
	Passes  []time.Duration
	// Patience is how long after its planning a window may be unfinished before it is
	// taken for lost and queued again.
	Patience time.Duration
	// History is how far before the start of a recorded period its windows reach back.
	History time.Duration
	// Retained has what retention policies of the tenant kept read too, RetainedDelay behind
	// the present: their copies appear days late.
	Retained      bool
	RetainedDelay time.Duration
}

// DefaultRetainedDelay is how far behind the present what was retained is read.
const DefaultRetainedDelay = 7 * 24 * time.Hour

type queue interface {
	Send(ctx context.Context, id string, body []byte, notBefore time.Time) error
}

// Plan queues windows. Runs must not overlap; the timer sees to it, and a window
// queued twice is read once.
type Plan struct {
	config  Config
	roster  policy.Roster
	catalog conversation.Catalog
	// failures is what could not be read.
	failures conversation.Failures
	queue    queue
	trail    custody.Log
	log      *slog.Logger
}

// New returns a Plan.
func New(c Config, r policy.Roster, cat conversation.Catalog, f conversation.Failures, q queue, trail custody.Log, log *slog.Logger) *Plan {
	if c.Period == 0 {
		c.Period = DefaultPeriod
	}
	if c.Lag == 0 {
		c.Lag = DefaultLag
	}
	if c.Longest == 0 {
		c.Longest = DefaultLongest
	}
	if c.Patience == 0 {
		c.Patience = DefaultPatience
	}
	if c.RetainedDelay == 0 {
		c.RetainedDelay = DefaultRetainedDelay
	}
	if len(c.Passes) == 0 {
		c.Passes = DefaultPasses
	}
	return &Plan{config: c, roster: r, catalog: cat, failures: f, queue: q, trail: trail, log: log}
}

// planners is how many people are planned for at the same time.
const planners = 16

// Run queues every window that is due. Progress of a person is stored after her
// windows are queued, so a crash in between queues them twice and loses none.
func (p *Plan) Run(ctx context.Context) error {
	now := time.Now().UTC()
	periods, err := policy.Custodians(ctx, p.roster)
	if err != nil {
		return err
	}
	all, err := p.failures.AllFailures(ctx)
	if err != nil {
		return err
	}
	failed := map[teams.PersonID][]conversation.WindowFailed{}
	for _, f := range all {
		if f.Pass != conversation.LookbackPass { // whoever asked for the look-back asks again
			failed[f.Custodian] = append(failed[f.Custodian], f)
		}
	}
	progress, err := p.catalog.Progress(ctx)
	if err != nil {
		return err
	}
	custodians, err := p.custodians(ctx, periods)
	if err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(planners)
	total := make(chan int, len(custodians))
	for _, c := range custodians {
		group.Go(func() error {
			n, err := p.planFor(gctx, c, progress[c.ID], failed[c.ID], now)
			total <- n
			return err
		})
	}
	err = group.Wait()
	close(total)
	queued := 0
	for n := range total {
		queued += n
	}
	p.log.InfoContext(ctx, "export windows planned", slog.Int("custodians", len(custodians)), slog.Int("queued", queued))
	return err
}

// custodians joins periods with what the directory says of each. It costs one query for
// every 1,000 people.
func (p *Plan) custodians(ctx context.Context, periods []policy.Period) ([]Custodian, error) {
	at := map[teams.PersonID]int{}
	var out []Custodian
	var ids []teams.PersonID
	for _, period := range periods {
		i, ok := at[period.Person]
		if !ok {
			i = len(out)
			at[period.Person] = i
			out, ids = append(out, Custodian{ID: period.Person}), append(ids, period.Person)
		}
		out[i].Periods = append(out[i].Periods, period)
	}
	facts, err := p.roster.People(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("read custodians: %w", err)
	}
	for i, c := range out {
		out[i].Deleted = facts[c.ID].Deleted
	}
	return out, nil
}

func (p *Plan) planFor(ctx context.Context, c Custodian, done conversation.Progress, failed []conversation.WindowFailed, now time.Time) (int, error) {
	done.Planned = slices.Clone(done.Planned)
	before := conversation.Progress{Planned: slices.Clone(done.Planned), At: done.At}
	done.At = now
	windows := p.Due(c, &done, now)
	checks := p.checksFor(before, len(windows) > 0, now)
	if checks {
		lost, err := p.unfinished(ctx, c, before, now)
		if err != nil {
			return 0, err
		}
		windows = append(windows, lost...)
	}
	again, err := p.mend(ctx, c, failed, now)
	if err != nil {
		return 0, err
	}
	windows = append(windows, again...)
	for _, w := range windows {
		body, err := conversation.EncodeWindow(w)
		if err != nil {
			return 0, fmt.Errorf("queue window: %w", err)
		}
		if err := p.queue.Send(ctx, w.MessageID(), body, time.Time{}); err != nil {
			return 0, fmt.Errorf("queue window %s: %w", w.Key(), err)
		}
	}
	if len(windows) == 0 && !checks {
		return 0, nil
	}
	if err := p.catalog.SaveProgress(ctx, c.ID, done); err != nil {
		return 0, err
	}
	return len(windows), nil
}

// LookBehind is how far back planning looks for windows that were queued and never
// finished: a message may be dead-lettered, parked or lost.
const LookBehind = 7 * 24 * time.Hour

// checksFor reports whether to look for windows that were lost: when new ones are due,
// and once a period for a while after that, since a leaver has nothing due any more.
func (p *Plan) checksFor(planned conversation.Progress, due bool, now time.Time) bool {
	since := now.Sub(planned.At)
	if len(planned.Planned) == 0 || since < p.config.Patience {
		return false
	}
	return due || since >= p.config.Period && now.Sub(slices.MaxFunc(planned.Planned, time.Time.Compare)) < LookBehind
}

// unfinished returns what was planned for a custodian and is not finished. It may still be
// under way; reading it twice does no harm.
func (p *Plan) unfinished(ctx context.Context, c Custodian, planned conversation.Progress, now time.Time) ([]conversation.Window, error) {
	var out []conversation.Window
	for _, r := range p.readings(c, now) {
		until := planned.Until(r.pass)
		if until.IsZero() {
			continue
		}
		since := until.Add(-LookBehind)
		finished, err := p.catalog.FinishedWindows(ctx, c.ID, r.pass, since.Add(-conversation.MaxWindow), until)
		if err != nil {
			return nil, err
		}
		for _, span := range Spans(c.Periods, p.config.History, until) {
			w := conversation.Window{Tenant: p.config.Tenant, Custodian: c.ID, Source: r.source, Pass: r.pass,
				From: latest(latest(span.From, since), r.since).Add(-conversation.Resolution), To: span.To}
			if !w.From.Before(w.To) {
				continue
			}
			for _, part := range w.Uncovered(finished) {
				for part.To.Sub(part.From) > p.config.Longest {
					first := part
					first.To = part.From.Add(p.config.Longest)
					out = append(out, first)
					part.From = first.To.Add(-conversation.Resolution)
				}
				out = append(out, part)
			}
		}
	}
	if len(out) > 0 {
		p.log.WarnContext(ctx, "planned windows were not finished; queued again", slog.Any("person", c.ID), slog.Int("windows", len(out)))
	}
	return out, nil
}

// Custodian is a person or a team whose windows are planned.
type Custodian struct {
	ID      teams.PersonID
	Periods []policy.Period
	Deleted time.Time // from the directory; zero while it is there
}

// reading is one of the times that a custodian's stretches are read.
type reading struct {
	pass   int
	source teams.Source
	delay  time.Duration
	since  time.Time // nothing before is read; zero for all
	whole  bool      // at once, not only when a period's worth is unread
}

// FinalReading is how long after a deletion what was written in the FinalStretch before is
// read once more: some days before it cannot be exported any longer.
const (
	FinalReading = 25 * 24 * time.Hour
	FinalStretch = 30 * 24 * time.Hour
)

// readings lists how a custodian is read at now. Nothing of one who was deleted too long
// ago can be.
func (p *Plan) readings(c Custodian, now time.Time) (out []reading) {
	source, retained := teams.Chats, teams.RetainedChats
	if slices.ContainsFunc(c.Periods, func(p policy.Period) bool { return p.Role == policy.RecordedTeam }) {
		source, retained = teams.Channels, teams.RetainedChannels
	}
	age := now.Sub(c.Deleted)
	if !c.Deleted.IsZero() {
		if age >= teams.ExportableFor {
			return nil
		}
		if source == teams.Channels {
			source, retained = teams.DeletedTeam, ""
		}
	}
	for i, delay := range p.config.Passes {
		out = append(out, reading{pass: i + 1, source: source, delay: delay})
	}
	if p.config.Retained && retained != "" {
		out = append(out, reading{pass: conversation.RetainedPass, source: retained, delay: p.config.RetainedDelay})
	}
	if !c.Deleted.IsZero() && age >= FinalReading {
		out = append(out, reading{pass: conversation.FinalPass, source: source, since: c.Deleted.Add(-FinalStretch), whole: true})
	}
	return out
}

// Due computes the windows of one custodian that are due at now and moves done to
// behind them. It reads and writes nothing else.
func (p *Plan) Due(c Custodian, done *conversation.Progress, now time.Time) []conversation.Window {
	var out []conversation.Window
	for _, r := range p.readings(c, now) {
		edge := now.Add(-p.config.Lag - r.delay).Truncate(conversation.Resolution)
		for _, span := range Spans(c.Periods, p.config.History, edge) {
			span.From = latest(span.From, r.since)
			if !span.From.Before(span.To) {
				continue
			}
			from := span.From.Add(-conversation.Resolution) // exclusive bound
			if last := done.Until(r.pass); !last.Before(span.From) {
				if !last.Before(span.To) {
					continue
				}
				from = latest(last.Add(-conversation.Overlap), from)
			}
			ended := span.To.Before(edge)
			if unread := span.To.Sub(latest(done.Until(r.pass), span.From)); unread < p.config.Period && !ended && !r.whole {
				continue
			}
			for from.Before(span.To) {
				to := earliest(from.Add(p.config.Longest), span.To)
				out = append(out, conversation.Window{Tenant: p.config.Tenant, Custodian: c.ID, Source: r.source, From: from, To: to, Pass: r.pass})
				done.Set(r.pass, to)
				if !to.Before(span.To) {
					break
				}
				from = to.Add(-conversation.Overlap)
			}
		}
	}
	return out
}

// Spans returns the stretches up to edge in which a person's messages are exported:
// her recorded periods, each reaching back by history.
func Spans(periods []policy.Period, history time.Duration, edge time.Time) []policy.Span {
	wide := slices.Clone(periods)
	for i := range wide {
		wide[i].From = wide[i].From.Add(-history)
	}
	return policy.Covered(wide, time.Time{}, edge)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
