package azurite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// stopGrace is how long Azurite may take to write its files after SIGTERM.
const stopGrace = 5 * time.Second

// listening is the line Azurite prints for each service once it accepts
// connections.
var listening = regexp.MustCompile(`^Azurite (Blob|Queue|Table) service is successfully listening at (https?://\S+)$`)

// A process is a running Azurite.
type process struct {
	blob, queue, table string // addresses, as printed

	child *os.Process
	done  chan struct{} // closed after the process ended and its output was read
	err   error         // how it ended; read after done
}

// run starts Azurite on free ports and waits until all three services listen.
func run(ctx context.Context, cfg Config, key string) (*process, error) {
	dir, err := folder()
	if err != nil {
		return nil, err
	}
	args := []string{
		filepath.Join(dir, "node_modules", "azurite", "dist", "src", "azurite.js"),
		"--silent", "--disableTelemetry",
		"--blobPort", "0", "--queuePort", "0", "--tablePort", "0",
	}
	if cfg.Dir == "" {
		args = append(args, "--inMemoryPersistence")
	} else {
		args = append(args, "--location", filepath.Join(cfg.Dir, "azurite"))
	}
	if cfg.CertFile != "" {
		args = append(args, "--cert", cfg.CertFile, "--key", cfg.KeyFile)
	}
	if cfg.OAuth {
		args = append(args, "--oauth", "basic")
	}
	cmd := exec.Command("node", args...)
	cmd.Env = append(os.Environ(), "AZURITE_ACCOUNTS="+accountName+":"+key)
	bind(cmd)
	p := &process{done: make(chan struct{})}
	lines := make(chan string)
	started := make(chan error)
	go p.live(cmd, cfg.Log, started, lines)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start azurite: %w", err)
	}
	if err := p.await(ctx, lines); err != nil {
		return nil, errors.Join(fmt.Errorf("start azurite: %w", err), p.stop())
	}
	return p, nil
}

// live starts the command, reads its output and waits for its end, all on one
// thread: the death signal of Linux is bound to it.
func (p *process) live(cmd *exec.Cmd, log io.Writer, started chan<- error, lines chan<- string) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	defer close(lines)
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	err := cmd.Start()
	if err != nil {
		started <- err
		return
	}
	p.child = cmd.Process
	started <- nil
	read := make(chan struct{})
	go func() {
		defer close(read)
		in := bufio.NewScanner(r)
		for in.Scan() {
			fmt.Fprintln(log, in.Text())
			lines <- in.Text()
		}
		io.Copy(io.Discard, r) // a line too long for the scanner must not block the child
	}()
	p.err = cmd.Wait()
	w.Close()
	<-read
}

// await takes the addresses from Azurite's output. Lines after them are
// discarded.
func (p *process) await(ctx context.Context, lines <-chan string) error {
	defer func() {
		go func() {
			for range lines {
			}
		}()
	}()
	var said []string
	for p.blob == "" || p.queue == "" || p.table == "" {
		select {
		case line, ok := <-lines:
			if !ok {
				return fmt.Errorf("it ended, saying: %s", strings.Join(said, "; "))
			}
			said = append(said, line)
			p.note(listening.FindStringSubmatch(line))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (p *process) note(match []string) {
	if match == nil {
		return
	}
	switch match[1] {
	case "Blob":
		p.blob = match[2]
	case "Queue":
		p.queue = match[2]
	case "Table":
		p.table = match[2]
	}
}

// stop ends the process and waits for it. One that had ended by itself before
// is an error.
func (p *process) stop() error {
	select {
	case <-p.done:
		return fmt.Errorf("azurite had ended: %w", errors.Join(p.err, errEnded))
	default:
	}
	if err := terminate(p.child); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop azurite: %w", err)
	}
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-p.done:
		return nil
	case <-grace.C:
	}
	if err := p.child.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill azurite: %w", err)
	}
	<-p.done
	return fmt.Errorf("stop azurite: killed after %v", stopGrace)
}

var errEnded = errors.New("it was not asked to")
