// Package record_test measures what recording costs: the recorder with container,
// encryption, digests and journal against Janus' VideoRoom, which writes packets to a file
// as they come. Both get the same streams from the same sender on the same machine, one
// after the other.
//
//	go test ./tests/bench/record -run '^$' -bench . -benchtime 1x
//
// It needs Linux, the right to make a network namespace (Janus gathers no candidates on
// loopback), iproute2, and Janus (Debian: apt install janus). Where one is missing it
// fails.
package record_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Bars of the recorder. The first is against Janus in the same run.
const (
	maxRatio  = 1.0
	maxMemory = 650_000 // bytes a stream, what the process itself needs included
)

const (
	address = "10.99.0.1"
	warmUp  = 4 * time.Second
	window  = 15 * time.Second
	inside  = "STENO_BENCH_NAMESPACE"
)

var sizes = []int{100, 200}

// result is what a recorder did with some streams.
type result struct {
	Name     string
	Streams  int
	CPU      float64 // ms per stream-second
	RSS      float64 // bytes per stream
	Drops    uint64
	Missing  uint64 // packets that did not come
	Uploaded int64
}

// BenchmarkRecordingAgainstJanus prints a table and fails above the bars.
func BenchmarkRecordingAgainstJanus(b *testing.B) {
	if os.Getenv(inside) == "" {
		enter(b)
		return
	}
	network(b)
	for range b.N {
		compare(b)
	}
}

// enter runs this benchmark again in a network namespace of its own.
func enter(b *testing.B) {
	for _, tool := range []string{"janus", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			b.Fatalf("%s is needed to measure: %v", tool, err)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^$", "-test.bench", "^"+b.Name()+"$", "-test.benchtime", "1x", "-test.timeout", "15m")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		b.Fatalf("measure in a network namespace of its own: %v", err)
	}
}

func network(b *testing.B) {
	for _, args := range []string{
		"link set lo up", "link add v0 type veth peer name v1", "addr add " + address + "/24 dev v0", "link set v0 up", "link set v1 up",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			b.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
}

func compare(b *testing.B) {
	var results []result
	for _, n := range sizes {
		results = append(results, measure(b, startJanus(b), n), measure(b, startRecorder(b), n))
	}
	fmt.Printf("\n%-10s %8s %22s %14s %8s %9s\n", "", "streams", "CPU ms/stream-second", "KiB a stream", "drops", "missing")
	for _, r := range results {
		missing := strconv.FormatUint(r.Missing, 10)
		if r.Name == "janus" {
			missing = "-" // it does not tell
		}
		fmt.Printf("%-10s %8d %22.3f %14.0f %8d %9s\n", r.Name, r.Streams, r.CPU, r.RSS/1024, r.Drops, missing)
	}
	for i := 0; i < len(results); i += 2 {
		janus, ours := results[i], results[i+1]
		ratio := ours.CPU / janus.CPU
		fmt.Printf("ratio at %d streams: %.2f\n", ours.Streams, ratio)
		b.ReportMetric(ratio, fmt.Sprintf("x-janus@%d", ours.Streams))
		if ratio > maxRatio {
			b.Errorf("%d streams cost %.2f times what Janus takes, want at most %.2f", ours.Streams, ratio, maxRatio)
		}
		if ours.Drops != 0 || ours.Missing != 0 {
			b.Errorf("%d packets dropped at sockets, %d missing", ours.Drops, ours.Missing)
		}
		if ours.Uploaded == 0 {
			b.Error("nothing reached evidence")
		}
		if ours.RSS > maxMemory {
			b.Errorf("%.0f bytes a stream, want at most %d", ours.RSS, maxMemory)
		}
	}
}

// subject is a recorder that is measured.
type subject interface {
	name() string
	pid() int
	// accept takes a stream's offer and returns the answer.
	accept(i int, s *stream) (answer string, err error)
	// record begins recording once all streams are connected.
	record(streams []*stream) error
	// came is how many packets came, as far as the recorder tells.
	came() (packets uint64, uploaded int64, err error)
	stop() error
}

func measure(b *testing.B, s subject, n int) result {
	b.Helper()
	streams := make([]*stream, n)
	for i := range streams {
		st, err := newStream(s.name() == "recorder")
		if err == nil {
			err = st.connect(func() (string, error) { return s.accept(i, st) })
		}
		if err != nil {
			b.Fatalf("%s: stream %d: %v", s.name(), i, err)
		}
		streams[i] = st
	}
	for i, st := range streams {
		if err := st.wait(); err != nil {
			b.Fatalf("%s: stream %d: %v", s.name(), i, err)
		}
	}
	if err := s.record(streams); err != nil {
		b.Fatalf("%s: %v", s.name(), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	sent := make(chan uint64, 1)
	go func() { sent <- talk(ctx, streams) }()
	time.Sleep(warmUp)
	before, start := cpu(b, s.pid()), time.Now()
	time.Sleep(window)
	took, used := time.Since(start), cpu(b, s.pid())-before
	r := result{Name: s.name(), Streams: n, RSS: memory(b, s.pid()) / float64(n)}
	r.CPU = float64(used.Milliseconds()) / float64(n) / took.Seconds()
	cancel()
	total := <-sent
	time.Sleep(500 * time.Millisecond)
	r.Drops = drops(b)
	packets, uploaded, err := s.came()
	if err != nil {
		b.Fatalf("%s: %v", s.name(), err)
	}
	r.Missing, r.Uploaded = total-min(total, packets), uploaded
	for _, st := range streams {
		if err := st.pc.Close(); err != nil {
			b.Error(err)
		}
	}
	if err := s.stop(); err != nil {
		b.Errorf("%s: %v", s.name(), err)
	}
	return r
}

// cpu is the processor time of a process, proc_pid_stat(5).
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	var ticks int64
	for _, x := range f[11:13] { // utime and stime
		n, err := strconv.ParseInt(x, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func memory(b *testing.B, pid int) float64 {
	b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				b.Fatal(err)
			}
			return n * 1024
		}
	}
	b.Fatal("no VmRSS")
	return 0
}

// drops sums what the sockets of the namespace dropped.
func drops(b *testing.B) (total uint64) {
	b.Helper()
	raw, err := os.ReadFile("/proc/self/net/udp")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) >= 13 && f[0] != "sl" {
			n, err := strconv.ParseUint(f[12], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			total += n
		}
	}
	return total
}

// ours is the recording path of the bot, as a process.
type ours struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startRecorder(b *testing.B) subject {
	b.Helper()
	dir := b.TempDir()
	bin, key := filepath.Join(dir, "recorder"), filepath.Join(dir, "key.pem")
	if out, err := exec.Command("go", "build", "-o", bin, "steno/mediabot/testdata/recorder").CombinedOutput(); err != nil {
		b.Fatalf("build the recorder: %v: %s", err, out)
	}
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}), 0o600); err != nil {
		b.Fatal(err)
	}
	o := &ours{cmd: exec.Command(bin, "-dir", filepath.Join(dir, "spool"), "-key", key, "-local", address, "-remote", address)}
	o.cmd.Stderr = os.Stderr
	if o.in, err = o.cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	out, err := o.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	o.out = bufio.NewScanner(out)
	o.out.Buffer(nil, 1<<20)
	if err := o.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return o
}

type reply struct {
	Answer    string
	Connected bool
	Error     string
	Packets   uint64
	Uploaded  int64
}

func (o *ours) do(what string, call int, offer any) (r reply, err error) {
	q, err := json.Marshal(map[string]any{"Do": what, "Call": "call-" + strconv.Itoa(call), "Offer": offer})
	if err != nil {
		return r, err
	}
	if _, err := o.in.Write(append(q, '\n')); err != nil {
		return r, err
	}
	if !o.out.Scan() {
		return r, errors.Join(errors.New("the recorder says nothing any more"), o.out.Err())
	}
	if err := json.Unmarshal(o.out.Bytes(), &r); err != nil {
		return r, err
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

func (o *ours) name() string { return "recorder" }
func (o *ours) pid() int     { return o.cmd.Process.Pid }

func (o *ours) accept(i int, s *stream) (string, error) {
	r, err := o.do("connect", i, s.offered())
	return r.Answer, err
}

func (o *ours) record(streams []*stream) error {
	for i, s := range streams {
		r, err := o.do("connected", i, nil)
		if err == nil && !r.Connected {
			err = errors.New("not connected")
		}
		if err == nil {
			_, err = o.do("record", i, nil)
		}
		if err == nil {
			err = s.bind()
		}
		if err != nil {
			return fmt.Errorf("stream %d: %w", i, err)
		}
	}
	return nil
}

func (o *ours) came() (uint64, int64, error) {
	r, err := o.do("stats", 0, nil)
	return r.Packets, r.Uploaded, err
}

func (o *ours) stop() error { return errors.Join(o.in.Close(), o.cmd.Wait()) }
