package gateway

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

type createRequest struct {
	CallID     string `json:"callId"`
	ScenarioID string `json:"scenarioId"`
	Audio      struct {
		Mode string `json:"mode"`
	} `json:"audio"`
	Video struct {
		Sockets int `json:"sockets"`
	} `json:"video"`
	VBSS bool `json:"vbss"`
	Opus struct {
		Bitrate    int `json:"bitrate"`
		Complexity int `json:"complexity"`
	} `json:"opus"`
}

type description struct {
	Type string `json:"type"`
	SDP  string `json:"sdp"`
}

type createReply struct {
	CallID     string         `json:"callId"`
	SessionID  string         `json:"sessionId"`
	InstanceID string         `json:"instanceId"`
	State      State          `json:"state"`
	Blob       string         `json:"blob"`
	Modalities []string       `json:"modalities"`
	Offer      description    `json:"offer"`
	Tracks     []*track       `json:"tracks"`
	ExtMap     map[string]int `json:"extmap"`
	AudioBase  uint32         `json:"audioBase"`
	VideoBase  uint32         `json:"videoBase"`
	ExpiresAt  string         `json:"expiresAt"`
}

// rtpPair is an instant on both RTP clocks.
type rtpPair struct {
	Audio uint32 `json:"audio"`
	Video uint32 `json:"video"`
}

// maxSockets is how many cameras the platform can deliver at once.
const maxSockets = 10

func (r *createRequest) check() error {
	id := r.CallID
	if id == "" || len(id) > 128 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~") != "" || id == "." || id == ".." {
		return refuse(http.StatusBadRequest, "bad_field", "callId must have 1 to 128 letters, digits or -_.~")
	}
	r.Audio.Mode = cmp.Or(r.Audio.Mode, "unmixed")
	r.Opus.Bitrate = cmp.Or(r.Opus.Bitrate, 24000)
	if r.Audio.Mode != "unmixed" && r.Audio.Mode != "mixed" {
		return refuse(http.StatusBadRequest, "bad_field", "audio.mode must be unmixed or mixed")
	}
	if r.Opus.Bitrate < 6000 || r.Opus.Bitrate > 128000 || r.Opus.Complexity < 0 || r.Opus.Complexity > 10 {
		return refuse(http.StatusBadRequest, "bad_field", "opus.bitrate must be 6000 to 128000 and opus.complexity 0 to 10")
	}
	if r.Video.Sockets < 0 || r.Video.Sockets > maxSockets {
		return refuse(http.StatusUnprocessableEntity, "unsupported_media", "video.sockets must be 0 to 10")
	}
	return nil
}

// ready refuses calls that this gateway cannot take now.
func (g *Gateway) ready() error {
	busy := func(code, detail string) error { return refuse(http.StatusServiceUnavailable, code, detail) }
	switch *g.health.Load() {
	case HealthStarting:
		return busy("starting", "the platform is not ready yet")
	case HealthHeavy:
		return busy("platform_heavily_loaded", "ask another gateway")
	case HealthOverloaded:
		return busy("platform_overloaded", "ask another gateway")
	case HealthFailed:
		return busy("platform_failed", "ask another gateway")
	}
	if g.draining.Load() {
		return busy("draining", "this gateway takes no more calls")
	}
	return nil
}

func (g *Gateway) postCall(r *http.Request) (reply, error) {
	var body createRequest
	if err := g.read(r, &body); err != nil {
		return reply{}, err
	}
	if err := body.check(); err != nil {
		return reply{}, err
	}
	if again, err := g.repeat(body); err != nil || again.status != 0 {
		return again, err
	}
	if err := g.ready(); err != nil {
		return reply{}, err
	}
	c, err := newCall(g, body)
	if err != nil {
		return reply{}, err
	}
	g.mu.Lock()
	full := len(g.calls) >= g.maxCalls && !g.has(DefectNoLimit)
	taken := g.calls[c.id] != nil
	if !full && !taken {
		g.calls[c.id] = c
	}
	g.mu.Unlock()
	switch {
	case taken: // by a repeat that came at the same time
		c.end("duplicate")
		return g.repeat(body)
	case full:
		c.end("limit")
		p := refuse(http.StatusTooManyRequests, "call_limit", "this gateway has as many calls as it takes")
		p.CallID = c.id
		return reply{}, p
	}
	return reply{http.StatusCreated, c.reply}, nil
}

// repeat answers a request for a call id that is known.
func (g *Gateway) repeat(body createRequest) (reply, error) {
	g.mu.Lock()
	c, gone := g.calls[body.CallID], g.gone[body.CallID]
	g.mu.Unlock()
	conflict := func(why string) error {
		p := refuse(http.StatusConflict, "call_conflict", why)
		p.CallID = body.CallID
		return p
	}
	if c == nil {
		if !gone.IsZero() {
			return reply{}, conflict("this call id has been used")
		}
		return reply{}, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.request != body && !g.has(DefectAnyRepeat) {
		return reply{}, conflict("this call id was used with another body")
	}
	if c.state != StateNew {
		return reply{}, conflict("this call has been answered")
	}
	out := c.reply
	if g.has(DefectNewBlob) {
		out.Blob = strings.ReplaceAll(out.Blob, `\/`, "/")
	}
	return reply{http.StatusOK, out}, nil
}

// inSession locks a call for a changing request and checks the session.
func (g *Gateway) inSession(r *http.Request, session func() (string, error)) (*call, error) {
	c, err := g.theCall(r)
	if err != nil {
		return nil, err
	}
	named, err := session()
	if err != nil {
		return nil, err
	}
	c.requests.Lock()
	c.mu.Lock()
	defer c.mu.Unlock()
	conflict := func(code, why string) error {
		c.requests.Unlock()
		p := refuse(http.StatusConflict, code, why)
		p.CallID = c.id
		return p
	}
	if c.state == StateFailed {
		return nil, conflict("call_failed", "the sockets of this call have failed; end it")
	}
	if named != c.session {
		return nil, conflict("session_mismatch", "this session of the call is over or never was")
	}
	return c, nil
}

func (g *Gateway) putAnswer(r *http.Request) (reply, error) {
	var body struct {
		SessionID string `json:"sessionId"`
		description
	}
	c, err := g.inSession(r, func() (string, error) {
		if err := g.read(r, &body); err != nil {
			return "", err
		}
		if body.Type != "answer" || body.SDP == "" {
			return "", refuse(http.StatusBadRequest, "bad_field", "type must be answer and sdp must not be empty")
		}
		return body.SessionID, nil
	})
	if err != nil {
		return reply{}, err
	}
	defer c.requests.Unlock()
	c.mu.Lock()
	p, answered, state := c.peer, c.answered, c.state
	c.mu.Unlock()
	if answered == body.SDP {
		return reply{http.StatusOK, map[string]State{"state": state}}, nil
	}
	if answered != "" {
		return reply{}, refuse(http.StatusConflict, "answer_already_set", "this offer has been answered")
	}
	if err := p.answer(body.SDP); err != nil {
		return reply{}, refuse(http.StatusUnprocessableEntity, "sdp_rejected", err.Error())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = body.SDP
	if c.state == StateNew {
		c.set(StateConnecting)
	}
	return reply{http.StatusOK, map[string]State{"state": StateConnecting}}, nil
}

type gateRequest struct {
	SessionID string `json:"sessionId"`
	State     string `json:"state"`
	Reason    string `json:"reason"`
	Ack       *struct {
		Status         string `json:"status"`
		OperationID    string `json:"operationId"`
		AcknowledgedAt string `json:"acknowledgedAt"`
	} `json:"ack"`
}

func (g *Gateway) postGate(r *http.Request) (reply, error) {
	var body gateRequest
	c, err := g.inSession(r, func() (string, error) {
		if err := g.read(r, &body); err != nil {
			return "", err
		}
		if body.State != "open" && body.State != "closed" {
			return "", refuse(http.StatusBadRequest, "bad_field", "state must be open or closed")
		}
		return body.SessionID, nil
	})
	if err != nil {
		return reply{}, err
	}
	defer c.requests.Unlock()
	if body.State == "closed" {
		last := c.closeGate(cmp.Or(body.Reason, "request"))
		return reply{http.StatusOK, map[string]any{"state": StateReady, "lastRtp": last}}, nil
	}
	if !body.acknowledged() && !g.has(DefectNoAck) {
		return reply{}, refuse(http.StatusUnprocessableEntity, "ack_required",
			"the gate opens with ack.status recording, ack.operationId and ack.acknowledgedAt of Graph's 200")
	}
	at, err := c.openGate()
	if err != nil {
		p := refuse(http.StatusConflict, "peer_not_connected", err.Error())
		p.CallID = c.id
		return reply{}, p
	}
	return reply{http.StatusOK, map[string]any{"state": StateOpen, "rtp": at, "at": g.now().UTC().Format(time.RFC3339Nano)}}, nil
}

func (b *gateRequest) acknowledged() bool {
	if b.Ack == nil || b.Ack.Status != "recording" || b.Ack.OperationID == "" {
		return false
	}
	_, err := time.Parse(time.RFC3339Nano, b.Ack.AcknowledgedAt)
	return err == nil
}

func (g *Gateway) postReoffer(r *http.Request) (reply, error) {
	c, err := g.theCall(r)
	if err != nil {
		return reply{}, err
	}
	c.requests.Lock()
	defer c.requests.Unlock()
	c.mu.Lock()
	state := c.state
	c.mu.Unlock()
	if state == StateFailed || state == StateClosed {
		return reply{}, refuse(http.StatusConflict, "call_failed", "the sockets of this call are gone")
	}
	out, err := c.reoffer()
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, out}, nil
}

func (g *Gateway) deleteCall(r *http.Request) (reply, error) {
	id := r.PathValue("id")
	if c := g.call(id); c != nil {
		c.requests.Lock()
		defer c.requests.Unlock()
		c.end(cmp.Or(r.URL.Query().Get("reason"), "deleted"))
		return reply{http.StatusNoContent, nil}, nil
	}
	g.mu.Lock()
	_, gone := g.gone[id]
	g.mu.Unlock()
	if gone {
		return reply{http.StatusNoContent, nil}, nil
	}
	_, err := g.theCall(r)
	return reply{}, err
}

// theSocket returns a call and one of its video sockets, with the call's mu held.
func (g *Gateway) theSocket(r *http.Request) (*call, *socket, error) {
	c, err := g.theCall(r)
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	if s := c.sockets[r.PathValue("socket")]; s != nil {
		return c, s, nil
	}
	c.mu.Unlock()
	return nil, nil, refuse(http.StatusBadRequest, "bad_field", "the call has no such video socket")
}

func (g *Gateway) putSubscription(r *http.Request) (reply, error) {
	var body struct {
		Source     string `json:"source"`
		Resolution string `json:"resolution"`
	}
	if err := g.read(r, &body); err != nil {
		return reply{}, err
	}
	wanted := uint64(0)
	if body.Source != "" {
		var err error
		if wanted, err = strconv.ParseUint(body.Source, 10, 32); err != nil {
			return reply{}, refuse(http.StatusBadRequest, "bad_field", "source must be a decimal number of 32 bits")
		}
	}
	if !slices.Contains([]string{"SD180p", "SD240p", "SD360p", "SD540p", "HD720p", "HD1080p"}, body.Resolution) {
		return reply{}, refuse(http.StatusBadRequest, "bad_field", "resolution must be SD180p, SD240p, SD360p, SD540p, HD720p or HD1080p")
	}
	c, s, err := g.theSocket(r)
	if err != nil {
		return reply{}, err
	}
	defer c.mu.Unlock()
	if !s.subscribed || s.wanted != uint32(wanted) || s.resolution != body.Resolution {
		s.subscribed, s.wanted, s.resolution, s.hold, s.asked = true, uint32(wanted), body.Resolution, true, time.Time{}
		c.askKeyFrame(s)
	}
	return reply{http.StatusOK, map[string]string{"socket": s.name, "source": body.Source, "resolution": s.resolution}}, nil
}

func (g *Gateway) deleteSubscription(r *http.Request) (reply, error) {
	c, s, err := g.theSocket(r)
	if err != nil {
		return reply{}, err
	}
	defer c.mu.Unlock()
	s.subscribed = false
	if lines := c.unbind(s.bind, "unsubscribed"); len(lines) > 0 {
		c.carry = append(c.carry, lines...) // told with the next frame, or when the gate closes
	}
	return reply{http.StatusNoContent, nil}, nil
}

func (g *Gateway) postDrain(*http.Request) (reply, error) {
	g.draining.Store(true)
	return reply{http.StatusOK, map[string]any{"status": "draining", "calls": len(g.all())}}, nil
}

// CallInfo describes one call.
type CallInfo struct {
	CallID        string            `json:"callId"`
	SessionID     string            `json:"sessionId"`
	State         State             `json:"state"`
	Gate          string            `json:"gate"` // open or closed
	CreatedAt     time.Time         `json:"createdAt"`
	LastTickAt    *time.Time        `json:"lastTickAt"`
	Mode          string            `json:"mode"`
	Bindings      []BindingInfo     `json:"bindings"`
	Subscriptions map[string]string `json:"subscriptions,omitempty"` // source by socket
	Counters      Counters          `json:"counters"`
}

// BindingInfo is which source a track carries.
type BindingInfo struct {
	Track  string `json:"track"`
	Epoch  uint8  `json:"epoch"`
	Source string `json:"source"`
}

// Calls describes every call that has not ended.
func (g *Gateway) Calls() []CallInfo {
	out := []CallInfo{}
	for _, c := range g.all() {
		out = append(out, c.info())
	}
	slices.SortFunc(out, func(a, b CallInfo) int { return cmp.Compare(a.CallID, b.CallID) })
	return out
}

// Call describes one call, and whether there is one of this id.
func (g *Gateway) Call(id string) (CallInfo, bool) {
	if c := g.call(id); c != nil {
		return c.info(), true
	}
	return CallInfo{}, false
}

func (c *call) info() CallInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := CallInfo{
		CallID: c.id, SessionID: c.session, State: c.state, Gate: "closed", CreatedAt: c.created.UTC(), Mode: c.mode,
		Bindings: []BindingInfo{}, Counters: c.count,
	}
	out.Counters.Frames, out.Counters.Dropped = maps.Clone(c.count.Frames), maps.Clone(c.count.Dropped)
	out.Counters.Queued = len(c.queue)
	if c.open {
		out.Gate = "open"
	}
	if !c.lastTick.IsZero() {
		at := c.lastTick.UTC()
		out.LastTickAt = &at
	}
	for _, b := range c.allBindings() {
		if b.bound {
			out.Bindings = append(out.Bindings, BindingInfo{b.track.Name, b.epoch, b.named})
		}
	}
	for name, s := range c.sockets {
		if s.subscribed {
			if out.Subscriptions == nil {
				out.Subscriptions = map[string]string{}
			}
			out.Subscriptions[name] = sourceName(s.wanted)
		}
	}
	return out
}

func (g *Gateway) getCalls(*http.Request) (reply, error) {
	return reply{http.StatusOK, map[string]any{"instanceId": g.instance, "calls": g.Calls()}}, nil
}

// platformHealth is how the platform's library calls its states.
var platformHealth = map[Health]string{
	HealthStarting: "Unknown", HealthOK: "Normal", HealthHeavy: "HeavilyLoaded", HealthOverloaded: "Overloaded", HealthFailed: "Unknown",
}

func (g *Gateway) getHealth(*http.Request) (reply, error) {
	status, code := string(*g.health.Load()), http.StatusServiceUnavailable
	if g.draining.Load() && status == string(HealthOK) {
		status = "draining"
	}
	if status == string(HealthOK) || status == string(HealthHeavy) {
		code = http.StatusOK
	}
	g.mu.Lock()
	now, most := len(g.calls), g.maxCalls
	g.mu.Unlock()
	features := []string{"extension", "video", "reoffer", "nack"}
	if g.cfg.TestMode {
		features = append(features, "test")
	}
	return reply{code, map[string]any{
		"status": status, "instanceId": g.instance, "contract": contractVersion, "features": features,
		"platform":    map[string]any{"health": platformHealth[*g.health.Load()], "library": "simulated", "libraryAgeDays": 0},
		"certificate": map[string]any{"subject": "CN=gateway.example", "notAfter": g.started.AddDate(1, 0, 0).UTC().Format(time.RFC3339)},
		"calls":       map[string]int{"now": now, "max": most}, "cpu": 0.0, "gcPauseP99Ms": 0.0,
		"uptimeS": int(time.Since(g.started).Seconds()),
	}}, nil
}
