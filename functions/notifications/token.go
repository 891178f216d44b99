package notifications

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"steno/shared/bearer"
	"steno/shared/teams"
)

// leeway is the difference of clocks that is forgiven.
const leeway = 120 * time.Second

// publisher is the application that Graph's change notifications come from. Without this
// check any application of Entra could get a token for ours.
// https://learn.microsoft.com/graph/change-notifications-with-resource-data#validation-tokens-in-the-change-notification
const publisher = "0bf30f3b-4a52-48df-9a82-234910c4a086"

// tokens verifies validationTokens. They are of version 1.0 or 2.0, as the application's
// manifest says, and name issuer and publisher differently.
type tokens struct {
	tenant   teams.TenantID
	audience string
	bearer   *bearer.Verifier
}

// issuers are who issues tokens of either version for a tenant.
func issuers(tenant teams.TenantID) (v1, v2 string) {
	return "https://sts.windows.net/" + string(tenant) + "/", "https://login.microsoftonline.com/" + string(tenant) + "/v2.0"
}

// publishes judges the issuer that is published beside a key: with {tenantid} replaced it must
// be the tenant's. Keys that sign for consumers only name another.
func publishes(tenant teams.TenantID) func(issuer string) bool {
	_, v2 := issuers(tenant)
	return func(issuer string) bool {
		return issuer == "" || strings.ReplaceAll(issuer, "{tenantid}", string(tenant)) == v2
	}
}

func newTokens(tenant teams.TenantID, audience string, keys *bearer.Keys) (*tokens, error) {
	v1, v2 := issuers(tenant)
	v, err := bearer.NewVerifier(bearer.Rules{Keys: keys, Issuers: []string{v1, v2}, Leeway: leeway})
	return &tokens{tenant, audience, v}, err
}

// tokenClaims are the claims that are read. An array of audiences is refused.
type tokenClaims struct {
	Iss     string `json:"iss"`
	Aud     string `json:"aud"`
	Tenant  string `json:"tid"`
	Version string `json:"ver"`
	AppID   string `json:"appid"` // version 1.0
	Azp     string `json:"azp"`   // version 2.0
}

// verify demands that there are tokens and that every one is good. All are of the one tenant,
// and so must be the items.
func (t *tokens) verify(ctx context.Context, list []string) error {
	if len(list) == 0 {
		return refusal("no validation tokens")
	}
	for i, raw := range list {
		var c tokenClaims
		err := t.bearer.VerifyToken(ctx, raw, &c)
		if err == nil {
			err = t.check(c)
		}
		if err != nil {
			return refusal(fmt.Sprintf("validation token %d of %d: %v", i+1, len(list), err))
		}
	}
	return nil
}

func (t *tokens) check(c tokenClaims) error {
	v1, v2 := issuers(t.tenant)
	by := ""
	switch {
	case c.Iss == v1 && c.Version == "1.0" && c.Azp == "":
		by = c.AppID
	case c.Iss == v2 && c.Version == "2.0" && c.AppID == "":
		by = c.Azp
	default:
		return errors.New("version and issuer do not fit")
	}
	switch {
	case by != publisher:
		return errors.New("not published by Graph")
	case c.Aud != t.audience:
		return errors.New("for another audience")
	case c.Tenant != string(t.tenant):
		return errors.New("of another tenant")
	}
	return nil
}

// readAll reads a body of at most limit bytes.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errors.New("too large")
	}
	return b, err
}
