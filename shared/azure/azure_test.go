package azure_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/shared/azure"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	rosters "steno/shared/policy"
	"steno/shared/storetest"
	"steno/tests/local/azurite"
	"steno/tests/local/worm"
)

// One storage account serves all tests of the package; each works under a tenant of
// its own.
var (
	account *azurite.Account
	tables  *aztables.ServiceClient
	locked  *container.Client // write-once, as evidence is kept
	free    *container.Client // without a policy
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if account, err = azurite.Start(ctx, azurite.Config{}); err != nil {
		return 1, err
	}
	defer func() {
		if stopErr := account.Stop(); err == nil {
			err = stopErr
		}
	}()
	quick := policy.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}}
	tables, err = aztables.NewServiceClientFromConnectionString(account.ConnectionString(), &aztables.ClientOptions{ClientOptions: quick})
	if err != nil {
		return 1, err
	}
	for _, name := range azure.Tables {
		if _, err := tables.CreateTable(ctx, name, nil); err != nil {
			return 1, err
		}
	}
	blobs, err := azblob.NewClientFromConnectionString(account.ConnectionString(), &azblob.ClientOptions{ClientOptions: quick})
	if err != nil {
		return 1, err
	}
	for name, client := range map[string]**container.Client{"locked": &locked, "free": &free} {
		if _, err := blobs.CreateContainer(ctx, name, nil); err != nil {
			return 1, err
		}
		*client = blobs.ServiceClient().NewContainerClient(name)
	}
	if err := account.SetContainerDefault("locked", worm.Locked, 30); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func TestBlobsUnderAPolicy(t *testing.T) {
	storetest.TestBlobs(t, func(*testing.T) evidence.Blobs { return azure.NewBlobs(locked) })
}

func TestBlobsWithoutAPolicy(t *testing.T) {
	storetest.TestBlobs(t, func(*testing.T) evidence.Blobs { return azure.NewBlobs(free) })
}

func TestTailsWithoutAPolicy(t *testing.T) {
	storetest.TestTails(t, func(*testing.T) evidence.Tails { return azure.NewTails(free) })
}

func TestKeysInTables(t *testing.T) {
	storetest.TestKeys(t, func(*testing.T) evidence.Keys { return azure.NewKeys(tables) })
}

func TestCatalogInTables(t *testing.T) {
	storetest.TestCatalog(t, func(*testing.T) conversation.Catalog { return azure.NewCatalog(storetest.NewTenant(), tables) })
}

func TestCallsInTables(t *testing.T) {
	storetest.TestCalls(t, func(*testing.T) storetest.Register { return azure.NewCatalog(storetest.NewTenant(), tables) })
}

func TestRosterInTables(t *testing.T) {
	storetest.TestRoster(t, func(*testing.T) rosters.Roster { return azure.NewRoster(storetest.NewTenant(), tables) })
}

func TestTrailInTables(t *testing.T) {
	storetest.TestTrail(t, func(*testing.T) custody.Trail { return azure.NewTrail(storetest.NewTenant(), tables) })
}

func TestTilesInBlobs(t *testing.T) {
	storetest.TestTiles(t, func(*testing.T) custody.Tiles { return azure.NewTiles(storetest.NewTenant(), locked, free) })
}

func TestMutableInABlob(t *testing.T) {
	storetest.TestMutable(t, func(*testing.T) storetest.Mutable { return azure.NewMutable(storetest.NewTenant(), free, "progress") })
}

// TestVersionsOfBlobs lists where there is one version of each, for Azurite keeps no more.
func TestVersionsOfBlobs(t *testing.T) {
	storetest.TestVersions(t, func(*testing.T) (evidence.Blobs, evidence.Versions) {
		return azure.NewBlobs(locked), azure.NewBlobs(locked)
	})
}

// costs runs f and compares the storage operations it took.
func costs(t *testing.T, what string, want map[string]int64, f func() error) {
	t.Helper()
	account.ResetOperations()
	if err := f(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if got := account.Operations(); !maps.Equal(got, want) {
		t.Errorf("%s costs %v, want %v", what, got, want)
	}
}

func put(t *testing.T, client *aztables.Client, entity string) {
	t.Helper()
	if _, err := client.UpsertEntity(t.Context(), []byte(entity), nil); err != nil {
		t.Fatal(err)
	}
}

func newTables(t *testing.T, transport policy.Transporter) *aztables.ServiceClient {
	t.Helper()
	cred, err := aztables.NewSharedKeyCredential(account.Name(), account.Key())
	if err != nil {
		t.Fatal(err)
	}
	s, err := aztables.NewServiceClientWithSharedKey(account.TableURL, cred, &aztables.ClientOptions{
		ClientOptions: azcore.ClientOptions{Transport: transport, Retry: policy.RetryOptions{MaxRetries: -1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAttachmentsInTables(t *testing.T) {
	storetest.TestAttachments(t, func(*testing.T) conversation.Attachments {
		return azure.NewCatalog(storetest.NewTenant(), tables)
	})
}
