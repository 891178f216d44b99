package host_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"steno/tests/local/host"
)

const hostJSON = `{
  "version": "2.0",
  "functionTimeout": "00:10:00",
  "customHandler": {
    "description": {"defaultExecutablePath": "handler"},
    "enableProxyingHttpRequest": true,
    "initializationTimeout": "00:00:10"
  },
  "extensions": {
    "queues": {"maxDequeueCount": 2, "visibilityTimeout": "00:00:00", "maxPollingInterval": "00:00:00.1"},
    "serviceBus": {"maxConcurrentCalls": 4}
  }
}`

const (
	timerJSON   = `{"bindings":[{"type":"timerTrigger","direction":"in","name":"timer","schedule":"0 0 3 * * *"}]}`
	inspectJSON = `{"bindings":[{"type":"httpTrigger","direction":"in","name":"req","authLevel":"anonymous","methods":["get"],"route":"inspect"},{"type":"http","direction":"out","name":"res"}]}`
)

// handlerBinary is the test handler, built once for all tests.
var handlerBinary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "handler")
	if err != nil {
		panic(err)
	}
	handlerBinary = filepath.Join(dir, "handler")
	if out, err := exec.Command("go", "build", "-o", handlerBinary, "./testdata/handler").CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// stage writes an app with the test handler; functions maps names to function.json.
func stage(t testing.TB, functions map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "host.json"), hostJSON)
	for name, text := range functions {
		write(t, filepath.Join(dir, name, "function.json"), text)
	}
	if err := os.Symlink(handlerBinary, filepath.Join(dir, "handler")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// start runs an app that can be inspected; change may alter the configuration.
func start(t testing.TB, functions map[string]string, change func(*host.Config)) *host.Host {
	t.Helper()
	all := map[string]string{"inspect": inspectJSON}
	for name, text := range functions {
		all[name] = text
	}
	cfg := host.Config{ScriptRoot: stage(t, all), MasterKey: "master", FunctionKey: "key", Log: &testLog{t: t}}
	if change != nil {
		change(&cfg)
	}
	h, err := host.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Stop)
	return h
}

// timers makes a timer function of each name.
func timers(names ...string) map[string]string {
	m := map[string]string{}
	for _, n := range names {
		m[n] = timerJSON
	}
	return m
}

// testLog shows the host's lines with the test that caused them.
type testLog struct {
	t  testing.TB
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t.Logf("%s", bytes.TrimSpace(p))
	return l.b.Write(p)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// eventually polls until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for tick := time.NewTicker(10 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// call is what the handler saw.
type call struct {
	Method, Path, Length, Body string
	Encoding                   []string
	Header                     http.Header
}

func inspect(t testing.TB, h *host.Host, path string) []call {
	t.Helper()
	status, body := get(t, h, http.MethodGet, "/api/inspect", "", nil)
	if status != http.StatusOK {
		t.Fatalf("inspect: status %d: %s", status, body)
	}
	var calls []call
	if err := json.Unmarshal([]byte(body), &calls); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(calls, func(c call) bool { return c.Path != path })
}

func get(t testing.TB, h *host.Host, method, path, body string, header http.Header) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, h.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range header {
		req.Header[name] = v
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// fails runs a timer function and returns why it failed.
func fails(t testing.TB, h *host.Host, name, want string) {
	t.Helper()
	err := h.RunTimer(t.Context(), name)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s ended with %v, want an error with %q", name, err, want)
	}
}

func TestANormalRunHasNoErrorLines(t *testing.T) {
	h := start(t, timers("ok"), nil)
	if err := h.RunTimer(t.Context(), "ok"); err != nil {
		t.Error(err)
	}
	inv := h.Invocations()
	if len(inv) != 1 || !inv[0].OK() || inv[0].Function != "ok" || inv[0].Status != http.StatusOK || inv[0].Trigger != "timerTrigger" {
		t.Errorf("invocations %+v", inv)
	}
	if lines := h.Errors(); len(lines) != 0 {
		t.Errorf("error lines %q", lines)
	}
	if h.ReadyIn() <= 0 || h.HandlerPID() == 0 || h.State() != "Running" || !slices.Equal(h.Functions(), []string{"inspect", "ok"}) {
		t.Errorf("ready in %v, pid %d, state %s, functions %v", h.ReadyIn(), h.HandlerPID(), h.State(), h.Functions())
	}
}

func TestInvocationLooksAsTheHostsDoes(t *testing.T) {
	h := start(t, timers("ok"), nil)
	if err := h.RunTimer(t.Context(), "ok"); err != nil {
		t.Fatal(err)
	}
	c := inspect(t, h, "/ok")[0]
	if c.Method != "POST" || c.Length != "-1" || !slices.Equal(c.Encoding, []string{"chunked"}) {
		t.Errorf("%s with length %s and encoding %v", c.Method, c.Length, c.Encoding)
	}
	if id := c.Header.Get("X-Azure-Functions-InvocationId"); id != h.Invocations()[0].ID || len(id) != 36 {
		t.Errorf("invocation id %q", id)
	}
	if got := c.Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("content type %q", got)
	}
	for _, want := range []string{
		`{"Data":{"timer":{"Schedule":{"AdjustForDST":true},"ScheduleStatus":{"Last":"0001-01-01T00:00:00","Next":"`,
		`T03:00:00+00:00","LastUpdated":"0001-01-01T00:00:00"},"IsPastDue":false}},"Metadata":{"sys":{"MethodName":"ok","UtcNow":"`,
	} {
		if !strings.Contains(c.Body, want) {
			t.Errorf("body %s lacks %s", c.Body, want)
		}
	}
}

func TestAnswersThatTheHostHangsOnAreExplained(t *testing.T) {
	names := []string{"empty", "null", "nocontent"}
	h := start(t, timers(names...), nil)
	for _, name := range names {
		fails(t, h, name, "the real host hangs on this answer")
	}
	if lines := h.Errors(); len(lines) != len(names) {
		t.Errorf("error lines %q", lines)
	}
}

func TestAnswersThatTheHostRefusesFail(t *testing.T) {
	for name, want := range map[string]string{
		"fail": "answered 500", "text": "no MediaTypeFormatter", "broken": "not the envelope", "outputs": "without an output binding",
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, timers(name), nil)
			fails(t, h, name, want)
			if strings.Contains(strings.Join(h.Errors(), ""), "said") {
				t.Error("logs of a failed invocation survived")
			}
		})
	}
}

func TestRedirectOfAnInvocationLosesItsBody(t *testing.T) {
	h := start(t, timers("redirect"), nil)
	if err := h.RunTimer(t.Context(), "redirect"); err != nil {
		t.Fatal(err)
	}
	if c := inspect(t, h, "/ok"); len(c) != 1 || c[0].Method != "GET" || c[0].Body != "" {
		t.Errorf("redirected to %+v", c)
	}
}

func TestBase64LookingOutputIsFlagged(t *testing.T) {
	h := start(t, timers("base64"), nil)
	if err := h.RunTimer(t.Context(), "base64"); err != nil {
		t.Fatal(err)
	}
	if lines := h.Errors(); len(lines) != 1 || !strings.Contains(lines[0], "valid base64") {
		t.Errorf("error lines %q", lines)
	}
}

func TestLinesGetTheLevelsOfTheHost(t *testing.T) {
	log := &testLog{t: t}
	h := start(t, timers("stderr"), func(c *host.Config) { c.Log = log })
	if err := h.RunTimer(t.Context(), "stderr"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Information Host.Function.Console: listening ", "Error Host.Function.Console: plain\n",
		"Warning Host.Function.Console: warning: careful\n", "Information Function.stderr.User: said\n"} {
		eventually(t, want, func() bool { return strings.Contains(log.String(), want) })
	}
	if lines := h.Errors(); !slices.Equal(lines, []string{"plain"}) {
		t.Errorf("error lines %q", lines)
	}
}

func TestTimeoutKillsTheHandlerWithAllThatRunsInIt(t *testing.T) {
	h := start(t, timers("slow", "slow-other"), func(c *host.Config) {
		c.Settings = map[string]string{"AzureFunctionsJobHost__functionTimeout": "00:00:01"}
	})
	pid := h.HandlerPID()
	other := make(chan error)
	go func() { other <- h.RunTimer(context.WithoutCancel(t.Context()), "slow-other") }()
	fails(t, h, "slow", "functionTimeout")
	if err := <-other; err == nil {
		t.Error("the other invocation lived on")
	}
	if err := h.WaitReady(t.Context()); err != nil || h.HandlerPID() == pid {
		t.Errorf("no new handler: %v", err)
	}
}

func TestKilledHandlerIsRestartedUntilItWasOneErrorTooMany(t *testing.T) {
	h := start(t, timers("slow", "ok"), nil)
	slow := make(chan error)
	go func() { slow <- h.RunTimer(context.WithoutCancel(t.Context()), "slow") }()
	eventually(t, "invocation under way", func() bool { return h.InFlight() == 1 && len(inspect(t, h, "/slow")) == 1 })
	if !h.KillHandler() {
		t.Error("nothing killed")
	}
	if err := <-slow; err == nil {
		t.Error("the invocation survived its handler")
	}
	if err := h.RunTimer(t.Context(), "ok"); err != nil {
		t.Errorf("after the first kill: %v", err)
	}
	h.KillHandler()
	if err := h.RunTimer(t.Context(), "ok"); err != nil {
		t.Errorf("after the second kill: %v", err)
	}
	h.KillHandler()
	fails(t, h, "ok", host.ErrStopped.Error())
	if status, _ := get(t, h, "GET", "/api/inspect", "", nil); status != http.StatusServiceUnavailable {
		t.Errorf("HTTP status %d, want 503", status)
	}
	if h.HandlerStarts() != 3 || h.State() != "Error" || h.KillHandler() {
		t.Errorf("%d starts, state %s", h.HandlerStarts(), h.State())
	}
}

func TestExitWithZeroLeavesTheAppDead(t *testing.T) {
	h := start(t, timers("exit0", "ok"), nil)
	fails(t, h, "exit0", "call handler")
	eventually(t, "exit noticed", func() bool { return h.State() == "Error" })
	fails(t, h, "ok", "exited with 0")
}

func TestExitForARestartIsNotCounted(t *testing.T) {
	h := start(t, timers("exit200", "ok"), nil)
	for range 5 {
		fails(t, h, "exit200", "call handler")
		eventually(t, "handler back", func() bool { return h.RunTimer(t.Context(), "ok") == nil })
	}
	if h.HandlerStarts() != 6 {
		t.Errorf("%d starts, want 6", h.HandlerStarts())
	}
}

func TestHandlerThatDoesNotStartIsReported(t *testing.T) {
	for name, tt := range map[string]struct {
		settings map[string]string
		want     string
	}{
		"crash":       {map[string]string{"EXIT_ON_START": "1"}, host.ErrStopped.Error()},
		"exit 0":      {map[string]string{"EXIT_ON_START": "0"}, "exited with 0"},
		"never ready": {map[string]string{"NEVER_READY": "1", "AzureFunctionsJobHost__customHandler__initializationTimeout": "00:00:00.2"}, ""},
		"missing":     {map[string]string{"AzureFunctionsJobHost__customHandler__description__defaultExecutablePath": "nowhere"}, host.ErrStopped.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := host.Start(t.Context(), host.Config{ScriptRoot: stage(t, timers("ok")), Settings: tt.settings, Log: &testLog{t: t}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("started with %v", err)
			}
		})
	}
}

func TestStopKillsTheHandlerWithoutASignal(t *testing.T) {
	h := start(t, timers("slow"), nil)
	pid := h.HandlerPID()
	slow := make(chan error)
	go func() { slow <- h.RunTimer(context.WithoutCancel(t.Context()), "slow") }()
	eventually(t, "invocation under way", func() bool { return h.InFlight() == 1 })
	h.Stop()
	if err := <-slow; err == nil {
		t.Error("the invocation survived")
	}
	if err := exec.Command("kill", "-0", strconv.Itoa(pid)).Run(); err == nil {
		t.Error("the handler survived")
	}
}

func TestDrainLetsInvocationsEnd(t *testing.T) {
	h := start(t, timers("pause"), nil)
	header := http.Header{"X-Functions-Key": {"master"}, "Content-Type": {"application/json"}}
	if status, body := get(t, h, "POST", "/admin/functions/pause", "{}", header); status != http.StatusAccepted {
		t.Fatalf("status %d: %s", status, body)
	}
	if err := h.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if inv := h.Invocations(); len(inv) != 1 || !inv[0].OK() {
		t.Errorf("invocations %+v", inv)
	}
}

func TestDrainGivesUpWithItsContext(t *testing.T) {
	h := start(t, timers("slow"), nil)
	get(t, h, "POST", "/admin/functions/slow", "{}", http.Header{"X-Functions-Key": {"master"}, "Content-Type": {"application/json"}})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := h.Drain(ctx); err == nil {
		t.Error("drained an invocation that takes a minute")
	}
}

func TestEndOfTheContextStopsTheHost(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h, err := host.Start(ctx, host.Config{ScriptRoot: stage(t, timers("ok"))})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	eventually(t, "handler gone", func() bool { return h.State() == "Error" })
	h.Stop()
}
