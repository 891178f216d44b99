package entra

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"time"
)

// keyBits is the size of Entra ID's own signing keys.
const keyBits = 2048

// kept is how many signing keys stand in the key set at once, the current one included.
const kept = 2

type signingKey struct {
	id     string
	issuer string // the `issuer` member of the key set's entry; empty for a key that is in no set
	key    *rsa.PrivateKey
}

func newSigningKey(issuer string) *signingKey {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		// crypto/rand does not fail since Go 1.24, and the size is a constant that the library accepts.
		panic(err)
	}
	sum := sha256.Sum256(key.N.Bytes())
	return &signingKey{id: base64.RawURLEncoding.EncodeToString(sum[:20]), issuer: issuer, key: key}
}

func (k *signingKey) jwk() map[string]any {
	return map[string]any{
		"kty":    "RSA",
		"use":    "sig",
		"kid":    k.id,
		"x5t":    k.id,
		"n":      base64.RawURLEncoding.EncodeToString(k.key.N.Bytes()),
		"e":      base64.RawURLEncoding.EncodeToString(big.NewInt(int64(k.key.E)).Bytes()),
		"issuer": k.issuer,
	}
}

// RotateKeys makes a fresh key the signing one. The key before it stays in the key set until the next rotation, so
// that tokens already issued go on verifying.
func (e *Entra) RotateKeys() {
	k := newSigningKey(e.cfg.Base + "/{tenantid}/v2.0")
	e.mu.Lock()
	defer e.mu.Unlock()
	e.signing = append(e.signing, k)
	if len(e.signing) > kept {
		e.signing = e.signing[len(e.signing)-kept:]
	}
}

func (e *Entra) current() *signingKey {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.signing[len(e.signing)-1]
}

// A MintOption bends a minted token away from what the token endpoint would issue.
type MintOption func(*mint)

type mint struct {
	alg    string
	key    *signingKey
	header map[string]any
}

// WithAlg sets the token's algorithm: RS256 (the default), RS384, RS512, PS256, HS256 or none. HS256 uses the PEM of
// the tenant's public key as the secret, the classic confusion of algorithms; none leaves the signature empty.
func WithAlg(alg string) MintOption { return func(m *mint) { m.alg = alg } }

// WithHeader sets a member of the token's header; nil removes it. It is applied last.
func WithHeader(name string, value any) MintOption {
	return func(m *mint) { m.header[name] = value }
}

// WithForeignKey signs with a key that is in no key set but claims the id of one that is.
func (e *Entra) WithForeignKey() MintOption {
	return func(m *mint) {
		f := e.foreign()
		m.key = &signingKey{id: m.key.id, key: f.key}
	}
}

// WithUnknownKey signs with a key that is in no key set, under its own id.
func (e *Entra) WithUnknownKey() MintOption { return func(m *mint) { m.key = e.foreign() } }

// WithConsumersKey signs with the key that the key set marks as that of ConsumersTenant.
func (e *Entra) WithConsumersKey() MintOption { return func(m *mint) { m.key = e.consumers() } }

// Mint signs claims as they are, adding and checking nothing, with the tenant's current key unless an option says
// otherwise. A claim whose value is nil is left out, so that a test can start from PersonClaims or AppClaims and take
// things away. It panics if a claim cannot be written as JSON.
func (e *Entra) Mint(claims map[string]any, opts ...MintOption) string {
	m := &mint{alg: "RS256", key: e.current(), header: map[string]any{}}
	public := m.key
	for _, o := range opts {
		o(m)
	}
	header := map[string]any{"typ": "JWT", "alg": m.alg, "kid": m.key.id, "x5t": m.key.id}
	maps.Copy(header, m.header)
	signed := segment(header) + "." + segment(claims)
	sig, err := m.sign(signed, public)
	if err != nil {
		panic(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func segment(members map[string]any) string {
	kept := maps.Clone(members)
	maps.DeleteFunc(kept, func(_ string, v any) bool { return v == nil })
	b, err := json.Marshal(kept)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func (m *mint) sign(input string, public *signingKey) ([]byte, error) {
	in := []byte(input)
	h256, h384, h512 := sha256.Sum256(in), sha512.Sum384(in), sha512.Sum512(in)
	switch m.alg {
	case "none":
		return nil, nil
	case "RS256":
		return rsa.SignPKCS1v15(nil, m.key.key, crypto.SHA256, h256[:])
	case "RS384":
		return rsa.SignPKCS1v15(nil, m.key.key, crypto.SHA384, h384[:])
	case "RS512":
		return rsa.SignPKCS1v15(nil, m.key.key, crypto.SHA512, h512[:])
	case "PS256":
		return rsa.SignPSS(rand.Reader, m.key.key, crypto.SHA256, h256[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	case "HS256":
		der, err := x509.MarshalPKIXPublicKey(public.key.Public())
		if err != nil {
			return nil, fmt.Errorf("encode public key: %w", err)
		}
		mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		mac.Write(in)
		return mac.Sum(nil), nil
	}
	return nil, fmt.Errorf("sign token: algorithm %q is not known", m.alg)
}

// The reasons for which Verify refuses a token.
var (
	ErrMalformed = errors.New("token is malformed")
	ErrSignature = errors.New("token is not signed by this tenant")
	ErrExpired   = errors.New("token is expired or not yet valid")
	ErrAudience  = errors.New("token is for another audience")
)

// Verifier returns a check for a resource stand-in: the token is RS256, signed by this tenant's key set, in its
// lifetime, and for one of audiences. It returns the claims. It is what Graph, Storage and Key Vault do for
// themselves and no model for the project's own validation.
func (e *Entra) Verifier(audiences ...string) func(token string) (map[string]any, error) {
	return func(token string) (map[string]any, error) {
		claims, err := e.verify(token)
		if err != nil {
			return nil, err
		}
		for _, a := range audiences {
			if claims["aud"] == a {
				return claims, nil
			}
		}
		return nil, ErrAudience
	}
}

func (e *Entra) verify(token string) (map[string]any, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, ErrMalformed
	}
	var header struct{ Alg, Kid string }
	var claims map[string]any
	if decode(parts[0], &header) != nil || decode(parts[1], &claims) != nil {
		return nil, ErrMalformed
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return nil, ErrMalformed
	}
	key := e.published(header.Kid)
	if header.Alg != "RS256" || key == nil {
		return nil, ErrSignature
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if rsa.VerifyPKCS1v15(&key.key.PublicKey, crypto.SHA256, sum[:], sig) != nil {
		return nil, ErrSignature
	}
	now := float64(e.cfg.Now().Unix())
	exp, ok := claims["exp"].(float64)
	if nbf, _ := claims["nbf"].(float64); !ok || now >= exp || now < nbf {
		return nil, ErrExpired
	}
	return claims, nil
}

func decode(part string, into any) error {
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

func (e *Entra) published(kid string) *signingKey {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range e.signing {
		if k.id == kid {
			return k
		}
	}
	return nil
}

// PersonClaims are the claims of an access token that the tenant would issue to person now, for the API registered as
// client id api, through the application azp, with the given scopes. The map is the caller's to change.
func (e *Entra) PersonClaims(person Person, api, azp string, scopes ...string) map[string]any {
	c := e.times()
	c["ver"] = "2.0"
	c["iss"] = e.Issuer()
	c["aud"] = api
	c["azp"] = azp
	c["azpacr"] = "0"
	c["tid"] = e.cfg.Tenant
	c["oid"] = person.ID
	c["sub"] = pairwise(api, person.ID)
	c["name"] = person.Name
	c["preferred_username"] = person.UPN
	c["scp"] = strings.Join(scopes, " ")
	c["sid"] = stableGUID("session", person.ID)
	c["uti"] = opaque(16)
	c["rh"] = "1." + opaque(24)
	maps.Copy(c, person.Claims)
	return c
}

// AppClaims are the claims of an app-only token that the tenant would issue to client for resource now: version 1 for
// Microsoft's resources, version 2 for a client id of the tenant's own. The map is the caller's to change.
func (e *Entra) AppClaims(client Client, resource string) map[string]any {
	c := e.times()
	principal := stableGUID("service principal", client.ID)
	c["aud"] = resource
	c["idtyp"] = "app"
	c["oid"] = principal
	c["sub"] = principal
	c["tid"] = e.cfg.Tenant
	c["uti"] = opaque(16)
	c["rh"] = "1." + opaque(24)
	if roles := client.Roles[resource]; len(roles) > 0 {
		c["roles"] = roles
	}
	if _, own := e.client(resource); own {
		c["ver"], c["iss"], c["azp"], c["azpacr"] = "2.0", e.Issuer(), client.ID, "1"
		return c
	}
	c["ver"], c["iss"], c["idp"] = "1.0", e.IssuerV1(), e.IssuerV1()
	c["appid"], c["appidacr"], c["app_displayname"] = client.ID, "1", client.Name
	return c
}

func (e *Entra) times() map[string]any {
	e.mu.Lock()
	d := e.lifetime
	e.mu.Unlock()
	now := e.cfg.Now()
	start := now
	if d <= 0 {
		start = now.Add(d - time.Minute)
	}
	return map[string]any{"iat": start.Unix(), "nbf": start.Unix(), "exp": now.Add(d).Unix()}
}

// opaque is n random bytes as text.
func opaque(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}
