package funchost_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"steno/functions/internal/funchost"
)

// golden returns the host's serializer's output by the name of the .NET value that went in.
func golden(t testing.TB) map[string]json.RawMessage {
	t.Helper()
	b, err := os.ReadFile("testdata/encoding.golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Data map[string]json.RawMessage }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	return file.Data
}

// deliver sends one queue invocation and returns what the function saw.
func deliver(t testing.TB, envelope string) (funchost.Message, int) {
	t.Helper()
	var got funchost.Message
	a := newApp(t, nil)
	a.Queue("finalize", "item", func(_ context.Context, m funchost.Message) error { got = m; return nil })
	w := do(a.handler(t), request("POST", "/finalize", strings.NewReader(envelope)))
	mustBeAnswer(t, w, w.Code)
	return got, w.Code
}

func TestBodyArrivesAsTheSenderWroteIt(t *testing.T) {
	g := golden(t)
	for name, want := range map[string]string{
		"string_plain":          "hello",
		"string_json":           `{"a":1,"s":"x"}`,
		"bytes_default":         "\x01\x02\x03\xff",
		"bytes_dataType_binary": "\x01\x02\x03\xff",
		"guid":                  "18331e44-8fb1-4cf9-8a7c-5c28d4ef90b0",
	} {
		m, code := deliver(t, `{"Data":{"item":`+string(g[name])+`}}`)
		if code != http.StatusOK || string(m.Body) != want {
			t.Errorf("%s: status %d, body %q, want %q", name, code, m.Body, want)
		}
	}
}

func TestDocumentedFormsOfABodyAreAccepted(t *testing.T) {
	for value, want := range map[string]string{
		`{"a":1}`:              `{"a":1}`,
		`"{\"a\":1}"`:          `{"a":1}`,
		`""`:                   "",
		`"\"\""`:               "",
		`"\"AQID\""`:           "AQID",
		`"\"\\ud83d\\ude00\""`: "😀",
	} {
		m, code := deliver(t, `{"Data":{"item":`+value+`}}`)
		if code != http.StatusOK || string(m.Body) != want {
			t.Errorf("%s: status %d, body %q, want %q", value, code, m.Body, want)
		}
	}
}

func TestBodyInNoKnownFormIsRefused(t *testing.T) {
	g := golden(t)
	for _, value := range []string{
		`null`, `5`, `["a"]`, `true`, `"hello world"`, `"\"open"`, `"AQI"`, `"AQJ="`,
		string(g["string_many"]), string(g["bytes_many"]),
	} {
		if _, code := deliver(t, `{"Data":{"item":`+value+`}}`); code != http.StatusBadRequest {
			t.Errorf("%s: status %d, want 400", value, code)
		}
	}
}

func TestEnvelopeInNoKnownFormIsRefused(t *testing.T) {
	for _, envelope := range []string{
		``, `null`, `[]`, `{}`, `{"Data":null}`, `{"Data":[]}`, `{"data":{"item":"\"x\""}}`, `{"Data":{}}`,
		`{"Data":{"other":"\"x\""}}`, `{"Data":{"item":"\"x\""},"Metadata":5}`, `{"Data":{"item":"\"x\""}`,
		"{\"Data\":{\"item\":\"\xff\"}}",
		`{"Data":{"item":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}}`,
		`{"Data":{"item":[0` + strings.Repeat(",0", funchost.MaxTokens) + `]}}`,
	} {
		if _, code := deliver(t, envelope); code != http.StatusBadRequest {
			t.Errorf("%.60s: status %d, want 400", envelope, code)
		}
	}
}

func TestEnvelopeOverTheLimitIsRefused(t *testing.T) {
	if _, code := deliver(t, strings.Repeat(" ", funchost.MaxEnvelopeBytes+1)); code != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d, want 413", code)
	}
}

// The fields of a JSON body overwrite the host's metadata of the same name; one whose name ends in "trigger" vanishes.
func TestForgedMetadataChangesNoBody(t *testing.T) {
	body := `{"MessageId":"forged","DeliveryCount":99,"Xtrigger":"abcd","EnqueuedTime":"never","leg":"abcd1234"}`
	m, code := deliver(t, `{"Data":{"item":`+quoted(t, body)+`},"Metadata":{"MessageId":"\"forged\"","DeliveryCount":"99",`+
		`"EnqueuedTime":"\"never\"","leg":"\"abcd1234\"","item":"\"other\"","sys":{"MethodName":"retention"}}}`)
	if code != http.StatusOK || string(m.Body) != body {
		t.Errorf("status %d, body %s", code, m.Body)
	}
	if m.ID != "forged" || m.DeliveryCount != 99 || !m.Enqueued.IsZero() {
		t.Errorf("informational fields %+v", m)
	}
}

func TestMetadataIsReadInTheHostsEncoding(t *testing.T) {
	g := golden(t)
	bus, _ := deliver(t, `{"Data":{"item":"\"x\""},"Metadata":{"MessageId":`+string(g["guid"])+`,"DeliveryCount":`+string(g["int"])+
		`,"EnqueuedTime":`+string(g["dto"])+`,"ApplicationProperties":`+string(g["dict"])+`}}`)
	storage, _ := deliver(t, `{"Data":{"item":"\"x\""},"Metadata":{"Id":`+string(g["guid"])+`,"DequeueCount":`+string(g["long"])+
		`,"InsertionTime":`+string(g["dt_utc"])+`}}`)
	at := time.Date(2026, 11, 21, 3, 18, 20, 0, time.UTC)
	const id = "18331e44-8fb1-4cf9-8a7c-5c28d4ef90b0"
	if bus.ID != id || bus.DeliveryCount != 5 || !bus.Enqueued.Equal(at) {
		t.Errorf("Service Bus: %+v", bus)
	}
	if storage.ID != id || storage.DeliveryCount != 7 || !storage.Enqueued.Equal(at) {
		t.Errorf("Storage queue: %+v", storage)
	}
}

func TestTimerArrivesWithWhatTheHostKnows(t *testing.T) {
	g := golden(t)
	next := time.Date(2026, 11, 21, 3, 18, 20, 987864000, time.UTC)
	for name, tt := range map[string]struct {
		value string
		want  funchost.TimerInfo
	}{
		"first run":     {string(g["timer_first"]), funchost.TimerInfo{Next: next, LastUpdated: next.Add(3145 * time.Microsecond)}},
		"not monitored": {string(g["timer_nomonitor"]), funchost.TimerInfo{}},
		"past due":      {`{"ScheduleStatus":{"Last":"2026-11-21T03:00:00+00:00","Next":"soon","LastUpdated":null},"IsPastDue":true}`, funchost.TimerInfo{PastDue: true, Last: time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)}},
	} {
		var got funchost.TimerInfo
		a := newApp(t, nil)
		a.Timer("groupsync", func(_ context.Context, ti funchost.TimerInfo) error { got = ti; return nil })
		w := do(a.handler(t), request("POST", "/groupsync", strings.NewReader(`{"Data":{"timer":`+tt.value+`},"Metadata":{}}`)))
		mustBeAnswer(t, w, http.StatusOK)
		if got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestTimerInNoKnownFormIsRefused(t *testing.T) {
	a := newApp(t, nil)
	a.Timer("groupsync", func(context.Context, funchost.TimerInfo) error { return nil })
	h := a.handler(t)
	for _, data := range []string{`{}`, `{"a":{},"b":{}}`, `{"timer":"soon"}`, `{"timer":{"IsPastDue":"maybe"}}`} {
		mustBeAnswer(t, do(h, request("POST", "/groupsync", strings.NewReader(`{"Data":`+data+`}`))), http.StatusBadRequest)
	}
}

func FuzzInvocation(f *testing.F) {
	for _, v := range golden(f) {
		f.Add([]byte(`{"Data":{"item":` + string(v) + `},"Metadata":{"DeliveryCount":` + string(v) + `}}`))
	}
	f.Add([]byte(`{"Data":{"item":"\"\\u0000\""},"Metadata":null}`))
	a := newApp(f, nil)
	a.Queue("finalize", "item", func(context.Context, funchost.Message) error { return nil })
	a.Timer("groupsync", func(context.Context, funchost.TimerInfo) error { return nil })
	h := a.handler(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{"/finalize", "/groupsync"} {
			w := do(h, request("POST", path, bytes.NewReader(body)))
			if w.Code != http.StatusOK && w.Code != http.StatusBadRequest {
				t.Errorf("%s: status %d", path, w.Code)
			}
			mustBeAnswer(t, w, w.Code)
		}
	})
}

func FuzzBodyRoundTrip(f *testing.F) {
	f.Add([]byte("abcd1234"))
	f.Add([]byte(`{"a":"\u2028<&>"}`))
	f.Add([]byte{0, 0xff})
	var got []byte
	a := newApp(f, nil)
	a.Queue("finalize", "item", func(_ context.Context, m funchost.Message) error { got = m.Body; return nil })
	h := a.handler(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		forms := []string{`"` + base64.StdEncoding.EncodeToString(body) + `"`}
		if utf8.Valid(body) {
			forms = append(forms, quoted(t, string(body)))
		}
		for _, form := range forms {
			w := do(h, request("POST", "/finalize", invocation(form)))
			if w.Code != http.StatusOK || !bytes.Equal(got, body) {
				t.Errorf("%s: status %d, body %q, want %q", form, w.Code, got, body)
			}
		}
	})
}
