package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
)

// Tables are the tables Steno keeps.
var Tables = []string{TableConversations, TableByTime, TableByPerson, TablePlan, TableRoster, TableCustody, TableKeys, TableMatters, TableApprovals, TableDispositions, TableExports, TableCallRecords, TableSubscriptions, TableLookbacks, TableAttachments}

// The names of the tables. Keys has one of its own, because only few identities may
// read it and one alone may delete from it.
const (
	TableConversations = "conversations"
	TableByTime        = "conversationsbytime"
	TableByPerson      = "conversationsbyperson"
	TablePlan          = "exportplan"
	TableRoster        = "roster"
	TableCustody       = "custody"
	TableKeys          = "keys"
	TableMatters       = "matters"
	TableApprovals     = "approvals"
	TableDispositions  = "dispositions"
	TableExports       = "exports"
	TableCallRecords   = "callrecords"
	TableSubscriptions = "subscriptions"
	TableLookbacks     = "lookbacks"
	TableAttachments   = "attachments"
)

// row is what every entity looks like here: a document in one property. Data is
// binary because Table storage bills strings at two bytes a character.
type row struct {
	PartitionKey string `json:"PartitionKey"`
	RowKey       string `json:"RowKey"`
	DataType     string `json:"Data@odata.type"`
	Data         []byte `json:"Data"` // base64 in JSON, as Edm.Binary wants it
	ETag         string `json:"odata.etag,omitempty"`
}

// maxData is the most a binary property holds (64 KiB).
// https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model
const maxData = 64 << 10

func (r row) marshal() ([]byte, error) {
	if len(r.Data) > maxData {
		return nil, fmt.Errorf("row of %d bytes, more than the %d a property holds", len(r.Data), maxData)
	}
	r.DataType, r.ETag = "Edm.Binary", ""
	return json.Marshal(r)
}

// keyRange is a stretch of one partition: RowKey in [from, to).
type keyRange struct{ partition, from, to string }

// prefix is the range of all row keys that start so. Row keys are ASCII below '~'.
func prefix(partition, p string) keyRange { return keyRange{partition, p, p + "~"} }

// filter and that of storedSince are where OData filters are made. Quotes are doubled as
// the grammar asks, although no key of ours holds any.
// https://docs.oasis-open.org/odata/odata/v4.01/odata-v4.01-part2-url-conventions.html 5.1.1.14.1
func (k keyRange) filter() string {
	return "PartitionKey eq " + quoted(k.partition) + " and RowKey ge " + quoted(k.from) + " and RowKey lt " + quoted(k.to)
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// storedSince is the rows of all partitions that begin so which storage stored, by its own
// clock, at or after a time.
type storedSince struct {
	partitions string
	since      time.Time
}

// filter is made of quoted text and of a time alone, like the other.
func (s storedSince) filter() string {
	f := "PartitionKey ge " + quoted(s.partitions) + " and PartitionKey lt " + quoted(s.partitions+"~")
	if s.since.IsZero() {
		return f
	}
	return f + " and Timestamp ge datetime'" + s.since.UTC().Format("2006-01-02T15:04:05.000Z") + "'"
}

// scan calls each for the rows of a range in key order until it returns false. It
// asks for top rows at a time (at most 1,000) and costs one operation for each; a
// page may be empty and still not be the last.
func scan(ctx context.Context, c *aztables.Client, k keyRange, top int32, each func(row) (bool, error)) error {
	return query(ctx, c, k.filter(), top, each)
}

func query(ctx context.Context, c *aztables.Client, filter string, top int32, each func(row) (bool, error)) error {
	pager := c.NewListEntitiesPager(&aztables.ListEntitiesOptions{
		Filter: to.Ptr(filter), Top: to.Ptr(min(top, 1000)), Format: to.Ptr(aztables.MetadataFormatMinimal),
	})
	for pager.More() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("query table: %w", hide(err))
		}
		for _, e := range page.Entities {
			var r row
			if err := json.Unmarshal(e, &r); err != nil {
				return fmt.Errorf("read table row: %w", err)
			}
			goOn, err := each(r)
			if err != nil || !goOn {
				return err
			}
		}
	}
	return nil
}

// insert stores a row that must not be there yet; errConflict if it is.
func insert(ctx context.Context, c *aztables.Client, r row) error {
	b, err := r.marshal()
	if err != nil {
		return err
	}
	if _, err := c.AddEntity(ctx, b, nil); err != nil {
		return classify("insert table row", err)
	}
	return nil
}

// replace stores a row whatever was there.
func replace(ctx context.Context, c *aztables.Client, r row) error {
	b, err := r.marshal()
	if err != nil {
		return err
	}
	if _, err := c.UpsertEntity(ctx, b, &aztables.UpsertEntityOptions{UpdateMode: aztables.UpdateModeReplace}); err != nil {
		return classify("replace table row", err)
	}
	return nil
}

// batch is a transaction on one partition, at most 100 rows.
type batch struct {
	partition string
	actions   []aztables.TransactionAction
	size      int // of the entities in JSON
	err       error
}

// maxBatch is how many rows one transaction may change. Its body may have 4 MiB, of
// which fullBatch leaves room for one more row and for what stands between the rows.
const (
	maxBatch  = 100
	fullBatch = 3 << 20
)

// full reports whether the transaction should be sent before the next n rows.
func (b *batch) full(n int) bool { return len(b.actions)+n > maxBatch || b.size > fullBatch }

func (b *batch) add(kind aztables.TransactionType, r row, ifMatch string) {
	if r.PartitionKey != b.partition {
		b.err = errors.Join(b.err, errors.New("transaction: rows of two partitions"))
		return
	}
	body, err := r.marshal()
	if err != nil {
		b.err = errors.Join(b.err, err)
		return
	}
	a := aztables.TransactionAction{ActionType: kind, Entity: body}
	if ifMatch != "" {
		a.IfMatch = to.Ptr(azcore.ETag(ifMatch))
	}
	b.actions = append(b.actions, a)
	b.size += len(body)
}

// submit runs the transaction, all or nothing, in one operation, and empties the
// batch. errConflict if a condition did not hold.
func (b *batch) submit(ctx context.Context, c *aztables.Client) error {
	if b.err != nil {
		return b.err
	}
	if len(b.actions) > maxBatch {
		return fmt.Errorf("transaction of %d rows, more than %d", len(b.actions), maxBatch)
	}
	if len(b.actions) == 0 {
		return nil
	}
	actions := b.actions
	b.actions, b.size = nil, 0
	if a := actions[0]; len(actions) == 1 && a.ActionType == aztables.TransactionTypeInsertReplace {
		// The same effect and price without the multipart envelope.
		_, err := c.UpsertEntity(ctx, a.Entity, &aztables.UpsertEntityOptions{UpdateMode: aztables.UpdateModeReplace})
		if err != nil {
			return classify("replace table row", err)
		}
		return nil
	}
	if _, err := c.SubmitTransaction(ctx, actions, nil); err != nil {
		return classify("submit table transaction", err)
	}
	return nil
}
