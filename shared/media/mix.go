package media

import (
	"fmt"
	"math"

	"github.com/thesyncim/gopus"
)

// mixBitrate is that of a mix for listening.
const mixBitrate = 32000

// Placed is a fragment of a track and where it begins, in samples of 48 kHz from the
// start of the mix. Before is what preceded it in the track, for the decoder to settle.
type Placed struct {
	Fragment Fragment
	Offset   int
	Before   []Sample
}

// settle is how many frames a decoder and an encoder are given to settle before the
// first one that counts.
const settle = 5

// Mix decodes tracks that sound at the same time and encodes their sum as one Opus
// track: samples of 20 ms, length of them. It is a derivative for listening and is made
// anew each time. Before, if not nil, is the mix of what went before (as returned in
// tail), so that nothing clicks where two mixes meet.
func Mix(tracks []Placed, length int, before []float32) (samples []Sample, tail []float32, err error) {
	frames := (length + FrameSamples - 1) / FrameSamples
	sum := make([]float32, frames*FrameSamples)
	for _, t := range tracks {
		if err := add(sum, t); err != nil {
			return nil, nil, err
		}
	}
	for i, s := range sum {
		sum[i] = limit(s)
	}
	enc, err := gopus.NewEncoder(gopus.EncoderConfig{SampleRate: AudioTimescale, Channels: 1, Application: gopus.ApplicationAudio})
	if err != nil {
		return nil, nil, fmt.Errorf("opus encoder: %w", err)
	}
	if err := enc.SetBitrate(mixBitrate); err != nil {
		return nil, nil, fmt.Errorf("opus encoder: %w", err)
	}
	out := make([]byte, 4000)
	for i := 0; i+FrameSamples <= len(before); i += FrameSamples {
		if _, err := enc.Encode(before[i:i+FrameSamples], out); err != nil {
			return nil, nil, fmt.Errorf("encode mix: %w", err)
		}
	}
	samples = make([]Sample, frames)
	for i := range samples {
		n, err := enc.Encode(sum[i*FrameSamples:(i+1)*FrameSamples], out)
		if err != nil {
			return nil, nil, fmt.Errorf("encode mix: %w", err)
		}
		samples[i] = Sample{Data: append([]byte(nil), out[:n]...), Duration: FrameSamples, Sync: true}
	}
	return samples, append([]float32(nil), sum[max(0, len(sum)-settle*FrameSamples):]...), nil
}

func add(sum []float32, t Placed) error {
	d, err := NewDecoder()
	if err != nil {
		return err
	}
	for _, s := range t.Before[max(0, len(t.Before)-settle):] {
		_, _ = d.Decode(s.Data) // only to settle the decoder; a bad packet is heard where it counts
	}
	at := t.Offset
	for _, s := range t.Fragment.Samples {
		// A packet that does not decode is silence in the mix; the track itself has it as received.
		pcm, _ := d.Decode(s.Data)
		for i, x := range pcm {
			if j := at + i; j >= 0 && j < len(sum) {
				sum[j] += x
			}
		}
		at += int(s.Duration)
	}
	return nil
}

// limit keeps sums of several speakers within range without touching what is quiet.
func limit(x float32) float32 {
	const knee = 0.8
	a := math.Abs(float64(x))
	if a <= knee {
		return x
	}
	return float32(math.Copysign(knee+(1-knee)*math.Tanh((a-knee)/(1-knee)), float64(x)))
}
