package main

import (
	"archive/zip"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	tinyHost = `{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"handler"},"enableProxyingHttpRequest":true},
		"extensions":{"http":{"routePrefix":"steno"}}}`
	tinyTimer = `{"bindings":[{"type":"timerTrigger","direction":"in","name":"timer","schedule":"0 0 3 * * *"}]}`
)

// tree writes a source tree of a tiny module; overrides replace files, or remove them if empty.
func tree(t *testing.T, overrides map[string]string) string {
	t.Helper()
	files := map[string]string{
		"go.mod":                            "module tiny\n\ngo 1.26\n",
		"host.json":                         tinyHost,
		"functions/main.go":                 "package main\n\nfunc main() {}\n",
		"functions/finalize/function.json":  tinyTimer,
		"functions/finalize/finalize.go":    "package finalize\n",
		"functions/portal/function.json":    tinyTimer,
		"functions/portal/web/index.html":   "<p>",
		"functions/groupsync/function.json": tinyTimer,
		"functions/internal/x/x.go":         "package x\n",
	}
	for name, text := range overrides {
		files[name] = text
	}
	dir := t.TempDir()
	for name, text := range files {
		if text == "" {
			continue
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func stageTree(t *testing.T, root string, args ...string) (string, error) {
	t.Helper()
	var out, log bytes.Buffer
	err := run(t.Context(), append([]string{"-root", root, "-out", filepath.Join(root, "dist/app")}, args...), &out, &log)
	if err != nil {
		t.Log(log.String())
	}
	return out.String(), err
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestStagedAppHoldsWhatTheHostReadsAndNothingElse(t *testing.T) {
	root := tree(t, nil)
	for range 2 { // the second time replaces the first
		if _, err := stageTree(t, root); err != nil {
			t.Fatal(err)
		}
	}
	app := filepath.Join(root, "dist/app")
	want := []string{"finalize/function.json", "groupsync/function.json", "handler", "host.json", "portal/function.json"}
	if got := files(t, app); !slices.Equal(got, want) {
		t.Errorf("staged %v, want %v", got, want)
	}
	if info, err := os.Stat(filepath.Join(app, "handler")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("handler %v, %v", info, err)
	}
	if got := files(t, filepath.Join(root, "dist")); len(got) != len(want) {
		t.Errorf("left behind: %v", got)
	}
}

func TestSameSourcesGiveTheSameZip(t *testing.T) {
	root := tree(t, nil)
	var zips [2][]byte
	for i := range zips {
		path := filepath.Join(root, "dist/app.zip")
		if _, err := stageTree(t, root, "-zip", path); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		zips[i] = b
	}
	if !bytes.Equal(zips[0], zips[1]) {
		t.Error("two zips of the same sources differ")
	}
	z, err := zip.NewReader(bytes.NewReader(zips[0]), int64(len(zips[0])))
	if err != nil {
		t.Fatal(err)
	}
	const unix = 3 // creator in the upper byte, without which no mode is read
	for _, f := range z.File {
		want := fs.FileMode(0o644)
		if f.Name == "handler" {
			want = 0o755
		}
		if f.Mode() != want || f.CreatorVersion>>8 != unix || !f.Modified.Equal(zipTime) {
			t.Errorf("%s: mode %v, creator %d, time %v", f.Name, f.Mode(), f.CreatorVersion>>8, f.Modified)
		}
	}
	if z.File[0].Name != "finalize/function.json" || len(z.File) != 5 {
		t.Errorf("%d entries, the first %s", len(z.File), z.File[0].Name)
	}
}

func TestAppsNarrowTheFunctions(t *testing.T) {
	for apps, want := range map[string]string{
		"edge": "portal", "capture": "groupsync", "keeper": "finalize", "edge,keeper": "finalize portal", "edge,capture,keeper": "finalize groupsync portal",
	} {
		root := tree(t, nil)
		out, err := stageTree(t, root, "-apps", apps)
		if err != nil || !strings.HasSuffix(out, ": "+want+"\n") {
			t.Errorf("%s: %q, %v, want %s", apps, out, err, want)
		}
	}
}

func TestFaultyTreeIsNotStaged(t *testing.T) {
	for name, tt := range map[string]struct {
		overrides map[string]string
		args      []string
		want      string
	}{
		"no host.json":       {map[string]string{"host.json": ""}, nil, "host.json"},
		"version":            {map[string]string{"host.json": strings.Replace(tinyHost, "2.0", "1.0", 1)}, nil, "must be 2.0"},
		"executable":         {map[string]string{"host.json": strings.Replace(tinyHost, `"handler"`, `"./handler"`, 1)}, nil, "must be \"handler\""},
		"no proxying":        {map[string]string{"host.json": strings.Replace(tinyHost, "true", "false", 1)}, nil, "enableProxyingHttpRequest"},
		"no prefix":          {map[string]string{"host.json": strings.Replace(tinyHost, "steno", "", 1)}, nil, "routePrefix is empty"},
		"case":               {map[string]string{"functions/Portal/function.json": tinyTimer}, nil, "by case alone"},
		"name":               {map[string]string{"functions/9lives/function.json": tinyTimer}, nil, "9lives: name does not match"},
		"long name":          {map[string]string{"functions/" + strings.Repeat("a", 129) + "/function.json": tinyTimer}, nil, "name does not match"},
		"reserved name":      {map[string]string{"functions/host/function.json": tinyTimer}, nil, "reserved"},
		"prefix as name":     {map[string]string{"functions/steno/function.json": tinyTimer}, nil, "equals the route prefix"},
		"JSON":               {map[string]string{"functions/portal/function.json": "{"}, nil, "portal: function.json"},
		"no trigger":         {map[string]string{"functions/portal/function.json": "{}"}, nil, "0 triggers"},
		"build":              {map[string]string{"functions/main.go": "package main\n"}, nil, "build handler"},
		"unknown app":        {nil, []string{"-apps", "edge,corner"}, `"corner" is none of`},
		"function of no app": {map[string]string{"functions/stray/function.json": tinyTimer}, []string{"-apps", "edge"}, "stray: belongs to none"},
		"no function":        {map[string]string{"functions/portal/function.json": ""}, []string{"-apps", "edge"}, "no function to stage"},
		"skip without":       {nil, []string{"-skip-build"}, "go together"},
		"handler without":    {nil, []string{"-handler", "x"}, "go together"},
		"stray argument":     {nil, []string{"x"}, `unknown argument "x"`},
		"architecture":       {nil, []string{"-arch", "386"}, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			root := tree(t, tt.overrides)
			if _, err := stageTree(t, root, tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("staged with %v, want %q", err, tt.want)
			}
			if dir, err := os.ReadDir(filepath.Join(root, "dist")); err == nil && len(dir) > 0 {
				t.Errorf("left behind: %v", dir)
			}
		})
	}
}

func TestAllFaultsAreNamedAtOnce(t *testing.T) {
	root := tree(t, map[string]string{"functions/Portal/function.json": tinyTimer, "functions/9lives/function.json": "{"})
	_, err := stageTree(t, root)
	for _, want := range []string{"9lives", "by case alone"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}

func TestGivenHandlerIsTakenIfItIsOne(t *testing.T) {
	root := tree(t, nil)
	if _, err := stageTree(t, root, "-arch", "arm64"); err != nil {
		t.Fatal(err)
	}
	arm := filepath.Join(t.TempDir(), "arm")
	if err := os.Rename(filepath.Join(root, "dist/app/handler"), arm); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ handler, arch, want string }{
		{arm, "arm64", ""}, {arm, "amd64", "not EM_X86_64"}, {text, "amd64", "not an executable for linux"}, {"nowhere", "amd64", "no such file"},
	} {
		_, err := stageTree(t, root, "-skip-build", "-handler", tt.handler, "-arch", tt.arch)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s for %s: %v, want %q", tt.handler, tt.arch, err, tt.want)
		}
	}
}

func TestDynamicHandlerIsRefused(t *testing.T) {
	root := tree(t, nil)
	if _, err := stageTree(t, root); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "dist/app/handler")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The first program header of a 64-bit ELF file begins at the offset that stands at 0x20, with its type.
	binary.LittleEndian.PutUint32(b[binary.LittleEndian.Uint64(b[0x20:]):], uint32(elf.PT_INTERP))
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := checkELF(path, "amd64"); err == nil || !strings.Contains(err.Error(), "dynamically") {
		t.Errorf("checked with %v", err)
	}
}

func TestHandlerForWindowsIsNamedSo(t *testing.T) {
	root := tree(t, nil)
	if _, err := stageTree(t, root, "-os", "windows", "-arch", "amd64"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "dist/app/handler.exe")); err != nil {
		t.Error(err)
	}
}

func TestFolderThatIsNoStagedAppIsNotReplaced(t *testing.T) {
	root := tree(t, nil)
	for name, out := range map[string]string{"source tree": root, "functions": filepath.Join(root, "functions")} {
		before := files(t, root)
		err := run(context.Background(), []string{"-root", root, "-out", out}, &bytes.Buffer{}, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), "it stays") {
			t.Errorf("%s: staged with %v", name, err)
		}
		if after := files(t, root); !slices.Equal(before, after) {
			t.Errorf("%s: files changed to %v", name, after)
		}
	}
}

// TestTheRootsHostFileIsAccepted holds the host.json that is deployed against what staging asks for.
func TestTheRootsHostFileIsAccepted(t *testing.T) {
	p := plan{root: "../.."}
	if prefix, err := p.checkHostFile(); err != nil || prefix != "steno" {
		t.Errorf("route prefix %q, %v", prefix, err)
	}
}

func TestTheBotIsBuiltForWindows(t *testing.T) {
	root := tree(t, map[string]string{"mediabot/main.go": "package main\n\nfunc main() {}\n"})
	exe := filepath.Join(t.TempDir(), "bot", "mediabot.exe")
	if _, err := stageTree(t, root, "-bot", exe); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil || len(b) < 2 || string(b[:2]) != "MZ" {
		t.Errorf("no Windows executable: %v", err)
	}
}
