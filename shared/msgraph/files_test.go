package msgraph

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// drive is Graph with files, and the host to which it sends those who want them.
type drive struct {
	*Files
	graph    *graph
	cdn      *httptest.Server
	mu       sync.Mutex
	location string // where content leads
	asked    []*http.Request
	answer   http.HandlerFunc // of the other host
}

func newDrive(t *testing.T, c FilesConfig) *drive {
	t.Helper()
	d := &drive{}
	d.cdn = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		d.asked = append(d.asked, r)
		d.mu.Unlock()
		d.answer(w, r)
	}))
	t.Cleanup(d.cdn.Close)
	d.answer = func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("the bytes"))
	}
	d.graph = newGraph(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/driveItem"):
			fmt.Fprint(w, `{"id":"i","eTag":"e","cTag":"c","size":9,"lastModifiedDateTime":"2026-03-01T10:00:00Z","parentReference":{"driveId":"b!d"},"file":{"hashes":{"quickXorHash":"xyz"}}}`)
		case strings.HasSuffix(r.URL.Path, "/$value"):
			fmt.Fprint(w, "an image")
		default:
			d.mu.Lock()
			w.Header().Set("Location", d.location)
			d.mu.Unlock()
			w.WriteHeader(http.StatusFound)
		}
	})
	d.location = d.cdn.URL + "/download?tempauth=x"
	if c.Hosts == nil {
		c.Hosts = []string{"*.sharepoint.com", strings.TrimPrefix(d.cdn.URL, "https://")}
	}
	f, err := NewFiles(d.graph.Client, c)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(d.cdn.Certificate())
	f.c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool, ServerName: "example.com"}
	t.Cleanup(f.http.CloseIdleConnections)
	d.Files = f
	return d
}

func (d *drive) read(t *testing.T, from int64) ([]byte, *Content, error) {
	t.Helper()
	c, err := d.Content(t.Context(), Item{Drive: "b!d", ID: "i"}, "", from)
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(c)
	return b, c, errors.Join(err, c.Close())
}

func TestAFileIsReadWhereGraphLeadsWithoutTheToken(t *testing.T) {
	d := newDrive(t, FilesConfig{Private: true})
	item, err := d.Item(t.Context(), "https://contoso-my.sharepoint.com/personal/a b/x 100%.pdf")
	if err != nil || item.Drive != "b!d" || item.ID != "i" || item.Size != 9 || item.QuickXorHash != "xyz" || item.Modified.IsZero() {
		t.Fatalf("%+v, %v", item, err)
	}
	b, c, err := d.read(t, 0)
	if err != nil || string(b) != "the bytes" || c.RequestID != "req-1" {
		t.Fatalf("%q, %v", b, err)
	}
	if b, c, err = d.read(t, 4); err != nil || string(b) != "bytes" || c.From != 4 {
		t.Errorf("from 4: %q from %d, %v", b, c.From, err)
	}
	for _, r := range d.asked {
		if r.Header.Get("Authorization") != "" {
			t.Error("the token went to another host than Graph")
		}
	}
	for _, r := range d.graph.seen {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer "+bearer) || r.Header.Get("Range") != "" {
			t.Errorf("Graph got %v", r.Header)
		}
	}
}

func TestBytesArriveAsTheyAre(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := z.Write(make([]byte, 10<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	d := newDrive(t, FilesConfig{Private: true})
	d.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes())
	}
	if b, _, err := d.read(t, 0); err != nil || !bytes.Equal(b, bomb.Bytes()) {
		t.Errorf("%d bytes of %d, %v: it was unpacked", len(b), bomb.Len(), err)
	}
}

// hostile lists where nothing may be asked for, whoever names it.
var hostile = []string{
	"http://169.254.169.254/latest", "https://169.254.169.254/metadata/instance", "https://[::ffff:a9fe:a9fe]/", "https://2852039166/", "https://0xa9fea9fe/", "https://0251.0376.0251.0376/",
	"https://168.63.129.16/", "https://localhost/", "https://localhost.sharepoint.com.evil/", "https://127.0.0.1/", "https://[::1]/", "https://10.0.0.1/",
	"https://graph.microsoft.com@evil.example/x", "https://graph.microsoft.com.evil.example/x", "https://contoso.sharepoint.com@evil.example/x", "https://contoso.sharepoint.com.evil.example/x",
	"https://evilsharepoint.com/x", "https://sharepoint.com/x", "https://contoso.sharepoint.com:8443/x", "http://contoso.sharepoint.com/x", "ftp://contoso.sharepoint.com/x", "file:///etc/passwd",
	"//contoso.sharepoint.com/x", "/relative", "", "https://", "https:///x", "https://evil.example/?u=https://contoso.sharepoint.com", "https://evil.example#.sharepoint.com", "https://evil.example\\.sharepoint.com/x",
	"https://contoso.sharepoint.com%2eevil.example/x", "https://contoso..sharepoint.com/x", "https://-.sharepoint.com/x", "https://contoso.sharepoint.com./x", "https://contoso\u3002sharepoint.com/x", "gopher://contoso.sharepoint.com",
	"https://xn--a.sharepoint.com.evil/x", "javascript:alert(1)", "https://user:pw@contoso.sharepoint.com/x", "https://\x00contoso.sharepoint.com/x",
}

func TestNothingIsAskedOfAnAddressOutsideMicrosofts(t *testing.T) {
	d := newDrive(t, FilesConfig{Hosts: DefaultFileHosts})
	d.Files.http.Transport = refusing{t}
	for _, s := range hostile {
		if _, err := d.Item(t.Context(), s); !errors.Is(err, ErrForeignHost) && !errors.Is(err, ErrLink) {
			t.Errorf("file %q: %v", s, err)
		}
		if _, err := d.Hosted(t.Context(), s); !errors.Is(err, ErrForeignHost) && !errors.Is(err, ErrLink) {
			t.Errorf("image %q: %v", s, err)
		}
	}
	if n := len(d.graph.seen); n != 0 {
		t.Errorf("Graph was asked %d times", n)
	}
	for _, s := range hostile {
		d.location = s
		if _, _, err := d.read(t, 0); !errors.Is(err, ErrForeignHost) {
			t.Errorf("redirect to %q: %v", s, err)
		}
	}
}

// refusing is a way out that must not be taken.
type refusing struct{ t *testing.T }

func (r refusing) RoundTrip(q *http.Request) (*http.Response, error) {
	r.t.Errorf("connects to %s", q.URL.Host)
	return nil, errors.New("refused")
}

func TestHostedContentIsAskedForUnderItsOwnPathAlone(t *testing.T) {
	d := newDrive(t, FilesConfig{Private: true})
	for _, s := range []string{
		"https://graph.microsoft.com/v1.0/chats/19:x@thread.v2/messages/1/hostedContents/aWQ/$value",
		"https://GRAPH.microsoft.com/beta/teams/t/channels/19:x@thread.tacv2/messages/1/replies/2/hostedContents/aWQ=/$value",
		d.graph.url + "/v1.0/chats/19%3Ax%40thread.v2/messages/1/hostedContents/aWQ/$value",
	} {
		c, err := d.Hosted(t.Context(), s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if b, err := io.ReadAll(c); err != nil || string(b) != "an image" {
			t.Errorf("%s: %q, %v", s, b, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	n := len(d.graph.seen)
	const lead = "https://graph.microsoft.com/v1.0/"
	for _, s := range []string{
		lead + "users", lead + "chats/x/messages/1/hostedContents/aWQ", lead + "chats/x/messages/1/hostedContents/aWQ/$value/../../../users", lead + "chats/../messages/1/hostedContents/aWQ/$value",
		lead + "chats/x%2f..%2f..%2fusers/messages/1/hostedContents/aWQ/$value", lead + "chats/x/messages/1/hostedContents/%2e%2e/$value", lead + "chats//messages/1/hostedContents/aWQ/$value",
		lead + "drives/d/items/i/hostedContents/aWQ/$value", "https://graph.microsoft.com/v2.0/chats/x/messages/1/hostedContents/aWQ/$value", lead + `chats/x\..\y/messages/1/hostedContents/aWQ/$value`,
	} {
		if _, err := d.Hosted(t.Context(), s); !errors.Is(err, ErrLink) {
			t.Errorf("%s: %v", s, err)
		}
	}
	if len(d.graph.seen) != n {
		t.Error("Graph was asked")
	}
	for _, r := range d.graph.seen {
		if !strings.HasPrefix(r.URL.Path, "/v1.0/") || !strings.HasSuffix(r.URL.Path, "/$value") {
			t.Errorf("asked for %s", r.URL.Path)
		}
	}
}

func TestRedirectsHaveAnEndAndCarryNoToken(t *testing.T) {
	d := newDrive(t, FilesConfig{Private: true})
	hops := 0
	d.answer = func(w http.ResponseWriter, r *http.Request) {
		hops++
		http.Redirect(w, r, d.cdn.URL+fmt.Sprint("/", hops), http.StatusFound)
	}
	if _, _, err := d.read(t, 0); !errors.Is(err, ErrForeignHost) || hops != MaxRedirects {
		t.Errorf("%d hops: %v", hops, err)
	}
	d.answer = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://169.254.169.254/metadata/instance", http.StatusFound)
	}
	if _, _, err := d.read(t, 0); !errors.Is(err, ErrForeignHost) {
		t.Errorf("a chain to the metadata service: %v", err)
	}
	for _, r := range d.asked {
		if r.Header.Get("Authorization") != "" {
			t.Error("the token went along")
		}
	}
}

// A host that is allowed and whose name leads to a private address is not connected to,
// though the name was public a moment ago.
func TestANameThatChangesItsMindGainsNothing(t *testing.T) {
	dns := newDNS(t, "40.126.1.1", "127.0.0.1")
	was := net.DefaultResolver
	net.DefaultResolver = dns.resolver()
	defer func() { net.DefaultResolver = was }()
	d := newDrive(t, FilesConfig{})
	d.location = "https://contoso.sharepoint.com/x"
	if got, err := net.DefaultResolver.LookupHost(t.Context(), "contoso.sharepoint.com"); err != nil || len(got) != 1 || got[0] != "40.126.1.1" {
		t.Fatalf("who looks first sees %v, %v", got, err)
	}
	_, _, err := d.read(t, 0)
	if !errors.Is(err, ErrAddress) {
		t.Errorf("%v, want ErrAddress", err)
	}
	if len(d.asked) != 0 {
		t.Error("it was connected to")
	}
}

// fakeDNS answers each question for an IPv4 address with the next of its answers, and goes on with the last.
type fakeDNS struct {
	conn    net.PacketConn
	mu      sync.Mutex
	answers []string
}

func newDNS(t *testing.T, answers ...string) *fakeDNS {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &fakeDNS{conn: conn, answers: answers}
	done := make(chan struct{})
	go func() { defer close(done); d.serve() }()
	t.Cleanup(func() { conn.Close(); <-done })
	return d
}

func (d *fakeDNS) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", d.conn.LocalAddr().String())
	}}
}

func (d *fakeDNS) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := d.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
			d.mu.Lock()
			ip := net.ParseIP(d.answers[0]).To4()
			if len(d.answers) > 1 {
				d.answers = d.answers[1:]
			}
			d.mu.Unlock()
			m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: [4]byte(ip)}}}
		}
		if b, err := m.Pack(); err == nil {
			_, _ = d.conn.WriteTo(b, from) // who does not hear it asks again
		}
	}
}

func TestASlowSourceIsLeft(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"silent": func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
		"a byte at a time": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte("x"))
				w.(http.Flusher).Flush()
				time.Sleep(2 * time.Millisecond)
			}
		},
	} {
		d := newDrive(t, FilesConfig{Private: true, Stall: 100 * time.Millisecond, RateOver: 100 * time.Millisecond, MinRate: 100_000})
		d.answer = answer
		if _, _, err := d.read(t, 0); !errors.Is(err, ErrSlow) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHostsThatAreNoneAreRefused(t *testing.T) {
	for _, s := range []string{"*.sharepoint.com", "localhost:1234", "files.example.com", "*.sharepoint.us:443"} {
		if err := CheckFileHost(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{"", "*", "*.", "*.com", "https://x.com", "x.com/", "x.com:", "x.com:a", "*.*.com", "a b.com", "X.com", ".com", "user@x.com"} {
		if err := CheckFileHost(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func FuzzAddresses(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Add("https://contoso.sharepoint.com/a b")
	f.Add("https://graph.microsoft.com/v1.0/chats/x/messages/1/hostedContents/y/$value")
	files := &Files{g: &Client{base: &url.URL{Scheme: "https", Host: "graph.microsoft.com", Path: "/v1.0"}}, hosts: []hostRule{{host: "sharepoint.com", port: "443", below: true}}}
	f.Fuzz(func(t *testing.T, s string) {
		if token, err := files.SharedLink(s); err == nil && (!strings.HasPrefix(strings.ToLower(s), "https://") || !strings.HasPrefix(token, "u!") || strings.Trim(token[2:], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "") {
			t.Errorf("%q gives %q", s, token)
		}
		if words, err := files.HostedLink(s); err == nil {
			for _, w := range words {
				if w == ".." || w == "." || w == "" || strings.ContainsAny(w, `/\`) {
					t.Errorf("%q gives %q", s, words)
				}
			}
		}
	})
}
