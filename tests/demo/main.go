// The demo starts the whole of Steno on this machine against a simulated Teams
// tenant. With -check it runs the story once and compares the archive with the
// tenant's full history; the last line is one JSON object with the counts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"steno/tests/sim"
	"steno/tests/world"
)

type options struct {
	check    bool
	faults   bool
	messages int
	people   int
	seed     uint64
	addr     string
	app      string
	bot      string
	calls    bool
	verbose  bool
}

func main() {
	var o options
	flag.BoolVar(&o.check, "check", false, "run the story once, compare the archive with the tenant, and exit")
	flag.BoolVar(&o.faults, "faults", true, "with -check: let the tenant misbehave")
	flag.IntVar(&o.messages, "messages", 0, "messages of history in the tenant; 0 means 1,000 with -check and 4,000 without")
	flag.IntVar(&o.people, "people", 40, "people in the tenant")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the tenant")
	flag.StringVar(&o.addr, "addr", "127.0.0.1:8443", "where the portal listens; with -check any free port")
	flag.StringVar(&o.app, "app", "", "staged app; empty stages one")
	flag.StringVar(&o.bot, "bot", "", "built recording bot; empty builds one")
	flag.BoolVar(&o.calls, "calls", true, "let people call each other, and record them")
	flag.BoolVar(&o.verbose, "v", false, "print the lines of the app")
	flag.Parse()
	if o.messages == 0 {
		o.messages = 4000
		if o.check {
			o.messages = 1000
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	started := time.Now()
	say := func(s string) { fmt.Printf("%6.1fs  %s\n", time.Since(started).Seconds(), s) }
	dir, remove, err := world.TempDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	if o.app == "" {
		o.app = filepath.Join(dir, "app")
		say("building and staging the functions app")
		if err := stage(ctx, o.app); err != nil {
			return err
		}
	}
	if o.calls && o.bot == "" {
		o.bot = filepath.Join(dir, "mediabot")
		say("building the recording bot")
		if err := build(ctx, o.bot); err != nil {
			return err
		}
	}
	if !o.calls {
		o.bot = ""
	}
	c := world.Config{
		Dir: dir, AppDir: o.app, BotExe: o.bot, Addr: o.addr, Progress: func(s string) { say("starting " + s) }, Timers: !o.check,
		Sim:      sim.Config{Seed: o.seed, People: o.people, Messages: o.messages, Span: 10 * 24 * time.Hour},
		Settings: demoSettings(),
	}
	if o.verbose {
		c.Log = os.Stderr
	}
	if o.check {
		c.Addr = ""
		c.Settings = world.CheckSettings()
	}
	w, err := world.Start(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Stop()) }()
	say(fmt.Sprintf("handler ready in %s", w.Host.ReadyIn().Round(time.Millisecond)))
	if o.check {
		return check(ctx, w, o, started)
	}
	return live(ctx, w, say)
}

// stage builds the handler and stages the app as it is deployed.
func stage(ctx context.Context, out string) error {
	cmd := exec.CommandContext(ctx, "go", "run", "./infra/package", "-out", out)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("stage the app (run from the project's root): %w", err)
	}
	return nil
}

// build builds the recording bot.
func build(ctx context.Context, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, "./mediabot")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the bot (run from the project's root): %w", err)
	}
	return nil
}

// demoSettings compress time: what happens once a day in production happens every few
// seconds here, and history reaches back over the tenant's ten days.
func demoSettings() map[string]string {
	return map[string]string{
		"STENO_EXPORT_HISTORY":      "264h",
		"STENO_EXPORT_LAG":          "2s",
		"STENO_EXPORT_PERIOD":       "5s",
		"STENO_EXPORT_PASSES":       "0s,60s",
		"STENO_EXPORT_PATIENCE":     "5m",
		"STENO_GRAPH_RATE":          "100",
		"STENO_ATTACHMENTS":         "all",
		"STENO_ATTACHMENT_LARGEST":  "20971520",
		"STENO_EXPORTPLAN_SCHEDULE": "*/10 * * * * *",
		"STENO_GROUPSYNC_SCHEDULE":  "0 * * * * *",
		"STENO_SEQUENCER_SCHEDULE":  "*/15 * * * * *",
		"STENO_CHECKPOINT_EVERY":    "1m",
		// New messages are notified, and the export comes after; in production it comes once a day.
		"STENO_SUBSCRIPTIONS_SCHEDULE": "*/20 * * * * *",
		"STENO_NOTIFIED_SCHEDULE":      "*/3 * * * * *",
	}
}

// live runs until it is interrupted.
func live(ctx context.Context, w *world.World, say func(string)) error {
	say("reading role groups")
	if err := w.Host.RunTimer(ctx, "groupsync"); err != nil {
		return err
	}
	say("subscribing to change notifications")
	if err := w.Host.RunTimer(ctx, "subscriptions"); err != nil {
		return err
	}
	say("planning the export of ten days of history")
	if err := w.Host.RunTimer(ctx, "exportplan"); err != nil {
		return err
	}
	a, err := w.Archive()
	if err != nil {
		return err
	}
	if err := firstConversation(ctx, a); err != nil {
		return err
	}
	say("the first conversation is in the archive")
	printSignIns(w)
	var living errgroup.Group
	living.Go(func() error { return w.Tenant.Live(ctx, 0.5) })
	if w.Bot != nil {
		living.Go(func() error { return liveCalls(ctx, w) })
	}
	return living.Wait()
}

func printSignIns(w *world.World) {
	fmt.Printf("\nSteno is running. Open\n\n    %s/steno/\n\nThe certificate is a throw-away one, so the browser asks once. Sign in by choosing a person:\n\n", w.Origin)
	for _, g := range []string{sim.SupervisorsEquities, sim.SupervisorsRates, sim.Compliance, sim.Administrators, sim.Auditors} {
		for _, id := range w.Tenant.UsersIn(g) {
			for _, p := range w.Tenant.People() {
				if p.ID == id {
					fmt.Printf("    %-28s %s\n", p.DisplayName, g)
				}
			}
		}
	}
	fmt.Printf("\nPeople keep chatting; new messages reach the archive within seconds, by notification, and every ten seconds by export (in production: once a day).\n")
	if w.Bot != nil {
		fmt.Printf("They call each other too: a call is in the list seconds after it begins and can be watched while it runs; it ends after a minute or two.\n")
	}
	fmt.Printf("Start a timer by hand:  curl -k -X POST -H 'x-functions-key: %s' -H 'content-type: application/json' -d '{}' %s/admin/functions/exportplan\n", world.MasterKey, w.Origin)
	fmt.Printf("Press Ctrl-C to stop. Nothing is kept.\n\n")
}
