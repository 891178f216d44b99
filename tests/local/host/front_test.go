package host_test

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"steno/tests/local/host"
)

func httpJSON(route, level string, methods ...string) string {
	m, err := json.Marshal(methods)
	if err != nil {
		panic(err)
	}
	if len(methods) == 0 {
		m = []byte("null")
	}
	return `{"bindings":[{"type":"httpTrigger","direction":"in","name":"req","authLevel":"` + level + `","methods":` + string(m) + `,"route":"` + route +
		`"},{"type":"http","direction":"out","name":"res"}]}`
}

func webApp() map[string]string {
	return map[string]string{
		"portal": httpJSON("{*path}", "anonymous"),
		"item":   httpJSON("items/{id}/{part?}", "anonymous", "get"),
		"keyed":  httpJSON("keyed", "function"),
		"ruled":  httpJSON("ruled", "admin"),
		"ok":     timerJSON,
	}
}

func TestRequestsAreForwardedAsTheyCame(t *testing.T) {
	h := start(t, webApp(), nil)
	body := "\x00\xff binary"
	status, got := get(t, h, "POST", "/api/a%20b/19%3Ac?x=1&y=%2F", body, http.Header{"X-Own": {"1"}, "X-Azure-Functions-Invocationid": {"forged"}})
	if status != http.StatusOK || got != body {
		t.Errorf("status %d, body %q", status, got)
	}
	calls := inspect(t, h, "/api/a%20b/19:c?x=1&y=%2F")
	if len(calls) != 1 {
		t.Fatalf("calls %+v", calls)
	}
	c := calls[0]
	if c.Header.Get("X-Own") != "1" || c.Header.Get("X-Azure-Functions-Invocationid") == "forged" || c.Header.Get("X-Ms-Invocation-Id") == "" {
		t.Errorf("header %v", c.Header)
	}
}

func TestRoutesAreChosenByPrecedenceAndMethod(t *testing.T) {
	h := start(t, webApp(), nil)
	for _, tt := range []struct {
		method, path, function string
		status                 int
	}{
		{"GET", "/api/items/7", "item", 200},
		{"GET", "/api/items/7/a", "item", 200},
		{"GET", "/API/Items/7", "item", 200},
		{"POST", "/api/items/7", "portal", 200},
		{"GET", "/api/items/7/a/b", "portal", 200},
		{"GET", "/api", "portal", 200},
		{"GET", "/api/x/", "portal", 200},
		{"GET", "/api/error", "portal", 500},
		{"GET", "/", "", 404},
		{"POST", "/ok", "", 404},
		{"POST", "//ok", "", 404},
		{"POST", "/%6fk", "", 404},
		{"POST", "/api/../ok", "", 404},
		{"POST", "/api/%2e%2e/ok", "", 404},
		{"GET", "/api/%00", "", 400},
	} {
		before := len(h.Invocations())
		status, _ := get(t, h, tt.method, tt.path, "", nil)
		if status != tt.status {
			t.Errorf("%s %s: status %d, want %d", tt.method, tt.path, status, tt.status)
		}
		if tt.function == "" {
			continue
		}
		eventually(t, "invocation recorded", func() bool { return len(h.Invocations()) == before+1 })
		if i := h.Invocations()[before]; i.Function != tt.function || !i.OK() || i.Status != tt.status {
			t.Errorf("%s %s: invocation %+v, want one of %q that did not fail", tt.method, tt.path, i, tt.function)
		}
	}
	if calls := inspect(t, h, "/ok"); len(calls) != 0 {
		t.Errorf("a trigger was reached: %+v", calls)
	}
}

func TestChunkedBodiesAndAnswersStream(t *testing.T) {
	h := start(t, webApp(), nil)
	req, err := http.NewRequestWithContext(t.Context(), "POST", h.URL()+"/api/x", io.MultiReader(strings.NewReader("abc")))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "abc" {
		t.Errorf("body %q, %v", b, err)
	}
	if _, got := get(t, h, "GET", "/api/stream", "", nil); got != "xxx" {
		t.Errorf("streamed %q", got)
	}
}

func TestKeysOpenWhatTheirLevelSays(t *testing.T) {
	h := start(t, webApp(), nil)
	for _, tt := range []struct {
		path, key string
		status    int
	}{
		{"/api/keyed", "", 401}, {"/api/keyed", "wrong", 401}, {"/api/keyed", "key", 200}, {"/api/keyed", "master", 200},
		{"/api/keyed?code=key", "", 200}, {"/api/ruled", "key", 401}, {"/api/ruled", "master", 200},
		{"/admin/host/status", "", 401}, {"/admin/host/status", "key", 401}, {"/admin/host/status", "master", 200},
		{"/admin/functions/ok/status", "master", 200}, {"/admin/functions/none/status", "master", 404}, {"/admin", "master", 404},
	} {
		header := http.Header{}
		if tt.key != "" {
			header.Set("X-Functions-Key", tt.key)
		}
		if status, body := get(t, h, "GET", tt.path, "", header); status != tt.status {
			t.Errorf("%s with key %q: status %d: %s, want %d", tt.path, tt.key, status, body, tt.status)
		}
	}
}

func TestNoKeyOpensNothing(t *testing.T) {
	h := start(t, webApp(), func(c *host.Config) { c.MasterKey, c.FunctionKey = "", "" })
	for _, path := range []string{"/api/keyed", "/api/keyed?code=", "/admin/host/status"} {
		if status, _ := get(t, h, "GET", path, "", nil); status != http.StatusUnauthorized {
			t.Errorf("%s: status %d, want 401", path, status)
		}
	}
}

func TestTimerIsStartedByHand(t *testing.T) {
	h := start(t, webApp(), nil)
	for _, tt := range []struct {
		path, content, body, key string
		status                   int
	}{
		{"/admin/functions/ok", "application/json", `{}`, "wrong", 401},
		{"/admin/functions/none", "application/json", `{}`, "master", 404},
		{"/admin/functions/ok", "text/plain", `{}`, "master", 415},
		{"/admin/functions/ok", "application/json", ``, "master", 400},
		{"/admin/functions/portal", "application/json", `{}`, "master", 400},
		{"/admin/functions/ok", "application/json", `{"input":""}`, "master", 202},
	} {
		header := http.Header{"X-Functions-Key": {tt.key}, "Content-Type": {tt.content}}
		if status, body := get(t, h, "POST", tt.path, tt.body, header); status != tt.status {
			t.Errorf("%+v: status %d: %s", tt, status, body)
		}
	}
	eventually(t, "one run", func() bool { return len(h.Invocations()) == 1 })
	if inv := h.Invocations()[0]; inv.Function != "ok" || !inv.OK() {
		t.Errorf("invocation %+v", inv)
	}
}

func TestFunctionThatIsNotProxiedGetsAnEnvelope(t *testing.T) {
	h := start(t, map[string]string{"answer": httpJSON("answer/{id}", "anonymous"), "fail": httpJSON("fail", "anonymous")},
		func(c *host.Config) {
			c.Settings = map[string]string{"AzureFunctionsJobHost__customHandler__enableProxyingHttpRequest": "false"}
		})
	status, body := get(t, h, "POST", "/api/answer/7?x=1&x=2", `{"a":1}`, http.Header{"Content-Type": {"application/json"}})
	if status != http.StatusCreated || body != "made" {
		t.Errorf("status %d, body %q", status, body)
	}
	if status, _ := get(t, h, "POST", "/api/answer/8", "\x01\x02", http.Header{"Content-Type": {"application/octet-stream"}}); status != http.StatusCreated {
		t.Errorf("status %d", status)
	}
	if status, _ := get(t, h, "GET", "/api/fail", "", nil); status != http.StatusInternalServerError {
		t.Errorf("status %d of a failed function, want 500", status)
	}
}

func TestAbsoluteFormTargetIsRefused(t *testing.T) {
	h := start(t, webApp(), nil)
	addr := strings.TrimPrefix(h.URL(), "http://")
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST http://"+addr+"/ok HTTP/1.1\r\nHost: "+addr+"\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 400 ") {
		t.Errorf("answer %q, %v", b, err)
	}
}

func TestAppIsServedOverTLS(t *testing.T) {
	other := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate and a client that trusts it
	defer other.Close()
	h := start(t, webApp(), func(c *host.Config) { c.TLS = &tls.Config{Certificates: other.TLS.Certificates} })
	req, err := http.NewRequestWithContext(t.Context(), "GET", h.URL()+"/api/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := other.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if !strings.HasPrefix(h.URL(), "https://") || resp.StatusCode != http.StatusOK {
		t.Errorf("%s answered %d", h.URL(), resp.StatusCode)
	}
}
