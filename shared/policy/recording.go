package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"steno/shared/teams"
)

// When says in which calls of a recorded user recording takes place.
type When string

// The values of When, from the most to the least complete.
const (
	WhenAlways   When = "always"
	WhenExternal When = "external" // while somebody from outside the tenant takes part
	WhenNever    When = "never"
)

// Media says what of a call is recorded.
type Media string

// The values of Media, from the most to the least complete.
const (
	MediaAll   Media = "all"
	MediaAudio Media = "audio"
)

// RecordingRule is how the calls of a desk's recorded users are recorded. Its zero value
// stands for everything, always.
type RecordingRule struct {
	When  When  `json:"when,omitempty"`
	Media Media `json:"media,omitempty"`
}

var completeWhen = []When{WhenNever, WhenExternal, WhenAlways}
var completeMedia = []Media{MediaAudio, MediaAll}

func (r RecordingRule) full() RecordingRule {
	if r.When == "" {
		r.When = WhenAlways
	}
	if r.Media == "" {
		r.Media = MediaAll
	}
	return r
}

func (r RecordingRule) check() error {
	full := r.full()
	if !slices.Contains(completeWhen, full.When) {
		return fmt.Errorf("recording when %q: want always, external or never", r.When)
	}
	if !slices.Contains(completeMedia, full.Media) {
		return fmt.Errorf("recording media %q: want all or audio", r.Media)
	}
	return nil
}

// merge takes the more complete half of each: somebody on two desks is recorded for
// both of them.
func (r RecordingRule) merge(o RecordingRule) RecordingRule {
	r, o = r.full(), o.full()
	if slices.Index(completeWhen, o.When) > slices.Index(completeWhen, r.When) {
		r.When = o.When
	}
	if slices.Index(completeMedia, o.Media) > slices.Index(completeMedia, r.Media) {
		r.Media = o.Media
	}
	return r
}

// RuleFor returns the rule for a person who holds these periods, at a moment. A member
// of a NeverRecorded group is never recorded, whatever else she is. Somebody of whom
// the roster knows nothing is recorded in full: Teams invited the recorder because of a
// recording policy, and a missing line in the roster is no reason to keep less.
func RuleFor(groups []RoleGroup, periods []Period, at time.Time) RecordingRule {
	var rule RecordingRule
	known := false
	for _, p := range periods {
		if !p.Covers(at) {
			continue
		}
		switch p.Role {
		case NeverRecorded:
			return RecordingRule{When: WhenNever, Media: MediaAudio}
		case RecordedUser:
			for _, g := range groups {
				switch {
				case g.Role != RecordedUser || g.Desk != p.Desk:
				case !known:
					rule, known = g.Recording.full(), true
				default:
					rule = rule.merge(g.Recording)
				}
			}
		}
	}
	return rule.full()
}

// RecordingDecision is what a rule says of a call at one moment.
type RecordingDecision struct {
	Record    bool
	AudioOnly bool
	// Reason names the rule where it keeps something from being recorded: never,
	// no-external-party or audio-only.
	Reason string
}

// The reasons of decisions.
const (
	ReasonNever      = "never"
	ReasonNoExternal = "no-external-party"
	ReasonAudioOnly  = "audio-only"
)

// Decide applies the rule to who takes part. known tells whether parties is believed to
// be everybody; while it is not, an external party may be there, and is recorded.
func (r RecordingRule) Decide(home teams.TenantID, parties []teams.Party, known bool) RecordingDecision {
	r = r.full()
	d := RecordingDecision{Record: true, AudioOnly: r.Media == MediaAudio}
	if d.AudioOnly {
		d.Reason = ReasonAudioOnly
	}
	switch {
	case r.When == WhenNever:
		return RecordingDecision{AudioOnly: d.AudioOnly, Reason: ReasonNever}
	case r.When == WhenExternal && known && !slices.ContainsFunc(parties, func(p teams.Party) bool { return External(home, p) }):
		return RecordingDecision{AudioOnly: d.AudioOnly, Reason: ReasonNoExternal}
	}
	return d
}

// External reports whether a party is from outside the tenant. Bots are nobody's party.
// Whoever cannot be told to be a user of the tenant counts as external: guests,
// telephones, hidden and unknown identities, and rooms, in which anybody may sit.
func External(home teams.TenantID, p teams.Party) bool {
	switch p.Kind {
	case teams.PartyApplication, teams.PartyInstance:
		return false
	case teams.PartyUser:
		return p.Tenant != "" && p.Tenant != home
	}
	return true
}

// RuleBook answers which rule holds for a person without asking anybody: calls must be
// answered in seconds, and while the roster cannot be read. It is safe for use by many
// goroutines.
type RuleBook struct {
	groups []RoleGroup
	roster Roster
	now    func() time.Time

	mu      sync.RWMutex
	periods map[teams.PersonID][]Period
}

// NewRuleBook returns a rule book that knows nobody until Refresh; now is time.Now if nil.
func NewRuleBook(groups []RoleGroup, r Roster, now func() time.Time) *RuleBook {
	if now == nil {
		now = time.Now
	}
	return &RuleBook{groups: groups, roster: r, now: now}
}

// Refresh reads the roster. If that fails, what was known before stays.
func (b *RuleBook) Refresh(ctx context.Context) error {
	recorded, err := b.roster.Periods(ctx, RecordedUser)
	never, err2 := b.roster.Periods(ctx, NeverRecorded)
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("refresh recording rules: %w", err)
	}
	now, fresh := b.now(), map[teams.PersonID][]Period{}
	for _, p := range slices.Concat(recorded, never) {
		if p.Open() || p.To.After(now) {
			fresh[p.Person] = append(fresh[p.Person], p)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.periods = fresh
	return nil
}

// Rule returns the rule for a person as of now.
func (b *RuleBook) Rule(person teams.PersonID) RecordingRule {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return RuleFor(b.groups, b.periods[person], b.now())
}
