package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"steno/shared/custody"
)

const (
	checkpointName = "proof/checkpoint"
	leavesName     = "proof/leaves.txt"
	objectsName    = "proof/objects.txt"
	extractName    = "custody/extract.ndjson"
)

// checkpoint is step 4.
func (p *pkg) checkpoint(key *ecdsa.PublicKey, origin string) (custody.Checkpoint, error) {
	text, err := p.read(checkpointName, maxMessage)
	if err != nil {
		return custody.Checkpoint{}, err
	}
	sig, err := p.checkSignature(key, checkpointName+".sig", text)
	if err != nil {
		return custody.Checkpoint{}, err
	}
	cp, err := custody.VerifyCheckpoint(key, origin, text, sig)
	if err != nil {
		return cp, fmt.Errorf("%s: %w", checkpointName, err)
	}
	return cp, nil
}

// trail is what the records of a package say about its evidence.
type trail struct {
	records int
	seals   map[string][]custody.Object // by unit, for the units of the package
	gone    map[string]bool             // units, and "unit/object", that were disposed of or erased
	entries int                         // of seals and gone together
	extract hash.Hash
}

// maxEntries bounds what the entries of records take in memory.
const maxEntries = 2_000_000

// records is step 5: each record is canonical, of the tenant and in the log.
func (p *pkg) records(cp custody.Checkpoint, c *contents) (*trail, error) {
	b, err := p.read(leavesName, maxTable)
	if err != nil {
		return nil, err
	}
	t := &trail{seals: map[string][]custody.Object{}, gone: map[string]bool{}, extract: sha256.New()}
	for _, conv := range c.Conversations {
		for _, u := range conv.Units {
			t.seals[u.Unit] = nil
		}
	}
	last := int64(-1)
	for ; len(b) > 0; t.records++ {
		row, rest, ended := bytes.Cut(b, []byte("\n"))
		line := string(row)
		b = rest
		number, place, id, err := leafLine(line)
		if err != nil || !ended || number != fmt.Sprintf("%06d", t.records) {
			return nil, fmt.Errorf("%s: line %d: want the number of the record, the index of its leaf and its id", leavesName, t.records+1)
		}
		if place <= last {
			return nil, fmt.Errorf("%s: line %d: leaf %d after leaf %d", leavesName, t.records+1, place, last)
		}
		last = place
		if err := p.record(t, cp, c, number, place, id); err != nil {
			return nil, err
		}
	}
	for dir, want := range map[string]int{"proof/records/": t.records, "proof/inclusion/": t.records} {
		if got := len(p.under(dir)); got != want {
			return nil, fmt.Errorf("%s: %d files for the %d records of %s", dir, got, want, leavesName)
		}
	}
	return t, p.checkProofPlaces()
}

// leafLine takes a line of leaves.txt apart.
func leafLine(line string) (number string, place int64, id string, err error) {
	parts := strings.Split(line, " ")
	if len(parts) != 3 {
		return "", 0, "", errors.New("want three parts")
	}
	place, err = strconv.ParseInt(parts[1], 10, 64)
	if err != nil || strconv.FormatInt(place, 10) != parts[1] {
		return "", 0, "", errors.New("want the index of a leaf")
	}
	return parts[0], place, parts[2], nil
}

// record checks one record and notes what it says.
func (p *pkg) record(t *trail, cp custody.Checkpoint, c *contents, number string, place int64, id string) error {
	name := "proof/records/" + number + ".json"
	b, err := p.read(name, custody.MaxRecord)
	if err != nil {
		return err
	}
	r, err := custody.DecodeRecord(b)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if r.Tenant != c.Tenant {
		return fmt.Errorf("%s: a record of another tenant", name)
	}
	if r.ID != id {
		return fmt.Errorf("%s: its id is not the one in %s", name, leavesName)
	}
	if err := p.inclusion("proof/inclusion/"+number+".txt", cp, place, sha256.Sum256(append([]byte("steno-custody-event-v1\x00"), b...))); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	_, _ = t.extract.Write(append(b, '\n')) // never fails
	t.note(r)
	if t.entries > maxEntries {
		return fmt.Errorf("%s: more than %d entries for the units of one package", name, maxEntries)
	}
	return nil
}

// note keeps what a record says about units of the package.
func (t *trail) note(r custody.Record) {
	switch r.Action {
	case "seal":
		for _, o := range r.Objects {
			if _, ours := t.seals[o.Unit]; ours {
				t.seals[o.Unit] = append(t.seals[o.Unit], o)
				t.entries++
			}
		}
	case "dispose", "erase":
		if len(r.Objects) == 0 {
			t.gone[r.Item] = true
		}
		for _, o := range r.Objects {
			t.gone[o.Unit+"/"+o.Object] = true
		}
		t.entries += len(r.Objects)
	}
}

// inclusion checks that a digest is the leaf at that place.
func (p *pkg) inclusion(name string, cp custody.Checkpoint, place int64, d custody.Digest) error {
	b, err := p.read(name, maxMessage)
	if err != nil {
		return err
	}
	if place < 0 || place >= cp.Size {
		return fmt.Errorf("%s: leaf %d of a log of %d: a checkpoint that does not cover it", name, place, cp.Size)
	}
	sides := pathSides(place, cp.Size)
	lines := strings.SplitAfter(string(b), "\n")
	if len(lines) != len(sides)+1 || lines[len(sides)] != "" {
		return fmt.Errorf("%s: %d steps for leaf %d of %d, want %d", name, len(lines)-1, place, cp.Size, len(sides))
	}
	proof := make([]custody.Digest, len(sides))
	for i, side := range sides {
		h, ok := strings.CutPrefix(strings.TrimSuffix(lines[i], "\n"), side)
		if !ok || !isHex(h, len(proof[i])) {
			return fmt.Errorf("%s: line %d: want %q and a hash", name, i+1, side)
		}
		_, _ = hex.Decode(proof[i][:], []byte(h)) // it is hex
	}
	if err := custody.CheckInclusion(cp, place, d, proof); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// pathSides says on which side each sibling stands on the way from a leaf to the root, as
// RFC 9162 section 2.1.3.2 walks.
func pathSides(place, size int64) []string {
	var sides []string
	for fn, sn := place, size-1; sn > 0; fn, sn = fn>>1, sn>>1 {
		if fn&1 == 0 && fn != sn {
			sides = append(sides, "R ")
			continue
		}
		sides = append(sides, "L ")
		for fn&1 == 0 && fn != 0 {
			fn, sn = fn>>1, sn>>1
		}
	}
	return sides
}

// consistencyProof reads proof/consistency/SIZE.txt.
func (p *pkg) consistencyProof(name string) ([]custody.Digest, error) {
	b, err := p.read(name, maxMessage)
	if err != nil {
		return nil, err
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	proof := make([]custody.Digest, len(lines)-1)
	for i := range proof {
		h := string(bytes.TrimSuffix(lines[i], []byte("\n")))
		if !isHex(h, len(proof[i])) {
			return nil, fmt.Errorf("%s: line %d: want a hash", name, i+1)
		}
		_, _ = hex.Decode(proof[i][:], []byte(h)) // it is hex
	}
	if len(lines[len(proof)]) != 0 {
		return nil, fmt.Errorf("%s: its last line does not end", name)
	}
	return proof, nil
}

// checkProofPlaces refuses files in proof/ that nothing asks for.
func (p *pkg) checkProofPlaces() error {
	for _, name := range p.under("proof/") {
		switch name {
		case checkpointName, checkpointName + ".sig", leavesName, objectsName:
			continue
		}
		if strings.HasPrefix(name, "proof/records/") || strings.HasPrefix(name, "proof/inclusion/") {
			continue // as many as there are records, each of which was read
		}
		size, ok := strings.CutPrefix(name, "proof/consistency/")
		n, err := strconv.ParseInt(strings.TrimSuffix(size, ".txt"), 10, 64)
		if !ok || err != nil || n < 1 || size != strconv.FormatInt(n, 10)+".txt" {
			return fmt.Errorf("%s: a proof has no such file", name)
		}
		if _, err := p.consistencyProof(name); err != nil {
			return err
		}
	}
	return nil
}

// continues is step 10: the package's checkpoint continues one that somebody kept.
func (p *pkg) continues(key *ecdsa.PublicKey, cp custody.Checkpoint, t trust) (custody.Checkpoint, error) {
	older, err := custody.ParseCheckpoint(cp.Origin, t.checkpoint)
	if err != nil {
		return older, fmt.Errorf("the older checkpoint: %w", err)
	}
	if t.signature != nil {
		if older, err = custody.VerifyCheckpoint(key, cp.Origin, t.checkpoint, t.signature); err != nil {
			return older, fmt.Errorf("the older checkpoint is not signed by the key of this package (if an earlier key of the log signed it, verify it by that key and give its first three lines alone): %w", err)
		}
	}
	var proof []custody.Digest
	name := fmt.Sprintf("proof/consistency/%d.txt", older.Size)
	if _, ok := p.files[name]; ok {
		if proof, err = p.consistencyProof(name); err != nil {
			return older, err
		}
	}
	switch err := custody.CheckConsistency(older, cp, proof); {
	case errors.Is(err, custody.ErrRollback):
		return older, fmt.Errorf("rollback: %s: %w", checkpointName, err)
	case errors.Is(err, custody.ErrSplitView):
		return older, fmt.Errorf("split view: %s, by %s: %w", checkpointName, name, err)
	case err != nil:
		return older, fmt.Errorf("%s: %w", checkpointName, err)
	}
	return older, nil
}
