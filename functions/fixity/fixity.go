// Package fixity reads stored evidence again and compares it with what the custody trail
// bound when it was sealed. What was changed, is missing or cannot be read is an alarm
// in the run that finds it.
//
// A run reads four things: a random sample; the next stretch of a round that goes through
// all seals of the trail, oldest first, compares each with its leaf in the custody log, and
// is done within a period; the next
// conversations of the catalog, whose objects are sealed late if whoever stored them died
// before it could; and the next units of storage, from which the catalog's rows are made
// again and compared. The packs of a recording are those that its manifest lists, so
// manifests are opened, under a custody event; everything else is hashed as it lies there.
//
// An object that storage keeps two versions of is an alarm too. That was never tried
// against Azure: neither Azurite nor the write-once proxy keeps versions.
package fixity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/teams"
)

// Defaults and limits.
const (
	DefaultPeriod = 30 * 24 * time.Hour
	DefaultBudget = 2 << 30

	// system is the name under which this function acts.
	system = "fixity"
	// settle is how old a record is before the round passes it: until then one with an
	// earlier time may still become durable.
	settle = 15 * time.Minute
	// past is how far back a round begins that knows no better.
	past = 11 * 365 * 24 * time.Hour
	// longest is how long a run reads. What is left is the next one's.
	longest = 4 * time.Minute
	// maxObjects is how many objects the stretch of a run has at most.
	maxObjects = 4000
	// sampleSize is how many objects a run reads at random.
	sampleSize = 8
	// away is after how many failures in a row it is asked whether storage is there at all.
	away = 5
	// maxAgain is how many objects that cannot be read end a stretch.
	maxAgain = 64
)

// Why an alarm is raised; Reason of its custody event.
const (
	reasonChanged    = "changed"        // its bytes are not those that were sealed
	reasonMissing    = "missing"        // and no disposal explains it
	reasonUnreadable = "unreadable"     // twice in a run, while others could be read
	reasonVersions   = "second-version" // storage keeps more than one
	reasonUnsealed   = "not-sealable"   // it stands in the catalog, and does not hold what that says
	reasonLate       = "late"           // the round is not done within the period
)

// State is where the progress of the rounds is kept: a small document that is replaced by
// whoever read it. custody.ErrMoved if it changed meanwhile.
type State interface {
	Head(ctx context.Context) (body []byte, revision string, err error)
	SwapHead(ctx context.Context, body []byte, revision string) error
}

// Catalog is where objects are found that nothing seals, and what is compared with evidence.
type Catalog interface {
	ByTime(ctx context.Context, from, to time.Time, page conversation.PageRequest) (conversation.Page, error)
	ByPerson(ctx context.Context, person teams.PersonID, from, to time.Time, page conversation.PageRequest) (conversation.Page, error)
	Slice(ctx context.Context, id conversation.ID) (conversation.Slice, error)
	Attachments(ctx context.Context, id conversation.ID) ([]conversation.Attachment, error)
}

// Calls is the register of calls.
type Calls interface {
	Call(ctx context.Context, key conversation.ThreadKey) (conversation.Call, error)
}

// Objects lists what is stored, without opening it.
type Objects interface {
	List(ctx context.Context, prefix string) ([]evidence.TailInfo, error)
}

// Config is what fixity needs to know.
type Config struct {
	Tenant teams.TenantID
	Period time.Duration // DefaultPeriod if 0: everything is read again within it
	Budget int64         // DefaultBudget if 0: bytes a run reads, give or take an object
	Now    func() time.Time
}

// Stores is what is compared with what.
type Stores struct {
	Evidence *evidence.Store
	Versions evidence.Versions
	Trail    custody.Log
	Tiles    custody.Tiles // the custody log
	Objects  Objects
	Catalog  Catalog
	Calls    Calls
	State    State
}

// Fixity reads evidence again.
type Fixity struct {
	c   Config
	s   Stores
	log *slog.Logger
}

// New returns a Fixity.
func New(c Config, s Stores, log *slog.Logger) *Fixity {
	if c.Period == 0 {
		c.Period = DefaultPeriod
	}
	if c.Budget == 0 {
		c.Budget = DefaultBudget
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Fixity{c: c, s: s, log: log}
}

// run is one run.
type run struct {
	*Fixity
	state    progress
	start    time.Time
	tally    tally
	failures int      // to read, in a row
	again    []target // what could not be read, and is tried once more at the end
	missing  []target // what is not there, and may have been disposed of
	units    map[string]bool
	raised   map[string]bool
	sealed   map[string]map[string]bool // by day: "unit/object" that a seal names
	late     map[string]bool            // "unit/object" that this run sealed
	receipts map[string]custody.Receipt // by unit
	leaves   *leaves                    // nil until it is asked
}

// target is an object to read.
type target struct {
	object custody.Object
	at     time.Time // of the record that seals it
	pack   bool      // object.SHA256 comes from a manifest
	err    error     // why it could not be read
}

func (t target) String() string { return t.object.Unit + "/" + t.object.Object }

// Run reads what is due. When it returns nil, every alarm is in the trail and progress is
// stored. It may be called again after any error and by several processes at once: what
// was read is read again, and an alarm may stand in the trail twice.
//
// When storage does not answer at all, that is an error and no alarm.
func (f *Fixity) Run(ctx context.Context) error {
	body, revision, err := f.s.State.Head(ctx)
	if err != nil {
		return fmt.Errorf("fixity: read progress: %w", err)
	}
	r := &run{Fixity: f, start: f.c.Now().UTC(), units: map[string]bool{}, raised: map[string]bool{}, sealed: map[string]map[string]bool{}, late: map[string]bool{}, receipts: map[string]custody.Receipt{}}
	if r.state, err = decodeProgress(body); err != nil {
		return fmt.Errorf("fixity: %w", err)
	}
	for _, step := range []func(context.Context) error{r.sample, r.stretch, r.sweep, r.rebuild, r.secondLook, r.explain, r.summary} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("fixity: %w", err)
		}
	}
	if body, err = r.state.encode(); err != nil {
		return fmt.Errorf("fixity: %w", err)
	}
	err = f.s.State.SwapHead(ctx, body, revision)
	if errors.Is(err, custody.ErrMoved) {
		f.log.InfoContext(ctx, "another fixity run is at work")
		return nil
	}
	if err != nil {
		return fmt.Errorf("fixity: store progress: %w", err)
	}
	return nil
}

// spent reports whether a run has read what it may.
func (r *run) spent() bool {
	return r.tally.Bytes >= r.c.Budget || r.tally.Objects >= maxObjects || len(r.again) >= maxAgain || r.c.Now().Sub(r.start) >= longest
}

// check compares an object with its seal. What it finds becomes an alarm, now or, where
// it may have an innocent reason, at the end of the run.
func (r *run) check(ctx context.Context, t target) error {
	size, digest, err := r.s.Evidence.Digest(ctx, r.ref(t.object.Unit, t.object.Object))
	switch {
	case errors.Is(err, evidence.ErrNotFound):
		r.failures = 0
		r.missing = append(r.missing, t)
		return nil
	case err != nil:
		return r.unread(ctx, t, err)
	}
	r.failures = 0
	r.tally.Objects++
	r.tally.Bytes += size
	if fmt.Sprintf("%x", digest) != t.object.SHA256 {
		return r.alarm(ctx, t.object.Unit, t.object.Object, reasonChanged)
	}
	if err := r.versions(ctx, t.object.Unit); err != nil {
		return r.unread(ctx, t, err)
	}
	if leg := conversation.LegID(t.object.Unit); !t.pack && t.object.Object == conversation.ManifestObject(leg) {
		return r.packs(ctx, t)
	}
	return nil
}

// unread takes note of what could not be read.
func (r *run) unread(ctx context.Context, t target, err error) error {
	if ctx.Err() != nil {
		return err
	}
	if r.failures++; r.failures%away == 0 {
		if _, _, gone := r.s.State.Head(ctx); gone != nil {
			return fmt.Errorf("storage does not answer: %w", err)
		}
	}
	t.err = err
	r.again = append(r.again, t)
	return nil
}

// secondLook reads again what could not be read. What cannot be read twice, while
// storage answers others, is an alarm.
func (r *run) secondLook(ctx context.Context) error {
	first := r.again
	r.again = nil
	for _, t := range first {
		if err := r.check(ctx, t); err != nil {
			return err
		}
	}
	for _, t := range r.again {
		r.log.WarnContext(ctx, "evidence cannot be read", slog.String("object", t.String()), slog.String("reason", t.err.Error()))
		if err := r.alarm(ctx, t.object.Unit, t.object.Object, reasonUnreadable); err != nil {
			return err
		}
	}
	return nil
}

// versions checks once a run that storage keeps one version of each object of a unit.
func (r *run) versions(ctx context.Context, unit string) error {
	if r.units[unit] {
		return nil
	}
	twice, err := evidence.SecondVersions(ctx, r.s.Versions, r.c.Tenant, unit)
	if err != nil {
		return err
	}
	r.units[unit] = true
	for _, object := range twice {
		if err := r.alarm(ctx, unit, object, reasonVersions); err != nil {
			return err
		}
	}
	return nil
}

// maxManifest bounds the plain bytes of a manifest.
const maxManifest = 64 << 20

// packs reads the packs that the manifest of a leg lists. It takes the manifest's key; a
// manifest that was erased has none, and the disposal explains that.
func (r *run) packs(ctx context.Context, t target) error {
	manifest, err := r.manifest(ctx, t)
	switch {
	case errors.Is(err, evidence.ErrNotFound):
		r.missing = append(r.missing, t)
		return nil
	case errors.Is(err, errTrail):
		return err
	case err != nil:
		return r.unread(ctx, t, err)
	}
	for _, p := range manifest.Packs {
		o := custody.Object{Unit: t.object.Unit, Object: p.Object, SHA256: p.SHA256}
		if err := r.check(ctx, target{object: o, at: t.at, pack: true}); err != nil {
			return err
		}
	}
	return nil
}

// errTrail says that the trail did not take an event.
var errTrail = errors.New("the custody trail did not take an event")

// open opens an object under a custody event, one a unit while its receipt is good.
func (r *run) open(ctx context.Context, unit, object string) (*evidence.Object, error) {
	if receipt := r.receipts[unit]; receipt.Covers(unit, r.c.Now()) == nil {
		return r.s.Evidence.Open(ctx, r.ref(unit, object), receipt)
	}
	receipt, err := r.s.Trail.Append(ctx, custody.Event{Tenant: r.c.Tenant, Action: custody.SystemRead, System: system, Item: unit, Reason: "fixity"})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTrail, err)
	}
	r.receipts[unit] = receipt
	return r.s.Evidence.Open(ctx, r.ref(unit, object), receipt)
}

func (r *run) manifest(ctx context.Context, t target) (conversation.Manifest, error) {
	o, err := r.open(ctx, t.object.Unit, t.object.Object)
	if err != nil {
		return conversation.Manifest{}, err
	}
	plain, err := o.ReadAll(maxManifest)
	if err != nil {
		return conversation.Manifest{}, err
	}
	return conversation.DecodeManifest(plain)
}

func (r *run) ref(unit, object string) evidence.Ref {
	return evidence.Ref{Tenant: r.c.Tenant, Unit: unit, Object: object}
}

// alarm raises an alarm: an error in the log, which operators match on, and an event in
// the trail. Each is raised once a run.
func (r *run) alarm(ctx context.Context, unit, object, reason string) error {
	key := unit + "/" + object + "/" + reason
	if r.raised[key] {
		return nil
	}
	r.raised[key] = true
	r.tally.Alarms++
	r.log.ErrorContext(ctx, "stored evidence is not what was sealed", slog.String("alarm", "fixity"),
		slog.String("unit", unit), slog.String("object", object), slog.String("reason", reason))
	e := custody.Event{Tenant: r.c.Tenant, Action: custody.FixityAlarm, System: system, Item: unit, Reason: reason}
	if object != "" {
		e.Detail = "object=" + object
	}
	if _, err := r.s.Trail.Append(ctx, e); err != nil {
		return fmt.Errorf("alarm for %s: %w: %w", key, errTrail, err)
	}
	return nil
}

// walk calls each for the records of the trail whose ids are after an id and whose time is
// before to, in the order of their ids, until it returns false. It returns the id of the last.
func (r *run) walk(ctx context.Context, after string, to time.Time, each func(custody.Record) (bool, error)) (string, error) {
	const page, stride = 512, 380 * 24 * time.Hour
	from, err := timeOf(after)
	if err != nil {
		return after, err
	}
	for limit := page; from.Before(to); {
		end := from.Add(stride)
		if end.After(to) {
			end = to
		}
		records, err := r.s.Trail.Trail.Range(ctx, from, end, limit)
		if err != nil {
			return after, err
		}
		full := len(records) == limit
		slices.SortFunc(records, func(a, b custody.Record) int { return compare(a.ID, b.ID) })
		before := after
		for _, rec := range records {
			if rec.ID <= after {
				continue
			}
			more, err := each(rec)
			if err != nil {
				return after, err
			}
			after = rec.ID
			if !more {
				return after, nil
			}
		}
		switch {
		case !full:
			from, limit = end, page
		case after == before:
			limit *= 2 // more than a page of records of one microsecond
		default:
			if from, err = timeOf(after); err != nil {
				return after, err
			}
			limit = page
		}
	}
	return after, nil
}
