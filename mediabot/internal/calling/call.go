package calling

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"steno/shared/msgraph"
	"steno/shared/teams"
)

// Times of a call.
const (
	// KeepAliveEvery is how often Graph is told that the recorder is there. Graph ends a
	// call after 45 minutes and recommends 15.
	KeepAliveEvery = 15 * time.Minute
	// EstablishWithin is how long an answered call may take to be established before
	// Graph is asked what became of it.
	EstablishWithin = 20 * time.Second
	// rosterAfter is how long to wait for the first roster with somebody in it.
	rosterAfter = 5 * time.Second
	rosterTries = 6
	// askedAgain bounds how often posts without the secret make us ask Graph.
	askedAgain = 2 * time.Second
	seenPosts  = 256
)

// call is one leg as the webhook knows it. Everything but the head is touched by its own
// goroutine alone.
type call struct {
	id     teams.CallID
	key    string
	secret string
	invite teams.Invite

	queue    chan post
	behind   atomic.Bool // a post found the queue full: Graph must be asked
	doubted  atomic.Bool // a post came without the secret: Graph must be asked
	wake     chan struct{}
	finished bool // under the webhook's lock

	hook   *Webhook
	log    *slog.Logger
	update func(teams.CallUpdate)

	state  teams.CallState
	roster roster
	seen   map[string]bool
	ring   []string
	asked  time.Time // when Graph was last asked
	asking bool
	listed int // how often the roster was asked for
	done   chan func()
}

// post is one notification on its way to its call.
type post struct {
	notification
	message string // id of the request that brought it, for telling repetitions
	at      time.Time
}

func newCall(h *Webhook, inv teams.Invite) *call {
	secret := make([]byte, 16)
	key := make([]byte, 8)
	_, _ = rand.Read(secret) // never fails since Go 1.24
	_, _ = rand.Read(key)
	return &call{
		id: inv.Call, key: hex.EncodeToString(key), secret: hex.EncodeToString(secret), invite: inv, hook: h,
		queue: make(chan post, QueuePerCall), done: make(chan func(), 8), wake: make(chan struct{}, 1), seen: map[string]bool{},
		state: teams.CallIncoming, log: h.c.Log.With(slog.String("call", string(inv.Call)), slog.String("chain", string(inv.Chain))),
	}
}

// run works the call off in series until it is terminated or ctx ends.
func (c *call) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	update, err := c.hook.c.Take(c.invite, c.hook.callback(c))
	if err != nil {
		c.log.ErrorContext(ctx, "invite not taken", slog.String("alarm", "invite-not-taken"), slog.String("cause", err.Error()))
		return
	}
	c.update = update
	establish := time.NewTimer(c.hook.c.EstablishWithin)
	defer establish.Stop()
	alive := time.NewTicker(c.hook.c.KeepAliveEvery)
	defer alive.Stop()
	people := time.NewTicker(rosterAfter)
	defer people.Stop()
	for c.state != teams.CallTerminated {
		select {
		case p := <-c.queue:
			c.hook.queued.Add(-1)
			c.take(ctx, p)
		case apply := <-c.done:
			apply()
		case <-establish.C:
			c.overdue(ctx)
		case <-alive.C:
			c.keepAlive(ctx)
		case <-people.C:
			if c.state == teams.CallEstablished && !c.roster.heard() && c.listed < rosterTries {
				c.list(ctx)
			}
			c.doubt(ctx)
		case <-c.wake:
			c.doubt(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// take works one notification off. What cannot be read is told as an anomaly.
func (c *call) take(ctx context.Context, p post) {
	if p.message != "" {
		if c.seen[p.message] {
			return
		}
		c.remember(p.message)
	}
	var err error
	switch p.part {
	case "":
		err = c.takeCall(ctx, p)
	case "participants":
		err = c.takeRoster(ctx, p)
	}
	if err != nil {
		c.log.WarnContext(ctx, "notification left out", slog.String("cause", err.Error()))
		c.update(teams.CallUpdate{At: p.at, Anomaly: "unreadable notification"})
	}
}

func (c *call) remember(message string) {
	if len(c.ring) == seenPosts {
		delete(c.seen, c.ring[0])
		c.ring = append(c.ring[:0], c.ring[1:]...)
	}
	c.ring = append(c.ring, message)
	c.seen[message] = true
}

func (c *call) takeCall(ctx context.Context, p post) error {
	w, err := decodeCall(p.data)
	if err != nil && p.change != "deleted" {
		return err
	}
	if strings.HasSuffix(strings.ToLower(string(w.Type)), "participantleftnotification") {
		return nil // legs are not grouped: the leg of who left ends by itself
	}
	c.advance(ctx, w.state(p.change), w.result(), p.at)
	return nil
}

// advance moves the state forward, never back.
func (c *call) advance(ctx context.Context, to teams.CallState, result *teams.CallResult, at time.Time) {
	if to.Rank() <= c.state.Rank() {
		return
	}
	c.state = to
	attrs := []any{slog.String("state", string(to))}
	if result != nil {
		attrs = append(attrs, slog.Int("code", result.Code), slog.Int("subcode", result.Subcode))
	}
	c.log.InfoContext(ctx, "call state", attrs...)
	u := teams.CallUpdate{At: at, State: to, Present: c.roster.present()}
	if to == teams.CallTerminated {
		u.Result = result
	}
	c.update(u)
}

func (c *call) takeRoster(ctx context.Context, p post) error {
	change, err := decodeRoster(p.notification)
	if err != nil {
		return err
	}
	changed, left, gap, err := c.roster.apply(change)
	if len(changed) > 0 || len(left) > 0 {
		c.update(teams.CallUpdate{At: p.at, Roster: changed, Left: left, Present: c.roster.present()})
	}
	if gap {
		c.list(ctx)
	}
	return err
}

// doubt asks Graph where posts are missing or not to be believed. What cannot be asked
// yet is asked with the next tick.
func (c *call) doubt(ctx context.Context) {
	if c.asking || time.Since(c.asked) < askedAgain {
		return
	}
	behind, doubted := c.behind.Swap(false), c.doubted.Swap(false)
	if behind {
		c.log.ErrorContext(ctx, "notifications dropped", slog.String("alarm", "notifications-dropped"))
		c.list(ctx)
	}
	if behind || doubted {
		c.ask(ctx, "notifications missing or without secret")
	}
}

// rouse makes the call look at its doubts.
func (c *call) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// overdue asks what became of a call that nobody said was established.
func (c *call) overdue(ctx context.Context) {
	if c.state.Rank() >= teams.CallEstablished.Rank() {
		return
	}
	c.log.ErrorContext(ctx, "call not established in time", slog.String("alarm", "not-established"), slog.String("state", string(c.state)))
	c.update(teams.CallUpdate{At: time.Now().UTC(), Anomaly: "not established in time"})
	c.ask(ctx, "not established")
}

func (c *call) keepAlive(ctx context.Context) {
	c.background(ctx, func(ctx context.Context) func() {
		err := c.hook.c.Graph.KeepAlive(ctx, c.id)
		return func() {
			switch {
			case msgraph.CallGone(err):
				c.advance(ctx, teams.CallTerminated, nil, time.Now().UTC())
			case err != nil && ctx.Err() == nil:
				c.log.ErrorContext(ctx, "call not kept alive", slog.String("alarm", "keep-alive"), slog.String("cause", err.Error()))
			}
		}
	})
}

// ask reads the call's state from Graph and takes it over. A call that Graph does not
// know is terminated.
func (c *call) ask(ctx context.Context, why string) {
	c.asking, c.asked = true, time.Now()
	c.background(ctx, func(ctx context.Context) func() {
		raw, err := c.hook.c.Graph.GetCall(ctx, c.id)
		return func() {
			c.asking = false
			switch {
			case msgraph.CallGone(err):
				c.advance(ctx, teams.CallTerminated, nil, time.Now().UTC())
			case err != nil:
				if ctx.Err() == nil {
					c.log.ErrorContext(ctx, "call state unknown", slog.String("alarm", "call-unknown"), slog.String("why", why), slog.String("cause", err.Error()))
				}
			default:
				if w, err := decodeCall(raw); err == nil {
					c.advance(ctx, w.state(""), w.result(), time.Now().UTC())
				}
			}
		}
	})
}

// list reads the whole roster from Graph.
func (c *call) list(ctx context.Context) {
	c.listed++
	c.background(ctx, func(ctx context.Context) func() {
		raw, err := c.hook.c.Graph.Participants(ctx, c.id)
		return func() {
			if err == nil {
				err = c.takeRoster(ctx, post{at: time.Now().UTC(), notification: notification{call: c.id, part: "participants", data: raw}})
			}
			if err != nil && ctx.Err() == nil && !msgraph.CallGone(err) {
				c.log.WarnContext(ctx, "roster not read", slog.String("cause", err.Error()))
			}
		}
	})
}

// background does what waits for Graph, and hands the consequences to the call's own
// goroutine.
func (c *call) background(ctx context.Context, work func(context.Context) func()) {
	c.hook.running.Go(func() {
		apply := work(ctx)
		select {
		case c.done <- apply:
		case <-ctx.Done():
		}
	})
}
