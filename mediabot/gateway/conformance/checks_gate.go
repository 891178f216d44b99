package main

import (
	"net/http"
	"strings"
	"time"

	"github.com/pion/webrtc/v4"
)

func checkTracks(t *trial) {
	c := t.record(map[string]any{"video": map[string]int{"sockets": 2}, "vbss": true})
	for _, socket := range []string{"v0", "v1", "vbss"} {
		c.subscribe(socket, 900)
	}
	c.play(voices(0, 101, 102, 103, 104, 105))
	for _, socket := range []string{"v0", "v1", "vbss"} {
		c.show(false, frame{Socket: socket, TS: at(0), Source: 900, W: 64, H: 48, AnnexB: keyPicture(64)})
	}
	t.until("a packet on each of 8 tracks", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.mids) == 8 })
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, tr := range c.Tracks {
		if c.mids[tr.Track] != tr.MID {
			t.errorf("SSRC %d of %s arrived on mid %q, not %q", tr.SSRC, tr.Track, c.mids[tr.Track], tr.MID)
		}
	}
}

func checkRoles(t *trial) {
	for name, role := range map[string]webrtc.DTLSRole{"server": webrtc.DTLSRoleServer, "client": webrtc.DTLSRoleClient} {
		c := t.create(nil)
		c.answer(settings{role: role, onlyGCM: true})
		if !t.within(t.patience, func() bool { return len(c.of("hello")) > 0 }) {
			t.errorf("no connection with the recorder as DTLS %s and AES-GCM", name)
			continue
		}
		if h := c.of("hello")[0]; h.CallID != c.id || h.SessionID != c.SessionID || h.InstanceID != c.InstanceID || h.Contract != "1.0" || h.Seq != 1 {
			t.errorf("hello %+v", h)
		}
	}
}

func checkFingerprint(t *trial) {
	c := t.create(nil)
	c.answer(settings{role: webrtc.DTLSRoleServer, fingerprint: otherFingerprint})
	if t.within(time.Duration(t.times(10, 3))*time.Second, func() bool { return len(c.of("hello")) > 0 }) {
		t.errorf("a peer with another certificate connected")
	}
	if i, ok := t.info(c.id); ok && (i.State == "ready" || i.State == "open") {
		t.errorf("the call is %s", i.State)
	}
}

// otherFingerprint turns the first byte of every fingerprint into another.
func otherFingerprint(sdp string) string {
	var out strings.Builder
	for l := range strings.Lines(sdp) {
		if i := strings.LastIndex(l, " "); strings.HasPrefix(l, "a=fingerprint:") && i > 0 {
			digit := "0"
			if l[i+1] == '0' {
				digit = "1"
			}
			l = l[:i+1] + digit + l[i+2:]
		}
		out.WriteString(l)
	}
	return out.String()
}

func checkGateNeeds(t *trial) {
	alone := t.create(nil)
	t.refused(alone.gate("open", acknowledged()), http.StatusConflict, "peer_not_connected", "opening for nobody")
	c := t.connect(nil)
	for what, change := range map[string]func(map[string]string){
		"without a status":         func(a map[string]string) { delete(a, "status") },
		"with notRecording":        func(a map[string]string) { a["status"] = "notRecording" },
		"without an operation":     func(a map[string]string) { delete(a, "operationId") },
		"without a time":           func(a map[string]string) { delete(a, "acknowledgedAt") },
		"with a time that is none": func(a map[string]string) { a["acknowledgedAt"] = "now" },
	} {
		ack := acknowledged()
		change(ack)
		t.refused(c.gate("open", ack), http.StatusUnprocessableEntity, "ack_required", "opening "+what)
	}
	t.refused(c.gate("open", nil), http.StatusUnprocessableEntity, "ack_required", "opening without acknowledgment")
	t.refused(c.gate("ajar", nil), http.StatusBadRequest, "bad_field", "a state that is none")
	if i, _ := t.info(c.id); i.Gate != "closed" {
		t.errorf("the gate is %s after refusals", i.Gate)
	}
	c.open()
	c.open()
	if g := c.awaitThat("gate", "open", func(l line) bool { return l.State == "open" }); g.Seq == 0 {
		t.errorf("gate line %+v", g)
	}
	c.shut()
	c.shut()
	c.awaitThat("gate", "closed", func(l line) bool { return l.State == "closed" && l.Reason == "conformance" })
}

func checkClosedGate(t *trial) {
	c := t.connect(nil)
	for n := int64(0); n < 500; n += 50 {
		var ticks []tick
		for k := range int64(50) {
			ticks = append(ticks, voices(n+k, 101, 102))
		}
		c.burst(ticks...)
	}
	c.quiet("passed a closed gate")
	i, _ := t.info(c.id)
	if i.Counters.Ticks != 500 || i.Counters.Gated != 500 || i.Counters.Queued != 0 {
		t.errorf("%d ticks, %d gated, %d queued; want 500, 500, 0", i.Counters.Ticks, i.Counters.Gated, i.Counters.Queued)
	}
	c.open()
	c.play(voices(500, 101))
	if p := c.take(1); p[0].rtp != c.AudioBase+500*step {
		t.errorf("the first frame after 500 gated ticks has RTP time %d, not %d", p[0].rtp, c.AudioBase+500*step)
	}
}

// settle is how long a packet may be on its way through loopback on a busy machine.
const settle = 60 * time.Millisecond

func checkShut(t *trial) {
	c := t.connect(nil)
	n := int64(0)
	for range t.times(1000, 25) {
		c.open()
		c.play(voices(n, 101))
		ticks := []tick{}
		for k := range int64(30) {
			ticks = append(ticks, voices(n+1+k, 101))
		}
		n += 31
		c.burst(ticks...)
		last := c.shut()
		closed := time.Now()
		time.Sleep(settle)
		seen := map[uint32]bool{}
		for _, p := range c.take(1) {
			if late := p.at.Sub(closed); late > settle/2 || int32(p.rtp-last) > 0 || seen[p.rtp] {
				t.fatalf("a packet of RTP time %d came %v after the gate was closed at %d", p.rtp, late, last)
			}
			seen[p.rtp] = true
		}
	}
	c.quiet("after the gate was closed")
}

func checkLease(t *trial) {
	c := t.record(nil)
	c.mute.Store(true)
	c.say(`{"t":"ping","seq":2}`)
	time.Sleep(settle)
	wait := t.advance
	if !t.short {
		wait = func(d time.Duration) { time.Sleep(d) }
	}
	wait(5 * time.Second)
	if i, _ := t.info(c.id); i.Gate != "open" {
		t.errorf("the gate is %s 5 s after a ping", i.Gate)
	}
	wait(1500 * time.Millisecond)
	c.awaitThat("gate", "closed for want of pings", func(l line) bool { return l.State == "closed" && l.Reason == "lease_expired" })
	i, _ := t.info(c.id)
	if i.State != "orphaned" || i.Gate != "closed" {
		t.errorf("the call is %s, its gate %s", i.State, i.Gate)
	}
	c.say(`{"t":"ping","seq":3}`)
	t.until("ready again", func() bool { i, _ := t.info(c.id); return i.State == "ready" && i.Gate == "closed" })
}
