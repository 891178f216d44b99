package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"steno/shared/conversation"
	"steno/shared/policy"
	"steno/tests/sim"
	"steno/tests/world"
)

// check runs the story: groups are read, history is exported, the tenant lives on with
// edits and deletions, and is exported again, until every stretch was read twice.
func check(ctx context.Context, w *world.World, o options, started time.Time) error {
	if err := w.Host.RunTimer(ctx, "groupsync"); err != nil {
		return err
	}
	if err := w.Host.RunTimer(ctx, "subscriptions"); err != nil {
		return err
	}
	if o.faults {
		misbehave(w.Tenant)
	}
	a, err := w.Archive()
	if err != nil {
		return err
	}
	calls := make(chan calling, 1)
	go func() {
		var c calling
		c.report, c.placed, c.err = checkCalls(ctx, w, a)
		calls <- c
	}()
	var runs []world.ExportRun
	for round := range 3 {
		if round > 0 {
			for range 40 {
				w.Tenant.Step()
			}
			if err := rewrite(w.Tenant); err != nil {
				return err
			}
			if err := w.Hear(ctx); err != nil {
				return fmt.Errorf("round %d: %w", round+1, err)
			}
		}
		run, err := w.Export(ctx)
		if err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
		runs = append(runs, run)
	}
	spoken := <-calls // calls end before their objects are counted
	if spoken.err != nil {
		return spoken.err
	}
	covered, err := w.CheckCoverage(ctx, spoken.placed, runs[len(runs)-1].Start)
	if err != nil {
		return err
	}
	contents, err := a.Read(ctx, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), time.Now().Add(time.Hour))
	if err != nil {
		return err
	}
	logged, err := w.CheckCustody(ctx, a)
	if err != nil {
		return err
	}
	escrow, err := w.LoseKeys(ctx, a)
	if err != nil {
		return err
	}
	handed, err := exported(ctx, w, a) // which opens what lies under the keys that came back
	if err != nil {
		return err
	}
	c, files := w.Compare(contents, runs), w.CompareFiles(contents)
	covered.Match(c, files)
	c.Seed, c.Messages, c.Seconds = o.seed, o.messages, time.Since(started).Seconds()
	line, err := json.Marshal(struct {
		world.Report
		Files    world.FilesReport    `json:"attachments"`
		Calls    *world.CallReport    `json:"calls,omitempty"`
		Coverage world.CoverageReport `json:"coverage"`
		Custody  world.CustodyReport  `json:"custody"`
		Escrow   world.EscrowReport   `json:"escrow"`
		Export   exportReport         `json:"export"`
	}{c, files, spoken.report, covered, logged, escrow, handed})
	if err != nil {
		return err
	}
	for _, e := range w.Host.Errors() {
		fmt.Fprintln(os.Stderr, "error line of the app:", e)
	}
	fmt.Println(string(line))
	if !c.OK || spoken.report != nil && !spoken.report.OK() {
		return errors.New("the archive is not what the tenant says")
	}
	if !covered.OK() {
		return errors.New("the coverage statements are not what the tenant says")
	}
	if c.ByNoticeAlone == 0 {
		return errors.New("no version came by notification alone")
	}
	if !files.OK() {
		return errors.New("the attachments are not what the tenant says")
	}
	if !logged.OK() || spoken.report != nil && logged.Seals < spoken.report.Legs {
		return errors.New("the custody log is not what the trail says")
	}
	if !escrow.OK() {
		return errors.New("keys of conversations did not come back from escrow")
	}
	return nil
}

// rewrite lets recorded users say things and think better of them at once, so that the first
// words never stand while an export runs: what only notifications can bring.
func rewrite(t *sim.Tenant) error {
	done := 0
	for _, th := range t.Threads() {
		if th.Kind.IsChannel() || done == 5 {
			continue
		}
		i := slices.IndexFunc(th.Members, func(p sim.PersonID) bool { return slices.Contains(t.UsersIn(sim.RecordedEquities), p) })
		if i < 0 {
			continue
		}
		m, err := t.Send(th.ID, th.Members[i], "<p>We should not say this.</p>")
		if err != nil {
			return err
		}
		for _, again := range []string{"<p>We may say this.</p>", "<p>We say this.</p>"} {
			if _, err := t.Edit(m.Thread, m.ID, again); err != nil {
				return err
			}
		}
		done++
	}
	if done == 0 {
		return errors.New("nobody recorded is in any chat")
	}
	return nil
}

// exportReport is an export package of the check, and what an outsider finds.
type exportReport struct {
	Conversations int    `json:"conversations"`
	Bytes         int    `json:"bytes"`
	Verdict       string `json:"verdict"` // of shared/custody/verify
}

// exported orders a package of the newest conversations, as many as one person may hand
// out, and has it verified by the program for outsiders, which knows the fingerprint of the
// vault's key and nothing else of this world.
func exported(ctx context.Context, w *world.World, a *world.Archive) (r exportReport, err error) {
	page, err := a.Catalog.ByTime(ctx, time.Now().AddDate(-1, 0, 0), time.Now().Add(time.Hour), conversation.PageRequest{Limit: policy.MaxExportAlone})
	if err != nil {
		return r, err
	}
	var ids []conversation.ID
	for _, c := range page.Conversations {
		ids = append(ids, c.ID)
	}
	b, err := w.Package(ctx, w.Person(w.Officers()[0]), ids...)
	if err != nil {
		return r, err
	}
	fingerprint, err := w.Fingerprint(ctx)
	if err != nil {
		return r, err
	}
	f, err := os.CreateTemp("", "steno-export-*.zip")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	if _, err := f.Write(b); err != nil {
		return r, errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return r, err
	}
	out, err := exec.CommandContext(ctx, "go", "run", "steno/shared/custody/verify", "-key", fingerprint, f.Name()).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	r = exportReport{len(ids), len(b), lines[len(lines)-1]}
	if err != nil {
		return r, fmt.Errorf("the export package does not verify: %s", out)
	}
	return r, nil
}

// calling is how the calls of a check came out.
type calling struct {
	report *world.CallReport
	placed []*sim.Call
	err    error
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
		if err := world.Sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
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
	for _, kind := range append(sim.AllFaults(), sim.FileFaults()...) {
		f.Next(kind, 2)
	}
	for _, kind := range sim.NotificationFaults() {
		f.Chance(kind, 0.05)
	}
}
