// The functions app: one custom handler for every function of the folder. main is its
// table of contents; adapters are named here and nowhere else.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/functions/attachments"
	"steno/functions/chatexport"
	"steno/functions/export"
	"steno/functions/exportplan"
	"steno/functions/finalize"
	"steno/functions/fixity"
	"steno/functions/groupsync"
	"steno/functions/internal/funchost"
	"steno/functions/internal/intake"
	"steno/functions/lookback"
	"steno/functions/portal"
	"steno/functions/reconcile"
	"steno/functions/retention"
	"steno/functions/sequencer"
	"steno/shared/azure"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/msgraph"
	"steno/shared/msgraph/directory"
)

// memoryLimit leaves the instance room for the rest of the process.
const memoryLimit = 320 << 20

func main() {
	check := flag.Bool("check-config", false, "check the configuration and exit: 0 if it is good")
	flag.Parse()
	// An instance has 512 MB, and what is alive is small next to what passes through: let
	// the heap grow well before collecting, and never past what the instance has.
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(memoryLimit)
	log := funchost.NewLog(os.Stdout, slog.LevelInfo)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *check {
		if _, _, err := readSettings(os.Environ()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(funchost.ExitFault)
		}
		return
	}
	err := run(ctx, os.Environ(), log)
	if err != nil {
		log.Error("handler stopped", slog.String("error", err.Error()))
	}
	os.Exit(funchost.ExitCode(err))
}

// run connects everything and answers the host until ctx is done. No service is asked
// for anything before the port is open: clients connect when they are first used, so
// the handler is ready at once.
func run(ctx context.Context, environ []string, log *slog.Logger) error {
	s, _, err := readSettings(environ)
	if err != nil {
		return err
	}
	cred, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
		DisableInstanceDiscovery: s.privateAuthority,
	})
	if err != nil {
		return fmt.Errorf("credential: %w", err)
	}
	opts := azure.ClientOptions()
	tables, err := aztables.NewServiceClient(s.tableURL, cred, &aztables.ClientOptions{ClientOptions: opts})
	if err != nil {
		return fmt.Errorf("tables: %w", err)
	}
	queues, err := serviceBus(s, cred)
	if err != nil {
		return fmt.Errorf("service bus: %w", err)
	}
	keys, err := azkeys.NewClient(s.vaultURL, cred, &azkeys.ClientOptions{ClientOptions: opts, DisableChallengeResourceVerification: s.privateAuthority})
	if err != nil {
		return fmt.Errorf("key vault: %w", err)
	}
	vault, err := url.Parse(s.vaultURL)
	if err != nil {
		return fmt.Errorf("key vault: %w", err)
	}
	store, err := evidenceStore(s, cred, tables, keys, vault.Host, opts)
	if err != nil {
		return err
	}
	budget, err := azure.NewBudget(s.tenant, tables, s.graphRate, max(1, int(s.graphRate)))
	if err != nil {
		return err
	}
	graph, err := msgraph.New(msgraph.Config{
		BaseURL: s.graphURL, Credential: cred, Budget: budget, Log: log, Top: s.graphPage, Private: s.graphPrivate,
	})
	if err != nil {
		return err
	}
	people, err := directory.New(s.graphURL, cred, graph.HTTP())
	if err != nil {
		return err
	}

	roster := azure.NewRoster(s.tenant, tables)
	catalog := azure.NewCatalog(s.tenant, tables)
	trail := custody.Log{Trail: azure.NewTrail(s.tenant, tables)}
	windows := azure.NewQueue(queues, queueChatExport)
	callLegs := azure.NewQueue(queues, queueCallLegs)
	exports := azure.NewQueue(queues, queueExports)
	files := azure.NewQueue(queues, queueFiles)
	parked := azure.NewQueue(queues, queueParked)

	jobs, failures := azure.NewLookbacks(s.tenant, tables), azure.NewFailures(s.tenant, tables)
	sync := groupsync.New(groupsync.Config{Tenant: s.tenant, Groups: s.roleGroups, MaxDrop: s.maxDrop, Teams: s.teamRules, NoGroup: directory.ErrNoGroup, Newcomers: s.newcomers}, people, graph, roster, jobs, trail, log)
	plan := exportplan.New(s.plan, roster, catalog, failures, windows, trail, log)
	chats := chatexport.New(chatexport.Config{Tenant: s.tenant, History: s.plan.History, ClaimLease: s.claimLease, RetryWait: s.retryWait, Policies: s.keep.Policies, Files: files, FileMode: s.fileMode},
		graph, roster, catalog, store, chatexport.Registers{Lookbacks: jobs, Failures: failures}, trail, windows, log)
	past := lookback.New(s.lookbacks, lookback.Stores{Jobs: jobs, Roster: roster, Catalog: catalog, Failures: failures, Trail: trail}, people, windows, log)
	fetch, err := fetching(s, cred, tables, attached{catalog, roster, store, trail, files}, log)
	if err != nil {
		return err
	}
	s.legs.Roster = roster
	seal := finalize.New(s.legs, store, catalog, graph, trail, callLegs, log)
	tiles, err := custodyTiles(s, cred, opts)
	if err != nil {
		return err
	}
	witnesses, err := custodyWitnesses(s, tiles, cred, opts)
	if err != nil {
		return err
	}
	signer := azure.NewSigner(keys, s.signingKey, []string{vault.Host})
	order := sequencer.New(sequencer.Config{Tenant: s.tenant, SignEvery: s.signEvery, Witnesses: witnesses, Revoked: s.revoked}, trail.Trail, tiles, signer, log)
	packages, err := exportStore(s, cred, tables, keys, vault.Host, opts)
	if err != nil {
		return err
	}
	keeper, packageKeeper, err := keepers(s, cred, tables, opts)
	if err != nil {
		return err
	}
	dispositions := azure.NewDispositions(s.tenant, tables)
	matters, approvals, orders := azure.NewMatters(s.tenant, tables), azure.NewApprovals(s.tenant, tables), azure.NewExports(s.tenant, tables)
	keep := retention.New(s.keep, retention.Stores{
		Catalog: catalog, Roster: roster, Evidence: store, Keeper: keeper, Trail: trail,
		Matters: matters, Approvals: approvals, Dispositions: dispositions, Exports: orders, Packages: packageKeeper,
	}, log)
	hand := export.New(export.Config{Tenant: s.tenant, Maker: maker(), RetryWait: s.packageWait}, export.Stores{
		Orders: orders, Approvals: approvals, Roster: roster, Catalog: catalog, Calls: catalog, Attachments: catalog, Evidence: store, Packages: packages,
		Trail: trail, Tiles: tiles, Signer: signer, Queue: exports,
	}, log)
	audit, err := auditing(s, cred, opts, reconcile.AuditStores{Trail: trail, Keys: azure.NewKeys(tables)}, vault.Host, log)
	if err != nil {
		return err
	}
	stated, err := stating(s, cred, opts, tables, graph, reconcile.CoverageStores{Roster: roster, Catalog: catalog, Recorded: catalog, Failures: failures, Files: catalog, Trail: trail, Signer: signer}, log)
	if err != nil {
		return err
	}
	reread, err := rereading(s, cred, opts, fixity.Stores{Evidence: store, Trail: trail, Tiles: tiles, Catalog: catalog, Calls: catalog}, log)
	if err != nil {
		return err
	}
	signed, err := statements(s, cred, opts)
	if err != nil {
		return err
	}
	early, err := earlyLane(s, cred, tables, keys, vault.Host, opts, queues, laneStores{people, roster, catalog, store, trail, parked, files}, log)
	if err != nil {
		return err
	}
	web, err := portal.New(portalConfig(s), portal.Stores{Catalog: catalog, Calls: catalog, Attached: catalog, Roster: roster, Matters: matters, Requests: approvals, Exports: orders, Lookbacks: jobs, Failures: failures, Packages: packages, Queue: exports, Events: dispositions, Evidence: store, Trail: trail, Statements: signed, Records: azure.NewCallRecords(s.tenant, tables)}, log)
	if err != nil {
		return err
	}

	mux, err := funchost.New(funchost.Config{
		RoutePrefix: routePrefix, FunctionTimeout: functionTimeout, Log: log, Park: park(parked),
	})
	if err != nil {
		return err
	}
	register(mux, functions{sync: sync, plan: plan, export: chats, past: past, fetch: fetch, seal: seal, order: order, keep: keep, hand: hand, reread: reread, audit: audit, stated: stated, listen: early.listen, hook: early.hook, early: early.drain, web: web})
	l, err := funchost.Listen(ctx, s.port)
	if err != nil {
		return err
	}
	log.Info("handler ready", slog.Any("functions", mux.Names()))
	return errors.Join(mux.Serve(ctx, l), early.close(context.WithoutCancel(ctx)), windows.Close(context.WithoutCancel(ctx)), callLegs.Close(context.WithoutCancel(ctx)), exports.Close(context.WithoutCancel(ctx)), files.Close(context.WithoutCancel(ctx)), parked.Close(context.WithoutCancel(ctx)))
}

func evidenceStore(s settings, cred azcore.TokenCredential, tables *aztables.ServiceClient, keys *azkeys.Client, vaultHost string, opts azcore.ClientOptions) (*evidence.Store, error) {
	blobs, tails, err := evidenceBlobs(s, cred, opts)
	if err != nil {
		return nil, err
	}
	return evidence.New(evidence.Config{
		Blobs: blobs, Tails: tails, Keys: azure.NewKeys(tables),
		Vault: azure.NewVault(keys, s.vaultKey), VaultHosts: []string{vaultHost}, Recovery: s.recovery,
	})
}

// attached is what fetching attachments works with.
type attached struct {
	catalog *azure.Catalog
	roster  *azure.Roster
	store   *evidence.Store
	trail   custody.Log
	queue   *azure.Queue
}

// fetching is the function that fetches attachments. Its requests are apart from those of the
// exports: Graph counts content apart, and files must not hold up messages.
func fetching(s settings, cred azcore.TokenCredential, tables *aztables.ServiceClient, a attached, log *slog.Logger) (*attachments.Fetcher, error) {
	budget, err := azure.NewFileBudget(s.tenant, tables, fileRate, fileRate)
	if err != nil {
		return nil, err
	}
	graph, err := msgraph.New(msgraph.Config{BaseURL: s.graphURL, Credential: cred, Budget: budget, Log: log, Private: s.graphPrivate})
	if err != nil {
		return nil, err
	}
	source, err := msgraph.NewFiles(graph, msgraph.FilesConfig{Hosts: s.fileHosts, Private: s.graphPrivate})
	if err != nil {
		return nil, err
	}
	keeper := intake.New(intake.Config{System: "attachments", Tenant: s.tenant, History: s.plan.History, ClaimLease: s.claimLease, Policies: s.keep.Policies},
		a.roster, a.catalog, a.store, a.trail, log)
	return attachments.New(s.files, source, keeper, a.catalog, azure.NewChatTurns(s.tenant, tables), a.trail, a.queue, log), nil
}

// fileRate is how many requests a second go out for attachments: Graph serves 60 for
// hosted content.
const fileRate = 50

// keepers hold, keep and dispose what evidenceStore and exportStore store.
func keepers(s settings, cred azcore.TokenCredential, tables *aztables.ServiceClient, opts azcore.ClientOptions) (kept, packages evidence.Keeper, err error) {
	blobs, tails, err := evidenceBlobs(s, cred, opts)
	if err != nil {
		return kept, packages, err
	}
	c, err := container.NewClient(s.blobURL+"/"+s.exports, cred, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return kept, packages, fmt.Errorf("blobs: %w", err)
	}
	keys := azure.NewKeys(tables)
	return evidence.Keeper{Objects: blobs, Records: blobs, Tails: tails, Keys: keys}, evidence.Keeper{Objects: azure.NewBlobs(c), Keys: keys}, nil
}

func evidenceBlobs(s settings, cred azcore.TokenCredential, opts azcore.ClientOptions) (*azure.Blobs, *azure.Tails, error) {
	c, err := container.NewClient(s.blobURL+"/"+s.container, cred, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return nil, nil, fmt.Errorf("blobs: %w", err)
	}
	tails, err := container.NewClient(s.blobURL+"/"+s.tails, cred, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return nil, nil, fmt.Errorf("blobs: %w", err)
	}
	blobs := azure.NewBlobs(c)
	if s.lockDates {
		blobs = blobs.Locking()
	}
	return blobs, azure.NewTails(tails), nil
}

// exportStore is where export packages lie, sealed like evidence and not write-once.
func exportStore(s settings, cred azcore.TokenCredential, tables *aztables.ServiceClient, keys *azkeys.Client, vaultHost string, opts azcore.ClientOptions) (*evidence.Store, error) {
	blobs, err := container.NewClient(s.blobURL+"/"+s.exports, cred, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	return evidence.New(evidence.Config{
		Blobs: azure.NewBlobs(blobs), Keys: azure.NewKeys(tables), Vault: azure.NewVault(keys, s.vaultKey), VaultHosts: []string{vaultHost},
	})
}

// maker names this build, as package metadata and manifests do.
func maker() string {
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				return "steno " + s.Value
			}
		}
	}
	return "steno"
}

// rereading is the function that reads evidence again. Its progress stands beside the head of the custody log.
func rereading(s settings, cred azcore.TokenCredential, opts azcore.ClientOptions, stores fixity.Stores, log *slog.Logger) (*fixity.Fixity, error) {
	blobs, err := container.NewClient(s.blobURL+"/"+s.container, cred, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	heads, err := container.NewClient(s.blobURL+"/"+s.custodyHeads, cred, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	objects := azure.NewBlobs(blobs)
	stores.Versions, stores.Objects, stores.State = objects, objects, azure.NewMutable(s.tenant, heads, "fixity")
	return fixity.New(s.fixity, stores, log), nil
}

// auditing is the function that explains what the vault logged. Its progress stands beside the head of the custody log.
func auditing(s settings, cred azcore.TokenCredential, opts azcore.ClientOptions, stores reconcile.AuditStores, vaultHost string, log *slog.Logger) (*reconcile.Audit, error) {
	heads, err := container.NewClient(s.blobURL+"/"+s.custodyHeads, cred, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	if s.vaultLogURL != "" {
		c, err := container.NewClient(s.vaultLogURL, cred, &container.ClientOptions{ClientOptions: opts})
		if err != nil {
			return nil, fmt.Errorf("vault log: %w", err)
		}
		stores.Log = azure.NewVaultLog(c)
	}
	stores.State = azure.NewMutable(s.tenant, heads, "reconcile")
	c := s.audit
	c.Key, c.VaultHosts = s.vaultKey, []string{vaultHost}
	return reconcile.NewAudit(c, stores, log), nil
}

// stating is the function that states what was expected and what was captured.
func stating(s settings, cred azcore.TokenCredential, opts azcore.ClientOptions, tables *aztables.ServiceClient, graph *msgraph.Client, stores reconcile.CoverageStores, log *slog.Logger) (*reconcile.Coverage, error) {
	heads, err := container.NewClient(s.blobURL+"/"+s.custodyHeads, cred, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	if stores.Statements, err = statements(s, cred, opts); err != nil {
		return nil, err
	}
	stores.State = azure.NewMutable(s.tenant, heads, "coverage")
	stores.Records, stores.Graph = azure.NewCallRecords(s.tenant, tables), graph
	if s.alertWebhook != "" {
		stores.Alerters = append(stores.Alerters, reconcile.NewWebhook(string(s.alertWebhook), http.DefaultTransport))
	}
	if s.alertFrom != "" {
		stores.Alerters = append(stores.Alerters, reconcile.Mail{Mailer: graph, From: s.alertFrom, To: s.alertTo})
	}
	c := s.coverage
	c.Maker = maker()
	return reconcile.NewCoverage(c, stores, log), nil
}

// statements is where coverage statements lie.
func statements(s settings, cred azcore.TokenCredential, opts azcore.ClientOptions) (*azure.Statements, error) {
	c, err := container.NewClient(s.blobURL+"/"+s.statements, cred, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	return azure.NewStatements(s.tenant, c), nil
}

// custodyTiles is where the custody log lies.
func custodyTiles(s settings, cred azcore.TokenCredential, opts azcore.ClientOptions) (*azure.Tiles, error) {
	files, err := container.NewClient(s.blobURL+"/"+s.custodyFiles, cred, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	heads, err := container.NewClient(s.blobURL+"/"+s.custodyHeads, cred, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	return azure.NewTiles(s.tenant, files, heads), nil
}

// custodyWitnesses are those who get every signed checkpoint: the log's own archive, and
// what is configured of witnesses that the operator does not control.
func custodyWitnesses(s settings, tiles *azure.Tiles, cred azcore.TokenCredential, opts azcore.ClientOptions) (map[string]custody.Witness, error) {
	out := map[string]custody.Witness{"archive": custody.Archive{Tiles: tiles}}
	if s.witnessURL != "" {
		c, err := container.NewClient(s.witnessURL, cred, &container.ClientOptions{ClientOptions: opts})
		if err != nil {
			return nil, fmt.Errorf("witness: %w", err)
		}
		out["storage"] = custody.Archive{Tiles: azure.NewTiles(s.tenant, c, c)}
	}
	if s.witnessWebhook != "" {
		out["webhook"] = sequencer.NewWebhook(string(s.witnessWebhook), http.DefaultTransport)
	}
	if s.tsaURL != "" {
		out["tsa"] = sequencer.NewStamper(s.tsaURL, s.tsaRoots, tiles, http.DefaultTransport, nil)
	}
	return out, nil
}

// serviceBus connects by identity, or by connection string where one is set.
func serviceBus(s settings, cred azcore.TokenCredential) (*azservicebus.Client, error) {
	if s.serviceBus != "" {
		return azservicebus.NewClientFromConnectionString(string(s.serviceBus), nil)
	}
	return azservicebus.NewClient(s.serviceBusNamespace, cred, nil)
}
