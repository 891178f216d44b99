package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Limits of section 1, and of what this program reads into memory at once. Evidence is
// never among it.
const (
	maxFiles   = 100_000
	maxTotal   = 10 << 30
	maxRatio   = 100
	freeSize   = 1 << 20 // below it the ratio does not matter
	maxName    = 200
	maxParts   = 5
	maxMessage = 64 << 10 // signatures, keys, proofs, records
	maxTable   = 64 << 20 // package.json, SHA256SUMS, tables of the proof, a leg's manifest
)

// file is one file of a package.
type file struct {
	name string
	size int64
	open func() (io.ReadCloser, error)
	// sum is the SHA-256 of what was read when the digests were checked.
	sum [sha256.Size]byte
}

// pkg is a package whose container obeys section 1.
type pkg struct {
	files map[string]*file
	names []string // in the order of their bytes
	close func() error
}

// openPackage opens a ZIP file or a directory.
func openPackage(name string) (*pkg, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		root, err := os.OpenRoot(name)
		if err != nil {
			return nil, err
		}
		files, err := directoryFiles(root)
		return packageOf(files, err, root.Close)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	files, err := zipFiles(f, info.Size())
	return packageOf(files, err, f.Close)
}

// packageOf checks what both containers have in common.
func packageOf(files []*file, err error, closing func() error) (*pkg, error) {
	if err == nil {
		var p *pkg
		if p, err = index(files); err == nil {
			p.close = closing
			return p, nil
		}
	}
	return nil, errors.Join(err, closing())
}

// index files them by name, under the rules for names and sizes.
func index(files []*file) (*pkg, error) {
	if len(files) > maxFiles {
		return nil, fmt.Errorf("more than %d files", maxFiles)
	}
	p := &pkg{files: make(map[string]*file, len(files)), close: func() error { return nil }}
	folded := make(map[string]string, len(files))
	var total int64
	for _, f := range files {
		if err := checkName(f.name); err != nil {
			return nil, err
		}
		fold := strings.ToLower(f.name)
		if other, twice := folded[fold]; twice {
			return nil, fmt.Errorf("%s: the name is there twice (%s)", f.name, other)
		}
		folded[fold] = f.name
		if f.size < 0 || f.size > maxTotal-total {
			return nil, fmt.Errorf("%s: the package is larger than %d bytes", f.name, int64(maxTotal))
		}
		total += f.size
		p.files[f.name] = f
		p.names = append(p.names, f.name)
	}
	slices.Sort(p.names)
	return p, nil
}

// checkName applies the rules for names of section 1.
func checkName(name string) error {
	if len(name) < 1 || len(name) > maxName {
		return fmt.Errorf("a name of %d bytes, want 1 to %d", len(name), maxName)
	}
	parts := strings.Split(name, "/")
	if len(parts) > maxParts {
		return fmt.Errorf("name %q has more than %d parts", name, maxParts)
	}
	for _, part := range parts {
		for i, c := range []byte(part) {
			letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
			if !letter && (i == 0 || c != '.' && c != '_' && c != '-') {
				return fmt.Errorf("name %q is not allowed", name)
			}
		}
		if part == "" || strings.HasSuffix(part, ".") {
			return fmt.Errorf("name %q is not allowed", name)
		}
	}
	return nil
}

// digests reads every file once, in constant memory, and notes its SHA-256.
func (p *pkg) digests() error {
	buf := make([]byte, 256<<10)
	for _, name := range p.names {
		f := p.files[name]
		h := sha256.New()
		r, err := f.open()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{io.LimitReader(r, f.size+1)}, buf)
		if err = errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if n != f.size {
			return fmt.Errorf("%s: has not the %d bytes that the container says", name, f.size)
		}
		h.Sum(f.sum[:0])
	}
	return nil
}

// read returns a file of at most limit bytes. After digests it returns the bytes that were
// digested, or an error.
func (p *pkg) read(name string, limit int64) ([]byte, error) {
	f, ok := p.files[name]
	if !ok {
		return nil, fmt.Errorf("%s: is missing", name)
	}
	if f.size > limit {
		return nil, fmt.Errorf("%s: %d bytes, more than the %d that make sense", name, f.size, limit)
	}
	r, err := f.open()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	b, err := io.ReadAll(io.LimitReader(r, f.size+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(b)) != f.size || sha256.Sum256(b) != f.sum {
		return nil, fmt.Errorf("%s: changed while it was read", name)
	}
	return b, nil
}

// under lists the names that begin with prefix, in order.
func (p *pkg) under(prefix string) []string {
	first, _ := slices.BinarySearch(p.names, prefix)
	end := first
	for end < len(p.names) && strings.HasPrefix(p.names[end], prefix) {
		end++
	}
	return p.names[first:end]
}
