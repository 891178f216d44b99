package policy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"steno/shared/teams"
)

// Limits of a look-back.
const (
	// MaxLookback is the longest stretch that one look-back reads: whoever may add a message
	// to a queue must not have a tenant's years imported by it.
	MaxLookback = 31 * 24 * time.Hour
	// MaxLookbackCustodians is how many people and teams one look-back reads: the job must
	// fit a row of a table.
	MaxLookbackCustodians = 1000
)

// firstTeams is when there was something to read first: Teams was announced in November 2016.
var firstTeams = time.Date(2016, 11, 1, 0, 0, 0, 0, time.UTC)

// LookbackScope says whose history is read: exactly one of its lists is set.
type LookbackScope struct {
	Users  []teams.PersonID `json:"users,omitempty"`
	Groups []teams.GroupID  `json:"groups,omitempty"`
	Teams  []teams.PersonID `json:"teams,omitempty"`
}

// LookbackState is how far a look-back has come.
type LookbackState string

// The states of a look-back. A job that ended may be asked for again, and runs again.
const (
	LookbackQueued   LookbackState = "queued"
	LookbackRunning  LookbackState = "running"
	LookbackDone     LookbackState = "done"
	LookbackCanceled LookbackState = "canceled"
	LookbackRefused  LookbackState = "refused"
)

// LookbackWindow is a window of a look-back that is queued and not known to be finished.
type LookbackWindow struct {
	Index int       `json:"index"` // among the job's windows
	At    time.Time `json:"at"`    // when it was last queued
}

// Lookback is a job that reads history of recorded people or teams.
type Lookback struct {
	// ID is 32 hex digits made of what is asked for, so that the same message is the same job.
	ID          string         `json:"id"`
	Scope       LookbackScope  `json:"scope"`
	From        time.Time      `json:"from"`
	To          time.Time      `json:"to"`
	Reason      string         `json:"reason"`
	RequestedBy teams.PersonID `json:"requestedBy,omitempty"` // empty for the system
	// System is the function that asked for it, empty for a person.
	System string `json:"system,omitempty"`
	// Custodians are whom the scope came to when it was resolved, sorted.
	Custodians []teams.PersonID `json:"custodians,omitempty"`
	State      LookbackState    `json:"state"`
	Refusal    string           `json:"refusal,omitempty"` // why it was refused, without personal data
	MadeAt     time.Time        `json:"madeAt"`
	StartedAt  time.Time        `json:"startedAt,omitzero"`
	EndedAt    time.Time        `json:"endedAt,omitzero"`

	// Windows is how many there are, Next how many were queued at least once, and Open which
	// of these are not known to be finished.
	Windows int              `json:"windows"`
	Next    int              `json:"next"`
	Open    []LookbackWindow `json:"open,omitempty"`
	// What finished windows returned, how much of it was new, how much could not be read as
	// messages, and how many windows could not be read. What a process stored that ended
	// before its window was finished is returned again and not new then.
	Returned int `json:"returned"`
	New      int `json:"new"`
	Unclear  int `json:"unclear"`
	Failed   int `json:"failed"`

	Revision string `json:"-"` // the store's token for optimistic concurrency
}

// Finished is how many windows are known to be finished, those that failed included.
func (j Lookback) Finished() int { return j.Next - len(j.Open) }

// Ended reports whether nothing more is read for the job.
func (j Lookback) Ended() bool { return j.State != LookbackQueued && j.State != LookbackRunning }

// Admits reports whether the job lets history of a custodian between two times be read now:
// it runs, and speaks of both.
func (j Lookback) Admits(custodian teams.PersonID, from, to time.Time) bool {
	_, named := slices.BinarySearch(j.Custodians, custodian)
	return j.State == LookbackRunning && named && !from.Before(j.From.Add(-time.Millisecond)) && !to.After(j.To)
}

// Again is the job queued anew after it ended: what it counted before is not counted again.
func (j Lookback) Again(custodians []teams.PersonID, now time.Time) Lookback {
	return Lookback{
		ID: j.ID, Scope: j.Scope, From: j.From, To: j.To, Reason: j.Reason, RequestedBy: j.RequestedBy, System: j.System,
		Custodians: custodians, State: LookbackQueued, MadeAt: now.UTC(), Revision: j.Revision,
	}
}

// Cancel is the job as it is when nothing more of it is to be read.
func (j Lookback) Cancel(now time.Time) (Lookback, error) {
	if j.Ended() {
		return j, refuse("look-back %s is %s", j.ID, j.State)
	}
	j.State, j.EndedAt = LookbackCanceled, now.UTC()
	return j, nil
}

// AskLookback checks what is asked for and gives it an id. Only Scope, From, To, Reason,
// RequestedBy and System of j are taken. All faults are reported at once, as ErrRefused.
func AskLookback(j Lookback, now time.Time) (Lookback, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, refuse(format, args...)) }
	lists := 0
	for _, n := range []int{len(j.Scope.Users), len(j.Scope.Groups), len(j.Scope.Teams)} {
		if n > 0 {
			lists++
		}
		if n > MaxLookbackCustodians {
			fault("a scope of %d; want at most %d", n, MaxLookbackCustodians)
		}
	}
	if lists != 1 {
		fault("scope: want exactly one of users, groups and teams, and somebody in it")
	}
	j.From, j.To = j.From.UTC().Truncate(time.Millisecond), j.To.UTC().Truncate(time.Millisecond)
	switch {
	case !j.From.Before(j.To):
		fault("from is not before to")
	case j.From.Before(firstTeams):
		fault("from is before %s, when there was no Teams", firstTeams.Format(time.DateOnly))
	case j.To.After(now):
		fault("to has not come yet")
	case j.To.Sub(j.From) > MaxLookback:
		fault("a stretch of %s; want at most %d days in one look-back", j.To.Sub(j.From), int(MaxLookback.Hours()/24))
	}
	if n := utf8.RuneCountInString(j.Reason); n < MinReason || n > MaxReason || !plainText(j.Reason) || strings.TrimSpace(j.Reason) != j.Reason {
		fault("a reason of %d characters; want %d to %d, without line ends, control characters and blanks around", n, MinReason, MaxReason)
	}
	if err := errors.Join(faults...); err != nil {
		return Lookback{}, err
	}
	out := Lookback{
		Scope: j.Scope.sorted(), From: j.From, To: j.To, Reason: j.Reason, RequestedBy: j.RequestedBy, System: j.System,
		State: LookbackQueued, MadeAt: now.UTC(),
	}
	b, err := json.Marshal([]any{out.Scope, out.From, out.To, out.Reason, out.RequestedBy, out.System})
	if err != nil {
		return Lookback{}, fmt.Errorf("look-back: %w", err)
	}
	out.ID = lookbackID(b)
	return out, nil
}

// RefusedLookback is the record of a message that asks for what is not done. If the message
// could be read, asked is what it says.
func RefusedLookback(body []byte, asked Lookback, why error, now time.Time) Lookback {
	asked.ID, asked.State, asked.Refusal, asked.MadeAt, asked.EndedAt = lookbackID(body), LookbackRefused, why.Error(), now.UTC(), now.UTC()
	return asked
}

// Resolve returns whom of some people, or teams, the job may read: those who are recorded
// now, or were in the stretch. Users and teams that are named must all be; of the members
// of a group, those who are not are left out.
func (j Lookback) Resolve(ctx context.Context, r Roster, ids []teams.PersonID) ([]teams.PersonID, error) {
	role, kind := RecordedUser, "users"
	if len(j.Scope.Teams) > 0 {
		role, kind = RecordedTeam, "teams"
	}
	periods, err := r.Periods(ctx, role)
	if err != nil {
		return nil, fmt.Errorf("read roster: %w", err)
	}
	recorded := map[teams.PersonID]bool{}
	for _, p := range periods {
		if p.Open() || p.Overlaps(j.From, j.To) {
			recorded[p.Person] = true
		}
	}
	ids = set(ids)
	found := slices.DeleteFunc(slices.Clone(ids), func(id teams.PersonID) bool { return !recorded[id] })
	switch {
	case len(j.Scope.Groups) == 0 && len(found) < len(ids):
		return nil, refuse("%d of %d %s are not recorded, or not known", len(ids)-len(found), len(ids), kind)
	case len(found) == 0:
		return nil, refuse("none of the %d members of %d groups is recorded", len(ids), len(j.Scope.Groups))
	case len(found) > MaxLookbackCustodians:
		return nil, refuse("%d custodians; want at most %d in one look-back", len(found), MaxLookbackCustodians)
	}
	return found, nil
}

func lookbackID(b []byte) string {
	d := sha256.Sum256(append([]byte("steno-lookback-v1\x00"), b...))
	return hex.EncodeToString(d[:16])
}

func (s LookbackScope) sorted() LookbackScope {
	return LookbackScope{set(s.Users), set(s.Groups), set(s.Teams)}
}

func set[S ~string](list []S) []S {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

// Lookbacks is the store of look-back jobs.
type Lookbacks interface {
	// Insert stores a new job, durably when it returns nil. ErrExists if its id is taken.
	Insert(ctx context.Context, j Lookback) error
	// Get reads one with its revision, ErrNotFound if there is none.
	Get(ctx context.Context, id string) (Lookback, error)
	// List reads all of them, by id.
	List(ctx context.Context) ([]Lookback, error)
	// Replace stores a job that is still at j.Revision, else ErrChanged and nothing
	// changes. The stored job has a new revision.
	Replace(ctx context.Context, j Lookback) error
}
