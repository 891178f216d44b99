package arch_test

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryTestNamedInSecurityExists keeps SECURITY.md true: a claim whose test was
// renamed or removed is a claim without a test.
func TestEveryTestNamedInSecurityExists(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(root, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	exists := map[string]bool{}
	walk(t, func(path, _ string, f *ast.File) {
		if !strings.HasSuffix(path, "_test.go") && !strings.Contains(path, "storetest/suite") {
			return
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				exists[fn.Name.Name] = true
			}
		}
	})
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`").FindAllStringSubmatch(string(doc), -1)
	if len(named) < 30 {
		t.Fatalf("only %d tests are named; the pattern reaches nothing", len(named))
	}
	for _, n := range named {
		if !exists[n[1]] {
			t.Errorf("SECURITY.md names %s, which does not exist", n[1])
		}
	}
}

// TestEveryClaimOfTheFirstRelease: the numbers of the threat model that chats touch.
func TestEveryClaimOfTheFirstRelease(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(root, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, claim := range []string{
		"T01", "T02", "T03", "T04", "T05", "T06", "T07", "T08", "T09", "T10–T13", "T14", "T17", "T18", "T19", "T20", "T21", "T22", "T23", "T25", "T26", "T27", "T28", "T29",
		"T30", "T31", "T32", "T35", "T40", "T45", "T49", "T54", "T55", "T57", "T59", "T60", "T63",
	} {
		if !strings.Contains(string(doc), "| "+claim+" |") {
			t.Errorf("SECURITY.md has no line for %s", claim)
		}
	}
}
