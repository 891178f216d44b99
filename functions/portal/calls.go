package portal

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

// look reads what stands under a conversation's id: a chat's slice or a call. Missing
// and forbidden take the same steps, leave the same event and give the same answer.
func (p *Portal) look(r *http.Request, c caller) (conversation.Slice, conversation.Call, error) {
	none := func(err error) (conversation.Slice, conversation.Call, error) {
		return conversation.Slice{}, conversation.Call{}, err
	}
	id, err := conversation.ParseID(r.PathValue("id"))
	if err != nil {
		return none(errNotFound)
	}
	slice, err := p.stores.Catalog.Slice(r.Context(), id)
	if err != nil {
		return none(err)
	}
	whole := slice.Conversation
	whole.Custodians = slice.AllCustodians()
	if p.maySee(c.grant, whole) {
		return slice, conversation.Call{}, nil
	}
	call, err := p.stores.Calls.Call(r.Context(), id.Thread())
	if err != nil {
		return none(err)
	}
	if call.Conversation.ID == id && p.maySee(c.grant, call.Conversation) {
		return conversation.Slice{}, call, nil
	}
	_, err = p.stores.Trail.Append(r.Context(), custody.Event{
		Tenant: p.config.Tenant, Action: custody.Denied, Actor: c.person, Session: c.session, Item: string(id),
	})
	if err != nil {
		return none(err)
	}
	return none(errNotFound)
}

// find reads a chat that the caller may see.
func (p *Portal) find(r *http.Request, c caller) (conversation.Slice, error) {
	s, call, err := p.look(r, c)
	if err == nil && call.Revision != "" {
		err = errNotFound // a call has no messages of its own
	}
	return s, err
}

// legAnswer is a leg of a call as listed.
type legAnswer struct {
	Leg      conversation.LegID       `json:"leg"`
	Recorded conversation.Participant `json:"recorded"`
	State    conversation.LegState    `json:"state"`
	Outcome  conversation.Outcome     `json:"outcome,omitempty"`
	Reason   string                   `json:"reason,omitempty"`
	Started  time.Time                `json:"started"`
	From     *time.Time               `json:"from,omitempty"`
	To       *time.Time               `json:"to,omitempty"`
	LostMS   int64                    `json:"lostMs"`
	CopyOf   conversation.LegID       `json:"copyOf,omitempty"`
	Recorder string                   `json:"recorder"`
}

// legsOf lists the legs that the caller may see: those of her own recorded users.
func (p *Portal) legsOf(c caller, call conversation.Call) []legAnswer {
	out := []legAnswer{}
	for _, l := range call.Legs {
		if !p.maySeeLeg(c.grant, l) {
			continue
		}
		a := legAnswer{
			Leg: l.Leg, Recorded: conversation.Participant{ID: string(l.Recorded), Kind: string(teams.PartyUser)}, State: l.State, Outcome: l.Outcome,
			Reason: l.Reason, Started: l.Started, LostMS: l.Lost.Milliseconds(), CopyOf: l.CopyOf, Recorder: l.Recorder,
		}
		if l.Invite != nil {
			a.Recorded.Name = l.Invite.Recorded.Name
		}
		if !l.From.IsZero() {
			a.From, a.To = &l.From, &l.To
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b legAnswer) int {
		switch {
		case (a.CopyOf == "") != (b.CopyOf == ""):
			if a.CopyOf == "" {
				return -1
			}
			return 1
		}
		return a.Started.Compare(b.Started)
	})
	return out
}

// maySeeLeg reports whether a leg may be opened. Each leg is a recorded user's own
// record: a supervisor of one of them does not thereby hear the other's leg, which may
// have begun earlier or ended later.
func (p *Portal) maySeeLeg(g policy.Grant, l conversation.Leg) bool {
	to := l.To
	if l.State == conversation.LegRunning || to.IsZero() {
		to = l.Started
	}
	var custodians []teams.PersonID
	if l.Recorded != "" {
		custodians = append(custodians, l.Recorded)
	}
	return g.MaySee(custodians, l.Started, to, p.config.History)
}

// playing is one caller's opened leg: the receipt under which she reads it.
type playing struct {
	receipt custody.Receipt
	until   time.Time
}

// maxPlaying bounds how many receipts are remembered.
const maxPlaying = 10_000

// legNames are the forms of what else stands in the path of a leg's routes. What cannot
// be a name of ours asks no store.
var legNames = map[string]*regexp.Regexp{
	"kind": regexp.MustCompile(`^(audio|video|screen)$`),
	"lane": regexp.MustCompile(`^(mixed|unknown|received-mix|[0-9a-f]{16})$`),
	"file": regexp.MustCompile(`^((master|mixed|unknown|received-mix|[0-9a-f]{16})\.m3u8|init\.mp4|[0-9]{1,7}-[0-9]{1,2}\.(mp4|m4s))$`),
	"name": regexp.MustCompile(`^[0-9]{1,7}-[0-9]{1,2}$`),
}

// leg finds a leg that the caller may open and leaves an event for it, or finds the one
// that she left a moment ago: a player asks for a piece of media every few seconds, and
// an event covers as long as its receipt lasts.
func (p *Portal) leg(r *http.Request, c caller) (conversation.Call, conversation.Leg, custody.Receipt, error) {
	fail := func(err error) (conversation.Call, conversation.Leg, custody.Receipt, error) {
		return conversation.Call{}, conversation.Leg{}, custody.Receipt{}, err
	}
	id, err := conversation.ParseLegID(r.PathValue("leg"))
	if err != nil {
		return fail(errNotFound)
	}
	for name, form := range legNames {
		if v := r.PathValue(name); v != "" && !form.MatchString(v) {
			return fail(errNotFound)
		}
	}
	_, call, err := p.look(r, c)
	if err != nil {
		return fail(err)
	}
	l, ok := call.Leg(id)
	if !ok || !p.maySeeLeg(c.grant, l) {
		_, err := p.stores.Trail.Append(r.Context(), custody.Event{
			Tenant: p.config.Tenant, Action: custody.Denied, Actor: c.person, Session: c.session, Item: string(id),
		})
		if err != nil {
			return fail(err)
		}
		return fail(errNotFound)
	}
	receipt, err := p.play(r.Context(), c, call.Conversation.ID, l.Leg)
	if err != nil {
		return fail(err)
	}
	return call, l, receipt, nil
}

func (p *Portal) play(ctx context.Context, c caller, conv conversation.ID, leg conversation.LegID) (custody.Receipt, error) {
	return p.remembered(ctx, c, custody.Played, string(leg), "conversation "+string(conv))
}

// remembered returns a receipt for an item that is read piece by piece: that of an event
// of a moment ago if it is good for a while yet, else that of a new one.
func (p *Portal) remembered(ctx context.Context, c caller, action custody.Action, item, detail string) (custody.Receipt, error) {
	return p.rememberedFor(ctx, c, item, action, item, detail)
}

// rememberedFor is remembered for what is less than an item, such as one of its files.
func (p *Portal) rememberedFor(ctx context.Context, c caller, piece string, action custody.Action, item, detail string) (custody.Receipt, error) {
	key := string(c.person) + "/" + c.session + "/" + piece
	now := p.config.Now()
	p.playMu.Lock()
	have, ok := p.playing[key]
	p.playMu.Unlock()
	if ok && now.Before(have.until) {
		return have.receipt, nil
	}
	receipt, err := p.stores.Trail.Append(ctx, custody.Event{
		Tenant: p.config.Tenant, Action: action, Actor: c.person, Session: c.session, Item: item, Detail: detail,
	})
	if err != nil {
		return custody.Receipt{}, err
	}
	p.playMu.Lock()
	defer p.playMu.Unlock()
	if len(p.playing) >= maxPlaying {
		clear(p.playing)
	}
	p.playing[key] = playing{receipt: receipt, until: now.Add(custody.Lifetime - time.Minute)}
	return receipt, nil
}
