package export

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/evidence"
	"steno/shared/media"
)

// writeLeg writes the bundles of a leg as they were recorded, each lane as a file that a
// player plays, and all voices together as another.
func (e *Exporter) writeLeg(ctx context.Context, a *archive, r *reader, n, leg int, m conversation.Manifest, manifest string) error {
	sources := []string{manifest}
	for i, b := range m.Bundles {
		path := fmt.Sprintf("evidence/%s/bundles/%06d-%d-%s.bundle", r.unit, b.Seq, b.Part, b.Object)
		err := a.create(path, func(w io.Writer) error {
			o, err := r.bundle(ctx, m, i)
			if err != nil {
				return err
			}
			_, err = io.Copy(w, io.NewSectionReader(o, 0, o.Size()))
			return err
		})
		if err != nil {
			return err
		}
		sources = append(sources, path)
	}
	var voices []conversation.Lane
	for _, lane := range m.Lanes() {
		name := fmt.Sprintf("media/%06d/leg%d-%s-%s", n, leg, lane.Kind, lane.ID)
		var err error
		if lane.Kind == conversation.AudioTrack {
			voices = append(voices, lane)
			err = a.derive(name+".mp4", "fragments as recorded, silence where there are none", sources, func(w io.Writer) error {
				return writeAudio(ctx, w, r, m, []conversation.Lane{lane}, false)
			})
		} else {
			err = writePictures(ctx, a, r, m, lane, name, sources)
		}
		if err != nil {
			return err
		}
	}
	if len(voices) == 0 {
		return nil
	}
	return a.derive(fmt.Sprintf("media/%06d/leg%d-mixed.mp4", n, leg), "all voices decoded, summed and encoded anew", sources, func(w io.Writer) error {
		return writeAudio(ctx, w, r, m, voices, true)
	})
}

// voice is what one track has in one bundle.
type voice struct {
	media.Timed
	track int
}

// writeAudio writes lanes of voices as one fragmented MP4 with a fragment for each bundle:
// one lane as it was recorded, or several mixed.
func writeAudio(ctx context.Context, w io.Writer, r *reader, m conversation.Manifest, lanes []conversation.Lane, mixed bool) error {
	if _, err := w.Write(media.OpusInit(1)); err != nil {
		return err
	}
	byBundle := map[int][]conversation.LaneSegment{}
	for _, l := range lanes {
		for _, s := range l.Segments {
			byBundle[s.Bundle] = append(byBundle[s.Bundle], s)
		}
	}
	var before []voice
	for i := range m.Bundles {
		var now []voice
		var o *evidence.Object
		for _, s := range byBundle[i] {
			if o == nil {
				var err error
				if o, err = r.bundle(ctx, m, i); err != nil {
					return err
				}
			}
			raw, err := span(o, m.Bundles[i], s.Data)
			if err != nil {
				return err
			}
			f, err := media.ParseFragment(raw)
			if err != nil {
				return err
			}
			now = append(now, voice{media.Timed{Time: int64(f.Time), Samples: f.Samples}, s.Track})
		}
		start, end := stretch(m, i)
		samples, at := []media.Sample(nil), start
		if mixed {
			var err error
			if samples, err = mix(ctx, now, before, start, end); err != nil {
				return err
			}
		} else {
			var list []media.Timed
			for _, v := range now {
				list = append(list, v.Timed)
			}
			slices.SortStableFunc(list, func(a, b media.Timed) int { return int(a.Time - b.Time) })
			samples, at = media.Fill(list, start, end)
		}
		before = now
		if len(samples) == 0 {
			continue
		}
		b, err := media.AppendFragment(nil, media.Fragment{Sequence: uint32(i + 1), Time: uint64(at), DefaultDuration: media.FrameSamples, Samples: samples})
		if err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// lead is how many frames of the bundle before are decoded ahead of a mix, so that nothing
// clicks where two bundles meet.
const lead = 8

func mix(ctx context.Context, now, before []voice, start, end int64) ([]media.Sample, error) {
	var placed []media.Placed
	for _, v := range now {
		p := media.Placed{Samples: v.Samples, Offset: int(v.Time - start)}
		for _, b := range before {
			last := b.Samples[max(0, len(b.Samples)-lead):]
			if b.track == v.track && b.Time+length(b.Samples) == v.Time {
				p.Samples = append(slices.Clone(last), v.Samples...)
				p.Offset -= int(length(last))
			}
		}
		placed = append(placed, p)
	}
	return media.Mix(ctx, placed, int(end-start))
}

func length(samples []media.Sample) (n int64) {
	for _, s := range samples {
		n += int64(s.Duration)
	}
	return n
}

// stretch is the time of a bundle in samples of 48 kHz since the leg's epoch. Whole ones
// last as long as a segment; parts as long as they say.
func stretch(m conversation.Manifest, i int) (start, end int64) {
	const slot = int64(conversation.SegmentDuration / time.Second * media.AudioTimescale)
	b := m.Bundles[i]
	start = int64(b.Seq) * slot
	if b.Part == 0 {
		return start, start + slot
	}
	at := func(t time.Time) int64 { return int64(t.Sub(m.Epoch)) * media.AudioTimescale / int64(time.Second) }
	return at(b.From), at(b.To)
}

// writePictures writes a lane of video as it was recorded: a file for each run of the
// encoder, since a player takes one initialization segment.
func writePictures(ctx context.Context, a *archive, r *reader, m conversation.Manifest, lane conversation.Lane, name string, sources []string) error {
	for run := 0; len(lane.Segments) > 0; run++ {
		n := 1
		for n < len(lane.Segments) && lane.Segments[n].Init == nil {
			n++
		}
		part := lane.Segments[:n]
		lane.Segments = lane.Segments[n:]
		err := a.derive(fmt.Sprintf("%s-%d.mp4", name, run), "fragments as recorded", sources, func(w io.Writer) error {
			for _, s := range part {
				o, err := r.bundle(ctx, m, s.Bundle)
				if err != nil {
					return err
				}
				for _, piece := range []*conversation.Span{s.Init, &s.Data} {
					if piece == nil {
						continue
					}
					b, err := span(o, m.Bundles[s.Bundle], *piece)
					if err != nil {
						return err
					}
					if _, err := w.Write(b); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// maxSpan is the largest segment that is read.
const maxSpan = 64 << 20

func span(o *evidence.Object, b conversation.BundleEntry, s conversation.Span) ([]byte, error) {
	if s.Len < 0 || s.Len > maxSpan {
		return nil, fmt.Errorf("segment of %d bytes, more than %d", s.Len, maxSpan)
	}
	raw := make([]byte, s.Len)
	if _, err := o.ReadAt(raw, b.Body+s.Off); err != nil {
		return nil, err
	}
	return raw, nil
}
