package azurite_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue"

	"steno/tests/local/azurite"
	"steno/tests/local/worm"
)

func ctx(t *testing.T) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return c
}

func start(t *testing.T, cfg azurite.Config) *azurite.Account {
	t.Helper()
	install, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	a, err := azurite.Start(install, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func must[T any](t *testing.T) func(v T, err error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantOperations(t *testing.T, a *azurite.Account, want map[string]int64) {
	t.Helper()
	if got := a.Operations(); !maps.Equal(got, want) {
		t.Errorf("operations %v, want %v", got, want)
	}
	a.ResetOperations()
}

func TestBlobOperationsAreCountedByKind(t *testing.T) {
	a := start(t, azurite.Config{})
	c := must[*azblob.Client](t)(azblob.NewClientFromConnectionString(a.ConnectionString(), nil))
	if _, err := c.CreateContainer(ctx(t), "box", nil); err != nil {
		t.Fatal(err)
	}
	wantOperations(t, a, map[string]int64{worm.OpOther: 1})
	for _, name := range []string{"a", "b"} {
		if _, err := c.UploadBuffer(ctx(t), "box", name, []byte(name), nil); err != nil {
			t.Fatal(err)
		}
	}
	r, err := c.DownloadStream(ctx(t), "box", "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(r.Body); err != nil || string(body) != "a" {
		t.Errorf("downloaded %q, %v", body, err)
	}
	r.Body.Close()
	b := c.ServiceClient().NewContainerClient("box").NewBlobClient("a")
	if _, err := b.GetProperties(ctx(t), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.NewListBlobsFlatPager("box", nil).NextPage(ctx(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Delete(ctx(t), nil); err != nil {
		t.Fatal(err)
	}
	wantOperations(t, a, map[string]int64{
		worm.OpPut: 2, worm.OpGet: 1, worm.OpHead: 1, worm.OpList: 1, worm.OpDelete: 1,
	})
	wantOperations(t, a, map[string]int64{})
}

func TestAnAccountThatIsAwayLosesNothing(t *testing.T) {
	a := start(t, azurite.Config{})
	once := azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}}
	c := must[*azblob.Client](t)(azblob.NewClientFromConnectionString(a.ConnectionString(), &azblob.ClientOptions{ClientOptions: once}))
	must[azblob.CreateContainerResponse](t)(c.CreateContainer(ctx(t), "kept", nil))
	tables := must[*aztables.ServiceClient](t)(aztables.NewServiceClientFromConnectionString(a.ConnectionString(), &aztables.ClientOptions{ClientOptions: once}))
	a.SetAway(true)
	var answered *azcore.ResponseError
	_, err := c.UploadBuffer(ctx(t), "kept", "one", []byte("1"), nil)
	if err == nil || errors.As(err, &answered) {
		t.Errorf("an upload to an account that is away: %v", err)
	}
	if _, err := tables.CreateTable(ctx(t), "one", nil); err == nil || errors.As(err, &answered) {
		t.Errorf("a table in an account that is away: %v", err)
	}
	a.SetAway(false)
	must[azblob.UploadBufferResponse](t)(c.UploadBuffer(ctx(t), "kept", "one", []byte("1"), nil))
}

func TestTableTransactionIsOneOperation(t *testing.T) {
	a := start(t, azurite.Config{})
	service := must[*aztables.ServiceClient](t)(aztables.NewServiceClientFromConnectionString(a.ConnectionString(), nil))
	if _, err := service.CreateTable(ctx(t), "rows", nil); err != nil {
		t.Fatal(err)
	}
	wantOperations(t, a, map[string]int64{azurite.OpTableOther: 1})
	table := service.NewClient("rows")
	entity := func(row int) []byte {
		return fmt.Appendf(nil, `{"PartitionKey":"p","RowKey":"%03d","N":%d}`, row, row)
	}
	var actions []aztables.TransactionAction
	for row := range 100 {
		actions = append(actions, aztables.TransactionAction{ActionType: aztables.TransactionTypeAdd, Entity: entity(row)})
	}
	if _, err := table.SubmitTransaction(ctx(t), actions, nil); err != nil {
		t.Fatal(err)
	}
	wantOperations(t, a, map[string]int64{azurite.OpTableTransaction: 1})
	if _, err := table.AddEntity(ctx(t), entity(100), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := table.UpsertEntity(ctx(t), entity(100), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := table.GetEntity(ctx(t), "p", "100", nil); err != nil {
		t.Fatal(err)
	}
	page := must[aztables.ListEntitiesResponse](t)(table.NewListEntitiesPager(&aztables.ListEntitiesOptions{
		Filter: to.Ptr("PartitionKey eq 'p' and RowKey ge '050'"),
	}).NextPage(ctx(t)))
	if len(page.Entities) != 51 {
		t.Errorf("query found %d rows, want 51", len(page.Entities))
	}
	if _, err := table.DeleteEntity(ctx(t), "p", "100", nil); err != nil {
		t.Fatal(err)
	}
	wantOperations(t, a, map[string]int64{
		azurite.OpTablePut: 2, azurite.OpTableGet: 1, azurite.OpTableQuery: 1, azurite.OpTableDelete: 1,
	})
	_, err := table.AddEntity(ctx(t), entity(1), nil)
	if e, ok := errors.AsType[*azcore.ResponseError](err); !ok || e.ErrorCode != string(aztables.EntityAlreadyExists) {
		t.Errorf("second insert of a row: %v", err)
	}
}

func TestQueueMessagesReturnUntilDeleted(t *testing.T) {
	a := start(t, azurite.Config{})
	service := must[*azqueue.ServiceClient](t)(azqueue.NewServiceClientFromConnectionString(a.ConnectionString(), nil))
	q := service.NewQueueClient("lookback")
	if _, err := q.Create(ctx(t), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := q.EnqueueMessage(ctx(t), "since yesterday", nil); err != nil {
		t.Fatal(err)
	}
	got := must[azqueue.DequeueMessagesResponse](t)(q.DequeueMessage(ctx(t), nil))
	if len(got.Messages) != 1 || *got.Messages[0].MessageText != "since yesterday" {
		t.Fatalf("dequeued %d messages", len(got.Messages))
	}
	m := got.Messages[0]
	u := must[azqueue.UpdateMessageResponse](t)(q.UpdateMessage(ctx(t), *m.MessageID, *m.PopReceipt, "", nil))
	got = must[azqueue.DequeueMessagesResponse](t)(q.DequeueMessage(ctx(t), nil))
	if len(got.Messages) != 1 || *got.Messages[0].DequeueCount != 2 {
		t.Fatalf("message given back did not return")
	}
	_, err := q.DeleteMessage(ctx(t), *m.MessageID, *u.PopReceipt, nil)
	if e, ok := errors.AsType[*azcore.ResponseError](err); !ok || e.ErrorCode != "PopReceiptMismatch" {
		t.Errorf("delete under a stale receipt: %v", err)
	}
	if _, err := q.DeleteMessage(ctx(t), *m.MessageID, *got.Messages[0].PopReceipt, nil); err != nil {
		t.Error(err)
	}
}

// certificate writes a certificate for loopback, issued by an authority of its
// own, and returns the files and a client that trusts the authority.
func certificate(t *testing.T) (certFile, keyFile string, trusting *http.Client) {
	t.Helper()
	generate := func() *ecdsa.PrivateKey {
		return must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	}
	caKey, key := generate(), generate()
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "throw-away authority"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	caDER := must[[]byte](t)(x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey))
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		NotBefore:    ca.NotBefore,
		NotAfter:     ca.NotAfter,
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:     []string{"localhost", "devstoreaccount1.blob.localhost"},
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey))
	pkcs8 := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(must[*x509.Certificate](t)(x509.ParseCertificate(caDER)))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return certFile, keyFile, &http.Client{Transport: transport}
}

// entra hands out the token that Azurite's --oauth basic wants.
type entra struct{ audience string }

func (e entra) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	now := time.Now()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	claims := map[string]any{
		"aud": e.audience,
		"iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
		"nbf": now.Add(-time.Minute).Unix(), "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	token := part(map[string]string{"alg": "none", "typ": "JWT"}) + "." + part(claims) + ".c2ln"
	return azcore.AccessToken{Token: token, ExpiresOn: now.Add(time.Hour)}, nil
}

func TestBearerTokenOpensAllServices(t *testing.T) {
	certFile, keyFile, trusting := certificate(t)
	a := start(t, azurite.Config{CertFile: certFile, KeyFile: keyFile, OAuth: true})
	options := policy.ClientOptions{Transport: trusting, Retry: policy.RetryOptions{MaxRetries: -1}}
	cred := entra{"https://storage.azure.com"}

	blobs := must[*azblob.Client](t)(azblob.NewClient(a.BlobURL, cred, &azblob.ClientOptions{ClientOptions: options}))
	if _, err := blobs.CreateContainer(ctx(t), "box", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := blobs.UploadBuffer(ctx(t), "box", "b", []byte("kept"), &azblob.UploadBufferOptions{}); err != nil {
		t.Fatal(err)
	}
	b := blobs.ServiceClient().NewContainerClient("box").NewBlobClient("b")
	end := time.Now().Add(time.Hour)
	if _, err := b.SetImmutabilityPolicy(ctx(t), end, &blob.SetImmutabilityPolicyOptions{Mode: to.Ptr(blob.ImmutabilityPolicySettingLocked)}); err != nil {
		t.Fatal(err)
	}
	_, err := b.Delete(ctx(t), nil)
	if e, ok := errors.AsType[*azcore.ResponseError](err); !ok || e.ErrorCode != "BlobImmutableDueToPolicy" {
		t.Errorf("delete under a policy: %v", err)
	}

	tables := must[*aztables.ServiceClient](t)(aztables.NewServiceClient(a.TableURL, cred, &aztables.ClientOptions{ClientOptions: options}))
	if _, err := tables.CreateTable(ctx(t), "rows", nil); err != nil {
		t.Error(err)
	}
	queues := must[*azqueue.ServiceClient](t)(azqueue.NewServiceClient(a.QueueURL, cred, &azqueue.ClientOptions{ClientOptions: options}))
	if _, err := queues.CreateQueue(ctx(t), "lookback", nil); err != nil {
		t.Error(err)
	}

	stranger := must[*azblob.Client](t)(azblob.NewClient(a.BlobURL, entra{"https://graph.microsoft.com"}, &azblob.ClientOptions{ClientOptions: options}))
	if _, err := stranger.CreateContainer(ctx(t), "other", nil); err == nil {
		t.Error("a token for another audience was accepted")
	}
	byKey := must[*azblob.Client](t)(azblob.NewClientFromConnectionString(a.ConnectionString(), &azblob.ClientOptions{ClientOptions: options}))
	if _, err := byKey.CreateContainer(ctx(t), "by-key", nil); err != nil {
		t.Errorf("account key over https: %v", err)
	}
}

func TestDataOutlivesAStoppedAccount(t *testing.T) {
	cfg := azurite.Config{Dir: filepath.Join(t.TempDir(), "new")}
	first := start(t, cfg)
	c := must[*azblob.Client](t)(azblob.NewClientFromConnectionString(first.ConnectionString(), nil))
	if _, err := c.CreateContainer(ctx(t), "box", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UploadBuffer(ctx(t), "box", "b", []byte("kept"), nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := first.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	second := start(t, cfg)
	c = must[*azblob.Client](t)(azblob.NewClientFromConnectionString(second.ConnectionString(), nil))
	buf := make([]byte, 4)
	if _, err := c.DownloadBuffer(ctx(t), "box", "b", buf, nil); err != nil || string(buf) != "kept" {
		t.Errorf("downloaded %q, %v", buf, err)
	}
}

func TestWrongKeyIsRefused(t *testing.T) {
	a := start(t, azurite.Config{})
	wrong := strings.Replace(a.ConnectionString(), a.Key(), base64.StdEncoding.EncodeToString(make([]byte, 64)), 1)
	c := must[*azblob.Client](t)(azblob.NewClientFromConnectionString(wrong, nil))
	_, err := c.CreateContainer(ctx(t), "box", nil)
	if e, ok := errors.AsType[*azcore.ResponseError](err); !ok || e.StatusCode != http.StatusForbidden {
		t.Errorf("create container with a wrong key: %v", err)
	}
}

func TestFaultyConfigIsRefused(t *testing.T) {
	for name, cfg := range map[string]azurite.Config{
		"certificate without key": {CertFile: "cert.pem"},
		"oauth without https":     {OAuth: true},
		"absent certificate":      {CertFile: "absent", KeyFile: "absent"},
	} {
		a, err := azurite.Start(ctx(t), cfg)
		if err == nil {
			t.Errorf("%s: accepted", name)
			a.Stop()
		}
	}
}

func TestInstallIsDoneOnceAndAgainWhenTheLockFileChanges(t *testing.T) {
	dir := t.TempDir()
	write := func(version string) {
		for name, text := range map[string]string{
			"package.json":      `{"name":"empty","version":"%[1]s"}`,
			"package-lock.json": `{"name":"empty","version":"%[1]s","lockfileVersion":3,"packages":{"":{"name":"empty","version":"%[1]s"}}}`,
		} {
			if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, text, version), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	// runs starts installations side by side and counts those that ran npm.
	runs := func() (ran int) {
		var logs [3]bytes.Buffer
		var all sync.WaitGroup
		for i := range logs {
			all.Go(func() {
				if err := azurite.InstallIn(ctx(t), dir, &logs[i]); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for i := range logs {
			if logs[i].Len() > 0 {
				ran++
			}
		}
		return ran
	}
	for _, version := range []string{"1.0.0", "2.0.0"} {
		write(version)
		if ran := runs(); ran != 1 {
			t.Errorf("version %s: npm ran %d times", version, ran)
		}
		if ran := runs(); ran != 0 {
			t.Errorf("version %s: npm ran %d times again", version, ran)
		}
	}
}

func TestHostStyleAddressesMeetThePolicyToo(t *testing.T) {
	certFile, keyFile, trusting := certificate(t)
	a := start(t, azurite.Config{CertFile: certFile, KeyFile: keyFile})
	u := must[*url.URL](t)(url.Parse(a.BlobURL))
	transport := trusting.Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, u.Host)
	}
	cred := must[*azblob.SharedKeyCredential](t)(azblob.NewSharedKeyCredential(a.Name(), a.Key()))
	c := must[*azblob.Client](t)(azblob.NewClientWithSharedKeyCredential(
		"https://"+a.Name()+".blob.localhost:"+u.Port(), cred,
		&azblob.ClientOptions{ClientOptions: policy.ClientOptions{Transport: trusting}}))
	if _, err := c.CreateContainer(ctx(t), "box", nil); err != nil {
		t.Fatal(err)
	}
	if err := a.SetContainerDefault("box", worm.Locked, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UploadBuffer(ctx(t), "box", "b", []byte("kept"), nil); err != nil {
		t.Fatal(err)
	}
	_, err := c.DeleteBlob(ctx(t), "box", "b", nil)
	if e, ok := errors.AsType[*azcore.ResponseError](err); !ok || e.ErrorCode != "BlobImmutableDueToPolicy" {
		t.Errorf("delete under a policy: %v", err)
	}
}

func TestLockFileNamesNoDownloadHost(t *testing.T) {
	b, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte(`"resolved"`)) {
		t.Error("package-lock.json carries download addresses")
	}
	if !bytes.Contains(b, []byte(`"azurite": "3.37.0"`)) {
		t.Error("package-lock.json does not pin azurite 3.37.0")
	}
}
