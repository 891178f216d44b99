package portal

import (
	"bytes"
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
	files  fs.FS
	index  []byte
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
	p := &pages{base: c.Base + "/", files: files}
	connect := "'self' " + authority.Scheme + "://" + authority.Host
	p.policy = "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-" + noncePlaceholder + "'; img-src 'self' data: blob:; " +
		"media-src 'self' blob:; font-src 'self'; connect-src " + connect + "; frame-src 'self'; worker-src 'self' blob:; base-uri 'none'; " +
		"form-action 'self'; frame-ancestors 'none'; object-src 'none'"
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
		p.asset(w, name)
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

// asset serves a built file. Its name holds a digest of its bytes, so it never changes.
func (p *pages) asset(w http.ResponseWriter, name string) {
	body, err := fs.ReadFile(p.files, name)
	if err != nil {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	kind := mime.TypeByExtension(path.Ext(name))
	if kind == "" {
		kind = "application/octet-stream"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(body) // the caller is gone if this fails
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
