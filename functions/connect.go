package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/functions/attachments"
	"steno/functions/fixity"
	"steno/functions/internal/intake"
	"steno/functions/portal"
	"steno/functions/reconcile"
	"steno/functions/sequencer"
	"steno/shared/azure"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/msgraph"
	"steno/shared/msgraph/directory"
)

// cloud is what the functions are connected to. What cannot be made of the settings is kept in
// faults, so that all of it is told at once.
type cloud struct {
	s         settings
	log       *slog.Logger
	cred      azcore.TokenCredential
	opts      azcore.ClientOptions
	tables    *aztables.ServiceClient
	bus       *azservicebus.Client
	keys      *azkeys.Client
	vaultHost string
	graph     *msgraph.Client
	people    *directory.Directory

	windows, callLegs, exports, files, notified, parked *azure.Queue
	inbox                                               *azure.Inbox

	faults []error
}

// connect makes the clients. None of them asks anybody for anything yet.
func connect(s settings, log *slog.Logger) (*cloud, error) {
	c := &cloud{s: s, log: log, opts: azure.ClientOptions()}
	cred, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{DisableInstanceDiscovery: s.privateAuthority})
	if err != nil {
		return nil, fmt.Errorf("credential: %w", err)
	}
	c.cred = cred
	if c.tables, err = aztables.NewServiceClient(s.tableURL, cred, &aztables.ClientOptions{ClientOptions: c.opts}); err != nil {
		return nil, fmt.Errorf("tables: %w", err)
	}
	if c.bus, err = serviceBus(s, cred); err != nil {
		return nil, fmt.Errorf("service bus: %w", err)
	}
	c.keys, err = azkeys.NewClient(s.vaultURL, cred, &azkeys.ClientOptions{ClientOptions: c.opts, DisableChallengeResourceVerification: s.privateAuthority})
	if err != nil {
		return nil, fmt.Errorf("key vault: %w", err)
	}
	vault, err := url.Parse(s.vaultURL)
	if err != nil {
		return nil, fmt.Errorf("key vault: %w", err)
	}
	c.vaultHost = vault.Host
	budget, err := azure.NewBudget(s.tenant, c.tables, s.graphRate, max(1, int(s.graphRate)))
	if err != nil {
		return nil, err
	}
	if c.graph, err = msgraph.New(msgraph.Config{BaseURL: s.graphURL, Credential: cred, Budget: budget, Log: log, Top: s.graphPage, Private: s.graphPrivate}); err != nil {
		return nil, err
	}
	if c.people, err = directory.New(s.graphURL, cred, c.graph.HTTP()); err != nil {
		return nil, err
	}
	c.windows, c.callLegs, c.exports = azure.NewQueue(c.bus, queueChatExport), azure.NewQueue(c.bus, queueCallLegs), azure.NewQueue(c.bus, queueExports)
	c.files, c.notified, c.parked = azure.NewQueue(c.bus, queueFiles), azure.NewQueue(c.bus, queueNotified), azure.NewQueue(c.bus, queueParked)
	c.inbox = azure.NewInbox(c.bus, queueNotified)
	return c, nil
}

// close ends what was opened.
func (c *cloud) close(ctx context.Context) error {
	errs := []error{c.inbox.Close(ctx)}
	for _, q := range []*azure.Queue{c.windows, c.callLegs, c.exports, c.files, c.notified, c.parked} {
		errs = append(errs, q.Close(ctx))
	}
	return errors.Join(errs...)
}

// serviceBus connects by identity, or by connection string where one is set.
func serviceBus(s settings, cred azcore.TokenCredential) (*azservicebus.Client, error) {
	if s.serviceBus != "" {
		return azservicebus.NewClientFromConnectionString(string(s.serviceBus), nil)
	}
	return azservicebus.NewClient(s.serviceBusNamespace, cred, nil)
}

// fault keeps an error for when everything was tried.
func (c *cloud) fault(err error) {
	if err != nil {
		c.faults = append(c.faults, err)
	}
}

// container is one of the storage account's, by name, containerAt one of any account.
func (c *cloud) container(name string) *container.Client {
	return c.containerAt(c.s.blobURL + "/" + name)
}

func (c *cloud) containerAt(address string) *container.Client {
	client, err := container.NewClient(address, c.cred, &container.ClientOptions{ClientOptions: c.opts})
	if err != nil {
		c.fault(fmt.Errorf("blobs: %w", err))
	}
	return client
}

// progress is a small document beside the head of the custody log.
func (c *cloud) progress(name string) azure.Mutable {
	return azure.NewMutable(c.s.tenant, c.container(c.s.custodyHeads), name)
}

// sealed is an evidence store.
func (c *cloud) sealed(e evidence.Config) *evidence.Store {
	e.Keys, e.Vault, e.VaultHosts = azure.NewKeys(c.tables), azure.NewVault(c.keys, c.s.vaultKey), []string{c.vaultHost}
	store, err := evidence.New(e)
	c.fault(err)
	return store
}

// evidence is where evidence lies, write-once.
func (c *cloud) evidence() *evidence.Store {
	return c.sealed(evidence.Config{Blobs: c.objects(), Tails: azure.NewTails(c.container(c.s.tails)), Recovery: c.s.recovery})
}

// packages is where export packages lie, sealed like evidence and not write-once.
func (c *cloud) packages() *evidence.Store {
	return c.sealed(evidence.Config{Blobs: azure.NewBlobs(c.container(c.s.exports))})
}

func (c *cloud) objects() *azure.Blobs {
	blobs := azure.NewBlobs(c.container(c.s.container))
	if c.s.lockDates {
		blobs = blobs.Locking()
	}
	return blobs
}

// keepers hold, keep and dispose what evidence and packages store.
func (c *cloud) keepers() (kept, packages evidence.Keeper) {
	blobs, keys := c.objects(), azure.NewKeys(c.tables)
	return evidence.Keeper{Objects: blobs, Records: blobs, Tails: azure.NewTails(c.container(c.s.tails)), Keys: keys},
		evidence.Keeper{Objects: azure.NewBlobs(c.container(c.s.exports)), Keys: keys}
}

// tiles is where the custody log lies.
func (c *cloud) tiles() *azure.Tiles {
	return azure.NewTiles(c.s.tenant, c.container(c.s.custodyFiles), c.container(c.s.custodyHeads))
}

// witnesses are those who get every signed checkpoint: the log's own archive, and what is
// configured of witnesses that the operator does not control.
func (c *cloud) witnesses(tiles *azure.Tiles) map[string]custody.Witness {
	out := map[string]custody.Witness{"archive": custody.Archive{Tiles: tiles}}
	if c.s.witnessURL != "" {
		at := c.containerAt(c.s.witnessURL)
		out["storage"] = custody.Archive{Tiles: azure.NewTiles(c.s.tenant, at, at)}
	}
	if c.s.witnessWebhook != "" {
		out["webhook"] = sequencer.NewWebhook(string(c.s.witnessWebhook), http.DefaultTransport)
	}
	if c.s.tsaURL != "" {
		out["tsa"] = sequencer.NewStamper(c.s.tsaURL, c.s.tsaRoots, tiles, http.DefaultTransport, nil)
	}
	return out
}

// fileRate is how many requests a second go out for attachments: Graph serves 60 for
// hosted content.
const fileRate = 50

// filesOf is how attachments come to be fetched.
func (c *cloud) filesOf(register conversation.Attachments) intake.Files {
	return intake.Files{Mode: c.s.fileMode, Register: register, Queue: c.files}
}

// attachments is the function that fetches attachments. Its requests are apart from those of
// the exports: Graph counts content apart, and files must not hold up messages.
func (c *cloud) attachments(shared laneStores) *attachments.Fetcher {
	budget, err := azure.NewFileBudget(c.s.tenant, c.tables, fileRate, fileRate)
	c.fault(err)
	graph, err := msgraph.New(msgraph.Config{BaseURL: c.s.graphURL, Credential: c.cred, Budget: budget, Log: c.log, Private: c.s.graphPrivate})
	if err != nil {
		c.fault(err)
		return nil
	}
	source, err := msgraph.NewFiles(graph, msgraph.FilesConfig{Hosts: c.s.fileHosts, Private: c.s.graphPrivate})
	c.fault(err)
	keeper := intake.New(intake.Config{System: "attachments", Tenant: c.s.tenant, History: c.s.plan.History, ClaimLease: c.s.claimLease, Policies: c.s.keep.Policies},
		shared.roster, shared.catalog, shared.evidence, shared.trail, c.log)
	return attachments.New(c.s.files, source, keeper, shared.catalog, azure.NewChatTurns(c.s.tenant, c.tables), shared.trail, c.files, c.log)
}

// fixity is the function that reads evidence again.
func (c *cloud) fixity(stores fixity.Stores) *fixity.Fixity {
	objects := azure.NewBlobs(c.container(c.s.container))
	stores.Versions, stores.Objects, stores.State = objects, objects, c.progress("fixity")
	return fixity.New(c.s.fixity, stores, c.log)
}

// audit is the function that explains what the vault logged.
func (c *cloud) audit(stores reconcile.AuditStores) *reconcile.Audit {
	if c.s.vaultLogURL != "" {
		stores.Log = azure.NewVaultLog(c.containerAt(c.s.vaultLogURL))
	}
	stores.State = c.progress("reconcile")
	config := c.s.audit
	config.Key, config.VaultHosts = c.s.vaultKey, []string{c.vaultHost}
	return reconcile.NewAudit(config, stores, c.log)
}

// coverage is the function that states what was expected and what was captured.
func (c *cloud) coverage(stores reconcile.CoverageStores) *reconcile.Coverage {
	stores.State, stores.Graph = c.progress("coverage"), c.graph
	if c.s.alertWebhook != "" {
		stores.Alerters = append(stores.Alerters, reconcile.NewWebhook(string(c.s.alertWebhook), http.DefaultTransport))
	}
	if c.s.alertFrom != "" {
		stores.Alerters = append(stores.Alerters, reconcile.Mail{Mailer: c.graph, From: c.s.alertFrom, To: c.s.alertTo})
	}
	config := c.s.coverage
	config.Maker = maker()
	return reconcile.NewCoverage(config, stores, c.log)
}

// portal is the API and the pages.
func (c *cloud) portal(stores portal.Stores) http.Handler {
	web, err := portal.New(portalConfig(c.s), stores, c.log)
	c.fault(err)
	return web
}
