package conversation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"steno/shared/teams"
)

// BatchType is the content type of an evidence object that holds message versions.
const BatchType = "application/vnd.steno.chat-batch.v1"

// batchMagic is the first line of a batch; see FORMAT.md of package evidence.
const batchMagic = "steno-chat-batch/1\n"

// MessageLane is the way on which message versions came.
type MessageLane string

// The lanes.
const (
	LaneExport   MessageLane = "export"       // read from Graph's export: the complete lane
	LaneNotified MessageLane = "notification" // brought by a change notification: the early one
	LaneLookback MessageLane = "lookback"     // read from Graph's export because an operator asked for history
)

// BatchHeader says where the message versions of a batch came from. With it the
// catalog can be rebuilt from evidence alone.
type BatchHeader struct {
	Tenant       teams.TenantID `json:"tenant"`
	Conversation ID             `json:"conversation"`
	Thread       teams.ThreadID `json:"thread"`
	Custodian    teams.PersonID `json:"custodian"`
	Window       string         `json:"window"` // Window.Key
	Lane         MessageLane    `json:"lane"`
	FetchedAt    time.Time      `json:"fetchedAt"`
	RequestID    string         `json:"requestId,omitempty"` // Graph's request-id of the page
}

// EncodeBatch writes the plain bytes of a chat evidence object: the header, then
// each message exactly as Graph sent it, framed by its length.
func EncodeBatch(h BatchHeader, messages []Message) ([]byte, error) {
	head, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode batch header: %w", err)
	}
	size := len(batchMagic) + len(head) + 24
	for _, m := range messages {
		size += len(m.Raw) + 12
	}
	b := make([]byte, 0, size)
	b = append(b, batchMagic...)
	b = append(b, head...)
	b = append(b, '\n')
	b = strconv.AppendInt(b, int64(len(messages)), 10)
	b = append(b, '\n')
	for _, m := range messages {
		b = strconv.AppendInt(b, int64(len(m.Raw)), 10)
		b = append(b, '\n')
		b = append(b, m.Raw...)
		b = append(b, '\n')
	}
	return b, nil
}

// DecodeBatch reads what EncodeBatch wrote. The messages share b's memory.
func DecodeBatch(b []byte) (BatchHeader, [][]byte, error) {
	var h BatchHeader
	rest, ok := bytes.CutPrefix(b, []byte(batchMagic))
	if !ok {
		return h, nil, errors.New("decode batch: not a chat batch of version 1")
	}
	head, rest, ok := bytes.Cut(rest, []byte("\n"))
	if !ok {
		return h, nil, errors.New("decode batch: header line has no end")
	}
	if err := json.Unmarshal(head, &h); err != nil {
		return h, nil, fmt.Errorf("decode batch header: %w", err)
	}
	n, rest, err := cutNumber(rest)
	if err != nil {
		return h, nil, fmt.Errorf("decode batch: count: %w", err)
	}
	const least = len("0\n\n") // what a message takes at least
	if n > len(rest)/least {
		return h, nil, fmt.Errorf("decode batch: %d messages cannot stand in %d bytes", n, len(rest))
	}
	items := make([][]byte, 0, n)
	for i := range n {
		var size int
		if size, rest, err = cutNumber(rest); err != nil {
			return h, nil, fmt.Errorf("decode batch: message %d: length: %w", i, err)
		}
		if size >= len(rest) || rest[size] != '\n' {
			return h, nil, fmt.Errorf("decode batch: message %d: length %d does not end at a line end", i, size)
		}
		items = append(items, rest[:size:size])
		rest = rest[size+1:]
	}
	if len(rest) != 0 {
		return h, nil, fmt.Errorf("decode batch: %d bytes after the last message", len(rest))
	}
	return h, items, nil
}

// cutNumber reads a decimal line without sign, space or leading zero.
func cutNumber(b []byte) (int, []byte, error) {
	line, rest, ok := bytes.Cut(b, []byte("\n"))
	if !ok || len(line) == 0 || len(line) > 10 || (line[0] == '0' && len(line) > 1) {
		return 0, nil, errors.New("not a number line")
	}
	n := 0
	for _, c := range line {
		if c < '0' || c > '9' {
			return 0, nil, errors.New("not a number line")
		}
		n = n*10 + int(c-'0')
	}
	return n, rest, nil
}
