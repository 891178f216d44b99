package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"steno/shared/custody"
)

// unpack writes files into a directory.
func unpack(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func write(t *testing.T, b []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestIntactPackagesVerifyInEveryContainer(t *testing.T) {
	for _, s := range shapes(t, 1) {
		t.Run(s.name, func(t *testing.T) {
			args := []string{"-key", strings.ToUpper(s.trust.key)}
			if s.trust.checkpoint != nil {
				args = append(args, "-checkpoint", write(t, s.trust.checkpoint), "-signature", write(t, s.trust.signature))
			}
			for what, name := range map[string]string{"directory": unpack(t, s.files), "ZIP": write(t, zipped(t, s.files))} {
				var out, usage strings.Builder
				if got := run(append(args, name), &out, &usage); got != s.want {
					t.Errorf("%s: exit %d, want %d\n%s%s", what, got, s.want, out.String(), usage.String())
				}
				out.Reset()
				if got := run([]string{name}, &out, &usage); got != exitUnverified || !strings.Contains(out.String(), "UNVERIFIED: no fingerprint was given") {
					t.Errorf("%s without a fingerprint: exit %d\n%s", what, got, out.String())
				}
			}
		})
	}
}

// refused checks that files fail, with all of these words in the reason.
func refused(t *testing.T, what string, r *report, words ...string) {
	t.Helper()
	if r.exitCode() != exitFailed {
		t.Errorf("%s: exit %d", what, r.exitCode())
		return
	}
	for _, w := range words {
		if !strings.Contains(r.failed+": "+r.failure.Error(), w) {
			t.Errorf("%s: %s: %v; want %q in it", what, r.failed, r.failure, w)
		}
	}
}

// with returns files with one of them changed.
func with(files map[string][]byte, name string, change func(b []byte) []byte) map[string][]byte {
	out := maps.Clone(files)
	out[name] = change(bytes.Clone(out[name]))
	return out
}

func to(b []byte) func([]byte) []byte { return func([]byte) []byte { return b } }

func shapeOf(t *testing.T, name string) *shape {
	t.Helper()
	for _, s := range shapes(t, 2) {
		if s.name == name {
			return s
		}
	}
	t.Fatalf("no shape %q", name)
	return nil
}

func TestAForgedPackageThatIsConsistentInItselfIsNeverVerified(t *testing.T) {
	s := shapeOf(t, "one chat")
	files := with(s.files, "VERIFY.sh", to([]byte("#!/bin/sh\necho VERIFIED\n")))
	forged := signed(t, files, s.c, newSigner(t))
	refused(t, "with the true fingerprint", verifyFiles(forged, s.trust), "2 key", "not with the one that was named")
	if r := verifyFiles(forged, trust{}); r.exitCode() != exitUnverified {
		t.Errorf("without a fingerprint: exit %d, %v", r.exitCode(), r.failure)
	}
}

func TestSHA256SUMSHasOneSpelling(t *testing.T) {
	s := shapeOf(t, "several units")
	sums := string(s.files[sumsName])
	lines := strings.SplitAfter(sums, "\n")
	for what, bad := range map[string]string{
		"garbage line":      "anything else\n" + sums,
		"garbage at end":    sums + "anything else\n",
		"line twice":        lines[0] + sums,
		"another order":     lines[1] + lines[0] + strings.Join(lines[2:], ""),
		"one space":         strings.Replace(sums, "  ", " ", 1),
		"binary mark":       strings.Replace(sums, "  ", " *", 1),
		"upper case":        strings.ToUpper(sums[:64]) + sums[64:],
		"no last line end":  strings.TrimSuffix(sums, "\n"),
		"carriage returns":  strings.ReplaceAll(sums, "\n", "\r\n"),
		"empty line":        sums + "\n",
		"a line left out":   strings.Join(lines[1:], ""),
		"path out of it":    sums + strings.Repeat("a", 64) + "  ../x\n",
		"lists itself":      sums + strings.Repeat("a", 64) + "  SHA256SUMS\n",
		"lists a lost file": strings.Repeat("a", 64) + "  AAA\n" + sums,
	} {
		// Signed by the true key: what is refused is the spelling, not the signature.
		files := over(t, with(s.files, sumsName, to([]byte(bad))), s.c, s.signer)
		refused(t, what, verifyFiles(files, s.trust), "1 container")
	}
}

func TestPackageJSONHasOneSpelling(t *testing.T) {
	s := shapeOf(t, "several units")
	text := string(s.files[packageName])
	replace := func(old, now string) string {
		out := strings.Replace(text, old, now, 1)
		if out == text {
			t.Fatalf("%s is not in %s", old, text)
		}
		return out
	}
	sums := fmt.Sprintf(`"sums":"%x"`, sha256.Sum256(s.files[sumsName]))
	for what, bad := range map[string]string{
		"member in another case beside it": replace(sums, `"SUMS":"aa",`+sums),
		"member in another case":           replace(`"sums"`, `"Sums"`),
		"member twice":                     replace(sums, sums+","+sums),
		"member twice, first another":      replace(sums, `"sums":"`+strings.Repeat("a", 64)+`",`+sums),
		"unknown member":                   replace(`{"conv`, `{"a":1,"conv`),
		"unknown member inside":            replace(`"modality":`, `"a":1,"modality":`),
		"space":                            replace(`{"conv`, `{ "conv`),
		"line end":                         text + "\n",
		"second document":                  text + "{}",
		"other order":                      replace(`"format":"steno-export-package/1","key":"`+s.c.Key+`"`, `"key":"`+s.c.Key+`","format":"steno-export-package/1"`),
		"escape that needs none":           replace(`"chat"`, `"c\u0068at"`),
		"slash escaped":                    replace(`package/1`, `package\/1`),
		"HTML escaped":                     replace(`<&>`, `\u003c\u0026\u003e`),
		"number with a fraction":           replace(`"objects":2`, `"objects":2.0`),
		"null for an array":                replace(`"unproven":[]`, `"unproven":null`),
		"array left out":                   replace(`,"unproven":[]`, ``),
		"line separator":                   replace(`test <`, "test \u2028<"),
		"broken UTF-8":                     replace(`test <`, "test \xff<"),
		"another format":                   replace(`package/1`, `package/2`),
		"another origin":                   replace(`steno-custody-log-v1/1`, `steno-custody-log-v1/2`),
		"time with an offset":              replace(`09:00:00Z`, `10:00:00+01:00`),
		"more objects than there are":      replace(`"objects":2`, `"objects":3`),
		"fewer objects than there are":     replace(`"objects":2`, `"objects":1`),
		"a negative number of objects":     replace(`"objects":2`, `"objects":-2`),
		"a huge number of objects":         replace(`"objects":2`, `"objects":9000000`),
		"a unit twice":                     replace(`"a-20261102"`, `"a-20261101"`),
		"a derived file that is not there": replace(`chat/a.html`, `chat/b.html`),
		"a source that is not evidence":    replace(`"from":["evidence/a`, `"from":["proof/a`),
	} {
		files := maps.Clone(s.files)
		files[packageName] = []byte(bad)
		files[signatureName] = s.signer.sign(t, files[packageName])
		refused(t, what, verifyFiles(files, s.trust))
	}
}

func TestASignatureOverOneThingIsNoneOverAnother(t *testing.T) {
	s := shapeOf(t, "one chat")
	// The signature of package.json as that of the checkpoint, and the other way round, in a
	// package whose digests are all in order.
	files := with(s.files, "proof/checkpoint.sig", to(s.files[signatureName]))
	refused(t, "package signature on the checkpoint", verifyFiles(resigned(t, files, s.c, s.signer), s.trust), "4 checkpoint", "proof/checkpoint.sig")
	files = with(s.files, signatureName, to(s.files["proof/checkpoint.sig"]))
	refused(t, "checkpoint signature on the package", verifyFiles(files, s.trust), "3 signature", signatureName)
	// The texts themselves in each other's place, each with the signature that is true for it.
	files = with(s.files, "proof/checkpoint", to(s.files[packageName]))
	files["proof/checkpoint.sig"] = s.files[signatureName]
	refused(t, "package.json as checkpoint", verifyFiles(resigned(t, files, s.c, s.signer), s.trust), "4 checkpoint", "proof/checkpoint")
	files = with(s.files, packageName, to(s.files["proof/checkpoint"]))
	files[signatureName] = s.files["proof/checkpoint.sig"]
	refused(t, "checkpoint as package.json", verifyFiles(files, s.trust), "3 signature", packageName)
}

func TestALeafAtAnotherPlaceOrSizeIsRefused(t *testing.T) {
	s := shapeOf(t, "one chat")
	insider := func(name string, change func(b []byte) []byte) map[string][]byte {
		return resigned(t, with(s.files, name, change), s.c, s.signer)
	}
	leaves := strings.Fields(string(s.files[leavesName]))
	place, err := strconv.Atoi(leaves[1])
	if err != nil {
		t.Fatal(err)
	}
	at := func(n int) func([]byte) []byte {
		return func(b []byte) []byte {
			return bytes.Replace(b, fmt.Appendf(nil, "000000 %d ", place), fmt.Appendf(nil, "000000 %d ", n), 1)
		}
	}
	first := "proof/inclusion/000000.txt"
	for what, files := range map[string]map[string][]byte{
		"the leaf before":      insider(leavesName, at(place-1)),
		"a leaf beyond":        insider(leavesName, at(1000)),
		"a negative place":     insider(leavesName, at(-1)),
		"a place in octal":     insider(leavesName, func(b []byte) []byte { return bytes.Replace(b, []byte("000000 "), []byte("000000 0"), 1) }),
		"a proof cut short":    insider(first, func(b []byte) []byte { return b[:len(b)-67] }),
		"a proof without end":  insider(first, func(b []byte) []byte { return b[:len(b)-1] }),
		"a proof with a node":  insider(first, func(b []byte) []byte { return append(b, b[:67]...) }),
		"a proof of no steps":  insider(first, to(nil)),
		"sides exchanged":      insider(first, func(b []byte) []byte { b[0] ^= 'L' ^ 'R'; return b }),
		"a proof in capitals":  insider(first, bytes.ToUpper),
		"no line for a record": insider(leavesName, func(b []byte) []byte { _, b, _ = bytes.Cut(b, []byte("\n")); return b }),
	} {
		refused(t, what, verifyFiles(files, s.trust), "5 records", "proof/")
	}
	smaller := with(s.files, "proof/checkpoint", to(s.log.at[len(s.log.at)-2].Text()))
	refused(t, "size - 1", verifyFiles(signed(t, smaller, s.c, s.signer), s.trust), "5 records", "proof/inclusion/")
	uncovered := with(s.files, "proof/checkpoint", to(s.log.at[place].Text()))
	refused(t, "a checkpoint before the record", verifyFiles(signed(t, uncovered, s.c, s.signer), s.trust), "5 records", "does not cover it")
}

func TestARollbackAndASplitViewNameBothCheckpoints(t *testing.T) {
	s := shapeOf(t, "a kept checkpoint")
	size := len(s.log.at) - 1
	now := s.log.at[size]
	kept := func(size int64, change byte) trust {
		t := s.trust
		cp := custody.Checkpoint{Origin: now.Origin, Size: size}
		if size < int64(len(s.log.at)) {
			cp.Root = s.log.at[size].Root
		}
		cp.Root[3] ^= change
		t.checkpoint, t.signature = cp.Text(), nil
		return t
	}
	for _, older := range []int64{0, 4, 8, 11, int64(size)} {
		if r := verifyFiles(s.files, kept(older, 0)); r.exitCode() != exitVerified {
			t.Errorf("after %d leaves: %v", older, r.failure)
		}
	}
	number := strconv.Itoa
	refused(t, "kept a larger one", verifyFiles(s.files, kept(int64(size)+1, 0)), "10 older checkpoint", "rollback", number(size)+":", number(size+1)+" leaves")
	refused(t, "another root at the same size", verifyFiles(s.files, kept(int64(size), 1)), "split view", now.Root.String())
	refused(t, "another history before", verifyFiles(s.files, kept(8, 1)), "split view", now.Root.String(), "at 8 leaves", "proof/consistency/8.txt")
	refused(t, "no proof for that size", verifyFiles(s.files, kept(9, 0)), "split view", now.Root.String(), "at 9 leaves")
	cut := resigned(t, with(s.files, "proof/consistency/8.txt", func(b []byte) []byte { return b[:len(b)-65] }), s.c, s.signer)
	refused(t, "truncated proof", verifyFiles(cut, kept(8, 0)), "split view", "at 8 leaves")
	foreign := s.trust
	foreign.checkpoint = []byte(strings.Replace(string(s.trust.checkpoint), "v1/1", "v1/2", 1))
	refused(t, "a checkpoint of another log", verifyFiles(s.files, foreign), "older checkpoint", "another log")
	unsigned := s.trust
	unsigned.signature = newSigner(t).sign(t, unsigned.checkpoint)
	refused(t, "a checkpoint with a foreign signature", verifyFiles(s.files, unsigned), "older checkpoint", "signature")
}

func TestWhatIsLeftOutOfAUnitShows(t *testing.T) {
	s := shapeOf(t, "voids")
	drop := func(s *shape, part string) map[string][]byte {
		out := maps.Clone(s.files)
		var lines []string
		for line := range strings.Lines(string(out[objectsName])) {
			if !strings.Contains(line, part) {
				lines = append(lines, line)
			}
		}
		out[objectsName] = []byte(strings.Join(lines, ""))
		maps.DeleteFunc(out, func(name string, _ []byte) bool { return strings.Contains(name, part) })
		return resigned(t, out, s.c, s.signer)
	}
	refused(t, "the first object", verifyFiles(drop(s, "/000000-"), s.trust), "7 completeness", "number 0 of 4 is missing")
	refused(t, "the last object", verifyFiles(drop(s, "/000003-"), s.trust), "7 completeness", "number 3 of 4 is missing")
	call := shapeOf(t, "a call")
	refused(t, "a bundle", verifyFiles(drop(call, "bundles/000002-"), call.trust), "8 bundles", "bundle 2, part 0")
	gone := shapeOf(t, "disposed")
	if r := verifyFiles(gone.files, gone.trust); r.exitCode() != exitVerified {
		t.Errorf("a disposed object: %v", r.failure)
	}
	refused(t, "an object that nothing disposed of", verifyFiles(drop(gone, "/000000-"), gone.trust), "7 completeness", "number 0 of 2 is missing")
}

func TestWrongUsageIsSaidBeforeAnythingIsRead(t *testing.T) {
	s := shapeOf(t, "one chat")
	zip, cp := write(t, zipped(t, s.files)), write(t, s.log.at[1].Text())
	for _, args := range [][]string{
		{}, {zip, zip}, {"-key", "abc", zip}, {"-key", strings.Repeat("g", 64), zip}, {"-signature", cp, zip}, {"-checkpoint", zip + ".none", zip},
		{zip + ".none"}, {"-what", zip}, {"-checkpoint", write(t, make([]byte, 5000)), zip},
	} {
		var out, usage strings.Builder
		if got := run(args, &out, &usage); got != exitUsage || usage.Len() == 0 || out.Len() != 0 {
			t.Errorf("%q: exit %d, %q, %q", args, got, out.String(), usage.String())
		}
	}
}

func TestAKeptCheckpointMayCarryItsSignature(t *testing.T) {
	s := shapeOf(t, "a kept checkpoint")
	four := fmt.Sprintf("%s%s\n", s.trust.checkpoint, base64.StdEncoding.EncodeToString(s.trust.signature))
	var out, usage strings.Builder
	if got := run([]string{"-key", s.trust.key, "-checkpoint", write(t, []byte(four)), write(t, zipped(t, s.files))}, &out, &usage); got != exitVerified {
		t.Errorf("exit %d\n%s%s", got, out.String(), usage.String())
	}
	if !strings.HasSuffix(out.String(), "\nVERIFIED\n") || !strings.Contains(out.String(), "10 older checkpoint: everything of its 11 leaves") {
		t.Error(out.String())
	}
	bad := fmt.Sprintf("%s%s\n", s.trust.checkpoint, base64.StdEncoding.EncodeToString(newSigner(t).sign(t, s.trust.checkpoint)))
	if got := run([]string{"-key", s.trust.key, "-checkpoint", write(t, []byte(bad)), write(t, zipped(t, s.files))}, &out, &usage); got != exitFailed {
		t.Errorf("a foreign signature: exit %d", got)
	}
}
