package ingest

import (
	"bufio"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// growBuffer asks for a receive buffer, past the system's limit where that is allowed,
// and returns the size there is, 0 if it cannot be told.
func growBuffer(c *net.UDPConn, size int) (granted int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	err = raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) != nil {
			// Not privileged: as much as net.core.rmem_max allows. What came of it is read back.
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size)
		}
		// The kernel doubles the value for its own bookkeeping, socket(7).
		n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		if err == nil {
			granted = n / 2
		}
	})
	if err != nil {
		return 0
	}
	return granted
}

// inode identifies a socket in /proc/net/udp.
func inode(c *net.UDPConn) (n uint64) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	err = raw.Control(func(fd uintptr) {
		var st unix.Stat_t
		if unix.Fstat(int(fd), &st) == nil {
			n = st.Ino
		}
	})
	if err != nil {
		return 0
	}
	return n
}

// drops sums the packets that the kernel dropped at the given sockets, proc_net_udp(5).
func drops(of map[uint64]bool) (total uint64, known bool) {
	f, err := os.Open("/proc/net/udp")
	if err != nil {
		return 0, false
	}
	defer func() { _ = f.Close() }() // read only
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 13 {
			continue
		}
		ino, err := strconv.ParseUint(fields[9], 10, 64)
		if err != nil || !of[ino] {
			continue
		}
		n, err := strconv.ParseUint(fields[12], 10, 64)
		if err != nil {
			return total, false
		}
		total += n
	}
	return total, lines.Err() == nil
}

// poll reads a socket without waiting. It serves one goroutine.
type poll struct {
	raw  syscall.RawConn
	try  func(fd uintptr) bool
	b    []byte
	n    int
	from netip.AddrPort
	err  error
}

// read reads the next packet; not ok if there is none.
func (p *poll) read(c *net.UDPConn, b []byte) (n int, from netip.AddrPort, ok bool, err error) {
	if p.raw == nil {
		if p.raw, err = c.SyscallConn(); err != nil {
			return 0, from, false, err
		}
		p.try = p.receive // made once: a method value is an allocation
	}
	p.b = b
	if err := p.raw.Read(p.try); err != nil {
		return 0, from, false, err
	}
	if p.err == unix.EAGAIN || p.err == unix.EINTR {
		return 0, from, false, nil
	}
	// Other errors are those of packets sent before, such as a port that was closed.
	return p.n, p.from, p.err == nil, nil
}

func (p *poll) receive(fd uintptr) bool {
	n, from, err := unix.Recvfrom(int(fd), p.b, unix.MSG_DONTWAIT)
	p.n, p.err = n, err
	if at, ok := from.(*unix.SockaddrInet4); ok {
		p.from = netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port))
	}
	return true
}
