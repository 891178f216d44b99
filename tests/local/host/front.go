package host

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxRequestBody  = 104_857_600 // FUNCTIONS_REQUEST_BODY_SIZE_LIMIT's default
	activityTimeout = 240 * time.Second
)

// endpoint is an HTTP function at its route.
type endpoint struct {
	f     *function
	route routeTemplate
}

// front serves the app's address: admin endpoints, and HTTP functions by their routes. The trigger paths of the handler have no route,
// so nothing sent here reaches them.
type front struct {
	h         *Host
	endpoints []endpoint
	proxy     *httputil.ReverseProxy
	slots     chan struct{}
}

func newFront(h *Host) (*front, error) {
	f := &front{h: h}
	opt := h.app.host.Extensions.HTTP
	if opt.MaxConcurrentRequests > 0 {
		f.slots = make(chan struct{}, opt.MaxConcurrentRequests)
	}
	for _, fn := range h.app.functions {
		if fn.trigger.Type != "httpTrigger" {
			continue
		}
		t, err := parseRoute(opt.RoutePrefix + "/" + strings.Trim(fn.route(), "/"))
		if err != nil {
			return nil, fmt.Errorf("route of %s: %w", fn.name, err)
		}
		f.endpoints = append(f.endpoints, endpoint{fn, t})
	}
	slices.SortFunc(f.endpoints, func(a, b endpoint) int {
		switch {
		case a.route.before(b.route):
			return -1
		case b.route.before(a.route):
			return 1
		}
		return strings.Compare(a.f.name, b.f.name)
	})
	f.proxy = &httputil.ReverseProxy{
		Rewrite:       f.rewrite,
		Transport:     &http.Transport{ResponseHeaderTimeout: activityTimeout, DisableCompression: true, MaxIdleConnsPerHost: 64},
		FlushInterval: -1,
		ErrorHandler:  f.forwardFailed,
	}
	return f, nil
}

func (f *front) close() {
	if t, ok := f.proxy.Transport.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	segments, err := normalize(r.URL.EscapedPath())
	if err != nil || r.URL.IsAbs() {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	if len(segments) > 0 && segments[0] == "admin" {
		f.admin(w, r, segments[1:])
		return
	}
	if f.slots != nil {
		select {
		case f.slots <- struct{}{}:
			defer func() { <-f.slots }()
		default:
			http.Error(w, "too many requests", http.StatusTooManyRequests)
			return
		}
	}
	trimmed := segments
	if n := len(segments); n > 0 && segments[n-1] == "" {
		trimmed = segments[:n-1]
	}
	for _, e := range f.endpoints {
		params, ok := e.route.match(trimmed)
		if !ok || !e.takes(r.Method) {
			continue
		}
		if !f.authorized(r, e.f.trigger.AuthLevel) {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxRequestBody)
		f.serve(w, r, e.f, segments, params)
		return
	}
	http.Error(w, "not found", http.StatusNotFound)
}

func (e endpoint) takes(method string) bool {
	return len(e.f.trigger.Methods) == 0 || slices.ContainsFunc(e.f.trigger.Methods, func(m string) bool { return strings.EqualFold(m, method) })
}

// authorized checks the key that a level asks for. A function without a level asks for a function key.
func (f *front) authorized(r *http.Request, level string) bool {
	key := r.Header.Get("x-functions-key")
	if key == "" {
		key = r.URL.Query().Get("code")
	}
	same := func(want string) bool {
		return want != "" && subtle.ConstantTimeCompare([]byte(key), []byte(want)) == 1
	}
	switch strings.ToLower(level) {
	case "anonymous":
		return true
	case "", "function":
		return same(f.h.cfg.FunctionKey) || same(f.h.cfg.MasterKey)
	}
	return same(f.h.cfg.MasterKey)
}

// forwardKey carries what a proxied request needs besides itself.
type forwardKey struct{}

type forwarding struct {
	addr string
	path string
	inv  *Invocation
}

func (f *front) serve(w http.ResponseWriter, r *http.Request, fn *function, segments []string, params map[string]string) {
	f.h.inflight.Add(1)
	defer f.h.inflight.Add(-1)
	if !fn.proxied {
		f.serveEnvelope(w, r, fn, params)
		return
	}
	p, err := f.h.worker.await(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	inv := &Invocation{ID: newGUID(), Function: fn.name, Trigger: fn.trigger.Type, Start: time.Now()}
	ctx := context.WithValue(r.Context(), forwardKey{}, forwarding{p.addr, reencode(segments), inv})
	sw := &statusWriter{ResponseWriter: w}
	defer func() {
		inv.Duration, inv.Status = time.Since(inv.Start), sw.status
		f.h.record(*inv)
	}()
	f.proxy.ServeHTTP(sw, r.WithContext(ctx))
}

func (f *front) rewrite(pr *httputil.ProxyRequest) {
	fw, _ := pr.In.Context().Value(forwardKey{}).(forwarding)
	pr.Out.URL.Scheme, pr.Out.URL.Host = "http", fw.addr
	pr.Out.URL.RawPath = fw.path
	pr.Out.URL.Path, _ = url.PathUnescape(fw.path) // reencode wrote it, so it can be read
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery
	pr.Out.Host = pr.In.Host
	pr.SetXForwarded()
	pr.Out.Header.Set("X-Azure-Functions-InvocationId", fw.inv.ID)
	pr.Out.Header.Set("X-Azure-Functions-HostVersion", hostVersion)
	pr.Out.Header.Set("x-ms-invocation-id", fw.inv.ID)
}

// forwardFailed answers for a handler that could not be reached. Only this fails a proxied invocation; a client that left does not.
func (f *front) forwardFailed(w http.ResponseWriter, r *http.Request, err error) {
	if fw, ok := r.Context().Value(forwardKey{}).(forwarding); ok && r.Context().Err() == nil {
		fw.inv.Err = fmt.Errorf("forward request: %w", err)
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	w.WriteHeader(http.StatusBadGateway)
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the writer below.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// serveEnvelope turns an HTTP request into an invocation, for functions that the host does not proxy.
func (f *front) serveEnvelope(w http.ResponseWriter, r *http.Request, fn *function, params map[string]string) {
	value, err := requestObject(r, params)
	if err != nil {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	ans, err := f.h.invoke(r.Context(), fn, value, nil)
	if err == nil {
		err = writeResult(w, ans, fn.output)
	}
	if err != nil {
		http.Error(w, "the function failed", http.StatusInternalServerError)
	}
}

// requestObject is the trigger's value (azure-functions-host, GetRequestAsJObject): a body only if its length was announced, in base64
// only for two types, and as text otherwise, which spoils anything else that is binary.
func requestObject(r *http.Request, params map[string]string) ([]field, error) {
	var headers, query, route []field
	for name, values := range r.Header {
		headers = append(headers, field{name, values})
	}
	for name, values := range r.URL.Query() {
		query = append(query, field{name, strings.Join(values, ",")})
	}
	for name, v := range params {
		route = append(route, field{name, v})
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	obj := []field{
		{"Url", scheme + "://" + r.Host + r.URL.RequestURI()}, {"Method", r.Method}, {"Query", query}, {"Headers", headers},
		{"Params", route}, {"Identities", []any{}},
	}
	if r.ContentLength <= 0 {
		return obj, nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err == nil && (media == "application/octet-stream" || strings.HasPrefix(media, "multipart/")) {
		return append(obj, field{"Body", base64.StdEncoding.EncodeToString(body)}), nil
	}
	return append(obj, field{"Body", strings.ToValidUTF8(string(body), "\uFFFD")}), nil
}

// writeResult answers with the output of a function's HTTP binding: an object, or a string that holds one.
func writeResult(w http.ResponseWriter, ans *answerEnvelope, output string) error {
	raw, ok := ans.Outputs[output]
	if !ok {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		raw = []byte(text)
	}
	var res struct {
		StatusCode json.RawMessage
		Body       json.RawMessage
		Headers    map[string]string
	}
	if err := json.Unmarshal(raw, &res); err != nil {
		return fmt.Errorf("output %s is no response object: %w", output, err)
	}
	status := http.StatusOK
	if res.StatusCode != nil {
		n, err := strconv.Atoi(string(bytes.Trim(res.StatusCode, `"`)))
		if err != nil || n < 100 || n > 599 {
			return fmt.Errorf("output %s has the status %s", output, res.StatusCode)
		}
		status = n
	}
	for name, v := range res.Headers {
		w.Header().Set(name, v)
	}
	body := []byte(res.Body)
	if json.Unmarshal(res.Body, &text) == nil {
		body = []byte(text)
	}
	w.WriteHeader(status)
	_, err := w.Write(body)
	return err
}

// admin serves the endpoints of the real host that operators use. They want the master key, x-functions-key, and JSON.
func (f *front) admin(w http.ResponseWriter, r *http.Request, path []string) {
	if !f.authorized(r, "admin") {
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return
	}
	switch {
	case r.Method == http.MethodGet && slices.Equal(path, []string{"host", "status"}):
		f.writeJSON(w, map[string]any{"state": f.h.State(), "version": hostVersion})
	case len(path) < 2 || path[0] != "functions":
		http.Error(w, "not found", http.StatusNotFound)
	case f.h.app.functions[path[1]] == nil:
		http.Error(w, "no such function", http.StatusNotFound)
	case r.Method == http.MethodGet && len(path) == 3 && path[2] == "status":
		f.writeJSON(w, map[string]any{"errors": []string{}})
	case r.Method == http.MethodPost && len(path) == 2:
		f.start(w, r, f.h.app.functions[path[1]])
	default:
		http.Error(w, "not found", http.StatusNotFound)
	}
}

func (f *front) writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		f.h.console.infof("answer admin request: %v", err)
	}
}

// start runs a function by hand: the answer is 202 as soon as it runs. A queue function gets the input as its message.
func (f *front) start(w http.ResponseWriter, r *http.Request, fn *function) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		http.Error(w, "content type must be application/json", http.StatusUnsupportedMediaType)
		return
	}
	var in struct {
		Input string `json:"input"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&in); err != nil {
		http.Error(w, "body must be {\"input\":\"...\"}", http.StatusBadRequest)
		return
	}
	if fn.trigger.Type == "httpTrigger" {
		http.Error(w, "call an HTTP function by its route", http.StatusBadRequest)
		return
	}
	if !f.h.goManual(func(ctx context.Context) {
		if t := f.h.timer(fn.name); t != nil {
			// The outcome stands in the invocations, as for a run by schedule.
			_ = f.h.runTimer(ctx, t)
			return
		}
		_, _ = f.h.invoke(ctx, fn, text(fn, []byte(in.Input)), nil)
	}) {
		http.Error(w, "the host is stopping", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}
