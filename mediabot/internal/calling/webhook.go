package calling

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"steno/shared/bearer"
	"steno/shared/teams"
)

// Limits of the webhook.
const (
	QueuePerCall = 64   // notifications that wait for one call
	QueueTotal   = 1000 // and for all of them
	// InvitesPerSecond and InvitesBurst bound the invites that are taken. They bound
	// nothing else: Graph promises no second delivery, so what belongs to a call in
	// progress is bounded by the queues alone.
	InvitesPerSecond = 50
	InvitesBurst     = 200
	// Leeway is the difference of clocks that tokens are forgiven.
	Leeway = 300 * time.Second
	// remembered is how long an ended call keeps its invite from being taken again:
	// longer than a token lives.
	remembered    = 90 * time.Minute
	maxRemembered = 50_000
)

// Issuers are who signs the tokens of Teams' calling service.
var Issuers = []string{"https://api.botframework.com", "https://graph.microsoft.com"}

// MetadataURL is the OpenID configuration of Teams' calling service.
const MetadataURL = "https://api.aps.skype.com/v1/.well-known/OpenIdConfiguration"

// Graph is what the webhook asks about calls; *msgraph.Calls is one.
type Graph interface {
	GetCall(ctx context.Context, call teams.CallID) ([]byte, error)
	Participants(ctx context.Context, call teams.CallID) ([]byte, error)
	KeepAlive(ctx context.Context, call teams.CallID) error
	Reject(ctx context.Context, call teams.CallID, reason string) error
}

// Config is what a Webhook needs.
type Config struct {
	Tenant teams.TenantID // whose calls are recorded; every other tenant is refused
	App    string         // application id of the bot: the audience of tokens
	Base   string         // path under which the webhook answers, such as /steno
	Public string         // https origin at which Graph reaches this instance, and no other
	Keys   *bearer.Keys   // of Teams' calling service
	Graph  Graph
	// Take starts a leg. It returns at once, with what the leg's updates go to; that is
	// called one at a time and returns quickly. callback is the address for Answer.
	Take func(inv teams.Invite, callback string) (update func(teams.CallUpdate), err error)
	// Ready returns nil while invites are taken. Otherwise they are answered 503 with
	// Retry-After: the load balancer, or the paired recorder, then takes them, whereas a
	// rejection would tell Teams that the user cannot be recorded at all.
	Ready func() error
	Log   *slog.Logger

	KeepAliveEvery  time.Duration // KeepAliveEvery if 0
	EstablishWithin time.Duration // EstablishWithin if 0
}

// Webhook takes what Graph posts about calls, under Base: incoming, the address that is
// registered with the bot, and calls/{key}/{secret}, the address of one call. Its limit
// on the size of a post is MaxPost; the server around it sets the times.
type Webhook struct {
	c        Config
	tokens   *bearer.Verifier
	invites  *rate.Limiter
	refusals *rate.Limiter // of log lines: a flood of forged posts must not fill the log
	silent   atomic.Int64  // refusals without a line of their own
	queued   atomic.Int64
	running  sync.WaitGroup
	ctx      context.Context // ends with Run
	stop     context.CancelFunc

	mu    sync.Mutex
	byID  map[string]*call // by call id in lower case
	byKey map[string]*call
	ended []endedCall // calls that are over, the oldest first
	over  map[string]bool
}

type endedCall struct {
	id string
	at time.Time
}

// New returns a webhook, and reports every fault of its configuration at once. It starts
// nothing; calls are worked on until Run returns.
func New(c Config) (*Webhook, error) {
	var faults []error
	if c.Keys == nil || c.Graph == nil || c.Take == nil || c.Ready == nil || c.Log == nil {
		faults = append(faults, errors.New("calling: keys, graph, take, ready and log are required"))
	}
	if t, err := teams.ParseTenantID(string(c.Tenant)); err != nil || t != c.Tenant {
		faults = append(faults, errors.New("calling: tenant is not a lower-case GUID"))
	}
	if app, err := teams.ParseTenantID(c.App); err != nil || string(app) != c.App {
		faults = append(faults, errors.New("calling: application id is not a lower-case GUID"))
	}
	if u, err := url.Parse(c.Public); err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
		faults = append(faults, errors.New("calling: public address: want https://HOST"))
	}
	if !strings.HasPrefix(c.Base, "/") || len(c.Base) < 2 || strings.HasSuffix(c.Base, "/") {
		faults = append(faults, errors.New("calling: base: want a path such as /steno"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if c.KeepAliveEvery == 0 {
		c.KeepAliveEvery = KeepAliveEvery
	}
	if c.EstablishWithin == 0 {
		c.EstablishWithin = EstablishWithin
	}
	tokens, err := bearer.NewVerifier(bearer.Rules{Keys: c.Keys, Issuers: Issuers, Leeway: Leeway})
	if err != nil {
		return nil, err
	}
	h := &Webhook{c: c, tokens: tokens, invites: rate.NewLimiter(InvitesPerSecond, InvitesBurst), refusals: rate.NewLimiter(1, 10),
		byID: map[string]*call{}, byKey: map[string]*call{}, over: map[string]bool{}}
	h.ctx, h.stop = context.WithCancel(context.Background())
	return h, nil
}

// Run lets calls be worked on until ctx ends, and returns when none is any more. Legs
// learn nothing from that; whoever stops the bot ends them first.
func (h *Webhook) Run(ctx context.Context) error {
	<-ctx.Done()
	h.stop()
	h.running.Wait()
	return nil
}

// Incoming is the path of the address that is registered with the bot.
func (h *Webhook) Incoming() string { return h.c.Base + "/incoming" }

func (h *Webhook) callback(c *call) string {
	return h.c.Public + h.c.Base + "/calls/" + c.key + "/" + c.secret
}

// Calls is how many calls are in progress.
func (h *Webhook) Calls() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.byID)
}

// Errors that decide what a post is answered with.
var (
	errUnauthorized = errors.New("unauthorized")
	errTooLarge     = errors.New("too large")
	errUnavailable  = errors.New("unavailable")
	errNoCall       = errors.New("no such call")
)

// ServeHTTP answers a post. Connections are closed after each: those that Teams keeps
// open would stick to one instance behind the load balancer.
func (h *Webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	reply, err := h.serve(w, r)
	status := http.StatusAccepted
	switch {
	case err == nil && reply != nil:
		w.Header().Set("Content-Type", "application/json")
		status = http.StatusOK
	case err == nil:
	case errors.Is(err, errUnauthorized):
		w.Header().Set("WWW-Authenticate", "Bearer")
		status = http.StatusUnauthorized
	case errors.Is(err, errTooLarge):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, errUnavailable):
		w.Header().Set("Retry-After", "1")
		status = http.StatusServiceUnavailable
	case errors.Is(err, errNoCall):
		status = http.StatusNotFound
	default:
		status = http.StatusBadRequest
	}
	w.WriteHeader(status)
	if reply != nil {
		_, _ = w.Write(reply) // the caller has gone, and learns nothing
	}
}

func (h *Webhook) serve(w http.ResponseWriter, r *http.Request) (reply []byte, err error) {
	var key, secret string
	if rest, ok := strings.CutPrefix(r.URL.Path, h.c.Base+"/calls/"); ok {
		if key, secret, ok = strings.Cut(rest, "/"); !ok {
			return nil, errNoCall
		}
	} else if r.URL.Path != h.Incoming() {
		return nil, errNoCall
	}
	if r.Method != http.MethodPost {
		return nil, errors.New("want POST")
	}
	if err := h.authenticate(r); err != nil {
		h.refused(r.Context(), err.Error())
		return nil, errUnauthorized
	}
	var from *call
	if key != "" {
		if from, err = h.find(key, secret); err != nil {
			h.refused(r.Context(), "callback address")
			return nil, err
		}
	}
	body, err := readPost(w, r)
	if err != nil {
		return nil, err
	}
	items, err := decodePost(body)
	if err != nil {
		h.c.Log.WarnContext(r.Context(), "notification unreadable", slog.String("cause", err.Error()), slog.Int("readable", len(items)))
	}
	if len(items) == 0 {
		return nil, err
	}
	return h.dispatch(r, from, items)
}

// refused logs a refusal, and how many had no line since the last.
func (h *Webhook) refused(ctx context.Context, cause string) {
	if !h.refusals.Allow() {
		h.silent.Add(1)
		return
	}
	h.c.Log.WarnContext(ctx, "notification refused", slog.String("cause", cause), slog.Int64("more", h.silent.Swap(0)))
}

// tokenClaims are the claims that are read. Audience is a single string: a list would be
// a token for several applications.
type tokenClaims struct {
	Audience string `json:"aud"`
	Tenant   string `json:"tid"`
}

func (h *Webhook) authenticate(r *http.Request) error {
	var claims tokenClaims
	if err := h.tokens.Verify(r.Context(), r.Header, &claims); err != nil {
		return err
	}
	if claims.Audience != h.c.App {
		return errors.New("token for another application")
	}
	if tenant, err := teams.ParseTenantID(claims.Tenant); err != nil || tenant != h.c.Tenant {
		return errors.New("token of a tenant that is not recorded here")
	}
	return nil
}

// find returns the call of a callback address.
func (h *Webhook) find(key, secret string) (*call, error) {
	h.mu.Lock()
	c := h.byKey[key]
	h.mu.Unlock()
	if c == nil {
		return nil, errNoCall
	}
	if subtle.ConstantTimeCompare([]byte(c.secret), []byte(secret)) != 1 {
		return nil, errUnauthorized
	}
	return c, nil
}

func readPost(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > MaxPost {
		return nil, errTooLarge
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" || r.Header.Get("Content-Encoding") != "" {
		return nil, errors.New("want application/json without encoding")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxPost))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, errTooLarge
	}
	return body, err
}

// dispatch hands each notification to its call. The reply is nil but for a participant
// who joins: legs are not grouped, so Graph is asked to invite the recorder for her anew.
// https://learn.microsoft.com/graph/api/resources/participantjoiningnotification
func (h *Webhook) dispatch(r *http.Request, from *call, items []notification) (reply []byte, err error) {
	at := time.Now().UTC()
	message := cleanHeader(r.Header.Get("X-Microsoft-Skype-Message-ID"))
	for i, n := range items {
		p := post{notification: n, at: at}
		if message != "" {
			p.message = message + "/" + strconv.Itoa(i)
		}
		w, werr := decodeCall(n.data)
		switch {
		case werr == nil && strings.HasSuffix(strings.ToLower(string(w.Type)), "participantjoiningnotification"):
			reply, err = json.Marshal(map[string]string{
				"@odata.type": "#microsoft.graph.inviteNewBotResponse", "inviteUri": h.c.Public + h.Incoming(),
			})
		case from != nil:
			if !strings.EqualFold(string(from.id), string(n.call)) {
				h.refused(r.Context(), "another call's address")
				continue
			}
			err = errors.Join(err, h.enqueue(from, p))
		case n.part == "" && n.change != "deleted" && w.state(n.change) == teams.CallIncoming:
			err = errors.Join(err, h.invited(r, n, w, at))
		default:
			h.unsigned(n.call)
		}
	}
	return reply, err
}

// enqueue puts a notification into its call's queue. Where that is full, Graph is asked
// for what was missed.
func (h *Webhook) enqueue(c *call, p post) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.finished {
		return nil
	}
	if h.queued.Load() < QueueTotal {
		select {
		case c.queue <- p:
			h.queued.Add(1)
			return nil
		default:
		}
	}
	c.behind.Store(true)
	c.rouse()
	return errUnavailable
}

// unsigned takes note of a notification that came without its call's secret.
func (h *Webhook) unsigned(id teams.CallID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.byID[strings.ToLower(string(id))]; c != nil {
		c.doubted.Store(true)
		c.rouse()
	}
}

// invited takes a recording invite, once a call id.
func (h *Webhook) invited(r *http.Request, n notification, w wireCall, at time.Time) error {
	id := strings.ToLower(string(n.call))
	if tenant, err := teams.ParseTenantID(string(w.Tenant)); w.Tenant != "" && (err != nil || tenant != h.c.Tenant) {
		h.c.Log.ErrorContext(r.Context(), "invite of another tenant refused", slog.String("alarm", "foreign-tenant"))
		return errUnauthorized
	}
	inv, err := w.invite(n, h.c.Tenant, at)
	if err != nil {
		return err
	}
	log := h.c.Log.With(slog.String("call", string(inv.Call)), slog.String("chain", string(inv.Chain)))
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byID[id] != nil || h.over[id] {
		return nil
	}
	if err := h.c.Ready(); err != nil {
		log.WarnContext(r.Context(), "invite left to others", slog.String("cause", err.Error()))
		return errUnavailable
	}
	if !h.invites.AllowN(at, 1) || h.ctx.Err() != nil {
		log.ErrorContext(r.Context(), "too many invites", slog.String("alarm", "invite-rate"))
		return errUnavailable
	}
	if !w.recording() {
		log.WarnContext(r.Context(), "call rejected: no recording policy invited the recorder")
		h.forget(id, at)
		h.running.Go(func() { h.reject(log, inv.Call) })
		return nil
	}
	log.InfoContext(r.Context(), "invited", slog.Any("recorded", inv.Recorded.Party),
		slog.String("scenario", cleanHeader(r.Header.Get("X-Microsoft-Skype-Chain-ID"))),
		slog.String("message", cleanHeader(r.Header.Get("X-Microsoft-Skype-Message-ID"))))
	c := newCall(h, inv)
	h.byID[id], h.byKey[c.key] = c, c
	h.running.Go(func() {
		c.run(h.ctx)
		h.finish(id, c)
	})
	return nil
}

func (h *Webhook) reject(log *slog.Logger, id teams.CallID) {
	if err := h.c.Graph.Reject(h.ctx, id, "forbidden"); err != nil && h.ctx.Err() == nil {
		log.WarnContext(h.ctx, "call not rejected", slog.String("cause", err.Error()))
	}
}

// finish takes a call that is over out of the books.
func (h *Webhook) finish(id string, c *call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.finished = true
	for {
		select {
		case <-c.queue:
			h.queued.Add(-1)
			continue
		default:
		}
		break
	}
	delete(h.byID, id)
	delete(h.byKey, c.key)
	h.forget(id, time.Now())
}

// forget remembers that a call is over, so that a repeated invite does not revive it.
// The caller holds mu.
func (h *Webhook) forget(id string, at time.Time) {
	h.ended, h.over[id] = append(h.ended, endedCall{id, at}), true
	old := 0
	for old < len(h.ended) && (at.Sub(h.ended[old].at) > remembered || len(h.ended)-old > maxRemembered) {
		delete(h.over, h.ended[old].id)
		old++
	}
	h.ended = append(h.ended[:0], h.ended[old:]...)
}

// cleanHeader keeps an id from a header, and nothing that is none.
func cleanHeader(s string) string {
	if _, err := teams.ParseChainID(s); err != nil {
		return ""
	}
	return s
}
