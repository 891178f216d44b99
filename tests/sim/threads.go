package sim

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// ThreadID is a chat's or a channel's id, as Graph's chatId and channelId have it.
type ThreadID string

// Kind tells the kinds of conversation apart.
type Kind string

// The kinds of conversation. The first three are Graph's chatType.
const (
	OneOnOne       Kind = "oneOnOne"
	GroupChat      Kind = "group"
	Meeting        Kind = "meeting"
	Channel        Kind = "standard"
	PrivateChannel Kind = "private"
	SharedChannel  Kind = "shared" // hosted by the team; people of other teams are in it
)

// IsChannel reports whether messages of the kind are exported by team and not by person.
func (k Kind) IsChannel() bool { return k == Channel || k == PrivateChannel || k == SharedChannel }

// Thread is one conversation as it stands.
type Thread struct {
	ID      ThreadID
	Kind    Kind
	Topic   string // empty for one-to-one chats
	Team    string // the team's id, of channels only
	Members []PersonID
}

// Team is a team and its channels.
type Team struct {
	ID       string
	Name     string
	Channels []ThreadID
}

type thread struct {
	id      ThreadID
	kind    Kind
	topic   string
	team    string
	created int64
	updated int64
	joinURL string
	roster  []PersonID // never changed in place: messages share it
	last    int64      // id of the newest message
	byID    map[int64]*message
	list    []*message
	call    string // id of a call that has started and not ended
}

type team struct {
	id       string
	name     string
	channels []*thread
	deleted  time.Time // zero while it is there
}

func (t *Tenant) addThread(th *thread) *thread {
	th.byID = map[int64]*message{}
	t.threads = append(t.threads, th)
	t.byThread[th.id] = th
	return th
}

func ids(people []*Person) []PersonID {
	out := make([]PersonID, len(people))
	for i, p := range people {
		out[i] = p.ID
	}
	return out
}

// some draws n different people.
func some(r *rand.Rand, from []*Person, n int) []*Person {
	out := slices.Clone(from)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(n, len(out))]
}

// drawThreads makes the conversations. The first of each kind are between people outside every scope group.
func (t *Tenant) drawThreads(r *rand.Rand) {
	d := &t.dir
	began := t.start.Add(-t.cfg.Span).UnixMilli()
	var recorded []*Person
	recorded = append(append(recorded, d.desks[RecordedEquities]...), d.desks[RecordedRates]...)
	members := slices.DeleteFunc(slices.Clone(d.people), func(p *Person) bool { return p.UserType != "Member" })
	private := slices.DeleteFunc(slices.Clone(d.private), func(p *Person) bool { return p.UserType != "Member" })
	guest := d.people[len(d.people)-1]

	pair := func(a, b *Person) {
		x, y := min(a.ID, b.ID), max(a.ID, b.ID)
		id := ThreadID(fmt.Sprintf("19:%s_%s@unq.gbl.spaces", x, y))
		if a != b && t.byThread[id] == nil {
			t.addThread(&thread{id: id, kind: OneOnOne, created: began, updated: began, roster: []PersonID{a.ID, b.ID}})
		}
	}
	chat := func(kind Kind, people ...*Person) {
		id := "19:" + drawHex(r) + "@thread.v2"
		th := &thread{kind: kind, topic: drawTopic(r), created: began, updated: began, roster: ids(people)}
		if kind == Meeting {
			id = "19:meeting_" + base64.RawURLEncoding.EncodeToString([]byte(drawHex(r))) + "@thread.v2"
			th.joinURL = "https://teams.microsoft.com/l/meetup-join/" + strings.NewReplacer(":", "%3a", "@", "%40").Replace(id) + "/0"
		}
		th.id = ThreadID(id)
		t.addThread(th)
	}
	pair(private[0], private[1])
	pair(recorded[0], recorded[len(recorded)-1])
	pair(recorded[0], d.outside[0])
	pair(recorded[1], guest)
	pair(recorded[0], private[0])
	for range 2 * t.cfg.People {
		pair(pick(r, members), pick(r, members))
	}
	for range len(d.outside) {
		pair(pick(r, recorded), pick(r, d.outside))
	}
	chat(GroupChat, private...)
	chat(GroupChat, d.desks[RecordedEquities]...)
	for range max(2, t.cfg.People/2) {
		chat(GroupChat, some(r, members, 3+r.IntN(6))...)
	}
	chat(Meeting, private...)
	chat(Meeting, append(some(r, recorded, 3), d.outside...)...)
	for range max(2, t.cfg.People/3) {
		people := some(r, members, 3+r.IntN(8))
		if chance(r, 1, 4) {
			people = append(people, pick(r, d.outside))
		}
		chat(Meeting, people...)
	}
	t.drawTeam(r, "Operations", private)
	t.drawTeam(r, "Trading Floor", recorded)
	for n := range max(1, t.cfg.People/15) {
		t.drawTeam(r, fmt.Sprintf("Project %c", 'A'+n%26), some(r, members, 4+r.IntN(12)))
	}
	t.shareChannel(r, t.teams[1], append(some(r, recorded, 2), private[0]))
}

// shareChannel adds a channel to the team that hosts it, with people who are not in the team.
func (t *Tenant) shareChannel(r *rand.Rand, host *team, people []*Person) {
	began := t.start.Add(-t.cfg.Span).UnixMilli()
	host.channels = append(host.channels, t.addThread(&thread{
		id: ThreadID("19:" + drawHex(r) + "@thread.tacv2"), kind: SharedChannel, topic: drawTopic(r), team: host.id,
		created: began, updated: began, roster: ids(people),
	}))
}

func (t *Tenant) drawTeam(r *rand.Rand, name string, people []*Person) *team {
	g := &Group{ID: drawGUID(r), DisplayName: name, Team: true, Owners: ids(people[:1])}
	for _, p := range people {
		g.Members = append(g.Members, Member{"user", string(p.ID)})
	}
	t.dir.groups = append(t.dir.groups, g)
	tm := &team{id: g.ID, name: name}
	began := t.start.Add(-t.cfg.Span).UnixMilli()
	for i, topic := range []string{"General", drawTopic(r), "Leads"} {
		kind, in := Channel, people
		if i == 2 {
			kind, in = PrivateChannel, some(r, people, max(2, len(people)/2))
		}
		tm.channels = append(tm.channels, t.addThread(&thread{
			id: ThreadID("19:" + drawHex(r) + "@thread.tacv2"), kind: kind, topic: topic, team: tm.id,
			created: began, updated: began, roster: ids(in),
		}))
	}
	t.teams = append(t.teams, tm)
	return tm
}

// Threads returns every conversation as it stands, in a fixed order.
func (t *Tenant) Threads() []Thread {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Thread, len(t.threads))
	for i, th := range t.threads {
		out[i] = Thread{ID: th.id, Kind: th.kind, Topic: th.topic, Team: th.team, Members: slices.Clone(th.roster)}
	}
	return out
}

// Teams returns every team that was not deleted.
func (t *Tenant) Teams() []Team { return t.listTeams(false) }

// AllTeams returns every team, those that were deleted included.
func (t *Tenant) AllTeams() []Team { return t.listTeams(true) }

func (t *Tenant) listTeams(deleted bool) []Team {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Team
	for _, tm := range t.teams {
		if deleted || tm.deleted.IsZero() {
			out = append(out, tm.shown())
		}
	}
	return out
}

func (tm *team) shown() Team {
	out := Team{ID: tm.id, Name: tm.name}
	for _, ch := range tm.channels {
		out.Channels = append(out.Channels, ch.id)
	}
	return out
}

// AddTeam makes a team of some people, the first of whom owns it, with channels of its own.
func (t *Tenant) AddTeam(name string, people ...PersonID) (Team, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var in []*Person
	for _, id := range people {
		p := t.dir.byID[id]
		if p == nil {
			return Team{}, fmt.Errorf("add team: no person %s", id)
		}
		in = append(in, p)
	}
	if len(in) == 0 {
		return Team{}, errors.New("add team: a team has an owner")
	}
	return t.drawTeam(t.live, name, in).shown(), nil
}

// DeleteTeam deletes a team and its group. Its channels can be exported for 30 days more,
// https://learn.microsoft.com/en-us/graph/api/deletedteam-getallmessages; nothing is written in them any more.
func (t *Tenant) DeleteTeam(id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.teams, func(tm *team) bool { return tm.id == id && tm.deleted.IsZero() })
	if i < 0 {
		return fmt.Errorf("delete team %s: no such team", id)
	}
	t.teams[i].deleted = t.now()
	t.dir.groups = slices.DeleteFunc(slices.Clone(t.dir.groups), func(g *Group) bool { return g.ID == id })
	for _, ch := range t.teams[i].channels {
		ch.roster = nil
	}
	t.recent = slices.DeleteFunc(t.recent, func(m *message) bool { return m.thread.team == id })
	return nil
}

// Join adds a person to a conversation, which leaves a system event in it. The new member's mailbox holds what is sent
// from then on.
func (t *Tenant) Join(in ThreadID, person PersonID) error { return t.changeRoster(in, person, true) }

// Leave takes a person out of a conversation, which leaves a system event in it.
func (t *Tenant) Leave(in ThreadID, person PersonID) error { return t.changeRoster(in, person, false) }

func (t *Tenant) changeRoster(in ThreadID, person PersonID, join bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	th, p := t.byThread[in], t.dir.byID[person]
	switch {
	case th == nil || th.kind == OneOnOne:
		return fmt.Errorf("change members of %s: no conversation whose members can change", in)
	case p == nil || slices.Contains(th.roster, person) == join:
		return fmt.Errorf("change members of %s: person %s cannot", in, person)
	}
	t.rosterEvent(th, p, join, t.now().UnixMilli())
	return nil
}

// rosterEvent changes the roster and tells everybody who was or is now in the conversation.
func (t *Tenant) rosterEvent(th *thread, p *Person, join bool, at int64) {
	was := th.roster
	detail := "membersDeletedEventMessageDetail"
	if join {
		detail = "membersAddedEventMessageDetail"
		th.roster = append(slices.Clone(was), p.ID)
	} else {
		th.roster = slices.DeleteFunc(slices.Clone(was), func(id PersonID) bool { return id == p.ID })
	}
	seenBy := th.roster
	if !join {
		seenBy = was
	}
	th.updated = at
	extra := map[string]any{"members": []any{identity{ID: string(p.ID), UserIdentityType: p.Identity}}}
	if join {
		extra["visibleHistoryStartDateTime"] = "0001-01-01T00:00:00Z"
	}
	t.post(th, nil, draft{event: detail, detail: extra, initiator: was[0]}, at, seenBy)
}

func fromMillis(ms int64) string { return stamp(time.UnixMilli(ms)) }
