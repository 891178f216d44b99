package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
)

// Limits of the control channel.
const (
	MaxControl     = 16 << 10 // bytes a message
	MaxControlRate = 200      // messages a second
)

// ErrContract is wrapped when the gateway broke the contract in a way that leaves the
// recording without sense.
var ErrContract = errors.New("gateway broke the contract")

// line is a control line, of any kind that is consumed here.
type line struct {
	T      string          `json:"t"`
	Seq    int64           `json:"seq"`
	Kind   string          `json:"kind"`
	Track  string          `json:"track"`
	Epoch  int             `json:"epoch"`
	Source string          `json:"source"`
	RTP    json.RawMessage `json:"rtp"`
	TS     string          `json:"ts"`
	Wall   time.Time       `json:"wall"`
	From   uint32          `json:"from"`
	To     uint32          `json:"to"`
	Why    string          `json:"why"`
}

func (l line) rtp() (uint32, error) {
	n, err := strconv.ParseUint(string(l.RTP), 10, 32)
	return uint32(n), err
}

// binding is that a track carries a source, for RTP times from its first to its last.
type binding struct {
	epoch    uint8
	source   uint32
	from, to uint32
	open     bool
}

// maxBindings is how many bindings of a track are remembered.
const maxBindings = 64

func (b *binding) covers(rtp uint32) bool {
	return int32(rtp-b.from) >= 0 && (b.open || int32(b.to-rtp) >= 0)
}

// Wire values of sources that are nobody in particular.
const (
	wireUnknown = uint32(teams.SourceUnknown)
	wireMixed   = uint32(teams.SourceNone)
)

// forwarded are the kinds of lines that say something to the session rather than here.
var forwarded = map[string]bool{
	"hello": true, "mode": true, "gate": true, "stat": true, "failure": true, "anomaly": true, "dominant": true, "bye": true,
}

// control takes a message of the control channel. The lines for the session are returned.
func (x *intake) control(now time.Time, message []byte) (forward []line, raw []json.RawMessage, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(message) > MaxControl {
		return nil, nil, fmt.Errorf("%w: control message of %d bytes", ErrContract, len(message))
	}
	// A second's allowance, refilled as time goes.
	x.allowance = min(MaxControlRate, x.allowance+now.Sub(x.allowed).Seconds()*MaxControlRate)
	x.allowed = now
	if x.allowance--; x.allowance < 0 {
		return nil, nil, fmt.Errorf("%w: more than %d control messages a second", ErrContract, MaxControlRate)
	}
	for b := range bytes.Lines(message) {
		if b = bytes.TrimSpace(b); len(b) == 0 {
			continue
		}
		var l line
		if err := json.Unmarshal(b, &l); err != nil {
			// The text of the error may quote the line.
			return forward, raw, fmt.Errorf("%w: control line %d is not what it should be", ErrContract, x.seq+1)
		}
		if x.seq++; l.Seq != x.seq {
			return forward, raw, fmt.Errorf("%w: control line %d came instead of %d", ErrContract, l.Seq, x.seq)
		}
		if forwarded[l.T] {
			forward, raw = append(forward, l), append(raw, json.RawMessage(bytes.Clone(b)))
			continue
		}
		if err := x.line(now, l); err != nil {
			return forward, raw, fmt.Errorf("%w: control line %d: %w", ErrContract, l.Seq, err)
		}
	}
	x.release(now)
	return forward, raw, nil
}

func (x *intake) line(now time.Time, l line) error {
	switch l.T {
	case "clock":
		return x.clockLine(now, l)
	case "bind", "unbind":
		return x.bindLine(l)
	case "gap":
		for _, s := range x.slots {
			if n := len(s.bindings); !s.video && n > 0 && (s.bindings[n-1].open || int32(s.bindings[n-1].to-l.From) >= 0) {
				x.explain(now, s, l, conversation.GapLost, "the platform delivered nothing")
			}
		}
	case "loss":
		if s := x.named(l.Track); s != nil {
			x.explain(now, s, l, conversation.GapLost, "dropped by the gateway: "+cleanWhy(l.Why))
		}
	}
	return nil // what is not known is passed over
}

// cleanWhy keeps a reason code, and nothing that is none.
func cleanWhy(s string) string {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && c != '_' || len(s) > 32 {
			return "other"
		}
	}
	return s
}

func (x *intake) clockLine(now time.Time, l line) error {
	rtp, err := l.rtp()
	if err != nil {
		return errors.New("clock without RTP time")
	}
	ticks, err := strconv.ParseInt(l.TS, 10, 64)
	if err != nil || l.Wall.IsZero() {
		return errors.New("clock without its times")
	}
	c := &x.audioClock
	if l.Kind == "video" {
		c = &x.videoClock
	}
	if c.line(rtp, ticks, l.Wall) {
		x.odd(now, "the gateway's wall clock was set: its media clock counts")
	}
	return nil
}

func (x *intake) bindLine(l line) error {
	s := x.named(l.Track)
	if s == nil {
		return nil // a track that was not offered carries nothing
	}
	rtp, err := l.rtp()
	if err != nil || l.Epoch < 0 || l.Epoch > 255 {
		return errors.New("binding without RTP time or epoch")
	}
	source, err := parseSource(l.Source)
	if err != nil {
		return err
	}
	if l.T == "unbind" {
		for i := len(s.bindings) - 1; i >= 0; i-- {
			if b := &s.bindings[i]; b.open && b.epoch == uint8(l.Epoch) && b.source == source {
				b.open, b.to = false, rtp
				return nil
			}
		}
		return nil // of a binding from before a reconnection
	}
	s.bindings = append(s.bindings, binding{epoch: uint8(l.Epoch), source: source, from: rtp, open: true})
	if n := len(s.bindings) - maxBindings; n > 0 {
		s.bindings = append(s.bindings[:0], s.bindings[n:]...)
	}
	return nil
}

func parseSource(s string) (uint32, error) {
	switch s {
	case "unknown":
		return wireUnknown, nil
	case "mixed":
		return wireMixed, nil
	}
	n, err := teams.ParseSourceID(s)
	return uint32(n), err
}

// explain tells the sink why a track has no frames in [from, to) of the line.
func (x *intake) explain(now time.Time, s *slot, l line, why conversation.GapKind, reason string) {
	if x.sink == nil || int32(l.To-l.From) <= 0 || s.last.id == "" {
		return
	}
	t := x.clockOf(s)
	if !t.known {
		return
	}
	from, to := t.at(t.extend(l.From)), t.at(t.extend(l.To))
	if d := now.Sub(from); d > time.Minute || d < -time.Minute || to.Sub(from) > time.Minute {
		x.odd(now, "a line that explains an impossible stretch of time")
		return
	}
	x.sink.Missing(s.last.id, s.last.kind, s.last.source, from, to, why, reason)
}
