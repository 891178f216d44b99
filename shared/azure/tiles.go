package azure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/teams"
)

// Tiles keeps the custody log of a tenant: files as block blobs TENANT/NAME of a
// write-once container, and the head as a blob TENANT of a second one, since it changes.
type Tiles struct {
	tenant string
	files  *Blobs
	Mutable
}

// Mutable is a small blob that is replaced only by whoever read what it holds.
type Mutable struct {
	c    *container.Client
	name string
}

// NewMutable returns the blob TENANT/NAME of a container that exists and is not write-once.
func NewMutable(tenant teams.TenantID, c *container.Client, name string) Mutable {
	return Mutable{c, string(tenant) + "/" + name}
}

// NewTiles returns the log of a tenant over two containers that exist.
func NewTiles(tenant teams.TenantID, files, heads *container.Client) *Tiles {
	return &Tiles{string(tenant), NewBlobs(files), Mutable{heads, string(tenant)}}
}

// maxLogFile bounds what is read as a file or a head. A head holds a promise of 2,048
// digests and the ids of ten minutes.
const maxLogFile = 16 << 20

// Create costs one write operation, and one read operation if the name is taken.
func (t *Tiles) Create(ctx context.Context, name string, body []byte) error {
	err := t.files.Create(ctx, t.tenant+"/"+name, body)
	if !errors.Is(err, evidence.ErrExists) {
		return err
	}
	stands, err := t.Read(ctx, name)
	if err != nil {
		return err
	}
	if !bytes.Equal(stands, body) {
		return fmt.Errorf("%s: %w", name, custody.ErrSplitView)
	}
	return nil
}

// Read costs one read operation.
func (t *Tiles) Read(ctx context.Context, name string) ([]byte, error) {
	body, _, err := download(ctx, t.files.c, t.tenant+"/"+name)
	if err == nil && body == nil {
		return nil, fmt.Errorf("%s: %w", name, custody.ErrNoTile)
	}
	return body, err
}

// Head costs one read operation.
func (m Mutable) Head(ctx context.Context) ([]byte, string, error) {
	return download(ctx, m.c, m.name)
}

// SwapHead costs one write operation.
func (m Mutable) SwapHead(ctx context.Context, body []byte, revision string) error {
	if len(body) > maxLogFile {
		return fmt.Errorf("head of %d bytes, more than the %d that are read", len(body), maxLogFile)
	}
	only := &blob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)}
	if revision != "" {
		only = &blob.ModifiedAccessConditions{IfMatch: to.Ptr(azcore.ETag(revision))}
	}
	_, err := m.c.NewBlockBlobClient(m.name).Upload(ctx, streaming.NopCloser(bytes.NewReader(body)), &blockblob.UploadOptions{
		AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: only},
		HTTPHeaders:      &blob.HTTPHeaders{BlobContentType: to.Ptr("application/json")},
	})
	if bloberror.HasCode(err, bloberror.BlobAlreadyExists, bloberror.ConditionNotMet) {
		return custody.ErrMoved
	}
	if err != nil {
		return fmt.Errorf("write head: %w", hide(err))
	}
	return nil
}

// download reads a whole blob with its ETag; both are empty if there is none.
func download(ctx context.Context, c *container.Client, name string) (body []byte, etag string, err error) {
	r, err := c.NewBlobClient(name).DownloadStream(ctx, nil)
	if bloberror.HasCode(err, bloberror.BlobNotFound) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("read blob: %w", hide(err))
	}
	body, err = io.ReadAll(io.LimitReader(r.Body, maxLogFile+1))
	if cerr := r.Body.Close(); err == nil {
		err = cerr
	}
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("read blob: %w", hide(err))
	case len(body) > maxLogFile:
		return nil, "", fmt.Errorf("read blob: more than %d bytes", maxLogFile)
	case r.ETag == nil || r.ContentLength == nil || int64(len(body)) != *r.ContentLength:
		return nil, "", errors.New("read blob: the answer is not whole")
	}
	return body, string(*r.ETag), nil
}
