package conversation_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/conversation"
)

var head = conversation.BatchHeader{
	Tenant: tenant, Conversation: "fm56pc66e4f1e9tdql6ul0ascskhe7nm-20260314", Thread: "19:<a>&b@thread.v2", Custodian: custodian,
	Window: "1-1773476813000-1773484013000", Lane: "export", FetchedAt: time.Date(2026, 3, 14, 9, 0, 0, 5, time.UTC), RequestID: "r",
}

func encode(t testing.TB, raws ...string) []byte {
	t.Helper()
	var ms []conversation.Message
	for _, r := range raws {
		ms = append(ms, conversation.Message{Raw: []byte(r)})
	}
	b, err := conversation.EncodeBatch(head, ms)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBatchIsReadBackByteForByte(t *testing.T) {
	for _, raws := range [][]string{{}, {""}, {"{}"}, {"a\n2\nb\n", "\x00\xff", "", strings.Repeat("x", 1<<20), "7\n"}} {
		h, got, err := conversation.DecodeBatch(encode(t, raws...))
		if err != nil || h != head {
			t.Errorf("%d messages: header %+v, %v", len(raws), h, err)
		}
		var texts []string
		for _, g := range got {
			texts = append(texts, string(g))
		}
		if !slices.Equal(texts, raws) {
			t.Errorf("%d messages came back as %d", len(raws), len(texts))
		}
	}
}

func TestDamagedBatchIsRefused(t *testing.T) {
	whole := string(encode(t, "abc", "de"))
	for n := range len(whole) {
		if _, _, err := conversation.DecodeBatch([]byte(whole[:n])); err == nil {
			t.Errorf("cut to %d bytes: taken", n)
		}
	}
	for what, bad := range map[string]string{
		"another version":        strings.Replace(whole, "batch/1", "batch/2", 1),
		"something behind":       whole + "x",
		"line end behind":        whole + "\n",
		"one message too few":    strings.Replace(whole, "\n2\n3\n", "\n1\n3\n", 1),
		"one message too many":   strings.Replace(whole, "\n2\n3\n", "\n3\n3\n", 1),
		"leading zero":           strings.Replace(whole, "\n2\n3\n", "\n02\n3\n", 1),
		"sign":                   strings.Replace(whole, "\n2\n3\n", "\n+2\n3\n", 1),
		"negative":               strings.Replace(whole, "\n2\n3\n", "\n2\n-3\n", 1),
		"length beyond the end":  strings.Replace(whole, "\n2\n3\n", "\n2\n9999999999\n", 1),
		"length off by one":      strings.Replace(whole, "\n2\n3\n", "\n2\n2\n", 1),
		"count without messages": strings.Replace(whole, "\n2\n3\n", "\n9999999999\n3\n", 1),
		"count of many digits":   strings.Replace(whole, "\n2\n3\n", "\n99999999999999999999\n3\n", 1),
		"header is no JSON":      strings.Replace(whole, "{", "[", 1),
		"header is null-ish":     "steno-chat-batch/1\n\n0\n",
	} {
		if _, _, err := conversation.DecodeBatch([]byte(bad)); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(encode(f, "abc", "", "\n"))
	f.Add([]byte("steno-chat-batch/1\n{}\n0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, items, err := conversation.DecodeBatch(b)
		if err != nil {
			return
		}
		var ms []conversation.Message
		for _, i := range items {
			ms = append(ms, conversation.Message{Raw: i})
		}
		again, err := conversation.EncodeBatch(h, ms)
		if err != nil {
			return // a time that JSON does not hold
		}
		_, second, err := conversation.DecodeBatch(again)
		if err != nil || !slices.EqualFunc(items, second, bytes.Equal) {
			t.Errorf("encoded again: %v", err)
		}
	})
}
