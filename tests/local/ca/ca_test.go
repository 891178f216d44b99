package ca_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"steno/tests/local/ca"
)

func newCA(t *testing.T) *ca.CA {
	t.Helper()
	c, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func serve(t *testing.T, cert tls.Certificate) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "hello")
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

func TestClientTrustsOnlyItsOwnAuthority(t *testing.T) {
	c := newCA(t)
	cert, err := c.Local()
	if err != nil {
		t.Fatal(err)
	}
	url := serve(t, cert)
	own := c.Client()
	defer own.CloseIdleConnections()
	resp, err := own.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	foreign := newCA(t).Client()
	defer foreign.CloseIdleConnections()
	if resp, err := foreign.Get(url); err == nil {
		resp.Body.Close()
		t.Fatal("a client of another authority accepted the certificate")
	}
}

func TestWrittenFilesServeAndAreTrusted(t *testing.T) {
	dir := t.TempDir()
	if err := newCA(t).WriteFiles(dir); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, ca.CertFile), filepath.Join(dir, ca.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(filepath.Join(dir, ca.RootFile))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(root) {
		t.Fatal("root file holds no certificate")
	}
	for _, host := range []string{"localhost", "127.0.0.1", "portal.localhost", "account.blob.localhost"} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: pool}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, ca.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("key file mode is %v", info.Mode())
	}
}

func TestCertificateExpiresWithinAWeek(t *testing.T) {
	cert, err := newCA(t).Issue("localhost")
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(cert.Leaf.NotAfter); left > ca.Lifetime || left < ca.Lifetime-time.Hour {
		t.Errorf("certificate lives %v", left)
	}
}

func TestIssueWithoutHostIsRefused(t *testing.T) {
	if _, err := newCA(t).Issue(); err == nil {
		t.Fatal("issued a certificate for nobody")
	}
}
