package azure

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/shared/coverage"
	"steno/shared/evidence"
	"steno/shared/teams"
)

// CallRecords keeps call records: partition TENANT, RowKey START-ID-PART, START in
// milliseconds. A record with many stays takes several rows, which one transaction replaces.
type CallRecords struct {
	tenant teams.TenantID
	t      *aztables.Client
}

// NewCallRecords returns the register of a tenant over a table that exists.
func NewCallRecords(tenant teams.TenantID, s *aztables.ServiceClient) *CallRecords {
	return &CallRecords{tenant, s.NewClient(TableCallRecords)}
}

// staysPerRow keeps a row well below what a property holds; a stay has some 350 bytes.
const staysPerRow = 100

// maxStays is what the rows of one transaction hold, less one for the record itself.
const maxStays = staysPerRow * (maxBatch - 1)

// recordPart is one row of a record.
type recordPart struct {
	coverage.CallRecord
	Parts int `json:"parts"` // rows that count; an earlier version may have left more
}

// SaveRecord costs one operation.
func (s *CallRecords) SaveRecord(ctx context.Context, r coverage.CallRecord) error {
	if len(r.Stays) > maxStays {
		return fmt.Errorf("save call record: %d stays, more than %d", len(r.Stays), maxStays)
	}
	b := batch{partition: string(s.tenant)}
	chunks := slices.Collect(slices.Chunk(r.Stays, staysPerRow))
	for i := range max(1, len(chunks)) {
		part := recordPart{CallRecord: r, Parts: max(1, len(chunks))}
		if part.Stays = nil; i < len(chunks) {
			part.Stays = chunks[i]
		}
		data, err := json.Marshal(part)
		if err != nil {
			return fmt.Errorf("save call record: %w", err)
		}
		key := fmt.Sprintf("%013d-%s-%02d", r.Start.UnixMilli(), r.ID, i)
		b.add(aztables.TransactionTypeInsertReplace, row{PartitionKey: b.partition, RowKey: key, Data: data}, "")
	}
	if err := b.submit(ctx, s.t); err != nil {
		return fmt.Errorf("save call record: %w", err)
	}
	return nil
}

// Records costs one query for every 1,000 rows.
func (s *CallRecords) Records(ctx context.Context, from, to time.Time) (out []coverage.CallRecord, err error) {
	k := keyRange{string(s.tenant), fmt.Sprintf("%013d", from.UnixMilli()), fmt.Sprintf("%013d", to.UnixMilli())}
	seen := 0
	err = scan(ctx, s.t, k, 1000, func(r row) (bool, error) {
		var p recordPart
		if err := json.Unmarshal(r.Data, &p); err != nil {
			return false, fmt.Errorf("read call record: %w", err)
		}
		if n := len(out); n == 0 || out[n-1].ID != p.ID || !out[n-1].Start.Equal(p.Start) {
			out, seen = append(out, p.CallRecord), 1
			return true, nil
		}
		if last := &out[len(out)-1]; seen < p.Parts && last.Version == p.Version {
			last.Stays = append(last.Stays, p.Stays...)
		}
		seen++
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("list call records: %w", err)
	}
	return out, nil
}

// Statements keeps coverage statements in a write-once container: TENANT/DAY/REVISION.json, as
// it was signed, and TENANT/DAY/REVISION.sig, the signature in DER.
type Statements struct {
	tenant string
	c      *container.Client
	blobs  *Blobs
}

// NewStatements returns the statements of a tenant over a container that exists.
func NewStatements(tenant teams.TenantID, c *container.Client) *Statements {
	return &Statements{string(tenant), c, NewBlobs(c)}
}

func (s *Statements) name(n coverage.Stated, ending string) string {
	return fmt.Sprintf("%s/%s/%06d.%s", s.tenant, n.Day, n.Revision, ending)
}

// Create costs two write operations, and a read operation for each name that is taken.
func (s *Statements) Create(ctx context.Context, n coverage.Stated, body, signature []byte) error {
	err := s.blobs.Create(ctx, s.name(n, "json"), body)
	if errors.Is(err, evidence.ErrExists) {
		stands, _, err := download(ctx, s.c, s.name(n, "json"))
		if err != nil {
			return err
		}
		if !bytes.Equal(stands, body) {
			return coverage.ErrStated
		}
	} else if err != nil {
		return fmt.Errorf("store coverage statement: %w", err)
	}
	// Signing the same twice gives two signatures; the one that stands is as good.
	if err := s.blobs.Create(ctx, s.name(n, "sig"), signature); err != nil && !errors.Is(err, evidence.ErrExists) {
		return fmt.Errorf("store signature of coverage statement: %w", err)
	}
	return nil
}

// Read costs two read operations.
func (s *Statements) Read(ctx context.Context, n coverage.Stated) (body, signature []byte, err error) {
	if signature, _, err = download(ctx, s.c, s.name(n, "sig")); err == nil && signature != nil {
		body, _, err = download(ctx, s.c, s.name(n, "json"))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read coverage statement: %w", err)
	}
	if body == nil {
		return nil, nil, coverage.ErrNoStatement
	}
	return body, signature, nil
}

var statementName = regexp.MustCompile(`/([0-9]{4}-[0-9]{2}-[0-9]{2})/([0-9]{6})\.sig$`)

// List costs a list operation for every 5,000 blobs of each year it touches.
func (s *Statements) List(ctx context.Context, from, until string) (out []coverage.Stated, err error) {
	if len(from) != 10 || len(until) != 10 {
		return nil, errors.New("list coverage statements: want days")
	}
	for prefix := range common(from, until) {
		pager := s.c.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: to.Ptr(s.tenant + "/" + prefix)})
		for pager.More() {
			page, err := pager.NextPage(ctx)
			if err != nil {
				return nil, fmt.Errorf("list coverage statements: %w", hide(err))
			}
			for _, b := range page.Segment.BlobItems {
				m := statementName.FindStringSubmatch(*b.Name)
				if m == nil || m[1] < from || m[1] > until {
					continue
				}
				n, err := strconv.Atoi(m[2])
				if err != nil {
					return nil, fmt.Errorf("list coverage statements: %w", err)
				}
				out = append(out, coverage.Stated{Day: m[1], Revision: n})
			}
		}
	}
	return out, nil
}

// common yields the prefixes under which the days of a range lie: a month's where they are of
// one, else the years'.
func common(from, to string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		if from[:7] == to[:7] {
			yield(from[:7])
			return
		}
		for y := from[:4]; y <= to[:4]; {
			if !yield(y) {
				return
			}
			n, err := strconv.Atoi(y)
			if err != nil {
				return
			}
			y = fmt.Sprintf("%04d", n+1)
		}
	}
}
