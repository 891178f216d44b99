package servicebus

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	frameHeader = 8
	minMaxFrame = 512      // MIN-MAX-FRAME-SIZE, AMQP 1.0 part 2 section 2.8.2
	maxFrame    = 64 << 10 // what the namespace announces, bytes

	frameAMQP = 0
	frameSASL = 1
)

// A frame is one decoded frame. An empty frame, a heartbeat, has code 0.
type frame struct {
	kind    byte
	channel uint16
	code    uint64
	fields  []any
	payload []byte
}

// readFrame reads one frame from r (AMQP 1.0 part 2 section 2.3).
func readFrame(r io.Reader) (frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < frameHeader || size > maxFrame {
		return frame{}, fmt.Errorf("%w: frame of %d bytes", errMalformed, size)
	}
	b := make([]byte, size-4)
	if _, err := io.ReadFull(r, b); err != nil {
		return frame{}, err
	}
	return parseFrame(b)
}

// parseFrame decodes a frame without its size field. The payload aliases b.
func parseFrame(b []byte) (frame, error) {
	if len(b) < frameHeader-4 {
		return frame{}, fmt.Errorf("%w: frame header of %d bytes", errMalformed, len(b))
	}
	f := frame{kind: b[1], channel: binary.BigEndian.Uint16(b[2:])}
	offset := int(b[0])*4 - 4
	if offset < frameHeader-4 || offset > len(b) {
		return frame{}, fmt.Errorf("%w: data offset %d", errMalformed, b[0])
	}
	if f.kind != frameAMQP && f.kind != frameSASL {
		return frame{}, fmt.Errorf("%w: frame type %d", errMalformed, f.kind)
	}
	if offset == len(b) {
		return f, nil
	}
	d := &decoder{b: b[offset:]}
	v, err := d.value()
	if err != nil {
		return frame{}, err
	}
	body, ok := v.(described)
	if !ok {
		return frame{}, fmt.Errorf("%w: frame body of type %T", errMalformed, v)
	}
	f.code, f.fields, f.payload = body.code, body.fields, d.b
	return f, nil
}

// appendFrame appends the encoding of f; an f without code is a heartbeat.
func appendFrame(b []byte, f frame) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, 2, f.kind, byte(f.channel>>8), byte(f.channel))
	if f.code != 0 {
		b = appendValue(b, described{f.code, f.fields})
		b = append(b, f.payload...)
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}
