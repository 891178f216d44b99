package worm_test

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"steno/tests/local/worm"
)

// journaled opens a proxy on a journal with the given content.
func journaled(t *testing.T, content string) (*worm.Proxy, string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	upstream, err := url.Parse(account.BlobURL)
	if err != nil {
		t.Fatal(err)
	}
	p, err := worm.New(worm.Config{
		Upstream: upstream,
		Exists:   func(context.Context, string, string) (bool, error) { return true, nil },
		Journal:  path,
	})
	if err == nil {
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return p, path, err
}

const lockedForAWeek = `{"container":"c","mode":"Locked","days":7}` + "\n"

func TestTornLastLineIsCutOff(t *testing.T) {
	p, path, err := journaled(t, lockedForAWeek+`{"container":"c","mo`)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.SetContainerDefault("c", worm.Locked, 6); err == nil {
		t.Error("the default before the torn line was forgotten")
	}
	if err := p.SetContainerDefault("c", worm.Locked, 8); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if want := lockedForAWeek + `{"container":"c","mode":"Locked","days":8}` + "\n"; err != nil || string(got) != want {
		t.Errorf("journal is %q, %v; want %q", got, err, want)
	}
}

func TestDamagedJournalIsAnError(t *testing.T) {
	if _, _, err := journaled(t, "{]\n"+lockedForAWeek); err == nil {
		t.Error("opened a journal that cannot be read")
	}
}
