// Package export builds export packages: conversations as they were captured, in forms
// that people and tools can read, with the proof that nothing of them was changed, in one
// ZIP file that an outsider checks without Steno (shared/custody/verify/FORMAT.md).
//
// A message on the queue names an order and nothing else. What is exported, for whom and
// with whose consent is read from the order and checked anew, so that a forged message
// exports nothing. Before a conversation's content is opened a custody event says for whom.
//
// The package is streamed, sealed, into a container of its own, in parts: no more than one
// conversation's messages or one pack of a recording is in memory. A run that dies is
// repeated from the start under another name; what it left function retention destroys, and it
// cannot be opened without its keys.
package export

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"steno/functions/internal/funchost"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Limits of building.
const (
	// MaxAttempts is how often an order waits for its records to be logged. After that
	// what is not logged stands in the package as unproven.
	MaxAttempts = 20
	// DefaultRetryWait is how long it waits each time.
	DefaultRetryWait = 5 * time.Minute
	// DefaultLargestCopy is the largest file that stands in a package twice, as the parts that
	// are proven and put together for people. A package has room for ten of them.
	DefaultLargestCopy = 1 << 30
)

// Signer signs with the key that signs the log's checkpoints.
type Signer interface {
	SigningKey(ctx context.Context) (id string, key *ecdsa.PublicKey, err error)
	Sign(ctx context.Context, id string, digest [sha256.Size]byte) ([]byte, error)
}

// Evidence is what is read.
type Evidence interface {
	Open(ctx context.Context, ref evidence.Ref, receipt custody.Receipt) (*evidence.Object, error)
	OpenPack(ctx context.Context, ref evidence.Ref, receipt custody.Receipt) (*evidence.Packed, error)
}

// Packages is where finished packages go.
type Packages interface {
	NewParts(ctx context.Context, tenant teams.TenantID, unit string) *evidence.PartsWriter
}

// Queue takes orders that wait.
type Queue interface {
	Send(ctx context.Context, id string, body []byte, notBefore time.Time) error
}

// Config is what an exporter needs to know.
type Config struct {
	Tenant      teams.TenantID
	Maker       string           // the program and its version
	RetryWait   time.Duration    // DefaultRetryWait if 0
	LargestCopy int64            // DefaultLargestCopy if 0: the largest file that is put together beside its parts
	Now         func() time.Time // time.Now if nil
}

// Stores is what an exporter works with.
type Stores struct {
	Orders      policy.Exports
	Approvals   policy.Approvals
	Roster      policy.Roster
	Catalog     conversation.Catalog
	Calls       conversation.Calls
	Attachments conversation.Attachments
	Evidence    Evidence
	Packages    Packages
	Trail       custody.Log
	Tiles       custody.Tiles
	Signer      Signer
	Queue       Queue
}

// Exporter builds packages. It is safe for concurrent use.
type Exporter struct {
	c   Config
	s   Stores
	log *slog.Logger
}

// New returns an exporter.
func New(c Config, s Stores, log *slog.Logger) *Exporter {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.RetryWait == 0 {
		c.RetryWait = DefaultRetryWait
	}
	if c.LargestCopy == 0 {
		c.LargestCopy = DefaultLargestCopy
	}
	return &Exporter{c, s, log}
}

// errLater says that something that the package needs is not there yet.
var errLater = errors.New("not there yet")

// Handle builds the package that a message asks for. When it returns nil the package is
// ready, or the order has failed with its reason on record, or it was put back to wait. An
// error asks for redelivery; one that wraps funchost.ErrPoison cannot be helped by that.
func (e *Exporter) Handle(ctx context.Context, body []byte) error {
	tenant, id, err := policy.DecodeExportMessage(body)
	if err != nil {
		return fmt.Errorf("%w: %w", funchost.ErrPoison, err)
	}
	if tenant != e.c.Tenant {
		return fmt.Errorf("%w: export %s of a tenant that is not ours", funchost.ErrPoison, id)
	}
	o, err := e.s.Orders.Get(ctx, id)
	if errors.Is(err, policy.ErrNotFound) {
		return fmt.Errorf("%w: nobody ordered export %s", funchost.ErrPoison, id)
	}
	if err != nil {
		return fmt.Errorf("export %s: %w", id, err)
	}
	if o.State == policy.ExportReady {
		return nil // delivered twice
	}
	if err := e.may(ctx, o); err != nil {
		if errors.Is(err, policy.ErrRefused) {
			return fmt.Errorf("%w: %w", funchost.ErrPoison, err)
		}
		return fmt.Errorf("export %s: %w", o.ID, err)
	}
	err = e.build(ctx, &o)
	return e.judge(ctx, o, err)
}

// may checks the order against the roster and the approvals as they are now.
func (e *Exporter) may(ctx context.Context, o policy.ExportOrder) error {
	now := e.c.Now()
	requester, err := policy.GrantFor(ctx, e.s.Roster, o.Requester, now)
	if err != nil {
		return err
	}
	var request policy.Proposal
	var approver policy.Grant
	if o.Request != "" {
		if request, err = e.s.Approvals.Get(ctx, o.Request); err != nil && !errors.Is(err, policy.ErrNotFound) {
			return err
		}
		if approver, err = policy.GrantFor(ctx, e.s.Roster, request.Approver, now); err != nil {
			return err
		}
	}
	return o.MayBuild(requester, request, approver, now)
}

// failure is why an order cannot be carried out, whatever is tried.
type failure struct{ why string }

func (f failure) Error() string { return f.why }

// judge turns what became of a build into the queue's language.
func (e *Exporter) judge(ctx context.Context, o policy.ExportOrder, err error) error {
	var f failure
	if errors.Is(err, errLater) && o.Attempts >= MaxAttempts {
		err = failure{"it was waited for in vain: " + err.Error()}
	}
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f):
		o.State, o.Failure = policy.ExportFailed, f.why
		e.log.WarnContext(ctx, "export failed", slog.String("export", o.ID), slog.String("reason", f.why))
		return e.save(ctx, o)
	case errors.Is(err, errLater):
		o.Attempts++
		if serr := e.save(ctx, o); serr != nil {
			return errors.Join(err, serr)
		}
		id, body, merr := policy.ExportMessage(e.c.Tenant, o)
		if merr != nil {
			return errors.Join(err, merr)
		}
		if serr := e.s.Queue.Send(ctx, id, body, e.c.Now().Add(e.c.RetryWait)); serr != nil {
			return errors.Join(err, serr)
		}
		e.log.InfoContext(ctx, "export waits", slog.String("export", o.ID), slog.Int("attempt", o.Attempts), slog.String("cause", err.Error()))
		return nil
	}
	return fmt.Errorf("export %s: %w", o.ID, err)
}

// save stores an order. Of two builders who got the same message one is too late, and its
// package is nobody's.
func (e *Exporter) save(ctx context.Context, o policy.ExportOrder) error {
	err := e.s.Orders.Replace(ctx, o)
	if errors.Is(err, policy.ErrChanged) {
		e.log.InfoContext(ctx, "another builder was faster", slog.String("export", o.ID))
		return nil
	}
	if err != nil {
		return fmt.Errorf("export %s: %w", o.ID, err)
	}
	return nil
}

// build builds the package and marks the order as ready.
func (e *Exporter) build(ctx context.Context, o *policy.ExportOrder) error {
	o.State = policy.ExportBuilding
	if err := e.s.Orders.Replace(ctx, *o); err != nil {
		return err
	}
	read, err := e.s.Orders.Get(ctx, o.ID)
	if err != nil {
		return err
	}
	*o = read
	items, err := e.gather(ctx, *o)
	if err != nil {
		return err
	}
	p, err := e.prove(ctx, items, o.Attempts >= MaxAttempts)
	if err != nil {
		return err
	}
	attempt := make([]byte, 4)
	_, _ = rand.Read(attempt) // never fails since Go 1.24
	unit := "export-" + o.ID + "-" + hex.EncodeToString(attempt)
	parts := e.s.Packages.NewParts(ctx, e.c.Tenant, unit)
	whole := sha256.New()
	out, err := encrypted(io.MultiWriter(parts, whole), o.Recipient)
	if err != nil {
		return failure{"the recipient's key is not one that can be encrypted to"}
	}
	if err := e.write(ctx, out, *o, items, p); err != nil {
		return err
	}
	if err := errors.Join(out.Close(), parts.Close()); err != nil {
		return err
	}
	now := e.c.Now().UTC()
	o.State, o.Unit, o.Size, o.SHA256, o.Expires = policy.ExportReady, unit, parts.Size(), hex.EncodeToString(whole.Sum(nil)), now.Add(policy.ExportLife)
	// The package's digest is in the log before anybody can fetch it.
	if _, err := e.s.Trail.Append(ctx, custody.Event{
		Tenant: e.c.Tenant, Action: custody.Exported, Actor: o.Requester, Item: "export-" + o.ID,
		Detail: fmt.Sprintf("%d conversations, %d bytes, sha256=%s", len(o.Conversations), o.Size, o.SHA256),
	}); err != nil {
		return err
	}
	if err := e.save(ctx, *o); err != nil {
		return err
	}
	e.log.InfoContext(ctx, "export ready", slog.String("export", o.ID), slog.Int("conversations", len(o.Conversations)), slog.Int64("bytes", o.Size))
	return nil
}
