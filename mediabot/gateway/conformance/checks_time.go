package main

import (
	"slices"
	"strconv"
	"time"
)

func checkDay(t *trial) {
	c := t.record(nil)
	const day = 25 * 3600 * 50 // ticks; 32 bits of RTP time turn after 24.86 h
	stride := int64(t.times(50, 1000))
	var ns []int64
	for n := int64(0); n < day; n += stride {
		ns = append(ns, n, n+1)
	}
	seq, first := uint16(0), true
	for batch := range slices.Chunk(ns, 40) {
		var ticks []tick
		for _, n := range batch {
			ticks = append(ticks, voices(n, 101))
		}
		c.play(ticks...)
		for i, p := range c.take(len(batch)) {
			if want := c.AudioBase + uint32(batch[i])*step; p.rtp != want {
				t.fatalf("tick %d has RTP time %d, not %d", batch[i], p.rtp, want)
			}
			if !first && p.seq != seq+1 {
				t.fatalf("packet %d after %d", p.seq, seq)
			}
			seq, first = p.seq, false
		}
	}
	c.clocksFit()
}

// clocksFit demands that every audio clock line ties RTP time to the script's timestamps.
func (c *call) clocksFit() {
	clocks := c.of("clock")
	if len(clocks) == 0 {
		c.t.errorf("no clock line came")
	}
	for _, l := range clocks {
		ts, err := strconv.ParseInt(l.TS, 10, 64)
		if _, werr := time.Parse(time.RFC3339Nano, l.Wall); err != nil || werr != nil {
			c.t.fatalf("clock line with ts %q and wall %q", l.TS, l.Wall)
		}
		want := c.AudioBase + uint32((ts-origin)/tickLong)*step
		if l.Kind == "audio" && l.rtp() != want {
			c.t.fatalf("clock line says RTP time %d at tick %d, not %d", l.rtp(), (ts-origin)/tickLong, want)
		}
	}
}

func checkGap(t *trial) {
	c := t.record(nil)
	c.play(voices(0, 101), voices(1, 101), voices(3, 101), voices(4, 101), voices(60, 101))
	ps := c.take(5)
	want := []uint32{0, 1, 3, 4, 60}
	markers := []bool{true, false, true, false, true}
	for i, p := range ps {
		if p.rtp != c.AudioBase+want[i]*step || p.marker != markers[i] || p.seq != ps[0].seq+uint16(i) {
			t.errorf("tick %d: RTP time %d, marker %t, number %d after %d", want[i], (p.rtp-c.AudioBase)/step, p.marker, p.seq, ps[0].seq)
		}
	}
	gap := c.awaitThat("gap", "of one tick", func(l line) bool { return l.frames() == 1 })
	if gap.From != c.AudioBase+2*step || gap.To != c.AudioBase+3*step || gap.Why != "source" {
		t.errorf("gap line %+v", gap)
	}
	c.awaitThat("gap", "of 55 ticks", func(l line) bool { return l.frames() == 55 && l.From == c.AudioBase+5*step })
	c.clocksFit()
}

func checkTimestamps(t *trial) {
	c := t.record(nil)
	stamps := []string{"0", "", at(2), at(3), at(3), at(1), "0", at(20), at(20), at(4), at(23)}
	want := []uint32{0, 1, 2, 3, 4, 5, 6, 20, 21, 22, 23}
	var ticks []tick
	for _, ts := range stamps {
		ticks = append(ticks, tick{TS: ts, Unmixed: []uint32{101}})
	}
	c.play(ticks...)
	for i, p := range c.take(len(want)) {
		if got := (p.rtp - c.AudioBase) / step; got != want[i] {
			t.errorf("timestamp %q after %v: tick %d, want %d", stamps[i], stamps[:i], int32(got), want[i])
		}
	}
	kinds := map[string]int{}
	t.until("7 anomalies", func() bool {
		clear(kinds)
		for _, l := range c.of("anomaly") {
			kinds[l.Kind]++
		}
		return kinds["timestamp_zero"] == 3 && kinds["timestamp_backward"] == 4
	})
}
