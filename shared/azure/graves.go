package azure

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/conversation"
	"steno/shared/teams"
)

// Bury costs three queries, two writes and one deletion for each custodian, and one
// transaction for every 100 rows of the conversation and of its attachments. The facts go last: until then they
// say what is left to do.
func (c *Catalog) Bury(ctx context.Context, id conversation.ID, d conversation.Disposed) error {
	slice, err := c.Slice(ctx, id)
	if err != nil {
		return fmt.Errorf("bury %s: %w", id, err)
	}
	facts, custodians, day := slice.Conversation, slice.AllCustodians(), invertedDay(id.Day())
	factsKey := day + "-c"
	var keys []string
	for _, o := range slice.Objects {
		keys = append(keys, day+"-o-"+o.Name)
	}
	for _, r := range slice.Receipts {
		keys = append(keys, day+"-r-"+string(r.Custodian)+"-"+r.Window)
	}
	if slice.Revision == "" {
		call, err := c.Call(ctx, id.Thread())
		if err != nil {
			return fmt.Errorf("bury %s: %w", id, err)
		}
		if call.Revision == "" || call.Conversation.ID != id {
			return fmt.Errorf("bury %s: %w", id, conversation.ErrNoConversation)
		}
		facts, custodians, factsKey = call.Conversation, call.AllCustodians(), callRow
		for _, l := range call.Legs {
			keys = append(keys, string(l.Leg))
		}
	}
	if err := c.bury(ctx, facts, d, custodians, factsKey, keys); err != nil {
		return fmt.Errorf("bury %s: %w", id, err)
	}
	return nil
}

func (c *Catalog) bury(ctx context.Context, facts conversation.Conversation, d conversation.Disposed, custodians []teams.PersonID, factsKey string, keys []string) error {
	if facts.Disposed != nil {
		d = *facts.Disposed
	}
	tomb := facts.Tombstone(d)
	data, err := json.Marshal(tomb)
	if err != nil {
		return err
	}
	was, now := positionKey(facts.Position()), positionKey(tomb.Position())
	if err := replace(ctx, c.byTime, row{PartitionKey: c.monthPartition(tomb.Start), RowKey: now, Data: data}); err != nil {
		return err
	}
	if was != now {
		if err := remove(ctx, c.byTime, c.monthPartition(facts.Start), was); err != nil {
			return err
		}
	}
	for _, p := range custodians {
		if err := remove(ctx, c.byPerson, c.personPartition(p), "c-"+was); err != nil {
			return err
		}
	}
	b := batch{partition: c.threadPartition(facts.ID.Thread())}
	for _, k := range keys {
		if b.full(1) {
			if err := b.submit(ctx, c.conversations); err != nil {
				return err
			}
		}
		b.add(aztables.TransactionTypeDelete, row{PartitionKey: b.partition, RowKey: k}, "*")
	}
	if err := b.submit(ctx, c.conversations); err != nil {
		return err
	}
	if err := c.buryAttachments(ctx, facts.ID); err != nil {
		return err
	}
	return replace(ctx, c.conversations, row{PartitionKey: b.partition, RowKey: factsKey, Data: data})
}
