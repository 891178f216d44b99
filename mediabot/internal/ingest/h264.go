package ingest

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Limits of video.
const (
	MaxNAL  = 1 << 20
	maxUnit = 4 << 20 // an access unit
)

var (
	errNAL       = errors.New("NAL unit larger than 1 MiB")
	errUnit      = errors.New("access unit larger than 4 MiB")
	errPayload   = errors.New("payload is not RFC 6184")
	errFragments = errors.New("fragments of a NAL unit without its start")
)

// NAL unit types, ITU-T H.264 table 7-1 and RFC 6184 section 5.2.
const (
	nalIDR   = 5
	nalSPS   = 7
	nalPPS   = 8
	nalSTAPA = 24
	nalFUA   = 28
)

// accessUnit puts the NAL units of one picture together, each with its length in four
// bytes before it. Parameter sets are kept apart: they stand in the initialization
// segment.
type accessUnit struct {
	data     []byte
	sps, pps []byte
	key      bool
	fragment int // where the NAL unit begins that is being put together, -1 if none
}

func (u *accessUnit) reset() {
	*u = accessUnit{data: u.data[:0], fragment: -1}
}

// add takes the payload of a packet, RFC 6184 sections 5.6 to 5.8.
func (u *accessUnit) add(p []byte) error {
	if len(p) == 0 {
		return errPayload
	}
	switch p[0] & 0x1f {
	case nalSTAPA:
		for p = p[1:]; len(p) > 0; {
			if len(p) < 2 {
				return errPayload
			}
			n := int(binary.BigEndian.Uint16(p))
			if n == 0 || n > len(p)-2 {
				return errPayload
			}
			if err := u.unit(p[2 : 2+n]); err != nil {
				return err
			}
			p = p[2+n:]
		}
		return nil
	case nalFUA:
		return u.part(p)
	case 0, 25, 26, 27, 29, 30, 31:
		return errPayload
	}
	return u.unit(p)
}

func (u *accessUnit) part(p []byte) error {
	if len(p) < 3 {
		return errPayload
	}
	start, end := p[1]&0x80 != 0, p[1]&0x40 != 0
	switch {
	case start == (u.fragment >= 0):
		return errFragments
	case start:
		u.fragment = len(u.data)
		u.data = append(u.data, 0, 0, 0, 0, p[0]&0xe0|p[1]&0x1f)
	}
	if len(u.data)-u.fragment+len(p) > MaxNAL {
		return errNAL
	}
	if len(u.data)+len(p) > maxUnit {
		return errUnit
	}
	u.data = append(u.data, p[2:]...)
	if end {
		nal := u.data[u.fragment+4:]
		u.data = u.data[:u.fragment]
		u.fragment = -1
		return u.unit(nal)
	}
	return nil
}

// unit takes a whole NAL unit. It may lie in u.data, where it would stand anyway.
func (u *accessUnit) unit(nal []byte) error {
	if u.fragment >= 0 {
		return errFragments
	}
	if len(nal) > MaxNAL {
		return errNAL
	}
	if len(u.data)+len(nal)+4 > maxUnit {
		return errUnit
	}
	switch nal[0] & 0x1f {
	case nalSPS:
		u.sps = bytes.Clone(nal)
		return nil
	case nalPPS:
		u.pps = bytes.Clone(nal)
		return nil
	case nalIDR:
		u.key = true
	}
	n := len(u.data)
	u.data = append(u.data, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(u.data[n:], uint32(len(nal)))
	u.data = append(u.data, nal...)
	return nil
}
