package policy

import (
	"context"
	"fmt"
	"slices"
	"time"

	"steno/shared/teams"
)

// Person is what the directory says of somebody, as of the last group sync.
type Person struct {
	ID          teams.PersonID `json:"id"`
	DisplayName string         `json:"displayName"`
	Address     string         `json:"address"` // user principal name; for display, never a key
	Enabled     bool           `json:"enabled"`
	Guest       bool           `json:"guest"`
	// CommunicationsDLP tells whether the plan that Microsoft asks for when chats are
	// exported is assigned and enabled. It is a report, not a gate: Graph stopped
	// enforcing it on 2025-08-25.
	CommunicationsDLP bool `json:"communicationsDlp"`
	// LostPlan is when the plan, which was there, was first seen missing; zero while it is
	// there, or if it never was.
	LostPlan time.Time `json:"lostPlan,omitzero"`
	// Deleted is when the person, or the team, was deleted from the directory. What they
	// wrote can be exported for teams.ExportableFor longer.
	Deleted time.Time `json:"deleted,omitzero"`
}

// Period is a stretch of time in which a person, or with RecordedTeam a team, held a role on a desk. From is
// when group sync first saw the membership, To when it first saw it gone; the
// zero To means still open. A person is covered at From ≤ t < To.
type Period struct {
	Person teams.PersonID `json:"person"`
	Role   Role           `json:"role"`
	Desk   string         `json:"desk,omitempty"`
	From   time.Time      `json:"from"`
	To     time.Time      `json:"to,omitzero"`
}

// Open reports whether the period has not ended.
func (p Period) Open() bool { return p.To.IsZero() }

// Covers reports whether t falls into the period.
func (p Period) Covers(t time.Time) bool {
	return !t.Before(p.From) && (p.Open() || t.Before(p.To))
}

// Overlaps reports whether the period shares a moment with [from, to). A period or a
// stretch that ends where or before it starts has no moment to share.
func (p Period) Overlaps(from, to time.Time) bool {
	return from.Before(to) && p.From.Before(to) && (p.Open() || from.Before(p.To) && p.From.Before(p.To))
}

// Roster is the store of people and their periods.
//
// Periods and people are small next to content (tens of thousands at most), and
// each method reads ranges only.
type Roster interface {
	// Periods returns every period of a role, open and closed, in no fixed order.
	Periods(ctx context.Context, role Role) ([]Period, error)
	// PeriodsOf returns every period of one person.
	PeriodsOf(ctx context.Context, person teams.PersonID) ([]Period, error)
	// People returns the directory's words on the people asked for; unknown ones are absent.
	People(ctx context.Context, ids []teams.PersonID) (map[teams.PersonID]Person, error)
	// Apply stores a change. It may be called again with the same change after a
	// crash: opening a period that is known and closing a closed one change nothing.
	// A period is known by person, role, desk and From, to the millisecond.
	// When it returns nil the whole change is durable. Two changes of one tenant must
	// not be applied at the same time; group sync is a timer, which runs once.
	Apply(ctx context.Context, change Change) error
}

// Change is what one group sync found different.
type Change struct {
	At     time.Time // when the directory was read
	Opened []Period  // To is zero
	Closed []Period  // To is set
	People []Person  // all people seen, with their present facts
}

// Membership is who holds a role on a desk right now, as the directory says.
type Membership struct {
	Role   Role
	Desk   string
	People []teams.PersonID
}

// Diff compares what the roster holds open with what the directory says now.
// Both sides must speak of the same role groups: an open period of a role group
// that observed does not name at all is closed, since the configuration dropped it.
func Diff(open []Period, observed []Membership, at time.Time) (opened, closed []Period) {
	type seat struct {
		person teams.PersonID
		role   Role
		desk   string
	}
	now := map[seat]bool{}
	for _, m := range observed {
		for _, p := range m.People {
			now[seat{p, m.Role, m.Desk}] = true
		}
	}
	held := map[seat]bool{}
	for _, p := range open {
		if !p.Open() {
			continue
		}
		s := seat{p.Person, p.Role, p.Desk}
		held[s] = true
		if !now[s] {
			p.To = at
			closed = append(closed, p)
		}
	}
	for s := range now {
		if !held[s] {
			opened = append(opened, Period{Person: s.person, Role: s.role, Desk: s.desk, From: at})
		}
	}
	for _, ps := range [][]Period{opened, closed} {
		slices.SortFunc(ps, comparePeriods)
	}
	return opened, closed
}

func comparePeriods(a, b Period) int {
	for _, c := range []int{
		compare(a.Role, b.Role), compare(a.Desk, b.Desk), compare(a.Person, b.Person), a.From.Compare(b.From),
	} {
		if c != 0 {
			return c
		}
	}
	return 0
}

func compare[S ~string](a, b S) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Drop is a role group that lost more members in one reading than is believable.
// A partial or empty answer of the directory looks just like this, so the sync
// keeps recording and somebody has to look.
type Drop struct {
	Role         Role
	Desk         string
	Before, Gone int
}

// SuspiciousDrops lists the role groups that would lose more than share (0 to 1)
// of the members that are open now. A group with a single member may lose it: the
// share of one is all or nothing and a group of one is changed by hand.
func SuspiciousDrops(open, closed []Period, share float64) []Drop {
	type key struct {
		role Role
		desk string
	}
	before, gone := map[key]int{}, map[key]int{}
	for _, p := range open {
		if p.Open() {
			before[key{p.Role, p.Desk}]++
		}
	}
	for _, p := range closed {
		gone[key{p.Role, p.Desk}]++
	}
	var drops []Drop
	for k, n := range gone {
		if before[k] > 1 && float64(n) > share*float64(before[k]) {
			drops = append(drops, Drop{Role: k.role, Desk: k.desk, Before: before[k], Gone: n})
		}
	}
	slices.SortFunc(drops, func(a, b Drop) int {
		if c := compare(a.Role, b.Role); c != 0 {
			return c
		}
		return compare(a.Desk, b.Desk)
	})
	return drops
}

// Conflicts lists the people who would be Administrator and ComplianceOfficer at
// once. Neither membership is taken over: whoever configures the recorder sees no content.
func Conflicts(observed []Membership) []teams.PersonID {
	admins := map[teams.PersonID]bool{}
	for _, m := range observed {
		if m.Role == Administrator {
			for _, p := range m.People {
				admins[p] = true
			}
		}
	}
	both := map[teams.PersonID]bool{}
	for _, m := range observed {
		if m.Role == ComplianceOfficer {
			for _, p := range m.People {
				if admins[p] {
					both[p] = true
				}
			}
		}
	}
	out := make([]teams.PersonID, 0, len(both))
	for p := range both {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// Custodians returns every period in which a person or a team was recorded.
func Custodians(ctx context.Context, r Roster) ([]Period, error) {
	people, err := r.Periods(ctx, RecordedUser)
	if err != nil {
		return nil, fmt.Errorf("read recorded users: %w", err)
	}
	recorded, err := r.Periods(ctx, RecordedTeam)
	if err != nil {
		return nil, fmt.Errorf("read recorded teams: %w", err)
	}
	return append(people, recorded...), nil
}

// Covered returns the parts of [from, to) in which the custodian was recorded on any
// desk, joined and in order.
func Covered(periods []Period, from, to time.Time) []Span {
	var spans []Span
	for _, p := range periods {
		if !p.Role.Custodian() || !p.Overlaps(from, to) {
			continue
		}
		s := Span{From: latest(p.From, from), To: to}
		if !p.Open() && p.To.Before(to) {
			s.To = p.To
		}
		spans = append(spans, s)
	}
	slices.SortFunc(spans, func(a, b Span) int { return a.From.Compare(b.From) })
	var joined []Span
	for _, s := range spans {
		if n := len(joined); n > 0 && !s.From.After(joined[n-1].To) {
			joined[n-1].To = latest(joined[n-1].To, s.To)
			continue
		}
		joined = append(joined, s)
	}
	return joined
}

// Span is a half-open stretch of time [From, To).
type Span struct{ From, To time.Time }

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
