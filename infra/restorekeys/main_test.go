package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/shared/azure"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/storetest"
	"steno/tests/local/azurite"
	"steno/tests/local/ca"
	"steno/tests/local/keyvault"
)

// unsigned hands out tokens that the stand-ins accept.
type unsigned struct{}

func (unsigned) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	now := time.Now()
	b, err := json.Marshal(map[string]any{
		"aud": strings.TrimSuffix(o.Scopes[0], "/.default"), "iss": "https://sts.windows.net/11111111-aaaa-4bbb-8ccc-222222222222/",
		"iat": now.Unix(), "nbf": now.Unix() - 60, "exp": now.Add(time.Hour).Unix(),
	})
	b64 := base64.RawURLEncoding.EncodeToString
	return azcore.AccessToken{Token: b64([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + b64(b) + "." + b64([]byte("none")), ExpiresOn: now.Add(time.Hour)}, err
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestTheCommandRestoresALostKeyTable(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	authority := must(ca.New())(t)
	if err := authority.WriteFiles(dir); err != nil {
		t.Fatal(err)
	}
	account := must(azurite.Start(ctx, azurite.Config{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), OAuth: true, Log: os.Stderr}))(t)
	t.Cleanup(func() {
		if err := account.Stop(); err != nil {
			t.Error(err)
		}
	})
	stand := must(keyvault.New(keyvault.Config{Authority: "https://login.microsoftonline.com/11111111-aaaa-4bbb-8ccc-222222222222"}))(t)
	must(stand.CreateKey("steno-wrap", "RSA", 3072))(t)
	server := httptest.NewUnstartedServer(stand)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{must(authority.Local())(t)}}
	server.StartTLS()
	t.Cleanup(server.Close)
	reach := &access{credential: unsigned{}, options: azcore.ClientOptions{Transport: authority.Client()}, private: true}

	box := must(container.NewClient(account.BlobURL+"/evidence", unsigned{}, &container.ClientOptions{ClientOptions: reach.options}))(t)
	must(box.Create(ctx, nil))(t)
	tables := must(aztables.NewServiceClient(account.TableURL, unsigned{}, &aztables.ClientOptions{ClientOptions: reach.options}))(t)
	must(tables.CreateTable(ctx, azure.TableKeys, nil))(t)
	client := must(azkeys.NewClient(server.URL, unsigned{}, &azkeys.ClientOptions{ClientOptions: reach.options, DisableChallengeResourceVerification: true}))(t)

	private := must(rsa.GenerateKey(rand.Reader, evidence.MinRecoveryBits))(t)
	der := must(x509.MarshalPKIXPublicKey(&private.PublicKey))(t)
	recovery := must(evidence.ParseRecoveryKey(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))))(t)
	pkcs8 := must(x509.MarshalPKCS8PrivateKey(private))(t)
	keyFile := filepath.Join(dir, "recovery.pem")
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600); err != nil {
		t.Fatal(err)
	}

	// An archive of one object, whose key is in escrow and whose row is lost.
	blobs, keys, vault := azure.NewBlobs(box), azure.NewKeys(tables), azure.NewVault(client, "steno-wrap")
	host := must(url.Parse(server.URL))(t).Host
	newStore := func() *evidence.Store {
		return must(evidence.New(evidence.Config{Blobs: blobs, Keys: keys, Vault: vault, VaultHosts: []string{host}, Recovery: recovery}))(t)
	}
	store := newStore()
	ref := evidence.Ref{Tenant: storetest.NewTenant(), Unit: "unit-1", Object: evidence.NewObjectID()}
	sealed := must(store.Seal(ctx, ref, []byte("what was said")))(t)
	if err := store.Put(ctx, sealed); err != nil {
		t.Fatal(err)
	}
	ring := must(keys.List(ctx, ref.Tenant, ref.Unit))(t)
	keeper := evidence.Keeper{Objects: blobs, Records: blobs, Keys: keys}
	if n := must(keeper.Escrow(ctx, ref.Tenant, ref.Unit, ring))(t); n != 1 || len(ring) != 1 {
		t.Fatalf("%d of %d keys in escrow", n, len(ring))
	}
	if err := keys.Delete(ctx, ref.Tenant, ref.Unit, ring[0].ID); err != nil {
		t.Fatal(err)
	}

	args := []string{"-tenant", string(ref.Tenant), "-recovery-key", keyFile, "-blob-url", account.BlobURL, "-table-url", account.TableURL, "-vault-url", server.URL}
	for _, want := range []string{"1 escrow records read, 1 keys restored, 0 were there\n", "1 escrow records read, 0 keys restored, 1 were there\n"} {
		var out, complaint strings.Builder
		if code := run(ctx, args, reach, &out, &complaint); code != 0 || out.String() != want {
			t.Fatalf("exit %d, %q, %s", code, out.String(), complaint.String())
		}
	}
	receipt := must(custody.Log{Trail: &storetest.Trail{}}.Append(ctx, custody.Event{Tenant: ref.Tenant, Action: custody.SystemRead, System: "test", Item: ref.Unit}))(t)
	o := must(newStore().Open(ctx, ref, receipt))(t)
	if plain := must(o.ReadAll(100))(t); string(plain) != "what was said" {
		t.Errorf("%q", plain)
	}

	// What cannot be restored says so and exits otherwise.
	foreign := must(x509.MarshalPKCS8PrivateKey(must(rsa.GenerateKey(rand.Reader, evidence.MinRecoveryBits))(t)))(t)
	other := filepath.Join(dir, "other.pem")
	if err := os.WriteFile(other, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: foreign}), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]int{other: 1, filepath.Join(dir, "ca.pem"): 2, filepath.Join(dir, "absent"): 2} {
		args[3] = file
		var out, complaint strings.Builder
		if code := run(ctx, args, reach, &out, &complaint); code != want || !strings.Contains(complaint.String(), "key") {
			t.Errorf("%s: exit %d, want %d: %s", filepath.Base(file), code, want, complaint.String())
		}
	}
}
