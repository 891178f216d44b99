package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/evidence"
	"steno/shared/media"
	"steno/shared/teams"
)

// Recording is a leg as a recorder would have left it, for tests of those who read.
type Recording struct {
	Tenant   teams.TenantID
	Call     teams.CallID
	Chain    teams.ChainID
	Recorder string
	Epoch    time.Time // a multiple of conversation.SegmentDuration
	Slots    int       // how many bundles
	Tracks   []RecordedTrack
	Events   []conversation.LegEvent
	Outcome  conversation.Outcome // empty: the recorder never closed the leg
	Without  []int                // bundles that were lost on the way
	Packed   bool                 // packs were written, not only tails
}

// RecordedTrack is media of one source from Offset on: Opus packets of 20 ms, or the
// samples of a picture.
type RecordedTrack struct {
	Track   conversation.TrackID
	Source  teams.SourceID
	Offset  time.Duration
	Packets [][]byte
	Gaps    []conversation.Gap

	Picture  []media.Sample // H.264 in a timescale of media.VideoTimescale
	Kind     conversation.TrackKind
	SPS, PPS []byte
}

// Store seals and stores the recording and returns the notice that would tell of it.
func (r Recording) Store(ctx context.Context, s *evidence.Store) (conversation.LegNotice, error) {
	leg := conversation.LegOf(r.Tenant, r.Call)
	n := conversation.LegNotice{
		Kind: conversation.LegEnded, Tenant: r.Tenant, Leg: leg, Call: r.Call, Chain: r.Chain, Recorder: r.Recorder,
		At: r.Epoch.Add(time.Duration(r.Slots) * conversation.SegmentDuration), Epoch: r.Epoch, Bundles: r.Slots, Outcome: r.Outcome,
	}
	var members []evidence.Sealed
	for seq := range r.Slots {
		if slices.Contains(r.Without, seq) {
			continue
		}
		plain, err := r.bundle(leg, seq)
		if err != nil {
			return n, err
		}
		ref := evidence.Ref{Tenant: r.Tenant, Unit: string(leg), Object: conversation.BundleObject(leg, seq, 0)}
		sealed, err := s.Seal(ctx, ref, plain)
		if err != nil {
			return n, err
		}
		if err := s.PutTail(ctx, sealed); err != nil {
			return n, err
		}
		members = append(members, sealed)
	}
	if !r.Packed || len(members) == 0 {
		return n, nil
	}
	n.Packs = 1
	pack, err := evidence.NewPack(evidence.Ref{Tenant: r.Tenant, Unit: string(leg), Object: conversation.PackObject(leg, 0)}, members)
	if err != nil {
		return n, err
	}
	return n, s.PutPack(ctx, pack)
}

func (r Recording) bundle(leg conversation.LegID, seq int) ([]byte, error) {
	from := r.Epoch.Add(time.Duration(seq) * conversation.SegmentDuration)
	to := from.Add(conversation.SegmentDuration)
	h := conversation.BundleHeader{
		Tenant: r.Tenant, Leg: leg, Call: r.Call, Chain: r.Chain, Recorder: r.Recorder, Seq: seq, From: from, To: to,
	}
	for _, e := range r.Events {
		if !e.At.Before(from) && e.At.Before(to) {
			h.Events = append(h.Events, e)
		}
	}
	if seq == r.Slots-1 && r.Outcome != "" {
		h.Final, h.Outcome = true, r.Outcome
	}
	var body []byte
	for _, t := range r.Tracks {
		seg, frag, err := r.segment(t, from, to)
		if err != nil {
			return nil, err
		}
		if len(frag.Samples) == 0 && len(seg.Gaps) == 0 {
			continue
		}
		if len(frag.Samples) > 0 {
			if seg.Kind != conversation.AudioTrack && frag.Time == ticks(t.Offset, media.VideoTimescale) {
				init, codec, w, hh, err := media.AVCInit(t.SPS, t.PPS)
				if err != nil {
					return nil, err
				}
				seg.Init = &conversation.Span{Off: int64(len(body)), Len: int64(len(init))}
				seg.Codec, seg.Width, seg.Height = codec, w, hh
				body = append(body, init...)
			}
			start := len(body)
			frag.Sequence = uint32(seq + 1)
			if body, err = media.AppendFragment(body, frag); err != nil {
				return nil, fmt.Errorf("bundle %d: %w", seq, err)
			}
			seg.Data = conversation.Span{Off: int64(start), Len: int64(len(body) - start)}
		}
		h.Segments = append(h.Segments, seg)
	}
	return media.EncodeBundle(h, body)
}

func ticks(d time.Duration, timescale int64) uint64 {
	return uint64(int64(d) * timescale / int64(time.Second))
}

// segment is what a track has in [from, to).
func (r Recording) segment(t RecordedTrack, from, to time.Time) (conversation.Segment, media.Fragment, error) {
	if t.Offset < 0 {
		return conversation.Segment{}, media.Fragment{}, errors.New("a recorded track begins before its leg")
	}
	all, timescale, duration := t.Picture, int64(media.VideoTimescale), uint32(0)
	seg := conversation.Segment{Track: t.Track, Kind: t.Kind, Source: t.Source}
	if all == nil {
		seg.Kind, seg.Codec, timescale, duration = conversation.AudioTrack, media.OpusCodec, media.AudioTimescale, media.FrameSamples
		for _, p := range t.Packets {
			all = append(all, media.Sample{Data: p, Duration: media.FrameSamples, Sync: true})
		}
	} else if len(all) > 0 {
		duration = all[0].Duration
	}
	seg.Timescale = int(timescale)
	frag := media.Fragment{DefaultDuration: duration}
	at := ticks(t.Offset, timescale)
	for _, s := range all {
		wall := r.Epoch.Add(time.Duration(at) * time.Second / time.Duration(timescale))
		if !wall.Before(from) && wall.Before(to) {
			if len(frag.Samples) == 0 {
				frag.Time, seg.Wall, seg.Key = at, wall, s.Sync
			}
			frag.Samples = append(frag.Samples, s)
			seg.Duration += int64(s.Duration)
		}
		at += uint64(s.Duration)
	}
	seg.Time, seg.Samples = int64(frag.Time), len(frag.Samples)
	for _, g := range t.Gaps {
		if !g.From.Before(from) && g.From.Before(to) {
			seg.Gaps = append(seg.Gaps, g)
		}
	}
	return seg, frag, nil
}
