package calling

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"steno/shared/teams"
)

// one decodes a post that holds one notification.
func one(t *testing.T, body string) notification {
	t.Helper()
	items, err := decodePost([]byte(body))
	if err != nil || len(items) != 1 {
		t.Fatalf("%d notifications, %v", len(items), err)
	}
	return items[0]
}

func TestAddressesAreTakenApartAndNeverFollowed(t *testing.T) {
	for address, want := range map[string]notification{
		"/communications/calls/c-1": {call: "c-1"},
		"/app/calls/c-1":            {call: "c-1"},
		"communications/calls/c-1/": {call: "c-1"},
		"https://evil.example/v1.0/communications/Calls/c-1/Participants":  {call: "c-1", part: "participants"},
		"/communications/calls/c-1/participants/p-1":                       {call: "c-1", part: "participants", item: "p-1"},
		"/communications/calls/c-1/contentsharingsessions/s-1":             {call: "c-1", part: "contentsharingsessions", item: "s-1"},
		"/communications/calls/c-1/operations/o-1":                         {call: "c-1", part: "operations", item: "o-1"},
		"/communications/calls/57DAB8B1894C409AB240BD8BEAE78896?$expand=x": {call: "57DAB8B1894C409AB240BD8BEAE78896"},
	} {
		got, err := splitResource(address)
		if err != nil || got.call != want.call || got.part != want.part || got.item != want.item {
			t.Errorf("%s: %+v, %v", address, got, err)
		}
	}
	for _, address := range []string{"", "/", "/communications/calls", "/communications/calls/", "/communications/calls/../x", "/communications/calls/a/b/c/d", "/users/x", "/communications/calls/a b", "/communications/calls/a%2fb"} {
		if got, err := splitResource(address); err == nil {
			t.Errorf("%q: %+v", address, got)
		}
	}
}

func TestStatesAndResultsAreReadInEveryForm(t *testing.T) {
	for body, want := range map[string]teams.CallState{
		`{"state":"established"}`: teams.CallEstablished, `{"state":"Established"}`: teams.CallEstablished, `{"State":"ESTABLISHED"}`: teams.CallEstablished,
		`{"state":"ringing"}`: teams.CallEstablishing, `{"state":"hold"}`: "", `{"state":"unknownFutureValue"}`: "", `{"state":4}`: "", `{"state":null}`: "", `{"state":{}}`: "", `{}`: "",
	} {
		c, err := decodeCall([]byte(body))
		if got := c.state("updated"); err != nil || got != want {
			t.Errorf("%s: %q, %v", body, got, err)
		}
		if c.state("deleted") != teams.CallTerminated {
			t.Errorf("%s: deleted is not terminated", body)
		}
	}
	for body, want := range map[string]*teams.CallResult{
		`{"code":500,"subcode":7112,"message":"m"}`: {Code: 500, Subcode: 7112, Message: "m"}, `{"code":"200","subCode":"4097"}`: {Code: 200, Subcode: 4097},
		`{"code":"x"}`: {}, `null`: nil, `7`: nil, `[]`: nil,
	} {
		c, err := decodeCall([]byte(`{"resultInfo":` + body + `}`))
		got := c.result()
		if err != nil || (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%s: %+v, %v", body, got, err)
		}
	}
	if n := one(t, fixture(t, "call-deleted-after-reject")); n.change != "deleted" || n.call != "57dab8b1-894c-409a-b240-bd8beae78896" {
		t.Fatalf("%+v", n)
	}
	if n := one(t, fixture(t, "content-sharing-created")); n.part != "contentsharingsessions" || n.data != nil {
		t.Fatalf("%+v", n)
	}
}

func TestIdentitiesOfEveryKindAreKept(t *testing.T) {
	guid := "8A34A46B-3D17-4ADC-8DCE-DC4E7D572698"
	for body, want := range map[string]teams.Party{
		`{"user":{"id":"` + guid + `","displayName":"A","tenantId":"` + string(tenant) + `"}}`: {Kind: teams.PartyUser, ID: strings.ToLower(guid), Name: "A", Tenant: tenant},
		`{"guest":{"id":"g","displayName":"G"}}`:                                               {Kind: teams.PartyGuest, ID: "g", Name: "G"},
		`{"phone":{"id":"+15550100"},"user":null}`:                                             {Kind: teams.PartyPhone, ID: "+15550100"},
		`{"application":{"id":"b"}}`:                                                           {Kind: teams.PartyApplication, ID: "b"},
		`{"applicationInstance":{"id":"i"}}`:                                                   {Kind: teams.PartyInstance, ID: "i"},
		`{"AzureCommunicationServicesUser":{"id":"8:acs:x"}}`:                                  {Kind: teams.PartyACS, ID: "8:acs:x"},
		`{"onPremises":{"id":"o"}}`:                                                            {Kind: teams.PartyOnPremises, ID: "o"},
		`{"encrypted":{"id":"e"}}`:                                                             {Kind: teams.PartyEncrypted, ID: "e"},
		`{"device":{"id":"d"},"user":{"id":"u"}}`:                                              {Kind: teams.PartyUser, ID: "u"},
		`{"@odata.type":"x","somethingNew":{"id":"n"}}`:                                        {Kind: teams.PartyOther, ID: "n"},
		`{"phone":{"id":17},"assertedIdentity":{"id":"claimed"}}`:                              {Kind: teams.PartyPhone, ID: "17"},
		`{"user":"not an object"}`:                                                             {Kind: teams.PartyUser},
	} {
		var set wireIdentitySet
		if err := json.Unmarshal([]byte(body), &set); err != nil {
			t.Fatal(err)
		}
		if got, ok := set.party(); !ok || got != want {
			t.Errorf("%s: %+v", body, got)
		}
	}
	for _, body := range []string{`{}`, `{"@odata.type":"x"}`, `{"user":null}`, `{"assertedIdentity":{"id":"claimed"}}`} {
		var set wireIdentitySet
		if err := json.Unmarshal([]byte(body), &set); err != nil {
			t.Fatal(err)
		}
		if got, ok := set.party(); ok {
			t.Errorf("%s: %+v", body, got)
		}
	}
	for mri, want := range map[string]teams.Party{
		"8:orgid:" + guid: {Kind: teams.PartyUser, ID: strings.ToLower(guid)}, guid: {Kind: teams.PartyUser, ID: strings.ToLower(guid)},
		"4:+15550100": {Kind: teams.PartyPhone, ID: "+15550100"}, "8:acs:x_y": {Kind: teams.PartyACS, ID: "x_y"}, "28:bot": {Kind: teams.PartyApplication, ID: "bot"},
		"8:teamsvisitor:z": {Kind: teams.PartyGuest, ID: "z"}, "9:new": {Kind: teams.PartyOther, ID: "9:new"},
	} {
		if got, ok := mriParty(mri, ""); !ok || got != want {
			t.Errorf("%s: %+v", mri, got)
		}
	}
}

func TestTheRecordedUserIsFoundWhereverTheInviteNamesHer(t *testing.T) {
	holder := `"applicationMetadata":{"botData":{"user":{"policyHolderId":"8:orgid:00000000-0000-0000-0000-0000000000aa"}}}`
	for name, c := range map[string]struct{ body, id, person string }{
		"observed and source":   {`{"incomingContext":{"observedParticipantId":"p"},"source":{"identity":{"user":{"id":"u"}}},` + holder + `}`, "p", "u"},
		"source hidden":         {`{"incomingContext":{"observedParticipantId":"p"},"source":{"identity":{"encrypted":{"id":"e"}}},` + holder + `}`, "p", "00000000-0000-0000-0000-0000000000aa"},
		"policy holder alone":   {`{` + holder + `}`, "call-1", "00000000-0000-0000-0000-0000000000aa"},
		"nobody but observed":   {`{"incomingContext":{"observedParticipantId":"p"}}`, "p", ""},
		"malformed observation": {`{"incomingContext":{"observedParticipantId":"../p"},"source":{"identity":{"user":{"id":"u"}}}}`, "call-1", "u"},
	} {
		w, err := decodeCall([]byte(c.body))
		if err != nil || !w.recording() {
			t.Fatalf("%s: %v, recording %t", name, err, w.recording())
		}
		inv, err := w.invite(notification{call: "call-1", data: []byte(c.body)}, tenant, time.Now())
		if err != nil || string(inv.Recorded.ID) != c.id || inv.Recorded.Party.ID != c.person || inv.Chain != "call-1" {
			t.Errorf("%s: %+v, %v", name, inv.Recorded, err)
		}
	}
	w, err := decodeCall([]byte(`{"id":"call-2"}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.invite(notification{call: "call-1"}, tenant, time.Now()); err == nil {
		t.Error("an invite to another call than its address is taken")
	}
}

func TestWhatIsARightIsStruckOut(t *testing.T) {
	got := string(strike([]byte(`{"meetingInfo":{"token":"canary"},"list":[{"joinWebUrl":"canary","n":12345678901234567890}],"Authorization":"canary","passcode":"canary","subject":"kept"}`)))
	if strings.Contains(got, "canary") || !strings.Contains(got, "kept") || !strings.Contains(got, "12345678901234567890") {
		t.Fatal(got)
	}
}

// told applies a roster notification and writes what it told.
func told(t *testing.T, r *roster, body string) string {
	t.Helper()
	change, err := decodeRoster(notification{part: "participants", data: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	changed, left, gap, err := r.apply(change)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, p := range changed {
		fmt.Fprintf(&b, "+%s", p.ID)
	}
	for _, id := range left {
		fmt.Fprintf(&b, "-%s", id)
	}
	if gap {
		b.WriteString("?")
	}
	return b.String()
}

func TestARosterIsToldAsWhatChangedInIt(t *testing.T) {
	r := &roster{}
	for _, step := range []struct{ body, want string }{
		{`[{"id":"a","rosterSequenceNumber":1},{"id":"b","rosterSequenceNumber":1}]`, "+a+b"},
		{`[{"id":"a","rosterSequenceNumber":1},{"id":"b","rosterSequenceNumber":1}]`, ""},
		{`[{"id":"a","isMuted":true,"rosterSequenceNumber":3},{"id":"c","rosterSequenceNumber":3}]`, "+a+c-b"},
		{`[{"id":"a","rosterSequenceNumber":2},{"id":"b","rosterSequenceNumber":2}]`, ""}, // stale as a whole: c stays, b does not come back
		{`[{"id":"a","isMuted":true,"rosterSequenceNumber":3}]`, "-c"},                    // the one with the highest number may leave
		{`{"id":"d"}`, "+d"},
		{`{"sequenceNumber":5,"participants":[{"id":"e"}]}`, "+e"},
		{`{"sequenceNumber":5,"participants":[{"id":"f"}]}`, ""},
		{`{"sequenceNumber":6,"participants":[{"id":"e","removedState":{"reason":"x"}},{"id":"zzz","removedState":{}}]}`, "-e"},
		{`{"sequenceNumber":9,"participants":[{"id":"g"}]}`, "+g?"},
		{`{"value":[{"id":"a","isMuted":true,"rosterSequenceNumber":3}]}`, "-d-g"},
		{`[]`, "-a"},
	} {
		if got := told(t, r, step.body); got != step.want {
			t.Fatalf("%s tells %q, want %q", step.body, got, step.want)
		}
	}
	gone, err := decodeRoster(notification{part: "participants", item: "a", change: "deleted"})
	if err != nil || len(gone.removed) != 1 {
		t.Fatalf("%+v, %v", gone, err)
	}
}

func TestTheDocumentedRosterIsRead(t *testing.T) {
	n := one(t, fixture(t, "roster-notification"))
	change, err := decodeRoster(n)
	if err != nil {
		t.Fatal(err)
	}
	r := &roster{}
	changed, _, _, err := r.apply(change)
	if err != nil || len(changed) != 2 || !r.heard() {
		t.Fatalf("%+v, %v", changed, err)
	}
	john := changed[0]
	want := []teams.MediaStream{{Kind: teams.MediaAudio, Source: 1, Direction: "sendReceive"}, {Kind: teams.MediaVideo, Source: 2, Direction: "receiveOnly"}, {Kind: teams.MediaScreen, Source: 8, Direction: "receiveOnly"}}
	if john.Name != "John" || !john.Muted || john.Lobby || !slices.Equal(john.Streams, want) {
		t.Fatalf("%+v", john)
	}
	if changed[1].Kind != teams.PartyApplication {
		t.Fatalf("%+v", changed[1])
	}
}

func TestATornRosterSendsNobodyAway(t *testing.T) {
	r := &roster{}
	told(t, r, `[{"id":"a"},{"id":"b"}]`)
	change, err := decodeRoster(notification{part: "participants", data: []byte(`[{"id":"a"},{"id":"../b"}]`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, left, _, err := r.apply(change); err == nil || len(left) != 0 || len(r.people) != 2 {
		t.Fatalf("left %v, %v", left, err)
	}
	for _, body := range []string{`[7]`, `[{"name":"x"}]`, `"x"`, `{"participants":"x"}`} {
		if _, err := decodeRoster(notification{part: "participants", data: []byte(body)}); err == nil {
			t.Errorf("%s is read", body)
		}
	}
}

// FuzzPost reads arbitrary posts as the webhook does, and applies what they say.
func FuzzPost(f *testing.F) {
	names, err := filepath.Glob(filepath.Join("testdata", "*.json"))
	if err != nil || len(names) == 0 {
		f.Fatal("no fixtures", err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"value":[{"changeType":1,"resource":"/app/calls/x/participants","resourceData":{"sequenceNumber":"7","participants":{"id":"p"}}}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		items, err := decodePost(body)
		if len(items) == 0 && err == nil {
			t.Fatal("nothing read, and nothing wrong")
		}
		r := &roster{}
		for _, n := range items {
			if _, err := teams.ParseCallID(string(n.call)); err != nil {
				t.Fatalf("call id %q", n.call)
			}
			if w, err := decodeCall(n.data); err == nil {
				_ = w.state(n.change).Rank()
				_ = w.result()
				if inv, err := w.invite(n, tenant, time.Time{}); err == nil {
					if b, err := json.Marshal(inv); err != nil || !utf8.Valid(b) {
						t.Fatalf("invite cannot be written: %v", err)
					}
				}
			}
			if change, err := decodeRoster(n); err == nil {
				changed, left, _, _ := r.apply(change)
				for _, p := range changed {
					if _, there := r.people[p.ID]; !there && !slices.Contains(left, p.ID) {
						t.Fatalf("%q came and is not there", p.ID)
					}
				}
			}
		}
	})
}
