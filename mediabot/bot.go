package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/mediabot/internal/calling"
	"steno/mediabot/internal/session"
	"steno/shared/azure"
	"steno/shared/bearer"
	"steno/shared/evidence"
	"steno/shared/msgraph"
	"steno/shared/policy"
)

// Limits of the servers, and times of the process.
const (
	readHeaderTimeout = 5 * time.Second
	requestTimeout    = 30 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 16 << 10
	closeTimeout      = 5 * time.Second
	rulesEvery        = time.Minute
	warmEvery         = 5 * time.Minute
	recoverEvery      = 2 * time.Second
	emptyEvery        = 250 * time.Millisecond
	cutShort          = 10 * time.Second // for handing over what is left after a second signal
)

// run connects everything and records until drain is closed and the last call is over,
// or until ctx ends.
func run(ctx context.Context, drain <-chan struct{}, environ []string, log *slog.Logger) error {
	s, _, err := readSettings(environ)
	if err != nil {
		return err
	}
	cred, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{DisableInstanceDiscovery: s.privateAuthority})
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
	queue := azure.NewQueue(queues, queueLegs)
	parts, err := evidenceParts(s, cred, tables, opts)
	if err != nil {
		return err
	}
	b, err := newBot(s, adapters{
		credential: cred, queue: queue, roster: azure.NewRoster(s.tenant, tables), evidence: parts, openMedia: openMedia,
	}, log)
	if err != nil {
		return err
	}
	return errors.Join(b.serve(ctx, drain), queue.Close(context.WithoutCancel(ctx)))
}

func evidenceParts(s settings, cred azcore.TokenCredential, tables *aztables.ServiceClient, opts azcore.ClientOptions) (evidence.Config, error) {
	var parts evidence.Config
	blobs, err := container.NewClient(s.blobURL+"/"+s.container, cred, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return parts, fmt.Errorf("blobs: %w", err)
	}
	tails, err := container.NewClient(s.blobURL+"/"+s.tails, cred, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return parts, fmt.Errorf("tails: %w", err)
	}
	keys, err := azkeys.NewClient(s.vaultURL, cred, &azkeys.ClientOptions{ClientOptions: opts, DisableChallengeResourceVerification: s.privateAuthority})
	if err != nil {
		return parts, fmt.Errorf("key vault: %w", err)
	}
	vault, err := url.Parse(s.vaultURL)
	if err != nil {
		return parts, fmt.Errorf("key vault: %w", err)
	}
	return evidence.Config{
		Blobs: azure.NewBlobs(blobs), Tails: azure.NewTails(tails), Keys: azure.NewKeys(tables),
		Vault: azure.NewVault(keys, s.vaultKey), VaultHosts: []string{vault.Host}, Recovery: s.recovery,
	}, nil
}

// serviceBus connects by identity, or by connection string where one is set.
func serviceBus(s settings, cred azcore.TokenCredential) (*azservicebus.Client, error) {
	if s.serviceBus != "" {
		return azservicebus.NewClientFromConnectionString(string(s.serviceBus), nil)
	}
	return azservicebus.NewClient(s.serviceBusNamespace, cred, nil)
}

// adapters are what differs between Azure and a test.
type adapters struct {
	credential azcore.TokenCredential
	queue      session.Sender
	roster     policy.Roster
	evidence   evidence.Config
	openMedia  func(mediaParts) (mediaPath, error)
}

// bot is the recorder, connected.
type bot struct {
	s           settings
	log         *slog.Logger
	calls       *msgraph.Calls
	keys        *bearer.Keys
	rules       *policy.RuleBook
	outbox      *session.Outbox
	media       mediaPath
	legs        *session.Legs
	hook        *calling.Webhook
	certificate *certificate
	maintenance *maintenance // nil without a platform

	mux      *http.ServeMux
	draining chan struct{}
	once     sync.Once
}

func newBot(s settings, a adapters, log *slog.Logger) (*bot, error) {
	b := &bot{s: s, log: log, mux: http.NewServeMux(), draining: make(chan struct{})}
	var err error
	if b.certificate, err = openCertificate(s.certificate, s.key, log); err != nil {
		return nil, err
	}
	if b.calls, err = msgraph.NewCalls(msgraph.CallsConfig{BaseURL: s.graphURL, Credential: a.credential, Private: s.graphPrivate}); err != nil {
		return nil, err
	}
	if b.outbox, err = session.OpenOutbox(filepath.Join(s.dir, "outbox"), a.queue, log); err != nil {
		return nil, err
	}
	if b.media, err = a.openMedia(mediaParts{dir: filepath.Join(s.dir, "spool"), evidence: a.evidence, recovered: b.outbox.Put, log: log}); err != nil {
		return nil, err
	}
	gateway, err := session.NewGateway(s.gatewayURL, s.gatewayToken)
	if err != nil {
		return nil, err
	}
	b.rules = policy.NewRuleBook(s.roleGroups, a.roster, nil)
	b.legs, err = session.New(session.Config{
		Tenant: s.tenant, Recorder: s.name, Gateway: gateway, Graph: b.calls, Media: b.media, Rules: b.rules, Outbox: b.outbox, Log: log,
		VideoSockets: s.videoSockets, Screen: s.screen, MaxCalls: s.maxCalls, LagLimit: s.lagLimit,
	})
	if err != nil {
		return nil, err
	}
	b.keys = bearer.NewKeys(bearer.KeysConfig{URL: s.callingIssuer, Metadata: true})
	b.hook, err = calling.New(calling.Config{
		Tenant: s.tenant, App: s.app, Base: s.base, Public: s.public, Keys: b.keys, Graph: b.calls, Take: b.legs.Take, Ready: b.ready, Log: log,
	})
	if err != nil {
		return nil, err
	}
	b.mux.Handle(s.base+"/incoming", b.hook)
	b.mux.Handle(s.base+"/calls/", b.hook)
	if s.controlAudience != "" {
		c, err := newControl(s, b.legs, b.drain, log)
		if err != nil {
			return nil, err
		}
		c.routes(b.mux, s.base)
	}
	if s.metadataURL != "" {
		b.maintenance = newMaintenance(s.metadataURL, log)
	}
	return b, nil
}

// ready returns nil while new calls are taken.
func (b *bot) ready() error { return errors.Join(b.legs.Ready(), b.media.Ready()) }

// drain stops taking calls; the recorder ends when the last one is over.
func (b *bot) drain() {
	b.once.Do(func() {
		b.log.Warn("draining", slog.Int("legs", b.legs.Count()))
		b.legs.Drain()
		close(b.draining)
	})
}

// serve records until drained, or until ctx ends.
func (b *bot) serve(ctx context.Context, drain <-chan struct{}) error {
	var lc net.ListenConfig
	public, err := lc.Listen(ctx, "tcp", b.s.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	local, err := lc.Listen(ctx, "tcp", b.s.health)
	if err != nil {
		return errors.Join(fmt.Errorf("listen for health: %w", err), public.Close())
	}
	return b.serveOn(ctx, drain, public, local)
}

// serveOn takes the listeners over. What it starts it ends again in order: calls first,
// then the doors through which Graph speaks of them, then what carries evidence away.
func (b *bot) serveOn(ctx context.Context, drain <-chan struct{}, public, local net.Listener) error {
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	taking, stopLegs := context.WithCancel(work)
	defer stopLegs()
	var running, legs sync.WaitGroup
	failed := make(chan error, 8)
	start := func(wg *sync.WaitGroup, what string, do func() error) {
		wg.Go(func() {
			if err := do(); err != nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	b.warm(work)
	door := b.server(b.mux)
	door.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: b.certificate.get, NextProtos: []string{"h2", "http/1.1"}}
	probe := b.server(b.healthRoutes())
	start(&running, "media", func() error { return b.media.Run(work) })
	start(&running, "outbox", func() error { return b.outbox.Run(work) })
	start(&running, "webhook", func() error { return b.hook.Run(work) })
	start(&legs, "legs", func() error { return b.legs.Run(taking) })
	start(&running, "rules", func() error { return b.keepWarm(work) })
	start(&running, "orphans", func() error { return b.recover(taking) })
	start(&running, "health", func() error { return closed(probe.Serve(local)) })
	start(&running, "https", func() error { return closed(door.ServeTLS(public, "", "")) })
	if b.maintenance != nil {
		start(&running, "maintenance", func() error { return b.maintenance.run(taking, b.drain) })
	}
	b.log.Info("recorder started", slog.String("name", b.s.name), slog.String("listen", public.Addr().String()))

	err := b.wait(ctx, drain, failed)
	b.drain()
	stopLegs()
	legs.Wait()
	b.handOver(ctx)
	if b.maintenance != nil {
		releasing, cancel := context.WithTimeout(work, closeTimeout)
		if rerr := b.maintenance.release(releasing); rerr != nil {
			b.log.Warn("maintenance not released", slog.String("cause", rerr.Error()))
		}
		cancel()
	}
	closing, cancel := context.WithTimeout(work, closeTimeout)
	defer cancel()
	err = errors.Join(err, shut(closing, door), shut(closing, probe))
	stopWork()
	running.Wait()
	b.log.Info("recorder ended", slog.Int("notices", b.outbox.Waiting()))
	return err
}

// wait returns when the recorder may end: it is drained and empty, or ctx ended, or
// something that must run does not.
func (b *bot) wait(ctx context.Context, drain <-chan struct{}, failed <-chan error) error {
	tick := time.NewTicker(emptyEvery)
	defer tick.Stop()
	draining, empty := b.draining, 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-drain:
			b.drain()
			drain = nil
		case <-draining:
			draining = nil
		case <-tick.C:
			// Twice in a row: an invite that was accepted just before may have no leg yet.
			if empty++; draining != nil || b.legs.Count() > 0 {
				empty = 0
			}
			if empty > 1 {
				return nil
			}
		}
	}
}

// handOver waits until everything is in evidence and every notice is sent, for a while:
// what is left lies on disk and goes on with the next start.
func (b *bot) handOver(ctx context.Context) {
	limit := time.NewTimer(b.s.handOver)
	defer limit.Stop()
	tick := time.NewTicker(emptyEvery)
	defer tick.Stop()
	cut := ctx.Done()
	for !b.media.Empty() || b.outbox.Waiting() > 0 {
		select {
		case <-tick.C:
		case <-cut:
			cut = nil
			limit.Reset(min(cutShort, b.s.handOver))
		case <-limit.C:
			b.log.Error("ending with evidence on disk", slog.String("alarm", "hand-over"), slog.Int("notices", b.outbox.Waiting()))
			return
		}
	}
}

func (b *bot) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(b.log.Handler(), slog.LevelDebug),
	}
}

func closed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func shut(ctx context.Context, s *http.Server) error {
	if err := s.Shutdown(ctx); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// warm fetches what an answer must not wait for: the keys of Teams' calling service, a
// token for Graph, the recording rules. A failure is no reason not to start: each is
// fetched again when it is needed.
func (b *bot) warm(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for what, do := range map[string]func(context.Context) error{"keys": b.keys.Warm, "token": b.calls.Warm, "rules": b.rules.Refresh} {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			b.log.Error("not ready in advance", slog.String("alarm", "warm-up"), slog.String("what", what), slog.String("cause", err.Error()))
		}
	}
}

// keepWarm refreshes the rules each minute and the rest now and then.
func (b *bot) keepWarm(ctx context.Context) error {
	rules := time.NewTicker(rulesEvery)
	defer rules.Stop()
	all := time.NewTicker(warmEvery)
	defer all.Stop()
	for {
		select {
		case <-rules.C:
			if err := b.rules.Refresh(ctx); err != nil && ctx.Err() == nil {
				b.log.Error("rules not refreshed; the last ones hold", slog.String("alarm", "rules"), slog.String("cause", err.Error()))
			}
		case <-all.C:
			b.warm(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// recover ends what an earlier process left in the gateway, as soon as the gateway
// answers.
func (b *bot) recover(ctx context.Context) error {
	tick := time.NewTicker(recoverEvery)
	defer tick.Stop()
	told := false
	for {
		err := b.legs.Recover(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if !told {
			b.log.Error("orphaned calls not ended yet", slog.String("alarm", "orphaned-call"), slog.String("cause", err.Error()))
			told = true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// healthRoutes answers the platform's probes. A recorder is healthy as long as it
// answers, also while it drains: an unhealthy machine is replaced, calls and all.
func (b *bot) healthRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"ApplicationHealthState": "Healthy"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := b.ready(); err != nil {
			answer(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "why": err.Error(), "legs": b.legs.Count()})
			return
		}
		answer(w, http.StatusOK, map[string]any{"ready": true, "legs": b.legs.Count()})
	})
	return mux
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	b, err := json.Marshal(v)
	if err == nil {
		_, _ = w.Write(b) // the probe has gone, and learns nothing
	}
}
