package conversation

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"steno/shared/teams"
)

// Modalities of calls.
const (
	Voice  Modality = "voice"
	Video  Modality = "video"
	Screen Modality = "screen"
)

// SegmentDuration is how long a segment is. Segments are cut where wall-clock time is a
// multiple of it, so those of all tracks and of all legs of a call line up.
const SegmentDuration = 6 * time.Second

// LegID names one recorded leg: the recorder's connection to a call on behalf of one
// recorded user. It is the unit under which the leg's evidence is encrypted.
type LegID string

var legForm = regexp.MustCompile(`^leg-[0-9a-v]{32}$`)

// LegOf returns the leg of a Graph call id: the same one however often its
// notifications are delivered and whichever process handles them.
func LegOf(tenant teams.TenantID, call teams.CallID) LegID {
	h := sha256.Sum256([]byte("steno-leg-v1\x00" + string(tenant) + "\x00" + string(call)))
	return LegID("leg-" + strings.ToLower(base32hex.EncodeToString(h[:20])))
}

// ParseLegID accepts the form that LegOf makes.
func ParseLegID(s string) (LegID, error) {
	if !legForm.MatchString(s) {
		return "", fmt.Errorf("%w: leg id of %d bytes", teams.ErrMalformed, len(s))
	}
	return LegID(s), nil
}

// CallKeyOf returns the key under which the legs of one call stand. Every leg that
// Graph gives the same callChainId meets there.
func CallKeyOf(tenant teams.TenantID, chain teams.ChainID) ThreadKey {
	h := sha256.Sum256([]byte("steno-call-v1\x00" + string(tenant) + "\x00" + string(chain)))
	return ThreadKey(strings.ToLower(base32hex.EncodeToString(h[:20])))
}

// TrackID names a track within a leg: one media kind of one source.
type TrackID string

// The sources of audio that are no participant.
const (
	TrackMixed   TrackID = "audio-mixed"   // the mix Teams sends where it does not tell speakers apart
	TrackUnknown TrackID = "audio-unknown" // frames whose speaker is not known beyond doubt
)

// TrackOf returns the track of a participant's source.
func TrackOf(kind TrackKind, source teams.SourceID) TrackID {
	return TrackID(string(kind) + "-" + source.String())
}

var trackForm = regexp.MustCompile(`^(audio|video|screen)-(mixed|unknown|[0-9]{1,10})$`)

// ParseTrackID accepts the forms above.
func ParseTrackID(s string) (TrackID, error) {
	if !trackForm.MatchString(s) {
		return "", fmt.Errorf("%w: track id of %d bytes", teams.ErrMalformed, len(s))
	}
	return TrackID(s), nil
}

// TrackKind is what a track carries.
type TrackKind string

// The kinds of tracks.
const (
	AudioTrack  TrackKind = "audio"
	VideoTrack  TrackKind = "video"
	ScreenTrack TrackKind = "screen"
)

// GapKind says why a stretch of a track holds no media that was received.
type GapKind string

// The kinds of gaps. Lost ones are faults; the others explain silence.
const (
	GapLost     GapKind = "lost"     // sent, or believed sent, and not in the record
	GapInactive GapKind = "inactive" // the source sent nothing: not among the active speakers
	GapMuted    GapKind = "muted"    // the roster says the participant was muted
	GapHeld     GapKind = "held"     // the roster says the participant was on hold
	GapAbsent   GapKind = "absent"   // the participant was not connected
	GapPaused   GapKind = "paused"   // recording was paused on purpose, by Actor, for Reason
	GapPolicy   GapKind = "policy"   // a recording rule kept this from being recorded
)

// Gap is a stretch [From, To) of a track without received media. Audio is silent there
// for exactly as long, so that decoded length equals wall time.
type Gap struct {
	From   time.Time      `json:"from"`
	To     time.Time      `json:"to"`
	Kind   GapKind        `json:"kind"`
	Frames int            `json:"frames,omitempty"` // silence frames that stand for it
	Reason string         `json:"reason,omitempty"` // reason code, or what the actor gave
	Actor  teams.PersonID `json:"actor,omitempty"`
}

// Span is a stretch of bytes in a bundle's body.
type Span struct {
	Off int64 `json:"off"`
	Len int64 `json:"len"`
}

// Segment is the piece of one track that lies in a bundle: one fMP4 fragment.
type Segment struct {
	Track  TrackID        `json:"track"`
	Kind   TrackKind      `json:"kind"`
	Source teams.SourceID `json:"source,omitempty"`
	// Participant is whose source this was as the recorder knew it when it sealed the
	// bundle; empty if it did not know. Rosters that come later may say more.
	Participant teams.ParticipantID `json:"participant,omitempty"`
	// ByLine is set if the source was bound by control lines alone, not by the header
	// extension on each packet.
	ByLine bool `json:"byLine,omitempty"`
	// Run counts the discontinuities of the track: decode times go on within a run.
	Run int `json:"run,omitempty"`
	// Codec is the RFC 6381 codecs value, such as opus or avc1.42e01f.
	Codec  string `json:"codec"`
	Width  int    `json:"width,omitempty"`
	Height int    `json:"height,omitempty"`
	// Wall is the wall-clock time of the first sample; Time is its decode time and
	// Duration the sum of durations, in units of 1/Timescale seconds. Decode time 0 is
	// the leg's epoch, which is the start of its bundle 0.
	Wall      time.Time `json:"wall"`
	Timescale int       `json:"timescale"`
	Time      int64     `json:"time"`
	Duration  int64     `json:"duration"`
	Samples   int       `json:"samples"`
	Key       bool      `json:"key,omitempty"` // video starts with a key frame
	// Init is the initialization segment, in the first bundle of a run only.
	Init *Span `json:"init,omitempty"`
	Data Span  `json:"data"`
	Gaps []Gap `json:"gaps,omitempty"`
}

// EventKind is what happened to a leg.
type EventKind string

// The events of a leg.
const (
	EventInvited     EventKind = "invited"     // Invite
	EventEstablished EventKind = "established" //
	EventRecording   EventKind = "recording"   // Graph acknowledged updateRecordingStatus(recording)
	EventRoster      EventKind = "roster"      // Roster are those who came or changed, Left those who went
	EventPaused      EventKind = "paused"      // Actor, Reason
	EventResumed     EventKind = "resumed"     // Actor, Reason
	EventRule        EventKind = "rule"        // a recording rule decided; Reason names it
	EventMode        EventKind = "mode"        // Reason: mixed or unmixed audio
	EventAnomaly     EventKind = "anomaly"     // Reason: something that should not be
	EventFault       EventKind = "fault"       // Reason: media or storage failed
	EventResult      EventKind = "result"      // Result: how Graph says the leg ended
	EventEnded       EventKind = "ended"       // the recorder closed the leg
)

// LegEvent is one entry of a leg's history.
type LegEvent struct {
	At     time.Time             `json:"at"`
	Kind   EventKind             `json:"kind"`
	Invite *teams.Invite         `json:"invite,omitempty"`
	Roster []teams.Participant   `json:"roster,omitempty"`
	Left   []teams.ParticipantID `json:"left,omitempty"`
	Result *teams.CallResult     `json:"result,omitempty"`
	Actor  teams.PersonID        `json:"actor,omitempty"`
	Reason string                `json:"reason,omitempty"`
}

// Outcome is what became of a leg.
type Outcome string

// The outcomes of a leg.
const (
	OutcomeRecorded Outcome = "recorded" // media was recorded; gaps say what is not in it
	OutcomeEmpty    Outcome = "empty"    // there was no conversation to record: no alarm
	OutcomeExcluded Outcome = "excluded" // a recording rule kept all of it from being recorded
	OutcomeLost     Outcome = "lost"     // there was a conversation and it was not recorded, or not to its end
)

// BundleFormat is the format of a bundle's header.
const BundleFormat = "steno-media/1"

// BundleHeader describes a bundle: everything of one leg in one stretch of wall time.
// The headers of a leg, in order of Seq and Part, are its whole history.
type BundleHeader struct {
	Format   string         `json:"format"` // BundleFormat
	Tenant   teams.TenantID `json:"tenant"`
	Leg      LegID          `json:"leg"`
	Call     teams.CallID   `json:"call"`
	Chain    teams.ChainID  `json:"chain"`
	Recorder string         `json:"recorder"` // instance that recorded
	// Seq counts stretches of SegmentDuration since the leg's epoch, without holes. Part
	// is 0 for a whole bundle; a recorder that died leaves shorter parts 1, 2, … of its
	// last stretch instead.
	Seq      int        `json:"seq"`
	Part     int        `json:"part,omitempty"`
	From     time.Time  `json:"from"`
	To       time.Time  `json:"to"`
	Segments []Segment  `json:"segments,omitempty"`
	Events   []LegEvent `json:"events,omitempty"`
	// Final marks the last bundle of a leg, with what became of it.
	Final   bool    `json:"final,omitempty"`
	Outcome Outcome `json:"outcome,omitempty"`
}

// Epoch returns the start of bundle 0 of the leg.
func (h BundleHeader) Epoch() time.Time {
	start := h.From.UTC().Truncate(SegmentDuration)
	return start.Add(-time.Duration(h.Seq) * SegmentDuration)
}

// BundleObject returns the evidence object id of a bundle. It can be computed by
// whoever knows the leg, so nothing needs to be looked up to find the next one.
func BundleObject(leg LegID, seq, part int) string {
	return derivedObject("steno-bundle-v1", leg, strconv.Itoa(seq)+"\x00"+strconv.Itoa(part))
}

// PackObject returns the evidence object id of a leg's n-th pack, counted from 0.
func PackObject(leg LegID, n int) string {
	return derivedObject("steno-pack-v1", leg, strconv.Itoa(n))
}

// ManifestObject returns the evidence object id of a leg's manifest.
func ManifestObject(leg LegID) string { return derivedObject("steno-manifest-v1", leg, "") }

func derivedObject(label string, leg LegID, rest string) string {
	h := sha256.Sum256([]byte(label + "\x00" + string(leg) + "\x00" + rest))
	return hex.EncodeToString(h[:16])
}

// MaxParts is how many parts may stand for one bundle.
const MaxParts = 10

// MaxBundleHeader bounds the header of a bundle, in bytes.
const MaxBundleHeader = 4 << 20

// Check reports what is wrong with a header as read from storage.
func (h BundleHeader) Check(body int64) error {
	var faults []error
	fault := func(format string, a ...any) { faults = append(faults, fmt.Errorf(format, a...)) }
	if h.Format != BundleFormat {
		fault("format %q, want %s", h.Format, BundleFormat)
	}
	if _, err := ParseLegID(string(h.Leg)); err != nil {
		fault("leg: %w", err)
	}
	if h.Seq < 0 || h.Part < 0 || h.Part > MaxParts || h.To.Before(h.From) || h.To.Sub(h.From) > 2*SegmentDuration {
		fault("bundle %d.%d from %s to %s", h.Seq, h.Part, h.From, h.To)
	}
	inside := func(s Span) bool { return s.Off >= 0 && s.Len >= 0 && s.Off <= body && s.Len <= body-s.Off }
	for _, s := range h.Segments {
		if _, err := ParseTrackID(string(s.Track)); err != nil {
			fault("segment: %w", err)
		}
		if !inside(s.Data) || s.Init != nil && !inside(*s.Init) {
			fault("segment %s lies outside of the body", s.Track)
		}
		if s.Timescale <= 0 || s.Duration < 0 || s.Samples < 0 || s.Time < 0 {
			fault("segment %s has impossible times", s.Track)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("bundle header: %w", err)
	}
	return nil
}
