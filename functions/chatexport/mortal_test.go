package chatexport_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/storetest"
	"steno/shared/teams"
)

// errDead is what everything answers after the process has died.
var errDead = errors.New("the process is dead")

// mortality kills a process at its n-th call to a store: before the call had any
// effect, or after it had its effect and before anybody was told.
type mortality struct {
	mu    sync.Mutex
	calls int
	dieAt int // 0: never
	after bool
	dead  bool
}

// call runs one store operation of a mortal process.
func (m *mortality) call(do func() error) error {
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return errDead
	}
	m.calls++
	dies := m.dieAt > 0 && m.calls == m.dieAt
	if dies {
		m.dead = true
	}
	m.mu.Unlock()
	if !dies {
		return do()
	}
	if m.after {
		if err := do(); err != nil {
			return err
		}
	}
	return errDead
}

func (m *mortality) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// mortalCatalog is a catalog as a mortal process sees it.
type mortalCatalog struct {
	conversation.Catalog
	m *mortality
}

func (c mortalCatalog) Slice(ctx context.Context, id conversation.ID) (s conversation.Slice, err error) {
	err = c.m.call(func() (err error) { s, err = c.Catalog.Slice(ctx, id); return err })
	return s, err
}

func (c mortalCatalog) Claim(ctx context.Context, was conversation.Slice, cl conversation.Claim) error {
	return c.m.call(func() error { return c.Catalog.Claim(ctx, was, cl) })
}

func (c mortalCatalog) FinishWindow(ctx context.Context, d conversation.WindowDone, t []conversation.Conversation) error {
	return c.m.call(func() error { return c.Catalog.FinishWindow(ctx, d, t) })
}

func (c mortalCatalog) FinishedWindows(ctx context.Context, p teams.PersonID, pass int, from, to time.Time) (out []conversation.WindowDone, err error) {
	err = c.m.call(func() (err error) { out, err = c.Catalog.FinishedWindows(ctx, p, pass, from, to); return err })
	return out, err
}

// mortalStore is the evidence store as a mortal process sees it.
type mortalStore struct {
	*evidence.Store
	m *mortality
}

func (s mortalStore) Seal(ctx context.Context, ref evidence.Ref, plain []byte) (o evidence.Sealed, err error) {
	err = s.m.call(func() (err error) { o, err = s.Store.Seal(ctx, ref, plain); return err })
	return o, err
}

func (s mortalStore) Put(ctx context.Context, o evidence.Sealed) error {
	return s.m.call(func() error { return s.Store.Put(ctx, o) })
}

func (s mortalStore) Exists(ctx context.Context, ref evidence.Ref) (ok bool, err error) {
	err = s.m.call(func() (err error) { ok, err = s.Store.Exists(ctx, ref); return err })
	return ok, err
}

func (s mortalStore) Digest(ctx context.Context, ref evidence.Ref) (n int64, d [sha256.Size]byte, err error) {
	err = s.m.call(func() (err error) { n, d, err = s.Store.Digest(ctx, ref); return err })
	return n, d, err
}

// mortalTrail is the custody trail as a mortal process sees it.
type mortalTrail struct {
	*storetest.Trail
	m *mortality
}

func (t mortalTrail) Insert(ctx context.Context, r custody.Record) error {
	return t.m.call(func() error { return t.Trail.Insert(ctx, r) })
}
