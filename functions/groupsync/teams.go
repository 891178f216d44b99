package groupsync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"steno/shared/custody"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/teams"
)

// ErrUnknownTeam is returned after a run that met a rule whose team or group the directory
// does not know. Whatever was recorded by that rule is recorded on, and every other rule
// is followed.
var ErrUnknownTeam = errors.New("rules of recorded teams name teams or groups that are not there; whatever they covered is recorded on")

type tenant interface {
	Teams(ctx context.Context) ([]teams.Team, error)
	Team(ctx context.Context, id teams.PersonID) (teams.Team, error)
	Owners(ctx context.Context, team teams.PersonID) ([]teams.PersonID, error)
	DeletedTeams(ctx context.Context) ([]teams.Deletion, error)
	DeletedUsers(ctx context.Context) ([]teams.Deletion, error)
}

// absent reports whether Graph says that there is no such object. A refusal says nothing
// about that.
func absent(err error) bool {
	var ge *msgraph.Error
	return errors.As(err, &ge) && ge.Status == http.StatusNotFound
}

// teamsNow is what the directory says of teams, as far as rules and open periods ask.
type teamsNow struct {
	known   map[teams.PersonID]teams.Team
	deleted map[teams.PersonID]time.Time
	desks   map[string]map[teams.PersonID]bool // by desk: the teams that rules name
	// kept are the seats that stay although nothing names them: their rule cannot be followed.
	kept    map[seat]bool
	unknown int
}

type seat struct {
	desk string
	team teams.PersonID
}

// syncTeams follows the rules of recorded teams. It costs one request for each 999 teams,
// one for each team that a rule or an open period names and the listing does not, and with
// a rule of owners one for each team.
func (s *Sync) syncTeams(ctx context.Context) error {
	periods, err := s.roster.Periods(ctx, policy.RecordedTeam)
	if err != nil {
		return fmt.Errorf("read roster: %w", err)
	}
	open := slices.DeleteFunc(periods, func(p policy.Period) bool { return !p.Open() })
	if len(s.config.Teams) == 0 && len(open) == 0 {
		return nil
	}
	now, err := s.readTeams(ctx, open)
	if err != nil {
		return fmt.Errorf("recorded teams: %w", err)
	}
	at := time.Now().UTC().Truncate(time.Millisecond)
	opened, closed := policy.Diff(open, now.memberships(), at)
	closed = slices.DeleteFunc(closed, func(p policy.Period) bool { return now.kept[seat{p.Desk, p.Person}] })
	ended, vanished := now.split(closed)
	drops := policy.SuspiciousDrops(open, vanished, s.config.MaxDrop)
	for _, d := range drops {
		s.log.ErrorContext(ctx, "suspicious drop refused; teams are recorded on",
			slog.String("alarm", "suspicious-drop"), slog.String("role", string(d.Role)), slog.String("desk", d.Desk),
			slog.Int("before", d.Before), slog.Int("gone", d.Gone))
		vanished = slices.DeleteFunc(vanished, func(p policy.Period) bool { return p.Desk == d.Desk })
	}
	people, err := s.teamFacts(ctx, now, open)
	if err != nil {
		return err
	}
	change := policy.Change{At: at, Opened: opened, Closed: append(ended, vanished...), People: people}
	if err := s.applyTeams(ctx, change, now); err != nil {
		return err
	}
	var faults []error
	if now.unknown > 0 {
		faults = append(faults, fmt.Errorf("%w: %d", ErrUnknownTeam, now.unknown))
	}
	if len(drops) > 0 {
		faults = append(faults, fmt.Errorf("%w: teams of %d desks", ErrSuspiciousDrop, len(drops)))
	}
	return errors.Join(faults...)
}

// readTeams asks the directory, all or nothing.
func (s *Sync) readTeams(ctx context.Context, open []policy.Period) (*teamsNow, error) {
	listed, err := s.tenant.Teams(ctx)
	if err != nil {
		return nil, err
	}
	now := &teamsNow{known: map[teams.PersonID]teams.Team{}, deleted: map[teams.PersonID]time.Time{}, desks: map[string]map[teams.PersonID]bool{}, kept: map[seat]bool{}}
	for _, t := range listed {
		now.known[t.ID] = t
	}
	deletions, err := s.tenant.DeletedTeams(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range deletions {
		now.deleted[d.ID] = d.At
	}
	if err := s.crossCheck(ctx, now, open); err != nil {
		return nil, err
	}
	for _, r := range s.config.Teams {
		if err := s.follow(ctx, now, r, open); err != nil {
			return nil, err
		}
	}
	for _, r := range s.config.Teams {
		for _, of := range now.desks {
			delete(of, teams.PersonID(r.Exclude))
		}
		for k := range now.kept {
			if k.team == teams.PersonID(r.Exclude) {
				delete(now.kept, k)
			}
		}
	}
	return now, nil
}

// crossCheck asks for each team that should be there and is not listed: the property by
// which teams are listed can be edited.
func (s *Sync) crossCheck(ctx context.Context, now *teamsNow, open []policy.Period) error {
	wanted := map[teams.PersonID]bool{}
	for _, p := range open {
		wanted[p.Person] = true
	}
	for _, r := range s.config.Teams {
		if r.Team != "" {
			wanted[teams.PersonID(r.Team)] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		if _, ok := now.known[id]; ok || !now.deleted[id].IsZero() {
			continue
		}
		t, err := s.tenant.Team(ctx, id)
		switch {
		case err == nil:
			now.known[id] = t
		case !absent(err):
			return fmt.Errorf("team %s: %w", id, err)
		}
	}
	return nil
}

// follow adds the teams that one rule names.
func (s *Sync) follow(ctx context.Context, now *teamsNow, r policy.TeamRule, open []policy.Period) error {
	if now.desks[r.Desk] == nil {
		now.desks[r.Desk] = map[teams.PersonID]bool{}
	}
	desk := now.desks[r.Desk]
	switch {
	case r.Team != "":
		id := teams.PersonID(r.Team)
		if _, ok := now.known[id]; ok {
			desk[id] = true
		} else if now.deleted[id].IsZero() {
			now.keep(r.Desk, open, func(p policy.Period) bool { return p.Person == id })
			s.unknown(ctx, now, r.Desk, "team", r.Team)
		}
	case r.OwnerGroup != "":
		owners, err := s.ownersOf(ctx, r)
		if errors.Is(err, errNoOwners) {
			now.keep(r.Desk, open, func(policy.Period) bool { return true })
			s.unknown(ctx, now, r.Desk, "ownerGroup", r.OwnerGroup)
			return nil
		}
		if err != nil {
			return err
		}
		return s.ownedBy(ctx, now, desk, owners)
	default:
		for id, t := range now.known {
			if r.All || r.Named(t) {
				desk[id] = true
			}
		}
	}
	return nil
}

// keep lets the open periods of a desk stay, since a rule of it cannot be followed.
func (n *teamsNow) keep(desk string, open []policy.Period, which func(policy.Period) bool) {
	for _, p := range open {
		if p.Desk == desk && n.deleted[p.Person].IsZero() && which(p) {
			n.kept[seat{desk, p.Person}] = true
		}
	}
	n.unknown++
}

// unknown raises the alarm for a rule whose object is not there. Names of groups are
// foreign text and are left out.
func (s *Sync) unknown(ctx context.Context, now *teamsNow, desk, kind, id string) {
	if _, err := teams.ParsePersonID(id); err != nil {
		id = "by name"
	}
	s.log.ErrorContext(ctx, "a rule of recorded teams names what is not there; recorded on what it covered",
		slog.String("alarm", "unknown-team"), slog.String("desk", desk), slog.String("kind", kind), slog.String("object", id), slog.Int("unknown", now.unknown))
}

// errNoOwners says that the group of a rule is not there.
var errNoOwners = errors.New("no such group of owners")

func (s *Sync) ownersOf(ctx context.Context, r policy.TeamRule) (map[teams.PersonID]bool, error) {
	users, err := s.members(ctx, r.Owners())
	if errors.Is(err, s.config.NoGroup) {
		return nil, errNoOwners
	}
	if err != nil {
		return nil, err
	}
	out := map[teams.PersonID]bool{}
	for _, u := range users {
		out[u.ID] = true
	}
	return out, nil
}

func (s *Sync) ownedBy(ctx context.Context, now *teamsNow, desk, owners map[teams.PersonID]bool) error {
	for _, id := range slices.Sorted(maps.Keys(now.known)) {
		if desk[id] {
			continue
		}
		of, err := s.tenant.Owners(ctx, id)
		if err != nil && !absent(err) {
			return fmt.Errorf("team %s: %w", id, err)
		}
		if slices.ContainsFunc(of, func(p teams.PersonID) bool { return owners[p] }) {
			desk[id] = true
		}
	}
	return nil
}

func (n *teamsNow) memberships() (out []policy.Membership) {
	for _, desk := range slices.Sorted(maps.Keys(n.desks)) {
		out = append(out, policy.Membership{Role: policy.RecordedTeam, Desk: desk, People: slices.Sorted(maps.Keys(n.desks[desk]))})
	}
	return out
}

// split tells the teams that were deleted, whose periods end with them, from those that
// rules name no more.
func (n *teamsNow) split(closed []policy.Period) (ended, vanished []policy.Period) {
	for _, p := range closed {
		at := n.deleted[p.Person]
		if at.IsZero() {
			vanished = append(vanished, p)
			continue
		}
		if at.After(p.From) && at.Before(p.To) {
			p.To = at
		}
		ended = append(ended, p)
	}
	return ended, vanished
}

// teamFacts are what the roster is told of recorded teams: their names, for those who see
// what is written there, and when one was deleted. That one keeps the name it had.
func (s *Sync) teamFacts(ctx context.Context, now *teamsNow, open []policy.Period) (out []policy.Person, err error) {
	all := map[teams.PersonID]bool{}
	for _, desk := range now.desks {
		maps.Copy(all, desk)
	}
	var deleted []teams.PersonID
	for _, p := range open {
		if _, ok := now.known[p.Person]; ok {
			all[p.Person] = true
		} else if !now.deleted[p.Person].IsZero() {
			deleted = append(deleted, p.Person)
		}
	}
	had, err := s.roster.People(ctx, deleted)
	if err != nil {
		return nil, fmt.Errorf("read roster: %w", err)
	}
	for id := range all {
		out = append(out, policy.Person{ID: id, DisplayName: now.known[id].DisplayName, Enabled: true})
	}
	for id, f := range had {
		f.Enabled, f.Deleted = false, now.deleted[id]
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b policy.Person) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// applyTeams leaves a custody event for each team before the roster changes, one storage
// operation each, and stores the change.
func (s *Sync) applyTeams(ctx context.Context, c policy.Change, now *teamsNow) error {
	for _, p := range slices.Concat(c.Closed, c.Opened) {
		words := []string{"opened"}
		if !p.Open() {
			words = []string{"closed"}
			if !now.deleted[p.Person].IsZero() {
				words = append(words, "team deleted")
			}
		}
		_, err := s.trail.Append(ctx, custody.Event{
			Tenant: s.config.Tenant, Action: custody.RosterChange, System: "groupsync", Item: "team-" + string(p.Person),
			Detail: strings.Join(words, ", ") + " on desk " + p.Desk,
		})
		if err != nil {
			return err
		}
		s.log.WarnContext(ctx, "recording of a team changed", slog.String("notice", "recorded-team"),
			slog.String("team", string(p.Person)), slog.String("desk", p.Desk), slog.Bool("open", p.Open()))
	}
	if err := s.roster.Apply(ctx, c); err != nil {
		return fmt.Errorf("store roster: %w", err)
	}
	s.log.InfoContext(ctx, "rules of recorded teams followed", slog.Int("teams", len(now.known)), slog.Int("recorded", len(c.People)),
		slog.Int("opened", len(c.Opened)), slog.Int("closed", len(c.Closed)))
	return nil
}
