package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"
)

// State is the state of a call.
type State string

// The states of a call.
const (
	StateNew        State = "new"
	StateConnecting State = "connecting"
	StateReady      State = "ready"
	StateOpen       State = "open"
	StateOrphaned   State = "orphaned"
	StateFailed     State = "failed"
	StateClosed     State = "closed"
)

// Counters are what a call has counted since it was made.
type Counters struct {
	Ticks       int64            `json:"ticks"`
	Gated       int64            `json:"gated"`  // ticks that met a closed gate
	Silent      int64            `json:"silent"` // ticks that had nothing to send
	Frames      map[string]int64 `json:"frames"` // sent, by track
	Dropped     map[string]int64 `json:"dropped"`
	Anomalies   int64            `json:"anomalies"`
	SendErrors  int64            `json:"sendErrors"`
	QueueHigh   int              `json:"queueHigh"`
	Queued      int              `json:"queued"`
	KeyFrames   int64            `json:"keyFrames"` // asked of the platform
	Undelivered int64            `json:"undelivered"`
}

// call is one call: its sockets, its peer connection and the queue between them.
type call struct {
	g       *Gateway
	id      string
	request createRequest
	created time.Time
	blob    string
	media   string // the platform's id of the media session
	ended   chan struct{}
	wake    chan struct{}
	room    chan struct{}

	requests sync.Mutex // one changing request at a time
	sending  sync.Mutex // held while a frame can leave

	mu         sync.Mutex
	state      State
	since      time.Time // of state
	session    string
	reply      createReply
	answered   string
	peer       *peer
	connected  bool // peer and ctl
	open       bool // the gate
	lastPing   time.Time
	lastTick   time.Time
	lastStat   time.Time
	warned     bool // no audio came for long
	source     Source
	joined     bool // the blob has been used
	next       int64
	tl         timeline
	slots      []*binding
	mix        *binding
	sockets    map[string]*socket
	bindings   int // n of the last bind or unbind line
	frees      int64
	mode       string
	unmixedOff int  // ticks without unmixed buffers, in a row
	clockDue   bool // a clock line is due with the next tick
	lastClock  int64
	queue      []*item
	ticks      int // in the queue
	pictures   int // in the queue
	carry      []line
	losses     []*loss
	script     toneSource
	count      Counters
}

// newCall makes sockets, blob and offer.
func newCall(g *Gateway, r createRequest) (*call, error) {
	now := g.now()
	c := &call{
		g: g, id: r.CallID, request: r, created: now, media: randomHex(16), mode: r.Audio.Mode,
		ended: make(chan struct{}), wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
		sockets: map[string]*socket{}, lastStat: now,
		count: Counters{Frames: map[string]int64{}, Dropped: map[string]int64{}},
	}
	c.tl.base, c.tl.videoBase = base(r.CallID, "audio"), base(r.CallID, "video")
	c.blob = g.mediaConfiguration(c)
	for _, name := range c.trackNames() {
		if strings.HasPrefix(name, "v") {
			c.sockets[name] = &socket{name: name, bind: &binding{}}
		}
	}
	for range speakerSlots {
		c.slots = append(c.slots, &binding{})
	}
	c.mix = &binding{}
	if err := c.offer(); err != nil {
		return nil, err
	}
	g.done.Go(c.send)
	return c, nil
}

// base is where a call's RTP clock starts: anywhere, and the same each time.
func base(id, kind string) uint32 {
	h := uint32(2166136261)
	for _, b := range []byte(kind + id) {
		h = (h ^ uint32(b)) * 16777619
	}
	return h
}

// mediaConfiguration is what Graph's answer carries as blob. Its order and its escapes are those of no encoder in Go:
// whoever decodes and encodes it changes it.
func (g *Gateway) mediaConfiguration(c *call) string {
	return fmt.Sprintf(`{"mpUri":"net.tcp:\/\/gateway.example:8445\/MediaProcessor","audioRenderContexts":["%s"],`+
		`"videoRenderContexts":[null],"audioSourceContexts":[null], "supportedAudioFormat":"Pcm16K","mpMediaSessionId":"%s",`+
		`"regionAffinity":null,"skypeMediaBotsVersion":"1.33.0.258","callId":"%s","receiveUnmixedMeetingAudio":%t}`,
		randomHex(16), c.media, c.id, c.request.Audio.Mode == "unmixed")
}

func (c *call) trackNames() []string {
	names := []string{"a0", "a1", "a2", "a3", "mix"}
	for i := range c.request.Video.Sockets {
		names = append(names, "v"+strconv.Itoa(i))
	}
	if c.request.VBSS {
		names = append(names, "vbss")
	}
	return names
}

// offer makes a new peer connection and the reply that describes it. The gate is closed.
func (c *call) offer() error {
	p, err := newPeer(c)
	if err != nil {
		return fmt.Errorf("make peer connection: %w", err)
	}
	sdp, err := p.offer()
	if err != nil {
		return errors.Join(fmt.Errorf("make offer: %w", err), p.pc.Close())
	}
	if c.g.has(DefectSendRecv) {
		sdp = strings.ReplaceAll(sdp, "a=sendonly", "a=sendrecv")
	}
	tracks := slices.Clone(p.tracks)
	if c.g.has(DefectSwappedTracks) {
		a, b := *tracks[0], *tracks[1]
		a.MID, b.MID = b.MID, a.MID
		tracks[0], tracks[1] = &a, &b
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peer, c.connected, c.answered = p, false, ""
	c.session = randomHex(12)
	c.set(StateNew)
	for i, t := range p.tracks {
		switch {
		case i < speakerSlots:
			c.slots[i].track = t
		case t.Name == "mix":
			c.mix.track = t
		default:
			c.sockets[t.Name].bind.track = t
		}
	}
	c.bindings = 0
	modalities := []string{"audio"}
	if c.request.Video.Sockets > 0 {
		modalities = append(modalities, "video")
	}
	if c.request.VBSS {
		modalities = append(modalities, "videoBasedScreenSharing")
	}
	c.reply = createReply{
		CallID: c.id, SessionID: c.session, InstanceID: c.g.instance, State: StateNew, Blob: c.blob, Modalities: modalities,
		Offer: description{"offer", sdp}, Tracks: tracks, ExtMap: map[string]int{sourceExtension: p.ext},
		AudioBase: c.tl.base, VideoBase: c.tl.videoBase, ExpiresAt: c.g.now().Add(newExpiry).UTC().Format(time.RFC3339Nano),
	}
	return nil
}

// set changes the state. mu is held.
func (c *call) set(s State) {
	c.state, c.since = s, c.g.now()
}

// controlOpened says hello: from here on the recorder's pings keep the lease.
func (c *call) controlOpened(p *peer) {
	c.mu.Lock()
	if c.peer != p || c.state == StateFailed || c.state == StateClosed {
		c.mu.Unlock()
		return
	}
	c.connected, c.lastPing = true, c.g.now()
	c.set(StateReady)
	session := c.session
	c.mu.Unlock()
	c.say(p, line{"t": "hello", "instanceId": c.g.instance, "callId": c.id, "sessionId": session, "contract": contractVersion})
}

// say sends lines that belong to no frame. One that cannot be delivered is counted: the peer is gone then, and that is
// noticed elsewhere.
func (c *call) say(p *peer, lines ...line) {
	if err := p.say(time.Duration(c.g.delay.Load()), lines...); err != nil {
		c.mu.Lock()
		c.count.Undelivered += int64(len(lines))
		c.mu.Unlock()
	}
}

func (c *call) controlClosed(p *peer) { c.lost(p) }

func (c *call) peerChanged(p *peer, s webrtc.PeerConnectionState) {
	switch s {
	case webrtc.PeerConnectionStateDisconnected, webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
		c.lost(p)
	}
}

// lost: the recorder's end of the connection is gone.
func (c *call) lost(p *peer) {
	c.mu.Lock()
	mine := c.peer == p && (c.state == StateReady || c.state == StateOpen)
	if mine {
		c.connected = false
	}
	c.mu.Unlock()
	if mine {
		c.orphan("peer_lost")
	}
}

func (c *call) orphan(reason string) {
	c.closeGate(reason)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == StateReady {
		c.set(StateOrphaned)
	}
}

// fromRecorder is a line that the recorder sends.
type fromRecorder struct {
	Kind  string `json:"t"`
	Seq   int64  `json:"seq"`
	N     int64  `json:"n"`
	Track string `json:"track"`
}

// parseControl reads the lines of one message.
func parseControl(message []byte) ([]fromRecorder, error) {
	if len(message) > maxControl {
		return nil, fmt.Errorf("control message of %d bytes, more than %d", len(message), maxControl)
	}
	var out []fromRecorder
	for l := range strings.Lines(string(message)) {
		if strings.TrimSpace(l) == "" {
			continue
		}
		var f fromRecorder
		if err := json.Unmarshal([]byte(l), &f); err != nil {
			return out, fmt.Errorf("control line: %w", err)
		}
		out = append(out, f)
	}
	return out, nil
}

// hear takes a message of the recorder.
func (c *call) hear(p *peer, message []byte) {
	lines, err := parseControl(message)
	if err != nil {
		c.mu.Lock()
		c.count.Anomalies++
		c.mu.Unlock()
		c.say(p, line{"t": "anomaly", "kind": "bad_control"})
	}
	for _, l := range lines {
		switch l.Kind {
		case "ping":
			c.ping(p)
		case "keyframe":
			c.keyFrame(l.Track)
		}
	}
}

// ping renews the lease. An orphan whose recorder was only slow is ready again; its gate stays closed.
func (c *call) ping(p *peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peer != p {
		return
	}
	c.lastPing = c.g.now()
	if c.state == StateOrphaned && c.connected {
		c.set(StateReady)
	}
}

// keep looks at the call's times.
func (c *call) keep(now time.Time) {
	c.mu.Lock()
	state, since, p := c.state, now.Sub(c.since), c.peer
	unpinged := now.Sub(c.lastPing)
	var lines []line
	if c.connected && now.Sub(c.lastStat) >= reportEvery {
		c.lastStat = now
		lines = append(lines, c.stat("stat"))
	}
	if state == StateReady && c.count.Ticks == 0 && since > firstAudio && !c.warned {
		c.warned = true
		c.count.Anomalies++
		lines = append(lines, line{"t": "anomaly", "kind": "no_audio"})
	}
	c.mu.Unlock()
	c.say(p, lines...)
	if err := p.flush(false); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		c.lost(p)
	}
	switch {
	case state == StateNew && since > newExpiry, state == StateConnecting && since > connectLimit:
		c.g.done.Go(func() { c.end("expired") })
	case state == StateOrphaned && since > orphanTime && !c.g.has(DefectKeepsOrphans):
		c.g.done.Go(func() { c.end("orphan_expired") })
	case (state == StateReady || state == StateOpen) && unpinged > leaseTime && !c.g.has(DefectNoLease):
		c.orphan("lease_expired")
	case state == StateOpen && p.ctl.BufferedAmount() > maxStalled:
		c.closeGate("ctl_stalled")
	}
}

// stat is a line with the counters. mu is held.
func (c *call) stat(kind string) line {
	return line{
		"t": kind, "ticks": c.count.Ticks, "gated": c.count.Gated, "silent": c.count.Silent,
		"frames": maps.Clone(c.count.Frames), "dropped": maps.Clone(c.count.Dropped),
		"anomalies": c.count.Anomalies, "sendErrors": c.count.SendErrors, "queueHigh": c.count.QueueHigh,
	}
}

// errNotConnected is the refusal to open the gate for nobody.
var errNotConnected = errors.New("the peer connection and its control channel are not open")

// openGate lets frames out from the next tick on. Opening an open gate changes nothing.
func (c *call) openGate() (rtpPair, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != StateReady && c.state != StateOpen || !c.connected {
		return rtpPair{}, errNotConnected
	}
	at := c.rtpNow(1)
	if c.open {
		return at, nil
	}
	c.open, c.clockDue = true, true
	c.set(StateOpen)
	p := c.peer
	lines := []line{{"t": "gate", "state": "open", "rtp": at}, {"t": "mode", "audio": c.mode, "rtp": at.Audio}}
	if err := p.say(time.Duration(c.g.delay.Load()), lines...); err != nil {
		c.count.Undelivered += 2
	}
	for _, s := range c.sockets {
		s.hold = true
		c.askKeyFrame(s)
	}
	return at, nil
}

// rtpNow is the RTP time of the last tick, or of the one after it. mu is held.
func (c *call) rtpNow(after int64) rtpPair {
	if !c.tl.started {
		return rtpPair{c.tl.base, c.tl.videoBase}
	}
	return rtpPair{c.tl.rtp(c.tl.n + after), c.tl.video(c.tl.timestamp(c.tl.n + after))}
}

// closeGate returns when no later frame can leave. What was queued is gone; closing a closed gate changes nothing.
func (c *call) closeGate(reason string) rtpPair {
	c.mu.Lock()
	last := c.rtpNow(0)
	if !c.open {
		c.mu.Unlock()
		return last
	}
	c.open = false
	if c.state == StateOpen {
		c.set(StateReady)
	}
	lines := c.empty()
	for _, b := range c.allBindings() {
		lines = append(lines, c.unbind(b, reason)...)
	}
	lines = append(lines, line{"t": "gate", "state": "closed", "reason": reason, "rtp": last})
	p, late := c.peer, c.slots[0]
	c.mu.Unlock()
	c.sending.Lock()
	c.say(p, lines...)
	c.sending.Unlock()
	if c.g.has(DefectLateFrame) {
		packet, err := TonePacket(1, 0)
		if err == nil {
			time.AfterFunc(3*time.Millisecond, func() {
				_ = p.send(&frame{track: late.track, rtp: last.Audio, payload: packet}, c.g.has)
			})
		}
	}
	return last
}

func (c *call) allBindings() []*binding {
	out := append(slices.Clone(c.slots), c.mix)
	for _, name := range slices.Sorted(maps.Keys(c.sockets)) {
		out = append(out, c.sockets[name].bind)
	}
	return out
}

// fail is MediaStreamFailure: the sockets are dead and nothing here can mend them.
func (c *call) fail(name string) {
	if c.g.has(DefectSurvives) {
		return
	}
	c.closeGate("failure")
	c.mu.Lock()
	if c.state == StateClosed {
		c.mu.Unlock()
		return
	}
	c.set(StateFailed)
	c.source = nil
	p := c.peer
	c.mu.Unlock()
	c.say(p, line{"t": "failure", "socket": name})
}

// end disposes the call: sockets, peer connection, queue. It may be called twice.
func (c *call) end(reason string) {
	c.closeGate(reason)
	c.mu.Lock()
	if c.state == StateClosed {
		c.mu.Unlock()
		return
	}
	c.set(StateClosed)
	c.source = nil
	p := c.peer
	bye := c.stat("bye")
	bye["reason"] = reason
	c.mu.Unlock()
	c.g.forget(c)
	close(c.ended)
	c.say(p, bye)
	if err := p.close(); err != nil {
		c.mu.Lock()
		c.count.SendErrors++
		c.mu.Unlock()
	}
}

// vanish is the death of the process.
func (c *call) vanish() {
	c.mu.Lock()
	if c.state == StateClosed {
		c.mu.Unlock()
		return
	}
	c.set(StateClosed)
	c.open, c.source, c.queue = false, nil, nil
	p := c.peer
	c.mu.Unlock()
	p.socket.kill()
	c.g.forget(c)
	close(c.ended)
	_ = p.pc.Close() // nobody is left to hear of an error
}

// reoffer replaces the peer connection: the sockets stay, the gate is closed, the session is new.
func (c *call) reoffer() (createReply, error) {
	c.closeGate("reoffer")
	c.mu.Lock()
	old := c.peer
	c.mu.Unlock()
	if err := c.offer(); err != nil {
		return createReply{}, err
	}
	if err := old.close(); err != nil {
		return createReply{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reply, nil
}

// connect attaches Teams' media.
func (c *call) connect(src Source) (*Connection, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.joined || c.state == StateClosed || c.state == StateFailed {
		return nil, fmt.Errorf("%w: call %s has had its media connection", ErrBlob, c.id)
	}
	c.joined, c.source = true, src
	c.next = time.Now().UnixNano()/int64(TickLength) + 1
	return &Connection{c}, nil
}
