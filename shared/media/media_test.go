package media

import (
	"bytes"
	"math"
	"slices"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"

	"github.com/thesyncim/gopus"
)

// tone encodes n frames of a sine.
func tone(t testing.TB, hz float64, n int) []Sample {
	t.Helper()
	enc, err := gopus.NewEncoder(gopus.EncoderConfig{SampleRate: 16000, Channels: 1, Application: gopus.ApplicationVoIP})
	if err != nil {
		t.Fatal(err)
	}
	out, pcm := make([]Sample, n), make([]float32, 320)
	buf := make([]byte, 1500)
	for f := range out {
		for i := range pcm {
			pcm[i] = float32(0.4 * math.Sin(2*math.Pi*hz*float64(f*320+i)/16000))
		}
		k, err := enc.Encode(pcm, buf)
		if err != nil {
			t.Fatal(err)
		}
		out[f] = Sample{Data: slices.Clone(buf[:k]), Duration: FrameSamples, Sync: true}
	}
	return out
}

// power is the share of a signal's energy at one frequency.
func power(pcm []float32, hz float64) float64 {
	var re, im, all float64
	for i, x := range pcm {
		re += float64(x) * math.Cos(2*math.Pi*hz*float64(i)/AudioTimescale)
		im += float64(x) * math.Sin(2*math.Pi*hz*float64(i)/AudioTimescale)
		all += float64(x) * float64(x)
	}
	return 2 * (re*re + im*im) / (all * float64(len(pcm)))
}

func decode(t *testing.T, samples []Sample) []float32 {
	t.Helper()
	d, err := NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	var out []float32
	for _, s := range samples {
		pcm, err := d.Decode(s.Data)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, pcm...)
	}
	return out
}

func TestAFragmentReadsBackAsItWasWritten(t *testing.T) {
	for name, f := range map[string]Fragment{
		"audio": {Sequence: 3, Time: 1 << 40, DefaultDuration: 960, Samples: tone(t, 300, 300)},
		"video": {Sequence: 1, Time: 7, DefaultDuration: 3000, Samples: []Sample{
			{Data: []byte("idr"), Duration: 3000, Sync: true}, {Data: []byte("p"), Duration: 4500}, {Data: nil, Duration: 3000},
		}},
	} {
		b, err := AppendFragment([]byte("before"), f)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseFragment(b[6:])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got.Sequence != f.Sequence || got.Time != f.Time || len(got.Samples) != len(f.Samples) {
			t.Errorf("%s: %+v", name, got)
		}
		for i, s := range got.Samples {
			w := f.Samples[i]
			if !bytes.Equal(s.Data, w.Data) || s.Duration != w.Duration || s.Sync != w.Sync {
				t.Errorf("%s: sample %d: %+v, want %+v", name, i, s, w)
			}
		}
	}
}

func TestTheLayoutCostsLessThanTwoKilobitsASecondATrack(t *testing.T) {
	samples := tone(t, 300, 300)
	b, err := AppendFragment(nil, Fragment{Sequence: 1, DefaultDuration: 960, Samples: samples})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range samples {
		b = b[:len(b)-len(s.Data)]
	}
	if kbit := float64(len(b)) * 8 / 6 / 1000; kbit > 2 {
		t.Errorf("%d bytes a segment, %.2f kbit/s", len(b), kbit)
	}
}

func TestAMixHoldsAllSpeakersAtTheirTimes(t *testing.T) {
	a := Placed{Samples: tone(t, 300, 110), Offset: -10 * FrameSamples}
	b := Placed{Samples: tone(t, 900, 50), Offset: 100 * FrameSamples}
	samples, err := Mix(t.Context(), []Placed{a, b}, 150*FrameSamples)
	if err != nil {
		t.Fatal(err)
	}
	pcm := decode(t, samples)
	if len(pcm) != 150*FrameSamples {
		t.Fatalf("%d samples", len(pcm))
	}
	first, second := pcm[FrameSamples*2:FrameSamples*90], pcm[FrameSamples*110:]
	if power(first, 300) < 0.9 || power(first, 900) > 0.01 || power(second, 900) < 0.9 || power(second, 300) > 0.01 {
		t.Errorf("300 Hz %.2f then %.2f, 900 Hz %.2f then %.2f", power(first, 300), power(second, 300), power(first, 900), power(second, 900))
	}
}

func TestFillLeavesNoHoleAndKeepsEverySampleAtItsTime(t *testing.T) {
	speech := tone(t, 300, 40)
	const start = 1_000_000
	end := int64(start + 300*FrameSamples)
	for name, at := range map[string][2]int64{
		"on the grid":  {start + 50*FrameSamples, start + 200*FrameSamples},
		"off it":       {start + 50*FrameSamples + 333, start + 200*FrameSamples + 77},
		"touching":     {start + 5, start + 5 + 40*FrameSamples},
		"over the end": {start, end - 500},
	} {
		got, from := Fill([]Timed{{at[0], speech[:40]}, {at[1], speech[:20]}}, start, end)
		when, kept := from, 0
		for _, s := range got {
			if bytes.Equal(s.Data, speech[kept%40].Data) && !bytes.Equal(s.Data, Silence()) {
				want := at[0] + int64(kept)*FrameSamples
				if kept >= 40 {
					want = at[1] + int64(kept-40)*FrameSamples
				}
				if when != want {
					t.Errorf("%s: sample %d at %d, want %d", name, kept, when, want)
				}
				kept++
			}
			when += int64(s.Duration)
		}
		if kept != 60 || when < end-FrameSamples || from-start >= FrameSamples {
			t.Errorf("%s: %d samples kept, from %d to %d, want %d to %d", name, kept, from, when, int64(start), end)
		}
	}
	if got, _ := Fill(nil, start, end); len(got) != 300 {
		t.Errorf("nothing was filled with %d frames", len(got))
	}
}

func TestPeaksFollowLoudnessAndDigitalSilenceIsZero(t *testing.T) {
	var m PeakMeter
	m.Add(decode(t, tone(t, 300, 50)))
	for range 50 {
		m.Add(decode(t, []Sample{{Data: Silence()}}))
	}
	p := m.Peaks()
	if len(p) != 20 || p[5] < 200 || p[15] != 0 {
		t.Errorf("peaks %v", p)
	}
}

func TestPacketDurationsFollowTheTableOfContents(t *testing.T) {
	for toc, want := range map[byte]int{0x48: 960, 0xf8: 960, 0xf0: 480, 0xe0: 120, 0x18: 2880, 0x60: 480, 0x68: 960, 0x49: 1920} {
		if got, err := PacketDuration([]byte{toc, 1, 2}); err != nil || got != want {
			t.Errorf("toc %#x: %d %v, want %d", toc, got, err, want)
		}
	}
	for _, p := range [][]byte{nil, {0xfb}, {0xfb, 0}, {0x1b, 3}} {
		if n, err := PacketDuration(p); err == nil {
			t.Errorf("%x lasts %d", p, n)
		}
	}
}

// A baseline set of 640×360 made by x264.
var sps, pps = []byte{0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03, 0x00, 0x3c, 0x0f, 0x16, 0x2e, 0x48}, []byte{0x68, 0xcb, 0x83, 0xcb, 0x20}

func TestAnAVCInitNamesCodecAndSize(t *testing.T) {
	seg, codec, w, h, err := AVCInit(sps, pps)
	if err != nil || codec != "avc1.42c01e" || w != 640 || h != 368-8 || len(seg) == 0 {
		t.Errorf("%s %dx%d %v", codec, w, h, err)
	}
	for n := range sps {
		if _, _, _, _, err := AVCInit(sps[:n], pps); err == nil && n < 8 {
			t.Errorf("%d bytes of a parameter set were enough", n)
		}
	}
}

func header(t testing.TB) conversation.BundleHeader {
	t.Helper()
	leg := conversation.LegOf("11111111-1111-4111-8111-111111111111", "call")
	from := time.Date(2026, 3, 1, 9, 0, 6, 0, time.UTC)
	return conversation.BundleHeader{
		Tenant: "11111111-1111-4111-8111-111111111111", Leg: leg, Call: "call", Chain: "chain", Recorder: "r1", Seq: 1, From: from, To: from.Add(6 * time.Second),
		Segments: []conversation.Segment{{
			Track: conversation.TrackOf(conversation.AudioTrack, teams.SourceID(7)), Kind: conversation.AudioTrack, Source: 7, Codec: OpusCodec, Wall: from,
			Timescale: AudioTimescale, Time: 288000, Duration: 288000, Samples: 300, Data: conversation.Span{Off: 0, Len: 4},
		}},
	}
}

type at struct{ *bytes.Reader }

func TestABundleReadsBackAsItWasWritten(t *testing.T) {
	b, err := EncodeBundle(header(t), []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	h, body, err := DecodeBundle(b)
	if err != nil || string(body) != "data" || h.Epoch() != h.From.Add(-6*time.Second) {
		t.Errorf("%+v %q %v", h, body, err)
	}
	h2, off, err := ReadHeader(at{bytes.NewReader(b)})
	if err != nil || string(b[off:]) != "data" || h2.Leg != h.Leg {
		t.Errorf("%+v %d %v", h2, off, err)
	}
}

func TestABundleWhoseSpansLeaveItsBodyIsRefused(t *testing.T) {
	for _, s := range []conversation.Span{{Off: 0, Len: 5}, {Off: 4, Len: 1}, {Off: -1, Len: 1}, {Off: 1 << 62, Len: 1 << 62}, {Off: 1, Len: -1}} {
		h := header(t)
		h.Segments[0].Data = s
		if _, err := EncodeBundle(h, []byte("data")); err == nil {
			t.Errorf("%+v was accepted", s)
		}
	}
}

func FuzzBundle(f *testing.F) {
	b, err := EncodeBundle(header(f), []byte("data"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, body, err := DecodeBundle(b)
		if err != nil {
			return
		}
		for _, s := range h.Segments {
			_, _ = ParseFragment(body[s.Data.Off : s.Data.Off+s.Data.Len])
		}
	})
}

func FuzzFragment(f *testing.F) {
	b, err := AppendFragment(nil, Fragment{Sequence: 1, DefaultDuration: 3000, Samples: []Sample{{Data: []byte("ab"), Duration: 1, Sync: true}, {Data: []byte("c"), Duration: 3}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseFragment(b)
		if err != nil {
			return
		}
		n := 0
		for _, s := range p.Samples {
			n += len(s.Data)
		}
		if n > len(b) {
			t.Errorf("%d bytes of samples in %d", n, len(b))
		}
	})
}

func FuzzParameterSet(f *testing.F) {
	f.Add(sps)
	f.Fuzz(func(t *testing.T, b []byte) { _, _, _ = SPSSize(b) })
}
