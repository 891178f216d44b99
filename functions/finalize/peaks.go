package finalize

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/media"
)

// trackMeter follows one track for its peaks.
type trackMeter struct {
	decoder *media.Decoder
	meter   media.PeakMeter
	from    time.Time
	heard   int64 // samples of 48 kHz so far
	bad     int
}

func (l *leg) meter(s conversation.Segment, frag media.Fragment) error {
	m := l.meters[s.Track]
	if m == nil {
		d, err := media.NewDecoder()
		if err != nil {
			return err
		}
		m = &trackMeter{decoder: d, from: s.Wall}
		l.meters[s.Track] = m
	}
	// Where the track was away, the drawing is silent.
	due := int64(s.Wall.Sub(m.from)) * media.AudioTimescale / int64(time.Second)
	if gap := due - m.heard; gap > media.FrameSamples && gap < 24*3600*media.AudioTimescale {
		quiet := make([]float32, media.AudioTimescale)
		for ; gap > 0; gap -= media.AudioTimescale {
			n := min(gap, media.AudioTimescale)
			m.meter.Add(quiet[:n])
			m.heard += n
		}
	}
	for _, x := range frag.Samples {
		pcm, err := m.decoder.Decode(x.Data)
		if err != nil {
			m.bad++
		}
		m.meter.Add(pcm)
		m.heard += int64(len(pcm))
	}
	return nil
}

// Peaks is the plain content of a leg's peaks object.
type Peaks struct {
	PerSecond int          `json:"perSecond"`
	Tracks    []TrackPeaks `json:"tracks"`
}

// TrackPeaks is what the player draws of a track: one byte for each tenth of a second.
type TrackPeaks struct {
	Track conversation.TrackID `json:"track"`
	From  time.Time            `json:"from"`
	Peaks []byte               `json:"peaks"`
	Bad   int                  `json:"bad,omitempty"` // packets that did not decode
}

func (l *leg) putPeaks(ctx context.Context) (string, error) {
	if len(l.meters) == 0 {
		return "", nil
	}
	out := Peaks{PerSecond: media.PeaksPerSecond}
	for _, id := range slices.Sorted(maps.Keys(l.meters)) {
		m := l.meters[id]
		out.Tracks = append(out.Tracks, TrackPeaks{Track: id, From: m.from, Peaks: m.meter.Peaks(), Bad: m.bad})
	}
	plain, err := json.Marshal(out)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte("steno-peaks-v1\x00" + string(l.n.Leg)))
	object := hex.EncodeToString(sum[:16])
	return object, l.put(ctx, object, plain)
}
