package msgraph

import (
	"time"

	"steno/shared/teams"
)

// RecordingGranted is Graph's acknowledgment that recording of one call was announced
// to its participants. Nothing but a 200 answer to updateRecordingStatus(recording)
// yields one, and nothing can be recorded without. Its zero value grants nothing.
// https://learn.microsoft.com/graph/api/call-updaterecordingstatus
type RecordingGranted struct {
	call      teams.CallID
	operation string
	at        time.Time
}

// Covers reports whether the acknowledgment is for this call.
func (g RecordingGranted) Covers(call teams.CallID) bool { return g.call != "" && g.call == call }

// Operation is Graph's id of the acknowledged operation.
func (g RecordingGranted) Operation() string { return g.operation }

// At is when the acknowledgment came.
func (g RecordingGranted) At() time.Time { return g.at }
