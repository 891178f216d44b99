package export_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"steno/shared/policy"
)

// secondVerifier is shared/custody/verify, which shares no code with this package.
func secondVerifier(t *testing.T) func(args ...string) (int, string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "verify")
	if out, err := exec.Command("go", "build", "-o", program, "steno/shared/custody/verify").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return func(args ...string) (int, string) {
		out, err := exec.Command(program, args...).CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if exit != nil {
			return exit.ExitCode(), string(out)
		}
		return 0, string(out)
	}
}

func TestTheSecondVerifierAgreesAndFindsEveryChange(t *testing.T) {
	const seed, changes = 4711, 150
	r := newRig(t)
	one, call := r.chat(3), r.call()
	r.sequence()
	_, b := r.built(r.order(policy.ExportOrder{}, one, call))
	verifier := secondVerifier(t)
	zip := filepath.Join(t.TempDir(), "package.zip")
	r.must(os.WriteFile(zip, b, 0o600))
	dir := unpack(t, b)
	for _, name := range []string{zip, dir} {
		if code, out := verifier("-key", r.fingerprint(), name); code != 0 {
			t.Fatalf("%s: exit %d\n%s", name, code, out)
		}
		if code, out := verifier(name); code != 3 {
			t.Errorf("%s without a fingerprint: exit %d\n%s", name, code, out)
		}
	}
	var files []string
	r.must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	}))
	rng := rand.New(rand.NewPCG(seed, 0))
	for n := range changes {
		name := files[n%len(files)]
		was, err := os.ReadFile(name)
		r.must(err)
		now := bytes.Clone(was)
		if len(now) == 0 || rng.IntN(4) == 0 {
			now = append(now, 'x')
		} else {
			now[rng.IntN(len(now))] ^= 1 << rng.IntN(8)
		}
		r.must(os.WriteFile(name, now, 0o600))
		if code, out := verifier("-key", r.fingerprint(), dir); code != 1 {
			t.Errorf("seed %d, change %d to %s: exit %d\n%s", seed, n, name, code, out)
		}
		r.must(os.WriteFile(name, was, 0o600))
	}
	if code, out := verifier("-key", r.fingerprint(), dir); code != 0 {
		t.Errorf("as it was again: exit %d\n%s", code, out)
	}
}
