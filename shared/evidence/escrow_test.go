package evidence_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"steno/shared/evidence"
	"steno/shared/storetest"
)

// recoverers are two recovery keys: that of these tests, and a foreign one.
var recoverers = sync.OnceValue(func() (out [2]*rsa.PrivateKey) {
	for i := range out {
		k, err := rsa.GenerateKey(rand.Reader, evidence.MinRecoveryBits)
		if err != nil {
			panic(err)
		}
		out[i] = k
	}
	return out
})

func publicOf(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func recoveryKey(t *testing.T, i int) *evidence.RecoveryKey {
	t.Helper()
	k, err := evidence.ParseRecoveryKey(base64.StdEncoding.EncodeToString(publicOf(t, &recoverers()[i].PublicKey)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// escrow is a fixture whose keys have copies.
func newEscrow(t *testing.T) *fixture {
	f := newFixture(t)
	f.recovery = recoveryKey(t, 0)
	f.store = f.newStore()
	return f
}

// toEscrow brings the copies of a unit's keys to write-once storage.
func (f *fixture) toEscrow(unit string) {
	f.t.Helper()
	keeper := evidence.Keeper{Objects: f.blobs, Records: f.blobs, Keys: f.keys, Now: f.clock}
	ring, err := f.keys.List(f.t.Context(), tenant, unit)
	if err == nil {
		_, err = keeper.Escrow(f.t.Context(), tenant, unit, ring)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// restore runs a recovery with the private key at hand.
func (f *fixture) restore(key *rsa.PrivateKey) (evidence.Recovered, error) {
	f.t.Helper()
	open, err := evidence.OpenWith(key)
	if err != nil {
		f.t.Fatal(err)
	}
	return evidence.Recovery{Tenant: tenant, Objects: f.blobs, Keys: f.keys, Vault: f.vault, Open: open}.Run(f.t.Context(), "")
}

func (f *fixture) records() (names []string) {
	for _, n := range f.blobs.Names() {
		if strings.Contains(n, "/escrow-") {
			names = append(names, n)
		}
	}
	return names
}

// body reads a blob as it lies there.
func (f *fixture) body(name string) []byte {
	f.t.Helper()
	size, err := f.blobs.Blobs.Size(f.t.Context(), name)
	if err != nil {
		f.t.Fatal(err)
	}
	b, err := f.blobs.Blobs.ReadAt(f.t.Context(), name, 0, size)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

func TestAllEvidenceOpensAfterTheKeyTableIsRestoredFromEscrow(t *testing.T) {
	f := newEscrow(t)
	objects := map[evidence.Ref][]byte{}
	for i := range 9 { // three units, three processes
		f.store = f.newStore()
		ref := newRef()
		ref.Unit = unit + strings.Repeat("x", i%3)
		o := f.sealAs(ref, pattern(100*i))
		if err := f.store.Put(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		objects[ref] = pattern(100 * i)
	}
	for ref := range objects {
		f.toEscrow(ref.Unit)
	}
	if n := f.vault.Unwraps(); n != 0 {
		t.Errorf("%d keys were unwrapped for their copies", n)
	}
	f.keys = &storetest.Keys{}
	for ref := range objects {
		if _, err := f.read(ref); !errors.Is(err, evidence.ErrNotFound) {
			t.Fatalf("without the table: %v", err)
		}
	}
	done, err := f.restore(recoverers()[0])
	if err != nil || done != (evidence.Recovered{Records: 3, Restored: 9}) {
		t.Fatalf("restored %+v, %v", done, err)
	}
	for ref, want := range objects {
		if plain, err := f.read(ref); err != nil || !bytes.Equal(plain, want) {
			t.Errorf("%s: %v", ref.Unit, err)
		}
	}
}

// TestACopyOpensWithOpenSSL is the way of FORMAT.md section 4.1 without a line of Steno.
func TestACopyOpensWithOpenSSL(t *testing.T) {
	f := newEscrow(t)
	o := f.put([]byte("x"))
	f.toEscrow(unit)
	var record struct {
		Keys []struct {
			ID, Recovery string
			Wrapped      []byte
		}
	}
	if err := json.Unmarshal(f.body(f.records()[0]), &record); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(recoverers()[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), "wrapped": record.Keys[0].Wrapped} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "openssl", "pkeyutl", "-decrypt", "-inkey", "key.pem", "-in", "wrapped",
		"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256")
	cmd.Dir = dir
	plain, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl: %v", err)
	}
	place := []byte("steno-escrow-v1\x00\x00\x00\x00\x24" + string(tenant) + "\x00\x00\x00\x15" + unit)
	id, err := hex.DecodeString(record.Keys[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(append(place, id...))
	want := cat([]byte("steno-escrow-v1\x00"), digest[:], f.conversationKey(o))
	if !bytes.Equal(plain, want) {
		t.Errorf("openssl opens %d bytes that are not what the page says", len(plain))
	}
	der := sha256.Sum256(publicOf(t, &recoverers()[0].PublicKey))
	if record.Keys[0].Recovery != hex.EncodeToString(der[:]) {
		t.Error("the record names another recovery key")
	}
}

func TestAnEscrowRecordThatIsNotItsOwnIsRefused(t *testing.T) {
	f := newEscrow(t)
	f.put([]byte("x"))
	other := newRef()
	other.Unit = "other-unit"
	f.sealAs(other, []byte("y"))
	f.toEscrow(unit)
	f.toEscrow(other.Unit)
	names := f.records()
	if len(names) != 2 {
		t.Fatalf("records %v", names)
	}
	mine, theirs := f.body(names[0]), f.body(names[1])
	rows := f.keys
	try := func(what, name string, body []byte, want evidence.Recovered) {
		t.Helper()
		f.keys = &storetest.Keys{}
		f.blobs.Tamper(name, body)
		done, err := f.restore(recoverers()[0])
		if !errors.Is(err, evidence.ErrKey) || done != want {
			t.Errorf("%s: restored %+v, %v; want %+v and ErrKey", what, done, err, want)
		}
		f.blobs.Tamper(names[0], mine)
	}
	one := evidence.Recovered{Records: 1, Restored: 1} // the other unit's
	for cut := range len(mine) {
		if cut%37 == 0 || cut == len(mine)-1 {
			try("cut", names[0], mine[:cut], one)
		}
	}
	for i := 0; i < len(mine); i += 41 {
		bad := bytes.Clone(mine)
		bad[i] ^= 1
		try("flipped", names[0], bad, one)
	}
	try("the record of another unit", names[0], theirs, one)
	try("bytes appended", names[0], append(bytes.Clone(mine), ' '), one)

	// Whoever may create blobs can give a record its proper name; the copies in it bind their place.
	rename := func(body []byte, unit string) string {
		d := sha256.Sum256(body)
		return string(tenant) + "/" + unit + "/escrow-" + hex.EncodeToString(d[:16])
	}
	var record map[string]any
	for what, c := range map[string]struct {
		from   []byte
		change func()
	}{
		"the copy of another unit under this unit's name": {theirs, func() { record["unit"] = unit }},
		"the copy under another key's id": {mine, func() {
			record["keys"].([]any)[0].(map[string]any)["id"] = strings.Repeat("ab", 16)
		}},
		"a copy that is noise": {mine, func() {
			record["keys"].([]any)[0].(map[string]any)["wrapped"] = base64.StdEncoding.EncodeToString(pattern(384))
		}},
	} {
		record = nil
		if err := json.Unmarshal(c.from, &record); err != nil {
			t.Fatal(err)
		}
		c.change()
		keys, err := json.Marshal(record["keys"].([]any)[0])
		if err != nil {
			t.Fatal(err)
		}
		// the members of records stand in a fixed order
		body := []byte(`{"format":"steno-escrow/1","tenant":"` + string(tenant) + `","unit":"` + record["unit"].(string) + `","keys":[` + string(keys) + `]}`)
		name := rename(body, unit)
		before := f.records()
		try(what, name, body, evidence.Recovered{Records: 3, Restored: 2})
		if err := f.blobs.Delete(t.Context(), name); err != nil || len(before) != 2 {
			t.Fatal(err, before)
		}
	}

	f.keys = &storetest.Keys{}
	if done, err := f.restore(recoverers()[1]); !errors.Is(err, evidence.ErrKey) || done.Restored != 0 {
		t.Errorf("with a foreign recovery key: %+v, %v", done, err)
	}
	f.keys = rows
}

func TestTwoCopiesOfOneKeyThatDifferAreRefused(t *testing.T) {
	f := newEscrow(t)
	f.put([]byte("x"))
	f.toEscrow(unit)
	row := f.keys.All()[0]
	// Wrapping takes the public key alone, so a copy can be forged; it must win nothing.
	id, err := hex.DecodeString(row.ID)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(cat([]byte("steno-escrow-v1\x00\x00\x00\x00\x24"+string(tenant)+"\x00\x00\x00\x15"+unit), id))
	forged, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &recoverers()[0].PublicKey, cat([]byte("steno-escrow-v1\x00"), digest[:], pattern(32)), nil)
	if err != nil {
		t.Fatal(err)
	}
	bad := row
	bad.Escrow.Wrapped = forged
	f.keys.Tamper(row.Tenant, row.Unit, row.ID, bad)
	f.toEscrow(unit)
	f.keys = &storetest.Keys{}
	done, err := f.restore(recoverers()[0])
	if !errors.Is(err, evidence.ErrKey) || !strings.Contains(err.Error(), row.ID+" of "+unit+": "+evidence.ErrKey.Error()+": two copies") || done.Restored != 0 || done.Records != 2 {
		t.Errorf("%+v, %v", done, err)
	}
}

func TestOnlyAPublicRSAKeyOfFullSizeIsARecoveryKey(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(recoverers()[0])
	if err != nil {
		t.Fatal(err)
	}
	der := publicOf(t, &recoverers()[0].PublicKey)
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	for what, text := range map[string]string{
		"2048 bits":             block("PUBLIC KEY", publicOf(t, &small.PublicKey)),
		"an elliptic curve":     block("PUBLIC KEY", publicOf(t, &curve.PublicKey)),
		"the private key":       block("PRIVATE KEY", private),
		"the private key, bare": base64.StdEncoding.EncodeToString(private),
		"two keys":              block("PUBLIC KEY", der) + block("PUBLIC KEY", der),
		"noise":                 "certainly not",
		"half of it":            base64.StdEncoding.EncodeToString(der[:100]),
	} {
		if _, err := evidence.ParseRecoveryKey(text); err == nil {
			t.Errorf("%s is accepted", what)
		} else if strings.Contains(err.Error(), base64.StdEncoding.EncodeToString(private)[:40]) {
			t.Errorf("%s: the error shows the key", what)
		}
	}
	k, err := evidence.ParseRecoveryKey(block("PUBLIC KEY", der))
	if err != nil || k.ID() != recoveryKey(t, 0).ID() {
		t.Errorf("PEM and DER of one key: %v", err)
	}
}
