// Package subscriptions keeps Graph's change notifications coming: one subscription with
// resource data for each recorded user, or, where that is configured or there are too many
// of them, one for all chats and one for all channels of the tenant.
// https://learn.microsoft.com/graph/teams-changenotifications-chatmessage
//
// A subscription lives three days at most, and is renewed when about half of that is over:
// an outage of a day and a half costs none. What Graph has dropped is made again. A tenant-wide one
// brings everybody's messages, which function notified discards unread by anybody; so it is
// never the default.
package subscriptions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"steno/functions/internal/keyring"
	"steno/shared/notification"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Defaults and limits.
const (
	// DefaultMaxUsers is up to how many recorded users have subscriptions of their own. Each
	// message is then notified once for each of its recorded participants; Graph allows an
	// organization 10,000 subscriptions.
	DefaultMaxUsers = 1000
	// DefaultKeyAge is how old a key pair gets before another takes its place.
	DefaultKeyAge = 90 * 24 * time.Hour
	// keyGrace is how long a key is kept after the last subscription has left it: Graph sends
	// a notification again for four hours, and what is queued may wait.
	keyGrace = 7 * 24 * time.Hour
	// parallel is how many requests go to Graph at the same time.
	parallel = 4
)

// graph manages subscriptions; shared/msgraph/directory does it with Microsoft's SDK, whose
// models know every field of them and whose bytes nobody needs to keep.
type graph interface {
	Subscribe(ctx context.Context, r notification.Request) (id string, expires time.Time, err error)
	Renew(ctx context.Context, id string, until time.Time, c notification.Certificate) (expires time.Time, err error)
	Unsubscribe(ctx context.Context, id string) error
	Subscriptions(ctx context.Context) ([]notification.Standing, error)
}

// Config says where Graph sends notifications, and for what.
type Config struct {
	// URL is the public address of function notifications; empty turns the lane off.
	URL string
	// Wide subscribes to the whole tenant however few are recorded.
	Wide bool
	// MaxUsers is up to how many recorded users have subscriptions of their own; 0 means DefaultMaxUsers.
	MaxUsers int
	// KeyAge is how old a key pair gets; 0 means DefaultKeyAge.
	KeyAge time.Duration
}

// Subscriptions is the function. Runs must not overlap; the timer sees to it.
type Subscriptions struct {
	config   Config
	graph    graph
	roster   policy.Roster
	register notification.Register
	keys     *keyring.Keyring
	log      *slog.Logger
	once     sync.Once
}

// New returns the function.
func New(c Config, g graph, r policy.Roster, reg notification.Register, keys *keyring.Keyring, log *slog.Logger) *Subscriptions {
	if c.MaxUsers == 0 {
		c.MaxUsers = DefaultMaxUsers
	}
	if c.KeyAge == 0 {
		c.KeyAge = DefaultKeyAge
	}
	return &Subscriptions{config: c, graph: g, roster: r, register: reg, keys: keys, log: log}
}

// Run makes what is missing, renews what is due and ends what is not wanted any more. It may
// be repeated at any time; a run that finds nothing to do costs four table queries.
func (s *Subscriptions) Run(ctx context.Context) error {
	if s.config.URL == "" {
		s.once.Do(func() {
			s.log.InfoContext(ctx, "change notifications are not configured: messages come by the export alone")
		})
		return nil
	}
	wanted, err := s.wanted(ctx)
	if err != nil {
		return err
	}
	have, err := s.register.Subscriptions(ctx)
	if err != nil {
		return fmt.Errorf("read subscriptions: %w", err)
	}
	certs, err := s.register.Certificates(ctx)
	if err != nil {
		return fmt.Errorf("read certificates: %w", err)
	}
	var cert notification.Certificate
	if len(wanted) > 0 {
		if cert, err = s.current(ctx, certs); err != nil {
			return err
		}
	}
	for i, n := range have {
		known := n.Certificate == cert.ID || slices.ContainsFunc(certs, func(c notification.Certificate) bool { return c.ID == n.Certificate })
		if !known { // its private key is lost, and nothing that comes can be read
			have[i].Asked = time.Now()
		}
	}
	return errors.Join(s.settle(ctx, wanted, have, cert), s.retire(ctx, certs, cert))
}

// wanted lists what is to be listened to now.
func (s *Subscriptions) wanted(ctx context.Context) ([]notification.Resource, error) {
	periods, err := policy.Custodians(ctx, s.roster)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	var people []notification.Resource
	recordedTeams := false
	for _, p := range periods {
		switch {
		case !p.Covers(now):
		case p.Role == policy.RecordedTeam:
			recordedTeams = true
		default:
			people = append(people, notification.Resource{Source: teams.Chats, Custodian: p.Person})
		}
	}
	slices.SortFunc(people, func(a, b notification.Resource) int { return strings.Compare(string(a.Custodian), string(b.Custodian)) })
	people = slices.Compact(people) // somebody may be on two desks
	if !s.config.Wide && len(people) <= s.config.MaxUsers {
		return people, nil
	}
	var wide []notification.Resource
	if len(people) > 0 {
		wide = append(wide, notification.Resource{Source: teams.Chats})
	}
	if recordedTeams {
		wide = append(wide, notification.Resource{Source: teams.Channels})
	}
	return wide, nil
}

// current is the certificate that Graph encrypts under from now on, a new one if the last
// grew too old.
func (s *Subscriptions) current(ctx context.Context, certs []notification.Certificate) (newest notification.Certificate, err error) {
	for _, c := range certs {
		if c.Made.After(newest.Made) {
			newest = c
		}
	}
	if newest.ID != "" && time.Since(newest.Made) < s.config.KeyAge {
		return newest, nil
	}
	if newest, err = s.keys.Make(ctx); err != nil {
		return newest, err
	}
	s.log.InfoContext(ctx, "new key pair for change notifications", slog.String("certificate", newest.ID))
	return newest, nil
}

// settle brings Graph's subscriptions to what is wanted. One that fails leaves the others be.
func (s *Subscriptions) settle(ctx context.Context, wanted []notification.Resource, have []notification.Subscription, cert notification.Certificate) error {
	now := time.Now()
	standing := map[notification.Resource]notification.Subscription{}
	var group errgroup.Group
	group.SetLimit(parallel)
	var mu sync.Mutex
	var faults []error
	try := func(what func() error) {
		group.Go(func() error {
			if err := what(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				faults = append(faults, err)
			}
			return nil
		})
	}
	for _, n := range have {
		_, twice := standing[n.Resource]
		switch {
		case twice || !slices.Contains(wanted, n.Resource):
			try(func() error { return s.end(ctx, n) })
		case n.Expires.Before(now):
			try(func() error { return s.replace(ctx, n, cert) })
			standing[n.Resource] = n
		default:
			standing[n.Resource] = n
			if n.Due(now) {
				try(func() error { return s.renew(ctx, n, cert) })
			}
		}
	}
	for _, r := range wanted {
		if _, there := standing[r]; !there {
			try(func() error { return s.create(ctx, r, cert) })
		}
	}
	_ = group.Wait() // what fails stands in faults
	return errors.Join(faults...)
}

// renew moves a subscription's expiry on; one that Graph has dropped is made again.
func (s *Subscriptions) renew(ctx context.Context, n notification.Subscription, cert notification.Certificate) error {
	began := time.Now().UTC()
	expires, err := s.graph.Renew(ctx, n.ID, began.Add(notification.Lifetime), cert)
	if errors.Is(err, notification.ErrGone) {
		s.log.WarnContext(ctx, "Graph has dropped a subscription; the export will show what was missed", slog.String("subscription", n.ID), slog.Any("person", n.Resource.Custodian))
		return s.replace(ctx, n, cert)
	}
	if err != nil {
		return err
	}
	n.Expires, n.Renewed, n.Certificate = expires, began, cert.ID
	return s.save(ctx, n)
}

// replace makes a subscription anew and forgets the old one.
func (s *Subscriptions) replace(ctx context.Context, n notification.Subscription, cert notification.Certificate) error {
	if err := s.create(ctx, n.Resource, cert); err != nil {
		return err
	}
	if err := s.register.Remove(ctx, n.ID); err != nil {
		return fmt.Errorf("forget subscription %s: %w", n.ID, err)
	}
	return nil
}

// create makes a subscription. If there is one for the resource already that the register
// does not know, a run died before it could say so; its clientState is lost, so it is ended
// and another made.
func (s *Subscriptions) create(ctx context.Context, r notification.Resource, cert notification.Certificate) error {
	for try := 0; ; try++ {
		state, digest := notification.NewState()
		began := time.Now().UTC()
		id, expires, err := s.graph.Subscribe(ctx, notification.Request{
			Resource: r, URL: s.config.URL, LifecycleURL: s.config.URL + "/lifecycle", State: state, Certificate: cert, Expires: began.Add(notification.Lifetime),
		})
		if errors.Is(err, notification.ErrTaken) && try == 0 {
			if err := s.clearAway(ctx, r); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		return s.save(ctx, notification.Subscription{ID: id, Resource: r, State: digest, Certificate: cert.ID, Expires: expires, Renewed: began})
	}
}

// clearAway ends the subscriptions for a resource that send to us. Those that send elsewhere
// are not ours to end, though they are of the same application.
func (s *Subscriptions) clearAway(ctx context.Context, r notification.Resource) error {
	all, err := s.graph.Subscriptions(ctx)
	if err != nil {
		return err
	}
	ended := 0
	for _, n := range all {
		if !strings.EqualFold(strings.Trim(n.Path, "/"), strings.Trim(r.Path(), "/")) || n.URL != s.config.URL {
			continue
		}
		if err := s.graph.Unsubscribe(ctx, n.ID); err != nil {
			return err
		}
		ended++
	}
	if ended == 0 {
		return fmt.Errorf("%w: another deployment of this application listens to it; give this one an application of its own", notification.ErrTaken)
	}
	return nil
}

func (s *Subscriptions) save(ctx context.Context, n notification.Subscription) error {
	if err := s.register.Save(ctx, n); err != nil {
		return fmt.Errorf("save subscription %s: %w", n.ID, err)
	}
	return nil
}

// end ends a subscription that is not wanted any more.
func (s *Subscriptions) end(ctx context.Context, n notification.Subscription) error {
	if err := s.graph.Unsubscribe(ctx, n.ID); err != nil {
		return err
	}
	if err := s.register.Remove(ctx, n.ID); err != nil {
		return fmt.Errorf("forget subscription %s: %w", n.ID, err)
	}
	return nil
}

// retire notes since when a certificate is named by no subscription, and destroys the key of
// one that has not been for long enough. The current one stays.
func (s *Subscriptions) retire(ctx context.Context, certs []notification.Certificate, current notification.Certificate) error {
	live, err := s.register.Subscriptions(ctx)
	if err != nil {
		return fmt.Errorf("read subscriptions: %w", err)
	}
	now := time.Now().UTC()
	var faults []error
	for _, c := range certs {
		named := c.ID == current.ID || slices.ContainsFunc(live, func(n notification.Subscription) bool { return n.Certificate == c.ID })
		switch {
		case named && !c.Unused.IsZero():
			c.Unused = time.Time{}
			faults = append(faults, s.register.SaveCertificate(ctx, c))
		case named:
		case c.Unused.IsZero():
			c.Unused = now
			faults = append(faults, s.register.SaveCertificate(ctx, c))
		case now.Sub(c.Unused) >= keyGrace:
			faults = append(faults, s.keys.Destroy(ctx, c.ID, "subscriptions"))
		}
	}
	return errors.Join(faults...)
}
