package ingest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/transport/v4/stdnet"
	"github.com/pion/webrtc/v4"
)

// pace is how often peers do what is due by time.
const pace = 50 * time.Millisecond

// Config is what a receiver needs.
type Config struct {
	// Local is the address that peers listen at, and Remote that of the gateway.
	// 127.0.0.1 if not set: another one is for measurements across an interface.
	Local, Remote netip.Addr
	// Window is how long a hole waits for its packets: DefaultWindow if 0.
	Window time.Duration
	// ReceiveBuffer is the size to ask for of sockets: ReceiveBuffer if 0.
	ReceiveBuffer int
	Log           *slog.Logger
}

// Receiver answers offers. Its methods may be called from any goroutine.
type Receiver struct {
	cfg  Config
	cert webrtc.Certificate
	net  *stdnet.Net

	foreign atomic.Uint64
	buffer  atomic.Int64 // least receive buffer granted

	mu    sync.Mutex
	peers map[*Peer]bool
}

// Stats are what a receiver has seen.
type Stats struct {
	Peers int
	// Foreign counts packets from somebody else than the gateway of a peer.
	Foreign uint64
	// Buffer is the smallest receive buffer that a socket got. Short says that it is less
	// than asked for: a stall of this process would lose audio.
	Buffer int
	Short  bool
	// Drops counts packets of open sockets that the system dropped because a buffer was
	// full, where the system tells.
	Drops      uint64
	DropsKnown bool
}

// New returns a receiver. Its Run must run for peers to record.
func New(cfg Config) (*Receiver, error) {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if !cfg.Local.IsValid() {
		cfg.Local = loopback
	}
	if !cfg.Remote.IsValid() {
		cfg.Remote = loopback
	}
	if cfg.Window == 0 {
		cfg.Window = DefaultWindow
	}
	if cfg.ReceiveBuffer == 0 {
		cfg.ReceiveBuffer = ReceiveBuffer
	}
	if cfg.Window < 0 || cfg.Window > MaxWindow || !cfg.Local.Is4() || !cfg.Remote.Is4() || cfg.Log == nil {
		return nil, fmt.Errorf("receiver: want IPv4 addresses, a window of at most %s and a log", MaxWindow)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("receiver: %w", err)
	}
	cert, err := webrtc.GenerateCertificate(key)
	if err != nil {
		return nil, fmt.Errorf("receiver: %w", err)
	}
	n, err := stdnet.NewNet()
	if err != nil {
		return nil, fmt.Errorf("receiver: list interfaces: %w", err)
	}
	return &Receiver{cfg: cfg, cert: *cert, net: n, peers: map[*Peer]bool{}}, nil
}

// Run does what is due by time for all peers, until ctx ends.
func (r *Receiver) Run(ctx context.Context) error {
	t := time.NewTicker(pace)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			for _, p := range r.all() {
				p.tick(time.Now())
			}
		}
	}
}

func (r *Receiver) all() []*Peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*Peer, 0, len(r.peers))
	for p := range r.peers {
		list = append(list, p)
	}
	return list
}

func (r *Receiver) noteBuffer(granted int) {
	for {
		least := r.buffer.Load()
		if least != 0 && int(least) <= granted {
			return
		}
		if r.buffer.CompareAndSwap(least, int64(max(granted, 1))) {
			return
		}
	}
}

// Stats returns what was seen so far.
func (r *Receiver) Stats() Stats {
	s := Stats{Foreign: r.foreign.Load(), Buffer: int(r.buffer.Load())}
	s.Short = s.Buffer != 0 && s.Buffer < r.cfg.ReceiveBuffer
	inodes := map[uint64]bool{}
	for _, p := range r.all() {
		s.Peers++
		p.sockets.mu.Lock()
		for _, c := range p.sockets.open {
			inodes[c.inode] = true
		}
		p.sockets.mu.Unlock()
	}
	s.Drops, s.DropsKnown = drops(inodes)
	return s
}

var errClosed = errors.New("peer is closed")
