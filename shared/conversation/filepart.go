package conversation

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"steno/shared/teams"
)

// FileType is the content type of an evidence object that holds a part of a file.
const FileType = "application/vnd.steno.file.v1"

// fileMagic is the first line of a file part; see FORMAT.md of package evidence.
const fileMagic = "steno-file/1\n"

// Limits of files.
const (
	// FilePart is how many bytes of a file one evidence object holds: with its sealed copy
	// it takes less than 8 MiB of memory.
	FilePart = 4<<20 - 128<<10
	// MaxFile is the largest file that is fetched.
	MaxFile = 15 << 30
	// maxFileHeader bounds a header, which in the last part lists all parts.
	maxFileHeader = 2 << 20
)

// FileHeader says what a part of a file is and where its bytes came from. With it the
// catalog and the register can be rebuilt from evidence alone.
type FileHeader struct {
	Tenant       teams.TenantID  `json:"tenant"`
	Conversation ID              `json:"conversation"`
	Thread       teams.ThreadID  `json:"thread"`
	Custodian    teams.PersonID  `json:"custodian"` // whose export returned the message
	Message      teams.MessageID `json:"message"`
	Sent         time.Time       `json:"sent"` // when the message was sent
	Attachment   AttachmentID    `json:"attachment"`
	Kind         AttachmentKind  `json:"kind"`
	Name         string          `json:"name,omitempty"`
	Source       string          `json:"source"` // the address in the message
	Part         int             `json:"part"`   // from 0
	Offset       int64           `json:"offset"` // of the part's first byte in the file
	FetchedAt    time.Time       `json:"fetchedAt"`
	RequestID    string          `json:"requestId,omitempty"` // Graph's, of the content
	Rule         VersionRule     `json:"rule"`
	// Item is set of files of SharePoint and OneDrive.
	Item *FileItem `json:"item,omitempty"`
	// Whole is in the last part.
	Whole *WholeFile `json:"whole,omitempty"`
}

// FileItem is what Graph said of a file: a driveItem, and which version of it this is.
// https://learn.microsoft.com/graph/api/resources/driveitem
type FileItem struct {
	Drive    string    `json:"drive"`
	Item     string    `json:"item"`
	ETag     string    `json:"eTag,omitempty"`
	CTag     string    `json:"cTag,omitempty"`
	Version  string    `json:"version,omitempty"`
	Modified time.Time `json:"modified,omitzero"` // of that version
	Size     int64     `json:"size"`              // of that version, as Graph has it
	// QuickXorHash is Microsoft's checksum, in base64, which Graph has of the current version
	// alone. Checked says that the bytes fetched have it.
	QuickXorHash string `json:"quickXorHash,omitempty"`
	Checked      bool   `json:"checked,omitempty"`
}

// WholeFile describes a file all of whose parts are stored.
type WholeFile struct {
	Size   int64       `json:"size"`
	SHA256 string      `json:"sha256"` // of all its bytes, in hex
	Parts  []FilePiece `json:"parts"`  // but the last, which says this
}

// FilePiece is a part of a file as its last part lists it.
type FilePiece struct {
	Object string `json:"object"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // of its bytes of the file, in hex
}

// PartOf is what the catalog says of an object that holds a part of a file.
type PartOf struct {
	Attachment AttachmentID `json:"attachment"`
	Part       int          `json:"part"`
	Size       int64        `json:"size"`   // of the part's bytes of the file
	SHA256     string       `json:"sha256"` // of these, in hex
	// Whole is the SHA-256 of the file in hex; of the last part alone, which is not
	// the same part of two files that end alike.
	Whole string `json:"whole,omitempty"`
}

// FrameFile writes the plain bytes of a part into buf, whose first room bytes are free and
// whose rest is the part's bytes of the file: so that a part is in memory once. It returns the
// end of buf, or a copy where the header is longer than room.
func FrameFile(h FileHeader, buf []byte, room int) ([]byte, error) {
	head, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode file header: %w", err)
	}
	n := len(fileMagic) + len(head) + 1
	if n > maxFileHeader {
		return nil, fmt.Errorf("encode file header: %d bytes, more than %d", n, maxFileHeader)
	}
	if n > room {
		out := make([]byte, n, n+len(buf)-room)
		out = append(out, buf[room:]...)
		buf, room = out, n
	}
	out := buf[room-n:]
	copy(out, fileMagic)
	copy(out[len(fileMagic):], head)
	out[n-1] = '\n'
	return out, nil
}

// IsFilePart reports whether plain bytes, or the first of them, are those of a file part.
func IsFilePart(plain []byte) bool { return bytes.HasPrefix(plain, []byte(fileMagic)) }

// DecodeFile reads what FrameFile wrote. The bytes of the file share b's memory.
func DecodeFile(b []byte) (FileHeader, []byte, error) {
	var h FileHeader
	rest, ok := bytes.CutPrefix(b, []byte(fileMagic))
	if !ok {
		return h, nil, errors.New("decode file part: not one of version 1")
	}
	head, body, ok := bytes.Cut(rest, []byte("\n"))
	if !ok || len(head) > maxFileHeader {
		return h, nil, errors.New("decode file part: header line has no end")
	}
	if err := json.Unmarshal(head, &h); err != nil {
		return h, nil, fmt.Errorf("decode file header: %w", err)
	}
	return h, body, h.check(int64(len(body)))
}

// check judges what a header says against itself and the part it stands before.
func (h FileHeader) check(body int64) error {
	if h.Part < 0 || h.Offset < 0 {
		return errors.New("decode file header: negative number")
	}
	if h.Whole == nil {
		return nil
	}
	var before int64
	for _, p := range h.Whole.Parts {
		if p.Size < 1 || p.Size > MaxFile || before > MaxFile {
			return errors.New("decode file header: a part of impossible size")
		}
		before += p.Size
	}
	if len(h.Whole.Parts) != h.Part || before != h.Offset || h.Offset+body != h.Whole.Size {
		return errors.New("decode file header: the parts do not make up the file")
	}
	return nil
}

// ReadFileHeader reads the header of a part of size plain bytes without the rest, and
// returns where the bytes of the file begin.
func ReadFileHeader(r io.ReaderAt, size int64) (FileHeader, int64, error) {
	for n := int64(4 << 10); ; n *= 8 {
		n = min(n, size, maxFileHeader+int64(len(fileMagic))+1)
		b := make([]byte, n)
		if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
			return FileHeader{}, 0, err
		}
		if !IsFilePart(b) {
			return FileHeader{}, 0, errors.New("read file header: not a file part of version 1")
		}
		end := bytes.IndexByte(b[len(fileMagic):], '\n')
		switch {
		case end < 0 && n < min(size, maxFileHeader):
			continue
		case end < 0:
			return FileHeader{}, 0, errors.New("read file header: it has no end")
		}
		var h FileHeader
		if err := json.Unmarshal(b[len(fileMagic):len(fileMagic)+end], &h); err != nil {
			return h, 0, fmt.Errorf("decode file header: %w", err)
		}
		body := int64(len(fileMagic) + end + 1)
		return h, body, h.check(size - body)
	}
}

// PartOf is what the catalog should say of a part.
func (h FileHeader) PartOf(body []byte) PartOf {
	p := PartOf{Attachment: h.Attachment, Part: h.Part, Size: int64(len(body)), SHA256: hexSum(body)}
	if h.Whole != nil {
		p.Whole = h.Whole.SHA256
	}
	return p
}

func hexSum(b []byte) string {
	d := sha256.Sum256(b)
	return hex.EncodeToString(d[:])
}
