package fixity

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"steno/shared/custody"
)

// The digests of a seal are those of a row of the trail. That the row is what was written is what the
// custody log shows, so each is compared with its leaf.

const (
	reasonUnlogged = "not-logged"     // a record has no leaf, long after the sequencer should have given it one
	reasonForged   = "record-altered" // a record is not the one that its leaf binds
	// patience is how long a record may be without a leaf.
	patience = time.Hour
	// pageLeaves is how many leaves are read at once.
	pageLeaves = 256
)

// leaves reads the custody log as it stands when it is first asked.
type leaves struct {
	tree   *custody.Tree
	find   *custody.Finder
	size   int64
	from   int64 // the page in memory
	loaded []custody.Digest
}

// logged checks that a record is the one that its leaf binds.
func (r *run) logged(ctx context.Context, rec custody.Record) error {
	if r.start.Sub(rec.At) < patience {
		return nil
	}
	if r.leaves == nil {
		head, _, err := custody.ReadHead(ctx, r.s.Tiles)
		if err != nil {
			return err
		}
		at, err := head.Checkpoint(custody.Origin(r.c.Tenant))
		if err != nil {
			return err
		}
		tree := custody.NewTree(r.s.Tiles, at)
		r.leaves = &leaves{tree: tree, find: tree.Finder(), size: at.Size}
	}
	i, err := r.leaves.find.Find(ctx, rec.ID)
	if errors.Is(err, custody.ErrNoLeaf) {
		r.log.WarnContext(ctx, "custody record has no leaf", slog.String("record", rec.ID))
		return r.alarm(ctx, "custody-log", "", reasonUnlogged) // once a run: the sequencer may be away
	}
	if err != nil {
		return err
	}
	leaf, err := r.leaves.at(ctx, i)
	if err != nil {
		return err
	}
	digest, err := rec.Digest()
	if err != nil {
		return err
	}
	if digest != leaf {
		return r.alarm(ctx, rec.Item, "", reasonForged)
	}
	return nil
}

// at returns a leaf, keeping those around it: records come in the order of leaves, nearly.
func (l *leaves) at(ctx context.Context, i int64) (custody.Digest, error) {
	if i < l.from || i >= l.from+int64(len(l.loaded)) {
		from := i - i%pageLeaves
		loaded, err := l.tree.Leaves(ctx, from, min(from+pageLeaves, l.size))
		if err != nil {
			return custody.Digest{}, err
		}
		l.from, l.loaded = from, loaded
	}
	return l.loaded[i-l.from], nil
}
