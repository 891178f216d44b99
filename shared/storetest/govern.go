package storetest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"steno/shared/evidence"
	"steno/shared/teams"
)

// CreateUntil implements evidence.Dated.
func (b *Blobs) CreateUntil(ctx context.Context, name string, body []byte, until time.Time) error {
	if err := b.Create(ctx, name, body); err != nil {
		return err
	}
	_, err := b.Protect(ctx, name, until)
	return err
}

// List implements evidence.Governor and evidence.Tails.
func (b *Blobs) List(ctx context.Context, prefix string) ([]evidence.TailInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []evidence.TailInfo
	for _, n := range slices.Sorted(maps.Keys(b.m)) {
		if strings.HasPrefix(n, prefix) {
			out = append(out, evidence.TailInfo{Name: n, Size: int64(len(b.m[n])), StoredAt: b.stored[n]})
		}
	}
	return out, nil
}

func (b *Blobs) clock() time.Time {
	if b.Clock == nil {
		return time.Now()
	}
	return b.Clock()
}

// Now implements evidence.Governor.
func (b *Blobs) Now(context.Context) (time.Time, error) {
	return b.clock().UTC().Truncate(time.Second), nil
}

// Protection implements evidence.Governor.
func (b *Blobs) Protection(_ context.Context, name string) (evidence.Protection, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.m[name]; !ok {
		return evidence.Protection{}, evidence.ErrNotFound
	}
	return b.protected[name], nil
}

func (b *Blobs) protect(name string, p evidence.Protection) {
	if b.protected == nil {
		b.protected = map[string]evidence.Protection{}
	}
	b.protected[name] = p
}

// Protect implements evidence.Governor.
func (b *Blobs) Protect(_ context.Context, name string, until time.Time) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.m[name]; !ok {
		return false, evidence.ErrNotFound
	}
	p := b.protected[name]
	until = until.UTC()
	if whole := until.Truncate(time.Second); whole.Before(until) {
		until = whole.Add(time.Second)
	}
	if !until.After(p.Until) || !until.After(b.clock()) {
		return false, nil
	}
	p.Until, p.Locked = until, p.Locked || b.Lock
	b.protect(name, p)
	return true, nil
}

// Unprotect implements evidence.Governor.
func (b *Blobs) Unprotect(_ context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.m[name]; !ok {
		return evidence.ErrNotFound
	}
	p := b.protected[name]
	switch {
	case p.Held:
		return evidence.ErrHeld
	case p.Locked && b.clock().Before(p.Until):
		return evidence.ErrLocked
	}
	b.protect(name, evidence.Protection{})
	return nil
}

// Hold implements evidence.Governor.
func (b *Blobs) Hold(_ context.Context, name string, on bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.m[name]; !ok {
		return evidence.ErrNotFound
	}
	p := b.protected[name]
	p.Held = on
	b.protect(name, p)
	return nil
}

// Delete implements evidence.Governor and evidence.Tails.
func (b *Blobs) Delete(_ context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.protected[name].Refusal(b.clock()); err != nil {
		return err
	}
	delete(b.m, name)
	delete(b.protected, name)
	return nil
}

// List implements evidence.KeyRing.
func (k *Keys) List(_ context.Context, tenant teams.TenantID, unit string) ([]evidence.WrappedKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []evidence.WrappedKey
	for _, n := range slices.Sorted(maps.Keys(k.m)) {
		if strings.HasPrefix(n, keyName(tenant, unit, "")) {
			out = append(out, k.m[n])
		}
	}
	return out, nil
}

// Since implements evidence.KeyRing.
func (k *Keys) Since(_ context.Context, tenant teams.TenantID, since time.Time, f func(evidence.WrappedKey) error) error {
	k.mu.Lock()
	var found []evidence.WrappedKey
	for _, n := range slices.Sorted(maps.Keys(k.m)) {
		if place := strings.Split(n, "/"); place[0] == string(tenant) && !k.at[n].Before(since) {
			w := k.m[n]
			w.Tenant, w.Unit, w.ID = tenant, place[1], place[2]
			found = append(found, w)
		}
	}
	k.mu.Unlock()
	for _, w := range found {
		if err := f(w); err != nil {
			return err
		}
	}
	return nil
}

// Delete implements evidence.KeyRing.
func (k *Keys) Delete(_ context.Context, tenant teams.TenantID, unit, id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.m, keyName(tenant, unit, id))
	return nil
}
