package world

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/media"
	"steno/shared/teams"
	"steno/tests/sim"
	"steno/tests/sim/gateway"
)

// CallReport is how the archive of calls compares with what was sent.
type CallReport struct {
	Calls    int `json:"calls"`
	Legs     int `json:"legs"`
	Frames   int `json:"framesSent"` // of speech, while a leg was recorded
	Missing  int `json:"framesMissing"`
	Wrong    int `json:"framesOfSomebodyElse"`
	Pictures int `json:"pictures"` // archived
	Altered  int `json:"picturesAltered"`
	// OffsetMS is the most that an archived frame stands from when it was sent.
	OffsetMS int64 `json:"maxOffsetMs"`
	// Unlike counts utterances that decode to something else than what was said.
	Unlike    int `json:"utterancesUnlike"`
	Utterance int `json:"utterances"`
	// Faults are legs that did not come out as they should.
	Faults []string `json:"faults,omitempty"`
}

// OK reports whether the calls are in the archive as they were.
func (r CallReport) OK() bool {
	return len(r.Faults) == 0 && r.Missing == 0 && r.Wrong == 0 && r.Altered == 0 && r.Unlike == 0 && r.OffsetMS <= 40
}

// Settle is how long after the acknowledgment, and before the end, of a recording
// frames may be under way.
const Settle = 1500 * time.Millisecond

// Sealed waits until every leg of a call is sealed.
func (a *Archive) Sealed(ctx context.Context, call *sim.Call) (conversation.Call, error) {
	key := conversation.CallKeyOf(a.tenant, teams.ChainID(call.Truth().Chain))
	for {
		got, err := a.Catalog.Call(ctx, key)
		if err != nil {
			return got, err
		}
		sealed := 0
		for _, l := range got.Legs {
			if l.State == conversation.LegSealed {
				sealed++
			}
		}
		if sealed > 0 && sealed >= len(call.Legs()) {
			return got, nil
		}
		if err := Sleep(ctx, 200*time.Millisecond); err != nil {
			return got, fmt.Errorf("%d of %d legs are sealed: %w", sealed, len(call.Legs()), err)
		}
	}
}

// CompareCall compares each leg of an ended call with what was sent.
func (a *Archive) CompareCall(ctx context.Context, call *sim.Call, r *CallReport) error {
	got, err := a.Sealed(ctx, call)
	if err != nil {
		return err
	}
	truth := call.Truth()
	r.Calls++
	for _, info := range call.Legs() {
		r.Legs++
		leg, ok := got.Leg(conversation.LegOf(a.tenant, teams.CallID(info.ID)))
		if !ok {
			r.Faults = append(r.Faults, "leg "+info.ID+" is not in the archive")
			continue
		}
		if err := a.compareLeg(ctx, leg, info, truth, r); err != nil {
			return err
		}
	}
	return nil
}

// heard is an archived frame.
type heard struct {
	at    time.Time
	party string // whose lane, empty for nobody's
	data  []byte
}

func (a *Archive) compareLeg(ctx context.Context, leg conversation.Leg, info sim.LegInfo, truth sim.Truth, r *CallReport) error {
	m, err := a.Manifest(ctx, leg)
	if err != nil {
		return err
	}
	from := RecordedFrom(info)
	if from.IsZero() {
		if leg.Outcome != conversation.OutcomeEmpty && leg.Outcome != conversation.OutcomeExcluded {
			r.Faults = append(r.Faults, fmt.Sprintf("leg %s never recorded and is %s (%s)", info.ID, leg.Outcome, leg.Reason))
		}
		return nil
	}
	if leg.Outcome != conversation.OutcomeRecorded && leg.Outcome != conversation.OutcomeEmpty {
		r.Faults = append(r.Faults, fmt.Sprintf("leg %s is %s: %s", info.ID, leg.Outcome, leg.Reason))
	}
	audio, pictures, err := a.samples(ctx, m)
	if err != nil {
		return err
	}
	from, to := from.Add(Settle), leg.To.Add(-Settle)
	compareSpeech(truth, from, to, audio, r)
	sent := map[[32]byte]bool{}
	for _, p := range truth.Pictures {
		sent[sha256.Sum256(nals(p.AnnexB))] = true
	}
	for _, p := range pictures {
		r.Pictures++
		if !sent[sha256.Sum256(p)] {
			r.Altered++
		}
	}
	return nil
}

func compareSpeech(truth sim.Truth, from, to time.Time, audio map[[32]byte][]heard, r *CallReport) {
	parties := map[sim.ParticipantID]string{}
	for _, s := range truth.Sources {
		parties[s.Participant] = partyID(s.Party)
	}
	for _, u := range truth.Utterances {
		compareUtterance(u, parties[u.Participant], from, to, audio, r)
	}
}

// RecordedFrom is when recording was acknowledged, zero if it never was.
func RecordedFrom(info sim.LegInfo) time.Time {
	for _, s := range info.Statuses {
		if s.Status == "recording" {
			return s.At
		}
	}
	return time.Time{}
}

func partyID(p sim.Party) string {
	switch {
	case p.Person != "":
		return string(p.Person)
	case p.Phone != "":
		return p.Phone
	case p.Application != "":
		return p.Application
	}
	return p.Guest
}

// compareUtterance looks for every frame of an utterance at its time, in the lane of who
// said it, and compares what is heard there.
func compareUtterance(u sim.Utterance, party string, from, to time.Time, audio map[[32]byte][]heard, r *CallReport) {
	var said, found [][]byte
	for i, p := range u.Packets {
		at := u.From.Add(time.Duration(i) * gateway.TickLength)
		if at.Before(from) || !at.Before(to) {
			continue
		}
		r.Frames++
		best, ok := heard{}, false
		for _, h := range audio[sha256.Sum256(p)] {
			if !ok || h.at.Sub(at).Abs() < best.at.Sub(at).Abs() {
				best, ok = h, true
			}
		}
		if !ok || best.at.Sub(at).Abs() > time.Second {
			r.Missing++
			continue
		}
		r.OffsetMS = max(r.OffsetMS, best.at.Sub(at).Abs().Milliseconds())
		if best.party != party && (best.party != "" || !u.Mixed) {
			r.Wrong++
		}
		said, found = append(said, p), append(found, best.data)
	}
	if len(said) < 25 {
		return
	}
	r.Utterance++
	if likeness(said, found) < 0.99 {
		r.Unlike++
	}
}

// likeness is the correlation of what two rows of packets decode to.
func likeness(a, b [][]byte) float64 {
	x, y := pcm(a), pcm(b)
	var xy, xx, yy float64
	for i := range min(len(x), len(y)) {
		xy += float64(x[i]) * float64(y[i])
		xx += float64(x[i]) * float64(x[i])
		yy += float64(y[i]) * float64(y[i])
	}
	if xx == 0 && yy == 0 {
		return 1
	}
	return xy / math.Sqrt(xx*yy)
}

func pcm(packets [][]byte) []float32 {
	d, err := media.NewDecoder()
	if err != nil {
		panic(err) // a decoder of a fixed configuration
	}
	var out []float32
	for _, p := range packets {
		s, _ := d.Decode(p) // what does not decode is silence, and unlike what was said
		out = append(out, s...)
	}
	return out
}

// nals is an access unit without start codes: each NAL unit behind its length.
func nals(annexB []byte) []byte {
	var out []byte
	for _, n := range bytes.Split(annexB, []byte{0, 0, 1})[1:] {
		n = bytes.TrimRight(n, "\x00")
		if kind := n[0] & 0x1f; kind == 1 || kind == 5 {
			out = append(out, n...)
		}
	}
	return out
}

// receipt leaves an event for reading a unit.
func (a *Archive) receipt(ctx context.Context, unit string) (custody.Receipt, error) {
	return a.Trail.Append(ctx, custody.Event{
		Tenant: a.tenant, Action: custody.SystemRead, System: "archive-check", Item: unit, Reason: "comparison with the tenant",
	})
}

// Manifest reads the sealed manifest of a leg.
func (a *Archive) Manifest(ctx context.Context, leg conversation.Leg) (conversation.Manifest, error) {
	receipt, err := a.receipt(ctx, string(leg.Leg))
	if err != nil {
		return conversation.Manifest{}, err
	}
	o, err := a.Evidence.Open(ctx, evidence.Ref{Tenant: a.tenant, Unit: string(leg.Leg), Object: leg.Manifest}, receipt)
	if err != nil {
		return conversation.Manifest{}, err
	}
	b, err := o.ReadAll(64 << 20)
	if err != nil {
		return conversation.Manifest{}, err
	}
	return conversation.DecodeManifest(b)
}

// Frame is an archived frame and the lane it lies in.
type Frame struct {
	Lane     int // index into the manifest's Lanes
	Track    conversation.TrackID
	Kind     conversation.TrackKind
	Party    string // whose lane, empty for nobody's; guests by name
	At       time.Time
	Duration time.Duration
	Data     []byte // good during the call
}

// Frames reads every frame of a leg from evidence, lane by lane and in order of time,
// after checking the digest of every pack.
func (a *Archive) Frames(ctx context.Context, m conversation.Manifest, take func(Frame)) error {
	receipt, err := a.receipt(ctx, string(m.Leg))
	if err != nil {
		return err
	}
	packs := make([]*evidence.Packed, len(m.Packs))
	for i, p := range m.Packs {
		if packs[i], err = a.Evidence.OpenPack(ctx, evidence.Ref{Tenant: m.Tenant, Unit: string(m.Leg), Object: p.Object}, receipt); err != nil {
			return err
		}
		if _, _, err := packs[i].Digest(ctx); err != nil {
			return err
		}
	}
	for i, lane := range m.Lanes() {
		for _, s := range lane.Segments {
			b := m.Bundles[s.Bundle]
			o, err := packs[b.Pack].Open(ctx, b.Object)
			if err != nil {
				return err
			}
			raw := make([]byte, s.Data.Len)
			if _, err := o.ReadAt(raw, b.Body+s.Data.Off); err != nil {
				return err
			}
			frag, err := media.ParseFragment(raw)
			if err != nil {
				return err
			}
			scale := time.Duration(m.Tracks[s.Track].Timescale)
			at := func(units uint64) time.Time { return m.Epoch.Add(time.Duration(units) * time.Second / scale) }
			f := Frame{Lane: i, Track: m.Tracks[s.Track].Track, Kind: lane.Kind, Party: PartyOf(lane)}
			units := frag.Time
			for _, x := range frag.Samples {
				f.At, f.Duration, f.Data = at(units), time.Duration(x.Duration)*time.Second/scale, x.Data
				take(f)
				units += uint64(x.Duration)
			}
		}
	}
	return nil
}

// PartyOf names whose lane it is as the truth of a call does, empty for nobody's.
func PartyOf(lane conversation.Lane) string {
	switch {
	case lane.Party == nil:
		return ""
	case lane.Party.Kind == teams.PartyGuest:
		return lane.Party.Name // their ids are of the call alone
	}
	return lane.Party.ID
}

// samples reads every frame of a leg: audio by the digest of its bytes, and the slices
// of pictures.
func (a *Archive) samples(ctx context.Context, m conversation.Manifest) (map[[32]byte][]heard, [][]byte, error) {
	audio := map[[32]byte][]heard{}
	var pictures [][]byte
	err := a.Frames(ctx, m, func(f Frame) {
		if f.Kind == conversation.AudioTrack {
			sum := sha256.Sum256(f.Data)
			audio[sum] = append(audio[sum], heard{f.At, f.Party, slices.Clone(f.Data)})
		} else {
			pictures = append(pictures, slicesOf(f.Data))
		}
	})
	return audio, pictures, err
}

// CompareSpeech compares what was said in [from, to) with a leg, whatever its outcome.
func (a *Archive) CompareSpeech(ctx context.Context, m conversation.Manifest, truth sim.Truth, from, to time.Time, r *CallReport) error {
	audio, _, err := a.samples(ctx, m)
	if err != nil {
		return err
	}
	compareSpeech(truth, from, to, audio, r)
	return nil
}

// slicesOf is an access unit of MP4 without lengths and parameter sets.
func slicesOf(avcc []byte) []byte {
	var out []byte
	for len(avcc) > 4 {
		n := int(avcc[0])<<24 | int(avcc[1])<<16 | int(avcc[2])<<8 | int(avcc[3])
		if n < 1 || n > len(avcc)-4 {
			return nil
		}
		if kind := avcc[4] & 0x1f; kind == 1 || kind == 5 {
			out = append(out, bytes.TrimRight(avcc[4:4+n], "\x00")...)
		}
		avcc = avcc[4+n:]
	}
	return out
}

// callObjects marks the evidence objects of a call as known.
func (a *Archive) callObjects(ctx context.Context, conv conversation.Conversation, known map[string]bool) error {
	call, err := a.Catalog.Call(ctx, conv.ID.Thread())
	if err != nil {
		return err
	}
	for _, l := range call.Legs {
		name := func(object string) string { return string(a.tenant) + "/" + string(l.Leg) + "/" + object }
		known[name(l.Manifest)], known[name(l.Peaks)] = true, true
		for n := range l.Packs {
			known[name(conversation.PackObject(l.Leg, n))] = true
		}
	}
	return nil
}
