package funchost_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steno/functions/internal/funchost"
)

// crowded is an app with a catch-all, a literal route, a queue and a timer, which notes who was reached.
func crowded(t testing.TB) (http.Handler, *[]string) {
	t.Helper()
	var reached []string
	a := newApp(t, nil)
	page := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			reached = append(reached, name)
			fmt.Fprint(w, r.URL.Path)
		})
	}
	a.HTTP("portal", funchost.Route{Pattern: "{*path}"}, page("portal"))
	a.HTTP("notifications", funchost.Route{Pattern: "notifications"}, page("notifications"))
	a.Queue("finalize", "item", func(context.Context, funchost.Message) error { reached = append(reached, "finalize"); return nil })
	a.Timer("retention", func(context.Context, funchost.TimerInfo) error { reached = append(reached, "retention"); return nil })
	return a.handler(t), &reached
}

func TestNoSpellingOfATriggerPathButItsOwnReachesIt(t *testing.T) {
	h, reached := crowded(t)
	for _, target := range []string{
		"/%66inalize", "/finaliz%65", "//finalize", "/api/../finalize", "/./finalize", "/finalize/", "/finalize/x", "/finalize?", "/finalize?x=1",
		"/Finalize", "/FINALIZE", "/finalize%00", "/finalize;x", "/finalize%2f", `/\finalize`, "/steno/../finalize", "/steno/%2e%2e/finalize",
		"/steno//finalize", "/steno/..%2ffinalize", "/steno/%66inalize", "http://127.0.0.1/finalize", "http://x/steno/finalize", "*", "finalize", "",
		"/stenofinalize", "/unknown", "/", "/host", "/retention/",
	} {
		w := do(h, request("POST", target, invocation(`"\"x\""`)))
		if w.Code != http.StatusNotFound && w.Code != http.StatusBadRequest {
			t.Errorf("%q: status %d, want 404 or 400", target, w.Code)
		}
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post"} {
		if w := do(h, request(method, "/finalize", invocation(`"\"x\""`))); w.Code != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", method, w.Code)
		}
	}
	if len(*reached) != 0 {
		t.Errorf("reached %v", *reached)
	}
}

func TestRequestsReachTheLongestRoute(t *testing.T) {
	h, reached := crowded(t)
	for _, tt := range []struct{ method, target, want string }{
		{"GET", "/steno", "portal"},
		{"GET", "/steno/", "portal"},
		{"GET", "/steno/finalize", "portal"},
		{"POST", "/steno/finalize", "portal"},
		{"GET", "/steno/conversations/19%3Aabc%40thread.v2/?from=1", "portal"},
		{"POST", "/steno/notifications", "notifications"},
		{"POST", "/steno/notifications/?validationToken=x", "notifications"},
		{"POST", "/steno/notificationsx", "portal"},
		{"POST", "/steno/notifications/x", "portal"},
		{"POST", "/finalize", "finalize"},
		{"POST", "/retention", "retention"},
	} {
		*reached = nil
		body := invocation(`"\"x\""`)
		if tt.want == "retention" {
			body = invocation(`{}`)
		}
		w := do(h, request(tt.method, tt.target, body))
		if w.Code != http.StatusOK || len(*reached) != 1 || (*reached)[0] != tt.want {
			t.Errorf("%s %s: status %d, reached %v, want %s", tt.method, tt.target, w.Code, *reached, tt.want)
		}
	}
}

func TestWebPathInAnotherSpellingIsRefused(t *testing.T) {
	h, reached := crowded(t)
	for _, target := range []string{
		"/steno/a//b", "/steno/./a", "/steno/a/..", "/steno/%2e/a", "/steno/a%2Fb", "/steno/a%5cb", `/steno/a\b`, "/steno/%41", "/steno/a%",
		"/steno/a%4", "/steno/a%zz", "/steno/a%00", "/steno/a%0d%0aX", "/steno/a%7f", "/steno//", "/steno/ü",
	} {
		mustBeAnswer(t, do(h, request("GET", target, nil)), http.StatusBadRequest)
	}
	if len(*reached) != 0 {
		t.Errorf("reached %v", *reached)
	}
}

func TestReadinessIsCheapAndSilent(t *testing.T) {
	a := newApp(t, nil)
	a.Timer("retention", func(context.Context, funchost.TimerInfo) error { return nil })
	mustBeAnswer(t, do(a.handler(t), request("GET", "/", nil)), http.StatusOK)
	if a.log.String() != "" {
		t.Errorf("log %s", a.log)
	}
}

func TestNothingIsFoundOutsideRoutes(t *testing.T) {
	a := newApp(t, nil)
	a.HTTP("notifications", funchost.Route{Pattern: "graph/notifications"}, http.NotFoundHandler())
	h := a.handler(t)
	for _, target := range []string{"/steno", "/steno/", "/steno/graph", "/steno/graph/notifications/x"} {
		mustBeAnswer(t, do(h, request("POST", target, nil)), http.StatusNotFound)
	}
}

func TestWebHandlerSeesTheWholeBody(t *testing.T) {
	a := newApp(t, nil)
	a.HTTP("portal", funchost.Route{Pattern: "{*path}", MaxBody: 8}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.ContentLength != int64(len(b)) || r.TransferEncoding != nil {
			t.Errorf("length %d, encoding %v, read %d, %v", r.ContentLength, r.TransferEncoding, len(b), err)
		}
		_, _ = w.Write(b)
	}))
	h := a.handler(t)
	for _, chunked := range []bool{false, true} {
		for body, want := range map[string]int{"": 200, "12345678": 200, "123456789": 413} {
			r := request("POST", "/steno/x", strings.NewReader(body))
			if chunked {
				r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
			}
			if w := do(h, r); w.Code != want || want == 200 && w.Body.String() != body {
				t.Errorf("chunked %v, %q: status %d, body %q, want %d", chunked, body, w.Code, w.Body, want)
			}
		}
	}
}

func TestCompressedWebBodyIsRefused(t *testing.T) {
	h, reached := crowded(t)
	r := request("POST", "/steno/notifications", strings.NewReader("\x1f\x8b"))
	r.Header.Set("Content-Encoding", "gzip")
	mustBeAnswer(t, do(h, r), http.StatusUnsupportedMediaType)
	if len(*reached) != 0 {
		t.Errorf("reached %v", *reached)
	}
}

func TestWebPanicIsAnswered500(t *testing.T) {
	a := newApp(t, nil)
	a.HTTP("portal", funchost.Route{Pattern: "{*path}"}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "audio/ogg")
		if r.URL.Path == "/steno/late" {
			fmt.Fprint(w, "half")
		}
		panic("secret")
	}))
	h := a.handler(t)
	mustBeAnswer(t, do(h, request("GET", "/steno/early", nil)), http.StatusInternalServerError)
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("an answer that had begun ended with %v, want an aborted connection", v)
		}
		if log := a.log.String(); strings.Contains(log, "secret") || !strings.Contains(log, "route_test.go") {
			t.Errorf("log %s", log)
		}
	}()
	do(h, request("GET", "/steno/late", nil))
}

func TestWebHandlerHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil)
		wait := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		a.HTTP("portal", funchost.Route{Pattern: "{*path}"}, wait)
		a.HTTP("export", funchost.Route{Pattern: "export", Timeout: funchost.MaxWebTimeout}, wait)
		h := a.handler(t)
		for target, want := range map[string]time.Duration{"/steno/x": funchost.DefaultWebTimeout, "/steno/export": funchost.MaxWebTimeout} {
			start := time.Now()
			do(h, request("GET", target, nil))
			if took := time.Since(start); took != want {
				t.Errorf("%s ended after %v, want %v", target, took, want)
			}
		}
	})
}

func TestWebRequestsBeyondTheLimitAreTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil)
		a.HTTP("portal", funchost.Route{Pattern: "{*path}"}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(10 * time.Second) }))
		h := a.handler(t)
		codes := make(chan int)
		for range funchost.MaxWebRequests + 1 {
			go func() { codes <- do(h, request("GET", "/steno/x", nil)).Code }()
		}
		got := map[int]int{}
		for range funchost.MaxWebRequests + 1 {
			got[<-codes]++
		}
		if got[http.StatusOK] != funchost.MaxWebRequests || got[http.StatusServiceUnavailable] != 1 {
			t.Errorf("statuses %v", got)
		}
	})
}
