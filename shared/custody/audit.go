package custody

import (
	"context"
	"fmt"
	"math"
	"time"
)

// Findings is what comparing a trail with its log yields.
type Findings struct {
	Records  int      // of the trail
	Leaves   int64    // of the log
	Unlogged []string // ids of records that have no leaf: not yet, or altered since
	// Orphans are leaves that no record explains: the record was removed or altered.
	Orphans []int64
}

// Audit compares a trail with its log at a checkpoint: whether each record of [from, to)
// is in the log as it stands, and whether each leaf has its record there. A record that was
// altered is both unlogged and an orphan. It reads everything.
func Audit(ctx context.Context, trail Trail, tree *Tree, from, to time.Time) (Findings, error) {
	records, err := trail.Range(ctx, from, to, math.MaxInt32)
	if err != nil {
		return Findings{}, fmt.Errorf("audit custody log: %w", err)
	}
	leaves, err := tree.Leaves(ctx, 0, tree.at.Size)
	if err != nil {
		return Findings{}, fmt.Errorf("audit custody log: %w", err)
	}
	f := Findings{Records: len(records), Leaves: int64(len(leaves))}
	at := make(map[Digest]int64, len(leaves))
	for i, l := range leaves {
		if _, twice := at[l]; twice {
			f.Orphans = append(f.Orphans, int64(i)) // one record explains one leaf
			continue
		}
		at[l] = int64(i)
	}
	explained := make([]bool, len(leaves))
	for _, r := range records {
		d, err := r.Digest()
		if err != nil {
			return Findings{}, err
		}
		i, ok := at[d]
		if !ok {
			f.Unlogged = append(f.Unlogged, r.ID)
			continue
		}
		explained[i] = true
	}
	for l, i := range at {
		if !explained[i] && leaves[i] == l {
			f.Orphans = append(f.Orphans, i)
		}
	}
	return f, nil
}
