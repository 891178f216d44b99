package entra_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/coreos/go-oidc/v3/oidc"

	"steno/tests/local/ca"
	"steno/tests/local/entra"
)

const (
	tenant   = "11111111-aaaa-4bbb-8ccc-222222222222"
	api      = "33333333-aaaa-4bbb-8ccc-444444444444"
	spa      = "55555555-aaaa-4bbb-8ccc-666666666666"
	daemon   = "77777777-aaaa-4bbb-8ccc-888888888888"
	secret   = "local secret"
	redirect = "https://localhost/portal/"
)

var ada = entra.Person{ID: "99999999-aaaa-4bbb-8ccc-000000000001", Name: "Ada <b>Example</b>", UPN: "ada@contoso.example", Note: "Supervisor", Claims: map[string]any{"department": "Equities"}}

type fixture struct {
	*entra.Entra
	t      *testing.T
	client *http.Client
}

// start serves the stand-in under /entra over TLS.
func start(t *testing.T) *fixture {
	t.Helper()
	authority, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Local()
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	s := httptest.NewUnstartedServer(mux)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	e, err := entra.New(entra.Config{
		Base: s.URL + "/entra", Tenant: tenant,
		Clients: []entra.Client{
			{ID: api, Name: "Steno API", Scopes: []string{"Conversations.Read"}},
			{ID: spa, Name: "Steno Portal", Redirects: []string{redirect}},
			{ID: daemon, Name: "Steno Functions", Secret: secret, Roles: map[string][]string{
				entra.GraphResource: {"Chat.Read.All", "User.Read.All"}, api: {"Daemon"},
			}},
		},
		People: func() []entra.Person { return []entra.Person{ada} },
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Mount(mux)
	client := authority.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.Jar, err = cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return &fixture{e, t, client}
}

func (f *fixture) credential(secret string) *azidentity.ClientSecretCredential {
	f.t.Helper()
	base := strings.TrimSuffix(f.Authority(), tenant)
	c, err := azidentity.NewClientSecretCredential(tenant, daemon, secret, &azidentity.ClientSecretCredentialOptions{
		ClientOptions: azcore.ClientOptions{
			Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: base},
			Transport: f.client,
			Retry:     policy.RetryOptions{RetryDelay: time.Millisecond, MaxRetryDelay: 5 * time.Millisecond},
		},
		DisableInstanceDiscovery: true,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *fixture) appToken(scope string) (string, error) {
	tok, err := f.credential(secret).GetToken(f.t.Context(), policy.TokenRequestOptions{Scopes: []string{scope}})
	return tok.Token, err
}

func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("token has %d parts", len(parts))
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAzidentityGetsAppTokensForEveryResource(t *testing.T) {
	f := start(t)
	for scope, want := range map[string]map[string]any{
		entra.GraphResource + "/.default":   {"aud": entra.GraphResource, "iss": f.IssuerV1(), "idtyp": "app", "ver": "1.0", "appid": daemon, "tid": tenant},
		entra.StorageResource + "/.default": {"aud": entra.StorageResource, "iss": f.IssuerV1(), "idtyp": "app"},
		entra.VaultResource + "/.default":   {"aud": entra.VaultResource, "iss": f.IssuerV1(), "appid": daemon},
		"api://" + api + "/.default":        {"aud": api, "iss": f.Issuer(), "ver": "2.0", "azp": daemon, "idtyp": "app"},
	} {
		token, err := f.appToken(scope)
		if err != nil {
			t.Fatalf("%s: %v", scope, err)
		}
		got := claimsOf(t, token)
		for k, v := range want {
			if got[k] != v {
				t.Errorf("%s: %s is %v, want %v", scope, k, got[k], v)
			}
		}
		if got["scp"] != nil || got["oid"] == nil {
			t.Errorf("%s: claims are %v", scope, got)
		}
		if _, err := f.Verifier(want["aud"].(string))(token); err != nil {
			t.Errorf("%s: %v", scope, err)
		}
		if _, err := f.Verifier("other")(token); !errors.Is(err, entra.ErrAudience) {
			t.Errorf("%s: wrong audience is %v", scope, err)
		}
	}
	graph, err := f.appToken(entra.GraphResource + "/.default")
	if err != nil {
		t.Fatal(err)
	}
	if roles := claimsOf(t, graph)["roles"]; len(roles.([]any)) != 2 {
		t.Errorf("roles are %v", roles)
	}
}

func TestWrongSecretAndUnknownResourceAreRefused(t *testing.T) {
	f := start(t)
	var failed *azidentity.AuthenticationFailedError
	_, err := f.credential("guess").GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{entra.GraphResource + "/.default"}})
	if !errors.As(err, &failed) || failed.RawResponse.StatusCode != http.StatusUnauthorized {
		t.Errorf("wrong secret: %v", err)
	}
	if _, err := f.appToken("https://nowhere.example/.default"); !errors.As(err, &failed) || !strings.Contains(err.Error(), "AADSTS500011") {
		t.Errorf("unknown resource: %v", err)
	}
}

func TestRefusalsAreServedInOrderThenEnd(t *testing.T) {
	f := start(t)
	f.Refuse(entra.Refusal{Status: 503, Code: "temporarily_unavailable"}, entra.Refusal{Status: 500, Code: "server_error"})
	if _, err := f.appToken(entra.GraphResource + "/.default"); err != nil {
		t.Fatalf("azidentity did not get over two refusals: %v", err)
	}
	if n := f.Requests()["token"]; n != 3 {
		t.Errorf("token endpoint was called %d times", n)
	}
}

func TestExpireInShortensTokens(t *testing.T) {
	f := start(t)
	f.ExpireIn(-time.Second)
	token := f.Mint(f.PersonClaims(ada, api, spa, "Conversations.Read"))
	if _, err := f.Verifier(api)(token); !errors.Is(err, entra.ErrExpired) {
		t.Errorf("expired token: %v", err)
	}
	f.ExpireIn(time.Minute)
	c := claimsOf(t, f.Mint(f.PersonClaims(ada, api, spa, "Conversations.Read")))
	if d := c["exp"].(float64) - c["iat"].(float64); d != 60 {
		t.Errorf("token lives %v s", d)
	}
}

// verifier is what a careful API builds from the discovery document.
func (f *fixture) verifier(audience string) *oidc.IDTokenVerifier {
	f.t.Helper()
	ctx := oidc.ClientContext(context.Background(), f.client)
	p, err := oidc.NewProvider(ctx, f.Issuer())
	if err != nil {
		f.t.Fatal(err)
	}
	return p.Verifier(&oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{"RS256"}})
}

func TestGoOIDCAcceptsOnlyGenuineTokens(t *testing.T) {
	f := start(t)
	v := f.verifier(api)
	genuine := func() map[string]any { return f.PersonClaims(ada, api, spa, "Conversations.Read") }
	if _, err := v.Verify(t.Context(), f.Mint(genuine())); err != nil {
		t.Fatalf("genuine: %v", err)
	}
	with := func(name string, value any) map[string]any {
		c := genuine()
		c[name] = value
		return c
	}
	for name, token := range map[string]string{
		"alg none":       f.Mint(genuine(), entra.WithAlg("none")),
		"HS256":          f.Mint(genuine(), entra.WithAlg("HS256")),
		"RS512":          f.Mint(genuine(), entra.WithAlg("RS512")),
		"PS256":          f.Mint(genuine(), entra.WithAlg("PS256")),
		"foreign key":    f.Mint(genuine(), f.WithForeignKey()),
		"unknown key":    f.Mint(genuine(), f.WithUnknownKey()),
		"wrong audience": f.Mint(with("aud", entra.GraphResource)),
		"expired":        f.Mint(with("exp", time.Now().Add(-time.Hour).Unix())),
		"no expiry":      f.Mint(with("exp", nil)),
		"foreign issuer": f.Mint(with("iss", f.Issuer()+"/")),
	} {
		if _, err := v.Verify(t.Context(), token); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestKeySetNamesTheIssuerOfEachKey(t *testing.T) {
	f := start(t)
	var set struct {
		Keys []struct{ Kid, Issuer, Use, Kty string }
	}
	f.json(f.Authority()+"/discovery/v2.0/keys", &set)
	issuers := map[string]string{}
	for _, k := range set.Keys {
		issuers[k.Kid] = k.Issuer
	}
	base := strings.TrimSuffix(f.Authority(), "/"+tenant)
	genuine := header(t, f.Mint(f.PersonClaims(ada, api, spa)))
	consumers := header(t, f.Mint(f.PersonClaims(ada, api, spa), f.WithConsumersKey()))
	if got := issuers[genuine["kid"].(string)]; got != base+"/{tenantid}/v2.0" {
		t.Errorf("issuer of the tenant's key is %q", got)
	}
	if got := issuers[consumers["kid"].(string)]; got != base+"/"+entra.ConsumersTenant+"/v2.0" {
		t.Errorf("issuer of the consumers' key is %q", got)
	}
	// A verifier that keeps all keys in one bag is fooled by it: that is what the member is for.
	if _, err := f.verifier(api).Verify(t.Context(), f.Mint(f.PersonClaims(ada, api, spa), f.WithConsumersKey())); err != nil {
		t.Errorf("the consumers' key is not in the set: %v", err)
	}
}

func header(t *testing.T, token string) map[string]any {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(token[:strings.Index(token, ".")])
	if err != nil {
		t.Fatal(err)
	}
	var h map[string]any
	if err := json.Unmarshal(b, &h); err != nil {
		t.Fatal(err)
	}
	return h
}

func (f *fixture) json(address string, into any) *http.Response {
	f.t.Helper()
	resp, err := f.client.Get(address)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		f.t.Fatal(err)
	}
	return resp
}

func TestRotationKeepsThePreviousKeyForOneRound(t *testing.T) {
	f := start(t)
	v := f.verifier(api)
	old := f.Mint(f.PersonClaims(ada, api, spa))
	f.RotateKeys()
	fresh := f.Mint(f.PersonClaims(ada, api, spa))
	for _, token := range []string{old, fresh} {
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Errorf("after one rotation: %v", err)
		}
	}
	f.RotateKeys()
	if _, err := f.verifier(api).Verify(t.Context(), old); err == nil {
		t.Error("a key two rotations old still verifies")
	}
}

func TestMintedHeaderCanBeForged(t *testing.T) {
	f := start(t)
	h := header(t, f.Mint(map[string]any{}, entra.WithHeader("jku", "https://evil.example/"), entra.WithHeader("x5t", nil)))
	if _, has := h["x5t"]; has || h["jku"] != "https://evil.example/" {
		t.Errorf("header is %v", h)
	}
}

func TestForeignTenantIsNotFoundAndCommonIs(t *testing.T) {
	f := start(t)
	base := strings.TrimSuffix(f.Authority(), tenant)
	var doc map[string]any
	if resp := f.json(base+entra.ConsumersTenant+"/v2.0/.well-known/openid-configuration", &doc); resp.StatusCode != http.StatusBadRequest || doc["error"] != "invalid_tenant" {
		t.Errorf("foreign tenant: %d %v", resp.StatusCode, doc)
	}
	if f.json(base+"common/v2.0/.well-known/openid-configuration", &doc); doc["issuer"] != base+"{tenantid}/v2.0" {
		t.Errorf("common issuer is %v", doc["issuer"])
	}
	if f.json(base+"common/discovery/instance?api-version=1.1&authorization_endpoint=x", &doc); doc["tenant_discovery_endpoint"] == nil {
		t.Errorf("instance discovery is %v", doc)
	}
}

func TestPreflightAndLogout(t *testing.T) {
	f := start(t)
	req, err := http.NewRequest(http.MethodOptions, f.Authority()+"/oauth2/v2.0/token", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Access-Control-Request-Headers", "content-type")
	resp, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent || resp.Header.Get("Access-Control-Allow-Headers") != "content-type" {
		t.Errorf("preflight: %d %v", resp.StatusCode, resp.Header)
	}
	for to, want := range map[string]int{redirect: http.StatusFound, "https://evil.example/": http.StatusOK} {
		resp, err := f.client.Get(f.Authority() + "/oauth2/v2.0/logout?post_logout_redirect_uri=" + url.QueryEscape(to))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("logout to %s: %d", to, resp.StatusCode)
		}
	}
}

func TestBadConfigIsReportedWhole(t *testing.T) {
	_, err := entra.New(entra.Config{Base: "/entra", Tenant: "Contoso", Clients: []entra.Client{{ID: "a"}, {ID: "a"}}})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"base address", "tenant id", "client id"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name the %s", err, want)
		}
	}
}
