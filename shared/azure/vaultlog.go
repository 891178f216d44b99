package azure

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/shared/evidence"
)

// VaultLog reads the audit log of a vault where a diagnostic setting archives it: one blob for
// each vault and hour of reception, one record a line.
//
//	resourceId=/SUBSCRIPTIONS/…/VAULTS/NAME/y=2026/m=03/d=14/h=09/m=00/PT1H.json
//
// https://learn.microsoft.com/azure/azure-monitor/essentials/resource-logs-blob-format
type VaultLog struct{ c *container.Client }

// NewVaultLog returns the log in a container, which is called insights-logs-auditevent.
func NewVaultLog(c *container.Client) *VaultLog { return &VaultLog{c} }

// maxLogLine bounds a record.
const maxLogLine = 1 << 20

// Uses costs a listing for each part of a resource id, and for each vault of the container and each hour one listing and
// the reading of its blob.
func (l *VaultLog) Uses(ctx context.Context, from, to time.Time, late time.Duration, f func(evidence.VaultUse) error) (evidence.VaultLogRead, error) {
	var read evidence.VaultLogRead
	vaults, err := l.vaults(ctx)
	if err != nil {
		return read, fmt.Errorf("vault log: %w", err)
	}
	seen := map[[sha256.Size]byte]bool{}
	for hour := from.UTC().Truncate(time.Hour); !hour.After(to.Add(late)); hour = hour.Add(time.Hour) {
		for _, v := range vaults {
			names, err := l.names(ctx, v+hour.Format("2006/m=01/d=02/h=15/"))
			if err != nil {
				return read, fmt.Errorf("vault log: %w", err)
			}
			for _, n := range names {
				if err := l.lines(ctx, n, func(line []byte, whole bool) error {
					d := sha256.Sum256(line)
					if seen[d] {
						return nil // delivery is at least once
					}
					u, err := evidence.ParseVaultUse(line)
					if err != nil {
						if whole {
							seen[d] = true
							read.Unreadable++
						}
						return nil // a line that is still being written is of a later time
					}
					seen[d] = true
					if u.At.Before(from) || !u.At.Before(to) {
						return nil
					}
					read.Records++
					return f(u)
				}); err != nil {
					return read, fmt.Errorf("vault log: %w", err)
				}
			}
		}
	}
	return read, nil
}

// maxDepth is how many parts a resource id may have; those of vaults have nine.
const maxDepth = 16

// vaults lists how the names of each vault's blobs begin, up to the year.
func (l *VaultLog) vaults(ctx context.Context) ([]string, error) {
	var out []string
	level := []string{""}
	for range maxDepth {
		var next []string
		for _, under := range level {
			below, err := l.below(ctx, under)
			if err != nil {
				return nil, err
			}
			for _, p := range below {
				if !strings.HasPrefix(p[len(under):], "y=") {
					next = append(next, p)
				} else if v := under + "y="; !slices.Contains(out, v) {
					out = append(out, v)
				}
			}
		}
		level = next
	}
	return out, nil
}

// below lists the folders of a folder.
func (l *VaultLog) below(ctx context.Context, prefix string) ([]string, error) {
	var out []string
	pager := l.c.NewListBlobsHierarchyPager("/", &container.ListBlobsHierarchyOptions{Prefix: to.Ptr(prefix)})
	for pager.More() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list blobs: %w", hide(err))
		}
		for _, p := range page.Segment.BlobPrefixes {
			if p.Name != nil && strings.HasPrefix(*p.Name, prefix) {
				out = append(out, *p.Name)
			}
		}
	}
	return out, nil
}

func (l *VaultLog) names(ctx context.Context, prefix string) ([]string, error) {
	var out []string
	pager := l.c.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: to.Ptr(prefix)})
	for pager.More() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list blobs: %w", hide(err))
		}
		for _, i := range page.Segment.BlobItems {
			if i.Name != nil && strings.HasSuffix(*i.Name, ".json") {
				out = append(out, *i.Name)
			}
		}
	}
	return out, nil
}

// lines calls f for each line of a blob, and says whether the line has its end.
func (l *VaultLog) lines(ctx context.Context, name string, f func(line []byte, whole bool) error) (err error) {
	r, err := l.c.NewBlobClient(name).DownloadStream(ctx, nil)
	if bloberror.HasCode(err, bloberror.BlobNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read blob: %w", hide(err))
	}
	body := r.NewRetryReader(ctx, nil)
	defer func() { err = errors.Join(err, body.Close()) }()
	in := bufio.NewReaderSize(body, maxLogLine)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read blob: %w", hide(err)) // also a line that is too long
		}
		whole := err == nil
		if text := strings.TrimSpace(string(line)); text != "" {
			if err := f([]byte(text), whole); err != nil {
				return err
			}
		}
		if !whole {
			return nil
		}
	}
}
