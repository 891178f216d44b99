package sim_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/tests/local/entra"
	"steno/tests/sim"
)

type object struct {
	Type        string `json:"@odata.type"`
	ID          string
	DisplayName *string
	UPN         string `json:"userPrincipalName"`
	Mail        *string
	UserType    string
	Enabled     *bool                                              `json:"accountEnabled"`
	Plans       []struct{ ServicePlanID, CapabilityStatus string } `json:"assignedPlans"`
	Delta       []struct {
		Type    string `json:"@odata.type"`
		ID      string
		Removed *struct{ Reason string } `json:"@removed"`
	} `json:"members@delta"`
}

func (f *fixture) objects(raw []json.RawMessage) []object {
	f.t.Helper()
	var out []object
	for _, r := range raw {
		out = append(out, decode[object](f.t, r))
	}
	return out
}

func (f *fixture) groupID(name string) string {
	f.t.Helper()
	g, ok := f.Group(name)
	if !ok {
		f.t.Fatalf("no group %s", name)
	}
	return g.ID
}

func TestNestedGroupsAreFlattenedOnceDespiteACycle(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: -1, People: 60})
	id := f.groupID(sim.RecordedEquities)
	members := f.objects(f.all("/groups/" + id + "/transitiveMembers?$top=5"))
	users, types, seen := 0, map[string]int{}, map[string]bool{}
	for _, m := range members {
		if seen[m.ID] {
			t.Errorf("%s appears twice", m.ID)
		}
		seen[m.ID] = true
		types[m.Type]++
		if m.Type == "#microsoft.graph.user" {
			users++
			if !slices.Contains(f.UsersIn(sim.RecordedEquities), sim.PersonID(m.ID)) {
				t.Errorf("%s is no member", m.ID)
			}
		}
	}
	if users != len(f.UsersIn(sim.RecordedEquities)) || users < 10 || types["#microsoft.graph.group"] != 2 || types["#microsoft.graph.device"] != 1 {
		t.Errorf("%d users, types %v", users, types)
	}
	if direct := f.objects(f.all("/groups/" + id + "/members")); len(direct) != 4 {
		t.Errorf("%d direct members", len(direct))
	}
	if seen[id] {
		t.Error("the group is a member of itself")
	}
}

func TestCastNeedsAdvancedQuery(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: -1})
	path := "/groups/" + f.groupID(sim.RecordedEquities) + "/transitiveMembers/microsoft.graph.user?%24select=id,mail&%24count=true"
	if r := f.get(path); r.status != http.StatusBadRequest {
		t.Errorf("without ConsistencyLevel: %d", r.status)
	}
	users := f.objects(f.all(path, "ConsistencyLevel", "eventual"))
	if len(users) != len(f.UsersIn(sim.RecordedEquities)) || users[0].Mail == nil || users[0].UPN != "" {
		t.Errorf("users are %+v", users)
	}
}

func TestGroupIsFoundByDisplayNameAndByID(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: -1})
	got := f.objects(f.all("/groups?$filter=" + url.QueryEscape("displayName eq '"+sim.Compliance+"'")))
	if len(got) != 1 || got[0].ID != f.groupID(sim.Compliance) {
		t.Fatalf("got %+v", got)
	}
	if o := decode[object](t, f.get("/groups/"+got[0].ID+"?$select=displayName").body); *o.DisplayName != sim.Compliance || o.ID != "" {
		t.Errorf("got %+v", o)
	}
	if r := f.get("/groups/00000000-0000-0000-0000-000000000000"); r.status != http.StatusNotFound || graphError(t, r).Code != "Request_ResourceNotFound" {
		t.Errorf("unknown group: %d", r.status)
	}
	if r := f.get("/groups?$filter=" + url.QueryEscape("description eq 'x'")); r.status != http.StatusBadRequest {
		t.Errorf("unsupported filter: %d", r.status)
	}
	teams := f.objects(f.all("/groups?$select=id&$filter=" + url.QueryEscape("resourceProvisioningOptions/Any(x:x eq 'Team')")))
	if len(teams) != len(f.Teams()) {
		t.Errorf("%d teams, want %d", len(teams), len(f.Teams()))
	}
}

func TestUsersAreReadWithTheirPlans(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: -1, People: 40})
	want := f.People()
	const fields = "id,displayName,userPrincipalName,mail,accountEnabled,userType,assignedPlans"
	users := f.objects(f.all("/users?$top=7&$select=" + fields))
	if len(users) != len(want) {
		t.Fatalf("%d users, want %d", len(users), len(want))
	}
	missing, guests, disabled := 0, 0, 0
	for i, u := range users {
		licensed := slices.ContainsFunc(u.Plans, func(p struct{ ServicePlanID, CapabilityStatus string }) bool {
			return p.ServicePlanID == sim.CommunicationsDLP && p.CapabilityStatus == "Enabled"
		})
		if u.ID != string(want[i].ID) || u.UPN != want[i].UPN || licensed != want[i].Licensed() {
			t.Errorf("user %d is %+v, want %+v", i, u, want[i])
		}
		if u.UserType == "Guest" {
			guests++
		} else if !licensed {
			missing++
		}
		if !*u.Enabled {
			disabled++
		}
	}
	if missing == 0 || missing > 10 || guests != 1 || disabled != 1 {
		t.Errorf("%d without plan, %d guests, %d disabled", missing, guests, disabled)
	}
	two := "id in ('" + string(want[3].ID) + "', '" + string(want[9].ID) + "')"
	if got := f.objects(f.all("/users?$filter=" + url.QueryEscape(two))); len(got) != 2 {
		t.Errorf("in: %+v", got)
	}
	or := "id eq '" + string(want[3].ID) + "' or id eq '" + string(want[9].ID) + "'"
	if got := f.objects(f.all("/users?$filter=" + url.QueryEscape(or))); len(got) != 2 {
		t.Errorf("or: %+v", got)
	}
	if r := f.get("/users?$filter=" + url.QueryEscape("id in ('"+strings.Repeat("a','", 15)+"a')")); r.status != http.StatusBadRequest {
		t.Errorf("16 values: %d", r.status)
	}
	if o := decode[object](t, f.get("/users/"+url.PathEscape(want[4].UPN)).body); o.ID != string(want[4].ID) {
		t.Errorf("by UPN: %+v", o)
	}
}

func TestPageSizeAboveTheMaximumIsRefused(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: -1})
	if r := f.get("/users?$top=1000"); r.status != http.StatusBadRequest {
		t.Errorf("got %d", r.status)
	}
}

func TestMembershipChangesShowInDeltaUntilItsLinkIsUsed(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: -1, People: 60})
	id := f.groupID(sim.RecordedRates)
	walk := func(address string) (members map[string]bool, link string, parts int) {
		t.Helper()
		members = map[string]bool{}
		for address != "" {
			p := f.page(address)
			for _, g := range f.objects(p.Value) {
				parts++
				for _, m := range g.Delta {
					members[m.ID] = m.Removed == nil
				}
			}
			address, link = p.Next, p.Delta
		}
		return members, link, parts
	}
	all, link, parts := walk("/groups/delta?$select=id,displayName,members&$filter=" + url.QueryEscape("id eq '"+f.groupID("All Company")+"'"))
	if len(all) != 60 || parts < 3 {
		t.Errorf("a large group has %d members in %d parts", len(all), parts)
	}
	if same, again, _ := walk(link); len(same) != 0 || again == "" {
		t.Errorf("nothing happened and delta tells %v", same)
	}
	_, link, _ = walk("/groups/delta()?$filter=" + url.QueryEscape("id eq '"+id+"'"))
	leaves, joins := f.UsersIn(sim.RecordedRates)[0], f.People()[0].ID
	for _, err := range []error{f.RemoveMember(sim.RecordedRates, leaves), f.AddMember(sim.RecordedRates, joins), f.AddMember(sim.RecordedRates, joins), f.AddMember(sim.RecordedEquities, joins)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		got, _, _ := walk(link)
		if len(got) != 2 || got[string(leaves)] || !got[string(joins)] {
			t.Errorf("delta tells %v", got)
		}
	}
	if r := f.get("/groups/delta?$deltatoken=old"); r.status != http.StatusGone {
		t.Errorf("invalid token: %d", r.status)
	}
}

func TestRemovedUserIsExportedFor30DaysMore(t *testing.T) {
	f := newFixture(t, sim.Config{})
	p := f.busiest()
	n := len(f.all(export(p)))
	if err := f.RemoveUser(p); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(f.UsersIn(sim.RecordedEquities), p) {
		t.Error("still in the group")
	}
	if r := f.get("/users/" + string(p)); r.status != http.StatusNotFound {
		t.Errorf("user is %d", r.status)
	}
	f.clock.Advance(5 * 24 * time.Hour)
	if got := len(f.all(export(p))); got == 0 || got > n {
		t.Errorf("%d messages of %d", got, n)
	}
	f.clock.Advance(25 * 24 * time.Hour)
	if r := f.get(export(p)); r.status != http.StatusNotFound {
		t.Errorf("after 30 days: %d", r.status)
	}
	if err := f.RemoveUser(p); err == nil {
		t.Error("removed twice")
	}
}

func TestLiveTrafficGoesOnWithoutRemovedUsers(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 100, People: sim.MinPeople})
	for _, p := range f.People()[2:] {
		if err := f.RemoveUser(p.ID); err != nil {
			t.Fatal(err)
		}
	}
	f.clock.Advance(time.Hour)
	removed := f.clock.Now()
	for range 2000 {
		f.Step()
	}
	stay := f.People()
	for _, v := range f.History() {
		if v.Sent.Before(removed) {
			continue
		}
		for _, p := range v.Participants {
			inside := slices.ContainsFunc(stay, func(q sim.Person) bool { return q.ID == p })
			if !inside && !slices.ContainsFunc(f.Outsiders(), func(q sim.Person) bool { return q.ID == p }) {
				t.Fatalf("removed user %s takes part in %s", p, v.Bytes)
			}
		}
	}
}

func TestEntraTokensOpenTheTenant(t *testing.T) {
	daemon := entra.Client{ID: "functions", Secret: "s", Roles: map[string][]string{entra.GraphResource: {"User.Read.All"}}}
	f := newFixture(t, sim.Config{Messages: 10})
	e, err := entra.New(entra.Config{Base: "https://localhost/entra", Tenant: f.ID(), Clients: []entra.Client{daemon}})
	if err != nil {
		t.Fatal(err)
	}
	g := newFixture(t, sim.Config{Messages: 10, VerifyToken: e.Verifier(entra.GraphResource)})
	claims := e.AppClaims(daemon, entra.GraphResource)
	if r := g.get("/users", "Authorization", "Bearer "+e.Mint(claims)); r.status != http.StatusOK {
		t.Errorf("with its role: %d %s", r.status, r.body)
	}
	if r := g.get("/organization", "Authorization", "Bearer "+e.Mint(claims)); r.status != http.StatusForbidden {
		t.Errorf("without the role: %d", r.status)
	}
	if r := g.get("/users", "Authorization", "Bearer "+e.Mint(claims, e.WithForeignKey())); r.status != http.StatusUnauthorized {
		t.Errorf("forged: %d", r.status)
	}
	claims["aud"] = entra.StorageResource
	if r := g.get("/users", "Authorization", "Bearer "+e.Mint(claims)); r.status != http.StatusUnauthorized {
		t.Errorf("for storage: %d", r.status)
	}
}

func TestMissingMailboxIsToldFromMissingUser(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 50})
	for _, p := range f.People() {
		if !p.Mailbox {
			if r := f.get(export(p.ID)); r.status != http.StatusNotFound || graphError(t, r).Code != "MailboxNotEnabledForRESTAPI" {
				t.Errorf("%s: %d %s", p.UPN, r.status, r.body)
			}
		}
	}
	if r := f.get(export(f.Outsiders()[0].ID)); r.status != http.StatusNotFound || graphError(t, r).Code != "ResourceNotFound" {
		t.Errorf("federated: %d %s", r.status, r.body)
	}
}

func TestChatShowsTypeTopicAndMembers(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 50})
	for _, th := range f.Threads() {
		path := "/chats/" + url.PathEscape(string(th.ID))
		if th.Kind.IsChannel() {
			if r := f.get(path); r.status != http.StatusNotFound {
				t.Errorf("channel as chat: %d", r.status)
			}
			continue
		}
		type member struct{ UserID, TenantID, Email string }
		chat := decode[struct {
			ID, ChatType string
			Topic        *string
			Meeting      *struct{ JoinWebURL string } `json:"onlineMeetingInfo"`
			Members      []member
		}](t, f.get(path+"?$expand=members").body)
		if chat.ID != string(th.ID) || chat.ChatType != string(th.Kind) || len(chat.Members) != len(th.Members) ||
			(chat.Meeting != nil) != (th.Kind == sim.Meeting) || (chat.Topic == nil) != (th.Kind == sim.OneOnOne) {
			t.Errorf("%+v is served as %+v", th, chat)
		}
		if got := f.page("/chats('" + string(th.ID) + "')/members"); len(got.Value) != len(th.Members) {
			t.Errorf("%d members", len(got.Value))
		}
	}
	if r := f.get("/chats/19:nowhere@thread.v2"); r.status != http.StatusNotFound {
		t.Errorf("unknown chat: %d", r.status)
	}
}

func TestTeamListsItsChannelsAndTheirMembers(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: -1})
	team := f.Teams()[0]
	channels := f.objects(f.page("/teams/" + team.ID + "/allChannels").Value)
	if len(channels) != len(team.Channels) {
		t.Fatalf("%d channels", len(channels))
	}
	for _, c := range channels {
		if p := f.page("/teams/" + team.ID + "/channels/" + url.PathEscape(c.ID) + "/allMembers"); len(p.Value) < 2 {
			t.Errorf("channel %s has %d members", c.ID, len(p.Value))
		}
	}
}

func TestRolesAreCheckedPerEndpoint(t *testing.T) {
	roles := []any{}
	f := newFixture(t, sim.Config{Messages: 50, VerifyToken: func(string) (map[string]any, error) {
		return map[string]any{"roles": roles}, nil
	}})
	user := f.UsersIn(sim.RecordedEquities)[0]
	group := f.groupID(sim.RecordedEquities)
	for path, role := range map[string]string{
		export(user): "Chat.Read.All",
		"/users/" + string(user) + "/chats/getAllRetainedMessages": "Chat.Read.All",
		"/teams/" + f.Teams()[0].ID + "/channels/getAllMessages":   "ChannelMessage.Read.All",
		"/groups/" + group + "/transitiveMembers":                  "GroupMember.Read.All",
		"/users":                              "User.Read.All",
		"/organization":                       "Organization.Read.All",
		"/chats/" + string(f.Threads()[0].ID): "Chat.ReadBasic.All",
		"/chats/" + string(f.Threads()[0].ID) + "/members": "ChatMember.Read.All",
	} {
		roles = []any{"Chat.ReadWrite.None", "Mail.Read"}
		if r := f.get(path); r.status != http.StatusForbidden || !strings.HasPrefix(graphError(t, r).Message, "Missing role permissions on the request. API required one of '"+role) {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
		roles = []any{role}
		if r := f.get(path); r.status != http.StatusOK {
			t.Errorf("%s with %s: %d %s", path, role, r.status, r.body)
		}
	}
	roles = []any{"GroupMember.Read.All"}
	for _, m := range f.objects(f.all("/groups/" + group + "/transitiveMembers")) {
		if m.Type == "#microsoft.graph.user" && (m.ID == "" || m.UPN != "") {
			t.Errorf("without User.Read.All a member shows %+v", m)
		}
	}
}

func TestMissingAndRefusedTokensAre401(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 50, VerifyToken: func(string) (map[string]any, error) { return nil, errors.New("no") }})
	for _, token := range []string{"", "Basic x", "Bearer "} {
		if r := f.get("/users", "Authorization", token); r.status != 401 || graphError(t, r).Message != "Access token is empty." || r.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%q: %d %s", token, r.status, r.body)
		}
	}
	if r := f.get("/users", "client-request-id", "abc"); r.status != 401 || r.header.Get("client-request-id") != "abc" {
		t.Errorf("refused: %d %v", r.status, r.header)
	}
}

func TestUnknownPathAndMethodAreRefused(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 50})
	for _, path := range []string{"/me/messages", "/users/a/b/c/d", f.url + "/beta/users", f.url + "/"} {
		if r := f.get(path); r.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, r.status)
		}
	}
	resp, err := f.http.Post(f.url+"/v1.0/users", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("post: %d", resp.StatusCode)
	}
}

func TestFixturesAreServedAsTheyAre(t *testing.T) {
	s := httptest.NewServer(sim.ServeFixtures())
	defer s.Close()
	f := &fixture{t: t, url: s.URL, http: s.Client()}
	if len(sim.Fixtures()) < 20 {
		t.Errorf("only %d fixtures", len(sim.Fixtures()))
	}
	for _, name := range sim.Fixtures() {
		want, err := os.ReadFile(filepath.Join("testdata", "graph-export", name))
		if err != nil {
			t.Fatal(err)
		}
		got := f.get(s.URL + "/any/" + strings.TrimSuffix(name, ".json"))
		status := http.StatusOK
		if rest, ok := strings.CutPrefix(name, "error-"); ok {
			status = int(rest[0]-'0')*100 + int(rest[1]-'0')*10 + int(rest[2]-'0')
		}
		if got.status != status || !bytes.Equal(got.body, want) {
			t.Errorf("%s: %d, %d bytes of %d", name, got.status, len(got.body), len(want))
		}
	}
	if r := f.get(s.URL + "/nothing"); r.status != http.StatusNotFound {
		t.Errorf("unknown fixture: %d", r.status)
	}
}
