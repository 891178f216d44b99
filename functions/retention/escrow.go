package retention

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"steno/shared/evidence"
)

// escrowOverlap is how far a run looks behind where the last one began: rows may become
// visible a little later than their time says.
const escrowOverlap = 15 * time.Minute

// escrow brings the copies of keys that were stored since the last run to write-once
// storage: one record for each unit that has new ones. It stands here, and not in a function
// of its own, because a copy that is stored while a unit is erased would outlive its keys; and
// not in the writers, because there it would cost a write for each of them, unit and five
// minutes. Until a run has seen it, a key has its row alone.
func (p *pass) escrow(ctx context.Context) error {
	if !p.c.Escrow {
		return nil
	}
	began, err := p.s.Keeper.Objects.Now(ctx)
	if err != nil {
		return fmt.Errorf("escrow keys: read the clock of storage: %w", err)
	}
	last, err := p.s.Dispositions.Sweep(ctx)
	if err != nil {
		return fmt.Errorf("escrow keys: read last sweep: %w", err)
	}
	since := last.Escrowed
	if !since.IsZero() {
		since = since.Add(-escrowOverlap)
	}
	e := escrowing{pass: p}
	e.group.SetLimit(parallel)
	var unit []evidence.WrappedKey // keys of one unit, which follow one another
	err = p.s.Keeper.Keys.Since(ctx, p.c.Tenant, since, func(w evidence.WrappedKey) error {
		if strings.HasPrefix(w.Unit, packageUnit) || strings.HasPrefix(w.Unit, noticeUnit) {
			return nil // a package is a copy, a notification's key pair is replaced: both can be made again
		}
		if len(unit) > 0 && (unit[0].Unit != w.Unit || len(unit) == maxEscrowed) {
			e.take(ctx, unit)
			unit = nil
		}
		unit = append(unit, w)
		return nil
	})
	e.take(ctx, unit)
	_ = e.group.Wait() // what fails stands in faults
	err = errors.Join(append(e.faults, err)...)
	if e.keys > 0 || e.bare > 0 {
		p.log.InfoContext(ctx, "keys in escrow", slog.Int("keys", e.keys), slog.Int("units", e.units))
	}
	if e.bare > 0 {
		p.alarm(ctx, "escrow", "keys without a copy for recovery: they were drawn where no recovery key is configured, or their rows are damaged", slog.Int("keys", e.bare))
	}
	if err != nil {
		return fmt.Errorf("escrow keys: %w", err)
	}
	last.Escrowed = began
	if err := p.s.Dispositions.SaveSweep(ctx, last); err != nil {
		return fmt.Errorf("escrow keys: %w", err)
	}
	return nil
}

// packageUnit begins the units of export packages, noticeUnit those of the private keys of
// change notifications; no other unit's name begins so.
const (
	packageUnit = "export-"
	noticeUnit  = "notify-"
)

// maxEscrowed is how many keys one record takes, far below what is read of a record.
const maxEscrowed = 1000

// escrowing is the escrow part of a run.
type escrowing struct {
	*pass
	group errgroup.Group

	mu     sync.Mutex
	keys   int // copies that are in write-once storage now
	units  int
	bare   int // rows without a copy
	faults []error
}

// take stores the record of a unit's keys.
func (e *escrowing) take(ctx context.Context, keys []evidence.WrappedKey) {
	if len(keys) == 0 {
		return
	}
	e.group.Go(func() error {
		n, err := e.s.Keeper.Escrow(ctx, e.c.Tenant, keys[0].Unit, keys)
		e.mu.Lock()
		defer e.mu.Unlock()
		if err != nil {
			e.faults = append(e.faults, err)
			return nil
		}
		e.keys += n
		e.bare += len(keys) - n
		if n > 0 {
			e.units++
		}
		return nil
	})
}
