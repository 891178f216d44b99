package gateway

import "bytes"

// maxPayload is the largest RTP payload of video, in bytes: it fits an Ethernet frame with SRTP and header extension.
const maxPayload = 1200

// NAL unit types, ITU-T H.264 table 7-1, and the fragmentation unit of RFC 6184 section 5.8.
const (
	nalIDR = 5
	nalSPS = 7
	nalPPS = 8
	nalFUA = 28
)

// splitAnnexB returns the NAL units of a byte stream, without start codes. Zero bytes before a start code belong to it
// (Annex B.1: leading and trailing zero_8bits).
func splitAnnexB(stream []byte) [][]byte {
	var out [][]byte
	start := -1
	for i := 0; i+2 < len(stream); {
		if stream[i] != 0 || stream[i+1] != 0 || stream[i+2] != 1 {
			i++
			continue
		}
		if start >= 0 {
			out = appendNAL(out, stream[start:i])
		}
		i += 3
		start = i
	}
	if start >= 0 {
		out = appendNAL(out, stream[start:])
	}
	return out
}

func appendNAL(out [][]byte, nal []byte) [][]byte {
	if nal = bytes.TrimRight(nal, "\x00"); len(nal) > 0 {
		return append(out, nal)
	}
	return out
}

// packetize cuts NAL units into RTP payloads: single NAL units and FU-A, no aggregation (RFC 6184 sections 5.6, 5.8).
func packetize(nals [][]byte) [][]byte {
	var out [][]byte
	for _, nal := range nals {
		if len(nal) <= maxPayload {
			out = append(out, nal)
			continue
		}
		header, rest := nal[0], nal[1:]
		for first := true; len(rest) > 0; first = false {
			n := min(len(rest), maxPayload-2)
			fu := header & 0x1f
			if first {
				fu |= 0x80
			}
			if n == len(rest) {
				fu |= 0x40
			}
			p := append([]byte{header&0xe0 | nalFUA, fu}, rest[:n]...)
			out, rest = append(out, p), rest[n:]
		}
	}
	return out
}

// startsDecoding reports whether a decoder can start at this access unit.
func startsDecoding(nals [][]byte) bool {
	var sps, pps, idr bool
	for _, n := range nals {
		switch n[0] & 0x1f {
		case nalSPS:
			sps = true
		case nalPPS:
			pps = true
		case nalIDR:
			idr = true
		}
	}
	return sps && pps && idr
}

// parameterSet returns the access unit's SPS, nil if it has none.
func parameterSet(nals [][]byte) []byte {
	for _, n := range nals {
		if n[0]&0x1f == nalSPS {
			return n
		}
	}
	return nil
}
