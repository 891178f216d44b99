package browser_test

import (
	"bytes"
	"context"
	_ "embed"
	"log/slog"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/thesyncim/gopus"

	"steno/functions/finalize"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/media"
	"steno/shared/storetest"
	"steno/shared/teams"
)

// screenShare is twelve seconds of a test picture of 320 by 180, 15 frames a second, as
// an Annex B byte stream.
//
//go:embed testdata/screen.h264
var screenShare []byte

// callStory is a call of two parties that ended, and one that runs. In the first, Amara
// sounds as 400 Hz from second 1 to 25 and the telephone as 1000 Hz from second 12 to 29;
// 4 s of the telephone's were lost, and recording was paused for 2 s.
func callStory(t *testing.T, a *archive) (ended, running conversation.ID) {
	t.Helper()
	epoch := noon(1).Add(2 * time.Hour)
	rec := ring(t, "ended-call", epoch)
	rec.Outcome = conversation.OutcomeRecorded
	n, err := rec.Store(t.Context(), a.evidence)
	if err != nil {
		t.Fatal(err)
	}
	a.tell(t, n)
	live := ring(t, "running-call", time.Now().UTC().Truncate(conversation.SegmentDuration).Add(-36*time.Second))
	live.Tracks = live.Tracks[:2]
	n, err = live.Store(t.Context(), a.evidence)
	if err != nil {
		t.Fatal(err)
	}
	n.Kind, n.Bundles, n.Invite = conversation.LegStarted, 0, live.Events[0].Invite
	a.tell(t, n)
	id := func(r storetest.Recording) conversation.ID {
		return conversation.IDOf(conversation.CallKeyOf(tenant, r.Chain), r.Epoch)
	}
	return id(rec), id(live)
}

func ring(t *testing.T, call teams.CallID, epoch time.Time) storetest.Recording {
	t.Helper()
	streams := func(audio, screen teams.SourceID) []teams.MediaStream {
		return []teams.MediaStream{
			{Kind: teams.MediaAudio, Source: audio, Direction: "sendReceive"}, {Kind: teams.MediaScreen, Source: screen, Direction: "sendOnly"},
		}
	}
	recorded := teams.Participant{ID: "p1", Party: teams.Party{Kind: teams.PartyUser, ID: string(amara.id), Name: amara.name}, Streams: streams(7, 70)}
	caller := false
	chain := teams.ChainID("chain-of-" + string(call))
	sps, pps, picture := accessUnits(t, screenShare)
	at := func(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }
	return storetest.Recording{
		Tenant: tenant, Call: call, Chain: chain, Recorder: "bot", Epoch: epoch, Slots: 5,
		Tracks: []storetest.RecordedTrack{
			{Track: "audio-7", Source: 7, Offset: time.Second, Packets: tone(t, 400, 24*50), Gaps: []conversation.Gap{
				{From: at(8), To: at(10), Kind: conversation.GapPaused, Frames: 100, Reason: "card number", Actor: omar.id},
			}},
			{Track: "audio-9", Source: 9, Offset: 12 * time.Second, Packets: tone(t, 1000, 17*50), Gaps: []conversation.Gap{
				{From: at(20), To: at(24), Kind: conversation.GapLost, Frames: 200},
			}},
			{Track: "screen-70", Source: 70, Kind: conversation.ScreenTrack, Offset: 6 * time.Second, Picture: picture, SPS: sps, PPS: pps},
		},
		Events: []conversation.LegEvent{
			{At: epoch, Kind: conversation.EventInvited, Invite: &teams.Invite{
				Call: call, Chain: chain, Tenant: tenant, Recorded: recorded, Caller: &caller, At: epoch, Subject: "Order of the morning",
			}},
			{At: at(1), Kind: conversation.EventRoster, Roster: []teams.Participant{recorded,
				{ID: "p2", Party: teams.Party{Kind: teams.PartyPhone, ID: "+4930123456"}, Streams: streams(9, 0)}}},
			{At: at(8), Kind: conversation.EventPaused, Actor: omar.id, Reason: "card number"},
			{At: at(10), Kind: conversation.EventResumed, Actor: omar.id},
		},
	}
}

func tone(t *testing.T, hz float64, n int) [][]byte {
	t.Helper()
	enc, err := gopus.NewEncoder(gopus.EncoderConfig{SampleRate: 16000, Channels: 1, Application: gopus.ApplicationVoIP})
	if err != nil {
		t.Fatal(err)
	}
	pcm, buf := make([]float32, 320), make([]byte, 1500)
	var out [][]byte
	for f := range n {
		for i := range pcm {
			pcm[i] = float32(0.4 * math.Sin(2*math.Pi*hz*float64(f*320+i)/16000))
		}
		k, err := enc.Encode(pcm, buf)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, slices.Clone(buf[:k]))
	}
	return out
}

// accessUnits splits a byte stream of one slice a picture into samples as MP4 has them.
func accessUnits(t *testing.T, stream []byte) (sps, pps []byte, samples []media.Sample) {
	t.Helper()
	for _, nal := range bytes.Split(stream, []byte{0, 0, 1})[1:] {
		nal = bytes.TrimSuffix(nal, []byte{0})
		switch kind := nal[0] & 0x1f; kind {
		case 7:
			sps = nal
		case 8:
			pps = nal
		case 1, 5:
			data := append([]byte{byte(len(nal) >> 24), byte(len(nal) >> 16), byte(len(nal) >> 8), byte(len(nal))}, nal...)
			samples = append(samples, media.Sample{Data: data, Duration: media.VideoTimescale / 15, Sync: kind == 5})
		}
	}
	if sps == nil || pps == nil || len(samples) != 180 {
		t.Fatalf("%d pictures in the test stream", len(samples))
	}
	return sps, pps, samples
}

// tell hands a notice to finalize.
func (a *archive) tell(t *testing.T, n conversation.LegNotice) {
	t.Helper()
	body, err := conversation.EncodeNotice(n)
	if err != nil {
		t.Fatal(err)
	}
	f := finalize.New(finalize.Config{Tenant: tenant}, a.evidence, &a.catalog, noDirectory{}, custody.Log{Trail: &a.trail}, noQueue{}, slog.New(slog.DiscardHandler))
	if err := f.Handle(t.Context(), body); err != nil {
		t.Fatal(err)
	}
}

type noDirectory struct{}

func (noDirectory) User(_ context.Context, id teams.PersonID) (teams.User, error) {
	return teams.User{ID: id}, nil
}
func (noDirectory) ChatTopic(context.Context, teams.ThreadID) (string, error) { return "", nil }

type noQueue struct{}

func (noQueue) Send(context.Context, string, []byte, time.Time) error { return nil }
