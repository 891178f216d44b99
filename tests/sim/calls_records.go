package sim

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// recordLife is how long Graph keeps a call record,
// https://learn.microsoft.com/graph/api/callrecords-cloudcommunications-list-callrecords.
const recordLife = 30 * 24 * time.Hour

// recordsPerPage is small so that listings have pages; the real size is not documented.
const recordsPerPage = 3

// DelayRecords sets how long after the end of a call its record appears, still without its last session; after twice as
// long it is complete and has a higher version. By default it is complete at once.
func (c *Calls) DelayRecords(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recordDelay = d
}

// LoseRecord makes the call one of which Graph never has a record.
func (c *Call) LoseRecord() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unrecorded = true
}

// stay is a stretch in which somebody was connected.
type stay struct {
	person   *Person // nil: a telephone, a guest
	from, to time.Time
	failed   bool
}

// callRecord is what Graph says of a call that has ended.
type callRecord struct {
	id       string
	version  int
	kind     CallKind
	thread   ThreadID
	from, to time.Time
	stays    []stay
}

// Stay is a stretch in which a person was connected to a call that has ended.
type Stay struct {
	Person   PersonID
	From, To time.Time
	Failed   bool // nobody spoke with anybody
}

// Stays is the truth of who was in the call when; empty while it goes on.
func (c *Call) Stays() []Stay {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Stay
	for _, s := range c.stays() {
		if s.person != nil {
			out = append(out, Stay{s.person.ID, s.from, s.to, s.failed})
		}
	}
	return out
}

// stays needs mu held.
func (c *Call) stays() (out []stay) {
	if !c.ended {
		return nil
	}
	for _, m := range c.members {
		if !m.lobby {
			out = append(out, stay{m.person, m.joined, m.left, c.plan.Missed})
		}
	}
	return out
}

// record returns the call's record as Graph has it at a time, false if it has none.
func (c *Call) record(now time.Time, delay time.Duration) (callRecord, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := callRecord{id: guidOf(c.chain), version: 2, kind: c.plan.Kind, thread: c.plan.Thread, stays: c.stays()}
	if c.unrecorded || len(r.stays) == 0 {
		return r, false
	}
	r.from, r.to = r.stays[0].from, r.stays[0].to
	for _, s := range r.stays {
		if s.from.Before(r.from) {
			r.from = s.from
		}
		if s.to.After(r.to) {
			r.to = s.to
		}
	}
	since := now.Sub(r.to)
	if since < delay || since > recordLife {
		return r, false
	}
	if since < 2*delay {
		r.version, r.stays = 1, r.stays[:len(r.stays)-1]
	}
	return r, true
}

// guidOf is an id that belongs to another one and does not look like it.
func guidOf(s string) string {
	a, b := mix(s, 1), mix(s, 2)
	return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>52, b&0xffffffffffff)
}

// records lists what Graph has, oldest first.
func (c *Calls) records() (out []callRecord) {
	c.mu.Lock()
	calls, delay := slices.Clone(c.calls), c.recordDelay
	c.mu.Unlock()
	for _, call := range calls {
		if r, ok := call.record(c.t.now(), delay); ok {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b callRecord) int { return a.from.Compare(b.from) })
	return out
}

// fineStamp has seven digits of a second, as call records do.
func fineStamp(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.0000000Z") }

// serveCallRecords is https://learn.microsoft.com/graph/api/callrecords-cloudcommunications-list-callrecords.
func (t *Tenant) serveCallRecords(q *request) {
	if !q.only(t, "$select", "$filter", "$skip") {
		return
	}
	from, to, ok := recordFilter(q.query.Get("$filter"))
	if !ok {
		q.fail(t, http.StatusBadRequest, "BadRequest", "Invalid filter clause: only startDateTime and participants_v2 are supported.")
		return
	}
	found := slices.DeleteFunc(t.calls.records(), func(r callRecord) bool { return r.from.Before(from) || !r.from.Before(to) })
	skip := 0
	if s := q.query.Get("$skip"); s != "" {
		if _, err := fmt.Sscanf(s, "%d", &skip); err != nil || skip < 0 {
			q.fail(t, http.StatusBadRequest, "BadRequest", "Invalid $skip.")
			return
		}
	}
	page := found[min(skip, len(found)):min(skip+recordsPerPage, len(found))]
	values := []any{}
	for _, r := range page {
		kind, join := "groupCall", any(nil)
		if r.kind == TwoParty {
			kind = "peerToPeer"
		} else if r.thread != "" {
			join = "https://teams.microsoft.com/l/meetup-join/" + strings.NewReplacer(":", "%3a", "@", "%40").Replace(string(r.thread)) + "/0?context=%7b%22Tid%22%3a%22" + t.cfg.Tenant + "%22%7d"
		}
		values = append(values, q.selected(map[string]any{
			"id": r.id, "version": r.version, "type": kind, "modalities": []string{"audio"}, "joinWebUrl": join,
			"startDateTime": fineStamp(r.from), "endDateTime": fineStamp(r.to), "lastModifiedDateTime": fineStamp(t.now()),
		}, "id", "version", "type", "modalities", "joinWebUrl", "startDateTime", "endDateTime", "lastModifiedDateTime"))
	}
	body := map[string]any{"@odata.context": odataContext + "communications/callRecords", "value": values}
	if end := skip + len(page); end < len(found) {
		query := url.Values{}
		for k, v := range q.query {
			query[k] = v
		}
		query.Set("$skip", fmt.Sprint(end))
		body["@odata.nextLink"] = t.link(q, "/communications/callRecords", encodeQuery(query))
	}
	q.json(http.StatusOK, body)
}

// recordFilter reads `startDateTime ge A and startDateTime lt B`.
func recordFilter(s string) (from, to time.Time, ok bool) {
	to = time.Unix(1<<40, 0)
	if s == "" {
		return from, to, true
	}
	for clause := range strings.SplitSeq(s, " and ") {
		words := strings.Fields(clause)
		if len(words) != 3 || words[0] != "startDateTime" {
			return from, to, false
		}
		at, err := time.Parse(time.RFC3339, words[2])
		switch {
		case err != nil:
			return from, to, false
		case words[1] == "ge":
			from = at
		case words[1] == "lt":
			to = at
		default:
			return from, to, false
		}
	}
	return from, to, true
}

// serveSessions is https://learn.microsoft.com/graph/api/callrecords-session-list.
func (t *Tenant) serveSessions(q *request) {
	if !q.only(t, "$expand") {
		return
	}
	all := t.calls.records()
	i := slices.IndexFunc(all, func(r callRecord) bool { return r.id == strings.ToLower(q.params[0]) })
	if i < 0 {
		q.fail(t, http.StatusNotFound, "NotFound", "Resource not found.")
		return
	}
	r := all[i]
	values := []any{}
	session := func(n int, caller, callee any, s stay) {
		var failure any
		if s.failed {
			failure = map[string]any{"reason": "The user did not answer.", "stage": "callSetup"}
		}
		values = append(values, map[string]any{
			"id": guidOf(r.id + fmt.Sprint(n)), "modalities": []string{"audio"}, "startDateTime": fineStamp(s.from), "endDateTime": fineStamp(s.to),
			"isTest": false, "caller": caller, "callee": callee, "failureInfo": failure,
		})
	}
	if r.kind == TwoParty && len(r.stays) == 2 {
		session(0, t.endpointJSON(r.stays[0].person), t.endpointJSON(r.stays[1].person), r.stays[0])
	} else {
		for n, s := range r.stays {
			session(n, t.endpointJSON(s.person), map[string]any{
				"@odata.type": "#microsoft.graph.callRecords.serviceEndpoint", "userAgent": map[string]any{"headerValue": "", "role": "customerServiceAgent"},
			}, s)
		}
	}
	q.json(http.StatusOK, map[string]any{"@odata.context": odataContext + "communications/callRecords('" + r.id + "')/sessions", "value": values})
}

func (t *Tenant) endpointJSON(p *Person) any {
	out := map[string]any{
		"@odata.type": "#microsoft.graph.callRecords.participantEndpoint", "userAgent": map[string]any{"headerValue": "CallSignalingAgent", "platform": "windows", "productFamily": "teams"},
		"identity": map[string]any{"user": nil, "phone": map[string]any{"id": "+49000000"}},
	}
	if p != nil {
		out["identity"] = map[string]any{"user": map[string]any{"id": p.ID, "displayName": p.DisplayName, "tenantId": orNull(p.Tenant)}, "phone": nil}
		out["associatedIdentity"] = map[string]any{"id": p.ID, "displayName": p.DisplayName, "userPrincipalName": p.UPN}
	}
	return out
}
