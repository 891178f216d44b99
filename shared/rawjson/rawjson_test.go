package rawjson_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"steno/shared/rawjson"
)

// FuzzAgainstEncodingJSON holds the walk against the standard library: what is valid
// JSON is taken apart the same way, byte for byte, and nothing makes it panic.
func FuzzAgainstEncodingJSON(f *testing.F) {
	for _, s := range []string{
		`{}`, `[]`, ` { "a" : 1 , "b\u0041":[1,{"c":"\"}"}] } `, `[null,true,"x\\"]`, `{"a":"é","a":2}`, `{"a"}`, `[1,]`, `{"a":{]}`, `"\`, `[[[[`,
		`{"@odata.nextLink":"https://x/?a=b&c"}`, "{\"a\":\"\xff\"}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var members, elements [][]byte
		var names []string
		mErr := rawjson.Members(b, func(n string, v []byte) error { names, members = append(names, n), append(members, v); return nil })
		eErr := rawjson.Elements(b, func(v []byte) error { elements = append(elements, v); return nil })
		if !json.Valid(b) || bytes.Count(b, []byte("[")) > 500 || bytes.Count(b, []byte("{")) > 500 {
			return
		}
		switch bytes.TrimSpace(b)[0] {
		case '[':
			var want []json.RawMessage
			if err := json.Unmarshal(b, &want); err != nil {
				t.Fatal(err)
			}
			if eErr != nil || len(elements) != len(want) || mErr == nil {
				t.Fatalf("%q: %d elements (%v), want %d", b, len(elements), eErr, len(want))
			}
			for i := range want {
				if !bytes.Equal(elements[i], want[i]) {
					t.Fatalf("element %d is %q, want %q", i, elements[i], want[i])
				}
			}
		case '{':
			var want map[string]json.RawMessage
			if err := json.Unmarshal(b, &want); err != nil {
				t.Fatal(err)
			}
			got := map[string][]byte{}
			for i, n := range names {
				got[n] = members[i]
			}
			if mErr != nil || len(got) != len(want) || eErr == nil {
				t.Fatalf("%q: members %q (%v), want %d", b, names, mErr, len(want))
			}
			for n, v := range want {
				if !bytes.Equal(got[n], v) {
					t.Fatalf("member %q is %q, want %q", n, got[n], v)
				}
			}
		default:
			if mErr == nil || eErr == nil {
				t.Fatalf("%q passed as an object or array", b)
			}
		}
	})
}

func TestBrokenStructureIsRefused(t *testing.T) {
	for _, s := range []string{
		``, ` `, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{"a" 1}`, `{a:1}`, `{"a":[}]}`, `{"a":"x}`, `{} {}`, `{}x`, `{"a":1 "b":2}`,
		`{"a":` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + `}`, `{"\ud800x":1,"a":}`,
	} {
		if err := rawjson.Members([]byte(s), func(string, []byte) error { return nil }); err == nil {
			t.Errorf("%.40q passed as an object", s)
		}
	}
	for _, s := range []string{`[`, `[1`, `[1,`, `[1,]`, `[1 2]`, `[] []`, `[}`, `[,]`} {
		if err := rawjson.Elements([]byte(s), func([]byte) error { return nil }); err == nil {
			t.Errorf("%q passed as an array", s)
		}
	}
}

func TestRepeatedNamesAreSeenRepeatedly(t *testing.T) {
	var seen []string
	err := rawjson.Members([]byte(`{"a":1,"\u0061":2}`), func(n string, v []byte) error { seen = append(seen, n+"="+string(v)); return nil })
	if err != nil || strings.Join(seen, " ") != "a=1 a=2" {
		t.Errorf("members are %v, %v", seen, err)
	}
}
