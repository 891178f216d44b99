package azurite

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// stampFile, in node_modules, names the lock file the modules were installed by.
const stampFile = ".installed-by"

// Install brings Azurite into tests/local/azurite/node_modules with npm ci,
// unless what is there was installed by the present package-lock.json. npm's
// output goes to log. It may be called by several processes at once: one
// installs, the others wait. The working directory must be inside this module.
func Install(ctx context.Context, log io.Writer) error {
	dir, err := folder()
	if err != nil {
		return err
	}
	return install(ctx, dir, log)
}

func install(ctx context.Context, dir string, log io.Writer) error {
	want, err := stamp(dir)
	if err != nil {
		return err
	}
	if installed(dir, want) {
		return nil
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".install.lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("lock azurite folder: %w", err)
	}
	defer lock.Close() // which also unlocks it
	if err := acquire(ctx, lock); err != nil {
		return fmt.Errorf("lock azurite folder: %w", err)
	}
	if installed(dir, want) {
		return nil
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund",
		"--engine-strict=false", "--loglevel=error") // Azurite asks for Node 22 and runs on 20.19
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("install azurite with npm: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "node_modules"), 0o755); err != nil { // npm makes none for a package without dependencies
		return fmt.Errorf("stamp azurite modules: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "node_modules", stampFile), []byte(want), 0o644); err != nil {
		return fmt.Errorf("stamp azurite modules: %w", err)
	}
	return nil
}

// acquire waits for the lock on f, which lasts until f is closed.
func acquire(ctx context.Context, f *os.File) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := tryLock(f)
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func stamp(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return "", fmt.Errorf("read azurite lock file: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

func installed(dir, want string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "node_modules", stampFile))
	return err == nil && string(b) == want
}

// folder finds this package's folder from the working directory, so that a
// binary built with -trimpath finds it too.
func folder() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find azurite folder: %w", err)
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module steno\n") {
			return filepath.Join(dir, "tests", "local", "azurite"), nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("find azurite folder: %w", err)
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find azurite folder: %s is not inside the module", wd)
		}
	}
}
