package msgraph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"steno/shared/teams"
)

// CallRecord is what the list of call records says of a call that has ended. Records appear
// some time after the end, grow for a while, and are gone after 30 days.
// https://learn.microsoft.com/graph/api/callrecords-cloudcommunications-list-callrecords
type CallRecord struct {
	ID      string // a lower-case GUID
	Version int64  // grows when Graph learns more
	Start   time.Time
	End     time.Time
	// Thread is the chat of a meeting, from its join address; empty for calls of two.
	Thread teams.ThreadID
}

// Session is a stretch in which somebody was connected to a call.
// https://learn.microsoft.com/graph/api/resources/callrecords-session
type Session struct {
	Start, End time.Time
	// People are the users of both ends; calls of two have both in one session.
	People []teams.PersonID
	Failed bool // Graph gives a reason why it failed
}

// CallRecordLife is how long Graph keeps a call record.
const CallRecordLife = 30 * 24 * time.Hour

// CallRecords lists the records of calls that began in [from, to). It costs one request for
// each page, of which Graph decides the size.
func (g *Client) CallRecords(ctx context.Context, from, to time.Time) ([]CallRecord, error) {
	const stamp = "2006-01-02T15:04:05Z"
	u := g.base.JoinPath("communications", "callRecords")
	u.RawQuery = url.Values{
		"$select": {"id,version,startDateTime,endDateTime,joinWebUrl"},
		"$filter": {"startDateTime ge " + from.UTC().Format(stamp) + " and startDateTime lt " + to.UTC().Format(stamp)},
	}.Encode()
	var out []CallRecord
	err := g.each(ctx, u, func(item []byte) error {
		var v struct {
			ID                         string
			Version                    int64
			StartDateTime, EndDateTime time.Time
			JoinWebURL                 *string
		}
		if err := json.Unmarshal(item, &v); err != nil {
			return fmt.Errorf("%w: call record: %w", ErrPage, err)
		}
		id, err := teams.ParseTenantID(v.ID) // the form of every id of Graph's; it becomes part of a path
		if err != nil || v.EndDateTime.Before(v.StartDateTime) {
			return fmt.Errorf("%w: call record without an id, or that ends before it begins", ErrPage)
		}
		r := CallRecord{ID: string(id), Version: v.Version, Start: v.StartDateTime.UTC(), End: v.EndDateTime.UTC()}
		if v.JoinWebURL != nil {
			r.Thread = threadOf(*v.JoinWebURL)
		}
		out = append(out, r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list call records: %w", err)
	}
	return out, nil
}

// threadOf reads the thread from a join address, which is
// https://teams.microsoft.com/l/meetup-join/THREAD/0?context=… with the thread escaped. An
// address of another form has none.
func threadOf(join string) teams.ThreadID {
	u, err := url.Parse(join)
	if err != nil {
		return ""
	}
	words := strings.Split(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	if len(words) < 3 || words[0] != "l" || words[1] != "meetup-join" {
		return ""
	}
	s, err := url.PathUnescape(words[2])
	if err != nil {
		return ""
	}
	thread, err := teams.ParseThreadID(s)
	if err != nil {
		return ""
	}
	return thread
}

// endpoint is one end of a session, as far as it names a user.
type endpoint struct {
	Identity *struct {
		User *struct{ ID string }
	}
	AssociatedIdentity *struct{ ID string }
}

func (e *endpoint) person() (teams.PersonID, bool) {
	id := ""
	switch {
	case e == nil:
	case e.AssociatedIdentity != nil && e.AssociatedIdentity.ID != "":
		id = e.AssociatedIdentity.ID
	case e.Identity != nil && e.Identity.User != nil:
		id = e.Identity.User.ID
	}
	p, err := teams.ParsePersonID(id) // telephones and guests have ids of other forms
	return p, err == nil
}

// Sessions lists the sessions of a call record. It costs one request for each page.
// https://learn.microsoft.com/graph/api/callrecords-session-list
func (g *Client) Sessions(ctx context.Context, record string) ([]Session, error) {
	if _, err := teams.ParseTenantID(record); err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	var out []Session
	err := g.each(ctx, g.base.JoinPath("communications", "callRecords", record, "sessions"), func(item []byte) error {
		var v struct {
			StartDateTime, EndDateTime time.Time
			Caller, Callee             *endpoint
			FailureInfo                json.RawMessage
		}
		if err := json.Unmarshal(item, &v); err != nil {
			return fmt.Errorf("%w: session: %w", ErrPage, err)
		}
		s := Session{Start: v.StartDateTime.UTC(), End: v.EndDateTime.UTC(), Failed: len(v.FailureInfo) > 0 && string(v.FailureInfo) != "null"}
		for _, e := range []*endpoint{v.Caller, v.Callee} {
			if p, ok := e.person(); ok {
				s.People = append(s.People, p)
			}
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list sessions of a call record: %w", err)
	}
	return out, nil
}

// each reads a listing to its end.
func (g *Client) each(ctx context.Context, u *url.URL, take func(item []byte) error) error {
	seen := map[string]bool{}
	for range MaxPages {
		body, id, err := g.get(ctx, u)
		if err != nil {
			return err
		}
		items, next, err := splitPage(body)
		if err != nil {
			return fmt.Errorf("request-id %s: %w", id, err)
		}
		for _, item := range items {
			if err := take(item); err != nil {
				return fmt.Errorf("request-id %s: %w", id, err)
			}
		}
		if next == "" {
			return nil
		}
		if seen[next] {
			return errors.New("nextLink leads in a circle")
		}
		seen[next] = true
		if u, err = g.follow(next); err != nil {
			return err
		}
	}
	return fmt.Errorf("more than %d pages", MaxPages)
}
