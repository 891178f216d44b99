package azurite

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"steno/tests/local/worm"
)

// accountName is the account of every emulator; clients recognize it as such.
const accountName = "devstoreaccount1"

// Config says how an account is run.
type Config struct {
	// Dir keeps the data, the policies included; it is created if absent. ""
	// keeps everything in memory.
	Dir string

	// CertFile and KeyFile are PEM files. With both set, all endpoints speak
	// https with this certificate, which must be valid for 127.0.0.1.
	CertFile, KeyFile string

	// OAuth accepts Entra bearer tokens beside the account key. Azurite wants
	// https for it and checks of a token its audience
	// (https://storage.azure.com), its issuer (https://sts.windows.net/<guid>/)
	// and its times, not its signature.
	OAuth bool

	Log io.Writer        // output of npm and Azurite; nil = discard
	Now func() time.Time // clock of the write-once proxy; nil = time.Now
}

// An Account is a running storage account. Its methods may be called from any
// goroutine.
type Account struct {
	// Addresses with the account's name as path. Clients of BlobURL meet the
	// write-once proxy, clients of BlobURL and TableURL are counted.
	BlobURL, QueueURL, TableURL string

	key     string
	azurite *process
	worm    *worm.Proxy
	counts  counts
	away    atomic.Bool
	servers []*http.Server
	serving sync.WaitGroup
	upward  *http.Transport
	stop    func() error
}

// SetAway takes BlobURL and TableURL off the network, or brings them back: requests
// meanwhile lose their connections without an answer. What lies behind stays as it is.
func (a *Account) SetAway(on bool) { a.away.Store(on) }

// reachable cuts the connections of an endpoint that is away.
func (a *Account) reachable(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.away.Load() {
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
}

// Start installs Azurite if need be, starts it, and returns once Blob, Queue
// and Table accept connections. ctx bounds the start, not the account's life.
func Start(ctx context.Context, cfg Config) (*Account, error) {
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return nil, errors.New("start storage account: CertFile and KeyFile go together")
	}
	if cfg.OAuth && cfg.CertFile == "" {
		return nil, errors.New("start storage account: OAuth needs CertFile and KeyFile")
	}
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	if cfg.Dir != "" {
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("start storage account: %w", err)
		}
	}
	if err := Install(ctx, cfg.Log); err != nil {
		return nil, err
	}
	secret := make([]byte, 64)
	rand.Read(secret)
	a := &Account{key: base64.StdEncoding.EncodeToString(secret), upward: &http.Transport{
		DisableCompression:  true, // responses pass as they are
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     4 * time.Second, // below the 5 s after which Node closes an idle connection
	}}
	a.stop = sync.OnceValue(a.shutdown)
	own, err := a.loadTLS(cfg)
	if err != nil {
		return nil, fmt.Errorf("start storage account: %w", err)
	}
	if a.azurite, err = run(ctx, cfg, a.key); err != nil {
		return nil, err
	}
	if err := a.serve(cfg, own); err != nil {
		return nil, errors.Join(fmt.Errorf("start storage account: %w", err), a.Stop())
	}
	return a, nil
}

// loadTLS returns what the proxies serve with, nil for http, and makes the
// transport to Azurite trust the same certificate.
func (a *Account) loadTLS(cfg Config) (*tls.Config, error) {
	if cfg.CertFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	for _, der := range pair.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		roots.AddCert(cert)
	}
	a.upward.TLSClientConfig = &tls.Config{RootCAs: roots}
	return &tls.Config{Certificates: []tls.Certificate{pair}}, nil
}

// serve puts the proxies in front of Azurite.
func (a *Account) serve(cfg Config, own *tls.Config) error {
	blob, err := url.Parse(a.azurite.blob)
	if err != nil {
		return err
	}
	table, err := url.Parse(a.azurite.table)
	if err != nil {
		return err
	}
	exists, err := a.existence(blob)
	if err != nil {
		return err
	}
	proxy := worm.Config{Upstream: blob, Transport: a.upward, Exists: exists, Now: cfg.Now, Observe: a.counts.add}
	if cfg.Dir != "" {
		proxy.Journal = filepath.Join(cfg.Dir, "immutability.jsonl")
	}
	if a.worm, err = worm.New(proxy); err != nil {
		return err
	}
	if a.BlobURL, err = a.listen(own, a.reachable(a.worm)); err != nil {
		return err
	}
	tables := &httputil.ReverseProxy{
		Transport: a.upward,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = table.Scheme, table.Host
			r.Out.Host = r.In.Host
		},
		ErrorLog: log.New(cfg.Log, "table proxy: ", 0),
	}
	a.TableURL, err = a.listen(own, a.reachable(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.counts.add(tableKind(r))
		tables.ServeHTTP(w, r)
	})))
	a.QueueURL = a.azurite.queue + "/" + accountName
	return err
}

// existence returns what the write-once proxy asks, with the account's key and
// past the proxy.
func (a *Account) existence(blob *url.URL) (func(context.Context, string, string) (bool, error), error) {
	cred, err := azblob.NewSharedKeyCredential(accountName, a.key)
	if err != nil {
		return nil, err
	}
	client, err := azblob.NewClientWithSharedKeyCredential(blob.JoinPath(accountName).String(), cred, &azblob.ClientOptions{
		ClientOptions: policy.ClientOptions{Transport: &http.Client{Transport: a.upward}},
	})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, container, name string) (bool, error) {
		_, err := client.ServiceClient().NewContainerClient(container).NewBlobClient(name).GetProperties(ctx, nil)
		if bloberror.HasCode(err, bloberror.BlobNotFound, bloberror.ContainerNotFound) {
			return false, nil
		}
		return err == nil, err
	}, nil
}

// listen serves h on a free loopback port and returns the account's address
// there.
func (a *Account) listen(own *tls.Config, h http.Handler) (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	scheme := "http"
	if own != nil {
		scheme, ln = "https", tls.NewListener(ln, own)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	a.servers = append(a.servers, s)
	a.serving.Go(func() { _ = s.Serve(ln) }) // returns ErrServerClosed, after Close
	return scheme + "://" + ln.Addr().String() + "/" + accountName, nil
}

// Key returns the account key, base64. It is new with every start.
func (a *Account) Key() string { return a.key }

// Name returns the account's name.
func (a *Account) Name() string { return accountName }

// ConnectionString returns what the storage clients take. Clients must trust
// the certificate if the account has one.
func (a *Account) ConnectionString() string {
	scheme, _, _ := strings.Cut(a.BlobURL, ":")
	return "DefaultEndpointsProtocol=" + scheme + ";AccountName=" + accountName + ";AccountKey=" + a.key +
		";BlobEndpoint=" + a.BlobURL + ";QueueEndpoint=" + a.QueueURL + ";TableEndpoint=" + a.TableURL + ";"
}

// SetContainerDefault makes a container write-once: see
// [worm.Proxy.SetContainerDefault].
func (a *Account) SetContainerDefault(container string, mode worm.Mode, days int) error {
	return a.worm.SetContainerDefault(container, mode, days)
}

// Operations returns how many storage operations of each kind were asked for,
// whatever their outcome, since the start or the last ResetOperations. The
// kinds are the Op constants of package worm and of this one.
func (a *Account) Operations() map[string]int64 { return a.counts.read() }

// ResetOperations sets all counts to zero.
func (a *Account) ResetOperations() { a.counts.reset() }

// Stop ends the proxies and Azurite and waits for them. With a Dir, everything
// acknowledged is on disk when it returns nil. It may be called twice.
func (a *Account) Stop() error { return a.stop() }

func (a *Account) shutdown() error {
	var faults []error
	for _, s := range a.servers {
		faults = append(faults, s.Close())
	}
	a.serving.Wait()
	a.upward.CloseIdleConnections()
	if a.worm != nil {
		faults = append(faults, a.worm.Close())
	}
	return errors.Join(append(faults, a.azurite.stop())...)
}
