package portal_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"steno/shared/bearer"
	"steno/shared/teams"
	"steno/tests/local/entra"
)

// bearer asks for the session with the token and any other headers.
func (w *world) bearer(token string, more ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	h := http.Header{"Authorization": {"Bearer " + token}}
	for i := 0; i+1 < len(more); i += 2 {
		h.Add(more[i], more[i+1])
	}
	return w.send(http.MethodGet, "/steno/v1/session", h)
}

// with are the claims of Nora's token, changed. A nil value takes a claim away.
func (w *world) with(changes ...any) map[string]any {
	c := w.claims(nora)
	for i := 0; i+1 < len(changes); i += 2 {
		c[changes[i].(string)] = changes[i+1]
	}
	return c
}

func (w *world) keyFetches() int { return w.entra.Requests()["keys"] }

func TestOrdinaryTokenIsAccepted(t *testing.T) {
	w := newWorld(t)
	want(t, w.bearer(w.token(nora)), http.StatusOK)
	want(t, w.bearer(w.entra.Mint(w.with("scp", "Other.Read "+scope+" Third"))), http.StatusOK)
	want(t, w.bearer(w.entra.Mint(w.with("idtyp", "user"))), http.StatusOK)
	want(t, w.bearer(w.entra.Mint(w.with("name", nil, "preferred_username", nil, "sub", nil))), http.StatusOK)
}

func TestTokensThatAreRefused(t *testing.T) {
	w := newWorld(t)
	want(t, w.bearer(w.token(nora)), http.StatusOK) // the key set is read once, here
	issuer := w.entra.Issuer()
	other := "44444444-4444-4444-8444-444444444444"
	mint := w.entra.Mint
	for name, token := range map[string]string{
		"no algorithm":          mint(w.with(), entra.WithAlg("none")),
		"HS256 with public key": mint(w.with(), entra.WithAlg("HS256")),
		"RS384":                 mint(w.with(), entra.WithAlg("RS384")),
		"RS512":                 mint(w.with(), entra.WithAlg("RS512")),
		"PS256":                 mint(w.with(), entra.WithAlg("PS256")),
		"foreign key, our kid":  mint(w.with(), w.entra.WithForeignKey()),
		"unknown key":           mint(w.with(), w.entra.WithUnknownKey()),
		"consumers' key":        mint(w.with(), w.entra.WithConsumersKey()),

		"audience Graph":          mint(w.with("aud", entra.GraphResource)),
		"audience of another API": mint(w.with("aud", other)),
		"audience as App ID URI":  mint(w.with("aud", "api://"+audience)),
		"audience in a list":      mint(w.with("aud", []string{audience})),
		"two audiences":           mint(w.with("aud", []string{audience, entra.GraphResource})),
		"audience in upper case":  mint(w.with("aud", strings.ToUpper("abcdefab"+audience[8:]))),
		"no audience":             mint(w.with("aud", nil)),
		"audience of the pages":   mint(w.with("aud", client)),

		"version 1":      mint(w.with("ver", "1.0", "iss", w.entra.IssuerV1())),
		"version 1, v2":  mint(w.with("ver", "1.0")),
		"no version":     mint(w.with("ver", nil)),
		"version number": mint(w.with("ver", 2.0)),
		"id token":       mint(w.with("aud", client, "nonce", "n", "scp", nil, "azp", nil)),
		"nonce":          mint(w.with("nonce", "n")),

		"issuer with slash":       mint(w.with("iss", issuer+"/")),
		"issuer of v1":            mint(w.with("iss", w.entra.IssuerV1())),
		"issuer with prefix":      mint(w.with("iss", "https://evil.example/?"+issuer)),
		"issuer with user part":   mint(w.with("iss", issuer+"@evil.example")),
		"issuer in other case":    mint(w.with("iss", strings.ToUpper(issuer))),
		"issuer of another":       mint(w.with("iss", strings.Replace(issuer, string(tenant), other, 1))),
		"no issuer":               mint(w.with("iss", nil)),
		"issuer template":         mint(w.with("iss", strings.Replace(issuer, string(tenant), "{tenantid}", 1))),
		"tenant and issuer other": mint(w.with("tid", other, "iss", strings.Replace(issuer, string(tenant), other, 1))),
		"tenant other than iss":   mint(w.with("tid", other)),
		"tenant no GUID":          mint(w.with("tid", "contoso.example")),
		"tenant in braces":        mint(w.with("tid", "{"+string(tenant)+"}")),
		"no tenant":               mint(w.with("tid", nil)),

		"app-only with roles":  mint(w.entra.AppClaims(entra.Client{ID: client, Roles: map[string][]string{audience: {scope}}}, audience)),
		"app-only with scope":  mint(w.with("idtyp", "app")),
		"device token":         mint(w.with("idtyp", "device")),
		"roles in place":       mint(w.with("scp", nil, "roles", []string{scope})),
		"scope with suffix":    mint(w.with("scp", scope+"2")),
		"scope with prefix":    mint(w.with("scp", "X"+scope)),
		"scope in other case":  mint(w.with("scp", strings.ToLower(scope))),
		"scope in a list":      mint(w.with("scp", []string{scope})),
		"scope with comma":     mint(w.with("scp", scope+",Other")),
		"other client":         mint(w.with("azp", other)),
		"no client":            mint(w.with("azp", nil)),
		"client as appid only": mint(w.with("azp", nil, "appid", client)),
		"no object id":         mint(w.with("oid", nil)),
		"object id is a name":  mint(w.with("oid", "nora@contoso.example")),
	} {
		rec := w.bearer(token)
		if rec.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, rec.Code)
		}
		if body := rec.Body.String(); body != `{"status":401,"title":"Sign in"}` {
			t.Errorf("%s is told %q", name, body)
		}
	}
}

func TestHeadersOfATokenChooseNothing(t *testing.T) {
	w := newWorld(t)
	var foreign int
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { foreign++ }))
	t.Cleanup(evil.Close)
	jwk := map[string]any{"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "mine"}
	for name, value := range map[string]any{
		"jku": evil.URL, "x5u": evil.URL, "jwk": jwk, "crit": []string{"exp"}, "b64": false, "zip": "DEF", "nonce": "n", "kid": nil,
	} {
		want(t, w.bearer(w.entra.Mint(w.with(), entra.WithHeader(name, value))), http.StatusUnauthorized)
	}
	for _, kid := range []any{"", strings.Repeat("k", 257), 7, []string{"x"}} {
		want(t, w.bearer(w.entra.Mint(w.with(), entra.WithHeader("kid", kid))), http.StatusUnauthorized)
	}
	for _, alg := range []any{"none", "NONE", "HS256", "rs256", "", nil, 7, "ES256", "RS256 "} {
		want(t, w.bearer(w.entra.Mint(w.with(), entra.WithHeader("alg", alg))), http.StatusUnauthorized)
	}
	if n := w.keyFetches(); n != 0 || foreign != 0 {
		t.Fatalf("%d requests for keys and %d to a foreign host went out", n, foreign)
	}
}

func TestShapesThatAreNoSingleBearerToken(t *testing.T) {
	w := newWorld(t)
	good := w.token(nora)
	parts := strings.Split(good, ".")
	forge := func(head, body string) string {
		e := base64.RawURLEncoding.EncodeToString
		return e([]byte(head)) + "." + e([]byte(body)) + "." + parts[2]
	}
	for name, header := range map[string][]string{
		"nothing": {}, "empty": {""}, "no scheme": {good}, "basic": {"Basic " + good}, "two": {"Bearer " + good, "Bearer " + good},
		"bad and good": {"Bearer x", "Bearer " + good}, "list": {"Bearer " + good + ", Bearer " + good}, "two spaces": {"Bearer  " + good},
		"trailing space": {"Bearer " + good + " "}, "two parts": {"Bearer " + parts[0] + "." + parts[1]},
		"four parts": {"Bearer " + good + ".x"}, "padding": {"Bearer " + parts[0] + "=." + parts[1] + "." + parts[2]},
		"too large": {"Bearer " + strings.Repeat("a", 16<<10) + good},
		"not JSON":  {"Bearer " + forge("x", "{}")}, "an array": {"Bearer " + forge("[]", "{}")},
		"repeated alg":          {"Bearer " + forge(`{"alg":"RS256","alg":"none","kid":"x"}`, "{}")},
		"repeated in two cases": {"Bearer " + forge(`{"alg":"RS256","kid":"x"}`, `{"oid":"1","OID":"2"}`)},
		"rubbish after":         {"Bearer " + forge(`{"alg":"RS256","kid":"x"}{}`, "{}")},
		"JSON serialization":    {`Bearer {"payload":"x","signatures":[]}`},
		"NUL":                   {"Bearer " + good + "\x00"},
		"deep JSON":             {"Bearer " + forge(`{"alg":"RS256","kid":"x","a":`+strings.Repeat("[", 5000)+`}`, "{}")},
	} {
		rec := w.send(http.MethodGet, "/steno/v1/session", http.Header{"Authorization": header})
		if rec.Code != http.StatusUnauthorized || rec.Header().Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: %d", name, rec.Code)
		}
	}
	if n := w.keyFetches(); n != 0 {
		t.Errorf("%d requests for keys went out", n)
	}
	want(t, w.bearer(parts[0]+"."+parts[1]+"."), http.StatusUnauthorized)
	for _, i := range []int{0, 1, 2} {
		changed := strings.Split(good, ".")
		b := []byte(changed[i])
		b[len(b)/2] ^= 1
		changed[i] = string(b)
		want(t, w.bearer(strings.Join(changed, ".")), http.StatusUnauthorized)
	}
	want(t, w.bearer(good), http.StatusOK)
}

func TestIdentityHeadersOfAFrontEndAreNotRead(t *testing.T) {
	w := newWorld(t)
	principal := base64.StdEncoding.EncodeToString(fmt.Appendf(nil,
		`{"auth_typ":"aad","claims":[{"typ":"http://schemas.microsoft.com/identity/claims/objectidentifier","val":%q}]}`, carla))
	forged := []string{
		"X-MS-CLIENT-PRINCIPAL", principal, "X-MS-CLIENT-PRINCIPAL-ID", string(carla), "X-MS-CLIENT-PRINCIPAL-NAME", "carla@contoso.example",
		"X-MS-CLIENT-PRINCIPAL-IDP", "aad", "X-MS-TOKEN-AAD-ACCESS-TOKEN", w.token(carla), "X-MS-TOKEN-AAD-ID-TOKEN", w.token(carla),
		"X-Forwarded-User", string(carla), "X-Forwarded-Access-Token", w.token(carla), "X-Remote-User", string(carla), "Remote-User", string(carla),
		"X-Functions-Key", "master", "Cookie", "AppServiceAuthSession=" + w.token(carla), "Proxy-Authorization", "Bearer " + w.token(carla),
		"X-Original-Authorization", "Bearer " + w.token(carla), "X-HTTP-Method-Override", "POST", "Forwarded", "for=127.0.0.1",
	}
	h := http.Header{}
	for i := 0; i < len(forged); i += 2 {
		h.Add(forged[i], forged[i+1])
	}
	want(t, w.send(http.MethodGet, "/steno/v1/session", h), http.StatusUnauthorized)
	want(t, w.send(http.MethodGet, "/steno/v1/session?access_token="+w.token(carla)+"&code=master", h), http.StatusUnauthorized)
	rec := w.bearer(w.token(nora), forged...)
	want(t, rec, http.StatusOK)
	if who := decode[struct{ Person teams.PersonID }](t, rec.Body).Person; who != nora {
		t.Fatalf("the caller is %s, want the one of the token", who)
	}
}

func TestClockSkewIsTwoMinutesToTheSecond(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		claim string
		off   time.Duration
		want  int
	}{
		{"exp", -119 * time.Second, 200}, {"exp", -120 * time.Second, 401}, {"exp", -121 * time.Second, 401}, {"exp", time.Second, 200},
		{"nbf", 119 * time.Second, 200}, {"nbf", 120 * time.Second, 200}, {"nbf", 121 * time.Second, 401},
		{"iat", 119 * time.Second, 200}, {"iat", 121 * time.Second, 401},
	} {
		// send moves the clock by a second before it asks.
		claims := w.with("iat", started.Unix(), "nbf", started.Unix())
		claims[c.claim] = w.clock.Now().Add(time.Second + c.off).Unix()
		if rec := w.bearer(w.entra.Mint(claims)); rec.Code != c.want {
			t.Errorf("%s at %v: %d, want %d", c.claim, c.off, rec.Code, c.want)
		}
	}
	for _, exp := range []any{nil, "tomorrow", []int{1}, -1} {
		want(t, w.bearer(w.entra.Mint(w.with("exp", exp))), http.StatusUnauthorized)
	}
}

func TestAThousandUnknownKeysCauseOneFetchInThirtySeconds(t *testing.T) {
	w := newWorld(t)
	body := w.with()
	for i := range 1000 {
		token := w.entra.Mint(body, w.entra.WithUnknownKey(), entra.WithHeader("kid", fmt.Sprintf("kid-%d", i)))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/steno/v1/session", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, r)
		want(t, rec, http.StatusUnauthorized)
	}
	if n := w.keyFetches(); n != 1 {
		t.Fatalf("%d fetches, want 1", n)
	}
	w.clock.Move(bearer.KeysRefreshes)
	want(t, w.bearer(w.entra.Mint(body, w.entra.WithUnknownKey())), http.StatusUnauthorized)
	if n := w.keyFetches(); n != 2 {
		t.Fatalf("%d fetches after 30 s, want 2", n)
	}
}

func TestRotatedKeyIsAcceptedOnFirstUse(t *testing.T) {
	w := newWorld(t)
	before := w.token(nora)
	want(t, w.bearer(before), http.StatusOK)
	w.clock.Move(bearer.KeysRefreshes)
	w.entra.RotateKeys()
	after := w.token(nora)
	var wg sync.WaitGroup
	codes := make(chan int, 16)
	for range cap(codes) {
		wg.Go(func() {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/steno/v1/session", nil)
			r.Header.Set("Authorization", "Bearer "+after)
			rec := httptest.NewRecorder()
			w.handler.ServeHTTP(rec, r)
			codes <- rec.Code
		})
	}
	wg.Wait()
	close(codes)
	for c := range codes {
		if c != http.StatusOK {
			t.Errorf("a token under the new key: %d", c)
		}
	}
	want(t, w.bearer(before), http.StatusOK)
	if n := w.keyFetches(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
}

func TestKnownKeysOutliveAnOutageOfThreeDays(t *testing.T) {
	w := newWorld(t)
	fresh := func() string {
		return w.entra.Mint(w.with("iat", w.clock.Now().Unix(), "nbf", w.clock.Now().Unix(), "exp", w.clock.Now().Add(time.Hour).Unix()))
	}
	want(t, w.bearer(fresh()), http.StatusOK)
	fetched := w.clock.Now()
	w.login.Close()
	for _, age := range []time.Duration{bearer.KeysFresh + time.Minute, 48 * time.Hour, bearer.KeysUsable - time.Minute} {
		w.clock.Move(fetched.Add(age).Sub(w.clock.Now()))
		want(t, w.bearer(fresh()), http.StatusOK)
	}
	w.clock.Move(fetched.Add(bearer.KeysUsable).Sub(w.clock.Now()))
	want(t, w.bearer(fresh()), http.StatusUnauthorized)
}

func TestKeySetsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	token := w.token(nora)
	big := `{"keys":[` + strings.Repeat(`{"kty":"RSA"},`, 100) + `{"kty":"RSA"}]}`
	for name, answer := range map[string]http.HandlerFunc{
		"error":         func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusBadGateway) },
		"not JSON":      func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "<html>") },
		"empty":         func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, `{"keys":[]}`) },
		"too many keys": func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, big) },
		"over a MiB": func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(rw, strings.Repeat(" ", 1<<20)+`{"keys":[]}`)
		},
		"redirect": func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, w.config.KeysURL, http.StatusFound)
		},
		"broken off": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "100")
			fmt.Fprint(rw, "{")
		},
		"symmetric key": func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(rw, `{"keys":[{"kty":"oct","kid":"x","k":"eA"}]}`)
		},
		"key of no size": func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(rw, `{"keys":[{"kty":"RSA","kid":"x","n":"AQAB","e":"AQAB"}]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			keys := httptest.NewServer(answer)
			t.Cleanup(keys.Close)
			c := w.config
			c.KeysURL, c.HTTP = keys.URL, nil
			w.handler = w.open(c)
			want(t, w.bearer(token), http.StatusUnauthorized)
		})
	}
}
