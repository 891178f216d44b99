package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

const sourceExtension = "urn:recorder:mgw:source:1"

type track struct {
	Track, MID, Kind string
	SSRC             uint32
	PT               int
	ClockRate        int
}

// made is the gateway's reply to a new call.
type made struct {
	CallID, SessionID, InstanceID, State, Blob string
	Modalities                                 []string
	Offer                                      webrtc.SessionDescription
	Tracks                                     []track
	ExtMap                                     map[string]int
	AudioBase, VideoBase                       uint32
}

// packet is an RTP packet as it arrived.
type packet struct {
	track   string
	rtp     uint32
	seq     uint16
	marker  bool
	payload []byte
	stamped bool // it has the header extension
	epoch   uint8
	source  uint32
	at      time.Time
}

// line is a control line of the gateway; members that a kind does not have are zero.
type line struct {
	T, Track, Source, Reason, Why, Kind, State, Audio, TS, Wall, Socket string
	InstanceID, CallID, SessionID, Contract                             string
	Seq, N                                                              int64
	Epoch                                                               uint8
	RTP, Frames                                                         json.RawMessage
	From, To                                                            uint32
	W, H                                                                int
	Ticks, Gated, Silent                                                int64
}

func (l line) rtp() uint32 {
	var n uint32
	if json.Unmarshal(l.RTP, &n) != nil {
		return 0
	}
	return n
}

func (l line) frames() int {
	var n int
	if json.Unmarshal(l.Frames, &n) != nil {
		return -1
	}
	return n
}

// call is a call of the gateway with the recorder's end of it.
type call struct {
	t *trial
	made
	id   string
	pc   *webrtc.PeerConnection
	mute atomic.Bool // no pings
	// bySSRC names the tracks as the gateway's reply does.
	bySSRC map[uint32]track

	mu      sync.Mutex
	ctl     *webrtc.DataChannel
	lines   []line
	came    []packet
	total   int
	mids    map[string]string // mid on which a track's SSRC arrived
	stopped chan struct{}
}

// settings say how the recorder's end connects.
type settings struct {
	role        webrtc.DTLSRole // zero: the library's choice
	onlyGCM     bool
	fingerprint func(sdp string) string
}

// create makes a call; body has more members than callId.
func (t *trial) create(body map[string]any) *call {
	c := &call{t: t, id: t.newID()}
	all := map[string]any{"callId": c.id}
	for k, v := range body {
		all[k] = v
	}
	t.demand(http.StatusCreated, http.MethodPost, "/v1/calls", all, &c.made)
	t.cleanup(func() { c.discard() })
	return c
}

func (t *trial) newID() string {
	t.made++
	return fmt.Sprintf("%s-%d", t.prefix, t.made)
}

// discard deletes the call. It may have gone by itself.
func (c *call) discard() {
	c.hangUp()
	if _, err := c.t.client.do(c.t.ctx, http.MethodDelete, "/v1/calls/"+c.id, nil, nil); err != nil {
		c.t.logf("delete %s: %v", c.id, err)
	}
}

// hangUp ends the recorder's end without a word on the control channel.
func (c *call) hangUp() {
	if c.pc == nil {
		return
	}
	close(c.stopped)
	if err := c.pc.Close(); err != nil {
		c.t.logf("close peer connection: %v", err)
	}
	c.pc = nil
}

// record makes a call, connects and opens the gate.
func (t *trial) record(body map[string]any) *call {
	c := t.connect(body)
	c.open()
	return c
}

// connect makes a call and connects, gate closed.
func (t *trial) connect(body map[string]any) *call {
	c := t.create(body)
	c.answer(settings{role: webrtc.DTLSRoleServer})
	c.await("hello")
	return c
}

// answer connects to the offer.
func (c *call) answer(how settings) {
	t := c.t
	pc, err := c.newPeer(how)
	if err != nil {
		t.fatalf("make peer connection: %v", err)
	}
	c.pc, c.stopped, c.mids = pc, make(chan struct{}), map[string]string{}
	c.bySSRC = map[uint32]track{}
	for _, tr := range c.Tracks {
		c.bySSRC[tr.SSRC] = tr
	}
	pc.OnTrack(func(tr *webrtc.TrackRemote, r *webrtc.RTPReceiver) { c.receive(pc, tr, r) })
	pc.OnDataChannel(c.control)
	if err := pc.SetRemoteDescription(c.Offer); err != nil {
		t.fatalf("take offer: %v", err)
	}
	a, err := pc.CreateAnswer(nil)
	if err != nil {
		t.fatalf("make answer: %v", err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(a); err != nil {
		t.fatalf("take answer: %v", err)
	}
	<-gathered
	sdp := pc.LocalDescription().SDP
	if how.fingerprint != nil {
		sdp = how.fingerprint(sdp)
	}
	t.demand(http.StatusOK, http.MethodPut, "/v1/calls/"+c.id+"/answer", map[string]any{"sessionId": c.SessionID, "type": "answer", "sdp": sdp}, nil)
}

func (c *call) newPeer(how settings) (*webrtc.PeerConnection, error) {
	media, chain := &webrtc.MediaEngine{}, &interceptor.Registry{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		return nil, err
	}
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
		if err := media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: sourceExtension}, kind); err != nil {
			return nil, err
		}
		media.RegisterFeedback(webrtc.RTCPFeedback{Type: "nack"}, kind)
	}
	if c.t.has("nack") { // repairs what a busy machine loses on loopback
		generator, err := nack.NewGeneratorInterceptor(nack.GeneratorInterval(20 * time.Millisecond))
		if err != nil {
			return nil, err
		}
		chain.Add(generator)
	}
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	s.SetIPFilter(func(ip net.IP) bool { return ip.Equal(net.IPv4(127, 0, 0, 1)) })
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	if how.role != 0 {
		if err := s.SetAnsweringDTLSRole(how.role); err != nil {
			return nil, err
		}
	}
	if how.onlyGCM {
		s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AEAD_AES_128_GCM)
	}
	api := webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(chain), webrtc.WithSettingEngine(s))
	return api.NewPeerConnection(webrtc.Configuration{})
}

// receive reads one track until the connection ends.
func (c *call) receive(pc *webrtc.PeerConnection, remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	name := c.bySSRC[uint32(remote.SSRC())].Track
	c.mu.Lock()
	for _, tr := range pc.GetTransceivers() {
		if tr.Receiver() == receiver {
			c.mids[name] = tr.Mid()
		}
	}
	c.mu.Unlock()
	ext := c.ExtMap[sourceExtension]
	for {
		p, _, err := remote.ReadRTP()
		if err != nil {
			return
		}
		c.mu.Lock()
		c.came = append(c.came, arrived(name, ext, p))
		c.total++
		c.mu.Unlock()
	}
}

func arrived(name string, ext int, p *rtp.Packet) packet {
	out := packet{
		track: name, rtp: p.Timestamp, seq: p.SequenceNumber, marker: p.Marker, payload: slices.Clone(p.Payload), at: time.Now(),
	}
	if e := p.GetExtension(uint8(ext)); len(e) == 5 {
		out.stamped, out.epoch = true, e[0]
		out.source = uint32(e[1])<<24 | uint32(e[2])<<16 | uint32(e[3])<<8 | uint32(e[4])
	}
	return out
}

// control takes the data channel and pings every two seconds while it is open.
func (c *call) control(dc *webrtc.DataChannel) {
	dc.OnMessage(func(m webrtc.DataChannelMessage) { c.hear(m.Data) })
	dc.OnOpen(func() {
		c.mu.Lock()
		c.ctl = dc
		c.mu.Unlock()
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		for {
			if !c.mute.Load() {
				c.say(`{"t":"ping","seq":1}`)
			}
			select {
			case <-tick.C:
			case <-c.stopped:
				return
			}
		}
	})
	if dc.Label() != "ctl" || dc.Protocol() != "mgw.v1" || !dc.Ordered() {
		c.t.errorf("data channel %q, protocol %q, ordered %t", dc.Label(), dc.Protocol(), dc.Ordered())
	}
}

func (c *call) say(text string) {
	c.mu.Lock()
	dc := c.ctl
	c.mu.Unlock()
	if dc == nil {
		return
	}
	if err := dc.SendText(text); err != nil {
		c.t.logf("control channel: %v", err)
	}
}

// hear takes a message and demands that lines are numbered without holes.
func (c *call) hear(message []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(message) > 16<<10 {
		c.t.errorf("control message of %d bytes", len(message))
	}
	for text := range strings.Lines(string(message)) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			c.t.errorf("control line %q: %v", text, err)
			continue
		}
		if want := int64(len(c.lines) + 1); l.Seq != want {
			c.t.errorf("control line %d after %d", l.Seq, want-1)
		}
		c.lines = append(c.lines, l)
	}
}

// gate asks for a state of the gate.
func (c *call) gate(state string, ack any) response {
	body := map[string]any{"sessionId": c.SessionID, "state": state, "reason": "conformance"}
	if ack != nil {
		body["ack"] = ack
	}
	return c.t.ask(http.MethodPost, "/v1/calls/"+c.id+"/gate", body)
}

func acknowledged() map[string]string {
	return map[string]string{"status": "recording", "operationId": "operation-1", "acknowledgedAt": time.Now().UTC().Format(time.RFC3339Nano)}
}

func (c *call) open() {
	if res := c.gate("open", acknowledged()); res.status != http.StatusOK {
		c.t.fatalf("open gate: %d %s", res.status, res.body)
	}
}

// shut closes the gate and returns the last RTP time of audio.
func (c *call) shut() uint32 {
	res := c.gate("closed", nil)
	var body struct{ LastRTP struct{ Audio uint32 } }
	if res.status != http.StatusOK || json.Unmarshal(res.body, &body) != nil {
		c.t.fatalf("close gate: %d %s", res.status, res.body)
	}
	return body.LastRTP.Audio
}

// of returns the lines of one kind.
func (c *call) of(kind string) []line {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []line
	for _, l := range c.lines {
		if l.T == kind {
			out = append(out, l)
		}
	}
	return out
}

func (c *call) await(kind string) line {
	var found []line
	c.t.until("a line "+kind, func() bool { found = c.of(kind); return len(found) > 0 })
	return found[0]
}

// awaitThat waits for a line of a kind that fits.
func (c *call) awaitThat(kind, what string, fits func(line) bool) line {
	var out line
	c.t.until("a line "+kind+" "+what, func() bool {
		i := slices.IndexFunc(c.of(kind), fits)
		if i >= 0 {
			out = c.of(kind)[i]
		}
		return i >= 0
	})
	return out
}

// take waits until n packets have come, and returns all that have, in the order of their tracks' sequence numbers.
func (c *call) take(n int) []packet {
	if !c.t.within(c.t.patience, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.came) >= n }) {
		c.mu.Lock()
		got := len(c.came)
		c.mu.Unlock()
		c.t.fatalf("%d packets came, %d were due", got, n)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.came
	c.came = nil
	slices.SortStableFunc(out, func(a, b packet) int {
		if a.track != b.track {
			return strings.Compare(a.track, b.track)
		}
		return int(int16(a.seq - b.seq))
	})
	return out
}

// quiet waits a little and demands that no packet has come.
func (c *call) quiet(why string) {
	time.Sleep(100 * time.Millisecond)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.came) > 0 {
		c.t.errorf("%d packets %s", len(c.came), why)
		c.came = nil
	}
}
