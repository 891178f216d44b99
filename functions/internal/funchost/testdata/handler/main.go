// The handler of the tests that run under a host: a catch-all page, a queue function and a timer, which count their calls.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"steno/functions/internal/funchost"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	os.Exit(funchost.ExitCode(run(ctx)))
}

func run(ctx context.Context) error {
	log := funchost.NewLog(os.Stdout, nil)
	var started, finalized, swept, parked atomic.Int64
	mux, err := funchost.New(funchost.Config{RoutePrefix: "steno", Log: log, Park: func(context.Context, funchost.Parked) error {
		parked.Add(1)
		return nil
	}})
	if err != nil {
		return err
	}
	mux.HTTP("portal", funchost.Route{Pattern: "{*path}"}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/steno/started" {
			fmt.Fprint(w, started.Load())
			return
		}
		fmt.Fprint(w, finalized.Load(), " ", swept.Load(), " ", parked.Load())
	}))
	mux.Queue("finalize", "leg", func(ctx context.Context, m funchost.Message) error {
		started.Add(1)
		switch string(m.Body) {
		case "poison":
			return funchost.ErrPoison
		case "panic":
			panic("by message")
		case "error":
			return errors.New("by message")
		case "slow":
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(500 * time.Millisecond):
			}
		}
		finalized.Add(1)
		return nil
	})
	mux.Timer("retention", func(context.Context, funchost.TimerInfo) error { swept.Add(1); return nil })
	l, err := funchost.Listen(ctx, os.Getenv(funchost.PortVariable))
	if err != nil {
		log.ErrorContext(ctx, "handler ended", slog.Any("error", err))
		return err
	}
	return mux.Serve(ctx, l)
}
