package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/datachannel"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/transport/v4/packetio"
	"github.com/pion/webrtc/v4"
)

// Times of a connection.
const (
	handshakeTime = 5 * time.Second // DTLS
	silentFor     = 5 * time.Second // until a peer counts as disconnected
	goneFor       = 5 * time.Second // and then as gone
	keepAlive     = 2 * time.Second
)

// maxUndeclared is how many sources that were not offered a peer may send. A gateway
// sends none.
const maxUndeclared = 100

// Events receives what a peer and its gateway say. Calls come one at a time and must
// return quickly.
type Events interface {
	// Connected: the peer is connected and the control channel is open.
	Connected()
	// Control is a line of the gateway that says something to the session.
	Control(kind string, line json.RawMessage)
	// Lost: the peer is gone for good, or the gateway broke the contract. It comes once,
	// and nothing after it.
	Lost(err error)
}

// Peer is one connection with the gateway.
type Peer struct {
	r       *Receiver
	pc      *webrtc.PeerConnection
	intake  *intake
	sockets *sockets
	events  Events
	answer  string
	log     *slog.Logger

	undeclared atomic.Int64
	closed     atomic.Bool

	telling sync.Mutex // serializes events
	lost    bool
	told    bool // Connected

	mu     sync.Mutex
	chosen bool                        // the control channel is there
	ctl    datachannel.ReadWriteCloser // once it is open
	up     bool
	nacks  sync.Once
}

// Connect answers an offer. It returns at once: the peer connects in the background and
// reports to events. The caller closes the peer.
func (r *Receiver) Connect(ctx context.Context, o Offer, events Events) (*Peer, error) {
	from, err := o.check(r.cfg.Remote)
	if err != nil {
		return nil, err
	}
	p := &Peer{r: r, events: events, log: r.cfg.Log.With(slog.String("leg", string(o.Leg)))}
	p.intake = newIntake(o.Tracks, o.SourceExt, r.cfg.Window, time.Now())
	p.sockets = &sockets{Net: r.net, r: r, from: from}
	api, err := p.api(o)
	if err != nil {
		return nil, fmt.Errorf("connect peer: %w", err)
	}
	if p.pc, err = api.NewPeerConnection(webrtc.Configuration{Certificates: []webrtc.Certificate{r.cert}}); err != nil {
		return nil, fmt.Errorf("connect peer: %w", err)
	}
	p.pc.OnConnectionStateChange(p.state)
	p.pc.OnDataChannel(p.channel)
	if err := p.describe(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("connect peer: %w", err), p.pc.Close())
	}
	r.mu.Lock()
	r.peers[p] = true
	r.mu.Unlock()
	return p, nil
}

func (p *Peer) describe(ctx context.Context, o Offer) error {
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: o.SDP}); err != nil {
		return fmt.Errorf("%w: %w", ErrOffer, err)
	}
	answer, err := p.pc.CreateAnswer(nil)
	if err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(answer); err != nil {
		return err
	}
	select {
	case <-gathered:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.answer = p.pc.LocalDescription().SDP
	return nil
}

// api sets pion up for one peer: what it offers is what the contract has, and what it
// receives comes here without a detour.
func (p *Peer) api(o Offer) (*webrtc.API, error) {
	engine := &webrtc.MediaEngine{}
	if err := codecs(engine, o); err != nil {
		return nil, err
	}
	local := net.IP(p.r.cfg.Local.AsSlice())
	var s webrtc.SettingEngine
	s.SetNet(p.sockets)
	s.SetLite(true)
	s.SetIncludeLoopbackCandidate(true)
	s.SetIPFilter(local.Equal)
	s.SetRemoteIPFilter(net.IP(p.r.cfg.Remote.AsSlice()).Equal)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetICETimeouts(silentFor, goneFor, keepAlive)
	s.SetDTLSConnectContextMaker(func() (context.Context, func()) {
		return context.WithTimeout(context.Background(), handshakeTime)
	})
	if err := s.SetAnsweringDTLSRole(webrtc.DTLSRoleServer); err != nil {
		return nil, err
	}
	s.SetSCTPMaxMessageSize(MaxControl)
	s.DetachDataChannels()
	s.SetFireOnTrackBeforeFirstRTP(true) // else a goroutine a track waits to learn its codec
	s.BufferFactory = p.buffer
	return webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(&interceptor.Registry{}), webrtc.WithSettingEngine(s)), nil
}

// codecs names what can be received, with NACK for audio too.
func codecs(engine *webrtc.MediaEngine, o Offer) error {
	nack := []webrtc.RTCPFeedback{{Type: "nack"}}
	video := append(nack, webrtc.RTCPFeedback{Type: "nack", Parameter: "pli"})
	var errs []error
	seen := map[uint8]bool{}
	for _, t := range o.Tracks {
		if seen[t.PT] {
			continue
		}
		seen[t.PT] = true
		if t.Kind == "audio" {
			opus := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=0", RTCPFeedback: nack}
			errs = append(errs, engine.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: opus, PayloadType: webrtc.PayloadType(t.PT)}, webrtc.RTPCodecTypeAudio))
			continue
		}
		pt := t.PT
		for _, profile := range []string{"42e01f", "42001f", "4d001f", "64001f"} {
			h264 := webrtc.RTPCodecCapability{
				MimeType: webrtc.MimeTypeH264, ClockRate: 90000, RTCPFeedback: video,
				SDPFmtpLine: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=" + profile,
			}
			errs = append(errs, engine.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: h264, PayloadType: webrtc.PayloadType(pt)}, webrtc.RTPCodecTypeVideo))
			for pt++; seen[pt]; pt++ {
			}
		}
	}
	if o.SourceExt != 0 {
		ext := webrtc.RTPHeaderExtensionCapability{URI: sourceExtension}
		errs = append(errs, engine.RegisterHeaderExtension(ext, webrtc.RTPCodecTypeAudio), engine.RegisterHeaderExtension(ext, webrtc.RTPCodecTypeVideo))
	}
	return errors.Join(errs...)
}

// buffer is where the SRTP session puts the packets of a source.
func (p *Peer) buffer(kind packetio.BufferPacketType, ssrc uint32) io.ReadWriteCloser {
	b := &inlet{peer: p, gone: make(chan struct{})}
	if kind == packetio.RTCPBufferPacket {
		b.rtcp = true
		return b
	}
	for _, s := range p.intake.slots {
		if s.ssrc == ssrc {
			b.slot = s
			return b
		}
	}
	b.shut() // nobody will read it
	p.undeclaredSource()
	return b
}

func (p *Peer) undeclaredSource() {
	n := p.undeclared.Add(1)
	p.intake.mu.Lock()
	p.intake.count.Undeclared++
	p.intake.odd(time.Now(), "packets of a source that was not offered")
	p.intake.mu.Unlock()
	if n == maxUndeclared {
		go p.fail(fmt.Errorf("%w: packets of %d sources that were not offered", ErrContract, n))
	}
}

// inlet takes decrypted packets from pion's session. Nothing is ever read from it.
type inlet struct {
	peer *Peer
	slot *slot
	rtcp bool
	once sync.Once
	gone chan struct{}
}

// Write takes one packet. What goes wrong in here ends this leg and no other.
func (b *inlet) Write(packet []byte) (int, error) {
	if b.slot == nil && !b.rtcp {
		return len(packet), nil
	}
	defer b.peer.contain()
	if b.rtcp {
		b.peer.intake.rtcp(time.Now(), packet)
	} else {
		b.peer.intake.rtp(time.Now(), b.slot, packet)
	}
	return len(packet), nil
}

// Read waits until the inlet is closed.
func (b *inlet) Read([]byte) (int, error) {
	<-b.gone
	return 0, io.EOF
}

func (b *inlet) shut() { b.once.Do(func() { close(b.gone) }) }

// Close ends Read.
func (b *inlet) Close() error {
	b.shut()
	return nil
}

// contain turns a panic into the end of the leg.
func (p *Peer) contain() {
	if fault := recover(); fault != nil {
		go p.fail(fmt.Errorf("internal fault: %v", fault))
	}
}

// Answer is the SDP answer for the gateway.
func (p *Peer) Answer() string { return p.answer }

// Counters returns what happened to packets so far.
func (p *Peer) Counters() Counters {
	p.intake.mu.Lock()
	defer p.intake.mu.Unlock()
	return p.intake.count
}

// Record lets frames through to a sink, from now on. Origin is a moment of the sink's
// clock, with its monotonic reading.
func (p *Peer) Record(origin time.Time, sink Sink) {
	p.intake.attach(origin, time.Now(), sink)
	p.sockets.lazy.Store(true)
}

// Stop ends what Record began. Frames from now on are dropped; those from before that
// lie in the socket, or wait for holes and lines, still go to the sink, and when Stop
// returns nothing more does. It takes a tenth of a second.
func (p *Peer) Stop() {
	defer p.contain()
	p.intake.close(time.Now())
	p.sockets.lazy.Store(false)
	time.Sleep(burst + pace)
	p.intake.detach(time.Now())
}

// Send puts a line on the control channel.
func (p *Peer) Send(line any) error {
	b, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("control line: %w", err)
	}
	p.mu.Lock()
	ctl := p.ctl
	p.mu.Unlock()
	if ctl == nil {
		return fmt.Errorf("control line: %w", errNotOpen)
	}
	if _, err := ctl.WriteDataChannel(append(b, '\n'), true); err != nil {
		return fmt.Errorf("control line: %w", err)
	}
	return nil
}

var errNotOpen = errors.New("the control channel is not open")

// Close ends the connection. What is recorded should be stopped before. Closing twice
// changes nothing.
func (p *Peer) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	p.r.mu.Lock()
	delete(p.r.peers, p)
	p.r.mu.Unlock()
	p.sockets.lazy.Store(false)
	if err := p.pc.Close(); err != nil {
		return fmt.Errorf("close peer: %w", err)
	}
	return nil
}

// fail reports the end of the connection, once.
func (p *Peer) fail(err error) {
	p.telling.Lock()
	defer p.telling.Unlock()
	if p.lost || p.closed.Load() {
		return
	}
	p.lost = true
	p.events.Lost(err)
}

func (p *Peer) state(s webrtc.PeerConnectionState) {
	switch s {
	case webrtc.PeerConnectionStateConnected:
		p.mu.Lock()
		p.up = true
		p.mu.Unlock()
		p.connected()
	case webrtc.PeerConnectionStateFailed:
		p.fail(errors.New("peer connection failed"))
	case webrtc.PeerConnectionStateClosed:
		p.fail(errClosed)
	}
}

// connected tells it when both the peer and the control channel are there.
func (p *Peer) connected() {
	p.mu.Lock()
	ready := p.up && p.ctl != nil
	p.mu.Unlock()
	if !ready {
		return
	}
	p.telling.Lock()
	defer p.telling.Unlock()
	if !p.told && !p.lost && !p.closed.Load() {
		p.told = true
		p.events.Connected()
	}
}

// channel takes the control channel. There is one; another is closed.
func (p *Peer) channel(dc *webrtc.DataChannel) {
	p.mu.Lock()
	second := p.chosen
	fits := dc.Label() == controlLabel && dc.Protocol() == controlProtocol && dc.Ordered()
	p.chosen = p.chosen || fits
	p.mu.Unlock()
	if second || !fits {
		p.log.Warn("data channel refused", slog.Bool("second", second))
		if err := dc.Close(); err != nil {
			p.log.Warn("data channel not closed", slog.String("cause", err.Error()))
		}
		return
	}
	dc.OnOpen(func() {
		raw, err := dc.Detach()
		if err != nil {
			p.fail(fmt.Errorf("control channel: %w", err))
			return
		}
		p.mu.Lock()
		p.ctl = raw
		p.mu.Unlock()
		p.connected()
		p.listen(raw)
	})
}

// listen hears the control channel until it is closed. pion's own reading would keep
// 64 KiB for each channel, four times what a message may have.
func (p *Peer) listen(raw datachannel.ReadWriteCloser) {
	b := make([]byte, MaxControl)
	for {
		n, err := raw.Read(b)
		switch {
		case errors.Is(err, io.ErrShortBuffer):
			p.fail(fmt.Errorf("%w: control message of more than %d bytes", ErrContract, MaxControl))
			return
		case err != nil:
			p.fail(errors.New("control channel closed"))
			return
		}
		if !p.heard(b[:n]) {
			return
		}
	}
}

// heard takes a message. It reports whether there may be more.
func (p *Peer) heard(message []byte) (more bool) {
	defer p.contain()
	return p.hear(message)
}

func (p *Peer) hear(message []byte) (more bool) {
	lines, raw, err := p.intake.control(time.Now(), message)
	p.telling.Lock()
	for i := range lines {
		if !p.lost && !p.closed.Load() {
			p.events.Control(lines[i].T, raw[i])
		}
	}
	p.telling.Unlock()
	if err != nil {
		p.fail(err)
	}
	return err == nil
}

// tick does what is due by time.
func (p *Peer) tick(now time.Time) {
	defer p.contain()
	packets, keyFrames := p.intake.tick(now)
	if len(packets) > 0 {
		if err := p.pc.WriteRTCP(packets); err != nil && !p.closed.Load() {
			p.nacks.Do(func() { p.log.Warn("feedback not sent", slog.String("cause", err.Error())) })
		}
	}
	for _, track := range keyFrames {
		if err := p.Send(map[string]string{"t": "keyframe", "track": track}); err != nil {
			p.log.Warn("key frame not asked for", slog.String("cause", err.Error()))
		}
	}
}
