package bench_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

var stageOnce struct {
	sync.Once
	dir string
	err error
}

// appDir stages the built app once.
func appDir(t *testing.T) string {
	t.Helper()
	stageOnce.Do(func() {
		stageOnce.dir = filepath.Join(t.TempDir(), "app")
		cmd := exec.Command("go", "run", "./infra/package", "-out", stageOnce.dir)
		cmd.Dir = "../.."
		if out, err := cmd.CombinedOutput(); err != nil {
			stageOnce.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	if stageOnce.err != nil {
		t.Fatal(stageOnce.err)
	}
	return stageOnce.dir
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
