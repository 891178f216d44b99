package portal

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"steno/shared/teams"
)

// Limits of a token.
const (
	maxToken = 16 << 10
	leeway   = 120 * time.Second
)

// identity is who a verified access token speaks of. The key is (tenant, oid); names
// and addresses in a token are for show and are not read.
type identity struct {
	person  teams.PersonID
	session string // uti: the token's own id, kept in the trail
}

// tokenVerifier checks Entra v2.0 access tokens for this API.
// https://learn.microsoft.com/entra/identity-platform/access-tokens
// https://learn.microsoft.com/entra/identity-platform/claims-validation
type tokenVerifier struct {
	config Config
	keys   *keySet
	parser *jwt.Parser
}

func newTokenVerifier(c Config) *tokenVerifier {
	return &tokenVerifier{
		config: c,
		keys:   newKeySet(c),
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{"RS256"}), jwt.WithStrictDecoding(), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
			jwt.WithIssuer(c.Issuer), jwt.WithLeeway(leeway), jwt.WithTimeFunc(c.Now),
		),
	}
}

// claims are the claims that are read. Audience is a single string here: an array
// would be a token for several APIs.
type claims struct {
	jwt.RegisteredClaims
	Aud     string          `json:"aud"`
	Version string          `json:"ver"`
	Tenant  string          `json:"tid"`
	Object  string          `json:"oid"`
	Azp     string          `json:"azp"`
	Scopes  string          `json:"scp"`
	Type    string          `json:"idtyp"`
	Uti     string          `json:"uti"`
	Nonce   json.RawMessage `json:"nonce"`
}

// verify returns who the bearer token speaks of. The error says which rule refused
// the token, for the log; callers are told nothing.
func (v *tokenVerifier) verify(ctx context.Context, h http.Header) (identity, error) {
	values := h.Values("Authorization")
	if len(values) != 1 {
		return identity{}, errors.New("no single authorization header")
	}
	raw, ok := strings.CutPrefix(values[0], "Bearer ")
	if !ok || len(raw) > maxToken {
		return identity{}, errors.New("no bearer token of acceptable size")
	}
	if err := checkParts(raw); err != nil {
		return identity{}, err
	}
	var c claims
	_, err := v.parser.ParseWithClaims(raw, &c, func(t *jwt.Token) (any, error) { return v.key(ctx, t) })
	if err != nil {
		return identity{}, refusal(err)
	}
	return v.check(c)
}

// refusal keeps the library's reason and drops the rest, which can quote the token.
func refusal(err error) error {
	for _, known := range []error{
		jwt.ErrTokenExpired, jwt.ErrTokenNotValidYet, jwt.ErrTokenUsedBeforeIssued, jwt.ErrTokenInvalidIssuer,
		jwt.ErrTokenRequiredClaimMissing, jwt.ErrTokenSignatureInvalid, errKey, jwt.ErrTokenUnverifiable, jwt.ErrTokenMalformed,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	return errors.New("token refused")
}

// key finds the signing key. The header may name it and nothing more: a token that
// brings its own key, or asks for extensions, is refused before any look-up.
func (v *tokenVerifier) key(ctx context.Context, t *jwt.Token) (any, error) {
	for _, name := range []string{"jku", "jwk", "x5u", "crit", "b64", "zip", "nonce"} {
		if _, there := t.Header[name]; there {
			return nil, fmt.Errorf("%w: header %s", errKey, name)
		}
	}
	kid, ok := t.Header["kid"].(string)
	if !ok || kid == "" || len(kid) > 256 {
		return nil, fmt.Errorf("%w: no kid", errKey)
	}
	return v.keys.find(ctx, kid)
}

func (v *tokenVerifier) check(c claims) (identity, error) {
	tenant, err := teams.ParseTenantID(c.Tenant)
	person, err2 := teams.ParsePersonID(c.Object)
	switch {
	case err != nil || tenant != v.config.Tenant || string(tenant) != c.Tenant:
		return identity{}, errors.New("token of another tenant")
	case err2 != nil:
		return identity{}, errors.New("token without object id")
	case c.Version != "2.0":
		return identity{}, errors.New("token is not of version 2.0")
	case c.Aud != v.config.Audience:
		return identity{}, errors.New("token for another audience")
	case c.Azp != v.config.Client:
		return identity{}, errors.New("token given to another client")
	case c.Type != "" && c.Type != "user":
		return identity{}, errors.New("token of an application")
	case c.Nonce != nil:
		return identity{}, errors.New("an id token is no access token")
	case !slices.Contains(strings.Fields(c.Scopes), v.config.Scope):
		return identity{}, errors.New("token without the scope")
	}
	return identity{person: person, session: c.Uti}, nil
}

// checkParts refuses what two parsers could read in two ways: names that are
// repeated, in any case, at the top level of header or claims.
func checkParts(raw string) error {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return errors.New("token is not of three parts")
	}
	for _, part := range parts[:2] {
		b, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil {
			return errors.New("token is not base64url")
		}
		if err := uniqueNames(b); err != nil {
			return err
		}
	}
	return nil
}

func uniqueNames(b []byte) error {
	dec := json.NewDecoder(strings.NewReader(string(b)))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return errors.New("token part is no JSON object")
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		if err != nil || !ok || seen[strings.ToLower(name)] {
			return errors.New("token repeats a name")
		}
		seen[strings.ToLower(name)] = true
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return errors.New("token part is not JSON")
		}
	}
	return nil
}
