package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/conversation"
	"steno/shared/teams"
)

// Catalog keeps conversations in three tables:
//
//	conversations          PartitionKey TENANT-THREADKEY, one per thread
//	                       RowKey INVDAY-c facts · INVDAY-o-OBJECT an object and its versions · INVDAY-r-… a receipt
//	conversationsbytime    PartitionKey TENANT-YYYYMM, RowKey INVTIME-ID
//	conversationsbyperson  PartitionKey TENANT-PERSON, RowKey c-INVTIME-ID conversations, w-WINDOW finished windows
//
// and what became of attachments in a fourth, attachments.go.
//
// INVDAY and INVTIME count down, so that the newest comes first. All rows of one
// conversation stand together: one range query reads them, one transaction changes
// them.
//
// A page of an export costs, for each conversation in it, one query, one transaction
// (and one blob), and two transactions for the page.
type Catalog struct {
	tenant        teams.TenantID
	conversations *aztables.Client
	byTime        *aztables.Client
	byPerson      *aztables.Client
	plan          *aztables.Client
	attachments   *aztables.Client
}

// NewCatalog returns the catalog of a tenant over tables that exist.
func NewCatalog(tenant teams.TenantID, s *aztables.ServiceClient) *Catalog {
	return &Catalog{
		tenant:        tenant,
		conversations: s.NewClient(TableConversations),
		byTime:        s.NewClient(TableByTime),
		byPerson:      s.NewClient(TableByPerson),
		plan:          s.NewClient(TablePlan),
		attachments:   s.NewClient(TableAttachments),
	}
}

func (c *Catalog) threadPartition(k conversation.ThreadKey) string {
	return string(c.tenant) + "-" + string(k)
}

func (c *Catalog) personPartition(p teams.PersonID) string {
	return string(c.tenant) + "-" + string(p)
}

// invertedDay sorts later days first; eight digits until the year 9999.
func invertedDay(t time.Time) string {
	y, m, d := t.UTC().Date()
	return fmt.Sprintf("%08d", 99999999-(y*10000+int(m)*100+d))
}

// invertedTime sorts later times first; 13 digits cover the years 1970 to 2286, and
// times outside of what a catalog holds count as its ends.
func invertedTime(t time.Time) string {
	return fmt.Sprintf("%013d", 9999999999999-within(t).UnixMilli())
}

func within(t time.Time) time.Time {
	switch {
	case t.Before(conversation.Earliest):
		return conversation.Earliest
	case t.After(conversation.Latest):
		return conversation.Latest
	}
	return t
}

// Slice costs one query for up to 1,000 objects and receipts.
func (c *Catalog) Slice(ctx context.Context, id conversation.ID) (conversation.Slice, error) {
	var s conversation.Slice
	day := invertedDay(id.Day())
	rows := prefix(c.threadPartition(id.Thread()), day+"-")
	err := scan(ctx, c.conversations, rows, 1000, func(r row) (bool, error) {
		kind := strings.TrimPrefix(r.RowKey, day+"-")
		switch {
		case kind == "c":
			s.Revision = r.ETag
			return true, json.Unmarshal(r.Data, &s.Conversation)
		case strings.HasPrefix(kind, "o-"):
			o, err := unpackObject(kind[2:], r.Data)
			s.Objects = append(s.Objects, o)
			return true, err
		case strings.HasPrefix(kind, "r-"):
			rc, err := unpackReceipt(r.Data)
			s.Receipts = append(s.Receipts, rc)
			return true, err
		}
		return true, fmt.Errorf("row key of an unknown kind in conversation %s", id)
	})
	if err != nil {
		return conversation.Slice{}, fmt.Errorf("read slice %s: %w", id, err)
	}
	return s, nil
}

// Claim costs one transaction. The facts' ETag guards the whole slice, since every
// change goes through them.
func (c *Catalog) Claim(ctx context.Context, was conversation.Slice, cl conversation.Claim) error {
	id := cl.Conversation.ID
	partition, day := c.threadPartition(id.Thread()), invertedDay(id.Day())
	facts, err := json.Marshal(cl.Conversation)
	if err != nil {
		return fmt.Errorf("claim in %s: %w", id, err)
	}
	b := batch{partition: partition}
	factsRow := row{PartitionKey: partition, RowKey: day + "-c", Data: facts}
	if was.Revision == "" {
		b.add(aztables.TransactionTypeAdd, factsRow, "")
	} else {
		b.add(aztables.TransactionTypeUpdateReplace, factsRow, was.Revision)
	}
	for _, name := range cl.Drop {
		b.add(aztables.TransactionTypeDelete, row{PartitionKey: partition, RowKey: day + "-o-" + name}, "*")
	}
	if o := cl.Add; o != nil {
		data, err := packObject(*o)
		if err != nil {
			return fmt.Errorf("claim in %s: %w", id, err)
		}
		b.add(aztables.TransactionTypeAdd, row{PartitionKey: partition, RowKey: day + "-o-" + o.Name, Data: data}, "")
	}
	if r := cl.Receipt; r != nil {
		key := day + "-r-" + string(r.Custodian) + "-" + r.Window
		b.add(aztables.TransactionTypeInsertReplace, row{PartitionKey: partition, RowKey: key, Data: packReceipt(*r)}, "")
	}
	err = b.submit(ctx, c.conversations)
	if errors.Is(err, errConflict) {
		return fmt.Errorf("claim in %s: %w", id, conversation.ErrConflict)
	}
	if err != nil {
		return fmt.Errorf("claim in %s: %w", id, err)
	}
	return nil
}

// FinishWindow costs one transaction for each month touched and one for the window (a
// plain write where it changes one row), and more only where 100 rows or 3 MiB do not hold what is touched. Conversations
// come before the window in every case.
func (c *Catalog) FinishWindow(ctx context.Context, done conversation.WindowDone, touched []conversation.Conversation) error {
	months := map[string]*batch{}
	person := &batch{partition: c.personPartition(done.Custodian)}
	for _, conv := range touched {
		data, err := json.Marshal(conv)
		if err != nil {
			return fmt.Errorf("index %s: %w", conv.ID, err)
		}
		p := c.monthPartition(conv.Start)
		if months[p] == nil {
			months[p] = &batch{partition: p}
		}
		key := positionKey(conv.Position())
		months[p].add(aztables.TransactionTypeInsertReplace, row{PartitionKey: p, RowKey: key, Data: data}, "")
		person.add(aztables.TransactionTypeInsertReplace, row{PartitionKey: person.partition, RowKey: "c-" + key, Data: data}, "")
		if months[p].full(1) {
			if err := months[p].submit(ctx, c.byTime); err != nil {
				return fmt.Errorf("index by time: %w", err)
			}
		}
		if person.full(1) {
			if err := person.submit(ctx, c.byPerson); err != nil {
				return fmt.Errorf("index by person: %w", err)
			}
		}
	}
	for _, b := range months {
		if err := b.submit(ctx, c.byTime); err != nil {
			return fmt.Errorf("index by time: %w", err)
		}
	}
	data, err := json.Marshal(done)
	if err != nil {
		return fmt.Errorf("finish window: %w", err)
	}
	person.add(aztables.TransactionTypeInsertReplace, row{PartitionKey: person.partition, RowKey: "w-" + done.Key(), Data: data}, "")
	if err := person.submit(ctx, c.byPerson); err != nil {
		return fmt.Errorf("finish window: %w", err)
	}
	return nil
}

// FinishedWindows costs one query for up to 1,000 windows.
func (c *Catalog) FinishedWindows(ctx context.Context, custodian teams.PersonID, pass int, from, to time.Time) ([]conversation.WindowDone, error) {
	var out []conversation.WindowDone
	k := keyRange{c.personPartition(custodian), fmt.Sprintf("w-%d-%013d", pass, from.UnixMilli()), fmt.Sprintf("w-%d-%013d", pass, to.UnixMilli())}
	err := scan(ctx, c.byPerson, k, 1000, func(r row) (bool, error) {
		var d conversation.WindowDone
		if err := json.Unmarshal(r.Data, &d); err != nil {
			return false, fmt.Errorf("read window record: %w", err)
		}
		if !d.From.Before(from) && !d.To.After(to) {
			out = append(out, d)
		}
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("list finished windows: %w", err)
	}
	return out, nil
}

// Progress costs one query for every 1,000 custodians.
func (c *Catalog) Progress(ctx context.Context) (map[teams.PersonID]conversation.Progress, error) {
	out := map[teams.PersonID]conversation.Progress{}
	err := scan(ctx, c.plan, prefix(string(c.tenant), "p-"), 1000, func(r row) (bool, error) {
		var p conversation.Progress
		if err := json.Unmarshal(r.Data, &p); err != nil {
			return false, fmt.Errorf("read progress: %w", err)
		}
		out[teams.PersonID(r.RowKey[2:])] = p
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read export progress: %w", err)
	}
	return out, nil
}

// SaveProgress costs one operation.
func (c *Catalog) SaveProgress(ctx context.Context, custodian teams.PersonID, p conversation.Progress) error {
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("save export progress: %w", err)
	}
	if err := replace(ctx, c.plan, row{PartitionKey: string(c.tenant), RowKey: "p-" + string(custodian), Data: data}); err != nil {
		return fmt.Errorf("save export progress: %w", err)
	}
	return nil
}
