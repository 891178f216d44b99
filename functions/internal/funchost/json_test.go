package funchost

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"unicode/utf8"
)

// FuzzJSON holds the splitter and the unquoter against encoding/json.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{"a":1,"b":[1,{"c":"}\""}],"d":"\u00e9\ud83d\ude00\n"}`, ` { "a" : null , "b" : true } `, `{}`, `"\\"`, `"\ud800"`, `"a\/b"`, `[1]`, `{"a":1e5}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkJSON(b) != nil {
			return
		}
		var want map[string]json.RawMessage
		wantErr := json.Unmarshal(b, &want)
		got, err := members(b)
		switch {
		case wantErr != nil && err == nil:
			t.Errorf("%q is no object but has members %q", b, got)
		case wantErr == nil && want != nil && err == nil:
			if !maps.EqualFunc(got, want, func(a, b json.RawMessage) bool { return slices.Equal(a, b) }) {
				t.Errorf("%q has members %q, want %q", b, got, want)
			}
		}
		var text string
		if json.Unmarshal(b, &text) == nil && b[skipSpace(b, 0)] == '"' && utf8.Valid(b) {
			got, err := unquote(b[skipSpace(b, 0):stringEnd(b, skipSpace(b, 0))])
			if err != nil || string(got) != text {
				t.Errorf("%q unquotes to %q, %v, want %q", b, got, err, text)
			}
		}
	})
}

func TestNameThatOccursTwiceIsRefused(t *testing.T) {
	if m, err := members([]byte(`{"a":1,"\u0061":2}`)); err == nil {
		t.Errorf("members %v", m)
	}
}
