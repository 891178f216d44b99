package conversation

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"steno/shared/teams"
)

// ManifestFormat is the format of a leg's manifest.
const ManifestFormat = "steno-leg-manifest/1"

// Manifest lists all there is of one leg: where its media lies, whose it is, what is
// missing and why. While a call runs it is built from the bundles so far; finalize
// seals the last one.
type Manifest struct {
	Format   string         `json:"format"`
	Tenant   teams.TenantID `json:"tenant"`
	Leg      LegID          `json:"leg"`
	Call     teams.CallID   `json:"call"`
	Chain    teams.ChainID  `json:"chain"`
	Recorder string         `json:"recorder"`
	Epoch    time.Time      `json:"epoch,omitzero"`
	Final    bool           `json:"final,omitempty"` // the recorder closed the leg
	Outcome  Outcome        `json:"outcome,omitempty"`
	Reason   string         `json:"reason,omitempty"`
	Invite   *teams.Invite  `json:"invite,omitempty"`
	Packs    []PackEntry    `json:"packs,omitempty"`
	Bundles  []BundleEntry  `json:"bundles,omitempty"`
	Tracks   []TrackEntry   `json:"tracks,omitempty"`
	Parties  []PartyEntry   `json:"parties,omitempty"`
	Events   []LegEvent     `json:"events,omitempty"`
}

// PackEntry is a pack of the leg.
type PackEntry struct {
	Object string `json:"object"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// BundleEntry is a bundle of the leg. Pack is the index of its pack, -1 for a tail.
type BundleEntry struct {
	Seq    int       `json:"seq"`
	Part   int       `json:"part,omitempty"`
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Object string    `json:"object"`
	Pack   int       `json:"pack"`
	Body   int64     `json:"body"`             // where the body starts in the plain bytes
	SHA256 string    `json:"sha256,omitempty"` // of the sealed bytes
	Plain  string    `json:"plain,omitempty"`  // SHA-256 of the plain bytes; a manifest is sealed itself
}

// TrackEntry is a track with all its segments, in order of time.
type TrackEntry struct {
	Track     TrackID        `json:"track"`
	Kind      TrackKind      `json:"kind"`
	Source    teams.SourceID `json:"source,omitempty"`
	ByLine    bool           `json:"byLine,omitempty"`
	Timescale int            `json:"timescale"`
	Segments  []SegmentEntry `json:"segments"`
	Gaps      []Gap          `json:"gaps,omitempty"`
}

// SegmentEntry is a segment of a track and the bundle it lies in.
type SegmentEntry struct {
	Bundle   int       `json:"b"` // index into Bundles
	Wall     time.Time `json:"w"`
	Time     int64     `json:"t"`
	Duration int64     `json:"d"`
	Run      int       `json:"r,omitempty"`
	Codec    string    `json:"c"`
	Width    int       `json:"x,omitempty"`
	Height   int       `json:"y,omitempty"`
	Key      bool      `json:"k,omitempty"`
	Init     *Span     `json:"i,omitempty"`
	Data     Span      `json:"s"`
}

// PartyEntry is somebody who took part, over all the times she came and went.
type PartyEntry struct {
	teams.Party
	Participants []teams.ParticipantID `json:"participants"`
	Present      []Interval            `json:"present"`
	Muted        []Interval            `json:"muted,omitempty"`
	Held         []Interval            `json:"held,omitempty"`
	Sources      []SourceInterval      `json:"sources,omitempty"`
	Lobby        bool                  `json:"lobby,omitempty"` // was never let in
}

// Interval is [From, To); a zero To means to the end.
type Interval struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to,omitzero"`
}

// SourceInterval is when a source was a party's.
type SourceInterval struct {
	Kind   TrackKind      `json:"kind"`
	Source teams.SourceID `json:"source"`
	Interval
}

// Covers reports whether t lies in the interval.
func (i Interval) Covers(t time.Time) bool {
	return !t.Before(i.From) && (i.To.IsZero() || t.Before(i.To))
}

// Add takes the next bundle of the leg. Bundles come in order of Seq and Part; one that
// is skipped becomes a gap in every track it should have held.
func (m *Manifest) Add(h BundleHeader, e BundleEntry) error {
	if m.Leg == "" {
		m.Format, m.Tenant, m.Leg, m.Call, m.Chain, m.Recorder, m.Epoch = ManifestFormat, h.Tenant, h.Leg, h.Call, h.Chain, h.Recorder, h.Epoch()
	}
	if h.Leg != m.Leg || h.Tenant != m.Tenant {
		return fmt.Errorf("bundle %d of %s: belongs to leg %s", h.Seq, m.Leg, h.Leg)
	}
	next := 0
	if n := len(m.Bundles); n > 0 {
		last := m.Bundles[n-1]
		next = last.Seq + 1
		if h.Seq < last.Seq || h.Seq == last.Seq && h.Part <= last.Part {
			return fmt.Errorf("bundle %d.%d of %s: out of order after %d.%d", h.Seq, h.Part, m.Leg, last.Seq, last.Part)
		}
		if h.Seq == last.Seq {
			next = h.Seq
		}
	}
	if h.Seq > next {
		m.miss(next, h.Seq)
	}
	e.Seq, e.Part, e.From, e.To = h.Seq, h.Part, h.From, h.To
	m.Bundles = append(m.Bundles, e)
	for _, s := range h.Segments {
		m.addSegment(s, len(m.Bundles)-1)
	}
	for _, ev := range h.Events {
		m.addEvent(ev)
	}
	if h.Final {
		m.Final, m.Outcome = true, h.Outcome
	}
	return nil
}

// Miss records that the bundles [from, to) of the leg are not there.
func (m *Manifest) miss(from, to int) {
	g := Gap{From: m.start(from), To: m.start(to), Kind: GapLost, Reason: "bundle missing"}
	for i := range m.Tracks {
		m.Tracks[i].Gaps = append(m.Tracks[i].Gaps, g)
	}
	m.Events = append(m.Events, LegEvent{At: g.From, Kind: EventFault, Reason: fmt.Sprintf("bundles %d to %d are missing", from, to-1)})
}

// Close ends the history of a leg of which bundles [0, bundles) should exist.
func (m *Manifest) Close(bundles int) {
	next := 0
	if n := len(m.Bundles); n > 0 {
		next = m.Bundles[n-1].Seq + 1
	}
	if next < bundles {
		m.miss(next, bundles)
	}
	slices.SortStableFunc(m.Tracks, func(a, b TrackEntry) int { return cmp.Compare(a.Track, b.Track) })
}

func (m *Manifest) start(seq int) time.Time { return m.Epoch.Add(time.Duration(seq) * SegmentDuration) }

func (m *Manifest) addSegment(s Segment, bundle int) {
	i := slices.IndexFunc(m.Tracks, func(t TrackEntry) bool { return t.Track == s.Track })
	if i < 0 {
		i = len(m.Tracks)
		m.Tracks = append(m.Tracks, TrackEntry{Track: s.Track, Kind: s.Kind, Source: s.Source, Timescale: s.Timescale})
	}
	t := &m.Tracks[i]
	t.ByLine = t.ByLine || s.ByLine
	t.Gaps = append(t.Gaps, s.Gaps...)
	if s.Samples == 0 {
		return
	}
	t.Segments = append(t.Segments, SegmentEntry{
		Bundle: bundle, Wall: s.Wall, Time: s.Time, Duration: s.Duration, Run: s.Run, Codec: s.Codec,
		Width: s.Width, Height: s.Height, Key: s.Key, Init: s.Init, Data: s.Data,
	})
}

func (m *Manifest) addEvent(e LegEvent) {
	switch e.Kind {
	case EventInvited:
		m.Invite = e.Invite
	case EventRoster:
		for _, p := range e.Roster {
			m.party(p).update(p, e.At)
		}
		for _, id := range e.Left {
			for i := range m.Parties {
				if slices.Contains(m.Parties[i].Participants, id) {
					m.Parties[i].leave(e.At)
				}
			}
		}
		return // the parties say it all
	}
	m.Events = append(m.Events, e)
}

func (m *Manifest) party(p teams.Participant) *PartyEntry {
	i := slices.IndexFunc(m.Parties, func(e PartyEntry) bool {
		return slices.Contains(e.Participants, p.ID) || p.Party.ID != "" && e.Party.ID == p.Party.ID && e.Kind == p.Kind
	})
	if i < 0 {
		i = len(m.Parties)
		m.Parties = append(m.Parties, PartyEntry{Party: p.Party, Lobby: p.Lobby})
	}
	e := &m.Parties[i]
	if !slices.Contains(e.Participants, p.ID) {
		e.Participants = append(e.Participants, p.ID)
	}
	return e
}

// kindOf translates Graph's media kinds into those of tracks.
func kindOf(k teams.MediaKind) (TrackKind, bool) {
	switch k {
	case teams.MediaAudio:
		return AudioTrack, true
	case teams.MediaVideo:
		return VideoTrack, true
	case teams.MediaScreen:
		return ScreenTrack, true
	}
	return "", false
}

func (e *PartyEntry) update(p teams.Participant, at time.Time) {
	e.Name = cmp.Or(e.Name, p.Name)
	if p.Lobby {
		return
	}
	e.Lobby = false
	set(&e.Present, true, at)
	muted, held := p.Muted, false
	var now []SourceInterval
	for _, s := range p.Streams {
		kind, known := kindOf(s.Kind)
		if !known || s.Source == teams.SourceUnknown || s.Source == teams.SourceNone {
			continue
		}
		if kind == AudioTrack {
			muted = muted || s.ServerMuted
			held = s.Direction == "inactive"
		}
		now = append(now, SourceInterval{kind, s.Source, Interval{From: at}})
	}
	set(&e.Muted, muted, at)
	set(&e.Held, held, at)
	for i := range e.Sources {
		s := &e.Sources[i]
		if !s.To.IsZero() {
			continue
		}
		at2 := slices.IndexFunc(now, func(n SourceInterval) bool { return n.Kind == s.Kind && n.Source == s.Source })
		if at2 < 0 {
			s.To = at
			continue
		}
		now = slices.Delete(now, at2, at2+1)
	}
	e.Sources = append(e.Sources, now...)
}

func (e *PartyEntry) leave(at time.Time) {
	set(&e.Present, false, at)
	set(&e.Muted, false, at)
	set(&e.Held, false, at)
	for i := range e.Sources {
		if e.Sources[i].To.IsZero() {
			e.Sources[i].To = at
		}
	}
}

// set opens or closes the last interval.
func set(list *[]Interval, on bool, at time.Time) {
	open := len(*list) > 0 && (*list)[len(*list)-1].To.IsZero()
	switch {
	case on && !open:
		*list = append(*list, Interval{From: at})
	case !on && open:
		(*list)[len(*list)-1].To = at
	}
}

// LaneID names a lane of a player: what one party said, or showed, over the whole leg.
type LaneID string

// Lanes that belong to nobody in particular.
const (
	LaneMixed   LaneID = "mixed"   // made for listening out of all audio
	LaneUnknown LaneID = "unknown" // whose it is, is not known beyond doubt
)

// Lane is all segments of one kind that belong to one party, in order of time.
type Lane struct {
	ID       LaneID
	Kind     TrackKind
	Party    *teams.Party // nil for tracks that belong to nobody in particular
	Segments []LaneSegment
	Gaps     []Gap
}

// LaneSegment is a segment and where it is found.
type LaneSegment struct {
	Track int // index into Tracks
	SegmentEntry
}

// rosterLag is how long before a source stands in the roster its media is believed to
// be the same party's: notifications come later than the first words.
const rosterLag = 10 * time.Second

// owner returns the party whose source it was in all of [from, to), -1 if it was
// nobody's or more than one party's.
func (m *Manifest) owner(kind TrackKind, source teams.SourceID, from, to time.Time) int {
	if source == teams.SourceUnknown || source == teams.SourceNone {
		return -1
	}
	found := -1
	for early := range 2 { // first what the roster says, then with its lag forgiven
		for i, p := range m.Parties {
			for _, s := range p.Sources {
				start := s.From
				if early == 1 {
					start = start.Add(-rosterLag)
				}
				if s.Kind != kind || s.Source != source || !s.To.IsZero() && !from.Before(s.To.Add(rosterLag)) || !start.Before(to) {
					continue
				}
				if found >= 0 && found != i {
					return -1
				}
				found = i
			}
		}
		if found >= 0 {
			return found
		}
	}
	return -1
}

// Lanes groups the segments of the tracks by party. A segment during which its source
// changed hands belongs to nobody.
func (m *Manifest) Lanes() []Lane {
	var lanes []Lane
	lane := func(id LaneID, kind TrackKind, p *teams.Party) *Lane {
		i := slices.IndexFunc(lanes, func(l Lane) bool { return l.ID == id && l.Kind == kind })
		if i < 0 {
			i = len(lanes)
			lanes = append(lanes, Lane{ID: id, Kind: kind, Party: p})
		}
		return &lanes[i]
	}
	for ti, t := range m.Tracks {
		touched := map[LaneID]bool{}
		for _, s := range t.Segments {
			id, party := m.laneOf(t, s)
			l := lane(id, t.Kind, party)
			l.Segments = append(l.Segments, LaneSegment{ti, s})
			if !touched[id] {
				touched[id] = true
				l.Gaps = append(l.Gaps, t.Gaps...)
			}
		}
	}
	for i := range lanes {
		slices.SortStableFunc(lanes[i].Segments, func(a, b LaneSegment) int { return a.Wall.Compare(b.Wall) })
		slices.SortStableFunc(lanes[i].Gaps, func(a, b Gap) int { return a.From.Compare(b.From) })
	}
	slices.SortStableFunc(lanes, func(a, b Lane) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), a.Segments[0].Wall.Compare(b.Segments[0].Wall), cmp.Compare(a.ID, b.ID))
	})
	return lanes
}

func (m *Manifest) laneOf(t TrackEntry, s SegmentEntry) (LaneID, *teams.Party) {
	if t.Track == TrackMixed {
		return "received-mix", nil
	}
	length := time.Duration(s.Duration) * time.Second / time.Duration(t.Timescale)
	i := m.owner(t.Kind, t.Source, s.Wall, s.Wall.Add(length))
	if i < 0 {
		return LaneUnknown, nil
	}
	p := m.Parties[i]
	sum := sha256.Sum256([]byte("steno-lane-v1\x00" + string(p.Kind) + "\x00" + cmp.Or(p.ID, string(p.Participants[0]))))
	return LaneID(hex.EncodeToString(sum[:8])), &p.Party
}

// Span returns when the first media begins and the last one ends, zero if there is none.
func (m *Manifest) Span() (from, to time.Time) {
	for _, t := range m.Tracks {
		for _, s := range t.Segments {
			end := s.Wall.Add(time.Duration(s.Duration) * time.Second / time.Duration(t.Timescale))
			if from.IsZero() || s.Wall.Before(from) {
				from = s.Wall
			}
			if end.After(to) {
				to = end
			}
		}
	}
	return from, to
}

// Lost sums what was lost of all tracks.
func (m *Manifest) Lost() time.Duration {
	var n time.Duration
	for _, t := range m.Tracks {
		for _, g := range t.Gaps {
			if g.Kind == GapLost {
				n += g.To.Sub(g.From)
			}
		}
	}
	return n
}

// EncodeManifest writes the plain bytes of a manifest.
func EncodeManifest(m Manifest) ([]byte, error) { return json.Marshal(m) }

// DecodeManifest reads what EncodeManifest wrote.
func DecodeManifest(b []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return Manifest{}, fmt.Errorf("leg manifest: %w", err)
	}
	var faults []error
	if m.Format != ManifestFormat {
		faults = append(faults, fmt.Errorf("leg manifest: format %q, want %s", m.Format, ManifestFormat))
	}
	for _, b := range m.Bundles {
		if b.Pack < -1 || b.Pack >= len(m.Packs) || b.Body < 0 {
			faults = append(faults, fmt.Errorf("leg manifest: bundle %d lies in pack %d of %d", b.Seq, b.Pack, len(m.Packs)))
		}
	}
	for _, t := range m.Tracks {
		if t.Timescale <= 0 {
			faults = append(faults, fmt.Errorf("leg manifest: track %s has no timescale", t.Track))
		}
		for _, s := range t.Segments {
			if s.Bundle < 0 || s.Bundle >= len(m.Bundles) || s.Data.Off < 0 || s.Data.Len < 0 {
				faults = append(faults, fmt.Errorf("leg manifest: a segment of %s lies in no bundle", t.Track))
			}
		}
	}
	return m, errors.Join(faults...)
}
