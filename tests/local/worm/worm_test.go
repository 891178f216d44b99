package worm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/tests/local/azurite"
	"steno/tests/local/worm"
)

var (
	account *azurite.Account
	ahead   atomic.Int64 // how far the proxy's clock is before the real one
	serial  atomic.Int64
)

func now() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }

// advance moves the proxy's clock for the rest of the test.
func advance(t *testing.T, d time.Duration) {
	ahead.Add(int64(d))
	t.Cleanup(func() { ahead.Add(-int64(d)) })
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var err error
	account, err = azurite.Start(ctx, azurite.Config{Log: os.Stderr, Now: now})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := account.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	return m.Run()
}

func ctx(t *testing.T) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return c
}

func client(t *testing.T, a *azurite.Account) *azblob.Client {
	t.Helper()
	c, err := azblob.NewClientFromConnectionString(a.ConnectionString(), &azblob.ClientOptions{
		ClientOptions: policy.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newContainer creates a container of its own for the test.
func newContainer(t *testing.T) *container.Client {
	t.Helper()
	c := client(t, account).ServiceClient().NewContainerClient(fmt.Sprintf("c-%d", serial.Add(1)))
	if _, err := c.Create(ctx(t), nil); err != nil {
		t.Fatal(err)
	}
	return c
}

func nameOf(c *container.Client) string { return c.URL()[strings.LastIndex(c.URL(), "/")+1:] }

func writeOnce(t *testing.T, mode worm.Mode, days int) *container.Client {
	t.Helper()
	c := newContainer(t)
	if err := account.SetContainerDefault(nameOf(c), mode, days); err != nil {
		t.Fatal(err)
	}
	return c
}

func upload(t *testing.T, c *container.Client, name, body string, o *blockblob.UploadOptions) *blockblob.Client {
	t.Helper()
	b := c.NewBlockBlobClient(name)
	if err := put(t, b, body, o); err != nil {
		t.Fatalf("upload %s: %v", name, err)
	}
	return b
}

func put(t *testing.T, b *blockblob.Client, body string, o *blockblob.UploadOptions) error {
	_, err := b.Upload(ctx(t), nopCloser{bytes.NewReader([]byte(body))}, o)
	return err
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

func until(d time.Duration) time.Time { return now().Add(d).UTC().Truncate(time.Second) }

func policyOptions(mode worm.Mode, end time.Time) *blockblob.UploadOptions {
	return &blockblob.UploadOptions{
		ImmutabilityPolicyMode:       to.Ptr(blob.ImmutabilityPolicySetting(mode)),
		ImmutabilityPolicyExpiryTime: &end,
	}
}

// wantCode asserts that err is the service's refusal.
func wantCode(t *testing.T, what string, err error, status int, code string) {
	t.Helper()
	e, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		t.Errorf("%s: got %v, want %d %s", what, err, status, code)
		return
	}
	if e.StatusCode != status || e.ErrorCode != code {
		t.Errorf("%s: got %d %s, want %d %s", what, e.StatusCode, e.ErrorCode, status, code)
	}
}

func wantBody(t *testing.T, b *blockblob.Client, want string) {
	t.Helper()
	r, err := b.DownloadStream(ctx(t), nil)
	if err != nil {
		t.Error(err)
		return
	}
	got, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil || string(got) != want {
		t.Errorf("content is %q, %v; want %q", got, err, want)
	}
}

// wantImmutable asserts that nothing changes or removes the blob.
func wantImmutable(t *testing.T, b *blockblob.Client, body, code string) {
	t.Helper()
	wantCode(t, "overwrite", put(t, b, "changed", nil), http.StatusConflict, code)
	wantCode(t, "create", put(t, b, "changed", ifNew()), http.StatusConflict, code)
	if _, err := b.StageBlock(ctx(t), "AAAA", nopCloser{strings.NewReader("changed")}, nil); err != nil {
		t.Errorf("stage block, which changes nothing: %v", err)
	}
	_, err := b.CommitBlockList(ctx(t), []string{"AAAA"}, nil)
	wantCode(t, "commit block list", err, http.StatusConflict, code)
	_, err = b.StartCopyFromURL(ctx(t), b.URL(), nil)
	wantCode(t, "copy over", err, http.StatusConflict, code)
	_, err = b.SetMetadata(ctx(t), map[string]*string{"a": to.Ptr("b")}, nil)
	wantCode(t, "set metadata", err, http.StatusConflict, code)
	_, err = b.Delete(ctx(t), nil)
	wantCode(t, "delete", err, http.StatusConflict, code)
	wantBody(t, b, body)
}

func ifNew() *blockblob.UploadOptions {
	return &blockblob.UploadOptions{AccessConditions: &blob.AccessConditions{
		ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)},
	}}
}

func TestPolicyOnUploadProtects(t *testing.T) {
	for _, mode := range []worm.Mode{worm.Unlocked, worm.Locked} {
		end := until(time.Hour)
		b := upload(t, newContainer(t), "dir/evidence +1", "kept", policyOptions(mode, end))
		wantImmutable(t, b, "kept", "BlobImmutableDueToPolicy")
		p, err := b.GetProperties(ctx(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		if p.ImmutabilityPolicyExpiresOn == nil || !p.ImmutabilityPolicyExpiresOn.Equal(end) ||
			p.ImmutabilityPolicyMode == nil || string(*p.ImmutabilityPolicyMode) != string(mode) {
			t.Errorf("properties say %v until %v, want %s until %v", p.ImmutabilityPolicyMode, p.ImmutabilityPolicyExpiresOn, mode, end)
		}
		d, err := b.DownloadStream(ctx(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		d.Body.Close()
		if d.ImmutabilityPolicyExpiresOn == nil || !d.ImmutabilityPolicyExpiresOn.Equal(end) {
			t.Errorf("download says until %v, want %v", d.ImmutabilityPolicyExpiresOn, end)
		}
	}
}

func TestPolicyOnBlockListProtects(t *testing.T) {
	b := newContainer(t).NewBlockBlobClient("pack")
	if _, err := b.StageBlock(ctx(t), "AAAA", nopCloser{strings.NewReader("kept")}, nil); err != nil {
		t.Fatal(err)
	}
	_, err := b.CommitBlockList(ctx(t), []string{"AAAA"}, &blockblob.CommitBlockListOptions{
		ImmutabilityPolicyMode:       to.Ptr(blob.ImmutabilityPolicySettingLocked),
		ImmutabilityPolicyExpiryTime: to.Ptr(until(time.Hour)),
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Delete(ctx(t), nil)
	wantCode(t, "delete", err, http.StatusConflict, "BlobImmutableDueToPolicy")
}

func TestLegalHoldOnUploadProtects(t *testing.T) {
	b := upload(t, newContainer(t), "b", "kept", &blockblob.UploadOptions{LegalHold: to.Ptr(true)})
	wantImmutable(t, b, "kept", "BlobImmutableDueToLegalHold")
	p, err := b.GetProperties(ctx(t), nil)
	if err != nil || p.LegalHold == nil || !*p.LegalHold {
		t.Errorf("properties say hold %v, %v", p.LegalHold, err)
	}
	if _, err := b.SetLegalHold(ctx(t), false, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Delete(ctx(t), nil); err != nil {
		t.Errorf("delete after the hold was lifted: %v", err)
	}
}

func TestHoldOutlastsPolicy(t *testing.T) {
	b := upload(t, newContainer(t), "b", "kept", policyOptions(worm.Locked, until(time.Hour)))
	r, err := b.SetLegalHold(ctx(t), true, nil)
	if err != nil || r.LegalHold == nil || !*r.LegalHold {
		t.Fatalf("set hold: %v, %v", r.LegalHold, err)
	}
	advance(t, 2*time.Hour)
	_, err = b.Delete(ctx(t), nil)
	wantCode(t, "delete under hold", err, http.StatusConflict, "BlobImmutableDueToLegalHold")
	if _, err := b.SetLegalHold(ctx(t), false, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Delete(ctx(t), nil); err != nil {
		t.Errorf("delete after policy and hold: %v", err)
	}
}

func TestExpiredPolicyAllowsDeletionButNotMetadata(t *testing.T) {
	b := upload(t, newContainer(t), "b", "kept", policyOptions(worm.Locked, until(time.Hour)))
	advance(t, 2*time.Hour)
	_, err := b.SetMetadata(ctx(t), map[string]*string{"a": to.Ptr("b")}, nil)
	wantCode(t, "set metadata", err, http.StatusConflict, "BlobImmutableDueToPolicy")
	if _, err := b.Delete(ctx(t), nil); err != nil {
		t.Fatal(err)
	}
	upload(t, newContainer(t), "b", "a new blob has no policy", nil)
}

func TestLockedPolicyCanOnlyBeExtended(t *testing.T) {
	end := until(time.Hour)
	b := upload(t, newContainer(t), "b", "kept", policyOptions(worm.Locked, end))
	unlocked := &blob.SetImmutabilityPolicyOptions{Mode: to.Ptr(blob.ImmutabilityPolicySettingUnlocked)}
	locked := &blob.SetImmutabilityPolicyOptions{Mode: to.Ptr(blob.ImmutabilityPolicySettingLocked)}
	_, err := b.SetImmutabilityPolicy(ctx(t), end.Add(-time.Minute), locked)
	wantCode(t, "shorten", err, http.StatusConflict, "BlobImmutableDueToPolicy")
	_, err = b.SetImmutabilityPolicy(ctx(t), end.Add(time.Minute), unlocked)
	wantCode(t, "unlock", err, http.StatusConflict, "BlobImmutableDueToPolicy")
	_, err = b.DeleteImmutabilityPolicy(ctx(t), nil)
	wantCode(t, "delete policy", err, http.StatusConflict, "ImmutabilityPolicyDeleteOnLockedPolicy")
	longer := end.Add(time.Hour)
	r, err := b.SetImmutabilityPolicy(ctx(t), longer, locked)
	if err != nil {
		t.Fatal(err)
	}
	if r.ImmutabilityPolicyExpiry == nil || !r.ImmutabilityPolicyExpiry.Equal(longer) {
		t.Errorf("extended until %v, want %v", r.ImmutabilityPolicyExpiry, longer)
	}
}

func TestUnlockedPolicyCanBeShortenedAndRemoved(t *testing.T) {
	b := upload(t, newContainer(t), "b", "kept", nil)
	unlocked := &blob.SetImmutabilityPolicyOptions{Mode: to.Ptr(blob.ImmutabilityPolicySettingUnlocked)}
	for _, d := range []time.Duration{2 * time.Hour, time.Hour} {
		if _, err := b.SetImmutabilityPolicy(ctx(t), until(d), unlocked); err != nil {
			t.Fatal(err)
		}
	}
	_, err := b.Delete(ctx(t), nil)
	wantCode(t, "delete", err, http.StatusConflict, "BlobImmutableDueToPolicy")
	if _, err := b.DeleteImmutabilityPolicy(ctx(t), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Delete(ctx(t), nil); err != nil {
		t.Errorf("delete after the policy was removed: %v", err)
	}
}

func TestMalformedPolicyIsRefused(t *testing.T) {
	c := newContainer(t)
	good := until(time.Hour).Format(http.TimeFormat)
	for name, headers := range map[string]map[string]string{
		"date":              {"x-ms-immutability-policy-until-date": "tomorrow", "x-ms-immutability-policy-mode": "Locked"},
		"date in the past":  {"x-ms-immutability-policy-until-date": until(-time.Hour).Format(http.TimeFormat)},
		"mode":              {"x-ms-immutability-policy-until-date": good, "x-ms-immutability-policy-mode": "Sealed"},
		"mode without date": {"x-ms-immutability-policy-mode": "Locked"},
		"hold":              {"x-ms-legal-hold": "perhaps"},
	} {
		b := c.NewBlockBlobClient(name)
		with := policy.WithHTTPHeader(ctx(t), headerOf(headers))
		_, err := b.Upload(with, nopCloser{strings.NewReader("x")}, nil)
		wantCode(t, name, err, http.StatusBadRequest, "InvalidHeaderValue")
		if _, err := b.GetProperties(ctx(t), nil); err == nil {
			t.Errorf("%s: the blob was written", name)
		}
	}
}

func headerOf(m map[string]string) http.Header {
	h := http.Header{}
	for k, v := range m {
		h.Set(k, v)
	}
	return h
}

func TestPolicyOfAbsentBlobIsNotFound(t *testing.T) {
	b := newContainer(t).NewBlobClient("absent")
	_, err := b.SetImmutabilityPolicy(ctx(t), until(time.Hour), nil)
	wantCode(t, "set policy", err, http.StatusNotFound, "BlobNotFound")
	_, err = b.SetLegalHold(ctx(t), true, nil)
	wantCode(t, "set hold", err, http.StatusNotFound, "BlobNotFound")
}

func TestPolicyCallsNeedAuthorization(t *testing.T) {
	b := upload(t, newContainer(t), "b", "kept", &blockblob.UploadOptions{LegalHold: to.Ptr(true)})
	anyone, err := blockblob.NewClientWithNoCredential(b.URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := anyone.SetLegalHold(ctx(t), false, nil); err == nil {
		t.Error("a caller without credentials lifted a hold")
	}
	_, err = b.Delete(ctx(t), nil)
	wantCode(t, "delete", err, http.StatusConflict, "BlobImmutableDueToLegalHold")
}

func TestRequestsForAVersionAreNotAnsweredWithTheCurrentOne(t *testing.T) {
	b := upload(t, newContainer(t), "b", "x", nil)
	v, err := b.WithVersionID("2026-01-01T00:00:00.0000000Z")
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.DownloadStream(ctx(t), nil)
	wantCode(t, "download version", err, http.StatusNotImplemented, "APINotImplemented")
}

func TestUnprotectedBlobsLiveAsBefore(t *testing.T) {
	b := upload(t, newContainer(t), "b", "one", nil)
	if err := put(t, b, "two", nil); err != nil {
		t.Fatal(err)
	}
	wantBody(t, b, "two")
	wantCode(t, "create", put(t, b, "three", ifNew()), http.StatusConflict, "BlobAlreadyExists")
	if _, err := b.SetMetadata(ctx(t), map[string]*string{"a": to.Ptr("b")}, nil); err != nil {
		t.Error(err)
	}
	if _, err := b.Delete(ctx(t), nil); err != nil {
		t.Error(err)
	}
}

func TestPoliciesSurviveARestart(t *testing.T) {
	cfg := azurite.Config{Dir: t.TempDir(), Log: os.Stderr}
	first, err := azurite.Start(ctx(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, first).ServiceClient().NewContainerClient("kept")
	if _, err := c.Create(ctx(t), nil); err != nil {
		t.Fatal(err)
	}
	upload(t, c, "policy", "kept", policyOptions(worm.Locked, until(time.Hour)))
	upload(t, c, "hold", "kept", &blockblob.UploadOptions{LegalHold: to.Ptr(true)})
	upload(t, c, "lifted", "kept", policyOptions(worm.Unlocked, until(time.Hour)))
	if _, err := c.NewBlobClient("lifted").DeleteImmutabilityPolicy(ctx(t), nil); err != nil {
		t.Fatal(err)
	}
	if err := first.SetContainerDefault("kept", worm.Unlocked, 1); err != nil {
		t.Fatal(err)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	second, err := azurite.Start(ctx(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := second.Stop(); err != nil {
			t.Error(err)
		}
	}()
	c = client(t, second).ServiceClient().NewContainerClient("kept")
	wantImmutable(t, c.NewBlockBlobClient("policy"), "kept", "BlobImmutableDueToPolicy")
	wantImmutable(t, c.NewBlockBlobClient("hold"), "kept", "BlobImmutableDueToLegalHold")
	if _, err := c.NewBlobClient("lifted").Delete(ctx(t), nil); err != nil {
		t.Errorf("delete of the blob whose policy was lifted: %v", err)
	}
	_, err = upload(t, c, "new", "kept", nil).Delete(ctx(t), nil)
	wantCode(t, "delete under the default", err, http.StatusConflict, "BlobImmutableDueToPolicy")
}
