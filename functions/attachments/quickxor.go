package attachments

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
)

// quickXor is Microsoft's checksum of files in OneDrive and SharePoint: 160 bits over which
// the bytes go round, each 11 bits further than the one before, with the length at the end. It
// finds what broke on the way and resists nobody.
// https://learn.microsoft.com/onedrive/developer/code-snippets/quickxorhash
type quickXor struct {
	cells [quickXorSize]byte
	n     uint64
}

const (
	quickXorSize  = 20
	quickXorShift = 11
)

func (q *quickXor) Write(p []byte) (int, error) {
	at := q.n * quickXorShift % (quickXorSize * 8)
	for _, c := range p {
		i, off := at/8, at%8
		q.cells[i] ^= c << off
		if i++; i == quickXorSize {
			i = 0
		}
		q.cells[i] ^= c >> (8 - off)
		if at += quickXorShift; at >= quickXorSize*8 {
			at -= quickXorSize * 8
		}
	}
	q.n += uint64(len(p))
	return len(p), nil
}

// sum is the checksum as Graph writes it.
func (q *quickXor) sum() string {
	out := q.cells
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], q.n)
	for i, b := range length {
		out[quickXorSize-len(length)+i] ^= b
	}
	return base64.StdEncoding.EncodeToString(out[:])
}

// MarshalBinary implements encoding.BinaryMarshaler.
func (q *quickXor) MarshalBinary() ([]byte, error) {
	return binary.LittleEndian.AppendUint64(append([]byte{}, q.cells[:]...), q.n), nil
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler.
func (q *quickXor) UnmarshalBinary(b []byte) error {
	if len(b) != quickXorSize+8 {
		return errors.New("state of a checksum of another length")
	}
	q.n = binary.LittleEndian.Uint64(b[copy(q.cells[:], b):])
	return nil
}
