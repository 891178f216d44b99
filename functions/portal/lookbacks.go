package portal

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

// lookbackAnswer is a look-back as those see it who may know of it: whose history, of which
// stretch and how far, and no content.
type lookbackAnswer struct {
	ID          string               `json:"id"`
	Users       int                  `json:"users"`
	Groups      int                  `json:"groups"`
	Teams       int                  `json:"teams"`
	Custodians  int                  `json:"custodians"`
	From        time.Time            `json:"from"`
	To          time.Time            `json:"to"`
	Reason      string               `json:"reason"`
	RequestedBy teams.PersonID       `json:"requestedBy,omitempty"`
	State       policy.LookbackState `json:"state"`
	Refusal     string               `json:"refusal,omitempty"`
	MadeAt      time.Time            `json:"madeAt"`
	EndedAt     *time.Time           `json:"endedAt,omitempty"`
	Windows     int                  `json:"windows"`
	Finished    int                  `json:"finished"`
	Returned    int                  `json:"returned"`
	New         int                  `json:"new"`
	Unclear     int                  `json:"unclear"`
	Failed      int                  `json:"failed"`
}

func lookbackOf(j policy.Lookback) lookbackAnswer {
	a := lookbackAnswer{
		ID: j.ID, Users: len(j.Scope.Users), Groups: len(j.Scope.Groups), Teams: len(j.Scope.Teams), Custodians: len(j.Custodians),
		From: j.From, To: j.To, Reason: visible(j.Reason), RequestedBy: j.RequestedBy, State: j.State, Refusal: j.Refusal, MadeAt: j.MadeAt,
		Windows: j.Windows, Finished: j.Finished(), Returned: j.Returned, New: j.New, Unclear: j.Unclear, Failed: j.Failed,
	}
	if !j.EndedAt.IsZero() {
		a.EndedAt = &j.EndedAt
	}
	return a
}

// lookbacks lists the look-backs, the newest first.
func (p *Portal) lookbacks(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := checkNames(r.URL.Query()); err != nil {
		return err
	}
	if err := p.only(r, c, "lookbacks", policy.ComplianceOfficer, policy.Administrator, policy.Auditor); err != nil {
		return err
	}
	all, err := p.stores.Lookbacks.List(r.Context())
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b policy.Lookback) int { return cmp.Or(b.MadeAt.Compare(a.MadeAt), cmp.Compare(a.ID, b.ID)) })
	out, known := []lookbackAnswer{}, []teams.PersonID(nil)
	for _, j := range all {
		out, known = append(out, lookbackOf(j)), append(known, j.RequestedBy)
	}
	people, err := p.called(r.Context(), known...)
	if err != nil {
		return err
	}
	if err := p.note(r.Context(), c, custody.List, "lookbacks", fmt.Sprintf("%d look-backs", len(out))); err != nil {
		return err
	}
	return p.reply(w, map[string]any{"lookbacks": out, "people": people})
}

type lookbackRequest struct {
	Users  []teams.PersonID `json:"users"`
	Teams  []teams.PersonID `json:"teams"`
	From   time.Time        `json:"from"`
	To     time.Time        `json:"to"`
	Reason string           `json:"reason"`
}

// startLookback asks for a look-back of recorded people or teams. One that is under way
// already is answered as it stands; one that ended runs again.
func (p *Portal) startLookback(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := p.only(r, c, "lookbacks", policy.ComplianceOfficer); err != nil {
		return err
	}
	var body lookbackRequest
	if err := readBody(r, &body); err != nil {
		return err
	}
	now := p.config.Now()
	job, err := policy.AskLookback(policy.Lookback{
		Scope: policy.LookbackScope{Users: body.Users, Teams: body.Teams}, From: body.From, To: body.To, Reason: body.Reason, RequestedBy: c.person,
	}, now)
	if err != nil {
		return refused(err)
	}
	if job.Custodians, err = job.Resolve(r.Context(), p.stores.Roster, slices.Concat(job.Scope.Users, job.Scope.Teams)); err != nil {
		return refused(err)
	}
	was, err := p.stores.Lookbacks.Get(r.Context(), job.ID)
	if err != nil && !errors.Is(err, policy.ErrNotFound) {
		return err
	}
	if err == nil && !was.Ended() {
		return p.reply(w, lookbackOf(was))
	}
	if err := p.note(r.Context(), c, custody.LookedBack, "lookback-"+job.ID, fmt.Sprintf("requested for %d custodians", len(job.Custodians))); err != nil {
		return err
	}
	if was.Revision != "" {
		job = was.Again(job.Custodians, now)
		err = p.stores.Lookbacks.Replace(r.Context(), job)
	} else {
		err = p.stores.Lookbacks.Insert(r.Context(), job)
	}
	if err != nil {
		return refused(err)
	}
	return p.reply(w, lookbackOf(job))
}

// cancelLookback ends a look-back before its time. Windows that are queued are dropped when
// they arrive; what is stored stays.
func (p *Portal) cancelLookback(w http.ResponseWriter, r *http.Request, c caller) error {
	id := r.PathValue("lookback")
	if !matterForm.MatchString(id) {
		return errNotFound
	}
	if err := p.only(r, c, "lookback-"+id, policy.ComplianceOfficer); err != nil {
		return err
	}
	var body struct{}
	if err := readBody(r, &body); err != nil {
		return err
	}
	j, err := p.stores.Lookbacks.Get(r.Context(), id)
	if err != nil {
		return refused(err)
	}
	if j, err = j.Cancel(p.config.Now()); err != nil {
		return refused(err)
	}
	detail := fmt.Sprintf("canceled after %d of %d windows: %d new of %d returned", j.Finished(), j.Windows, j.New, j.Returned)
	if err := p.note(r.Context(), c, custody.LookedBack, "lookback-"+id, detail); err != nil {
		return err
	}
	if err := p.stores.Lookbacks.Replace(r.Context(), j); err != nil {
		return refused(err)
	}
	return p.reply(w, lookbackOf(j))
}
