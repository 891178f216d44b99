package main

import (
	"archive/zip"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/custody"
	"steno/shared/storetest"
	"steno/shared/teams"
)

// What makes packages here is written from FORMAT.md, like what verifies them, and for
// tests alone: plain strings, no code of whoever makes real ones.

const tenant = teams.TenantID("11111111-2222-4333-8444-555555555555")

// signer is a signing key.
type signer struct{ key *ecdsa.PrivateKey }

func newSigner(t testing.TB) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key}
}

func (s signer) pem(t testing.TB) (kid string, b []byte) {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&s.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(der)), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func (s signer) kid(t testing.TB) string { kid, _ := s.pem(t); return kid }

// sign makes an ES256 signature with the lower s.
func (s signer) sign(t testing.TB, text []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(text)
	b, err := ecdsa.SignASN1(rand.Reader, s.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return otherS(t, b, false)
}

// otherS rewrites a signature with the lower or the higher of the two values of s.
func otherS(t testing.TB, sig []byte, high bool) []byte {
	t.Helper()
	var v struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(sig, &v); err != nil {
		t.Fatal(err)
	}
	n := elliptic.P256().Params().N
	if (v.S.Cmp(new(big.Int).Rsh(n, 1)) > 0) != high {
		v.S = new(big.Int).Sub(n, v.S)
	}
	b, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// custodyLog is a custody log that grows.
type custodyLog struct {
	tiles   *storetest.Tiles
	records []custody.Record
	at      []custody.Checkpoint // by size
}

func newLog() *custodyLog {
	return &custodyLog{tiles: new(storetest.Tiles), at: []custody.Checkpoint{{Origin: custody.Origin(tenant), Root: sha256.Sum256(nil)}}}
}

// append logs a record and returns its index.
func (l *custodyLog) append(t testing.TB, e custody.Event) int {
	t.Helper()
	n := len(l.records)
	e.At, e.Tenant, e.System = time.Date(2026, 11, 2, 8, 0, n, 0, time.UTC), tenant, "test"
	r := custody.Record{ID: custody.IDsFrom(e.At) + fmt.Sprintf("-%016x", n+1), Event: e}
	d, err := r.Digest()
	if err != nil {
		t.Fatal(err)
	}
	next, err := custody.NewTree(l.tiles, l.at[n]).Append(t.Context(), []custody.Digest{d})
	if err != nil {
		t.Fatal(err)
	}
	l.records, l.at = append(l.records, r), append(l.at, next)
	return n
}

// noise logs records that no package holds.
func (l *custodyLog) noise(t testing.TB, n int) {
	for range n {
		l.append(t, custody.Event{Action: custody.List, Item: "conversations"})
	}
}

// maker makes a package.
type maker struct {
	t       testing.TB
	rng     *mrand.Rand
	log     *custodyLog
	signer  signer
	c       contents
	files   map[string][]byte
	records []int
	opened  []string // lines of objects.txt: path first, to be sorted
	olders  []int
}

func newMaker(t testing.TB, rng *mrand.Rand, log *custodyLog, s signer) *maker {
	return &maker{t: t, rng: rng, log: log, signer: s, files: map[string][]byte{}, c: contents{Conversations: []conversation{}, Derived: []derived{}}}
}

func (m *maker) hex(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.rng.Uint32())
	}
	return hex.EncodeToString(b)
}

// batch writes a chat batch in the framing of shared/evidence/FORMAT.md section 6.
func (m *maker) batch(unit string) []byte {
	var b bytes.Buffer
	n := 1 + m.rng.IntN(3)
	fmt.Fprintf(&b, "steno-chat-batch/1\n{\"tenant\":%q,\"conversation\":%q}\n%d\n", tenant, unit, n)
	for i := range n {
		msg := fmt.Sprintf(`{"id":"%d","body":{"content":"%s"}}`, i, m.hex(20))
		fmt.Fprintf(&b, "%d\n%s\n", len(msg), msg)
	}
	return b.Bytes()
}

// add puts an object into the package and returns its entry for a seal record.
func (m *maker) add(unit, kind string, seq int, plain []byte) custody.Object {
	o := custody.Object{Unit: unit, Object: m.hex(16), Seq: seq, SHA256: m.hex(32)}
	path := fmt.Sprintf("evidence/%s/%06d-%s.%s", unit, seq, o.Object, kind)
	m.files[path] = plain
	blind := m.hex(32)
	raw, _ := hex.DecodeString(blind)
	sum := sha256.Sum256(plain)
	o.Commit = fmt.Sprintf("%x", sha256.Sum256(slices.Concat([]byte("steno-plain-v1\x00"), raw, sum[:])))
	m.opened = append(m.opened, path+" "+o.Commit+" "+blind)
	return o
}

// seal logs a record and takes it into the package.
func (m *maker) event(e custody.Event) { m.records = append(m.records, m.log.append(m.t, e)) }

func (m *maker) seal(objects ...custody.Object) {
	m.event(custody.Event{Action: custody.Sealed, Item: objects[0].Unit, Objects: objects})
}

// chat adds a unit of n batches, each sealed by a record of its own.
func (m *maker) chat(name string, n int) unit {
	for seq := range n {
		m.seal(m.add(name, "batch", seq, m.batch(name)))
		m.log.noise(m.t, m.rng.IntN(3))
	}
	return unit{Unit: name, Objects: n, Unproven: []string{}}
}

// leg adds a recording of n bundles.
func (m *maker) leg(name string, n int) unit {
	var entries []string
	for seq := range n {
		body, id := []byte("STENOMB1"+m.hex(200+m.rng.IntN(200))), m.hex(16)
		m.files[fmt.Sprintf("evidence/%s/bundles/%06d-0-%s.bundle", name, seq, id)] = body
		entries = append(entries, fmt.Sprintf(`{"seq":%d,"from":"2026-11-02T08:00:00Z","object":"%s","pack":0,"body":9,"plain":"%x"}`, seq, id, sha256.Sum256(body)))
	}
	plain := fmt.Sprintf(`{"format":"steno-leg-manifest/1","tenant":"%s","leg":"%s","bundles":[%s],"tracks":[{"track":"audio-1"}]}`, tenant, name, strings.Join(entries, ","))
	m.seal(m.add(name, "manifest", 0, []byte(plain)))
	return unit{Unit: name, Objects: 1, Unproven: []string{}}
}

func (m *maker) conversation(modality string, units ...unit) {
	m.c.Conversations = append(m.c.Conversations, conversation{ID: units[0].Unit, Modality: modality, Units: units})
}

// derive adds a derived file.
func (m *maker) derive(path string, from ...string) {
	m.files[path] = []byte("made of evidence: " + m.hex(30))
	m.c.Derived = append(m.c.Derived, derived{Path: path, From: nonNil(from), Tool: "test"})
}

// finish writes everything else, at the log as it stands.
func (m *maker) finish() map[string][]byte {
	m.log.noise(m.t, 2)
	m.proof(len(m.log.records))
	for _, name := range []string{"README.txt", "VERIFY.sh", "index.html", "custody/extract.csv"} {
		m.files[name] = []byte(name + ": " + m.hex(40) + "\n")
	}
	m.c.Export, m.c.Format, m.c.Made, m.c.Maker = m.hex(16), packageFormat, "2026-11-02T09:00:00Z", "test <&> \"é\""
	m.c.Origin, m.c.Salt, m.c.Tenant = custody.Origin(tenant), m.hex(16), tenant
	return signed(m.t, m.files, m.c, m.signer)
}

// proof writes proof/ and the extract, at a size of the log.
func (m *maker) proof(size int) {
	cp := m.log.at[size]
	m.files["proof/checkpoint"] = cp.Text()
	var leaves, extract, objects strings.Builder
	for i, place := range m.records {
		b, err := m.log.records[place].Encode()
		if err != nil {
			m.t.Fatal(err)
		}
		m.files[fmt.Sprintf("proof/records/%06d.json", i)] = b
		fmt.Fprintf(&extract, "%s\n", b)
		fmt.Fprintf(&leaves, "%06d %d %s\n", i, place, m.log.records[place].ID)
		m.files[fmt.Sprintf("proof/inclusion/%06d.txt", i)] = []byte(m.inclusion(cp, place))
	}
	slices.Sort(m.opened)
	for _, o := range m.opened {
		p := strings.Fields(o)
		fmt.Fprintf(&objects, "%s %s %s\n", p[1], p[2], p[0])
	}
	m.files["proof/leaves.txt"], m.files["proof/objects.txt"] = []byte(leaves.String()), []byte(objects.String())
	m.files["custody/extract.ndjson"] = []byte(extract.String())
	for _, older := range m.olders {
		p, err := custody.NewTree(m.log.tiles, cp).ProveConsistency(m.t.Context(), int64(older))
		if err != nil {
			m.t.Fatal(err)
		}
		var b strings.Builder
		for _, h := range p {
			fmt.Fprintf(&b, "%x\n", h[:])
		}
		m.files[fmt.Sprintf("proof/consistency/%d.txt", older)] = []byte(b.String())
	}
}

// inclusion writes a proof with its sides. It finds them by folding both ways, and not as
// the verifier does.
func (m *maker) inclusion(cp custody.Checkpoint, place int) string {
	p, err := custody.NewTree(m.log.tiles, cp).ProveInclusion(m.t.Context(), int64(place))
	if err != nil {
		m.t.Fatal(err)
	}
	d, err := m.log.records[place].Digest()
	if err != nil {
		m.t.Fatal(err)
	}
	for sides := range 1 << len(p) {
		at := sha256.Sum256(append([]byte{0}, d[:]...))
		var b strings.Builder
		for i, h := range p {
			if sides>>i&1 == 0 {
				at = sha256.Sum256(slices.Concat([]byte{1}, at[:], h[:]))
				fmt.Fprintf(&b, "R %x\n", h[:])
			} else {
				at = sha256.Sum256(slices.Concat([]byte{1}, h[:], at[:]))
				fmt.Fprintf(&b, "L %x\n", h[:])
			}
		}
		if custody.Digest(at) == cp.Root {
			return b.String()
		}
	}
	m.t.Fatalf("leaf %d of %d: no sides fold to the root", place, cp.Size)
	return ""
}

// signed writes the key, both signatures, SHA256SUMS and package.json over files.
func signed(t testing.TB, files map[string][]byte, c contents, s signer) map[string][]byte {
	t.Helper()
	out := maps.Clone(files)
	maps.DeleteFunc(out, func(name string, _ []byte) bool { return strings.HasPrefix(name, "keys/") })
	kid, key := s.pem(t)
	out["keys/"+kid+".pem"] = key
	c.Key = kid
	out["proof/checkpoint.sig"] = s.sign(t, out["proof/checkpoint"])
	return resigned(t, out, c, s)
}

// resigned writes SHA256SUMS, package.json and its signature over files as they are.
func resigned(t testing.TB, files map[string][]byte, c contents, s signer) map[string][]byte {
	t.Helper()
	return over(t, with(files, sumsName, to(sumsOf(files))), c, s)
}

// over writes package.json and its signature over SHA256SUMS as it is.
func over(t testing.TB, files map[string][]byte, c contents, s signer) map[string][]byte {
	t.Helper()
	out := maps.Clone(files)
	c.Sums = fmt.Sprintf("%x", sha256.Sum256(out[sumsName]))
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(c); err != nil {
		t.Fatal(err)
	}
	out[packageName] = bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	out[signatureName] = s.sign(t, out[packageName])
	return out
}

func sumsOf(files map[string][]byte) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name != packageName && name != signatureName && name != sumsName {
			fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(files[name]), name)
		}
	}
	return b.Bytes()
}

// inMemory is the package of these files.
func inMemory(files map[string][]byte) (*pkg, error) {
	var list []*file
	for name, b := range files {
		list = append(list, &file{name: name, size: int64(len(b)), open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }})
	}
	return index(list)
}

// verifyFiles verifies these files.
func verifyFiles(files map[string][]byte, t trust) *report {
	p, err := inMemory(files)
	if err != nil {
		r := &report{}
		r.fail("container", err)
		return r
	}
	return verify(p, t)
}

// verifyZip verifies the bytes of a ZIP file.
func verifyZip(b []byte, t trust) *report {
	files, err := zipFiles(bytes.NewReader(b), int64(len(b)))
	p, err := packageOf(files, err, func() error { return nil })
	if err != nil {
		r := &report{}
		r.fail("container", err)
		return r
	}
	return verify(p, t)
}

// zipped writes files as a ZIP file, every other one deflated.
func zipped(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i, name := range slices.Sorted(maps.Keys(files)) {
		h := &zip.FileHeader{Name: name, Method: zip.Store, Modified: time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)}
		if i%2 == 0 {
			h.Method = zip.Deflate
		}
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
