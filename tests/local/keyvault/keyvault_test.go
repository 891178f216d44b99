package keyvault_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"steno/tests/local/ca"
	"steno/tests/local/keyvault"
)

const app = "77777777-aaaa-4bbb-8ccc-888888888888"

// credential hands out unsigned tokens, which a vault without Config.VerifyToken accepts.
type credential struct {
	audience string
	lives    time.Duration
	asked    []string
}

func (c *credential) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.asked = append(c.asked, o.Scopes...)
	until := time.Now().Add(c.lives)
	claims, err := json.Marshal(map[string]any{"aud": c.audience, "appid": app, "exp": until.Unix()})
	if err != nil {
		return azcore.AccessToken{}, err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return azcore.AccessToken{Token: b64([]byte(`{"alg":"none"}`)) + "." + b64(claims) + ".", ExpiresOn: until.Add(time.Hour)}, nil
}

type fixture struct {
	*keyvault.Vault
	t    *testing.T
	keys *azkeys.Client
	cred *credential
	url  string
	http *http.Client
}

func start(t *testing.T, cfg keyvault.Config) *fixture {
	t.Helper()
	authority, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Local()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Authority = "https://login.microsoftonline.com/11111111-aaaa-4bbb-8ccc-222222222222"
	v, err := keyvault.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(v)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	client := authority.Client()
	t.Cleanup(client.CloseIdleConnections)
	cred := &credential{audience: keyvault.Resource, lives: time.Hour}
	keys, err := azkeys.NewClient(s.URL, cred, &azkeys.ClientOptions{
		DisableChallengeResourceVerification: true,
		ClientOptions: azcore.ClientOptions{Transport: client, Retry: policy.RetryOptions{
			MaxRetries: 3, RetryDelay: time.Millisecond, MaxRetryDelay: 10 * time.Millisecond,
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{v, t, keys, cred, s.URL, client}
}

func (f *fixture) create(name string, kty azkeys.KeyType) *azkeys.JSONWebKey {
	f.t.Helper()
	r, err := f.keys.CreateKey(f.t.Context(), name, azkeys.CreateKeyParameters{Kty: &kty}, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return r.Key
}

func oaep(value []byte) azkeys.KeyOperationParameters {
	alg := azkeys.EncryptionAlgorithmRSAOAEP256
	return azkeys.KeyOperationParameters{Algorithm: &alg, Value: value}
}

func code(err error) string {
	var r *azcore.ResponseError
	if !errors.As(err, &r) {
		return ""
	}
	return r.ErrorCode
}

func TestWrappedKeyUnwrapsAlsoAfterRotation(t *testing.T) {
	f := start(t, keyvault.Config{})
	key := f.create("conversations", azkeys.KeyTypeRSA)
	dek := make([]byte, 32)
	rand.Read(dek)
	wrapped, err := f.keys.WrapKey(t.Context(), "conversations", "", oaep(dek), nil)
	if err != nil {
		t.Fatal(err)
	}
	if *wrapped.KID != *key.KID {
		t.Errorf("wrapped by %s, created %s", *wrapped.KID, *key.KID)
	}
	rotated, err := f.keys.RotateKey(t.Context(), "conversations", nil)
	if err != nil {
		t.Fatal(err)
	}
	if *rotated.Key.KID == *key.KID {
		t.Error("rotation kept the version")
	}
	if _, err := f.keys.UnwrapKey(t.Context(), "conversations", "", oaep(wrapped.Result), nil); err == nil {
		t.Error("the new version unwrapped what the old one wrapped")
	}
	old, err := f.keys.UnwrapKey(t.Context(), "conversations", key.KID.Version(), oaep(wrapped.Result), nil)
	if err != nil || !bytes.Equal(old.Result, dek) {
		t.Errorf("old version: %v", err)
	}
	if f.cred.asked[0] != keyvault.Resource+"/.default" {
		t.Errorf("scopes asked for are %v", f.cred.asked)
	}
}

func TestKeyWrappedLocallyWithThePublicKeyUnwraps(t *testing.T) {
	f := start(t, keyvault.Config{})
	id, err := f.CreateKey("conversations", "RSA", 3072)
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"", id} {
		got, err := f.keys.GetKey(t.Context(), "conversations", version, nil)
		if err != nil {
			t.Fatal(err)
		}
		pub := &rsa.PublicKey{N: new(big.Int).SetBytes(got.Key.N), E: int(new(big.Int).SetBytes(got.Key.E).Int64())}
		if pub.N.BitLen() != 3072 || got.Key.KID.Version() != id || !*got.Attributes.Enabled {
			t.Errorf("key is %d bits, version %s", pub.N.BitLen(), got.Key.KID.Version())
		}
		wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, pub, []byte("data key"), nil)
		if err != nil {
			t.Fatal(err)
		}
		back, err := f.keys.UnwrapKey(t.Context(), "conversations", id, oaep(wrapped), nil)
		if err != nil || string(back.Result) != "data key" {
			t.Errorf("unwrap: %q, %v", back.Result, err)
		}
	}
}

func TestSignatureIsRawAndVerifies(t *testing.T) {
	f := start(t, keyvault.Config{})
	key := f.create("manifests", azkeys.KeyTypeEC)
	digest := sha256.Sum256([]byte("manifest"))
	alg := azkeys.SignatureAlgorithmES256
	sig, err := f.keys.Sign(t.Context(), "manifests", "", azkeys.SignParameters{Algorithm: &alg, Value: digest[:]}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(sig.Result) != 64 {
		t.Fatalf("signature is %d bytes", len(sig.Result))
	}
	pub := &ecdsa.PublicKey{Curve: elliptic.P256(), X: new(big.Int).SetBytes(key.X), Y: new(big.Int).SetBytes(key.Y)}
	if !ecdsa.Verify(pub, digest[:], new(big.Int).SetBytes(sig.Result[:32]), new(big.Int).SetBytes(sig.Result[32:])) {
		t.Error("signature does not verify with the public key")
	}
	for want, d := range map[bool][]byte{true: digest[:], false: bytes.Repeat([]byte{1}, 32)} {
		got, err := f.keys.Verify(t.Context(), "manifests", "", azkeys.VerifyParameters{Algorithm: &alg, Digest: d, Signature: sig.Result}, nil)
		if err != nil || *got.Value != want {
			t.Errorf("verify: %v, want %v", err, want)
		}
	}
	if _, err := f.keys.Sign(t.Context(), "manifests", "", azkeys.SignParameters{Algorithm: &alg, Value: digest[:31]}, nil); code(err) != "BadParameter" {
		t.Errorf("short digest: %v", err)
	}
}

func TestMismatchedOperationsAreRefusedByName(t *testing.T) {
	f := start(t, keyvault.Config{})
	f.create("ec", azkeys.KeyTypeEC)
	f.create("rsa", azkeys.KeyTypeRSA)
	oaep1 := azkeys.EncryptionAlgorithmRSAOAEP
	for name, want := range map[string]string{"ec": "BadParameter", "none": "KeyNotFound"} {
		if _, err := f.keys.WrapKey(t.Context(), name, "", oaep([]byte("x")), nil); code(err) != want {
			t.Errorf("wrap with %s: %v", name, err)
		}
	}
	if _, err := f.keys.WrapKey(t.Context(), "rsa", "", azkeys.KeyOperationParameters{Algorithm: &oaep1, Value: []byte("x")}, nil); code(err) != "BadParameter" {
		t.Errorf("RSA-OAEP with SHA-1: %v", err)
	}
	if _, err := f.keys.UnwrapKey(t.Context(), "rsa", "", oaep([]byte("garbage")), nil); code(err) != "BadParameter" {
		t.Errorf("garbage: %v", err)
	}
	if _, err := f.keys.GetKey(t.Context(), "rsa", "0123", nil); code(err) != "KeyNotFound" {
		t.Errorf("unknown version: %v", err)
	}
	if _, err := f.keys.RotateKey(t.Context(), "none", nil); code(err) != "KeyNotFound" {
		t.Errorf("rotate nothing: %v", err)
	}
	odd := int32(1024)
	kty := azkeys.KeyTypeRSA
	if _, err := f.keys.CreateKey(t.Context(), "weak", azkeys.CreateKeyParameters{Kty: &kty, KeySize: &odd}, nil); code(err) != "BadParameter" {
		t.Errorf("1024 bits: %v", err)
	}
}

func TestSigningIsRefusedWithAnotherKeyAlgorithmOrSizeOfDigest(t *testing.T) {
	f := start(t, keyvault.Config{})
	versions := map[string]string{"ec": f.create("ec", azkeys.KeyTypeEC).KID.Version(), "rsa": f.create("rsa", azkeys.KeyTypeRSA).KID.Version()}
	es256 := azkeys.SignatureAlgorithmES256
	for name, c := range map[string]struct {
		key  string
		alg  azkeys.SignatureAlgorithm
		size int
	}{
		"an RSA key":          {"rsa", es256, 32},
		"RS256":               {"rsa", azkeys.SignatureAlgorithmRS256, 32},
		"ES384":               {"ec", azkeys.SignatureAlgorithmES384, 48},
		"ES256K":              {"ec", azkeys.SignatureAlgorithmES256K, 32},
		"no algorithm":        {"ec", "", 32},
		"an empty digest":     {"ec", es256, 0},
		"a short digest":      {"ec", es256, 31},
		"a long digest":       {"ec", es256, 33},
		"a digest of SHA-512": {"ec", es256, 64},
	} {
		got, err := f.keys.Sign(t.Context(), c.key, versions[c.key], azkeys.SignParameters{Algorithm: &c.alg, Value: make([]byte, c.size)}, nil)
		if code(err) != "BadParameter" || got.Result != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.keys.Sign(t.Context(), "ec", "0123", azkeys.SignParameters{Algorithm: &es256, Value: make([]byte, 32)}, nil); code(err) != "KeyNotFound" {
		t.Errorf("unknown version: %v", err)
	}
	if _, err := f.keys.UnwrapKey(t.Context(), "ec", versions["ec"], oaep(make([]byte, 256)), nil); code(err) != "BadParameter" {
		t.Errorf("unwrap with an EC key: %v", err)
	}
	if n := f.Counts()[keyvault.OpSign]; n != 10 {
		t.Errorf("%d signs were counted, want 10", n)
	}
}

func TestEachVersionOfASigningKeyVerifiesWhatItSigned(t *testing.T) {
	f := start(t, keyvault.Config{})
	alg := azkeys.SignatureAlgorithmES256
	digest := sha256.Sum256([]byte("checkpoint"))
	var ids []string
	for _, version := range []func() (string, error){
		func() (string, error) { return f.Ensure("log", "EC", 0) },
		func() (string, error) { return f.Rotate("log") },
	} {
		id, err := version()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for i, id := range ids {
		sig, err := f.keys.Sign(t.Context(), "log", id, azkeys.SignParameters{Algorithm: &alg, Value: digest[:]}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if sig.KID.Version() != id {
			t.Errorf("signed by %s, want %s", *sig.KID, id)
		}
		for j, id := range ids {
			got, err := f.keys.GetKey(t.Context(), "log", id, nil)
			if err != nil {
				t.Fatal(err)
			}
			if *got.Key.Kty != azkeys.KeyTypeEC || *got.Key.Crv != azkeys.CurveNameP256 {
				t.Errorf("key is %s %s", *got.Key.Kty, *got.Key.Crv)
			}
			key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, got.Key.X...), got.Key.Y...))
			if err != nil {
				t.Fatal(err)
			}
			r, s := new(big.Int).SetBytes(sig.Result[:32]), new(big.Int).SetBytes(sig.Result[32:])
			if ecdsa.Verify(key, digest[:], r, s) != (i == j) {
				t.Errorf("signature by version %d, key of version %d: want %v", i, j, i == j)
			}
		}
	}
}

func TestTokenForAnotherAudienceOrExpiredIsChallenged(t *testing.T) {
	f := start(t, keyvault.Config{})
	f.create("rsa", azkeys.KeyTypeRSA)
	for _, bad := range []credential{{audience: "https://graph.microsoft.com", lives: time.Hour}, {audience: keyvault.Resource, lives: -time.Minute}} {
		tok, err := bad.GetToken(t.Context(), policy.TokenRequestOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, header := range []string{"", "Bearer " + tok.Token, "Bearer nonsense"} {
			req, err := http.NewRequest(http.MethodGet, f.url+"/keys/rsa?api-version=2025-07-01", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", header)
			resp, err := f.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized || !strings.Contains(resp.Header.Get("WWW-Authenticate"), `resource="https://vault.azure.net"`) {
				t.Errorf("%.20q: %d %v", header, resp.StatusCode, resp.Header)
			}
		}
	}
}

func TestVerifyTokenOfTheConfigDecides(t *testing.T) {
	f := start(t, keyvault.Config{VerifyToken: func(string) (map[string]any, error) { return nil, errors.New("no") }})
	if _, err := f.keys.GetKey(t.Context(), "rsa", "", nil); err == nil {
		t.Error("accepted")
	}
	if len(f.Counts()) != 0 {
		t.Errorf("counted %v", f.Counts())
	}
}

func TestThrottledCallSucceedsOnRetryAndIsCounted(t *testing.T) {
	f := start(t, keyvault.Config{})
	f.create("rsa", azkeys.KeyTypeRSA)
	f.Throttle(keyvault.OpWrap, 2, 0)
	f.Fail(keyvault.OpGet, 1)
	if _, err := f.keys.WrapKey(t.Context(), "rsa", "", oaep([]byte("x")), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := f.keys.GetKey(t.Context(), "rsa", "", nil); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{keyvault.OpCreate: 1, keyvault.OpWrap: 3, keyvault.OpGet: 2}
	got := f.Counts()
	for op, n := range want {
		if got[op] != n {
			t.Errorf("%s was called %d times, want %d", op, got[op], n)
		}
	}
}

func TestDeniedApplicationCannotUnwrapButCanWrap(t *testing.T) {
	f := start(t, keyvault.Config{})
	f.create("rsa", azkeys.KeyTypeRSA)
	f.DenyUnwrap(app)
	wrapped, err := f.keys.WrapKey(t.Context(), "rsa", "", oaep([]byte("x")), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.keys.UnwrapKey(t.Context(), "rsa", "", oaep(wrapped.Result), nil); code(err) != "Forbidden" {
		t.Errorf("denied: %v", err)
	}
	f.AllowUnwrap(app)
	if _, err := f.keys.UnwrapKey(t.Context(), "rsa", "", oaep(wrapped.Result), nil); err != nil {
		t.Errorf("allowed: %v", err)
	}
	if err := f.Disable("rsa", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := f.keys.UnwrapKey(t.Context(), "rsa", "", oaep(wrapped.Result), nil); code(err) != "Forbidden" {
		t.Errorf("disabled: %v", err)
	}
}

func TestVaultStartedAgainOnItsFileUnwraps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	f := start(t, keyvault.Config{Path: path})
	first, err := f.Ensure("rsa", "RSA", 0)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := f.keys.WrapKey(t.Context(), "rsa", "", oaep([]byte("x")), nil)
	if err != nil {
		t.Fatal(err)
	}
	f.create("ec", azkeys.KeyTypeEC)
	g := start(t, keyvault.Config{Path: path})
	if again, err := g.Ensure("rsa", "RSA", 0); err != nil || again != first {
		t.Errorf("version is %s, %v; was %s", again, err, first)
	}
	if got, err := g.keys.UnwrapKey(t.Context(), "rsa", "", oaep(wrapped.Result), nil); err != nil || string(got.Result) != "x" {
		t.Errorf("unwrap: %v", err)
	}
	if got, err := g.keys.GetKey(t.Context(), "ec", "", nil); err != nil || len(got.Key.X) != 32 {
		t.Errorf("ec key: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info, err)
	}
}

func TestDamagedKeyFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, []byte(`{"rsa":[{"id":"1","pkcs8":"AAAA"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keyvault.New(keyvault.Config{Path: path}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}
