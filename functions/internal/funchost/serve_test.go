package funchost_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steno/functions/internal/funchost"
)

// pipes is a listener whose connections are in memory, so that a server runs on a test's own clock.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func listenPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// serve starts a mux on pipes; stop ends it and returns what Serve returned.
func serve(t *testing.T, a app) (p *pipes, stop func() error) {
	t.Helper()
	p = listenPipes()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Serve(ctx, p) }()
	return p, func() error { cancel(); return <-done }
}

func send(t *testing.T, c net.Conn, raw string) {
	t.Helper()
	if _, err := io.WriteString(c, raw); err != nil {
		t.Error(err)
	}
}

func status(t *testing.T, c net.Conn) int {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

func TestChunkedInvocationWithoutLengthIsUnderstood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got string
		a := newApp(t, nil)
		a.Queue("finalize", "item", func(_ context.Context, m funchost.Message) error { got = string(m.Body); return nil })
		p, stop := serve(t, a)
		c := p.dial()
		const half1, half2 = `{"Data":{"item":"\"he`, `llo\""},"Metadata":{}}`
		go send(t, c, "POST /finalize HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json; charset=utf-8\r\n\r\n"+
			fmt.Sprintf("%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", len(half1), half1, len(half2), half2))
		if code := status(t, c); code != http.StatusOK || got != "hello" {
			t.Errorf("status %d, body %q", code, got)
		}
		c.Close()
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestHostileRequestsEndWithinTheirLimits also shows that no goroutine stays behind: synctest fails a bubble that leaves one.
func TestHostileRequestsEndWithinTheirLimits(t *testing.T) {
	const host = " HTTP/1.1\r\nHost: 127.0.0.1\r\n"
	for name, tt := range map[string]struct {
		raw    string
		status int // 0: the connection is closed without an answer
		within time.Duration
	}{
		"slow header":             {"POST /steno/x" + host, 0, funchost.ReadHeaderTimeout},
		"large header":            {"GET /steno/x" + host + "X: " + strings.Repeat("x", 21<<10) + "\r\n\r\n", 431, 0},
		"slow body":               {"POST /steno/x" + host + "Content-Length: 10\r\n\r\n12345", 408, funchost.ReadTimeout},
		"large body":              {"POST /steno/x" + host + "Content-Length: 11\r\n\r\n", 413, 0},
		"large chunked body":      {"POST /steno/x" + host + "Transfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n", 413, 0},
		"compressed body":         {"POST /steno/x" + host + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", 415, 0},
		"absolute form":           {"POST http://127.0.0.1/finalize" + host + "Content-Length: 2\r\n\r\n{}", 400, 0},
		"asterisk form":           {"OPTIONS *" + host + "\r\n", 200, 0}, // answered by net/http itself
		"deep JSON":               {"POST /finalize" + host + "Content-Length: 10000\r\n\r\n" + strings.Repeat("[", 10_000), 400, 0},
		"slow invocation":         {"POST /finalize" + host + "Content-Length: 10\r\n\r\n{", 408, funchost.ReadTimeout},
		"idle after an answer":    {"GET /" + host + "\r\n", 200, 0},
		"two lengths":             {"POST /finalize" + host + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, 0},
		"two slashes before name": {"POST //finalize" + host + "Content-Length: 2\r\n\r\n{}", 404, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newApp(t, nil)
				a.HTTP("portal", funchost.Route{Pattern: "{*path}", MaxBody: 10}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("handled") }))
				a.Queue("finalize", "item", func(context.Context, funchost.Message) error { t.Error("handled"); return nil })
				p, stop := serve(t, a)
				c := p.dial()
				start := time.Now()
				go func() { _, _ = io.WriteString(c, tt.raw) }() // the server may hang up before it has read all
				if tt.status == 0 {
					if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
						t.Errorf("read %v, want the end", err)
					}
				} else if code := status(t, c); code != tt.status {
					t.Errorf("status %d, want %d", code, tt.status)
				}
				if took := time.Since(start); took > tt.within+time.Second {
					t.Errorf("took %v, want %v", took, tt.within)
				}
				_, _ = io.Copy(io.Discard, c) // until the server hangs up
				if took := time.Since(start); took > funchost.IdleTimeout+time.Second {
					t.Errorf("hung up after %v", took)
				}
				c.Close()
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestStopLetsRunningInvocationsEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		takes    time.Duration
		canceled bool
	}{
		"short": {funchost.ShutdownGrace - time.Second, false},
		"long":  {time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got error
				a := newApp(t, nil)
				a.Queue("finalize", "item", func(ctx context.Context, _ funchost.Message) error {
					select {
					case <-ctx.Done():
						got = ctx.Err()
					case <-time.After(tt.takes):
					}
					return got
				})
				p, stop := serve(t, a)
				c := p.dial()
				code := make(chan int)
				go func() {
					go send(t, c, "POST /finalize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 26\r\n\r\n"+`{"Data":{"item":"\"x\""}} `)
					code <- status(t, c)
				}()
				synctest.Wait()
				stopped := make(chan error)
				go func() { stopped <- stop() }()
				want := http.StatusOK
				if tt.canceled {
					want = http.StatusInternalServerError
				}
				if c := <-code; c != want || (got != nil) != tt.canceled {
					t.Errorf("status %d, context %v", c, got)
				}
				c.Close()
				if err := <-stopped; err != nil {
					t.Errorf("stopped with %v", err)
				}
			})
		})
	}
}

func TestStopReportsAnInvocationThatIgnoresItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil)
		a.Queue("finalize", "item", func(context.Context, funchost.Message) error { time.Sleep(time.Hour); return nil })
		p, stop := serve(t, a)
		c := p.dial()
		go send(t, c, "POST /finalize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 26\r\n\r\n"+`{"Data":{"item":"\"x\""}} `)
		time.Sleep(time.Second)
		start := time.Now()
		if err := stop(); err == nil || funchost.ExitCode(err) != funchost.ExitFault {
			t.Errorf("stopped with %v", err)
		}
		if took := time.Since(start); took > funchost.ShutdownGrace+funchost.CancelGrace+time.Second {
			t.Errorf("stopping took %v", took)
		}
		time.Sleep(2 * time.Hour)
	})
}

func TestAFaultyMuxDoesNotListen(t *testing.T) {
	p := listenPipes()
	if err := newApp(t, nil).Serve(t.Context(), p); err == nil {
		t.Error("a mux without functions served")
	}
	if _, err := p.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error("the listener stayed open")
	}
}

func TestALostListenerEndsServe(t *testing.T) {
	a := newApp(t, nil)
	a.Timer("retention", func(context.Context, funchost.TimerInfo) error { return nil })
	p := listenPipes()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Serve(t.Context(), p); err == nil || funchost.ExitCode(err) != funchost.ExitFault {
		t.Errorf("served with %v", err)
	}
}

func TestExitCodeIsNeverZero(t *testing.T) {
	if got := funchost.ExitCode(nil); got != funchost.ExitRestart {
		t.Errorf("exit code after a stop %d, want %d", got, funchost.ExitRestart)
	}
	if got := funchost.ExitCode(io.EOF); got != funchost.ExitFault {
		t.Errorf("exit code after a fault %d, want %d", got, funchost.ExitFault)
	}
}

func TestListenTakesTheHostsPortOnLoopbackAlone(t *testing.T) {
	for _, port := range []string{"", "0", "x", "70000", "-1", "80 "} {
		if l, err := funchost.Listen(t.Context(), port); err == nil {
			l.Close()
			t.Errorf("port %q accepted", port)
		}
	}
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	free.Close()
	l, err := funchost.Listen(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := l.Addr().String(); got != "127.0.0.1:"+port {
		t.Errorf("listens on %s", got)
	}
}
