package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

const (
	probeInterval   = 25 * time.Millisecond
	exitRestart     = 200 // a deliberate restart, which counts as no error
	errorWindow     = 30 * time.Minute
	defaultErrors   = 3
	startupPatience = 4 // initialization timeouts that an early invocation waits
)

// Reasons why the handler does not take invocations.
var (
	ErrStopped = errors.New("the host has stopped: too many handler errors")
	ErrDead    = errors.New("the handler exited with 0: the real host restarts nothing and every call hangs")
	errClosed  = errors.New("the host is closed")
)

// worker keeps the handler's process running by the host's rules.
type worker struct {
	app       *app
	env       []string
	console   *console
	maxErrors int // <0: no limit
	client    *http.Client

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change of what follows
	ready    *process      // nil unless it answers
	current  *process      // nil between processes
	final    error         // why there will be no other
	errors   []time.Time
	readyIn  time.Duration
	starts   int
	closing  bool
	finished chan struct{}
}

// process is one run of the executable.
type process struct {
	cmd        *exec.Cmd
	addr       string
	deliberate bool // killed by the host, which counts as no error; guarded by worker.mu
	exited     chan struct{}
	state      *os.ProcessState // set before exited is closed
}

func (w *worker) update(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.changed)
	w.changed = make(chan struct{})
}

// await returns the process once it answers.
func (w *worker) await(ctx context.Context) (*process, error) {
	patience := time.NewTimer(startupPatience * time.Duration(w.app.host.CustomHandler.InitializationTimeout))
	defer patience.Stop()
	for {
		w.mu.Lock()
		ready, final, changed := w.ready, w.final, w.changed
		w.mu.Unlock()
		switch {
		case final != nil:
			return nil, final
		case ready != nil:
			return ready, nil
		}
		select {
		case <-changed:
		case <-patience.C:
			return nil, errors.New("the handler did not start in time")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// run starts and restarts the handler until close or until the rules say no more.
func (w *worker) run() {
	defer close(w.finished)
	for {
		p, err := w.start()
		if err == nil {
			err = w.attend(p)
		}
		again := false
		w.update(func() {
			w.ready, w.current = nil, nil
			w.final = w.judge(p, err)
			again = w.final == nil
		})
		if !again {
			return
		}
	}
}

// judge decides what follows the end of a process: nil for a restart. Called with the lock held.
func (w *worker) judge(p *process, err error) error {
	switch {
	case w.closing:
		return errClosed
	case err == nil && p.deliberate:
		w.console.infof("handler killed by the host; restarting")
		return nil
	case err == nil && p.state.ExitCode() == exitRestart:
		w.console.infof("handler asked for a restart")
		return nil
	case err == nil && p.state.ExitCode() == 0:
		w.console.errorf("%v", ErrDead)
		return ErrDead
	case err == nil:
		err = fmt.Errorf("handler ended: %v", p.state)
	}
	now := time.Now()
	if n := len(w.errors); n > 0 && now.Sub(w.errors[n-1]) > errorWindow {
		w.errors = nil
	}
	w.errors = append(w.errors, now)
	if w.maxErrors >= 0 && len(w.errors) >= w.maxErrors {
		w.console.errorf("%v; exceeded the restart count with %d errors", err, len(w.errors))
		return ErrStopped
	}
	// Information: a test that kills the handler must not drown in errors of its own making.
	w.console.infof("%v; restarting", err)
	return nil
}

func (w *worker) start() (*process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	d := w.app.host.CustomHandler.Description
	path := filepath.Join(w.app.root, d.DefaultExecutablePath)
	if filepath.IsAbs(d.DefaultExecutablePath) {
		path = d.DefaultExecutablePath
	} else if _, err := os.Stat(path); err != nil {
		path = d.DefaultExecutablePath // a command on PATH, as in the host
	}
	args := make([]string, 0, len(d.Arguments))
	for _, a := range d.Arguments {
		args = append(args, settingName.ReplaceAllStringFunc(a, func(m string) string { return w.setting(m[1 : len(m)-1]) }))
	}
	id := newGUID()
	p := &process{cmd: exec.Command(path, args...), addr: "127.0.0.1:" + port, exited: make(chan struct{})}
	p.cmd.Dir = filepath.Join(w.app.root, d.WorkingDirectory)
	p.cmd.Env = append(w.env[:len(w.env):len(w.env)],
		"FUNCTIONS_CUSTOMHANDLER_PORT="+port, "FUNCTIONS_HTTPWORKER_PORT="+port,
		"FUNCTIONS_CUSTOMHANDLER_WORKER_ID="+id, "FUNCTIONS_HTTPWORKER_ID="+id,
		"FUNCTIONS_APP_ROOT_PATH="+w.app.root)
	stdout, stderr := &stream{console: w.console}, &stream{console: w.console, stderr: true}
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	p.cmd.WaitDelay = time.Second // for a grandchild that keeps the outputs open
	dieWithParent(p.cmd)
	started := make(chan error)
	go func() {
		// The kernel kills the child when the thread that started it ends, so that thread stays for the child's whole life.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		// The exit code is in the state; an error of the copying says nothing more.
		_ = p.cmd.Wait()
		stdout.flush()
		stderr.flush()
		p.state = p.cmd.ProcessState
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start handler: %w", err)
	}
	return p, nil
}

func (w *worker) setting(name string) string {
	for _, e := range w.env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// attend sees a process through to its end. Its error is the host's complaint; how the process ended is in its state.
func (w *worker) attend(p *process) error {
	start := time.Now()
	w.update(func() {
		w.current = p
		w.starts++
		if w.closing {
			w.kill(p, true)
		}
	})
	deadline := start.Add(time.Duration(w.app.host.CustomHandler.InitializationTimeout))
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for !w.answers(p) {
		select {
		case <-p.exited:
			return nil
		case <-tick.C:
		}
		if time.Now().After(deadline) {
			w.mu.Lock()
			w.kill(p, false)
			w.mu.Unlock()
			<-p.exited
			return fmt.Errorf("handler did not answer GET / within %v", time.Duration(w.app.host.CustomHandler.InitializationTimeout))
		}
	}
	w.update(func() {
		w.readyIn = time.Since(start)
		w.ready = p
	})
	<-p.exited
	return nil
}

// answers reports whether GET / gets any response at all.
func (w *worker) answers(p *process) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+"/", nil)
	if err != nil {
		return false
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil
}

// kill sends SIGKILL, the host's only signal. Called with the lock held.
func (w *worker) kill(p *process, deliberate bool) {
	p.deliberate = p.deliberate || deliberate
	if w.ready == p {
		w.ready = nil
	}
	// It fails only for a process that has ended.
	_ = p.cmd.Process.Kill()
}

// killCurrent kills the running process, if there is one, and waits for its end.
func (w *worker) killCurrent(deliberate bool) bool {
	w.mu.Lock()
	p := w.current
	if p != nil {
		w.kill(p, deliberate)
	}
	w.mu.Unlock()
	if p == nil {
		return false
	}
	<-p.exited
	return true
}

// expel kills p because an invocation overstayed the function timeout; another process that took its place is left alone.
func (w *worker) expel(p *process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kill(p, true)
}

// close kills the process and waits until no other can start.
func (w *worker) close() {
	w.mu.Lock()
	w.closing = true
	if w.current != nil {
		w.kill(w.current, true)
	}
	w.mu.Unlock()
	<-w.finished
}

func freePort() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a port: %w", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
