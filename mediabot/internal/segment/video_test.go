package segment_test

import (
	"testing"
	"time"

	"steno/mediabot/internal/segment"
	"steno/shared/conversation"
	"steno/shared/media"
)

// Baseline parameter sets for 320 by 240, and the same with another level.
var (
	sps      = []byte{0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x01, 0x41, 0xfb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x62, 0xe4, 0x80}
	otherSPS = []byte{0x67, 0x42, 0xc0, 0x1f, 0xd9, 0x01, 0x41, 0xfb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x62, 0xe4, 0x80}
	pps      = []byte{0x68, 0xcb, 0x83, 0xcb, 0x20}
)

const cameraTrack = conversation.TrackID("video-201")

func picture(at time.Time, key bool, sps []byte) *segment.Frame {
	f := &segment.Frame{Track: cameraTrack, Kind: conversation.VideoTrack, Source: 201, Wall: at, Data: []byte{0, 0, 0, 2, 0x41, 9}, Key: key}
	if key {
		f.SPS, f.PPS = sps, pps
	}
	return f
}

func TestPicturesKeepTheirTimes(t *testing.T) {
	r := newRig(t)
	n := 0
	r.run(20*time.Second, func(at time.Time) {
		n++
		if n%2 == 0 || n < 50 { // 25 a second, from the second second on
			return
		}
		set := sps
		if at.Sub(r.Began()) > 10*time.Second {
			set = otherSPS
		}
		r.Frame(picture(at, n%51 == 0 || n == 51, set))
	})
	r.end()
	tr := r.track(cameraTrack)
	if tr.overlaps != 0 || len(tr.runs) != 2 || tr.inits != 2 {
		t.Errorf("runs %v, %d inits, %d overlaps: want a run for each set of parameters", tr.runs, tr.inits, tr.overlaps)
	}
	if !tr.segments[0].Key || tr.segments[0].Codec != "avc1.42c01e" || tr.segments[0].Width == 0 {
		t.Errorf("first segment %+v", tr.segments[0])
	}
	tr.lasts(t, r.now)
	for _, s := range tr.segments {
		if s.Timescale != media.VideoTimescale {
			t.Errorf("timescale %d", s.Timescale)
		}
	}
}

func TestAStandingPictureIsNotStretchedOverAPause(t *testing.T) {
	r := newRig(t)
	r.Frame(picture(r.now, true, sps))
	r.run(20*time.Second, nil)
	r.Frame(picture(r.now, true, sps))
	r.run(time.Second, nil)
	r.end()
	tr := r.track(cameraTrack)
	if tr.length > 4*time.Second || tr.samples != 2 {
		t.Errorf("%d pictures stand for %s", tr.samples, tr.length)
	}
	if len(tr.gaps) == 0 {
		t.Error("nothing in the ledger says that there was no picture")
	}
}

func TestVideoIsNotRecordedWhereARuleSaysAudioOnly(t *testing.T) {
	i := info(call)
	i.AudioOnly = true
	r := newRigOf(t, i)
	r.Frame(picture(r.now, true, sps))
	r.Missing(cameraTrack, conversation.VideoTrack, 201, r.now, r.now.Add(time.Second), conversation.GapLost, "x")
	r.run(10*time.Second, nil)
	r.end()
	for _, b := range r.bundles {
		if len(b.Segments) != 0 {
			t.Fatalf("bundle %d has segments %v", b.Seq, b.Segments)
		}
	}
}

func TestPicturesWithoutParameterSetsAreToldAsLost(t *testing.T) {
	r := newRig(t)
	r.run(7*time.Second, func(at time.Time) { r.Frame(picture(at, false, nil)) })
	r.end()
	tr := r.track(cameraTrack)
	if tr.samples != 0 || len(tr.gaps) == 0 || tr.gaps[0].Kind != conversation.GapLost {
		t.Errorf("%d samples, ledger %+v", tr.samples, tr.gaps)
	}
	if n := len(r.events()[conversation.EventAnomaly]); n == 0 || n > 3 {
		t.Errorf("%d anomalies told", n)
	}
}
