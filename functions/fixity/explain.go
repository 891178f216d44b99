package fixity

import (
	"context"
	"strings"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
)

// absent is an object that was missing while a disposal was under way that may explain it.
type absent struct {
	Unit   string    `json:"unit"`
	Object string    `json:"object"`
	At     time.Time `json:"at"` // of its seal
}

// maxAbsent bounds what waits for disposals to end; the rest is an alarm at once.
const maxAbsent = 1000

// disposals is what the trail says about what was destroyed.
type disposals struct {
	gone map[string]bool // units, and "unit/object"
	// open are the disposals that have begun and not ended. The record of a beginning names the
	// conversation, which for a chat is the unit; that of the end names the legs of a call.
	open map[string]bool
}

func (d *disposals) note(rec custody.Record) {
	switch rec.Action {
	case custody.Dispose, custody.Erase:
		d.gone[rec.Item], d.open[rec.ID] = true, true
	case custody.Disposed:
		for _, field := range strings.Fields(rec.Detail) {
			if units, ok := strings.CutPrefix(field, "units="); ok {
				for _, unit := range strings.Split(units, ",") {
					d.gone[unit] = true
				}
			}
			if event, ok := strings.CutPrefix(field, "event="); ok {
				delete(d.open, event)
			}
		}
	default:
		return
	}
	for _, o := range rec.Objects {
		d.gone[o.Unit+"/"+o.Object] = true
	}
}

// explain looks for disposals of what is missing, in all of the trail since it was sealed.
// What none explains is an alarm, but that an object of a leg waits while a disposal is
// under way.
func (r *run) explain(ctx context.Context) error {
	for _, a := range r.state.Absent {
		r.missing = append(r.missing, target{object: custody.Object{Unit: a.Unit, Object: a.Object}, at: a.At})
	}
	r.state.Absent = nil
	if len(r.missing) == 0 {
		return nil
	}
	from := r.start
	for _, t := range r.missing {
		if t.at.Before(from) {
			from = t.at
		}
	}
	d := disposals{map[string]bool{}, map[string]bool{}}
	_, err := r.walk(ctx, custody.IDsFrom(from), r.start.Add(settle), func(rec custody.Record) (bool, error) {
		d.note(rec)
		return true, nil
	})
	if err != nil {
		return err
	}
	waiting := map[string]bool{}
	for _, t := range r.missing {
		_, notLeg := conversation.ParseLegID(t.object.Unit)
		switch {
		case waiting[t.String()]:
		case d.gone[t.object.Unit] || d.gone[t.String()]:
			r.tally.Gone++
		case notLeg == nil && len(d.open) > 0 && len(r.state.Absent) < maxAbsent:
			waiting[t.String()] = true
			r.state.Absent = append(r.state.Absent, absent{t.object.Unit, t.object.Object, t.at})
		default:
			if err := r.alarm(ctx, t.object.Unit, t.object.Object, reasonMissing); err != nil {
				return err
			}
		}
	}
	return nil
}
