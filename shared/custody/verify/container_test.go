package main

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// raw is an entry that archive/zip would not write.
type raw struct {
	name, local string // local: name in the local header, name if empty
	body        []byte
	packed      uint32 // what both headers say, len(body) if zero
	size        uint32
	method      uint16
	flags       uint16
	crc         uint32
	attributes  uint32
	extra       []byte
	comment     string
	lie         func(local []byte)
}

// rawZip writes entries as they are, and the end.
func rawZip(entries []raw, between, end func(b *bytes.Buffer)) []byte {
	var b, dir bytes.Buffer
	for _, e := range entries {
		local, packed, size, crc := e.local, e.packed, e.size, e.crc
		if local == "" {
			local = e.name
		}
		if packed == 0 {
			packed = uint32(len(e.body))
		}
		if size == 0 {
			size = packed
		}
		if crc == 0 {
			crc = crc32.ChecksumIEEE(e.body)
		}
		at := b.Len()
		l := le.AppendUint32(nil, 0x04034b50)
		l = le.AppendUint16(le.AppendUint16(le.AppendUint16(l, 20), e.flags), e.method)
		l = le.AppendUint32(le.AppendUint32(le.AppendUint32(le.AppendUint32(l, 0x5a620000), crc), packed), size)
		l = le.AppendUint16(le.AppendUint16(l, uint16(len(local))), uint16(len(e.extra)))
		if e.lie != nil {
			e.lie(l)
		}
		b.Write(slices.Concat(l, []byte(local), e.extra, e.body))
		c := le.AppendUint32(nil, 0x02014b50)
		c = le.AppendUint16(le.AppendUint16(le.AppendUint16(le.AppendUint16(c, 3<<8|20), 20), e.flags), e.method)
		c = le.AppendUint32(le.AppendUint32(le.AppendUint32(le.AppendUint32(c, 0x5a620000), crc), packed), size)
		c = le.AppendUint16(le.AppendUint16(le.AppendUint16(c, uint16(len(e.name))), uint16(len(e.extra))), uint16(len(e.comment)))
		c = le.AppendUint32(le.AppendUint16(le.AppendUint16(c, 0), 0), e.attributes)
		c = le.AppendUint32(c, uint32(at))
		dir.Write(slices.Concat(c, []byte(e.name), e.extra, []byte(e.comment)))
	}
	if between != nil {
		between(&b)
	}
	at := b.Len()
	b.Write(dir.Bytes())
	n := uint16(len(entries))
	z := le.AppendUint32(le.AppendUint32(nil, 0x06054b50), 0)
	z = le.AppendUint32(le.AppendUint32(le.AppendUint16(le.AppendUint16(z, n), n), uint32(dir.Len())), uint32(at))
	b.Write(le.AppendUint16(z, 0))
	if end != nil {
		end(&b)
	}
	return b.Bytes()
}

// entriesOf are the entries of a package, stored.
func entriesOf(files map[string][]byte) []raw {
	var out []raw
	for _, name := range slices.Sorted(maps.Keys(files)) {
		out = append(out, raw{name: name, body: files[name]})
	}
	return out
}

func TestAContainerThatTwoReadersCouldReadDifferentlyIsRefused(t *testing.T) {
	s := shapes(t, 37)[0]
	plain := func(change func(e []raw) []raw) []byte { return rawZip(change(entriesOf(s.files)), nil, nil) }
	if r := verifyZip(plain(func(e []raw) []raw { return e }), s.trust); r.exitCode() != exitVerified {
		t.Fatalf("the intact one: %v", r.failure)
	}
	add := func(r raw) []byte { return plain(func(e []raw) []raw { return append(e, r) }) }
	second := func(change func(r *raw)) []byte {
		return plain(func(e []raw) []raw { change(&e[1]); return e })
	}
	script := s.files["VERIFY.sh"]
	var nested bytes.Buffer
	w := zip.NewWriter(&nested)
	if _, err := w.Create("README.txt"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for what, b := range map[string][]byte{
		"dot-dot name":                  add(raw{name: "../evil.txt", body: script}),
		"dot-dot in the middle":         add(raw{name: "chat/../../evil.txt", body: script}),
		"absolute name":                 add(raw{name: "/etc/passwd", body: script}),
		"backslashes":                   add(raw{name: `..\evil.txt`, body: script}),
		"name with a drive":             add(raw{name: "C:evil.txt", body: script}),
		"name of 201 bytes":             add(raw{name: strings.Repeat("a", 201), body: script}),
		"empty name":                    add(raw{name: "", body: script}),
		"six parts":                     add(raw{name: "a/b/c/d/e/f", body: script}),
		"right-to-left override":        add(raw{name: "chat/a\u202etxt.exe", body: script}),
		"NUL in a name":                 add(raw{name: "chat/a\x00b", body: script}),
		"trailing dot":                  add(raw{name: "chat/a.", body: script}),
		"unlisted file":                 add(raw{name: "chat/more.html", body: script}),
		"file listed nowhere, at top":   add(raw{name: "more.txt", body: script}),
		"nested ZIP, not opened":        add(raw{name: "rsmf/more.zip", body: nested.Bytes()}),
		"the same name twice":           add(raw{name: "VERIFY.sh", body: script}),
		"case twin":                     add(raw{name: "verify.sh", body: script}),
		"directory":                     add(raw{name: "chat/", attributes: 0x10}),
		"symbolic link":                 second(func(r *raw) { r.attributes = 0o120777 << 16 }),
		"device":                        second(func(r *raw) { r.attributes = 0o020666 << 16 }),
		"mode of a directory":           second(func(r *raw) { r.attributes = 0o040755 << 16 }),
		"encrypted":                     second(func(r *raw) { r.flags = 1 }),
		"masked headers":                second(func(r *raw) { r.flags = 1 << 13 }),
		"bzip2":                         second(func(r *raw) { r.method = 12 }),
		"entry with a comment":          second(func(r *raw) { r.comment = "x" }),
		"extra field that renames":      second(func(r *raw) { r.extra = []byte("\x75\x70\x06\x00\x01\x00\x00\x00\x00x") }),
		"extra fields broken":           second(func(r *raw) { r.extra = []byte{1, 0, 9} }),
		"another name locally":          second(func(r *raw) { r.local = strings.ToLower(r.name) }),
		"another method locally":        second(func(r *raw) { r.lie = func(l []byte) { l[8] = 8 } }),
		"another checksum locally":      second(func(r *raw) { r.lie = func(l []byte) { l[14]++ } }),
		"another size locally":          second(func(r *raw) { r.lie = func(l []byte) { l[22]++ } }),
		"no sizes locally":              second(func(r *raw) { r.lie = func(l []byte) { clear(l[14:26]) } }),
		"wrong checksum in both":        second(func(r *raw) { r.crc = 1 }),
		"wrong size in both":            second(func(r *raw) { r.method, r.size = 8, 77 }),
		"overlap":                       second(func(r *raw) { r.packed = uint32(len(r.body)) + 40 }),
		"bytes of no entry":             second(func(r *raw) { r.packed = uint32(len(r.body)) - 1 }),
		"bytes before the directory":    rawZip(entriesOf(s.files), func(b *bytes.Buffer) { b.WriteString("hidden") }, nil),
		"bytes at the end":              rawZip(entriesOf(s.files), nil, func(b *bytes.Buffer) { b.WriteString("x") }),
		"comment at the end":            rawZip(entriesOf(s.files), nil, func(b *bytes.Buffer) { b.Bytes()[b.Len()-2] = 1; b.WriteString("x") }),
		"bytes in front":                append([]byte("#!/bin/sh\n"), rawZip(entriesOf(s.files), nil, nil)...),
		"empty file":                    {},
		"no ZIP":                        []byte(strings.Repeat("not a ZIP file ", 10)),
		"a ZIP file without any entry":  rawZip(nil, nil, nil),
		"the directory counts too few":  rawZip(entriesOf(s.files), nil, func(b *bytes.Buffer) { e := b.Bytes()[b.Len()-14:]; e[0]--; e[2]-- }),
		"the directory counts too many": rawZip(entriesOf(s.files), nil, func(b *bytes.Buffer) { e := b.Bytes()[b.Len()-14:]; e[0]++; e[2]++ }),
	} {
		t.Run(what, func(t *testing.T) {
			if r := verifyZip(b, s.trust); r.exitCode() != exitFailed || r.failure.Error() == "" {
				t.Errorf("exit %d, %v", r.exitCode(), r.failure)
			}
		})
	}
}

func TestTwoEntriesOverTheSameBytesAreRefused(t *testing.T) {
	b := rawZip([]raw{{name: "a", body: []byte("content")}, {name: "b", body: []byte("content")}}, nil, nil)
	at := bytes.LastIndex(b, []byte("PK\x01\x02"))
	le.PutUint32(b[at+42:], 0) // the second entry points at the first one's bytes
	if _, err := zipFiles(bytes.NewReader(b), int64(len(b))); err == nil {
		t.Error("two entries share a local header")
	}
}

func TestABombIsRefusedBeforeItUnpacks(t *testing.T) {
	s := shapes(t, 38)[0]
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		body := io.Reader(bytes.NewReader(s.files[name]))
		if name == "index.html" {
			body = io.LimitReader(zeros{}, 64<<20)
		}
		if _, err := io.Copy(f, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := verifyZip(b.Bytes(), s.trust)
	if r.exitCode() != exitFailed || !strings.Contains(r.failure.Error(), "100 times its size") {
		t.Errorf("exit %d, %v", r.exitCode(), r.failure)
	}
	// The same, with a directory that lies about the size.
	lying := bytes.Clone(b.Bytes())
	for _, at := range headers(lying) {
		switch string(lying[at : at+4]) {
		case "PK\x01\x02":
			if string(lying[at+46:at+46+10]) == "index.html" {
				le.PutUint32(lying[at+24:], 5000)
			}
		case "PK\x07\x08":
			if le.Uint32(lying[at+12:]) == 64<<20 {
				le.PutUint32(lying[at+12:], 5000)
			}
		}
	}
	r = verifyZip(lying, s.trust)
	if r.exitCode() != exitFailed || !strings.Contains(r.failure.Error(), "index.html: unpacks to more") {
		t.Errorf("with a lie: exit %d, %v", r.exitCode(), r.failure)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestAMillionEntriesAreRefusedUnread(t *testing.T) {
	const n = 1_000_000
	var b bytes.Buffer
	end64 := le.AppendUint64([]byte("PK\x06\x06"), end64Size-12)
	end64 = le.AppendUint64(append(end64, 45, 3, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0), n)
	end64 = le.AppendUint64(le.AppendUint64(le.AppendUint64(end64, n), n*60), 0)
	b.Write(make([]byte, n*60))
	at := b.Len()
	b.Write(end64)
	b.Write(le.AppendUint32(le.AppendUint64(le.AppendUint32([]byte("PK\x06\x07"), 0), uint64(at)), 1))
	b.Write([]byte("PK\x05\x06\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00"))
	before := allocated()
	r := verifyZip(b.Bytes(), trust{})
	if r.exitCode() != exitFailed || !strings.Contains(r.failure.Error(), "1000000 entries, more than 100000") {
		t.Errorf("exit %d, %v", r.exitCode(), r.failure)
	}
	if grew := allocated() - before; grew > 1<<20 {
		t.Errorf("it took %d bytes", grew)
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func TestManyFilesInADirectoryAreRefusedWithoutListingThemAll(t *testing.T) {
	var many []*file
	for i := range maxFiles + 1 {
		many = append(many, &file{name: fmt.Sprintf("chat/%d", i)})
	}
	if _, err := index(many); err == nil {
		t.Error("more files than are allowed")
	}
	if _, err := index([]*file{{name: "a", size: maxTotal}, {name: "b", size: 1}}); err == nil {
		t.Error("more bytes than are allowed")
	}
}

func TestADirectoryWithLinksPipesOrEmptyDirectoriesIsRefused(t *testing.T) {
	s := shapes(t, 39)[0]
	for what, add := range map[string]func(dir string) error{
		"link to a file outside": func(dir string) error { return os.Symlink("/etc/hostname", filepath.Join(dir, "chat.txt")) },
		"link instead of a file": func(dir string) error {
			name := filepath.Join(dir, "README.txt")
			if err := os.Rename(name, filepath.Join(filepath.Dir(dir), filepath.Base(dir)+".txt")); err != nil {
				return err
			}
			return os.Symlink(filepath.Join(filepath.Dir(dir), filepath.Base(dir)+".txt"), name)
		},
		"link to a directory": func(dir string) error { return os.Symlink("proof", filepath.Join(dir, "chat")) },
		"empty directory":     func(dir string) error { return os.Mkdir(filepath.Join(dir, "chat"), 0o755) },
		"six levels": func(dir string) error {
			deep := filepath.Join(dir, "a", "b", "c", "d", "e")
			if err := os.MkdirAll(deep, 0o755); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(deep, "f"), nil, 0o600)
		},
		"hidden file": func(dir string) error { return os.WriteFile(filepath.Join(dir, ".hidden"), nil, 0o600) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := unpack(t, s.files)
			if err := add(dir); err != nil {
				t.Fatal(err)
			}
			if r := verifyPath(dir, s.trust); r.exitCode() != exitFailed {
				t.Errorf("exit %d", r.exitCode())
			}
		})
	}
}

// TestMemoryDoesNotGrowWithEvidence: a bundle of 192 MiB is verified, from a ZIP file
// that is read from disk, without being held in memory.
func TestMemoryDoesNotGrowWithEvidence(t *testing.T) {
	name := filepath.Join(t.TempDir(), "large.zip")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w := zip.NewWriter(f)
	const size = 192 << 20
	for _, e := range []struct {
		name string
		n    int64
	}{{"evidence/u/000000-" + strings.Repeat("a", 32) + ".batch", size}} {
		out, err := w.CreateHeader(&zip.FileHeader{Name: e.name, Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, io.LimitReader(zeros{}, e.n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	p, err := openPackage(name)
	if err != nil {
		t.Fatal(err)
	}
	before, start := allocated(), time.Now()
	if err := p.digests(); err != nil {
		t.Fatal(err)
	}
	grew := allocated() - before
	if grew > 4<<20 {
		t.Errorf("%d bytes of evidence took %d bytes of memory", size, grew)
	}
	t.Logf("%d MiB in %s, %d KiB allocated", size>>20, time.Since(start).Round(time.Millisecond), grew>>10)
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
}

// TestZip64SizesAreTakenFromTheirExtraField reads the Zip64 forms of sizes without having the bytes.
func TestZip64SizesAreTakenFromTheirExtraField(t *testing.T) {
	extra := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64([]byte{1, 0, 16, 0}, 5<<30), 6<<30)
	size, packed, off := int64(full32), int64(full32), int64(7)
	if err := zip64(extra, &size, &packed, &off); err != nil || size != 5<<30 || packed != 6<<30 || off != 7 {
		t.Errorf("%d, %d, %d, %v", size, packed, off, err)
	}
	size, packed = 3, full32
	if err := zip64(extra, &size, &packed, &off); err == nil {
		t.Error("a value that nothing asks for")
	}
	size, packed, off = full32, full32, full32
	if err := zip64(extra, &size, &packed, &off); err == nil {
		t.Error("a value that is missing")
	}
}
