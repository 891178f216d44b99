package portal

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"steno/shared/conversation"
)

func TestEveryRouteIsInTheDocumentAndTheOtherWayRound(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct {
			Summary string `json:"summary"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(openapiDocument, &doc); err != nil {
		t.Fatal(err)
	}
	var served, documented []string
	for method, routes := range map[string][]route{"get": apiRoutes, "post": apiChanges} {
		for _, rt := range routes {
			path := "/" + rt.pattern
			served = append(served, method+" "+path)
			if content := strings.HasPrefix(doc.Paths[path][method].Summary, "content: "); content != rt.content {
				t.Errorf("%s: the document says content %v", path, content)
			}
		}
	}
	for path, operations := range doc.Paths {
		for method := range operations {
			documented = append(documented, method+" "+path)
		}
	}
	slices.Sort(served)
	slices.Sort(documented)
	if !slices.Equal(documented, served) {
		t.Errorf("documented %v, served %v", documented, served)
	}
}

func TestNamesThatTurnTheDirectionOfTextAreMadeVisible(t *testing.T) {
	for in, want := range map[string]string{
		"cod.\u202efdp.exe": "cod.\ufffdfdp.exe", "Ana\u2066 Silva": "Ana\ufffd Silva", "tab\tstays": "tab\tstays", "bell\a": "bell",
	} {
		if got := visible(in); got != want {
			t.Errorf("%q is shown as %q", in, got)
		}
		stored := conversation.Conversation{Participants: []conversation.Participant{{ID: "1", Name: in}}}
		if got := visibleNames(stored).Participants[0].Name; got != want || stored.Participants[0].Name != in {
			t.Errorf("participant %q is shown as %q", in, got)
		}
	}
}
