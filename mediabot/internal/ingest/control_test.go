package ingest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"steno/shared/conversation"
)

func TestControlLinesThatBreakTheContractEndTheSession(t *testing.T) {
	for name, message := range map[string]string{
		"a hole":        `{"t":"hello","seq":2}`,
		"not JSON":      `{"t":`,
		"too large":     `{"t":"hello","seq":1,"x":"` + strings.Repeat("x", MaxControl) + `"}`,
		"a clock's rtp": `{"t":"clock","seq":1,"rtp":-1,"ts":"1","wall":"2026-11-21T00:00:00Z"}`,
		"a clock's ts":  `{"t":"clock","seq":1,"rtp":1,"ts":38104121949150000,"wall":"2026-11-21T00:00:00Z"}`,
		"a source":      `{"t":"bind","seq":1,"track":"a0","epoch":1,"source":"-4","rtp":1}`,
	} {
		f := newField(t, 1, "a0")
		if _, _, err := f.control(f.now, []byte(message)); !errors.Is(err, ErrContract) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), "xxx") {
			t.Errorf("%s: the error quotes the line", name)
		}
	}
	f := newField(t, 1, "a0")
	var err error
	for i := 1; err == nil && i <= 2*MaxControlRate; i++ {
		_, _, err = f.control(f.now, fmt.Appendf(nil, `{"t":"stat","seq":%d}`, i))
	}
	if !errors.Is(err, ErrContract) {
		t.Error("a flood of control lines is taken")
	}
}

func TestLinesForTheSessionArePassedOnAsTheyCame(t *testing.T) {
	f := newField(t, 1, "a0")
	message := `{"t":"hello","seq":1,"instanceId":"i"}` + "\n" + `{"t":"news","seq":2}` + "\n\n" + `{"seq":3,"t":"bye","reason":"r","big":38104121949150000}` + "\n"
	lines, raw, err := f.control(f.now, []byte(message))
	if err != nil || len(lines) != 2 || lines[0].T != "hello" || lines[1].T != "bye" {
		t.Fatalf("%v, %v", lines, err)
	}
	if string(raw[1]) != `{"seq":3,"t":"bye","reason":"r","big":38104121949150000}` {
		t.Errorf("passed on as %s", raw[1])
	}
}

func TestWhatTheGatewayDroppedIsTold(t *testing.T) {
	f := newField(t, 1, "a0", "a1")
	f.clock(0)
	f.bindTo("a0", 1, alice, 0)
	f.send("a0", 0, 1, alice)
	f.pass(200 * ms)
	f.say("loss", map[string]any{"track": "a0", "from": 960, "to": 3840, "frames": 3, "why": "queue"})
	f.say("loss", map[string]any{"track": "a1", "from": 960, "to": 3840, "frames": 3, "why": "queue"})
	f.say("gap", map[string]any{"from": 3840, "to": 4800, "frames": 1, "why": "source"})
	f.say("gap", map[string]any{"from": 0, "to": 1 << 30, "frames": 1, "why": "source"})
	if len(f.gaps) != 2 || f.gaps[0].To.Sub(f.gaps[0].From) != 60*ms || f.gaps[1].From.Sub(f.start).Abs() < 79*ms {
		t.Errorf("gaps %+v", f.gaps)
	}
	if !strings.Contains(f.gaps[0].Reason, "queue") || f.gaps[1].Kind != conversation.GapLost {
		t.Errorf("gaps %+v", f.gaps)
	}
}

func FuzzPackets(f *testing.F) {
	g := newField(f, 1, "a0", "v0")
	f.Add(g.packet("a0", 1, 960, 1, alice, speech), g.packet("v0", 1, 1, 1, 201, []byte{0x7c, 0x85, 1, 2}), []byte(`{"t":"bind","seq":1,"track":"a0","epoch":1,"source":"101","rtp":0}`))
	f.Add([]byte{0x90}, []byte{0x80, 111, 0, 0}, []byte(`{"t":"gap","seq":1,"from":0,"to":4294967295}`))
	f.Fuzz(func(t *testing.T, a, v, line []byte) {
		g := newField(t, 1, "a0", "v0")
		_, _, _ = g.control(g.now, line)
		for i := range 8 {
			for _, s := range g.slots {
				b := a
				if s.video {
					b = v
				}
				b = slices.Clone(b)
				g.rtp(g.now, s, b)
				if len(b) > 12 {
					b[3] += byte(i)
					b[len(b)-1] ^= byte(i)
					g.rtp(g.now, s, b)
				}
			}
			g.intake.rtcp(g.now, a)
			g.pass(500 * ms)
		}
		g.detach(g.now)
		for _, x := range g.frames {
			if len(x.Data) == 0 || len(x.Data) > maxUnit || x.Kind == conversation.AudioTrack && x.Duration <= 0 {
				t.Fatalf("frame of %d bytes lasting %d", len(x.Data), x.Duration)
			}
		}
	})
}
