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
}

type queue interface {
	Send(ctx context.Context, id string, body []byte, notBefore time.Time) error
}

// Plan queues windows. Runs must not overlap; the timer sees to it, and a window
// queued twice is read once.
type Plan struct {
	config  Config
	roster  policy.Roster
	catalog conversation.Catalog
	queue   queue
	log     *slog.Logger
}

// New returns a Plan.
func New(c Config, r policy.Roster, cat conversation.Catalog, q queue, log *slog.Logger) *Plan {
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
	if len(c.Passes) == 0 {
		c.Passes = DefaultPasses
	}
	return &Plan{config: c, roster: r, catalog: cat, queue: q, log: log}
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
	progress, err := p.catalog.Progress(ctx)
	if err != nil {
		return err
	}
	byPerson := map[teams.PersonID][]policy.Period{}
	for _, period := range periods {
		byPerson[period.Person] = append(byPerson[period.Person], period)
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(planners)
	total := make(chan int, len(byPerson))
	for person, own := range byPerson {
		group.Go(func() error {
			n, err := p.planPerson(gctx, person, own, progress[person], now)
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
	p.log.InfoContext(ctx, "export windows planned", slog.Int("people", len(byPerson)), slog.Int("queued", queued))
	return err
}

func (p *Plan) planPerson(ctx context.Context, person teams.PersonID, periods []policy.Period, done conversation.Progress, now time.Time) (int, error) {
	done.Planned = slices.Clone(done.Planned)
	before := conversation.Progress{Planned: slices.Clone(done.Planned), At: done.At}
	done.At = now
	windows := p.Due(person, periods, &done, now)
	checks := p.checksFor(before, len(windows) > 0, now)
	if checks {
		lost, err := p.unfinished(ctx, person, periods, before)
		if err != nil {
			return 0, err
		}
		windows = append(windows, lost...)
	}
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
	if err := p.catalog.SaveProgress(ctx, person, done); err != nil {
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

// unfinished returns what was planned for a person and is not finished. It may still be
// under way; reading it twice does no harm.
func (p *Plan) unfinished(ctx context.Context, person teams.PersonID, periods []policy.Period, planned conversation.Progress) ([]conversation.Window, error) {
	var out []conversation.Window
	for pass := 1; pass <= len(p.config.Passes); pass++ {
		until := planned.Until(pass)
		if until.IsZero() {
			continue
		}
		since := until.Add(-LookBehind)
		finished, err := p.catalog.FinishedWindows(ctx, person, pass, since.Add(-conversation.MaxWindow), until)
		if err != nil {
			return nil, err
		}
		for _, span := range Spans(periods, p.config.History, until) {
			w := conversation.Window{Tenant: p.config.Tenant, Custodian: person, Source: sourceOf(periods), Pass: pass,
				From: latest(span.From, since).Add(-conversation.Resolution), To: span.To}
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
		p.log.WarnContext(ctx, "planned windows were not finished; queued again", slog.Any("person", person), slog.Int("windows", len(out)))
	}
	return out, nil
}

// Due computes the windows of one person that are due at now and moves done to
// behind them. It reads and writes nothing else.
func (p *Plan) Due(person teams.PersonID, periods []policy.Period, done *conversation.Progress, now time.Time) []conversation.Window {
	var out []conversation.Window
	for i, delay := range p.config.Passes {
		pass := i + 1
		edge := now.Add(-p.config.Lag - delay).Truncate(conversation.Resolution)
		for _, span := range Spans(periods, p.config.History, edge) {
			from := span.From.Add(-conversation.Resolution) // exclusive bound
			if last := done.Until(pass); !last.Before(span.From) {
				if !last.Before(span.To) {
					continue
				}
				from = latest(last.Add(-conversation.Overlap), from)
			}
			ended := span.To.Before(edge)
			if unread := span.To.Sub(latest(done.Until(pass), span.From)); unread < p.config.Period && !ended {
				continue
			}
			for from.Before(span.To) {
				to := earliest(from.Add(p.config.Longest), span.To)
				out = append(out, conversation.Window{Tenant: p.config.Tenant, Custodian: person, Source: sourceOf(periods), From: from, To: to, Pass: pass})
				done.Set(pass, to)
				if !to.Before(span.To) {
					break
				}
				from = to.Add(-conversation.Overlap)
			}
		}
	}
	return out
}

// sourceOf is where a custodian's messages are read.
func sourceOf(periods []policy.Period) teams.Source {
	if slices.ContainsFunc(periods, func(p policy.Period) bool { return p.Role == policy.RecordedTeam }) {
		return teams.Channels
	}
	return teams.Chats
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
