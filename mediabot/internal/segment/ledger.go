package segment

import (
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
)

// why is what the ledger says of a moment without media.
type why struct {
	kind   conversation.GapKind
	reason string
	actor  teams.PersonID
}

// explain enters [from, to) of a track, in units of its timescale, into the ledger: one
// entry for each stretch with one reason. Filled says that silence stands for it.
func (l *Leg) explain(t *track, from, to int64, filled bool) {
	scale := timescale(t.kind)
	step := scale / 50
	for at := from; at < to; {
		w := l.why(t, duration(at+step/2, scale))
		end := at + step
		for end < to && l.why(t, duration(end+step/2, scale)) == w {
			end += step
		}
		end = min(end, to)
		g := conversation.Gap{From: l.at(duration(at, scale)), To: l.at(duration(end, scale)), Kind: w.kind, Reason: w.reason, Actor: w.actor}
		if filled {
			g.Frames = int((end - at) / step)
		}
		t.enter(g)
		at = end
	}
}

// reconsider enters silence anew that was explained before s was known. Entries that
// stand in a part are corrected for the bundle that replaces it.
func (l *Leg) reconsider(t *track, s stretch) {
	scale := timescale(t.kind)
	for i := 0; i < len(t.gaps); i++ {
		g := t.gaps[i]
		from, to := g.From.Sub(l.epoch), g.To.Sub(l.epoch)
		if g.Kind == conversation.GapLost || from >= s.to || to <= s.from {
			continue
		}
		kept := t.gaps
		t.gaps = slices.Clone(t.gaps[:i])
		parted := t.parted
		t.parted = i // nothing before is touched
		l.explain(t, units(from, scale), units(to, scale), g.Frames > 0)
		n := len(t.gaps) - i
		t.gaps = append(t.gaps, kept[i+1:]...)
		t.parted = parted
		if i < parted {
			t.parted += n - 1
		}
		i += n - 1
	}
}

// enter adds a gap, to the last one if it goes on and does not stand in a part.
func (t *track) enter(g conversation.Gap) {
	if n := len(t.gaps); n > t.parted {
		last := &t.gaps[n-1]
		if last.To.Equal(g.From) && last.Kind == g.Kind && last.Reason == g.Reason && last.Actor == g.Actor && (last.Frames > 0) == (g.Frames > 0) {
			last.To, last.Frames = g.To, last.Frames+g.Frames
			return
		}
	}
	t.gaps = append(t.gaps, g)
}

// why says why a track has nothing at a moment: a closed gate before all else, then what
// the receiver knows, then the roster.
func (l *Leg) why(t *track, at time.Duration) why {
	for i := len(l.pauses) - 1; i >= 0; i-- {
		if p := &l.pauses[i]; at >= p.from && (p.open || at < p.to) {
			return why{p.kind, p.reason, p.actor}
		}
	}
	for i := len(t.known) - 1; i >= 0; i-- {
		if s := &t.known[i]; at >= s.from && at < s.to {
			return why{kind: s.kind, reason: s.reason}
		}
	}
	if t.kind == conversation.AudioTrack && !t.nobody() {
		return why{kind: l.roster.silence(t.source, at)}
	}
	return why{kind: conversation.GapInactive}
}

// forget drops what can explain nothing any more: everything from before the given time.
func (l *Leg) forget(before time.Duration) {
	for _, t := range l.order {
		t.known = slices.DeleteFunc(t.known, func(s stretch) bool { return s.to < before })
	}
	l.pauses = slices.DeleteFunc(l.pauses, func(p pause) bool { return !p.open && p.to < before })
	l.roster.forget(before)
}

// roster is what is known of participants: whose a source is, and why it may be silent.
type roster struct {
	people   map[teams.ParticipantID][]sourceKey
	owners   map[sourceKey]teams.ParticipantID
	silences map[teams.SourceID][]silence
}

type sourceKey struct {
	kind   conversation.TrackKind
	source teams.SourceID
}

// silence is the state of a source's audio from a time on.
type silence struct {
	from time.Duration
	kind conversation.GapKind
}

func (r *roster) init() {
	r.people = map[teams.ParticipantID][]sourceKey{}
	r.owners = map[sourceKey]teams.ParticipantID{}
	r.silences = map[teams.SourceID][]silence{}
}

var trackKinds = map[teams.MediaKind]conversation.TrackKind{
	teams.MediaAudio: conversation.AudioTrack, teams.MediaVideo: conversation.VideoTrack, teams.MediaScreen: conversation.ScreenTrack,
}

func (r *roster) update(e conversation.LegEvent, at time.Duration) {
	for _, p := range e.Roster {
		was := r.people[p.ID]
		var now []sourceKey
		for _, s := range p.Streams {
			kind, known := trackKinds[s.Kind]
			if !known || s.Source == teams.SourceUnknown || s.Source == teams.SourceNone {
				continue
			}
			k := sourceKey{kind, s.Source}
			now = append(now, k)
			r.owners[k] = p.ID
			if kind == conversation.AudioTrack {
				r.set(s.Source, at, state(p, s))
			}
		}
		r.people[p.ID] = now
		for _, k := range was {
			if !slices.Contains(now, k) {
				r.gone(p.ID, k, at)
			}
		}
	}
	for _, id := range e.Left {
		for _, k := range r.people[id] {
			r.gone(id, k, at)
		}
		delete(r.people, id)
	}
}

func state(p teams.Participant, s teams.MediaStream) conversation.GapKind {
	switch {
	case p.Lobby:
		return conversation.GapAbsent
	case s.Direction == "inactive":
		return conversation.GapHeld
	case p.Muted || s.ServerMuted:
		return conversation.GapMuted
	}
	return conversation.GapInactive
}

// gone notes that a participant has a source no more. Its owner stays known: what was
// said before is sealed later.
func (r *roster) gone(id teams.ParticipantID, k sourceKey, at time.Duration) {
	if r.owners[k] == id && k.kind == conversation.AudioTrack {
		r.set(k.source, at, conversation.GapAbsent)
	}
}

func (r *roster) set(source teams.SourceID, at time.Duration, kind conversation.GapKind) {
	list := r.silences[source]
	if n := len(list); n > 0 && list[n-1].kind == kind {
		return
	}
	r.silences[source] = append(list, silence{at, kind})
}

func (r *roster) silence(source teams.SourceID, at time.Duration) conversation.GapKind {
	list := r.silences[source]
	for i := len(list) - 1; i >= 0; i-- {
		if at >= list[i].from {
			return list[i].kind
		}
	}
	return conversation.GapInactive
}

// forget keeps of each source the state that held at the given time, and later ones.
func (r *roster) forget(before time.Duration) {
	for source, list := range r.silences {
		n := 0
		for n+1 < len(list) && list[n+1].from <= before {
			n++
		}
		if n > 0 {
			r.silences[source] = slices.Delete(list, 0, n)
		}
	}
}

// gapsBefore counts the gaps of a track, from the i-th on, that begin before end.
func (t *track) gapsBefore(i int, end time.Time) int {
	for i < len(t.gaps) && t.gaps[i].From.Before(end) {
		i++
	}
	return i
}
