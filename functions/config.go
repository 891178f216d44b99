package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/mail"
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
	"steno/functions/lookback"
	"steno/functions/reconcile"
	"steno/functions/retention"
	"steno/functions/sequencer"
	"steno/functions/subscriptions"
	"steno/shared/config"
	"steno/shared/conversation"
	"steno/shared/coverage"
	"steno/shared/evidence"
	"steno/shared/msgraph"
	"steno/shared/msgraph/directory"
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
	queueNotified   = "notifications"
	queueFiles      = "attachments"
	queueParked     = "parked"
)

// settings is what the environment says, checked.
type settings struct {
	tenant     teams.TenantID
	roleGroups []policy.RoleGroup
	teamRules  []policy.TeamRule
	// channelsMigrated is when Microsoft finished moving the tenant's private channels to the
	// teams' mailboxes (Get-TenantPrivateChannelMigrationStatus): what retention kept of them
	// before cannot be exported. Zero if nobody said.
	channelsMigrated time.Time
	maxDrop          float64

	graphURL     string
	graphRate    float64
	graphPage    int
	graphPrivate bool

	plan       exportplan.Config
	lookbacks  lookback.Config
	newcomers  time.Duration // how far back a newcomer's history is read
	claimLease time.Duration
	legs       finalize.Config
	fixity     fixity.Config
	retryWait  time.Duration
	fileMode   intake.FileMode // which attachments are fetched
	files      attachments.Config
	fileHosts  []string
	keep       retention.Config
	lockDates  bool // dates of evidence are locked

	notify        subscriptions.Config
	notifyApp     string // the application that subscribes
	notifyKeys    string // where the keys of validation tokens are published
	notifications string // container of large notifications and of private keys

	blobURL, tableURL, container, tails string
	exports                             string // container of export packages
	packageWait                         time.Duration
	vaultURL, vaultKey                  string
	recovery                            *evidence.RecoveryKey // nil: no copies of keys
	vaultLogURL                         string                // container of the vault's log; empty: no audit
	audit                               reconcile.AuditConfig
	coverage                            reconcile.CoverageConfig
	statements                          string        // container of coverage statements
	alertWebhook                        config.Secret // or empty
	alertFrom                           teams.PersonID
	alertTo                             []string
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
	r.Host("STENO_GROUPSYNC_SCHEDULE", "STENO_EXPORTPLAN_SCHEDULE", "STENO_LOOKBACK_SCHEDULE", "STENO_SEQUENCER_SCHEDULE", "STENO_RETENTION_SCHEDULE", "STENO_RECONCILE_SCHEDULE", "STENO_FIXITY_SCHEDULE", "STENO_SUBSCRIPTIONS_SCHEDULE", "STENO_NOTIFIED_SCHEDULE",
		"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_AUTHORITY_HOST", "AzureWebJobsStorage")
	var s settings
	s.tenant = config.Parse(r, "STENO_TENANT_ID", teams.ParseTenantID)
	s.roleGroups = config.Parse(r, "STENO_ROLE_GROUPS", policy.ParseRoleGroups)
	if _, ok := r.Lookup("STENO_RECORDED_TEAMS"); ok {
		s.teamRules = config.Parse(r, "STENO_RECORDED_TEAMS", policy.ParseTeamRules)
	}
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

		Retained:      r.Bool("STENO_RETAINED_MESSAGES"),
		RetainedDelay: r.Duration("STENO_RETAINED_DELAY", exportplan.DefaultRetainedDelay, time.Millisecond, 30*24*time.Hour),
	}
	if _, ok := r.Lookup("STENO_PRIVATE_CHANNELS_MIGRATED"); ok {
		s.channelsMigrated = config.Parse(r, "STENO_PRIVATE_CHANNELS_MIGRATED", pastTime)
	}
	s.lookbacks = lookback.Config{
		Tenant: s.tenant, NoGroup: directory.ErrNoGroup,
		InFlight: int(r.Number("STENO_LOOKBACK_IN_FLIGHT", lookback.DefaultInFlight, 1, 64)),
	}
	s.newcomers = r.Duration("STENO_LOOKBACK_NEWCOMERS", 0, 0, policy.MaxLookback-24*time.Hour)
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
	readNotifications(r, &s)
	readAudit(r, &s)
	readRetention(r, &s)
	readCoverage(r, &s)
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

// readNotifications reads where Graph sends change notifications; without an address it
// sends none.
func readNotifications(r *config.Reader, s *settings) {
	s.notify = subscriptions.Config{
		Wide:     r.Bool("STENO_NOTIFICATION_WIDE"),
		MaxUsers: int(r.Number("STENO_NOTIFICATION_MAX_USERS", subscriptions.DefaultMaxUsers, 1, 9000)),
		KeyAge:   r.Duration("STENO_NOTIFICATION_KEY_AGE", subscriptions.DefaultKeyAge, time.Hour, 365*24*time.Hour),
	}
	s.notifications = r.Optional("STENO_NOTIFICATION_CONTAINER", "notifications")
	s.notifyKeys = r.OptionalURL("STENO_NOTIFICATION_KEYS", "https://login.microsoftonline.com/common/discovery/v2.0/keys")
	app := r.Optional("STENO_NOTIFICATION_APP", "")
	if _, ok := r.Lookup("STENO_NOTIFICATION_URL"); !ok {
		return
	}
	s.notify.URL = strings.TrimSuffix(r.URL("STENO_NOTIFICATION_URL"), "/")
	if want := "/" + routePrefix + "/notifications"; !strings.HasSuffix(s.notify.URL, want) {
		r.Fault("STENO_NOTIFICATION_URL", fmt.Errorf("want the public address of this app and %s", want))
	}
	var err error
	if s.notifyApp, err = guid(app); err != nil {
		r.Fault("STENO_NOTIFICATION_APP", errors.New("want the id of the application that subscribes"))
	}
}

// readAudit reads who may restore keys, and how their use is audited.
func readAudit(r *config.Reader, s *settings) {
	if _, ok := r.Lookup("STENO_RECOVERY_KEY"); ok {
		s.recovery = config.Parse(r, "STENO_RECOVERY_KEY", evidence.ParseRecoveryKey)
	}
	if _, ok := r.Lookup("STENO_VAULT_LOG_URL"); ok {
		s.vaultLogURL = r.URL("STENO_VAULT_LOG_URL")
	}
	s.audit = reconcile.AuditConfig{
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

// readCoverage reads what is stated of coverage, and who is told.
func readCoverage(r *config.Reader, s *settings) {
	s.statements = r.Optional("STENO_COVERAGE_CONTAINER", "coverage")
	s.coverage = reconcile.CoverageConfig{
		Tenant: s.tenant, History: s.plan.History, Groups: s.roleGroups,
		Files: s.fileMode != intake.FilesOff,
		Calls: r.Bool("STENO_CALL_RECORDS"), Migrated: s.channelsMigrated,
		After:   r.Durations("STENO_COVERAGE_AFTER", reconcile.DefaultAfter),
		Interim: r.Duration("STENO_COVERAGE_INTERIM", 0, 0, 24*time.Hour),
		Tolerance: coverage.Tolerance{
			Media: r.Duration("STENO_GAP_TOLERANCE", coverage.DefaultTolerance.Media, time.Second, 10*time.Minute),
			Clock: coverage.DefaultTolerance.Clock,
			Grace: r.Duration("STENO_GAP_GRACE", coverage.DefaultTolerance.Grace, time.Second, 24*time.Hour),
		},
		ReadLag: r.Duration("STENO_COVERAGE_LAG", reconcile.DefaultReadLag, time.Millisecond, 24*time.Hour),
	}
	if _, ok := r.Lookup("STENO_CANARY_THREAD"); ok {
		s.coverage.Canary = config.Parse(r, "STENO_CANARY_THREAD", teams.ParseThreadID)
	}
	if v, ok := r.Lookup("STENO_ALERT_WEBHOOK"); ok {
		if u, err := url.Parse(v); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			r.Fault("STENO_ALERT_WEBHOOK", errors.New("want an https address"))
		}
		s.alertWebhook = config.Secret(v)
	}
	_, from := r.Lookup("STENO_ALERT_MAIL_FROM")
	_, to := r.Lookup("STENO_ALERT_MAIL_TO")
	switch {
	case from != to:
		r.Fault("STENO_ALERT_MAIL_FROM", errors.New("want both this and STENO_ALERT_MAIL_TO, or neither"))
	case from:
		s.alertFrom = config.Parse(r, "STENO_ALERT_MAIL_FROM", teams.ParsePersonID)
		s.alertTo = config.Parse(r, "STENO_ALERT_MAIL_TO", addresses)
	}
}

// addresses reads mail addresses with commas between them.
func addresses(s string) (out []string, err error) {
	for a := range strings.SplitSeq(s, ",") {
		got, err := mail.ParseAddress(strings.TrimSpace(a))
		if err != nil {
			return nil, errors.New("want mail addresses with commas between them")
		}
		out = append(out, got.Address)
	}
	return out, nil
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
			if err := policies.CheckDesks(s.roleGroups, s.teamRules); err != nil {
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

// pastTime reads a time that has come.
func pastTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.After(time.Now()) {
		return time.Time{}, errors.New("want an RFC 3339 time that has come")
	}
	return t.UTC(), nil
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
