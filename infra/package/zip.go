package main

import (
	"archive/zip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// zipTime stands on every entry, so that the same files give the same zip. It is the first time a zip can hold.
var zipTime = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// writeZip writes the files of dir, with host.json at the root and the executable bit on executable, and returns the zip's SHA-256.
// The same files give the same bytes. On an error a file that was there before stays.
func writeZip(path, dir, executable string) (sum [sha256.Size]byte, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return sum, fmt.Errorf("write zip: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".zip-")
	if err != nil {
		return sum, fmt.Errorf("write zip: %w", err)
	}
	h := sha256.New()
	err = errors.Join(addFiles(io.MultiWriter(tmp, h), dir, executable), tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return sum, fmt.Errorf("write zip: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

func addFiles(w io.Writer, dir, executable string) error {
	z := zip.NewWriter(w)
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is not a regular file", name)
		}
		return addFile(z, root, name, name == executable)
	})
	return errors.Join(err, z.Close())
}

func addFile(z *zip.Writer, root fs.FS, name string, executable bool) error {
	hdr := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: zipTime}
	hdr.SetMode(0o644)
	if executable {
		hdr.SetMode(0o755)
	}
	w, err := z.CreateHeader(hdr)
	if err != nil {
		return err
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return errors.Join(err, f.Close())
}
