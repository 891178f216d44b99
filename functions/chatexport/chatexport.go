// Package chatexport reads one export window of one custodian, a person's chats or a
// team's channels, and puts the message versions that are new into evidence, each exactly
// as Graph sent it, once.
//
// Pages of Graph are offsets into a listing that changes: when a message is edited
// while it is being paged, another one is skipped. So a window that does not fit one
// page is cut in two until it does, and a window counts as finished only when every
// object that holds its versions is known to be stored.
//
// How a version gets in is described in package intake.
package chatexport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"steno/functions/internal/funchost"
	"steno/functions/internal/intake"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Defaults and limits.
const (
	// MaxAttempts is how often a window is put back before it is parked.
	MaxAttempts = 20
	// DefaultRetryWait is how long a window that was put back rests, times its attempt.
	DefaultRetryWait = 15 * time.Second
	// sendTimeout is how long putting a window back may take once a run's time is up.
	sendTimeout = 10 * time.Second
)

type graph interface {
	Messages(ctx context.Context, source teams.Source, custodian teams.PersonID, from, to time.Time, next string) (msgraph.Page, error)
}

type queue interface {
	Send(ctx context.Context, id string, body []byte, notBefore time.Time) error
}

// Config is the exporter's own.
type Config struct {
	Tenant  teams.TenantID
	History time.Duration // as in exportplan
	// ClaimLease is how old an unfinished claim must be to be replaced; 0 means intake.DefaultClaimLease.
	ClaimLease time.Duration
	// Policies say how long what is stored is kept.
	Policies policy.DataPolicies
	// Files has attachments fetched; the zero value none.
	Files intake.Files
	// RetryWait is how long a window that could not be read rests before it is tried
	// again, times the attempt; 0 means DefaultRetryWait.
	RetryWait time.Duration
}

// Registers are what says which look-backs run, and keeps what could not be read.
type Registers struct {
	Lookbacks policy.Lookbacks
	Failures  conversation.Failures
}

// Exporter handles messages of the queue chat-export. It is safe for many at once.
type Exporter struct {
	config  Config
	graph   graph
	catalog conversation.Catalog
	intake  *intake.Intake
	known   Registers
	trail   custody.Log
	queue   queue
	log     *slog.Logger
}

// New returns an Exporter.
func New(c Config, g graph, r policy.Roster, cat conversation.Catalog, s intake.Store, known Registers, trail custody.Log, q queue, log *slog.Logger) *Exporter {
	if c.RetryWait == 0 {
		c.RetryWait = DefaultRetryWait
	}
	in := intake.New(intake.Config{System: "chatexport", History: c.History, ClaimLease: c.ClaimLease, Policies: c.Policies, Tenant: c.Tenant, Files: c.Files}, r, cat, s, trail, log)
	return &Exporter{config: c, graph: g, catalog: cat, intake: in, known: known, trail: trail, queue: q, log: log}
}

// Handle reads the window that a message names. It returns nil when the window is
// finished, was put back on the queue to be read later, or stands in the register of what
// cannot be read. A message that can never
// succeed is reported with funchost.ErrPoison; any other error asks for redelivery.
func (e *Exporter) Handle(ctx context.Context, body []byte) error {
	w, err := conversation.DecodeWindow(body)
	if err != nil {
		return fmt.Errorf("%w: %w", funchost.ErrPoison, err)
	}
	permit, err := e.allowed(ctx, w)
	if errors.Is(err, errEnded) {
		e.log.InfoContext(ctx, "window dropped", slog.String("window", w.Key()), slog.String("job", w.Job), slog.String("cause", err.Error()))
		return nil
	}
	if err != nil {
		return err
	}
	for _, part := range permit.parts {
		if err := e.read(ctx, part, permit.since); err != nil {
			return e.judge(ctx, w, err)
		}
	}
	return nil
}

// permit is what may be read of a window.
type permit struct {
	parts []conversation.Window
	since time.Time // what was finished before does not count
}

// errEnded says that a window's look-back does not run any more.
var errEnded = errors.New("its look-back has ended or was canceled")

// lookback admits the window of a look-back, if it is one: a message on the queue may be
// forged, so a running job must speak of the custodian and of the stretch. It costs one read.
func (e *Exporter) lookback(ctx context.Context, w conversation.Window) (permit, error) {
	job, err := e.known.Lookbacks.Get(ctx, w.Job)
	switch {
	case errors.Is(err, policy.ErrNotFound):
		return permit{}, fmt.Errorf("%w: window %s of a look-back that nobody asked for", funchost.ErrPoison, w.Key())
	case err != nil:
		return permit{}, fmt.Errorf("read look-back: %w", err)
	case job.Ended():
		return permit{}, errEnded
	case !job.Admits(w.Custodian, w.From, w.To):
		return permit{}, fmt.Errorf("%w: window %s is not one of its look-back", funchost.ErrPoison, w.Key())
	}
	periods, err := e.periods(ctx, w, true)
	if err == nil && len(periods) == 0 {
		periods, err = e.periods(ctx, w, false)
	}
	if err == nil && len(periods) == 0 {
		err = fmt.Errorf("%w: nobody is recorded under this id in window %s", funchost.ErrPoison, w.Key())
	}
	return permit{[]conversation.Window{w}, job.StartedAt}, err
}

// periods are the periods in which the custodian was recorded by what the window reads.
func (e *Exporter) periods(ctx context.Context, w conversation.Window, remembered bool) ([]policy.Period, error) {
	periods, err := e.intake.PeriodsOf(ctx, w.Custodian, remembered)
	return slices.DeleteFunc(periods, func(p policy.Period) bool {
		return !p.Role.Custodian() || (p.Role == policy.RecordedTeam) != w.Source.OfTeam()
	}), err
}

// allowed cuts the window down to what the roster permits: a message on the queue
// says what to read, not who is recorded.
func (e *Exporter) allowed(ctx context.Context, w conversation.Window) (permit, error) {
	if w.Tenant != e.config.Tenant {
		return permit{}, fmt.Errorf("%w: window of another tenant", funchost.ErrPoison)
	}
	if w.Pass == conversation.LookbackPass {
		return e.lookback(ctx, w)
	}
	for _, remembered := range []bool{true, false} {
		periods, err := e.periods(ctx, w, remembered)
		if err != nil {
			return permit{}, err
		}
		for i := range periods {
			periods[i].From = periods[i].From.Add(-e.config.History - conversation.Resolution)
		}
		spans := policy.Covered(periods, w.From, w.To)
		whole := len(spans) == 1 && spans[0] == policy.Span{From: w.From, To: w.To}
		if remembered && !whole {
			continue // a period may have opened since; ask before cutting anything off
		}
		var out permit
		for _, s := range spans {
			part := w
			part.From, part.To = s.From, s.To
			out.parts = append(out.parts, part)
		}
		if len(out.parts) > 0 {
			return out, nil
		}
	}
	return permit{}, fmt.Errorf("%w: nobody was recorded under this id in window %s", funchost.ErrPoison, w.Key())
}

// judge turns an error into the queue's language: parked, put back, or redelivered.
func (e *Exporter) judge(ctx context.Context, w conversation.Window, err error) error {
	var ge *msgraph.Error
	if errors.As(err, &ge) && ge.Gone() {
		return e.giveUp(ctx, w, err)
	}
	if errors.As(err, &ge) && ge.Permanent() && ge.Status != http.StatusBadRequest {
		return errors.Join(fmt.Errorf("%w: window %s: %w", funchost.ErrPoison, w.Key(), err), e.giveUp(ctx, w, err))
	}
	if ctx.Err() != nil {
		// The run's time is up. What it finished stays finished, and the next run, being no
		// first attempt, asks for it; sending takes a moment of the margin that is left.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
		defer cancel()
	}
	if w.Attempt >= MaxAttempts {
		return errors.Join(fmt.Errorf("%w: window %s after %d attempts: %w", funchost.ErrPoison, w.Key(), w.Attempt+1, err), e.giveUp(ctx, w, err))
	}
	w.Attempt++
	body, encErr := conversation.EncodeWindow(w)
	if encErr != nil {
		return errors.Join(err, encErr)
	}
	wait := time.Duration(w.Attempt) * e.config.RetryWait
	if errors.Is(err, intake.ErrLater) {
		wait = e.config.RetryWait / 5
	}
	if sendErr := e.queue.Send(ctx, w.MessageID(), body, time.Now().Add(wait)); sendErr != nil {
		return errors.Join(err, sendErr)
	}
	e.log.WarnContext(ctx, "window put back", slog.String("window", w.Key()), slog.Any("person", w.Custodian),
		slog.Int("attempt", w.Attempt), slog.Duration("wait", wait), slog.String("cause", err.Error()))
	return nil
}

// giveUp keeps a window that cannot be read: the mailbox or the team is not there, or not
// shown to this application, or no attempt brought an answer. Planning has it read again,
// and takes it out of the register once it could be. The first failure of a custodian is a
// custody event. It costs one query, two operations and that event's.
func (e *Exporter) giveUp(ctx context.Context, w conversation.Window, cause error) error {
	now := time.Now().UTC().Truncate(time.Millisecond)
	f := conversation.WindowFailed{Window: w, Since: now, At: now}
	f.Attempt = 0
	var ge *msgraph.Error
	if errors.As(cause, &ge) {
		f.Status, f.Code = ge.Status, ge.Code
	}
	known, err := e.known.Failures.FailuresOf(ctx, w.Custodian)
	if err != nil {
		return err
	}
	if len(known) == 0 {
		_, err := e.trail.Append(ctx, custody.Event{
			Tenant: w.Tenant, Action: custody.Captured, System: "chatexport", Item: "custodian-" + string(w.Custodian),
			Detail: fmt.Sprintf("cannot be read: %d %s", f.Status, f.Code),
		})
		if err != nil {
			return err
		}
	}
	if err := e.known.Failures.SaveFailure(ctx, f); err != nil {
		return err
	}
	e.log.ErrorContext(ctx, "window cannot be read", slog.String("alarm", "unreadable"), slog.String("window", w.Key()),
		slog.Any("person", w.Custodian), slog.String("cause", cause.Error()))
	return nil
}

// read finishes a window, cutting it in two wherever one page does not hold it. An
// attempt after the first does not read again what an earlier one finished; a first
// attempt does not ask, since it costs a query a window and reading twice does no harm.
func (e *Exporter) read(ctx context.Context, w conversation.Window, since time.Time) error {
	todo := []conversation.Window{w}
	if w.Attempt > 0 || w.Pass == conversation.LookbackPass {
		done, err := e.catalog.FinishedWindows(ctx, w.Custodian, w.Pass, w.From, w.To)
		if err != nil {
			return err
		}
		done = slices.DeleteFunc(done, func(d conversation.WindowDone) bool { return d.At.Before(since) })
		todo = w.Uncovered(done)
		slices.Reverse(todo)
	}
	for len(todo) > 0 {
		part := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		pages, whole, err := e.pages(ctx, part)
		if err != nil {
			return err
		}
		if !whole {
			first, second, ok := part.Split()
			if !ok {
				return fmt.Errorf("window %s holds more than a page and cannot be cut further", part.Key())
			}
			todo = append(todo, second, first)
			continue
		}
		if err := e.keep(ctx, part, pages); err != nil {
			return err
		}
	}
	return nil
}

// smallest is how short a window must be to be read page by page after all.
const smallest = 10 * conversation.Resolution

// pages reads a window. whole is false when the window should be cut instead: it has
// messages on more than one page. Empty pages are followed, since nothing can be
// skipped where nothing was.
func (e *Exporter) pages(ctx context.Context, w conversation.Window) (pages []intake.Page, whole bool, err error) {
	seen := map[string]bool{}
	next := ""
	for range msgraph.MaxPages {
		page, err := e.graph.Messages(ctx, w.Source, w.Custodian, w.From, w.To, next)
		if err != nil {
			return nil, false, fmt.Errorf("window %s: %w", w.Key(), err)
		}
		if len(page.Items) > 0 {
			pages = append(pages, intake.Page{Items: page.Items, RequestID: page.RequestID, FetchedAt: page.FetchedAt})
		}
		if page.Next == "" {
			return pages, true, nil
		}
		if len(pages) > 0 && w.To.Sub(w.From) > smallest {
			return nil, false, nil
		}
		if seen[page.Next] {
			return nil, false, fmt.Errorf("window %s: nextLink leads in a circle", w.Key())
		}
		seen[page.Next] = true
		next = page.Next
	}
	return nil, false, fmt.Errorf("window %s: more than %d pages", w.Key(), msgraph.MaxPages)
}

// keep stores what is new in the pages of a window and then finishes the window.
func (e *Exporter) keep(ctx context.Context, w conversation.Window, pages []intake.Page) error {
	lane := conversation.LaneExport
	if w.Pass == conversation.LookbackPass {
		lane = conversation.LaneLookback
	}
	kept, err := e.intake.Keep(ctx, intake.Delivery{Window: w, Lane: lane, Pages: pages})
	if err != nil {
		return err
	}
	if w.Pass > 1 && w.Pass <= conversation.MaxPass && kept.Done.New > 0 {
		if kept.Done.Late, err = e.missed(ctx, w, kept.Done.New); err != nil {
			return err
		}
	}
	if err := e.catalog.FinishWindow(ctx, kept.Done, kept.Touched); err != nil {
		return fmt.Errorf("window %s: %w", w.Key(), err)
	}
	return nil
}

// missed raises the alarm if an earlier pass had finished the stretch and left versions
// behind, and returns how many. If it had not, this pass has merely overtaken it.
func (e *Exporter) missed(ctx context.Context, w conversation.Window, added int) (late int, err error) {
	done, err := e.catalog.FinishedWindows(ctx, w.Custodian, w.Pass-1, w.From.Add(-conversation.MaxWindow), w.To.Add(conversation.MaxWindow))
	if err != nil {
		return 0, err
	}
	if len(w.Uncovered(done)) > 0 {
		e.log.InfoContext(ctx, "a later pass overtook an earlier one", slog.String("window", w.Key()), slog.Int("new", added))
		return 0, nil
	}
	e.log.ErrorContext(ctx, "a later pass found versions that an earlier one had missed",
		slog.String("alarm", "second-pass"), slog.String("window", w.Key()), slog.Any("person", w.Custodian), slog.Int("new", added))
	return added, nil
}
