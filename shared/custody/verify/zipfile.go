package main

import (
	"bufio"
	"cmp"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"
)

// The ZIP file is read here and not by archive/zip, because two readers of one file must not
// see two packages: programs differ in whether they believe the central directory or the
// local headers, skip bytes before the first entry, or take the last of two names. So every
// byte of the file must belong to exactly one structure, and the two places where an entry is
// described must agree. https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT

const (
	localSize   = 30
	centralSize = 46
	endSize     = 22
	end64Size   = 56
	locatorSize = 20
	maxExtra    = 128
	full16      = 0xffff
	full32      = 0xffffffff

	flagDescriptor = 1 << 3
	flagUTF8       = 1 << 11
	flagsLevel     = 1<<1 | 1<<2
)

// Extra fields that may stand: sizes above 4 GiB, times, and owners. None of them can change
// a name or a content; others can (0x7075 renames).
const (
	extraZip64 = 0x0001
	extraTimes = 0x5455
	extraOwner = 0x7875
)

var le = binary.LittleEndian

// zipEntry is an entry as the central directory has it.
type zipEntry struct {
	name               string
	flags, method      uint16
	time, date         uint16
	crc                uint32
	packed, size       int64
	offset, data, next int64 // of the local header, of its data, of what follows
}

// zipFiles lists the files of a ZIP file.
func zipFiles(r io.ReaderAt, size int64) ([]*file, error) {
	count, dirOff, dirLen, err := zipEnd(r, size)
	if err != nil {
		return nil, err
	}
	dir, err := readAt(r, dirOff, dirLen)
	if err != nil {
		return nil, err
	}
	entries := make([]*zipEntry, 0, count)
	for range count {
		var e *zipEntry
		if e, dir, err = centralEntry(dir); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	if len(dir) != 0 {
		return nil, errors.New("ZIP: bytes in the central directory that belong to no entry")
	}
	slices.SortFunc(entries, func(a, b *zipEntry) int { return cmp.Compare(a.offset, b.offset) })
	at := int64(0)
	for i, e := range entries {
		if e.offset != at {
			return nil, fmt.Errorf("ZIP: bytes before %q that belong to no entry, or to two", e.name)
		}
		if e.next = dirOff; i+1 < len(entries) {
			e.next = entries[i+1].offset
		}
		if err := localEntry(r, e); err != nil {
			return nil, fmt.Errorf("ZIP: %q: %w", e.name, err)
		}
		at = e.next
	}
	if at != dirOff {
		return nil, errors.New("ZIP: bytes before the central directory that belong to no entry")
	}
	files := make([]*file, len(entries))
	for i, e := range entries {
		files[i] = &file{name: e.name, size: e.size, open: func() (io.ReadCloser, error) { return e.open(r), nil }}
	}
	return files, nil
}

func readAt(r io.ReaderAt, off, n int64) ([]byte, error) {
	b := make([]byte, n)
	if k, err := r.ReadAt(b, off); int64(k) != n {
		return nil, fmt.Errorf("ZIP: read %d bytes at %d: %w", n, off, err)
	}
	return b, nil
}

// zipEnd reads the end of the central directory, of either form.
func zipEnd(r io.ReaderAt, size int64) (count int, off, n int64, err error) {
	bad := errors.New("not a ZIP file that ends with its central directory")
	if size < endSize {
		return 0, 0, 0, bad
	}
	b, err := readAt(r, size-endSize, endSize)
	if err != nil {
		return 0, 0, 0, err
	}
	if string(b[:4]) != "PK\x05\x06" || le.Uint32(b[4:]) != 0 || le.Uint16(b[8:]) != le.Uint16(b[10:]) || le.Uint16(b[20:]) != 0 {
		return 0, 0, 0, bad
	}
	total, length, start := uint64(le.Uint16(b[8:])), uint64(le.Uint32(b[12:])), uint64(le.Uint32(b[16:]))
	end := size - endSize
	if total == full16 || length == full32 || start == full32 {
		if end < end64Size+locatorSize {
			return 0, 0, 0, bad
		}
		z, err := readAt(r, end-end64Size-locatorSize, end64Size+locatorSize)
		if err != nil {
			return 0, 0, 0, err
		}
		end -= end64Size + locatorSize
		l := z[end64Size:]
		ok := string(z[:4]) == "PK\x06\x06" && le.Uint64(z[4:]) == end64Size-12 && le.Uint64(z[16:]) == 0 && le.Uint64(z[24:]) == le.Uint64(z[32:]) &&
			string(l[:4]) == "PK\x06\x07" && le.Uint32(l[4:]) == 0 && le.Uint64(l[8:]) == uint64(end) && le.Uint32(l[16:]) == 1
		wide := func(narrow, limit, v uint64) (uint64, bool) { return v, narrow == limit || narrow == v }
		var a, b, c bool
		total, a = wide(total, full16, le.Uint64(z[24:]))
		length, b = wide(length, full32, le.Uint64(z[40:]))
		start, c = wide(start, full32, le.Uint64(z[48:]))
		if !ok || !a || !b || !c {
			return 0, 0, 0, bad
		}
	}
	if total > maxFiles {
		return 0, 0, 0, fmt.Errorf("ZIP: %d entries, more than %d", total, maxFiles)
	}
	if start > uint64(end) || length != uint64(end)-start || length > total*(centralSize+maxName+maxExtra) {
		return 0, 0, 0, bad
	}
	return int(total), int64(start), int64(length), nil
}

// centralEntry reads an entry of the central directory and returns the rest.
func centralEntry(b []byte) (*zipEntry, []byte, error) {
	if len(b) < centralSize || string(b[:4]) != "PK\x01\x02" {
		return nil, nil, errors.New("ZIP: the central directory is broken")
	}
	nameLen, extraLen := int(le.Uint16(b[28:])), int(le.Uint16(b[30:]))
	if nameLen > maxName || extraLen > maxExtra || le.Uint16(b[32:]) != 0 || len(b) < centralSize+nameLen+extraLen {
		return nil, nil, errors.New("ZIP: an entry with a comment, or whose name or extra fields are too long")
	}
	e := &zipEntry{
		name: string(b[centralSize : centralSize+nameLen]), flags: le.Uint16(b[8:]), method: le.Uint16(b[10:]), time: le.Uint16(b[12:]), date: le.Uint16(b[14:]),
		crc: le.Uint32(b[16:]), packed: int64(le.Uint32(b[20:])), size: int64(le.Uint32(b[24:])), offset: int64(le.Uint32(b[42:])),
	}
	attributes := le.Uint32(b[38:])
	kind := attributes >> 16 & 0o170000 // of a Unix mode
	switch {
	case e.flags&^(flagDescriptor|flagUTF8|flagsLevel) != 0:
		return nil, nil, fmt.Errorf("ZIP: %q: flags %#x: encrypted, or of a kind that is not allowed", e.name, e.flags)
	case e.method != 0 && e.method != 8:
		return nil, nil, fmt.Errorf("ZIP: %q: method %d: neither stored nor deflated", e.name, e.method)
	case le.Uint16(b[34:]) != 0:
		return nil, nil, fmt.Errorf("ZIP: %q: on another disk", e.name)
	case kind != 0 && kind != 0o100000, attributes&0x10 != 0:
		return nil, nil, fmt.Errorf("ZIP: %q: a link, a directory or a device", e.name)
	}
	if err := zip64(b[centralSize+nameLen:centralSize+nameLen+extraLen], &e.size, &e.packed, &e.offset); err != nil {
		return nil, nil, fmt.Errorf("ZIP: %q: %w", e.name, err)
	}
	switch {
	case e.size > freeSize && e.size/maxRatio > e.packed:
		return nil, nil, fmt.Errorf("ZIP: %q: unpacks to more than %d times its size", e.name, maxRatio)
	case e.method == 0 && e.size != e.packed:
		return nil, nil, fmt.Errorf("ZIP: %q: stored, with two sizes", e.name)
	}
	return e, b[centralSize+nameLen+extraLen:], nil
}

// zip64 checks extra fields, and takes from them each value that did not fit.
func zip64(extra []byte, values ...*int64) error {
	var wide []byte
	seen := map[uint16]bool{}
	for len(extra) > 0 {
		if len(extra) < 4 || len(extra) < 4+int(le.Uint16(extra[2:])) {
			return errors.New("extra fields are broken")
		}
		id, body := le.Uint16(extra), extra[4:4+int(le.Uint16(extra[2:]))]
		if seen[id] || id != extraZip64 && id != extraTimes && id != extraOwner {
			return fmt.Errorf("extra field %#04x is not allowed, or there twice", id)
		}
		seen[id] = true
		if id == extraZip64 {
			wide = body
		}
		extra = extra[4+len(body):]
	}
	for _, v := range values {
		if *v != full32 {
			continue
		}
		if len(wide) < 8 || le.Uint64(wide) > 1<<62 {
			return errors.New("a size or place of more than 4 GiB is missing")
		}
		*v, wide = int64(le.Uint64(wide)), wide[8:]
	}
	if len(wide) != 0 {
		return errors.New("a size or place that nothing asks for")
	}
	return nil
}

// localEntry compares the local header, and what follows the data, with the entry.
func localEntry(r io.ReaderAt, e *zipEntry) error {
	if e.next-e.offset < localSize {
		return errors.New("overlaps with what follows")
	}
	b, err := readAt(r, e.offset, min(localSize+maxName+maxExtra, e.next-e.offset))
	if err != nil {
		return err
	}
	nameLen, extraLen := int(le.Uint16(b[26:])), int(le.Uint16(b[28:]))
	if string(b[:4]) != "PK\x03\x04" || len(b) < localSize+nameLen+extraLen || string(b[localSize:localSize+nameLen]) != e.name {
		return errors.New("the local header is broken, or has another name")
	}
	if le.Uint16(b[6:]) != e.flags || le.Uint16(b[8:]) != e.method || le.Uint16(b[10:]) != e.time || le.Uint16(b[12:]) != e.date {
		return errors.New("the local header says other than the central directory: flags, method or time")
	}
	crc, packed, size := le.Uint32(b[14:]), int64(le.Uint32(b[18:])), int64(le.Uint32(b[22:]))
	if err := zip64(b[localSize+nameLen:localSize+nameLen+extraLen], &size, &packed); err != nil {
		return err
	}
	wantCRC, wantPacked, wantSize := e.crc, e.packed, e.size
	if e.flags&flagDescriptor != 0 {
		wantCRC, wantPacked, wantSize = 0, 0, 0 // they follow the data
	}
	if crc != wantCRC || packed != wantPacked || size != wantSize {
		return errors.New("the local header says other than the central directory: checksum or sizes")
	}
	e.data = e.offset + localSize + int64(nameLen+extraLen)
	if e.packed > e.next-e.data {
		return errors.New("overlaps with what follows")
	}
	return e.descriptor(r)
}

// descriptor checks what stands between the data and the next entry: nothing, or a data
// descriptor in one of its four forms.
func (e *zipEntry) descriptor(r io.ReaderAt) error {
	n := e.next - e.data - e.packed
	if e.flags&flagDescriptor == 0 {
		if n != 0 {
			return errors.New("followed by bytes that belong to no entry")
		}
		return nil
	}
	if n != 12 && n != 16 && n != 20 && n != 24 {
		return errors.New("not followed by a data descriptor alone")
	}
	b, err := readAt(r, e.next-n, n)
	if err != nil {
		return err
	}
	if n == 16 || n == 24 {
		if string(b[:4]) != "PK\x07\x08" {
			return errors.New("not followed by a data descriptor alone")
		}
		b = b[4:]
	}
	want := le.AppendUint32(nil, e.crc)
	if n <= 16 {
		want = le.AppendUint32(le.AppendUint32(want, uint32(e.packed)), uint32(e.size))
	} else {
		want = le.AppendUint64(le.AppendUint64(want, uint64(e.packed)), uint64(e.size))
	}
	if string(b) != string(want) {
		return errors.New("the data descriptor says other than the central directory")
	}
	return nil
}

// open reads an entry's content. The reader fails unless the data is used up when the
// content ends, and the content has the entry's size and checksum.
func (e *zipEntry) open(r io.ReaderAt) io.ReadCloser {
	packed := bufio.NewReader(io.NewSectionReader(r, e.data, e.packed))
	c := &content{entry: e, packed: packed, crc: crc32.NewIEEE(), plain: io.NopCloser(packed)}
	if e.method == 8 {
		c.plain = flate.NewReader(packed) // reads no byte beyond the end of the stream
	}
	return c
}

type content struct {
	entry  *zipEntry
	packed *bufio.Reader
	plain  io.ReadCloser
	crc    hash.Hash32
	n      int64
}

func (c *content) Read(b []byte) (int, error) {
	n, err := c.plain.Read(b)
	_, _ = c.crc.Write(b[:n]) // never fails
	c.n += int64(n)
	if c.n > c.entry.size {
		return n, errors.New("unpacks to more than the ZIP file says")
	}
	if err == io.EOF {
		if _, more := c.packed.ReadByte(); more != io.EOF {
			return n, errors.New("its data goes on behind its end")
		}
		if c.n != c.entry.size || c.crc.Sum32() != c.entry.crc {
			return n, errors.New("has another size or checksum than the ZIP file says")
		}
	}
	return n, err
}

func (c *content) Close() error { return c.plain.Close() }
