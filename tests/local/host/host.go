package host

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue"
)

// Config says what a Host runs and how.
type Config struct {
	// ScriptRoot is a staged app: host.json, a folder with function.json for each function, and the executable.
	ScriptRoot string
	// Settings are the app settings: the handler finds them in its environment, beside this process's own, which they override.
	// Bindings resolve %NAME% and connections in them, and AzureFunctionsJobHost__a__b overrides a value of host.json.
	Settings map[string]string
	Addr     string      // to listen on; "" is 127.0.0.1:0
	TLS      *tls.Config // nil serves plain HTTP
	// MasterKey opens the admin endpoints, FunctionKey functions of authLevel function. An empty key opens nothing.
	MasterKey   string
	FunctionKey string
	// Log receives the lines of the handler and of the host, each as "Level Category: text". nil drops them; Errors has the bad ones.
	Log io.Writer

	SequentialTimers bool // timers wait for each other, for runs that must be repeatable
	DisableTimers    bool // no timer runs but by RunTimer or the admin endpoint
	// MaxHandlerErrors is after how many handler errors the host stops: 0 is the real host's 3, a negative number is never.
	MaxHandlerErrors int

	// Credential is for connections that name a service instead of a connection string; Transport, if set, reaches Storage.
	Credential azcore.TokenCredential
	Transport  policy.Transporter
}

// Host is a running host. Its methods are safe for concurrent use.
type Host struct {
	cfg     Config
	app     *app
	console *console
	worker  *worker
	calls   *http.Client // invocations; follows redirects, turning POST into GET on 301 and 302 as HttpClient does
	server  *http.Server
	front   *front
	url     string
	served  chan error

	listening     context.Context // ends when no more work is taken
	stopListening context.CancelFunc
	work          context.Context // ends when work under way is given up
	stopWork      context.CancelFunc
	listeners     sync.WaitGroup
	manual        sync.WaitGroup
	inflight      atomic.Int64
	timers        sync.Mutex // held by a run if SequentialTimers
	timerList     []*timer
	clients       []*azservicebus.Client
	closing       sync.Once

	mu          sync.Mutex
	invocations []Invocation
	stopping    bool
}

// Start loads the app, starts its handler, waits until it is ready, and begins to listen. On an error nothing is left running. When ctx
// ends the Host stops as by Stop.
func Start(ctx context.Context, cfg Config) (*Host, error) {
	a, err := loadApp(cfg.ScriptRoot, cfg.Settings)
	if err != nil {
		return nil, err
	}
	h := &Host{cfg: cfg, app: a, console: &console{out: cfg.Log}, served: make(chan error, 1)}
	h.calls = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}
	h.listening, h.stopListening = context.WithCancel(context.WithoutCancel(ctx))
	h.work, h.stopWork = context.WithCancel(context.WithoutCancel(ctx))
	begin, err := h.connect()
	if err != nil {
		h.stopListening()
		h.stopWork()
		return nil, errors.Join(err, h.closeClients())
	}
	h.worker = newWorker(h)
	go h.worker.run()
	if _, err := h.worker.await(ctx); err != nil {
		h.Stop()
		return nil, fmt.Errorf("start handler: %w; its last lines: %s", err, strings.Join(tail(h.console.errorLines(), 5), " | "))
	}
	if err := h.serve(); err != nil {
		h.Stop()
		return nil, err
	}
	for _, listen := range begin {
		h.listeners.Go(listen)
	}
	context.AfterFunc(ctx, h.Stop)
	return h, nil
}

func tail(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }

func newWorker(h *Host) *worker {
	env := os.Environ()
	for name, v := range h.cfg.Settings {
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		env = append(env, name+"="+v)
	}
	limit := h.cfg.MaxHandlerErrors
	if limit == 0 {
		limit = defaultErrors
	}
	return &worker{
		app: h.app, env: env, console: h.console, maxErrors: limit, client: h.calls,
		changed: make(chan struct{}), finished: make(chan struct{}),
	}
}

// connect opens what the triggers listen to and returns their loops.
func (h *Host) connect() ([]func(), error) {
	var begin []func()
	var faults []error
	buses := map[string]*azservicebus.Client{}
	for _, f := range h.app.functions {
		var err error
		switch f.trigger.Type {
		case "timerTrigger":
			t := &timer{f: f}
			h.timerList = append(h.timerList, t)
			if !h.cfg.DisableTimers {
				begin = append(begin, func() { h.listenTimer(h.listening, t) })
			}
		case "serviceBusTrigger":
			client := buses[f.trigger.Connection]
			if client == nil {
				if client, err = h.serviceBus(f.trigger.Connection); err == nil {
					buses[f.trigger.Connection] = client
					h.clients = append(h.clients, client)
				}
			}
			begin = append(begin, func() { h.listenServiceBus(h.listening, f, client) })
		case "queueTrigger":
			var service *azqueue.ServiceClient
			service, err = h.storageQueues(f.trigger.Connection)
			begin = append(begin, func() { h.listenQueue(h.listening, f, service) })
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("connect trigger of %s: %w", f.name, err))
		}
	}
	return begin, errors.Join(faults...)
}

func (h *Host) serve() error {
	var err error
	if h.front, err = newFront(h); err != nil {
		return err
	}
	addr := h.cfg.Addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	h.url = "http://" + l.Addr().String()
	h.server = &http.Server{Handler: h.front, TLSConfig: h.cfg.TLS, ReadHeaderTimeout: 10 * time.Second, ErrorLog: h.console.logger()}
	if h.cfg.TLS != nil {
		h.url = "https://" + l.Addr().String()
		l = tls.NewListener(l, h.cfg.TLS)
	}
	go func() { h.served <- h.server.Serve(l) }()
	return nil
}

// URL is the address of the app, without a slash at the end.
func (h *Host) URL() string { return h.url }

// RunTimer runs a timer function now, beside its schedule and with its retries, and returns how it ended.
func (h *Host) RunTimer(ctx context.Context, name string) error {
	t := h.timer(name)
	if t == nil {
		return fmt.Errorf("run timer %s: no such timer function", name)
	}
	if h.cfg.SequentialTimers {
		h.timers.Lock()
		defer h.timers.Unlock()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.work, cancel)()
	if err := h.runTimer(ctx, t); err != nil {
		return fmt.Errorf("run timer %s: %w", name, err)
	}
	return nil
}

func (h *Host) timer(name string) *timer {
	for _, t := range h.timerList {
		if t.f.name == name {
			return t
		}
	}
	return nil
}

// goManual runs fn as work under way, unless the host is stopping.
func (h *Host) goManual(fn func(context.Context)) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopping {
		return false
	}
	h.manual.Go(func() { fn(h.work) })
	return true
}

// Functions returns the names of the loaded functions, sorted.
func (h *Host) Functions() []string {
	var names []string
	for name := range h.app.functions {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Invocations returns the invocations that have ended, oldest first. The host keeps the last several thousand.
func (h *Host) Invocations() []Invocation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.invocations)
}

// InFlight is the number of invocations under way.
func (h *Host) InFlight() int { return int(h.inflight.Load()) }

// Errors returns the lines at level Error so far: what the handler wrote to stderr and what the real host would choke on. A normal run
// has none.
func (h *Host) Errors() []string { return h.console.errorLines() }

// HandlerPID is the process id of the handler, 0 between two processes.
func (h *Host) HandlerPID() int {
	h.worker.mu.Lock()
	defer h.worker.mu.Unlock()
	if h.worker.current == nil {
		return 0
	}
	return h.worker.current.cmd.Process.Pid
}

// HandlerStarts counts how often the handler was started.
func (h *Host) HandlerStarts() int {
	h.worker.mu.Lock()
	defer h.worker.mu.Unlock()
	return h.worker.starts
}

// ReadyIn is how long the handler last took from its start to its first answer.
func (h *Host) ReadyIn() time.Duration {
	h.worker.mu.Lock()
	defer h.worker.mu.Unlock()
	return h.worker.readyIn
}

// State is Running while the handler answers, Starting between two processes, Error when there will be no other.
func (h *Host) State() string {
	h.worker.mu.Lock()
	defer h.worker.mu.Unlock()
	switch {
	case h.worker.final != nil:
		return "Error"
	case h.worker.ready != nil:
		return "Running"
	}
	return "Starting"
}

// KillHandler kills the handler in the middle of whatever it does and returns when it is dead; false means that there was none. The
// host counts it as an error and starts another, unless it was one too many.
func (h *Host) KillHandler() bool { return h.worker.killCurrent(false) }

// WaitReady waits until the handler answers, and returns why it never will: ErrStopped, ErrDead, or ctx's error.
func (h *Host) WaitReady(ctx context.Context) error {
	_, err := h.worker.await(ctx)
	return err
}

// Drain stops listening, lets the invocations under way end, within ctx, and then stops as Stop does. It is what Azure does before it
// takes an instance away.
func (h *Host) Drain(ctx context.Context) error {
	h.refuse()
	h.stopListening()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.listeners.Wait()
		h.manual.Wait()
		if h.server != nil {
			// It ends when its requests have; Stop, below, ends it otherwise.
			_ = h.server.Shutdown(context.WithoutCancel(ctx))
		}
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("drain: %d invocations given up: %w", h.InFlight(), ctx.Err())
	}
	h.Stop()
	<-done
	return err
}

func (h *Host) refuse() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopping = true
}

// Stop kills the handler at once, with no signal before, as the real host does, and ends everything the Host started. Messages under
// way stay locked until their locks expire. It may be called twice.
func (h *Host) Stop() {
	h.closing.Do(func() {
		h.refuse()
		h.stopListening()
		h.stopWork()
		h.worker.close()
		if h.server != nil {
			// Closing breaks the connections; nobody is left to be told if that fails.
			_ = h.server.Close()
			<-h.served
		}
		h.listeners.Wait()
		h.manual.Wait()
		if err := h.closeClients(); err != nil {
			h.console.infof("%v", err)
		}
		h.calls.CloseIdleConnections()
		if h.front != nil {
			h.front.close()
		}
	})
}

func (h *Host) closeClients() error {
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	var faults []error
	for _, c := range h.clients {
		if err := c.Close(ctx); err != nil {
			faults = append(faults, fmt.Errorf("close service bus client: %w", err))
		}
	}
	return errors.Join(faults...)
}
