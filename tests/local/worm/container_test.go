package worm_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"

	"steno/tests/local/worm"
)

func TestContainerDefaultProtectsUploads(t *testing.T) {
	c := writeOnce(t, worm.Locked, 7)
	b := upload(t, c, "b", "kept", ifNew())
	wantImmutable(t, b, "kept", "BlobImmutableDueToPolicy")
	p, err := b.GetProperties(ctx(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if left := p.ImmutabilityPolicyExpiresOn.Sub(now()); left < 7*24*time.Hour-time.Minute || left > 7*24*time.Hour+time.Hour {
		t.Errorf("%v left, want 7 days", left)
	}
	custom := upload(t, c, "custom", "x", policyOptions(worm.Unlocked, until(time.Hour)))
	if p, err = custom.GetProperties(ctx(t), nil); err != nil || *p.ImmutabilityPolicyMode != blob.ImmutabilityPolicyModeUnlocked {
		t.Errorf("custom policy became %v, %v", p.ImmutabilityPolicyMode, err)
	}
	props, err := c.GetProperties(ctx(t), nil)
	if err != nil || props.IsImmutableStorageWithVersioningEnabled == nil || !*props.IsImmutableStorageWithVersioningEnabled {
		t.Errorf("container says version-level immutability %v, %v", props.IsImmutableStorageWithVersioningEnabled, err)
	}
}

func TestWriteOnceContainerRefusesSecondVersion(t *testing.T) {
	c := newContainer(t)
	b := upload(t, c, "older than the default", "kept", nil)
	if err := account.SetContainerDefault(nameOf(c), worm.Unlocked, 1); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "overwrite", put(t, b, "changed", nil), http.StatusConflict, "BlobImmutableDueToPolicy")
	wantCode(t, "create", put(t, b, "changed", ifNew()), http.StatusConflict, "BlobAlreadyExists")
	wantBody(t, b, "kept")
	expired := upload(t, c, "expired", "kept", nil)
	advance(t, 48*time.Hour)
	wantCode(t, "overwrite after expiry", put(t, expired, "changed", nil), http.StatusConflict, "BlobImmutableDueToPolicy")
}

func TestLockedContainerDefaultCannotBeWeakened(t *testing.T) {
	name := nameOf(writeOnce(t, worm.Locked, 7))
	for mode, days := range map[worm.Mode]int{worm.Locked: 6, worm.Unlocked: 8, "open": 9} {
		if err := account.SetContainerDefault(name, mode, days); err == nil {
			t.Errorf("accepted %s for %d days", mode, days)
		}
	}
	for _, days := range []int{0, -1, worm.MaxDays + 1} {
		if err := account.SetContainerDefault(name, worm.Locked, days); err == nil {
			t.Errorf("accepted %d days", days)
		}
	}
	if err := account.SetContainerDefault(name, worm.Locked, 8); err != nil {
		t.Error(err)
	}
}

func TestContainerWithProtectedBlobsCannotBeDeleted(t *testing.T) {
	const code = "ContainerImmutableStorageWithVersioningEnabled"
	c := newContainer(t)
	upload(t, c, "b", "kept", policyOptions(worm.Unlocked, until(time.Hour)))
	_, err := c.Delete(ctx(t), nil)
	wantCode(t, "delete container", err, http.StatusConflict, code)
	_, err = writeOnce(t, worm.Unlocked, 1).Delete(ctx(t), nil)
	wantCode(t, "delete empty write-once container", err, http.StatusConflict, code)
	advance(t, 2*time.Hour)
	if _, err := c.Delete(ctx(t), nil); err != nil {
		t.Errorf("delete container after expiry: %v", err)
	}
}

func TestBatchDeletesOnlyWhatIsUnprotected(t *testing.T) {
	c := newContainer(t)
	upload(t, c, "free 1", "x", nil)
	kept := upload(t, c, "kept", "kept", policyOptions(worm.Locked, until(time.Hour)))
	upload(t, c, "free 2", "x", nil)
	batch, err := c.NewBatchBuilder()
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"free 1", "kept", "free 2", "absent"}
	for _, name := range names {
		if err := batch.Delete(name, nil); err != nil {
			t.Fatal(err)
		}
	}
	account.ResetOperations()
	r, err := c.SubmitBatch(ctx(t), batch, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Responses) != len(names) {
		t.Fatalf("%d responses to %d deletions", len(r.Responses), len(names))
	}
	want := []string{"", "BlobImmutableDueToPolicy", "", "BlobNotFound"}
	for _, item := range r.Responses {
		code := ""
		if e, ok := errors.AsType[*azcore.ResponseError](item.Error); ok {
			code = e.ErrorCode
		} else if item.Error != nil {
			t.Errorf("delete %s: %v", names[*item.ContentID], item.Error)
		}
		if code != want[*item.ContentID] {
			t.Errorf("delete %s: got %q, want %q", names[*item.ContentID], code, want[*item.ContentID])
		}
	}
	wantBody(t, kept, "kept")
	if got := account.Operations(); got[worm.OpDelete] != 4 {
		t.Errorf("operations %v, want 4 deletions", got)
	}
}
