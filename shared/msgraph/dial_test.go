package msgraph_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"steno/shared/msgraph"
)

func TestPrivateAddressesAreRefused(t *testing.T) {
	for _, s := range []string{
		"0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.255", "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255",
		"192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1",
		"2001::1", "2001:db8::1", "2002:7f00:1::", "fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
	} {
		if err := msgraph.CheckAddress(netip.MustParseAddr(s)); !errors.Is(err, msgraph.ErrAddress) {
			t.Errorf("%s: %v, want ErrAddress", s, err)
		}
	}
	if err := msgraph.CheckAddress(netip.Addr{}); !errors.Is(err, msgraph.ErrAddress) {
		t.Errorf("no address: %v, want ErrAddress", err)
	}
	for _, s := range []string{"20.190.159.0", "40.126.1.1", "::ffff:40.126.1.1", "2603:1000::1", "172.32.0.1", "100.128.0.1", "168.63.129.17"} {
		if err := msgraph.CheckAddress(netip.MustParseAddr(s)); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}

// The check is made on the address that is dialed, so it does not matter by which
// name or notation it came.
func TestLoopbackIsNeverReachedByAnyName(t *testing.T) {
	var hits atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer s.Close()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	tr := msgraph.Transport(false)
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	for host, sure := range map[string]bool{
		"127.0.0.1": true, "[::ffff:127.0.0.1]": true, "[::1]": true, "localhost": true, "0.0.0.0": true, "[::ffff:7f00:1]": true,
		"2130706433": false, "0x7f000001": false, "0177.0.0.1": false, "127.1": false, // resolvers differ: an address or no such host
	} {
		resp, err := client.Get("http://" + host + ":" + u.Port())
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s: answered", host)
			continue
		}
		if sure && !errors.Is(err, msgraph.ErrAddress) {
			t.Errorf("%s: %v, want ErrAddress", host, err)
		}
	}
	if hits.Load() != 0 {
		t.Errorf("the server was reached %d times", hits.Load())
	}
}

func TestPrivateEndpointIsReachedWhenConfigured(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	t.Setenv("HTTP_PROXY", "http://192.0.2.1:1")
	tr := msgraph.Transport(true)
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if tr.Proxy != nil || !strings.HasPrefix(resp.Status, "404") {
		t.Errorf("status %s, a proxy from the environment: %t", resp.Status, tr.Proxy != nil)
	}
}
