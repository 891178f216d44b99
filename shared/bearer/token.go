package bearer

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
)

// MaxToken bounds a token, in bytes.
const MaxToken = 16 << 10

// Rules are what a Verifier holds every token to.
type Rules struct {
	Keys    *Keys
	Issuers []string      // exact values of iss, any one of them
	Leeway  time.Duration // difference of clocks that is forgiven
	Now     func() time.Time
}

// Verifier verifies tokens of one issuer. It is safe for use by many goroutines.
type Verifier struct {
	rules  Rules
	parser *jwt.Parser
}

// NewVerifier returns a verifier. Rules need keys and at least one issuer.
func NewVerifier(r Rules) (*Verifier, error) {
	if r.Keys == nil || len(r.Issuers) == 0 || slices.Contains(r.Issuers, "") || r.Leeway < 0 {
		return nil, errors.New("bearer: rules need keys, issuers and a leeway that is not negative")
	}
	if r.Now == nil {
		r.Now = time.Now
	}
	return &Verifier{rules: r, parser: jwt.NewParser(
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithStrictDecoding(), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithLeeway(r.Leeway), jwt.WithTimeFunc(r.Now),
	)}, nil
}

// Verify checks the single bearer token of a request: its form, signature, issuer and
// times. It then decodes the claims into claims, a pointer to a struct; audience, tenant
// and everything else are the caller's to check. The error names the rule that refused
// the token and quotes nothing of it: it is for the log, callers are told nothing.
func (v *Verifier) Verify(ctx context.Context, h http.Header, claims any) error {
	values := h.Values("Authorization")
	if len(values) != 1 {
		return errors.New("no single authorization header")
	}
	raw, ok := strings.CutPrefix(values[0], "Bearer ")
	if !ok {
		return errors.New("no bearer token")
	}
	return v.VerifyToken(ctx, raw, claims)
}

// VerifyToken is Verify for a token that did not come in a header.
func (v *Verifier) VerifyToken(ctx context.Context, raw string, claims any) error {
	if len(raw) > MaxToken {
		return errors.New("no token of acceptable size")
	}
	payload, err := checkParts(raw)
	if err != nil {
		return err
	}
	var registered jwt.RegisteredClaims
	_, err = v.parser.ParseWithClaims(raw, &registered, func(t *jwt.Token) (any, error) { return v.key(ctx, t) })
	if err != nil {
		return refusal(err)
	}
	if !slices.Contains(v.rules.Issuers, registered.Issuer) {
		return jwt.ErrTokenInvalidIssuer
	}
	if err := json.Unmarshal(payload, claims); err != nil {
		return errors.New("token has a claim of another type")
	}
	return nil
}

// refusal keeps the library's reason and drops the rest, which can quote the token.
func refusal(err error) error {
	for _, known := range []error{
		jwt.ErrTokenExpired, jwt.ErrTokenNotValidYet, jwt.ErrTokenUsedBeforeIssued,
		jwt.ErrTokenRequiredClaimMissing, jwt.ErrTokenSignatureInvalid, ErrKey, jwt.ErrTokenUnverifiable, jwt.ErrTokenMalformed,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	return errors.New("token refused")
}

// key finds the signing key. The header may name it and nothing more: a token that
// brings its own key, or asks for extensions, is refused before any look-up.
func (v *Verifier) key(ctx context.Context, t *jwt.Token) (any, error) {
	for _, name := range []string{"jku", "jwk", "x5u", "crit", "b64", "zip", "nonce"} {
		if _, there := t.Header[name]; there {
			return nil, fmt.Errorf("%w: header %s", ErrKey, name)
		}
	}
	kid, ok := t.Header["kid"].(string)
	if !ok || kid == "" || len(kid) > 256 {
		return nil, fmt.Errorf("%w: no kid", ErrKey)
	}
	return v.rules.Keys.find(ctx, kid)
}

// checkParts refuses what two parsers could read in two ways: names that are
// repeated, in any case, at the top level of header or claims. It returns the claims.
func checkParts(raw string) (payload []byte, err error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, errors.New("token is not of three parts")
	}
	for _, part := range parts[:2] {
		if payload, err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil {
			return nil, errors.New("token is not base64url")
		}
		if err := uniqueNames(payload); err != nil {
			return nil, err
		}
	}
	return payload, nil
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
