// Package grant gives tests the acknowledgment that nothing but Graph's answer to
// updateRecordingStatus yields: it plays the Graph that gives it.
package grant

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"steno/shared/msgraph"
	"steno/shared/teams"
)

var start = sync.OnceValues(func() (*msgraph.Calls, error) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, `{"id":"17e3b46c-f61d-4f4d-9635-c626ef18e6ad","status":"completed"}`)
	}))
	// Go reads its trusted roots once, from here, when it first needs them.
	dir, err := os.MkdirTemp("", "grant")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	roots := filepath.Join(dir, "roots.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(roots, b, 0o600); err != nil {
		return nil, err
	}
	if err := os.Setenv("SSL_CERT_FILE", roots); err != nil {
		return nil, err
	}
	calls, err := msgraph.NewCalls(msgraph.CallsConfig{BaseURL: srv.URL + "/v1.0", Credential: token{}, Private: true})
	if err != nil {
		return nil, err
	}
	_, err = calls.UpdateRecordingStatus(context.Background(), "first", msgraph.StatusRecording)
	return calls, err
})

type token struct{}

func (token) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "t", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// For returns the acknowledgment for a call.
func For(call teams.CallID) (msgraph.RecordingGranted, error) {
	calls, err := start()
	if err != nil {
		return msgraph.RecordingGranted{}, err
	}
	return calls.UpdateRecordingStatus(context.Background(), call, msgraph.StatusRecording)
}
