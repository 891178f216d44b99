package evidence_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
)

// golden is testdata/v1/golden.json.
type golden struct {
	Tenant, Unit string
	Row          struct {
		Tenant, Unit, ID, Vault, Alg, MadeAt string
		Wrapped                              []byte
	}
	Objects  []goldenObject
	VaultKey struct{ N, E, D, P, Q string }
}

type goldenObject struct {
	File, Object, Plain string
	Size                int64
}

func readGolden(t *testing.T) golden {
	t.Helper()
	b, err := os.ReadFile("testdata/v1/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g golden) privateKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	number := func(s string) *big.Int {
		n, ok := new(big.Int).SetString(s, 16)
		if !ok {
			t.Fatalf("golden key: %q is not a hex number", s)
		}
		return n
	}
	k := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: number(g.VaultKey.N), E: int(number(g.VaultKey.E).Int64())},
		D:         number(g.VaultKey.D),
		Primes:    []*big.Int{number(g.VaultKey.P), number(g.VaultKey.Q)},
	}
	k.Precompute()
	if err := k.Validate(); err != nil {
		t.Fatal(err)
	}
	return k
}

// secondReader opens an object as FORMAT.md section 5 says. It shares no code with
// the packages under test.
func secondReader(sealed []byte, tenant, unit string, object [16]byte, ck []byte) ([]byte, error) {
	if len(sealed) < 160 {
		return nil, errors.New("shorter than a header")
	}
	header := sealed[:160]
	if !bytes.Equal(header[:8], []byte{'S', 'T', 'N', 'O', 1, 1, 16, 0}) || header[55] != 0 || !bytes.Equal(header[148:], make([]byte, 12)) {
		return nil, errors.New("not this format")
	}
	if !bytes.Equal(header[24:40], object[:]) {
		return nil, errors.New("another object")
	}
	size := binary.BigEndian.Uint64(header[40:48])
	n := max(1, (size+65535)/65536)
	if size > 1<<47 || uint64(len(sealed)) != 160+size+16*n {
		return nil, errors.New("length is not what size demands")
	}
	len32 := func(s string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s }
	if sum := sha256.Sum256([]byte("steno-ck-v1\x00" + len32(tenant) + len32(unit) + string(ck))); !bytes.Equal(sum[:], header[56:88]) {
		return nil, errors.New("commitment to another key")
	}
	place := "steno-object-v1\x00" + len32(tenant) + len32(unit) + string(object[:])
	gcm := func(key []byte) (cipher.AEAD, error) {
		b, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		return cipher.NewGCM(b)
	}
	outer, err := gcm(ck)
	if err != nil {
		return nil, err
	}
	dk, err := outer.Open(nil, header[88:100], header[100:148], []byte("steno-dk-v1\x00"+string(header[:88])+place))
	if err != nil {
		return nil, fmt.Errorf("data key: %w", err)
	}
	inner, err := gcm(dk)
	if err != nil {
		return nil, err
	}
	var plain []byte
	for i := range n {
		chunk := sealed[160+65552*i:]
		chunk = chunk[:min(len(chunk), 65552)]
		nonce := binary.BigEndian.AppendUint32(bytes.Clone(header[48:55]), uint32(i))
		nonce = append(nonce, 0)
		if i == n-1 {
			nonce[11] = 1
		}
		if plain, err = inner.Open(plain, nonce, chunk, []byte("steno-chunk-v1\x00"+string(header)+place)); err != nil {
			return nil, fmt.Errorf("chunk %d: %w", i, err)
		}
	}
	return plain, nil
}

func (o goldenObject) id(t *testing.T) [16]byte {
	t.Helper()
	b, err := hex.DecodeString(o.Object)
	if err != nil || len(b) != 16 {
		t.Fatalf("object id %q: %v", o.Object, err)
	}
	return [16]byte(b)
}

func (o goldenObject) sealed(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/v1", o.File))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// check compares plain bytes with what golden.json says of them.
func (o goldenObject) check(t *testing.T, plain []byte) {
	t.Helper()
	if sum := sha256.Sum256(plain); int64(len(plain)) != o.Size || hex.EncodeToString(sum[:]) != o.Plain {
		t.Errorf("%s: %d plain bytes with digest %x, want %d with %s", o.File, len(plain), sum, o.Size, o.Plain)
	}
}

func TestSecondReaderNeedsOnlyTheFormatPage(t *testing.T) {
	g := readGolden(t)
	if g.Row.Tenant != g.Tenant || g.Row.Unit != g.Unit || g.Row.Alg != "RSA-OAEP-256" {
		t.Fatalf("golden row speaks of another key")
	}
	ck, err := rsa.DecryptOAEP(sha256.New(), nil, g.privateKey(t), g.Row.Wrapped, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range g.Objects {
		plain, err := secondReader(o.sealed(t), g.Tenant, g.Unit, o.id(t), ck)
		if err != nil {
			t.Errorf("%s: %v", o.File, err)
			continue
		}
		o.check(t, plain)
	}
}

func TestSecondReaderOpensWhatIsSealedToday(t *testing.T) {
	f := newFixture(t)
	for _, size := range []int{0, 1, 65535, 65536, 65537, 3*65536 + 17} {
		plain := pattern(size)
		sealed := f.seal(plain)
		ck := f.conversationKey(sealed)
		var id [16]byte
		if _, err := hex.Decode(id[:], []byte(sealed.Ref.Object)); err != nil {
			t.Fatal(err)
		}
		got, err := secondReader(sealed.Bytes, string(tenant), unit, id, ck)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("size %d: second reader: %d bytes, %v", size, len(got), err)
		}
	}
}
