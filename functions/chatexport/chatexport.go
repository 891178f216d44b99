// Package chatexport reads one export window of one custodian and puts the message
// versions that are new into evidence, each exactly as Graph sent it, once.
//
// Pages of Graph are offsets into a listing that changes: when a message is edited
// while it is being paged, another one is skipped. So a window that does not fit one
// page is cut in two until it does, and a window counts as finished only when every
// object that holds its versions is known to be stored.
//
// How a version is claimed, stored and believed is described in package
// conversation. A run may die at any step and be repeated; two runs may meet.
package chatexport

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"steno/functions/internal/funchost"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Defaults and limits.
const (
	// DefaultClaimLease is how old a claim must be before its versions may be claimed
	// anew. It is longer than any run can live (host.json functionTimeout).
	DefaultClaimLease = 15 * time.Minute
	// MaxAttempts is how often a window is put back before it is parked.
	MaxAttempts = 20
	// DefaultRetryWait is how long a window that was put back rests, times its attempt.
	DefaultRetryWait = 15 * time.Second
	// sendTimeout is how long putting a window back may take once a run's time is up.
	sendTimeout = 10 * time.Second
	// parallel is how many conversations of a page are stored at the same time.
	parallel = 4
	// maxVersions is the most versions one evidence object holds; its row lists them.
	maxVersions = 500
	// conflicts is how often a slice that keeps changing is read anew.
	conflicts = 8
)

// errLater says that somebody else's unfinished work is in the way.
var errLater = errors.New("another run has claimed these versions and not stored them yet")

type graph interface {
	UserMessages(ctx context.Context, user teams.PersonID, from, to time.Time, next string) (msgraph.Page, error)
}

type store interface {
	Seal(ctx context.Context, ref evidence.Ref, plain []byte) (evidence.Sealed, error)
	Put(ctx context.Context, o evidence.Sealed) error
	Exists(ctx context.Context, ref evidence.Ref) (bool, error)
	Digest(ctx context.Context, ref evidence.Ref) (size int64, digest [sha256.Size]byte, err error)
}

type queue interface {
	Send(ctx context.Context, id string, body []byte, notBefore time.Time) error
}

// Config is the exporter's own.
type Config struct {
	Tenant  teams.TenantID
	History time.Duration // as in exportplan
	// ClaimLease is how old an unfinished claim must be to be replaced; 0 means DefaultClaimLease.
	ClaimLease time.Duration
	// RetryWait is how long a window that could not be read rests before it is tried
	// again, times the attempt; 0 means DefaultRetryWait.
	RetryWait time.Duration
	// Policies say how long what is stored is kept.
	Policies policy.DataPolicies
}

// Exporter handles messages of the queue chat-export. It is safe for many at once.
type Exporter struct {
	config  Config
	graph   graph
	roster  policy.Roster
	catalog conversation.Catalog
	store   store
	trail   custody.Log
	queue   queue
	log     *slog.Logger

	mu     sync.Mutex
	stored map[string]bool // objects known to be stored; a cache of the truth
	// conversations are those this process has met; a hint of what the catalog knows.
	conversations map[conversation.ID]bool
	periods       map[teams.PersonID]periodsAt
}

type periodsAt struct {
	periods []policy.Period
	until   time.Time
}

// periodsTTL is how long a person's periods are remembered: the windows of one planning
// come together, and a period that closes does so in the past of no window.
const periodsTTL = 30 * time.Second

// New returns an Exporter.
func New(c Config, g graph, r policy.Roster, cat conversation.Catalog, s store, trail custody.Log, q queue, log *slog.Logger) *Exporter {
	if c.ClaimLease == 0 {
		c.ClaimLease = DefaultClaimLease
	}
	if c.RetryWait == 0 {
		c.RetryWait = DefaultRetryWait
	}
	return &Exporter{config: c, graph: g, roster: r, catalog: cat, store: s, trail: trail, queue: q, log: log, stored: map[string]bool{}, conversations: map[conversation.ID]bool{}, periods: map[teams.PersonID]periodsAt{}}
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
		periods, err := e.periodsOf(ctx, w.Custodian, remembered)
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

// periodsOf returns a copy of a person's periods: at most periodsTTL old if remembered
// ones will do, else as the roster has them now.
func (e *Exporter) periodsOf(ctx context.Context, p teams.PersonID, remembered bool) ([]policy.Period, error) {
	now := time.Now()
	e.mu.Lock()
	known, ok := e.periods[p]
	e.mu.Unlock()
	if remembered && ok && now.Before(known.until) {
		return slices.Clone(known.periods), nil
	}
	periods, err := e.roster.PeriodsOf(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("read roster: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.periods) >= maxStored {
		clear(e.periods)
	}
	e.periods[p] = periodsAt{periods, now.Add(periodsTTL)}
	return slices.Clone(periods), nil
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
	if errors.Is(err, errLater) {
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
func (e *Exporter) pages(ctx context.Context, w conversation.Window) (pages []msgraph.Page, whole bool, err error) {
	seen := map[string]bool{}
	next := ""
	for range msgraph.MaxPages {
		page, err := e.graph.UserMessages(ctx, w.Custodian, w.From, w.To, next)
		if err != nil {
			return nil, false, fmt.Errorf("window %s: %w", w.Key(), err)
		}
		if len(page.Items) > 0 {
			pages = append(pages, page)
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
func (e *Exporter) keep(ctx context.Context, w conversation.Window, pages []msgraph.Page) error {
	result := conversation.WindowDone{Window: w}
	byConversation := map[conversation.ID][]conversation.Message{}
	heads := map[conversation.ID]conversation.BatchHeader{}
	seen := map[conversation.ID]map[conversation.VersionKey]bool{}
	for _, page := range pages {
		for _, raw := range page.Items {
			m := conversation.ReadMessage(raw, w.Custodian)
			if m.Unclear != nil {
				result.Unclear++
				e.log.WarnContext(ctx, "item kept as unclear", slog.String("window", w.Key()), slog.String("cause", m.Unclear.Error()))
			}
			id := conversation.IDOf(conversation.KeyOf(w.Tenant, m.Thread), m.Sent)
			if seen[id] == nil {
				seen[id] = map[conversation.VersionKey]bool{}
				heads[id] = conversation.BatchHeader{
					Tenant: w.Tenant, Conversation: id, Thread: m.Thread, Custodian: w.Custodian,
					Window: w.Key(), Lane: "export", FetchedAt: page.FetchedAt, RequestID: page.RequestID,
				}
			}
			if !seen[id][m.VersionKey] {
				seen[id][m.VersionKey] = true
				byConversation[id] = append(byConversation[id], m)
				result.Returned++
			}
		}
	}
	touched, added, bound, err := e.storeAll(ctx, w.Pass == 1, heads, byConversation)
	// What is stored is bound, whatever became of the rest: nobody else knows it.
	if err := errors.Join(err, e.bind(ctx, w, bound)); err != nil {
		return err
	}
	result.New, result.At = added, time.Now().UTC()
	if w.Pass > 1 && added > 0 {
		if err := e.missed(ctx, w, added); err != nil {
			return err
		}
	}
	if err := e.catalog.FinishWindow(ctx, result, touched); err != nil {
		return fmt.Errorf("window %s: %w", w.Key(), err)
	}
	return nil
}

// bind puts the digests of what was stored into the custody trail, and so into its log: one
// event a window, since an event is a storage operation. Objects of a run that dies before
// it, function fixity finds and binds.
func (e *Exporter) bind(ctx context.Context, w conversation.Window, bound []custody.Object) error {
	slices.SortFunc(bound, func(a, b custody.Object) int { return cmp.Or(cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Seq, b.Seq)) })
	for part := range slices.Chunk(bound, custody.MaxObjects) {
		if _, err := e.trail.Append(ctx, custody.Event{
			Tenant: w.Tenant, Action: custody.Sealed, System: "chatexport", Item: w.Key(), Objects: part,
		}); err != nil {
			return fmt.Errorf("bind %d objects of window %s: %w", len(part), w.Key(), err)
		}
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

func (e *Exporter) storeAll(ctx context.Context, first bool, heads map[conversation.ID]conversation.BatchHeader, messages map[conversation.ID][]conversation.Message) (touched []conversation.Conversation, added int, bound []custody.Object, err error) {
	var mu sync.Mutex
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for id, list := range messages {
		group.Go(func() error {
			for part := range slices.Chunk(list, maxVersions) {
				s, err := e.storeConversation(gctx, first, heads[id], part)
				mu.Lock()
				bound = append(bound, s.bound...)
				if err == nil && s.facts.ID != "" {
					touched = append(touched, s.facts)
					added += s.added
				}
				mu.Unlock()
				if err != nil {
					return fmt.Errorf("conversation %s: %w", id, err)
				}
			}
			return nil
		})
	}
	err = group.Wait()
	return lastOfEach(touched), added, bound, err
}

// lastOfEach keeps the latest facts of each conversation: parts of one conversation
// are stored one after another, and a transaction may name a row once.
func lastOfEach(list []conversation.Conversation) []conversation.Conversation {
	at := map[conversation.ID]int{}
	out := list[:0]
	for _, c := range list {
		if i, ok := at[c.ID]; ok {
			out[i] = c
			continue
		}
		at[c.ID] = len(out)
		out = append(out, c)
	}
	return out
}
