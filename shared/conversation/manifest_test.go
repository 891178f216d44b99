package conversation

import (
	"testing"
	"time"

	"steno/shared/teams"
)

var nine = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func at(s float64) time.Time { return nine.Add(time.Duration(s * float64(time.Second))) }

// bundleOf is bundle seq of a leg, with six seconds of each source.
func bundleOf(seq int, events []LegEvent, sources ...teams.SourceID) BundleHeader {
	h := BundleHeader{
		Tenant: "11111111-aaaa-4bbb-8ccc-222222222222", Leg: "leg-00000000000000000000000000000000", Seq: seq,
		From: at(float64(6 * seq)), To: at(float64(6 * (seq + 1))), Events: events,
	}
	for _, s := range sources {
		h.Segments = append(h.Segments, Segment{
			Track: TrackOf(AudioTrack, s), Kind: AudioTrack, Source: s, Codec: "opus", Wall: h.From, Timescale: 48000,
			Time: int64(seq) * 288000, Duration: 288000, Samples: 300,
		})
	}
	return h
}

func in(id string, source teams.SourceID, change ...func(*teams.Participant)) teams.Participant {
	p := teams.Participant{
		ID: teams.ParticipantID(id), Party: teams.Party{Kind: teams.PartyUser, ID: "user of " + id},
		Streams: []teams.MediaStream{{Kind: teams.MediaAudio, Source: source, Direction: "sendReceive"}},
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

func roster(s float64, who ...teams.Participant) LegEvent {
	return LegEvent{At: at(s), Kind: EventRoster, Roster: who}
}

func left(s float64, who ...teams.ParticipantID) LegEvent {
	return LegEvent{At: at(s), Kind: EventRoster, Left: who}
}

func fold(t *testing.T, headers ...BundleHeader) Manifest {
	t.Helper()
	var m Manifest
	for _, h := range headers {
		if err := m.Add(h, BundleEntry{}); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// owners maps each bundle to the party that the segment of a source in it belongs to.
func owners(m Manifest, source teams.SourceID) map[int]string {
	out := map[int]string{}
	for _, l := range m.Lanes() {
		for _, s := range l.Segments {
			if m.Tracks[s.Track].Source != source {
				continue
			}
			out[m.Bundles[s.Bundle].Seq] = string(l.ID)
			if l.Party != nil {
				out[m.Bundles[s.Bundle].Seq] = l.Party.ID
			}
		}
	}
	return out
}

func wantOwners(t *testing.T, m Manifest, source teams.SourceID, want map[int]string) {
	t.Helper()
	got := owners(m, source)
	for seq, w := range want {
		if got[seq] != w {
			t.Errorf("source %s in bundle %d belongs to %q, want %q", source, seq, got[seq], w)
		}
	}
}

func TestASourceBelongsToItsPartyOnlyWhileTheRosterSaysSo(t *testing.T) {
	m := fold(t,
		bundleOf(0, []LegEvent{roster(1, in("a", 7), in("b", 8))}, 7, 8),
		bundleOf(1, nil, 7, 8),
		bundleOf(2, nil, 7, 8),
		bundleOf(3, []LegEvent{left(18, "a")}, 8),
		bundleOf(4, nil, 8), bundleOf(5, nil, 8), bundleOf(6, nil, 8),
		bundleOf(7, []LegEvent{roster(42, in("c", 7))}, 7, 8),
		bundleOf(8, nil, 7, 8), bundleOf(9, nil, 7, 8),
	)
	wantOwners(t, m, 7, map[int]string{0: "user of a", 1: "user of a", 2: "user of a", 7: "user of c", 8: "user of c", 9: "user of c"})
	wantOwners(t, m, 8, map[int]string{0: "user of b", 4: "user of b", 9: "user of b"})
}

func TestASourceThatMovesWithinASegmentIsNobodysThere(t *testing.T) {
	m := fold(t,
		bundleOf(0, []LegEvent{roster(0, in("a", 7))}, 7), bundleOf(1, nil, 7), bundleOf(2, nil, 7),
		bundleOf(3, []LegEvent{left(20, "a"), roster(20, in("b", 7))}, 7),
		bundleOf(4, nil, 7), bundleOf(5, nil, 7), bundleOf(6, nil, 7),
	)
	wantOwners(t, m, 7, map[int]string{0: "user of a", 1: "user of a", 3: string(LaneUnknown), 6: "user of b"})
}

func TestSomebodyWhoComesBackUnderAnotherSourceHasOneLane(t *testing.T) {
	back := in("a2", 9, func(p *teams.Participant) { p.Party.ID = "user of a" })
	m := fold(t,
		bundleOf(0, []LegEvent{roster(0, in("a", 7))}, 7),
		bundleOf(1, []LegEvent{left(6, "a")}),
		bundleOf(2, []LegEvent{roster(12, back)}, 9),
	)
	lanes := m.Lanes()
	if len(lanes) != 1 || len(lanes[0].Segments) != 2 || len(m.Parties) != 1 || len(m.Parties[0].Present) != 2 {
		t.Errorf("%d lanes, %+v", len(lanes), m.Parties)
	}
}

func TestMutedHeldAndLobbyAreIntervalsOfAParty(t *testing.T) {
	muted := func(p *teams.Participant) { p.Muted = true }
	held := func(p *teams.Participant) { p.Streams[0].Direction = "inactive" }
	lobby := func(p *teams.Participant) { p.Lobby = true }
	m := fold(t, bundleOf(0, []LegEvent{
		roster(0, in("a", 7, lobby), in("l", 9, lobby)), roster(1, in("a", 7)), roster(2, in("a", 7, muted)), roster(3, in("a", 7)), roster(4, in("a", 7, held)), left(5, "a"),
	}))
	a, l := m.Parties[0], m.Parties[1]
	same := func(what string, got []Interval, from, to float64) {
		if len(got) != 1 || !got[0].From.Equal(at(from)) || !got[0].To.Equal(at(to)) {
			t.Errorf("%s: %+v", what, got)
		}
	}
	same("present", a.Present, 1, 5)
	same("muted", a.Muted, 2, 3)
	same("held", a.Held, 4, 5)
	if a.Lobby || !l.Lobby || len(l.Present) != 0 {
		t.Errorf("lobby: %+v", l)
	}
}

func TestSkippedBundlesAreLostInEveryTrackAndOrderIsKept(t *testing.T) {
	m := fold(t, bundleOf(0, nil, 7), bundleOf(3, nil, 7))
	m.Close(6)
	var lost time.Duration
	for _, g := range m.Tracks[0].Gaps {
		lost += g.To.Sub(g.From)
	}
	if lost != 24*time.Second || m.Lost() != lost {
		t.Errorf("lost %s: %+v", lost, m.Tracks[0].Gaps)
	}
	for _, seq := range []int{3, 1} {
		if err := m.Add(bundleOf(seq, nil), BundleEntry{}); err == nil {
			t.Errorf("bundle %d was added after 3", seq)
		}
	}
	foreign := bundleOf(9, nil)
	foreign.Leg = "leg-11111111111111111111111111111111"
	if err := m.Add(foreign, BundleEntry{}); err == nil {
		t.Error("a bundle of another leg was added")
	}
}

func TestAManifestReadsBackAndRefusesWhatPointsNowhere(t *testing.T) {
	m := fold(t, bundleOf(0, []LegEvent{roster(0, in("a", 7))}, 7))
	m.Bundles[0].Pack = -1
	b, err := EncodeManifest(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeManifest(b)
	if err != nil || len(got.Lanes()) != 1 || got.Parties[0].Participants[0] != "a" {
		t.Errorf("%+v %v", got, err)
	}
	for what, spoil := range map[string]func(*Manifest){
		"pack": func(m *Manifest) { m.Bundles[0].Pack = 0 }, "bundle": func(m *Manifest) { m.Tracks[0].Segments[0].Bundle = 1 },
		"timescale": func(m *Manifest) { m.Tracks[0].Timescale = 0 }, "format": func(m *Manifest) { m.Format = "steno-leg-manifest/2" },
	} {
		bad := fold(t, bundleOf(0, nil, 7))
		bad.Bundles[0].Pack = -1
		spoil(&bad)
		b, err := EncodeManifest(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeManifest(b); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func TestANoticeReadsBackAndRefusesWhatIsNotOurs(t *testing.T) {
	const tenant = teams.TenantID("11111111-aaaa-4bbb-8ccc-222222222222")
	n := LegNotice{Kind: LegEnded, Tenant: tenant, Leg: LegOf(tenant, "call"), Call: "call", Chain: "chain", At: nine, Outcome: OutcomeRecorded, Bundles: 3}
	b, err := EncodeNotice(n)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeNotice(b)
	if err != nil || got.Bundles != 3 || got.MessageID() != string(n.Leg)+"-ended" {
		t.Errorf("%+v %v", got, err)
	}
	for what, spoil := range map[string]func(*LegNotice){
		"leg": func(n *LegNotice) { n.Leg = LegOf(tenant, "other") }, "kind": func(n *LegNotice) { n.Kind = "gone" }, "outcome": func(n *LegNotice) { n.Outcome = "" },
		"count": func(n *LegNotice) { n.Packs = -1 }, "call": func(n *LegNotice) { n.Call = "../x" }, "tenant": func(n *LegNotice) { n.Tenant = "x" },
		"invite": func(n *LegNotice) { n.Kind = LegStarted },
	} {
		bad := n
		spoil(&bad)
		if _, err := EncodeNotice(bad); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	for _, raw := range []string{`{"format":"steno-leg/1","Format":"x"}`, `{"format":"steno-leg/1","force":true}`, `[]`, ``} {
		if _, err := DecodeNotice([]byte(raw)); err == nil {
			t.Errorf("%s: accepted", raw)
		}
	}
}

func FuzzNotice(f *testing.F) {
	f.Add([]byte(`{"format":"steno-leg/1","kind":"ended"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := DecodeNotice(b)
		if err != nil {
			return
		}
		if _, err := EncodeNotice(n); err != nil {
			t.Errorf("%+v was read and cannot be written: %v", n, err)
		}
	})
}
