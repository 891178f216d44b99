package export

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"steno/shared/custody"
)

// proof is what the log says about the units of a package.
type proof struct {
	checkpoint custody.Checkpoint
	signature  []byte
	tree       *custody.Tree
	records    []proven // in the order of leaves
	keyID      string   // of the vault
	spki       []byte
	commits    map[string]map[string]bool // commitments by unit/object
}

// proven is a record and its leaf.
type proven struct {
	record custody.Record
	index  int64
}

// kid is the fingerprint of the key.
func (p *proof) kid() string { return custody.Fingerprint(p.spki) }

// prove finds every record about the units, and what binds their objects, in the log as it
// stands, and has that signed. If a record of an object is not there yet the order waits,
// unless it has waited for long enough.
func (e *Exporter) prove(ctx context.Context, items []item, settle bool) (*proof, error) {
	tiles := &cachedTiles{Tiles: e.s.Tiles}
	origin := custody.Origin(e.c.Tenant)
	head, _, err := custody.ReadHead(ctx, tiles)
	if err != nil {
		return nil, err
	}
	p := &proof{commits: map[string]map[string]bool{}}
	if p.checkpoint, err = head.Checkpoint(origin); err != nil {
		return nil, err
	}
	p.tree = custody.NewTree(tiles, p.checkpoint)
	about, err := e.about(ctx, items)
	if err != nil {
		return nil, err
	}
	if err := p.locate(ctx, about); err != nil {
		return nil, err
	}
	missing, grown := p.bind(items)
	if grown != "" {
		return nil, fmt.Errorf("%s has grown meanwhile: %w", grown, errLater)
	}
	if number := p.unexplained(items); number != "" {
		return nil, fmt.Errorf("%s, which is neither stored nor void: %w", number, errLater)
	}
	if missing != "" && !settle {
		return nil, fmt.Errorf("the record that binds %s: %w", missing, errLater)
	}
	id, key, err := e.s.Signer.SigningKey(ctx)
	if err != nil {
		return nil, err
	}
	if p.spki, err = x509.MarshalPKIXPublicKey(key); err != nil {
		return nil, err
	}
	p.keyID = id
	p.signature, err = e.s.Signer.Sign(ctx, id, sha256.Sum256(p.checkpoint.Text()))
	return p, err
}

// about lists the records of the trail that speak of the units or of their conversations,
// from when the first object was captured on. The trail is read day by day.
func (e *Exporter) about(ctx context.Context, items []item) ([]custody.Record, error) {
	wanted := map[string]bool{}
	var first time.Time
	for _, it := range items {
		wanted[string(it.facts.ID)] = true
		for _, u := range it.units {
			wanted[u.name] = true
			for _, o := range u.objects {
				if first.IsZero() || o.since.Before(first) {
					first = o.since
				}
			}
		}
	}
	var out []custody.Record
	now := e.c.Now()
	for from := first.Add(-time.Hour).UTC().Truncate(24 * time.Hour); from.Before(now); from = from.AddDate(0, 0, 1) {
		records, err := e.s.Trail.Trail.Range(ctx, from, from.AddDate(0, 0, 1), math.MaxInt32)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if wanted[r.Item] || slices.ContainsFunc(r.Objects, func(o custody.Object) bool { return wanted[o.Unit] }) {
				out = append(out, r)
			}
		}
	}
	return out, nil
}

// locate finds the leaves of records. Those that are not in the tree yet are left out.
func (p *proof) locate(ctx context.Context, records []custody.Record) error {
	finder := p.tree.Finder()
	for _, r := range records {
		i, err := finder.Find(ctx, r.ID)
		if errors.Is(err, custody.ErrNoLeaf) {
			continue
		}
		if err != nil {
			return err
		}
		p.records = append(p.records, proven{r, i})
	}
	slices.SortFunc(p.records, func(a, b proven) int { return cmp.Compare(a.index, b.index) })
	return nil
}

// bind notes which objects the records bind. It returns one that none does, and a unit of
// which the log knows more than was looked up before.
func (p *proof) bind(items []item) (missing, grown string) {
	total := map[string]int{}
	for _, it := range items {
		for _, u := range it.units {
			total[u.name] = u.total
		}
	}
	for _, r := range p.records {
		if r.record.Action != custody.Sealed {
			continue
		}
		for _, o := range r.record.Objects {
			if n, ours := total[o.Unit]; ours && o.Seq >= n {
				grown = o.Unit
			}
			key := o.Unit + "/" + o.Object
			if p.commits[key] == nil {
				p.commits[key] = map[string]bool{}
			}
			if o.Commit != "" {
				p.commits[key][o.Commit] = true
			}
		}
	}
	for _, it := range items {
		for _, u := range it.units {
			for i := range u.objects {
				o := &u.objects[i]
				o.bound = len(p.commits[u.name+"/"+o.name]) > 0
				if !o.bound {
					missing = u.name + "/" + o.name
				}
			}
		}
	}
	return missing, grown
}

// unexplained returns a number of a unit that is neither that of an object nor void by a
// record: a package with it would not verify.
func (p *proof) unexplained(items []item) string {
	type number struct {
		unit string
		seq  int
	}
	known := map[number]bool{}
	for _, r := range p.records {
		if r.record.Action != custody.Sealed {
			continue
		}
		for _, o := range r.record.Objects {
			if o.Void {
				known[number{o.Unit, o.Seq}] = true
			}
		}
	}
	for _, it := range items {
		for _, u := range it.units {
			for _, o := range u.objects {
				known[number{u.name, o.seq}] = true
			}
			for seq := range u.total {
				if !known[number{u.name, seq}] {
					return fmt.Sprintf("object %d of %s", seq, u.name)
				}
			}
		}
	}
	return ""
}

// write writes the folder proof, the key, and the extract of the trail.
func (p *proof) write(ctx context.Context, a *archive, o []int64) error {
	var leaves, extract strings.Builder
	for n, r := range p.records {
		b, err := r.record.Encode()
		if err != nil {
			return err
		}
		d, err := r.record.Digest()
		if err != nil {
			return err
		}
		path, err := p.tree.ProveInclusion(ctx, r.index)
		if err != nil {
			return err
		}
		if err := custody.CheckInclusion(p.checkpoint, r.index, d, path); err != nil {
			return fmt.Errorf("record %s is not what was logged: %w", r.record.ID, err)
		}
		if err := a.put(fmt.Sprintf("proof/records/%06d.json", n), b); err != nil {
			return err
		}
		if err := a.put(fmt.Sprintf("proof/inclusion/%06d.txt", n), steps(path, r.index, p.checkpoint.Size)); err != nil {
			return err
		}
		fmt.Fprintf(&leaves, "%06d %d %s\n", n, r.index, r.record.ID)
		extract.Write(b)
		extract.WriteByte('\n')
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: p.spki})
	err := errors.Join(
		a.put("proof/leaves.txt", []byte(leaves.String())),
		a.put("custody/extract.ndjson", []byte(extract.String())),
		a.put("custody/extract.csv", table(p.records)),
		a.put("proof/checkpoint", p.checkpoint.Text()),
		a.put("proof/checkpoint.sig", p.signature),
		a.put("keys/"+p.kid()+".pem", key),
	)
	if err != nil {
		return err
	}
	slices.Sort(o)
	for _, older := range slices.Compact(o) {
		if older >= p.checkpoint.Size {
			continue // equal needs no proof, and what is larger none can prove
		}
		path, err := p.tree.ProveConsistency(ctx, older)
		if err != nil {
			return err
		}
		var b strings.Builder
		for _, h := range path {
			b.WriteString(hex.EncodeToString(h[:]) + "\n")
		}
		if err := a.put(fmt.Sprintf("proof/consistency/%d.txt", older), []byte(b.String())); err != nil {
			return err
		}
	}
	return nil
}

// steps writes an inclusion proof for those who fold hashes without arithmetic: on which
// side each sibling stands follows from index and size (RFC 9162 section 2.1.3.2).
func steps(path []custody.Digest, index, size int64) []byte {
	var b strings.Builder
	fn, sn := index, size-1
	for _, h := range path {
		side := "R"
		if fn&1 == 1 || fn == sn {
			side = "L"
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		}
		fn, sn = fn>>1, sn>>1
		fmt.Fprintf(&b, "%s %x\n", side, h[:])
	}
	return []byte(b.String())
}

// table is the extract for spreadsheets: every cell quoted, and none a formula.
func table(records []proven) []byte {
	var b strings.Builder
	row := func(cells ...string) {
		for i, c := range cells {
			if i > 0 {
				b.WriteByte(',')
			}
			if c != "" && strings.ContainsRune("=+-@\t\r", rune(c[0])) {
				c = "'" + c
			}
			b.WriteString(`"` + strings.ReplaceAll(c, `"`, `""`) + `"`)
		}
		b.WriteString("\r\n")
	}
	row("leaf", "id", "at", "action", "actor", "system", "item", "objects", "reason", "detail")
	for _, p := range records {
		r := p.record
		var objects []string
		for _, o := range r.Objects {
			objects = append(objects, o.Unit+"/"+o.Object+"="+cmp.Or(o.SHA256, "void"))
		}
		row(fmt.Sprint(p.index), r.ID, r.At.UTC().Format(time.RFC3339Nano), string(r.Action), string(r.Actor), r.System, r.Item, strings.Join(objects, " "), r.Reason, r.Detail)
	}
	return []byte(b.String())
}

// cachedTiles reads each file of the log once, as long as few were read: proofs of
// neighbors share most of theirs. The head is not kept.
type cachedTiles struct {
	custody.Tiles
	m map[string][]byte
}

// maxCached is how many files are kept, of 8 KiB at most.
const maxCached = 1024

func (c *cachedTiles) Read(ctx context.Context, name string) ([]byte, error) {
	if b, ok := c.m[name]; ok {
		return b, nil
	}
	b, err := c.Tiles.Read(ctx, name)
	if err != nil {
		return nil, err
	}
	if c.m == nil || len(c.m) >= maxCached {
		c.m = map[string][]byte{}
	}
	c.m[name] = b
	return b, nil
}
