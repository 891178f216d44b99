package main

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"steno/mediabot/internal/session"
	"steno/shared/bearer"
	"steno/shared/conversation"
	"steno/shared/teams"
)

// The right to control recordings: a delegated scope, or an application role, of this
// name.
const controlRight = "Recording.Control"

const (
	controlLeeway = 120 * time.Second
	maxControl    = 4 << 10 // bytes of a request
	maxReason     = 256     // bytes
)

// control is the API by which recordings are paused and the recorder is drained:
//
//	GET  {base}/control/legs
//	POST {base}/control/legs/{leg}/pause   {"reason":"…"}
//	POST {base}/control/legs/{leg}/resume  {"reason":"…"}
//	POST {base}/control/drain
//
// Whoever asks presents an Entra access token for the API's own audience. A pause is
// attributed to the token's object id in the leg's history, where it explains the gap.
type control struct {
	tenant   teams.TenantID
	audience string
	clients  []string
	tokens   *bearer.Verifier
	legs     *session.Legs
	drain    func()
	log      *slog.Logger
}

func newControl(s settings, legs *session.Legs, drain func(), log *slog.Logger) (*control, error) {
	keys := bearer.NewKeys(bearer.KeysConfig{URL: s.jwksURL, Issuer: func(issuer string) bool {
		// Entra publishes an issuer with each key; that of the consumers' tenant signs
		// tokens that may claim anything.
		return strings.ReplaceAll(issuer, "{tenantid}", string(s.tenant)) == s.issuer
	}})
	tokens, err := bearer.NewVerifier(bearer.Rules{Keys: keys, Issuers: []string{s.issuer}, Leeway: controlLeeway})
	if err != nil {
		return nil, err
	}
	return &control{tenant: s.tenant, audience: s.controlAudience, clients: s.controlClients, tokens: tokens, legs: legs, drain: drain, log: log}, nil
}

func (c *control) routes(mux *http.ServeMux, base string) {
	mux.HandleFunc("GET "+base+"/control/legs", c.authorized(c.list))
	mux.HandleFunc("POST "+base+"/control/legs/{leg}/pause", c.authorized(c.pause))
	mux.HandleFunc("POST "+base+"/control/legs/{leg}/resume", c.authorized(c.resume))
	mux.HandleFunc("POST "+base+"/control/drain", c.authorized(c.startDrain))
}

// controlClaims are the claims that are read. Audience is a single string: a list would
// be a token for several APIs.
// https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
type controlClaims struct {
	Audience string   `json:"aud"`
	Version  string   `json:"ver"`
	Tenant   string   `json:"tid"`
	Object   string   `json:"oid"`
	Client   string   `json:"azp"`
	Scopes   string   `json:"scp"`
	Roles    []string `json:"roles"`
	Type     string   `json:"idtyp"`
}

// actor checks the token and returns the object id that acts. The error is for the log.
func (c *control) actor(r *http.Request) (teams.PersonID, error) {
	var claims controlClaims
	if err := c.tokens.Verify(r.Context(), r.Header, &claims); err != nil {
		return "", err
	}
	tenant, err := teams.ParseTenantID(claims.Tenant)
	actor, err2 := teams.ParsePersonID(claims.Object)
	switch {
	case err != nil || tenant != c.tenant:
		return "", errors.New("token of another tenant")
	case err2 != nil:
		return "", errors.New("token without object id")
	case claims.Version != "2.0":
		return "", errors.New("token is not of version 2.0")
	case claims.Audience != c.audience:
		return "", errors.New("token for another audience")
	case !slices.Contains(c.clients, claims.Client):
		return "", errors.New("token given to another client")
	}
	delegated := claims.Type != "app" && slices.Contains(strings.Fields(claims.Scopes), controlRight)
	application := claims.Scopes == "" && slices.Contains(claims.Roles, controlRight)
	if !delegated && !application {
		return "", errors.New("token without the right " + controlRight)
	}
	return actor, nil
}

type controlHandler func(w http.ResponseWriter, r *http.Request, actor teams.PersonID) (any, error)

// authorized lets nobody through without the right, and writes what comes out.
func (c *control) authorized(h controlHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		actor, err := c.actor(r)
		if err != nil {
			c.log.WarnContext(r.Context(), "control refused", slog.String("cause", err.Error()))
			w.Header().Set("WWW-Authenticate", "Bearer")
			problem(w, http.StatusUnauthorized, "Sign in")
			return
		}
		out, err := h(w, r, actor)
		switch {
		case errors.Is(err, session.ErrNoLeg):
			problem(w, http.StatusNotFound, "No such leg in progress")
		case errors.Is(err, errBadRequest):
			problem(w, http.StatusBadRequest, err.Error())
		case err != nil:
			c.log.ErrorContext(r.Context(), "control failed", slog.String("cause", err.Error()))
			problem(w, http.StatusInternalServerError, "Try again")
		default:
			w.Header().Set("Content-Type", "application/json")
			if err := json.NewEncoder(w).Encode(out); err != nil {
				c.log.WarnContext(r.Context(), "answer not written", slog.String("cause", err.Error()))
			}
		}
	}
}

func problem(w http.ResponseWriter, status int, title string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	body, err := json.Marshal(map[string]any{"status": status, "title": title})
	if err == nil {
		_, _ = w.Write(body) // the caller has gone, and learns nothing
	}
}

var errBadRequest = errors.New("want {\"reason\": 1 to 256 bytes of text} for a leg's id")

func (c *control) list(http.ResponseWriter, *http.Request, teams.PersonID) (any, error) {
	return map[string]any{"legs": c.legs.List()}, nil
}

func (c *control) pause(w http.ResponseWriter, r *http.Request, actor teams.PersonID) (any, error) {
	leg, reason, err := readControl(w, r)
	if err != nil {
		return nil, err
	}
	c.log.InfoContext(r.Context(), "pause asked for", slog.String("leg", string(leg)), slog.Any("actor", actor))
	return map[string]string{"state": "paused"}, c.legs.Pause(r.Context(), leg, actor, reason)
}

func (c *control) resume(w http.ResponseWriter, r *http.Request, actor teams.PersonID) (any, error) {
	leg, reason, err := readControl(w, r)
	if err != nil {
		return nil, err
	}
	c.log.InfoContext(r.Context(), "resumption asked for", slog.String("leg", string(leg)), slog.Any("actor", actor))
	return map[string]string{"state": "resuming"}, c.legs.Resume(r.Context(), leg, actor, reason)
}

func (c *control) startDrain(_ http.ResponseWriter, r *http.Request, actor teams.PersonID) (any, error) {
	c.log.WarnContext(r.Context(), "drain asked for", slog.Any("actor", actor))
	c.drain()
	return map[string]any{"state": "draining", "legs": c.legs.Count()}, nil
}

func readControl(w http.ResponseWriter, r *http.Request) (conversation.LegID, string, error) {
	leg, err := conversation.ParseLegID(r.PathValue("leg"))
	if err != nil {
		return "", "", errBadRequest
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxControl))
	if err != nil {
		return "", "", errBadRequest
	}
	var body struct {
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(b, &body); err != nil {
		return "", "", errBadRequest
	}
	reason := strings.TrimSpace(body.Reason)
	if reason == "" || len(reason) > maxReason || !utf8.ValidString(reason) || strings.ContainsFunc(reason, unicode.IsControl) {
		return "", "", errBadRequest
	}
	return leg, reason, nil
}
