package envelope

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

var place = Scope{Tenant: "11111111-aaaa-4bbb-8ccc-222222222222", Unit: "unit", Object: [IDSize]byte{7}}

func TestNonceAndKeyNeverRepeat(t *testing.T) {
	const seals = 100_000
	k := NewKey()
	outer, err := newGCM(k.secret[:])
	if err != nil {
		t.Fatal(err)
	}
	type pair struct {
		key    [KeySize]byte
		prefix [prefixSize]byte
	}
	pairs := make(map[pair]bool, seals)
	wraps := make(map[[12]byte]bool, seals)
	var out bytes.Buffer
	for range seals {
		out.Reset()
		if _, err := Seal(&out, k, place, strings.NewReader(""), 0); err != nil {
			t.Fatal(err)
		}
		h, err := ParseHeader(out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		dk, err := outer.Open(nil, h.raw[88:100], h.raw[100:148], h.keyAAD(place))
		if err != nil {
			t.Fatal(err)
		}
		pairs[pair{[KeySize]byte(dk), [prefixSize]byte(h.raw[48:])}] = true
		wraps[[12]byte(h.raw[88:100])] = true
	}
	if len(pairs) != seals || len(wraps) != seals {
		t.Errorf("%d distinct data keys and %d distinct wrapping nonces in %d seals", len(pairs), len(wraps), seals)
	}
}

func TestNoncesWithinAnObjectDiffer(t *testing.T) {
	var h Header
	seen := map[string]bool{}
	for _, i := range []int64{0, 1, 255, 256, 65535, 65536, 1<<31 - 1} {
		for _, last := range []bool{false, true} {
			seen[string(h.nonce(i, last))] = true
		}
	}
	if len(seen) != 14 {
		t.Errorf("%d distinct nonces, want 14", len(seen))
	}
}

// takers are the exported functions that take bytes from their caller. None takes a
// data key or a nonce: KeyFrom's are a conversation key.
var takers = []string{"KeyFrom", "OpenChunk", "ParseHeader"}

func TestNoFunctionAcceptsACallersDataKeyOrNonce(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "envelope.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || !fn.Name.IsExported() {
			continue
		}
		for _, p := range fn.Type.Params.List {
			if _, bytes := p.Type.(*ast.ArrayType); bytes {
				got = append(got, fn.Name.Name)
				break
			}
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, takers) {
		t.Errorf("exported functions that take bytes: %v, want %v", got, takers)
	}
}

func TestSealRefusesAnotherSizeThanAnnounced(t *testing.T) {
	k := NewKey()
	broken := errors.New("broken")
	for what, c := range map[string]struct {
		r    io.Reader
		size int64
	}{
		"less":           {strings.NewReader("abc"), 4},
		"more":           {strings.NewReader("abc"), 2},
		"broken":         {iotest.ErrReader(broken), 2},
		"broken end":     {io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)), 3},
		"negative":       {strings.NewReader(""), -1},
		"beyond maximum": {strings.NewReader(""), maxSize + 1},
	} {
		_, err := Seal(io.Discard, k, place, c.r, c.size)
		if err == nil || strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: error %v", what, err)
		}
	}
	if _, err := Seal(io.Discard, k, place, iotest.OneByteReader(strings.NewReader("abc")), 3); err != nil {
		t.Errorf("a reader of single bytes: %v", err)
	}
}

func TestSealReportsAWriterThatFails(t *testing.T) {
	for limit := range 3 {
		w := &failingWriter{left: limit}
		if _, err := Seal(w, NewKey(), place, bytes.NewReader(make([]byte, ChunkSize+1)), ChunkSize+1); !errors.Is(err, errFull) {
			t.Errorf("writer that fails at write %d: %v", limit, err)
		}
	}
}

var errFull = errors.New("full")

type failingWriter struct{ left int }

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.left == 0 {
		return 0, errFull
	}
	w.left--
	return len(b), nil
}

func TestSealedSizeAndRangesAgree(t *testing.T) {
	for _, size := range []int64{0, 1, ChunkSize - 1, ChunkSize, ChunkSize + 1, 3 * ChunkSize, maxSize} {
		h := Header{Size: size}
		_, last, from, to := h.Range(0, size)
		if from != HeaderSize || last != chunks(size)-1 || to != SealedSize(size) {
			t.Errorf("size %d: range of everything is chunks to %d, bytes %d to %d of %d", size, last, from, to, SealedSize(size))
		}
	}
}

func TestKeyNeverPrints(t *testing.T) {
	k := NewKey()
	secret := string(k.secret[:])
	for _, v := range []any{k, *k, []*Key{k}, struct{ K Key }{*k}, struct{ k *Key }{k}, map[string]*Key{"k": k}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%08b"} {
			text := fmt.Sprintf(verb, v)
			for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprint(k.secret[0], " ", k.secret[1], " ", k.secret[2])} {
				if strings.Contains(text, form) {
					t.Errorf("%T with %s shows the secret", v, verb)
				}
			}
		}
		if b, err := json.Marshal(v); err == nil && string(b) != "{}" {
			t.Errorf("%T was marshaled: %s", v, b)
		}
	}
	k.Destroy()
	if *k.secret != [KeySize]byte{} {
		t.Error("the secret outlives Destroy")
	}
}

func FuzzParseHeader(f *testing.F) {
	var out bytes.Buffer
	if _, err := Seal(&out, NewKey(), place, strings.NewReader("abc"), 3); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes())
	f.Add([]byte("STNO"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFormat) {
				t.Errorf("error of no known kind: %v", err)
			}
			return
		}
		if h.Size < 0 || h.Size > maxSize || SealedSize(h.Size) < HeaderSize+TagSize || !bytes.Equal(h.raw[:], b[:HeaderSize]) {
			t.Errorf("accepted a header of size %d", h.Size)
		}
		if o, err := NewOpener(h, NewKey(), place); err == nil || o != nil {
			t.Error("opened under a key drawn just now")
		}
	})
}
