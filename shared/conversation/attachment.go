package conversation

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"steno/shared/teams"
)

// AttachmentID names what a message points at: 32 characters of lower-case base32hex. It
// is the same for the same message and address for ever, whichever version of the message
// names it: an edit or a reaction repeats the attachments and fetches nothing anew.
type AttachmentID string

// AttachmentIDOf returns the id of what a message points at under an address.
func AttachmentIDOf(thread teams.ThreadID, message teams.MessageID, kind AttachmentKind, source string) AttachmentID {
	h := sha256.New()
	h.Write([]byte("steno-attachment-v1\x00" + string(thread) + "\x00" + string(message) + "\x00" + string(kind) + "\x00" + source))
	return AttachmentID(strings.ToLower(base32hex.EncodeToString(h.Sum(nil)[:20])))
}

var attachmentForm = regexp.MustCompile(`^[0-9a-v]{32}$`)

// ParseAttachmentID accepts the form that AttachmentIDOf makes.
func ParseAttachmentID(s string) (AttachmentID, error) {
	if !attachmentForm.MatchString(s) {
		return "", fmt.Errorf("%w: attachment id of %d bytes", teams.ErrMalformed, len(s))
	}
	return AttachmentID(s), nil
}

// AttachmentKind is what a message points at.
type AttachmentKind string

// The kinds. The first group has bytes elsewhere, which are fetched; the second stands in
// the message itself and is listed alone.
const (
	KindFile      AttachmentKind = "file"       // a file in SharePoint or OneDrive
	KindLoop      AttachmentKind = "loop"       // a Loop component, which is such a file
	KindImage     AttachmentKind = "image"      // an image in the body, or a sticker
	KindEmoji     AttachmentKind = "emoji"      // a custom emoji or reaction
	KindSnippet   AttachmentKind = "snippet"    // a code snippet
	KindCardImage AttachmentKind = "card-image" // an image that a card shows

	KindCard    AttachmentKind = "card"    // the card itself
	KindQuote   AttachmentKind = "quote"   // another message that is quoted or forwarded
	KindMeeting AttachmentKind = "meeting" // a meeting or a tab
	KindOther   AttachmentKind = "other"   // what this build does not know
)

// Elsewhere reports whether the bytes lie elsewhere than in the message.
func (k AttachmentKind) Elsewhere() bool {
	switch k {
	case KindFile, KindLoop, KindImage, KindEmoji, KindSnippet, KindCardImage:
		return true
	}
	return false
}

// Shared reports whether the bytes are a file of SharePoint or OneDrive, which has
// versions, as against content that Teams hosts.
func (k AttachmentKind) Shared() bool { return k == KindFile || k == KindLoop }

// AttachmentState is what became of an attachment.
type AttachmentState string

// The states. The last two are results.
const (
	AttachmentExpected AttachmentState = "expected" // it is still to be fetched
	AttachmentFetched  AttachmentState = "fetched"  // its bytes are in evidence
	AttachmentGap      AttachmentState = "gap"      // they are not, for a reason
)

// GapReason says why the bytes of an attachment are not in evidence.
type GapReason string

// The reasons.
const (
	GapForeignHost GapReason = "foreign-host"    // its address is not one of Microsoft's: it is never asked
	GapMalformed   GapReason = "malformed"       // its address cannot be read
	GapExternal    GapReason = "external-tenant" // the sender's organization has it, and does not show it
	GapForbidden   GapReason = "forbidden"       // Microsoft refuses it to this application
	GapProtected   GapReason = "protected"       // it is locked, or blocked as harmful
	GapGone        GapReason = "gone"            // it was not there any more
	GapNoFile      GapReason = "no-file"         // it is a folder, or something else that has no bytes
	GapTooLarge    GapReason = "too-large"       // it is larger than is fetched
	GapAltered     GapReason = "altered"         // what came was never what Microsoft's checksum says
	GapUnavailable GapReason = "unavailable"     // it could not be read, however often it was tried
)

// VersionRule says which bytes of a file were fetched. A message holds a link, and the
// document behind it goes on changing.
type VersionRule string

// The rules.
const (
	// RuleCurrent: the document had not changed since the message was sent.
	RuleCurrent VersionRule = "current"
	// RuleAtSending: an earlier version, the last of before the message was sent.
	RuleAtSending VersionRule = "at-sending"
	// RuleLater: no version of that time is kept; the bytes are those of when it was fetched.
	RuleLater VersionRule = "later"
	// RuleHosted: content that Teams hosts, which has no versions.
	RuleHosted VersionRule = "hosted"
)

// Reference is something that a message points at.
type Reference struct {
	ID   AttachmentID
	Kind AttachmentKind
	// Name is what the sender called it, empty if nothing. It is foreign text.
	Name string
	// Type is Graph's contentType of it, empty for what the body names.
	Type string
	// Source is the address as the message has it, which may hold raw spaces; empty for
	// what stands in the message.
	Source string
}

// Attachment is what the register knows of something that a message points at.
type Attachment struct {
	ID           AttachmentID    `json:"id"`
	Conversation ID              `json:"conversation"`
	Message      teams.MessageID `json:"message"`
	Custodian    teams.PersonID  `json:"custodian"` // whose export returned the message
	Kind         AttachmentKind  `json:"kind"`
	Name         string          `json:"name,omitempty"`
	Source       string          `json:"source"`
	State        AttachmentState `json:"state"`
	Reason       GapReason       `json:"reason,omitempty"` // of a gap
	// Of what was fetched:
	Object string      `json:"object,omitempty"` // the last of its evidence objects, which lists all
	Parts  int         `json:"parts,omitempty"`
	Size   int64       `json:"size,omitempty"`
	SHA256 string      `json:"sha256,omitempty"` // of its bytes, in hex
	Rule   VersionRule `json:"rule,omitempty"`
	At     time.Time   `json:"at"`
}

// ErrNoAttachment says that the register knows nothing of that id.
var ErrNoAttachment = errors.New("register: no such attachment")

// Attachments is the register of what became of attachments. It is derived: of what was
// fetched evidence says the same, and a gap has its custody event. All methods may be called
// from many processes at once and repeated.
type Attachments interface {
	// Attachments lists the attachments of a conversation, by id.
	Attachments(ctx context.Context, id ID) ([]Attachment, error)
	// Attachment reads one; ErrNoAttachment if the register does not know it.
	Attachment(ctx context.Context, id ID, attachment AttachmentID) (Attachment, error)
	// ExpectAttachment stores that an attachment is to be fetched, durably when it returns nil,
	// and returns what the register says of it: a, or what stood there before, which stays.
	ExpectAttachment(ctx context.Context, a Attachment) (Attachment, error)
	// SaveAttachment stores a result, durably when it returns nil. What was fetched stays
	// fetched: a gap changes nothing where there is a result already.
	SaveAttachment(ctx context.Context, a Attachment) error
}

// extensions are those that a file keeps when it leaves the archive.
var extensions = []string{
	".bmp", ".csv", ".doc", ".docx", ".eml", ".gif", ".heic", ".jpeg", ".jpg", ".json", ".m4a", ".mov", ".mp3", ".mp4", ".msg", ".odp", ".ods", ".odt",
	".pdf", ".png", ".ppt", ".pptx", ".rtf", ".tif", ".tiff", ".txt", ".vsdx", ".wav", ".webp", ".xls", ".xlsx", ".xml", ".zip",
}

// SafeExtension is the end of the name under which a file leaves the archive. What the sender
// called it is foreign text, and whatever a machine might run becomes .bin.
func SafeExtension(name string) string {
	if ext := strings.ToLower(path.Ext(name)); slices.Contains(extensions, ext) {
		return ext
	}
	return ".bin"
}
