package portal_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"steno/functions/portal"
)

func pagesHandler(t *testing.T, files fstest.MapFS) http.Handler {
	t.Helper()
	h, err := portal.New(portal.Config{
		Base: "/steno", Audience: "a", Client: "c", Scope: "s", Issuer: "https://login.example/t/v2.0",
		KeysURL: "https://login.example/t/keys", Authority: "https://login.example/t", Pages: files,
	}, portal.Stores{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func get(h http.Handler, path, encoding string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if encoding != "" {
		r.Header.Set("Accept-Encoding", encoding)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestAssetsAreCompressedForWhoCanReadThat(t *testing.T) {
	code := []byte(strings.Repeat("export const steno = 1;\n", 1000))
	h := pagesHandler(t, fstest.MapFS{"index.html": {Data: []byte("<p>")}, "assets/index-1a2b.js": {Data: code}})
	for encoding, compressed := range map[string]bool{
		"": false, "br": false, "gzip": true, "br, GZIP;q=0.5": true, "gzip;q=0": false, "gzip; q=0.000, br": false, "deflate, gzip": true,
	} {
		resp := get(h, "/steno/assets/index-1a2b.js", encoding)
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.Header.Get("Content-Encoding") == "gzip"; got != compressed {
			t.Errorf("%q: compressed is %v", encoding, got)
			continue
		}
		if compressed {
			z, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if body, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(body, code) || resp.Header.Get("Vary") != "Accept-Encoding" || !strings.Contains(resp.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%q: %d bytes, headers %v", encoding, len(body), resp.Header)
		}
	}
}

func TestEachPageHasItsOwnNonceAndIsNotKept(t *testing.T) {
	h := pagesHandler(t, fstest.MapFS{"index.html": {Data: []byte(`<meta name="style-nonce" content="__STENO_NONCE__">`)}})
	seen := map[string]bool{}
	for _, path := range []string{"/steno/", "/steno/people", "/steno/conversations/x"} {
		resp := get(h, path, "gzip")
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(body), `content="`)
		nonce, _, _ := strings.Cut(after, `"`)
		policy := resp.Header.Get("Content-Security-Policy")
		if len(nonce) < 22 || seen[nonce] || !strings.Contains(policy, "style-src 'self' 'nonce-"+nonce+"'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: nonce %q, policy %s", path, nonce, policy)
		}
		if resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", path, resp.Header)
		}
		seen[nonce] = true
	}
}

func TestOnlyBuiltAssetsAreServed(t *testing.T) {
	h := pagesHandler(t, fstest.MapFS{"index.html": {Data: []byte("<p>")}, "assets/a.js": {Data: []byte("1")}, ".gitkeep": {}})
	for _, path := range []string{"/steno/assets/", "/steno/assets/b.js", "/steno/assets/..%2findex.html", "/steno/assets/%2e%2e/.gitkeep"} {
		if resp := get(h, path, ""); resp.StatusCode == http.StatusOK && !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	if resp := get(pagesHandler(t, fstest.MapFS{}), "/steno/", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("a handler without pages answers %s", resp.Status)
	}
}
