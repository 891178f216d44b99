package fixity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
)

const (
	// grace is how long whoever claimed an object may take to seal it.
	grace = time.Hour
	// recent is how far back conversations are looked at in every run.
	recent = 3 * 24 * time.Hour
	// sweepPage is how many conversations each of the two searches looks at in a run.
	sweepPage = 100
	// maxBatch bounds the plain bytes of a batch.
	maxBatch = 256 << 20
)

// sweep seals objects that are stored, stand in the catalog, and that no record seals: whoever
// stored them died before it could. Conversations of the last days are looked at again and
// again, all others in turn.
func (r *run) sweep(ctx context.Context) error {
	if err := r.lane(ctx, &r.state.Recent, r.start.Add(-recent)); err != nil {
		return err
	}
	return r.lane(ctx, &r.state.All, conversation.Earliest)
}

// lane looks at the next conversations that began since from, newest first.
func (r *run) lane(ctx context.Context, after *conversation.Position, from time.Time) error {
	page, err := r.s.Catalog.ByTime(ctx, from, r.start, conversation.PageRequest{Limit: sweepPage, After: *after})
	if err != nil {
		return err
	}
	for _, c := range page.Conversations {
		if c.Disposed != nil {
			continue
		}
		judge := r.lateSeals
		if c.Call != nil {
			judge = r.vouchedCall
		}
		if err := judge(ctx, c); err != nil {
			return err
		}
	}
	*after = conversation.Position{}
	if page.More {
		*after = page.Conversations[len(page.Conversations)-1].Position()
	}
	return nil
}

// lateSeals seals what is stored of a conversation and was not sealed in time.
func (r *run) lateSeals(ctx context.Context, c conversation.Conversation) error {
	id := c.ID
	slice, err := r.s.Catalog.Slice(ctx, id)
	if err != nil {
		return err
	}
	if slice.Conversation.Disposed != nil {
		return nil // since it was listed
	}
	if err := r.vouched(ctx, c, slice); err != nil {
		return err
	}
	for _, o := range slice.Objects {
		if o.ClaimedAt.After(r.start.Add(-grace)) {
			continue
		}
		// Most seals stand on the day of the claim. Only for an object that is stored and has
		// none there is all of the trail looked through.
		claimed := o.ClaimedAt.UTC().Truncate(24 * time.Hour)
		soon := claimed.Add(48 * time.Hour)
		sealed, err := r.isSealed(ctx, string(id), o, claimed, soon)
		if err != nil || sealed {
			if err != nil {
				return err
			}
			continue
		}
		stored, err := r.s.Evidence.Exists(ctx, r.ref(string(id), o.Name))
		if err == nil && stored {
			sealed, err = r.isSealed(ctx, string(id), o, soon, r.start)
		}
		if err == nil && stored && !sealed {
			err = r.sealLate(ctx, string(id), o, numbered(slice, o))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// numbered reports whether an object has its number to itself.
func numbered(s conversation.Slice, o conversation.Object) bool {
	for _, other := range s.Objects {
		if other.Name != o.Name && other.Seq == o.Seq {
			return false
		}
	}
	return o.Seq >= 0 && o.Seq < s.Conversation.Objects
}

// isSealed looks for the seal of an object on the days of [from, to).
func (r *run) isSealed(ctx context.Context, unit string, o conversation.Object, from, to time.Time) (bool, error) {
	if r.late[unit+"/"+o.Name] {
		return true, nil
	}
	if to.After(r.start) {
		to = r.start
	}
	for d := from; d.Before(to); d = d.Add(24 * time.Hour) {
		names, err := r.sealsOf(ctx, d)
		if err != nil || names[unit+"/"+o.Name] {
			return true, err
		}
	}
	return false, nil
}

// maxDays bounds the days whose seals a run has in memory.
const maxDays = 8

// sealsOf lists what was sealed on a day. Conversations come in the order of time, so that
// days repeat.
func (r *run) sealsOf(ctx context.Context, d time.Time) (map[string]bool, error) {
	key := d.Format(time.DateOnly)
	if names, ok := r.sealed[key]; ok {
		return names, nil
	}
	if len(r.sealed) >= maxDays {
		clear(r.sealed)
	}
	names := map[string]bool{}
	_, err := r.walk(ctx, custody.IDsFrom(d), d.Add(24*time.Hour), func(rec custody.Record) (bool, error) {
		if rec.Action == custody.Sealed {
			for _, o := range rec.Objects {
				names[o.Unit+"/"+o.Object] = true
			}
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	r.sealed[key] = names
	return names, nil
}

// errContent says that an object does not hold what the catalog says of it.
var errContent = errors.New("the object does not hold what the catalog says")

// sealLate verifies an object that nothing seals, and seals it. An object that was
// promised and never stored is left to whoever promised it.
func (r *run) sealLate(ctx context.Context, unit string, o conversation.Object, numbered bool) error {
	bound, err := r.bind(ctx, unit, o)
	if err == nil && !numbered {
		err = errContent
	}
	switch {
	case errors.Is(err, errContent), errors.Is(err, evidence.ErrCorrupt), errors.Is(err, evidence.ErrFormat):
		return r.alarm(ctx, unit, o.Name, reasonUnsealed)
	case err != nil:
		return err
	}
	_, err = r.s.Trail.Append(ctx, custody.Event{
		Tenant: r.c.Tenant, Action: custody.Sealed, System: system, Item: unit, Reason: "late", Objects: []custody.Object{bound},
	})
	if err != nil {
		return fmt.Errorf("seal %s/%s late: %w: %w", unit, o.Name, errTrail, err)
	}
	r.tally.Sealed++
	r.late[unit+"/"+o.Name] = true
	r.log.InfoContext(ctx, "evidence sealed late", slog.String("unit", unit), slog.String("object", o.Name))
	return nil
}

// bind opens an object, compares it with what the catalog says, and returns what binds it.
func (r *run) bind(ctx context.Context, unit string, o conversation.Object) (custody.Object, error) {
	obj, err := r.open(ctx, unit, o.Name)
	if err != nil {
		return custody.Object{}, err
	}
	plain, err := obj.ReadAll(maxBatch)
	if err != nil {
		return custody.Object{}, err
	}
	if !r.promisedBy(o, unit, plain) {
		return custody.Object{}, errContent
	}
	_, digest, err := r.s.Evidence.Digest(ctx, r.ref(unit, o.Name))
	if err != nil {
		return custody.Object{}, err
	}
	commit := evidence.Commitment(obj.Blind(), sha256.Sum256(plain))
	return custody.Object{Unit: unit, Object: o.Name, Seq: o.Seq, SHA256: fmt.Sprintf("%x", digest), Commit: fmt.Sprintf("%x", commit)}, nil
}

// promisedBy reports whether plain bytes are those that the catalog says of an object: the
// versions of a batch, or the part of a file.
func (r *run) promisedBy(o conversation.Object, unit string, plain []byte) bool {
	if o.File != nil {
		h, body, err := conversation.DecodeFile(plain)
		return err == nil && string(h.Conversation) == unit && h.Tenant == r.c.Tenant && h.PartOf(body) == *o.File
	}
	h, messages, err := conversation.DecodeBatch(plain)
	if err != nil || string(h.Conversation) != unit || h.Tenant != r.c.Tenant || len(messages) != len(o.Versions) {
		return false
	}
	for i, m := range messages {
		if sha256.Sum256(m) != o.Versions[i].SHA256 {
			return false
		}
	}
	return true
}
