package azure_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"steno/shared/azure"
	"steno/shared/storetest"
	"steno/shared/teams"
	"steno/tests/local/azurite"
)

func newBudget(t *testing.T, tenant teams.TenantID, rate float64, block int) *azure.Budget {
	t.Helper()
	b, err := azure.NewBudget(tenant, tables, rate, block)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// drain takes from each budget with two goroutines until the time is over, and
// returns how many requests went.
func drain(t *testing.T, d time.Duration, budgets ...*azure.Budget) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var went atomic.Int64
	var wg sync.WaitGroup
	for _, b := range budgets {
		for range 2 {
			wg.Go(func() {
				for {
					err := b.Take(ctx)
					if ctx.Err() != nil {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					went.Add(1)
				}
			})
		}
	}
	wg.Wait()
	return went.Load()
}

func TestTwoInstancesShareOneRate(t *testing.T) {
	const rate, block, span = 100, 10, 2 * time.Second
	tenant := storetest.NewTenant()
	started := time.Now()
	n := drain(t, span, newBudget(t, tenant, rate, block), newBudget(t, tenant, rate, block))
	took := time.Since(started).Seconds()
	if high := rate*took + 2*block; float64(n) > high {
		t.Errorf("%d requests in %.2f s, at most %.0f are within the rate", n, took, high)
	}
	if float64(n) < 0.5*rate*span.Seconds() {
		t.Errorf("%d requests in %.2f s: the rate of %d is not used", n, took, rate)
	}
}

func TestABlockCostsTwoOperations(t *testing.T) {
	b := newBudget(t, storetest.NewTenant(), 1000, 20)
	take := func() error {
		for range 20 {
			if err := b.Take(t.Context()); err != nil {
				return err
			}
		}
		return nil
	}
	want := ops(azurite.OpTableGet, 1, azurite.OpTablePut, 1)
	costs(t, "the first block", want, take)
	costs(t, "the second block", want, take)
	costs(t, "a pause", want, func() error { return b.Pause(t.Context(), time.Now()) })
}

func TestAPauseHoldsEveryInstance(t *testing.T) {
	tenant := storetest.NewTenant()
	a, b := newBudget(t, tenant, 1000, 1), newBudget(t, tenant, 1000, 1)
	if err := errors.Join(a.Take(t.Context()), b.Take(t.Context())); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(400 * time.Millisecond)
	if err := a.Pause(t.Context(), until); err != nil {
		t.Fatal(err)
	}
	if err := a.Pause(t.Context(), until.Add(-200*time.Millisecond)); err != nil { // an earlier end changes nothing
		t.Fatal(err)
	}
	for name, instance := range map[string]*azure.Budget{"the one that paused": a, "the other": b, "a new one": newBudget(t, tenant, 1000, 1)} {
		if err := instance.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		if early := time.Until(until); early > 0 {
			t.Errorf("%s sent %s before the end of the pause", name, early)
		}
	}
}

func TestPausedInstanceGivesUpTheRestOfItsBlock(t *testing.T) {
	b := newBudget(t, storetest.NewTenant(), 1000, 50)
	if err := b.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(200 * time.Millisecond)
	if err := errors.Join(b.Pause(t.Context(), until), b.Take(t.Context())); err != nil {
		t.Fatal(err)
	}
	if early := time.Until(until); early > 0 {
		t.Errorf("sent %s before the end of the pause", early)
	}
}

func TestTakeEndsWithItsContext(t *testing.T) {
	b := newBudget(t, storetest.NewTenant(), 1, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.Pause(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := b.Take(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("take: %v, want the context's end", err)
	}
}

func TestTenantsDoNotShareABudget(t *testing.T) {
	slow := newBudget(t, storetest.NewTenant(), 1, 1)
	if err := slow.Pause(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := newBudget(t, storetest.NewTenant(), 1, 1).Take(ctx); err != nil {
		t.Errorf("another tenant waits: %v", err)
	}
}

func TestSenselessBudgetIsRefused(t *testing.T) {
	for _, c := range []struct {
		rate  float64
		block int
	}{{0, 1}, {-1, 1}, {1, 0}, {1, -1}} {
		if _, err := azure.NewBudget(storetest.NewTenant(), tables, c.rate, c.block); err == nil {
			t.Errorf("rate %g and block %d were taken", c.rate, c.block)
		}
	}
}
