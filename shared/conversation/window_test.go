package conversation_test

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/conversation"
)

var update = flag.Bool("update", false, "write golden files anew")

var window = conversation.Window{
	Tenant: "11111111-aaaa-4bbb-8ccc-222222222222", Custodian: "33333333-aaaa-4bbb-8ccc-444444444444",
	From: time.Date(2026, 3, 14, 9, 0, 0, 1e6, time.UTC), To: time.Date(2026, 3, 14, 10, 0, 0, 0, time.UTC), Pass: 2, Attempt: 3,
}

func TestQueueMessageIsAsItWas(t *testing.T) {
	const golden = "testdata/window.golden.json"
	got, err := conversation.EncodeWindow(window)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("encoded %s, want %s", got, want)
	}
	if w, err := conversation.DecodeWindow(want); err != nil || w != window {
		t.Errorf("decoded %+v, %v; want %+v", w, err, window)
	}
	if k, id := window.Key(), window.MessageID(); k != "2-1773478800001-1773482400000" || id != "w-"+string(window.Custodian)+"-"+k+"-3" {
		t.Errorf("key %s, message id %s", k, id)
	}
}

const good = `{"stenoV":1,"exportTenant":"11111111-aaaa-4bbb-8ccc-222222222222","exportCustodian":"33333333-aaaa-4bbb-8ccc-444444444444",` +
	`"exportFrom":"2026-03-14T09:00:00.001Z","exportTo":"2026-03-14T10:00:00Z","exportPass":2,"exportAttempt":3}`

func TestForgedWindowMessagesAreRefusedByName(t *testing.T) {
	if _, err := conversation.DecodeWindow([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, names string }{
		{good, ``, "not JSON"},
		{good, `[]`, "not a JSON object"},
		{good, good + good, "more than one"},
		{good, good[:60], "not JSON"},
		{`"stenoV":1`, `"stenoV":2`, "version 2"},
		{`"stenoV":1,`, ``, "version 0"},
		{`"stenoV"`, `"STENOV"`, "unknown name"},
		{`{`, `{"canary":1,`, `"canary"`},
		{`{`, `{"exportPass":1,`, `"exportPass" is repeated`},
		{`{`, `{"export\u0050ass":1,`, `"exportPass" is repeated`},
		{`"exportTenant":"1`, `"exportTenant":"../1`, "tenant id"},
		{`"exportTenant":"11111111-aaaa-4bbb-8ccc-222222222222"`, `"exportTenant":null`, "tenant id"},
		{`"exportCustodian":"3`, `"exportCustodian":"x`, "person id"},
		{`2026-03-14T09:00:00.001Z`, `canary`, "exportFrom"},
		{`2026-03-14T09:00:00.001Z`, `2026-03-14T09:00:00.0001Z`, "exportFrom is not a whole millisecond"},
		{`2026-03-14T09:00:00.001Z`, `0001-01-01T00:00:00Z`, "exportFrom is not within"},
		{`2026-03-14T10:00:00Z`, `9999-01-01T00:00:00Z`, "exportTo is not within"},
		{`2026-03-14T10:00:00Z`, `2026-03-14`, "exportTo"},
		{`2026-03-14T10:00:00Z`, `2026-03-14T09:00:00.001Z`, "from is not before to"},
		{`2026-03-14T10:00:00Z`, `2026-03-13T10:00:00Z`, "from is not before to"},
		{`2026-03-14T10:00:00Z`, `2026-05-14T10:00:00Z`, "longer than"},
		{`"exportPass":2`, `"exportPass":0`, "pass 0"},
		{`"exportPass":2`, `"exportPass":13`, "pass 13"},
		{`"exportPass":2`, `"exportPass":2,"exportSource":"canary"`, "exportSource"},
		{`"exportPass":2`, `"exportPass":"2"`, "exportPass"},
		{`"exportPass":2`, `"exportPass":1.5`, "exportPass"},
		{`"exportAttempt":3`, `"exportAttempt":-1`, "attempt -1"},
	} {
		_, err := conversation.DecodeWindow([]byte(strings.Replace(good, c.old, c.new, 1)))
		if err == nil || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%.40s for %.40s: %v, want an error that names %q", c.new, c.old, err, c.names)
		}
		if err != nil && c.names != `"canary"` && strings.Contains(err.Error(), "canary") {
			t.Errorf("the error repeats foreign text: %v", err)
		}
	}
	_, err := conversation.DecodeWindow([]byte(`{"stenoV":1}`))
	for _, part := range []string{"tenant id", "person id", "exportFrom", "exportTo", "pass 0"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("faults of an empty message %v: %s is missing", err, part)
		}
	}
}

func FuzzDecodeWindow(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(`{"stenoV":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := conversation.DecodeWindow(b)
		if err != nil {
			return
		}
		again, err := conversation.EncodeWindow(w)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := conversation.DecodeWindow(again); err != nil || second != w {
			t.Errorf("%+v became %+v, %v", w, second, err)
		}
		if len(w.Key()) != 29 || !w.From.Before(w.To) {
			t.Errorf("window %+v was taken", w)
		}
	})
}

// reads reports whether Graph's exclusive bounds let a millisecond through.
func reads(w conversation.Window, ms time.Time) bool { return ms.After(w.From) && ms.Before(w.To) }

func TestHalvesOfAWindowCoverEveryMillisecond(t *testing.T) {
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, 0))
	for n := range 400 {
		w := window
		w.From = w.From.Add(time.Duration(rng.IntN(1000)) * time.Microsecond)
		w.To = w.From.Add(time.Duration(rng.IntN(200_000)) * time.Microsecond)
		a, b, ok := w.Split()
		if !ok {
			if w.To.Sub(w.From) >= 4*conversation.Resolution {
				t.Fatalf("seed %d, round %d: %s cannot be cut", seed, n, w.To.Sub(w.From))
			}
			continue
		}
		length := func(w conversation.Window) time.Duration { return w.To.Sub(w.From) }
		within := func(o conversation.Window) bool { return !o.From.Before(w.From) && !o.To.After(w.To) }
		if length(a) >= length(w) || length(b) >= length(w) || !within(a) || !within(b) {
			t.Fatalf("seed %d, round %d: %s is cut into %s and %s", seed, n, length(w), length(a), length(b))
		}
		for ms := w.From.Truncate(time.Millisecond); !ms.After(w.To); ms = ms.Add(time.Millisecond) {
			if reads(w, ms) != (reads(a, ms) || reads(b, ms)) {
				t.Fatalf("seed %d, round %d: millisecond %s of %s to %s", seed, n, ms, w.From, w.To)
			}
		}
	}
}

func TestWindowKeysSortByPassAndTime(t *testing.T) {
	var keys []string
	for _, pass := range []int{1, 2} {
		for _, d := range []time.Duration{0, time.Millisecond, time.Hour} {
			w := window
			w.Pass, w.From, w.To = pass, w.From.Add(d), w.To.Add(d)
			keys = append(keys, w.Key())
		}
	}
	if !slices.IsSorted(keys) {
		t.Errorf("keys %v", keys)
	}
}

func TestProgressOfPassesThatWereNeverPlannedIsZero(t *testing.T) {
	var p conversation.Progress
	p.Set(3, window.To)
	for pass, want := range map[int]time.Time{-1: {}, 0: {}, 1: {}, 2: {}, 3: window.To, 4: {}} {
		if got := p.Until(pass); !got.Equal(want) {
			t.Errorf("pass %d: %s, want %s", pass, got, want)
		}
	}
}
