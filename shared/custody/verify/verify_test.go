package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
