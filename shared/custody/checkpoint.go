package custody

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"steno/shared/teams"
)

// Digest is what the log holds of one thing: 32 bytes that commit to it and tell nothing
// about it.
type Digest [sha256.Size]byte

// Errors of verification. Each is a finding and not a fault of the connection.
var (
	// ErrProof says that a proof, a signature or a tile does not show what it should.
	ErrProof = errors.New("proof does not hold")
	// ErrRollback says that a log shows less than it once had signed.
	ErrRollback = errors.New("log was rolled back")
	// ErrSplitView says that two checkpoints of one log cannot both be true.
	ErrSplitView = errors.New("log shows two histories")
)

// Digest commits to a record: SHA-256 of "steno-custody-event-v1\0" and the record's
// canonical JSON (Encode), which is what is stored. The record's id holds 64 random bits, so that nobody can find a
// record by guessing what it says.
func (r Record) Digest() (Digest, error) {
	b, err := r.Encode()
	if err != nil {
		return Digest{}, fmt.Errorf("digest of custody record: %w", err)
	}
	return sha256.Sum256(append([]byte("steno-custody-event-v1\x00"), b...)), nil
}

// Checkpoint is what a log says of itself: how many leaves it has, and the root of the
// Merkle tree (RFC 6962 section 2.1) over them.
type Checkpoint struct {
	Origin string // which log: the first line of everything that is signed for it
	Size   int64
	Root   Digest
}

// Origin names the custody log of a tenant. It is also the context of its signatures: a
// signature over a checkpoint can never pass as one over something else.
func Origin(tenant teams.TenantID) string { return "steno-custody-log-v1/" + string(tenant) }

// Text is the checkpoint as it is signed and published: the three lines of a C2SP
// tlog-checkpoint body, origin, size, and root in base64.
func (c Checkpoint) Text() []byte {
	return fmt.Appendf(nil, "%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// ParseCheckpoint reads a checkpoint of the log named origin. It accepts exactly the
// bytes that Text makes: a second spelling of the same checkpoint is refused.
func ParseCheckpoint(origin string, text []byte) (Checkpoint, error) {
	c := Checkpoint{Origin: origin}
	if len(text) > 1024 {
		return c, fmt.Errorf("checkpoint of %d bytes: %w", len(text), ErrProof)
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) != 4 || lines[0] != origin {
		return c, fmt.Errorf("checkpoint of another log, or none: %w", ErrProof)
	}
	var err error
	if c.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || c.Size < 0 {
		return c, fmt.Errorf("checkpoint without a size: %w", ErrProof)
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != len(c.Root) {
		return c, fmt.Errorf("checkpoint without a root: %w", ErrProof)
	}
	copy(c.Root[:], root)
	if string(c.Text()) != string(text) {
		return c, fmt.Errorf("checkpoint in another spelling: %w", ErrProof)
	}
	return c, nil
}

// VerifyCheckpoint checks an ES256 signature (DER) over a checkpoint's text and reads it.
// The key must come from outside: a log cannot vouch for itself.
func VerifyCheckpoint(key *ecdsa.PublicKey, origin string, text, signature []byte) (Checkpoint, error) {
	sum := sha256.Sum256(text)
	if !ecdsa.VerifyASN1(key, sum[:], signature) {
		return Checkpoint{}, fmt.Errorf("signature of checkpoint: %w", ErrProof)
	}
	return ParseCheckpoint(origin, text)
}

// CheckInclusion checks that a digest is the leaf of that index in the log.
func CheckInclusion(c Checkpoint, index int64, d Digest, proof []Digest) error {
	if index < 0 || index >= c.Size {
		return fmt.Errorf("leaf %d of a log of %d: %w", index, c.Size, ErrProof)
	}
	if err := tlog.CheckRecord(hashes(proof), c.Size, tlog.Hash(c.Root), index, tlog.RecordHash(d[:])); err != nil {
		return fmt.Errorf("leaf %d of a log of %d: %w", index, c.Size, ErrProof)
	}
	return nil
}

// CheckConsistency checks that everything the older checkpoint of a log covers is still
// there, unchanged and in place, in the newer one.
func CheckConsistency(older, newer Checkpoint, proof []Digest) error {
	switch {
	case older.Origin != newer.Origin:
		return fmt.Errorf("checkpoints of %q and %q: %w", older.Origin, newer.Origin, ErrProof)
	case newer.Size < older.Size:
		return fmt.Errorf("from %d leaves to %d: %w", older.Size, newer.Size, ErrRollback)
	case newer.Size == older.Size && newer.Root != older.Root:
		return fmt.Errorf("roots %s and %s at %d leaves: %w", older.Root, newer.Root, older.Size, ErrSplitView)
	case newer.Size == older.Size || older.Size == 0:
		return nil
	}
	if err := tlog.CheckTree(hashes(proof), newer.Size, tlog.Hash(newer.Root), older.Size, tlog.Hash(older.Root)); err != nil {
		return fmt.Errorf("root %s at %d leaves and %s at %d: %w", older.Root, older.Size, newer.Root, newer.Size, ErrSplitView)
	}
	return nil
}

func hashes(ds []Digest) []tlog.Hash {
	out := make([]tlog.Hash, len(ds))
	for i, d := range ds {
		out[i] = tlog.Hash(d)
	}
	return out
}

func digests(hs []tlog.Hash) []Digest {
	out := make([]Digest, len(hs))
	for i, h := range hs {
		out[i] = Digest(h)
	}
	return out
}
