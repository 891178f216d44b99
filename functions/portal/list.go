package portal

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

type sessionAnswer struct {
	Person      teams.PersonID `json:"person"`
	Name        string         `json:"name"`
	Address     string         `json:"address"`
	Roles       []policy.Role  `json:"roles"`
	SeesContent bool           `json:"seesContent"`
	SeesAll     bool           `json:"seesAll"`
}

func (p *Portal) session(w http.ResponseWriter, r *http.Request, c caller) error {
	people, err := p.stores.Roster.People(r.Context(), []teams.PersonID{c.person})
	if err != nil {
		return err
	}
	me := people[c.person]
	return p.reply(w, sessionAnswer{
		Person: c.person, Name: me.DisplayName, Address: me.Address,
		Roles: c.grant.Roles(), SeesContent: c.grant.SeesContent(), SeesAll: c.grant.SeesAll(),
	})
}

type personAnswer struct {
	ID                teams.PersonID  `json:"id"`
	Name              string          `json:"name"`
	Address           string          `json:"address"`
	Enabled           bool            `json:"enabled"`
	CommunicationsDLP bool            `json:"communicationsDlp"`
	Periods           []policy.Period `json:"periods"`
	// Team tells a recorded team from a person.
	Team bool `json:"team"`
	// Capture is what the directory says of her, Deleted and LostPlan since when.
	Capture  policy.CaptureState `json:"capture"`
	Deleted  *time.Time          `json:"deleted,omitempty"`
	LostPlan *time.Time          `json:"lostPlan,omitempty"`
	Unread   []unreadAnswer      `json:"unread"` // what could not be read
}

// unreadAnswer is a stretch that could not be read.
type unreadAnswer struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Status int       `json:"status"`
	Code   string    `json:"code"`
	Since  time.Time `json:"since"`
	At     time.Time `json:"at"`
}

// unread lists what could not be read, by custodian, in the order of time and each stretch
// once, whichever passes failed. It costs one query for every 1,000 failures.
func (p *Portal) unread(ctx context.Context) (map[teams.PersonID][]unreadAnswer, error) {
	all, err := p.stores.Failures.AllFailures(ctx)
	if err != nil {
		return nil, err
	}
	out := map[teams.PersonID][]unreadAnswer{}
	slices.SortFunc(all, func(a, b conversation.WindowFailed) int { return cmp.Or(a.From.Compare(b.From), b.To.Compare(a.To)) })
	for _, f := range all {
		own := out[f.Custodian]
		if n := len(own); n > 0 && !f.From.After(own[n-1].To) {
			last := &own[n-1]
			if f.To.After(last.To) {
				last.To = f.To
			}
			if f.At.After(last.At) {
				last.At, last.Status, last.Code = f.At, f.Status, f.Code
			}
			continue
		}
		out[f.Custodian] = append(own, unreadAnswer{From: f.From, To: f.To, Status: f.Status, Code: f.Code, Since: f.Since, At: f.At})
	}
	return out, nil
}

// sinceWhen is a time that may be none.
func sinceWhen(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// people lists the recorded users and teams whose conversations the caller may see, and
// how each can be captured. Administrators see every recorded user, since who is recorded
// is what they configure; they see no conversation of theirs.
func (p *Portal) people(w http.ResponseWriter, r *http.Request, c caller) error {
	periods, err := policy.Custodians(r.Context(), p.stores.Roster)
	if err != nil {
		return err
	}
	byPerson := map[teams.PersonID][]policy.Period{}
	for _, period := range periods {
		if c.grant.Has(policy.Administrator) || c.grant.MaySeePerson(period.Person) {
			byPerson[period.Person] = append(byPerson[period.Person], period)
		}
	}
	ids := make([]teams.PersonID, 0, len(byPerson))
	for id := range byPerson {
		ids = append(ids, id)
	}
	facts, err := p.stores.Roster.People(r.Context(), ids)
	if err != nil {
		return err
	}
	unread, err := p.unread(r.Context())
	if err != nil {
		return err
	}
	out := make([]personAnswer, 0, len(ids))
	for _, id := range ids {
		f, own := facts[id], byPerson[id]
		out = append(out, personAnswer{
			ID: id, Name: visible(f.DisplayName), Address: f.Address, Enabled: f.Enabled, CommunicationsDLP: f.CommunicationsDLP, Periods: own,
			Team:    slices.ContainsFunc(own, func(p policy.Period) bool { return p.Role == policy.RecordedTeam }),
			Capture: policy.CaptureOf(f, own, p.config.Now()), Deleted: sinceWhen(f.Deleted), LostPlan: sinceWhen(f.LostPlan),
			Unread: append([]unreadAnswer{}, unread[id]...),
		})
	}
	slices.SortFunc(out, func(a, b personAnswer) int {
		if n := strings.Compare(a.Name, b.Name); n != 0 {
			return n
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	return p.reply(w, map[string]any{"people": out})
}

type listAnswer struct {
	Conversations []conversation.Conversation `json:"conversations"`
	Cursor        string                      `json:"cursor,omitempty"`
}

// query is what a listing was asked for.
type query struct {
	from, to time.Time
	person   teams.PersonID
	page     conversation.PageRequest
}

func (p *Portal) readQuery(r *http.Request) (query, error) {
	v := r.URL.Query()
	if err := checkNames(v, "from", "to", "person", "cursor", "limit"); err != nil {
		return query{}, err
	}
	now := p.config.Now().UTC()
	q := query{from: now.AddDate(0, 0, -30), to: now.Add(time.Minute)}
	var err error
	if q.from, q.to, err = readStretch(v, q.from, q.to, maxRange); err != nil {
		return query{}, err
	}
	if s := v.Get("person"); s != "" {
		if q.person, err = teams.ParsePersonID(s); err != nil {
			return query{}, badRequest("person: want an object id")
		}
	}
	q.page, err = readPage(v.Get("limit"), v.Get("cursor"))
	return q, err
}

// readStretch reads from and to, where they are given, in place of those passed in.
func readStretch(v url.Values, from, to time.Time, longest time.Duration) (time.Time, time.Time, error) {
	for name, at := range map[string]*time.Time{"from": &from, "to": &to} {
		if s := v.Get(name); s != "" {
			t, err := time.Parse(time.RFC3339, s)
			if err != nil {
				return from, to, badRequest(name + ": want a time such as 2026-01-31T00:00:00Z")
			}
			*at = t
		}
	}
	if !from.Before(to) || to.Sub(from) > longest {
		return from, to, badRequest(fmt.Sprintf("from must be before to, and at most %d days before", int(longest.Hours()/24)))
	}
	return from, to, nil
}

func checkNames(v url.Values, known ...string) error {
	for name, values := range v {
		if !slices.Contains(known, name) || len(values) != 1 {
			return badRequest("unknown or repeated parameter")
		}
	}
	return nil
}

func readPage(limit, cursor string) (conversation.PageRequest, error) {
	page := conversation.PageRequest{Limit: 50}
	if limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 1 || n > maxListed {
			return page, badRequest(fmt.Sprintf("limit: want 1 to %d", maxListed))
		}
		page.Limit = n
	}
	if cursor != "" {
		at, err := parseCursor(cursor)
		if err != nil {
			return page, badRequest("cursor: not one of ours")
		}
		page.After = at
	}
	return page, nil
}

// A cursor is a position, readable by whoever wants to: rights are checked on what
// is listed, not on where the listing starts.
func cursorOf(p conversation.Position) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(p.Start.UnixMilli(), 10) + "." + string(p.ID)))
}

func parseCursor(s string) (conversation.Position, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) > 128 {
		return conversation.Position{}, teams.ErrMalformed
	}
	ms, id, ok := strings.Cut(string(b), ".")
	n, err := strconv.ParseInt(ms, 10, 64)
	if !ok || err != nil || n < 0 || n > 9999999999999 {
		return conversation.Position{}, teams.ErrMalformed
	}
	cid, err := conversation.ParseID(id)
	return conversation.Position{Start: time.UnixMilli(n).UTC(), ID: cid}, err
}

// list lists conversations newest first: of one person, or of all the caller may see.
func (p *Portal) list(w http.ResponseWriter, r *http.Request, c caller) error {
	q, err := p.readQuery(r)
	if err != nil {
		return err
	}
	var read reader
	switch {
	case q.person != "" && !c.grant.MaySeePerson(q.person):
		// The same answer as for somebody who does not exist: an empty list.
		return p.answerList(w, r, c, conversation.Page{}, "conversations")
	case q.person != "":
		read = func(ctx context.Context, page conversation.PageRequest) (conversation.Page, error) {
			return p.stores.Catalog.ByPerson(ctx, q.person, q.from, q.to, page)
		}
	case c.grant.SeesAll():
		read = func(ctx context.Context, page conversation.PageRequest) (conversation.Page, error) {
			return p.stores.Catalog.ByTime(ctx, q.from, q.to, page)
		}
	default:
		read = func(ctx context.Context, page conversation.PageRequest) (conversation.Page, error) {
			return p.merged(ctx, c.grant.People(), q, page)
		}
	}
	page, err := p.fill(r.Context(), c.grant, q.page, read)
	if err != nil {
		return err
	}
	return p.answerList(w, r, c, page, "conversations")
}

// reader reads one page of a listing of the catalog.
type reader func(ctx context.Context, page conversation.PageRequest) (conversation.Page, error)

// fill makes a page of conversations that may be seen, reading on past those that may
// not: a cursor or a short page would tell that the others are there.
func (p *Portal) fill(ctx context.Context, g policy.Grant, req conversation.PageRequest, read reader) (conversation.Page, error) {
	var out conversation.Page
	next := conversation.PageRequest{Limit: req.Limit + 1, After: req.After}
	for {
		page, err := read(ctx, next)
		if err != nil {
			return conversation.Page{}, err
		}
		for _, conv := range page.Conversations {
			if !p.maySee(g, conv) {
				continue
			}
			if len(out.Conversations) == req.Limit {
				out.More = true
				return out, nil
			}
			out.Conversations = append(out.Conversations, conv)
		}
		if !page.More || len(page.Conversations) == 0 {
			return out, nil
		}
		next.After = page.Conversations[len(page.Conversations)-1].Position()
	}
}

// thread lists the days of one thread, as far as the caller may see them.
func (p *Portal) thread(w http.ResponseWriter, r *http.Request, c caller) error {
	key, err := conversation.ParseThreadKey(r.PathValue("thread"))
	if err != nil {
		return errNotFound
	}
	v := r.URL.Query()
	if err := checkNames(v, "cursor", "limit"); err != nil {
		return err
	}
	req, err := readPage(v.Get("limit"), v.Get("cursor"))
	if err != nil {
		return err
	}
	page, err := p.fill(r.Context(), c.grant, req, func(ctx context.Context, page conversation.PageRequest) (conversation.Page, error) {
		return p.stores.Catalog.ByThread(ctx, key, page)
	})
	if err != nil {
		return err
	}
	return p.answerList(w, r, c, page, "thread "+string(key))
}

// answerList leaves a custody event and then a page of what the caller may see: who
// wrote with whom and when is not content, but it is not nothing either.
func (p *Portal) answerList(w http.ResponseWriter, r *http.Request, c caller, page conversation.Page, item string) error {
	out := listAnswer{Conversations: []conversation.Conversation{}}
	for _, conv := range page.Conversations {
		out.Conversations = append(out.Conversations, visibleNames(conv))
	}
	var participants [][]conversation.Participant
	for _, conv := range out.Conversations {
		participants = append(participants, conv.Participants)
	}
	if err := p.fillNames(r.Context(), participants...); err != nil {
		return err
	}
	if n := len(page.Conversations); page.More && n > 0 {
		out.Cursor = cursorOf(page.Conversations[n-1].Position())
	}
	_, err := p.stores.Trail.Append(r.Context(), custody.Event{
		Tenant: p.config.Tenant, Action: custody.List, Actor: c.person, Session: c.session,
		Item: item, Detail: fmt.Sprintf("%d conversations", len(out.Conversations)),
	})
	if err != nil {
		return err
	}
	return p.reply(w, out)
}

func (p *Portal) maySee(g policy.Grant, c conversation.Conversation) bool {
	return c.ID != "" && g.MaySee(c.Custodians, c.First, c.Last, p.config.History)
}

// merged lists the conversations of several people as one list. A conversation that
// several of them share is listed once.
func (p *Portal) merged(ctx context.Context, people []teams.PersonID, q query, req conversation.PageRequest) (conversation.Page, error) {
	if len(people) > maxPeopleMerged {
		return conversation.Page{}, badRequest(fmt.Sprintf("more than %d people; name one", maxPeopleMerged))
	}
	pages := make([]conversation.Page, len(people))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i, person := range people {
		group.Go(func() (err error) {
			pages[i], err = p.stores.Catalog.ByPerson(ctx, person, q.from, q.to, req)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return conversation.Page{}, err
	}
	return mergePages(pages, req.Limit), nil
}

// mergePages joins pages. Each person's list has the facts as they were when her own
// export last returned the conversation, so of several the one with the most versions
// is the latest.
func mergePages(pages []conversation.Page, limit int) conversation.Page {
	at := map[conversation.ID]int{}
	var out conversation.Page
	for _, page := range pages {
		out.More = out.More || page.More
		for _, c := range page.Conversations {
			i, seen := at[c.ID]
			switch {
			case !seen:
				at[c.ID] = len(out.Conversations)
				out.Conversations = append(out.Conversations, c)
			case c.Versions > out.Conversations[i].Versions:
				out.Conversations[i] = c
			}
		}
	}
	slices.SortFunc(out.Conversations, func(a, b conversation.Conversation) int {
		switch {
		case a.Position().Before(b.Position()):
			return -1
		case b.Position().Before(a.Position()):
			return 1
		}
		return 0
	})
	if len(out.Conversations) > limit {
		out.Conversations, out.More = out.Conversations[:limit], true
	}
	return out
}
