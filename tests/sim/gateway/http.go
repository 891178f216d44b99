package gateway

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
)

const contractVersion = "1.0"

// problem is a refusal in the form of RFC 9457.
type problem struct {
	Status    int    `json:"status"`
	Code      string `json:"code"`
	Detail    string `json:"detail"`
	CallID    string `json:"callId,omitempty"`
	Retryable bool   `json:"retryable"`
}

func (p *problem) Error() string { return p.Code + ": " + p.Detail }

func refuse(status int, code, detail string) *problem {
	return &problem{Status: status, Code: code, Detail: detail, Retryable: status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable}
}

// reply is what an endpoint answers.
type reply struct {
	status int
	body   any
}

type endpoint func(g *Gateway, r *http.Request) (reply, error)

func (g *Gateway) handler() http.Handler {
	mux := http.NewServeMux()
	on := func(pattern string, e endpoint) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { g.answer(w, r, e) })
	}
	on("POST /v1/calls", (*Gateway).postCall)
	on("GET /v1/calls", (*Gateway).getCalls)
	on("PUT /v1/calls/{id}/answer", (*Gateway).putAnswer)
	on("POST /v1/calls/{id}/gate", (*Gateway).postGate)
	on("POST /v1/calls/{id}/reoffer", (*Gateway).postReoffer)
	on("PUT /v1/calls/{id}/subscriptions/{socket}", (*Gateway).putSubscription)
	on("DELETE /v1/calls/{id}/subscriptions/{socket}", (*Gateway).deleteSubscription)
	on("DELETE /v1/calls/{id}", (*Gateway).deleteCall)
	on("GET /v1/health", (*Gateway).getHealth)
	on("POST /v1/drain", (*Gateway).postDrain)
	if g.cfg.TestMode {
		g.testEndpoints(on)
	}
	on("/", func(*Gateway, *http.Request) (reply, error) {
		return reply{}, refuse(http.StatusNotFound, "not_found", "there is no such endpoint")
	})
	return mux
}

// answer checks who asks, runs the endpoint and writes its reply.
func (g *Gateway) answer(w http.ResponseWriter, r *http.Request, e endpoint) {
	h := w.Header()
	h.Set("X-Gateway-Instance", g.instance)
	h.Set("X-Contract", contractVersion)
	if id := r.Header.Get("X-Request-Id"); id != "" {
		h.Set("X-Request-Id", id)
	}
	select {
	case g.open <- struct{}{}:
		defer func() { <-g.open }()
	default:
		h.Set("Retry-After", "1")
		g.write(w, 0, nil, refuse(http.StatusServiceUnavailable, "busy", "64 requests are being answered; ask again"))
		return
	}
	if g.hang.Load() {
		<-r.Context().Done()
		return
	}
	if err := g.admit(r); err != nil {
		g.write(w, 0, nil, err)
		return
	}
	out, err := e(g, r)
	var p *problem
	if errors.As(err, &p) && p.Status == http.StatusTooManyRequests {
		h.Set("Retry-After", "1")
	}
	g.write(w, out.status, out.body, err)
}

// admit lets in whoever knows the token and is no web page.
func (g *Gateway) admit(r *http.Request) error {
	if r.Host != g.addr {
		return refuse(http.StatusForbidden, "forbidden_host", "Host must be "+g.addr)
	}
	if len(r.Header.Values("Origin")) > 0 {
		return refuse(http.StatusForbidden, "forbidden_origin", "browsers have no business here")
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if g.has(DefectAnyToken) {
		return nil
	}
	if !ok || subtle.ConstantTimeCompare([]byte(token), []byte(g.token)) != 1 {
		return refuse(http.StatusUnauthorized, "unauthorized", "the bearer token is missing or is not that of this start of the gateway")
	}
	return nil
}

func (g *Gateway) write(w http.ResponseWriter, status int, body any, err error) {
	if err != nil {
		var p *problem
		if !errors.As(err, &p) {
			p = refuse(http.StatusInternalServerError, "internal", err.Error())
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(p.Status)
		_ = json.NewEncoder(w).Encode(p) // a failed write means that the client has gone
		return
	}
	if body == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(body) // as above
}

// read decodes a JSON body. Members that are not known are passed over.
func (g *Gateway) read(r *http.Request, into any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, "not_json", "Content-Type must be application/json")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return refuse(http.StatusBadRequest, "bad_json", "the body ended early")
	}
	if len(body) > maxBody {
		return refuse(http.StatusRequestEntityTooLarge, "too_large", "a body has at most 256 KiB")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if g.has(DefectStrictJSON) {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(into); err != nil {
		return refuse(http.StatusBadRequest, "bad_json", err.Error())
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return refuse(http.StatusBadRequest, "bad_json", "something follows the body's value")
	}
	return nil
}

// theCall returns the call that a request names.
func (g *Gateway) theCall(r *http.Request) (*call, error) {
	id := r.PathValue("id")
	if c := g.call(id); c != nil {
		return c, nil
	}
	p := refuse(http.StatusNotFound, "call_unknown", "no such call; it may have been deleted or have expired")
	p.CallID = id
	return nil, p
}
