package host_test

import (
	"strings"
	"testing"
	"time"

	"steno/tests/local/host"
)

func TestOccurrencesFollowNCRONTAB(t *testing.T) {
	from := time.Date(2026, 11, 21, 3, 2, 1, 5, time.UTC) // a Saturday
	for _, tt := range []struct{ expr, want string }{
		{"0 */5 * * * *", "2026-11-21T03:05:00Z"},
		{"*/5 * * * *", "2026-11-21T03:05:00Z"},
		{"* * * * * *", "2026-11-21T03:02:02Z"},
		{"0 0 3 * * *", "2026-11-22T03:00:00Z"},
		{"0 30 9-17/2 * * Mon-Fri", "2026-11-23T09:30:00Z"},
		{"0 0 0 29 Feb *", "2028-02-29T00:00:00Z"},
		{"0 0 0 1 * Monday", "2027-02-01T00:00:00Z"}, // both the day and the weekday must fit
		{"15,45 2 3 21 11 6", "2026-11-21T03:02:15Z"},
		{"0 5/20 * * * *", "2026-11-21T03:05:00Z"},
		{"0 0 0 31 Jun *", "0001-01-01T00:00:00Z"},
	} {
		s, err := host.ParseSchedule(tt.expr)
		if err != nil {
			t.Errorf("%s: %v", tt.expr, err)
			continue
		}
		if got := s.Next(from).Format(time.RFC3339); got != tt.want {
			t.Errorf("%s: next %s, want %s", tt.expr, got, tt.want)
		}
	}
}

func TestFaultyScheduleIsRefused(t *testing.T) {
	for _, expr := range []string{"", "* * * *", "* * * * * * *", "60 * * * * *", "* * 24 * * *", "* * * 0 * *", "* * * * 13 *", "* * * * * 7",
		"*/0 * * * * *", "5-1 * * * * *", "a * * * * *", "00:05:00", "* * * * * Foo"} {
		if _, err := host.ParseSchedule(expr); err == nil {
			t.Errorf("%q accepted", expr)
		}
	}
}

func FuzzScheduleNextIsLater(f *testing.F) {
	f.Add("0 */5 * * * *", int64(0))
	f.Fuzz(func(t *testing.T, expr string, sec int64) {
		s, err := host.ParseSchedule(expr)
		if err != nil {
			return
		}
		from := time.Unix(sec%4e9, 0)
		if next := s.Next(from); !next.IsZero() && !next.After(from) {
			t.Errorf("%q after %v is %v", expr, from, next)
		}
	})
}

func TestTimerRunsByItsSchedule(t *testing.T) {
	h := start(t, map[string]string{
		"ok":      `{"bindings":[{"type":"timerTrigger","direction":"in","name":"timer","schedule":"%EVERY%"}]}`,
		"pause":   `{"bindings":[{"type":"timerTrigger","direction":"in","name":"timer","schedule":"0 0 3 * * *","runOnStartup":true}]}`,
		"pause-2": `{"bindings":[{"type":"timerTrigger","direction":"in","name":"timer","schedule":"0 0 3 * * *","runOnStartup":true}]}`,
	}, func(c *host.Config) {
		c.Settings = map[string]string{"EVERY": "* * * * * *"}
		c.SequentialTimers = true
	})
	runs := func(name string) (n int) {
		for _, i := range h.Invocations() {
			if strings.HasPrefix(i.Function, name) {
				n++
			}
		}
		return n
	}
	eventually(t, "two runs by schedule and the two at startup", func() bool {
		if h.InFlight() > 1 {
			t.Error("two timers ran at once")
		}
		return runs("ok") >= 2 && runs("pause") == 2
	})
	if c := inspect(t, h, "/ok"); !strings.Contains(c[0].Body, `"ScheduleStatus":null`) {
		t.Errorf("a schedule denser than a minute has a status: %s", c[0].Body)
	}
}

func TestDisabledTimersRunOnlyByHand(t *testing.T) {
	h := start(t, map[string]string{"ok": `{"bindings":[{"type":"timerTrigger","direction":"in","name":"timer","schedule":"* * * * * *","runOnStartup":true,"useMonitor":false}]}`},
		func(c *host.Config) { c.DisableTimers = true })
	if err := h.RunTimer(t.Context(), "ok"); err != nil {
		t.Error(err)
	}
	if n := len(h.Invocations()); n != 1 {
		t.Errorf("%d invocations", n)
	}
}

func TestTimerIsRetriedByItsPolicyAlone(t *testing.T) {
	h := start(t, map[string]string{
		"fail": timerJSON,
		"once": `{"bindings":[{"type":"timerTrigger","direction":"in","name":"timer","schedule":"0 0 3 * * *"}],
			"retry":{"strategy":"fixedDelay","maxRetryCount":2,"delayInterval":"00:00:00.01"}}`,
		"fail-often": `{"bindings":[{"type":"timerTrigger","direction":"in","name":"timer","schedule":"0 0 3 * * *"}],
			"retry":{"strategy":"exponentialBackoff","maxRetryCount":2,"minimumInterval":"00:00:00.01","maximumInterval":"00:00:00.02"}}`,
	}, nil)
	fails(t, h, "fail", "answered 500")
	if err := h.RunTimer(t.Context(), "once"); err != nil {
		t.Error(err)
	}
	fails(t, h, "fail-often", "answered 500")
	for path, want := range map[string]int{"/fail": 1, "/once": 2, "/fail-often": 3} {
		calls := inspect(t, h, path)
		if len(calls) != want {
			t.Errorf("%s: %d calls, want %d", path, len(calls), want)
		}
		if want > 1 && !strings.Contains(calls[1].Body, `"RetryContext":{"RetryCount":1,"MaxRetryCount":2,"Exception":"`) {
			t.Errorf("%s: no retry context in %s", path, calls[1].Body)
		}
	}
}
