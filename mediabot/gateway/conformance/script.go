package main

import (
	"fmt"
	"math"
	"net/http"
	"strconv"

	"github.com/thesyncim/gopus"
)

// tick is a callback of the scripted platform.
type tick struct {
	TS      string   `json:"ts,omitempty"`
	Unmixed []uint32 `json:"unmixed"`
	Mixed   *uint32  `json:"mixed"`
	Active  []uint32 `json:"active,omitempty"`
	Silence bool     `json:"silence,omitempty"`
}

// origin is the timestamp of a script's tick 0: 2020-09-29T23:49:54.915Z.
const (
	origin   = int64(38104121949150000)
	tickLong = int64(200000)
	step     = uint32(960)
)

// at is the timestamp of tick n.
func at(n int64) string { return strconv.FormatInt(origin+n*tickLong, 10) }

// voices is a tick with speakers.
func voices(n int64, sources ...uint32) tick {
	if sources == nil {
		sources = []uint32{}
	}
	return tick{TS: at(n), Unmixed: sources}
}

// play hands ticks over, each when there is room.
func (c *call) play(ticks ...tick) { c.ticks(false, ticks) }

// burst hands ticks over at once.
func (c *call) burst(ticks ...tick) { c.ticks(true, ticks) }

func (c *call) ticks(burst bool, ticks []tick) {
	c.t.demand(http.StatusOK, http.MethodPost, "/v1/test/calls/"+c.id+"/ticks", map[string]any{"burst": burst, "ticks": ticks}, nil)
}

// frame is an access unit of the scripted platform.
type frame struct {
	Socket string `json:"socket"`
	TS     string `json:"ts"`
	Source uint32 `json:"source"`
	W      int    `json:"w"`
	H      int    `json:"h"`
	OW     int    `json:"ow"`
	OH     int    `json:"oh"`
	AnnexB []byte `json:"annexB"`
}

func (c *call) show(burst bool, frames ...frame) {
	c.t.demand(http.StatusOK, http.MethodPost, "/v1/test/calls/"+c.id+"/video", map[string]any{"burst": burst, "frames": frames}, nil)
}

func (c *call) subscribe(socket string, source uint32) {
	body := map[string]string{"source": fmt.Sprint(source), "resolution": "HD720p"}
	c.t.demand(http.StatusOK, http.MethodPut, "/v1/calls/"+c.id+"/subscriptions/"+socket, body, nil)
}

// The tones of scripted sources, as the contract's appendix has them.
const (
	toneLowest = 400
	toneStep   = 100
	toneKinds  = 24
	pcmRate    = 16000
	pcmFrame   = 320
)

func toneOf(source uint32) int { return int(source % toneKinds) }

// ear decodes one binding of one track.
type ear struct {
	decoder *gopus.Decoder
	pcm     []float32
}

func newEar() (*ear, error) {
	d, err := gopus.NewDecoder(gopus.DefaultDecoderConfig(pcmRate, 1))
	if err != nil {
		return nil, fmt.Errorf("make decoder: %w", err)
	}
	return &ear{d, make([]float32, 6*pcmFrame)}, nil
}

// hear returns how much there is of each tone in a frame. One of a decoder that has heard something else before is not
// clean: compare tones that lie apart.
func (e *ear) hear(payload []byte) (power [toneKinds]float64, err error) {
	n, err := e.decoder.Decode(payload, e.pcm)
	if err != nil {
		return power, fmt.Errorf("decode: %w", err)
	}
	if n != pcmFrame {
		return power, fmt.Errorf("a packet of %d samples at 16 kHz, not %d", n, pcmFrame)
	}
	for k := range power {
		power[k] = goertzel(e.pcm[:n], float64(toneLowest+toneStep*k))
	}
	return power, nil
}

// goertzel is the power of one frequency, with a Hann window so that neighbors do not leak.
func goertzel(pcm []float32, hz float64) float64 {
	w := 2 * math.Pi * hz / pcmRate
	k, a, b := 2*math.Cos(w), 0.0, 0.0
	for i, x := range pcm {
		window := 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/float64(len(pcm)-1))
		a, b = float64(x)*window+k*a-b, a
	}
	return a*a + b*b - k*a*b
}
