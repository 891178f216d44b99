package sequencer_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"

	"steno/functions/sequencer"
	"steno/shared/custody"
	"steno/shared/storetest"
)

// authority is a time-stamping authority: openssl behind http, with a certificate of its own root.
type authority struct {
	t    *testing.T
	dir  string
	root []byte // PEM
	key  *rsa.PrivateKey
	cert *x509.Certificate
	// above is the root.
	above *x509.Certificate
	url   string
	// answer, if set, stands in for the answer to a question.
	answer func(question, honest []byte) (status int, answer []byte)
	asked  int
}

// usage is the extension that says what a certificate is for.
func usage(t *testing.T, critical bool, purposes ...int) pkix.Extension {
	t.Helper()
	var ids []asn1.ObjectIdentifier
	for _, p := range purposes { // RFC 5280 section 4.2.1.12: 8 is time-stamping, 3 code signing
		ids = append(ids, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, p})
	}
	b, err := asn1.Marshal(ids)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: critical, Value: b}
}

func newAuthority(t *testing.T, ext pkix.Extension) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	rootKey, err := rsa.GenerateKey(rand.Reader, 2048)
	ok(err)
	a.key, err = rsa.GenerateKey(rand.Reader, 2048)
	ok(err)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, &rootKey.PublicKey, rootKey)
	ok(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "Time-stamping authority"}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtraExtensions: []pkix.Extension{ext},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, &a.key.PublicKey, rootKey)
	ok(err)
	a.cert, err = x509.ParseCertificate(leafDER)
	ok(err)
	a.above, err = x509.ParseCertificate(der)
	ok(err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(a.key)
	ok(err)
	a.root = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, b := range map[string][]byte{
		"root.pem": a.root, "tsa.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER}),
		"tsa.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), "serial": []byte("01\n"),
		"tsa.cnf": []byte("[tsa]\ndefault_tsa=t\n[t]\nserial=serial\ncrypto_device=builtin\nsigner_digest=sha256\ndefault_policy=1.2.3.4\ndigests=sha256\nordering=no\ness_cert_id_chain=no\ness_cert_id_alg=sha256\n"),
	} {
		ok(os.WriteFile(filepath.Join(a.dir, name), b, 0o600))
	}
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	a.url = s.URL
	return a
}

func (a *authority) openssl(args ...string) ([]byte, error) {
	cmd := exec.CommandContext(a.t.Context(), "openssl", args...)
	cmd.Dir = a.dir
	return cmd.CombinedOutput()
}

// reply lets openssl answer a question.
func (a *authority) reply(question []byte) ([]byte, error) {
	if err := os.WriteFile(filepath.Join(a.dir, "question"), question, 0o600); err != nil {
		return nil, err
	}
	if out, err := a.openssl("ts", "-reply", "-config", "tsa.cnf", "-queryfile", "question", "-signer", "tsa.pem", "-inkey", "tsa.key", "-out", "answer"); err != nil {
		return nil, errors.New(string(out))
	}
	return os.ReadFile(filepath.Join(a.dir, "answer"))
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.asked++
	question, err := io.ReadAll(r.Body)
	if err != nil || r.Header.Get("Content-Type") != "application/timestamp-query" {
		http.Error(w, "no question", http.StatusBadRequest)
		return
	}
	answer, err := a.reply(question)
	status := http.StatusOK
	if a.answer != nil {
		status, answer = a.answer(question, answer)
	} else if err != nil {
		a.t.Error(err)
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

func (a *authority) stamper(tiles custody.Tiles, roots []byte, now func() time.Time) *sequencer.Stamper {
	a.t.Helper()
	pool, err := sequencer.ParseStampRoots(string(roots))
	if err != nil {
		a.t.Fatal(err)
	}
	return sequencer.NewStamper(a.url, pool, tiles, http.DefaultTransport, now)
}

// stamping is the extension of an honest authority's certificate.
func stamping(t *testing.T) pkix.Extension { return usage(t, true, 8) }

func TestSignedCheckpointsAreStampedAndOpenSSLVerifiesThem(t *testing.T) {
	r, a := newRig(t), newAuthority(t, stamping(t))
	r.witnesses = map[string]custody.Witness{"archive": custody.Archive{Tiles: &r.tiles.Tiles}, "tsa": a.stamper(&r.tiles.Tiles, a.root, nil)}
	for range 2 {
		r.happen(5)
		r.run()
		r.run() // nothing new: nothing is stamped twice
		r.pass(time.Hour)
	}
	if a.asked != 2 {
		t.Errorf("the authority was asked %d times", a.asked)
	}
	for _, name := range []string{"signed/5", "signed/10"} {
		for from, to := range map[string]string{name: "data", name + ".tsr": "token"} {
			b, err := r.tiles.Tiles.Read(t.Context(), from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(a.dir, to), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := a.openssl("ts", "-verify", "-data", "data", "-in", "token", "-CAfile", "root.pem"); err != nil || !strings.Contains(string(out), "Verification: OK") {
			t.Errorf("%s: openssl says %s (%v)", name, out, err)
		}
		if err := os.WriteFile(filepath.Join(a.dir, "data"), []byte("other"), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := a.openssl("ts", "-verify", "-data", "data", "-in", "token", "-CAfile", "root.pem"); err == nil {
			t.Errorf("openssl takes the token for other bytes: %s", out)
		}
	}
}

func TestATokenThatProvesNothingIsNotTaken(t *testing.T) {
	honest := newAuthority(t, stamping(t))
	foreign := newAuthority(t, stamping(t))
	// openssl refuses to answer with these certificates, so the library makes their answers.
	made := func(a *authority) func(question, _ []byte) (int, []byte) {
		return func(question, _ []byte) (int, []byte) {
			q, err := timestamp.ParseRequest(question)
			if err != nil {
				t.Error(err)
				return 500, nil
			}
			b, err := (&timestamp.Timestamp{
				HashAlgorithm: q.HashAlgorithm, HashedMessage: q.HashedMessage, Time: time.Now(), Nonce: q.Nonce, Policy: asn1.ObjectIdentifier{1, 2, 3, 4},
				SerialNumber: big.NewInt(7), AddTSACertificate: true, Certificates: []*x509.Certificate{a.above},
			}).CreateResponseWithOpts(a.cert, a.key, crypto.SHA256)
			if err != nil {
				t.Error(err)
			}
			return 200, b
		}
	}
	var first []byte
	for what, c := range map[string]struct {
		a      *authority
		answer func(a *authority) func(question, honest []byte) (int, []byte)
		roots  []byte
		now    func() time.Time
		taken  bool
		why    string
	}{
		"as it should be":     {a: newAuthority(t, stamping(t)), taken: true},
		"made by the library": {a: newAuthority(t, stamping(t)), answer: made, taken: true},
		"usage not critical":  {why: "alone", a: newAuthority(t, usage(t, false, 8)), answer: made},
		"for code too":        {why: "alone", a: newAuthority(t, usage(t, true, 8, 3)), answer: made},
		"for code":            {why: "alone", a: newAuthority(t, usage(t, true, 3)), answer: made},
		"another root":        {why: "chain", a: honest, roots: foreign.root},
		"an hour off":         {why: "clock", a: honest, now: func() time.Time { return time.Now().Add(time.Hour) }},
		"an error": {why: "503", a: honest, answer: func(*authority) func(_, h []byte) (int, []byte) {
			return func(_, h []byte) (int, []byte) { return 503, h }
		}},
		"nothing": {why: "syntax", a: honest, answer: func(*authority) func(_, h []byte) (int, []byte) {
			return func(_, h []byte) (int, []byte) { return 200, nil }
		}},
		"more than it may be": {why: "more than 65536", a: honest, answer: func(*authority) func(_, h []byte) (int, []byte) {
			return func(_, h []byte) (int, []byte) { return 200, append(h, make([]byte, 64<<10)...) }
		}},
		"bytes behind it": {why: "trailing", a: honest, answer: func(*authority) func(_, h []byte) (int, []byte) {
			return func(_, h []byte) (int, []byte) { return 200, append(h, 0) }
		}},
		"a changed byte of it": {why: "verification error", a: honest, answer: func(*authority) func(_, h []byte) (int, []byte) {
			return func(_, h []byte) (int, []byte) { h[len(h)-9] ^= 1; return 200, h }
		}},
		"of other bytes": {why: "other bytes", a: honest, answer: func(a *authority) func(_, h []byte) (int, []byte) {
			return func(question, _ []byte) (int, []byte) {
				q, err := timestamp.ParseRequest(question)
				if err != nil {
					t.Error(err)
					return 500, nil
				}
				q.HashedMessage = make([]byte, 32)
				other, err := q.Marshal()
				if err != nil {
					t.Error(err)
				}
				b, err := a.reply(other)
				if err != nil {
					t.Error(err)
				}
				return 200, b
			}
		}},
		"an answer to an earlier question": {why: "another question", a: honest, answer: func(a *authority) func(_, h []byte) (int, []byte) {
			return func(question, _ []byte) (int, []byte) {
				q, err := timestamp.ParseRequest(question)
				if err != nil {
					t.Error(err)
					return 500, nil
				}
				q.Nonce = big.NewInt(99)
				earlier, err := q.Marshal()
				if err != nil {
					t.Error(err)
				}
				if first, err = a.reply(earlier); err != nil {
					t.Error(err)
				}
				return 200, first
			}
		}},
	} {
		r := newRig(t)
		r.happen(3)
		c.a.answer = nil
		if c.answer != nil {
			c.a.answer = c.answer(c.a)
		}
		if c.roots == nil {
			c.roots = c.a.root
		}
		r.witnesses = map[string]custody.Witness{"tsa": c.a.stamper(&r.tiles.Tiles, c.roots, c.now)}
		r.run()
		_, err := r.tiles.Tiles.Read(t.Context(), "signed/3.tsr")
		if c.taken != (err == nil) {
			t.Errorf("%s: taken %t, want %t; the log says %s", what, err == nil, c.taken, r.logs.String())
		}
		if told := strings.Contains(r.logs.String(), "not taken by a witness"); told == c.taken || !strings.Contains(r.logs.String(), c.why) {
			t.Errorf("%s: told %t, want %q: %s", what, told, c.why, r.logs.String())
		}
	}
}

func TestAStoredTokenThatWasExchangedIsNoWitness(t *testing.T) {
	r, a := newRig(t), newAuthority(t, stamping(t))
	tiles := new(storetest.Tiles)
	stamper := a.stamper(tiles, a.root, nil)
	r.witnesses = map[string]custody.Witness{"tsa": stamper}
	r.happen(3)
	r.run()
	head, _ := r.head()
	if err := stamper.Keep(t.Context(), custody.Origin(tenant), *head.Signed); err != nil || a.asked != 1 {
		t.Fatalf("kept again: %v, asked %d times", err, a.asked)
	}
	token, err := tiles.Read(t.Context(), "signed/3.tsr")
	if err != nil {
		t.Fatal(err)
	}
	token[len(token)-9] ^= 1
	tiles.Tamper("signed/3.tsr", token)
	if err := stamper.Keep(t.Context(), custody.Origin(tenant), *head.Signed); !errors.Is(err, custody.ErrProof) {
		t.Errorf("exchanged: %v", err)
	}
}

func TestRootsAndAddressesOfAuthoritiesThatAreRefused(t *testing.T) {
	a := newAuthority(t, stamping(t))
	leaf, err := os.ReadFile(filepath.Join(a.dir, "tsa.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"none": "", "noise": "x", "no authority": string(leaf), "noise behind": string(a.root) + "x", "a key": "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"} {
		if _, err := sequencer.ParseStampRoots(text); err == nil {
			t.Errorf("roots: %s is accepted", what)
		}
	}
	for _, text := range []string{"", "ftp://tsa.example", "https://", "https://user@tsa.example", "tsa.example"} {
		if _, err := sequencer.ParseStampURL(text); err == nil {
			t.Errorf("address %q is accepted", text)
		}
	}
	if _, err := sequencer.ParseStampURL("http://tsa.example/tsr"); err != nil {
		t.Error(err)
	}
}
