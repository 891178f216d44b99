package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"steno/mediabot/internal/ingest"
	"steno/mediabot/internal/segment"
	"steno/mediabot/internal/session"
	"steno/mediabot/internal/spool"
	"steno/shared/conversation"
	"steno/shared/evidence"
	"steno/shared/msgraph"
	"steno/shared/teams"
)

// mediaPath is the way of media from the gateway's peer to evidence.
type mediaPath interface {
	session.Media
	// Run carries media to evidence until ctx ends. What is left then goes on with the
	// next start.
	Run(ctx context.Context) error
	// Ready returns nil while there is room for the media of more calls.
	Ready() error
	// Empty reports whether everything is in evidence.
	Empty() bool
}

// mediaParts is what a media path is made of.
type mediaParts struct {
	dir      string // of its own
	evidence evidence.Config
	// recovered is told of a leg that an earlier process did not hand over, once all of it
	// is in evidence. It may be told twice.
	recovered func(conversation.LegNotice) error
	log       *slog.Logger
}

// openMedia opens the media path: ingest, segment and spool in a row.
func openMedia(parts mediaParts) (mediaPath, error) {
	receiver, err := ingest.New(ingest.Config{Log: parts.log})
	if err != nil {
		return nil, err
	}
	sp, err := spool.Open(spool.Config{
		Dir: parts.dir, Keys: parts.evidence.Keys, Log: parts.log,
		Recovered: func(r spool.Recovered) error { return parts.recovered(noticeOf(r)) },
	})
	if err != nil {
		return nil, err
	}
	// Keys go the way of what is sealed under them: through the spool, which needs no
	// network to keep them.
	sealing := parts.evidence
	sealing.Keys = sp
	store, err := evidence.New(sealing)
	if err != nil {
		return nil, errors.Join(err, sp.Close())
	}
	return &path{receiver: receiver, spool: sp, store: store}, nil
}

// noticeOf tells finalize of a leg that an earlier process left.
func noticeOf(r spool.Recovered) conversation.LegNotice {
	n := conversation.LegNotice{
		Kind: conversation.LegEnded, Tenant: r.Tenant, Leg: r.Leg, Call: r.Call, Chain: r.Chain, Recorder: r.Recorder, At: time.Now().UTC(),
		Epoch: r.Handed.Epoch, Bundles: r.Handed.Bundles, Parts: r.Handed.Parts, Packs: r.Handed.Packs,
		Outcome: r.Outcome, Reason: strings.Join(r.Faults, "; "),
	}
	if !r.Final {
		n.Outcome, n.Reason = conversation.OutcomeLost, "the recorder stopped in the middle of the call"
	}
	return n
}

type path struct {
	receiver *ingest.Receiver
	spool    *spool.Spool
	store    *evidence.Store
}

func (p *path) Run(ctx context.Context) error {
	var both errgroup.Group
	both.Go(func() error { return p.receiver.Run(ctx) })
	both.Go(func() error { return p.spool.Run(ctx, p.store) })
	return errors.Join(both.Wait(), p.spool.Close())
}

func (p *path) Ready() error {
	switch s := p.spool.State(); {
	case s.Alarm:
		return fmt.Errorf("spool: evidence or the disk has been failing for %s", s.Failing.Round(time.Second))
	case s.Full > spool.HighWater:
		return fmt.Errorf("spool: %.0f %% full", s.Full*100)
	}
	return nil
}

func (p *path) Empty() bool { return p.spool.State().Legs == 0 }

func (p *path) Connect(ctx context.Context, o session.Offer, events session.MediaEvents) (session.Peer, error) {
	offer := ingest.Offer{Leg: o.Leg, SDP: o.SDP, SourceExt: o.SourceExt}
	for _, t := range o.Tracks {
		offer.Tracks = append(offer.Tracks, ingest.Track{MID: t.MID, Name: t.Track, Kind: t.Kind, SSRC: t.SSRC, PT: t.PT, ClockRate: t.ClockRate})
	}
	peer, err := p.receiver.Connect(ctx, offer, events)
	if err != nil {
		return nil, err
	}
	return &mediaPeer{Peer: peer, path: p, events: events}, nil
}

// mediaPeer adds to a peer what records it.
type mediaPeer struct {
	*ingest.Peer
	path   *path
	events session.MediaEvents
}

func (m *mediaPeer) Record(_ context.Context, granted msgraph.RecordingGranted, info session.RecordingInfo) (session.Recording, error) {
	leg, err := segment.Start(segment.Info(info), granted, time.Now(), m.events.Lost)
	if err != nil {
		return nil, err
	}
	line, err := m.path.spool.Begin(leg.Header(), leg)
	if err != nil {
		return nil, err
	}
	m.Peer.Record(leg.Began(), sink{leg})
	return &recording{leg: leg, line: line, peer: m.Peer}, nil
}

// sink hands frames over from ingest to segment.
type sink struct{ *segment.Leg }

func (s sink) Frame(f *ingest.Frame) {
	frame := segment.Frame(*f)
	s.Leg.Frame(&frame)
}

type recording struct {
	leg  *segment.Leg
	line *spool.Line
	peer *ingest.Peer
}

func (r *recording) Epoch() time.Time              { return r.leg.Epoch() }
func (r *recording) Event(e conversation.LegEvent) { r.leg.Event(e) }
func (r *recording) Lag() time.Duration            { return r.line.Lag() }

func (r *recording) Pause(kind conversation.GapKind, actor teams.PersonID, reason string) {
	r.leg.Pause(time.Now(), kind, actor, reason)
}

func (r *recording) Resume(granted msgraph.RecordingGranted, actor teams.PersonID, reason string) error {
	return r.leg.Resume(time.Now(), granted, actor, reason)
}

func (r *recording) Finish(ctx context.Context, outcome conversation.Outcome, handed func(session.Handed)) error {
	r.peer.Stop()
	r.leg.End(time.Now(), outcome)
	return r.line.Finish(ctx, func(h spool.Handed) { handed(session.Handed(h)) })
}
