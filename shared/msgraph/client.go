package msgraph

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/hashicorp/go-retryablehttp"

	"steno/shared/teams"
)

// Limits of one answer.
const (
	// MaxPageBytes is the largest page that is read.
	MaxPageBytes = 32 << 20
	// MaxPageItems is the most messages a page may hold.
	MaxPageItems = 1000
	// MaxPages is how many pages one listing may follow.
	MaxPages = 10_000
	// DefaultTop asks for pages of this many messages. Microsoft recommends at most 250.
	DefaultTop = 50
)

// Errors that callers branch on.
var (
	// ErrForeignLink says that a nextLink leads away from Graph. Nothing was requested.
	ErrForeignLink = errors.New("nextLink leads away from the configured Graph endpoint")
	// ErrPage says that an answer was not a page: malformed, truncated or too large.
	ErrPage = errors.New("answer is not a page")
)

// Error is an answer of Graph that is not a success.
type Error struct {
	Status    int
	Code      string // Graph's error code, such as Forbidden
	RequestID string // quote it to Microsoft's support
}

func (e *Error) Error() string {
	if m := meanings[e.Code]; m != "" {
		return fmt.Sprintf("graph answered %d %s, %s (request-id %s)", e.Status, e.Code, m, e.RequestID)
	}
	return fmt.Sprintf("graph answered %d %s (request-id %s)", e.Status, e.Code, e.RequestID)
}

// Permanent reports whether asking again with the same rights cannot help: the
// request, the licence, the right or the person is what is wrong.
func (e *Error) Permanent() bool {
	switch e.Status {
	case http.StatusBadRequest, http.StatusPaymentRequired, http.StatusForbidden, http.StatusNotFound, http.StatusPreconditionFailed:
		return true
	}
	return false
}

// Gone reports whether Graph has no such item, or does not show it to this application.
func (e *Error) Gone() bool {
	return e.Status == http.StatusNotFound || e.Status == http.StatusForbidden
}

// Budget is the tenant's shared request budget.
type Budget interface {
	// Take waits until one request may go.
	Take(ctx context.Context) error
	// Pause keeps requests from going before until.
	Pause(ctx context.Context, until time.Time) error
}

// Config is what a client needs.
type Config struct {
	BaseURL    string // such as https://graph.microsoft.com/v1.0
	Credential azcore.TokenCredential
	Budget     Budget
	Log        *slog.Logger
	Top        int // messages a page; 0 means DefaultTop
	// Private lets the client connect to loopback and private addresses: for a
	// simulated tenant or a private endpoint, whose host must then be BaseURL's.
	Private bool
	// RetryMax is how often a throttled or failed request is sent again; 0 means 5.
	RetryMax int
	// RetryWait is the first wait where Graph names none; 0 means 1 s.
	RetryWait time.Duration
}

// Client asks Graph. It is safe for use by many goroutines.
type Client struct {
	base  *url.URL
	scope string
	c     Config
	http  *retryablehttp.Client
	large chan struct{} // held while a body beyond largeBody is read
}

// largeBody is what a page may weigh to be read beside others. Fifty messages weigh some
// 60 KB, so more is rare, and an instance of 512 MB must not hold eight of the largest
// at once.
const largeBody = 2 << 20

// New returns a client and reports every fault of its configuration at once.
func New(c Config) (*Client, error) {
	var faults []error
	base, err := url.Parse(c.BaseURL)
	if err != nil || base.Scheme != "https" || base.Host == "" || base.RawQuery != "" || base.User != nil {
		faults = append(faults, errors.New("graph base URL: want https://HOST/VERSION"))
	}
	if c.Credential == nil || c.Budget == nil || c.Log == nil {
		faults = append(faults, errors.New("graph client: credential, budget and log are required"))
	}
	if c.Top < 0 || c.Top > 250 {
		faults = append(faults, fmt.Errorf("graph page size %d: want 1 to 250", c.Top))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	c.Top = orDefault(c.Top, DefaultTop)
	c.RetryMax = orDefault(c.RetryMax, 5)
	c.RetryWait = orDefault(c.RetryWait, time.Second)
	base.Path = strings.TrimSuffix(base.Path, "/")
	g := &Client{large: make(chan struct{}, 1), base: base, scope: "https://graph.microsoft.com/.default", c: c}
	g.http = &retryablehttp.Client{
		HTTPClient: &http.Client{
			Transport:     &metered{next: Transport(c.Private), budget: c.Budget, timeout: attemptTimeout},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		RetryMax: c.RetryMax, RetryWaitMin: c.RetryWait, RetryWaitMax: 30 * c.RetryWait,
		CheckRetry: retryablehttp.DefaultRetryPolicy, Backoff: retryablehttp.DefaultBackoff,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
	return g, nil
}

// HTTP is the client's own way to Graph, budget, retries and address checks included,
// for the directory calls that go through Microsoft's SDK. It adds no token.
func (g *Client) HTTP() *http.Client { return g.http.StandardClient() }

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

// attemptTimeout bounds one attempt, body included. It starts when the budget has let
// the request go: a long pause is not the attempt's fault.
const attemptTimeout = 2 * time.Minute

// maxPause is the longest Retry-After, in seconds, that is passed on to other instances.
const maxPause = 3600

// metered takes every attempt from the budget, retries included, names each by a
// client-request-id of its own, and passes a Retry-After on to whoever shares the budget.
type metered struct {
	next    http.RoundTripper
	budget  Budget
	timeout time.Duration
}

func (m *metered) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := m.budget.Take(r.Context()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), m.timeout)
	r = r.Clone(ctx)
	r.Header.Set("client-request-id", newRequestID())
	resp, err := m.next.RoundTrip(r)
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = &timedBody{resp.Body, cancel}
	if resp.StatusCode == http.StatusTooManyRequests {
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
			wait := time.Duration(min(s, maxPause)) * time.Second
			if err := m.budget.Pause(r.Context(), time.Now().Add(wait)); err != nil {
				return nil, errors.Join(err, resp.Body.Close())
			}
		}
	}
	return resp, nil
}

// timedBody ends the attempt's time with its body.
type timedBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *timedBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// Page is one page of messages as Graph sent it.
type Page struct {
	Items     [][]byte // each the exact bytes of one element; they share memory
	Next      string   // absolute link to the next page, empty on the last
	RequestID string
	FetchedAt time.Time
}

// exports are the paths of the sources, in words; {} stands for the custodian.
var exports = map[teams.Source][]string{
	teams.Chats:            {"users", "{}", "chats", "getAllMessages"},
	teams.RetainedChats:    {"users", "{}", "chats", "getAllRetainedMessages"},
	teams.Channels:         {"teams", "{}", "channels", "getAllMessages"},
	teams.RetainedChannels: {"teams", "{}", "channels", "getAllRetainedMessages"},
	teams.DeletedTeam:      {"teamwork", "deletedTeams", "{}", "channels", "getAllMessages"},
}

// Messages reads one page of what a source holds of a custodian (a person or, for the
// sources of teams, a team), with lastModifiedDateTime strictly between from and to. next
// is the Next of the page before, empty for the first; it is followed only within the
// configured endpoint.
//
// Order is not defined, pages overlap or skip when messages change meanwhile, and a
// page may be empty and still have a Next.
func (g *Client) Messages(ctx context.Context, source teams.Source, custodian teams.PersonID, from, to time.Time, next string) (Page, error) {
	if _, err := teams.ParsePersonID(string(custodian)); err != nil {
		return Page{}, fmt.Errorf("read messages: %w", err) // it becomes part of a path
	}
	words, ok := exports[source]
	if !ok {
		return Page{}, errors.New("read messages: unknown source")
	}
	words = slices.Clone(words)
	words[slices.Index(words, "{}")] = url.PathEscape(string(custodian))
	u := g.base.JoinPath(words...)
	const stamp = "2006-01-02T15:04:05.000Z"
	u.RawQuery = url.Values{
		"$top": {strconv.Itoa(g.c.Top)},
		"$filter": {"lastModifiedDateTime gt " + from.UTC().Format(stamp) +
			" and lastModifiedDateTime lt " + to.UTC().Format(stamp)},
	}.Encode()
	if next != "" {
		var err error
		if u, err = g.follow(next); err != nil {
			return Page{}, err
		}
	}
	body, id, err := g.get(ctx, u)
	if err != nil {
		return Page{}, fmt.Errorf("read messages: %w", err)
	}
	items, link, err := splitPage(body)
	if err != nil {
		return Page{}, fmt.Errorf("read messages (request-id %s): %w", id, err)
	}
	if link != "" {
		if _, err := g.follow(link); err != nil {
			return Page{}, fmt.Errorf("read messages (request-id %s): %w", id, err)
		}
	}
	return Page{Items: items, Next: link, RequestID: id, FetchedAt: time.Now().UTC()}, nil
}

// follow checks that a link stays on the configured endpoint: same scheme, host and
// port, and below the same path, with nothing in it that reads as another host.
func (g *Client) follow(link string) (*url.URL, error) {
	u, err := url.Parse(link)
	if err != nil || len(link) > 16<<10 {
		return nil, fmt.Errorf("%w: unreadable", ErrForeignLink)
	}
	if u.Scheme != g.base.Scheme || !strings.EqualFold(u.Host, g.base.Host) || u.User != nil || u.Opaque != "" {
		return nil, fmt.Errorf("%w: host %q", ErrForeignLink, u.Host)
	}
	if path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/") || !strings.HasPrefix(u.Path, g.base.Path+"/") {
		return nil, fmt.Errorf("%w: path is outside %s", ErrForeignLink, g.base.Path)
	}
	return u, nil
}

// get asks once, and once more with what the credential then holds if the token was
// refused: it may have expired on the way.
func (g *Client) get(ctx context.Context, u *url.URL) (body []byte, requestID string, err error) {
	for try := 0; ; try++ {
		body, requestID, err = g.try(ctx, u)
		var ge *Error
		if try == 0 && errors.As(err, &ge) && ge.Status == http.StatusUnauthorized {
			continue
		}
		return body, requestID, err
	}
}

func (g *Client) try(ctx context.Context, u *url.URL) (body []byte, requestID string, err error) {
	token, err := g.c.Credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{g.scope}})
	if err != nil {
		return nil, "", fmt.Errorf("get token for graph: %w", err)
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Authorization", "Bearer "+token.Token)
	req.Header.Set("Accept", "application/json")
	// Without it every system event reads unknownFutureValue.
	req.Header.Set("Prefer", "include-unknown-enum-members")
	resp, err := g.http.Do(req)
	if err != nil {
		return nil, "", redact(err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	requestID = cleanID(resp.Header.Get("request-id"))
	if resp.StatusCode != http.StatusOK {
		return nil, requestID, readError(resp, requestID)
	}
	if ct := resp.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/json") {
		return nil, requestID, fmt.Errorf("%w: not JSON", ErrPage)
	}
	body, err = g.readBody(ctx, resp.Body, resp.ContentLength)
	if err != nil {
		return nil, requestID, err
	}
	return body, requestID, nil
}

// readBody reads a body, one at a time where it is large.
func (g *Client) readBody(ctx context.Context, r io.Reader, announced int64) ([]byte, error) {
	if announced >= 0 && announced <= largeBody {
		return readLimited(r, announced)
	}
	var head bytes.Buffer
	if announced < 0 {
		n, err := head.ReadFrom(io.LimitReader(r, largeBody))
		if err != nil {
			return nil, fmt.Errorf("%w: broke off after %d bytes: %w", ErrPage, n, err)
		}
		if n < largeBody {
			return head.Bytes(), nil
		}
	}
	select {
	case g.large <- struct{}{}:
		defer func() { <-g.large }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return readLimited(io.MultiReader(&head, r), announced)
}

// readLimited reads a body of at most MaxPageBytes.
func readLimited(r io.Reader, announced int64) ([]byte, error) {
	if announced > MaxPageBytes {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrPage, announced, int64(MaxPageBytes))
	}
	var b bytes.Buffer
	if announced > 0 {
		b.Grow(int(announced) + bytes.MinRead)
	}
	n, err := b.ReadFrom(io.LimitReader(r, MaxPageBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%w: broke off after %d bytes: %w", ErrPage, n, err)
	}
	if n > MaxPageBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrPage, int64(MaxPageBytes))
	}
	return b.Bytes(), nil
}

// readError reads {"error":{"code":…}}. The message is left alone: it can quote
// what was asked for.
func readError(resp *http.Response, requestID string) error {
	e := &Error{Status: resp.StatusCode, RequestID: requestID}
	var body struct {
		Error struct {
			Code json.RawMessage `json:"code"` // text, and a number in some answers about calls
		} `json:"error"`
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && json.Unmarshal(b, &body) == nil {
		e.Code = cleanID(strings.Trim(string(body.Error.Code), `"`))
	}
	return e
}

// cleanID keeps foreign text from carrying anything but an identifier into a log.
func cleanID(s string) string {
	s = s[:min(len(s), 64)]
	ok := func(r rune) bool {
		return r == '-' || r == '.' || r == '_' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z')
	}
	if slices.ContainsFunc([]rune(s), func(r rune) bool { return !ok(r) }) {
		return "unreadable"
	}
	return s
}

// redact drops the URL that net/http puts into its errors: skip tokens and object
// ids do not belong in logs.
func redact(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return fmt.Errorf("%s: %w", ue.Op, ue.Err)
	}
	return err
}

func newRequestID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails since Go 1.24
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
