// Command recorder is the recording path of the bot as a process of its own, without
// Graph and without a gateway: tests kill it, and measure what it costs. It reads a
// request a line from standard input and answers each with a line.
package main

import (
	"bufio"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"time"

	"steno/mediabot/internal/ingest"
	"steno/mediabot/internal/segment"
	"steno/mediabot/internal/spool"
	"steno/shared/conversation"
	"steno/shared/evidence"
	"steno/shared/teams"
	"steno/tests/grant"
)

const tenant = teams.TenantID("72f988bf-86f1-41af-91ab-2d7cd011db47")

// request asks to connect a call, to record it, to finish it, or for stats.
type request struct {
	Do    string
	Call  teams.CallID
	Offer ingest.Offer
}

type reply struct {
	Answer    string `json:",omitempty"`
	Connected bool   `json:",omitempty"`
	Error     string `json:",omitempty"`
	Packets   uint64
	Lost      uint64
	Drops     uint64
	Buffer    int
	Known     bool // whether drops are
	Uploaded  int64
	Alarm     bool
	Handed    spool.Handed
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "recorder:", err)
		os.Exit(1)
	}
}

type recorder struct {
	receiver *ingest.Receiver
	spool    *spool.Spool
	sea      *sea
	calls    map[teams.CallID]*call
}

type call struct {
	peer      *ingest.Peer
	leg       *segment.Leg
	line      *spool.Line
	connected chan struct{}
}

func run() error {
	// As the bot does: live memory is small and steady, so collecting four times as often costs
	// little and keeps little for garbage.
	debug.SetGCPercent(25)
	dir := flag.String("dir", "", "spool directory")
	local := flag.String("local", "127.0.0.1", "address to listen at")
	remote := flag.String("remote", "127.0.0.1", "address of the sender")
	key := flag.String("key", "", "file with the vault's key")
	away := flag.Bool("away", false, "whether evidence cannot be reached")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	var err error
	r := &recorder{sea: &sea{away: *away}, calls: map[teams.CallID]*call{}}
	r.receiver, err = ingest.New(ingest.Config{Local: netip.MustParseAddr(*local), Remote: netip.MustParseAddr(*remote), Log: log})
	if err != nil {
		return err
	}
	r.spool, err = spool.Open(spool.Config{Dir: *dir, Keys: r.sea, Log: log, Recovered: func(spool.Recovered) error { return nil }})
	if err != nil {
		return err
	}
	v, err := readVault(*key)
	if err != nil {
		return err
	}
	store, err := evidence.New(evidence.Config{Blobs: r.sea, Tails: r.sea, Keys: r.spool, Vault: v, VaultHosts: []string{"vault.test"}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- r.receiver.Run(ctx) }()
	go func() { done <- r.spool.Run(ctx, store) }()
	err = r.serve(ctx)
	cancel()
	return errors.Join(err, <-done, <-done, r.spool.Close())
}

func (r *recorder) serve(ctx context.Context) error {
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var q request
		if err := json.Unmarshal(in.Bytes(), &q); err != nil {
			return err
		}
		a, err := r.do(ctx, q)
		if err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return in.Err()
}

func (r *recorder) do(ctx context.Context, q request) (a reply, err error) {
	c := r.calls[q.Call]
	switch q.Do {
	case "connect":
		c = &call{connected: make(chan struct{})}
		r.calls[q.Call] = c
		if c.peer, err = r.receiver.Connect(ctx, q.Offer, c); err != nil {
			return a, err
		}
		a.Answer = c.peer.Answer()
	case "connected":
		select {
		case <-c.connected:
			a.Connected = true
		case <-time.After(30 * time.Second):
		}
	case "record":
		return a, r.record(c, q.Call)
	case "finish":
		c.peer.Stop()
		c.leg.End(time.Now(), conversation.OutcomeRecorded)
		handed := make(chan spool.Handed, 1)
		if err := c.line.Finish(ctx, func(h spool.Handed) { handed <- h }); err != nil {
			return a, err
		}
		if !r.sea.away {
			a.Handed = <-handed
		}
		return a, c.peer.Close()
	case "stats":
		for _, c := range r.calls {
			n := c.peer.Counters()
			a.Packets += n.Packets
			a.Lost += n.Lost
		}
		st := r.receiver.Stats()
		a.Drops, a.Known, a.Buffer = st.Drops, st.DropsKnown, st.Buffer
		a.Uploaded, a.Alarm = r.sea.bytes.Load(), r.spool.State().Alarm
	}
	return a, nil
}

func (r *recorder) record(c *call, id teams.CallID) error {
	granted, err := grant.For(id)
	if err != nil {
		return err
	}
	info := segment.Info{Tenant: tenant, Leg: conversation.LegOf(tenant, id), Call: id, Chain: "chain", Recorder: "recorder"}
	c.leg, err = segment.Start(info, granted, time.Now(), func(err error) { fmt.Fprintln(os.Stderr, "leg failed:", err) })
	if err != nil {
		return err
	}
	if c.line, err = r.spool.Begin(c.leg.Header(), c.leg); err != nil {
		return err
	}
	c.peer.Record(c.leg.Began(), sink{c.leg})
	return nil
}

// sink turns what ingest says into what segment hears.
type sink struct{ *segment.Leg }

// Frame takes a frame.
func (s sink) Frame(f *ingest.Frame) {
	g := segment.Frame(*f)
	s.Leg.Frame(&g)
}

// Connected, Control and Lost are what the peer tells. That one is lost shows in what is
// missing; it is also how every run ends.
func (c *call) Connected()                      { close(c.connected) }
func (c *call) Control(string, json.RawMessage) {}
func (c *call) Lost(error)                      {}

// vault wraps with the key of a file.
type vault struct{ key *rsa.PrivateKey }

func readVault(name string) (vault, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return vault{}, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return vault{}, errors.New("vault key is not PEM")
	}
	k, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	return vault{k}, err
}

// WrappingKey returns the key.
func (v vault) WrappingKey(context.Context) (string, *rsa.PublicKey, error) {
	return "https://vault.test/keys/k/1", &v.key.PublicKey, nil
}

// Unwrap is not for recorders.
func (v vault) Unwrap(context.Context, string, string, []byte) ([]byte, error) {
	return nil, errors.New("a recorder unwraps nothing")
}
