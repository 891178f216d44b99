// Package notified takes what function notifications queued: it decrypts the messages,
// decides whose may be kept, and puts those into evidence as the early lane.
//
// It is a timer and not the queue's trigger, because storage is paid by the operation. A
// trigger would be handed one delivery at a time, and each would cost a claim, a blob, a
// custody event and the rows of a window; Graph sends one message in a delivery where little
// is said. A run takes many deliveries together, sorts their messages by custodian, and keeps
// each custodian's as one window: one custody event a custodian and run, and one blob and one
// claim a conversation. A minute or a few of waiting is what that costs in time.
//
// What is nobody's to keep is dropped as soon as that is known, before any store sees it, and
// leaves nothing but a count.
package notified

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"steno/functions/internal/intake"
	"steno/functions/internal/keyring"
	"steno/shared/conversation"
	"steno/shared/evidence"
	"steno/shared/notification"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Limits of a run.
const (
	// batch is how many messages of the queue are handled together, and batchBytes how large
	// they may be together: an instance has 512 MB, and a message is in memory three times.
	batch      = 256
	batchBytes = 16 << 20
	// idle is how long a run waits for a first message before it ends, and more for a further
	// one before it handles those it has.
	idle = 2 * time.Second
	more = 200 * time.Millisecond
	// gathering is how long messages are collected at most before they are handled: their locks
	// run for a minute or five.
	gathering = 5 * time.Second
	// MaxAttempts is how often a parcel is put back before it is parked. With the waits
	// between them that is a day and a half.
	MaxAttempts = 150
	firstWait   = 30 * time.Second
	longestWait = 15 * time.Minute
	// settleTimeout is how long it may take to put back or complete what a run leaves when its
	// time is up.
	settleTimeout = 10 * time.Second
)

type inbox interface {
	Receive(ctx context.Context, most int, wait time.Duration) ([]notification.Envelope, error)
}

type queue interface {
	Send(ctx context.Context, id string, body []byte, notBefore time.Time) error
}

// claims has what was too large for a message of the queue.
type claims interface {
	Size(ctx context.Context, name string) (int64, error)
	ReadAt(ctx context.Context, name string, off, n int64) ([]byte, error)
	Delete(ctx context.Context, name string) error
}

// Config is the function's own.
type Config struct {
	Tenant teams.TenantID
	// On tells whether the lane is configured.
	On bool
}

// Stores are where the function reads and keeps.
type Stores struct {
	Roster   policy.Roster
	Register notification.Register
	Catalog  conversation.Catalog
	Intake   *intake.Intake
	Keys     *keyring.Keyring
	Inbox    inbox
	Queue    queue // the same queue, to put back to
	Claims   claims
	// Park keeps aside what can never be handled; body holds no content.
	Park func(ctx context.Context, reason, id string, body []byte) error
}

// Notified is the function. Runs must not overlap; the timer sees to it, and if they did
// each message would be taken by one of them.
type Notified struct {
	config Config
	s      Stores
	log    *slog.Logger
	once   sync.Once
	scope  *scope
}

// New returns the function.
func New(c Config, s Stores, log *slog.Logger) *Notified {
	return &Notified{config: c, s: s, log: log, scope: &scope{catalog: s.Catalog, tenant: c.Tenant, known: map[conversation.ThreadKey]threadScope{}}}
}

// Counts is what became of the items of a run. That an item was out of scope is all that is
// kept of it.
type Counts struct {
	Kept, New, OutOfScope, Parked, PutBack int
}

// Run takes what is on the queue. It ends where the queue does, and does not wait for what is
// still to come: that is the next run's, together with more of its kind. A run that dies at any step leaves messages that come again, and
// what it stored is found by whoever keeps them again.
func (n *Notified) Run(ctx context.Context) error {
	if !n.config.On {
		n.once.Do(func() {
			n.log.InfoContext(ctx, "change notifications are not configured: nothing is drained")
		})
		return nil
	}
	var total Counts
	r, err := n.begin(ctx)
	if err != nil {
		return err
	}
	for full := true; full; {
		var got []notification.Envelope
		if got, full, err = n.receive(ctx); err != nil {
			return err
		}
		c, err := r.handle(ctx, got)
		if err != nil {
			return err
		}
		total = total.plus(c)
	}
	if total != (Counts{}) {
		n.log.InfoContext(ctx, "notifications handled", slog.Int("kept", total.Kept), slog.Int("new", total.New),
			slog.Int("out_of_scope", total.OutOfScope), slog.Int("parked", total.Parked), slog.Int("put_back", total.PutBack))
	}
	return nil
}

func (c Counts) plus(o Counts) Counts {
	return Counts{c.Kept + o.Kept, c.New + o.New, c.OutOfScope + o.OutOfScope, c.Parked + o.Parked, c.PutBack + o.PutBack}
}

// receive collects messages. It reports whether there were as many as are handled together,
// so that there may be more.
func (n *Notified) receive(ctx context.Context) (out []notification.Envelope, full bool, err error) {
	size, wait, began := 0, idle, time.Now()
	for len(out) < batch && size < batchBytes && time.Since(began) < gathering {
		got, err := n.s.Inbox.Receive(ctx, min(batch-len(out), 64), wait)
		if err != nil {
			return nil, false, err
		}
		if len(got) == 0 {
			return out, false, nil
		}
		for _, e := range got {
			size += len(e.Body)
		}
		out, wait = append(out, got...), more
	}
	return out, len(out) >= batch || size >= batchBytes, nil
}

// run is one run: what it knows of who is recorded and what was subscribed to.
type run struct {
	*Notified
	recorded      map[teams.PersonID]bool // people, and teams
	subscriptions map[string]notification.Subscription
}

func (n *Notified) begin(ctx context.Context) (*run, error) {
	periods, err := policy.Custodians(ctx, n.s.Roster)
	if err != nil {
		return nil, err
	}
	r := &run{Notified: n, recorded: map[teams.PersonID]bool{}, subscriptions: map[string]notification.Subscription{}}
	now := time.Now()
	for _, p := range periods {
		if p.Covers(now) {
			r.recorded[p.Person] = true
		}
	}
	list, err := n.s.Register.Subscriptions(ctx)
	if err != nil {
		return nil, fmt.Errorf("read subscriptions: %w", err)
	}
	for _, s := range list {
		r.subscriptions[s.ID] = s
	}
	return r, nil
}

// parcel is a message of the queue in the making.
type parcel struct {
	notification.Parcel
	envelope notification.Envelope
	failed   error               // why it has to come again
	left     []notification.Item // which of its items have to
}

func (p *parcel) fail(err error, items ...notification.Item) {
	p.failed, p.left = err, append(p.left, items...)
}

// group is what one custodian keeps of a batch.
type group struct {
	window  conversation.Window
	pages   map[*parcel]*intake.Page
	items   map[*parcel][]notification.Item // what the pages were decrypted from
	parcels []*parcel
}

// handle settles every message of a batch: done, parked or put back.
func (r *run) handle(ctx context.Context, got []notification.Envelope) (c Counts, err error) {
	groups := map[conversation.Window]*group{}
	var parcels []*parcel
	for _, e := range got {
		p, err := r.open(ctx, e, &c)
		if err != nil {
			return c, err
		}
		if p == nil {
			continue
		}
		parcels = append(parcels, p)
		for _, i := range p.Items {
			r.sort(ctx, p, i, groups, &c)
		}
	}
	for _, g := range groups {
		kept, err := r.keep(ctx, g)
		if err != nil {
			for _, p := range g.parcels {
				p.fail(err, g.items[p]...)
			}
			continue
		}
		c.Kept += kept.Returned
		c.New += kept.New
	}
	var faults []error
	for _, p := range parcels {
		faults = append(faults, r.settle(ctx, p, &c))
	}
	return c, errors.Join(faults...)
}

// open reads a message of the queue. One that is no parcel is parked, and nil returned.
func (r *run) open(ctx context.Context, e notification.Envelope, c *Counts) (*parcel, error) {
	inner, err := notification.DecodeParcel(e.Body)
	if err != nil {
		c.Parked++
		return nil, errors.Join(r.park(ctx, "not a parcel of notifications", "", nil), e.Done(ctx))
	}
	p := &parcel{Parcel: inner, envelope: e}
	if p.Claim == "" {
		return p, nil
	}
	body, err := r.claimed(ctx, p.Claim)
	if err != nil {
		p.failed = err
		return p, nil
	}
	if body == nil {
		return p, nil
	}
	whole, err := notification.DecodeParcel(body)
	if err != nil || whole.Claim != "" {
		c.Parked++
		return nil, errors.Join(r.park(ctx, "the blob of a parcel is none", p.Claim, nil), e.Done(ctx))
	}
	p.Items = whole.Items
	return p, nil
}

// claimed reads the blob of a parcel, nil if it is gone: it goes last, so that the parcel was
// queued twice and all of it is kept.
func (r *run) claimed(ctx context.Context, claim string) ([]byte, error) {
	name := notification.ClaimName(claim)
	size, err := r.s.Claims.Size(ctx, name)
	if errors.Is(err, evidence.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("claimed parcel: %w", err)
	}
	if size > 2*notification.MaxDelivery {
		return nil, fmt.Errorf("claimed parcel of %d bytes", size)
	}
	body, err := r.s.Claims.ReadAt(ctx, name, 0, size)
	if err != nil {
		return nil, fmt.Errorf("claimed parcel: %w", err)
	}
	return body, nil
}

// sort decrypts an item and puts it to its custodian's others.
func (r *run) sort(ctx context.Context, p *parcel, i notification.Item, groups map[conversation.Window]*group, c *Counts) {
	w, plain, err := r.judge(ctx, i)
	switch {
	case errors.Is(err, errOutOfScope):
		c.OutOfScope++
		return
	case errors.Is(err, errPark):
		c.Parked++
		if err := r.parkItem(ctx, i, err); err != nil {
			p.fail(err, i)
		}
		return
	case err != nil:
		p.fail(err, i)
		return
	}
	g := groups[w]
	if g == nil {
		g = &group{window: w, pages: map[*parcel]*intake.Page{}, items: map[*parcel][]notification.Item{}}
		groups[w] = g
	}
	page := g.pages[p]
	if page == nil {
		page = &intake.Page{FetchedAt: p.Received}
		g.pages[p], g.parcels = page, append(g.parcels, p)
	}
	page.Items, g.items[p] = append(page.Items, plain), append(g.items[p], i)
}

// keep puts a custodian's messages into evidence as one window: the times between which
// their notifications arrived.
func (r *run) keep(ctx context.Context, g *group) (done conversation.WindowDone, err error) {
	d := intake.Delivery{Window: g.window, Lane: conversation.LaneNotified}
	for _, p := range g.parcels {
		if d.Window.From.IsZero() || p.Received.Before(d.Window.From) {
			d.Window.From = p.Received
		}
		if p.Received.After(d.Window.To) {
			d.Window.To = p.Received
		}
		d.Pages = append(d.Pages, *g.pages[p])
	}
	d.Window.From = d.Window.From.Truncate(conversation.Resolution).Add(-conversation.Resolution)
	d.Window.To = d.Window.To.Truncate(conversation.Resolution).Add(2 * conversation.Resolution)
	kept, err := r.s.Intake.Keep(ctx, d)
	if err != nil {
		return done, err
	}
	if err := r.s.Catalog.FinishWindow(ctx, kept.Done, kept.Touched); err != nil {
		return done, fmt.Errorf("window %s: %w", d.Window.Key(), err)
	}
	return kept.Done, nil
}

// settle ends what a message of the queue began: it is done, or put back to be handled later.
func (r *run) settle(ctx context.Context, p *parcel, c *Counts) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if p.failed != nil {
		return r.putBack(ctx, p, c)
	}
	if err := p.envelope.Done(ctx); err != nil {
		// Its lock ran out: it comes again, and adds nothing.
		r.log.WarnContext(ctx, "notifications are kept, and come again", slog.String("cause", err.Error()))
		return nil
	}
	if p.Claim != "" {
		return r.s.Claims.Delete(ctx, notification.ClaimName(p.Claim))
	}
	return nil
}

// putBack queues what is left of a parcel anew, to be handled after a while. The queue's own count of
// deliveries would be used up by an outage of an hour.
func (r *run) putBack(ctx context.Context, p *parcel, c *Counts) error {
	again := p.Parcel
	again.Items = p.left // what is kept, dropped or parked is done with
	if again.Claim != "" {
		again.Items = nil // they are in the blob still
	}
	if again.Attempt++; again.Attempt > MaxAttempts {
		c.Parked++
		return errors.Join(r.park(ctx, fmt.Sprintf("given up after %d attempts", MaxAttempts), p.Claim, nil), p.envelope.Done(ctx))
	}
	c.PutBack++
	body, err := notification.EncodeParcel(again)
	if err != nil {
		return err
	}
	wait := min(time.Duration(again.Attempt)*firstWait, longestWait)
	if err := r.s.Queue.Send(ctx, "again", body, time.Now().Add(wait)); err != nil {
		return errors.Join(p.failed, err)
	}
	r.log.WarnContext(ctx, "notifications put back", slog.Int("attempt", again.Attempt), slog.Duration("wait", wait), slog.String("cause", p.failed.Error()))
	if err := p.envelope.Done(ctx); err != nil {
		r.log.WarnContext(ctx, "notifications are queued twice", slog.String("cause", err.Error()))
	}
	return nil
}
