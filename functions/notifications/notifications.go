// Package notifications is the webhook of Graph's change notifications. It answers the
// handshake, decides whether a delivery is Graph's and ours, and puts its items, encrypted as
// they came, on a queue before it answers 202: Graph waits three seconds, and drops what is
// sent to an endpoint that is often slower, without telling.
// https://learn.microsoft.com/graph/change-notifications-delivery-webhooks
//
// It holds no private key and reads no message. Whoever may keep what is decided by the
// function that drains the queue.
//
// There is no limit of requests a second: one for everybody would let a flood of forged posts
// displace Graph's. What bounds a flood is that a post is refused by its tokens before any of
// its items is read, and what package funchost allows at the same time.
package notifications

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"steno/shared/bearer"
	"steno/shared/evidence"
	"steno/shared/notification"
	"steno/shared/teams"
)

// Limits of the webhook.
const (
	// MaxHandshake bounds a validationToken, in bytes.
	MaxHandshake = 4 << 10
	// Timeout bounds the handling of one delivery. Graph waits three seconds: a refusal within
	// them is sent again later, while silence counts against the endpoint.
	Timeout = 2500 * time.Millisecond
)

type queue interface {
	Send(ctx context.Context, id string, body []byte, notBefore time.Time) error
}

// claims keeps what is too large for a message of the queue.
type claims interface {
	Create(ctx context.Context, name string, body []byte) error
}

// Config is the webhook's own.
type Config struct {
	Tenant teams.TenantID
	// Base is the path below which the webhook stands, without a trailing slash: deliveries
	// come to Base, lifecycle events to Base + "/lifecycle".
	Base string
	// Audience is the id of the application that subscribes.
	Audience string
	// KeysURL is where Entra publishes the keys that validation tokens are signed with.
	KeysURL string
	// HTTP fetches them; nil for the default client.
	HTTP *http.Client
	// MaxMessage bounds a message of the queue, in bytes.
	MaxMessage int
}

// Webhook is the function. It is safe for many requests at once.
type Webhook struct {
	config Config
	tokens *tokens
	known  *known
	queue  queue
	claims claims
	log    *slog.Logger
}

// New returns the function, and nothing is asked of anybody yet. Without an audience there
// is no lane: everything is refused.
func New(c Config, r notification.Register, q queue, cl claims, log *slog.Logger) (*Webhook, error) {
	keys := bearer.NewKeys(bearer.KeysConfig{URL: c.KeysURL, HTTP: c.HTTP, Issuer: publishes(c.Tenant)})
	t, err := newTokens(c.Tenant, c.Audience, keys)
	if err != nil {
		return nil, fmt.Errorf("notifications: %w", err)
	}
	return &Webhook{config: c, tokens: t, known: &known{register: r}, queue: q, claims: cl, log: log}, nil
}

// ServeHTTP implements http.Handler. Every refusal has one status and one text; the log says
// which rule it was.
func (h *Webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Type", "text/plain; charset=utf-8")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	head.Set("Cache-Control", "no-store")
	lifecycle := strings.TrimSuffix(r.URL.Path, "/") == h.config.Base+"/lifecycle"
	if r.Method != http.MethodPost || h.config.Audience == "" || !lifecycle && strings.TrimSuffix(r.URL.Path, "/") != h.config.Base {
		refuse(w)
		return
	}
	if strings.Contains(r.URL.RawQuery, "validationToken") {
		handshake(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), Timeout)
	defer cancel()
	take := h.deliver
	if lifecycle {
		take = h.lifecycle
	}
	switch err := take(ctx, r); {
	case errors.As(err, new(refusal)):
		h.log.WarnContext(ctx, "delivery of notifications refused", slog.String("cause", err.Error()))
		refuse(w)
	case err != nil:
		h.log.ErrorContext(ctx, "delivery of notifications not taken; Graph sends it again", slog.String("error", err.Error()))
		answer(w, http.StatusServiceUnavailable, "try again\n")
	default:
		answer(w, http.StatusAccepted, "")
	}
}

// refusal is a delivery that is not Graph's or not ours. Its text names the rule.
type refusal string

func (r refusal) Error() string { return string(r) }

func refuse(w http.ResponseWriter) { answer(w, http.StatusUnauthorized, "refused\n") }

func answer(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	// A write fails when the connection is gone, and then nobody is left to be told.
	_, _ = w.Write([]byte(text))
}

// handshake echoes the token by which Graph, or anybody, asks whether a subscription is
// wanted here. Nothing is known of the asker, so nothing comes of it.
func handshake(w http.ResponseWriter, r *http.Request) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	token := values["validationToken"]
	if err != nil || len(values) != 1 || len(token) != 1 || token[0] == "" || len(token[0]) > MaxHandshake || !printable(token[0]) {
		refuse(w)
		return
	}
	answer(w, http.StatusOK, token[0])
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// deliver takes a delivery of changes. When it returns nil all its items are on the queue.
func (h *Webhook) deliver(ctx context.Context, r *http.Request) error {
	d, err := readBody(r)
	if err != nil {
		return err
	}
	if err := h.tokens.verify(ctx, d.Tokens); err != nil {
		return err
	}
	notices, err := d.Notices()
	if err != nil {
		return refusal("an item is not a notification")
	}
	items := make([]notification.Item, 0, len(notices))
	for _, n := range notices {
		if err := h.ours(ctx, n); err != nil {
			return err
		}
		if n.Lifecycle != "" || n.Content == nil {
			return refusal("an item without content")
		}
		id, err := n.Certificate()
		if err != nil {
			return refusal("unreadable encryptedContent")
		}
		switch ok, err := h.known.certificate(ctx, id); {
		case err != nil:
			return err
		case !ok:
			return refusal("unknown certificate")
		}
		items = append(items, n.Item)
	}
	return h.enqueue(ctx, items)
}

// ours holds an item against what we subscribed to.
func (h *Webhook) ours(ctx context.Context, n notification.Notice) error {
	if n.Tenant != h.config.Tenant {
		return refusal("an item of another tenant")
	}
	s, ok, err := h.known.subscription(ctx, n.Subscription)
	switch {
	case err != nil:
		return err
	case !ok:
		return refusal("unknown subscription")
	case !s.KnowsState(n.State):
		return refusal("wrong clientState")
	}
	return nil
}

// lifecycle takes lifecycle events. They carry no token and no data, so all that comes of one
// is that function subscriptions looks after the subscription at its next run, and asks Graph
// itself. What may have been missed the export brings.
// https://learn.microsoft.com/graph/change-notifications-lifecycle-events
func (h *Webhook) lifecycle(ctx context.Context, r *http.Request) error {
	d, err := readBody(r)
	if err != nil {
		return err
	}
	notices, err := d.Notices()
	if err != nil {
		return refusal("an item is not a notification")
	}
	for _, n := range notices {
		if err := h.ours(ctx, n); err != nil {
			return err
		}
	}
	for _, n := range notices {
		event := n.Lifecycle
		switch event {
		case "reauthorizationRequired", "subscriptionRemoved", "missed":
		default:
			event = "unknown"
		}
		h.log.InfoContext(ctx, "lifecycle event", slog.String("event", event), slog.String("subscription", n.Subscription))
		if err := h.known.ask(ctx, n.Subscription); err != nil {
			return err
		}
	}
	return nil
}

func readBody(r *http.Request) (notification.Delivery, error) {
	body, err := readAll(r.Body, notification.MaxDelivery)
	if err != nil {
		return notification.Delivery{}, refusal("the body cannot be read")
	}
	d, err := notification.ReadDelivery(body)
	if err != nil {
		return d, refusal("the body is not a delivery")
	}
	return d, nil
}

// enqueue puts items on the queue, as few messages as they fit. Repeated after an error it
// leaves some twice, which adds nothing to the archive.
func (h *Webhook) enqueue(ctx context.Context, items []notification.Item) error {
	for _, p := range notification.Pack(time.Now().UTC(), items, h.config.MaxMessage) {
		body, err := notification.EncodeParcel(p)
		if err != nil {
			return err
		}
		id := evidence.NewObjectID()
		if len(body) > h.config.MaxMessage {
			if err := h.claims.Create(ctx, notification.ClaimName(id), body); err != nil {
				return fmt.Errorf("keep a large notification: %w", err)
			}
			if body, err = notification.EncodeParcel(notification.Parcel{Received: p.Received, Claim: id}); err != nil {
				return err
			}
		}
		if err := h.queue.Send(ctx, "n-"+id, body, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// known is what the register says, remembered for a while: a delivery costs no query.
type known struct {
	register notification.Register

	mu            sync.Mutex
	subscriptions map[string]notification.Subscription
	certificates  map[string]bool
	read, tried   time.Time
	asked         map[string]time.Time
}

// How long the register is remembered, and how soon it may be read again for an id that it
// did not have: Graph notifies of a subscription the moment it made it. A reading costs two
// queries, so that a flood of unknown ids costs one a second.
const (
	remembered = 5 * time.Minute
	rereading  = time.Second
	// readTimeout bounds a reading, for which every delivery waits meanwhile.
	readTimeout = time.Second
	// askPause is how often one subscription is marked at most; see notification.RenewPause.
	askPause = time.Minute
)

func (k *known) subscription(ctx context.Context, id string) (notification.Subscription, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, ok := k.subscriptions[id]
	if err := k.refresh(ctx, ok); err != nil {
		return s, false, err
	}
	s, ok = k.subscriptions[id]
	return s, ok, nil
}

func (k *known) certificate(ctx context.Context, id string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.refresh(ctx, k.certificates[id]); err != nil {
		return false, err
	}
	return k.certificates[id], nil
}

// refresh reads the register where what is remembered is old, or does not have what was
// asked for. The caller holds mu.
func (k *known) refresh(ctx context.Context, has bool) error {
	now := time.Now()
	if has && now.Sub(k.read) < remembered || now.Sub(k.tried) < rereading {
		return nil
	}
	k.tried = now
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	list, err := k.register.Subscriptions(ctx)
	if err != nil && has {
		return nil // what is remembered will do: function notified reads the register again
	}
	if err != nil {
		return fmt.Errorf("read subscriptions: %w", err)
	}
	certs, err := k.register.Certificates(ctx)
	if err != nil {
		return fmt.Errorf("read certificates: %w", err)
	}
	k.subscriptions, k.certificates = map[string]notification.Subscription{}, map[string]bool{}
	for _, s := range list {
		k.subscriptions[s.ID] = s
	}
	for _, c := range certs {
		k.certificates[c.ID] = true
	}
	k.read = now
	return nil
}

// ask records a lifecycle event, at most once a minute for a subscription.
func (k *known) ask(ctx context.Context, id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if now.Sub(k.asked[id]) < askPause {
		return nil
	}
	if err := k.register.Ask(ctx, id, now.UTC()); err != nil {
		return fmt.Errorf("record lifecycle event: %w", err)
	}
	if k.asked == nil || len(k.asked) > 20_000 {
		k.asked = map[string]time.Time{}
	}
	k.asked[id] = now
	return nil
}
