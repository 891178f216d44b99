package azure_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"steno/shared/azure"
	"steno/tests/local/keyvault"
)

// liar changes what the vault answers to calls that succeed.
type liar struct{ lie atomic.Pointer[lie] }

// lie changes one answer; sign tells the answer of a signature from that of a key.
type lie func(sign bool, answer map[string]any)

func (l *liar) tell(f lie) { l.lie.Store(&f) }

func (l *liar) front(vault http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		vault.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		if f := l.lie.Load(); f != nil && rec.Code == http.StatusOK {
			var answer map[string]any
			if err := json.Unmarshal(body, &answer); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			(*f)(r.Method == http.MethodPost, answer)
			var err error
			if body, err = json.Marshal(answer); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		for name, values := range rec.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(rec.Code)
		// A failed write means that the client has gone.
		_, _ = w.Write(body)
	})
}

func signingKey(t *testing.T, s *azure.Signer) (string, *ecdsa.PublicKey) {
	t.Helper()
	id, key, err := s.SigningKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id, key
}

// raw is a signature as the vault spells it.
func raw(r, s *big.Int) []byte {
	out := make([]byte, 64)
	r.FillBytes(out[:32])
	s.FillBytes(out[32:])
	return out
}

func TestASignatureByTheVaultVerifiesAndIsLow(t *testing.T) {
	stand, keys, host := startVault(t)
	s := azure.NewSigner(keys, "sign", []string{"other.example", host})
	id, key := signingKey(t, s)
	if !strings.HasPrefix(id, "https://"+host+"/keys/sign/") {
		t.Errorf("id is %s", id)
	}
	half := new(big.Int).Rsh(elliptic.P256().Params().N, 1)
	digest := sha256.Sum256([]byte("checkpoint"))
	seen := map[string]bool{}
	for range 200 {
		der, err := s.Sign(t.Context(), id, digest)
		if err != nil {
			t.Fatal(err)
		}
		if !ecdsa.VerifyASN1(key, digest[:], der) {
			t.Fatalf("%x does not verify", der)
		}
		var sig struct{ R, S *big.Int }
		if rest, err := asn1.Unmarshal(der, &sig); err != nil || len(rest) != 0 {
			t.Fatalf("%x is no DER: %v", der, err)
		}
		if sig.S.Cmp(half) > 0 {
			t.Errorf("s of %x is high", der)
		}
		if again, err := asn1.Marshal(sig); err != nil || !bytes.Equal(again, der) {
			t.Errorf("%x is not minimal: %v", der, err)
		}
		seen[string(der)] = true
	}
	if len(seen) != 200 {
		t.Errorf("%d signatures, want 200", len(seen))
	}
	if n := stand.Counts(); n[keyvault.OpGet] != 1 || n[keyvault.OpSign] != 200 {
		t.Errorf("vault operations %v, want one get and 200 signs", n)
	}
}

func TestBothSignaturesThatVerifyAreReturnedAsTheLowOne(t *testing.T) {
	l := &liar{}
	_, keys, host := startVaultBehind(t, l.front)
	s := azure.NewSigner(keys, "sign", []string{host})
	id, _ := signingKey(t, s)
	digest := sha256.Sum256([]byte("checkpoint"))
	want, err := s.Sign(t.Context(), id, digest)
	if err != nil {
		t.Fatal(err)
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(want, &sig); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]*big.Int{"low": sig.S, "high": new(big.Int).Sub(elliptic.P256().Params().N, sig.S)} {
		l.tell(func(_ bool, answer map[string]any) {
			answer["value"] = base64.RawURLEncoding.EncodeToString(raw(sig.R, value))
		})
		if got, err := s.Sign(t.Context(), id, digest); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s s: %x, %v; want %x", name, got, err, want)
		}
	}
}

func TestASignatureTheVaultCannotHaveMadeIsRefused(t *testing.T) {
	l := &liar{}
	stand, keys, host := startVaultBehind(t, l.front)
	s := azure.NewSigner(keys, "sign", []string{host})
	id, _ := signingKey(t, s)
	digest := sha256.Sum256([]byte("checkpoint"))
	older := sha256.Sum256([]byte("older checkpoint"))

	foreign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	fr, fs, err := ecdsa.Sign(rand.Reader, foreign, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	otherDER, err := s.Sign(t.Context(), id, older)
	if err != nil {
		t.Fatal(err)
	}
	var other struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(otherDER, &other); err != nil {
		t.Fatal(err)
	}
	n, zero, one := elliptic.P256().Params().N, big.NewInt(0), big.NewInt(1)
	most := new(big.Int).Sub(new(big.Int).Lsh(one, 256), one)

	value := func(b []byte) lie {
		return func(sign bool, answer map[string]any) {
			if sign {
				answer["value"] = base64.RawURLEncoding.EncodeToString(b)
			}
		}
	}
	// signedBy leaves the signature and says that another key made it.
	signedBy := func(kid any) lie {
		return func(sign bool, answer map[string]any) {
			if sign {
				answer["kid"] = kid
			}
		}
	}
	for name, c := range map[string]struct {
		lie  lie
		want string
	}{
		"by another key":            {value(raw(fr, fs)), "did not make"},
		"of another digest":         {value(raw(other.R, other.S)), "did not make"},
		"r and s in range":          {value(raw(one, one)), "did not make"},
		"empty":                     {value(nil), "0 bytes"},
		"short":                     {value(raw(fr, fs)[:63]), "63 bytes"},
		"long":                      {value(append(raw(fr, fs), 0)), "65 bytes"},
		"DER":                       {value(otherDER), "bytes, want 64"},
		"r zero":                    {value(raw(zero, fs)), "out of range"},
		"s zero":                    {value(raw(fr, zero)), "out of range"},
		"r the order":               {value(raw(n, fs)), "out of range"},
		"s the order":               {value(raw(fr, n)), "out of range"},
		"r of all ones":             {value(raw(most, fs)), "out of range"},
		"s of all ones":             {value(raw(fr, most)), "out of range"},
		"said to be of no key":      {signedBy(nil), "does not say"},
		"said to be of a version":   {signedBy(id[:len(id)-1] + "x"), "another key"},
		"said to be of a name":      {signedBy(strings.Replace(id, "/sign/", "/wrap/", 1)), "another key"},
		"said to be of a vault":     {signedBy(strings.Replace(id, host, "vault.example", 1)), "another key"},
		"said to be of a non-https": {signedBy(strings.Replace(id, "https", "http", 1)), "another key"},
	} {
		l.tell(c.lie)
		der, err := s.Sign(t.Context(), id, digest)
		if err == nil || der != nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), host) {
			t.Errorf("%s: %x, %v; want an error of %q", name, der, err, c.want)
		}
	}
	before := stand.Counts()[keyvault.OpSign]
	l.tell(func(bool, map[string]any) {})
	if _, err := s.Sign(t.Context(), id, digest); err != nil {
		t.Errorf("the truth: %v", err)
	}
	if n := stand.Counts()[keyvault.OpSign] - before; n != 1 {
		t.Errorf("%d operations for a signature", n)
	}
}

func TestASigningKeyThatIsNotOursOrNotOnP256IsRefused(t *testing.T) {
	l := &liar{}
	_, keys, host := startVaultBehind(t, l.front)
	id, _ := signingKey(t, azure.NewSigner(keys, "sign", []string{host}))
	b64 := base64.RawURLEncoding.EncodeToString
	jwk := func(name string, v any) lie {
		return func(sign bool, answer map[string]any) {
			if !sign {
				answer["key"].(map[string]any)[name] = v
			}
		}
	}
	for name, c := range map[string]struct {
		lie  lie
		want string
	}{
		"no key":       {func(_ bool, answer map[string]any) { delete(answer, "key") }, "without a key"},
		"no id":        {jwk("kid", nil), "without a key"},
		"no type":      {jwk("kty", nil), "not an EC key on P-256"},
		"no curve":     {jwk("crv", nil), "not an EC key on P-256"},
		"P-384":        {jwk("crv", "P-384"), "not an EC key on P-256"},
		"P-256K":       {jwk("crv", "P-256K"), "not an EC key on P-256"},
		"not on curve": {jwk("x", b64(bytes.Repeat([]byte{7}, 32))), "not a point"},
		"no coordinates": {func(_ bool, answer map[string]any) {
			k := answer["key"].(map[string]any)
			delete(k, "x")
			delete(k, "y")
		}, "not a point"},
		"long":          {jwk("y", b64(bytes.Repeat([]byte{7}, 33))), "longer"},
		"another vault": {jwk("kid", strings.Replace(id, host, "vault.example", 1)), "host"},
		"another name":  {jwk("kid", strings.Replace(id, "/sign/", "/wrap/", 1)), "names another key"},
		"no version":    {jwk("kid", id[:strings.LastIndexByte(id, '/')]), "no version"},
	} {
		l.tell(c.lie)
		s := azure.NewSigner(keys, "sign", []string{host})
		if id, key, err := s.SigningKey(t.Context()); err == nil || id != "" || key != nil ||
			!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), host) {
			t.Errorf("%s: %q, %v; want an error of %q", name, id, err, c.want)
		}
		if der, err := s.Sign(t.Context(), id, [32]byte{}); err == nil || der != nil {
			t.Errorf("%s: signed, %v", name, err)
		}
	}
	l.tell(jwk("kid", id[:len(id)-1]+"x"))
	if der, err := azure.NewSigner(keys, "sign", []string{host}).Sign(t.Context(), id, [32]byte{}); der != nil || err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("another version: signed %x, %v", der, err)
	}
	l.tell(func(bool, map[string]any) {})
	if _, _, err := azure.NewSigner(keys, "wrap", []string{host}).SigningKey(t.Context()); err == nil || !strings.Contains(err.Error(), "not an EC key") {
		t.Errorf("RSA key: %v", err)
	}
	if _, _, err := azure.NewSigner(keys, "absent", []string{host}).SigningKey(t.Context()); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("absent key: %v", err)
	}
	for _, hosts := range [][]string{nil, {"vault.example"}} {
		if _, _, err := azure.NewSigner(keys, "sign", hosts).SigningKey(t.Context()); err == nil || !strings.Contains(err.Error(), "host") {
			t.Errorf("hosts %v: %v", hosts, err)
		}
	}
}

func TestSigningWithAForeignKeyURLIsRefusedBeforeTheVaultIsAsked(t *testing.T) {
	stand, keys, host := startVault(t)
	s := azure.NewSigner(keys, "sign", []string{host})
	id, _ := signingKey(t, s)
	before := stand.Counts()
	for _, bad := range []string{
		"", "sign", id[len("https:"):],
		strings.Replace(id, "https", "http", 1),
		strings.Replace(id, host, "vault.example", 1),
		strings.Replace(id, host, host+".vault.example", 1),
		strings.Replace(id, host, host+"@vault.example", 1),
		strings.Replace(id, "https://", "https://user@", 1),
		strings.Replace(id, "/sign/", "/wrap/", 1),
		strings.Replace(id, "/keys/", "/secrets/", 1),
		strings.Replace(id, "/keys/", "/keys/../keys/", 1),
		id[:strings.LastIndexByte(id, '/')], id[:strings.LastIndexByte(id, '/')+1],
		id + "/sign", id + "/", id + "?a=b", id + "?", id + "#a", id + "#", id + "%2f", id + "\n",
	} {
		if der, err := s.Sign(t.Context(), bad, [32]byte{}); err == nil || der != nil {
			t.Errorf("%q was signed with", bad)
		} else if strings.Contains(err.Error(), host) {
			t.Errorf("%q: the error holds the host: %v", bad, err)
		}
	}
	if got := stand.Counts(); got[keyvault.OpSign] != before[keyvault.OpSign] || got[keyvault.OpGet] != before[keyvault.OpGet] {
		t.Errorf("vault operations %v, were %v", got, before)
	}
	if _, err := s.Sign(t.Context(), strings.Replace(id, "/sign/", "/Sign/", 1), [32]byte{}); err != nil {
		t.Errorf("another spelling of the name: %v", err)
	}
}

func TestSigningGoesOnWithTheNewVersionAfterARotationAndWithTheOldByItsId(t *testing.T) {
	stand, keys, host := startVault(t)
	now := time.Now()
	s := azure.NewSigner(keys, "sign", []string{host})
	s.SetClock(func() time.Time { return now })
	oldID, oldKey := signingKey(t, s)
	version, err := stand.Rotate("sign")
	if err != nil {
		t.Fatal(err)
	}
	fresh := azure.NewSigner(keys, "sign", []string{host})
	newID, newKey := signingKey(t, fresh)
	if newID == oldID || !strings.HasSuffix(newID, "/keys/sign/"+version) || newKey.Equal(oldKey) {
		t.Errorf("current is %s after rotation from %s to %s", newID, oldID, version)
	}
	now = now.Add(time.Hour - time.Second)
	if id, key := signingKey(t, s); id != oldID || !key.Equal(oldKey) {
		t.Errorf("within the hour the key is %s, want %s", id, oldID)
	}
	if n := stand.Counts()[keyvault.OpGet]; n != 2 {
		t.Errorf("%d gets by two signers within the hour", n)
	}
	now = now.Add(time.Second)
	if id, key := signingKey(t, s); id != newID || !key.Equal(newKey) {
		t.Errorf("after the hour the key is %s, want %s", id, newID)
	}
	digest := sha256.Sum256([]byte("checkpoint"))
	for name, s := range map[string]*azure.Signer{
		"signer of both versions": s, "signer of the new version": fresh, "signer of none": azure.NewSigner(keys, "sign", []string{host}),
	} {
		for id, key := range map[string]*ecdsa.PublicKey{oldID: oldKey, newID: newKey} {
			der, err := s.Sign(t.Context(), id, digest)
			if err != nil || !ecdsa.VerifyASN1(key, digest[:], der) {
				t.Errorf("%s, %s: %v", name, id, err)
			}
		}
	}
	// Three by SigningKey, one by fresh for the old version, two by the signer of none.
	if n := stand.Counts()[keyvault.OpGet]; n != 6 {
		t.Errorf("%d gets, want 6", n)
	}
}

func TestSigningThatTheVaultRefusesIsAnErrorWithoutItsAddress(t *testing.T) {
	stand, keys, host := startVault(t)
	s := azure.NewSigner(keys, "sign", []string{host})
	id, _ := signingKey(t, s)
	stand.Fail(keyvault.OpSign, 1)
	for _, want := range []string{"503", "403"} {
		der, err := s.Sign(t.Context(), id, [32]byte{})
		if err == nil || der != nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), host) {
			t.Errorf("%x, %v; want an error of %s", der, err, want)
		}
		if err := stand.Disable("sign", ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Sign(t.Context(), id[:strings.LastIndexByte(id, '/')]+"/0123", [32]byte{}); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("version that does not exist: %v", err)
	}
}
