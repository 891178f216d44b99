package ingest

import (
	"slices"
	"time"

	"github.com/pion/rtcp"
)

const (
	// nackAfter is how long a hole may be mere reordering.
	nackAfter = 20 * time.Millisecond
	// nackAgain is the time between two requests for the same packet.
	nackAgain = 100 * time.Millisecond
	maxNacks  = 5
	// nackSpan is how many packets of one hole are asked for.
	nackSpan = 256
	// keyFrameAgain is the time between two requests for a key frame of one track.
	keyFrameAgain = time.Second
	// reportAgain is the time between two receiver reports, RFC 3550 section 6.2.
	reportAgain = 5 * time.Second
)

// srInfo is what a receiver report says of the last sender report.
type srInfo struct {
	ntp  uint32 // its middle
	at   time.Time
	lost uint64
	got  uint64
}

// rtcp takes a compound packet of the gateway's.
func (x *intake) rtcp(now time.Time, b []byte) {
	packets, err := rtcp.Unmarshal(b)
	x.mu.Lock()
	defer x.mu.Unlock()
	if err != nil {
		x.count.Malformed++
		return
	}
	for _, p := range packets {
		sr, ok := p.(*rtcp.SenderReport)
		if !ok {
			continue
		}
		for _, s := range x.slots {
			if s.ssrc == sr.SSRC {
				s.report.ntp, s.report.at = uint32(sr.NTPTime>>16), now
				s.own.report(sr.RTPTime, sr.NTPTime)
			}
		}
	}
}

// tick does what is due by time: holes are given up, frames that waited for a line go on,
// packets and key frames are asked for. What is to be sent is returned.
func (x *intake) tick(now time.Time) (out []rtcp.Packet, keyFrames []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.sink == nil {
		return nil, nil
	}
	for _, s := range x.slots {
		for len(s.pending) > 0 && now.Sub(s.since) >= x.window {
			x.giveUp(now, s, false)
		}
		if n := s.nack(x.own, now); n != nil {
			x.count.Nacks++
			out = append(out, n)
		}
		if s.wantsKey && s.started && now.Sub(s.asking) >= keyFrameAgain {
			s.asking = now
			x.count.KeyFrames++
			keyFrames = append(keyFrames, s.name)
			out = append(out, &rtcp.PictureLossIndication{SenderSSRC: x.own, MediaSSRC: s.ssrc})
		}
	}
	x.release(now)
	x.settle(now)
	if now.Sub(x.reported) >= reportAgain {
		x.reported = now
		if r := x.reports(now); r != nil {
			out = append(out, r)
		}
	}
	return out, keyFrames
}

// nack asks for what is missing, RFC 4585 section 6.2.1.
func (s *slot) nack(own uint32, now time.Time) rtcp.Packet {
	if len(s.pending) == 0 || now.Sub(s.since) < nackAfter {
		return nil
	}
	if s.asked == nil {
		s.asked = map[int64]request{}
	}
	var missing []uint16
	for seq := s.next; seq < s.top && seq < s.next+nackSpan; seq++ {
		if _, there := s.pending[seq]; there {
			continue
		}
		if r := s.asked[seq]; r.tries < maxNacks && now.Sub(r.at) >= nackAgain {
			s.asked[seq] = request{now, r.tries + 1}
			missing = append(missing, uint16(seq))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return &rtcp.TransportLayerNack{SenderSSRC: own, MediaSSRC: s.ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(missing)}
}

// reports tells the gateway how its packets arrive, RFC 3550 section 6.4.2.
func (x *intake) reports(now time.Time) rtcp.Packet {
	rr := &rtcp.ReceiverReport{SSRC: x.own}
	for _, s := range x.slots {
		if !s.started {
			continue
		}
		r := rtcp.ReceptionReport{SSRC: s.ssrc, TotalLost: uint32(min(s.gone, 1<<23-1)), LastSequenceNumber: uint32(s.top)}
		if lost, got := s.gone-s.report.lost, s.received-s.report.got; lost+got > 0 {
			r.FractionLost = uint8(min(255, lost*256/(lost+got)))
		}
		s.report.lost, s.report.got = s.gone, s.received
		if !s.report.at.IsZero() {
			r.LastSenderReport = s.report.ntp
			r.Delay = uint32(now.Sub(s.report.at) * 65536 / time.Second)
		}
		rr.Reports = append(rr.Reports, r)
	}
	rr.Reports = slices.Clip(rr.Reports)
	if len(rr.Reports) == 0 {
		return nil
	}
	return rr
}
