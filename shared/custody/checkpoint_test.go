package custody_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"steno/shared/custody"
	"steno/shared/teams"
)

func TestACheckpointHasOneSpelling(t *testing.T) {
	c := custody.Checkpoint{Origin: custody.Origin("t"), Size: 42, Root: sha256.Sum256([]byte("root"))}
	text := string(c.Text())
	if got, err := custody.ParseCheckpoint(c.Origin, []byte(text)); err != nil || got != c {
		t.Fatalf("%+v, %v", got, err)
	}
	lines := strings.Split(text, "\n")
	for what, bad := range map[string]string{
		"empty": "", "no last line end": strings.TrimSuffix(text, "\n"), "one line more": text + "x\n", "signature appended": text + "\n— x y\n",
		"leading zero": strings.Replace(text, "42", "042", 1), "plus": strings.Replace(text, "42", "+42", 1), "negative": strings.Replace(text, "42", "-42", 1),
		"carriage returns": strings.ReplaceAll(text, "\n", "\r\n"), "short root": lines[0] + "\n42\nAAAA\n",
		"unpadded root": lines[0] + "\n42\n" + strings.TrimRight(lines[2], "=") + "\n", "root with loose bits": lines[0] + "\n42\n" + strings.Repeat("A", 42) + "B=\n",
		"another log": strings.Replace(text, "/t", "/u", 1), "huge": text + strings.Repeat("x", 2000),
	} {
		if _, err := custody.ParseCheckpoint(c.Origin, []byte(bad)); !errors.Is(err, custody.ErrProof) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestACheckpointUnderAnotherKeyTextOrLogIsRefused(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := custody.Checkpoint{Origin: custody.Origin(teams.TenantID("t")), Size: 7}
	sum := sha256.Sum256(c.Text())
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := custody.VerifyCheckpoint(&key.PublicKey, c.Origin, c.Text(), signature); err != nil || got != c {
		t.Fatalf("%+v, %v", got, err)
	}
	flipped := bytes.Clone(signature)
	flipped[len(flipped)-1] ^= 1
	larger := c
	larger.Size++
	for what, err := range map[string]error{
		"another key":       second(custody.VerifyCheckpoint(&other.PublicKey, c.Origin, c.Text(), signature)),
		"another size":      second(custody.VerifyCheckpoint(&key.PublicKey, c.Origin, larger.Text(), signature)),
		"another log":       second(custody.VerifyCheckpoint(&key.PublicKey, custody.Origin("u"), c.Text(), signature)),
		"flipped signature": second(custody.VerifyCheckpoint(&key.PublicKey, c.Origin, c.Text(), flipped)),
		"no signature":      second(custody.VerifyCheckpoint(&key.PublicKey, c.Origin, c.Text(), nil)),
	} {
		if !errors.Is(err, custody.ErrProof) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func second(_ custody.Checkpoint, err error) error { return err }

func FuzzCheckpoint(f *testing.F) {
	f.Add([]byte("steno-custody-log-v1/t\n42\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		origin := custody.Origin("t")
		c, err := custody.ParseCheckpoint(origin, text)
		if err == nil && !bytes.Equal(c.Text(), text) {
			t.Errorf("%q was read as %q", text, c.Text())
		}
	})
}
