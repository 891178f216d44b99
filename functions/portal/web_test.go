package portal_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"steno/functions/portal"
)

// everywhere are the headers that every response carries.
var everywhere = map[string]string{
	"Strict-Transport-Security":    "max-age=31536000; includeSubDomains",
	"X-Content-Type-Options":       "nosniff",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), microphone=(), geolocation=(), payment=()",
	"X-Frame-Options":              "DENY",
}

const apiPolicy = "default-src 'none'; frame-ancestors 'none'; sandbox"

func checkHeaders(t *testing.T, what string, h http.Header) {
	t.Helper()
	for name, value := range everywhere {
		if got := h.Values(name); !slices.Equal(got, []string{value}) {
			t.Errorf("%s: %s is %q", what, name, got)
		}
	}
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") || slices.Contains([]string{"Server", "X-Powered-By", "Set-Cookie"}, name) {
			t.Errorf("%s: carries %s", what, name)
		}
	}
	if h.Get("Content-Security-Policy") == "" || h.Get("Cache-Control") == "" {
		t.Errorf("%s: policy %q, cache %q", what, h.Get("Content-Security-Policy"), h.Get("Cache-Control"))
	}
}

// crawled are all routes there are, with what answers they can give.
func crawled(w *world) map[string]http.Header {
	as := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	out := map[string]http.Header{
		"/steno/": nil, "/steno/conversations/" + idOf(northThread): nil, "/steno/assets/app-1a.js": nil, "/steno/assets/none.js": nil,
		"/steno/config.json": nil, "/steno/v1/openapi.json": nil, "/steno/v1/": nil, "/steno/v1/none": as(w.token(nora)), "/": nil, "/steno": nil,
		"/elsewhere": nil, "/steno//v1/session": nil, "/steno/v1/../v1/session": nil, "/steno/assets/../index.html": nil,
		"/steno/v1/conversations?limit=0": as(w.token(nora)),
	}
	for _, pattern := range portal.Patterns() {
		for _, item := range []string{"north", "missing"} {
			out["/steno/v1/"+asked(pattern, item)] = as(w.token(nora))
			out["/steno/v1/"+asked(pattern, item)+"?"] = as("x")
		}
	}
	return out
}

func TestEveryResponseCarriesTheHeaders(t *testing.T) {
	w := newWorld(t)
	for path, header := range crawled(w) {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"} {
			rec := w.send(method, "https://localhost"+path, header)
			what := fmt.Sprintf("%s %s %d", method, path, rec.Code)
			checkHeaders(t, what, rec.Header())
			h := rec.Header()
			page := strings.HasPrefix(h.Get("Content-Type"), "text/html") && rec.Code == http.StatusOK
			if !page && h.Get("Content-Security-Policy") != apiPolicy {
				t.Errorf("%s: policy %q", what, h.Get("Content-Security-Policy"))
			}
			asset := rec.Code == http.StatusOK && strings.HasPrefix(path, "/steno/assets/")
			if asset != strings.Contains(h.Get("Cache-Control"), "immutable") || !asset && !strings.Contains(h.Get("Cache-Control"), "no-store") {
				t.Errorf("%s: cache %q", what, h.Get("Cache-Control"))
			}
			if strings.Contains(path, "/v1/") && rec.Code == http.StatusOK && header != nil && h.Get("Cache-Control") != "no-store, private" {
				t.Errorf("%s: cache %q", what, h.Get("Cache-Control"))
			}
		}
	}
}

func TestFailingStoresCarryTheHeadersToo(t *testing.T) {
	w := newWorld(t)
	w.trail.fail = fmt.Errorf("trail is gone")
	rec := w.get(nora, "conversations/"+idOf(northThread)+"/messages")
	want(t, rec, http.StatusServiceUnavailable)
	checkHeaders(t, "503", rec.Header())
}

func TestPagePolicyHasANonceOfItsOwnEachTime(t *testing.T) {
	w := newWorld(t)
	seen := map[string]bool{}
	for range 100 {
		rec := w.send(http.MethodGet, "/steno/conversations", nil)
		policy := rec.Header().Get("Content-Security-Policy")
		_, rest, ok := strings.Cut(policy, "'nonce-")
		nonce, _, ok2 := strings.Cut(rest, "'")
		if !ok || !ok2 || len(nonce) < 22 || seen[nonce] || !strings.Contains(rec.Body.String(), `nonce="`+nonce+`"`) {
			t.Fatalf("policy %q for %q", policy, rec.Body)
		}
		seen[nonce] = true
		for _, rule := range []string{
			"default-src 'none'", "script-src 'self'", "object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'",
			"connect-src 'self' " + w.login.URL,
		} {
			if !slices.Contains(strings.Split(policy, "; "), rule) {
				t.Fatalf("policy lacks %q: %q", rule, policy)
			}
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
			t.Fatalf("policy %q", policy)
		}
	}
}

func TestRequestsFromOtherSitesAreRefused(t *testing.T) {
	w := newWorld(t)
	bearer := "Bearer " + w.token(nora)
	for name, h := range map[string]http.Header{
		"cookie only":           {"Cookie": {"session=x"}, "Content-Type": {"application/json"}, "Origin": {"https://evil.example"}},
		"text that is JSON":     {"Authorization": {bearer}, "Content-Type": {"text/plain"}},
		"form":                  {"Authorization": {bearer}, "Content-Type": {"application/x-www-form-urlencoded"}},
		"no type":               {"Authorization": {bearer}},
		"foreign origin":        {"Authorization": {bearer}, "Content-Type": {"application/json"}, "Origin": {"https://evil.example"}},
		"null origin":           {"Authorization": {bearer}, "Content-Type": {"application/json"}, "Origin": {"null"}},
		"cross-site":            {"Authorization": {bearer}, "Content-Type": {"application/json"}, "Sec-Fetch-Site": {"cross-site"}},
		"same-site":             {"Authorization": {bearer}, "Content-Type": {"application/json"}, "Sec-Fetch-Site": {"same-site"}},
		"cross-site, no origin": {"Sec-Fetch-Site": {"cross-site"}, "Content-Type": {"application/json"}},
	} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
			for _, pattern := range append(portal.Patterns(), portal.Changes()...) {
				rec := w.send(method, "/steno/v1/"+asked(pattern, "north"), h)
				if rec.Code != http.StatusForbidden || rec.Body.Len() != 0 {
					t.Errorf("%s %s with %s: %d %q", method, pattern, name, rec.Code, rec.Body)
				}
			}
		}
	}
	if calls := w.journal.take(); len(calls) != 0 {
		t.Errorf("stores were asked: %v", calls)
	}
}

func TestNothingIsChangedButByAPostToARouteThatSaysSo(t *testing.T) {
	w := newWorld(t)
	h := http.Header{"Authorization": {"Bearer " + w.token(carla)}, "Content-Type": {"application/json"}, "Sec-Fetch-Site": {"same-origin"}}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "TRACE", "LOCK"} {
		for _, pattern := range append(portal.Patterns(), portal.Changes()...) {
			if method == "POST" && slices.Contains(portal.Changes(), pattern) {
				continue
			}
			want(t, w.send(method, "/steno/v1/"+asked(pattern, "north"), h), http.StatusMethodNotAllowed)
		}
	}
	if calls := w.journal.take(); len(calls) != 0 {
		t.Errorf("stores were asked: %v", calls)
	}
}

func TestPreflightIsRefusedWithoutCORSHeaders(t *testing.T) {
	w := newWorld(t)
	for path := range crawled(w) {
		rec := w.send(http.MethodOptions, "https://localhost"+path, http.Header{
			"Origin": {"https://evil.example"}, "Access-Control-Request-Method": {"GET"}, "Access-Control-Request-Headers": {"authorization"},
		})
		want(t, rec, http.StatusForbidden)
		checkHeaders(t, "preflight "+path, rec.Header())
		own := http.Header{"Content-Type": {"application/json"}, "Sec-Fetch-Site": {"same-origin"}}
		want(t, w.send(http.MethodOptions, "https://localhost"+path, own), http.StatusForbidden)
	}
}

func TestUnknownAndRepeatedParametersAreRefused(t *testing.T) {
	w := newWorld(t)
	thread := asked("threads/{thread}/conversations", "north")
	w.journal.take()
	for _, query := range []string{
		"conversations?limit=1&limit=1", "conversations?tenant=x", "conversations?Limit=1", "conversations?person=x", "conversations?limit=101",
		"conversations?limit=-1", "conversations?limit=1e1", "conversations?from=2026-03-09", "conversations?from=2026-03-09T00:00:00Z&to=2026-03-09T00:00:00Z",
		"conversations?from=2024-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "conversations?cursor=AAAA", "conversations?cursor=..",
		thread + "?limit=0", thread + "?person=" + string(rita), thread + "?cursor=x&cursor=x", thread + "?cursor=%00",
	} {
		want(t, w.get(nora, query), http.StatusBadRequest)
	}
	if calls := w.journal.take(); len(calls) != 0 {
		t.Errorf("stores were asked: %v", calls)
	}
}

// hostileIDs are path segments as they stand in a request line.
var hostileIDs = []string{
	"..%2fx", "%2e%2e%2fx", "..%5cx", "%2e%2e", "a%2fb", "%2f", "%252f", "%00", "a%00b", "%0d%0aX:1", "%27", "%22", "%27%20or%201%20eq%201", "%3b", "%25",
	"%c0%ae%c0%ae", "%ff", "CON", "con.txt", "NUL", "COM1", "LPT9.json", "AUX", "~", "*", "$filter", "%F0%9F%99%82", "-", "0", "%20", "%e2%80%aeexe",
	strings.Repeat("a", 10<<10), strings.Repeat("%2e", 3000), "ABCDEFGHIJKLMNOPQRSTUV0123456789-20260309", "00000000000000000000000000000000-20260230",
	"00000000000000000000000000000000-2026030", "00000000000000000000000000000000-20260309%20", "w0000000000000000000000000000000-20260309",
}

// TestHostileIDsReachNoStore sends them over the wire: no store is asked for them and
// none is answered with anything but 400 or 404.
func TestHostileIDsReachNoStore(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewServer(w.handler)
	t.Cleanup(server.Close)
	for _, id := range hostileIDs {
		for _, pattern := range portal.Patterns() {
			for _, hole := range []string{"{id}", "{thread}", "{message}", "{etag}", "{leg}", "{kind}", "{lane}", "{file}", "{name}"} {
				if !strings.Contains(pattern, hole) || (hole == "{message}" || hole == "{etag}") && wellFormed(id) {
					continue
				}
				path := asked(strings.ReplaceAll(pattern, hole, "HOLE"), "north")
				w.probe(server.URL, strings.NewReplacer("{kind}", "audio", "{lane}", "mixed", "{file}", "1-0.m4s", "{name}", "1-0").Replace(path), id)
			}
		}
		for _, name := range []string{"person", "cursor", "limit", "from", "to", "unknown"} {
			w.probe(server.URL, "conversations?"+name+"=HOLE", id)
		}
	}
}

// wellFormed reports whether a message id or etag may look like this.
func wellFormed(id string) bool {
	return !strings.Contains(id, "%") && len(id) <= 64
}

func (w *world) probe(base, path, id string) {
	w.t.Helper()
	w.clock.Move(1e9)
	u, err := url.Parse(base)
	w.must(err)
	u.Opaque = "//" + u.Host + "/steno/v1/" + strings.Replace(path, "HOLE", id, 1)
	req := (&http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{"Authorization": {"Bearer " + w.token(nora)}}}).WithContext(w.t.Context())
	resp, err := http.DefaultTransport.RoundTrip(req)
	w.must(err)
	body, err := io.ReadAll(resp.Body)
	w.must(err)
	w.must(resp.Body.Close())
	if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusNotFound {
		w.t.Errorf("%s with %q: %d", path, clip(id), resp.StatusCode)
	}
	decoded, err := url.PathUnescape(id)
	if err == nil && len(decoded) > 3 && strings.Contains(string(body), decoded) {
		w.t.Errorf("%s with %q is told its own words", path, clip(id))
	}
	for _, line := range w.journal.take() {
		if line != "slice "+idOf(northThread) {
			w.t.Errorf("%s with %q asks a store: %s", path, clip(id), clip(line))
		}
	}
}

func TestAssetsCannotBeLeft(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"assets/..%2findex.html", "assets/%2e%2e/index.html", "assets/..%5cindex.html", "assets/%00", "assets/", "assets//", "assets/./x", "assets/app-1a.js%00.png"} {
		rec := w.send(http.MethodGet, "/steno/"+name, nil)
		if rec.Code == http.StatusOK {
			t.Errorf("%s: 200 %q", name, rec.Body)
		}
	}
}

func TestPublicConfigTellsOnlyWhereToSignIn(t *testing.T) {
	w := newWorld(t)
	got := decode[map[string]string](t, w.send(http.MethodGet, "/steno/config.json", nil).Body)
	want := map[string]string{"authority": w.entra.Authority(), "clientId": client, "scope": "api://" + audience + "/" + scope}
	if !maps.Equal(got, want) {
		t.Fatalf("got %v", got)
	}
}
