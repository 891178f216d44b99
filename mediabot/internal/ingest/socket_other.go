//go:build !linux

package ingest

import "net"

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
