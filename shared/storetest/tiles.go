package storetest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"

	"steno/shared/custody"
)

var _ custody.Tiles = (*Tiles)(nil)

// Tiles keeps a custody log. Its zero value is empty and ready.
type Tiles struct {
	mu       sync.Mutex
	m        map[string][]byte
	head     []byte
	revision int
}

// Create implements custody.Tiles.
func (t *Tiles) Create(_ context.Context, name string, body []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if was, ok := t.m[name]; ok {
		if !bytes.Equal(was, body) {
			return custody.ErrSplitView
		}
		return nil
	}
	if t.m == nil {
		t.m = map[string][]byte{}
	}
	t.m[name] = bytes.Clone(body)
	return nil
}

// Read implements custody.Tiles.
func (t *Tiles) Read(_ context.Context, name string) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, ok := t.m[name]
	if !ok {
		return nil, custody.ErrNoTile
	}
	return bytes.Clone(b), nil
}

// Head implements custody.Tiles.
func (t *Tiles) Head(context.Context) ([]byte, string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.revision == 0 {
		return nil, "", nil
	}
	return bytes.Clone(t.head), strconv.Itoa(t.revision), nil
}

// SwapHead implements custody.Tiles.
func (t *Tiles) SwapHead(_ context.Context, body []byte, revision string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := ""
	if t.revision > 0 {
		now = strconv.Itoa(t.revision)
	}
	if revision != now {
		return custody.ErrMoved
	}
	t.head = bytes.Clone(body)
	t.revision++
	return nil
}

// Names lists all files but the head, sorted.
func (t *Tiles) Names() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.m))
}

// Tamper changes a file behind the log's back; nil removes it.
func (t *Tiles) Tamper(name string, body []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if body == nil {
		delete(t.m, name)
		return
	}
	t.m[name] = bytes.Clone(body)
}

// TestTiles checks the contract of custody.Tiles. open returns an empty log.
func TestTiles(t *testing.T, open func(t *testing.T) custody.Tiles) {
	t.Run("a file is what was created, for ever", func(t *testing.T) {
		tiles := open(t)
		if _, err := tiles.Read(t.Context(), "tile/0/000"); !errors.Is(err, custody.ErrNoTile) {
			t.Errorf("before it was created: %v", err)
		}
		ok(t, tiles.Create(t.Context(), "tile/0/000", []byte("one")))
		ok(t, tiles.Create(t.Context(), "tile/0/000", []byte("one")))
		for _, other := range []string{"two", "on", "onee", ""} {
			wantErr(t, "other bytes", tiles.Create(t.Context(), "tile/0/000", []byte(other)), custody.ErrSplitView)
		}
		got, err := tiles.Read(t.Context(), "tile/0/000")
		ok(t, err)
		if string(got) != "one" {
			t.Errorf("read %q", got)
		}
	})
	TestMutable(t, func(t *testing.T) Mutable { return open(t) })
}

// Mutable is a small document that is replaced by whoever read it: the head of a custody log,
// or the progress of a function.
type Mutable interface {
	Head(ctx context.Context) (body []byte, revision string, err error)
	SwapHead(ctx context.Context, body []byte, revision string) error
}

// TestMutable checks the contract of the head of custody.Tiles. open returns an empty one.
func TestMutable(t *testing.T, open func(t *testing.T) Mutable) {
	t.Run("a head changes from the revision that was read alone", func(t *testing.T) {
		tiles := open(t)
		body, none, err := tiles.Head(t.Context())
		ok(t, err)
		if len(body) != 0 || none != "" {
			t.Fatalf("an empty log has head %q at %q", body, none)
		}
		ok(t, tiles.SwapHead(t.Context(), []byte("first"), none))
		wantErr(t, "a second first", tiles.SwapHead(t.Context(), []byte("other"), none), custody.ErrMoved)
		body, first, err := tiles.Head(t.Context())
		ok(t, err)
		if string(body) != "first" || first == "" {
			t.Fatalf("head %q at %q", body, first)
		}
		ok(t, tiles.SwapHead(t.Context(), []byte("second"), first))
		wantErr(t, "from an old revision", tiles.SwapHead(t.Context(), []byte("other"), first), custody.ErrMoved)
		body, _, err = tiles.Head(t.Context())
		ok(t, err)
		if string(body) != "second" {
			t.Errorf("head %q", body)
		}
	})
	t.Run("of many that change a head at once one does", func(t *testing.T) {
		tiles := open(t)
		var wg sync.WaitGroup
		won := make(chan string, 8)
		for i := range 8 {
			wg.Go(func() {
				body := strconv.Itoa(i)
				switch err := tiles.SwapHead(t.Context(), []byte(body), ""); {
				case err == nil:
					won <- body
				case !errors.Is(err, custody.ErrMoved):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		close(won)
		body, _, err := tiles.Head(t.Context())
		ok(t, err)
		if winner := <-won; len(won) != 0 || winner != string(body) {
			t.Errorf("%q and %d others won, the head is %q", winner, len(won), body)
		}
	})
}
