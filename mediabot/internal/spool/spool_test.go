package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
)

func TestALegGoesToEvidenceInOrderAndLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, d := newCloud(), newMemDisk()
		r := open(t, c, d, 0).start()
		s := newSpeaker("call", time.Now())
		line, err := r.Begin(s.h, s)
		must(t, err)
		time.Sleep(25 * time.Minute)
		if got := r.State(); got.Lag > 12*time.Second || got.Alarm {
			t.Errorf("while all is well: %+v", got)
		}
		h := <-finish(t, line, s)
		if h.Bundles != s.last()+1 || h.Packs != 3 || h.Parts != 0 || !h.Epoch.Equal(s.epoch) {
			t.Errorf("handed over %+v after bundle %d", h, s.last())
		}
		c.expect(t, s.h.Leg, h.Packs, whole(h.Bundles)...)
		if c.order[0] != "key" {
			t.Errorf("%s went first", c.order[0])
		}
		if last := len(c.order) - 1; c.order[last] != "pack" {
			t.Errorf("%s went last", c.order[last])
		}
		time.Sleep(5 * time.Second)
		if got := r.State(); got.Legs != 0 || got.Items != 0 || len(d.files) > 2 {
			t.Errorf("left behind: %+v in %d files", got, len(d.files))
		}
		r.stop()
		again := open(t, c, d, 0)
		if left := again.Recovering(); len(left) != 0 {
			t.Errorf("the next process finds %v", left)
		}
		if told := s.told(); len(told) != 0 {
			t.Errorf("events %v", told)
		}
	})
}

func TestStorageAwayTenMinutesLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud()
		begin := time.Now()
		c.away = func() bool {
			since := time.Since(begin)
			return since > 30*time.Second && since < 10*time.Minute+30*time.Second
		}
		r := open(t, c, newMemDisk(), 0).start()
		defer r.stop()
		s := newSpeaker("call", begin)
		line, err := r.Begin(s.h, s)
		must(t, err)
		time.Sleep(5 * time.Minute)
		if got := r.State(); got.Alarm || got.Lag < 4*time.Minute || line.Lag() != got.Lag {
			t.Errorf("after four and a half minutes: %+v", got)
		}
		time.Sleep(5*time.Minute + 20*time.Second)
		if got := r.State(); !got.Alarm || got.Lag < 9*time.Minute {
			t.Errorf("after ten minutes: %+v", got)
		}
		time.Sleep(2 * time.Minute)
		if got := r.State(); got.Alarm || got.Lag > 12*time.Second {
			t.Errorf("after it came back: %+v", got)
		}
		h := <-finish(t, line, s)
		c.expect(t, s.h.Leg, h.Packs, whole(h.Bundles)...)
		if refused := s.refused(); len(refused) != 0 {
			t.Errorf("refused: %v", refused)
		}
	})
}

func TestOverItsLimitsTheSpoolRefusesMediaAndKeepsTheLastBundle(t *testing.T) {
	for name, quota := range map[string]int64{"bytes": 200 << 10, "media": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud()
				var away atomic.Bool
				away.Store(true)
				c.away = away.Load
				r := open(t, c, newMemDisk(), quota).start()
				defer r.stop()
				s := newSpeaker("call", time.Now())
				line, err := r.Begin(s.h, s)
				must(t, err)
				time.Sleep(35 * time.Minute)
				refused := s.refused()
				if len(refused) == 0 || !errors.Is(refused[0], ErrFull) {
					t.Fatalf("refused: %d", len(refused))
				}
				if _, err := r.Begin(newSpeaker("other", time.Now()).h, s); quota != 0 && !errors.Is(err, ErrFull) {
					t.Errorf("another leg: %v", err)
				}
				if full := r.State().Full; full < HighWater {
					t.Errorf("full to %.2f", full)
				}
				handed := finish(t, line, s)
				away.Store(false)
				h := <-handed
				c.expect(t, s.h.Leg, h.Packs, whole(h.Bundles)...)
			})
		})
	}
}

func TestADiskThatRefusesForAWhileLosesNothing(t *testing.T) {
	for _, op := range []string{"write", "sync", "create"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, d := newCloud(), newMemDisk()
				begin := time.Now()
				d.fault = func(o string) error {
					if since := time.Since(begin); since > 10*time.Second && since < 20*time.Second && (o == op || op == "create" && o == "write") {
						return errors.New("no space left on device")
					}
					return nil
				}
				r := open(t, c, d, 0).start()
				s := newSpeaker("call", begin)
				line, err := r.Begin(s.h, s)
				must(t, err)
				time.Sleep(15 * time.Second)
				if !r.State().Alarm {
					t.Error("nobody is told that the disk refuses")
				}
				time.Sleep(15 * time.Second)
				if r.State().Alarm {
					t.Error("the alarm goes on")
				}
				h := <-finish(t, line, s)
				c.expect(t, s.h.Leg, h.Packs, whole(h.Bundles)...)
				r.stop()
				if _, err := open(t, c, d.crash(rand.New(rand.NewPCG(1, 1))), 0).Spool.Begin(s.h, s); err != nil {
					t.Error("after a restart: ", err)
				}
			})
		})
	}
}

// TestACrashAtAnyStepLosesNothingThatWasOnDisk stops the disk at each operation in turn,
// as a power cut does, and lets another process take over.
func TestACrashAtAnyStepLosesNothingThatWasOnDisk(t *testing.T) {
	for step := 1; ; step++ {
		finished := false
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(step), 7))
			c, d := newCloud(), newMemDisk()
			ops := 0
			var cut atomic.Bool
			d.fault = func(string) error {
				if ops++; ops >= step {
					cut.Store(true)
					return errors.New("no power")
				}
				return nil
			}
			c.away = cut.Load
			r := open(t, c, d, 0).start()
			s := newSpeaker("call", time.Now())
			line, err := r.Begin(s.h, s)
			must(t, err)
			time.Sleep(time.Duration(10+rng.IntN(20)) * time.Second)
			s.over()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			err = line.Finish(ctx, func(Handed) {})
			cancel()
			time.Sleep(3 * time.Second)
			finished = !cut.Load()
			var durable []*item
			r.Spool.mu.Lock()
			if g := r.legs[string(s.h.Leg)]; g != nil {
				durable = slices.Clone(g.items)
			}
			r.Spool.mu.Unlock()
			r.stop()
			cut.Store(false)

			next := open(t, c, d.crash(rng), 0).start()
			time.Sleep(2 * time.Minute)
			next.stop()
			if len(durable) > 0 && len(next.recovered) != 1 {
				t.Fatalf("cut off at step %d: %d legs recovered", step, len(next.recovered))
			}
			for _, x := range next.recovered {
				if x.Leg != s.h.Leg || x.Call != "call" || len(x.Faults) != 0 || x.Final != (err == nil) {
					t.Errorf("cut off at step %d, finished with %v: recovered %+v", step, err, x)
				}
				packed := c.packed(t, x.Leg, x.Handed.Packs)
				for _, it := range durable {
					// The write that was cut off may have got as far as the bundle that replaces the part.
					part, whole := conversation.BundleObject(x.Leg, it.Seq, it.Part), conversation.BundleObject(x.Leg, it.Seq, 0)
					if !slices.Contains(packed, part) && !slices.Contains(packed, whole) {
						t.Errorf("cut off at step %d: bundle %d.%d was on disk and is not in evidence", step, it.Seq, it.Part)
					}
				}
			}
		})
		if finished {
			t.Logf("%d steps", step)
			return
		}
		if step > 500 || t.Failed() {
			t.Fatal("it does not end")
		}
	}
}

func TestARecoveredLegHasItsPartsAndIsReportedUntilThatIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, d := newCloud(), newMemDisk()
		c.away = func() bool { return true }
		r := open(t, c, d, 0).start()
		s := newSpeaker("call", time.Now())
		_, err := r.Begin(s.h, s)
		must(t, err)
		start := time.Now()
		time.Sleep(16 * time.Second)
		crashed := d.crash(rand.New(rand.NewPCG(1, 1)))
		r.stop()

		c2 := newCloud()
		next := open(t, c2, crashed, 0)
		fails := 2
		next.cfg.Recovered = func(x Recovered) error {
			if fails--; fails >= 0 {
				return errors.New("queue is away")
			}
			return next.told(x)
		}
		if _, err := next.Begin(s.h, s); err == nil {
			t.Error("a leg that is still there was begun anew")
		}
		next.start()
		time.Sleep(time.Minute)
		next.stop()
		if len(next.recovered) != 1 {
			t.Fatalf("recovered %+v", next.recovered)
		}
		x := next.recovered[0]
		bundles := int(start.Add(16*time.Second).Sub(s.epoch)/conversation.SegmentDuration) + 1
		if x.Final || x.Handed.Bundles != bundles || x.Handed.Parts == 0 || x.Handed.Packs != 1 {
			t.Errorf("recovered %+v, want %d bundles and parts", x, bundles)
		}
		want := whole(bundles - 1)
		for p := range x.Handed.Parts {
			want = append(want, [2]int{bundles - 1, p + 1})
		}
		c2.expect(t, x.Leg, 1, want...)
	})
}

func TestWhatWasAlteredOnDiskIsAGapAndNeverSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, d := newCloud(), newMemDisk()
		var away atomic.Bool
		away.Store(true)
		c.away = away.Load
		r := open(t, c, d, 0).start()
		s := newSpeaker("call", time.Now())
		line, err := r.Begin(s.h, s)
		must(t, err)
		time.Sleep(30 * time.Second)
		r.Spool.mu.Lock()
		victim := r.legs[string(s.h.Leg)].items[1]
		d.alter(victim.file.n, victim.off+20)
		r.Spool.mu.Unlock()
		altered := d.crash(rand.New(rand.NewPCG(1, 1)))
		away.Store(false)
		time.Sleep(30 * time.Second)
		h := <-finish(t, line, s)
		r.stop()
		want := slices.Delete(whole(h.Bundles), victim.Seq, victim.Seq+1)
		c.expect(t, s.h.Leg, h.Packs, want...)
		if told := s.told(); len(told) != 1 || told[0].Kind != conversation.EventFault {
			t.Errorf("the leg was told %v", told)
		}

		c2 := newCloud()
		next := open(t, c2, altered, 0).start()
		time.Sleep(time.Minute)
		next.stop()
		if len(next.recovered) != 1 || len(next.recovered[0].Faults) == 0 {
			t.Fatalf("the next process reports %+v", next.recovered)
		}
		name := string(tenant) + "/" + string(s.h.Leg) + "/" + conversation.BundleObject(s.h.Leg, victim.Seq, 0)
		if _, err := c2.tails.Size(t.Context(), name); err == nil {
			t.Error("an altered bundle is in evidence")
		}
	})
}

func TestARemovedJournalFileIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, d := newCloud(), newMemDisk()
		c.away = func() bool { return true }
		for i := range 3 { // each process begins a file
			r := open(t, c, d, 0).start()
			s := newSpeaker(teams.CallID(fmt.Sprintf("call-%d", i)), time.Now())
			_, err := r.Begin(s.h, s)
			must(t, err)
			time.Sleep(10 * time.Second)
			r.stop()
		}
		files, err := d.list()
		must(t, err)
		if len(files) != 3 {
			t.Fatalf("files %v", files)
		}
		must(t, d.remove(files[0]))
		c2 := newCloud()
		next := open(t, c2, d, 0).start()
		time.Sleep(time.Minute)
		next.stop()
		if len(next.recovered) != 2 || len(next.recovered[0].Faults) == 0 {
			t.Errorf("recovered %+v", next.recovered)
		}
	})
}

func TestALegThatPanicsEndsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud()
		r := open(t, c, newMemDisk(), 0).start()
		defer r.stop()
		good, bad := newSpeaker("good", time.Now()), newSpeaker("bad", time.Now())
		goodLine, err := r.Begin(good.h, good)
		must(t, err)
		badLine, err := r.Begin(bad.h, bad)
		must(t, err)
		time.Sleep(10 * time.Second)
		bad.mu.Lock()
		bad.panics = true
		bad.mu.Unlock()
		time.Sleep(20 * time.Second)
		if bad.faults() != 1 || good.faults() != 0 {
			t.Errorf("%d and %d legs told that they are broken", bad.faults(), good.faults())
		}
		h := <-finish(t, goodLine, good)
		c.expect(t, good.h.Leg, h.Packs, whole(h.Bundles)...)
		if h := <-finish(t, badLine, bad); h.Bundles == 0 || h.Parts == 0 {
			t.Errorf("of the broken leg %+v was handed over", h)
		}
	})
}

func TestTheDiskIsWaitedForOnceASecondHoweverManyLegs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		r := open(t, newCloud(), d, 0).start()
		for i := range 50 {
			s := newSpeaker(teams.CallID(fmt.Sprintf("call-%d", i)), time.Now())
			_, err := r.Begin(s.h, s)
			must(t, err)
		}
		time.Sleep(30 * time.Second)
		r.stop()
		if most := int(30*time.Second/CommitInterval) + 3; d.synced() > most {
			t.Errorf("%d syncs in 30 s for 50 legs, want at most %d", d.synced(), most)
		}
	})
}

func TestNothingReadableTouchesTheDisk(t *testing.T) {
	dir := t.TempDir()
	c := newCloud()
	root, err := os.OpenRoot(dir)
	must(t, err)
	r := open(t, c, rootDisk{root}, 0)
	r.Spool.store = r.store
	s := newSpeaker("call", time.Now())
	_, err = r.Begin(s.h, s)
	must(t, err)
	for i := range 20 {
		r.commit(time.Now().Add(time.Duration(i)*time.Second), r.flushed())
	}
	must(t, errors.Join(r.Close(), root.Close()))
	seen := 0
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		seen += len(b)
		if bytes.Contains(b, []byte("canary")) {
			t.Errorf("%s holds what was said", e.Name())
		}
		if strings.Contains(e.Name(), "call") {
			t.Errorf("a name that was not generated here: %s", e.Name())
		}
		return err
	}))
	if seen == 0 {
		t.Error("nothing is on disk at all")
	}
}

func TestAnotherVersionsRecordsAreRefusedAndNotGuessed(t *testing.T) {
	d := newMemDisk()
	b := appendRecord(nil, metaRecord(recordKind(99), struct{}{}))
	d.files[1] = &memFile{d: d, b: b}
	s := newSpool(Config{Log: quiet}, d)
	if err := s.recover(); err == nil {
		t.Error("a record of an unknown kind was passed over")
	}
}

func FuzzScan(f *testing.F) {
	batch := appendRecord(nil, metaRecord(recordStart, startMeta{2, []int{1}}))
	batch = appendRecord(batch, record{kind: recordItem, meta: []byte(`{}`), data: []byte("sealed"), sum: metaSum("sealed")})
	batch = appendRecord(batch, metaRecord(recordCommit, struct{}{}))
	f.Add(batch)
	f.Add(batch[:len(batch)-7])
	f.Add(append([]byte("SPJ1"), batch...))
	f.Fuzz(func(t *testing.T, b []byte) {
		end := int64(0)
		_, err := scan(b, func(x scanned) error {
			if x.dataAt < end || x.dataAt+int64(len(x.data)) > int64(len(b)) {
				t.Fatalf("record at %d after one that ends at %d", x.dataAt, end)
			}
			end = x.dataAt + int64(len(x.data))
			again, n, err := parseRecord(appendRecord(nil, x.record))
			if err != nil || again.kind != x.kind || !bytes.Equal(again.data, x.data) || n == 0 {
				t.Fatal("a record is not read back as it was")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		// What a journal of such bytes does to recovery: an error or legs, no panic.
		d := newMemDisk()
		d.files[1] = &memFile{d: d, b: b}
		s := newSpool(Config{Log: quiet}, d)
		_ = s.recover()
	})
}
