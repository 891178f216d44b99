package spool

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"steno/shared/conversation"
	"steno/shared/evidence"
)

// errAltered says that what is on disk is not what was written there.
var errAltered = errors.New("altered or removed on disk")

// step is one thing to do for a leg.
type step func(ctx context.Context, g *leg) error

// dispatch gives legs that have something to do to somebody who does it.
func (s *Spool) dispatch(ctx context.Context, wg *sync.WaitGroup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	for _, g := range s.legs {
		if s.running >= uploads {
			return
		}
		if g.busy || now.Before(g.retry) || s.next(g) == nil {
			continue
		}
		g.busy = true
		s.running++
		wg.Go(func() { s.advance(ctx, g, wg) })
	}
}

// advance does what there is to do for a leg, until there is nothing or something fails.
func (s *Spool) advance(ctx context.Context, g *leg, wg *sync.WaitGroup) {
	for {
		s.mu.Lock()
		do := s.next(g)
		s.mu.Unlock()
		if do == nil || ctx.Err() != nil {
			break
		}
		err := do(ctx, g)
		if ctx.Err() != nil {
			break
		}
		if s.judge(g, err) != nil {
			break
		}
	}
	s.mu.Lock()
	g.busy = false
	s.running--
	s.mu.Unlock()
	s.dispatch(ctx, wg)
}

// judge notes how a step went and when to try again.
func (s *Spool) judge(g *leg, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		g.fails, s.failing = 0, time.Time{}
		return nil
	}
	if s.failing.IsZero() {
		s.failing = time.Now()
	}
	wait := min(30*time.Second, time.Second<<min(g.fails, 5))
	wait += time.Duration(rand.Int64N(int64(wait / 4)))
	g.fails++
	g.retry = time.Now().Add(wait)
	log := s.cfg.Log.Warn
	if time.Since(s.failing) > UploadPatience {
		log = s.cfg.Log.Error
	}
	log("upload failed", slog.String("leg", string(g.id.Leg)), slog.Int("attempt", g.fails), slog.Duration("again", wait), slog.String("cause", err.Error()))
	return err
}

// next says what to do for a leg: keys, tails, pack, handing on. It is called with mu
// held.
func (s *Spool) next(g *leg) step {
	if len(g.keys) > 0 && g.keys[0].file != nil {
		return s.putKey
	}
	for _, it := range g.items {
		if !it.uploaded && (it.Part == 0 || g.finished) {
			return func(ctx context.Context, g *leg) error { return s.putTail(ctx, g, it) }
		}
	}
	if g.settled {
		return nil
	}
	if members := g.pack(); members != nil {
		return func(ctx context.Context, g *leg) error { return s.putPack(ctx, g, members) }
	}
	if g.finished && len(g.items) == 0 && (g.handed != nil || g.src == nil) {
		return s.handOn
	}
	return nil
}

func (s *Spool) putKey(ctx context.Context, g *leg) error {
	ctx, cancel := context.WithTimeout(ctx, uploadTime)
	defer cancel()
	s.mu.Lock()
	k := g.keys[0]
	s.mu.Unlock()
	if err := s.cfg.Keys.Insert(ctx, k.key); err != nil && !errors.Is(err, evidence.ErrExists) {
		return fmt.Errorf("store conversation key: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k.file.live--
	g.keys = g.keys[1:]
	return nil
}

// read reads an item and compares its digest.
func (s *Spool) read(g *leg, it *item) (evidence.Sealed, error) {
	b := make([]byte, it.size)
	if _, err := it.file.f.ReadAt(b, it.off); err != nil {
		return evidence.Sealed{}, fmt.Errorf("bundle %d.%d: %w: %w", it.Seq, it.Part, errAltered, err)
	}
	if sha256.Sum256(b) != it.sum {
		return evidence.Sealed{}, fmt.Errorf("bundle %d.%d: %w", it.Seq, it.Part, errAltered)
	}
	ref := evidence.Ref{Tenant: g.id.Tenant, Unit: string(g.id.Leg), Object: conversation.BundleObject(g.id.Leg, it.Seq, it.Part)}
	return evidence.Sealed{Ref: ref, Bytes: b, Ciphertext: it.sum}, nil
}

func (s *Spool) putTail(ctx context.Context, g *leg, it *item) error {
	sealed, err := s.read(g, it)
	if err != nil {
		s.lose(g, it, err)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, uploadTime)
	defer cancel()
	err = s.store.PutTail(ctx, sealed)
	switch {
	case errors.Is(err, evidence.ErrCorrupt), errors.Is(err, evidence.ErrFormat):
		s.lose(g, it, err)
		return nil
	case err != nil && !errors.Is(err, evidence.ErrExists): // it exists: an earlier try of ours
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	it.uploaded = true
	g.waiting -= it.media()
	return nil
}

// lose gives up an item that is not what was sealed. Its number stays empty in evidence,
// where that is a gap, and the leg's history says what happened.
func (s *Spool) lose(g *leg, it *item, err error) {
	s.cfg.Log.Error("bundle lost", slog.String("alarm", "spool-altered"), slog.String("leg", string(g.id.Leg)), slog.Int("bundle", it.Seq), slog.String("cause", err.Error()))
	reason := fmt.Sprintf("bundle %d was altered or removed on the recorder's disk before it was in evidence", it.Seq)
	s.mu.Lock()
	g.take([]*item{it})
	g.faults = append(g.faults, reason)
	s.mu.Unlock()
	if g.src != nil {
		g.src.Event(conversation.LegEvent{At: time.Now().UTC(), Kind: conversation.EventFault, Reason: reason})
	}
}

func (s *Spool) putPack(ctx context.Context, g *leg, members []*item) error {
	s.packing.Lock()
	defer s.packing.Unlock()
	var sealed []evidence.Sealed
	for _, it := range members {
		x, err := s.read(g, it)
		if err != nil {
			s.lose(g, it, err) // its tail is in evidence; finalize packs that
			return nil
		}
		sealed = append(sealed, x)
	}
	ref := evidence.Ref{Tenant: g.id.Tenant, Unit: string(g.id.Leg), Object: conversation.PackObject(g.id.Leg, g.packs)}
	p, err := evidence.NewPack(ref, sealed)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 4*uploadTime)
	defer cancel()
	if err := s.store.PutPack(ctx, p); err != nil && !errors.Is(err, evidence.ErrExists) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g.settled = true
	last := members[len(members)-1]
	m := packedMeta{
		identity: g.id, Packs: g.packs + 1, Seq: last.Seq, Part: last.Part, Parts: g.parts, Final: last.Final, Bundles: g.bundles,
	}
	s.append(metaRecord(recordPacked, m), func(f *logFile, _ int64) {
		if g.packedIn != nil {
			g.packedIn.live--
		}
		g.packedIn = f
		f.live++
		g.packs++
		g.take(members)
		g.settled = false
	})
	return nil
}

// handOn tells whoever waits for it that all of the leg is in evidence.
func (s *Spool) handOn(_ context.Context, g *leg) error {
	if g.src == nil {
		if err := s.cfg.Recovered(g.recovered()); err != nil {
			return fmt.Errorf("report recovered leg: %w", err)
		}
	} else {
		g.handed(g.sum())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g.settled = true
	s.append(metaRecord(recordClosed, closedMeta{g.id.Leg}), func(*logFile, int64) {
		if g.packedIn != nil {
			g.packedIn.live--
		}
		delete(s.legs, string(g.id.Leg))
	})
	return nil
}
