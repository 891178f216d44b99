package segment

import (
	"bytes"
	"time"

	"steno/shared/conversation"
	"steno/shared/media"
	"steno/shared/teams"
)

const (
	frame = media.FrameSamples
	// slack is how far a frame may lie from where the one before it ends and still follow
	// it: half a frame. More is a missing frame, or a clock that has run ahead.
	slack = frame / 2
	// maxLanes is how many feeds may sound at one time in one track.
	maxLanes = 16
	// maxPicture is how long a picture may stand. The platform sends several a second.
	maxPicture = 2 * time.Second
)

// track is one source of one kind, or the frames that are nobody's.
type track struct {
	id      conversation.TrackID
	kind    conversation.TrackKind
	source  teams.SourceID
	byLine  bool
	runs    int
	lanes   []*lane // the first is the one without holes
	known   []stretch
	gaps    []conversation.Gap
	parted  int    // gaps that stand in parts
	refused string // why a frame could not be placed, as it was last told
}

// stretch is why nothing came in [from, to).
type stretch struct {
	from, to time.Duration
	kind     conversation.GapKind
	reason   string
}

// lane is samples one after the other.
type lane struct {
	feed    int
	run     *run
	pos     int64         // where the next sample belongs, in units of the timescale from the epoch
	heard   time.Duration // end of the last frame that was received
	samples []sample
	data    []byte
	parted  int // samples that stand in parts
	asleep  bool
}

// run is samples whose decode times go on.
type run struct {
	n             int
	used          bool // it has a sample
	codec         string
	width, height int
	init          []byte
	sps, pps      []byte
}

// sample is kept small: there are fifty for each second of each track.
type sample struct {
	run   *run
	time  int64
	dur   uint32
	off   uint32 // in the lane's data
	size  uint32
	key   bool
	first bool // of its run
	quiet bool // silence of ours
	open  bool // a picture whose end is not known
}

func timescale(k conversation.TrackKind) int64 {
	if k == conversation.AudioTrack {
		return media.AudioTimescale
	}
	return media.VideoTimescale
}

func units(d time.Duration, scale int64) int64 {
	// In two steps: 2^63 ns × 90 would overflow within a day.
	s, ns := int64(d/time.Second), int64(d%time.Second)
	return s*scale + ns*scale/int64(time.Second)
}

func duration(u, scale int64) time.Duration {
	return time.Duration(u/scale)*time.Second + time.Duration(u%scale)*time.Second/time.Duration(scale)
}

func (l *Leg) track(id conversation.TrackID, kind conversation.TrackKind, source teams.SourceID) *track {
	t := l.tracks[id]
	if t != nil {
		return t
	}
	if len(l.tracks) >= MaxTracks && id != conversation.TrackUnknown {
		if !l.crowded {
			l.crowded = true
			l.event(conversation.LegEvent{At: l.at(l.settled), Kind: conversation.EventAnomaly, Reason: "more sources than tracks: kept as unknown"})
		}
		return l.track(conversation.TrackUnknown, conversation.AudioTrack, teams.SourceUnknown)
	}
	t = &track{id: id, kind: kind, source: source}
	l.tracks[id] = t
	l.order = append(l.order, t)
	return t
}

// nobody reports whether a track may get frames of several feeds at one time.
func (t *track) nobody() bool {
	return t.id == conversation.TrackMixed || t.id == conversation.TrackUnknown
}

func frames(gap int64) int64 { // rounded to whole frames
	if gap < 0 {
		return -((slack - 1 - gap) / frame)
	}
	return (gap + slack) / frame
}

// lane picks where a frame that is due belongs: after the last frame of its feed, else
// at the end of the first lane that has room. -1 if there is no room for one more lane.
func (t *track) lane(due int64, feed int) int {
	fits := func(ln *lane) bool { return due-ln.pos >= -slack-slack/2 }
	for i, ln := range t.lanes {
		if ln.feed == feed && fits(ln) {
			return i
		}
	}
	for i, ln := range t.lanes {
		if fits(ln) && (!t.nobody() || frames(due-ln.pos) > 0) {
			return i
		}
	}
	if len(t.lanes) >= maxLanes {
		return -1
	}
	t.lanes = append(t.lanes, &lane{feed: feed, pos: due})
	return len(t.lanes) - 1
}

func (l *Leg) placeAudio(t *track, f *Frame, wall time.Duration) {
	due := units(wall, media.AudioTimescale)
	if due < 0 || f.Duration <= 0 {
		l.refuse(t, wall, "a frame from before the leg's epoch")
		return
	}
	i := t.lane(due, f.Feed)
	if i < 0 {
		l.refuse(t, wall, "more feeds at one time than a track has room for")
		return
	}
	ln := t.lanes[i]
	ln.feed = f.Feed
	gap := frames(due - ln.pos)
	switch {
	case ln.run == nil:
		t.begin(ln, due)
	case gap < 0 || gap > 0 && i > 0:
		t.begin(ln, due)
	case gap*frame > units(MaxFill, media.AudioTimescale):
		l.explain(t, ln.pos, due, false)
		t.begin(ln, due)
	case gap > 0:
		l.fill(t, ln, gap)
	}
	ln.add(f.Data, uint32(f.Duration), true)
	ln.heard, ln.asleep = duration(ln.pos, media.AudioTimescale), false
}

// refuse records that a frame could not be placed anywhere.
func (l *Leg) refuse(t *track, wall time.Duration, reason string) {
	wall = max(wall, 0)
	n := len(t.gaps)
	if n > t.parted && t.gaps[n-1].Reason == reason {
		t.gaps[n-1].To = l.at(wall + 20*time.Millisecond)
		return
	}
	t.gaps = append(t.gaps, conversation.Gap{From: l.at(wall), To: l.at(wall + 20*time.Millisecond), Kind: conversation.GapLost, Reason: reason})
	if t.refused != reason {
		t.refused = reason
		l.event(conversation.LegEvent{At: l.at(wall), Kind: conversation.EventAnomaly, Reason: string(t.id) + ": " + reason})
	}
}

// begin starts a run of an audio lane at due.
func (t *track) begin(ln *lane, due int64) {
	ln.run = &run{n: t.runs, codec: media.OpusCodec, init: opusInit}
	t.runs++
	ln.pos = due
}

var opusInit = media.OpusInit(1)

func (ln *lane) add(data []byte, dur uint32, key bool) *sample {
	ln.samples = append(ln.samples, sample{run: ln.run, time: ln.pos, dur: dur, off: uint32(len(ln.data)), size: uint32(len(data)), key: key, first: !ln.run.used})
	ln.run.used = true
	ln.data = append(ln.data, data...)
	ln.pos += int64(dur)
	return &ln.samples[len(ln.samples)-1]
}

// fill writes n frames of silence and says in the ledger why.
func (l *Leg) fill(t *track, ln *lane, n int64) {
	l.explain(t, ln.pos, ln.pos+n*frame, true)
	for range n {
		ln.add(media.Silence(), frame, true).quiet = true
	}
}

func (l *Leg) placeVideo(t *track, f *Frame, wall time.Duration) {
	at := units(wall, media.VideoTimescale)
	if at < 0 {
		l.refuse(t, wall, "a frame from before the leg's epoch")
		return
	}
	if len(t.lanes) == 0 {
		t.lanes = []*lane{{pos: at}}
	}
	ln := t.lanes[0]
	at = endPicture(ln, at)
	if ln.run != nil && at-ln.pos > units(time.Second, media.VideoTimescale) {
		l.explain(t, ln.pos, at, false)
	}
	if f.SPS != nil && f.PPS != nil && (ln.run == nil || !bytes.Equal(f.SPS, ln.run.sps) || !bytes.Equal(f.PPS, ln.run.pps)) {
		init, codec, w, h, err := media.AVCInit(f.SPS, f.PPS)
		if err != nil {
			l.refuse(t, wall, "parameter sets that cannot be read")
			ln.run = nil
			return
		}
		ln.run = &run{n: t.runs, codec: codec, width: w, height: h, init: init, sps: bytes.Clone(f.SPS), pps: bytes.Clone(f.PPS)}
		t.runs++
	}
	if ln.run == nil {
		l.refuse(t, wall, "no parameter sets yet")
		return
	}
	ln.pos = at
	ln.add(f.Data, 0, f.Key).open = true
}

// opened reports whether the last picture began before the given time and has no end.
func (ln *lane) opened(before int64) bool {
	n := len(ln.samples)
	return n > 0 && ln.samples[n-1].open && ln.samples[n-1].time < before
}

// endPicture gives the last picture its duration, now that the next is due at the given
// time, and returns when that can begin.
func endPicture(ln *lane, next int64) int64 {
	if n := len(ln.samples); n > 0 && ln.samples[n-1].open {
		s := &ln.samples[n-1]
		s.dur, s.open = uint32(min(max(next-s.time, 1), units(maxPicture, media.VideoTimescale))), false
		ln.pos = s.time + int64(s.dur)
	}
	return max(next, ln.pos)
}
