package sim

import (
	"cmp"
	"context"
	"crypto/rsa"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// What is known of the delivery of change notifications,
// https://learn.microsoft.com/graph/change-notifications-delivery-webhooks.
const (
	firstPatience = 3 * time.Second  // for the first answer
	laterPatience = 10 * time.Second // for that to a repetition
	repeatedFor   = 4 * time.Hour
	// firstRepeat is when an undelivered notification is sent again; the wait doubles after that. Microsoft names no
	// times.
	firstRepeat  = 500 * time.Millisecond
	longestPause = time.Minute
	// An endpoint of which more than a share of the answers of ten minutes took longer than laterPatience gets nothing.
	dropAfter  = 20 // answers, at least
	dropShare  = 0.15
	dropWindow = 10 * time.Minute
	// perDelivery is how many notifications of one address travel together at most.
	perDelivery = 20
	senders     = 8
)

// subscription is one that an application made.
type subscription struct {
	id, app                     string
	change, resource, url, life string
	state                       string
	user                        PersonID // of users/{id}/chats/getAllMessages
	channels                    bool     // teams/getAllMessages
	certificate, certificateID  string
	key                         *rsa.PublicKey
	expires                     time.Time
}

// hears reports whether a message concerns the subscription.
func (s *subscription) hears(m *message) bool {
	if m.thread.kind.IsChannel() != s.channels {
		return false
	}
	return s.user == "" || slices.Contains(m.roster, s.user)
}

// outgoing is a notification on its way.
type outgoing struct {
	to        string // id of the subscription
	lifecycle string
	change    string
	message   Message
	resource  string
	body      []byte
	due       time.Time
	made      time.Time
	tries     int
	doubled   bool
}

// answerTime is how long an endpoint took once.
type answerTime struct {
	at   time.Time
	slow bool
}

// notices keeps subscriptions and sends what they hear.
type notices struct {
	t    *Tenant
	wake chan struct{}

	mu        sync.Mutex
	rand      *rand.Rand
	subs      []*subscription
	waiting   []*outgoing
	sending   int
	delivered map[Message][]PersonID // to whose subscriptions; "" for those of the whole tenant
	dropped   int
	answers   map[string][]answerTime // by address
	signing   *rsa.PrivateKey
	signingID string
	tokens    int
}

func newNotices(t *Tenant) *notices {
	return &notices{
		t: t, wake: make(chan struct{}, 1), rand: stream(t.cfg.Seed, streamNotices),
		delivered: map[Message][]PersonID{}, answers: map[string][]answerTime{},
	}
}

// publish queues a notification of a message's newest version to each who listens. The caller holds the tenant's lock.
func (n *notices) publish(m *message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.t.now()
	for _, s := range n.subs {
		if !s.hears(m) || s.expires.Before(now) {
			continue
		}
		v := m.current()
		v.served = true // its bytes are fixed from now on
		change := map[cause]string{sent: "created", edited: "updated", reacted: "updated", deleted: "deleted"}[v.cause]
		if !slices.Contains(strings.Split(s.change, ","), change) || n.t.faults.due(NotificationLost) {
			continue
		}
		note := &outgoing{to: s.id, change: change, message: m.named(), resource: m.path(), body: asNotified(m.path(), v.body), due: now, made: now}
		if n.t.faults.due(NotificationLate) {
			n.t.faults.mu.Lock()
			note.due = now.Add(n.t.faults.slow)
			n.t.faults.mu.Unlock()
		}
		note.doubled = n.t.faults.due(NotificationDoubled)
		if n.t.faults.due(NotificationReordered) {
			n.waiting = slices.Insert(n.waiting, 0, note)
		} else {
			n.waiting = append(n.waiting, note)
		}
	}
	n.ring()
}

func (n *notices) ring() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// path is the resource of a notification of the message.
func (m *message) path() string {
	id := text(m.id)
	switch {
	case !m.thread.kind.IsChannel():
		return "chats('" + string(m.thread.id) + "')/messages('" + id + "')"
	case m.root != m.id:
		return "teams('" + m.thread.team + "')/channels('" + string(m.thread.id) + "')/messages('" + text(m.root) + "')/replies('" + id + "')"
	}
	return "teams('" + m.thread.team + "')/channels('" + string(m.thread.id) + "')/messages('" + id + "')"
}

// asNotified is a version as it stands in a notification: an entity of its own, with its context.
func asNotified(path string, body []byte) []byte {
	context := `{"@odata.context":"https://graph.microsoft.com/$metadata#` + path + `/$entity",`
	return append([]byte(context), body[1:]...)
}

// NotifiedBytes is the version as a notification brings it: not to be told from another by anything but its context.
func (v Version) NotifiedBytes() []byte { return asNotified(v.path, v.Bytes) }

// Notified reports to whose subscriptions a version was delivered: the ids of people, or "" for one to the whole
// tenant. None means that no notification of it was taken.
func (t *Tenant) Notified(v Version) []PersonID {
	t.notices.mu.Lock()
	defer t.notices.mu.Unlock()
	return slices.Clone(t.notices.delivered[Message{v.Thread, v.MessageID, v.ETag, v.LastModified}])
}

// Undelivered is how many notifications are on their way, and Dropped how many were given up or dropped because the
// endpoint was too slow.
func (t *Tenant) Undelivered() (waiting, dropped int) {
	t.notices.mu.Lock()
	defer t.notices.mu.Unlock()
	return len(t.notices.waiting) + t.notices.sending, t.notices.dropped
}

// Subscriptions lists the ids of the subscriptions that stand, in the order in which they were made.
func (t *Tenant) Subscriptions() []string {
	t.notices.mu.Lock()
	defer t.notices.mu.Unlock()
	var ids []string
	for _, s := range t.notices.subs {
		if s.expires.After(t.now()) {
			ids = append(ids, s.id)
		}
	}
	return ids
}

// Lifecycle sends a lifecycle event: reauthorizationRequired, missed or subscriptionRemoved, which ends the subscription.
func (t *Tenant) Lifecycle(id, event string) {
	n := t.notices
	n.mu.Lock()
	defer n.mu.Unlock()
	now := t.now()
	n.waiting = append(n.waiting, &outgoing{to: id, lifecycle: event, due: now, made: now})
	if s := n.find(id); s != nil && event == "subscriptionRemoved" {
		s.expires = now
	}
	n.ring()
}

func (n *notices) find(id string) *subscription {
	for _, s := range n.subs {
		if s.id == id {
			return s
		}
	}
	return nil
}

// Notify sends notifications until ctx ends, and returns nil then.
func (t *Tenant) Notify(ctx context.Context) error {
	n := t.notices
	slots := make(chan struct{}, senders)
	var group sync.WaitGroup
	defer group.Wait()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		for batch := n.take(); len(batch) > 0; batch = n.take() {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			group.Go(func() {
				n.deliver(ctx, batch)
				<-slots
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.wake:
		case <-tick.C:
		}
	}
}

// take removes notifications that are due and go to one address.
func (n *notices) take() []*outgoing {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.t.now()
	var batch []*outgoing
	var first *subscription
	n.waiting = slices.DeleteFunc(n.waiting, func(w *outgoing) bool {
		s := n.find(w.to)
		if s == nil {
			n.dropped++
			return true
		}
		if w.due.After(now) || len(batch) == perDelivery {
			return false
		}
		if first != nil && (w.address(s) != batch[0].address(first) || w.tries != batch[0].tries) {
			return false
		}
		first = cmp.Or(first, s)
		batch = append(batch, w)
		return true
	})
	n.sending += len(batch)
	return batch
}

func (w *outgoing) address(s *subscription) string {
	if w.lifecycle != "" {
		return s.life
	}
	return s.url
}

// deliver sends a batch, and puts it back where nobody took it.
func (n *notices) deliver(ctx context.Context, batch []*outgoing) {
	s, ok := n.copyOf(batch[0].to)
	address := batch[0].address(&s)
	began := time.Now()
	taken := false
	if ok && !n.isDropped(address) {
		taken = n.send(ctx, address, batch)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sending -= len(batch)
	now := n.t.now()
	n.answers[address] = append(n.answers[address], answerTime{now, time.Since(began) > laterPatience})
	for _, w := range batch {
		switch {
		case taken && w.doubled:
			w.doubled, w.tries = false, 0
			n.waiting = append(n.waiting, w)
			n.record(w)
		case taken:
			n.record(w)
		case now.Sub(w.made) > repeatedFor:
			n.dropped++
		default:
			w.due = now.Add(min(firstRepeat<<min(w.tries, 10), longestPause))
			w.tries++
			n.waiting = append(n.waiting, w)
		}
	}
}

func (n *notices) record(w *outgoing) {
	s := n.find(w.to)
	if w.lifecycle != "" || s == nil || slices.Contains(n.delivered[w.message], s.user) {
		return
	}
	n.delivered[w.message] = append(n.delivered[w.message], s.user)
}

// isDropped reports whether an address answered too slowly too often.
func (n *notices) isDropped(address string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	since := n.t.now().Add(-dropWindow)
	n.answers[address] = slices.DeleteFunc(n.answers[address], func(a answerTime) bool { return a.at.Before(since) })
	slow := 0
	for _, a := range n.answers[address] {
		if a.slow {
			slow++
		}
	}
	all := len(n.answers[address])
	return all >= dropAfter && float64(slow) > dropShare*float64(all)
}

func (t *Tenant) notifyClient() *http.Client {
	c := http.Client{}
	if t.cfg.NotifyClient != nil {
		c = *t.cfg.NotifyClient
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}
