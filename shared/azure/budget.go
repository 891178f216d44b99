package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/conversation"
	"steno/shared/teams"
)

// Budget is the tenant's token bucket for Graph requests, shared by all instances:
// Graph limits an application per tenant, not per process.
//
// The bucket is one table row that holds the moment up to which requests have been
// given out (the generic cell rate algorithm). An instance takes a block of requests
// at a time, so a block costs two operations however many requests it holds.
type Budget struct {
	t      *aztables.Client
	tenant teams.TenantID
	key    string  // of its row
	rate   float64 // requests a second
	block  int

	mu    sync.Mutex
	left  int
	start time.Time // when the next request of the block may go
}

// NewBudget returns the bucket of a tenant that gives out rate requests a second,
// block at a time.
func NewBudget(tenant teams.TenantID, s *aztables.ServiceClient, rate float64, block int) (*Budget, error) {
	if rate <= 0 || block < 1 {
		return nil, fmt.Errorf("request budget: rate %g and block %d must be positive", rate, block)
	}
	return &Budget{t: s.NewClient(TablePlan), tenant: tenant, key: budgetKey, rate: rate, block: block}, nil
}

// NewFileBudget returns the bucket of requests for what messages point at, apart from that of
// exports: Graph counts content apart too.
func NewFileBudget(tenant teams.TenantID, s *aztables.ServiceClient, rate float64, block int) (*Budget, error) {
	b, err := NewBudget(tenant, s, rate, block)
	if err == nil {
		b.key = fileBudgetKey
	}
	return b, err
}

// ChatTurns gives out the seconds of chats: Graph serves one request for hosted content
// a second in each. A chat has a row, some 100 bytes, from its first image on.
type ChatTurns struct {
	t      *aztables.Client
	tenant teams.TenantID
}

// NewChatTurns returns the seconds of a tenant's chats.
func NewChatTurns(tenant teams.TenantID, s *aztables.ServiceClient) ChatTurns {
	return ChatTurns{t: s.NewClient(TablePlan), tenant: tenant}
}

// Reserve takes the next second of a chat and returns when it begins. It costs two operations,
// and two more for each time another instance came first.
func (c ChatTurns) Reserve(ctx context.Context, thread conversation.ThreadKey) (time.Time, error) {
	b := &Budget{t: c.t, tenant: c.tenant, key: "b-chat-" + string(thread)}
	at, err := b.reserve(ctx, turn, time.Time{})
	if err != nil {
		return time.Time{}, fmt.Errorf("take a turn in a chat: %w", err)
	}
	return at, nil
}

// turn is a little longer than a second: clocks and ways differ.
const turn = 1100 * time.Millisecond

type budgetRow struct {
	Next time.Time `json:"next"` // requests are given out up to here
}

const (
	budgetKey     = "b-graph"
	fileBudgetKey = "b-files"
)

// Take waits until one request may go. It costs two operations a block, and two more
// for each time another instance came first. Requests of a block that were not used in
// their time may go later, so an instance that was idle can send a block at once.
func (b *Budget) Take(ctx context.Context) error {
	b.mu.Lock()
	if b.left == 0 {
		start, err := b.reserve(ctx, time.Duration(float64(b.block)/b.rate*float64(time.Second)), time.Time{})
		if err != nil {
			b.mu.Unlock()
			return fmt.Errorf("take from request budget: %w", err)
		}
		b.left, b.start = b.block, start
	}
	b.left--
	at := b.start
	b.start = b.start.Add(time.Duration(float64(time.Second) / b.rate))
	b.mu.Unlock()
	return sleepUntil(ctx, at)
}

// Pause keeps this instance from sending and every other from starting new blocks
// before until. Graph said so in a Retry-After. It costs two operations.
func (b *Budget) Pause(ctx context.Context, until time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = 0
	if _, err := b.reserve(ctx, 0, until); err != nil {
		return fmt.Errorf("pause request budget: %w", err)
	}
	return nil
}

// reserve moves the row's moment forward by d, not before notBefore, and returns
// where the reserved stretch starts.
func (b *Budget) reserve(ctx context.Context, d time.Duration, notBefore time.Time) (time.Time, error) {
	for {
		now := time.Now()
		var r row
		var held budgetRow
		e, err := b.t.GetEntity(ctx, string(b.tenant), b.key, nil)
		switch {
		case isNotFound(err):
		case err != nil:
			return time.Time{}, fmt.Errorf("read budget row: %w", hide(err))
		default:
			if err := errors.Join(json.Unmarshal(e.Value, &r), json.Unmarshal(r.Data, &held)); err != nil {
				return time.Time{}, fmt.Errorf("read budget row: %w", err)
			}
		}
		start := held.Next
		for _, t := range []time.Time{now, notBefore} {
			if t.After(start) {
				start = t
			}
		}
		data, err := json.Marshal(budgetRow{Next: start.Add(d)})
		if err != nil {
			return time.Time{}, fmt.Errorf("write budget row: %w", err)
		}
		next := row{PartitionKey: string(b.tenant), RowKey: b.key, Data: data}
		if r.ETag == "" {
			err = insert(ctx, b.t, next)
		} else {
			err = b.update(ctx, next, r.ETag)
		}
		if errors.Is(err, errConflict) {
			continue // another instance took a block; the context bounds the tries
		}
		if err != nil {
			return time.Time{}, err
		}
		return start, nil
	}
}

func (b *Budget) update(ctx context.Context, r row, etag string) error {
	body, err := r.marshal()
	if err != nil {
		return err
	}
	_, err = b.t.UpdateEntity(ctx, body, &aztables.UpdateEntityOptions{
		IfMatch: to.Ptr(azcore.ETag(etag)), UpdateMode: aztables.UpdateModeReplace,
	})
	if err != nil {
		return classify("update budget row", err)
	}
	return nil
}

func sleepUntil(ctx context.Context, t time.Time) error {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
