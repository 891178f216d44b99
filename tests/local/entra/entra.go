// Package entra stands in for Microsoft Entra ID: one tenant, OpenID Connect discovery, signing keys, a sign-in page,
// and tokens with the claims of the real ones.
//
// It checks what the real one checks of a request (client, secret, redirect address, PKCE, single use of a code) and
// nothing about the person: whoever opens the sign-in page picks a name. It knows no consent, no conditional access,
// no on-behalf-of and no device flow, and a refresh token is good for one use.
//
// Claims follow https://learn.microsoft.com/en-us/entra/identity-platform/access-token-claims-reference.
package entra

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"
)

// The resources for which the stand-in issues tokens besides the tenant's own applications.
const (
	GraphResource   = "https://graph.microsoft.com"
	StorageResource = "https://storage.azure.com"
	VaultResource   = "https://vault.azure.net"
	BusResource     = "https://servicebus.azure.net"
)

// ConsumersTenant is the tenant of personal Microsoft accounts. One key of every key set belongs to it.
const ConsumersTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"

// DefaultTokenLifetime is how long an access token is valid unless Config or ExpireIn says otherwise.
const DefaultTokenLifetime = time.Hour

// codeLifetime and refreshLifetime are those of a single-page application, as
// https://learn.microsoft.com/en-us/entra/identity-platform/refresh-tokens gives them.
const (
	codeLifetime    = 10 * time.Minute
	refreshLifetime = 24 * time.Hour
)

// Config describes the tenant.
type Config struct {
	// Base is the absolute address under which the handler is reached, without a trailing slash, such as
	// https://localhost:8443/entra. Issuers and endpoints begin with it. Its path is stripped from requests that carry it.
	Base string
	// Tenant is the tenant's id, a GUID in lower case.
	Tenant string
	// TenantName is shown on the sign-in page. Empty means "Local tenant".
	TenantName string
	// Clients are the registered applications.
	Clients []Client
	// People returns who can sign in, in the order shown. It is called for every sign-in. Nil means nobody.
	People func() []Person
	// TokenLifetime is that of access tokens. Zero means DefaultTokenLifetime.
	TokenLifetime time.Duration
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// Client is one registered application. An application with a Secret may ask for tokens of its own; one without is
// public and must use PKCE.
type Client struct {
	ID     string
	Name   string
	Secret string
	// Redirects are the exact addresses to which a code may be sent.
	Redirects []string
	// Scopes are the delegated permissions that this application offers as an API, without the api:// prefix.
	Scopes []string
	// Roles are the application permissions granted to this application, by resource: GraphResource or the id of
	// another client.
	Roles map[string][]string
}

// Person is somebody who can sign in.
type Person struct {
	ID   string // object id
	Name string
	UPN  string
	// Note is shown beside the name on the sign-in page and goes into no token.
	Note string
	// Claims are added to the person's id and access tokens.
	Claims map[string]any
}

// Entra is the stand-in, an http.Handler. It is safe for concurrent use.
type Entra struct {
	cfg    Config
	prefix string
	origin string
	mux    *http.ServeMux

	mu       sync.Mutex
	signing  []*signingKey // the last one signs
	grants   map[string]grant
	refusals []Refusal
	lifetime time.Duration
	counts   map[string]int

	consumers func() *signingKey
	foreign   func() *signingKey
}

// Refusal is an answer that the token endpoint gives instead of a token.
type Refusal struct {
	Status int    // HTTP status
	Code   string // OAuth error code, such as temporarily_unavailable
}

// grant is what a code or a refresh token stands for.
type grant struct {
	refresh   bool
	client    string
	person    string
	redirect  string
	challenge string
	nonce     string
	scope     string
	session   string
	expires   time.Time
}

var guid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// New checks cfg and generates the first signing key. It reports everything that is wrong at once.
func New(cfg Config) (*Entra, error) {
	base, err := url.Parse(cfg.Base)
	switch {
	case err != nil:
		return nil, fmt.Errorf("parse base address: %w", err)
	case base.Scheme == "" || base.Host == "" || strings.HasSuffix(cfg.Base, "/"):
		err = fmt.Errorf("base address %q is not absolute or ends in a slash", cfg.Base)
	}
	if !guid.MatchString(cfg.Tenant) {
		err = errors.Join(err, fmt.Errorf("tenant id %q is not a GUID in lower case", cfg.Tenant))
	}
	seen := map[string]bool{}
	for _, c := range cfg.Clients {
		if c.ID == "" || seen[c.ID] {
			err = errors.Join(err, fmt.Errorf("client id %q is empty or registered twice", c.ID))
		}
		seen[c.ID] = true
	}
	if err != nil {
		return nil, err
	}
	if cfg.TenantName == "" {
		cfg.TenantName = "Local tenant"
	}
	if cfg.TokenLifetime == 0 {
		cfg.TokenLifetime = DefaultTokenLifetime
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.People == nil {
		cfg.People = func() []Person { return nil }
	}
	e := &Entra{
		cfg:      cfg,
		prefix:   base.Path,
		origin:   base.Scheme + "://" + base.Host,
		grants:   map[string]grant{},
		lifetime: cfg.TokenLifetime,
		counts:   map[string]int{},
	}
	e.consumers = sync.OnceValue(func() *signingKey {
		return newSigningKey(cfg.Base + "/" + ConsumersTenant + "/v2.0")
	})
	e.foreign = sync.OnceValue(func() *signingKey { return newSigningKey("") })
	e.signing = []*signingKey{newSigningKey(cfg.Base + "/{tenantid}/v2.0")}
	e.routes()
	return e, nil
}

// Authority is the tenant's address, what a client library calls the authority: Base and the tenant id.
func (e *Entra) Authority() string { return e.cfg.Base + "/" + e.cfg.Tenant }

// Issuer is the `iss` of version 2 tokens.
func (e *Entra) Issuer() string { return e.Authority() + "/v2.0" }

// IssuerV1 is the `iss` of tokens for Microsoft's own resources, whose tokens are of version 1.
func (e *Entra) IssuerV1() string { return "https://sts.windows.net/" + e.cfg.Tenant + "/" }

// Refuse makes the token endpoint answer the next len(with) requests with errors, in order.
func (e *Entra) Refuse(with ...Refusal) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refusals = append(e.refusals, with...)
}

// ExpireIn sets the lifetime of access tokens issued from now on; zero or less makes them expired at birth.
func (e *Entra) ExpireIn(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lifetime = d
}

// Requests returns how often each endpoint was called: discovery, instance, keys, authorize, token, logout.
func (e *Entra) Requests() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make(map[string]int, len(e.counts))
	for k, v := range e.counts {
		out[k] = v
	}
	return out
}

func (e *Entra) routes() {
	e.mux = http.NewServeMux()
	handle := func(name, pattern string, h http.HandlerFunc) {
		e.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			e.mu.Lock()
			e.counts[name]++
			e.mu.Unlock()
			h(w, r)
		})
	}
	handle("discovery", "GET /{tid}/v2.0/.well-known/openid-configuration", cors(e.tenanted(e.discovery)))
	handle("keys", "GET /{tid}/discovery/v2.0/keys", cors(e.tenanted(e.keys)))
	handle("token", "POST /{tid}/oauth2/v2.0/token", cors(e.tenanted(e.token)))
	handle("authorize", "GET /{tid}/oauth2/v2.0/authorize", e.tenanted(e.authorize))
	handle("authorize", "POST /{tid}/oauth2/v2.0/authorize", e.tenanted(e.authorize))
	handle("logout", "GET /{tid}/oauth2/v2.0/logout", e.tenanted(e.logout))
	handle("instance", "GET /common/discovery/instance", cors(e.instance))
	e.mux.HandleFunc("OPTIONS /", preflight)
}

// ServeHTTP answers for the tenant, whether or not a mux in front has stripped the path of Config.Base.
func (e *Entra) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.prefix != "" && strings.HasPrefix(r.URL.Path, e.prefix+"/") {
		http.StripPrefix(e.prefix, e.mux).ServeHTTP(w, r)
		return
	}
	e.mux.ServeHTTP(w, r)
}

// Mount registers the stand-in with a mux that other handlers share: under the path of Config.Base, and under the
// tenant's id at the root, because azidentity keeps only the host of an authority and asks for
// /{tenant}/v2.0/.well-known/openid-configuration there. What it finds in that document leads back under Base.
func (e *Entra) Mount(mux *http.ServeMux) {
	mux.Handle(e.prefix+"/", e)
	if e.prefix != "" {
		mux.Handle("/"+e.cfg.Tenant+"/", e)
	}
}

type tenantKey struct{}

// tenanted admits requests that name this tenant, or `common` and `organizations`, which know no tenant until
// somebody has signed in.
func (e *Entra) tenanted(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		tid := strings.ToLower(r.PathValue("tid"))
		if tid != e.cfg.Tenant && tid != "common" && tid != "organizations" {
			e.oauthError(w, http.StatusBadRequest, "invalid_tenant", 90002, fmt.Sprintf("Tenant '%s' not found.", tid))
			return
		}
		h(w, r.WithContext(context.WithValue(r.Context(), tenantKey{}, tid)))
	}
}

func (e *Entra) client(id string) (Client, bool) {
	for _, c := range e.cfg.Clients {
		if c.ID == id {
			return c, true
		}
	}
	return Client{}, false
}

func (e *Entra) person(id string) (Person, bool) {
	for _, p := range e.cfg.People() {
		if p.ID == id {
			return p, true
		}
	}
	return Person{}, false
}

// cors opens an endpoint to pages of every origin, as Entra ID does for single-page applications.
func cors(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Expose-Headers", "x-ms-request-id, Retry-After")
		h(w, r)
	}
}

func preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
}

// stableGUID derives an id that stays the same from run to run.
func stableGUID(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	sum[6] = sum[6]&0x0f | 0x40
	sum[8] = sum[8]&0x3f | 0x80
	x := hex.EncodeToString(sum[:16])
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:32]
}

// pairwise is the `sub` of a person at a client: the same for the pair, different for every other pair.
func pairwise(client, person string) string {
	sum := sha256.Sum256([]byte(client + "\x00" + person))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
