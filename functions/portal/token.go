package portal

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"steno/shared/bearer"
	"steno/shared/teams"
)

// leeway is the difference of clocks that is forgiven.
const leeway = 120 * time.Second

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
	bearer *bearer.Verifier
}

func newTokenVerifier(c Config) (*tokenVerifier, error) {
	keys := bearer.NewKeys(bearer.KeysConfig{URL: c.KeysURL, HTTP: c.HTTP, Now: c.Now, Issuer: func(issuer string) bool {
		// Entra publishes an issuer with each key: with {tenantid} replaced it must be the
		// issuer that tokens name. A key of the consumers' tenant signs tokens that may
		// claim anything.
		return strings.ReplaceAll(issuer, "{tenantid}", string(c.Tenant)) == c.Issuer
	}})
	v, err := bearer.NewVerifier(bearer.Rules{Keys: keys, Issuers: []string{c.Issuer}, Leeway: leeway, Now: c.Now})
	return &tokenVerifier{config: c, bearer: v}, err
}

// claims are the claims that are read. Audience is a single string here: an array
// would be a token for several APIs.
type claims struct {
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
	var c claims
	if err := v.bearer.Verify(ctx, h, &c); err != nil {
		return identity{}, err
	}
	return v.check(c)
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
