package sim

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The limits of a subscription to messages, https://learn.microsoft.com/graph/api/resources/subscription.
const (
	shortestLife = 45 * time.Minute
	longestLife  = 4320 * time.Minute
	lifecycleFor = time.Hour // a longer life needs an address for lifecycle events
	maxState     = 128
)

// subscriptionBody is what an application sends and gets.
type subscriptionBody struct {
	ID            string    `json:"id,omitempty"`
	App           string    `json:"applicationId,omitempty"`
	Change        string    `json:"changeType,omitempty"`
	Resource      string    `json:"resource,omitempty"`
	URL           string    `json:"notificationUrl,omitempty"`
	Lifecycle     string    `json:"lifecycleNotificationUrl,omitempty"`
	State         *string   `json:"clientState"`
	WithData      bool      `json:"includeResourceData"`
	Certificate   string    `json:"encryptionCertificate,omitempty"`
	CertificateID string    `json:"encryptionCertificateId,omitempty"`
	Expires       time.Time `json:"expirationDateTime"`
	ODataType     string    `json:"@odata.type,omitempty"`
}

// shown is a subscription as Graph shows it: without its clientState, which it shows nobody.
func (s *subscription) shown() subscriptionBody {
	return subscriptionBody{
		ID: s.id, App: s.app, Change: s.change, Resource: s.resource, URL: s.url, Lifecycle: s.life, WithData: true,
		Certificate: s.certificate, CertificateID: s.certificateID, Expires: s.expires,
	}
}

func (q *request) app() string {
	for _, name := range []string{"appid", "azp"} {
		if id, ok := q.claims[name].(string); ok {
			return id
		}
	}
	return ""
}

func (q *request) subscriptionBody(t *Tenant) (b subscriptionBody, ok bool) {
	text, err := io.ReadAll(io.LimitReader(q.r.Body, 64<<10))
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	if err != nil {
		q.fail(t, http.StatusBadRequest, "BadRequest", "The body could not be read.")
	}
	return b, err == nil
}

func (t *Tenant) serveSubscriptions(q *request) {
	switch q.r.Method {
	case http.MethodGet:
		t.notices.mu.Lock()
		list := []subscriptionBody{}
		for _, s := range t.notices.subs {
			if s.app == q.app() && s.expires.After(t.now()) {
				list = append(list, s.shown())
			}
		}
		t.notices.mu.Unlock()
		q.json(http.StatusOK, map[string]any{"@odata.context": odataContext + "subscriptions", "value": list})
	case http.MethodPost:
		b, ok := q.subscriptionBody(t)
		if !ok {
			return
		}
		t.subscribe(q, b)
	default:
		q.fail(t, http.StatusMethodNotAllowed, "Request_BadRequest", "Specified HTTP method is not allowed for the request target.")
	}
}

// fault is why a subscription is refused.
type fault struct {
	status        int
	code, message string
}

func (f *fault) Error() string { return f.message }

func bad(format string, args ...any) error {
	return &fault{http.StatusBadRequest, "InvalidRequest", fmt.Sprintf(format, args...)}
}

func (t *Tenant) refuseSubscription(q *request, err error) {
	var f *fault
	if !errors.As(err, &f) {
		f = &fault{http.StatusBadRequest, "ValidationError", err.Error()}
	}
	q.fail(t, f.status, f.code, f.message)
}

func (t *Tenant) subscribe(q *request, b subscriptionBody) {
	s, err := t.readSubscription(q, b)
	if err != nil {
		t.refuseSubscription(q, err)
		return
	}
	if err := t.free(s); err != nil {
		t.refuseSubscription(q, err)
		return
	}
	for _, address := range []string{s.url, s.life} {
		if address == "" {
			continue
		}
		if err := t.notices.handshake(q.r.Context(), address); err != nil {
			t.refuseSubscription(q, err)
			return
		}
	}
	t.notices.mu.Lock()
	s.id = drawGUID(t.notices.rand)
	t.notices.mu.Unlock()
	if err := t.free(s); err != nil { // somebody was quicker
		t.refuseSubscription(q, err)
		return
	}
	t.notices.mu.Lock()
	t.notices.subs = append(t.notices.subs, s)
	t.notices.mu.Unlock()
	b = s.shown()
	b.State = &s.state
	q.json(http.StatusCreated, b)
}

// free refuses a second subscription of an application to the same changes of the same resource.
func (t *Tenant) free(s *subscription) error {
	t.notices.mu.Lock()
	defer t.notices.mu.Unlock()
	now := t.now()
	if slices.ContainsFunc(t.notices.subs, func(o *subscription) bool {
		return o.app == s.app && strings.EqualFold(o.resource, s.resource) && o.change == s.change && o.expires.After(now)
	}) {
		return &fault{http.StatusConflict, "Conflict", "Subscription with same resource and changeType already exists."}
	}
	return nil
}

func (t *Tenant) readSubscription(q *request, b subscriptionBody) (*subscription, error) {
	s := &subscription{app: q.app(), change: b.Change, resource: b.Resource, url: b.URL, life: b.Lifecycle}
	if b.State != nil {
		s.state = *b.State
	}
	switch {
	case !b.WithData:
		return nil, bad("this tenant notifies with resource data alone")
	case len(s.state) > maxState:
		return nil, bad("clientState is longer than %d characters", maxState)
	}
	for c := range strings.SplitSeq(b.Change, ",") {
		if c != "created" && c != "updated" && c != "deleted" {
			return nil, bad("changeType %q is not supported", c)
		}
	}
	if err := t.readResource(q, s); err != nil {
		return nil, err
	}
	for _, address := range []string{b.URL, b.Lifecycle} {
		if u, err := url.Parse(address); address != "" && (err != nil || u.Scheme != "https" || u.Host == "") || address == "" && b.URL == "" {
			return nil, bad("notification addresses must be https")
		}
	}
	if err := s.encryptTo(b); err != nil {
		return nil, err
	}
	return s, s.live(t.now(), b.Expires)
}

// readResource says what a subscription hears. Nobody may listen with the right to another resource.
func (t *Tenant) readResource(q *request, s *subscription) error {
	words := strings.Split(strings.ToLower(strings.Trim(s.resource, "/")), "/")
	right := readChats
	switch {
	case slices.Equal(words, []string{"chats", "getallmessages"}):
	case slices.Equal(words, []string{"teams", "getallmessages"}):
		s.channels, right = true, readChannels
	case len(words) == 4 && words[0] == "users" && words[2] == "chats" && words[3] == "getallmessages":
		t.mu.Lock()
		p := t.dir.lookup(words[1])
		t.mu.Unlock()
		if p == nil {
			return &fault{http.StatusNotFound, "ResourceNotFound", "The user was not found."}
		}
		s.user = p.ID
	default:
		return bad("resource %q is not supported", s.resource)
	}
	if !q.has(right...) {
		return &fault{http.StatusForbidden, "Forbidden", "Missing role permissions on the request."}
	}
	return nil
}

// encryptTo reads the certificate.
func (s *subscription) encryptTo(b subscriptionBody) error {
	der, err := base64.StdEncoding.DecodeString(b.Certificate)
	if err != nil || b.CertificateID == "" || len(b.CertificateID) > maxState {
		return bad("encryptionCertificate and encryptionCertificateId are required")
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return bad("encryptionCertificate is no certificate")
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok || key.N.BitLen() < 2048 || key.N.BitLen() > 4096 {
		return bad("encryptionCertificate must have an RSA key of 2048 to 4096 bits")
	}
	s.key, s.certificate, s.certificateID = key, b.Certificate, b.CertificateID
	return nil
}

// live sets when a subscription expires.
func (s *subscription) live(now, expires time.Time) error {
	switch life := expires.Sub(now); {
	case life <= 0:
		return bad("expirationDateTime has passed")
	case life > longestLife:
		return bad("expirationDateTime is more than %d minutes from now", int(longestLife.Minutes()))
	case life > lifecycleFor && s.life == "":
		return bad("lifecycleNotificationUrl is required for a subscription of more than an hour")
	default:
		s.expires = now.Add(max(life, shortestLife))
	}
	return nil
}

// handshake asks an address whether it wants notifications.
func (n *notices) handshake(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, laterPatience)
	defer cancel()
	n.mu.Lock()
	token := "Validation: Testing client application reachability for subscription Request-Id: " + drawGUID(n.rand)
	n.mu.Unlock()
	status, res, err := n.post(ctx, address+"?validationToken="+url.QueryEscape(token), "text/plain; charset=utf-8", nil)
	if err != nil {
		return errors.New("Subscription validation request timed out.")
	}
	text, err := io.ReadAll(res.Body)
	if err != nil || status != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") || string(text) != token {
		return fmt.Errorf("Subscription validation request failed. Notification endpoint must respond with 200 OK to validation request: it was %d.", status)
	}
	return nil
}

func (t *Tenant) serveSubscription(q *request) {
	t.notices.mu.Lock()
	s := t.notices.find(q.params[0])
	if s != nil && (s.app != q.app() || !s.expires.After(t.now())) {
		s = nil
	}
	var shown subscriptionBody
	if s != nil {
		shown = s.shown()
	}
	t.notices.mu.Unlock()
	if s == nil {
		q.fail(t, http.StatusNotFound, "ResourceNotFound", "The object was not found.")
		return
	}
	switch q.r.Method {
	case http.MethodGet:
		q.json(http.StatusOK, shown)
	case http.MethodDelete:
		t.notices.mu.Lock()
		t.notices.subs = slices.DeleteFunc(t.notices.subs, func(o *subscription) bool { return o == s })
		t.notices.mu.Unlock()
		q.w.WriteHeader(http.StatusNoContent)
	case http.MethodPatch:
		t.renew(q, s)
	default:
		q.fail(t, http.StatusMethodNotAllowed, "Request_BadRequest", "Specified HTTP method is not allowed for the request target.")
	}
}

func (t *Tenant) renew(q *request, s *subscription) {
	b, ok := q.subscriptionBody(t)
	if !ok {
		return
	}
	t.notices.mu.Lock()
	next := *s
	var err error
	if b.Certificate != "" || b.CertificateID != "" {
		err = next.encryptTo(b)
	}
	if err = errors.Join(err, next.live(t.now(), b.Expires)); err == nil {
		*s = next
	}
	t.notices.mu.Unlock()
	if err != nil {
		t.refuseSubscription(q, err)
		return
	}
	q.json(http.StatusOK, next.shown())
}
