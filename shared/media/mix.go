package media

import (
	"context"
	"fmt"
	"math"

	"github.com/thesyncim/gopus"
)

// mixBitrate is that of a mix for listening.
const mixBitrate = 32000

// Placed are samples of a track and when the first of them begins, in samples of 48 kHz
// from the start of the mix; it may begin before.
type Placed struct {
	Samples []Sample
	Offset  int
}

// settle is how many frames before the mix the codecs are given to settle, so that
// nothing clicks where two mixes meet. Tracks that sound there should begin earlier.
const settle = 5

// Mix decodes tracks that sound at the same time and encodes their sum as one Opus
// track: samples of 20 ms, length of them in all. It is a derivative for listening and
// is made anew each time. That is work: it is given up once ctx is done.
func Mix(ctx context.Context, tracks []Placed, length int) ([]Sample, error) {
	frames := (length + FrameSamples - 1) / FrameSamples
	const lead = settle * FrameSamples
	sum := make([]float32, lead+frames*FrameSamples)
	for _, t := range tracks {
		t.Offset += lead
		if err := add(ctx, sum, t); err != nil {
			return nil, err
		}
	}
	for i, s := range sum {
		sum[i] = limit(s)
	}
	enc, err := gopus.NewEncoder(gopus.EncoderConfig{SampleRate: AudioTimescale, Channels: 1, Application: gopus.ApplicationAudio})
	if err != nil {
		return nil, fmt.Errorf("opus encoder: %w", err)
	}
	if err := enc.SetBitrate(mixBitrate); err != nil {
		return nil, fmt.Errorf("opus encoder: %w", err)
	}
	out := make([]byte, 4000)
	samples := make([]Sample, 0, frames)
	for i := range settle + frames {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("encode mix: %w", err)
		}
		n, err := enc.Encode(sum[i*FrameSamples:(i+1)*FrameSamples], out)
		if err != nil {
			return nil, fmt.Errorf("encode mix: %w", err)
		}
		if i >= settle {
			samples = append(samples, Sample{Data: append([]byte(nil), out[:n]...), Duration: FrameSamples, Sync: true})
		}
	}
	return samples, nil
}

func add(ctx context.Context, sum []float32, t Placed) error {
	d, err := NewDecoder()
	if err != nil {
		return err
	}
	at := t.Offset
	for _, s := range t.Samples {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("decode for mix: %w", err)
		}
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

// Fill places samples of one track in a stretch of time and fills what lies between and
// around them with silence, so that a player finds no hole: the result lasts from start
// to end (in samples of 48 kHz on any one clock) to within a frame. Samples that overlap
// those before them are left out. time is when the first sample of the result begins.
func Fill(parts []Timed, start, end int64) (samples []Sample, time int64) {
	at := start
	quiet := func(until int64) {
		for ; until-at >= FrameSamples; at += FrameSamples {
			samples = append(samples, Sample{Data: silence, Duration: FrameSamples, Sync: true})
		}
	}
	time = start
	for _, p := range parts {
		t := p.Time
		for _, s := range p.Samples {
			if t+FrameSamples/2 < at {
				t += int64(s.Duration)
				continue
			}
			quiet(t)
			switch rest := t - at; {
			case len(samples) == 0:
				time, at = t, t
			case rest > 0:
				samples[len(samples)-1].Duration += uint32(rest)
				at = t
			}
			samples = append(samples, s)
			at += int64(s.Duration)
			t += int64(s.Duration)
		}
	}
	quiet(end)
	return samples, time
}

// Timed are samples and the time of the first.
type Timed struct {
	Time    int64
	Samples []Sample
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
