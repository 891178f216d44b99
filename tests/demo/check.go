package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"steno/shared/conversation"
	"steno/tests/sim"
	"steno/tests/world"
)

// lag is how far behind now the windows of a check end.
const lag = 500 * time.Millisecond

// checkSettings plan windows when told, each stretch read twice.
func checkSettings() map[string]string {
	return map[string]string{
		"STENO_EXPORT_HISTORY":    "264h",
		"STENO_EXPORT_LAG":        lag.String(),
		"STENO_EXPORT_PERIOD":     "1s",
		"STENO_EXPORT_PASSES":     "0s,1s",
		"STENO_GRAPH_RATE":        "200",
		"STENO_EXPORT_RETRY_WAIT": "1s",
	}
}

// exportRun is one planning with everything it queued, from first to last.
type exportRun struct {
	edge, start, end time.Time // windows end at edge; nothing changed between start and end but by faults
}

// counts is the last line of a check.
type counts struct {
	OK            bool           `json:"ok"`
	Seed          uint64         `json:"seed"`
	Messages      int            `json:"messages"`
	Versions      int            `json:"versionsInTenant"`
	Expected      int            `json:"expected"`
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

// check runs the story: groups are read, history is exported, the tenant lives on with
// edits and deletions, and is exported again, until every stretch was read twice.
func check(ctx context.Context, w *world.World, o options, started time.Time) error {
	if err := w.Host.RunTimer(ctx, "groupsync"); err != nil {
		return err
	}
	if o.faults {
		misbehave(w.Tenant)
	}
	var runs []exportRun
	for round := range 3 {
		if round > 0 {
			for range 40 {
				w.Tenant.Step()
			}
		}
		run, err := export(ctx, w)
		if err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
		runs = append(runs, run)
	}
	a, err := w.Archive()
	if err != nil {
		return err
	}
	contents, err := a.Read(ctx, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), time.Now().Add(time.Hour))
	if err != nil {
		return err
	}
	c := compare(w, contents, runs)
	c.Seed, c.Messages, c.Seconds = o.seed, o.messages, time.Since(started).Seconds()
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	for _, e := range w.Host.Errors() {
		fmt.Fprintln(os.Stderr, "error line of the app:", e)
	}
	fmt.Println(string(line))
	if !c.OK {
		return errors.New("the archive is not what the tenant says")
	}
	return nil
}

// export plans windows and waits until nothing is queued any more.
func export(ctx context.Context, w *world.World) (exportRun, error) {
	if err := sleep(ctx, lag+1500*time.Millisecond); err != nil { // so that what happened before is older than the lag
		return exportRun{}, err
	}
	r := exportRun{start: time.Now()}
	r.edge = r.start.Add(-lag)
	if err := w.Host.RunTimer(ctx, "exportplan"); err != nil {
		return r, err
	}
	deadline := time.Now().Add(10 * time.Minute)
	for {
		d := w.Bus.Depth("chat-export")
		if d.Active+d.Locked+d.Scheduled == 0 && w.Host.InFlight() == 0 {
			break
		}
		if time.Now().After(deadline) {
			return r, fmt.Errorf("queue does not empty: %+v", d)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return r, err
		}
	}
	r.end = time.Now()
	return r, nil
}

// compare holds the archive against the tenant's full history.
func compare(w *world.World, got world.Contents, runs []exportRun) counts {
	c := counts{
		Archived: len(got.Items), Conversations: len(got.Conversations), Objects: got.Objects, Receipts: got.Receipts,
		Orphans: len(got.Orphans), Promised: len(got.Missing), Faults: map[string]int{},
	}
	recorded := map[sim.PersonID]bool{}
	for _, g := range []string{sim.RecordedEquities, sim.RecordedRates} {
		for _, p := range w.Tenant.UsersIn(g) {
			recorded[p] = true
		}
	}
	type key struct{ thread, message, etag string }
	truth := map[key]sim.Version{}
	expected := map[key]bool{}
	for _, v := range w.Tenant.History() {
		c.Versions++
		k := key{string(v.Thread), v.MessageID, v.ETag}
		truth[k] = v
		if v.Channel || !hasAny(v.Participants, recorded) {
			continue
		}
		for _, r := range runs {
			if stood(v, r) {
				expected[k] = true
			}
		}
	}
	c.Expected = len(expected)
	seen := map[key]bool{}
	for _, item := range got.Items {
		m := item.Message
		k := key{string(m.Thread), string(m.VersionKey.Message), string(m.ETag)}
		v, known := truth[k]
		switch {
		case !known || v.Channel || !hasAny(v.Participants, recorded):
			c.OutOfScope++
		case !bytes.Equal(v.Bytes, m.Raw):
			c.Altered++
		}
		if seen[k] {
			c.Duplicates++
		}
		seen[k] = true
	}
	for k := range expected {
		if !seen[k] {
			c.Missing++
		}
	}
	c.DeadLettered = w.Bus.Depth("chat-export").DeadLettered
	c.Parked = w.Bus.Depth("parked").Active
	usage(w, &c)
	c.OK = c.Expected > 0 && c.Missing+c.Duplicates+c.Altered+c.OutOfScope+c.Orphans+c.Promised+c.DeadLettered+c.Parked == 0
	return c
}

// stood reports whether a version was current for the whole of a run, and old enough
// for its windows.
func stood(v sim.Version, r exportRun) bool {
	return !v.CurrentFrom.After(r.start) && (v.CurrentTo.IsZero() || v.CurrentTo.After(r.end)) && v.LastModified.Before(r.edge)
}

func hasAny(people []sim.PersonID, in map[sim.PersonID]bool) bool {
	for _, p := range people {
		if in[p] {
			return true
		}
	}
	return false
}

// firstConversation waits until something is in the archive.
func firstConversation(ctx context.Context, a *world.Archive) error {
	for {
		page, err := a.Catalog.ByTime(ctx, time.Now().AddDate(0, -1, 0), time.Now().Add(time.Hour), conversation.PageRequest{Limit: 1})
		if err != nil {
			return err
		}
		if len(page.Conversations) > 0 {
			return nil
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// misbehave turns on every fault that Graph is known for.
func misbehave(t *sim.Tenant) {
	f := t.Faults()
	f.SlowBy(200 * time.Millisecond)
	f.Oversize(33 << 20)
	f.ForeignHost("https://graph.microsoft.com.invalid")
	for _, kind := range sim.AllFaults() {
		p := 0.01
		if kind == sim.OversizedPage {
			p = 0.002 // 33 MiB each
		}
		f.Chance(kind, p)
	}
	// Chance may spare a kind in a short run; each is served at least twice.
	for _, kind := range sim.AllFaults() {
		f.Next(kind, 2)
	}
}

// usage adds what the run asked of Graph and of storage.
func usage(w *world.World, c *counts) {
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
