package sequencer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"time"

	"github.com/digitorus/pkcs7"
	"github.com/digitorus/timestamp"

	"steno/shared/custody"
)

const (
	// maxStamp bounds an answer of a time-stamping authority. Those of real ones have 2 to 8 KiB.
	maxStamp = 64 << 10
	// stampSkew is how far an authority's clock may be from ours.
	stampSkew = 5 * time.Minute
)

// Identifiers of RFC 5280 section 4.2.1.12 and RFC 3161 section 2.4.2.
var (
	oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidTSTInfo     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
)

// Stamper is a witness that has a time-stamping authority (RFC 3161) sign when a checkpoint
// was there. The token is kept as file "signed/SIZE.tsr" beside "signed/SIZE", whose bytes it
// stamps; openssl ts -verify checks it.
type Stamper struct {
	address string
	roots   *x509.CertPool
	tiles   custody.Tiles
	client  *http.Client
	now     func() time.Time
}

// ParseStampURL reads the address of an authority. Most speak plain http, which loses nothing:
// what is asked is a digest, and what is answered is signed.
func ParseStampURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return "", errors.New("want an http or https address")
	}
	return text, nil
}

// ParseStampRoots reads the roots that an authority's certificate must lead to: one or more
// CERTIFICATE blocks and nothing else. The system's roots are not asked.
func ParseStampRoots(text string) (*x509.CertPool, error) {
	pool, n := x509.NewCertPool(), 0
	rest := []byte(text)
	for len(bytes.TrimSpace(rest)) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("want CERTIFICATE blocks in PEM")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || !c.IsCA {
			return nil, errors.New("want certificates of authorities")
		}
		pool.AddCert(c)
		n++
	}
	if n == 0 {
		return nil, errors.New("want a CERTIFICATE block in PEM")
	}
	return pool, nil
}

// NewStamper returns the witness that asks the authority at an address. Redirects are not
// followed. now is time.Now if nil.
func NewStamper(address string, roots *x509.CertPool, tiles custody.Tiles, transport http.RoundTripper, now func() time.Time) *Stamper {
	if now == nil {
		now = time.Now
	}
	return &Stamper{address, roots, tiles, &http.Client{
		Transport: transport, Timeout: webhookTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, now}
}

// Keep stores the checkpoint, unless it is stored, and its token. A token is asked for once;
// one that stands there and does not verify is an error.
func (s *Stamper) Keep(ctx context.Context, origin string, signed custody.Signed) error {
	if err := (custody.Archive{Tiles: s.tiles}).Keep(ctx, origin, signed); err != nil {
		return err
	}
	c, err := custody.ParseCheckpoint(origin, []byte(signed.Text))
	if err != nil {
		return fmt.Errorf("stamp checkpoint: %w", err)
	}
	name := fmt.Sprintf("signed/%d", c.Size)
	// What stands there is what is stamped: the same checkpoint may have been signed twice.
	file, err := s.tiles.Read(ctx, name)
	if err != nil {
		return fmt.Errorf("stamp %s: %w", name, err)
	}
	if err := s.stands(ctx, name, file); !errors.Is(err, custody.ErrNoTile) {
		return err
	}
	token, err := s.ask(ctx, file)
	if err != nil {
		return fmt.Errorf("stamp %s: %w", name, err)
	}
	err = s.tiles.Create(ctx, name+".tsr", token)
	if errors.Is(err, custody.ErrSplitView) {
		return s.stands(ctx, name, file) // two runs asked at once, and each got a token of its own
	}
	if err != nil {
		return fmt.Errorf("stamp %s: %w", name, err)
	}
	return nil
}

// stands verifies the token that is stored, ErrNoTile if none is.
func (s *Stamper) stands(ctx context.Context, name string, file []byte) error {
	token, err := s.tiles.Read(ctx, name+".tsr")
	if err != nil {
		return fmt.Errorf("read the token of %s: %w", name, err)
	}
	if _, err := s.verify(token, file); err != nil {
		return fmt.Errorf("the stored token of %s: %w", name, err)
	}
	return nil
}

// ask gets a token and checks that it is the answer to this question.
func (s *Stamper) ask(ctx context.Context, file []byte) ([]byte, error) {
	nonce, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw a nonce: %w", err)
	}
	digest := sha256.Sum256(file)
	question, err := (&timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: digest[:], Certificates: true, Nonce: nonce}).Marshal()
	if err != nil {
		return nil, fmt.Errorf("ask the authority: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.address, bytes.NewReader(question))
	if err != nil {
		return nil, errors.New("ask the authority: the address is none")
	}
	r.Header.Set("Content-Type", "application/timestamp-query")
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask the authority: %w", withoutAddress(err))
	}
	token, rerr := io.ReadAll(io.LimitReader(resp.Body, maxStamp+1))
	if cerr := resp.Body.Close(); rerr == nil {
		rerr = cerr
	}
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the authority answers %d", resp.StatusCode)
	case rerr != nil:
		return nil, fmt.Errorf("read the authority's answer: %w", withoutAddress(rerr))
	case len(token) > maxStamp:
		return nil, fmt.Errorf("the authority's answer has more than %d bytes", maxStamp)
	}
	stamp, err := s.verify(token, file)
	if err != nil {
		return nil, err
	}
	if stamp.Nonce == nil || stamp.Nonce.Cmp(nonce) != 0 {
		return nil, fmt.Errorf("the authority answers another question: %w", custody.ErrProof)
	}
	if skew := s.now().Sub(stamp.Time); skew.Abs() > stampSkew {
		return nil, fmt.Errorf("the authority's clock and ours differ by %s", skew.Round(time.Second))
	}
	return token, nil
}

// verify checks a token of these bytes: its signature, the one certificate that made it, that
// this one is for time-stamping alone (RFC 3161 section 2.3), and that it leads to a root.
func (s *Stamper) verify(answer, file []byte) (*timestamp.Timestamp, error) {
	stamp, err := timestamp.ParseResponse(answer)
	if err != nil {
		return nil, fmt.Errorf("time stamp: %w: %w", custody.ErrProof, err)
	}
	no := func(why string) error { return fmt.Errorf("time stamp: %s: %w", why, custody.ErrProof) }
	p7, err := pkcs7.Parse(stamp.RawToken)
	if err != nil {
		return nil, fmt.Errorf("time stamp: %w: %w", custody.ErrProof, err)
	}
	digest := sha256.Sum256(file)
	if stamp.HashAlgorithm != crypto.SHA256 || !bytes.Equal(stamp.HashedMessage, digest[:]) {
		return nil, no("it is of other bytes")
	}
	var content asn1.ObjectIdentifier
	if err := p7.UnmarshalSignedAttribute(pkcs7.OIDAttributeContentType, &content); err != nil || !content.Equal(oidTSTInfo) {
		return nil, no("what was signed is no time stamp")
	}
	signer := p7.GetOnlySigner()
	if signer == nil {
		return nil, no("it has not one signer with a certificate")
	}
	only := len(signer.ExtKeyUsage) == 1 && signer.ExtKeyUsage[0] == x509.ExtKeyUsageTimeStamping && len(signer.UnknownExtKeyUsage) == 0
	critical := false
	for _, e := range signer.Extensions {
		critical = critical || e.Id.Equal(oidExtKeyUsage) && e.Critical
	}
	if !only || !critical {
		return nil, no("its signer is not for time-stamping alone")
	}
	between := x509.NewCertPool()
	for _, c := range p7.Certificates {
		between.AddCert(c)
	}
	chain := x509.VerifyOptions{Roots: s.roots, Intermediates: between, CurrentTime: stamp.Time, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping}}
	// The library checks the chain only where it is given roots, and the signature in any case.
	if err := p7.VerifyWithOpts(chain); err != nil {
		return nil, fmt.Errorf("time stamp: %w: %w", custody.ErrProof, err)
	}
	return stamp, nil
}
