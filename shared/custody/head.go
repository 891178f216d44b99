package custody

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Head is where a log stands. It is the one thing of a log that changes, and it changes
// only from a revision that was read: whoever loses a race changes nothing.
//
// A head that promises leaves (Next) fixes what the tree will hold before a tile of it is
// written. So whoever finds the promise, after a crash or in a race, writes the very
// same tiles, and a tile never has to be replaced.
type Head struct {
	Format string    `json:"format"`
	Size   int64     `json:"size"`
	Root   string    `json:"root"`           // hex
	Next   []Promise `json:"next,omitempty"` // what is being appended
	// From is the time before which every event is in the log or among Next. Events from
	// then on are there if Recent names them.
	From   time.Time `json:"from"`
	Recent []string  `json:"recent,omitempty"`
	Signed *Signed   `json:"signed,omitempty"` // the newest signed checkpoint
	// Witnessed is what each witness has got, by name.
	Witnessed map[string]Testimony `json:"witnessed,omitempty"`
	// Revoked are the fingerprints of keys whose revocation is in the trail.
	Revoked []string `json:"revoked,omitempty"`
}

// Promise is a record that is being appended to the log.
type Promise struct {
	ID     string `json:"id"`
	Digest string `json:"digest"` // hex
}

// Signed is a checkpoint with its signature.
type Signed struct {
	Text      string `json:"text"`
	Signature []byte `json:"signature"` // DER, ES256 over Text
	Key       string `json:"key"`       // the vault key that signed, with its version
	// PublicKey is the key's public half (DER of SubjectPublicKeyInfo), for convenience: who
	// verifies has it, or its fingerprint, from elsewhere.
	PublicKey []byte    `json:"publicKey"`
	At        time.Time `json:"at"`
}

// HeadFormat is the format of a head.
const HeadFormat = "steno-custody-head/1"

// ReadHead reads where a log stands, and the revision to change it from. A log that has
// not begun is a Head of size 0.
func ReadHead(ctx context.Context, tiles Tiles) (Head, string, error) {
	body, revision, err := tiles.Head(ctx)
	if err != nil {
		return Head{}, "", fmt.Errorf("read head of custody log: %w", err)
	}
	if revision == "" {
		return Head{Format: HeadFormat, Root: hex.EncodeToString(make([]byte, len(Digest{})))}, "", nil
	}
	var h Head
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		return Head{}, "", fmt.Errorf("read head of custody log: %w", err)
	}
	if h.Format != HeadFormat || h.Size < 0 {
		return Head{}, "", fmt.Errorf("read head of custody log: format %q, want %s", h.Format, HeadFormat)
	}
	return h, revision, nil
}

// SaveHead replaces the head that was read at revision; ErrMoved if it changed meanwhile.
func SaveHead(ctx context.Context, tiles Tiles, h Head, revision string) error {
	body, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("save head of custody log: %w", err)
	}
	if err := tiles.SwapHead(ctx, body, revision); err != nil {
		return fmt.Errorf("save head of custody log: %w", err)
	}
	return nil
}

// Checkpoint is the tree that the head points to, whether it was signed or not.
func (h Head) Checkpoint(origin string) (Checkpoint, error) {
	root, err := parseDigest(h.Root)
	return Checkpoint{Origin: origin, Size: h.Size, Root: root}, err
}

// Promised returns the leaves of Next.
func (h Head) Promised() ([]Digest, error) {
	out := make([]Digest, len(h.Next))
	var err error
	for i, p := range h.Next {
		if out[i], err = parseDigest(p.Digest); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// String is the digest in hex, as heads hold it.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

func parseDigest(s string) (Digest, error) {
	var d Digest
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(d) {
		return d, errors.New("head of custody log: want a digest of 64 hex digits")
	}
	copy(d[:], b)
	return d, nil
}

// Latest is the newest signed checkpoint of a log, verified.
func Latest(ctx context.Context, tiles Tiles, origin string, key *ecdsa.PublicKey) (Checkpoint, error) {
	h, _, err := ReadHead(ctx, tiles)
	if err != nil {
		return Checkpoint{}, err
	}
	if h.Signed == nil {
		return Checkpoint{}, errors.New("custody log: nothing was signed yet")
	}
	return VerifyCheckpoint(key, origin, []byte(h.Signed.Text), h.Signed.Signature)
}
