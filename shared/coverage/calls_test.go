package coverage_test

import (
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/coverage"
	"steno/shared/teams"
)

const (
	rita    = teams.PersonID("a0000000-0000-4000-8000-00000000000a")
	sven    = teams.PersonID("a0000000-0000-4000-8000-00000000000b")
	meeting = teams.ThreadID("19:meeting_abc@thread.v2")
	another = teams.ThreadID("19:meeting_def@thread.v2")
)

var nine = time.Date(2026, 3, 9, 9, 0, 0, 0, time.UTC)

func at(minutes float64) time.Time { return nine.Add(time.Duration(minutes * float64(time.Minute))) }

// stay is Rita's from nine o'clock on.
func stay(minutes float64) coverage.Stay {
	return coverage.Stay{Person: rita, From: nine, To: at(minutes)}
}

// leg is a sealed recording of hers, with media between two minutes.
func leg(name string, from, to float64) conversation.Leg {
	return conversation.Leg{
		Leg: conversation.LegID(name), Recorded: rita, State: conversation.LegSealed, Outcome: conversation.OutcomeRecorded,
		Started: at(from), From: at(from), To: at(to),
	}
}

func TestAStayIsCapturedIfMediaCoversItAndOtherwiseTheReasonIsNamed(t *testing.T) {
	with := func(change func(*conversation.Leg), l conversation.Leg) conversation.Leg { change(&l); return l }
	outcome := func(o conversation.Outcome, reason string, l conversation.Leg) conversation.Leg {
		return with(func(l *conversation.Leg) { l.Outcome, l.Reason = o, reason }, l)
	}
	of := func(thread teams.ThreadID, legs ...conversation.Leg) (out []coverage.Recording) {
		for _, l := range legs {
			out = append(out, coverage.Recording{Conversation: "call", Thread: thread, Leg: l})
		}
		return out
	}
	none := conversation.Leg{Leg: "none", Recorded: rita, State: conversation.LegSealed, Started: nine}
	for name, c := range map[string]struct {
		stay       coverage.Stay
		thread     teams.ThreadID
		recordings []coverage.Recording
		age        time.Duration // since the end of the stay
		state      coverage.State
		code       coverage.Code
		missing    time.Duration
	}{
		"recorded whole":                       {stay(30), meeting, of(meeting, leg("a", 0.1, 30)), 0, coverage.Captured, "", 0},
		"recorded by two recorders in turn":    {stay(30), meeting, of(meeting, leg("a", 0, 12), leg("b", 12.1, 30)), 0, coverage.Captured, "", 0},
		"recorded by two at once":              {stay(30), meeting, of(meeting, leg("a", 0, 20), leg("b", 10, 30)), 0, coverage.Captured, "", 0},
		"nothing, and young":                   {stay(30), meeting, nil, 59 * time.Minute, coverage.Unknown, coverage.Pending, 0},
		"nothing":                              {stay(30), meeting, nil, time.Hour, coverage.Failed, coverage.NoRecording, 30 * time.Minute},
		"the other half is missing":            {stay(30), meeting, of(meeting, leg("a", 0, 15)), time.Hour, coverage.Failed, coverage.MediaShort, 15 * time.Minute},
		"the beginning is missing":             {stay(30), meeting, of(meeting, leg("a", 4, 30)), time.Hour, coverage.Failed, coverage.MediaShort, 4 * time.Minute},
		"the middle is missing":                {stay(30), meeting, of(meeting, leg("a", 0, 10), leg("b", 12, 30)), time.Hour, coverage.Failed, coverage.MediaShort, 2 * time.Minute},
		"frames were lost":                     {stay(30), meeting, of(meeting, with(func(l *conversation.Leg) { l.Lost = time.Minute }, leg("a", 0, 30))), time.Hour, coverage.Failed, coverage.MediaGaps, time.Minute},
		"still running":                        {stay(30), meeting, of(meeting, with(func(l *conversation.Leg) { l.State = conversation.LegRunning }, leg("a", 0, 10))), time.Hour, coverage.Unknown, coverage.Running, 0},
		"lost":                                 {stay(30), meeting, of(meeting, outcome(conversation.OutcomeLost, "media", leg("a", 0, 1))), time.Hour, coverage.Failed, coverage.RecordingLost, 29 * time.Minute},
		"empty, though Teams saw her":          {stay(30), meeting, of(meeting, outcome(conversation.OutcomeEmpty, "", none)), time.Hour, coverage.Failed, coverage.RecordingEmpty, 30 * time.Minute},
		"never, by rule":                       {stay(30), meeting, of(meeting, outcome(conversation.OutcomeExcluded, "never", none)), time.Hour, coverage.Excluded, coverage.RuleNever, 0},
		"no outsider, by rule":                 {stay(30), meeting, of(meeting, outcome(conversation.OutcomeExcluded, "no-external-party", none)), time.Hour, coverage.Excluded, coverage.RuleOnExternal, 0},
		"nobody took the call":                 {coverage.Stay{Person: rita, From: nine, To: at(1), Failed: true}, "", nil, time.Hour, coverage.Excluded, coverage.NotEstablished, 0},
		"of no length":                         {stay(0), "", nil, time.Hour, coverage.Excluded, coverage.NotEstablished, 0},
		"a recording of another meeting":       {stay(30), meeting, of(another, leg("a", 0, 30)), time.Hour, coverage.Failed, coverage.NoRecording, 30 * time.Minute},
		"a recording of somebody else":         {stay(30), meeting, of(meeting, with(func(l *conversation.Leg) { l.Recorded = sven }, leg("a", 0, 30))), time.Hour, coverage.Failed, coverage.NoRecording, 30 * time.Minute},
		"the surplus copy alone":               {stay(30), meeting, of(meeting, with(func(l *conversation.Leg) { l.CopyOf = "b" }, leg("a", 0, 30))), time.Hour, coverage.Failed, coverage.NoRecording, 30 * time.Minute},
		"yesterday's of a recurring meeting":   {stay(30), meeting, of(meeting, leg("a", -1440, -1410)), time.Hour, coverage.Failed, coverage.NoRecording, 30 * time.Minute},
		"the occurrence before, the same day":  {stay(30), meeting, of(meeting, leg("a", -60, -30)), time.Hour, coverage.Failed, coverage.NoRecording, 30 * time.Minute},
		"a thread that only one side knows":    {stay(30), "", of(meeting, leg("a", 0, 30)), 0, coverage.Captured, "", 0},
		"a call of two beside a meeting":       {coverage.Stay{Person: rita, From: nine, To: at(30), With: sven}, "", of(meeting, leg("a", 0, 30)), time.Hour, coverage.Failed, coverage.NoRecording, 30 * time.Minute},
		"clocks that differ by half a minute":  {stay(0.3), "", of("", leg("a", 0.4, 0.7)), time.Hour, coverage.Failed, coverage.MediaShort, 18 * time.Second},
		"seconds until recording is announced": {stay(30), meeting, of(meeting, leg("a", 0.2, 29.99)), 0, coverage.Captured, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			v := coverage.DefaultTolerance.Judge(c.stay, c.thread, c.recordings, c.stay.To.Add(c.age))
			if v.State != c.state || v.Code != c.code || v.Missing != c.missing {
				t.Errorf("%s %s, %s missing; want %s %s, %s", v.State, v.Code, v.Missing, c.state, c.code, c.missing)
			}
			if (v.State == coverage.Failed) != !v.Gap.IsZero() || !v.Healed.IsZero() {
				t.Errorf("gap found %s, healed %s", v.Gap, v.Healed)
			}
		})
	}
}

func TestACallOfTwoIsMatchedByTheOtherPerson(t *testing.T) {
	s := coverage.Stay{Person: rita, From: nine, To: at(10), With: sven}
	r := coverage.Recording{Conversation: "x", Parties: []string{string(rita), "+4930"}, Leg: leg("phone", 0, 10)}
	if v := coverage.DefaultTolerance.Judge(s, "", []coverage.Recording{r}, at(200)); v.Code != coverage.NoRecording {
		t.Errorf("a recording of a call with a telephone is taken for one with Sven: %+v", v)
	}
	r.Parties = append(r.Parties, string(sven))
	if v := coverage.DefaultTolerance.Judge(s, "", []coverage.Recording{r}, at(200)); v.State != coverage.Captured || v.Leg != "phone" || v.Conversation != "x" {
		t.Errorf("the recording is not found: %+v", v)
	}
}

func TestALateRecordingHealsAGapAndALossOpensItAgain(t *testing.T) {
	s := stay(30)
	judge := func(minute float64, recordings ...coverage.Recording) {
		s.Verdict = coverage.DefaultTolerance.Judge(s, meeting, recordings, at(minute))
	}
	whole := coverage.Recording{Thread: meeting, Leg: leg("a", 0, 30)}
	judge(100)
	if s.State != coverage.Failed || !s.Gap.Equal(at(100)) {
		t.Fatalf("no gap: %+v", s.Verdict)
	}
	judge(110)
	if !s.Gap.Equal(at(100)) {
		t.Errorf("the gap was found at %s, not when it was seen again", s.Gap)
	}
	judge(120, whole)
	if s.State != coverage.Captured || !s.Gap.Equal(at(100)) || !s.Healed.Equal(at(120)) {
		t.Errorf("not healed: %+v", s.Verdict)
	}
	judge(130, whole)
	if !s.Healed.Equal(at(120)) {
		t.Errorf("healed again at %s", s.Healed)
	}
	judge(140)
	if s.State != coverage.Failed || !s.Gap.Equal(at(100)) || !s.Healed.IsZero() {
		t.Errorf("a recording that went away: %+v", s.Verdict)
	}
}
