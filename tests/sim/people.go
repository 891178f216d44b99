package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// PersonID is a person's Entra object id, or what stands for it outside the tenant.
type PersonID string

// CommunicationsDLP is the service plan that most licensed people have.
const CommunicationsDLP = "6dc145d6-95dd-4191-b9c3-185575ee6f6b"

// teamsPlan is that of Teams itself, and everybody's.
const teamsPlan = "57ff2da0-773e-42df-b2af-ffb7a2317929"

// The groups that give roles and say who is recorded.
const (
	RecordedEquities    = "Steno Recorded Equities"
	RecordedRates       = "Steno Recorded Rates"
	SupervisorsEquities = "Steno Supervisors Equities"
	SupervisorsRates    = "Steno Supervisors Rates"
	Compliance          = "Steno Compliance"
	Administrators      = "Steno Administrators"
	Auditors            = "Steno Auditors"
	CashDesk            = "Equities Cash Desk"        // inside RecordedEquities
	DerivativesDesk     = "Equities Derivatives Desk" // inside RecordedEquities, and in a cycle with CashDesk
)

// The values of Person.Identity, Graph's userIdentityType.
const (
	IdentityMember    = "aadUser"
	IdentityFederated = "federatedUser"
	IdentityAnonymous = "anonymousGuest"
)

// exportAfterRemoval is how long a removed user's mailbox can still be exported,
// https://learn.microsoft.com/en-us/microsoftteams/export-teams-content.
const exportAfterRemoval = 30 * 24 * time.Hour

// Person is somebody who can take part in a conversation.
type Person struct {
	ID             PersonID
	DisplayName    string
	GivenName      string
	Surname        string
	UPN            string
	Mail           string
	JobTitle       string
	AccountEnabled bool
	UserType       string // Member or Guest; empty outside the directory
	Plans          []string
	Mailbox        bool   // false: exports answer 404
	Identity       string // userIdentityType
	Tenant         string // the tenant at home in; empty for an anonymous guest
}

// Licensed reports whether the person has the Communications DLP plan.
func (p Person) Licensed() bool { return slices.Contains(p.Plans, CommunicationsDLP) }

// A Member of a group is of type user, group, device or servicePrincipal.
type Member struct {
	Type string
	ID   string
}

// Group is an Entra group.
type Group struct {
	ID          string
	DisplayName string
	Team        bool // also a team
	Members     []Member
	Owners      []PersonID
}

// directory is guarded by Tenant.mu.
type directory struct {
	people  []*Person // in the directory
	outside []*Person // federated and anonymous participants
	byID    map[PersonID]*Person
	removed map[PersonID]time.Time
	groups  []*Group
	names   map[string]string // display names of devices and service principals
	changes []change
	desks   map[string][]*Person // by role group: who was put there, nested or not
	private []*Person            // in no role group
}

// change is one entry of what groups/delta reports.
type change struct {
	group  string
	member Member
	added  bool
}

var givenNames = []string{
	"Amara", "Björn", "Chiara", "Dmitri", "Elif", "Farid", "Grace", "Hana", "Ines", "Jonas", "Kavya", "Łukasz",
	"Mei", "Noor", "Olu", "Priya", "Quentin", "Renée", "Søren", "Tomás", "Uma", "Viktor", "Wen", "Ximena", "Yuki", "Zoë",
}

var surnames = []string{
	"Adeyemi", "Bergström", "Castellanos", "D'Angelo", "Eriksen", "Fitzgerald", "García", "Hoffmann", "Ivanova",
	"Jankowski", "Kowalczyk", "Lindqvist", "Müller", "Nakamura", "O'Brien", "Petrov", "Quispe", "Rousseau", "Şahin",
	"Tanaka", "Ueda", "Varga", "Weiß", "Xu", "Yıldız", "Zhang",
}

var foldLetters = strings.NewReplacer(
	"ö", "o", "Ł", "L", "ł", "l", "é", "e", "ø", "o", "á", "a", "ë", "e", "í", "i", "ü", "u", "Ş", "S", "ş", "s",
	"ß", "ss", "ı", "i", "'", "")

func drawPerson(r *rand.Rand, n int, domain, tenant string) *Person {
	given := givenNames[n%len(givenNames)]
	last := surnames[(n*7+n/len(givenNames))%len(surnames)]
	local := strings.ToLower(foldLetters.Replace(given + "." + last))
	if round := n / (len(givenNames) * len(surnames)); round > 0 {
		local += fmt.Sprint(round + 1)
	}
	return &Person{
		ID: PersonID(drawGUID(r)), DisplayName: given + " " + last, GivenName: given, Surname: last,
		UPN: local + "@" + domain, Mail: local + "@" + domain,
		AccountEnabled: true, UserType: "Member", Plans: []string{teamsPlan, CommunicationsDLP}, Mailbox: true,
		Identity: IdentityMember, Tenant: tenant,
	}
}

func drawDirectory(r *rand.Rand, cfg Config) directory {
	d := directory{
		byID: map[PersonID]*Person{}, removed: map[PersonID]time.Time{},
		names: map[string]string{}, desks: map[string][]*Person{},
	}
	for n := range cfg.People {
		d.people = append(d.people, drawPerson(r, n, "contoso.example", cfg.Tenant))
	}
	d.placePeople()
	foreign := drawGUID(r)
	for n := range max(3, cfg.People/8) {
		p := drawPerson(r, n+11, "fabrikam.example", foreign)
		p.UserType, p.Mailbox, p.Identity, p.Plans = "", false, IdentityFederated, nil
		if n%3 == 2 {
			p.Identity, p.Tenant, p.UPN, p.Mail = IdentityAnonymous, "", "", ""
		}
		d.outside = append(d.outside, p)
	}
	for _, p := range slices.Concat(d.people, d.outside) {
		d.byID[p.ID] = p
	}
	d.drawGroups(r)
	return d
}

// placePeople gives the first five a role each and divides the rest between two desks and those outside every scope
// group. The last person outside is a guest, one before has no mailbox.
func (d *directory) placePeople() {
	place := func(group, job string, people ...*Person) {
		for _, p := range people {
			p.JobTitle = job
		}
		d.desks[group] = append(d.desks[group], people...)
	}
	p := d.people
	place(Administrators, "Administrator", p[0])
	place(Compliance, "Compliance Officer", p[1])
	place(Auditors, "Auditor", p[2])
	place(SupervisorsEquities, "Supervisor, Equities", p[3])
	place(SupervisorsRates, "Supervisor, Rates", p[4])
	rest := p[5:]
	desk := len(rest) * 3 / 10
	place(RecordedEquities, "Trader, Equities", rest[:desk]...)
	place(RecordedRates, "Trader, Rates", rest[desk:2*desk]...)
	d.private = rest[2*desk:]
	for _, q := range d.private {
		q.JobTitle = "Operations"
	}
	guest := d.private[len(d.private)-1]
	guest.UserType = "Guest"
	guest.Mail = strings.Replace(guest.Mail, "contoso", "tailspin", 1)
	guest.UPN = strings.ReplaceAll(guest.Mail, "@", "_") + "#EXT#@contoso.example"
	// Whether a guest's messages can be exported by the inviting tenant is not documented: here they cannot.
	guest.Mailbox, guest.Plans = false, nil
	for i, q := range rest[:2*desk] {
		if i%9 == 1 {
			q.Plans = []string{teamsPlan}
		}
	}
	if len(d.private) > 3 {
		d.private[1].Mailbox = false
		d.private[2].AccountEnabled = false
	}
}

func (d *directory) drawGroups(r *rand.Rand) {
	add := func(name string, people ...*Person) *Group {
		g := &Group{ID: drawGUID(r), DisplayName: name}
		for _, p := range people {
			g.Members = append(g.Members, Member{"user", string(p.ID)})
		}
		d.groups = append(d.groups, g)
		return g
	}
	thing := func(kind, name string) Member {
		m := Member{kind, drawGUID(r)}
		d.names[m.ID] = name
		return m
	}
	desk := d.desks[RecordedEquities]
	half := (len(desk) + 1) / 2
	equities := add(RecordedEquities, desk[0])
	cash := add(CashDesk, desk[:half]...)
	derivatives := add(DerivativesDesk, append([]*Person{desk[0]}, desk[half:]...)...)
	equities.Members = append(equities.Members, Member{"group", cash.ID}, Member{"group", derivatives.ID}, thing("device", "DESK-EQ-01"))
	cash.Members = append(cash.Members, Member{"group", derivatives.ID})
	derivatives.Members = append(derivatives.Members, Member{"group", cash.ID})
	rates := add(RecordedRates, d.desks[RecordedRates]...)
	rates.Members = append(rates.Members, thing("servicePrincipal", "Rates Pricing Bot"))
	for _, name := range []string{SupervisorsEquities, SupervisorsRates, Compliance, Administrators, Auditors} {
		add(name, d.desks[name]...)
	}
	add("All Company", d.people...)
}

// People returns everybody in the directory, guests included.
func (t *Tenant) People() []Person {
	t.mu.Lock()
	defer t.mu.Unlock()
	return copyPeople(t.dir.people)
}

// Outsiders returns those who take part in conversations and are not in the directory: federated and anonymous.
func (t *Tenant) Outsiders() []Person {
	t.mu.Lock()
	defer t.mu.Unlock()
	return copyPeople(t.dir.outside)
}

func copyPeople(from []*Person) []Person {
	out := make([]Person, len(from))
	for i, p := range from {
		out[i] = *p
		out[i].Plans = slices.Clone(p.Plans)
	}
	return out
}

// Groups returns every group with its direct members.
func (t *Tenant) Groups() []Group {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Group, len(t.dir.groups))
	for i, g := range t.dir.groups {
		out[i] = *g
		out[i].Members, out[i].Owners = slices.Clone(g.Members), slices.Clone(g.Owners)
	}
	return out
}

// Group returns the group of that display name or id, and whether there is one.
func (t *Tenant) Group(nameOrID string) (Group, bool) {
	for _, g := range t.Groups() {
		if g.DisplayName == nameOrID || g.ID == nameOrID {
			return g, true
		}
	}
	return Group{}, false
}

// UsersIn returns the users of a group, those of nested groups included, each once, in no particular order.
func (t *Tenant) UsersIn(nameOrID string) []PersonID {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.dir.group(nameOrID)
	if g == nil {
		return nil
	}
	var out []PersonID
	for _, m := range t.dir.transitive(g) {
		if m.Type == "user" {
			out = append(out, PersonID(m.ID))
		}
	}
	return out
}

func (d *directory) group(nameOrID string) *Group {
	for _, g := range d.groups {
		if g.ID == nameOrID || g.DisplayName == nameOrID {
			return g
		}
	}
	return nil
}

// transitive lists the members of g and of every group in it, each once and without g itself.
func (d *directory) transitive(g *Group) []Member {
	seen := map[string]bool{g.ID: true}
	var out []Member
	queue := []*Group{g}
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		for _, m := range next.Members {
			if seen[m.ID] {
				continue
			}
			seen[m.ID] = true
			out = append(out, m)
			if m.Type == "group" {
				if inner := d.group(m.ID); inner != nil {
					queue = append(queue, inner)
				}
			}
		}
	}
	return out
}

// AddMember puts a person into a group, named by display name or id. Somebody who is in it already stays in it once.
func (t *Tenant) AddMember(group string, person PersonID) error {
	return t.changeMember(group, person, true)
}

// RemoveMember takes a person out of a group's direct members; a nested group may still hold the person.
func (t *Tenant) RemoveMember(group string, person PersonID) error {
	return t.changeMember(group, person, false)
}

func (t *Tenant) changeMember(group string, person PersonID, added bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.dir.group(group)
	if g == nil {
		return fmt.Errorf("change group %q: no such group", group)
	}
	if p := t.dir.byID[person]; p == nil || p.UserType == "" {
		return fmt.Errorf("change group %q: no person %s in the directory", group, person)
	}
	t.dir.set(g, Member{"user", string(person)}, added)
	return nil
}

func (d *directory) set(g *Group, m Member, added bool) {
	i := slices.Index(g.Members, m)
	switch {
	case added && i < 0:
		g.Members = append(g.Members, m)
	case !added && i >= 0:
		g.Members = slices.Delete(g.Members, i, i+1)
	default:
		return
	}
	d.changes = append(d.changes, change{g.ID, m, added})
}

// RemoveUser deletes a person from the directory, every group and every conversation. The mailbox can be exported for
// 30 days more.
func (t *Tenant) RemoveUser(person PersonID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.dir.people, func(p *Person) bool { return p.ID == person })
	if i < 0 {
		return fmt.Errorf("remove user %s: not in the directory", person)
	}
	t.dir.people = slices.Delete(slices.Clone(t.dir.people), i, i+1)
	t.dir.removed[person] = t.now()
	for _, g := range t.dir.groups {
		t.dir.set(g, Member{"user", string(person)}, false)
	}
	for _, th := range t.threads {
		if slices.Contains(th.roster, person) {
			th.roster = slices.DeleteFunc(slices.Clone(th.roster), func(id PersonID) bool { return id == person })
		}
	}
	return nil
}

// lookup finds somebody in the directory by object id or user principal name.
func (d *directory) lookup(idOrUPN string) *Person {
	for _, p := range d.people {
		if strings.EqualFold(string(p.ID), idOrUPN) || strings.EqualFold(p.UPN, idOrUPN) {
			return p
		}
	}
	return nil
}
