package portal_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
)

const recurring = teams.ThreadID("19:meeting_weekly@thread.v2")

type occurrenceAnswer struct {
	Calls []struct {
		ID      conversation.ID
		Subject string
	}
	Chats    []conversation.ID
	From, To time.Time
}

// meet puts an occurrence of the recurring meeting into the archive, in minutes from the day's ten o'clock.
func (w *world) meet(name string, from, to int, custodians ...teams.PersonID) conversation.ID {
	w.t.Helper()
	chain := teams.ChainID(name)
	key := conversation.CallKeyOf(tenant, chain)
	first, last := day.Add(time.Duration(from)*time.Minute), day.Add(time.Duration(to)*time.Minute)
	conv := conversation.Conversation{
		ID: conversation.IDOf(key, first), Thread: recurring, Kind: teams.ThreadCall, Modality: conversation.Voice, Start: first, First: first, Last: last,
		Custodians: custodians, Call: &conversation.CallFacts{Chain: chain, Direction: conversation.Conference, Subject: name, Legs: len(custodians)},
	}
	var legs []conversation.Leg
	for _, p := range custodians {
		call := teams.CallID(fmt.Sprint(name, "-", p))
		legs = append(legs, conversation.Leg{Leg: conversation.LegOf(tenant, call), Call: call, Recorded: p, State: conversation.LegSealed, Started: first, From: first, To: last})
	}
	w.must(w.catalog.SaveCall(w.t.Context(), conversation.Call{}, conv, legs...))
	w.must(w.catalog.ListCall(w.t.Context(), conv))
	return conv.ID
}

func (w *world) occurrence(who teams.PersonID, id conversation.ID) occurrenceAnswer {
	w.t.Helper()
	rec := w.get(who, "conversations/"+string(id)+"/occurrence")
	want(w.t, rec, http.StatusOK)
	checkAnswer(w.t, readDocument(w.t), "/conversations/{id}/occurrence", rec)
	return decode[occurrenceAnswer](w.t, rec.Body)
}

func TestTimeDecidesToWhichOccurrenceOfAMeetingAMessageBelongs(t *testing.T) {
	w := newWorld(t)
	w.say(rita, recurring, text("1773050400000", "1", day.Add(5*time.Minute), "in the first"))
	first, second := w.meet("first", 0, 30, rita, sven), w.meet("second", 40, 70, rita)
	chat := conversation.IDOf(conversation.KeyOf(tenant, recurring), day)
	minute := func(n int) time.Time { return day.Add(time.Duration(n) * time.Minute) }

	got := w.occurrence(nora, first)
	if !slices.Equal(got.Chats, []conversation.ID{chat}) || len(got.Calls) != 1 || got.Calls[0].ID != first || !got.From.Equal(minute(-15)) || !got.To.Equal(minute(35)) {
		t.Errorf("the first: %+v", got)
	}
	if got = w.occurrence(nora, second); !got.From.Equal(minute(35)) || !got.To.Equal(minute(85)) {
		t.Errorf("the second: %+v", got)
	}
	if got = w.occurrence(nora, chat); len(got.Calls) != 2 || got.Calls[0].Subject != "first" || got.Calls[1].ID != second {
		t.Errorf("the chat's calls: %+v", got)
	}
}

func TestAnOccurrenceShowsNoPartThatIsNotTheReaders(t *testing.T) {
	w := newWorld(t)
	w.say(rita, recurring, text("1773050400000", "1", day, "of north"))
	shared, north := w.meet("shared", 0, 30, rita, sven), w.meet("north", 60, 90, rita)
	if got := w.occurrence(saul, shared); len(got.Chats) != 0 || len(got.Calls) != 1 {
		t.Errorf("south is told of the chat of north: %+v", got)
	}
	want(t, w.get(saul, "conversations/"+string(north)+"/occurrence"), http.StatusNotFound)
	want(t, w.get(adam, "conversations/"+string(shared)+"/occurrence"), http.StatusNotFound)
	if got := w.occurrence(carla, shared); len(got.Chats) != 1 {
		t.Errorf("a compliance officer is not told of the chat: %+v", got)
	}
}
