// Package retention holds, keeps and ends evidence: it puts what matters cover under legal
// hold, moves Retain Until on where the policies ask for more, disposes what is due and
// not held, and executes erasures that two persons agreed to.
//
// Hold beats expiry beats erasure. What is due is planned first and destroyed after, in
// the same run: the plan is a row, then the custody event is durable, then the matters are
// read again before each single deletion. A run may die anywhere; the next one goes on
// where the rows say, and decides anew whatever was not begun.
//
// Nothing is destroyed on the word of one table. What is due is worked out again from the
// conversation's id and the sealed manifests of its legs, storage refuses what is under a
// date or a hold, a disposition that is begun must have its custody event, and an erasure
// its executed approval. A clock that differs from storage's stops all of it, and so does a
// plan of more conversations than a day's cap: then nothing is destroyed, and a line with
// alarm=… says so.
//
// A run reads the listing of all conversations, five operations for every thousand. Where a
// recovery key is configured it also copies new conversation keys into write-once storage.
package retention

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Defaults and limits.
const (
	// DefaultCap is the share of all conversations that is disposed in a day without
	// approval. Of ten years one day is 0.03 %.
	DefaultCap = 0.02
	// CapFloor is how many are disposed in a day whatever the share is: of a small archive
	// two percent is nothing.
	CapFloor = 10
	// MinErasureWait is how long an approved erasure waits at least.
	MinErasureWait = 7 * 24 * time.Hour
	// MaxSkew is how far our clock may be from storage's.
	MaxSkew = 5 * time.Minute
	// SweepEvery is how often all evidence is brought under the policies though they did
	// not change: for conversations that got another custodian.
	SweepEvery = 30 * 24 * time.Hour
	// DefaultSweepFor is how long one run moves dates on before it leaves the rest of a sweep
	// to the next one, so that there is time for what is due.
	DefaultSweepFor = 4 * time.Minute
	// parallel is how many conversations storage is asked about at the same time.
	parallel = 8
	// recent is for how long each run looks after calls, whose packs are stored under the
	// container's default alone.
	recent = 7 * 24 * time.Hour
)

// Config sizes a Retention.
type Config struct {
	Tenant   teams.TenantID
	Policies policy.DataPolicies
	History  time.Duration // as in exportplan
	Grace    time.Duration // after a release; 0 means policy.DefaultGrace
	Wait     time.Duration // after the approval of an erasure; less than MinErasureWait means that
	Cap      float64       // share of conversations a day; 0 means DefaultCap
	SweepFor time.Duration // how long a run may move dates on; 0 means DefaultSweepFor
	Escrow   bool          // keys carry a copy for recovery, which is brought to write-once storage
	Now      func() time.Time
}

// Catalog is the register as far as retention uses it.
type Catalog interface {
	Slice(ctx context.Context, id conversation.ID) (conversation.Slice, error)
	ByTime(ctx context.Context, from, to time.Time, page conversation.PageRequest) (conversation.Page, error)
	ByPerson(ctx context.Context, person teams.PersonID, from, to time.Time, page conversation.PageRequest) (conversation.Page, error)
	Call(ctx context.Context, key conversation.ThreadKey) (conversation.Call, error)
	conversation.Graves
}

// Evidence opens the manifests of legs, from which is worked out how old they are.
type Evidence interface {
	Open(ctx context.Context, ref evidence.Ref, receipt custody.Receipt) (*evidence.Object, error)
}

// Stores are what a Retention works on.
type Stores struct {
	Catalog      Catalog
	Roster       policy.Roster
	Evidence     Evidence
	Keeper       evidence.Keeper
	Matters      policy.Matters
	Approvals    policy.Approvals
	Dispositions policy.Dispositions
	Exports      policy.Exports
	Packages     evidence.Keeper // of the container of export packages
	Trail        custody.Log
}

// Retention is the timer function of that name.
type Retention struct {
	c   Config
	s   Stores
	log *slog.Logger
}

// New returns a Retention.
func New(c Config, s Stores, log *slog.Logger) *Retention {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Grace == 0 {
		c.Grace = policy.DefaultGrace
	}
	c.Wait = max(c.Wait, MinErasureWait)
	if c.SweepFor == 0 {
		c.SweepFor = DefaultSweepFor
	}
	if c.Cap == 0 {
		c.Cap = DefaultCap
	}
	return &Retention{c: c, s: s, log: log}
}

// Run does what is due. It must not run twice at the same time; a timer does not. What
// fails for one conversation does not keep the others waiting: all errors come back
// together, and the next run tries again.
func (r *Retention) Run(ctx context.Context) error {
	periods, err := policy.Custodians(ctx, r.s.Roster)
	if err != nil {
		return fmt.Errorf("retention: %w", err)
	}
	p := &pass{Retention: r, now: r.c.Now().UTC(), periods: map[teams.PersonID][]policy.Period{}}
	for _, x := range periods {
		p.periods[x.Person] = append(p.periods[x.Person], x)
	}
	if err := p.placeHolds(ctx); err != nil {
		// Without the holds on storage nothing else may happen: they are what must not fail.
		return fmt.Errorf("retention: %w", err)
	}
	escrowed := p.escrow(ctx)
	agree, err := p.clockAgrees(ctx)
	if err != nil || !agree {
		return errors.Join(escrowed, err)
	}
	err = errors.Join(escrowed, p.liftHolds(ctx), p.survey(ctx), p.erase(ctx), p.expirePackages(ctx))
	if p.whole {
		err = errors.Join(err, p.plan(ctx))
	}
	err = errors.Join(err, p.execute(ctx), p.certify(ctx))
	if err != nil {
		return fmt.Errorf("retention: %w", err)
	}
	p.log.InfoContext(ctx, "retention run", slog.Int("conversations", p.total), slog.Int("candidates", len(p.due)), slog.Int("moved", p.moved))
	return nil
}

// pass is one run.
type pass struct {
	*Retention
	now     time.Time
	periods map[teams.PersonID][]policy.Period
	total   int               // conversations that are not disposed
	due     []conversation.ID // candidates: due by what the listing says
	whole   bool              // all conversations were seen
	moved   int               // objects whose Retain Until moved on
}

// system is who acts in the custody trail.
const system = "retention"

// record appends a custody event and returns its id.
func (r *Retention) record(ctx context.Context, e custody.Event) (string, error) {
	e.Tenant, e.System = r.c.Tenant, system
	receipt, err := r.s.Trail.Append(ctx, e)
	return receipt.Event(), err
}

// alarm logs the line that operators match on.
func (r *Retention) alarm(ctx context.Context, name, text string, attrs ...any) {
	r.log.ErrorContext(ctx, text, append([]any{slog.String("alarm", name)}, attrs...)...)
}

// clockAgrees compares our clock with storage's. Every expiry is a question of what time
// it is, so with a clock that is off nothing is lifted, extended or destroyed.
func (p *pass) clockAgrees(ctx context.Context) (bool, error) {
	theirs, err := p.s.Keeper.Objects.Now(ctx)
	if err != nil {
		return false, fmt.Errorf("retention: read the clock of storage: %w", err)
	}
	if skew := p.now.Sub(theirs); skew.Abs() > MaxSkew {
		p.alarm(ctx, "clock", "nothing is disposed: our clock and that of storage differ", slog.Time("ours", p.now), slog.Time("storage", theirs))
		return false, nil
	}
	return true, nil
}

// holds reads the matters as they are now.
func (r *Retention) holds(ctx context.Context) (policy.Holds, error) {
	matters, err := r.s.Matters.List(ctx)
	if err != nil {
		return policy.Holds{}, fmt.Errorf("read matters: %w", err)
	}
	return policy.Holds{Matters: matters, Grace: r.c.Grace}, nil
}

func hexDigest(b []byte) string {
	d := sha256.Sum256(b)
	return hex.EncodeToString(d[:])
}
