package evidence

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"steno/shared/evidence/internal/envelope"
	"steno/shared/teams"
)

// wrapAlg is the only algorithm a wrapped key may name: OAEP with SHA-256. SHA-1
// and PKCS#1 v1.5 variants are refused rather than negotiated.
const wrapAlg = "RSA-OAEP-256"

// vaultKeyPath is the path of one version of a vault key.
// https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates
var vaultKeyPath = regexp.MustCompile(`^/keys/[0-9A-Za-z-]{1,127}/[0-9A-Za-z]{1,64}$`)

type cachedKey struct {
	key   *envelope.Key
	until time.Time
}

// writingKey returns this process's key for a unit. A writer cannot unwrap, so each
// process draws keys of its own; a unit may have several, and each object names its.
func (s *Store) writingKey(ctx context.Context, ref Ref) (*envelope.Key, error) {
	id := string(ref.Tenant) + "/" + ref.Unit
	if k := s.cached(s.writing, id); k != nil {
		return k, nil
	}
	vaultKey, public, err := s.c.Vault.WrappingKey(ctx)
	if err != nil {
		return nil, fmt.Errorf("read wrapping key: %w", err)
	}
	k := envelope.NewKey()
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, k.Secret(), nil)
	if err != nil {
		return nil, fmt.Errorf("wrap conversation key: %w", err)
	}
	kid := k.ID()
	row := WrappedKey{
		Tenant: ref.Tenant, Unit: ref.Unit, ID: hex.EncodeToString(kid[:]),
		Vault: vaultKey, Alg: wrapAlg, Wrapped: wrapped, MadeAt: s.c.Now().UTC(),
	}
	if err := s.acceptable(row, ref.Tenant, ref.Unit, row.ID); err != nil {
		return nil, err // what this store would not unwrap must not be sealed under
	}
	if s.c.Recovery != nil {
		// The copy travels in the row: it costs no request here, and is durable with it.
		if row.Escrow, err = s.c.Recovery.wrap(ref.Tenant, ref.Unit, k); err != nil {
			return nil, err
		}
	}
	if err := s.c.Keys.Insert(ctx, row); err != nil {
		return nil, fmt.Errorf("store conversation key: %w", err)
	}
	return s.keep(s.writing, id, k), nil
}

// readingKey fetches and unwraps the key an object names. Of those who want the same key at
// the same time one asks the vault: each unwrap costs, and has to be explained.
func (s *Store) readingKey(ctx context.Context, tenant teams.TenantID, unit string, kid [envelope.IDSize]byte) (*envelope.Key, error) {
	name := hex.EncodeToString(kid[:])
	id := string(tenant) + "/" + unit + "/" + name
	for {
		if k := s.cached(s.reading, id); k != nil {
			return k, nil
		}
		s.mu.Lock()
		other, busy := s.asking[id]
		if !busy {
			s.asking[id] = make(chan struct{})
		}
		s.mu.Unlock()
		if !busy {
			break
		}
		select {
		case <-other: // it has the key now, or failed and it is our turn to ask
		case <-ctx.Done():
			return nil, fmt.Errorf("read conversation key: %w", ctx.Err())
		}
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		close(s.asking[id])
		delete(s.asking, id)
	}()
	if k := s.cached(s.reading, id); k != nil {
		return k, nil // another one was done between our look and our turn
	}
	row, err := s.c.Keys.Get(ctx, tenant, unit, name)
	if err != nil {
		return nil, fmt.Errorf("read conversation key: %w", err)
	}
	if err := s.acceptable(row, tenant, unit, name); err != nil {
		return nil, err
	}
	secret, err := s.c.Vault.Unwrap(ctx, row.Vault, row.Alg, row.Wrapped)
	if err != nil {
		return nil, fmt.Errorf("unwrap conversation key: %w", err)
	}
	defer clear(secret)
	k, err := envelope.KeyFrom(kid, secret)
	if err != nil {
		return nil, err
	}
	return s.keep(s.reading, id, k), nil
}

// acceptable refuses a row before the vault is asked: whoever can write the table
// must not be able to choose the vault, the algorithm or the unit.
func (s *Store) acceptable(row WrappedKey, tenant teams.TenantID, unit, name string) error {
	if row.Tenant != tenant || row.Unit != unit || row.ID != name {
		return fmt.Errorf("%w: the row speaks of another key", ErrKey)
	}
	if row.Alg != wrapAlg {
		return fmt.Errorf("%w: algorithm %q, want %s", ErrKey, row.Alg, wrapAlg)
	}
	u, err := url.Parse(row.Vault)
	if err != nil || u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%w: vault key id is not a plain https URL", ErrKey)
	}
	if !vaultKeyPath.MatchString(u.EscapedPath()) {
		return fmt.Errorf("%w: vault key id names no version of a key", ErrKey)
	}
	for _, h := range s.c.VaultHosts {
		if strings.EqualFold(u.Host, h) {
			return nil
		}
	}
	return fmt.Errorf("%w: vault host is not one of ours", ErrKey)
}

func (s *Store) cached(m map[string]cachedKey, id string) *envelope.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := m[id]
	if !ok || !s.c.Now().Before(c.until) {
		return nil
	}
	return c.key
}

// keep remembers a key, dropping one that is past its time or any other when full.
// Dropped keys are left to the collector, since somebody may be using them.
func (s *Store) keep(m map[string]cachedKey, id string, k *envelope.Key) *envelope.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.c.Now()
	if c, ok := m[id]; ok && now.Before(c.until) {
		return c.key
	}
	if len(m) >= KeyCacheSize {
		victim := ""
		for i, c := range m {
			victim = i
			if !now.Before(c.until) {
				break
			}
		}
		delete(m, victim)
	}
	m[id] = cachedKey{key: k, until: now.Add(KeyCacheTTL)}
	return k
}
