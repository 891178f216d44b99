package attachments_test

import (
	"context"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/storetest"
)

// sink takes large objects and forgets them: what is measured is the fetching alone.
type sink struct {
	storetest.Blobs
	bytes atomic.Int64
	peak  atomic.Uint64
}

func (s *sink) CreateUntil(ctx context.Context, name string, body []byte, until time.Time) error {
	if len(body) < 100_000 {
		return s.Blobs.CreateUntil(ctx, name, body, until)
	}
	s.bytes.Add(int64(len(body)))
	var m runtime.MemStats
	if s.bytes.Load()>>24 != (s.bytes.Load()-int64(len(body)))>>24 { // now and then: it stops the world
		runtime.GC()
		runtime.ReadMemStats(&m)
		s.peak.Store(max(s.peak.Load(), m.HeapAlloc))
		runtime.KeepAlive(body)
	}
	return nil
}

// sparse is a stream of n zeros.
type sparse struct{ n int64 }

func (s *sparse) Read(p []byte) (int, error) {
	if s.n == 0 {
		return 0, io.EOF
	}
	n := int(min(s.n, int64(len(p))))
	clear(p[:n])
	s.n -= int64(n)
	return n, nil
}

// A file is as large as it is: what is alive while it passes through is one part and its
// sealed copy.
func TestAFileOfAnySizeTakesEightMegabytesOfMemory(t *testing.T) {
	const size = 96 << 20
	blobs := new(sink)
	r := newRigOver(t, blobs)
	r.config.Part = 0
	r.shelf.item.Size = size
	r.shelf.read = func([]byte, int64) io.Reader { return &sparse{size} }
	r.shelf.bytes[""] = nil
	r.say("1", "1", "", link)
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	r.handle()
	a := r.only()
	if a.State != conversation.AttachmentFetched || a.Size != size {
		t.Fatalf("%+v", a)
	}
	took := int64(blobs.peak.Load()) - int64(before.HeapAlloc)
	t.Logf("%d MiB in %d parts took %.1f MiB of heap and %s", size>>20, a.Parts, float64(took)/(1<<20), time.Since(start).Round(time.Millisecond))
	if took > 9<<20 {
		t.Errorf("%d bytes of heap", took)
	}
}
