package conversation

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"steno/shared/teams"
)

// FileAsk asks for the bytes of one attachment.
type FileAsk struct {
	Tenant    teams.TenantID
	Thread    teams.ThreadID
	Custodian teams.PersonID
	Message   teams.MessageID
	Sent      time.Time // when the message was sent
	// External says that the sender belongs to another organization.
	External bool
	Kind     AttachmentKind
	Name     string
	Source   string
	// Attempt counts how often the message was put back on the queue.
	Attempt int
	// Slot is when the request may go of which one a second is allowed in a chat, zero
	// if it has no place in the order yet.
	Slot time.Time
	// Resume says how far an earlier run came, nil if there is nothing to go on with.
	Resume *FileResume
}

// FileResume is where a run stopped whose time was up: after whole parts of one version.
type FileResume struct {
	Version string `json:"version"` // what the bytes are of; see FileItem
	Parts   int    `json:"parts"`
	// Sum and Check are the states of SHA-256 and of Microsoft's checksum over these parts.
	Sum   []byte `json:"sum"`
	Check []byte `json:"check"`
}

// ID is the attachment's.
func (a FileAsk) ID() AttachmentID {
	return AttachmentIDOf(a.Thread, a.Message, a.Kind, a.Source)
}

// Conversation is that of the message.
func (a FileAsk) Conversation() ID { return IDOf(KeyOf(a.Tenant, a.Thread), a.Sent) }

// Expected is the attachment as the register expects it.
func (a FileAsk) Expected(at time.Time) Attachment {
	return Attachment{
		ID: a.ID(), Conversation: a.Conversation(), Message: a.Message, Custodian: a.Custodian, Kind: a.Kind, Name: a.Name, Source: a.Source,
		State: AttachmentExpected, At: at,
	}
}

// MessageID is the id under which the message is queued.
func (a FileAsk) MessageID() string { return "f-" + string(a.ID()) + "-" + strconv.Itoa(a.Attempt) }

// fileMessage is FileAsk as it travels. Its field names are unlike any that the Functions
// host knows; see windowMessage.
type fileMessage struct {
	V         int         `json:"stenoV"`
	Tenant    string      `json:"fileTenant"`
	Thread    string      `json:"fileThread"`
	Custodian string      `json:"fileCustodian"`
	Message   string      `json:"fileMessage"`
	Sent      string      `json:"fileSent"`
	External  bool        `json:"fileExternal,omitempty"`
	Kind      string      `json:"fileKind"`
	Name      string      `json:"fileName,omitempty"`
	Source    string      `json:"fileSource"` // base64: an address is foreign text
	Attempt   int         `json:"fileAttempt,omitempty"`
	Slot      string      `json:"fileSlot,omitempty"`
	Resume    *FileResume `json:"fileResume,omitempty"`
}

const fileMessageVersion = 1

// EncodeFileAsk writes the queue message.
func EncodeFileAsk(a FileAsk) ([]byte, error) {
	m := fileMessage{
		V: fileMessageVersion, Tenant: string(a.Tenant), Thread: string(a.Thread), Custodian: string(a.Custodian),
		Message: string(a.Message), Sent: a.Sent.UTC().Format(time.RFC3339Nano), External: a.External, Kind: string(a.Kind), Name: a.Name,
		Source: base64.StdEncoding.EncodeToString([]byte(a.Source)), Attempt: a.Attempt, Resume: a.Resume,
	}
	if !a.Slot.IsZero() {
		m.Slot = a.Slot.UTC().Format(time.RFC3339Nano)
	}
	return json.Marshal(m)
}

// DecodeFileAsk reads a queue message strictly and reports every fault at once. A message
// says what to fetch and where from; whether the message it is for was archived, and whether
// the address may be asked, is for the handler to look up.
func DecodeFileAsk(b []byte) (FileAsk, error) {
	var m fileMessage
	err := decodeStrict(b, &m, "stenoV", "fileTenant", "fileThread", "fileCustodian", "fileMessage", "fileSent", "fileExternal",
		"fileKind", "fileName", "fileSource", "fileAttempt", "fileSlot", "fileResume")
	if err != nil {
		return FileAsk{}, fmt.Errorf("file message: %w", err)
	}
	if m.V != fileMessageVersion {
		return FileAsk{}, fmt.Errorf("file message: version %d; this build reads %d", m.V, fileMessageVersion)
	}
	a := FileAsk{External: m.External, Kind: AttachmentKind(m.Kind), Name: m.Name, Attempt: m.Attempt, Resume: m.Resume}
	var faults []error
	check := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	a.Tenant, err = teams.ParseTenantID(m.Tenant)
	check(err)
	a.Thread, err = teams.ParseThreadID(m.Thread)
	check(err)
	a.Custodian, err = teams.ParsePersonID(m.Custodian)
	check(err)
	a.Message, err = teams.ParseMessageID(m.Message)
	check(err)
	a.Sent, err = parseBound("fileSent", m.Sent)
	check(err)
	if m.Slot != "" {
		if a.Slot, err = time.Parse(time.RFC3339Nano, m.Slot); err != nil {
			check(errors.New("fileSlot is not an RFC 3339 time"))
		}
	}
	source, err := base64.StdEncoding.DecodeString(m.Source)
	if err != nil {
		check(errors.New("fileSource is not base64"))
	}
	a.Source = string(source)
	check(a.judge())
	if err := errors.Join(faults...); err != nil {
		return FileAsk{}, fmt.Errorf("file message: %w", err)
	}
	return a, nil
}

// judge checks what has no form of its own.
func (a FileAsk) judge() error {
	var faults []error
	if !a.Kind.Elsewhere() {
		faults = append(faults, errors.New("fileKind is none that is fetched"))
	}
	if len(a.Source) == 0 || len(a.Source) > MaxSource || len(a.Name) > 3*maxName {
		faults = append(faults, fmt.Errorf("an address of %d bytes, a name of %d", len(a.Source), len(a.Name)))
	}
	if a.Attempt < 0 {
		faults = append(faults, fmt.Errorf("attempt %d is negative", a.Attempt))
	}
	if r := a.Resume; r != nil && (r.Parts < 1 || r.Parts > MaxFile/FilePart+1 || len(r.Sum) > 512 || len(r.Check) > 512 || len(r.Version) > 1<<10) {
		faults = append(faults, errors.New("fileResume is impossible"))
	}
	return errors.Join(faults...)
}
