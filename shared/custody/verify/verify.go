package main

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"steno/shared/custody"
)

// verify does the steps of section 5 of FORMAT.md, and stops at the first that does not hold.
func verify(p *pkg, t trust) *report {
	r := &report{}
	if err := p.container(); err != nil {
		r.fail("1 container", err)
		return r
	}
	r.hold("1 container: %d files, each as %s lists it", len(p.names), sumsName)
	key, kid, err := p.signingKey()
	if err != nil {
		r.fail("2 key", err)
		return r
	}
	raw, err := p.read(packageName, maxTable)
	if err == nil {
		_, err = p.checkSignature(key, signatureName, raw)
	}
	var c *contents
	if err == nil {
		c, err = p.contents(raw)
	}
	if err != nil {
		r.fail("3 signature", err)
		return r
	}
	if err := checkKey(kid, c, t, r); err != nil {
		r.fail("2 key", err)
		return r
	}
	r.hold("2 key: %s", kid)
	r.hold("3 signature: %d conversations of tenant %s, export %s", len(c.Conversations), c.Tenant, c.Export)
	cp, err := p.checkpoint(key, c.Origin)
	if err != nil {
		r.fail("4 checkpoint", err)
		return r
	}
	r.hold("4 checkpoint: %d leaves, root %x", cp.Size, cp.Root[:])
	p.verifyEvidence(r, c, cp)
	if r.failure != nil || t.checkpoint == nil {
		return r
	}
	older, err := p.continues(key, cp, t)
	if err != nil {
		r.fail("10 older checkpoint", err)
		return r
	}
	r.hold("10 older checkpoint: everything of its %d leaves is in this log", older.Size)
	return r
}

// container is step 1.
func (p *pkg) container() error {
	if err := p.checkPlaces(); err != nil {
		return err
	}
	if err := p.digests(); err != nil {
		return err
	}
	return p.checkSums()
}

// contents is the part of step 3 that comes after the signature.
func (p *pkg) contents(raw []byte) (*contents, error) {
	c, err := decodeContents(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", packageName, err)
	}
	if c.Sums != fmt.Sprintf("%x", p.files[sumsName].sum) {
		return nil, fmt.Errorf("%s: not the one that was signed", sumsName)
	}
	return c, nil
}

// verifyEvidence is steps 5 to 9.
func (p *pkg) verifyEvidence(r *report, c *contents, cp custody.Checkpoint) {
	t, err := p.records(cp, c)
	if err != nil {
		r.fail("5 records", err)
		return
	}
	r.hold("5 records: %d, each in the log", t.records)
	s, err := p.evidence(c)
	var unproven int
	if err == nil {
		unproven, err = p.openings(s, t, c)
	}
	if err != nil {
		r.fail("6 evidence", err)
		return
	}
	r.hold("6 evidence: %d objects, %d of them bound by the log", s.n, s.n-unproven)
	if unproven > 0 {
		r.doubt("%d objects have no record yet", unproven)
	}
	for _, conv := range c.Conversations {
		for _, u := range conv.Units {
			if err := s.complete(u, conv.ID, t); err != nil {
				r.fail("7 completeness", err)
				return
			}
			if err := p.bound(s, u, t); err != nil {
				r.fail("8 bundles", err)
				return
			}
		}
	}
	r.hold("7 completeness: no number is missing")
	r.hold("8 bundles: %d, each bound by its manifest", s.b)
	if err := errors.Join(p.checkExtract(t), p.checkDerived(c)); err != nil {
		r.fail("9 other files", err)
		return
	}
	r.hold("9 other files: the extract of the trail is the records; %d derived files", len(c.Derived))
}

// checkExtract compares the extract of the trail with the records.
func (p *pkg) checkExtract(t *trail) error {
	if [sha256.Size]byte(t.extract.Sum(nil)) != p.files[extractName].sum {
		return fmt.Errorf("%s: not the records of proof/records", extractName)
	}
	return nil
}
