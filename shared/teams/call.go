package teams

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"time"
)

// CallID is Graph's id of one leg: the connection between the recorder and a call.
// A repeated invite and a transfer bring a new one.
type CallID string

// ChainID is Graph's callChainId: what the legs of one call have in common. It does not
// survive a transfer.
type ChainID string

// ParticipantID is the id of one participation in a call. Somebody who leaves and
// comes back has a new one.
type ParticipantID string

// SourceID is the media stream source (MSI) under which a participant's frames of one
// media type arrive: decimal text in a roster, a 32-bit number on the wire. It may
// change when a participant rejoins, so it means a person only together with a time.
type SourceID uint32

// Sources that stand for nobody in particular.
const (
	SourceUnknown SourceID = 0
	SourceNone    SourceID = 1<<32 - 1
)

// MaxCallID bounds ids of calls, chains and participants, in bytes.
const MaxCallID = 128

// ParseCallID accepts visible ASCII that is safe in a path segment.
func ParseCallID(s string) (CallID, error) {
	if err := checkToken("call id", s, MaxCallID); err != nil {
		return "", err
	}
	return CallID(s), nil
}

// ParseChainID accepts what ParseCallID accepts.
func ParseChainID(s string) (ChainID, error) {
	if err := checkToken("call chain id", s, MaxCallID); err != nil {
		return "", err
	}
	return ChainID(s), nil
}

// ParseParticipantID accepts what ParseCallID accepts.
func ParseParticipantID(s string) (ParticipantID, error) {
	if err := checkToken("participant id", s, MaxCallID); err != nil {
		return "", err
	}
	return ParticipantID(s), nil
}

// ParseSourceID accepts decimal text as rosters carry it.
func ParseSourceID(s string) (SourceID, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%w: media source id of %d bytes", ErrMalformed, len(s))
	}
	return SourceID(n), nil
}

func (c CallID) String() string        { return string(c) }
func (c ChainID) String() string       { return string(c) }
func (p ParticipantID) String() string { return string(p) }
func (s SourceID) String() string      { return strconv.FormatUint(uint64(s), 10) }

// LogValue prints a pseudonym that is stable within one process.
func (p ParticipantID) LogValue() slog.Value { return pseudonym("participant", string(p)) }

// PartyKind is what kind of identity takes part in a call, as Graph's
// communicationsIdentitySet names it.
type PartyKind string

// The kinds of parties. An unknown kind is PartyOther and is kept like any other.
const (
	PartyUser        PartyKind = "user"
	PartyGuest       PartyKind = "guest"
	PartyPhone       PartyKind = "phone"
	PartyApplication PartyKind = "application"
	PartyInstance    PartyKind = "applicationInstance" // a bot's resource account
	PartyACS         PartyKind = "azureCommunicationServicesUser"
	PartyOnPremises  PartyKind = "onPremises"
	PartyDevice      PartyKind = "device"
	PartyEncrypted   PartyKind = "encrypted"
	PartyOther       PartyKind = "other"
)

// Party is who somebody in a call is.
type Party struct {
	Kind   PartyKind `json:"kind"`
	ID     string    `json:"id,omitempty"` // object id, application id, or a number in E.164
	Name   string    `json:"name,omitempty"`
	Tenant TenantID  `json:"tenant,omitempty"` // home tenant, where Graph says it
}

// Person returns the Entra object id of a user of the tenant, and whether the party is
// one. A party without a tenant counts as one of the tenant.
func (p Party) Person(home TenantID) (PersonID, bool) {
	if p.Kind != PartyUser || p.Tenant != "" && p.Tenant != home {
		return "", false
	}
	id, err := ParsePersonID(p.ID)
	return id, err == nil
}

// LogValue prints a pseudonym that names the kind: ids hold telephone numbers.
func (p Party) LogValue() slog.Value {
	return pseudonym(string(p.Kind), p.ID)
}

// MediaKind is what a stream carries.
type MediaKind string

// The kinds of media, as rosters name them.
const (
	MediaAudio  MediaKind = "audio"
	MediaVideo  MediaKind = "video"
	MediaScreen MediaKind = "videoBasedScreenSharing"
	MediaOther  MediaKind = "unknown"
)

// MediaStream is one stream of a participant in the roster. A participant has one
// source a kind. Direction is Graph's: sendReceive, sendOnly, receiveOnly or inactive,
// seen from the participant; an inactive audio stream is hold.
type MediaStream struct {
	Kind        MediaKind `json:"kind"`
	Source      SourceID  `json:"source"`
	Direction   string    `json:"direction,omitempty"`
	ServerMuted bool      `json:"serverMuted,omitempty"`
}

// Participant is one line of a roster.
type Participant struct {
	ID       ParticipantID `json:"id"`
	Party    `json:"party"`
	Endpoint string        `json:"endpoint,omitempty"` // Graph's endpointType
	Country  string        `json:"country,omitempty"`  // ISO 3166-1 alpha-2, Graph's best estimate
	Lobby    bool          `json:"lobby,omitempty"`
	Muted    bool          `json:"muted,omitempty"`
	Streams  []MediaStream `json:"streams,omitempty"`
	Sequence int64         `json:"sequence,omitempty"` // rosterSequenceNumber
}

// Invite is what a recording invite says, without its join token.
// https://learn.microsoft.com/graph/api/resources/call
type Invite struct {
	Call   CallID   `json:"call"`
	Chain  ChainID  `json:"chain"`
	Tenant TenantID `json:"tenant"`
	// Recorded is the person under the recording policy: the observed participant.
	Recorded Participant `json:"recorded"`
	// Recorder is the application instance that was invited.
	Recorder string `json:"recorder,omitempty"`
	// Caller says whether the recorded person placed the call; nil if Graph does not say.
	Caller     *bool           `json:"caller,omitempty"`
	Other      *Party          `json:"other,omitempty"`      // the other side of a call of two
	OnBehalfOf *Party          `json:"onBehalfOf,omitempty"` // the delegator
	Transferor *Party          `json:"transferor,omitempty"` // who transferred the call here
	Paired     []ParticipantID `json:"paired,omitempty"`     // other recorders invited for the same person
	Thread     ThreadID        `json:"thread,omitempty"`     // chat of the meeting or group call
	Meeting    bool            `json:"meeting,omitempty"`
	Subject    string          `json:"subject,omitempty"`
	Modalities []string        `json:"modalities,omitempty"`
	At         time.Time       `json:"at"` // when the notification came
	// Raw is the call as Graph sent it, with tokens struck out.
	Raw json.RawMessage `json:"raw,omitempty"`
}

// CallState is the state of the recorder's leg. States are ranked: a lower one never
// follows a higher one, however late its notification comes.
type CallState string

// The states a leg goes through.
const (
	CallIncoming     CallState = "incoming"
	CallEstablishing CallState = "establishing"
	CallEstablished  CallState = "established"
	CallTerminating  CallState = "terminating"
	CallTerminated   CallState = "terminated"
)

// Rank orders states; an unknown one ranks lowest and changes nothing.
func (s CallState) Rank() int {
	switch s {
	case CallIncoming:
		return 1
	case CallEstablishing:
		return 2
	case CallEstablished:
		return 3
	case CallTerminating:
		return 4
	case CallTerminated:
		return 5
	}
	return 0
}

// ResultClass is what the end of a leg means for the record.
type ResultClass string

// The classes of results.
const (
	ResultNormal  ResultClass = "normal"  // the call ended, or never came about
	ResultOurs    ResultClass = "ours"    // the recorder hung up
	ResultLoss    ResultClass = "loss"    // recording was lost: an incident
	ResultUnclear ResultClass = "unclear" // Graph gave no result, or one that is not known
)

// CallResult is Graph's resultInfo: an HTTP-like code, a subcode and a text.
type CallResult struct {
	Code    int    `json:"code"`
	Subcode int    `json:"subcode"`
	Message string `json:"message,omitempty"`
}

// Class classifies a result by the documented codes.
// https://learn.microsoft.com/graph/api/call-delete
func (r CallResult) Class() ResultClass {
	switch {
	case r.Code == 200 && (r.Subcode == 7000 || r.Subcode == 10550):
		return ResultOurs
	case r.Code == 200:
		switch r.Subcode {
		case 4097, 4521, 5855, 7015, 18503, 540000, 560000:
			return ResultNormal
		}
		if r.Subcode >= 5000 && r.Subcode <= 5300 {
			return ResultNormal
		}
		return ResultUnclear
	case r.Code == 408 && (r.Subcode == 8544 || r.Subcode == 10057):
		return ResultNormal // the callee could not be reached
	case r.Code == 480, r.Code == 487, r.Code == 603:
		return ResultNormal // unreachable, canceled or declined: there was no conversation
	case r.Code == 408 || r.Code == 410 || r.Code >= 500:
		return ResultLoss
	}
	return ResultUnclear
}

// CallUpdate is one step in the life of a leg as Graph told it: in order, without
// repetitions, and with nothing after CallTerminated.
type CallUpdate struct {
	At     time.Time
	State  CallState     // empty if the state did not change
	Result *CallResult   // why the call ended, where Graph says it
	Roster []Participant // those who came or changed
	Left   []ParticipantID
	// Present is everybody who takes part after the update, the recorder included. It is
	// nil while no roster has come. Receivers must not change it.
	Present []Participant
	// Anomaly says that something is not as it should be, in a word.
	Anomaly string
}
