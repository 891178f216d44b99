package sim

import (
	"strconv"
)

// This file has the entities of calls as Graph writes them: https://learn.microsoft.com/graph/api/resources/call and
// the pages it leads to.

// invitation is the call of a recording invite, https://learn.microsoft.com/graph/api/call-answer (example 3).
func (l *leg) invitation() map[string]any {
	c := l.call
	c.mu.Lock()
	defer c.mu.Unlock()
	endpoint := "default"
	if l.phantom {
		endpoint = "skypeForBusinessVoipPhone"
	}
	out := map[string]any{
		"@odata.type": "#microsoft.graph.call",
		"id":          l.id, "state": "incoming", "direction": "incoming", "callChainId": c.chain, "tenantId": c.calls.t.cfg.Tenant,
		"myParticipantId": l.me, "requestedModalities": []string{"audio"},
		"source": map[string]any{
			"@odata.type": "#microsoft.graph.participantInfo", "id": l.recorded.id, "identity": l.recorded.identity(),
			"endpointType": endpoint, "region": "emea", "languageId": "en-GB", "countryCode": "GB",
		},
		"targets": []any{map[string]any{
			"@odata.type": "#microsoft.graph.invitationParticipantInfo", "endpointType": "default", "id": l.me, "region": nil, "languageId": nil,
			"identity": partyIdentity("applicationInstance", map[string]any{"id": l.recorder.Instance, "identityProvider": "AAD"}),
		}},
		"meetingInfo": map[string]any{"@odata.type": "#microsoft.graph.tokenMeetingInfo", "token": "join-" + drawHex(c.rand)},
	}
	if !c.plan.Direct {
		out["incomingContext"] = l.context()
		out["applicationMetadata"] = map[string]any{"botData": l.botData()}
	}
	if c.plan.Thread != "" {
		out["chatInfo"] = map[string]any{"@odata.type": "#microsoft.graph.chatInfo", "threadId": c.plan.Thread, "messageId": "0"}
	}
	if c.plan.Subject != "" {
		out["subject"] = c.plan.Subject
	}
	return out
}

func (l *leg) context() map[string]any {
	out := map[string]any{
		"@odata.type":           "#microsoft.graph.incomingContext",
		"observedParticipantId": l.recorded.id, "sourceParticipantId": l.recorded.id,
	}
	if t := l.call.plan.transferor; t != nil {
		out["transferor"] = t.identity()
	}
	return out
}

// botData is what Teams tells a recorder beside the typed model.
func (l *leg) botData() map[string]any {
	method := func(m *member) string {
		if m.party.Caller {
			return "caller"
		}
		return "callee"
	}
	out := map[string]any{
		"mediaHostedRegion": "UKSO",
		"user": map[string]any{
			"participationMethod": method(l.recorded), "clientLocation": "GB",
			"policyHolderId": "8:orgid:" + string(l.recorded.party.Person), "policyHolderTenantId": l.call.calls.t.cfg.Tenant,
		},
		"inviteReasons": []string{"PolicyBasedRecording"}, "policyIdentifier": "TeamsComplianceRecordingPolicy=Tenant:Recorded",
		"isMultiParty": l.call.plan.Kind != TwoParty,
	}
	paired := []any{}
	for _, o := range l.call.legs {
		if o != l && o.recorded == l.recorded && o.recorder.App != l.recorder.App {
			paired = append(paired, map[string]any{"id": "28:" + o.recorder.Instance, "participantId": o.me})
		}
	}
	out["pairedRecorders"], out["otherRecorders"] = paired, []any{}
	for _, m := range l.call.members {
		if m != l.recorded && l.call.plan.Kind == TwoParty {
			out["otherSideUser"] = map[string]any{
				"id": m.rawID(), "participantId": m.id, "tenantId": m.tenant(), "participationMethod": method(m), "clientLocation": "",
			}
		}
	}
	return out
}

func (m *member) tenant() any {
	if m.person != nil && m.person.Tenant != "" {
		return m.person.Tenant
	}
	return nil
}

func (m *member) rawID() string {
	switch {
	case m.party.Phone != "":
		return "4:" + m.party.Phone
	case m.person != nil:
		return "8:orgid:" + string(m.person.ID)
	case m.party.Application != "":
		return "28:" + m.party.Application
	}
	return "8:teamsvisitor:" + string(m.id)
}

func partyIdentity(kind string, identity map[string]any) map[string]any {
	identity["@odata.type"] = "#microsoft.graph.identity"
	return map[string]any{"@odata.type": "#microsoft.graph.identitySet", kind: identity}
}

// identity is a participant's communicationsIdentitySet.
func (m *member) identity() map[string]any {
	switch {
	case m.party.Phone != "":
		return partyIdentity("phone", map[string]any{"id": m.party.Phone})
	case m.party.Application != "":
		return partyIdentity("application", map[string]any{"id": m.party.Application, "displayName": "Application"})
	case m.party.Guest != "":
		return partyIdentity("guest", map[string]any{"id": string(m.id), "displayName": m.party.Guest})
	case m.person.Identity == IdentityAnonymous:
		return partyIdentity("guest", map[string]any{"id": string(m.person.ID), "displayName": m.person.DisplayName})
	}
	return partyIdentity("user", map[string]any{
		"id": string(m.person.ID), "displayName": m.person.DisplayName, "tenantId": m.tenant(), "identityProvider": "AAD",
	})
}

// roster is the whole list of participants as a leg sees it: its own recorder is in it, others are not.
func (l *leg) roster() []any {
	status := l.status()
	c := l.call
	c.mu.Lock()
	defer c.mu.Unlock()
	out := []any{map[string]any{
		"@odata.type": "#microsoft.graph.participant", "id": l.me,
		"info": map[string]any{
			"@odata.type": "#microsoft.graph.participantInfo",
			"identity":    partyIdentity("applicationInstance", map[string]any{"id": l.recorder.Instance, "displayName": "Recorder"}),
		},
		"mediaStreams": []any{mediaStream("audio", 1, "receiveOnly")}, "isMuted": false, "isInLobby": false, "rosterSequenceNumber": 1,
	}}
	for _, m := range c.members {
		if !m.here() {
			continue
		}
		p := m.participant()
		if m == l.recorded {
			p["recordingInfo"] = map[string]any{
				"@odata.type": "#microsoft.graph.recordingInfo", "recordingStatus": status,
				"initiator": partyIdentity("applicationInstance", map[string]any{"id": l.recorder.Instance}),
			}
		}
		out = append(out, p)
	}
	return out
}

func (m *member) participant() map[string]any {
	audio, camera, screen := "sendReceive", "receiveOnly", "receiveOnly"
	if m.held {
		audio = "inactive"
	}
	if m.camera != nil {
		camera = "sendReceive"
	}
	if m.screen != nil {
		screen = "sendReceive"
	}
	country := "GB"
	if m.party.Phone != "" {
		country = "DE"
	}
	return map[string]any{
		"@odata.type": "#microsoft.graph.participant", "id": m.id, "isMuted": m.muted, "isInLobby": m.lobby, "metadata": nil,
		"rosterSequenceNumber": m.sequence,
		"info": map[string]any{
			"@odata.type": "#microsoft.graph.participantInfo", "identity": m.identity(), "endpointType": "default",
			"countryCode": country, "languageId": "en-GB", "region": "emea",
		},
		"mediaStreams": []any{
			mediaStream("audio", m.msi, audio), mediaStream("video", m.msi+1, camera), mediaStream("videoBasedScreenSharing", m.msi+2, screen),
		},
	}
}

func mediaStream(kind string, source uint32, direction string) map[string]any {
	label := map[string]string{"audio": "main-audio", "video": "main-video", "videoBasedScreenSharing": "applicationsharing-video"}[kind]
	return map[string]any{
		"@odata.type": "#microsoft.graph.mediaStream", "mediaType": kind, "sourceId": strconv.FormatUint(uint64(source), 10),
		"direction": direction, "serverMuted": false, "label": label,
	}
}

// stateOnly is a call in a notification of its state.
func (l *leg) stateOnly(state string) map[string]any {
	return map[string]any{
		"@odata.type": "#microsoft.graph.call", "@odata.id": l.url(), "@odata.etag": `W/"5445"`, "id": l.id, "state": state,
	}
}

// terminated is the last state. Codes are numbers or, where the plan says so, text, as in examples of the documentation.
func (l *leg) terminated(why Result) any {
	if l.call.plan.DeletedWithoutData {
		return map[string]any{"@odata.type": "#microsoft.graph.call", "@odata.id": l.url()}
	}
	out := l.stateOnly("terminated")
	info := map[string]any{"@odata.type": "#microsoft.graph.resultInfo", "message": why.Message}
	if l.call.plan.TextCodes {
		info["code"], info["subcode"] = strconv.Itoa(why.Code), strconv.Itoa(why.Subcode)
	} else {
		info["code"], info["subcode"] = why.Code, why.Subcode
	}
	out["resultInfo"] = info
	return out
}
