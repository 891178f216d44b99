package sequencer

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"steno/shared/custody"
)

// ErrRevoked is returned while the key that the vault signs with is revoked. The log grows
// meanwhile, and nothing is signed. A new version is seen when a Signer asks the vault again.
var ErrRevoked = errors.New("the newest version of the signing key is revoked: make a new one in the vault")

// Signer signs checkpoints. Signing the same twice gives two signatures: nothing may
// depend on their bytes.
type Signer interface {
	// SigningKey returns the key to sign with now: its id, and the public key.
	SigningKey(ctx context.Context) (id string, key *ecdsa.PublicKey, err error)
	// Sign returns an ES256 signature (DER) over a SHA-256 by that key.
	Sign(ctx context.Context, id string, digest [sha256.Size]byte) ([]byte, error)
}

// signer is the key to sign with now.
type signer struct {
	id          string
	public      []byte // DER of SubjectPublicKeyInfo
	fingerprint string
}

func (s *Sequencer) key(ctx context.Context) (signer, error) {
	id, key, err := s.signer.SigningKey(ctx)
	if err != nil {
		return signer{}, fmt.Errorf("signing key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return signer{}, fmt.Errorf("signing key: %w", err)
	}
	k := signer{id, public, custody.Fingerprint(public)}
	if slices.Contains(s.c.Revoked, k.fingerprint) {
		s.log.ErrorContext(ctx, "custody checkpoints are not signed", slog.String("alarm", "signing-key"), slog.String("revoked", k.fingerprint))
		return signer{}, fmt.Errorf("signing key %s: %w", k.fingerprint, ErrRevoked)
	}
	return k, nil
}

// sign signs where the log stands, if that is new and the last signature is old enough, or
// by a key that was revoked since. What is to be said of keys comes first.
func (s *Sequencer) sign(ctx context.Context, head custody.Head, revision string) (changed bool, err error) {
	at, err := head.Checkpoint(s.origin)
	if err != nil || head.Size == 0 {
		return false, err
	}
	now, text := s.c.Now().UTC(), at.Text()
	void := head.Signed != nil && slices.Contains(s.c.Revoked, custody.Fingerprint(head.Signed.PublicKey))
	due := void || head.Signed == nil || head.Signed.Text != string(text) && now.Sub(head.Signed.At) >= s.c.SignEvery
	told := !slices.ContainsFunc(s.c.Revoked, func(f string) bool { return !slices.Contains(head.Revoked, f) })
	if !due && told {
		return false, nil
	}
	k, err := s.key(ctx)
	if err != nil {
		return false, err
	}
	if !told {
		return true, s.revoke(ctx, head, revision, at, k)
	}
	if head.Signed != nil && head.Signed.Key != k.id && !void {
		if err := s.announce(ctx, head.Signed, k); err != nil {
			return false, err
		}
	}
	signature, err := s.signer.Sign(ctx, k.id, sha256.Sum256(text))
	if err != nil {
		return false, fmt.Errorf("sign checkpoint of %d leaves: %w", at.Size, err)
	}
	head.Signed = &custody.Signed{Text: string(text), Signature: signature, Key: k.id, PublicKey: k.public, At: now}
	if err := custody.SaveHead(ctx, s.tiles, head, revision); err != nil {
		return false, err
	}
	s.log.Info("custody checkpoint signed", slog.Int64("leaves", at.Size))
	return true, nil
}

// announce puts into the trail that another key signs from now on, signed by the old key
// and by the new one. It comes before the new key signs anything else; a run that dies
// behind it announces again.
func (s *Sequencer) announce(ctx context.Context, was *custody.Signed, k signer) error {
	change := custody.KeyChange{Origin: s.origin, From: custody.Fingerprint(was.PublicKey), To: k.fingerprint}
	digest := sha256.Sum256(change.Text())
	var err error
	if change.ByOld, err = s.signer.Sign(ctx, was.Key, digest); err != nil {
		return fmt.Errorf("announce signing key %s by the key before it, which must stay enabled until then or be revoked: %w", change.To, err)
	}
	if change.ByNew, err = s.signer.Sign(ctx, k.id, digest); err != nil {
		return fmt.Errorf("announce signing key %s: %w", change.To, err)
	}
	if _, err := (custody.Log{Trail: s.trail, Now: s.c.Now}).Append(ctx, change.Event(s.c.Tenant)); err != nil {
		return fmt.Errorf("announce signing key %s: %w", change.To, err)
	}
	s.log.Warn("custody checkpoints are signed by another key", slog.String("from", change.From), slog.String("to", change.To))
	return nil
}

// revoke puts into the trail what is revoked and was not told yet, signed by the key that
// signs now. A run that dies behind it tells it again; the first telling counts.
func (s *Sequencer) revoke(ctx context.Context, head custody.Head, revision string, at custody.Checkpoint, k signer) error {
	head.Revoked = slices.Clone(head.Revoked)
	for _, f := range s.c.Revoked {
		if slices.Contains(head.Revoked, f) {
			continue
		}
		r := custody.KeyRevocation{Key: f, By: k.fingerprint, Tree: at}
		var err error
		if r.Signature, err = s.signer.Sign(ctx, k.id, sha256.Sum256(r.Text())); err != nil {
			return fmt.Errorf("revoke signing key %s: %w", f, err)
		}
		if _, err := (custody.Log{Trail: s.trail, Now: s.c.Now}).Append(ctx, r.Event(s.c.Tenant)); err != nil {
			return fmt.Errorf("revoke signing key %s: %w", f, err)
		}
		s.log.WarnContext(ctx, "a signing key is revoked", slog.String("key", f), slog.String("by", k.fingerprint), slog.Int64("leaves", at.Size))
		head.Revoked = append(head.Revoked, f)
	}
	return custody.SaveHead(ctx, s.tiles, head, revision)
}
