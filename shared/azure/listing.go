package azure

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/conversation"
	"steno/shared/teams"
)

// positionKey is the row key of a conversation in the listings by time and person.
func positionKey(p conversation.Position) string {
	return invertedTime(p.Start) + "-" + string(p.ID)
}

// after is the smallest key behind another: '!' sorts before every character of a key.
func after(key string) string { return key + "!" }

// collect adds up to limit conversations of a range to a page. Of the rows it reads
// it keeps those that keep accepts; nil accepts all.
func collect(ctx context.Context, t *aztables.Client, k keyRange, limit int, page *conversation.Page, keep func(row) bool) error {
	top := int32(limit - len(page.Conversations) + 1)
	if keep != nil {
		top = 1000
	}
	return scan(ctx, t, k, top, func(r row) (bool, error) {
		if keep != nil && !keep(r) {
			return true, nil
		}
		if len(page.Conversations) == limit {
			page.More = true
			return false, nil
		}
		var conv conversation.Conversation
		if err := json.Unmarshal(r.Data, &conv); err != nil {
			return false, fmt.Errorf("read conversation row: %w", err)
		}
		page.Conversations = append(page.Conversations, conv)
		return true, nil
	})
}

func (c *Catalog) monthPartition(t time.Time) string {
	return string(c.tenant) + "-" + t.UTC().Format("200601")
}

// ByTime costs one query for each month it has to look into, empty ones included.
func (c *Catalog) ByTime(ctx context.Context, from, to time.Time, p conversation.PageRequest) (conversation.Page, error) {
	limit, err := p.CheckLimit()
	if err != nil {
		return conversation.Page{}, err
	}
	from, to = within(ceil(from)), within(ceil(to))
	newest := to.Add(-time.Millisecond)
	k := timeRange(from, to, p.After, "")
	if p.After.ID != "" && p.After.Start.Before(newest) {
		newest = p.After.Start
	}
	var page conversation.Page
	for month := monthOf(newest); !month.Before(monthOf(from)) && !page.More; month = month.AddDate(0, -1, 0) {
		k.partition = c.monthPartition(month)
		if err := collect(ctx, c.byTime, k, limit, &page, nil); err != nil {
			return conversation.Page{}, fmt.Errorf("list by time: %w", err)
		}
	}
	return page, nil
}

// ByPerson costs one query.
func (c *Catalog) ByPerson(ctx context.Context, person teams.PersonID, from, to time.Time, p conversation.PageRequest) (conversation.Page, error) {
	limit, err := p.CheckLimit()
	if err != nil {
		return conversation.Page{}, err
	}
	k := timeRange(within(ceil(from)), within(ceil(to)), p.After, "c-")
	k.partition = c.personPartition(person)
	var page conversation.Page
	if err := collect(ctx, c.byPerson, k, limit, &page, nil); err != nil {
		return conversation.Page{}, fmt.Errorf("list by person: %w", err)
	}
	return page, nil
}

// ByThread reads the thread's partition, the rows of objects and receipts included;
// it costs one query for every 1,000 rows passed over.
func (c *Catalog) ByThread(ctx context.Context, thread conversation.ThreadKey, p conversation.PageRequest) (conversation.Page, error) {
	limit, err := p.CheckLimit()
	if err != nil {
		return conversation.Page{}, err
	}
	k := keyRange{c.threadPartition(thread), "0", "~"}
	if p.After.ID != "" {
		k.from = after(invertedDay(p.After.ID.Day()) + "-c")
	}
	var page conversation.Page
	facts := func(r row) bool { return len(r.RowKey) == 10 && r.RowKey[8:] == "-c" }
	if err := collect(ctx, c.conversations, k, limit, &page, facts); err != nil {
		return conversation.Page{}, fmt.Errorf("list by thread: %w", err)
	}
	return page, nil
}

// ceil is the first whole millisecond that is not before t: starts are whole ones, so
// a bound between two means the later.
func ceil(t time.Time) time.Time {
	if whole := t.Truncate(time.Millisecond); whole.Before(t) {
		return whole.Add(time.Millisecond)
	}
	return t
}

// timeRange is the key range of starts in [from, to), newest first, behind a position.
// Both are whole milliseconds.
func timeRange(from, to time.Time, behind conversation.Position, lead string) keyRange {
	k := keyRange{from: lead + invertedTime(to.Add(-time.Millisecond)), to: lead + invertedTime(from) + "~"}
	if behind.ID != "" {
		k.from = max(k.from, after(lead+positionKey(behind)))
	}
	return k
}

func monthOf(t time.Time) time.Time {
	y, m, _ := t.UTC().Date()
	return time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)
}
