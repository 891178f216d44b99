package host

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// timer runs one timer function.
type timer struct {
	f *function

	mu   sync.Mutex
	last time.Time // of the last occurrence that ran; zero before the first
	next time.Time
}

// listenTimer runs the function at each occurrence until ctx is done. Runs of one timer by its schedule never overlap.
func (h *Host) listenTimer(ctx context.Context, t *timer) {
	if t.f.trigger.RunOnStartup {
		h.tick(ctx, t, time.Now())
	}
	for {
		next := t.f.schedule.Next(time.Now())
		if next.IsZero() {
			h.console.errorf("function %s: the schedule has no next occurrence", t.f.name)
			return
		}
		t.mu.Lock()
		t.next = next
		t.mu.Unlock()
		alarm := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			alarm.Stop()
			return
		case <-alarm.C:
		}
		h.tick(ctx, t, next)
	}
}

// tick runs one occurrence, however it ends: the next one is computed after it.
func (h *Host) tick(ctx context.Context, t *timer, at time.Time) {
	if h.cfg.SequentialTimers {
		h.timers.Lock()
		defer h.timers.Unlock()
	}
	// What the run came to is in the invocations; a timer that failed waits for its next occurrence.
	_ = h.runTimer(h.work, t)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = at
}

// runTimer runs the function once, and again as its retry policy says.
func (h *Host) runTimer(ctx context.Context, t *timer) error {
	var cause error
	for retry := 0; ; retry++ {
		var metadata []field
		if p := t.f.retry; p != nil && retry > 0 {
			metadata = []field{{"RetryContext", []field{
				{"RetryCount", retry}, {"MaxRetryCount", p.MaxRetryCount}, {"Exception", cause.Error()},
			}}}
		}
		_, cause = h.invoke(ctx, t.f, t.info(), metadata)
		p := t.f.retry
		if cause == nil || p == nil || p.MaxRetryCount >= 0 && retry >= p.MaxRetryCount {
			return cause
		}
		pause := time.NewTimer(p.delay(retry + 1))
		select {
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("%w; not retried: %w", cause, ctx.Err())
		case <-pause.C:
		}
	}
}

// info is the trigger's value: with the times a monitored schedule knows, without a status if it is not monitored.
func (t *timer) info() []field {
	t.mu.Lock()
	defer t.mu.Unlock()
	var status any
	if (t.f.trigger.UseMonitor == nil || *t.f.trigger.UseMonitor) && !t.f.schedule.dense(time.Now()) {
		next := t.next
		if next.IsZero() {
			next = t.f.schedule.Next(time.Now())
		}
		var last any = dateTime{}
		if !t.last.IsZero() {
			last = dateTimeOffset(t.last.UTC())
		}
		status = []field{{"Last", last}, {"Next", dateTimeOffset(next)}, {"LastUpdated", last}}
	}
	return []field{
		{"Schedule", []field{{"AdjustForDST", true}}},
		{"ScheduleStatus", status},
		{"IsPastDue", false},
	}
}
