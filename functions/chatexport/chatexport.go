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
	// Files has attachments fetched, those that FileMode says; nil asks for none.
	Files    intake.Queue
	FileMode intake.FileMode
	// RetryWait is how long a window that could not be read rests before it is tried
	// again, times the attempt; 0 means DefaultRetryWait.
	RetryWait time.Duration
}

// Exporter handles messages of the queue chat-export. It is safe for many at once.
type Exporter struct {
	config  Config
	graph   graph
	catalog conversation.Catalog
	intake  *intake.Intake
	queue   queue
	log     *slog.Logger
}

// New returns an Exporter.
func New(c Config, g graph, r policy.Roster, cat conversation.Catalog, s intake.Store, trail custody.Log, q queue, log *slog.Logger) *Exporter {
	if c.RetryWait == 0 {
		c.RetryWait = DefaultRetryWait
	}
	in := intake.New(intake.Config{System: "chatexport", History: c.History, ClaimLease: c.ClaimLease, Policies: c.Policies, Tenant: c.Tenant, Files: c.Files, FileMode: c.FileMode}, r, cat, s, trail, log)
	return &Exporter{config: c, graph: g, catalog: cat, intake: in, queue: q, log: log}
}

// Handle reads the window that a message names. It returns nil when the window is
// finished, or was put back on the queue to be read later. A message that can never
// succeed is reported with funchost.ErrPoison; any other error asks for redelivery.
func (e *Exporter) Handle(ctx context.Context, body []byte) error {
	w, err := conversation.DecodeWindow(body)
	if err != nil {
		return fmt.Errorf("%w: %w", funchost.ErrPoison, err)
	}
	spans, err := e.allowed(ctx, w)
	if err != nil {
		return err
	}
	for _, part := range spans {
		if err := e.read(ctx, part); err != nil {
			return e.judge(ctx, w, err)
		}
	}
	return nil
}

// allowed cuts the window down to what the roster permits: a message on the queue
// says what to read, not who is recorded.
func (e *Exporter) allowed(ctx context.Context, w conversation.Window) ([]conversation.Window, error) {
	if w.Tenant != e.config.Tenant {
		return nil, fmt.Errorf("%w: window of another tenant", funchost.ErrPoison)
	}
	for _, remembered := range []bool{true, false} {
		periods, err := e.intake.PeriodsOf(ctx, w.Custodian, remembered)
		if err != nil {
			return nil, err
		}
		for i := range periods {
			periods[i].From = periods[i].From.Add(-e.config.History - conversation.Resolution)
		}
		spans := policy.Covered(periods, w.From, w.To)
		whole := len(spans) == 1 && spans[0] == policy.Span{From: w.From, To: w.To}
		if remembered && !whole {
			continue // a period may have opened since; ask before cutting anything off
		}
		var out []conversation.Window
		for _, s := range spans {
			part := w
			part.From, part.To = s.From, s.To
			out = append(out, part)
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, fmt.Errorf("%w: nobody was recorded under this id in window %s", funchost.ErrPoison, w.Key())
}

// judge turns an error into the queue's language: parked, put back, or redelivered.
func (e *Exporter) judge(ctx context.Context, w conversation.Window, err error) error {
	var ge *msgraph.Error
	if errors.As(err, &ge) && ge.Permanent() && ge.Status != http.StatusBadRequest {
		return fmt.Errorf("%w: window %s: %w", funchost.ErrPoison, w.Key(), err)
	}
	if ctx.Err() != nil {
		// The run's time is up. What it finished stays finished, and the next run, being no
		// first attempt, asks for it; sending takes a moment of the margin that is left.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
		defer cancel()
	}
	if w.Attempt >= MaxAttempts {
		return fmt.Errorf("%w: window %s after %d attempts: %w", funchost.ErrPoison, w.Key(), w.Attempt+1, err)
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

// read finishes a window, cutting it in two wherever one page does not hold it. An
// attempt after the first does not read again what an earlier one finished; a first
// attempt does not ask, since it costs a query a window and reading twice does no harm.
func (e *Exporter) read(ctx context.Context, w conversation.Window) error {
	todo := []conversation.Window{w}
	if w.Attempt > 0 {
		done, err := e.catalog.FinishedWindows(ctx, w.Custodian, w.Pass, w.From, w.To)
		if err != nil {
			return err
		}
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
	kept, err := e.intake.Keep(ctx, intake.Delivery{Window: w, Lane: conversation.LaneExport, Pages: pages})
	if err != nil {
		return err
	}
	if w.Pass > 1 && w.Pass <= conversation.MaxPass && kept.Done.New > 0 {
		if err := e.missed(ctx, w, kept.Done.New); err != nil {
			return err
		}
	}
	if err := e.catalog.FinishWindow(ctx, kept.Done, kept.Touched); err != nil {
		return fmt.Errorf("window %s: %w", w.Key(), err)
	}
	return nil
}

// missed raises the alarm if an earlier pass had finished the stretch and left
// versions behind. If it had not, this pass has merely overtaken it.
func (e *Exporter) missed(ctx context.Context, w conversation.Window, added int) error {
	done, err := e.catalog.FinishedWindows(ctx, w.Custodian, w.Pass-1, w.From.Add(-conversation.MaxWindow), w.To.Add(conversation.MaxWindow))
	if err != nil {
		return err
	}
	if len(w.Uncovered(done)) > 0 {
		e.log.InfoContext(ctx, "a later pass overtook an earlier one", slog.String("window", w.Key()), slog.Int("new", added))
		return nil
	}
	e.log.ErrorContext(ctx, "a later pass found versions that an earlier one had missed",
		slog.String("alarm", "second-pass"), slog.String("window", w.Key()), slog.Any("person", w.Custodian), slog.Int("new", added))
	return nil
}
