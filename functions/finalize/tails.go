package finalize

import (
	"context"
	"errors"
	"fmt"

	"steno/shared/conversation"
	"steno/shared/evidence"
)

// packTails packs what lies in the short-lived store and in no good pack: the recorder
// died before it could, or a pack of it is gone. Packs are numbered from n on.
func (l *leg) packTails(ctx context.Context, n int) error {
	list, err := l.evidence.Tails(ctx, l.n.Tenant, string(l.n.Leg))
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, t := range list {
		if _, ok := l.placed[t.Name]; !ok {
			there[t.Name] = true
		}
	}
	for seq := 0; len(there) > 0; n++ {
		var members []evidence.Sealed
		for size := 0; len(there) > 0 && size < packSize && seq < maxBundles; seq++ {
			for part := 0; part <= conversation.MaxParts; part++ {
				object := conversation.BundleObject(l.n.Leg, seq, part)
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
				members, size = append(members, s), size+len(s.Bytes)
			}
		}
		if len(members) == 0 {
			break
		}
		if err := l.pack(ctx, n, members); err != nil {
			return err
		}
	}
	if len(there) > 0 {
		l.fault(fmt.Sprintf("%d tails are no bundles of this leg", len(there)))
	}
	return nil
}

const (
	packSize = 16 << 20
	// maxBundles bounds the search for the place of a tail: three days of call.
	maxBundles = 3 * 24 * 600
)

// pack stores members as the n-th pack. A name that is filled was filled by an earlier
// try, with the same tails.
func (l *leg) pack(ctx context.Context, n int, members []evidence.Sealed) error {
	object := conversation.PackObject(l.n.Leg, n)
	p, err := evidence.NewPack(l.ref(object), members)
	if err != nil {
		return err
	}
	p.Until = l.keep
	if err := l.evidence.PutPack(ctx, p); err != nil && !errors.Is(err, evidence.ErrExists) {
		return err
	}
	return l.takePack(ctx, object)
}

func (l *leg) dropPacked(ctx context.Context) error {
	list, err := l.evidence.Tails(ctx, l.n.Tenant, string(l.n.Leg))
	if err != nil {
		return err
	}
	for _, t := range list {
		if _, ok := l.placed[t.Name]; !ok {
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
	l := &leg{Finalizer: f, n: n, placed: map[string]placed{}}
	for n := range sealed.Packs {
		if err := l.takePack(ctx, conversation.PackObject(l.n.Leg, n)); err != nil {
			return err
		}
	}
	return l.dropPacked(ctx)
}
