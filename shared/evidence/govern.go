package evidence

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"steno/shared/evidence/internal/envelope"
	"steno/shared/teams"
)

// Errors of storage that refuses to let an object go.
var (
	// ErrLocked says that an object's Retain Until has not passed.
	ErrLocked = errors.New("evidence object is under its Retain Until")
	// ErrHeld says that an object is under legal hold.
	ErrHeld = errors.New("evidence object is under legal hold")
)

// Dated is what Blobs implement that can put an object under a Retain Until of its own.
type Dated interface {
	// CreateUntil is Create, and in the same request the object comes under a policy that
	// forbids its deletion before until.
	CreateUntil(ctx context.Context, name string, body []byte, until time.Time) error
}

// Protection is what keeps an object from being deleted.
type Protection struct {
	Until  time.Time // zero if it is under no date
	Locked bool      // the date can be extended and never shortened or removed, by nobody
	Held   bool      // under legal hold
}

// Refusal is why an object that is so protected cannot be deleted now, nil if it can.
func (p Protection) Refusal(now time.Time) error {
	switch {
	case p.Held:
		return ErrHeld
	case now.Before(p.Until):
		return ErrLocked
	}
	return nil
}

// Governor is the store of sealed objects in the hands of those who keep, hold and
// dispose. Whoever only writes or reads evidence has none.
type Governor interface {
	// List returns the objects whose names begin with prefix, in the order of names.
	List(ctx context.Context, prefix string) ([]TailInfo, error)
	// Protection reads what protects an object, ErrNotFound if there is none.
	Protection(ctx context.Context, name string) (Protection, error)
	// Protect moves an object's Retain Until on to until, and reports whether it did. A
	// date that is later already stays: nothing is ever shortened.
	Protect(ctx context.Context, name string, until time.Time) (moved bool, err error)
	// Unprotect takes an object from under a date that is not locked, and may be repeated.
	// ErrLocked if the date is locked and has not passed, ErrHeld under legal hold. Only what
	// must not outlive a conversation's keys is treated so; see Shred.
	Unprotect(ctx context.Context, name string) error
	// Hold puts an object under legal hold or takes it out, and may be repeated.
	Hold(ctx context.Context, name string, on bool) error
	// Delete removes an object for good. ErrHeld and ErrLocked if storage refuses; one that
	// is gone already is no error.
	Delete(ctx context.Context, name string) error
	// Now is the time of the storage service's own clock, to the second.
	Now(ctx context.Context) (time.Time, error)
}

// KeyRing is the store of wrapped keys in the hands of those who destroy them.
type KeyRing interface {
	Keys
	// List returns all keys of a unit, by id.
	List(ctx context.Context, tenant teams.TenantID, unit string) ([]WrappedKey, error)
	// Delete destroys a key for good. One that is gone already is no error.
	Delete(ctx context.Context, tenant teams.TenantID, unit, id string) error
	// Since calls f for the keys of a tenant that were stored at or after a time of storage's
	// own clock, those of one unit one after the other. Tenant, unit and id are those of the
	// place where a row lies, whatever it says of itself; a row that cannot be read has
	// nothing else. An error of f ends it.
	Since(ctx context.Context, tenant teams.TenantID, since time.Time, f func(WrappedKey) error) error
}

// Keeper holds, keeps and disposes the evidence of units. It reads no content.
//
// Each of its methods may die at any storage call and be repeated: what is done stays
// done, and repeating leads to the same end.
type Keeper struct {
	Objects Governor
	Tails   Tails // nil where there are none
	Records Dated // where escrow records are created, beside Objects; nil where no keys are escrowed
	Keys    KeyRing
	Now     func() time.Time // time.Now if nil
}

func (k Keeper) now() time.Time {
	if k.Now == nil {
		return time.Now()
	}
	return k.Now()
}

// prefix is how the names of a unit's objects begin.
func prefix(tenant teams.TenantID, unit string) (string, error) {
	ref := Ref{Tenant: tenant, Unit: unit, Object: strings.Repeat("0", 2*envelope.IDSize)}
	if _, err := ref.scope(); err != nil {
		return "", err
	}
	return string(tenant) + "/" + unit + "/", nil
}

// list returns the objects of a unit.
func (k Keeper) list(ctx context.Context, tenant teams.TenantID, unit string) ([]TailInfo, error) {
	p, err := prefix(tenant, unit)
	if err != nil {
		return nil, err
	}
	return k.Objects.List(ctx, p)
}

// UnitState is what is stored of a unit, and what protects it.
type UnitState struct {
	Objects int
	Until   time.Time // the latest Retain Until of its objects
	Locked  bool      // an object is under a locked date that has not passed
	Held    int       // objects under legal hold
	Newest  time.Time // when the newest of them was stored, by the clock of storage
	// EscrowLocked says that a copy of its keys is under a locked date that has not passed: for
	// so long nothing erases the unit. Escrow records are no objects of the unit's, but their
	// date and their hold count among its.
	EscrowLocked bool
}

// State reads what protects a unit. It costs one listing and one request an object.
func (k Keeper) State(ctx context.Context, tenant teams.TenantID, unit string) (UnitState, error) {
	var s UnitState
	objects, err := k.list(ctx, tenant, unit)
	if err != nil {
		return s, fmt.Errorf("state of %s: %w", unit, err)
	}
	now := k.now()
	for _, o := range objects {
		p, err := k.Objects.Protection(ctx, o.Name)
		if errors.Is(err, ErrNotFound) {
			continue // deleted since it was listed
		}
		if err != nil {
			return s, fmt.Errorf("state of %s: %w", unit, err)
		}
		locked := p.Locked && now.Before(p.Until)
		if IsEscrow(o.Name) {
			s.EscrowLocked = s.EscrowLocked || locked
		} else {
			s.Objects++
			if o.StoredAt.After(s.Newest) {
				s.Newest = o.StoredAt
			}
		}
		if p.Until.After(s.Until) {
			s.Until = p.Until
		}
		if p.Held {
			s.Held++
		}
		s.Locked = s.Locked || locked
	}
	return s, nil
}

// Hold puts every object of a unit under legal hold or takes all of them out, and
// returns how many changed. An object that is stored later is not held until the next call.
func (k Keeper) Hold(ctx context.Context, tenant teams.TenantID, unit string, on bool) (changed int, err error) {
	objects, err := k.list(ctx, tenant, unit)
	if err != nil {
		return 0, fmt.Errorf("hold %s: %w", unit, err)
	}
	for _, o := range objects {
		p, err := k.Objects.Protection(ctx, o.Name)
		if errors.Is(err, ErrNotFound) || err == nil && p.Held == on {
			continue
		}
		if err == nil {
			err = k.Objects.Hold(ctx, o.Name, on)
		}
		if err != nil {
			return changed, fmt.Errorf("hold %s: %w", unit, err)
		}
		changed++
	}
	return changed, nil
}

// Extend moves the Retain Until of every object of a unit on to until, where it is
// earlier, and returns how many moved. Nothing is shortened.
func (k Keeper) Extend(ctx context.Context, tenant teams.TenantID, unit string, until time.Time) (moved int, err error) {
	objects, err := k.list(ctx, tenant, unit)
	if err != nil {
		return 0, fmt.Errorf("extend %s: %w", unit, err)
	}
	for _, o := range objects {
		did, err := k.Objects.Protect(ctx, o.Name, until)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return moved, fmt.Errorf("extend %s: %w", unit, err)
		}
		if did {
			moved++
		}
	}
	return moved, nil
}

// Guard is asked immediately before each deletion. Its error stops everything.
type Guard func(ctx context.Context) error

// Check reports whether all of a unit could be deleted now: ErrHeld or ErrLocked if an
// object could not. So that nothing is destroyed of what cannot be destroyed whole, it is
// asked before Dispose.
func (k Keeper) Check(ctx context.Context, tenant teams.TenantID, unit string) error {
	objects, err := k.list(ctx, tenant, unit)
	if err != nil {
		return fmt.Errorf("check %s: %w", unit, err)
	}
	for _, o := range objects {
		p, err := k.Objects.Protection(ctx, o.Name)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err == nil {
			err = p.Refusal(k.now())
		}
		if err != nil {
			return fmt.Errorf("check %s: %w", unit, err)
		}
	}
	return nil
}

// Sweep deletes the objects of a unit that storage lets go, the short-lived ones too, and
// returns how many it deleted and how many stay because of their date. An object under
// legal hold is an error, ErrHeld.
func (k Keeper) Sweep(ctx context.Context, tenant teams.TenantID, unit string, guard Guard) (deleted, left int, err error) {
	objects, err := k.list(ctx, tenant, unit)
	if err != nil {
		return 0, 0, fmt.Errorf("dispose %s: %w", unit, err)
	}
	for _, o := range objects {
		if err := guard(ctx); err != nil {
			return deleted, left, err
		}
		err := k.Objects.Delete(ctx, o.Name)
		if errors.Is(err, ErrLocked) {
			left++
			continue
		}
		if err != nil {
			return deleted, left, fmt.Errorf("dispose %s: %w", unit, err)
		}
		deleted++
	}
	if k.Tails == nil {
		return deleted, left, nil
	}
	p, err := prefix(tenant, unit)
	if err != nil {
		return deleted, left, err
	}
	tails, err := k.Tails.List(ctx, p)
	if err != nil {
		return deleted, left, fmt.Errorf("dispose tails of %s: %w", unit, err)
	}
	for _, t := range tails {
		if err := guard(ctx); err != nil {
			return deleted, left, err
		}
		if err := k.Tails.Delete(ctx, t.Name); err != nil {
			return deleted, left, fmt.Errorf("dispose tails of %s: %w", unit, err)
		}
	}
	return deleted, left, nil
}

// KeyIDs lists the keys of a unit.
func (k Keeper) KeyIDs(ctx context.Context, tenant teams.TenantID, unit string) ([]string, error) {
	keys, err := k.Keys.List(ctx, tenant, unit)
	if err != nil {
		return nil, fmt.Errorf("keys of %s: %w", unit, err)
	}
	ids := make([]string, 0, len(keys))
	for _, w := range keys {
		ids = append(ids, w.ID)
	}
	return ids, nil
}

// Shred destroys every key of a unit, the copies in escrow first. After it nothing of the
// unit can be read any more, but by a process that unwrapped a key in the five minutes
// before (KeyCacheTTL). A copy that storage does not let go, ErrLocked or ErrHeld, keeps the
// keys too: what could still be opened is not called erased.
func (k Keeper) Shred(ctx context.Context, tenant teams.TenantID, unit string, guard Guard) error {
	if err := k.unescrow(ctx, tenant, unit, guard); err != nil {
		return fmt.Errorf("destroy the escrow of %s: %w", unit, err)
	}
	ids, err := k.KeyIDs(ctx, tenant, unit)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := guard(ctx); err != nil {
			return err
		}
		if err := k.Keys.Delete(ctx, tenant, unit, id); err != nil {
			return fmt.Errorf("destroy a key of %s: %w", unit, err)
		}
	}
	return nil
}

// create stores an object, under a date of its own where one is given.
func (s *Store) create(ctx context.Context, name string, body []byte, until time.Time) error {
	if until.IsZero() {
		return s.c.Blobs.Create(ctx, name, body)
	}
	dated, ok := s.c.Blobs.(Dated)
	if !ok {
		return errors.New("this store puts no object under a date of its own")
	}
	return dated.CreateUntil(ctx, name, body, until)
}
