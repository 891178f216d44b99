package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxNumbers is how many objects a unit may have: their numbers have six digits.
const maxNumbers = 1_000_000

var (
	objectForm = regexp.MustCompile(`^evidence/([a-z0-9-]{1,64})/([0-9]{6})-([0-9a-f]{32})\.(batch|manifest|file)$`)
	bundleForm = regexp.MustCompile(`^evidence/([a-z0-9-]{1,64})/bundles/([0-9]{6})-(0|[1-9][0-9]?)-([0-9a-f]{32})\.bundle$`)
)

// object is a batch, a manifest or the part of a file of the package.
type object struct {
	path     string
	unit, id string
	seq      int
	leg      bool // it is a leg's manifest
	proven   bool
}

// bundle is a bundle of the package.
type bundle struct {
	path, id  string
	seq, part int
}

// store is the evidence of a package, by unit.
type store struct {
	objects map[string][]*object
	bundles map[string][]*bundle
	n, b    int
}

// evidence files everything under evidence/.
func (p *pkg) evidence(c *contents) (*store, error) {
	s := &store{objects: map[string][]*object{}, bundles: map[string][]*bundle{}}
	units := map[string]bool{}
	for _, conv := range c.Conversations {
		for _, u := range conv.Units {
			units[u.Unit] = true
		}
	}
	for _, path := range p.under("evidence/") {
		unit := ""
		if m := objectForm.FindStringSubmatch(path); m != nil {
			seq, _ := strconv.Atoi(m[2]) // six digits
			unit = m[1]
			s.objects[unit] = append(s.objects[unit], &object{path: path, unit: unit, seq: seq, id: m[3], leg: m[4] == "manifest"})
			s.n++
		} else if m := bundleForm.FindStringSubmatch(path); m != nil {
			seq, _ := strconv.Atoi(m[2])
			part, _ := strconv.Atoi(m[3])
			unit = m[1]
			s.bundles[unit] = append(s.bundles[unit], &bundle{path: path, seq: seq, part: part, id: m[4]})
			s.b++
		} else {
			return nil, fmt.Errorf("%s: not the name of evidence", path)
		}
		if !units[unit] {
			return nil, fmt.Errorf("%s: %s names no such unit", path, packageName)
		}
	}
	return s, nil
}

// openings is step 6: each object is what a record of the log binds.
func (p *pkg) openings(s *store, t *trail, c *contents) (unproven int, err error) {
	byPath := map[string]*object{}
	for _, list := range s.objects {
		for _, o := range list {
			byPath[o.path] = o
		}
	}
	table, err := p.read(objectsName, maxTable)
	if err != nil {
		return 0, err
	}
	last := ""
	for n := 1; len(table) > 0; n++ {
		line, rest, ended := bytes.Cut(table, []byte("\n"))
		table = rest
		parts := strings.Split(string(line), " ")
		if !ended || len(parts) != 3 || !isHex(parts[0], 32) || !isHex(parts[1], 32) || parts[2] <= last {
			return 0, fmt.Errorf("%s: line %d: want a commitment, a blind and a path, in the order of paths", objectsName, n)
		}
		last = parts[2]
		o, ok := byPath[last]
		if !ok {
			return 0, fmt.Errorf("%s: line %d: %q is not in the package", objectsName, n, last)
		}
		if err := p.opening(o, t, parts[0], parts[1]); err != nil {
			return 0, fmt.Errorf("%s: %w", o.path, err)
		}
		o.proven = true
	}
	return s.doubtful(c)
}

// opening checks that a commitment opens to a file, and that a record of the log holds it.
func (p *pkg) opening(o *object, t *trail, commit, blind string) error {
	b := append([]byte("steno-plain-v1\x00"), make([]byte, sha256.Size)...)
	_, _ = hex.Decode(b[len(b)-sha256.Size:], []byte(blind)) // it is hex
	sum := sha256.Sum256(append(b, p.files[o.path].sum[:]...))
	if hex.EncodeToString(sum[:]) != commit {
		return fmt.Errorf("it is not what its commitment in %s says: it was changed", objectsName)
	}
	for _, e := range t.seals[o.unit] {
		if !e.Void && e.Commit == commit && e.Object == o.id && e.Seq == o.seq {
			return nil
		}
	}
	return errors.New("no seal record in the package binds it under this unit, number and id")
}

// doubtful counts the objects without proof, each of which must be named as one.
func (s *store) doubtful(c *contents) (int, error) {
	n := 0
	for _, conv := range c.Conversations {
		for _, u := range conv.Units {
			named := map[string]bool{}
			for _, id := range u.Unproven {
				if named[id] {
					return 0, fmt.Errorf("%s: object %q of %s is unproven twice", packageName, id, u.Unit)
				}
				named[id] = true
			}
			for _, o := range s.objects[u.Unit] {
				if o.proven == named[o.id] {
					return 0, fmt.Errorf("%s: must either be proven by %s or be named as unproven", o.path, objectsName)
				}
				delete(named, o.id)
			}
			for id := range named {
				return 0, fmt.Errorf("%s: object %q of %s is unproven, and not in the package", packageName, id, u.Unit)
			}
			n += len(u.Unproven)
		}
	}
	return n, nil
}

// complete is step 7: every number of a unit is an object's, or explained.
func (s *store) complete(u unit, conversation string, t *trail) error {
	present, void, sealed := map[int]*object{}, map[int]bool{}, map[int]string{}
	for _, o := range s.objects[u.Unit] {
		if other, twice := present[o.seq]; twice {
			return fmt.Errorf("%s: number %d is that of %s too", o.path, o.seq, other.path)
		}
		if o.seq >= u.Objects {
			return fmt.Errorf("%s: number %d of a unit of %d objects", o.path, o.seq, u.Objects)
		}
		present[o.seq] = o
	}
	for _, e := range t.seals[u.Unit] {
		if e.Seq < 0 || e.Seq >= u.Objects {
			return fmt.Errorf("%s: unit %s has %d objects, and a record seals number %d", packageName, u.Unit, u.Objects, e.Seq)
		}
		if e.Void {
			void[e.Seq] = true
		} else if other, twice := sealed[e.Seq]; twice && other != e.Object {
			return fmt.Errorf("unit %s: records seal two objects as number %d: %s and %s", u.Unit, e.Seq, other, e.Object)
		} else {
			sealed[e.Seq] = e.Object
		}
		if void[e.Seq] && (sealed[e.Seq] != "" || present[e.Seq] != nil) {
			return fmt.Errorf("unit %s: records say of number %d that it was stored, and that it was not", u.Unit, e.Seq)
		}
	}
	for seq, o := range present {
		if id := sealed[seq]; id != "" && o.id != id {
			return fmt.Errorf("%s: a record seals another object as number %d: %s", o.path, seq, id)
		}
	}
	if t.gone[u.Unit] || t.gone[conversation] {
		return nil
	}
	// It ends at the first that is missing: what it costs is bounded by what is there.
	for seq := range u.Objects {
		id, stored := sealed[seq]
		if present[seq] == nil && !void[seq] && (!stored || !t.gone[u.Unit+"/"+id]) {
			return fmt.Errorf("unit %s: object number %d of %d is missing", u.Unit, seq, u.Objects)
		}
	}
	return nil
}

// bound is step 8: the bundles of a unit are those of its manifest.
func (p *pkg) bound(s *store, u unit, t *trail) error {
	i := slices.IndexFunc(s.objects[u.Unit], func(o *object) bool { return o.leg })
	if i < 0 {
		if b := s.bundles[u.Unit]; len(b) > 0 {
			return fmt.Errorf("%s: its leg's manifest is not in the package", b[0].path)
		}
		return nil
	}
	manifest := s.objects[u.Unit][i]
	if u.Objects != 1 {
		return fmt.Errorf("%s: the manifest of a leg is its only object, and not one of %d", manifest.path, u.Objects)
	}
	raw, err := p.read(manifest.path, maxTable)
	if err != nil {
		return err
	}
	there := map[string]*bundle{}
	for _, b := range s.bundles[u.Unit] {
		if other, twice := there[b.id]; twice {
			return fmt.Errorf("%s: its object is that of %s too", b.path, other.path)
		}
		there[b.id] = b
	}
	err = manifestBundles(raw, func(e manifestBundle) error {
		b, ok := there[e.object]
		switch {
		case !ok && t.gone[u.Unit+"/"+e.object]:
			return nil
		case !ok:
			return fmt.Errorf("bundle %d, part %d (%q) is missing, or there twice", e.seq, e.part, e.object)
		case b.seq != e.seq || b.part != e.part:
			return fmt.Errorf("%s is bundle %d, part %d", b.path, e.seq, e.part)
		case e.plain != hex.EncodeToString(p.files[b.path].sum[:]):
			return fmt.Errorf("%s is not the bundle that it names", b.path)
		}
		delete(there, e.object)
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", manifest.path, err)
	}
	for _, b := range there {
		return fmt.Errorf("%s: %s does not name it", b.path, manifest.path)
	}
	return nil
}

// manifestBundle is what a manifest says of a bundle, as far as it matters here.
type manifestBundle struct {
	seq, part     int
	object, plain string
}

// manifestBundles walks over `bundles` of a leg's manifest. Members are compared byte for
// byte, and repeated ones refused.
func manifestBundles(raw []byte, each func(manifestBundle) error) error {
	top, err := members(raw)
	if err != nil || top["bundles"] == nil {
		return err // a leg of which nothing was recorded has none
	}
	var list []json.RawMessage
	if err := json.Unmarshal(top["bundles"], &list); err != nil {
		return fmt.Errorf("bundles: %w", err)
	}
	for i, one := range list {
		m, err := members(one)
		if err != nil {
			return fmt.Errorf("bundle entry %d: %w", i, err)
		}
		var e manifestBundle
		for name, into := range map[string]any{"seq": &e.seq, "part": &e.part, "object": &e.object, "plain": &e.plain} {
			if v, ok := m[name]; ok {
				if err := json.Unmarshal(v, into); err != nil {
					return fmt.Errorf("bundle entry %d: %s: %w", i, name, err)
				}
			}
		}
		if err := each(e); err != nil {
			return err
		}
	}
	return nil
}

// members returns the members of an object, refusing two whose names differ in case only.
func members(raw []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	out, folded := map[string]json.RawMessage{}, map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("not a JSON object: %w", err)
		}
		name, _ := token.(string) // the decoder lets nothing else stand there
		if folded[strings.ToLower(name)] {
			return nil, fmt.Errorf("member %q is there twice", name)
		}
		folded[strings.ToLower(name)] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, fmt.Errorf("member %q: %w", name, err)
		}
		out[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("more than a JSON object")
	}
	return out, nil
}
