package media

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sample is one coded frame.
type Sample struct {
	Data     []byte
	Duration uint32 // in units of the track's timescale
	Sync     bool   // can be decoded on its own; always true for audio
}

// Fragment is one moof and mdat of a track. Track id is always 1: every track has files
// of its own.
type Fragment struct {
	Sequence uint32 // counts the fragments of a track from 1
	Time     uint64 // decode time of the first sample
	// DefaultDuration is what most samples last. If all do, durations take no space.
	DefaultDuration uint32
	Samples         []Sample
}

// Flags of trun, tfhd and samples, ISO/IEC 14496-12 sections 8.8.3, 8.8.7 and 8.8.8.
const (
	tfhdDefaultDuration = 0x000008
	tfhdDefaultFlags    = 0x000020
	tfhdBaseIsMoof      = 0x020000
	trunDataOffset      = 0x000001
	trunDuration        = 0x000100
	trunSize            = 0x000200
	trunFlags           = 0x000400

	flagsSync    = 0x02000000 // depends on no other sample
	flagsNonSync = 0x01010000 // depends on others; not a sync sample
)

// AppendFragment appends the fragment's bytes to dst: 104 bytes and four a sample if
// all samples are sync samples of the default duration.
func AppendFragment(dst []byte, f Fragment) ([]byte, error) {
	if len(f.Samples) == 0 {
		return nil, errors.New("fragment without samples")
	}
	flags := uint32(trunDataOffset | trunSize)
	perSample, data := 4, 0
	durations, syncs := false, true
	for _, s := range f.Samples {
		durations = durations || s.Duration != f.DefaultDuration
		syncs = syncs && s.Sync
		data += len(s.Data)
	}
	if durations {
		flags |= trunDuration
		perSample += 4
	}
	if !syncs {
		flags |= trunFlags
		perSample += 4
	}
	const mfhd, tfhd, tfdt = 16, 24, 20
	trun := 20 + perSample*len(f.Samples)
	traf := 8 + tfhd + tfdt + trun
	moof := 8 + mfhd + traf
	if uint64(moof)+uint64(data)+8 > 1<<31 {
		return nil, fmt.Errorf("fragment of %d bytes", data)
	}
	u32 := binary.BigEndian.AppendUint32
	box := func(size int, name string) { dst = append(u32(dst, uint32(size)), name...) }

	box(moof, "moof")
	box(mfhd, "mfhd")
	dst = u32(u32(dst, 0), f.Sequence)
	box(traf, "traf")
	box(tfhd, "tfhd")
	dst = u32(dst, tfhdDefaultDuration|tfhdDefaultFlags|tfhdBaseIsMoof)
	dst = u32(u32(u32(dst, 1), f.DefaultDuration), flagsSync)
	box(tfdt, "tfdt")
	dst = binary.BigEndian.AppendUint64(u32(dst, 1<<24), f.Time)
	box(trun, "trun")
	dst = u32(u32(u32(dst, flags), uint32(len(f.Samples))), uint32(moof+8))
	for _, s := range f.Samples {
		if durations {
			dst = u32(dst, s.Duration)
		}
		dst = u32(dst, uint32(len(s.Data)))
		if !syncs {
			if s.Sync {
				dst = u32(dst, flagsSync)
			} else {
				dst = u32(dst, flagsNonSync)
			}
		}
	}
	box(8+data, "mdat")
	for _, s := range f.Samples {
		dst = append(dst, s.Data...)
	}
	return dst, nil
}

// ErrFragment is wrapped when bytes are not a fragment as AppendFragment writes it.
var ErrFragment = errors.New("not a media fragment")

// ParseFragment reads what AppendFragment wrote, and nothing else: it is no general MP4
// reader. The samples share b's memory.
func ParseFragment(b []byte) (Fragment, error) {
	var f Fragment
	bad := func(what string) (Fragment, error) { return Fragment{}, fmt.Errorf("%w: %s", ErrFragment, what) }
	const fixed = 8 + 16 + 8 + 24 + 20 + 20 // up to the sample table
	if len(b) < fixed+8 {
		return bad("too short")
	}
	u32 := func(at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }
	moof := int64(u32(0))
	for _, x := range []struct {
		at   int
		name string
	}{{4, "moof"}, {12, "mfhd"}, {28, "traf"}, {36, "tfhd"}, {60, "tfdt"}, {80, "trun"}} {
		if string(b[x.at:x.at+4]) != x.name {
			return bad("no " + x.name + " where it belongs")
		}
	}
	f.Sequence, f.DefaultDuration, f.Time = u32(20), u32(48), binary.BigEndian.Uint64(b[68:])
	flags, count := u32(84), int64(u32(88))
	perSample := int64(4)
	if flags&trunDuration != 0 {
		perSample += 4
	}
	if flags&trunFlags != 0 {
		perSample += 4
	}
	if flags&^uint32(trunDataOffset|trunSize|trunDuration|trunFlags) != 0 || flags&trunSize == 0 {
		return bad("unknown layout")
	}
	if count == 0 || count > int64(len(b))/perSample || moof != fixed+count*perSample || moof+8 > int64(len(b)) || int64(u32(92)) != moof+8 {
		return bad("sample table does not fit")
	}
	if string(b[moof+4:moof+8]) != "mdat" || int64(u32(int(moof))) != int64(len(b))-moof {
		return bad("no mdat to the end")
	}
	f.Samples = make([]Sample, count)
	at, data := fixed, moof+8
	for i := range f.Samples {
		s := Sample{Duration: f.DefaultDuration, Sync: true}
		if flags&trunDuration != 0 {
			s.Duration = u32(at)
			at += 4
		}
		size := int64(u32(at))
		at += 4
		if flags&trunFlags != 0 {
			s.Sync = u32(at)&0x00010000 == 0
			at += 4
		}
		if size > int64(len(b))-data {
			return bad("a sample reaches beyond the end")
		}
		s.Data = b[data : data+size : data+size]
		data += size
		f.Samples[i] = s
	}
	if data != int64(len(b)) {
		return bad("bytes after the last sample")
	}
	return f, nil
}
