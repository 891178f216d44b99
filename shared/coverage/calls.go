package coverage

import (
	"cmp"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
)

// CallRecord is what Graph says of a call that has ended, as far as recorded users took part.
// https://learn.microsoft.com/graph/api/resources/callrecords-callrecord
type CallRecord struct {
	ID string `json:"id"`
	// Version grows when Graph learns more of the same call.
	Version int64          `json:"version"`
	Start   time.Time      `json:"start"`
	End     time.Time      `json:"end"`
	Thread  teams.ThreadID `json:"thread,omitempty"` // of meetings, from the join address
	Stays   []Stay         `json:"stays,omitempty"`
	SeenAt  time.Time      `json:"seenAt"`
}

// Stay is a stretch in which a recorded user was in a call.
type Stay struct {
	Person teams.PersonID `json:"person"`
	From   time.Time      `json:"from"`
	To     time.Time      `json:"to"`
	// With is the other person of a call of two, if that is one of the directory.
	With teams.PersonID `json:"with,omitempty"`
	// Failed says that Graph calls the session failed: nobody was connected.
	Failed bool `json:"failed,omitempty"`
	Verdict
}

// Verdict is what became of a stay.
type Verdict struct {
	State State `json:"state"`
	Code  Code  `json:"code,omitempty"` // why it is not captured
	// Missing is how much of the stay no recording covers.
	Missing      time.Duration      `json:"missing,omitempty"`
	Conversation conversation.ID    `json:"conversation,omitempty"` // the recording, if there is one
	Leg          conversation.LegID `json:"leg,omitempty"`
	// Gap is when a capture gap was first found, and Healed when a late recording closed it.
	Gap    time.Time `json:"gap,omitzero"`
	Healed time.Time `json:"healed,omitzero"`
}

// State is one side of the equation.
type State string

// The states.
const (
	Captured State = "captured"
	Excluded State = "excluded"
	Failed   State = "failed"
	Unknown  State = "unknown"
)

// Recording is a leg of a call, with the call it belongs to.
type Recording struct {
	Conversation conversation.ID
	Thread       teams.ThreadID
	Parties      []string // ids of those who took part, as far as they are known
	Leg          conversation.Leg
}

// Tolerance says what a judge of calls lets pass.
type Tolerance struct {
	// Media is how much of a stay may lack media: answering, and Graph's acknowledgment that
	// recording is announced, take seconds in which nothing may be kept.
	Media time.Duration
	// Clock is how far Graph's clock and the recorder's may differ.
	Clock time.Duration
	// Grace is how long after its end a call is not judged: its legs may not be sealed yet.
	Grace time.Duration
}

// DefaultTolerance is for recorders whose clocks are kept.
var DefaultTolerance = Tolerance{Media: 15 * time.Second, Clock: 30 * time.Second, Grace: time.Hour}

// Judge says what became of a stay in the call of that thread (empty if there is none), given
// the person's recordings around that time. It keeps what the verdict before said of gaps.
func (t Tolerance) Judge(s Stay, thread teams.ThreadID, recordings []Recording, now time.Time) Verdict {
	v := t.judge(s, thread, recordings, now)
	v.Gap, v.Healed = s.Gap, s.Healed
	switch {
	case v.State == Failed:
		if v.Healed = (time.Time{}); v.Gap.IsZero() {
			v.Gap = now
		}
	case !v.Gap.IsZero() && v.Healed.IsZero():
		v.Healed = now
	}
	return v
}

func (t Tolerance) judge(s Stay, thread teams.ThreadID, recordings []Recording, now time.Time) Verdict {
	if s.Failed || !s.From.Before(s.To) {
		return Verdict{State: Excluded, Code: NotEstablished}
	}
	mine := t.matching(s, thread, recordings)
	if len(mine) == 0 {
		if now.Sub(s.To) < t.Grace {
			return Verdict{State: Unknown, Code: Pending}
		}
		return Verdict{State: Failed, Code: NoRecording, Missing: s.To.Sub(s.From)}
	}
	best := slices.MaxFunc(mine, func(a, b Recording) int {
		return cmp.Compare(t.overlap(s, a.Leg), t.overlap(s, b.Leg))
	})
	v := Verdict{Conversation: best.Conversation, Leg: best.Leg.Leg}
	if slices.ContainsFunc(mine, func(r Recording) bool { return r.Leg.State == conversation.LegRunning }) {
		v.State, v.Code = Unknown, Running
		return v
	}
	v.Missing = uncovered(s, mine)
	switch {
	case v.Missing <= t.Media:
		v.State, v.Missing = Captured, 0
		if best.Leg.Lost > t.Media {
			v.State, v.Code, v.Missing = Failed, MediaGaps, best.Leg.Lost
		}
	case allOf(mine, conversation.OutcomeExcluded):
		v.State, v.Code, v.Missing = Excluded, exclusion(best.Leg.Reason), 0
	case !anyOf(mine, conversation.OutcomeRecorded) && anyOf(mine, conversation.OutcomeLost):
		v.State, v.Code = Failed, RecordingLost
	case !anyOf(mine, conversation.OutcomeRecorded):
		v.State, v.Code = Failed, RecordingEmpty
	default:
		v.State, v.Code = Failed, MediaShort
	}
	return v
}

// matching returns the recordings that can be of the stay: of that person, at that time.
// Recurring meetings share a thread, so time decides; a thread, or another party, that is known
// on both sides and differs makes another call. A call of two is no meeting.
func (t Tolerance) matching(s Stay, thread teams.ThreadID, recordings []Recording) []Recording {
	var out []Recording
	for _, r := range recordings {
		switch {
		case r.Leg.Recorded != s.Person, r.Leg.CopyOf != "":
			continue
		case thread != "" && r.Thread != "" && thread != r.Thread:
			continue
		case s.With != "" && (r.Thread.Kind() == teams.ThreadMeeting || len(r.Parties) > 0 && !slices.Contains(r.Parties, string(s.With))):
			continue
		}
		from, to := r.Leg.Started, r.Leg.To
		if to.IsZero() || to.Before(from) {
			to = from
		}
		if from.Before(s.To.Add(t.Clock)) && to.After(s.From.Add(-t.Clock)) {
			out = append(out, r)
		}
	}
	return out
}

// overlap is how much of the stay a leg's media covers.
func (t Tolerance) overlap(s Stay, l conversation.Leg) time.Duration {
	from, to := l.From, l.To
	if from.Before(s.From) {
		from = s.From
	}
	if to.After(s.To) {
		to = s.To
	}
	return max(0, to.Sub(from))
}

// uncovered is how much of the stay no media covers.
func uncovered(s Stay, mine []Recording) time.Duration {
	slices.SortFunc(mine, func(a, b Recording) int { return a.Leg.From.Compare(b.Leg.From) })
	var missing time.Duration
	reached := s.From
	for _, r := range mine {
		if r.Leg.From.IsZero() {
			continue
		}
		if r.Leg.From.After(s.To) {
			break
		}
		if gap := r.Leg.From.Sub(reached); gap > 0 {
			missing += gap
		}
		if r.Leg.To.After(reached) {
			reached = r.Leg.To
		}
	}
	if left := s.To.Sub(reached); left > 0 {
		missing += left
	}
	return missing
}

func allOf(list []Recording, o conversation.Outcome) bool {
	return !slices.ContainsFunc(list, func(r Recording) bool { return r.Leg.Outcome != o })
}

func anyOf(list []Recording, o conversation.Outcome) bool {
	return slices.ContainsFunc(list, func(r Recording) bool { return r.Leg.Outcome == o })
}

// exclusion reads the reason that a leg gives for having recorded nothing.
func exclusion(reason string) Code {
	switch reason {
	case "never":
		return RuleNever
	case "no-external-party":
		return RuleOnExternal
	}
	return RuleOther
}
