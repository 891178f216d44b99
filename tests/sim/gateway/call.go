package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
