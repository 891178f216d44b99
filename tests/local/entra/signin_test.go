package entra_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// signIn walks through the sign-in page and returns the parameters that come back.
func (f *fixture) signIn(mode, verifier string, change func(url.Values)) url.Values {
	f.t.Helper()
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"client_id": {spa}, "response_type": {"code"}, "redirect_uri": {redirect}, "response_mode": {mode},
		"scope": {"openid profile offline_access api://" + api + "/Conversations.Read"}, "state": {"s 1"}, "nonce": {"n1"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}, "client_info": {"1"},
	}
	if change != nil {
		change(q)
	}
	resp, err := f.client.Get(f.Authority() + "/oauth2/v2.0/authorize?" + q.Encode())
	if err != nil {
		f.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		f.t.Fatal(err)
	}
	if resp.StatusCode == http.StatusFound {
		return f.answer(resp, mode)
	}
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), `value="`+ada.ID+`"`) || strings.Contains(string(body), "<b>") {
		f.t.Fatalf("sign-in page: %d %s", resp.StatusCode, body)
	}
	form := url.Values{"oid": {ada.ID}}
	for _, m := range regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`).FindAllStringSubmatch(string(body), -1) {
		form.Set(m[1], strings.ReplaceAll(strings.ReplaceAll(m[2], "&#43;", "+"), "&amp;", "&"))
	}
	resp, err = f.client.PostForm(f.Authority()+"/oauth2/v2.0/authorize", form)
	if err != nil {
		f.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusFound {
		f.t.Fatalf("choice: %d", resp.StatusCode)
	}
	return f.answer(resp, mode)
}

func (f *fixture) answer(resp *http.Response, mode string) url.Values {
	f.t.Helper()
	location := resp.Header.Get("Location")
	rest, ok := strings.CutPrefix(location, redirect)
	if !ok || (mode == "fragment") != strings.HasPrefix(rest, "#") {
		f.t.Fatalf("redirected to %s", location)
	}
	v, err := url.ParseQuery(rest[1:])
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

func (f *fixture) post(form url.Values) (int, map[string]any) {
	f.t.Helper()
	req, err := http.NewRequest(http.MethodPost, f.Authority()+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", "https://localhost")
	resp, err := f.client.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Header.Get("Access-Control-Allow-Origin") != "*" {
		f.t.Errorf("token endpoint is closed to other origins: %v", resp.Header)
	}
	var body map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, body
}

func redeem(code, verifier string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "client_id": {spa}, "code": {code}, "redirect_uri": {redirect}, "code_verifier": {verifier}}
}

func TestSignInGivesATokenAsThePortalWantsIt(t *testing.T) {
	f := start(t)
	for _, mode := range []string{"query", "fragment"} {
		back := f.signIn(mode, "verifier-"+mode, nil)
		if back.Get("state") != "s 1" || back.Get("code") == "" || back.Get("client_info") == "" {
			t.Fatalf("%s: came back with %v", mode, back)
		}
		status, body := f.post(redeem(back.Get("code"), "verifier-"+mode))
		if status != http.StatusOK {
			t.Fatalf("%s: %d %v", mode, status, body)
		}
		got := claimsOf(t, body["access_token"].(string))
		for k, v := range map[string]any{
			"ver": "2.0", "aud": api, "iss": f.Issuer(), "tid": tenant, "oid": ada.ID, "azp": spa, "scp": "Conversations.Read",
			"name": ada.Name, "preferred_username": ada.UPN, "department": "Equities", "idtyp": nil,
		} {
			if got[k] != v {
				t.Errorf("%s: %s is %v, want %v", mode, k, got[k], v)
			}
		}
		for _, k := range []string{"uti", "sid", "sub", "iat", "nbf", "exp"} {
			if got[k] == nil {
				t.Errorf("%s: no %s", mode, k)
			}
		}
		id, err := f.verifier(spa).Verify(t.Context(), body["id_token"].(string))
		if err != nil || id.Nonce != "n1" {
			t.Errorf("%s: id token %v, %v", mode, id, err)
		}
		if claimsOf(t, body["id_token"].(string))["scp"] != nil {
			t.Error("id token has scopes")
		}
	}
}

func TestCodeIsGoodOnceAndForItsVerifierOnly(t *testing.T) {
	f := start(t)
	code := f.signIn("query", "right", nil).Get("code")
	if status, body := f.post(redeem(code, "wrong")); status != 400 || body["error"] != "invalid_grant" {
		t.Errorf("wrong verifier: %d %v", status, body)
	}
	if status, _ := f.post(redeem(code, "right")); status != 400 {
		t.Errorf("second use: %d", status)
	}
	code = f.signIn("query", "right", nil).Get("code")
	form := redeem(code, "right")
	form.Set("redirect_uri", "https://localhost/other")
	if status, _ := f.post(form); status != 400 {
		t.Errorf("other redirect: %d", status)
	}
}

func TestRefreshTokenRenewsAndIsReplaced(t *testing.T) {
	f := start(t)
	_, body := f.post(redeem(f.signIn("query", "v", nil).Get("code"), "v"))
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {spa}, "refresh_token": {body["refresh_token"].(string)}}
	status, again := f.post(form)
	if status != 200 || claimsOf(t, again["access_token"].(string))["oid"] != ada.ID || again["refresh_token"] == form.Get("refresh_token") {
		t.Fatalf("%d %v", status, again)
	}
	if status, _ := f.post(form); status != 400 {
		t.Errorf("old refresh token: %d", status)
	}
	form.Set("client_id", api)
	form.Set("refresh_token", again["refresh_token"].(string))
	if status, _ := f.post(form); status != 400 {
		t.Errorf("another client's refresh token: %d", status)
	}
}

func TestSilentSignInNeedsASession(t *testing.T) {
	f := start(t)
	none := func(q url.Values) { q.Set("prompt", "none") }
	if back := f.signIn("fragment", "v", none); back.Get("error") != "login_required" || back.Get("state") != "s 1" {
		t.Errorf("without session: %v", back)
	}
	f.signIn("query", "v", nil)
	if back := f.signIn("fragment", "v", none); back.Get("code") == "" {
		t.Errorf("with session: %v", back)
	}
}

func TestBadAuthorizationRequestIsRefused(t *testing.T) {
	f := start(t)
	for name, change := range map[string]func(url.Values){
		"no challenge":    func(q url.Values) { q.Del("code_challenge") },
		"plain challenge": func(q url.Values) { q.Set("code_challenge_method", "plain") },
		"token response":  func(q url.Values) { q.Set("response_type", "token") },
		"unknown scope":   func(q url.Values) { q.Set("scope", "openid api://"+api+"/Everything") },
	} {
		if back := f.signIn("query", "v", change); back.Get("error") == "" || back.Get("code") != "" {
			t.Errorf("%s: %v", name, back)
		}
	}
	for name, change := range map[string]func(url.Values){
		"unknown client":   func(q url.Values) { q.Set("client_id", "x") },
		"foreign redirect": func(q url.Values) { q.Set("redirect_uri", "https://evil.example/") },
	} {
		q := url.Values{"client_id": {spa}, "redirect_uri": {redirect}}
		change(q)
		resp, err := f.client.Get(f.Authority() + "/oauth2/v2.0/authorize?" + q.Encode())
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest || resp.Header.Get("Location") != "" {
			t.Errorf("%s: %d, sent to %q", name, resp.StatusCode, resp.Header.Get("Location"))
		}
	}
}
