package sim

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// wholeHistory is the visibleHistoryStartDateTime of a member who sees everything.
const wholeHistory = "0001-01-01T00:00:00Z"

// chat finds a chat; channels are not chats. The caller holds the lock.
func (t *Tenant) chat(q *request) *thread {
	if th := t.byThread[ThreadID(q.params[0])]; th != nil && !th.kind.IsChannel() {
		return th
	}
	q.fail(t, http.StatusNotFound, "NotFound", fmt.Sprintf("NotFound: Thread '%s' was not found.", q.params[0]))
	return nil
}

func (t *Tenant) membersJSON(th *thread) []any {
	out := []any{}
	for i, id := range th.roster {
		p := t.dir.byID[id]
		roles := []string{}
		switch {
		case p.Identity != IdentityMember || p.UserType == "Guest":
			roles = []string{"guest"}
		case i == 0 || th.kind == OneOnOne:
			roles = []string{"owner"}
		}
		key := "MCMj" + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s##%s##%s", t.cfg.Tenant, th.id, id))
		kind := "#microsoft.graph.aadUserConversationMember"
		if p.Identity == IdentityAnonymous {
			kind = "#microsoft.graph.anonymousGuestConversationMember"
		}
		out = append(out, map[string]any{
			"@odata.type": kind, "id": key, "roles": roles, "displayName": p.DisplayName,
			"visibleHistoryStartDateTime": wholeHistory, "userId": id, "email": orNull(p.Mail), "tenantId": orNull(p.Tenant),
		})
	}
	return out
}

func (t *Tenant) serveChat(q *request) {
	if !q.only(t, "$expand", "$select") {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	th := t.chat(q)
	if th == nil {
		return
	}
	var meeting any
	if th.kind == Meeting {
		meeting = map[string]any{
			"calendarEventId": nil, "joinWebUrl": th.joinURL,
			"organizer": map[string]any{"id": th.roster[0], "displayName": nil, "userIdentityType": IdentityMember},
		}
	}
	all := map[string]any{
		"id": th.id, "topic": orNull(th.topic), "createdDateTime": fromMillis(th.created), "lastUpdatedDateTime": fromMillis(th.updated),
		"chatType": th.kind, "webUrl": "https://teams.microsoft.com/l/chat/" + string(th.id) + "/0?tenantId=" + t.cfg.Tenant,
		"tenantId": t.cfg.Tenant, "onlineMeetingInfo": meeting, "viewpoint": nil, "isHiddenForAllMembers": false,
	}
	if th.kind == OneOnOne {
		all["topic"] = nil
	}
	body := q.selected(all, "id", "topic", "createdDateTime", "lastUpdatedDateTime", "chatType", "webUrl", "tenantId",
		"onlineMeetingInfo", "viewpoint", "isHiddenForAllMembers")
	body["@odata.context"] = odataContext + "chats/$entity"
	switch expand := q.query.Get("$expand"); expand {
	case "":
	case "members":
		body["@odata.context"] = odataContext + "chats(members())/$entity"
		body["members"] = t.membersJSON(th)
	default:
		q.fail(t, http.StatusBadRequest, "BadRequest", fmt.Sprintf("Expanding '%s' is not supported.", expand))
		return
	}
	q.json(http.StatusOK, body)
}

func (t *Tenant) serveChatMembers(q *request) {
	if !q.only(t) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if th := t.chat(q); th != nil {
		members := t.membersJSON(th)
		q.json(http.StatusOK, map[string]any{
			"@odata.context": odataContext + "chats('" + string(th.id) + "')/members", "@odata.count": len(members), "value": members,
		})
	}
}

func (t *Tenant) teamOf(q *request) *team {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.teams, func(tm *team) bool { return strings.EqualFold(tm.id, q.params[0]) && tm.deleted.IsZero() })
	if i < 0 {
		q.fail(t, http.StatusNotFound, "NotFound", fmt.Sprintf("No team found with Group Id %s", q.params[0]))
		return nil
	}
	return t.teams[i]
}

func (t *Tenant) serveTeam(q *request) {
	if tm := t.teamOf(q); tm != nil {
		q.json(http.StatusOK, map[string]any{
			"@odata.context": odataContext + "teams/$entity", "id": tm.id, "displayName": tm.name, "description": nil,
			"internalId": tm.channels[0].id, "visibility": "private", "isArchived": false, "tenantId": t.cfg.Tenant,
		})
	}
}

func (t *Tenant) serveChannels(q *request) {
	tm := t.teamOf(q)
	if tm == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	values := []any{}
	for _, ch := range tm.channels {
		values = append(values, map[string]any{
			"@odata.id": odataContext + "tenants/" + t.cfg.Tenant + "/teams/" + tm.id + "/channels/" + string(ch.id),
			"id":        ch.id, "displayName": ch.topic, "membershipType": ch.kind, "createdDateTime": fromMillis(ch.created),
			"tenantId": t.cfg.Tenant,
		})
	}
	q.json(http.StatusOK, map[string]any{"@odata.context": odataContext + "teams('" + tm.id + "')/allChannels", "@odata.count": len(values), "value": values})
}

func (t *Tenant) serveChannelMembers(q *request) {
	tm := t.teamOf(q)
	if tm == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, ch := range tm.channels {
		if string(ch.id) == q.params[1] {
			members := t.membersJSON(ch)
			q.json(http.StatusOK, map[string]any{"@odata.context": odataContext + "channels/allMembers", "@odata.count": len(members), "value": members})
			return
		}
	}
	q.fail(t, http.StatusNotFound, "NotFound", "NotFound")
}
