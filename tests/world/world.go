// Package world starts the whole of Steno on loopback: the built functions app under
// the Functions host stand-in, a storage account, a Service Bus namespace, a key vault
// and an Entra stand-in with a throw-away authority, and a simulated Teams tenant. The
// demo, the end-to-end tests and the benchmarks stand on it.
//
// The app sees endpoints, credentials and certificates through its configuration and
// nothing else of this.
package world

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azpolicy "github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"steno/tests/local/azurite"
	"steno/tests/local/ca"
	"steno/tests/local/entra"
	"steno/tests/local/host"
	"steno/tests/local/keyvault"
	"steno/tests/local/servicebus"
	"steno/tests/sim"
)

// Application ids and names that the world's Entra knows.
const (
	App       = "a0000000-0000-4000-8000-000000000001" // the functions app
	Audience  = "a0000000-0000-4000-8000-000000000002" // the portal's API
	Client    = "a0000000-0000-4000-8000-000000000003" // the portal's pages
	appSecret = "loopback-only"

	Container = "evidence"
	Tails     = "tails"
	Exports   = "exports"
	Custody   = "custody"
	Heads     = "custody-head"
	Coverage  = "coverage"
	Witness   = "witness" // stands for a container of an account that others own
	VaultKey  = "steno-wrap"
	SignKey   = "steno-sign"
	MasterKey = "loopback-master-key"

	Notifications = "notifications" // the container; the queue has the same name
)

// Config sizes a world.
type Config struct {
	// Dir holds certificates, data and logs. It must exist.
	Dir string
	// AppDir is the staged app: host.json, function folders, handler.
	AppDir string
	// BotExe is the built recording bot; empty leaves calls out.
	BotExe string
	// BotSettings are added to those that the world makes for the bot, and win over them.
	BotSettings map[string]string
	// Sim is the tenant; Now, BaseURL and VerifyToken are set here.
	Sim sim.Config
	// Settings are added to those that the world makes, and win over them.
	Settings map[string]string
	// Deaths lets the handler die as often as it likes; otherwise the host gives up
	// after three errors, as the real one does.
	Deaths bool
	// Timers runs timers by their schedule; otherwise they run by hand only.
	Timers bool
	// Addr is where the portal listens; "" is 127.0.0.1:0.
	Addr string
	// KeepInMemory keeps storage in memory rather than below Dir.
	KeepInMemory bool
	// Log receives the handler's lines; nil drops them.
	Log io.Writer
	// Progress is told what is being started; nil drops it.
	Progress func(string)
}

// World is everything, running.
type World struct {
	Tenant     *sim.Tenant
	Entra      *entra.Entra
	Vault      *keyvault.Vault
	Storage    *azurite.Account
	Bus        *servicebus.Namespace
	Host       *host.Host
	Bot        *Bot // nil without calls
	CA         *ca.CA
	Origin     string // of portal and sign-in, such as https://localhost:8443
	GraphURL   string
	FilesURL   string // where downloads come from
	VaultURL   string
	Settings   map[string]string
	Credential azcore.TokenCredential

	servers   []*http.Server
	serving   chan error
	notifying chan error // nil until Graph's notifications are being sent
	hush      context.CancelFunc
}

// Start starts a world and returns once the handler is ready.
func Start(ctx context.Context, c Config) (w *World, err error) {
	say := c.Progress
	if say == nil {
		say = func(string) {}
	}
	w = &World{serving: make(chan error, 8)}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Stop())
			w = nil
		}
	}()
	if w.CA, err = ca.New(); err != nil {
		return w, err
	}
	if err := w.CA.WriteFiles(c.Dir); err != nil {
		return w, err
	}
	say("identity, key vault and the simulated tenant")
	front := http.NewServeMux()
	if w.Origin, err = w.listen(c.Addr, front); err != nil {
		return w, err
	}
	if err := w.startTenant(c); err != nil {
		return w, err
	}
	w.Entra.Mount(front)
	say("storage")
	if err := w.startStorage(ctx, c); err != nil {
		return w, err
	}
	say("service bus")
	w.Bus, err = servicebus.Start(servicebus.Config{Queues: []servicebus.Queue{
		{Name: "chat-export", MaxDeliveryCount: 10, LockDuration: time.Minute},
		{Name: "attachments", MaxDeliveryCount: 10, LockDuration: time.Minute},
		{Name: "exports", MaxDeliveryCount: 10, LockDuration: time.Minute},
		{Name: "call-legs", MaxDeliveryCount: 10, LockDuration: time.Minute},
		{Name: Notifications, MaxDeliveryCount: 10, LockDuration: time.Minute},
		{Name: "parked", MaxDeliveryCount: 10, LockDuration: time.Minute},
	}})
	if err != nil {
		return w, err
	}
	say("functions app")
	if err := w.startHost(ctx, c); err != nil {
		return w, err
	}
	if c.BotExe != "" {
		say("recording bot and media gateway")
		if err := w.startBot(ctx, c); err != nil {
			return w, err
		}
	}
	target, err := url.Parse(w.Host.URL())
	if err != nil {
		return w, err
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1
	front.Handle("/steno/", proxy)
	front.Handle("/admin/", proxy)
	front.Handle("GET /{$}", http.RedirectHandler("/steno/", http.StatusSeeOther))
	notify, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.notifying, w.hush = make(chan error, 1), cancel
	go func() { w.notifying <- w.Tenant.Notify(notify) }()
	return w, nil
}

// listen serves a handler over https under a certificate of the world's authority.
func (w *World) listen(addr string, h http.Handler) (origin string, err error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	cert, err := w.CA.Local()
	if err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", fmt.Errorf("listen: %w", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return "", err
	}
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ErrorLog:  quiet(),
	}
	w.servers = append(w.servers, s)
	go func() { w.serving <- s.ServeTLS(l, "", "") }()
	return "https://localhost:" + port, nil
}

// startTenant makes Entra, the vault and the tenant, which need each other: Entra
// signs in the tenant's people, vault and tenant accept Entra's tokens.
func (w *World) startTenant(c Config) error {
	graph, vault, files := http.NewServeMux(), http.NewServeMux(), http.NewServeMux()
	graphOrigin, err := w.listen("", graph)
	if err != nil {
		return err
	}
	if w.VaultURL, err = w.listen("", vault); err != nil {
		return err
	}
	if w.FilesURL, err = w.listen("", files); err != nil {
		return err
	}
	w.GraphURL = graphOrigin + "/v1.0"
	sc := c.Sim
	sc.BaseURL, sc.FilesURL = graphOrigin, w.FilesURL
	sc.NotifyClient = w.CA.Client()
	sc.VerifyToken = func(bearer string) (map[string]any, error) {
		return w.Entra.Verifier(entra.GraphResource)(bearer)
	}
	w.Tenant = sim.New(sc)
	w.Entra, err = entra.New(entra.Config{
		Base: w.Origin + "/entra", Tenant: w.Tenant.ID(), TenantName: "Steno demonstration",
		People: w.people,
		Clients: []entra.Client{
			{ID: App, Name: "Steno functions", Secret: appSecret, Roles: map[string][]string{
				entra.GraphResource: {"Chat.Read.All", "ChannelMessage.Read.All", "GroupMember.Read.All", "Group.Read.All", "User.Read.All", "ChatMember.Read.All", "CallRecords.Read.All", "Files.Read.All"},
			}},
			{ID: BotApp, Name: "Steno recorder", Secret: appSecret, Roles: map[string][]string{
				entra.GraphResource: {"Calls.AccessMedia.All", "Calls.JoinGroupCall.All"},
			}},
			{ID: BotControl, Name: "Steno recorder control", Scopes: []string{"Recording.Control"}},
			{ID: Client, Name: "Steno portal", Redirects: []string{w.Origin + "/steno/"}},
			{ID: Audience, Name: "Steno API", Scopes: []string{"Archive.Read"}},
		},
	})
	if err != nil {
		return err
	}
	w.Vault, err = keyvault.New(keyvault.Config{
		Authority: w.Origin + "/" + w.Tenant.ID(), VerifyToken: w.Entra.Verifier(entra.VaultResource),
	})
	if err != nil {
		return err
	}
	if _, err := w.Vault.Ensure(VaultKey, "RSA", 3072); err != nil {
		return err
	}
	if _, err := w.Vault.Ensure(SignKey, "EC", 256); err != nil {
		return err
	}
	graph.Handle("/", w.Tenant.Handler())
	files.Handle("/", w.Tenant.Downloads())
	vault.Handle("/", w.Vault)
	return nil
}

// people are those who may sign in, the ones with roles first.
func (w *World) people() []entra.Person {
	notes := map[sim.PersonID]string{}
	var order []sim.PersonID
	for _, g := range w.Tenant.Groups() {
		for _, p := range w.Tenant.UsersIn(g.ID) {
			if notes[p] == "" {
				order = append(order, p)
			} else {
				notes[p] += ", "
			}
			notes[p] += strings.TrimPrefix(g.DisplayName, "Steno ")
		}
	}
	byID := map[sim.PersonID]sim.Person{}
	for _, p := range w.Tenant.People() {
		byID[p.ID] = p
	}
	var out []entra.Person
	for _, id := range order {
		p := byID[id]
		out = append(out, entra.Person{ID: string(id), Name: p.DisplayName, UPN: p.UPN, Note: notes[id]})
	}
	return out
}

// roleGroups is STENO_ROLE_GROUPS for the tenant's groups.
func (w *World) roleGroups() (string, error) {
	type g struct {
		Role  string `json:"role"`
		Group string `json:"group"`
		Desk  string `json:"desk,omitempty"`
	}
	id := func(name string) string {
		got, ok := w.Tenant.Group(name)
		if !ok {
			return name
		}
		return got.ID
	}
	b, err := json.Marshal([]g{
		{"recordedUser", id(sim.RecordedEquities), "equities"},
		{"recordedUser", sim.RecordedRates, "rates"}, // by name, as some do
		{"supervisor", id(sim.SupervisorsEquities), "equities"},
		{"supervisor", id(sim.SupervisorsRates), "rates"},
		{"complianceOfficer", id(sim.Compliance), ""},
		{"administrator", id(sim.Administrators), ""},
		{"auditor", id(sim.Auditors), ""},
	})
	return string(b), err
}

func (w *World) startHost(ctx context.Context, c Config) error {
	groups, err := w.roleGroups()
	if err != nil {
		return err
	}
	rules, err := w.teamRules()
	if err != nil {
		return err
	}
	recovery, err := recoveryKey()
	if err != nil {
		return err
	}
	w.Settings = map[string]string{
		"AzureWebJobsStorage":          w.Storage.ConnectionString(),
		"ServiceBusConnection":         w.Bus.ConnectionString(),
		"SSL_CERT_FILE":                filepath.Join(c.Dir, "ca.pem"),
		"AZURE_TENANT_ID":              w.Tenant.ID(),
		"AZURE_CLIENT_ID":              App,
		"AZURE_CLIENT_SECRET":          appSecret,
		"AZURE_AUTHORITY_HOST":         w.Origin,
		"GOMEMLIMIT":                   "400MiB",
		"STENO_PRIVATE_AUTHORITY":      "true",
		"STENO_TENANT_ID":              w.Tenant.ID(),
		"STENO_ROLE_GROUPS":            groups,
		"STENO_RECORDED_TEAMS":         rules,
		"STENO_GRAPH_URL":              w.GraphURL,
		"STENO_GRAPH_PRIVATE":          "true",
		"STENO_ATTACHMENT_HOSTS":       "*.sharepoint.com," + strings.TrimPrefix(w.FilesURL, "https://"),
		"STENO_BLOB_URL":               w.Storage.BlobURL,
		"STENO_TABLE_URL":              w.Storage.TableURL,
		"STENO_EVIDENCE_CONTAINER":     Container,
		"STENO_TAILS_CONTAINER":        Tails,
		"STENO_EXPORTS_CONTAINER":      Exports,
		"STENO_VAULT_URL":              w.VaultURL,
		"STENO_VAULT_KEY":              VaultKey,
		"STENO_RECOVERY_KEY":           recovery,
		"STENO_PORTAL_AUDIENCE":        Audience,
		"STENO_PORTAL_CLIENT":          Client,
		"STENO_LOGIN_AUTHORITY":        w.Entra.Authority(),
		"STENO_LOGIN_ISSUER":           w.Entra.Issuer(),
		"STENO_LOGIN_KEYS":             w.Entra.Authority() + "/discovery/v2.0/keys",
		"STENO_NOTIFICATION_URL":       w.Origin + "/steno/notifications",
		"STENO_NOTIFICATION_APP":       App,
		"STENO_NOTIFICATION_KEYS":      strings.TrimSuffix(w.GraphURL, "/v1.0") + sim.NotificationKeysPath,
		"STENO_SUBSCRIPTIONS_SCHEDULE": "30 */5 * * * *",
		"STENO_NOTIFIED_SCHEDULE":      "0 */5 * * * *",
		"STENO_GROUPSYNC_SCHEDULE":     "0 0 */12 * * *",
		"STENO_EXPORTPLAN_SCHEDULE":    "0 */15 * * * *",
		"STENO_LOOKBACK_SCHEDULE":      "*/5 * * * * *",
		"STENO_SEQUENCER_SCHEDULE":     "0 */5 * * * *",
		"STENO_RETENTION_SCHEDULE":     "0 45 */6 * * *",
		"STENO_RECONCILE_SCHEDULE":     "0 20 * * * *",
		"STENO_COVERAGE_CONTAINER":     Coverage,
		"STENO_CALL_RECORDS":           strconv.FormatBool(c.BotExe != ""),
		"STENO_FIXITY_SCHEDULE":        "0 7,22,37,52 * * * *",
		"STENO_CUSTODY_CONTAINER":      Custody,
		"STENO_CUSTODY_HEAD_CONTAINER": Heads,
		"STENO_SIGNING_KEY":            SignKey,
		"STENO_WITNESS_URL":            w.Storage.BlobURL + "/" + Witness,
	}
	for k, v := range c.Settings {
		w.Settings[k] = v
	}
	limit := 0
	if c.Deaths {
		limit = -1
	}
	w.Host, err = host.Start(ctx, host.Config{
		ScriptRoot: c.AppDir, Settings: w.Settings, MasterKey: MasterKey, Log: c.Log, DisableTimers: !c.Timers,
		Transport: w.CA.Client(), MaxHandlerErrors: limit,
	})
	if err != nil {
		return err
	}
	w.Credential = w.mint()
	return w.Host.WaitReady(ctx)
}

// Stop ends everything and waits for it. It may be called on a world that did not
// start to its end.
func (w *World) Stop() error {
	if w == nil {
		return nil
	}
	var errs []error
	if w.notifying != nil {
		w.hush()
		errs = append(errs, <-w.notifying)
	}
	errs = append(errs, w.Bot.stop())
	if w.Host != nil {
		w.Host.Stop()
	}
	if w.Bus != nil {
		errs = append(errs, w.Bus.Close())
	}
	if w.Storage != nil {
		errs = append(errs, w.Storage.Stop())
	}
	for _, s := range w.servers {
		errs = append(errs, s.Close())
	}
	for range w.servers {
		if err := <-w.serving; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// mint returns a credential that lets a test use the storage account as the app does.
func (w *World) mint() azcore.TokenCredential {
	return credential(func(resource string) string {
		return w.Entra.Mint(w.Entra.AppClaims(entra.Client{ID: App}, resource))
	})
}

type credential func(resource string) string

func (c credential) GetToken(_ context.Context, o azpolicy.TokenRequestOptions) (azcore.AccessToken, error) {
	resource := strings.TrimSuffix(o.Scopes[0], "/.default")
	return azcore.AccessToken{Token: c(resource), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// TempDir makes a directory for a world below the system's, and returns what removes it.
func TempDir() (string, func() error, error) {
	d, err := os.MkdirTemp("", "steno-")
	if err != nil {
		return "", nil, fmt.Errorf("make directory: %w", err)
	}
	return d, func() error { return os.RemoveAll(d) }, nil
}

// quiet drops what net/http says of clients that hang up during a handshake.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// Send puts a message on a queue of the bus, as an operator or an attacker would.
func (w *World) Send(ctx context.Context, queue string, body []byte) (err error) {
	c, err := azservicebus.NewClientFromConnectionString(w.Bus.ConnectionString(), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	s, err := c.NewSender(queue, nil)
	if err != nil {
		return err
	}
	return s.SendMessage(ctx, &azservicebus.Message{Body: body}, nil)
}
