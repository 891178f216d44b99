package world

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"steno/shared/evidence"
)

// recoverer is the key of those who would restore a lost key table. The app and the bot are
// told its public half.
var recoverer = sync.OnceValues(func() (*rsa.PrivateKey, error) {
	return rsa.GenerateKey(rand.Reader, evidence.MinRecoveryBits)
})

// recoveryKey is the setting STENO_RECOVERY_KEY.
func recoveryKey() (string, error) {
	key, err := recoverer()
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(der), nil
}

// EscrowReport is what became of a key table that was lost.
type EscrowReport struct {
	Lost     int `json:"lost"`     // keys of conversations whose rows were deleted
	Restored int `json:"restored"` // of these, those that the recovery key brought back
}

// OK tells whether there were keys and all came back.
func (r EscrowReport) OK() bool { return r.Lost > 0 && r.Restored == r.Lost }

// LoseKeys lets retention bring the copies of keys to write-once storage, deletes every row
// of a conversation's key, and restores them as those do who hold the recovery key.
func (w *World) LoseKeys(ctx context.Context, a *Archive) (r EscrowReport, err error) {
	if err := w.Host.RunTimer(ctx, "retention"); err != nil {
		return r, err
	}
	var rows []evidence.WrappedKey
	err = a.keys.Since(ctx, a.tenant, time.Time{}, func(k evidence.WrappedKey) error {
		if !strings.HasPrefix(k.Unit, "export-") && !strings.HasPrefix(k.Unit, "notify-") { // both can be made again
			rows = append(rows, k)
		}
		return nil
	})
	if err != nil {
		return r, err
	}
	var g errgroup.Group
	g.SetLimit(8)
	for _, k := range rows {
		g.Go(func() error { return a.keys.Delete(ctx, k.Tenant, k.Unit, k.ID) })
	}
	if err := g.Wait(); err != nil {
		return r, err
	}
	r.Lost = len(rows)
	key, err := recoverer()
	if err != nil {
		return r, err
	}
	open, err := evidence.OpenWith(key)
	if err != nil {
		return r, err
	}
	done, err := evidence.Recovery{Tenant: a.tenant, Objects: a.objects, Keys: a.keys, Vault: a.vault, Open: open}.Run(ctx, "")
	r.Restored = done.Restored
	if err != nil {
		return r, fmt.Errorf("restore keys: %w", err)
	}
	return r, nil
}
