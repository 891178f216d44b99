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

// Delete costs nothing but the request. With versioning it leaves a version behind, which
// the account's lifecycle rule removes: a version under a date or hold is refused there too.
func (b *Blobs) Delete(ctx context.Context, name string) error {
	_, err := b.c.NewBlobClient(name).Delete(ctx, nil)
	switch {
	case err == nil, bloberror.HasCode(err, bloberror.BlobNotFound):
		return nil
	case bloberror.HasCode(err, "BlobImmutableDueToLegalHold"):
		return evidence.ErrHeld
	case bloberror.HasCode(err, bloberror.BlobImmutableDueToPolicy):
		return evidence.ErrLocked
	}
	return fmt.Errorf("delete blob: %w", hide(err))
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
