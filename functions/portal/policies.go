package portal

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

// maxPreviewed is how many conversations a preview looks at, the newest first.
const maxPreviewed = 20_000

// policyAnswer is a data management policy as it is configured.
type policyAnswer struct {
	Name       string   `json:"name"`
	Modalities []string `json:"modalities"`
	Desks      []string `json:"desks"`
	Keep       string   `json:"keep"`
	Starts     string   `json:"starts"`
}

func policyOf(p policy.DataPolicy) policyAnswer {
	starts := p.Starts
	if !p.EventBased() {
		starts = policy.FromCreation
	}
	return policyAnswer{
		Name: p.Name, Modalities: append([]string{}, p.Modalities...), Desks: append([]string{}, p.Desks...), Keep: p.Keep.String(), Starts: starts,
	}
}

// policies lists the data management policies that are in force, the default's included.
func (p *Portal) policies(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := checkNames(r.URL.Query()); err != nil {
		return err
	}
	if err := p.only(r, c, "policies", policy.Administrator, policy.ComplianceOfficer, policy.Auditor); err != nil {
		return err
	}
	out := []policyAnswer{}
	for _, x := range append(append(policy.DataPolicies{}, p.config.Policies...), policy.DefaultPolicy) {
		out = append(out, policyOf(x))
	}
	if err := p.note(r.Context(), c, custody.List, "policies", fmt.Sprintf("%d policies", len(out))); err != nil {
		return err
	}
	return p.reply(w, map[string]any{"policies": out})
}

type previewRequest struct {
	Policies json.RawMessage `json:"policies"`
}

type previewAnswer struct {
	Rows []policy.PreviewRow `json:"rows"`
	// Truncated tells that there are more conversations than were looked at.
	Truncated bool `json:"truncated,omitempty"`
}

// preview works out what other policies would do, and changes nothing. It tells counts and
// no conversation, so that an administrator may ask.
func (p *Portal) preview(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := p.only(r, c, "policies", policy.Administrator, policy.ComplianceOfficer); err != nil {
		return err
	}
	var body previewRequest
	if err := readBody(r, &body); err != nil {
		return err
	}
	proposed, err := policy.ParseDataPolicies(string(body.Policies))
	if err != nil {
		return &problem{Status: http.StatusUnprocessableEntity, Title: "Refused", Detail: reasons(err)}
	}
	if err := p.note(r.Context(), c, custody.List, "policies", "preview of "+proposed.Digest()); err != nil {
		return err
	}
	facts, truncated, err := p.retained(r)
	if err != nil {
		return err
	}
	return p.reply(w, previewAnswer{append([]policy.PreviewRow{}, policy.Preview(p.config.Policies, proposed, facts, p.config.Now())...), truncated})
}

// retained lists what retention decides about, with the date that the policies in force
// promised it.
func (p *Portal) retained(r *http.Request) (out []policy.Facts, truncated bool, err error) {
	periods, err := policy.Custodians(r.Context(), p.stores.Roster)
	if err != nil {
		return nil, false, err
	}
	byPerson := map[teams.PersonID][]policy.Period{}
	for _, x := range periods {
		byPerson[x.Person] = append(byPerson[x.Person], x)
	}
	page := conversation.PageRequest{Limit: conversation.MaxPage}
	for {
		got, err := p.stores.Catalog.ByTime(r.Context(), conversation.Earliest, p.config.Now().Add(time.Hour), page)
		if err != nil {
			return nil, false, err
		}
		for _, conv := range got.Conversations {
			if conv.Disposed != nil {
				continue
			}
			f := policy.Facts{Tenant: p.config.Tenant, Conversation: string(conv.ID), Modality: string(conv.Modality), Start: conv.ID.Day(), End: conv.ID.Day().AddDate(0, 0, 1)}
			if conv.Call != nil {
				f.End = conv.Last
			}
			for _, person := range conv.Custodians {
				f.Custodians = append(f.Custodians, policy.CustodianFacts{Person: person, Desks: policy.DesksAt(byPerson[person], person, f.Start, f.End, p.config.History)})
			}
			if promised := p.config.Policies.Decide(f); !promised.Open {
				f.Set = promised.Until
			}
			out = append(out, f)
		}
		if !got.More || len(got.Conversations) == 0 {
			return out, false, nil
		}
		if len(out) >= maxPreviewed {
			return out, true, nil
		}
		page.After = got.Conversations[len(got.Conversations)-1].Position()
	}
}

type eventRequest struct {
	Event string    `json:"event"`
	At    time.Time `json:"at"`
}

var eventForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// recordEvent records that what a policy waits for came about, such as the end of a
// contract: from then on the conversation's time runs. It can be recorded once.
func (p *Portal) recordEvent(w http.ResponseWriter, r *http.Request, c caller) error {
	id, err := conversation.ParseID(r.PathValue("id"))
	if err != nil {
		return errNotFound
	}
	if err := p.only(r, c, string(id), policy.ComplianceOfficer); err != nil {
		return err
	}
	var body eventRequest
	if err := readBody(r, &body); err != nil {
		return err
	}
	if !eventForm.MatchString(body.Event) {
		return badRequest("event: want lower-case letters, digits and dashes")
	}
	if body.At.Before(conversation.Earliest) || body.At.After(p.config.Now()) {
		return badRequest("at: want when it came about, which is not in the future")
	}
	if _, _, err := p.look(r, c); err != nil {
		return err
	}
	if err := p.note(r.Context(), c, custody.Retain, string(id), "event="+body.Event+" at="+body.At.UTC().Format(time.RFC3339)); err != nil {
		return err
	}
	if err := p.stores.Events.RecordEvent(r.Context(), string(id), body.Event, body.At); err != nil {
		return err
	}
	return p.reply(w, eventRequest{body.Event, body.At.UTC()})
}
