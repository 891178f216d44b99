package azure

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/conversation"
	"steno/shared/teams"
)

// cursorForm is the only shape a cursor has: the row key of the last conversation
// listed. It is our own key, never the service's continuation token.
var cursorForm = regexp.MustCompile(`^(c-)?[0-9]{8,13}-[0-9a-z-]{1,64}$`)

// errCursor says that a cursor did not come from the listing it is used with.
func errCursor() error { return fmt.Errorf("%w: listing cursor", teams.ErrMalformed) }

func pageLimit(p conversation.PageRequest) (int, error) {
	if p.Limit < 0 || p.Limit > conversation.MaxPage {
		return 0, fmt.Errorf("listing limit %d: want 1 to %d", p.Limit, conversation.MaxPage)
	}
	if p.After != "" && !cursorForm.MatchString(p.After) {
		return 0, errCursor()
	}
	if p.Limit == 0 {
		return conversation.MaxPage, nil
	}
	return p.Limit, nil
}

// collect reads up to limit conversations of a range into page; full tells that
// there was at least one more.
func collect(ctx context.Context, t *aztables.Client, k keyRange, limit int, page *conversation.Page, keep func(row) bool) (full bool, err error) {
	last := ""
	top := int32(limit - len(page.Conversations) + 1)
	if keep != nil {
		top = 1000
	}
	err = scan(ctx, t, k, top, func(r row) (bool, error) {
		if keep != nil && !keep(r) {
			return true, nil
		}
		if len(page.Conversations) == limit {
			full = true
			page.Cursor = last
			return false, nil
		}
		var conv conversation.Conversation
		if err := json.Unmarshal(r.Data, &conv); err != nil {
			return false, fmt.Errorf("read conversation row: %w", err)
		}
		page.Conversations = append(page.Conversations, conv)
		last = r.RowKey
		return true, nil
	})
	return full, err
}

func (c *Catalog) monthPartition(t time.Time) string {
	return string(c.tenant) + "-" + t.UTC().Format("200601")
}

// ByTime costs one query for each month it has to look into.
func (c *Catalog) ByTime(ctx context.Context, from, to time.Time, p conversation.PageRequest) (conversation.Page, error) {
	limit, err := pageLimit(p)
	if err != nil {
		return conversation.Page{}, err
	}
	var page conversation.Page
	start, end := timeKeys(from, to, p.After, "")
	month := monthOf(to.Add(-time.Millisecond))
	if p.After != "" {
		if t, ok := timeOfKey(p.After); ok && monthOf(t).Before(month) {
			month = monthOf(t)
		}
	}
	for ; !month.Before(monthOf(from)); month = month.AddDate(0, -1, 0) {
		before := len(page.Conversations)
		full, err := collect(ctx, c.byTime, keyRange{c.monthPartition(month), start, end}, limit, &page, nil)
		if err != nil {
			return conversation.Page{}, fmt.Errorf("list by time: %w", err)
		}
		if full {
			if page.Cursor == "" && before > 0 { // the page filled up exactly at a month's end
				last := page.Conversations[before-1]
				page.Cursor = invertedTime(last.Start) + "-" + string(last.ID)
			}
			break
		}
	}
	return page, nil
}

// ByPerson costs one query.
func (c *Catalog) ByPerson(ctx context.Context, person teams.PersonID, from, to time.Time, p conversation.PageRequest) (conversation.Page, error) {
	limit, err := pageLimit(p)
	if err != nil {
		return conversation.Page{}, err
	}
	var page conversation.Page
	start, end := timeKeys(from, to, p.After, "c-")
	if _, err := collect(ctx, c.byPerson, keyRange{c.personPartition(person), start, end}, limit, &page, nil); err != nil {
		return conversation.Page{}, fmt.Errorf("list by person: %w", err)
	}
	return page, nil
}

// ByThread reads the thread's partition, the rows of objects and receipts included;
// it costs one query for every 1,000 rows passed over.
func (c *Catalog) ByThread(ctx context.Context, thread conversation.ThreadKey, p conversation.PageRequest) (conversation.Page, error) {
	limit, err := pageLimit(p)
	if err != nil {
		return conversation.Page{}, err
	}
	k := keyRange{c.threadPartition(thread), "0", "~"}
	if p.After != "" {
		k.from = p.After + "!" // '!' sorts before every character of a key
	}
	var page conversation.Page
	facts := func(r row) bool { return len(r.RowKey) == 10 && r.RowKey[8:] == "-c" }
	if _, err := collect(ctx, c.conversations, k, limit, &page, facts); err != nil {
		return conversation.Page{}, fmt.Errorf("list by thread: %w", err)
	}
	return page, nil
}

// timeKeys is the key range of starts in [from, to), newest first, after a cursor.
func timeKeys(from, to time.Time, after, lead string) (start, end string) {
	start = lead + invertedTime(to.Add(-time.Millisecond))
	end = lead + invertedTime(from) + "~"
	if after != "" && after >= start {
		start = after + "!" // '!' sorts before every character of a key
	}
	return start, end
}

func timeOfKey(k string) (time.Time, bool) {
	if len(k) < 13 {
		return time.Time{}, false
	}
	var n int64
	for _, ch := range []byte(k[:13]) {
		if ch < '0' || ch > '9' {
			return time.Time{}, false
		}
		n = n*10 + int64(ch-'0')
	}
	return time.UnixMilli(9999999999999 - n).UTC(), true
}

func monthOf(t time.Time) time.Time {
	y, m, _ := t.UTC().Date()
	return time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)
}
