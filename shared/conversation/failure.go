package conversation

import (
	"context"
	"time"

	"steno/shared/teams"
)

// WindowFailed is a stretch that could not be read, and why: the mailbox or the team did
// not answer, or would not. What was written there in that time is not in the archive,
// unless another custodian's export returned it.
type WindowFailed struct {
	Window
	Status int       `json:"status"`         // of Graph's answer
	Code   string    `json:"code,omitempty"` // Graph's error code
	Since  time.Time `json:"since"`          // when it first could not be read
	At     time.Time `json:"at"`             // when that was last tried
}

// Failures is the register of stretches that could not be read. A stretch stays in it until
// a later reading covers it.
type Failures interface {
	// SaveFailure stores a failure, durably when it returns nil, in place of what was known
	// of the same custodian and window; Since stays what it was.
	SaveFailure(ctx context.Context, f WindowFailed) error
	// FailuresOf lists the failures of one custodian by window key.
	FailuresOf(ctx context.Context, custodian teams.PersonID) ([]WindowFailed, error)
	// AllFailures lists the failures of every custodian, by custodian and window key.
	AllFailures(ctx context.Context) ([]WindowFailed, error)
	// RemoveFailure removes a failure; one that is not there is no error.
	RemoveFailure(ctx context.Context, f WindowFailed) error
}
