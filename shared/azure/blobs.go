package azure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/shared/evidence"
)

// Blobs keeps sealed objects as block blobs of one container.
//
// Create is a single Put Blob with If-None-Match: *, because the right to create
// without the right to overwrite (blobs/add/action) covers only that request; staged
// blocks would need blobs/write.
// https://learn.microsoft.com/rest/api/storageservices/authorize-with-azure-active-directory
type Blobs struct {
	c    *container.Client
	lock bool // dates of objects are locked
}

// NewBlobs returns the store over a container that exists.
func NewBlobs(c *container.Client) *Blobs { return &Blobs{c: c} }

// filled are the codes that say that a name is taken: by an unprotected blob, by one
// under a policy, by one under a hold.
var filled = []bloberror.Code{
	bloberror.BlobAlreadyExists, bloberror.ConditionNotMet, bloberror.BlobImmutableDueToPolicy, "BlobImmutableDueToLegalHold",
}

// Create costs one write operation.
func (b *Blobs) Create(ctx context.Context, name string, body []byte) error {
	return b.CreateUntil(ctx, name, body, time.Time{})
}

// CreateUntil costs one write operation: the policy travels with the upload.
// https://learn.microsoft.com/rest/api/storageservices/put-blob
func (b *Blobs) CreateUntil(ctx context.Context, name string, body []byte, until time.Time) error {
	o := &blockblob.UploadOptions{
		AccessConditions: &blob.AccessConditions{
			ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)},
		},
		HTTPHeaders: &blob.HTTPHeaders{BlobContentType: to.Ptr("application/octet-stream")},
	}
	if until.After(time.Now()) { // storage refuses a date that has passed; then there is nothing to protect
		o.ImmutabilityPolicyExpiryTime = to.Ptr(wholeSecond(until))
		o.ImmutabilityPolicyMode = to.Ptr(b.mode())
	}
	_, err := b.c.NewBlockBlobClient(name).Upload(ctx, streaming.NopCloser(bytes.NewReader(body)), o)
	if bloberror.HasCode(err, filled...) {
		return evidence.ErrExists
	}
	if err != nil {
		return fmt.Errorf("create blob: %w", hide(err))
	}
	return nil
}

// Size costs one read operation.
func (b *Blobs) Size(ctx context.Context, name string) (int64, error) {
	p, err := b.c.NewBlobClient(name).GetProperties(ctx, nil)
	if bloberror.HasCode(err, bloberror.BlobNotFound) {
		return 0, evidence.ErrNotFound
	}
	if err != nil {
		return 0, fmt.Errorf("read blob properties: %w", hide(err))
	}
	if p.ContentLength == nil {
		return 0, errors.New("read blob properties: no length in the answer")
	}
	return *p.ContentLength, nil
}

// ReadAt costs one read operation.
func (b *Blobs) ReadAt(ctx context.Context, name string, off, n int64) ([]byte, error) {
	if off < 0 || n < 1 {
		return nil, fmt.Errorf("read blob: no range of %d bytes at %d", n, off)
	}
	r, err := b.c.NewBlobClient(name).DownloadStream(ctx, &blob.DownloadStreamOptions{
		Range: blob.HTTPRange{Offset: off, Count: n},
	})
	if bloberror.HasCode(err, bloberror.BlobNotFound) {
		return nil, evidence.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read blob: %w", hide(err))
	}
	body := make([]byte, n)
	_, err = io.ReadFull(r.Body, body)
	if cerr := r.Body.Close(); err == nil {
		err = cerr
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // an empty body is no regular end
	}
	if err != nil {
		return nil, fmt.Errorf("read blob at %d: %w", off, hide(err))
	}
	return body, nil
}

// Tails keeps sealed objects until they are packed, in a container without an
// immutability policy.
type Tails struct{ *Blobs }

// NewTails returns the store over a container that exists.
func NewTails(c *container.Client) *Tails { return &Tails{NewBlobs(c)} }

// List costs one list operation for up to 5,000 objects.
func (t *Tails) List(ctx context.Context, prefix string) ([]evidence.TailInfo, error) {
	return t.listed(ctx, prefix, container.ListBlobsInclude{})
}

// Delete costs nothing but the request. With versioning a version stays, which is the
// lifecycle rule's of the container to remove.
func (t *Tails) Delete(ctx context.Context, name string) error {
	_, err := t.c.NewBlobClient(name).Delete(ctx, nil)
	if err != nil && !bloberror.HasCode(err, bloberror.BlobNotFound) {
		return fmt.Errorf("delete blob: %w", hide(err))
	}
	return nil
}

// Versions costs one list operation for up to 5,000 versions. It has never run against
// Azure: Azurite keeps no versions.
// https://learn.microsoft.com/azure/storage/blobs/versioning-overview
func (b *Blobs) Versions(ctx context.Context, prefix string) ([]evidence.Version, error) {
	var out []evidence.Version
	pager := b.c.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: to.Ptr(prefix), Include: container.ListBlobsInclude{Versions: true}})
	for pager.More() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list versions of blobs: %w", hide(err))
		}
		for _, i := range page.Segment.BlobItems {
			if i.Name == nil {
				return nil, errors.New("list versions of blobs: an entry without name")
			}
			v := evidence.Version{Name: *i.Name}
			if i.VersionID != nil {
				v.ID = *i.VersionID
			}
			out = append(out, v)
		}
	}
	return out, nil
}
