package storetest

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
)

// Bury implements conversation.Graves.
func (c *Catalog) Bury(_ context.Context, id conversation.ID, d conversation.Disposed) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init()
	slice, call := c.slices[id], c.calls[id.Thread()]
	facts := slice.Conversation
	if slice.Revision == "" {
		if facts = call.Conversation; call.Revision == "" || facts.ID != id {
			return conversation.ErrNoConversation
		}
	}
	if facts.Disposed != nil {
		d = *facts.Disposed
	}
	tomb := facts.Tombstone(d)
	c.byTime[id] = tomb
	for _, listed := range c.byPerson {
		delete(listed, id)
	}
	delete(c.attached, id)
	c.revision++
	if slice.Revision != "" {
		c.slices[id] = conversation.Slice{Conversation: tomb, Revision: strconv.Itoa(c.revision)}
		return nil
	}
	c.calls[id.Thread()] = conversation.Call{Conversation: tomb, Revision: strconv.Itoa(c.revision)}
	return nil
}

// Cemetery is a catalog in which conversations can be buried.
type Cemetery interface {
	conversation.Catalog
	conversation.Calls
	conversation.Graves
	conversation.Attachments
}

// TestGraves checks the contract of conversation.Graves. open returns an empty catalog.
func TestGraves(t *testing.T, open func(t *testing.T) Cemetery) {
	day := time.Date(2026, 3, 14, 0, 0, 0, 0, time.UTC)
	at := day.Add(9*time.Hour + 17*time.Minute)
	disposed := conversation.Disposed{At: at.AddDate(7, 0, 0), Ground: "expiry", Policy: "default", Event: "0000000000000001-00000000000000aa"}
	// bare fails if anything but the tombstone is found.
	bare := func(t *testing.T, c Cemetery, id conversation.ID, people ...teams.PersonID) {
		t.Helper()
		page, err := c.ByTime(t.Context(), day, day.AddDate(0, 0, 1), conversation.PageRequest{})
		ok(t, err)
		if len(page.Conversations) != 1 {
			t.Fatalf("by time: %+v", page.Conversations)
		}
		tomb := page.Conversations[0]
		if tomb.ID != id || !tomb.Start.Equal(day) || len(tomb.Participants)+len(tomb.Custodians) != 0 || tomb.Thread != "" || tomb.Disposed == nil || *tomb.Disposed != disposed {
			t.Errorf("tombstone %+v", tomb)
		}
		for _, p := range people {
			page, err := c.ByPerson(t.Context(), p, day, day.AddDate(0, 0, 1), conversation.PageRequest{})
			ok(t, err)
			if len(page.Conversations) != 0 {
				t.Errorf("by person: %+v", page.Conversations)
			}
		}
	}
	t.Run("of a chat the tombstone is left", func(t *testing.T) {
		c, ann, bob := open(t), newPerson(), newPerson()
		key := conversation.KeyOf(NewTenant(), "19:x@thread.v2")
		conv := conversation.Conversation{
			ID: conversation.IDOf(key, at), Thread: "19:x@thread.v2", Modality: conversation.Chat, Start: at, First: at, Last: at,
			Participants: []conversation.Participant{{ID: string(ann), Name: "Ann"}}, Custodians: []teams.PersonID{ann},
		}
		for i := range 120 { // more rows than one transaction takes
			s, err := c.Slice(t.Context(), conv.ID)
			ok(t, err)
			claim := conversation.Claim{Conversation: conv, Add: &conversation.Object{Name: strings.Repeat("0", 29) + strconv.Itoa(100+i), Custodian: ann, ClaimedAt: at}}
			if i == 0 {
				claim.Receipt = &conversation.Receipt{Custodian: bob, Window: "1-0000000000000-0000000000001", At: at}
			}
			ok(t, c.Claim(t.Context(), s, claim))
		}
		for _, p := range []teams.PersonID{ann, bob} {
			ok(t, c.FinishWindow(t.Context(), conversation.WindowDone{Window: conversation.Window{Custodian: p, Pass: 1, From: day, To: at}}, []conversation.Conversation{conv}))
		}
		ok(t, c.SaveAttachment(t.Context(), conversation.Attachment{ID: "a", Conversation: conv.ID, Name: "secret.pdf", State: conversation.AttachmentGap}))
		ok(t, c.Bury(t.Context(), conv.ID, disposed))
		bare(t, c, conv.ID, ann, bob)
		attached, err := c.Attachments(t.Context(), conv.ID)
		ok(t, err)
		if len(attached) != 0 {
			t.Errorf("attachments %+v", attached)
		}
		s, err := c.Slice(t.Context(), conv.ID)
		ok(t, err)
		if len(s.Objects)+len(s.Receipts) != 0 || s.Conversation.Disposed == nil || len(s.Conversation.Participants) != 0 {
			t.Errorf("slice %+v", s)
		}
		later := disposed
		later.Event = "0000000000000002-00000000000000bb"
		ok(t, c.Bury(t.Context(), conv.ID, later)) // the first one stays
		bare(t, c, conv.ID, ann, bob)
	})
	t.Run("of a call the tombstone is left", func(t *testing.T) {
		c, ann := open(t), newPerson()
		tenant := NewTenant()
		key := conversation.CallKeyOf(tenant, "chain")
		conv := conversation.Conversation{
			ID: conversation.IDOf(key, at), Thread: "19:meeting_x@thread.v2", Kind: teams.ThreadCall, Modality: conversation.Voice, Start: at, First: at, Last: at,
			Custodians: []teams.PersonID{ann}, Call: &conversation.CallFacts{Chain: "chain", Subject: "secret", Numbers: []string{"+49"}, Legs: 1},
		}
		ok(t, c.SaveCall(t.Context(), conversation.Call{}, conv, conversation.Leg{Leg: conversation.LegOf(tenant, "call"), Recorded: ann, State: conversation.LegSealed}))
		ok(t, c.ListCall(t.Context(), conv))
		for range 2 {
			ok(t, c.Bury(t.Context(), conv.ID, disposed))
			bare(t, c, conv.ID, ann)
		}
		call, err := c.Call(t.Context(), key)
		ok(t, err)
		if facts := call.Conversation.Call; len(call.Legs) != 0 || facts == nil || facts.Subject != "" || len(facts.Numbers) != 0 || facts.Chain != "" {
			t.Errorf("call %+v", call)
		}
	})
	t.Run("what is not there cannot be buried", func(t *testing.T) {
		err := open(t).Bury(t.Context(), conversation.IDOf(conversation.KeyOf(NewTenant(), "19:y@thread.v2"), at), disposed)
		wantErr(t, "bury", err, conversation.ErrNoConversation)
	})
}
