package msgraph

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// ErrAddress says that a name resolved to an address no Microsoft service has.
var ErrAddress = errors.New("refused to connect to a private address")

// refused lists what no public service answers on: this machine, the local network,
// the metadata services of the platform.
var refused = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("168.63.129.16/32"), // Azure's wire server
	netip.MustParsePrefix("169.254.0.0/16"),   // link local, instance metadata
	netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// CheckAddress refuses an address that is not public. IPv4 in IPv6 clothing is
// judged as IPv4.
func CheckAddress(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	for _, p := range refused {
		if p.Contains(a) {
			return ErrAddress
		}
	}
	return nil
}

// Transport returns a transport that checks the address at connect time, after the
// name was resolved, so that a name which changes its mind in between gains nothing.
// It uses no proxy from the environment. private turns the check off.
func Transport(private bool) *http.Transport {
	d := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	if !private {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("%w: unreadable address", ErrAddress)
			}
			return CheckAddress(ap.Addr())
		}
	}
	return &http.Transport{
		DialContext:            d.DialContext,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
	}
}
