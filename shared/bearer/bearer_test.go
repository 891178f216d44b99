package bearer_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"steno/shared/bearer"
)

const issuer = "https://issuer.example"

var pairs = sync.OnceValue(func() []*rsa.PrivateKey {
	var out []*rsa.PrivateKey
	for range 2 {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		out = append(out, k)
	}
	return out
})

func set(kid string, key *rsa.PrivateKey) string {
	return fmt.Sprintf(`{"keys":[{"kty":"RSA","use":"sig","kid":%q,"n":%q,"e":%q,"issuer":"https://keys.example"}]}`,
		kid, base64.RawURLEncoding.EncodeToString(key.N.Bytes()), base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()))
}

func sign(t testing.TB, key *rsa.PrivateKey, kid string, claims jwt.MapClaims) http.Header {
	t.Helper()
	tok := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	tok.Header["kid"] = kid
	s, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return http.Header{"Authorization": {"Bearer " + s}}
}

func usual() jwt.MapClaims {
	return jwt.MapClaims{"iss": issuer, "exp": time.Now().Add(time.Hour).Unix(), "color": "green"}
}

func verifier(t testing.TB, keys *bearer.Keys, now func() time.Time) *bearer.Verifier {
	t.Helper()
	v, err := bearer.NewVerifier(bearer.Rules{Keys: keys, Issuers: []string{issuer}, Leeway: time.Minute, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

type claims struct{ Color string }

func TestKeySetsOfTwoIssuersAreApart(t *testing.T) {
	var servers []*httptest.Server
	for i := range 2 {
		srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, set("kid", pairs()[i])) }))
		t.Cleanup(srv.Close)
		servers = append(servers, srv)
	}
	for i, srv := range servers {
		v := verifier(t, bearer.NewKeys(bearer.KeysConfig{URL: srv.URL, HTTP: srv.Client()}), nil)
		for j, key := range pairs() {
			var c claims
			err := v.Verify(t.Context(), sign(t, key, "kid", usual()), &c)
			if (err == nil) != (i == j) || (c.Color == "green") != (i == j) {
				t.Errorf("key %d at issuer %d: %v, claims %+v", j, i, err, c)
			}
		}
	}
}

func TestKeysAreFoundThroughTheConfigurationAndOverHTTPSOnly(t *testing.T) {
	var address atomic.Value
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keys" {
			fmt.Fprint(w, set("kid", pairs()[0]))
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"jwks_uri": address.Load()})
	}))
	t.Cleanup(srv.Close)
	for uri, good := range map[string]bool{
		srv.URL + "/keys": true, strings.Replace(srv.URL, "https", "http", 1) + "/keys": false, "https://user@" + srv.Listener.Addr().String() + "/keys": false, "/keys": false, "": false,
	} {
		address.Store(uri)
		keys := bearer.NewKeys(bearer.KeysConfig{URL: srv.URL, Metadata: true, HTTP: srv.Client()})
		if err := keys.Warm(t.Context()); (err == nil) != good {
			t.Errorf("%q: %v", uri, err)
		}
		if err := verifier(t, keys, nil).Verify(t.Context(), sign(t, pairs()[0], "kid", usual()), &claims{}); (err == nil) != good {
			t.Errorf("%q: verify: %v", uri, err)
		}
	}
}

func TestAKeyOfAnotherIssuerInTheSetIsLeftOut(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, set("kid", pairs()[0])) }))
	t.Cleanup(srv.Close)
	for _, good := range []bool{true, false} {
		keys := bearer.NewKeys(bearer.KeysConfig{URL: srv.URL, HTTP: srv.Client(), Issuer: func(i string) bool { return good && i == "https://keys.example" }})
		if err := keys.Warm(t.Context()); (err == nil) != good {
			t.Errorf("accepted %t: %v", good, err)
		}
	}
}

// TestARefreshKeepsNobodyWaiting holds a refresh up while tokens under a known key come.
func TestARefreshKeepsNobodyWaiting(t *testing.T) {
	var hold atomic.Bool
	asked, release := make(chan struct{}), make(chan struct{})
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if hold.Load() {
			close(asked)
			<-release
		}
		fmt.Fprint(w, set("kid", pairs()[0]))
	}))
	t.Cleanup(srv.Close)
	keys := bearer.NewKeys(bearer.KeysConfig{URL: srv.URL, HTTP: srv.Client(), Now: func() time.Time {
		if hold.Load() {
			return time.Now().Add(bearer.KeysRefreshes)
		}
		return time.Now()
	}})
	v := verifier(t, keys, nil)
	if err := v.Verify(t.Context(), sign(t, pairs()[0], "kid", usual()), &claims{}); err != nil {
		t.Fatal(err)
	}
	hold.Store(true)
	var wg sync.WaitGroup
	wg.Go(func() { _ = v.Verify(context.Background(), sign(t, pairs()[1], "unknown", usual()), &claims{}) })
	<-asked
	for range 10 {
		if err := v.Verify(t.Context(), sign(t, pairs()[0], "kid", usual()), &claims{}); err != nil {
			t.Error(err)
		}
	}
	close(release)
	wg.Wait()
}

func TestRulesWithoutKeysOrIssuerAreRefused(t *testing.T) {
	keys := bearer.NewKeys(bearer.KeysConfig{URL: "https://issuer.example"})
	for name, r := range map[string]bearer.Rules{
		"no keys": {Issuers: []string{issuer}}, "no issuer": {Keys: keys}, "empty issuer": {Keys: keys, Issuers: []string{issuer, ""}}, "negative leeway": {Keys: keys, Issuers: []string{issuer}, Leeway: -1},
	} {
		if _, err := bearer.NewVerifier(r); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// FuzzVerify presents arbitrary text as a token: none verifies, and none is quoted.
func FuzzVerify(f *testing.F) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, set("kid", pairs()[0])) }))
	f.Cleanup(srv.Close)
	v := verifier(f, bearer.NewKeys(bearer.KeysConfig{URL: srv.URL, HTTP: srv.Client()}), nil)
	good := sign(f, pairs()[0], "kid", usual()).Get("Authorization")
	if err := v.Verify(f.Context(), http.Header{"Authorization": {good}}, &claims{}); err != nil {
		f.Fatal(err)
	}
	parts := strings.Split(good, ".")
	f.Add(parts[0] + "." + parts[1] + ".")
	f.Add("Bearer a.b.c")
	f.Add(strings.Join([]string{"Bearer " + base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"kid"}`)), parts[1], ""}, "."))
	f.Add(strings.Join([]string{"Bearer " + base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","ALG":"none","kid":"kid"}`)), parts[1], parts[2]}, "."))
	f.Fuzz(func(t *testing.T, text string) {
		err := v.Verify(t.Context(), http.Header{"Authorization": {text}}, &claims{})
		if err == nil && text != good {
			t.Fatalf("verified %q", text)
		}
		if err != nil && len(text) > 40 && strings.Contains(err.Error(), text[8:40]) {
			t.Fatalf("the error quotes the token: %v", err)
		}
	})
}
