// Package lookback reads history after the fact: of people and teams that are recorded, and
// for a stretch that somebody asks for and gives a reason for.
//
// A message on the Storage queue lookback asks for a job, as does the portal, and group sync
// for newcomers. The job is checked, resolved to custodians and kept in a register. A timer
// hands out its windows to chat-export, a few at a time behind the daily ones, until all
// are finished. The register is what lets a window be read: chatexport reads none that no
// running job speaks of, so a forged window message opens nothing.
//
// Everything may be repeated after a crash: the same message is the same job, windows that
// are queued twice are read twice and add nothing, and what a job counts is computed from
// the records of its finished windows.
package lookback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"steno/functions/internal/funchost"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

type directory interface {
	Members(ctx context.Context, group teams.GroupID) ([]teams.User, error)
}

type queue interface {
	Send(ctx context.Context, id string, body []byte, notBefore time.Time) error
}

// Config is what look-backs are bounded by. Zero fields mean the defaults.
type Config struct {
	Tenant teams.TenantID
	// InFlight is how many windows of the tenant's look-backs are queued at once.
	InFlight int
	// Patience is how long a window may be unfinished before it is queued again.
	Patience time.Duration
	// NoGroup is what the directory's errors wrap where there is no such group.
	NoGroup error
}

// Defaults of Config.
const (
	DefaultInFlight = 4
	DefaultPatience = 2 * time.Hour
)

// Stores are what look-backs work with.
type Stores struct {
	Jobs     policy.Lookbacks
	Roster   policy.Roster
	Catalog  conversation.Catalog
	Failures conversation.Failures
	Trail    custody.Log
}

// Lookback takes jobs and carries them out.
type Lookback struct {
	config    Config
	stores    Stores
	directory directory
	queue     queue
	log       *slog.Logger
}

// New returns a Lookback whose windows go to q.
func New(c Config, s Stores, d directory, q queue, log *slog.Logger) *Lookback {
	if c.InFlight == 0 {
		c.InFlight = DefaultInFlight
	}
	if c.Patience == 0 {
		c.Patience = DefaultPatience
	}
	return &Lookback{config: c, stores: s, directory: d, queue: q, log: log}
}

// Handle takes a message of the queue lookback. A job that is queued or running already is
// left alone; one that ended runs again. What is refused stands in the register with its
// reason and is parked.
func (l *Lookback) Handle(ctx context.Context, body []byte) error {
	now := time.Now().UTC()
	asked, err := Decode(body)
	if err != nil {
		return l.refuse(ctx, body, asked, err, now)
	}
	job, err := policy.AskLookback(asked, now)
	if err != nil {
		return l.refuse(ctx, body, asked, err, now)
	}
	custodians, err := l.resolve(ctx, job, now)
	if errors.Is(err, policy.ErrRefused) {
		return l.refuse(ctx, body, job, err, now)
	}
	if err != nil {
		return err
	}
	return l.take(ctx, job, custodians, now)
}

// resolve turns the scope into custodians. Who asks must be a compliance officer: the word
// of the message is not proof of who wrote it, but a name that could not ask is refused.
func (l *Lookback) resolve(ctx context.Context, j policy.Lookback, now time.Time) ([]teams.PersonID, error) {
	g, err := policy.GrantFor(ctx, l.stores.Roster, j.RequestedBy, now)
	if err != nil {
		return nil, err
	}
	if !g.Has(policy.ComplianceOfficer) {
		return nil, fmt.Errorf("%w: a look-back can be asked for in the name of a %s only", policy.ErrRefused, policy.ComplianceOfficer)
	}
	ids := slices.Concat(j.Scope.Users, j.Scope.Teams)
	for _, group := range j.Scope.Groups {
		users, err := l.directory.Members(ctx, group)
		if errors.Is(err, l.config.NoGroup) {
			return nil, fmt.Errorf("%w: a group of the scope of %d is not there", policy.ErrRefused, len(j.Scope.Groups))
		}
		if err != nil {
			return nil, err
		}
		for _, u := range users {
			ids = append(ids, u.ID)
		}
	}
	return j.Resolve(ctx, l.stores.Roster, ids)
}

// take stores a job that is not under way, after its custody event.
func (l *Lookback) take(ctx context.Context, job policy.Lookback, custodians []teams.PersonID, now time.Time) error {
	was, err := l.stores.Jobs.Get(ctx, job.ID)
	if err == nil && !was.Ended() {
		l.log.InfoContext(ctx, "look-back is under way already", slog.String("job", job.ID))
		return nil
	}
	if err != nil && !errors.Is(err, policy.ErrNotFound) {
		return fmt.Errorf("look-back %s: %w", job.ID, err)
	}
	if err := l.note(ctx, job, fmt.Sprintf("requested for %d custodians in the name of %s", len(custodians), job.RequestedBy)); err != nil {
		return err
	}
	if was.Revision != "" {
		err = l.stores.Jobs.Replace(ctx, was.Again(custodians, now))
	} else {
		job.Custodians = custodians
		err = l.stores.Jobs.Insert(ctx, job)
	}
	if errors.Is(err, policy.ErrExists) || errors.Is(err, policy.ErrChanged) {
		return nil // the same message, handled at the same time
	}
	if err != nil {
		return fmt.Errorf("look-back %s: %w", job.ID, err)
	}
	l.log.InfoContext(ctx, "look-back queued", slog.String("job", job.ID), slog.Int("custodians", len(custodians)))
	return nil
}

// refuse keeps the refusal for those who look, and parks the message.
func (l *Lookback) refuse(ctx context.Context, body []byte, asked policy.Lookback, why error, now time.Time) error {
	job := policy.RefusedLookback(body, asked, why, now)
	if err := l.note(ctx, job, "refused"); err != nil {
		return err
	}
	if err := l.stores.Jobs.Insert(ctx, job); err != nil && !errors.Is(err, policy.ErrExists) {
		return fmt.Errorf("look-back %s: %w", job.ID, err)
	}
	return fmt.Errorf("%w: look-back %s: %w", funchost.ErrPoison, job.ID, why)
}

func (l *Lookback) note(ctx context.Context, j policy.Lookback, detail string) error {
	_, err := l.stores.Trail.Append(ctx, custody.Event{
		Tenant: l.config.Tenant, Action: custody.LookedBack, System: "lookback", Item: "lookback-" + j.ID, Detail: detail,
	})
	return err
}
