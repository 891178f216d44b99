// Under the race detector memory and time are others; make test runs this without it.

//go:build !race

package export_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"steno/shared/custody"
	"steno/shared/policy"
)

// campaign is a package on disk that is changed in one place at a time.
type campaign struct {
	t     *testing.T
	dir   string
	names []string
	good  map[string][]byte
	other map[string][]byte // the files of another package of the same log
	rng   *rand.Rand
}

func newCampaign(t *testing.T, b, other []byte, seed uint64) *campaign {
	t.Helper()
	c := &campaign{t: t, dir: unpack(t, b), good: map[string][]byte{}, other: map[string][]byte{}, rng: rand.New(rand.NewPCG(seed, 1))}
	read := func(dir string, into map[string][]byte) {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			into[filepath.ToSlash(name)], err = os.ReadFile(path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	read(c.dir, c.good)
	read(unpack(t, other), c.other)
	for name := range c.good {
		c.names = append(c.names, name)
	}
	slices.Sort(c.names)
	return c
}

func (c *campaign) write(name string, b []byte) {
	path := filepath.Join(c.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// restore makes the package what it was.
func (c *campaign) restore() {
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(c.dir, path)
		if err != nil {
			return err
		}
		if _, ours := c.good[filepath.ToSlash(name)]; !ours {
			return os.RemoveAll(path)
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	var dirs []string
	err = filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != c.dir {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	slices.Reverse(dirs) // what lies in a directory comes before it
	for _, dir := range dirs {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			continue
		}
		if err := os.Remove(dir); err != nil {
			c.t.Fatal(err)
		}
	}
	for name, b := range c.good {
		if now, err := os.ReadFile(filepath.Join(c.dir, filepath.FromSlash(name))); err != nil || !bytes.Equal(now, b) {
			if err := os.Remove(filepath.Join(c.dir, filepath.FromSlash(name))); err != nil && !os.IsNotExist(err) {
				c.t.Fatal(err)
			}
			c.write(name, b)
		}
	}
}

// change does one thing to the package, and says what. It reports false if that changed
// nothing.
func (c *campaign) change(r *rig) (what string, changed bool) {
	name := c.names[c.rng.IntN(len(c.names))]
	b := slices.Clone(c.good[name])
	switch kind := c.rng.IntN(13); kind {
	case 0, 1, 2:
		if len(b) == 0 {
			return "", false
		}
		i := c.rng.IntN(len(b))
		b[i] ^= 1 << c.rng.IntN(8)
		c.write(name, b)
		return fmt.Sprintf("bit of byte %d of %s", i, name), true
	case 3:
		if len(b) == 0 {
			return "", false
		}
		n := c.rng.IntN(len(b))
		c.write(name, b[:n])
		return fmt.Sprintf("%s cut to %d", name, n), true
	case 4:
		c.write(name, append(b, byte(c.rng.IntN(256))))
		return name + " longer by a byte", true
	case 5:
		if err := os.Remove(filepath.Join(c.dir, filepath.FromSlash(name))); err != nil {
			c.t.Fatal(err)
		}
		return name + " dropped", true
	case 6:
		second := c.names[c.rng.IntN(len(c.names))]
		if bytes.Equal(c.good[second], b) {
			return "", false
		}
		c.write(name, c.good[second])
		c.write(second, b)
		return name + " and " + second + " exchanged", true
	case 7:
		extra := []string{"evidence/x/000009-00000000000000000000000000000000.batch", "chat/000000/more.html", "more.txt", "proof/records/999999.json", "keys/more.pem", "media/a.mp4"}[c.rng.IntN(6)]
		c.write(extra, b)
		return extra + " added", true
	case 8:
		theirs, ok := c.other[name]
		if !ok || bytes.Equal(theirs, b) {
			return "", false
		}
		c.write(name, theirs)
		return name + " of another package", true
	case 9:
		for _, n := range []string{"proof/checkpoint", "proof/checkpoint.sig"} {
			c.write(n, c.other[n])
		}
		return "checkpoint of another package replayed", !bytes.Equal(c.other["proof/checkpoint"], c.good["proof/checkpoint"])
	case 10:
		return c.resign(r, newSigner(c.t), name, b), true
	case 11:
		return c.lie(r)
	}
	line := []string{"garbage\n", strings.Repeat("0", 64) + "  ../../etc/passwd\n", strings.Repeat("0", 64) + " *README.txt\n", "\n", "# comment\n"}[c.rng.IntN(5)]
	c.write("SHA256SUMS", append(slices.Clone(c.good["SHA256SUMS"]), line...))
	return "SHA256SUMS has one more line: " + strconv.Quote(line), true
}

var kidForm = regexp.MustCompile(`"key":"[0-9a-f]{64}"`)

// lie is an exporter who has the right key and changes what the log has bound: the log
// tells, whatever he signs.
func (c *campaign) lie(r *rig) (string, bool) {
	name := c.names[c.rng.IntN(len(c.names))]
	bound := strings.HasPrefix(name, "evidence/") || strings.HasPrefix(name, "proof/records/") || strings.HasPrefix(name, "proof/inclusion/") ||
		name == "proof/objects.txt" || name == "custody/extract.ndjson"
	if !bound || len(c.good[name]) == 0 {
		return "", false
	}
	return "a lie of the exporter: " + c.resign(r, r.signer, name, slices.Clone(c.good[name])), true
}

// resign changes a file, brings the sums into order, and signs all of it anew: by the
// forger's own key, or by the right one.
func (c *campaign) resign(r *rig, forger *signer, name string, b []byte) string {
	spki, err := x509.MarshalPKIXPublicKey(&forger.key.PublicKey)
	if err != nil {
		c.t.Fatal(err)
	}
	kid := custody.Fingerprint(spki)
	old := r.fingerprint()
	if err := os.Remove(filepath.Join(c.dir, "keys", old+".pem")); err != nil {
		c.t.Fatal(err)
	}
	now := map[string][]byte{}
	for n, g := range c.good {
		now[n] = g
	}
	delete(now, "keys/"+old+".pem")
	now["keys/"+kid+".pem"] = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	if len(b) > 0 && name != "package.json" && name != "package.sig" && name != "SHA256SUMS" && !strings.HasPrefix(name, "keys/") {
		b[c.rng.IntN(len(b))] ^= 1
		now[name] = b
	}
	sign := func(text []byte) []byte {
		sum := sha256.Sum256(text)
		der, err := lowSign(forger.key, sum[:])
		if err != nil {
			c.t.Fatal(err)
		}
		return der
	}
	now["proof/checkpoint.sig"] = sign(now["proof/checkpoint"])
	var sums bytes.Buffer
	var names []string
	for n := range now {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if n != "package.json" && n != "package.sig" && n != "SHA256SUMS" {
			fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(now[n]), n)
		}
	}
	was := sha256.Sum256(c.good["SHA256SUMS"])
	is := sha256.Sum256(sums.Bytes())
	pkg := kidForm.ReplaceAll(now["package.json"], []byte(`"key":"`+kid+`"`))
	pkg = bytes.ReplaceAll(pkg, []byte(hex.EncodeToString(was[:])), []byte(hex.EncodeToString(is[:])))
	now["SHA256SUMS"], now["package.json"], now["package.sig"] = sums.Bytes(), pkg, sign(pkg)
	for n, v := range now {
		c.write(n, v)
	}
	return name + " changed, and all signed by another key"
}

// changes is how many single changes are made: few in every run of the tests, ten thousand
// by "make campaign".
func changes(t *testing.T, few int) int {
	s := os.Getenv("STENO_CAMPAIGN")
	if s == "" {
		return few
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("STENO_CAMPAIGN: %v", err)
	}
	return n
}

// TestEverySingleChangeToAPackageIsFoundByTheScript changes packages of several shapes in
// one place at a time. Intact ones pass before and after.
func TestEverySingleChangeToAPackageIsFoundByTheScript(t *testing.T) {
	const seed = 20260309
	n := changes(t, 300)
	r := newRig(t)
	chats := []string{string(r.chat(2))}
	small, call := r.chat(1), r.call()
	r.sequence()
	_, first := r.built(r.order(policy.ExportOrder{Checkpoints: []int64{1}}, small))
	r.chat(1)
	r.sequence()
	_, withCall := r.built(r.order(policy.ExportOrder{}, call))
	_, several := r.built(r.order(policy.ExportOrder{Conversations: chats}, small))
	key := r.fingerprint()
	start := time.Now()
	var mu sync.Mutex
	made, missed := 0, 0
	var group sync.WaitGroup
	for worker, pair := range [][2][]byte{{first, several}, {withCall, first}, {several, withCall}} {
		group.Go(func() {
			c := newCampaign(t, pair[0], pair[1], seed+uint64(worker))
			intact := func(when string) {
				if verdict, code := verify(t, c.dir, key); code != 0 {
					t.Errorf("an intact package %s: %d %s", when, code, verdict)
				}
			}
			intact("before")
			for mine := 0; mine < n/3; {
				what, changed := c.change(r)
				if changed {
					verdict, code := verify(t, c.dir, key)
					mu.Lock()
					mine++
					made++
					if code != 1 || !strings.HasPrefix(verdict, "FAILED") {
						missed++
						t.Errorf("seed %d, worker %d, change %d: %s: %d %s", seed, worker, mine, what, code, verdict)
					}
					mu.Unlock()
				}
				c.restore()
				if mine%50 == 0 {
					intact("restored") // so that no change is found because of one before it
				}
			}
			intact("after")
		})
	}
	group.Wait()
	t.Logf("seed %d: %d changes, %d missed, %s", seed, made, missed, time.Since(start).Round(time.Millisecond))
}
