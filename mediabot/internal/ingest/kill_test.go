package ingest_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"steno/mediabot/internal/spool"
	"steno/shared/conversation"
	"steno/shared/evidence"
	"steno/shared/storetest"
	"steno/shared/teams"
)

// recorder is the recording path as another process, see mediabot/testdata/recorder.
type recorder struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startRecorder(t testing.TB, dir, key string) *recorder {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "recorder")
	if out, err := exec.Command("go", "build", "-o", bin, "steno/mediabot/testdata/recorder").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	r := &recorder{t: t, cmd: exec.Command(bin, "-dir", dir, "-key", key, "-away")}
	r.cmd.Stderr = os.Stderr
	var err error
	r.in, err = r.cmd.StdinPipe()
	must(t, err)
	out, err := r.cmd.StdoutPipe()
	must(t, err)
	r.out = bufio.NewScanner(out)
	r.out.Buffer(nil, 1<<20)
	must(t, r.cmd.Start())
	return r
}

// do asks for something and returns the answer.
func (r *recorder) do(q map[string]any) map[string]any {
	r.t.Helper()
	b, err := json.Marshal(q)
	must(r.t, err)
	_, err = r.in.Write(append(b, '\n'))
	must(r.t, err)
	if !r.out.Scan() {
		r.t.Fatal("the recorder says nothing any more: ", r.out.Err())
	}
	var a map[string]any
	must(r.t, json.Unmarshal(r.out.Bytes(), &a))
	if a["Error"] != nil {
		r.t.Fatal(a["Error"])
	}
	return a
}

// fileVault opens what the other process sealed.
type fileVault struct{ *rsa.PrivateKey }

func (v fileVault) WrappingKey(context.Context) (string, *rsa.PublicKey, error) {
	return "https://vault.test/keys/k/1", &v.PublicKey, nil
}

func (v fileVault) Unwrap(_ context.Context, _, _ string, wrapped []byte) ([]byte, error) {
	return v.Decrypt(nil, wrapped, &rsa.OAEPOptions{Hash: crypto.SHA256})
}

func TestAKilledRecorderLosesLessThanASecond(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	rng := mathrand.New(mathrand.NewPCG(seed, 2))
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	keyFile := filepath.Join(t.TempDir(), "key.pem")
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600))
	const call, source = teams.CallID("killed"), 55

	child := startRecorder(t, dir, keyFile)
	s := newSender(t, senderOptions{audio: 1})
	a := child.do(map[string]any{"Do": "connect", "Call": call, "Offer": s.offer})
	answerSDP(t, s, a["Answer"].(string))
	if child.do(map[string]any{"Do": "connected", "Call": call})["Connected"] != true {
		t.Fatal("not connected")
	}
	await(t, "ctl open", s.open)
	child.do(map[string]any{"Do": "record", "Call": call})
	frames := tones(t, 350, 400+rng.IntN(200))
	start := time.Now()
	s.clock(0, start)
	s.bind("a0", 1, source, 0)
	s.talk(0, source, 0, frames, 0)
	must(t, child.cmd.Process.Kill())
	killed := time.Now()
	_ = child.cmd.Wait() // killed

	p := &path{t: t}
	recovered := make(chan spool.Recovered, 1)
	p.spool, err = spool.Open(spool.Config{Dir: dir, Keys: &p.keys, Log: quiet(), Recovered: func(x spool.Recovered) error { recovered <- x; return nil }})
	must(t, err)
	store, err := evidence.New(evidence.Config{Blobs: &p.blobs, Tails: &p.tails, Keys: p.spool, Vault: fileVault{key}, VaultHosts: []string{storetest.VaultHost}})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.spool.Run(ctx, store) }()
	x := await(t, "recovered", recovered)
	cancel()
	must(t, <-done)
	must(t, p.spool.Close())
	if x.Leg != conversation.LegOf(tenant, call) || x.Final || len(x.Faults) != 0 || x.Handed.Parts == 0 {
		t.Errorf("recovered %+v", x)
	}
	p.opener = fileVault{key}
	h := listen(t, p.read(x.Leg, x.Handed), conversation.TrackOf(conversation.AudioTrack, source))
	got := 0
	for _, f := range frames {
		if h.payloads[string(f)] > 0 {
			got++
		}
	}
	lost := time.Duration(len(frames)-got) * 20 * time.Millisecond
	t.Logf("seed %d: %s of %s recovered, killed %s after the last frame", seed, time.Duration(got)*20*time.Millisecond, time.Duration(len(frames))*20*time.Millisecond, killed.Sub(start)-time.Duration(len(frames))*20*time.Millisecond)
	if lost > time.Second {
		t.Errorf("seed %d: %s lost", seed, lost)
	}
}
