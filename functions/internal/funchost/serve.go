package funchost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
)

// PortVariable names the environment variable in which the host passes the port to listen on.
const PortVariable = "FUNCTIONS_CUSTOMHANDLER_PORT"

// Exit codes of a handler. There is no code for success: the host takes 0 for a handler that needs no restart, and the app is dead.
const (
	ExitFault   = 1
	ExitRestart = 200
)

// ExitCode returns what a main passes to os.Exit after Serve: ExitRestart when it was asked to stop, ExitFault for an error.
func ExitCode(err error) int {
	if err == nil {
		return ExitRestart
	}
	return ExitFault
}

// Listen opens the port that the host passed in PortVariable, on the one address it calls, 127.0.0.1. Call it last: the host takes any
// answer for readiness.
func Listen(ctx context.Context, port string) (net.Listener, error) {
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, fmt.Errorf("listen: %s is %q, not a port", PortVariable, port)
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", port))
}

// Serve answers the host until ctx is done. Then it takes no more requests, gives the running ones ShutdownGrace to end, cancels
// their contexts, and waits CancelGrace more. It returns nil if all ended. The listener is closed in any case.
func (m *Mux) Serve(ctx context.Context, l net.Listener) error {
	h, err := m.Handler()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: ReadHeaderTimeout,
		ReadTimeout:       ReadTimeout,
		IdleTimeout:       IdleTimeout,
		MaxHeaderBytes:    MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(m.cfg.Log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return base },
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve functions: %w", err)
	case <-ctx.Done():
	}
	err = shutdown(base, srv, cancel)
	if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

func shutdown(ctx context.Context, srv *http.Server, cancel context.CancelFunc) error {
	grace, stop := context.WithTimeout(ctx, ShutdownGrace)
	defer stop()
	if srv.Shutdown(grace) == nil {
		return nil
	}
	cancel()
	grace, stop = context.WithTimeout(context.WithoutCancel(ctx), CancelGrace)
	defer stop()
	if err := srv.Shutdown(grace); err != nil {
		return errors.Join(fmt.Errorf("shut down: requests still running: %w", err), srv.Close())
	}
	return nil
}
