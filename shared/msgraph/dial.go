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
// the metadata services of the platform, and the special ranges of
// https://www.iana.org/assignments/iana-ipv4-special-registry and
// https://www.iana.org/assignments/iana-ipv6-special-registry, those included that carry an IPv4
// address inside.
var refused = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8",
	"168.63.129.16/32", // Azure's wire server
	"169.254.0.0/16",   // link local, instance metadata
	"172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
	"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:db8::/32", "2002::/16",
	"fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// CheckAddress refuses an address that is not public. IPv4 in IPv6 clothing is
// judged as IPv4. The zero Addr is refused.
func CheckAddress(a netip.Addr) error {
	if !a.IsValid() {
		return ErrAddress
	}
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
