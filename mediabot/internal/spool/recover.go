package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"

	"steno/shared/conversation"
)

// recovery is the journal as it is read back.
type recovery struct {
	s        *Spool
	legs     map[conversation.LegID]*leg
	keys     map[string][]*keyEntry // by unit
	expected map[int]bool           // older files that should be there
	dropped  map[int]bool
	faults   []string
}

// recover reads what an earlier process left. Nothing is changed on disk, so it may be
// cut off and done again.
func (s *Spool) recover() error {
	names, err := s.j.disk.list()
	if err != nil {
		return fmt.Errorf("spool: list journal: %w", err)
	}
	r := &recovery{s: s, legs: map[conversation.LegID]*leg{}, keys: map[string][]*keyEntry{}, expected: map[int]bool{}, dropped: map[int]bool{}}
	for _, n := range names {
		if err := r.file(n); err != nil {
			return fmt.Errorf("spool: journal file %d: %w", n, err)
		}
		s.j.next = n + 1
	}
	for _, n := range slices.Sorted(maps.Keys(r.expected)) {
		s.j.next = max(s.j.next, n+1)
		if !slices.Contains(names, n) {
			r.faults = append(r.faults, fmt.Sprintf("journal file %d was removed", n))
		}
	}
	s.j.torn = len(s.j.files) > 0
	for _, g := range r.legs {
		r.adopt(g)
	}
	for _, f := range r.faults {
		s.cfg.Log.Error("spool altered while no recorder ran", slog.String("alarm", "spool-altered"), slog.String("what", f))
	}
	s.j.files = slices.DeleteFunc(s.j.files, func(f *logFile) bool {
		if r.dropped[f.n] {
			s.j.gone = append(s.j.gone, f.n)
			err = errors.Join(err, f.f.Close())
		}
		return r.dropped[f.n]
	})
	return err
}

func (r *recovery) file(n int) error {
	f, err := r.s.j.disk.open(n)
	if err != nil {
		return err
	}
	lf := &logFile{n: n, f: f}
	r.s.j.files = append(r.s.j.files, lf)
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	if err != nil {
		return err
	}
	lf.size = int64(len(b))
	altered, err := scan(b, func(x scanned) error { return r.record(lf, x) })
	if altered {
		r.faults = append(r.faults, fmt.Sprintf("journal file %d was altered", n))
	}
	return err
}

// record takes one record. One that carries a good digest and cannot be read was written
// by another version: that is an error, nothing is guessed.
func (r *recovery) record(f *logFile, x scanned) error {
	switch x.kind {
	case recordStart:
		var m startMeta
		if err := json.Unmarshal(x.meta, &m); err != nil {
			return err
		}
		r.expected = map[int]bool{}
		for _, n := range m.Live {
			r.expected[n] = true
		}
	case recordDrop:
		var m dropMeta
		if err := json.Unmarshal(x.meta, &m); err != nil {
			return err
		}
		delete(r.expected, m.File)
		r.dropped[m.File] = true
	case recordKey:
		var m keyMeta
		if err := json.Unmarshal(x.meta, &m); err != nil {
			return err
		}
		r.keys[m.Key.Unit] = append(r.keys[m.Key.Unit], &keyEntry{key: m.Key, file: f})
	case recordItem:
		return r.item(f, x)
	case recordPacked:
		var m packedMeta
		if err := json.Unmarshal(x.meta, &m); err != nil {
			return err
		}
		g := r.leg(m.identity)
		g.packs, g.packedIn, g.final = m.Packs, f, g.final || m.Final
		g.bundles, g.parts = max(g.bundles, m.Bundles), m.Parts
		g.items = slices.DeleteFunc(g.items, func(it *item) bool {
			return it.Seq < m.Seq || it.Seq == m.Seq && it.Part <= m.Part
		})
	case recordClosed:
		var m closedMeta
		if err := json.Unmarshal(x.meta, &m); err != nil {
			return err
		}
		delete(r.legs, m.Leg)
		delete(r.keys, string(m.Leg))
	case recordCommit:
	default:
		return fmt.Errorf("record of kind %d: written by another version", x.kind)
	}
	return nil
}

func (r *recovery) item(f *logFile, x scanned) error {
	var m itemMeta
	if err := json.Unmarshal(x.meta, &m); err != nil {
		return err
	}
	if m.Leg != conversation.LegOf(m.Tenant, m.Call) || m.Seq < 0 || m.Part < 0 || m.To.Before(m.From) {
		return fmt.Errorf("bundle %d.%d of %s: impossible", m.Seq, m.Part, m.Leg)
	}
	g := r.leg(m.identity)
	it := &item{itemMeta: m, sum: x.sum, file: f, off: x.dataAt, size: int64(len(x.record.data))}
	if i, there := slices.BinarySearchFunc(g.items, it, order); !there {
		g.items = slices.Insert(g.items, i, it)
	}
	return nil
}

func (r *recovery) leg(id identity) *leg {
	g := r.legs[id.Leg]
	if g == nil {
		g = &leg{id: id, ended: make(chan struct{})}
		r.legs[id.Leg] = g
	}
	if id.Outcome != "" {
		g.id.Outcome = id.Outcome
	}
	return g
}

// adopt makes a leg that was read back one of the spool's: with its keys, and of its
// bundles only those that no whole one replaces.
func (r *recovery) adopt(g *leg) {
	items := g.items
	g.items = nil
	whole := map[int]bool{}
	for _, it := range items {
		whole[it.Seq] = whole[it.Seq] || it.Part == 0
	}
	for _, it := range items {
		if it.Part == 0 || !whole[it.Seq] {
			it.file.live++
			g.items = append(g.items, it)
			g.waiting += it.media()
			g.count(it.itemMeta)
			g.final = g.final || it.Final
		}
	}
	g.keys = r.keys[string(g.id.Leg)]
	for _, k := range g.keys {
		k.file.live++
	}
	if g.packedIn != nil {
		g.packedIn.live++
	}
	g.faults = slices.Clone(r.faults)
	g.finish()
	r.s.legs[string(g.id.Leg)] = g
}

// Recovering lists the legs of an earlier process that are not handed on yet.
func (s *Spool) Recovering() []conversation.LegID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []conversation.LegID
	for _, g := range s.legs {
		if g.src == nil {
			out = append(out, g.id.Leg)
		}
	}
	return out
}
