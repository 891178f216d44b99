// The recording bot: it takes the invites that Teams sends for recorded users, answers
// them, and records. main is its table of contents; adapters are named here, in bot.go
// and in media.go, and nowhere else.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
)

// What the process ends with.
const (
	exitFault = 1 // it stopped because of a fault
	exitUsage = 2 // it was started wrongly
)

const usage = `usage: mediabot [-check-config] [install | start | stop | remove]

Without a command the recorder runs until it is told to stop; it then takes no more
calls, finishes those it has, and ends. A second signal cuts them short.
The commands manage it as a Windows service. Settings come from the environment.
`

func main() {
	// What lives is small and steady, a few hundred kilobytes a stream: collecting four times as
	// often costs little and keeps little for garbage.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25)
	}
	os.Exit(start(os.Args[1:], os.Environ(), os.Stderr))
}

func start(args, environ []string, errs io.Writer) int {
	flags := flag.NewFlagSet("mediabot", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.Usage = func() { fmt.Fprint(errs, usage) }
	check := flags.Bool("check-config", false, "check the configuration and exit: 0 if it is good")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	switch {
	case *check && flags.NArg() == 0:
		if _, _, err := readSettings(environ); err != nil {
			fmt.Fprintln(errs, err)
			return exitFault
		}
		return 0
	case flags.NArg() == 1 && !*check:
		err := serviceCommand(flags.Arg(0))
		if errors.Is(err, errNoCommand) {
			flags.Usage()
			return exitUsage
		}
		if err != nil {
			fmt.Fprintln(errs, "mediabot "+flags.Arg(0)+":", err)
			return exitFault
		}
		return 0
	case flags.NArg() > 0:
		flags.Usage()
		return exitUsage
	}
	if asService, code := runService(environ); asService {
		return code
	}
	return console(environ)
}

var errNoCommand = errors.New("no such command")

// console runs the recorder in the foreground. The first signal drains, the second
// cuts short.
func console(environ []string) int {
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	ctx, cut := context.WithCancel(context.Background())
	defer cut()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	drain := make(chan struct{})
	var listening sync.WaitGroup
	listening.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-signals:
			case <-ctx.Done():
				return
			}
			if n > 0 {
				cut()
				return
			}
			close(drain)
		}
	})
	err := run(ctx, drain, environ, log)
	cut()
	listening.Wait()
	if err != nil {
		log.Error("recorder stopped", slog.String("error", err.Error()))
		return exitFault
	}
	return 0
}
