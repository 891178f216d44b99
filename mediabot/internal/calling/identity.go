package calling

import (
	"encoding/json"
	"strings"

	"steno/shared/teams"
)

// maxName bounds names and other free text that is kept, in bytes.
const maxName = 256

// wireIdentity is one identity of a set.
type wireIdentity struct {
	ID     looseText `json:"id"`
	Name   looseText `json:"displayName"`
	Tenant looseText `json:"tenantId"`
}

// wireIdentitySet names somebody in one of its members.
// https://learn.microsoft.com/graph/api/resources/communicationsidentityset
type wireIdentitySet map[string]json.RawMessage

// kinds are the members of an identity set in order of preference: some sets name a
// person and the device that she uses.
var kinds = []teams.PartyKind{
	teams.PartyUser, teams.PartyGuest, teams.PartyPhone, teams.PartyACS, teams.PartyOnPremises, teams.PartyInstance,
	teams.PartyApplication, teams.PartyEncrypted, teams.PartyDevice,
}

// party reads who an identity set names. Graph keeps adding kinds; an unknown one is
// kept as PartyOther with whatever id it has.
func (s wireIdentitySet) party() (teams.Party, bool) {
	members := map[string]json.RawMessage{}
	for name, raw := range s {
		if !strings.HasPrefix(name, "@") && string(raw) != "null" {
			members[strings.ToLower(name)] = raw
		}
	}
	for _, kind := range kinds {
		if raw, there := members[strings.ToLower(string(kind))]; there {
			return readParty(kind, raw), true
		}
	}
	best, found := teams.Party{}, ""
	for name, raw := range members {
		// assertedIdentity says who a caller claims to be, not who she is.
		if p := readParty(teams.PartyOther, raw); name != "assertedidentity" && p.ID != "" && (found == "" || name < found) {
			best, found = p, name
		}
	}
	return best, found != ""
}

func readParty(kind teams.PartyKind, raw json.RawMessage) teams.Party {
	var id loose[wireIdentity]
	_ = id.UnmarshalJSON(raw)
	p := teams.Party{Kind: kind, ID: clip(string(id.v.ID)), Name: clip(string(id.v.Name))}
	if tenant, err := teams.ParseTenantID(string(id.v.Tenant)); err == nil {
		p.Tenant = tenant
	}
	if kind == teams.PartyUser {
		p.ID = lowerGUID(p.ID)
	}
	return p
}

// mriParty reads an identity as Teams' own services write it: a prefix for the kind,
// then the id. Graph documents none of these; without a known prefix a GUID is a user.
func mriParty(s, tenant string) (teams.Party, bool) {
	s = clip(s)
	p := teams.Party{Kind: teams.PartyOther, ID: s}
	if t, err := teams.ParseTenantID(tenant); err == nil {
		p.Tenant = t
	}
	for _, known := range []struct {
		prefix string
		kind   teams.PartyKind
	}{
		{"8:orgid:", teams.PartyUser}, {"8:acs:", teams.PartyACS}, {"8:teamsvisitor:", teams.PartyGuest},
		{"28:", teams.PartyApplication}, {"4:", teams.PartyPhone},
	} {
		if id, ok := strings.CutPrefix(s, known.prefix); ok {
			p.Kind, p.ID = known.kind, id
			break
		}
	}
	if _, err := teams.ParsePersonID(p.ID); err == nil && p.Kind == teams.PartyOther {
		p.Kind = teams.PartyUser
	}
	if p.Kind == teams.PartyUser {
		p.ID = lowerGUID(p.ID)
	}
	return p, p.ID != ""
}

// lowerGUID writes object ids as the rest of the project does; other ids stay.
func lowerGUID(s string) string {
	if id, err := teams.ParsePersonID(s); err == nil {
		return string(id)
	}
	return s
}

// clip bounds foreign text and keeps it valid UTF-8.
func clip(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxName)], "")
}
