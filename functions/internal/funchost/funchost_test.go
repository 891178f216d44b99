package funchost_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"steno/functions/internal/funchost"
)

// app is a Mux under test with its log kept.
type app struct {
	*funchost.Mux
	log *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newApp(t testing.TB, change func(*funchost.Config)) app {
	t.Helper()
	log := &syncBuffer{}
	cfg := funchost.Config{
		RoutePrefix: "steno",
		Log:         funchost.NewLog(log, slog.LevelDebug),
		Park:        func(context.Context, funchost.Parked) error { return nil },
	}
	if change != nil {
		change(&cfg)
	}
	m, err := funchost.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return app{m, log}
}

func (a app) handler(t testing.TB) http.Handler {
	t.Helper()
	h, err := a.Handler()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// request builds a request whose target is sent as it is written.
func request(method, target string, body io.Reader) *http.Request {
	r := httptest.NewRequest(method, "/", body)
	r.RequestURI = target
	if u, _, _ := strings.Cut(target, "?"); strings.HasPrefix(u, "/") {
		r.URL.Path = u
	}
	r.Header.Set("X-Azure-Functions-InvocationId", "b9f2c1de-0000-4000-8000-000000000001")
	return r
}

func do(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// quoted is the host's encoding of a string.
func quoted(t testing.TB, s string) string {
	t.Helper()
	inner, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	outer, err := json.Marshal(string(inner))
	if err != nil {
		t.Fatal(err)
	}
	return string(outer)
}

func invocation(value string) io.Reader {
	return strings.NewReader(`{"Data":{"item":` + value + `},"Metadata":{"sys":{"MethodName":"finalize"}}}`)
}

// mustBeAnswer fails unless the host could read the answer: a body that is JSON, and a type that says so.
func mustBeAnswer(t testing.TB, w *httptest.ResponseRecorder, status int) {
	t.Helper()
	if w.Code != status {
		t.Errorf("status %d, want %d; body %s", w.Code, status, w.Body)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	var v map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || v == nil {
		t.Errorf("body %q is not a JSON object", w.Body)
	}
}
