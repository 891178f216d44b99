package azure

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
)

// scalarBytes is the length of a coordinate of P-256, and of r and s in a signature as
// the vault spells it (RFC 7518 section 3.4).
const scalarBytes = 32

var (
	order     = elliptic.P256().Params().N
	halfOrder = new(big.Int).Rsh(order, 1)
)

// Signer signs with an EC P-256 key of Key Vault; the private half never leaves the
// vault. It is safe for use by many goroutines.
type Signer struct {
	c     *azkeys.Client
	name  string
	hosts []string
	now   func() time.Time

	mu      sync.Mutex
	id      string // of the current version
	current *ecdsa.PublicKey
	until   time.Time
	publics map[string]*ecdsa.PublicKey // by version, which never changes its key
}

// signingKeyTTL is how long the current version is believed to be current. A version
// that was followed by another must stay enabled for as long, or signing fails until
// the new one is noticed.
const signingKeyTTL = wrappingKeyTTL

// NewSigner returns the signing part for the named EC key. hosts lists the vault hosts
// whose key URLs are accepted, such as steno.vault.azure.net; without one nothing is
// signed.
func NewSigner(c *azkeys.Client, name string, hosts []string) *Signer {
	return &Signer{c: c, name: name, hosts: slices.Clone(hosts), now: time.Now, publics: map[string]*ecdsa.PublicKey{}}
}

// SigningKey returns the current version of the key: its URL, version included, and its
// public half. It asks the vault at most once an hour, which costs one vault operation;
// a rotation is noticed within that hour. It fails if the vault cannot be read, if the
// key is not an EC key on P-256, or if its URL is not on a configured host. It changes
// nothing and may be repeated.
func (s *Signer) SigningKey(ctx context.Context) (id string, key *ecdsa.PublicKey, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && s.now().Before(s.until) {
		return s.id, s.current, nil
	}
	id, ver, key, err := s.read(ctx, "")
	if err != nil {
		return "", nil, err
	}
	s.id, s.current, s.until = id, key, s.now().Add(signingKeyTTL)
	s.publics[ver] = key
	return id, key, nil
}

// Sign signs a digest with the key version that id names, current or not, and returns
// the ES256 signature in DER, with the lower of the two values of s that verify.
//
// It costs one vault operation, and one more the first time this Signer meets a version
// that SigningKey has not returned. It fails, before the vault is asked, if id is not
// the URL of a version of this key on a configured host, and it fails if the vault
// refuses or if what the vault answers is not a signature of the digest by that version:
// a returned signature has been verified. It may be repeated: each call gives another
// signature, so the identity of what is signed is its digest, never the signature's
// bytes.
func (s *Signer) Sign(ctx context.Context, id string, digest [sha256.Size]byte) (der []byte, err error) {
	ver, err := s.versionOf(id)
	if err != nil {
		return nil, fmt.Errorf("sign with vault key %s: %w", s.name, err)
	}
	key, err := s.public(ctx, ver)
	if err != nil {
		return nil, fmt.Errorf("sign with vault key %s/%s: %w", s.name, ver, err)
	}
	r, err := s.c.Sign(ctx, s.name, ver, azkeys.SignParameters{
		Algorithm: to.Ptr(azkeys.SignatureAlgorithmES256), Value: digest[:],
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("sign with vault key %s/%s: %w", s.name, ver, hide(err))
	}
	if r.KID == nil {
		return nil, fmt.Errorf("sign with vault key %s/%s: vault does not say which key signed", s.name, ver)
	}
	if by, err := s.versionOf(string(*r.KID)); err != nil || by != ver {
		return nil, fmt.Errorf("sign with vault key %s/%s: vault answered for another key", s.name, ver)
	}
	der, err = lowDER(r.Result)
	if err != nil {
		return nil, fmt.Errorf("sign with vault key %s/%s: %w", s.name, ver, err)
	}
	if !ecdsa.VerifyASN1(key, digest[:], der) {
		return nil, fmt.Errorf("sign with vault key %s/%s: vault answered a signature that the key did not make", s.name, ver)
	}
	return der, nil
}

// public returns the public half of a version.
func (s *Signer) public(ctx context.Context, ver string) (*ecdsa.PublicKey, error) {
	s.mu.Lock()
	key := s.publics[ver]
	s.mu.Unlock()
	if key != nil {
		return key, nil
	}
	_, _, key, err := s.read(ctx, ver)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publics[ver] = key
	return key, nil
}

// read asks the vault for a version, or for the current one if want is empty.
func (s *Signer) read(ctx context.Context, want string) (id, ver string, key *ecdsa.PublicKey, err error) {
	k, err := s.c.GetKey(ctx, s.name, want, nil)
	if err != nil {
		return "", "", nil, fmt.Errorf("read vault key %s: %w", s.name, hide(err))
	}
	if k.Key == nil || k.Key.KID == nil {
		return "", "", nil, fmt.Errorf("read vault key %s: vault answered without a key", s.name)
	}
	id = string(*k.Key.KID)
	if ver, err = s.versionOf(id); err != nil {
		return "", "", nil, fmt.Errorf("read vault key %s: %w", s.name, err)
	}
	if want != "" && ver != want {
		return "", "", nil, fmt.Errorf("read vault key %s: vault answered another version than %s", s.name, want)
	}
	if key, err = publicKey(k.Key); err != nil {
		return "", "", nil, fmt.Errorf("read vault key %s: %w", s.name, err)
	}
	return id, ver, key, nil
}

func publicKey(k *azkeys.JSONWebKey) (*ecdsa.PublicKey, error) {
	if k.Kty == nil || (*k.Kty != azkeys.KeyTypeEC && *k.Kty != azkeys.KeyTypeECHSM) ||
		k.Crv == nil || *k.Crv != azkeys.CurveNameP256 {
		return nil, errors.New("not an EC key on P-256; name one that is")
	}
	x, y := new(big.Int).SetBytes(k.X), new(big.Int).SetBytes(k.Y)
	if x.BitLen() > 8*scalarBytes || y.BitLen() > 8*scalarBytes {
		return nil, errors.New("coordinates are longer than P-256 has them")
	}
	point := make([]byte, 1+2*scalarBytes)
	point[0] = 4 // uncompressed, SEC 1 section 2.3.3
	x.FillBytes(point[1 : 1+scalarBytes])
	y.FillBytes(point[1+scalarBytes:])
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, fmt.Errorf("coordinates are not a point of P-256: %w", err)
	}
	return key, nil
}

var keyPath = regexp.MustCompile(`^/keys/([0-9A-Za-z-]{1,127})/([0-9A-Za-z]{1,64})$`)

// versionOf returns the version that id names. It refuses every id but the URL of a
// version of this key on a configured host: whoever can write a stored id must not be
// able to choose the vault or the key. Its errors leave the URL out.
func (s *Signer) versionOf(id string) (string, error) {
	u, err := url.Parse(id)
	if err != nil || u.Scheme != "https" || u.User != nil || strings.ContainsAny(id, "?#") {
		return "", errors.New("key id is not a plain https URL")
	}
	m := keyPath.FindStringSubmatch(u.EscapedPath())
	if m == nil {
		return "", errors.New("key id names no version of a key")
	}
	if !strings.EqualFold(m[1], s.name) { // the vault does not tell case apart in names
		return "", errors.New("key id names another key")
	}
	if !slices.ContainsFunc(s.hosts, func(h string) bool { return strings.EqualFold(h, u.Host) }) {
		return "", errors.New("key id is on a host that is not one of ours; check the configured vault hosts")
	}
	return m[2], nil
}

// lowDER turns r||s into DER. Of s and order-s, which both verify, it takes the lower
// one, so that nobody can make a second signature of the first without the key.
func lowDER(raw []byte) ([]byte, error) {
	if len(raw) != 2*scalarBytes {
		return nil, fmt.Errorf("vault answered a signature of %d bytes, want %d", len(raw), 2*scalarBytes)
	}
	r, s := new(big.Int).SetBytes(raw[:scalarBytes]), new(big.Int).SetBytes(raw[scalarBytes:])
	if r.Sign() == 0 || s.Sign() == 0 || r.Cmp(order) >= 0 || s.Cmp(order) >= 0 {
		return nil, errors.New("vault answered a signature whose r or s is out of range")
	}
	if s.Cmp(halfOrder) > 0 {
		s.Sub(order, s)
	}
	der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
	if err != nil {
		return nil, fmt.Errorf("encode signature: %w", err)
	}
	return der, nil
}
