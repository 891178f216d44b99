package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// crowd are the sources of the churn: their tones lie 300 Hz apart.
var crowd = []uint32{24_000, 3, 30, 57, 4_294_967_292, 15, 18, 21}

func checkChurn(t *trial) {
	c := t.record(nil)
	c.churn(t.times(1_000_000, 1500), 20)
}

func checkLateLines(t *trial) {
	c := t.record(nil)
	t.cleanup(func() { t.control(map[string]any{"ctlDelayMs": 0}) })
	t.control(map[string]any{"ctlDelayMs": 1000})
	if !t.has("extension") {
		t.logf("the gateway binds by lines alone: it must hold the frames back")
	}
	c.churn(t.times(100_000, 500), 20)
}

// churn plays a random conversation and demands of every frame that it sounds as the source it names, that a line binds
// it to the same source, and that none is missing.
func (c *call) churn(ticks, batch int) {
	t := c.t
	var speaking []uint32
	checker := newAttribution(c)
	sent := map[uint32]int{}
	for n := 0; n < ticks; n += batch {
		var part []tick
		due := 0
		for k := range batch {
			speaking = t.change(speaking)
			part = append(part, voices(int64(n+k), speaking...))
			due += len(speaking)
			for _, s := range speaking {
				sent[s]++
			}
		}
		c.play(part...)
		if due > 0 {
			checker.frames(c.take(due))
		}
	}
	checker.lines()
	if !maps.Equal(sent, checker.heard) {
		t.errorf("frames by source: sent %v, heard %v", sent, checker.heard)
	}
}

// change lets somebody begin or stop now and then, and mixes up the order.
func (t *trial) change(speaking []uint32) []uint32 {
	out := slices.Clone(speaking)
	if t.rand.IntN(4) == 0 && len(out) > 0 {
		i := t.rand.IntN(len(out))
		out = slices.Delete(out, i, i+1)
	}
	if next := crowd[t.rand.IntN(len(crowd))]; t.rand.IntN(3) == 0 && len(out) < 4 && !slices.Contains(out, next) {
		out = append(out, next)
	}
	t.rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// attribution checks whose frames are.
type attribution struct {
	c       *call
	ears    map[string]*ear
	epochs  map[string]uint8
	heard   map[uint32]int
	pending []packet // named by their extension, a line is still due
}

func newAttribution(c *call) *attribution {
	return &attribution{c: c, ears: map[string]*ear{}, epochs: map[string]uint8{}, heard: map[uint32]int{}}
}

// binding returns the bind line that is good for a packet, and whether there is one.
func (c *call) binding(p packet) (line, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range slices.Backward(c.lines) {
		if l.T == "bind" && l.Track == p.track && int32(p.rtp-l.rtp()) >= 0 {
			return l, true
		}
	}
	return line{}, false
}

func (a *attribution) frames(ps []packet) {
	t := a.c.t
	for _, p := range ps {
		if !p.stamped {
			if t.has("extension") {
				t.fatalf("a packet on %s has no header extension", p.track)
			}
			l, ok := a.c.binding(p)
			if !ok {
				t.fatalf("a packet on %s came before the line that binds it", p.track)
			}
			n, err := strconv.ParseUint(l.Source, 10, 32)
			if err != nil {
				t.fatalf("bind line %+v", l)
			}
			p.source, p.epoch = uint32(n), l.Epoch
		}
		if a.ears[p.track] == nil || a.epochs[p.track] != p.epoch {
			e, err := newEar()
			if err != nil {
				t.fatalf("%v", err)
			}
			a.ears[p.track], a.epochs[p.track] = e, p.epoch
		}
		sounds, err := a.sounds(p)
		if err != nil {
			t.fatalf("%s: %v", p.track, err)
		}
		if sounds != p.source {
			t.fatalf("a frame on %s names source %d and sounds as source %d", p.track, p.source, sounds)
		}
		a.heard[p.source]++
		if n := len(a.pending); n == 0 || a.pending[n-1].track != p.track || a.pending[n-1].epoch != p.epoch {
			p.payload = nil
			a.pending = append(a.pending, p)
		}
	}
}

// sounds tells by ear whose a frame is. A decoder that goes on can ring for a frame, where an encoder starts again or a
// gateway plays a tone from packets that repeat: so a frame that sounds wrong is heard alone too, and only counts as
// wrong if that sounds wrong as well.
func (a *attribution) sounds(p packet) (uint32, error) {
	heard, err := loudest(a.ears[p.track], p.payload)
	if err != nil || heard == p.source {
		return heard, err
	}
	alone, err := newEar()
	if err != nil {
		return 0, err
	}
	return loudest(alone, p.payload)
}

// loudest is the one of the crowd whose tone there is most of in a frame.
func loudest(e *ear, payload []byte) (uint32, error) {
	power, err := e.hear(payload)
	return slices.MaxFunc(crowd, func(x, y uint32) int { return cmp.Compare(power[toneOf(x)], power[toneOf(y)]) }), err
}

// lines demands a bind line for every binding that was seen, with the source its packets named.
func (a *attribution) lines() {
	t := a.c.t
	for _, p := range a.pending {
		var l line
		ok := t.within(t.patience, func() bool {
			var found bool
			l, found = a.c.binding(p)
			return found && l.Epoch == p.epoch
		})
		if !ok || l.Source != strconv.FormatUint(uint64(p.source), 10) {
			t.fatalf("packets on %s, epoch %d, name source %d; the line says %+v", p.track, p.epoch, p.source, l)
		}
	}
	n := int64(0)
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	for _, l := range a.c.lines {
		if l.T == "bind" || l.T == "unbind" {
			if n++; l.N != n {
				t.fatalf("%s line %d after %d", l.T, l.N, n-1)
			}
		}
	}
}

func checkFifth(t *trial) {
	c := t.record(nil)
	c.play(voices(0, 101, 102, 103, 104, 105), voices(1, 101, 102, 103, 104), voices(2, 101, 101))
	onMix := map[uint32]uint32{} // source by tick
	others := 0
	for _, p := range c.take(11) {
		if p.track == "mix" {
			onMix[(p.rtp-c.AudioBase)/step] = p.source
		} else {
			others++
		}
	}
	if others != 9 || !maps.Equal(onMix, map[uint32]uint32{0: 105, 2: 101}) {
		t.errorf("%d frames on slots, want 9; on the mix sources by tick %v, want 105 and 101 at 0 and 2", others, onMix)
	}
	for kind, source := range map[string]string{"fifth_speaker": "105", "duplicate_source": "101"} {
		c.awaitThat("anomaly", kind, func(l line) bool { return l.Kind == kind && l.Source == source })
	}
}

// residueLimit is how much of a former speaker's tone may be in a new speaker's first frame: a twentieth of the power.
const residueLimit = 0.05

func checkReset(t *trial) {
	c := t.record(nil)
	n := int64(0)
	for range 25 {
		c.play(voices(n, 3, 6, 9, 12))
		n++
	}
	c.take(100)
	c.play(voices(n, 6, 9, 12), voices(n+1, 6, 9, 12, 18), voices(n+2, 6, 9, 12, 18))
	var first *packet
	for _, p := range c.take(11) {
		if p.source == 18 && first == nil {
			first = &p
		}
	}
	if first == nil || first.track != "a0" || !first.marker {
		t.fatalf("the new speaker did not take the place of the one who stopped: %+v", first)
	}
	e, err := newEar()
	if err != nil {
		t.fatalf("%v", err)
	}
	power, err := e.hear(first.payload)
	if err != nil {
		t.fatalf("%v", err)
	}
	if power[3] > residueLimit*power[18] {
		t.errorf("the new speaker's first frame has the former speaker's tone at %.3f of its power", power[3]/power[18])
	}
	c.awaitThat("unbind", "of the former speaker", func(l line) bool {
		return l.Track == "a0" && l.Source == "3" && l.Reason == "taken" && l.rtp() == c.AudioBase+uint32(n-1)*step
	})
	gone := n + 2 + 1501 // the last frames were those of tick n+2
	c.play(voices(gone, 6))
	c.take(1)
	for _, source := range []string{"9", "12", "18"} {
		c.awaitThat("unbind", "after 30 s of absence", func(l line) bool { return l.Source == source && l.Reason == "absent" })
	}
}

func checkMix(t *trial) {
	c := t.record(nil)
	mixed := func(n int64, source uint32, active ...uint32) tick {
		return tick{TS: at(n), Mixed: &source, Active: active}
	}
	for n := range int64(12) {
		c.play(mixed(n, 6, 106))
	}
	for _, p := range c.take(12) {
		if p.track != "mix" || p.source != 106 {
			t.errorf("a frame of the mix is on %s with source %d", p.track, p.source)
		}
	}
	mode := c.awaitThat("mode", "mixed", func(l line) bool { return l.Audio == "mixed" })
	if mode.rtp() != c.AudioBase+9*step {
		t.errorf("mode mixed at tick %d, want 9: the tenth without unmixed buffers", (mode.rtp()-c.AudioBase)/step)
	}
	c.play(mixed(12, 6, 106, 107))
	if p := c.take(1)[0]; p.source != 1<<32-1 {
		t.errorf("the mix of two speakers names source %d", p.source)
	}
	c.awaitThat("bind", "of the mix to nobody in particular", func(l line) bool { return l.Track == "mix" && l.Source == "mixed" })
	c.play(voices(13, 101), voices(14, 101))
	for _, p := range c.take(2) {
		if p.track == "mix" {
			t.errorf("the mix was sent beside the speakers")
		}
	}
	c.awaitThat("mode", "unmixed again", func(l line) bool { return l.Audio == "unmixed" && l.rtp() == c.AudioBase+13*step })
	c.quiet("beside the speakers")
}

func checkSilence(t *trial) {
	c := t.record(nil)
	var ticks []tick
	for n := range int64(40) {
		ticks = append(ticks, tick{TS: at(n), Unmixed: []uint32{}, Silence: true})
	}
	c.play(ticks...)
	c.quiet("in silence")
	if i, _ := t.info(c.id); i.Counters.Silent != 40 || i.Counters.Ticks != 40 {
		t.errorf("%d silent of %d ticks, want 40 of 40", i.Counters.Silent, i.Counters.Ticks)
	}
	c.say(`{"t":"ping","seq":2}`)
	time.Sleep(settle)
	t.advance(5100 * time.Millisecond)
	c.awaitThat("stat", "with 40 silent ticks", func(l line) bool { return l.Silent == 40 && l.Ticks == 40 })
}

// goneWithin demands that a call disappears.
func (t *trial) goneWithin(limit time.Duration, id string) {
	if !t.within(limit, func() bool { _, ok := t.info(id); return !ok }) {
		t.errorf("the call is still there after %v", limit)
	}
	t.refuses(http.StatusNotFound, "call_unknown", http.MethodPost, fmt.Sprintf("/v1/calls/%s/reoffer", id), map[string]any{})
}
