package portal

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/coverage"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

// maxCoverageDays is how many days one request lists; each costs two read operations.
const maxCoverageDays = 31

// coverageItem is what a reading of coverage is recorded as.
const coverageItem = "coverage"

// dayAnswer is the newest statement of a day, as far as the caller may see it.
type dayAnswer struct {
	Day        string               `json:"day"`
	Revision   int                  `json:"revision"`
	From       time.Time            `json:"from"`
	To         time.Time            `json:"to"`
	MadeAt     time.Time            `json:"madeAt"`
	Complete   bool                 `json:"complete"` // the day was over
	Whole      bool                 `json:"whole"`    // nothing failed, nothing is open
	Totals     []coverage.Total     `json:"totals"`
	SecondPass coverage.SecondPass  `json:"secondPass"`
	Canary     coverage.CanaryState `json:"canary"`
}

type daysAnswer struct {
	Days []dayAnswer `json:"days"`
}

type gapAnswer struct {
	Person       teams.PersonID  `json:"person"`
	From         time.Time       `json:"from"`
	To           time.Time       `json:"to"`
	State        coverage.State  `json:"state"`
	Code         coverage.Code   `json:"code,omitempty"`
	MissingMS    int64           `json:"missingMs"`
	Conversation conversation.ID `json:"conversation,omitempty"`
	Healed       *time.Time      `json:"healed,omitempty"`
}

type coverageAnswer struct {
	dayAnswer
	Lines      []coverage.Line      `json:"lines"`
	BlindSpots []coverage.BlindSpot `json:"blindSpots"`
	// Gaps are the stays in calls that were not captured when the register was last judged.
	Gaps   []gapAnswer `json:"gaps"`
	People []named     `json:"people"`
	// Signed tells whether the caller may have the statement as it was signed.
	Signed bool `json:"signed"`
}

// coverageRoles are those who may ask about coverage at all.
var coverageRoles = []policy.Role{policy.RecordedUser, policy.Supervisor, policy.ComplianceOfficer, policy.Administrator, policy.Auditor}

// seesCoverage reports whose coverage a caller sees: everybody's, or that of the custodians
// of her desks and her own. It is counts and times, no content.
func seesCoverage(c caller) (all bool, of func(teams.PersonID) bool) {
	g := c.grant
	all = g.Has(policy.ComplianceOfficer) || g.Has(policy.Auditor) || g.Has(policy.Administrator)
	return all, func(p teams.PersonID) bool {
		return all || g.Has(policy.Supervisor) && g.MaySeePerson(p) || g.Has(policy.RecordedUser) && p == c.person
	}
}

// coverageDays lists the newest statement of each day.
func (p *Portal) coverageDays(w http.ResponseWriter, r *http.Request, c caller) error {
	v := r.URL.Query()
	if err := checkNames(v, "from", "to"); err != nil {
		return err
	}
	to := p.config.Now().UTC().Format(time.DateOnly)
	from := p.config.Now().UTC().AddDate(0, 0, 1-maxCoverageDays).Format(time.DateOnly)
	for name, into := range map[string]*string{"from": &from, "to": &to} {
		if s := v.Get(name); s != "" {
			if _, err := time.Parse(time.DateOnly, s); err != nil {
				return badRequest(name + ": want a day, YYYY-MM-DD")
			}
			*into = s
		}
	}
	first, _ := time.Parse(time.DateOnly, from) // both were parsed above, or made by Format
	last, _ := time.Parse(time.DateOnly, to)
	if last.Before(first) || last.Sub(first) >= maxCoverageDays*24*time.Hour {
		return badRequest(fmt.Sprintf("from, to: want 1 to %d days", maxCoverageDays))
	}
	if err := p.only(r, c, coverageItem, coverageRoles...); err != nil {
		return err
	}
	list, err := p.stores.Statements.List(r.Context(), from, to)
	if err != nil {
		return err
	}
	out := daysAnswer{Days: []dayAnswer{}}
	for i, n := range list {
		if i+1 < len(list) && list[i+1].Day == n.Day {
			continue // a newer one follows
		}
		s, err := p.statement(r.Context(), n)
		if err != nil {
			return err
		}
		out.Days = append(out.Days, summarized(c, &s))
	}
	slices.Reverse(out.Days)
	if err := p.note(r.Context(), c, custody.List, coverageItem, fmt.Sprintf("%d days", len(out.Days))); err != nil {
		return err
	}
	return p.reply(w, out)
}

func (p *Portal) statement(ctx context.Context, n coverage.Stated) (coverage.Statement, error) {
	body, _, err := p.stores.Statements.Read(ctx, n)
	if err != nil {
		return coverage.Statement{}, err
	}
	return coverage.Decode(body)
}

// summarized cuts a statement down to what the caller may see, and sums it anew.
func summarized(c caller, s *coverage.Statement) dayAnswer {
	if all, of := seesCoverage(c); !all {
		s.Lines = slices.DeleteFunc(s.Lines, func(l coverage.Line) bool { return !of(l.Custodian) })
		s.Sum()
		s.Second, s.Canary = coverage.SecondPass{}, coverage.CanaryOff // of the tenant as a whole
	}
	return dayAnswer{
		Day: s.Day, Revision: s.Revision, From: s.From, To: s.To, MadeAt: s.MadeAt, Complete: !s.To.Before(s.From.AddDate(0, 0, 1)), Whole: s.Whole(),
		Totals: s.Totals, SecondPass: s.Second, Canary: s.Canary,
	}
}

// newestOf finds the newest statement of the day in the path. One that is not there leaves the
// event that one which is not the caller's leaves.
func (p *Portal) newestOf(r *http.Request, c caller) (coverage.Stated, error) {
	day := r.PathValue("day")
	var list []coverage.Stated
	if _, err := time.Parse(time.DateOnly, day); err == nil {
		if list, err = p.stores.Statements.List(r.Context(), day, day); err != nil {
			return coverage.Stated{}, err
		}
	}
	if len(list) == 0 {
		return coverage.Stated{}, p.only(r, c, coverageItem)
	}
	return list[len(list)-1], nil
}

// coverageDay answers the newest statement of a day, custodian by custodian.
func (p *Portal) coverageDay(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := p.only(r, c, coverageItem, coverageRoles...); err != nil {
		return err
	}
	n, err := p.newestOf(r, c)
	if err != nil {
		return err
	}
	s, err := p.statement(r.Context(), n)
	if err != nil {
		return err
	}
	all, of := seesCoverage(c)
	out := coverageAnswer{dayAnswer: summarized(c, &s), Lines: s.Lines, BlindSpots: s.BlindSpots, Gaps: []gapAnswer{}, Signed: all}
	if len(s.Lines) == 0 && !all {
		return p.only(r, c, coverageItem)
	}
	if out.Gaps, err = p.gaps(r.Context(), s, of); err != nil {
		return err
	}
	var ids []teams.PersonID
	for _, l := range s.Lines {
		ids = append(ids, l.Custodian)
	}
	if out.People, err = p.called(r.Context(), ids...); err != nil {
		return err
	}
	if err := p.note(r.Context(), c, custody.List, coverageItem, fmt.Sprintf("%s, %d lines", n.Day, len(s.Lines))); err != nil {
		return err
	}
	return p.reply(w, out)
}

// gaps lists what was missing of the calls of a day, and what was healed since.
func (p *Portal) gaps(ctx context.Context, s coverage.Statement, of func(teams.PersonID) bool) ([]gapAnswer, error) {
	const longestCall = 36 * time.Hour
	records, err := p.stores.Records.Records(ctx, s.From.Add(-longestCall), s.To)
	if err != nil {
		return nil, err
	}
	out := []gapAnswer{}
	for _, rec := range records {
		for _, stay := range rec.Stays {
			if stay.From.Before(s.From) || !stay.From.Before(s.To) || !of(stay.Person) || stay.State != coverage.Failed && stay.Healed.IsZero() {
				continue
			}
			g := gapAnswer{Person: stay.Person, From: stay.From, To: stay.To, State: stay.State, Code: stay.Code, MissingMS: stay.Missing.Milliseconds(), Conversation: stay.Conversation}
			if !stay.Healed.IsZero() {
				g.Healed = &stay.Healed
			}
			out = append(out, g)
		}
	}
	slices.SortFunc(out, func(a, b gapAnswer) int { return a.From.Compare(b.From) })
	return out, nil
}

// coverageSigned answers the newest statement of a day as it was signed, or the signature
// over it, for whoever sees all of it.
func (p *Portal) coverageSigned(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := p.only(r, c, coverageItem, policy.ComplianceOfficer, policy.Administrator, policy.Auditor); err != nil {
		return err
	}
	n, err := p.newestOf(r, c)
	if err != nil {
		return err
	}
	body, signature, err := p.stores.Statements.Read(r.Context(), n)
	if errors.Is(err, coverage.ErrNoStatement) {
		return errNotFound
	}
	if err != nil {
		return err
	}
	name := fmt.Sprintf("coverage-%s-%d.json", n.Day, n.Revision)
	switch r.PathValue("part") {
	case "statement":
	case "signature":
		name, body = fmt.Sprintf("coverage-%s-%d.sig", n.Day, n.Revision), signature
	default:
		return p.only(r, c, coverageItem)
	}
	if err := p.note(r.Context(), c, custody.List, coverageItem, name); err != nil {
		return err
	}
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	p.media(w, "application/octet-stream", body) // bytes that were signed, not an answer to read
	return nil
}
