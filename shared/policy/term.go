package policy

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// Term is how long something is kept: calendar years, months and days, added in UTC.
type Term struct{ Years, Months, Days int }

// termForm is the date part of an ISO 8601 duration, section 5.5.2.2.
var termForm = regexp.MustCompile(`^P(?:([0-9]{1,6})Y)?(?:([0-9]{1,6})M)?(?:([0-9]{1,6})D)?$`)

// MaxTermYears bounds a term. Storage would take 146,000 days (some 399 years); a term
// beyond a century is a slip of the pen that nobody could take back once it is locked.
// https://learn.microsoft.com/azure/storage/blobs/immutable-time-based-retention-policy-overview
const MaxTermYears = 100

// epochOfTerms is where terms are compared with one another.
var epochOfTerms = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// ParseTerm reads years, months and days in the form of ISO 8601: P7Y, P18M, P1Y6M, P90D.
// A term of nothing and one of more than a hundred years are refused.
func ParseTerm(s string) (Term, error) {
	m := termForm.FindStringSubmatch(s)
	if m == nil || s == "P" {
		return Term{}, fmt.Errorf("%.40q is no period; want years, months and days such as P7Y, P18M or P90D", s)
	}
	var n [3]int
	for i, digits := range m[1:] {
		if digits == "" {
			continue
		}
		v, err := strconv.Atoi(digits)
		if err != nil {
			return Term{}, fmt.Errorf("%.40q: %w", s, err)
		}
		n[i] = v
	}
	t := Term{Years: n[0], Months: n[1], Days: n[2]}
	switch end := t.After(epochOfTerms); {
	case !end.After(epochOfTerms):
		return Term{}, fmt.Errorf("%q keeps nothing; want at least P1D", s)
	case end.After(epochOfTerms.AddDate(MaxTermYears, 0, 0)):
		return Term{}, fmt.Errorf("%q is more than the %d years that are accepted", s, MaxTermYears)
	}
	return t, nil
}

// After is when a term that starts at t has passed. A day that a month does not have
// counts on into the next, so that a term is never shorter than it says.
func (t Term) After(start time.Time) time.Time {
	return start.UTC().AddDate(t.Years, t.Months, t.Days)
}

// String is the form that ParseTerm reads.
func (t Term) String() string {
	s := "P"
	for _, part := range []struct {
		n    int
		unit string
	}{{t.Years, "Y"}, {t.Months, "M"}, {t.Days, "D"}} {
		if part.n != 0 {
			s += strconv.Itoa(part.n) + part.unit
		}
	}
	if s == "P" {
		return "P0D"
	}
	return s
}

// MarshalText implements encoding.TextMarshaler.
func (t Term) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Term) UnmarshalText(b []byte) error {
	got, err := ParseTerm(string(b))
	if err != nil {
		return err
	}
	*t = got
	return nil
}
