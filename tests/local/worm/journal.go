package worm

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// An entry is one line of the journal: what holds of a blob, or of a container
// where Blob is empty, from there on. A blob without Mode and Hold is
// unprotected.
type entry struct {
	Container string    `json:"container"`
	Blob      string    `json:"blob,omitempty"`
	Mode      Mode      `json:"mode,omitempty"`
	Days      int       `json:"days,omitempty"`
	Until     time.Time `json:"until,omitzero"`
	Hold      bool      `json:"hold,omitempty"`
}

// A journal is an append-only file of entries. A nil journal forgets.
type journal struct {
	mu sync.Mutex
	f  *os.File
}

// openJournal replays the file, cuts off a last line that was not written
// whole, and appends to it from then on. Lines are handed to the operating
// system but not synced: they survive the process, not the machine.
func openJournal(path string, replay func(entry)) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	size, err := readEntries(f, replay)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		_, err = f.Seek(size, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &journal{f: f}, nil
}

// readEntries returns the length of the whole lines.
func readEntries(r io.Reader, replay func(entry)) (int64, error) {
	in := bufio.NewReader(r)
	var size int64
	for line := 1; ; line++ {
		b, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return 0, err
		}
		var e entry
		if err := json.Unmarshal(b, &e); err != nil {
			return 0, fmt.Errorf("line %d: %w", line, err)
		}
		size += int64(len(b))
		replay(e)
	}
}

func (j *journal) append(e entry) error {
	if j == nil {
		return nil
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err = j.f.Write(append(b, '\n'))
	return err
}

func (j *journal) close() error {
	if j == nil {
		return nil
	}
	return j.f.Close()
}

// replay applies an entry of the journal.
func (p *Proxy) replay(e entry) {
	if e.Blob == "" {
		p.containers[e.Container] = containerDefault{e.Mode, e.Days}
		return
	}
	p.remember(name{e.Container, e.Blob}, protection{Until: e.Until, Mode: e.Mode, Hold: e.Hold})
}

// remember makes s the blob's protection in memory.
func (p *Proxy) remember(n name, s protection) {
	if s == (protection{}) {
		delete(p.protected, n)
		return
	}
	p.protected[n] = s
}
