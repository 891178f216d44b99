//go:build !linux

package ingest

import (
	"net"
	"net/netip"
	"time"
)

// growBuffer asks for a receive buffer. What came of it cannot be told here: setting it
// succeeds where the system takes the size, and fails where it does not.
func growBuffer(c *net.UDPConn, size int) (granted int) {
	if c.SetReadBuffer(size) != nil {
		return 0
	}
	return size
}

func inode(*net.UDPConn) uint64 { return 0 }

// drops are not told by this system.
func drops(map[uint64]bool) (total uint64, known bool) { return 0, false }

// poll reads a socket in bursts. Without a way to look whether there is a packet, it
// sleeps before a read that would wait: one that comes long after the last sleep.
type poll struct{ slept time.Time }

// read reads the next packet; not ok if it is time to sleep.
func (p *poll) read(c *net.UDPConn, b []byte) (n int, from netip.AddrPort, ok bool, err error) {
	if time.Since(p.slept) > burst+burst/4 {
		p.slept = time.Now()
		return 0, from, false, nil
	}
	n, from, err = c.ReadFromUDPAddrPort(b)
	return n, from, err == nil, err
}
