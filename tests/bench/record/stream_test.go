package record_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
	"github.com/thesyncim/gopus"
)

const (
	extension = "urn:recorder:mgw:source:1"
	source    = 1234
	patience  = 30 * time.Second
)

// stream is one publisher: a peer connection with one audio track.
type stream struct {
	pc    *webrtc.PeerConnection
	local *webrtc.TrackLocalStaticRTP
	ctl   *webrtc.DataChannel // for recorders that speak the gateway's contract
	ssrc  uint32
	up    chan struct{}
	open  chan struct{}
	seq   uint16
	n     uint32
	line  int
}

func newStream(contract bool) (*stream, error) {
	s := &stream{up: make(chan struct{}), open: make(chan struct{})}
	engine := &webrtc.MediaEngine{}
	opus := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=0", RTCPFeedback: []webrtc.RTCPFeedback{{Type: "nack"}}}
	err := engine.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: opus, PayloadType: 111}, webrtc.RTPCodecTypeAudio)
	if contract {
		err = errors.Join(err, engine.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: extension}, webrtc.RTPCodecTypeAudio))
	}
	reports, err2 := report.NewSenderInterceptor()
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	chain := &interceptor.Registry{}
	chain.Add(reports)
	var set webrtc.SettingEngine
	set.SetIPFilter(func(ip net.IP) bool { return ip.String() == address })
	set.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	set.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	api := webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(chain), webrtc.WithSettingEngine(set))
	if s.pc, err = api.NewPeerConnection(webrtc.Configuration{}); err != nil {
		return nil, err
	}
	if s.local, err = webrtc.NewTrackLocalStaticRTP(opus, "a0", "s"); err != nil {
		return nil, err
	}
	tr, err := s.pc.AddTransceiverFromTrack(s.local, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		return nil, err
	}
	s.ssrc = uint32(tr.Sender().GetParameters().Encodings[0].SSRC)
	s.pc.OnConnectionStateChange(func(c webrtc.PeerConnectionState) {
		if c == webrtc.PeerConnectionStateConnected {
			close(s.up)
		}
	})
	if !contract {
		close(s.open)
		return s, nil
	}
	ordered, protocol := true, "mgw.v1"
	if s.ctl, err = s.pc.CreateDataChannel("ctl", &webrtc.DataChannelInit{Ordered: &ordered, Protocol: &protocol}); err != nil {
		return nil, err
	}
	s.ctl.OnOpen(sync.OnceFunc(func() { close(s.open) }))
	return s, nil
}

// connect makes the offer and has it answered.
func (s *stream) connect(answer func() (string, error)) error {
	offer, err := s.pc.CreateOffer(nil)
	if err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(s.pc)
	if err := s.pc.SetLocalDescription(offer); err != nil {
		return err
	}
	<-gathered
	sdp, err := answer()
	if err != nil {
		return err
	}
	if err := s.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdp}); err != nil {
		return err
	}
	return nil
}

// wait waits for the connection.
func (s *stream) wait() error {
	for _, c := range []chan struct{}{s.up, s.open} {
		select {
		case <-c:
		case <-time.After(patience):
			return errors.New("not connected in time")
		}
	}
	return nil
}

// offered is the offer as the gateway's contract has it.
func (s *stream) offered() map[string]any {
	return map[string]any{
		"SDP": s.pc.LocalDescription().SDP, "SourceExt": 1,
		"Tracks": []map[string]any{{"Name": "a0", "Kind": "audio", "SSRC": s.ssrc, "PT": 111, "ClockRate": 48000}},
	}
}

func (s *stream) say(members map[string]any) error {
	s.line++
	members["seq"] = s.line
	b, err := json.Marshal(members)
	if err != nil {
		return err
	}
	return s.ctl.SendText(string(b) + "\n")
}

func (s *stream) clock(at time.Time) error {
	ticks := at.Sub(time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)).Nanoseconds() / 100
	return s.say(map[string]any{"t": "clock", "kind": "audio", "rtp": s.n * 960, "ts": strconv.FormatInt(ticks, 10), "wall": at.UTC().Format(time.RFC3339Nano)})
}

// bind says whose the stream is.
func (s *stream) bind() error {
	return s.say(map[string]any{"t": "bind", "n": 1, "track": "a0", "epoch": 1, "source": strconv.Itoa(source), "rtp": 0})
}

// talk sends 50 packets a second on every stream until ctx ends, and returns how many.
func talk(ctx context.Context, streams []*stream) (sent uint64) {
	frames := speech()
	start := time.Now()
	for tick := 0; ctx.Err() == nil; tick++ {
		for i, s := range streams {
			// Streams are spread over the 20 ms, in tenths.
			if i%(max(1, len(streams)/10)) == 0 {
				part := time.Duration(i) * 20 * time.Millisecond / time.Duration(len(streams))
				time.Sleep(time.Until(start.Add(time.Duration(tick)*20*time.Millisecond + part)))
			}
			if s.ctl != nil && s.n%250 == 0 {
				if err := s.clock(time.Now()); err != nil {
					panic(fmt.Sprint("clock line: ", err))
				}
			}
			if err := s.send(frames[(tick+i)%len(frames)]); err != nil {
				panic(fmt.Sprint("send: ", err))
			}
			sent++
		}
	}
	return sent
}

func (s *stream) send(frame []byte) error {
	h := rtp.Header{Version: 2, SequenceNumber: s.seq, Timestamp: s.n * 960}
	s.seq++
	s.n++
	if s.ctl != nil {
		if err := h.SetExtension(1, []byte{1, source >> 24, source >> 16 & 0xff, source >> 8 & 0xff, source & 0xff}); err != nil {
			return err
		}
	}
	return s.local.WriteRTP(&rtp.Packet{Header: h, Payload: frame})
}

// speech is ten seconds of something like it: tones that come and go, at 24 kbit/s.
var speech = sync.OnceValue(func() (out [][]byte) {
	enc, err := gopus.NewEncoder(gopus.EncoderConfig{SampleRate: 16000, Channels: 1, Application: gopus.ApplicationVoIP})
	if err == nil {
		err = enc.SetBitrate(24000)
	}
	if err != nil {
		panic(err)
	}
	pcm, packet := make([]float32, 320), make([]byte, 1500)
	for i := range 500 {
		for j := range pcm {
			t := float64(i*320+j) / 16000
			level := 0.4 * math.Max(0, math.Sin(2*math.Pi*0.7*t))
			pcm[j] = float32(level * (math.Sin(2*math.Pi*180*t) + 0.5*math.Sin(2*math.Pi*1250*t+3*math.Sin(2*math.Pi*3*t))))
		}
		n, err := enc.Encode(pcm, packet)
		if err != nil {
			panic(err)
		}
		out = append(out, append([]byte(nil), packet[:n]...))
	}
	return out
})
