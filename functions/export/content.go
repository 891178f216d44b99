package export

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
)

// Limits of what is read at once.
const (
	maxBatch    = 64 << 20
	maxManifest = 64 << 20
)

// reader opens the evidence of one unit. A receipt lasts for minutes and a long recording
// takes longer, so it leaves an event whenever the one before runs out.
type reader struct {
	e       *Exporter
	order   policy.ExportOrder
	unit    string
	receipt custody.Receipt
	held    *evidence.Packed
	heldAs  string
	heldFor string // event of the receipt that the pack was opened with: its members open while that is good
}

func (r *reader) ref(object string) evidence.Ref {
	return evidence.Ref{Tenant: r.e.c.Tenant, Unit: r.unit, Object: object}
}

// admitted returns a receipt that is good for a while yet.
func (r *reader) admitted(ctx context.Context) (custody.Receipt, error) {
	if r.receipt.Covers(r.unit, r.e.c.Now().Add(custody.Lifetime/2)) == nil {
		return r.receipt, nil
	}
	receipt, err := r.e.s.Trail.Append(ctx, custody.Event{
		Tenant: r.e.c.Tenant, Action: custody.Exported, Actor: r.order.Requester, Item: r.unit, Detail: "export-" + r.order.ID,
	})
	if err == nil {
		r.receipt = receipt
	}
	return receipt, err
}

// read reads an object whole, with what opens its commitment.
func (r *reader) read(ctx context.Context, object string, limit int64) (plain []byte, blind [sha256.Size]byte, err error) {
	receipt, err := r.admitted(ctx)
	if err != nil {
		return nil, blind, err
	}
	o, err := r.e.s.Evidence.Open(ctx, r.ref(object), receipt)
	if err != nil {
		return nil, blind, err
	}
	plain, err = o.ReadAll(limit)
	return plain, o.Blind(), err
}

// bundle opens the i-th bundle of a leg. The pack it lies in stays in memory until another
// one is asked for.
func (r *reader) bundle(ctx context.Context, m conversation.Manifest, i int) (*evidence.Object, error) {
	receipt, err := r.admitted(ctx)
	if err != nil {
		return nil, err
	}
	b := m.Bundles[i]
	if b.Pack < 0 {
		return nil, failure{fmt.Sprintf("a bundle of %s lies in no pack", r.unit)}
	}
	pack := m.Packs[b.Pack].Object
	if r.held == nil || r.heldAs != pack || r.heldFor != receipt.Event() {
		p, err := r.e.s.Evidence.OpenPack(ctx, r.ref(pack), receipt)
		if err != nil {
			return nil, err
		}
		if _, _, err := p.Digest(ctx); err != nil {
			return nil, err
		}
		r.held, r.heldAs, r.heldFor = p, pack, receipt.Event()
	}
	return r.held.Open(ctx, b.Object)
}

// writeItem writes one conversation, and returns the lines of proof/objects.txt.
func (e *Exporter) writeItem(ctx context.Context, a *archive, o policy.ExportOrder, n int, it *item, p *proof) ([]string, error) {
	var lines []string
	var sources []string
	var batches [][]byte
	var files attached
	for ui := range it.units {
		u := &it.units[ui]
		r := &reader{e: e, order: o, unit: u.name}
		for _, obj := range u.objects {
			limit := int64(maxBatch)
			if u.leg != nil {
				limit = maxManifest
			}
			plain, blind, err := r.read(ctx, obj.name, limit)
			if errors.Is(err, evidence.ErrNotFound) {
				return nil, fmt.Errorf("object %s of %s: %w", obj.name, u.name, errLater)
			}
			if err != nil {
				return nil, err
			}
			path := obj.path(*u)
			if err := a.put(path, plain); err != nil {
				return nil, err
			}
			if !obj.file {
				sources = append(sources, path)
			}
			if obj.bound {
				commit := evidence.Commitment(blind, sha256.Sum256(plain))
				if !p.commits[u.name+"/"+obj.name][hex.EncodeToString(commit[:])] {
					return nil, fmt.Errorf("object %s of %s is not what the custody log binds: %w", obj.name, u.name, custody.ErrProof)
				}
				lines = append(lines, fmt.Sprintf("%x %x %s\n", commit[:], blind[:], path))
			}
			if obj.file {
				if err := files.add(obj.name, path, plain); err != nil {
					return nil, err
				}
				continue
			}
			if u.leg == nil {
				batches = append(batches, plain)
				continue
			}
			m, err := conversation.DecodeManifest(plain)
			if err != nil {
				return nil, err
			}
			if err := e.writeLeg(ctx, a, r, n, ui, m, path); err != nil {
				return nil, err
			}
		}
	}
	if it.facts.Call == nil {
		list, err := e.writeFiles(ctx, a, o, n, *it, &files)
		if err != nil {
			return nil, err
		}
		if err := writeChat(a, n, it.facts, batches, sources, list); err != nil {
			return nil, err
		}
	}
	facts, err := json.MarshalIndent(it.facts, "", "  ")
	if err != nil {
		return nil, err
	}
	folder := "chat"
	if it.facts.Call != nil {
		folder = "media"
	}
	return lines, errors.Join(
		a.derive(fmt.Sprintf("%s/%06d/conversation.json", folder, n), "catalog", sources, write(facts)),
		a.derive(fmt.Sprintf("vcon/%06d.json", n), "vcon", sources, func(w io.Writer) error {
			return writeVCon(w, *it, n, batches, a)
		}),
	)
}

func write(b []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(b))
		return err
	}
}
