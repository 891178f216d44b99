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
	ready chan struct{} // closed after the three addresses are known
	done  chan struct{} // closed after the process ended and its output was read
	said  []string      // output up to ready; read after ready or done
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
	p := &process{ready: make(chan struct{}), done: make(chan struct{})}
	started := make(chan error)
	go p.live(cmd, cfg.Log, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start azurite: %w", err)
	}
	select {
	case <-p.ready:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("start azurite: it ended, saying: %s", strings.Join(p.said, "; "))
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("start azurite: %w", ctx.Err()), p.stop())
	}
}

// live starts the command, reads its output and waits for its end. It stays on
// one thread, to which the death signal of Linux is bound.
func (p *process) live(cmd *exec.Cmd, log io.Writer, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	out, err := cmd.StdoutPipe()
	if err == nil {
		cmd.Stderr = cmd.Stdout
		err = cmd.Start()
	}
	if err != nil {
		started <- err
		return
	}
	p.child = cmd.Process
	started <- nil
	p.read(out, log)
	p.err = cmd.Wait()
}

// read passes the output on to log and takes the addresses from it.
func (p *process) read(out io.Reader, log io.Writer) {
	in := bufio.NewReader(out)
	missing := 3
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			io.WriteString(log, line)
		}
		if err != nil {
			return
		}
		if missing == 0 {
			continue
		}
		line = strings.TrimSpace(line)
		p.said = append(p.said, line)
		if match := listening.FindStringSubmatch(line); match != nil {
			p.note(match[1], match[2])
			if missing--; missing == 0 {
				close(p.ready)
			}
		}
	}
}

func (p *process) note(service, address string) {
	switch service {
	case "Blob":
		p.blob = address
	case "Queue":
		p.queue = address
	case "Table":
		p.table = address
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
