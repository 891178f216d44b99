// Package arch_test holds the rules of the tree that the compiler cannot check.
package arch_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "steno/"
)

// arrows lists, for each package, the packages of this module it may import. "*" means
// any. A package missing here fails the test: adding one is a decision, so write it down.
var arrows = map[string]string{
	"shared/teams":        "",
	"shared/rawjson":      "",
	"shared/conversation": "shared/teams shared/rawjson",
	"shared/policy":       "shared/teams",
	// What ought to have been captured, and what was: the words of reconciliation.
	"shared/coverage": "shared/teams shared/conversation",
	"shared/custody":  "shared/teams",
	// The second verifier of export packages: it shares nothing with what makes them.
	"shared/custody/verify":             "shared/teams shared/custody",
	"shared/evidence/internal/envelope": "",
	"shared/evidence":                   "shared/teams shared/custody shared/evidence/internal/envelope",
	"shared/msgraph":                    "shared/teams shared/rawjson",
	"shared/msgraph/directory":          "shared/teams shared/notification",
	"shared/config":                     "",
	"shared/azure":                      "shared/teams shared/conversation shared/coverage shared/notification shared/policy shared/custody shared/evidence",
	"shared/storetest":                  "shared/media shared/teams shared/conversation shared/coverage shared/notification shared/policy shared/custody shared/evidence",
	// Graph's change notifications: wire, encryption, and the register of subscriptions.
	"shared/notification": "shared/teams shared/rawjson",
	// The bytes of recorded media: bundles, fMP4 fragments, Opus. Written by the bot, read
	// by finalize and the portal.
	"shared/media": "shared/teams shared/conversation",
	// Bearer tokens: strict JWS and cached keys, for every door that takes one.
	"shared/bearer": "",

	"functions/internal/funchost": "",
	// msgraph for its judgment of errors.
	"functions/groupsync":  "shared/teams shared/policy shared/custody shared/msgraph",
	"functions/exportplan": "shared/teams shared/policy shared/conversation shared/custody",
	// The way into evidence that the lanes of messages share.
	"functions/internal/intake": "shared/teams shared/policy shared/conversation shared/custody shared/evidence",
	// The private keys of notifications: made by subscriptions, opened by notified.
	"functions/internal/keyring": "shared/teams shared/notification shared/custody shared/evidence",
	"functions/subscriptions":    "shared/teams shared/policy shared/notification functions/internal/keyring",
	// evidence for names of blobs alone.
	"functions/notifications": "shared/teams shared/notification shared/bearer shared/evidence",
	// evidence for ErrNotFound.
	"functions/notified": "shared/teams shared/policy shared/conversation shared/notification shared/evidence functions/internal/intake functions/internal/keyring",
	// msgraph for its raw pages and its judgment of errors, funchost for ErrPoison.
	"functions/chatexport": "shared/teams shared/policy shared/conversation shared/custody shared/msgraph functions/internal/funchost functions/internal/intake",
	// msgraph for the bytes and its judgment of errors, funchost for ErrPoison.
	"functions/attachments": "shared/teams shared/conversation shared/custody shared/msgraph functions/internal/funchost functions/internal/intake",
	// rawjson for the strict reading of messages that people write, funchost for ErrPoison.
	"functions/lookback":  "shared/teams shared/rawjson shared/policy shared/conversation shared/custody functions/internal/funchost",
	"functions/portal":    "shared/teams shared/rawjson shared/policy shared/conversation shared/coverage shared/evidence shared/custody shared/media shared/bearer",
	"functions/sequencer": "shared/teams shared/custody",
	"functions/export":    "shared/teams shared/conversation shared/policy shared/custody shared/evidence shared/media functions/internal/funchost",
	"functions/reconcile": "shared/teams shared/policy shared/conversation shared/coverage shared/evidence shared/custody shared/msgraph",
	"functions/retention": "shared/teams shared/policy shared/conversation shared/evidence shared/custody",
	"functions/fixity":    "shared/teams shared/conversation shared/evidence shared/custody",
	"functions/finalize":  "shared/teams shared/policy shared/conversation shared/evidence shared/custody shared/media functions/internal/funchost",
	"functions":           "*",

	"mediabot/internal/calling": "shared/teams shared/msgraph shared/bearer",
	"mediabot/internal/ingest":  "shared/teams shared/conversation shared/media",
	"mediabot/internal/segment": "shared/teams shared/conversation shared/media shared/msgraph",
	"mediabot/internal/spool":   "shared/teams shared/conversation shared/evidence",
	// msgraph for RecordingGranted, without which nothing can be recorded.
	"mediabot/internal/session": "shared/teams shared/policy shared/conversation shared/msgraph mediabot/internal/segment mediabot/internal/spool",
	"mediabot":                  "*",
	// The checks that every gateway must pass, as a program.
	"mediabot/gateway/conformance": "",

	"infra/package": "",
	// The program of those who restore the key table from escrow.
	"infra/restorekeys": "shared/teams shared/evidence shared/azure",

	"tests/arch":             "",
	"tests/sim":              "tests/sim/gateway",
	"tests/sim/gateway":      "",
	"tests/grant":            "shared/teams shared/msgraph",
	"tests/local/ca":         "",
	"tests/local/entra":      "",
	"tests/local/keyvault":   "",
	"tests/local/servicebus": "",
	"tests/local/worm":       "",
	"tests/local/azurite":    "tests/local/worm",
	"tests/local/host":       "",
	// world puts all of the above together; demo, e2e, browser and bench stand on it.
	"tests/world": "*",
	"tests/demo":  "*",
}

// testPrograms are built by tests and stand in testdata.
func isTestProgram(pkg string) bool { return strings.Contains(pkg, "/testdata/") }

// TestArrows parses imports itself rather than asking "go list": so it sees the
// _windows.go files on every machine, and the test cache notices a changed file.
func TestArrows(t *testing.T) {
	walk(t, func(path, pkg string, f *ast.File) {
		if strings.HasSuffix(path, "_test.go") || isTestProgram(pkg) {
			return
		}
		allowed, ok := arrows[pkg]
		if !ok {
			t.Errorf("%s: new package; add its arrows to the table", pkg)
		}
		for _, spec := range f.Imports {
			to, ours := strings.CutPrefix(importPath(spec), module)
			if ours && allowed != "*" && !slices.Contains(strings.Fields(allowed), to) {
				t.Errorf("%s must not import %s", path, to)
			}
			if ours && strings.HasPrefix(to, "tests/") && !strings.HasPrefix(pkg, "tests/") {
				t.Errorf("%s: the product must not import %s", path, to)
			}
			if ours && to == "shared/storetest" && !strings.HasPrefix(pkg, "tests/") {
				t.Errorf("%s: only tests import storetest", path)
			}
		}
	})
}

// owners says which packages may import what everybody else must reach through an
// interface: content is opened behind one door, and models are compiled once.
var owners = map[string][]string{
	"github.com/microsoftgraph/msgraph-sdk-go":                       {"shared/msgraph/directory"},
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob":           {"shared/azure", "functions", "mediabot", "infra/restorekeys"},
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables":            {"shared/azure", "functions", "mediabot", "infra/restorekeys"},
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus":   {"shared/azure", "functions", "mediabot"},
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys": {"shared/azure", "functions", "mediabot", "infra/restorekeys"},
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity":               {"functions", "mediabot", "infra/restorekeys"},
	"steno/shared/config": {"functions", "mediabot"},
	"os/exec":             {"infra/package"},
	"unsafe":              {},
	"net/http/pprof":      {},
}

func TestClientLibrariesAreNamedByTheirOwnersAlone(t *testing.T) {
	walk(t, func(path, pkg string, f *ast.File) {
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(pkg, "tests/") {
			return
		}
		for _, spec := range f.Imports {
			for lib, may := range owners {
				p := importPath(spec)
				if (p == lib || strings.HasPrefix(p, lib+"/")) && !slices.Contains(may, pkg) {
					t.Errorf("%s must not import %s", path, p)
				}
			}
		}
	})
}

// TestNoProductFileMakesASharedAccessSignature: rights come from roles, and a signature
// in a URL is a right that cannot be taken back.
func TestNoProductFileMakesASharedAccessSignature(t *testing.T) {
	walk(t, func(path, pkg string, f *ast.File) {
		if strings.HasPrefix(pkg, "tests/") || strings.HasSuffix(path, "_test.go") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && strings.Contains(s.Sel.Name, "SASURL") {
				t.Errorf("%s calls %s", path, s.Sel.Name)
			}
			return true
		})
	})
}

// TestEveryFunctionFolderIsRegisteredAndDeclaresItsTrigger keeps functions/ readable as
// an index: one folder, one function.json, one line in register.go, and vice versa.
func TestEveryFunctionFolderIsRegisteredAndDeclaresItsTrigger(t *testing.T) {
	registered := map[string]bool{}
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "functions", "register.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) < 2 {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !slices.Contains([]string{"Timer", "Queue", "HTTP"}, sel.Sel.Name) {
			return true
		}
		if lit, ok := call.Args[0].(*ast.BasicLit); ok {
			name, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			registered[name] = true
		}
		return true
	})
	dirs, err := os.ReadDir(filepath.Join(root, "functions"))
	if err != nil {
		t.Fatal(err)
	}
	folders := map[string]bool{}
	for _, d := range dirs {
		if !d.IsDir() || d.Name() == "internal" {
			continue
		}
		folders[d.Name()] = true
		if _, err := os.Stat(filepath.Join(root, "functions", d.Name(), "function.json")); err != nil {
			t.Errorf("functions/%s: %v", d.Name(), err)
		}
	}
	if !maps.Equal(folders, registered) {
		t.Errorf("folders %v, registered %v", slices.Sorted(maps.Keys(folders)), slices.Sorted(maps.Keys(registered)))
	}
}

func importPath(s *ast.ImportSpec) string { return strings.Trim(s.Path.Value, `"`) }

// walk calls each for every Go file of the tree.
func walk(t *testing.T, each func(path, pkg string, f *ast.File)) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); n != ".." && (strings.HasPrefix(n, ".") || n == "node_modules" || n == "dist") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		files++
		each(filepath.ToSlash(path), filepath.ToSlash(rel), f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Fatalf("only %d files seen; the walk reaches nothing", files)
	}
}
