package gateway_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtp"

	"steno/tests/sim/gateway"
)

// voice speaks the tone of source 5 all the time, and counts.
type voice struct{ ticks atomic.Int64 }

func (v *voice) Tick(at time.Time) gateway.Tick {
	packet, err := gateway.TonePacket(5, int(v.ticks.Add(1)-1))
	if err != nil {
		panic(err)
	}
	return gateway.Tick{Timestamp: gateway.Timestamp(at), Unmixed: []gateway.Entry{{MSI: 5, Opus: packet}}}
}

func TestALiveSourceArrivesByteForByteOnItsSlot(t *testing.T) {
	r := start(t, gateway.Config{})
	rec := r.record("call-1")
	v := &voice{}
	if _, err := r.Connect(rec.blob, v); err != nil {
		t.Fatal(err)
	}
	if s := r.gate("call-1", rec, "open"); s != http.StatusOK {
		t.Fatalf("gate: %d", s)
	}
	until(t, "50 packets", func() bool { return len(rec.got("a0")) >= 50 })
	first := gatedTicks(t, r, "call-1")
	for i, p := range rec.got("a0") {
		want, err := gateway.TonePacket(5, first+i)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p.Payload, want) {
			t.Fatalf("packet %d differs", i)
		}
		ext := p.GetExtension(p.GetExtensionIDs()[0])
		if !bytes.Equal(ext, []byte{1, 0, 0, 0, 5}) {
			t.Fatalf("packet %d says %v", i, ext)
		}
	}
	if b := rec.await("bind"); b["source"] != "5" || b["track"] != "a0" || b["epoch"] != 1.0 {
		t.Errorf("bound by %v", b)
	}
	sequence := 0.0
	for _, l := range rec.linesInOrder() {
		if sequence++; l["seq"] != sequence {
			t.Fatalf("line %v is number %v", l, sequence)
		}
	}
}

func (rec *recorder) linesInOrder() []map[string]any {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return append([]map[string]any(nil), rec.lines...)
}

func gatedTicks(t *testing.T, r *rig, id string) int {
	t.Helper()
	info, ok := r.Call(id)
	if !ok {
		t.Fatal("the call is gone")
	}
	return int(info.Counters.Gated)
}

func TestLostPacketsComeAgainWhenAskedFor(t *testing.T) {
	r := start(t, gateway.Config{})
	rec := r.record("call-1")
	r.SetNetwork(gateway.Network{Loss: 0.1, Reorder: 0.05})
	if _, err := r.Connect(rec.blob, &voice{}); err != nil {
		t.Fatal(err)
	}
	r.gate("call-1", rec, "open")
	until(t, "200 packets", func() bool { return len(rec.got("a0")) >= 200 })
	r.SetNetwork(gateway.Network{})
	until(t, "every packet", func() bool { return holes(rec.got("a0")) == 0 })
}

func holes(packets []rtp.Packet) int {
	seen := map[uint16]bool{}
	low, high := packets[0].SequenceNumber, packets[0].SequenceNumber
	for _, p := range packets {
		seen[p.SequenceNumber] = true
		low, high = min(low, p.SequenceNumber), max(high, p.SequenceNumber)
	}
	return int(high-low) + 1 - len(seen)
}

func TestABlobMustComeBackByteForByteAndConnectsOnce(t *testing.T) {
	r := start(t, gateway.Config{})
	rec := r.record("call-1")
	if _, err := r.Connect(rec.blob+" ", &voice{}); !errors.Is(err, gateway.ErrBlob) {
		t.Errorf("changed blob: %v", err)
	}
	if _, err := r.Connect(rec.blob, &voice{}); err != nil {
		t.Error(err)
	}
	if _, err := r.Connect(rec.blob, &voice{}); !errors.Is(err, gateway.ErrBlob) {
		t.Errorf("used blob: %v", err)
	}
}

func TestAKilledGatewaySaysNothing(t *testing.T) {
	r := start(t, gateway.Config{})
	rec := r.record("call-1")
	v := &voice{}
	if _, err := r.Connect(rec.blob, v); err != nil {
		t.Fatal(err)
	}
	r.gate("call-1", rec, "open")
	until(t, "a packet", func() bool { return len(rec.got("a0")) > 0 })
	r.Kill()
	if _, err := http.Get(r.URL() + "/v1/health"); err == nil {
		t.Error("it still answers")
	}
	time.Sleep(300 * time.Millisecond) // long enough for a farewell on loopback
	if n := len(rec.of("bye")) + len(rec.of("unbind")); n != 0 {
		t.Errorf("%d last words", n)
	}
	if s := rec.pc.ConnectionState().String(); s != "connected" {
		t.Errorf("the recorder's end is %s at once", s)
	}
}

func TestTheTokenFileIsForItsAccountAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	r := start(t, gateway.Config{TokenFile: file})
	b, err := os.ReadFile(file)
	if err != nil || string(b) != r.Token() || len(b) != 64 {
		t.Errorf("token file holds %d bytes, %v", len(b), err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestTimestampsAreOfOneMind(t *testing.T) {
	// The example of a logged timestamp: 38104121949150000 is 2020-09-29T23:49:54.915Z.
	at := time.Date(2020, 9, 29, 23, 49, 54, 915_000_000, time.UTC)
	if ts := gateway.Timestamp(at); ts != 38104121949150000 {
		t.Errorf("timestamp %d", ts)
	}
	if back := gateway.Instant(38104121949150000); !back.Equal(at) {
		t.Errorf("instant %v", back)
	}
}

func TestACallThatNobodyAnswersOrMeetsIsGoneInTime(t *testing.T) {
	r := start(t, gateway.Config{})
	if s := r.do("POST", "/v1/calls", map[string]any{"callId": "call-1"}, nil); s != http.StatusCreated {
		t.Fatalf("create: %d", s)
	}
	r.Skip(59 * time.Second)
	time.Sleep(50 * time.Millisecond) // two rounds of housekeeping
	if _, ok := r.Call("call-1"); !ok {
		t.Error("gone after 59 s")
	}
	r.Skip(2 * time.Second)
	until(t, "the end", func() bool { _, ok := r.Call("call-1"); return !ok })
	if s := r.do("DELETE", "/v1/calls/call-1", nil, nil); s != http.StatusNoContent {
		t.Errorf("delete afterwards: %d", s)
	}
}

func TestAHangingGatewayLetsTheClientGiveUp(t *testing.T) {
	r := start(t, gateway.Config{})
	r.Hang(true)
	client := http.Client{Timeout: 200 * time.Millisecond}
	if _, err := client.Get(r.URL() + "/v1/health"); err == nil {
		t.Error("it answered")
	}
	r.Hang(false)
	if s := r.do("GET", "/v1/health", nil, nil); s != http.StatusOK {
		t.Errorf("health afterwards: %d", s)
	}
}

func TestAnotherGatewayCanTakeTheAddressOfAKilledOne(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	first := start(t, gateway.Config{TokenFile: file})
	first.record("call-1")
	first.Kill()
	http.DefaultClient.CloseIdleConnections() // those to the first are dead
	second := start(t, gateway.Config{TokenFile: file, Addr: first.URL()[len("http://"):]})
	if second.Instance() == first.Instance() || second.Token() == first.Token() {
		t.Error("the second start has the identity of the first")
	}
	if s := second.do("DELETE", "/v1/calls/call-1", nil, nil); s != http.StatusNotFound {
		t.Errorf("the call of the first: %d", s)
	}
}
