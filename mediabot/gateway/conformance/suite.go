package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"
)

// verdict is what came of a check.
type verdict string

const (
	passed     verdict = "passed"
	failed     verdict = "FAILED"
	notChecked verdict = "not checked"
)

// check is one claim of the contract.
type check struct {
	number   int
	claim    string
	scripted bool // needs test mode
	run      func(*trial)
}

type result struct {
	check
	verdict    verdict
	complaints []string
	took       time.Duration
}

// suite runs checks against one gateway.
type suite struct {
	client   *client
	short    bool
	patience time.Duration // how long a check waits for what must come
	seed     uint64
	logging  sync.Mutex
	log      io.Writer
	features []string
}

// run runs the wanted checks, all if none are named. Check 28 kills the gateway, so it comes last.
func (s *suite) run(ctx context.Context, wanted []int) ([]result, error) {
	h, err := s.client.health(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for health: %w", err)
	}
	s.features = h.Features
	todo := slices.DeleteFunc(checks(), func(c check) bool { return len(wanted) > 0 && !slices.Contains(wanted, c.number) })
	last := func(c check) int {
		if c.number == killing {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(todo, func(a, b check) int { return cmp.Compare(last(a), last(b)) })
	var out []result
	for _, c := range todo {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out = append(out, s.try(ctx, c))
	}
	slices.SortFunc(out, func(a, b result) int { return cmp.Compare(a.number, b.number) })
	return out, nil
}

func (s *suite) has(feature string) bool { return slices.Contains(s.features, feature) }

func (s *suite) try(ctx context.Context, c check) result {
	out := result{check: c, verdict: notChecked}
	if c.scripted && !s.has("test") {
		out.complaints = []string{"the gateway has no test mode"}
		return out
	}
	start := time.Now()
	t := &trial{suite: s, ctx: ctx}
	t.rand = rand.New(rand.NewPCG(s.seed, uint64(c.number)))
	t.prefix = fmt.Sprintf("conformance-%x-%d", rand.Uint64(), c.number) // a call id is used once
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer t.clean()
		c.run(t)
	}()
	<-done
	out.took = time.Since(start)
	out.verdict = passed
	t.mu.Lock() // a connection that is on its way down may still complain
	if len(t.complaints) > 0 {
		out.verdict, out.complaints = failed, append(t.complaints[:len(t.complaints):len(t.complaints)], fmt.Sprintf("seed %d", s.seed))
	}
	t.mu.Unlock()
	s.printf("%d %s: %s (%v)\n", c.number, c.claim, out.verdict, out.took.Round(time.Millisecond))
	return out
}

// printf writes to the log, if there is one.
func (s *suite) printf(format string, args ...any) {
	if s.log == nil {
		return
	}
	s.logging.Lock()
	defer s.logging.Unlock()
	fmt.Fprintf(s.log, format, args...)
}

// trial is one run of a check. fatalf ends it from the goroutine of the check.
type trial struct {
	*suite
	ctx    context.Context
	rand   *rand.Rand
	prefix string // of call ids
	made   int

	mu         sync.Mutex
	complaints []string
	cleanups   []func()
}

// mostComplaints keeps a gateway that is wrong everywhere from filling the table.
const mostComplaints = 5

func (t *trial) errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.complaints) < mostComplaints {
		t.complaints = append(t.complaints, fmt.Sprintf(format, args...))
	}
}

func (t *trial) fatalf(format string, args ...any) {
	t.errorf(format, args...)
	runtime.Goexit()
}

func (t *trial) logf(format string, args ...any) {
	t.printf("   "+format+"\n", args...)
}

// times is how often to repeat something.
func (t *trial) times(all, short int) int {
	if t.short {
		return short
	}
	return all
}

func (t *trial) cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

func (t *trial) clean() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}

// within reports whether something becomes true in time.
func (t *trial) within(limit time.Duration, done func() bool) bool {
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		if done() {
			return true
		}
		if time.Now().After(end) || t.ctx.Err() != nil {
			return false
		}
	}
}

// until ends the check if something does not become true.
func (t *trial) until(what string, done func() bool) {
	if !t.within(t.patience, done) {
		t.fatalf("%s did not come within %v", what, t.patience)
	}
}
