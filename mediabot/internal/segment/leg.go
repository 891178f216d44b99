package segment

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"steno/shared/conversation"
	"steno/shared/msgraph"
	"steno/shared/teams"
)

// Limits of a leg.
const (
	// MaxFill is the longest silence written in one step. A longer one is a discontinuity.
	MaxFill = 10 * time.Second
	// Dormant is how long a source may be unheard before its silence is no longer written.
	Dormant = 10 * time.Minute
	// MaxTracks is how many tracks a leg may have. Sources beyond it are kept as unknown.
	MaxTracks = 4096
	// MaxParts is how many parts one bundle may have before it is sealed as a whole.
	MaxParts = 10
	// Lead is how long before its start a leg's epoch lies at least: frames that were on
	// their way belong to a time before the leg.
	Lead = 5 * time.Second
	// stall is how long a bundle waits for a receiver that says nothing.
	stall = 10 * time.Second
	// stepAlarm is how far the wall clock may depart from the leg's before it is told.
	stepAlarm = time.Second
)

// ErrNotGranted says that Graph's acknowledgment is missing or is that of another call.
var ErrNotGranted = errors.New("recording not granted for this call")

// Info is what a leg writes on everything it gives out.
type Info struct {
	Tenant   teams.TenantID
	Leg      conversation.LegID
	Call     teams.CallID
	Chain    teams.ChainID
	Recorder string
	// AudioOnly keeps video and screen from being recorded, by rule.
	AudioOnly bool
}

// Frame is one coded frame of a source. The frames of a feed come in order.
type Frame struct {
	Track  conversation.TrackID
	Kind   conversation.TrackKind
	Source teams.SourceID
	// ByLine says that control lines alone tell whose frame this is.
	ByLine bool
	// Feed numbers the offered track that the frame came on.
	Feed int
	Wall time.Time
	// Duration is that of an audio frame, in samples of 48 kHz.
	Duration int
	// Data is an Opus packet, or an access unit with NAL lengths of four bytes. It is
	// copied.
	Data []byte
	// Key says that video can be decoded from here; SPS and PPS are its parameter sets if
	// the access unit had them.
	Key      bool
	SPS, PPS []byte
}

// Put takes a bundle: its header and its encoded bytes. An error means that it is not
// kept and that the leg cannot go on.
type Put = func(h conversation.BundleHeader, plain []byte) error

// Leg is a leg being recorded. Its methods may be called from any goroutine; none waits
// for a disk or a network, but Flush, which is for one goroutine at a time.
type Leg struct {
	info   Info
	began  time.Time // with its monotonic reading
	epoch  time.Time
	failed func(error)

	mu      sync.Mutex
	tracks  map[conversation.TrackID]*track
	order   []*track
	roster  roster
	events  []event
	pauses  []pause
	paused  bool
	openAt  time.Duration // what was sent before is not recorded
	settled time.Duration
	seq     int
	parts   map[int]int // of the bundles that are open
	step    time.Duration
	crowded bool
	broken  error // why nothing can be kept any more
	ended   bool
	endAt   time.Duration
	outcome conversation.Outcome
	done    bool
}

type event struct {
	conversation.LegEvent
	parted bool
}

// pause is an interval in which the gate was closed; to is zero while it is.
type pause struct {
	from, to time.Duration
	open     bool
	kind     conversation.GapKind
	actor    teams.PersonID
	reason   string
}

// Start begins a leg at now. Without an acknowledgment for this very call it returns
// ErrNotGranted, and there is nothing that could be written to. Failed is called once,
// from Flush, if bundles cannot be kept any more; it may be nil.
func Start(info Info, granted msgraph.RecordingGranted, now time.Time, failed func(error)) (*Leg, error) {
	if !granted.Covers(info.Call) {
		return nil, fmt.Errorf("record leg %s: %w", info.Leg, ErrNotGranted)
	}
	if info.Leg != conversation.LegOf(info.Tenant, info.Call) {
		return nil, fmt.Errorf("record leg %s: it is not that of its tenant and call", info.Leg)
	}
	l := &Leg{
		info: info, began: now, failed: failed,
		epoch:  now.UTC().Add(-Lead).Truncate(conversation.SegmentDuration),
		tracks: map[conversation.TrackID]*track{}, parts: map[int]int{},
	}
	l.roster.init()
	return l, nil
}

// Epoch is the start of bundle 0.
func (l *Leg) Epoch() time.Time { return l.epoch }

// Began is when the leg began, with its monotonic reading: the clock of the leg.
func (l *Leg) Began() time.Time { return l.began }

// Header returns what the headers of all its bundles have in common.
func (l *Leg) Header() conversation.BundleHeader {
	i := l.info
	return conversation.BundleHeader{
		Format: conversation.BundleFormat, Tenant: i.Tenant, Leg: i.Leg, Call: i.Call, Chain: i.Chain, Recorder: i.Recorder,
		From: l.epoch, To: l.epoch,
	}
}

// since is the leg's time: from its epoch, by the monotonic clock.
func (l *Leg) since(now time.Time) time.Duration {
	return l.began.Round(0).Sub(l.epoch) + now.Sub(l.began)
}

func (l *Leg) at(d time.Duration) time.Time { return l.epoch.Add(d) }

// Frame takes a frame. Nothing is accepted while the leg is paused, nor after its end.
func (l *Leg) Frame(f *Frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wall := f.Wall.Sub(l.epoch)
	if l.paused || l.ended || l.broken != nil || wall < l.openAt {
		return
	}
	if f.Kind != conversation.AudioTrack && l.info.AudioOnly {
		return
	}
	t := l.track(f.Track, f.Kind, f.Source)
	t.byLine = t.byLine || f.ByLine
	if f.Kind == conversation.AudioTrack {
		l.placeAudio(t, f, wall)
	} else {
		l.placeVideo(t, f, wall)
	}
}

// Missing says why a track has no frames in [from, to). Where the ledger has an entry for
// that time which no bundle holds yet, it is corrected.
func (l *Leg) Missing(id conversation.TrackID, kind conversation.TrackKind, source teams.SourceID, from, to time.Time, why conversation.GapKind, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.broken != nil || kind != conversation.AudioTrack && l.info.AudioOnly {
		return
	}
	t := l.track(id, kind, source)
	s := stretch{from: max(0, from.Sub(l.epoch)), to: to.Sub(l.epoch), kind: why, reason: reason}
	if s.to <= s.from {
		return
	}
	if kind == conversation.AudioTrack {
		t.known = append(t.known, s)
		l.reconsider(t, s)
		return
	}
	t.gaps = append(t.gaps, conversation.Gap{From: l.at(s.from), To: l.at(s.to), Kind: why, Reason: reason})
}

// Settled says that all frames from before t were delivered or reported missing.
func (l *Leg) Settled(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settled = max(l.settled, t.Sub(l.epoch))
}

// Anomaly puts something that should not be into the leg's history.
func (l *Leg) Anomaly(at time.Time, reason string) {
	l.Event(conversation.LegEvent{At: at, Kind: conversation.EventAnomaly, Reason: reason})
}

// Event puts an entry into the leg's history. Rosters, whole or in part, are remembered
// to explain silence and to name participants.
func (l *Leg) Event(e conversation.LegEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return
	}
	l.event(e)
}

func (l *Leg) event(e conversation.LegEvent) {
	e.At = e.At.UTC().Round(0)
	if e.Kind == conversation.EventRoster {
		l.roster.update(e, e.At.Sub(l.epoch))
	}
	l.events = append(l.events, event{LegEvent: e})
}

// Pause closes the gate at now. What arrives is dropped, also what was sent before and is
// on its way. The interval is a gap of the given kind in every track. Pausing twice
// changes nothing.
func (l *Leg) Pause(now time.Time, kind conversation.GapKind, actor teams.PersonID, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.paused || l.ended {
		return
	}
	at := l.since(now)
	l.paused = true
	// Frames after the settled time may be on their way: they belong to the pause.
	l.pauses = append(l.pauses, pause{from: min(at, max(l.settled, l.openAt)), open: true, kind: kind, actor: actor, reason: reason})
	l.event(conversation.LegEvent{At: l.at(at), Kind: conversation.EventPaused, Actor: actor, Reason: reason})
}

// Resume opens the gate at now, given an acknowledgment for this call. Frames sent before
// now stay out. Resuming a leg that is not paused changes nothing.
func (l *Leg) Resume(now time.Time, granted msgraph.RecordingGranted, actor teams.PersonID, reason string) error {
	if !granted.Covers(l.info.Call) {
		return fmt.Errorf("resume leg %s: %w", l.info.Leg, ErrNotGranted)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.paused || l.ended {
		return nil
	}
	at := l.since(now)
	p := &l.pauses[len(l.pauses)-1]
	p.open, p.to = false, at
	l.paused, l.openAt = false, at
	l.event(conversation.LegEvent{At: l.at(at), Kind: conversation.EventResumed, Actor: actor, Reason: reason})
	return nil
}

// End closes the leg at now. The next Flush gives out what is left, the last bundle with
// the outcome. Ending twice changes nothing.
func (l *Leg) End(now time.Time, outcome conversation.Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.endAt = max(l.since(now), time.Duration(l.seq)*conversation.SegmentDuration)
	for _, e := range l.events {
		if e.Kind == conversation.EventEnded {
			l.ended = true
		}
	}
	if !l.ended {
		l.event(conversation.LegEvent{At: l.at(l.endAt), Kind: conversation.EventEnded})
	}
	l.ended, l.outcome = true, outcome
}

// Broken ends the keeping of media: whoever flushes the leg cannot do so any more.
func (l *Leg) Broken(err error) {
	l.mu.Lock()
	first := l.broken == nil
	l.broken = err
	l.mu.Unlock()
	if first && l.failed != nil {
		l.failed(err)
	}
}

// Done reports whether the last bundle was given out.
func (l *Leg) Done() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}
