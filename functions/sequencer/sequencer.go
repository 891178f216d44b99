// Package sequencer appends the custody trail to the custody log, a Merkle tree whose
// signed checkpoints let an outsider tell that no event was changed, removed or put in
// later.
//
// There is one log a tenant and one writer at a time, which nobody has to guarantee: a
// run first promises leaves in the log's head, then writes the tiles that follow from
// the promise, then moves the head over them. Each step is a condition on what was
// read, so that two sequencers at once cannot fork the log, and a run that died is
// finished by the next one with the very same bytes.
package sequencer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"steno/shared/custody"
	"steno/shared/teams"
)

// Limits of a run.
const (
	// MaxBatch is how many events one promise holds.
	MaxBatch = 2048
	// Overlap is how much later than its time an event may become durable and still be
	// found. Writers give up long before.
	Overlap = 10 * time.Minute
	// Past is how far back a log begins that did not exist.
	Past = 399 * 24 * time.Hour
	// ahead is how far the clock of a writer may run before ours.
	ahead = 5 * time.Minute
	// Patience is how long a witness may be without the newest checkpoint before it is an
	// alarm: until then only the storage of the log vouches for it.
	Patience = 24 * time.Hour
	// maxMoves is how often a run yields to another before it leaves the rest to it.
	maxMoves = 5
)

// DefaultSignEvery is how often a checkpoint is signed while the log grows: each
// signature is a request to the vault, which is billed.
const DefaultSignEvery = time.Hour

// Config is what a sequencer needs to know.
type Config struct {
	Tenant    teams.TenantID
	SignEvery time.Duration // DefaultSignEvery if 0
	// Witnesses get every signed checkpoint, by the names under which the head remembers them.
	Witnesses map[string]custody.Witness
	// Revoked are the fingerprints of signing keys that may be in the wrong hands. They sign
	// nothing any more, and the trail says so.
	Revoked []string
	Now     func() time.Time // time.Now if nil
}

// Sequencer appends the trail of one tenant to its log.
type Sequencer struct {
	c      Config
	origin string
	trail  custody.Trail
	tiles  custody.Tiles
	signer Signer
	log    *slog.Logger
}

// New returns a sequencer.
func New(c Config, trail custody.Trail, tiles custody.Tiles, signer Signer, log *slog.Logger) *Sequencer {
	if c.SignEvery == 0 {
		c.SignEvery = DefaultSignEvery
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Sequencer{c: c, origin: custody.Origin(c.Tenant), trail: trail, tiles: tiles, signer: signer, log: log}
}

// Run appends all events that are not in the log yet, and signs a checkpoint if one is
// due. When it returns nil each event that was durable before the call is in the log,
// or another sequencer is about to put it there. It may be called again after any
// error, and by many processes at once.
func (s *Sequencer) Run(ctx context.Context) error {
	for moved := 0; ; {
		more, err := s.step(ctx)
		switch {
		case errors.Is(err, custody.ErrMoved):
			if moved++; moved >= maxMoves {
				s.log.Info("another sequencer is at work")
				return nil
			}
		case errors.Is(err, custody.ErrSplitView), errors.Is(err, custody.ErrProof):
			s.log.Error("custody log is not what its head says", slog.String("alarm", "custody-log"))
			return fmt.Errorf("sequence custody events: %w", err)
		case err != nil:
			return fmt.Errorf("sequence custody events: %w", err)
		case !more:
			return nil
		}
	}
}

// step brings the log one change of its head further, and tells whether there may be
// more to do.
func (s *Sequencer) step(ctx context.Context) (more bool, err error) {
	head, revision, err := custody.ReadHead(ctx, s.tiles)
	if err != nil {
		return false, err
	}
	if len(head.Next) > 0 {
		return true, s.fulfil(ctx, head, revision)
	}
	next, err := s.promise(ctx, head)
	if err != nil {
		return false, err
	}
	if len(next.Next) > 0 {
		return true, custody.SaveHead(ctx, s.tiles, next, revision)
	}
	signed, err := s.sign(ctx, head, revision)
	if err != nil || signed {
		return signed, err
	}
	return false, s.testify(ctx, head, revision)
}

// promise collects events that are not in the log.
func (s *Sequencer) promise(ctx context.Context, head custody.Head) (custody.Head, error) {
	now := s.c.Now().UTC()
	from := head.From
	if from.IsZero() {
		from = now.Add(-Past).Truncate(time.Microsecond)
	}
	limit := len(head.Recent) + MaxBatch
	records, err := s.trail.Range(ctx, from, now.Add(ahead), limit)
	if err != nil {
		return head, err
	}
	known := make(map[string]bool, len(head.Recent))
	for _, id := range head.Recent {
		known[id] = true
	}
	for _, r := range records {
		if known[r.ID] {
			continue
		}
		d, err := r.Digest()
		if err != nil {
			return head, err
		}
		head.Next = append(head.Next, custody.Promise{ID: r.ID, Digest: d.String()})
		head.Recent = append(head.Recent, r.ID)
	}
	if len(head.Next) == 0 {
		return head, nil
	}
	// What comes later than Overlap behind the last event seen cannot be told from what
	// is there; before that point all is known, and need not be remembered.
	seen := now
	if len(records) == limit && records[limit-1].At.Before(now) {
		seen = records[limit-1].At
	}
	head.From = from
	if settled := seen.Add(-Overlap).Truncate(time.Microsecond); settled.After(from) {
		head.From = settled
	}
	head.Recent = since(head.Recent, head.From)
	return head, nil
}

// since keeps the ids of events from t on: an id begins with its time.
func since(ids []string, t time.Time) []string {
	first := custody.IDsFrom(t)
	var out []string
	for _, id := range ids {
		if id >= first {
			out = append(out, id)
		}
	}
	return out
}

// fulfil writes what the head promises and moves the head over it.
func (s *Sequencer) fulfil(ctx context.Context, head custody.Head, revision string) error {
	at, err := head.Checkpoint(s.origin)
	if err != nil {
		return err
	}
	leaves, err := head.Promised()
	if err != nil {
		return err
	}
	tree := custody.NewTree(s.tiles, at)
	if err := tree.AppendNames(ctx, head.Next); err != nil {
		return err
	}
	now, err := tree.Append(ctx, leaves)
	if err != nil {
		return err
	}
	head.Size, head.Root, head.Next = now.Size, now.Root.String(), nil
	return custody.SaveHead(ctx, s.tiles, head, revision)
}

// testify gives the newest signed checkpoint to each witness that does not have it. One
// that does not take it holds nobody up: it is asked again at the next run.
func (s *Sequencer) testify(ctx context.Context, head custody.Head, revision string) error {
	if head.Signed == nil {
		return nil
	}
	at, err := custody.ParseCheckpoint(s.origin, []byte(head.Signed.Text))
	if err != nil {
		return fmt.Errorf("signed checkpoint: %w", err)
	}
	now, changed := s.c.Now().UTC(), false
	testified := maps.Clone(head.Witnessed)
	if testified == nil {
		testified = map[string]custody.Testimony{}
	}
	for name, w := range s.c.Witnesses {
		had, asked := testified[name]
		if had.Size >= at.Size {
			continue
		}
		if err := w.Keep(ctx, s.origin, *head.Signed); err != nil {
			if !asked {
				testified[name], changed = custody.Testimony{At: now}, true // its patience starts here
			}
			level, attrs := slog.LevelWarn, []slog.Attr{slog.String("witness", name), slog.Int64("leaves", at.Size), slog.String("cause", err.Error())}
			if asked && now.Sub(had.At) > Patience || errors.Is(err, custody.ErrSplitView) {
				level, attrs = slog.LevelError, append(attrs, slog.String("alarm", "witness"))
			}
			s.log.LogAttrs(ctx, level, "custody checkpoint was not taken by a witness", attrs...)
			continue
		}
		testified[name], changed = custody.Testimony{Size: at.Size, At: now}, true
	}
	if !changed {
		return nil
	}
	head.Witnessed = testified
	return custody.SaveHead(ctx, s.tiles, head, revision)
}
