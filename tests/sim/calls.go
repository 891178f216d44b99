package sim

import (
	"cmp"
	"crypto/rsa"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"steno/tests/sim/gateway"
)

// The times of Teams towards a recorder.
const (
	// AnswerWithin is how long a recording invite waits, https://learn.microsoft.com/graph/api/call-answer.
	AnswerWithin = 5 * time.Second
	// KeepAliveWithin is how long a call lives without keepAlive, https://learn.microsoft.com/graph/api/call-keepalive.
	KeepAliveWithin = 45 * time.Minute
	// webhookWait bounds one notification.
	webhookWait = 10 * time.Second
)

// ParticipantID is the id of one participation in a call.
type ParticipantID string

// Recorder is a recording bot as policies know it. Several are paired: each is invited for every recorded person.
type Recorder struct {
	App      string // Microsoft app id: audience of notifications, appid of the tokens that act on its calls
	Instance string // object id of its application instance
	Webhook  string // https address for calling
	Client   *http.Client
	Gateways []*gateway.Gateway // where the blobs of its answers may lead
	// Elsewhere says that a blob leads to a gateway that brings media of its own. May be nil.
	Elsewhere func(blob string) bool
}

// Calls is the calling side of the tenant.
type Calls struct {
	t *Tenant

	mu        sync.Mutex
	rand      *mathrand.Rand
	key       *rsa.PrivateKey
	keys      []publishedKey
	recorders []Recorder
	calls     []*Call
	legs      map[string]*leg
	closed    bool
	// recordDelay is how long after its end a call has a record.
	recordDelay time.Duration
	busy        sync.WaitGroup
}

// Calls returns the calling side of the tenant.
func (t *Tenant) Calls() *Calls { return t.calls }

func newCalls(t *Tenant) *Calls {
	return &Calls{t: t, rand: stream(t.cfg.Seed, streamCalls), legs: map[string]*leg{}}
}

// Register makes a recorder one that recorded people's calls invite. Register the same App again to change it.
func (c *Calls) Register(r Recorder) error {
	u, err := url.Parse(r.Webhook)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("register recorder: the webhook must be an https address, not %q", r.Webhook)
	}
	if r.App == "" || r.Instance == "" {
		return errors.New("register recorder: it needs an App and an Instance")
	}
	if r.Client == nil {
		r.Client = http.DefaultClient
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.IndexFunc(c.recorders, func(o Recorder) bool { return o.App == r.App }); i >= 0 {
		c.recorders[i] = r
		return nil
	}
	c.recorders = append(c.recorders, r)
	return nil
}

// Close ends every call and waits until the last notification has been delivered or given up.
func (c *Calls) Close() {
	c.mu.Lock()
	c.closed = true
	calls := slices.Clone(c.calls)
	c.mu.Unlock()
	for _, call := range calls {
		call.End()
	}
	c.busy.Wait()
}

// CallKind is what kind of call it is.
type CallKind string

// The kinds of calls.
const (
	TwoParty  CallKind = "two" // of two, one of whom may be a telephone
	GroupCall CallKind = "group"
	Conferred CallKind = "meeting"
)

// AudioMode is what the platform gives of the voices.
type AudioMode string

// The audio modes. By default calls of two are mixed, as observed of the platform, and others unmixed.
const (
	Unmixed AudioMode = "unmixed"
	Mixed   AudioMode = "mixed"
)

// Talk is what the participants say.
type Talk string

// The ways to talk. By default people take turns, with pauses and with some overlap.
const (
	TakeTurns Talk = "turns"
	Silent    Talk = "silent" // nobody says anything
	AllAtOnce Talk = "all"    // everybody speaks all the time; the platform gives four of them
)

// Party is somebody who takes part in a call: one of the first four members says who.
type Party struct {
	Person      PersonID // of the directory, or one of the tenant's outsiders
	Phone       string   // E.164
	Guest       string   // name of a guest without an account
	Application string   // id of an application that is no recorder

	Recorded bool // a recording policy applies; only a person of the directory can have one
	Caller   bool
	Lobby    bool // waits there until admitted
	Muted    bool
}

// CallPlan describes a call before it starts.
type CallPlan struct {
	Kind    CallKind // empty: TwoParty if there are two parties, else Conferred
	Parties []Party
	Thread  ThreadID // chat of the meeting or group; empty: one that nobody has
	Subject string
	Audio   AudioMode
	Talk    Talk

	// What may happen between Teams and a recorder.
	Disorder           bool // established comes before establishing, and twice
	Bundled            bool // the first roster comes in the same request as established
	TextCodes          bool // codes of results are strings
	DeletedWithoutData bool // the last notification has no state and no result
	Phantom            bool // an extra invite of a telephone endpoint, which ends by itself
	Missed             bool // the callee does not pick up: the legs end soon after they are established
	InviteAgain        int  // how often an unanswered invite is repeated, with a new call id
	Direct             bool // the first party calls the recorder like any bot, under no policy
	MissingTicks       int  // every n-th tick of audio does not come; 0: all do
	ZeroStamps         int  // the first n ticks have no timestamp

	AnswerWithin    time.Duration // 0: AnswerWithin
	KeepAliveWithin time.Duration // 0: KeepAliveWithin
	// Ringing is how long after the invite was answered the call is established. 0: at once.
	Ringing time.Duration

	transferor *member // who transferred the call here
}

// Result is Graph's resultInfo.
type Result struct {
	Code, Subcode int
	Message       string
}

// Results that the plan of a call can name, https://learn.microsoft.com/graph/api/call-delete.
var (
	OtherSideEnded    = Result{200, 4521, "The other side has ended the call."}
	ConversationEnded = Result{200, 5001, "The conversation has ended."}
	RemovedByOther    = Result{200, 5000, "The participant was removed by another participant."}
	ParticipantLeft   = Result{200, 5002, "All the other participants have left."}
	LobbyTimeout      = Result{200, 5855, "The participant was not admitted from the lobby in time."}
	Transferred       = Result{200, 7015, "The transfer has completed."}
	EndedByRecorder   = Result{200, 7000, "The application has ended the call."}
	NotPickedUp       = Result{487, 10003, "The call was canceled before it was accepted."}
	NotAnswered       = Result{408, 10057, "The callee gave no signal."}
	NoKeepAlive       = Result{408, 8537, "The call was not kept alive."}
	NoMediaControl    = Result{500, 7112, "MediaControllerConversationAddParticipantFailed"}
	MediaLost         = Result{410, 301005, "Media connectivity was lost."}
)

// member is a participation in a call. Call.mu guards it.
type member struct {
	id       ParticipantID
	party    Party
	person   *Person // nil unless party.Person
	first    bool    // of the call's parties
	msi      uint32  // of audio; video and screen are the next two
	joined   time.Time
	left     time.Time // zero: still there
	lobby    bool
	muted    bool
	held     bool
	camera   *gateway.Camera
	screen   *gateway.Camera
	sequence int64
	cursor   int // in the speech
}

func (m *member) here() bool   { return m.left.IsZero() }
func (m *member) speaks() bool { return m.here() && !m.lobby && !m.muted && !m.held }

// Call is a call that has been placed. Its methods are safe for concurrent use.
type Call struct {
	calls *Calls
	plan  CallPlan
	chain string

	mu       sync.Mutex
	rand     *mathrand.Rand
	members  []*member
	legs     []*leg
	sequence int64
	nextMSI  uint32
	ended    bool
	// unrecorded says that Graph never has a record of the call.
	unrecorded bool
	speech     speech
}

// Place starts a call: the recorders of everybody recorded are invited at once, beside each other.
func (c *Calls) Place(plan CallPlan) (*Call, error) {
	if len(plan.Parties) == 0 {
		return nil, errors.New("place call: nobody takes part")
	}
	plan.AnswerWithin = cmp.Or(plan.AnswerWithin, AnswerWithin)
	plan.KeepAliveWithin = cmp.Or(plan.KeepAliveWithin, KeepAliveWithin)
	plan.Talk = cmp.Or(plan.Talk, TakeTurns)
	if plan.Kind == "" {
		plan.Kind = Conferred
		if len(plan.Parties) == 2 {
			plan.Kind = TwoParty
		}
	}
	if plan.Audio == "" {
		plan.Audio = Unmixed
		if plan.Kind == TwoParty {
			plan.Audio = Mixed
		}
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, errors.New("place call: the tenant's calls are closed")
	}
	call := &Call{calls: c, plan: plan, chain: drawGUID(c.rand), rand: mathrand.New(mathrand.NewPCG(c.rand.Uint64(), 0)), nextMSI: 101}
	if plan.Kind != TwoParty && plan.Thread == "" {
		call.plan.Thread = ThreadID("19:meeting_" + drawHex(c.rand) + "@thread.v2")
	}
	c.calls = append(c.calls, call)
	c.mu.Unlock()
	for _, p := range plan.Parties {
		if _, err := call.add(p); err != nil {
			return nil, fmt.Errorf("place call: %w", err)
		}
	}
	call.mu.Lock()
	members := slices.Clone(call.members)
	call.mu.Unlock()
	for _, m := range members {
		if err := call.invite(m); err != nil {
			return nil, fmt.Errorf("place call: %w", err)
		}
	}
	return call, nil
}

// add makes a participant.
func (c *Call) add(p Party) (*member, error) {
	who := 0
	for _, set := range []bool{p.Person != "", p.Phone != "", p.Guest != "", p.Application != ""} {
		if set {
			who++
		}
	}
	if who != 1 {
		return nil, errors.New("a party is a person, a telephone, a guest or an application")
	}
	var person *Person
	if p.Person != "" {
		c.calls.t.mu.Lock()
		person = c.calls.t.dir.byID[p.Person]
		c.calls.t.mu.Unlock()
		if person == nil {
			return nil, fmt.Errorf("nobody is %s", p.Person)
		}
	}
	if p.Recorded && (person == nil || person.UserType == "") {
		return nil, errors.New("only people of the directory can be recorded")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil, errors.New("the call has ended")
	}
	m := &member{
		id: ParticipantID(drawGUID(c.rand)), party: p, person: person, first: len(c.members) == 0, msi: c.nextMSI, joined: c.calls.t.now(),
		lobby: p.Lobby, muted: p.Muted, cursor: len(c.members) * voiceOffset,
	}
	c.nextMSI += 3
	c.members = append(c.members, m)
	c.change(m)
	return m, nil
}

// change counts a change of the roster. mu is held.
func (c *Call) change(m *member) {
	c.sequence++
	m.sequence = c.sequence
	c.speech.noteSources(c.calls.t.now(), c.members)
}

// alter changes a participant who is there and tells every leg.
func (c *Call) alter(what string, id ParticipantID, to func(*member)) error {
	c.mu.Lock()
	i := slices.IndexFunc(c.members, func(m *member) bool { return m.id == id && m.here() })
	if i < 0 {
		c.mu.Unlock()
		return fmt.Errorf("%s %s: not in the call", what, id)
	}
	to(c.members[i])
	c.change(c.members[i])
	c.mu.Unlock()
	c.tellRoster()
	return nil
}

// ID is the call's chain id, what all of its legs have in common.
func (c *Call) ID() string { return c.chain }

// Thread is the chat of a meeting or group call.
func (c *Call) Thread() ThreadID { return c.plan.Thread }

// Participants returns the ids of those in the call, in the order in which they came.
func (c *Call) Participants() []ParticipantID {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []ParticipantID
	for _, m := range c.members {
		if m.here() {
			out = append(out, m.id)
		}
	}
	return out
}

// Join brings somebody into the call, with a new id and new sources each time. Recorders of a recorded person are invited.
func (c *Call) Join(p Party) (ParticipantID, error) {
	m, err := c.add(p)
	if err != nil {
		return "", fmt.Errorf("join call: %w", err)
	}
	c.tellRoster()
	if err := c.invite(m); err != nil {
		return "", fmt.Errorf("join call: %w", err)
	}
	return m.id, nil
}

// Leave takes somebody out of the call. The legs of a recorded person end.
func (c *Call) Leave(id ParticipantID) error { return c.depart("leave call", id, ParticipantLeft) }

// Remove is Leave at the hand of another participant.
func (c *Call) Remove(id ParticipantID) error {
	return c.depart("remove from call", id, RemovedByOther)
}

// TimeOutInLobby takes somebody out who was not admitted.
func (c *Call) TimeOutInLobby(id ParticipantID) error {
	return c.depart("time out in lobby", id, LobbyTimeout)
}

func (c *Call) depart(what string, id ParticipantID, why Result) error {
	now := c.calls.t.now()
	if err := c.alter(what, id, func(m *member) { m.left = now }); err != nil {
		return err
	}
	for _, l := range c.legsOf(id) {
		l.terminate(why)
	}
	return nil
}

// Mute mutes or unmutes a participant.
func (c *Call) Mute(id ParticipantID, on bool) error {
	return c.alter("mute", id, func(m *member) { m.muted = on })
}

// Hold puts a participant on hold: the direction of the audio stream becomes inactive, and nothing else.
func (c *Call) Hold(id ParticipantID, on bool) error {
	return c.alter("hold", id, func(m *member) { m.held = on })
}

// Admit lets a participant in from the lobby.
func (c *Call) Admit(id ParticipantID) error {
	return c.alter("admit", id, func(m *member) { m.lobby = false })
}

// Share starts or stops a participant's screen sharing: two pictures a second. Legs whose answer asked for it hear of a
// content sharing session, in a notification without data.
func (c *Call) Share(id ParticipantID, on bool) error {
	err := c.alter("share", id, func(m *member) {
		if m.screen = nil; on {
			m.screen = gateway.NewCamera(160, 96, byte(m.msi))
		}
	})
	if err == nil {
		c.tellSharing(id, on)
	}
	return err
}

// Show turns a participant's camera on or off: five pictures a second.
func (c *Call) Show(id ParticipantID, on bool) error {
	return c.alter("show", id, func(m *member) {
		if m.camera = nil; on {
			m.camera = gateway.NewCamera(96, 64, byte(m.msi))
		}
	})
}

// Transfer moves the call of from's other side to somebody else: the legs here end, and a call with a new chain id begins,
// which says who transferred it. Nothing else links the two.
func (c *Call) Transfer(from ParticipantID, to Party) (*Call, error) {
	c.mu.Lock()
	var by *member
	var others []Party
	for _, m := range c.members {
		if m.id == from && m.here() {
			by = m
		} else if m.here() {
			others = append(others, m.party)
		}
	}
	plan := c.plan
	c.mu.Unlock()
	if by == nil {
		return nil, fmt.Errorf("transfer call: %s is not in it", from)
	}
	c.end(Transferred)
	plan.Parties, plan.transferor = append(others, to), by
	return c.calls.Place(plan)
}

// End ends the call for everybody.
func (c *Call) End() {
	why := ConversationEnded
	if c.plan.Kind == TwoParty {
		why = OtherSideEnded
	}
	c.end(why)
}

// Break ends every leg with a result, such as NoMediaControl, as if Teams had lost it.
func (c *Call) Break(why Result) { c.end(why) }

func (c *Call) end(why Result) {
	now := c.calls.t.now()
	c.mu.Lock()
	c.ended = true
	for _, m := range c.members {
		if m.here() {
			m.left = now
		}
	}
	c.speech.noteSources(now, c.members)
	legs := slices.Clone(c.legs)
	c.mu.Unlock()
	for _, l := range legs {
		l.terminate(why)
	}
}

func (c *Call) legsOf(id ParticipantID) []*leg {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*leg
	for _, l := range c.legs {
		if l.recorded.id == id {
			out = append(out, l)
		}
	}
	return out
}
