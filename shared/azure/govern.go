package azure

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/shared/evidence"
)

// Locking returns the same store, which locks the dates it sets: nobody can shorten or
// remove them then, an owner of the subscription included. Without it they are unlocked
// ones, which a right of its own (runAsSuperUser) removes.
// https://learn.microsoft.com/azure/storage/blobs/immutable-time-based-retention-policy-overview
func (b *Blobs) Locking() *Blobs { return &Blobs{c: b.c, lock: true} }

func (b *Blobs) mode() blob.ImmutabilityPolicySetting {
	if b.lock {
		return blob.ImmutabilityPolicySettingLocked
	}
	return blob.ImmutabilityPolicySettingUnlocked
}

// wholeSecond is the first whole second that is not before t: dates of policies travel
// with that resolution, and must not end early.
func wholeSecond(t time.Time) time.Time {
	t = t.UTC()
	if whole := t.Truncate(time.Second); whole.Before(t) {
		return whole.Add(time.Second)
	}
	return t
}

// Protection costs one read operation.
func (b *Blobs) Protection(ctx context.Context, name string) (evidence.Protection, error) {
	var out evidence.Protection
	p, err := b.c.NewBlobClient(name).GetProperties(ctx, nil)
	if bloberror.HasCode(err, bloberror.BlobNotFound) {
		return out, evidence.ErrNotFound
	}
	if err != nil {
		return out, fmt.Errorf("read blob properties: %w", hide(err))
	}
	if p.ImmutabilityPolicyExpiresOn != nil {
		out.Until = p.ImmutabilityPolicyExpiresOn.UTC()
	}
	// The answer spells the mode in small letters or large ones, by version.
	out.Locked = p.ImmutabilityPolicyMode != nil && strings.EqualFold(string(*p.ImmutabilityPolicyMode), string(blob.ImmutabilityPolicySettingLocked))
	out.Held = p.LegalHold != nil && *p.LegalHold
	return out, nil
}

// Protect costs one read operation, and one write operation where the date moves. It
// needs the right runAsSuperUser.
// https://learn.microsoft.com/rest/api/storageservices/set-blob-immutability-policy
func (b *Blobs) Protect(ctx context.Context, name string, until time.Time) (bool, error) {
	was, err := b.Protection(ctx, name)
	if err != nil {
		return false, err
	}
	until = wholeSecond(until)
	if !until.After(was.Until) || !until.After(time.Now()) {
		return false, nil
	}
	mode := b.mode()
	if was.Locked {
		mode = blob.ImmutabilityPolicySettingLocked // anything else would be refused
	}
	_, err = b.c.NewBlobClient(name).SetImmutabilityPolicy(ctx, until, &blob.SetImmutabilityPolicyOptions{Mode: to.Ptr(mode)})
	if bloberror.HasCode(err, bloberror.BlobNotFound) {
		return false, evidence.ErrNotFound
	}
	if err != nil {
		return false, fmt.Errorf("set immutability policy of blob: %w", hide(err))
	}
	return true, nil
}

// Unprotect costs one read operation, and one write operation where there is a date. It
// needs the right runAsSuperUser.
// https://learn.microsoft.com/rest/api/storageservices/delete-blob-immutability-policy
func (b *Blobs) Unprotect(ctx context.Context, name string) error {
	p, err := b.Protection(ctx, name)
	if err != nil {
		return err
	}
	switch running := time.Now().Before(p.Until); {
	case p.Held:
		return evidence.ErrHeld
	case running && p.Locked:
		return evidence.ErrLocked
	case !running:
		return nil
	}
	_, err = b.c.NewBlobClient(name).DeleteImmutabilityPolicy(ctx, nil)
	if bloberror.HasCode(err, bloberror.BlobNotFound) {
		return evidence.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("delete immutability policy of blob: %w", hide(err))
	}
	return nil
}

// Hold costs one write operation.
// https://learn.microsoft.com/rest/api/storageservices/set-blob-legal-hold
func (b *Blobs) Hold(ctx context.Context, name string, on bool) error {
	_, err := b.c.NewBlobClient(name).SetLegalHold(ctx, on, nil)
	if bloberror.HasCode(err, bloberror.BlobNotFound) {
		return evidence.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("set legal hold of blob: %w", hide(err))
	}
	return nil
}

// Delete costs one read operation, one list operation, and the deletions, which cost
// nothing but their requests.
//
// With versioning, which a policy for each version needs, deleting a blob only moves its
// current version aside, also one under a date: so the date is asked for first, and then
// the versions are deleted one by one, which storage refuses for those under a date or a
// hold. The right to that is another than the one to delete (deleteBlobVersion).
// https://learn.microsoft.com/azure/storage/blobs/versioning-overview
func (b *Blobs) Delete(ctx context.Context, name string) error {
	p, err := b.Protection(ctx, name)
	if errors.Is(err, evidence.ErrNotFound) {
		return b.deleteVersions(ctx, name) // an earlier try may have come this far
	}
	if err == nil {
		err = p.Refusal(time.Now())
	}
	if err != nil {
		return err
	}
	if _, err := b.c.NewBlobClient(name).Delete(ctx, nil); err != nil && !bloberror.HasCode(err, bloberror.BlobNotFound) {
		return undeleted(err)
	}
	return b.deleteVersions(ctx, name)
}

// deleteVersions deletes what a deletion has moved aside.
func (b *Blobs) deleteVersions(ctx context.Context, name string) error {
	var versions []string
	err := b.list(ctx, name, container.ListBlobsInclude{Versions: true}, func(i *container.BlobItem) {
		if *i.Name == name && i.VersionID != nil {
			versions = append(versions, *i.VersionID)
		}
	})
	if err != nil {
		return err
	}
	for _, v := range versions {
		c, err := b.c.NewBlobClient(name).WithVersionID(v)
		if err != nil {
			return fmt.Errorf("delete blob version: %w", err)
		}
		if _, err := c.Delete(ctx, nil); err != nil && !bloberror.HasCode(err, bloberror.BlobNotFound) {
			return undeleted(err)
		}
	}
	return nil
}

// undeleted is why storage kept a blob or a version of it.
func undeleted(err error) error {
	switch {
	case bloberror.HasCode(err, "BlobImmutableDueToLegalHold"):
		return evidence.ErrHeld
	case bloberror.HasCode(err, bloberror.BlobImmutableDueToPolicy):
		return evidence.ErrLocked
	}
	return fmt.Errorf("delete blob: %w", hide(err))
}

// List costs one list operation for up to 5,000 versions. A blob of which only earlier
// versions are left is listed too: it is there until they are gone.
func (b *Blobs) List(ctx context.Context, prefix string) ([]evidence.TailInfo, error) {
	return b.listed(ctx, prefix, container.ListBlobsInclude{Versions: true})
}

// listed names each blob once, with the time of its newest version.
func (b *Blobs) listed(ctx context.Context, prefix string, what container.ListBlobsInclude) ([]evidence.TailInfo, error) {
	var out []evidence.TailInfo
	err := b.list(ctx, prefix, what, func(i *container.BlobItem) {
		o := evidence.TailInfo{Name: *i.Name, Size: *i.Properties.ContentLength, StoredAt: *i.Properties.LastModified}
		if n := len(out); n > 0 && out[n-1].Name == o.Name { // versions of one blob stand together
			if o.StoredAt.After(out[n-1].StoredAt) {
				out[n-1] = o
			}
			return
		}
		out = append(out, o)
	})
	return out, err
}

// list calls f for each entry below a prefix.
func (b *Blobs) list(ctx context.Context, prefix string, what container.ListBlobsInclude, f func(*container.BlobItem)) error {
	pager := b.c.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: to.Ptr(prefix), Include: what})
	for pager.More() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("list blobs: %w", hide(err))
		}
		for _, i := range page.Segment.BlobItems {
			if i.Name == nil || i.Properties == nil || i.Properties.ContentLength == nil || i.Properties.LastModified == nil {
				return errors.New("list blobs: an entry without name, length or time")
			}
			f(i)
		}
	}
	return nil
}

// Now costs one read operation: every answer carries the service's clock.
func (b *Blobs) Now(ctx context.Context) (time.Time, error) {
	p, err := b.c.GetProperties(ctx, nil)
	if err != nil {
		return time.Time{}, fmt.Errorf("read container properties: %w", hide(err))
	}
	if p.Date == nil {
		return time.Time{}, errors.New("read container properties: no date in the answer")
	}
	return p.Date.UTC(), nil
}
