package sim_test

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"steno/tests/sim"
	"steno/tests/sim/gateway"
)

// tape is what one peer connection brought.
type tape struct {
	t  *testing.T
	pc *webrtc.PeerConnection

	mu      sync.Mutex
	packets map[uint32][]rtp.Packet // of audio, by the source that the header extension names
	video   map[uint32]int          // pictures by source
	clocks  []clockLine
	hello   bool
}

type clockLine struct {
	T, Kind, TS string
	RTP         json.RawMessage
}

// gatewayAsks sends a request to the gateway.
func (b *bot) gatewayAsks(method, path string, body, into any) {
	b.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	req, err := http.NewRequest(method, b.media.URL()+path, bytes.NewReader(raw))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+b.media.Token())
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode/100 != 2 {
		b.t.Fatalf("%s %s: %d", method, path, res.StatusCode)
	}
	if into != nil {
		if err := json.NewDecoder(res.Body).Decode(into); err != nil {
			b.t.Fatal(err)
		}
	}
}

// roll connects to the gateway for a call and returns blob and session.
func (b *bot) roll(id string, video bool) (tape *tape, blob, session string) {
	b.t.Helper()
	var made struct {
		SessionID, Blob string
		Offer           webrtc.SessionDescription
		ExtMap          map[string]uint8
	}
	sockets := 0
	if video {
		sockets = 1
	}
	b.gatewayAsks("POST", "/v1/calls", map[string]any{"callId": id, "video": map[string]int{"sockets": sockets}, "vbss": video}, &made)
	tape = newTape(b.t, made.ExtMap["urn:recorder:mgw:source:1"])
	if err := tape.pc.SetRemoteDescription(made.Offer); err != nil {
		b.t.Fatal(err)
	}
	answer, err := tape.pc.CreateAnswer(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(tape.pc)
	if err := tape.pc.SetLocalDescription(answer); err != nil {
		b.t.Fatal(err)
	}
	<-gathered
	b.gatewayAsks("PUT", "/v1/calls/"+id+"/answer", map[string]string{
		"sessionId": made.SessionID, "type": "answer", "sdp": tape.pc.LocalDescription().SDP,
	}, nil)
	b.until("the connection", func() bool { tape.mu.Lock(); defer tape.mu.Unlock(); return tape.hello })
	return tape, made.Blob, made.SessionID
}

func newTape(t *testing.T, ext uint8) *tape {
	t.Helper()
	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
		if err := media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: "urn:recorder:mgw:source:1"}, kind); err != nil {
			t.Fatal(err)
		}
	}
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	s.SetIPFilter(func(ip net.IP) bool { return ip.IsLoopback() })
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithSettingEngine(s)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	tape := &tape{t: t, pc: pc, packets: map[uint32][]rtp.Packet{}, video: map[uint32]int{}}
	pc.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, _, err := tr.ReadRTP()
			if err != nil {
				return
			}
			e := p.GetExtension(ext)
			source := uint32(e[1])<<24 | uint32(e[2])<<16 | uint32(e[3])<<8 | uint32(e[4])
			tape.mu.Lock()
			if tr.Kind() == webrtc.RTPCodecTypeAudio {
				tape.packets[source] = append(tape.packets[source], *p)
			} else if p.Marker {
				tape.video[source]++
			}
			tape.mu.Unlock()
		}
	})
	pc.OnDataChannel(func(dc *webrtc.DataChannel) { dc.OnMessage(tape.hear) })
	return tape
}

func (tape *tape) hear(m webrtc.DataChannelMessage) {
	tape.mu.Lock()
	defer tape.mu.Unlock()
	for l := range strings.Lines(string(m.Data)) {
		var c clockLine
		if err := json.Unmarshal([]byte(l), &c); err != nil {
			tape.t.Error(err)
		}
		tape.hello = tape.hello || c.T == "hello"
		if c.T == "clock" && c.Kind == "audio" {
			tape.clocks = append(tape.clocks, c)
		}
	}
}

func (tape *tape) frames() int {
	tape.mu.Lock()
	defer tape.mu.Unlock()
	n := 0
	for _, ps := range tape.packets {
		n += len(ps)
	}
	return n
}

// instant places an RTP time on the platform's clock by the first clock line.
func (tape *tape) instant(at uint32) time.Time {
	var rtp uint32
	if err := json.Unmarshal(tape.clocks[0].RTP, &rtp); err != nil {
		tape.t.Fatal(err)
	}
	ts, err := strconv.ParseInt(tape.clocks[0].TS, 10, 64)
	if err != nil {
		tape.t.Fatal(err)
	}
	return gateway.Instant(ts + int64(int32(at-rtp))*200000/960)
}

func (b *bot) openGate(id, session string) {
	b.gatewayAsks("POST", "/v1/calls/"+id+"/gate", map[string]any{
		"sessionId": session, "state": "open",
		"ack": map[string]string{"status": "recording", "operationId": "op", "acknowledgedAt": time.Now().Format(time.RFC3339Nano)},
	}, nil)
}

func TestWhatTheGatewaySendsIsTheTruthOfTheCall(t *testing.T) {
	for name, plan := range map[string]sim.CallPlan{
		"of two, mixed":         {Talk: sim.AllAtOnce},
		"of three, unmixed":     {Talk: sim.AllAtOnce},
		"with turns":            {},
		"with missing ticks":    {Talk: sim.AllAtOnce, MissingTicks: 7},
		"with late time stamps": {Talk: sim.AllAtOnce, ZeroStamps: 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBot(t, sim.Config{})
			plan.Parties = []sim.Party{{Person: b.recorded(), Recorded: true}, {Phone: "+4930123456"}}
			if name != "of two, mixed" {
				plan.Parties = append(plan.Parties, sim.Party{Guest: "Somebody"})
			}
			call, id := b.place(plan)
			tape, blob, session := b.roll(id, false)
			b.openGate(id, session)
			if r := b.answer(id, blob); r.status != http.StatusAccepted {
				t.Fatalf("answer: %d %s", r.status, r.body)
			}
			b.until("speech", func() bool { return tape.frames() >= 120 })
			call.End()
			tape.compare(call.Truth())
		})
	}
}

// compare demands that every frame that arrived was said, by the participant whose source it names, at that very time,
// and that none is missing before the last that arrived.
func (tape *tape) compare(truth sim.Truth) {
	t := tape.t
	said := map[uint32]map[time.Time][]byte{}
	total := 0
	for _, u := range truth.Utterances {
		if said[u.MSI] == nil {
			said[u.MSI] = map[time.Time][]byte{}
		}
		for i, p := range u.Packets {
			said[u.MSI][u.From.Add(time.Duration(i)*gateway.TickLength)] = p
			total++
		}
	}
	for end := time.Now().Add(patience); tape.frames() < total && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond) // the last frames are on their way
	}
	tape.mu.Lock()
	defer tape.mu.Unlock()
	got := 0
	for source, ps := range tape.packets {
		for _, p := range ps {
			at := tape.instant(p.Timestamp)
			if !bytes.Equal(said[source][at], p.Payload) {
				t.Fatalf("a frame of source %d at %v was not said", source, at)
			}
			got++
		}
	}
	if got != total {
		t.Errorf("%d frames arrived of %d said", got, total)
	}
}

func TestACameraAndASharedScreenArriveOnceTheyAreSubscribed(t *testing.T) {
	b := newBot(t, sim.Config{})
	call, id := b.place(sim.CallPlan{Kind: sim.Conferred, Talk: sim.Silent})
	tape, blob, session := b.roll(id, true)
	who := call.Participants()
	if err := call.Show(who[0], true); err != nil {
		t.Fatal(err)
	}
	if err := call.Share(who[1], true); err != nil {
		t.Fatal(err)
	}
	camera, screen := call.Truth().Sources[0].MSI+1, call.Truth().Sources[1].MSI+2
	for socket, source := range map[string]uint32{"v0": camera, "vbss": screen} {
		b.gatewayAsks("PUT", "/v1/calls/"+id+"/subscriptions/"+socket, map[string]string{
			"source": strconv.FormatUint(uint64(source), 10), "resolution": "HD720p",
		}, nil)
	}
	b.openGate(id, session)
	b.answer(id, blob)
	b.until("pictures of both", func() bool {
		tape.mu.Lock()
		defer tape.mu.Unlock()
		return tape.video[camera] >= 5 && tape.video[screen] >= 2
	})
	if n := len(call.Truth().Pictures); n < 7 {
		t.Errorf("the truth has %d pictures", n)
	}
}
