package funchost_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"steno/functions/internal/funchost"
	"steno/tests/local/host"
	"steno/tests/local/servicebus"
)

// hosted runs the test handler under the host stand-in with a Service Bus queue.
func hosted(t *testing.T) (*host.Host, *servicebus.Namespace, *azservicebus.Sender) {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "handler"), "./testdata/handler")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, text := range map[string]string{
		"host.json": `{"version":"2.0","functionTimeout":"00:10:00","customHandler":{"description":{"defaultExecutablePath":"handler"},
			"enableProxyingHttpRequest":true},"extensions":{"http":{"routePrefix":"steno"}}}`,
		"portal/function.json": `{"bindings":[{"type":"httpTrigger","direction":"in","name":"req","authLevel":"anonymous","route":"{*path}"},
			{"type":"http","direction":"out","name":"res"}]}`,
		"finalize/function.json":  `{"bindings":[{"type":"serviceBusTrigger","direction":"in","name":"leg","queueName":"legs","connection":"Bus","dataType":"binary"}]}`,
		"retention/function.json": `{"bindings":[{"type":"timerTrigger","direction":"in","name":"timer","schedule":"0 0 3 * * *"}]}`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ns, err := servicebus.Start(servicebus.Config{Queues: []servicebus.Queue{{Name: "legs", MaxDeliveryCount: 3}}})
	if err != nil {
		t.Fatal(err)
	}
	client, err := azservicebus.NewClientFromConnectionString(ns.ConnectionString(), nil)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := client.NewSender("legs", nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.Start(t.Context(), host.Config{ScriptRoot: dir, Settings: map[string]string{"Bus": ns.ConnectionString()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Stop()
		if err := client.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return h, ns, sender
}

// counts asks the handler how often the queue function, the timer and the parking were reached.
func counts(t *testing.T, h *host.Host) string {
	t.Helper()
	return ask(t, h, "count")
}

func ask(t *testing.T, h *host.Host, what string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.URL()+"/steno/"+what, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	return string(b)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for tick := time.NewTicker(10 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func TestNobodyReachesATriggerThroughTheHost(t *testing.T) {
	h, _, _ := hosted(t)
	addr := strings.TrimPrefix(h.URL(), "http://")
	const body = `{"Data":{"leg":"\"x\"","timer":{}},"Metadata":{}}`
	for _, function := range []string{"finalize", "retention"} {
		for _, target := range []string{
			"/" + function, "/%" + fmt.Sprintf("%x", function[0]) + function[1:], "//" + function, "/api/../" + function, "/steno/../" + function,
			"/steno/..%2f" + function, "/steno/%2e%2e/" + function, "http://" + addr + "/" + function, "/" + function + "?code=x", "/admin/functions/" + function,
		} {
			c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: %s\r\nX-Azure-Functions-InvocationId: b9f2c1de-0000-4000-8000-000000000001\r\n"+
				"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", target, addr, len(body), body); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			c.Close()
			if s := resp.StatusCode; s != http.StatusNotFound && s != http.StatusBadRequest && s != http.StatusUnauthorized {
				t.Errorf("POST %s: status %d", target, s)
			}
		}
	}
	if got := counts(t, h); got != "0 0 0" {
		t.Errorf("counts %s", got)
	}
}

func TestOutcomesReachTheQueue(t *testing.T) {
	h, ns, sender := hosted(t)
	for i, body := range []string{"fine", "slow", "poison", "panic", "error"} {
		id := fmt.Sprint(i)
		if err := sender.SendMessage(t.Context(), &azservicebus.Message{Body: []byte(body), MessageID: &id}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.RunTimer(t.Context(), "retention"); err != nil {
		t.Error(err)
	}
	eventually(t, "fine and slow done, poison parked, panic and error dead-lettered", func() bool {
		d := ns.Depth("legs")
		return d.Active+d.Locked == 0 && d.DeadLettered == 2 && counts(t, h) == "2 1 1"
	})
	if lines := h.Errors(); len(lines) != 0 {
		t.Errorf("lines on stderr: %q", lines)
	}
	t.Logf("handler ready in %v", h.ReadyIn())
}

func TestTerminatedHandlerEndsItsWorkAndAsksForARestart(t *testing.T) {
	h, ns, sender := hosted(t)
	pid := h.HandlerPID()
	if err := sender.SendMessage(t.Context(), &azservicebus.Message{Body: []byte("slow")}, nil); err != nil {
		t.Fatal(err)
	}
	// The host counts an invocation before the handler has seen it.
	eventually(t, "invocation under way", func() bool { return ask(t, h, "started") == "1" })
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another handler", func() bool { return h.HandlerStarts() == 2 && h.State() == "Running" })
	if d := ns.Depth("legs"); d.Active+d.Locked+d.DeadLettered != 0 {
		t.Errorf("depth %+v", d)
	}
	for _, i := range h.Invocations() {
		if i.Function == "finalize" && !i.OK() {
			t.Errorf("invocation %+v", i)
		}
	}
}

func BenchmarkQueueInvocationOverLoopback(b *testing.B) {
	a := newApp(b, nil)
	a.Queue("finalize", "item", func(context.Context, funchost.Message) error { return nil })
	var lc net.ListenConfig
	l, err := lc.Listen(b.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- a.Serve(ctx, l) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}()
	body := `{"Data":{"item":` + quoted(b, `{"window":"`+strings.Repeat("x", 500)+`"}`) + `},"Metadata":{}}`
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for b.Loop() {
		resp, err := client.Post("http://"+l.Addr().String()+"/finalize", "application/json", io.MultiReader(strings.NewReader(body)))
		if err != nil {
			b.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if cerr := resp.Body.Close(); err != nil || cerr != nil || resp.StatusCode != http.StatusOK {
			b.Fatal(resp.StatusCode, err, cerr)
		}
	}
}
