package export_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
)

// parcel is the files of a package by name.
type parcel map[string][]byte

// only returns the one name that begins and ends so.
func (p parcel) only(t *testing.T, prefix, suffix string) string {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, suffix) {
			return name
		}
	}
	t.Fatalf("no %s*%s", prefix, suffix)
	return ""
}

// edit replaces a text that must be there, once.
func (p parcel) edit(t *testing.T, name, old, with string) {
	t.Helper()
	if !bytes.Contains(p[name], []byte(old)) {
		t.Fatalf("%s does not hold %q", name, old)
	}
	p[name] = bytes.Replace(p[name], []byte(old), []byte(with), 1)
}

// drop takes out the files whose names begin so.
func (p parcel) drop(prefix string) {
	maps.DeleteFunc(p, func(name string, _ []byte) bool { return strings.HasPrefix(name, prefix) })
}

// signed brings the sums into order and signs all of it with the right key, as a dishonest
// exporter could, and writes it below a new directory.
func (r *rig) signed(t *testing.T, p parcel) string {
	t.Helper()
	sign := func(text, signature string) {
		digest := sha256.Sum256(p[text])
		der, err := lowSign(r.signer.key, digest[:])
		r.must(err)
		p[signature] = der
	}
	sign("proof/checkpoint", "proof/checkpoint.sig")
	was := sha256.Sum256(p["SHA256SUMS"])
	var sums bytes.Buffer
	for _, n := range slices.Sorted(maps.Keys(p)) {
		if n != "package.json" && n != "package.sig" && n != "SHA256SUMS" {
			fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(p[n]), n)
		}
	}
	is := sha256.Sum256(sums.Bytes())
	p["SHA256SUMS"] = sums.Bytes()
	p["package.json"] = bytes.ReplaceAll(p["package.json"], []byte(hex.EncodeToString(was[:])), []byte(hex.EncodeToString(is[:])))
	sign("package.json", "package.sig")
	dir := t.TempDir()
	for name, b := range p {
		path := filepath.Join(dir, filepath.FromSlash(name))
		r.must(os.MkdirAll(filepath.Dir(path), 0o755))
		r.must(os.WriteFile(path, b, 0o644))
	}
	return dir
}

// TestAnExporterWithTheRightKeyCannotLieAboutWhatTheLogBinds: the signature of a package is
// worth as much as its signer, and the log does not depend on it.
func TestAnExporterWithTheRightKeyCannotLieAboutWhatTheLogBinds(t *testing.T) {
	r := newRig(t)
	chat, call := r.chat(2), r.call()
	r.chat(1)
	r.sequence()
	_, b := r.built(r.order(policy.ExportOrder{}, chat, call))
	good := parcel(files(t, b))
	second := secondVerifier(t)
	batch := fmt.Sprintf("evidence/%s/", chat)
	forget := func(p parcel) {
		p.drop("proof/records/")
		p.drop("proof/inclusion/")
		for _, name := range []string{"proof/leaves.txt", "custody/extract.ndjson"} {
			p[name] = nil
		}
	}
	for what, lie := range map[string]struct {
		want string
		do   func(t *testing.T, p parcel)
	}{
		"nothing":            {"VERIFIED", func(*testing.T, parcel) {}},
		"no record is there": {"FAILED: 6: no record binds", func(_ *testing.T, p parcel) { forget(p) }},
		"nothing was ever promised": {"FAILED: 6: no record binds", func(t *testing.T, p parcel) {
			forget(p)
			p.edit(t, "package.json", `"objects":2`, `"objects":1`)
			last := p.only(t, batch+"000001-", ".batch")
			delete(p, last)
			lines := strings.SplitAfter(string(p["proof/objects.txt"]), "\n")
			p["proof/objects.txt"] = []byte(strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, last) }), ""))
			p["package.json"] = dropFrom(p["package.json"], last)
		}},
		"the last batch was never promised": {"FAILED: 7: a record binds number 1", func(t *testing.T, p parcel) {
			p.edit(t, "package.json", `"objects":2`, `"objects":1`)
			last := p.only(t, batch+"000001-", ".batch")
			delete(p, last)
			lines := strings.SplitAfter(string(p["proof/objects.txt"]), "\n")
			p["proof/objects.txt"] = []byte(strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, last) }), ""))
			p["package.json"] = dropFrom(p["package.json"], last)
		}},
		"a batch is left out": {"FAILED: 7: number 1", func(t *testing.T, p parcel) {
			last := p.only(t, batch+"000001-", ".batch")
			delete(p, last)
			lines := strings.SplitAfter(string(p["proof/objects.txt"]), "\n")
			p["proof/objects.txt"] = []byte(strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, last) }), ""))
			p["package.json"] = dropFrom(p["package.json"], last)
		}},
		"a batch of his own, well opened": {"FAILED: 6: no record binds", func(t *testing.T, p parcel) {
			name := p.only(t, batch+"000000-", ".batch")
			p.edit(t, name, "message 0", "massage 0")
			var blind [32]byte
			commit := evidence.Commitment(blind, sha256.Sum256(p[name]))
			lines := strings.SplitAfter(string(p["proof/objects.txt"]), "\n")
			for i, l := range lines {
				if strings.HasSuffix(l, " "+name+"\n") {
					lines[i] = fmt.Sprintf("%x %x %s\n", commit, blind, name)
				}
			}
			p["proof/objects.txt"] = []byte(strings.Join(lines, ""))
		}},
		"a bundle is left out": {"FAILED: 8: ", func(t *testing.T, p parcel) {
			name := p.only(t, "evidence/leg-", ".bundle")
			delete(p, name)
			p["package.json"] = dropFrom(p["package.json"], name)
		}},
		"a bundle of his own": {"FAILED: 8: ", func(t *testing.T, p parcel) {
			name := p.only(t, "evidence/leg-", ".bundle")
			p[name] = append(slices.Clone(p[name]), 0)
		}},
		"a leaf of another index": {"FAILED: 5: proof/inclusion/", func(t *testing.T, p parcel) {
			lines := strings.Split(strings.TrimSpace(string(p["proof/leaves.txt"])), "\n")
			var n, id string
			var at int64
			if _, err := fmt.Sscan(lines[len(lines)-1], &n, &at, &id); err != nil {
				t.Fatal(err)
			}
			// The log goes on behind it, so that the next index is one.
			p.edit(t, "proof/leaves.txt", fmt.Sprintf("%s %d ", n, at), fmt.Sprintf("%s %d ", n, at+1))
		}},
		"a step from the other side": {"FAILED: 5: proof/inclusion/000000.txt", func(t *testing.T, p parcel) {
			p.edit(t, "proof/inclusion/000000.txt", "R ", "L ")
		}},
		"a record of his own": {"FAILED: 5: ", func(t *testing.T, p parcel) {
			p.edit(t, "proof/records/000000.json", `"action":"seal"`, `"action":"read"`)
			p.edit(t, "custody/extract.ndjson", `"action":"seal"`, `"action":"read"`)
		}},
		"an extract of his own": {"FAILED: 9: custody/extract", func(t *testing.T, p parcel) {
			p.edit(t, "custody/extract.ndjson", `"action":"seal"`, `"action":"read"`)
		}},
		"a file that was not made":      {"FAILED: 9: package.json speaks of", func(t *testing.T, p parcel) { p.edit(t, "package.json", `"path":"chat/`, `"path":"chut/`) }},
		"made out of what is not there": {"FAILED: 9: package.json speaks of", func(t *testing.T, p parcel) { p.edit(t, "package.json", `"from":["evidence/`, `"from":["evidance/`) }},
		"evidence of no kind":           {"FAILED: 8: evidence/ holds", func(_ *testing.T, p parcel) { p[batch+"note.txt"] = []byte("x") }},
		"a member nobody knows":         {"FAILED: 3: ", func(t *testing.T, p parcel) { p.edit(t, "package.json", `"format":`, `"extra":"x","format":`) }},
		"a member twice": {"FAILED: 3: ", func(t *testing.T, p parcel) {
			p.edit(t, "package.json", `"made":`, `"made":"2020-01-01T00:00:00Z","made":`)
		}},
		"a blank in package.json":   {"FAILED: 3: ", func(t *testing.T, p parcel) { p.edit(t, "package.json", `"format":`, `"format": `) }},
		"elements that are letters": {"FAILED: 3: ", func(t *testing.T, p parcel) { p.edit(t, "package.json", `"conversations":[`, `"conversations":[C,`) }},
	} {
		t.Run(what, func(t *testing.T) {
			p := maps.Clone(good)
			lie.do(t, p)
			dir := r.signed(t, p)
			if verdict, _ := verify(t, dir, r.fingerprint()); !strings.HasPrefix(verdict, lie.want) {
				t.Errorf("%s, want %s", verdict, lie.want)
			}
			if code, verdict := second("-key", r.fingerprint(), dir); (code == 0) != (lie.want == "VERIFIED") || code > 1 {
				t.Errorf("the program says %d %s, the script is to say %s", code, verdict, lie.want)
			}
		})
	}
}

// dropFrom takes a path out of package.json, wherever something is said to be made from it.
func dropFrom(b []byte, path string) []byte {
	for _, with := range []string{`,"` + path + `"`, `"` + path + `",`, `"` + path + `"`} {
		b = bytes.ReplaceAll(b, []byte(with), nil)
	}
	return b
}

// TestIntactPackagesOfEveryShapePassInEveryShell: no false alarm.
func TestIntactPackagesOfEveryShapePassInEveryShell(t *testing.T) {
	shapes := map[string]func(r *rig) policy.ExportOrder{
		"a log of one record": func(r *rig) policy.ExportOrder {
			id := r.batch(graphMessage("19:one@thread.v2", "1", "1", day, "x", nil))
			r.sequence()
			return r.order(policy.ExportOrder{}, id)
		},
		"a chat with an edit": func(r *rig) policy.ExportOrder {
			id := r.chat(3)
			r.sequence()
			return r.order(policy.ExportOrder{}, id)
		},
		"a chat with files": func(r *rig) policy.ExportOrder {
			id, _ := r.chatWithFiles()
			r.sequence()
			return r.order(policy.ExportOrder{}, id)
		},
		"a call": func(r *rig) policy.ExportOrder {
			id := r.call()
			r.sequence()
			return r.order(policy.ExportOrder{}, id)
		},
		"chats and a call, read before": func(r *rig) policy.ExportOrder {
			ids := []conversation.ID{r.chat(1), r.call(), r.chat(2)}
			for _, action := range []custody.Action{custody.Read, custody.Denied} {
				_, err := r.log().Append(r.t.Context(), custody.Event{Tenant: tenant, Action: action, Actor: rita, Item: string(ids[0]), Reason: "=1+1 \"quoted\" \\ über\u00a0", Session: "s"})
				r.must(err)
			}
			r.sequence()
			return r.order(policy.ExportOrder{}, ids...)
		},
		"a log of several tiles": func(r *rig) policy.ExportOrder {
			first := r.chat(1)
			for range 300 {
				_, err := r.log().Append(r.t.Context(), custody.Event{Tenant: tenant, Action: custody.List, Actor: rita, Item: "listing"})
				r.must(err)
			}
			r.sequence()
			last := r.chat(1)
			r.sequence()
			return r.order(policy.ExportOrder{Checkpoints: []int64{1, 7, 256, 300, 1 << 40}}, first, last)
		},
		"a long text that shrinks to nothing": func(r *rig) policy.ExportOrder {
			id := r.batch(graphMessage("19:long@thread.v2", "1", "1", day, strings.Repeat("a", 3<<20), nil))
			r.sequence()
			return r.order(policy.ExportOrder{}, id)
		},
	}
	second := secondVerifier(t)
	for what, shape := range shapes {
		r := newRig(t)
		_, b := r.built(shape(r))
		withinTheFormat(t, what, b)
		dir := unpack(t, b)
		file := filepath.Join(t.TempDir(), "package.zip")
		r.must(os.WriteFile(file, b, 0o600))
		for _, at := range []string{file, dir} {
			if code, verdict := second("-key", r.fingerprint(), at); code != 0 {
				t.Errorf("%s, the program on %s: %d %s", what, filepath.Base(at), code, verdict)
			}
		}
		for _, shell := range []string{"sh", "dash", "bash"} {
			if _, err := exec.LookPath(shell); err != nil && shell != "sh" {
				continue // sh is everywhere, the others are where they are
			}
			if verdict, code := verifyWith(t, shell, dir, r.fingerprint()); code != 0 || verdict != "VERIFIED" {
				t.Errorf("%s, %s: %d %s", what, shell, code, verdict)
			}
		}
	}
}

// withinTheFormat checks what section 1 of the format says of the container.
func withinTheFormat(t *testing.T, what string, b []byte) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		if f.Method != zip.Store && f.Method != zip.Deflate || f.Comment != "" || f.FileInfo().IsDir() || !nameForm.MatchString(f.Name) {
			t.Errorf("%s: %q, method %d", what, f.Name, f.Method)
		}
		if f.UncompressedSize64 > 1<<20 && f.UncompressedSize64 > 100*f.CompressedSize64 {
			t.Errorf("%s: %s: %d bytes of %d look like a bomb", what, f.Name, f.UncompressedSize64, f.CompressedSize64)
		}
	}
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_-])?(/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_-])?){0,4}$`)
