package sim

import (
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
)

//go:embed testdata/graph-export
var fixtures embed.FS

const fixtureDir = "testdata/graph-export"

// Fixture returns a sample from Microsoft's documentation, such as chats-getallmessages.page.json, byte for byte.
func Fixture(name string) ([]byte, error) {
	b, err := fixtures.ReadFile(fixtureDir + "/" + name)
	if err != nil {
		return nil, fmt.Errorf("read fixture %q: %w", name, err)
	}
	return b, nil
}

// Fixtures lists the names that Fixture knows, sorted.
func Fixtures() []string {
	entries, err := fs.ReadDir(fixtures, fixtureDir)
	if err != nil {
		panic(err) // the folder is in the binary
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") {
			names = append(names, e.Name())
		}
	}
	return names
}

// ServeFixtures answers every request whose last word is a fixture's name, with or without .json, with that fixture
// byte for byte. An error-NNN- fixture has that status.
func ServeFixtures() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimSuffix(r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:], ".json") + ".json"
		b, err := Fixture(name)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		status := http.StatusOK
		// A name that is no error leaves the status as it is.
		_, _ = fmt.Sscanf(name, "error-%d-", &status)
		w.Header().Set("Content-Type", odataJSON)
		w.WriteHeader(status)
		_, _ = w.Write(b) // a failed write means that the client has gone
	})
}
