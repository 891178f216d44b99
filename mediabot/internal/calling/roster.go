package calling

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"steno/shared/teams"
)

// maxParticipants bounds a roster. Meetings hold a thousand who can speak.
const maxParticipants = 2000

// wireParticipant is what is read of a participant.
// https://learn.microsoft.com/graph/api/resources/participant
type wireParticipant struct {
	ID      looseText       `json:"id"`
	Info    loose[wireInfo] `json:"info"`
	Lobby   looseBool       `json:"isInLobby"`
	Muted   looseBool       `json:"isMuted"`
	Streams loose[[]struct {
		Kind        looseText `json:"mediaType"`
		Source      looseText `json:"sourceId"`
		Direction   looseText `json:"direction"`
		ServerMuted looseBool `json:"serverMuted"`
	}] `json:"mediaStreams"`
	Removed  json.RawMessage `json:"removedState"`
	Sequence looseInt        `json:"rosterSequenceNumber"`
}

var directions = map[string]string{
	"sendreceive": "sendReceive", "sendonly": "sendOnly", "receiveonly": "receiveOnly", "inactive": "inactive",
}

var mediaKinds = map[string]teams.MediaKind{
	"audio": teams.MediaAudio, "video": teams.MediaVideo, "videobasedscreensharing": teams.MediaScreen,
}

func (w wireParticipant) participant() (teams.Participant, error) {
	id, err := teams.ParseParticipantID(string(w.ID))
	if err != nil {
		return teams.Participant{}, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	party, known := w.Info.v.Identity.v.party()
	if !known {
		party = teams.Party{Kind: teams.PartyOther}
	}
	p := teams.Participant{
		ID: id, Party: party, Endpoint: clip(string(w.Info.v.Endpoint)), Country: clip(string(w.Info.v.Country)),
		Lobby: bool(w.Lobby), Muted: bool(w.Muted), Sequence: int64(w.Sequence),
	}
	for _, s := range w.Streams.v {
		stream := teams.MediaStream{Kind: teams.MediaOther, Direction: directions[strings.ToLower(string(s.Direction))], ServerMuted: bool(s.ServerMuted)}
		if kind, ok := mediaKinds[strings.ToLower(string(s.Kind))]; ok {
			stream.Kind = kind
		}
		if source, err := teams.ParseSourceID(string(s.Source)); err == nil {
			stream.Source = source
		}
		p.Streams = append(p.Streams, stream)
	}
	return p, nil
}

// rosterChange is what a notification says about the roster.
type rosterChange struct {
	people  []wireParticipant
	removed []teams.ParticipantID
	whole   bool  // people is everybody
	delta   int64 // sequence number of a delta, 0 if it is none
}

// decodeRoster reads an array, which is the whole roster; a delta, which is an object
// that says so or has a list of participants; or one participant.
// https://learn.microsoft.com/graph/api/resources/deltaparticipants
func decodeRoster(n notification) (rosterChange, error) {
	var r rosterChange
	if n.item != "" {
		if n.change == "deleted" {
			id, err := teams.ParseParticipantID(n.item)
			if err != nil {
				return r, fmt.Errorf("%w: %w", errUnreadable, err)
			}
			r.removed = append(r.removed, id)
			return r, nil
		}
		var w wireParticipant
		if err := json.Unmarshal(n.data, &w); err != nil {
			return r, fmt.Errorf("%w: participant is not an object", errUnreadable)
		}
		if w.ID == "" {
			w.ID = looseText(n.item)
		}
		r.people = append(r.people, w)
		return r, nil
	}
	raw := n.data
	if len(raw) > 0 && raw[0] == '{' {
		var delta struct {
			Sequence     looseInt        `json:"sequenceNumber"`
			Participants json.RawMessage `json:"participants"`
			Value        json.RawMessage `json:"value"`
		}
		if err := json.Unmarshal(raw, &delta); err != nil {
			return r, fmt.Errorf("%w: roster: %w", errUnreadable, err)
		}
		switch {
		case delta.Participants != nil:
			raw, r.delta = delta.Participants, max(int64(delta.Sequence), 1)
		case delta.Value != nil: // what a request for the roster is answered with
			raw, r.whole = delta.Value, true
		}
	} else {
		r.whole = true
	}
	items, err := list(raw)
	if err != nil {
		return r, err
	}
	if len(items) > maxParticipants {
		return r, fmt.Errorf("%w: roster of %d", errUnreadable, len(items))
	}
	for _, item := range items {
		var w wireParticipant
		if err := json.Unmarshal(item, &w); err != nil || w.ID == "" {
			return r, fmt.Errorf("%w: roster holds something that is no participant", errUnreadable)
		}
		if removed := string(w.Removed); removed != "" && removed != "null" {
			if id, err := teams.ParseParticipantID(string(w.ID)); err == nil {
				r.removed = append(r.removed, id)
			}
			continue
		}
		r.people = append(r.people, w)
	}
	return r, nil
}

// roster is who takes part in a call, as far as it was told.
type roster struct {
	people map[teams.ParticipantID]teams.Participant
	delta  int64 // sequence number of the last delta
}

// apply takes a change over and returns what changed in fact. gap reports that deltas
// are missing before this one, so that the whole roster should be asked for.
//
// Participants carry the sequence number of the roster in which they last changed. One
// that is older than what is known is stale and ignored. A whole roster is stale if
// somebody in it is older than known and nobody is newer: it then says nothing about who
// left, either.
func (r *roster) apply(c rosterChange) (changed []teams.Participant, left []teams.ParticipantID, gap bool, err error) {
	if c.delta > 0 {
		if c.delta <= r.delta {
			return nil, nil, false, nil
		}
		gap = r.delta > 0 && c.delta != r.delta+1
		r.delta = c.delta
	}
	if r.people == nil {
		r.people = map[teams.ParticipantID]teams.Participant{}
	}
	there := map[teams.ParticipantID]bool{}
	older, newer := 0, 0
	for _, w := range c.people {
		p, perr := w.participant()
		if perr != nil {
			err = perr
			continue
		}
		there[p.ID] = true
		was, known := r.people[p.ID]
		switch {
		case known && p.Sequence > 0 && p.Sequence < was.Sequence:
			older++
			continue
		case known && p.Sequence > was.Sequence:
			newer++
		}
		if known && same(was, p) {
			continue
		}
		changed = append(changed, p)
	}
	if c.whole && older > 0 && newer == 0 {
		return nil, nil, gap, err
	}
	for _, p := range changed {
		r.people[p.ID] = p
	}
	if c.whole && err == nil {
		for id := range r.people {
			if !there[id] {
				left = append(left, id)
			}
		}
	}
	for _, id := range c.removed {
		if _, known := r.people[id]; known && !slices.Contains(left, id) {
			left = append(left, id)
		}
	}
	for _, id := range left {
		delete(r.people, id)
	}
	slices.Sort(left)
	return changed, left, gap, err
}

// same compares everything but the sequence number, which alone is no news.
func same(a, b teams.Participant) bool {
	return a.ID == b.ID && a.Party == b.Party && a.Endpoint == b.Endpoint && a.Country == b.Country &&
		a.Lobby == b.Lobby && a.Muted == b.Muted && slices.Equal(a.Streams, b.Streams)
}

// present lists everybody, by id.
func (r *roster) present() []teams.Participant {
	if r.people == nil {
		return nil
	}
	out := make([]teams.Participant, 0, len(r.people))
	for _, id := range slices.Sorted(maps.Keys(r.people)) {
		out = append(out, r.people[id])
	}
	return out
}

// heard reports whether anybody but bots is in the roster: while a call is being
// established it can hold the recorder alone.
func (r *roster) heard() bool {
	for _, p := range r.people {
		if p.Kind != teams.PartyApplication && p.Kind != teams.PartyInstance {
			return true
		}
	}
	return false
}
