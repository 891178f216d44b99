package main

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pion/rtcp"
)

// nal makes a NAL unit with a header and a body without zeros, so that it cannot look like a start code.
func (t *trial) nal(header byte, size int) []byte {
	out := []byte{header}
	for range size {
		out = append(out, byte(1+t.rand.IntN(255)))
	}
	return out
}

// annexB joins NAL units; start codes have three bytes where short is set.
func annexB(short bool, nals ...[]byte) []byte {
	var out []byte
	for _, n := range nals {
		if !short {
			out = append(out, 0)
		}
		out = append(append(out, 0, 0, 1), n...)
	}
	return out
}

// keyPicture is an access unit at which a decoder could start. Its parameter sets depend on the width.
func keyPicture(width int) []byte {
	sps := []byte{0x67, 0x42, 0xe0, 0x1f, byte(width/16 + 1), 0x95}
	return annexB(false, sps, []byte{0x68, 0xce, 0x3c, 0x80}, append([]byte{0x65}, bytes.Repeat([]byte{0xb4}, 40)...))
}

func picture(n int64, width int, au []byte) frame {
	return frame{Socket: "v0", TS: at(n), Source: 900, W: width, H: width * 9 / 16, OW: 1280, OH: 720, AnnexB: au}
}

// cameras makes a call whose first video socket shows source 900.
func (t *trial) cameras() *call {
	c := t.record(map[string]any{"video": map[string]int{"sockets": 1}})
	c.subscribe("v0", 900)
	c.play(voices(0))
	return c
}

// depacketize turns RTP payloads back into NAL units, RFC 6184 sections 5.6 and 5.8.
func (t *trial) depacketize(ps []packet) [][]byte {
	var out [][]byte
	for _, p := range ps {
		switch kind := p.payload[0] & 0x1f; {
		case kind == 28 && len(p.payload) > 2:
			if p.payload[1]&0x80 != 0 {
				out = append(out, []byte{p.payload[0]&0xe0 | p.payload[1]&0x1f})
			}
			if len(out) == 0 {
				t.fatalf("a fragment without a beginning")
			}
			out[len(out)-1] = append(out[len(out)-1], p.payload[2:]...)
		case kind > 23:
			t.fatalf("packetization type %d", kind)
		default:
			out = append(out, p.payload)
		}
		if len(p.payload) > 1200 {
			t.errorf("a payload of %d bytes", len(p.payload))
		}
	}
	return out
}

func checkH264(t *trial) {
	c := t.cameras()
	units := [][][]byte{
		{{0x67, 0x42, 0xe0, 0x1f, 9}, {0x68, 0xce, 0x3c}, t.nal(0x65, 3000)},
		{t.nal(0x41, 700)},
		{t.nal(0x01, 300), t.nal(0x01, 5), t.nal(0x01, 2500)},
		{t.nal(0x21, 1199), t.nal(0x41, 1200)},
	}
	packets := []int{5, 1, 5, 3} // single units up to 1200 bytes, fragments of at most 1198
	for i, nals := range units {
		n := int64(i) * 3
		c.show(false, picture(n, 640, annexB(i%2 == 1, nals...)))
		ps := c.take(packets[i])
		if got, want := bytes.Join(t.depacketize(ps), []byte("|")), bytes.Join(nals, []byte("|")); !bytes.Equal(got, want) {
			t.errorf("access unit %d of %d bytes arrived as %d other bytes", i, len(want), len(got))
		}
		for k, p := range ps {
			if p.rtp != c.VideoBase+uint32(n*1800) || p.marker != (k == len(ps)-1) || p.stamped && p.source != 900 {
				t.errorf("access unit %d, packet %d: RTP time %d after the base, marker %t, source %d", i, k, p.rtp-c.VideoBase, p.marker, p.source)
			}
		}
	}
	t.demand(http.StatusNoContent, http.MethodDelete, "/v1/calls/"+c.id+"/subscriptions/v0", nil, nil)
	c.show(false, picture(15, 640, keyPicture(640)))
	c.quiet("without a subscription")
}

func checkSize(t *trial) {
	c := t.cameras()
	delta := func() []byte { return annexB(false, t.nal(0x41, 50)) }
	c.show(false, picture(1, 640, delta()))
	c.quiet("before the first key frame")
	c.show(false, picture(2, 640, keyPicture(640)), picture(3, 640, delta()))
	if n := len(c.take(4)); n != 4 {
		t.errorf("%d packets of two access units", n)
	}
	c.show(false, picture(4, 320, delta()), picture(5, 320, delta()))
	c.quiet("of a new size before its key frame")
	c.show(false, picture(6, 320, keyPicture(320)))
	c.take(3)
	for n, width := range map[int64]int{2: 640, 6: 320} {
		c.awaitThat("video", "of width "+strconv.Itoa(width), func(l line) bool {
			return l.Track == "v0" && l.W == width && l.H == width*9/16 && l.Source == "900" && l.rtp() == c.VideoBase+uint32(n*1800)
		})
	}
}

func checkKeyFrames(t *trial) {
	c := t.cameras()
	asked := func() int64 { i, _ := t.info(c.id); return i.Counters.KeyFrames }
	c.say(`{"t":"ping","seq":2}`)
	t.advance(1100 * time.Millisecond)
	before := asked()
	if before == 0 {
		t.errorf("subscribing asked for no key frame")
	}
	c.say(strings.Repeat(`{"t":"keyframe","track":"v0"}`+"\n", 20))
	t.until("a request for a key frame", func() bool { return asked() > before })
	time.Sleep(settle)
	if n := asked() - before; n != 1 {
		t.errorf("%d requests at once for 20 lines", n)
	}
	t.advance(1100 * time.Millisecond)
	before = asked()
	c.mu.Lock()
	ssrc := uint32(0)
	for _, tr := range c.bySSRC {
		if tr.Track == "v0" {
			ssrc = tr.SSRC
		}
	}
	c.mu.Unlock()
	if err := c.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{SenderSSRC: ssrc, MediaSSRC: ssrc}}); err != nil {
		t.fatalf("send PLI: %v", err)
	}
	if !t.within(time.Second, func() bool { return asked() > before }) {
		t.logf("a PLI asks for no key frame here: ask by lines")
	}
}

func checkPressure(t *trial) {
	c := t.cameras()
	c.show(false, picture(0, 640, keyPicture(640)))
	c.take(3)
	t.cleanup(func() { t.control(map[string]any{"stallSending": false}) })

	t.control(map[string]any{"stallSending": true})
	for n := int64(1); n <= 35; n++ {
		c.burst(voices(n, 101))
		c.show(true, picture(n, 640, annexB(false, t.nal(0x41, 50))), picture(n, 640, annexB(false, t.nal(0x41, 50))))
	}
	t.control(map[string]any{"stallSending": false})
	t.until("35 frames of audio", func() bool { i, _ := t.info(c.id); return i.Counters.Frames["a0"] == 35 })
	c.show(false, picture(36, 640, keyPicture(640)))
	audio, video := c.split(35 + 3)
	if len(audio) != 35 {
		t.errorf("%d of 35 frames of audio came through", len(audio))
	}
	shown := len(video) - 3
	t.until("a loss line of video", func() bool { return c.lost("v0") > 0 })
	if told := c.lost("v0"); shown+told != 70 {
		t.errorf("%d of 70 frames of video came, %d were told as lost", shown, told)
	}

	t.control(map[string]any{"stallSending": true})
	var ticks []tick
	for n := int64(40); n < 120; n++ {
		ticks = append(ticks, voices(n, 101))
	}
	c.burst(ticks...)
	t.control(map[string]any{"stallSending": false})
	t.until("a loss line of audio", func() bool { return c.lost("a0") > 0 })
	audio, _ = c.split(80 - c.lost("a0"))
	missing := map[uint32]bool{}
	for n := uint32(40); n < 120; n++ {
		missing[c.AudioBase+n*step] = true
	}
	for _, p := range audio {
		delete(missing, p.rtp)
	}
	for _, l := range c.of("loss") {
		for at := l.From; l.Track == "a0" && at != l.To; at += step {
			if !missing[at] {
				t.fatalf("a frame told as lost at tick %d came", (at-c.AudioBase)/step)
			}
			delete(missing, at)
		}
	}
	if len(missing) > 0 || len(audio) < 50 {
		t.errorf("%d frames came, %d are missing without a line", len(audio), len(missing))
	}
}

// lost is how many frames of a track were told as lost.
func (c *call) lost(track string) int {
	n := 0
	for _, l := range c.of("loss") {
		if l.Track == track {
			n += l.frames()
		}
	}
	return n
}

// split takes what has come, at least n packets, as slots and video.
func (c *call) split(n int) (audio, video []packet) {
	for _, p := range c.take(n) {
		if p.track == "v0" {
			video = append(video, p)
		} else {
			audio = append(audio, p)
		}
	}
	return audio, video
}
