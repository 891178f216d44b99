package gateway

import (
	"fmt"
	"math"
	"sync"

	"github.com/thesyncim/gopus"
)

// The tones of scripted sources: a source's number decides its frequency, so that whoever decodes a frame hears whose
// it is.
const (
	toneLowest = 400
	toneStep   = 100
	toneKinds  = 24
	tonePrefix = 10 // packets of a fresh encoder before the tone is steady
	toneLoop   = 10 // packets that repeat: 200 ms hold whole periods of every tone
)

// ToneHz is the frequency of a source in test mode.
func ToneHz(msi uint32) float64 { return toneLowest + toneStep*float64(msi%toneKinds) }

var tones struct {
	sync.Mutex
	packets [toneKinds][][]byte
}

// TonePacket returns the k-th Opus packet of a source's tone. Packet 0 is the first of a fresh encoder.
func TonePacket(msi uint32, k int) ([]byte, error) {
	tones.Lock()
	defer tones.Unlock()
	kind := msi % toneKinds
	if tones.packets[kind] == nil {
		packets, err := encodeTone(ToneHz(msi))
		if err != nil {
			return nil, err
		}
		tones.packets[kind] = packets
	}
	if k >= tonePrefix {
		k = tonePrefix + (k-tonePrefix)%toneLoop
	}
	return tones.packets[kind][k], nil
}

func encodeTone(hz float64) ([][]byte, error) {
	const rate, frame = 16000, 320
	enc, err := gopus.NewEncoder(gopus.EncoderConfig{SampleRate: rate, Channels: 1, Application: gopus.ApplicationVoIP})
	if err != nil {
		return nil, fmt.Errorf("encode a tone: %w", err)
	}
	enc.SetVBR(true)
	if err := enc.SetBitrate(24000); err != nil {
		return nil, fmt.Errorf("encode a tone: %w", err)
	}
	var packets [][]byte
	pcm, out := make([]float32, frame), make([]byte, 1275)
	for k := range tonePrefix + toneLoop {
		for i := range pcm {
			pcm[i] = float32(0.4 * math.Sin(2*math.Pi*hz*float64(k*frame+i)/rate))
		}
		n, err := enc.Encode(pcm, out)
		if err != nil {
			return nil, fmt.Errorf("encode a tone: %w", err)
		}
		packets = append(packets, append([]byte(nil), out[:n]...))
	}
	return packets, nil
}

// toneSource remembers how far each source's tone is, so that one that comes back starts like a fresh encoder.
type toneSource struct {
	at map[uint32]int
}

// packets returns the next packet of each source; sources that are not among them start over.
func (t *toneSource) packets(msis []uint32) ([][]byte, error) {
	now := make(map[uint32]int, len(msis))
	out := make([][]byte, len(msis))
	for i, msi := range msis {
		k := t.at[msi]
		p, err := TonePacket(msi, k)
		if err != nil {
			return nil, err
		}
		out[i], now[msi] = p, k+1
	}
	t.at = now
	return out, nil
}
