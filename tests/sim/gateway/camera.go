package gateway

// Camera makes a small H.264 picture that any decoder plays: constrained baseline, one slice a picture. A key frame is
// coded as plain samples (I_PCM), so that no encoder is needed; the pictures after it repeat it (P_Skip). Sections below
// are those of ITU-T H.264. The zero Camera makes nothing: use NewCamera.
type Camera struct {
	across, down int // macroblocks of 16×16
	shade        byte
	frameNum     uint32
	idr          uint32
	started      bool
}

// NewCamera makes a camera for pictures of width×height, rounded up to whole macroblocks. The shade tells pictures of
// different cameras apart.
func NewCamera(width, height int, shade byte) *Camera {
	return &Camera{across: (width + 15) / 16, down: (height + 15) / 16, shade: shade}
}

// Size is the size of the picture.
func (c *Camera) Size() (width, height int) { return c.across * 16, c.down * 16 }

// Frame returns the next access unit in Annex B form. The first is a key frame whatever key says.
func (c *Camera) Frame(key bool) []byte {
	if key || !c.started {
		c.started, c.frameNum = true, 0
		c.idr = (c.idr + 1) % 16
		out := annexB(nil, 0x67, c.sequenceParameters())
		out = annexB(out, 0x68, pictureParameters())
		return annexB(out, 0x65, c.keySlice())
	}
	c.frameNum = (c.frameNum + 1) % 16
	return annexB(nil, 0x41, c.skipSlice())
}

// sequenceParameters: section 7.3.2.1.1.
func (c *Camera) sequenceParameters() []byte {
	w := &bits{}
	w.u(66, 8)   // profile_idc: baseline
	w.u(0xe0, 8) // constraint_set0..2: constrained baseline
	w.u(31, 8)   // level_idc 3.1
	w.ue(0)      // seq_parameter_set_id
	w.ue(0)      // log2_max_frame_num: 4
	w.ue(2)      // pic_order_cnt_type: output order is decoding order
	w.ue(1)      // max_num_ref_frames
	w.u(0, 1)    // gaps_in_frame_num_value_allowed_flag
	w.ue(uint32(c.across - 1))
	w.ue(uint32(c.down - 1))
	w.u(1, 1) // frame_mbs_only_flag
	w.u(1, 1) // direct_8x8_inference_flag
	w.u(0, 2) // no cropping, no VUI
	return w.trailing()
}

// pictureParameters: section 7.3.2.2.
func pictureParameters() []byte {
	w := &bits{}
	w.ue(0)   // pic_parameter_set_id
	w.ue(0)   // seq_parameter_set_id
	w.u(0, 2) // CAVLC, no bottom field order
	w.ue(0)   // one slice group
	w.ue(0)   // num_ref_idx_l0: 1
	w.ue(0)   // num_ref_idx_l1: 1
	w.u(0, 3) // no weighted prediction
	w.ue(0)   // pic_init_qp: 26 (signed 0)
	w.ue(0)   // pic_init_qs
	w.ue(0)   // chroma_qp_index_offset
	w.u(4, 3) // deblocking_filter_control_present_flag alone
	return w.trailing()
}

// keySlice: sections 7.3.3 and 7.3.5.
func (c *Camera) keySlice() []byte {
	w := &bits{}
	w.ue(0) // first_mb_in_slice
	w.ue(7) // slice_type: I, all slices of the picture
	w.ue(0) // pic_parameter_set_id
	w.u(0, 4)
	w.ue(c.idr)
	w.u(0, 2) // dec_ref_pic_marking: nothing special
	w.ue(0)   // slice_qp_delta
	w.ue(1)   // no deblocking
	for mb := range c.across * c.down {
		w.ue(25) // I_PCM
		w.align()
		luma := 16 + byte((int(c.shade)+7*(mb%c.across)+11*(mb/c.across))%200)
		for range 256 {
			w.out = append(w.out, luma)
		}
		for range 128 {
			w.out = append(w.out, 128)
		}
	}
	return w.trailing()
}

// skipSlice repeats the picture before.
func (c *Camera) skipSlice() []byte {
	w := &bits{}
	w.ue(0) // first_mb_in_slice
	w.ue(5) // slice_type: P
	w.ue(0) // pic_parameter_set_id
	w.u(c.frameNum, 4)
	w.u(0, 3) // default references, sliding window
	w.ue(0)   // slice_qp_delta
	w.ue(1)   // no deblocking
	w.ue(uint32(c.across * c.down))
	return w.trailing()
}

// bits writes the syntax elements of section 7.2.
type bits struct {
	out  []byte
	free int // bits of the last byte that are not used
}

func (w *bits) u(v uint32, n int) {
	for n--; n >= 0; n-- {
		if w.free == 0 {
			w.out, w.free = append(w.out, 0), 8
		}
		w.free--
		w.out[len(w.out)-1] |= byte(v>>n&1) << w.free
	}
}

// ue writes an Exp-Golomb code, section 9.1.
func (w *bits) ue(v uint32) {
	n := 0
	for (v+1)>>(n+1) > 0 {
		n++
	}
	w.u(0, n)
	w.u(v+1, n+1)
}

func (w *bits) align() { w.free = 0 }

func (w *bits) trailing() []byte {
	w.u(1, 1)
	return w.out
}

// annexB appends a NAL unit with start code and emulation prevention, section 7.4.1.1.
func annexB(out []byte, header byte, payload []byte) []byte {
	out = append(out, 0, 0, 0, 1, header)
	zeros := 0
	for _, b := range payload {
		if zeros >= 2 && b <= 3 {
			out, zeros = append(out, 3), 0
		}
		out = append(out, b)
		if b == 0 {
			zeros++
		} else {
			zeros = 0
		}
	}
	return out
}
