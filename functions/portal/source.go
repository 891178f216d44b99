package portal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/media"
)

// What a portal keeps of legs that are being played.
const (
	// liveEvery is how often at most the bundles of a running leg are listed.
	liveEvery = 2 * time.Second
	// sourcesKept is how many legs' manifests are remembered.
	sourcesKept = 64
	// maxManifest is the largest manifest that is read.
	maxManifest = 64 << 20
)

// source is where the media of one leg is: its sealed manifest, or what can be seen of a
// leg that still runs. What is remembered here is shared between callers, so it is
// handed out only after the caller's own event.
type source struct {
	mu       sync.Mutex
	sealed   bool
	manifest conversation.Manifest
	bundles  map[string]bool // objects already in the manifest of a running leg
	holes    bool            // a bundle was not there when a later one was
	listed   time.Time
	used     time.Time
}

// sources remembers the sources of legs.
type sources struct {
	mu sync.Mutex
	m  map[conversation.LegID]*source
}

func (s *sources) of(id conversation.LegID, now time.Time) *source {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[conversation.LegID]*source{}
	}
	src := s.m[id]
	if src == nil {
		if len(s.m) >= sourcesKept {
			oldest := conversation.LegID("")
			for k, v := range s.m {
				if oldest == "" || v.used.Before(s.m[oldest].used) {
					oldest = k
				}
			}
			delete(s.m, oldest)
		}
		src = &source{}
		s.m[id] = src
	}
	src.used = now
	return src
}

// manifest returns the manifest of a leg as it is now. It must not be changed.
func (p *Portal) manifest(ctx context.Context, l conversation.Leg, receipt custody.Receipt) (conversation.Manifest, error) {
	src := p.sources.of(l.Leg, p.config.Now())
	src.mu.Lock()
	defer src.mu.Unlock()
	if src.sealed {
		return src.manifest, nil
	}
	if l.State == conversation.LegSealed {
		o, err := p.stores.Evidence.Open(ctx, p.legRef(l.Leg, l.Manifest), receipt)
		if err != nil {
			return conversation.Manifest{}, err
		}
		b, err := o.ReadAll(maxManifest)
		if err != nil {
			return conversation.Manifest{}, err
		}
		m, err := conversation.DecodeManifest(b)
		if err != nil {
			return conversation.Manifest{}, err
		}
		src.manifest, src.sealed, src.bundles = m, true, nil
		return m, nil
	}
	if now := p.config.Now(); now.Sub(src.listed) >= liveEvery {
		if err := p.follow(ctx, src, l, receipt); err != nil {
			return conversation.Manifest{}, err
		}
		src.listed = now
	}
	return src.manifest, nil
}

func (p *Portal) legRef(leg conversation.LegID, object string) evidence.Ref {
	return evidence.Ref{Tenant: p.config.Tenant, Unit: string(leg), Object: object}
}

// follow takes the bundles of a running leg that came since it was last looked at. The
// slices that were handed out before stay as they are: they only grow behind.
func (p *Portal) follow(ctx context.Context, src *source, l conversation.Leg, receipt custody.Receipt) error {
	tails, err := p.stores.Evidence.Tails(ctx, p.config.Tenant, string(l.Leg))
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, t := range tails {
		there[t.Name] = true
	}
	if src.holes && len(there) > len(src.bundles) {
		src.manifest, src.bundles, src.holes = conversation.Manifest{}, nil, false // a late one may fill the hole
	}
	if src.bundles == nil {
		src.bundles = map[string]bool{}
	}
	m := cloneManifest(src.manifest)
	next := 0
	if n := len(m.Bundles); n > 0 {
		next = m.Bundles[n-1].Seq + 1
	}
	left := 0
	for name := range there {
		if !src.bundles[name] {
			left++
		}
	}
	for seq := next; left > 0 && seq < next+maxPlaylist; seq++ {
		found := false
		for part := 0; part <= conversation.MaxParts; part++ {
			object := conversation.BundleObject(l.Leg, seq, part)
			if !there[object] {
				continue
			}
			o, err := p.stores.Evidence.OpenTail(ctx, p.legRef(l.Leg, object), receipt)
			if errors.Is(err, evidence.ErrNotFound) {
				continue // packed and dropped meanwhile
			}
			if err != nil {
				return err
			}
			h, body, err := media.ReadHeader(o)
			if err != nil {
				return err
			}
			if err := m.Add(h, conversation.BundleEntry{Object: object, Pack: -1, Body: body}); err != nil {
				return err
			}
			src.bundles[object], found = true, true
			left--
		}
		src.holes = src.holes || !found && left > 0
	}
	src.manifest = m
	return nil
}

// cloneManifest copies what Add changes in place.
func cloneManifest(m conversation.Manifest) conversation.Manifest {
	m.Bundles, m.Events = slices.Clone(m.Bundles), slices.Clone(m.Events)
	m.Tracks = slices.Clone(m.Tracks)
	for i := range m.Tracks {
		m.Tracks[i].Segments, m.Tracks[i].Gaps = slices.Clone(m.Tracks[i].Segments), slices.Clone(m.Tracks[i].Gaps)
	}
	m.Parties = slices.Clone(m.Parties)
	for i := range m.Parties {
		q := &m.Parties[i]
		q.Participants, q.Present, q.Muted, q.Held, q.Sources = slices.Clone(q.Participants), slices.Clone(q.Present), slices.Clone(q.Muted), slices.Clone(q.Held), slices.Clone(q.Sources)
	}
	return m
}

// openBundle opens the i-th bundle of a manifest, in its pack or as a tail.
func (p *Portal) openBundle(ctx context.Context, m conversation.Manifest, i int, receipt custody.Receipt) (*evidence.Object, error) {
	b := m.Bundles[i]
	if b.Pack >= 0 {
		pack, err := p.stores.Evidence.OpenPack(ctx, p.legRef(m.Leg, m.Packs[b.Pack].Object), receipt)
		if err != nil {
			return nil, err
		}
		return pack.Open(ctx, b.Object)
	}
	return p.stores.Evidence.OpenTail(ctx, p.legRef(m.Leg, b.Object), receipt)
}

// fragment reads one segment of a track.
func readFragment(o *evidence.Object, b conversation.BundleEntry, s conversation.SegmentEntry) (media.Fragment, error) {
	raw, err := readSpan(o, b, s.Data)
	if err != nil {
		return media.Fragment{}, err
	}
	return media.ParseFragment(raw)
}

func readSpan(o *evidence.Object, b conversation.BundleEntry, s conversation.Span) ([]byte, error) {
	if s.Len < 0 || s.Len > maxRangeReply {
		return nil, fmt.Errorf("segment of %d bytes, more than the %d of one answer", s.Len, maxRangeReply)
	}
	raw := make([]byte, s.Len)
	if _, err := o.ReadAt(raw, b.Body+s.Off); err != nil {
		return nil, err
	}
	return raw, nil
}
