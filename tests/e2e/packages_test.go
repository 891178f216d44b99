package e2e_test

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/tests/sim"
	"steno/tests/world"
)

// TestAnOutsiderVerifiesAnExportOfTheBuiltAppWithAFingerprintAlone: a compliance officer
// orders chats through the API; both verifiers, neither of which is the app, agree.
func TestAnOutsiderVerifiesAnExportOfTheBuiltAppWithAFingerprintAlone(t *testing.T) {
	w, _ := start(t, world.Config{Sim: sim.Config{Seed: 11, People: 12, Messages: 120}})
	runTimer(t, w, "groupsync")
	export(t, w)
	a, err := w.Archive()
	if err != nil {
		t.Fatal(err)
	}
	page, err := a.Catalog.ByTime(t.Context(), time.Now().AddDate(0, 0, -20), time.Now().Add(time.Hour), conversation.PageRequest{Limit: 12})
	if err != nil || len(page.Conversations) < 5 {
		t.Fatalf("%d conversations, %v", len(page.Conversations), err)
	}
	var ids []conversation.ID
	for _, c := range page.Conversations {
		ids = append(ids, c.ID)
	}
	officer := w.Person(w.Officers()[0])
	b, err := w.Package(t.Context(), officer, ids...)
	if err != nil {
		t.Fatal(err)
	}
	fingerprint, err := w.Fingerprint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "package.zip")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	unpacked := unzip(t, b)
	script, err := filepath.Abs("../../functions/export/verify.sh")
	if err != nil {
		t.Fatal(err)
	}
	verifier := filepath.Join(dir, "verify")
	if out, err := exec.Command("go", "build", "-o", verifier, "../../shared/custody/verify").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	trusted, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	inside, err := os.ReadFile(filepath.Join(unpacked, "VERIFY.sh"))
	if err != nil || !bytes.Equal(inside, trusted) {
		t.Fatalf("VERIFY.sh in the package is not that of the sources: %v", err)
	}
	verdicts := func() (shell, program string) {
		s := exec.CommandContext(t.Context(), "sh", "VERIFY.sh", fingerprint)
		s.Dir = unpacked
		one, _ := s.CombinedOutput() // a refusal is an exit code; its words are what is compared
		two, _ := exec.CommandContext(t.Context(), verifier, "-key", fingerprint, unpacked).CombinedOutput()
		return lastLine(one), lastLine(two)
	}
	if shell, program := verdicts(); shell != "VERIFIED" || !strings.HasPrefix(program, "VERIFIED") {
		t.Fatalf("script: %s; program: %s", shell, program)
	}
	if out, err := exec.CommandContext(t.Context(), verifier, "-key", fingerprint, file).CombinedOutput(); err != nil {
		t.Fatalf("the package as it was downloaded: %v\n%s", err, out)
	}
	batches, err := filepath.Glob(filepath.Join(unpacked, "evidence", "*", "*.batch"))
	if err != nil || len(batches) < len(ids) {
		t.Fatalf("%d batches, %v", len(batches), err)
	}
	body, err := os.ReadFile(batches[0])
	if err != nil {
		t.Fatal(err)
	}
	body[len(body)/2] ^= 1
	if err := os.WriteFile(batches[0], body, 0o600); err != nil {
		t.Fatal(err)
	}
	if shell, program := verdicts(); !strings.HasPrefix(shell, "FAILED") || !strings.HasPrefix(program, "FAILED") {
		t.Errorf("one bit of the evidence was changed; script: %s; program: %s", shell, program)
	}
	var trail struct{ Events []custody.Record }
	if err := w.API(t.Context(), officer, "custody?action=export&limit=1000", nil, &trail); err != nil {
		t.Fatal(err)
	}
	if len(trail.Events) < len(ids)+2 { // each conversation, the package, and its fetching
		t.Errorf("%d events of %d conversations' export", len(trail.Events), len(ids))
	}
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

func unzip(t *testing.T, b []byte) string {
	t.Helper()
	dir := t.TempDir()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
