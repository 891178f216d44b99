package gateway_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"steno/tests/sim/gateway"
)

// BenchmarkCalls keeps calls of one speaker running for ten seconds and says what a second of one costs both ends
// together, and how far behind the slowest call's ticks were.
func BenchmarkCalls(b *testing.B) {
	for _, calls := range []int{10, 200} {
		b.Run(fmt.Sprint(calls), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				cost, behind := runCalls(b, calls, 10*time.Second)
				b.StartTimer()
				b.ReportMetric(0, "ns/op") // of no meaning here
				b.ReportMetric(cost, "cpu-ms/stream-s")
				b.ReportMetric(float64(behind.Milliseconds()), "ms-behind")
			}
		})
	}
}

func runCalls(b *testing.B, calls int, length time.Duration) (cost float64, behind time.Duration) {
	g, err := gateway.Start(gateway.Config{MaxCalls: calls, TestMode: true})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := g.Close(); err != nil {
			b.Error(err)
		}
	}()
	r := &rig{b, g}
	var ends []*recorder
	for i := range calls {
		id := fmt.Sprintf("call-%d", i)
		rec := r.record(id)
		if _, err := g.Connect(rec.blob, &voice{}); err != nil {
			b.Fatal(err)
		}
		r.gate(id, rec, "open")
		ends = append(ends, rec)
	}
	var before, after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	for time.Since(start) < length {
		for _, rec := range ends {
			rec.ping()
		}
		time.Sleep(2 * time.Second)
	}
	took := time.Since(start)
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
		b.Fatal(err)
	}
	for _, c := range g.Calls() {
		sent := time.Duration(c.Counters.Frames["a0"]) * gateway.TickLength
		behind = max(behind, took-sent)
		if c.Counters.Dropped["a0"] > 0 {
			b.Errorf("%s dropped %d frames", c.CallID, c.Counters.Dropped["a0"])
		}
	}
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	return float64(cpu.Milliseconds()) / took.Seconds() / float64(calls), behind
}
