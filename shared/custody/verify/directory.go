package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// directoryFiles lists a package that was unpacked. Links, devices, pipes and directories
// without files are refused; nothing outside of root is opened.
func directoryFiles(root *os.Root) ([]*file, error) {
	var files []*file
	var walk func(dir string, depth int) error
	walk = func(dir string, depth int) error {
		if depth > maxParts {
			return fmt.Errorf("%q: more than %d parts", dir, maxParts)
		}
		before := len(files)
		err := eachEntry(root, dir, func(e fs.DirEntry) error {
			name := path.Join(dir, e.Name())
			if e.IsDir() {
				return walk(name, depth+1)
			}
			info, err := e.Info()
			if err != nil {
				return fmt.Errorf("%q: %w", name, err)
			}
			if !info.Mode().IsRegular() {
				return fmt.Errorf("%q: neither a file nor a directory", name)
			}
			if len(files) == maxFiles {
				return fmt.Errorf("more than %d files", maxFiles)
			}
			files = append(files, &file{name: name, size: info.Size(), open: func() (io.ReadCloser, error) { return root.Open(name) }})
			return nil
		})
		if err == nil && len(files) == before {
			err = fmt.Errorf("%q: a directory without files", dir)
		}
		return err
	}
	return files, walk(".", 1)
}

// eachEntry reads a directory in pieces: it may hold a million names.
func eachEntry(root *os.Root, dir string, each func(fs.DirEntry) error) (err error) {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	for {
		entries, err := d.ReadDir(1000)
		for _, e := range entries {
			if err := each(e); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
