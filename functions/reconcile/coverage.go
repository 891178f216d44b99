package reconcile

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"steno/shared/conversation"
	"steno/shared/coverage"
	"steno/shared/custody"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/teams"
)

// DefaultAfter is how long after the end of a day its statements are made. An export window
// is a day long and may end at any time of the day, so it takes a day and some hours until all
// of a day was read. The second statement also knows what the later passes found.
var DefaultAfter = []time.Duration{30 * time.Hour, 102 * time.Hour}

// DefaultReadLag is how far behind now the export has certainly been planned and read where
// everything works: its own lag, and an hour for the planning timer and the queue.
const DefaultReadLag = 75 * time.Minute

// LookBack is how many days back statements are made for when none has been made yet, and how
// long Graph's call records can be asked for.
const LookBack = 30

// CoverageConfig is what the coverage statement needs to know.
type CoverageConfig struct {
	Tenant  teams.TenantID
	History time.Duration // as in exportplan
	// Groups say which calls are recorded.
	Groups []policy.RoleGroup
	// Files says that attachments are fetched.
	Files bool
	// Calls says that calls are recorded, so that they are expected to be.
	Calls     bool
	Tolerance coverage.Tolerance // coverage.DefaultTolerance if zero
	// After is when, counted from the end of a day, its statements are made.
	After []time.Duration
	// Interim is how often a statement is made for a day whose first is not due yet; 0 means never.
	Interim time.Duration
	// ReadLag is how far behind now a statement for a day that is not over ends.
	ReadLag time.Duration
	// Migrated is when Microsoft moved the tenant's private channels, zero if nobody said.
	Migrated time.Time
	// Canary is the thread in which somebody, or something, writes each day; empty for none.
	Canary teams.ThreadID
	Maker  string
	Now    func() time.Time
}

// Graph lists call records.
type Graph interface {
	CallRecords(ctx context.Context, from, to time.Time) ([]msgraph.CallRecord, error)
	Sessions(ctx context.Context, record string) ([]msgraph.Session, error)
}

// Signer signs statements; the custody log's own does.
type Signer interface {
	SigningKey(ctx context.Context) (id string, key *ecdsa.PublicKey, err error)
	Sign(ctx context.Context, id string, digest [sha256.Size]byte) ([]byte, error)
}

// CoverageStores is what was expected and what was captured.
type CoverageStores struct {
	Roster     policy.Roster
	Catalog    conversation.Catalog
	Recorded   conversation.Calls
	Failures   conversation.Failures
	Files      conversation.Attachments
	Records    coverage.CallRecords
	Statements coverage.Statements
	Trail      custody.Log
	State      State
	Graph      Graph
	Signer     Signer
	Alerters   []Alerter
}

// Coverage makes coverage statements.
type Coverage struct {
	c   CoverageConfig
	s   CoverageStores
	log *slog.Logger
}

// NewCoverage returns a Coverage.
func NewCoverage(c CoverageConfig, s CoverageStores, log *slog.Logger) *Coverage {
	if c.Tolerance == (coverage.Tolerance{}) {
		c.Tolerance = coverage.DefaultTolerance
	}
	if len(c.After) == 0 {
		c.After = DefaultAfter
	}
	c.ReadLag = cmp.Or(c.ReadLag, DefaultReadLag)
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Coverage{c: c, s: s, log: log}
}

// Run harvests call records, judges calls, and makes the statements that are due. What it
// finds missing is in the trail, in the log, and on its way to whoever is to be alerted,
// before its progress is stored; a run that dies is repeated, so an alert may come twice and
// none is lost. Two runs must not overlap; the timer sees to it.
func (c *Coverage) Run(ctx context.Context) error {
	r := &coverageRun{Coverage: c, now: c.c.Now().UTC().Truncate(time.Millisecond), periods: map[teams.PersonID][]policy.Period{}}
	if err := r.load(ctx); err != nil {
		return fmt.Errorf("reconcile: %w", err)
	}
	if c.c.Calls {
		if err := errors.Join(r.harvest(ctx), r.judge(ctx)); err != nil {
			// Statements wait: one that leaves out calls would be believed.
			return fmt.Errorf("reconcile: %w", err)
		}
	}
	return r.stateDays(ctx)
}

// coverageRun is one run.
type coverageRun struct {
	*Coverage
	now      time.Time
	state    coverageState
	revision string // of the state
	// periods are those in which each custodian was recorded.
	periods map[teams.PersonID][]policy.Period
	alerts  []Alert
}

func (r *coverageRun) load(ctx context.Context) error {
	body, revision, err := r.s.State.Head(ctx)
	if err != nil {
		return fmt.Errorf("read progress of coverage: %w", err)
	}
	r.revision = revision
	if r.state, err = decodeCoverageState(body); err != nil {
		return err
	}
	periods, err := policy.Custodians(ctx, r.s.Roster)
	if err != nil {
		return err
	}
	for _, p := range periods {
		r.periods[p.Person] = append(r.periods[p.Person], p)
	}
	return nil
}

// stateDays makes what is due, day by day, oldest first.
func (r *coverageRun) stateDays(ctx context.Context) error {
	first, ok := r.firstDay()
	if !ok {
		return r.save(ctx)
	}
	for day := first; !day.After(r.now); day = day.AddDate(0, 0, 1) {
		name, end := day.Format(time.DateOnly), day.AddDate(0, 0, 1)
		d := r.state.Days[name]
		due := d.Made
		for due < len(r.c.After) && !r.now.Before(end.Add(r.c.After[due])) {
			due++
		}
		interim := r.c.Interim > 0 && due == 0 && r.now.Sub(d.At) >= r.c.Interim
		if due == d.Made && !interim {
			continue
		}
		to := r.now.Add(-r.c.ReadLag)
		if to.After(end) {
			to = end
		}
		if !to.After(day) {
			continue
		}
		revision, err := r.make(ctx, day, to, d.Revision+1, due > d.Made)
		if err != nil {
			return fmt.Errorf("reconcile: coverage statement of %s: %w", name, err)
		}
		r.alert(ctx)
		r.state.Days[name] = dayState{Made: due, Revision: revision, At: r.now}
		if err := r.save(ctx); err != nil {
			return fmt.Errorf("reconcile: %w", err)
		}
	}
	return r.save(ctx)
}

// firstDay is the first day on which anybody was recorded, but not more than LookBack ago.
func (r *coverageRun) firstDay() (time.Time, bool) {
	oldest := r.now.Truncate(24*time.Hour).AddDate(0, 0, -LookBack)
	first := r.now
	for _, own := range r.periods {
		for _, s := range spans(own, r.c.History, r.now) {
			if s.From.Before(first) {
				first = s.From
			}
		}
	}
	if first.Before(oldest) {
		first = oldest
	}
	return first.UTC().Truncate(24 * time.Hour), len(r.periods) > 0
}

// spans are the stretches in which a custodian's messages are exported.
func spans(periods []policy.Period, history time.Duration, until time.Time) []policy.Span {
	wide := make([]policy.Period, 0, len(periods))
	for _, p := range periods {
		p.From = p.From.Add(-history)
		wide = append(wide, p)
	}
	return policy.Covered(wide, time.Time{}, until)
}

// make makes one statement, signs, stores and logs it. It returns the revision it got: that
// of a writer which died before it had signed is passed over.
func (r *coverageRun) make(ctx context.Context, day, to time.Time, revision int, due bool) (int, error) {
	s, err := r.statement(ctx, day, to)
	if err != nil {
		return 0, err
	}
	for ; ; revision++ {
		s.Revision = revision
		body, err := s.Encode()
		if err != nil {
			return 0, err
		}
		digest := sha256.Sum256(body)
		key, _, err := r.s.Signer.SigningKey(ctx)
		if err != nil {
			return 0, fmt.Errorf("signing key: %w", err)
		}
		signature, err := r.s.Signer.Sign(ctx, key, digest)
		if err != nil {
			return 0, fmt.Errorf("sign: %w", err)
		}
		err = r.s.Statements.Create(ctx, coverage.Stated{Day: s.Day, Revision: revision}, body, signature)
		if errors.Is(err, coverage.ErrStated) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return revision, r.told(ctx, s, hex.EncodeToString(digest[:]), due)
	}
}

// told binds a statement in the custody log, and raises an alert if it is not whole though it
// was due: before, much is still open.
func (r *coverageRun) told(ctx context.Context, s coverage.Statement, digest string, due bool) error {
	detail := fmt.Sprintf("sha256=%s revision=%d", digest, s.Revision)
	attrs := []any{slog.String("day", s.Day), slog.Int("revision", s.Revision), slog.String("canary", string(s.Canary)), slog.Int64("late", s.Second.Late)}
	for _, t := range s.Totals {
		sums := fmt.Sprintf("%d=%d+%d+%d+%d", t.Expected, t.Captured, t.Excluded, t.Failed, t.Unknown)
		detail += fmt.Sprintf(" %s-%s=%s", t.Modality, t.Unit, sums)
		attrs = append(attrs, slog.String(string(t.Modality)+"-"+string(t.Unit), sums))
	}
	if _, err := r.s.Trail.Append(ctx, custody.Event{
		Tenant: r.c.Tenant, Action: custody.Stated, System: system, Item: fmt.Sprintf("coverage/%s/%d", s.Day, s.Revision), Detail: detail,
	}); err != nil {
		return err
	}
	r.log.InfoContext(ctx, "coverage stated", attrs...)
	if !due {
		return nil
	}
	switch {
	case s.Canary == coverage.CanaryMissing:
		r.alerts = append(r.alerts, Alert{Name: "canary", Day: s.Day, Text: "The message that is written each day for this purpose was not captured."})
	case s.Second.Late > 0:
		r.alerts = append(r.alerts, Alert{Name: "second-pass", Day: s.Day, Count: s.Second.Late, Text: "A later reading found message versions that an earlier one had missed."})
	}
	for _, t := range s.Totals {
		for _, reason := range t.Reasons {
			if reason.Code == coverage.Unconfirmed {
				r.alerts = append(r.alerts, Alert{Name: "unconfirmed", Day: s.Day, Count: reason.Count, Text: "Notifications brought message versions that no export has returned since: Graph's export lacks them, or somebody planted them."})
			}
		}
		if t.Failed > 0 || t.Unknown > 0 {
			r.alerts = append(r.alerts, Alert{Name: "coverage", Day: s.Day, Count: t.Failed + t.Unknown,
				Text: fmt.Sprintf("Coverage of %s in %s: of %d expected, %d failed and %d are unknown. The statement names custodians and reasons.", t.Modality, t.Unit, t.Expected, t.Failed, t.Unknown)})
		}
	}
	return nil
}
