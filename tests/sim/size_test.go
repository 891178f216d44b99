package sim_test

import (
	"runtime"
	"testing"
	"time"

	"steno/tests/sim"
)

var fixedNow = time.Date(2026, 11, 20, 9, 30, 0, 0, time.UTC)

func TestManyMessagesAreMadeQuicklyAndFitInMemory(t *testing.T) {
	count, atMost := 100_000, 5*time.Second
	if raceDetector {
		count, atMost = 20_000, 20*time.Second
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	tenant := sim.New(sim.Config{Seed: seed, People: 60, Messages: count})
	took := time.Since(start)
	runtime.GC()
	runtime.ReadMemStats(&after)
	history := tenant.History()
	messages, bytes := map[[2]string]bool{}, 0
	for _, v := range history {
		messages[[2]string{string(v.Thread), v.MessageID}] = true
		bytes += len(v.Bytes)
	}
	if len(messages) != count {
		t.Errorf("history holds %d messages", len(messages))
	}
	heap := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%v, heap %d MB, %d versions, %d bytes on average", took, heap>>20, len(history), bytes/len(history))
	if took > atMost {
		t.Errorf("took %v", took)
	}
	if heap > 400<<20 {
		t.Errorf("holds %d MB", heap>>20)
	}
	if mean := bytes / len(history); mean < 900 || mean > 1300 {
		t.Errorf("messages are %d bytes on average", mean)
	}
}
