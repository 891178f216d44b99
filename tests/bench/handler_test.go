package bench_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// stagedIn is what TestMain removes in the end, empty if nothing was staged.
var stagedIn string

// staged stages the built app once a process.
var staged = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "steno-bench-")
	if err != nil {
		return "", err
	}
	stagedIn = dir
	dir = filepath.Join(dir, "app")
	cmd := exec.Command("go", "run", "./infra/package", "-out", dir)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

func appDir(t *testing.T) string {
	t.Helper()
	dir, err := staged()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestHandlerIsReadyInTime measures from the start of the process to its first answer.
func TestHandlerIsReadyInTime(t *testing.T) {
	w := startWorld(t)
	best := w.Host.ReadyIn()
	fmt.Printf("\n%-44s %12s\n", "handler ready after start", best.Round(time.Millisecond))
	if best > 300*time.Millisecond {
		t.Errorf("ready in %s, want within 300ms", best)
	}
}
