package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"steno/shared/conversation"
	"steno/shared/msgraph"
	"steno/shared/teams"
)

// Times and sizes of the gateway's contract.
const (
	gatewayTimeout     = 2 * time.Second
	gatewayOpenTimeout = 1500 * time.Millisecond
	gatewayAnswer      = 1 << 20 // bytes of one reply
	gatewayContract    = "1."    // the major version that is spoken here
	gatewayToken       = 4 << 10
)

// GatewayError is a refusal of the gateway.
type GatewayError struct {
	Status    int
	Code      string // as the contract lists them, such as call_limit
	Retryable bool
}

func (e *GatewayError) Error() string {
	return fmt.Sprintf("gateway answered %d %s", e.Status, e.Code)
}

// errGatewayLies says that a reply contradicts the contract or an earlier reply.
var errGatewayLies = errors.New("gateway contradicts itself")

// Gateway is the client of the gateway's six requests, on loopback.
// See mediabot/gateway/PROTOCOL.md.
type Gateway struct {
	base      string
	tokenFile string
	http      *http.Client
}

// NewGateway returns a client. address is http://127.0.0.1:PORT; tokenFile holds the
// token that the gateway made when it started, and is read for each request, since a
// restarted gateway has made another.
func NewGateway(address, tokenFile string) (*Gateway, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, errors.New("gateway: want http://127.0.0.1:PORT")
	}
	if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() || u.Port() == "" {
		return nil, errors.New("gateway: want an address of loopback: media must not leave the machine")
	}
	if tokenFile == "" {
		return nil, errors.New("gateway: want the file of its token")
	}
	return &Gateway{base: "http://" + u.Host, tokenFile: tokenFile, http: &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: time.Second}).DialContext,
			MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// gatewayCall is a call that the gateway opened.
type gatewayCall struct {
	Call       string   `json:"callId"`
	Session    string   `json:"sessionId"`
	Instance   string   `json:"instanceId"`
	Blob       string   `json:"blob"`
	Modalities []string `json:"modalities"`
	Offer      struct {
		Type string `json:"type"`
		SDP  string `json:"sdp"`
	} `json:"offer"`
	Tracks []struct {
		MID       string `json:"mid"`
		Track     string `json:"track"`
		Kind      string `json:"kind"`
		SSRC      uint32 `json:"ssrc"`
		PT        uint8  `json:"pt"`
		ClockRate int    `json:"clockRate"`
	} `json:"tracks"`
	Extensions map[string]int `json:"extmap"`
	AudioBase  uint32         `json:"audioBase"`
	VideoBase  uint32         `json:"videoBase"`
}

// sourceExtension names the header extension that carries a packet's source.
const sourceExtension = "urn:recorder:mgw:source:1"

// check reports what makes a reply unusable.
func (g gatewayCall) check(call teams.CallID) error {
	switch {
	case g.Call != string(call):
		return fmt.Errorf("%w: it opened another call", errGatewayLies)
	case g.Session == "" || g.Instance == "":
		return fmt.Errorf("%w: no session or instance", errGatewayLies)
	case g.Blob == "" || g.Offer.Type != "offer" || g.Offer.SDP == "" || len(g.Tracks) == 0:
		return fmt.Errorf("%w: no blob, offer or tracks", errGatewayLies)
	case len(g.Modalities) == 0:
		return fmt.Errorf("%w: no modalities", errGatewayLies)
	}
	return nil
}

func (g gatewayCall) offer(leg conversation.LegID) Offer {
	o := Offer{Leg: leg, SDP: g.Offer.SDP, SourceExt: g.Extensions[sourceExtension], AudioBase: g.AudioBase, VideoBase: g.VideoBase}
	for _, t := range g.Tracks {
		o.Tracks = append(o.Tracks, OfferedTrack{MID: t.MID, Track: t.Track, Kind: t.Kind, SSRC: t.SSRC, PT: t.PT, ClockRate: t.ClockRate})
	}
	return o
}

// mediaWanted says which sockets a call gets.
type mediaWanted struct {
	video  int
	screen bool
}

// open makes sockets, blob and offer for a call. The same request again while the call
// is new has the same reply.
func (g *Gateway) open(ctx context.Context, call teams.CallID, chain teams.ChainID, want mediaWanted) (gatewayCall, error) {
	ctx, cancel := context.WithTimeout(ctx, gatewayOpenTimeout)
	defer cancel()
	type audio struct {
		Mode string `json:"mode"`
	}
	type video struct {
		Sockets int `json:"sockets"`
	}
	type opus struct {
		Bitrate    int `json:"bitrate"`
		Complexity int `json:"complexity"`
	}
	body := struct {
		Call     teams.CallID  `json:"callId"`
		Scenario teams.ChainID `json:"scenarioId"`
		Audio    audio         `json:"audio"`
		Video    video         `json:"video"`
		Screen   bool          `json:"vbss"`
		Opus     opus          `json:"opus"`
	}{call, chain, audio{"unmixed"}, video{want.video}, want.screen, opus{24000, 5}}
	var out gatewayCall
	if err := g.do(ctx, http.MethodPost, "/v1/calls", "", body, &out); err != nil {
		return gatewayCall{}, fmt.Errorf("open call at gateway: %w", err)
	}
	if err := out.check(call); err != nil {
		return gatewayCall{}, fmt.Errorf("open call at gateway: %w", err)
	}
	return out, nil
}

func callPath(call teams.CallID, rest string) string {
	return "/v1/calls/" + url.PathEscape(string(call)) + rest
}

// answer gives the gateway the peer's answer.
func (g *Gateway) answer(ctx context.Context, call teams.CallID, c gatewayCall, sdp string) error {
	body := map[string]string{"sessionId": c.Session, "type": "answer", "sdp": sdp}
	if err := g.do(ctx, http.MethodPut, callPath(call, "/answer"), c.Instance, body, nil); err != nil {
		return fmt.Errorf("answer gateway: %w", err)
	}
	return nil
}

// openGate lets media out of the gateway. It takes Graph's acknowledgment and sends it
// along: the gateway opens for nothing less.
func (g *Gateway) openGate(ctx context.Context, call teams.CallID, c gatewayCall, granted msgraph.RecordingGranted) error {
	if !granted.Covers(call) {
		return errors.New("open gate: recording was not granted for this call")
	}
	body := map[string]any{"sessionId": c.Session, "state": "open", "ack": map[string]string{
		"status": "recording", "operationId": granted.Operation(), "acknowledgedAt": granted.At().UTC().Format(time.RFC3339Nano),
	}}
	var out struct {
		State string `json:"state"`
	}
	if err := g.do(ctx, http.MethodPost, callPath(call, "/gate"), c.Instance, body, &out); err != nil {
		return fmt.Errorf("open gate: %w", err)
	}
	if out.State != "open" {
		return fmt.Errorf("open gate: %w: the gate is not open", errGatewayLies)
	}
	return nil
}

// closeGate returns when no later frame can leave the gateway.
func (g *Gateway) closeGate(ctx context.Context, call teams.CallID, c gatewayCall, reason string) error {
	body := map[string]string{"sessionId": c.Session, "state": "closed", "reason": reason}
	var out struct {
		State string `json:"state"`
	}
	if err := g.do(ctx, http.MethodPost, callPath(call, "/gate"), c.Instance, body, &out); err != nil {
		return fmt.Errorf("close gate: %w", err)
	}
	if out.State == "open" {
		return fmt.Errorf("close gate: %w: the gate is open", errGatewayLies)
	}
	return nil
}

// subscribe makes a video socket carry a source, or with source 0 nothing.
func (g *Gateway) subscribe(ctx context.Context, call teams.CallID, c gatewayCall, socket string, source teams.SourceID) error {
	path := callPath(call, "/subscriptions/"+url.PathEscape(socket))
	method, body := http.MethodDelete, any(nil)
	if source != teams.SourceUnknown {
		method, body = http.MethodPut, map[string]string{"source": source.String(), "resolution": "HD1080p"}
	}
	if err := g.do(ctx, method, path, c.Instance, body, nil); err != nil {
		return fmt.Errorf("subscribe %s: %w", socket, err)
	}
	return nil
}

// remove gives the call's sockets back. A call that the gateway does not know is a
// success.
func (g *Gateway) remove(ctx context.Context, call teams.CallID, reason string) error {
	err := g.do(ctx, http.MethodDelete, callPath(call, "?reason="+url.QueryEscape(reason)), "", nil, nil)
	var ge *GatewayError
	if err == nil || errors.As(err, &ge) && ge.Status == http.StatusNotFound {
		return nil
	}
	return fmt.Errorf("remove call from gateway: %w", err)
}

// list returns the ids of the calls that the gateway holds.
func (g *Gateway) list(ctx context.Context) ([]teams.CallID, error) {
	var out struct {
		Calls []struct {
			Call string `json:"callId"`
		} `json:"calls"`
	}
	if err := g.do(ctx, http.MethodGet, "/v1/calls", "", nil, &out); err != nil {
		return nil, fmt.Errorf("list calls of gateway: %w", err)
	}
	var ids []teams.CallID
	for _, c := range out.Calls {
		id, err := teams.ParseCallID(c.Call)
		if err != nil {
			return nil, fmt.Errorf("list calls of gateway: %w", err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// gatewayHealth is how the gateway is.
type gatewayHealth struct {
	Status   string `json:"status"` // ok, heavy; starting, overloaded, draining, failed
	Instance string `json:"instanceId"`
	Contract string `json:"contract"`
	Calls    struct {
		Now int `json:"now"`
		Max int `json:"max"`
	} `json:"calls"`
}

// health asks how the gateway is. An error says that there was no answer at all, or none
// of this contract; a gateway that is unwell is an answer.
func (g *Gateway) health(ctx context.Context) (gatewayHealth, error) {
	var h gatewayHealth
	err := g.do(ctx, http.MethodGet, "/v1/health", "", nil, &h)
	var ge *GatewayError
	if errors.As(err, &ge) && ge.Status == http.StatusServiceUnavailable && h.Instance != "" {
		err = nil
	}
	if err == nil && (h.Instance == "" || h.Status == "" || h.Contract != "" && !strings.HasPrefix(h.Contract, gatewayContract)) {
		err = fmt.Errorf("%w: health without instance or of another contract", errGatewayLies)
	}
	if err != nil {
		return gatewayHealth{}, fmt.Errorf("gateway health: %w", err)
	}
	return h, nil
}

// do sends one request. instance, if not empty, is which gateway process must answer.
func (g *Gateway) do(ctx context.Context, method, path, instance string, body, into any) (err error) {
	ctx, cancel := context.WithTimeout(ctx, gatewayTimeout)
	defer cancel()
	token, err := readToken(g.tokenFile)
	if err != nil {
		return err
	}
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, g.base+path, payload)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("X-Request-Id", rand.Text())
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := g.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			return ue.Err // the address names the call
		}
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if seen := resp.Header.Get("X-Gateway-Instance"); instance != "" && seen != instance {
		return fmt.Errorf("%w: another instance answered", errGatewayLies)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, gatewayAnswer+1))
	if err != nil || len(b) > gatewayAnswer {
		return errors.Join(fmt.Errorf("reply of %d bytes", len(b)), err)
	}
	if resp.StatusCode/100 == 2 {
		if into == nil {
			return nil
		}
		if err := json.Unmarshal(b, into); err != nil {
			return fmt.Errorf("%w: reply is not JSON", errGatewayLies)
		}
		return nil
	}
	ge := &GatewayError{Status: resp.StatusCode}
	var problem struct {
		Code      string `json:"code"`
		Retryable bool   `json:"retryable"`
	}
	if json.Unmarshal(b, &problem) == nil {
		ge.Code, ge.Retryable = cleanCode(problem.Code), problem.Retryable
	}
	if into != nil && resp.StatusCode == http.StatusServiceUnavailable {
		_ = json.Unmarshal(b, into) // a gateway that is unwell still says which one it is
	}
	return ge
}

// cleanCode keeps foreign text out of errors and logs.
func cleanCode(s string) string {
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return "unreadable"
		}
	}
	return s[:min(len(s), 64)]
}

func readToken(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("gateway token: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, gatewayToken))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("gateway token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" || strings.ContainsAny(token, " \r\n") {
		return "", errors.New("gateway token: file does not hold one token")
	}
	return token, nil
}
