package segment

import (
	"testing"
	"time"

	"steno/shared/conversation"
)

// The monotonic reading of a time cannot be made in a test, so this looks at what is
// compared: the wall clock against the leg's own time.
func TestASettingOfTheWallClockIsToldOnceAndChangesNoTime(t *testing.T) {
	began := time.Now()
	l := &Leg{began: began, epoch: began.UTC().Truncate(conversation.SegmentDuration)}
	for _, step := range []time.Duration{0, 0, -time.Hour, -time.Hour, 90 * time.Minute, 0} {
		now := began.Round(0).Add(step)
		before := l.since(began)
		l.watch(now, before)
		if l.since(began) != before {
			t.Error("the leg's time changed")
		}
	}
	if len(l.events) != 3 {
		t.Errorf("%d settings told, want 3: %v", len(l.events), l.events)
	}
	for _, e := range l.events {
		if e.Kind != conversation.EventAnomaly {
			t.Errorf("told as %s", e.Kind)
		}
	}
}
