package msgraph

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// splitPage takes a page apart without touching its elements: the exact bytes of
// each element of "value", and "@odata.nextLink". The whole page must be valid JSON
// and each of the two names may stand once.
func splitPage(b []byte) (items [][]byte, next string, err error) {
	if !json.Valid(b) {
		return nil, "", fmt.Errorf("%w: %d bytes are not valid JSON", ErrPage, len(b))
	}
	// From here on b is known to be valid, so the scanner below checks shapes only.
	s := scanner{b: b}
	if s.space() != '{' {
		return nil, "", fmt.Errorf("%w: not an object", ErrPage)
	}
	var seenValue, seenNext bool
	for s.i++; s.space() != '}'; {
		name, err := s.name()
		if err != nil {
			return nil, "", err
		}
		s.space()
		s.i++ // the colon
		first := s.space()
		switch name {
		case "value":
			if seenValue || first != '[' {
				return nil, "", fmt.Errorf("%w: value is repeated or no array", ErrPage)
			}
			seenValue = true
			if items, err = s.elements(); err != nil {
				return nil, "", err
			}
		case "@odata.nextLink":
			if seenNext {
				return nil, "", fmt.Errorf("%w: nextLink is repeated", ErrPage)
			}
			seenNext = true
			var link *string
			if err := json.Unmarshal(s.skip(), &link); err != nil {
				return nil, "", fmt.Errorf("%w: nextLink is no string", ErrPage)
			}
			if link != nil {
				next = *link
			}
		default:
			s.skip()
		}
		if s.space() == ',' {
			s.i++
		}
	}
	if !seenValue {
		return nil, "", fmt.Errorf("%w: no value", ErrPage)
	}
	return items, next, nil
}

// scanner walks over JSON that is known to be valid.
type scanner struct {
	b []byte
	i int
}

// space passes white space and returns the byte it stops at.
func (s *scanner) space() byte {
	for {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return c
		}
	}
}

// elements returns the elements of the array it stands at.
func (s *scanner) elements() ([][]byte, error) {
	var items [][]byte
	for s.i++; s.space() != ']'; {
		if len(items) == MaxPageItems {
			return nil, fmt.Errorf("%w: more than %d items", ErrPage, MaxPageItems)
		}
		items = append(items, s.skip())
		if s.space() == ',' {
			s.i++
		}
	}
	s.i++
	return items, nil
}

// name passes a member's name and returns it, unescaped: a nextLink under an escaped
// name is a nextLink still, and missing it would cut the listing short.
func (s *scanner) name() (string, error) {
	raw := s.skip()
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	var name string
	if err := json.Unmarshal(raw, &name); err != nil {
		return "", fmt.Errorf("%w: unreadable name", ErrPage)
	}
	return name, nil
}

// skip passes one value and returns its bytes.
func (s *scanner) skip() []byte {
	start := s.i
	switch s.b[s.i] {
	case '"':
		s.text()
	case '{', '[':
		depth := 0
		for {
			switch s.b[s.i] {
			case '"':
				s.text()
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			s.i++
			if depth == 0 {
				return s.b[start:s.i:s.i]
			}
		}
	default: // number, true, false, null
		for s.i < len(s.b) {
			switch s.b[s.i] {
			case ',', '}', ']', ' ', '\t', '\r', '\n':
				return s.b[start:s.i:s.i]
			}
			s.i++
		}
	}
	return s.b[start:s.i:s.i]
}

// text passes a string, quotes included.
func (s *scanner) text() {
	for s.i++; ; s.i++ {
		switch s.b[s.i] {
		case '\\':
			s.i++
		case '"':
			s.i++
			return
		}
	}
}
