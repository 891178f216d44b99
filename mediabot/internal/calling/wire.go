package calling

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"steno/shared/teams"
)

// wireCall is what is read of a call. Members that cannot be read are as if absent.
// https://learn.microsoft.com/graph/api/resources/call
type wireCall struct {
	Type       looseText           `json:"@odata.type"`
	ID         looseText           `json:"id"`
	State      looseText           `json:"state"`
	Tenant     looseText           `json:"tenantId"`
	Chain      looseText           `json:"callChainId"`
	Source     loose[wireInfo]     `json:"source"`
	Targets    loose[[]wireInfo]   `json:"targets"`
	Context    loose[wireContext]  `json:"incomingContext"`
	Meeting    loose[wireMeeting]  `json:"meetingInfo"`
	Chat       loose[wireChat]     `json:"chatInfo"`
	Subject    looseText           `json:"subject"`
	Modalities loose[[]looseText]  `json:"requestedModalities"`
	Result     loose[*wireResult]  `json:"resultInfo"`
	Metadata   loose[wireMetadata] `json:"applicationMetadata"`
}

type wireInfo struct {
	Identity loose[wireIdentitySet] `json:"identity"`
	Endpoint looseText              `json:"endpointType"`
	Country  looseText              `json:"countryCode"`
}

type wireContext struct {
	Observed   looseText              `json:"observedParticipantId"`
	OnBehalfOf loose[wireIdentitySet] `json:"onBehalfOf"`
	Transferor loose[wireIdentitySet] `json:"transferor"`
}

type wireMeeting struct {
	Type      looseText              `json:"@odata.type"`
	Organizer loose[wireIdentitySet] `json:"organizer"`
}

type wireChat struct {
	Thread looseText `json:"threadId"`
}

type wireResult struct {
	Code    looseInt  `json:"code"`
	Subcode looseInt  `json:"subcode"`
	Message looseText `json:"message"`
}

// wireMetadata holds botData, which Graph's model does not describe: what it says is
// used where nothing better does.
type wireMetadata struct {
	BotData loose[struct {
		User loose[struct {
			Method       looseText `json:"participationMethod"`
			Holder       looseText `json:"policyHolderId"`
			HolderTenant looseText `json:"policyHolderTenantId"`
		}] `json:"user"`
		Other loose[struct {
			ID     looseText `json:"id"`
			Tenant looseText `json:"tenantId"`
		}] `json:"otherSideUser"`
		Reasons loose[[]looseText] `json:"inviteReasons"`
		Policy  looseText          `json:"policyIdentifier"`
		Paired  loose[[]struct {
			Participant looseText `json:"participantId"`
		}] `json:"pairedRecorders"`
	}] `json:"botData"`
}

// states maps what Graph sends to the states of a leg. Everything else, such as a state
// that is yet to be invented, changes nothing.
var states = map[string]teams.CallState{
	"incoming": teams.CallIncoming, "establishing": teams.CallEstablishing, "ringing": teams.CallEstablishing,
	"established": teams.CallEstablished, "terminating": teams.CallTerminating, "terminated": teams.CallTerminated,
}

// state returns the state that a notification about the call itself tells. A deleted
// call is terminated, whether or not it says so.
func (c wireCall) state(change string) teams.CallState {
	if change == "deleted" {
		return teams.CallTerminated
	}
	return states[strings.ToLower(string(c.State))]
}

func (c wireCall) result() *teams.CallResult {
	r := c.Result.v
	if r == nil {
		return nil
	}
	return &teams.CallResult{Code: int(r.Code), Subcode: int(r.Subcode), Message: clip(string(r.Message))}
}

func decodeCall(raw json.RawMessage) (wireCall, error) {
	var c wireCall
	if len(raw) == 0 {
		return c, nil
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("%w: call is not an object", errUnreadable)
	}
	return c, nil
}

// recording reports whether an invite comes from a recording policy. The observed
// participant is the documented sign; botData speaks of policies under several names.
func (c wireCall) recording() bool {
	bot := c.Metadata.v.BotData.v
	return c.Context.v.Observed != "" || bot.Policy != "" || len(bot.Reasons.v) > 0 || bot.User.v.Holder != ""
}

// invite reads a recording invite. home is the tenant that the token named.
func (c wireCall) invite(n notification, home teams.TenantID, at time.Time) (teams.Invite, error) {
	if c.ID != "" && !strings.EqualFold(string(c.ID), string(n.call)) {
		return teams.Invite{}, fmt.Errorf("%w: invite to one call under the address of another", errUnreadable)
	}
	inv := teams.Invite{Call: n.call, Tenant: home, At: at, Subject: clip(string(c.Subject)), Raw: strike(n.data)}
	chain, err := teams.ParseChainID(string(c.Chain))
	if err != nil {
		chain = teams.ChainID(n.call) // a leg without a chain is a call of its own
	}
	inv.Chain = chain
	inv.Recorded = c.recorded(n.call)
	for _, target := range c.Targets.v {
		if p, ok := target.Identity.v.party(); ok && (p.Kind == teams.PartyInstance || p.Kind == teams.PartyApplication) {
			inv.Recorder = p.ID
			break
		}
	}
	bot := c.Metadata.v.BotData.v
	if method := strings.ToLower(string(bot.User.v.Method)); method == "caller" || method == "callee" {
		placed := method == "caller"
		inv.Caller = &placed
	}
	if p, ok := mriParty(string(bot.Other.v.ID), string(bot.Other.v.Tenant)); ok {
		inv.Other = &p
	}
	if p, ok := c.Context.v.OnBehalfOf.v.party(); ok {
		inv.OnBehalfOf = &p
	}
	if p, ok := c.Context.v.Transferor.v.party(); ok {
		inv.Transferor = &p
	}
	for _, paired := range bot.Paired.v {
		if id, err := teams.ParseParticipantID(string(paired.Participant)); err == nil {
			inv.Paired = append(inv.Paired, id)
		}
	}
	if thread, err := teams.ParseThreadID(string(c.Chat.v.Thread)); err == nil {
		inv.Thread = thread
	}
	// Every recording invite carries a meeting token, calls of two included, so the token
	// tells nothing: a meeting has an organizer or a meeting's chat.
	_, organized := c.Meeting.v.Organizer.v.party()
	inv.Meeting = organized || inv.Thread.Kind() == teams.ThreadMeeting
	for _, m := range c.Modalities.v {
		inv.Modalities = append(inv.Modalities, clip(string(m)))
	}
	return inv, nil
}

// recorded finds who is under the policy: the observed participant is known by id only
// until a roster comes, so the identity is that of the source, or the policy's holder
// where the source is hidden.
// https://learn.microsoft.com/graph/api/resources/incomingcontext
func (c wireCall) recorded(call teams.CallID) teams.Participant {
	p := teams.Participant{Endpoint: clip(string(c.Source.v.Endpoint)), Country: clip(string(c.Source.v.Country))}
	observed, err := teams.ParseParticipantID(string(c.Context.v.Observed))
	if err != nil {
		observed = teams.ParticipantID(call) // one that no roster has
	}
	p.ID = observed
	party, known := c.Source.v.Identity.v.party()
	if !known || party.Kind == teams.PartyEncrypted || party.ID == "" {
		user := c.Metadata.v.BotData.v.User.v
		if holder, ok := mriParty(string(user.Holder), string(user.HolderTenant)); ok {
			party, known = holder, true
		}
	}
	if !known {
		party = teams.Party{Kind: teams.PartyOther}
	}
	p.Party = party
	return p
}
