package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// signingKey reads the one key of the package and returns its fingerprint.
func (p *pkg) signingKey() (*ecdsa.PublicKey, string, error) {
	names := p.under("keys/")
	if len(names) != 1 {
		return nil, "", fmt.Errorf("keys/: %d files, want the one key that signed", len(names))
	}
	name := names[0]
	b, err := p.read(name, maxMessage)
	if err != nil {
		return nil, "", err
	}
	block, rest := pem.Decode(b)
	if block == nil || len(rest) != 0 || block.Type != "PUBLIC KEY" || !bytes.Equal(pem.EncodeToMemory(block), b) {
		return nil, "", fmt.Errorf("%s: not a public key in PEM alone", name)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", name, err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, "", fmt.Errorf("%s: not a key on P-256", name)
	}
	kid := fmt.Sprintf("%x", sha256.Sum256(block.Bytes))
	if name != "keys/"+kid+".pem" {
		return nil, "", fmt.Errorf("%s: the key in it has the fingerprint %s", name, kid)
	}
	return key, kid, nil
}

// checkSignature verifies an ES256 signature. Of the two values of s that verify it takes the lower
// one: otherwise somebody could change the file and nobody would notice.
func (p *pkg) checkSignature(key *ecdsa.PublicKey, name string, text []byte) ([]byte, error) {
	sig, err := p.read(name, maxMessage)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	if !ecdsa.VerifyASN1(key, sum[:], sig) {
		return nil, fmt.Errorf("%s: does not verify over %s with the key in keys/", name, strings.TrimSuffix(name, ".sig"))
	}
	var parts struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(sig, &parts); err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("%s: not a signature in DER", name)
	}
	if half := new(big.Int).Rsh(elliptic.P256().Params().N, 1); parts.S.Cmp(half) > 0 {
		return nil, fmt.Errorf("%s: the other spelling of its signature", name)
	}
	return sig, nil
}

// checkKey compares the key of a package with the one that was named from outside.
func checkKey(kid string, c *contents, t trust, r *report) error {
	if c.Key != kid {
		return fmt.Errorf("%s names the key %s, and keys/ holds %s", packageName, c.Key, kid)
	}
	if t.key == "" {
		r.doubt("no fingerprint was given: whoever made this package may have made its key (%s) too", kid)
		return nil
	}
	if t.key != kid {
		return errors.New("signed with the key " + kid + ", and not with the one that was named")
	}
	return nil
}
