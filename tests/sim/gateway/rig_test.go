package gateway_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"steno/tests/sim/gateway"
)

const extension = "urn:recorder:mgw:source:1"

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

type offer struct {
	SessionID string
	Blob      string
	Offer     webrtc.SessionDescription
	Tracks    []struct {
		MID, Track, Kind string
		SSRC             uint32
	}
	AudioBase uint32
}

type rig struct {
	t testing.TB
	*gateway.Gateway
}

func start(t testing.TB, cfg gateway.Config) *rig {
	t.Helper()
	cfg.TestMode = true
	g, err := gateway.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return &rig{t, g}
}

// do sends a request and decodes the reply; it returns the status.
func (r *rig) do(method, path string, body, into any) int {
	r.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequest(method, r.URL()+path, bytes.NewReader(b))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.Token())
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if into != nil {
		if err := json.Unmarshal(out, into); err != nil {
			r.t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, out)
		}
	}
	return res.StatusCode
}

// recorder is the other end of a call.
type recorder struct {
	t       testing.TB
	pc      *webrtc.PeerConnection
	session string
	blob    string

	mu      sync.Mutex
	lines   []map[string]any
	packets map[string][]rtp.Packet // by track name
	ctl     *webrtc.DataChannel
}

// record creates a call and connects to it. The gate stays closed.
func (r *rig) record(id string) *recorder {
	r.t.Helper()
	var o offer
	if s := r.do("POST", "/v1/calls", map[string]any{"callId": id}, &o); s != http.StatusCreated {
		r.t.Fatalf("create: %d", s)
	}
	rec := r.answer(id, o)
	rec.await("hello")
	return rec
}

func (r *rig) answer(id string, o offer) *recorder {
	r.t.Helper()
	media, chain := &webrtc.MediaEngine{}, &interceptor.Registry{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		r.t.Fatal(err)
	}
	if err := media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: extension}, webrtc.RTPCodecTypeAudio); err != nil {
		r.t.Fatal(err)
	}
	media.RegisterFeedback(webrtc.RTCPFeedback{Type: "nack"}, webrtc.RTPCodecTypeAudio)
	generator, err := nack.NewGeneratorInterceptor(nack.GeneratorInterval(20 * time.Millisecond))
	if err != nil {
		r.t.Fatal(err)
	}
	chain.Add(generator)
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	s.SetIPFilter(func(ip net.IP) bool { return ip.IsLoopback() })
	api := webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(chain), webrtc.WithSettingEngine(s))
	rec := &recorder{t: r.t, session: o.SessionID, blob: o.Blob, packets: map[string][]rtp.Packet{}}
	rec.pc, err = api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = rec.pc.Close() })
	names := map[uint32]string{}
	for _, t := range o.Tracks {
		names[t.SSRC] = t.Track
	}
	rec.pc.OnTrack(func(t *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, _, err := t.ReadRTP()
			if err != nil {
				return
			}
			rec.mu.Lock()
			rec.packets[names[uint32(t.SSRC())]] = append(rec.packets[names[uint32(t.SSRC())]], *p)
			rec.mu.Unlock()
		}
	})
	rec.pc.OnDataChannel(func(dc *webrtc.DataChannel) {
		dc.OnMessage(func(m webrtc.DataChannelMessage) { rec.hear(m.Data) })
		dc.OnOpen(func() { rec.mu.Lock(); rec.ctl = dc; rec.mu.Unlock() })
	})
	if err := rec.pc.SetRemoteDescription(o.Offer); err != nil {
		r.t.Fatal(err)
	}
	a, err := rec.pc.CreateAnswer(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(rec.pc)
	if err := rec.pc.SetLocalDescription(a); err != nil {
		r.t.Fatal(err)
	}
	<-gathered
	body := map[string]any{"sessionId": o.SessionID, "type": "answer", "sdp": rec.pc.LocalDescription().SDP}
	if s := r.do("PUT", "/v1/calls/"+id+"/answer", body, nil); s != http.StatusOK {
		r.t.Fatalf("answer: %d", s)
	}
	return rec
}

func (r *rig) gate(id string, rec *recorder, state string) int {
	return r.do("POST", "/v1/calls/"+id+"/gate", map[string]any{
		"sessionId": rec.session, "state": state,
		"ack": map[string]string{"status": "recording", "operationId": "op", "acknowledgedAt": time.Now().Format(time.RFC3339Nano)},
	}, nil)
}

func (rec *recorder) hear(message []byte) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for l := range strings.Lines(string(message)) {
		var m map[string]any
		if err := json.Unmarshal([]byte(l), &m); err != nil {
			rec.t.Errorf("control line: %v", err)
			continue
		}
		rec.lines = append(rec.lines, m)
	}
}

// of returns the lines of one kind.
func (rec *recorder) of(kind string) []map[string]any {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	var out []map[string]any
	for _, l := range rec.lines {
		if l["t"] == kind {
			out = append(out, l)
		}
	}
	return out
}

func (rec *recorder) got(track string) []rtp.Packet {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return append([]rtp.Packet(nil), rec.packets[track]...)
}

func (rec *recorder) await(kind string) map[string]any {
	rec.t.Helper()
	var found []map[string]any
	until(rec.t, "a line "+kind, func() bool { found = rec.of(kind); return len(found) > 0 })
	return found[0]
}

func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// ping renews the lease, as a recorder does every two seconds.
func (rec *recorder) ping() {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if err := rec.ctl.SendText(`{"t":"ping","seq":1}`); err != nil {
		rec.t.Error(err)
	}
}
