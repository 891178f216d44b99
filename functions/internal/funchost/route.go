package funchost

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

const (
	readyBody = `{"ready":true}`
	jsonType  = "application/json"
)

// handler is a checked Mux that serves.
type handler struct {
	cfg      Config
	prefix   string // "/steno"
	triggers map[string]*trigger
	web      []*webRoute
	slots    chan struct{} // one for each running invocation
	webSlots chan struct{} // one for each running web request
}

// Handler returns the handler of the registered functions, or the faults of their registration.
//
// It looks at the request target as it was sent, before any decoding or cleaning, and knows three kinds:
//
//	GET /                          ready; cheap and not logged, for the host polls it
//	/<prefix> and /<prefix>/...    the HTTP function with the longest matching route; 400 unless the path is in canonical spelling
//	POST /<function>               the timer or queue function of exactly that name, with no query
//
// Everything else is 404, and a target that is not a path (absolute-form, *) is 400. Nothing is ever redirected: the host follows a
// redirect of an invocation with GET and without the body.
func (m *Mux) Handler() (http.Handler, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	return &handler{
		cfg:      m.cfg,
		prefix:   "/" + m.cfg.RoutePrefix,
		triggers: m.triggers,
		web:      m.web,
		slots:    make(chan struct{}, m.cfg.MaxConcurrent),
		webSlots: make(chan struct{}, MaxWebRequests),
	}, nil
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	target, _, query := strings.Cut(r.RequestURI, "?")
	if !strings.HasPrefix(target, "/") {
		refuse(w, http.StatusBadRequest, "request target is not a path")
		return
	}
	if rest, ok := strings.CutPrefix(target, h.prefix); ok && (rest == "" || rest[0] == '/') {
		h.serveWeb(w, r, strings.TrimPrefix(rest, "/"))
		return
	}
	if target == "/" && r.Method == http.MethodGet {
		answer(w, http.StatusOK, readyBody)
		return
	}
	if t, ok := h.triggers[target[1:]]; ok && r.Method == http.MethodPost && !query {
		h.invoke(w, r, t)
		return
	}
	refuse(w, http.StatusNotFound, "no such path")
}

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(status)
	// A write fails when the connection is gone, and then nobody is left to be told.
	_, _ = w.Write([]byte(body))
}

// refuse answers with a constant text, so that it needs no quoting.
func refuse(w http.ResponseWriter, status int, reason string) {
	answer(w, status, `{"error":"`+reason+`"}`)
}

// webRoute is where an HTTP function stands.
type webRoute struct {
	name     string
	literal  string // "notifications", "" for a catch-all at the root
	catchAll bool
	maxBody  int64
	timeout  time.Duration
	handler  http.Handler
}

var (
	literalRoute  = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*$`)
	catchAllRoute = regexp.MustCompile(`^\{\*[a-z]+\}$`)
)

func newWebRoute(name string, route Route, h http.Handler) (*webRoute, error) {
	wr := &webRoute{name: name, literal: route.Pattern, maxBody: route.MaxBody, timeout: route.Timeout, handler: h}
	if dir, last := splitLast(route.Pattern); catchAllRoute.MatchString(last) {
		wr.literal, wr.catchAll = dir, true
	}
	if wr.maxBody == 0 {
		wr.maxBody = DefaultWebBody
	}
	if wr.timeout == 0 {
		wr.timeout = DefaultWebTimeout
	}
	switch {
	case wr.literal == "" && !wr.catchAll, wr.literal != "" && !literalRoute.MatchString(wr.literal):
		return nil, fmt.Errorf("route %q of function %q is not literal segments with a catch-all at most", route.Pattern, name)
	case wr.maxBody < 0 || wr.maxBody > MaxWebBody:
		return nil, fmt.Errorf("body limit %d of function %q is not within %d", route.MaxBody, name, MaxWebBody)
	case wr.timeout < 0 || wr.timeout > MaxWebTimeout:
		return nil, fmt.Errorf("timeout %v of function %q is not within %v", route.Timeout, name, MaxWebTimeout)
	}
	return wr, nil
}

func splitLast(pattern string) (dir, last string) {
	if i := strings.LastIndexByte(pattern, '/'); i >= 0 {
		return pattern[:i], pattern[i+1:]
	}
	return "", pattern
}

// matches reports whether the route covers a canonical path below the prefix. As in the host's router, a trailing slash does not count.
func (wr *webRoute) matches(rest string) bool {
	rest = strings.TrimSuffix(rest, "/")
	if rest == wr.literal {
		return true
	}
	return wr.catchAll && (wr.literal == "" || strings.HasPrefix(rest, wr.literal+"/"))
}

// match returns the longest route for a canonical path below the prefix, and nil if there is none.
func (h *handler) match(rest string) *webRoute {
	var best *webRoute
	for _, wr := range h.web {
		if wr.matches(rest) && (best == nil || longer(wr, best)) {
			best = wr
		}
	}
	return best
}

func longer(a, b *webRoute) bool {
	if len(a.literal) != len(b.literal) {
		return len(a.literal) > len(b.literal)
	}
	return !a.catchAll
}

// canonical reports whether a path below the prefix is spelled in the one way that decoding and cleaning leave as it is: no empty
// segment but the last, no dot segment, and percent-encoding only where RFC 3986 section 2.3 leaves no choice, and never for a
// slash, a backslash or a control character. Two spellings of one path are how a rule on paths is passed by.
func canonical(rest string) bool {
	segments := strings.Split(rest, "/")
	for i, s := range segments {
		if s == "." || s == ".." || s == "" && i < len(segments)-1 {
			return false
		}
	}
	for i := 0; i < len(rest); i++ {
		c := rest[i]
		if c == '\\' || c <= ' ' || c >= 0x7f {
			return false
		}
		if c != '%' {
			continue
		}
		if i+2 >= len(rest) {
			return false
		}
		hi, ok1 := unhex(rest[i+1])
		lo, ok2 := unhex(rest[i+2])
		if d := hi<<4 | lo; !ok1 || !ok2 || unreserved(d) || d == '/' || d == '\\' || d < ' ' || d == 0x7f {
			return false
		}
		i += 2
	}
	return true
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
