package intake_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"steno/functions/internal/intake"
	"steno/functions/internal/keyring"
	"steno/functions/notified"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/notification"
	"steno/shared/storetest"
	"steno/shared/teams"
	"steno/tests/sim"
)

// early is the lane of notifications of a campaign: Graph's side of it, and the queue.
type early struct {
	register storetest.Subscriptions
	claims   storetest.Blobs
	public   *rsa.PublicKey
	seen     map[versionID]bool
	late     []notice
	bus      map[int]notice // a message stays until it is done
	next     int
	sent     map[versionID][]byte // as notified: an export may be the first to serve a version, and spoil it
	kept     map[versionID]bool   // delivered while its custodian was recorded
}

// notice is one notification on its way, to the subscription of a person.
type notice struct {
	to      teams.PersonID
	version sim.Version
	body    []byte // a parcel
}

// pair is one key pair for all campaigns, since making one takes a while.
var pair = sync.OnceValues(func() (kept []byte, cert notification.Certificate) {
	key, cert, err := notification.NewKeyPair("00000000000000000000000000000001", time.Now())
	if err == nil {
		kept, err = key.Seal()
	}
	if err != nil {
		panic(err)
	}
	return kept, cert
})

// open subscribes to everybody's chats. What the tenant's history holds is not notified.
func (e *early) open(c *campaign) {
	e.seen, e.kept, e.bus, e.sent = map[versionID]bool{}, map[versionID]bool{}, map[int]notice{}, map[versionID][]byte{}
	for _, v := range c.tenant.History() {
		e.seen[idOf(v)] = true
	}
	for _, p := range c.people() {
		c.must(e.register.Save(c.t.Context(), notification.Subscription{ID: string(p), Resource: notification.Resource{Custodian: p}}))
	}
	kept, cert := pair()
	parsed, err := x509.ParseCertificate(cert.DER)
	c.must(err)
	e.public = parsed.PublicKey.(*rsa.PublicKey)
	unit := keyring.UnitPrefix + cert.ID
	store := c.store(&e.claims)
	sealed, err := store.Seal(c.t.Context(), evidence.Ref{Tenant: c.id, Unit: unit, Object: evidence.PartObject(unit, 0)}, kept)
	c.must(err)
	c.must(store.Put(c.t.Context(), sealed))
	c.must(e.register.SaveCertificate(c.t.Context(), cert))
}

// notify sends what is new to those who are recorded: lost, doubled, late, and in any order.
func (e *early) notify(c *campaign) {
	for _, v := range c.tenant.History() {
		if e.seen[idOf(v)] {
			continue
		}
		e.seen[idOf(v)], e.sent[idOf(v)] = true, v.NotifiedBytes()
		for _, p := range c.people() {
			if v.Channel || !slices.Contains(v.Participants, sim.PersonID(p)) || !c.recorded(p) {
				continue
			}
			n := notice{p, v, e.parcel(c, p, v)}
			for range []int{0, 1, 1, 1, 2}[c.rand.IntN(5)] {
				if c.rand.IntN(4) == 0 {
					e.late = append(e.late, n)
				} else {
					e.put(n)
				}
			}
		}
	}
	if len(e.late) > 0 {
		e.deliver(c, c.rand.IntN(len(e.late)))
	}
}

// deliver puts late ones on the queue.
func (e *early) deliver(c *campaign, n int) {
	for range n {
		i := c.rand.IntN(len(e.late))
		e.put(e.late[i])
		e.late = slices.Delete(e.late, i, i+1)
	}
}

func (e *early) put(n notice) {
	e.next++
	e.bus[e.next] = n
}

func (e *early) parcel(c *campaign, p teams.PersonID, v sim.Version) []byte {
	_, cert := pair()
	encrypted, err := sim.Encrypt(e.public, cert.ID, v.NotifiedBytes())
	c.must(err)
	raw, err := json.Marshal(encrypted)
	c.must(err)
	body, err := notification.EncodeParcel(notification.Parcel{Received: time.Now(), Items: []notification.Item{{
		Subscription: string(p), Tenant: c.id, Change: "created", ID: v.MessageID, Content: raw,
		Resource: fmt.Sprintf("chats('%s')/messages('%s')", v.Thread, v.MessageID),
	}}})
	c.must(err)
	return body
}

// drain runs processes, of which some die, until the queue is empty.
func (e *early) drain(c *campaign) {
	expected := map[versionID]bool{}
	for _, n := range e.bus {
		if c.recorded(n.to) {
			expected[idOf(n.version)] = true
		}
	}
	for len(e.bus) > 0 {
		m := &mortality{}
		if c.rand.IntN(3) == 0 {
			m.dieAt, m.after = 1+c.rand.IntN(60), c.rand.IntN(2) == 0
		}
		if err := e.process(c, m).Run(c.t.Context()); m.dead {
			c.tally.Deaths++
		} else {
			c.must(err)
		}
	}
	for id := range expected {
		e.kept[id] = true
	}
}

func (e *early) process(c *campaign, m *mortality) *notified.Notified {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	trail := custody.Log{Trail: mortalTrail{&c.trail, m}}
	catalog := mortalCatalog{&c.catalog, m, c}
	b := &mortalBus{e, m, map[int]bool{}}
	return notified.New(notified.Config{Tenant: c.id, On: true}, notified.Stores{
		Roster: &c.roster, Register: &e.register, Catalog: catalog, Inbox: b, Queue: b, Claims: &e.claims,
		Intake: intake.New(intake.Config{System: "notified", History: history, ClaimLease: time.Nanosecond}, &c.roster, catalog, mortalStore{c.store(&c.blobs), m}, trail, log),
		Keys:   keyring.New(c.id, &e.register, c.store(&e.claims), evidence.Keeper{Objects: &e.claims, Keys: &c.keys}, trail),
		Park: func(_ context.Context, reason, _ string, _ []byte) error {
			return fmt.Errorf("parked: %s", reason)
		},
	}, log)
}

// mortalBus is the queue as one process sees it.
type mortalBus struct {
	e    *early
	m    *mortality
	held map[int]bool
}

func (b *mortalBus) Receive(_ context.Context, most int, _ time.Duration) (out []notification.Envelope, err error) {
	err = b.m.step(func() error {
		for id, n := range b.e.bus { // in no order
			if b.held[id] || len(out) == most {
				continue
			}
			b.held[id] = true
			out = append(out, notification.Envelope{Body: n.body, Done: func(context.Context) error {
				return b.m.step(func() error { delete(b.e.bus, id); return nil })
			}})
		}
		return nil
	})
	return out, err
}

// Send puts a parcel back. It comes again at once: waits are not what is tested here.
func (b *mortalBus) Send(_ context.Context, _ string, body []byte, _ time.Time) error {
	return b.m.step(func() error { b.e.put(notice{body: body}); return nil })
}
