package finalize

import (
	"cmp"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
)

// settle works out what the legs say of the call together, and which of several legs of
// one person is the surplus copy. It returns the other legs that changed by it.
func settle(conv *conversation.Conversation, leg *conversation.Leg, others []conversation.Leg) []conversation.Leg {
	all := append([]conversation.Leg{*leg}, others...)
	slices.SortFunc(all, func(a, b conversation.Leg) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.Leg, b.Leg))
	})
	facts := conv.Call
	facts.Legs, facts.Running, facts.Lost, facts.Outcome = len(all), false, 0, ""
	best := map[teams.PersonID]conversation.Leg{}
	for _, l := range all {
		facts.Running = facts.Running || l.State == conversation.LegRunning
		if l.Started.Before(conv.First) {
			conv.First = l.Started
		}
		if l.To.After(conv.Last) {
			conv.Last = l.To.UTC().Truncate(time.Millisecond)
		}
		if l.Recorded == "" {
			continue
		}
		if !slices.Contains(conv.Custodians, l.Recorded) {
			conv.Custodians = append(conv.Custodians, l.Recorded)
		}
		if b, ok := best[l.Recorded]; !ok || better(l, b) {
			best[l.Recorded] = l
		}
	}
	var changed []conversation.Leg
	for _, l := range all {
		copyOf := conversation.LegID("")
		// Two legs of one person are copies only if they overlap: one who left the call and
		// came back has two legs in their own right.
		if b, ok := best[l.Recorded]; ok && b.Leg != l.Leg && overlap(b, l) {
			copyOf = b.Leg
		}
		if l.Leg == leg.Leg {
			leg.CopyOf = copyOf
		} else if l.CopyOf != copyOf {
			l.CopyOf = copyOf
			changed = append(changed, l)
		}
		if copyOf == "" {
			facts.Lost += l.Lost
			facts.Outcome = worse(facts.Outcome, l.Outcome)
		}
	}
	if facts.Running {
		facts.Outcome = ""
	}
	return changed
}

// better says which of two legs of one person is the one to play.
func better(a, b conversation.Leg) bool {
	rank := func(l conversation.Leg) int {
		switch {
		case l.Outcome == conversation.OutcomeRecorded:
			return 3
		case l.State == conversation.LegRunning:
			return 2
		case l.Outcome == conversation.OutcomeLost && !l.To.IsZero():
			return 1
		}
		return 0
	}
	if ra, rb := rank(a), rank(b); ra != rb {
		return ra > rb
	}
	return a.Outcome == conversation.OutcomeRecorded && a.Lost < b.Lost
}

func overlap(a, b conversation.Leg) bool {
	end := func(l conversation.Leg) time.Time {
		if l.To.IsZero() {
			return l.Started.Add(30 * time.Second) // never recorded: a moment after the invite
		}
		return l.To
	}
	return a.Started.Before(end(b)) && b.Started.Before(end(a))
}

// worse is the outcome of a call whose legs came out so: a loss shows, whatever else
// there is.
func worse(a, b conversation.Outcome) conversation.Outcome {
	order := []conversation.Outcome{"", conversation.OutcomeEmpty, conversation.OutcomeExcluded, conversation.OutcomeRecorded, conversation.OutcomeLost}
	if slices.Index(order, b) > slices.Index(order, a) {
		return b
	}
	return a
}

// direction tells where a call came from and went to.
func direction(home teams.TenantID, m conversation.Manifest) conversation.Direction {
	in := m.Invite != nil && m.Invite.Caller != nil && !*m.Invite.Caller
	pick := func(whenIn, whenOut conversation.Direction) conversation.Direction {
		if in {
			return whenIn
		}
		return whenOut
	}
	var phone, foreign, outside bool
	for _, p := range m.Parties {
		switch p.Kind {
		case teams.PartyPhone:
			phone = true
		case teams.PartyUser:
			foreign = foreign || p.Tenant != "" && p.Tenant != home
		case teams.PartyApplication, teams.PartyInstance, teams.PartyOnPremises, teams.PartyDevice:
		default:
			outside = true
		}
	}
	switch {
	case m.Invite != nil && m.Invite.Meeting:
		return conversation.Conference
	case phone:
		return pick(conversation.PSTNIn, conversation.PSTNOut)
	case foreign:
		return pick(conversation.FederatedIn, conversation.FederatedOut)
	case outside:
		return conversation.External
	}
	return conversation.Internal
}

// invited are the parties that an invite names.
func invited(in teams.Invite) []conversation.PartyEntry {
	out := []conversation.PartyEntry{{Party: in.Recorded.Party, Present: []conversation.Interval{{From: in.At}}}}
	if in.Other != nil {
		out = append(out, conversation.PartyEntry{Party: *in.Other, Present: []conversation.Interval{{From: in.At}}})
	}
	return out
}

// participants lists those who were in the call, without recorders and without those
// who never came further than the lobby.
func participants(m conversation.Manifest) (out []conversation.Participant, numbers []string) {
	for _, p := range m.Parties {
		if p.Kind == teams.PartyInstance || p.Kind == teams.PartyApplication && m.Invite != nil && p.ID == m.Invite.Recorder {
			continue
		}
		if p.Kind == teams.PartyPhone && p.ID != "" {
			numbers = append(numbers, p.ID)
		}
		if len(p.Present) > 0 {
			out = append(out, conversation.Participant{ID: p.ID, Name: p.Name, Kind: string(p.Kind)})
		}
	}
	return out, numbers
}

// mergeParticipants adds those who are not there yet, and names those without.
func mergeParticipants(have, more []conversation.Participant) []conversation.Participant {
	for _, p := range more {
		i := slices.IndexFunc(have, func(h conversation.Participant) bool { return h.ID == p.ID && h.Kind == p.Kind })
		if i < 0 {
			have = append(have, p)
		} else if have[i].Name == "" {
			have[i].Name = p.Name
		}
	}
	return have
}

func modality(m conversation.Manifest) conversation.Modality {
	out := conversation.Voice
	for _, t := range m.Tracks {
		if len(t.Segments) == 0 {
			continue
		}
		switch {
		case t.Kind == conversation.VideoTrack:
			return conversation.Video
		case t.Kind == conversation.ScreenTrack:
			out = conversation.Screen
		}
	}
	return out
}
