// Package ca is a certificate authority that lives for one run of the local stand-ins.
//
// The client libraries of Entra ID and Key Vault refuse plain http, so the stand-ins speak TLS on loopback. Child
// processes trust them by the files that WriteFiles leaves: Go by SSL_CERT_FILE, Node by NODE_EXTRA_CA_CERTS.
package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Lifetime is how long the authority and everything it issues are valid.
const Lifetime = 7 * 24 * time.Hour

// The names of the files that WriteFiles leaves in its directory.
const (
	RootFile = "ca.pem"
	CertFile = "cert.pem"
	KeyFile  = "key.pem"
)

// clockSkew lets a process whose clock runs a little behind accept a certificate made just now.
const clockSkew = 5 * time.Minute

// CA is a throw-away certificate authority. Its key never leaves memory. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

// New makes an authority with a fresh ECDSA P-256 key.
func New() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate authority key: %w", err)
	}
	t, err := template("Steno local authority")
	if err != nil {
		return nil, err
	}
	t.IsCA = true
	t.BasicConstraintsValid = true
	t.MaxPathLenZero = true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign authority certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse authority certificate: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &CA{cert: cert, key: key, pool: pool}, nil
}

func template(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: []string{"Steno local"}},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     now.Add(Lifetime),
	}, nil
}

// Issue makes a server certificate for hosts, each a DNS name (one leading wildcard label is allowed) or an IP
// address. The first host becomes the common name. The chain does not include the authority itself.
func (c *CA) Issue(hosts ...string) (tls.Certificate, error) {
	if len(hosts) == 0 {
		return tls.Certificate{}, fmt.Errorf("issue certificate: no host named")
	}
	t, err := template(hosts[0])
	if err != nil {
		return tls.Certificate{}, err
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("generate key for %s: %w", hosts[0], err)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, c.cert, key.Public(), c.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("sign certificate for %s: %w", hosts[0], err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("parse certificate for %s: %w", hosts[0], err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// Local issues a certificate for localhost, 127.0.0.1, ::1 and every name directly under localhost, plus
// *.blob.localhost, *.queue.localhost and *.table.localhost, the host-style addresses of a local storage account.
func (c *CA) Local() (tls.Certificate, error) {
	return c.Issue("localhost", "127.0.0.1", "::1", "*.localhost", "*.blob.localhost", "*.queue.localhost", "*.table.localhost")
}

// Pool holds the authority alone. The caller must not add to it.
func (c *CA) Pool() *x509.CertPool { return c.pool }

// PEM is the authority's certificate.
func (c *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})
}

// Client trusts this authority and nothing else, and uses no proxy. The caller owns its idle connections.
func (c *CA) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: c.pool},
		ForceAttemptHTTP2: true,
	}}
}

// WriteFiles leaves RootFile, CertFile and KeyFile in dir, which must exist; the pair is a Local certificate. Files
// of the same names are overwritten. The key file is readable by its owner alone.
func (c *CA) WriteFiles(dir string) error {
	pair, err := c.Local()
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	for _, f := range []struct {
		name string
		mode os.FileMode
		data []byte
	}{
		{RootFile, 0o644, c.PEM()},
		{CertFile, 0o644, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})},
		{KeyFile, 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})},
	} {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.data, f.mode); err != nil {
			return fmt.Errorf("write %s: %w", f.name, err)
		}
	}
	return nil
}
