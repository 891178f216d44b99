package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"steno/shared/conversation"
)

// Sender puts a message into a queue, durably when it returns nil. A message sent again
// after an error may be there twice.
type Sender interface {
	Send(ctx context.Context, id string, body []byte, notBefore time.Time) error
}

// Times and sizes of the outbox.
const (
	outboxRetry    = time.Second
	outboxLongest  = time.Minute
	outboxAttempt  = 30 * time.Second
	maxRawInNotice = 64 << 10
)

// Outbox sends notices until they are sent, also after a restart: each lies in a file
// of its own before it is sent, and goes with the file.
type Outbox struct {
	dir  string
	send Sender
	log  *slog.Logger

	mu      sync.Mutex
	pending []outgoing
	last    int64
	wake    chan struct{}
}

type outgoing struct {
	file string // empty if the disk would not have it
	id   string
	body []byte
}

const outboxSuffix = ".notice.json"

// OpenOutbox takes up what an earlier process left in the folder. A file that is no
// notice is set aside under another name and reported, and keeps nothing from starting.
func OpenOutbox(dir string, send Sender, log *slog.Logger) (*Outbox, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	o := &Outbox{dir: dir, send: send, log: log, wake: make(chan struct{}, 1)}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	for _, e := range entries { // sorted by name, which begins with the time
		if !strings.HasSuffix(e.Name(), outboxSuffix) {
			continue
		}
		name := filepath.Join(dir, e.Name())
		body, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("outbox: %w", err)
		}
		n, err := conversation.DecodeNotice(body)
		if err != nil {
			log.Error("notice unreadable, set aside", slog.String("alarm", "outbox"), slog.String("file", e.Name()), slog.String("cause", err.Error()))
			if err := os.Rename(name, name+".bad"); err != nil {
				return nil, fmt.Errorf("outbox: %w", err)
			}
			continue
		}
		o.pending = append(o.pending, outgoing{name, n.MessageID(), body})
	}
	return o, nil
}

// Put takes a notice over. When it returns nil the notice is on disk. Otherwise it is
// sent all the same, as long as this process lives.
func (o *Outbox) Put(n conversation.LegNotice) error {
	if n.Invite != nil && len(n.Invite.Raw) > maxRawInNotice {
		// A queue's message has a limit, and the raw invite is in the leg's history.
		slim := *n.Invite
		slim.Raw = nil
		n.Invite = &slim
	}
	body, err := conversation.EncodeNotice(n)
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	if !json.Valid(body) {
		return errors.New("outbox: notice is not JSON")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = max(o.last+1, time.Now().UnixNano())
	name := filepath.Join(o.dir, fmt.Sprintf("%020d-%s%s", o.last, n.MessageID(), outboxSuffix))
	err = writeDurably(name, body)
	if err != nil {
		name = ""
	}
	o.pending = append(o.pending, outgoing{name, n.MessageID(), body})
	select {
	case o.wake <- struct{}{}:
	default:
	}
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return nil
}

// Waiting is how many notices are not sent.
func (o *Outbox) Waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.pending)
}

// Run sends, the oldest first, until ctx ends. What is left then stays on disk.
func (o *Outbox) Run(ctx context.Context) error {
	wait := outboxRetry
	for {
		next, ok := o.first()
		if !ok {
			select {
			case <-o.wake:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		attempt, cancel := context.WithTimeout(ctx, outboxAttempt)
		err := o.send.Send(attempt, next.id, next.body, time.Time{})
		cancel()
		if err == nil {
			wait = outboxRetry
			if err := o.sent(next); err != nil {
				o.log.ErrorContext(ctx, "sent notice stays on disk", slog.String("alarm", "outbox"), slog.String("cause", err.Error()))
			}
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		o.log.ErrorContext(ctx, "notice not sent", slog.String("alarm", "outbox"), slog.Int("waiting", o.Waiting()), slog.String("cause", err.Error()))
		select {
		case <-time.After(wait):
			wait = min(2*wait, outboxLongest)
		case <-ctx.Done():
			return nil
		}
	}
}

func (o *Outbox) first() (outgoing, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.pending) == 0 {
		return outgoing{}, false
	}
	return o.pending[0], true
}

func (o *Outbox) sent(n outgoing) error {
	o.mu.Lock()
	o.pending = slices.Delete(o.pending, 0, 1)
	o.mu.Unlock()
	if n.file == "" {
		return nil
	}
	if err := os.Remove(n.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeDurably puts a file there whole or not at all.
func writeDurably(name string, body []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if runtime.GOOS == "windows" {
		return nil // NTFS logs the rename itself; a folder cannot be synced there
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
