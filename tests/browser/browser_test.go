// Package browser_test proves the portal in a real browser: its pages as Vite built
// them, its handler, and a sign-in with Microsoft's library against the Entra stand-in,
// all under one https origin.
//
// The claims stand in pages.test.mjs; each becomes a subtest of TestPages. The browser
// is the machine's Chromium, or the one that CHROMIUM names; SCREENSHOTS names a folder
// that pictures of the pages go to.
package browser_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"steno/functions/portal"
	"steno/shared/custody"
	"steno/tests/local/ca"
	"steno/tests/local/entra"
)

const (
	audience = "7e57cccc-0000-4000-8000-000000000001"
	client   = "7e57cccc-0000-4000-8000-000000000002"
	scope    = "Archive.Read"

	web = "../../functions/portal/web"
	// limit is how long all claims together may take.
	limit = 5 * time.Minute
)

// claim is one result that the reporter writes.
type claim struct {
	Claim  string `json:"claim"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

func TestPages(t *testing.T) {
	requireFreshPages(t)
	installDriver(t)
	a := newArchive(t)
	told, err := json.Marshal(tell(t, a))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	shots := os.Getenv("SCREENSHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	cmd := exec.CommandContext(ctx, "node", "--test", "--test-reporter=./reporter.mjs", "--test-concurrency=1", "pages.test.mjs", "calls.test.mjs", "control.test.mjs")
	cmd.Env = append(os.Environ(), "ORIGIN="+serve(t, a), "STORY="+string(told), "CHROMIUM="+chromium(t), "SCREENSHOTS="+shots)
	cmd.WaitDelay = 5 * time.Second
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	seen := map[string]bool{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var c claim
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Errorf("not a result: %s", lines.Bytes())
			continue
		}
		seen[c.Claim] = true
		t.Run(c.Claim, func(t *testing.T) {
			if !c.OK {
				t.Error(c.Detail)
			}
		})
	}
	if err != nil || len(seen) == 0 {
		t.Errorf("browser: %v, %d claims\n%s", err, len(seen), complaints.Bytes())
	}
	t.Run("readings and refusals are on record", func(t *testing.T) { checkTrail(t, a) })
}

// checkTrail holds the trail against what the pages cannot know: who read, and that what
// was refused is there as well.
func checkTrail(t *testing.T, a *archive) {
	reads, err := a.events(t.Context(), custody.Read)
	if err != nil {
		t.Fatal(err)
	}
	denied, err := a.events(t.Context(), custody.Denied)
	if err != nil {
		t.Fatal(err)
	}
	if len(reads) == 0 || len(denied) == 0 {
		t.Fatalf("%d readings and %d refusals on record", len(reads), len(denied))
	}
	for _, r := range reads {
		if r.Actor != sofia.id && r.Actor != omar.id {
			t.Errorf("%s read %s", r.Actor, r.Item)
		}
	}
}

// serve starts the portal and the sign-in under one origin.
func serve(t *testing.T, a *archive) (origin string) {
	t.Helper()
	authority, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Local()
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	s := httptest.NewUnstartedServer(mux)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // the browser tries a certificate before it is told to accept it
	s.StartTLS()
	t.Cleanup(s.Close)
	origin = strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	e, err := entra.New(entra.Config{
		Base: origin + "/entra", Tenant: string(tenant), TenantName: "Contoso", People: accounts,
		Clients: []entra.Client{
			{ID: audience, Name: "Steno API", Scopes: []string{scope}},
			{ID: client, Name: "Steno portal", Redirects: []string{origin + "/steno/"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Mount(mux)
	keys := authority.Client()
	t.Cleanup(keys.CloseIdleConnections)
	handler, err := portal.New(portal.Config{
		Base: "/steno", Tenant: tenant, History: 365 * 24 * time.Hour, Audience: audience, Client: client, Scope: scope,
		Issuer: e.Issuer(), KeysURL: e.Authority() + "/discovery/v2.0/keys", Authority: e.Authority(), HTTP: keys,
	}, a.stores(), slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		t.Fatal(err)
	}
	mux.Handle("/steno/", handler)
	return origin
}

// requireFreshPages refuses to prove pages that are older than what they are built from.
func requireFreshPages(t *testing.T) {
	t.Helper()
	const how = "run npm ci --ignore-scripts and npm run build in functions/portal/web"
	built, err := os.Stat(filepath.Join(web, "dist", "index.html"))
	if err != nil {
		t.Fatalf("the pages are not built: %s", how)
	}
	sources := []string{filepath.Join(web, "index.html"), filepath.Join(web, "package-lock.json")}
	err = filepath.WalkDir(filepath.Join(web, "src"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			sources = append(sources, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range sources {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.ModTime().After(built.ModTime()) {
			t.Fatalf("the pages are older than %s: %s", path, how)
		}
	}
}

// installDriver brings what package-lock.json pins, unless it is there.
func installDriver(t *testing.T) {
	t.Helper()
	lock, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(lock)
	want, stamp := hex.EncodeToString(sum[:]), filepath.Join("node_modules", ".installed-by")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
		return
	}
	if out, err := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund").CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	if err := os.WriteFile(stamp, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func chromium(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("CHROMIUM"); path != "" {
		return path
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("no browser: install Debian's package chromium, or name one in CHROMIUM")
	return ""
}
