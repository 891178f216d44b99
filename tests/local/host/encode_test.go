package host

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
	"time"
)

func TestValuesAreEncodedAsTheRealSerializerDoes(t *testing.T) {
	b, err := os.ReadFile("testdata/encoding.golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct{ Data map[string]json.RawMessage }
	if err := json.Unmarshal(b, &golden); err != nil {
		t.Fatal(err)
	}
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	schedule := field{"Schedule", []field{{"AdjustForDST", true}}}
	values := map[string]any{
		"string_plain": "hello", "string_json": `{"a":1,"s":"x"}`, "string_many": []string{"m1", `{"a":1}`},
		"bytes_default": []byte{1, 2, 3, 255}, "bytes_dataType_binary": []byte{1, 2, 3, 255}, "bytes_many": [][]byte{{1, 2}, {3}},
		"int": 5, "long": int64(7), "bool": true,
		"dt_utc": dateTime(at("2026-11-21T03:18:20.9Z")), "dt_array": []dateTime{dateTime(at("2026-11-21T03:18:20.946285Z"))},
		"dto": dateTimeOffset(at("2026-11-21T03:18:20.9+00:00")), "dict": map[string]any{"k": "v", "n": 1},
		"guid": guid("18331e44-8fb1-4cf9-8a7c-5c28d4ef90b0"),
		"timer_first": []field{schedule, {"ScheduleStatus", []field{
			{"Last", dateTime{}}, {"Next", dateTimeOffset(at("2026-11-21T03:18:20.987864+00:00"))}, {"LastUpdated", dateTime(at("2026-11-21T03:18:20.991009Z"))},
		}}, {"IsPastDue", false}},
		"timer_nomonitor": []field{schedule, {"ScheduleStatus", nil}, {"IsPastDue", false}},
	}
	for name, want := range golden.Data {
		var compact bytes.Buffer
		if err := json.Compact(&compact, want); err != nil {
			t.Fatal(err)
		}
		v, ok := values[name]
		if !ok {
			t.Errorf("%s: no value", name)
			continue
		}
		got, err := encodeValue(v)
		if err != nil || string(got) != compact.String() {
			t.Errorf("%s: %s, %v, want %s", name, got, err, compact.String())
		}
	}
}

func TestFieldsOfAMessageSpillIntoMetadata(t *testing.T) {
	body := `{"MessageId":"forged","DeliveryCount":99,"list":[1],"Xtrigger":"a","nothing":null,"on":true,"deep":{"n":1}}`
	metadata := []field{{"MessageId", "real"}, {"DeliveryCount", 1}, {"LockToken", "t"}, {"QueueTrigger", "q"}, {"CorrelationId", nil}}
	for name, tt := range map[string]struct {
		value any
		want  string
	}{
		"string": {body, `{"LockToken":"\"t\"","DeliveryCount":"\"99\"","MessageId":"\"forged\"","deep":{"n":1},"on":"\"true\""}`},
		"binary": {[]byte(body), `{"MessageId":"\"real\"","DeliveryCount":"1","LockToken":"\"t\""}`},
		"text":   {"[1]", `{"MessageId":"\"real\"","DeliveryCount":"1","LockToken":"\"t\""}`},
	} {
		b, err := encodeEnvelope("item", tt.value, metadata)
		if err != nil {
			t.Fatal(err)
		}
		var env struct{ Metadata json.RawMessage }
		if err := json.Unmarshal(b, &env); err != nil {
			t.Fatal(err)
		}
		if string(env.Metadata) != tt.want {
			t.Errorf("%s: metadata %s, want %s", name, env.Metadata, tt.want)
		}
	}
}

func FuzzStringsSurviveTheEncoding(f *testing.F) {
	f.Add("a\"\\\n\u0085\u2028<&>\x00")
	f.Fuzz(func(t *testing.T, s string) {
		s = string(bytes.ToValidUTF8([]byte(s), []byte("?")))
		b, err := encodeValue(s)
		if err != nil {
			t.Fatal(err)
		}
		var outer, inner string
		if err := json.Unmarshal(b, &outer); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(outer), &inner); err != nil || inner != s {
			t.Errorf("%q became %q, %v", s, inner, err)
		}
	})
}
