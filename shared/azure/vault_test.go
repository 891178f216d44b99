package azure_test

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"steno/shared/azure"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/storetest"
	"steno/tests/local/ca"
	"steno/tests/local/keyvault"
)

const app = "77777777-aaaa-4bbb-8ccc-888888888888"

// unsigned hands out tokens that a vault without a verifier accepts.
type unsigned struct{}

func (unsigned) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	until := time.Now().Add(time.Hour)
	claims, err := json.Marshal(map[string]any{"aud": keyvault.Resource, "appid": app, "exp": until.Unix()})
	if err != nil {
		return azcore.AccessToken{}, err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return azcore.AccessToken{Token: b64([]byte(`{"alg":"none"}`)) + "." + b64(claims) + ".", ExpiresOn: until}, nil
}

// startVault runs a vault with an RSA key "wrap" and an EC key "sign".
func startVault(t *testing.T) (*keyvault.Vault, *azkeys.Client, string) {
	t.Helper()
	return startVaultBehind(t, func(vault http.Handler) http.Handler { return vault })
}

// startVaultBehind is startVault with something before the vault that may change what
// it answers.
func startVaultBehind(t *testing.T, front func(http.Handler) http.Handler) (*keyvault.Vault, *azkeys.Client, string) {
	t.Helper()
	authority, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Local()
	if err != nil {
		t.Fatal(err)
	}
	v, err := keyvault.New(keyvault.Config{Authority: "https://login.microsoftonline.com/11111111-aaaa-4bbb-8ccc-222222222222"})
	if err != nil {
		t.Fatal(err)
	}
	for name, kind := range map[string]string{"wrap": "RSA", "sign": "EC"} {
		if _, err := v.CreateKey(name, kind, 0); err != nil {
			t.Fatal(err)
		}
	}
	s := httptest.NewUnstartedServer(front(v))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	client := authority.Client()
	t.Cleanup(client.CloseIdleConnections)
	keys, err := azkeys.NewClient(s.URL, unsigned{}, &azkeys.ClientOptions{
		DisableChallengeResourceVerification: true,
		ClientOptions:                        azcore.ClientOptions{Transport: client, Retry: policy.RetryOptions{MaxRetries: -1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return v, keys, u.Host
}

func TestVaultBehindKeyVault(t *testing.T) {
	_, keys, _ := startVault(t)
	storetest.TestVault(t, func(*testing.T) evidence.Vault { return azure.NewVault(keys, "wrap") })
}

func TestWrappingKeyIsAskedForOnce(t *testing.T) {
	stand, keys, _ := startVault(t)
	v := azure.NewVault(keys, "wrap")
	var first *rsa.PublicKey
	for range 5 {
		_, public, err := v.WrappingKey(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = public
		}
		if !public.Equal(first) {
			t.Error("another key")
		}
	}
	if n := stand.Counts(); n[keyvault.OpGet] != 1 || n[keyvault.OpWrap] != 0 {
		t.Errorf("vault operations %v, want one get and no wrap", n)
	}
}

func TestVaultKeyOfTheWrongTypeIsRefused(t *testing.T) {
	_, keys, _ := startVault(t)
	if _, _, err := azure.NewVault(keys, "sign").WrappingKey(t.Context()); err == nil || !strings.Contains(err.Error(), "not an RSA key") {
		t.Errorf("EC key: %v", err)
	}
	if _, _, err := azure.NewVault(keys, "absent").WrappingKey(t.Context()); err == nil {
		t.Error("absent key was read")
	}
}

func TestDeniedUnwrapIsAnErrorAndNothingIsRead(t *testing.T) {
	stand, keys, host := startVault(t)
	tenant := storetest.NewTenant()
	config := evidence.Config{
		Blobs: azure.NewBlobs(locked), Keys: azure.NewKeys(tables), Vault: azure.NewVault(keys, "wrap"), VaultHosts: []string{host},
	}
	writer, err := evidence.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ref := evidence.Ref{Tenant: tenant, Unit: "unit", Object: evidence.NewObjectID()}
	o, err := writer.Seal(t.Context(), ref, []byte("canary of the body"))
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Put(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	reader, err := evidence.New(config)
	if err != nil {
		t.Fatal(err)
	}
	log := custody.Log{Trail: azure.NewTrail(tenant, tables)}
	receipt, err := log.Append(t.Context(), custody.Event{Tenant: tenant, Action: custody.SystemRead, System: "test", Item: "unit"})
	if err != nil {
		t.Fatal(err)
	}
	stand.DenyUnwrap(app)
	if obj, err := reader.Open(t.Context(), ref, receipt); err == nil || obj != nil || strings.Contains(err.Error(), host) {
		t.Errorf("open without the right to unwrap: %v", err)
	}
	stand.AllowUnwrap(app)
	if _, err := stand.Rotate("wrap"); err != nil { // older versions go on unwrapping
		t.Fatal(err)
	}
	obj, err := reader.Open(t.Context(), ref, receipt)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := obj.ReadAll(100); err != nil || string(plain) != "canary of the body" {
		t.Errorf("read %q, %v", plain, err)
	}
	if n := stand.Counts()[keyvault.OpUnwrap]; n != 2 {
		t.Errorf("%d unwraps, want one refused and one given", n)
	}
}
