package portal

import (
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
)

func TestAuthorsWithoutANameGetTheRosters(t *testing.T) {
	const known, stranger = teams.PersonID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"), "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
	roster := &storetest.Roster{}
	if err := roster.Apply(t.Context(), policy.Change{People: []policy.Person{{ID: known, DisplayName: "Ana \u202eB"}}}); err != nil {
		t.Fatal(err)
	}
	p := &Portal{config: Config{Now: time.Now}, stores: Stores{Roster: roster}}
	for range 2 { // the second time from memory
		list := []conversation.Participant{{ID: string(known)}, {ID: stranger}, {ID: "a bot"}, {ID: "a guest", Name: "as Graph said"}, {ID: "a guest"}}
		if err := p.fillNames(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		if list[0].Name != "Ana \uFFFDB" || list[1].Name != "" || list[2].Name != "" || list[4].Name != "as Graph said" {
			t.Errorf("names are %+v", list)
		}
	}
}
