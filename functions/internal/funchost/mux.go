package funchost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ErrPoison marks an error that no retry can cure. A queue function wraps it: the message is kept aside by Config.Park and completed.
var ErrPoison = errors.New("poison message")

// Config is what a Mux needs. Only RoutePrefix and, for an app with queue functions, Park have no default.
type Config struct {
	// RoutePrefix is host.json's extensions.http.routePrefix: one lower-case segment, never empty. Every web request stands under it,
	// which is what separates the paths the internet can reach from those of the triggers.
	RoutePrefix string
	// FunctionTimeout is host.json's functionTimeout. The host kills the process when an invocation exceeds it.
	FunctionTimeout time.Duration
	// Margin is how long before FunctionTimeout the context of an invocation ends. Half of it is left to Park after that.
	Margin time.Duration
	// MaxConcurrent bounds the invocations that run at once; others wait for their turn within their own deadline.
	MaxConcurrent int
	// Log receives what goes wrong. Its handler should be wrapped by LogHandler, as that of NewLog is, its default.
	Log *slog.Logger
	// Park keeps a poison message. When it returns nil the message must be durable elsewhere, for the host then completes it; when it
	// fails the message is delivered again. It may be called twice for one message.
	Park func(ctx context.Context, p Parked) error
	// Alarm, if set, is told of each message after it was parked. A log line at level ERROR with the attribute alarm is written either way.
	Alarm func(ctx context.Context, p Parked)
}

// Parked is a poison message on its way to where an operator finds it.
type Parked struct {
	Function     string
	InvocationID string
	Reason       string // text of the function's error, cut at 1 KiB
	Message      Message
}

// Route is where an HTTP function stands and what its requests may cost. Zero limits mean the defaults.
type Route struct {
	// Pattern is the route of function.json, relative to the prefix: literal segments, then perhaps a catch-all such as {*path}.
	// The longest match gets the request.
	Pattern string
	MaxBody int64         // bytes; at most MaxWebBody
	Timeout time.Duration // of the handler's context; at most MaxWebTimeout
}

// Trigger is what starts a function.
type Trigger string

// The triggers, spelled as the binding types of function.json are, without the word trigger.
const (
	Timer Trigger = "timer"
	Queue Trigger = "queue"
	HTTP  Trigger = "http"
)

// Function describes a registered function, so that a test can hold it against its function.json.
type Function struct {
	Name    string
	Trigger Trigger
	Binding string // name of a queue function's trigger binding
	Route   string // pattern of an HTTP function
}

// Mux holds the functions of an app. Make one with New, register every function, then call Serve. Registering is not safe for
// concurrent use; the Handler is.
type Mux struct {
	cfg       Config
	functions map[string]Function
	triggers  map[string]*trigger
	web       []*webRoute
	faults    []error
}

// run is one invocation of a trigger function; the message is nil for a timer.
type run func(ctx context.Context, e envelope) (*Message, error)

type trigger struct {
	name string
	run  run
}

var (
	functionName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,127}$`)
	routePrefix  = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
)

// New returns an empty Mux, or all faults of the configuration at once.
func New(cfg Config) (*Mux, error) {
	if cfg.FunctionTimeout == 0 {
		cfg.FunctionTimeout = DefaultFunctionTimeout
	}
	if cfg.Margin == 0 {
		cfg.Margin = DefaultMargin
	}
	if cfg.MaxConcurrent == 0 {
		cfg.MaxConcurrent = DefaultMaxConcurrent
	}
	if cfg.Log == nil {
		cfg.Log = NewLog(os.Stdout, slog.LevelInfo)
	}
	var faults []error
	switch {
	case cfg.RoutePrefix == "":
		faults = append(faults, errors.New("route prefix is empty: web paths and trigger paths would collide"))
	case !routePrefix.MatchString(cfg.RoutePrefix):
		faults = append(faults, fmt.Errorf("route prefix %q does not match %s", cfg.RoutePrefix, routePrefix))
	case cfg.RoutePrefix == "admin" || cfg.RoutePrefix == "runtime":
		faults = append(faults, fmt.Errorf("route prefix %q is reserved by the host", cfg.RoutePrefix))
	}
	if cfg.Margin < 0 || cfg.FunctionTimeout <= cfg.Margin {
		faults = append(faults, fmt.Errorf("function timeout %v leaves nothing after a margin of %v", cfg.FunctionTimeout, cfg.Margin))
	}
	if cfg.MaxConcurrent < 0 {
		faults = append(faults, fmt.Errorf("max concurrent %d is negative", cfg.MaxConcurrent))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("configure functions host: %w", err)
	}
	return &Mux{cfg: cfg, functions: map[string]Function{}, triggers: map[string]*trigger{}}, nil
}

// Timer registers a timer function. The host runs a timer on one instance at a time and does not run it again before its next
// occurrence when it fails, unless function.json has a retry policy. There is nothing to park: ErrPoison is an error as any other.
func (m *Mux) Timer(name string, run func(ctx context.Context, t TimerInfo) error) {
	if !m.register(Function{Name: name, Trigger: Timer}, run == nil) {
		return
	}
	m.triggers[name] = &trigger{name: name, run: func(ctx context.Context, e envelope) (*Message, error) {
		info, err := e.timer()
		if err != nil {
			return nil, err
		}
		return nil, run(ctx, info)
	}}
}

// Queue registers a function with a Service Bus or Storage queue trigger of cardinality one, whose binding in function.json is called
// binding. A message may be delivered twice, so handle must be idempotent.
func (m *Mux) Queue(name, binding string, handle func(ctx context.Context, msg Message) error) {
	if !m.register(Function{Name: name, Trigger: Queue, Binding: binding}, handle == nil) {
		return
	}
	if binding == "" {
		m.fault("queue function %q names no binding", name)
	}
	if m.cfg.Park == nil {
		m.fault("queue function %q has nowhere to park a poison message: Config.Park is nil", name)
	}
	m.triggers[name] = &trigger{name: name, run: func(ctx context.Context, e envelope) (*Message, error) {
		msg, err := e.message(binding)
		if err != nil {
			return nil, err
		}
		return &msg, handle(ctx, msg)
	}}
}

// HTTP registers an HTTP function. Its handler sees the original path, prefix included, in its one canonical spelling, with the whole
// body read and within its limit; the body is never compressed.
func (m *Mux) HTTP(name string, route Route, h http.Handler) {
	if !m.register(Function{Name: name, Trigger: HTTP, Route: route.Pattern}, h == nil) {
		return
	}
	wr, err := newWebRoute(name, route, h)
	if err != nil {
		m.faults = append(m.faults, err)
		return
	}
	for _, other := range m.web {
		if other.literal == wr.literal && other.catchAll == wr.catchAll {
			m.fault("functions %q and %q share the route %q", other.name, name, route.Pattern)
		}
	}
	m.web = append(m.web, wr)
}

func (m *Mux) register(f Function, isNil bool) bool {
	before := len(m.faults)
	switch _, twice := m.functions[f.Name]; {
	case !functionName.MatchString(f.Name):
		m.fault("function name %q does not match %s", f.Name, functionName)
	case f.Name == "host" || f.Name == "admin":
		m.fault("function name %q is reserved by the host", f.Name)
	case f.Name == m.cfg.RoutePrefix:
		m.fault("function name %q equals the route prefix: web paths would reach it", f.Name)
	case twice:
		m.fault("function %q is registered twice", f.Name)
	case isNil:
		m.fault("function %q has no code", f.Name)
	}
	if len(m.faults) > before {
		return false
	}
	m.functions[f.Name] = f
	return true
}

func (m *Mux) fault(format string, args ...any) {
	m.faults = append(m.faults, fmt.Errorf(format, args...))
}

// Names returns the names of all registered functions, sorted.
func (m *Mux) Names() []string { return slices.Sorted(maps.Keys(m.functions)) }

// Functions returns all registered functions by name.
func (m *Mux) Functions() []Function {
	return slices.SortedFunc(maps.Values(m.functions), func(a, b Function) int { return strings.Compare(a.Name, b.Name) })
}

// Check returns all faults of the registrations at once. Serve and Handler call it.
func (m *Mux) Check() error {
	faults := m.faults
	if len(m.functions) == 0 && len(faults) == 0 {
		faults = []error{errors.New("no function is registered")}
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("register functions: %w", err)
	}
	return nil
}
