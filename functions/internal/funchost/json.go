package funchost

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// checkJSON returns nil if b is JSON within the limits. It bounds nesting before anything recurses into the bytes.
func checkJSON(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("not UTF-8")
	}
	depth, tokens := 0, 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			depth++
			tokens++
		case '}', ']':
			depth--
		case ',', ':':
			tokens++
		case '"':
			i = stringEnd(b, i) - 1
		}
		if depth > MaxDepth {
			return fmt.Errorf("nested deeper than %d", MaxDepth)
		}
		if tokens > MaxTokens {
			return fmt.Errorf("more than %d values", MaxTokens)
		}
	}
	if !json.Valid(b) {
		return errors.New("not JSON")
	}
	return nil
}

// members splits a valid JSON object. It matches no names loosely and refuses one that occurs twice, both of which encoding/json lets
// pass, and it looks at each byte once where encoding/json looks three times: the message body stands in there.
func members(b []byte) (map[string]json.RawMessage, error) {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return nil, errors.New("not an object")
	}
	m := make(map[string]json.RawMessage)
	for i = skipSpace(b, i+1); b[i] != '}'; i = skipSpace(b, i) {
		if b[i] == ',' {
			i = skipSpace(b, i+1)
		}
		end := stringEnd(b, i)
		name, err := unquote(b[i:end])
		if err != nil {
			return nil, err
		}
		i = skipSpace(b, skipSpace(b, end)+1) // over the colon
		end = valueEnd(b, i)
		if _, twice := m[string(name)]; twice {
			return nil, fmt.Errorf("%.40q occurs twice", name)
		}
		m[string(name)] = b[i:end]
		i = end
	}
	return m, nil
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// stringEnd returns the index behind the string that begins at i, or that of the end if it is open.
func stringEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// valueEnd returns the index behind the value that begins at i in valid JSON.
func valueEnd(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = stringEnd(b, i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			if depth == 0 {
				return i // behind a number or a word
			}
			depth--
			i++
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
			i++
			continue
		default:
			i++
			continue
		}
		if depth == 0 {
			return i
		}
	}
	return i
}

// unquote returns the text of a JSON string. Runs without escapes, which is nearly all of a body, are copied whole; a string with a
// \u escape goes to encoding/json, which knows surrogates.
func unquote(b []byte) ([]byte, error) {
	if len(b) < 2 || b[0] != '"' || stringEnd(b, 0) != len(b) || b[len(b)-1] != '"' {
		return nil, errors.New("not a string")
	}
	s := b[1 : len(b)-1]
	out := make([]byte, 0, len(s))
	from := 0
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' {
			return nil, errors.New("control character in a string")
		}
		if s[i] != '\\' {
			continue
		}
		out = append(out, s[from:i]...)
		i++
		c, ok := escaped(s[i])
		if !ok {
			return unquoteSlow(b)
		}
		out = append(out, c)
		from = i + 1
	}
	return append(out, s[from:]...), nil
}

func escaped(c byte) (byte, bool) {
	switch c {
	case '"', '\\', '/':
		return c, true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	}
	return 0, false
}

func unquoteSlow(b []byte) ([]byte, error) {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, errors.New("not a string")
	}
	return []byte(s), nil
}
