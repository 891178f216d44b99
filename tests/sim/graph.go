package sim

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Counts is what the handler has served since the tenant was made.
type Counts struct {
	Requests      map[string]int // by endpoint, such as "/users/{id}/chats/getAllMessages"
	Faults        map[Fault]int
	Throttled     int // 429 answers from Config.RatePerSecond
	MaxConcurrent int
}

type counter struct {
	mu       sync.Mutex
	requests map[string]int
	now, max int
	limited  int
	serial   int
}

func (c *counter) enter() (serial int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now++
	c.max = max(c.max, c.now)
	c.serial++
	return c.serial
}

func (c *counter) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now--
}

func (c *counter) add(endpoint string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.requests == nil {
		c.requests = map[string]int{}
	}
	c.requests[endpoint]++
}

// Counts returns what has been served.
func (t *Tenant) Counts() Counts {
	t.counts.mu.Lock()
	defer t.counts.mu.Unlock()
	return Counts{
		Requests: maps.Clone(t.counts.requests), Faults: t.faults.Served(),
		Throttled: t.counts.limited, MaxConcurrent: t.counts.max,
	}
}

// limiter counts requests by the second.
type limiter struct {
	mu     sync.Mutex
	second int64
	n      int
}

func (l *limiter) over(limit int, now time.Time) bool {
	if limit <= 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := now.Unix(); s != l.second {
		l.second, l.n = s, 0
	}
	l.n++
	return l.n > limit
}

// request is one call with its path split into words: a slash, a key in parentheses and an empty pair of parentheses
// all separate, so that `users('a')/chats/getAllMessages()` and `users/a/chats/getAllMessages` are the same.
type request struct {
	w      http.ResponseWriter
	r      *http.Request
	query  url.Values
	id     string // request-id
	params []string
	roles  map[string]bool // nil: every role
	claims map[string]any  // nil: no token was asked for
	named  string          // the endpoint
}

func (q *request) has(role ...string) bool {
	return q.roles == nil || slices.ContainsFunc(role, func(r string) bool { return q.roles[r] })
}

type endpoint struct {
	pattern string
	roles   []string // any one suffices; the first is named in the refusal
	serve   func(*Tenant, *request)
}

var (
	readUsers  = []string{"User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"}
	readGroups = []string{"GroupMember.Read.All", "Group.Read.All", "Directory.Read.All", "Group.ReadWrite.All", "Directory.ReadWrite.All"}
	readTeams  = []string{"Team.ReadBasic.All", "TeamSettings.Read.All", "Group.Read.All", "Directory.Read.All"}
	// Chat.ReadWrite.All is documented as enough for exports and was refused all the same:
	// https://github.com/microsoftgraph/microsoft-graph-docs/issues/13117.
	readChats    = []string{"Chat.Read.All"}
	readChannels = []string{"ChannelMessage.Read.All"}
	listen       = []string{"Chat.Read.All", "ChannelMessage.Read.All"}
	// The page of shares lists ReadWrite alone for applications, that of versions these.
	readFiles = []string{"Files.Read.All", "Sites.Read.All", "Files.ReadWrite.All", "Sites.ReadWrite.All"}
)

var endpoints = []endpoint{
	{"/users/{}/chats/getAllMessages", readChats, (*Tenant).chatMessages},
	{"/users/{}/chats/getAllRetainedMessages", readChats, (*Tenant).retainedChatMessages},
	{"/teams/{}/channels/getAllMessages", readChannels, (*Tenant).channelMessages},
	{"/teams/{}/channels/getAllRetainedMessages", readChannels, (*Tenant).retainedChannelMessages},
	{"/communications/callRecords", []string{"CallRecords.Read.All"}, (*Tenant).serveCallRecords},
	{"/communications/callRecords/{}/sessions", []string{"CallRecords.Read.All"}, (*Tenant).serveSessions},
	{"/teamwork/deletedTeams/{}/channels/getAllMessages", readChannels, (*Tenant).deletedTeamMessages},
	{"/directory/deletedItems/microsoft.graph.user", readUsers, (*Tenant).serveDeletedUsers},
	{"/directory/deletedItems/microsoft.graph.group", readGroups, (*Tenant).serveDeletedGroups},
	{"/chats/{}/messages/{}/hostedContents/{}/$value", readChats, (*Tenant).serveHosted},
	{"/teams/{}/channels/{}/messages/{}/hostedContents/{}/$value", readChannels, (*Tenant).serveHosted},
	{"/teams/{}/channels/{}/messages/{}/replies/{}/hostedContents/{}/$value", readChannels, (*Tenant).serveHosted},
	{"/shares/{}/driveItem", readFiles, (*Tenant).serveShared},
	{"/drives/{}/items/{}/versions", readFiles, (*Tenant).serveVersions},
	{"/drives/{}/items/{}/content", readFiles, (*Tenant).serveContent},
	{"/drives/{}/items/{}/versions/{}/content", readFiles, (*Tenant).serveContent},
	{"/chats/{}", []string{"Chat.ReadBasic.All", "Chat.Read.All", "Chat.ReadWrite.All"}, (*Tenant).serveChat},
	{"/chats/{}/members", []string{"ChatMember.Read.All", "Chat.ReadBasic.All", "Chat.Read.All", "Chat.ReadWrite.All"}, (*Tenant).serveChatMembers},
	{"/teams/{}", readTeams, (*Tenant).serveTeam},
	{"/teams/{}/allChannels", []string{"Channel.ReadBasic.All", "ChannelSettings.Read.All", "Group.Read.All", "Directory.Read.All"}, (*Tenant).serveChannels},
	{"/teams/{}/channels/{}/allMembers", []string{"ChannelMember.Read.All", "ChannelMember.ReadWrite.All"}, (*Tenant).serveChannelMembers},
	{"/groups", readGroups, (*Tenant).serveGroups},
	{"/groups/delta", readGroups, (*Tenant).serveGroupsDelta},
	{"/groups/{}", readGroups, (*Tenant).serveGroup},
	{"/groups/{}/owners", readGroups, (*Tenant).serveOwners},
	{"/groups/{}/members", readGroups, (*Tenant).serveMembers},
	{"/groups/{}/members/microsoft.graph.user", readGroups, (*Tenant).serveMembers},
	{"/groups/{}/transitiveMembers", readGroups, (*Tenant).serveMembers},
	{"/groups/{}/transitiveMembers/microsoft.graph.user", readGroups, (*Tenant).serveMembers},
	{"/users", readUsers, (*Tenant).serveUsers},
	{"/users/{}", readUsers, (*Tenant).serveUser},
	{"/subscriptions", listen, (*Tenant).serveSubscriptions},
	{"/subscriptions/{}", listen, (*Tenant).serveSubscription},
	{"/organization", []string{"Organization.Read.All", "Directory.Read.All", "Organization.ReadWrite.All"}, (*Tenant).serveOrganization},
}

// match finds the endpoint of a path below /v1.0. Fixed words are compared without regard to case, and win over keys.
func match(path string) (endpoint, []string, bool) {
	path = strings.ReplaceAll(path, "()", "")
	path = strings.NewReplacer("('", "/", "')", "").Replace(path)
	path = strings.TrimSuffix(path, "/")
	words := strings.Split(path, "/")
	for _, e := range endpoints {
		pattern := strings.Split(e.pattern, "/")
		if len(pattern) != len(words) {
			continue
		}
		var params []string
		ok := true
		for i, p := range pattern {
			if p == "{}" && words[i] != "" {
				params = append(params, words[i])
			} else if !strings.EqualFold(strings.TrimPrefix(words[i], "microsoft.graph."), strings.TrimPrefix(p, "microsoft.graph.")) {
				ok = false
				break
			}
		}
		if ok {
			return e, params, true
		}
	}
	return endpoint{}, nil, false
}

// Handler serves Graph v1.0 under /v1.0.
func (t *Tenant) Handler() http.Handler { return http.HandlerFunc(t.serve) }

func (t *Tenant) serve(w http.ResponseWriter, r *http.Request) {
	serial := t.counts.enter()
	defer t.counts.leave()
	sum := sha256.Sum256(fmt.Appendf(nil, "%d/%d", t.cfg.Seed, serial))
	x := hex.EncodeToString(sum[:16])
	q := &request{w: w, r: r, id: x[:8] + "-" + x[8:12] + "-4" + x[13:16] + "-8" + x[17:20] + "-" + x[20:]}
	client := cmp.Or(r.Header.Get("client-request-id"), q.id)
	h := w.Header()
	h.Set("request-id", q.id)
	h.Set("client-request-id", client)
	h.Set("x-ms-ags-diagnostic", `{"ServerInfo":{"DataCenter":"West Europe","Slice":"E","Ring":"5","ScaleUnit":"000","RoleInstance":"AM1PEPF00000000"}}`)
	h.Set("Cache-Control", "private")
	if t.calls.serveKeys(q) || t.notices.serveKeys(q) {
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1.0")
	if ok && strings.HasPrefix(path, "/communications/calls/") {
		t.calls.serve(q, path)
		return
	}
	e, params, found := match(path)
	if !ok || !found {
		t.counts.add("unknown")
		q.fail(t, http.StatusNotFound, "BadRequest", fmt.Sprintf("Resource not found for the segment '%s'.", r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]))
		return
	}
	q.params, q.named = params, strings.ReplaceAll(e.pattern, "{}", "{id}")
	t.counts.add(q.named)
	if r.Method != http.MethodGet && !strings.HasPrefix(e.pattern, "/subscriptions") {
		q.fail(t, http.StatusMethodNotAllowed, "Request_BadRequest", "Specified HTTP method is not allowed for the request target.")
		return
	}
	if t.rate.over(t.cfg.RatePerSecond, t.now()) {
		t.counts.mu.Lock()
		t.counts.limited++
		t.counts.mu.Unlock()
		q.throttle(t)
		return
	}
	if t.requestFault(q) || !t.authorize(q, e) {
		return
	}
	var err error
	if q.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		q.fail(t, http.StatusBadRequest, "BadRequest", "The query string could not be parsed.")
		return
	}
	e.serve(t, q)
}

// fail answers in the shape of https://learn.microsoft.com/en-us/graph/errors.
func (q *request) fail(t *Tenant, status int, code, message string) {
	q.json(status, map[string]any{"error": map[string]any{
		"code":    code,
		"message": message,
		"innerError": map[string]string{
			"date":              t.now().Format("2006-01-02T15:04:05"),
			"request-id":        q.id,
			"client-request-id": q.w.Header().Get("client-request-id"),
		},
	}})
}

func (q *request) throttle(t *Tenant) {
	q.w.Header().Set("Retry-After", "1")
	q.fail(t, http.StatusTooManyRequests, "TooManyRequests", "Too Many Requests")
}

func (q *request) unauthorized(t *Tenant, message string) {
	q.w.Header().Set("WWW-Authenticate", `Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000"`)
	q.fail(t, http.StatusUnauthorized, "InvalidAuthenticationToken", message)
}

const odataJSON = "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8"

func (q *request) json(status int, v any) {
	q.w.Header().Set("Content-Type", odataJSON)
	q.w.WriteHeader(status)
	enc := json.NewEncoder(q.w)
	enc.SetEscapeHTML(false)
	// A failed write means that the client has gone.
	_ = enc.Encode(v)
}

// requestFault answers the request if a fault of any request is due.
func (t *Tenant) requestFault(q *request) bool {
	if t.faults.due(Slow) {
		t.faults.mu.Lock()
		d := t.faults.slow
		t.faults.mu.Unlock()
		if wait(q.r.Context(), d) != nil {
			return true
		}
	}
	switch t.faults.firstDue(requestFaults) {
	case Throttled:
		q.throttle(t)
	case Unavailable:
		q.fail(t, http.StatusServiceUnavailable, "ServiceUnavailable", "The service is temporarily unavailable.")
	case GatewayTimeout:
		q.fail(t, http.StatusGatewayTimeout, "UnknownError", "")
	case ExpiredToken:
		q.unauthorized(t, "Lifetime validation failed, the token is expired.")
	default:
		return false
	}
	return true
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (t *Tenant) authorize(q *request, e endpoint) bool {
	bearer, ok := strings.CutPrefix(q.r.Header.Get("Authorization"), "Bearer ")
	if !ok || bearer == "" {
		q.unauthorized(t, "Access token is empty.")
		return false
	}
	if t.cfg.VerifyToken == nil {
		return true
	}
	claims, err := t.cfg.VerifyToken(bearer)
	if err != nil {
		q.unauthorized(t, "Access token validation failure. "+err.Error())
		return false
	}
	q.claims, q.roles = claims, map[string]bool{}
	var listed []string
	switch roles := claims["roles"].(type) {
	case []string:
		listed = roles
	case []any:
		for _, r := range roles {
			if s, ok := r.(string); ok {
				listed = append(listed, s)
			}
		}
	}
	for _, r := range listed {
		q.roles[r] = true
	}
	if len(e.roles) > 0 && !q.has(e.roles...) {
		q.fail(t, http.StatusForbidden, "Forbidden", fmt.Sprintf("Missing role permissions on the request. API required one of '%s'. Roles on the request '%s'",
			strings.Join(e.roles, ", "), strings.Join(listed, ", ")))
		return false
	}
	return true
}

// link is the absolute address of a further page.
func (t *Tenant) link(q *request, path string, query string) string {
	return t.base(q) + "/v1.0" + path + "?" + query
}

func (t *Tenant) base(q *request) string {
	if t.cfg.BaseURL != "" {
		return t.cfg.BaseURL
	}
	scheme := "http"
	if q.r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + q.r.Host
}

// top reads $top; ok is false if it has been answered with 400.
func (q *request) top(t *Tenant, normal, most int) (n int, ok bool) {
	s := q.query.Get("$top")
	if s == "" {
		return normal, true
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		q.fail(t, http.StatusBadRequest, "BadRequest", fmt.Sprintf("Invalid value '%s' for $top query option found. The $top query option requires a positive integer value.", s))
		return 0, false
	}
	if most > 0 && n > most {
		q.fail(t, http.StatusBadRequest, "Request_UnsupportedQuery", fmt.Sprintf("Invalid page size specified: '%d'. Must be between 1 and %d inclusive.", n, most))
		return 0, false
	}
	return n, true
}
