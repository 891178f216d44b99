package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/conversation"
)

// What became of attachments stands in a table of its own, so that who reads a conversation
// need not read it:
//
//	attachments  PartitionKey TENANT-CONVERSATION, RowKey the attachment's id

func (c *Catalog) attachmentPartition(id conversation.ID) string {
	return string(c.tenant) + "-" + string(id)
}

// Attachments costs one query for up to 1,000 attachments.
func (c *Catalog) Attachments(ctx context.Context, id conversation.ID) ([]conversation.Attachment, error) {
	var out []conversation.Attachment
	err := scan(ctx, c.attachments, prefix(c.attachmentPartition(id), ""), 1000, func(r row) (bool, error) {
		var a conversation.Attachment
		if err := json.Unmarshal(r.Data, &a); err != nil {
			return false, fmt.Errorf("attachment row: %w", errPacked)
		}
		out = append(out, a)
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("list attachments of %s: %w", id, err)
	}
	return out, nil
}

// Attachment costs one operation.
func (c *Catalog) Attachment(ctx context.Context, id conversation.ID, attachment conversation.AttachmentID) (conversation.Attachment, error) {
	var a conversation.Attachment
	var r row
	e, err := c.attachments.GetEntity(ctx, c.attachmentPartition(id), string(attachment), nil)
	switch {
	case isNotFound(err):
		return a, fmt.Errorf("%w: %s of %s", conversation.ErrNoAttachment, attachment, id)
	case err != nil:
		return a, fmt.Errorf("read attachment %s of %s: %w", attachment, id, hide(err))
	}
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return a, fmt.Errorf("read attachment %s of %s: %w", attachment, id, err)
	}
	if err := json.Unmarshal(r.Data, &a); err != nil {
		return a, fmt.Errorf("read attachment %s of %s: %w", attachment, id, errPacked)
	}
	return a, nil
}

// SaveAttachment costs one operation.
func (c *Catalog) SaveAttachment(ctx context.Context, a conversation.Attachment) error {
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("save attachment %s of %s: %w", a.ID, a.Conversation, err)
	}
	r := row{PartitionKey: c.attachmentPartition(a.Conversation), RowKey: string(a.ID), Data: data}
	if a.State == conversation.AttachmentFetched {
		err = replace(ctx, c.attachments, r)
	} else if err = insert(ctx, c.attachments, r); errors.Is(err, errConflict) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("save attachment %s of %s: %w", a.ID, a.Conversation, err)
	}
	return nil
}

// buryAttachments deletes what is known of a conversation's attachments.
func (c *Catalog) buryAttachments(ctx context.Context, id conversation.ID) error {
	list, err := c.Attachments(ctx, id)
	if err != nil {
		return err
	}
	b := batch{partition: c.attachmentPartition(id)}
	for _, a := range list {
		if b.full(1) {
			if err := b.submit(ctx, c.attachments); err != nil {
				return err
			}
		}
		b.add(aztables.TransactionTypeDelete, row{PartitionKey: b.partition, RowKey: string(a.ID)}, string(azcore.ETagAny))
	}
	return b.submit(ctx, c.attachments)
}

var _ conversation.Attachments = (*Catalog)(nil)
