package msgraph

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/hashicorp/go-retryablehttp"
)

// Limits of fetching what messages point at.
const (
	// MaxRedirects is how often an answer may lead elsewhere.
	MaxRedirects = 3
	// MinRate is how many bytes a second a download must come with over RateOver.
	MinRate  = 64 << 10
	RateOver = time.Minute
	// Stall is how long a download may be silent.
	Stall = 30 * time.Second
	// maxVersionPages is how many pages of versions of a file are read.
	maxVersionPages = 50
)

// DefaultFileHosts are where Microsoft keeps files: SharePoint and OneDrive, and the media
// services before them.
var DefaultFileHosts = []string{"*.sharepoint.com", "*.svc.ms"}

// Errors that callers branch on.
var (
	// ErrForeignHost says that an address is none of the hosts that are asked. Nothing was
	// sent there.
	ErrForeignHost = errors.New("the address is not on a host that is asked for files")
	// ErrLink says that an address cannot be read as one of a file.
	ErrLink = errors.New("not an address of a file")
	// ErrNoFile says that an item is a folder or a package, which has no bytes.
	ErrNoFile = errors.New("the item is not a file")
	// ErrMalware says that Microsoft holds the file for harmful.
	ErrMalware = errors.New("the file is refused as harmful")
	// ErrSlow says that a download came to a halt, or nearly.
	ErrSlow = errors.New("the download is too slow")
)

// FilesConfig says where files may be fetched from.
type FilesConfig struct {
	// Hosts are the hosts that are followed to, beside Graph: example.com, *.example.com for
	// all below it, with :PORT for another port than 443. Empty means DefaultFileHosts.
	Hosts []string
	// Private lets the downloads connect to loopback and private addresses, for a simulated
	// tenant.
	Private bool
	// MinRate, RateOver and Stall replace the constants of these names if they are not 0.
	MinRate  int64
	RateOver time.Duration
	Stall    time.Duration
	// Transport replaces the way of downloads, for tests; nil means Transport(Private).
	Transport http.RoundTripper
}

// Files fetches what messages point at. The bearer goes to Graph alone: a download's address
// carries its own authorization. It is safe for many at once.
type Files struct {
	g     *Client
	c     FilesConfig
	hosts []hostRule
	http  *http.Client
}

type hostRule struct {
	host, port string
	below      bool // whatever is below it
}

var hostForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

// NewFiles returns a Files that asks Graph through g.
func NewFiles(g *Client, c FilesConfig) (*Files, error) {
	if len(c.Hosts) == 0 {
		c.Hosts = DefaultFileHosts
	}
	c.MinRate, c.RateOver, c.Stall = cmp.Or(c.MinRate, MinRate), cmp.Or(c.RateOver, RateOver), cmp.Or(c.Stall, Stall)
	f := &Files{g: g, c: c}
	for _, h := range c.Hosts {
		r, err := parseHostRule(h)
		if err != nil {
			return nil, err
		}
		f.hosts = append(f.hosts, r)
	}
	if c.Transport == nil {
		f.c.Transport = Transport(c.Private)
	}
	f.http = &http.Client{
		Transport:     f.c.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return f, nil
}

// CheckFileHost reports whether a text names a host as FilesConfig has it.
func CheckFileHost(s string) error {
	_, err := parseHostRule(s)
	return err
}

func parseHostRule(s string) (hostRule, error) {
	r := hostRule{port: "443"}
	host, port, hasPort := strings.Cut(s, ":")
	if hasPort {
		r.port = port
	}
	r.host, r.below = strings.CutPrefix(host, "*.")
	if !hostForm.MatchString(r.host) || r.below && !strings.Contains(r.host, ".") || strings.Trim(r.port, "0123456789") != "" || r.port == "" {
		return r, fmt.Errorf("file host %q: want example.com, *.example.com or either with :PORT", s)
	}
	return r, nil
}

// allowed judges an address that is to be connected to. Only https, no user part, a plain
// name and the port of its rule pass.
func (f *Files) allowed(u *url.URL) error {
	if u.Scheme != "https" || u.User != nil || u.Opaque != "" || u.Host == "" {
		return fmt.Errorf("%w: want https and a host alone", ErrForeignHost)
	}
	host, port := strings.ToLower(u.Hostname()), cmp.Or(u.Port(), "443")
	for _, r := range f.hosts {
		if port == r.port && (host == r.host && !r.below || r.below && strings.HasSuffix(host, "."+r.host)) && hostForm.MatchString(host) {
			return nil
		}
	}
	return ErrForeignHost
}

// SharedLink judges the address of a file as a message has it, and returns the token under
// which Graph knows it. An address may hold raw spaces, which are escaped here: whether Graph
// wants that is nowhere said, and both are taken in practice.
// https://learn.microsoft.com/graph/api/shares-get
func (f *Files) SharedLink(link string) (token string, err error) {
	const scheme = "https://"
	if len(link) < len(scheme) || !strings.EqualFold(link[:len(scheme)], scheme) || strings.ContainsFunc(link, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", ErrLink
	}
	authority := link[len(scheme):]
	if i := strings.IndexAny(authority, `/\?#`); i >= 0 {
		authority = authority[:i]
	}
	u, err := url.Parse(scheme + authority)
	if err != nil {
		return "", ErrLink
	}
	if err := f.allowed(u); err != nil {
		return "", err
	}
	return "u!" + base64.RawURLEncoding.EncodeToString([]byte(strings.ReplaceAll(link, " ", "%20"))), nil
}

// Item is a driveItem as far as it is used.
// https://learn.microsoft.com/graph/api/resources/driveitem
type Item struct {
	Drive, ID, ETag, CTag string
	Size                  int64
	Modified              time.Time
	QuickXorHash          string // base64, empty if Graph has none
}

// Item reads what Graph knows of the file behind an address of a message. It costs one request.
func (f *Files) Item(ctx context.Context, link string) (Item, error) {
	token, err := f.SharedLink(link)
	if err != nil {
		return Item{}, fmt.Errorf("read file item: %w", err)
	}
	u := f.g.base.JoinPath("shares", url.PathEscape(token), "driveItem")
	u.RawQuery = "$select=id,name,size,file,eTag,cTag,lastModifiedDateTime,parentReference,malware"
	var v struct {
		ID, ETag, CTag       string
		Size                 int64
		LastModifiedDateTime time.Time
		ParentReference      struct{ DriveID string }
		Malware              *struct{}
		File                 *struct{ Hashes struct{ QuickXorHash string } }
	}
	if err := f.g.read(ctx, u, &v); err != nil {
		return Item{}, fmt.Errorf("read file item: %w", err)
	}
	switch {
	case v.Malware != nil:
		return Item{}, ErrMalware
	case v.File == nil:
		return Item{}, ErrNoFile
	case v.ID == "" || v.ParentReference.DriveID == "":
		return Item{}, fmt.Errorf("read file item: %w: without ids", ErrPage)
	}
	return Item{
		Drive: v.ParentReference.DriveID, ID: v.ID, ETag: v.ETag, CTag: v.CTag, Size: v.Size, Modified: v.LastModifiedDateTime, QuickXorHash: v.File.Hashes.QuickXorHash,
	}, nil
}

// Version is an earlier state of a file.
// https://learn.microsoft.com/graph/api/resources/driveitemversion
type Version struct {
	ID       string
	Modified time.Time
	Size     int64
}

// Versions lists the states of a file that are kept, the current one first. How many there
// are the owner of the library decides. It costs one request for every page.
func (f *Files) Versions(ctx context.Context, i Item) ([]Version, error) {
	u := f.item(i).JoinPath("versions")
	var out []Version
	for range maxVersionPages {
		var page struct {
			Value []struct {
				ID                   string
				LastModifiedDateTime time.Time
				Size                 int64
			}
			Next string `json:"@odata.nextLink"`
		}
		if err := f.g.read(ctx, u, &page); err != nil {
			return nil, fmt.Errorf("list versions of a file: %w", err)
		}
		for _, v := range page.Value {
			out = append(out, Version{v.ID, v.LastModifiedDateTime, v.Size})
		}
		if page.Next == "" {
			return out, nil
		}
		var err error
		if u, err = f.g.follow(page.Next); err != nil {
			return nil, fmt.Errorf("list versions of a file: %w", err)
		}
	}
	return nil, fmt.Errorf("list versions of a file: more than %d pages", maxVersionPages)
}

func (f *Files) item(i Item) *url.URL {
	return f.g.base.JoinPath("drives", url.PathEscape(i.Drive), "items", url.PathEscape(i.ID))
}

// Content is the bytes of something, from From on. They come as fast as they are read; a
// source that is too slow ends them with ErrSlow.
type Content struct {
	io.ReadCloser
	From      int64
	RequestID string // Graph's
}

// Content opens the bytes of a version of a file, or of its current state if version is
// empty, from an offset on. A source may pass over the offset: see From. It costs one request
// to Graph, which answers with an address that is good for minutes and carries its own
// authorization.
// https://learn.microsoft.com/graph/api/driveitem-get-content
func (f *Files) Content(ctx context.Context, i Item, version string, from int64) (*Content, error) {
	u := f.item(i)
	if version != "" {
		u = u.JoinPath("versions", url.PathEscape(version))
	}
	c, err := f.open(ctx, u.JoinPath("content"), from)
	if err != nil {
		return nil, fmt.Errorf("open file content: %w", err)
	}
	return c, nil
}

// hostedForm is the path of hosted content below the version of the API.
// https://learn.microsoft.com/graph/api/chatmessagehostedcontent-get
var hostedForm = regexp.MustCompile(`^/(?:v1\.0|beta)/((?:chats/[^/]+|teams/[^/]+/channels/[^/]+)/messages/[^/]+(?:/replies/[^/]+)?/hostedContents/[^/]+)/\$value$`)

// HostedLink judges the address of hosted content as a message has it, and returns the words
// of its path. The address may name another message than the one it stands in.
func (f *Files) HostedLink(link string) ([]string, error) {
	u, err := url.Parse(link)
	if err != nil {
		return nil, ErrLink
	}
	if u.Scheme != "https" || u.User != nil || u.Opaque != "" || (!strings.EqualFold(u.Host, "graph.microsoft.com") && !strings.EqualFold(u.Host, f.g.base.Host)) {
		return nil, ErrForeignHost
	}
	m := hostedForm.FindStringSubmatch(u.EscapedPath())
	if m == nil {
		return nil, ErrLink
	}
	words := strings.Split(m[1], "/")
	for i, w := range words {
		if words[i], err = url.PathUnescape(w); err != nil || words[i] == "." || words[i] == ".." || strings.ContainsAny(words[i], `/\`) {
			return nil, ErrLink
		}
	}
	return words, nil
}

// Hosted opens content that Teams hosts, under its address in a message. Graph has limits
// of its own for it, 1 request a second in a chat among them. It costs one request.
func (f *Files) Hosted(ctx context.Context, link string) (*Content, error) {
	words, err := f.HostedLink(link)
	if err != nil {
		return nil, fmt.Errorf("open hosted content: %w", err)
	}
	u := f.g.base
	for _, w := range words {
		u = u.JoinPath(url.PathEscape(w))
	}
	c, err := f.open(ctx, u.JoinPath("$value"), 0)
	if err != nil {
		return nil, fmt.Errorf("open hosted content: %w", err)
	}
	return c, nil
}

// open asks Graph, and follows by hand to where the bytes are.
func (f *Files) open(ctx context.Context, u *url.URL, from int64) (*Content, error) {
	ctx, cancel := context.WithCancel(ctx)
	resp, err := f.ask(ctx, u)
	if err != nil {
		cancel()
		return nil, err
	}
	id := cleanID(resp.Header.Get("request-id"))
	for hops := 0; ; hops++ {
		switch resp.StatusCode {
		case http.StatusOK:
			return &Content{ReadCloser: f.paced(resp.Body, cancel), RequestID: id}, nil
		case http.StatusPartialContent:
			if start, ok := rangeStart(resp.Header.Get("Content-Range")); ok && start == from {
				return &Content{ReadCloser: f.paced(resp.Body, cancel), From: from, RequestID: id}, nil
			}
			err = fmt.Errorf("%w: another range than was asked for", ErrPage)
		case http.StatusFound, http.StatusTemporaryRedirect, http.StatusMovedPermanently, http.StatusPermanentRedirect, http.StatusSeeOther:
			if hops == MaxRedirects {
				err = fmt.Errorf("%w: more than %d redirects", ErrForeignHost, MaxRedirects)
			}
		default:
			err = readError(resp, id)
		}
		location := resp.Header.Get("Location")
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			cancel()
			return nil, err
		}
		if resp, err = f.follow(ctx, location, from); err != nil {
			cancel()
			return nil, err
		}
	}
}

// follow asks where an answer leads, without a token.
func (f *Files) follow(ctx context.Context, location string, from int64) (*http.Response, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, fmt.Errorf("%w: unreadable", ErrForeignHost)
	}
	if err := f.allowed(u); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: unreadable", ErrForeignHost)
	}
	req.Header.Set("Accept-Encoding", "identity") // the bytes as they are, and no bomb of Content-Encoding
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	resp, err := f.http.Do(req)
	if err != nil {
		return nil, unanswered(err)
	}
	return resp, nil
}

// unanswered is redact for answers that may lead elsewhere: net/http quotes an address in a
// header that it cannot read, has no value for that error, and such an address may carry its
// own authorization.
func unanswered(err error) error {
	if strings.Contains(err.Error(), "Location") {
		return fmt.Errorf("%w: unreadable", ErrForeignHost)
	}
	return redact(err)
}

// rangeStart reads where a Content-Range begins.
func rangeStart(s string) (start int64, ok bool) {
	n, err := fmt.Sscanf(s, "bytes %d-", &start)
	return start, err == nil && n == 1
}

// ask asks Graph for content, and once more with a fresh token if the first was refused.
func (f *Files) ask(ctx context.Context, u *url.URL) (*http.Response, error) {
	for try := 0; ; try++ {
		token, err := f.g.c.Credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{f.g.scope}})
		if err != nil {
			return nil, fmt.Errorf("get token for graph: %w", err)
		}
		req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token.Token)
		req.Header.Set("Accept-Encoding", "identity")
		// Content of messages that were edited is found under it alone.
		req.Header.Set("ConsistencyLevel", "eventual")
		resp, err := f.g.http.Do(req)
		if err != nil {
			return nil, unanswered(err)
		}
		if resp.StatusCode != http.StatusUnauthorized || try > 0 {
			return resp, nil
		}
		if err := resp.Body.Close(); err != nil {
			return nil, err
		}
	}
}

// paced watches over the pace of a body. The time that its reader takes is not the
// source's: only waiting counts.
func (f *Files) paced(body io.ReadCloser, cancel context.CancelFunc) io.ReadCloser {
	return &pacedBody{ReadCloser: body, cancel: cancel, c: f.c}
}

type pacedBody struct {
	io.ReadCloser
	cancel context.CancelFunc
	c      FilesConfig
	waited time.Duration
	got    int64
}

func (b *pacedBody) Read(p []byte) (int, error) {
	stalled := time.AfterFunc(b.c.Stall, b.cancel)
	began := time.Now()
	n, err := b.ReadCloser.Read(p)
	if !stalled.Stop() {
		return n, ErrSlow
	}
	b.waited += time.Since(began)
	b.got += int64(n)
	if b.waited >= b.c.RateOver {
		if float64(b.got) < float64(b.c.MinRate)*b.waited.Seconds() {
			return n, ErrSlow
		}
		b.waited, b.got = 0, 0
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return n, redact(err)
	}
	return n, err
}

func (b *pacedBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
