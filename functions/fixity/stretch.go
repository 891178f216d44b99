package fixity

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/big"
	"time"

	"steno/shared/custody"
)

// stretch reads the next stretch of the round, and begins a round when one is due. A round
// begins every half period and is late if it is not done within another: so between two
// readings of an object there is never more than a period. A round that is done goes on
// with what is sealed meanwhile.
func (r *run) stretch(ctx context.Context) error {
	rd := &r.state.Round
	if rd.Started.IsZero() || rd.Done && !r.start.Before(rd.Started.Add(r.c.Period/2)) {
		from := r.state.First
		if from.IsZero() {
			from = r.start.Add(-past)
		}
		*rd = round{Started: r.start, After: custody.IDsFrom(from)}
	}
	done := true
	last, err := r.walk(ctx, rd.After, r.start.Add(-settle), func(rec custody.Record) (bool, error) {
		if err := r.record(ctx, rec); err != nil {
			return false, err
		}
		done = !r.spent()
		return done, nil
	})
	if err != nil {
		return err
	}
	rd.After, rd.Done = last, rd.Done || done
	if !rd.Done && !rd.Late && r.start.After(rd.Started.Add(r.c.Period/2)) {
		rd.Late = true
		return r.alarm(ctx, "fixity-round", "", reasonLate)
	}
	return nil
}

// record reads the objects that a record seals.
func (r *run) record(ctx context.Context, rec custody.Record) error {
	if rec.Action != custody.Sealed {
		return nil
	}
	if err := r.logged(ctx, rec); err != nil {
		return err
	}
	if r.state.First.IsZero() || rec.At.Before(r.state.First) {
		r.state.First = rec.At.Truncate(time.Microsecond)
	}
	for _, o := range rec.Objects {
		if o.Void {
			continue
		}
		if err := r.check(ctx, target{object: o, at: rec.At}); err != nil {
			return err
		}
	}
	return nil
}

// sample reads objects at random: of each of some moments the next seal's. So what was changed is
// found before the round comes to it, and nobody can know where it will look.
func (r *run) sample(ctx context.Context) error {
	first := r.state.First
	span := r.start.Add(-settle).Sub(first)
	if first.IsZero() || span <= 0 {
		return nil
	}
	for range sampleSize {
		at, err := draw(int64(span))
		if err != nil {
			return err
		}
		var hit *custody.Record
		from := first.Add(time.Duration(at))
		for _, window := range []time.Duration{time.Hour, 24 * time.Hour, 30 * 24 * time.Hour} {
			_, err := r.walk(ctx, custody.IDsFrom(from), from.Add(window), func(rec custody.Record) (bool, error) {
				if rec.Action == custody.Sealed && len(rec.Objects) > 0 {
					hit = &rec
				}
				return hit == nil, nil
			})
			if err != nil {
				return err
			}
			if hit != nil {
				break
			}
		}
		if hit == nil {
			continue
		}
		i, err := draw(int64(len(hit.Objects)))
		if err != nil {
			return err
		}
		if o := hit.Objects[i]; !o.Void {
			if err := r.check(ctx, target{object: o, at: hit.At}); err != nil {
				return err
			}
		}
		if r.spent() || r.tally.Bytes >= r.c.Budget/4 { // the rest is the round's
			return nil
		}
	}
	return nil
}

// draw draws a number from 0 to n-1.
func draw(n int64) (int64, error) {
	v, err := rand.Int(rand.Reader, big.NewInt(n))
	if err != nil {
		return 0, fmt.Errorf("draw a sample: %w", err)
	}
	return v.Int64(), nil
}
