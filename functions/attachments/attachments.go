// Package attachments fetches what messages point at: files of SharePoint and OneDrive,
// images and whatever else Teams hosts. The bytes become evidence of the message's own
// conversation, sealed, bound by the custody log and under its dates and holds. What cannot
// be had is recorded as a gap, with the reason.
//
// A message holds a link, and the document behind it goes on changing. So the version is
// fetched that was current when the message was sent, and where none is kept what there is
// now, and which of these it was stands with the bytes.
//
// A file of any size is read in parts of four megabytes, one in memory at a time. A run may
// die at any step and be repeated, and two may meet: a part that is stored is not stored
// again. A run whose time is up leaves the rest to another, which goes on behind the last part.
package attachments

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"steno/functions/internal/funchost"
	"steno/functions/internal/intake"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/msgraph"
	"steno/shared/teams"
)

// Defaults and limits.
const (
	// MaxAttempts is how often an attachment is put back before it is given up.
	MaxAttempts = 20
	// DefaultRetryWait is how long one that was put back rests, times its attempt.
	DefaultRetryWait = 15 * time.Second
	// patience is up to how long a run waits for its turn in a chat.
	patience = 2 * time.Second
	// sendTimeout is how long putting back may take once a run's time is up.
	sendTimeout = 10 * time.Second
	// system is who acts in the custody trail.
	system = "attachments"
)

// Source is where the bytes are; msgraph.Files.
type Source interface {
	HostedLink(link string) ([]string, error)
	Item(ctx context.Context, link string) (msgraph.Item, error)
	Versions(ctx context.Context, i msgraph.Item) ([]msgraph.Version, error)
	Content(ctx context.Context, i msgraph.Item, version string, from int64) (*msgraph.Content, error)
	Hosted(ctx context.Context, link string) (*msgraph.Content, error)
}

// Keeper takes parts of files into evidence; intake.Intake.
type Keeper interface {
	KeepPart(ctx context.Context, h conversation.FileHeader, buf []byte, room int) (intake.Part, error)
	Forsake(ctx context.Context, id conversation.ID, attachment conversation.AttachmentID) error
	Bind(ctx context.Context, item string, bound []custody.Object) error
}

// Slots says when it is whose turn: Graph serves one request for hosted content a second in a chat.
type Slots interface {
	// Reserve takes the next second of a chat and returns when it begins.
	Reserve(ctx context.Context, thread conversation.ThreadKey) (time.Time, error)
}

// Catalog is what is known of conversations and attachments.
type Catalog interface {
	conversation.Attachments
	Slice(ctx context.Context, id conversation.ID) (conversation.Slice, error)
}

// Config sizes a Fetcher.
type Config struct {
	Tenant teams.TenantID
	// Largest is the largest file that is fetched; 0 means conversation.MaxFile.
	Largest int64
	// Part is how many bytes go into one evidence object; 0 means conversation.FilePart.
	Part int
	// RetryWait is how long an attachment that could not be read rests before it is tried
	// again, times the attempt; 0 means DefaultRetryWait.
	RetryWait time.Duration
}

// Fetcher handles messages of the queue attachments. It is safe for many at once.
type Fetcher struct {
	c       Config
	source  Source
	keeper  Keeper
	catalog Catalog
	slots   Slots
	trail   custody.Log
	queue   intake.Queue
	log     *slog.Logger
}

// New returns a Fetcher.
func New(c Config, source Source, keeper Keeper, catalog Catalog, slots Slots, trail custody.Log, queue intake.Queue, log *slog.Logger) *Fetcher {
	if c.Largest == 0 {
		c.Largest = conversation.MaxFile
	}
	if c.Part == 0 {
		c.Part = conversation.FilePart
	}
	if c.RetryWait == 0 {
		c.RetryWait = DefaultRetryWait
	}
	return &Fetcher{c: c, source: source, keeper: keeper, catalog: catalog, slots: slots, trail: trail, queue: queue, log: log}
}

// Handle fetches the attachment that a message names. It returns nil when the register has
// its result, or when it was put back on the queue. A message that can never succeed is
// reported with funchost.ErrPoison; any other error asks for redelivery.
//
// What the queue says is not believed: only what the register expects is fetched, and only
// whoever has put a Teams message into evidence writes there.
func (f *Fetcher) Handle(ctx context.Context, body []byte) error {
	ask, err := conversation.DecodeFileAsk(body)
	if err != nil {
		return fmt.Errorf("%w: %w", funchost.ErrPoison, err)
	}
	if ask.Tenant != f.c.Tenant {
		return fmt.Errorf("%w: attachment of another tenant", funchost.ErrPoison)
	}
	expected, err := f.catalog.Attachment(ctx, ask.Conversation(), ask.ID())
	unknown := errors.Is(err, conversation.ErrNoAttachment)
	if err != nil && !unknown {
		return err
	}
	if !unknown && expected.State != conversation.AttachmentExpected {
		return nil // it was asked for before
	}
	s, err := f.catalog.Slice(ctx, ask.Conversation())
	if err != nil {
		return err
	}
	if s.Conversation.Disposed != nil {
		f.log.InfoContext(ctx, "attachment of a disposed conversation left out", slog.String("conversation", string(s.Conversation.ID)))
		return nil
	}
	ask.Name, ask.Custodian = expected.Name, expected.Custodian
	if unknown || !holds(s, ask) {
		return fmt.Errorf("%w: attachment %s: no message in the archive points at it", funchost.ErrPoison, ask.ID())
	}
	return f.judge(ctx, &ask, f.fetch(ctx, &ask))
}

// holds reports whether the message is in an object of the custodian.
func holds(s conversation.Slice, ask conversation.FileAsk) bool {
	for _, o := range s.Objects {
		if o.Custodian != ask.Custodian {
			continue
		}
		for _, v := range o.Versions {
			if v.Message == ask.Message && v.Sent.Equal(ask.Sent) {
				return true
			}
		}
	}
	return false
}

// gap is why the bytes cannot be had, whatever is tried.
type gap struct{ reason conversation.GapReason }

func (g gap) Error() string { return "attachment cannot be had: " + string(g.reason) }

// unread is a fault of the source, as against one of our own storage: it may go on for ever.
type unread struct {
	err  error
	last conversation.GapReason // what it becomes in the end
}

func (u unread) Error() string { return "read attachment: " + u.err.Error() }
func (u unread) Unwrap() error { return u.err }

// errTurn says that it is not the attachment's turn yet.
var errTurn = errors.New("another request of the chat goes first")

// errTime says that a run's time is up and that it got on.
var errTime = errors.New("the run's time is up")

// blame turns what a source answered into what becomes of the attachment.
func blame(ask *conversation.FileAsk, err error) error {
	var ge *msgraph.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, msgraph.ErrForeignHost), errors.Is(err, msgraph.ErrAddress):
		return gap{conversation.GapForeignHost}
	case errors.Is(err, msgraph.ErrLink):
		return gap{conversation.GapMalformed}
	case errors.Is(err, msgraph.ErrNoFile):
		return gap{conversation.GapNoFile}
	case errors.Is(err, msgraph.ErrMalware):
		return gap{conversation.GapProtected}
	case errors.As(err, &ge):
		return refusal(ask, ge)
	}
	return unread{err, conversation.GapUnavailable}
}

// refusal is what an answer of Graph means for an attachment. The files of who writes from
// outside lie with her own organization, which shows them to nobody here.
func refusal(ask *conversation.FileAsk, ge *msgraph.Error) error {
	switch ge.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		switch {
		case ask.External && ask.Kind.Shared():
			return gap{conversation.GapExternal}
		case ge.Code == "malwareDetected":
			return gap{conversation.GapProtected}
		case ge.Status == http.StatusNotFound:
			return gap{conversation.GapGone}
		}
		return gap{conversation.GapForbidden}
	case http.StatusGone:
		return gap{conversation.GapGone}
	case http.StatusLocked, http.StatusUnavailableForLegalReasons:
		return gap{conversation.GapProtected}
	case http.StatusBadRequest:
		return gap{conversation.GapMalformed}
	case http.StatusPaymentRequired, http.StatusMethodNotAllowed, http.StatusNotAcceptable:
		return gap{conversation.GapForbidden}
	}
	return unread{ge, conversation.GapUnavailable}
}

// judge turns what became of an attachment into the queue's language: done, given up and
// recorded, put back, parked, or redelivered.
func (f *Fetcher) judge(ctx context.Context, ask *conversation.FileAsk, err error) error {
	var g gap
	var u unread
	switch {
	case err == nil, errors.Is(err, intake.ErrDisposed):
		return nil
	case errors.As(err, &g):
		if err = f.giveUp(ctx, ask, g.reason); err == nil || !errors.Is(err, intake.ErrLater) {
			return err
		}
	case errors.As(err, &u) && ask.Attempt >= MaxAttempts:
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
		defer cancel()
		return f.giveUp(ctx, ask, u.last)
	}
	wait := time.Duration(ask.Attempt+1) * f.c.RetryWait
	switch {
	case errors.Is(err, errTurn):
		return f.putBack(ctx, ask, ask.Slot)
	case errors.Is(err, errTime):
		ask.Attempt, wait = 0, 0
	default:
		ask.Attempt++
	}
	ask.Slot = time.Time{}
	if ask.Attempt > MaxAttempts {
		return fmt.Errorf("%w: attachment %s after %d attempts: %w", funchost.ErrPoison, ask.ID(), ask.Attempt, err)
	}
	if serr := f.putBack(ctx, ask, time.Now().Add(wait)); serr != nil {
		return errors.Join(err, serr)
	}
	f.log.InfoContext(ctx, "attachment put back", slog.String("attachment", string(ask.ID())), slog.Int("attempt", ask.Attempt), slog.String("cause", err.Error()))
	return nil
}

// putBack queues an attachment again. Once a run's time is up, sending takes a moment of
// the margin that is left.
func (f *Fetcher) putBack(ctx context.Context, ask *conversation.FileAsk, notBefore time.Time) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
	defer cancel()
	body, err := conversation.EncodeFileAsk(*ask)
	if err != nil {
		return err
	}
	return f.queue.Send(ctx, ask.MessageID(), body, notBefore)
}

// giveUp records that the bytes are not in evidence, and why: in the custody trail, so that
// it cannot be said later that nobody looked, and in the register.
func (f *Fetcher) giveUp(ctx context.Context, ask *conversation.FileAsk, reason conversation.GapReason) error {
	if err := f.keeper.Forsake(ctx, ask.Conversation(), ask.ID()); err != nil {
		return err
	}
	if _, err := f.trail.Append(ctx, custody.Event{
		Tenant: f.c.Tenant, Action: custody.AttachmentGap, System: system, Item: string(ask.Conversation()), Reason: string(reason),
		Detail: "attachment=" + string(ask.ID()),
	}); err != nil {
		return err
	}
	a := ask.Expected(time.Now().UTC())
	a.State, a.Reason = conversation.AttachmentGap, reason
	if err := f.catalog.SaveAttachment(ctx, a); err != nil {
		return err
	}
	f.log.WarnContext(ctx, "attachment cannot be had", slog.String("attachment", string(a.ID)), slog.String("conversation", string(a.Conversation)), slog.String("reason", string(reason)))
	return nil
}
