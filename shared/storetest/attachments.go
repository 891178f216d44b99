package storetest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/conversation"
)

var _ conversation.Attachments = (*Catalog)(nil)

// Attachments implements conversation.Attachments.
func (c *Catalog) Attachments(_ context.Context, id conversation.ID) ([]conversation.Attachment, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []conversation.Attachment
	for _, a := range c.attached[id] {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b conversation.Attachment) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out, nil
}

// Attachment implements conversation.Attachments.
func (c *Catalog) Attachment(_ context.Context, id conversation.ID, attachment conversation.AttachmentID) (conversation.Attachment, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.attached[id][attachment]
	if !ok {
		return conversation.Attachment{}, conversation.ErrNoAttachment
	}
	return a, nil
}

// ExpectAttachment implements conversation.Attachments.
func (c *Catalog) ExpectAttachment(_ context.Context, a conversation.Attachment) (conversation.Attachment, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, known := c.attached[a.Conversation][a.ID]; known {
		return was, nil
	}
	a.State = conversation.AttachmentExpected
	c.attach(a)
	return a, nil
}

// SaveAttachment implements conversation.Attachments.
func (c *Catalog) SaveAttachment(_ context.Context, a conversation.Attachment) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, known := c.attached[a.Conversation][a.ID]
	if !known || was.State == conversation.AttachmentExpected || a.State == conversation.AttachmentFetched {
		c.attach(a)
	}
	return nil
}

func (c *Catalog) attach(a conversation.Attachment) {
	of := c.attached[a.Conversation]
	if of == nil {
		if c.attached == nil {
			c.attached = map[conversation.ID]map[conversation.AttachmentID]conversation.Attachment{}
		}
		of = map[conversation.AttachmentID]conversation.Attachment{}
		c.attached[a.Conversation] = of
	}
	of[a.ID] = a
}

// TestAttachments checks the contract of conversation.Attachments. open returns an empty register.
func TestAttachments(t *testing.T, open func(t *testing.T) conversation.Attachments) {
	at := time.Date(2026, 3, 14, 9, 17, 0, 123456789, time.UTC)
	made := func(name string) conversation.Attachment {
		return conversation.Attachment{
			ID: conversation.AttachmentIDOf("19:x@thread.v2", "1", conversation.KindFile, name), Conversation: conversation.IDOf(conversation.KeyOf(NewTenant(), "19:x@thread.v2"), at),
			Message: "1", Custodian: newPerson(), Kind: conversation.KindFile, Name: name, Source: "https://contoso.sharepoint.com/" + name, At: at,
		}
	}
	fetched := func(a conversation.Attachment) conversation.Attachment {
		a.State, a.Object, a.Parts, a.Size, a.SHA256, a.Rule = conversation.AttachmentFetched, strings.Repeat("0", 32), 3, 1<<33, strings.Repeat("a", 64), conversation.RuleAtSending
		return a
	}
	gap := func(a conversation.Attachment) conversation.Attachment {
		a.State, a.Reason = conversation.AttachmentGap, conversation.GapForbidden
		return a
	}
	t.Run("what was saved is read back, alone and in its list", func(t *testing.T) {
		r, a := open(t), fetched(made("P&L \u2026 'quoted'.xlsx"))
		ok(t, r.SaveAttachment(t.Context(), a))
		got, err := r.Attachment(t.Context(), a.Conversation, a.ID)
		ok(t, err)
		if got != a {
			t.Errorf("got %+v, want %+v", got, a)
		}
		list, err := r.Attachments(t.Context(), a.Conversation)
		ok(t, err)
		if !slices.Equal(list, []conversation.Attachment{a}) {
			t.Errorf("list %+v", list)
		}
	})
	t.Run("what is not there is not there", func(t *testing.T) {
		r, a := open(t), made("x")
		_, err := r.Attachment(t.Context(), a.Conversation, a.ID)
		wantErr(t, "read", err, conversation.ErrNoAttachment)
		list, err := r.Attachments(t.Context(), a.Conversation)
		ok(t, err)
		if len(list) != 0 {
			t.Errorf("list %+v", list)
		}
	})
	t.Run("a gap is filled, and what was fetched becomes no gap", func(t *testing.T) {
		r, a := open(t), made("x")
		for _, step := range []struct{ save, want conversation.Attachment }{
			{gap(a), gap(a)}, {gap(a), gap(a)}, {fetched(a), fetched(a)}, {gap(a), fetched(a)}, {fetched(a), fetched(a)},
		} {
			ok(t, r.SaveAttachment(t.Context(), step.save))
			got, err := r.Attachment(t.Context(), a.Conversation, a.ID)
			ok(t, err)
			if got != step.want {
				t.Errorf("after %s: %+v", step.save.State, got)
			}
		}
	})
	t.Run("what is expected is known until there is a result, which then stands", func(t *testing.T) {
		r, a := open(t), made("x")
		want := a
		want.State = conversation.AttachmentExpected
		for range 2 {
			got, err := r.ExpectAttachment(t.Context(), a)
			ok(t, err)
			if got != want {
				t.Errorf("expected: %+v", got)
			}
		}
		again := a
		again.Custodian = newPerson()
		got, err := r.ExpectAttachment(t.Context(), again)
		ok(t, err)
		if got != want {
			t.Errorf("what stood there changed: %+v", got)
		}
		list, err := r.Attachments(t.Context(), a.Conversation)
		ok(t, err)
		if !slices.Equal(list, []conversation.Attachment{want}) {
			t.Errorf("list %+v", list)
		}
		for _, result := range []conversation.Attachment{gap(a), fetched(a)} {
			ok(t, r.SaveAttachment(t.Context(), result))
			got, err := r.ExpectAttachment(t.Context(), a)
			ok(t, err)
			stored, err := r.Attachment(t.Context(), a.Conversation, a.ID)
			ok(t, err)
			if got != result || stored != result {
				t.Errorf("after %s: %+v, stored %+v", result.State, got, stored)
			}
		}
	})
	t.Run("of many they are listed by id, and other conversations apart", func(t *testing.T) {
		r, a, other := open(t), made("x"), made("y")
		ok(t, r.SaveAttachment(t.Context(), other))
		var want []conversation.AttachmentID
		for i := range 120 { // more than one transaction holds
			a.ID = conversation.AttachmentIDOf("19:x@thread.v2", "1", conversation.KindFile, strings.Repeat("x", i))
			ok(t, r.SaveAttachment(t.Context(), gap(a)))
			want = append(want, a.ID)
		}
		slices.Sort(want)
		list, err := r.Attachments(t.Context(), a.Conversation)
		ok(t, err)
		var ids []conversation.AttachmentID
		for _, x := range list {
			ids = append(ids, x.ID)
		}
		if !slices.Equal(ids, want) {
			t.Errorf("%d listed", len(ids))
		}
	})
}
