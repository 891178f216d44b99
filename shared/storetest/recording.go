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

// RecordedTrack is audio of one source: packets of 20 ms from Offset on.
type RecordedTrack struct {
	Track   conversation.TrackID
	Source  teams.SourceID
	Offset  time.Duration
	Packets [][]byte
	Gaps    []conversation.Gap
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
		if t.Offset < 0 {
			return nil, errors.New("a recorded track begins before its leg")
		}
		var samples []media.Sample
		first := int64(-1)
		for i, p := range t.Packets {
			at := t.Offset + time.Duration(i)*20*time.Millisecond
			if wall := r.Epoch.Add(at); !wall.Before(from) && wall.Before(to) {
				if first < 0 {
					first = int64(at) * media.AudioTimescale / int64(time.Second)
				}
				samples = append(samples, media.Sample{Data: p, Duration: media.FrameSamples, Sync: true})
			}
		}
		seg := conversation.Segment{Track: t.Track, Kind: conversation.AudioTrack, Source: t.Source, Codec: media.OpusCodec, Timescale: media.AudioTimescale}
		for _, g := range t.Gaps {
			if !g.From.Before(from) && g.From.Before(to) {
				seg.Gaps = append(seg.Gaps, g)
			}
		}
		if len(samples) == 0 && len(seg.Gaps) == 0 {
			continue
		}
		if len(samples) > 0 {
			start := len(body)
			var err error
			body, err = media.AppendFragment(body, media.Fragment{Sequence: uint32(seq + 1), Time: uint64(first), DefaultDuration: media.FrameSamples, Samples: samples})
			if err != nil {
				return nil, fmt.Errorf("bundle %d: %w", seq, err)
			}
			seg.Time, seg.Samples, seg.Duration = first, len(samples), int64(len(samples)*media.FrameSamples)
			seg.Wall = r.Epoch.Add(time.Duration(first) * time.Second / media.AudioTimescale)
			seg.Data = conversation.Span{Off: int64(start), Len: int64(len(body) - start)}
		}
		h.Segments = append(h.Segments, seg)
	}
	return media.EncodeBundle(h, body)
}
