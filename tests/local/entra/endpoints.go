package entra

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// graphAppID is Microsoft Graph's own application id, the audience of a token that was asked for with OpenID scopes
// alone.
const graphAppID = "00000003-0000-0000-c000-000000000000"

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store, no-cache")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// A failed write means that the client has gone.
	_ = json.NewEncoder(w).Encode(v)
}

// oauthError answers in the shape of
// https://learn.microsoft.com/en-us/entra/identity-platform/reference-error-codes.
func (e *Entra) oauthError(w http.ResponseWriter, status int, code string, aadsts int, text string) {
	trace := stableGUID("trace", opaque(16))
	w.Header().Set("x-ms-request-id", trace)
	now := e.cfg.Now().UTC().Format("2006-01-02 15:04:05Z")
	writeJSON(w, status, map[string]any{
		"error":             code,
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s Timestamp: %s", aadsts, text, trace, now),
		"error_codes":       []int{aadsts},
		"timestamp":         now,
		"trace_id":          trace,
		"correlation_id":    trace,
	})
}

func (e *Entra) discovery(w http.ResponseWriter, r *http.Request) {
	tid := r.Context().Value(tenantKey{}).(string)
	at := e.cfg.Base + "/" + tid
	issuer := e.Issuer()
	if tid != e.cfg.Tenant {
		issuer = e.cfg.Base + "/{tenantid}/v2.0"
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                issuer,
		"authorization_endpoint":                at + "/oauth2/v2.0/authorize",
		"token_endpoint":                        at + "/oauth2/v2.0/token",
		"end_session_endpoint":                  at + "/oauth2/v2.0/logout",
		"jwks_uri":                              at + "/discovery/v2.0/keys",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "client_secret_basic"},
		"response_modes_supported":              []string{"query", "fragment"},
		"response_types_supported":              []string{"code"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"code_challenge_methods_supported":      []string{"S256"},
		"scopes_supported":                      []string{"openid", "profile", "email", "offline_access"},
		"claims_supported":                      []string{"sub", "iss", "aud", "exp", "iat", "nonce", "preferred_username", "name", "tid", "ver"},
		"request_uri_parameter_supported":       false,
		"frontchannel_logout_supported":         true,
		"http_logout_supported":                 true,
		"tenant_region_scope":                   "EU",
		"cloud_instance_name":                   strings.TrimPrefix(e.origin, "https://"),
	})
}

func (e *Entra) instance(w http.ResponseWriter, _ *http.Request) {
	host := e.origin[strings.Index(e.origin, "://")+3:]
	writeJSON(w, http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": e.Authority() + "/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata": []any{map[string]any{
			"preferred_network": host, "preferred_cache": host, "aliases": []string{host},
		}},
	})
}

func (e *Entra) keys(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	keys := slices.Clone(e.signing)
	e.mu.Unlock()
	set := []any{e.consumers().jwk()}
	for _, k := range keys {
		set = append(set, k.jwk())
	}
	writeJSON(w, http.StatusOK, map[string]any{"keys": set})
}

func (e *Entra) token(w http.ResponseWriter, r *http.Request) {
	if f, refused := e.nextRefusal(); refused {
		e.oauthError(w, f.Status, f.Code, 90033, "A transient error has occurred. Please try again.")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		e.oauthError(w, http.StatusBadRequest, "invalid_request", 900144, "The request body could not be read.")
		return
	}
	id, secret := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	if u, p, ok := r.BasicAuth(); ok {
		id, secret = u, p
	}
	client, ok := e.client(id)
	if !ok {
		e.oauthError(w, http.StatusBadRequest, "unauthorized_client", 700016, fmt.Sprintf("Application with identifier '%s' was not found in the directory.", id))
		return
	}
	if client.Secret != "" && subtle.ConstantTimeCompare([]byte(secret), []byte(client.Secret)) != 1 {
		e.oauthError(w, http.StatusUnauthorized, "invalid_client", 7000215, "Invalid client secret provided.")
		return
	}
	switch r.PostForm.Get("grant_type") {
	case "client_credentials":
		e.appToken(w, r.PostForm, client)
	case "authorization_code":
		e.redeem(w, r.PostForm, client, false)
	case "refresh_token":
		e.redeem(w, r.PostForm, client, true)
	default:
		e.oauthError(w, http.StatusBadRequest, "unsupported_grant_type", 70003, "The app requested an unsupported grant type.")
	}
}

func (e *Entra) nextRefusal() (Refusal, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.refusals) == 0 {
		return Refusal{}, false
	}
	f := e.refusals[0]
	e.refusals = e.refusals[1:]
	return f, true
}

func (e *Entra) appToken(w http.ResponseWriter, form url.Values, client Client) {
	if client.Secret == "" {
		e.oauthError(w, http.StatusUnauthorized, "invalid_client", 7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
		return
	}
	// Client libraries add OpenID scopes, which mean nothing to an application.
	asked := slices.DeleteFunc(strings.Fields(form.Get("scope")), isOpenID)
	resource, isDefault := strings.CutSuffix(strings.Join(asked, " "), "/.default")
	if !isDefault {
		e.oauthError(w, http.StatusBadRequest, "invalid_scope", 1002012, "The provided value for scope is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier.")
		return
	}
	resource = strings.TrimPrefix(strings.TrimSuffix(resource, "/"), "api://")
	if _, own := e.client(resource); !own && !slices.Contains([]string{GraphResource, StorageResource, VaultResource, BusResource}, resource) {
		e.oauthError(w, http.StatusBadRequest, "invalid_resource", 500011, fmt.Sprintf("The resource principal named %s was not found in the tenant.", resource))
		return
	}
	claims := e.AppClaims(client, resource)
	lives := claims["exp"].(int64) - e.cfg.Now().Unix()
	writeJSON(w, http.StatusOK, map[string]any{
		"token_type":     "Bearer",
		"expires_in":     lives,
		"ext_expires_in": lives,
		"access_token":   e.Mint(claims),
	})
}

// redeem exchanges a code or a refresh token. Either is good for one use.
func (e *Entra) redeem(w http.ResponseWriter, form url.Values, client Client, refresh bool) {
	name := "code"
	if refresh {
		name = "refresh_token"
	}
	g, ok := e.take(form.Get(name))
	invalid := func(aadsts int, text string) {
		e.oauthError(w, http.StatusBadRequest, "invalid_grant", aadsts, text)
	}
	switch {
	case !ok || g.refresh != refresh || g.client != client.ID:
		invalid(70000, "Provided grant is invalid or malformed.")
		return
	case !g.expires.After(e.cfg.Now()):
		invalid(70008, "The provided authorization code or refresh token has expired due to inactivity.")
		return
	case !refresh && g.redirect != form.Get("redirect_uri"):
		invalid(500112, "The reply address does not match the reply address provided when requesting the authorization code.")
		return
	case !refresh && g.challenge != "" && !pkceMatches(g.challenge, form.Get("code_verifier")):
		invalid(501481, "The Code_Verifier does not match the code_challenge supplied in the authorization request.")
		return
	}
	person, ok := e.person(g.person)
	if !ok {
		invalid(50034, "The user account does not exist in the directory.")
		return
	}
	if s := form.Get("scope"); s != "" {
		g.scope = s
	}
	e.answerPerson(w, client, person, g)
}

func pkceMatches(challenge, verifier string) bool {
	sum := sha256.Sum256([]byte(verifier))
	got := base64.RawURLEncoding.EncodeToString(sum[:])
	return subtle.ConstantTimeCompare([]byte(got), []byte(challenge)) == 1
}

func (e *Entra) answerPerson(w http.ResponseWriter, client Client, person Person, g grant) {
	api, scopes, invalid := e.resource(g.scope)
	if invalid != "" {
		e.oauthError(w, http.StatusBadRequest, "invalid_scope", 70011, invalidScope(invalid))
		return
	}
	access := e.PersonClaims(person, api, client.ID, scopes...)
	access["sid"] = g.session
	if api == graphAppID {
		access["ver"], access["iss"], access["appid"], access["azp"] = "1.0", e.IssuerV1(), client.ID, nil
	}
	id := e.PersonClaims(person, client.ID, client.ID)
	id["sid"] = g.session
	maps.Copy(id, map[string]any{"azp": nil, "azpacr": nil, "scp": nil, "nonce": nil})
	if g.nonce != "" {
		id["nonce"] = g.nonce
	}
	lives := access["exp"].(int64) - e.cfg.Now().Unix()
	answer := map[string]any{
		"token_type":     "Bearer",
		"scope":          g.scope,
		"expires_in":     lives,
		"ext_expires_in": lives,
		"access_token":   e.Mint(access),
		"client_info":    e.clientInfo(person.ID),
	}
	asked := strings.Fields(g.scope)
	if slices.Contains(asked, "openid") {
		answer["id_token"] = e.Mint(id)
	}
	if slices.Contains(asked, "offline_access") {
		g.refresh, g.expires, g.nonce = true, e.cfg.Now().Add(refreshLifetime), ""
		answer["refresh_token"] = e.put(g)
		answer["refresh_token_expires_in"] = int(refreshLifetime / time.Second)
	}
	writeJSON(w, http.StatusOK, answer)
}

// clientInfo is what MSAL asks for by client_info=1 to name the account.
func (e *Entra) clientInfo(person string) string {
	return segment(map[string]any{"uid": person, "utid": e.cfg.Tenant})
}

// resource splits the scopes of a request into the one API they name and that API's own scope words. OpenID scopes
// name none; without any other they mean Graph.
// The last result is the scope that is not valid, if there is one.
func (e *Entra) resource(scope string) (api string, words []string, invalid string) {
	var openid []string
	for _, s := range strings.Fields(scope) {
		if isOpenID(s) {
			openid = append(openid, s)
			continue
		}
		cut := strings.LastIndex(s, "/")
		if cut < 0 {
			return "", nil, s
		}
		named, word := strings.TrimPrefix(s[:cut], "api://"), s[cut+1:]
		client, ok := e.client(named)
		if !ok || (api != "" && api != named) || (word != ".default" && !slices.Contains(client.Scopes, word)) {
			return "", nil, s
		}
		api = named
		if word == ".default" {
			words = append(words, client.Scopes...)
		} else {
			words = append(words, word)
		}
	}
	if api == "" {
		return graphAppID, openid, ""
	}
	return api, words, ""
}

func isOpenID(scope string) bool {
	return slices.Contains([]string{"openid", "profile", "email", "offline_access"}, scope)
}

func invalidScope(scope string) string {
	return fmt.Sprintf("The provided value for the input parameter 'scope' is not valid: %s.", scope)
}

// put keeps g under a fresh secret and forgets what has expired.
func (e *Entra) put(g grant) string {
	code := "1." + opaque(48)
	now := e.cfg.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(e.grants, func(_ string, old grant) bool { return old.expires.Add(time.Hour).Before(now) })
	e.grants[code] = g
	return code
}

func (e *Entra) take(code string) (grant, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g, ok := e.grants[code]
	delete(e.grants, code)
	return g, ok
}
