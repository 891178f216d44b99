package portal

import (
	"testing"
	"time"

	"steno/shared/conversation"
)

func TestMergedListsShowTheLatestFactsOfASharedConversation(t *testing.T) {
	day := time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)
	listed := func(id string, hour, versions int) conversation.Conversation {
		return conversation.Conversation{ID: conversation.ID(id), Start: day.Add(time.Duration(hour) * time.Hour), Versions: versions}
	}
	page := func(c ...conversation.Conversation) conversation.Page { return conversation.Page{Conversations: c} }
	got := mergePages([]conversation.Page{
		page(listed("shared", 1, 7), listed("old", 0, 1)),
		page(listed("new", 2, 3), listed("shared", 1, 9)),
		page(listed("shared", 1, 8)),
	}, 10)
	want := []conversation.Conversation{listed("new", 2, 3), listed("shared", 1, 9), listed("old", 0, 1)}
	if len(got.Conversations) != len(want) || got.More {
		t.Fatalf("merged %d conversations, more %v", len(got.Conversations), got.More)
	}
	for i, c := range got.Conversations {
		if c.ID != want[i].ID || c.Versions != want[i].Versions {
			t.Errorf("%d is %s of %d versions, want %s of %d", i, c.ID, c.Versions, want[i].ID, want[i].Versions)
		}
	}
}

func TestMergedListsGoOnWhereTheyWereCut(t *testing.T) {
	day := time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)
	a := conversation.Conversation{ID: "a", Start: day.Add(time.Hour)}
	b := conversation.Conversation{ID: "b", Start: day}
	got := mergePages([]conversation.Page{{Conversations: []conversation.Conversation{b}}, {Conversations: []conversation.Conversation{a}}}, 1)
	if len(got.Conversations) != 1 || got.Conversations[0].ID != "a" || !got.More {
		t.Errorf("merged %v", got)
	}
}
