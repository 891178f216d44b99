// Package sim is a Teams tenant behind Microsoft Graph's wire format: people, nested groups, chats, teams, their
// history and their ongoing life, seeded and deterministic, and the truth about all of it to check an archive against.
//
// It serves what an exporter of chats and a recorder of calls need of Graph v1.0 and answers everything else with 404.
// Where Microsoft's documentation is silent the stricter behavior was chosen; each such choice is named at the place
// where it is made. Not simulated: notifications of anything but messages, per-chat rate limits but that of hosted content, JSON batching,
// $expand other than a chat's members, and the staleness of advanced directory queries; of calls, everything that no
// recorder under a policy meets: outgoing and service-hosted calls, redirecting, muting, grouped and delta rosters.
//
// Change notifications of messages go to whoever subscribed, while Tenant.Notify runs.
//
// Calls are placed with Tenant.Calls. A recorder is invited at its webhook, answers here with the blob of a gateway
// (tests/sim/gateway), and hears the call's speech from that gateway; Call.Truth is what it should have recorded.
//
// A Tenant is safe for concurrent use. A version of a message never changes its bytes once it has been served.
package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// The defaults and lower bounds of Config.
const (
	DefaultPeople   = 30
	MinPeople       = 12
	DefaultMessages = 1000
	DefaultSpan     = 14 * 24 * time.Hour
)

// DefaultContentURL is the address under which messages name their hosted contents, that of the real Graph.
const DefaultContentURL = "https://graph.microsoft.com/v1.0"

// Config sizes a tenant. The zero value of every field is usable.
type Config struct {
	// Seed decides everything that is drawn. Two tenants of equal Seed, sizes, Span and Now have equal bytes.
	Seed uint64
	// Tenant is the tenant's id. Empty means one drawn from Seed.
	Tenant string
	// People is how many the directory holds, guests included; fewer than MinPeople means MinPeople, zero DefaultPeople.
	People int
	// Messages is how many messages, not versions, the history holds. Zero means DefaultMessages, less than zero none.
	Messages int
	// Span is how far the history reaches back. Zero means DefaultSpan.
	Span time.Duration
	// Now is the clock, rounded down to milliseconds. Nil means time.Now.
	Now func() time.Time
	// BaseURL is the absolute address of the handler without /v1.0 and without a trailing slash, for nextLinks. Empty
	// means that of the request.
	BaseURL string
	// FilesURL is the origin of Downloads, to which the content of files is redirected. Empty means that of the request.
	FilesURL string
	// ContentURL replaces DefaultContentURL in the bodies of messages.
	ContentURL string
	// VerifyToken checks a bearer token and returns its claims, of which `roles` is used. Nil accepts every token and
	// grants every role.
	VerifyToken func(bearer string) (claims map[string]any, err error)
	// RatePerSecond is the number of requests in any one second above which the answer is 429. Zero means no limit.
	RatePerSecond int
	// KeepDeletedBodies leaves the text in a deleted message. The documentation does not say which it is, so by
	// default the text is gone.
	KeepDeletedBodies bool
	// Retention makes getAllRetainedMessages return superseded and deleted versions, as a retention policy would.
	// Without it that export is empty.
	Retention bool
	// NotifyClient sends change notifications. Nil means http.DefaultClient.
	NotifyClient *http.Client
}

// Tenant is the simulated tenant.
type Tenant struct {
	cfg    Config
	start  time.Time
	faults *Faults
	counts counter
	rate   limiter
	hosted hosting

	mu       sync.Mutex
	dir      directory
	threads  []*thread
	byThread map[ThreadID]*thread
	teams    []*team
	mail     map[PersonID][]*message // what a person's mailbox holds, in its own order
	posts    map[string][]*message   // what the channels of a team hold, by team id
	docs     map[string]*file        // by address
	drawing  bool                    // the history is being drawn: lists are not sorted yet
	recent   []*message              // a ring of messages that live traffic may change
	live     *rand.Rand
	calls    *Calls
	notices  *notices
}

// The streams of random numbers are separate, so that a change in one part leaves the others as they were.
const (
	streamPeople = iota + 1
	streamThreads
	streamHistory
	streamLive
	streamFaults
	streamCalls
	streamNotices
)

func stream(seed uint64, n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n)) }

// New makes a tenant and its history.
func New(cfg Config) *Tenant {
	if cfg.People == 0 {
		cfg.People = DefaultPeople
	}
	cfg.People = max(cfg.People, MinPeople)
	if cfg.Messages == 0 {
		cfg.Messages = DefaultMessages
	}
	cfg.Messages = max(cfg.Messages, 0)
	cfg.Span = cmp.Or(cfg.Span, DefaultSpan)
	cfg.ContentURL = cmp.Or(cfg.ContentURL, DefaultContentURL)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	people := stream(cfg.Seed, streamPeople)
	if id := drawGUID(people); cfg.Tenant == "" {
		cfg.Tenant = id
	}
	t := &Tenant{
		cfg:      cfg,
		byThread: map[ThreadID]*thread{},
		mail:     map[PersonID][]*message{},
		posts:    map[string][]*message{},
		live:     stream(cfg.Seed, streamLive),
		faults:   newFaults(stream(cfg.Seed, streamFaults)),
	}
	t.calls = newCalls(t)
	t.notices = newNotices(t)
	t.start = t.now()
	t.dir = drawDirectory(people, cfg)
	t.drawThreads(stream(cfg.Seed, streamThreads))
	t.drawHistory(stream(cfg.Seed, streamHistory))
	return t
}

// ID is the tenant's id.
func (t *Tenant) ID() string { return t.cfg.Tenant }

// Faults are the switches for what goes wrong.
func (t *Tenant) Faults() *Faults { return t.faults }

func (t *Tenant) now() time.Time { return t.cfg.Now().UTC().Truncate(time.Millisecond) }

// stamp writes a time as Graph does in messages.
func stamp(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

func millis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func drawGUID(r *rand.Rand) string {
	a, b := r.Uint64(), r.Uint64()
	a = a&^0xf000 | 0x4000
	b = b&^(0x3<<62) | 0x2<<62
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", a>>32, a>>16&0xffff, a&0xffff, b>>48, b&0xffffffffffff)
}

func drawHex(r *rand.Rand) string { return fmt.Sprintf("%016x%016x", r.Uint64(), r.Uint64()) }

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// chance is true n times out of outOf.
func chance(r *rand.Rand, n, outOf int) bool { return r.IntN(outOf) < n }

// mix spreads an id over 64 bits; the order of a mailbox comes from it, because Graph's order is not that of any time.
func mix(s string, n int64) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	h ^= uint64(n)
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

func byOrder(a, b *message) int {
	return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.id, b.id), cmp.Compare(a.thread.id, b.thread.id))
}

// insert keeps list in its order.
func insert(list []*message, m *message) []*message {
	i, _ := slices.BinarySearchFunc(list, m, byOrder)
	return slices.Insert(list, i, m)
}

func text(ms int64) string { return strconv.FormatInt(ms, 10) }
