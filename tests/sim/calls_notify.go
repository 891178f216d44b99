package sim

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// notificationIssuer signs what Teams sends to a bot,
// https://learn.microsoft.com/microsoftteams/platform/bots/calls-and-meetings/call-notifications.
const notificationIssuer = "https://api.botframework.com"

// Where a recorder finds the keys of notifications, on the tenant's handler.
const (
	OpenIDConfigurationPath = "/v1/.well-known/OpenIdConfiguration"
	keysPath                = "/v1/.well-known/keys"
)

type publishedKey struct {
	id  string
	key *rsa.PublicKey
}

// signingKey returns the present key, which is made when it is first needed. mu is held.
func (c *Calls) signingKey() (*rsa.PrivateKey, string, error) {
	if c.key == nil {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, "", fmt.Errorf("make signing key: %w", err)
		}
		c.key = key
		c.keys = append(c.keys, publishedKey{drawHex(c.rand), &key.PublicKey})
	}
	return c.key, c.keys[len(c.keys)-1].id, nil
}

// RotateKey lets the next notification be signed with a new key, which is published. Old keys stay published if keep
// is set.
func (c *Calls) RotateKey(keep bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.key = nil
	if !keep {
		c.keys = nil
	}
}

// Token signs a notification's token for an app. change may alter its claims; nil leaves them.
func (c *Calls) Token(app string, change func(claims map[string]any)) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key, id, err := c.signingKey()
	if err != nil {
		return "", err
	}
	now := c.t.now()
	claims := jwt.MapClaims{
		"iss": notificationIssuer, "aud": app, "tid": c.t.cfg.Tenant,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(65 * time.Minute).Unix(),
	}
	if change != nil {
		change(claims)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["kid"] = id
	return token.SignedString(key)
}

// serveKeys serves the OpenID configuration and the key set; it reports whether the request was for them.
func (c *Calls) serveKeys(q *request) bool {
	switch q.r.URL.Path {
	case OpenIDConfigurationPath:
		q.json(http.StatusOK, map[string]any{
			"issuer": notificationIssuer, "jwks_uri": c.t.base(q) + keysPath,
			"id_token_signing_alg_values_supported": []string{"RS256"},
			"token_endpoint_auth_methods_supported": []string{"private_key_jwt"},
		})
	case keysPath:
		c.mu.Lock()
		_, _, err := c.signingKey()
		keys := []any{}
		for _, k := range c.keys {
			keys = append(keys, map[string]any{
				"kty": "RSA", "use": "sig", "kid": k.id, "x5t": k.id, "endorsements": []string{"msteams"},
				"n": base64.RawURLEncoding.EncodeToString(k.key.N.Bytes()),
				"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(k.key.E)).Bytes()),
			})
		}
		c.mu.Unlock()
		if err != nil {
			q.fail(c.t, http.StatusInternalServerError, "UnknownError", err.Error())
			return true
		}
		q.json(http.StatusOK, map[string]any{"keys": keys})
	default:
		return false
	}
	c.t.counts.add(q.r.URL.Path)
	return true
}

// post queues a notification. A leg whose webhook has not answered for thousands of them loses it, and says so.
func (l *leg) post(n notice) {
	select {
	case l.outbox <- n:
	default:
		l.mu.Lock()
		l.said = append(l.said, Delivery{Change: n.kind, ResourceURL: n.url, Err: errors.New("the webhook is too slow"), At: l.call.calls.t.now()})
		l.mu.Unlock()
	}
}

// deliver sends the leg's notifications one after the other until the last one.
func (l *leg) deliver() {
	for n := range l.outbox {
		d := Delivery{Change: n.kind, ResourceURL: n.url, At: l.call.calls.t.now()}
		l.mu.Lock()
		d.To = l.recorder.Webhook
		if n.kind != "created" && l.callback != "" {
			d.To = l.callback
		}
		l.mu.Unlock()
		d.Status, d.Err = l.notify(d.To, n)
		l.mu.Lock()
		l.said = append(l.said, d)
		l.mu.Unlock()
		if n.last {
			return
		}
	}
}

// How often a notification that nobody answered is sent again, and after how long. What
// Microsoft does is not documented; a connection that breaks once is not the end of a call there.
const (
	resends    = 2
	resendWait = 500 * time.Millisecond
)

// notify makes one request, and another where it had no answer. A redirect moves an invite to another instance and is followed once, with the same body.
func (l *leg) notify(to string, n notice) (int, error) {
	body, err := l.envelope(n)
	if err != nil {
		return 0, err
	}
	calls := l.call.calls
	calls.mu.Lock()
	message := drawGUID(calls.rand)
	calls.mu.Unlock()
	status, location, err := l.request(to, message, body)
	for i := 0; i < resends && err != nil && n.kind != "created"; i++ { // a late invite is worse than none
		time.Sleep(resendWait)
		status, location, err = l.request(to, message, body)
	}
	if err == nil && n.kind == "created" && (status == http.StatusFound || status == http.StatusTemporaryRedirect) {
		status, _, err = l.request(location, message, body)
	}
	return status, err
}

func (l *leg) envelope(n notice) ([]byte, error) {
	var value []any
	for one := &n; one != nil; one = one.more {
		v := map[string]any{
			"@odata.type": "#microsoft.graph.commsNotification", "changeType": one.kind,
			"resource": "/app" + strings.TrimPrefix(one.url, "/communications"), "resourceUrl": one.url,
		}
		if one.data != nil {
			v["resourceData"] = one.data
		}
		value = append(value, v)
	}
	body, err := json.Marshal(map[string]any{"@odata.type": "#microsoft.graph.commsNotifications", "value": value})
	if err != nil {
		return nil, fmt.Errorf("write notification: %w", err)
	}
	return body, nil
}

func (l *leg) request(to, message string, body []byte) (status int, location string, err error) {
	calls := l.call.calls
	token, err := calls.Token(l.recorder.App, nil)
	if err != nil {
		return 0, "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), webhookWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return 0, "", fmt.Errorf("notify: %w", err)
	}
	for name, value := range map[string]string{
		"Authorization": "Bearer " + token, "Content-Type": "application/json", "User-Agent": "Microsoft-Skype/3.0,(Calling/1.0)",
		"X-Microsoft-Skype-Chain-ID": l.call.chain, "X-Microsoft-Skype-Message-ID": message,
	} {
		req.Header.Set(name, value)
	}
	client := *l.recorder.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("notify: %w", err)
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return res.StatusCode, "", fmt.Errorf("notify: %w", err)
	}
	where := ""
	if u, err := url.Parse(res.Header.Get("Location")); err == nil {
		where = req.URL.ResolveReference(u).String()
	}
	return res.StatusCode, where, nil
}
