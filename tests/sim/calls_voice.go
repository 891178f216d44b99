package sim

import (
	"bytes"
	_ "embed" // speech
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"steno/tests/sim/gateway"
)

// speechFile is 95 s of synthetic speech: Opus, 48 kHz, mono, 20 ms a packet, in Ogg.
//
//go:embed testdata/speech.ogg
var speechFile []byte

// speechPackets are its packets.
var speechPackets = sync.OnceValues(func() ([][]byte, error) {
	packets, err := oggPackets(speechFile)
	if err != nil {
		return nil, fmt.Errorf("read speech: %w", err)
	}
	if len(packets) < 100 {
		return nil, fmt.Errorf("read speech: %d packets", len(packets))
	}
	return packets[2:], nil // after OpusHead and OpusTags, RFC 7845 section 3
})

// oggPackets takes the packets out of one logical stream, RFC 3533 section 6.
func oggPackets(b []byte) ([][]byte, error) {
	var out [][]byte
	var packet []byte
	for len(b) > 0 {
		if len(b) < 27 || !bytes.HasPrefix(b, []byte("OggS")) {
			return nil, errors.New("no page where one should begin")
		}
		segments := int(b[26])
		if len(b) < 27+segments {
			return nil, errors.New("a page's segment table is cut off")
		}
		table, body := b[27:27+segments], b[27+segments:]
		for _, n := range table {
			if int(n) > len(body) {
				return nil, errors.New("a page's body is cut off")
			}
			packet, body = append(packet, body[:n]...), body[n:]
			if n < 255 {
				out, packet = append(out, packet), nil
			}
		}
		b = body
	}
	return out, nil
}

const (
	// voiceOffset is how far apart in the speech participants start, so that voices differ.
	voiceOffset = 701
	// remembered is how many ticks a call remembers for legs that lag: 60 s.
	remembered = 3000
	// mostVoices is how many voices the platform tells apart.
	mostVoices = 4
)

// Utterance is a stretch of one participant's speech as it was sent: one packet every 20 ms from From on.
type Utterance struct {
	Participant ParticipantID
	MSI         uint32
	From        time.Time // on the grid of 20 ms
	Packets     [][]byte  // Opus
	Mixed       bool      // sent in the mixed buffer, with MSI as the only active speaker
}

// To is the end of the utterance.
func (u Utterance) To() time.Time {
	return u.From.Add(time.Duration(len(u.Packets)) * gateway.TickLength)
}

// SourcePeriod is when a source was that of a participant.
type SourcePeriod struct {
	Participant ParticipantID
	Party       Party
	MSI         uint32    // of audio
	From, To    time.Time // To is zero while it lasts
}

// Picture is one access unit that a participant's camera or shared screen sent.
type Picture struct {
	Participant ParticipantID
	MSI         uint32
	Screen      bool
	At          time.Time
	AnnexB      []byte
}

// Truth is what Teams sent of a call. Speech is made only while at least one leg has media, and every leg of the call
// is sent the same.
type Truth struct {
	Chain      string
	Utterances []Utterance
	Sources    []SourcePeriod
	Pictures   []Picture
	// Missing are the ticks that were not delivered; Unstamped those that had no timestamp.
	Missing, Unstamped []time.Time
}

// Truth returns what has been sent so far.
func (c *Call) Truth() Truth {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := Truth{
		Chain: c.chain, Sources: slices.Clone(c.speech.sources), Pictures: slices.Clone(c.speech.pictures),
		Missing: slices.Clone(c.speech.missing), Unstamped: slices.Clone(c.speech.unstamped),
	}
	for _, u := range c.speech.said {
		one := *u
		one.Packets = slices.Clone(u.Packets)
		out.Utterances = append(out.Utterances, one)
	}
	return out
}

// speech is who says what when. Call.mu guards it.
type speech struct {
	ticks     []gateway.Tick // a ring by tick number
	first     int64          // the first tick that was made, 0: none
	made      int64          // the last one
	count     int            // of ticks made
	turns     []*turn
	next      int64 // when the next turn begins
	said      []*Utterance
	current   map[ParticipantID]*Utterance
	sources   []SourcePeriod
	missing   []time.Time
	unstamped []time.Time
	pictures  []Picture
	key       atomic.Bool // a recorder wants a key frame
}

// turn is somebody's turn to speak.
type turn struct {
	by    *member
	until int64
}

// noteSources follows who has which source.
func (s *speech) noteSources(now time.Time, members []*member) {
	for i := range s.sources {
		p := &s.sources[i]
		gone := slices.ContainsFunc(members, func(m *member) bool { return m.id == p.Participant && !m.here() })
		if gone && p.To.IsZero() {
			p.To = now
		}
	}
	for _, m := range members {
		if !slices.ContainsFunc(s.sources, func(p SourcePeriod) bool { return p.Participant == m.id }) {
			s.sources = append(s.sources, SourcePeriod{Participant: m.id, Party: m.party, MSI: m.msi, From: m.joined})
		}
	}
}

// mediaOf is a call as a source of media; each leg has its own.
type mediaOf struct{ call *Call }

// Tick returns what the platform delivers at an instant of the grid, the same to every leg.
func (m mediaOf) Tick(at time.Time) gateway.Tick {
	c := m.call
	c.mu.Lock()
	defer c.mu.Unlock()
	s, k := &c.speech, at.UnixNano()/int64(gateway.TickLength)
	if s.first == 0 {
		s.first, s.made, s.ticks = k, k-1, make([]gateway.Tick, remembered)
		s.current = map[ParticipantID]*Utterance{}
	}
	for s.made < k {
		s.made++
		s.ticks[s.made%remembered] = c.makeTick(s.made)
	}
	if k < s.first || k <= s.made-remembered {
		return gateway.Tick{Missing: true}
	}
	return s.ticks[k%remembered]
}

// RequestKeyFrame makes the next picture of everybody a key frame.
func (m mediaOf) RequestKeyFrame(string) { m.call.speech.key.Store(true) }

// The pauses between pictures, in ticks, and between key frames, in pictures.
const (
	cameraTicks = 10
	screenTicks = 25
	keyPictures = 20
)

// film lets cameras and screens send what is due at tick k. mu is held.
func (c *Call) film(k int64, t *gateway.Tick) {
	s := &c.speech
	at := time.Unix(0, k*int64(gateway.TickLength)).UTC()
	take := func(m *member, camera *gateway.Camera, every int64, socket string, msi uint32) {
		if camera == nil || k%every != 0 || !m.here() || m.lobby || m.held {
			return
		}
		w, h := camera.Size()
		f := gateway.VideoFrame{
			Socket: socket, MSI: msi, Timestamp: gateway.Timestamp(at), Width: w, Height: h, SourceW: w, SourceH: h,
			AnnexB: camera.Frame(s.key.Load() || k/every%keyPictures == 0),
		}
		t.Video = append(t.Video, f)
		s.pictures = append(s.pictures, Picture{m.id, msi, socket != "", at, f.AnnexB})
	}
	for _, m := range c.members {
		take(m, m.camera, cameraTicks, "", m.msi+1)
		take(m, m.screen, screenTicks, "vbss", m.msi+2)
	}
	if k%screenTicks == 0 {
		s.key.Store(false) // whoever films has heard of it
	}
}

// makeTick lets the participants speak for 20 ms. mu is held.
func (c *Call) makeTick(k int64) gateway.Tick {
	s := &c.speech
	at := time.Unix(0, k*int64(gateway.TickLength)).UTC()
	s.count++
	t := gateway.Tick{Timestamp: gateway.Timestamp(at)}
	c.film(k, &t)
	if s.count <= c.plan.ZeroStamps {
		t.Timestamp = 0
		s.unstamped = append(s.unstamped, at)
	}
	if n := c.plan.MissingTicks; n > 0 && s.count%n == 0 {
		clear(s.current)
		s.missing = append(s.missing, at)
		return gateway.Tick{Missing: true, Video: t.Video}
	}
	if c.plan.Audio == Unmixed {
		t.Unmixed = []gateway.Entry{}
	}
	packets, err := speechPackets()
	if err != nil {
		panic(err) // the speech is part of this program
	}
	speakers := c.speakers(k)
	for id := range s.current {
		if !slices.ContainsFunc(speakers, func(m *member) bool { return m.id == id }) {
			delete(s.current, id)
		}
	}
	for _, m := range speakers {
		packet := packets[m.cursor%len(packets)]
		m.cursor++
		t.Active = append(t.Active, m.msi)
		if c.plan.Audio == Mixed {
			t.Mixed = packet
		} else {
			t.Unmixed = append(t.Unmixed, gateway.Entry{MSI: m.msi, Opus: packet})
		}
		u := s.current[m.id]
		if u == nil {
			u = &Utterance{Participant: m.id, MSI: m.msi, From: at, Mixed: c.plan.Audio == Mixed}
			s.current[m.id], s.said = u, append(s.said, u)
		}
		u.Packets = append(u.Packets, packet)
	}
	t.Silence = len(speakers) == 0
	return t
}

// speakers are those who speak during tick k, in the order in which they began. mu is held.
func (c *Call) speakers(k int64) []*member {
	var able []*member
	for _, m := range c.members {
		if m.speaks() && m.party.Application == "" {
			able = append(able, m)
		}
	}
	most := mostVoices
	if c.plan.Audio == Mixed {
		most = 1 // the speech is encoded already and cannot be mixed
	}
	if c.plan.Talk == AllAtOnce {
		return able[:min(len(able), most)]
	}
	if c.plan.Talk == Silent || len(able) == 0 {
		return nil
	}
	s := &c.speech
	s.turns = slices.DeleteFunc(s.turns, func(t *turn) bool { return k >= t.until || !t.by.speaks() })
	if k >= s.next && len(s.turns) < most {
		by := able[c.rand.IntN(len(able))]
		if !slices.ContainsFunc(s.turns, func(t *turn) bool { return t.by == by }) {
			length := int64(40 + c.rand.IntN(160)) // 0.8 to 4 s
			s.turns = append(s.turns, &turn{by, k + length})
			s.next = k + length + int64(5+c.rand.IntN(30))
			if chance(c.rand, 1, 4) && most > 1 { // somebody breaks in
				s.next = k + length/2
			}
		}
	}
	var out []*member
	for _, t := range s.turns {
		out = append(out, t.by)
	}
	return out
}
