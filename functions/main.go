// The functions app: one custom handler for every function of the folder. main is its
// table of contents. Adapters are named in this package and nowhere else.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"steno/functions/chatexport"
	"steno/functions/export"
	"steno/functions/exportplan"
	"steno/functions/finalize"
	"steno/functions/fixity"
	"steno/functions/groupsync"
	"steno/functions/internal/funchost"
	"steno/functions/lookback"
	"steno/functions/portal"
	"steno/functions/reconcile"
	"steno/functions/retention"
	"steno/functions/sequencer"
	"steno/shared/azure"
	"steno/shared/custody"
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
	c, err := connect(s, log)
	if err != nil {
		return err
	}
	f, err := c.functions()
	if err != nil {
		return err
	}
	mux, err := funchost.New(funchost.Config{
		RoutePrefix: routePrefix, FunctionTimeout: functionTimeout, Log: log, Park: park(c.parked),
	})
	if err != nil {
		return err
	}
	register(mux, f)
	l, err := funchost.Listen(ctx, s.port)
	if err != nil {
		return err
	}
	log.Info("handler ready", slog.Any("functions", mux.Names()))
	return errors.Join(mux.Serve(ctx, l), c.close(context.WithoutCancel(ctx)))
}

// functions puts every function together with what it works on.
func (c *cloud) functions() (f functions, err error) {
	s, log := c.s, c.log
	roster, catalog := azure.NewRoster(s.tenant, c.tables), azure.NewCatalog(s.tenant, c.tables)
	trail := custody.Log{Trail: azure.NewTrail(s.tenant, c.tables)}
	jobs, failures := azure.NewLookbacks(s.tenant, c.tables), azure.NewFailures(s.tenant, c.tables)
	matters, approvals := azure.NewMatters(s.tenant, c.tables), azure.NewApprovals(s.tenant, c.tables)
	orders, dispositions := azure.NewExports(s.tenant, c.tables), azure.NewDispositions(s.tenant, c.tables)
	statements, records := azure.NewStatements(s.tenant, c.container(s.statements)), azure.NewCallRecords(s.tenant, c.tables)
	store, packages := c.evidence(), c.packages()
	tiles, signer := c.tiles(), azure.NewSigner(c.keys, s.signingKey, []string{c.vaultHost})
	keeper, packageKeeper := c.keepers()

	f.sync = groupsync.New(groupsync.Config{Tenant: s.tenant, Groups: s.roleGroups, MaxDrop: s.maxDrop, Teams: s.teamRules, NoGroup: directory.ErrNoGroup, Newcomers: s.newcomers},
		c.people, c.graph, roster, jobs, trail, log)
	f.plan = exportplan.New(s.plan, roster, catalog, failures, c.windows, trail, log)
	f.export = chatexport.New(chatexport.Config{Tenant: s.tenant, History: s.plan.History, ClaimLease: s.claimLease, RetryWait: s.retryWait, Policies: s.keep.Policies, Files: c.filesOf(catalog)},
		c.graph, roster, catalog, store, chatexport.Registers{Lookbacks: jobs, Failures: failures}, trail, c.windows, log)
	f.past = lookback.New(s.lookbacks, lookback.Stores{Jobs: jobs, Roster: roster, Catalog: catalog, Failures: failures, Trail: trail}, c.people, c.windows, log)
	shared := laneStores{roster, catalog, store, trail}
	f.listen, f.hook, f.early = c.earlyLane(shared)
	f.fetch = c.attachments(shared)
	s.legs.Roster = roster
	f.seal = finalize.New(s.legs, store, catalog, c.graph, trail, c.callLegs, log)
	f.order = sequencer.New(sequencer.Config{Tenant: s.tenant, SignEvery: s.signEvery, Witnesses: c.witnesses(tiles), Revoked: s.revoked}, trail.Trail, tiles, signer, log)
	f.keep = retention.New(s.keep, retention.Stores{
		Catalog: catalog, Roster: roster, Evidence: store, Keeper: keeper, Trail: trail,
		Matters: matters, Approvals: approvals, Dispositions: dispositions, Exports: orders, Packages: packageKeeper,
	}, log)
	f.hand = export.New(export.Config{Tenant: s.tenant, Maker: maker(), RetryWait: s.packageWait}, export.Stores{
		Orders: orders, Approvals: approvals, Roster: roster, Catalog: catalog, Calls: catalog, Attachments: catalog, Evidence: store, Packages: packages,
		Trail: trail, Tiles: tiles, Signer: signer, Queue: c.exports,
	}, log)
	f.audit = c.audit(reconcile.AuditStores{Trail: trail, Keys: azure.NewKeys(c.tables)})
	f.stated = c.coverage(reconcile.CoverageStores{
		Roster: roster, Catalog: catalog, Recorded: catalog, Failures: failures, Files: catalog, Records: records, Statements: statements, Trail: trail, Signer: signer,
	})
	f.reread = c.fixity(fixity.Stores{Evidence: store, Trail: trail, Tiles: tiles, Catalog: catalog, Calls: catalog})
	f.web = c.portal(portal.Stores{
		Catalog: catalog, Calls: catalog, Attached: catalog, Roster: roster, Matters: matters, Requests: approvals, Exports: orders, Lookbacks: jobs, Failures: failures,
		Packages: packages, Queue: c.exports, Events: dispositions, Evidence: store, Trail: trail, Statements: statements, Records: records,
	})
	return f, errors.Join(c.faults...)
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
