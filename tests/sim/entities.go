package sim

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The sizes of a page of directory objects, https://learn.microsoft.com/en-us/graph/query-parameters.
const (
	defaultDirectoryTop = 100
	maxDirectoryTop     = 999
)

const odataContext = "https://graph.microsoft.com/v1.0/$metadata#"

// notFound is the directory's answer about an object that does not exist.
func (q *request) notFound(t *Tenant, id string) {
	q.fail(t, http.StatusNotFound, "Request_ResourceNotFound",
		fmt.Sprintf("Resource '%s' does not exist or one of its queried reference-property objects are not present.", id))
}

// only refuses query options other than those named.
func (q *request) only(t *Tenant, names ...string) bool {
	for name := range q.query {
		if strings.HasPrefix(name, "$") && !slices.Contains(names, name) {
			q.fail(t, http.StatusBadRequest, "Request_UnsupportedQuery", fmt.Sprintf("The query parameter '%s' is not supported.", name))
			return false
		}
	}
	return true
}

// servePart serves a page of all, with a nextLink to the rest.
func servePart[T any](t *Tenant, q *request, path, entity string, all []T, show func(T) map[string]any) {
	top, ok := q.top(t, defaultDirectoryTop, maxDirectoryTop)
	if !ok {
		return
	}
	skip := 0
	if token := q.query.Get("$skiptoken"); token != "" {
		n, err := strconv.Atoi(strings.TrimPrefix(token, "RFNwdAoAAQAAAA-"))
		if err != nil || n < 0 {
			q.fail(t, http.StatusBadRequest, "Directory_ExpiredPageToken", "The specified page token value has expired and can no longer be included in your request.")
			return
		}
		skip = min(n, len(all))
	}
	page := all[skip:min(skip+top, len(all))]
	values := make([]any, len(page))
	for i, v := range page {
		values[i] = show(v)
	}
	body := map[string]any{"@odata.context": odataContext + entity, "value": values}
	if q.query.Get("$count") == "true" {
		body["@odata.count"] = len(all)
	}
	if end := skip + len(page); end < len(all) {
		query := q.query
		query.Set("$skiptoken", fmt.Sprintf("RFNwdAoAAQAAAA-%d", end))
		body["@odata.nextLink"] = t.link(q, path, encodeQuery(query))
	}
	q.json(http.StatusOK, body)
}

// encodeQuery leaves the dollar of option names as it is, as Graph does.
func encodeQuery(v url.Values) string { return strings.ReplaceAll(v.Encode(), "%24", "$") }

// selected keeps what $select names; without it, normal.
func (q *request) selected(all map[string]any, normal ...string) map[string]any {
	names := normal
	if s := q.query.Get("$select"); s != "" {
		names = strings.Split(s, ",")
	}
	out := map[string]any{}
	for _, n := range names {
		n = strings.TrimSpace(n)
		for k, v := range all {
			if strings.EqualFold(k, n) {
				out[k] = v
			}
		}
	}
	return out
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (t *Tenant) userJSON(q *request, p *Person) map[string]any {
	plans := []any{}
	for _, id := range p.Plans {
		service := "TeamspaceAPI"
		if id == CommunicationsDLP {
			service = "exchange"
		}
		plans = append(plans, map[string]any{
			"assignedDateTime": t.start.Add(-t.cfg.Span).Format("2006-01-02T15:04:05Z"),
			"capabilityStatus": "Enabled", "service": service, "servicePlanId": id,
		})
	}
	return q.selected(map[string]any{
		"id": p.ID, "displayName": p.DisplayName, "givenName": p.GivenName, "surname": p.Surname,
		"userPrincipalName": p.UPN, "mail": orNull(p.Mail), "jobTitle": orNull(p.JobTitle),
		"accountEnabled": p.AccountEnabled, "userType": p.UserType, "assignedPlans": plans,
		"assignedLicenses": []any{}, "businessPhones": []any{}, "mobilePhone": nil, "officeLocation": nil,
		"preferredLanguage": nil,
	}, "businessPhones", "displayName", "givenName", "jobTitle", "mail", "mobilePhone", "officeLocation",
		"preferredLanguage", "surname", "userPrincipalName", "id")
}

func (t *Tenant) serveUser(q *request) {
	if !q.only(t, "$select") {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.dir.lookup(q.params[0])
	if p == nil {
		q.notFound(t, q.params[0])
		return
	}
	body := t.userJSON(q, p)
	body["@odata.context"] = odataContext + "users/$entity"
	q.json(http.StatusOK, body)
}

func (t *Tenant) serveUsers(q *request) {
	if !q.only(t, "$select", "$filter", "$top", "$skiptoken", "$count") {
		return
	}
	keep, ok := q.directoryFilter(t, "id", "userPrincipalName", "mail", "displayName")
	if !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []*Person
	for _, p := range t.dir.people {
		if keep(map[string]string{"id": string(p.ID), "userPrincipalName": p.UPN, "mail": p.Mail, "displayName": p.DisplayName}) {
			found = append(found, p)
		}
	}
	servePart(t, q, "/users", "users", found, func(p *Person) map[string]any { return t.userJSON(q, p) })
}

// maxIn is how many values an `in` may list, https://learn.microsoft.com/en-us/graph/filter-query-parameter.
const maxIn = 15

// directoryFilter reads one `property eq 'value'`, several of them joined by `or`, or `property in ('a','b')`.
func (q *request) directoryFilter(t *Tenant, properties ...string) (func(map[string]string) bool, bool) {
	s := q.query.Get("$filter")
	if s == "" {
		return func(map[string]string) bool { return true }, true
	}
	bad := func() (func(map[string]string) bool, bool) {
		q.fail(t, http.StatusBadRequest, "Request_UnsupportedQuery", fmt.Sprintf("Unsupported or invalid query filter clause specified for property in '%s'.", s))
		return nil, false
	}
	words, err := filterWords(strings.ReplaceAll(s, ",", " "))
	if err != nil || len(words) < 3 {
		return bad()
	}
	wanted := map[string][]string{}
	take := func(property, literal string) bool {
		if !slices.Contains(properties, property) || len(literal) < 2 || literal[0] != '\'' {
			return false
		}
		wanted[property] = append(wanted[property], strings.ReplaceAll(literal[1:len(literal)-1], "''", "'"))
		return true
	}
	if words[1] == "in" && len(words) > 4 && words[2] == "(" && words[len(words)-1] == ")" {
		values := words[3 : len(words)-1]
		if len(values) > maxIn {
			q.fail(t, http.StatusBadRequest, "Request_UnsupportedQuery", "Too many child clauses specified in search filter expression containing 'OR' operators.")
			return nil, false
		}
		for _, v := range values {
			if !take(words[0], v) {
				return bad()
			}
		}
	} else {
		for i := 0; i < len(words); i += 4 {
			if i+3 > len(words) || words[i+1] != "eq" || !take(words[i], words[i+2]) || (i+3 < len(words) && words[i+3] != "or") {
				return bad()
			}
		}
	}
	return func(object map[string]string) bool {
		for property, values := range wanted {
			if slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(v, object[property]) }) {
				return true
			}
		}
		return false
	}, true
}

func (t *Tenant) groupJSON(q *request, g *Group) map[string]any {
	types, options := []string{}, []string{}
	if g.Team {
		types, options = []string{"Unified"}, []string{"Team"}
	}
	return q.selected(map[string]any{
		"id": g.ID, "displayName": g.DisplayName, "description": nil, "mailEnabled": g.Team, "securityEnabled": !g.Team,
		"groupTypes": types, "resourceProvisioningOptions": options, "visibility": "Private",
		"createdDateTime": t.start.Add(-t.cfg.Span).Format("2006-01-02T15:04:05Z"),
	}, "id", "displayName", "description", "mailEnabled", "securityEnabled", "groupTypes", "resourceProvisioningOptions", "visibility", "createdDateTime")
}

// isTeamFilter is the documented way to list teams, https://learn.microsoft.com/en-us/graph/teams-list-all-teams.
func isTeamFilter(s string) bool {
	return strings.EqualFold(strings.ReplaceAll(s, " ", ""), "resourceProvisioningOptions/Any(x:xeq'Team')")
}

func (t *Tenant) serveGroups(q *request) {
	if !q.only(t, "$select", "$filter", "$top", "$skiptoken", "$count") {
		return
	}
	keep, ok := func(map[string]string) bool { return true }, true
	teams := isTeamFilter(q.query.Get("$filter"))
	if !teams {
		if keep, ok = q.directoryFilter(t, "id", "displayName"); !ok {
			return
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []*Group
	for _, g := range t.dir.groups {
		if (!teams || g.Team) && keep(map[string]string{"id": g.ID, "displayName": g.DisplayName}) {
			found = append(found, g)
		}
	}
	servePart(t, q, "/groups", "groups", found, func(g *Group) map[string]any { return t.groupJSON(q, g) })
}

func (t *Tenant) serveGroup(q *request) {
	if !q.only(t, "$select") {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.dir.groupByID(q.params[0])
	if g == nil {
		q.notFound(t, q.params[0])
		return
	}
	body := t.groupJSON(q, g)
	body["@odata.context"] = odataContext + "groups/$entity"
	q.json(http.StatusOK, body)
}

func (d *directory) groupByID(id string) *Group {
	for _, g := range d.groups {
		if strings.EqualFold(g.ID, id) {
			return g
		}
	}
	return nil
}

func (t *Tenant) serveOwners(q *request) {
	if !q.only(t, "$select", "$top", "$skiptoken", "$count") {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.dir.groupByID(q.params[0])
	if g == nil {
		q.notFound(t, q.params[0])
		return
	}
	servePart(t, q, "/groups/"+g.ID+"/owners", "directoryObjects", g.Owners, func(id PersonID) map[string]any {
		return t.memberJSON(q, Member{"user", string(id)})
	})
}

// deletion is an object that was deleted and can be restored still.
type deletion struct {
	id, name string
	at       time.Time
}

func (t *Tenant) serveDeletedUsers(q *request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var gone []deletion
	for id, at := range t.dir.removed {
		gone = append(gone, deletion{string(id), t.dir.byID[id].DisplayName, at})
	}
	t.serveDeleted(q, "user", gone)
}

func (t *Tenant) serveDeletedGroups(q *request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var gone []deletion
	for _, tm := range t.teams {
		if !tm.deleted.IsZero() {
			gone = append(gone, deletion{tm.id, tm.name, tm.deleted})
		}
	}
	t.serveDeleted(q, "group", gone)
}

// serveDeleted lists what was deleted less than 30 days ago,
// https://learn.microsoft.com/en-us/graph/api/directory-deleteditems-list.
func (t *Tenant) serveDeleted(q *request, kind string, gone []deletion) {
	if !q.only(t, "$select", "$top", "$skiptoken", "$count") {
		return
	}
	gone = slices.DeleteFunc(gone, func(d deletion) bool { return t.now().Sub(d.at) >= exportAfterRemoval })
	slices.SortFunc(gone, func(a, b deletion) int { return strings.Compare(a.id, b.id) })
	servePart(t, q, "/directory/deletedItems/microsoft.graph."+kind, "directoryObjects", gone, func(d deletion) map[string]any {
		return map[string]any{
			"@odata.type": "#microsoft.graph." + kind, "id": d.id, "displayName": d.name, "deletedDateTime": d.at.Format("2006-01-02T15:04:05Z"),
		}
	})
}

// serveMembers serves direct and transitive members, cast to users or not. A cast is an advanced query,
// https://learn.microsoft.com/en-us/graph/aad-advanced-queries.
func (t *Tenant) serveMembers(q *request) {
	if !q.only(t, "$select", "$top", "$skiptoken", "$count") {
		return
	}
	cast := strings.HasSuffix(q.named, "/microsoft.graph.user")
	if cast && (q.r.Header.Get("ConsistencyLevel") != "eventual" || q.query.Get("$count") != "true") {
		q.fail(t, http.StatusBadRequest, "Request_UnsupportedQuery", "The specified casting requires the ConsistencyLevel header to be 'eventual' and $count to be true.")
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.dir.groupByID(q.params[0])
	if g == nil {
		q.notFound(t, q.params[0])
		return
	}
	members, path := slices.Clone(g.Members), "/groups/"+g.ID+"/members"
	if strings.Contains(q.named, "transitiveMembers") {
		members, path = t.dir.transitive(g), "/groups/"+g.ID+"/transitiveMembers"
	}
	if cast {
		path += "/microsoft.graph.user"
		members = slices.DeleteFunc(members, func(m Member) bool { return m.Type != "user" })
	}
	servePart(t, q, path, "directoryObjects", members, func(m Member) map[string]any { return t.memberJSON(q, m) })
}

// memberJSON shows a member; of a user only the id, unless the caller may read users.
func (t *Tenant) memberJSON(q *request, m Member) map[string]any {
	var body map[string]any
	switch m.Type {
	case "user":
		body = t.userJSON(q, t.dir.byID[PersonID(m.ID)])
		if !q.has(readUsers...) {
			for k := range body {
				body[k] = nil
			}
		}
	case "group":
		body = t.groupJSON(q, t.dir.groupByID(m.ID))
	default:
		body = q.selected(map[string]any{"displayName": t.dir.names[m.ID], "accountEnabled": true}, "displayName")
	}
	body["@odata.type"] = "#microsoft.graph." + m.Type
	body["id"] = m.ID
	return body
}

func (t *Tenant) serveOrganization(q *request) {
	q.json(http.StatusOK, map[string]any{
		"@odata.context": odataContext + "organization",
		"value": []any{map[string]any{
			"id": t.cfg.Tenant, "displayName": "Contoso", "tenantType": "AAD", "countryLetterCode": "DE",
			"verifiedDomains": []any{map[string]any{"name": "contoso.example", "isDefault": true, "isInitial": true, "type": "Managed"}},
		}},
	})
}
