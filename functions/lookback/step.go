package lookback

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/policy"
	"steno/shared/teams"
)

// span is how much one window of a look-back reads. chatexport cuts it until it fits a page.
const span = 7 * 24 * time.Hour

// windows is how many windows the job has: those of each custodian, oldest first.
func windows(j policy.Lookback) int { return len(j.Custodians) * perCustodian(j) }

func perCustodian(j policy.Lookback) int { return int((j.To.Sub(j.From) + span - 1) / span) }

// windowOf is one window of the job. Bounds are exclusive, so each reaches back by one
// resolution.
func (l *Lookback) windowOf(j policy.Lookback, index int) conversation.Window {
	n := perCustodian(j)
	from := j.From.Add(time.Duration(index%n) * span)
	to := from.Add(span)
	if to.After(j.To) {
		to = j.To
	}
	w := conversation.Window{
		Tenant: l.config.Tenant, Custodian: j.Custodians[index/n], Pass: conversation.LookbackPass, Job: j.ID,
		From: from.Add(-conversation.Resolution), To: to,
	}
	if len(j.Scope.Teams) > 0 {
		w.Source = teams.Channels
	}
	return w
}

// Step carries the tenant's look-backs on, one job at a time: it counts the windows that
// were finished and queues as many others. Runs must not overlap; the timer sees to it.
// Idle it costs one query; with a job, two queries for each of the few windows in flight.
func (l *Lookback) Step(ctx context.Context) error {
	jobs, err := l.stores.Jobs.List(ctx)
	if err != nil {
		return fmt.Errorf("look-backs: %w", err)
	}
	jobs = slices.DeleteFunc(jobs, policy.Lookback.Ended)
	if len(jobs) == 0 {
		return nil
	}
	job := slices.MinFunc(jobs, func(a, b policy.Lookback) int {
		return cmp.Or(-cmp.Compare(started(a), started(b)), a.MadeAt.Compare(b.MadeAt), cmp.Compare(a.ID, b.ID))
	})
	if job, err = l.start(ctx, job); err == nil {
		err = l.advance(ctx, job)
	}
	if errors.Is(err, policy.ErrChanged) {
		return nil // it was canceled meanwhile, and the next step sees it
	}
	if err != nil {
		return fmt.Errorf("look-back %s: %w", job.ID, err)
	}
	return nil
}

func started(j policy.Lookback) int {
	if j.State == policy.LookbackRunning {
		return 1
	}
	return 0
}

func (l *Lookback) start(ctx context.Context, j policy.Lookback) (policy.Lookback, error) {
	if j.State == policy.LookbackRunning {
		return j, nil
	}
	j.State, j.StartedAt, j.Windows = policy.LookbackRunning, time.Now().UTC().Truncate(time.Millisecond), windows(j)
	if err := l.note(ctx, j, fmt.Sprintf("begun, %d windows", j.Windows)); err != nil {
		return j, err
	}
	return l.replace(ctx, j)
}

// replace stores the job and returns it as it is stored.
func (l *Lookback) replace(ctx context.Context, j policy.Lookback) (policy.Lookback, error) {
	if err := l.stores.Jobs.Replace(ctx, j); err != nil {
		return j, err
	}
	return l.stores.Jobs.Get(ctx, j.ID)
}

// advance counts what was finished and queues what may be. Windows are queued before the
// job is stored, so a crash in between queues them twice and loses none.
func (l *Lookback) advance(ctx context.Context, j policy.Lookback) error {
	now := time.Now().UTC()
	var open []policy.LookbackWindow
	for _, o := range j.Open {
		finished, err := l.count(ctx, &j, l.windowOf(j, o.Index))
		if err != nil {
			return err
		}
		if finished {
			continue
		}
		if now.Sub(o.At) >= l.config.Patience {
			o.At = now
			if err := l.send(ctx, l.windowOf(j, o.Index)); err != nil {
				return err
			}
		}
		open = append(open, o)
	}
	for len(open) < l.config.InFlight && j.Next < j.Windows {
		if err := l.send(ctx, l.windowOf(j, j.Next)); err != nil {
			return err
		}
		open = append(open, policy.LookbackWindow{Index: j.Next, At: now})
		j.Next++
	}
	j.Open = open
	if len(open) > 0 {
		_, err := l.replace(ctx, j)
		return err
	}
	return l.end(ctx, j, now)
}

func (l *Lookback) end(ctx context.Context, j policy.Lookback, now time.Time) error {
	j.State, j.EndedAt = policy.LookbackDone, now
	detail := fmt.Sprintf("ended: %d new of %d returned, %d unclear, %d of %d windows not read", j.New, j.Returned, j.Unclear, j.Failed, j.Windows)
	if err := l.note(ctx, j, detail); err != nil {
		return err
	}
	if _, err := l.replace(ctx, j); err != nil {
		return err
	}
	l.log.InfoContext(ctx, "look-back ended", slog.String("job", j.ID), slog.Int("new", j.New), slog.Int("returned", j.Returned),
		slog.Int("unclear", j.Unclear), slog.Int("failed", j.Failed))
	return nil
}

func (l *Lookback) send(ctx context.Context, w conversation.Window) error {
	w, err := l.located(ctx, w)
	if err != nil {
		return err
	}
	body, err := conversation.EncodeWindow(w)
	if err != nil {
		return err
	}
	return l.queue.Send(ctx, w.MessageID(), body, time.Time{})
}

// located reads a team where it can be read: one that was deleted, among the deleted.
func (l *Lookback) located(ctx context.Context, w conversation.Window) (conversation.Window, error) {
	if !w.Source.OfTeam() {
		return w, nil
	}
	facts, err := l.stores.Roster.People(ctx, []teams.PersonID{w.Custodian})
	if err != nil {
		return w, fmt.Errorf("read team: %w", err)
	}
	if !facts[w.Custodian].Deleted.IsZero() {
		w.Source = teams.DeletedTeam
	}
	return w, nil
}

// count adds a window to the job's counts if it is finished: read, or known not to be readable.
// The counts come from the records of this run of the job, so they are the same however
// often a step is repeated.
func (l *Lookback) count(ctx context.Context, j *policy.Lookback, w conversation.Window) (bool, error) {
	records, err := l.stores.Catalog.FinishedWindows(ctx, w.Custodian, w.Pass, w.From, w.To)
	if err != nil {
		return false, err
	}
	records = slices.DeleteFunc(records, func(d conversation.WindowDone) bool { return d.Job != j.ID || d.At.Before(j.StartedAt) })
	failures, err := l.stores.Failures.FailuresOf(ctx, w.Custodian)
	if err != nil {
		return false, err
	}
	at := slices.IndexFunc(failures, func(f conversation.WindowFailed) bool { return f.Key() == w.Key() })
	if len(w.Uncovered(records)) > 0 {
		if at < 0 || failures[at].Job != j.ID || failures[at].At.Before(j.StartedAt) {
			return false, nil
		}
		j.Failed++
		return true, nil
	}
	for _, d := range records {
		j.Returned += d.Returned
		j.New += d.New
		j.Unclear += d.Unclear
	}
	if at >= 0 {
		return true, l.stores.Failures.RemoveFailure(ctx, failures[at])
	}
	return true, nil
}
