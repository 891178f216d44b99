// Command conformance checks a media gateway against its contract, ../PROTOCOL.md:
//
//	go run ./mediabot/gateway/conformance -url http://127.0.0.1:8771 -token-file FILE [-run N,M] [-short] [-patience 10s] [-seed N] [-v]
//
// It plays the recorder with pion. Checks that need a scripted platform use the test mode of the contract's appendix;
// where a gateway offers none they are reported as not checked. The exit status is 0 if every check passed, 1 if one
// failed, 2 if none failed and some were not checked, 3 if the program could not begin.
//
// It imports nothing of this module, so that it can be built and run anywhere.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// The exit statuses.
const (
	exitPassed = iota
	exitFailed
	exitNotChecked
	exitUnable
)

func run(ctx context.Context, args []string, out, complaints io.Writer) int {
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	flags.SetOutput(complaints)
	url := flags.String("url", "http://127.0.0.1:8771", "address of the gateway")
	tokenFile := flags.String("token-file", "", "file with the gateway's bearer token")
	only := flags.String("run", "", "numbers of the checks to run, with commas; empty: all")
	short := flags.Bool("short", false, "fewer repetitions")
	patience := flags.Duration("patience", 10*time.Second, "how long to wait for what must come")
	seed := flags.Uint64("seed", rand.Uint64(), "of what is drawn")
	verbose := flags.Bool("v", false, "say what each check finds")
	if err := flags.Parse(args); err != nil {
		return exitUnable
	}
	wanted, err := numbers(*only)
	if err != nil {
		fmt.Fprintln(complaints, err)
		return exitUnable
	}
	token, err := os.ReadFile(*tokenFile)
	if err != nil {
		fmt.Fprintln(complaints, "read token file:", err)
		return exitUnable
	}
	s := &suite{client: newClient(*url, strings.TrimSpace(string(token))), short: *short, patience: *patience, seed: *seed}
	if *verbose {
		s.log = complaints
	}
	results, err := s.run(ctx, wanted)
	if err != nil {
		fmt.Fprintln(complaints, err)
		return exitUnable
	}
	return report(out, results)
}

func numbers(list string) ([]int, error) {
	var out []int
	for f := range strings.SplitSeq(list, ",") {
		if f = strings.TrimSpace(f); f == "" {
			continue
		}
		n, err := strconv.Atoi(f)
		if err != nil || !slices.ContainsFunc(checks(), func(c check) bool { return c.number == n }) {
			return nil, fmt.Errorf("-run: there is no check %q", f)
		}
		out = append(out, n)
	}
	return out, nil
}

// report prints the table and returns the exit status.
func report(out io.Writer, results []result) int {
	counts := map[verdict]int{}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, r := range results {
		counts[r.verdict]++
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", r.number, r.verdict, r.took.Round(time.Millisecond), r.claim)
		for _, c := range r.complaints {
			fmt.Fprintf(w, "\t\t\t  %s\n", c)
		}
	}
	if err := w.Flush(); err != nil {
		return exitUnable
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d not checked\n", counts[passed], counts[failed], counts[notChecked])
	switch {
	case counts[failed] > 0:
		return exitFailed
	case counts[notChecked] > 0:
		return exitNotChecked
	}
	return exitPassed
}
