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

// What is expected, and what became of it, stands in a table of its own, so that who reads a
// conversation need not read it:
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
	a, _, err := c.attachment(ctx, id, attachment)
	return a, err
}

func (c *Catalog) attachment(ctx context.Context, id conversation.ID, attachment conversation.AttachmentID) (a conversation.Attachment, etag azcore.ETag, err error) {
	var r row
	e, err := c.attachments.GetEntity(ctx, c.attachmentPartition(id), string(attachment), nil)
	switch {
	case isNotFound(err):
		return a, "", fmt.Errorf("%w: %s of %s", conversation.ErrNoAttachment, attachment, id)
	case err != nil:
		return a, "", fmt.Errorf("read attachment %s of %s: %w", attachment, id, hide(err))
	}
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return a, "", fmt.Errorf("read attachment %s of %s: %w", attachment, id, err)
	}
	if err := json.Unmarshal(r.Data, &a); err != nil {
		return a, "", fmt.Errorf("read attachment %s of %s: %w", attachment, id, errPacked)
	}
	return a, e.ETag, nil
}

func (c *Catalog) attachmentRow(a conversation.Attachment) (row, error) {
	data, err := json.Marshal(a)
	return row{PartitionKey: c.attachmentPartition(a.Conversation), RowKey: string(a.ID), Data: data}, err
}

// ExpectAttachment costs one operation, and another where the attachment is known.
func (c *Catalog) ExpectAttachment(ctx context.Context, a conversation.Attachment) (conversation.Attachment, error) {
	a.State = conversation.AttachmentExpected
	r, err := c.attachmentRow(a)
	if err == nil {
		err = insert(ctx, c.attachments, r)
	}
	if errors.Is(err, errConflict) {
		return c.Attachment(ctx, a.Conversation, a.ID)
	}
	if err != nil {
		return a, fmt.Errorf("expect attachment %s of %s: %w", a.ID, a.Conversation, err)
	}
	return a, nil
}

// SaveAttachment costs one operation, and of a gap two.
func (c *Catalog) SaveAttachment(ctx context.Context, a conversation.Attachment) error {
	r, err := c.attachmentRow(a)
	switch {
	case err != nil:
	case a.State == conversation.AttachmentFetched:
		err = replace(ctx, c.attachments, r)
	default:
		err = c.saveGap(ctx, a, r)
	}
	if err != nil {
		return fmt.Errorf("save attachment %s of %s: %w", a.ID, a.Conversation, err)
	}
	return nil
}

// saveGap stores a gap unless there is a result. A row turns from expected into a result
// once, so whoever loses that race finds one.
func (c *Catalog) saveGap(ctx context.Context, a conversation.Attachment, r row) error {
	was, etag, err := c.attachment(ctx, a.Conversation, a.ID)
	switch {
	case errors.Is(err, conversation.ErrNoAttachment):
		err = insert(ctx, c.attachments, r)
	case err != nil || was.State != conversation.AttachmentExpected:
		return err
	default:
		b := batch{partition: r.PartitionKey}
		b.add(aztables.TransactionTypeUpdateReplace, r, string(etag))
		err = b.submit(ctx, c.attachments)
	}
	if errors.Is(err, errConflict) {
		return nil
	}
	return err
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
