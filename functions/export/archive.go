package export

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"crypto/rand"

	"filippo.io/age"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
)

//go:embed verify.sh
var verifyScript []byte

//go:embed readme.txt
var readme string

// What a verifier accepts of a package (FORMAT.md section 1): more than that is refused
// before it is handed out.
const (
	maxEntries = 100_000
	maxPackage = 10 << 30
	// maxDeflated is up to how many bytes a file is compressed: a larger one may shrink
	// to less than a hundredth, and look like a bomb.
	maxDeflated = 1 << 20
)

// archive writes the files of a package into a ZIP stream and keeps their digests.
type archive struct {
	z    *zip.Writer
	size int64     // of all files
	made time.Time // what the files' headers say
	sums map[string][sha256.Size]byte
	// derived says what was made out of which evidence.
	derived []derived
}

type derived struct {
	From []string `json:"from"`
	Path string   `json:"path"`
	Tool string   `json:"tool"`
}

func newArchive(w io.Writer, made time.Time) *archive {
	return &archive{z: zip.NewWriter(w), made: made, sums: map[string][sha256.Size]byte{}}
}

// create writes one file of unknown length, stored as it is.
func (a *archive) create(name string, write func(io.Writer) error) error {
	return a.entry(name, zip.Store, write)
}

func (a *archive) entry(name string, method uint16, write func(io.Writer) error) error {
	if _, twice := a.sums[name]; twice {
		return fmt.Errorf("package: %s stands there twice", name)
	}
	if len(a.sums) >= maxEntries {
		return failure{fmt.Sprintf("a package of more than %d files; order fewer conversations at once", maxEntries)}
	}
	w, err := a.z.CreateHeader(&zip.FileHeader{Name: name, Method: method, Modified: a.made})
	if err != nil {
		return fmt.Errorf("package: %s: %w", name, err)
	}
	sum := sha256.New()
	if err := write(io.MultiWriter(w, sum, (*weighed)(a))); err != nil {
		return fmt.Errorf("package: %s: %w", name, err)
	}
	a.sums[name] = [sha256.Size]byte(sum.Sum(nil))
	return nil
}

// weighed counts what goes into an archive and refuses what is too much.
type weighed archive

func (a *weighed) Write(b []byte) (int, error) {
	if a.size += int64(len(b)); a.size > maxPackage {
		return 0, failure{fmt.Sprintf("a package of more than %d GiB; order fewer conversations at once", maxPackage>>30)}
	}
	return len(b), nil
}

// put writes a file of known bytes, compressed if it is small.
func (a *archive) put(name string, b []byte) error {
	method := uint16(zip.Deflate)
	if len(b) > maxDeflated || strings.HasSuffix(name, ".bundle") {
		method = zip.Store
	}
	return a.entry(name, method, write(b))
}

// derive writes a file that was made out of evidence. Media are streamed; what else is made
// of a conversation is as long as its messages, which are in memory.
func (a *archive) derive(name, tool string, from []string, write func(io.Writer) error) error {
	a.derived = append(a.derived, derived{From: append([]string{}, from...), Path: name, Tool: tool})
	if strings.HasSuffix(name, ".mp4") {
		return a.create(name, write)
	}
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return fmt.Errorf("package: %s: %w", name, err)
	}
	return a.put(name, b.Bytes())
}

// list is SHA256SUMS.
func (a *archive) list() []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(a.sums)) {
		sum := a.sums[name]
		fmt.Fprintf(&b, "%x  %s\n", sum[:], name)
	}
	return b.Bytes()
}

// contents is package.json; the members stand in the order of RFC 8785.
type contents struct {
	Conversations []contentsConversation `json:"conversations"`
	Derived       []derived              `json:"derived"`
	Export        string                 `json:"export"`
	Format        string                 `json:"format"`
	Key           string                 `json:"key"`
	Made          string                 `json:"made"`
	Maker         string                 `json:"maker"`
	Origin        string                 `json:"origin"`
	Salt          string                 `json:"salt"`
	Sums          string                 `json:"sums"`
	Tenant        string                 `json:"tenant"`
}

type contentsConversation struct {
	ID       string                `json:"id"`
	Modality conversation.Modality `json:"modality"`
	Units    []contentsUnit        `json:"units"`
}

type contentsUnit struct {
	Objects  int      `json:"objects"`
	Unit     string   `json:"unit"`
	Unproven []string `json:"unproven"`
}

// write writes the whole package.
func (e *Exporter) write(ctx context.Context, w io.Writer, o policy.ExportOrder, items []item, p *proof) error {
	a := newArchive(w, e.c.Now().UTC().Truncate(time.Second))
	var opened []string
	for n := range items {
		lines, err := e.writeItem(ctx, a, o, n, &items[n], p)
		if err != nil {
			return err
		}
		opened = append(opened, lines...)
	}
	slices.SortFunc(opened, func(a, b string) int { return strings.Compare(a[130:], b[130:]) }) // by path
	err := errors.Join(
		a.put("proof/objects.txt", []byte(strings.Join(opened, ""))),
		p.write(ctx, a, o.Checkpoints),
		a.put("index.html", indexPage(o, items, a.derived)),
		a.put("README.txt", []byte(strings.ReplaceAll(readme, "FINGERPRINT", p.kid()))),
		a.put("VERIFY.sh", verifyScript),
	)
	if err != nil {
		return err
	}
	sums := a.list()
	if err := a.put("SHA256SUMS", sums); err != nil {
		return err
	}
	c := e.contents(o, items, p, a.derived, sums)
	b, err := canonical(c)
	if err != nil {
		return err
	}
	signature, err := e.s.Signer.Sign(ctx, p.keyID, sha256.Sum256(b))
	if err != nil {
		return err
	}
	if err := errors.Join(a.put("package.json", b), a.put("package.sig", signature)); err != nil {
		return err
	}
	return a.z.Close()
}

func (e *Exporter) contents(o policy.ExportOrder, items []item, p *proof, d []derived, sums []byte) contents {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails since Go 1.24
	digest := sha256.Sum256(sums)
	c := contents{
		Conversations: []contentsConversation{}, Derived: append([]derived{}, d...), Export: o.ID, Format: "steno-export-package/1",
		Key: p.kid(), Made: e.c.Now().UTC().Format(time.RFC3339), Maker: e.c.Maker, Origin: custody.Origin(e.c.Tenant),
		Salt: hex.EncodeToString(salt), Sums: hex.EncodeToString(digest[:]), Tenant: string(e.c.Tenant),
	}
	for _, it := range items {
		conv := contentsConversation{ID: string(it.facts.ID), Modality: it.facts.Modality, Units: []contentsUnit{}}
		for _, u := range it.units {
			cu := contentsUnit{Objects: u.total, Unit: u.name, Unproven: []string{}}
			for _, o := range u.objects {
				if !o.bound {
					cu.Unproven = append(cu.Unproven, o.name)
				}
			}
			conv.Units = append(conv.Units, cu)
		}
		c.Conversations = append(c.Conversations, conv)
	}
	return c
}

// canonical is the JSON of RFC 8785 of a value whose members stand in its order and whose
// texts need no escape that encoding/json makes and the RFC does not.
func canonical(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("package: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// encrypted encrypts what is written to it to an age recipient, if there is one. Close
// finishes the encryption and leaves w open.
func encrypted(w io.Writer, recipient string) (io.WriteCloser, error) {
	if recipient == "" {
		return plain{w}, nil
	}
	r, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		return nil, fmt.Errorf("recipient: %w", err)
	}
	return age.Encrypt(w, r)
}

type plain struct{ io.Writer }

func (plain) Close() error { return nil }
