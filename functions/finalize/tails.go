package finalize

import (
	"context"
	"errors"
	"fmt"

	"steno/shared/conversation"
	"steno/shared/evidence"
)

// packTails packs what lies in the short-lived store and in no pack: the recorder died
// before it could.
func (l *leg) packTails(ctx context.Context) error {
	list, err := l.evidence.Tails(ctx, l.n.Tenant, string(l.n.Leg))
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, t := range list {
		if !l.packed[t.Name] {
			there[t.Name] = true
		}
	}
	next := 0
	if n := len(l.manifest.Bundles); n > 0 {
		next = l.manifest.Bundles[n-1].Seq + 1
	}
	for len(there) > 0 {
		var members []evidence.Sealed
		var size int
		found := false
		for ; len(there) > 0 && size < packSize && next < maxBundles; next++ {
			for part := 0; part <= conversation.MaxParts; part++ {
				object := conversation.BundleObject(l.n.Leg, next, part)
				if !there[object] {
					continue
				}
				delete(there, object)
				s, err := l.evidence.Tail(ctx, l.ref(object))
				if errors.Is(err, evidence.ErrCorrupt) {
					l.fault("a tail does not verify")
					continue
				}
				if err != nil {
					return err
				}
				members, size, found = append(members, s), size+len(s.Bytes), true
			}
		}
		if !found {
			l.fault(fmt.Sprintf("%d tails are no bundles of this leg", len(there)))
			return nil
		}
		if err := l.pack(ctx, members); err != nil {
			return err
		}
	}
	return nil
}

const (
	packSize = 16 << 20
	// maxBundles bounds the search for the place of a tail: three days of call.
	maxBundles = 3 * 24 * 600
)

func (l *leg) pack(ctx context.Context, members []evidence.Sealed) error {
	object := conversation.PackObject(l.n.Leg, len(l.manifest.Packs))
	p, err := evidence.NewPack(l.ref(object), members)
	if err != nil {
		return err
	}
	if err := l.evidence.PutPack(ctx, p); err != nil && !errors.Is(err, evidence.ErrExists) {
		return err
	}
	receipt, err := l.open(ctx)
	if err != nil {
		return err
	}
	opened, err := l.evidence.OpenPack(ctx, l.ref(object), receipt)
	if err != nil {
		return err
	}
	return l.readPack(ctx, object, opened)
}

func (l *leg) dropPacked(ctx context.Context) error {
	list, err := l.evidence.Tails(ctx, l.n.Tenant, string(l.n.Leg))
	if err != nil {
		return err
	}
	for _, t := range list {
		if !l.packed[t.Name] {
			continue
		}
		if err := l.evidence.DropTail(ctx, l.ref(t.Name)); err != nil {
			return err
		}
	}
	return nil
}

// dropTails tidies up after a sealing that was cut off at its last step.
func (f *Finalizer) dropTails(ctx context.Context, n conversation.LegNotice, sealed conversation.Leg) error {
	list, err := f.evidence.Tails(ctx, n.Tenant, string(n.Leg))
	if err != nil || len(list) == 0 {
		return err
	}
	l := &leg{Finalizer: f, n: n, packed: map[string]bool{}}
	receipt, err := l.open(ctx)
	if err != nil {
		return err
	}
	for i := range sealed.Packs {
		p, err := f.evidence.OpenPack(ctx, l.ref(conversation.PackObject(n.Leg, i)), receipt)
		if err != nil {
			return err
		}
		for _, m := range p.Members {
			if err := p.Verify(ctx, m.Object); err != nil {
				return err
			}
			l.packed[m.Object] = true
		}
	}
	return l.dropPacked(ctx)
}
