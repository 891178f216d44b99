package azure_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/shared/azure"
	"steno/shared/evidence"
	"steno/shared/storetest"
)

func TestVaultLogInBlobs(t *testing.T) {
	storetest.TestVaultLog(t, func(t *testing.T) (evidence.VaultLog, func(time.Time, ...[]byte)) {
		name := "insights-" + strings.ToLower(evidence.NewObjectID())
		c, err := container.NewClientFromConnectionString(account.ConnectionString(), name, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Create(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		return azure.NewVaultLog(c), func(received time.Time, lines ...[]byte) {
			t.Helper()
			// as Azure Monitor does it: an append blob for each hour
			b := c.NewAppendBlobClient("resourceId=/SUBSCRIPTIONS/1/RESOURCEGROUPS/G/PROVIDERS/MICROSOFT.KEYVAULT/VAULTS/V" + received.UTC().Format("/y=2006/m=01/d=02/h=15/m=00/PT1H.json"))
			if _, err := b.GetProperties(t.Context(), nil); bloberror.HasCode(err, bloberror.BlobNotFound) {
				_, err = b.Create(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			body := append(bytes.Join(lines, []byte("\r\n")), "\r\n"...)
			if _, err := b.AppendBlock(t.Context(), streaming.NopCloser(bytes.NewReader(body)), nil); err != nil {
				t.Fatal(err)
			}
		}
	})
}
