package sim

import (
	"maps"
	"math/rand/v2"
	"sync"
	"time"
)

// Fault is one kind of thing that goes wrong.
type Fault string

// The faults of any request.
const (
	Throttled      Fault = "throttled"       // 429 with Retry-After: 1
	Unavailable    Fault = "unavailable"     // 503
	GatewayTimeout Fault = "gateway timeout" // 504, UnknownError
	ExpiredToken   Fault = "expired token"   // 401, InvalidAuthenticationToken
	Slow           Fault = "slow"            // the right answer, after Faults.SlowBy
)

// The faults of a page of messages. At most one of those up to OversizedPage happens to a page.
const (
	EmptyPage       Fault = "empty page"         // no messages, and a nextLink to what the page should have held
	ShortPage       Fault = "short page"         // half of what was asked for, and a nextLink
	NextLinkLoop    Fault = "nextLink loop"      // a nextLink whose page names itself as the next for ever
	ForeignNextLink Fault = "foreign nextLink"   // a nextLink to Faults.ForeignHost
	WrongType       Fault = "wrong content type" // 200 with an HTML page
	TruncatedBody   Fault = "truncated body"     // the connection ends in the middle
	OversizedPage   Fault = "oversized page"     // Faults.Oversize bytes of white space inside the page

	// MalformedTimestamp and UnknownMessage change one message of the page for good: its created and modified times
	// lose their T, or it becomes of a type, with members, that nobody knows. Only a version that was never served
	// before is changed, so the tenant's History stays true.
	MalformedTimestamp Fault = "malformed timestamp"
	UnknownMessage     Fault = "unknown message"

	// EditDuringPaging edits a message of a page that has a nextLink, as soon as the page has been made.
	EditDuringPaging Fault = "edit during paging"
)

// The faults of a change notification. None of them happens unless it is asked for.
const (
	NotificationLost      Fault = "notification lost"      // never sent, and nobody is told
	NotificationDoubled   Fault = "notification doubled"   // sent twice
	NotificationLate      Fault = "notification late"      // sent after Faults.SlowBy
	NotificationReordered Fault = "notification reordered" // sent before those that wait
)

// NotificationFaults lists every kind of them.
func NotificationFaults() []Fault {
	return []Fault{NotificationLost, NotificationDoubled, NotificationLate, NotificationReordered}
}

// The defaults of the sizes of faults.
const (
	DefaultSlow        = 200 * time.Millisecond
	DefaultOversize    = 33 << 20 // a little above the 32 MiB that a reader of pages should accept
	DefaultForeignHost = "https://graph.microsoft.com.evil.example"
)

var requestFaults = []Fault{Throttled, Unavailable, GatewayTimeout, ExpiredToken}

var pageFaults = []Fault{EmptyPage, ShortPage, NextLinkLoop, ForeignNextLink, WrongType, TruncatedBody, OversizedPage}

// AllFaults lists every kind.
func AllFaults() []Fault {
	return append(append(append([]Fault{Slow}, requestFaults...), pageFaults...), MalformedTimestamp, UnknownMessage, EditDuringPaging)
}

// Faults says what goes wrong and how often. Draws come from the tenant's seed, in the order of the requests. It is
// safe for concurrent use.
type Faults struct {
	mu       sync.Mutex
	rand     *rand.Rand
	next     map[Fault]int
	chance   map[Fault]float64
	served   map[Fault]int
	slow     time.Duration
	oversize int
	foreign  string
}

func newFaults(r *rand.Rand) *Faults {
	return &Faults{
		rand: r, next: map[Fault]int{}, chance: map[Fault]float64{}, served: map[Fault]int{},
		slow: DefaultSlow, oversize: DefaultOversize, foreign: DefaultForeignHost,
	}
}

// Next makes the fault happen to the next n requests that it can happen to, on top of its chance.
func (f *Faults) Next(kind Fault, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next[kind] += n
}

// Chance sets the probability, 0 to 1, with which the fault happens to a request that it can happen to.
func (f *Faults) Chance(kind Fault, p float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.chance[kind] = p
}

// Clear stops every fault. The counts stay.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.next)
	clear(f.chance)
}

// SlowBy sets the delay of Slow.
func (f *Faults) SlowBy(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slow = d
}

// Oversize sets how many bytes OversizedPage adds.
func (f *Faults) Oversize(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.oversize = n
}

// ForeignHost sets the origin, without a trailing slash, that ForeignNextLink names.
func (f *Faults) ForeignHost(origin string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.foreign = origin
}

// Served returns how often each fault has happened.
func (f *Faults) Served() map[Fault]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.served)
}

// due decides whether a fault happens now, and counts it if so.
func (f *Faults) due(kind Fault) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch p := f.chance[kind]; {
	case f.next[kind] > 0:
		f.next[kind]--
	case p > 0 && f.rand.Float64() < p:
	default:
		return false
	}
	f.served[kind]++
	return true
}

// firstDue returns the first of kinds that happens now, or nothing.
func (f *Faults) firstDue(kinds []Fault) Fault {
	for _, k := range kinds {
		if f.due(k) {
			return k
		}
	}
	return ""
}
