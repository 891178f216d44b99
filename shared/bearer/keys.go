package bearer

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Limits of an issuer's key set.
const (
	KeysFresh     = 24 * time.Hour   // a set is refreshed when older
	KeysUsable    = 72 * time.Hour   // and kept this long when refreshing fails
	KeysRefreshes = 30 * time.Second // at most one refresh in this time
	keysMaxBytes  = 1 << 20
	keysMaxCount  = 100
	keysTimeout   = 3 * time.Second
)

// ErrKey is why a token is refused whose key is not the issuer's, or not known.
var ErrKey = errors.New("signing key refused")

// KeysConfig says where an issuer publishes its keys.
type KeysConfig struct {
	// URL is the key set itself (RFC 7517), or with Metadata the OpenID configuration
	// whose jwks_uri leads to it.
	URL      string
	Metadata bool
	// Issuer judges the issuer that is published beside a key; nil accepts every key of
	// the set.
	Issuer func(issuer string) bool
	// HTTP fetches; http.DefaultClient's settings if nil. Redirects are never followed.
	HTTP *http.Client
	Now  func() time.Time // time.Now if nil
}

// Keys is an issuer's published keys. One refresh runs at a time, an unknown key id
// causes at most one every 30 s, and the last good set outlives an outage. While a
// refresh runs, tokens under keys already known are not kept waiting.
type Keys struct {
	config KeysConfig
	client *http.Client

	refresh sync.Mutex // held by whoever refreshes
	tried   time.Time  // when a refresh last began; under refresh

	mu      sync.Mutex
	keys    map[string]*rsa.PublicKey
	fetched time.Time
}

// NewKeys returns the keys of an issuer. Nothing is fetched before it is needed, or
// before Warm.
func NewKeys(c KeysConfig) *Keys {
	client := c.HTTP
	if client == nil {
		client = &http.Client{}
	}
	own := *client
	own.Timeout = keysTimeout
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Keys{config: c, client: &own}
}

// Warm fetches the keys unless there are fresh ones, so that the first token does not
// wait. Within 30 s of another fetch it does nothing.
func (k *Keys) Warm(ctx context.Context) error {
	k.refresh.Lock()
	defer k.refresh.Unlock()
	if _, age := k.known(""); age <= KeysFresh {
		return nil
	}
	return k.renew(ctx)
}

// find returns the key with this id, refreshing the set where that can help.
func (k *Keys) find(ctx context.Context, kid string) (*rsa.PublicKey, error) {
	key, age := k.known(kid)
	if key != nil && age <= KeysFresh {
		return key, nil
	}
	usable := key != nil && age <= KeysUsable
	if usable && !k.refresh.TryLock() {
		return key, nil
	}
	if !usable {
		k.refresh.Lock()
	}
	defer k.refresh.Unlock()
	var cause error
	if key, age = k.known(kid); key == nil || age > KeysFresh {
		cause = k.renew(ctx)
		key, age = k.known(kid)
	}
	if key == nil || age > KeysUsable {
		return nil, errors.Join(fmt.Errorf("%w: unknown kid", ErrKey), cause)
	}
	return key, nil
}

// renew fetches the set unless that was tried just now. The caller holds refresh.
func (k *Keys) renew(ctx context.Context) error {
	now := k.config.Now()
	if now.Sub(k.tried) < KeysRefreshes {
		return nil
	}
	k.tried = now
	keys, err := k.fetch(ctx)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys, k.fetched = keys, now
	return nil
}

// known looks a key up without asking anybody, and tells the age of the set.
func (k *Keys) known(kid string) (*rsa.PublicKey, time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[kid], k.config.Now().Sub(k.fetched)
}

type jwks struct {
	Keys []struct {
		Kty    string `json:"kty"`
		Use    string `json:"use"`
		Kid    string `json:"kid"`
		N      string `json:"n"`
		E      string `json:"e"`
		Issuer string `json:"issuer"`
	} `json:"keys"`
}

func (k *Keys) fetch(ctx context.Context) (map[string]*rsa.PublicKey, error) {
	// One caller's haste must not fail the fetch for all who wait for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keysTimeout)
	defer cancel()
	address := k.config.URL
	if k.config.Metadata {
		var err error
		if address, err = k.setAddress(ctx); err != nil {
			return nil, err
		}
	}
	body, err := k.get(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("fetch signing keys: %w", err)
	}
	var set jwks
	if err := json.Unmarshal(body, &set); err != nil || len(set.Keys) > keysMaxCount {
		return nil, errors.New("fetch signing keys: not a key set")
	}
	out := map[string]*rsa.PublicKey{}
	for _, j := range set.Keys {
		if j.Kty != "RSA" || (j.Use != "" && j.Use != "sig") || j.Kid == "" || (k.config.Issuer != nil && !k.config.Issuer(j.Issuer)) {
			continue
		}
		n, err1 := base64.RawURLEncoding.DecodeString(j.N)
		e, err2 := base64.RawURLEncoding.DecodeString(j.E)
		if err1 != nil || err2 != nil || len(n) < 256 || len(n) > 1024 || len(e) == 0 || len(e) > 4 {
			continue
		}
		out[j.Kid] = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	}
	if len(out) == 0 {
		return nil, errors.New("fetch signing keys: none is usable")
	}
	return out, nil
}

// setAddress reads where the OpenID configuration says that the keys are.
// https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderMetadata
func (k *Keys) setAddress(ctx context.Context) (string, error) {
	body, err := k.get(ctx, k.config.URL)
	if err != nil {
		return "", fmt.Errorf("fetch OpenID configuration: %w", err)
	}
	var metadata struct {
		KeysURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(body, &metadata); err != nil {
		return "", errors.New("fetch OpenID configuration: not JSON")
	}
	u, err := url.Parse(metadata.KeysURI)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return "", errors.New("fetch OpenID configuration: jwks_uri is no https URL")
	}
	return metadata.KeysURI, nil
}

func (k *Keys) get(ctx context.Context, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("bad URL")
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, errors.New("no answer")
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, keysMaxBytes+1))
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	if err != nil || resp.StatusCode != http.StatusOK || len(body) > keysMaxBytes {
		return nil, fmt.Errorf("status %d, %d bytes", resp.StatusCode, len(body))
	}
	return body, nil
}
