package coverage

import (
	"context"
	"errors"
	"time"
)

// Errors of the registers.
var (
	// ErrNoStatement says that there is no such statement.
	ErrNoStatement = errors.New("no such coverage statement")
	// ErrStated says that another statement stands under that day and revision.
	ErrStated = errors.New("another coverage statement stands under that day and revision")
)

// CallRecords is the register of call records. What Graph forgets after 30 days stays here.
type CallRecords interface {
	// SaveRecord stores a record, in place of one of the same id and start. There is one writer.
	SaveRecord(ctx context.Context, r CallRecord) error
	// Records lists those that began in [from, to), oldest first.
	Records(ctx context.Context, from, to time.Time) ([]CallRecord, error)
}

// Stated names a statement.
type Stated struct {
	Day      string `json:"day"`
	Revision int    `json:"revision"`
}

// Statements is the register of coverage statements: write-once, as they were signed.
type Statements interface {
	// Create stores a statement's bytes and then the signature over them; both are durable
	// when it returns nil. It may be repeated with the same bytes: ErrStated if others stand
	// there, also those of a writer that died before its signature.
	Create(ctx context.Context, s Stated, body, signature []byte) error
	// Read returns a statement's bytes and its signature. ErrNoStatement if there is none, or
	// none that was signed.
	Read(ctx context.Context, s Stated) (body, signature []byte, err error)
	// List names the signed statements of days in [from, to], oldest first.
	List(ctx context.Context, from, to string) ([]Stated, error)
}
