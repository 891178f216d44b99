package servicebus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/Azure/go-amqp"
)

// Descriptor codes of the performatives, states and terminus types in use
// (AMQP 1.0 part 2 section 2.7, part 3 sections 3.4 and 3.5, part 5 section 5.3.3).
const (
	codeOpen        = 0x10
	codeBegin       = 0x11
	codeAttach      = 0x12
	codeFlow        = 0x13
	codeTransfer    = 0x14
	codeDisposition = 0x15
	codeDetach      = 0x16
	codeEnd         = 0x17
	codeClose       = 0x18
	codeError       = 0x1d
	codeAccepted    = 0x24
	codeRejected    = 0x25
	codeReleased    = 0x26
	codeModified    = 0x27
	codeSource      = 0x28
	codeTarget      = 0x29
	codeMechanisms  = 0x40
	codeInit        = 0x41
	codeOutcome     = 0x44
)

// A described is a described type with a numeric descriptor.
type described struct {
	code   uint64
	fields []any
}

// Bounds on what a peer can make the decoder build. The smallest element of a
// list takes one byte, of which a frame has at most maxFrame.
const maxDepth = 16

var errMalformed = errors.New("malformed AMQP value")

// A decoder reads AMQP values (part 1 section 1.6) and keeps their exact
// types. It never panics: malformed input is an error.
type decoder struct {
	b     []byte
	depth int
}

func (d *decoder) take(n uint64) ([]byte, error) {
	if n > uint64(len(d.b)) {
		return nil, fmt.Errorf("%w: %d bytes of %d", errMalformed, len(d.b), n)
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b, nil
}

func (d *decoder) uint(width uint64) (uint64, error) {
	b, err := d.take(width)
	var v uint64
	for _, x := range b {
		v = v<<8 | uint64(x)
	}
	return v, err
}

// sized reads a length or count of the width that the constructor's high
// nibble implies, then that many bytes.
func (d *decoder) sized(code byte) ([]byte, error) {
	n, err := d.uint(sizeWidth(code))
	if err != nil {
		return nil, err
	}
	return d.take(n)
}

func sizeWidth(code byte) uint64 {
	if code&0x10 == 0 { // 0xa_, 0xc_, 0xe_
		return 1
	}
	return 4 // 0xb_, 0xd_, 0xf_
}

// value reads one value with its constructor.
func (d *decoder) value() (any, error) {
	if d.depth++; d.depth > maxDepth {
		return nil, fmt.Errorf("%w: nested deeper than %d", errMalformed, maxDepth)
	}
	defer func() { d.depth-- }()
	b, err := d.take(1)
	if err != nil {
		return nil, err
	}
	if b[0] == 0 {
		return d.described()
	}
	return d.primitive(b[0])
}

func (d *decoder) described() (any, error) {
	descriptor, err := d.value()
	if err != nil {
		return nil, err
	}
	v, err := d.value()
	if err != nil {
		return nil, err
	}
	code, numeric := descriptor.(uint64)
	fields, list := v.([]any)
	if !numeric || !list {
		return v, nil // a filter or another extension: its bare value is all that is used
	}
	return described{code, fields}, nil
}

func (d *decoder) primitive(code byte) (any, error) {
	switch code {
	case 0x40:
		return nil, nil
	case 0x41, 0x42:
		return code == 0x41, nil
	case 0x43:
		return uint32(0), nil
	case 0x44:
		return uint64(0), nil
	case 0x45:
		return []any{}, nil
	case 0xa0, 0xb0:
		return d.sized(code)
	case 0xa1, 0xb1:
		b, err := d.sized(code)
		return string(b), err
	case 0xa3, 0xb3:
		b, err := d.sized(code)
		return amqp.Symbol(b), err
	case 0xc0, 0xd0:
		return d.list(code)
	case 0xc1, 0xd1:
		return d.mapping(code)
	case 0xe0, 0xf0:
		return d.array(code)
	}
	return d.fixed(code)
}

func (d *decoder) fixed(code byte) (any, error) {
	if code < 0x50 || code >= 0xa0 {
		return nil, fmt.Errorf("%w: constructor %#02x", errMalformed, code)
	}
	b, err := d.take(1 << (code>>4 - 5)) // 0x5_ 1 byte, 0x6_ 2, 0x7_ 4, 0x8_ 8, 0x9_ 16
	if err != nil {
		return nil, err
	}
	switch code {
	case 0x50:
		return b[0], nil
	case 0x51:
		return int8(b[0]), nil
	case 0x52:
		return uint32(b[0]), nil
	case 0x53:
		return uint64(b[0]), nil
	case 0x54:
		return int32(int8(b[0])), nil
	case 0x55:
		return int64(int8(b[0])), nil
	case 0x56:
		return b[0] != 0, nil
	case 0x60:
		return binary.BigEndian.Uint16(b), nil
	case 0x61:
		return int16(binary.BigEndian.Uint16(b)), nil
	case 0x70:
		return binary.BigEndian.Uint32(b), nil
	case 0x71:
		return int32(binary.BigEndian.Uint32(b)), nil
	case 0x72:
		return math.Float32frombits(binary.BigEndian.Uint32(b)), nil
	case 0x80:
		return binary.BigEndian.Uint64(b), nil
	case 0x81:
		return int64(binary.BigEndian.Uint64(b)), nil
	case 0x82:
		return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
	case 0x83:
		return time.UnixMilli(int64(binary.BigEndian.Uint64(b))).UTC(), nil
	case 0x98:
		return amqp.UUID(b), nil
	}
	return nil, fmt.Errorf("%w: constructor %#02x", errMalformed, code)
}

// list reads a list, or the flat elements of a map.
func (d *decoder) list(code byte) ([]any, error) {
	body, err := d.sized(code)
	if err != nil {
		return nil, err
	}
	in := &decoder{b: body, depth: d.depth}
	count, err := in.uint(sizeWidth(code))
	if err != nil {
		return nil, err
	}
	if count > uint64(len(in.b)) {
		return nil, fmt.Errorf("%w: %d elements in %d bytes", errMalformed, count, len(in.b))
	}
	l := make([]any, 0, count)
	for range count {
		v, err := in.value()
		if err != nil {
			return nil, err
		}
		l = append(l, v)
	}
	if len(in.b) != 0 {
		return nil, fmt.Errorf("%w: %d bytes after the last element", errMalformed, len(in.b))
	}
	return l, nil
}

// mapping reads a map whose keys are strings or symbols, which is every map
// that a performative carries.
func (d *decoder) mapping(code byte) (map[string]any, error) {
	l, err := d.list(code)
	if err != nil {
		return nil, err
	}
	if len(l)%2 != 0 {
		return nil, fmt.Errorf("%w: map with an odd element", errMalformed)
	}
	m := make(map[string]any, len(l)/2)
	for i := 0; i < len(l); i += 2 {
		switch k := l[i].(type) {
		case string:
			m[k] = l[i+1]
		case amqp.Symbol:
			m[string(k)] = l[i+1]
		default:
			return nil, fmt.Errorf("%w: map key of type %T", errMalformed, k)
		}
	}
	return m, nil
}

// array reads an array, whose elements share one constructor.
func (d *decoder) array(code byte) ([]any, error) {
	body, err := d.sized(code)
	if err != nil {
		return nil, err
	}
	in := &decoder{b: body, depth: d.depth}
	count, err := in.uint(sizeWidth(code))
	if err != nil {
		return nil, err
	}
	constructor, err := in.take(1)
	if err != nil {
		return nil, err
	}
	if count > uint64(len(in.b)) {
		return nil, fmt.Errorf("%w: %d elements in %d bytes", errMalformed, count, len(in.b))
	}
	if in.depth++; in.depth > maxDepth {
		return nil, fmt.Errorf("%w: nested deeper than %d", errMalformed, maxDepth)
	}
	l := make([]any, 0, count)
	for range count {
		v, err := in.primitive(constructor[0])
		if err != nil {
			return nil, err
		}
		l = append(l, v)
	}
	return l, nil
}

// appendValue appends the encoding of the types that performatives use.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, 0x40)
	case bool:
		if v {
			return append(b, 0x41)
		}
		return append(b, 0x42)
	case uint8:
		return append(b, 0x50, v)
	case uint16:
		return binary.BigEndian.AppendUint16(append(b, 0x60), v)
	case uint32:
		return binary.BigEndian.AppendUint32(append(b, 0x70), v)
	case uint64:
		return binary.BigEndian.AppendUint64(append(b, 0x80), v)
	case string:
		return append(binary.BigEndian.AppendUint32(append(b, 0xb1), uint32(len(v))), v...)
	case amqp.Symbol:
		return append(binary.BigEndian.AppendUint32(append(b, 0xb3), uint32(len(v))), v...)
	case []byte:
		return append(binary.BigEndian.AppendUint32(append(b, 0xb0), uint32(len(v))), v...)
	case described:
		return appendValue(append(b, 0x00, 0x53, byte(v.code)), v.fields)
	case []any:
		b = append(b, 0xd0, 0, 0, 0, 0)
		start := len(b)
		b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
		for _, e := range v {
			b = appendValue(b, e)
		}
		binary.BigEndian.PutUint32(b[start-4:], uint32(len(b)-start))
		return b
	}
	panic(fmt.Sprintf("no AMQP encoding for %T", v)) // unreachable: callers are in this package
}

// field returns field i of a performative if it is present and of type T.
// Trailing and absent fields are the zero value (part 1 section 1.4).
func field[T any](fields []any, i int) (v T, ok bool) {
	if i < len(fields) {
		v, ok = fields[i].(T)
	}
	return v, ok
}

// unmarshal decodes a message. A panic of the codec on malformed bytes becomes
// an error.
func unmarshal(b []byte) (m *amqp.Message, err error) {
	defer func() {
		if r := recover(); r != nil {
			m, err = nil, fmt.Errorf("%w: message: %v", errMalformed, r)
		}
	}()
	m = new(amqp.Message)
	if err := m.UnmarshalBinary(b); err != nil {
		return nil, fmt.Errorf("%w: message: %w", errMalformed, err)
	}
	return m, nil
}
