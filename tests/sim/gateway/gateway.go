package gateway

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"
)

// DefaultMaxCalls is the contract's default.
const DefaultMaxCalls = 100

// The contract's times and bounds.
const (
	leaseTime    = 6 * time.Second
	newExpiry    = 60 * time.Second
	connectLimit = 15 * time.Second
	orphanTime   = 120 * time.Second
	firstAudio   = 5 * time.Minute
	tombstone    = 10 * time.Minute
	reportEvery  = 5 * time.Second
	queueTicks   = 50
	maxBody      = 256 << 10
	maxOpen      = 64
	maxStalled   = 256 << 10 // bytes the control channel may hold back
	byeWait      = 500 * time.Millisecond
)

// Config starts a gateway. The zero value works.
type Config struct {
	// Addr is where HTTP listens; empty means a free port of 127.0.0.1.
	Addr string
	// TokenFile receives the bearer token, mode 0600. Empty means that only Token tells it.
	TokenFile string
	// MaxCalls is how many calls may exist at once; zero means DefaultMaxCalls.
	MaxCalls int
	// TestMode serves /v1/test.
	TestMode bool
	// Defects are the ways in which this gateway breaks the contract.
	Defects []Defect
}

// Health is the platform's state as GET /v1/health tells it.
type Health string

// The states of the platform.
const (
	HealthStarting   Health = "starting"
	HealthOK         Health = "ok"
	HealthHeavy      Health = "heavy"
	HealthOverloaded Health = "overloaded"
	HealthFailed     Health = "failed"
)

// Network is what happens to RTP packets on the way to the recorder. Retransmissions suffer it too.
type Network struct {
	Loss    float64 // probability that a packet is lost
	Reorder float64 // probability that a packet is overtaken by the next of its track
}

// Gateway is a running gateway. It is safe for concurrent use.
type Gateway struct {
	cfg      Config
	instance string
	token    string
	addr     string
	started  time.Time
	http     *http.Server
	identity webrtc.Certificate
	open     chan struct{} // one element a request that is being answered

	skew     atomic.Int64 // added to the clock
	network  atomic.Pointer[Network]
	delay    atomic.Int64 // of control lines
	hang     atomic.Bool
	stalled  atomic.Bool
	draining atomic.Bool
	dead     atomic.Bool
	health   atomic.Pointer[Health]
	buffers  struct{ taken, disposed atomic.Int64 }
	late     atomic.Int64 // callbacks after the end of their call

	mu       sync.Mutex
	maxCalls int
	calls    map[string]*call
	gone     map[string]time.Time // tombstones of deleted calls

	stop context.CancelFunc
	done sync.WaitGroup
}

// Start makes an identity and a token and begins to listen. Close ends it.
func Start(cfg Config) (*Gateway, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("start gateway: %w", err)
	}
	cert, err := webrtc.GenerateCertificate(key)
	if err != nil {
		return nil, fmt.Errorf("start gateway: %w", err)
	}
	g := &Gateway{
		cfg: cfg, instance: randomHex(8), token: randomHex(32), started: time.Now(), identity: *cert,
		open: make(chan struct{}, maxOpen), maxCalls: cmp.Or(cfg.MaxCalls, DefaultMaxCalls),
		calls: map[string]*call{}, gone: map[string]time.Time{},
	}
	g.SetHealth(HealthOK)
	g.SetNetwork(Network{})
	if err := g.writeToken(); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp4", cmp.Or(cfg.Addr, "127.0.0.1:0"))
	if err != nil {
		return nil, fmt.Errorf("start gateway: %w", err)
	}
	g.addr = l.Addr().String()
	g.http = &http.Server{Handler: g.handler(), ReadHeaderTimeout: 5 * time.Second}
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	g.done.Go(func() { _ = g.http.Serve(l) }) // ends with ErrServerClosed only
	g.done.Go(func() { g.run(ctx) })
	return g, nil
}

// writeToken puts the token where only this account can read it, in one step.
func (g *Gateway) writeToken() error {
	if g.cfg.TokenFile == "" {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(g.cfg.TokenFile), ".token-*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("write token file: %w", err)
	}
	_, err = tmp.WriteString(g.token)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), g.cfg.TokenFile)
	}
	if err != nil {
		return fmt.Errorf("write token file: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// URL is the address of the gateway, without a trailing slash.
func (g *Gateway) URL() string { return "http://" + g.addr }

// Token is the bearer token.
func (g *Gateway) Token() string { return g.token }

// Instance names this start of the gateway.
func (g *Gateway) Instance() string { return g.instance }

// Close ends every call, with its bye line, and the listener.
func (g *Gateway) Close() error {
	for _, c := range g.all() {
		c.end("shutdown")
	}
	g.stop()
	err := g.http.Close()
	g.done.Wait()
	return err
}

// Kill does what kill -9 does: the listener and every socket are gone at once and nobody is told. Close may follow.
func (g *Gateway) Kill() {
	if g.has(DefectImmortal) {
		return
	}
	g.dead.Store(true)
	_ = g.http.Close() // the connections of those who asked break, as they should
	g.stop()
	for _, c := range g.all() {
		c.vanish()
	}
}

// SetHealth says how the platform is.
func (g *Gateway) SetHealth(h Health) { g.health.Store(&h) }

// SetNetwork says what happens to media packets from now on.
func (g *Gateway) SetNetwork(n Network) { g.network.Store(&n) }

// DelayControl holds every control line back for so long. Packets are not delayed.
func (g *Gateway) DelayControl(d time.Duration) { g.delay.Store(int64(d)) }

// Hang makes every request from now on wait until its client gives up.
func (g *Gateway) Hang(on bool) { g.hang.Store(on) }

// Stall keeps the senders from sending, so that queues fill.
func (g *Gateway) Stall(on bool) {
	g.stalled.Store(on)
	for _, c := range g.all() {
		c.kick()
	}
}

// Drain refuses new calls, until it is called with false.
func (g *Gateway) Drain(on bool) { g.draining.Store(on) }

// Skip moves the gateway's clock forward: leases and expiries come sooner, ticks do not.
func (g *Gateway) Skip(d time.Duration) {
	g.skew.Add(int64(d))
	for _, c := range g.all() {
		c.keep(g.now())
	}
}

func (g *Gateway) now() time.Time { return time.Now().Add(time.Duration(g.skew.Load())) }

func (g *Gateway) all() []*call {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]*call, 0, len(g.calls))
	for _, c := range g.calls {
		out = append(out, c)
	}
	return out
}

func (g *Gateway) call(id string) *call {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.calls[id]
}

// forget takes a call out of the list and leaves a tombstone.
func (g *Gateway) forget(c *call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.calls[c.id] == c {
		delete(g.calls, c.id)
		g.gone[c.id] = g.now()
	}
}

// run hands out ticks and keeps the calls' times until ctx ends.
func (g *Gateway) run(ctx context.Context) {
	ticker := time.NewTicker(TickLength)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		grid := time.Now().UnixNano() / int64(TickLength)
		now := g.now()
		for _, c := range g.all() {
			c.feed(grid)
			c.keep(now)
		}
		g.mu.Lock()
		for id, at := range g.gone {
			if now.Sub(at) > tombstone {
				delete(g.gone, id)
			}
		}
		g.mu.Unlock()
	}
}

// ErrBlob is returned for a media configuration that no call of this gateway has.
var ErrBlob = errors.New("the media configuration is of no call here")

// Connection is Teams' media connection into the sockets of a call.
type Connection struct{ call *call }

// Connect plays the part of Teams' media controller: it finds the sockets that a media configuration points at, which
// must come back byte for byte, and lets src send into them. A blob connects once.
func (g *Gateway) Connect(blob string, src Source) (*Connection, error) {
	for _, c := range g.all() {
		if c.blob == blob {
			return c.connect(src)
		}
	}
	return nil, ErrBlob
}

// Close ends the media connection. The sockets are not told: only the recorder's DELETE disposes them.
func (c *Connection) Close() {
	c.call.mu.Lock()
	defer c.call.mu.Unlock()
	c.call.source = nil
}

// Fail raises MediaStreamFailure on a socket: audio, v0, … or vbss.
func (c *Connection) Fail(socket string) { c.call.fail(socket) }
