// Package bench_test measures what the product costs: CPU of ingest against a floor in
// the same run, storage operations a message, memory, and how fast the handler is
// ready. Figures are ratios wherever they can be, since machines are noisy.
//
// What is measured runs in a process of its own: this test binary, started again as
// the ingesting side, so that the simulated services do not count.
package bench_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azpolicy "github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"golang.org/x/sync/errgroup"

	"steno/functions/chatexport"
	"steno/shared/azure"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/msgraph"
	"steno/shared/teams"
	"steno/tests/world"
)

const childVariable = "BENCH_CHILD"

func TestMain(m *testing.M) {
	if job := os.Getenv(childVariable); job != "" {
		if err := ingest([]byte(job)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if stagedIn != "" {
		if err := os.RemoveAll(stagedIn); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// job is what the ingesting process is told, and figures what it answers.
type job struct {
	Tenant, GraphURL, BlobURL, TableURL, VaultURL, Container, VaultKey string
	Custodian                                                          string
	Tokens                                                             map[string]string
	Warm, Windows                                                      int
	Start                                                              time.Time
	// People is how many custodians take turns; 0 means Custodian alone.
	People int
}

// custodianOf is whose window the n-th is.
func (j job) custodianOf(n int) teams.PersonID {
	if j.People == 0 {
		return teams.PersonID(j.Custodian)
	}
	return personOf(n % j.People)
}

func personOf(n int) teams.PersonID {
	return teams.PersonID(fmt.Sprintf("b0000000-0000-4000-8000-%012d", n))
}

type figures struct {
	CPU       time.Duration // user and system, over Windows
	Wall      time.Duration
	FirstRSS  int64         // KiB, after warming up
	LastRSS   int64         // KiB, at the end
	FloorCPU  time.Duration // splitting the same pages, as often
	FloorRuns int
}

type tokens map[string]string

func (t tokens) GetToken(_ context.Context, o azpolicy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: t[strings.TrimSuffix(o.Scopes[0], "/.default")], ExpiresOn: time.Now().Add(time.Hour)}, nil
}

type discard struct{}

func (discard) Send(context.Context, string, []byte, time.Time) error {
	return errors.New("a window was put back")
}

// exporterFor connects the real adapters as functions/main.go does.
func exporterFor(j job) (*chatexport.Exporter, *msgraph.Client, error) {
	cred := tokens(j.Tokens)
	tenant := teams.TenantID(j.Tenant)
	opts := azure.ClientOptions()
	tables, err := aztables.NewServiceClient(j.TableURL, cred, &aztables.ClientOptions{ClientOptions: opts})
	if err != nil {
		return nil, nil, err
	}
	blobs, err := container.NewClient(j.BlobURL+"/"+j.Container, cred, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return nil, nil, err
	}
	keys, err := azkeys.NewClient(j.VaultURL, cred, &azkeys.ClientOptions{DisableChallengeResourceVerification: true})
	if err != nil {
		return nil, nil, err
	}
	vault, err := url.Parse(j.VaultURL)
	if err != nil {
		return nil, nil, err
	}
	store, err := evidence.New(evidence.Config{Blobs: azure.NewBlobs(blobs), Keys: azure.NewKeys(tables),
		Vault: azure.NewVault(keys, j.VaultKey), VaultHosts: []string{vault.Host}})
	if err != nil {
		return nil, nil, err
	}
	budget, err := azure.NewBudget(tenant, tables, graphRate, graphBurst)
	if err != nil {
		return nil, nil, err
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	graph, err := msgraph.New(msgraph.Config{BaseURL: j.GraphURL, Credential: cred, Budget: budget, Log: log, Private: true})
	if err != nil {
		return nil, nil, err
	}
	catalog := azure.NewCatalog(tenant, tables)
	return chatexport.New(chatexport.Config{Tenant: tenant}, graph, azure.NewRoster(tenant, tables), catalog, store, chatexport.Registers{Lookbacks: azure.NewLookbacks(tenant, tables), Failures: azure.NewFailures(tenant, tables)}, custody.Log{Trail: azure.NewTrail(tenant, tables)}, discard{}, log), graph, nil
}

// ingest is the measured process.
func ingest(b []byte) error {
	var j job
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	// As functions/main.go sets them.
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(400 << 20)
	e, _, err := exporterFor(j)
	if err != nil {
		return err
	}
	run := func(n int) error {
		w := conversation.Window{Tenant: teams.TenantID(j.Tenant), Custodian: j.custodianOf(n), Pass: 1,
			From: j.Start.Add(time.Duration(n) * time.Hour), To: j.Start.Add(time.Duration(n+1) * time.Hour)}
		body, err := conversation.EncodeWindow(w)
		if err != nil {
			return err
		}
		return e.Handle(context.Background(), body)
	}
	// As many at once as host.json lets the host send.
	runAll := func(from, to int) error {
		var group errgroup.Group
		group.SetLimit(concurrent)
		for n := from; n < to; n++ {
			group.Go(func() error { return run(n) })
		}
		return group.Wait()
	}
	if err := runAll(0, j.Warm); err != nil {
		return err
	}
	fmt.Println("warm") // the parent resets its counters
	if _, err := fmt.Scanln(new(string)); err != nil {
		return err
	}
	var f figures
	if path := os.Getenv("BENCH_PROFILE"); path != "" {
		p, err := os.Create(path + strconv.Itoa(int(j.Start.Month())))
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(p); err != nil {
			return err
		}
	}
	f.FirstRSS = rss()
	cpu, wall := cpuTime(), time.Now()
	if err := runAll(j.Warm, j.Warm+j.Windows); err != nil {
		return err
	}
	f.CPU, f.Wall, f.LastRSS = cpuTime()-cpu, time.Since(wall), rss()
	pprof.StopCPUProfile()
	page, err := fetch(j)
	if err != nil {
		return err
	}
	cpu = cpuTime()
	for f.FloorRuns = 0; f.FloorRuns < 2000; f.FloorRuns++ {
		var doc struct{ Value []json.RawMessage }
		if err := json.Unmarshal(page, &doc); err != nil || len(doc.Value) != perPage {
			return fmt.Errorf("floor: %d items, %w", len(doc.Value), err)
		}
	}
	f.FloorCPU = cpuTime() - cpu
	return json.NewEncoder(os.Stdout).Encode(f)
}

// fetch reads one of the pages as it travels.
func fetch(j job) ([]byte, error) {
	pem, err := os.ReadFile(os.Getenv("SSL_CERT_FILE"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	resp, err := c.Get(j.GraphURL + "/users/" + j.Custodian + "/chats/getAllMessages?$filter=lastModifiedDateTime%20gt%20" + j.Start.UTC().Format("2006-01-02T15:04:05.000Z"))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// rss is the resident memory of this process in KiB.
func rss() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		panic(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		panic(err)
	}
	return pages * int64(os.Getpagesize()) / 1024
}

const perPage = 50

// TestIngest is the path from Graph's page to durable evidence and catalog, at 50
// messages a page.
func TestIngest(t *testing.T) {
	w := startWorld(t)
	fmt.Printf("\n%-44s %12s %12s %10s %14s\n", "ingest, 50 messages of 1.1 kB a page", "CPU/message", "× floor", "ops/message", "RSS first→last")
	for _, threads := range []int{1, 2, 5} {
		f, ops := measure(t, w, threads)
		windows := time.Duration(measured)
		perMessage := f.CPU / windows / perPage
		floor := f.FloorCPU / time.Duration(f.FloorRuns) / perPage
		ratio := float64(perMessage) / float64(floor)
		each := float64(ops) / measured / perPage
		fmt.Printf("%-44s %12s %12.1f %10.3f %7d→%d MiB\n", fmt.Sprintf("  %d conversations a page, new every page", threads),
			perMessage, ratio, each, f.FirstRSS/1024, f.LastRSS/1024)
		if threads <= 2 && each > 0.2 {
			t.Errorf("%d conversations: %.3f storage operations a message, want at most 0.2", threads, each)
		}
		if f.LastRSS > f.FirstRSS+64<<10 {
			t.Errorf("%d conversations: memory grew from %d to %d KiB", threads, f.FirstRSS, f.LastRSS)
		}
		if ratio > maxRatio {
			t.Errorf("%d conversations: %.1f × the floor, want at most %d", threads, ratio, maxRatio)
		}
	}
}

// graphRate and graphBurst keep any one second below the 200 requests that Graph documents
// for exports of an application in a tenant.
const (
	graphRate  = 150
	graphBurst = 40
)

const (
	warm     = 20
	measured = 400
	// concurrent is host.json's maxConcurrentCalls.
	concurrent = 8
	maxRatio   = 5
)

func measure(t *testing.T, w *benchWorld, threads int) (figures, int64) {
	t.Helper()
	return measureJob(t, w, threads, job{Warm: warm, Windows: measured})
}

func measureJob(t *testing.T, w *benchWorld, threads int, j job) (figures, int64) {
	t.Helper()
	w.pages.threads = threads
	start := time.Date(2026, time.Month(threads), 1, 0, 0, 0, 0, time.UTC)
	w.pages.start = start
	j.Tenant, j.GraphURL, j.BlobURL, j.TableURL, j.VaultURL = w.Tenant.ID(), w.pages.url, w.Storage.BlobURL, w.Storage.TableURL, w.VaultURL
	j.Container, j.VaultKey, j.Custodian, j.Tokens, j.Start = world.Container, world.VaultKey, w.custodian, w.tokens(t), start
	body, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(body), "SSL_CERT_FILE="+filepath.Join(w.dir, "ca.pem"), "GOMAXPROCS=2")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dec := newLines(out)
	if line := dec.next(); line != "warm" {
		t.Fatalf("the ingesting process said %q: %v", line, cmd.Wait())
	}
	w.Storage.ResetOperations()
	w.pages.reset()
	fmt.Fprintln(in, "go")
	var f figures
	if err := json.Unmarshal([]byte(dec.next()), &f); err != nil {
		t.Fatalf("no figures: %v, %v", err, cmd.Wait())
	}
	var ops int64
	for _, n := range w.Storage.Operations() {
		ops += n
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return f, ops
}
