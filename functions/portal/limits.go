package portal

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"steno/shared/teams"
)

// Limits of one person.
const (
	requestsPerSecond = 20
	requestsBurst     = 60
	opensPerMinute    = 120
	// limitsKept bounds how many people's limits are remembered. Only people with a
	// valid token of the tenant are.
	limitsKept = 10_000
)

// Limits of one answer.
const (
	// maxListed is the most conversations a page of the list holds.
	maxListed = 100
	// maxRange is the longest stretch of time one listing covers.
	maxRange = 400 * 24 * time.Hour
	// maxShown is how many bytes of one conversation's evidence are read for one answer.
	maxShown = 32 << 20
	// maxPeopleMerged is how many people's lists are merged into one.
	maxPeopleMerged = 200
)

type limits struct {
	mu     sync.Mutex
	people map[teams.PersonID]*personLimits
}

type personLimits struct {
	requests, opens *rate.Limiter
	media           chan struct{} // a place for each answer with media that is under way
	waiting         atomic.Int32  // how many wait for one
}

func newLimits() *limits { return &limits{people: map[teams.PersonID]*personLimits{}} }

func (l *limits) allow(p teams.PersonID, content bool, now time.Time) bool {
	l.mu.Lock()
	own := l.people[p]
	if own == nil {
		if len(l.people) >= limitsKept {
			clear(l.people)
		}
		own = &personLimits{
			requests: rate.NewLimiter(requestsPerSecond, requestsBurst),
			opens:    rate.NewLimiter(rate.Limit(opensPerMinute)/60, opensPerMinute),
			media:    make(chan struct{}, maxConcurrent),
		}
		l.people[p] = own
	}
	l.mu.Unlock()
	return own.requests.AllowN(now, 1) && (!content || own.opens.AllowN(now, 1))
}

// begin waits for a turn to answer with media, and returns what ends it; nil if there
// are too many who wait, or no turn came in time. Whoever seeks asks for much and lets
// go of it at once: to refuse her would stop the player for longer than a wait does.
func (l *limits) begin(ctx context.Context, p teams.PersonID) (end func()) {
	l.mu.Lock()
	own := l.people[p]
	l.mu.Unlock()
	if own == nil {
		return nil
	}
	done := func() { <-own.media }
	select {
	case own.media <- struct{}{}:
		return done
	default:
	}
	defer own.waiting.Add(-1)
	if own.waiting.Add(1) > maxWaiting {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, turnWithin)
	defer cancel()
	select {
	case own.media <- struct{}{}:
		return done
	case <-ctx.Done():
		return nil
	}
}
