package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/conversation"
)

// Calls stand in the tables of the catalog, in a partition of their own each:
//
//	conversations          PartitionKey TENANT-CALLKEY
//	                       RowKey call: the facts · LEG: one leg
//	conversationsbytime    like chats
//	conversationsbyperson  like chats, for each recorded user of a leg
//
// The facts have a fixed row key, so that two legs that start on either side of
// midnight meet in one call.
const callRow = "call"

// Call costs one query.
func (c *Catalog) Call(ctx context.Context, key conversation.ThreadKey) (conversation.Call, error) {
	var call conversation.Call
	err := scan(ctx, c.conversations, keyRange{c.threadPartition(key), callRow, "leg-~"}, 1000, func(r row) (bool, error) {
		if r.RowKey == callRow {
			call.Revision = r.ETag
			return true, json.Unmarshal(r.Data, &call.Conversation)
		}
		if !strings.HasPrefix(r.RowKey, "leg-") {
			return false, errors.New("row key of an unknown kind in a call")
		}
		var l conversation.Leg
		if err := json.Unmarshal(r.Data, &l); err != nil {
			return false, err
		}
		call.Legs = append(call.Legs, l)
		return true, nil
	})
	if err != nil {
		return conversation.Call{}, fmt.Errorf("read call %s: %w", key, err)
	}
	return call, nil
}

// SaveCall costs one transaction. The facts' ETag guards the legs, since every change
// goes through them.
func (c *Catalog) SaveCall(ctx context.Context, was conversation.Call, now conversation.Conversation, legs ...conversation.Leg) error {
	b := batch{partition: c.threadPartition(now.ID.Thread())}
	facts, err := json.Marshal(now)
	if err != nil {
		return fmt.Errorf("save call %s: %w", now.ID, err)
	}
	row1 := row{PartitionKey: b.partition, RowKey: callRow, Data: facts}
	if was.Revision == "" {
		b.add(aztables.TransactionTypeAdd, row1, "")
	} else {
		b.add(aztables.TransactionTypeUpdateReplace, row1, was.Revision)
	}
	for _, l := range legs {
		data, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("save leg %s: %w", l.Leg, err)
		}
		b.add(aztables.TransactionTypeInsertReplace, row{PartitionKey: b.partition, RowKey: string(l.Leg), Data: data}, "")
	}
	err = b.submit(ctx, c.conversations)
	if errors.Is(err, errConflict) {
		return fmt.Errorf("save call %s: %w", now.ID, conversation.ErrConflict)
	}
	if err != nil {
		return fmt.Errorf("save call %s: %w", now.ID, err)
	}
	return nil
}

// ListCall costs one write for the month and one for each custodian.
func (c *Catalog) ListCall(ctx context.Context, now conversation.Conversation) error {
	data, err := json.Marshal(now)
	if err != nil {
		return fmt.Errorf("list call %s: %w", now.ID, err)
	}
	key := positionKey(now.Position())
	if err := replace(ctx, c.byTime, row{PartitionKey: c.monthPartition(now.Start), RowKey: key, Data: data}); err != nil {
		return fmt.Errorf("list call %s by time: %w", now.ID, err)
	}
	for _, p := range now.Custodians {
		if err := replace(ctx, c.byPerson, row{PartitionKey: c.personPartition(p), RowKey: "c-" + key, Data: data}); err != nil {
			return fmt.Errorf("list call %s by person: %w", now.ID, err)
		}
	}
	return nil
}
