package ingest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"steno/shared/conversation"
)

// fragments packs a NAL unit as RFC 6184 section 5.8 does.
func fragments(nal []byte, size int) (out [][]byte) {
	head, kind := nal[0]&0xe0|nalFUA, nal[0]&0x1f
	for rest, first := nal[1:], true; len(rest) > 0; first = false {
		n := min(size, len(rest))
		flags := kind
		if first {
			flags |= 0x80
		}
		if n == len(rest) {
			flags |= 0x40
		}
		out = append(out, append([]byte{head, flags}, rest[:n]...))
		rest = rest[n:]
	}
	return out
}

func avcc(nals ...[]byte) (out []byte) {
	for _, n := range nals {
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(n))), n...)
	}
	return out
}

func noise(kind byte, size int) []byte {
	rng := rand.New(rand.NewPCG(uint64(kind), uint64(size)))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	b[0] = kind
	return b
}

func TestAccessUnitsArePutTogetherByteForByte(t *testing.T) {
	sps, pps := []byte{0x67, 1, 2, 3}, []byte{0x68, 4}
	idr, slice, odd := noise(0x65, 30000), noise(0x41, 900), noise(0x01, 700)
	var u accessUnit
	u.reset()
	stap := append([]byte{nalSTAPA, 0, 4}, sps...)
	stap = append(append(stap, 0, 2), pps...)
	for _, p := range append(append([][]byte{stap}, fragments(idr, 1100)...), slice, odd) {
		if err := u.add(p); err != nil {
			t.Fatal(err)
		}
	}
	if want := avcc(idr, slice, odd); !bytes.Equal(u.data, want) || !u.key || !bytes.Equal(u.sps, sps) || !bytes.Equal(u.pps, pps) {
		t.Errorf("%d bytes, want %d; key %t", len(u.data), len(want), u.key)
	}
}

func TestNALUnitsAndPicturesAreBounded(t *testing.T) {
	var u accessUnit
	u.reset()
	var err error
	n := 0
	for _, p := range fragments(noise(0x65, 5<<20), 1200) {
		if err = u.add(p); err != nil {
			break
		}
		n += len(p)
	}
	if !errors.Is(err, errNAL) || n > MaxNAL+1500 || cap(u.data) > 2*MaxNAL {
		t.Errorf("%v after %d bytes", err, n)
	}
	u.reset()
	for err = nil; err == nil; {
		for _, p := range fragments(noise(0x41, MaxNAL-100), 1200) {
			if err = u.add(p); err != nil {
				break
			}
		}
	}
	if !errors.Is(err, errUnit) {
		t.Error(err)
	}
	for _, bad := range [][]byte{nil, {0}, {nalFUA, 0x45}, {nalFUA, 0x05, 1}, {nalSTAPA, 0, 9, 1}, {nalSTAPA, 0, 0}, {31, 1, 1}} {
		u.reset()
		if err := u.add(bad); err == nil {
			t.Errorf("% x is taken", bad)
		}
	}
}

// film sends pictures of three packets on v0.
func (f *field) film(number uint16, at uint32, nal []byte, lose int) uint16 {
	parts := fragments(nal, len(nal)/3+1)
	for i, p := range parts {
		b := f.packet("v0", number, at, 1, 201, p)
		if i == len(parts)-1 {
			b[1] |= 0x80
		}
		if i != lose {
			f.rtp(f.now, f.named("v0"), b)
		}
		number++
	}
	return number
}

func TestAPictureWithAHoleIsDroppedAndAKeyFrameAskedFor(t *testing.T) {
	f := newField(t, 1, "v0")
	f.bindTo("v0", 1, 201, 0)
	n := f.film(0, 0, noise(0x65, 3000), -1)
	f.pass(40 * ms)
	asked := len(f.keys)
	n = f.film(n, 3600, noise(0x41, 900), 1)
	f.pass(40 * ms)
	n = f.film(n, 7200, noise(0x41, 900), -1)
	f.pass(DefaultWindow + 100*ms)
	if len(f.frames) != 2 || f.frames[0].Kind != conversation.VideoTrack || !f.frames[0].Key || !bytes.Equal(f.frames[1].Data, avcc(noise(0x41, 900))) {
		t.Fatalf("%d pictures", len(f.frames))
	}
	if d := f.frames[1].Wall.Sub(f.frames[0].Wall); d != 80*ms {
		t.Errorf("pictures %s apart, want 80 ms", d)
	}
	if len(f.gaps) != 1 || f.gaps[0].Kind != conversation.GapLost {
		t.Errorf("gaps %+v", f.gaps)
	}
	f.pass(3 * keyFrameAgain)
	if got := len(f.keys) - asked; got < 2 || got > 5 {
		t.Errorf("%d key frames asked for in four seconds, want one a second", got)
	}
	f.film(n, 300000, noise(0x65, 900), -1)
	asked = len(f.keys)
	f.pass(2 * keyFrameAgain)
	if len(f.keys) != asked {
		t.Error("a key frame is asked for after one came")
	}
}

func FuzzAccessUnit(f *testing.F) {
	f.Add([]byte{0x65, 1, 2}, []byte{nalFUA, 0x85, 1}, []byte{nalFUA, 0x45, 2})
	f.Add([]byte{nalSTAPA, 0, 2, 0x67, 1}, []byte{nalSTAPA, 0, 1, 0x68}, []byte{0x41})
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		var u accessUnit
		u.reset()
		for _, p := range [][]byte{a, b, c, b, c} {
			if u.add(p) != nil {
				return
			}
		}
		if u.fragment >= 0 {
			return
		}
		for d := u.data; len(d) > 0; {
			if len(d) < 4 || int(binary.BigEndian.Uint32(d)) > len(d)-4 || binary.BigEndian.Uint32(d) == 0 {
				t.Fatalf("lengths do not add up: % x", u.data)
			}
			d = d[4+binary.BigEndian.Uint32(d):]
		}
	})
}
