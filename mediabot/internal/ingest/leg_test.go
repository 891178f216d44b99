package ingest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"steno/mediabot/internal/ingest"
	"steno/shared/conversation"
)

// The gateway of this test repeats nothing, so that what is lost stays lost.
func TestFivePercentLossIsInTheLedgerAndNotInTheLength(t *testing.T) {
	t.Parallel()
	const source = 77
	lost := 0
	p := newPath(t, t.TempDir(), ingest.Config{})
	s := newSender(t, senderOptions{audio: 1, loss: func(_ string, seq uint16) bool {
		if seq%20 == 7 {
			lost++
			return true
		}
		return false
	}})
	peer, _ := connect(t, p, s)
	r := p.record(peer, "lossy")
	frames := tones(t, 300, 500)
	s.clock(0, time.Now())
	s.bind("a0", 1, source, 0)
	s.talk(0, source, 0, frames, 0)
	h := listen(t, p.read(conversation.LegOf(tenant, "lossy"), r.finish()), conversation.TrackOf(conversation.AudioTrack, source))
	var came [][]byte
	for i, f := range frames {
		if i%20 != 7 {
			came = append(came, f)
		}
	}
	h.check(t, came)
	if n := h.silent(conversation.GapLost); n < lost-1 || n > lost {
		t.Errorf("%d frames lost by the ledger, %d by the network", n, lost)
	}
}

func TestLostPacketsAreRepeatedOnRequest(t *testing.T) {
	t.Parallel()
	const source = 78
	p := newPath(t, t.TempDir(), ingest.Config{})
	s := newSender(t, senderOptions{audio: 1, nacks: true, loss: func(_ string, seq uint16) bool { return seq%10 == 3 && seq < 390 }})
	peer, _ := connect(t, p, s)
	r := p.record(peer, "repaired")
	frames := tones(t, 500, 400)
	s.clock(0, time.Now())
	s.bind("a0", 1, source, 0)
	s.talk(0, source, 0, frames, 0)
	h := listen(t, p.read(conversation.LegOf(tenant, "repaired"), r.finish()), conversation.TrackOf(conversation.AudioTrack, source))
	h.check(t, frames)
	if c := peer.Counters(); c.Repaired == 0 || c.Nacks == 0 || c.Lost != 0 {
		t.Errorf("counters %+v", c)
	}
}

func TestPacketsOfStrangersDisturbNothing(t *testing.T) {
	t.Parallel()
	p := newPath(t, t.TempDir(), ingest.Config{})
	s := newSender(t, senderOptions{audio: 1})
	events := newTold()
	peer, err := p.receiver.Connect(t.Context(), s.offer, events)
	must(t, err)
	t.Cleanup(func() { must(t, peer.Close()) })

	// A ClientHello, a STUN request and RTP from another local process, before the gateway's.
	port, err := strconv.Atoi(regexp.MustCompile(`127\.0\.0\.1 (\d+) typ host`).FindStringSubmatch(peer.Answer())[1])
	must(t, err)
	stranger, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	must(t, err)
	defer func() { must(t, stranger.Close()) }()
	hello := append([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 1, 0, 0, 28}, make([]byte, 40)...)
	stun := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...)
	rtp := append([]byte{0x80, 111, 0, 1}, make([]byte, 60)...)
	for range 20 {
		for _, b := range [][]byte{hello, stun, rtp} {
			_, err := stranger.Write(b)
			must(t, err)
		}
	}
	answer(t, s, peer)
	await(t, "connected", events.connected)
	await(t, "ctl open", s.open)
	eventually(t, "foreign packets counted", func() bool { return p.receiver.Stats().Foreign == 60 })

	const source = 5
	r := p.record(peer, "strangers")
	frames := tones(t, 700, 100)
	s.clock(0, time.Now())
	s.bind("a0", 1, source, 0)
	s.talk(0, source, 0, frames, 0)
	h := listen(t, p.read(conversation.LegOf(tenant, "strangers"), r.finish()), conversation.TrackOf(conversation.AudioTrack, source))
	h.check(t, frames)
}

func TestAPeerWithAnotherFingerprintIsRefused(t *testing.T) {
	t.Parallel()
	p := newPath(t, t.TempDir(), ingest.Config{})
	s := newSender(t, senderOptions{audio: 1})
	other := newSender(t, senderOptions{audio: 1})
	print := regexp.MustCompile(`a=fingerprint:.*`)
	s.offer.SDP = print.ReplaceAllString(s.offer.SDP, strings.TrimSpace(print.FindString(other.offer.SDP)))
	events := newTold()
	peer, err := p.receiver.Connect(t.Context(), s.offer, events)
	must(t, err)
	t.Cleanup(func() { must(t, peer.Close()) })
	answer(t, s, peer)
	select {
	case err := <-events.lost:
		t.Log(err)
	case <-events.connected:
		t.Fatal("connected with another certificate than the offer's")
	case <-time.After(patience):
		t.Fatal("neither connected nor lost")
	}
}

func TestOffersThatNoGatewayOnThisMachineMakesAreRefused(t *testing.T) {
	p := newPath(t, t.TempDir(), ingest.Config{})
	s := newSender(t, senderOptions{audio: 1})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	cert, err := webrtc.GenerateCertificate(key)
	must(t, err)
	prints, err := cert.GetFingerprints()
	must(t, err)
	swap := func(from, to string) func(o *ingest.Offer) {
		return func(o *ingest.Offer) { o.SDP = strings.ReplaceAll(o.SDP, from, to) }
	}
	for name, change := range map[string]func(o *ingest.Offer){
		"another machine": swap("127.0.0.1 ", "10.0.0.9 "),
		"mDNS":            swap("127.0.0.1 ", "a.local "),
		"TCP":             swap(" udp ", " tcp "),
		"reflexive":       swap("typ host", "typ srflx"),
		"no candidate":    swap("a=candidate", "a=other"),
		"no fingerprint":  swap("a=fingerprint", "a=other"),
		"SHA-1":           swap("sha-256", "sha-1"),
		"two fingerprints": func(o *ingest.Offer) {
			o.SDP = strings.Replace(o.SDP, "a=setup", "a=fingerprint:sha-256 "+prints[0].Value+"\r\na=setup", 1)
		},
		"lite":          swap("a=group", "a=ice-lite\r\na=group"),
		"no data":       swap("m=application", "m=audio"),
		"not SDP":       func(o *ingest.Offer) { o.SDP = "v=1" },
		"no tracks":     func(o *ingest.Offer) { o.Tracks = nil },
		"many tracks":   func(o *ingest.Offer) { o.Tracks = make([]ingest.Track, ingest.MaxTracks+1) },
		"shared SSRC":   func(o *ingest.Offer) { o.Tracks = append(o.Tracks, o.Tracks[0]) },
		"a clock rate":  func(o *ingest.Offer) { o.Tracks[0].ClockRate = 8000 },
		"extension 300": func(o *ingest.Offer) { o.SourceExt = 300 },
	} {
		o := s.offer
		o.Tracks = append([]ingest.Track(nil), o.Tracks...)
		change(&o)
		peer, err := p.receiver.Connect(t.Context(), o, newTold())
		if !errors.Is(err, ingest.ErrOffer) {
			t.Errorf("%s: %v", name, err)
		}
		if peer != nil {
			must(t, peer.Close())
		}
	}
}

func TestMediaBeforeTheGrantAndAfterTheEndIsNowhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPath(t, dir, ingest.Config{})
	s := newSender(t, senderOptions{audio: 1})
	peer, _ := connect(t, p, s)
	secret := append([]byte{0x48}, "this was said before anybody was told"...)
	const source = 9
	start := time.Now()
	s.clock(0, start)
	s.bind("a0", 1, source, 0)
	for i := range 50 {
		s.send(0, uint32(i)*960, 1, source, secret)
	}
	eventually(t, "packets came", func() bool { return peer.Counters().Closed == 50 })
	r := p.record(peer, "gate")
	frames := tones(t, 250, 60)
	s.talk(0, source, uint32(time.Since(start)/(20*time.Millisecond))*960, frames, 0)
	handed := r.finish()
	for i := range 50 {
		s.send(0, uint32(time.Since(start)/(20*time.Millisecond)+time.Duration(i))*960, 1, source, secret)
	}
	eventually(t, "packets came", func() bool { return peer.Counters().Closed == 100 })

	for _, b := range p.read(conversation.LegOf(tenant, "gate"), handed) {
		if bytes.Contains(b.body, secret[1:]) {
			t.Errorf("bundle %d holds it", b.Seq)
		}
	}
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, secret[1:]) || bytes.Contains(b, frames[30]) {
			t.Errorf("%s holds what was said, in clear", e.Name())
		}
		return err
	}))
}

func TestASecondDataChannelIsClosedAndTheFirstStays(t *testing.T) {
	t.Parallel()
	p := newPath(t, t.TempDir(), ingest.Config{})
	s := newSender(t, senderOptions{audio: 1})
	peer, events := connect(t, p, s)
	ordered, protocol := true, "mgw.v1"
	second, err := s.pc.CreateDataChannel("ctl", &webrtc.DataChannelInit{Ordered: &ordered, Protocol: &protocol})
	must(t, err)
	closed := make(chan bool)
	second.OnClose(func() { close(closed) })
	await(t, "the second channel is closed", closed)
	s.say("hello", map[string]any{})
	eventually(t, "a line is heard", func() bool {
		events.mu.Lock()
		defer events.mu.Unlock()
		return len(events.lines) == 1
	})
	must(t, peer.Send(map[string]any{"t": "ping", "seq": 1}))
	eventually(t, "a line is sent", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.heard) == 1 && s.heard[0] == `{"seq":1,"t":"ping"}`+"\n"
	})
}

func TestAGatewayThatBreaksTheContractOrGoesIsReportedOnce(t *testing.T) {
	t.Parallel()
	p := newPath(t, t.TempDir(), ingest.Config{})
	s := newSender(t, senderOptions{audio: 1})
	_, events := connect(t, p, s)
	s.mu.Lock()
	s.seq = 7
	s.mu.Unlock()
	s.say("hello", map[string]any{})
	if err := await(t, "lost", events.lost); !errors.Is(err, ingest.ErrContract) {
		t.Error(err)
	}

	gone := newSender(t, senderOptions{audio: 1})
	_, told := connect(t, p, gone)
	must(t, gone.pc.Close())
	t.Log(await(t, "lost", told.lost))
}

func TestAGatewayThatDiesWithoutAWordIsNoticedAndWhatItSaidIsKept(t *testing.T) {
	t.Parallel()
	const source = 31
	p := newPath(t, t.TempDir(), ingest.Config{})
	s := newSender(t, senderOptions{audio: 1})
	peer, events := connect(t, p, s)
	r := p.record(peer, "died")
	frames := tones(t, 400, 150)
	s.clock(0, time.Now())
	s.bind("a0", 1, source, 0)
	s.talk(0, source, 0, frames, 0)
	eventually(t, "all has come", func() bool { return peer.Counters().Packets == uint64(len(frames)) })
	s.net.kill(t)
	t.Log(await(t, "lost", events.lost))
	h := listen(t, p.read(conversation.LegOf(tenant, "died"), r.finish()), conversation.TrackOf(conversation.AudioTrack, source))
	h.check(t, frames)
}

func TestSocketsHaveRoomAndTellWhatTheyDropped(t *testing.T) {
	p := newPath(t, t.TempDir(), ingest.Config{})
	s := newSender(t, senderOptions{audio: 1})
	connect(t, p, s)
	st := p.receiver.Stats()
	if st.Peers != 1 || st.Buffer <= 0 || st.Short != (st.Buffer < ingest.ReceiveBuffer) || st.Drops != 0 {
		t.Errorf("%+v", st)
	}
}
