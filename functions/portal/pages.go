package portal

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
)

// built holds the pages as Vite built them. `make web` fills web/dist; a handler
// built without it serves the API and says so in place of a page.
//
//go:embed all:web/dist
var built embed.FS

//go:embed openapi.json
var openapiDocument []byte

// noncePlaceholder stands in index.html where each response gets a nonce of its own:
// Fluent writes its styles into elements, which style-src 'self' alone refuses.
const noncePlaceholder = "__STENO_NONCE__"

// pages serves index.html for every path of the application, and its assets.
type pages struct {
	base   string
	policy string
	index  []byte
	assets map[string]asset // by name, such as assets/index-1a2b.js
}

// asset is a built file. Its name holds a digest of its bytes, so it never changes.
type asset struct {
	kind       string
	body       []byte
	compressed func() []byte // body as gzip, made once when it is first asked for
}

func newPages(c Config) (*pages, error) {
	files := c.Pages
	if files == nil {
		var err error
		if files, err = fs.Sub(built, "web/dist"); err != nil {
			return nil, fmt.Errorf("portal pages: %w", err)
		}
	}
	authority, err := url.Parse(c.Authority)
	if err != nil {
		return nil, fmt.Errorf("portal authority: %w", err)
	}
	p := &pages{base: c.Base + "/"}
	if p.assets, err = readAssets(files); err != nil {
		return nil, fmt.Errorf("portal pages: %w", err)
	}
	connect := "'self' " + authority.Scheme + "://" + authority.Host
	p.policy = "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-" + noncePlaceholder + "'; img-src 'self' data: blob:; " +
		"media-src 'self' blob:; font-src 'self'; connect-src " + connect + "; frame-src 'self'; worker-src 'self' blob:; base-uri 'none'; " +
		"form-action 'self'; frame-ancestors 'none'; object-src 'none'; require-trusted-types-for 'script'; trusted-types dompurify steno-message"
	p.index, err = fs.ReadFile(files, "index.html")
	if errors.Is(err, fs.ErrNotExist) {
		p.index = []byte("<!doctype html><title>Steno</title><p>The pages were not built into this handler.</p>")
	} else if err != nil {
		return nil, fmt.Errorf("portal pages: %w", err)
	}
	return p, nil
}

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, p.base)
	if strings.HasPrefix(name, "assets/") {
		p.asset(w, r, name)
		return
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	nonce := base64.StdEncoding.EncodeToString(b[:])
	h := w.Header()
	h.Set("Content-Security-Policy", strings.ReplaceAll(p.policy, noncePlaceholder, nonce))
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(bytes.ReplaceAll(p.index, []byte(noncePlaceholder), []byte(nonce))) // the caller is gone if this fails
}

// readAssets reads the folder of built files, which need not be there.
func readAssets(files fs.FS) (map[string]asset, error) {
	entries, err := fs.ReadDir(files, "assets")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	assets := map[string]asset{}
	for _, e := range entries {
		name := path.Join("assets", e.Name())
		body, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		kind := mime.TypeByExtension(path.Ext(name))
		if kind == "" {
			kind = "application/octet-stream"
		}
		assets[name] = asset{kind, body, sync.OnceValue(func() []byte { return compress(body) })}
	}
	return assets, nil
}

func compress(body []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(body) // a bytes.Buffer takes everything
	_ = w.Close()
	return b.Bytes()
}

// asset serves a built file, compressed if the browser says that it can read that:
// nothing between here and the browser does it, and the pages' code shrinks to a quarter.
func (p *pages) asset(w http.ResponseWriter, r *http.Request, name string) {
	a, ok := p.assets[name]
	if !ok {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Vary", "Accept-Encoding")
	body := a.body
	if acceptsGzip(r.Header.Get("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		body = a.compressed()
	}
	_, _ = w.Write(body) // the caller is gone if this fails
}

// acceptsGzip reads Accept-Encoding (RFC 9110 section 12.5.3) as far as gzip goes. A
// gzip with any weight but none counts as accepted.
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		coding, weight, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			q, weighted := strings.CutPrefix(strings.ReplaceAll(weight, " ", ""), "q=")
			return !weighted || strings.Trim(q, "0.") != ""
		}
	}
	return false
}

// publicConfig tells the pages where to sign in. Nothing in it is secret.
func (p *Portal) publicConfig(w http.ResponseWriter, r *http.Request) {
	c := p.config
	err := p.reply(w, map[string]string{
		"authority": c.Authority, "clientId": c.Client, "scope": "api://" + c.Audience + "/" + c.Scope,
	})
	if err != nil {
		p.fail(w, r, err)
	}
}

func (p *Portal) openapi(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(openapiDocument) // the caller is gone if this fails
}
