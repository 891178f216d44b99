package spool

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/evidence"
	"steno/shared/teams"
)

// recordKind is what a record of the journal says.
type recordKind byte

const (
	recordStart  recordKind = 1 + iota // first of a file: which older files are needed
	recordKey                          // a wrapped conversation key
	recordItem                         // a sealed bundle or part
	recordPacked                       // a pack is in evidence
	recordClosed                       // a leg is over and was handed on
	recordDrop                         // a file is needed no more
	recordCommit                       // all before this was on disk once
)

// A record is a header of 48 bytes, metadata as JSON, and data. The header is magic, kind,
// three zeros, the lengths of both, and the SHA-256 of kind, metadata, and the data's own
// SHA-256.
var recordMagic = [4]byte{'S', 'P', 'J', '1'}

const (
	recordHeader = 48
	maxMeta      = 64 << 10
	maxData      = 80 << 20 // a bundle of media.MaxBundle, sealed
)

// errRecord says that bytes are not a record.
var errRecord = errors.New("not a record of the journal")

type record struct {
	kind recordKind
	meta []byte
	data []byte
	sum  [sha256.Size]byte // of data
}

func (r record) digest() [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte{byte(r.kind)})
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(r.meta))))
	h.Write(r.meta)
	h.Write(r.sum[:])
	return [sha256.Size]byte(h.Sum(nil))
}

func appendRecord(b []byte, r record) []byte {
	b = append(b, recordMagic[:]...)
	b = append(b, byte(r.kind), 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.meta)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.data)))
	d := r.digest()
	b = append(b, d[:]...)
	b = append(b, r.meta...)
	return append(b, r.data...)
}

// parseRecord reads the record at the start of b and returns its length.
func parseRecord(b []byte) (record, int, error) {
	if len(b) < recordHeader || [4]byte(b[:4]) != recordMagic || b[5]|b[6]|b[7] != 0 {
		return record{}, 0, errRecord
	}
	meta, data := int64(binary.BigEndian.Uint32(b[8:])), int64(binary.BigEndian.Uint32(b[12:]))
	if meta > maxMeta || data > maxData || recordHeader+meta+data > int64(len(b)) {
		return record{}, 0, errRecord
	}
	body := b[recordHeader : recordHeader+meta+data]
	r := record{kind: recordKind(b[4]), meta: body[:meta], data: body[meta:]}
	r.sum = sha256.Sum256(r.data)
	if r.digest() != [sha256.Size]byte(b[16:48]) {
		return record{}, 0, errRecord
	}
	return r, int(recordHeader + meta + data), nil
}

// scanned is what a journal file holds.
type scanned struct {
	dataAt int64 // where its data begins
	record
}

// scan reads all records of a file. Altered says that there is something unreadable
// before a commit: it was on disk once, and is not what was written. Unreadable bytes
// after the last commit are those of a write that never ended.
func scan(b []byte, each func(scanned) error) (altered bool, err error) {
	bad := false
	for at := 0; at < len(b); {
		r, n, err := parseRecord(b[at:])
		if err != nil {
			bad = true
			next := bytes.Index(b[at+1:], recordMagic[:])
			if next < 0 {
				break
			}
			at += 1 + next
			continue
		}
		altered = altered || bad && r.kind == recordCommit
		if err := each(scanned{dataAt: int64(at + n - len(r.data)), record: r}); err != nil {
			return altered, err
		}
		at += n
	}
	return altered, nil
}

// identity is what the metadata of items and packs say of their leg.
type identity struct {
	Tenant   teams.TenantID       `json:"tenant"`
	Leg      conversation.LegID   `json:"leg"`
	Call     teams.CallID         `json:"call"`
	Chain    teams.ChainID        `json:"chain"`
	Recorder string               `json:"recorder"`
	Epoch    time.Time            `json:"epoch"`
	Outcome  conversation.Outcome `json:"outcome,omitempty"`
}

type itemMeta struct {
	identity
	Seq    int       `json:"seq"`
	Part   int       `json:"part,omitempty"`
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Final  bool      `json:"final,omitempty"`
	SHA256 []byte    `json:"sha256"` // of the data
}

type packedMeta struct {
	identity
	Packs   int  `json:"packs"` // how many there are now
	Seq     int  `json:"seq"`   // of the last member, and its part
	Part    int  `json:"part,omitempty"`
	Parts   int  `json:"parts,omitempty"` // how many of the last Seq are parts
	Final   bool `json:"final,omitempty"`
	Bundles int  `json:"bundles"`
}

type keyMeta struct {
	Key evidence.WrappedKey `json:"key"`
}

type startMeta struct {
	File int   `json:"file"`
	Live []int `json:"live,omitempty"`
}

type dropMeta struct {
	File int `json:"file"`
}

type closedMeta struct {
	Leg conversation.LegID `json:"leg"`
}

// disk is where the journal's files are. Names are generated here and nowhere else.
type disk interface {
	create(n int) (file, error)
	open(n int) (file, error)
	remove(n int) error
	list() ([]int, error)
}

type file interface {
	io.Writer
	io.ReaderAt
	Sync() error
	Close() error
}

type rootDisk struct{ root *os.Root }

func fileName(n int) string { return fmt.Sprintf("%08d.journal", n) }

func (d rootDisk) create(n int) (file, error) {
	f, err := d.root.OpenFile(fileName(n), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return f, errors.Join(d.sync())
}

// sync makes the names in the directory durable. Windows does so by itself.
func (d rootDisk) sync() error {
	if runtime.GOOS == "windows" {
		return nil
	}
	dir, err := d.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (d rootDisk) open(n int) (file, error) {
	f, err := d.root.Open(fileName(n))
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d rootDisk) remove(n int) error { return d.root.Remove(fileName(n)) }

func (d rootDisk) list() ([]int, error) {
	dir, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return nil, err
	}
	var out []int
	for _, name := range names {
		var n int
		if _, err := fmt.Sscanf(name, "%08d.journal", &n); err == nil && fileName(n) == name {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

// logFile is one file of the journal.
type logFile struct {
	n    int
	f    file
	size int64
	live int // records in it that are needed
}

// journal is the row of files. Its owner serializes calls.
type journal struct {
	disk  disk
	files []*logFile // oldest first; the last is written to
	next  int
	gone  []int // to be removed once it stands on disk that they are not needed
	torn  bool  // the last file is not to be written to: an earlier process wrote it, or a write failed
}

// rotateAt is the size at which a new file is begun.
const rotateAt = 32 << 20

// turn is one write: the file it goes to, where, and its bytes.
type turn struct {
	file  *logFile
	at    int64
	bytes []byte
	drops []int // files that are needed no more once this is on disk
}

// prepare lays out the next write. Its owner holds the lock.
func (j *journal) prepare(batch []byte) (turn, error) {
	cur, err := j.current()
	if err != nil {
		return turn{}, err
	}
	t := turn{file: cur, at: cur.size, bytes: batch, drops: j.gone}
	for _, n := range j.gone {
		t.bytes = appendRecord(t.bytes, metaRecord(recordDrop, dropMeta{n}))
	}
	t.bytes = appendRecord(t.bytes, metaRecord(recordCommit, struct{}{}))
	return t, nil
}

// write puts a turn on disk. It needs no lock: nobody else writes.
func (t turn) write() error {
	if _, err := t.file.f.Write(t.bytes); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if err := t.file.f.Sync(); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// written notes that a turn is on disk, and removes the files that it says are needed no
// more. Its owner holds the lock.
func (j *journal) written(t turn) error {
	t.file.size += int64(len(t.bytes))
	var errs []error
	for _, n := range t.drops {
		errs = append(errs, j.disk.remove(n))
	}
	j.gone = j.gone[len(t.drops):]
	return errors.Join(errs...)
}

// sweep takes files out that are not needed, oldest first. They are removed after the
// next write.
func (j *journal) sweep() error {
	var errs []error
	for len(j.files) > 1 && j.files[0].live == 0 {
		f := j.files[0]
		j.files = j.files[1:]
		j.gone = append(j.gone, f.n)
		errs = append(errs, f.f.Close())
	}
	return errors.Join(errs...)
}

// current returns the file to write to.
func (j *journal) current() (*logFile, error) {
	if n := len(j.files); n > 0 && !j.torn && j.files[n-1].size < rotateAt {
		return j.files[n-1], nil
	}
	var live []int
	for _, f := range j.files {
		live = append(live, f.n)
	}
	f, err := j.disk.create(j.next)
	j.next++ // a name is used once, even if it could not be written to
	if err != nil {
		return nil, fmt.Errorf("create journal file: %w", err)
	}
	start := appendRecord(nil, metaRecord(recordStart, startMeta{j.next - 1, live}))
	if _, err := f.Write(start); err != nil {
		return nil, errors.Join(fmt.Errorf("write journal: %w", err), f.Close(), j.disk.remove(j.next-1))
	}
	j.files = append(j.files, &logFile{n: j.next - 1, f: f, size: int64(len(start))})
	j.torn = false
	return j.files[len(j.files)-1], nil
}

func (j *journal) size() (n int64) {
	for _, f := range j.files {
		n += f.size
	}
	return n
}

func metaRecord(kind recordKind, meta any) record {
	b, err := json.Marshal(meta)
	if err != nil {
		panic("spool: metadata that is not JSON: " + err.Error()) // plain structs of ours
	}
	return record{kind: kind, meta: b, sum: sha256.Sum256(nil)}
}
