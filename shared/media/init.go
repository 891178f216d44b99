package media

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Timescales of tracks.
const (
	AudioTimescale = 48000
	VideoTimescale = 90000
)

// OpusCodec is the RFC 6381 codecs value of Opus in MP4.
const OpusCodec = "opus"

// OpusInit returns the initialization segment of an Opus track of one channel or two.
// Pre-skip is 0: nothing is trimmed from any track, so that all stay aligned.
// https://opus-codec.org/docs/opus_in_isobmff.html
func OpusInit(channels int) []byte {
	entry := make([]byte, 0, 64)
	entry = append(entry, 0, 0, 0, 0, 0, 0, 0, 1) // reserved, data reference 1
	entry = append(entry, make([]byte, 8)...)
	entry = binary.BigEndian.AppendUint16(entry, uint16(channels))
	entry = binary.BigEndian.AppendUint16(entry, 16)
	entry = append(entry, 0, 0, 0, 0)
	entry = binary.BigEndian.AppendUint32(entry, AudioTimescale<<16)
	dops := []byte{0, byte(channels), 0, 0}
	// The rate of the input is only information, but Chromium refuses tracks where it is not
	// that of the track.
	dops = binary.BigEndian.AppendUint32(dops, AudioTimescale)
	dops = append(dops, 0, 0, 0)
	entry = append(entry, box("dOps", dops)...)
	return initSegment(AudioTimescale, "soun", box("smhd", make([]byte, 8)), box("Opus", entry), 0, 0)
}

// AVCInit returns the initialization segment of an H.264 track and its RFC 6381 codecs
// value. sps and pps are NAL units without start codes.
func AVCInit(sps, pps []byte) (segment []byte, codec string, width, height int, err error) {
	if len(pps) == 0 || len(sps) > 0xffff || len(pps) > 0xffff {
		return nil, "", 0, 0, errors.New("H.264 parameter sets: missing or too large")
	}
	width, height, err = SPSSize(sps)
	if err != nil {
		return nil, "", 0, 0, err
	}
	entry := make([]byte, 0, 256)
	entry = append(entry, 0, 0, 0, 0, 0, 0, 0, 1)
	entry = append(entry, make([]byte, 16)...)
	entry = binary.BigEndian.AppendUint16(entry, uint16(width))
	entry = binary.BigEndian.AppendUint16(entry, uint16(height))
	entry = append(entry, 0, 0x48, 0, 0, 0, 0x48, 0, 0, 0, 0, 0, 0, 0, 1)
	entry = append(entry, make([]byte, 32)...)
	entry = append(entry, 0, 0x18, 0xff, 0xff)
	// ISO/IEC 14496-15 section 5.3.3: lengths of four bytes, one set of each.
	c := []byte{1, sps[1], sps[2], sps[3], 0xff, 0xe1}
	c = append(binary.BigEndian.AppendUint16(c, uint16(len(sps))), sps...)
	c = append(c, 1)
	c = append(binary.BigEndian.AppendUint16(c, uint16(len(pps))), pps...)
	if sps[1] >= 100 && sps[1] != 144 { // High profiles name chroma and bit depth: 4:2:0 and 8 bits, all that Teams sends
		c = append(c, 0xfd, 0xf8, 0xf8, 0)
	}
	entry = append(entry, box("avcC", c)...)
	codec = fmt.Sprintf("avc1.%02x%02x%02x", sps[1], sps[2], sps[3])
	return initSegment(VideoTimescale, "vide", box("vmhd", []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}), box("avc1", entry), width, height), codec, width, height, nil
}

func box(name string, parts ...[]byte) []byte {
	n := 8
	for _, p := range parts {
		n += len(p)
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, n), uint32(n))
	b = append(b, name...)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// initSegment is ftyp and moov of a file with one track, ISO/IEC 14496-12 section 8.
func initSegment(timescale uint32, handler string, mediaHeader, entry []byte, width, height int) []byte {
	u32 := func(v ...uint32) []byte {
		var b []byte
		for _, x := range v {
			b = binary.BigEndian.AppendUint32(b, x)
		}
		return b
	}
	matrix := u32(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
	volume := uint32(0)
	if handler == "soun" {
		volume = 0x01000000
	}
	ftyp := box("ftyp", []byte("iso6"), u32(0), []byte("iso6cmfcmp41"))
	mvhd := box("mvhd", u32(0, 0, 0, timescale, 0, 0x10000, 0x01000000, 0, 0), matrix, make([]byte, 24), u32(2))
	tkhd := box("tkhd", u32(3, 0, 0, 1, 0, 0, 0, 0, 0, volume), matrix, u32(uint32(width)<<16, uint32(height)<<16))
	mdhd := box("mdhd", u32(0, 0, 0, timescale, 0, 0x55c40000)) // language und
	hdlr := box("hdlr", u32(0, 0), []byte(handler), make([]byte, 12), []byte("Steno\x00"))
	dinf := box("dinf", box("dref", u32(0, 1), box("url ", u32(1))))
	stbl := box("stbl", box("stsd", u32(0, 1), entry), box("stts", u32(0, 0)), box("stsc", u32(0, 0)), box("stsz", u32(0, 0, 0)), box("stco", u32(0, 0)))
	mdia := box("mdia", mdhd, hdlr, box("minf", mediaHeader, dinf, stbl))
	mvex := box("mvex", box("trex", u32(0, 1, 1, 0, 0, 0)))
	return append(ftyp, box("moov", mvhd, box("trak", tkhd, mdia), mvex)...)
}

// SPSSize reads the size of the picture from an H.264 sequence parameter set, ITU-T
// H.264 section 7.3.2.1.1.
func SPSSize(sps []byte) (width, height int, err error) {
	if len(sps) < 4 || sps[0]&0x1f != 7 {
		return 0, 0, errors.New("H.264 sequence parameter set: not one")
	}
	r := bitReader{b: unescape(sps[4:])}
	profile := sps[1]
	r.ue() // seq_parameter_set_id
	chroma := uint(1)
	switch profile {
	case 100, 110, 122, 244, 44, 83, 86, 118, 128:
		chroma = r.ue()
		if chroma == 3 {
			r.bits(1)
		}
		r.ue()
		r.ue()
		r.bits(1)
		if r.bits(1) == 1 {
			return 0, 0, errors.New("H.264 sequence parameter set: scaling lists are not supported")
		}
	}
	r.ue() // log2_max_frame_num_minus4
	switch r.ue() {
	case 0:
		r.ue()
	case 1:
		r.bits(1)
		r.ue()
		r.ue()
		for n := min(r.ue(), 255); n > 0; n-- {
			r.ue()
		}
	}
	r.ue() // max_num_ref_frames
	r.bits(1)
	w, h := r.ue()+1, r.ue()+1
	frames := r.bits(1)
	if frames == 0 {
		r.bits(1)
	}
	r.bits(1)
	var left, right, top, bottom uint
	if r.bits(1) == 1 {
		left, right, top, bottom = r.ue(), r.ue(), r.ue(), r.ue()
	}
	if r.short || w > 1024 || h > 1024 || left+right+top+bottom > 4096 {
		return 0, 0, errors.New("H.264 sequence parameter set: truncated or out of range")
	}
	cropX, cropY := uint(1), 2-frames
	if chroma == 1 || chroma == 2 {
		cropX = 2
	}
	if chroma == 1 {
		cropY *= 2
	}
	width = int(w*16) - int(cropX*(left+right))
	height = int((2-frames)*h*16) - int(cropY*(top+bottom))
	if width <= 0 || height <= 0 {
		return 0, 0, errors.New("H.264 sequence parameter set: no picture is left after cropping")
	}
	return width, height, nil
}

// unescape removes emulation prevention bytes.
func unescape(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i, c := range b {
		if c == 3 && i >= 2 && b[i-1] == 0 && b[i-2] == 0 {
			continue
		}
		out = append(out, c)
	}
	return out
}

type bitReader struct {
	b     []byte
	at    int
	short bool // more was asked for than there is
}

func (r *bitReader) bits(n int) uint {
	var v uint
	for range n {
		if r.at/8 >= len(r.b) {
			r.short = true
			return 0
		}
		v = v<<1 | uint(r.b[r.at/8]>>(7-r.at%8)&1)
		r.at++
	}
	return v
}

// ue reads an Exp-Golomb code.
func (r *bitReader) ue() uint {
	zeros := 0
	for r.bits(1) == 0 {
		if zeros++; zeros > 31 || r.short {
			r.short = true
			return 0
		}
	}
	return 1<<zeros - 1 + r.bits(zeros)
}
