package subscriptions_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"steno/functions/internal/keyring"
	"steno/functions/subscriptions"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/notification"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const (
	tenant = teams.TenantID("11111111-1111-4111-8111-111111111111")
	hook   = "https://steno.example/steno/notifications"
	alice  = teams.PersonID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa")
	bob    = teams.PersonID("bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb")
	team   = teams.PersonID("dddddddd-dddd-4ddd-8ddd-dddddddddddd")
)

var errDown = errors.New("graph is down")

// standing is a subscription of Graph's.
type standing struct {
	notification.Request
	renewed []time.Time
}

// graph keeps subscriptions as Graph does.
type graph struct {
	t    *testing.T
	mu   sync.Mutex
	next int
	subs map[string]*standing
	fail func(call string) error // nil: nothing fails
	lost bool                    // the answer to the next Subscribe is lost
}

func (g *graph) call(name string) error {
	if g.fail != nil {
		return g.fail(name)
	}
	return nil
}

func (g *graph) live(id string) *standing {
	s := g.subs[id]
	if s == nil || !s.Expires.After(time.Now()) {
		return nil
	}
	return s
}

func (g *graph) Subscribe(_ context.Context, r notification.Request) (string, time.Time, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.call("subscribe"); err != nil {
		return "", time.Time{}, err
	}
	if life := time.Until(r.Expires); life > notification.MaxLifetime || life < time.Hour || r.URL != hook || r.LifecycleURL != hook+"/lifecycle" || len(r.State) < 43 || len(r.Certificate.DER) == 0 {
		g.t.Errorf("asked for %s, %s, %s", life, r.URL, r.LifecycleURL)
	}
	for id, s := range g.subs {
		if g.live(id) != nil && s.Resource.Path() == r.Resource.Path() {
			return "", time.Time{}, notification.ErrTaken
		}
	}
	g.next++
	id := fmt.Sprintf("sub-%d", g.next)
	g.subs[id] = &standing{Request: r, renewed: []time.Time{time.Now()}}
	if g.lost {
		g.lost = false
		return "", time.Time{}, errDown
	}
	return id, r.Expires, nil
}

func (g *graph) Renew(_ context.Context, id string, until time.Time, c notification.Certificate) (time.Time, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.call("renew"); err != nil {
		return time.Time{}, err
	}
	s := g.live(id)
	if s == nil {
		return time.Time{}, notification.ErrGone
	}
	if last := s.renewed[len(s.renewed)-1]; time.Since(last) < notification.RenewPause {
		g.t.Errorf("%s is renewed %s after the last time", id, time.Since(last))
	}
	if time.Until(until) > notification.MaxLifetime {
		g.t.Errorf("%s is renewed for %s", id, time.Until(until))
	}
	s.Expires, s.Certificate, s.renewed = until, c, append(s.renewed, time.Now())
	return until, nil
}

func (g *graph) Unsubscribe(_ context.Context, id string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.subs, id)
	return g.call("unsubscribe")
}

func (g *graph) Subscriptions(context.Context) (out []notification.Standing, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, s := range g.subs {
		if g.live(id) != nil {
			out = append(out, notification.Standing{ID: id, Path: strings.TrimPrefix(s.Resource.Path(), "/"), URL: s.URL})
		}
	}
	return out, g.call("list")
}

type rig struct {
	t        *testing.T
	graph    *graph
	roster   *storetest.Roster
	register *storetest.Subscriptions
	blobs    *storetest.Blobs
	keys     *storetest.Keys
	trail    storetest.Trail
	ring     *keyring.Keyring
	config   subscriptions.Config
	log      strings.Builder
}

var vault = sync.OnceValue(storetest.NewVault)

func newRig(t *testing.T, people ...teams.PersonID) *rig {
	t.Helper()
	r := &rig{
		t: t, graph: &graph{t: t, subs: map[string]*standing{}}, roster: &storetest.Roster{}, register: &storetest.Subscriptions{}, blobs: &storetest.Blobs{}, keys: &storetest.Keys{},
		config: subscriptions.Config{URL: hook},
	}
	store, err := evidence.New(evidence.Config{Blobs: r.blobs, Keys: r.keys, Vault: vault(), VaultHosts: []string{storetest.VaultHost}})
	r.ok(err)
	r.ring = keyring.New(tenant, r.register, store, evidence.Keeper{Objects: r.blobs, Keys: r.keys}, custody.Log{Trail: &r.trail})
	for _, p := range people {
		r.record(policy.Period{Person: p, Role: policy.RecordedUser, Desk: "d"})
	}
	return r
}

func (r *rig) record(p policy.Period) {
	r.t.Helper()
	p.From = time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	r.ok(r.roster.Apply(r.t.Context(), policy.Change{Opened: []policy.Period{p}}))
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// run runs the function as a process that was just started.
func (r *rig) run() error {
	return subscriptions.New(r.config, r.graph, r.roster, r.register, r.ring, slog.New(slog.NewTextHandler(&r.log, nil))).Run(r.t.Context())
}

// wantHeard demands that Graph and the register agree on what is listened to.
func (r *rig) wantHeard(paths ...string) {
	r.t.Helper()
	var heard, known []string
	for id, s := range r.graph.subs {
		if r.graph.live(id) != nil {
			heard = append(heard, s.Resource.Path()+" "+id)
		}
	}
	list, err := r.register.Subscriptions(r.t.Context())
	r.ok(err)
	for _, n := range list {
		known = append(known, n.Resource.Path()+" "+n.ID)
		if s := r.graph.subs[n.ID]; s == nil || !n.KnowsState(s.State) || n.Certificate != s.Certificate.ID || !n.Expires.Equal(s.Expires) {
			r.t.Errorf("the register says of %s what Graph does not", n.ID)
		}
	}
	slices.Sort(heard)
	slices.Sort(known)
	if !slices.Equal(heard, known) {
		r.t.Errorf("Graph has %v, the register %v", heard, known)
	}
	var got []string
	for _, h := range heard {
		path, _, _ := strings.Cut(h, " ")
		got = append(got, path)
	}
	slices.Sort(paths)
	if !slices.Equal(got, paths) {
		r.t.Errorf("listened to is %v, want %v", got, paths)
	}
}

func of(p teams.PersonID) string { return "/users/" + string(p) + "/chats/getAllMessages" }

// inBubble runs a claim with a clock of its own.
func inBubble(t *testing.T, f func(t *testing.T)) {
	vault() // made outside: it belongs to every bubble
	synctest.Test(t, f)
}

func TestEachRecordedUserHasOneSubscriptionForAsLongAsRecorded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, alice, bob)
		r.record(policy.Period{Person: bob, Role: policy.RecordedUser, Desk: "another"})
		r.record(policy.Period{Person: team, Role: policy.RecordedTeam, Desk: "d"}) // whose channels only the tenant-wide one brings
		for range 3 {
			r.ok(r.run())
			r.wantHeard(of(alice), of(bob))
		}
		if r.graph.next != 2 {
			t.Errorf("%d subscriptions were made for two people", r.graph.next)
		}
		periods, err := r.roster.PeriodsOf(t.Context(), alice)
		r.ok(err)
		periods[0].To = time.Now()
		r.ok(r.roster.Apply(t.Context(), policy.Change{Closed: periods}))
		time.Sleep(time.Minute)
		r.ok(r.run())
		r.wantHeard(of(bob))
	})
}

// TestSubscriptionsOutliveMonths: each is renewed in good time, never twice within ten
// minutes, and a week without any run costs it nothing but that week.
func TestSubscriptionsOutliveMonths(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, alice, bob)
		for range 30 * 24 * 3 { // a month, every twenty minutes
			r.ok(r.run())
			time.Sleep(20 * time.Minute)
		}
		r.wantHeard(of(alice), of(bob))
		if r.graph.next != 2 {
			t.Errorf("%d subscriptions were made: some have expired", r.graph.next)
		}
		for id, s := range r.graph.subs {
			if n := len(s.renewed); n > 30 {
				t.Errorf("%s was renewed %d times in a month", id, n)
			}
		}
		time.Sleep(7 * 24 * time.Hour)
		r.ok(r.run())
		r.wantHeard(of(alice), of(bob))
	})
}

// TestALifecycleEventIsAnsweredAtTheNextRun: by asking Graph, which may have dropped it.
func TestALifecycleEventIsAnsweredAtTheNextRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, alice, bob)
		r.ok(r.run())
		list, err := r.register.Subscriptions(t.Context())
		r.ok(err)
		for _, n := range list {
			r.ok(r.register.Ask(t.Context(), n.ID, time.Now().Add(time.Second)))
		}
		delete(r.graph.subs, list[0].ID) // one is gone indeed
		time.Sleep(5 * time.Minute)
		r.ok(r.run()) // too soon to renew
		time.Sleep(5 * time.Minute)
		r.ok(r.run())
		r.wantHeard(of(alice), of(bob))
		if r.graph.next != 3 || len(r.graph.subs[list[1].ID].renewed) != 2 {
			t.Errorf("%d were made, and the other renewed %d times", r.graph.next, len(r.graph.subs[list[1].ID].renewed)-1)
		}
		if !strings.Contains(r.log.String(), "Graph has dropped a subscription") {
			t.Error("nobody was told")
		}
	})
}

// TestARunThatDiedBetweenGraphAndRegisterIsMended: Graph has a subscription whose
// clientState nobody knows any more.
func TestARunThatDiedBetweenGraphAndRegisterIsMended(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, alice)
		r.graph.lost = true
		if err := r.run(); !errors.Is(err, errDown) {
			t.Fatalf("%v", err)
		}
		r.ok(r.run())
		r.wantHeard(of(alice))
	})
}

func TestASubscriptionOfAnotherDeploymentIsNotEnded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, alice, bob)
		r.graph.subs["theirs"] = &standing{Request: notification.Request{
			Resource: notification.Resource{Custodian: alice}, URL: "https://other.example/steno/notifications", Expires: time.Now().Add(time.Hour),
		}, renewed: []time.Time{time.Now()}}
		if err := r.run(); !errors.Is(err, notification.ErrTaken) {
			t.Errorf("%v, want it told", err)
		}
		if r.graph.live("theirs") == nil {
			t.Error("it was ended")
		}
		list, err := r.register.Subscriptions(t.Context())
		if err != nil || len(list) != 1 || list[0].Resource.Custodian != bob {
			t.Errorf("%+v, %v: one that fails must leave the others be", list, err)
		}
	})
}

func TestTheWholeTenantIsListenedToOnlyWhereThatIsWantedOrTooManyAreRecorded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, alice, bob)
		r.config.MaxUsers = 1
		r.ok(r.run())
		r.wantHeard("/chats/getAllMessages")
		r.record(policy.Period{Person: team, Role: policy.RecordedTeam, Desk: "d"})
		time.Sleep(time.Minute)
		r.ok(r.run())
		r.wantHeard("/chats/getAllMessages", "/teams/getAllMessages")
		r.config.MaxUsers = 2
		r.ok(r.run())
		r.wantHeard(of(alice), of(bob))
		r.config.Wide = true
		r.ok(r.run())
		r.wantHeard("/chats/getAllMessages", "/teams/getAllMessages")
	})
}

// TestKeyPairsAreRotatedAndTheOldKeyKeptUntilNothingNamesIt: and for a week longer, since what
// is under way still does.
func TestKeyPairsAreRotatedAndTheOldKeyKeptUntilNothingNamesIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, alice, bob)
		r.ok(r.run())
		first := slices.Collect(maps.Values(r.graph.subs))[0].Certificate.ID
		openable := func(id string) bool {
			store, err := evidence.New(evidence.Config{Blobs: r.blobs, Keys: r.keys, Vault: vault(), VaultHosts: []string{storetest.VaultHost}})
			r.ok(err)
			_, err = keyring.New(tenant, r.register, store, evidence.Keeper{}, custody.Log{Trail: &r.trail}).Open(t.Context(), id, "test")
			return err == nil
		}
		var rotated, left time.Time
		for range 110 * 24 * 2 {
			r.ok(r.run())
			named := false
			for _, s := range r.graph.subs {
				named = named || s.Certificate.ID == first
			}
			if certs, err := r.register.Certificates(t.Context()); err != nil {
				t.Fatal(err)
			} else if rotated.IsZero() && len(certs) == 2 {
				rotated = time.Now()
			}
			if left.IsZero() && !named {
				left = time.Now()
			}
			if open := (named || time.Since(left) < 6*24*time.Hour); open && time.Now().Minute() == 0 && time.Now().Hour() == 0 && !openable(first) {
				t.Fatal("the key is gone before its time")
			}
			time.Sleep(30 * time.Minute)
		}
		r.wantHeard(of(alice), of(bob))
		if rotated.IsZero() || left.Sub(rotated) > notification.MaxLifetime {
			t.Errorf("rotated at %s, the old one left at %s", rotated, left)
		}
		if openable(first) || len(r.blobs.Names()) != 1 {
			t.Errorf("the old key can still be opened; %d blobs", len(r.blobs.Names()))
		}
	})
}

// TestACertificateWhosePrivateKeyIsLostIsReplaced: nothing that is sent under it can be read.
func TestACertificateWhosePrivateKeyIsLostIsReplaced(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, alice)
		r.ok(r.run())
		certs, err := r.register.Certificates(t.Context())
		r.ok(err)
		r.ok(r.register.RemoveCertificate(t.Context(), certs[0].ID))
		time.Sleep(notification.RenewPause)
		r.ok(r.run())
		r.wantHeard(of(alice))
		for _, s := range r.graph.subs {
			if s.Certificate.ID == certs[0].ID {
				t.Error("Graph still encrypts under it")
			}
		}
	})
}

func TestWithoutAnAddressNothingIsDoneAndThatIsSaidOnce(t *testing.T) {
	r := newRig(t, alice)
	r.config.URL = ""
	s := subscriptions.New(r.config, r.graph, r.roster, r.register, r.ring, slog.New(slog.NewTextHandler(&r.log, nil)))
	for range 3 {
		r.ok(s.Run(t.Context()))
	}
	if r.graph.next != 0 || strings.Count(r.log.String(), "not configured") != 1 {
		t.Errorf("%d subscriptions, said: %s", r.graph.next, r.log.String())
	}
}
