// Under the race detector memory and time are others; make test runs this without it.

//go:build !race

package export_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/storetest"
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

// disk keeps sealed objects in files, so that they do not count as memory of the builder.
type disk struct{ dir string }

func (d disk) path(name string) string {
	return filepath.Join(d.dir, strings.ReplaceAll(name, "/", "_"))
}

func (d disk) Create(_ context.Context, name string, body []byte) error {
	f, err := os.OpenFile(d.path(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	return errors.Join(err, f.Close())
}

func (d disk) Size(_ context.Context, name string) (int64, error) {
	i, err := os.Stat(d.path(name))
	if err != nil {
		return 0, err
	}
	return i.Size(), nil
}

func (d disk) ReadAt(_ context.Context, name string, off, n int64) ([]byte, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	_, err = f.ReadAt(b, off)
	return b, errors.Join(err, f.Close())
}

// TestAPackageOfAThousandConversationsIsBuiltInFlatMemory compares with one of a hundred:
// what grows with the number of conversations are their facts and digests, not content.
// All content together is several times what may be added.
func TestAPackageOfAThousandConversationsIsBuiltInFlatMemory(t *testing.T) {
	const (
		messages = 5
		size     = 10_000 // characters a message
		content  = policy.MaxExport * messages * size
		room     = 16 << 20
	)
	defer debug.SetGCPercent(debug.SetGCPercent(25)) // so that the heap is nearly what is alive
	r := newRig(t)
	for _, at := range []**evidence.Store{&r.store, &r.packages} {
		var err error
		*at, err = evidence.New(evidence.Config{Blobs: disk{t.TempDir()}, Keys: &r.keys, Vault: vault(), VaultHosts: []string{storetest.VaultHost}, Now: func() time.Time { return r.now }})
		r.must(err)
	}
	rng := rand.NewChaCha8([32]byte{1})
	text := make([]byte, size/2)
	var ids []conversation.ID
	for i := range policy.MaxExport {
		thread := fmt.Sprintf("19:many-%d@thread.v2", i)
		var raws [][]byte
		for n := range messages {
			_, _ = rng.Read(text) // never fails
			raws = append(raws, graphMessage(thread, fmt.Sprint(1000+n), "1", day.Add(time.Duration(n)*time.Minute), fmt.Sprintf("<p>%x</p>", text), nil))
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
	t.Logf("%d conversations: %s, %.1f MiB at most; %d of %.1f MiB: %s, %.1f MiB at most, a package of %.1f MiB",
		policy.MaxExportAlone, tookFew.Round(time.Millisecond), float64(few)/(1<<20), policy.MaxExport, float64(content)/(1<<20), took.Round(time.Millisecond), float64(many)/(1<<20), float64(o.Size)/(1<<20))
	if many > few+room {
		t.Errorf("%.1f MiB for %d conversations, %.1f MiB for %d", float64(many)/(1<<20), policy.MaxExport, float64(few)/(1<<20), policy.MaxExportAlone)
	}
	dir := unpack(t, r.fetch(o))
	start := time.Now()
	if verdict, code := verify(t, dir, r.fingerprint()); code != 0 {
		t.Errorf("%d %s", code, verdict)
	}
	t.Logf("checked by the script in %s", time.Since(start).Round(time.Millisecond))
}
