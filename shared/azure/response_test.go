package azure

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
)

// responseError is the error that azcore makes of an answer.
func responseError(t *testing.T, status int, code, body string) *azcore.ResponseError {
	t.Helper()
	u, err := url.Parse("https://account.table.core.windows.net/table")
	if err != nil {
		t.Fatal(err)
	}
	resp := &http.Response{
		StatusCode: status, Status: http.StatusText(status), Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)),
		Request: &http.Request{Method: http.MethodPost, URL: u},
	}
	if code != "" {
		resp.Header.Set("x-ms-error-code", code)
	}
	var re *azcore.ResponseError
	if !errors.As(runtime.NewResponseError(resp), &re) {
		t.Fatal("azcore makes another error")
	}
	return re
}
