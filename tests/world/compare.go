package world

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"steno/shared/conversation"
	"steno/tests/sim"
)

// Lag is how far behind now the windows of CheckSettings end.
const Lag = 500 * time.Millisecond

// CheckSettings make an export that is planned by hand and reads each stretch twice,
// over the whole of a tenant's ten days.
func CheckSettings() map[string]string {
	return map[string]string{
		"STENO_EXPORT_HISTORY":     "264h",
		"STENO_EXPORT_LAG":         Lag.String(),
		"STENO_EXPORT_PERIOD":      "1s",
		"STENO_EXPORT_PASSES":      "0s,1s",
		"STENO_GRAPH_RATE":         "200",
		"STENO_EXPORT_RETRY_WAIT":  "1s",
		"STENO_EXPORT_PATIENCE":    "1ms",
		"STENO_CHECKPOINT_EVERY":   "1s",
		"STENO_COVERAGE_INTERIM":   "1ms",
		"STENO_COVERAGE_LAG":       "1s",
		"STENO_GAP_GRACE":          "1s",
		"STENO_PACKAGE_RETRY_WAIT": "300ms",

		"STENO_ATTACHMENTS":           "all",
		"STENO_ATTACHMENT_RETRY_WAIT": "200ms",
		"STENO_ATTACHMENT_LARGEST":    "20971520", // an endless file ends after five parts
	}
}

// ExportRun is one planning with everything it queued, from first to last.
type ExportRun struct {
	Edge, Start, End time.Time // windows end at Edge; nothing changed between Start and End but by faults
}

// Report is how an archive compares with its tenant.
type Report struct {
	OK            bool           `json:"ok"`
	Seed          uint64         `json:"seed"`
	Messages      int            `json:"messages"`
	Versions      int            `json:"versionsInTenant"`
	Expected      int            `json:"expected"`
	Notified      int            `json:"notified"`      // of these, by notification too
	ByNoticeAlone int            `json:"byNoticeAlone"` // of these, seen by no export
	Unobservable  int            `json:"unobservable"`  // versions of recorded users' that no lane could see
	Channels      int            `json:"expectedInChannels"`
	Archived      int            `json:"archived"`
	Missing       int            `json:"missing"`
	Duplicates    int            `json:"duplicates"`
	Altered       int            `json:"altered"`
	OutOfScope    int            `json:"outOfScope"`
	Orphans       int            `json:"orphans"`
	Promised      int            `json:"promisedButAbsent"`
	Parked        int            `json:"parked"`
	DeadLettered  int            `json:"deadLettered"`
	Conversations int            `json:"conversations"`
	Objects       int            `json:"objects"`
	Receipts      int            `json:"receipts"`
	GraphRequests int64          `json:"graphRequests"`
	Faults        map[string]int `json:"faultsServed"`
	Storage       int64          `json:"storageOperations"`
	Seconds       float64        `json:"seconds"`
}

// Export plans windows and waits until nothing is queued any more.
func (w *World) Export(ctx context.Context) (ExportRun, error) {
	if err := Sleep(ctx, Lag+1500*time.Millisecond); err != nil { // so that what happened before is older than the lag
		return ExportRun{}, err
	}
	r := ExportRun{Start: time.Now()}
	r.Edge = r.Start.Add(-Lag)
	if err := w.Host.RunTimer(ctx, "exportplan"); err != nil {
		return r, err
	}
	err := w.Drained(ctx)
	r.End = time.Now()
	return r, err
}

// Hear waits until the tenant has sent its notifications and files what came.
func (w *World) Hear(ctx context.Context) error {
	deadline := time.Now().Add(time.Minute)
	for {
		waiting, dropped := w.Tenant.Undelivered()
		if dropped > 0 {
			return fmt.Errorf("%d notifications were dropped: the webhook is too slow", dropped)
		}
		if waiting == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d notifications are not taken", waiting)
		}
		if err := Sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	for {
		if err := w.Host.RunTimer(ctx, "notified"); err != nil {
			return err
		}
		d := w.Bus.Depth(Notifications)
		if d.Active+d.Locked+d.Scheduled == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("notifications stay on the queue: %+v", d)
		}
		if err := Sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// Drained waits until no window is queued or being read any more.
func (w *World) Drained(ctx context.Context) error {
	deadline := time.Now().Add(10 * time.Minute)
	for {
		left := 0
		d := w.Bus.Depth("chat-export")
		for _, q := range []string{"chat-export", "attachments"} {
			d = w.Bus.Depth(q)
			left += d.Active + d.Locked + d.Scheduled
		}
		if left == 0 && w.Host.InFlight() == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("queue does not empty: %+v", d)
		}
		if err := Sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// Compare holds the archive against the tenant's full history.
func (w *World) Compare(got Contents, runs []ExportRun) Report {
	c := Report{
		Archived: len(got.Items), Conversations: len(got.Conversations), Objects: got.Objects, Receipts: got.Receipts,
		Orphans: len(got.Orphans), Promised: len(got.Missing), Faults: map[string]int{},
	}
	recorded := map[sim.PersonID]bool{}
	for _, g := range []string{sim.RecordedEquities, sim.RecordedRates} {
		for _, p := range w.Tenant.UsersIn(g) {
			recorded[p] = true
		}
	}
	channels := map[string]bool{} // of recorded teams
	for _, t := range w.Tenant.AllTeams() {
		channels[t.ID] = recordsTeam(t.Name)
	}
	inScope := func(v sim.Version) bool {
		if v.Channel {
			return channels[v.Team]
		}
		return hasAny(v.Participants, recorded)
	}
	type key struct{ thread, message, etag string }
	truth := map[key]sim.Version{}
	expected := map[key]bool{}
	scope := map[key]bool{}
	for _, v := range w.Tenant.History() {
		c.Versions++
		k := key{string(v.Thread), v.MessageID, v.ETag}
		truth[k] = v
		if !inScope(v) {
			continue
		}
		scope[k] = true
		for _, r := range runs {
			if stood(v, r) {
				expected[k] = true
			}
		}
		if hasAny(w.Tenant.Notified(v), recorded) {
			c.Notified++
			if !expected[k] {
				c.ByNoticeAlone++
			}
			expected[k] = true
		}
	}
	c.Expected = len(expected)
	for k := range expected {
		if truth[k].Channel {
			c.Channels++
		}
	}
	seen := map[key]bool{}
	for _, item := range got.Items {
		m := item.Message
		k := key{string(m.Thread), string(m.VersionKey.Message), string(m.ETag)}
		v, known := truth[k]
		switch {
		case !known || !inScope(v):
			c.OutOfScope++
		case item.Lane == conversation.LaneNotified && !bytes.Equal(v.NotifiedBytes(), m.Raw),
			item.Lane != conversation.LaneNotified && !bytes.Equal(v.Bytes, m.Raw):
			c.Altered++
		}
		if seen[k] {
			c.Duplicates++
		}
		seen[k] = true
	}
	for k := range scope {
		switch {
		case seen[k]:
		case expected[k]:
			c.Missing++
		default:
			c.Unobservable++
		}
	}
	c.DeadLettered = w.Bus.Depth("chat-export").DeadLettered + w.Bus.Depth(Notifications).DeadLettered
	c.Parked = w.Bus.Depth("parked").Active
	w.usage(&c)
	c.OK = c.Faithful() && c.DeadLettered+c.Parked == 0
	return c
}

// Faithful reports whether the archive is what the tenant says, whatever lies on the
// queues.
func (r Report) Faithful() bool {
	return r.Expected > 0 && r.Channels > 0 && r.Missing+r.Duplicates+r.Altered+r.OutOfScope+r.Orphans+r.Promised == 0
}

// stood reports whether a version was current for the whole of a run, and old enough
// for its windows.
func stood(v sim.Version, r ExportRun) bool {
	return !v.CurrentFrom.After(r.Start) && (v.CurrentTo.IsZero() || v.CurrentTo.After(r.End)) && v.LastModified.Before(r.Edge)
}

func hasAny(people []sim.PersonID, in map[sim.PersonID]bool) bool {
	for _, p := range people {
		if in[p] {
			return true
		}
	}
	return false
}

// usage adds what the run asked of Graph and of storage.
func (w *World) usage(c *Report) {
	n := w.Tenant.Counts()
	for _, requests := range n.Requests {
		c.GraphRequests += int64(requests)
	}
	for kind, served := range n.Faults {
		c.Faults[string(kind)] = served
	}
	for _, ops := range w.Storage.Operations() {
		c.Storage += ops
	}
}

// Sleep waits, or returns the context's error.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
