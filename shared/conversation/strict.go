package conversation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// decodeStrict reads one flat JSON object with the names given and nothing else:
// unknown, repeated and differently cased names are faults, because encoding/json would
// take the last of several and match names in any case, and two readers of one message
// must agree.
func decodeStrict(b []byte, into any, names ...string) error {
	if err := checkNames(b, names); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

func checkNames(b []byte, names []string) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	t, err := dec.Token()
	if err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if t != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	seen := map[string]bool{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		s, _ := name.(string)
		switch {
		case !slices.Contains(names, s):
			return fmt.Errorf("unknown name %.40q", s)
		case seen[s]:
			return fmt.Errorf("name %q is repeated", s)
		}
		seen[s] = true
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
	}
	return nil
}
