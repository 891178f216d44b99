package policy

import (
	"cmp"
	"slices"
	"time"

	"steno/shared/teams"
)

// Facts are what a conversation's retention and holds are decided from. They must come
// from the conversation's id and its evidence, not from a date somebody may have edited.
type Facts struct {
	Tenant       teams.TenantID
	Conversation string // its id
	Modality     string
	Start, End   time.Time // of the communication: for a chat, its UTC day
	Custodians   []CustodianFacts
	// Events says when an event that a policy waits for was recorded, by its name.
	Events map[string]time.Time
	// Set is the Retain Until that its evidence already carries, zero if none.
	Set time.Time
}

// CustodianFacts is a recorded user because of whom a conversation was captured, and the
// desks on which she was recorded then.
type CustodianFacts struct {
	Person teams.PersonID
	Desks  []string
}

// DesksAt are the desks on which a person was recorded at a time in [from, to]. history
// widens each period at its start, as it does for capture.
func DesksAt(periods []Period, person teams.PersonID, from, to time.Time, history time.Duration) []string {
	var out []string
	for _, p := range periods {
		if p.Person != person || !p.Role.Custodian() {
			continue
		}
		p.From = p.From.Add(-history)
		if p.Overlaps(from, to.Add(time.Nanosecond)) {
			out = append(out, p.Desk)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Retention is what the policies say of one conversation.
type Retention struct {
	// Until is the Retain Until. For an open retention it is what storage is told
	// meanwhile: the term, counted from creation.
	Until time.Time
	// Open says that the clock of a policy waits for an event. Nothing is disposed.
	Open   bool
	Policy string // the name of the policy that decides
}

// Due reports whether the conversation may be disposed as far as policies go.
func (r Retention) Due(now time.Time) bool { return !r.Open && !now.Before(r.Until) }

// Decide works out a conversation's Retain Until. Each desk of each custodian has its
// most specific policy; of several the longest wins. Until is never before f.Set: what was
// promised is not taken back.
func (ps DataPolicies) Decide(f Facts) Retention {
	var best Retention
	consider := func(desk string) {
		p := ps.match(f.Modality, desk)
		r := Retention{Until: p.Keep.After(f.End), Policy: p.Name}
		if p.EventBased() {
			at, known := f.Events[p.Starts]
			if r.Open = !known; known {
				r.Until = p.Keep.After(at)
			}
		}
		if best.Policy == "" || longer(r, best) {
			best = r
		}
	}
	for _, c := range f.Custodians {
		for _, d := range c.Desks {
			consider(d)
		}
		if len(c.Desks) == 0 {
			consider("")
		}
	}
	if len(f.Custodians) == 0 {
		consider("")
	}
	if f.Set.After(best.Until) {
		best.Until = f.Set.UTC()
	}
	return best
}

// longer orders retentions; equal ones by name, so that the order of custodians does not
// show.
func longer(a, b Retention) bool {
	if a.Open != b.Open {
		return a.Open
	}
	if c := a.Until.Compare(b.Until); c != 0 {
		return c > 0
	}
	return a.Policy < b.Policy
}

// PreviewRow counts what a change of policies would do to the conversations of one
// modality that come under one policy by it.
type PreviewRow struct {
	Policy        string `json:"policy"`
	Modality      string `json:"modality"`
	Conversations int    `json:"conversations"`
	Extended      int    `json:"extended"`  // Retain Until moves on
	Unchanged     int    `json:"unchanged"` // Retain Until stays as it is
	// Kept counts those that the new policies would keep for a shorter time; their date
	// stays, since a Retain Until that was set is never shortened.
	Kept int `json:"kept"`
	// Due counts those that may be disposed under the new policies, at once, and may not
	// under the present ones.
	Due int `json:"due"`
}

// Preview works out what proposed policies would change. Facts carry in Set the date that
// evidence has now. Rows are sorted by policy and modality.
func Preview(present, proposed DataPolicies, all []Facts, now time.Time) []PreviewRow {
	type key struct{ policy, modality string }
	rows := map[key]*PreviewRow{}
	for _, f := range all {
		was, will := present.Decide(f), proposed.Decide(f)
		bare := f
		bare.Set = time.Time{}
		wish := proposed.Decide(bare) // what they would say if nothing were promised yet
		k := key{will.Policy, f.Modality}
		if rows[k] == nil {
			rows[k] = &PreviewRow{Policy: k.policy, Modality: k.modality}
		}
		r := rows[k]
		r.Conversations++
		switch {
		case wish.Until.Before(f.Set):
			r.Kept++
		case wish.Until.After(f.Set):
			r.Extended++
		default:
			r.Unchanged++
		}
		if !was.Due(now) && will.Due(now) {
			r.Due++
		}
	}
	out := make([]PreviewRow, 0, len(rows))
	for _, r := range rows {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b PreviewRow) int {
		return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Modality, b.Modality))
	})
	return out
}
