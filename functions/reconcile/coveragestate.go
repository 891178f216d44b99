package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"steno/shared/msgraph"
)

const coverageStateFormat = "steno-coverage-progress/1"

// coverageState is what a run hands to the next.
type coverageState struct {
	Format string `json:"format"`
	// Full is the last day on which all that Graph has of call records was listed.
	Full string `json:"full,omitempty"`
	// Days says which statements were made, by day.
	Days map[string]dayState `json:"days,omitempty"`
	// Foreign are call records without a recorded user, so that nobody asks about them again.
	Foreign map[string]foreignRecord `json:"foreign,omitempty"`
}

type dayState struct {
	Made     int       `json:"made"` // how many of CoverageConfig.After
	Revision int       `json:"revision"`
	At       time.Time `json:"at"`
}

type foreignRecord struct {
	Version int64     `json:"version"`
	Start   time.Time `json:"start"`
}

func decodeCoverageState(body []byte) (coverageState, error) {
	s := coverageState{Format: coverageStateFormat}
	if len(body) > 0 {
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&s); err != nil {
			return s, fmt.Errorf("progress of coverage cannot be read; remove it to begin anew: %w", err)
		}
		if s.Format != coverageStateFormat {
			return s, fmt.Errorf("progress of coverage of format %q, want %s", s.Format, coverageStateFormat)
		}
	}
	if s.Days == nil {
		s.Days = map[string]dayState{}
	}
	if s.Foreign == nil {
		s.Foreign = map[string]foreignRecord{}
	}
	return s, nil
}

// save stores the progress, without what no run will ask about again.
func (r *coverageRun) save(ctx context.Context) error {
	oldest := r.now.AddDate(0, 0, -LookBack-2).Format(time.DateOnly)
	for day := range r.state.Days {
		if day < oldest {
			delete(r.state.Days, day)
		}
	}
	for id, f := range r.state.Foreign {
		if r.now.Sub(f.Start) > msgraph.CallRecordLife+24*time.Hour {
			delete(r.state.Foreign, id)
		}
	}
	body, err := json.Marshal(r.state)
	if err == nil {
		err = r.s.State.SwapHead(ctx, body, r.revision)
	}
	if err == nil {
		_, r.revision, err = r.s.State.Head(ctx)
	}
	if err != nil {
		return fmt.Errorf("store progress of coverage: %w", err)
	}
	return nil
}
