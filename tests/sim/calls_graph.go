package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// operation is one of Graph's operations on a call.
type operation struct {
	method, pattern string
	roles           []string // any one suffices; none: the app needs no role
	serve           func(*Calls, *request, *leg)
}

// The roles of calls. Those of keeping, ending and reading a call are asked for when it is answered.
var (
	accessMedia  = []string{"Calls.AccessMedia.All"}
	updateStatus = []string{"Calls.AccessMedia.All", "Calls.JoinGroupCall.All"}
)

var operations = []operation{
	{http.MethodPost, "/communications/calls/{}/answer", accessMedia, (*Calls).serveAnswer},
	{http.MethodPost, "/communications/calls/{}/reject", nil, (*Calls).serveReject},
	{http.MethodPost, "/communications/calls/{}/updateRecordingStatus", updateStatus, (*Calls).serveStatus},
	{http.MethodPost, "/communications/calls/{}/keepAlive", nil, (*Calls).serveKeepAlive},
	{http.MethodGet, "/communications/calls/{}/participants", nil, (*Calls).serveParticipants},
	{http.MethodGet, "/communications/calls/{}/participants/{}", nil, (*Calls).serveParticipant},
	{http.MethodGet, "/communications/calls/{}", nil, (*Calls).serveGet},
	{http.MethodDelete, "/communications/calls/{}", nil, (*Calls).serveDelete},
}

// bodyLimit bounds the body of a request: an answer carries a blob of a few KiB.
const bodyLimit = 1 << 20

func (c *Calls) serve(q *request, path string) {
	words := strings.Split(strings.TrimSuffix(path, "/"), "/")
	var op *operation
	known := false
	for i, o := range operations {
		params, ok := fits(o.pattern, words)
		known = known || ok
		if ok && o.method == q.r.Method {
			op, q.params = &operations[i], params
		}
	}
	switch {
	case op == nil && known:
		q.fail(c.t, http.StatusMethodNotAllowed, "Request_BadRequest", "Specified HTTP method is not allowed for the request target.")
		return
	case op == nil:
		c.t.counts.add("unknown")
		q.fail(c.t, http.StatusNotFound, "BadRequest", fmt.Sprintf("Resource not found for the segment '%s'.", words[len(words)-1]))
		return
	}
	q.named = op.method + " " + strings.ReplaceAll(op.pattern, "{}", "{id}")
	c.t.counts.add(q.named)
	if c.t.rate.over(c.t.cfg.RatePerSecond, c.t.now()) {
		c.t.counts.mu.Lock()
		c.t.counts.limited++
		c.t.counts.mu.Unlock()
		q.throttle(c.t)
		return
	}
	if c.t.requestFault(q) || !c.t.authorize(q, endpoint{}) {
		return
	}
	if l := c.admit(q, op); l != nil {
		op.serve(c, q, l)
	}
}

func fits(pattern string, words []string) (params []string, ok bool) {
	parts := strings.Split(pattern, "/")
	if len(parts) != len(words) {
		return nil, false
	}
	for i, p := range parts {
		if p == "{}" && words[i] != "" {
			params = append(params, words[i])
		} else if !strings.EqualFold(p, strings.TrimPrefix(words[i], "microsoft.graph.")) {
			return nil, false
		}
	}
	return params, true
}

// admit finds the leg and checks who asks: the tenant's own token, of the app whose call it is, with a role.
func (c *Calls) admit(q *request, op *operation) *leg {
	if tid, ok := q.claims["tid"].(string); q.claims != nil && (!ok || tid != c.t.cfg.Tenant) {
		q.fail(c.t, http.StatusForbidden, "7505", "Request authorization tenant mismatch.")
		return nil
	}
	if len(op.roles) > 0 && !q.has(op.roles...) {
		q.fail(c.t, http.StatusForbidden, "7504", "Insufficient enterprise tenant permissions, cannot access this API.")
		return nil
	}
	l := c.leg(q.params[0])
	if l == nil || q.claims != nil && !slices.Contains([]any{q.claims["appid"], q.claims["azp"]}, any(l.recorder.App)) {
		q.fail(c.t, http.StatusNotFound, "8522", errGone.Error())
		return nil
	}
	return l
}

// refused answers an error of a leg.
func (c *Calls) refused(q *request, err error) {
	if errors.Is(err, errGone) {
		q.fail(c.t, http.StatusNotFound, "8522", err.Error())
		return
	}
	q.fail(c.t, http.StatusBadRequest, "BadRequest", err.Error())
}

// body decodes a request's JSON; it reports false after a refusal.
func (c *Calls) body(q *request, into any) bool {
	b, err := io.ReadAll(io.LimitReader(q.r.Body, bodyLimit))
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		q.fail(c.t, http.StatusBadRequest, "BadRequest", "Unable to read JSON request payload.")
		return false
	}
	return true
}

// serveAnswer is https://learn.microsoft.com/graph/api/call-answer.
func (c *Calls) serveAnswer(q *request, l *leg) {
	var body struct {
		CallbackURI string   `json:"callbackUri"`
		Modalities  []string `json:"acceptedModalities"`
		MediaConfig struct {
			Type string `json:"@odata.type"`
			Blob string `json:"blob"`
		} `json:"mediaConfig"`
		CallOptions struct {
			Sharing bool `json:"isContentSharingNotificationEnabled"`
		} `json:"callOptions"`
	}
	if !c.body(q, &body) {
		return
	}
	if fault := checkAnswer(body.CallbackURI, body.Modalities, body.MediaConfig.Type, body.MediaConfig.Blob); fault != "" {
		q.fail(c.t, http.StatusBadRequest, "BadRequest", fault)
		return
	}
	if err := l.answer(body.CallbackURI, body.MediaConfig.Blob, body.CallOptions.Sharing); err != nil {
		c.refused(q, err)
		return
	}
	q.w.WriteHeader(http.StatusAccepted)
}

func checkAnswer(callback string, modalities []string, config, blob string) string {
	if u, err := url.Parse(callback); callback != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		return "callbackUri must be https."
	}
	known := []string{"audio", "video", "videoBasedScreenSharing", "data"}
	if len(modalities) == 0 || slices.ContainsFunc(modalities, func(m string) bool { return !slices.Contains(known, m) }) {
		return "acceptedModalities is required and has audio, video, videoBasedScreenSharing or data."
	}
	switch config {
	case "#microsoft.graph.appHostedMediaConfig":
		if blob == "" {
			return "mediaConfig.blob is required."
		}
	case "#microsoft.graph.serviceHostedMediaConfig":
	default:
		return "mediaConfig must be an appHostedMediaConfig or a serviceHostedMediaConfig."
	}
	return ""
}

// serveReject is https://learn.microsoft.com/graph/api/call-reject: the last notification has no state.
func (c *Calls) serveReject(q *request, l *leg) {
	var body struct {
		Reason string `json:"reason"`
	}
	if !c.body(q, &body) {
		return
	}
	if !slices.Contains([]string{"none", "busy", "forbidden"}, strings.ToLower(body.Reason)) {
		q.fail(c.t, http.StatusBadRequest, "BadRequest", "reason must be none, busy or forbidden.")
		return
	}
	l.mu.Lock()
	incoming := l.state == "incoming"
	if incoming {
		l.state, l.result = "terminated", EndedByRecorder
		l.deadline.Stop()
	}
	l.mu.Unlock()
	if !incoming {
		c.refused(q, errGone)
		return
	}
	l.post(notice{kind: "deleted", url: l.url(), data: map[string]any{"@odata.type": "#microsoft.graph.call", "@odata.id": l.url()}, last: true})
	q.w.WriteHeader(http.StatusAccepted)
}

// serveStatus is https://learn.microsoft.com/graph/api/call-updaterecordingstatus.
func (c *Calls) serveStatus(q *request, l *leg) {
	var body struct {
		ClientContext string `json:"clientContext"`
		Status        string `json:"status"`
	}
	if !c.body(q, &body) {
		return
	}
	if !slices.Contains([]string{"notRecording", "recording", "failed"}, body.Status) || len(body.ClientContext) > 256 {
		q.fail(c.t, http.StatusBadRequest, "BadRequest", "status must be notRecording, recording or failed, and clientContext have at most 256 characters.")
		return
	}
	if l.call.plan.Direct {
		q.fail(c.t, http.StatusForbidden, "8506", "API call not allowed for non-Compliance Recording call.")
		return
	}
	if err := l.updateStatus(body.Status); err != nil {
		c.refused(q, err)
		return
	}
	c.mu.Lock()
	id := drawGUID(c.rand)
	c.mu.Unlock()
	q.w.Header().Set("Location", c.t.base(q)+"/v1.0"+l.url()+"/operations/"+id)
	q.json(http.StatusOK, map[string]any{
		"@odata.type": "#microsoft.graph.updateRecordingStatusOperation", "clientContext": body.ClientContext,
		"id": id, "resultInfo": nil, "status": "completed",
	})
}

// serveKeepAlive is https://learn.microsoft.com/graph/api/call-keepalive.
func (c *Calls) serveKeepAlive(q *request, l *leg) {
	if err := l.keepAlive(); err != nil {
		c.refused(q, err)
		return
	}
	q.w.WriteHeader(http.StatusOK)
}

// serveDelete is https://learn.microsoft.com/graph/api/call-delete.
func (c *Calls) serveDelete(q *request, l *leg) {
	if !l.alive() {
		c.refused(q, errGone)
		return
	}
	l.terminate(EndedByRecorder)
	q.w.WriteHeader(http.StatusNoContent)
}

func (l *leg) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state != "terminated"
}

// serveGet is https://learn.microsoft.com/graph/api/call-get.
func (c *Calls) serveGet(q *request, l *leg) {
	if !l.alive() {
		c.refused(q, errGone)
		return
	}
	out := l.invitation()
	l.mu.Lock()
	out["state"], out["callbackUri"] = l.state, l.callback
	l.mu.Unlock()
	out["@odata.context"] = odataContext + "communications/calls/$entity"
	q.json(http.StatusOK, out)
}

// serveParticipants is https://learn.microsoft.com/graph/api/call-list-participants.
func (c *Calls) serveParticipants(q *request, l *leg) {
	if !l.alive() {
		c.refused(q, errGone)
		return
	}
	q.json(http.StatusOK, map[string]any{
		"@odata.context": odataContext + "communications/calls('" + l.id + "')/participants", "value": l.roster(),
	})
}

// serveParticipant is https://learn.microsoft.com/graph/api/participant-get.
func (c *Calls) serveParticipant(q *request, l *leg) {
	if !l.alive() {
		c.refused(q, errGone)
		return
	}
	for _, p := range l.roster() {
		if m, ok := p.(map[string]any); ok && fmt.Sprint(m["id"]) == q.params[1] {
			q.json(http.StatusOK, m)
			return
		}
	}
	q.notFound(c.t, q.params[1])
}
