package coverage

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"steno/shared/teams"
)

// Format is the format of a Statement.
const Format = "steno-coverage/1"

// Modality is what kind of communication a line is about.
type Modality string

// The modalities of lines.
const (
	Chats    Modality = "chat"
	Channels Modality = "channel"
	Files    Modality = "file"
	Calls    Modality = "call"
)

// Unit is what a line counts.
type Unit string

// The units.
const (
	Seconds  Unit = "seconds"  // of time in which the custodian was recorded
	Versions Unit = "versions" // message versions known to exist
	Items    Unit = "items"    // files that messages point at
	Stays    Unit = "stays"    // stretches in which the custodian was in a call
)

// Code is why something was excluded, failed or is unknown. Codes are for programs and
// people alike; they never change their meaning.
type Code string

// The codes of exclusion: a rule says so.
const (
	RuleNever      Code = "rule-never"      // the recording rule of the desk, or a group of people who are never recorded
	RuleOnExternal Code = "rule-external"   // the rule records calls with outsiders only
	RuleOther      Code = "rule"            // another recording rule kept all of it from being recorded
	NotRecorded    Code = "not-recorded"    // the person was in no recorded group at that time
	NotEstablished Code = "not-established" // a call that nobody took, or that failed before anybody spoke
	ForeignLink    Code = "foreign-link"    // a link to a place outside Microsoft's, which is never fetched
	NoFile         Code = "no-file"         // a link to a folder or a notebook, which has no bytes of its own
)

// The codes of failure.
const (
	NoRecording    Code = "no-recording"    // Teams knows of the call and no recorder left anything of it
	RecordingLost  Code = "recording-lost"  // the recorder says that the recording was lost
	RecordingEmpty Code = "recording-empty" // the recorder found no conversation where Teams says there was one
	MediaShort     Code = "media-short"     // less was recorded than the call lasted
	MediaGaps      Code = "media-gaps"      // frames were lost on the way for longer than is tolerated
	MailboxMissing Code = "mailbox-missing" // Graph has no mailbox of this person
	Refused        Code = "refused"         // Graph refuses: a right or a license is missing
	Unreadable     Code = "unreadable"      // a window was given up after its last attempt
	FileGone       Code = "file-gone"       // the file was deleted before it was fetched
	FileForbidden  Code = "file-forbidden"  // protected, or in a tenant whose files are out of reach
	FileTooLarge   Code = "file-too-large"
	FileUnreadable Code = "file-unreadable"
)

// The codes of what is unknown.
const (
	NotReadYet  Code = "not-read-yet" // no finished window covers it
	Pending     Code = "pending"      // too young to be judged
	Running     Code = "running"      // still being recorded
	NoRecord    Code = "no-record"    // recorded, and Graph has no call record of it
	Unconfirmed Code = "unconfirmed"  // a notification brought it and no export has returned it since
)

// Reason is how much of a count is due to one code.
type Reason struct {
	Code  Code  `json:"code"`
	Count int64 `json:"count"`
}

// Count is the equation: Expected is the sum of the others.
type Count struct {
	Expected int64    `json:"expected"`
	Captured int64    `json:"captured"`
	Excluded int64    `json:"excluded"`
	Failed   int64    `json:"failed"`
	Unknown  int64    `json:"unknown"`
	Reasons  []Reason `json:"reasons,omitempty"` // of what is not captured, by code
}

// Capture adds what is in evidence.
func (c *Count) Capture(n int64) { c.Expected, c.Captured = c.Expected+n, c.Captured+n }

// Exclude adds what a rule kept out.
func (c *Count) Exclude(code Code, n int64) {
	c.Expected, c.Excluded = c.Expected+n, c.Excluded+n
	c.reason(code, n)
}

// Fail adds what is missing.
func (c *Count) Fail(code Code, n int64) {
	c.Expected, c.Failed = c.Expected+n, c.Failed+n
	c.reason(code, n)
}

// Doubt adds what nobody can tell.
func (c *Count) Doubt(code Code, n int64) {
	c.Expected, c.Unknown = c.Expected+n, c.Unknown+n
	c.reason(code, n)
}

func (c *Count) reason(code Code, n int64) {
	if n == 0 {
		return
	}
	i, known := slices.BinarySearchFunc(c.Reasons, code, func(r Reason, code Code) int { return cmp.Compare(r.Code, code) })
	if !known {
		c.Reasons = slices.Insert(c.Reasons, i, Reason{Code: code})
	}
	c.Reasons[i].Count += n
}

// Add adds another count.
func (c *Count) Add(o Count) {
	c.Expected, c.Captured, c.Excluded = c.Expected+o.Expected, c.Captured+o.Captured, c.Excluded+o.Excluded
	c.Failed, c.Unknown = c.Failed+o.Failed, c.Unknown+o.Unknown
	for _, r := range o.Reasons {
		c.reason(r.Code, r.Count)
	}
}

// Whole reports whether nothing is missing and nothing is open.
func (c Count) Whole() bool { return c.Failed == 0 && c.Unknown == 0 }

func (c Count) check() error {
	var reasons int64
	for _, r := range c.Reasons {
		reasons += r.Count
	}
	for _, n := range []int64{c.Expected, c.Captured, c.Excluded, c.Failed, c.Unknown} {
		if n < 0 {
			return errors.New("a count is negative")
		}
	}
	if c.Expected != c.Captured+c.Excluded+c.Failed+c.Unknown || reasons != c.Excluded+c.Failed+c.Unknown {
		return errors.New("a count does not add up")
	}
	return nil
}

// Line is what became of one custodian's communication of one modality.
type Line struct {
	Custodian teams.PersonID `json:"custodian"` // a person's object id, or a team's
	Team      bool           `json:"team,omitempty"`
	Desks     []string       `json:"desks"` // on which the custodian was recorded on that day
	Modality  Modality       `json:"modality"`
	Unit      Unit           `json:"unit"`
	Count
}

// Total is the sum of all lines of a modality and unit.
type Total struct {
	Modality Modality `json:"modality"`
	Unit     Unit     `json:"unit"`
	Count
}

// SecondPass is how later readings of the day compare with the first.
type SecondPass struct {
	// Seconds is how much of what was read was read again.
	Seconds int64 `json:"seconds"`
	// Late counts message versions that only a later reading found, though an earlier one
	// had finished. Anything but zero is an alarm.
	Late int64 `json:"late"`
}

// CanaryState is whether a message that is written each day for this purpose was found.
type CanaryState string

// The states of the canary.
const (
	CanaryOff     CanaryState = "off" // none is configured
	CanaryAlive   CanaryState = "alive"
	CanaryMissing CanaryState = "missing"
)

// Statement is the coverage statement of one day.
type Statement struct {
	Format string         `json:"format"` // Format
	Tenant teams.TenantID `json:"tenant"`
	Day    string         `json:"day"` // YYYY-MM-DD, UTC
	// From and To are what the statement is about: the day, or as much of it as had passed.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Revision counts the statements of the day from 1: later ones know more.
	Revision int        `json:"revision"`
	MadeAt   time.Time  `json:"madeAt"`
	Maker    string     `json:"maker"` // the build
	Totals   []Total    `json:"totals"`
	Second   SecondPass `json:"secondPass"`
	// Canary is whether the message that is written each day was captured.
	Canary CanaryState `json:"canary"`
	// BlindSpots is what no statement can speak of.
	BlindSpots []BlindSpot `json:"blindSpots"`
	Lines      []Line      `json:"lines"`
}

// Sum fills in the totals, in the order of modality and unit, and puts the lines in order.
func (s *Statement) Sum() {
	slices.SortFunc(s.Lines, func(a, b Line) int {
		return cmp.Or(cmp.Compare(a.Custodian, b.Custodian), cmp.Compare(a.Modality, b.Modality), cmp.Compare(a.Unit, b.Unit))
	})
	s.Totals = []Total{}
	for _, l := range s.Lines {
		i := slices.IndexFunc(s.Totals, func(t Total) bool { return t.Modality == l.Modality && t.Unit == l.Unit })
		if i < 0 {
			i = len(s.Totals)
			s.Totals = append(s.Totals, Total{Modality: l.Modality, Unit: l.Unit})
		}
		s.Totals[i].Add(l.Count)
	}
	slices.SortFunc(s.Totals, func(a, b Total) int {
		return cmp.Or(cmp.Compare(a.Modality, b.Modality), cmp.Compare(a.Unit, b.Unit))
	})
}

// Whole reports whether nothing failed, nothing is open and nothing came late.
func (s Statement) Whole() bool {
	return s.Second.Late == 0 && s.Canary != CanaryMissing && !slices.ContainsFunc(s.Totals, func(t Total) bool { return !t.Whole() })
}

// Check reports what is wrong with a statement: above all a sum that does not add up.
func (s Statement) Check() error {
	fault := func(format string, a ...any) error {
		return fmt.Errorf("coverage statement of %.10s: "+format, append([]any{s.Day}, a...)...)
	}
	day, err := time.Parse(time.DateOnly, s.Day)
	switch {
	case s.Format != Format:
		return fault("format is not %s", Format)
	case err != nil:
		return fault("no such day")
	case !s.From.Equal(day) || s.To.Before(s.From) || s.To.After(day.AddDate(0, 0, 1)):
		return fault("from %s to %s is not within the day", s.From.Format(time.RFC3339), s.To.Format(time.RFC3339))
	case s.Revision < 1:
		return fault("revision %d", s.Revision)
	}
	summed := s
	summed.Lines = slices.Clone(s.Lines)
	summed.Sum()
	if len(summed.Totals) != len(s.Totals) {
		return fault("the totals are not those of the lines")
	}
	for i, t := range summed.Totals {
		if o := s.Totals[i]; o.Modality != t.Modality || o.Unit != t.Unit || !slices.Equal(o.Reasons, t.Reasons) ||
			o.Expected != t.Expected || o.Captured != t.Captured || o.Excluded != t.Excluded || o.Failed != t.Failed || o.Unknown != t.Unknown {
			return fault("the totals are not those of the lines")
		}
	}
	for _, l := range s.Lines {
		if err := l.check(); err != nil {
			return fault("line of %s, %s: %w", l.Modality, l.Unit, err)
		}
	}
	return nil
}

// MaxStatement is the most bytes of a statement that are read: room for 20,000 custodians.
const MaxStatement = 64 << 20

// Encode writes the statement as it is stored and signed: JSON with a line end. The
// signature is over these bytes, so no other writer needs to come to the same ones.
func (s Statement) Encode() ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode coverage statement: %w", err)
	}
	return append(b, '\n'), nil
}

// Decode reads what Encode wrote and checks its sums.
func Decode(b []byte) (Statement, error) {
	var s Statement
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("decode coverage statement: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return s, errors.New("decode coverage statement: something follows it")
	}
	return s, s.Check()
}
