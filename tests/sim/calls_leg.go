package sim

import (
	"errors"
	"slices"
	"sync"
	"time"

	"steno/tests/sim/gateway"
)

// leg is a recorder's connection to a call, on behalf of one recorded person.
type leg struct {
	call     *Call
	id       string
	me       ParticipantID // the recorder's own participant
	recorded *member
	recorder Recorder
	phantom  bool
	attempt  int

	mu       sync.Mutex
	state    string // incoming, establishing, established, terminated
	callback string
	sharing  bool // the answer asked for content sharing notifications
	blob     string
	result   Result
	statuses []StatusUpdate
	said     []Delivery
	media    *gateway.Connection
	deadline *time.Timer // for the answer, then for keepAlive
	later    *time.Timer // what happens by itself

	outbox chan notice
}

// notice is a notification to deliver.
type notice struct {
	kind string // changeType
	url  string
	data any // nil: none
	last bool
	more *notice // in the same request
}

// outboxSize bounds the notifications of a leg that wait for a webhook that does not answer.
const outboxSize = 4096

// StatusUpdate is one successful updateRecordingStatus.
type StatusUpdate struct {
	Status string
	At     time.Time
}

// Delivery is one notification that was sent.
type Delivery struct {
	Change, ResourceURL string
	To                  string
	Status              int // 0: no answer
	Err                 error
	At                  time.Time
}

// LegInfo describes a leg.
type LegInfo struct {
	ID         string // Graph's call id
	Recorder   string // App
	Recorded   PersonID
	Observed   ParticipantID
	State      string
	Blob       string
	Result     Result // of a terminated one
	Statuses   []StatusUpdate
	Deliveries []Delivery
}

// Legs describes every leg of the call, in the order of the invites.
func (c *Call) Legs() []LegInfo {
	c.mu.Lock()
	legs := slices.Clone(c.legs)
	c.mu.Unlock()
	var out []LegInfo
	for _, l := range legs {
		l.mu.Lock()
		out = append(out, LegInfo{
			ID: l.id, Recorder: l.recorder.App, Recorded: l.recorded.party.Person, Observed: l.recorded.id, State: l.state,
			Blob: l.blob, Result: l.result, Statuses: slices.Clone(l.statuses), Deliveries: slices.Clone(l.said),
		})
		l.mu.Unlock()
	}
	return out
}

// invite asks every recorder to record a participant, if a policy says so.
func (c *Call) invite(m *member) error {
	if !m.party.Recorded && !(c.plan.Direct && m.first) {
		return nil
	}
	c.calls.mu.Lock()
	recorders := slices.Clone(c.calls.recorders)
	c.calls.mu.Unlock()
	if len(recorders) == 0 {
		return errors.New("no recorder is registered")
	}
	var legs []*leg
	for _, r := range recorders {
		legs = append(legs, c.newLeg(m, r, false, 0))
		if c.plan.Phantom {
			legs = append(legs, c.newLeg(m, r, true, 0))
		}
	}
	for _, l := range legs {
		l.start()
	}
	return nil
}

func (c *Call) newLeg(m *member, r Recorder, phantom bool, attempt int) *leg {
	c.mu.Lock()
	l := &leg{
		call: c, id: drawGUID(c.rand), me: ParticipantID(drawGUID(c.rand)), recorded: m, recorder: r, phantom: phantom,
		attempt: attempt, state: "incoming", outbox: make(chan notice, outboxSize),
	}
	c.legs = append(c.legs, l)
	c.mu.Unlock()
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	c.calls.legs[l.id] = l
	return l
}

func (c *Calls) leg(id string) *leg {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.legs[id]
}

// start sends the invite. The clock of the answer runs from now.
func (l *leg) start() {
	l.call.calls.busy.Go(l.deliver)
	l.mu.Lock()
	l.deadline = time.AfterFunc(l.call.plan.AnswerWithin, l.unanswered)
	l.mu.Unlock()
	l.post(notice{kind: "created", url: l.url(), data: l.invitation()})
}

func (l *leg) url() string { return "/communications/calls/" + l.id }

// unanswered ends an invite that nobody took in time. Teams may invite again, with a new call id.
func (l *leg) unanswered() {
	l.mu.Lock()
	incoming := l.state == "incoming"
	l.mu.Unlock()
	if !incoming {
		return
	}
	l.terminate(NotAnswered)
	l.call.mu.Lock()
	again := !l.call.ended && l.attempt < l.call.plan.InviteAgain
	l.call.mu.Unlock()
	if again {
		l.call.newLeg(l.recorded, l.recorder, l.phantom, l.attempt+1).start()
	}
}

// errGone is what acting on a call that does not exist, or not any more, gives.
var errGone = errors.New("Call not found.")

// answer takes the recorder's answer. Whether the blob leads anywhere shows later: a 202 is no success yet.
func (l *leg) answer(callback, blob string, sharing bool) error {
	l.mu.Lock()
	if l.state == "terminated" {
		l.mu.Unlock()
		return errGone
	}
	if l.state != "incoming" {
		l.mu.Unlock()
		return errors.New("the call has been answered")
	}
	l.state, l.callback, l.blob, l.sharing = "establishing", callback, blob, sharing
	l.deadline.Stop()
	l.deadline = time.AfterFunc(l.call.plan.KeepAliveWithin, func() { l.terminate(NoKeepAlive) })
	l.later = time.AfterFunc(l.call.plan.Ringing, l.establish)
	l.mu.Unlock()
	if !l.call.plan.Disorder {
		l.post(notice{kind: "updated", url: l.url(), data: l.stateOnly("establishing")})
	}
	return nil
}

// establish connects the media and says so.
func (l *leg) establish() {
	l.mu.Lock()
	if l.state != "establishing" {
		l.mu.Unlock()
		return
	}
	blob := l.blob
	l.mu.Unlock()
	var media *gateway.Connection
	if elsewhere := l.recorder.Elsewhere; blob != "" && (elsewhere == nil || !elsewhere(blob)) {
		media = l.connect(blob)
		if media == nil {
			l.terminate(NoMediaControl)
			return
		}
	}
	l.mu.Lock()
	if l.state != "establishing" {
		l.mu.Unlock()
		if media != nil {
			media.Close()
		}
		return
	}
	l.state, l.media = "established", media
	switch {
	case l.phantom:
		l.later = time.AfterFunc(time.Second, func() { l.terminate(NotPickedUp) })
	case l.call.plan.Missed:
		l.later = time.AfterFunc(2*time.Second, func() { l.terminate(NotPickedUp) })
	}
	l.mu.Unlock()
	established := notice{kind: "updated", url: l.url(), data: l.stateOnly("established")}
	if l.call.plan.Bundled {
		roster := l.rosterNotice()
		established.more = &roster
		l.post(established)
	} else {
		l.post(established)
		l.post(l.rosterNotice())
	}
	if l.call.plan.Disorder {
		l.post(notice{kind: "updated", url: l.url(), data: l.stateOnly("establishing")})
		l.post(notice{kind: "updated", url: l.url(), data: l.stateOnly("established")})
	}
}

// connect follows the blob to a gateway, nil if it leads nowhere.
func (l *leg) connect(blob string) *gateway.Connection {
	for _, g := range l.recorder.Gateways {
		if m, err := g.Connect(blob, mediaOf{l.call}); err == nil {
			return m
		}
	}
	return nil
}

// terminate ends the leg. Only the first result counts.
func (l *leg) terminate(why Result) {
	l.mu.Lock()
	if l.state == "terminated" {
		l.mu.Unlock()
		return
	}
	l.state, l.result = "terminated", why
	media := l.media
	for _, t := range []*time.Timer{l.deadline, l.later} {
		if t != nil {
			t.Stop()
		}
	}
	l.mu.Unlock()
	if media != nil {
		media.Close()
	}
	l.post(notice{kind: "deleted", url: l.url(), data: l.terminated(why), last: true})
}

// keepAlive starts the time anew.
func (l *leg) keepAlive() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == "terminated" || l.state == "incoming" {
		return errGone
	}
	l.deadline.Reset(l.call.plan.KeepAliveWithin)
	return nil
}

// updateStatus notes what the recorder says it does.
func (l *leg) updateStatus(status string) error {
	l.mu.Lock()
	switch l.state {
	case "terminated":
		l.mu.Unlock()
		return errGone
	case "established":
	default: // not documented; the stricter behavior was chosen
		l.mu.Unlock()
		return errors.New("The call is not established.")
	}
	l.statuses = append(l.statuses, StatusUpdate{status, l.call.calls.t.now()})
	l.mu.Unlock()
	l.call.tellRoster()
	return nil
}

// status is what the recorder said last.
func (l *leg) status() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.statuses); n > 0 {
		return l.statuses[n-1].Status
	}
	return "notRecording"
}

// FailMedia raises MediaStreamFailure on the audio sockets of every leg.
func (c *Call) FailMedia() {
	c.mu.Lock()
	legs := slices.Clone(c.legs)
	c.mu.Unlock()
	for _, l := range legs {
		l.mu.Lock()
		m := l.media
		l.mu.Unlock()
		if m != nil {
			m.Fail("audio")
		}
	}
}

// established lists the legs that hear of the roster and of sharing.
func (c *Call) established() []*leg {
	c.mu.Lock()
	legs := slices.Clone(c.legs)
	c.mu.Unlock()
	return slices.DeleteFunc(legs, func(l *leg) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.state != "established"
	})
}

// tellRoster sends the whole roster to every established leg.
func (c *Call) tellRoster() {
	for _, l := range c.established() {
		l.post(l.rosterNotice())
	}
}

func (l *leg) rosterNotice() notice {
	return notice{kind: "updated", url: l.url() + "/participants", data: l.roster()}
}

func (c *Call) tellSharing(by ParticipantID, on bool) {
	kind := "deleted"
	if on {
		kind = "created"
	}
	for _, l := range c.established() {
		l.mu.Lock()
		asked := l.sharing
		l.mu.Unlock()
		if asked {
			l.post(notice{kind: kind, url: l.url() + "/contentsharingsessions/" + string(by)})
		}
	}
}
