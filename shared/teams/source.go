package teams

// Source says by which of Graph's exports messages are read.
type Source string

// The sources. The empty one is the chats of a person's mailbox, which every window was
// read from before there were others.
const (
	// Chats is what a person's mailbox holds of chats: everything sent and received.
	// https://learn.microsoft.com/graph/api/chats-getallmessages
	Chats Source = ""
	// RetainedChats is what a Purview retention policy kept of them: versions before an
	// edit, and messages deleted more than 21 days ago.
	// https://learn.microsoft.com/graph/api/chat-getallretainedmessages
	RetainedChats Source = "retainedChats"
	// Channels is what is written in the standard, private and shared channels that a team hosts.
	// https://learn.microsoft.com/graph/api/channel-getallmessages
	Channels Source = "channels"
	// RetainedChannels is to Channels what RetainedChats is to Chats.
	// https://learn.microsoft.com/graph/api/channel-getallretainedmessages
	RetainedChannels Source = "retainedChannels"
	// DeletedTeam is what the channels of a team hold that was deleted less than 30 days ago.
	// https://learn.microsoft.com/graph/api/deletedteam-getallmessages
	DeletedTeam Source = "deletedTeam"
)

// OfTeam reports whether the source belongs to a team rather than to a person.
func (s Source) OfTeam() bool {
	return s == Channels || s == RetainedChannels || s == DeletedTeam
}

// Retained reports whether the source is what retention policies kept.
func (s Source) Retained() bool { return s == RetainedChats || s == RetainedChannels }

// Known reports whether s is one of the sources above.
func (s Source) Known() bool {
	return s == Chats || s == RetainedChats || s.OfTeam()
}
