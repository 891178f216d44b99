package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"steno/mediabot/internal/calling"
	"steno/mediabot/internal/session"
	"steno/shared/config"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/teams"
)

// queueLegs is where notices of legs go.
const queueLegs = "call-legs"

// settings is what the environment says, checked.
type settings struct {
	tenant     teams.TenantID
	roleGroups []policy.RoleGroup

	app           string // application id of the bot
	public        string // https origin at which Graph reaches this instance
	base          string // path of everything that is served there
	listen        string
	health        string
	certificate   string
	key           string
	name          string
	dir           string
	callingIssuer string // OpenID configuration of Teams' calling service

	graphURL     string
	graphPrivate bool
	gatewayURL   string
	gatewayToken string

	videoSockets int
	screen       bool
	maxCalls     int
	lagLimit     time.Duration
	handOver     time.Duration

	blobURL, tableURL, container, tails string
	vaultURL, vaultKey                  string
	recovery                            *evidence.RecoveryKey // nil: no copies of keys
	serviceBus                          config.Secret         // a connection string, or empty
	serviceBusNamespace                 string
	privateAuthority                    bool

	controlAudience string // empty: the control API is off
	controlClients  []string
	issuer, jwksURL string

	metadataURL string // of the platform's instance metadata; empty: none
}

// readSettings reads every key and returns all faults at once.
func readSettings(environ []string) (settings, *config.Reader, error) {
	r := config.Read(environ)
	r.Host("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_AUTHORITY_HOST")
	var s settings
	s.tenant = config.Parse(r, "STENO_TENANT_ID", teams.ParseTenantID)
	s.roleGroups = config.Parse(r, "STENO_ROLE_GROUPS", policy.ParseRoleGroups)

	s.app = config.Parse(r, "STENO_BOT_APP", guid)
	s.public = r.URL("STENO_BOT_PUBLIC_URL")
	s.base = pathPrefix(r, "STENO_BOT_PATH", "/steno")
	s.listen = address(r, "STENO_BOT_LISTEN", ":443", false)
	s.health = address(r, "STENO_BOT_HEALTH_LISTEN", "127.0.0.1:8080", true)
	s.certificate = r.String("STENO_BOT_CERTIFICATE")
	s.key = r.String("STENO_BOT_CERTIFICATE_KEY")
	s.dir = r.String("STENO_BOT_DATA")
	s.callingIssuer = r.OptionalURL("STENO_CALLING_ISSUER", calling.MetadataURL)
	host, err := os.Hostname()
	if err != nil {
		host = "mediabot"
	}
	s.name = r.Optional("STENO_BOT_NAME", host)
	if len(s.name) > 64 {
		r.Fault("STENO_BOT_NAME", errors.New("want at most 64 bytes"))
	}

	s.graphURL = r.OptionalURL("STENO_GRAPH_URL", "https://graph.microsoft.com/v1.0")
	s.graphPrivate = r.Bool("STENO_GRAPH_PRIVATE")
	s.gatewayURL = r.Optional("STENO_GATEWAY_URL", "http://127.0.0.1:8771")
	s.gatewayToken = r.String("STENO_GATEWAY_TOKEN_FILE")
	if _, err := session.NewGateway(s.gatewayURL, "file"); err != nil {
		r.Fault("STENO_GATEWAY_URL", err)
	}

	s.videoSockets = int(r.Number("STENO_VIDEO_SOCKETS", 0, 0, 10))
	s.screen = r.Bool("STENO_SCREEN")
	s.maxCalls = int(r.Number("STENO_MAX_CALLS", session.DefaultMaxCalls, 1, 2000))
	s.lagLimit = r.Duration("STENO_LAG_LIMIT", session.DefaultLagLimit, 10*time.Second, 30*time.Minute)
	s.handOver = r.Duration("STENO_HAND_OVER_LIMIT", 5*time.Minute, time.Second, time.Hour)

	s.blobURL = r.URL("STENO_BLOB_URL")
	s.tableURL = r.URL("STENO_TABLE_URL")
	s.container = r.Optional("STENO_EVIDENCE_CONTAINER", "evidence")
	s.tails = r.Optional("STENO_TAILS_CONTAINER", "tails")
	s.vaultURL = r.URL("STENO_VAULT_URL")
	s.vaultKey = r.Optional("STENO_VAULT_KEY", "steno-wrap")
	if _, ok := r.Lookup("STENO_RECOVERY_KEY"); ok {
		s.recovery = config.Parse(r, "STENO_RECOVERY_KEY", evidence.ParseRecoveryKey)
	}
	connection, hasConnection := r.Lookup("ServiceBusConnection")
	namespace, hasNamespace := r.Lookup("ServiceBusConnection__fullyQualifiedNamespace")
	if hasConnection == hasNamespace {
		r.Fault("ServiceBusConnection__fullyQualifiedNamespace", errors.New("want either this or ServiceBusConnection"))
	}
	s.serviceBus, s.serviceBusNamespace = config.Secret(connection), namespace
	s.privateAuthority = r.Bool("STENO_PRIVATE_AUTHORITY")

	authority := "https://login.microsoftonline.com/" + string(s.tenant)
	s.issuer = r.OptionalURL("STENO_LOGIN_ISSUER", authority+"/v2.0")
	s.jwksURL = r.OptionalURL("STENO_LOGIN_KEYS", authority+"/discovery/v2.0/keys")
	if _, on := r.Lookup("STENO_CONTROL_AUDIENCE"); on {
		s.controlAudience = config.Parse(r, "STENO_CONTROL_AUDIENCE", guid)
		s.controlClients = config.Parse(r, "STENO_CONTROL_CLIENTS", guids)
	}
	s.metadataURL = metadata(r, "STENO_METADATA_URL", "http://169.254.169.254")

	if err := r.Err(); err != nil {
		return settings{}, r, fmt.Errorf("configuration:\n%w", err)
	}
	return s, r, nil
}

// guid reads an application id; the form is that of every Entra id.
func guid(s string) (string, error) {
	id, err := teams.ParseTenantID(s)
	return string(id), err
}

func guids(s string) ([]string, error) {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		id, err := guid(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}

func pathPrefix(r *config.Reader, key, def string) string {
	s := r.Optional(key, def)
	u, err := url.Parse(s)
	if err != nil || u.Path != s || !strings.HasPrefix(s, "/") || len(s) < 2 || strings.HasSuffix(s, "/") || strings.Contains(s, "//") {
		r.Fault(key, errors.New("want a path such as /steno"))
	}
	return s
}

// address returns a HOST:PORT to listen at; local keeps it on this machine.
func address(r *config.Reader, key, def string, local bool) string {
	s := r.Optional(key, def)
	host, port, err := net.SplitHostPort(s)
	if err != nil || port == "" {
		r.Fault(key, errors.New("want HOST:PORT or :PORT"))
	} else if ip := net.ParseIP(host); local && (ip == nil || !ip.IsLoopback()) {
		r.Fault(key, errors.New("want an address of loopback: it answers without asking who asks"))
	}
	return s
}

// metadata returns the address of the platform's metadata service, which is plain http
// on a link-local address; "none" stands for a machine that has none.
func metadata(r *config.Reader, key, def string) string {
	s := r.Optional(key, def)
	if s == "none" {
		return ""
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		r.Fault(key, errors.New("want http://HOST, or none"))
		return ""
	}
	if ip := net.ParseIP(u.Hostname()); ip == nil || !(ip.IsLinkLocalUnicast() || ip.IsLoopback()) {
		r.Fault(key, errors.New("want a link-local or loopback address"))
	}
	return strings.TrimSuffix(s, "/")
}
