package keyvault_test

import (
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"steno/tests/local/keyvault"
)

func TestEachAnsweredRequestIsALineOfTheAuditLog(t *testing.T) {
	var mu sync.Mutex
	var lines [][]byte
	f := start(t, keyvault.Config{Audit: func(_ time.Time, line []byte) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, line)
	}})
	version, err := f.CreateKey("wrap", "RSA", 0)
	if err != nil {
		t.Fatal(err)
	}
	alg := to.Ptr(azkeys.EncryptionAlgorithmRSAOAEP256)
	wrapped, err := f.keys.WrapKey(t.Context(), "wrap", "", azkeys.KeyOperationParameters{Algorithm: alg, Value: []byte("secret")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	unwrap := azkeys.KeyOperationParameters{Algorithm: alg, Value: wrapped.Result}
	if _, err := f.keys.UnwrapKey(t.Context(), "wrap", version, unwrap, nil); err != nil {
		t.Fatal(err)
	}
	f.DenyUnwrap(app)
	if _, err := f.keys.UnwrapKey(t.Context(), "wrap", version, unwrap, nil); err == nil {
		t.Fatal("denied, and unwrapped")
	}
	type record struct {
		Time       time.Time
		Category   string
		ResultType string
		Identity   struct{ Claim map[string]string }
		Properties struct {
			ID     string
			Status int `json:"httpStatusCode"`
		}
		OperationName string
	}
	var got []string
	mu.Lock()
	defer mu.Unlock()
	for _, line := range lines {
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		if r.Category != "AuditEvent" || r.Identity.Claim["appid"] != app || r.Properties.ID != f.url+"/keys/wrap/"+version || time.Since(r.Time).Abs() > time.Minute {
			t.Errorf("%s", line)
		}
		got = append(got, r.OperationName+" "+r.ResultType)
	}
	// The first request, without a token, is a challenge and no line.
	if want := []string{"KeyWrap Success", "KeyUnwrap Success", "KeyUnwrap Failed"}; !slices.Equal(got, want) {
		t.Errorf("logged %q, want %q", got, want)
	}
}
