package portal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/media"
	"steno/shared/teams"
)

// Limits of playback.
const (
	// maxPlaylist is how many segments one playlist lists: 24 hours.
	maxPlaylist = 14_400
	// maxRangeReply is the most bytes of one answer with media.
	maxRangeReply = 4 << 20
	// maxConcurrent is how many answers with media one person may have under way.
	maxConcurrent = 8
	// maxWaiting is how many more may wait for their turn, and turnWithin for how long.
	maxWaiting = 16
	turnWithin = 10 * time.Second
)

// laneAnswer is a lane as the player draws it.
type laneAnswer struct {
	ID       conversation.LaneID       `json:"id"`
	Kind     conversation.TrackKind    `json:"kind"`
	Party    *conversation.Participant `json:"party,omitempty"`
	From     time.Time                 `json:"from"`
	To       time.Time                 `json:"to"`
	Codec    string                    `json:"codec"`
	Width    int                       `json:"width,omitempty"`
	Height   int                       `json:"height,omitempty"`
	Tracks   []conversation.TrackID    `json:"tracks"`
	Gaps     []conversation.Gap        `json:"gaps"`
	Playlist string                    `json:"playlist"` // relative to the leg
	ByLine   bool                      `json:"byLine,omitempty"`
}

type presenceAnswer struct {
	conversation.Participant
	Present []conversation.Interval `json:"present"`
	Muted   []conversation.Interval `json:"muted"`
	Held    []conversation.Interval `json:"held"`
	Lobby   bool                    `json:"lobby,omitempty"`
}

type eventAnswer struct {
	At     time.Time              `json:"at"`
	Kind   conversation.EventKind `json:"kind"`
	Reason string                 `json:"reason,omitempty"`
	Actor  string                 `json:"actor,omitempty"`
	Name   string                 `json:"actorName,omitempty"`
}

type playerAnswer struct {
	Leg     conversation.LegID    `json:"leg"`
	State   conversation.LegState `json:"state"`
	Outcome conversation.Outcome  `json:"outcome,omitempty"`
	Reason  string                `json:"reason,omitempty"`
	Epoch   *time.Time            `json:"epoch,omitempty"` // when media time 0 is
	From    *time.Time            `json:"from,omitempty"`
	To      *time.Time            `json:"to,omitempty"`
	Master  string                `json:"master,omitempty"` // relative to the leg
	Peaks   bool                  `json:"peaks"`
	Lanes   []laneAnswer          `json:"lanes"`
	People  []presenceAnswer      `json:"people"`
	Events  []eventAnswer         `json:"events"`
	Event   string                `json:"event"` // id of the custody event that covers this reading
}

// player describes a leg to a player: lanes, gaps, who was there when.
func (p *Portal) player(w http.ResponseWriter, r *http.Request, c caller) error {
	_, l, receipt, err := p.leg(r, c)
	if err != nil {
		return err
	}
	m, err := p.manifest(r.Context(), l, receipt)
	if err != nil {
		return err
	}
	out := playerAnswer{
		Leg: l.Leg, State: l.State, Outcome: m.Outcome, Reason: m.Reason, Peaks: l.Peaks != "",
		Lanes: []laneAnswer{}, People: []presenceAnswer{}, Events: []eventAnswer{}, Event: receipt.Event(),
	}
	if from, to := m.Span(); !from.IsZero() {
		epoch := m.Epoch
		out.Epoch, out.From, out.To, out.Master = &epoch, &from, &to, "master.m3u8"
	}
	for _, lane := range m.Lanes() {
		out.Lanes = append(out.Lanes, describe(m, lane))
	}
	for _, party := range m.Parties {
		if party.Kind == teams.PartyInstance {
			continue // a recorder is there, and takes no part
		}
		out.People = append(out.People, presenceAnswer{
			Participant: conversation.Participant{ID: party.Party.ID, Name: party.Name, Kind: string(party.Kind)},
			Present:     orEmpty(party.Present), Muted: orEmpty(party.Muted), Held: orEmpty(party.Held), Lobby: party.Lobby,
		})
	}
	actors := make([]conversation.Participant, len(m.Events))
	for i, e := range m.Events {
		actors[i].ID = string(e.Actor)
	}
	if err := p.fillNames(r.Context(), actors); err != nil {
		return err
	}
	for i, e := range m.Events {
		out.Events = append(out.Events, eventAnswer{At: e.At, Kind: e.Kind, Reason: e.Reason, Actor: string(e.Actor), Name: actors[i].Name})
	}
	return p.reply(w, out)
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func describe(m conversation.Manifest, lane conversation.Lane) laneAnswer {
	first, last := lane.Segments[0], lane.Segments[len(lane.Segments)-1]
	a := laneAnswer{
		ID: lane.ID, Kind: lane.Kind, From: first.Wall, To: endOf(m, last), Codec: first.Codec, Width: first.Width, Height: first.Height,
		Tracks: []conversation.TrackID{}, Gaps: orEmpty(lane.Gaps), Playlist: string(lane.Kind) + "/" + string(lane.ID) + ".m3u8",
	}
	if lane.Party != nil {
		a.Party = &conversation.Participant{ID: lane.Party.ID, Name: lane.Party.Name, Kind: string(lane.Party.Kind)}
	}
	for _, s := range lane.Segments {
		if id := m.Tracks[s.Track].Track; !slices.Contains(a.Tracks, id) {
			a.Tracks = append(a.Tracks, id)
			a.ByLine = a.ByLine || m.Tracks[s.Track].ByLine
		}
	}
	return a
}

func endOf(m conversation.Manifest, s conversation.LaneSegment) time.Time {
	return s.Wall.Add(time.Duration(s.Duration) * time.Second / time.Duration(m.Tracks[s.Track].Timescale))
}

// peaks answers with what finalize drew of the audio.
func (p *Portal) peaks(w http.ResponseWriter, r *http.Request, c caller) error {
	_, l, receipt, err := p.leg(r, c)
	if err != nil {
		return err
	}
	if l.Peaks == "" {
		return errNotFound
	}
	o, err := p.stores.Evidence.Open(r.Context(), p.legRef(l.Leg, l.Peaks), receipt)
	if err != nil {
		return err
	}
	b, err := o.ReadAll(maxManifest)
	if err != nil {
		return err
	}
	if !json.Valid(b) {
		return fmt.Errorf("peaks of leg %s: %w", l.Leg, evidence.ErrCorrupt)
	}
	return p.reply(w, json.RawMessage(b))
}

// playlist serves the playlists of a leg: master.m3u8, and one a lane.
func (p *Portal) playlist(w http.ResponseWriter, r *http.Request, c caller) error {
	_, l, receipt, err := p.leg(r, c)
	if err != nil {
		return err
	}
	m, err := p.manifest(r.Context(), l, receipt)
	if err != nil {
		return err
	}
	lanes := m.Lanes()
	var text string
	if name := r.PathValue("file"); name == "master.m3u8" {
		text, err = master(lanes, r.URL.Query().Get("video"))
	} else {
		kind := conversation.TrackKind(r.PathValue("kind"))
		id, isList := strings.CutSuffix(name, ".m3u8")
		if !isList {
			return errNotFound
		}
		text, err = mediaPlaylist(m, lanes, kind, conversation.LaneID(id), l.State == conversation.LegSealed)
	}
	if err != nil {
		return err
	}
	p.media(w, "application/vnd.apple.mpegurl", []byte(text))
	return nil
}

// media answers with bytes of a recording.
func (p *Portal) media(w http.ResponseWriter, contentType string, b []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store, private")
	w.Header().Set("Vary", "Authorization")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the caller is gone if this fails
}

// bounded keeps one person from having more than so many answers with media under way.
func bounded(handle func(p *Portal, w http.ResponseWriter, r *http.Request, c caller) error) func(p *Portal, w http.ResponseWriter, r *http.Request, c caller) error {
	return func(p *Portal, w http.ResponseWriter, r *http.Request, c caller) error {
		end := p.limits.begin(r.Context(), c.person)
		if end == nil {
			w.Header().Set("Retry-After", "1")
			return errTooMany
		}
		defer end()
		return handle(p, w, r, c)
	}
}

// segment serves the initialization segment (init.mp4) and the segments (SEQ-PART.m4s)
// of a lane.
func (p *Portal) segment(w http.ResponseWriter, r *http.Request, c caller) error {
	_, l, receipt, err := p.leg(r, c)
	if err != nil {
		return err
	}
	m, err := p.manifest(r.Context(), l, receipt)
	if err != nil {
		return err
	}
	kind, id := conversation.TrackKind(r.PathValue("kind")), conversation.LaneID(r.PathValue("lane"))
	if kind == conversation.AudioTrack && r.PathValue("file") == "init.mp4" {
		p.media(w, "audio/mp4", media.OpusInit(1))
		return nil
	}
	lane, ok := findLane(m.Lanes(), kind, id)
	if !ok {
		return errNotFound
	}
	var b []byte
	switch bundle, init, found := bundleOf(m, r.PathValue("file")); {
	case !found:
		return errNotFound
	case kind == conversation.AudioTrack:
		b, err = p.audio(r.Context(), m, lane, bundle, receipt)
	case init:
		b, err = p.videoInit(r.Context(), m, lane, bundle, receipt)
	default:
		b, err = p.video(r.Context(), m, lane, bundle, receipt)
	}
	if err != nil {
		return err
	}
	contentType := "video/mp4"
	if kind == conversation.AudioTrack {
		contentType = "audio/mp4"
	}
	p.media(w, contentType, b)
	return nil
}

// findLane returns a lane of that kind. The mix is all audio there is; a lane that
// plays nothing yet is silence.
func findLane(lanes []conversation.Lane, kind conversation.TrackKind, id conversation.LaneID) (conversation.Lane, bool) {
	if kind == conversation.AudioTrack && id == conversation.LaneMixed {
		all := conversation.Lane{ID: id, Kind: kind}
		for _, l := range lanes {
			if l.Kind == kind {
				all.Segments = append(all.Segments, l.Segments...)
			}
		}
		return all, len(all.Segments) > 0
	}
	i := slices.IndexFunc(lanes, func(l conversation.Lane) bool { return l.Kind == kind && l.ID == id })
	if i < 0 {
		return conversation.Lane{}, false
	}
	return lanes[i], true
}

// segmentName is the name of a bundle's segment in a URL.
func segmentName(b conversation.BundleEntry) string {
	return strconv.Itoa(b.Seq) + "-" + strconv.Itoa(b.Part)
}

// bundleOf finds the bundle that a segment's name speaks of.
func bundleOf(m conversation.Manifest, file string) (index int, init, ok bool) {
	name, isSegment := strings.CutSuffix(file, ".m4s")
	if !isSegment {
		if name, init = strings.CutSuffix(file, ".mp4"); !init {
			return 0, false, false
		}
	}
	for i, b := range m.Bundles {
		if segmentName(b) == name {
			return i, init, true
		}
	}
	return 0, false, false
}

// stretch is the time of a bundle in samples of 48 kHz since the leg's epoch. Whole ones
// last as long as a segment; parts as long as they say.
func stretch(m conversation.Manifest, i int) (start, end int64) {
	const slot = int64(conversation.SegmentDuration / time.Second * media.AudioTimescale)
	b := m.Bundles[i]
	start = int64(b.Seq) * slot
	if b.Part == 0 {
		return start, start + slot
	}
	at := func(t time.Time) int64 { return int64(t.Sub(m.Epoch)) * media.AudioTimescale / int64(time.Second) }
	return at(b.From), at(b.To)
}

// audio makes the segment of an audio lane for one bundle: what was recorded at its
// times, silence where there is nothing. The mix is decoded, summed and encoded anew.
func (p *Portal) audio(ctx context.Context, m conversation.Manifest, lane conversation.Lane, bundle int, receipt custody.Receipt) ([]byte, error) {
	start, end := stretch(m, bundle)
	parts, err := p.timed(ctx, m, lane, bundle, receipt)
	if err != nil {
		return nil, err
	}
	var samples []media.Sample
	at := start
	if lane.ID == conversation.LaneMixed {
		if samples, err = p.mix(ctx, m, lane, bundle, parts, receipt); err != nil {
			return nil, err
		}
	} else {
		var list []media.Timed
		for _, t := range parts {
			list = append(list, t.Timed)
		}
		slices.SortStableFunc(list, func(a, b media.Timed) int { return int(a.Time - b.Time) })
		samples, at = media.Fill(list, start, end)
	}
	if len(samples) == 0 {
		return nil, errNotFound
	}
	return media.AppendFragment(nil, media.Fragment{
		Sequence: uint32(bundle + 1), Time: uint64(at), DefaultDuration: media.FrameSamples, Samples: samples,
	})
}

type timedTrack struct {
	media.Timed
	track int
}

// timed reads what a lane has in one bundle.
func (p *Portal) timed(ctx context.Context, m conversation.Manifest, lane conversation.Lane, bundle int, receipt custody.Receipt) ([]timedTrack, error) {
	var out []timedTrack
	var o *evidence.Object
	for _, s := range lane.Segments {
		if s.Bundle != bundle {
			continue
		}
		if o == nil {
			var err error
			if o, err = p.openBundle(ctx, m, bundle, receipt); err != nil {
				return nil, err
			}
		}
		frag, err := readFragment(o, m.Bundles[bundle], s.SegmentEntry)
		if err != nil {
			return nil, err
		}
		out = append(out, timedTrack{media.Timed{Time: int64(frag.Time), Samples: frag.Samples}, s.Track})
	}
	return out, nil
}

// mixLead is how many frames of the bundle before are decoded ahead of a mix.
const mixLead = 8

func (p *Portal) mix(ctx context.Context, m conversation.Manifest, lane conversation.Lane, bundle int, parts []timedTrack, receipt custody.Receipt) ([]media.Sample, error) {
	start, end := stretch(m, bundle)
	var before []timedTrack
	if bundle > 0 {
		var err error
		if before, err = p.timed(ctx, m, lane, bundle-1, receipt); err != nil {
			return nil, err
		}
	}
	var placed []media.Placed
	for _, t := range parts {
		x := media.Placed{Samples: t.Samples, Offset: int(t.Time - start)}
		for _, b := range before {
			last := b.Samples[max(0, len(b.Samples)-mixLead):]
			length := duration(b.Samples)
			if b.track == t.track && b.Time+length == t.Time {
				x.Samples = append(slices.Clone(last), t.Samples...)
				x.Offset -= int(duration(last))
			}
		}
		placed = append(placed, x)
	}
	return media.Mix(ctx, placed, int(end-start))
}

func duration(samples []media.Sample) (n int64) {
	for _, s := range samples {
		n += int64(s.Duration)
	}
	return n
}

// video serves the segment of a video lane as it was recorded.
func (p *Portal) video(ctx context.Context, m conversation.Manifest, lane conversation.Lane, bundle int, receipt custody.Receipt) ([]byte, error) {
	i := slices.IndexFunc(lane.Segments, func(s conversation.LaneSegment) bool { return s.Bundle == bundle })
	if i < 0 {
		return nil, errNotFound
	}
	o, err := p.openBundle(ctx, m, bundle, receipt)
	if err != nil {
		return nil, err
	}
	return readSpan(o, m.Bundles[bundle], lane.Segments[i].Data)
}

func (p *Portal) videoInit(ctx context.Context, m conversation.Manifest, lane conversation.Lane, bundle int, receipt custody.Receipt) ([]byte, error) {
	i := slices.IndexFunc(lane.Segments, func(s conversation.LaneSegment) bool { return s.Bundle == bundle && s.Init != nil })
	if i < 0 {
		return nil, errNotFound
	}
	o, err := p.openBundle(ctx, m, bundle, receipt)
	if err != nil {
		return nil, err
	}
	return readSpan(o, m.Bundles[bundle], *lane.Segments[i].Init)
}

// bundle serves the plain bytes of one bundle as they were sealed, whole or in a range:
// what an auditor compares with the manifest.
func (p *Portal) bundle(w http.ResponseWriter, r *http.Request, c caller) error {
	_, l, receipt, err := p.leg(r, c)
	if err != nil {
		return err
	}
	m, err := p.manifest(r.Context(), l, receipt)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(m.Bundles, func(b conversation.BundleEntry) bool { return segmentName(b) == r.PathValue("name") })
	if i < 0 {
		return errNotFound
	}
	o, err := p.openBundle(r.Context(), m, i, receipt)
	if err != nil {
		return err
	}
	from, n, partial, err := parseRange(r.Header.Values("Range"), o.Size())
	if errors.Is(err, errRange) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", o.Size()))
		return &problem{Status: http.StatusRequestedRangeNotSatisfiable, Title: "Range not satisfiable", Detail: fmt.Sprintf("One range of at most %d bytes within the object.", maxRangeReply)}
	}
	if err != nil {
		return err
	}
	b := make([]byte, n)
	if n > 0 {
		if _, err := o.ReadAt(b, from); err != nil {
			return err
		}
	}
	w.Header().Set("Accept-Ranges", "bytes")
	if partial {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+n-1, o.Size()))
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Cache-Control", "no-store, private")
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(b) // the caller is gone if this fails
		return nil
	}
	p.media(w, "application/octet-stream", b)
	return nil
}
