package conversation_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
)

func TestFactsStayWithinARowHoweverManyReceiveTheConversation(t *testing.T) {
	var s conversation.Slice
	sent := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	var last teams.PersonID
	for i := range conversation.MaxCustodians + 50 {
		last = teams.PersonID(fmt.Sprintf("aaaaaaaa-aaaa-4aaa-8aaa-%012d", i))
		s.Conversation = s.Conversation.With(conversation.BatchHeader{Conversation: "c", Thread: "19:a@thread.v2", Custodian: last}, []conversation.Message{{Sent: sent}})
		s.Receipts = append(s.Receipts, conversation.Receipt{Custodian: last})
	}
	if n := len(s.Conversation.Custodians); n != conversation.MaxCustodians {
		t.Errorf("the facts name %d custodians, want %d", n, conversation.MaxCustodians)
	}
	if all := s.AllCustodians(); len(all) != conversation.MaxCustodians+50 || !slices.Contains(all, last) {
		t.Errorf("the slice names %d custodians, want all", len(all))
	}
}

func TestANameThatWasMissingIsFilledInByALaterMessage(t *testing.T) {
	h := conversation.BatchHeader{Conversation: "c", Thread: "19:a@thread.v2"}
	ann := conversation.Participant{ID: "ann", Name: "Ann", Kind: "aadUser"}
	c := conversation.Conversation{}.With(h, []conversation.Message{{From: conversation.Participant{ID: "ann", Kind: "aadUser"}}, {From: ann}, {}})
	if !slices.Equal(c.Participants, []conversation.Participant{ann}) {
		t.Errorf("participants are %+v", c.Participants)
	}
}
