package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// trust is what came from outside the package.
type trust struct {
	key        string // fingerprint in lower-case hex, empty if none was given
	checkpoint []byte // text of an older checkpoint, nil if none was given
	signature  []byte // its signature, nil if none was given
}

// maxTrusted bounds the files that come from outside.
const maxTrusted = 4 << 10

// trustFrom reads what the command line names.
func trustFrom(key, checkpoint, signature string) (trust, error) {
	var t trust
	if key != "" {
		t.key = strings.ToLower(strings.NewReplacer(":", "", " ", "").Replace(key))
		if b, err := hex.DecodeString(t.key); err != nil || len(b) != 32 {
			return t, errors.New("-key: want the fingerprint, 64 hex digits")
		}
	}
	if checkpoint == "" {
		if signature != "" {
			return t, errors.New("-signature belongs to -checkpoint")
		}
		return t, nil
	}
	var err error
	if t.checkpoint, err = readTrusted(checkpoint); err != nil {
		return t, err
	}
	if signature != "" {
		t.signature, err = readTrusted(signature)
		return t, err
	}
	// The form in which checkpoints are kept: a fourth line is the signature.
	if lines := bytes.SplitAfter(t.checkpoint, []byte("\n")); len(lines) == 5 && len(lines[4]) == 0 {
		t.signature, err = base64.StdEncoding.DecodeString(string(bytes.TrimSuffix(lines[3], []byte("\n"))))
		if err != nil {
			return t, fmt.Errorf("-checkpoint: the fourth line is no signature in base64: %w", err)
		}
		t.checkpoint = bytes.Join(lines[:3], nil)
	}
	return t, nil
}

func readTrusted(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxTrusted+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > maxTrusted {
		return nil, fmt.Errorf("%s is neither a checkpoint nor a signature: more than %d bytes", name, maxTrusted)
	}
	return b, nil
}

// report is what verifying a package came to.
type report struct {
	steps   []string // what holds, in the order in which it was checked
	failed  string   // the step that does not hold
	failure error    // why not; names the file
	// doubts are the reasons for which everything holds and nothing is proven.
	doubts []string
}

func (r *report) hold(format string, args ...any) {
	r.steps = append(r.steps, fmt.Sprintf(format, args...))
}

func (r *report) doubt(format string, args ...any) {
	r.doubts = append(r.doubts, fmt.Sprintf(format, args...))
}

func (r *report) fail(step string, err error) { r.failed, r.failure = step, err }

// exitCode is that of section 5.
func (r *report) exitCode() int {
	switch {
	case r.failure != nil:
		return exitFailed
	case len(r.doubts) > 0:
		return exitUnverified
	}
	return exitVerified
}

// print writes a line a step, and the verdict last.
func (r *report) print(w io.Writer) {
	var b strings.Builder
	for _, s := range r.steps {
		fmt.Fprintf(&b, "ok    %s\n", s)
	}
	for _, d := range r.doubts {
		fmt.Fprintf(&b, "doubt %s\n", d)
	}
	switch r.exitCode() {
	case exitFailed:
		fmt.Fprintf(&b, "FAILED: %s: %v\n", r.failed, r.failure)
	case exitUnverified:
		fmt.Fprintf(&b, "UNVERIFIED: %s\n", strings.Join(r.doubts, "; "))
	default:
		b.WriteString("VERIFIED\n")
	}
	_, _ = io.WriteString(w, b.String()) // the exit code says the same
}
