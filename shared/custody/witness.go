package custody

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"steno/shared/teams"
)

// Witness keeps signed checkpoints where whoever operates the log cannot change them. That
// is what makes a rewritten history show: the log alone can be made again by its writer.
type Witness interface {
	// Keep is given a checkpoint of the log named origin. When it returns nil the witness
	// has it. It may be given the same one again, and may miss some.
	Keep(ctx context.Context, origin string, s Signed) error
}

// Testimony is what a witness has.
type Testimony struct {
	Size int64     `json:"size"` // of the newest checkpoint it took, 0 if none
	At   time.Time `json:"at"`   // when it took it, or was first asked
}

// Archive keeps every signed checkpoint as a file of write-once storage. In an account that
// the operator of the log does not control it is a witness; beside the log it is none, and
// serves to show any of them later.
type Archive struct{ Tiles Tiles }

// Keep writes the file "signed/SIZE": the checkpoint's three lines, and the signature in
// base64 as a fourth. A file that says otherwise of the same size is ErrSplitView.
func (a Archive) Keep(ctx context.Context, origin string, s Signed) error {
	c, err := ParseCheckpoint(origin, []byte(s.Text))
	if err != nil {
		return fmt.Errorf("keep checkpoint: %w", err)
	}
	name := fmt.Sprintf("signed/%d", c.Size)
	err = a.Tiles.Create(ctx, name, []byte(s.Text+base64.StdEncoding.EncodeToString(s.Signature)+"\n"))
	if errors.Is(err, ErrSplitView) {
		// Signed twice is no second history.
		stands, rerr := a.Tiles.Read(ctx, name)
		if rerr != nil {
			return fmt.Errorf("keep checkpoint of %d leaves: %w", c.Size, rerr)
		}
		if strings.HasPrefix(string(stands), s.Text) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("keep checkpoint of %d leaves: %w", c.Size, err)
	}
	return nil
}

// CutSigned takes a file that Archive keeps apart into the checkpoint's text, as it is
// signed, and the signature.
func CutSigned(b []byte) (text, signature []byte, err error) {
	lines := bytes.SplitAfter(b, []byte("\n"))
	if len(lines) != 5 || len(lines[4]) != 0 {
		return nil, nil, fmt.Errorf("signed checkpoint has not four lines: %w", ErrProof)
	}
	signature, err = base64.StdEncoding.Strict().DecodeString(string(bytes.TrimSuffix(lines[3], []byte("\n"))))
	if err != nil {
		return nil, nil, fmt.Errorf("signed checkpoint without a signature: %w", ErrProof)
	}
	return b[:len(b)-len(lines[3])], signature, nil
}

// Fingerprint is what a signing key is known by: the SHA-256 of its SubjectPublicKeyInfo
// (DER), in hex. It is what an outsider is told out of band.
func Fingerprint(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// KeyChange announces that another key signs checkpoints from now on. It is itself a record
// of the trail, so that whoever trusts the old key can follow to the new one.
type KeyChange struct {
	Origin       string
	From, To     string // fingerprints
	ByOld, ByNew []byte // ES256 (DER) over Text
}

// Text is what both keys sign. It begins as nothing else that is signed does.
func (k KeyChange) Text() []byte {
	return fmt.Appendf(nil, "steno-key-change-v1\n%s\n%s\n%s\n", k.Origin, k.From, k.To)
}

// Event is the announcement as an event of the trail.
func (k KeyChange) Event(tenant teams.TenantID) Event {
	return Event{
		Tenant: tenant, Action: KeyChanged, System: "sequencer", Item: k.To,
		Detail: fmt.Sprintf("from=%s old=%s new=%s", k.From, base64.StdEncoding.EncodeToString(k.ByOld), base64.StdEncoding.EncodeToString(k.ByNew)),
	}
}

// ReadKeyChange reads an announcement out of a record of the log named origin.
func ReadKeyChange(origin string, r Record) (KeyChange, error) {
	k := KeyChange{Origin: origin, To: r.Item}
	var old, now string
	fields := strings.Split(r.Detail, " ")
	ok := r.Action == KeyChanged && r.System == "sequencer" && len(fields) == 3
	for i, part := range []struct {
		lead string
		into *string
	}{{"from=", &k.From}, {"old=", &old}, {"new=", &now}} {
		if ok {
			*part.into, ok = strings.CutPrefix(fields[i], part.lead)
		}
	}
	if !ok {
		return k, fmt.Errorf("record %s announces no key: %w", r.ID, ErrProof)
	}
	var err1, err2 error
	k.ByOld, err1 = base64.StdEncoding.Strict().DecodeString(old)
	k.ByNew, err2 = base64.StdEncoding.Strict().DecodeString(now)
	if err1 != nil || err2 != nil {
		return k, fmt.Errorf("record %s announces a key without signatures: %w", r.ID, ErrProof)
	}
	return k, nil
}

// Check checks that the old key hands over to the new one, and the new one takes over. The
// keys are given as DER of SubjectPublicKeyInfo, and must be those the fingerprints name.
func (k KeyChange) Check(oldSPKI, newSPKI []byte) error {
	sum := sha256.Sum256(k.Text())
	for _, side := range []struct {
		name      string
		spki, sig []byte
	}{{k.From, oldSPKI, k.ByOld}, {k.To, newSPKI, k.ByNew}} {
		if Fingerprint(side.spki) != side.name {
			return fmt.Errorf("change to key %s: the key that is given for %s is another: %w", k.To, side.name, ErrProof)
		}
		key, err := ParseKey(side.spki)
		if err != nil {
			return err
		}
		if !ecdsa.VerifyASN1(key, sum[:], side.sig) {
			return fmt.Errorf("change to key %s: signature by %s: %w", k.To, side.name, ErrProof)
		}
	}
	return nil
}

// ParseKey reads a public signing key from the DER of its SubjectPublicKeyInfo: ECDSA on
// P-256, and nothing else.
func ParseKey(spki []byte) (*ecdsa.PublicKey, error) {
	any, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w: %w", ErrProof, err)
	}
	key, ok := any.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("signing key is not ECDSA on P-256: %w", ErrProof)
	}
	return key, nil
}
