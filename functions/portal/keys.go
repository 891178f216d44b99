package portal

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
	"strings"
	"sync"
	"time"
)

// Limits of the issuer's key set.
const (
	keysMaxBytes  = 1 << 20
	keysMaxCount  = 100
	keysTimeout   = 3 * time.Second
	keysFresh     = 24 * time.Hour   // refreshed when older
	keysUsable    = 72 * time.Hour   // kept this long when refreshing fails
	keysRefreshes = 30 * time.Second // at most one refresh in this time
)

var errKey = errors.New("signing key refused")

// keySet is the issuer's published keys. One refresh runs at a time, an unknown key
// id causes at most one every 30 s, and the last good set outlives an outage. While a
// refresh runs, tokens under keys already known are not kept waiting.
type keySet struct {
	config Config
	client *http.Client

	refresh sync.Mutex // held by whoever refreshes
	tried   time.Time  // when a refresh last began; under refresh

	mu      sync.Mutex
	keys    map[string]*rsa.PublicKey
	fetched time.Time
}

func newKeySet(c Config) *keySet {
	client := c.HTTP
	if client == nil {
		client = &http.Client{}
	}
	own := *client
	own.Timeout = keysTimeout
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &keySet{config: c, client: &own}
}

// find returns the key with this id, refreshing the set where that can help.
func (k *keySet) find(ctx context.Context, kid string) (*rsa.PublicKey, error) {
	key, age := k.known(kid)
	if key != nil && age <= keysFresh {
		return key, nil
	}
	usable := key != nil && age <= keysUsable
	if usable && !k.refresh.TryLock() {
		return key, nil
	}
	if !usable {
		k.refresh.Lock()
	}
	defer k.refresh.Unlock()
	if key, age = k.known(kid); key == nil || age > keysFresh {
		if now := k.config.Now(); now.Sub(k.tried) >= keysRefreshes {
			k.tried = now
			if keys, err := k.fetch(ctx); err == nil {
				k.mu.Lock()
				k.keys, k.fetched = keys, now
				k.mu.Unlock()
			}
			key, age = k.known(kid)
		}
	}
	if key == nil || age > keysUsable {
		return nil, fmt.Errorf("%w: unknown kid", errKey)
	}
	return key, nil
}

// known looks a key up without asking anybody, and tells the age of the set.
func (k *keySet) known(kid string) (*rsa.PublicKey, time.Duration) {
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

func (k *keySet) fetch(ctx context.Context) (map[string]*rsa.PublicKey, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keysTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.config.KeysURL, nil)
	if err != nil {
		return nil, errors.New("fetch signing keys: bad URL")
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, errors.New("fetch signing keys: no answer")
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, keysMaxBytes+1))
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	if err != nil || resp.StatusCode != http.StatusOK || len(body) > keysMaxBytes {
		return nil, fmt.Errorf("fetch signing keys: status %d, %d bytes", resp.StatusCode, len(body))
	}
	var set jwks
	if err := json.Unmarshal(body, &set); err != nil || len(set.Keys) > keysMaxCount {
		return nil, errors.New("fetch signing keys: not a key set")
	}
	out := map[string]*rsa.PublicKey{}
	for _, j := range set.Keys {
		if j.Kty != "RSA" || (j.Use != "" && j.Use != "sig") || j.Kid == "" || !k.ours(j.Issuer) {
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

// ours checks the issuer that Entra publishes with each key: with {tenantid} replaced
// it must be the issuer that tokens name. A key of the consumers' tenant signs tokens
// that may claim anything.
func (k *keySet) ours(issuer string) bool {
	return strings.ReplaceAll(issuer, "{tenantid}", string(k.config.Tenant)) == k.config.Issuer
}
