// Package intake_test runs the lanes of messages against a tenant that does everything at the
// wrong moment: it edits and deletes while it is being paged, throttles, times out, loses, doubles,
// delays and reorders notifications, lets people in and out of the recorded groups; the clock of the archive is wrong, its processes die at
// any step, its queue delivers twice and in any order. At the end the archive is held against
// the tenant's whole history.
//
// STENO_CAMPAIGN names how many seeds are run; a few are by default.
package intake_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
)

// shortSeeds is how many seeds run with all tests.
const shortSeeds = 15

// server serves whatever tenant is current, under a certificate that the process trusts: the
// system's roots are read once.
var (
	server  *httptest.Server
	current atomic.Value // http.Handler
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		current.Load().(http.Handler).ServeHTTP(w, r)
	}))
	defer server.Close()
	dir, err := os.MkdirTemp("", "steno-campaign-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	root := filepath.Join(dir, "root.pem")
	if err := os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		return 1, err
	}
	if err := os.Setenv("SSL_CERT_FILE", root); err != nil {
		return 1, err
	}
	if _, err := x509.SystemCertPool(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func seeds(t *testing.T) int {
	t.Helper()
	s := os.Getenv("STENO_CAMPAIGN")
	if s == "" {
		return shortSeeds
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("STENO_CAMPAIGN is %q, want how many seeds to run", s)
	}
	return n
}

func TestWhateverGoesWrongTheArchiveIsWhatTheTenantSays(t *testing.T) {
	var all tally
	for seed := range seeds(t) {
		c := newCampaign(t, uint64(seed))
		c.live(6)
		all.add(c.compare())
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%+v", all)
	if all.Deaths == 0 || all.Expected == 0 || all.Unobservable == 0 || all.Redelivered == 0 || all.ByNoticeAlone == 0 {
		t.Errorf("a campaign in which nothing went wrong proves nothing: %+v", all)
	}
}
