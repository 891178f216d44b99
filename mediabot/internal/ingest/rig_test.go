package ingest_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/rtp"
	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
	"github.com/pion/webrtc/v4"
	"github.com/thesyncim/gopus"

	"steno/mediabot/internal/ingest"
)

const sourceURI = "urn:recorder:mgw:source:1"

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// sender is the gateway's end of a peer connection, made with pion.
type sender struct {
	t      testing.TB
	pc     *webrtc.PeerConnection
	ctl    *webrtc.DataChannel
	tracks []*sending
	offer  ingest.Offer
	open   chan struct{}
	net    *mortal

	mu    sync.Mutex
	seq   int
	heard []string
}

type sending struct {
	ingest.Track
	local *webrtc.TrackLocalStaticRTP
	seq   uint16
}

type senderOptions struct {
	audio, video int
	noExtension  bool
	loss         func(track string, seq uint16) bool // of the first transmission
	nacks        bool
	certificate  *webrtc.Certificate
}

// newSender makes an offer with tracks a0… and v0….
func newSender(t testing.TB, o senderOptions) *sender {
	t.Helper()
	s := &sender{t: t, open: make(chan struct{})}
	engine := &webrtc.MediaEngine{}
	feedback := []webrtc.RTCPFeedback{{Type: "nack"}}
	opus := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, RTCPFeedback: feedback}
	h264 := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264, ClockRate: 90000, RTCPFeedback: feedback, SDPFmtpLine: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}
	must(t, engine.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: opus, PayloadType: 111}, webrtc.RTPCodecTypeAudio))
	must(t, engine.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: h264, PayloadType: 102}, webrtc.RTPCodecTypeVideo))
	if !o.noExtension {
		ext := webrtc.RTPHeaderExtensionCapability{URI: sourceURI}
		must(t, engine.RegisterHeaderExtension(ext, webrtc.RTPCodecTypeAudio))
		must(t, engine.RegisterHeaderExtension(ext, webrtc.RTPCodecTypeVideo))
	}
	chain := &interceptor.Registry{}
	if o.loss != nil {
		chain.Add(&lossy{s: s, drop: o.loss})
	}
	if o.nacks {
		responder, err := nack.NewResponderInterceptor()
		must(t, err)
		chain.Add(responder)
	}
	var set webrtc.SettingEngine
	n, err := stdnet.NewNet()
	must(t, err)
	s.net = &mortal{Net: n}
	set.SetNet(s.net)
	set.SetIncludeLoopbackCandidate(true)
	set.SetIPFilter(func(ip net.IP) bool { return ip.Equal(net.IPv4(127, 0, 0, 1)) })
	set.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	set.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	api := webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(chain), webrtc.WithSettingEngine(set))
	var cfg webrtc.Configuration
	if o.certificate != nil {
		cfg.Certificates = []webrtc.Certificate{*o.certificate}
	}
	pc, err := api.NewPeerConnection(cfg)
	must(t, err)
	s.pc = pc
	t.Cleanup(func() { must(t, pc.Close()) })
	for i := range o.audio + o.video {
		name, kind, codec, pt := "a"+strconv.Itoa(i), "audio", opus, 111
		if i >= o.audio {
			name, kind, codec, pt = "v"+strconv.Itoa(i-o.audio), "video", h264, 102
		}
		local, err := webrtc.NewTrackLocalStaticRTP(codec, name, "s-"+name)
		must(t, err)
		tr, err := pc.AddTransceiverFromTrack(local, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
		must(t, err)
		go func() { // the responder sees RTCP only if somebody reads it
			for {
				if _, _, err := tr.Sender().ReadRTCP(); err != nil {
					return
				}
			}
		}()
		s.tracks = append(s.tracks, &sending{local: local, Track: ingest.Track{
			Name: name, Kind: kind, SSRC: uint32(tr.Sender().GetParameters().Encodings[0].SSRC), PT: uint8(pt), ClockRate: int(codec.ClockRate),
		}})
	}
	ordered, protocol := true, "mgw.v1"
	s.ctl, err = pc.CreateDataChannel("ctl", &webrtc.DataChannelInit{Ordered: &ordered, Protocol: &protocol})
	must(t, err)
	s.ctl.OnOpen(func() { close(s.open) })
	s.ctl.OnMessage(func(m webrtc.DataChannelMessage) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.heard = append(s.heard, string(m.Data))
	})
	offer, err := pc.CreateOffer(nil)
	must(t, err)
	gathered := webrtc.GatheringCompletePromise(pc)
	must(t, pc.SetLocalDescription(offer))
	<-gathered
	s.offer = ingest.Offer{SDP: pc.LocalDescription().SDP}
	if !o.noExtension {
		s.offer.SourceExt = 1
	}
	for _, tr := range s.tracks {
		s.offer.Tracks = append(s.offer.Tracks, tr.Track)
	}
	return s
}

// lossy loses first transmissions.
type lossy struct {
	interceptor.NoOp
	s    *sender
	drop func(track string, seq uint16) bool
}

func (l *lossy) NewInterceptor(string) (interceptor.Interceptor, error) { return l, nil }

func (l *lossy) BindLocalStream(info *interceptor.StreamInfo, next interceptor.RTPWriter) interceptor.RTPWriter {
	seen := map[uint16]bool{}
	var mu sync.Mutex
	return interceptor.RTPWriterFunc(func(h *rtp.Header, payload []byte, a interceptor.Attributes) (int, error) {
		mu.Lock()
		first := !seen[h.SequenceNumber]
		seen[h.SequenceNumber] = true
		mu.Unlock()
		name := ""
		for _, tr := range l.s.tracks {
			if tr.SSRC == info.SSRC {
				name = tr.Name
			}
		}
		if first && l.drop(name, h.SequenceNumber) {
			return len(payload), nil
		}
		return next.Write(h, payload, a)
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// say sends a control line with the next seq.
func (s *sender) say(kind string, members map[string]any) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	members["t"], members["seq"] = kind, s.seq
	b, err := json.Marshal(members)
	must(s.t, err)
	must(s.t, s.ctl.SendText(string(b)+"\n"))
}

// tickOf is a wall-clock time as the platform states it.
func tickOf(t time.Time) string {
	return strconv.FormatInt(t.Sub(time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)).Nanoseconds()/100, 10)
}

func (s *sender) clock(rtp uint32, wall time.Time) {
	// time.Duration holds 292 years: ticks since 1900 fit.
	s.say("clock", map[string]any{"kind": "audio", "rtp": rtp, "ts": tickOf(wall), "wall": wall.UTC().Format(time.RFC3339Nano)})
}

func (s *sender) bind(track string, epoch int, source uint32, at uint32) {
	s.say("bind", map[string]any{"n": 1, "track": track, "epoch": epoch, "source": strconv.FormatUint(uint64(source), 10), "rtp": at})
}

// send puts a frame on a track.
func (s *sender) send(track int, at uint32, epoch uint8, source uint32, payload []byte) {
	s.t.Helper()
	tr := s.tracks[track]
	h := rtp.Header{Version: 2, SequenceNumber: tr.seq, Timestamp: at}
	tr.seq++
	if s.offer.SourceExt != 0 {
		must(s.t, h.SetExtension(uint8(s.offer.SourceExt), binary.BigEndian.AppendUint32([]byte{epoch}, source)))
	}
	must(s.t, tr.local.WriteRTP(&rtp.Packet{Header: h, Payload: payload}))
}

// tones returns n Opus frames of a rising tone, encoded as the gateway does: no two are
// the same.
func tones(t testing.TB, hz float64, n int) [][]byte {
	t.Helper()
	enc, err := gopus.NewEncoder(gopus.EncoderConfig{SampleRate: 16000, Channels: 1, Application: gopus.ApplicationVoIP})
	must(t, err)
	var out [][]byte
	pcm, packet, phase := make([]float32, 320), make([]byte, 1500), 0.0
	seen := map[string]bool{}
	for range n {
		for j := range pcm {
			pcm[j] = 0.4 * float32(math.Sin(phase))
			phase += 2 * math.Pi * hz / 16000
			hz += 0.003
		}
		k, err := enc.Encode(pcm, packet)
		must(t, err)
		out = append(out, append([]byte(nil), packet[:k]...))
		if seen[string(packet[:k])] {
			t.Fatal("two frames are the same")
		}
		seen[string(packet[:k])] = true
	}
	return out
}

// told collects what a peer says.
type told struct {
	mu        sync.Mutex
	connected chan struct{}
	lost      chan error
	lines     []string
}

func newTold() *told { return &told{connected: make(chan struct{}), lost: make(chan error, 1)} }

func (e *told) Connected() { close(e.connected) }

func (e *told) Control(kind string, _ json.RawMessage) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = append(e.lines, kind)
}

func (e *told) Lost(err error) { e.lost <- err }

// await waits for a channel.
func await[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("in vain: ", what)
		panic("unreachable")
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("in vain: ", what)
		}
	}
}

// answer lets the sender know the peer's answer.
func answer(t testing.TB, s *sender, peer *ingest.Peer) {
	t.Helper()
	answerSDP(t, s, peer.Answer())
}

func answerSDP(t testing.TB, s *sender, sdp string) {
	t.Helper()
	must(t, s.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdp}))
}

// mortal makes sockets that can die without a word, as those of a killed process do.
type mortal struct {
	*stdnet.Net
	mu   sync.Mutex
	open []net.PacketConn
}

func (m *mortal) ListenUDP(network string, at *net.UDPAddr) (transport.UDPConn, error) {
	c, err := m.Net.ListenUDP(network, at)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open = append(m.open, c)
	return c, nil
}

func (m *mortal) kill(t testing.TB) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.open {
		must(t, c.Close())
	}
}
