package world

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math"
	"net/url"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/shared/azure"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/teams"
)

// CustodyReport is how the custody trail compares with its log.
type CustodyReport struct {
	Events   int   `json:"events"`
	Leaves   int64 `json:"leaves"`
	Unlogged int   `json:"unlogged"`
	Orphans  int   `json:"orphans"`
	Signed   int64 `json:"signed"`  // leaves under the newest signed checkpoint
	Witness  int64 `json:"witness"` // leaves under the newest checkpoint that the witness has
	Seals    int   `json:"seals"`   // manifests of recordings that the log binds
	Changed  int   `json:"changed"` // of these, those that storage gives back otherwise
	Alarms   int   `json:"alarms"`  // that reading evidence again has raised
}

// OK tells whether the log holds each event, nothing else, and a signature over it.
func (r CustodyReport) OK() bool {
	return r.Unlogged == 0 && r.Orphans == 0 && r.Changed == 0 && r.Alarms == 0 && r.Events > 0 && r.Leaves == int64(r.Events) && r.Signed > 0 && r.Witness == r.Signed
}

// Log is where the custody log lies.
func (w *World) Log() (*azure.Tiles, error) { return w.tiles(Custody, Heads) }

func (w *World) tiles(files, heads string) (*azure.Tiles, error) {
	var clients [2]*container.Client
	for i, name := range []string{files, heads} {
		c, err := container.NewClient(w.Storage.BlobURL+"/"+name, w.Credential, &container.ClientOptions{
			ClientOptions: azcore.ClientOptions{Transport: w.CA.Client()},
		})
		if err != nil {
			return nil, err
		}
		clients[i] = c
	}
	return azure.NewTiles(teams.TenantID(w.Tenant.ID()), clients[0], clients[1]), nil
}

// witnessed reads the checkpoint of that size where the witness keeps it, and verifies it.
func (w *World) witnessed(ctx context.Context, origin string, size int64, key *ecdsa.PublicKey) (custody.Checkpoint, error) {
	tiles, err := w.tiles(Witness, Witness)
	if err != nil {
		return custody.Checkpoint{}, err
	}
	b, err := tiles.Read(ctx, fmt.Sprintf("signed/%d", size))
	if err != nil {
		return custody.Checkpoint{}, fmt.Errorf("witness: %w", err)
	}
	text, rest, err := custody.CutSigned(b)
	if err != nil {
		return custody.Checkpoint{}, fmt.Errorf("witness: %w", err)
	}
	return custody.VerifyCheckpoint(key, origin, text, rest)
}

// Signer is the vault's signing key, as an outsider who is shown the vault sees it.
func (w *World) Signer() (*azure.Signer, error) {
	vault, err := url.Parse(w.VaultURL)
	if err != nil {
		return nil, err
	}
	keys, err := azkeys.NewClient(w.VaultURL, w.Credential, &azkeys.ClientOptions{
		ClientOptions: azcore.ClientOptions{Transport: w.CA.Client()}, DisableChallengeResourceVerification: true,
	})
	if err != nil {
		return nil, err
	}
	return azure.NewSigner(keys, SignKey, []string{vault.Host}), nil
}

// CheckCustody lets the sequencer run and compares trail and log. Events that become
// durable meanwhile are waited for.
func (w *World) CheckCustody(ctx context.Context, a *Archive) (CustodyReport, error) {
	tiles, err := w.Log()
	if err != nil {
		return CustodyReport{}, err
	}
	signer, err := w.Signer()
	if err != nil {
		return CustodyReport{}, err
	}
	_, key, err := signer.SigningKey(ctx)
	if err != nil {
		return CustodyReport{}, err
	}
	origin := custody.Origin(teams.TenantID(w.Tenant.ID()))
	var r CustodyReport
	for _, timer := range []string{"sequencer", "fixity"} { // seals are compared with their leaves
		if err := w.Host.RunTimer(ctx, timer); err != nil {
			return r, err
		}
	}
	for range 5 {
		if err := w.Host.RunTimer(ctx, "sequencer"); err != nil {
			return r, err
		}
		head, _, err := custody.ReadHead(ctx, tiles)
		if err != nil {
			return r, err
		}
		at, err := head.Checkpoint(origin)
		if err != nil {
			return r, err
		}
		now := time.Now()
		f, err := custody.Audit(ctx, a.Trail.Trail, custody.NewTree(tiles, at), now.Add(-24*time.Hour), now.Add(time.Hour))
		if err != nil {
			return r, err
		}
		signed, err := custody.Latest(ctx, tiles, origin, key)
		if err != nil {
			return r, err
		}
		proof, err := custody.NewTree(tiles, at).ProveConsistency(ctx, signed.Size)
		if err != nil {
			return r, err
		}
		if err := custody.CheckConsistency(signed, at, proof); err != nil {
			return r, fmt.Errorf("signed checkpoint and head: %w", err)
		}
		witnessed, err := w.witnessed(ctx, origin, signed.Size, key)
		if err != nil {
			return r, err
		}
		r = CustodyReport{Witness: witnessed.Size, Events: f.Records, Leaves: f.Leaves, Unlogged: len(f.Unlogged), Orphans: len(f.Orphans), Signed: signed.Size}
		if r.Unlogged == 0 {
			break
		}
	}
	return r, a.checkSeals(ctx, &r)
}

// checkSeals compares each manifest that the trail speaks of with what is stored.
func (a *Archive) checkSeals(ctx context.Context, r *CustodyReport) error {
	records, err := a.Trail.Trail.Range(ctx, time.Now().Add(-24*time.Hour), time.Now().Add(time.Hour), math.MaxInt32)
	if err != nil {
		return err
	}
	for _, e := range records {
		if e.Action == custody.FixityAlarm {
			r.Alarms++
		}
		if e.Action != custody.Sealed {
			continue
		}
		for _, o := range e.Objects {
			if o.Void {
				continue
			}
			r.Seals++
			_, digest, err := a.Evidence.Digest(ctx, evidence.Ref{Tenant: e.Tenant, Unit: o.Unit, Object: o.Object})
			if err != nil {
				return err
			}
			if hex.EncodeToString(digest[:]) != o.SHA256 {
				r.Changed++
			}
		}
	}
	return nil
}

// Fingerprint is what the company behind the world publishes of its signing key.
func (w *World) Fingerprint(ctx context.Context) (string, error) {
	signer, err := w.Signer()
	if err != nil {
		return "", err
	}
	_, key, err := signer.SigningKey(ctx)
	if err != nil {
		return "", err
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	return custody.Fingerprint(spki), nil
}
