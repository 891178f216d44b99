package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"
)

const (
	serviceName  = "StenoMediabot"
	serviceTitle = "Steno recording bot"
	serviceText  = "Records calls and meetings of recorded users in Microsoft Teams."
)

// serviceCommand manages the service. The service takes its settings from the
// environment of the machine, or from the Environment value of its registry key.
func serviceCommand(name string) error {
	command, ok := map[string]func(*mgr.Mgr) error{"install": install, "start": startService, "stop": stopService, "remove": removeService}[name]
	if !ok {
		return errNoCommand
	}
	m, err := mgr.Connect()
	if err != nil {
		return fmt.Errorf("connect to the service manager (run as administrator): %w", err)
	}
	return errors.Join(command(m), m.Disconnect())
}

// install registers the service and its source in the event log. The manager starts it
// again after a crash, and not after it ended of its own accord.
func install(m *mgr.Mgr) (err error) {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	s, err := m.CreateService(serviceName, exe, mgr.Config{
		DisplayName: serviceTitle, Description: serviceText, StartType: mgr.StartAutomatic, DelayedAutoStart: true,
		ServiceStartName: `NT AUTHORITY\NetworkService`,
	})
	if err != nil {
		return fmt.Errorf("create service %s: %w", serviceName, err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	again := mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: 5 * time.Second}
	if err := s.SetRecoveryActions([]mgr.RecoveryAction{again, again, again}, uint32((24 * time.Hour).Seconds())); err != nil {
		return fmt.Errorf("set recovery: %w", err)
	}
	if err := s.SetRecoveryActionsOnNonCrashFailures(true); err != nil {
		return fmt.Errorf("set recovery: %w", err)
	}
	if err := eventlog.InstallAsEventCreate(serviceName, eventlog.Error|eventlog.Warning|eventlog.Info); err != nil {
		return fmt.Errorf("register with the event log: %w", err)
	}
	return nil
}

func opened(m *mgr.Mgr, do func(*mgr.Service) error) error {
	s, err := m.OpenService(serviceName)
	if err != nil {
		return fmt.Errorf("open service %s: %w", serviceName, err)
	}
	return errors.Join(do(s), s.Close())
}

func startService(m *mgr.Mgr) error {
	return opened(m, func(s *mgr.Service) error { return s.Start() })
}

// stopService asks the service to drain, and does not wait: calls may take hours.
func stopService(m *mgr.Mgr) error {
	return opened(m, func(s *mgr.Service) error {
		_, err := s.Control(svc.Stop)
		return err
	})
}

func removeService(m *mgr.Mgr) error {
	if err := opened(m, (*mgr.Service).Delete); err != nil {
		return err
	}
	return eventlog.Remove(serviceName)
}

// runService runs as a service if the process was started as one.
func runService(environ []string) (asService bool, code int) {
	asService, err := svc.IsWindowsService()
	if err != nil || !asService {
		return false, 0
	}
	events, err := eventlog.Open(serviceName)
	if err != nil {
		return true, exitFault
	}
	h := &handler{environ: environ, log: slog.New(newEventHandler(events))}
	if err := errors.Join(svc.Run(serviceName, h), h.err, events.Close()); err != nil {
		return true, exitFault
	}
	return true, 0
}

// handler is the recorder as the service manager sees it.
type handler struct {
	environ []string
	log     *slog.Logger
	err     error
}

// stopHint is within what time the manager hears of a stopping service again.
const stopHint = 30 * time.Second

// Execute runs the recorder. A stop drains it: the manager is told that stopping takes
// its time for as long as calls go on. A shutdown of the machine, or a second stop, cuts
// them short.
func (h *handler) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (bool, uint32) {
	const accepted = svc.AcceptStop | svc.AcceptShutdown | svc.AcceptPreShutdown
	ctx, cut := context.WithCancel(context.Background())
	defer cut()
	drain, over := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() { over <- run(ctx, drain, h.environ, h.log) }()
	now := svc.Status{State: svc.Running, Accepts: accepted}
	status <- now
	tick := time.NewTicker(stopHint / 3)
	defer tick.Stop()
	for {
		select {
		case h.err = <-over:
			if h.err != nil {
				h.log.Error("recorder stopped", slog.String("error", h.err.Error()))
				return true, exitFault
			}
			return false, 0
		case <-tick.C:
			if now.State == svc.StopPending {
				now.CheckPoint++
				status <- now
			}
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				status <- now
			case svc.Stop:
				if now.State == svc.StopPending {
					cut()
				}
				once.Do(func() { close(drain) })
				now = svc.Status{State: svc.StopPending, Accepts: accepted, CheckPoint: now.CheckPoint + 1, WaitHint: uint32(stopHint.Milliseconds())}
				status <- now
			case svc.Shutdown, svc.PreShutdown:
				cut()
				now = svc.Status{State: svc.StopPending, CheckPoint: now.CheckPoint + 1, WaitHint: uint32(stopHint.Milliseconds())}
				status <- now
			}
		}
	}
}

// eventHandler writes each record as one line of JSON into the event log, under the
// log's own level.
type eventHandler struct {
	slog.Handler
	out *eventWriter
}

type eventWriter struct {
	mu     sync.Mutex
	buffer bytes.Buffer
	events *eventlog.Log
}

// eventID is the one id that an event source of EventCreate may use for everything.
const eventID = 1

func newEventHandler(events *eventlog.Log) eventHandler {
	out := &eventWriter{events: events}
	return eventHandler{slog.NewJSONHandler(&out.buffer, nil), out}
}

func (h eventHandler) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.buffer.Reset()
	if err := h.Handler.Handle(ctx, r); err != nil {
		return err
	}
	line := h.out.buffer.String()
	switch {
	case r.Level >= slog.LevelError:
		return h.out.events.Error(eventID, line)
	case r.Level >= slog.LevelWarn:
		return h.out.events.Warning(eventID, line)
	}
	return h.out.events.Info(eventID, line)
}

func (h eventHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return eventHandler{h.Handler.WithAttrs(attrs), h.out}
}

func (h eventHandler) WithGroup(name string) slog.Handler {
	return eventHandler{h.Handler.WithGroup(name), h.out}
}
