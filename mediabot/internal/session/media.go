package session

import (
	"context"
	"encoding/json"
	"time"

	"steno/shared/conversation"
	"steno/shared/msgraph"
	"steno/shared/teams"
)

// Media opens the receiving end of a leg: a WebRTC peer for the gateway's offer.
type Media interface {
	// Connect answers the offer. It returns at once: the peer connects in the
	// background and reports to events. Nothing that arrives is kept until Record.
	Connect(ctx context.Context, o Offer, events MediaEvents) (Peer, error)
}

// Offer is what the gateway returned for a call. See mediabot/gateway/PROTOCOL.md.
type Offer struct {
	Leg       conversation.LegID
	SDP       string
	Tracks    []OfferedTrack
	SourceExt int // id of the source header extension, 0 if there is none
	AudioBase uint32
	VideoBase uint32
}

// OfferedTrack is one track of an offer.
type OfferedTrack struct {
	MID       string
	Track     string // a0…a3, mix, v0…, vbss
	Kind      string // audio or video
	SSRC      uint32
	PT        uint8
	ClockRate int
}

// MediaEvents receives what the peer and the gateway say. Calls come one at a time and
// must return quickly.
type MediaEvents interface {
	// Connected: the peer is connected and the control channel is open.
	Connected()
	// Control is a line of the gateway that binding, clock and gaps do not consume:
	// hello, mode, gate, stat, failure, anomaly, dominant, bye.
	Control(kind string, line json.RawMessage)
	// Lost: the peer is gone for good, or the control channel broke its contract.
	Lost(err error)
}

// Peer is a connected leg's media.
type Peer interface {
	// Answer is the SDP answer for the gateway.
	Answer() string
	// Send puts a line on the control channel: ping and keyframe.
	Send(line any) error
	// Record starts keeping media. It needs Graph's acknowledgment for this very call;
	// one for another call is refused. What arrived before is gone.
	Record(ctx context.Context, granted msgraph.RecordingGranted, info RecordingInfo) (Recording, error)
	// Close ends the peer. A running Recording must be finished before.
	Close() error
}

// RecordingInfo is what a recording writes on everything it seals.
type RecordingInfo struct {
	Tenant   teams.TenantID
	Leg      conversation.LegID
	Call     teams.CallID
	Chain    teams.ChainID
	Recorder string
	// AudioOnly keeps video and screen from being recorded, by rule.
	AudioOnly bool
}

// Recording is a leg being recorded. All methods may be called from any goroutine.
type Recording interface {
	// Epoch is the start of bundle 0.
	Epoch() time.Time
	// Event puts an entry into the leg's history. Rosters are given whole or in part;
	// the recording remembers them to explain silence (muted, held, absent) and to
	// attribute sources.
	Event(e conversation.LegEvent)
	// Pause closes the gate: what arrives is dropped and the interval becomes a gap of
	// the given kind (paused or policy) with actor and reason. Pausing twice changes
	// nothing.
	Pause(kind conversation.GapKind, actor teams.PersonID, reason string)
	// Resume opens it again. It needs an acknowledgment of its own if Graph was told
	// notRecording meanwhile.
	Resume(granted msgraph.RecordingGranted, actor teams.PersonID, reason string) error
	// Lag is how many seconds of media wait for evidence, the measure of back-pressure.
	Lag() time.Duration
	// Finish stops keeping media, seals the last bundle with the outcome and returns
	// when all of it is durable in the spool. Handed is called once, later, when all of
	// it is in evidence.
	Finish(ctx context.Context, outcome conversation.Outcome, handed func(Handed)) error
}

// Handed says what of a leg is in evidence, for the notice to finalize.
type Handed struct {
	Epoch   time.Time
	Bundles int
	Parts   int
	Packs   int
}
