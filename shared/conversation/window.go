package conversation

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"steno/shared/teams"
)

// Window is a closed stretch of lastModifiedDateTime to be read from one
// custodian: a person's mailbox or a team's channels. Graph's filter takes gt and lt, both
// exclusive, so the bounds themselves are not read: neighbours must overlap.
// https://learn.microsoft.com/graph/api/chats-getallmessages
type Window struct {
	Tenant    teams.TenantID `json:"tenant"`
	Custodian teams.PersonID `json:"custodian"`
	Source    teams.Source   `json:"source,omitempty"`
	From      time.Time      `json:"from"` // exclusive
	To        time.Time      `json:"to"`   // exclusive
	// Pass counts the readings of the same stretch: 1 captures, later ones up to MaxPass
	// prove that nothing was missed. NotifiedPass, RetainedPass, LookbackPass and FinalPass
	// are readings of other kinds, whose progress is kept apart.
	Pass int `json:"pass"`
	// Job is the look-back that the window belongs to, set for LookbackPass alone.
	Job string `json:"job,omitempty"`
	// Attempt counts how often the window was put back on the queue to be read later.
	Attempt int `json:"attempt,omitempty"`
}

// The passes.
const (
	// NotifiedPass marks what change notifications brought between From and To.
	NotifiedPass = 0
	// MaxPass is the highest number of readings of a stretch.
	MaxPass = 9
	// RetainedPass reads what retention policies kept of a stretch.
	RetainedPass = 10
	// LookbackPass reads history that an operator asked for.
	LookbackPass = 11
	// FinalPass reads once more what a custodian wrote before being deleted, while it can
	// still be exported.
	FinalPass = 12
)

// Resolution is the resolution of Graph's message timestamps.
const Resolution = time.Millisecond

// Overlap is how far a window reaches back behind the end of the one before it.
// A millisecond closes the hole between two exclusive bounds; minutes forgive a
// clock and an index that disagree a little.
const Overlap = 2 * time.Minute

// Key names a window among those of its custodian. Keys sort by pass, then time.
func (w Window) Key() string {
	return fmt.Sprintf("%d-%013d-%013d", w.Pass, w.From.UnixMilli(), w.To.UnixMilli())
}

// MessageID is the deterministic id under which the window is queued: the same
// window queued twice for the same attempt is the same message.
func (w Window) MessageID() string {
	return fmt.Sprintf("w-%s-%s-%d", w.Custodian, w.Key(), w.Attempt)
}

// Split cuts the window into two that overlap by just what two exclusive bounds
// need. ok is false when the window cannot be cut any further.
func (w Window) Split() (a, b Window, ok bool) {
	const smallest = 4 * Resolution
	if w.To.Sub(w.From) < smallest {
		return w, w, false
	}
	mid := w.From.Add(w.To.Sub(w.From) / 2).Truncate(Resolution)
	a, b = w, w
	a.To = mid
	b.From = mid.Add(-Resolution)
	return a, b, true
}

// Uncovered returns the parts of the window that none of the finished windows read,
// in order, none if all of it was read. A finished window reads the moments strictly
// between its bounds, and so does each part returned.
func (w Window) Uncovered(finished []WindowDone) []Window {
	finished = slices.Clone(finished)
	slices.SortFunc(finished, func(a, b WindowDone) int { return a.From.Compare(b.From) })
	var parts []Window
	reached := w.From.Add(Resolution) // the first moment that is still to be read
	for _, d := range finished {
		if !d.From.Before(reached) {
			end := d.From.Add(Resolution) // d reads from there on
			if !end.Before(w.To) {
				break
			}
			part := w
			part.From, part.To = reached.Add(-Resolution), end
			parts = append(parts, part)
		}
		if d.To.After(reached) {
			reached = d.To
		}
	}
	if reached.Before(w.To) {
		part := w
		part.From = reached.Add(-Resolution)
		parts = append(parts, part)
	}
	return parts
}

// Progress is how far the windows of one custodian have been planned: the upper
// bound of the last window, by pass (index 0 is pass 1).
type Progress struct {
	Planned []time.Time `json:"planned"`
	At      time.Time   `json:"at,omitzero"` // when windows were last planned
}

// Until is the upper bound of the last window planned for a pass, zero for none.
func (p Progress) Until(pass int) time.Time {
	if pass < 1 || pass > len(p.Planned) {
		return time.Time{}
	}
	return p.Planned[pass-1]
}

// Set records the upper bound of the last window planned for a pass.
func (p *Progress) Set(pass int, to time.Time) {
	for len(p.Planned) < pass {
		p.Planned = append(p.Planned, time.Time{})
	}
	p.Planned[pass-1] = to
}

// windowMessage is Window as it travels. Its field names are unlike any that the
// Functions host knows: the host copies top-level fields of a message over its own
// metadata of the same name.
type windowMessage struct {
	V         int    `json:"stenoV"`
	Tenant    string `json:"exportTenant"`
	Custodian string `json:"exportCustodian"`
	Source    string `json:"exportSource,omitempty"`
	From      string `json:"exportFrom"`
	To        string `json:"exportTo"`
	Pass      int    `json:"exportPass"`
	Job       string `json:"exportJob,omitempty"`
	Attempt   int    `json:"exportAttempt,omitempty"`
}

const windowMessageVersion = 1

// EncodeWindow writes the queue message for a window.
func EncodeWindow(w Window) ([]byte, error) {
	return json.Marshal(windowMessage{
		V: windowMessageVersion, Tenant: string(w.Tenant), Custodian: string(w.Custodian), Source: string(w.Source),
		From: w.From.UTC().Format(time.RFC3339Nano), To: w.To.UTC().Format(time.RFC3339Nano), Pass: w.Pass, Job: w.Job, Attempt: w.Attempt,
	})
}

var jobForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// MaxWindow is the longest window a message may ask for. Planned ones are a day at
// most; the rest is room for a schedule that was changed by hand.
const MaxWindow = 31 * 24 * time.Hour

// DecodeWindow reads a queue message strictly and reports every fault at once. A
// message says only what to read; whether the custodian is recorded in that stretch
// is for the handler to look up.
func DecodeWindow(b []byte) (Window, error) {
	var m windowMessage
	err := decodeStrict(b, &m, "stenoV", "exportTenant", "exportCustodian", "exportSource", "exportFrom", "exportTo", "exportPass", "exportJob", "exportAttempt")
	if err != nil {
		return Window{}, fmt.Errorf("window message: %w", err)
	}
	if m.V != windowMessageVersion {
		return Window{}, fmt.Errorf("window message: version %d; this build reads %d", m.V, windowMessageVersion)
	}
	var w Window
	var faults []error
	check := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	w.Tenant, err = teams.ParseTenantID(m.Tenant)
	check(err)
	w.Custodian, err = teams.ParsePersonID(m.Custodian)
	check(err)
	w.From, err = parseBound("exportFrom", m.From)
	check(err)
	w.To, err = parseBound("exportTo", m.To)
	check(err)
	w.Source, w.Pass, w.Job, w.Attempt = teams.Source(m.Source), m.Pass, m.Job, m.Attempt
	if !w.Source.Known() {
		check(errors.New("exportSource is unknown"))
	} else if w.Source.Retained() != (w.Pass == RetainedPass) {
		check(fmt.Errorf("exportSource is not one of pass %d", w.Pass))
	}
	if !w.From.Before(w.To) {
		check(errors.New("from is not before to"))
	} else if w.To.Sub(w.From) > MaxWindow {
		check(fmt.Errorf("longer than %s", MaxWindow))
	}
	if m.Pass <= NotifiedPass || m.Pass > FinalPass {
		check(fmt.Errorf("pass %d is not 1 to %d", m.Pass, FinalPass))
	}
	if (w.Pass == LookbackPass) != jobForm.MatchString(m.Job) || w.Pass != LookbackPass && m.Job != "" {
		check(fmt.Errorf("exportJob: want the id of a job with pass %d, and none with others", LookbackPass))
	}
	if m.Attempt < 0 {
		check(fmt.Errorf("attempt %d is negative", m.Attempt))
	}
	if err := errors.Join(faults...); err != nil {
		return Window{}, fmt.Errorf("window message: %w", err)
	}
	return w, nil
}

// parseBound reads a bound of a window. Its error does not repeat foreign text.
func parseBound(name, s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("%s is not an RFC 3339 time", name)
	case !plausible(t):
		return time.Time{}, fmt.Errorf("%s is not within %d to %d", name, Earliest.Year(), Latest.Year())
	case !t.Equal(t.Truncate(Resolution)):
		return time.Time{}, fmt.Errorf("%s is not a whole millisecond", name)
	}
	return t.UTC(), nil
}
