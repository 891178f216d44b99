package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/media"
	"steno/tests/sim"
	"steno/tests/world"
)

// TestABrowserThatStandsInForTheGatewayIsRecorded: the contract is enough. Neither end of
// the peer connection knows the other; the browser's frames are in the archive, byte for byte
// and without a gap, as long as its tones sounded, under the people whom the control channel
// named.
func TestABrowserThatStandsInForTheGatewayIsRecorded(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	g := startBrowserGateway(t, token)
	w, a, log := startCalls(t, world.Config{BotSettings: map[string]string{
		"STENO_GATEWAY_URL": g.api.URL, "STENO_GATEWAY_TOKEN_FILE": token,
	}})
	err := w.Tenant.Calls().Register(sim.Recorder{
		App: world.BotApp, Instance: world.BotInstance, Webhook: w.Bot.Calls(), Client: w.CA.Client(),
		Elsewhere: func(blob string) bool { return strings.HasPrefix(blob, browserBlob) },
	})
	if err != nil {
		t.Fatal(err)
	}
	users := recordedUsers(w)
	var call *sim.Call
	ready := make(chan struct{})
	g.sources = func() []toneOf {
		<-ready
		var out []toneOf
		for i, s := range call.Truth().Sources {
			out = append(out, toneOf{strconv.FormatUint(uint64(s.MSI), 10), []float64{440, 700}[i]})
		}
		return out
	}
	call = place(t, w, sim.CallPlan{Talk: sim.Silent, Subject: "Tones", Parties: []sim.Party{{Person: users[0], Recorded: true}, {Phone: "+442079460001", Caller: true}}})
	close(ready)
	recording(t, call)
	talk(t, 9*time.Second)
	info := call.Legs()[0]
	handed := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := g.carry(ctx, info.ID, g.sources()[1]); err != nil {
		t.Fatal(err)
	}
	talk(t, 9*time.Second)
	end := time.Now()
	call.End()
	legs, manifests := sealed(t, w, a, log, call)
	m := manifests[0]
	if legs[0].Outcome != conversation.OutcomeRecorded {
		t.Errorf("the leg is %s: %s", legs[0].Outcome, legs[0].Reason)
	}
	from := world.RecordedFrom(info)
	g.mu.Lock()
	sent := g.sent
	g.mu.Unlock()
	after := wholeTone(t, a, m, string(users[0]), 440, from, handed, sent)
	rest := wholeTone(t, a, m, "+442079460001", 700, handed, end, after)
	if lost := time.Duration(len(rest)) * 20 * time.Millisecond; lost > time.Second {
		t.Errorf("the last %s that the browser sent are not in the archive", lost)
	}
	for _, tr := range m.Tracks {
		if !tr.ByLine {
			t.Errorf("track %s is not bound by lines alone", tr.Track)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.faults) > 0 || len(g.calls) > 0 {
		t.Errorf("faults %q, %d calls were not removed", g.faults, len(g.calls))
	}
	if g.pings < 8 {
		t.Errorf("%d pings in 18 s", g.pings)
	}
}

// wholeTone checks that a party's lane is what the browser sent, from its first frame on,
// and sounds as one tone for as long as it was heard: from..to, less what a browser needs to
// begin and to change over. It returns what was sent after the lane's last frame.
func wholeTone(t *testing.T, a *world.Archive, m conversation.Manifest, party string, hz float64, from, to time.Time, sent [][]byte) (after [][]byte) {
	t.Helper()
	const margin = 1200 * time.Millisecond
	from, to = from.Add(margin), to.Add(-margin)
	dec, err := media.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	var heard []float32
	var kept [][]byte
	var first, last time.Time
	var length time.Duration
	err = a.Frames(t.Context(), m, func(f world.Frame) {
		if f.Party != party || f.Kind != conversation.AudioTrack {
			return
		}
		pcm, err := dec.Decode(f.Data)
		if err != nil {
			t.Errorf("%s at %s: %v", party, f.At, err)
		}
		if first.IsZero() {
			first = f.At
		}
		last, length = f.At.Add(f.Duration), length+f.Duration
		if !bytes.Equal(f.Data, silence) {
			kept = append(kept, bytes.Clone(f.Data))
		}
		if !f.At.Before(from) && f.At.Before(to) {
			heard = append(heard, pcm...)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := last.Sub(first) - length; d.Abs() > 20*time.Millisecond {
		t.Errorf("%s: %s of frames in %s of wall time", party, length, last.Sub(first))
	}
	const rate = media.AudioTimescale
	got := time.Duration(len(heard)) * time.Second / rate
	if (got - to.Sub(from)).Abs() > 20*time.Millisecond {
		t.Errorf("%s: %s decoded of %s", party, got, to.Sub(from))
	}
	if after, err = following(sent, kept); err != nil {
		t.Errorf("%s: %v", party, err)
	}
	// What was sent is the tone, but for gaps that a busy browser makes before it encodes: they
	// are in what it sent, so the half second in the middle of all is asked, and not the worst.
	var purities []float64
	for part := range slices.Chunk(heard, rate/2) {
		if len(part) == rate/2 {
			purities = append(purities, purity(part, hz))
		}
	}
	slices.Sort(purities)
	if len(purities) == 0 {
		t.Fatalf("%s: no half second was heard", party)
	}
	if middle := purities[len(purities)/2]; middle < 0.9 {
		t.Errorf("%s: %.0f Hz is %.2f of what is heard, want 0.9 and more", party, hz, middle)
	}
	t.Logf("%s: %d frames as sent, %s decoded, %.0f Hz at least %.3f of it", party, len(kept), got, hz, purities[0])
	return after
}

// silence is what stands where nobody spoke; shared/media/FORMAT.md.
var silence = []byte{0xf8, 0xff, 0xfe}

// following finds kept, whole and in order, within the first second of what is left of sent,
// and returns what follows.
func following(sent, kept [][]byte) ([][]byte, error) {
	const within = 50 // frames
	for from := 0; from <= within && from+len(kept) <= len(sent); from++ {
		if slices.EqualFunc(sent[from:from+len(kept)], kept, bytes.Equal) {
			return sent[from+len(kept):], nil
		}
	}
	return nil, fmt.Errorf("the %d frames that were kept are not %d that the browser sent, one after the other", len(kept), len(sent))
}

// purity is the part of the power of a signal that lies at a frequency: 1 for its sine.
func purity(x []float32, hz float64) float64 {
	var re, im, all float64
	for i, v := range x {
		s, c := math.Sincos(2 * math.Pi * hz * float64(i) / media.AudioTimescale)
		re, im, all = re+float64(v)*c, im+float64(v)*s, all+float64(v)*float64(v)
	}
	if all == 0 {
		return 0
	}
	return 2 * (re*re + im*im) / (float64(len(x)) * all)
}
