package msgraph

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// reference takes a page apart with encoding/json alone, by the same rules.
func reference(b []byte) (items [][]byte, next string, err error) {
	bad := errors.New("refused")
	if !json.Valid(b) {
		return nil, "", bad
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, "", bad
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, "", bad
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, "", bad
		}
		if name != "value" && name != "@odata.nextLink" {
			continue
		}
		if seen[name] {
			return nil, "", bad
		}
		seen[name] = true
		if name == "value" {
			if value[0] != '[' {
				return nil, "", bad
			}
			var list []json.RawMessage
			if err := json.Unmarshal(value, &list); err != nil || len(list) > MaxPageItems {
				return nil, "", bad
			}
			for _, item := range list {
				items = append(items, item)
			}
			continue
		}
		var link *string
		if err := json.Unmarshal(value, &link); err != nil {
			return nil, "", bad
		}
		if link != nil {
			next = *link
		}
	}
	if !seen["value"] {
		return nil, "", bad
	}
	return items, next, nil
}

func compare(t *testing.T, page []byte) {
	t.Helper()
	items, next, err := splitPage(page)
	wantItems, wantNext, wantErr := reference(page)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("page %.200q: error %v, reference %v", page, err, wantErr)
	}
	if err != nil {
		if !errors.Is(err, ErrPage) {
			t.Errorf("page %.200q: %v is not ErrPage", page, err)
		}
		return
	}
	if next != wantNext || len(items) != len(wantItems) {
		t.Fatalf("page %.200q: %d items and %q, want %d and %q", page, len(items), next, len(wantItems), wantNext)
	}
	for i := range items {
		if !bytes.Equal(items[i], wantItems[i]) {
			t.Errorf("page %.200q: item %d is %q, want %q", page, i, items[i], wantItems[i])
		}
	}
}

func ones(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]" }

// pages are pages and what is none; taken says which.
var pages = []struct {
	what, body string
	taken      bool
}{
	{"empty page", `{"value":[]}`, true},
	{"empty page with a link", `{"@odata.nextLink":"https://h/v1.0/x","value":[]}`, true},
	{"null link", `{"value":[],"@odata.nextLink":null}`, true},
	{"white space everywhere", " {\r\n\t\"value\" : [ {\"a\" : 1} ,\n2 ] , \"@odata.nextLink\" : \"x\" } \n", true},
	{"brackets in strings", `{"value":[{"a":"]}\"\\"},"},{"],"[[":"]]"}`, true},
	{"items of every kind", `{"value":[null,true,false,-1.5e3,"s",[],{},[[{}]]]}`, true},
	{"escaped names", `{"\u0076alue":[1],"@odata\u002enextLink":"x\u0041"}`, true},
	{"look-alike names", `{"Value":[1],"value":[2],"VALUE":3,"@odata.nextlink":"no","@odata.count":1}`, true},
	{"nested value", `{"x":{"value":[1],"@odata.nextLink":"inner"},"value":[2]}`, true},
	{"as many items as allowed", `{"value":` + ones(MaxPageItems) + `}`, true},
	{"deep nesting", `{"value":[` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `]}`, true},
	{"one item too many", `{"value":` + ones(MaxPageItems+1) + `}`, false},
	{"nesting without end", `{"value":[` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `]}`, false},
	{"value repeated", `{"value":[],"value":[]}`, false},
	{"value repeated by an escape", `{"value":[],"\u0076alue":[]}`, false},
	{"link repeated", `{"value":[],"@odata.nextLink":"a","@odata.nextLink":"b"}`, false},
	{"value is an object", `{"value":{}}`, false},
	{"value is null", `{"value":null}`, false},
	{"link is a number", `{"value":[],"@odata.nextLink":7}`, false},
	{"no value", `{"@odata.nextLink":"x"}`, false},
	{"an array", `[]`, false},
	{"a string", `"value"`, false},
	{"nothing", ``, false},
	{"truncated", `{"value":[{"id":"1"},{"id":`, false},
	{"truncated in a string", `{"value":["abc`, false},
	{"two pages", `{"value":[]}{"value":[]}`, false},
	{"trailing comma", `{"value":[1,]}`, false},
	{"HTML", `<html>`, false},
}

func TestPageIsTakenApartByteForByteOrRefused(t *testing.T) {
	for _, p := range pages {
		if _, _, err := splitPage([]byte(p.body)); (err == nil) != p.taken {
			t.Errorf("%s: %v", p.what, err)
		}
		compare(t, []byte(p.body))
	}
}

func TestEveryTruncationOfAPageIsRefused(t *testing.T) {
	page := []byte(`{"@odata.context":"c","value":[{"id":"1","b":[1,{"x":"}"}]}, 2],"@odata.nextLink":"https:\/\/h"}`)
	for n := range page {
		if _, _, err := splitPage(page[:n]); !errors.Is(err, ErrPage) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestItemsCannotGrowIntoTheirNeighbors(t *testing.T) {
	page := []byte(`{"value":[{"a":1},2,3]}`)
	items, _, err := splitPage(page)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(items[0], "overwritten"...)
	if string(items[1]) != "2" {
		t.Errorf("item 1 became %q", items[1])
	}
}

func TestOversizedBodyIsRefused(t *testing.T) {
	if _, err := readLimited(strings.NewReader(""), MaxPageBytes+1); !errors.Is(err, ErrPage) {
		t.Errorf("announced: %v", err)
	}
	if _, err := readLimited(endless{}, -1); !errors.Is(err, ErrPage) {
		t.Errorf("not announced: %v", err)
	}
	if _, err := readLimited(io.MultiReader(strings.NewReader("{"), broken{}), 2); !errors.Is(err, ErrPage) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("broken off: %v", err)
	}
	if b, err := readLimited(strings.NewReader("abc"), -1); err != nil || string(b) != "abc" {
		t.Errorf("read %q, %v", b, err)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func FuzzSplitPage(f *testing.F) {
	for _, p := range pages {
		if len(p.body) < 4096 {
			f.Add([]byte(p.body))
		}
	}
	f.Fuzz(func(t *testing.T, page []byte) { compare(t, page) })
}

func BenchmarkSplitPage(b *testing.B) {
	item := `{"id":"1773480413000","body":{"content":"` + strings.Repeat("some words of a message ", 40) + `"}}`
	page := []byte(`{"value":[` + strings.TrimSuffix(strings.Repeat(item+",", 50), ",") + `]}`)
	for name, split := range map[string]func([]byte) ([][]byte, string, error){"splitPage": splitPage, "encoding-json": reference} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(page)))
			for b.Loop() {
				if items, _, err := split(page); err != nil || len(items) != 50 {
					b.Fatal(fmt.Sprint(len(items), err))
				}
			}
		})
	}
}
