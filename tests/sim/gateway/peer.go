package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
	"github.com/pion/webrtc/v4"
)

// sourceExtension carries epoch and source on every packet.
const sourceExtension = "urn:recorder:mgw:source:1"

// controlProtocol is the subprotocol of the data channel ctl.
const controlProtocol = "mgw.v1"

// maxControl is the size of the largest control message, in bytes.
const maxControl = 16 << 10

// track is one offered track.
type track struct {
	Name      string `json:"track"`
	MID       string `json:"mid"`
	Kind      string `json:"kind"`
	SSRC      uint32 `json:"ssrc"`
	PT        int    `json:"pt"`
	ClockRate int    `json:"clockRate"`

	local *webrtc.TrackLocalStaticRTP
	// The fields below belong to the sender.
	seq      uint16
	lastRTP  uint32
	lastSeen bool
	epoch    uint8
}

// peer is one peer connection with the recorder.
type peer struct {
	pc     *webrtc.PeerConnection
	api    *webrtc.API
	tracks []*track
	ext    int // id of the header extension
	stamp  atomic.Bool
	ctl    *webrtc.DataChannel
	socket *mortalNet

	mu      sync.Mutex
	seq     int
	waiting []delayed
	closed  bool
}

type delayed struct {
	due  time.Time
	line line
}

// line is one control line. Its t is the kind; seq is set when it is sent.
type line map[string]any

// newPeer makes the peer connection of an offer. Callbacks go to c.
func newPeer(c *call) (*peer, error) {
	p := &peer{}
	media := &webrtc.MediaEngine{}
	feedback := []webrtc.RTCPFeedback{{Type: "nack"}}
	opus := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=0", RTCPFeedback: feedback}
	h264 := webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeH264, ClockRate: 90000,
		SDPFmtpLine:  "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
		RTCPFeedback: append(feedback, webrtc.RTCPFeedback{Type: "nack", Parameter: "pli"}),
	}
	ext := webrtc.RTPHeaderExtensionCapability{URI: sourceExtension}
	err := errors.Join(
		media.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: opus, PayloadType: 111}, webrtc.RTPCodecTypeAudio),
		media.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: h264, PayloadType: 102}, webrtc.RTPCodecTypeVideo),
		media.RegisterHeaderExtension(ext, webrtc.RTPCodecTypeAudio),
		media.RegisterHeaderExtension(ext, webrtc.RTPCodecTypeVideo),
	)
	if err != nil {
		return nil, err
	}
	if p.socket, err = newMortalNet(); err != nil {
		return nil, err
	}
	chain, err := interceptors(c.g)
	if err != nil {
		return nil, err
	}
	p.api = webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(chain), webrtc.WithSettingEngine(c.g.settings(p.socket)))
	p.pc, err = p.api.NewPeerConnection(webrtc.Configuration{Certificates: []webrtc.Certificate{c.g.identity}})
	if err != nil {
		return nil, err
	}
	if err := p.addTracks(c, opus, h264); err != nil {
		return nil, errors.Join(err, p.pc.Close())
	}
	p.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) { c.peerChanged(p, s) })
	return p, nil
}

// settings keep the connection on loopback: one UDP port each, IPv4, no name resolution.
func (g *Gateway) settings(n transport.Net) webrtc.SettingEngine {
	var s webrtc.SettingEngine
	s.SetNet(n)
	s.SetIncludeLoopbackCandidate(true)
	s.SetIPFilter(func(ip net.IP) bool { return ip.Equal(net.IPv4(127, 0, 0, 1)) })
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetICETimeouts(8*time.Second, 16*time.Second, 2*time.Second)
	s.DisableCertificateFingerprintVerification(g.has(DefectNoFingerprint))
	if g.has(DefectNoGCM) {
		s.SetSRTPProtectionProfiles(dtls.SRTP_AES128_CM_HMAC_SHA1_80)
	}
	return s
}

// interceptors answer NACKs and send reports. The network comes first in the chain, so it is next to the wire.
func interceptors(g *Gateway) (*interceptor.Registry, error) {
	chain := &interceptor.Registry{}
	responder, err := nack.NewResponderInterceptor()
	if err != nil {
		return nil, err
	}
	reports, err := report.NewSenderInterceptor()
	if err != nil {
		return nil, err
	}
	chain.Add(badNetwork{g})
	chain.Add(responder)
	chain.Add(reports)
	return chain, nil
}

func (p *peer) addTracks(c *call, opus, h264 webrtc.RTPCodecCapability) error {
	for _, name := range c.trackNames() {
		codec, kind, pt := opus, "audio", 111
		if strings.HasPrefix(name, "v") {
			codec, kind, pt = h264, "video", 102
		}
		local, err := webrtc.NewTrackLocalStaticRTP(codec, name, "steno-"+name)
		if err != nil {
			return err
		}
		tr, err := p.pc.AddTransceiverFromTrack(local, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
		if err != nil {
			return err
		}
		params := tr.Sender().GetParameters()
		p.tracks = append(p.tracks, &track{
			Name: name, Kind: kind, SSRC: uint32(params.Encodings[0].SSRC), PT: pt, ClockRate: int(codec.ClockRate), local: local,
		})
		go p.readFeedback(c, name, tr.Sender()) // ends when the peer connection is closed
	}
	ordered, protocol := true, controlProtocol
	dc, err := p.pc.CreateDataChannel("ctl", &webrtc.DataChannelInit{Ordered: &ordered, Protocol: &protocol})
	if err != nil {
		return err
	}
	p.ctl = dc
	dc.OnOpen(func() { c.controlOpened(p) })
	dc.OnClose(func() { c.controlClosed(p) })
	dc.OnMessage(func(m webrtc.DataChannelMessage) { c.hear(p, m.Data) })
	return nil
}

// readFeedback lets the interceptors see RTCP and takes PLI and FIR as requests for a key frame.
func (p *peer) readFeedback(c *call, name string, sender *webrtc.RTPSender) {
	for {
		packets, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, packet := range packets {
			switch packet.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				c.keyFrame(name)
			}
		}
	}
}

// offer makes the offer and waits for the one candidate.
func (p *peer) offer() (string, error) {
	o, err := p.pc.CreateOffer(nil)
	if err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(o); err != nil {
		return "", err
	}
	<-gathered
	for i, tr := range p.pc.GetTransceivers() {
		p.tracks[i].MID = tr.Mid()
		for _, e := range tr.Sender().GetParameters().HeaderExtensions {
			if e.URI == sourceExtension {
				p.ext = e.ID
			}
		}
	}
	if p.ext == 0 {
		p.ext = extensionID(o.SDP)
	}
	return p.pc.LocalDescription().SDP, nil
}

// extensionID reads the id of the source extension from an SDP (RFC 8285 section 7), 0 if there is none.
func extensionID(sdp string) int {
	for l := range strings.Lines(sdp) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(l), "a=extmap:")
		if !ok {
			continue
		}
		id, uri, _ := strings.Cut(rest, " ")
		if n, err := strconv.Atoi(strings.SplitN(id, "/", 2)[0]); err == nil && uri == sourceExtension {
			return n
		}
	}
	return 0
}

// answer takes the recorder's answer. One without the header extension gets packets without it.
func (p *peer) answer(sdp string) error {
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdp}); err != nil {
		return err
	}
	p.stamp.Store(extensionID(sdp) != 0)
	return nil
}

// send puts one frame on the wire. Only the sender of the call calls it.
func (p *peer) send(f *frame, broken func(Defect) bool) error {
	t := f.track
	step := uint32(audioStep)
	jump := !t.lastSeen || f.rtp != t.lastRTP+step || f.epoch != t.epoch
	marker := jump
	if t.Kind == "video" {
		marker = f.last
	}
	h := rtp.Header{Version: 2, Marker: marker, SequenceNumber: t.seq, Timestamp: f.rtp}
	if p.stamp.Load() && !broken(DefectNoExtension) {
		s := f.source
		if broken(DefectWrongSource) && s%7 == 3 {
			s++
		}
		if err := h.SetExtension(uint8(p.ext), []byte{f.epoch, byte(s >> 24), byte(s >> 16), byte(s >> 8), byte(s)}); err != nil {
			return err
		}
	}
	t.seq++
	t.lastRTP, t.lastSeen, t.epoch = f.rtp, true, f.epoch
	return t.local.WriteRTP(&rtp.Packet{Header: h, Payload: f.payload})
}

// say sends lines in one message, now or after the delay. The first error is that of a channel that is not open.
func (p *peer) say(delay time.Duration, lines ...line) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(lines) == 0 {
		return nil
	}
	if delay > 0 || len(p.waiting) > 0 {
		due := time.Now().Add(delay)
		for _, l := range lines {
			p.waiting = append(p.waiting, delayed{due, l})
		}
		return nil
	}
	return p.write(lines)
}

// flush sends the delayed lines that are due, all of them if all is set.
func (p *peer) flush(all bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	now := time.Now()
	for n < len(p.waiting) && (all || !p.waiting[n].due.After(now)) {
		n++
	}
	if n == 0 {
		return nil
	}
	lines := make([]line, n)
	for i, d := range p.waiting[:n] {
		lines[i] = d.line
	}
	p.waiting = p.waiting[n:]
	return p.write(lines)
}

func (p *peer) write(lines []line) error {
	if p.closed || p.ctl.ReadyState() != webrtc.DataChannelStateOpen {
		return io.ErrClosedPipe
	}
	var message []byte
	for _, l := range lines {
		p.seq++
		l["seq"] = p.seq
		b, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("encode control line: %w", err)
		}
		if len(message) > 0 && len(message)+len(b)+1 > maxControl {
			if err := p.ctl.SendText(string(message)); err != nil {
				return err
			}
			message = nil
		}
		message = append(append(message, b...), '\n')
	}
	return p.ctl.SendText(string(message))
}

// close ends the connection after what was said has arrived, or after byeWait.
func (p *peer) close() error {
	err := p.flush(true)
	if errors.Is(err, io.ErrClosedPipe) {
		err = nil // nobody listens any more
	}
	for end := time.Now().Add(byeWait); time.Now().Before(end) && p.ctl.ReadyState() == webrtc.DataChannelStateOpen && p.ctl.BufferedAmount() > 0; {
		time.Sleep(2 * time.Millisecond)
	}
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	return errors.Join(err, p.pc.Close())
}

// badNetwork loses and reorders packets as Gateway.SetNetwork says.
type badNetwork struct{ g *Gateway }

// NewInterceptor makes the interceptor of one peer connection.
func (b badNetwork) NewInterceptor(string) (interceptor.Interceptor, error) {
	return &lossyPath{g: b.g}, nil
}

type lossyPath struct {
	interceptor.NoOp
	g *Gateway
}

// BindLocalStream puts the network under one stream.
func (l *lossyPath) BindLocalStream(_ *interceptor.StreamInfo, next interceptor.RTPWriter) interceptor.RTPWriter {
	var mu sync.Mutex
	var held func() (int, error)
	return interceptor.RTPWriterFunc(func(h *rtp.Header, payload []byte, a interceptor.Attributes) (int, error) {
		n := l.g.network.Load()
		if n.Loss == 0 && n.Reorder == 0 {
			return next.Write(h, payload, a)
		}
		mu.Lock()
		defer mu.Unlock()
		if rand.Float64() < n.Loss {
			return len(payload), nil
		}
		if held == nil && rand.Float64() < n.Reorder {
			header, body := h.Clone(), append([]byte(nil), payload...)
			held = func() (int, error) { return next.Write(&header, body, a) }
			return len(payload), nil
		}
		wrote, err := next.Write(h, payload, a)
		if held != nil && err == nil {
			_, err = held()
			held = nil
		}
		return wrote, err
	})
}

// mortalNet makes sockets that can die without a word, as those of a killed process do.
type mortalNet struct {
	*stdnet.Net
	dead atomic.Bool
	mu   sync.Mutex
	open []io.Closer
}

func newMortalNet() (*mortalNet, error) {
	n, err := stdnet.NewNet()
	if err != nil {
		return nil, err
	}
	return &mortalNet{Net: n}, nil
}

// ListenUDP opens a socket that dies with the net.
func (n *mortalNet) ListenUDP(network string, addr *net.UDPAddr) (transport.UDPConn, error) {
	c, err := n.Net.ListenUDP(network, addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open = append(n.open, c)
	return &mortalConn{c, n}, nil
}

// kill closes the sockets; what is written afterwards goes nowhere.
func (n *mortalNet) kill() {
	n.dead.Store(true)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.open {
		_ = c.Close() // a dead process does not look at errors
	}
}

type mortalConn struct {
	transport.UDPConn
	net *mortalNet
}

// WriteTo sends, unless the process is dead.
func (c *mortalConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.net.dead.Load() {
		return len(b), nil
	}
	return c.UDPConn.WriteTo(b, to)
}
