package storetest

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
)

// Catalog keeps conversations and windows. Its zero value is empty and ready.
type Catalog struct {
	mu       sync.Mutex
	revision int
	slices   map[conversation.ID]conversation.Slice
	attached map[conversation.ID]map[conversation.AttachmentID]conversation.Attachment
	byTime   map[conversation.ID]conversation.Conversation
	byPerson map[teams.PersonID]map[conversation.ID]conversation.Conversation
	windows  map[string]conversation.WindowDone
	progress map[teams.PersonID]conversation.Progress
	calls    map[conversation.ThreadKey]conversation.Call
}

func (c *Catalog) init() {
	if c.slices == nil {
		c.slices = map[conversation.ID]conversation.Slice{}
		c.byTime = map[conversation.ID]conversation.Conversation{}
		c.byPerson = map[teams.PersonID]map[conversation.ID]conversation.Conversation{}
		c.windows = map[string]conversation.WindowDone{}
		c.progress = map[teams.PersonID]conversation.Progress{}
		c.calls = map[conversation.ThreadKey]conversation.Call{}
	}
}

// Slice implements conversation.Catalog.
func (c *Catalog) Slice(_ context.Context, id conversation.ID) (conversation.Slice, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slices[id]
	s.Objects, s.Receipts = slices.Clone(s.Objects), slices.Clone(s.Receipts)
	return s, nil
}

// Claim implements conversation.Catalog.
func (c *Catalog) Claim(_ context.Context, was conversation.Slice, cl conversation.Claim) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init()
	id := cl.Conversation.ID
	now := c.slices[id]
	if now.Revision != was.Revision {
		return conversation.ErrConflict
	}
	c.revision++
	next := conversation.Slice{Conversation: cl.Conversation, Revision: strconv.Itoa(c.revision)}
	for _, o := range now.Objects {
		if !slices.Contains(cl.Drop, o.Name) {
			next.Objects = append(next.Objects, o)
		}
	}
	if cl.Add != nil {
		next.Objects = append(next.Objects, *cl.Add)
		slices.SortFunc(next.Objects, func(a, b conversation.Object) int {
			return slices.Compare([]byte(a.Name), []byte(b.Name))
		})
	}
	next.Receipts = slices.Clone(now.Receipts)
	if cl.Receipt != nil {
		next.Receipts = slices.DeleteFunc(next.Receipts, func(r conversation.Receipt) bool {
			return r.Custodian == cl.Receipt.Custodian && r.Window == cl.Receipt.Window
		})
		next.Receipts = append(next.Receipts, *cl.Receipt)
	}
	c.slices[id] = next
	return nil
}

// list answers one page of conversations that are in [from, to).
func list(all []conversation.Conversation, from, to time.Time, p conversation.PageRequest, less func(a, b conversation.Conversation) bool) (conversation.Page, error) {
	limit, err := p.CheckLimit()
	if err != nil {
		return conversation.Page{}, err
	}
	slices.SortFunc(all, func(a, b conversation.Conversation) int {
		switch {
		case less(a, b):
			return -1
		case less(b, a):
			return 1
		}
		return 0
	})
	var page conversation.Page
	after := conversation.Conversation{Start: p.After.Start, ID: p.After.ID}
	for _, c := range all {
		if c.Start.Before(from) || !c.Start.Before(to) || (p.After.ID != "" && !less(after, c)) {
			continue
		}
		if len(page.Conversations) == limit {
			page.More = true
			break
		}
		page.Conversations = append(page.Conversations, c)
	}
	return page, nil
}

func byPosition(a, b conversation.Conversation) bool { return a.Position().Before(b.Position()) }

// ByTime implements conversation.Catalog.
func (c *Catalog) ByTime(_ context.Context, from, to time.Time, p conversation.PageRequest) (conversation.Page, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return list(slices.Collect(maps.Values(c.byTime)), from, to, p, byPosition)
}

// ByPerson implements conversation.Catalog.
func (c *Catalog) ByPerson(_ context.Context, person teams.PersonID, from, to time.Time, p conversation.PageRequest) (conversation.Page, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return list(slices.Collect(maps.Values(c.byPerson[person])), from, to, p, byPosition)
}

// ByThread implements conversation.Catalog.
func (c *Catalog) ByThread(_ context.Context, thread conversation.ThreadKey, p conversation.PageRequest) (conversation.Page, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []conversation.Conversation
	for id, s := range c.slices {
		if id.Thread() == thread {
			all = append(all, s.Conversation)
		}
	}
	return list(all, time.Time{}, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), p, func(a, b conversation.Conversation) bool { return a.ID > b.ID })
}

// FinishWindow implements conversation.Catalog.
func (c *Catalog) FinishWindow(_ context.Context, done conversation.WindowDone, touched []conversation.Conversation) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init()
	for _, conv := range touched {
		c.byTime[conv.ID] = conv
		if c.byPerson[done.Custodian] == nil {
			c.byPerson[done.Custodian] = map[conversation.ID]conversation.Conversation{}
		}
		c.byPerson[done.Custodian][conv.ID] = conv
	}
	c.windows[string(done.Custodian)+done.Key()] = done
	return nil
}

// FinishedWindows implements conversation.Catalog.
func (c *Catalog) FinishedWindows(_ context.Context, custodian teams.PersonID, pass int, from, to time.Time) ([]conversation.WindowDone, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []conversation.WindowDone
	for _, k := range slices.Sorted(maps.Keys(c.windows)) {
		if d := c.windows[k]; d.Custodian == custodian && d.Pass == pass && !d.From.Before(from) && !d.To.After(to) {
			out = append(out, d)
		}
	}
	return out, nil
}

// Progress implements conversation.Catalog.
func (c *Catalog) Progress(context.Context) (map[teams.PersonID]conversation.Progress, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[teams.PersonID]conversation.Progress, len(c.progress))
	for person, p := range c.progress {
		out[person] = conversation.Progress{Planned: slices.Clone(p.Planned), At: p.At}
	}
	return out, nil
}

// SaveProgress implements conversation.Catalog.
func (c *Catalog) SaveProgress(_ context.Context, custodian teams.PersonID, p conversation.Progress) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init()
	c.progress[custodian] = conversation.Progress{Planned: slices.Clone(p.Planned), At: p.At}
	return nil
}

// All lists every slice, by id.
func (c *Catalog) All() []conversation.Slice {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []conversation.Slice
	for _, id := range slices.Sorted(maps.Keys(c.slices)) {
		out = append(out, c.slices[id])
	}
	return out
}

// Call implements conversation.Calls.
func (c *Catalog) Call(_ context.Context, key conversation.ThreadKey) (conversation.Call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.calls[key]
	found.Legs = slices.Clone(found.Legs)
	return found, nil
}

// SaveCall implements conversation.Calls.
func (c *Catalog) SaveCall(_ context.Context, was conversation.Call, now conversation.Conversation, legs ...conversation.Leg) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init()
	key := now.ID.Thread()
	held := c.calls[key]
	if held.Revision != was.Revision {
		return conversation.ErrConflict
	}
	c.revision++
	next := conversation.Call{Conversation: now, Revision: strconv.Itoa(c.revision), Legs: slices.Clone(held.Legs)}
	for _, l := range legs {
		next.Legs = slices.DeleteFunc(next.Legs, func(o conversation.Leg) bool { return o.Leg == l.Leg })
		next.Legs = append(next.Legs, l)
	}
	slices.SortFunc(next.Legs, func(a, b conversation.Leg) int { return strings.Compare(string(a.Leg), string(b.Leg)) })
	c.calls[key] = next
	return nil
}

// ListCall implements conversation.Calls.
func (c *Catalog) ListCall(_ context.Context, now conversation.Conversation) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init()
	c.byTime[now.ID] = now
	for _, p := range now.Custodians {
		if c.byPerson[p] == nil {
			c.byPerson[p] = map[conversation.ID]conversation.Conversation{}
		}
		c.byPerson[p][now.ID] = now
	}
	return nil
}
