package media

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"steno/shared/conversation"
)

// bundleMagic starts every bundle; the digit is the version.
var bundleMagic = [8]byte{'S', 'T', 'E', 'N', 'O', 'M', 'B', '1'}

const bundlePreamble = len(bundleMagic) + 4

// MaxBundle is the largest bundle, in bytes.
const MaxBundle = 64 << 20

// ErrBundle is wrapped when bytes are not a bundle.
var ErrBundle = errors.New("not a media bundle")

// EncodeBundle writes a bundle: the header, then the body that its spans speak of. The
// body is appended as it is.
func EncodeBundle(h conversation.BundleHeader, body []byte) ([]byte, error) {
	h.Format = conversation.BundleFormat
	if err := h.Check(int64(len(body))); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("bundle header: %w", err)
	}
	if len(plain) > conversation.MaxBundleHeader {
		return nil, fmt.Errorf("bundle %d of %s: header of %d bytes is too large", h.Seq, h.Leg, len(plain))
	}
	head, err := deflate(plain)
	if err != nil {
		return nil, fmt.Errorf("bundle header: %w", err)
	}
	if len(head) > conversation.MaxBundleHeader || len(head)+len(body)+bundlePreamble > MaxBundle {
		return nil, fmt.Errorf("bundle %d of %s: header of %d and body of %d bytes are too large", h.Seq, h.Leg, len(head), len(body))
	}
	b := make([]byte, 0, bundlePreamble+len(head)+len(body))
	b = append(b, bundleMagic[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(head)))
	b = append(b, head...)
	return append(b, body...), nil
}

// DecodeBundle reads what EncodeBundle wrote. The body shares b's memory.
func DecodeBundle(b []byte) (conversation.BundleHeader, []byte, error) {
	if len(b) < bundlePreamble || [8]byte(b[:8]) != bundleMagic {
		return conversation.BundleHeader{}, nil, ErrBundle
	}
	n := int64(binary.BigEndian.Uint32(b[8:]))
	if n > conversation.MaxBundleHeader || n > int64(len(b)-bundlePreamble) {
		return conversation.BundleHeader{}, nil, fmt.Errorf("%w: header of %d bytes in %d", ErrBundle, n, len(b))
	}
	body := b[bundlePreamble+int(n):]
	h, err := decodeHeader(b[bundlePreamble:bundlePreamble+int(n)], int64(len(body)))
	return h, body, err
}

// compressors are kept, since making one costs more than using it.
var compressors = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // a constant level
	}
	return w
}}

// deflate compresses a header: its members repeat from track to track, and a header in
// clear would take a third as much room as all fragments' boxes.
func deflate(plain []byte) ([]byte, error) {
	w := compressors.Get().(*flate.Writer)
	defer compressors.Put(w)
	var out bytes.Buffer
	w.Reset(&out)
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func decodeHeader(head []byte, body int64) (conversation.BundleHeader, error) {
	var h conversation.BundleHeader
	packed := bytes.NewReader(head)
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(packed), conversation.MaxBundleHeader+1))
	if err != nil || packed.Len() > 0 || len(plain) > conversation.MaxBundleHeader {
		return conversation.BundleHeader{}, fmt.Errorf("%w: header does not decompress", ErrBundle)
	}
	if err := json.Unmarshal(plain, &h); err != nil {
		return conversation.BundleHeader{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if err := h.Check(body); err != nil {
		return conversation.BundleHeader{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	return h, nil
}

// ReaderAt is a stored bundle of known size.
type ReaderAt interface {
	io.ReaderAt
	Size() int64
}

// ReadHeader reads the header of a stored bundle and returns where its body starts.
func ReadHeader(r ReaderAt) (h conversation.BundleHeader, body int64, err error) {
	size := r.Size()
	if size < int64(bundlePreamble) || size > MaxBundle {
		return h, 0, fmt.Errorf("%w: %d bytes", ErrBundle, size)
	}
	// One read gets preamble and header of nearly every bundle.
	b := make([]byte, min(size, 64<<10))
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return h, 0, fmt.Errorf("read bundle: %w", err)
	}
	if [8]byte(b[:8]) != bundleMagic {
		return h, 0, ErrBundle
	}
	n := int64(binary.BigEndian.Uint32(b[8:]))
	body = int64(bundlePreamble) + n
	if n > conversation.MaxBundleHeader || body > size {
		return h, 0, fmt.Errorf("%w: header of %d bytes in %d", ErrBundle, n, size)
	}
	if body > int64(len(b)) {
		b = make([]byte, body)
		if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
			return h, 0, fmt.Errorf("read bundle: %w", err)
		}
	}
	h, err = decodeHeader(b[bundlePreamble:body], size-body)
	return h, body, err
}
