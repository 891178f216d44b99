package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"steno/shared/custody"
	"steno/shared/teams"
)

const (
	packageFormat = "steno-export-package/1"
	packageName   = "package.json"
	signatureName = "package.sig"
	sumsName      = "SHA256SUMS"
)

// contents is package.json. The members of each of these types stand in the order of
// RFC 8785, so that encoding one gives its canonical form.
type contents struct {
	Conversations []conversation `json:"conversations"`
	Derived       []derived      `json:"derived"`
	Export        string         `json:"export"`
	Format        string         `json:"format"`
	Key           string         `json:"key"`
	Made          string         `json:"made"`
	Maker         string         `json:"maker"`
	Origin        string         `json:"origin"`
	Salt          string         `json:"salt"`
	Sums          string         `json:"sums"`
	Tenant        teams.TenantID `json:"tenant"`
}

type conversation struct {
	ID       string `json:"id"`
	Modality string `json:"modality"`
	Units    []unit `json:"units"`
}

type unit struct {
	Objects  int      `json:"objects"`
	Unit     string   `json:"unit"`
	Unproven []string `json:"unproven"`
}

type derived struct {
	From []string `json:"from"`
	Path string   `json:"path"`
	Tool string   `json:"tool"`
}

// decodeContents reads package.json in its one spelling. encoding/json alone would take members
// in any case and the last of two: bytes that mean one thing to it and another to a person
// with grep.
func decodeContents(b []byte) (*contents, error) {
	var c contents
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return nil, fmt.Errorf("not what FORMAT.md specifies: %w", err)
	}
	c.fill()
	var again bytes.Buffer
	enc := json.NewEncoder(&again)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(c); err != nil {
		return nil, err
	}
	// encoding/json writes line separators as \u2028, RFC 8785 as they are: neither is taken.
	if !bytes.Equal(bytes.TrimSuffix(again.Bytes(), []byte("\n")), b) || !utf8.Valid(b) || bytes.Contains(b, []byte(`\u202`)) {
		return nil, errors.New("not in its canonical form: members that are repeated, unknown or missing, or another spelling")
	}
	return &c, c.check()
}

// fill makes arrays that are missing or null empty, so that they are not canonical.
func (c *contents) fill() {
	c.Conversations = nonNil(c.Conversations)
	c.Derived = nonNil(c.Derived)
	for i := range c.Conversations {
		c.Conversations[i].Units = nonNil(c.Conversations[i].Units)
		for j := range c.Conversations[i].Units {
			c.Conversations[i].Units[j].Unproven = nonNil(c.Conversations[i].Units[j].Unproven)
		}
	}
	for i := range c.Derived {
		c.Derived[i].From = nonNil(c.Derived[i].From)
	}
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// check judges the values that need no other file.
func (c *contents) check() error {
	tenant, err := teams.ParseTenantID(string(c.Tenant))
	made, madeErr := time.Parse(time.RFC3339Nano, c.Made)
	switch {
	case c.Format != packageFormat:
		return fmt.Errorf("format %q: this program reads %s", c.Format, packageFormat)
	case err != nil || tenant != c.Tenant:
		return errors.New("tenant: want a lower-case GUID")
	case c.Origin != custody.Origin(c.Tenant):
		return fmt.Errorf("origin %q is not that of the tenant's log", c.Origin)
	case !isHex(c.Export, 16) || !isHex(c.Salt, 16) || !isHex(c.Sums, 32) || !isHex(c.Key, 32):
		return errors.New("export, salt, sums or key: want lower-case hex of 16 or 32 bytes")
	case madeErr != nil || made.UTC().Format(time.RFC3339Nano) != c.Made:
		return fmt.Errorf("made %q: want a time in RFC 3339, UTC", c.Made)
	}
	seen := map[string]bool{}
	for _, conv := range c.Conversations {
		for _, u := range conv.Units {
			switch {
			case !unitForm(u.Unit):
				return fmt.Errorf("unit %q: want 1 to 64 lower-case letters, digits and dashes", u.Unit)
			case seen[u.Unit]:
				return fmt.Errorf("unit %s stands there twice", u.Unit)
			case u.Objects < 0 || u.Objects > maxNumbers:
				return fmt.Errorf("unit %s: %d objects", u.Unit, u.Objects)
			}
			seen[u.Unit] = true
		}
	}
	return nil
}

// checkDerived checks the list of derived files: what is listed is there, and what is there is listed.
func (p *pkg) checkDerived(c *contents) error {
	listed := map[string]bool{}
	for _, d := range c.Derived {
		if _, ok := p.files[d.Path]; !ok || listed[d.Path] || !slices.Contains(derivedRoots, top(d.Path)) {
			return fmt.Errorf("derived %q: not in the package, listed twice, or not in a folder for derived files", d.Path)
		}
		listed[d.Path] = true
		for _, from := range d.From {
			if _, ok := p.files[from]; !ok || top(from) != "evidence" {
				return fmt.Errorf("derived %s: its source %q is not evidence in the package", d.Path, from)
			}
		}
	}
	for _, name := range p.names {
		if slices.Contains(derivedRoots, top(name)) && !listed[name] {
			return fmt.Errorf("%s: not listed under derived", name)
		}
	}
	return nil
}

var derivedRoots = []string{"media", "chat", "vcon", "rsmf"}

// fixedFiles are the files and folders a package may have beside those of derived files.
var fixedFiles = []string{
	"README.txt", "VERIFY.sh", "index.html", packageName, signatureName, sumsName, "custody/extract.ndjson", "custody/extract.csv",
}

// checkPlaces refuses files that FORMAT.md gives no place.
func (p *pkg) checkPlaces() error {
	for _, name := range p.names {
		t := top(name)
		known := t != name && (t == "evidence" || t == "proof" || t == "keys" || slices.Contains(derivedRoots, t))
		if !known && !slices.Contains(fixedFiles, name) {
			return fmt.Errorf("%s: a package has no such file", name)
		}
	}
	for _, name := range fixedFiles {
		if _, ok := p.files[name]; !ok {
			return fmt.Errorf("%s: is missing", name)
		}
	}
	return nil
}

// top is the first part of a name.
func top(name string) string {
	t, _, _ := strings.Cut(name, "/")
	return t
}

// checkSums compares SHA256SUMS with the digests of the files, line by line.
func (p *pkg) checkSums() error {
	b, err := p.read(sumsName, maxTable)
	if err != nil {
		return err
	}
	for _, name := range p.names {
		if name == packageName || name == signatureName || name == sumsName {
			continue
		}
		var line []byte
		var ended bool
		line, b, ended = bytes.Cut(b, []byte("\n"))
		if !ended {
			return fmt.Errorf("%s: ends before the line of %s does", sumsName, name)
		}
		if want := fmt.Sprintf("%x  %s", p.files[name].sum, name); string(line) != want {
			return p.explainSums(name, string(line))
		}
	}
	if len(b) != 0 {
		return fmt.Errorf("%s: goes on behind the last file, or lists a file that is missing", sumsName)
	}
	return nil
}

// explainSums says why a line is not the one of the next file.
func (p *pkg) explainSums(name, line string) error {
	digest, listed, ok := strings.Cut(line, "  ")
	_, there := p.files[listed]
	switch {
	case !ok || !isHex(digest, 32):
		return fmt.Errorf("%s: a line that is none, where %s is due", sumsName, name)
	case listed == name:
		return fmt.Errorf("%s: its SHA-256 is not the one in %s: it was changed", name, sumsName)
	case !there:
		return fmt.Errorf("%s lists %q, which is missing", sumsName, listed)
	}
	return fmt.Errorf("%s: not listed in %s, or not in its place", name, sumsName)
}

// unitForm is that of shared/evidence/FORMAT.md.
func unitForm(u string) bool {
	for _, c := range []byte(u) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(u) >= 1 && len(u) <= 64
}

// isHex says whether s is n bytes in lower-case hex.
func isHex(s string, n int) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'f') && (c < '0' || c > '9') {
			return false
		}
	}
	return len(s) == 2*n
}
