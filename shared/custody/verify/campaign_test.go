package main

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"maps"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// change makes one change to a package, or to the bytes of its ZIP file; nil if it drew one
// that changes nothing.
type change struct {
	kind string
	make func(c *campaign, s *shape) (files map[string][]byte, what string)
	zip  func(c *campaign, s *shape) (b []byte, what string)
}

type campaign struct {
	t       *testing.T
	rng     *mrand.Rand
	shapes  []*shape
	zips    map[*shape][]byte
	foreign signer
}

// pick draws a file whose name passes.
func (c *campaign) pick(s *shape, pass func(s *shape, name string) bool) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		if pass(s, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return names[c.rng.IntN(len(names))]
}

func every(*shape, string) bool { return true }

// damage changes bytes in one of four ways.
func (c *campaign) damage(b []byte) ([]byte, string) {
	out := bytes.Clone(b)
	switch n := c.rng.IntN(4); {
	case n == 1 && len(b) > 0:
		cut := c.rng.IntN(len(b))
		return out[:cut], fmt.Sprintf("truncated from %d to %d bytes", len(b), cut)
	case n == 2 || len(b) == 0:
		return append(out, byte(c.rng.Uint32())), "a byte longer"
	case n == 3:
		at := c.rng.IntN(len(b))
		return slices.Delete(out, at, at+1), fmt.Sprintf("without byte %d", at)
	}
	at, bit := c.rng.IntN(len(b)), c.rng.IntN(8)
	out[at] ^= 1 << bit
	return out, fmt.Sprintf("bit %d of byte %d flipped", bit, at)
}

// inner says that a change is noticed even if the true key signs the package anew: it is evidence, or
// proof of it. The rest, and objects that no record binds yet, the signature alone protects.
func inner(s *shape, name string) bool {
	for _, u := range s.c.Conversations[0].Units {
		for _, id := range u.Unproven {
			if strings.Contains(name, id) {
				return false
			}
		}
	}
	return strings.HasPrefix(name, "evidence/") || name == "custody/extract.ndjson" || strings.HasPrefix(name, "keys/") ||
		strings.HasPrefix(name, "proof/") && !strings.HasPrefix(name, "proof/consistency/")
}

var changes = []change{
	{kind: "flip, truncate, extend or cut out", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		name, out := c.pick(s, every), maps.Clone(s.files)
		b, how := c.damage(out[name])
		out[name] = b
		return out, name + " " + how
	}},
	{kind: "the same, signed anew with the true key", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		name, out := c.pick(s, inner), maps.Clone(s.files)
		b, how := c.damage(out[name])
		out[name] = b
		return resigned(c.t, out, s.c, s.signer), name + " " + how
	}},
	{kind: "two files swapped", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		a, b, out := c.pick(s, every), c.pick(s, every), maps.Clone(s.files)
		if bytes.Equal(out[a], out[b]) {
			return nil, ""
		}
		out[a], out[b] = out[b], out[a]
		return out, a + " and " + b
	}},
	{kind: "two files swapped, signed anew with the true key", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		a, b, out := c.pick(s, inner), c.pick(s, inner), maps.Clone(s.files)
		if bytes.Equal(out[a], out[b]) {
			return nil, ""
		}
		out[a], out[b] = out[b], out[a]
		return resigned(c.t, out, s.c, s.signer), a + " and " + b
	}},
	{kind: "a file dropped", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		name, out := c.pick(s, every), maps.Clone(s.files)
		delete(out, name)
		return out, name
	}},
	{kind: "a file dropped, signed anew with the true key", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		name, out := c.pick(s, inner), maps.Clone(s.files)
		delete(out, name)
		return resigned(c.t, out, s.c, s.signer), name
	}},
	{kind: "a file added", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		name, out := c.newName(s), maps.Clone(s.files)
		out[name] = []byte("planted")
		return out, name
	}},
	{kind: "a file added, signed anew with the true key", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		name, out := c.newName(s), maps.Clone(s.files)
		out[name] = []byte("planted")
		return resigned(c.t, out, s.c, s.signer), name
	}},
	{kind: "a file of another package", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		other := c.shapes[c.rng.IntN(len(c.shapes))]
		name, out := c.pick(other, every), maps.Clone(s.files)
		if bytes.Equal(out[name], other.files[name]) {
			return nil, ""
		}
		out[name] = other.files[name]
		return out, name + " of " + other.name
	}},
	{kind: "an older checkpoint", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		out, at := maps.Clone(s.files), c.rng.IntN(len(s.log.at)-1)
		out["proof/checkpoint"] = s.log.at[at].Text()
		out["proof/checkpoint.sig"] = s.signer.sign(c.t, out["proof/checkpoint"])
		return out, fmt.Sprintf("%d leaves", at)
	}},
	{kind: "the log rolled back, signed anew with the true key", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		out, at := maps.Clone(s.files), c.rng.IntN(len(s.log.at)-1)
		out["proof/checkpoint"] = s.log.at[at].Text()
		return signed(c.t, out, s.c, s.signer), fmt.Sprintf("to %d leaves", at)
	}},
	{kind: "a foreign key, everywhere", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		name, out := c.pick(s, inner), maps.Clone(s.files)
		out[name], _ = c.damage(out[name])
		return signed(c.t, out, s.c, c.foreign), name
	}},
	{kind: "a foreign key, over an intact package", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		return signed(c.t, s.files, s.c, c.foreign), "all of it"
	}},
	{kind: "a foreign signature", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		name, out := []string{"proof/checkpoint", packageName}[c.rng.IntN(2)], maps.Clone(s.files)
		sig := map[string]string{packageName: signatureName, "proof/checkpoint": "proof/checkpoint.sig"}[name]
		out[sig] = c.foreign.sign(c.t, out[name])
		if name != packageName {
			out = resigned(c.t, out, s.c, s.signer)
		}
		return out, sig
	}},
	{kind: "a signature in its other spelling", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		out := maps.Clone(s.files)
		out[signatureName] = otherS(c.t, out[signatureName], true)
		return out, signatureName
	}},
	{kind: "a member of package.json, signed by a foreign key", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		edited, what := c.edit(s)
		return resigned(c.t, s.files, edited, c.foreign), what
	}},
	{kind: "a member of package.json, not signed", make: func(c *campaign, s *shape) (map[string][]byte, string) {
		edited, what := c.edit(s)
		out := resigned(c.t, s.files, edited, s.signer)
		out[signatureName] = s.files[signatureName]
		return out, what
	}},
	{kind: "bytes of the ZIP file", zip: func(c *campaign, s *shape) ([]byte, string) { return c.damage(c.zips[s]) }},
	{kind: "a byte of the headers of the ZIP file", zip: func(c *campaign, s *shape) ([]byte, string) {
		b := bytes.Clone(c.zips[s])
		heads := headers(b)
		h := heads[c.rng.IntN(len(heads))]
		at, to := h+c.rng.IntN(30), byte(c.rng.Uint32())
		if at >= len(b) || b[at] == to {
			return nil, ""
		}
		b[at] = to
		return b, fmt.Sprintf("byte %d of the header at %d", at-h, h)
	}},
}

// headers are the places of all headers of a ZIP file.
func headers(b []byte) []int {
	var out []int
	for _, sig := range []string{"PK\x01\x02", "PK\x03\x04", "PK\x05\x06", "PK\x07\x08"} {
		for at := 0; ; at++ {
			i := bytes.Index(b[at:], []byte(sig))
			if i < 0 {
				break
			}
			at += i
			out = append(out, at)
		}
	}
	return out
}

// newName draws a name that is not there and could be.
func (c *campaign) newName(s *shape) string {
	u := s.c.Conversations[0].Units[0].Unit
	names := []string{
		"more.txt", "proof/records/000099.json", "proof/inclusion/000099.txt", "proof/x", "keys/" + strings.Repeat("a", 64) + ".pem",
		"evidence/" + u + "/000000-" + strings.Repeat("b", 32) + ".batch", "evidence/" + u + "/000077-" + strings.Repeat("b", 32) + ".batch",
		"evidence/other/000000-" + strings.Repeat("b", 32) + ".manifest", "evidence/" + u + "/bundles/000000-0-" + strings.Repeat("c", 32) + ".bundle",
		"media/extra.mp4", "chat/extra.html", "vcon/x.json", "rsmf/x.zip", "custody/more.csv", "readme.TXT", "proof/consistency/x.txt",
	}
	return names[c.rng.IntN(len(names))]
}

// edit changes one member of package.json.
func (c *campaign) edit(s *shape) (contents, string) {
	e := s.c
	e.Conversations = slices.Clone(e.Conversations)
	conv := &e.Conversations[0]
	conv.Units = slices.Clone(conv.Units)
	switch c.rng.IntN(8) {
	case 0:
		conv.Units[0].Objects++
		return e, "objects"
	case 1:
		conv.ID += "x"
		return e, "id"
	case 2:
		e.Export = strings.Repeat("e", 32)
		return e, "export"
	case 3:
		e.Made = "2026-11-02T09:00:01Z"
		return e, "made"
	case 4:
		e.Maker += "."
		return e, "maker"
	case 5:
		e.Conversations = e.Conversations[1:]
		return e, "conversations"
	case 6:
		conv.Modality += "x"
		return e, "modality"
	}
	e.Salt = strings.Repeat("0", 32)
	return e, "salt"
}

// sameContent says whether archive/zip finds the same names and bytes in b. It is another
// reader than the verifier's.
func sameContent(b []byte, files map[string][]byte) bool {
	r, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil || len(r.File) != len(files) {
		return false
	}
	for _, f := range r.File {
		in, err := f.Open()
		if err != nil {
			return false
		}
		got, err := io.ReadAll(in)
		if want, ok := files[f.Name]; err != nil || !ok || !bytes.Equal(got, want) {
			return false
		}
	}
	return true
}

// TestEverySingleChangeToAPackageIsDetected is the mutation campaign. Changes that leave every name
// and every byte of every file as they were (dates in ZIP headers, how a file is compressed)
// are not changes to the package (FORMAT.md section 1): they are counted apart, and another
// reader confirms that they are what they seem.
func TestEverySingleChangeToAPackageIsDetected(t *testing.T) {
	const seed = 20261126
	const want = 14_000 / slowdown
	start := time.Now()
	c := &campaign{t: t, rng: mrand.New(mrand.NewPCG(seed, 2)), shapes: shapes(t, seed), zips: map[*shape][]byte{}, foreign: newSigner(t)}
	for _, s := range c.shapes {
		c.zips[s] = zipped(t, s.files)
	}
	counts, harmless := map[string]int{}, 0
	for n := 0; n < want; {
		s, ch := c.shapes[c.rng.IntN(len(c.shapes))], changes[c.rng.IntN(len(changes))]
		var r, untrusted *report
		var what string
		if ch.zip != nil {
			b, how := ch.zip(c, s)
			if b == nil || bytes.Equal(b, c.zips[s]) {
				continue
			}
			what, r, untrusted = how, verifyZip(b, s.trust), verifyZip(b, trust{})
			if r.exitCode() == s.want && sameContent(b, s.files) {
				harmless++
				continue
			}
		} else {
			files, how := ch.make(c, s)
			if files == nil || maps.EqualFunc(files, s.files, bytes.Equal) {
				continue
			}
			what, r, untrusted = how, verifyFiles(files, s.trust), verifyFiles(files, trust{})
		}
		if r.exitCode() != exitFailed {
			t.Errorf("seed %d, change %d of %q: %s: %s: exit %d", seed, n, s.name, ch.kind, what, r.exitCode())
		}
		if untrusted.exitCode() == exitVerified {
			t.Errorf("seed %d, change %d of %q: %s: %s: verified without a fingerprint", seed, n, s.name, ch.kind, what)
		}
		counts[ch.kind]++
		n++
	}
	total, alarms, intact := 0, 0, 0
	for _, ch := range changes {
		t.Logf("%6d  %s", counts[ch.kind], ch.kind)
		total += counts[ch.kind]
		if counts[ch.kind] == 0 {
			t.Errorf("seed %d: no change of kind %q was made", seed, ch.kind)
		}
	}
	for more := range uint64(30 / slowdown) {
		for _, s := range shapes(t, seed+1+more) {
			intact++
			if got := verifyFiles(s.files, s.trust); got.exitCode() != s.want {
				alarms++
				t.Errorf("seed %d: intact %q: %v", seed+1+more, s.name, got.failure)
			}
		}
	}
	t.Logf("seed %d: %d changes detected in %s; %d more left every name and byte as they were; %d false alarms in %d intact packages", seed, total, time.Since(start).Round(time.Millisecond), harmless, alarms, intact)
}
