package sim_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"steno/tests/sim"
)

func TestRequestFaultsHappenAsOftenAsAskedThenStop(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 50})
	path := export(f.UsersIn(sim.RecordedEquities)[0])
	for fault, want := range map[sim.Fault]struct {
		status     int
		code       string
		retryAfter string
	}{
		sim.Throttled:      {429, "TooManyRequests", "1"},
		sim.Unavailable:    {503, "ServiceUnavailable", ""},
		sim.GatewayTimeout: {504, "UnknownError", ""},
		sim.ExpiredToken:   {401, "InvalidAuthenticationToken", ""},
	} {
		f.Faults().Next(fault, 2)
		for range 2 {
			r := f.get(path)
			if r.status != want.status || graphError(t, r).Code != want.code || r.header.Get("Retry-After") != want.retryAfter {
				t.Errorf("%s: %d %v %s", fault, r.status, r.header, r.body)
			}
		}
		if r := f.get(path); r.status != http.StatusOK {
			t.Errorf("%s: third request %d", fault, r.status)
		}
	}
	if c := f.Counts(); c.Faults[sim.Throttled] != 2 || c.Requests["/users/{id}/chats/getAllMessages"] != 12 {
		t.Errorf("counts are %+v", c)
	}
}

func TestChanceOfAFaultIsMetRoughlyAndCleared(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 50})
	f.Faults().Chance(sim.Throttled, 0.25)
	for range 400 {
		f.get("/organization")
	}
	n := f.Faults().Served()[sim.Throttled]
	if n < 60 || n > 140 {
		t.Errorf("%d of 400", n)
	}
	f.Faults().Clear()
	if r := f.get("/organization"); r.status != http.StatusOK {
		t.Errorf("after clear: %d", r.status)
	}
}

func TestEmptyAndShortPagesLoseNothing(t *testing.T) {
	for _, fault := range []sim.Fault{sim.EmptyPage, sim.ShortPage} {
		f := newFixture(t, sim.Config{})
		p := f.busiest()
		want := f.all(export(p) + "?$top=10")
		f.Faults().Next(fault, 2)
		first := f.page(export(p) + "?$top=10")
		if first.Next == "" || len(first.Value) == 10 {
			t.Errorf("%s: %d values, next %q", fault, len(first.Value), first.Next)
		}
		f.Faults().Next(fault, 1)
		if got := f.all(export(p) + "?$top=10"); len(got) != len(want) {
			t.Errorf("%s: %d messages, want %d", fault, len(got), len(want))
		}
	}
}

func TestNextLinkLoopNeverEnds(t *testing.T) {
	f := newFixture(t, sim.Config{})
	f.Faults().Next(sim.NextLinkLoop, 1)
	p := f.page(export(f.busiest()) + "?$top=10")
	looped := p.Next
	for range 5 {
		p = f.page(p.Next)
		if p.Next != looped || len(p.Value) != 10 {
			t.Fatalf("loop left for %q with %d values", p.Next, len(p.Value))
		}
	}
}

func TestForeignNextLinkNamesAnotherHost(t *testing.T) {
	f := newFixture(t, sim.Config{})
	f.Faults().ForeignHost("https://elsewhere.example")
	f.Faults().Next(sim.ForeignNextLink, 1)
	p := f.page(export(f.busiest()) + "?$top=10")
	if !strings.HasPrefix(p.Next, "https://elsewhere.example/v1.0/users('") || len(p.Value) != 10 {
		t.Errorf("next is %s", p.Next)
	}
}

func TestWrongContentTypeTruncationAndOversizeAreServed(t *testing.T) {
	f := newFixture(t, sim.Config{})
	path := export(f.busiest())
	f.Faults().Next(sim.WrongType, 1)
	if r := f.get(path); r.status != http.StatusOK || !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") || json.Valid(r.body) {
		t.Errorf("wrong type: %d %v", r.status, r.header)
	}
	f.Faults().Next(sim.TruncatedBody, 1)
	if _, err := f.try(path); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("truncated: %v", err)
	}
	whole := f.get(path).body
	f.Faults().Oversize(1 << 20)
	f.Faults().Next(sim.OversizedPage, 1)
	if r := f.get(path); len(r.body) != len(whole)+1<<20 || !json.Valid(r.body) {
		t.Errorf("oversized: %d bytes, plain %d", len(r.body), len(whole))
	}
}

func TestMalformedAndUnknownMessagesStayAsServedAndAreInTheTruth(t *testing.T) {
	f := newFixture(t, sim.Config{})
	p := f.busiest()
	f.Faults().Next(sim.MalformedTimestamp, 1)
	f.Faults().Next(sim.UnknownMessage, 1)
	first := f.page(export(p) + "?$top=40")
	second := f.page(export(p) + "?$top=40")
	spoiled := 0
	for i, raw := range first.Value {
		if !bytes.Equal(raw, second.Value[i]) {
			t.Errorf("message changed after it was served:\n%s\n%s", raw, second.Value[i])
		}
		m := decode[chatMessage](t, raw)
		if _, err := time.Parse(time.RFC3339, m.Created); err != nil {
			spoiled++
			if m.MessageType != "hologramMessage" || !strings.Contains(string(raw), `"id2":12345678901234567890`) {
				t.Errorf("spoiled message is %s", raw)
			}
		}
	}
	if spoiled != 1 {
		t.Errorf("%d messages are malformed", spoiled)
	}
	truth := f.mailboxOf(p)
	for _, raw := range first.Value {
		if _, ok := truth[string(raw)]; !ok {
			t.Errorf("truth lacks %s", raw)
		}
	}
}

func TestServedVersionIsNeverSpoiledLater(t *testing.T) {
	f := newFixture(t, sim.Config{})
	p := f.busiest()
	before := f.all(export(p))
	f.Faults().Next(sim.MalformedTimestamp, 5)
	after := f.all(export(p))
	for i := range before {
		if !bytes.Equal(before[i], after[i]) {
			t.Fatalf("changed: %s", after[i])
		}
	}
	if n := f.Faults().Served()[sim.MalformedTimestamp]; n != 0 {
		t.Errorf("fault counted %d times", n)
	}
}

func TestSlowAnswerIsRightAndLate(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 50})
	f.Faults().SlowBy(30 * time.Millisecond)
	f.Faults().Next(sim.Slow, 1)
	start := time.Now()
	r := f.get("/organization")
	if took := time.Since(start); r.status != http.StatusOK || took < 30*time.Millisecond {
		t.Errorf("%d after %v", r.status, took)
	}
}

func TestRateAboveTheLimitIsThrottled(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 50, RatePerSecond: 3})
	codes := map[int]int{}
	for range 5 {
		codes[f.get("/organization").status]++
	}
	f.clock.Advance(time.Second)
	if r := f.get("/organization"); r.status != http.StatusOK {
		t.Errorf("in the next second: %d", r.status)
	}
	if codes[200] != 3 || codes[429] != 2 || f.Counts().Throttled != 2 {
		t.Errorf("answers are %v", codes)
	}
}

func TestConcurrencyIsCounted(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 50})
	f.Faults().SlowBy(300 * time.Millisecond)
	f.Faults().Chance(sim.Slow, 1)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if r, err := f.try("/organization"); err != nil || r.status != http.StatusOK {
				t.Errorf("%d %v", r.status, err)
			}
		})
	}
	wg.Wait()
	if n := f.Counts().MaxConcurrent; n < 2 || n > 4 {
		t.Errorf("max concurrent is %d", n)
	}
}

func TestEveryFaultAtOnceStillServesOnlyTheTruth(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 600})
	for _, k := range sim.AllFaults() {
		f.Faults().Chance(k, 0.04)
		f.Faults().Next(k, 1) // chance may spare a kind
	}
	f.Faults().SlowBy(time.Millisecond)
	f.Faults().Oversize(4096)
	served := map[string]bool{}
	for range 12 {
		f.clock.Advance(time.Second)
		for _, p := range f.People() {
			r, err := f.try(export(p.ID) + "?$top=20")
			if err != nil || r.status != http.StatusOK || !json.Valid(r.body) {
				continue
			}
			for _, raw := range decode[page](t, r.body).Value {
				served[string(raw)] = true
			}
		}
	}
	truth := map[string]bool{}
	for _, v := range f.History() {
		truth[string(v.Bytes)] = true
	}
	for raw := range served {
		if !truth[raw] {
			t.Fatalf("served and not in the truth: %s", raw)
		}
	}
	for _, k := range sim.AllFaults() {
		if f.Faults().Served()[k] == 0 {
			t.Errorf("%s never happened", k)
		}
	}
}
