package ingest

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
)

// ReceiveBuffer is how many bytes each socket should hold: minutes of audio, or a second
// of everything that a call can send.
const ReceiveBuffer = 4 << 20

// burst is the time between two readings of a socket whose peer records.
const burst = 100 * time.Millisecond

// sockets makes the sockets of one peer.
type sockets struct {
	*stdnet.Net
	r    *Receiver
	from []netip.AddrPort // that the offer named: nobody else is listened to
	lazy atomic.Bool

	mu   sync.Mutex
	open []*socket
}

// ListenUDP opens a socket with a large buffer.
func (s *sockets) ListenUDP(network string, at *net.UDPAddr) (transport.UDPConn, error) {
	c, err := net.ListenUDP(network, at)
	if err != nil {
		return nil, err
	}
	granted := growBuffer(c, s.r.cfg.ReceiveBuffer)
	s.r.noteBuffer(granted)
	conn := &socket{UDPConn: c, set: s, inode: inode(c)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, conn)
	return conn, nil
}

// socket is a UDP socket that takes packets from the gateway's candidates only.
type socket struct {
	*net.UDPConn
	set   *sockets
	inode uint64
	poll  poll
}

// ReadFromAddrPort reads the next packet of the gateway. It has one caller, the
// connection's read loop.
func (c *socket) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		n, from, err := c.next(b)
		if err != nil {
			return n, from, err
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if slices.Contains(c.set.from, from) {
			return n, from, nil
		}
		c.set.r.foreign.Add(1)
	}
}

// next waits for a packet; while the peer records, until the next burst. All sockets have
// their bursts at the same times, so that between them the process sleeps.
func (c *socket) next(b []byte) (int, netip.AddrPort, error) {
	for c.set.lazy.Load() {
		n, from, ok, err := c.poll.read(c.UDPConn, b)
		if ok || err != nil {
			return n, from, err
		}
		now := time.Now()
		time.Sleep(now.Truncate(burst).Add(burst).Sub(now))
	}
	return c.ReadFromUDPAddrPort(b)
}

// WriteToAddrPort sends a packet.
func (c *socket) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return c.WriteToUDPAddrPort(b, to)
}
