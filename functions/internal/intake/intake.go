// Package intake puts message versions into evidence, each exactly as Graph sent it, once,
// on whichever lane they came: the daily export, a change notification, a look-back. Each
// lane is a function of its own; what they share is this way in.
//
// How a version is claimed, stored and believed is described in package
// conversation. A run may die at any step and be repeated; two runs may meet.
package intake

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Defaults and limits.
const (
	// DefaultClaimLease is how old a claim must be before its versions may be claimed
	// anew. It is longer than any run can live (host.json functionTimeout).
	DefaultClaimLease = 15 * time.Minute
	// parallel is how many conversations of a delivery are stored at the same time.
	parallel = 4
	// maxVersions is the most versions one evidence object holds; its row lists them.
	maxVersions = 500
	// conflicts is how often a slice that keeps changing is read anew.
	conflicts = 8
)

// ErrLater says that somebody else's unfinished work is in the way. The same delivery may
// be kept a little later.
var ErrLater = errors.New("another run has claimed these versions and not stored them yet")

// Store is what of package evidence is needed.
type Store interface {
	Seal(ctx context.Context, ref evidence.Ref, plain []byte) (evidence.Sealed, error)
	Put(ctx context.Context, o evidence.Sealed) error
	Exists(ctx context.Context, ref evidence.Ref) (bool, error)
	Digest(ctx context.Context, ref evidence.Ref) (size int64, digest [sha256.Size]byte, err error)
}

// Config is what every lane needs.
type Config struct {
	// System is the function's name in the custody trail.
	System string
	// History is how far before a period what is said in it is kept, as in exportplan.
	History time.Duration
	// ClaimLease is how old an unfinished claim must be to be replaced; 0 means DefaultClaimLease.
	ClaimLease time.Duration
	// Policies say how long what is stored is kept.
	Policies policy.DataPolicies
	// Tenant is whose messages come, for those who keep files.
	Tenant teams.TenantID
	// Files has the attachments of what is kept fetched; the zero value none.
	Files Files
}

// Intake stores message versions. It is safe for many at once.
type Intake struct {
	config  Config
	roster  policy.Roster
	catalog conversation.Catalog
	store   Store
	trail   custody.Log
	log     *slog.Logger

	mu     sync.Mutex
	stored map[string]bool // objects known to be stored; a cache of the truth
	// conversations are those this process has met; a hint of what the catalog knows.
	conversations map[conversation.ID]bool
	periods       map[teams.PersonID]periodsAt
}

type periodsAt struct {
	periods []policy.Period
	until   time.Time
}

// periodsTTL is how long a custodian's periods are remembered: the windows of one planning
// come together, and a period that closes does so in the past of no window.
const periodsTTL = 30 * time.Second

// New returns an Intake.
func New(c Config, r policy.Roster, cat conversation.Catalog, s Store, trail custody.Log, log *slog.Logger) *Intake {
	if c.ClaimLease == 0 {
		c.ClaimLease = DefaultClaimLease
	}
	return &Intake{config: c, roster: r, catalog: cat, store: s, trail: trail, log: log, stored: map[string]bool{}, conversations: map[conversation.ID]bool{}, periods: map[teams.PersonID]periodsAt{}}
}

// Delivery is what one reading brought.
type Delivery struct {
	// Window is the reading; its custodian is whose messages they are.
	Window conversation.Window
	Lane   conversation.MessageLane
	Pages  []Page
}

// Page is a part of a delivery that one answer of Graph, or one notification, held.
type Page struct {
	Items     [][]byte // each the exact bytes of one message
	RequestID string   // Graph's, to quote to Microsoft's support
	FetchedAt time.Time
}

// Kept is what keeping a delivery came to.
type Kept struct {
	// Done counts what the delivery held and what of it was new. The lane finishes the window
	// with it.
	Done conversation.WindowDone
	// Touched are the conversations that changed, to be made findable with the window.
	Touched []conversation.Conversation
	// Held are the messages of the delivery that the custodian's own objects hold, as
	// against those that another custodian's do: whoever holds a message has its files fetched.
	Held []conversation.Message
}

// Keep makes sure that every version of a delivery is in evidence, and that the custody log
// binds what was stored now, and that the files of what the custodian holds are asked for. When
// it returns nil all of that is durable; only then may the window be finished. It may be repeated.
func (in *Intake) Keep(ctx context.Context, d Delivery) (Kept, error) {
	out := Kept{Done: conversation.WindowDone{Window: d.Window}}
	byConversation := map[conversation.ID][]conversation.Message{}
	heads := map[conversation.ID]conversation.BatchHeader{}
	seen := map[conversation.ID]map[conversation.VersionKey]bool{}
	for _, page := range d.Pages {
		for _, raw := range page.Items {
			m := conversation.ReadMessage(raw, d.Window.Custodian)
			if m.Unclear != nil {
				out.Done.Unclear++
				in.log.WarnContext(ctx, "item kept as unclear", slog.String("window", d.Window.Key()), slog.String("cause", m.Unclear.Error()))
			}
			id := conversation.IDOf(conversation.KeyOf(d.Window.Tenant, m.Thread), m.Sent)
			if seen[id] == nil {
				seen[id] = map[conversation.VersionKey]bool{}
				heads[id] = conversation.BatchHeader{
					Tenant: d.Window.Tenant, Conversation: id, Thread: m.Thread, Custodian: d.Window.Custodian,
					Window: d.Window.Key(), Lane: d.Lane, FetchedAt: page.FetchedAt, RequestID: page.RequestID,
				}
			}
			if !seen[id][m.VersionKey] {
				seen[id][m.VersionKey] = true
				byConversation[id] = append(byConversation[id], m)
				out.Done.Returned++
			}
		}
	}
	bound, err := in.storeAll(ctx, d.Window.Pass == 1, heads, byConversation, &out)
	// What is stored is bound, whatever became of the rest: nobody else knows it.
	if err := errors.Join(err, in.bind(ctx, d.Window, bound)); err != nil {
		return Kept{}, err
	}
	if err := in.askFiles(ctx, d.Window, out.Held); err != nil {
		return Kept{}, err
	}
	out.Done.At = time.Now().UTC()
	return out, nil
}

// bind puts the digests of what was stored into the custody trail, and so into its log: one
// event a window, since an event is a storage operation. Objects of a run that dies before
// it, function fixity finds and binds.
func (in *Intake) bind(ctx context.Context, w conversation.Window, bound []custody.Object) error {
	slices.SortFunc(bound, func(a, b custody.Object) int { return cmp.Or(cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Seq, b.Seq)) })
	for part := range slices.Chunk(bound, custody.MaxObjects) {
		if _, err := in.trail.Append(ctx, custody.Event{
			Tenant: w.Tenant, Action: custody.Sealed, System: in.config.System, Item: w.Key(), Objects: part,
		}); err != nil {
			return fmt.Errorf("bind %d objects of window %s: %w", len(part), w.Key(), err)
		}
	}
	return nil
}

func (in *Intake) storeAll(ctx context.Context, first bool, heads map[conversation.ID]conversation.BatchHeader, messages map[conversation.ID][]conversation.Message, out *Kept) (bound []custody.Object, err error) {
	var mu sync.Mutex
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for id, list := range messages {
		group.Go(func() error {
			for part := range slices.Chunk(list, maxVersions) {
				s, err := in.storeConversation(gctx, first, heads[id], part)
				mu.Lock()
				bound = append(bound, s.bound...)
				if err == nil && s.facts.ID != "" {
					out.Touched = append(out.Touched, s.facts)
					out.Done.New += s.added
					out.Held = append(out.Held, s.held...)
				}
				mu.Unlock()
				if err != nil {
					return fmt.Errorf("conversation %s: %w", id, err)
				}
			}
			return nil
		})
	}
	err = group.Wait()
	out.Touched = lastOfEach(out.Touched)
	return bound, err
}

// lastOfEach keeps the latest facts of each conversation: parts of one conversation
// are stored one after another, and a transaction may name a row once.
func lastOfEach(list []conversation.Conversation) []conversation.Conversation {
	at := map[conversation.ID]int{}
	out := list[:0]
	for _, c := range list {
		if i, ok := at[c.ID]; ok {
			out[i] = c
			continue
		}
		at[c.ID] = len(out)
		out = append(out, c)
	}
	return out
}

// PeriodsOf returns a copy of a custodian's periods: at most 30 seconds old if remembered
// ones will do, else as the roster has them now.
func (in *Intake) PeriodsOf(ctx context.Context, p teams.PersonID, remembered bool) ([]policy.Period, error) {
	now := time.Now()
	in.mu.Lock()
	known, ok := in.periods[p]
	in.mu.Unlock()
	if remembered && ok && now.Before(known.until) {
		return slices.Clone(known.periods), nil
	}
	periods, err := in.roster.PeriodsOf(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("read roster: %w", err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.periods) >= maxStored {
		clear(in.periods)
	}
	in.periods[p] = periodsAt{periods, now.Add(periodsTTL)}
	return slices.Clone(periods), nil
}
