package host

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Schedule is a parsed NCRONTAB expression: second, minute, hour, day, month and day of week, each a set; without the second if there
// are five. A day must fit both its day of month and its day of week, as in NCrontab and unlike in cron. Times are UTC.
type Schedule struct {
	second, minute, hour, day, month, weekday uint64
}

var (
	monthNames   = strings.Fields("jan feb mar apr may jun jul aug sep oct nov dec")
	weekdayNames = strings.Fields("sun mon tue wed thu fri sat")
)

// ParseSchedule parses an NCRONTAB expression. A TimeSpan is an error: it only works on dedicated plans.
func ParseSchedule(s string) (*Schedule, error) {
	fields := strings.Fields(s)
	if len(fields) == 5 {
		fields = append([]string{"0"}, fields...)
	}
	if len(fields) != 6 {
		return nil, fmt.Errorf("schedule %q has %d fields, not six", s, len(fields))
	}
	var sc Schedule
	var faults []error
	for i, f := range []struct {
		set    *uint64
		lo, hi int
		names  []string
	}{
		{&sc.second, 0, 59, nil}, {&sc.minute, 0, 59, nil}, {&sc.hour, 0, 23, nil},
		{&sc.day, 1, 31, nil}, {&sc.month, 1, 12, monthNames}, {&sc.weekday, 0, 6, weekdayNames},
	} {
		set, err := parseField(fields[i], f.lo, f.hi, f.names)
		if err != nil {
			faults = append(faults, fmt.Errorf("schedule %q: %w", s, err))
		}
		*f.set = set
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return &sc, nil
}

func parseField(field string, lo, hi int, names []string) (uint64, error) {
	var set uint64
	for part := range strings.SplitSeq(field, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		step := 1
		if stepped {
			n, err := strconv.Atoi(stepText)
			if err != nil || n < 1 {
				return 0, fmt.Errorf("step %q", stepText)
			}
			step = n
		}
		from, to := lo, hi
		if span != "*" {
			first, last, ranged := strings.Cut(span, "-")
			var err error
			if from, err = parseValue(first, lo, hi, names); err != nil {
				return 0, err
			}
			switch {
			case ranged:
				if to, err = parseValue(last, lo, hi, names); err != nil {
					return 0, err
				}
			case !stepped:
				to = from
			}
		}
		if from > to {
			return 0, fmt.Errorf("range %q is empty", span)
		}
		for v := from; v <= to; v += step {
			set |= 1 << v
		}
	}
	return set, nil
}

func parseValue(s string, lo, hi int, names []string) (int, error) {
	for i, name := range names {
		if len(s) >= 3 && strings.HasPrefix(strings.ToLower(s), name) {
			return lo + i, nil
		}
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < lo || n > hi {
		return 0, fmt.Errorf("value %q is not within %d to %d", s, lo, hi)
	}
	return n, nil
}

// Next returns the first occurrence after t, or the zero time if there is none within five years.
func (s *Schedule) Next(t time.Time) time.Time {
	t = t.UTC().Truncate(time.Second).Add(time.Second)
	for limit := t.AddDate(5, 0, 0); t.Before(limit); {
		switch {
		case s.month>>t.Month()&1 == 0:
			t = time.Date(t.Year(), t.Month()+1, 1, 0, 0, 0, 0, time.UTC)
		case s.day>>t.Day()&1 == 0 || s.weekday>>t.Weekday()&1 == 0:
			t = time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, time.UTC)
		case s.hour>>t.Hour()&1 == 0:
			t = t.Truncate(time.Hour).Add(time.Hour)
		case s.minute>>t.Minute()&1 == 0:
			t = t.Truncate(time.Minute).Add(time.Minute)
		case s.second>>t.Second()&1 == 0:
			t = t.Add(time.Second)
		default:
			return t
		}
	}
	return time.Time{}
}

// dense reports whether occurrences after t stand closer than a minute: the host then monitors the schedule not at all
// (webjobs-sdk-extensions, ShouldDisableScheduleMonitor).
func (s *Schedule) dense(t time.Time) bool {
	first := s.Next(t)
	return s.Next(first).Sub(first) < time.Minute
}
