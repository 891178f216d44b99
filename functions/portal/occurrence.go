package portal

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

const (
	// around is how long before and after a call what is written in its thread belongs to it.
	around = 15 * time.Minute
	// maxAsked bounds how many custodians' listings are looked through for the calls of a thread.
	maxAsked = 20
	// longestMeeting is how long a call may have run when its chat was written.
	longestMeeting = 36 * time.Hour
)

// occurrenceAnswer joins what belongs to one occurrence of a meeting: the call, and what was
// written in its chat meanwhile. Recurring meetings share a thread, so time decides.
type occurrenceAnswer struct {
	// Calls are those of the thread at that time: of a call, the call itself.
	Calls []occurringCall `json:"calls"`
	// Chats are the days of the thread that the occurrence touches.
	Chats []conversation.ID `json:"chats"`
	// From and To are the stretch whose messages belong to the occurrence.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

type occurringCall struct {
	ID      conversation.ID `json:"id"`
	Subject string          `json:"subject,omitempty"`
	First   time.Time       `json:"first"`
	Last    time.Time       `json:"last"`
	Running bool            `json:"running,omitempty"`
}

// occurrence answers what belongs together with a conversation: for a call the days of its
// chat, for a day of a chat the calls that were held in it. Each part is left out that the
// caller may not see.
func (p *Portal) occurrence(w http.ResponseWriter, r *http.Request, c caller) error {
	s, call, err := p.look(r, c)
	if err != nil {
		return err
	}
	out := occurrenceAnswer{Calls: []occurringCall{}, Chats: []conversation.ID{}}
	if call.Revision != "" {
		err = p.occurrenceOfCall(r.Context(), c, call.Conversation, &out)
	} else {
		s.Conversation.Custodians = s.AllCustodians()
		err = p.occurrenceOfChat(r.Context(), c, s.Conversation, &out)
	}
	if err != nil {
		return err
	}
	item := string(s.Conversation.ID) + string(call.Conversation.ID) // one of the two is empty
	if err := p.note(r.Context(), c, custody.List, item, fmt.Sprintf("occurrence: %d calls, %d days of chat", len(out.Calls), len(out.Chats))); err != nil {
		return err
	}
	return p.reply(w, out)
}

func (p *Portal) occurrenceOfCall(ctx context.Context, c caller, call conversation.Conversation, out *occurrenceAnswer) error {
	out.Calls = append(out.Calls, occurring(call))
	out.From, out.To = call.First.Add(-around), call.Last.Add(around)
	if call.Call.Running {
		out.To = p.config.Now().UTC()
	}
	if call.Thread == "" {
		return nil
	}
	siblings, err := p.callsOf(ctx, c.grant, call.Custodians, call.Thread, out.From.Add(-longestMeeting), out.To)
	if err != nil {
		return err
	}
	for _, o := range siblings {
		// Half way between two occurrences what is written turns from one to the other.
		switch {
		case o.ID == call.ID:
		case !o.Last.After(call.First):
			out.From = later(out.From, o.Last.Add(call.First.Sub(o.Last)/2))
		case !o.First.Before(call.Last):
			out.To = earlier(out.To, call.Last.Add(o.First.Sub(call.Last)/2))
		}
	}
	key := conversation.KeyOf(p.config.Tenant, call.Thread)
	for day := out.From.Truncate(24 * time.Hour); day.Before(out.To); day = day.AddDate(0, 0, 1) {
		slice, err := p.stores.Catalog.Slice(ctx, conversation.IDOf(key, day))
		if err != nil {
			return err
		}
		chat := slice.Conversation
		if chat.Custodians = slice.AllCustodians(); p.maySee(c.grant, chat) && chat.Disposed == nil {
			out.Chats = append(out.Chats, chat.ID)
		}
	}
	return nil
}

func (p *Portal) occurrenceOfChat(ctx context.Context, c caller, chat conversation.Conversation, out *occurrenceAnswer) error {
	out.From, out.To = chat.ID.Day(), chat.ID.Day().AddDate(0, 0, 1)
	out.Chats = append(out.Chats, chat.ID)
	calls, err := p.callsOf(ctx, c.grant, chat.Custodians, chat.Thread, out.From.Add(-longestMeeting), out.To)
	if err != nil {
		return err
	}
	for _, o := range calls {
		if o.Call.Running || o.Last.After(out.From) {
			out.Calls = append(out.Calls, occurring(o))
		}
	}
	return nil
}

func occurring(c conversation.Conversation) occurringCall {
	return occurringCall{ID: c.ID, Subject: visible(c.Call.Subject), First: c.First, Last: c.Last, Running: c.Call.Running}
}

// callsOf finds the calls of a thread that began in [from, to) and that the caller may see,
// oldest first, by the custodians they share with it. It costs a query for each of them.
func (p *Portal) callsOf(ctx context.Context, g policy.Grant, custodians []teams.PersonID, thread teams.ThreadID, from, to time.Time) ([]conversation.Conversation, error) {
	found := map[conversation.ID]conversation.Conversation{}
	asked := 0
	for _, person := range custodians {
		if !g.SeesAll() && !g.MaySeePerson(person) {
			continue
		}
		if asked++; asked > maxAsked {
			break
		}
		page := conversation.PageRequest{}
		for {
			got, err := p.stores.Catalog.ByPerson(ctx, person, from, to, page)
			if err != nil {
				return nil, err
			}
			for _, conv := range got.Conversations {
				if conv.Call != nil && conv.Thread == thread && conv.Disposed == nil && p.maySee(g, conv) {
					found[conv.ID] = conv
				}
			}
			if !got.More {
				break
			}
			page.After = got.Conversations[len(got.Conversations)-1].Position()
		}
	}
	out := make([]conversation.Conversation, 0, len(found))
	for _, conv := range found {
		out = append(out, conv)
	}
	slices.SortFunc(out, func(a, b conversation.Conversation) int { return a.First.Compare(b.First) })
	return out, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
