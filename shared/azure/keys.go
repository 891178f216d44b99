package azure

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"steno/shared/evidence"
	"steno/shared/teams"
)

// Keys keeps wrapped conversation keys: partition TENANT-UNIT, RowKey the key's id.
type Keys struct{ t *aztables.Client }

// NewKeys returns the key store over a table that exists.
func NewKeys(s *aztables.ServiceClient) *Keys { return &Keys{t: s.NewClient(TableKeys)} }

func keyPartition(tenant teams.TenantID, unit string) string { return string(tenant) + "-" + unit }

// Insert costs one operation.
func (k *Keys) Insert(ctx context.Context, w evidence.WrappedKey) error {
	data, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("insert key: %w", err)
	}
	err = insert(ctx, k.t, row{PartitionKey: keyPartition(w.Tenant, w.Unit), RowKey: w.ID, Data: data})
	if errors.Is(err, errConflict) {
		return evidence.ErrExists
	}
	return err
}

// Get costs one operation.
func (k *Keys) Get(ctx context.Context, tenant teams.TenantID, unit, id string) (evidence.WrappedKey, error) {
	var w evidence.WrappedKey
	e, err := k.t.GetEntity(ctx, keyPartition(tenant, unit), id, nil)
	if isNotFound(err) {
		return w, evidence.ErrNotFound
	}
	if err != nil {
		return w, fmt.Errorf("read key: %w", hide(err))
	}
	var r row
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return w, fmt.Errorf("read key: %w", err)
	}
	if err := json.Unmarshal(r.Data, &w); err != nil {
		return w, fmt.Errorf("read key: %w", err)
	}
	return w, nil
}

// List costs one query for every 1,000 keys.
func (k *Keys) List(ctx context.Context, tenant teams.TenantID, unit string) ([]evidence.WrappedKey, error) {
	var out []evidence.WrappedKey
	err := scan(ctx, k.t, prefix(keyPartition(tenant, unit), ""), 1000, func(r row) (bool, error) {
		var w evidence.WrappedKey
		if err := json.Unmarshal(r.Data, &w); err != nil {
			return false, fmt.Errorf("read key: %w", err)
		}
		w.ID = r.RowKey // what is listed is what can be deleted, whatever the row says of itself
		out = append(out, w)
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	return out, nil
}

// Since costs one query for every 1,000 keys that it finds, and one for every stretch of
// the table in which storage found none: storage looks through all of the tenant's rows.
// https://learn.microsoft.com/rest/api/storageservices/query-timeout-and-pagination
func (k *Keys) Since(ctx context.Context, tenant teams.TenantID, since time.Time, f func(evidence.WrappedKey) error) error {
	rows := storedSince{string(tenant) + "-", since}
	err := query(ctx, k.t, rows.filter(), 1000, func(r row) (bool, error) {
		var w evidence.WrappedKey
		if err := json.Unmarshal(r.Data, &w); err != nil {
			w = evidence.WrappedKey{}
		}
		w.Tenant, w.Unit, w.ID = tenant, strings.TrimPrefix(r.PartitionKey, rows.partitions), r.RowKey
		return true, f(w)
	})
	if err != nil {
		return fmt.Errorf("list keys: %w", err)
	}
	return nil
}

// Delete costs one operation.
func (k *Keys) Delete(ctx context.Context, tenant teams.TenantID, unit, id string) error {
	return remove(ctx, k.t, keyPartition(tenant, unit), id)
}

// Vault wraps with a Key Vault key. The public half is cached, so wrapping costs
// nothing; an unwrap is one vault operation and one line in the vault's log.
type Vault struct {
	c    *azkeys.Client
	name string

	mu     sync.Mutex
	id     string
	public *rsa.PublicKey
	until  time.Time
}

// wrappingKeyTTL is how long the current version is believed to be current. Older
// versions stay enabled for unwrapping as long as anything lives under them.
const wrappingKeyTTL = time.Hour

// NewVault returns the vault's part for the named RSA key.
func NewVault(c *azkeys.Client, name string) *Vault { return &Vault{c: c, name: name} }

// WrappingKey asks the vault at most once an hour.
func (v *Vault) WrappingKey(ctx context.Context) (string, *rsa.PublicKey, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.public != nil && time.Now().Before(v.until) {
		return v.id, v.public, nil
	}
	k, err := v.c.GetKey(ctx, v.name, "", nil)
	if err != nil {
		return "", nil, fmt.Errorf("read vault key %s: %w", v.name, hide(err))
	}
	if k.Key == nil || k.Key.KID == nil || k.Key.Kty == nil ||
		(*k.Key.Kty != azkeys.KeyTypeRSA && *k.Key.Kty != azkeys.KeyTypeRSAHSM) || len(k.Key.E) > 4 {
		return "", nil, fmt.Errorf("read vault key %s: not an RSA key", v.name)
	}
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(k.Key.N), E: int(new(big.Int).SetBytes(k.Key.E).Int64())}
	if public.N.BitLen() < 2048 {
		return "", nil, fmt.Errorf("read vault key %s: %d bits, want 2048 or more", v.name, public.N.BitLen())
	}
	v.id, v.public, v.until = string(*k.Key.KID), public, time.Now().Add(wrappingKeyTTL)
	return v.id, v.public, nil
}

// Unwrap sends the key's own name and version to the vault this client was made for,
// and to no other.
func (v *Vault) Unwrap(ctx context.Context, id, alg string, wrapped []byte) ([]byte, error) {
	kid := azkeys.ID(id)
	r, err := v.c.UnwrapKey(ctx, kid.Name(), kid.Version(), azkeys.KeyOperationParameters{
		Algorithm: to.Ptr(azkeys.EncryptionAlgorithm(alg)), Value: wrapped,
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("unwrap with %s: %w", kid.Name(), hide(err))
	}
	return r.Result, nil
}
