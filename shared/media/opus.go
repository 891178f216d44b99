package media

import (
	"errors"
	"fmt"
	"math"

	"github.com/thesyncim/gopus"
)

// MaxOpusFrame is the most one Opus frame may be, RFC 6716 section 3.2.1.
const MaxOpusFrame = 1275

// FrameSamples is 20 ms at 48 kHz: what Teams sends and what silence is made of.
const FrameSamples = AudioTimescale / 50

// silence is 20 ms of digital silence, mono: a CELT fullband frame with the silence flag.
var silence = []byte{0xf8, 0xff, 0xfe}

// Silence returns a frame of 20 ms of digital silence. It must not be changed.
func Silence() []byte { return silence }

// PacketDuration returns how long an Opus packet lasts, in samples of 48 kHz, from its
// table of contents, RFC 6716 section 3.1. It is an error if the packet cannot be one.
func PacketDuration(p []byte) (int, error) {
	if len(p) == 0 || len(p) > 48*MaxOpusFrame {
		return 0, fmt.Errorf("opus packet of %d bytes", len(p))
	}
	var frame int
	switch config := p[0] >> 3; {
	case config < 12:
		frame = []int{480, 960, 1920, 2880}[config&3]
	case config < 16:
		frame = 480 << (config & 1)
	default:
		frame = 120 << (config & 3)
	}
	n := 1
	switch p[0] & 3 {
	case 1, 2:
		n = 2
	case 3:
		if len(p) < 2 {
			return 0, errors.New("opus packet ends before its frame count")
		}
		n = int(p[1] & 0x3f)
	}
	if n == 0 || n*frame > 5760 {
		return 0, fmt.Errorf("opus packet of %d frames lasting %d samples each", n, frame)
	}
	return n * frame, nil
}

// Decoder turns Opus packets into mono samples of 48 kHz. It keeps state from packet to
// packet, so each track needs one of its own.
type Decoder struct {
	d   *gopus.Decoder
	pcm []float32
}

// NewDecoder returns a decoder.
func NewDecoder() (*Decoder, error) {
	d, err := gopus.NewDecoder(gopus.DefaultDecoderConfig(AudioTimescale, 1))
	if err != nil {
		return nil, fmt.Errorf("opus decoder: %w", err)
	}
	return &Decoder{d: d, pcm: make([]float32, 5760)}, nil
}

// Decode returns the samples of a packet, valid until the next call. A packet that does
// not decode yields silence of its length and the error.
func (d *Decoder) Decode(packet []byte) ([]float32, error) {
	n, err := d.d.Decode(packet, d.pcm)
	if err != nil {
		want, derr := PacketDuration(packet)
		if derr != nil {
			want = FrameSamples
		}
		clear(d.pcm[:want])
		return d.pcm[:want], fmt.Errorf("decode opus packet of %d bytes: %w", len(packet), err)
	}
	return d.pcm[:n], nil
}

// PeaksPerSecond is how many peaks stand for a second of audio.
const PeaksPerSecond = 10

// PeakMeter reduces samples of 48 kHz to peaks for drawing: the loudest sample of each
// tenth of a second on a scale of 0 to 255 that is linear in decibels from -60 to 0.
type PeakMeter struct {
	peaks []byte
	loud  float32
	n     int
}

// Add takes the next samples.
func (m *PeakMeter) Add(pcm []float32) {
	for _, s := range pcm {
		m.loud = max(m.loud, float32(math.Abs(float64(s))))
		if m.n++; m.n == AudioTimescale/PeaksPerSecond {
			m.peaks = append(m.peaks, level(m.loud))
			m.loud, m.n = 0, 0
		}
	}
}

// Peaks returns the peaks so far; an unfinished tenth counts as one.
func (m *PeakMeter) Peaks() []byte {
	if m.n > 0 {
		return append(m.peaks[:len(m.peaks):len(m.peaks)], level(m.loud))
	}
	return m.peaks
}

func level(x float32) byte {
	if x < 0.001 {
		return 0
	}
	return byte(min(255, max(0, math.Round((20*math.Log10(float64(x))+60)/60*255))))
}
