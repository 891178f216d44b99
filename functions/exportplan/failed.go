package exportplan

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
)

// mend takes the failures of a custodian out of the register that a later reading has
// covered, and returns those to be tried again: all of them once the custodian was read
// since, and the newest alone once a period while nothing is. It costs a query for each
// pass that failed. The last failure's end is a custody event.
func (p *Plan) mend(ctx context.Context, c Custodian, failed []conversation.WindowFailed, now time.Time) ([]conversation.Window, error) {
	if len(failed) == 0 {
		return nil, nil
	}
	finished, err := p.finished(ctx, failed)
	if err != nil {
		return nil, err
	}
	answered := time.Time{} // when anything of the custodian was last read
	var left []conversation.WindowFailed
	for _, f := range failed {
		for _, d := range finished[f.Pass] {
			answered = latest(answered, d.At)
		}
		if len(f.Uncovered(finished[f.Pass])) > 0 {
			left = append(left, f)
			continue
		}
		if err := p.failures.RemoveFailure(ctx, f); err != nil {
			return nil, err
		}
		p.log.InfoContext(ctx, "a window that could not be read was read since", slog.Any("person", c.ID), slog.String("window", f.Key()))
	}
	if len(left) == 0 {
		_, err := p.trail.Append(ctx, custody.Event{
			Tenant: p.config.Tenant, Action: custody.Captured, System: "exportplan", Item: "custodian-" + string(c.ID), Detail: "can be read again",
		})
		return nil, err
	}
	return p.again(c, left, answered, now), nil
}

// finished lists what was read of the custodian around the failures, by pass.
func (p *Plan) finished(ctx context.Context, failed []conversation.WindowFailed) (map[int][]conversation.WindowDone, error) {
	out := map[int][]conversation.WindowDone{}
	spans := map[int]conversation.Window{}
	for _, f := range failed {
		w, ok := spans[f.Pass]
		if !ok {
			w = f.Window
		}
		w.From, w.To = earliest(w.From, f.From), latest(w.To, f.To)
		spans[f.Pass] = w
	}
	for pass, w := range spans {
		// Windows of a pass follow one another, so what was read since shows behind them.
		done, err := p.catalog.FinishedWindows(ctx, w.Custodian, pass, w.From.Add(-conversation.MaxWindow), w.To.Add(conversation.MaxWindow))
		if err != nil {
			return nil, fmt.Errorf("what was read since: %w", err)
		}
		out[pass] = done
	}
	return out, nil
}

func (p *Plan) again(c Custodian, left []conversation.WindowFailed, answered, now time.Time) (out []conversation.Window) {
	newest := slices.MaxFunc(left, func(a, b conversation.WindowFailed) int { return a.At.Compare(b.At) })
	readings := p.readings(c, now)
	for _, f := range left {
		i := slices.IndexFunc(readings, func(r reading) bool { return r.pass == f.Pass })
		if i < 0 { // not read by planning, or not any more
			continue
		}
		if answered.After(newest.At) || f.Key() == newest.Key() && now.Sub(f.At) >= p.config.Period {
			w := f.Window
			w.Source = readings[i].source
			out = append(out, w)
		}
	}
	return out
}
