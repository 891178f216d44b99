package custody

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"steno/shared/teams"
)

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
	if !r.says(KeyChanged, detail{"from=", &k.From}, detail{"old=", &old}, detail{"new=", &now}) {
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

// KeyRevocation says that a signing key may be in the wrong hands. It is signed by another
// key of the log, since nothing that the revoked one signs counts any more, and fixes what
// does count of that which it signed before: checkpoints of which Tree is a continuation.
type KeyRevocation struct {
	Key, By   string     // fingerprints: what is revoked, and who says so
	Tree      Checkpoint // where the log stood
	Signature []byte     // ES256 (DER) of By over Text
}

// Text is what is signed. It begins as nothing else that is signed does.
func (k KeyRevocation) Text() []byte {
	return fmt.Appendf(nil, "steno-key-revoked-v1\n%s\n%s\n%s\n%d\n%s\n", k.Tree.Origin, k.Key, k.By, k.Tree.Size, k.Tree.Root)
}

// Event is the revocation as an event of the trail.
func (k KeyRevocation) Event(tenant teams.TenantID) Event {
	return Event{
		Tenant: tenant, Action: KeyRevoked, System: "sequencer", Item: k.Key,
		Detail: fmt.Sprintf("by=%s size=%d root=%s signature=%s", k.By, k.Tree.Size, k.Tree.Root, base64.StdEncoding.EncodeToString(k.Signature)),
	}
}

// ReadKeyRevocation reads a revocation out of a record of the log named origin.
func ReadKeyRevocation(origin string, r Record) (KeyRevocation, error) {
	k := KeyRevocation{Key: r.Item, Tree: Checkpoint{Origin: origin}}
	var size, root, signature string
	ok := r.says(KeyRevoked, detail{"by=", &k.By}, detail{"size=", &size}, detail{"root=", &root}, detail{"signature=", &signature})
	if ok {
		var err1, err2, err3 error
		k.Tree.Size, err1 = strconv.ParseInt(size, 10, 64)
		k.Tree.Root, err2 = parseDigest(root)
		k.Signature, err3 = base64.StdEncoding.Strict().DecodeString(signature)
		ok = errors.Join(err1, err2, err3) == nil
	}
	if !ok || k.Tree.Size < 0 {
		return k, fmt.Errorf("record %s revokes no key: %w", r.ID, ErrProof)
	}
	return k, nil
}

// Check checks that the key given as DER of SubjectPublicKeyInfo, which must be another
// than the revoked one, signed the revocation.
func (k KeyRevocation) Check(spki []byte) error {
	if k.Key == k.By || Fingerprint(spki) != k.By {
		return fmt.Errorf("revocation of key %s: it is not by the key that is given: %w", k.Key, ErrProof)
	}
	key, err := ParseKey(spki)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(k.Text())
	if !ecdsa.VerifyASN1(key, sum[:], k.Signature) {
		return fmt.Errorf("revocation of key %s: signature by %s: %w", k.Key, k.By, ErrProof)
	}
	return nil
}

// detail is a part of a record's detail: what it begins with, and where the rest goes.
type detail struct {
	lead string
	into *string
}

// says reads the parts of the detail of a record that the sequencer wrote.
func (r Record) says(action Action, parts ...detail) bool {
	fields := strings.Split(r.Detail, " ")
	ok := r.Action == action && r.System == "sequencer" && len(fields) == len(parts)
	for i, part := range parts {
		if ok {
			*part.into, ok = strings.CutPrefix(fields[i], part.lead)
		}
	}
	return ok
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
