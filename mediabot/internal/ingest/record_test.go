package ingest_test

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"steno/mediabot/internal/ingest"
	"steno/mediabot/internal/segment"
	"steno/mediabot/internal/spool"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/media"
	"steno/shared/storetest"
	"steno/shared/teams"
	"steno/tests/grant"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

const (
	tenant = teams.TenantID("72f988bf-86f1-41af-91ab-2d7cd011db47")
	chain  = teams.ChainID("c1")
)

// sink is what the bot's main puts between ingest and segment.
type sink struct{ *segment.Leg }

func (s sink) Frame(f *ingest.Frame) {
	g := segment.Frame(*f)
	s.Leg.Frame(&g)
}

// path is the whole way of a leg: receiver, leg, spool, stores in memory.
type path struct {
	t        testing.TB
	receiver *ingest.Receiver
	spool    *spool.Spool
	tails    storetest.Tails
	blobs    storetest.Blobs
	keys     storetest.Keys
	vault    *storetest.Vault
	trail    storetest.Trail
	store    *evidence.Store
	opener   evidence.Vault // vault if nil
}

func newPath(t testing.TB, dir string, cfg ingest.Config) *path {
	t.Helper()
	p := &path{t: t, vault: storetest.NewVault()}
	cfg.Log = quiet()
	var err error
	p.receiver, err = ingest.New(cfg)
	must(t, err)
	p.spool, err = spool.Open(spool.Config{Dir: dir, Keys: &p.keys, Log: quiet(), Recovered: func(spool.Recovered) error { return nil }})
	must(t, err)
	p.store, err = evidence.New(evidence.Config{Blobs: &p.blobs, Tails: &p.tails, Keys: p.spool, Vault: p.vault, VaultHosts: []string{storetest.VaultHost}})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- p.receiver.Run(ctx) }()
	go func() { done <- p.spool.Run(ctx, p.store) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			must(t, <-done)
		}
		must(t, p.spool.Close())
	})
	return p
}

// recording is a leg on its way.
type recording struct {
	*segment.Leg
	p    *path
	peer *ingest.Peer
	line *spool.Line
}

func (p *path) record(peer *ingest.Peer, call teams.CallID) *recording {
	p.t.Helper()
	granted, err := grant.For(call)
	must(p.t, err)
	info := segment.Info{Tenant: tenant, Leg: conversation.LegOf(tenant, call), Call: call, Chain: chain, Recorder: "bot-1"}
	leg, err := segment.Start(info, granted, time.Now(), func(err error) { p.t.Error(err) })
	must(p.t, err)
	line, err := p.spool.Begin(leg.Header(), leg)
	must(p.t, err)
	peer.Record(leg.Began(), sink{leg})
	return &recording{leg, p, peer, line}
}

// finish ends the recording and waits until all of it is in evidence.
func (r *recording) finish() spool.Handed {
	r.p.t.Helper()
	r.peer.Stop()
	r.End(time.Now(), conversation.OutcomeRecorded)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	handed := make(chan spool.Handed, 1)
	must(r.p.t, r.line.Finish(ctx, func(h spool.Handed) { handed <- h }))
	return await(r.p.t, "hand-over", handed)
}

// read opens everything of a leg from its packs, as another process would.
func (p *path) read(leg conversation.LegID, h spool.Handed) []bundle {
	p.t.Helper()
	ctx := context.Background()
	vault := p.opener
	if vault == nil {
		vault = p.vault
	}
	store, err := evidence.New(evidence.Config{Blobs: &p.blobs, Tails: &p.tails, Keys: &p.keys, Vault: vault, VaultHosts: []string{storetest.VaultHost}})
	must(p.t, err)
	receipt, err := custody.Log{Trail: &p.trail}.Append(ctx, custody.Event{Tenant: tenant, Action: custody.SystemRead, System: "test", Item: string(leg)})
	must(p.t, err)
	var out []bundle
	for n := range h.Packs {
		pack, err := store.OpenPack(ctx, evidence.Ref{Tenant: tenant, Unit: string(leg), Object: conversation.PackObject(leg, n)}, receipt)
		must(p.t, err)
		for _, m := range pack.Members {
			o, err := pack.Open(ctx, m.Object)
			must(p.t, err)
			plain, err := o.ReadAll(media.MaxBundle)
			must(p.t, err)
			header, body, err := media.DecodeBundle(plain)
			must(p.t, err)
			out = append(out, bundle{header, body})
		}
	}
	return out
}

type bundle struct {
	conversation.BundleHeader
	body []byte
}

// heard is what the bundles of a leg hold of a track.
type heard struct {
	first, end time.Time // of the first frame, and of the leg
	decoded    time.Duration
	frames     int
	late       int // frames beside the others, since they came when their time was written
	gaps       []conversation.Gap
	payloads   map[string]int
}

func listen(t testing.TB, bundles []bundle, id conversation.TrackID) heard {
	t.Helper()
	h := heard{payloads: map[string]int{}}
	d, err := media.NewDecoder()
	must(t, err)
	samples, next := 0, int64(0)
	for _, b := range bundles {
		h.end = b.To
		for _, s := range b.Segments {
			if s.Track != id {
				continue
			}
			h.gaps = append(h.gaps, s.Gaps...)
			if s.Samples == 0 {
				continue
			}
			if h.first.IsZero() {
				h.first = s.Wall
			}
			f, err := media.ParseFragment(b.body[s.Data.Off : s.Data.Off+s.Data.Len])
			must(t, err)
			for _, x := range f.Samples {
				h.payloads[string(x.Data)]++
			}
			if s.Time < next {
				h.late += len(f.Samples)
				continue
			}
			next = s.Time + s.Duration
			for _, x := range f.Samples {
				pcm, err := d.Decode(x.Data)
				must(t, err)
				samples += len(pcm)
				h.frames++
			}
		}
	}
	h.decoded = time.Duration(samples) * time.Second / media.AudioTimescale
	return h
}

func (h heard) silent(kind conversation.GapKind) (frames int) {
	for _, g := range h.gaps {
		if g.Kind == kind {
			frames += g.Frames
		}
	}
	return frames
}

// talk sends frames in real time on a track of one source.
func (s *sender) talk(track int, source uint32, base uint32, frames [][]byte, from int) {
	start := time.Now()
	for i, f := range frames {
		if d := time.Until(start.Add(time.Duration(i) * 20 * time.Millisecond)); d > 0 {
			time.Sleep(d)
		}
		s.send(track, base+uint32(from+i)*960, 1, source, f)
	}
}

func connect(t testing.TB, p *path, s *sender) (*ingest.Peer, *told) {
	t.Helper()
	events := newTold()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	peer, err := p.receiver.Connect(ctx, s.offer, events)
	must(t, err)
	t.Cleanup(func() { must(t, peer.Close()) })
	answer(t, s, peer)
	await(t, "connected", events.connected)
	await(t, "ctl open", s.open)
	return peer, events
}

func TestWhatIsSaidIsDecodedBackFromEvidence(t *testing.T) {
	t.Parallel()
	p := newPath(t, t.TempDir(), ingest.Config{})
	s := newSender(t, senderOptions{audio: 2})
	peer, _ := connect(t, p, s)
	r := p.record(peer, "call-1")

	const base, source = 4294960000, 1234 // RTP time wraps on the way
	frames := tones(t, 440, 400)
	start := time.Now()
	s.clock(base, start)
	s.bind("a0", 1, source, base)
	s.talk(0, source, base, frames, 0)
	handed := r.finish()

	bundles := p.read(conversation.LegOf(tenant, "call-1"), handed)
	if len(bundles) != handed.Bundles || handed.Parts != 0 {
		t.Fatalf("%d bundles in packs, handed over %+v", len(bundles), handed)
	}
	for i, b := range bundles {
		if b.Seq != i || b.Part != 0 || b.Final != (i == len(bundles)-1) {
			t.Errorf("bundle %d is %d.%d, final %t", i, b.Seq, b.Part, b.Final)
		}
	}
	h := listen(t, bundles, conversation.TrackOf(conversation.AudioTrack, source))
	h.check(t, frames)
	if n := h.silent(conversation.GapLost); n != 0 {
		t.Errorf("%d frames lost on loopback", n)
	}
}

// check compares what is in evidence with what was sent: every frame as it was, and as
// much sound as there was time.
func (h heard) check(t testing.TB, sent [][]byte) {
	t.Helper()
	if off := h.end.Sub(h.first) - h.decoded; off < -20*time.Millisecond || off > 20*time.Millisecond {
		t.Errorf("decoded %s of %s from the first frame to the end", h.decoded, h.end.Sub(h.first))
	}
	want := map[string]int{}
	for _, f := range sent {
		want[string(f)]++
	}
	missing := 0
	for f, n := range want {
		missing += max(0, n-h.payloads[f])
	}
	if missing > 0 {
		t.Errorf("%d of %d frames are not in evidence as they were sent", missing, len(sent))
	}
}
