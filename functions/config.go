package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"steno/functions/attachments"
	"steno/functions/export"
	"steno/functions/exportplan"
	"steno/functions/finalize"
	"steno/functions/fixity"
	"steno/functions/groupsync"
	"steno/functions/internal/funchost"
	"steno/functions/internal/intake"
	"steno/functions/reconcile"
	"steno/functions/retention"
	"steno/functions/sequencer"
	"steno/shared/config"
	"steno/shared/conversation"
	"steno/shared/evidence"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Names that host.json and the function.json files fix.
const (
	routePrefix     = "steno"          // host.json extensions.http.routePrefix
	functionTimeout = 10 * time.Minute // host.json functionTimeout
	queueChatExport = "chat-export"
	queueCallLegs   = "call-legs"
	queueExports    = "exports"
	queueFiles      = "attachments"
	queueParked     = "parked"
)

// settings is what the environment says, checked.
type settings struct {
	tenant     teams.TenantID
	roleGroups []policy.RoleGroup
	maxDrop    float64

	graphURL     string
	graphRate    float64
	graphPage    int
	graphPrivate bool

	plan       exportplan.Config
	claimLease time.Duration
	legs       finalize.Config
	fixity     fixity.Config
	retryWait  time.Duration
	fileMode   intake.FileMode // which attachments are fetched
	files      attachments.Config
	fileHosts  []string
	keep       retention.Config
	lockDates  bool // dates of evidence are locked

	blobURL, tableURL, container, tails string
	exports                             string // container of export packages
	packageWait                         time.Duration
	vaultURL, vaultKey                  string
	recovery                            *evidence.RecoveryKey // nil: no copies of keys
	vaultLogURL                         string                // container of the vault's log; empty: no audit
	audit                               reconcile.Config
	custodyFiles, custodyHeads          string // containers of the custody log
	signingKey                          string
	signEvery                           time.Duration
	revoked                             []string // fingerprints of signing keys
	witnessURL                          string   // a container of another account, or empty
	witnessWebhook                      config.Secret
	tsaURL                              string // of a time-stamping authority, or empty
	tsaRoots                            *x509.CertPool
	serviceBus                          config.Secret // a connection string, or empty
	serviceBusNamespace                 string
	privateAuthority                    bool

	portalAudience, portalClient, portalScope string
	issuer, jwksURL, loginAuthority           string

	port string
}

// readSettings reads every key and returns all faults at once.
func readSettings(environ []string) (settings, *config.Reader, error) {
	r := config.Read(environ)
	r.Host("STENO_GROUPSYNC_SCHEDULE", "STENO_EXPORTPLAN_SCHEDULE", "STENO_SEQUENCER_SCHEDULE", "STENO_RETENTION_SCHEDULE", "STENO_RECONCILE_SCHEDULE", "STENO_FIXITY_SCHEDULE",
		"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_AUTHORITY_HOST", "AzureWebJobsStorage")
	var s settings
	s.tenant = config.Parse(r, "STENO_TENANT_ID", teams.ParseTenantID)
	s.roleGroups = config.Parse(r, "STENO_ROLE_GROUPS", policy.ParseRoleGroups)
	s.maxDrop = r.Number("STENO_GROUP_MAX_DROP", groupsync.DefaultMaxDrop, 0.01, 1)

	s.graphURL = r.OptionalURL("STENO_GRAPH_URL", "https://graph.microsoft.com/v1.0")
	s.graphRate = r.Number("STENO_GRAPH_RATE", 50, 0.1, 200)
	s.graphPage = int(r.Number("STENO_GRAPH_PAGE_SIZE", msgraph.DefaultTop, 1, 250))
	s.graphPrivate = r.Bool("STENO_GRAPH_PRIVATE")

	s.plan = exportplan.Config{
		Tenant:   s.tenant,
		Period:   r.Duration("STENO_EXPORT_PERIOD", exportplan.DefaultPeriod, time.Second, 7*24*time.Hour),
		Lag:      r.Duration("STENO_EXPORT_LAG", exportplan.DefaultLag, time.Millisecond, 24*time.Hour),
		Longest:  r.Duration("STENO_EXPORT_LONGEST", exportplan.DefaultLongest, 10*time.Minute, 31*24*time.Hour),
		Passes:   r.Durations("STENO_EXPORT_PASSES", exportplan.DefaultPasses),
		Patience: r.Duration("STENO_EXPORT_PATIENCE", exportplan.DefaultPatience, time.Millisecond, 7*24*time.Hour),
		History:  r.Duration("STENO_EXPORT_HISTORY", 0, 0, 10*365*24*time.Hour),
	}
	if n := len(s.plan.Passes); n < 1 || n > 9 {
		r.Fault("STENO_EXPORT_PASSES", errors.New("want 1 to 9 passes"))
	}
	s.claimLease = r.Duration("STENO_CLAIM_LEASE", 0, time.Second, 24*time.Hour)

	s.retryWait = r.Duration("STENO_EXPORT_RETRY_WAIT", 0, time.Millisecond, time.Hour)

	readFiles(r, &s)

	s.blobURL = r.URL("STENO_BLOB_URL")
	s.tableURL = r.URL("STENO_TABLE_URL")
	s.container = r.Optional("STENO_EVIDENCE_CONTAINER", "evidence")
	s.tails = r.Optional("STENO_TAILS_CONTAINER", "tails")
	s.packageWait = r.Duration("STENO_PACKAGE_RETRY_WAIT", export.DefaultRetryWait, time.Millisecond, time.Hour)
	s.exports = r.Optional("STENO_EXPORTS_CONTAINER", "exports")
	s.legs = finalize.Config{
		Tenant:     s.tenant,
		CheckEvery: r.Duration("STENO_LEG_CHECK", finalize.DefaultCheckEvery, time.Second, 24*time.Hour),
		Silence:    r.Duration("STENO_LEG_SILENCE", finalize.DefaultSilence, 10*time.Second, 7*24*time.Hour),
	}
	readAudit(r, &s)
	readRetention(r, &s)
	s.fixity = fixity.Config{
		Tenant: s.tenant,
		Period: r.Duration("STENO_FIXITY_PERIOD", fixity.DefaultPeriod, time.Hour, 366*24*time.Hour),
		Budget: int64(r.Number("STENO_FIXITY_BUDGET", fixity.DefaultBudget, 1<<20, 1<<40)),
	}
	s.vaultURL = r.URL("STENO_VAULT_URL")
	s.vaultKey = r.Optional("STENO_VAULT_KEY", "steno-wrap")
	readCustody(r, &s)
	connection, hasConnection := r.Lookup("ServiceBusConnection")
	namespace, hasNamespace := r.Lookup("ServiceBusConnection__fullyQualifiedNamespace")
	if hasConnection == hasNamespace {
		r.Fault("ServiceBusConnection__fullyQualifiedNamespace", errors.New("want either this or ServiceBusConnection"))
	}
	s.serviceBus, s.serviceBusNamespace = config.Secret(connection), namespace
	s.privateAuthority = r.Bool("STENO_PRIVATE_AUTHORITY")

	s.portalAudience = config.Parse(r, "STENO_PORTAL_AUDIENCE", guid)
	s.portalClient = config.Parse(r, "STENO_PORTAL_CLIENT", guid)
	s.portalScope = r.Optional("STENO_PORTAL_SCOPE", "Archive.Read")
	authority := "https://login.microsoftonline.com/" + string(s.tenant)
	s.loginAuthority = r.OptionalURL("STENO_LOGIN_AUTHORITY", authority)
	s.issuer = r.OptionalURL("STENO_LOGIN_ISSUER", authority+"/v2.0")
	s.jwksURL = r.OptionalURL("STENO_LOGIN_KEYS", authority+"/discovery/v2.0/keys")

	s.port = r.String(funchost.PortVariable)
	if err := r.Err(); err != nil {
		return settings{}, r, fmt.Errorf("configuration:\n%w", err)
	}
	return s, r, nil
}

// readAudit reads who may restore keys, and how their use is audited.
func readAudit(r *config.Reader, s *settings) {
	if _, ok := r.Lookup("STENO_RECOVERY_KEY"); ok {
		s.recovery = config.Parse(r, "STENO_RECOVERY_KEY", evidence.ParseRecoveryKey)
	}
	if _, ok := r.Lookup("STENO_VAULT_LOG_URL"); ok {
		s.vaultLogURL = r.URL("STENO_VAULT_LOG_URL")
	}
	s.audit = reconcile.Config{
		Tenant: s.tenant,
		Lag:    r.Duration("STENO_VAULT_LOG_LAG", reconcile.DefaultLag, 15*time.Minute, 24*time.Hour),
		Rate:   int(r.Number("STENO_UNWRAP_RATE", reconcile.DefaultRate, 1, 10_000)),
	}
	for c := range strings.SplitSeq(r.Optional("STENO_UNWRAP_CALLERS", ""), ",") {
		if c = strings.TrimSpace(c); c != "" {
			id, err := guid(c)
			if err != nil {
				r.Fault("STENO_UNWRAP_CALLERS", err)
			}
			s.audit.Callers = append(s.audit.Callers, id)
		}
	}
}

// readFiles reads which attachments are fetched, and from where.
func readFiles(r *config.Reader, s *settings) {
	switch s.fileMode = intake.FileMode(r.Optional("STENO_ATTACHMENTS", string(intake.FilesOff))); s.fileMode {
	case intake.FilesOff, intake.FilesHosted, intake.FilesAll:
	default:
		r.Fault("STENO_ATTACHMENTS", errors.New("want off, hosted or all"))
	}
	s.files = attachments.Config{
		Tenant:    s.tenant,
		Largest:   int64(r.Number("STENO_ATTACHMENT_LARGEST", conversation.MaxFile, 1<<20, conversation.MaxFile)),
		RetryWait: r.Duration("STENO_ATTACHMENT_RETRY_WAIT", attachments.DefaultRetryWait, time.Millisecond, time.Hour),
	}
	for h := range strings.SplitSeq(r.Optional("STENO_ATTACHMENT_HOSTS", strings.Join(msgraph.DefaultFileHosts, ",")), ",") {
		if h = strings.TrimSpace(h); h == "" {
			continue
		}
		if err := msgraph.CheckFileHost(h); err != nil {
			r.Fault("STENO_ATTACHMENT_HOSTS", err)
		}
		s.fileHosts = append(s.fileHosts, h)
	}
}

// readCustody reads where the custody log lies, who signs it and who witnesses it.
func readCustody(r *config.Reader, s *settings) {
	s.custodyFiles = r.Optional("STENO_CUSTODY_CONTAINER", "custody")
	s.custodyHeads = r.Optional("STENO_CUSTODY_HEAD_CONTAINER", "custody-head")
	s.signingKey = r.Optional("STENO_SIGNING_KEY", "steno-sign")
	s.revoked = readRevoked(r)
	if _, ok := r.Lookup("STENO_WITNESS_URL"); ok {
		s.witnessURL = r.URL("STENO_WITNESS_URL")
	}
	if v, ok := r.Lookup("STENO_WITNESS_WEBHOOK"); ok {
		if u, err := url.Parse(v); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			r.Fault("STENO_WITNESS_WEBHOOK", errors.New("want an https address"))
		}
		s.witnessWebhook = config.Secret(v)
	}
	if _, ok := r.Lookup("STENO_TSA_URL"); ok {
		s.tsaURL = config.Parse(r, "STENO_TSA_URL", sequencer.ParseStampURL)
		s.tsaRoots = config.Parse(r, "STENO_TSA_ROOTS", sequencer.ParseStampRoots)
	} else if _, ok := r.Lookup("STENO_TSA_ROOTS"); ok {
		r.Fault("STENO_TSA_ROOTS", errors.New("is of no use without STENO_TSA_URL"))
	}
	s.signEvery = r.Duration("STENO_CHECKPOINT_EVERY", sequencer.DefaultSignEvery, time.Second, 24*time.Hour)
}

// readRetention reads how long evidence is kept and how it ends.
func readRetention(r *config.Reader, s *settings) {
	var policies policy.DataPolicies
	if text, ok := r.Lookup("STENO_DATA_POLICIES"); ok {
		var err error
		if policies, err = policy.ParseDataPolicies(text); err != nil {
			r.Fault("STENO_DATA_POLICIES", err)
		}
		if len(s.roleGroups) > 0 {
			if err := policies.CheckDesks(s.roleGroups); err != nil {
				r.Fault("STENO_DATA_POLICIES", err)
			}
		}
	}
	s.keep = retention.Config{
		Tenant: s.tenant, Policies: policies, History: s.plan.History,
		Grace:  r.Duration("STENO_HOLD_GRACE", policy.DefaultGrace, time.Hour, 365*24*time.Hour),
		Wait:   r.Duration("STENO_ERASURE_WAIT", retention.MinErasureWait, retention.MinErasureWait, 90*24*time.Hour),
		Cap:    r.Number("STENO_DISPOSAL_CAP", retention.DefaultCap, 0.0001, 1),
		Escrow: s.recovery != nil,
	}
	s.legs.Policies, s.legs.History = policies, s.plan.History
	switch mode := r.Optional("STENO_IMMUTABILITY_MODE", "Unlocked"); mode {
	case "Locked":
		s.lockDates = true
	case "Unlocked":
	default:
		r.Fault("STENO_IMMUTABILITY_MODE", errors.New("want Locked or Unlocked"))
	}
}

// guid reads an application id; the form is that of every Entra id.
func guid(s string) (string, error) {
	id, err := teams.ParseTenantID(s)
	return string(id), err
}

// readRevoked reads the fingerprints of signing keys that may be in the wrong hands.
func readRevoked(r *config.Reader) (out []string) {
	const name = "STENO_SIGNING_KEYS_REVOKED"
	for f := range strings.SplitSeq(r.Optional(name, ""), ",") {
		if f = strings.TrimSpace(f); f == "" {
			continue
		}
		if b, err := hex.DecodeString(f); err != nil || len(b) != sha256.Size || strings.ToLower(f) != f {
			r.Fault(name, fmt.Errorf("%q is no fingerprint: want 64 lower-case hex digits each, with commas between", f))
			continue
		}
		out = append(out, f)
	}
	return out
}
