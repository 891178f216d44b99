// Package storetest holds the stores of the packages above it in memory, and one
// conformance suite for each of their interfaces. Package azure runs the same suites
// against real storage, so a test over memory and the product see the same rules.
//
// Tests alone import it.
package storetest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/teams"
)

var (
	_ evidence.Blobs       = (*Blobs)(nil)
	_ evidence.Dated       = (*Blobs)(nil)
	_ evidence.Governor    = (*Blobs)(nil)
	_ evidence.Versions    = (*Blobs)(nil)
	_ evidence.Tails       = (*Tails)(nil)
	_ evidence.KeyRing     = (*Keys)(nil)
	_ evidence.Vault       = (*Vault)(nil)
	_ conversation.Catalog = (*Catalog)(nil)
	_ conversation.Calls   = (*Catalog)(nil)
	_ policy.Roster        = (*Roster)(nil)
	_ policy.Matters       = (*Matters)(nil)
	_ policy.Approvals     = (*Approvals)(nil)
	_ policy.Dispositions  = (*Dispositions)(nil)
	_ custody.Trail        = (*Trail)(nil)
)

// Blobs is a write-once store. Its zero value is empty and ready.
type Blobs struct {
	mu        sync.Mutex
	m         map[string][]byte
	stored    map[string]time.Time
	protected map[string]evidence.Protection
	second    map[string]int // further versions, as storage that keeps them would
	// Clock is the clock of storage, time.Now if nil; Lock locks the dates it sets.
	Clock func() time.Time
	Lock  bool
}

// Create implements evidence.Blobs.
func (b *Blobs) Create(ctx context.Context, name string, body []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.m[name]; ok {
		return evidence.ErrExists
	}
	if b.m == nil {
		b.m = map[string][]byte{}
	}
	if b.stored == nil {
		b.stored = map[string]time.Time{}
	}
	b.m[name], b.stored[name] = slices.Clone(body), b.clock()
	return nil
}

// Size implements evidence.Blobs.
func (b *Blobs) Size(ctx context.Context, name string) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	body, ok := b.m[name]
	if !ok {
		return 0, evidence.ErrNotFound
	}
	return int64(len(body)), nil
}

// ReadAt implements evidence.Blobs.
func (b *Blobs) ReadAt(ctx context.Context, name string, off, n int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	body, ok := b.m[name]
	if !ok {
		return nil, evidence.ErrNotFound
	}
	if off < 0 || n < 1 || off+n > int64(len(body)) {
		return nil, errors.New("read blob: range is empty or not within it")
	}
	return slices.Clone(body[off : off+n]), nil
}

// Names lists all names, sorted.
func (b *Blobs) Names() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.m))
}

// Overwrite replaces the bytes of an object as storage does that keeps versions: the old one
// stays as one.
func (b *Blobs) Overwrite(name string, body []byte) {
	b.Tamper(name, body)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.second == nil {
		b.second = map[string]int{}
	}
	b.second[name]++
}

// Versions implements evidence.Versions.
func (b *Blobs) Versions(ctx context.Context, prefix string) ([]evidence.Version, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []evidence.Version
	for _, name := range slices.Sorted(maps.Keys(b.m)) {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		for v := range 1 + b.second[name] {
			out = append(out, evidence.Version{Name: name, ID: strconv.Itoa(v)})
		}
	}
	return out, nil
}

// Remove takes an object away behind the store's back.
func (b *Blobs) Remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.m, name)
}

// Tamper replaces the bytes of an object behind the store's back.
func (b *Blobs) Tamper(name string, body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.m[name] = slices.Clone(body)
}

// Keys is a key store. Its zero value is empty and ready.
type Keys struct {
	mu sync.Mutex
	m  map[string]evidence.WrappedKey
	at map[string]time.Time // when each was stored
	// Clock is the clock of storage, time.Now if nil.
	Clock func() time.Time
}

// set stores a row as of now.
func (k *Keys) set(name string, w evidence.WrappedKey) {
	if k.m == nil {
		k.m, k.at = map[string]evidence.WrappedKey{}, map[string]time.Time{}
	}
	now := time.Now
	if k.Clock != nil {
		now = k.Clock
	}
	k.m[name], k.at[name] = w, now()
}

func keyName(tenant teams.TenantID, unit, id string) string {
	return string(tenant) + "/" + unit + "/" + id
}

// Insert implements evidence.Keys.
func (k *Keys) Insert(_ context.Context, w evidence.WrappedKey) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	name := keyName(w.Tenant, w.Unit, w.ID)
	if _, ok := k.m[name]; ok {
		return evidence.ErrExists
	}
	k.set(name, w)
	return nil
}

// Get implements evidence.Keys.
func (k *Keys) Get(_ context.Context, tenant teams.TenantID, unit, id string) (evidence.WrappedKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w, ok := k.m[keyName(tenant, unit, id)]
	if !ok {
		return w, evidence.ErrNotFound
	}
	return w, nil
}

// All lists all keys, by name.
func (k *Keys) All() []evidence.WrappedKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []evidence.WrappedKey
	for _, n := range slices.Sorted(maps.Keys(k.m)) {
		out = append(out, k.m[n])
	}
	return out
}

// Tamper replaces a row behind the store's back.
func (k *Keys) Tamper(tenant teams.TenantID, unit, id string, w evidence.WrappedKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.set(keyName(tenant, unit, id), w)
}

// VaultHost is the host of the vault in memory.
const VaultHost = "vault.test"

// Vault is a key vault with one RSA key. Make one with NewVault.
type Vault struct {
	key     *rsa.PrivateKey
	mu      sync.Mutex
	unwraps int
}

// NewVault draws the vault's key.
func NewVault() *Vault {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(fmt.Sprintf("draw test key: %v", err))
	}
	return &Vault{key: k}
}

const vaultKeyID = "https://" + VaultHost + "/keys/wrap/1"

// WrappingKey implements evidence.Vault.
func (v *Vault) WrappingKey(context.Context) (string, *rsa.PublicKey, error) {
	return vaultKeyID, &v.key.PublicKey, nil
}

// Unwrap implements evidence.Vault.
func (v *Vault) Unwrap(_ context.Context, id, alg string, wrapped []byte) ([]byte, error) {
	v.mu.Lock()
	v.unwraps++
	v.mu.Unlock()
	if id != vaultKeyID || alg != "RSA-OAEP-256" {
		return nil, fmt.Errorf("vault has no key %q for %q", id, alg)
	}
	return rsa.DecryptOAEP(sha256.New(), nil, v.key, wrapped, nil)
}

// Unwraps counts the calls of Unwrap.
func (v *Vault) Unwraps() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.unwraps
}

// Trail is a custody trail. Its zero value is empty and ready.
type Trail struct {
	mu sync.Mutex
	m  map[string]custody.Record
}

// Insert implements custody.Trail.
func (t *Trail) Insert(_ context.Context, r custody.Record) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.m[r.ID]; ok {
		return errors.New("custody record exists")
	}
	if _, err := r.Encode(); err != nil { // what cannot be stored is refused here too
		return err
	}
	if t.m == nil {
		t.m = map[string]custody.Record{}
	}
	r.Objects = slices.Clone(r.Objects)
	t.m[r.ID] = r
	return nil
}

// Range implements custody.Trail.
func (t *Trail) Range(_ context.Context, from, to time.Time, limit int) ([]custody.Record, error) {
	if limit < 1 {
		return nil, errors.New("read custody trail: limit must be at least 1")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []custody.Record
	for _, id := range slices.Sorted(maps.Keys(t.m)) {
		if r := t.m[id]; !r.At.Before(from) && r.At.Before(to) && len(out) < limit {
			out = append(out, r)
		}
	}
	return out, nil
}

// Roster keeps people and periods. Its zero value is empty and ready.
type Roster struct {
	mu      sync.Mutex
	periods map[string]policy.Period
	people  map[teams.PersonID]policy.Person
}

func (r *Roster) pick(keep func(policy.Period) bool) []policy.Period {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []policy.Period
	for _, k := range slices.Sorted(maps.Keys(r.periods)) {
		if keep(r.periods[k]) {
			out = append(out, r.periods[k])
		}
	}
	return out
}

// Periods implements policy.Roster.
func (r *Roster) Periods(_ context.Context, role policy.Role) ([]policy.Period, error) {
	return r.pick(func(p policy.Period) bool { return p.Role == role }), nil
}

// PeriodsOf implements policy.Roster.
func (r *Roster) PeriodsOf(_ context.Context, person teams.PersonID) ([]policy.Period, error) {
	return r.pick(func(p policy.Period) bool { return p.Person == person }), nil
}

// People implements policy.Roster.
func (r *Roster) People(_ context.Context, ids []teams.PersonID) (map[teams.PersonID]policy.Person, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[teams.PersonID]policy.Person{}
	for _, id := range ids {
		if p, ok := r.people[id]; ok {
			out[id] = p
		}
	}
	return out, nil
}

// Apply implements policy.Roster.
func (r *Roster) Apply(_ context.Context, c policy.Change) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.periods == nil {
		r.periods, r.people = map[string]policy.Period{}, map[teams.PersonID]policy.Person{}
	}
	for _, p := range c.People {
		r.people[p.ID] = p
	}
	for _, p := range slices.Concat(c.Closed, c.Opened) {
		p.From, p.To = p.From.UTC().Truncate(time.Millisecond), p.To.UTC().Truncate(time.Millisecond)
		key := fmt.Sprintf("%s_%s_%s_%d", p.Role, p.Desk, p.Person, p.From.UnixMilli())
		if was, known := r.periods[key]; known && (p.Open() || !was.Open()) {
			continue
		}
		r.periods[key] = p
	}
	return nil
}

// Tails is a short-lived store. Its zero value is empty and ready.
type Tails struct{ Blobs }
