// Package portal is the room of supervisors and compliance officers: the API over
// the archive and the pages that use it.
//
// A caller is who the verified bearer token says, and nothing else: headers that a
// front end or the host might add are not read. What a caller may see is a
// policy.Grant, computed from the roster at each request. Missing and forbidden are
// answered alike. Content leaves only after a custody event is durable; when the trail
// is unavailable, no content leaves.
package portal

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"steno/shared/conversation"
	"steno/shared/coverage"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Config is who may come in and where.
type Config struct {
	Base    string // path prefix of everything, such as /steno
	Tenant  teams.TenantID
	History time.Duration // how far recording reaches back before a recorded period
	// Policies are the data management policies in force.
	Policies policy.DataPolicies

	Audience  string // application id of the API: the aud of its access tokens
	Client    string // application id of the pages
	Scope     string // the scope that a token must carry
	Issuer    string // exact iss of access tokens
	KeysURL   string // where the issuer publishes its signing keys
	Authority string // where the pages sign in

	// Pages are the built pages; nil means those in the executable.
	Pages fs.FS
	// HTTP fetches signing keys; http.DefaultClient if nil.
	HTTP *http.Client
	Now  func() time.Time // time.Now if nil
}

type evidenceStore interface {
	Open(ctx context.Context, ref evidence.Ref, receipt custody.Receipt) (*evidence.Object, error)
	Exists(ctx context.Context, ref evidence.Ref) (bool, error)
	OpenPack(ctx context.Context, ref evidence.Ref, receipt custody.Receipt) (*evidence.Packed, error)
	OpenTail(ctx context.Context, ref evidence.Ref, receipt custody.Receipt) (*evidence.Object, error)
	Tails(ctx context.Context, tenant teams.TenantID, unit string) ([]evidence.TailInfo, error)
}

// eventStore keeps the events that policies wait for.
type eventStore interface {
	RecordEvent(ctx context.Context, conversation, event string, at time.Time) error
}

// Stores is what the portal works with.
type Stores struct {
	Catalog  conversation.Catalog
	Calls    conversation.Calls
	Attached conversation.Attachments
	Roster   policy.Roster
	Matters  policy.Matters
	Requests policy.Approvals
	Exports  policy.Exports
	// Lookbacks are the jobs that read history, Failures what could not be read.
	Lookbacks policy.Lookbacks
	Failures  conversation.Failures
	Packages  packageStore
	Queue     exportQueue // has exports built
	Events    eventStore
	// Statements and Records are what coverage is read from.
	Statements coverage.Statements
	Records    coverage.CallRecords
	Evidence   evidenceStore
	Trail      custody.Log
}

// Portal is the HTTP handler. It is safe for many requests at once.
type Portal struct {
	config Config
	stores Stores
	tokens *tokenVerifier
	limits *limits
	names  names
	pages  *pages
	log    *slog.Logger

	sources sources
	playMu  sync.Mutex
	playing map[string]playing // by person, session and leg
}

// New returns the handler for everything under Config.Base.
func New(c Config, s Stores, log *slog.Logger) (http.Handler, error) {
	var faults []error
	for name, v := range map[string]string{"base": c.Base, "audience": c.Audience, "client": c.Client, "scope": c.Scope, "issuer": c.Issuer, "keys URL": c.KeysURL, "authority": c.Authority} {
		if v == "" {
			faults = append(faults, errors.New("portal: "+name+" is required"))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	tokens, err := newTokenVerifier(c)
	if err != nil {
		return nil, err
	}
	p := &Portal{config: c, stores: s, tokens: tokens, limits: newLimits(), log: log, playing: map[string]playing{}}
	if p.pages, err = newPages(c); err != nil {
		return nil, err
	}
	return p.routes(), nil
}

// route is one line of the API: every route names who may ask at all, and a test
// holds the table against the OpenAPI document.
type route struct {
	pattern string // below Base + "/v1/"
	content bool   // whether it counts as opening content
	handle  func(p *Portal, w http.ResponseWriter, r *http.Request, c caller) error
}

// apiChanges are the routes of the API that change something, all of them POST: they take
// a JSON object under a bearer token, from the pages' own origin if from a browser.
var apiChanges = []route{
	{"matters", false, (*Portal).placeHold},
	{"matters/{matter}/release", false, (*Portal).requestRelease},
	{"approvals/{request}/approve", false, (*Portal).approve},
	{"approvals/{request}/reject", false, (*Portal).reject},
	{"exports", false, (*Portal).order},
	{"erasures", false, (*Portal).requestErasure},
	{"lookbacks", false, (*Portal).startLookback},
	{"lookbacks/{lookback}/cancel", false, (*Portal).cancelLookback},
	{"policies/preview", false, (*Portal).preview},
	{"conversations/{id}/events", false, (*Portal).recordEvent},
}

// apiRoutes are the routes of the API that change nothing, all of them GET.
var apiRoutes = []route{
	{"session", false, (*Portal).session},
	{"people", false, (*Portal).people},
	{"custody", false, (*Portal).trail},
	{"custody.csv", false, (*Portal).trailTable},
	{"coverage", false, (*Portal).coverageDays},
	{"coverage/{day}", false, (*Portal).coverageDay},
	{"coverage/{day}/{part}", false, (*Portal).coverageSigned},
	{"matters", false, (*Portal).matters},
	{"approvals", false, (*Portal).approvals},
	{"policies", false, (*Portal).policies},
	{"exports", false, (*Portal).exports},
	{"lookbacks", false, (*Portal).lookbacks},
	{"exports/{export}/package", false, bounded((*Portal).exportPackage)},
	{"conversations", false, (*Portal).list},
	{"threads/{thread}/conversations", false, (*Portal).thread},
	{"conversations/{id}", false, (*Portal).conversation},
	{"conversations/{id}/occurrence", false, (*Portal).occurrence},
	{"conversations/{id}/messages", true, (*Portal).messages},
	{"conversations/{id}/messages/{message}/versions/{etag}/original", true, (*Portal).original},
	{"conversations/{id}/attachments/{attachment}/file", false, bounded((*Portal).attachment)},
	{"conversations/{id}/legs/{leg}", true, (*Portal).player},
	{"conversations/{id}/legs/{leg}/peaks", true, (*Portal).peaks},
	// What a player asks for every few seconds is bounded by how much is under way, not by
	// the minute.
	{"conversations/{id}/legs/{leg}/{file}", false, (*Portal).playlist},
	{"conversations/{id}/legs/{leg}/{kind}/{file}", false, (*Portal).playlist},
	{"conversations/{id}/legs/{leg}/{kind}/{lane}/{file}", false, bounded((*Portal).segment)},
	{"conversations/{id}/legs/{leg}/bundles/{name}", false, bounded((*Portal).bundle)},
}

func (p *Portal) routes() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range apiRoutes {
		mux.HandleFunc("GET "+p.config.Base+"/v1/"+rt.pattern, func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, rt) })
	}
	for _, rt := range apiChanges {
		mux.HandleFunc("POST "+p.config.Base+"/v1/"+rt.pattern, func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, rt) })
	}
	mux.HandleFunc("POST "+p.config.Base+"/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) })
	mux.HandleFunc("GET "+p.config.Base+"/v1/", func(w http.ResponseWriter, r *http.Request) { p.fail(w, r, errNotFound) })
	mux.HandleFunc("GET "+p.config.Base+"/v1/openapi.json", p.openapi)
	mux.HandleFunc("GET "+p.config.Base+"/config.json", p.publicConfig)
	mux.Handle("GET "+p.config.Base+"/", p.pages)
	return guard(mux)
}

// caller is who asks, and what she may see.
type caller struct {
	identity
	grant policy.Grant
}

func (p *Portal) serve(w http.ResponseWriter, r *http.Request, rt route) {
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	who, err := p.tokens.verify(r.Context(), r.Header)
	if err != nil {
		p.log.WarnContext(r.Context(), "sign-in refused", slog.String("cause", err.Error()))
		p.fail(w, r, errUnauthorized)
		return
	}
	if !p.limits.allow(who.person, rt.content, p.config.Now()) {
		w.Header().Set("Retry-After", "5")
		p.fail(w, r, errTooMany)
		return
	}
	grant, err := policy.GrantFor(r.Context(), p.stores.Roster, who.person, p.config.Now())
	if err != nil {
		p.fail(w, r, err)
		return
	}
	if err := rt.handle(p, w, r, caller{identity: who, grant: grant}); err != nil {
		p.fail(w, r, err)
	}
}

// problem is an error that a caller is told about, as RFC 9457 has it.
type problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail,omitempty"`
}

func (p *problem) Error() string { return p.Title }

var (
	errUnauthorized = &problem{Status: http.StatusUnauthorized, Title: "Sign in"}
	errNotFound     = &problem{Status: http.StatusNotFound, Title: "Not found", Detail: "There is no such item, or it is not yours to see."}
	errTooMany      = &problem{Status: http.StatusTooManyRequests, Title: "Too many requests"}
	errUnavailable  = &problem{Status: http.StatusServiceUnavailable, Title: "Unavailable", Detail: "Try again in a moment."}
)

func badRequest(detail string) *problem {
	return &problem{Status: http.StatusBadRequest, Title: "Bad request", Detail: detail}
}

// fail answers with a problem. What is no problem of the caller's is logged here, once,
// and answered without its text.
func (p *Portal) fail(w http.ResponseWriter, r *http.Request, err error) {
	var pr *problem
	if !errors.As(err, &pr) {
		pr = errUnavailable
		if r.Context().Err() == nil {
			p.log.ErrorContext(r.Context(), "request failed", slog.String("error", err.Error()))
		}
	}
	if pr.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store, private")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	body, mErr := json.Marshal(pr)
	if mErr != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(pr.Status)
	_, _ = w.Write(body) // the caller is gone if this fails
}

func (p *Portal) reply(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store, private")
	w.Header().Set("Vary", "Authorization")
	_, _ = w.Write(body) // the caller is gone if this fails
	return nil
}

// guard sets the headers that every response carries, and refuses what a browser
// would send from another site. There are no cookies and no CORS, and nothing is changed
// but by a POST of JSON.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=()")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cache-Control", "no-store, private")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			site := r.Header.Get("Sec-Fetch-Site")
			if r.Method == http.MethodOptions || (site != "" && site != "same-origin") ||
				r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Origin") != "" && site == "" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			if r.Method != http.MethodPost {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
