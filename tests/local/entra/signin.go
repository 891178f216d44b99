package entra

import (
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// sessionCookie remembers who has signed in, for requests with prompt=none.
const sessionCookie = "ESTSAUTH"

// carried are the parameters of an authorization request that the sign-in page hands back with the choice.
var carried = []string{
	"client_id", "response_type", "redirect_uri", "response_mode", "scope", "state", "nonce",
	"code_challenge", "code_challenge_method", "client_info",
}

var signInPage = template.Must(template.New("sign-in").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in to {{.Tenant}}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; background: #f2f2f2; color: #1b1b1b; margin: 0; }
main { max-width: 28rem; margin: 4rem auto; background: #fff; padding: 2rem 2.5rem; box-shadow: 0 2px 6px rgba(0, 0, 0, .2); }
h1 { font-size: 1.5rem; font-weight: 600; margin: 0 0 .25rem; }
p { color: #595959; margin: 0 0 1rem; }
button { display: block; width: 100%; text-align: left; font: inherit; padding: .6rem .75rem; border: 0; border-top: 1px solid #e0e0e0; background: none; cursor: pointer; }
button:hover, button:focus-visible { background: #eef3fb; }
small { display: block; color: #595959; }
</style>
</head>
<body>
<main>
<h1>Pick an account</h1>
<p>to continue to {{.Client}} in {{.Tenant}}</p>
<form method="post" action="{{.Action}}">
{{range .Fields}}<input type="hidden" name="{{.Name}}" value="{{.Value}}">
{{end}}{{range .People}}<button name="oid" value="{{.ID}}">{{.Name}}<small>{{.UPN}}{{with .Note}} · {{.}}{{end}}</small></button>
{{else}}<p>Nobody can sign in to this tenant.</p>
{{end}}</form>
</main>
</body>
</html>
`))

var plainPage = template.Must(template.New("plain").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{.Title}}</title></head><body><h1>{{.Title}}</h1><p>{{.Text}}</p></body></html>
`))

func page(w http.ResponseWriter, status int, t *template.Template, data any) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'")
	w.WriteHeader(status)
	// A failed write means that the browser has gone.
	_ = t.Execute(w, data)
}

func refusePage(w http.ResponseWriter, text string) {
	page(w, http.StatusBadRequest, plainPage, map[string]string{"Title": "Sign in", "Text": text})
}

// authorize shows the sign-in page, and answers the choice made there with a code.
func (e *Entra) authorize(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		refusePage(w, "AADSTS900144: The request could not be read.")
		return
	}
	client, ok := e.client(r.Form.Get("client_id"))
	if !ok {
		refusePage(w, "AADSTS700016: Application was not found in the directory.")
		return
	}
	if !slices.Contains(client.Redirects, r.Form.Get("redirect_uri")) {
		refusePage(w, "AADSTS50011: The redirect URI specified in the request does not match the redirect URIs configured for the application.")
		return
	}
	if code, text := e.checkRequest(r.Form, client); code != "" {
		reply(w, r, url.Values{"error": {code}, "error_description": {text}})
		return
	}
	if r.Method == http.MethodPost {
		e.chosen(w, r, r.PostForm.Get("oid"))
		return
	}
	if r.Form.Get("prompt") == "none" {
		if c, err := r.Cookie(sessionCookie); err == nil {
			if _, ok := e.person(c.Value); ok {
				e.chosen(w, r, c.Value)
				return
			}
		}
		reply(w, r, url.Values{
			"error":             {"login_required"},
			"error_description": {"AADSTS50058: A silent sign-in request was sent but no user is signed in."},
		})
		return
	}
	e.showPeople(w, r, client)
}

func (e *Entra) showPeople(w http.ResponseWriter, r *http.Request, client Client) {
	type field struct{ Name, Value string }
	var fields []field
	for _, name := range carried {
		if v := r.Form.Get(name); v != "" {
			fields = append(fields, field{name, v})
		}
	}
	people := slices.Clone(e.cfg.People())
	if hint := r.Form.Get("login_hint"); hint != "" {
		slices.SortStableFunc(people, func(a, b Person) int {
			switch {
			case strings.EqualFold(a.UPN, hint) == strings.EqualFold(b.UPN, hint):
				return 0
			case strings.EqualFold(a.UPN, hint):
				return -1
			}
			return 1
		})
	}
	page(w, http.StatusOK, signInPage, map[string]any{
		"Tenant": e.cfg.TenantName,
		"Client": client.Name,
		"Action": e.Authority() + "/oauth2/v2.0/authorize",
		"Fields": fields,
		"People": people,
	})
}

// checkRequest returns an OAuth error code and text, or nothing.
func (e *Entra) checkRequest(form url.Values, client Client) (code, text string) {
	switch {
	case form.Get("response_type") != "code":
		return "unsupported_response_type", "AADSTS700054: response_type must be 'code'."
	case !slices.Contains([]string{"", "query", "fragment"}, form.Get("response_mode")):
		return "invalid_request", "AADSTS90023: Unsupported 'response_mode'."
	case form.Get("code_challenge") != "" && form.Get("code_challenge_method") != "S256":
		return "invalid_request", "AADSTS501491: Invalid code_challenge_method."
	case client.Secret == "" && form.Get("code_challenge") == "":
		return "invalid_request", "AADSTS9002325: Proof Key for Code Exchange is required for cross-origin authorization code redemption."
	}
	if _, _, invalid := e.resource(form.Get("scope")); invalid != "" {
		return "invalid_scope", "AADSTS70011: " + invalidScope(invalid)
	}
	return "", ""
}

func (e *Entra) chosen(w http.ResponseWriter, r *http.Request, oid string) {
	person, ok := e.person(oid)
	if !ok {
		refusePage(w, "AADSTS50034: The user account does not exist in the directory.")
		return
	}
	session := stableGUID("session", person.ID, opaque(16))
	code := e.put(grant{
		client:    r.Form.Get("client_id"),
		person:    person.ID,
		redirect:  r.Form.Get("redirect_uri"),
		challenge: r.Form.Get("code_challenge"),
		nonce:     r.Form.Get("nonce"),
		scope:     r.Form.Get("scope"),
		session:   session,
		expires:   e.cfg.Now().Add(codeLifetime),
	})
	http.SetCookie(w, &http.Cookie{
		Name: sessionCookie, Value: person.ID, Path: "/", HttpOnly: true,
		Secure: strings.HasPrefix(e.origin, "https:"), SameSite: http.SameSiteLaxMode,
	})
	answer := url.Values{"code": {code}, "session_state": {session}}
	if r.Form.Get("client_info") == "1" {
		answer.Set("client_info", e.clientInfo(person.ID))
	}
	reply(w, r, answer)
}

// reply sends the browser back to the application, with the request's state and in its response mode.
func reply(w http.ResponseWriter, r *http.Request, answer url.Values) {
	if s := r.Form.Get("state"); s != "" {
		answer.Set("state", s)
	}
	to := r.Form.Get("redirect_uri")
	switch {
	case r.Form.Get("response_mode") == "fragment":
		to += "#" + answer.Encode()
	case strings.Contains(to, "?"):
		to += "&" + answer.Encode()
	default:
		to += "?" + answer.Encode()
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, to, http.StatusFound)
}

// logout forgets the session and goes back to post_logout_redirect_uri if it is registered.
func (e *Entra) logout(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1})
	to := r.URL.Query().Get("post_logout_redirect_uri")
	for _, c := range e.cfg.Clients {
		if to != "" && slices.Contains(c.Redirects, to) {
			if s := r.URL.Query().Get("state"); s != "" {
				to += "?" + url.Values{"state": {s}}.Encode()
			}
			http.Redirect(w, r, to, http.StatusFound)
			return
		}
	}
	page(w, http.StatusOK, plainPage, map[string]string{"Title": "Signed out", "Text": "You can close this window."})
}
