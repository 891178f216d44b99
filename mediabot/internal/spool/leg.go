package spool

import (
	"context"
	"crypto/sha256"
	"slices"
	"time"

	"steno/shared/evidence"
)

// leg is what the spool holds of a leg.
type leg struct {
	id    identity
	src   Source // nil for one that an earlier process left
	keys  []*keyEntry
	items []*item // on disk and in no pack, in order
	// coming is the media in the batch, waiting that which is on disk and not in evidence.
	coming, waiting time.Duration

	packs    int
	packedIn *logFile // holds the record of the last pack
	last     itemMeta // of the last item
	bundles  int
	parts    int  // of the last bundle
	final    bool // its last bundle is on disk
	finished bool // nothing more comes
	broken   bool
	ended    chan struct{} // closed when finished
	handed   func(Handed)
	faults   []string

	busy    bool // somebody uploads
	settled bool // a record that says what was done is on its way to the disk
	fails   int
	retry   time.Time
}

type keyEntry struct {
	key  evidence.WrappedKey
	file *logFile
}

// item is a sealed bundle on disk.
type item struct {
	itemMeta
	sum      [sha256.Size]byte
	file     *logFile
	off      int64
	size     int64
	uploaded bool
}

func (m itemMeta) media() time.Duration {
	if m.Part != 0 {
		return 0 // the bundle counts
	}
	return m.To.Sub(m.From)
}

func (g *leg) lag() time.Duration { return g.coming + g.waiting }

// add takes an item that is on disk. A whole bundle takes the place of its parts.
func (g *leg) add(it *item) {
	it.file.live++
	g.waiting += it.media()
	if it.Part == 0 {
		g.items = slices.DeleteFunc(g.items, func(x *item) bool {
			obsolete := x.Seq == it.Seq && x.Part != 0
			if obsolete {
				x.file.live--
			}
			return obsolete
		})
	}
	i, _ := slices.BinarySearchFunc(g.items, it, order)
	g.items = slices.Insert(g.items, i, it)
	g.count(it.itemMeta)
	if it.Final {
		g.final = true
		g.finish()
	}
}

func order(a, b *item) int {
	if a.Seq != b.Seq {
		return a.Seq - b.Seq
	}
	return a.Part - b.Part
}

// count follows what the last bundle is made of.
func (g *leg) count(m itemMeta) {
	switch {
	case m.Seq+1 > g.bundles:
		g.bundles, g.parts = m.Seq+1, 0
		fallthrough
	case m.Seq+1 == g.bundles:
		if m.Part == 0 {
			g.parts = 0
		} else {
			g.parts++
		}
		g.last = m
	}
}

// finish notes that nothing more comes.
func (g *leg) finish() {
	if !g.finished {
		g.finished = true
		close(g.ended)
	}
}

// take removes items.
func (g *leg) take(gone []*item) {
	g.items = slices.DeleteFunc(g.items, func(x *item) bool {
		if !slices.Contains(gone, x) {
			return false
		}
		x.file.live--
		if !x.uploaded {
			g.waiting -= x.media()
		}
		return true
	})
}

// pack returns the items of the next pack, none if it is not complete yet.
func (g *leg) pack() []*item {
	if len(g.items) == 0 {
		return nil
	}
	group := g.items[0].Seq / PackBundles
	size := int64(0)
	for i, it := range g.items {
		if it.Seq/PackBundles != group || size >= PackSize {
			return g.items[:i:i]
		}
		if !it.uploaded || !g.finished && it.Part != 0 {
			return nil
		}
		size += it.size
	}
	last := g.items[len(g.items)-1]
	if g.finished || size >= PackSize || last.Seq%PackBundles == PackBundles-1 {
		return slices.Clone(g.items)
	}
	return nil
}

// Line is a leg's way into evidence.
type Line struct {
	s *Spool
	g *leg
}

// Lag is how much media of the leg is not in evidence yet.
func (l *Line) Lag() time.Duration {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.g.lag()
}

// Finish returns when the last bundle of the leg, whose source has ended, is on disk.
// Handed is called once, later, when all of the leg is in evidence. If ctx ends first,
// that is the error, and the spool goes on all the same.
func (l *Line) Finish(ctx context.Context, handed func(Handed)) error {
	l.s.mu.Lock()
	l.g.handed = handed
	if l.g.broken {
		l.g.finish()
	}
	l.s.mu.Unlock()
	l.s.wake(l.g)
	select {
	case <-l.g.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *leg) sum() Handed {
	return Handed{Epoch: g.id.Epoch, Bundles: g.bundles, Parts: g.parts, Packs: g.packs}
}

func (g *leg) recovered() Recovered {
	return Recovered{
		Tenant: g.id.Tenant, Leg: g.id.Leg, Call: g.id.Call, Chain: g.id.Chain, Recorder: g.id.Recorder,
		Final: g.final, Outcome: g.id.Outcome, Faults: g.faults, Handed: g.sum(),
	}
}
