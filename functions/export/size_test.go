package export_test

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/policy"
)

// peak samples the heap until it is stopped, and returns the most it saw above where it began.
func peak() (stop func() uint64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	base := m.HeapAlloc
	var most atomic.Uint64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				if m.HeapAlloc > base && m.HeapAlloc-base > most.Load() {
					most.Store(m.HeapAlloc - base)
				}
			}
		}
	}()
	return func() uint64 {
		close(done)
		<-ended
		return most.Load()
	}
}

// TestAPackageOfAThousandConversationsIsBuiltInFlatMemory compares with one of a hundred:
// what grows with the number of conversations are their facts and digests, not content.
func TestAPackageOfAThousandConversationsIsBuiltInFlatMemory(t *testing.T) {
	if raceEnabled {
		t.Log("under the race detector memory is another")
	}
	r := newRig(t)
	var ids []conversation.ID
	for i := range policy.MaxExport {
		thread := fmt.Sprintf("19:many-%d@thread.v2", i)
		var raws [][]byte
		for n := range 5 {
			raws = append(raws, graphMessage(thread, fmt.Sprint(1000+n), "1", day.Add(time.Duration(n)*time.Minute), fmt.Sprintf("<p>%0900d</p>", n), nil))
		}
		ids = append(ids, r.batch(raws...))
	}
	r.sequence()
	build := func(n int) (policy.ExportOrder, time.Duration, uint64) {
		o := r.order(policy.ExportOrder{}, ids[:n]...)
		if n > policy.MaxExportAlone {
			o = r.agreed(o)
		}
		start, stop := time.Now(), peak()
		r.must(r.handle(o))
		took, most := time.Since(start), stop()
		o, err := r.orders.Get(t.Context(), o.ID)
		r.must(err)
		if o.State != policy.ExportReady {
			t.Fatalf("%s: %s", o.State, o.Failure)
		}
		return o, took, most
	}
	_, tookFew, few := build(policy.MaxExportAlone)
	o, took, many := build(policy.MaxExport)
	t.Logf("%d conversations: %s, %.1f MiB at most; %d: %s, %.1f MiB at most, a package of %.1f MiB",
		policy.MaxExportAlone, tookFew.Round(time.Millisecond), float64(few)/(1<<20), policy.MaxExport, took.Round(time.Millisecond), float64(many)/(1<<20), float64(o.Size)/(1<<20))
	// The rig keeps the sealed parts in memory too; they count as what they are.
	const room = 64 << 20
	if !raceEnabled && many > few+uint64(o.Size)+room {
		t.Errorf("%.1f MiB for %d conversations, %.1f MiB for %d", float64(many)/(1<<20), policy.MaxExport, float64(few)/(1<<20), policy.MaxExportAlone)
	}
	dir := unpack(t, r.fetch(o))
	start := time.Now()
	if verdict, code := verify(t, dir, r.fingerprint()); code != 0 {
		t.Errorf("%d %s", code, verdict)
	}
	t.Logf("checked by the script in %s", time.Since(start).Round(time.Millisecond))
}
