package azure

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/shared/evidence"
	"steno/shared/teams"
)

// versioned answers a listing as the documentation shows one of an account that keeps versions.
// https://learn.microsoft.com/rest/api/storageservices/list-blobs
type versioned struct{ asked []string }

const versionList = `<?xml version="1.0" encoding="utf-8"?>
<EnumerationResults ServiceEndpoint="https://account.blob.core.windows.net/" ContainerName="evidence"><Blobs>
<Blob><Name>T/u/one</Name><VersionId>2026-05-04T10:00:00.0000000Z</VersionId><IsCurrentVersion>true</IsCurrentVersion><Properties><Content-Length>3</Content-Length></Properties></Blob>
<Blob><Name>T/u/two</Name><VersionId>2026-05-04T10:00:00.0000000Z</VersionId><Properties><Content-Length>3</Content-Length></Properties></Blob>
<Blob><Name>T/u/two</Name><VersionId>2026-05-04T11:00:00.0000000Z</VersionId><IsCurrentVersion>true</IsCurrentVersion><Properties><Content-Length>3</Content-Length></Properties></Blob>
</Blobs><NextMarker/></EnumerationResults>`

func (v *versioned) Do(r *http.Request) (*http.Response, error) {
	v.asked = append(v.asked, r.URL.Query().Get("include"))
	body := strings.ReplaceAll(versionList, "T/", r.URL.Query().Get("prefix")[:37])
	return &http.Response{StatusCode: http.StatusOK, Status: "OK", Header: http.Header{"Content-Type": {"application/xml"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func TestAnObjectOfTwoVersionsIsNamed(t *testing.T) {
	v := new(versioned)
	c, err := container.NewClientWithNoCredential("https://account.blob.core.windows.net/evidence", &container.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: v}})
	if err != nil {
		t.Fatal(err)
	}
	twice, err := evidence.SecondVersions(t.Context(), NewBlobs(c), teams.TenantID("11111111-1111-4111-8111-111111111111"), "u")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(twice, []string{"two"}) {
		t.Errorf("second versions of %q", twice)
	}
	if !slices.Equal(v.asked, []string{"versions"}) {
		t.Errorf("asked to include %q", v.asked)
	}
}
