package custody

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
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
