package retention

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
)

// survey passes over all conversations: it counts them, notes what may be due, and moves
// Retain Until on where that is to be looked at: of recent calls in every run, and of
// everything in a sweep, which may take several runs.
func (p *pass) survey(ctx context.Context) error {
	w, err := p.sweep(ctx)
	if err != nil {
		return err
	}
	shortest := p.c.Policies.Shortest()
	var faults []error
	err = p.each(ctx, func(page []conversation.Conversation) error {
		var extend []conversation.ID
		for _, c := range page {
			p.total++
			if !p.now.Before(shortest.After(c.ID.Day())) {
				p.due = append(p.due, c.ID)
			}
			if w.takes(c) || c.Call != nil && p.now.Sub(c.ID.Day()) < recent {
				extend = append(extend, c.ID)
			}
		}
		found := p.extendAll(ctx, extend)
		faults = append(faults, found...)
		return w.seen(ctx, page, len(found) > 0)
	})
	p.whole = err == nil
	if p.moved > 0 {
		_, recordErr := p.record(ctx, custody.Event{Action: custody.Retain, Item: "retain-until", Detail: fmt.Sprintf("objects=%d policies=%s", p.moved, p.c.Policies.Digest())})
		faults = append(faults, recordErr)
	}
	if err == nil {
		err = w.end(ctx)
	}
	return errors.Join(append(faults, err)...)
}

// sweeping is a sweep under way in this run.
type sweeping struct {
	*pass
	policy.Sweep
	on    bool // this run takes part
	until time.Time
}

// sweep begins a sweep if one is due, or goes on with the one that an earlier run left.
func (p *pass) sweep(ctx context.Context) (*sweeping, error) {
	last, err := p.s.Dispositions.Sweep(ctx)
	if err != nil {
		return nil, fmt.Errorf("read last sweep: %w", err)
	}
	w := &sweeping{pass: p, Sweep: last, until: time.Now().Add(p.c.SweepFor)}
	digest := p.c.Policies.Digest()
	switch {
	case last.Under == digest:
		w.on = true
	case last.Under != "", last.Policies != digest, p.now.Sub(last.At) >= SweepEvery:
		w.on, w.Under, w.Start, w.ID, w.Failed = true, digest, time.Time{}, "", false
	}
	return w, nil
}

// takes reports whether the sweep has yet to see a conversation.
func (w *sweeping) takes(c conversation.Conversation) bool {
	at := conversation.Position{Start: w.Start, ID: conversation.ID(w.ID)}
	return w.on && (w.ID == "" || at.Before(c.Position()))
}

// seen notes how far the sweep has come, and ends this run's part in it when time is up.
func (w *sweeping) seen(ctx context.Context, page []conversation.Conversation, failed bool) error {
	if !w.on || len(page) == 0 || !w.takes(page[len(page)-1]) {
		return nil
	}
	w.Failed = w.Failed || failed
	last := page[len(page)-1].Position()
	w.Start, w.ID = last.Start, string(last.ID)
	if !time.Now().Before(w.until) {
		w.on = false
	}
	return w.s.Dispositions.SaveSweep(ctx, w.Sweep)
}

// end completes the sweep, or has it begin anew where it failed.
func (w *sweeping) end(ctx context.Context) error {
	if !w.on {
		return nil
	}
	if !w.Failed {
		w.At, w.Policies = w.now, w.Under
	}
	w.Under, w.Start, w.ID, w.Failed = "", time.Time{}, "", false
	return w.s.Dispositions.SaveSweep(ctx, w.Sweep)
}

// each calls f for the conversations that are not disposed, page by page, newest first.
func (p *pass) each(ctx context.Context, f func([]conversation.Conversation) error) error {
	var request conversation.PageRequest
	for {
		page, err := p.s.Catalog.ByTime(ctx, conversation.Earliest, conversation.Latest, request)
		if err != nil {
			return fmt.Errorf("list conversations: %w", err)
		}
		var there []conversation.Conversation
		for _, c := range page.Conversations {
			request.After = c.Position()
			if c.Disposed == nil {
				there = append(there, c)
			}
		}
		if err := f(there); err != nil {
			return err
		}
		if !page.More {
			return nil
		}
	}
}

// extendAll moves the Retain Until of several conversations on.
func (p *pass) extendAll(ctx context.Context, ids []conversation.ID) (faults []error) {
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(parallel)
	for _, id := range ids {
		group.Go(func() error {
			n, err := p.extend(ctx, id)
			mu.Lock()
			defer mu.Unlock()
			p.moved += n
			switch {
			case errors.Is(err, errGone):
				// The listing is derived, and may be out of date or tampered with.
				p.log.WarnContext(ctx, "listed and not there", slog.String("conversation", string(id)))
			case err != nil:
				faults = append(faults, fmt.Errorf("extend %s: %w", id, err))
			}
			return nil
		})
	}
	_ = group.Wait() // they return their errors in faults
	return faults
}

// extend moves the Retain Until of a conversation's evidence on.
func (p *pass) extend(ctx context.Context, id conversation.ID) (moved int, err error) {
	s, err := p.subject(ctx, id)
	if err != nil {
		return 0, err
	}
	until := p.c.Policies.Decide(s.facts).Until
	for _, u := range s.units {
		n, err := p.s.Keeper.Extend(ctx, p.c.Tenant, u, until)
		if moved += n; err != nil {
			return moved, err
		}
	}
	return moved, nil
}
