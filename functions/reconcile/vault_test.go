package reconcile_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/functions/reconcile"
	"steno/shared/azure"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/tests/local/azurite"
	"steno/tests/local/ca"
	"steno/tests/local/keyvault"
)

// token is an application's, as the vault's stand-in takes it.
type token string

func (app token) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	until := time.Now().Add(time.Hour)
	b, err := json.Marshal(map[string]any{"aud": keyvault.Resource, "appid": string(app), "exp": until.Unix()})
	b64 := base64.RawURLEncoding.EncodeToString
	return azcore.AccessToken{Token: b64([]byte(`{"alg":"none"}`)) + "." + b64(b) + ".", ExpiresOn: until}, err
}

// archiveOf is what a diagnostic setting does: it appends the vault's records to the blob of the hour.
func archiveOf(t *testing.T, c *container.Client) func(time.Time, []byte) {
	var mu sync.Mutex
	return func(at time.Time, line []byte) {
		mu.Lock()
		defer mu.Unlock()
		ctx := context.Background() // requests that are over are logged too
		b := c.NewAppendBlobClient("resourceId=/SUBSCRIPTIONS/0/RESOURCEGROUPS/STENO/PROVIDERS/MICROSOFT.KEYVAULT/VAULTS/STENO" + at.Format("/y=2006/m=01/d=02/h=15/m=00/PT1H.json"))
		add := func() error {
			_, err := b.AppendBlock(ctx, streaming.NopCloser(bytes.NewReader(append(bytes.Clone(line), '\n'))), nil)
			return err
		}
		err := add()
		if bloberror.HasCode(err, bloberror.BlobNotFound) {
			if _, err = b.Create(ctx, nil); err == nil {
				err = add()
			}
		}
		if err != nil {
			t.Errorf("archive the vault's log: %v", err)
		}
	}
}

func TestReadingThroughTheDoorIsExplainedAndAnUnwrapPastItIsNamed(t *testing.T) {
	ctx := t.Context()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	account, err := azurite.Start(ctx, azurite.Config{Log: os.Stderr})
	ok(err)
	t.Cleanup(func() {
		if err := account.Stop(); err != nil {
			t.Error(err)
		}
	})
	blobs, err := azblob.NewClientFromConnectionString(account.ConnectionString(), nil)
	ok(err)
	boxes := map[string]*container.Client{}
	for _, name := range []string{"evidence", "custody-head", "insights-logs-auditevent"} {
		_, err := blobs.CreateContainer(ctx, name, nil)
		ok(err)
		boxes[name] = blobs.ServiceClient().NewContainerClient(name)
	}
	tables, err := aztables.NewServiceClientFromConnectionString(account.ConnectionString(), nil)
	ok(err)
	for _, name := range []string{azure.TableKeys, azure.TableCustody} {
		_, err := tables.CreateTable(ctx, name, nil)
		ok(err)
	}
	authority, err := ca.New()
	ok(err)
	cert, err := authority.Local()
	ok(err)
	stand, err := keyvault.New(keyvault.Config{
		Authority: "https://login.microsoftonline.com/" + string(tenant), Audit: archiveOf(t, boxes["insights-logs-auditevent"]),
	})
	ok(err)
	_, err = stand.CreateKey(wrap, "RSA", 0)
	ok(err)
	server := httptest.NewUnstartedServer(stand)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.StartTLS()
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	ok(err)
	vault := func(app token) evidence.Vault {
		c, err := azkeys.NewClient(server.URL, app, &azkeys.ClientOptions{
			DisableChallengeResourceVerification: true, ClientOptions: azcore.ClientOptions{Transport: authority.Client()},
		})
		ok(err)
		return azure.NewVault(c, wrap)
	}
	keys, trail := azure.NewKeys(tables), custody.Log{Trail: azure.NewTrail(tenant, tables)}
	process := func() *evidence.Store {
		s, err := evidence.New(evidence.Config{Blobs: azure.NewBlobs(boxes["evidence"]), Keys: keys, Vault: vault(app), VaultHosts: []string{at.Host}})
		ok(err)
		return s
	}

	// Two units, each written by two processes and so under two keys.
	var refs []evidence.Ref
	for range 2 {
		writer := process()
		for _, unit := range []string{"unit-1", "unit-2"} {
			o, err := writer.Seal(ctx, evidence.Ref{Tenant: tenant, Unit: unit, Object: evidence.NewObjectID()}, []byte("what was said"))
			ok(err)
			ok(writer.Put(ctx, o))
			refs = append(refs, o.Ref)
		}
	}
	// One process reads all of it, many at once, with one event for each unit.
	reader := process()
	receipts := map[string]custody.Receipt{}
	for _, unit := range []string{"unit-1", "unit-2"} {
		receipts[unit], err = trail.Append(ctx, custody.Event{Tenant: tenant, Action: custody.SystemRead, System: "test", Item: unit})
		ok(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		for _, ref := range refs {
			wg.Go(func() {
				o, err := reader.Open(ctx, ref, receipts[ref.Unit])
				if err == nil {
					_, err = o.ReadAll(100)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if n := stand.Counts()[keyvault.OpUnwrap]; n != len(refs) {
		t.Fatalf("%d unwraps for %d keys", n, len(refs))
	}

	var out bytes.Buffer
	now := time.Now()
	audit := func(later time.Duration) {
		t.Helper()
		ok(reconcile.NewAudit(reconcile.AuditConfig{Tenant: tenant, Key: wrap, VaultHosts: []string{at.Host}, Now: func() time.Time { return now.Add(later) }}, reconcile.AuditStores{
			Log: azure.NewVaultLog(boxes["insights-logs-auditevent"]), Trail: trail, Keys: keys, State: azure.NewMutable(tenant, boxes["custody-head"], "reconcile"),
		}, slog.New(slog.NewTextHandler(&out, nil))).Run(ctx))
	}
	// The thief has a right to unwrap, and goes past the door.
	thief := token("badbadba-aaaa-4bbb-8ccc-999999999999")
	row, err := keys.Get(ctx, tenant, "unit-1", mustList(t, keys, "unit-1"))
	ok(err)
	secret, err := vault(thief).Unwrap(ctx, row.Vault, row.Alg, row.Wrapped)
	ok(err)
	if len(secret) != 32 {
		t.Fatalf("the thief has %d bytes", len(secret))
	}

	audit(time.Hour)
	audit(2 * time.Hour)
	var named []custody.Record
	records, err := trail.Trail.Range(ctx, now.Add(-time.Hour), now.Add(time.Hour), 1000)
	ok(err)
	for _, r := range records {
		if r.Action == custody.Unexplained {
			named = append(named, r)
		}
	}
	if len(named) != 1 || !strings.Contains(named[0].Detail, "caller="+string(thief)) || !strings.Contains(named[0].Detail, "key="+wrap+"/") {
		t.Errorf("named: %+v", named)
	}
	if strings.Count(out.String(), "alarm=unwrap ") != 1 || !strings.Contains(out.String(), "unwraps=5 unexplained=1") {
		t.Errorf("the log says %s", out.String())
	}
}

func mustList(t *testing.T, keys evidence.KeyRing, unit string) string {
	t.Helper()
	list, err := keys.List(t.Context(), tenant, unit)
	if err != nil || len(list) == 0 {
		t.Fatalf("%d keys of %s, %v", len(list), unit, err)
	}
	return list[0].ID
}
