// Package groupsync reads the Entra groups that give roles, and the teams that rules name,
// and keeps the roster: who is recorded, who supervises whom, who administers, and which
// teams' channels are recorded, from when to when.
//
// The directory is asked for whole groups, nested ones included, and the answer is
// compared with the periods that are open. A group that cannot be read to its end
// stops the run before anything is changed, and a group that lost more people than
// is believable keeps them until somebody confirms: recording too long is mended,
// not recording is not.
package groupsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

// DefaultMaxDrop is the share of a group's members that may be gone in one reading.
const DefaultMaxDrop = 0.3

// CommunicationsDLP is the service plan that Microsoft asks for on people whose chats
// are exported (COMMUNICATIONS_DLP).
const CommunicationsDLP = "6dc145d6-95dd-4191-b9c3-185575ee6f6b"

// ErrSuspiciousDrop is returned after a run that kept people on a roster because too
// many of them were gone at once. Everything else of the run is stored.
var ErrSuspiciousDrop = errors.New("too many people left a role group at once; kept on the roster")

type directory interface {
	FindGroup(ctx context.Context, displayName string) (teams.GroupID, error)
	Members(ctx context.Context, group teams.GroupID) ([]teams.User, error)
}

// Config says which groups give which roles.
type Config struct {
	Tenant teams.TenantID
	Groups []policy.RoleGroup
	// MaxDrop is the share (0 to 1) of a role group that may leave in one reading; 1
	// confirms any drop. Zero means DefaultMaxDrop.
	MaxDrop float64
	// Teams says which teams' channels are recorded.
	Teams []policy.TeamRule
	// NoGroup is what the directory's errors wrap where there is no such group, or several.
	NoGroup error
	// Newcomers is how far back the history of somebody is read who was never recorded
	// before; zero for not at all.
	Newcomers time.Duration
}

// Sync is one group synchronization. Runs must not overlap; the timer sees to it.
type Sync struct {
	config    Config
	directory directory
	tenant    tenant
	roster    policy.Roster
	jobs      policy.Lookbacks
	trail     custody.Log
	log       *slog.Logger
}

// New returns a Sync.
func New(c Config, d directory, t tenant, r policy.Roster, jobs policy.Lookbacks, trail custody.Log, log *slog.Logger) *Sync {
	if c.MaxDrop == 0 {
		c.MaxDrop = DefaultMaxDrop
	}
	return &Sync{config: c, directory: d, tenant: t, roster: r, jobs: jobs, trail: trail, log: log}
}

// Run reads all role groups, then the teams that rules name, and stores what changed. It
// may be repeated at any time: a run that finds nothing new changes nothing. Teams are
// followed even if the role groups cannot be.
func (s *Sync) Run(ctx context.Context) error {
	return errors.Join(s.syncPeople(ctx), s.syncTeams(ctx))
}

func (s *Sync) syncPeople(ctx context.Context) error {
	memberships, people, err := s.read(ctx)
	if err != nil {
		return err
	}
	at := time.Now().UTC().Truncate(time.Millisecond)
	both := policy.Conflicts(memberships)
	for _, p := range both {
		s.log.ErrorContext(ctx, "administrator and compliance officer at once; both roles refused",
			slog.String("alarm", "separation-of-duties"), slog.Any("person", p))
	}
	memberships = without(memberships, both)
	var open []policy.Period
	var recorded []policy.Period
	ever := map[teams.PersonID]bool{} // who was recorded before
	for _, role := range policy.Roles {
		periods, err := s.roster.Periods(ctx, role)
		if err != nil {
			return fmt.Errorf("read roster: %w", err)
		}
		if role == policy.RecordedUser {
			recorded = slices.Clone(periods)
		}
		for _, p := range recorded {
			ever[p.Person] = true
		}
		open = append(open, slices.DeleteFunc(periods, func(p policy.Period) bool { return !p.Open() })...)
	}
	opened, closed := policy.Diff(open, memberships, at)
	drops := policy.SuspiciousDrops(open, closed, s.config.MaxDrop)
	for _, d := range drops {
		s.log.ErrorContext(ctx, "suspicious drop refused; people stay on the roster",
			slog.String("alarm", "suspicious-drop"), slog.String("role", string(d.Role)), slog.String("desk", d.Desk),
			slog.Int("before", d.Before), slog.Int("gone", d.Gone))
		closed = slices.DeleteFunc(closed, func(p policy.Period) bool { return p.Role == d.Role && p.Desk == d.Desk })
	}
	people, turns, err := s.lifecycle(ctx, people, recorded, at)
	if err != nil {
		return err
	}
	if err := errors.Join(s.lookBack(ctx, opened, ever, at), s.noteTurns(ctx, turns)); err != nil {
		return err
	}
	if err := s.apply(ctx, policy.Change{At: at, Opened: opened, Closed: closed, People: people}); err != nil {
		return err
	}
	s.report(ctx, memberships, people, opened, closed)
	if len(drops) > 0 {
		return fmt.Errorf("%w: %d role groups", ErrSuspiciousDrop, len(drops))
	}
	return nil
}

// read asks the directory for every role group, all or nothing.
func (s *Sync) read(ctx context.Context) ([]policy.Membership, []policy.Person, error) {
	var memberships []policy.Membership
	byID := map[teams.PersonID]policy.Person{}
	for _, g := range s.config.Groups {
		users, err := s.members(ctx, g)
		if err != nil {
			return nil, nil, err
		}
		m := policy.Membership{Role: g.Role, Desk: g.Desk}
		for _, u := range users {
			m.People = append(m.People, u.ID)
			byID[u.ID] = policy.Person{
				ID: u.ID, DisplayName: u.DisplayName, Address: u.Address, Enabled: u.Enabled, Guest: u.Guest,
				CommunicationsDLP: slices.Contains(u.ServicePlans, CommunicationsDLP),
			}
		}
		memberships = append(memberships, m)
	}
	people := make([]policy.Person, 0, len(byID))
	for _, p := range byID {
		people = append(people, p)
	}
	slices.SortFunc(people, func(a, b policy.Person) int { return slices.Compare([]byte(a.ID), []byte(b.ID)) })
	return memberships, people, nil
}

// members lists who is in a group, nested ones included.
func (s *Sync) members(ctx context.Context, g policy.RoleGroup) ([]teams.User, error) {
	id, ok := g.ByObjectID()
	if !ok {
		var err error
		if id, err = s.directory.FindGroup(ctx, g.Group); err != nil {
			return nil, fmt.Errorf("role group %s: %w", g.Key(), err)
		}
	}
	users, err := s.directory.Members(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("role group %s: %w", g.Key(), err)
	}
	return users, nil
}

// apply leaves a custody event before the roster changes: who is recorded is policy,
// and policy leaves a trail.
func (s *Sync) apply(ctx context.Context, c policy.Change) error {
	if len(c.Opened)+len(c.Closed) > 0 {
		_, err := s.trail.Append(ctx, custody.Event{
			Tenant: s.config.Tenant, Action: custody.RosterChange, System: "groupsync", Item: "roster",
			Detail: fmt.Sprintf("opened %d, closed %d periods", len(c.Opened), len(c.Closed)),
		})
		if err != nil {
			return err
		}
	}
	if err := s.roster.Apply(ctx, c); err != nil {
		return fmt.Errorf("store roster: %w", err)
	}
	return nil
}

// report leaves one line a run, and one for each recorded user whose plan is missing.
func (s *Sync) report(ctx context.Context, ms []policy.Membership, people []policy.Person, opened, closed []policy.Period) {
	recorded := map[teams.PersonID]bool{}
	for _, m := range ms {
		if m.Role == policy.RecordedUser {
			for _, p := range m.People {
				recorded[p] = true
			}
		}
	}
	missing := 0
	for _, p := range people {
		if recorded[p.ID] && !p.CommunicationsDLP {
			missing++
			s.log.WarnContext(ctx, "recorded user lacks the Communications DLP plan", slog.Any("person", p.ID))
		}
	}
	s.log.InfoContext(ctx, "role groups read", slog.Int("recorded", len(recorded)), slog.Int("people", len(people)),
		slog.Int("opened", len(opened)), slog.Int("closed", len(closed)), slog.Int("withoutPlan", missing))
}

func without(ms []policy.Membership, refused []teams.PersonID) []policy.Membership {
	out := slices.Clone(ms)
	for i, m := range out {
		if m.Role == policy.Administrator || m.Role == policy.ComplianceOfficer {
			out[i].People = slices.DeleteFunc(slices.Clone(m.People), func(p teams.PersonID) bool {
				return slices.Contains(refused, p)
			})
		}
	}
	return out
}
