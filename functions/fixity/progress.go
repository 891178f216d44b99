package fixity

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
)

const progressFormat = "steno-fixity/1"

// progress is what a run hands to the next.
type progress struct {
	Format string `json:"format"`
	// First is when the oldest seal was, zero until a round has found one.
	First time.Time `json:"first,omitzero"`
	Round round     `json:"round"`
	// Recent and All are how far the search for objects that nothing seals has come: among the
	// conversations of the last days, and among all.
	Recent conversation.Position `json:"recent"`
	All    conversation.Position `json:"all"`
	// Rebuilt is how far the catalog was compared with storage.
	Rebuilt place `json:"rebuilt"`
	// Absent is what is missing and may yet be explained.
	Absent []absent `json:"absent,omitempty"`
	Day    day      `json:"day"`
}

// round is the reading of everything once.
type round struct {
	Started time.Time `json:"started,omitzero"`
	Done    bool      `json:"done,omitempty"`
	After   string    `json:"after,omitempty"` // id of the last record whose objects were read
	Late    bool      `json:"late,omitempty"`  // the alarm for its being late was raised
}

// day is what was read on a day (UTC).
type day struct {
	Date string `json:"date,omitempty"`
	tally
}

// tally counts.
type tally struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
	Alarms  int   `json:"alarms"`
	Gone    int   `json:"gone"`   // objects that a disposal explains
	Sealed  int   `json:"sealed"` // objects that were sealed late
}

func (t *tally) add(o tally) {
	t.Objects += o.Objects
	t.Bytes += o.Bytes
	t.Alarms += o.Alarms
	t.Gone += o.Gone
	t.Sealed += o.Sealed
}

func decodeProgress(body []byte) (progress, error) {
	if len(body) == 0 {
		return progress{Format: progressFormat}, nil
	}
	var p progress
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, fmt.Errorf("progress cannot be read; remove it to begin anew: %w", err)
	}
	if p.Format != progressFormat {
		return p, fmt.Errorf("progress of format %q, want %s", p.Format, progressFormat)
	}
	return p, nil
}

func (p progress) encode() ([]byte, error) { return json.Marshal(p) }

// summary adds the run to the day, and writes the custody event of a day that has passed.
func (r *run) summary(ctx context.Context) error {
	today := r.start.Format(time.DateOnly)
	d := &r.state.Day
	if d.Date != "" && d.Date != today {
		_, err := r.s.Trail.Append(ctx, custody.Event{
			Tenant: r.c.Tenant, Action: custody.FixityDay, System: system, Item: d.Date,
			Detail: fmt.Sprintf("objects=%d bytes=%d alarms=%d gone=%d sealed=%d", d.Objects, d.Bytes, d.Alarms, d.Gone, d.Sealed),
		})
		if err != nil {
			return fmt.Errorf("summary of %s: %w: %w", d.Date, errTrail, err)
		}
		*d = day{}
	}
	d.Date = today
	d.add(r.tally)
	r.log.InfoContext(ctx, "evidence read again", slog.Int("objects", r.tally.Objects), slog.Int64("bytes", r.tally.Bytes), slog.Int("alarms", r.tally.Alarms))
	return nil
}

func compare(a, b string) int { return strings.Compare(a, b) }

// timeOf is when a record was, by its id or by the beginning of one.
func timeOf(id string) (time.Time, error) {
	if len(id) == 16 {
		id += "-" + strings.Repeat("0", 16)
	}
	return custody.TimeOf(id)
}
