package portal

import (
	"sync"
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
	underWay        int // answers with media
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
		}
		l.people[p] = own
	}
	l.mu.Unlock()
	return own.requests.AllowN(now, 1) && (!content || own.opens.AllowN(now, 1))
}

// begin counts an answer with media under way, and refuses one too many.
func (l *limits) begin(p teams.PersonID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := l.people[p]
	if own == nil || own.underWay >= maxConcurrent {
		return false
	}
	own.underWay++
	return true
}

func (l *limits) end(p teams.PersonID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if own := l.people[p]; own != nil && own.underWay > 0 {
		own.underWay--
	}
}
