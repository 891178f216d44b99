package custody_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"steno/shared/custody"
)

func sealed() custody.Record {
	return custody.Record{ID: "0006448d5ab9c000-0123456789abcdef", Event: custody.Event{
		At: time.Date(2026, 11, 26, 15, 4, 5, 678_000_000, time.UTC), Tenant: "7f000000-0000-4000-8000-000000000001",
		Action: custody.Sealed, System: "chatexport", Item: "unit", Reason: `a "reason" <&> \ of Zoë`,
		Objects: []custody.Object{{Unit: "unit", Object: "aa", SHA256: "bb", Commit: "cc"}, {Unit: "unit", Object: "dd", Seq: 1, Void: true}},
	}}
}

// TestRecordIsWrittenInTheCanonicalFormOfRFC8785: members in the order of their names, no
// space, no escape that is not needed.
func TestRecordIsWrittenInTheCanonicalFormOfRFC8785(t *testing.T) {
	got, err := sealed().Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"action":"seal","at":"2026-11-26T15:04:05.678Z","id":"0006448d5ab9c000-0123456789abcdef","item":"unit",` +
		`"objects":[{"commit":"cc","object":"aa","seq":0,"sha256":"bb","unit":"unit"},{"object":"dd","seq":1,"unit":"unit","void":true}],` +
		`"reason":"a \"reason\" <&> \\ of Zoë","system":"chatexport","tenant":"7f000000-0000-4000-8000-000000000001"}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestOnlyTheOneSpellingOfARecordIsRead(t *testing.T) {
	good, err := sealed().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if r, err := custody.DecodeRecord(good); err != nil || r.Objects[1].Void != true || r.Reason != sealed().Reason {
		t.Fatalf("own bytes: %+v, %v", r, err)
	}
	text := string(good)
	for what, bad := range map[string]string{
		"a repeated member":            strings.Replace(text, `"item":"unit"`, `"item":"other","item":"unit"`, 1),
		"a member in other case":       strings.Replace(text, `"item":"unit"`, `"Item":"other","item":"unit"`, 1),
		"an unknown member":            strings.Replace(text, `"item":"unit"`, `"item":"unit","jtem":1`, 1),
		"an unknown member of objects": strings.Replace(text, `"seq":0`, `"seq":0,"size":7`, 1),
		"another order":                strings.Replace(text, `"object":"aa","seq":0`, `"seq":0,"object":"aa"`, 1),
		"space":                        strings.Replace(text, `,"at"`, `, "at"`, 1),
		"a needless escape":            strings.Replace(text, `<&>`, `\u003c&>`, 1),
		"an empty member":              strings.Replace(text, `"system"`, `"session":"","system"`, 1),
		"a float":                      strings.Replace(text, `"seq":0`, `"seq":0.0`, 1),
		"bytes behind":                 text + "\n",
		"two records":                  text + text,
		"another spelling of the time": strings.Replace(text, `05.678Z`, `05.678000Z`, 1),
		"half":                         text[:len(text)/2],
	} {
		if bad == text {
			t.Fatalf("%s: the case changes nothing", what)
		}
		if _, err := custody.DecodeRecord([]byte(bad)); !errors.Is(err, custody.ErrRecord) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestTextsWithTwoSpellingsAreRefused(t *testing.T) {
	for _, text := range []string{"line\u2028end", "para\u2029graph", "\xff"} {
		r := sealed()
		r.Reason = text
		if _, err := r.Encode(); !errors.Is(err, custody.ErrRecord) {
			t.Errorf("%q: %v", text, err)
		}
	}
	r := sealed()
	r.Objects = make([]custody.Object, custody.MaxObjects+1)
	if _, err := r.Encode(); !errors.Is(err, custody.ErrRecord) {
		t.Errorf("too many objects: %v", err)
	}
}

func TestARecordOfTheMostObjectsFitsARow(t *testing.T) {
	r := sealed()
	r.Objects = nil
	hex := strings.Repeat("f", 64)
	for i := range custody.MaxObjects {
		r.Objects = append(r.Objects, custody.Object{Unit: hex, Object: hex[:32], Seq: 1_000_000 + i, SHA256: hex, Commit: hex})
	}
	if b, err := r.Encode(); err != nil || len(b) > custody.MaxRecord {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func FuzzRecord(f *testing.F) {
	good, err := sealed().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"action":"","at":"0001-01-01T00:00:00Z","id":"","item":"","tenant":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := custody.DecodeRecord(b)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q is read and written as %q, %v", b, again, err)
		}
	})
}
