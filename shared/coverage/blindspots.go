package coverage

// BlindSpot is something that cannot be recorded, or not be seen to be missing.
type BlindSpot struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

// PrivateChannels is the blind spot whose end is a date of the tenant's own.
const PrivateChannels = "private-channels"

// BlindSpots lists what no interface of Microsoft's shows to a recorder. A statement carries
// the list that its build knew.
// https://learn.microsoft.com/microsoftteams/teams-recording-policy
var BlindSpots = []BlindSpot{
	{"e911", "Calls to emergency services are not recorded by policy recording."},
	{"branch-appliance", "Telephone calls that a survivable branch appliance carries during an outage reach no recorder."},
	{"end-to-end-encryption", "Calls under end-to-end encryption cannot be recorded. People under a recording policy are not offered it; a change of policy could be."},
	{"rerouted", "Forwarded and transferred calls are recorded only if the recording policy's RecordReroutedCalls is set."},
	{"conference-queue", "Call queues in conference mode are recorded only where their own recording template is assigned."},
	{"power-off", "When a recorder's machine loses power people are not removed from a call at once, even in strict mode. The stretch shows as a capture gap."},
	{"short-lived-edit", "A version that was edited or deleted between two exports is kept only if a change notification brought it or a retention policy held it. Microsoft tells nobody of a notification that was dropped."},
	{"reactions", "A reaction that was taken back between two exports leaves its entry in the message's history, not a version of its own."},
	{"external-files", "Files that somebody of another tenant sent stay in that tenant. Each is named as failed."},
	{"external-chats", "Group chats that another tenant hosts are exported only as far as they are in the custodian's mailbox."},
	{"copilot", "What people ask Copilot, and targeted messages, have interfaces of their own, which are not read."},
	{"records-of-calls", "A call that is in no call record of Microsoft's, and that no recorder was invited to, cannot be seen to be missing."},
	{PrivateChannels, "Edits and deletions in private channels before the tenant's migration of private channels are in no retained export."},
}
