package main

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const handlerName = "handler"

// appFunctions says which function belongs to which app when the binary is deployed as several, each with an identity of its own:
// edge is what the internet reaches, capture what touches foreign bytes, keeper what seals and disposes.
var appFunctions = map[string][]string{
	"edge":    {"notifications", "portal"},
	"capture": {"attachments", "chatexport", "compactor", "exportplan", "groupsync", "indexer", "lookback", "lookbacksteps", "notified", "subscriptions"},
	"keeper":  {"export", "finalize", "fixity", "reconcile", "retention", "sequencer"},
}

func appNames() []string { return slices.Sorted(maps.Keys(appFunctions)) }

// plan is what to stage.
type plan struct {
	root, out, zip string
	apps           []string // nil means all
	goos, goarch   string
	skipBuild      bool
	handler        string
}

// executable is the handler's file name. On Windows host.json must be overridden to name it, for the file keeps the Linux name.
func (p *plan) executable() string {
	if p.goos == "windows" {
		return handlerName + ".exe"
	}
	return handlerName
}

// stage checks the sources, builds, and puts the result in place of p.out in one step: on an error p.out is as it was.
func (p *plan) stage(ctx context.Context, log io.Writer) ([]string, error) {
	prefix, err := p.checkHostFile()
	if err != nil {
		return nil, err
	}
	names, err := p.functions(prefix)
	if err != nil {
		return nil, err
	}
	if err := p.checkOut(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(p.out), 0o755); err != nil {
		return nil, fmt.Errorf("stage: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(p.out), ".staging-")
	if err != nil {
		return nil, fmt.Errorf("stage: %w", err)
	}
	err = p.fill(ctx, log, tmp, names)
	if err == nil {
		err = p.swap(tmp)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(tmp))
	}
	return names, nil
}

func (p *plan) fill(ctx context.Context, log io.Writer, dir string, names []string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	if err := copyFile(filepath.Join(dir, "host.json"), filepath.Join(p.root, "host.json"), 0o644); err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return fmt.Errorf("stage %s: %w", name, err)
		}
		if err := copyFile(filepath.Join(dir, name, "function.json"), filepath.Join(p.root, "functions", name, "function.json"), 0o644); err != nil {
			return err
		}
	}
	handler := filepath.Join(dir, p.executable())
	if p.skipBuild {
		if err := copyFile(handler, p.handler, 0o755); err != nil {
			return err
		}
	} else if err := p.build(ctx, log, handler); err != nil {
		return err
	}
	if p.goos == "linux" {
		return checkELF(handler, p.goarch)
	}
	return nil
}

func (p *plan) build(ctx context.Context, log io.Writer, out string) error {
	if err := build(ctx, log, p.root, out, "./functions", p.goos, p.goarch); err != nil {
		return fmt.Errorf("build handler: %w", err)
	}
	return nil
}

// build compiles a command without C, so that it runs wherever its system does.
func build(ctx context.Context, log io.Writer, root, out, command, goos, goarch string) error {
	abs, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", abs, command)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch)
	cmd.Stdout, cmd.Stderr = log, log
	return cmd.Run()
}

// checkHostFile refuses a host.json with which the app would not run or not be safe, and returns its route prefix.
func (p *plan) checkHostFile() (string, error) {
	b, err := os.ReadFile(filepath.Join(p.root, "host.json"))
	if err != nil {
		return "", fmt.Errorf("check host.json: %w", err)
	}
	var file struct {
		Version       string `json:"version"`
		CustomHandler struct {
			Description struct {
				DefaultExecutablePath string `json:"defaultExecutablePath"`
			} `json:"description"`
			EnableProxyingHTTPRequest bool `json:"enableProxyingHttpRequest"`
		} `json:"customHandler"`
		Extensions struct {
			HTTP struct {
				RoutePrefix string `json:"routePrefix"`
			} `json:"http"`
		} `json:"extensions"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return "", fmt.Errorf("check host.json: %w", err)
	}
	var faults []error
	if file.Version != "2.0" {
		faults = append(faults, fmt.Errorf("version is %q, must be 2.0", file.Version))
	}
	// Deployment tools give the executable bit to the zip entry of exactly this name.
	if got := file.CustomHandler.Description.DefaultExecutablePath; got != handlerName {
		faults = append(faults, fmt.Errorf("defaultExecutablePath is %q, must be %q", got, handlerName))
	}
	if !file.CustomHandler.EnableProxyingHTTPRequest {
		faults = append(faults, errors.New("enableProxyingHttpRequest is not set: web requests would arrive in envelopes"))
	}
	if file.Extensions.HTTP.RoutePrefix == "" {
		faults = append(faults, errors.New("routePrefix is empty: web requests could reach the paths of triggers"))
	}
	if err := errors.Join(faults...); err != nil {
		return "", fmt.Errorf("check host.json: %w", err)
	}
	return file.Extensions.HTTP.RoutePrefix, nil
}

var functionName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,127}$`)

// functions returns the names of the functions to stage, sorted, or all that is wrong with them.
func (p *plan) functions(prefix string) ([]string, error) {
	wanted, faults := p.wanted()
	dirs, err := os.ReadDir(filepath.Join(p.root, "functions"))
	if err != nil {
		return nil, fmt.Errorf("find functions: %w", err)
	}
	var names []string
	folded := map[string]string{}
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(p.root, "functions", d.Name(), "function.json"))
		if !d.IsDir() || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = checkFunction(d.Name(), prefix, b)
		}
		if other, twice := folded[strings.ToLower(d.Name())]; twice {
			err = errors.Join(err, fmt.Errorf("differs from %s by case alone", other))
		}
		folded[strings.ToLower(d.Name())] = d.Name()
		app, known := wanted[d.Name()]
		if wanted != nil && !known {
			err = errors.Join(err, errors.New("belongs to none of the apps"))
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("function %s: %w", d.Name(), err))
		}
		if wanted == nil || slices.Contains(p.apps, app) {
			names = append(names, d.Name())
		}
	}
	if len(names) == 0 {
		faults = append(faults, errors.New("no function to stage"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("find functions: %w", err)
	}
	return names, nil
}

// wanted maps each function of a known app to that app, or is nil when all functions are staged.
func (p *plan) wanted() (map[string]string, []error) {
	if p.apps == nil {
		return nil, nil
	}
	var faults []error
	for _, a := range p.apps {
		if appFunctions[a] == nil {
			faults = append(faults, fmt.Errorf("app %q is none of %s", a, strings.Join(appNames(), ", ")))
		}
	}
	of := map[string]string{}
	for app, functions := range appFunctions {
		for _, f := range functions {
			of[f] = app
		}
	}
	return of, faults
}

func checkFunction(name, prefix string, b []byte) error {
	switch {
	case !functionName.MatchString(name):
		return fmt.Errorf("name does not match %s", functionName)
	case name == "host" || name == "admin":
		return errors.New("name is reserved by the host")
	case name == prefix:
		return errors.New("name equals the route prefix")
	}
	var file struct {
		Bindings []struct {
			Type string `json:"type"`
		} `json:"bindings"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return fmt.Errorf("function.json: %w", err)
	}
	triggers := 0
	for _, bd := range file.Bindings {
		if strings.HasSuffix(bd.Type, "Trigger") {
			triggers++
		}
	}
	if triggers != 1 {
		return fmt.Errorf("function.json: %d triggers, must be one", triggers)
	}
	return nil
}

// checkOut refuses to replace a folder that is not a staged app.
func (p *plan) checkOut() error {
	entries, err := os.ReadDir(p.out)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", p.out, err)
	}
	for _, name := range []string{"host.json", "go.mod"} {
		_, err := os.Stat(filepath.Join(p.out, name))
		if staged := name == "host.json"; (err == nil) != staged {
			return fmt.Errorf("check %s: it is not empty and no staged app; it stays", p.out)
		}
	}
	return nil
}

func (p *plan) swap(tmp string) error {
	if err := os.RemoveAll(p.out); err != nil {
		return fmt.Errorf("replace %s: %w", p.out, err)
	}
	if err := os.Rename(tmp, p.out); err != nil {
		return fmt.Errorf("replace %s: %w", p.out, err)
	}
	return nil
}

func copyFile(to, from string, mode fs.FileMode) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	if err := os.WriteFile(to, b, mode); err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	// WriteFile's mode is subject to the umask.
	if err := os.Chmod(to, mode); err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	return nil
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// checkELF makes sure that a handler for Linux is one, for the architecture, and static: Azure's image has no libraries to offer.
func checkELF(path, goarch string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("check handler: not an executable for linux: %w", err)
	}
	defer f.Close()
	want, ok := machines[goarch]
	switch {
	case !ok:
		return fmt.Errorf("check handler: architecture %q is unknown", goarch)
	case f.Machine != want:
		return fmt.Errorf("check handler: it is for %v, not %v", f.Machine, want)
	case f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN:
		return fmt.Errorf("check handler: it is %v, not an executable", f.Type)
	}
	for _, prog := range f.Progs {
		if prog.Type == elf.PT_INTERP {
			return errors.New("check handler: it is linked dynamically")
		}
	}
	return nil
}
